/* Emitters of loads, stores and atomics. */
#include "jit/x86_64/emitter.h"

/*
 * rax = the host address of rs1 + imm, rcx and rdx are used up. An access that the TLB has no entry
 * for, or that crosses into the next page, goes to the site.
 */
static void host_address(struct emitter *e, const struct ir *ir, struct site *site,
                         enum access access, unsigned size, bool aligned)
{
    struct x86 *x = &e->x;
    if (is_pinned(ir->rs1)) {
        x86_op(x, ir->imm ? X86_LEA : X86_LOAD, RAX,
               ir->imm ? x86_memory(pinned[ir->rs1], (int32_t)ir->imm)
                       : x86_register(pinned[ir->rs1]));
    } else {
        emit_load(e, RAX, ir->rs1);
        if (ir->imm)
            x86_arithmetic(x, true, X86_GROUP_ADD, x86_register(RAX), (int32_t)ir->imm);
    }
    x86_op32(x, X86_LOAD, RCX, x86_register(RAX));
    x86_shift(x, false, X86_GROUP_SHR, RCX, TLB_INDEX_SHIFT);
    x86_arithmetic(x, false, X86_GROUP_AND, x86_register(RCX), TLB_INDEX_MASK);
    x86_op(x, X86_ADD, RCX, x86_memory(RBP, HART(data_tlb)));
    int32_t mask = -MEMORY_PAGE_SIZE;
    if (aligned) {
        x86_op(x, X86_LOAD, RDX, x86_register(RAX));
        mask |= (int32_t)size - 1;
    } else {
        x86_op(x, X86_LEA, RDX, x86_memory(RAX, (int32_t)size - 1));
    }
    x86_arithmetic(x, true, X86_GROUP_AND, x86_register(RDX), mask);
    x86_op(x, X86_CMP, RDX, x86_memory(RCX, TLB_ENTRY_TAG(access)));
    site_unless(e, site, X86_NE);
    x86_op(x, X86_ADD, RAX, x86_memory(RCX, TLB_ENTRY(addend)));
}

/* code: enum x86_opcode */
void emit_load_memory(struct emitter *e, const struct ir *ir, unsigned code)
{
    unsigned size = isa_access_bytes(ir->op);
    struct site *site = site_open(e, ir);
    host_address(e, ir, site, ACCESS_LOAD, size, false);
    unsigned d = ir->rd ? destination(ir->rd) : RAX;
    bool wide = ir->op != INSN_lwu;
    x86_form(&e->x, code, wide, false, d, x86_memory(RAX, 0));
    emit_save(e, ir->rd, d);
    site_close(e, site);
}

static void store(struct emitter *e, unsigned size, unsigned value)
{
    static const unsigned opcodes[] = {
        [1] = X86_STORE_8, [2] = X86_STORE_16, [4] = X86_STORE, [8] = X86_STORE};
    x86_form(&e->x, opcodes[size], size == 8, size == 1, value, x86_memory(RAX, 0));
}

void emit_store_memory(struct emitter *e, const struct ir *ir, unsigned code)
{
    unsigned size = isa_access_bytes(ir->op);
    struct site *site = site_open(e, ir);
    host_address(e, ir, site, ACCESS_STORE, size, false);
    store(e, size, emit_use(e, ir->rs2, RDX));
    site_close(e, site);
}

/* Illegal while mstatus.FS is off: then the interpreter traps. */
static void require_fp(struct emitter *e, struct site *site, bool writes)
{
    enum { FS = 3 << 13 };
    if (!e->fp_on) {
        x86_form(&e->x, 0xf7, false, false, 0, x86_memory(RBP, HART(mstatus)));
        x86_32(&e->x, FS);
        site_unless(e, site, X86_E);
        e->fp_on = true;
    }
    if (writes && !e->fp_dirty) {
        x86_arithmetic(&e->x, false, X86_GROUP_OR, x86_memory(RBP, HART(mstatus)), FS);
        e->fp_dirty = true;
    }
}

void emit_load_fp(struct emitter *e, const struct ir *ir, unsigned code)
{
    unsigned size = isa_access_bytes(ir->op);
    struct site *site = site_open(e, ir);
    bool was_dirty = e->fp_dirty;
    require_fp(e, site, false);
    host_address(e, ir, site, ACCESS_LOAD, size, false);
    if (!was_dirty)
        require_fp(e, site, true);
    if (size == 8) {
        x86_op(&e->x, X86_LOAD, RAX, x86_memory(RAX, 0));
    } else {
        x86_op32(&e->x, X86_LOAD, RAX, x86_memory(RAX, 0));
        x86_constant(&e->x, RCX, UINT64_C(0xffffffff00000000));
        x86_op(&e->x, X86_OR, RAX, x86_register(RCX));
    }
    x86_op(&e->x, X86_STORE, RAX, x86_memory(RBP, HART(f) + 8 * (int32_t)ir->rd));
    site_close(e, site);
}

void emit_store_fp(struct emitter *e, const struct ir *ir, unsigned code)
{
    unsigned size = isa_access_bytes(ir->op);
    struct site *site = site_open(e, ir);
    require_fp(e, site, false);
    host_address(e, ir, site, ACCESS_STORE, size, false);
    x86_op(&e->x, X86_LOAD, RDX, x86_memory(RBP, HART(f) + 8 * (int32_t)ir->rs2));
    store(e, size, RDX);
    site_close(e, site);
}
