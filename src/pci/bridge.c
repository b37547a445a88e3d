/*
 * PCI-to-PCI bridges: bus numbers and windows that the guest programs (PCI Express Base 6.0,
 * section 7.5.1.3), and the root port, a bridge with a slot.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "pci/internal.h"

/* --- Numbers and windows ---------------------------------------------------------------------- */

static uint8_t secondary_number(const struct pci_device *bridge)
{
    return bridge->config[PCI_SECONDARY_BUS];
}

/* The bus below `bus` on the way to number; NULL: none of its bridges forwards it. */
static struct pci_bus *bus_towards(struct pci_host *host, const struct pci_bus *bus,
                                   unsigned number)
{
    for (struct pci_bus *below = host->root.next; below; below = below->next) {
        const struct pci_device *bridge = below->bridge;
        if (bridge->bus == bus && secondary_number(bridge) && number >= secondary_number(bridge) &&
            number <= bridge->config[PCI_SUBORDINATE_BUS])
            return below;
    }
    return NULL;
}

/* Each step leads further from the root, so that numbers that make no sense end somewhere. */
struct pci_bus *pci_find_bus(struct pci_host *host, unsigned number)
{
    struct pci_bus *bus = &host->root;

    if (number == 0)
        return bus;
    while ((bus = bus_towards(host, bus, number)))
        if (secondary_number(bus->bridge) == number)
            return bus;
    return NULL;
}

struct window {
    uint64_t base, limit; /* inclusive; base > limit: closed */
};

static struct window io_window(const uint8_t *config)
{
    uint64_t upper_base = load_le16(config + PCI_IO_BASE_UPPER);
    uint64_t upper_limit = load_le16(config + PCI_IO_LIMIT_UPPER);

    return (struct window){
        .base = upper_base << 16 | (config[PCI_IO_BASE] & 0xf0U) << 8,
        .limit = upper_limit << 16 | (config[PCI_IO_LIMIT] & 0xf0U) << 8 | 0xfff,
    };
}

static struct window memory_window(const uint8_t *config)
{
    return (struct window){
        .base = (uint64_t)(load_le16(config + PCI_MEMORY_BASE) & 0xfff0) << 16,
        .limit = (uint64_t)(load_le16(config + PCI_MEMORY_LIMIT) & 0xfff0) << 16 | 0xfffff,
    };
}

static struct window prefetchable_window(const uint8_t *config)
{
    uint64_t upper_base = load_le32(config + PCI_PREFETCH_BASE_UPPER);
    uint64_t upper_limit = load_le32(config + PCI_PREFETCH_LIMIT_UPPER);

    return (struct window){
        .base = upper_base << 32 | (uint64_t)(load_le16(config + PCI_PREFETCH_BASE) & 0xfff0) << 16,
        .limit = upper_limit << 32 |
                 (uint64_t)(load_le16(config + PCI_PREFETCH_LIMIT) & 0xfff0) << 16 | 0xfffff,
    };
}

static bool is_inside(struct window window, uint64_t address, uint64_t size)
{
    return address >= window.base && address <= window.limit && size - 1 <= window.limit - address;
}

static bool bridge_forwards(const struct pci_device *bridge, bool io, uint64_t address,
                            uint64_t size)
{
    const uint8_t *config = bridge->config;

    if (!(load_le16(config + PCI_COMMAND) & (io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
        return false;
    if (io)
        return is_inside(io_window(config), address, size);
    return is_inside(memory_window(config), address, size) ||
           is_inside(prefetchable_window(config), address, size);
}

bool pci_bridges_forward(const struct pci_bus *bus, bool io, uint64_t address, uint64_t size)
{
    for (const struct pci_device *bridge = bus->bridge; bridge; bridge = bridge->bus->bridge)
        if (!bridge_forwards(bridge, io, address, size))
            return false;
    return true;
}

/* --- Life of a bridge --------------------------------------------------------------------------
 */

void pci_bridge_init(struct pci_device *device, const struct pci_device_type *type,
                     const struct pci_identity *identity)
{
    uint8_t *config = device->config, *writable = device->writable;

    pci_device_init(device, type, identity);
    config[PCI_HEADER_TYPE] = PCI_HEADER_BRIDGE;
    memset(config + PCI_SUBSYSTEM_VENDOR, 0, 4); /* the prefetchable limit is here */
    memset(writable + PCI_PRIMARY_BUS, 0xff, 3);

    config[PCI_IO_BASE] = config[PCI_IO_LIMIT] = 1; /* 32-bit addresses */
    writable[PCI_IO_BASE] = writable[PCI_IO_LIMIT] = 0xf0;
    memset(writable + PCI_IO_BASE_UPPER, 0xff, 4); /* and the limit's */
    store_le16(writable + PCI_MEMORY_BASE, 0xfff0);
    store_le16(writable + PCI_MEMORY_LIMIT, 0xfff0);
    store_le16(config + PCI_PREFETCH_BASE, 1); /* 64-bit addresses */
    store_le16(config + PCI_PREFETCH_LIMIT, 1);
    store_le16(writable + PCI_PREFETCH_BASE, 0xfff0);
    store_le16(writable + PCI_PREFETCH_LIMIT, 0xfff0);
    memset(writable + PCI_PREFETCH_BASE_UPPER, 0xff, 8); /* and the limit's */
    store_le16(writable + PCI_BRIDGE_CONTROL, PCI_BRIDGE_PARITY | PCI_BRIDGE_SERR);
    store_le16(device->clear_by_one + PCI_SECONDARY_STATUS, PCI_STATUS_ERRORS);
}

/* Adds the bridge's secondary bus to the host's. */
static void bus_add(struct pci_bus *bus, struct pci_device *bridge)
{
    struct pci_host *host = bridge->bus->host;

    *bus = (struct pci_bus){.host = host, .bridge = bridge};
    pthread_mutex_lock(&host->config_lock);
    bridge->secondary = bus;
    bus->next = host->root.next;
    host->root.next = bus;
    pthread_mutex_unlock(&host->config_lock);
}

static void bus_remove(struct pci_bus *bus)
{
    struct pci_host *host = bus->host;
    struct pci_bus *previous = &host->root;

    pthread_mutex_lock(&host->config_lock);
    for (unsigned devfn = 0; devfn < 256; devfn++)
        assert(!bus->functions[devfn]);
    while (previous->next != bus)
        previous = previous->next;
    previous->next = bus->next;
    bus->bridge->secondary = NULL;
    pthread_mutex_unlock(&host->config_lock);
}

/* --- Root port ---------------------------------------------------------------------------------
 */

/* The PCI Express capability (section 7.5.3). */
enum {
    EXPRESS_FLAGS = 0x02,
    EXPRESS_DEVICE = 0x04,
    EXPRESS_DEVICE_CONTROL = 0x08,
    EXPRESS_DEVICE_STATUS = 0x0a,
    EXPRESS_LINK = 0x0c,
    EXPRESS_LINK_CONTROL = 0x10,
    EXPRESS_LINK_STATUS = 0x12,
    EXPRESS_SLOT = 0x14,
    EXPRESS_SLOT_CONTROL = 0x18,
    EXPRESS_SLOT_STATUS = 0x1a,
    EXPRESS_LINK_2 = 0x2c,
    EXPRESS_LINK_CONTROL_2 = 0x30,
    EXPRESS_SIZE = 0x3c,
};

#define EXPRESS_FLAGS_VALUE  (2 | 4 << 4 | 1 << 8) /* version 2, root port, with a slot */
#define EXPRESS_ROLE_ERRORS  0x8000                /* role-based error reporting */
#define EXPRESS_ERRORS       0xf                   /* of device control and status */
#define LINK_SPEED           4                     /* 16 GT/s */
#define LINK_WIDTH           16
#define LINK_ACTIVE_REPORTED BIT(20)
#define LINK_STATUS_ACTIVE   0x2000
#define LINK_SPEEDS          0x1e /* 2.5 to 16 GT/s */
#define SLOT_PRESENT         0x40

struct pci_root_port {
    struct device base;
    struct pci_device pci;
    struct pci_bus bus;
    struct pci_msi msi;
    unsigned express; /* offset of the capability */
};

/* Link and slot tell what is attached just now. */
static uint32_t port_config_read(struct pci_device *pci, unsigned offset, unsigned size)
{
    struct pci_root_port *port = container_of(pci, struct pci_root_port, pci);
    uint8_t *express = pci->config + port->express;
    bool present = port->bus.functions[0];
    uint16_t link = LINK_SPEED | LINK_WIDTH << 4 | LINK_STATUS_ACTIVE;

    store_le16(express + EXPRESS_LINK_STATUS, present ? link : 0);
    store_le16(express + EXPRESS_SLOT_STATUS, present ? SLOT_PRESENT : 0);
    return pci_config_read(pci, offset, size);
}

static const struct pci_device_type port_pci_type = {
    .name = "pcie-root-port",
    .config_read = port_config_read,
};

static const struct pci_identity port_identity = {
    .vendor = 0x1b36,
    .device = 0x000c,
    .class_code = 0x060400,
    .interrupt_pin = 1,
};

static void add_express_capability(struct pci_root_port *port, unsigned slot)
{
    uint8_t *config, *writable;

    port->express = pci_add_capability(&port->pci, PCI_CAPABILITY_EXPRESS, EXPRESS_SIZE);
    config = port->pci.config + port->express;
    writable = port->pci.writable + port->express;
    store_le16(config + EXPRESS_FLAGS, EXPRESS_FLAGS_VALUE);
    store_le32(config + EXPRESS_DEVICE, EXPRESS_ROLE_ERRORS);
    store_le16(writable + EXPRESS_DEVICE_CONTROL, EXPRESS_ERRORS);
    store_le16(port->pci.clear_by_one + port->express + EXPRESS_DEVICE_STATUS, EXPRESS_ERRORS);
    store_le32(config + EXPRESS_LINK,
               LINK_SPEED | LINK_WIDTH << 4 | LINK_ACTIVE_REPORTED | (uint32_t)slot << 24);
    store_le16(writable + EXPRESS_LINK_CONTROL, 0x00c0); /* common clock, extended synch */
    store_le32(config + EXPRESS_SLOT, (uint32_t)slot << 19);
    store_le32(config + EXPRESS_LINK_2, LINK_SPEEDS);
    store_le16(config + EXPRESS_LINK_CONTROL_2, LINK_SPEED);
    store_le16(writable + EXPRESS_LINK_CONTROL_2, 0xf);
}

static void port_reset(struct device *base)
{
    pci_device_reset(&container_of(base, struct pci_root_port, base)->pci);
}

static void port_state(struct device *base, struct stream *stream)
{
    pci_device_state(&container_of(base, struct pci_root_port, base)->pci, stream);
}

static void port_free(struct pci_root_port *port)
{
    if (port->pci.msi)
        pci_msi_finish(&port->msi);
    device_finish(&port->base);
    free(port);
}

static void port_remove(struct device *base)
{
    struct pci_root_port *port = container_of(base, struct pci_root_port, base);

    bus_remove(&port->bus);
    pci_device_detach(&port->pci);
    port_free(port);
}

static const struct device_type port_type = {
    .name = "pcie-root-port",
    .reset = port_reset,
    .state = port_state,
    .remove = port_remove,
};

struct pci_root_port *pci_root_port_create(struct pci_bus *bus, unsigned devfn, unsigned slot,
                                           struct error *err)
{
    struct pci_root_port *port = xcalloc(1, sizeof(*port));
    char name[16];

    assert(slot <= PCI_ROOT_PORT_SLOT_MAX);
    snprintf(name, sizeof(name), "port%u", slot);
    device_init(&port->base, &port_type, name);
    pci_bridge_init(&port->pci, &port_pci_type, &port_identity);
    add_express_capability(port, slot);
    if (pci_bus_has_messages(bus))
        pci_msi_init(&port->msi, &port->pci, 1);
    if (!pci_device_attach(&port->pci, bus, devfn, err)) {
        error_prefix(err, "%s", name);
        port_free(port);
        return NULL;
    }
    bus_add(&port->bus, &port->pci);
    return port;
}

struct device *pci_root_port_device(struct pci_root_port *port)
{
    return &port->base;
}

struct pci_bus *pci_root_port_bus(struct pci_root_port *port)
{
    return &port->bus;
}
