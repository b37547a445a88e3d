/* Emitters of integer instructions. `code` is documented where a function uses it. */
#include "jit/x86_64/emitter.h"

static unsigned first_operand(struct emitter *e, const struct ir *ir)
{
    /* rd may be written before rs2 is read, unless they are one. */
    unsigned d = ir->rd == ir->rs2 && ir->rd != ir->rs1 ? RAX : destination(e, ir->rd);
    emit_load(e, d, ir->rs1);
    return d;
}

void emit_nothing(struct emitter *e, const struct ir *ir, unsigned code)
{
}

void emit_constant(struct emitter *e, const struct ir *ir, unsigned code)
{
    bool in_memory = !is_in_host(e, ir->rd);
    if (in_memory && ir->imm == (int32_t)ir->imm) {
        x86_form(&e->x, 0xc7, true, false, 0, guest(e, ir->rd));
        x86_32(&e->x, (uint32_t)ir->imm);
        return;
    }
    unsigned d = destination(e, ir->rd);
    x86_constant(&e->x, d, (uint64_t)ir->imm);
    emit_save(e, ir->rd, d);
}

void emit_move(struct emitter *e, const struct ir *ir, unsigned code)
{
    if (is_in_host(e, ir->rs1)) {
        emit_save(e, ir->rd, e->now.regs.host[ir->rs1]);
        return;
    }
    unsigned d = destination(e, ir->rd);
    emit_load(e, d, ir->rs1);
    emit_save(e, ir->rd, d);
}

/* code: enum x86_opcode */
void emit_alu(struct emitter *e, const struct ir *ir, unsigned code)
{
    unsigned rs1 = ir->rs1, rs2 = ir->rs2;
    if (code != X86_SUB && ir->rd == rs2) {
        rs2 = rs1;
        rs1 = ir->rd;
    }
    if (code == X86_ADD && is_in_host(e, rs1) && is_in_host(e, rs2) && ir->rd != rs1) {
        unsigned d = destination(e, ir->rd);
        x86_op(&e->x, X86_LEA, d, x86_indexed(e->now.regs.host[rs1], e->now.regs.host[rs2], 0, 0));
        emit_save(e, ir->rd, d);
        return;
    }
    if (ir->rd == rs1 && !is_in_host(e, rs1)) {
        unsigned value = emit_use(e, rs2, RAX);
        x86_op(&e->x, code - 2, value, guest(e, rs1)); /* the form that writes memory */
        return;
    }
    unsigned d = ir->rd == rs2 && rs1 != rs2 ? RAX : destination(e, ir->rd);
    emit_load(e, d, rs1);
    x86_op(&e->x, code, d, guest(e, rs2));
    emit_save(e, ir->rd, d);
}

static enum x86_group group_of(unsigned opcode)
{
    return opcode >> 3;
}

/* code: enum x86_opcode */
void emit_alu_imm(struct emitter *e, const struct ir *ir, unsigned code)
{
    unsigned d = destination(e, ir->rd);
    if (ir->rd == ir->rs1) {
        x86_arithmetic(&e->x, true, group_of(code), guest(e, ir->rd), (int32_t)ir->imm);
        return;
    }
    if (code == X86_ADD && is_in_host(e, ir->rs1)) {
        x86_op(&e->x, X86_LEA, d, x86_memory(e->now.regs.host[ir->rs1], (int32_t)ir->imm));
    } else {
        emit_load(e, d, ir->rs1);
        x86_arithmetic(&e->x, true, group_of(code), x86_register(d), (int32_t)ir->imm);
    }
    emit_save(e, ir->rd, d);
}

static void save_word(struct emitter *e, unsigned rd, unsigned host)
{
    unsigned d = destination(e, rd);
    if (!is_narrow(e, rd))
        x86_op(&e->x, X86_MOVSXD, d, x86_register(host));
    else if (d != host)
        x86_op32(&e->x, X86_LOAD, d, x86_register(host));
    emit_save(e, rd, d);
}

/* Where to compute a word for rd, beginning with rs1: rs2, if it is another register, is read after
 * that. */
static unsigned word_destination(struct emitter *e, const struct ir *ir)
{
    return ir->rd == ir->rs2 && ir->rd != ir->rs1 ? RAX : destination(e, ir->rd);
}

static void load_word(struct emitter *e, unsigned host, unsigned reg)
{
    if (e->now.regs.host[reg] != host)
        x86_op32(&e->x, X86_LOAD, host, guest(e, reg));
}

/* code: enum x86_opcode */
void emit_alu_word(struct emitter *e, const struct ir *ir, unsigned code)
{
    unsigned rs1 = ir->rs1, rs2 = ir->rs2;
    if (code != X86_SUB && ir->rd == rs2) {
        rs2 = rs1;
        rs1 = ir->rd;
    }
    unsigned d = ir->rd == rs2 && rs1 != rs2 ? RAX : destination(e, ir->rd);
    if (code == X86_ADD && is_in_host(e, rs1) && is_in_host(e, rs2) && ir->rd != rs1) {
        x86_op32(&e->x, X86_LEA, d,
                 x86_indexed(e->now.regs.host[rs1], e->now.regs.host[rs2], 0, 0));
    } else {
        load_word(e, d, rs1);
        x86_op32(&e->x, code, d, guest(e, rs2));
    }
    save_word(e, ir->rd, d);
}

/* sext.w. In a loop it may be known to do nothing, or wait. */
static void extend_word(struct emitter *e, const struct ir *ir)
{
    bool narrow = is_narrow(e, ir->rd), same = ir->rd == ir->rs1 && is_in_host(e, ir->rd);
    bool word = e->looping && (e->before.word & ~e->before.narrow) >> ir->rs1 & 1;
    if (same && (narrow || word))
        return;
    if (word) {
        emit_move(e, ir, 0);
        return;
    }
    unsigned d = destination(e, ir->rd);
    x86_form(&e->x, narrow ? X86_LOAD : X86_MOVSXD, !narrow, false, d, guest(e, ir->rs1));
    emit_save(e, ir->rd, d);
}

/* code: enum x86_opcode */
void emit_alu_imm_word(struct emitter *e, const struct ir *ir, unsigned code)
{
    unsigned d = destination(e, ir->rd);
    if (ir->imm == 0) {
        extend_word(e, ir);
        return;
    }
    if (is_in_host(e, ir->rs1) && ir->rd != ir->rs1) {
        x86_op32(&e->x, X86_LEA, d, x86_memory(e->now.regs.host[ir->rs1], (int32_t)ir->imm));
    } else {
        load_word(e, d, ir->rs1);
        x86_arithmetic(&e->x, false, group_of(code), x86_register(d), (int32_t)ir->imm);
    }
    save_word(e, ir->rd, d);
}

static bool has_bmi2(void)
{
    return __builtin_cpu_supports("bmi2");
}

/* code: enum x86_group. By a register. */
void emit_shift(struct emitter *e, const struct ir *ir, unsigned code)
{
    bool rotates = code == X86_GROUP_ROL || code == X86_GROUP_ROR;
    if (!rotates && has_bmi2()) {
        unsigned d = destination(e, ir->rd);
        x86_shift_by(&e->x, true, code, d, guest(e, ir->rs1), emit_use(e, ir->rs2, RCX));
        emit_save(e, ir->rd, d);
        return;
    }
    emit_load(e, RCX, ir->rs2);
    unsigned d = first_operand(e, ir);
    x86_shift(&e->x, true, code, d, -1);
    emit_save(e, ir->rd, d);
}

void emit_shift_word(struct emitter *e, const struct ir *ir, unsigned code)
{
    bool rotates = code == X86_GROUP_ROL || code == X86_GROUP_ROR;
    if (!rotates && has_bmi2()) {
        unsigned d = destination(e, ir->rd);
        x86_shift_by(&e->x, false, code, d, guest(e, ir->rs1), emit_use(e, ir->rs2, RCX));
        save_word(e, ir->rd, d);
        return;
    }
    x86_op32(&e->x, X86_LOAD, RCX, guest(e, ir->rs2));
    x86_op32(&e->x, X86_LOAD, RAX, guest(e, ir->rs1));
    x86_shift(&e->x, false, code, RAX, -1);
    save_word(e, ir->rd, RAX);
}

void emit_shift_imm(struct emitter *e, const struct ir *ir, unsigned code)
{
    unsigned d = destination(e, ir->rd);
    emit_load(e, d, ir->rs1);
    x86_shift(&e->x, true, code, d, (int)ir->imm);
    emit_save(e, ir->rd, d);
}

void emit_shift_imm_word(struct emitter *e, const struct ir *ir, unsigned code)
{
    unsigned d = destination(e, ir->rd);
    if (code == X86_GROUP_ROR && has_bmi2()) {
        x86_rotate(&e->x, false, d, guest(e, ir->rs1), (unsigned)ir->imm);
    } else {
        load_word(e, d, ir->rs1);
        x86_shift(&e->x, false, code, d, (int)ir->imm);
    }
    if (code == X86_GROUP_SHR && ir->imm) /* bit 31 is clear: nothing to extend */
        emit_save(e, ir->rd, d);
    else
        save_word(e, ir->rd, d);
}

static void save_condition(struct emitter *e, unsigned rd, enum x86_condition condition)
{
    unsigned d = destination(e, rd);
    x86_form(&e->x, 0x0f90 + condition, false, true, 0, x86_register(RAX));
    x86_form(&e->x, X86_MOVZX_8, false, true, d, x86_register(RAX));
    emit_save(e, rd, d);
}

/* code: the condition */
void emit_less(struct emitter *e, const struct ir *ir, unsigned code)
{
    unsigned a = emit_use(e, ir->rs1, RAX);
    x86_op(&e->x, X86_CMP, a, guest(e, ir->rs2));
    save_condition(e, ir->rd, code);
}

void emit_less_imm(struct emitter *e, const struct ir *ir, unsigned code)
{
    x86_arithmetic(&e->x, true, X86_GROUP_CMP, guest(e, ir->rs1), (int32_t)ir->imm);
    save_condition(e, ir->rd, code);
}

void emit_mul(struct emitter *e, const struct ir *ir, unsigned code)
{
    unsigned d = first_operand(e, ir);
    x86_op(&e->x, X86_IMUL, d, guest(e, ir->rs2));
    emit_save(e, ir->rd, d);
}

void emit_mul_word(struct emitter *e, const struct ir *ir, unsigned code)
{
    unsigned d = word_destination(e, ir);
    load_word(e, d, ir->rs1);
    x86_op32(&e->x, X86_IMUL, d, guest(e, ir->rs2));
    save_word(e, ir->rd, d);
}

/* code: enum x86_group */
void emit_mul_high(struct emitter *e, const struct ir *ir, unsigned code)
{
    e->now.held = 0;
    emit_load(e, RAX, ir->rs1);
    x86_unary(&e->x, true, code, guest(e, ir->rs2));
    emit_save(e, ir->rd, RDX);
}

enum { REMAINDER = 1, UNSIGNED = 2 };

/* code: REMAINDER, UNSIGNED. Results where the host's instruction would trap are the architecture's
 * (Unprivileged, "Division Operations"): division by zero gives -1 and the dividend, by -1 the
 * negated dividend and 0. */
static void divide(struct emitter *e, const struct ir *ir, unsigned code, bool w)
{
    struct x86 *x = &e->x;
    bool is_unsigned = code & UNSIGNED;
    uint8_t *not_minus_one = NULL, *done = NULL;
    e->now.held = 0;
    x86_form(x, X86_LOAD, w, false, RCX, guest(e, ir->rs2));
    x86_form(x, X86_LOAD, w, false, RAX, guest(e, ir->rs1));
    x86_form(x, X86_TEST, w, false, RCX, x86_register(RCX));
    uint8_t *not_zero = x86_jump_short_if(x, X86_NE);
    x86_form(x, X86_LOAD, w, false, RDX, x86_register(RAX)); /* the remainder */
    x86_constant(x, RAX, UINT64_MAX);
    done = x86_jump_short(x);
    x86_here_short(x, not_zero);
    uint8_t *minus_one_done = NULL;
    if (!is_unsigned) {
        x86_arithmetic(x, w, X86_GROUP_CMP, x86_register(RCX), -1);
        not_minus_one = x86_jump_short_if(x, X86_NE);
        x86_unary(x, w, X86_GROUP_NEG, x86_register(RAX));
        x86_op32(x, X86_XOR, RDX, x86_register(RDX));
        minus_one_done = x86_jump_short(x);
        x86_here_short(x, not_minus_one);
        if (w)
            x86_byte(x, 0x48);
        x86_byte(x, 0x99); /* cdq, cqo */
    } else {
        x86_op32(x, X86_XOR, RDX, x86_register(RDX));
    }
    x86_unary(x, w, is_unsigned ? X86_GROUP_DIV : X86_GROUP_IDIV, x86_register(RCX));
    x86_here_short(x, done);
    if (minus_one_done)
        x86_here_short(x, minus_one_done);
    unsigned result = code & REMAINDER ? RDX : RAX;
    if (w)
        emit_save(e, ir->rd, result);
    else
        save_word(e, ir->rd, result);
}

void emit_divide(struct emitter *e, const struct ir *ir, unsigned code)
{
    divide(e, ir, code, true);
}

void emit_divide_word(struct emitter *e, const struct ir *ir, unsigned code)
{
    divide(e, ir, code, false);
}

/* code: the shift; 4 is added where rs1 is extended by zeros. */
void emit_shift_add(struct emitter *e, const struct ir *ir, unsigned code)
{
    if (code == 4 && ir->rs2 == 0) { /* zext.w */
        unsigned d = destination(e, ir->rd);
        x86_op32(&e->x, X86_LOAD, d, guest(e, ir->rs1));
        emit_save(e, ir->rd, d);
        return;
    }
    unsigned a;
    if (code & 4) {
        x86_op32(&e->x, X86_LOAD, RAX, guest(e, ir->rs1));
        a = RAX;
    } else {
        a = emit_use(e, ir->rs1, RAX);
    }
    unsigned b = emit_use(e, ir->rs2, RCX), d = destination(e, ir->rd);
    x86_op(&e->x, X86_LEA, d, x86_indexed(b, a, code & 3, 0));
    emit_save(e, ir->rd, d);
}

void emit_slli_uw(struct emitter *e, const struct ir *ir, unsigned code)
{
    unsigned d = destination(e, ir->rd);
    x86_op32(&e->x, X86_LOAD, d, guest(e, ir->rs1));
    x86_shift(&e->x, true, X86_GROUP_SHL, d, (int)ir->imm);
    emit_save(e, ir->rd, d);
}

/* code: enum x86_opcode, with rs2 complemented; xnor */
void emit_negated(struct emitter *e, const struct ir *ir, unsigned code)
{
    emit_load(e, RAX, ir->rs2);
    x86_unary(&e->x, true, X86_GROUP_NOT, x86_register(RAX));
    x86_op(&e->x, code, RAX, guest(e, ir->rs1));
    emit_save(e, ir->rd, RAX);
}

/* code: enum x86_opcode of a load that extends */
void emit_extend(struct emitter *e, const struct ir *ir, unsigned code)
{
    unsigned d = destination(e, ir->rd);
    bool byte = code == X86_MOVSX_8 || code == X86_MOVZX_8;
    x86_form(&e->x, code, true, byte, d, guest(e, ir->rs1));
    emit_save(e, ir->rd, d);
}

/* code: the conditional move that takes rs2 after comparing rs1 with it */
void emit_min_max(struct emitter *e, const struct ir *ir, unsigned code)
{
    emit_load(e, RAX, ir->rs1);
    x86_op(&e->x, X86_CMP, RAX, guest(e, ir->rs2));
    x86_op(&e->x, code, RAX, guest(e, ir->rs2));
    emit_save(e, ir->rd, RAX);
}

/* code: /digit of group 0fba (5 bts, 6 btr, 7 btc), or 4: bext */
void emit_bit_imm(struct emitter *e, const struct ir *ir, unsigned code)
{
    if (code == 4) {
        emit_load(e, RAX, ir->rs1);
        if (ir->imm)
            x86_shift(&e->x, true, X86_GROUP_SHR, RAX, (int)ir->imm);
        x86_arithmetic(&e->x, false, X86_GROUP_AND, x86_register(RAX), 1);
        emit_save(e, ir->rd, RAX);
        return;
    }
    unsigned d = destination(e, ir->rd);
    emit_load(e, d, ir->rs1);
    x86_form(&e->x, 0x0fba, true, false, code, x86_register(d));
    x86_byte(&e->x, (unsigned)ir->imm);
    emit_save(e, ir->rd, d);
}

/* code: as for emit_bit_imm. By a register. */
void emit_bit(struct emitter *e, const struct ir *ir, unsigned code)
{
    static const uint8_t opcodes[] = {[5] = 0xab, [6] = 0xb3, [7] = 0xbb, [4] = 0xa3};
    emit_load(e, RAX, ir->rs1);
    unsigned bit = emit_use(e, ir->rs2, RCX);
    x86_form(&e->x, 0x0f00 | opcodes[code], true, false, bit, x86_register(RAX));
    if (code == 4)
        x86_set(&e->x, X86_B, RAX);
    emit_save(e, ir->rd, RAX);
}

/* code: 1 for 64 bits; 0 leading, 2 trailing zeros, 4 ones */
void emit_count(struct emitter *e, const struct ir *ir, unsigned code)
{
    static const enum x86_opcode opcodes[] = {X86_LZCNT, X86_TZCNT, X86_POPCNT};
    bool there = code >= 4   ? __builtin_cpu_supports("popcnt")
                 : code >= 2 ? __builtin_cpu_supports("bmi")
                             : __builtin_cpu_supports("lzcnt");
    if (!there) {
        emit_call(e, ir, 0);
        return;
    }
    unsigned d = destination(e, ir->rd);
    x86_form(&e->x, opcodes[code / 2], code & 1, false, d, guest(e, ir->rs1));
    emit_save(e, ir->rd, d);
}

void emit_swap_bytes(struct emitter *e, const struct ir *ir, unsigned code)
{
    unsigned d = destination(e, ir->rd);
    emit_load(e, d, ir->rs1);
    x86_swap_bytes(&e->x, d);
    emit_save(e, ir->rd, d);
}

/* Bit 7 of each byte of t becomes whether the byte is not 0, and then the whole byte does:
 * (t - (t >> 7)) | t. */
void emit_or_combine(struct emitter *e, const struct ir *ir, unsigned code)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    struct x86 *x = &e->x;
    e->now.held = 0;
    emit_load(e, RAX, ir->rs1);
    x86_constant(x, RDX, 0x7f * ones);
    x86_op(x, X86_LOAD, RCX, x86_register(RAX));
    x86_op(x, X86_AND, RCX, x86_register(RDX));
    x86_op(x, X86_ADD, RCX, x86_register(RDX));
    x86_op(x, X86_OR, RAX, x86_register(RCX));
    x86_unary(x, true, X86_GROUP_NOT, x86_register(RDX));
    x86_op(x, X86_AND, RAX, x86_register(RDX));
    x86_op(x, X86_LOAD, RCX, x86_register(RAX));
    x86_op(x, X86_LOAD, RDX, x86_register(RAX));
    x86_shift(x, true, X86_GROUP_SHR, RCX, 7);
    x86_op(x, X86_SUB, RAX, x86_register(RCX));
    x86_op(x, X86_OR, RAX, x86_register(RDX));
    emit_save(e, ir->rd, RAX);
}

/* code: how far rs2 is shifted up */
void emit_pack(struct emitter *e, const struct ir *ir, unsigned code)
{
    struct x86 *x = &e->x;
    enum x86_opcode narrow = code == 8 ? X86_MOVZX_8 : code == 16 ? X86_MOVZX_16 : X86_LOAD;
    x86_form(x, narrow, false, code == 8, RAX, guest(e, ir->rs1));
    x86_form(x, narrow, false, code == 8, RCX, guest(e, ir->rs2));
    x86_shift(x, true, X86_GROUP_SHL, RCX, (int)code);
    x86_op(x, X86_OR, RAX, x86_register(RCX));
    if (code == 16)
        save_word(e, ir->rd, RAX);
    else
        emit_save(e, ir->rd, RAX);
}

/* code: the conditional move that gives zero */
void emit_conditional_zero(struct emitter *e, const struct ir *ir, unsigned code)
{
    emit_load(e, RAX, ir->rs1);
    x86_op32(&e->x, X86_XOR, RCX, x86_register(RCX));
    x86_arithmetic(&e->x, true, X86_GROUP_CMP, guest(e, ir->rs2), 0);
    x86_op(&e->x, code, RAX, x86_register(RCX));
    emit_save(e, ir->rd, RAX);
}

/* x86 keeps every order but that of a store and a later load. */
void emit_fence(struct emitter *e, const struct ir *ir, unsigned code)
{
    enum {
        WRITES = 1 << 0 | 1 << 2,
        READS = 1 << 1 | 1 << 3,
    };
    if (code == 0 && ((ir->imm >> 4 & WRITES) && (ir->imm & READS))) {
        x86_byte(&e->x, 0xf0); /* lock or [rsp], 0 */
        x86_arithmetic(&e->x, false, X86_GROUP_OR, x86_memory(RSP, 0), 0);
    }
}
