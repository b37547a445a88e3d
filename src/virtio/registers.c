/*
 * The registers that both transports show, each in its own layout: feature negotiation, status,
 * queue set-up (sections 3.1, 4.1.4.3 and 4.2.2), and the device's configuration space.
 */
#include "virtio/transport.h"

static struct virtio_queue *selected_queue(const struct virtio_transport *transport)
{
    struct virtio_device *device = transport->device;

    return transport->queue_select < device->queue_count ? &device->queues[transport->queue_select]
                                                         : NULL;
}

static uint32_t feature_word(uint64_t features, uint32_t select)
{
    return select < 2 ? features >> (32 * select) : 0;
}

static void driver_features_write(struct virtio_transport *transport, uint32_t value)
{
    struct virtio_device *device = transport->device;
    uint32_t select = transport->driver_feature_select;

    if (device->status & VIRTIO_STATUS_FEATURES_OK)
        trace_guest_error(device->base.name, "features written after FEATURES_OK");
    else if (select < 2)
        device->features = bits_set(device->features, 32 * select, 32, value);
    else if (value)
        trace_guest_error(device->base.name, "features %#x accepted in word %u", value, select);
}

/* Section 2.2.2: FEATURES_OK stays clear if the driver accepted what it cannot have. */
static bool features_acceptable(struct virtio_device *device)
{
    uint64_t extra = device->features & ~device->offered;

    if (!extra && virtio_has_feature(device, VIRTIO_VERSION_1))
        return true;
    trace_guest_error(device->base.name, "features %#llx refused: %#llx not offered, VERSION_1 %s",
                      (unsigned long long)device->features, (unsigned long long)extra,
                      virtio_has_feature(device, VIRTIO_VERSION_1) ? "accepted" : "missing");
    return false;
}

static void status_write(struct virtio_transport *transport, uint32_t value)
{
    struct virtio_device *device = transport->device;
    uint8_t old = device->status;
    uint8_t status = old | (value & 0xff & ~VIRTIO_STATUS_NEEDS_RESET);

    if (!value) {
        virtio_device_reset(device);
        return;
    }
    if ((status & ~old & VIRTIO_STATUS_FEATURES_OK) && !features_acceptable(device))
        status &= ~VIRTIO_STATUS_FEATURES_OK;
    if ((status & VIRTIO_STATUS_DRIVER_OK) && !(status & VIRTIO_STATUS_FEATURES_OK)) {
        trace_guest_error(device->base.name, "DRIVER_OK without FEATURES_OK");
        status &= ~VIRTIO_STATUS_DRIVER_OK;
    }
    if (status == old)
        return;
    device->status = status;
    if (device->type->status_changed)
        device->type->status_changed(device);
    if (!(status & ~old & VIRTIO_STATUS_DRIVER_OK))
        return;
    if (device->broken)
        virtio_transport_interrupt(transport, NULL);
    /* A notification that came before DRIVER_OK was lost. */
    for (unsigned i = 0; i < device->queue_count; i++)
        virtio_queue_schedule(&device->queues[i]);
}

static void queue_enable_write(struct virtio_queue *queue, uint32_t value)
{
    if (value == 1 && !queue->enabled)
        virtio_queue_enable(queue);
    else if (value == 0)
        queue->enabled = false; /* what is in flight may still be given back */
}

static uint64_t *queue_address(struct virtio_queue *queue, enum virtio_register id)
{
    switch (id) {
    case VIRTIO_QUEUE_DESC_LOW:
    case VIRTIO_QUEUE_DESC_HIGH:
        return &queue->desc_gpa;
    case VIRTIO_QUEUE_AVAIL_LOW:
    case VIRTIO_QUEUE_AVAIL_HIGH:
        return &queue->avail_gpa;
    default:
        return &queue->used_gpa;
    }
}

static unsigned address_shift(enum virtio_register id)
{
    return (id - VIRTIO_QUEUE_DESC_LOW) % 2 * 32;
}

const struct virtio_register_place *virtio_register_find(const struct virtio_register_place *layout,
                                                         unsigned count,
                                                         const struct virtio_transport *transport,
                                                         uint64_t offset, unsigned size)
{
    for (unsigned i = 0; i < count; i++)
        if (layout[i].offset == offset && layout[i].size == size)
            return &layout[i];
    trace_guest_error(transport->device->base.name, "no register of %u bytes at offset %#llx", size,
                      (unsigned long long)offset);
    return NULL;
}

static uint32_t queue_register_read(struct virtio_queue *queue, enum virtio_register id)
{
    switch (id) {
    case VIRTIO_QUEUE_SIZE_LIMIT:
        return queue->size_max;
    case VIRTIO_QUEUE_SIZE:
        return queue->size;
    case VIRTIO_QUEUE_ENABLE:
        return queue->enabled;
    case VIRTIO_QUEUE_NOTIFY_OFF:
        return queue->index;
    case VIRTIO_QUEUE_VECTOR:
        return queue->vector;
    default:
        return *queue_address(queue, id) >> address_shift(id);
    }
}

uint32_t virtio_register_read(struct virtio_transport *transport, enum virtio_register id)
{
    struct virtio_device *device = transport->device;
    struct virtio_queue *queue;

    switch (id) {
    case VIRTIO_DEVICE_FEATURE_SELECT:
        return transport->device_feature_select;
    case VIRTIO_DEVICE_FEATURE:
        return feature_word(device->offered, transport->device_feature_select);
    case VIRTIO_DRIVER_FEATURE_SELECT:
        return transport->driver_feature_select;
    case VIRTIO_DRIVER_FEATURE:
        return feature_word(device->features, transport->driver_feature_select);
    case VIRTIO_STATUS:
        return device->status;
    case VIRTIO_CONFIG_GENERATION:
        return device->config_generation;
    case VIRTIO_QUEUE_COUNT:
        return device->queue_count;
    case VIRTIO_QUEUE_SELECT:
        return transport->queue_select;
    case VIRTIO_CONFIG_VECTOR:
        return transport->config_vector;
    default:
        queue = selected_queue(transport);
        return queue ? queue_register_read(queue, id) : 0;
    }
}

/* What a vector register holds after a driver wrote to it: it reads back to see whether there is
 * such a vector (section 4.1.5.1.2). */
static uint16_t legal_vector(const struct virtio_transport *transport, uint32_t value)
{
    return value < transport->vectors ? value : VIRTIO_NO_VECTOR;
}

static void queue_register_write(struct virtio_queue *queue, enum virtio_register id,
                                 uint32_t value)
{
    uint64_t *address;

    if (id == VIRTIO_QUEUE_ENABLE) {
        queue_enable_write(queue, value);
        return;
    }
    if (id == VIRTIO_QUEUE_VECTOR) {
        queue->vector = legal_vector(queue->device->transport, value);
        return;
    }
    if (queue->enabled) {
        trace_guest_error(queue->device->base.name, "queue %u is changed while enabled",
                          queue->index);
        return;
    }
    if (id == VIRTIO_QUEUE_SIZE) {
        queue->size = value > queue->size_max ? 0 : value; /* 0: refused when it is enabled */
    } else if (id >= VIRTIO_QUEUE_DESC_LOW) {
        address = queue_address(queue, id);
        *address = bits_set(*address, address_shift(id), 32, value);
    }
}

void virtio_register_write(struct virtio_transport *transport, enum virtio_register id,
                           uint32_t value)
{
    struct virtio_queue *queue;

    switch (id) {
    case VIRTIO_DEVICE_FEATURE_SELECT:
        transport->device_feature_select = value;
        break;
    case VIRTIO_DRIVER_FEATURE_SELECT:
        transport->driver_feature_select = value;
        break;
    case VIRTIO_DRIVER_FEATURE:
        driver_features_write(transport, value);
        break;
    case VIRTIO_STATUS:
        status_write(transport, value);
        break;
    case VIRTIO_QUEUE_SELECT:
        transport->queue_select = value;
        break;
    case VIRTIO_CONFIG_VECTOR:
        transport->config_vector = legal_vector(transport, value);
        break;
    default:
        queue = selected_queue(transport);
        if (queue)
            queue_register_write(queue, id, value);
    }
}

uint32_t virtio_config_read(struct virtio_device *device, uint64_t offset, unsigned size)
{
    uint8_t bytes[4] = {0};

    if (offset < device->config_size) {
        size_t left = device->config_size - offset;
        memcpy(bytes, (const uint8_t *)device->config + offset, left < size ? left : size);
    }
    return load_le32(bytes);
}

void virtio_config_write(struct virtio_device *device, uint64_t offset, uint32_t value,
                         unsigned size)
{
    if (device->type->config_written && range_fits(offset, size, device->config_size))
        device->type->config_written(device, offset, value, size);
    else
        trace_guest_error(device->base.name, "write to configuration offset %#llx",
                          (unsigned long long)offset);
}
