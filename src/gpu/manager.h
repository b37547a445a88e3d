/* Private to gpu/: the manager and the table of back ends. */
#pragma once

#include "gpu/gpu.h"

struct gpu_backend {
    const struct gpu_backend_type *type;
    struct gpu_backend_info info;
    bool probed;
    struct gpu_adapter_info adapters[GPU_MAX_BACKEND_ADAPTERS];
};

/* What of a back end is used: indices into its adapters. */
struct gpu_choice {
    struct gpu_backend *backend;
    uint32_t adapters[GPU_MAX_ADAPTERS];
    unsigned adapter_count;
    uint32_t spread; /* enum gpu_spread */
};

struct gpu_backend_type {
    const char *name, *description;
    /* Says in backend->info whether it is usable, why not, and on which adapters. */
    void (*probe)(struct gpu_manager *manager, struct gpu_backend *backend);
    /* Finds what `adapter` names, or with NULL the best; false with err set if there is none. */
    bool (*choose)(const struct gpu_backend *backend, const char *adapter,
                   struct gpu_choice *choice, struct error *err);
    /* Opens a renderer with its adapters; NULL: this back end has none. */
    struct gpu_renderer *(*open)(const struct gpu_choice *choice, struct error *err);
    /* NULL, or: enters a device in a machine's configuration. */
    bool (*attach)(struct gpu_manager *manager, const struct gpu_choice *choice,
                   struct machine_config *config, struct error *err);
    bool shares_memory; /* draws in another process */
};

extern const struct gpu_backend_type gpu_backend_passthrough, gpu_backend_wgpu, gpu_backend_2d;

#define GPU_MAX_BACKENDS 8

struct gpu_manager {
    struct gpu_backend backends[GPU_MAX_BACKENDS];
    unsigned backend_count;
    char *root;
    bool draws;
    struct passthrough_manager *host; /* NULL until the passthrough back end was probed */
    /* What was selected, and what is tried after it. */
    struct gpu_choice chain[GPU_MAX_BACKENDS];
    unsigned chain_count, chain_at;
    uint64_t losses[3]; /* when renderers were lost, in loop_now's nanoseconds; the newest last */
    struct gpu_renderer *renderer; /* gpu_manager_start's */
};

/* Sets info.reason; for probes. */
void gpu_backend_refuse(struct gpu_backend *backend, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Whether a back end's best adapter is hardware. */
bool gpu_adapter_is_hardware(const struct gpu_adapter_info *adapter);
