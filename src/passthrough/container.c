/* The kernel's VFIO container and its groups, and what may stand in the way of opening them. */
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/base.h"
#include "passthrough/internal.h"
#include "passthrough/vfio_kernel.h"

#define CHECK "'hartvisor devices check' looks at all of it"

struct vfio_container *vfio_container_create(struct error *err)
{
    int fd = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
    if (fd < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO)) {
        error_set(err, "there is no /dev/vfio/vfio: load VFIO with 'modprobe vfio-pci'; " CHECK);
        return NULL;
    }
    if (fd < 0) {
        error_set_errno(err, errno, "cannot open /dev/vfio/vfio");
        return NULL;
    }
    if (ioctl(fd, VFIO_GET_API_VERSION) != VFIO_API_VERSION ||
        ioctl(fd, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) <= 0) {
        error_set(err, "the kernel's VFIO has no type 1 IOMMU: load it with 'modprobe "
                       "vfio_iommu_type1'; " CHECK);
        close(fd);
        return NULL;
    }
    struct vfio_container *container = xcalloc(1, sizeof(*container));
    container->fd = fd;
    return container;
}

void vfio_container_destroy(struct vfio_container *container)
{
    if (!container)
        return;
    for (size_t i = 0; i < container->group_count; i++)
        close(container->groups[i].fd);
    close(container->fd);
    free(container);
}

bool vfio_kernel_check(const struct passthrough_manager *manager,
                       const struct passthrough_device *device, struct error *err)
{
    const struct passthrough_info *info = &device->info;
    if (info->group < 0 && !passthrough_iommu_on(manager))
        return error_set(err,
                         "%s: the IOMMU is off, without which a guest's device could write "
                         "anywhere: 'hartvisor devices check' says how to turn it on",
                         info->name);
    if (info->group < 0)
        return error_set(err, "%s has no IOMMU group: it is not behind the IOMMU", info->name);
    if (info->class_code >> 8 == 0x0604)
        return error_set(err, "%s is a bridge: give the devices behind it", info->name);
    if (passthrough_device_hinders(device) || !info->driver[0])
        return error_set(err,
                         "%s %s%s, not " VFIO_DRIVER ": 'hartvisor devices bind %s' hands it "
                         "over",
                         info->name, info->driver[0] ? "has the host's driver " : "has no driver",
                         info->driver, info->name);
    return passthrough_group_viable(manager, info->group, err) ||
           error_prefix(err, "%s", info->name);
}

static bool explain_group(const char *path, const char *name, int number, struct error *err)
{
    switch (number) {
    case EACCES:
    case EPERM:
        return error_set(err,
                         "%s: no permission to open %s: give it to your user, as with 'chown "
                         "$USER %s' or a udev rule; " CHECK,
                         name, path, path);
    case ENOENT:
        return error_set(err,
                         "%s: there is no %s: load VFIO with 'modprobe vfio-pci' and hand the "
                         "device over with 'hartvisor devices bind %s'",
                         name, path, name);
    case EBUSY:
        return error_set(err,
                         "%s: another process has %s open: a device belongs to one machine "
                         "('fuser -v %s' names the process)",
                         name, path, path);
    default:
        return error_set_errno(err, number, "%s: cannot open %s", name, path);
    }
}

/* The first group gives the container its IOMMU. */
static bool join_container(struct vfio_container *container, int fd, const char *name,
                           struct error *err)
{
    struct vfio_group_status status = {.argsz = sizeof(status)};
    if (ioctl(fd, VFIO_GROUP_GET_STATUS, &status))
        return error_set_errno(err, errno, "%s: the kernel does not describe its group", name);
    if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
        return error_set(err,
                         "%s: its IOMMU group is not viable, because another device of it has "
                         "a host's driver: 'hartvisor devices groups' lists them",
                         name);
    if (ioctl(fd, VFIO_GROUP_SET_CONTAINER, &container->fd))
        return error_set_errno(err, errno,
                               "%s: its IOMMU group does not join the others of the "
                               "machine",
                               name);
    if (container->group_count || !ioctl(container->fd, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
        return true;
    if (errno == EPERM)
        return error_set(err,
                         "%s: this machine cannot remap interrupts, so a guest's device could "
                         "forge any: if you trust the guest, allow it with "
                         "'vfio_iommu_type1.allow_unsafe_interrupts=1'",
                         name);
    return error_set_errno(err, errno, "%s: VFIO cannot use the IOMMU", name);
}

static int group_file(struct vfio_container *container, int number, const char *name,
                      struct error *err)
{
    char path[40];
    for (size_t i = 0; i < container->group_count; i++)
        if (container->groups[i].number == number)
            return container->groups[i].fd;
    if (container->group_count == VFIO_GROUPS_MAX) {
        error_set(err, "%s: no more than %d IOMMU groups are possible", name, VFIO_GROUPS_MAX);
        return -1;
    }
    snprintf(path, sizeof(path), "/dev/vfio/%d", number);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        explain_group(path, name, errno, err);
        return -1;
    }
    if (!join_container(container, fd, name, err)) {
        close(fd);
        return -1;
    }
    container->groups[container->group_count].number = number;
    container->groups[container->group_count++].fd = fd;
    return fd;
}

int vfio_container_open(struct vfio_container *container, const struct passthrough_manager *manager,
                        const struct passthrough_device *device, struct error *err)
{
    const char *name = device->info.name;
    if (!vfio_kernel_check(manager, device, err))
        return -1;
    int group = group_file(container, device->info.group, name, err);
    if (group < 0)
        return -1;
    int fd = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name);
    if (fd < 0)
        error_set_errno(err, errno, "%s: the kernel does not open it%s", name,
                        errno == EBUSY ? ", as another machine has it" : "");
    else
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    return fd;
}
