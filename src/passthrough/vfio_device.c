/* A device that is passed through: from its opening to its being given back. */
#include <stdlib.h>

#include "passthrough/vfio_parts.h"

#define EXPRESS_FLAGS_TYPE_SHIFT 4
#define EXPRESS_ROOT_ENDPOINT    9 /* a Root Complex Integrated Endpoint */

static void free_device(struct vfio_device *self)
{
    interrupt_finish(self);
    region_finish(self);
    if (self->pci.msi)
        pci_msi_finish(&self->msi);
    if (self->pci.msix)
        pci_msix_finish(&self->msix);
    self->vfio->ops->close(self->vfio);
    pthread_mutex_destroy(&self->irq_lock);
    pthread_mutex_destroy(&self->rom_lock);
    device_finish(&self->base);
    free(self);
}

/* The device stops first: what it still wrote would go to the next guest's RAM. */
static void device_reset(struct device *base)
{
    struct vfio_device *self = container_of(base, struct vfio_device, base);
    struct error err;

    interrupt_stop(self);
    pci_device_reset(&self->pci);
    if (!self->vfio->ops->reset(self->vfio, &err))
        log_info("%s; it keeps its state", err.message);
    config_send_command(self);
    interrupt_follow(self);
}

static void device_state(struct device *base, struct stream *stream)
{
    stream_fail(stream, "%s is a device of the host, whose state cannot be saved", base->name);
}

static void device_remove(struct device *base)
{
    struct vfio_device *self = container_of(base, struct vfio_device, base);

    interrupt_stop(self);
    pci_device_detach(&self->pci);
    free_device(self);
}

static const struct device_type vfio_device_type = {
    .name = "vfio-pci",
    .reset = device_reset,
    .state = device_state,
    .remove = device_remove,
};

struct vfio_device *vfio_device_create(const struct vfio_device_config *config, struct error *err)
{
    struct vfio_device *self = xcalloc(1, sizeof(*self));

    device_init(&self->base, &vfio_device_type, config->vfio->name);
    self->config = *config;
    self->vfio = config->vfio;
    pthread_mutex_init(&self->irq_lock, NULL);
    pthread_mutex_init(&self->rom_lock, NULL);
    for (unsigned i = 0; i < VFIO_BARS; i++) {
        self->bars[i].device = self;
        self->bars[i].index = i;
    }
    if (interrupt_init(self, err) && config_build(self, err)) {
        interrupt_begin(self);
        return self;
    }
    free_device(self);
    return NULL;
}

struct device *vfio_device_base(struct vfio_device *self)
{
    return &self->base;
}

bool vfio_device_needs_port(const struct vfio_device *self)
{
    unsigned flags = self->express ? load_le16(self->pci.config + self->express + 2) : 0;

    return self->express && (flags >> EXPRESS_FLAGS_TYPE_SHIFT & 0xf) != EXPRESS_ROOT_ENDPOINT;
}

bool vfio_device_attach(struct vfio_device *self, struct pci_bus *bus, unsigned devfn, bool map,
                        struct error *err)
{
    struct error reset;

    if ((map && !dma_map_ram(self->vfio, self->config.memory, err)) ||
        !pci_device_attach(&self->pci, bus, devfn, err))
        return false;
    if (!self->vfio->ops->reset(self->vfio, &reset))
        log_info("%s; the guest finds it as it is", reset.message);
    config_send_command(self);
    interrupt_follow(self);
    return true;
}
