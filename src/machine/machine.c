#include <assert.h>
#include <linux/input-event-codes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "jit/jit.h"
#include "machine/internal.h"
#include "machine/machine.h"
#include "virtio/input.h"

void machine_config_init(struct machine_config *config)
{
    *config = (struct machine_config){
        .memory_size = UINT64_C(1) << 30,
        .cpus = 1,
        .engine = jit_available() ? MACHINE_ENGINE_JIT : MACHINE_ENGINE_INTERPRETER,
        .serial = "stdio",
    };
}

/* --- Events ------------------------------------------------------------------------------------
 */

static void emit(struct machine *machine, enum machine_event event, bool by_guest)
{
    struct machine_event_info info = {
        .event = event,
        .by_guest = by_guest,
        .status = event == MACHINE_EVENT_SHUTDOWN ? machine->status : 0,
    };
    for (unsigned i = 0; i < machine->listener_count; i++)
        machine->listeners[i].callback(machine->listeners[i].opaque, &info);
}

void machine_add_listener(struct machine *machine, machine_event_callback *callback, void *opaque)
{
    assert(machine->listener_count < MACHINE_LISTENER_MAX);
    machine->listeners[machine->listener_count].callback = callback;
    machine->listeners[machine->listener_count++].opaque = opaque;
}

void machine_remove_listener(struct machine *machine, machine_event_callback *callback,
                             void *opaque)
{
    unsigned i = 0;
    while (i < machine->listener_count &&
           (machine->listeners[i].callback != callback || machine->listeners[i].opaque != opaque))
        i++;
    assert(i < machine->listener_count);
    machine->listeners[i] = machine->listeners[--machine->listener_count];
}

/* --- Lifecycle: everything here happens on the loop's thread ------------------------------------
 */

static void quiesce_devices(struct machine *machine)
{
    for (unsigned i = 0; i < machine->device_count; i++)
        if (machine->devices[i]->type->quiesce)
            machine->devices[i]->type->quiesce(machine->devices[i]);
}

static void end(struct machine *machine, bool by_guest)
{
    cpu_pause_all(machine);
    quiesce_devices(machine);
    machine->state = MACHINE_ENDED;
    emit(machine, MACHINE_EVENT_SHUTDOWN, by_guest);
    loop_quit(machine->loop);
}

static bool reset(struct machine *machine, struct error *err)
{
    quiesce_devices(machine);
    for (unsigned i = 0; i < machine->device_count; i++)
        if (machine->devices[i]->type->reset)
            machine->devices[i]->type->reset(machine->devices[i]);
    if (!boot_load(machine, err))
        return false;
    cpu_reset_all(machine);
    return true;
}

void machine_serve_requests(struct machine *machine)
{
    uint32_t requests = atomic_exchange(&machine->requests, 0);
    bool by_guest = requests & REQUEST_BY_GUEST;
    if (machine->state == MACHINE_ENDED || !requests)
        return;
    if (requests & REQUEST_END) {
        end(machine, by_guest);
        return;
    }
    struct error err;
    cpu_pause_all(machine);
    if (!reset(machine, &err)) {
        log_error("cannot reset the machine: %s", err.message);
        machine->status = MACHINE_STATUS_FAILURE;
        end(machine, false);
        return;
    }
    emit(machine, MACHINE_EVENT_RESET, by_guest);
    if (machine->state == MACHINE_RUNNING)
        cpu_resume_all(machine);
}

static void serve_requests(void *opaque)
{
    machine_serve_requests(opaque);
}

static void pause_now(void *opaque)
{
    struct machine *machine = opaque;
    if (machine->state != MACHINE_RUNNING)
        return;
    cpu_pause_all(machine);
    machine->state = MACHINE_PAUSED;
    emit(machine, MACHINE_EVENT_STOP, false);
}

static void resume_now(void *opaque)
{
    struct machine *machine = opaque;
    struct error err;
    if (machine->state != MACHINE_PAUSED)
        return;
    if (!cpu_start_threads(machine, &err)) {
        log_error("%s", err.message);
        machine_request(machine, REQUEST_END, MACHINE_STATUS_FAILURE);
        return;
    }
    machine->state = MACHINE_RUNNING;
    cpu_resume_all(machine);
    emit(machine, MACHINE_EVENT_RESUME, false);
}

void machine_request(struct machine *machine, uint32_t requests, int status)
{
    if (requests & REQUEST_END) {
        /* The first status wins: a guest that fails goes on for a moment, perhaps to a "pass". */
        int none = -1;
        atomic_compare_exchange_strong(&machine->status, &none, status);
    }
    atomic_fetch_or(&machine->requests, requests);

    /* Not one more block than needed: what follows a power-off in the guest is not meant to run. */
    pthread_mutex_lock(&machine->lock);
    machine->running = false;
    pthread_mutex_unlock(&machine->lock);
    for (unsigned i = 0; i < machine->cpu_count; i++)
        hart_request(machine->cpus[i].hart, ATTENTION_STOP);
    loop_schedule(machine->request_task);
}

/* On the loop's thread, unless the machine has ended; machine_run stays until the call is done. */
static void call(struct machine *machine, loop_callback *callback)
{
    machine->callers++;
    if (machine->state != MACHINE_ENDED)
        loop_call(machine->loop, callback, machine);
    machine->callers--;
}

void machine_pause(struct machine *machine)
{
    call(machine, pause_now);
}

void machine_resume(struct machine *machine)
{
    call(machine, resume_now);
}

void machine_reset(struct machine *machine)
{
    machine_request(machine, REQUEST_RESET, 0);
}

void machine_quit(struct machine *machine, int status)
{
    machine_request(machine, REQUEST_END, status);
}

bool machine_powerdown(struct machine *machine)
{
    if (!virtio_input_press(machine->power_button, KEY_POWER))
        return false;
    emit(machine, MACHINE_EVENT_POWERDOWN, false);
    return true;
}

enum machine_state machine_get_state(const struct machine *machine)
{
    return machine->state;
}

int machine_run(struct machine *machine)
{
    resume_now(machine);
    loop_run(machine->loop);
    while (machine->callers)
        loop_turn(machine->loop, 1);
    return machine->status;
}

/* --- Creation ----------------------------------------------------------------------------------
 */

static bool check_config(const struct machine_config *config, struct error *err)
{
    if (config->cpus < 1 || config->cpus > MACHINE_MAX_CPUS)
        return error_set(err, "--cpus %u: give 1 to %u", config->cpus, MACHINE_MAX_CPUS);
    if (config->memory_size < MACHINE_MIN_MEMORY || config->memory_size > MACHINE_MAX_MEMORY ||
        config->memory_size % MEMORY_PAGE_SIZE)
        return error_set(err, "--memory of %llu bytes: give %llu MiB to %llu GiB, in whole pages",
                         (unsigned long long)config->memory_size,
                         (unsigned long long)(MACHINE_MIN_MEMORY >> 20),
                         (unsigned long long)(MACHINE_MAX_MEMORY >> 30));
    if (!config->kernel && !config->firmware && !config->flash[0].path)
        return error_set(err, "nothing to boot: give --kernel FILE, --firmware FILE or --flash "
                              "FILE");
    if (config->initrd && !config->kernel)
        return error_set(err, "--initrd %s: there is no --kernel to use it", config->initrd);
    return true;
}

static bool create(struct machine *machine, struct error *err)
{
    const struct machine_config *config = &machine->config;
    if (!check_config(config, err))
        return false;
    machine->extensions = isa_extensions_default();
    if (config->cpu && !isa_extensions_parse(config->cpu, &machine->extensions, err))
        return error_prefix(err, "--cpu %s", config->cpu);
    machine->builtin_sbi = !config->firmware;
    if (!screen_open(machine, err))
        return false;
    machine->aia = config->aia == MACHINE_AIA_ON ||
                   (config->aia == MACHINE_AIA_AUTO && config->passthrough_count);
    /* Its part of the harts goes with the board, whatever --cpu says. */
    (machine->aia ? isa_extensions_set : isa_extensions_clear)(&machine->extensions, ISA_EXT_SSAIA);
    if (machine->aia)
        isa_extensions_set(&machine->extensions, ISA_EXT_SMAIA);
    if (!passthrough_open(machine, err))
        return error_prefix(err, "--passthrough");
    if (!passthrough_add_ram(machine, err))
        return error_prefix(err, "--memory");
    if (!cpu_create_all(machine, err) || !board_create(machine, err) || !boot_load(machine, err))
        return false;
    htif_attach(machine);
    cpu_reset_all(machine);
    return true;
}

struct machine *machine_create(const struct machine_config *config, struct error *err)
{
    struct machine *machine = xcalloc(1, sizeof(*machine));
    machine->config = *config;
    machine->status = -1;
    machine->state = MACHINE_PAUSED;
    pthread_mutex_init(&machine->lock, NULL);
    pthread_cond_init(&machine->changed, NULL);
    machine->loop = loop_create();
    machine->memory = memory_create();
    machine->request_task = loop_add_task(machine->loop, serve_requests, machine);
    clock_init(&machine->clock);
    clock_freeze(&machine->clock);
    if (!create(machine, err)) {
        machine_destroy(machine);
        return NULL;
    }
    return machine;
}

void machine_destroy(struct machine *machine)
{
    if (!machine)
        return;
    if (machine->cpu_count && machine->state == MACHINE_RUNNING) {
        cpu_pause_all(machine);
        quiesce_devices(machine);
    }
    /* Every hart is parked by now: no thread touches a device that goes away. */
    board_destroy(machine);
    cpu_destroy_all(machine);
    loop_remove_task(machine->request_task);
    memory_destroy(machine->memory);
    loop_destroy(machine->loop);
    pthread_cond_destroy(&machine->changed);
    pthread_mutex_destroy(&machine->lock);
    free(machine->device_tree);
    free(machine->boot_rom);
    free(machine);
}

/* --- Access ------------------------------------------------------------------------------------
 */

struct loop *machine_loop(struct machine *machine)
{
    return machine->loop;
}

struct hart *machine_hart(struct machine *machine, unsigned index)
{
    return index < machine->cpu_count ? machine->cpus[index].hart : NULL;
}

void machine_set_distress(struct machine *machine, machine_distress_callback *callback,
                          void *opaque)
{
    machine->distress = callback;
    machine->distress_opaque = opaque;
}

void machine_set_sampler(struct machine *machine, void (*sample)(void *opaque, struct hart *hart),
                         void *opaque)
{
    machine->sample = sample;
    machine->sample_opaque = opaque;
}

struct chardev *machine_terminal(struct machine *machine)
{
    const struct machine_config *config = &machine->config;
    if (config->serial && !strcmp(config->serial, "stdio"))
        return machine->serial;
    return config->console && !strcmp(config->console, "stdio") ? machine->console : NULL;
}

bool machine_read_memory(struct machine *machine, uint64_t gpa, void *buffer, size_t size)
{
    return memory_dma_read(machine->memory, gpa, buffer, size);
}

bool machine_write_memory(struct machine *machine, uint64_t gpa, const void *buffer, size_t size)
{
    return memory_dma_write(machine->memory, gpa, buffer, size);
}

const void *machine_device_tree(const struct machine *machine, size_t *size)
{
    *size = machine->device_tree_size;
    return machine->device_tree;
}

uint64_t machine_hart_instructions(const struct machine *machine, unsigned hart)
{
    return __atomic_load_n(&machine->cpus[hart].hart->instret, __ATOMIC_RELAXED);
}

uint64_t machine_instructions(const struct machine *machine)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < machine->cpu_count; i++)
        total += machine_hart_instructions(machine, i);
    return total;
}

/* --- What was counted --------------------------------------------------------------------------
 */

/* In the order of the table. */
struct counts {
    struct hart_counts harts;
    struct jit_hart_stats jit_harts;
    struct jit_stats jit;
};

static void add_counts(void *sum, const void *counts, size_t size)
{
    for (size_t i = 0; i < size / sizeof(uint64_t); i++)
        ((uint64_t *)sum)[i] += ((const uint64_t *)counts)[i];
}

bool machine_get_count(const struct machine *machine, unsigned index, const char **what,
                       uint64_t *value)
{
    static const char *const names[] = {
        "TLB misses of loads",
        "TLB misses of stores",
        "TLB misses of fetches",
        "traps",
        "fences of code",
        "fences of translations",
        "instructions interpreted for translated code",
        "jumps looked up",
        "requests attended to",
        "blocks translated",
        "instructions in them",
        "bytes of host code",
        "pages of guest code",
        "pages that had changed",
        "regions of the code cache emptied",
    };
    _Static_assert(sizeof(struct counts) == sizeof(names) / sizeof(names[0]) * sizeof(uint64_t),
                   "a name for each count");
    struct counts counts = {0};
    if (index >= ARRAY_SIZE(names))
        return false;
    for (unsigned i = 0; i < machine->cpu_count; i++) {
        struct jit_hart_stats stats = {0};
        if (machine->jit)
            jit_hart_get_stats(machine->cpus[i].jit, &stats);
        add_counts(&counts.jit_harts, &stats, sizeof(stats));
        add_counts(&counts.harts, hart_get_counts(machine->cpus[i].hart), sizeof(counts.harts));
    }
    if (machine->jit)
        jit_get_stats(machine->jit, &counts.jit);
    *what = names[index];
    *value = ((const uint64_t *)&counts)[index];
    return true;
}
