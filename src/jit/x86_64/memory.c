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

void require_fp(struct emitter *e, struct site *site, bool writes)
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
    require_fp(e, site, false);
    host_address(e, ir, site, ACCESS_LOAD, size, false);
    require_fp(e, site, true);
    if (size == 8) {
        x86_op(&e->x, X86_LOAD, RAX, x86_memory(RAX, 0));
    } else {
        x86_op32(&e->x, X86_LOAD, RAX, x86_memory(RAX, 0));
        x86_constant(&e->x, RCX, UINT64_C(0xffffffff00000000));
        x86_op(&e->x, X86_OR, RAX, x86_register(RCX));
    }
    e->fp_boxed = size == 4 ? e->fp_boxed | 1u << ir->rd : e->fp_boxed & ~(1u << ir->rd);
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

/* --- Atomics: host atomics are sequentially consistent, which is at least what aq and rl ask ---
 */

static bool is_word(const struct ir *ir)
{
    return isa_access_bytes(ir->op) == 4;
}

static void save_old(struct emitter *e, const struct ir *ir, unsigned host)
{
    if (ir->rd == 0)
        return;
    unsigned d = destination(ir->rd);
    x86_op(&e->x, is_word(ir) ? X86_MOVSXD : X86_LOAD, d, x86_register(host));
    emit_save(e, ir->rd, d);
}

static void lock(struct emitter *e)
{
    x86_byte(&e->x, 0xf0);
}

/* rax = the host address */
static struct site *atomic_open(struct emitter *e, const struct ir *ir)
{
    struct site *site = site_open(e, ir);
    host_address(e, ir, site, ACCESS_STORE, isa_access_bytes(ir->op), true);
    return site;
}

/* code: X86_XCHG or X86_XADD */
void emit_swap(struct emitter *e, const struct ir *ir, unsigned code)
{
    struct site *site = atomic_open(e, ir);
    emit_load(e, RDX, ir->rs2);
    lock(e);
    x86_form(&e->x, code, !is_word(ir), false, RDX, x86_memory(RAX, 0));
    save_old(e, ir, RDX);
    site_close(e, site);
}

/* rax = the old value, rcx = the address; rdx is to become the new value */
static uint8_t *exchange_begin(struct emitter *e, const struct ir *ir)
{
    x86_op(&e->x, X86_LOAD, RCX, x86_register(RAX));
    x86_form(&e->x, X86_LOAD, !is_word(ir), false, RAX, x86_memory(RCX, 0));
    uint8_t *again = e->x.at;
    x86_op(&e->x, X86_LOAD, RDX, x86_register(RAX));
    return again;
}

static void exchange_end(struct emitter *e, const struct ir *ir, const uint8_t *again)
{
    lock(e);
    x86_form(&e->x, X86_CMPXCHG, !is_word(ir), false, RDX, x86_memory(RCX, 0));
    x86_patch(x86_jump_if(&e->x, X86_NE), again);
    save_old(e, ir, RAX);
}

/* code: enum x86_opcode */
void emit_amo(struct emitter *e, const struct ir *ir, unsigned code)
{
    struct site *site = atomic_open(e, ir);
    const uint8_t *again = exchange_begin(e, ir);
    x86_op(&e->x, code, RDX, guest(ir->rs2));
    exchange_end(e, ir, again);
    site_close(e, site);
}

/* code: the conditional move that takes rs2 after comparing the old value with it */
void emit_amo_choose(struct emitter *e, const struct ir *ir, unsigned code)
{
    struct site *site = atomic_open(e, ir);
    const uint8_t *again = exchange_begin(e, ir);
    x86_form(&e->x, X86_CMP, !is_word(ir), false, RDX, guest(ir->rs2));
    x86_form(&e->x, code, !is_word(ir), false, RDX, guest(ir->rs2));
    exchange_end(e, ir, again);
    site_close(e, site);
}

void emit_amo_cas(struct emitter *e, const struct ir *ir, unsigned code)
{
    struct site *site = atomic_open(e, ir);
    x86_op(&e->x, X86_LOAD, RCX, x86_register(RAX));
    emit_load(e, RAX, ir->rd);
    emit_load(e, RDX, ir->rs2);
    lock(e);
    x86_form(&e->x, X86_CMPXCHG, !is_word(ir), false, RDX, x86_memory(RCX, 0));
    save_old(e, ir, RAX);
    site_close(e, site);
}
