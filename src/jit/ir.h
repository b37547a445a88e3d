/*
 * The plain data between the stages: guest code is read into a struct ir_block (block.c), which
 * passes improve (fold.c, share.c) and a code generator turns into host code (x86_64/).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "isa/isa.h"

/* Operations: those of the instruction table, and what instructions become. */
enum ir_op {
    IR_CONSTANT = INSN_COUNT, /* rd = imm */
    IR_MOVE,                  /* rd = rs1 */
    IR_CALL,                  /* the interpreter's semantics for the instruction `bits` */
    IR_NOTHING,               /* retires, and does nothing else */
    IR_EXIT,                  /* the end of the block: goes on at imm */
    IR_OPS
};

enum { IR_BLOCK_MAX = 64, IR_SHARES = 12, IR_ARMS = 4 };

/*
 * One guest instruction. Fields are those of struct insn, except: imm of branches is the target;
 * auipc and lui are constants already; rd 0 is only found where an instruction also does something
 * else than writing it. `index` instructions of the block have retired before it.
 *
 * lr and sc are paired as the two ends of a sequence that nothing can enter in the middle, with the
 * same address and size, and no other memory access in between; other lr are IR_CALL.
 */
struct ir {
    uint16_t op; /* enum ir_op, or enum insn_op */
    uint8_t rd, rs1, rs2, rs3, rm;
    uint8_t length; /* of the instruction, in bytes */
    uint16_t index;
    bool paired;
    bool later; /* may be computed when its result is looked at: see rotate.c */

    /* Loads and stores that share one translation (share.c): its number from 1 on, 0 for none. The
     * first one of them translates [address + first, address + last], which are all of theirs. */
    uint8_t share;
    bool share_begins, share_stores; /* there are stores among them */
    int16_t first, last;

    uint32_t bits;
    uint64_t pc;
    int64_t imm;
};

/* code[begin] and what follows, up to the end of that trace, is for when code[branch] is taken. */
struct ir_arm {
    uint8_t branch, begin;
};

/*
 * One entry, at pc; exits are where branches are taken, and the end, which is an IR_EXIT or a jalr.
 * A loop may have other ways round, its arms: traces of their own behind the first one, which begin
 * at one of its branches, or at one of an arm before.
 */
struct ir_block {
    uint64_t pc;
    unsigned count, arm_count;
    struct ir_arm arms[IR_ARMS];
    struct ir code[IR_BLOCK_MAX + 1];
};

/* The arm that begins at code[i], or NULL; where code[i] is taken. */
const struct ir_arm *ir_arm_at(const struct ir_block *block, unsigned i);
const struct ir_arm *ir_arm_of(const struct ir_block *block, unsigned i);

/*
 * Reads a block from `page`, a copy of the guest page that holds pc. It goes on across jumps within
 * the page and behind conditional branches; it stops at what redirects execution otherwise, at the
 * end of the page, at IR_BLOCK_MAX instructions, and before the addresses in `breaks`, a bitmap of
 * the page's halfwords (NULL: none), unless it starts there. Where it goes back to its start, it is
 * read along the other sides of its branches as well, as far as these go back, too. count is 0 if
 * the first instruction lies across the end of the page.
 */
void ir_read(struct ir_block *block, const uint8_t *page, uint64_t pc,
             const struct isa_extensions *extensions, const uint64_t *breaks);

/* Computes what is known at translation time, and takes out what does nothing. */
void ir_fold(struct ir_block *block);

/* Finds rotations that are made of shifts. */
void ir_rotate(struct ir_block *block);

/* Finds loads and stores near one another, so that one translation serves them. */
void ir_share(struct ir_block *block);

/* The x registers that an instruction other than IR_CALL reads and writes, as bits; never x0. */
uint32_t ir_reads(const struct ir *ir);
uint32_t ir_writes(const struct ir *ir);

/* Whether it may go on elsewhere, at imm. */
bool ir_is_exit(const struct ir *ir);
/* Whether nothing goes on behind it. */
bool ir_ends_trace(const struct ir *ir);
