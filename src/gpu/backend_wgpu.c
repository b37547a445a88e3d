/* The wgpu back end: WebGPU, in a process of its own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "gpu/manager.h"

#define PROBE_TIMEOUT_MS 20000

/* Of all types, from the best to the last resort. */
static const unsigned ranks[] = {
    [GPU_ADAPTER_DISCRETE] = 4, [GPU_ADAPTER_INTEGRATED] = 3, [GPU_ADAPTER_VIRTUAL] = 2,
    [GPU_ADAPTER_UNKNOWN] = 1,  [GPU_ADAPTER_CPU] = 0,
};

/* What a renderer tells is not to be trusted. */
static void tame(struct gpu_adapter_info *adapter, uint32_t index)
{
    adapter->index = index;
    if (adapter->type > GPU_ADAPTER_UNKNOWN)
        adapter->type = GPU_ADAPTER_UNKNOWN;
    gpu_text_tame(adapter->name, sizeof(adapter->name));
    gpu_text_tame(adapter->vendor, sizeof(adapter->vendor));
    gpu_text_tame(adapter->api, sizeof(adapter->api));
    gpu_text_tame(adapter->driver, sizeof(adapter->driver));
    gpu_text_tame(adapter->features, sizeof(adapter->features));
}

static void probe(struct gpu_manager *manager, struct gpu_backend *backend)
{
    struct gpu_request request = {.type = GPU_REQUEST_ADAPTERS};
    struct error err;
    size_t got = 0;
    struct gpu_renderer *renderer = gpu_process_create(PROBE_TIMEOUT_MS, &err);
    if (!renderer || !gpu_renderer_call(renderer, &request, PROBE_TIMEOUT_MS, NULL,
                                        backend->adapters, sizeof(backend->adapters), &got, &err))
        gpu_backend_refuse(backend, "%s", err.message);
    else if (got < sizeof(struct gpu_adapter_info))
        gpu_backend_refuse(backend, "this machine has neither a Vulkan nor a GL driver: on Debian, "
                                    "install mesa-vulkan-drivers");
    gpu_renderer_destroy(renderer);
    if (got > sizeof(backend->adapters))
        got = sizeof(backend->adapters);
    backend->info.adapter_count = got / sizeof(struct gpu_adapter_info);
    for (uint32_t i = 0; i < backend->info.adapter_count; i++)
        tame(&backend->adapters[i], i);
}

static bool add(struct gpu_choice *choice, uint32_t adapter)
{
    if (choice->adapter_count == GPU_MAX_ADAPTERS)
        return false;
    choice->adapters[choice->adapter_count++] = adapter;
    return true;
}

/* "2", or "0/1/0": several, with the load spread over them. False if it is no such list. */
static bool parse_indices(const struct gpu_backend *backend, const char *text,
                          struct gpu_choice *choice)
{
    for (const char *at = text;;) {
        char *end;
        unsigned long index = strtoul(at, &end, 10);
        if (end == at || *at == '-' || *at == '+' || index >= backend->info.adapter_count ||
            (*end && *end != '/') || !add(choice, (uint32_t)index))
            return false;
        if (!*end)
            break;
        at = end + 1;
    }
    choice->spread = choice->adapter_count > 1 ? GPU_SPREAD_LOAD : GPU_SPREAD_NONE;
    return true;
}

static bool choose_by_name(const struct gpu_backend *backend, const char *name,
                           struct gpu_choice *choice)
{
    for (uint32_t i = 0; i < backend->info.adapter_count; i++)
        if (strcasestr(backend->adapters[i].name, name))
            return add(choice, i);
    return false;
}

static bool choose(const struct gpu_backend *backend, const char *adapter,
                   struct gpu_choice *choice, struct error *err)
{
    size_t count = backend->info.adapter_count;
    if (adapter && !strcmp(adapter, "spread")) {
        for (uint32_t i = 0; i < count && i < GPU_MAX_ADAPTERS; i++)
            add(choice, i);
        choice->spread = GPU_SPREAD_LOAD;
        return true;
    }
    if (adapter) {
        if (parse_indices(backend, adapter, choice))
            return true;
        choice->adapter_count = 0;
        return choose_by_name(backend, adapter, choice) ||
               error_set(err,
                         "there is no adapter '%s' among the %zu: `hartvisor gpus list` names them",
                         adapter, count);
    }
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++)
        if (ranks[backend->adapters[i].type] > ranks[backend->adapters[best].type])
            best = i;
    return add(choice, best);
}

static struct gpu_renderer *open_process(const struct gpu_choice *choice, struct error *err)
{
    struct gpu_renderer *renderer = gpu_process_create(0, err);
    if (!renderer)
        return NULL;
    struct gpu_request request = {.type = GPU_REQUEST_OPEN,
                                  .open = {.version = GPU_PROTOCOL_VERSION,
                                           .spread = choice->spread,
                                           .count = choice->adapter_count}};
    memcpy(request.open.adapters, choice->adapters, sizeof(request.open.adapters));
    if (gpu_renderer_call(renderer, &request, PROBE_TIMEOUT_MS, NULL, NULL, 0, NULL, err))
        return renderer;
    gpu_renderer_destroy(renderer);
    return NULL;
}

const struct gpu_backend_type gpu_backend_wgpu = {
    .name = "wgpu",
    .description = "virtio-gpu, drawn by WebGPU on a GPU of this machine",
    .probe = probe,
    .choose = choose,
    .open = open_process,
    .shares_memory = true,
};
