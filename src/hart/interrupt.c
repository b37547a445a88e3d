/* Interrupts, the supervisor timer (Sstc), and the ways in which a hart waits. */
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "hart/internal.h"

uint64_t interrupt_mip(const struct hart *hart)
{
    uint64_t mip = atomic_load_explicit(&hart->mip, memory_order_acquire);
    /* With mvien's bit set, what software wrote is mvip's alone (AIA 1.0, section 5.3). */
    uint64_t software = mip & ~(hart->mvien & BIT(INTERRUPT_SEI));
    return (software | mip >> 32) & MIP_MASK;
}

/* S-mode's pending and enabled interrupts that come from mvip. */
static uint64_t virtual_pending(const struct hart *hart)
{
    uint64_t enabled = aia_virtual_enabled(hart);
    return unlikely(enabled) ? aia_mvip(hart) & enabled : 0;
}

/* What may be taken now, of the highest privilege that may take any (Privileged, "mip"). */
static uint64_t takeable(const struct hart *hart, bool *supervisor)
{
    uint64_t pending = interrupt_mip(hart) & hart->mie, virtual = virtual_pending(hart);
    if (likely(!(pending | virtual)))
        return 0;
    uint64_t machine = pending & ~hart->mideleg;
    *supervisor = false;
    if (machine && (hart->privilege < PRIVILEGE_MACHINE || (hart->mstatus & MSTATUS_MIE)))
        return machine;
    *supervisor = hart->privilege < PRIVILEGE_SUPERVISOR ||
                  (hart->privilege == PRIVILEGE_SUPERVISOR && (hart->mstatus & MSTATUS_SIE));
    return *supervisor ? (pending & hart->mideleg) | virtual : 0;
}

void interrupt_update(struct hart *hart)
{
    bool supervisor;
    if (unlikely(takeable(hart, &supervisor)))
        atomic_fetch_or(&hart->attention, ATTENTION_INTERRUPT);
}

unsigned interrupt_first(uint64_t set)
{
    static const uint8_t priority[] = {INTERRUPT_MEI, INTERRUPT_MSI, INTERRUPT_MTI,  INTERRUPT_SEI,
                                       INTERRUPT_SSI, INTERRUPT_STI, INTERRUPT_LCOFI};
    for (unsigned i = 0; i < ARRAY_SIZE(priority) && set; i++)
        if (set & BIT(priority[i]))
            return priority[i];
    return 0;
}

bool interrupt_take(struct hart *hart)
{
    bool supervisor;
    unsigned number = interrupt_first(takeable(hart, &supervisor));
    if (number)
        trap_take(hart, supervisor, CAUSE_INTERRUPT | number, 0);
    return number;
}

bool hart_interrupt_pending(struct hart *hart)
{
    return (interrupt_mip(hart) & hart->mie) | virtual_pending(hart);
}

void hart_set_interrupt(struct hart *hart, enum interrupt interrupt, bool level)
{
    uint64_t bit = interrupt == INTERRUPT_SEI ? MIP_SEI_LINE : BIT(interrupt);
    if (!level)
        atomic_fetch_and(&hart->mip, ~bit);
    else if (!(atomic_fetch_or(&hart->mip, bit) & bit))
        hart_request(hart, ATTENTION_INTERRUPT);
}

static void line_set(void *controller, unsigned source, bool level)
{
    hart_set_interrupt(controller, source, level);
}

struct irq_line hart_interrupt_line(struct hart *hart, enum interrupt interrupt)
{
    return (struct irq_line){.set = line_set, .controller = hart, .source = interrupt};
}

/* --- Supervisor timer (Sstc) ----------------------------------------------------------------- */

static bool has_supervisor_timer(const struct hart *hart)
{
    return isa_extensions_test(&hart->extensions, ISA_EXT_SSTC) && (hart->menvcfg & ENVCFG_STCE);
}

static void timer_arm(struct hart *hart, uint64_t deadline)
{
    struct hart_private *private = hart->private;
    if (private->timer_deadline == deadline)
        return;
    private->timer_deadline = deadline;
    if (private->timer)
        loop_set_timer(private->timer, deadline);
}

/* STIP is `time >= stimecmp`. Only the hart thread computes it; the timer asks it to. */
void timer_update(struct hart *hart)
{
    if (!has_supervisor_timer(hart)) {
        timer_arm(hart, UINT64_MAX);
        return;
    }
    if (clock_ticks(hart->clock) >= hart->stimecmp) {
        timer_arm(hart, UINT64_MAX);
        atomic_fetch_or(&hart->mip, BIT(INTERRUPT_STI));
        return;
    }
    atomic_fetch_and(&hart->mip, ~BIT(INTERRUPT_STI));
    timer_arm(hart, clock_deadline(hart->clock, hart->stimecmp));
}

void interrupt_sources_update(struct hart *hart)
{
    timer_update(hart);
    aia_update(hart);
}

void hart_clock_changed(struct hart *hart)
{
    hart_request(hart, ATTENTION_INTERRUPT);
}

/* --- Waiting --------------------------------------------------------------------------------- */

static void futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t deadline)
{
    struct timespec timeout, *limit = NULL;
    if (deadline != UINT64_MAX) {
        uint64_t now = loop_now();
        uint64_t ns = deadline > now ? deadline - now : 0;
        timeout.tv_sec = ns / 1000000000;
        timeout.tv_nsec = ns % 1000000000;
        limit = &timeout;
    }
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, limit, NULL, 0);
}

void hart_request(struct hart *hart, uint32_t bits)
{
    atomic_fetch_or(&hart->attention, bits);
    if (atomic_load(&hart->private->sleeping))
        syscall(SYS_futex, &hart->attention, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

bool hart_request_sample(struct hart *hart)
{
    if (atomic_load(&hart->private->sleeping))
        return false;
    atomic_fetch_or(&hart->attention, ATTENTION_SAMPLE);
    return true;
}

/*
 * wfi: sleeps until an interrupt is pending and enabled locally, or somebody wants the engine to
 * stop. Fences and exclusive sections do not wake it: they find it not running and go on, and it
 * attends to them before its next instruction.
 */
void hart_wait(struct hart *hart)
{
    if (hart->private->stepping)
        return;
    guest_leave(hart);
    hart->waiting = true;
    for (;;) {
        /* Cleared before looking, so that what comes later leaves its mark. */
        uint32_t bits = atomic_fetch_and(&hart->attention, ~(uint32_t)ATTENTION_INTERRUPT);
        interrupt_sources_update(hart);
        if ((bits & ATTENTION_STOP) || hart_interrupt_pending(hart))
            break;
        atomic_store(&hart->private->sleeping, true);
        bits = atomic_load(&hart->attention);
        if (!(bits & (ATTENTION_INTERRUPT | ATTENTION_STOP)))
            futex_wait(&hart->attention, bits, hart->private->timer_deadline);
        atomic_store(&hart->private->sleeping, false);
    }
    /* One that was asked for meanwhile is not of what comes after. */
    if (atomic_fetch_and(&hart->attention, ~(uint32_t)ATTENTION_SAMPLE) & ATTENTION_SAMPLE)
        hart->hooks.sample(hart->hooks.opaque, hart);
    hart->waiting = false;
    atomic_fetch_or(&hart->attention, ATTENTION_INTERRUPT);
    guest_enter(hart);
}

/* wrs.nto, wrs.sto: waits a bounded time for a store to the reserved address, so that mstatus.TW
 * never has to trap it (Zawrs). */
void interrupt_reservation_wait(struct hart *hart)
{
    uint64_t va = hart->reservation_address;
    if (va == RESERVATION_NONE || hart->private->stepping)
        return;
    const struct tlb_entry *entry = tlb_entry_of(hart->data_tlb, va);
    if (entry->tag[ACCESS_LOAD] != (va & PAGE_MASK))
        return;
    const void *host = (const void *)(va + entry->addend);
    for (unsigned i = 0; i < 16; i++) {
        uint64_t value = hart->reservation_size == 4
                             ? (uint64_t)__atomic_load_n((const int32_t *)host, __ATOMIC_RELAXED)
                             : __atomic_load_n((const uint64_t *)host, __ATOMIC_RELAXED);
        if (value != hart->reservation_value || atomic_load(&hart->attention))
            return;
        sched_yield();
    }
}

/* pause: a hart that spins for another one, which perhaps waits for this host CPU. */
void interrupt_pause(struct hart *hart)
{
    enum { PAUSES_PER_YIELD = 16 };
    if (++hart->private->pauses % PAUSES_PER_YIELD == 0)
        sched_yield();
}
