/* Pictures as textures, frames as render passes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "renderer/renderer.h"

#define ROW_ALIGNMENT 256 /* of rows in buffers that are copied (WebGPU, section 11.2) */
#define BUFFER_MIN    (UINT64_C(64) << 10)
#define STAGING_MOST  (UINT64_C(64) << 20) /* bytes of a slot's buffers together */
#define STAGING_COUNT 64
#define SUBMIT_AFTER  (UINT64_C(4) << 20) /* bytes of uploads */
/* Bytes that the device may still have to read before more is written: few buffers in turn stay in
 * the processor's caches. */
#define FLYING_MOST   (UINT64_C(12) << 20)
#define OUTPUT_COUNT  8
#define OUTPUT_MOST   (UINT64_C(256) << 20) /* bytes, of outputs but the one that is needed */
#define READBACK_KEPT (UINT64_C(64) << 20)  /* bytes */
#define RETIRED_MOST  (UINT64_C(64) << 20)  /* bytes of pictures that the device may still hold */

/* A texture whose texels are the four bytes of pixels, the first one lowest. */
struct gpu_image {
    unsigned slot;
    uint64_t written; /* the slot's `submissions` when it last was */
    uint32_t width, height;
    struct gpu_format_layout layout;
    WGPUTexture texture;
    WGPUTextureView view;
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

/* Struct Params of the shader. */
struct params {
    uint32_t source[4];
    int32_t scale[2];
    uint32_t opaque, unused;
    int32_t cursor[4];
    uint32_t shift[4], cursor_shift[4];
};

static struct wgpu_canvas *canvas_of(struct gpu_canvas *canvas)
{
    return container_of(canvas, struct wgpu_canvas, base);
}

static void count_memory(struct slot *slot, int64_t bytes)
{
    slot->load->memory += (uint64_t)bytes;
    if (slot->load->memory_peak < slot->load->memory)
        slot->load->memory_peak = slot->load->memory;
}

static bool failed(struct gpu_canvas *canvas, struct slot *slot)
{
    return gpu_device_take_error(slot->device, canvas->message, sizeof(canvas->message));
}

/* --- Buffers and textures ----------------------------------------------------------------------
 */

/* Sizes to choose from are few, so that buffers fit again. */
static uint64_t buffer_size(const struct slot *slot, uint64_t size)
{
    uint64_t rounded = BUFFER_MIN;
    while (rounded < size)
        rounded *= 2;
    return rounded > slot->device->max_buffer_size ? align_up(size, 4) : rounded;
}

static WGPUBuffer make_buffer(struct slot *slot, uint64_t size, WGPUBufferUsage usage, bool mapped)
{
    const WGPUBufferDescriptor descriptor = {
        .usage = usage, .size = size, .mappedAtCreation = mapped};
    WGPUBuffer buffer = wgpuDeviceCreateBuffer(slot->device->handle, &descriptor);
    if (buffer) {
        slot->load->buffers++;
        count_memory(slot, (int64_t)size);
    }
    return buffer;
}

static void drop_buffer(struct slot *slot, WGPUBuffer *buffer, uint64_t size)
{
    if (!*buffer)
        return;
    wgpuBufferDestroy(*buffer);
    wgpuBufferRelease(*buffer);
    *buffer = NULL;
    slot->load->buffers--;
    count_memory(slot, -(int64_t)size);
}

static WGPUTexture make_texture(struct slot *slot, uint32_t width, uint32_t height,
                                WGPUTextureUsage usage, WGPUTextureView *view)
{
    const WGPUTextureDescriptor descriptor = {
        .usage = usage,
        .dimension = WGPUTextureDimension_2D,
        .size = {width, height, 1},
        .format = WGPUTextureFormat_R32Uint,
        .mipLevelCount = 1,
        .sampleCount = 1,
    };
    WGPUTexture texture = wgpuDeviceCreateTexture(slot->device->handle, &descriptor);
    *view = wgpuTextureCreateView(texture, NULL);
    slot->load->textures++;
    count_memory(slot, (int64_t)width * height * 4);
    return texture;
}

static void drop_texture(struct slot *slot, WGPUTexture texture, WGPUTextureView view,
                         uint32_t width, uint32_t height)
{
    wgpuTextureViewRelease(view);
    wgpuTextureDestroy(texture);
    wgpuTextureRelease(texture);
    slot->load->textures--;
    count_memory(slot, -((int64_t)width * height * 4));
}

static bool fits(struct gpu_canvas *canvas, const struct slot *slot, uint32_t width,
                 uint32_t height)
{
    uint32_t most = slot->device->max_texture_size;
    if (width <= most && height <= most)
        return true;
    snprintf(canvas->message, sizeof(canvas->message),
             "%s draws pictures of at most %ux%u pixels, not %ux%u", slot->device->name, most, most,
             width, height);
    return false;
}

static struct gpu_image *image_create(struct gpu_canvas *canvas, unsigned adapter, uint32_t format,
                                      uint32_t width, uint32_t height)
{
    struct slot *slot = &canvas_of(canvas)->slots[adapter];
    if (!fits(canvas, slot, width, height))
        return NULL;
    struct gpu_image *image = xcalloc(1, sizeof(*image));
    *image = (struct gpu_image){
        .slot = adapter, .width = width, .height = height, .layout = *gpu_format_layout(format)};
    image->texture = make_texture(slot, width, height,
                                  WGPUTextureUsage_TextureBinding | WGPUTextureUsage_CopyDst |
                                      WGPUTextureUsage_CopySrc,
                                  &image->view);
    if (!failed(canvas, slot))
        return image;
    drop_texture(slot, image->texture, image->view, width, height);
    free(image);
    return NULL;
}

/* --- Submitting --------------------------------------------------------------------------------
 */

static WGPUCommandEncoder encoder_of(struct slot *slot)
{
    if (!slot->encoder)
        slot->encoder = wgpuDeviceCreateCommandEncoder(slot->device->handle, NULL);
    return slot->encoder;
}

static void on_staging_mapped(WGPUMapAsyncStatus status, WGPUStringView message, void *opaque,
                              void *unused)
{
    struct staging *staging = opaque;
    staging->state = status == WGPUMapAsyncStatus_Success ? STAGING_MAPPED : STAGING_BROKEN;
}

/* What was written has been submitted; buffers come back, mapped, when the device has read them. */
static void await_staging(struct slot *slot, WGPUSubmissionIndex submission)
{
    for (size_t i = 0; i < STAGING_COUNT; i++) {
        struct staging *staging = &slot->staging[i];
        if (!staging->buffer || staging->state != STAGING_WRITTEN)
            continue;
        staging->state = STAGING_SUBMITTED;
        staging->submission = submission;
        const WGPUBufferMapCallbackInfo done = {.mode = WGPUCallbackMode_AllowSpontaneous,
                                                .callback = on_staging_mapped,
                                                .userdata1 = staging};
        wgpuBufferMapAsync(staging->buffer, WGPUMapMode_Write, 0, staging->size, done);
    }
}

static void submit(struct gpu_canvas *canvas, struct slot *slot)
{
    if (!slot->encoder)
        return;
    uint64_t start = gpu_trace_now();
    WGPUSubmissionIndex submission = 0;
    unsigned errors = slot->device->error_count;
    WGPUCommandBuffer commands = wgpuCommandEncoderFinish(slot->encoder, NULL);
    /* Submitting what has an error in it would end the process. */
    if (errors == slot->device->error_count) {
        submission = wgpuQueueSubmitForIndex(slot->device->queue, 1, &commands);
        canvas->counters->command_buffers++;
    }
    wgpuCommandBufferRelease(commands);
    wgpuCommandEncoderRelease(slot->encoder);
    slot->encoder = NULL;
    slot->recorded = 0;
    slot->submissions++;
    await_staging(slot, submission);
    gpu_trace_span(canvas->trace, "submit", -1, start);
}

/* Waits for a submission; NULL: for all. */
static void wait_for(struct gpu_canvas *canvas, struct slot *slot,
                     const WGPUSubmissionIndex *submission)
{
    uint64_t start = gpu_trace_now();
    gpu_device_wait(slot->device, submission);
    if (!submission)
        slot->retired = 0;
    slot->load->queue_ns += gpu_trace_now() - start;
    gpu_trace_span(canvas->trace, "wait", -1, start);
}

static void image_destroy(struct gpu_canvas *canvas, struct gpu_image *image)
{
    struct slot *slot = &canvas_of(canvas)->slots[image->slot];
    /* Commands must not name what is destroyed when they are submitted. */
    if (slot->encoder && image->written == slot->submissions)
        submit(canvas, slot);
    drop_texture(slot, image->texture, image->view, image->width, image->height);
    /* The device holds it until it has done what was submitted. */
    slot->retired += (uint64_t)image->width * image->height * 4;
    free(image);
    if (slot->retired > RETIRED_MOST)
        wait_for(canvas, slot, NULL);
}

/* --- Uploads -----------------------------------------------------------------------------------
 */

static struct staging *find_staging(struct slot *slot, uint64_t size)
{
    struct staging *best = NULL;
    for (size_t i = 0; i < STAGING_COUNT; i++) {
        struct staging *staging = &slot->staging[i];
        if (staging->buffer && staging->state == STAGING_MAPPED && staging->size >= size &&
            (!best || staging->size < best->size))
            best = staging;
    }
    return best;
}

static void drop_staging(struct slot *slot, struct staging *staging)
{
    slot->staging_size -= staging->size;
    drop_buffer(slot, &staging->buffer, staging->size);
}

/* A place for a buffer of that size, for which others that are not in use may have to go; NULL if
 * there is none. */
static struct staging *make_room(struct slot *slot, uint64_t size)
{
    struct staging *place = NULL;
    for (size_t i = 0; i < STAGING_COUNT; i++)
        if (!slot->staging[i].buffer)
            place = &slot->staging[i];
    for (size_t i = 0; i < STAGING_COUNT; i++) {
        struct staging *staging = &slot->staging[i];
        bool idle = staging->buffer &&
                    (staging->state == STAGING_MAPPED || staging->state == STAGING_BROKEN);
        if (idle && (!place || slot->staging_size + size > STAGING_MOST ||
                     staging->state == STAGING_BROKEN)) {
            drop_staging(slot, staging);
            place = staging;
        }
    }
    return slot->staging_size && slot->staging_size + size > STAGING_MOST ? NULL : place;
}

static struct staging *make_staging(struct slot *slot, uint64_t size)
{
    uint64_t rounded = buffer_size(slot, size);
    struct staging *place = make_room(slot, rounded);
    if (!place)
        return NULL;
    unsigned errors = slot->device->error_count;
    place->buffer =
        make_buffer(slot, rounded, WGPUBufferUsage_MapWrite | WGPUBufferUsage_CopySrc, true);
    place->size = rounded;
    place->state = STAGING_MAPPED;
    slot->staging_size += rounded;
    if (errors == slot->device->error_count)
        return place;
    drop_staging(slot, place);
    return NULL;
}

/* The one that the device will be done with first; *flying is the size of all such. */
static struct staging *oldest_staging(struct slot *slot, uint64_t *flying)
{
    struct staging *oldest = NULL;
    *flying = 0;
    for (size_t i = 0; i < STAGING_COUNT; i++) {
        struct staging *staging = &slot->staging[i];
        if (!staging->buffer || staging->state != STAGING_SUBMITTED)
            continue;
        *flying += staging->size;
        if (!oldest || staging->submission < oldest->submission)
            oldest = staging;
    }
    return oldest;
}

/* One that may be written, after a wait where that is better than more buffers; NULL if there is no
 * memory. */
static struct staging *take_staging(struct gpu_canvas *canvas, struct slot *slot, uint64_t size)
{
    uint64_t flying;
    wgpuDevicePoll(slot->device->handle, false, NULL);
    for (;;) {
        struct staging *oldest = oldest_staging(slot, &flying);
        struct staging *staging = find_staging(slot, size);
        if (!staging && (flying < FLYING_MOST || !oldest))
            staging = make_staging(slot, size);
        if (staging || slot->device->error[0])
            return staging;
        if (!oldest && !slot->encoder)
            return NULL;
        if (!oldest) {
            submit(canvas, slot);
            continue;
        }
        wait_for(canvas, slot, &oldest->submission);
        if (oldest->state == STAGING_SUBMITTED)
            return NULL;
    }
}

static uint8_t *write_begin(struct gpu_canvas *canvas, struct gpu_image *image,
                            const struct gpu_rect *rect, size_t *stride)
{
    struct slot *slot = &canvas_of(canvas)->slots[image->slot];
    *stride = align_up((size_t)rect->width * 4, ROW_ALIGNMENT);
    uint64_t size = *stride * rect->height;
    if (size > slot->device->max_buffer_size) {
        snprintf(canvas->message, sizeof(canvas->message),
                 "%s takes uploads of at most %llu MiB, not %llu", slot->device->name,
                 (unsigned long long)(slot->device->max_buffer_size >> 20),
                 (unsigned long long)(size >> 20));
        return NULL;
    }
    struct staging *staging = take_staging(canvas, slot, size);
    if (failed(canvas, slot) || !staging)
        return NULL;
    slot->writing = staging;
    slot->writing_stride = *stride;
    return wgpuBufferGetMappedRange(staging->buffer, 0, size);
}

static WGPUTexelCopyTextureInfo texture_part(WGPUTexture texture, const struct gpu_rect *rect)
{
    return (WGPUTexelCopyTextureInfo){
        .texture = texture, .origin = {rect->x, rect->y, 0}, .aspect = WGPUTextureAspect_All};
}

static WGPUTexelCopyBufferInfo buffer_rows(WGPUBuffer buffer, size_t stride, uint32_t rows)
{
    return (WGPUTexelCopyBufferInfo){.buffer = buffer, .layout = {0, (uint32_t)stride, rows}};
}

static void write_end(struct gpu_canvas *canvas, struct gpu_image *image,
                      const struct gpu_rect *rect)
{
    struct slot *slot = &canvas_of(canvas)->slots[image->slot];
    const WGPUTexelCopyBufferInfo from =
        buffer_rows(slot->writing->buffer, slot->writing_stride, rect->height);
    const WGPUTexelCopyTextureInfo to = texture_part(image->texture, rect);
    const WGPUExtent3D size = {rect->width, rect->height, 1};
    wgpuBufferUnmap(slot->writing->buffer);
    slot->writing->state = STAGING_WRITTEN;
    slot->writing = NULL;
    wgpuCommandEncoderCopyBufferToTexture(encoder_of(slot), &from, &to, &size);
    image->written = slot->submissions;
    slot->recorded += slot->writing_stride * rect->height;
    if (slot->recorded >= SUBMIT_AFTER)
        submit(canvas, slot);
}

/* --- Reading back ------------------------------------------------------------------------------
 */

static bool grow_readback(struct gpu_canvas *canvas, struct slot *slot, uint64_t size)
{
    if (slot->readback && slot->readback_size >= size)
        return true;
    drop_buffer(slot, &slot->readback, slot->readback_size);
    slot->readback_size = buffer_size(slot, size);
    slot->readback = make_buffer(slot, slot->readback_size,
                                 WGPUBufferUsage_MapRead | WGPUBufferUsage_CopyDst, false);
    if (!failed(canvas, slot))
        return true;
    drop_buffer(slot, &slot->readback, slot->readback_size);
    return false;
}

static void on_mapped(WGPUMapAsyncStatus status, WGPUStringView message, void *opaque, void *unused)
{
    *(bool *)opaque = status == WGPUMapAsyncStatus_Success;
}

static void map_read(WGPUBuffer buffer, uint64_t size, bool *mapped)
{
    const WGPUBufferMapCallbackInfo done = {
        .mode = WGPUCallbackMode_AllowSpontaneous, .callback = on_mapped, .userdata1 = mapped};
    *mapped = false;
    wgpuBufferMapAsync(buffer, WGPUMapMode_Read, 0, size, done);
}

#define TIMES_SIZE (2 * sizeof(uint64_t))

static void record_times(struct slot *slot)
{
    if (!slot->times)
        return;
    wgpuCommandEncoderResolveQuerySet(encoder_of(slot), slot->times, 0, 2, slot->times_resolved, 0);
    wgpuCommandEncoderCopyBufferToBuffer(encoder_of(slot), slot->times_resolved, 0,
                                         slot->times_readback, 0, TIMES_SIZE);
}

/* Before the pass is waited for. */
static void map_times(struct slot *slot)
{
    if (slot->times)
        map_read(slot->times_readback, TIMES_SIZE, &slot->times_mapped);
}

/* After it was. */
static void add_times(struct gpu_canvas *canvas, struct slot *slot)
{
    if (!slot->times_mapped)
        return;
    const uint64_t *ticks = wgpuBufferGetConstMappedRange(slot->times_readback, 0, TIMES_SIZE);
    if (ticks[1] >= ticks[0]) {
        canvas->counters->gpu_time_ns +=
            (uint64_t)((double)(ticks[1] - ticks[0]) * slot->device->timestamp_ns);
        canvas->counters->passes_timed++;
    }
    wgpuBufferUnmap(slot->times_readback);
    slot->times_mapped = false;
}

static size_t readback_stride(const struct gpu_rect *rect)
{
    return align_up((size_t)rect->width * 4, ROW_ALIGNMENT);
}

/* Records the copy of a rectangle of a texture into the readback buffer, which is large enough. */
static void record_readback(struct slot *slot, WGPUTexture texture, const struct gpu_rect *rect)
{
    const WGPUTexelCopyTextureInfo from = texture_part(texture, rect);
    const WGPUTexelCopyBufferInfo to =
        buffer_rows(slot->readback, readback_stride(rect), rect->height);
    const WGPUExtent3D size = {rect->width, rect->height, 1};
    wgpuCommandEncoderCopyTextureToBuffer(encoder_of(slot), &from, &to, &size);
}

static void copy_rows(struct gpu_canvas *canvas, const struct slot *slot,
                      const struct gpu_rect *rect, uint8_t *pixels, size_t pixels_stride)
{
    uint64_t start = gpu_trace_now();
    size_t stride = readback_stride(rect), row = (size_t)rect->width * 4;
    const uint8_t *rows = wgpuBufferGetConstMappedRange(slot->readback, 0, stride * rect->height);
    for (uint32_t y = 0; y < rect->height; y++)
        memcpy(pixels + y * pixels_stride, rows + y * stride, row);
    canvas->counters->bytes_read_back += row * rect->height;
    gpu_trace_span(canvas->trace, "read back", -1, start);
}

/* Submits, waits, and copies the rows to `pixels`. */
static bool finish_readback(struct gpu_canvas *canvas, struct slot *slot,
                            const struct gpu_rect *rect, uint8_t *pixels, size_t pixels_stride,
                            bool timed)
{
    unsigned errors = slot->device->error_count;
    submit(canvas, slot);
    if (errors == slot->device->error_count) {
        map_read(slot->readback, readback_stride(rect) * rect->height, &slot->readback_mapped);
        if (timed)
            map_times(slot);
        wait_for(canvas, slot, NULL);
    }
    add_times(canvas, slot);
    bool ok = !failed(canvas, slot) && slot->readback_mapped;
    if (ok)
        copy_rows(canvas, slot, rect, pixels, pixels_stride);
    if (slot->readback_mapped)
        wgpuBufferUnmap(slot->readback);
    slot->readback_mapped = false;
    if (slot->readback_size > READBACK_KEPT)
        drop_buffer(slot, &slot->readback, slot->readback_size);
    return ok;
}

static bool read_image(struct gpu_canvas *canvas, struct gpu_image *image, uint8_t *pixels)
{
    struct slot *slot = &canvas_of(canvas)->slots[image->slot];
    const struct gpu_rect all = {0, 0, image->width, image->height};
    if (!grow_readback(canvas, slot, readback_stride(&all) * all.height))
        return false;
    record_readback(slot, image->texture, &all);
    return finish_readback(canvas, slot, &all, pixels, (size_t)image->width * 4, false);
}

/* --- Frames ------------------------------------------------------------------------------------
 */

static void drop_output(struct slot *slot, struct output *output)
{
    slot->outputs_size -= (uint64_t)output->width * output->height * 4;
    drop_texture(slot, output->texture, output->view, output->width, output->height);
    *output = (struct output){0};
}

/* A place for one of that size. Those that were not used for longest give way. */
static struct output *make_output_room(struct slot *slot, uint64_t size)
{
    for (;;) {
        struct output *place = NULL, *oldest = NULL;
        for (size_t i = 0; i < OUTPUT_COUNT; i++) {
            struct output *output = &slot->outputs[i];
            if (!output->texture)
                place = output;
            else if (!oldest || output->used < oldest->used)
                oldest = output;
        }
        if (place && (!oldest || slot->outputs_size + size <= OUTPUT_MOST))
            return place;
        drop_output(slot, oldest);
    }
}

/* The texture for frames of that size; NULL if it cannot be made. */
static struct output *find_output(struct gpu_canvas *canvas, struct slot *slot, uint32_t width,
                                  uint32_t height)
{
    for (size_t i = 0; i < OUTPUT_COUNT; i++) {
        struct output *output = &slot->outputs[i];
        if (output->texture && output->width == width && output->height == height) {
            output->used = ++slot->uses;
            return output;
        }
    }
    uint64_t size = (uint64_t)width * height * 4;
    struct output *output = make_output_room(slot, size);
    output->texture =
        make_texture(slot, width, height,
                     WGPUTextureUsage_RenderAttachment | WGPUTextureUsage_CopySrc, &output->view);
    output->width = width;
    output->height = height;
    output->used = ++slot->uses;
    slot->outputs_size += size;
    if (!failed(canvas, slot))
        return output;
    drop_output(slot, output);
    return NULL;
}

/* Shifts that bring a texel's channels down. */
static void set_shift(uint32_t shift[4], const struct gpu_format_layout *layout)
{
    shift[0] = (uint32_t)layout->red * 8;
    shift[1] = (uint32_t)layout->green * 8;
    shift[2] = (uint32_t)layout->blue * 8;
    shift[3] = layout->alpha < 0 ? 0 : (uint32_t)layout->alpha * 8;
}

static bool is_scaled(const struct gpu_composition *what)
{
    return what->source.width != what->width || what->source.height != what->height;
}

static void set_params(struct slot *slot, const struct gpu_composition *what)
{
    struct params params = {
        .source = {what->source.x, what->source.y, what->source.width, what->source.height},
        .scale = {(int32_t)(((uint64_t)what->source.width << 16) / what->width),
                  (int32_t)(((uint64_t)what->source.height << 16) / what->height)},
    };
    set_shift(params.shift, &what->image->layout);
    if (what->cursor) {
        params.cursor[0] = what->cursor_x;
        params.cursor[1] = what->cursor_y;
        params.cursor[2] = (int32_t)what->cursor->width;
        params.cursor[3] = (int32_t)what->cursor->height;
        set_shift(params.cursor_shift, &what->cursor->layout);
        params.opaque = what->cursor->layout.alpha < 0 ? 0xff : 0;
    }
    wgpuQueueWriteBuffer(slot->device->queue, slot->params, 0, &params, sizeof(params));
}

static void record_pass(struct gpu_canvas *canvas, struct slot *slot,
                        const struct gpu_composition *what, const struct gpu_rect *damage,
                        const struct output *output)
{
    const WGPUBindGroupEntry entries[] = {
        {.binding = 0, .buffer = slot->params, .size = sizeof(struct params)},
        {.binding = 1, .textureView = what->image->view},
        {.binding = 2, .textureView = (what->cursor ? what->cursor : what->image)->view},
    };
    const WGPUBindGroupDescriptor descriptor = {
        .layout = slot->device->layout, .entryCount = ARRAY_SIZE(entries), .entries = entries};
    WGPUBindGroup group = wgpuDeviceCreateBindGroup(slot->device->handle, &descriptor);
    const WGPURenderPassColorAttachment target = {.view = output->view,
                                                  .depthSlice = WGPU_DEPTH_SLICE_UNDEFINED,
                                                  .loadOp = WGPULoadOp_Load,
                                                  .storeOp = WGPUStoreOp_Store};
    const WGPUPassTimestampWrites times = {
        .querySet = slot->times, .beginningOfPassWriteIndex = 0, .endOfPassWriteIndex = 1};
    const WGPURenderPassDescriptor pass_descriptor = {.colorAttachmentCount = 1,
                                                      .colorAttachments = &target,
                                                      .timestampWrites =
                                                          slot->times ? &times : NULL};
    WGPURenderPassEncoder pass =
        wgpuCommandEncoderBeginRenderPass(encoder_of(slot), &pass_descriptor);
    wgpuRenderPassEncoderSetPipeline(
        pass, slot->device->pipelines[is_scaled(what)][what->cursor != NULL]);
    wgpuRenderPassEncoderSetBindGroup(pass, 0, group, 0, NULL);
    wgpuRenderPassEncoderSetScissorRect(pass, damage->x, damage->y, damage->width, damage->height);
    wgpuRenderPassEncoderDraw(pass, 3, 1, 0, 0);
    wgpuRenderPassEncoderEnd(pass);
    wgpuRenderPassEncoderRelease(pass);
    wgpuBindGroupRelease(group);
    canvas->counters->render_passes++;
    canvas->counters->draws++;
}

static bool compose(struct gpu_canvas *canvas, const struct gpu_composition *what,
                    const struct gpu_rect *damage, uint8_t *pixels, size_t stride)
{
    struct slot *slot = &canvas_of(canvas)->slots[what->image->slot];
    if (!fits(canvas, slot, what->width, what->height) ||
        !grow_readback(canvas, slot, readback_stride(damage) * damage->height))
        return false;
    struct output *output = find_output(canvas, slot, what->width, what->height);
    if (!output)
        return false;
    /* The parameters are written before what is submitted next. */
    set_params(slot, what);
    record_pass(canvas, slot, what, damage, output);
    record_times(slot);
    record_readback(slot, output->texture, damage);
    return finish_readback(canvas, slot, damage,
                           pixels + damage->y * stride + (size_t)damage->x * 4, stride, true);
}

/* --- The canvas --------------------------------------------------------------------------------
 */

static void make_timers(struct slot *slot)
{
    const WGPUQuerySetDescriptor descriptor = {.type = WGPUQueryType_Timestamp, .count = 2};
    if (!(slot->device->timestamp_ns > 0))
        return;
    slot->times = wgpuDeviceCreateQuerySet(slot->device->handle, &descriptor);
    slot->times_resolved = make_buffer(
        slot, TIMES_SIZE, WGPUBufferUsage_QueryResolve | WGPUBufferUsage_CopySrc, false);
    slot->times_readback =
        make_buffer(slot, TIMES_SIZE, WGPUBufferUsage_MapRead | WGPUBufferUsage_CopyDst, false);
}

static void slot_finish(struct slot *slot)
{
    if (!slot->device)
        return;
    if (slot->encoder)
        wgpuCommandEncoderRelease(slot->encoder);
    gpu_device_wait(slot->device, NULL);
    for (size_t i = 0; i < STAGING_COUNT; i++)
        drop_buffer(slot, &slot->staging[i].buffer, slot->staging[i].size);
    for (size_t i = 0; i < OUTPUT_COUNT; i++)
        if (slot->outputs[i].texture)
            drop_output(slot, &slot->outputs[i]);
    drop_buffer(slot, &slot->params, sizeof(struct params));
    drop_buffer(slot, &slot->readback, slot->readback_size);
    drop_buffer(slot, &slot->times_resolved, TIMES_SIZE);
    drop_buffer(slot, &slot->times_readback, TIMES_SIZE);
    if (slot->times)
        wgpuQuerySetRelease(slot->times);
    slot->load->pipelines = 0;
    gpu_device_put(slot->device);
}

static void canvas_destroy(struct gpu_canvas *canvas)
{
    struct wgpu_canvas *self = canvas_of(canvas);
    for (unsigned i = 0; i < self->slot_count; i++)
        slot_finish(&self->slots[i]);
    free(self);
}

static const struct gpu_canvas_ops wgpu_ops = {
    .name = "wgpu",
    .image_create = image_create,
    .image_destroy = image_destroy,
    .write_begin = write_begin,
    .write_end = write_end,
    .read = read_image,
    .compose = compose,
    .destroy = canvas_destroy,
};

struct gpu_canvas *wgpu_canvas_create(const struct adapters *adapters, const uint32_t *indices,
                                      unsigned count, struct error *err)
{
    struct wgpu_canvas *self = xcalloc(1, sizeof(*self));
    self->ops = wgpu_ops;
    self->ops.adapter_count = count;
    self->base.ops = &self->ops;
    for (unsigned i = 0; i < count; i++) {
        struct slot *slot = &self->slots[self->slot_count++];
        slot->load = &self->base.adapters[i];
        slot->device = gpu_device_open(adapters, indices[i], err);
        if (!slot->device) {
            canvas_destroy(&self->base);
            return NULL;
        }
        slot->load->pipelines = DEVICE_PIPELINES;
        slot->params = make_buffer(slot, sizeof(struct params),
                                   WGPUBufferUsage_Uniform | WGPUBufferUsage_CopyDst, false);
        make_timers(slot);
        if (failed(&self->base, slot)) {
            error_set(err, "%s cannot be used: %s", slot->device->name,
                      self->base.message[0] ? self->base.message : "no memory");
            canvas_destroy(&self->base);
            return NULL;
        }
        snprintf(self->base.adapter_names[i], sizeof(self->base.adapter_names[i]), "%s",
                 slot->device->name);
    }
    return &self->base;
}
