/* The life of a virtio device, and what it shares with its transport. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "virtio/transport.h"

/* Chains a queue may take before other devices and timers on the loop get their turn. */
#define RUN_BUDGET 256

static void base_reset(struct device *base)
{
    struct virtio_device *device = container_of(base, struct virtio_device, base);

    virtio_lock(device);
    virtio_device_reset(device);
    virtio_unlock(device);
    if (device->transport && device->transport->ops->reset)
        device->transport->ops->reset(device->transport);
}

static void base_quiesce(struct device *base)
{
    struct virtio_device *device = container_of(base, struct virtio_device, base);

    virtio_lock(device);
    if (device->type->quiesce)
        device->type->quiesce(device);
    for (unsigned i = 0; i < device->queue_count; i++)
        virtio_queue_flush(&device->queues[i]);
    virtio_unlock(device);
}

static void base_state(struct device *base, struct stream *stream)
{
    struct virtio_device *device = container_of(base, struct virtio_device, base);

    stream_begin(stream, device->type->name, 1);
    virtio_lock(device);
    if (stream_loading(stream))
        virtio_device_reset(device);
    stream_u64(stream, &device->features);
    stream_u8(stream, &device->status);
    stream_bool(stream, &device->broken);
    stream_u32(stream, &device->config_generation);
    if ((device->status & VIRTIO_STATUS_FEATURES_OK) && device->features & ~device->offered)
        stream_fail(stream, "%s: saved with features %#llx, of which this one lacks %#llx",
                    device->base.name, (unsigned long long)device->features,
                    (unsigned long long)(device->features & ~device->offered));
    for (unsigned i = 0; i < device->queue_count; i++)
        virtio_queue_state(&device->queues[i], stream);
    if (device->type->state)
        device->type->state(device, stream);
    virtio_unlock(device);
    if (device->transport)
        device->transport->ops->state(device->transport, stream);
    stream_end(stream);
    if (stream_loading(stream) && stream_failed(stream))
        base_reset(base);
    for (unsigned i = 0; stream_loading(stream) && i < device->queue_count; i++)
        virtio_queue_schedule(&device->queues[i]);
}

static void base_remove(struct device *base)
{
    struct virtio_device *device = container_of(base, struct virtio_device, base);

    if (device->transport) {
        virtio_lock(device);
        virtio_device_reset(device);
        virtio_unlock(device);
        device->transport->ops->detach(device->transport);
        device->transport = NULL;
    }
    device->type->remove(device);
}

static const struct device_type virtio_base_type = {
    .name = "virtio",
    .reset = base_reset,
    .state = base_state,
    .remove = base_remove,
    .quiesce = base_quiesce,
};

void virtio_device_init(struct virtio_device *device, const struct virtio_device_type *type,
                        const char *name, uint64_t features, struct loop *loop)
{
    device_init(&device->base, &virtio_base_type, name);
    device->type = type;
    device->loop = loop;
    device->memory = NULL;
    device->transport = NULL;
    device->config = NULL;
    device->config_size = 0;
    device->config_generation = 0;
    device->offered = features | BIT(VIRTIO_RING_INDIRECT_DESC) | BIT(VIRTIO_RING_EVENT_IDX) |
                      BIT(VIRTIO_VERSION_1);
    device->features = 0;
    device->status = 0;
    device->broken = false;
    device->queues = NULL;
    device->queue_count = 0;
}

void virtio_device_add_queue(struct virtio_device *device, unsigned size)
{
    unsigned index = device->queue_count++;

    assert(!device->transport && is_power_of_two(size) && size <= VIRTIO_QUEUE_SIZE_MAX);
    device->queues = xrealloc(device->queues, device->queue_count * sizeof(*device->queues));
    device->queues[index] = (struct virtio_queue){
        .device = device,
        .index = index,
        .size_max = size,
        .size = size,
        .vector = VIRTIO_NO_VECTOR,
        .budget = UINT32_MAX,
    };
}

void virtio_device_finish(struct virtio_device *device)
{
    for (unsigned i = 0; i < device->queue_count; i++)
        loop_remove_task(device->queues[i].task);
    free(device->queues);
    device->queues = NULL;
    device->queue_count = 0;
    device_finish(&device->base);
}

static void queue_run(void *opaque)
{
    struct virtio_queue *queue = opaque;
    struct virtio_device *device = queue->device;

    virtio_lock(device);
    if (virtio_queue_ready(queue)) {
        queue->budget = RUN_BUDGET;
        device->type->handle_queue(device, queue);
        queue->budget = UINT32_MAX;
        virtio_queue_flush(queue);
    }
    virtio_unlock(device);
}

void virtio_device_reset(struct virtio_device *device)
{
    device->type->reset(device);
    for (unsigned i = 0; i < device->queue_count; i++)
        virtio_queue_reset(&device->queues[i]);
    device->features = 0;
    device->status = 0;
    device->broken = false;
    if (device->transport) {
        device->transport->device_feature_select = 0;
        device->transport->driver_feature_select = 0;
        device->transport->queue_select = 0;
        device->transport->config_vector = VIRTIO_NO_VECTOR;
        virtio_transport_acknowledge(device->transport, 0xff);
    }
}

void virtio_config_changed(struct virtio_device *device)
{
    device->config_generation++;
    if (device->transport && (device->status & VIRTIO_STATUS_DRIVER_OK))
        virtio_transport_interrupt(device->transport, NULL);
}

void virtio_device_break(struct virtio_device *device, const char *format, ...)
{
    if (trace_on(TRACE_GUEST_ERRORS)) {
        char text[256];
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(text, sizeof(text), format, arguments);
        va_end(arguments);
        trace_guest_error(device->base.name, "%s; the device needs a reset", text);
    }
    device->broken = true;
    device->status |= VIRTIO_STATUS_NEEDS_RESET;
    if (device->transport && (device->status & VIRTIO_STATUS_DRIVER_OK))
        virtio_transport_interrupt(device->transport, NULL);
}

void virtio_transport_init(struct virtio_transport *transport,
                           const struct virtio_transport_ops *ops)
{
    *transport = (struct virtio_transport){.ops = ops, .config_vector = VIRTIO_NO_VECTOR};
    pthread_mutex_init(&transport->isr_lock, NULL);
}

void virtio_transport_finish(struct virtio_transport *transport)
{
    pthread_mutex_destroy(&transport->isr_lock);
}

void virtio_transport_bind(struct virtio_transport *transport, struct virtio_device *device,
                           struct memory *memory)
{
    assert(!device->transport);
    device->memory = memory;
    for (unsigned i = 0; i < device->queue_count; i++) {
        struct virtio_queue *queue = &device->queues[i];
        if (!queue->task)
            queue->task = loop_add_task(device->loop, queue_run, queue);
    }
    transport->device = device;
    device->transport = transport;
}

void virtio_transport_interrupt(struct virtio_transport *transport,
                                const struct virtio_queue *queue)
{
    const struct virtio_transport_ops *ops = transport->ops;

    if (ops->send_vector &&
        ops->send_vector(transport, queue ? queue->vector : transport->config_vector))
        return;
    pthread_mutex_lock(&transport->isr_lock);
    transport->isr |= queue ? VIRTIO_ISR_QUEUE : VIRTIO_ISR_CONFIG;
    transport->ops->set_line(transport, true);
    pthread_mutex_unlock(&transport->isr_lock);
}

uint8_t virtio_transport_acknowledge(struct virtio_transport *transport, uint8_t bits)
{
    uint8_t before;

    pthread_mutex_lock(&transport->isr_lock);
    before = transport->isr;
    transport->isr &= ~bits;
    if (before && !transport->isr)
        transport->ops->set_line(transport, false);
    pthread_mutex_unlock(&transport->isr_lock);
    return before;
}

static void vector_state(const struct virtio_transport *transport, uint16_t *vector,
                         struct stream *stream)
{
    stream_u16(stream, vector);
    if (*vector >= transport->vectors)
        *vector = VIRTIO_NO_VECTOR;
}

void virtio_transport_state(struct virtio_transport *transport, struct stream *stream)
{
    stream_u32(stream, &transport->device_feature_select);
    stream_u32(stream, &transport->driver_feature_select);
    stream_u32(stream, &transport->queue_select);
    vector_state(transport, &transport->config_vector, stream);
    for (unsigned i = 0; i < transport->device->queue_count; i++)
        vector_state(transport, &transport->device->queues[i].vector, stream);
    pthread_mutex_lock(&transport->isr_lock);
    stream_u8(stream, &transport->isr);
    if (stream_loading(stream))
        transport->ops->set_line(transport, transport->isr != 0);
    pthread_mutex_unlock(&transport->isr_lock);
}

void virtio_transport_notify(struct virtio_transport *transport, uint32_t index)
{
    struct virtio_device *device = transport->device;

    if (index < device->queue_count)
        virtio_queue_schedule(&device->queues[index]);
    else
        trace_guest_error(device->base.name, "notification of queue %u, which it has not", index);
}
