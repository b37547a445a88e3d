/*
 * Loads and stores that lie near one another: a register plus different constants, as in a stack
 * frame, a structure or an unrolled loop. The first of them translates the whole range, and the
 * others use what it found if the range lies in one page.
 *
 * A load may use what a store found, since what may be stored to may be loaded (a page table entry
 * or PMP entry that is writable only is reserved). A store may use what a load found if the load
 * asked for a page that has been stored to already; it does that if the store is sure to come, or
 * for the stack. A load never translates as a store: that makes the page dirty.
 */
#include "jit/ir.h"

enum { REACH = 512 }; /* bytes: the more, the more often a range crosses a page */

/* What is known of a register: equal roots have the same unknown value, plus offset. */
struct value {
    uint32_t root;
    int64_t offset;
};

struct group {
    uint32_t root;
    bool stores;
    int64_t first, last; /* offsets to the root's value */
    int64_t begin;       /* the first member's */
    unsigned leader, count;
    unsigned branches; /* before it */
};

/* What is known at some place. */
struct knowledge {
    struct value values[32];
    uint32_t open; /* the groups that take more members */
};

struct sharing {
    struct ir_block *block;
    struct knowledge now, arms[IR_ARMS]; /* where these begin */
    uint32_t roots, stack;
    struct group groups[IR_SHARES];
    unsigned group_count;
    unsigned branches;
};

static void forget(struct sharing *sharing, unsigned reg)
{
    if (reg)
        sharing->now.values[reg] = (struct value){.root = sharing->roots++};
}

static struct group *group_find(struct sharing *sharing, uint32_t root, bool store, int64_t first,
                                int64_t last)
{
    for (unsigned i = 0; i < sharing->group_count; i++) {
        struct group *group = &sharing->groups[i];
        if (!(sharing->now.open >> i & 1) || group->root != root ||
            (store && !group->stores && group->branches != sharing->branches &&
             root != sharing->stack))
            continue;
        if (first > group->first)
            first = group->first;
        if (last < group->last)
            last = group->last;
        if ((uint64_t)last - (uint64_t)first < REACH) { /* constants may be far apart */
            group->first = first;
            group->last = last;
            group->stores |= store;
            return group;
        }
        return NULL;
    }
    return NULL;
}

static void join(struct sharing *sharing, unsigned i, bool store, unsigned size)
{
    struct ir *ir = &sharing->block->code[i];
    const struct value *base = &sharing->now.values[ir->rs1];
    int64_t first = (int64_t)((uint64_t)base->offset + (uint64_t)ir->imm), last;
    if (__builtin_add_overflow(first, size - 1, &last))
        return;
    struct group *group = group_find(sharing, base->root, store, first, last);
    if (!group) {
        if (sharing->group_count == IR_SHARES)
            return;
        sharing->now.open |= 1u << sharing->group_count;
        group = &sharing->groups[sharing->group_count++];
        *group = (struct group){.root = base->root,
                                .stores = store,
                                .first = first,
                                .last = last,
                                .begin = first,
                                .leader = i,
                                .branches = sharing->branches};
    }
    group->count++;
    ir->share = (uint8_t)(group - sharing->groups + 1);
}

static void follow(struct sharing *sharing, const struct ir *ir)
{
    struct value *values = sharing->now.values;
    if (ir->op == IR_CONSTANT && ir->rd) {
        values[ir->rd] = (struct value){.offset = ir->imm}; /* x0 plus a constant */
    } else if (ir->op == IR_MOVE) {
        values[ir->rd] = values[ir->rs1];
    } else if (ir->op == INSN_addi && ir->rd) {
        struct value value = values[ir->rs1];
        value.offset = (int64_t)((uint64_t)value.offset + (uint64_t)ir->imm);
        values[ir->rd] = value;
    } else if (ir->op == IR_CALL) {
        forget(sharing, ir->rd);
    } else if (ir->op < INSN_COUNT && (isa_instruction(ir->op)->operands & ISA_RD) &&
               !(isa_instruction(ir->op)->operands & ISA_FP_RD)) {
        forget(sharing, ir->rd);
        if (ir->op == INSN_amocas_q)
            forget(sharing, (ir->rd + 1u) & 31);
    }
}

/* Whether privilege, MSTATUS.SUM or the like may be others behind it. */
static bool may_change_context(const struct ir *ir)
{
    return ir->op == IR_CALL ||
           (ir->op < INSN_COUNT && (isa_instruction(ir->op)->flags & (ISA_CSR | ISA_SYSTEM)));
}

static void finish(struct sharing *sharing)
{
    struct ir_block *block = sharing->block;
    for (unsigned i = 0; i < block->count; i++) {
        struct ir *ir = &block->code[i];
        if (!ir->share)
            continue;
        const struct group *group = &sharing->groups[ir->share - 1];
        if (group->count == 1) {
            ir->share = 0;
            continue;
        }
        ir->share_begins = i == group->leader;
        ir->share_stores = group->stores;
        ir->first = (int16_t)(group->first - group->begin);
        ir->last = (int16_t)(group->last - group->begin);
    }
}

void ir_share(struct ir_block *block)
{
    struct sharing sharing = {.block = block, .roots = 1};
    for (unsigned reg = 1; reg < 32; reg++)
        forget(&sharing, reg);
    sharing.stack = sharing.now.values[2].root;
    for (unsigned i = 0; i < block->count; i++) {
        const struct ir *ir = &block->code[i];
        const struct ir_arm *begins = ir_arm_at(block, i), *taken = ir_arm_of(block, i);
        if (begins) {
            sharing.now = sharing.arms[begins - block->arms];
            sharing.branches++;
        }
        if (taken)
            sharing.arms[taken - block->arms] = sharing.now;
        if (may_change_context(ir))
            sharing.now.open = 0;
        if (ir->op < INSN_COUNT) {
            uint32_t flags = isa_instruction(ir->op)->flags;
            sharing.branches += (flags & ISA_BRANCH) != 0;
            if ((flags & (ISA_LOAD | ISA_STORE)) && !(flags & (ISA_AMO | ISA_CBO)))
                join(&sharing, i, flags & ISA_STORE, isa_access_bytes(ir->op));
        }
        follow(&sharing, ir);
    }
    finish(&sharing);
}
