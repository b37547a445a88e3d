/* Emitters of branches, jumps and exits. */
#include "jit/x86_64/emitter.h"

#define PAGE_MASK (~(uint64_t)(MEMORY_PAGE_SIZE - 1))

static void retire(struct emitter *e, unsigned count)
{
    if (count)
        x86_arithmetic(&e->x, true, X86_GROUP_ADD, x86_register(INSTRET), (int32_t)count);
}

static void to_stub(struct emitter *e, struct link *link, enum x86_condition condition)
{
    link->jumps[link->jump_count++] = x86_jump_if(&e->x, condition);
}

/* rcx = the fetch TLB; does it translate the page as it did, and is the code there valid? */
static void guard(struct emitter *e, struct link *link)
{
    struct x86 *x = &e->x;
    int32_t entry = (int32_t)(link->pc >> TLB_INDEX_SHIFT & TLB_INDEX_MASK);
    x86_op(x, X86_LOAD, RCX, x86_memory(RBP, HART(fetch_tlb)));
    link->relative[0] = x86_op_relative(x, X86_LOAD, RAX);
    x86_op(x, X86_CMP, RAX, x86_memory(RCX, entry + TLB_ENTRY_TAG(ACCESS_FETCH)));
    to_stub(e, link, X86_NE);
    link->relative[1] = x86_op_relative(x, X86_LOAD, RAX);
    x86_op(x, X86_CMP, RAX, x86_memory(RCX, entry + TLB_ENTRY(addend)));
    to_stub(e, link, X86_NE);
    link->relative[2] = x86_op_relative(x, X86_LOAD, RAX);
    x86_op(x, X86_LOAD, RAX, x86_memory(RAX, 0));
    x86_op(x, X86_CMP, RAX, x86_memory(RSP, FRAME_EPOCH));
    to_stub(e, link, X86_NE);
}

/* From the instruction at pc to target, when so many of the block have retired. Interrupts are
 * noticed where it goes backward or leaves the page, so in every loop. */
void emit_exit_to(struct emitter *e, uint64_t pc, uint64_t target, unsigned retired)
{
    struct link *link = &e->links[e->link_count++];
    *link = (struct link){.pc = target, .guarded = (target & PAGE_MASK) != (pc & PAGE_MASK)};
    retire(e, retired);
    if (link->guarded || target <= pc) {
        x86_arithmetic(&e->x, false, X86_GROUP_CMP, x86_memory(RBP, HART(attention)), 0);
        to_stub(e, link, X86_NE);
    }
    if (link->guarded)
        guard(e, link);
    if (target == e->block->pc && !link->guarded)
        x86_jump_to(&e->x, e->start);
    else
        link->patch = x86_jump(&e->x);
}

void emit_exit(struct emitter *e, const struct ir *ir, unsigned code)
{
    /* The instruction before it. */
    emit_exit_to(e, ir[-1].pc, (uint64_t)ir->imm, ir->index);
}

/* code: the condition */
void emit_branch(struct emitter *e, const struct ir *ir, unsigned code)
{
    struct x86 *x = &e->x;
    if (ir->rs2 == 0 && is_pinned(ir->rs1))
        x86_op(x, X86_TEST, pinned[ir->rs1], x86_register(pinned[ir->rs1]));
    else if (ir->rs2 == 0)
        x86_arithmetic(x, true, X86_GROUP_CMP, guest(ir->rs1), 0);
    else
        x86_op(x, X86_CMP, emit_use(e, ir->rs1, RAX), guest(ir->rs2));

    if ((uint64_t)ir->imm <= ir->pc) {
        /* Probably a loop: its exit is in line. */
        uint8_t *not_taken = x86_jump_if(x, code ^ 1);
        emit_exit_to(e, ir->pc, (uint64_t)ir->imm, ir->index + 1u);
        x86_here(x, not_taken);
        return;
    }
    e->taken[e->taken_count].ir = ir;
    e->taken[e->taken_count++].jump = x86_jump_if(x, code);
}

void emit_jalr(struct emitter *e, const struct ir *ir, unsigned code)
{
    struct x86 *x = &e->x;
    if (is_pinned(ir->rs1)) {
        x86_op(x, X86_LEA, RAX, x86_memory(pinned[ir->rs1], (int32_t)ir->imm));
    } else {
        emit_load(e, RAX, ir->rs1);
        if (ir->imm)
            x86_arithmetic(x, true, X86_GROUP_ADD, x86_register(RAX), (int32_t)ir->imm);
    }
    x86_arithmetic(x, true, X86_GROUP_AND, x86_register(RAX), -2);
    if (ir->rd) {
        unsigned d = is_pinned(ir->rd) ? pinned[ir->rd] : RCX;
        x86_constant(x, d, ir->pc + ir->length);
        emit_save(e, ir->rd, d);
    }
    retire(e, ir->index + 1u);
    x86_jump_to(x, e->thunks->jump);
}

enum { CSR_WRITE, CSR_SET, CSR_CLEAR, CSR_KIND = 3, CSR_IMMEDIATE = 4 };

/* code: what is done, and CSR_IMMEDIATE. Only CSRs that are plain storage are accessed in line. */
void emit_csr(struct emitter *e, const struct ir *ir, unsigned code)
{
    struct x86 *x = &e->x;
    const uint64_t *storage = engine_csr_storage(e->hart, (unsigned)ir->imm);
    bool writes = (code & CSR_KIND) == CSR_WRITE || ir->rs1 != 0;
    if (!storage || (writes && (code & CSR_KIND) != CSR_WRITE)) {
        emit_call(e, ir, code);
        return;
    }
    struct x86_operand csr =
        x86_memory(RBP, (int32_t)((const char *)storage - (const char *)e->hart) - HART_BIAS);
    struct site *site = site_open(e, ir);
    x86_arithmetic(x, false, X86_GROUP_CMP, x86_memory(RBP, HART(privilege)),
                   (int32_t)bits_get((uint64_t)ir->imm, 8, 2));
    site_unless(e, site, X86_B);
    x86_op(x, X86_LOAD, RAX, csr);
    if (writes && (code & CSR_IMMEDIATE)) {
        x86_form(x, 0xc7, true, false, 0, csr);
        x86_32(x, ir->rs1);
    } else if (writes) {
        x86_op(x, X86_STORE, emit_use(e, ir->rs1, RCX), csr);
    }
    emit_save(e, ir->rd, RAX);
    site_close(e, site);
}
