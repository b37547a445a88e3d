/* virtio-console (section 5.3): one port (hvc0) on a character channel, with its window size. */
#pragma once

#include "device/chardev.h"
#include "virtio/virtio.h"

/* The device becomes the channel's front end; the channel stays the caller's and must outlive it.
 */
struct virtio_device *virtio_console_create(const char *name, struct chardev *chardev,
                                            struct loop *loop);
