/* Emitters of loads, stores and atomics. */
#include "jit/x86_64/emitter.h"

/* A host register that holds rs1: its own, or rax. */
static unsigned base_of(struct emitter *e, const struct ir *ir)
{
    return emit_use(e, ir->rs1, RAX);
}

/*
 * Compares: does the TLB have the page of both base + first and base + last for this access? rcx is
 * the offset of its entry, rdx is used up. A mask of more than the page's bits is for accesses that
 * must be aligned, whose first and last are equal.
 */
void emit_look_up(struct x86 *x, unsigned base, int32_t first, int32_t last, int32_t mask,
                  enum access access)
{
    x86_op32(x, first ? X86_LEA : X86_LOAD, RCX,
             first ? x86_memory(base, first) : x86_register(base));
    x86_shift(x, false, X86_GROUP_SHR, RCX, TLB_ENTRY_SHIFT);
    x86_op32(x, X86_AND, RCX, x86_memory(CONTEXT, offsetof(struct tlb, entries_mask)));
    x86_op(x, last ? X86_LEA : X86_LOAD, RDX, last ? x86_memory(base, last) : x86_register(base));
    x86_arithmetic(x, true, X86_GROUP_AND, x86_register(RDX), mask);
    x86_op(x, X86_CMP, RDX, x86_indexed(CONTEXT, RCX, 0, TLB_ENTRY_TAG(access)));
}

/* rdx = what to add to addresses in the page, unless the jump that is returned is taken. */
static uint8_t *look_up(struct emitter *e, unsigned base, int32_t first, int32_t last, int32_t mask,
                        enum access access)
{
    e->now.held = 0;
    emit_look_up(&e->x, base, first, last, mask, access);
    uint8_t *failed = x86_jump_if(&e->x, X86_NE);
    x86_op(&e->x, X86_LOAD, RDX, x86_indexed(CONTEXT, RCX, 0, TLB_ENTRY(addend)));
    return failed;
}

static void site_jump(struct site *site, uint8_t *jump)
{
    site->jumps[site->jump_count++] = jump;
}

static struct alone *alone_open(struct emitter *e, const struct ir *ir, struct site *site,
                                unsigned base, const struct access_form *form)
{
    struct alone *alone = &e->alones[e->alone_count++];
    *alone = (struct alone){.ir = ir, .site = site, .form = form, .base = (uint8_t)base};
    return alone;
}

/* rdx = base + offset */
static void add_offset(struct x86 *x, unsigned base, int32_t offset)
{
    x86_op(x, offset ? X86_LEA : X86_LOAD, RDX,
           offset ? x86_memory(base, offset) : x86_register(base));
}

/*
 * An access by itself looks first at the entry that it used the last time: a comparison with no
 * computation in front of it, so that what is loaded does not wait for the address to go through
 * the TLB. It is for aligned addresses, which never cross a page.
 */
static void look_where_predicted(struct emitter *e, const struct ir *ir, struct alone *alone,
                                 enum access access)
{
    struct x86 *x = &e->x;
    alone->predicted = HART(predicted) + 4 * (int32_t)(e->predicted++ % HART_PREDICTED);
    x86_op32(x, X86_LOAD, RCX, x86_memory(RBP, alone->predicted));
    add_offset(x, alone->base, (int32_t)ir->imm);
    x86_arithmetic(x, true, X86_GROUP_AND, x86_register(RDX),
                   -MEMORY_PAGE_SIZE | ((int32_t)isa_access_bytes(ir->op) - 1));
    x86_op(x, X86_CMP, RDX, x86_indexed(CONTEXT, RCX, 0, TLB_ENTRY_TAG(access)));
    alone->jump = x86_jump_if(x, X86_NE);
    x86_op(x, X86_LOAD, RDX, x86_indexed(CONTEXT, RCX, 0, TLB_ENTRY(addend)));
}

static void look_where_shared(struct emitter *e, const struct ir *ir, struct alone *alone)
{
    struct x86 *x = &e->x;
    if (e->now.held != ir->share)
        x86_op(x, X86_LOAD, RDX, x86_memory(RSP, FRAME_SHARE(ir->share)));
    x86_op(x, X86_TEST, RDX, x86_register(RDX));
    alone->jump = x86_jump_if(x, X86_E);
}

/*
 * Makes the access to the memory at rs1 + imm, whose operand uses rdx and, if rs1 is in memory,
 * rax. What the TLB has no entry for, or that crosses into the next page, goes to the site. Behind
 * it rdx holds what the accesses share, or 0, for the next one of them.
 */
static void emit_access(struct emitter *e, const struct ir *ir, struct site *site,
                        const struct access_form *form)
{
    struct x86 *x = &e->x;
    int32_t imm = (int32_t)ir->imm, size = (int32_t)isa_access_bytes(ir->op);
    struct x86_operand operand = x86_indexed(base_of(e, ir), RDX, 0, imm);
    struct alone *alone = alone_open(e, ir, site, operand.base, form);
    bool more = ir->share && (ir->first < 0 || ir->last >= size); /* than what it accesses itself */
    enum access access = ir->share ? ir->share_stores ? ACCESS_STORE : ACCESS_LOAD : form->access;
    if (ir->share && !ir->share_begins)
        look_where_shared(e, ir, alone);
    else if (more)
        alone->jump =
            look_up(e, operand.base, imm + ir->first, imm + ir->last, -MEMORY_PAGE_SIZE, access);
    else
        look_where_predicted(e, ir, alone, access);
    if (ir->share_begins)
        x86_op(x, X86_STORE, RDX, x86_memory(RSP, FRAME_SHARE(ir->share)));
    e->now.held = ir->share;
    form->make(e, ir, operand);
    alone->back = x->at;
}

void emit_alone(struct emitter *e, const struct alone *alone)
{
    struct x86 *x = &e->x;
    const struct ir *ir = alone->ir;
    e->now.regs = e->looping ? alone->site->after : home;
    unsigned size = (unsigned)__builtin_ctz(isa_access_bytes(ir->op));
    x86_here(x, alone->jump);
    if (ir->share_begins) { /* the others shall not find one either: 0 */
        x86_form(x, 0xc7, true, false, 0, x86_memory(RSP, FRAME_SHARE(ir->share)));
        x86_32(x, 0);
    }
    add_offset(x, alone->base, (int32_t)ir->imm);
    x86_call_to(x, e->thunks->look_up[alone->form->access][size]);
    site_jump(alone->site, x86_jump_if(x, X86_NE));
    if (alone->predicted)
        x86_op32(x, X86_STORE, RCX, x86_memory(RBP, alone->predicted));
    alone->form->make(e, ir, x86_indexed(alone->base, RDX, 0, (int32_t)ir->imm));
    if (ir->share)
        x86_op32(x, X86_XOR, RDX, x86_register(RDX));
    x86_jump_to(x, alone->back);
}

static void make_load(struct emitter *e, const struct ir *ir, struct x86_operand memory)
{
    unsigned d = ir->rd ? destination(e, ir->rd) : RAX;
    x86_form(&e->x, emitters[ir->op].code, ir->op != INSN_lwu, false, d, memory);
    emit_save(e, ir->rd, d);
}

/* code: enum x86_opcode */
void emit_load_memory(struct emitter *e, const struct ir *ir, unsigned code)
{
    static const struct access_form form = {ACCESS_LOAD, make_load};
    struct site *site = site_open(e, ir);
    emit_access(e, ir, site, &form);
    site_close(e, site);
}

static void store(struct emitter *e, unsigned size, unsigned value, struct x86_operand memory)
{
    static const unsigned opcodes[] = {
        [1] = X86_STORE_8, [2] = X86_STORE_16, [4] = X86_STORE, [8] = X86_STORE};
    x86_form(&e->x, opcodes[size], size == 8, size == 1, value, memory);
}

static void make_store(struct emitter *e, const struct ir *ir, struct x86_operand memory)
{
    store(e, isa_access_bytes(ir->op), emit_use(e, ir->rs2, RCX), memory);
}

void emit_store_memory(struct emitter *e, const struct ir *ir, unsigned code)
{
    static const struct access_form form = {ACCESS_STORE, make_store};
    struct site *site = site_open(e, ir);
    emit_access(e, ir, site, &form);
    site_close(e, site);
}

void require_fp(struct emitter *e, struct site *site, bool writes)
{
    enum { FS = 3 << 13 };
    if (!e->now.fp_on) {
        x86_form(&e->x, 0xf7, false, false, 0, x86_memory(RBP, HART(mstatus)));
        x86_32(&e->x, FS);
        site_unless(e, site, X86_E);
        e->now.fp_on = true;
    }
    if (writes && !e->now.fp_dirty) {
        x86_arithmetic(&e->x, false, X86_GROUP_OR, x86_memory(RBP, HART(mstatus)), FS);
        e->now.fp_dirty = true;
    }
}

static void make_load_fp(struct emitter *e, const struct ir *ir, struct x86_operand memory)
{
    struct x86 *x = &e->x;
    unsigned size = isa_access_bytes(ir->op);
    if (size == 2)
        x86_form(x, X86_MOVZX_16, false, false, RAX, memory);
    else
        x86_form(x, X86_LOAD, size == 8, false, RAX, memory);
    if (size < 8) {
        x86_constant(x, RCX, UINT64_MAX << 8 * size);
        x86_op(x, X86_OR, RAX, x86_register(RCX));
    }
    x86_op(x, X86_STORE, RAX, x86_memory(RBP, HART(f) + 8 * (int32_t)ir->rd));
}

void emit_load_fp(struct emitter *e, const struct ir *ir, unsigned code)
{
    static const struct access_form form = {ACCESS_LOAD, make_load_fp};
    struct site *site = site_open(e, ir);
    require_fp(e, site, false);
    emit_access(e, ir, site, &form);
    require_fp(e, site, true);
    bool boxed = isa_access_bytes(ir->op) == 4;
    e->now.fp_boxed = boxed ? e->now.fp_boxed | 1u << ir->rd : e->now.fp_boxed & ~(1u << ir->rd);
    site_close(e, site);
}

static void make_store_fp(struct emitter *e, const struct ir *ir, struct x86_operand memory)
{
    x86_op(&e->x, X86_LOAD, RCX, x86_memory(RBP, HART(f) + 8 * (int32_t)ir->rs2));
    store(e, isa_access_bytes(ir->op), RCX, memory);
}

void emit_store_fp(struct emitter *e, const struct ir *ir, unsigned code)
{
    static const struct access_form form = {ACCESS_STORE, make_store_fp};
    struct site *site = site_open(e, ir);
    require_fp(e, site, false);
    emit_access(e, ir, site, &form);
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
    unsigned d = destination(e, ir->rd);
    x86_op(&e->x, is_word(ir) ? X86_MOVSXD : X86_LOAD, d, x86_register(host));
    emit_save(e, ir->rd, d);
}

static void lock(struct emitter *e)
{
    x86_byte(&e->x, 0xf0);
}

void emit_address(struct emitter *e, const struct ir *ir, struct site *site, int32_t aligned)
{
    unsigned base = base_of(e, ir);
    site_jump(site, look_up(e, base, 0, 0, -MEMORY_PAGE_SIZE | aligned, ACCESS_STORE));
    x86_op(&e->x, X86_LEA, RAX, x86_indexed(base, RDX, 0, 0));
}

/* rax = the host address */
static struct site *atomic_open(struct emitter *e, const struct ir *ir)
{
    struct site *site = site_open(e, ir);
    emit_address(e, ir, site, (int32_t)isa_access_bytes(ir->op) - 1);
    return site;
}

/* What was loaded, and where, is all that the SC behind it needs. A reservation that an earlier LR
 * left in the hart is gone with this one. */
void emit_lr(struct emitter *e, const struct ir *ir, unsigned code)
{
    struct x86 *x = &e->x;
    struct site *site = atomic_open(e, ir);
    x86_op(x, X86_STORE, RAX, x86_memory(RBP, HART(reservation_host)));
    x86_form(x, 0xc7, true, false, 0, x86_memory(RBP, HART(reservation_address)));
    x86_32(x, UINT32_MAX);
    x86_op(x, is_word(ir) ? X86_MOVSXD : X86_LOAD, RCX, x86_memory(RAX, 0));
    x86_op(x, X86_STORE, RCX, x86_memory(RBP, HART(reservation_value)));
    emit_save(e, ir->rd, RCX);
    site_close(e, site);
}

/* Without an LR before it, SC fails if the hart holds no reservation: how kernels drop one. */
static void sc_alone(struct emitter *e, const struct ir *ir)
{
    struct x86 *x = &e->x;
    struct site *site = atomic_open(e, ir);
    x86_arithmetic(x, true, X86_GROUP_CMP, x86_memory(RBP, HART(reservation_address)), -1);
    site_unless(e, site, X86_NE);
    x86_constant(x, RAX, 1);
    emit_save(e, ir->rd, RAX);
    site_close(e, site);
}

void emit_sc(struct emitter *e, const struct ir *ir, unsigned code)
{
    struct x86 *x = &e->x;
    if (!ir->paired) {
        sc_alone(e, ir);
        return;
    }
    x86_op(x, X86_LOAD, RCX, x86_memory(RBP, HART(reservation_host)));
    x86_op(x, X86_LOAD, RAX, x86_memory(RBP, HART(reservation_value)));
    e->now.held = 0;
    unsigned value = emit_use(e, ir->rs2, RDX);
    lock(e);
    x86_form(x, X86_CMPXCHG, !is_word(ir), false, value, x86_memory(RCX, 0));
    x86_set(x, X86_NE, RAX);
    emit_save(e, ir->rd, RAX);
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
    x86_op(&e->x, code, RDX, guest(e, ir->rs2));
    exchange_end(e, ir, again);
    site_close(e, site);
}

/* code: the conditional move that takes rs2 after comparing the old value with it */
void emit_amo_choose(struct emitter *e, const struct ir *ir, unsigned code)
{
    struct site *site = atomic_open(e, ir);
    const uint8_t *again = exchange_begin(e, ir);
    x86_form(&e->x, X86_CMP, !is_word(ir), false, RDX, guest(e, ir->rs2));
    x86_form(&e->x, code, !is_word(ir), false, RDX, guest(e, ir->rs2));
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
