#include <stddef.h>

#include "base/bits.h"
#include "gpu/message.h"

static const struct {
    uint32_t format;
    struct gpu_format_layout layout;
} formats[] = {
    {GPU_FORMAT_B8G8R8A8, {2, 1, 0, 3}}, {GPU_FORMAT_B8G8R8X8, {2, 1, 0, -1}},
    {GPU_FORMAT_A8R8G8B8, {1, 2, 3, 0}}, {GPU_FORMAT_X8R8G8B8, {1, 2, 3, -1}},
    {GPU_FORMAT_R8G8B8A8, {0, 1, 2, 3}}, {GPU_FORMAT_X8B8G8R8, {3, 2, 1, -1}},
    {GPU_FORMAT_A8B8G8R8, {3, 2, 1, 0}}, {GPU_FORMAT_R8G8B8X8, {0, 1, 2, -1}},
};

const struct gpu_format_layout *gpu_format_layout(uint32_t format)
{
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
        if (formats[i].format == format)
            return &formats[i].layout;
    return NULL;
}

bool gpu_rect_within(const struct gpu_rect *rect, uint32_t width, uint32_t height)
{
    return rect->width <= width && rect->x <= width - rect->width && rect->height <= height &&
           rect->y <= height - rect->height;
}

struct gpu_rect gpu_rect_union(const struct gpu_rect *a, const struct gpu_rect *b)
{
    if (gpu_rect_empty(a))
        return *b;
    if (gpu_rect_empty(b))
        return *a;
    uint32_t left = a->x < b->x ? a->x : b->x, top = a->y < b->y ? a->y : b->y;
    uint32_t right = a->x + a->width, bottom = a->y + a->height;
    if (b->x + b->width > right)
        right = b->x + b->width;
    if (b->y + b->height > bottom)
        bottom = b->y + b->height;
    return (struct gpu_rect){left, top, right - left, bottom - top};
}

struct gpu_rect gpu_rect_intersection(const struct gpu_rect *a, const struct gpu_rect *b)
{
    uint32_t left = a->x > b->x ? a->x : b->x, top = a->y > b->y ? a->y : b->y;
    uint32_t right = a->x + a->width, bottom = a->y + a->height;
    if (b->x + b->width < right)
        right = b->x + b->width;
    if (b->y + b->height < bottom)
        bottom = b->y + b->height;
    if (right <= left || bottom <= top)
        return (struct gpu_rect){0};
    return (struct gpu_rect){left, top, right - left, bottom - top};
}
