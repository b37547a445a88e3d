/*
 * Private to x86_64/: what the emitters share.
 *
 * Host registers while translated code runs:
 *
 *   rbp                        struct hart, plus HART_BIAS, so that all of x[] is a byte away
 *   r14                        struct tlb, in use for loads, stores and fetches
 *   r15                        instret as of the start of the block
 *   rbx rsi rdi r8..r13        guest registers: see home, and registers.c for loops
 *   rax rcx rdx, xmm0..xmm3    free within an instruction
 *   [rsp + FRAME_...]          what the thunks need, and translations that accesses share
 */
#pragma once

#include "base/bits.h"
#include "jit/internal.h"
#include "jit/x86_64/encode.h"

#define HART_BIAS   128
#define HART(field) ((int32_t)offsetof(struct hart, field) - HART_BIAS)

#define FRAME_MXCSR    8
#define FRAME_MXCSR0   12   /* the one that translated code runs with */
#define MXCSR_FLAGS    0x3d /* its sticky flags, all but the denormal operand */
#define FRAME_SHARE(n) (16 + 8 * ((n) - 1))
#define FRAME_SIZE     (FRAME_SHARE(IR_SHARES + 1) + 8)

#define TLB_ENTRY(field)                                                                           \
    ((int32_t)(offsetof(struct tlb, entries) + offsetof(struct tlb_entry, field)))
#define TLB_ENTRY_TAG(access) (TLB_ENTRY(tag) + 8 * (int32_t)(access))
#define TLB_JUMP(field)       ((int32_t)(offsetof(struct tlb, jumps) + offsetof(struct tlb_jump, field)))
#define TLB_JUMP_MASK         (2 * (TLB_JUMPS - 1)) /* of pc; times 8 that is where its jump would be */

_Static_assert(sizeof(struct tlb_jump) == 16, "TLB_JUMP_MASK");
_Static_assert(offsetof(struct hart, x) == 0, "HART_BIAS");
_Static_assert(FRAME_SIZE % 16 == 8, "the stack is aligned when C is called");

enum { IN_MEMORY = 255, CONTEXT = R14, INSTRET = R15 };

/* The place of x0, which has none, is that of instret, as of the start of the block. */
enum { INSTRET_REG = 0 };

/* Where guest registers are (registers.c). Masks are by guest register. */
struct registers {
    uint8_t host[32]; /* IN_MEMORY: in struct hart */
    uint32_t dirty;   /* in a host register, and not in struct hart as well */
    uint32_t narrow;  /* the upper half is still to become the lower one's sign */
    uint32_t word;    /* is a word that its sign extends, or will be */
    uint32_t later;   /* is nowhere yet: what the instruction `shift` of the block computes */
    uint8_t shift[32];
};

/* Between blocks, and where nothing else is said. */
extern const struct registers home;

/* What an instruction does with registers. */
struct register_uses {
    uint32_t reads, writes;
    bool seen;    /* others may look at all registers before it is done */
    bool again;   /* goes back to the start */
    bool at_home; /* is done as between blocks: it is none of the loop */
};

enum { SITE_JUMPS = 6, SITES = IR_BLOCK_MAX, LINKS = IR_BLOCK_MAX + 1 };

struct site {
    const struct ir *ir;
    uint8_t *jumps[SITE_JUMPS]; /* from the fast path */
    unsigned jump_count;
    uint8_t *back;                  /* where the fast path ends; NULL: the call is in line */
    uint8_t held;                   /* what rdx holds there: see struct emitter */
    struct registers before, after; /* in a loop: the instruction */
    uint8_t *address;               /* in line: the field of the site's address */
};

struct emitter;

/* How to load or store, once the operand is known. It may be done in two places. */
struct access_form {
    enum access access;
    void (*make)(struct emitter *e, const struct ir *ir, struct x86_operand memory);
};

/* An access whose page is not where it was expected: a look-up of its own, and the access, behind
 * the block. */
struct alone {
    const struct ir *ir;
    struct site *site;
    const struct access_form *form;
    uint8_t *jump, *back;
    uint8_t base;      /* host register */
    int32_t predicted; /* where to note what is found, in struct hart; 0: nowhere */
};

struct link {
    uint64_t pc;
    uint8_t *attention; /* a jump to where interrupts are noticed, or NULL */
    uint8_t *patch;     /* the jump to the target, once it is known, or NULL */
};

/* What is true at a place of the code, beside what is at home. */
struct state {
    struct registers regs;
    unsigned held;        /* the number of the translation that rdx holds, if it is not 0 */
    bool fp_on, fp_dirty; /* known of mstatus.FS */
    uint32_t fp_boxed;    /* f registers known to hold a boxed single */
};

struct emitter {
    struct x86 x;
    const struct jit_thunks *thunks;
    struct hart *hart;
    const struct ir_block *block;
    uint64_t page_id;
    uint8_t *start;
    unsigned predicted; /* the next access's place in hart->predicted */

    struct site sites[SITES];
    unsigned site_count;
    struct alone alones[SITES];
    unsigned alone_count;
    struct link links[LINKS];
    unsigned link_count;
    struct {
        uint8_t *jump;
        const struct ir *ir;
        struct registers regs; /* in a loop */
    } taken[SITES];            /* branches whose exits are behind the block */
    unsigned taken_count;

    struct state now;        /* behind the instruction */
    struct registers before; /* in front of it */
    struct {
        struct state state;
        uint8_t *jump;
    } arms[IR_ARMS];
    unsigned inherited;    /* the register that rd has the place of, from then on; or 0 */
    bool looping;          /* the block is a loop, which has registers of its own */
    uint8_t *loop;         /* where a round begins, */
    struct registers head; /* with the registers like this, */
    struct registers tail; /* and where the last one that was translated ended */
    struct register_uses uses[IR_BLOCK_MAX + 1];
};

typedef void emit_function(struct emitter *e, const struct ir *ir, unsigned code);

struct emitter_row {
    emit_function *emit; /* NULL: the interpreter executes it */
    unsigned code;       /* tells the family's members apart */
};

/* By enum ir_op. */
extern const struct emitter_row emitters[IR_OPS];

static inline bool is_in_host(const struct emitter *e, unsigned reg)
{
    return reg != 0 && e->now.regs.host[reg] != IN_MEMORY;
}

static inline struct x86_operand guest_slot(unsigned reg)
{
    return x86_memory(RBP, reg == INSTRET_REG ? HART(instret) : HART(x) + 8 * (int32_t)reg);
}

/* The guest register as an operand. */
static inline struct x86_operand guest(const struct emitter *e, unsigned reg)
{
    return is_in_host(e, reg) ? x86_register(e->now.regs.host[reg])
                              : x86_memory(RBP, HART(x) + 8 * (int32_t)reg);
}

/* The host register that is to receive rd's value, rax if rd is in memory. */
static inline unsigned destination(const struct emitter *e, unsigned rd)
{
    return is_in_host(e, rd) ? e->now.regs.host[rd] : RAX;
}

/* Whether rd's value may have anything in its upper half. */
static inline bool is_narrow(const struct emitter *e, unsigned rd)
{
    return e->now.regs.narrow >> rd & 1;
}

/* host = guest register, in full. */
void emit_load(struct emitter *e, unsigned host, unsigned reg);
/* guest register = host. x0 takes nothing. */
void emit_save(struct emitter *e, unsigned reg, unsigned host);
/* A host register that holds the guest register: its own, or `temporary`. */
unsigned emit_use(struct emitter *e, unsigned reg, unsigned temporary);

/* Opens the out-of-line call that the fast path falls back to. */
struct site *site_open(struct emitter *e, const struct ir *ir);
void site_unless(struct emitter *e, struct site *site, enum x86_condition failed);
/* The fast path ends here. */
void site_close(struct emitter *e, struct site *site);
void emit_call(struct emitter *e, const struct ir *ir, unsigned code);

/* registers.c */
/* Whether the block is a loop that can have registers of its own. */
bool registers_find_loop(struct emitter *e);
/* It is translated a few times: each round begins with the registers that the one before it ended
 * with. */
void registers_begin_round(struct emitter *e);
/* Moves what instruction i of the loop needs. False: it is not to be emitted. */
bool registers_prepare(struct emitter *e, unsigned i);
void registers_finish(struct emitter *e);
bool registers_are_home(const struct registers *regs);
void emit_transition(struct emitter *e, struct registers from, const struct registers *to);
/* All of them to struct hart, and those that have a host register from there. */
void emit_write_back(struct emitter *e, const struct registers *from);
void emit_read_back(struct emitter *e, const struct registers *to);

/* memory.c */
void emit_look_up(struct x86 *x, unsigned base, int32_t first, int32_t last, int32_t mask,
                  enum access access);
extern emit_function emit_load_memory, emit_store_memory, emit_load_fp, emit_store_fp, emit_lr,
    emit_sc, emit_swap, emit_amo, emit_amo_choose, emit_amo_cas;
void emit_alone(struct emitter *e, const struct alone *alone);
/* Illegal while mstatus.FS is off: then the interpreter traps. An instruction that writes an f
 * register makes FS dirty. */
void require_fp(struct emitter *e, struct site *site, bool writes);
/* rax = the host address of rs1, which may be stored to; `aligned` bits of it must be 0. */
void emit_address(struct emitter *e, const struct ir *ir, struct site *site, int32_t aligned);
/* integer.c */
extern emit_function emit_nothing, emit_constant, emit_move, emit_alu, emit_alu_imm, emit_alu_word,
    emit_alu_imm_word, emit_shift, emit_shift_word, emit_shift_imm, emit_shift_imm_word, emit_less,
    emit_less_imm, emit_mul, emit_mul_word, emit_mul_high, emit_divide, emit_divide_word,
    emit_shift_add, emit_negated, emit_extend, emit_min_max, emit_bit, emit_bit_imm, emit_count,
    emit_swap_bytes, emit_or_combine, emit_pack, emit_conditional_zero, emit_slli_uw, emit_fence;
/* floating.c */
extern emit_function emit_fp_operation, emit_fp_fused, emit_fp_sign, emit_fp_compare,
    emit_fp_min_max, emit_fp_to_int, emit_fp_from_int, emit_fp_convert, emit_fp_to_bits,
    emit_fp_from_bits;
/* system.c */
extern emit_function emit_csr, emit_cbo_zero;
/* control.c */
extern emit_function emit_branch, emit_jalr, emit_exit;
void emit_exit_to(struct emitter *e, uint64_t pc, uint64_t target, unsigned retired);
