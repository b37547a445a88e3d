/* virtio-input (section 5.8): keys and axes as the Linux input subsystem has them. */
#pragma once

#include "virtio/virtio.h"

/* What an input device has: codes of linux/input-event-codes.h. Copied. */
struct virtio_input_config {
    const char *label;    /* what the guest shows as the device's name; at most 127 characters */
    const uint16_t *keys; /* EV_KEY codes, below 1024 */
    unsigned key_count;
};

struct virtio_device *
virtio_input_create(const char *name, const struct virtio_input_config *config, struct loop *loop);

/*
 * Presses and releases a key. False if the guest has no driver that listens. Events that the guest
 * has no room for are dropped, as the section asks. Any thread.
 */
bool virtio_input_press(struct virtio_device *device, uint16_t key);
