/* Where BARs are in the guest's address space, and keeping the mappings to that. */
#include "pci/internal.h"

/* The GPA that a range at bus address `address` has, or PCI_UNMAPPED if no window shows it. */
static uint64_t window_gpa(const struct pci_host_config *config, enum pci_bar_kind kind,
                           uint64_t address, uint64_t size)
{
    if (!address) /* what a BAR holds before it is assigned */
        return PCI_UNMAPPED;
    if (kind == PCI_BAR_IO)
        return range_fits(address, size, config->io_size) ? config->io_base + address
                                                          : PCI_UNMAPPED;
    if (address >= config->mmio32_base &&
        range_fits(address - config->mmio32_base, size, config->mmio32_size))
        return address;
    if (address >= config->mmio64_base &&
        range_fits(address - config->mmio64_base, size, config->mmio64_size))
        return address;
    return PCI_UNMAPPED;
}

/* Where the registers say that a BAR should be. Config lock held. */
static uint64_t bar_wanted(const struct pci_device *device, unsigned index)
{
    const struct pci_bar *bar = &device->bars[index];
    uint16_t command = load_le16(device->config + PCI_COMMAND);
    unsigned offset = index == PCI_BAR_ROM ? PCI_ROM : PCI_BAR_0 + 4 * index;
    uint64_t address = load_le32(device->config + offset);

    if (bar->kind == PCI_BAR_NONE)
        return PCI_UNMAPPED;
    if (!(command & (bar->kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
        return PCI_UNMAPPED;
    if (index == PCI_BAR_ROM && !(address & 1))
        return PCI_UNMAPPED;
    if (bar->kind == PCI_BAR_MEMORY64)
        address |= (uint64_t)load_le32(device->config + offset + 4) << 32;
    if (!pci_bridges_forward(device->bus, bar->kind == PCI_BAR_IO, address & -bar->size, bar->size))
        return PCI_UNMAPPED;
    return window_gpa(&device->bus->host->config, bar->kind, address & -bar->size, bar->size);
}

/* Goes through the functions of all buses. Config lock held. */
struct place {
    struct pci_bus *bus;
    unsigned devfn; /* the next one to look at */
    struct pci_device *device;
};

static bool next_function(struct place *place)
{
    while (place->bus) {
        while (place->devfn < 256)
            if ((place->device = place->bus->functions[place->devfn++]))
                return true;
        place->bus = place->bus->next;
        place->devfn = 0;
    }
    return false;
}

struct bar_move {
    struct pci_device *device;
    unsigned index;
    uint64_t from, to;
};

/*
 * The next step towards the wanted state: unmappings first, since two BARs may swap their places.
 * Config lock held.
 */
static bool next_move(struct pci_host *host, struct bar_move *move)
{
    bool found = false;

    for (struct place place = {.bus = &host->root}; next_function(&place);) {
        struct pci_device *device = place.device;
        for (unsigned i = 0; i < PCI_BARS; i++) {
            struct pci_bar *bar = &device->bars[i];
            uint64_t wanted = bar->kind == PCI_BAR_NONE ? PCI_UNMAPPED : bar_wanted(device, i);
            if (wanted == bar->mapped)
                continue;
            if (bar->mapped != PCI_UNMAPPED) {
                *move = (struct bar_move){device, i, bar->mapped, PCI_UNMAPPED};
                return true;
            }
            if (!found && wanted != bar->refused) {
                *move = (struct bar_move){device, i, PCI_UNMAPPED, wanted};
                found = true;
            }
        }
    }
    return found;
}

/* No lock held: unmapping waits for register functions, which may be waiting for ours. */
static bool move_bar(struct pci_host *host, const struct bar_move *move)
{
    struct pci_device *device = move->device;
    const struct pci_bar *bar = &device->bars[move->index];

    if (!bar->ops && !bar->host)
        return !device->type->bar_moved ||
               device->type->bar_moved(device, move->index, move->from, move->to);
    if (move->from != PCI_UNMAPPED)
        memory_remove_mmio(host->memory, move->from);
    if (move->to == PCI_UNMAPPED)
        return true;
    if (bar->host)
        return memory_add_device_memory(host->memory, move->to, bar->size, bar->host,
                                        device->type->name, NULL);
    return memory_add_mmio(host->memory, move->to, bar->size, bar->ops, bar->opaque,
                           device->type->name, NULL);
}

static void forget_refusals(struct pci_host *host)
{
    for (struct place place = {.bus = &host->root}; next_function(&place);)
        for (unsigned i = 0; i < PCI_BARS; i++)
            place.device->bars[i].refused = PCI_UNMAPPED;
}

static void apply_locked(struct pci_host *host)
{
    struct bar_move move;

    host->mapping = true;
    while (host->mapping_stale) {
        host->mapping_stale = false;
        forget_refusals(host);
        while (next_move(host, &move)) {
            struct pci_bar *bar = &move.device->bars[move.index];
            pthread_mutex_unlock(&host->config_lock);
            bool moved = move_bar(host, &move);
            pthread_mutex_lock(&host->config_lock);
            bar->mapped = moved ? move.to : PCI_UNMAPPED;
            bar->refused = moved ? PCI_UNMAPPED : move.to;
            if (!moved)
                trace_guest_error("pci", "%s at %02x.%x: BAR %u at %#llx overlaps something",
                                  move.device->type->name, move.device->devfn >> 3,
                                  move.device->devfn & 7, move.index, (unsigned long long)move.to);
        }
    }
    host->mapping = false;
    pthread_cond_broadcast(&host->mapped);
}

void pci_apply_mappings(struct pci_host *host)
{
    pthread_mutex_lock(&host->config_lock);
    /* Waiting here for another hart could wait for ever: it may wait for us to leave the ECAM. */
    if (host->mapping_stale && !host->mapping)
        apply_locked(host);
    pthread_mutex_unlock(&host->config_lock);
}

void pci_settle_mappings(struct pci_host *host)
{
    pthread_mutex_lock(&host->config_lock);
    while (host->mapping)
        pthread_cond_wait(&host->mapped, &host->config_lock);
    apply_locked(host);
    pthread_mutex_unlock(&host->config_lock);
}
