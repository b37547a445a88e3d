/*
 * The messages between a machine and what draws for it, its renderer.
 *
 * A renderer is a thread of the machine (pixman) or a process (hartvisor-gpu, WebGPU). Both take
 * the same requests, one after the other, and answer each of them, in order. The machine checks
 * what the guest wants before it becomes a request; the renderer checks again (a bad request has a
 * status for an answer, never an effect), since each of the two may be broken without breaking the
 * other.
 *
 * Over a socket (Unix stream, SOCK_CLOEXEC) a message is its header, the rest of its struct, and
 * `size` - sizeof(struct) bytes of payload, in the byte order of the host. A request that says so
 * carries one file descriptor (SCM_RIGHTS) with its first byte.
 *
 * Numbers of types are for ever; new types are added at the end. What comes next (contexts for 3D:
 * create, attach resource, submit commands, capability sets) needs only new types.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hartvisor/gpu.h"

#define GPU_PROTOCOL_VERSION 1
#define GPU_PAYLOAD_MAX      (16u << 20) /* bytes */

#define GPU_MAX_SCANOUTS  16    /* virtio 1.2, section 5.7.4: VIRTIO_GPU_MAX_SCANOUTS */
#define GPU_MAX_SIZE      16384 /* pixels, width and height of anything */
#define GPU_MAX_RESOURCES 16384
#define GPU_MAX_RANGES    262144      /* of a backing */
#define GPU_CURSOR_SIZE   64          /* pixels, width and height of a cursor's picture */
#define GPU_BLACK         0xff000000u /* a pixel of a frame */

/* Pixel formats, with virtio's numbers (section 5.7.6.8). Four bytes a pixel, named in the order in
 * which they lie in memory. X is ignored and counts as opaque. */
enum gpu_format {
    GPU_FORMAT_B8G8R8A8 = 1,
    GPU_FORMAT_B8G8R8X8 = 2,
    GPU_FORMAT_A8R8G8B8 = 3,
    GPU_FORMAT_X8R8G8B8 = 4,
    GPU_FORMAT_R8G8B8A8 = 67,
    GPU_FORMAT_X8B8G8R8 = 68,
    GPU_FORMAT_A8B8G8R8 = 121,
    GPU_FORMAT_R8G8B8X8 = 134,
};

/* Where the channels are in a pixel's four bytes; alpha is -1 where there is none. */
struct gpu_format_layout {
    int8_t red, green, blue, alpha;
};

/* NULL if there is no such format. */
const struct gpu_format_layout *gpu_format_layout(uint32_t format);

struct gpu_rect {
    uint32_t x, y, width, height;
};

static inline bool gpu_rect_empty(const struct gpu_rect *rect)
{
    return !rect->width || !rect->height;
}

/* Whether it lies in a width x height picture. No sum overflows. */
bool gpu_rect_within(const struct gpu_rect *rect, uint32_t width, uint32_t height);
/* The smallest that holds both; an empty one adds nothing. */
struct gpu_rect gpu_rect_union(const struct gpu_rect *a, const struct gpu_rect *b);
struct gpu_rect gpu_rect_intersection(const struct gpu_rect *a, const struct gpu_rect *b);

/* A piece of guest RAM; a backing is a list of them. */
struct gpu_range {
    uint64_t gpa;
    uint64_t size; /* bytes, not 0 */
};

enum gpu_request_type {
    /* Ends nothing and changes nothing: answered when all before it is done. */
    GPU_REQUEST_FENCE = 1,
    /* The adapters that there are. The answer's payload: struct gpu_adapter_info, one for each. */
    GPU_REQUEST_ADAPTERS = 2,
    /* `open`: opens adapters; once, before all that follows. From then on the renderer lets go of
     * what it no longer needs (no programs, no sockets, no files to write). */
    GPU_REQUEST_OPEN = 3,
    /* `memory`, with a descriptor: guest RAM, which may only be read. */
    GPU_REQUEST_MEMORY = 4,
    /* `output`, with a descriptor of shared memory: the picture that a scanout's frames are drawn
     * into, GPU_FORMAT_B8G8R8X8. Replaces a former one. All of the scanout is damaged then. */
    GPU_REQUEST_OUTPUT = 5,
    /* `resource`: a picture of the renderer's, black. */
    GPU_REQUEST_RESOURCE = 6,
    /* `blob`: a resource that is its backing's bytes. */
    GPU_REQUEST_BLOB = 7,
    /* `id`: destroys a resource. Scanouts that show it are turned off; cursors have their own copy.
     */
    GPU_REQUEST_DESTROY = 8,
    /* `backing`, payload: struct gpu_range, `count` of them. 0 takes the backing away. */
    GPU_REQUEST_BACKING = 9,
    /* `transfer`: copies from the backing to the picture. Row n of the rectangle begins at offset +
     * n * 4 * width of the resource. */
    GPU_REQUEST_TRANSFER = 10,
    /* `scanout`: what a scanout shows. */
    GPU_REQUEST_SCANOUT = 11,
    /* `flush`: a rectangle of a resource has changed; on scanouts that show it, it is damaged. */
    GPU_REQUEST_FLUSH = 12,
    /* `cursor`: takes the resource's picture (GPU_CURSOR_SIZE squared) as it is now, and shows it.
     */
    GPU_REQUEST_CURSOR = 13,
    /* `cursor`, of which only scanout, x and y count. */
    GPU_REQUEST_CURSOR_MOVE = 14,
    /* `scanout.scanout`: draws what is damaged into the output. The answer's `rect` is what was
     * drawn, empty if nothing was. */
    GPU_REQUEST_RENDER = 15,
    /* `flags`: GPU_STATS_RESET. The answer's payload: struct gpu_stats. */
    GPU_REQUEST_STATS = 16,
    /* `flags`: GPU_TRACE_START or 0, which ends it. The answer's payload when it ends: events of
     * Chrome's trace format, JSON objects with a comma between two. */
    GPU_REQUEST_TRACE = 17,
};

#define GPU_STATS_RESET 1 /* counters start anew, after they were told; what is alive stays */
#define GPU_TRACE_START 1

/* How resources and scanouts are spread over several adapters. */
enum gpu_spread {
    GPU_SPREAD_NONE = 0, /* all on the first of the list */
    GPU_SPREAD_LOAD = 1, /* each new one on the adapter with the least load */
};

#define GPU_MAX_ADAPTERS 8

struct gpu_request {
    uint32_t type;   /* enum gpu_request_type */
    uint32_t size;   /* bytes of the message, this struct and the payload */
    uint64_t serial; /* the answer carries it */
    union {
        uint32_t id;
        uint32_t flags;
        struct {
            uint32_t version; /* GPU_PROTOCOL_VERSION */
            uint32_t spread;  /* enum gpu_spread */
            uint32_t count;
            uint32_t adapters[GPU_MAX_ADAPTERS]; /* indices; one may be there twice */
        } open;
        struct {
            uint64_t gpa, size; /* pages */
            uint64_t offset;    /* in the descriptor */
        } memory;
        struct {
            uint32_t scanout;
            uint32_t width, height; /* the scanout is scaled to this size */
            uint32_t stride;        /* bytes, a multiple of 4 */
        } output;
        struct {
            uint32_t id; /* not 0 */
            uint32_t format, width, height;
        } resource;
        struct {
            uint32_t id;
            uint64_t size; /* bytes */
        } blob;
        struct {
            uint32_t id;
            uint32_t count;
        } backing;
        struct {
            uint32_t id;
            struct gpu_rect rect;
            uint64_t offset;
        } transfer;
        struct {
            uint32_t scanout;
            uint32_t id; /* 0: turned off */
            struct gpu_rect rect;
            /* Of a blob, else 0: its bytes as a picture. */
            uint32_t format, width, height, stride;
            uint64_t offset;
        } scanout;
        struct {
            uint32_t id;
            struct gpu_rect rect;
        } flush;
        struct {
            uint32_t scanout;
            uint32_t id;  /* 0: hidden */
            int32_t x, y; /* of the hot spot, in the scanout's pixels */
            uint32_t hot_x, hot_y;
        } cursor;
    };
};

enum gpu_status {
    GPU_OK = 0,
    GPU_BAD_REQUEST = 1,   /* against the rules above */
    GPU_OUT_OF_MEMORY = 2, /* of the adapter's or the host's */
    GPU_FAILED = 3,        /* the adapter did not do it; `message` says why */
    GPU_LOST = 4,          /* never sent: the renderer went away before it answered */
};

struct gpu_answer {
    uint32_t type; /* the request's */
    uint32_t size; /* bytes of the message */
    uint64_t serial;
    uint32_t status; /* enum gpu_status */
    struct gpu_rect rect;
    char message[236]; /* of a status that is not GPU_OK */
};
