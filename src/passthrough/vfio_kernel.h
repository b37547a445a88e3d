/* What the files on the kernel's VFIO share: devices, container and groups, resets. */
#pragma once

#include "passthrough/vfio.h"

struct passthrough_device;
struct passthrough_manager;

#define VFIO_GROUPS_MAX 16

struct vfio_container {
    int fd;
    size_t group_count;
    struct {
        int number, fd;
    } groups[VFIO_GROUPS_MAX];
};

struct vfio_kernel {
    struct vfio vfio;
    struct vfio_container *container;
    int fd;
    bool resets;                   /* by itself; else with its bus */
    uint64_t offset[VFIO_REGIONS]; /* of regions, in the file */
};

/* The file of a device, of a group that is opened for it; -1 with err set. */
int vfio_container_open(struct vfio_container *container, const struct passthrough_manager *manager,
                        const struct passthrough_device *device, struct error *err);

bool vfio_kernel_reset(struct vfio *vfio, struct error *err);
