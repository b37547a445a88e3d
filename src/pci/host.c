/* The host bridge: ECAM, the root bus, INTx lines. */
#include <assert.h>
#include <stdlib.h>

#include "pci/internal.h"

#define ECAM_BUS_SHIFT   20
#define ECAM_DEVFN_SHIFT 12

static struct pci_device *find_function(struct pci_host *host, uint64_t offset)
{
    struct pci_bus *bus = pci_find_bus(host, offset >> ECAM_BUS_SHIFT);

    return bus ? bus->functions[(offset >> ECAM_DEVFN_SHIFT) & 0xff] : NULL;
}

static uint64_t ecam_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_host *host = opaque;
    struct pci_device *device;
    unsigned reg = offset % PCI_CONFIG_SIZE;
    uint32_t value = UINT32_MAX; /* an absent function reads as all ones */

    pthread_mutex_lock(&host->config_lock);
    device = find_function(host, offset);
    if (device)
        value = device->type->config_read ? device->type->config_read(device, reg, size)
                                          : pci_config_read(device, reg, size);
    pthread_mutex_unlock(&host->config_lock);
    return value;
}

static void ecam_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pci_host *host = opaque;
    struct pci_device *device;
    unsigned reg = offset % PCI_CONFIG_SIZE;

    pthread_mutex_lock(&host->config_lock);
    device = find_function(host, offset);
    if (device && device->type->config_write)
        device->type->config_write(device, reg, value, size);
    else if (device)
        pci_config_write(device, reg, value, size);
    pthread_mutex_unlock(&host->config_lock);
    pci_apply_mappings(host);
}

static const struct mmio_ops ecam_ops = {
    .read = ecam_read,
    .write = ecam_write,
    .max_size = 4,
    .split = true,
};

/* The line an INTx pin ends in: each bridge above turns the pins by its slot number. */
unsigned pci_intx_line(const struct pci_device *device)
{
    unsigned pin = device->config[PCI_INTERRUPT_PIN] - 1;

    for (; device; device = device->bus->bridge)
        pin += device->devfn >> 3;
    return pin % 4;
}

void pci_update_intx(struct pci_device *device)
{
    struct pci_host *host = device->bus->host;
    unsigned line = pci_intx_line(device);
    bool level;

    if (!device->config[PCI_INTERRUPT_PIN])
        return;
    pthread_mutex_lock(&host->intx_lock);
    level = device->intx_level && !device->intx_disabled && !device->messages;
    if (level != device->intx_sent) {
        device->intx_sent = level;
        host->intx_count[line] += level ? 1 : -1;
        if (host->intx_count[line] == level)
            irq_set(&host->config.intx[line], level);
    }
    pthread_mutex_unlock(&host->intx_lock);
}

void pci_set_intx(struct pci_device *device, bool level)
{
    device->intx_level = level;
    if (device->bus)
        pci_update_intx(device);
}

bool pci_device_attach(struct pci_device *device, struct pci_bus *bus, unsigned devfn,
                       struct error *err)
{
    struct pci_host *host = bus->host;
    bool taken;

    assert(!device->bus && devfn < 256);
    pthread_mutex_lock(&host->config_lock);
    taken = bus->functions[devfn] != NULL;
    if (!taken) {
        device->bus = bus;
        device->devfn = devfn;
        memcpy(device->initial, device->config, PCI_CONFIG_SIZE);
        bus->functions[devfn] = device;
        if (devfn & 7 && bus->functions[devfn & ~7u])
            bus->functions[devfn & ~7u]->config[PCI_HEADER_TYPE] |= PCI_MULTIFUNCTION;
    }
    pthread_mutex_unlock(&host->config_lock);
    return !taken ||
           error_set(err, "PCI slot %u.%u is taken; choose another", devfn >> 3, devfn & 7);
}

void pci_device_detach(struct pci_device *device)
{
    struct pci_bus *bus = device->bus;
    struct pci_host *host;

    if (!bus)
        return;
    host = bus->host;
    pci_set_intx(device, false);
    /* Decoding off unmaps the BARs; the hooks must not put it on again meanwhile. */
    pthread_mutex_lock(&host->config_lock);
    store_le16(device->config + PCI_COMMAND, 0);
    store_le16(device->writable + PCI_COMMAND, 0);
    device->bus_master = false;
    host->mapping_stale = true;
    pthread_mutex_unlock(&host->config_lock);
    pci_settle_mappings(host);
    pthread_mutex_lock(&host->config_lock);
    bus->functions[device->devfn] = NULL;
    device->bus = NULL;
    pthread_mutex_unlock(&host->config_lock);
}

static void host_reset(struct device *base)
{
    pci_device_reset(&container_of(base, struct pci_host, base)->bridge);
}

static void host_state(struct device *base, struct stream *stream)
{
    pci_device_state(&container_of(base, struct pci_host, base)->bridge, stream);
}

static void host_free(struct pci_host *host)
{
    pthread_mutex_destroy(&host->config_lock);
    pthread_mutex_destroy(&host->intx_lock);
    pthread_cond_destroy(&host->mapped);
    device_finish(&host->base);
    free(host);
}

static void host_remove(struct device *base)
{
    struct pci_host *host = container_of(base, struct pci_host, base);

    memory_remove_mmio(host->memory, host->config.ecam_base);
    pci_device_detach(&host->bridge);
    host_free(host);
}

static const struct device_type host_type = {
    .name = "pci-host",
    .reset = host_reset,
    .state = host_state,
    .remove = host_remove,
};

static const struct pci_device_type bridge_type = {.name = "pci-host-bridge"};

static const struct pci_identity bridge_identity = {
    .vendor = 0x1b36,
    .device = 0x0008,
    .subsystem_vendor = 0x1af4,
    .subsystem = 0x1100,
    .class_code = 0x060000,
};

struct pci_host *pci_host_create(struct memory *memory, const struct pci_host_config *config,
                                 struct error *err)
{
    struct pci_host *host = xcalloc(1, sizeof(*host));

    device_init(&host->base, &host_type, "pci");
    host->memory = memory;
    host->config = *config;
    pthread_mutex_init(&host->config_lock, NULL);
    pthread_mutex_init(&host->intx_lock, NULL);
    pthread_cond_init(&host->mapped, NULL);
    host->root.host = host;
    pci_device_init(&host->bridge, &bridge_type, &bridge_identity);
    pci_device_attach(&host->bridge, &host->root, PCI_DEVFN(0, 0), NULL);
    if (memory_add_mmio(memory, config->ecam_base, config->ecam_size, &ecam_ops, host, "pci-ecam",
                        err))
        return host;
    host_free(host);
    return NULL;
}

struct device *pci_host_device(struct pci_host *host)
{
    return &host->base;
}

struct pci_bus *pci_host_bus(struct pci_host *host)
{
    return &host->root;
}

struct memory *pci_bus_memory(struct pci_bus *bus)
{
    return bus->host->memory;
}

bool pci_bus_has_messages(const struct pci_bus *bus)
{
    return bus->host->config.messages;
}
