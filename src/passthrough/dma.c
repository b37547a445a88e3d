/* What a device may read and write: all RAM of the guest, at guest physical addresses. */
#include "base/base.h"
#include "memory/memory.h"
#include "passthrough/vfio.h"

#define RAM_STEP (UINT64_C(2) << 20) /* a huge page: what IOMMUs map at once */

static uint64_t last_of(const struct vfio_range *range)
{
    return range->start + (range->size - 1);
}

void dma_intersect(struct vfio_range *ranges, size_t *count, const struct vfio_range *others,
                   size_t other_count)
{
    struct vfio_range result[VFIO_RANGES_MAX];
    size_t made = 0;
    for (size_t i = 0; i < *count; i++)
        for (size_t j = 0; j < other_count && made < VFIO_RANGES_MAX; j++) {
            uint64_t start = ranges[i].start > others[j].start ? ranges[i].start : others[j].start;
            uint64_t last = last_of(&ranges[i]) < last_of(&others[j]) ? last_of(&ranges[i])
                                                                      : last_of(&others[j]);
            if (start <= last)
                result[made++] = (struct vfio_range){start, last - start + 1};
        }
    memcpy(ranges, result, made * sizeof(*ranges));
    *count = made;
}

/* The part of a usable range from `base` on that begins and ends on a step; size 0: none. */
static struct vfio_range whole_steps(const struct vfio_range *range, uint64_t base)
{
    uint64_t start = range->start > base ? range->start : base;
    uint64_t last = last_of(range);
    if (start > UINT64_MAX - RAM_STEP)
        return (struct vfio_range){0};
    start = align_up(start, RAM_STEP);
    /* The address behind the last one is 0 for a range that ends with the address space. */
    uint64_t end = last == UINT64_MAX ? align_down(last, RAM_STEP) : align_down(last + 1, RAM_STEP);
    return start < end ? (struct vfio_range){start, end - start} : (struct vfio_range){0};
}

bool dma_layout(const struct vfio_range *usable, size_t usable_count, uint64_t base, uint64_t size,
                struct vfio_range *ram, size_t *ram_count, struct error *err)
{
    uint64_t left = size;
    *ram_count = 0;
    for (size_t i = 0; i < usable_count && left; i++) {
        struct vfio_range piece = whole_steps(&usable[i], base);
        /* Firmware and kernels are loaded at the base. */
        if (!piece.size || (!*ram_count && piece.start != base))
            continue;
        piece.size = piece.size < left ? piece.size : left;
        left -= piece.size;
        ram[(*ram_count)++] = piece;
    }
    if (!left)
        return true;
    if (!*ram_count)
        return error_set(err, "the host's IOMMU cannot map the guest's RAM at %#llx",
                         (unsigned long long)base);
    return error_set(err,
                     "the host's IOMMU can map %llu MiB of the guest's RAM, not %llu: give "
                     "less with --memory",
                     (unsigned long long)((size - left) >> 20), (unsigned long long)(size >> 20));
}

bool dma_map_ram(struct vfio *vfio, const struct memory *memory, struct error *err)
{
    size_t count;
    const struct memory_ram *ram = memory_ram_regions(memory, &count);
    for (size_t i = 0; i < count; i++)
        if (!vfio->ops->dma_map(vfio, ram[i].base, ram[i].size, ram[i].host, err))
            return false;
    return true;
}
