/*
 * Constants: addresses made by lui or auipc with addi, and small numbers, are known when the block
 * is translated. Moves are recognised in the forms that assemblers write, and instructions that
 * only write x0 go away.
 */
#include "jit/ir.h"

struct known {
    uint32_t mask; /* of the registers whose value is known */
    uint64_t value[32];
};

static bool is_known(const struct known *known, unsigned reg)
{
    return known->mask >> reg & 1;
}

static void to_constant(struct ir *ir, uint64_t value)
{
    ir->op = IR_CONSTANT;
    ir->imm = (int64_t)value;
}

static void to_move(struct ir *ir, unsigned source)
{
    ir->op = IR_MOVE;
    ir->rs1 = source;
}

/* One operand, and an immediate. */
static void fold_immediate(struct ir *ir, uint64_t a)
{
    uint64_t imm = (uint64_t)ir->imm;
    switch (ir->op) {
    case INSN_addi:
        to_constant(ir, a + imm);
        break;
    case INSN_addiw:
        to_constant(ir, (uint64_t)(int32_t)(a + imm));
        break;
    case INSN_slli:
        to_constant(ir, a << imm);
        break;
    case INSN_srli:
        to_constant(ir, a >> imm);
        break;
    case INSN_andi:
        to_constant(ir, a & imm);
        break;
    case INSN_ori:
        to_constant(ir, a | imm);
        break;
    case INSN_xori:
        to_constant(ir, a ^ imm);
        break;
    case IR_MOVE:
        to_constant(ir, a);
        break;
    default:
        break;
    }
}

static void fold_moves(struct ir *ir)
{
    bool zero = ir->imm == 0;
    switch (ir->op) {
    case INSN_addi:
    case INSN_ori:
    case INSN_xori:
        if (zero)
            to_move(ir, ir->rs1);
        break;
    case INSN_slli:
    case INSN_srli:
    case INSN_srai:
        if (zero)
            to_move(ir, ir->rs1);
        break;
    case INSN_add:
    case INSN_or:
    case INSN_xor:
        if (ir->rs1 == 0)
            to_move(ir, ir->rs2);
        else if (ir->rs2 == 0)
            to_move(ir, ir->rs1);
        break;
    case INSN_sub:
        if (ir->rs2 == 0)
            to_move(ir, ir->rs1);
        break;
    default:
        break;
    }
}

static bool writes_only_rd(const struct ir *ir)
{
    if (ir->op == IR_CONSTANT || ir->op == IR_MOVE)
        return true;
    if (ir->op >= INSN_COUNT)
        return false;
    const struct isa_instruction *info = isa_instruction(ir->op);
    return info->flags == 0 && (info->operands & ISA_RD);
}

/* Shifts to the left and back, with which compilers zero-extend words where Zba is not there: one
 * extension, shifted by what is left. */
static void fold_extension(struct ir *first, struct ir *second)
{
    if (first->op != INSN_slli || first->imm != 32 || second->op != INSN_srli ||
        second->rs1 != first->rd || second->rd != first->rd || second->imm > 32)
        return;
    second->op = second->imm == 32 ? INSN_add_uw : INSN_slli_uw;
    second->rs1 = first->rs1;
    second->rs2 = 0;
    second->imm = 32 - second->imm;
    first->op = IR_NOTHING;
}

/* A shift and an addition, as of an index to an address. */
static void fold_scale(struct ir *first, struct ir *second)
{
    static const uint16_t scaled[] = {0, INSN_sh1add, INSN_sh2add, INSN_sh3add};
    if (first->op != INSN_slli || first->imm < 1 || first->imm > 3 || second->op != INSN_add ||
        second->rd != first->rd || (second->rs1 == first->rd) == (second->rs2 == first->rd))
        return;
    second->op = scaled[first->imm];
    second->rs2 ^= second->rs1 ^ first->rd; /* the one that is not the index */
    second->rs1 = first->rs1;
    first->op = IR_NOTHING;
}

/* A call or jump of far reach: auipc and jalr. */
static void fold_jump(struct ir_block *block, struct ir *jalr, uint64_t base)
{
    unsigned end = (unsigned)(jalr - block->code) + 1;
    if (end == block->count)
        block->count++;
    block->code[end] = (struct ir){
        .op = IR_EXIT,
        .index = jalr->index + 1,
        .imm = (int64_t)((base + (uint64_t)jalr->imm) & ~UINT64_C(1)),
    };
    jalr->op = jalr->rd ? IR_CONSTANT : IR_NOTHING;
    jalr->imm = (int64_t)(jalr->pc + jalr->length);
}

void ir_fold(struct ir_block *block)
{
    struct known known = {.mask = 1};
    for (unsigned i = 0; i < block->count; i++) {
        struct ir *ir = &block->code[i];
        if (ir_arm_at(block, i))
            known.mask = 1;
        if (i > 0)
            fold_extension(ir - 1, ir);
        if (i > 0)
            fold_scale(ir - 1, ir);
        if (writes_only_rd(ir)) {
            if (ir->rd == 0) {
                ir->op = IR_NOTHING;
                continue;
            }
            fold_moves(ir);
            if (ir->op != IR_CONSTANT && is_known(&known, ir->rs1))
                fold_immediate(ir, known.value[ir->rs1]);
        }
        if (ir->op == INSN_jalr && is_known(&known, ir->rs1)) {
            fold_jump(block, ir, known.value[ir->rs1]);
            continue;
        }
        if (ir->op == IR_CONSTANT) {
            known.mask |= 1u << ir->rd;
            known.value[ir->rd] = (uint64_t)ir->imm;
            continue;
        }
        if (ir->op == IR_CALL) {
            known.mask = 1;
            continue;
        }
        known.mask &= ~(1u << ir->rd) | 1;
        if (ir->op == INSN_amocas_q)
            known.mask &= ~(2u << ir->rd) | 1;
    }
}
