/* From a frame to its caller: unwind.h. */
#include "debug/unwind_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "debug/symbols.h"

#define CACHED_RULES 512

enum { RA = 1, SP = 2, FP = 8 };

#define KNOWN(number) (UINT32_C(1) << (number))

struct range {
    uint64_t low, high; /* empty: the symbol is not there */
};

struct unwinder {
    struct symbols *symbols; /* NULL: none */
    struct rules *rules;     /* found lately, by pc / 2 */

    /* Parts of Linux (arch/riscv/kernel/entry.S) that are unlike functions. */
    struct range exception, exception_return, stack_switch;
};

static struct range range_of(struct symbols *symbols, const char *name)
{
    struct symbol symbol;
    struct range range = {0};
    if (symbols_address(symbols, name, &range.low) && symbols_find(symbols, range.low, &symbol))
        range.high = symbol.address + symbol.size;
    else
        range.low = 0;
    return range;
}

static bool in_range(const struct range *range, uint64_t address)
{
    return address >= range->low && address < range->high;
}

struct unwinder *unwind_create(struct symbols *symbols)
{
    struct unwinder *unwinder = xcalloc(1, sizeof(*unwinder));
    if (!symbols)
        return unwinder;
    unwinder->symbols = symbols;
    unwinder->exception = range_of(symbols, "handle_exception");
    unwinder->exception_return = range_of(symbols, "ret_from_exception");
    unwinder->stack_switch = range_of(symbols, "call_on_irq_stack");
    unwinder->rules = xcalloc(CACHED_RULES, sizeof(*unwinder->rules));
    for (size_t i = 0; i < CACHED_RULES; i++)
        unwinder->rules[i].pc = 1; /* no address */
    return unwinder;
}

void unwind_destroy(struct unwinder *unwinder)
{
    if (!unwinder)
        return;
    free(unwinder->rules);
    free(unwinder);
}

/* --- A step ---------------------------------------------------------------------------------- */

/* A frame, and the means to leave it. */
struct step {
    struct unwinder *unwinder;
    struct unwind_registers *registers;
    uint32_t *known;
    bool innermost; /* pc is what runs */
    unwind_read *read;
    void *opaque;
};

/* A virtual address of 57 bits, the widest scheme's, is sign-extended. */
static bool is_code_address(uint64_t pc)
{
    return pc && !(pc & 1) && pc == (uint64_t)((int64_t)(pc << 7) >> 7);
}

/* jal, jalr or c.jalr, with a link register. */
static bool is_call(const struct step *step, uint64_t end)
{
    uint16_t halves[2];
    if (!step->read(step->opaque, end - sizeof(halves), halves, sizeof(halves)))
        return false;
    unsigned opcode = halves[0] & 0x7f;
    return ((opcode == 0x6f || opcode == 0x67) && (halves[0] & 0xf80)) ||
           ((halves[1] & 0xf07f) == 0x9002 && (halves[1] & 0xf80));
}

/* Something on the stack, or in ra, that a function may return to. Where no symbol says that there
 * is a function, it must be behind a call: programs without frame pointers have anything in s0. */
static bool is_return_address(const struct step *step, uint64_t pc)
{
    struct symbol symbol;
    if (!is_code_address(pc))
        return false;
    return (step->unwinder->symbols && symbols_find(step->unwinder->symbols, pc, &symbol) &&
            symbol.function) ||
           is_call(step, pc);
}

static const struct rules *find_rules(struct unwinder *unwinder, uint64_t pc)
{
    pc &= ~UINT64_C(1); /* behind a call less one: still in the call */
    struct rules *rules = &unwinder->rules[pc / 2 % CACHED_RULES];
    if (rules->pc != pc)
        cfi_find(unwinder->symbols, pc, rules);
    return rules->found ? rules : NULL;
}

static bool apply(const struct cfi_context *context, const struct rule *rule, unsigned number,
                  uint64_t *value)
{
    switch (rule->kind) {
    case RULE_SAME:
        *value = context->registers->x[number];
        return context->known & KNOWN(number);
    case RULE_MEMORY:
        return context->read(context->opaque, context->cfa + (uint64_t)rule->offset, value,
                             sizeof(*value));
    case RULE_CFA:
        *value = context->cfa + (uint64_t)rule->offset;
        return true;
    case RULE_REGISTER:
        *value = context->registers->x[rule->number] + (uint64_t)rule->offset;
        return context->known & KNOWN(rule->number);
    case RULE_EXPRESSION:
    case RULE_VALUE:
        return cfi_evaluate(context, rule, value);
    default:
        return false;
    }
}

/* The stack goes upward; only what runs, or was interrupted, may have no frame on it. */
static bool is_upward(const struct step *step, uint64_t sp)
{
    uint64_t old = step->registers->x[SP];
    return !(*step->known & KNOWN(SP)) || sp > old || (sp == old && step->innermost);
}

static bool step_by_rules(const struct step *step, const struct rules *rules)
{
    struct unwind_registers caller;
    uint32_t known = 0;
    struct cfi_context context = {
        .rules = rules,
        .registers = step->registers,
        .known = *step->known | KNOWN(0),
        .read = step->read,
        .opaque = step->opaque,
    };
    if (!apply(&context, &rules->cfa, 0, &context.cfa) || !is_upward(step, context.cfa) ||
        !apply(&context, &rules->return_address, RA, &caller.pc))
        return false;
    caller.x[0] = 0;
    for (unsigned i = 1; i < 32; i++) {
        caller.x[i] = step->registers->x[i];
        if (apply(&context, &rules->x[i], i, &caller.x[i]))
            known |= KNOWN(i);
    }
    if (rules->x[SP].kind == RULE_SAME || rules->x[SP].kind == RULE_UNDEFINED)
        caller.x[SP] = context.cfa; /* by convention */
    if (!is_code_address(caller.pc))
        return false;
    *step->registers = caller;
    *step->known = known | KNOWN(SP);
    return true;
}

/* The frame that s0 points behind: what is saved, and whether that can be. */
struct saved {
    uint64_t fp, ra;
};

static bool read_saved(const struct step *step, struct saved *saved)
{
    uint64_t fp = step->registers->x[FP];
    /* On another stack than the one before: there is no order between them. */
    bool switches = in_range(&step->unwinder->stack_switch, step->registers->pc);
    return (*step->known & KNOWN(FP)) && fp >= sizeof(*saved) && !(fp & 7) &&
           (switches || !(*step->known & KNOWN(SP)) || fp > step->registers->x[SP]) &&
           step->read(step->opaque, fp - sizeof(*saved), saved, sizeof(*saved));
}

/* What the caller of a function without a frame of its own, or not yet with one, may rely on. */
static bool step_by_ra(const struct step *step)
{
    uint64_t ra = step->registers->x[RA];
    if (!is_return_address(step, ra) || ra == step->registers->pc)
        return false;
    step->registers->pc = ra;
    *step->known &= ~KNOWN(RA);
    return true;
}

/* ra was not saved yet or never is: it leads to another function, and not to where s0's frame does.
 */
static bool is_frameless(const struct step *step, const struct saved *saved)
{
    struct symbol here, there;
    uint64_t ra = step->registers->x[RA];
    return step->innermost && step->unwinder->symbols && is_code_address(ra) && ra != saved->ra &&
           symbols_find(step->unwinder->symbols, step->registers->pc, &here) &&
           symbols_find(step->unwinder->symbols, ra - 1, &there) && here.address != there.address;
}

static enum unwind_method step_by_frame(const struct step *step)
{
    enum { LEAF_REACH = 1 << 20 };
    struct unwind_registers *registers = step->registers;
    uint64_t fp = registers->x[FP];
    struct saved saved;
    if (!read_saved(step, &saved))
        return step->innermost && step_by_ra(step) ? UNWIND_RA : UNWIND_START;
    /* A leaf of GCC's that saves s0 only, where ra would be. */
    if (step->innermost && saved.ra > fp && saved.ra - fp < LEAF_REACH && !(saved.ra & 15) &&
        step_by_ra(step)) {
        registers->x[SP] = fp;
        registers->x[FP] = saved.ra;
        *step->known = KNOWN(SP) | KNOWN(FP);
        return UNWIND_RA;
    }
    if (is_frameless(step, &saved) && step_by_ra(step))
        return UNWIND_RA;
    if (!is_return_address(step, saved.ra))
        return UNWIND_START;
    registers->pc = saved.ra;
    registers->x[RA] = saved.ra;
    registers->x[SP] = fp;
    registers->x[FP] = saved.fp;
    *step->known = KNOWN(SP) | KNOWN(FP);
    return UNWIND_FRAME_POINTER;
}

/* --- Exceptions of Linux --- */

/* struct pt_regs (arch/riscv/include/asm/ptrace.h): pc, x1..x31, sstatus. */
struct exception_frame {
    uint64_t pc, x[31], status;
};

#define STATUS_SPP (UINT64_C(1) << 8)

static bool is_exception(const struct step *step)
{
    uint64_t pc = step->registers->pc;
    return !step->innermost && (*step->known & KNOWN(SP)) &&
           (pc == step->unwinder->exception_return.low ||
            in_range(&step->unwinder->exception, pc - 1)) &&
           pc;
}

/* User programs have their own stacks, and are not gone on to. */
static bool step_by_exception(const struct step *step)
{
    struct exception_frame frame;
    uint64_t sp = step->registers->x[SP];
    if (!step->read(step->opaque, sp, &frame, sizeof(frame)) || !(frame.status & STATUS_SPP) ||
        !is_code_address(frame.pc) || frame.x[SP - 1] <= sp)
        return false;
    step->registers->pc = frame.pc;
    memcpy(&step->registers->x[1], frame.x, sizeof(frame.x));
    *step->known = UINT32_MAX;
    return true;
}

enum unwind_method unwind_step(struct unwinder *unwinder, struct unwind_registers *registers,
                               uint32_t *known, bool innermost, unwind_read *read, void *opaque)
{
    struct step step = {unwinder, registers, known, innermost, read, opaque};
    if (is_exception(&step))
        return step_by_exception(&step) ? UNWIND_EXCEPTION : UNWIND_START;
    const struct rules *rules =
        unwinder->symbols ? find_rules(unwinder, registers->pc - !innermost) : NULL;
    if (rules && rules->return_address.kind == RULE_UNDEFINED)
        return UNWIND_START; /* nobody called it */
    if (rules && step_by_rules(&step, rules))
        return rules->signal ? UNWIND_EXCEPTION : UNWIND_CFI;
    return step_by_frame(&step);
}

size_t unwind_backtrace(struct unwinder *unwinder, const struct unwind_registers *start,
                        unwind_read *read, void *opaque, struct unwind_frame *frames, size_t max)
{
    struct unwind_registers registers = *start;
    struct unwind_frame frame = {.pc = start->pc, .sp = start->x[SP], .method = UNWIND_START};
    uint32_t known = UINT32_MAX;
    size_t count = 0;
    registers.x[0] = 0;
    while (count < max && count < UNWIND_FRAMES_MAX) {
        bool innermost = !frame.after_call;
        frames[count++] = frame;
        enum unwind_method method =
            unwind_step(unwinder, &registers, &known, innermost, read, opaque);
        if (method == UNWIND_START)
            break;
        frame = (struct unwind_frame){
            .pc = registers.pc,
            .sp = known & KNOWN(SP) ? registers.x[SP] : 0,
            .after_call = method != UNWIND_EXCEPTION,
            .method = method,
        };
    }
    return count;
}
