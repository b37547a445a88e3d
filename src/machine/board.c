/*
 * Puts the board together: devices at the places of board.h, lines between them, disks and cards
 * as the configuration asks.
 */
#include <assert.h>
#include <linux/input-event-codes.h>
#include <stdio.h>
#include <stdlib.h>

#include "machine/board.h"
#include "machine/internal.h"
#include "machine/machine.h"
#include "virtio/blk.h"
#include "virtio/console.h"
#include "virtio/input.h"
#include "virtio/net.h"
#include "virtio/p9.h"
#include "virtio/rng.h"

/* The 64-bit PCI window: large enough for a 32 GiB BAR beside others, below 2^39 for IOMMUs with
 * 39-bit addresses where RAM leaves room there. */
#define PCI_WINDOW64_ALIGN (UINT64_C(64) << 30)
#define PCI_WINDOW64_SIZE  (UINT64_C(128) << 30)

void board_add_device(struct machine *machine, struct device *device)
{
    assert(machine->device_count < BOARD_DEVICES_MAX);
    machine->devices[machine->device_count++] = device;
}

static bool map(struct machine *machine, struct board_range range, uint64_t size,
                const struct mmio_ops *ops, void *opaque, struct device *device, struct error *err)
{
    board_add_device(machine, device);
    return memory_add_mmio(machine->memory, range.base, size, ops, opaque, device->name, err);
}

/* --- Interrupt controllers -----------------------------------------------------------------------
 */

/* stimecmp is compared with the same clock as mtimecmp. */
static void time_changed(void *opaque)
{
    struct machine *machine = opaque;
    for (unsigned i = 0; i < machine->cpu_count; i++)
        hart_clock_changed(machine->cpus[i].hart);
}

static bool add_plic(struct machine *machine, struct irq_line (*lines)[MACHINE_MAX_CPUS],
                     struct error *err)
{
    machine->plic = plic_create("plic", &(struct plic_config){
                                            .harts = machine->cpu_count,
                                            .sources = BOARD_IRQ_SOURCES,
                                            .machine = lines[0],
                                            .supervisor = lines[1],
                                        });
    return map(machine, board_map.plic, PLIC_SIZE, &plic_ops, machine->plic,
               plic_device(machine->plic), err);
}

/* The interrupt files of one privilege. M-mode's have no address where there is no M-mode
 * software. */
static bool add_imsic(struct machine *machine, enum privilege privilege, struct error *err)
{
    bool supervisor = privilege == PRIVILEGE_SUPERVISOR;
    struct irq_line notify[MACHINE_MAX_CPUS];
    for (unsigned i = 0; i < machine->cpu_count; i++)
        notify[i] = hart_look_line(machine->cpus[i].hart);
    struct imsic *imsic =
        imsic_create(supervisor ? "imsic-s" : "imsic-m",
                     &(struct imsic_config){.harts = machine->cpu_count, .notify = notify});
    board_add_device(machine, imsic_device(imsic));
    for (unsigned i = 0; i < machine->cpu_count; i++) {
        struct interrupt_file file = imsic_file(imsic, i);
        hart_set_interrupt_file(machine->cpus[i].hart, privilege, &file);
    }
    if (!supervisor && machine->builtin_sbi)
        return true;
    struct board_range page = board_map.imsic[supervisor];
    return memory_add_messages(machine->memory, page.base, page.size * machine->cpu_count,
                               &imsic_ops, imsic, imsic_device(imsic)->name, err);
}

static bool add_aplic(struct machine *machine, struct error *err)
{
    machine->aplic = aplic_create("aplic", &(struct aplic_config){
                                               .harts = machine->cpu_count,
                                               .sources = BOARD_IRQ_SOURCES_AIA,
                                               .messages = machine->memory,
                                               .delegated = machine->builtin_sbi,
                                               .machine_files = board_map.imsic[0].base,
                                               .supervisor_files = board_map.imsic[1].base,
                                           });
    struct device *device = aplic_device(machine->aplic);
    board_add_device(machine, device);
    for (unsigned i = machine->builtin_sbi ? 1 : 0; i < 2; i++)
        if (!memory_add_mmio(machine->memory, board_map.aplic[i].base, APLIC_SIZE, &aplic_ops,
                             aplic_domain(machine->aplic, i), i ? "aplic-s" : "aplic-m", err))
            return false;
    return true;
}

/* The input of the board's controller of wires. */
static struct irq_line line(struct machine *machine, unsigned source)
{
    return machine->plic ? plic_line(machine->plic, source) : aplic_line(machine->aplic, source);
}

static bool add_interrupt_controllers(struct machine *machine, struct error *err)
{
    static const enum interrupt interrupts[4] = {INTERRUPT_MSI, INTERRUPT_MTI, INTERRUPT_MEI,
                                                 INTERRUPT_SEI};
    struct irq_line lines[4][MACHINE_MAX_CPUS];
    for (unsigned kind = 0; kind < 4; kind++)
        for (unsigned i = 0; i < machine->cpu_count; i++)
            lines[kind][i] = hart_interrupt_line(machine->cpus[i].hart, interrupts[kind]);

    machine->aclint = aclint_create("aclint", &(struct aclint_config){
                                                  .loop = machine->loop,
                                                  .clock = &machine->clock,
                                                  .harts = machine->cpu_count,
                                                  .software = lines[0],
                                                  .timer = lines[1],
                                                  .time_changed = time_changed,
                                                  .opaque = machine,
                                              });
    if (!map(machine, board_map.aclint, ACLINT_SIZE, &aclint_ops, machine->aclint,
             aclint_device(machine->aclint), err))
        return false;
    if (!machine->aia)
        return add_plic(machine, lines + 2, err);
    return add_imsic(machine, PRIVILEGE_MACHINE, err) &&
           add_imsic(machine, PRIVILEGE_SUPERVISOR, err) && add_aplic(machine, err);
}

/* --- Platform devices ----------------------------------------------------------------------------
 */

static void escape_key(void *opaque, char key)
{
    struct machine *machine = opaque;
    if (machine->escape)
        machine->escape(machine->escape_opaque, key);
}

void machine_set_escape(struct machine *machine, void (*escape)(void *opaque, char key),
                        void *opaque)
{
    machine->escape = escape;
    machine->escape_opaque = opaque;
}

static bool add_serial(struct machine *machine, struct error *err)
{
    const char *specification = machine->config.serial ? machine->config.serial : "none";
    const struct chardev_owner owner = {.escape = escape_key, .opaque = machine};
    machine->serial = chardev_create(machine->loop, specification, &owner, err);
    if (!machine->serial)
        return error_prefix(err, "--serial");
    machine->uart = uart_create("serial0", &(struct uart_config){
                                               .loop = machine->loop,
                                               .chardev = machine->serial,
                                               .irq = line(machine, BOARD_IRQ_UART),
                                           });
    return map(machine, board_map.uart, UART_SIZE, &uart_ops, machine->uart,
               uart_device(machine->uart), err);
}

static void finished(void *opaque, enum finisher_action action, unsigned code)
{
    static const uint32_t requests[] = {
        [FINISHER_PASS] = REQUEST_END,
        [FINISHER_FAIL] = REQUEST_END,
        [FINISHER_RESET] = REQUEST_RESET,
    };
    machine_request(opaque, requests[action] | REQUEST_BY_GUEST, code > 255 ? 255 : (int)code);
}

static bool add_fw_cfg(struct machine *machine, struct error *err)
{
    machine->fw_cfg = fw_cfg_create("fw_cfg", &(struct fw_cfg_config){.memory = machine->memory});
    uint8_t cpus[2];
    store_le16(cpus, machine->cpu_count);
    fw_cfg_set_item(machine->fw_cfg, FW_CFG_CPUS, cpus, sizeof(cpus));
    return map(machine, board_map.fw_cfg, FW_CFG_SIZE, &fw_cfg_ops, machine->fw_cfg,
               fw_cfg_device(machine->fw_cfg), err);
}

static bool add_flash(struct machine *machine, struct error *err)
{
    for (unsigned i = 0; i < MACHINE_MAX_FLASH; i++) {
        const struct machine_flash *bank = &machine->config.flash[i];
        char name[16];
        snprintf(name, sizeof(name), "flash%u", i);
        struct flash_config config = {
            .memory = machine->memory,
            .base = board_map.flash[i].base,
            .size = board_map.flash[i].size,
            .file = bank->path,
            .read_only = bank->read_only,
        };
        machine->flash[i] = flash_create(name, &config, err);
        if (!machine->flash[i])
            return error_prefix(err, "--flash");
        board_add_device(machine, flash_device(machine->flash[i]));
    }
    return true;
}

static bool add_platform_devices(struct machine *machine, struct error *err)
{
    struct finisher *finisher = finisher_create(
        "finisher", &(struct finisher_config){.finished = finished, .opaque = machine});
    struct rtc *rtc = rtc_create(
        "rtc", &(struct rtc_config){.loop = machine->loop, .irq = line(machine, BOARD_IRQ_RTC)});
    return map(machine, board_map.finisher, FINISHER_SIZE, &finisher_ops, finisher,
               finisher_device(finisher), err) &&
           map(machine, board_map.rtc, RTC_SIZE, &rtc_ops, rtc, rtc_device(rtc), err) &&
           add_serial(machine, err) && add_fw_cfg(machine, err) && add_flash(machine, err);
}

/* --- PCI and virtio ------------------------------------------------------------------------------
 */

static bool add_buses(struct machine *machine, struct error *err)
{
    size_t count;
    const struct memory_ram *ram = memory_ram_regions(machine->memory, &count);
    uint64_t ram_end = ram[count - 1].base + ram[count - 1].size;
    machine->pci_window64_base = align_up(ram_end, PCI_WINDOW64_ALIGN);
    machine->pci_window64_size = PCI_WINDOW64_SIZE;
    struct pci_host_config config = {
        .ecam_base = board_map.pci_ecam.base,
        .ecam_size = board_map.pci_ecam.size,
        .io_base = board_map.pci_io.base,
        .io_size = board_map.pci_io.size,
        .mmio32_base = board_map.pci_mmio32.base,
        .mmio32_size = board_map.pci_mmio32.size,
        .mmio64_base = machine->pci_window64_base,
        .mmio64_size = machine->pci_window64_size,
        .messages = machine->aia,
    };
    memory_add_background(machine->memory, config.mmio32_base, config.mmio32_size);
    memory_add_background(machine->memory, config.mmio64_base, config.mmio64_size);
    for (unsigned i = 0; i < 4; i++)
        config.intx[i] = line(machine, BOARD_IRQ_PCI + i);
    machine->pci = pci_host_create(machine->memory, &config, err);
    if (!machine->pci)
        return false;
    board_add_device(machine, pci_host_device(machine->pci));

    for (unsigned i = 0; i < BOARD_VIRTIO_SLOTS; i++) {
        char name[16];
        snprintf(name, sizeof(name), "virtio-mmio%u", i);
        machine->virtio_slots[i] = virtio_mmio_create(
            machine->memory, board_map.virtio_mmio.base + i * board_map.virtio_mmio.size,
            line(machine, BOARD_IRQ_VIRTIO + i), name, err);
        if (!machine->virtio_slots[i])
            return false;
        board_add_device(machine, virtio_mmio_device(machine->virtio_slots[i]));
    }
    return true;
}

/* Attaches to the next free place of the bus and lists the device; takes ownership in any case. */
static bool attach(struct machine *machine, struct virtio_device *device, enum machine_bus bus,
                   struct error *err)
{
    if (!device)
        return false;
    bool ok;
    if (bus == MACHINE_BUS_PCI)
        ok = machine->next_pci_slot < PCI_SLOTS
                 ? virtio_pci_attach(pci_host_bus(machine->pci), machine->next_pci_slot++, device,
                                     err)
                 : error_set(err, "%s: the PCI bus is full (%u slots)", device->base.name,
                             PCI_SLOTS);
    else
        ok = machine->next_mmio_slot < BOARD_VIRTIO_SLOTS
                 ? virtio_mmio_attach(machine->virtio_slots[machine->next_mmio_slot++], device, err)
                 : error_set(err, "%s: all %u virtio-mmio slots are taken: use bus=pci",
                             device->base.name, BOARD_VIRTIO_SLOTS);
    if (!ok) {
        device->base.type->remove(&device->base);
        return false;
    }
    board_add_device(machine, &device->base);
    return true;
}

bool board_attach(struct machine *machine, struct virtio_device *device, struct error *err)
{
    return attach(machine, device, MACHINE_BUS_PCI, err);
}

static bool add_disks(struct machine *machine, struct error *err)
{
    for (unsigned i = 0; i < machine->config.disk_count; i++) {
        const struct machine_disk *disk = &machine->config.disks[i];
        char name[16];
        snprintf(name, sizeof(name), "disk%u", i);
        struct block_config config = {
            .path = disk->path,
            .read_only = disk->read_only,
            .snapshot = disk->snapshot,
        };
        struct virtio_device *device = virtio_blk_create(name, &config, machine->loop, err);
        if (!device)
            return error_prefix(err, "--disk");
        if (!attach(machine, device, disk->bus, err))
            return false;
    }
    return true;
}

static bool add_nets(struct machine *machine, struct error *err)
{
    for (unsigned i = 0; i < machine->config.net_count; i++) {
        char name[16];
        snprintf(name, sizeof(name), "net%u", i);
        struct virtio_device *device =
            virtio_net_create(name, machine->config.nets[i].backend, i, machine->loop, err);
        if (!device)
            return error_prefix(err, "--net");
        if (!attach(machine, device, machine->config.nets[i].bus, err))
            return false;
    }
    return true;
}

static bool add_shares(struct machine *machine, struct error *err)
{
    for (unsigned i = 0; i < machine->config.share_count; i++) {
        const struct machine_share *share = &machine->config.shares[i];
        char name[16];
        snprintf(name, sizeof(name), "share%u", i);
        struct virtio_p9_config config = {
            .directory = share->directory,
            .tag = share->tag ? share->tag : "host",
            .read_only = share->read_only,
        };
        struct virtio_device *device = virtio_p9_create(name, &config, machine->loop, err);
        if (!device)
            return error_prefix(err, "--share");
        if (!attach(machine, device, share->bus, err))
            return false;
    }
    return true;
}

static bool add_console(struct machine *machine, struct error *err)
{
    if (!machine->config.console)
        return true;
    const struct chardev_owner owner = {.escape = escape_key, .opaque = machine};
    machine->console = chardev_create(machine->loop, machine->config.console, &owner, err);
    if (!machine->console)
        return error_prefix(err, "--console");
    return attach(machine, virtio_console_create("console0", machine->console, machine->loop),
                  MACHINE_BUS_PCI, err);
}

/* A key that logind, acpid and the like shut down at: this board has no ACPI. */
static bool add_power_button(struct machine *machine, struct error *err)
{
    static const uint16_t keys[] = {KEY_POWER};
    struct virtio_input_config config = {
        .label = "Power Button", .keys = keys, .key_count = ARRAY_SIZE(keys)};
    machine->power_button = virtio_input_create("power0", &config, machine->loop);
    return attach(machine, machine->power_button, MACHINE_BUS_PCI, err);
}

bool board_create(struct machine *machine, struct error *err)
{
    machine->next_pci_slot = 1; /* the host bridge is in slot 0 */
    machine->boot_rom = xcalloc(1, board_map.boot_rom.size);
    return memory_add_rom(machine->memory, board_map.boot_rom.base, board_map.boot_rom.size,
                          machine->boot_rom, NULL, NULL, err) &&
           add_interrupt_controllers(machine, err) && add_platform_devices(machine, err) &&
           add_buses(machine, err) && add_disks(machine, err) && add_nets(machine, err) &&
           add_shares(machine, err) && add_console(machine, err) &&
           attach(machine, virtio_rng_create("rng0", machine->loop), MACHINE_BUS_PCI, err) &&
           add_power_button(machine, err) && passthrough_attach_all(machine, err) &&
           screen_attach(machine, err);
}

void board_destroy(struct machine *machine)
{
    screen_detach(machine);
    while (machine->device_count) {
        struct device *device = machine->devices[--machine->device_count];
        device->type->remove(device);
    }
    screen_close(machine);
    passthrough_close(machine);
    chardev_destroy(machine->console);
    chardev_destroy(machine->serial);
}
