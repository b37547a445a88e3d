/*
 * Emitters of floating point, on scalar SSE.
 *
 * MXCSR always rounds to nearest and masks all exceptions; its sticky flags are the guest's, which
 * the thunks move to fflags whenever C code may look (thunks.c). Underflow is detected after
 * rounding by both architectures. The interpreter executes what differs: other rounding modes,
 * results that are NaN (whose bits are the host's), operands that are not boxed, and conversions
 * that do not fit. It computes the same flags again, so that those already raised do no harm.
 */
#include "jit/x86_64/emitter.h"

enum { XMM0, XMM1 };

static bool is_double(const struct ir *ir)
{
    return ir->bits >> 25 & 1;
}

static struct x86_operand fp(unsigned reg)
{
    return x86_memory(RBP, HART(f) + 8 * (int32_t)reg);
}

static struct x86_operand fp_high(unsigned reg)
{
    return x86_memory(RBP, HART(f) + 8 * (int32_t)reg + 4);
}

static void require_boxed(struct emitter *e, struct site *site, unsigned reg)
{
    if (e->now.fp_boxed >> reg & 1)
        return;
    x86_arithmetic(&e->x, false, X86_GROUP_CMP, fp_high(reg), -1);
    site_unless(e, site, X86_NE); /* behind which it is still unknown */
}

/* Opens the site of an instruction that reads so many f registers of its own format. */
static struct site *fp_open(struct emitter *e, const struct ir *ir, unsigned operands)
{
    const uint8_t registers[] = {ir->rs1, ir->rs2, ir->rs3};
    struct site *site = site_open(e, ir);
    require_fp(e, site, false);
    for (unsigned i = 0; i < operands && !is_double(ir); i++)
        require_boxed(e, site, registers[i]);
    return site;
}

static void require_nearest(struct emitter *e, struct site *site, const struct ir *ir)
{
    if (ir->rm == 0)
        return;
    x86_form(&e->x, 0x80, false, false, X86_GROUP_CMP, x86_memory(RBP, HART(frm)));
    x86_byte(&e->x, 0);
    site_unless(e, site, X86_NE);
}

/* False, with a call of the interpreter emitted, where the instruction itself rounds otherwise. */
static bool rounds_to_nearest(struct emitter *e, const struct ir *ir)
{
    if (ir->rm == 0 || ir->rm == 7)
        return true;
    emit_call(e, ir, 0);
    return false;
}

static void load_fp(struct emitter *e, bool d, unsigned xmm, unsigned reg)
{
    x86_form(&e->x, d ? X86_MOVSD_LOAD : X86_MOVSS_LOAD, false, false, xmm, fp(reg));
}

static void box(struct emitter *e, unsigned reg)
{
    if (e->now.fp_boxed >> reg & 1)
        return;
    x86_form(&e->x, 0xc7, false, false, 0, fp_high(reg));
    x86_32(&e->x, UINT32_MAX);
    e->now.fp_boxed |= 1u << reg;
}

static void save_fp(struct emitter *e, bool d, unsigned reg, unsigned xmm)
{
    x86_form(&e->x, d ? X86_MOVSD_STORE : X86_MOVSS_STORE, false, false, xmm, fp(reg));
    if (d)
        e->now.fp_boxed &= ~(1u << reg);
    else
        box(e, reg);
}

static void unless_nan(struct emitter *e, struct site *site, bool d, unsigned xmm)
{
    x86_form(&e->x, d ? X86_UCOMISD : X86_UCOMISS, false, false, xmm, x86_register(xmm));
    site_unless(e, site, X86_P);
}

/* Opcodes differ between the formats in their prefix. */
static unsigned for_format(unsigned code, bool d)
{
    return d ? code : (code & 0xffff) | 0xf30000;
}

/* code: enum x86_opcode of the double form */
void emit_fp_operation(struct emitter *e, const struct ir *ir, unsigned code)
{
    bool d = is_double(ir), unary = code == X86_SQRTSD;
    if (!rounds_to_nearest(e, ir))
        return;
    struct site *site = fp_open(e, ir, unary ? 1 : 2);
    require_nearest(e, site, ir);
    if (!unary)
        load_fp(e, d, XMM0, ir->rs1);
    x86_form(&e->x, for_format(code, d), false, false, XMM0, fp(unary ? ir->rs1 : ir->rs2));
    unless_nan(e, site, d, XMM0);
    require_fp(e, site, true);
    save_fp(e, d, ir->rd, XMM0);
    site_close(e, site);
}

/* code: the opcode of the 213 form: xmm0 = +-(xmm1 * xmm0) +- memory */
void emit_fp_fused(struct emitter *e, const struct ir *ir, unsigned code)
{
    bool d = is_double(ir);
    if (!__builtin_cpu_supports("fma")) {
        emit_call(e, ir, 0);
        return;
    }
    if (!rounds_to_nearest(e, ir))
        return;
    struct site *site = fp_open(e, ir, 3);
    require_nearest(e, site, ir);
    load_fp(e, d, XMM0, ir->rs1);
    load_fp(e, d, XMM1, ir->rs2);
    x86_fused(&e->x, code, d, XMM0, XMM1, fp(ir->rs3));
    unless_nan(e, site, d, XMM0);
    require_fp(e, site, true);
    save_fp(e, d, ir->rd, XMM0);
    site_close(e, site);
}

enum { INJECT, INJECT_NOT, INJECT_XOR };

/* code: whose sign */
void emit_fp_sign(struct emitter *e, const struct ir *ir, unsigned code)
{
    struct x86 *x = &e->x;
    bool d = is_double(ir);
    int bits = d ? 63 : 31;
    struct site *site = fp_open(e, ir, 2);
    require_fp(e, site, true);
    x86_form(x, X86_LOAD, d, false, RAX, fp(ir->rs1));
    if (ir->rs1 == ir->rs2) {
        if (code != INJECT) {
            x86_form(x, 0x0fba, d, false, code == INJECT_NOT ? 7 : 6, x86_register(RAX));
            x86_byte(x, (unsigned)bits);
        }
    } else {
        x86_form(x, X86_LOAD, d, false, RCX, fp(ir->rs2));
        if (code == INJECT_NOT)
            x86_unary(x, d, X86_GROUP_NOT, x86_register(RCX));
        x86_shift(x, d, X86_GROUP_SHR, RCX, bits);
        x86_shift(x, d, X86_GROUP_SHL, RCX, bits);
        if (code != INJECT_XOR) {
            x86_form(x, 0x0fba, d, false, 6, x86_register(RAX));
            x86_byte(x, (unsigned)bits);
        }
        x86_form(x, X86_XOR, d, false, RAX, x86_register(RCX));
    }
    x86_form(x, X86_STORE, d, false, RAX, fp(ir->rd));
    if (d)
        e->now.fp_boxed &= ~(1u << ir->rd);
    else
        box(e, ir->rd);
    site_close(e, site);
}

/* code: INSN_feq_d, INSN_flt_d or INSN_fle_d. Both sides are false with NaNs: an unordered result
 * sets the parity and the carry flag. */
void emit_fp_compare(struct emitter *e, const struct ir *ir, unsigned code)
{
    struct x86 *x = &e->x;
    bool d = is_double(ir);
    struct site *site = fp_open(e, ir, 2);
    if (code == INSN_feq_d) {
        load_fp(e, d, XMM0, ir->rs1);
        x86_form(x, d ? X86_UCOMISD : X86_UCOMISS, false, false, XMM0, fp(ir->rs2));
        x86_set(x, X86_E, RAX);
        x86_set(x, X86_NP, RCX);
        x86_op32(x, X86_AND, RAX, x86_register(RCX));
    } else {
        load_fp(e, d, XMM0, ir->rs2);
        x86_form(x, d ? X86_COMISD : X86_COMISS, false, false, XMM0, fp(ir->rs1));
        x86_set(x, code == INSN_flt_d ? X86_A : X86_AE, RAX);
    }
    emit_save(e, ir->rd, RAX);
    site_close(e, site);
}

/*
 * Of NaNs, the interpreter takes care. Equal operands differ in the sign of a zero at most: the
 * smaller one has any of their bits, the larger one all.
 *
 * code: enum x86_opcode of the double form
 */
void emit_fp_min_max(struct emitter *e, const struct ir *ir, unsigned code)
{
    struct x86 *x = &e->x;
    bool d = is_double(ir);
    struct site *site = fp_open(e, ir, 2);
    load_fp(e, d, XMM0, ir->rs1);
    x86_form(x, d ? X86_UCOMISD : X86_UCOMISS, false, false, XMM0, fp(ir->rs2));
    site_unless(e, site, X86_P);
    uint8_t *differ = x86_jump_short_if(x, X86_NE);
    x86_op(x, X86_LOAD, RAX, fp(ir->rs1));
    x86_op(x, code == X86_MINSD ? X86_OR : X86_AND, RAX, fp(ir->rs2));
    x86_form(x, X86_MOVQ_TO_XMM, true, false, XMM0, x86_register(RAX));
    uint8_t *done = x86_jump_short(x);
    x86_here_short(x, differ);
    x86_form(x, for_format(code, d), false, false, XMM0, fp(ir->rs2));
    x86_here_short(x, done);
    require_fp(e, site, true);
    save_fp(e, d, ir->rd, XMM0);
    site_close(e, site);
}

enum { TO_WORD, TO_LONG, TO_UNSIGNED_WORD, TO_UNSIGNED_LONG };

/* Positive numbers compare like their bits. What lies in the range fits however it is rounded, so
 * that the host raises what the guest shall see; all else is the interpreter's. */
static void require_unsigned(struct emitter *e, struct site *site, const struct ir *ir, bool w)
{
    struct x86 *x = &e->x;
    bool d = is_double(ir);
    uint64_t limit = d   ? w ? UINT64_C(0x43e0000000000000) : UINT64_C(0x41efffffffe00000)
                       : w ? 0x5f000000
                         : 0x4f800000; /* 2^63, 2^32 - 1, 2^63, 2^32 */
    x86_constant(x, RCX, limit);
    x86_form(x, X86_LOAD, d, false, RAX, fp(ir->rs1));
    x86_form(x, X86_CMP, d, false, RAX, x86_register(RCX));
    site_unless(e, site, X86_AE);
}

/* code: what to. What does not fit into a signed integer is the smallest one here, and the
 * interpreter's. */
void emit_fp_to_int(struct emitter *e, const struct ir *ir, unsigned code)
{
    enum { RTZ = 1 };
    struct x86 *x = &e->x;
    bool d = is_double(ir), is_unsigned = code >= TO_UNSIGNED_WORD;
    bool w = code == TO_LONG || code == TO_UNSIGNED_LONG;
    if (ir->rm != RTZ && !rounds_to_nearest(e, ir))
        return;
    struct site *site = fp_open(e, ir, 1);
    if (ir->rm != RTZ)
        require_nearest(e, site, ir);
    if (is_unsigned)
        require_unsigned(e, site, ir, w);
    unsigned opcode = ir->rm == RTZ ? X86_CVTTSD2SI : X86_CVTSD2SI;
    x86_form(x, for_format(opcode, d), w || is_unsigned, false, RAX, fp(ir->rs1));
    if (!is_unsigned) {
        x86_form(x, X86_LOAD, w, false, RCX, x86_register(RAX));
        x86_arithmetic(x, w, X86_GROUP_ADD, x86_register(RCX), -1);
        site_unless(e, site, X86_O);
    }
    if (!w)
        x86_op(x, X86_MOVSXD, RAX, x86_register(RAX));
    emit_save(e, ir->rd, RAX);
    site_close(e, site);
}

enum { FROM_WORD, FROM_UNSIGNED_WORD, FROM_LONG, FROM_UNSIGNED_LONG };

/* code: what from */
void emit_fp_from_int(struct emitter *e, const struct ir *ir, unsigned code)
{
    struct x86 *x = &e->x;
    bool d = is_double(ir), w = code == FROM_LONG || code == FROM_UNSIGNED_LONG;
    bool exact = d && !w;
    if (!exact && !rounds_to_nearest(e, ir))
        return;
    if (exact && (ir->rm == 5 || ir->rm == 6)) {
        emit_call(e, ir, 0); /* reserved */
        return;
    }
    struct site *site = site_open(e, ir);
    require_fp(e, site, false);
    require_nearest(e, site, ir);
    if (code == FROM_UNSIGNED_LONG) {
        x86_arithmetic(x, true, X86_GROUP_CMP, guest(e, ir->rs1), 0);
        site_unless(e, site, X86_L);
    }
    require_fp(e, site, true);
    x86_form(x, 0x0f57, false, false, XMM0, x86_register(XMM0)); /* xorps: no false dependency */
    if (code == FROM_UNSIGNED_WORD) {
        x86_op32(x, X86_LOAD, RAX, guest(e, ir->rs1));
        x86_form(x, for_format(X86_CVTSI2SD, d), true, false, XMM0, x86_register(RAX));
    } else {
        x86_form(x, for_format(X86_CVTSI2SD, d), w, false, XMM0, guest(e, ir->rs1));
    }
    save_fp(e, d, ir->rd, XMM0);
    site_close(e, site);
}

/* code: 1 for double to single */
void emit_fp_convert(struct emitter *e, const struct ir *ir, unsigned code)
{
    bool from_double = code;
    if (!rounds_to_nearest(e, ir))
        return;
    struct site *site = site_open(e, ir);
    require_fp(e, site, false);
    require_nearest(e, site, ir);
    if (!from_double)
        require_boxed(e, site, ir->rs1);
    x86_form(&e->x, 0x0f57, false, false, XMM0, x86_register(XMM0));
    x86_form(&e->x, from_double ? X86_CVTSD2SS : X86_CVTSS2SD, false, false, XMM0, fp(ir->rs1));
    unless_nan(e, site, !from_double, XMM0);
    require_fp(e, site, true);
    save_fp(e, !from_double, ir->rd, XMM0);
    site_close(e, site);
}

/* code: 1 for 64 bits */
void emit_fp_to_bits(struct emitter *e, const struct ir *ir, unsigned code)
{
    struct site *site = site_open(e, ir);
    require_fp(e, site, false);
    unsigned d = ir->rd ? destination(e, ir->rd) : RAX;
    x86_op(&e->x, code ? X86_LOAD : X86_MOVSXD, d, fp(ir->rs1));
    emit_save(e, ir->rd, d);
    site_close(e, site);
}

void emit_fp_from_bits(struct emitter *e, const struct ir *ir, unsigned code)
{
    struct site *site = site_open(e, ir);
    require_fp(e, site, false);
    require_fp(e, site, true);
    unsigned source = emit_use(e, ir->rs1, RAX);
    x86_form(&e->x, X86_STORE, code, false, source, fp(ir->rd));
    if (code)
        e->now.fp_boxed &= ~(1u << ir->rd);
    else
        box(e, ir->rd);
    site_close(e, site);
}
