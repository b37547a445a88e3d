/*
 * A guest that does what the input says to a device that is passed through, with the test double of
 * the unit tests: configuration writes, MSI-X programming, BAR moves, accesses to the BARs, while
 * interrupts fire. What reaches the device is within its regions and aligned (the double aborts
 * otherwise), the registers that the host relies on stay, and a reset brings back the first state.
 */
#include "../unit/vfio_double.h"
#include "passthrough/vfio_device.h"
#include "pci/pci.h"

#define RAM_BASE UINT64_C(0x80000000)
#define ECAM     UINT64_C(0x30000000)
#define IO_BASE  UINT64_C(0x03000000)
#define MEM32    UINT64_C(0x40000000)
#define MEM64    UINT64_C(0x400000000)
#define DOORBELL UINT64_C(0x28000000)
#define SLOT     2

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct memory *memory;
static struct loop *loop;
static struct pci_host *host;
static struct double_vfio *there;
static struct vfio_device *device;
static int lines[4];

static void check(bool truth)
{
    if (!truth)
        abort();
}

static void set_line(void *controller, unsigned source, bool level)
{
    check(lines[source] == !level); /* only changes are sent */
    lines[source] = level;
}

static void doorbell_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    check(offset < 0x1000 && size == 4);
}

static void event(void *opaque, const char *name, enum vfio_event what)
{
}

static void set_up(void)
{
    static const struct mmio_ops doorbell = {.write = doorbell_write, .min_size = 4, .max_size = 4};
    struct pci_host_config config = {
        .ecam_base = ECAM,
        .ecam_size = 0x10000000,
        .io_base = IO_BASE,
        .io_size = 0x10000,
        .mmio32_base = MEM32,
        .mmio32_size = 0x40000000,
        .mmio64_base = MEM64,
        .mmio64_size = 0x400000000,
        .messages = true,
    };

    for (unsigned i = 0; i < 4; i++)
        config.intx[i] = (struct irq_line){set_line, NULL, i};
    loop = loop_create();
    memory = memory_create();
    check(memory_add_ram(memory, RAM_BASE, 0x10000, NULL));
    check(memory_add_messages(memory, DOORBELL, 0x1000, &doorbell, NULL, "doorbell", NULL));
    host = pci_host_create(memory, &config, NULL);
    check(host != NULL);
    there = double_create();
    const struct vfio_device_config wanted = {
        .vfio = &there->vfio, .loop = loop, .memory = memory, .messages = true, .event = event};
    device = vfio_device_create(&wanted, NULL);
    check(device && vfio_device_attach(device, pci_host_bus(host), PCI_DEVFN(SLOT, 0), true, NULL));
}

static void access_at(uint64_t gpa, unsigned size, uint64_t value, bool write)
{
    gpa &= -(uint64_t)size;
    if (write)
        memory_write(memory, gpa, size, value);
    else
        memory_read(memory, gpa, size, &value);
}

static uint64_t config_gpa(unsigned offset)
{
    return ECAM + ((uint64_t)SLOT << 15) + offset;
}

/* Without vendor's registers, which are the device's. */
static uint64_t digest(void)
{
    uint64_t sum = 0, value;

    for (unsigned i = 0; i < 0x140; i += 4) {
        if (i >= 0x70 && i < 0x80)
            continue;
        check(memory_read(memory, config_gpa(i), 4, &value));
        sum = sum * 31 + value;
    }
    return sum;
}

/* Eight bytes an access: what, how, where, value. */
static void step(const uint8_t *bytes)
{
    static const uint64_t windows[] = {
        MEM64,   MEM64 + DOUBLE_TABLE, MEM32,    MEM32 + 0x10000,
        IO_BASE, IO_BASE + 0x1000,     RAM_BASE, MEM64 + DOUBLE_PENDING};
    static const unsigned counts[] = {1, 4, DOUBLE_VECTORS};
    unsigned what = bytes[0], offset = load_le16(bytes + 2), size = 1u << (bytes[1] & 3);
    unsigned index = (what >> 3) % 3;
    uint64_t value = load_le32(bytes + 4);
    bool write = bytes[1] & 4;

    switch (what & 7) {
    case 0:
    case 1: /* any register */
        access_at(config_gpa(offset % 4096), size, value, write);
        break;
    case 2: /* one of the known ones */
        access_at(config_gpa(offset % 256), size, value, true);
        break;
    case 3: /* BARs and command */
        access_at(config_gpa(offset % 64), size, value, true);
        break;
    case 4:
        access_at(windows[what >> 3 & 7] + offset, size, value | value << 32, write);
        break;
    case 5:
        double_raise(there, index, offset % counts[index]);
        break;
    case 6:
        loop_turn(loop, 0);
        break;
    case 7:
        vfio_device_end_intx(device, what >> 3 & 3);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t physical[256];
    static uint64_t first;

    if (!host) {
        set_up();
        first = digest();
        memcpy(physical, there->config, sizeof(physical));
    }
    struct device *base = vfio_device_base(device);
    if (size) { /* what kind of kernel this is */
        there->dynamic = data[0] & 1;
        there->short_of_vectors = data[0] >> 2;
        data++;
        size--;
    }
    for (; size >= 8; data += 8, size -= 8)
        step(data);
    check((load_le16(there->config + 4) & ~4u) == 3); /* decoding is on */
    for (unsigned i = 6; i < sizeof(physical); i++)
        check((i >= 0x72 && i < 0x80) || there->config[i] == physical[i]);
    base->type->reset(base);
    check(digest() == first);
    loop_turn(loop, 0);
    vfio_device_end_intx(device, SLOT % 4);
    check(!lines[0] && !lines[1] && !lines[2] && !lines[3]);
    return 0;
}
