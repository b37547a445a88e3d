/*
 * Rotations of words. Where Zbb is not there, compilers make them of two shifts and an OR:
 *
 *     slliw t, x, n       (may be computed later)
 *     srliw u, x, 32 - n  (may be computed later)
 *     or    d, t, u       roriw d, x, 32 - n
 *
 * The shifts stay, as their results may be looked at, but as a rule nobody does before they are
 * overwritten: they are marked, for a code generator that computes them on demand.
 */
#include "jit/ir.h"

/* The instruction before `i` in the same trace that writes reg. */
static struct ir *written_by(struct ir_block *block, unsigned i, unsigned reg)
{
    for (; i > 0 && !ir_ends_trace(&block->code[i - 1]); i--)
        if (ir_writes(&block->code[i - 1]) >> reg & 1)
            return &block->code[i - 1];
    return NULL;
}

/* Whether the lower half of reg is the same at `from` and at `to`. */
static bool keeps_word(const struct ir *from, const struct ir *to, unsigned reg)
{
    for (const struct ir *ir = from; ir < to; ir++) {
        bool extends = ir->op == INSN_addiw && ir->imm == 0 && ir->rs1 == reg && ir->rd == reg;
        if ((ir_writes(ir) >> reg & 1) && !extends)
            return false;
    }
    return true;
}

static void find_rotation(struct ir_block *block, unsigned i)
{
    struct ir *or = &block->code[i];
    struct ir *left = written_by(block, i, or->rs1), *right = written_by(block, i, or->rs2);
    if (!left || !right)
        return;
    if (left->op == INSN_srliw) {
        struct ir *swap = left;
        left = right;
        right = swap;
    }
    unsigned x = left->rs1;
    if (left->op != INSN_slliw || right->op != INSN_srliw || right->rs1 != x ||
        left->imm + right->imm != 32 || x == 0 || !keeps_word(left, or, x) ||
        !keeps_word(right, or, x))
        return;
    left->later = right->later = true;
    or->op = INSN_roriw;
    or->rs1 = (uint8_t)x;
    or->rs2 = 0;
    or->imm = right->imm;
}

void ir_rotate(struct ir_block *block)
{
    for (unsigned i = 0; i < block->count; i++)
        if (block->code[i].op == INSN_or && block->code[i].rd)
            find_rotation(block, i);
}
