/* What a debugger asks of the machine: machine/debug.h. */
#include "machine/debug.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "jit/jit.h"
#include "machine/board.h"
#include "machine/internal.h"

/* Changes while no hart executes; all_stop is under the machine's lock. */
struct machine_debug {
    struct machine_debug_hooks hooks;
    struct loop_task *task;
    bool all_stop, start;
    struct hart_points *points; /* NULL: none */
};

/* --- On hart threads --------------------------------------------------------------------------
 */

/* The next instruction is executed, whatever the hart stopped for. */
static void note_pass(struct cpu *cpu, enum hart_stop_reason reason)
{
    cpu->pass = true;
    cpu->pass_pc = cpu->hart->pc;
    cpu->pass_flags = reason == HART_STOP_WATCH ? HART_STEP_UNWATCHED : 0;
}

/* Under the lock: the hart stops, and with it, perhaps, all others. */
static void stop_here(struct cpu *cpu, const struct machine_stop *stop)
{
    struct machine *machine = cpu->machine;
    struct machine_debug *debug = machine->debug;
    cpu->held = cpu->told = true;
    cpu->stop = *stop;
    note_pass(cpu, stop->hart.reason);
    for (unsigned i = 0; i < machine->cpu_count && debug->all_stop; i++) {
        struct cpu *other = &machine->cpus[i];
        if (other->held)
            continue;
        other->held = true;
        hart_request(other->hart, ATTENTION_STOP);
    }
    loop_schedule(debug->task);
}

void debug_started(struct cpu *cpu)
{
    struct machine_debug *debug = cpu->machine->debug;
    if (debug && debug->start)
        stop_here(cpu, &(struct machine_stop){.started = true});
}

void debug_stopped(struct cpu *cpu)
{
    struct machine_stop stop = {.hart = hart_take_stop(cpu->hart)};
    bool left = cpu->range_done;
    cpu->range_done = false;
    if (cpu->machine->debug && (left || stop.hart.reason != HART_STOP_NONE)) {
        cpu->range = false;
        stop_here(cpu, &stop);
    }
}

static bool may_run(struct cpu *cpu)
{
    struct machine *machine = cpu->machine;
    pthread_mutex_lock(&machine->lock);
    bool may = machine->running && !cpu->held && cpu->hsm == HSM_STARTED;
    pthread_mutex_unlock(&machine->lock);
    return may;
}

static bool is_passing(const struct cpu *cpu)
{
    return cpu->pass && cpu->hart->points && cpu->hart->pc == cpu->pass_pc;
}

/* What a hart does step by step before it runs on: it leaves a range, passes what it stopped for,
 * and comes to the SC of a reservation, which running would give up. */
static bool is_stepping(const struct cpu *cpu, unsigned steps)
{
    enum { RESERVED_MOST = 64 }; /* a reservation that is held for longer is lost */
    return cpu->range || is_passing(cpu) ||
           (hart_holds_reservation(cpu->hart) && steps < RESERVED_MOST);
}

static unsigned step_flags(const struct cpu *cpu)
{
    if (is_passing(cpu))
        return cpu->pass_flags;
    return HART_STEP_BREAKS | (cpu->range ? cpu->range_flags : 0);
}

bool debug_execute(struct cpu *cpu)
{
    struct hart *hart = cpu->hart;
    for (unsigned steps = 0; cpu->resumed && is_stepping(cpu, steps); steps++) {
        hart_debug_step(hart, step_flags(cpu));
        bool may = may_run(cpu);
        /* If not, perhaps nothing was executed. */
        cpu->pass &= !may && hart->pc == cpu->pass_pc;
        cpu->range_done = cpu->range && hart->pc - cpu->range_start >= cpu->range_size;
        if (!may || hart_stopping(hart) || cpu->range_done)
            return false;
    }
    cpu->resumed = false;
    return true;
}

bool debug_lost(struct cpu *cpu, uint64_t cause)
{
    struct machine_debug *debug = cpu->machine->debug;
    if (debug)
        hart_stop(cpu->hart, &(struct hart_stop){.reason = HART_STOP_LOST, .cause = cause});
    return debug;
}

/* --- Holding all ------------------------------------------------------------------------------
 */

static void wait_parked(struct machine *machine, uint64_t mask)
{
    for (unsigned i = 0; i < machine->cpu_count; i++)
        while ((mask >> i & 1) && machine->cpus[i].thread_started && !machine->cpus[i].parked)
            pthread_cond_wait(&machine->changed, &machine->lock);
}

/* All harts stand still between these two, whether the machine runs or not. */
static bool interrupt_all(struct machine *machine)
{
    pthread_mutex_lock(&machine->lock);
    bool ran = machine->running;
    machine->running = false;
    for (unsigned i = 0; i < machine->cpu_count; i++)
        if (!machine->cpus[i].parked)
            hart_request(machine->cpus[i].hart, ATTENTION_STOP);
    wait_parked(machine, UINT64_MAX);
    pthread_mutex_unlock(&machine->lock);
    return ran;
}

static void go_on(struct machine *machine, bool ran)
{
    pthread_mutex_lock(&machine->lock);
    /* A request for a reset or the end stops harts as well, and is about to be served. */
    machine->running = ran && !atomic_load(&machine->requests);
    pthread_cond_broadcast(&machine->changed);
    pthread_mutex_unlock(&machine->lock);
}

/* --- Attaching --------------------------------------------------------------------------------
 */

static void tell(void *opaque)
{
    struct machine *machine = opaque;
    if (machine->debug)
        machine->debug->hooks.stopped(machine->debug->hooks.opaque);
}

static void set_debug(struct machine *machine, struct machine_debug *debug)
{
    bool ran = interrupt_all(machine);
    machine->debug = debug;
    for (unsigned i = 0; i < machine->cpu_count; i++) {
        struct cpu *cpu = &machine->cpus[i];
        hart_set_points(cpu->hart, NULL);
        hart_take_stop(cpu->hart);
        cpu->told = cpu->range = cpu->range_done = cpu->pass = false;
    }
    go_on(machine, ran);
}

bool machine_debug_attach(struct machine *machine, const struct machine_debug_hooks *hooks)
{
    if (machine->debug)
        return false;
    struct machine_debug *debug = xcalloc(1, sizeof(*debug));
    debug->hooks = *hooks;
    debug->task = loop_add_task(machine->loop, tell, machine);
    set_debug(machine, debug);
    return true;
}

void machine_debug_detach(struct machine *machine, uint64_t held)
{
    struct machine_debug *debug = machine->debug;
    if (!debug)
        return;
    set_debug(machine, NULL);
    if (!held)
        machine_debug_freeze(machine, false);
    machine_debug_release(machine, ~held);
    loop_remove_task(debug->task);
    free(debug->points);
    free(debug);
}

bool machine_debug_reset(struct machine *machine)
{
    machine_request(machine, REQUEST_RESET, 0);
    machine_serve_requests(machine);
    return machine->state != MACHINE_ENDED;
}

struct hart *machine_debug_hart(struct machine *machine, unsigned index)
{
    return machine->cpus[index].hart;
}

unsigned machine_debug_hart_count(const struct machine *machine)
{
    return machine->cpu_count;
}

bool machine_debug_started(const struct machine *machine, unsigned index)
{
    unsigned hsm = machine->cpus[index].hsm;
    return hsm == HSM_STARTED || hsm == HSM_SUSPENDED;
}

struct memory *machine_debug_memory(struct machine *machine)
{
    return machine->memory;
}

const char *machine_debug_device(const struct machine *machine, unsigned index, const char **type)
{
    if (index >= machine->device_count)
        return NULL;
    *type = machine->devices[index]->type->name;
    return machine->devices[index]->name;
}

uint64_t machine_debug_ecam(void)
{
    return board_map.pci_ecam.base;
}

/* --- Holding and releasing --------------------------------------------------------------------
 */

void machine_debug_hold(struct machine *machine, uint64_t mask)
{
    uint64_t fresh = 0;
    pthread_mutex_lock(&machine->lock);
    for (unsigned i = 0; i < machine->cpu_count; i++) {
        struct cpu *cpu = &machine->cpus[i];
        if (!(mask >> i & 1) || cpu->held)
            continue;
        fresh |= BIT(i);
        cpu->held = true;
        if (!cpu->parked)
            hart_request(cpu->hart, ATTENTION_STOP);
    }
    wait_parked(machine, mask);
    for (unsigned i = 0; i < machine->cpu_count; i++) {
        struct cpu *cpu = &machine->cpus[i];
        if (mask >> i & 1)
            cpu->range = false;
        if ((fresh >> i & 1) && !cpu->told)
            cpu->pass = false; /* it stands anywhere */
    }
    pthread_mutex_unlock(&machine->lock);
}

void machine_debug_release(struct machine *machine, uint64_t mask)
{
    bool any = false;
    pthread_mutex_lock(&machine->lock);
    for (unsigned i = 0; i < machine->cpu_count; i++) {
        if (!(mask >> i & 1) || !machine->cpus[i].held)
            continue;
        any = machine->cpus[i].resumed = true;
        machine->cpus[i].held = false;
    }
    if (any)
        pthread_cond_broadcast(&machine->changed);
    pthread_mutex_unlock(&machine->lock);
}

uint64_t machine_debug_held(const struct machine *machine)
{
    struct machine *locked = (struct machine *)machine;
    uint64_t held = 0;
    pthread_mutex_lock(&locked->lock);
    for (unsigned i = 0; i < machine->cpu_count; i++)
        held |= (uint64_t)machine->cpus[i].held << i;
    pthread_mutex_unlock(&locked->lock);
    return held;
}

void machine_debug_set_all_stop(struct machine *machine, bool all_stop)
{
    pthread_mutex_lock(&machine->lock);
    machine->debug->all_stop = all_stop;
    pthread_mutex_unlock(&machine->lock);
}

void machine_debug_freeze(struct machine *machine, bool frozen)
{
    if (machine->debug_frozen == frozen)
        return;
    machine->debug_frozen = frozen;
    cpu_update_clock(machine);
}

/* --- Stepping ---------------------------------------------------------------------------------
 */

void machine_debug_step(struct machine *machine, unsigned index, bool interrupts)
{
    struct cpu *cpu = &machine->cpus[index];
    struct hart *hart = cpu->hart;
    if (!machine_debug_started(machine, index))
        return;
    /* A request to stop that came before the hart was parked has been answered. */
    atomic_fetch_and(&hart->attention, ~(uint32_t)ATTENTION_STOP);
    unsigned flags = interrupts ? HART_STEP_INTERRUPTS : 0;
    if (cpu->pass && cpu->pass_pc == hart->pc)
        flags |= cpu->pass_flags;
    cpu_step(cpu, flags);
    struct machine_stop stop = {.hart = hart_take_stop(hart)};
    note_pass(cpu, stop.hart.reason);
    pthread_mutex_lock(&machine->lock);
    if (stop.hart.reason != HART_STOP_NONE) {
        cpu->told = true;
        cpu->stop = stop;
    }
    pthread_mutex_unlock(&machine->lock);
    machine_serve_requests(machine); /* the instruction may have been the guest's last */
}

void machine_debug_step_range(struct machine *machine, unsigned index, uint64_t start, uint64_t end,
                              bool interrupts)
{
    struct cpu *cpu = &machine->cpus[index];
    pthread_mutex_lock(&machine->lock);
    cpu->range = true;
    cpu->range_start = start;
    cpu->range_size = end - start;
    cpu->range_flags = interrupts ? HART_STEP_INTERRUPTS : 0;
    pthread_mutex_unlock(&machine->lock);
    machine_debug_release(machine, UINT64_C(1) << index);
}

bool machine_debug_take_stop(struct machine *machine, unsigned index, struct machine_stop *stop)
{
    struct cpu *cpu = &machine->cpus[index];
    pthread_mutex_lock(&machine->lock);
    bool told = cpu->told;
    cpu->told = false;
    *stop = cpu->stop;
    pthread_mutex_unlock(&machine->lock);
    return told;
}

void machine_debug_pass(struct machine *machine, unsigned index, bool pass)
{
    struct cpu *cpu = &machine->cpus[index];
    cpu->pass = pass;
    cpu->pass_pc = cpu->hart->pc;
}

/* --- Points -----------------------------------------------------------------------------------
 */

static bool has_break(const struct hart_points *points, uint64_t address)
{
    for (size_t low = 0, high = points->break_count; low < high;) {
        size_t middle = low + (high - low) / 2;
        uint64_t there = points->breaks[middle].address;
        if (there == address)
            return true;
        if (there < address)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

/* What is translated for pages with new breakpoints does not end before them. */
static void forget_code(struct machine *machine, const struct hart_points *before,
                        const struct hart_points *now)
{
    uint64_t *fresh = xmalloc((now->break_count + 1) * sizeof(*fresh));
    size_t count = 0;
    for (size_t i = 0; i < now->break_count; i++)
        if (!before || !has_break(before, now->breaks[i].address))
            fresh[count++] = now->breaks[i].address;
    if (count)
        jit_forget_code(machine->jit, fresh, count);
    free(fresh);
}

static int compare_points(const void *a, const void *b)
{
    uint64_t x = ((const struct hart_point *)a)->address;
    uint64_t y = ((const struct hart_point *)b)->address;
    return x < y ? -1 : x > y;
}

static bool is_empty(const struct hart_points *points)
{
    return !points->break_count && !points->watch_count && !points->exceptions &&
           !points->interrupts && !points->calls && !points->waits;
}

/* The points and what they point to, in one piece. */
static struct hart_points *points_copy(const struct hart_points *points)
{
    size_t breaks = points->break_count, watches = points->watch_count;
    struct hart_points *copy =
        xmalloc(sizeof(*copy) + (breaks + watches) * sizeof(struct hart_point));
    struct hart_point *storage = (struct hart_point *)(copy + 1);
    *copy = *points;
    copy->breaks = storage;
    copy->watches = storage + breaks;
    if (breaks)
        memcpy(storage, points->breaks, breaks * sizeof(*storage));
    if (watches)
        memcpy(storage + breaks, points->watches, watches * sizeof(*storage));
    qsort(storage, breaks, sizeof(*storage), compare_points);
    return copy;
}

void machine_debug_set_points(struct machine *machine, const struct hart_points *points, bool start)
{
    struct machine_debug *debug = machine->debug;
    struct hart_points *before = debug->points;
    struct hart_points *now = is_empty(points) ? NULL : points_copy(points);
    bool ran = interrupt_all(machine);
    debug->start = start;
    debug->points = now;
    for (unsigned i = 0; i < machine->cpu_count; i++)
        hart_set_points(machine->cpus[i].hart, now);
    if (machine->jit && now)
        forget_code(machine, before, now);
    go_on(machine, ran);
    free(before);
}

void machine_debug_fence_code(struct machine *machine)
{
    struct hart *harts[MACHINE_MAX_CPUS];
    const struct hart_fence fence = {.kind = HART_FENCE_I};
    for (unsigned i = 0; i < machine->cpu_count; i++)
        harts[i] = machine->cpus[i].hart;
    hart_fence_remote(NULL, harts, machine->cpu_count, &fence);
}
