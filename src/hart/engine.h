/*
 * What an engine that translates needs of a hart beside hart.h. The interpreter stays the one place
 * of each instruction's semantics: whatever a translation does not do itself, engine_execute does.
 *
 * All functions are called on the hart thread, between engine_begin and engine_end.
 */
#pragma once

#include "hart/hart.h"

/*
 * A decoded instruction as the interpreter wants it. The fields are those of struct insn, except:
 * rd 0 is 32 (the sink of writes to x0); for branches and jal, far is 0 when the target lies in the
 * same page and imm then is the distance to its slot in bytes.
 */
struct code_slot {
    uint16_t op; /* enum insn_op or enum code_op */
    uint8_t rd, rs1, rs2, rs3;
    union {
        uint8_t rm;
        uint8_t far;
    };
    uint8_t advance; /* bytes to the slot of the next instruction */
    int32_t imm;     /* illegal instructions: the bits */
};

/* One instruction, prepared for being executed any number of times. */
struct engine_insn {
    struct code_slot slot;
    uint32_t bits;
};

void engine_prepare(const struct hart *hart, struct engine_insn *insn, uint32_t bits);

/*
 * Executes one instruction as if it had been fetched from hart->pc; pc and instret are in sync
 * before and after. After an LR it goes on with what follows, up to the SC as a rule, and returns
 * false. True: the next instruction follows it in the code; false: execution goes on at hart->pc,
 * where code is to be fetched anew (a trap, a jump, a change of privilege or of translation,
 * fence.i).
 */
bool engine_execute(struct hart *hart, const struct engine_insn *insn);

/* Fetches and executes the one instruction at hart->pc, which may lie across two pages. */
void engine_execute_fetched(struct hart *hart);

/*
 * The host page of the code at hart->pc, which may be read (as relaxed atomics: it changes under
 * the reader) and translated. NULL: a trap was taken, or the one instruction there was executed,
 * since what surrounds it may not be fetched with it.
 */
const uint8_t *engine_fetch(struct hart *hart);

/*
 * While hart->points is not NULL: what an engine does before the instruction at hart->pc. PASS: it
 * executes that instruction alone (engine_execute_fetched), as nothing is to stop here this time;
 * nothing may ever lead to it without being asked.
 */
enum debug_break { DEBUG_BREAK_NONE, DEBUG_BREAK_PASS, DEBUG_BREAK_STOP };

enum debug_break engine_break(struct hart *hart);

/* The breakpoints in the page of pc as bits, one a halfword, in a bitmap of ENGINE_BREAKS_SIZE
 * bytes that the caller provides; NULL: there are none. */
#define ENGINE_BREAKS_SIZE (MEMORY_PAGE_SIZE / 2 / 8)

const uint64_t *engine_breaks_in_page(const struct hart *hart, uint64_t pc, uint64_t *bitmap);

/* Notes in the context in use that code for pc may be jumped to (struct tlb_jump). */
void engine_remember_jump(struct hart *hart, uint64_t pc, const void *code);

/* Grows when all jumps become void, because code that they led to is gone. */
uint64_t engine_jumps_generation(const struct hart *hart);

/* Makes this hart forget all jumps; makes its TLB allow no stores. For the others there are
 * HART_FENCE_JUMPS and HART_FENCE_STORES. */
void engine_forget_jumps(struct hart *hart);
void engine_forget_stores(struct hart *hart);

/*
 * What a CSR is, for accesses without the interpreter. All need the privilege in bits 9..8 of its
 * number. OTHER: leave it to the interpreter. STORAGE: a field of struct hart, of which reading and
 * writing has no effect elsewhere; what is written is and-ed with mask. SSTATUS: the bits `mask` of
 * hart->mstatus, and SD above them, set while FS is dirty; its SIE may be cleared, and set if no
 * interrupt is both in mie and in mip or, 32 bits up, on a line. While CSRs are traced all are
 * OTHER: what is translated stays as it is, so tracing begins before harts run.
 */
enum engine_csr { ENGINE_CSR_OTHER, ENGINE_CSR_STORAGE, ENGINE_CSR_SSTATUS };

enum engine_csr engine_csr_find(struct hart *hart, unsigned number, uint64_t **storage,
                                uint64_t *mask);

/* The hart thread starts and stops executing instructions. Within, engine_leave and engine_enter
 * enclose what may take long: meanwhile the hart counts as standing still. */
void engine_leave(struct hart *hart);
void engine_enter(struct hart *hart);
void engine_begin(struct hart *hart);
void engine_end(struct hart *hart);

enum attended {
    ATTENDED,      /* go on */
    ATTENDED_TRAP, /* an interrupt was taken */
    ATTENDED_STOP, /* leave the engine */
};

/* When hart->attention is not zero. */
enum attended engine_attend(struct hart *hart);
