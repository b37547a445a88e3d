/*
 * Counters: Zicntr, Zihpm, Sscofpmf.
 *
 * The cycle counter counts retired instructions: one cycle each, whatever the host does, so that
 * runs can be compared. Programmable counters are not touched while they count; counters_update
 * adds what happened since the last time, whenever somebody looks or the way of counting changes
 * (privilege, with mode filters). A timer has the hart look now and then, for overflows.
 */
#include "hart/internal.h"

/* Events: the numbers that the SBI PMU extension gives them, which is what guests select. */
enum event {
    EVENT_CYCLES = 0x1,
    EVENT_INSTRUCTIONS = 0x2,
    EVENT_DTLB_READ_MISS = 0x10019,
    EVENT_DTLB_WRITE_MISS = 0x1001b,
    EVENT_ITLB_READ_MISS = 0x10021,
};

#define EVENT_OF     BIT(63)
#define EVENT_MINH   BIT(62)
#define EVENT_SINH   BIT(61)
#define EVENT_UINH   BIT(60)
#define EVENT_NUMBER UINT64_C(0xffffffff)

#define INHIBIT_MASK (BIT(0) | BIT(2) | ((BIT(HART_HPM_COUNTERS) - 1) << 3))

static const uint64_t *event_source(const struct hart *hart, uint64_t event)
{
    switch (event & EVENT_NUMBER) {
    case EVENT_CYCLES:
    case EVENT_INSTRUCTIONS:
        return &hart->instret;
    case EVENT_DTLB_READ_MISS:
        return &hart->private->counts.tlb_misses[ACCESS_LOAD];
    case EVENT_DTLB_WRITE_MISS:
        return &hart->private->counts.tlb_misses[ACCESS_STORE];
    case EVENT_ITLB_READ_MISS:
        return &hart->private->counts.tlb_misses[ACCESS_FETCH];
    default:
        return NULL;
    }
}

static bool filtered(const struct hart *hart, uint64_t event)
{
    static const uint64_t inhibit[] = {EVENT_UINH, EVENT_SINH, 0, EVENT_MINH};
    return event & inhibit[hart->privilege];
}

static void count_up(struct hart *hart, unsigned i, uint64_t delta)
{
    uint64_t before = hart->mhpmcounter[i];
    hart->mhpmcounter[i] += delta;
    bool overflow = hart->mhpmcounter[i] < before;
    if (!overflow || !isa_extensions_test(&hart->extensions, ISA_EXT_SSCOFPMF) ||
        (hart->mhpmevent[i] & EVENT_OF))
        return;
    hart->mhpmevent[i] |= EVENT_OF;
    atomic_fetch_or(&hart->mip, BIT(INTERRUPT_LCOFI));
    interrupt_update(hart);
}

void counters_update(struct hart *hart)
{
    bool active = false;
    for (unsigned i = 0; i < HART_HPM_COUNTERS; i++) {
        const uint64_t *source = event_source(hart, hart->mhpmevent[i]);
        if (!source || (hart->mcountinhibit >> (i + 3) & 1))
            continue;
        active = true;
        uint64_t delta = *source - hart->private->hpm_seen[i];
        hart->private->hpm_seen[i] = *source;
        if (!filtered(hart, hart->mhpmevent[i]))
            count_up(hart, i, delta);
    }
    hart->private->hpm_active = active;
}

/* What is counted changes: from here on, from zero. */
void counters_restart(struct hart *hart)
{
    for (unsigned i = 0; i < HART_HPM_COUNTERS; i++) {
        const uint64_t *source = event_source(hart, hart->mhpmevent[i]);
        hart->private->hpm_seen[i] = source ? *source : 0;
    }
    counters_update(hart);
    counters_arm(hart);
}

/* Has the hart look again at about the time when the next counter overflows. */
void counters_arm(struct hart *hart)
{
    const uint64_t ns_per_event = 3, soonest = 20000, latest = 1000000000;
    if (!hart->private->counter_timer)
        return;
    uint64_t left = UINT64_MAX;
    for (unsigned i = 0; i < HART_HPM_COUNTERS && hart->private->hpm_active; i++)
        if (event_source(hart, hart->mhpmevent[i]) && !(hart->mhpmevent[i] & EVENT_OF) &&
            !(hart->mcountinhibit >> (i + 3) & 1) && -hart->mhpmcounter[i] < left)
            left = -hart->mhpmcounter[i];
    uint64_t deadline = UINT64_MAX;
    if (left < UINT64_MAX / 2) {
        uint64_t ns = left < latest / ns_per_event ? left * ns_per_event : latest;
        deadline = loop_now() + (ns < soonest ? soonest : ns);
    }
    loop_set_timer(hart->private->counter_timer, deadline);
}

static uint64_t *fixed_offset(struct hart *hart, unsigned index)
{
    return index == 0 ? &hart->mcycle_offset : &hart->minstret_offset;
}

uint64_t counter_read(struct hart *hart, unsigned index)
{
    if (index == 1)
        return clock_ticks(hart->clock);
    if (index < 3)
        return *fixed_offset(hart, index) + (hart->mcountinhibit >> index & 1 ? 0 : hart->instret);
    if (index - 3 >= HART_HPM_COUNTERS)
        return 0;
    counters_update(hart);
    return hart->mhpmcounter[index - 3];
}

void counter_write(struct hart *hart, unsigned index, uint64_t value)
{
    if (index < 3) {
        *fixed_offset(hart, index) = value - (hart->mcountinhibit >> index & 1 ? 0 : hart->instret);
    } else if (index - 3 < HART_HPM_COUNTERS) {
        counters_update(hart);
        hart->mhpmcounter[index - 3] = value;
        counters_restart(hart);
    }
}

void counters_set_event(struct hart *hart, unsigned index, uint64_t event)
{
    uint64_t mask = EVENT_NUMBER;
    if (isa_extensions_test(&hart->extensions, ISA_EXT_SSCOFPMF))
        mask |= EVENT_OF | EVENT_MINH | EVENT_SINH | EVENT_UINH;
    if (index - 3 >= HART_HPM_COUNTERS)
        return;
    counters_update(hart);
    hart->mhpmevent[index - 3] = event & mask;
    counters_restart(hart);
}

void counters_set_inhibit(struct hart *hart, uint64_t inhibit)
{
    uint64_t cycle = counter_read(hart, 0), instret = counter_read(hart, 2);
    counters_update(hart);
    hart->mcountinhibit = inhibit & INHIBIT_MASK;
    counter_write(hart, 0, cycle);
    counter_write(hart, 2, instret);
    counters_restart(hart);
}
