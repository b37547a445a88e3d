/* Private to virtio/gpu*.c: the device, and its requests under way. */
#pragma once

#include "virtio/gpu.h"
#include "virtio/gpu_scene.h"

enum gpu_queue { GPU_QUEUE_CONTROL, GPU_QUEUE_CURSOR, GPU_QUEUES };

/* Section 5.7.3 */
enum virtio_gpu_feature {
    VIRTIO_GPU_F_EDID = 1,
    VIRTIO_GPU_F_RESOURCE_UUID = 2,
    VIRTIO_GPU_F_RESOURCE_BLOB = 3,
};

/* Section 5.7.4 */
struct virtio_gpu_config_space {
    uint32_t events_read, events_clear, num_scanouts, num_capsets;
};

#define VIRTIO_GPU_EVENT_DISPLAY 1u

#define GPU_HEADER_SIZE  24
#define GPU_RESPONSE_MAX (GPU_HEADER_SIZE + 8 + 1024) /* GET_EDID's */

/* A chain in flight. It is pushed when its requests to the renderer have been answered. */
struct gpu_command {
    struct virtio_chain *chain; /* NULL: the device was reset since */
    unsigned requests;          /* without an answer */
    uint32_t resource;          /* that it creates; 0: none */
    uint64_t token;             /* of the resource */
    size_t size;
    uint8_t response[GPU_RESPONSE_MAX];
};

/* A request under way. */
struct gpu_flight {
    struct gpu_flight *next;
    uint32_t type;   /* enum gpu_request_type */
    uint32_t status; /* enum gpu_status, of one that was answered */
    size_t payload;
    struct gpu_command *command; /* that it belongs to, or NULL */
    /* Of a RENDER request. */
    virtio_gpu_rendered *rendered;
    void *opaque;
    struct gpu_frame *frame;
};

struct gpu_flights {
    struct gpu_flight *first, **last;
};

struct virtio_gpu {
    struct virtio_device virtio;
    struct virtio_gpu_config machine; /* what it was created with */
    struct virtio_gpu_config_space config;
    struct gpu_scene scene;
    struct gpu_command *command; /* that requests are being made for, or NULL */
    struct virtio_gpu_viewer viewer;
    bool told[GPU_MAX_SCANOUTS]; /* the viewer knows of damage */

    /* Changed by the loop's thread only, with the device's lock and `use` for writing. Requests
     * are submitted with the device's lock, so that flights are in their order; calls that wait are
     * made with `use` for reading and no lock. */
    struct gpu_renderer *renderer; /* NULL: lost, or not to be had */
    pthread_rwlock_t use;
    bool knows_memory; /* the renderer does */
    bool failed;       /* no renderer is to be had before the next reset */
    bool stalled;      /* a queue waits until fewer requests are under way */
    struct loop_task *task;

    /* What the renderer's thread changes. The lock is innermost. */
    pthread_mutex_t flight_lock;
    struct gpu_flights flying, landed;
    size_t flight_count, flight_bytes; /* of `flying` */
    bool lost;
    char why[200];
};

static inline struct virtio_gpu *virtio_gpu_of(struct virtio_device *device)
{
    return container_of(device, struct virtio_gpu, virtio);
}

/* --- gpu_command.c --- */

/* Executes what a driver sent. */
void gpu_command_run(struct virtio_gpu *gpu, struct virtio_chain *chain);

/* --- gpu_flight.c: all but where it says so with the device's lock held --- */

void gpu_flight_init(struct virtio_gpu *gpu);
void gpu_flight_finish(struct virtio_gpu *gpu);

/* Submits a request for gpu->command. Without a renderer it vanishes: the next one is told what
 * has come of it. */
void gpu_flight_submit(struct virtio_gpu *gpu, struct gpu_request *request, const void *payload,
                       size_t size, int fd);
bool gpu_flight_render(struct virtio_gpu *gpu, unsigned scanout, virtio_gpu_rendered *rendered,
                       void *opaque);
/* So many are under way that no more commands are to be taken. */
bool gpu_flight_busy(struct virtio_gpu *gpu);
bool gpu_flight_any(struct virtio_gpu *gpu);

/* Handles answers. Loop's thread. */
void gpu_flight_land(struct virtio_gpu *gpu);
/* Frees all chains in flight, which are stale, and forgets what they were for. Any thread. */
void gpu_flight_drop(struct virtio_gpu *gpu);
/* Waits until every request was answered; on return no chain is in flight. Loop's thread; lets go
 * of the lock meanwhile. */
void gpu_flight_quiesce(struct virtio_gpu *gpu);

/* Opens a renderer for the first time; no lock held. */
bool gpu_flight_open(struct virtio_gpu *gpu, struct error *err);
/* Makes guest RAM known to the renderer, if it is not yet; else the device is broken. */
bool gpu_flight_prepare(struct virtio_gpu *gpu);

/* Ends a command without requests that wait for an answer. */
void gpu_command_finish(struct gpu_command *command);
