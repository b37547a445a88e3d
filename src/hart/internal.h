/* Private to hart/: what its files share. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "base/base.h"
#include "hart/debug.h"
#include "hart/engine.h"
#include "hart/hart.h"

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define PAGE_SIZE MEMORY_PAGE_SIZE
#define PAGE_MASK (~(uint64_t)(PAGE_SIZE - 1))

#define RESERVATION_NONE UINT64_MAX

/* Fields of mstatus and sstatus (Privileged, "Machine Status Registers"). */
#define MSTATUS_SIE  BIT(1)
#define MSTATUS_MIE  BIT(3)
#define MSTATUS_SPIE BIT(5)
#define MSTATUS_MPIE BIT(7)
#define MSTATUS_SPP  BIT(8)
#define MSTATUS_MPP  (BIT(11) | BIT(12))
#define MSTATUS_FS   (BIT(13) | BIT(14))
#define MSTATUS_MPRV BIT(17)
#define MSTATUS_SUM  BIT(18)
#define MSTATUS_MXR  BIT(19)
#define MSTATUS_TVM  BIT(20)
#define MSTATUS_TW   BIT(21)
#define MSTATUS_TSR  BIT(22)
#define MSTATUS_UXL  BIT(33) /* = 2: 64 bits */
#define MSTATUS_SXL  BIT(35) /* = 2: 64 bits */
#define MSTATUS_SD   BIT(63)

#define MSTATUS_MPP_SHIFT 11

/* Fields of menvcfg and senvcfg. */
#define ENVCFG_FIOM  BIT(0)
#define ENVCFG_CBIE  (BIT(4) | BIT(5))
#define ENVCFG_CBCFE BIT(6)
#define ENVCFG_CBZE  BIT(7)
#define ENVCFG_ADUE  BIT(61)
#define ENVCFG_PBMTE BIT(62)
#define ENVCFG_STCE  BIT(63)

#define MIP_SEI_LINE BIT(32 + INTERRUPT_SEI)
#define MIP_MASK                                                                                   \
    (BIT(INTERRUPT_SSI) | BIT(INTERRUPT_MSI) | BIT(INTERRUPT_STI) | BIT(INTERRUPT_MTI) |           \
     BIT(INTERRUPT_SEI) | BIT(INTERRUPT_MEI) | BIT(INTERRUPT_LCOFI))

#define CAUSE_INTERRUPT BIT(63)

/* More reasons for attention: another hart waits for us to stand still; we made others do so. */
#define ATTENTION_HALT      (ATTENTION_PRIVATE << 0)
#define ATTENTION_EXCLUSIVE (ATTENTION_PRIVATE << 1)

/* --- Decoded code (code.c) ------------------------------------------------------------------- */

enum code_op {
    CODE_UNDECODED = 0, /* so that zeroed slots are undecoded */
    CODE_ILLEGAL = INSN_COUNT,
    CODE_STRADDLES, /* its second half is in the next page */
    CODE_END,       /* behind the last slot */
    CODE_BREAK,     /* there is a breakpoint at this offset, in this page or another one */
    CODE_OPS
};

#define CODE_PAGE_SLOTS (PAGE_SIZE / 2)

struct code_page {
    const uint8_t *host; /* the page that was decoded */
    uint64_t epoch;      /* when source was last known to be what host holds */
    struct code_page *next;
    bool used;
    uint8_t source[PAGE_SIZE] __attribute__((aligned(8)));
    struct code_slot slots[CODE_PAGE_SLOTS + 2]; /* CODE_END after either length */
};

#define CODE_BUCKETS 1024
#define CODE_PAGES   1024 /* 28 KiB each */

struct code_cache {
    struct code_page *buckets[CODE_BUCKETS];
    struct code_page *pages[CODE_PAGES];
    unsigned count, hand;
    uint64_t epoch;
};

struct code_page *code_find_slow(struct code_cache *code, const uint8_t *host);
void code_decode(struct hart *hart, struct code_page *page, struct code_slot *slot);
#define CODE_ALONE UINT32_MAX
void code_fill(const struct hart *hart, struct code_slot *slot, uint32_t bits, unsigned offset);
void code_forget(struct code_cache *code);
/* The slot of halfword `half` of all pages is to be decoded anew. */
void code_undecode(struct code_cache *code, unsigned half);

static inline unsigned code_bucket(const uint8_t *host)
{
    return ((uintptr_t)host >> MEMORY_PAGE_SHIFT) % CODE_BUCKETS;
}

/* The decoded page of a host page. */
static inline struct code_page *code_find(struct code_cache *code, const uint8_t *host)
{
    struct code_page *page = code->buckets[code_bucket(host)];
    if (likely(page && page->host == host && page->epoch == code->epoch)) {
        page->used = true;
        return page;
    }
    return code_find_slow(code, host);
}

/* --- What a hart keeps to itself ------------------------------------------------------------- */

#define FENCE_QUEUE 16

struct pmp_range {
    uint64_t first, last; /* inclusive; first > last: the entry is off */
};

struct hart_private {
    struct tlb tlbs[TLB_CONTEXTS];
    uint64_t jumps_generation; /* older jumps are void */
    unsigned tlb_reach;        /* the most entries that any of them had */
    uint64_t tlb_uses;
    struct hart_counts counts; /* TLB misses are events of the performance counters too */

    struct code_cache code;
    struct code_slot single[3]; /* an instruction that is fetched for one execution only */
    uint32_t single_bits;
    bool reenter; /* a CSR write changed how instructions are fetched */
    bool stepping;
    bool interrupts_held, unwatched, uncaught; /* while a debugger steps */
    struct hart_stop stop;
    uint64_t break_offsets[ENGINE_BREAKS_SIZE / sizeof(uint64_t)]; /* in pages, of breakpoints */
    uint64_t jump_mask; /* address bits that must be 0 in the target of a jump */

    struct pmp_range pmp[16];

    /* Remote fences: any thread, under fence_lock. */
    pthread_mutex_t fence_lock;
    struct hart_fence fences[FENCE_QUEUE];
    unsigned fence_count;
    bool fence_everything; /* the queue overflowed, or host addresses changed */
    uint64_t fences_posted;
    _Atomic uint64_t fences_done;

    /* AIA: by `privilege == PRIVILEGE_MACHINE`. What *topei and *ireg were last read as. */
    struct interrupt_file files[2];
    unsigned top_read[2];
    uint64_t indirect_read[2];

    _Atomic bool sleeping; /* in the futex of wfi */
    struct loop_timer *timer, *counter_timer;
    uint64_t timer_deadline;
    unsigned pauses;

    /* Hardware performance counters: what each event counted when its counter was last updated. */
    uint64_t hpm_seen[HART_HPM_COUNTERS];
    bool hpm_active;

    struct domain *domain;
    bool exclusive;
    unsigned exclusive_left;
    uint64_t exposed_lrs[16];

    bool trace_open; /* an instruction's trace line waits for its result */
    char trace_line[200];
    uint8_t trace_rd;
    bool trace_fp;
};

/* --- interpret.c ----------------------------------------------------------------------------- */

/* Executes private->single[0]; what it returns is engine_execute's. */
bool interpret_single(struct hart *hart);

/* --- tlb.c ----------------------------------------------------------------------------------- */

#define SATP_MODE_SHIFT 60
#define SATP_ASID_SHIFT 44
#define SATP_MODE_BARE  0

/* tlb->mode: the effective privilege in bits 1..0, and: */
#define VIEW_SUM BIT(2)
#define VIEW_MXR BIT(3)

/* Of a superpage of 2 MiB, the region that one table of pages translates. */
#define LARGE_SHIFT 21

/* Where a page walk ended. */
struct walk {
    uint64_t gpa;
    unsigned allowed; /* mask by enum access: what needs no further check of the page tables */
    uint8_t span;
    bool global;
};

/* satp and mode of the context in which the hart accesses memory at a privilege. They leave out
 * what makes no difference, so that more contexts are the same. */
uint32_t context_mode(const struct hart *hart, unsigned privilege, uint64_t *satp);

/* Counts a miss; the TLB may grow, and is empty then. */
void tlb_miss(struct hart *hart, struct tlb *tlb);
/* Enters a page with what `allowed` (a mask by enum access) permits; those in `watched` leave the
 * fast path. */
void tlb_fill(struct tlb *tlb, uint64_t va, const struct walk *walk, unsigned allowed,
              unsigned watched, enum memory_kind kind, const uint8_t *host);

static inline struct tlb_table *table_of(struct tlb *tlb, uint64_t va)
{
    return &tlb->tables[(va >> LARGE_SHIFT) % TLB_TABLES];
}

/* What translates loads and stores or fetches has changed: privilege, satp, mstatus. */
void mmu_context_changed(struct hart *hart);
void mmu_flush(struct hart *hart);
void mmu_forget_jumps(struct hart *hart);
void mmu_forget_stores(struct hart *hart);

/* --- mmu.c ----------------------------------------------------------------------------------- */

/* The slow paths of the engine. hart->pc and instret are in sync. False: a trap was taken. */
bool mmu_load(struct hart *hart, uint64_t va, unsigned size, uint64_t *value);
bool mmu_store(struct hart *hart, uint64_t va, unsigned size, uint64_t value);
/* The host address for an atomic access; for LR access is ACCESS_LOAD. `does` is a mask of what it
 * does to memory, by enum access. NULL: a trap was taken, or the hart stops before it. */
void *mmu_atomic(struct hart *hart, uint64_t va, unsigned size, enum access access, unsigned does);
/* Cache block operations. */
bool mmu_block_zero(struct hart *hart, uint64_t va);
bool mmu_block_manage(struct hart *hart, uint64_t va);

/* Finds the code at pc. Returns its page; NULL with *single set after fetching one instruction into
 * private->single, or with *single clear after a trap. */
struct code_page *mmu_fetch(struct hart *hart, uint64_t pc, bool *single);
/* The same, but the host address of the page itself. */
const uint8_t *mmu_fetch_page(struct hart *hart, uint64_t pc, bool *single);
/* As mmu_fetch, always one instruction; false: a trap was taken. */
bool mmu_fetch_single(struct hart *hart, uint64_t pc);

/* --- pmp.c ----------------------------------------------------------------------------------- */

void pmp_changed(struct hart *hart);
/* Bit mask by enum access of what privilege may do with [gpa, gpa + size). */
unsigned pmp_allowed(const struct hart *hart, uint64_t gpa, unsigned size, unsigned privilege);
/* True if all bytes of the page that holds gpa have the same permissions. */
bool pmp_page_uniform(const struct hart *hart, uint64_t gpa);

/* --- debug.c: all of them only while hart->points is not NULL --------------------------------- */

/* The kinds of accesses to the page of which some may be to a watched byte. */
unsigned debug_watched_accesses(const struct hart *hart, uint64_t page);
/* An access is about to be made: whether the hart is to stop before it. */
bool debug_access(struct hart *hart, uint64_t va, unsigned size, unsigned accesses);
/* A trap was taken. */
void debug_trap(struct hart *hart, uint64_t cause);
/* Whether the hart is to stop before this ecall (HART_STOP_CALL) or wfi (HART_STOP_WAIT). */
bool debug_before(struct hart *hart, enum hart_stop_reason reason);

/* --- csr.c ----------------------------------------------------------------------------------- */

enum csr_operation { CSR_WRITE, CSR_SET, CSR_CLEAR };

enum csr_result {
    CSR_ILLEGAL,
    CSR_DONE,
    CSR_REENTER, /* done; the next instruction must be fetched anew, interrupts be looked at */
};

enum csr_result csr_execute(struct hart *hart, unsigned number, enum csr_operation operation,
                            uint64_t operand, bool writes, uint64_t *old);

/* --- aia.c ----------------------------------------------------------------------------------- */

#define AIA_SELECT_FILE 0x70 /* the first of *iselect that is in an interrupt file */

/* Whether *ireg may be accessed with what *iselect holds. */
bool aia_select_exists(const struct hart *hart, bool machine);
bool aia_has_file(const struct hart *hart, bool machine);
/* Of csr_table.h. */
uint64_t aia_read_indirect(struct hart *hart, unsigned number);
void aia_write_indirect(struct hart *hart, unsigned number, uint64_t value);
uint64_t aia_read_topei(struct hart *hart, unsigned number);
void aia_write_topei(struct hart *hart, unsigned number, uint64_t value);
uint64_t aia_read_topi(struct hart *hart, unsigned number);
uint64_t aia_read_mvien(struct hart *hart, unsigned number);
void aia_write_mvien(struct hart *hart, unsigned number, uint64_t value);
uint64_t aia_read_mvip(struct hart *hart, unsigned number);
void aia_write_mvip(struct hart *hart, unsigned number, uint64_t value);
/* mvip without bringing mip up to date. */
uint64_t aia_mvip(const struct hart *hart);
void aia_check_loaded(struct hart *hart);
/* MEIP and SEIP follow the interrupt files. Only the hart thread computes them, as STIP. */
void aia_update(struct hart *hart);

/* S-mode's interrupts that are not those of mip (AIA 1.0, section 5.3): pending and enabled. */
static inline uint64_t aia_virtual_enabled(const struct hart *hart)
{
    return hart->mvien & ~hart->mideleg & hart->sie_virtual;
}

/* --- trap.c ---------------------------------------------------------------------------------- */

/* hart_trap with the privilege that takes it known. */
void trap_take(struct hart *hart, bool supervisor, uint64_t cause, uint64_t tval);
/* xret. False: illegal in the current mode. */
bool trap_return_machine(struct hart *hart);
bool trap_return_supervisor(struct hart *hart);
bool trap_breakpoint(struct hart *hart); /* ebreak; true: semihosting handled it */
void trap_environment_call(struct hart *hart);

/* --- interrupt.c ----------------------------------------------------------------------------- */

uint64_t interrupt_mip(const struct hart *hart); /* as software reads it */
/* Something that decides about interrupts changed: asks for attention if one can be taken. */
void interrupt_update(struct hart *hart);
/* The number of the one in a set of interrupts that goes first; 0: the set is empty. */
unsigned interrupt_first(uint64_t set);
/* Takes the interrupt of the highest priority, if any may be taken. */
bool interrupt_take(struct hart *hart);
void interrupt_reservation_wait(struct hart *hart);
void interrupt_pause(struct hart *hart);
/* What the hart itself computes of mip: STIP follows stimecmp (Sstc), which arms the timer, and
 * external interrupts follow interrupt files. */
void interrupt_sources_update(struct hart *hart);
/* STIP alone. */
void timer_update(struct hart *hart);

/* --- counters.c ------------------------------------------------------------------------------ */

/* index: 0 cycle, 2 instret, 3.. the programmable ones. */
uint64_t counter_read(struct hart *hart, unsigned index);
void counter_write(struct hart *hart, unsigned index, uint64_t value);
void counters_set_event(struct hart *hart, unsigned index, uint64_t event);
void counters_set_inhibit(struct hart *hart, uint64_t inhibit);
/* Brings the programmable counters up to date. Before what they count by changes. */
void counters_update(struct hart *hart);
/* Counts from here on, after what is counted has changed. */
void counters_restart(struct hart *hart);
void counters_arm(struct hart *hart);

static inline void counters_mode_changes(struct hart *hart)
{
    if (unlikely(hart->private->hpm_active))
        counters_update(hart);
}

/* --- fence.c --------------------------------------------------------------------------------- */

/* The hart thread starts and stops executing guest instructions. */
void guest_enter(struct hart *hart);
void guest_leave(struct hart *hart);

enum attended hart_attend(struct hart *hart);

/* --- reservation.c --------------------------------------------------------------------------- */

struct domain *domain_join(struct memory *memory, struct hart *hart);
void domain_leave(struct domain *domain, struct hart *hart);

/* Waits until no other hart is in an exclusive section. */
void domain_wait(struct hart *hart);

/* The instructions that let a sequence between LR and SC observe other memory. */
extern const bool reservation_exposes[CODE_OPS];
/* Such an instruction comes next while a reservation is held. */
void reservation_expose(struct hart *hart);
void exclusive_end(struct hart *hart);

static inline bool reservation_is_exposed_by(const struct hart *hart, unsigned op)
{
    return hart->reservation_address != RESERVATION_NONE && !hart->reservation_exposed &&
           reservation_exposes[op];
}

/* May SC store, if memory still holds what LR loaded? */
bool reservation_claim(struct hart *hart, uint64_t va, unsigned size);

static inline void reservation_drop(struct hart *hart)
{
    hart->reservation_address = RESERVATION_NONE;
    if (unlikely(hart->private->exclusive))
        exclusive_end(hart);
}

/* Execution stops: the reservation is lost, unless a debugger looks at the hart meanwhile. It would
 * never come past an SC that it stops before. */
static inline void reservation_leave(struct hart *hart)
{
    if (!hart_stopping(hart) || hart->private->exclusive)
        reservation_drop(hart);
}

/* --- trace.c --------------------------------------------------------------------------------- */

void exec_trace_begin(struct hart *hart, uint64_t pc, uint32_t bits);
void exec_trace_end(struct hart *hart, bool completed);
