/* virtio-rng (section 5.4): entropy from the host's getrandom. */
#pragma once

#include "virtio/virtio.h"

struct virtio_device *virtio_rng_create(const char *name, struct loop *loop);
