/*
 * The SBI's performance monitoring extension (SBI 2.0, chapter 11) over the hart's counters.
 *
 * Counter indices: 0 cycle, 1 instret, then the programmable mhpmcounters, then firmware counters
 * that count what the built-in SBI does.
 */
#include <stdlib.h>

#include "machine/internal.h"

#define CSR_MCYCLE        0xb00
#define CSR_MINSTRET      0xb02
#define CSR_MHPMCOUNTER3  0xb03
#define CSR_MCOUNTINHIBIT 0x320
#define CSR_MHPMEVENT3    0x323
#define CSR_CYCLE         0xc00
#define MHPMEVENT_MINH    BIT(62)
#define MHPMEVENT_SINH    BIT(61)
#define MHPMEVENT_UINH    BIT(60)

#define FIXED_COUNTERS    2
#define FIRMWARE_COUNTERS 16
#define HARDWARE_COUNTERS (FIXED_COUNTERS + HART_HPM_COUNTERS)
#define COUNTERS          (HARDWARE_COUNTERS + FIRMWARE_COUNTERS)

#define EVENT_CYCLES        UINT64_C(1)
#define EVENT_INSTRUCTIONS  UINT64_C(2)
#define EVENT_TYPE_RAW      2
#define EVENT_TYPE_FIRMWARE 15
#define EVENT_NONE          UINT64_MAX

#define CONFIG_SKIP_MATCH  BIT(0)
#define CONFIG_CLEAR_VALUE BIT(1)
#define CONFIG_AUTO_START  BIT(2)
#define CONFIG_SET_UINH    BIT(5)
#define CONFIG_SET_SINH    BIT(6)
#define CONFIG_SET_MINH    BIT(7)
#define START_SET_INIT     BIT(0)
#define STOP_RESET         BIT(0)
#define INFO_FIRMWARE      BIT(63)

struct pmu_counter {
    uint64_t event; /* event_idx it is configured for, or EVENT_NONE */
    bool started;
    uint64_t value; /* of firmware counters */
};

struct pmu {
    struct hart *hart;
    struct pmu_counter counters[COUNTERS];
};

static struct sbi_result result(enum sbi_error error, uint64_t value)
{
    return (struct sbi_result){error, value};
}

struct pmu *pmu_create(struct hart *hart)
{
    struct pmu *pmu = xcalloc(1, sizeof(*pmu));
    pmu->hart = hart;
    pmu_reset(pmu);
    return pmu;
}

void pmu_destroy(struct pmu *pmu)
{
    free(pmu);
}

void pmu_reset(struct pmu *pmu)
{
    for (unsigned i = 0; i < COUNTERS; i++)
        pmu->counters[i] = (struct pmu_counter){.event = EVENT_NONE};
}

void pmu_state(struct pmu *pmu, struct stream *stream)
{
    for (unsigned i = 0; i < COUNTERS; i++) {
        stream_u64(stream, &pmu->counters[i].event);
        stream_bool(stream, &pmu->counters[i].started);
        stream_u64(stream, &pmu->counters[i].value);
    }
}

static unsigned event_type(uint64_t event)
{
    return event >> 16 & 0xf;
}

void pmu_count(struct pmu *pmu, enum pmu_firmware_event event)
{
    for (unsigned i = HARDWARE_COUNTERS; i < COUNTERS; i++) {
        struct pmu_counter *c = &pmu->counters[i];
        if (c->started && c->event == ((uint64_t)EVENT_TYPE_FIRMWARE << 16 | event))
            c->value++;
    }
}

/* The bit of a hardware counter in mcountinhibit and mcounteren; its CSRs follow from it. */
static unsigned hardware_bit(unsigned counter)
{
    static const unsigned fixed[FIXED_COUNTERS] = {0, 2};
    return counter < FIXED_COUNTERS ? fixed[counter] : counter - FIXED_COUNTERS + 3;
}

/* Sets what a programmable counter counts. False if the hart has no such event. */
static bool select_event(struct pmu *pmu, unsigned counter, uint64_t event, uint64_t data,
                         uint64_t flags)
{
    uint64_t selector = event_type(event) == EVENT_TYPE_RAW ? data & (BIT(48) - 1) : event, got;
    unsigned csr = CSR_MHPMEVENT3 + counter - FIXED_COUNTERS;
    if (isa_extensions_test(&pmu->hart->extensions, ISA_EXT_SSCOFPMF)) {
        selector |= flags & CONFIG_SET_UINH ? MHPMEVENT_UINH : 0;
        selector |= flags & CONFIG_SET_SINH ? MHPMEVENT_SINH : 0;
        selector |= flags & CONFIG_SET_MINH ? MHPMEVENT_MINH : 0;
    }
    return hart_csr_write(pmu->hart, csr, selector) && hart_csr_read(pmu->hart, csr, &got) &&
           got == selector && selector != 0;
}

/* True if `counter` can count the event; programmable ones are then set to it. */
static bool configure(struct pmu *pmu, unsigned counter, uint64_t event, uint64_t data,
                      uint64_t flags)
{
    bool filtered = flags & (CONFIG_SET_UINH | CONFIG_SET_SINH);
    if (counter >= HARDWARE_COUNTERS)
        return event_type(event) == EVENT_TYPE_FIRMWARE && (event & 0xffff) >= PMU_FW_SET_TIMER &&
               (event & 0xffff) <= PMU_FW_SFENCE_VMA_ASID_SENT;
    if (event_type(event) == EVENT_TYPE_FIRMWARE)
        return false;
    if (counter < FIXED_COUNTERS)
        return !filtered && event == (counter == 0 ? EVENT_CYCLES : EVENT_INSTRUCTIONS);
    return select_event(pmu, counter, event, data, flags);
}

static void set_inhibit(struct pmu *pmu, unsigned counter, bool inhibit)
{
    uint64_t value = 0;
    hart_csr_read(pmu->hart, CSR_MCOUNTINHIBIT, &value);
    uint64_t bit = BIT(hardware_bit(counter));
    hart_csr_write(pmu->hart, CSR_MCOUNTINHIBIT, inhibit ? value | bit : value & ~bit);
}

static void set_value(struct pmu *pmu, unsigned counter, uint64_t value)
{
    if (counter >= HARDWARE_COUNTERS)
        pmu->counters[counter].value = value;
    else
        hart_csr_write(pmu->hart, CSR_MCYCLE + hardware_bit(counter), value);
}

static void set_started(struct pmu *pmu, unsigned counter, bool started)
{
    pmu->counters[counter].started = started;
    if (counter < HARDWARE_COUNTERS)
        set_inhibit(pmu, counter, !started);
}

/* Counters of a base and a mask as a bit set. False if one does not exist or the set is empty. */
static bool select_counters(uint64_t base, uint64_t mask, uint64_t *set)
{
    if (base >= COUNTERS || mask == 0)
        return false;
    *set = mask << base;
    return *set >> base == mask && !(*set >> COUNTERS);
}

/* --- Calls --------------------------------------------------------------------------------------
 */

struct sbi_result pmu_num_counters(struct cpu *cpu, const uint64_t *args)
{
    return result(SBI_SUCCESS, COUNTERS);
}

struct sbi_result pmu_counter_get_info(struct cpu *cpu, const uint64_t *args)
{
    if (args[0] >= COUNTERS)
        return result(SBI_ERR_INVALID_PARAM, 0);
    if (args[0] >= HARDWARE_COUNTERS)
        return result(SBI_SUCCESS, INFO_FIRMWARE);
    return result(SBI_SUCCESS, 63 << 12 | (CSR_CYCLE + hardware_bit(args[0])));
}

struct sbi_result pmu_config_matching(struct cpu *cpu, const uint64_t *args)
{
    struct pmu *pmu = cpu->pmu;
    uint64_t set, flags = args[2], event = args[3], data = args[4];
    if (!select_counters(args[0], args[1], &set) || event >> 20)
        return result(SBI_ERR_INVALID_PARAM, 0);
    for (; set; set &= set - 1) {
        unsigned counter = __builtin_ctzll(set);
        struct pmu_counter *c = &pmu->counters[counter];
        bool skip = flags & CONFIG_SKIP_MATCH;
        if (skip && c->event == EVENT_NONE)
            return result(SBI_ERR_INVALID_PARAM, 0);
        if (!skip) {
            if (c->event != EVENT_NONE || !configure(pmu, counter, event, data, flags))
                continue;
            c->event = event;
        }
        if (flags & CONFIG_CLEAR_VALUE)
            set_value(pmu, counter, 0);
        if (flags & CONFIG_AUTO_START)
            set_started(pmu, counter, true);
        return result(SBI_SUCCESS, counter);
    }
    return result(SBI_ERR_NOT_SUPPORTED, 0);
}

struct sbi_result pmu_start(struct cpu *cpu, const uint64_t *args)
{
    uint64_t set;
    enum sbi_error error = SBI_SUCCESS;
    if (!select_counters(args[0], args[1], &set) || args[2] & ~START_SET_INIT)
        return result(SBI_ERR_INVALID_PARAM, 0);
    for (; set; set &= set - 1) {
        unsigned counter = __builtin_ctzll(set);
        if (cpu->pmu->counters[counter].event == EVENT_NONE)
            error = SBI_ERR_INVALID_PARAM;
        else if (cpu->pmu->counters[counter].started)
            error = SBI_ERR_ALREADY_STARTED;
        else {
            if (args[2] & START_SET_INIT)
                set_value(cpu->pmu, counter, args[3]);
            set_started(cpu->pmu, counter, true);
        }
    }
    return result(error, 0);
}

struct sbi_result pmu_stop(struct cpu *cpu, const uint64_t *args)
{
    uint64_t set;
    enum sbi_error error = SBI_SUCCESS;
    if (!select_counters(args[0], args[1], &set) || args[2] & ~STOP_RESET)
        return result(SBI_ERR_INVALID_PARAM, 0);
    for (; set; set &= set - 1) {
        struct pmu_counter *c = &cpu->pmu->counters[__builtin_ctzll(set)];
        if (!c->started)
            error = SBI_ERR_ALREADY_STOPPED;
        else
            set_started(cpu->pmu, __builtin_ctzll(set), false);
        if (args[2] & STOP_RESET)
            c->event = EVENT_NONE;
    }
    return result(error, 0);
}

struct sbi_result pmu_fw_read(struct cpu *cpu, const uint64_t *args)
{
    if (args[0] < HARDWARE_COUNTERS || args[0] >= COUNTERS ||
        cpu->pmu->counters[args[0]].event == EVENT_NONE)
        return result(SBI_ERR_INVALID_PARAM, 0);
    return result(SBI_SUCCESS, cpu->pmu->counters[args[0]].value);
}

struct sbi_result pmu_fw_read_hi(struct cpu *cpu, const uint64_t *args)
{
    struct sbi_result low = pmu_fw_read(cpu, args);
    return result(low.error, 0); /* counters have XLEN = 64 bits */
}
