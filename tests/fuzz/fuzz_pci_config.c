/*
 * Configuration and BAR accesses as the input says, on a bus with the host bridge, two virtio
 * devices, a plain function with MSI and MSI-X, and two root ports, one behind the other, with a
 * third virtio device. Identity registers stay what they are, what was saved can be
 * loaded, and a reset brings back the first state.
 */
#include <stdio.h>
#include <stdlib.h>

#include "pci/pci.h"
#include "virtio/rng.h"

#define RAM_BASE  UINT64_C(0x80000000)
#define RAM_SIZE  UINT64_C(0x10000)
#define ECAM      UINT64_C(0x30000000)
#define IO_BASE   UINT64_C(0x03000000)
#define MEM32     UINT64_C(0x40000000)
#define MEM64     UINT64_C(0x400000000)
#define DOORBELL  UINT64_C(0x28000000)
#define FUNCTIONS 5
#define RNGS      3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct memory *memory;
static struct loop *loop;
static struct pci_host *host;
static struct virtio_device *rng[RNGS];
static struct pci_root_port *ports[2];
static struct pci_device plain;
static struct pci_msix plain_msix;
static struct pci_msi plain_msi;
static int lines[4];

static void check(bool truth)
{
    if (!truth)
        abort();
}

static void check_stream(struct stream *stream)
{
    struct error err;

    if (stream_check(stream, &err))
        return;
    fprintf(stderr, "%s\n", err.message);
    abort();
}

static void set_line(void *controller, unsigned source, bool level)
{
    check(lines[source] == !level); /* only changes are sent */
    lines[source] = level;
}

static uint64_t plain_read(void *opaque, uint64_t offset, unsigned size)
{
    return offset;
}

static void plain_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    pci_set_intx(&plain, value & 1);
    pci_msix_send(&plain_msix, value >> 1 & 15);
    pci_msi_send(&plain_msi, value >> 8 & 63);
}

/* Messages may come at any time; that there is nothing to free or lock is what matters here. */
static void doorbell_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    check(offset < 0x1000 && size == 4);
}

static void set_up(void)
{
    static const struct mmio_ops ops = {.read = plain_read, .write = plain_write};
    static const struct mmio_ops doorbell = {.write = doorbell_write, .min_size = 4, .max_size = 4};
    static const struct pci_device_type type = {.name = "plain"};
    static const struct pci_identity identity = {
        .vendor = 0x1234, .device = 0x5678, .class_code = 0x010203, .interrupt_pin = 2};
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
    check(memory_add_ram(memory, RAM_BASE, RAM_SIZE, NULL));
    check(memory_add_messages(memory, DOORBELL, 0x1000, &doorbell, NULL, "doorbell", NULL));
    host = pci_host_create(memory, &config, NULL);
    check(host != NULL);
    ports[0] = pci_root_port_create(pci_host_bus(host), PCI_DEVFN(4, 0), 4, NULL);
    check(ports[0] != NULL);
    ports[1] = pci_root_port_create(pci_root_port_bus(ports[0]), PCI_DEVFN(0, 0), 5, NULL);
    check(ports[1] != NULL);
    struct pci_bus *buses[RNGS] = {pci_host_bus(host), pci_host_bus(host),
                                   pci_root_port_bus(ports[1])};
    for (unsigned i = 0; i < RNGS; i++) {
        rng[i] = virtio_rng_create("rng", loop);
        check(virtio_pci_attach(buses[i], 1 + i, rng[i], NULL));
    }
    pci_device_init(&plain, &type, &identity);
    pci_add_bar(&plain, 0, PCI_BAR_MEMORY32, false, 0x1000, &ops, NULL);
    pci_add_bar(&plain, 1, PCI_BAR_IO, false, 0x20, &ops, NULL);
    pci_add_bar(&plain, 2, PCI_BAR_MEMORY64, true, 0x10000, &ops, NULL);
    pci_add_bar(&plain, PCI_BAR_ROM, PCI_BAR_MEMORY32, false, 0x800, &ops, NULL);
    pci_msix_init(&plain_msix, &plain, 4, 13);
    pci_msi_init(&plain_msi, &plain, 8);
    check(pci_device_attach(&plain, pci_host_bus(host), PCI_DEVFN(3, 0), NULL));
}

static uint64_t config_gpa(unsigned slot, unsigned offset)
{
    return ECAM + ((uint64_t)slot << 15) + offset;
}

/* Identity, and a digest of all that a reset must bring back. */
static uint64_t digest(unsigned slot, unsigned bytes)
{
    uint64_t sum = 0, value;

    for (unsigned i = 0; i < bytes; i += 4) {
        check(memory_read(memory, config_gpa(slot, i), 4, &value));
        sum = sum * 31 + value;
    }
    return sum;
}

static uint64_t identity(unsigned slot)
{
    uint64_t id = 0, class_code = 0;

    check(memory_read(memory, config_gpa(slot, 0), 4, &id));
    check(memory_read(memory, config_gpa(slot, 8), 4, &class_code));
    return id << 32 | class_code;
}

static void devices_each(void (*function)(struct device *device, struct stream *stream),
                         struct stream *stream)
{
    function(pci_host_device(host), stream);
    for (unsigned i = 0; i < 2; i++)
        function(pci_root_port_device(ports[i]), stream);
    for (unsigned i = 0; i < RNGS; i++)
        function(&rng[i]->base, stream);
}

static void device_reset(struct device *device, struct stream *stream)
{
    device->type->reset(device);
}

static void device_state(struct device *device, struct stream *stream)
{
    device->type->state(device, stream);
}

static void save_and_load(void)
{
    struct stream *saving = stream_create_saving(), *loading;
    uint64_t before[FUNCTIONS];
    const void *bytes;
    size_t size;

    devices_each(device_state, saving);
    pci_device_state(&plain, saving);
    check_stream(saving);
    for (unsigned i = 0; i < FUNCTIONS; i++)
        before[i] = digest(i, 64);
    bytes = stream_data(saving, &size);
    devices_each(device_reset, NULL);
    loading = stream_create_loading(bytes, size);
    devices_each(device_state, loading);
    pci_device_state(&plain, loading);
    check_stream(loading);
    for (unsigned i = 0; i < FUNCTIONS; i++)
        check(digest(i, 64) == before[i]);
    stream_destroy(loading);
    stream_destroy(saving);
}

static void access_at(uint64_t gpa, unsigned size, uint64_t value, bool write)
{
    gpa &= -(uint64_t)size;
    if (write)
        memory_write(memory, gpa, size, value);
    else
        memory_read(memory, gpa, size, &value);
}

/* Eight bytes an access: what, where, value. */
static void step(const uint8_t *bytes)
{
    static const uint64_t windows[] = {MEM32, MEM64, IO_BASE, MEM32 + 0x100000};
    uint64_t bus = (uint64_t)(bytes[1] >> 3) << 20; /* 0 to 31 */
    unsigned what = bytes[0], offset = load_le16(bytes + 2), size = 1u << (bytes[1] & 3);
    uint64_t value = load_le32(bytes + 4);
    bool write = bytes[1] & 4;

    switch (what & 7) {
    case 0:
    case 1:
    case 2: /* any register of a function */
        access_at(config_gpa(what >> 3 & 7, offset % 4096) + bus, size, value, write);
        break;
    case 3: /* a header register */
        access_at(config_gpa(what >> 3 & 7, offset % 64) + bus, size, value, true);
        break;
    case 4:
        access_at(windows[what >> 3 & 3] + offset, size, value, write);
        break;
    case 5:
        access_at(RAM_BASE + offset, size, value, true);
        break;
    case 6:
        loop_turn(loop, 0);
        break;
    case 7:
        save_and_load();
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint64_t first[FUNCTIONS], ids[FUNCTIONS];

    if (!host) {
        set_up();
        for (unsigned i = 0; i < FUNCTIONS; i++) {
            first[i] = digest(i, 256);
            ids[i] = identity(i);
        }
    }
    for (; size >= 8; data += 8, size -= 8)
        step(data);
    for (unsigned i = 0; i < FUNCTIONS; i++)
        check(identity(i) == ids[i]);
    devices_each(device_reset, NULL);
    pci_device_reset(&plain);
    for (unsigned i = 0; i < FUNCTIONS; i++)
        check(digest(i, 256) == first[i]);
    check(!lines[0] && !lines[1] && !lines[2] && !lines[3]);
    loop_turn(loop, 0);
    return 0;
}
