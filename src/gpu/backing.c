/* The guest memory behind a resource. */
#include <stdlib.h>
#include <string.h>

#include "gpu/core.h"

#define BACKING_MAX (UINT64_C(1) << 62) /* bytes: no offset in one overflows */

static const uint8_t *translate(const struct gpu_core *core, const struct gpu_range *range)
{
    for (size_t i = 0; i < core->memory_count; i++) {
        const struct core_memory *memory = &core->memory[i];
        if (range->gpa >= memory->gpa && range->gpa - memory->gpa < memory->size)
            return range->size <= memory->size - (range->gpa - memory->gpa)
                       ? memory->host + (range->gpa - memory->gpa)
                       : NULL;
    }
    return NULL;
}

bool core_set_backing(struct gpu_core *core, struct core_resource *resource,
                      const struct gpu_range *ranges, uint32_t count)
{
    struct core_range *list = count ? xcalloc(count, sizeof(*list)) : NULL;
    uint64_t size = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *host = translate(core, &ranges[i]);
        /* One range may be there many times, so the sum knows no bound of its own. */
        if (!host || !ranges[i].size || ranges[i].size > BACKING_MAX - size) {
            free(list);
            return false;
        }
        list[i] = (struct core_range){.start = size, .size = ranges[i].size, .host = host};
        size += ranges[i].size;
    }
    free(resource->ranges);
    resource->ranges = list;
    resource->range_count = count;
    resource->backing_size = size;
    return true;
}

bool core_backing_holds(const struct core_resource *resource, uint64_t offset, uint64_t stride,
                        size_t row_size, uint32_t rows)
{
    /* stride is below 2^33 and rows below 2^15, so only the offset could overflow. */
    return rows && offset <= resource->backing_size &&
           (rows - 1) * stride + row_size <= resource->backing_size - offset;
}

/* The range that holds a byte of the backing. */
static const struct core_range *find_range(const struct core_resource *resource, uint64_t offset)
{
    size_t low = 0, high = resource->range_count;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (resource->ranges[middle].start <= offset)
            low = middle;
        else
            high = middle;
    }
    return &resource->ranges[low];
}

bool core_gather(const struct core_resource *resource, uint64_t offset, uint64_t stride,
                 size_t row_size, uint32_t rows, uint8_t *target, size_t target_stride)
{
    if (!core_backing_holds(resource, offset, stride, row_size, rows))
        return false;
    /* Rows without a gap on either side are one. */
    if (stride == row_size && target_stride == row_size) {
        row_size *= rows;
        rows = 1;
    }
    const struct core_range *range = find_range(resource, offset);
    for (uint32_t row = 0; row < rows; row++, offset += stride, target += target_stride) {
        uint64_t at = offset;
        for (size_t done = 0; done < row_size;) {
            while (at - range->start >= range->size)
                range++;
            size_t piece = range->size - (at - range->start);
            if (piece > row_size - done)
                piece = row_size - done;
            memcpy(target + done, range->host + (at - range->start), piece);
            done += piece;
            at += piece;
        }
        /* The next row may begin before the end of this one. */
        if (row + 1 < rows && offset + stride < range->start)
            range = find_range(resource, offset + stride);
    }
    return true;
}
