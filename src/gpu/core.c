/* The core of a renderer: the table of requests, and the resources and scanouts they are about. */
#include "gpu/core.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* What a request is executed with. Handlers return a status; they put more into `answer`. */
struct call {
    const struct gpu_request *request;
    const void *payload;
    size_t payload_size;
    int fd;
    struct gpu_answer *answer;
    void **payload_out;
    size_t payload_out_size;
};

/* --- Resources ---------------------------------------------------------------------------------
 */

static struct core_resource **bucket_of(struct gpu_core *core, uint32_t id)
{
    return &core->buckets[id % CORE_BUCKETS];
}

static struct core_resource *find_resource(struct gpu_core *core, uint32_t id)
{
    struct core_resource *resource = *bucket_of(core, id);
    while (resource && resource->id != id)
        resource = resource->next;
    return resource;
}

static struct core_resource *add_resource(struct gpu_core *core, uint32_t id)
{
    struct core_resource *resource = xcalloc(1, sizeof(*resource));
    resource->id = id;
    resource->next = *bucket_of(core, id);
    *bucket_of(core, id) = resource;
    core->resource_count++;
    return resource;
}

static bool can_add(struct gpu_core *core, uint32_t id)
{
    return id && !find_resource(core, id) && core->resource_count < GPU_MAX_RESOURCES;
}

static uint64_t picture_size(uint32_t width, uint32_t height)
{
    return (uint64_t)width * height * 4;
}

static bool size_fits(uint32_t width, uint32_t height)
{
    return width && height && width <= GPU_MAX_SIZE && height <= GPU_MAX_SIZE;
}

/* Of all pictures together. */
static struct gpu_image *create_image(struct gpu_core *core, unsigned adapter, uint32_t format,
                                      uint32_t width, uint32_t height)
{
    if (picture_size(width, height) > CORE_MAX_PICTURE - core->picture_bytes)
        return NULL;
    struct gpu_image *image =
        core->canvas->ops->image_create(core->canvas, adapter, format, width, height);
    if (image)
        core->picture_bytes += picture_size(width, height);
    return image;
}

static void destroy_image(struct gpu_core *core, struct gpu_image **image, uint32_t width,
                          uint32_t height)
{
    if (!*image)
        return;
    core->canvas->ops->image_destroy(core->canvas, *image);
    core->picture_bytes -= picture_size(width, height);
    *image = NULL;
}

static enum gpu_status no_memory(const struct gpu_core *core)
{
    return core->canvas->message[0] ? GPU_FAILED : GPU_OUT_OF_MEMORY;
}

/* --- Scanouts ----------------------------------------------------------------------------------
 */

static struct core_scanout *find_scanout(struct gpu_core *core, uint32_t number)
{
    if (number >= GPU_MAX_SCANOUTS)
        return NULL;
    core->canvas->counters = &core->counters[number];
    return &core->scanouts[number];
}

static void turn_off(struct gpu_core *core, struct core_scanout *scanout)
{
    destroy_image(core, &scanout->image, scanout->rect.width, scanout->rect.height);
    scanout->resource = NULL;
    scanout->rect = scanout->damage = scanout->stale = (struct gpu_rect){0};
    scanout->flushed = false;
    scanout->blank = true;
}

static void hide_cursor(struct gpu_core *core, struct core_scanout *scanout)
{
    core_damage_cursor(scanout);
    destroy_image(core, &scanout->cursor.image, GPU_CURSOR_SIZE, GPU_CURSOR_SIZE);
}

/* Makes an image of the cursor's pixels, on the scanout's adapter. */
static bool show_cursor(struct gpu_core *core, struct core_scanout *scanout)
{
    const struct gpu_rect all = {0, 0, GPU_CURSOR_SIZE, GPU_CURSOR_SIZE};
    const size_t row = GPU_CURSOR_SIZE * 4;
    const struct gpu_canvas_ops *ops = core->canvas->ops;
    struct core_cursor *cursor = &scanout->cursor;
    size_t stride;
    cursor->image =
        create_image(core, scanout->adapter, cursor->format, GPU_CURSOR_SIZE, GPU_CURSOR_SIZE);
    uint8_t *target =
        cursor->image ? ops->write_begin(core->canvas, cursor->image, &all, &stride) : NULL;
    if (!target) {
        destroy_image(core, &cursor->image, GPU_CURSOR_SIZE, GPU_CURSOR_SIZE);
        return false;
    }
    for (unsigned y = 0; y < GPU_CURSOR_SIZE; y++)
        memcpy(target + y * stride, cursor->pixels + y * row, row);
    ops->write_end(core->canvas, cursor->image, &all);
    cursor->adapter = scanout->adapter;
    return true;
}

static void unmap_output(struct core_scanout *scanout)
{
    if (scanout->pixels)
        munmap(scanout->pixels, scanout->size);
    scanout->pixels = NULL;
}

static bool shown_elsewhere(const struct gpu_core *core, const struct core_resource *resource,
                            const struct core_scanout *scanout)
{
    for (unsigned i = 0; i < GPU_MAX_SCANOUTS; i++)
        if (&core->scanouts[i] != scanout && core->scanouts[i].resource == resource)
            return true;
    return false;
}

/* --- Requests ----------------------------------------------------------------------------------
 */

static enum gpu_status run_fence(struct gpu_core *core, struct call *call)
{
    return GPU_OK;
}

static enum gpu_status run_output(struct gpu_core *core, struct call *call)
{
    uint32_t width = call->request->output.width, height = call->request->output.height;
    uint32_t stride = call->request->output.stride;
    struct core_scanout *scanout = find_scanout(core, call->request->output.scanout);
    if (!scanout || !size_fits(width, height) || stride < width * 4 || stride % 4 ||
        stride > GPU_MAX_SIZE * 4 || call->fd < 0)
        return GPU_BAD_REQUEST;
    size_t size = (size_t)stride * height;
    /* Writing behind the end of a file that shrinks would be the end of this process. */
    int seals = fcntl(call->fd, F_GET_SEALS);
    struct stat status;
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(call->fd, &status) < 0 ||
        (uint64_t)status.st_size < size)
        return GPU_BAD_REQUEST;
    void *pixels = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, call->fd, 0);
    if (pixels == MAP_FAILED)
        return GPU_OUT_OF_MEMORY;
    unmap_output(scanout);
    scanout->pixels = pixels;
    scanout->size = size;
    scanout->width = width;
    scanout->height = height;
    scanout->stride = stride;
    core_damage_all(scanout);
    return GPU_OK;
}

static enum gpu_status run_resource(struct gpu_core *core, struct call *call)
{
    uint32_t width = call->request->resource.width, height = call->request->resource.height;
    uint32_t id = call->request->resource.id, format = call->request->resource.format;
    if (!can_add(core, id) || !size_fits(width, height) || !gpu_format_layout(format))
        return GPU_BAD_REQUEST;
    unsigned adapter = core_choose_adapter(core, NULL);
    struct gpu_image *image = create_image(core, adapter, format, width, height);
    if (!image)
        return no_memory(core);
    struct core_resource *resource = add_resource(core, id);
    resource->format = format;
    resource->width = width;
    resource->height = height;
    resource->image = image;
    resource->adapter = adapter;
    return GPU_OK;
}

static enum gpu_status run_blob(struct gpu_core *core, struct call *call)
{
    if (!can_add(core, call->request->blob.id) || !call->request->blob.size)
        return GPU_BAD_REQUEST;
    struct core_resource *resource = add_resource(core, call->request->blob.id);
    resource->blob = true;
    resource->blob_size = call->request->blob.size;
    return GPU_OK;
}

static void free_resource(struct gpu_core *core, struct core_resource *resource)
{
    destroy_image(core, &resource->image, resource->width, resource->height);
    free(resource->ranges);
    free(resource);
    core->resource_count--;
}

static enum gpu_status run_destroy(struct gpu_core *core, struct call *call)
{
    struct core_resource **at = bucket_of(core, call->request->id);
    while (*at && (*at)->id != call->request->id)
        at = &(*at)->next;
    struct core_resource *resource = *at;
    if (!resource)
        return GPU_BAD_REQUEST;
    for (unsigned i = 0; i < GPU_MAX_SCANOUTS; i++)
        if (core->scanouts[i].resource == resource)
            turn_off(core, &core->scanouts[i]);
    *at = resource->next;
    free_resource(core, resource);
    return GPU_OK;
}

static enum gpu_status run_backing(struct gpu_core *core, struct call *call)
{
    struct core_resource *resource = find_resource(core, call->request->backing.id);
    uint32_t count = call->request->backing.count;
    if (!resource || count > GPU_MAX_RANGES ||
        call->payload_size != count * sizeof(struct gpu_range) ||
        !core_set_backing(core, resource, call->payload, count))
        return GPU_BAD_REQUEST;
    return GPU_OK;
}

static enum gpu_status run_transfer(struct gpu_core *core, struct call *call)
{
    struct gpu_canvas *canvas = core->canvas;
    struct gpu_rect rect = call->request->transfer.rect;
    uint64_t offset = call->request->transfer.offset;
    struct core_resource *resource = find_resource(core, call->request->transfer.id);
    if (!resource || resource->blob || gpu_rect_empty(&rect) ||
        !gpu_rect_within(&rect, resource->width, resource->height))
        return GPU_BAD_REQUEST;
    size_t row = (size_t)rect.width * 4, pitch = (size_t)resource->width * 4, stride;
    if (!core_backing_holds(resource, offset, pitch, row, rect.height))
        return GPU_BAD_REQUEST;
    int number = -1;
    for (unsigned i = 0; i < GPU_MAX_SCANOUTS && number < 0; i++)
        if (core->scanouts[i].resource == resource)
            number = (int)i;
    canvas->counters = &core->counters[number < 0 ? GPU_MAX_SCANOUTS : number];

    uint64_t start = gpu_trace_now();
    uint8_t *target = canvas->ops->write_begin(canvas, resource->image, &rect, &stride);
    if (!target)
        return no_memory(core);
    core_gather(resource, offset, pitch, row, rect.height, target, stride);
    canvas->ops->write_end(canvas, resource->image, &rect);
    canvas->counters->transfers++;
    canvas->counters->bytes_uploaded += row * rect.height;
    gpu_trace_span(canvas->trace, "transfer", number, start);
    return GPU_OK;
}

/* What a blob's bytes are as a picture. */
static enum gpu_status show_blob(struct gpu_core *core, struct core_scanout *scanout,
                                 struct core_resource *resource, const struct gpu_request *request)
{
    uint32_t width = request->scanout.width, height = request->scanout.height;
    uint32_t stride = request->scanout.stride, format = request->scanout.format;
    const struct gpu_rect *rect = &request->scanout.rect;
    if (!size_fits(width, height) || !gpu_format_layout(format) || stride < width * 4 ||
        request->scanout.offset > resource->blob_size || !gpu_rect_within(rect, width, height))
        return GPU_BAD_REQUEST;
    bool flip = scanout->image && scanout->blob_format == format &&
                scanout->rect.width == rect->width && scanout->rect.height == rect->height;
    if (!flip) {
        unsigned adapter = core_choose_adapter(core, scanout);
        struct gpu_image *image = create_image(core, adapter, format, rect->width, rect->height);
        if (!image)
            return no_memory(core);
        turn_off(core, scanout);
        scanout->image = image;
        scanout->adapter = adapter;
    }
    scanout->blob_format = format;
    scanout->blob_stride = stride;
    scanout->blob_offset = request->scanout.offset;
    scanout->stale = (struct gpu_rect){0, 0, rect->width, rect->height};
    return GPU_OK;
}

static enum gpu_status show_picture(struct gpu_core *core, struct core_scanout *scanout,
                                    struct core_resource *resource, const struct gpu_rect *rect)
{
    if (!gpu_rect_within(rect, resource->width, resource->height))
        return GPU_BAD_REQUEST;
    unsigned adapter = resource->adapter;
    if (!shown_elsewhere(core, resource, scanout))
        adapter = scanout->resource ? scanout->adapter : core_choose_adapter(core, scanout);
    if (!core_move(core, resource, adapter))
        return no_memory(core);
    turn_off(core, scanout);
    scanout->adapter = adapter;
    return GPU_OK;
}

static enum gpu_status run_scanout(struct gpu_core *core, struct call *call)
{
    const struct gpu_request *request = call->request;
    struct core_scanout *scanout = find_scanout(core, request->scanout.scanout);
    struct core_resource *resource = find_resource(core, request->scanout.id);
    if (!scanout || (!resource && request->scanout.id))
        return GPU_BAD_REQUEST;
    if (!resource) {
        turn_off(core, scanout);
        return GPU_OK;
    }
    if (gpu_rect_empty(&request->scanout.rect))
        return GPU_BAD_REQUEST;
    enum gpu_status status = resource->blob
                                 ? show_blob(core, scanout, resource, request)
                                 : show_picture(core, scanout, resource, &request->scanout.rect);
    if (status != GPU_OK)
        return status;
    scanout->resource = resource;
    scanout->rect = request->scanout.rect;
    core_damage_all(scanout);
    if (scanout->cursor.image && scanout->cursor.adapter != scanout->adapter) {
        hide_cursor(core, scanout);
        show_cursor(core, scanout); /* or the picture has none */
    }
    return GPU_OK;
}

static enum gpu_status run_flush(struct gpu_core *core, struct call *call)
{
    const struct gpu_rect *rect = &call->request->flush.rect;
    struct core_resource *resource = find_resource(core, call->request->flush.id);
    /* Pictures know their size, blobs as soon as they are shown. */
    if (!resource || gpu_rect_empty(rect) || !gpu_rect_within(rect, UINT32_MAX, UINT32_MAX) ||
        (!resource->blob && !gpu_rect_within(rect, resource->width, resource->height)))
        return GPU_BAD_REQUEST;
    for (unsigned i = 0; i < GPU_MAX_SCANOUTS; i++) {
        struct core_scanout *scanout = &core->scanouts[i];
        struct gpu_rect seen = gpu_rect_intersection(rect, &scanout->rect);
        if (scanout->resource != resource || gpu_rect_empty(&seen))
            continue;
        seen.x -= scanout->rect.x;
        seen.y -= scanout->rect.y;
        core_damage(scanout, &seen);
        if (scanout->image)
            scanout->stale = gpu_rect_union(&scanout->stale, &seen);
        if (scanout->flushed)
            core->counters[i].frames_dropped++;
        scanout->flushed = true;
    }
    return GPU_OK;
}

/* A cursor has alpha, though Linux makes its picture in a format that has none. */
static uint32_t cursor_format(uint32_t format)
{
    static const uint32_t with_alpha[][2] = {
        {GPU_FORMAT_B8G8R8X8, GPU_FORMAT_B8G8R8A8},
        {GPU_FORMAT_X8R8G8B8, GPU_FORMAT_A8R8G8B8},
        {GPU_FORMAT_X8B8G8R8, GPU_FORMAT_A8B8G8R8},
        {GPU_FORMAT_R8G8B8X8, GPU_FORMAT_R8G8B8A8},
    };
    for (size_t i = 0; i < ARRAY_SIZE(with_alpha); i++)
        if (with_alpha[i][0] == format)
            return with_alpha[i][1];
    return format;
}

#define CURSOR_ROW ((size_t)GPU_CURSOR_SIZE * 4)

/* Whether the resource has as many pixels as a cursor. */
static bool is_cursor(const struct core_resource *resource)
{
    if (resource->blob)
        return core_backing_holds(resource, 0, CURSOR_ROW, CURSOR_ROW, GPU_CURSOR_SIZE);
    return resource->width == GPU_CURSOR_SIZE && resource->height == GPU_CURSOR_SIZE;
}

/* Takes the resource's picture for the cursor's. */
static bool read_cursor(struct gpu_core *core, struct core_resource *resource,
                        struct core_cursor *cursor)
{
    cursor->format = resource->blob ? GPU_FORMAT_B8G8R8A8 : cursor_format(resource->format);
    if (resource->blob)
        return core_gather(resource, 0, CURSOR_ROW, CURSOR_ROW, GPU_CURSOR_SIZE, cursor->pixels,
                           CURSOR_ROW);
    return core->canvas->ops->read(core->canvas, resource->image, cursor->pixels);
}

static enum gpu_status run_cursor(struct gpu_core *core, struct call *call)
{
    struct core_scanout *scanout = find_scanout(core, call->request->cursor.scanout);
    struct core_resource *resource = find_resource(core, call->request->cursor.id);
    if (!scanout || (!resource && call->request->cursor.id) ||
        call->request->cursor.hot_x >= GPU_CURSOR_SIZE ||
        call->request->cursor.hot_y >= GPU_CURSOR_SIZE || (resource && !is_cursor(resource)))
        return GPU_BAD_REQUEST;
    hide_cursor(core, scanout);
    scanout->cursor.x = call->request->cursor.x;
    scanout->cursor.y = call->request->cursor.y;
    scanout->cursor.hot_x = call->request->cursor.hot_x;
    scanout->cursor.hot_y = call->request->cursor.hot_y;
    if (!resource)
        return GPU_OK;
    if (!read_cursor(core, resource, &scanout->cursor) || !show_cursor(core, scanout))
        return no_memory(core);
    core_damage_cursor(scanout);
    return GPU_OK;
}

static enum gpu_status run_cursor_move(struct gpu_core *core, struct call *call)
{
    struct core_scanout *scanout = find_scanout(core, call->request->cursor.scanout);
    if (!scanout)
        return GPU_BAD_REQUEST;
    core_damage_cursor(scanout);
    scanout->cursor.x = call->request->cursor.x;
    scanout->cursor.y = call->request->cursor.y;
    core_damage_cursor(scanout);
    return GPU_OK;
}

static enum gpu_status run_render(struct gpu_core *core, struct call *call)
{
    struct core_scanout *scanout = find_scanout(core, call->request->scanout.scanout);
    if (!scanout)
        return GPU_BAD_REQUEST;
    uint64_t start = gpu_trace_now();
    enum gpu_status status = core_render(core, scanout, &call->answer->rect);
    if (!gpu_rect_empty(&call->answer->rect))
        gpu_trace_span(core->canvas->trace, "frame", (int)(scanout - core->scanouts), start);
    return status;
}

/* Counters are all uint64_t. */
static void add_counters(struct gpu_counters *sum, const struct gpu_counters *more)
{
    uint64_t *to = (uint64_t *)sum;
    const uint64_t *from = (const uint64_t *)more;
    for (size_t i = 0; i < sizeof(*sum) / sizeof(*to); i++)
        to[i] += from[i];
}

static enum gpu_status run_stats(struct gpu_core *core, struct call *call)
{
    struct gpu_canvas *canvas = core->canvas;
    struct gpu_stats *stats = xcalloc(1, sizeof(*stats));
    snprintf(stats->backend, sizeof(stats->backend), "%s", canvas->ops->name);
    stats->scanout_count = GPU_STATS_SCANOUTS;
    for (unsigned i = 0; i < GPU_MAX_SCANOUTS; i++) {
        stats->scanouts[i] = core->counters[i];
        stats->scanout_adapter[i] =
            core->scanouts[i].resource ? core->scanouts[i].adapter : UINT32_MAX;
    }
    for (unsigned i = 0; i <= GPU_MAX_SCANOUTS; i++)
        add_counters(&stats->total, &core->counters[i]);
    stats->adapter_count = canvas->ops->adapter_count;
    memcpy(stats->adapters, canvas->adapters, sizeof(stats->adapters));
    memcpy(stats->adapter_name, canvas->adapter_names, sizeof(stats->adapter_name));
    if (call->request->flags & GPU_STATS_RESET) {
        memset(core->counters, 0, sizeof(core->counters));
        for (unsigned i = 0; i < GPU_MAX_ADAPTERS; i++)
            canvas->adapters[i].memory_peak = canvas->adapters[i].memory;
    }
    *call->payload_out = stats;
    call->payload_out_size = sizeof(*stats);
    return GPU_OK;
}

static enum gpu_status run_trace(struct gpu_core *core, struct call *call)
{
    if (call->request->flags & GPU_TRACE_START) {
        if (!core->trace)
            core->trace = gpu_trace_create();
        gpu_trace_clear(core->trace);
        core->canvas->trace = core->trace;
        return GPU_OK;
    }
    if (core->canvas->trace)
        *call->payload_out = gpu_trace_format(core->trace, &call->payload_out_size);
    core->canvas->trace = NULL;
    return GPU_OK;
}

static const struct handler {
    enum gpu_status (*run)(struct gpu_core *core, struct call *call);
    bool payload;
} handlers[] = {
    [GPU_REQUEST_FENCE] = {run_fence, false},
    [GPU_REQUEST_OUTPUT] = {run_output, false},
    [GPU_REQUEST_RESOURCE] = {run_resource, false},
    [GPU_REQUEST_BLOB] = {run_blob, false},
    [GPU_REQUEST_DESTROY] = {run_destroy, false},
    [GPU_REQUEST_BACKING] = {run_backing, true},
    [GPU_REQUEST_TRANSFER] = {run_transfer, false},
    [GPU_REQUEST_SCANOUT] = {run_scanout, false},
    [GPU_REQUEST_FLUSH] = {run_flush, false},
    [GPU_REQUEST_CURSOR] = {run_cursor, false},
    [GPU_REQUEST_CURSOR_MOVE] = {run_cursor_move, false},
    [GPU_REQUEST_RENDER] = {run_render, false},
    [GPU_REQUEST_STATS] = {run_stats, false},
    [GPU_REQUEST_TRACE] = {run_trace, false},
};

static const char *const status_texts[] = {
    [GPU_OK] = "",
    [GPU_BAD_REQUEST] = "the request is against the rules",
    [GPU_OUT_OF_MEMORY] = "no memory",
    [GPU_FAILED] = "the adapter failed",
};

void gpu_core_execute(struct gpu_core *core, const struct gpu_request *request, const void *payload,
                      int fd, struct gpu_answer *answer, void **payload_out)
{
    struct call call = {
        .request = request,
        .payload = payload,
        .payload_size = request->size - sizeof(*request),
        .fd = fd,
        .answer = answer,
        .payload_out = payload_out,
    };
    const struct handler *handler =
        request->type < ARRAY_SIZE(handlers) ? &handlers[request->type] : NULL;
    *answer = (struct gpu_answer){.type = request->type, .serial = request->serial};
    *payload_out = NULL;
    core->canvas->message[0] = '\0';
    core->canvas->counters = &core->counters[GPU_MAX_SCANOUTS];

    uint64_t start = gpu_trace_now();
    if (handler && handler->run && (handler->payload || !call.payload_size))
        answer->status = handler->run(core, &call);
    else
        answer->status = GPU_BAD_REQUEST;
    core->canvas->counters->busy_ns += gpu_trace_now() - start;

    answer->size = (uint32_t)(sizeof(*answer) + call.payload_out_size);
    if (answer->status != GPU_OK)
        snprintf(answer->message, sizeof(answer->message), "%s",
                 answer->status == GPU_FAILED && core->canvas->message[0]
                     ? core->canvas->message
                     : status_texts[answer->status]);
}

struct gpu_core *gpu_core_create(struct gpu_canvas *canvas, uint32_t spread)
{
    struct gpu_core *core = xcalloc(1, sizeof(*core));
    core->canvas = canvas;
    core->spread = spread;
    canvas->counters = &core->counters[GPU_MAX_SCANOUTS];
    return core;
}

void gpu_core_add_memory(struct gpu_core *core, uint64_t gpa, uint64_t size, const uint8_t *host)
{
    assert(core->memory_count < CORE_MAX_MEMORY);
    core->memory[core->memory_count++] = (struct core_memory){gpa, size, host};
}

void gpu_core_destroy(struct gpu_core *core)
{
    if (!core)
        return;
    for (unsigned i = 0; i < GPU_MAX_SCANOUTS; i++) {
        turn_off(core, &core->scanouts[i]);
        hide_cursor(core, &core->scanouts[i]);
        unmap_output(&core->scanouts[i]);
    }
    for (unsigned i = 0; i < CORE_BUCKETS; i++) {
        while (core->buckets[i]) {
            struct core_resource *resource = core->buckets[i];
            core->buckets[i] = resource->next;
            free_resource(core, resource);
        }
    }
    core->canvas->ops->destroy(core->canvas);
    gpu_trace_destroy(core->trace);
    free(core);
}
