/*
 * What a debugger needs of a hart beside hart.h: where it stops and why, single steps, and memory
 * as it is mapped, whatever the hart may do with it.
 *
 * A hart without points pays nothing for all this: no check is made per instruction. With them,
 * translated blocks end before breakpoints, decoded code has a slot of its own for each, and the
 * TLB keeps pages with watchpoints off the fast path.
 *
 * All functions are called on the hart thread or while the hart does not run.
 */
#pragma once

#include "hart/hart.h"

/* A breakpoint or a watchpoint, at virtual addresses. */
struct hart_point {
    uint64_t address;
    uint64_t size;     /* bytes that are watched, 1 or more; breakpoints: 0 */
    unsigned accesses; /* mask by enum access; breakpoints: 1 << ACCESS_FETCH alone */

    /* Only in address spaces with (satp & satp_mask) == satp. */
    uint64_t satp, satp_mask;

    /* Called when all else fits: does the hart stop? NULL: always. On the hart thread, with the
     * hart's state in sync; must not run the hart or change its points. */
    bool (*condition)(void *opaque, struct hart *hart);
    void *opaque;
};

/* Where harts stop: constant while any hart that has it runs. */
struct hart_points {
    const struct hart_point *breaks; /* in ascending order of address */
    size_t break_count;
    const struct hart_point *watches;
    size_t watch_count;
    uint64_t exceptions, interrupts; /* causes whose traps stop the hart, at the handler */
    bool calls;                      /* ecalls from S-mode, before they happen */
    bool waits;                      /* wfi, before it waits */
};

enum hart_stop_reason {
    HART_STOP_NONE,
    HART_STOP_BREAK, /* before the instruction at pc */
    HART_STOP_WATCH, /* before the instruction that makes the access, as RISC-V's own triggers do */
    HART_STOP_TRAP,  /* a trap was taken: at its handler */
    HART_STOP_CALL,  /* before an ecall */
    HART_STOP_WAIT,  /* before a wfi */
    HART_STOP_LOST,  /* a trap that nobody can handle */
};

struct hart_stop {
    enum hart_stop_reason reason;
    uint64_t address;  /* WATCH: the first watched byte that is accessed */
    unsigned accesses; /* WATCH: those of the watchpoint */
    uint64_t cause;    /* TRAP, LOST */
};

/*
 * Gives the hart other points, NULL for none, which stay the caller's. What is translated for the
 * pages of new breakpoints is the engine's own affair (jit_forget_code).
 */
void hart_set_points(struct hart *hart, const struct hart_points *points);

/* Notes why the hart stops, unless it is stopping already, and asks for it. */
void hart_stop(struct hart *hart, const struct hart_stop *stop);

/* Whether there is a note. */
bool hart_stopping(const struct hart *hart);

/* Takes the note back, and the request with it. The reason is HART_STOP_NONE where there is none.
 */
struct hart_stop hart_take_stop(struct hart *hart);

/*
 * Executes one instruction, whatever is to stop before it, and does not wait in wfi. What
 * watchpoints and traps stop is noted as usual.
 */
enum {
    HART_STEP_INTERRUPTS = 1, /* one that is pending is taken instead of the instruction */
    HART_STEP_UNWATCHED = 2,  /* watchpoints do not count */
    HART_STEP_BREAKS = 4,     /* breakpoints, calls and waits do: it may stop before them */
};

void hart_debug_step(struct hart *hart, unsigned flags);

/* Whether it is between an LR and its SC: hart_interpret and translated code would begin with
 * giving the reservation up. */
bool hart_holds_reservation(const struct hart *hart);

/* --- Memory ---------------------------------------------------------------------------------- */

#define HART_WALK_LEVELS 5

/* A page walk, as far as it came. */
struct hart_walk {
    struct {
        uint64_t gpa, pte; /* where the entry is, and its value */
    } steps[HART_WALK_LEVELS];
    unsigned count;      /* of steps */
    unsigned scheme;     /* satp.MODE; 0: no translation, and no steps */
    const char *failure; /* why there is no translation; NULL: there is */
    uint64_t gpa;        /* what the address translates to */
    unsigned shift;      /* log2 of the size of the page */
};

/* Translates as the hart would at that privilege (-1: as loads and stores are now), but whatever
 * permissions say. */
bool hart_debug_walk(struct hart *hart, uint64_t va, int privilege, struct hart_walk *walk);

/* A translation that the hart has cached. */
struct hart_tlb_entry {
    uint64_t va;        /* of the page */
    unsigned accesses;  /* mask by enum access */
    bool slow, watched; /* registers; a debugger watches it */
    unsigned privilege; /* of its context */
    uint64_t satp;
};

void hart_debug_tlb(const struct hart *hart,
                    void (*tell)(void *opaque, const struct hart_tlb_entry *entry), void *opaque);

/* Copies virtual memory that is RAM or ROM, whatever permissions say. Returns how many bytes were
 * copied before the first that is not mapped or not memory. */
size_t hart_debug_read(struct hart *hart, uint64_t va, void *buffer, size_t size, int privilege);
