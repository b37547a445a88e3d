/*
 * libhartvisor: GPUs for guests.
 *
 *     struct error err;
 *     struct gpu_manager *manager = gpu_manager_create(NULL, &err);
 *     gpu_manager_select(manager, "auto", NULL, &err);
 *     gpu_manager_start(manager, &err);
 *     struct gpu_stats stats;
 *     gpu_manager_stats(manager, &stats, 0, &err);
 *     gpu_stats_print(&stats, stdout, 0);
 *     gpu_manager_destroy(manager);
 *
 * A back end is a way to give a guest a screen: a GPU that is passed through, virtio-gpu drawn by
 * WebGPU, or drawn by software. The manager probes them, picks one, and keeps its statistics.
 *
 * A manager belongs to one thread at a time. Strings are UTF-8.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "hartvisor/error.h"

/* --- Adapters: what a back end can draw on ---------------------------------------------------- */

enum gpu_adapter_type {
    GPU_ADAPTER_DISCRETE,
    GPU_ADAPTER_INTEGRATED,
    GPU_ADAPTER_VIRTUAL, /* a GPU of a virtual machine that this is */
    GPU_ADAPTER_CPU,     /* software that looks like a GPU */
    GPU_ADAPTER_UNKNOWN,
};

/* "discrete GPU" and the like. A constant string. */
const char *gpu_adapter_type_name(enum gpu_adapter_type type);

struct gpu_adapter_info {
    uint32_t index; /* in the back end's list */
    uint32_t type;  /* enum gpu_adapter_type */
    uint32_t vendor_id, device_id;
    char name[128];
    char vendor[64];
    char api[16];     /* "Vulkan", "Metal", "DX12", "GL"; "PCI" for one that is passed through */
    char driver[192]; /* its name and version */
    /* Limits and features that matter here. */
    uint32_t max_texture_size; /* pixels */
    uint64_t max_buffer_size;  /* bytes */
    uint32_t timestamps;       /* 1: the time of passes on the GPU can be measured */
    char features[256];        /* names with a space between two */
};

/* --- Statistics ------------------------------------------------------------------------------- */

/* Since the start, or the last reset. */
struct gpu_counters {
    uint64_t command_buffers, render_passes, draws; /* submitted to the GPU */
    uint64_t transfers;                             /* uploads that the guest asked for */
    uint64_t bytes_uploaded;                        /* from guest memory into pictures */
    uint64_t bytes_read_back;                       /* from pictures into frames */
    uint64_t frames_presented;                      /* drawn for a display */
    uint64_t frames_dropped;                        /* changed again before they were drawn */
    uint64_t gpu_time_ns;                           /* of timed passes */
    uint64_t passes_timed;
    uint64_t busy_ns; /* time that the renderer spent on requests */
};

/* What is alive on an adapter now. */
struct gpu_adapter_load {
    uint64_t textures, buffers, pipelines;
    uint64_t memory, memory_peak; /* bytes */
    uint64_t queue_ns;            /* time its queue was busy, or was waited for */
};

#define GPU_STATS_SCANOUTS 16
#define GPU_STATS_ADAPTERS 8

struct gpu_stats {
    char backend[16];
    struct gpu_counters total; /* all scanouts, and what was done for none of them */
    uint32_t scanout_count;
    struct gpu_counters scanouts[GPU_STATS_SCANOUTS];
    uint32_t scanout_adapter[GPU_STATS_SCANOUTS]; /* index into adapters; UINT32_MAX: off */
    uint32_t adapter_count;
    struct gpu_adapter_load adapters[GPU_STATS_ADAPTERS];
    char adapter_name[GPU_STATS_ADAPTERS][128];
};

#define GPU_PRINT_JSON   1 /* one document; keys do not change */
#define GPU_PRINT_COLOUR 2

void gpu_stats_print(const struct gpu_stats *stats, FILE *out, unsigned flags);

/* --- Back ends -------------------------------------------------------------------------------- */

#define GPU_MAX_BACKEND_ADAPTERS 32

struct gpu_backend_info {
    const char *name;        /* "wgpu" */
    const char *description; /* a few words */
    bool usable;
    char reason[384]; /* why not, and what to do */
    size_t adapter_count;
    const struct gpu_adapter_info *adapters;
};

struct gpu_manager;
struct machine_config;

struct gpu_manager_config {
    /* Stands for "/" when GPUs to pass through are looked for, as in passthrough.h. */
    const char *root;
    /* For a display on the host: back ends that draw only, no GPU that is passed through. */
    bool draws;
};

/* Looks for nothing yet. `config` NULL: this machine. */
struct gpu_manager *gpu_manager_create(const struct gpu_manager_config *config, struct error *err);
void gpu_manager_destroy(struct gpu_manager *manager); /* accepts NULL */

/* Probes every back end (again). gpu_manager_select does it where it was not done. */
void gpu_manager_probe(struct gpu_manager *manager);

/* The back ends in the order in which `auto` prefers them. */
size_t gpu_manager_count(const struct gpu_manager *manager);
const struct gpu_backend_info *gpu_manager_backend(const struct gpu_manager *manager, size_t index);

/*
 * Selects a back end: "auto", or names in the order in which they are to be tried, with a comma
 * between two ("wgpu,2d"). `adapter` NULL, an adapter's index, a part of its name, "spread" for all
 * of them by load, or for the passthrough back end a PCI address; "0/0" opens an adapter twice.
 *
 * auto takes a GPU that could be passed through at once, as it was bound to vfio-pci for that (the
 * one that `adapter` names, or the only one); then wgpu on a real GPU; 2d; wgpu on a CPU. False,
 * with what was wrong with each, if none is usable.
 */
bool gpu_manager_select(struct gpu_manager *manager, const char *backends, const char *adapter,
                        struct error *err);

/* The selected back end, and its adapter (NULL for one without); NULL before a selection. */
const struct gpu_backend_info *gpu_manager_selected(const struct gpu_manager *manager);
const struct gpu_adapter_info *gpu_manager_adapter(const struct gpu_manager *manager);

/*
 * Enters what the selected back end needs in the configuration of a machine that is still to be
 * created: a device to pass through. For the others, nothing.
 */
bool gpu_manager_attach(struct gpu_manager *manager, struct machine_config *config,
                        struct error *err);

/* Starts the selected back end's renderer, for a program that uses one without a machine. */
bool gpu_manager_start(struct gpu_manager *manager, struct error *err);
/* Ends it; the selection stays. */
void gpu_manager_stop(struct gpu_manager *manager);

/* Of the renderer that was started. `flags`: 1 to reset the counters. */
bool gpu_manager_stats(struct gpu_manager *manager, struct gpu_stats *stats, unsigned flags,
                       struct error *err);

/* A table of back ends and adapters: usable or not, and why not. */
void gpu_manager_print(const struct gpu_manager *manager, FILE *out, unsigned flags);
