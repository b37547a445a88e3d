/* Call frame information: rules from libdw, and the expressions that rules may be. */
#include "debug/symbols_elf.h"
#include "debug/unwind_internal.h"

#include <dwarf.h>
#include <stdlib.h>
#include <string.h>

/* --- Rules --- */

/* Operations that libdw keeps; those of simple rules are not among them. */
static void set_ops(struct rule *rule, enum rule_kind kind, const Dwarf_Op *ops, size_t count)
{
    *rule = (struct rule){.kind = count > UINT16_MAX ? RULE_UNDEFINED : kind,
                          .op_count = (uint16_t)count,
                          .ops = ops};
}

static bool is_register(const Dwarf_Op *op, uint64_t *number, int64_t *offset)
{
    if (op->atom >= DW_OP_breg0 && op->atom <= DW_OP_breg31) {
        *number = op->atom - DW_OP_breg0;
        *offset = (int64_t)op->number;
    } else if (op->atom == DW_OP_bregx) {
        *number = op->number;
        *offset = (int64_t)op->number2;
    } else {
        return false;
    }
    return *number < 32;
}

static bool read_cfa(Dwarf_Frame *frame, struct rule *rule)
{
    Dwarf_Op *ops;
    size_t count;
    uint64_t number;
    int64_t offset;
    if (dwarf_frame_cfa(frame, &ops, &count) || count == 0)
        return false;
    if (count == 1 && is_register(ops, &number, &offset))
        *rule = (struct rule){.kind = RULE_REGISTER, .number = (uint8_t)number, .offset = offset};
    else if (count == 1)
        return false; /* it may lie in the frame, which goes */
    else
        set_ops(rule, RULE_VALUE, ops, count);
    return true;
}

/* DW_OP_call_frame_cfa, perhaps with an offset, and perhaps as the value itself. */
static bool is_cfa(const Dwarf_Op *ops, size_t count, struct rule *rule)
{
    bool value = ops[count - 1].atom == DW_OP_stack_value;
    count -= value;
    if (count == 0 || count > 2 || ops[0].atom != DW_OP_call_frame_cfa ||
        (count == 2 && ops[1].atom != DW_OP_plus_uconst))
        return false;
    *rule = (struct rule){.kind = value ? RULE_CFA : RULE_MEMORY,
                          .offset = count == 2 ? (int64_t)ops[1].number : 0};
    return true;
}

static bool read_register(Dwarf_Frame *frame, int column, struct rule *rule)
{
    Dwarf_Op memory[3], *ops;
    size_t count;
    if (dwarf_frame_register(frame, column, memory, &ops, &count))
        return false;
    if (count == 0)
        *rule = (struct rule){.kind = ops == memory ? RULE_UNDEFINED : RULE_SAME};
    else if (is_cfa(ops, count, rule))
        return true;
    else if (count == 1 && ops->atom == DW_OP_regx && ops->number < 32)
        *rule = (struct rule){.kind = RULE_REGISTER, .number = (uint8_t)ops->number};
    else if (count == 1 && ops->atom >= DW_OP_reg0 && ops->atom <= DW_OP_reg31)
        *rule = (struct rule){.kind = RULE_REGISTER, .number = ops->atom - DW_OP_reg0};
    else if (ops == memory)
        *rule = (struct rule){.kind = RULE_UNDEFINED};
    else
        set_ops(rule, ops[count - 1].atom == DW_OP_stack_value ? RULE_VALUE : RULE_EXPRESSION, ops,
                count);
    return true;
}

static bool read_rules(Dwarf_Frame *frame, struct rules *rules)
{
    int column = dwarf_frame_info(frame, NULL, NULL, &rules->signal);
    if (column < 0 || !read_cfa(frame, &rules->cfa) ||
        !read_register(frame, column, &rules->return_address))
        return false;
    for (int i = 1; i < 32; i++)
        if (!read_register(frame, i, &rules->x[i]))
            return false;
    return true;
}

static bool find_in(Dwarf_CFI *cfi, uint64_t address, struct rules *rules)
{
    Dwarf_Frame *frame;
    if (!cfi || dwarf_cfi_addrframe(cfi, address, &frame))
        return false;
    bool ok = read_rules(frame, rules);
    free(frame);
    return ok;
}

bool cfi_find(struct symbols *symbols, uint64_t pc, struct rules *rules)
{
    *rules = (struct rules){.pc = pc};
    pthread_mutex_lock(&symbols->lock);
    for (size_t i = 0; i < symbols->file_count && !rules->found; i++) {
        const struct symbol_file *file = &symbols->files[i];
        uint64_t address = pc - file->offset;
        rules->offset = file->offset;
        rules->found = file->elf && (find_in(file->elf->dwarf_frame, address, rules) ||
                                     find_in(file->elf->eh_frame, address, rules));
    }
    pthread_mutex_unlock(&symbols->lock);
    return rules->found;
}

/* --- Expressions (DWARF 5, section 2.5) --- */

#define STACK_MAX 32
#define STEPS_MAX 1000

struct stack {
    uint64_t values[STACK_MAX];
    unsigned depth;
};

static bool push(struct stack *stack, uint64_t value)
{
    if (stack->depth == STACK_MAX)
        return false;
    stack->values[stack->depth++] = value;
    return true;
}

#define BINARY_OPERATIONS(X)                                                                       \
    X(plus, a + b)                                                                                 \
    X(minus, a - b)                                                                                \
    X(mul, a *b)                                                                                   \
    X(and, a &b)                                                                                   \
    X(or, a | b)                                                                                   \
    X(xor, a ^ b)                                                                                  \
    X(shl, b < 64 ? a << b : 0)                                                                    \
    X(shr, b < 64 ? a >> b : 0)                                                                    \
    X(shra, (uint64_t)((int64_t)a >> (b < 64 ? b : 63)))                                           \
    X(eq, a == b)                                                                                  \
    X(ne, a != b)                                                                                  \
    X(lt, (int64_t)a < (int64_t)b)                                                                 \
    X(le, (int64_t)a <= (int64_t)b)                                                                \
    X(gt, (int64_t)a > (int64_t)b)                                                                 \
    X(ge, (int64_t)a >= (int64_t)b)

#define DEFINE(name, value)                                                                        \
    static uint64_t compute_##name(uint64_t a, uint64_t b)                                         \
    {                                                                                              \
        return value;                                                                              \
    }
BINARY_OPERATIONS(DEFINE)

/* Replaces the two values on top by what an operation makes of them. False: it is none. */
static bool binary(struct stack *stack, unsigned atom)
{
#define ROW(name, value) [DW_OP_##name] = compute_##name,
    static uint64_t (*const compute[256])(uint64_t a, uint64_t b) = {BINARY_OPERATIONS(ROW)};
    if (stack->depth < 2 || atom > 255 || !compute[atom])
        return false;
    stack->depth--;
    uint64_t *top = &stack->values[stack->depth - 1];
    *top = compute[atom](top[0], top[1]);
    return true;
}

/* Those that change one value, or the order. */
static bool unary(struct stack *stack, unsigned atom)
{
    uint64_t *top, other;
    if (stack->depth < 1)
        return false;
    top = &stack->values[stack->depth - 1];
    switch (atom) {
    case DW_OP_neg:
        *top = 0 - *top;
        return true;
    case DW_OP_not:
        *top = ~*top;
        return true;
    case DW_OP_abs:
        *top = (int64_t)*top < 0 ? 0 - *top : *top;
        return true;
    case DW_OP_dup:
        return push(stack, *top);
    case DW_OP_drop:
        stack->depth--;
        return true;
    case DW_OP_swap:
        if (stack->depth < 2)
            return false;
        other = top[-1];
        top[-1] = *top;
        *top = other;
        return true;
    case DW_OP_over:
        return stack->depth >= 2 && push(stack, top[-1]);
    default:
        return false;
    }
}

/* Those with operands. */
static bool with_operands(const struct cfi_context *context, struct stack *stack,
                          const Dwarf_Op *op)
{
    uint64_t number, value = 0;
    int64_t offset;
    if (op->atom >= DW_OP_lit0 && op->atom <= DW_OP_lit31)
        return push(stack, op->atom - DW_OP_lit0);
    if (is_register(op, &number, &offset))
        return (context->known >> number & 1) &&
               push(stack, context->registers->x[number] + (uint64_t)offset);
    switch (op->atom) {
    case DW_OP_call_frame_cfa:
        return push(stack, context->cfa);
    case DW_OP_addr:
        return push(stack, op->number + context->rules->offset);
    case DW_OP_const1u:
    case DW_OP_const2u:
    case DW_OP_const4u:
    case DW_OP_const8u:
    case DW_OP_const1s:
    case DW_OP_const2s:
    case DW_OP_const4s:
    case DW_OP_const8s:
    case DW_OP_constu:
    case DW_OP_consts:
        return push(stack, op->number);
    case DW_OP_plus_uconst:
        if (!stack->depth)
            return false;
        stack->values[stack->depth - 1] += op->number;
        return true;
    case DW_OP_deref:
        if (!stack->depth ||
            !context->read(context->opaque, stack->values[stack->depth - 1], &value, 8))
            return false;
        stack->values[stack->depth - 1] = value;
        return true;
    case DW_OP_nop:
    case DW_OP_stack_value:
        return true;
    default:
        return false;
    }
}

/* The operation that a branch at ops[at] leads to; `count` for the end; SIZE_MAX: it is wrong. */
static size_t target_of(const Dwarf_Op *ops, size_t count, size_t at)
{
    uint64_t target = ops[at].offset + 3 + ops[at].number;
    for (size_t i = 0; i < count; i++)
        if (ops[i].offset == target)
            return i;
    return at + 1 < count && ops[count - 1].offset < target ? count : SIZE_MAX;
}

bool cfi_evaluate(const struct cfi_context *context, const struct rule *rule, uint64_t *value)
{
    const Dwarf_Op *ops = rule->ops;
    struct stack stack = {0};
    unsigned steps = 0;
    for (size_t i = 0; i < rule->op_count;) {
        unsigned atom = ops[i].atom;
        if (steps++ == STEPS_MAX)
            return false;
        if (atom == DW_OP_bra || atom == DW_OP_skip) {
            if (atom == DW_OP_bra && !stack.depth)
                return false;
            bool taken = atom == DW_OP_skip || stack.values[--stack.depth];
            i = taken ? target_of(ops, rule->op_count, i) : i + 1;
            if (i == SIZE_MAX)
                return false;
            continue;
        }
        if (!with_operands(context, &stack, &ops[i]) && !binary(&stack, atom) &&
            !unary(&stack, atom))
            return false;
        i++;
    }
    if (!stack.depth)
        return false;
    *value = stack.values[stack.depth - 1];
    return rule->kind != RULE_EXPRESSION ||
           context->read(context->opaque, *value, value, sizeof(*value));
}
