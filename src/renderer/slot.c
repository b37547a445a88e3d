/* What is had on one adapter: buffers, textures, and commands for its queue. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "renderer/canvas.h"

#define BUFFER_MIN (UINT64_C(64) << 10)

static void count_memory(struct slot *slot, int64_t bytes)
{
    slot->load->memory += (uint64_t)bytes;
    if (slot->load->memory_peak < slot->load->memory)
        slot->load->memory_peak = slot->load->memory;
}

bool slot_failed(struct gpu_canvas *canvas, struct slot *slot)
{
    return gpu_device_take_error(slot->device, canvas->message, sizeof(canvas->message));
}

/* --- Buffers and textures ----------------------------------------------------------------------
 */

/* Sizes to choose from are few, so that buffers fit again. */
uint64_t slot_buffer_size(const struct slot *slot, uint64_t size)
{
    uint64_t rounded = BUFFER_MIN;
    while (rounded < size)
        rounded *= 2;
    return rounded > slot->device->max_buffer_size ? align_up(size, 4) : rounded;
}

WGPUBuffer slot_make_buffer(struct slot *slot, uint64_t size, WGPUBufferUsage usage, bool mapped)
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

void slot_drop_buffer(struct slot *slot, WGPUBuffer *buffer, uint64_t size)
{
    if (!*buffer)
        return;
    wgpuBufferDestroy(*buffer);
    wgpuBufferRelease(*buffer);
    *buffer = NULL;
    slot->load->buffers--;
    count_memory(slot, -(int64_t)size);
}

WGPUTexture slot_make_texture(struct slot *slot, uint32_t width, uint32_t height,
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

void slot_drop_texture(struct slot *slot, WGPUTexture texture, WGPUTextureView view, uint32_t width,
                       uint32_t height)
{
    wgpuTextureViewRelease(view);
    wgpuTextureDestroy(texture);
    wgpuTextureRelease(texture);
    slot->load->textures--;
    count_memory(slot, -((int64_t)width * height * 4));
}

bool slot_fits(struct gpu_canvas *canvas, const struct slot *slot, uint32_t width, uint32_t height)
{
    uint32_t most = slot->device->max_texture_size;
    if (width <= most && height <= most)
        return true;
    snprintf(canvas->message, sizeof(canvas->message),
             "%s draws pictures of at most %ux%u pixels, not %ux%u", slot->device->name, most, most,
             width, height);
    return false;
}

/* --- Submitting --------------------------------------------------------------------------------
 */

WGPUCommandEncoder slot_encoder(struct slot *slot)
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
static void slot_await_staging(struct slot *slot, WGPUSubmissionIndex submission)
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

void slot_submit(struct gpu_canvas *canvas, struct slot *slot)
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
    slot_await_staging(slot, submission);
    gpu_trace_span(canvas->trace, "submit", -1, start);
}

/* Waits for a submission; NULL: for all. */
void slot_wait(struct gpu_canvas *canvas, struct slot *slot, const WGPUSubmissionIndex *submission)
{
    uint64_t start = gpu_trace_now();
    gpu_device_wait(slot->device, submission);
    if (!submission)
        slot->retired = 0;
    slot->load->queue_ns += gpu_trace_now() - start;
    gpu_trace_span(canvas->trace, "wait", -1, start);
}
