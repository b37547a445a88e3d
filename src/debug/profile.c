#include "debug/profile.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "debug/symbols.h"
#include "debug/unwind.h"
#include "hart/hart.h"
#include "machine/machine.h"

#define PERIOD_NS (UINT64_C(1000000000) / 997) /* a prime: in step with nothing */
#define DEPTH_MAX 64
#define STACKS_MAX                                                                                 \
    (1u << 17) /* of a hart: what is new after that is counted, but not told apart                 \
                */

/* Addresses are innermost first; bit 0 is set where they are what a call returns to. */
struct stack {
    uint64_t count;
    uint32_t first; /* of the addresses */
    uint8_t depth;
    uint8_t privilege;
};

/* What one hart was seen doing; its thread's, until the machine has ended. */
struct hart_profile {
    struct unwinder *unwinder;
    struct stack *stacks; /* by hash, from which it goes on to the next free one */
    uint32_t mask, used;
    uint64_t *addresses;
    size_t address_count, address_capacity;
    uint64_t waiting, others;
    uint64_t asleep; /* as waiting, but counted on the loop's thread */
};

struct profile {
    struct machine *machine;
    struct symbols *symbols; /* NULL: none */
    char *path;
    FILE *file;
    struct loop_timer *timer;
    uint64_t due;
    struct hart_profile *harts;
    unsigned hart_count;
};

/* --- Taking samples --- */

static uint64_t hash(const uint64_t *addresses, unsigned depth, unsigned privilege)
{
    uint64_t value = privilege + 1;
    for (unsigned i = 0; i < depth; i++)
        value = (value ^ addresses[i]) * UINT64_C(0x9e3779b97f4a7c15) ^ value >> 29;
    return value ^ value >> 32;
}

static bool equals(const struct hart_profile *hart, const struct stack *stack,
                   const uint64_t *addresses, unsigned depth, unsigned privilege)
{
    return stack->depth == depth && stack->privilege == privilege &&
           !memcmp(&hart->addresses[stack->first], addresses, depth * sizeof(*addresses));
}

/* The place of a stack in the table: its own or a free one (depth 0). */
static struct stack *find(const struct hart_profile *hart, const uint64_t *addresses,
                          unsigned depth, unsigned privilege)
{
    uint32_t i = (uint32_t)hash(addresses, depth, privilege) & hart->mask;
    while (hart->stacks[i].depth && !equals(hart, &hart->stacks[i], addresses, depth, privilege))
        i = (i + 1) & hart->mask;
    return &hart->stacks[i];
}

static void grow(struct hart_profile *hart)
{
    struct stack *old = hart->stacks;
    uint32_t old_mask = hart->mask;
    hart->mask = 2 * old_mask + 1;
    hart->stacks = xcalloc((size_t)hart->mask + 1, sizeof(*hart->stacks));
    for (uint32_t i = 0; i <= old_mask; i++)
        if (old[i].depth)
            *find(hart, &hart->addresses[old[i].first], old[i].depth, old[i].privilege) = old[i];
    free(old);
}

static void count(struct hart_profile *hart, const uint64_t *addresses, unsigned depth,
                  unsigned privilege)
{
    struct stack *stack = find(hart, addresses, depth, privilege);
    if (!stack->depth) {
        if (hart->used == STACKS_MAX) {
            hart->others++;
            return;
        }
        if (hart->address_count + depth > hart->address_capacity) {
            hart->address_capacity = 2 * hart->address_capacity + DEPTH_MAX + 1;
            hart->addresses =
                xrealloc(hart->addresses, hart->address_capacity * sizeof(*hart->addresses));
        }
        memcpy(&hart->addresses[hart->address_count], addresses, depth * sizeof(*addresses));
        *stack = (struct stack){
            .first = (uint32_t)hart->address_count, .depth = depth, .privilege = privilege};
        hart->address_count += depth;
        hart->used++;
    }
    stack->count++;
    if (hart->used > hart->mask / 2)
        grow(hart);
}

static bool read_guest(void *opaque, uint64_t va, void *buffer, size_t size)
{
    struct hart *hart = opaque;
    return hart_memory_read(hart, va, buffer, size, (int)hart->privilege);
}

/* Where a direct call (jal, or auipc and jalr) that ends at `end` goes to; 0: it is none. */
static uint64_t call_target(struct hart *hart, uint64_t end)
{
    enum { RA = 1 };
    uint32_t bits[2];
    struct insn upper, jump;
    if (!read_guest(hart, end - sizeof(bits), bits, sizeof(bits)) ||
        !isa_decode(bits[1], &hart->extensions, &jump) || jump.length != 4 || jump.rd != RA)
        return 0;
    if (jump.op == INSN_jal)
        return end - 4 + (uint64_t)(int64_t)jump.imm;
    if (jump.op == INSN_jalr && jump.rs1 == RA && isa_decode(bits[0], &hart->extensions, &upper) &&
        upper.op == INSN_auipc && upper.rd == RA)
        return end - 8 + (uint64_t)(int64_t)upper.imm + (uint64_t)(int64_t)jump.imm;
    return 0;
}

/*
 * The time was spent on the way to where the sample is taken. Behind a return, which only there
 * leaves pc in ra, that was the function which returned: without this, one that has no loop would
 * never be seen.
 */
static uint64_t returned_from(struct hart *hart)
{
    return hart->pc == hart->x[1] ? call_target(hart, hart->pc) : 0;
}

static void sample(void *opaque, struct hart *hart)
{
    struct profile *profile = opaque;
    struct hart_profile *self = &profile->harts[hart->id];
    struct unwind_registers registers = {.pc = hart->pc};
    struct unwind_frame frames[DEPTH_MAX];
    uint64_t addresses[DEPTH_MAX + 1];
    unsigned depth = 0;
    if (hart->waiting) {
        self->waiting++;
        return;
    }
    memcpy(registers.x, hart->x, sizeof(registers.x));
    size_t frame_count =
        unwind_backtrace(self->unwinder, &registers, read_guest, hart, frames, DEPTH_MAX);
    uint64_t leaf = returned_from(hart);
    if (leaf) {
        addresses[depth++] = leaf & ~UINT64_C(1);
        frames[0].after_call = true;
    }
    for (size_t i = 0; i < frame_count; i++)
        addresses[depth++] = (frames[i].pc & ~UINT64_C(1)) | frames[i].after_call;
    count(self, addresses, depth, hart->privilege);
}

/* Those that were missed are not made up for. */
static void tick(void *opaque)
{
    struct profile *profile = opaque;
    uint64_t now = loop_now();
    profile->due += PERIOD_NS;
    if (profile->due <= now)
        profile->due = now + PERIOD_NS;
    loop_set_timer(profile->timer, profile->due);
    for (unsigned i = 0; i < profile->hart_count; i++)
        if (machine_sample(profile->machine, i) == MACHINE_SAMPLE_WAITING)
            profile->harts[i].asleep++;
}

struct profile *profile_create(struct machine *machine, const char *path, struct symbols *symbols,
                               struct error *err)
{
    enum { STACKS = 256 };
    FILE *file = fopen(path, "we");
    if (!file) {
        error_set_errno(err, errno, "--profile: cannot write '%s'", path);
        return NULL;
    }
    struct profile *profile = xcalloc(1, sizeof(*profile));
    *profile = (struct profile){
        .machine = machine, .symbols = symbols, .path = xstrdup(path), .file = file};
    while (machine_hart(machine, profile->hart_count))
        profile->hart_count++;
    profile->harts = xcalloc(profile->hart_count, sizeof(*profile->harts));
    for (unsigned i = 0; i < profile->hart_count; i++) {
        profile->harts[i].unwinder = unwind_create(symbols);
        profile->harts[i].stacks = xcalloc(STACKS, sizeof(struct stack));
        profile->harts[i].mask = STACKS - 1;
    }
    machine_set_sampler(machine, sample, profile);
    profile->timer = loop_add_timer(machine_loop(machine), tick, profile);
    loop_set_timer(profile->timer, profile->due = loop_now() + PERIOD_NS);
    return profile;
}

/* --- Writing them --- */

struct line {
    char *text;
    uint64_t count;
};

struct lines {
    struct line *lines;
    size_t count, capacity;
};

static void add_line(struct lines *lines, const char *text, uint64_t count)
{
    if (!count)
        return;
    if (lines->count == lines->capacity) {
        lines->capacity = 2 * lines->capacity + 64;
        lines->lines = xrealloc(lines->lines, lines->capacity * sizeof(*lines->lines));
    }
    lines->lines[lines->count++] = (struct line){xstrdup(text), count};
}

/* The name, without what has a meaning in the file; what does not fit is left out. */
static size_t add_frame(char *text, size_t length, size_t size, const char *name)
{
    int written = snprintf(text + length, size - length, ";%s", name);
    size_t end = length + (size_t)written < size ? length + (size_t)written : size - 1;
    for (size_t i = length + 1; i < end; i++)
        if (text[i] == ';' || (unsigned char)text[i] <= ' ')
            text[i] = '_';
    return end;
}

static void add_stack(struct profile *profile, unsigned index, const struct stack *stack,
                      struct lines *lines)
{
    static const char *const modes[] = {"user", "supervisor", "?", "machine"};
    const uint64_t *addresses = &profile->harts[index].addresses[stack->first];
    char text[8192], number[24];
    size_t length =
        (size_t)snprintf(text, sizeof(text), "hart %u;%s", index, modes[stack->privilege & 3]);
    for (unsigned i = stack->depth; i > 0; i--) {
        uint64_t address = addresses[i - 1] & ~UINT64_C(1);
        struct symbol symbol;
        snprintf(number, sizeof(number), "0x%" PRIx64, address);
        bool known = profile->symbols &&
                     symbols_find(profile->symbols, address - (addresses[i - 1] & 1), &symbol);
        length = add_frame(text, length, sizeof(text), known ? symbol.name : number);
    }
    add_line(lines, text, stack->count);
}

static void add_hart(struct profile *profile, unsigned index, struct lines *lines)
{
    const struct hart_profile *hart = &profile->harts[index];
    char text[40];
    for (uint32_t i = 0; i <= hart->mask; i++)
        if (hart->stacks[i].depth)
            add_stack(profile, index, &hart->stacks[i], lines);
    snprintf(text, sizeof(text), "hart %u;[wfi]", index);
    add_line(lines, text, hart->waiting + hart->asleep);
    snprintf(text, sizeof(text), "hart %u;[other]", index);
    add_line(lines, text, hart->others);
}

static int by_text(const void *left, const void *right)
{
    return strcmp(((const struct line *)left)->text, ((const struct line *)right)->text);
}

/* Addresses that have the same names are one line. */
static void write_lines(struct profile *profile, struct lines *lines)
{
    if (lines->count)
        qsort(lines->lines, lines->count, sizeof(*lines->lines), by_text);
    for (size_t i = 0; i < lines->count; i++) {
        struct line *line = &lines->lines[i];
        if (i + 1 < lines->count && !by_text(line, line + 1))
            line[1].count += line->count;
        else
            fprintf(profile->file, "%s %" PRIu64 "\n", line->text, line->count);
        free(line->text);
    }
    free(lines->lines);
}

static void release(struct profile *profile)
{
    for (unsigned i = 0; i < profile->hart_count; i++) {
        unwind_destroy(profile->harts[i].unwinder);
        free(profile->harts[i].stacks);
        free(profile->harts[i].addresses);
    }
    free(profile->harts);
    free(profile->path);
    free(profile);
}

bool profile_finish(struct profile *profile, struct error *err)
{
    struct lines lines = {0};
    if (!profile)
        return true;
    loop_remove_timer(profile->timer);
    for (unsigned i = 0; i < profile->hart_count; i++)
        add_hart(profile, i, &lines);
    write_lines(profile, &lines);
    bool failed = ferror(profile->file);
    int number = failed ? EIO : 0;
    if (fclose(profile->file) && !failed)
        number = errno;
    if (number)
        error_set_errno(err, number, "--profile: cannot write '%s'", profile->path);
    release(profile);
    return !number;
}
