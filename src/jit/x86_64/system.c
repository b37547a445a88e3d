/* Emitters of CSRs and cache block operations: what a kernel does all the time. */
#include "jit/x86_64/emitter.h"

enum { CSR_WRITE, CSR_SET, CSR_CLEAR, CSR_KIND = 3, CSR_IMMEDIATE = 4 };

#define STATUS_SIE      (1 << 1)
#define STATUS_FS       (3 << 13)
#define STATUS_SD_SHIFT 63

static void require_privilege(struct emitter *e, struct site *site, unsigned privilege)
{
    x86_arithmetic(&e->x, false, X86_GROUP_CMP, x86_memory(RBP, HART(privilege)),
                   (int32_t)privilege);
    site_unless(e, site, X86_B);
}

static void csr_storage(struct emitter *e, const struct ir *ir, unsigned code,
                        const uint64_t *storage, uint64_t mask)
{
    struct x86 *x = &e->x;
    struct x86_operand csr =
        x86_memory(RBP, (int32_t)((const char *)storage - (const char *)e->hart) - HART_BIAS);
    struct site *site = site_open(e, ir);
    require_privilege(e, site, bits_get((uint64_t)ir->imm, 8, 2));
    if (ir->rd)
        x86_op(x, X86_LOAD, RAX, csr);
    if ((code & CSR_KIND) != CSR_WRITE) {
        /* reads only */
    } else if (code & CSR_IMMEDIATE) {
        x86_form(x, 0xc7, true, false, 0, csr);
        x86_32(x, ir->rs1 & (uint32_t)mask);
    } else if (mask == UINT64_MAX) {
        x86_op(x, X86_STORE, emit_use(e, ir->rs1, RCX), csr);
    } else {
        emit_load(e, RCX, ir->rs1);
        x86_arithmetic(x, true, X86_GROUP_AND, x86_register(RCX), (int32_t)mask);
        x86_op(x, X86_STORE, RCX, csr);
    }
    emit_save(e, ir->rd, RAX);
    site_close(e, site);
}

/* rd = sstatus, through rax; rcx and rdx are used up. */
static void read_sstatus(struct emitter *e, const struct ir *ir, uint64_t mask)
{
    struct x86 *x = &e->x;
    if (ir->rd == 0)
        return;
    x86_op(x, X86_LOAD, RAX, x86_memory(RBP, HART(mstatus)));
    x86_op32(x, X86_LOAD, RCX, x86_register(RAX));
    x86_arithmetic(x, false, X86_GROUP_AND, x86_register(RCX), STATUS_FS);
    x86_arithmetic(x, false, X86_GROUP_CMP, x86_register(RCX), STATUS_FS);
    x86_set(x, X86_E, RCX);
    x86_shift(x, true, X86_GROUP_SHL, RCX, STATUS_SD_SHIFT);
    x86_constant(x, RDX, mask);
    x86_op(x, X86_AND, RAX, x86_register(RDX));
    x86_op(x, X86_OR, RAX, x86_register(RCX));
}

/* Interrupts go on where none waits for them: those that wait are the interpreter's. */
static void require_none_pending(struct emitter *e, struct site *site)
{
    struct x86 *x = &e->x;
    x86_op(x, X86_LOAD, RAX, x86_memory(RBP, HART(mip)));
    x86_op(x, X86_LOAD, RDX, x86_register(RAX));
    x86_shift(x, true, X86_GROUP_SHR, RDX, 32);
    x86_op(x, X86_OR, RAX, x86_register(RDX));
    x86_op(x, X86_TEST, RAX, x86_memory(RBP, HART(mie)));
    site_unless(e, site, X86_NE);
}

/* Interrupts off and on, and off with their state kept: csrrc and csrrs of SIE alone. */
static void csr_sstatus(struct emitter *e, const struct ir *ir, unsigned code, uint64_t mask)
{
    struct x86 *x = &e->x;
    struct x86_operand status = x86_memory(RBP, HART(mstatus));
    bool writes = ir->rs1 != 0, immediate = code & CSR_IMMEDIATE;
    unsigned kind = code & CSR_KIND;
    if (kind == CSR_WRITE || (immediate && writes && ir->rs1 != STATUS_SIE)) {
        emit_call(e, ir, code);
        return;
    }
    struct site *site = site_open(e, ir);
    require_privilege(e, site, PRIVILEGE_SUPERVISOR);
    if (writes && !immediate) {
        x86_form(x, 0xf7, true, false, 0, guest(e, ir->rs1)); /* test */
        x86_32(x, ~(uint32_t)STATUS_SIE);
        site_unless(e, site, X86_NE);
    }
    if (writes && kind == CSR_SET)
        require_none_pending(e, site);
    if (ir->rd) { /* flags that are still to be gathered make FS dirty */
        x86_form(x, 0x0fae, false, false, 3, x86_memory(RSP, FRAME_MXCSR)); /* stmxcsr */
        x86_form(x, 0xf7, false, false, 0, x86_memory(RSP, FRAME_MXCSR));   /* test */
        x86_32(x, MXCSR_FLAGS);
        site_unless(e, site, X86_NE);
    }
    read_sstatus(e, ir, mask);
    if (writes && immediate && kind == CSR_SET) {
        x86_arithmetic(x, true, X86_GROUP_OR, status, STATUS_SIE);
    } else if (writes && immediate) {
        x86_arithmetic(x, true, X86_GROUP_AND, status, ~STATUS_SIE);
    } else if (writes) {
        emit_load(e, RCX, ir->rs1);
        if (kind == CSR_CLEAR)
            x86_unary(x, true, X86_GROUP_NOT, x86_register(RCX));
        x86_form(x, kind == CSR_SET ? 0x09 : 0x21, true, false, RCX, status); /* or, and */
    }
    emit_save(e, ir->rd, RAX);
    site_close(e, site);
    if (writes && !immediate)
        e->now.fp_on = e->now.fp_dirty = false; /* the site may change FS */
}

/* code: what is done, and CSR_IMMEDIATE */
void emit_csr(struct emitter *e, const struct ir *ir, unsigned code)
{
    e->now.held = 0;
    uint64_t *storage, mask;
    bool changes = (code & CSR_KIND) != CSR_WRITE && ir->rs1 != 0;
    switch (engine_csr_find(e->hart, (unsigned)ir->imm, &storage, &mask)) {
    case ENGINE_CSR_STORAGE:
        if (changes)
            break;
        csr_storage(e, ir, code, storage, mask);
        return;
    case ENGINE_CSR_SSTATUS:
        csr_sstatus(e, ir, code, mask);
        return;
    case ENGINE_CSR_OTHER:
        break;
    }
    emit_call(e, ir, code);
}

/* Where S-mode may do it; other privileges are the interpreter's. */
void emit_cbo_zero(struct emitter *e, const struct ir *ir, unsigned code)
{
    enum { BLOCK = 64, CBZE = 1 << 7, XMM0 = 0 };
    struct x86 *x = &e->x;
    struct site *site = site_open(e, ir);
    x86_arithmetic(x, false, X86_GROUP_CMP, x86_memory(RBP, HART(privilege)), PRIVILEGE_SUPERVISOR);
    site_unless(e, site, X86_NE);
    x86_form(x, 0xf7, false, false, 0, x86_memory(RBP, HART(menvcfg))); /* test */
    x86_32(x, CBZE);
    site_unless(e, site, X86_E);
    emit_address(e, ir, site, 0);
    x86_arithmetic(x, true, X86_GROUP_AND, x86_register(RAX), -BLOCK);
    x86_form(x, 0x0f57, false, false, XMM0, x86_register(XMM0)); /* xorps */
    for (int32_t i = 0; i < BLOCK; i += 16)
        x86_form(x, X86_MOVUPS_STORE, false, false, XMM0, x86_memory(RAX, i));
    site_close(e, site);
}
