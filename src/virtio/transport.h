/*
 * What the core and the two transports share: the registers behind the layouts of sections 4.1.4.3
 * and 4.2.2, interrupt status, and the transport's side of a device's life.
 */
#pragma once

#include "virtio/virtio.h"

/* Bits of the device status field (section 2.1). */
#define VIRTIO_STATUS_ACKNOWLEDGE UINT32_C(0x01)
#define VIRTIO_STATUS_DRIVER      UINT32_C(0x02)
#define VIRTIO_STATUS_DRIVER_OK   UINT32_C(0x04)
#define VIRTIO_STATUS_FEATURES_OK UINT32_C(0x08)
#define VIRTIO_STATUS_NEEDS_RESET UINT32_C(0x40)
#define VIRTIO_STATUS_FAILED      UINT32_C(0x80)

/* Bits of the interrupt status (sections 4.1.4.5 and 4.2.2). */
#define VIRTIO_ISR_QUEUE  0x1
#define VIRTIO_ISR_CONFIG 0x2

/* The vector registers hold this where nothing is to be sent (section 4.1.5.1.2). */
#define VIRTIO_NO_VECTOR 0xffff

struct virtio_transport_ops {
    /* Drives the interrupt line. Called with the transport's own lock held. */
    void (*set_line)(struct virtio_transport *transport, bool level);
    /* NULL or: sends `vector` as a message instead. False: messages are off, the line is used. Any
     * thread, with any lock held. */
    bool (*send_vector)(struct virtio_transport *transport, uint16_t vector);
    /* NULL or: false while the device may not touch guest memory. Any thread. */
    bool (*dma_allowed)(struct virtio_transport *transport);
    /* NULL or: the machine is reset: the transport's own registers as after power-on. */
    void (*reset)(struct virtio_transport *transport);
    void (*state)(struct virtio_transport *transport, struct stream *stream);
    /* No register access reaches the device after it; frees what attach allocated. */
    void (*detach)(struct virtio_transport *transport);
};

struct virtio_transport {
    const struct virtio_transport_ops *ops;
    struct virtio_device *device;

    /* Selectors; under the device's lock. */
    uint32_t device_feature_select, driver_feature_select, queue_select;

    unsigned vectors;       /* that there are; constant */
    uint16_t config_vector; /* under the device's lock, as are the queues' */

    pthread_mutex_t isr_lock; /* innermost but for the interrupt controller's; guards isr */
    uint8_t isr;
};

void virtio_transport_init(struct virtio_transport *transport,
                           const struct virtio_transport_ops *ops);
void virtio_transport_finish(struct virtio_transport *transport);

/* Ties an unattached device to the transport and creates its queues' tasks. */
void virtio_transport_bind(struct virtio_transport *transport, struct virtio_device *device,
                           struct memory *memory);

/* Sets interrupt status bits and the line; with MSI-X, sends the vector of `queue` (NULL:
 * configuration) instead. Any thread, with the device's lock held. */
void virtio_transport_interrupt(struct virtio_transport *transport,
                                const struct virtio_queue *queue);

/* Clears the given interrupt status bits and returns what was set before. */
uint8_t virtio_transport_acknowledge(struct virtio_transport *transport, uint8_t bits);

/* Selectors and interrupt status, for both transports. */
void virtio_transport_state(struct virtio_transport *transport, struct stream *stream);

/* A driver's notification of queue `index`, which may be anything. No lock needed. */
void virtio_transport_notify(struct virtio_transport *transport, uint32_t index);

/* The registers that both layouts have, each accessed whole (32 bits; 64-bit ones in halves). */
enum virtio_register {
    VIRTIO_DEVICE_FEATURE_SELECT,
    VIRTIO_DEVICE_FEATURE,
    VIRTIO_DRIVER_FEATURE_SELECT,
    VIRTIO_DRIVER_FEATURE,
    VIRTIO_STATUS,
    VIRTIO_CONFIG_GENERATION,
    VIRTIO_QUEUE_COUNT,
    VIRTIO_QUEUE_SELECT,
    VIRTIO_QUEUE_SIZE_LIMIT,
    VIRTIO_QUEUE_SIZE,
    VIRTIO_QUEUE_ENABLE,
    VIRTIO_QUEUE_NOTIFY_OFF,
    VIRTIO_CONFIG_VECTOR,
    VIRTIO_QUEUE_VECTOR,
    VIRTIO_QUEUE_DESC_LOW,
    VIRTIO_QUEUE_DESC_HIGH,
    VIRTIO_QUEUE_AVAIL_LOW,
    VIRTIO_QUEUE_AVAIL_HIGH,
    VIRTIO_QUEUE_USED_LOW,
    VIRTIO_QUEUE_USED_HIGH,
    VIRTIO_REGISTERS
};

/* A transport's layout: where each register is and how wide. */
struct virtio_register_place {
    uint16_t offset;
    uint8_t size;
    enum virtio_register id;
};

/* Finds the register at offset, accessed with its size; NULL (and a trace) if there is none. */
const struct virtio_register_place *virtio_register_find(const struct virtio_register_place *layout,
                                                         unsigned count,
                                                         const struct virtio_transport *transport,
                                                         uint64_t offset, unsigned size);

/* Both with the device's lock held. */
uint32_t virtio_register_read(struct virtio_transport *transport, enum virtio_register id);
void virtio_register_write(struct virtio_transport *transport, enum virtio_register id,
                           uint32_t value);

/* The device's configuration space; any offset, size 1, 2 or 4. Lock held. */
uint32_t virtio_config_read(struct virtio_device *device, uint64_t offset, unsigned size);
void virtio_config_write(struct virtio_device *device, uint64_t offset, uint32_t value,
                         unsigned size);

/* Back to the initial state (section 2.1, status 0). Lock held. */
void virtio_device_reset(struct virtio_device *device);

/* Makes the rings reachable and empties the indices; breaks the device if they cannot be. */
void virtio_queue_enable(struct virtio_queue *queue);
void virtio_queue_reset(struct virtio_queue *queue);
void virtio_queue_state(struct virtio_queue *queue, struct stream *stream);
