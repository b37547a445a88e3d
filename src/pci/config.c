/* A function's configuration space: bytes, masks, capabilities, BAR registers, command register. */
#include <assert.h>

#include "pci/internal.h"

void pci_device_init(struct pci_device *device, const struct pci_device_type *type,
                     const struct pci_identity *identity)
{
    memset(device, 0, sizeof(*device));
    device->type = type;
    for (unsigned i = 0; i < PCI_BARS; i++)
        device->bars[i].mapped = device->bars[i].refused = PCI_UNMAPPED;
    device->capability_free = PCI_HEADER_END;
    device->extended_free = PCI_CONVENTIONAL_END;

    store_le16(device->config + PCI_VENDOR_ID, identity->vendor);
    store_le16(device->config + PCI_DEVICE_ID, identity->device);
    store_le32(device->config + PCI_REVISION, identity->class_code << 8 | identity->revision);
    store_le16(device->config + PCI_SUBSYSTEM_VENDOR, identity->subsystem_vendor);
    store_le16(device->config + PCI_SUBSYSTEM_ID, identity->subsystem);
    device->config[PCI_INTERRUPT_PIN] = identity->interrupt_pin;

    store_le16(device->writable + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY |
                                                   PCI_COMMAND_MASTER | PCI_COMMAND_PARITY |
                                                   PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE);
    store_le16(device->clear_by_one + PCI_STATUS, PCI_STATUS_ERRORS);
    device->writable[PCI_CACHE_LINE] = 0xff;
    device->writable[PCI_INTERRUPT_LINE] = 0xff;
}

static unsigned bar_offset(unsigned index)
{
    return index == PCI_BAR_ROM ? PCI_ROM : PCI_BAR_0 + 4 * index;
}

void pci_add_bar(struct pci_device *device, unsigned index, enum pci_bar_kind kind,
                 bool prefetchable, uint64_t size, const struct mmio_ops *ops, void *opaque)
{
    static const uint8_t type_bits[] = {
        [PCI_BAR_IO] = 0x1, [PCI_BAR_MEMORY32] = 0x0, [PCI_BAR_MEMORY64] = 0x4};
    struct pci_bar *bar = &device->bars[index];
    unsigned offset = bar_offset(index);

    assert(index < PCI_BARS && is_power_of_two(size) && size >= (kind == PCI_BAR_IO ? 4 : 16));
    assert(kind != PCI_BAR_MEMORY64 || index < 5);
    bar->kind = kind;
    bar->prefetchable = prefetchable;
    bar->size = size;
    bar->ops = ops;
    bar->opaque = opaque;
    /* Size bits that do not stick are how software learns the size. */
    store_le32(device->writable + offset, -size);
    if (index == PCI_BAR_ROM) {
        device->writable[offset] |= 1; /* the enable bit */
        return;
    }
    if (kind == PCI_BAR_MEMORY64)
        store_le32(device->writable + offset + 4, -size >> 32);
    device->config[offset] = type_bits[kind] | (prefetchable && kind != PCI_BAR_IO ? 0x8 : 0);
}

void pci_add_memory_bar(struct pci_device *device, unsigned index, enum pci_bar_kind kind,
                        bool prefetchable, uint64_t size, uint8_t *host)
{
    assert(size >= MEMORY_PAGE_SIZE && kind != PCI_BAR_IO);
    pci_add_bar(device, index, kind, prefetchable, size, NULL, NULL);
    device->bars[index].host = host;
}

unsigned pci_add_capability(struct pci_device *device, uint8_t id, unsigned size)
{
    unsigned offset = device->capability_free;

    assert(size >= 2 && offset + size <= PCI_CONVENTIONAL_END);
    device->config[device->capability_last ? device->capability_last + 1u : PCI_CAPABILITIES] =
        offset;
    device->config[PCI_STATUS] |= PCI_STATUS_CAPABILITIES;
    device->config[offset] = id;
    device->capability_last = offset;
    device->capability_free = align_up(offset + size, 4);
    return offset;
}

unsigned pci_add_extended_capability(struct pci_device *device, uint16_t id, uint8_t version,
                                     unsigned size)
{
    unsigned offset = device->extended_free;
    uint8_t *last = device->config + device->extended_last;

    assert(size >= 4 && offset + size <= PCI_CONFIG_SIZE);
    if (device->extended_last)
        store_le32(last, bits_set(load_le32(last), 20, 12, offset));
    store_le32(device->config + offset, id | (uint32_t)version << 16);
    device->extended_last = offset;
    device->extended_free = align_up(offset + size, 4);
    return offset;
}

/* Whether the bridges above let the functions of a bus access memory (section 7.5.1.1.3). */
static bool upstream_master(const struct pci_bus *bus)
{
    return !bus || !bus->bridge || bus->bridge->bus_master;
}

/* What a bridge's command register means for those below it. */
static void master_changed(const struct pci_bus *bus)
{
    for (unsigned devfn = 0; devfn < 256; devfn++) {
        struct pci_device *device = bus->functions[devfn];
        if (!device)
            continue;
        bool master =
            (load_le16(device->config + PCI_COMMAND) & PCI_COMMAND_MASTER) && upstream_master(bus);
        if (master == device->bus_master)
            continue;
        device->bus_master = master;
        if (device->type->command_changed)
            device->type->command_changed(device);
        if (device->secondary)
            master_changed(device->secondary);
    }
}

/* Takes over what the command register says. */
static void command_apply(struct pci_device *device)
{
    uint16_t command = load_le16(device->config + PCI_COMMAND);

    device->bus_master = (command & PCI_COMMAND_MASTER) && upstream_master(device->bus);
    if (device->secondary)
        master_changed(device->secondary);
    device->intx_disabled = command & PCI_COMMAND_INTX_DISABLE;
    if (device->bus) {
        device->bus->host->mapping_stale = true;
        pci_update_intx(device);
    }
    if (device->type->command_changed)
        device->type->command_changed(device);
}

uint32_t pci_config_read(struct pci_device *device, unsigned offset, unsigned size)
{
    if (device->msi)
        pci_messages_refresh(device);
    uint32_t value = load_le(device->config + offset, size);

    if (offset <= PCI_STATUS && offset + size > PCI_STATUS && device->intx_level)
        value |= (uint32_t)PCI_STATUS_INTERRUPT << 8 * (PCI_STATUS - offset);
    return value;
}

void pci_config_write(struct pci_device *device, unsigned offset, uint32_t value, unsigned size)
{
    for (unsigned i = offset; i < offset + size; i++, value >>= 8) {
        uint8_t writable = device->writable[i];
        uint8_t byte = (device->config[i] & ~writable) | (value & writable);
        device->config[i] = byte & ~(value & device->clear_by_one[i]);
    }
    if (offset < PCI_COMMAND + 2 && offset + size > PCI_COMMAND)
        command_apply(device);
    if (offset >= PCI_HEADER_END && (device->msix || device->msi))
        pci_messages_apply(device);
    if (device->bus && offset >= PCI_BAR_0 && offset < PCI_ROM + 4)
        device->bus->host->mapping_stale = true;
}

void pci_device_reset(struct pci_device *device)
{
    struct pci_host *host = device->bus ? device->bus->host : NULL;

    if (!host)
        return;
    pci_set_intx(device, false);
    pthread_mutex_lock(&host->config_lock);
    memcpy(device->config, device->initial, PCI_CONFIG_SIZE);
    command_apply(device);
    pci_messages_reset(device);
    pthread_mutex_unlock(&host->config_lock);
    pci_settle_mappings(host);
}

/* Only bits that the guest can change are taken from a loaded stream. */
void pci_device_state(struct pci_device *device, struct stream *stream)
{
    struct pci_host *host = device->bus->host;
    uint8_t bytes[PCI_CONFIG_SIZE];

    pthread_mutex_lock(&host->config_lock);
    memcpy(bytes, device->config, sizeof(bytes));
    stream_begin(stream, "pci", 1);
    stream_bytes(stream, bytes, sizeof(bytes));
    pci_messages_state(device, stream);
    stream_end(stream);
    if (stream_loading(stream) && !stream_failed(stream)) {
        for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
            uint8_t mask = device->writable[i] | device->clear_by_one[i];
            device->config[i] = (device->config[i] & ~mask) | (bytes[i] & mask);
        }
        command_apply(device);
        pci_messages_apply(device);
    }
    pthread_mutex_unlock(&host->config_lock);
    if (stream_loading(stream))
        pci_settle_mappings(host);
}
