/*
 * A device behind passthrough/vfio.h that is not there: a test double with BARs, capabilities and
 * interrupts, which notes what is asked of it.
 *
 * BAR 0: 64-bit, prefetchable, 64 KiB, mapped; MSI-X's table at 0x8000, pending bits at 0x8800.
 * BAR 2: 32-bit, 4 KiB, not mapped. BAR 4: I/O, 32 bytes. ROM: 2 KiB. Capabilities: power (0x40),
 * MSI (0x50), a PCI-X one (0x64) that guests do not see, vendor's (0x70), Express (0x80), MSI-X
 * (0xc0).
 */
#pragma once

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "passthrough/vfio.h"

#define DOUBLE_VECTORS 40
#define DOUBLE_TABLE   0x8000
#define DOUBLE_PENDING 0x8800
#define DOUBLE_FIRST   0x10000
#define DOUBLE_SECOND  0x1000
#define DOUBLE_PORTS   32
#define DOUBLE_ROM     2048
#define DOUBLE_MAPS    16

struct double_vfio {
    struct vfio vfio;
    uint8_t config[256];
    uint8_t *first; /* BAR 0 */
    uint8_t second[DOUBLE_SECOND], ports[DOUBLE_PORTS], rom[DOUBLE_ROM];
    bool dynamic, can_map, resets;
    unsigned irq_count[VFIO_IRQS];
    unsigned short_of_vectors; /* 0, or the most that the host has */

    /* What was asked for. */
    int fds[VFIO_IRQS][DOUBLE_VECTORS]; /* -1: not signalled */
    unsigned enabled[VFIO_IRQS];        /* vectors allocated; 0: off */
    unsigned set_calls, disables, unmasks, reset_count, accesses;
    unsigned last_size, last_region;
    uint64_t last_offset, last_value;
    bool last_write;
    struct vfio_range maps[DOUBLE_MAPS];
    size_t map_count;
    size_t map_failure; /* this one fails; 0: none does */
    struct vfio_range usable[4];
    size_t usable_count;
    bool *closed;
};

static inline struct double_vfio *double_of(struct vfio *vfio)
{
    return container_of(vfio, struct double_vfio, vfio);
}

static inline bool double_region(struct vfio *vfio, unsigned index, struct vfio_region *region,
                                 struct error *err)
{
    static const uint64_t sizes[VFIO_REGIONS] = {DOUBLE_FIRST, 0, DOUBLE_SECOND, 0,
                                                 DOUBLE_PORTS, 0, DOUBLE_ROM,    256};
    *region = (struct vfio_region){.size = sizes[index], .readable = true, .writable = index != 6};
    if (index == 0) {
        region->area_count = 1;
        region->areas[0] = (struct vfio_range){0, DOUBLE_FIRST};
    }
    return true;
}

static inline bool double_irq(struct vfio *vfio, unsigned index, struct vfio_irq *irq,
                              struct error *err)
{
    const struct double_vfio *self = double_of(vfio);
    *irq = (struct vfio_irq){.count = self->irq_count[index], .dynamic = self->dynamic};
    return true;
}

static inline uint8_t *double_bytes(struct double_vfio *self, unsigned region, uint64_t *size)
{
    uint8_t *const bytes[VFIO_REGIONS] = {self->first, NULL, self->second, NULL,
                                          self->ports, NULL, self->rom,    self->config};
    struct vfio_region info;
    double_region(&self->vfio, region, &info, NULL);
    *size = info.size;
    return bytes[region];
}

/* A guest never gets an access through that is wider than 8, unaligned or outside. */
static inline uint8_t *double_access(struct vfio *vfio, unsigned region, uint64_t offset,
                                     unsigned size, bool write)
{
    struct double_vfio *self = double_of(vfio);
    uint64_t whole;
    uint8_t *bytes = double_bytes(self, region, &whole);
    if (!bytes || !range_fits(offset, size, whole) || offset % size || size > 8 ||
        !is_power_of_two(size))
        abort();
    if (region != VFIO_REGION_ROM) {
        self->accesses++;
        self->last_region = region;
        self->last_offset = offset;
        self->last_size = size;
        self->last_write = write;
    }
    return bytes + offset;
}

static inline bool double_read(struct vfio *vfio, unsigned region, uint64_t offset, unsigned size,
                               uint64_t *value)
{
    *value = load_le(double_access(vfio, region, offset, size, false), size);
    return true;
}

static inline bool double_write(struct vfio *vfio, unsigned region, uint64_t offset, unsigned size,
                                uint64_t value)
{
    uint8_t *bytes = double_access(vfio, region, offset, size, true);
    double_of(vfio)->last_value = value;
    store_le(bytes, value, size);
    return true;
}

static inline uint8_t *double_map(struct vfio *vfio, unsigned region, uint64_t offset, size_t size,
                                  struct error *err)
{
    struct double_vfio *self = double_of(vfio);
    if (region || !range_fits(offset, size, DOUBLE_FIRST) || (offset | size) % 4096)
        abort();
    if (self->can_map)
        return self->first + offset;
    error_set(err, "%s: cannot map region %u", vfio->name, region);
    return NULL;
}

static inline void double_unmap(struct vfio *vfio, uint8_t *host, size_t size)
{
}

/* As the kernel: the first use allocates, -1 is for silence, what is not allocated is refused. */
static inline bool double_set_vectors(struct vfio *vfio, unsigned index, unsigned start,
                                      unsigned count, const int *fds, struct error *err)
{
    struct double_vfio *self = double_of(vfio);
    self->set_calls++;
    if (!count) {
        self->disables++;
        self->enabled[index] = 0;
        memset(self->fds[index], 0xff, sizeof(self->fds[index]));
        return true;
    }
    if (start + count > self->irq_count[index] || start + count > DOUBLE_VECTORS)
        abort();
    for (unsigned i = VFIO_IRQ_INTX; i <= VFIO_IRQ_MSIX; i++)
        if (i != index && index <= VFIO_IRQ_MSIX && self->enabled[i])
            abort(); /* one kind at a time */
    if (self->short_of_vectors && start + count > self->short_of_vectors)
        return error_set(err, "%s: no vectors left", vfio->name);
    if (!self->enabled[index])
        self->enabled[index] = start + count;
    else if (start + count > self->enabled[index] && !self->dynamic)
        return error_set(err, "%s: these vectors are not there", vfio->name);
    memcpy(self->fds[index] + start, fds, count * sizeof(*fds));
    return true;
}

static inline void double_unmask_intx(struct vfio *vfio)
{
    double_of(vfio)->unmasks++;
}

static inline void double_usable(struct vfio *vfio, struct vfio_range *ranges, size_t *count)
{
    const struct double_vfio *self = double_of(vfio);
    *count = self->usable_count;
    memcpy(ranges, self->usable, *count * sizeof(*ranges));
}

static inline bool double_dma_map(struct vfio *vfio, uint64_t iova, uint64_t size, uint8_t *host,
                                  struct error *err)
{
    struct double_vfio *self = double_of(vfio);
    if (self->map_failure == self->map_count + 1)
        return error_set(err, "%s: the limit of locked memory", vfio->name);
    self->maps[self->map_count++] = (struct vfio_range){iova, size};
    return true;
}

static inline bool double_dma_unmap(struct vfio *vfio, uint64_t iova, uint64_t size,
                                    struct error *err)
{
    return true;
}

static inline bool double_reset(struct vfio *vfio, struct error *err)
{
    struct double_vfio *self = double_of(vfio);
    self->reset_count++;
    return self->resets || error_set(err, "%s cannot be reset", vfio->name);
}

static inline void double_close(struct vfio *vfio)
{
    struct double_vfio *self = double_of(vfio);
    for (unsigned i = 0; i <= VFIO_IRQ_MSIX; i++)
        if (self->enabled[i])
            abort(); /* interrupts are off before */
    if (self->closed)
        *self->closed = true;
    free(self->first);
    free(self);
}

static const struct vfio_ops double_ops = {
    .name = "double",
    .region = double_region,
    .irq = double_irq,
    .read = double_read,
    .write = double_write,
    .map = double_map,
    .unmap = double_unmap,
    .set_vectors = double_set_vectors,
    .unmask_intx = double_unmask_intx,
    .usable = double_usable,
    .dma_map = double_dma_map,
    .dma_unmap = double_dma_unmap,
    .reset = double_reset,
    .close = double_close,
};

static inline void double_capability(struct double_vfio *self, unsigned at, uint8_t id,
                                     unsigned next)
{
    self->config[at] = id;
    self->config[at + 1] = (uint8_t)next;
}

static inline void double_fill_config(struct double_vfio *self)
{
    uint8_t *config = self->config;
    store_le32(config, 0x56781234);
    config[0x06] = 0x10;
    store_le32(config + 0x08, 0x02000007); /* a network card, revision 7 */
    config[0x0e] = 0x80;                   /* of several functions, which the guest's is not */
    config[0x10] = 0x0c;
    config[0x20] = 0x01;
    store_le32(config + 0x2c, 0x9abcdef0);
    config[0x34] = 0x40;
    config[0x3d] = 1;
    double_capability(self, 0x40, 0x01, 0x50);
    store_le16(config + 0x42, 0xfe03);
    double_capability(self, 0x50, 0x05, 0x64);
    store_le16(config + 0x52, 0x0084); /* four vectors, 64 bits, no mask */
    double_capability(self, 0x64, 0x07, 0x70);
    double_capability(self, 0x70, 0x09, 0x80);
    config[0x72] = 16;
    memcpy(config + 0x73, "vendor", 6);
    double_capability(self, 0x80, 0x10, 0xc0);
    store_le16(config + 0x82, 0x0002);     /* version 2, an endpoint */
    store_le32(config + 0x84, 0x10008000); /* FLR */
    double_capability(self, 0xc0, 0x11, 0x00);
    store_le16(config + 0xc2, DOUBLE_VECTORS - 1);
    store_le32(config + 0xc4, DOUBLE_TABLE);
    store_le32(config + 0xc8, DOUBLE_PENDING);
}

static inline struct double_vfio *double_create(void)
{
    static const unsigned counts[VFIO_IRQS] = {1, 4, DOUBLE_VECTORS, 1, 1};
    struct double_vfio *self = xcalloc(1, sizeof(*self));
    self->vfio.ops = &double_ops;
    snprintf(self->vfio.name, sizeof(self->vfio.name), "0000:01:00.0");
    self->first = aligned_alloc(4096, DOUBLE_FIRST); /* as pages of the host */
    memset(self->first, 0, DOUBLE_FIRST);
    self->can_map = self->resets = true;
    memcpy(self->irq_count, counts, sizeof(counts));
    memset(self->fds, 0xff, sizeof(self->fds));
    double_fill_config(self);
    memset(self->rom, 0x5a, sizeof(self->rom));
    return self;
}

/* The device raises a vector: false if nobody would hear it. */
static inline bool double_raise(struct double_vfio *self, unsigned index, unsigned vector)
{
    const uint64_t one = 1;
    int fd = self->fds[index][vector];
    return fd >= 0 && write(fd, &one, sizeof(one)) == sizeof(one);
}
