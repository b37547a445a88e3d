/* The MMIO transport, version 2 (section 4.2). */
#include <stdlib.h>

#include "virtio/transport.h"

#define MMIO_MAGIC   UINT32_C(0x74726976) /* "virt" */
#define MMIO_VERSION 2
#define MMIO_VENDOR  UINT32_C(0x52565448) /* "HTVR" */

enum mmio_offset {
    MMIO_OFFSET_MAGIC = 0x000,
    MMIO_OFFSET_VERSION = 0x004,
    MMIO_OFFSET_DEVICE_ID = 0x008,
    MMIO_OFFSET_VENDOR_ID = 0x00c,
    MMIO_OFFSET_QUEUE_NOTIFY = 0x050,
    MMIO_OFFSET_INTERRUPT_STATUS = 0x060,
    MMIO_OFFSET_INTERRUPT_ACK = 0x064,
    MMIO_OFFSET_SHM_FIRST = 0x0b0,
    MMIO_OFFSET_SHM_LAST = 0x0bc,
    MMIO_OFFSET_CONFIG = 0x100,
};

static const struct virtio_register_place mmio_layout[] = {
    {0x010, 4, VIRTIO_DEVICE_FEATURE},   {0x014, 4, VIRTIO_DEVICE_FEATURE_SELECT},
    {0x020, 4, VIRTIO_DRIVER_FEATURE},   {0x024, 4, VIRTIO_DRIVER_FEATURE_SELECT},
    {0x030, 4, VIRTIO_QUEUE_SELECT},     {0x034, 4, VIRTIO_QUEUE_SIZE_LIMIT},
    {0x038, 4, VIRTIO_QUEUE_SIZE},       {0x044, 4, VIRTIO_QUEUE_ENABLE},
    {0x070, 4, VIRTIO_STATUS},           {0x080, 4, VIRTIO_QUEUE_DESC_LOW},
    {0x084, 4, VIRTIO_QUEUE_DESC_HIGH},  {0x090, 4, VIRTIO_QUEUE_AVAIL_LOW},
    {0x094, 4, VIRTIO_QUEUE_AVAIL_HIGH}, {0x0a0, 4, VIRTIO_QUEUE_USED_LOW},
    {0x0a4, 4, VIRTIO_QUEUE_USED_HIGH},  {0x0fc, 4, VIRTIO_CONFIG_GENERATION},
};

struct virtio_mmio {
    struct device base;
    struct virtio_transport transport;
    struct memory *memory;
    struct irq_line irq;
    uint64_t address;
};

static void mmio_set_line(struct virtio_transport *transport, bool level)
{
    irq_set(&container_of(transport, struct virtio_mmio, transport)->irq, level);
}

static uint32_t identity_read(const struct virtio_mmio *slot, uint64_t offset)
{
    const struct virtio_device *device = slot->transport.device;

    switch (offset) {
    case MMIO_OFFSET_MAGIC:
        return MMIO_MAGIC;
    case MMIO_OFFSET_VERSION:
        return MMIO_VERSION;
    case MMIO_OFFSET_DEVICE_ID:
        return device ? device->type->id : 0;
    case MMIO_OFFSET_VENDOR_ID:
        return MMIO_VENDOR;
    default:
        return 0;
    }
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_mmio *slot = opaque;
    struct virtio_transport *transport = &slot->transport;
    struct virtio_device *device = transport->device;
    const struct virtio_register_place *place;
    uint32_t value = 0;

    if (!device || offset <= MMIO_OFFSET_VENDOR_ID)
        return identity_read(slot, offset);
    if (offset == MMIO_OFFSET_INTERRUPT_STATUS)
        return virtio_transport_acknowledge(transport, 0);
    if (offset >= MMIO_OFFSET_SHM_FIRST && offset <= MMIO_OFFSET_SHM_LAST)
        return UINT32_MAX; /* no shared memory regions: length -1 */

    virtio_lock(device);
    if (offset >= MMIO_OFFSET_CONFIG) {
        value = virtio_config_read(device, offset - MMIO_OFFSET_CONFIG, size);
    } else {
        place = virtio_register_find(mmio_layout, ARRAY_SIZE(mmio_layout), transport, offset, size);
        if (place)
            value = virtio_register_read(transport, place->id);
    }
    virtio_unlock(device);
    return value;
}

static void mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct virtio_mmio *slot = opaque;
    struct virtio_transport *transport = &slot->transport;
    struct virtio_device *device = transport->device;
    const struct virtio_register_place *place;

    if (!device)
        return;
    if (offset == MMIO_OFFSET_QUEUE_NOTIFY) {
        virtio_transport_notify(transport, value);
        return;
    }
    if (offset == MMIO_OFFSET_INTERRUPT_ACK) {
        virtio_transport_acknowledge(transport, value);
        return;
    }
    virtio_lock(device);
    if (offset >= MMIO_OFFSET_CONFIG) {
        virtio_config_write(device, offset - MMIO_OFFSET_CONFIG, value, size);
    } else {
        place = virtio_register_find(mmio_layout, ARRAY_SIZE(mmio_layout), transport, offset, size);
        if (place)
            virtio_register_write(transport, place->id, value);
    }
    virtio_unlock(device);
}

static const struct mmio_ops mmio_ops = {
    .read = mmio_read,
    .write = mmio_write,
    .max_size = 4,
    .split = true,
};

/* A slot has nothing of its own to lose: the attached device resets and saves it. */
static void slot_reset(struct device *base)
{
}

static void slot_state(struct device *base, struct stream *stream)
{
}

static void slot_remove(struct device *base)
{
    struct virtio_mmio *slot = container_of(base, struct virtio_mmio, base);

    memory_remove_mmio(slot->memory, slot->address);
    virtio_transport_finish(&slot->transport);
    device_finish(&slot->base);
    free(slot);
}

static const struct device_type slot_type = {
    .name = "virtio-mmio",
    .reset = slot_reset,
    .state = slot_state,
    .remove = slot_remove,
};

/* Unmapping is what waits for register accesses that are under way. The empty slot comes back. */
static void mmio_detach(struct virtio_transport *transport)
{
    struct virtio_mmio *slot = container_of(transport, struct virtio_mmio, transport);

    memory_remove_mmio(slot->memory, slot->address);
    transport->device = NULL;
    memory_add_mmio(slot->memory, slot->address, VIRTIO_MMIO_SIZE, &mmio_ops, slot, slot->base.name,
                    NULL);
}

static const struct virtio_transport_ops mmio_transport_ops = {
    .set_line = mmio_set_line,
    .state = virtio_transport_state,
    .detach = mmio_detach,
};

struct virtio_mmio *virtio_mmio_create(struct memory *memory, uint64_t base, struct irq_line irq,
                                       const char *name, struct error *err)
{
    struct virtio_mmio *slot = xcalloc(1, sizeof(*slot));

    device_init(&slot->base, &slot_type, name);
    virtio_transport_init(&slot->transport, &mmio_transport_ops);
    slot->memory = memory;
    slot->irq = irq;
    slot->address = base;
    if (memory_add_mmio(memory, base, VIRTIO_MMIO_SIZE, &mmio_ops, slot, slot->base.name, err))
        return slot;
    virtio_transport_finish(&slot->transport);
    device_finish(&slot->base);
    free(slot);
    return NULL;
}

struct device *virtio_mmio_device(struct virtio_mmio *slot)
{
    return &slot->base;
}

bool virtio_mmio_attach(struct virtio_mmio *slot, struct virtio_device *device, struct error *err)
{
    if (slot->transport.device)
        return error_set(err, "%s: already holds %s; choose another virtio-mmio slot",
                         slot->base.name, slot->transport.device->base.name);
    virtio_transport_bind(&slot->transport, device, slot->memory);
    return true;
}
