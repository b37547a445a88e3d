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
        if (home.host[i] != IN_MEMORY)
            x86_op(x, opcode, home.host[i], guest_slot(i));
}

static void load_context(struct x86 *x)
{
    x86_op(x, X86_LOAD, CONTEXT, x86_memory(RBP, HART(data_tlb)));
}

/* --- Floating-point flags: MXCSR's sticky ones are the guest's, as long as its code runs ---------
 */

#define MXCSR_HOST 0x1f80u /* to nearest, all exceptions masked, no flag */
#define FS_DIRTY   (3 << 13)

static void flags_clear(struct x86 *x, int32_t frame)
{
    x86_form(x, 0x0fae, false, false, 2, x86_memory(RSP, frame + FRAME_MXCSR0)); /* ldmxcsr */
}

/* By the flags of MXCSR, fflags. */
static uint8_t *make_flag_table(struct x86 *x)
{
    static const uint8_t flags[] = {16, 0, 8, 4, 2, 1};
    uint8_t *table = x->at;
    for (unsigned i = 0; i < 64; i++) {
        unsigned result = 0;
        for (unsigned bit = 0; bit < 6; bit++)
            result |= i >> bit & 1 ? flags[bit] : 0;
        x86_byte(x, result);
    }
    return table;
}

/* Adds them to fflags; FS becomes dirty if that changes. rcx and rdx are used up. */
static void flags_collect(struct x86 *x, int32_t frame, const uint8_t *table)
{
    struct x86_operand fflags = x86_memory(RBP, HART(fflags));
    x86_form(x, 0x0fae, false, false, 3, x86_memory(RSP, frame + FRAME_MXCSR)); /* stmxcsr */
    x86_op32(x, X86_LOAD, RCX, x86_memory(RSP, frame + FRAME_MXCSR));
    x86_arithmetic(x, false, X86_GROUP_AND, x86_register(RCX), MXCSR_FLAGS);
    uint8_t *none = x86_jump_short_if(x, X86_E);
    x86_patch(x86_address(x, RDX), table);
    x86_form(x, X86_MOVZX_8, false, true, RCX, x86_indexed(RDX, RCX, 0, 0));
    x86_op32(x, X86_OR, RCX, fflags);
    x86_op32(x, X86_CMP, RCX, fflags);
    uint8_t *same = x86_jump_short_if(x, X86_E);
    x86_op32(x, X86_STORE, RCX, fflags);
    x86_arithmetic(x, false, X86_GROUP_OR, x86_memory(RBP, HART(mstatus)), FS_DIRTY);
    x86_here_short(x, same);
    x86_here_short(x, none);
}

static void jump_register(struct x86 *x, unsigned reg)
{
    x86_form(x, 0xff, false, false, 4, x86_register(reg));
}

/* jit_enter: hart in rdi, code in rsi. */
static void make_enter(struct x86 *x)
{
    for (unsigned i = 0; i < ARRAY_SIZE(callee_saved); i++)
        push(x, callee_saved[i], false);
    x86_arithmetic(x, true, X86_GROUP_SUB, x86_register(RSP), FRAME_SIZE);
    x86_form(x, 0xc7, false, false, 0, x86_memory(RSP, FRAME_MXCSR0));
    x86_32(x, MXCSR_HOST);
    flags_clear(x, 0);
    x86_op(x, X86_LEA, RBP, x86_memory(RDI, HART_BIAS));
    x86_op(x, X86_LOAD, RAX, x86_register(RSI));
    load_context(x);
    transfer(x, X86_LOAD);
    jump_register(x, RAX);
}

static void make_leave(struct x86 *x, const uint8_t *flag_table)
{
    transfer(x, X86_STORE);
    flags_collect(x, 0, flag_table);
    x86_arithmetic(x, true, X86_GROUP_ADD, x86_register(RSP), FRAME_SIZE);
    for (unsigned i = ARRAY_SIZE(callee_saved); i-- > 0;)
        push(x, callee_saved[i], true);
    ret(x);
}

/* rax = function(hart, rsi) */
static void call_c(struct x86 *x, uintptr_t function)
{
    x86_op(x, X86_LEA, RDI, x86_memory(RBP, -HART_BIAS));
    x86_constant(x, RAX, function);
    x86_form(x, 0xff, false, false, 2, x86_register(RAX));
}

/* in_loop: guest registers are in struct hart, and wanted there, if the block goes on. */
static void make_one(struct x86 *x, jit_one *one, const uint8_t *flag_table, bool in_loop)
{
    enum { RETURN_ADDRESS = 8 };
    if (!in_loop)
        transfer(x, X86_STORE);
    flags_collect(x, RETURN_ADDRESS, flag_table);
    x86_op(x, X86_LOAD, RSI, x86_register(RAX));
    x86_arithmetic(x, true, X86_GROUP_SUB, x86_register(RSP), 8);
    call_c(x, (uintptr_t)one);
    x86_arithmetic(x, true, X86_GROUP_ADD, x86_register(RSP), 8);
    flags_clear(x, RETURN_ADDRESS);
    load_context(x);
    if (!in_loop)
        transfer(x, X86_LOAD);
    x86_op(x, X86_TEST, RAX, x86_register(RAX));
    uint8_t *leave = x86_jump_short_if(x, X86_NE);
    ret(x);
    x86_here_short(x, leave);
    if (in_loop)
        transfer(x, X86_LOAD);
    x86_arithmetic(x, true, X86_GROUP_ADD, x86_register(RSP), 8);
    jump_register(x, RAX);
}

/* Goes on where resume(hart, rax) says. */
static void make_resume(struct x86 *x, jit_resume *resume, const uint8_t *flag_table)
{
    transfer(x, X86_STORE);
    flags_collect(x, 0, flag_table);
    x86_op(x, X86_LOAD, RSI, x86_register(RAX));
    call_c(x, (uintptr_t)resume);
    flags_clear(x, 0);
    load_context(x);
    transfer(x, X86_LOAD);
    jump_register(x, RAX);
}

/*
 * See jit_thunks.look_up. The flags are those of the comparison. In a page that a debugger watches,
 * what does not touch the range from the first to the last watched byte is found as well.
 */
static void make_look_up(struct x86 *x, enum access access, unsigned size)
{
    struct x86_operand tag = x86_indexed(CONTEXT, RCX, 0, TLB_ENTRY_TAG(access));
    struct x86_operand addend = x86_indexed(CONTEXT, RCX, 0, TLB_ENTRY(addend));
    push(x, RDX, false);
    emit_look_up(x, RDX, 0, (int32_t)size - 1, -MEMORY_PAGE_SIZE, access);
    uint8_t *other = x86_jump_short_if(x, X86_NE);
    x86_op(x, X86_LEA, RSP, x86_memory(RSP, 8)); /* leaves the flags alone */
    x86_op(x, X86_LOAD, RDX, addend);
    ret(x);
    x86_here_short(x, other);
    x86_arithmetic(x, true, X86_GROUP_OR, x86_register(RDX), (int32_t)TLB_WATCHED);
    x86_op(x, X86_CMP, RDX, tag);
    push(x, RDX, true);
    uint8_t *none = x86_jump_short_if(x, X86_NE);
    x86_op(x, X86_SUB, RDX, x86_memory(RBP, HART(watched_first)));
    x86_op(x, X86_CMP, RDX, x86_memory(RBP, HART(watched_size)));
    uint8_t *touched = x86_jump_short_if(x, X86_B); /* below is also unequal */
    x86_op(x, X86_LOAD, RDX, addend);
    x86_op32(x, X86_CMP, RCX, x86_register(RCX));
    x86_here_short(x, none);
    x86_here_short(x, touched);
    ret(x);
}

uint8_t *host_make_thunks(uint8_t *at, struct jit_thunks *thunks, jit_one *one, jit_resume *resume)
{
    struct x86 x = {at};
    const uint8_t *flag_table = make_flag_table(&x);
    thunks->enter = x.at;
    make_enter(&x);
    thunks->leave = x.at;
    make_leave(&x, flag_table);
    for (unsigned access = ACCESS_LOAD; access <= ACCESS_STORE; access++)
        for (unsigned n = 0; n < 4; n++) {
            thunks->look_up[access][n] = x.at;
            make_look_up(&x, access, 1u << n);
        }
    thunks->one = x.at;
    make_one(&x, one, flag_table, false);
    thunks->one_in_loop = x.at;
    make_one(&x, one, flag_table, true);

    thunks->resume = x.at;
    x86_arithmetic(&x, true, X86_GROUP_AND, x86_register(RAX), -2);
    x86_op(&x, X86_STORE, RAX, x86_memory(RBP, HART(pc)));
    x86_op32(&x, X86_XOR, RAX, x86_register(RAX));
    uint8_t *common = x86_jump(&x);
    thunks->link = x.at;
    x86_op(&x, X86_LOAD, RCX, x86_memory(RAX, offsetof(struct jit_link, pc)));
    x86_op(&x, X86_STORE, RCX, x86_memory(RBP, HART(pc)));
    x86_here(&x, common);
    make_resume(&x, resume, flag_table);
    return x.at + (-(uintptr_t)x.at & 15);
}
