/* The code that all blocks share: into translated code, out of it, and calls of C. */
#include "jit/x86_64/emitter.h"

static const uint8_t callee_saved[] = {RBP, RBX, R12, R13, R14, R15};

static void push(struct x86 *x, unsigned reg, bool pop)
{
    if (reg >= R8)
        x86_byte(x, 0x41);
    x86_byte(x, (pop ? 0x58 : 0x50) + (reg & 7));
}

static void ret(struct x86 *x)
{
    x86_byte(x, 0xc3);
}

/* opcode X86_STORE: guest state from host registers to struct hart; X86_LOAD: back. */
static void transfer(struct x86 *x, enum x86_opcode opcode)
{
    for (unsigned i = 0; i < 32; i++)
        if (is_pinned(i))
            x86_op(x, opcode, pinned[i], x86_memory(RBP, HART(x) + 8 * (int32_t)i));
    x86_op(x, opcode, INSTRET, x86_memory(RBP, HART(instret)));
}

static void jump_register(struct x86 *x, unsigned reg)
{
    x86_form(x, 0xff, false, false, 4, x86_register(reg));
}

/* jit_enter: hart in rdi, code in rsi, epoch in rdx, jumps in rcx. */
static void make_enter(struct x86 *x)
{
    for (unsigned i = 0; i < ARRAY_SIZE(callee_saved); i++)
        push(x, callee_saved[i], false);
    x86_arithmetic(x, true, X86_GROUP_SUB, x86_register(RSP), FRAME_SIZE);
    x86_op(x, X86_STORE, RDX, x86_memory(RSP, FRAME_EPOCH));
    x86_op(x, X86_STORE, RCX, x86_memory(RSP, FRAME_JUMPS));
    x86_op(x, X86_LEA, RBP, x86_memory(RDI, HART_BIAS));
    x86_op(x, X86_LOAD, RAX, x86_register(RSI));
    transfer(x, X86_LOAD);
    jump_register(x, RAX);
}

/* Returns rax to C. */
static void make_exit(struct x86 *x)
{
    x86_arithmetic(x, true, X86_GROUP_ADD, x86_register(RSP), FRAME_SIZE);
    for (unsigned i = ARRAY_SIZE(callee_saved); i-- > 0;)
        push(x, callee_saved[i], true);
    ret(x);
}

static void make_one(struct x86 *x, jit_one *one, const uint8_t *exit)
{
    transfer(x, X86_STORE);
    x86_op(x, X86_LEA, RDI, x86_memory(RBP, -HART_BIAS));
    x86_op(x, X86_LOAD, RSI, x86_register(RAX));
    x86_constant(x, RAX, (uintptr_t)one);
    x86_arithmetic(x, true, X86_GROUP_SUB, x86_register(RSP), 8);
    x86_form(x, 0xff, false, false, 2, x86_register(RAX));
    x86_arithmetic(x, true, X86_GROUP_ADD, x86_register(RSP), 8);
    x86_form(x, 0x84, false, true, RAX, x86_register(RAX)); /* test al, al */
    uint8_t *leave = x86_jump_short_if(x, X86_E);
    transfer(x, X86_LOAD);
    ret(x);
    x86_here_short(x, leave);
    x86_arithmetic(x, true, X86_GROUP_ADD, x86_register(RSP), 8);
    x86_op32(x, X86_XOR, RAX, x86_register(RAX));
    x86_jump_to(x, exit);
}

/* The target of an indirect jump is looked up among the recent ones. */
static void make_jump(struct x86 *x, const uint8_t *exit_spill)
{
    enum { MISSES = 5 };
    uint8_t *miss[MISSES];
    x86_arithmetic(x, false, X86_GROUP_CMP, x86_memory(RBP, HART(attention)), 0);
    miss[0] = x86_jump_if(x, X86_NE);
    x86_op32(x, X86_LOAD, RCX, x86_register(RAX));
    x86_shift(x, false, X86_GROUP_SHR, RCX, 1);
    x86_arithmetic(x, false, X86_GROUP_AND, x86_register(RCX), JUMPS - 1);
    x86_shift(x, false, X86_GROUP_SHL, RCX, 5);
    x86_op(x, X86_ADD, RCX, x86_memory(RSP, FRAME_JUMPS));
    x86_op(x, X86_CMP, RAX, x86_memory(RCX, offsetof(struct jit_jump, pc)));
    miss[1] = x86_jump_if(x, X86_NE);
    x86_op(x, X86_LOAD, RDX, x86_memory(RCX, offsetof(struct jit_jump, epoch)));
    x86_op(x, X86_CMP, RDX, x86_memory(RSP, FRAME_EPOCH));
    miss[2] = x86_jump_if(x, X86_NE);
    x86_op32(x, X86_LOAD, RDX, x86_register(RAX));
    x86_shift(x, false, X86_GROUP_SHR, RDX, TLB_INDEX_SHIFT);
    x86_arithmetic(x, false, X86_GROUP_AND, x86_register(RDX), TLB_INDEX_MASK);
    x86_op(x, X86_ADD, RDX, x86_memory(RBP, HART(fetch_tlb)));
    x86_arithmetic(x, true, X86_GROUP_AND, x86_register(RAX), -MEMORY_PAGE_SIZE);
    x86_op(x, X86_CMP, RAX, x86_memory(RDX, TLB_ENTRY_TAG(ACCESS_FETCH)));
    miss[3] = x86_jump_if(x, X86_NE);
    x86_op(x, X86_LOAD, RAX, x86_memory(RCX, offsetof(struct jit_jump, addend)));
    x86_op(x, X86_CMP, RAX, x86_memory(RDX, TLB_ENTRY(addend)));
    miss[4] = x86_jump_if(x, X86_NE);
    x86_form(x, 0xff, false, false, 4, x86_memory(RCX, offsetof(struct jit_jump, code)));

    x86_here(x, miss[3]);
    x86_here(x, miss[4]);
    x86_op(x, X86_LOAD, RAX, x86_memory(RCX, offsetof(struct jit_jump, pc)));
    x86_here(x, miss[0]);
    x86_here(x, miss[1]);
    x86_here(x, miss[2]);
    x86_op(x, X86_STORE, RAX, x86_memory(RBP, HART(pc)));
    x86_op32(x, X86_XOR, RAX, x86_register(RAX));
    x86_jump_to(x, exit_spill);
}

_Static_assert(sizeof(struct jit_jump) == 1 << 5, "make_jump");

uint8_t *host_make_thunks(uint8_t *at, struct jit_thunks *thunks, jit_one *one)
{
    struct x86 x = {at};
    thunks->enter = x.at;
    make_enter(&x);

    thunks->exit_link = x.at;
    x86_op(&x, X86_LOAD, RCX, x86_memory(RAX, offsetof(struct jit_link, pc)));
    x86_op(&x, X86_STORE, RCX, x86_memory(RBP, HART(pc)));
    const uint8_t *exit_spill = x.at;
    transfer(&x, X86_STORE);
    const uint8_t *exit = x.at;
    make_exit(&x);

    thunks->one = x.at;
    make_one(&x, one, exit);
    thunks->jump = x.at;
    make_jump(&x, exit_spill);
    return x.at + (-(uintptr_t)x.at & 15);
}
