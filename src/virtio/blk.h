/* virtio-blk (section 5.2): a disk, served by block.h without copying guest memory. */
#pragma once

#include "virtio/block.h"
#include "virtio/virtio.h"

/* Opens the disk (see block_open for what is refused). Its serial number is `name`. */
struct virtio_device *virtio_blk_create(const char *name, const struct block_config *disk,
                                        struct loop *loop, struct error *err);

/* The disk under the device, e.g. for its size and engine; the device's lock guards it. */
const struct block *virtio_blk_disk(const struct virtio_device *device);
