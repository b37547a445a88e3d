/* The manager: which back ends there are, and which of them is taken. */
#include "gpu/manager.h"

#include <glob.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hartvisor/passthrough.h"

#define LOSSES_MEAN_BROKEN_NS (UINT64_C(60) * 1000000000)
#define CALL_TIMEOUT_MS       10000

/* In the order in which they are listed. virgl and mediated devices are to be more rows. */
static const struct gpu_backend_type *const types[] = {
    &gpu_backend_passthrough,
    &gpu_backend_wgpu,
    &gpu_backend_2d,
};

struct gpu_manager *gpu_manager_create(const struct gpu_manager_config *config, struct error *err)
{
    struct gpu_manager *manager = xcalloc(1, sizeof(*manager));
    manager->root = config && config->root ? xstrdup(config->root) : NULL;
    manager->draws = config && config->draws;
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        struct gpu_backend *backend = &manager->backends[manager->backend_count++];
        backend->type = types[i];
        backend->info.name = types[i]->name;
        backend->info.description = types[i]->description;
        backend->info.adapters = backend->adapters;
    }
    return manager;
}

void gpu_manager_destroy(struct gpu_manager *manager)
{
    if (!manager)
        return;
    gpu_manager_stop(manager);
    passthrough_manager_destroy(manager->host);
    free(manager->root);
    free(manager);
}

/* --- Probing -----------------------------------------------------------------------------------
 */

void gpu_backend_refuse(struct gpu_backend *backend, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(backend->info.reason, sizeof(backend->info.reason), format, arguments);
    va_end(arguments);
}

bool gpu_adapter_is_hardware(const struct gpu_adapter_info *adapter)
{
    return adapter->type != GPU_ADAPTER_CPU;
}

static void probe(struct gpu_manager *manager, struct gpu_backend *backend)
{
    backend->info.usable = false;
    backend->info.reason[0] = '\0';
    backend->info.adapter_count = 0;
    backend->type->probe(manager, backend);
    backend->info.usable = !backend->info.reason[0];
    backend->probed = true;
}

void gpu_manager_probe(struct gpu_manager *manager)
{
    for (unsigned i = 0; i < manager->backend_count; i++)
        probe(manager, &manager->backends[i]);
}

size_t gpu_manager_count(const struct gpu_manager *manager)
{
    return manager->backend_count;
}

const struct gpu_backend_info *gpu_manager_backend(const struct gpu_manager *manager, size_t index)
{
    return index < manager->backend_count ? &manager->backends[index].info : NULL;
}

/* --- Selecting ---------------------------------------------------------------------------------
 */

/* Adds a back end to the chain if it is usable; else says why not behind what `err` has. */
static bool try_backend(struct gpu_manager *manager, struct gpu_backend *backend,
                        const char *adapter, struct error *err)
{
    struct error why = {{0}};
    struct gpu_choice *choice = &manager->chain[manager->chain_count];
    if (!backend->probed)
        probe(manager, backend);
    /* Whoever shows a screen on the host has nothing of a GPU that is passed through. */
    if (manager->draws && !backend->type->open) {
        if (err)
            error_set(err, "%s: a display of the host shows what virtio-gpu draws: give wgpu or 2d",
                      backend->info.name);
        return false;
    }
    *choice = (struct gpu_choice){.backend = backend};
    if (!backend->info.usable)
        error_set(&why, "%s", backend->info.reason);
    else if (backend->type->choose(backend, adapter, choice, &why)) {
        manager->chain_count++;
        return true;
    }
    if (err) {
        size_t used = strlen(err->message);
        snprintf(err->message + used, sizeof(err->message) - used, "%s%s: %s", used ? "; " : "",
                 backend->info.name, why.message);
    }
    return false;
}

/* Whether the host shows any device that a GPU's driver makes: without one, looking for adapters
 * would only start Vulkan to find a CPU. */
static bool host_may_have_gpu(void)
{
    static const char *const nodes[] = {"/dev/dri/renderD*", "/dev/nvidia[0-9]*", "/dev/dxg",
                                        "/dev/mali*", "/dev/kgsl*"};
    bool found = false;
    for (size_t i = 0; i < ARRAY_SIZE(nodes) && !found; i++) {
        glob_t matches;
        found = !glob(nodes[i], GLOB_NOSORT, NULL, &matches) && matches.gl_pathc;
        globfree(&matches);
    }
    return found;
}

static struct gpu_backend *find_backend(struct gpu_manager *manager, const char *name)
{
    for (unsigned i = 0; i < manager->backend_count; i++)
        if (!strcmp(manager->backends[i].info.name, name))
            return &manager->backends[i];
    return NULL;
}

/* A GPU to pass through, wgpu on real hardware, 2d, wgpu on whatever there is. */
static bool select_auto(struct gpu_manager *manager, const char *adapter, struct error *err)
{
    struct gpu_backend *host = find_backend(manager, gpu_backend_passthrough.name);
    struct gpu_backend *wgpu = find_backend(manager, gpu_backend_wgpu.name);
    struct gpu_backend *plain = find_backend(manager, gpu_backend_2d.name);
    struct pci_address address;
    if (adapter && pci_address_parse(adapter, &address, NULL))
        return try_backend(manager, host, adapter, err);
    if (adapter)
        return try_backend(manager, wgpu, adapter, err);
    if (!manager->draws && try_backend(manager, host, NULL, NULL))
        return true;

    bool first = host_may_have_gpu() && try_backend(manager, wgpu, NULL, err);
    if (first && !gpu_adapter_is_hardware(&wgpu->adapters[manager->chain[0].adapters[0]])) {
        manager->chain_count = 0;
        first = false;
    }
    bool second = try_backend(manager, plain, NULL, err);
    if (!first && !second)
        try_backend(manager, wgpu, NULL, err);
    return manager->chain_count;
}

static bool select_named(struct gpu_manager *manager, const char *names, const char *adapter,
                         struct error *err)
{
    char *list = xstrdup(names), *rest = list;
    bool known = true;
    for (char *name;
         known && (name = strsep(&rest, ",")) && manager->chain_count < GPU_MAX_BACKENDS;) {
        struct gpu_backend *backend = find_backend(manager, name);
        known = backend;
        if (known)
            try_backend(manager, backend, adapter, err);
        else
            error_set(err, "there is no back end '%s': give auto, passthrough, wgpu, 2d or off",
                      name);
    }
    free(list);
    return known && manager->chain_count;
}

bool gpu_manager_select(struct gpu_manager *manager, const char *backends, const char *adapter,
                        struct error *err)
{
    manager->chain_count = manager->chain_at = 0;
    if (err)
        err->message[0] = '\0';
    bool found = strcmp(backends, "auto") != 0 ? select_named(manager, backends, adapter, err)
                                               : select_auto(manager, adapter, err);
    if (!found)
        manager->chain_count = 0;
    return found;
}

static const struct gpu_choice *selected(const struct gpu_manager *manager)
{
    return manager->chain_at < manager->chain_count ? &manager->chain[manager->chain_at] : NULL;
}

const struct gpu_backend_info *gpu_manager_selected(const struct gpu_manager *manager)
{
    const struct gpu_choice *choice = selected(manager);
    return choice ? &choice->backend->info : NULL;
}

const struct gpu_adapter_info *gpu_manager_adapter(const struct gpu_manager *manager)
{
    const struct gpu_choice *choice = selected(manager);
    return choice && choice->adapter_count ? &choice->backend->adapters[choice->adapters[0]] : NULL;
}

bool gpu_manager_attach(struct gpu_manager *manager, struct machine_config *config,
                        struct error *err)
{
    const struct gpu_choice *choice = selected(manager);
    if (!choice)
        return error_set(err, "no GPU back end is selected");
    return !choice->backend->type->attach ||
           choice->backend->type->attach(manager, choice, config, err);
}

bool gpu_manager_draws(const struct gpu_manager *manager)
{
    const struct gpu_choice *choice = selected(manager);
    return choice && choice->backend->type->open;
}

bool gpu_manager_shares_memory(const struct gpu_manager *manager)
{
    const struct gpu_choice *choice = selected(manager);
    return choice && choice->backend->type->shares_memory;
}

/* --- Renderers ---------------------------------------------------------------------------------
 */

struct gpu_renderer *gpu_manager_open(struct gpu_manager *manager, struct error *err)
{
    const struct gpu_choice *choice = selected(manager);
    if (!choice || !choice->backend->type->open) {
        error_set(err, "%s",
                  choice ? "a GPU that is passed through has no renderer"
                         : "no GPU back end is selected");
        return NULL;
    }
    return choice->backend->type->open(choice, err);
}

/* Notes a loss; true if there were too many of them lately. */
static bool is_broken(struct gpu_manager *manager)
{
    uint64_t now = loop_now();
    memmove(manager->losses, manager->losses + 1, 2 * sizeof(manager->losses[0]));
    manager->losses[2] = now;
    return manager->losses[0] && now - manager->losses[0] < LOSSES_MEAN_BROKEN_NS;
}

struct gpu_renderer *gpu_manager_reopen(struct gpu_manager *manager, struct error *err)
{
    bool broken = is_broken(manager);
    for (; manager->chain_at < manager->chain_count; manager->chain_at++, broken = false) {
        const char *name = selected(manager)->backend->info.name;
        struct gpu_renderer *renderer = NULL;
        if (broken)
            error_set(err, "it was lost three times within a minute");
        else
            renderer = gpu_manager_open(manager, err);
        if (renderer) {
            log_warning("gpu: the screen comes back, drawn by %s", name);
            return renderer;
        }
        log_warning("gpu: %s is given up: %s", name, err->message);
        memset(manager->losses, 0, sizeof(manager->losses));
    }
    error_set(err, "no GPU back end is left");
    return NULL;
}

bool gpu_manager_start(struct gpu_manager *manager, struct error *err)
{
    if (!manager->renderer)
        manager->renderer = gpu_manager_open(manager, err);
    return manager->renderer;
}

void gpu_manager_stop(struct gpu_manager *manager)
{
    gpu_renderer_destroy(manager->renderer);
    manager->renderer = NULL;
}

bool gpu_manager_stats(struct gpu_manager *manager, struct gpu_stats *stats, unsigned flags,
                       struct error *err)
{
    struct gpu_request request = {.type = GPU_REQUEST_STATS, .flags = flags};
    size_t got;
    if (!manager->renderer)
        return error_set(err, "no renderer was started: gpu_manager_start does it");
    if (!gpu_renderer_call(manager->renderer, &request, CALL_TIMEOUT_MS, NULL, stats,
                           sizeof(*stats), &got, err))
        return false;
    gpu_stats_tame(stats);
    return got == sizeof(*stats) || error_set(err, "the renderer tells statistics that nobody "
                                                   "knows here: is it of another version?");
}
