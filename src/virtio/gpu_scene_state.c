/* Saving and loading what a guest made on its GPU. */
#include <stdlib.h>

#include "virtio/gpu_scene.h"

static void rect_state(struct gpu_rect *rect, struct stream *stream)
{
    stream_u32(stream, &rect->x);
    stream_u32(stream, &rect->y);
    stream_u32(stream, &rect->width);
    stream_u32(stream, &rect->height);
}

/* All of a resource but its ranges. */
static void resource_state(struct scene_resource *resource, struct stream *stream)
{
    stream_u32(stream, &resource->id);
    stream_u64(stream, &resource->blob_size);
    stream_u32(stream, &resource->format);
    stream_u32(stream, &resource->width);
    stream_u32(stream, &resource->height);
    stream_bool(stream, &resource->has_uuid);
    stream_bytes(stream, resource->uuid, SCENE_UUID_SIZE);
    stream_u32(stream, &resource->range_count);
}

static void resource_save(struct scene_resource *resource, struct stream *stream)
{
    resource_state(resource, stream);
    for (uint32_t i = 0; i < resource->range_count; i++) {
        stream_u64(stream, &resource->ranges[i].gpa);
        stream_u64(stream, &resource->ranges[i].size);
    }
}

/* NULL with the stream failed if they are not what a guest can have. */
static struct gpu_range *ranges_load(struct gpu_scene *scene, uint32_t saved, uint32_t *count,
                                     struct stream *stream)
{
    /* Ranges of two regions of RAM may be saved as two or, by another machine, as one. */
    uint32_t room = 0;
    struct gpu_range *ranges = NULL;
    *count = 0;
    for (uint32_t i = 0; i < saved && !stream_failed(stream); i++) {
        struct gpu_range range;
        stream_u64(stream, &range.gpa);
        stream_u64(stream, &range.size);
        if (*count + scene_max_pieces(scene) > room) {
            room = 2 * room + scene_max_pieces(scene) + 16;
            ranges = xrealloc(ranges, room * sizeof(*ranges));
        }
        if (!stream_failed(stream) && !scene_add_range(scene, ranges, count, range.gpa, range.size))
            stream_fail(stream, "%s: a picture at %#llx, %#llx bytes, which is not RAM",
                        scene->name, (unsigned long long)range.gpa, (unsigned long long)range.size);
    }
    if (!stream_failed(stream))
        return ranges;
    free(ranges);
    return NULL;
}

static uint32_t resource_create(struct gpu_scene *scene, const struct scene_resource *saved,
                                struct gpu_range *ranges, uint32_t count)
{
    if (saved->blob_size)
        return scene_create_blob(scene, saved->id, saved->blob_size, ranges, count);
    uint32_t response =
        scene_create_picture(scene, saved->id, saved->format, saved->width, saved->height);
    if (response == GPU_RESP_OK_NODATA && count)
        return scene_attach(scene, saved->id, ranges, count);
    free(ranges);
    return response;
}

static void resource_load(struct gpu_scene *scene, struct stream *stream)
{
    struct scene_resource saved = {0};
    uint32_t count = 0;
    resource_state(&saved, stream);
    if (saved.range_count > GPU_MAX_RANGES)
        stream_fail(stream, "%s: resource %u in %u pieces", scene->name, saved.id,
                    saved.range_count);
    struct gpu_range *ranges = ranges_load(scene, saved.range_count, &count, stream);
    if (stream_failed(stream))
        return;
    if (resource_create(scene, &saved, ranges, count) != GPU_RESP_OK_NODATA) {
        stream_fail(stream, "%s: resource %u of %ux%u pixels, %u pieces, blob of %llu bytes",
                    scene->name, saved.id, saved.width, saved.height, saved.range_count,
                    (unsigned long long)saved.blob_size);
        return;
    }
    struct scene_resource *resource = scene_find(scene, saved.id);
    resource->has_uuid = saved.has_uuid;
    memcpy(resource->uuid, saved.uuid, SCENE_UUID_SIZE);
    scene_transfer_all(scene, resource);
}

static void scanout_state(struct scene_scanout *scanout, struct stream *stream)
{
    struct scene_view *view = &scanout->view;
    struct scene_cursor *cursor = &scanout->cursor;
    uint32_t x = (uint32_t)cursor->x, y = (uint32_t)cursor->y;
    stream_u32(stream, &scanout->width);
    stream_u32(stream, &scanout->height);
    stream_bool(stream, &scanout->connected);
    stream_u32(stream, &view->id);
    rect_state(&view->rect, stream);
    stream_u32(stream, &view->format);
    stream_u32(stream, &view->width);
    stream_u32(stream, &view->height);
    stream_u32(stream, &view->stride);
    stream_u64(stream, &view->offset);
    stream_u32(stream, &cursor->id);
    stream_u32(stream, &x);
    stream_u32(stream, &y);
    stream_u32(stream, &cursor->hot_x);
    stream_u32(stream, &cursor->hot_y);
    cursor->x = (int32_t)x;
    cursor->y = (int32_t)y;
}

static bool display_fits(uint32_t size)
{
    return size >= SCENE_MIN_SIZE && size <= GPU_MAX_SIZE;
}

static void scanout_load(struct gpu_scene *scene, unsigned number, struct stream *stream)
{
    struct scene_scanout saved = {0}, *scanout = &scene->scanouts[number];
    scanout_state(&saved, stream);
    if (stream_failed(stream))
        return;
    if (!display_fits(saved.width) || !display_fits(saved.height)) {
        stream_fail(stream, "%s: a display of %ux%u pixels", scene->name, saved.width,
                    saved.height);
        return;
    }
    scanout->width = saved.width;
    scanout->height = saved.height;
    scanout->connected = saved.connected;
    if ((saved.view.id && scene_show(scene, number, &saved.view) != GPU_RESP_OK_NODATA) ||
        scene_set_cursor(scene, number, &saved.cursor) != GPU_RESP_OK_NODATA)
        stream_fail(stream, "%s: scanout %u shows resource %u with cursor %u, which it cannot",
                    scene->name, number, saved.view.id, saved.cursor.id);
}

void scene_state(struct gpu_scene *scene, struct stream *stream)
{
    bool loading = stream_loading(stream);
    uint32_t scanouts = scene->scanout_count, resources = scene->resource_count;
    stream_begin(stream, "scene", 1);
    stream_u32(stream, &scanouts);
    if (scanouts != scene->scanout_count)
        stream_fail(stream, "%s: saved with %u displays; this machine has %u", scene->name,
                    scanouts, scene->scanout_count);
    stream_u32(stream, &resources);
    for (unsigned i = 0; !loading && i < SCENE_BUCKETS; i++)
        for (struct scene_resource *resource = scene->buckets[i]; resource;
             resource = resource->next)
            resource_save(resource, stream);
    for (uint32_t i = 0; loading && i < resources && !stream_failed(stream); i++)
        resource_load(scene, stream);
    for (unsigned i = 0; i < scene->scanout_count; i++) {
        if (loading)
            scanout_load(scene, i, stream);
        else
            scanout_state(&scene->scanouts[i], stream);
    }
    stream_end(stream);
}
