/* Pictures, and how pixels get into them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "renderer/canvas.h"

#define STAGING_MOST (UINT64_C(64) << 20) /* bytes of a slot's buffers together */
#define SUBMIT_AFTER (UINT64_C(4) << 20)  /* bytes of uploads */
/* Bytes that the device may still have to read before more is written: few buffers in turn stay in
 * the processor's caches. */
#define FLYING_MOST  (UINT64_C(12) << 20)
#define RETIRED_MOST (UINT64_C(64) << 20) /* bytes of pictures that the device may still hold */

static uint64_t picture_size(const struct gpu_image *image)
{
    return (uint64_t)image->width * image->height * 4;
}

static void make_texture(struct slot *slot, struct gpu_image *image)
{
    const WGPUTextureUsage usage =
        WGPUTextureUsage_TextureBinding | WGPUTextureUsage_CopyDst | WGPUTextureUsage_CopySrc;
    image->texture = slot_make_texture(slot, image->width, image->height, usage, &image->view);
}

static void make_direct(struct slot *slot, struct gpu_image *image)
{
    image->buffer = slot_make_buffer(slot, picture_size(image),
                                     WGPUBufferUsage_MapWrite | WGPUBufferUsage_Storage, false);
}

static void drop_picture(struct slot *slot, struct gpu_image *image)
{
    if (image->buffer)
        slot_drop_buffer(slot, &image->buffer, picture_size(image));
    else
        slot_drop_texture(slot, image->texture, image->view, image->width, image->height);
}

/* Whether a picture of that size can be one. */
static bool fits(struct gpu_canvas *canvas, const struct slot *slot, uint32_t width,
                 uint32_t height)
{
    const struct gpu_device *device = slot->device;
    uint64_t size = (uint64_t)width * height * 4;
    if (!device->direct)
        return slot_fits(canvas, slot, width, height);
    if (size <= device->max_binding_size && size <= device->max_buffer_size)
        return true;
    snprintf(canvas->message, sizeof(canvas->message),
             "%s draws pictures of at most %llu MiB, not %ux%u", device->name,
             (unsigned long long)(device->max_binding_size >> 20), width, height);
    return false;
}

struct gpu_image *picture_create(struct gpu_canvas *canvas, unsigned adapter, uint32_t format,
                                 uint32_t width, uint32_t height)
{
    struct slot *slot = &canvas_of(canvas)->slots[adapter];
    if (!fits(canvas, slot, width, height))
        return NULL;
    struct gpu_image *image = xcalloc(1, sizeof(*image));
    *image = (struct gpu_image){
        .slot = adapter, .width = width, .height = height, .layout = *gpu_format_layout(format)};
    if (slot->device->direct)
        make_direct(slot, image);
    else
        make_texture(slot, image);
    if (!slot_failed(canvas, slot))
        return image;
    drop_picture(slot, image);
    free(image);
    return NULL;
}

void picture_destroy(struct gpu_canvas *canvas, struct gpu_image *image)
{
    struct slot *slot = &canvas_of(canvas)->slots[image->slot];
    /* Commands must not name what is destroyed when they are submitted. */
    if (slot->encoder && image->texture && image->written == slot->submissions)
        slot_submit(canvas, slot);
    drop_picture(slot, image);
    /* The device holds it until it has done what was submitted. */
    slot->retired += picture_size(image);
    free(image);
    if (slot->retired > RETIRED_MOST)
        slot_wait(canvas, slot, NULL);
}

/* --- Pictures in the processor's memory --------------------------------------------------------
 */

static void on_picture_mapped(WGPUMapAsyncStatus status, WGPUStringView message, void *opaque,
                              void *unused)
{
    struct gpu_image *image = opaque;
    image->mapped = status == WGPUMapAsyncStatus_Success;
}

bool picture_map(struct gpu_canvas *canvas, struct gpu_image *image)
{
    struct slot *slot = &canvas_of(canvas)->slots[image->slot];
    const WGPUBufferMapCallbackInfo done = {.mode = WGPUCallbackMode_AllowSpontaneous,
                                            .callback = on_picture_mapped,
                                            .userdata1 = image};
    if (image->mapped)
        return true;
    wgpuBufferMapAsync(image->buffer, WGPUMapMode_Write, 0, picture_size(image), done);
    slot_wait(canvas, slot, NULL);
    return !slot_failed(canvas, slot) && image->mapped;
}

void picture_unmap(struct gpu_image *image)
{
    if (image->mapped)
        wgpuBufferUnmap(image->buffer);
    image->mapped = false;
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
    slot_drop_buffer(slot, &staging->buffer, staging->size);
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
    uint64_t rounded = slot_buffer_size(slot, size);
    struct staging *place = make_room(slot, rounded);
    if (!place)
        return NULL;
    unsigned errors = slot->device->error_count;
    place->buffer =
        slot_make_buffer(slot, rounded, WGPUBufferUsage_MapWrite | WGPUBufferUsage_CopySrc, true);
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
            slot_submit(canvas, slot);
            continue;
        }
        slot_wait(canvas, slot, &oldest->submission);
        if (oldest->state == STAGING_SUBMITTED)
            return NULL;
    }
}

uint8_t *picture_write_begin(struct gpu_canvas *canvas, struct gpu_image *image,
                             const struct gpu_rect *rect, size_t *stride)
{
    struct slot *slot = &canvas_of(canvas)->slots[image->slot];
    if (image->buffer) {
        *stride = (size_t)image->width * 4;
        return picture_map(canvas, image)
                   ? (uint8_t *)wgpuBufferGetMappedRange(image->buffer, 0, picture_size(image)) +
                         rect->y * *stride + (size_t)rect->x * 4
                   : NULL;
    }
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
    if (slot_failed(canvas, slot) || !staging)
        return NULL;
    slot->writing = staging;
    slot->writing_stride = *stride;
    return wgpuBufferGetMappedRange(staging->buffer, 0, size);
}

void picture_write_end(struct gpu_canvas *canvas, struct gpu_image *image,
                       const struct gpu_rect *rect)
{
    struct slot *slot = &canvas_of(canvas)->slots[image->slot];
    if (image->buffer)
        return;
    const WGPUTexelCopyBufferInfo from =
        buffer_rows(slot->writing->buffer, slot->writing_stride, rect->height);
    const WGPUTexelCopyTextureInfo to = texture_part(image->texture, rect);
    const WGPUExtent3D size = {rect->width, rect->height, 1};
    wgpuBufferUnmap(slot->writing->buffer);
    slot->writing->state = STAGING_WRITTEN;
    slot->writing = NULL;
    wgpuCommandEncoderCopyBufferToTexture(slot_encoder(slot), &from, &to, &size);
    image->written = slot->submissions;
    slot->recorded += slot->writing_stride * rect->height;
    if (slot->recorded >= SUBMIT_AFTER)
        slot_submit(canvas, slot);
}
