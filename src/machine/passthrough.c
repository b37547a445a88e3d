/*
 * Devices that are passed through: opened before there is RAM, since RAM must lie where the IOMMU
 * can map it, and put on the bus when the board is there.
 */
#include <stdlib.h>

#include "jit/jit.h"
#include "machine/board.h"
#include "machine/internal.h"
#include "passthrough/passthrough.h"
#include "passthrough/vfio_device.h"

static bool open_device(struct machine *machine, const struct machine_passthrough *wanted,
                        struct error *err)
{
    struct pci_address address;
    if (!pci_address_parse(wanted->address, &address, err))
        return false;
    struct passthrough_device *device =
        passthrough_manager_find(machine->host_devices, &address, err);
    if (!device)
        return false;
    for (unsigned i = 0; i < machine->vfio_count; i++)
        if (!strcmp(machine->vfio[i]->name, device->info.name))
            return error_set(err, "%s is given twice", device->info.name);
    struct vfio *vfio =
        vfio_kernel_open(machine->vfio_container, machine->host_devices, device, err);
    if (!vfio)
        return false;
    machine->vfio[machine->vfio_count++] = vfio;
    return true;
}

/* What stands in the way of a device is told before VFIO itself is asked for. */
bool passthrough_open(struct machine *machine, struct error *err)
{
    const struct machine_config *config = &machine->config;
    if (!config->passthrough_count)
        return true;
    machine->host_devices = passthrough_manager_create(NULL, err);
    if (!machine->host_devices || !passthrough_manager_scan(machine->host_devices, err))
        return false;
    for (unsigned i = 0; i < config->passthrough_count; i++) {
        struct pci_address address;
        struct passthrough_device *device = NULL;
        if (pci_address_parse(config->passthrough[i].address, &address, err))
            device = passthrough_manager_find(machine->host_devices, &address, err);
        if (!device || !vfio_kernel_check(machine->host_devices, device, err))
            return false;
    }
    machine->vfio_container = vfio_container_create(err);
    for (unsigned i = 0; machine->vfio_container && i < config->passthrough_count; i++)
        if (!open_device(machine, &config->passthrough[i], err))
            return false;
    return machine->vfio_container;
}

bool passthrough_add_ram(struct machine *machine, struct error *err)
{
    uint64_t size = machine->config.memory_size;
    struct vfio_range usable[VFIO_RANGES_MAX], ram[VFIO_RANGES_MAX];
    size_t count = 0, ram_count;
    if (!machine->vfio_count)
        return memory_add_ram(machine->memory, BOARD_RAM_BASE, size, err);
    for (unsigned i = 0; i < machine->vfio_count; i++) {
        struct vfio_range others[VFIO_RANGES_MAX];
        size_t other_count;
        machine->vfio[i]->ops->usable(machine->vfio[i], i ? others : usable,
                                      i ? &other_count : &count);
        if (i)
            dma_intersect(usable, &count, others, other_count);
    }
    if (!dma_layout(usable, count, BOARD_RAM_BASE, size, ram, &ram_count, err))
        return false;
    for (size_t i = 0; i < ram_count; i++)
        if (!memory_add_ram(machine->memory, ram[i].start, ram[i].size, err))
            return false;
    return true;
}

/* --- On the bus --------------------------------------------------------------------------------
 */

static void device_event(void *opaque, const char *name, enum vfio_event event)
{
    static const char *const texts[] = {
        [VFIO_EVENT_REQUESTED] = "the host wants it back",
        [VFIO_EVENT_FAILED] = "it reports an error that it does not recover from",
    };
    log_error("%s: %s; the machine ends", name, texts[event]);
    machine_request(opaque, REQUEST_END, MACHINE_STATUS_FAILURE);
}

static void intx_ended(void *opaque, unsigned source)
{
    struct machine *machine = opaque;
    for (unsigned i = 0; i < MACHINE_MAX_PASSTHROUGH && machine->vfio_devices[i]; i++)
        vfio_device_end_intx(machine->vfio_devices[i], source - BOARD_IRQ_PCI);
}

static void listen_for_intx(struct machine *machine)
{
    for (unsigned source = BOARD_IRQ_PCI; source < BOARD_IRQ_PCI + 4; source++)
        if (machine->plic)
            plic_on_complete(machine->plic, source, intx_ended, machine);
        else
            aplic_on_reevaluate(machine->aplic, source, intx_ended, machine);
}

/* A PCI Express endpoint gets a port of its own, others a slot of the root bus. */
static bool place(struct machine *machine, struct vfio_device *device, unsigned number, bool map,
                  struct error *err)
{
    struct pci_bus *bus = pci_host_bus(machine->pci);
    if (machine->next_pci_slot >= PCI_SLOTS)
        return error_set(err, "%s: the PCI bus is full (%u slots)", vfio_device_base(device)->name,
                         PCI_SLOTS);
    unsigned devfn = PCI_DEVFN(machine->next_pci_slot++, 0);
    if (vfio_device_needs_port(device)) {
        struct pci_root_port *port = pci_root_port_create(bus, devfn, number + 1, err);
        if (!port)
            return false;
        board_add_device(machine, pci_root_port_device(port));
        bus = pci_root_port_bus(port);
        devfn = 0;
    }
    return vfio_device_attach(device, bus, devfn, map, err);
}

static bool attach_one(struct machine *machine, unsigned number, struct error *err)
{
    const struct machine_passthrough *wanted = &machine->config.passthrough[number];
    struct vfio *vfio = machine->vfio[number];
    const struct vfio_device_config config = {
        .vfio = vfio,
        .loop = machine->loop,
        .memory = machine->memory,
        .messages = machine->aia,
        .rom_file = wanted->rom,
        .no_mmap = wanted->no_mmap,
        .event = device_event,
        .opaque = machine,
    };
    bool map = true;
    for (unsigned i = 0; i < number; i++)
        map &= machine->vfio[i]->space != vfio->space;
    struct vfio_device *device = vfio_device_create(&config, err);
    machine->vfio[number] = device ? vfio : NULL;
    if (!device)
        return false;
    if (!place(machine, device, number, map, err)) {
        vfio_device_base(device)->type->remove(vfio_device_base(device));
        machine->vfio[number] = NULL;
        return false;
    }
    machine->vfio_devices[number] = device;
    board_add_device(machine, vfio_device_base(device));
    return true;
}

bool passthrough_attach_all(struct machine *machine, struct error *err)
{
    if (!machine->vfio_count)
        return true;
    for (unsigned i = 0; i < machine->vfio_count; i++)
        if (!attach_one(machine, i, err))
            return error_prefix(err, "--passthrough");
    listen_for_intx(machine);
    if (machine->jit)
        jit_expect_silent_writes(machine->jit);
    return true;
}

void passthrough_close(struct machine *machine)
{
    for (unsigned i = 0; i < machine->vfio_count; i++)
        if (machine->vfio[i] && !machine->vfio_devices[i])
            machine->vfio[i]->ops->close(machine->vfio[i]);
    machine->vfio_count = 0;
    vfio_container_destroy(machine->vfio_container);
    machine->vfio_container = NULL;
    passthrough_manager_destroy(machine->host_devices);
    machine->host_devices = NULL;
}
