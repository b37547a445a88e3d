/* The PCI transport (section 4.1), without the legacy interface. */
#include <stdlib.h>

#include "pci/pci.h"
#include "virtio/transport.h"

#define PCI_VENDOR_VIRTIO        0x1af4
#define PCI_DEVICE_VIRTIO_BASE   0x1040 /* plus the virtio device ID */
#define PCI_SUBSYSTEM_VIRTIO     0x1100
#define PCI_CAPABILITY_VENDOR    0x09
#define VIRTIO_PCI_NOTIFY_STRIDE 4

/* The structures of section 4.1.4, each in its own page of one BAR; BAR 1 is MSI-X's. */
#define REGISTER_BAR 4
#define MSIX_BAR     1
enum region { REGION_COMMON, REGION_ISR, REGION_DEVICE, REGION_NOTIFY, REGIONS };
#define REGION_SIZE 0x1000
#define BAR_SIZE    (REGIONS * REGION_SIZE)

static const struct {
    uint8_t cfg_type; /* section 4.1.4 */
    uint8_t capability_size;
} regions[REGIONS] = {
    [REGION_COMMON] = {1, 16},
    [REGION_ISR] = {3, 16},
    [REGION_DEVICE] = {4, 16},
    [REGION_NOTIFY] = {2, 20},
};
#define CFG_TYPE_PCI_ACCESS 5

/* struct virtio_pci_cap (section 4.1.4). */
enum capability_offset {
    CAP_LENGTH = 2,
    CAP_CFG_TYPE = 3,
    CAP_BAR = 4,
    CAP_OFFSET = 8,
    CAP_SIZE = 12,
    CAP_NOTIFY_STRIDE = 16,
    CAP_ACCESS_DATA = 16,
};

static const struct virtio_register_place common_layout[] = {
    {0x00, 4, VIRTIO_DEVICE_FEATURE_SELECT},
    {0x04, 4, VIRTIO_DEVICE_FEATURE},
    {0x08, 4, VIRTIO_DRIVER_FEATURE_SELECT},
    {0x0c, 4, VIRTIO_DRIVER_FEATURE},
    {0x10, 2, VIRTIO_CONFIG_VECTOR},
    {0x12, 2, VIRTIO_QUEUE_COUNT},
    {0x14, 1, VIRTIO_STATUS},
    {0x15, 1, VIRTIO_CONFIG_GENERATION},
    {0x16, 2, VIRTIO_QUEUE_SELECT},
    {0x18, 2, VIRTIO_QUEUE_SIZE},
    {0x1a, 2, VIRTIO_QUEUE_VECTOR},
    {0x1c, 2, VIRTIO_QUEUE_ENABLE},
    {0x1e, 2, VIRTIO_QUEUE_NOTIFY_OFF},
    {0x20, 4, VIRTIO_QUEUE_DESC_LOW},
    {0x24, 4, VIRTIO_QUEUE_DESC_HIGH},
    {0x28, 4, VIRTIO_QUEUE_AVAIL_LOW},
    {0x2c, 4, VIRTIO_QUEUE_AVAIL_HIGH},
    {0x30, 4, VIRTIO_QUEUE_USED_LOW},
    {0x34, 4, VIRTIO_QUEUE_USED_HIGH},
};

struct virtio_pci {
    struct pci_device pci;
    struct virtio_transport transport;
    struct pci_msix msix;       /* where the bus has messages */
    unsigned access_capability; /* offset of the configuration access capability */
};

static uint32_t common_read(struct virtio_transport *transport, uint64_t offset, unsigned size)
{
    const struct virtio_register_place *place;

    place = virtio_register_find(common_layout, ARRAY_SIZE(common_layout), transport, offset, size);
    return place ? virtio_register_read(transport, place->id) : 0;
}

static void common_write(struct virtio_transport *transport, uint64_t offset, uint32_t value,
                         unsigned size)
{
    const struct virtio_register_place *place;

    place = virtio_register_find(common_layout, ARRAY_SIZE(common_layout), transport, offset, size);
    /* Only a reset disables a queue (section 4.1.4.3.2). */
    if (place && !(place->id == VIRTIO_QUEUE_ENABLE && !value))
        virtio_register_write(transport, place->id, value);
}

static uint64_t bar_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_pci *self = opaque;
    struct virtio_transport *transport = &self->transport;
    enum region region = offset / REGION_SIZE;
    uint32_t value = 0;

    offset %= REGION_SIZE;
    if (region == REGION_ISR) /* reading clears (section 4.1.4.5) */
        return offset ? 0 : virtio_transport_acknowledge(transport, 0xff);
    if (region == REGION_NOTIFY)
        return 0;
    virtio_lock(transport->device);
    value = region == REGION_COMMON ? common_read(transport, offset, size)
                                    : virtio_config_read(transport->device, offset, size);
    virtio_unlock(transport->device);
    return value;
}

static void bar_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct virtio_pci *self = opaque;
    struct virtio_transport *transport = &self->transport;
    enum region region = offset / REGION_SIZE;

    offset %= REGION_SIZE;
    if (region == REGION_NOTIFY) {
        virtio_transport_notify(transport, offset / VIRTIO_PCI_NOTIFY_STRIDE);
        return;
    }
    if (region == REGION_ISR)
        return;
    virtio_lock(transport->device);
    if (region == REGION_COMMON)
        common_write(transport, offset, value, size);
    else
        virtio_config_write(transport->device, offset, value, size);
    virtio_unlock(transport->device);
}

static const struct mmio_ops bar_ops = {
    .read = bar_read,
    .write = bar_write,
    .max_size = 4,
    .split = true,
};

/*
 * The configuration access capability (section 4.1.4.9): a window of 1, 2 or 4 bytes into the BAR
 * for firmware that cannot reach it. True if the window is set to something that exists.
 */
static bool access_window(const struct virtio_pci *self, uint32_t *offset, uint32_t *size)
{
    const uint8_t *capability = self->pci.config + self->access_capability;

    *offset = load_le32(capability + CAP_OFFSET);
    *size = load_le32(capability + CAP_SIZE);
    return capability[CAP_BAR] == REGISTER_BAR && (*size == 1 || *size == 2 || *size == 4) &&
           *offset % *size == 0 && range_fits(*offset, *size, BAR_SIZE);
}

static bool is_access_data(const struct virtio_pci *self, unsigned offset)
{
    unsigned data = self->access_capability + CAP_ACCESS_DATA;

    return offset >= data && offset < data + 4;
}

static uint32_t config_read(struct pci_device *pci, unsigned offset, unsigned size)
{
    struct virtio_pci *self = container_of(pci, struct virtio_pci, pci);
    uint32_t window, width;

    if (is_access_data(self, offset) && access_window(self, &window, &width))
        store_le32(pci->config + self->access_capability + CAP_ACCESS_DATA,
                   bar_read(self, window, width));
    return pci_config_read(pci, offset, size);
}

static void config_write(struct pci_device *pci, unsigned offset, uint32_t value, unsigned size)
{
    struct virtio_pci *self = container_of(pci, struct virtio_pci, pci);
    uint32_t window, width;

    pci_config_write(pci, offset, value, size);
    if (is_access_data(self, offset) && access_window(self, &window, &width))
        bar_write(self, window,
                  load_le32(pci->config + self->access_capability + CAP_ACCESS_DATA) &
                      size_mask(width),
                  width);
}

/* Queues that stood still while the device was no bus master go on. */
static void command_changed(struct pci_device *pci)
{
    struct virtio_device *device = container_of(pci, struct virtio_pci, pci)->transport.device;

    for (unsigned i = 0; pci->bus_master && i < device->queue_count; i++)
        virtio_queue_schedule(&device->queues[i]);
}

static const struct pci_device_type virtio_pci_type = {
    .name = "virtio-pci",
    .config_read = config_read,
    .config_write = config_write,
    .command_changed = command_changed,
};

static void virtio_pci_set_line(struct virtio_transport *transport, bool level)
{
    pci_set_intx(&container_of(transport, struct virtio_pci, transport)->pci, level);
}

static bool virtio_pci_send_vector(struct virtio_transport *transport, uint16_t vector)
{
    struct virtio_pci *self = container_of(transport, struct virtio_pci, transport);

    if (!self->pci.msix || !pci_msix_enabled(&self->msix))
        return false;
    pci_msix_send(&self->msix, vector); /* VIRTIO_NO_VECTOR is none that it has */
    return true;
}

static bool virtio_pci_dma_allowed(struct virtio_transport *transport)
{
    return container_of(transport, struct virtio_pci, transport)->pci.bus_master;
}

static void virtio_pci_reset(struct virtio_transport *transport)
{
    pci_device_reset(&container_of(transport, struct virtio_pci, transport)->pci);
}

static void virtio_pci_state(struct virtio_transport *transport, struct stream *stream)
{
    pci_device_state(&container_of(transport, struct virtio_pci, transport)->pci, stream);
    virtio_transport_state(transport, stream);
}

static void virtio_pci_free(struct virtio_pci *self)
{
    if (self->pci.msix)
        pci_msix_finish(&self->msix);
    virtio_transport_finish(&self->transport);
    free(self);
}

static void virtio_pci_detach(struct virtio_transport *transport)
{
    struct virtio_pci *self = container_of(transport, struct virtio_pci, transport);

    pci_device_detach(&self->pci);
    virtio_pci_free(self);
}

static const struct virtio_transport_ops virtio_pci_ops = {
    .set_line = virtio_pci_set_line,
    .send_vector = virtio_pci_send_vector,
    .dma_allowed = virtio_pci_dma_allowed,
    .reset = virtio_pci_reset,
    .state = virtio_pci_state,
    .detach = virtio_pci_detach,
};

/* Adds one vendor capability that describes [offset, offset + size) of the register BAR. */
static uint8_t *add_capability(struct virtio_pci *self, uint8_t cfg_type, unsigned capability_size,
                               uint32_t offset, uint32_t size)
{
    unsigned at = pci_add_capability(&self->pci, PCI_CAPABILITY_VENDOR, capability_size);
    uint8_t *capability = self->pci.config + at;

    capability[CAP_LENGTH] = capability_size;
    capability[CAP_CFG_TYPE] = cfg_type;
    capability[CAP_BAR] = REGISTER_BAR;
    store_le32(capability + CAP_OFFSET, offset);
    store_le32(capability + CAP_SIZE, size);
    return capability;
}

static void add_capabilities(struct virtio_pci *self)
{
    uint8_t *capability, *writable;

    for (unsigned i = 0; i < REGIONS; i++) {
        capability = add_capability(self, regions[i].cfg_type, regions[i].capability_size,
                                    i * REGION_SIZE, REGION_SIZE);
        if (i == REGION_NOTIFY)
            store_le32(capability + CAP_NOTIFY_STRIDE, VIRTIO_PCI_NOTIFY_STRIDE);
    }
    capability = add_capability(self, CFG_TYPE_PCI_ACCESS, 20, 0, 0);
    self->access_capability = capability - self->pci.config;
    writable = self->pci.writable + self->access_capability;
    memset(writable + CAP_BAR, 0xff, 1);
    memset(writable + CAP_OFFSET, 0xff, 12);
}

bool virtio_pci_attach(struct pci_bus *bus, unsigned slot, struct virtio_device *device,
                       struct error *err)
{
    struct virtio_pci *self;
    const struct pci_identity identity = {
        .vendor = PCI_VENDOR_VIRTIO,
        .device = PCI_DEVICE_VIRTIO_BASE + device->type->id,
        .subsystem_vendor = PCI_VENDOR_VIRTIO,
        .subsystem = PCI_SUBSYSTEM_VIRTIO,
        .class_code = device->type->pci_class,
        .revision = 1,
        .interrupt_pin = 1,
    };

    if (slot >= PCI_SLOTS)
        return error_set(err, "%s: PCI slot %u does not exist; choose one of 0 to %u",
                         device->base.name, slot, PCI_SLOTS - 1);
    self = xcalloc(1, sizeof(*self));
    virtio_transport_init(&self->transport, &virtio_pci_ops);
    pci_device_init(&self->pci, &virtio_pci_type, &identity);
    pci_add_bar(&self->pci, REGISTER_BAR, PCI_BAR_MEMORY64, true, BAR_SIZE, &bar_ops, self);
    add_capabilities(self);
    if (pci_bus_has_messages(bus)) {
        /* One for the configuration and one a queue. */
        self->transport.vectors = device->queue_count + 1;
        pci_msix_init(&self->msix, &self->pci, MSIX_BAR, self->transport.vectors);
    }
    virtio_transport_bind(&self->transport, device, pci_bus_memory(bus));
    if (pci_device_attach(&self->pci, bus, PCI_DEVFN(slot, 0), err))
        return true;
    error_prefix(err, "%s", device->base.name);
    device->transport = NULL;
    virtio_pci_free(self);
    return false;
}
