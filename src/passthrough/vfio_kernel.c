/*
 * The kernel's VFIO: a container with a type 1 IOMMU, groups, and devices of groups.
 * (Linux: Documentation/driver-api/vfio.rst, include/uapi/linux/vfio.h.)
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/base.h"
#include "memory/memory.h"
#include "passthrough/internal.h"
#include "passthrough/vfio.h"
#include "passthrough/vfio_kernel.h"

static const struct vfio_ops kernel_ops;

static struct vfio_kernel *kernel_of(struct vfio *vfio)
{
    return container_of(vfio, struct vfio_kernel, vfio);
}

/* An ioctl whose answer may be longer than asked for: the caller frees it. `size` is that of the
 * structure, which begins with argsz. */
static void *ask(int fd, unsigned long request, const void *question, size_t size)
{
    uint32_t *answer = xmalloc(size), length = (uint32_t)size;
    memcpy(answer, question, size);
    for (;;) {
        answer[0] = length;
        if (ioctl(fd, request, answer)) {
            free(answer);
            return NULL;
        }
        if (answer[0] <= length)
            return answer;
        length = answer[0];
        answer = xrealloc(answer, length);
        memset((char *)answer + size, 0, length - size);
        memcpy(answer, question, size);
    }
}

/* The capability with that number in an answer, and *left, the bytes from its start to the end. */
static const void *find_capability(const void *answer, uint32_t offset, uint16_t id, size_t *left)
{
    uint32_t length = *(const uint32_t *)answer;
    for (unsigned i = 0; i < 64 && offset && range_fits(offset, 8, length); i++) {
        const struct vfio_info_cap_header *header = (const void *)((const char *)answer + offset);
        *left = length - offset;
        if (header->id == id)
            return header;
        offset = header->next;
    }
    return NULL;
}

/* --- Regions ---------------------------------------------------------------------------------- */

static void add_area(struct vfio_region *region, uint64_t start, uint64_t size)
{
    bool fits = size && range_fits(start, size, region->size);
    if (fits && !(start % MEMORY_PAGE_SIZE) && region->area_count < VFIO_AREAS_MAX)
        region->areas[region->area_count++] = (struct vfio_range){start, size};
}

static void find_areas(const struct vfio_region_info *info, struct vfio_region *region)
{
    size_t left;
    const struct vfio_region_info_cap_sparse_mmap *sparse = NULL;
    if (info->flags & VFIO_REGION_INFO_FLAG_CAPS)
        sparse = find_capability(info, info->cap_offset, VFIO_REGION_INFO_CAP_SPARSE_MMAP, &left);
    if (!sparse) {
        add_area(region, 0, region->size);
        return;
    }
    for (uint32_t i = 0; i < sparse->nr_areas; i++)
        if (range_fits(sizeof(*sparse) + i * sizeof(sparse->areas[0]), sizeof(sparse->areas[0]),
                       left))
            add_area(region, sparse->areas[i].offset, sparse->areas[i].size);
}

static bool kernel_region(struct vfio *vfio, unsigned index, struct vfio_region *region,
                          struct error *err)
{
    struct vfio_kernel *self = kernel_of(vfio);
    const struct vfio_region_info question = {.index = index};
    struct vfio_region_info *info =
        ask(self->fd, VFIO_DEVICE_GET_REGION_INFO, &question, sizeof(question));
    *region = (struct vfio_region){0};
    if (!info)
        return error_set_errno(err, errno, "%s: the kernel does not describe region %u", vfio->name,
                               index);
    region->size = info->size;
    region->readable = info->flags & VFIO_REGION_INFO_FLAG_READ;
    region->writable = info->flags & VFIO_REGION_INFO_FLAG_WRITE;
    self->offset[index] = info->offset;
    if (info->flags & VFIO_REGION_INFO_FLAG_MMAP)
        find_areas(info, region);
    free(info);
    return true;
}

static bool kernel_read(struct vfio *vfio, unsigned region, uint64_t offset, unsigned size,
                        uint64_t *value)
{
    struct vfio_kernel *self = kernel_of(vfio);
    uint8_t bytes[8];
    *value = size_mask(size);
    if (pread(self->fd, bytes, size, (off_t)(self->offset[region] + offset)) != (ssize_t)size)
        return false;
    *value = load_le(bytes, size);
    return true;
}

static bool kernel_write(struct vfio *vfio, unsigned region, uint64_t offset, unsigned size,
                         uint64_t value)
{
    struct vfio_kernel *self = kernel_of(vfio);
    uint8_t bytes[8];
    store_le(bytes, value, size);
    return pwrite(self->fd, bytes, size, (off_t)(self->offset[region] + offset)) == (ssize_t)size;
}

static uint8_t *kernel_map(struct vfio *vfio, unsigned region, uint64_t offset, size_t size,
                           struct error *err)
{
    struct vfio_kernel *self = kernel_of(vfio);
    void *host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, self->fd,
                      (off_t)(self->offset[region] + offset));
    if (host != MAP_FAILED)
        return host;
    error_set_errno(err, errno, "%s: cannot map region %u", vfio->name, region);
    return NULL;
}

static void kernel_unmap(struct vfio *vfio, uint8_t *host, size_t size)
{
    munmap(host, size);
}

/* --- Interrupts ------------------------------------------------------------------------------- */

static bool kernel_irq(struct vfio *vfio, unsigned index, struct vfio_irq *irq, struct error *err)
{
    struct vfio_irq_info info = {.argsz = sizeof(info), .index = index};
    *irq = (struct vfio_irq){0};
    /* Older kernels do not know all indexes. */
    if (ioctl(kernel_of(vfio)->fd, VFIO_DEVICE_GET_IRQ_INFO, &info))
        return errno == EINVAL ||
               error_set_errno(err, errno, "%s: the kernel does not describe interrupt %u",
                               vfio->name, index);
    if (info.flags & VFIO_IRQ_INFO_EVENTFD)
        irq->count = info.count;
    irq->dynamic = !(info.flags & VFIO_IRQ_INFO_NORESIZE);
    return true;
}

static bool kernel_set_vectors(struct vfio *vfio, unsigned index, unsigned start, unsigned count,
                               const int *fds, struct error *err)
{
    size_t bytes = count * sizeof(int32_t);
    struct vfio_irq_set *set = xcalloc(1, sizeof(*set) + bytes);
    set->argsz = (uint32_t)(sizeof(*set) + bytes);
    set->flags =
        VFIO_IRQ_SET_ACTION_TRIGGER | (count ? VFIO_IRQ_SET_DATA_EVENTFD : VFIO_IRQ_SET_DATA_NONE);
    set->index = index;
    set->start = start;
    set->count = count;
    if (count)
        memcpy(set->data, fds, bytes);
    bool ok = !ioctl(kernel_of(vfio)->fd, VFIO_DEVICE_SET_IRQS, set);
    int number = errno;
    free(set);
    return ok || error_set_errno(err, number, "%s: cannot set vectors %u to %u of interrupt %u",
                                 vfio->name, start, start + count, index);
}

static void kernel_unmask_intx(struct vfio *vfio)
{
    struct vfio_irq_set set = {
        .argsz = sizeof(set),
        .flags = VFIO_IRQ_SET_ACTION_UNMASK | VFIO_IRQ_SET_DATA_NONE,
        .index = VFIO_PCI_INTX_IRQ_INDEX,
        .count = 1,
    };
    ioctl(kernel_of(vfio)->fd, VFIO_DEVICE_SET_IRQS, &set); /* fails where INTx is off: fine */
}

/* --- DMA -------------------------------------------------------------------------------------- */

static void kernel_usable(struct vfio *vfio, struct vfio_range *ranges, size_t *count)
{
    struct vfio_container *container = kernel_of(vfio)->container;
    const struct vfio_iommu_type1_info question = {0};
    struct vfio_iommu_type1_info *info =
        ask(container->fd, VFIO_IOMMU_GET_INFO, &question, sizeof(question));
    const struct vfio_iommu_type1_info_cap_iova_range *list = NULL;
    size_t left;
    *count = 0;
    if (info && info->flags & VFIO_IOMMU_INFO_CAPS)
        list = find_capability(info, info->cap_offset, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, &left);
    for (uint32_t i = 0; list && i < list->nr_iovas && *count < VFIO_RANGES_MAX; i++) {
        if (!range_fits(sizeof(*list) + i * sizeof(list->iova_ranges[0]),
                        sizeof(list->iova_ranges[0]), left))
            break;
        uint64_t start = list->iova_ranges[i].start, end = list->iova_ranges[i].end; /* inclusive */
        if (start <= end)
            ranges[(*count)++] = (struct vfio_range){
                start, end - start == UINT64_MAX ? UINT64_MAX : end - start + 1};
    }
    if (!list) /* Linux before 5.4 does not say: what every IOMMU can do, less x86's messages */
        ranges[(*count)++] = (struct vfio_range){0, UINT64_C(0xfee00000)};
    free(info);
}

/* Pinned memory counts against RLIMIT_MEMLOCK. */
static bool explain_map(const struct vfio *vfio, int number, uint64_t size, struct error *err)
{
    struct rlimit limit = {0};
    unsigned long long needed = size / 1024 + 1024;
    getrlimit(RLIMIT_MEMLOCK, &limit);
    if (number != ENOMEM || limit.rlim_cur == RLIM_INFINITY)
        return error_set_errno(err, number, "%s: the IOMMU cannot map %llu MiB of guest RAM",
                               vfio->name, (unsigned long long)(size >> 20));
    return error_set(
        err,
        "%s: the guest's RAM must stay in memory, but the limit of locked memory "
        "(RLIMIT_MEMLOCK, 'ulimit -l') is %llu KiB, and at least %llu are needed: raise it in "
        "/etc/security/limits.conf ('USER - memlock unlimited'), or as root with "
        "'prlimit --memlock=unlimited hartvisor ...'",
        vfio->name, (unsigned long long)(limit.rlim_cur >> 10), needed);
}

static bool kernel_dma_map(struct vfio *vfio, uint64_t iova, uint64_t size, uint8_t *host,
                           struct error *err)
{
    struct vfio_iommu_type1_dma_map map = {
        .argsz = sizeof(map),
        .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
        .vaddr = (uintptr_t)host,
        .iova = iova,
        .size = size,
    };
    return !ioctl(kernel_of(vfio)->container->fd, VFIO_IOMMU_MAP_DMA, &map) ||
           explain_map(vfio, errno, size, err);
}

static bool kernel_dma_unmap(struct vfio *vfio, uint64_t iova, uint64_t size, struct error *err)
{
    struct vfio_iommu_type1_dma_unmap unmap = {.argsz = sizeof(unmap), .iova = iova, .size = size};
    return !ioctl(kernel_of(vfio)->container->fd, VFIO_IOMMU_UNMAP_DMA, &unmap) ||
           error_set_errno(err, errno, "%s: cannot unmap %#llx", vfio->name,
                           (unsigned long long)iova);
}

/* --- The device ------------------------------------------------------------------------------- */

static void kernel_close(struct vfio *vfio)
{
    struct vfio_kernel *self = kernel_of(vfio);
    close(self->fd);
    free(self);
}

static const struct vfio_ops kernel_ops = {
    .name = "vfio",
    .region = kernel_region,
    .irq = kernel_irq,
    .read = kernel_read,
    .write = kernel_write,
    .map = kernel_map,
    .unmap = kernel_unmap,
    .set_vectors = kernel_set_vectors,
    .unmask_intx = kernel_unmask_intx,
    .usable = kernel_usable,
    .dma_map = kernel_dma_map,
    .dma_unmap = kernel_dma_unmap,
    .reset = vfio_kernel_reset,
    .close = kernel_close,
};

struct vfio *vfio_kernel_open(struct vfio_container *container,
                              const struct passthrough_manager *manager,
                              const struct passthrough_device *device, struct error *err)
{
    struct vfio_kernel *self = xcalloc(1, sizeof(*self));
    struct vfio_device_info info = {.argsz = sizeof(info)};
    self->vfio.ops = &kernel_ops;
    self->vfio.space = container;
    self->container = container;
    snprintf(self->vfio.name, sizeof(self->vfio.name), "%s", device->info.name);
    self->fd = vfio_container_open(container, manager, device, err);
    if (self->fd < 0) {
        free(self);
        return NULL;
    }
    if (!ioctl(self->fd, VFIO_DEVICE_GET_INFO, &info) && info.flags & VFIO_DEVICE_FLAGS_PCI) {
        self->resets = info.flags & VFIO_DEVICE_FLAGS_RESET;
        return &self->vfio;
    }
    error_set(err, "%s: what the kernel has opened is no PCI device", self->vfio.name);
    kernel_close(&self->vfio);
    return NULL;
}
