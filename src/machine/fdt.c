/*
 * The device tree: what is really there, in the bindings that Linux documents under
 * Documentation/devicetree/bindings.
 */
#include <libfdt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "machine/board.h"
#include "machine/internal.h"

#define TREE_SIZE_MAX (128 << 10) /* 64 harts need about 45 KiB */
#define CELLS_MAX     320

/* Phandles: harts' interrupt controllers come first, then these. */
enum {
    PHANDLE_CPU = 0x100,
    PHANDLE_INTC = 0x1,
    PHANDLE_PLIC = 0x200,
    PHANDLE_SYSCON = 0x201,
    PHANDLE_APLIC = 0x202, /* M, S */
    PHANDLE_IMSIC = 0x204, /* M, S */
};

#define TRIGGER_LEVEL_HIGH 4 /* the second cell of an APLIC's interrupt */

/* A tree under construction; the first libfdt error sticks. */
struct tree {
    void *blob;
    bool aia; /* wires end in the APLIC of S-mode, not in the PLIC */
    int error;
};

static void tree_note(struct tree *tree, int result)
{
    if (result < 0 && !tree->error)
        tree->error = result;
}

static void __attribute__((format(printf, 2, 3))) tree_begin(struct tree *tree, const char *format,
                                                             ...)
{
    char name[64];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof(name), format, args);
    va_end(args);
    tree_note(tree, fdt_begin_node(tree->blob, name));
}

static void tree_end(struct tree *tree)
{
    tree_note(tree, fdt_end_node(tree->blob));
}

static void tree_bytes(struct tree *tree, const char *name, const void *bytes, size_t size)
{
    tree_note(tree, fdt_property(tree->blob, name, bytes, size));
}

static void tree_flag(struct tree *tree, const char *name)
{
    tree_bytes(tree, name, NULL, 0);
}

static void tree_string(struct tree *tree, const char *name, const char *text)
{
    tree_bytes(tree, name, text, strlen(text) + 1);
}

static void tree_cells(struct tree *tree, const char *name, const uint32_t *cells, size_t count)
{
    uint32_t big[CELLS_MAX];
    for (size_t i = 0; i < count; i++)
        big[i] = htobe32(cells[i]);
    tree_bytes(tree, name, big, count * sizeof(*big));
}

static void tree_u32(struct tree *tree, const char *name, uint32_t value)
{
    tree_cells(tree, name, &value, 1);
}

static void tree_u64(struct tree *tree, const char *name, uint64_t value)
{
    uint32_t cells[] = {value >> 32, value};
    tree_cells(tree, name, cells, 2);
}

static void tree_reg(struct tree *tree, uint64_t base, uint64_t size)
{
    uint32_t cells[] = {base >> 32, base, size >> 32, size};
    tree_cells(tree, "reg", cells, 4);
}

/* The cells behind "interrupts" for a source; how many there are. */
static unsigned source_cells(const struct tree *tree, uint32_t source, uint32_t cells[2])
{
    cells[0] = source;
    cells[1] = TRIGGER_LEVEL_HIGH;
    return tree->aia ? 2 : 1;
}

static uint32_t wire_parent(const struct tree *tree)
{
    return tree->aia ? PHANDLE_APLIC + 1 : PHANDLE_PLIC;
}

/* A device of the soc bus with registers at `range` and, if not 0, a source. */
static void tree_device(struct tree *tree, const char *name, struct board_range range,
                        const char *compatible, size_t compatible_size, uint32_t interrupt)
{
    tree_begin(tree, "%s@%llx", name, (unsigned long long)range.base);
    tree_bytes(tree, "compatible", compatible, compatible_size);
    tree_reg(tree, range.base, range.size);
    if (interrupt) {
        uint32_t cells[2];
        unsigned count = source_cells(tree, interrupt, cells);
        tree_u32(tree, "interrupt-parent", wire_parent(tree));
        tree_cells(tree, "interrupts", cells, count);
    }
}

/* Several strings in one literal, with zeros between them. */
#define STRINGS(text) text, sizeof(text)

static void add_chosen(struct tree *tree, struct machine *machine)
{
    tree_begin(tree, "chosen");
    tree_string(tree, "stdout-path", "/soc/serial@10000000");
    if (machine->config.append)
        tree_string(tree, "bootargs", machine->config.append);
    if (machine->initrd_size) {
        tree_u64(tree, "linux,initrd-start", machine->initrd_gpa);
        tree_u64(tree, "linux,initrd-end", machine->initrd_gpa + machine->initrd_size);
    }
    uint8_t seed[40];
    if (getrandom(seed, sizeof(seed), 0) == sizeof(seed)) {
        tree_bytes(tree, "kaslr-seed", seed, 8);
        tree_bytes(tree, "rng-seed", seed + 8, 32);
    }
    tree_end(tree);
}

static void add_isa(struct tree *tree, const struct isa_extensions *extensions)
{
    char isa[ISA_STRING_SIZE];
    isa_extensions_string(extensions, isa, sizeof(isa));
    tree_string(tree, "riscv,isa", isa);
    tree_string(tree, "riscv,isa-base", "rv64i");

    char list[ISA_STRING_SIZE];
    size_t used = 0;
    unsigned position = 0;
    for (const char *name; (name = isa_extensions_next(extensions, &position));) {
        size_t size = strlen(name) + 1;
        if (size > sizeof(list) - used)
            break;
        memcpy(list + used, name, size);
        used += size;
    }
    tree_bytes(tree, "riscv,isa-extensions", list, used);

    static const struct {
        enum isa_extension extension;
        const char *name;
    } mmu_types[] = {
        {ISA_EXT_SV57, "riscv,sv57"}, {ISA_EXT_SV48, "riscv,sv48"}, {ISA_EXT_SV39, "riscv,sv39"}};
    for (size_t i = 0; i < ARRAY_SIZE(mmu_types); i++)
        if (isa_extensions_test(extensions, mmu_types[i].extension)) {
            tree_string(tree, "mmu-type", mmu_types[i].name);
            break;
        }
    static const struct {
        enum isa_extension extension;
        const char *property;
    } blocks[] = {{ISA_EXT_ZICBOM, "riscv,cbom-block-size"},
                  {ISA_EXT_ZICBOZ, "riscv,cboz-block-size"},
                  {ISA_EXT_ZICBOP, "riscv,cbop-block-size"}};
    for (size_t i = 0; i < ARRAY_SIZE(blocks); i++)
        if (isa_extensions_test(extensions, blocks[i].extension))
            tree_u32(tree, blocks[i].property, 64);
}

static void add_cpus(struct tree *tree, struct machine *machine)
{
    tree_begin(tree, "cpus");
    tree_u32(tree, "#address-cells", 1);
    tree_u32(tree, "#size-cells", 0);
    tree_u32(tree, "timebase-frequency", CLOCK_HZ);
    for (unsigned i = 0; i < machine->cpu_count; i++) {
        tree_begin(tree, "cpu@%u", i);
        tree_u32(tree, "phandle", PHANDLE_CPU + i);
        tree_string(tree, "device_type", "cpu");
        tree_u32(tree, "reg", i);
        tree_string(tree, "status", "okay");
        tree_string(tree, "compatible", "riscv");
        add_isa(tree, &machine->extensions);
        tree_begin(tree, "interrupt-controller");
        tree_u32(tree, "#address-cells", 0);
        tree_u32(tree, "#interrupt-cells", 1);
        tree_flag(tree, "interrupt-controller");
        tree_string(tree, "compatible", "riscv,cpu-intc");
        tree_u32(tree, "phandle", PHANDLE_INTC + i);
        tree_end(tree);
        tree_end(tree);
    }
    tree_begin(tree, "cpu-map");
    tree_begin(tree, "cluster0");
    for (unsigned i = 0; i < machine->cpu_count; i++) {
        tree_begin(tree, "core%u", i);
        tree_u32(tree, "cpu", PHANDLE_CPU + i);
        tree_end(tree);
    }
    tree_end(tree);
    tree_end(tree);
    tree_end(tree);
}

static void add_memory(struct tree *tree, struct machine *machine)
{
    size_t count;
    const struct memory_ram *ram = memory_ram_regions(machine->memory, &count);
    for (size_t i = 0; i < count; i++) {
        tree_begin(tree, "memory@%llx", (unsigned long long)ram[i].base);
        tree_string(tree, "device_type", "memory");
        tree_reg(tree, ram[i].base, ram[i].size);
        tree_end(tree);
    }
}

/* Two interrupts of every hart, for a controller in front of them. */
static void add_interrupts_extended(struct tree *tree, struct machine *machine,
                                    uint32_t machine_irq, uint32_t other_irq)
{
    uint32_t cells[4 * MACHINE_MAX_CPUS];
    for (unsigned i = 0; i < machine->cpu_count; i++) {
        uint32_t *c = &cells[4 * i];
        c[0] = c[2] = PHANDLE_INTC + i;
        c[1] = machine_irq;
        c[3] = other_irq;
    }
    tree_cells(tree, "interrupts-extended", cells, 4 * machine->cpu_count);
}

/* Bindings interrupt-controller/riscv,imsics and riscv,aplic. */
static void add_imsic(struct tree *tree, struct machine *machine, bool supervisor)
{
    struct board_range pages = board_map.imsic[supervisor];
    uint32_t cells[2 * MACHINE_MAX_CPUS];
    for (unsigned i = 0; i < machine->cpu_count; i++) {
        cells[2 * i] = PHANDLE_INTC + i;
        cells[2 * i + 1] = supervisor ? INTERRUPT_SEI : INTERRUPT_MEI;
    }
    pages.size *= machine->cpu_count;
    tree_device(tree, "imsics", pages, STRINGS("riscv,imsics"), 0);
    tree_u32(tree, "phandle", PHANDLE_IMSIC + supervisor);
    tree_u32(tree, "#interrupt-cells", 0);
    tree_flag(tree, "interrupt-controller");
    tree_flag(tree, "msi-controller");
    tree_cells(tree, "interrupts-extended", cells, 2 * machine->cpu_count);
    tree_u32(tree, "riscv,num-ids", IMSIC_IDENTITIES);
    tree_end(tree);
}

static void add_aplic(struct tree *tree, bool supervisor)
{
    tree_device(tree, "aplic", board_map.aplic[supervisor], STRINGS("riscv,aplic"), 0);
    tree_u32(tree, "phandle", PHANDLE_APLIC + supervisor);
    tree_u32(tree, "#interrupt-cells", 2);
    tree_u32(tree, "#address-cells", 0);
    tree_flag(tree, "interrupt-controller");
    tree_u32(tree, "msi-parent", PHANDLE_IMSIC + supervisor);
    tree_u32(tree, "riscv,num-sources", BOARD_IRQ_SOURCES_AIA);
    if (!supervisor) {
        uint32_t delegate[] = {PHANDLE_APLIC + 1, 1, BOARD_IRQ_SOURCES_AIA};
        tree_u32(tree, "riscv,children", PHANDLE_APLIC + 1);
        tree_cells(tree, "riscv,delegate", delegate, 3);
    }
    tree_end(tree);
}

/* The built-in SBI has nothing to say about M-mode's: sources are delegated from the start. */
static void add_aia(struct tree *tree, struct machine *machine)
{
    for (unsigned level = machine->builtin_sbi ? 1 : 0; level < 2; level++)
        add_imsic(tree, machine, level);
    for (unsigned level = machine->builtin_sbi ? 1 : 0; level < 2; level++)
        add_aplic(tree, level);
}

static void add_irq(struct tree *tree, struct machine *machine)
{
    /* M-mode's timer and software interrupts are nobody's where there is no M-mode software. */
    if (!machine->builtin_sbi) {
        tree_device(tree, "clint", board_map.aclint, STRINGS("sifive,clint0\0riscv,clint0"), 0);
        add_interrupts_extended(tree, machine, INTERRUPT_MSI, INTERRUPT_MTI);
        tree_end(tree);
    }
    if (machine->aia) {
        add_aia(tree, machine);
        return;
    }
    tree_device(tree, "plic", board_map.plic, STRINGS("sifive,plic-1.0.0\0riscv,plic0"), 0);
    tree_u32(tree, "phandle", PHANDLE_PLIC);
    tree_u32(tree, "#interrupt-cells", 1);
    tree_u32(tree, "#address-cells", 0);
    tree_flag(tree, "interrupt-controller");
    tree_u32(tree, "riscv,ndev", BOARD_IRQ_SOURCES);
    add_interrupts_extended(tree, machine, INTERRUPT_MEI, INTERRUPT_SEI);
    tree_end(tree);
}

static void add_platform_devices(struct tree *tree, struct machine *machine)
{
    tree_device(tree, "test", board_map.finisher, STRINGS("sifive,test1\0sifive,test0\0syscon"), 0);
    tree_u32(tree, "phandle", PHANDLE_SYSCON);
    tree_end(tree);

    tree_device(tree, "rtc", board_map.rtc, STRINGS("google,goldfish-rtc"), BOARD_IRQ_RTC);
    tree_end(tree);

    tree_device(tree, "serial", board_map.uart, STRINGS("ns16550a"), BOARD_IRQ_UART);
    tree_u32(tree, "clock-frequency", UART_CLOCK_HZ);
    tree_end(tree);

    tree_device(tree, "fw-cfg", board_map.fw_cfg, STRINGS("qemu,fw-cfg-mmio"), 0);
    tree_flag(tree, "dma-coherent");
    tree_end(tree);

    for (unsigned i = 0; i < BOARD_VIRTIO_SLOTS; i++) {
        struct board_range slot = board_map.virtio_mmio;
        slot.base += i * slot.size;
        tree_device(tree, "virtio_mmio", slot, STRINGS("virtio,mmio"), BOARD_IRQ_VIRTIO + i);
        tree_flag(tree, "dma-coherent");
        tree_end(tree);
    }

    const struct board_range *flash = board_map.flash;
    tree_begin(tree, "flash@%llx", (unsigned long long)flash[0].base);
    tree_string(tree, "compatible", "cfi-flash");
    uint32_t banks[] = {0, flash[0].base, 0, flash[0].size, 0, flash[1].base, 0, flash[1].size};
    tree_cells(tree, "reg", banks, ARRAY_SIZE(banks));
    tree_u32(tree, "bank-width", FLASH_BANK_WIDTH);
    tree_end(tree);
}

/* Interrupt pins rotate over four sources: swizzled by slot (PCI-to-PCI Bridge, section 9.1). */
static void add_pci_interrupt_map(struct tree *tree)
{
    uint32_t cells[4 * 4 * 7];
    uint32_t *c = cells;
    for (uint32_t slot = 0; slot < 4; slot++)
        for (uint32_t pin = 1; pin <= 4; pin++) {
            *c++ = slot << 11;
            *c++ = 0;
            *c++ = 0;
            *c++ = pin;
            *c++ = wire_parent(tree);
            c += source_cells(tree, BOARD_IRQ_PCI + (slot + pin - 1) % 4, c);
        }
    tree_cells(tree, "interrupt-map", cells, c - cells);
    uint32_t mask[] = {3 << 11, 0, 0, 7};
    tree_cells(tree, "interrupt-map-mask", mask, ARRAY_SIZE(mask));
}

static void add_pci(struct tree *tree, struct machine *machine)
{
    const struct board_range *io = &board_map.pci_io, *low = &board_map.pci_mmio32;
    uint64_t high = machine->pci_window64_base, high_size = machine->pci_window64_size;
    tree_device(tree, "pci", board_map.pci_ecam, STRINGS("pci-host-ecam-generic"), 0);
    tree_string(tree, "device_type", "pci");
    tree_u32(tree, "#address-cells", 3);
    tree_u32(tree, "#size-cells", 2);
    tree_u32(tree, "#interrupt-cells", 1);
    tree_u32(tree, "linux,pci-domain", 0);
    uint32_t buses[] = {0, (board_map.pci_ecam.size >> 20) - 1};
    tree_cells(tree, "bus-range", buses, 2);
    tree_flag(tree, "dma-coherent");
    if (tree->aia)
        tree_u32(tree, "msi-parent", PHANDLE_IMSIC + 1);

    /*
     * IEEE 1275 PCI binding: 01 I/O, 02 32-bit memory, 03 64-bit memory. The last one is not marked
     * prefetchable (43): U-Boot, which assigns BARs below 4 GiB only, would use it for every BAR
     * that is; Linux puts them there either way.
     */
    uint32_t ranges[] = {
        0x01000000, 0,         0,          0,         io->base,
        0,          io->size,  0x02000000, 0,         low->base,
        0,          low->base, 0,          low->size, 0x03000000,
        high >> 32, high,      high >> 32, high,      high_size >> 32,
        high_size,
    };
    tree_cells(tree, "ranges", ranges, ARRAY_SIZE(ranges));
    add_pci_interrupt_map(tree);
    tree_end(tree);
}

static void add_soc(struct tree *tree, struct machine *machine)
{
    tree_begin(tree, "soc");
    tree_u32(tree, "#address-cells", 2);
    tree_u32(tree, "#size-cells", 2);
    tree_string(tree, "compatible", "simple-bus");
    tree_flag(tree, "ranges");
    add_irq(tree, machine);
    add_platform_devices(tree, machine);
    add_pci(tree, machine);
    tree_end(tree);
}

/* Which events the harts' counters can count, for firmware (OpenSBI's docs/pmu_support.md). */
static void add_pmu(struct tree *tree)
{
    static const struct {
        uint32_t event, counters; /* bits of mcountinhibit */
    } events[] = {
        {0x00001, 0x7f9}, /* cycles: the fixed counter or any programmable one */
        {0x00002, 0x7fc}, /* instructions likewise */
        {0x10019, 0x7f8}, /* data TLB, misses of loads */
        {0x1001b, 0x7f8}, /* data TLB, misses of stores */
        {0x10021, 0x7f8}, /* instruction TLB misses */
    };
    uint32_t selectors[3 * ARRAY_SIZE(events)], counters[3 * ARRAY_SIZE(events)];
    for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
        selectors[3 * i] = events[i].event;
        selectors[3 * i + 1] = 0;
        selectors[3 * i + 2] = events[i].event;
        counters[3 * i] = counters[3 * i + 1] = events[i].event;
        counters[3 * i + 2] = events[i].counters;
    }
    tree_begin(tree, "pmu");
    tree_string(tree, "compatible", "riscv,pmu");
    tree_cells(tree, "riscv,event-to-mhpmevent", selectors, ARRAY_SIZE(selectors));
    tree_cells(tree, "riscv,event-to-mhpmcounters", counters, ARRAY_SIZE(counters));
    tree_end(tree);
}

static void add_syscon(struct tree *tree, const char *name, const char *compatible, uint32_t value)
{
    tree_begin(tree, "%s", name);
    tree_string(tree, "compatible", compatible);
    tree_u32(tree, "regmap", PHANDLE_SYSCON);
    tree_u32(tree, "offset", 0);
    tree_u32(tree, "value", value);
    tree_end(tree);
}

bool fdt_build(struct machine *machine, void **blob, size_t *size, struct error *err)
{
    struct tree tree = {.blob = xmalloc(TREE_SIZE_MAX), .aia = machine->aia};
    tree_note(&tree, fdt_create(tree.blob, TREE_SIZE_MAX));
    tree_note(&tree, fdt_finish_reservemap(tree.blob));
    tree_begin(&tree, "%s", "");
    tree_u32(&tree, "#address-cells", 2);
    tree_u32(&tree, "#size-cells", 2);
    tree_string(&tree, "compatible", "riscv-virtio");
    tree_string(&tree, "model", "riscv-virtio,hartvisor");
    add_chosen(&tree, machine);
    tree_begin(&tree, "aliases");
    tree_string(&tree, "serial0", "/soc/serial@10000000");
    tree_end(&tree);
    add_memory(&tree, machine);
    add_cpus(&tree, machine);
    if (!machine->builtin_sbi)
        add_pmu(&tree);
    add_syscon(&tree, "poweroff", "syscon-poweroff", 0x5555);
    add_syscon(&tree, "reboot", "syscon-reboot", 0x7777);
    add_soc(&tree, machine);
    tree_end(&tree);
    tree_note(&tree, fdt_finish(tree.blob));
    if (tree.error) {
        free(tree.blob);
        return error_set(err, "cannot build the device tree: %s%s", fdt_strerror(tree.error),
                         tree.error == -FDT_ERR_NOSPACE ? ": --append is too long" : "");
    }
    *blob = tree.blob;
    *size = fdt_totalsize(tree.blob);
    return true;
}
