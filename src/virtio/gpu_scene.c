#include "virtio/gpu_scene.h"

#include <stdlib.h>
#include <sys/random.h>

#include "virtio/gpu.h"

/* Of all backings together: 16 MiB of host memory. */
#define MAX_RANGES (UINT64_C(4) * GPU_MAX_RANGES)

/* --- Telling the renderer ----------------------------------------------------------------------
 */

static void submit(struct gpu_scene *scene, struct gpu_request request)
{
    scene->ops->submit(scene->opaque, &request, NULL, 0, -1);
}

static void submit_backing(struct gpu_scene *scene, const struct scene_resource *resource)
{
    struct gpu_request request = {.type = GPU_REQUEST_BACKING};
    request.backing.id = resource->id;
    request.backing.count = resource->range_count;
    scene->ops->submit(scene->opaque, &request, resource->ranges,
                       resource->range_count * sizeof(*resource->ranges), -1);
}

static void submit_output(struct gpu_scene *scene, unsigned scanout)
{
    const struct gpu_frame *frame = scene->scanouts[scanout].frame;
    struct gpu_request request = {.type = GPU_REQUEST_OUTPUT};
    request.output.scanout = scanout;
    request.output.width = frame->width;
    request.output.height = frame->height;
    request.output.stride = frame->stride;
    scene->ops->submit(scene->opaque, &request, NULL, 0, frame->fd);
}

static void submit_view(struct gpu_scene *scene, unsigned scanout)
{
    const struct scene_view *view = &scene->scanouts[scanout].view;
    struct gpu_request request = {.type = GPU_REQUEST_SCANOUT};
    request.scanout.scanout = scanout;
    request.scanout.id = view->id;
    request.scanout.rect = view->rect;
    request.scanout.format = view->format;
    request.scanout.width = view->width;
    request.scanout.height = view->height;
    request.scanout.stride = view->stride;
    request.scanout.offset = view->offset;
    submit(scene, request);
}

static void submit_cursor(struct gpu_scene *scene, unsigned scanout, uint32_t type)
{
    const struct scene_cursor *cursor = &scene->scanouts[scanout].cursor;
    struct gpu_request request = {.type = type};
    request.cursor.scanout = scanout;
    request.cursor.id = type == GPU_REQUEST_CURSOR ? cursor->id : 0;
    request.cursor.x = cursor->x;
    request.cursor.y = cursor->y;
    request.cursor.hot_x = cursor->hot_x;
    request.cursor.hot_y = cursor->hot_y;
    submit(scene, request);
}

static void submit_resource(struct gpu_scene *scene, const struct scene_resource *resource)
{
    struct gpu_request request = {.type = GPU_REQUEST_RESOURCE};
    if (resource->blob_size) {
        request.type = GPU_REQUEST_BLOB;
        request.blob.id = resource->id;
        request.blob.size = resource->blob_size;
    } else {
        request.resource.id = resource->id;
        request.resource.format = resource->format;
        request.resource.width = resource->width;
        request.resource.height = resource->height;
    }
    submit(scene, request);
}

/* --- Resources ---------------------------------------------------------------------------------
 */

/* Drivers count their ids up; a driver that does not only slows itself down. */
static struct scene_resource **bucket_of(struct gpu_scene *scene, uint32_t id)
{
    return &scene->buckets[id % SCENE_BUCKETS];
}

struct scene_resource *scene_find(const struct gpu_scene *scene, uint32_t id)
{
    struct scene_resource *resource = scene->buckets[id % SCENE_BUCKETS];
    while (resource && resource->id != id)
        resource = resource->next;
    return resource;
}

static uint64_t picture_size(const struct scene_resource *resource)
{
    return (uint64_t)resource->width * resource->height * 4;
}

static bool size_fits(uint32_t width, uint32_t height)
{
    return width && height && width <= GPU_MAX_SIZE && height <= GPU_MAX_SIZE;
}

/* Whether a resource of this id may come into being. */
static uint32_t check_new(const struct gpu_scene *scene, uint32_t id)
{
    if (!id || scene_find(scene, id))
        return GPU_RESP_ERR_INVALID_RESOURCE_ID;
    if (scene->resource_count >= GPU_MAX_RESOURCES)
        return GPU_RESP_ERR_OUT_OF_MEMORY;
    return GPU_RESP_OK_NODATA;
}

static struct scene_resource *add_resource(struct gpu_scene *scene, uint32_t id)
{
    struct scene_resource *resource = xcalloc(1, sizeof(*resource));
    resource->id = id;
    resource->token = ++scene->last_token;
    resource->next = *bucket_of(scene, id);
    *bucket_of(scene, id) = resource;
    scene->resource_count++;
    return resource;
}

static uint64_t total_size(const struct gpu_range *ranges, uint32_t count)
{
    uint64_t size = 0;
    for (uint32_t i = 0; i < count; i++)
        size += ranges[i].size; /* each comes from a 32-bit length, or is within RAM */
    return size;
}

static void set_backing(struct gpu_scene *scene, struct scene_resource *resource,
                        struct gpu_range *ranges, uint32_t count)
{
    scene->range_count += count;
    scene->range_count -= resource->range_count;
    free(resource->ranges);
    resource->ranges = ranges;
    resource->range_count = count;
    resource->backing_size = total_size(ranges, count);
}

static void free_resource(struct gpu_scene *scene, struct scene_resource *resource)
{
    set_backing(scene, resource, NULL, 0);
    scene->picture_bytes -= picture_size(resource);
    scene->resource_count--;
    free(resource);
}

static bool ranges_fit(const struct gpu_scene *scene, uint32_t count)
{
    return count <= GPU_MAX_RANGES && count <= MAX_RANGES - scene->range_count;
}

uint32_t scene_create_picture(struct gpu_scene *scene, uint32_t id, uint32_t format, uint32_t width,
                              uint32_t height)
{
    uint32_t response = check_new(scene, id);
    if (response != GPU_RESP_OK_NODATA)
        return response;
    if (!size_fits(width, height) || !gpu_format_layout(format))
        return GPU_RESP_ERR_INVALID_PARAMETER;
    if ((uint64_t)width * height * 4 > VIRTIO_GPU_MAX_MEMORY - scene->picture_bytes)
        return GPU_RESP_ERR_OUT_OF_MEMORY;
    struct scene_resource *resource = add_resource(scene, id);
    resource->format = format;
    resource->width = width;
    resource->height = height;
    scene->picture_bytes += picture_size(resource);
    submit_resource(scene, resource);
    return GPU_RESP_OK_NODATA;
}

uint32_t scene_create_blob(struct gpu_scene *scene, uint32_t id, uint64_t size,
                           struct gpu_range *ranges, uint32_t count)
{
    uint32_t response = check_new(scene, id);
    if (response == GPU_RESP_OK_NODATA && (!size || (count && total_size(ranges, count) < size)))
        response = GPU_RESP_ERR_INVALID_PARAMETER;
    if (response == GPU_RESP_OK_NODATA && !ranges_fit(scene, count))
        response = GPU_RESP_ERR_OUT_OF_MEMORY;
    if (response != GPU_RESP_OK_NODATA) {
        free(ranges);
        return response;
    }
    struct scene_resource *resource = add_resource(scene, id);
    resource->blob_size = size;
    set_backing(scene, resource, ranges, count);
    submit_resource(scene, resource);
    if (count)
        submit_backing(scene, resource);
    return GPU_RESP_OK_NODATA;
}

/* Takes a resource off the scanouts and cursors that show it. */
static void hide(struct gpu_scene *scene, uint32_t id)
{
    for (unsigned i = 0; i < scene->scanout_count; i++) {
        struct scene_scanout *scanout = &scene->scanouts[i];
        if (scanout->cursor.id == id) {
            scanout->cursor.id = 0;
            submit_cursor(scene, i, GPU_REQUEST_CURSOR);
            scene->ops->damaged(scene->opaque, i);
        }
        if (scanout->view.id == id)
            scene_show(scene, i, &(struct scene_view){0});
    }
}

static void destroy_resource(struct gpu_scene *scene, struct scene_resource **at)
{
    struct scene_resource *resource = *at;
    struct gpu_request request = {.type = GPU_REQUEST_DESTROY};
    request.id = resource->id;
    hide(scene, resource->id);
    submit(scene, request);
    *at = resource->next;
    free_resource(scene, resource);
}

static struct scene_resource **place_of(struct gpu_scene *scene, uint32_t id)
{
    struct scene_resource **at = bucket_of(scene, id);
    while (*at && (*at)->id != id)
        at = &(*at)->next;
    return at;
}

uint32_t scene_unref(struct gpu_scene *scene, uint32_t id)
{
    struct scene_resource **at = place_of(scene, id);
    if (!*at)
        return GPU_RESP_ERR_INVALID_RESOURCE_ID;
    destroy_resource(scene, at);
    return GPU_RESP_OK_NODATA;
}

void scene_forget(struct gpu_scene *scene, uint32_t id, uint64_t token)
{
    struct scene_resource **at = place_of(scene, id);
    if (*at && (*at)->token == token)
        destroy_resource(scene, at);
}

void scene_clear(struct gpu_scene *scene)
{
    for (unsigned i = 0; i < SCENE_BUCKETS; i++)
        while (scene->buckets[i])
            destroy_resource(scene, &scene->buckets[i]);
    for (unsigned i = 0; i < scene->scanout_count; i++)
        scene->scanouts[i].cursor = (struct scene_cursor){0};
}

void scene_finish(struct gpu_scene *scene)
{
    for (unsigned i = 0; i < SCENE_BUCKETS; i++) {
        while (scene->buckets[i]) {
            struct scene_resource *resource = scene->buckets[i];
            scene->buckets[i] = resource->next;
            free_resource(scene, resource);
        }
    }
    for (unsigned i = 0; i < scene->scanout_count; i++) {
        gpu_frame_put(scene->scanouts[i].frame);
        scene->scanouts[i].frame = NULL;
    }
}

/* --- Backings ----------------------------------------------------------------------------------
 */

uint32_t scene_max_pieces(const struct gpu_scene *scene)
{
    size_t count;
    memory_ram_regions(scene->memory, &count);
    return (uint32_t)count;
}

bool scene_add_range(const struct gpu_scene *scene, struct gpu_range *ranges, uint32_t *count,
                     uint64_t gpa, uint64_t size)
{
    size_t region_count;
    const struct memory_ram *regions = memory_ram_regions(scene->memory, &region_count);
    if (!size)
        return false;
    for (size_t i = 0; i < region_count && size; i++) {
        const struct memory_ram *region = &regions[i];
        if (gpa < region->base || gpa - region->base >= region->size)
            continue;
        uint64_t piece = region->size - (gpa - region->base);
        if (piece > size)
            piece = size;
        struct gpu_range *last = *count ? &ranges[*count - 1] : NULL;
        if (last && gpa != region->base && last->gpa + last->size == gpa)
            last->size += piece;
        else
            ranges[(*count)++] = (struct gpu_range){gpa, piece};
        gpa += piece;
        size -= piece;
    }
    return !size;
}

uint32_t scene_attach(struct gpu_scene *scene, uint32_t id, struct gpu_range *ranges,
                      uint32_t count)
{
    struct scene_resource *resource = scene_find(scene, id);
    uint32_t response = GPU_RESP_OK_NODATA;
    if (!resource)
        response = GPU_RESP_ERR_INVALID_RESOURCE_ID;
    else if (resource->range_count)
        response = GPU_RESP_ERR_UNSPEC;
    else if (!count || total_size(ranges, count) < resource->blob_size)
        response = GPU_RESP_ERR_INVALID_PARAMETER;
    else if (!ranges_fit(scene, count))
        response = GPU_RESP_ERR_OUT_OF_MEMORY;
    if (response != GPU_RESP_OK_NODATA) {
        free(ranges);
        return response;
    }
    set_backing(scene, resource, ranges, count);
    submit_backing(scene, resource);
    return response;
}

uint32_t scene_detach(struct gpu_scene *scene, uint32_t id)
{
    struct scene_resource *resource = scene_find(scene, id);
    if (!resource)
        return GPU_RESP_ERR_INVALID_RESOURCE_ID;
    if (!resource->range_count)
        return GPU_RESP_ERR_UNSPEC;
    set_backing(scene, resource, NULL, 0);
    submit_backing(scene, resource);
    return GPU_RESP_OK_NODATA;
}

/* --- Pictures ----------------------------------------------------------------------------------
 */

static void submit_transfer(struct gpu_scene *scene, const struct scene_resource *resource,
                            const struct gpu_rect *rect, uint64_t offset)
{
    struct gpu_request request = {.type = GPU_REQUEST_TRANSFER};
    request.transfer.id = resource->id;
    request.transfer.rect = *rect;
    request.transfer.offset = offset;
    submit(scene, request);
}

/* Linux draws into guest blobs too by "transfers", which have nothing to do there. */
uint32_t scene_transfer(struct gpu_scene *scene, uint32_t id, const struct gpu_rect *rect,
                        uint64_t offset)
{
    const struct scene_resource *resource = scene_find(scene, id);
    if (!resource)
        return GPU_RESP_ERR_INVALID_RESOURCE_ID;
    if (resource->blob_size)
        return GPU_RESP_OK_NODATA;
    if (!gpu_rect_within(rect, resource->width, resource->height))
        return GPU_RESP_ERR_INVALID_PARAMETER;
    if (gpu_rect_empty(rect))
        return GPU_RESP_OK_NODATA;
    uint64_t row = (uint64_t)resource->width * 4;
    uint64_t bytes = (rect->height - 1) * row + (uint64_t)rect->width * 4;
    if (!range_fits(offset, bytes, resource->backing_size))
        return GPU_RESP_ERR_INVALID_PARAMETER;
    submit_transfer(scene, resource, rect, offset);
    return GPU_RESP_OK_NODATA;
}

uint32_t scene_flush(struct gpu_scene *scene, uint32_t id, const struct gpu_rect *rect)
{
    const struct scene_resource *resource = scene_find(scene, id);
    if (!resource)
        return GPU_RESP_ERR_INVALID_RESOURCE_ID;
    /* A blob's size in pixels is that of each scanout, which cuts the rectangle off. */
    uint32_t width = resource->blob_size ? GPU_MAX_SIZE : resource->width;
    uint32_t height = resource->blob_size ? GPU_MAX_SIZE : resource->height;
    if (!gpu_rect_within(rect, width, height))
        return GPU_RESP_ERR_INVALID_PARAMETER;
    if (gpu_rect_empty(rect))
        return GPU_RESP_OK_NODATA;
    struct gpu_request request = {.type = GPU_REQUEST_FLUSH};
    request.flush.id = id;
    request.flush.rect = *rect;
    submit(scene, request);
    for (unsigned i = 0; i < scene->scanout_count; i++)
        if (scene->scanouts[i].view.id == id)
            scene->ops->damaged(scene->opaque, i);
    return GPU_RESP_OK_NODATA;
}

uint32_t scene_uuid(struct gpu_scene *scene, uint32_t id, uint8_t uuid[SCENE_UUID_SIZE])
{
    struct scene_resource *resource = scene_find(scene, id);
    if (!resource)
        return GPU_RESP_ERR_INVALID_RESOURCE_ID;
    if (!resource->has_uuid) {
        if (getrandom(resource->uuid, SCENE_UUID_SIZE, 0) != SCENE_UUID_SIZE)
            return GPU_RESP_ERR_UNSPEC;
        /* RFC 9562: version 4, variant 2 */
        resource->uuid[6] = (resource->uuid[6] & 0x0f) | 0x40;
        resource->uuid[8] = (resource->uuid[8] & 0x3f) | 0x80;
        resource->has_uuid = true;
    }
    memcpy(uuid, resource->uuid, SCENE_UUID_SIZE);
    return GPU_RESP_OK_NODATA;
}

/* --- Scanouts ----------------------------------------------------------------------------------
 */

static uint32_t check_view(const struct gpu_scene *scene, const struct scene_view *view)
{
    const struct scene_resource *resource = scene_find(scene, view->id);
    uint32_t width = view->width, height = view->height;
    if (!resource)
        return GPU_RESP_ERR_INVALID_RESOURCE_ID;
    if (!resource->blob_size != !width)
        return GPU_RESP_ERR_INVALID_PARAMETER;
    if (!width) {
        width = resource->width;
        height = resource->height;
    } else if (!size_fits(width, height) || !gpu_format_layout(view->format) ||
               view->stride < width * 4 || view->stride % 4 || view->offset % 4 ||
               !range_fits(view->offset, (uint64_t)view->stride * (height - 1) + width * 4,
                           resource->blob_size)) {
        return GPU_RESP_ERR_INVALID_PARAMETER;
    }
    if (gpu_rect_empty(&view->rect) || !gpu_rect_within(&view->rect, width, height))
        return GPU_RESP_ERR_INVALID_PARAMETER;
    return GPU_RESP_OK_NODATA;
}

/* Bytes of all views, with this one in place of that scanout's. */
static uint64_t view_bytes(const struct gpu_scene *scene, unsigned scanout,
                           const struct scene_view *view)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < scene->scanout_count; i++) {
        const struct gpu_rect *rect = i == scanout ? &view->rect : &scene->scanouts[i].view.rect;
        bytes += (uint64_t)rect->width * rect->height * 4;
    }
    return bytes;
}

/* Gives a scanout the frame that it is to have; false if there is no memory, with all as it was. */
static bool fit_frame(struct gpu_scene *scene, unsigned number, const struct scene_view *view)
{
    struct scene_scanout *scanout = &scene->scanouts[number];
    uint32_t width = scanout->frame_width ? scanout->frame_width : view->rect.width;
    uint32_t height = scanout->frame_width ? scanout->frame_height : view->rect.height;
    struct error err;
    if (scanout->frame && scanout->frame->width == width && scanout->frame->height == height)
        return true;
    struct gpu_frame *frame = gpu_frame_create(width, height, &err);
    if (!frame) {
        log_error("%s: %s", scene->name, err.message);
        return false;
    }
    gpu_frame_put(scanout->frame);
    scanout->frame = frame;
    submit_output(scene, number);
    return true;
}

uint32_t scene_show(struct gpu_scene *scene, uint32_t number, const struct scene_view *view)
{
    static const struct scene_view off;
    if (number >= scene->scanout_count)
        return GPU_RESP_ERR_INVALID_SCANOUT_ID;
    struct scene_scanout *scanout = &scene->scanouts[number];
    struct scene_view old = scanout->view;
    if (!view->id) {
        view = &off;
        gpu_frame_put(scanout->frame);
        scanout->frame = NULL;
    } else {
        uint32_t response = check_view(scene, view);
        if (response != GPU_RESP_OK_NODATA)
            return response;
        if (view_bytes(scene, number, view) > VIRTIO_GPU_MAX_MEMORY ||
            !fit_frame(scene, number, view))
            return GPU_RESP_ERR_OUT_OF_MEMORY;
    }
    scanout->view = *view;
    submit_view(scene, number);
    if (old.rect.width != view->rect.width || old.rect.height != view->rect.height)
        scene->ops->changed(scene->opaque, number);
    if (old.id || view->id)
        scene->ops->damaged(scene->opaque, number);
    return GPU_RESP_OK_NODATA;
}

void scene_set_frame_size(struct gpu_scene *scene, unsigned number, uint32_t width, uint32_t height)
{
    struct scene_scanout *scanout = &scene->scanouts[number];
    scanout->frame_width = width;
    scanout->frame_height = height;
    if (scanout->view.id && fit_frame(scene, number, &scanout->view))
        scene->ops->damaged(scene->opaque, number);
}

static bool can_be_cursor(const struct scene_resource *resource)
{
    if (resource->blob_size)
        return resource->blob_size >= GPU_CURSOR_SIZE * GPU_CURSOR_SIZE * 4;
    return resource->width == GPU_CURSOR_SIZE && resource->height == GPU_CURSOR_SIZE;
}

uint32_t scene_set_cursor(struct gpu_scene *scene, uint32_t scanout,
                          const struct scene_cursor *cursor)
{
    if (scanout >= scene->scanout_count)
        return GPU_RESP_ERR_INVALID_SCANOUT_ID;
    const struct scene_resource *resource = scene_find(scene, cursor->id);
    if (cursor->id && !resource)
        return GPU_RESP_ERR_INVALID_RESOURCE_ID;
    if (cursor->hot_x >= GPU_CURSOR_SIZE || cursor->hot_y >= GPU_CURSOR_SIZE ||
        (resource && !can_be_cursor(resource)))
        return GPU_RESP_ERR_INVALID_PARAMETER;
    scene->scanouts[scanout].cursor = *cursor;
    submit_cursor(scene, scanout, GPU_REQUEST_CURSOR);
    scene->ops->damaged(scene->opaque, scanout);
    return GPU_RESP_OK_NODATA;
}

uint32_t scene_move_cursor(struct gpu_scene *scene, uint32_t scanout, int32_t x, int32_t y)
{
    if (scanout >= scene->scanout_count)
        return GPU_RESP_ERR_INVALID_SCANOUT_ID;
    struct scene_cursor *cursor = &scene->scanouts[scanout].cursor;
    cursor->x = x;
    cursor->y = y;
    submit_cursor(scene, scanout, GPU_REQUEST_CURSOR_MOVE);
    if (cursor->id)
        scene->ops->damaged(scene->opaque, scanout);
    return GPU_RESP_OK_NODATA;
}

/* --- A new renderer ----------------------------------------------------------------------------
 */

void scene_transfer_all(struct gpu_scene *scene, const struct scene_resource *resource)
{
    if (resource->blob_size)
        return;
    uint64_t rows = resource->backing_size / ((uint64_t)resource->width * 4);
    struct gpu_rect rect = {0, 0, resource->width, resource->height};
    if (rows < rect.height)
        rect.height = (uint32_t)rows;
    if (rect.height)
        submit_transfer(scene, resource, &rect, 0);
}

void scene_replay(struct gpu_scene *scene)
{
    for (unsigned i = 0; i < SCENE_BUCKETS; i++) {
        for (struct scene_resource *resource = scene->buckets[i]; resource;
             resource = resource->next) {
            submit_resource(scene, resource);
            if (resource->range_count)
                submit_backing(scene, resource);
            scene_transfer_all(scene, resource);
        }
    }
    for (unsigned i = 0; i < scene->scanout_count; i++) {
        struct scene_scanout *scanout = &scene->scanouts[i];
        if (scanout->frame)
            submit_output(scene, i);
        if (scanout->view.id)
            submit_view(scene, i);
        submit_cursor(scene, i, GPU_REQUEST_CURSOR);
        scene->ops->damaged(scene->opaque, i);
    }
}
