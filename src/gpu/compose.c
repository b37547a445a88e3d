/* Frames: what of a scanout is damaged, and how it is drawn. */
#include <string.h>

#include "gpu/core.h"

void core_damage(struct core_scanout *scanout, const struct gpu_rect *rect)
{
    const struct gpu_rect all = {0, 0, scanout->rect.width, scanout->rect.height};
    struct gpu_rect seen = gpu_rect_intersection(rect, &all);
    scanout->damage = gpu_rect_union(&scanout->damage, &seen);
}

void core_damage_all(struct core_scanout *scanout)
{
    scanout->damage = (struct gpu_rect){0, 0, scanout->rect.width, scanout->rect.height};
    scanout->blank = !scanout->resource;
}

/* The part of [at, at + GPU_CURSOR_SIZE) that is in [0, limit). */
static bool clip(int64_t at, uint32_t limit, uint32_t *start, uint32_t *size)
{
    int64_t end = at + GPU_CURSOR_SIZE;
    if (at < 0)
        at = 0;
    if (end > limit)
        end = limit;
    if (at >= end)
        return false;
    *start = (uint32_t)at;
    *size = (uint32_t)(end - at);
    return true;
}

/* The cursor's upper left corner, in the scanout's pixels. */
static int64_t cursor_left(const struct core_cursor *cursor)
{
    return (int64_t)cursor->x - cursor->hot_x;
}

static int64_t cursor_top(const struct core_cursor *cursor)
{
    return (int64_t)cursor->y - cursor->hot_y;
}

static bool cursor_visible(const struct core_scanout *scanout, struct gpu_rect *rect)
{
    return scanout->cursor.image &&
           clip(cursor_left(&scanout->cursor), scanout->rect.width, &rect->x, &rect->width) &&
           clip(cursor_top(&scanout->cursor), scanout->rect.height, &rect->y, &rect->height);
}

void core_damage_cursor(struct core_scanout *scanout)
{
    struct gpu_rect rect;
    if (cursor_visible(scanout, &rect))
        scanout->damage = gpu_rect_union(&scanout->damage, &rect);
}

/* [start, start + size) of `from` pixels as pixels of `to`, with those beside it that it shines
 * into when it is scaled. */
static void scale_span(uint32_t *start, uint32_t *size, uint32_t from, uint32_t to)
{
    if (from == to)
        return;
    uint64_t low = *start > 1 ? *start - 1 : 0, high = (uint64_t)*start + *size + 1;
    low = low * to / from;
    high = (high * to + from - 1) / from + 1;
    if (low)
        low--;
    if (high > to)
        high = to;
    *start = (uint32_t)low;
    *size = (uint32_t)(high - low);
}

/* Brings the picture of a blob up to date. A backing that is gone or too small leaves what was
 * there. */
static void refresh_blob(struct gpu_core *core, struct core_scanout *scanout)
{
    struct gpu_canvas *canvas = core->canvas;
    struct gpu_rect rect = scanout->stale;
    scanout->stale = (struct gpu_rect){0};
    if (gpu_rect_empty(&rect))
        return;
    uint64_t offset = scanout->blob_offset +
                      (uint64_t)(scanout->rect.y + rect.y) * scanout->blob_stride +
                      (uint64_t)(scanout->rect.x + rect.x) * 4;
    size_t row = (size_t)rect.width * 4, stride;
    if (!core_backing_holds(scanout->resource, offset, scanout->blob_stride, row, rect.height))
        return;
    uint64_t start = gpu_trace_now();
    uint8_t *target = canvas->ops->write_begin(canvas, scanout->image, &rect, &stride);
    if (!target)
        return;
    core_gather(scanout->resource, offset, scanout->blob_stride, row, rect.height, target, stride);
    canvas->ops->write_end(canvas, scanout->image, &rect);
    canvas->counters->bytes_uploaded += row * rect.height;
    gpu_trace_span(canvas->trace, "upload", (int)(scanout - core->scanouts), start);
}

static void draw_blank(struct core_scanout *scanout, struct gpu_rect *drawn)
{
    if (!scanout->blank)
        return;
    for (uint32_t y = 0; y < scanout->height; y++) {
        uint32_t *row = (uint32_t *)(scanout->pixels + (size_t)y * scanout->stride);
        for (uint32_t x = 0; x < scanout->width; x++)
            row[x] = GPU_BLACK;
    }
    scanout->blank = false;
    *drawn = (struct gpu_rect){0, 0, scanout->width, scanout->height};
}

enum gpu_status core_render(struct gpu_core *core, struct core_scanout *scanout,
                            struct gpu_rect *drawn)
{
    struct gpu_canvas *canvas = core->canvas;
    *drawn = (struct gpu_rect){0};
    if (!scanout->pixels)
        return GPU_OK;
    if (!scanout->resource) {
        draw_blank(scanout, drawn);
        return GPU_OK;
    }
    if (scanout->image)
        refresh_blob(core, scanout);
    struct gpu_rect damage = scanout->damage;
    if (gpu_rect_empty(&damage))
        return GPU_OK;
    scale_span(&damage.x, &damage.width, scanout->rect.width, scanout->width);
    scale_span(&damage.y, &damage.height, scanout->rect.height, scanout->height);

    struct gpu_rect ignored;
    struct gpu_composition composition = {
        .image = scanout->image ? scanout->image : scanout->resource->image,
        .source = scanout->rect,
        .width = scanout->width,
        .height = scanout->height,
    };
    if (scanout->image)
        composition.source.x = composition.source.y = 0;
    if (cursor_visible(scanout, &ignored)) {
        composition.cursor = scanout->cursor.image;
        composition.cursor_x = (int32_t)cursor_left(&scanout->cursor);
        composition.cursor_y = (int32_t)cursor_top(&scanout->cursor);
    }
    if (!canvas->ops->compose(canvas, &composition, &damage, scanout->pixels, scanout->stride))
        return canvas->message[0] ? GPU_FAILED : GPU_OUT_OF_MEMORY;
    scanout->damage = (struct gpu_rect){0};
    scanout->flushed = false;
    canvas->counters->frames_presented++;
    *drawn = damage;
    return GPU_OK;
}
