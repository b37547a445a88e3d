/*
 * Resets by the kernel: of the function, by whatever method it has (FLR, power management, a slot
 * of its own), or of the whole bus, which requires that all functions on it are this machine's.
 */
#include <errno.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "base/base.h"
#include "passthrough/vfio_kernel.h"

#define HOT_RESET_DEVICES_MAX 64

static bool has_group(const struct vfio_container *container, uint32_t number)
{
    for (size_t i = 0; i < container->group_count; i++)
        if ((uint32_t)container->groups[i].number == number)
            return true;
    return false;
}

/* Whether all that a reset of the bus reaches is in groups of this machine. */
static bool owns_bus(struct vfio_kernel *self, struct error *err)
{
    size_t size = sizeof(struct vfio_pci_hot_reset_info) +
                  HOT_RESET_DEVICES_MAX * sizeof(struct vfio_pci_dependent_device);
    struct vfio_pci_hot_reset_info *info = xcalloc(1, size);
    info->argsz = (uint32_t)size;
    bool ok = !ioctl(self->fd, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, info) ||
              error_set(err, "%s can be reset neither alone nor with its bus", self->vfio.name);
    for (uint32_t i = 0; ok && i < info->count && i < HOT_RESET_DEVICES_MAX; i++) {
        const struct vfio_pci_dependent_device *device = &info->devices[i];
        if (!has_group(self->container, device->group_id))
            ok = error_set(err,
                           "%s can be reset only together with %04x:%02x:%02x.%x, which this "
                           "machine does not have",
                           self->vfio.name, device->segment, device->bus, device->devfn >> 3,
                           device->devfn & 7);
    }
    free(info);
    return ok;
}

static bool reset_bus(struct vfio_kernel *self, struct error *err)
{
    const struct vfio_container *container = self->container;
    size_t size = sizeof(struct vfio_pci_hot_reset) + container->group_count * sizeof(int32_t);
    if (!owns_bus(self, err))
        return false;
    struct vfio_pci_hot_reset *reset = xcalloc(1, size);
    reset->argsz = (uint32_t)size;
    reset->count = (uint32_t)container->group_count;
    for (size_t i = 0; i < container->group_count; i++)
        reset->group_fds[i] = container->groups[i].fd;
    bool ok = !ioctl(self->fd, VFIO_DEVICE_PCI_HOT_RESET, reset) ||
              error_set_errno(err, errno, "%s: its bus cannot be reset", self->vfio.name);
    free(reset);
    return ok;
}

bool vfio_kernel_reset(struct vfio *vfio, struct error *err)
{
    struct vfio_kernel *self = container_of(vfio, struct vfio_kernel, vfio);
    if (self->resets && !ioctl(self->fd, VFIO_DEVICE_RESET))
        return true;
    return reset_bus(self, err);
}
