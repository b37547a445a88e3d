/*
 * The built-in SBI: RISC-V Supervisor Binary Interface 2.0, and the Firmware Features extension
 * (FWFT) of 3.0. One table lists every function; handlers run on the calling hart's thread.
 */
#include <stdatomic.h>

#include "machine/internal.h"

#define SBI_SPEC_VERSION (2 << 24)
#define SBI_IMPL_ID      0x48415254 /* not in the list of registered implementations */
#define SBI_IMPL_VERSION 0x100

enum {
    EXT_BASE = 0x10,
    EXT_TIME = 0x54494d45,
    EXT_IPI = 0x735049,
    EXT_RFENCE = 0x52464e43,
    EXT_HSM = 0x48534d,
    EXT_SRST = 0x53525354,
    EXT_PMU = 0x504d55,
    EXT_DBCN = 0x4442434e,
    EXT_FWFT = 0x46574654,
};

/* CSR numbers used below. */
enum {
    CSR_STIMECMP = 0x14d,
    CSR_SATP = 0x180,
    CSR_MSTATUS = 0x300,
    CSR_MEDELEG = 0x302,
    CSR_MIDELEG = 0x303,
    CSR_MCOUNTEREN = 0x306,
    CSR_MENVCFG = 0x30a,
    CSR_MSTATEEN0 = 0x30c,
    CSR_PMPCFG0 = 0x3a0,
    CSR_PMPADDR0 = 0x3b0,
    CSR_MVENDORID = 0xf11,
    CSR_MARCHID = 0xf12,
    CSR_MIMPID = 0xf13,
};

#define MENVCFG_CBIE_INVALIDATE (UINT64_C(3) << 4)
#define MENVCFG_CBCFE           BIT(6)
#define MENVCFG_CBZE            BIT(7)
#define MENVCFG_ADUE            BIT(61)
#define MENVCFG_PBMTE           BIT(62)
#define MENVCFG_STCE            BIT(63)

static struct sbi_result result(enum sbi_error error, uint64_t value)
{
    return (struct sbi_result){error, value};
}

static struct sbi_result done(void)
{
    return result(SBI_SUCCESS, 0);
}

/* --- Hart masks (section 3.1) ------------------------------------------------------------------
 */

/* The harts of a mask and its base as a bit set. False if one does not exist. */
static bool select_harts(const struct machine *machine, uint64_t mask, uint64_t base, uint64_t *set)
{
    uint64_t all = ~UINT64_C(0) >> (64 - machine->cpu_count);
    if (base == UINT64_MAX) {
        *set = all;
        return true;
    }
    if (base >= machine->cpu_count)
        return mask == 0 && (*set = 0, true);
    *set = mask << base;
    return *set >> base == mask && !(*set & ~all);
}

/* --- Base (chapter 4) --------------------------------------------------------------------------
 */

static struct sbi_result base_spec_version(struct cpu *cpu, const uint64_t *args)
{
    return result(SBI_SUCCESS, SBI_SPEC_VERSION);
}

static struct sbi_result base_impl_id(struct cpu *cpu, const uint64_t *args)
{
    return result(SBI_SUCCESS, SBI_IMPL_ID);
}

static struct sbi_result base_impl_version(struct cpu *cpu, const uint64_t *args)
{
    return result(SBI_SUCCESS, SBI_IMPL_VERSION);
}

static struct sbi_result base_probe(struct cpu *cpu, const uint64_t *args);

static struct sbi_result read_id(struct cpu *cpu, unsigned csr)
{
    uint64_t value = 0;
    hart_csr_read(cpu->hart, csr, &value);
    return result(SBI_SUCCESS, value);
}

static struct sbi_result base_mvendorid(struct cpu *cpu, const uint64_t *args)
{
    return read_id(cpu, CSR_MVENDORID);
}

static struct sbi_result base_marchid(struct cpu *cpu, const uint64_t *args)
{
    return read_id(cpu, CSR_MARCHID);
}

static struct sbi_result base_mimpid(struct cpu *cpu, const uint64_t *args)
{
    return read_id(cpu, CSR_MIMPID);
}

/* --- Timer, IPI, remote fences (chapters 6 to 8) ------------------------------------------------
 */

static struct sbi_result set_timer(struct cpu *cpu, const uint64_t *args)
{
    struct machine *machine = cpu->machine;
    pmu_count(cpu->pmu, PMU_FW_SET_TIMER);
    if (hart_csr_write(cpu->hart, CSR_STIMECMP, args[0]))
        return done();
    bool due = clock_ticks(&machine->clock) >= args[0];
    /* Set last: a near deadline may pass, and raise the interrupt, before this returns. */
    loop_set_timer(cpu->sbi_timer, UINT64_MAX);
    hart_set_interrupt(cpu->hart, INTERRUPT_STI, due);
    if (!due)
        loop_set_timer(cpu->sbi_timer, clock_deadline(&machine->clock, args[0]));
    return done();
}

static struct sbi_result send_ipi(struct cpu *cpu, const uint64_t *args)
{
    uint64_t set;
    if (!select_harts(cpu->machine, args[0], args[1], &set))
        return result(SBI_ERR_INVALID_PARAM, 0);
    pmu_count(cpu->pmu, PMU_FW_IPI_SENT);
    for (; set; set &= set - 1)
        hart_set_interrupt(cpu->machine->cpus[__builtin_ctzll(set)].hart, INTERRUPT_SSI, true);
    return done();
}

static struct sbi_result remote_fence(struct cpu *cpu, uint64_t mask, uint64_t base,
                                      const struct hart_fence *fence)
{
    struct hart *targets[MACHINE_MAX_CPUS];
    unsigned count = 0;
    uint64_t set;
    if (!select_harts(cpu->machine, mask, base, &set))
        return result(SBI_ERR_INVALID_PARAM, 0);
    for (; set; set &= set - 1) {
        struct hart *target = cpu->machine->cpus[__builtin_ctzll(set)].hart;
        if (target != cpu->hart)
            targets[count++] = target;
        else if (fence->kind == HART_FENCE_I)
            hart_fence_i(target);
        else
            hart_sfence(target, fence->va, fence->size, fence->asid);
    }
    hart_fence_remote(cpu->hart, targets, count, fence);
    return done();
}

static struct sbi_result remote_fence_i(struct cpu *cpu, const uint64_t *args)
{
    pmu_count(cpu->pmu, PMU_FW_FENCE_I_SENT);
    return remote_fence(cpu, args[0], args[1], &(struct hart_fence){.kind = HART_FENCE_I});
}

static struct sbi_result remote_sfence(struct cpu *cpu, const uint64_t *args, uint64_t asid)
{
    uint64_t start = args[2], size = args[3];
    if ((start == 0 && size == 0) || size == UINT64_MAX) {
        start = 0;
        size = UINT64_MAX;
    }
    struct hart_fence fence = {.kind = HART_FENCE_VMA, .va = start, .size = size, .asid = asid};
    return remote_fence(cpu, args[0], args[1], &fence);
}

static struct sbi_result remote_sfence_vma(struct cpu *cpu, const uint64_t *args)
{
    pmu_count(cpu->pmu, PMU_FW_SFENCE_VMA_SENT);
    return remote_sfence(cpu, args, UINT64_MAX);
}

static struct sbi_result remote_sfence_vma_asid(struct cpu *cpu, const uint64_t *args)
{
    pmu_count(cpu->pmu, PMU_FW_SFENCE_VMA_ASID_SENT);
    return remote_sfence(cpu, args, args[4] & 0xffff);
}

/* --- Hart state management (chapter 9) ----------------------------------------------------------
 */

static bool is_executable_ram(struct machine *machine, uint64_t gpa)
{
    uint8_t *host;
    enum memory_kind kind = memory_page(machine->memory, gpa & ~UINT64_C(4095), &host);
    return (kind == MEMORY_RAM || kind == MEMORY_ROM) && !(gpa & 1);
}

static struct sbi_result hsm_start(struct cpu *cpu, const uint64_t *args)
{
    struct machine *machine = cpu->machine;
    if (args[0] >= machine->cpu_count)
        return result(SBI_ERR_INVALID_PARAM, 0);
    if (!is_executable_ram(machine, args[1]))
        return result(SBI_ERR_INVALID_ADDRESS, 0);
    struct cpu *target = &machine->cpus[args[0]];
    pthread_mutex_lock(&machine->lock);
    bool stopped = target->hsm == HSM_STOPPED;
    if (stopped) {
        target->start_pc = args[1];
        target->start_opaque = args[2];
        target->hsm = HSM_START_PENDING;
        target->parked = false; /* its thread is about to change its state, held or not */
        pthread_cond_broadcast(&machine->changed);
    }
    pthread_mutex_unlock(&machine->lock);
    return result(stopped ? SBI_SUCCESS : SBI_ERR_ALREADY_AVAILABLE, 0);
}

static struct sbi_result hsm_stop(struct cpu *cpu, const uint64_t *args)
{
    cpu->hsm = HSM_STOP_PENDING;
    hart_request(cpu->hart, ATTENTION_STOP);
    return done();
}

static struct sbi_result hsm_get_status(struct cpu *cpu, const uint64_t *args)
{
    if (args[0] >= cpu->machine->cpu_count)
        return result(SBI_ERR_INVALID_PARAM, 0);
    return result(SBI_SUCCESS, cpu->machine->cpus[args[0]].hsm);
}

#define HSM_SUSPEND_RETENTIVE     0
#define HSM_SUSPEND_NON_RETENTIVE UINT32_C(0x80000000)

static struct sbi_result hsm_suspend(struct cpu *cpu, const uint64_t *args)
{
    uint32_t type = args[0];
    if (type != HSM_SUSPEND_RETENTIVE && type != HSM_SUSPEND_NON_RETENTIVE)
        return result(SBI_ERR_INVALID_PARAM, 0);
    if (type == HSM_SUSPEND_NON_RETENTIVE && !is_executable_ram(cpu->machine, args[1]))
        return result(SBI_ERR_INVALID_ADDRESS, 0);
    cpu->hsm = HSM_SUSPENDED;
    hart_wait(cpu->hart);
    cpu->hsm = HSM_STARTED;
    if (type == HSM_SUSPEND_NON_RETENTIVE)
        sbi_enter(cpu->hart, args[1], args[2]);
    return done();
}

/* --- System reset (chapter 10) ------------------------------------------------------------------
 */

static struct sbi_result system_reset(struct cpu *cpu, const uint64_t *args)
{
    uint32_t type = args[0], reason = args[1];
    if (type > 2 || reason > 1)
        return result(SBI_ERR_INVALID_PARAM, 0);
    cpu_distress(cpu, reason ? MACHINE_FAILED : MACHINE_LEAVES);
    machine_request(cpu->machine, (type == 0 ? REQUEST_END : REQUEST_RESET) | REQUEST_BY_GUEST,
                    reason == 0 ? 0 : 1);
    return done();
}

/* --- Debug console (chapter 12) -----------------------------------------------------------------
 */

#define CONSOLE_CHUNK 4096 /* bytes moved by one call; the caller calls again for the rest */

static uint64_t min_size(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static size_t console_write(struct machine *machine, const void *bytes, size_t size)
{
    return machine->serial ? chardev_force(machine->serial, bytes, size) : size;
}

static struct sbi_result dbcn_write(struct cpu *cpu, const uint64_t *args)
{
    uint8_t chunk[CONSOLE_CHUNK];
    size_t size = min_size(args[0], sizeof(chunk));
    if (args[2] || !memory_dma_read(cpu->machine->memory, args[1], chunk, size))
        return result(SBI_ERR_INVALID_PARAM, 0);
    return result(SBI_SUCCESS, console_write(cpu->machine, chunk, size));
}

static struct sbi_result dbcn_read(struct cpu *cpu, const uint64_t *args)
{
    uint8_t chunk[CONSOLE_CHUNK];
    size_t size = min_size(args[0], sizeof(chunk));
    if (args[2] || !memory_dma_read(cpu->machine->memory, args[1], chunk, size))
        return result(SBI_ERR_INVALID_PARAM, 0);
    size = uart_take_input(cpu->machine->uart, chunk, size);
    memory_dma_write(cpu->machine->memory, args[1], chunk, size);
    return result(SBI_SUCCESS, size);
}

static struct sbi_result dbcn_write_byte(struct cpu *cpu, const uint64_t *args)
{
    uint8_t byte = args[0];
    console_write(cpu->machine, &byte, 1);
    return done();
}

/* --- Firmware features (SBI 3.0, chapter 18) ----------------------------------------------------
 */

#define FWFT_MISALIGNED_EXC_DELEG 0
#define FWFT_PTE_AD_HW_UPDATING   4
#define FWFT_LOCAL_RESERVED       0x40000000
#define FWFT_FLAG_LOCK            1
#define MEDELEG_MISALIGNED        (BIT(TRAP_LOAD_MISALIGNED) | BIT(TRAP_STORE_MISALIGNED))

/* Each feature is a set of bits of one M-mode CSR. */
static const struct fwft_feature {
    uint32_t id;
    uint16_t csr;
    uint64_t bits;
} fwft_features[] = {
    {FWFT_MISALIGNED_EXC_DELEG, CSR_MEDELEG, MEDELEG_MISALIGNED},
    {FWFT_PTE_AD_HW_UPDATING, CSR_MENVCFG, MENVCFG_ADUE},
};

static const struct fwft_feature *fwft_find(const struct cpu *cpu, uint32_t id)
{
    for (size_t i = 0; i < ARRAY_SIZE(fwft_features); i++)
        if (fwft_features[i].id == id)
            return id != FWFT_PTE_AD_HW_UPDATING ||
                           isa_extensions_test(&cpu->hart->extensions, ISA_EXT_SVADU)
                       ? &fwft_features[i]
                       : NULL;
    return NULL;
}

static enum sbi_error fwft_missing(uint32_t id)
{
    /* Features that the specification defines are not supported; all others are reserved. */
    return id <= 5 || id >= 0x80000000 ? SBI_ERR_NOT_SUPPORTED : SBI_ERR_DENIED;
}

static struct sbi_result fwft_set(struct cpu *cpu, const uint64_t *args)
{
    uint32_t id = args[0];
    const struct fwft_feature *feature = fwft_find(cpu, id);
    if (!feature)
        return result(fwft_missing(id), 0);
    if (args[1] > 1 || args[2] & ~(uint64_t)FWFT_FLAG_LOCK)
        return result(SBI_ERR_INVALID_PARAM, 0);
    unsigned index = feature - fwft_features;
    if (cpu->fwft_locked & BIT(index))
        return result(SBI_ERR_DENIED_LOCKED, 0);
    uint64_t value;
    hart_csr_read(cpu->hart, feature->csr, &value);
    hart_csr_write(cpu->hart, feature->csr,
                   args[1] ? value | feature->bits : value & ~feature->bits);
    if (args[2] & FWFT_FLAG_LOCK)
        cpu->fwft_locked |= BIT(index);
    return done();
}

static struct sbi_result fwft_get(struct cpu *cpu, const uint64_t *args)
{
    uint32_t id = args[0];
    const struct fwft_feature *feature = fwft_find(cpu, id);
    if (!feature)
        return result(fwft_missing(id), 0);
    uint64_t value;
    hart_csr_read(cpu->hart, feature->csr, &value);
    return result(SBI_SUCCESS, (value & feature->bits) == feature->bits);
}

/* --- Legacy extensions (chapter 5): one function each, no error value ---------------------------
 */

static struct sbi_result legacy_putchar(struct cpu *cpu, const uint64_t *args)
{
    dbcn_write_byte(cpu, args);
    return done();
}

static struct sbi_result legacy_getchar(struct cpu *cpu, const uint64_t *args)
{
    uint8_t byte;
    bool got = uart_take_input(cpu->machine->uart, &byte, 1) == 1;
    return (struct sbi_result){.error = got ? byte : -1};
}

static struct sbi_result legacy_clear_ipi(struct cpu *cpu, const uint64_t *args)
{
    hart_set_interrupt(cpu->hart, INTERRUPT_SSI, false);
    return done();
}

/* Legacy calls pass the virtual address of a mask; 0 means every hart. */
static bool legacy_mask(struct cpu *cpu, uint64_t va, uint64_t *args)
{
    args[0] = 0;
    args[1] = va ? 0 : UINT64_MAX;
    return !va || hart_memory_read(cpu->hart, va, args, sizeof(*args), PRIVILEGE_SUPERVISOR);
}

static struct sbi_result legacy_send_ipi(struct cpu *cpu, const uint64_t *args)
{
    uint64_t mask[2];
    return legacy_mask(cpu, args[0], mask) ? send_ipi(cpu, mask) : result(SBI_ERR_FAILED, 0);
}

static struct sbi_result legacy_fence_i(struct cpu *cpu, const uint64_t *args)
{
    uint64_t mask[2];
    return legacy_mask(cpu, args[0], mask) ? remote_fence_i(cpu, mask) : result(SBI_ERR_FAILED, 0);
}

static struct sbi_result legacy_sfence_vma(struct cpu *cpu, const uint64_t *args)
{
    uint64_t full[4] = {0, 0, args[1], args[2]};
    return legacy_mask(cpu, args[0], full) ? remote_sfence_vma(cpu, full)
                                           : result(SBI_ERR_FAILED, 0);
}

static struct sbi_result legacy_sfence_vma_asid(struct cpu *cpu, const uint64_t *args)
{
    uint64_t full[5] = {0, 0, args[1], args[2], args[3]};
    return legacy_mask(cpu, args[0], full) ? remote_sfence_vma_asid(cpu, full)
                                           : result(SBI_ERR_FAILED, 0);
}

static struct sbi_result legacy_shutdown(struct cpu *cpu, const uint64_t *args)
{
    machine_request(cpu->machine, REQUEST_END | REQUEST_BY_GUEST, 0);
    return done();
}

/* --- The table ----------------------------------------------------------------------------------
 */

static const struct sbi_function {
    uint64_t extension, function;
    const char *name;
    struct sbi_result (*handle)(struct cpu *cpu, const uint64_t *args);
    bool legacy; /* the function number is not looked at, and a1 is preserved */
} functions[] = {
    {EXT_BASE, 0, "get_spec_version", base_spec_version},
    {EXT_BASE, 1, "get_impl_id", base_impl_id},
    {EXT_BASE, 2, "get_impl_version", base_impl_version},
    {EXT_BASE, 3, "probe_extension", base_probe},
    {EXT_BASE, 4, "get_mvendorid", base_mvendorid},
    {EXT_BASE, 5, "get_marchid", base_marchid},
    {EXT_BASE, 6, "get_mimpid", base_mimpid},
    {EXT_TIME, 0, "set_timer", set_timer},
    {EXT_IPI, 0, "send_ipi", send_ipi},
    {EXT_RFENCE, 0, "remote_fence_i", remote_fence_i},
    {EXT_RFENCE, 1, "remote_sfence_vma", remote_sfence_vma},
    {EXT_RFENCE, 2, "remote_sfence_vma_asid", remote_sfence_vma_asid},
    {EXT_HSM, 0, "hart_start", hsm_start},
    {EXT_HSM, 1, "hart_stop", hsm_stop},
    {EXT_HSM, 2, "hart_get_status", hsm_get_status},
    {EXT_HSM, 3, "hart_suspend", hsm_suspend},
    {EXT_SRST, 0, "system_reset", system_reset},
    {EXT_PMU, 0, "num_counters", pmu_num_counters},
    {EXT_PMU, 1, "counter_get_info", pmu_counter_get_info},
    {EXT_PMU, 2, "counter_config_matching", pmu_config_matching},
    {EXT_PMU, 3, "counter_start", pmu_start},
    {EXT_PMU, 4, "counter_stop", pmu_stop},
    {EXT_PMU, 5, "counter_fw_read", pmu_fw_read},
    {EXT_PMU, 6, "counter_fw_read_hi", pmu_fw_read_hi},
    {EXT_DBCN, 0, "console_write", dbcn_write},
    {EXT_DBCN, 1, "console_read", dbcn_read},
    {EXT_DBCN, 2, "console_write_byte", dbcn_write_byte},
    {EXT_FWFT, 0, "fwft_set", fwft_set},
    {EXT_FWFT, 1, "fwft_get", fwft_get},
    {0, 0, "legacy set_timer", set_timer, true},
    {1, 0, "legacy console_putchar", legacy_putchar, true},
    {2, 0, "legacy console_getchar", legacy_getchar, true},
    {3, 0, "legacy clear_ipi", legacy_clear_ipi, true},
    {4, 0, "legacy send_ipi", legacy_send_ipi, true},
    {5, 0, "legacy remote_fence_i", legacy_fence_i, true},
    {6, 0, "legacy remote_sfence_vma", legacy_sfence_vma, true},
    {7, 0, "legacy remote_sfence_vma_asid", legacy_sfence_vma_asid, true},
    {8, 0, "legacy shutdown", legacy_shutdown, true},
};

static const struct sbi_function *find(uint64_t extension, uint64_t function)
{
    for (size_t i = 0; i < ARRAY_SIZE(functions); i++)
        if (functions[i].extension == extension &&
            (functions[i].function == function || functions[i].legacy))
            return &functions[i];
    return NULL;
}

static struct sbi_result base_probe(struct cpu *cpu, const uint64_t *args)
{
    for (size_t i = 0; i < ARRAY_SIZE(functions); i++)
        if (functions[i].extension == args[0])
            return result(SBI_SUCCESS, 1);
    return done();
}

void sbi_handle(void *opaque, struct hart *hart)
{
    struct cpu *cpu = opaque;
    uint64_t args[8];
    memcpy(args, &hart->x[10], sizeof(args));
    const struct sbi_function *f = find(args[7], args[6]);
    struct sbi_result r = f ? f->handle(cpu, args) : result(SBI_ERR_NOT_SUPPORTED, 0);

    if (trace_on(TRACE_SBI))
        trace_write(TRACE_SBI, "hart %u: %s (%#llx, %llu) %#llx %#llx %#llx %#llx -> %lld %#llx",
                    hart->id, f ? f->name : "unknown", (unsigned long long)args[7],
                    (unsigned long long)args[6], (unsigned long long)args[0],
                    (unsigned long long)args[1], (unsigned long long)args[2],
                    (unsigned long long)args[3], (long long)r.error, (unsigned long long)r.value);

    /* A hart that comes back at another address (suspend) has its registers set already. */
    bool resumed = f && f->handle == hsm_suspend && r.error == 0 &&
                   (uint32_t)args[0] == HSM_SUSPEND_NON_RETENTIVE;
    if (resumed)
        return;
    hart->x[10] = r.error;
    if (!(f && f->legacy))
        hart->x[11] = r.value;
}

/* --- Hand-over to S-mode ------------------------------------------------------------------------
 */

void sbi_enter(struct hart *hart, uint64_t pc, uint64_t opaque)
{
    /* What a kernel can handle goes to it; ecalls from S-mode come here through the hook. */
    const uint64_t exceptions = BIT(TRAP_FETCH_MISALIGNED) | BIT(TRAP_FETCH_ACCESS) |
                                BIT(TRAP_ILLEGAL) | BIT(TRAP_BREAKPOINT) | BIT(TRAP_LOAD_ACCESS) |
                                BIT(TRAP_STORE_ACCESS) | MEDELEG_MISALIGNED | BIT(TRAP_ECALL_U) |
                                BIT(TRAP_FETCH_PAGE) | BIT(TRAP_LOAD_PAGE) | BIT(TRAP_STORE_PAGE);
    const uint64_t interrupts =
        BIT(INTERRUPT_SSI) | BIT(INTERRUPT_STI) | BIT(INTERRUPT_SEI) | BIT(INTERRUPT_LCOFI);
    const uint64_t environment =
        MENVCFG_CBIE_INVALIDATE | MENVCFG_CBCFE | MENVCFG_CBZE | MENVCFG_PBMTE | MENVCFG_STCE;
    const struct {
        uint16_t csr;
        uint64_t value;
    } values[] = {
        {CSR_MEDELEG, exceptions},  {CSR_MIDELEG, interrupts},   {CSR_MCOUNTEREN, UINT32_MAX},
        {CSR_MENVCFG, environment}, {CSR_MSTATEEN0, UINT64_MAX}, {CSR_PMPADDR0, UINT64_MAX},
        {CSR_PMPCFG0, 0x1f}, /* NAPOT over everything: S- and U-mode may do all */
    };

    bool adue_only = isa_extensions_test(&hart->extensions, ISA_EXT_SVADU) &&
                     !isa_extensions_test(&hart->extensions, ISA_EXT_SVADE);
    hart_reset(hart, pc);
    for (size_t i = 0; i < ARRAY_SIZE(values); i++)
        hart_csr_write(hart, values[i].csr, values[i].value); /* absent ones: nothing to allow */
    /* With Svade as well, the kernel turns hardware updating on by FWFT; alone it is always on. */
    if (adue_only)
        hart_csr_write(hart, CSR_MENVCFG, environment | MENVCFG_ADUE);
    if (!hart_csr_write(hart, CSR_STIMECMP, UINT64_MAX))
        hart_set_interrupt(hart, INTERRUPT_STI, false);
    hart_set_privilege(hart, PRIVILEGE_SUPERVISOR);
    hart->x[10] = hart->id;
    hart->x[11] = opaque;
}
