/* Root ports: bus numbers, windows, interrupt pins, bus mastering, the slot, BARs that move. */
#include "pci_bench.h"

#define PRIMARY_BUS     0x18
#define SECONDARY_BUS   0x19
#define SUBORDINATE_BUS 0x1a
#define PORT_SLOT       4

static struct pci_root_port *port_create(struct pci_bus *bus, unsigned slot)
{
    struct pci_root_port *port = pci_root_port_create(bus, PCI_DEVFN(slot, 0), slot, NULL);

    assert_non_null(port);
    return port;
}

static void port_remove(struct pci_root_port *port)
{
    struct device *device = pci_root_port_device(port);

    device->type->remove(device);
}

/* "Slots" of these accesses count over all buses: 32 a bus. */
static unsigned on_bus(unsigned bus, unsigned slot)
{
    return bus * 32 + slot;
}

static void number(struct bench *bench, unsigned slot, unsigned primary, unsigned secondary,
                   unsigned subordinate)
{
    put(bench, slot, PRIMARY_BUS, 1, primary);
    put(bench, slot, SECONDARY_BUS, 1, secondary);
    put(bench, slot, SUBORDINATE_BUS, 1, subordinate);
}

/* Non-prefetchable [base, base + size), and nothing else. */
static void open_memory(struct bench *bench, unsigned slot, uint64_t base, uint64_t size)
{
    put(bench, slot, 0x20, 4, (base >> 16 & 0xfff0) | ((base + size - 1) & 0xfff00000));
}

static void open_prefetchable(struct bench *bench, unsigned slot, uint64_t base, uint64_t size)
{
    uint64_t last = base + size - 1;

    put(bench, slot, 0x24, 4, (base >> 16 & 0xfff0) | (last & 0xfff00000));
    put(bench, slot, 0x28, 4, base >> 32);
    put(bench, slot, 0x2c, 4, last >> 32);
}

static void attach_to(struct bench *bench, struct plain *plain, struct pci_bus *bus)
{
    struct pci_bus *root = bench->bus;

    bench->bus = bus;
    plain_attach(bench, plain, 0);
    bench->bus = root;
}

static void header(void **state)
{
    struct bench *bench = *state;
    struct pci_root_port *port = port_create(bench->bus, PORT_SLOT);

    assert_int_equal(get(bench, PORT_SLOT, 0x00, 4), 0x000c1b36);
    assert_int_equal(get(bench, PORT_SLOT, 0x08, 4), 0x06040000);
    assert_int_equal(get(bench, PORT_SLOT, 0x0e, 1), 1);
    for (unsigned offset = 0x10; offset < 0x3e; offset += 2)
        if (offset != 0x34)
            put(bench, PORT_SLOT, offset, 2, 0xffff);
    assert_int_equal(get(bench, PORT_SLOT, 0x10, 4), 0);
    assert_int_equal(get(bench, PORT_SLOT, 0x14, 4), 0);
    assert_int_equal(get(bench, PORT_SLOT, 0x18, 4), 0x00ffffff);
    assert_int_equal(get(bench, PORT_SLOT, 0x1c, 4), 0x0000f1f1);
    assert_int_equal(get(bench, PORT_SLOT, 0x20, 4), 0xfff0fff0);
    assert_int_equal(get(bench, PORT_SLOT, 0x24, 4), 0xfff1fff1);
    assert_int_equal(get(bench, PORT_SLOT, 0x28, 8), UINT64_MAX);
    assert_int_equal(get(bench, PORT_SLOT, 0x30, 4), 0xffffffff);
    assert_int_equal(get(bench, PORT_SLOT, 0x38, 4), 0);
    struct error err = {0};
    assert_null(pci_root_port_create(bench->bus, PCI_DEVFN(PORT_SLOT, 0), 1, &err));
    assert_non_null(strstr(err.message, "port1"));
    struct device *device = pci_root_port_device(port);
    device->type->reset(device);
    assert_int_equal(get(bench, PORT_SLOT, 0x18, 4), 0);
    port_remove(port);
    assert_int_equal(get(bench, PORT_SLOT, 0x00, 4), 0xffffffff);
}

static void slot_and_link(void **state)
{
    struct bench *bench = *state;
    struct pci_root_port *port = port_create(bench->bus, PORT_SLOT);
    struct plain plain;

    unsigned at = get(bench, PORT_SLOT, 0x34, 1);
    assert_int_equal(get(bench, PORT_SLOT, at, 1), 0x10);
    assert_int_equal(get(bench, PORT_SLOT, at + 2, 2), 0x142); /* root port, slot, version 2 */
    assert_int_equal(get(bench, PORT_SLOT, at + 0x14, 4) >> 19, PORT_SLOT);
    assert_int_equal(get(bench, PORT_SLOT, at + 0x1a, 2), 0);
    assert_int_equal(get(bench, PORT_SLOT, at + 0x12, 2), 0);
    attach_to(bench, &plain, pci_root_port_bus(port));
    assert_int_equal(get(bench, PORT_SLOT, at + 0x1a, 2), 0x40);
    assert_int_equal(get(bench, PORT_SLOT, at + 0x12, 2), 0x2104);
    pci_device_detach(&plain.pci);
    assert_int_equal(get(bench, PORT_SLOT, at + 0x1a, 2), 0);
    port_remove(port);
}

static void bus_numbers(void **state)
{
    struct bench *bench = *state;
    struct pci_root_port *one = port_create(bench->bus, 1), *two = port_create(bench->bus, 2);
    struct pci_root_port *below = port_create(pci_root_port_bus(two), 0);
    struct plain plain[2];

    attach_to(bench, &plain[0], pci_root_port_bus(one));
    attach_to(bench, &plain[1], pci_root_port_bus(below));
    /* Before there are numbers only bus 0 exists. */
    for (unsigned bus = 1; bus < 256; bus++)
        assert_int_equal(get(bench, on_bus(bus, 0), 0, 4), 0xffffffff);
    number(bench, 1, 0, 7, 7);
    assert_int_equal(get(bench, on_bus(7, 0), 0, 4), 0x56781234);
    number(bench, 2, 0, 16, 31);
    assert_int_equal(get(bench, on_bus(16, 0), 0, 4), 0x000c1b36);
    assert_int_equal(get(bench, on_bus(17, 0), 0, 4), 0xffffffff);
    number(bench, on_bus(16, 0), 16, 20, 20);
    assert_int_equal(get(bench, on_bus(20, 0), 0, 4), 0x56781234);
    assert_int_equal(get(bench, on_bus(20, 1), 0, 4), 0xffffffff);
    put(bench, on_bus(20, 0), 0x3c, 1, 0x12);
    assert_int_equal(plain[1].pci.config[0x3c], 0x12);
    /* The upper bridge no longer lets the number through. */
    number(bench, 2, 0, 16, 19);
    assert_int_equal(get(bench, on_bus(20, 0), 0, 4), 0xffffffff);
    /* Numbers that make no sense: 0, itself, overlaps, upside down. */
    number(bench, 2, 0, 0, 255);
    assert_int_equal(get(bench, 0, 0, 4), 0x00081b36);
    number(bench, 2, 0, 7, 7);
    number(bench, on_bus(7, 0), 7, 7, 7);
    number(bench, 2, 0, 200, 100);
    assert_int_equal(get(bench, on_bus(150, 0), 0, 4), 0xffffffff);
    number(bench, 1, 0, 255, 255);
    assert_int_equal(get(bench, on_bus(255, 0), 0, 4), 0x56781234);
    for (unsigned i = 0; i < 2; i++)
        pci_device_detach(&plain[i].pci);
    port_remove(below);
    port_remove(two);
    port_remove(one);
}

static void windows(void **state)
{
    struct bench *bench = *state;
    struct pci_root_port *port = port_create(bench->bus, PORT_SLOT);
    struct plain plain;

    attach_to(bench, &plain, pci_root_port_bus(port));
    number(bench, PORT_SLOT, 0, 1, 1);
    unsigned child = on_bus(1, 0);
    assign(bench, child, MEM32 + 0x300000, 0x2000, MEM64 + 0x40000000);
    put(bench, child, COMMAND, 2, COMMAND_ALL);
    assert_false(responds(bench, MEM32 + 0x300000)); /* the port decodes nothing yet */
    put(bench, PORT_SLOT, COMMAND, 2, COMMAND_ALL);
    assert_false(responds(bench, MEM32 + 0x300000)); /* its windows are elsewhere */
    open_memory(bench, PORT_SLOT, MEM32 + 0x300000, 0x100000);
    assert_true(responds(bench, MEM32 + 0x300000));
    assert_false(responds(bench, MEM64 + 0x40000000));
    open_prefetchable(bench, PORT_SLOT, MEM64, 0x80000000);
    assert_true(responds(bench, MEM64 + 0x40000000));
    assert_false(responds(bench, IO_BASE + 0x2000));
    put(bench, PORT_SLOT, 0x1c, 2, 0x2020);
    assert_true(responds(bench, IO_BASE + 0x2000));
    put(bench, PORT_SLOT, 0x30, 4, 0x00010001); /* far above */
    assert_false(responds(bench, IO_BASE + 0x2000));
    put(bench, PORT_SLOT, 0x30, 4, 0);
    /* A window must hold all of a BAR; closed, it holds nothing. */
    open_prefetchable(bench, PORT_SLOT, MEM64 + 0x40100000, 0x100000);
    assert_false(responds(bench, MEM64 + 0x40000000));
    open_memory(bench, PORT_SLOT, MEM32 + 0x400000, 0);
    assert_false(responds(bench, MEM32 + 0x300000));
    /* Either memory window forwards, whatever the BAR says of itself. */
    open_prefetchable(bench, PORT_SLOT, MEM32 + 0x300000, 0x100000);
    assert_true(responds(bench, MEM32 + 0x300000));
    put(bench, PORT_SLOT, COMMAND, 2, 1);
    assert_false(responds(bench, MEM32 + 0x300000));
    assert_true(responds(bench, IO_BASE + 0x2000));
    /* All of it comes back from a saved state. */
    put(bench, PORT_SLOT, COMMAND, 2, COMMAND_ALL);
    struct device *device = pci_root_port_device(port);
    struct stream *saving = stream_create_saving();
    device->type->state(device, saving);
    size_t size;
    const void *bytes = stream_data(saving, &size);
    device->type->reset(device);
    assert_false(responds(bench, MEM32 + 0x300000));
    struct stream *loading = stream_create_loading(bytes, size);
    device->type->state(device, loading);
    assert_true(stream_check(loading, NULL));
    assert_true(responds(bench, MEM32 + 0x300000));
    stream_destroy(loading);
    stream_destroy(saving);
    pci_device_detach(&plain.pci);
    assert_false(responds(bench, MEM32 + 0x300000));
    port_remove(port);
}

/* What a GPU with all of its memory in a BAR needs. */
static void a_bar_of_32_gib(void **state)
{
    struct bench *bench = *state;
    struct pci_root_port *port = port_create(bench->bus, PORT_SLOT);
    struct plain plain;
    const uint64_t size = UINT64_C(32) << 30, base = 3 * size;

    memset(&plain, 0, sizeof(plain));
    pci_device_init(&plain.pci, &plain_type, &plain_identity);
    pci_add_bar(&plain.pci, 0, PCI_BAR_MEMORY64, true, size, &plain_ops, &plain.word[0]);
    assert_true(pci_device_attach(&plain.pci, pci_root_port_bus(port), 0, NULL));
    number(bench, PORT_SLOT, 0, 1, 1);
    put(bench, PORT_SLOT, COMMAND, 2, COMMAND_ALL);
    unsigned child = on_bus(1, 0);
    put(bench, child, BAR(0), 4, 0xffffffff);
    put(bench, child, BAR(1), 4, 0xffffffff);
    assert_int_equal(get(bench, child, BAR(0), 4), 0xc);
    assert_int_equal(get(bench, child, BAR(1), 4), 0xfffffff8);
    put(bench, child, BAR(0), 4, 0);
    put(bench, child, BAR(1), 4, base >> 32);
    put(bench, child, COMMAND, 2, COMMAND_ALL);
    open_prefetchable(bench, PORT_SLOT, base, size / 2);
    assert_false(responds(bench, base));
    open_prefetchable(bench, PORT_SLOT, base, size);
    assert_true(responds(bench, base));
    assert_true(responds(bench, base + size - 4));
    assert_false(responds(bench, base + size));
    pci_device_detach(&plain.pci);
    port_remove(port);
}

static void pins_turn_at_each_bridge(void **state)
{
    struct bench *bench = *state;
    struct pci_root_port *port = port_create(bench->bus, 2);
    struct pci_root_port *below = port_create(pci_root_port_bus(port), 3);
    struct plain plain;

    attach_to(bench, &plain, pci_root_port_bus(below));
    pci_set_intx(&plain.pci, true); /* INTA of slot 0, in slot 3, in slot 2 */
    for (unsigned line = 0; line < 4; line++)
        assert_int_equal(bench->level[line], line == (0 + 3 + 2) % 4);
    pci_device_detach(&plain.pci);
    assert_int_equal(bench->level[1], 0);
    port_remove(below);
    port_remove(port);
}

static void bus_mastering_needs_all_bridges(void **state)
{
    struct bench *bench = *state;
    struct pci_root_port *port = port_create(bench->bus, 2);
    struct pci_root_port *below = port_create(pci_root_port_bus(port), 0);
    struct plain plain;

    attach_to(bench, &plain, pci_root_port_bus(below));
    number(bench, 2, 0, 1, 2);
    number(bench, on_bus(1, 0), 1, 2, 2);
    put(bench, on_bus(2, 0), COMMAND, 2, COMMAND_ALL);
    assert_false(plain.pci.bus_master);
    put(bench, 2, COMMAND, 2, COMMAND_ALL);
    assert_false(plain.pci.bus_master);
    put(bench, on_bus(1, 0), COMMAND, 2, COMMAND_ALL);
    assert_true(plain.pci.bus_master);
    put(bench, 2, COMMAND, 2, 3);
    assert_false(plain.pci.bus_master);
    put(bench, 2, COMMAND, 2, COMMAND_ALL);
    assert_true(plain.pci.bus_master);
    pci_device_detach(&plain.pci);
    port_remove(below);
    port_remove(port);
}

#define NOWHERE (MEM32 + 0x20000000)

/* --- BARs that move while other harts use them -------------------------------------------------
 */

static struct {
    struct bench *bench;
    _Atomic uint64_t old; /* not there any more */
    _Atomic bool end;
    _Atomic unsigned wrong, reads;
} watch;

/* As a hart does that has the old address in its TLB: registers are looked up each time. */
static void *read_old(void *opaque)
{
    while (!watch.end) {
        uint64_t old = watch.old, value;
        bool there = memory_read(watch.bench->memory, old, 4, &value);
        if (there && old == watch.old)
            watch.wrong++;
        watch.reads++;
    }
    return NULL;
}

static void a_moved_bar_is_gone_at_once(void **state)
{
    struct bench *bench = *state;
    struct pci_root_port *port = port_create(bench->bus, PORT_SLOT);
    struct plain plain;
    pthread_t threads[2];

    attach_to(bench, &plain, pci_root_port_bus(port));
    number(bench, PORT_SLOT, 0, 1, 1);
    put(bench, PORT_SLOT, COMMAND, 2, COMMAND_ALL);
    open_memory(bench, PORT_SLOT, MEM32, 0x10000000);
    assign(bench, on_bus(1, 0), MEM32 + 0x10000000 - 0x10000, 0, 0);
    put(bench, on_bus(1, 0), COMMAND, 2, COMMAND_ALL);
    memset(&watch, 0, sizeof(watch));
    watch.bench = bench;
    watch.old = NOWHERE;
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_old, NULL), 0);
    for (unsigned i = 0; i < 300 || watch.reads < 1000; i++) {
        uint64_t from = MEM32 + 0x10000 * (i % 4000), to = MEM32 + 0x10000 * ((i + 1) % 4000);
        watch.old = NOWHERE; /* an address that is used again is looked at no more */
        put(bench, on_bus(1, 0), BAR(0), 4, to);
        assert_true(responds(bench, to));
        watch.old = from;
    }
    /* By the port's window as well. */
    uint64_t value, at = get(bench, on_bus(1, 0), BAR(0), 4);
    watch.old = NOWHERE;
    assert_true(memory_read(bench->memory, at, 4, &value));
    open_memory(bench, PORT_SLOT, MEM32 + 0x1000000, 0x100000);
    watch.old = at;
    while (watch.reads < 2000)
        ;
    watch.end = true;
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(watch.wrong, 0);
    pci_device_detach(&plain.pci);
    port_remove(port);
}

static void virtio_behind_a_port(void **state)
{
    struct bench *bench = *state;
    struct pci_root_port *port = port_create(bench->bus, PORT_SLOT);
    struct virtio_device *rng = virtio_rng_create("rng0", bench->loop);

    assert_true(virtio_pci_attach(pci_root_port_bus(port), 0, rng, NULL));
    number(bench, PORT_SLOT, 0, 9, 9);
    put(bench, PORT_SLOT, COMMAND, 2, COMMAND_ALL);
    open_prefetchable(bench, PORT_SLOT, MEM64, 0x100000);
    put(bench, on_bus(9, 0), BAR(4), 4, 0x4000);
    put(bench, on_bus(9, 0), BAR(5), 4, MEM64 >> 32);
    put(bench, on_bus(9, 0), COMMAND, 2, COMMAND_ALL);
    assert_int_equal(get(bench, on_bus(9, 0), 0, 4), 0x10441af4);
    assert_true(responds(bench, MEM64 + 0x4000));
    rng->base.type->remove(&rng->base);
    port_remove(port);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(header),
        TEST(slot_and_link),
        TEST(bus_numbers),
        TEST(windows),
        TEST(a_bar_of_32_gib),
        TEST(pins_turn_at_each_bridge),
        TEST(bus_mastering_needs_all_bridges),
        TEST(a_moved_bar_is_gone_at_once),
        TEST(virtio_behind_a_port),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
