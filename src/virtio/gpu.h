/*
 * virtio-gpu (virtio 1.2, section 5.7): scanouts, 2D resources, blobs in guest memory, cursors.
 *
 * What the guest made (resources, backings, scanouts, cursors) is kept here, checked and bounded;
 * the pixels are a renderer's. So a renderer that was lost is replaced, and the new one is told
 * everything again, with each picture transferred anew from its backing; the same brings a saved
 * state back.
 */
#pragma once

#include "gpu/gpu.h"
#include "virtio/virtio.h"

/* Bytes that the pictures of one device may take: of those that are not blobs. */
#define VIRTIO_GPU_MAX_MEMORY (UINT64_C(512) << 20)

struct virtio_gpu_config {
    unsigned scanout_count; /* 1..GPU_MAX_SCANOUTS */
    struct {
        uint32_t width, height; /* pixels, 64..GPU_MAX_SIZE: the mode that EDID prefers */
    } sizes[GPU_MAX_SCANOUTS];
    /* Opens a renderer; `again` if the last one was lost. NULL with err set: none is to be had, the
     * device then needs a reset, and tries again with the next one. */
    struct gpu_renderer *(*open)(void *opaque, bool again, struct error *err);
    void *opaque;
};

/* NULL with err set if no renderer is to be had. */
struct virtio_device *virtio_gpu_create(const char *name, const struct virtio_gpu_config *config,
                                        struct loop *loop, struct error *err);

/*
 * What shows scanouts. Told on any thread, with the device's lock held: note it and return.
 */
struct virtio_gpu_viewer {
    /* The guest's picture has another size now; 0 x 0: turned off. */
    void (*changed)(void *opaque, unsigned scanout, uint32_t width, uint32_t height);
    /* There is something to draw. Not told again before the next virtio_gpu_render. */
    void (*damaged)(void *opaque, unsigned scanout);
    void *opaque;
};

/* One viewer; NULL takes it away, and returns when it is no longer called. */
void virtio_gpu_set_viewer(struct virtio_device *device, const struct virtio_gpu_viewer *viewer);

/*
 * A frame was drawn: `rect` of it has changed, which may be empty. The caller of virtio_gpu_render
 * gets it on a thread of the renderer's, with no lock of the device's held; `frame` is NULL if the
 * scanout is off, or the renderer failed. To keep the frame longer, gpu_frame_get.
 */
typedef void virtio_gpu_rendered(void *opaque, struct gpu_frame *frame,
                                 const struct gpu_rect *rect);

/* Draws what is damaged of a scanout. Any thread. `rendered` is called once, perhaps at once. */
void virtio_gpu_render(struct virtio_device *device, unsigned scanout,
                       virtio_gpu_rendered *rendered, void *opaque);

/* The size of the frames of a scanout, to which the guest's picture is scaled; 0 x 0, as it is from
 * the start: the guest's. Any thread. */
void virtio_gpu_set_view(struct virtio_device *device, unsigned scanout, uint32_t width,
                         uint32_t height);

/* Tells the guest that a display has another size now (EDID and a display event), or with 0 x 0
 * that it was unplugged. Any thread. */
void virtio_gpu_resize(struct virtio_device *device, unsigned scanout, uint32_t width,
                       uint32_t height);

/* The guest's picture; 0 x 0 if the scanout is off. Any thread. */
void virtio_gpu_size(struct virtio_device *device, unsigned scanout, uint32_t *width,
                     uint32_t *height);

/* The renderer's statistics. Any thread but the renderer's. */
bool virtio_gpu_stats(struct virtio_device *device, struct gpu_stats *stats, unsigned flags,
                      struct error *err);

/* Starts the renderer's timeline, or ends it: *events, which the caller frees, are JSON objects of
 * Chrome's trace format with a comma between two. `events` may be NULL at the start. */
bool virtio_gpu_trace(struct virtio_device *device, bool start, char **events, struct error *err);
