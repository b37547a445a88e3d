/*
 * A hart: architectural state, CSRs, traps, address translation, interrupts, and the interpreter.
 *
 * RISC-V Unprivileged and Privileged Architecture, version 20240411 and later ratified extensions.
 *
 * Threads. Each hart belongs to one host thread, its hart thread: all functions here are called on
 * it, or while the hart does not run, except those marked "any thread", which talk to the running
 * hart through `attention` and atomics.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/base.h"
#include "isa/isa.h"
#include "memory/memory.h"

#define HART_MAX 64

enum privilege {
    PRIVILEGE_USER = 0,
    PRIVILEGE_SUPERVISOR = 1,
    PRIVILEGE_MACHINE = 3,
};

/* mcause values (Privileged, table "mcause values after trap"). */
enum trap_cause {
    TRAP_FETCH_MISALIGNED = 0,
    TRAP_FETCH_ACCESS = 1,
    TRAP_ILLEGAL = 2,
    TRAP_BREAKPOINT = 3,
    TRAP_LOAD_MISALIGNED = 4,
    TRAP_LOAD_ACCESS = 5,
    TRAP_STORE_MISALIGNED = 6,
    TRAP_STORE_ACCESS = 7,
    TRAP_ECALL_U = 8,
    TRAP_ECALL_S = 9,
    TRAP_ECALL_M = 11,
    TRAP_FETCH_PAGE = 12,
    TRAP_LOAD_PAGE = 13,
    TRAP_STORE_PAGE = 15,
    TRAP_NONE = -1,
};

/* Interrupt numbers: bits of mip and mie. */
enum interrupt {
    INTERRUPT_SSI = 1,
    INTERRUPT_MSI = 3,
    INTERRUPT_STI = 5,
    INTERRUPT_MTI = 7,
    INTERRUPT_SEI = 9,
    INTERRUPT_MEI = 11,
    INTERRUPT_LCOFI = 13,
};

enum access {
    ACCESS_LOAD,
    ACCESS_STORE, /* and AMOs */
    ACCESS_FETCH,
};

/*
 * Translation look-aside buffer. One entry serves all three kinds of access. A tag is the page's
 * virtual address; with TLB_SLOW added the translation is valid but the access must leave the fast
 * path (registers); TLB_INVALID matches nothing. The fast path compares tag[access] with
 * `va & (page mask | (size - 1))`, so that misaligned accesses, and with them those across a page,
 * never match. On a match: host address = virtual address + addend.
 */
#define TLB_ENTRIES_MIN 1024
#define TLB_ENTRIES_MAX 16384
#define TLB_INVALID     UINT64_MAX
#define TLB_SLOW        UINT64_C(0x800) /* a bit that no page address and no size - 1 has */
#define TLB_WATCHED     UINT64_C(0x400) /* as TLB_SLOW, but RAM: a debugger watches the page */

struct tlb_entry {
    uint64_t tag[3]; /* by enum access */
    uint64_t addend; /* to the host address; with TLB_SLOW, to the guest physical address */
};

/*
 * Where an engine that translates has the code for a virtual address: an entry that matches may be
 * jumped to, with no other check. It goes with the translation of its page and with fence.i.
 * Nothing matches an empty one, whose pc has its place elsewhere: 0, and 2 in the place of 0. (What
 * is compared may be odd.)
 */
#define TLB_JUMPS 4096

struct tlb_jump {
    uint64_t pc;
    const void *code;
};

/*
 * The translations of one context: privilege, SUM, MXR and satp. A hart has a few, so that going
 * to the kernel and back, copying from user space, and returning to an address space (ASID) find
 * their entries again.
 */
#define TLB_CONTEXTS 8
#define TLB_SET      1024

/* A set of numbers that may seem to have a few more (mmu.c). */
struct tlb_set {
    uint64_t numbers[TLB_SET];
};

/* The last table of a page walk: what a region of 2 MiB is translated by. */
#define TLB_TABLES 64

struct tlb_table {
    uint64_t region; /* va >> 21; UINT64_MAX: none */
    uint64_t gpa;
    const uint64_t *host;
    bool global;
};

struct tlb {
    uint32_t entries_mask; /* of va >> TLB_ENTRY_SHIFT: where in entries an address has its place */
    uint64_t satp;
    uint32_t mode;                    /* private encoding of effective privilege, SUM, MXR */
    bool stale;                       /* entries must be cleared before use */
    bool jumps_local;                 /* there may be jumps to pages that are not global */
    uint32_t jump_count;              /* of jumped */
    uint64_t used;                    /* for choosing a victim */
    uint64_t huge;                    /* where superpages may be among the entries (mmu.c) */
    uint64_t jumps_generation;        /* of the code that jumps lead to */
    uint64_t fills, fills_instret;    /* misses, and when their count began */
    struct tlb_jump jumps[TLB_JUMPS]; /* by pc / 2 */
    uint16_t jumped[TLB_JUMPS];       /* which of jumps were set, to clear no others */
    struct tlb_set jumps_into;        /* the pages that jumps lead to */
    struct tlb_set large;             /* the superpages among the entries */
    struct tlb_table tables[TLB_TABLES];
    uint8_t span[TLB_ENTRIES_MAX]; /* what an sfence.vma of an address covers (mmu.c) */
    struct tlb_entry entries[TLB_ENTRIES_MAX];
};

#define TLB_ENTRY_SHIFT (MEMORY_PAGE_SHIFT - 5) /* an entry has 32 bytes */

/* The entry that may translate va. */
static inline struct tlb_entry *tlb_entry_of(struct tlb *tlb, uint64_t va)
{
    return (struct tlb_entry *)((char *)tlb->entries + (va >> TLB_ENTRY_SHIFT & tlb->entries_mask));
}

/* Reasons why a hart leaves its instructions at the next block boundary (hart->attention). */
enum attention {
    ATTENTION_INTERRUPT = 1 << 0, /* mip, mie or a timer may have changed: look */
    ATTENTION_STOP = 1 << 1,      /* hart_run returns */
    ATTENTION_FENCE = 1 << 2,     /* remote fences are queued */
    ATTENTION_SAMPLE = 1 << 3,    /* hooks.sample is called */
    ATTENTION_PRIVATE = 1 << 8,   /* this bit and those above it are hart/'s own */
};

struct hart;

/* What the hart asks of the machine around it. All are called on the hart thread. */
struct hart_hooks {
    void *opaque;

    /*
     * An ecall from S-mode, where the machine has a built-in SBI (NULL: it traps to M-mode). The
     * handler reads a0-a7 and writes a0 and a1; pc is already past the ecall and may be changed.
     */
    void (*sbi)(void *opaque, struct hart *hart);

    /*
     * A trap that goes to M-mode while the machine has a built-in SBI and so no M-mode software.
     * NULL with firmware. cause has bit 63 set for interrupts.
     */
    void (*unhandled)(void *opaque, struct hart *hart, uint64_t cause, uint64_t tval);

    /*
     * An exception whose handler cannot exist: the trap vector is still the value of reset, or the
     * first instruction of the handler itself faults. The machine reports and stops. NULL: ignored.
     */
    void (*lost)(void *opaque, struct hart *hart, uint64_t cause, uint64_t tval);

    /* ebreak between the two marker instructions of RISC-V semihosting. True: it was handled, with
     * the result in a0. NULL or false: it traps. */
    bool (*semihosting)(void *opaque, struct hart *hart);

    /* What hart_request_sample asked for. Registers are in sync; hart->waiting: it is in wfi. */
    void (*sample)(void *opaque, struct hart *hart);
};

struct hart_config {
    unsigned id; /* mhartid */
    struct isa_extensions extensions;
    struct memory *memory;
    struct clock *clock;
    struct loop *loop;
    struct hart_hooks hooks;
};

#define HART_PREDICTED 2048

/* A programmable counter (mhpmcounter3.. and mhpmevent3..). */
#define HART_HPM_COUNTERS 8 /* mhpmcounter3..10 count; the rest read zero */

struct hart {
    /* x[32] takes the writes to x0, which then always reads zero. */
    uint64_t x[33];
    uint64_t f[32]; /* NaN-boxed */
    uint64_t pc;

    /* Set by any thread, cleared by the hart thread: enum attention. Checked at taken branches. */
    _Atomic uint32_t attention;

    enum privilege privilege;
    struct tlb *data_tlb;  /* for loads and stores: follows mstatus.MPRV */
    struct tlb *fetch_tlb; /* for fetches */

    /* Instructions retired since reset. Exact whenever the engine calls out. */
    uint64_t instret;

    /* Of the engine that translates: itself, and where an LR that it executes loaded from. */
    void *engine;
    void (*code_fenced)(struct hart *hart); /* after each fence.i of this hart; may be NULL */
    const struct hart_points *points;       /* where it stops (hart/debug.h); NULL: nowhere */
    /* Accesses of up to 8 bytes in pages that are TLB_WATCHED, but not from one of these addresses
     * on, touch no watched byte. */
    uint64_t watched_first, watched_size;
    void *reservation_host;

    /* LR/SC (see reservation.c): the virtual address, or UINT64_MAX for none; what was loaded. */
    uint64_t reservation_address;
    uint64_t reservation_value;
    unsigned reservation_size;
    uint64_t reservation_pc;  /* of the LR */
    bool reservation_exposed; /* other memory was accessed since the LR */

    /* CSRs with storage of their own; views (sstatus, sie, ...) are computed. */
    uint64_t mstatus, misa, medeleg, mideleg, mie, mtvec, mscratch, mepc, mcause, mtval;
    uint64_t mcounteren, mcountinhibit, menvcfg, mstateen[4];
    uint64_t stvec, sscratch, sepc, scause, stval, satp, scounteren, senvcfg, sstateen[4];
    uint64_t stimecmp;
    /* AIA. mvip and sie_virtual hold what is not an alias of mip and mie (aia.c). */
    uint64_t miselect, siselect, mvien, mvip, sie_virtual;
    uint8_t pmpcfg[16];
    uint64_t pmpaddr[16];
    uint64_t mcycle_offset, minstret_offset; /* to instret; the value itself while inhibited */
    uint64_t mhpmcounter[HART_HPM_COUNTERS], mhpmevent[HART_HPM_COUNTERS];
    uint8_t frm;
    unsigned fflags;

    /* Interrupt lines from outside and software-written bits; any thread may change them. The line
     * of SEI is bit 32 + INTERRUPT_SEI, apart from what software wrote (Privileged, "mip"). */
    _Atomic uint64_t mip;

    /* True while the hart thread is executing guest instructions: what a remote fence waits for. */
    _Atomic bool running;
    bool waiting; /* in wfi */

    struct isa_extensions extensions;
    unsigned id;
    struct memory *memory;
    struct clock *clock;
    struct hart_hooks hooks;
    struct hart_private *private; /* TLBs, decoded code, timers, fence queue: see hart/internal.h */

    /* Of the engine that translates: where in the TLB its accesses found their page the
     * last time. */
    uint32_t predicted[HART_PREDICTED];
};

struct hart *hart_create(const struct hart_config *config);
void hart_destroy(struct hart *hart);

/* To the state after power-on (Privileged, "Reset"): M-mode, pc = reset vector, MMU off. */
void hart_reset(struct hart *hart, uint64_t pc);

/* Saves or loads the architectural state. */
void hart_state(struct hart *hart, struct stream *stream);

/*
 * Executes instructions until ATTENTION_STOP is requested (the bit is cleared on return). wfi puts
 * the host thread to sleep here. This is the interpreter; the JIT has an entry of the same shape.
 */
void hart_interpret(struct hart *hart);

/* Executes exactly one instruction (or takes one trap or interrupt), for debuggers. */
void hart_step(struct hart *hart);

/* What the hart has done since it was created. Any thread; approximate while it runs. */
struct hart_counts {
    uint64_t tlb_misses[3]; /* by enum access */
    uint64_t traps;         /* exceptions and interrupts taken */
    uint64_t fences_code, fences_translation;
};

const struct hart_counts *hart_get_counts(const struct hart *hart);

/* Any thread: sets attention bits and wakes the hart if it sleeps in wfi. */
void hart_request(struct hart *hart, uint32_t bits);

/*
 * Any thread: asks for hooks.sample between two instructions soon: at a jump backward, an indirect
 * one or a trap. False: the hart sleeps in wfi and is not woken for it.
 */
bool hart_request_sample(struct hart *hart);

/* Any thread: an interrupt line's level. MSI, MTI, MEI, SSI, STI and SEI (bit numbers of mip). */
void hart_set_interrupt(struct hart *hart, enum interrupt interrupt, bool level);

/* The line into one hart's interrupt, for controllers. */
struct irq_line hart_interrupt_line(struct hart *hart, enum interrupt interrupt);

/*
 * Gives the hart the interrupt file of a privilege (M or S), whose signal is then the external
 * interrupt of that privilege. Before it runs. A file that changes on another thread sets
 * hart_look_line, at any level, and the hart looks at it.
 */
void hart_set_interrupt_file(struct hart *hart, enum privilege privilege,
                             const struct interrupt_file *file);
struct irq_line hart_look_line(struct hart *hart);

/* True if an interrupt is pending and enabled locally, whatever mstatus.xIE says: ends wfi. */
bool hart_interrupt_pending(struct hart *hart);

/* What wfi does: sleeps until an interrupt is pending and enabled, or attention is asked for. */
void hart_wait(struct hart *hart);

/* Changes the privilege that the next instruction has, as a return from a trap does. For firmware
 * services and debuggers. */
void hart_set_privilege(struct hart *hart, enum privilege privilege);

/*
 * Takes a trap: cause (bit 63: interrupt), with delegation, vectoring and the CSR updates. pc is
 * the value for xepc.
 */
void hart_trap(struct hart *hart, uint64_t cause, uint64_t tval);

/* What a cause is called: "load page fault". Never NULL. */
const char *hart_cause_name(uint64_t cause);

/* --- CSRs: one table, csr_table.h, feeds access, disassembly and the debugger ---------------- */

struct csr {
    const char *name; /* NULL: no CSR has this number */
    uint16_t number;
};

/* The table entry of CSR `number` (0..4095), or NULL if this hart does not have it. */
const struct csr *hart_csr_find(const struct hart *hart, unsigned number);

/* A CSR's name for the disassembler and traces, or NULL. */
const char *hart_csr_name(unsigned number);

/*
 * Access by a debugger, firmware services or tests: with M-mode's rights, without side effects on
 * control flow. False if the CSR does not exist (or is read-only, when writing).
 */
bool hart_csr_read(struct hart *hart, unsigned number, uint64_t *value);
bool hart_csr_write(struct hart *hart, unsigned number, uint64_t value);

/* --- Translation ----------------------------------------------------------------------------- */

/*
 * Walks the page tables as the hart would now (privilege < 0) or would at that privilege, without
 * side effects (A and D are not set). Returns TRAP_NONE and the address, or the cause.
 */
enum trap_cause hart_translate(struct hart *hart, uint64_t va, enum access access, int privilege,
                               uint64_t *gpa);

/*
 * Copies from or to guest virtual memory without side effects, for SBI, semihosting, debuggers.
 * Writing needs no more than that privilege may read or execute the page, and is seen by the code
 * of this hart; for others the caller fences (HART_FENCE_I). False, with a prefix possibly copied,
 * if a page is not mapped or not RAM.
 */
bool hart_memory_read(struct hart *hart, uint64_t va, void *buffer, size_t size, int privilege);
bool hart_memory_write(struct hart *hart, uint64_t va, const void *buffer, size_t size,
                       int privilege);

/* Fences. size UINT64_MAX means the whole address space, asid UINT64_MAX every address space. */
void hart_sfence(struct hart *hart, uint64_t va, uint64_t size, uint64_t asid);
void hart_fence_i(struct hart *hart);

struct hart_fence {
    /* HART_FENCE_JUMPS: translated code goes away; see struct tlb_jump. HART_FENCE_STORES: the TLB
     * allows no more stores; see memory_forget_stores. */
    enum { HART_FENCE_I, HART_FENCE_VMA, HART_FENCE_JUMPS, HART_FENCE_STORES } kind;
    uint64_t va, size, asid;
};

/*
 * Executes a fence on other harts. On return each target has done it, or was not executing guest
 * instructions and does it before the next one. `caller` is the hart whose thread this is (it goes
 * on answering fences from others meanwhile), or NULL on another thread.
 */
void hart_fence_remote(struct hart *caller, struct hart *const *targets, unsigned count,
                       const struct hart_fence *fence);

/* Any thread: host addresses behind [gpa, gpa + size) changed; every cached translation goes. Same
 * guarantee as hart_fence_remote. */
void hart_remapped(struct hart *caller, struct hart *const *harts, unsigned count);

/* The guest clock was frozen, thawed or set, or state was loaded: timers are computed anew. */
void hart_clock_changed(struct hart *hart);
