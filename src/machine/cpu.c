#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>

#include "jit/jit.h"
#include "machine/internal.h"

/* Reports a machine that cannot go on, with what a kernel developer looks at first. */
static void report_state(const struct hart *hart)
{
    static const char *const privileges[] = {"U", "S", "?", "M"};
    log_info("hart %u: pc %016llx mode %s satp %016llx stvec %016llx sepc %016llx scause %llx "
             "stval %016llx",
             hart->id, (unsigned long long)hart->pc, privileges[hart->privilege & 3],
             (unsigned long long)hart->satp, (unsigned long long)hart->stvec,
             (unsigned long long)hart->sepc, (unsigned long long)hart->scause,
             (unsigned long long)hart->stval);
    for (unsigned i = 1; i < 32; i += 4) {
        char line[160];
        int length = 0;
        for (unsigned j = i; j < i + 4 && j < 32; j++)
            length += snprintf(line + length, sizeof(line) - length, "%5s %016llx",
                               isa_register_name(j), (unsigned long long)hart->x[j]);
        log_info("  %s", line);
    }
}

void cpu_distress(struct cpu *cpu, enum machine_distress distress)
{
    struct machine *machine = cpu->machine;
    if (machine->distress)
        machine->distress(machine->distress_opaque, cpu->hart, distress);
}

static void cpu_sample(void *opaque, struct hart *hart)
{
    struct machine *machine = ((struct cpu *)opaque)->machine;
    machine->sample(machine->sample_opaque, hart);
}

enum machine_sample machine_sample(struct machine *machine, unsigned index)
{
    const struct cpu *cpu = &machine->cpus[index];
    if (machine->state != MACHINE_RUNNING || cpu->hsm == HSM_STOPPED)
        return MACHINE_SAMPLE_STOPPED;
    return hart_request_sample(cpu->hart) ? MACHINE_SAMPLE_ASKED : MACHINE_SAMPLE_WAITING;
}

/* A trap that no handler can take. A kernel that needs M-mode meets it at its first M-mode CSR. */
static void cpu_lost(void *opaque, struct hart *hart, uint64_t cause, uint64_t tval)
{
    struct cpu *cpu = opaque;
    struct machine *machine = cpu->machine;
    if (debug_lost(cpu, cause))
        return;
    uint32_t bits = tval;
    bool csr = cause == TRAP_ILLEGAL && (bits & 0x7f) == 0x73 && (bits >> 12 & 3);
    unsigned number = bits >> 20;
    log_error("hart %u: exception %llu (tval %#llx) at pc %#llx, and no trap handler is installed",
              hart->id, (unsigned long long)cause, (unsigned long long)tval,
              (unsigned long long)hart->pc);
    report_state(hart);
    if (machine->builtin_sbi && csr && (number >> 8 & 3) == PRIVILEGE_MACHINE) {
        const char *name = hart_csr_name(number);
        log_error("'%s' uses the M-mode CSR %s, but --kernel enters S-mode: boot it with "
                  "--firmware %s",
                  machine->config.kernel, name ? name : "0xf..", machine->config.kernel);
    }
    cpu_distress(cpu, MACHINE_LOST);
    machine_request(machine, REQUEST_END | REQUEST_BY_GUEST, MACHINE_STATUS_FAILURE);
}

/* The built-in SBI delegates what a kernel can handle; what is left has no M-mode to go to. */
static void cpu_unhandled(void *opaque, struct hart *hart, uint64_t cause, uint64_t tval)
{
    struct cpu *cpu = opaque;
    if (debug_lost(cpu, cause))
        return;
    log_error("hart %u: %s %llu (tval %#llx) at pc %#llx goes to M-mode, and the built-in SBI has "
              "no handler for it",
              hart->id, cause >> 63 ? "interrupt" : "exception",
              (unsigned long long)(cause & INT64_MAX), (unsigned long long)tval,
              (unsigned long long)hart->pc);
    report_state(hart);
    cpu_distress(cpu, MACHINE_LOST);
    machine_request(cpu->machine, REQUEST_END | REQUEST_BY_GUEST, MACHINE_STATUS_FAILURE);
}

static bool cpu_semihosting(void *opaque, struct hart *hart)
{
    struct cpu *cpu = opaque;
    return semihosting_handle(cpu->machine->semihosting, hart);
}

/* The hart of this thread: it must not wait for itself when its own store changes the map. */
static _Thread_local struct hart *current_hart;

static void remapped(void *opaque, uint64_t gpa, uint64_t size)
{
    struct machine *machine = opaque;
    struct hart *harts[MACHINE_MAX_CPUS];
    for (unsigned i = 0; i < machine->cpu_count; i++)
        harts[i] = machine->cpus[i].hart;
    hart_remapped(current_hart, harts, machine->cpu_count);
}

static void code_written(void *opaque, uint64_t gpa, uint64_t size)
{
    struct machine *machine = opaque;
    if (machine->jit)
        jit_code_written(machine->jit, gpa, size);
}

static void cpu_execute(struct cpu *cpu)
{
    if (!debug_execute(cpu))
        return;
    if (cpu->jit)
        jit_run(cpu->jit);
    else
        hart_interpret(cpu->hart);
}

void cpu_step(struct cpu *cpu, unsigned flags)
{
    current_hart = cpu->hart;
    hart_debug_step(cpu->hart, flags);
    current_hart = NULL;
}

static void *cpu_thread(void *opaque)
{
    struct cpu *cpu = opaque;
    struct machine *machine = cpu->machine;
    current_hart = cpu->hart;
    pthread_mutex_lock(&machine->lock);
    while (!machine->ending) {
        if (machine->running && cpu->hsm == HSM_START_PENDING) {
            sbi_enter(cpu->hart, cpu->start_pc, cpu->start_opaque);
            cpu->hsm = HSM_STARTED;
            debug_started(cpu);
        }
        if (machine->running && cpu->hsm == HSM_STOP_PENDING)
            cpu->hsm = HSM_STOPPED;
        if (machine->running && !cpu->held && cpu->hsm != HSM_STOPPED) {
            cpu->parked = false; /* the first time round it was never waiting */
            /* Whoever asked it to stop while it stood still has changed his mind since. */
            atomic_fetch_and(&cpu->hart->attention, ~(uint32_t)ATTENTION_STOP);
            pthread_mutex_unlock(&machine->lock);
            cpu_execute(cpu);
            pthread_mutex_lock(&machine->lock);
            debug_stopped(cpu);
            continue;
        }
        cpu->parked = true;
        pthread_cond_broadcast(&machine->changed);
        pthread_cond_wait(&machine->changed, &machine->lock);
        cpu->parked = false;
    }
    cpu->parked = true;
    pthread_cond_broadcast(&machine->changed);
    pthread_mutex_unlock(&machine->lock);
    return NULL;
}

/* SBI set_timer on a hart that has no stimecmp. */
static void sbi_timer_fired(void *opaque)
{
    struct cpu *cpu = opaque;
    hart_set_interrupt(cpu->hart, INTERRUPT_STI, true);
}

bool cpu_create_all(struct machine *machine, struct error *err)
{
    machine->semihosting = semihosting_create(machine, machine->config.semihosting);
    if (machine->config.engine == MACHINE_ENGINE_JIT) {
        machine->jit = jit_create(err);
        if (!machine->jit || (machine->config.perf_map && !jit_write_perf_map(machine->jit, err)))
            return false;
    }
    for (unsigned i = 0; i < machine->config.cpus; i++) {
        struct cpu *cpu = &machine->cpus[i];
        *cpu = (struct cpu){.machine = machine, .index = i, .parked = true};
        struct hart_config config = {
            .id = i,
            .extensions = machine->extensions,
            .memory = machine->memory,
            .clock = &machine->clock,
            .loop = machine->loop,
            .hooks =
                {
                    .opaque = cpu,
                    .sbi = machine->builtin_sbi ? sbi_handle : NULL,
                    .unhandled = machine->builtin_sbi ? cpu_unhandled : NULL,
                    .lost = machine->builtin_sbi ? cpu_lost : NULL,
                    .semihosting = cpu_semihosting,
                    .sample = cpu_sample,
                },
        };
        cpu->hart = hart_create(&config);
        cpu->sbi_timer = loop_add_timer(machine->loop, sbi_timer_fired, cpu);
        cpu->pmu = pmu_create(cpu->hart);
        machine->cpu_count = i + 1;
        if (machine->jit)
            cpu->jit = jit_attach(machine->jit, cpu->hart);
    }
    struct memory_listener listener = {
        .remapped = remapped, .code_written = code_written, .opaque = machine};
    memory_set_listener(machine->memory, &listener);
    return true;
}

void cpu_destroy_all(struct machine *machine)
{
    pthread_mutex_lock(&machine->lock);
    machine->ending = true;
    machine->running = false;
    pthread_cond_broadcast(&machine->changed);
    pthread_mutex_unlock(&machine->lock);
    for (unsigned i = 0; i < machine->cpu_count; i++) {
        struct cpu *cpu = &machine->cpus[i];
        if (cpu->thread_started) {
            hart_request(cpu->hart, ATTENTION_STOP);
            pthread_join(cpu->thread, NULL);
        }
    }
    for (unsigned i = 0; i < machine->cpu_count; i++) {
        struct cpu *cpu = &machine->cpus[i];
        loop_remove_timer(cpu->sbi_timer);
        pmu_destroy(cpu->pmu);
        jit_detach(cpu->jit);
        hart_destroy(cpu->hart);
    }
    machine->cpu_count = 0;
    jit_destroy(machine->jit);
    machine->jit = NULL;
    semihosting_destroy(machine->semihosting);
    machine->semihosting = NULL;
}

void cpu_reset_all(struct machine *machine)
{
    semihosting_reset(machine->semihosting);
    for (unsigned i = 0; i < machine->cpu_count; i++) {
        struct cpu *cpu = &machine->cpus[i];
        loop_set_timer(cpu->sbi_timer, UINT64_MAX);
        pmu_reset(cpu->pmu);
        hart_reset(cpu->hart, BOARD_RESET_VECTOR);
        cpu->hsm = HSM_STARTED;
        cpu->pass = cpu->told = cpu->range = false;
        if (machine->builtin_sbi && i > 0)
            cpu->hsm = HSM_STOPPED;
        else if (machine->builtin_sbi)
            sbi_enter(cpu->hart, machine->entry, machine->device_tree_gpa);
    }
}

bool cpu_start_threads(struct machine *machine, struct error *err)
{
    for (unsigned i = 0; i < machine->cpu_count; i++) {
        struct cpu *cpu = &machine->cpus[i];
        if (cpu->thread_started)
            continue;
        int number = pthread_create(&cpu->thread, NULL, cpu_thread, cpu);
        if (number)
            return error_set_errno(err, number,
                                   "cannot start the thread of hart %u: use fewer --cpus", i);
        cpu->thread_started = true;
        char name[16];
        snprintf(name, sizeof(name), "hart%u", i);
        pthread_setname_np(cpu->thread, name);
    }
    return true;
}

void cpu_update_clock(struct machine *machine)
{
    if (machine->state != MACHINE_RUNNING || machine->debug_frozen) {
        clock_freeze(&machine->clock);
        return;
    }
    clock_thaw(&machine->clock);
    aclint_update(machine->aclint);
    for (unsigned i = 0; i < machine->cpu_count; i++)
        hart_clock_changed(machine->cpus[i].hart);
}

void cpu_resume_all(struct machine *machine)
{
    cpu_update_clock(machine);
    pthread_mutex_lock(&machine->lock);
    machine->running = true;
    pthread_cond_broadcast(&machine->changed);
    pthread_mutex_unlock(&machine->lock);
}

void cpu_pause_all(struct machine *machine)
{
    pthread_mutex_lock(&machine->lock);
    machine->running = false;
    pthread_mutex_unlock(&machine->lock);
    for (unsigned i = 0; i < machine->cpu_count; i++)
        hart_request(machine->cpus[i].hart, ATTENTION_STOP);

    pthread_mutex_lock(&machine->lock);
    for (unsigned i = 0; i < machine->cpu_count; i++)
        while (machine->cpus[i].thread_started && !machine->cpus[i].parked)
            pthread_cond_wait(&machine->changed, &machine->lock);
    pthread_mutex_unlock(&machine->lock);
    clock_freeze(&machine->clock);
}

void cpu_state(struct cpu *cpu, struct stream *stream)
{
    uint8_t hsm = cpu->hsm;
    stream_u8(stream, &hsm);
    if (hsm > HSM_SUSPENDED)
        stream_fail(stream, "hart %u: no such HSM state: %u", cpu->index, hsm);
    else
        cpu->hsm = hsm;
    stream_u64(stream, &cpu->start_pc);
    stream_u64(stream, &cpu->start_opaque);
    pmu_state(cpu->pmu, stream);
    hart_state(cpu->hart, stream);
}
