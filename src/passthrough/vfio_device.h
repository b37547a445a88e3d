/*
 * A host's device as a function on the guest's PCI bus. The machine's side; the parts behind it are
 * in vfio_parts.h.
 *
 * Creating, attaching, reset and removal: on the loop's thread while no hart runs.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "base/base.h"
#include "memory/memory.h"
#include "passthrough/vfio.h"
#include "pci/pci.h"

enum vfio_event {
    VFIO_EVENT_REQUESTED, /* the host wants the device back, and waits for that */
    VFIO_EVENT_FAILED,    /* the device reports an error that it does not recover from */
};

struct vfio_device_config {
    struct vfio *vfio; /* closed with the device */
    struct loop *loop;
    struct memory *memory;
    bool messages;        /* the bus has them: MSI and MSI-X are shown to the guest */
    const char *rom_file; /* NULL: the device's own expansion ROM */
    unsigned no_mmap;     /* bit n: every access to BAR n goes through the kernel */
    /* On the loop's thread. */
    void (*event)(void *opaque, const char *name, enum vfio_event event);
    void *opaque;
};

struct vfio_device;

/* NULL with err set, and the vfio closed, if the device cannot be understood. */
struct vfio_device *vfio_device_create(const struct vfio_device_config *config, struct error *err);
/* What the machine lists. Removing it gives the device back. */
struct device *vfio_device_base(struct vfio_device *device);
/* Whether it is made for a slot of its own behind a port, rather than for the root bus. */
bool vfio_device_needs_port(const struct vfio_device *device);
/* Maps the guest's RAM if `map` (one device does it for all of one `space`), resets the device and
 * puts it on the bus. */
bool vfio_device_attach(struct vfio_device *device, struct pci_bus *bus, unsigned devfn, bool map,
                        struct error *err);
/* The guest has handled an interrupt of the host bridge's line: the device may ask again. On any
 * thread, with no lock held. */
void vfio_device_end_intx(struct vfio_device *device, unsigned line);
