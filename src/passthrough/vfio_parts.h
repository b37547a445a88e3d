/*
 * The parts of a device that is passed through: config.c, region.c, interrupt.c, around
 * vfio_device.c.
 *
 * Locks, from the outside in: the host bridge's config lock, `irq_lock`, those of MSI and MSI-X.
 */
#pragma once

#include "passthrough/vfio_device.h"

#define VFIO_BARS   6
#define CONFIG_SIZE 256 /* extended capabilities are not shown */
#define ROM_MAX     (16u << 20)

/* Part of a BAR: what is mapped belongs to the harts' address space as memory does, and the rest
 * is registers. */
struct vfio_piece {
    struct vfio_bar *bar;
    struct vfio_range range;
    uint8_t *host; /* NULL: registers */
};

#define PIECES_MAX (2 * (VFIO_AREAS_MAX + 2) + 1)

struct vfio_bar {
    struct vfio_device *device;
    unsigned index;
    uint64_t size;
    unsigned piece_count; /* 0: it is registers as a whole */
    struct vfio_piece pieces[PIECES_MAX];
    struct vfio_range table, pending; /* MSI-X's; size 0: elsewhere */
};

/* An eventfd and who listens to it. Made when the guest first wants it, kept to the end. */
struct vfio_signal {
    struct vfio_device *device;
    unsigned vector;
    int fd;
    struct loop_fd *source;
};

struct vfio_device {
    struct device base;
    struct vfio_device_config config;
    struct vfio *vfio;
    struct pci_device pci;

    /* Constant after creation. */
    uint8_t physical[CONFIG_SIZE]; /* the device's registers, as they were found */
    uint8_t live[CONFIG_SIZE];     /* bytes that the device answers for */
    unsigned express, flr;         /* offsets of the capability and its Device Control; 0: none */
    struct vfio_bar bars[VFIO_BARS];
    struct vfio_irq irqs[VFIO_IRQS];
    struct pci_msix msix; /* if pci.msix */
    struct pci_msi msi;   /* if pci.msi */
    unsigned vectors;     /* places in `signals` */

    pthread_mutex_t rom_lock;
    uint8_t *rom; /* NULL: not read yet */
    uint64_t rom_size;

    pthread_mutex_t irq_lock;
    _Atomic unsigned mode; /* enum interrupt_mode; written under irq_lock */
    unsigned allocated;    /* vectors that the kernel has, under irq_lock, as are: */
    bool *wanted;          /* vectors that the guest has unmasked since it enabled them */
    struct vfio_signal **signals;
    bool complained;
    struct vfio_signal *intx, *error, *request;
    _Atomic bool intx_asserted; /* fired, masked, and not ended yet */
};

/* --- config.c --------------------------------------------------------------------------------- */

/* Reads the configuration space and describes the function. */
bool config_build(struct vfio_device *self, struct error *err);
/* Tells the device what the guest's command register means for it. */
void config_send_command(struct vfio_device *self);

/* --- region.c --------------------------------------------------------------------------------- */

/* Describes BAR `index`, whose register is `value`; *wide: it takes the next one as well. */
bool region_add_bar(struct vfio_device *self, unsigned index, uint32_t value, bool *wide,
                    struct error *err);
/* After MSI-X is known: maps what may be mapped. */
void region_map(struct vfio_device *self);
/* Takes a BAR of pieces from one GPA to another, as pci_device_type.bar_moved. */
bool region_move(struct vfio_device *self, unsigned index, uint64_t from, uint64_t to);
bool region_add_rom(struct vfio_device *self, struct error *err);
void region_finish(struct vfio_device *self);

/* --- interrupt.c ------------------------------------------------------------------------------ */

bool interrupt_init(struct vfio_device *self, struct error *err);
/* Before the first use: how many vectors there may be. */
void interrupt_begin(struct vfio_device *self);
/* The guest may have turned MSI or MSI-X on or off. Config lock held, or no hart runs. */
void interrupt_follow(struct vfio_device *self);
/* The guest may have unmasked a vector of the MSI-X table. No lock held. */
void interrupt_unmasked(struct vfio_device *self, unsigned vector);
/* Everything off. */
void interrupt_stop(struct vfio_device *self);
void interrupt_finish(struct vfio_device *self);
