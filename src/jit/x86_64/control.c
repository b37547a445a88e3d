/* Emitters of branches, jumps and exits. */
#include "jit/x86_64/emitter.h"

#define PAGE_MASK (~(uint64_t)(MEMORY_PAGE_SIZE - 1))

static void retire(struct emitter *e, unsigned count)
{
    if (count)
        x86_arithmetic(&e->x, true, X86_GROUP_ADD, x86_register(INSTRET), (int32_t)count);
}

static uint8_t *unless_attention(struct emitter *e)
{
    x86_arithmetic(&e->x, false, X86_GROUP_CMP, x86_memory(RBP, HART(attention)), 0);
    return x86_jump_if(&e->x, X86_NE);
}

/* rax = the target, which the operand of its entry among the context's jumps must match. */
static void jump_through(struct emitter *e, struct x86_operand pc)
{
    struct x86 *x = &e->x;
    struct x86_operand code = pc;
    code.displacement += TLB_JUMP(code) - TLB_JUMP(pc);
    x86_op(x, X86_CMP, RAX, pc);
    x86_patch(x86_jump_if(x, X86_NE), e->thunks->resume);
    x86_form(x, 0xff, false, false, 4, code);
}

/* To the block's own start: what a loop does most. */
static void emit_again(struct emitter *e, unsigned retired)
{
    struct x86 *x = &e->x;
    const struct registers *head = e->looping ? &e->head : &home;
    struct registers regs = e->now.regs;
    bool in_host = regs.host[INSTRET_REG] != IN_MEMORY;
    x86_arithmetic(x, true, X86_GROUP_ADD,
                   in_host ? x86_register(regs.host[INSTRET_REG]) : guest_slot(INSTRET_REG),
                   (int32_t)retired);
    if (in_host)
        regs.dirty |= 1u << INSTRET_REG;
    e->tail = regs;
    emit_transition(e, regs, head);
    x86_arithmetic(x, false, X86_GROUP_CMP, x86_memory(RBP, HART(attention)), 0);
    x86_patch(x86_jump_if(x, X86_E), e->looping ? e->loop : e->start);
    emit_transition(e, *head, &home);
    x86_constant(x, RAX, e->block->pc);
    x86_jump_to(x, e->thunks->resume);
}

/* From the instruction at pc to target, when so many of the block have retired. Interrupts are
 * noticed where it goes backward, so in every loop. */
void emit_exit_to(struct emitter *e, uint64_t pc, uint64_t target, unsigned retired)
{
    struct x86 *x = &e->x;
    if (target == e->block->pc) {
        emit_again(e, retired);
        return;
    }
    struct link *link = &e->links[e->link_count++];
    *link = (struct link){.pc = target};
    retire(e, retired);
    if (target <= pc)
        link->attention = unless_attention(e);
    if ((target & PAGE_MASK) != (pc & PAGE_MASK)) {
        int32_t index = (int32_t)(target & TLB_JUMP_MASK) * 8;
        x86_constant(x, RAX, target);
        jump_through(e, x86_memory(CONTEXT, index + TLB_JUMP(pc)));
    } else {
        link->patch = x86_jump_aligned(x);
    }
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
    if (ir->rs2 == 0 && is_in_host(e, ir->rs1))
        x86_op(x, X86_TEST, e->now.regs.host[ir->rs1], x86_register(e->now.regs.host[ir->rs1]));
    else if (ir->rs2 == 0)
        x86_arithmetic(x, true, X86_GROUP_CMP, guest(e, ir->rs1), 0);
    else
        x86_op(x, X86_CMP, emit_use(e, ir->rs1, RAX), guest(e, ir->rs2));

    if ((uint64_t)ir->imm <= ir->pc) {
        /* Probably a loop: its exit is in line. */
        uint8_t *not_taken = x86_jump_if(x, code ^ 1);
        if ((uint64_t)ir->imm != e->block->pc)
            emit_transition(e, e->now.regs, &home);
        emit_exit_to(e, ir->pc, (uint64_t)ir->imm, ir->index + 1u);
        x86_here(x, not_taken);
        return;
    }
    uint8_t *jump = x86_jump_if(x, code);
    const struct ir_arm *arm = ir_arm_of(e->block, (unsigned)(ir - e->block->code));
    if (arm) {
        e->arms[arm - e->block->arms].jump = jump;
        e->arms[arm - e->block->arms].state = e->now;
        return;
    }
    e->taken[e->taken_count].ir = ir;
    e->taken[e->taken_count].jump = jump;
    if (e->looping)
        e->taken[e->taken_count].regs = e->now.regs;
    e->taken_count++;
}

void emit_jalr(struct emitter *e, const struct ir *ir, unsigned code)
{
    struct x86 *x = &e->x;
    if (is_in_host(e, ir->rs1)) {
        x86_op(x, X86_LEA, RAX, x86_memory(e->now.regs.host[ir->rs1], (int32_t)ir->imm));
    } else {
        emit_load(e, RAX, ir->rs1);
        if (ir->imm)
            x86_arithmetic(x, true, X86_GROUP_ADD, x86_register(RAX), (int32_t)ir->imm);
    }
    /* Bit 0 is ignored: an odd target matches no jump, and is made even after that. */
    if (ir->rd) {
        unsigned d = is_in_host(e, ir->rd) ? e->now.regs.host[ir->rd] : RCX;
        x86_constant(x, d, ir->pc + ir->length);
        emit_save(e, ir->rd, d);
    }
    retire(e, ir->index + 1u);
    x86_patch(unless_attention(e), e->thunks->resume);
    x86_op32(x, X86_LOAD, RCX, x86_register(RAX));
    x86_arithmetic(x, false, X86_GROUP_AND, x86_register(RCX), TLB_JUMP_MASK);
    jump_through(e, x86_indexed(CONTEXT, RCX, 3, TLB_JUMP(pc)));
}
