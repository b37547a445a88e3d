/* Pictures as textures, frames as render passes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "renderer/renderer.h"

#define ROW_ALIGNMENT 256 /* of rows in buffers that are copied (WebGPU, section 11.2) */
#define STAGING_MIN   (UINT64_C(64) << 10)
#define STAGING_MOST  (UINT64_C(64) << 20) /* bytes of a slot's buffers together */
#define SUBMIT_AFTER  (UINT64_C(8) << 20)  /* bytes of uploads */
#define STAGING_COUNT 64
#define OUTPUT_COUNT  8

/* A texture whose texels are the bytes of pixels, in the order of memory. */
struct gpu_image {
    unsigned slot;
    uint32_t width, height;
    struct gpu_format_layout layout;
    WGPUTexture texture;
    WGPUTextureView view;
};

enum staging_state { STAGING_MAPPED, STAGING_WRITTEN, STAGING_SUBMITTED };

/* A buffer that pictures are uploaded from. */
struct staging {
    WGPUBuffer buffer; /* NULL: none */
    uint64_t size;
    enum staging_state state;
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
    struct output outputs[OUTPUT_COUNT];
    uint64_t uses;
    WGPUBuffer params;
    WGPUBuffer readback; /* NULL until one is needed */
    uint64_t readback_size;
    WGPUQuerySet times; /* NULL: passes are not timed */
    WGPUBuffer times_resolved, times_readback;
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
    uint32_t scaled, cursor_on;
    int32_t cursor[4];
    uint32_t swizzle[4], cursor_swizzle[4];
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
        .format = WGPUTextureFormat_RGBA8Uint,
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

static void image_destroy(struct gpu_canvas *canvas, struct gpu_image *image)
{
    struct slot *slot = &canvas_of(canvas)->slots[image->slot];
    drop_texture(slot, image->texture, image->view, image->width, image->height);
    free(image);
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
    if (status == WGPUMapAsyncStatus_Success)
        staging->state = STAGING_MAPPED;
}

/* Buffers come back, mapped, when the device has read them. */
static void submit(struct gpu_canvas *canvas, struct slot *slot)
{
    if (!slot->encoder)
        return;
    uint64_t start = gpu_trace_now();
    WGPUCommandBuffer commands = wgpuCommandEncoderFinish(slot->encoder, NULL);
    wgpuQueueSubmit(slot->device->queue, 1, &commands);
    wgpuCommandBufferRelease(commands);
    wgpuCommandEncoderRelease(slot->encoder);
    slot->encoder = NULL;
    slot->recorded = 0;
    canvas->counters->command_buffers++;
    for (size_t i = 0; i < STAGING_COUNT; i++) {
        struct staging *staging = &slot->staging[i];
        if (!staging->buffer || staging->state != STAGING_WRITTEN)
            continue;
        staging->state = STAGING_SUBMITTED;
        const WGPUBufferMapCallbackInfo done = {.mode = WGPUCallbackMode_AllowSpontaneous,
                                                .callback = on_staging_mapped,
                                                .userdata1 = staging};
        wgpuBufferMapAsync(staging->buffer, WGPUMapMode_Write, 0, staging->size, done);
    }
    gpu_trace_span(canvas->trace, "submit", -1, start);
}

static void wait_for(struct gpu_canvas *canvas, struct slot *slot)
{
    uint64_t start = gpu_trace_now();
    gpu_device_wait(slot->device);
    slot->load->queue_ns += gpu_trace_now() - start;
    gpu_trace_span(canvas->trace, "wait", -1, start);
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

/* A new one, unless there are too many already; then those that are not in use go first. */
static struct staging *make_staging(struct slot *slot, uint64_t size)
{
    struct staging *place = NULL;
    uint64_t rounded = STAGING_MIN;
    while (rounded < size)
        rounded *= 2;
    if (rounded > slot->device->max_buffer_size)
        rounded = align_up(size, 4);
    for (size_t i = 0; i < STAGING_COUNT; i++) {
        struct staging *staging = &slot->staging[i];
        if (staging->buffer && staging->state == STAGING_MAPPED &&
            slot->staging_size + rounded > STAGING_MOST) {
            slot->staging_size -= staging->size;
            drop_buffer(slot, &staging->buffer, staging->size);
        }
        if (!staging->buffer)
            place = staging;
    }
    if (!place || (slot->staging_size && slot->staging_size + rounded > STAGING_MOST))
        return NULL;
    place->buffer =
        make_buffer(slot, rounded, WGPUBufferUsage_MapWrite | WGPUBufferUsage_CopySrc, true);
    if (!place->buffer)
        return NULL;
    place->size = rounded;
    place->state = STAGING_MAPPED;
    slot->staging_size += rounded;
    return place;
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
    wgpuDevicePoll(slot->device->handle, false, NULL);
    struct staging *staging = find_staging(slot, size);
    if (!staging)
        staging = make_staging(slot, size);
    if (!staging) {
        submit(canvas, slot);
        wait_for(canvas, slot);
        staging = find_staging(slot, size);
        if (!staging)
            staging = make_staging(slot, size);
    }
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
    slot->readback_size = size;
    slot->readback =
        make_buffer(slot, size, WGPUBufferUsage_MapRead | WGPUBufferUsage_CopyDst, false);
    return slot->readback && !failed(canvas, slot);
}

static void on_mapped(WGPUMapAsyncStatus status, WGPUStringView message, void *opaque, void *unused)
{
    *(bool *)opaque = status == WGPUMapAsyncStatus_Success;
}

/* Maps buffers that are waited for together: nothing else is under way. */
static void map_read(WGPUBuffer buffer, uint64_t size, bool *mapped)
{
    const WGPUBufferMapCallbackInfo done = {
        .mode = WGPUCallbackMode_AllowSpontaneous, .callback = on_mapped, .userdata1 = mapped};
    *mapped = false;
    wgpuBufferMapAsync(buffer, WGPUMapMode_Read, 0, size, done);
}

/* Records the copy of a rectangle of a texture into the readback buffer; *stride is its rows'. */
static bool record_readback(struct gpu_canvas *canvas, struct slot *slot, WGPUTexture texture,
                            const struct gpu_rect *rect, size_t *stride)
{
    *stride = align_up((size_t)rect->width * 4, ROW_ALIGNMENT);
    if (!grow_readback(canvas, slot, *stride * rect->height))
        return false;
    const WGPUTexelCopyTextureInfo from = texture_part(texture, rect);
    const WGPUTexelCopyBufferInfo to = buffer_rows(slot->readback, *stride, rect->height);
    const WGPUExtent3D size = {rect->width, rect->height, 1};
    wgpuCommandEncoderCopyTextureToBuffer(encoder_of(slot), &from, &to, &size);
    return true;
}

/* Submits, waits, and copies the rows to `pixels`. */
static bool finish_readback(struct gpu_canvas *canvas, struct slot *slot,
                            const struct gpu_rect *rect, size_t stride, uint8_t *pixels,
                            size_t pixels_stride)
{
    bool mapped;
    uint64_t size = stride * rect->height;
    submit(canvas, slot);
    map_read(slot->readback, size, &mapped);
    wait_for(canvas, slot);
    if (failed(canvas, slot) || !mapped)
        return false;
    uint64_t start = gpu_trace_now();
    const uint8_t *rows = wgpuBufferGetConstMappedRange(slot->readback, 0, size);
    for (uint32_t y = 0; y < rect->height; y++)
        memcpy(pixels + y * pixels_stride, rows + y * stride, (size_t)rect->width * 4);
    wgpuBufferUnmap(slot->readback);
    canvas->counters->bytes_read_back += (uint64_t)rect->width * 4 * rect->height;
    gpu_trace_span(canvas->trace, "read back", -1, start);
    return true;
}

static bool read_image(struct gpu_canvas *canvas, struct gpu_image *image, uint8_t *pixels)
{
    struct slot *slot = &canvas_of(canvas)->slots[image->slot];
    const struct gpu_rect all = {0, 0, image->width, image->height};
    size_t stride;
    return record_readback(canvas, slot, image->texture, &all, &stride) &&
           finish_readback(canvas, slot, &all, stride, pixels, (size_t)image->width * 4);
}

/* --- Frames ------------------------------------------------------------------------------------
 */

/* The texture for frames of that size; the one that was not used for longest gives way. */
static struct output *find_output(struct slot *slot, uint32_t width, uint32_t height)
{
    struct output *oldest = &slot->outputs[0];
    for (size_t i = 0; i < OUTPUT_COUNT; i++) {
        struct output *output = &slot->outputs[i];
        if (output->texture && output->width == width && output->height == height) {
            output->used = ++slot->uses;
            return output;
        }
        if (output->used < oldest->used)
            oldest = output;
    }
    if (oldest->texture)
        drop_texture(slot, oldest->texture, oldest->view, oldest->width, oldest->height);
    oldest->texture =
        make_texture(slot, width, height,
                     WGPUTextureUsage_RenderAttachment | WGPUTextureUsage_CopySrc, &oldest->view);
    oldest->width = width;
    oldest->height = height;
    oldest->used = ++slot->uses;
    return oldest;
}

static void set_swizzle(uint32_t swizzle[4], const struct gpu_format_layout *layout)
{
    swizzle[0] = (uint32_t)layout->red;
    swizzle[1] = (uint32_t)layout->green;
    swizzle[2] = (uint32_t)layout->blue;
    swizzle[3] = layout->alpha < 0 ? 4 : (uint32_t)layout->alpha;
}

static void set_params(struct slot *slot, const struct gpu_composition *what)
{
    struct params params = {
        .source = {what->source.x, what->source.y, what->source.width, what->source.height},
        .scale = {(int32_t)(((uint64_t)what->source.width << 16) / what->width),
                  (int32_t)(((uint64_t)what->source.height << 16) / what->height)},
        .scaled = what->source.width != what->width || what->source.height != what->height,
        .cursor_on = what->cursor != NULL,
    };
    set_swizzle(params.swizzle, &what->image->layout);
    if (what->cursor) {
        params.cursor[0] = what->cursor_x;
        params.cursor[1] = what->cursor_y;
        params.cursor[2] = (int32_t)what->cursor->width;
        params.cursor[3] = (int32_t)what->cursor->height;
        set_swizzle(params.cursor_swizzle, &what->cursor->layout);
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
    wgpuRenderPassEncoderSetPipeline(pass, slot->device->pipeline);
    wgpuRenderPassEncoderSetBindGroup(pass, 0, group, 0, NULL);
    wgpuRenderPassEncoderSetScissorRect(pass, damage->x, damage->y, damage->width, damage->height);
    wgpuRenderPassEncoderDraw(pass, 3, 1, 0, 0);
    wgpuRenderPassEncoderEnd(pass);
    wgpuRenderPassEncoderRelease(pass);
    wgpuBindGroupRelease(group);
    canvas->counters->render_passes++;
    canvas->counters->draws++;
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

/* After the frame was waited for. */
static void add_times(struct gpu_canvas *canvas, struct slot *slot)
{
    bool mapped;
    if (!slot->times)
        return;
    map_read(slot->times_readback, TIMES_SIZE, &mapped);
    gpu_device_wait(slot->device);
    if (!mapped)
        return;
    const uint64_t *ticks = wgpuBufferGetConstMappedRange(slot->times_readback, 0, TIMES_SIZE);
    if (ticks[1] >= ticks[0]) {
        canvas->counters->gpu_time_ns +=
            (uint64_t)((double)(ticks[1] - ticks[0]) * slot->device->timestamp_ns);
        canvas->counters->passes_timed++;
    }
    wgpuBufferUnmap(slot->times_readback);
}

static bool compose(struct gpu_canvas *canvas, const struct gpu_composition *what,
                    const struct gpu_rect *damage, uint8_t *pixels, size_t stride)
{
    struct slot *slot = &canvas_of(canvas)->slots[what->image->slot];
    size_t rows_stride;
    if (!fits(canvas, slot, what->width, what->height))
        return false;
    /* The parameters are written before what is submitted next. */
    set_params(slot, what);
    struct output *output = find_output(slot, what->width, what->height);
    record_pass(canvas, slot, what, damage, output);
    record_times(slot);
    if (!record_readback(canvas, slot, output->texture, damage, &rows_stride) ||
        !finish_readback(canvas, slot, damage, rows_stride,
                         pixels + damage->y * stride + (size_t)damage->x * 4, stride))
        return false;
    add_times(canvas, slot);
    return true;
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
    gpu_device_wait(slot->device);
    for (size_t i = 0; i < STAGING_COUNT; i++)
        drop_buffer(slot, &slot->staging[i].buffer, slot->staging[i].size);
    for (size_t i = 0; i < OUTPUT_COUNT; i++)
        if (slot->outputs[i].texture)
            drop_texture(slot, slot->outputs[i].texture, slot->outputs[i].view,
                         slot->outputs[i].width, slot->outputs[i].height);
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
        slot->load->pipelines = 1;
        slot->params = make_buffer(slot, sizeof(struct params),
                                   WGPUBufferUsage_Uniform | WGPUBufferUsage_CopyDst, false);
        make_timers(slot);
        snprintf(self->base.adapter_names[i], sizeof(self->base.adapter_names[i]), "%s",
                 slot->device->name);
    }
    return &self->base;
}
