/*
 * virtio-9p: a host directory shared with the guest over 9P2000.L.
 *
 * The guest sees `directory` and nothing above it. It acts with the rights of this process: files
 * that it makes belong to this user, setuid and device nodes are not made.
 */
#pragma once

#include "virtio/virtio.h"

struct virtio_p9_config {
    const char *directory;
    const char *tag; /* what the guest mounts; 1 to 255 bytes */
    bool read_only;
};

struct virtio_device *virtio_p9_create(const char *name, const struct virtio_p9_config *config,
                                       struct loop *loop, struct error *err);
