/* Private to the canvas: its pictures, and what it has on each adapter. */
#pragma once

#include "renderer/renderer.h"

#define ROW_ALIGNMENT 256 /* of rows in buffers that are copied (WebGPU, section 11.2) */
#define STAGING_COUNT 64
#define OUTPUT_COUNT  8

/* A texture whose texels are the four bytes of pixels, the first one lowest; or, where the device
 * draws from the processor's memory, a buffer of them, which is written without a detour. */
struct gpu_image {
    unsigned slot;
    uint32_t width, height;
    struct gpu_format_layout layout;
    WGPUBuffer buffer; /* NULL: it is a texture */
    bool mapped;       /* while no command uses it */
    WGPUTexture texture;
    WGPUTextureView view;
    uint64_t written; /* the slot's `submissions` when the texture last was */
};

enum staging_state {
    STAGING_MAPPED,    /* may be written */
    STAGING_WRITTEN,   /* to be submitted */
    STAGING_SUBMITTED, /* until the device has read it */
    STAGING_BROKEN,    /* the device did not give it back */
};

/* A buffer that pictures are uploaded from. */
struct staging {
    WGPUBuffer buffer; /* NULL: none */
    uint64_t size;
    enum staging_state state;
    WGPUSubmissionIndex submission;
};

/* The texture that frames of one size are drawn into. */
struct output {
    WGPUTexture texture; /* NULL: none */
    WGPUTextureView view;
    uint32_t width, height;
    uint64_t used; /* the larger, the later */
};

/* What is drawn with on one adapter. An adapter that was named twice has two slots. */
struct slot {
    struct gpu_device *device;
    struct gpu_adapter_load *load;
    struct staging staging[STAGING_COUNT];
    uint64_t staging_size;
    struct staging *writing; /* begun, and not ended */
    size_t writing_stride;
    WGPUCommandEncoder encoder; /* NULL: nothing is recorded */
    uint64_t recorded;          /* bytes of uploads in it */
    uint64_t submissions;       /* so far; an encoder's will be the next */
    uint64_t retired;           /* bytes of pictures that ended since the device was waited for */
    struct output outputs[OUTPUT_COUNT];
    uint64_t uses, outputs_size;
    WGPUBuffer params;
    WGPUBuffer readback; /* NULL until one is needed */
    uint64_t readback_size;
    WGPUQuerySet times; /* NULL: passes are not timed */
    WGPUBuffer times_resolved, times_readback;
    bool readback_mapped, times_mapped;
};

struct wgpu_canvas {
    struct gpu_canvas base;
    struct gpu_canvas_ops ops; /* with the number of adapters */
    struct slot slots[GPU_MAX_ADAPTERS];
    unsigned slot_count;
};

static inline struct wgpu_canvas *canvas_of(struct gpu_canvas *canvas)
{
    return container_of(canvas, struct wgpu_canvas, base);
}

static inline WGPUTexelCopyTextureInfo texture_part(WGPUTexture texture,
                                                    const struct gpu_rect *rect)
{
    return (WGPUTexelCopyTextureInfo){
        .texture = texture, .origin = {rect->x, rect->y, 0}, .aspect = WGPUTextureAspect_All};
}

static inline WGPUTexelCopyBufferInfo buffer_rows(WGPUBuffer buffer, size_t stride, uint32_t rows)
{
    return (WGPUTexelCopyBufferInfo){.buffer = buffer, .layout = {0, (uint32_t)stride, rows}};
}

/* --- slot.c --- */

bool slot_failed(struct gpu_canvas *canvas, struct slot *slot);
uint64_t slot_buffer_size(const struct slot *slot, uint64_t size);
WGPUBuffer slot_make_buffer(struct slot *slot, uint64_t size, WGPUBufferUsage usage, bool mapped);
void slot_drop_buffer(struct slot *slot, WGPUBuffer *buffer, uint64_t size);
WGPUTexture slot_make_texture(struct slot *slot, uint32_t width, uint32_t height,
                              WGPUTextureUsage usage, WGPUTextureView *view);
void slot_drop_texture(struct slot *slot, WGPUTexture texture, WGPUTextureView view, uint32_t width,
                       uint32_t height);
bool slot_fits(struct gpu_canvas *canvas, const struct slot *slot, uint32_t width, uint32_t height);
WGPUCommandEncoder slot_encoder(struct slot *slot);
void slot_submit(struct gpu_canvas *canvas, struct slot *slot);
void slot_wait(struct gpu_canvas *canvas, struct slot *slot, const WGPUSubmissionIndex *submission);

/* --- picture.c --- */

struct gpu_image *picture_create(struct gpu_canvas *canvas, unsigned adapter, uint32_t format,
                                 uint32_t width, uint32_t height);
void picture_destroy(struct gpu_canvas *canvas, struct gpu_image *image);
uint8_t *picture_write_begin(struct gpu_canvas *canvas, struct gpu_image *image,
                             const struct gpu_rect *rect, size_t *stride);
bool picture_map(struct gpu_canvas *canvas, struct gpu_image *image);
/* Before commands use it. */
void picture_unmap(struct gpu_image *image);
void picture_write_end(struct gpu_canvas *canvas, struct gpu_image *image,
                       const struct gpu_rect *rect);

/* --- frame.c --- */

bool picture_read(struct gpu_canvas *canvas, struct gpu_image *image, uint8_t *pixels);
bool frame_compose(struct gpu_canvas *canvas, const struct gpu_composition *what,
                   const struct gpu_rect *damage, uint8_t *pixels, size_t stride);

/* What frames need on each adapter. An error is the device's. */
void frame_init(struct slot *slot);
void frame_finish(struct slot *slot);
