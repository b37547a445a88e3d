/*
 * hartvisor-gpu, the process that draws with WebGPU: private to this folder. Everything is on one
 * thread. wgpu-native ends the process where it is misused, so all that it is called with was
 * checked, and errors that it reports later are caught for each device.
 */
#pragma once

#include <webgpu.h>
#include <wgpu.h>

#include "gpu/gpu.h"

/* --- adapters.c --- */

struct adapters {
    WGPUInstance instance; /* NULL: not yet looked for */
    WGPUAdapter *list;
    size_t count;
    bool indirect; /* for tests: pictures are textures everywhere */
};

void adapters_init(struct adapters *adapters);
void adapters_finish(struct adapters *adapters);
void adapters_describe(const struct adapters *adapters, size_t index,
                       struct gpu_adapter_info *info);

/* --- device.c: an adapter that is open --- */

#define DEVICE_PIPELINES 4

/* One for each adapter, shared by counted references. */
struct gpu_device {
    unsigned references;
    uint32_t adapter;
    WGPUDevice handle;
    WGPUQueue queue;
    WGPURenderPipeline pipelines[2][2]; /* [scaled][with a cursor] */
    WGPUBindGroupLayout layout;
    uint32_t max_texture_size;
    uint64_t max_buffer_size, max_binding_size;
    bool direct;         /* its memory is the processor's, and pictures are buffers */
    double timestamp_ns; /* of a tick; 0: passes cannot be timed */
    char error[200];     /* the first that was reported since gpu_device_take_error; empty: none */
    bool no_memory;      /* that is what it was */
    unsigned error_count;
    char name[128];
};

struct gpu_device *gpu_device_open(const struct adapters *adapters, uint32_t index,
                                   struct error *err);
struct gpu_device *gpu_device_get(struct gpu_device *device);
void gpu_device_put(struct gpu_device *device); /* accepts NULL */

/* Copies an error that was reported, and forgets it; false if there was none. Empty: no memory. */
bool gpu_device_take_error(struct gpu_device *device, char *text, size_t size);

/* Waits until the device has done what was submitted up to there (NULL: all), and runs callbacks.
 */
void gpu_device_wait(struct gpu_device *device, const WGPUSubmissionIndex *submission);

/* --- canvas.c --- */

struct gpu_canvas *wgpu_canvas_create(const struct adapters *adapters, const uint32_t *indices,
                                      unsigned count, struct error *err);

/* --- landlock.c --- */

/* Gives up changing files other than GPUs' devices, for this thread and those it starts: before a
 * driver starts any. True, with nothing done, where the kernel has no Landlock. */
bool sandbox_close_files(struct error *err);

/* --- sandbox.c --- */

/* Gives up what drawing does not need. True, with nothing done, where libseccomp is missing. */
bool sandbox_enter(struct error *err);
