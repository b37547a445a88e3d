/*
 * The seam between a device that is passed through and what provides it: the kernel's VFIO, a test
 * double; later iommufd and vfio-user.
 *
 * Regions and interrupts have VFIO's numbers. Addresses for DMA (IOVA) are guest physical ones.
 * read, write, mask and set_vectors may be called from any thread, set_vectors by one at a time;
 * the others by the loop's thread, before the device is in use and after it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum vfio_region_index {
    VFIO_REGION_BAR_0 = 0,
    VFIO_REGION_ROM = 6,
    VFIO_REGION_CONFIG = 7,
    VFIO_REGIONS = 8,
};

enum vfio_irq_index {
    VFIO_IRQ_INTX = 0,
    VFIO_IRQ_MSI = 1,
    VFIO_IRQ_MSIX = 2,
    VFIO_IRQ_ERROR = 3,   /* the device reports a fatal error */
    VFIO_IRQ_REQUEST = 4, /* the host wants it back */
    VFIO_IRQS = 5,
};

#define VFIO_AREAS_MAX  8
#define VFIO_RANGES_MAX 32

/* Bytes of a region, or of the address space for DMA. */
struct vfio_range {
    uint64_t start, size;
};

struct vfio_region {
    uint64_t size; /* 0: there is none */
    bool readable, writable;
    unsigned area_count; /* what may be mapped: page-aligned offsets */
    struct vfio_range areas[VFIO_AREAS_MAX];
};

struct vfio_irq {
    unsigned count; /* 0: there is none */
    bool dynamic;   /* vectors can be added while others are in use */
};

struct vfio;

struct vfio_ops {
    const char *name; /* what provides the device */
    bool (*region)(struct vfio *vfio, unsigned index, struct vfio_region *region,
                   struct error *err);
    bool (*irq)(struct vfio *vfio, unsigned index, struct vfio_irq *irq, struct error *err);

    /* One access of `size` bytes. False: the device did not answer; *value is then all ones. */
    bool (*read)(struct vfio *vfio, unsigned region, uint64_t offset, unsigned size,
                 uint64_t *value);
    bool (*write)(struct vfio *vfio, unsigned region, uint64_t offset, unsigned size,
                  uint64_t value);

    /* The host address of bytes of one of the region's areas; whole pages of the host. */
    uint8_t *(*map)(struct vfio *vfio, unsigned region, uint64_t offset, size_t size,
                    struct error *err);
    void (*unmap)(struct vfio *vfio, uint8_t *host, size_t size);

    /* Signals fds[i] for vector start + i; -1: nothing. The first use of an index enables it, with
     * as many vectors. count 0 disables the index. */
    bool (*set_vectors)(struct vfio *vfio, unsigned index, unsigned start, unsigned count,
                        const int *fds, struct error *err);
    /* INTx masks itself when it fires; this lets it fire again, at once if it is still asserted. */
    void (*unmask_intx)(struct vfio *vfio);

    /* Ranges of IOVA that can be mapped, ascending; *count is their number. */
    void (*usable)(struct vfio *vfio, struct vfio_range *ranges, size_t *count);
    /* Lets the device read and write [iova, iova + size) at `host`, for as long as it is open. */
    bool (*dma_map)(struct vfio *vfio, uint64_t iova, uint64_t size, uint8_t *host,
                    struct error *err);
    bool (*dma_unmap)(struct vfio *vfio, uint64_t iova, uint64_t size, struct error *err);

    /* To the state after power-on. */
    bool (*reset)(struct vfio *vfio, struct error *err);
    /* Gives the device back and frees it. */
    void (*close)(struct vfio *vfio);
};

struct vfio {
    const struct vfio_ops *ops;
    char name[32];     /* "0000:01:00.0", for messages */
    const void *space; /* devices for which this is the same share what is mapped for DMA */
};

/* --- vfio_kernel.c ---------------------------------------------------------------------------- */

struct passthrough_device;
struct passthrough_manager;
struct vfio_container;

/* What the devices of one machine share. NULL: no memory is there yet; freed with the last. */
struct vfio_container *vfio_container_create(struct error *err);
void vfio_container_destroy(struct vfio_container *container);

/* Whether sysfs has nothing against opening a device: the IOMMU, its group, its driver. */
bool vfio_kernel_check(const struct passthrough_manager *manager,
                       const struct passthrough_device *device, struct error *err);

/* Opens a device of the manager's. NULL with a message that says what is in the way, and what to
 * do. It is closed before the container is destroyed. */
struct vfio *vfio_kernel_open(struct vfio_container *container,
                              const struct passthrough_manager *manager,
                              const struct passthrough_device *device, struct error *err);

/* --- dma.c ------------------------------------------------------------------------------------ */

struct memory;

/* Takes from *ranges what is not in `others` as well. */
void dma_intersect(struct vfio_range *ranges, size_t *count, const struct vfio_range *others,
                   size_t other_count);

/* Lays `size` bytes of RAM out from `base` on, around what is not usable, in whole pages of 2 MiB
 * where it has to be divided. False if they do not fit below the last usable address. */
bool dma_layout(const struct vfio_range *usable, size_t usable_count, uint64_t base, uint64_t size,
                struct vfio_range *ram, size_t *ram_count, struct error *err);

/* Maps all RAM, each region at its GPA. */
bool dma_map_ram(struct vfio *vfio, const struct memory *memory, struct error *err);
