/* virtio-input (section 5.8): keys and axes as the Linux input subsystem has them. */
#pragma once

#include "virtio/virtio.h"

struct virtio_input_axis {
    uint16_t code; /* ABS_X... */
    int32_t min, max;
};

/* What an input device has: codes of linux/input-event-codes.h. Copied. */
struct virtio_input_config {
    const char *label;    /* what the guest shows as the device's name; at most 127 characters */
    const uint16_t *keys; /* EV_KEY codes, below 1024: keys and buttons */
    unsigned key_count;
    const uint16_t *relative; /* EV_REL codes, below 32 */
    unsigned relative_count;
    const struct virtio_input_axis *axes; /* EV_ABS, codes below 64 */
    unsigned axis_count;
    bool repeats; /* EV_REP: the guest repeats keys that are held */
    bool direct;  /* INPUT_PROP_DIRECT: absolute coordinates are those of the screen */
};

struct virtio_device *
virtio_input_create(const char *name, const struct virtio_input_config *config, struct loop *loop);

struct virtio_input_event {
    uint16_t type, code; /* EV_KEY, EV_REL, EV_ABS; the report that ends a group is added */
    int32_t value;
};

/*
 * Sends a group of at most 16 events that belong together, and ends it with a report; all of them
 * or none. False if the guest has no driver that listens, or has no room: then they are dropped, as
 * the section asks, but for the releases of keys, for which there always is room. Events that the
 * device does not have are left out, and so are those of keys that change nothing. Any thread.
 */
bool virtio_input_send(struct virtio_device *device, const struct virtio_input_event *events,
                       unsigned count);

/* Presses and releases a key, as virtio_input_send does. */
bool virtio_input_press(struct virtio_device *device, uint16_t key);
