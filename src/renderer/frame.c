/* Frames as render passes, and reading back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "renderer/canvas.h"

#define OUTPUT_MOST   (UINT64_C(256) << 20) /* bytes, of outputs but the one that is needed */
#define READBACK_KEPT (UINT64_C(64) << 20)  /* bytes */

/* Struct Params of the shader. */
struct params {
    uint32_t source[4];
    int32_t scale[2];
    uint32_t opaque, row;
    int32_t cursor[4];
    uint32_t shift[4], cursor_shift[4];
};

/* --- Reading back ------------------------------------------------------------------------------
 */

static bool grow_readback(struct gpu_canvas *canvas, struct slot *slot, uint64_t size)
{
    if (slot->readback && slot->readback_size >= size)
        return true;
    slot_drop_buffer(slot, &slot->readback, slot->readback_size);
    slot->readback_size = slot_buffer_size(slot, size);
    slot->readback = slot_make_buffer(slot, slot->readback_size,
                                      WGPUBufferUsage_MapRead | WGPUBufferUsage_CopyDst, false);
    if (!slot_failed(canvas, slot))
        return true;
    slot_drop_buffer(slot, &slot->readback, slot->readback_size);
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
    wgpuCommandEncoderResolveQuerySet(slot_encoder(slot), slot->times, 0, 2, slot->times_resolved,
                                      0);
    wgpuCommandEncoderCopyBufferToBuffer(slot_encoder(slot), slot->times_resolved, 0,
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
    wgpuCommandEncoderCopyTextureToBuffer(slot_encoder(slot), &from, &to, &size);
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
    slot_submit(canvas, slot);
    if (errors == slot->device->error_count) {
        map_read(slot->readback, readback_stride(rect) * rect->height, &slot->readback_mapped);
        if (timed)
            map_times(slot);
        slot_wait(canvas, slot, NULL);
    }
    add_times(canvas, slot);
    bool ok = !slot_failed(canvas, slot) && slot->readback_mapped;
    if (ok)
        copy_rows(canvas, slot, rect, pixels, pixels_stride);
    if (slot->readback_mapped)
        wgpuBufferUnmap(slot->readback);
    slot->readback_mapped = false;
    if (slot->readback_size > READBACK_KEPT)
        slot_drop_buffer(slot, &slot->readback, slot->readback_size);
    return ok;
}

bool picture_read(struct gpu_canvas *canvas, struct gpu_image *image, uint8_t *pixels)
{
    struct slot *slot = &canvas_of(canvas)->slots[image->slot];
    if (image->buffer) {
        size_t size = (size_t)image->width * 4 * image->height;
        if (!picture_map(canvas, image))
            return false;
        memcpy(pixels, wgpuBufferGetMappedRange(image->buffer, 0, size), size);
        canvas->counters->bytes_read_back += size;
        return true;
    }
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
    slot_drop_texture(slot, output->texture, output->view, output->width, output->height);
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
    output->texture = slot_make_texture(
        slot, width, height, WGPUTextureUsage_RenderAttachment | WGPUTextureUsage_CopySrc,
        &output->view);
    output->width = width;
    output->height = height;
    output->used = ++slot->uses;
    slot->outputs_size += size;
    if (!slot_failed(canvas, slot))
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
        .row = what->image->width,
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

static WGPUBindGroupEntry bind_picture(uint32_t binding, const struct gpu_image *image)
{
    if (!image->buffer)
        return (WGPUBindGroupEntry){.binding = binding, .textureView = image->view};
    return (WGPUBindGroupEntry){.binding = binding,
                                .buffer = image->buffer,
                                .size = (uint64_t)image->width * image->height * 4};
}

static void record_pass(struct gpu_canvas *canvas, struct slot *slot,
                        const struct gpu_composition *what, const struct gpu_rect *damage,
                        const struct output *output)
{
    const struct gpu_image *cursor = what->cursor ? what->cursor : what->image;
    const WGPUBindGroupEntry entries[] = {
        {.binding = 0, .buffer = slot->params, .size = sizeof(struct params)},
        bind_picture(1, what->image),
        bind_picture(2, cursor),
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
        wgpuCommandEncoderBeginRenderPass(slot_encoder(slot), &pass_descriptor);
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

bool frame_compose(struct gpu_canvas *canvas, const struct gpu_composition *what,
                   const struct gpu_rect *damage, uint8_t *pixels, size_t stride)
{
    struct slot *slot = &canvas_of(canvas)->slots[what->image->slot];
    if (!slot_fits(canvas, slot, what->width, what->height) ||
        !grow_readback(canvas, slot, readback_stride(damage) * damage->height))
        return false;
    struct output *output = find_output(canvas, slot, what->width, what->height);
    if (!output)
        return false;
    picture_unmap(what->image);
    if (what->cursor)
        picture_unmap(what->cursor);
    /* The parameters are written before what is submitted next. */
    set_params(slot, what);
    record_pass(canvas, slot, what, damage, output);
    record_times(slot);
    record_readback(slot, output->texture, damage);
    return finish_readback(canvas, slot, damage,
                           pixels + damage->y * stride + (size_t)damage->x * 4, stride, true);
}

/* --- What an adapter has for this --------------------------------------------------------------
 */

static void make_timers(struct slot *slot)
{
    const WGPUQuerySetDescriptor descriptor = {.type = WGPUQueryType_Timestamp, .count = 2};
    if (!(slot->device->timestamp_ns > 0))
        return;
    slot->times = wgpuDeviceCreateQuerySet(slot->device->handle, &descriptor);
    slot->times_resolved = slot_make_buffer(
        slot, TIMES_SIZE, WGPUBufferUsage_QueryResolve | WGPUBufferUsage_CopySrc, false);
    slot->times_readback = slot_make_buffer(
        slot, TIMES_SIZE, WGPUBufferUsage_MapRead | WGPUBufferUsage_CopyDst, false);
}

void frame_init(struct slot *slot)
{
    slot->params = slot_make_buffer(slot, sizeof(struct params),
                                    WGPUBufferUsage_Uniform | WGPUBufferUsage_CopyDst, false);
    make_timers(slot);
}

void frame_finish(struct slot *slot)
{
    for (size_t i = 0; i < OUTPUT_COUNT; i++)
        if (slot->outputs[i].texture)
            drop_output(slot, &slot->outputs[i]);
    slot_drop_buffer(slot, &slot->params, sizeof(struct params));
    slot_drop_buffer(slot, &slot->readback, slot->readback_size);
    slot_drop_buffer(slot, &slot->times_resolved, TIMES_SIZE);
    slot_drop_buffer(slot, &slot->times_readback, TIMES_SIZE);
    if (slot->times)
        wgpuQuerySetRelease(slot->times);
}
