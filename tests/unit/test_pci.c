/* The host bridge, configuration space, BARs, INTx, and virtio over PCI. */
#include "pci_bench.h"

static void test_config_space(void **state)
{
    struct bench *bench = *state;
    struct plain plain;

    plain_attach(bench, &plain, 3);
    assert_int_equal(get(bench, 0, 0x00, 4), 0x00081b36);
    assert_int_equal(get(bench, 0, 0x08, 4), 0x06000000);
    assert_int_equal(get(bench, 3, 0x00, 4), 0x56781234);
    assert_int_equal(get(bench, 3, 0x02, 2), 0x5678);
    assert_int_equal(get(bench, 3, 0x01, 1), 0x12);
    assert_int_equal(get(bench, 3, 0x08, 4), 0x01020304);
    assert_int_equal(get(bench, 3, 0x2c, 4), 0xdef09abc);
    assert_int_equal(get(bench, 3, 0x00, 8) >> 32, get(bench, 3, 0x04, 4));
    /* Functions, slots and buses that are not there. */
    assert_int_equal(get(bench, 4, 0x00, 4), 0xffffffff);
    assert_int_equal(get(bench, 4, 0x03, 1), 0xff);
    assert_int_equal(get(bench, 3, 0x1000, 2), 0xffff);
    assert_int_equal(get(bench, 255 * 32 + 3, 0x00, 4), 0xffffffff);
    put(bench, 4, 0x04, 4, 0xffffffff);
    /* Read-only bytes stay; what is writable is so by the byte. */
    put(bench, 3, 0x00, 4, 0);
    assert_int_equal(get(bench, 3, 0x00, 4), 0x56781234);
    put(bench, 3, 0x3c, 1, 0x55);
    assert_int_equal(get(bench, 3, 0x3c, 2), 0x0155);
    put(bench, 3, 0x05, 1, 0xff);
    assert_int_equal(get(bench, 3, COMMAND, 2), 0x0500);
    put(bench, 3, 0x05, 1, 0);
    struct plain second;
    memset(&second, 0, sizeof(second));
    pci_device_init(&second.pci, &plain_type, &plain_identity);
    struct error err = {0};
    assert_false(pci_device_attach(&second.pci, bench->bus, PCI_DEVFN(3, 0), &err));
    assert_non_null(strstr(err.message, "3.0"));
    assert_true(pci_device_attach(&second.pci, bench->bus, PCI_DEVFN(3, 1), NULL));
    assert_int_equal(get(bench, 3, 0x0e, 1), 0x80);
    pci_device_detach(&second.pci);
    pci_device_detach(&plain.pci);
    assert_int_equal(get(bench, 3, 0x00, 4), 0xffffffff);
}

static void test_bar_sizing(void **state)
{
    struct bench *bench = *state;
    struct plain plain;

    plain_attach(bench, &plain, 1);
    for (unsigned i = 0; i < 6; i++)
        put(bench, 1, BAR(i), 4, 0xffffffff);
    assert_int_equal(get(bench, 1, BAR(0), 4), 0xfffff000);
    assert_int_equal(get(bench, 1, BAR(1), 4), 0xffffffe1);
    assert_int_equal(get(bench, 1, BAR(2), 4), 0xfff0000c);
    assert_int_equal(get(bench, 1, BAR(3), 4), 0xffffffff);
    assert_int_equal(get(bench, 1, BAR(4), 4), 0xffffe000);
    assert_int_equal(get(bench, 1, BAR(5), 4), 0);
    assert_int_equal(get(bench, 1, 0x30, 4), 0);
    /* With decoding on as well: outside the windows nothing is mapped. */
    put(bench, 1, COMMAND, 2, COMMAND_ALL);
    assert_false(responds(bench, 0xfffff000));
    pci_device_detach(&plain.pci);
}

static void test_bar_mapping(void **state)
{
    struct bench *bench = *state;
    struct plain plain;
    uint64_t value;

    plain_attach(bench, &plain, 1);
    assign(bench, 1, MEM32 + 0x10000, 0x1000, MEM64 + 0x100000);
    assert_false(responds(bench, MEM32 + 0x10000));
    put(bench, 1, COMMAND, 2, 0x2);
    assert_false(responds(bench, IO_BASE + 0x1000));
    assert_true(memory_write(bench->memory, MEM32 + 0x10ff0, 4, 77));
    assert_int_equal(plain.word[0], 77);
    assert_true(memory_read(bench->memory, MEM64 + 0x100008, 4, &value));
    assert_int_equal(value, 8);
    put(bench, 1, COMMAND, 2, 0x3);
    assert_true(memory_write(bench->memory, IO_BASE + 0x101c, 4, 99));
    assert_int_equal(plain.word[1], 99);
    assert_false(responds(bench, IO_BASE + 0x1020));
    /* A move while enabled, in two halves for the 64-bit one. */
    put(bench, 1, BAR(0), 4, MEM32 + 0x20000);
    assert_false(responds(bench, MEM32 + 0x10000));
    assert_true(responds(bench, MEM32 + 0x20ffc));
    assert_false(responds(bench, MEM32 + 0x21000));
    put(bench, 1, BAR(3), 4, 0);
    assert_false(responds(bench, MEM64 + 0x100000));
    put(bench, 1, BAR(2), 4, MEM32 + 0x500000); /* a 64-bit BAR below 4 GiB */
    assert_true(responds(bench, MEM32 + 0x500000));
    /* Partly outside its window. */
    put(bench, 1, BAR(1), 4, 0xfff0);
    assert_true(responds(bench, IO_BASE + 0xffe0));
    put(bench, 1, BAR(1), 4, 0x10000);
    assert_false(responds(bench, IO_BASE + 0x10000));
    put(bench, 1, COMMAND, 2, 0);
    assert_false(responds(bench, MEM32 + 0x20000));
    assert_false(responds(bench, MEM32 + 0x500000));
    pci_device_detach(&plain.pci);
}

/* Two BARs change places, and one is put on top of another: the later one waits. */
static void test_bar_conflicts(void **state)
{
    struct bench *bench = *state;
    struct plain one, two;

    plain_attach(bench, &one, 1);
    plain_attach(bench, &two, 2);
    put(bench, 1, BAR(0), 4, MEM32 + 0x1000);
    put(bench, 2, BAR(0), 4, MEM32 + 0x1000);
    put(bench, 1, COMMAND, 2, 2);
    put(bench, 2, COMMAND, 2, 2);
    assert_true(memory_write(bench->memory, MEM32 + 0x1000, 4, 5));
    assert_int_equal(one.word[0], 5);
    put(bench, 1, BAR(0), 4, MEM32 + 0x2000);
    assert_true(memory_write(bench->memory, MEM32 + 0x1000, 4, 6));
    assert_true(memory_write(bench->memory, MEM32 + 0x2000, 4, 7));
    assert_int_equal(two.word[0], 6);
    assert_int_equal(one.word[0], 7);
    /* Onto RAM and onto the ECAM nothing can be put: they are outside the windows. */
    put(bench, 1, BAR(0), 4, RAM_BASE);
    put(bench, 2, BAR(0), 4, ECAM);
    assert_int_equal(get(bench, 0, 0, 4), 0x00081b36);
    pci_device_detach(&one.pci);
    pci_device_detach(&two.pci);
    assert_false(responds(bench, MEM32 + 0x1000));
    assert_false(responds(bench, MEM32 + 0x2000));
}

/* A BAR that its owner maps. */
static void test_owner_mapping(void **state)
{
    struct bench *bench = *state;
    struct plain plain;

    plain_attach(bench, &plain, 1);
    put(bench, 1, BAR(4), 4, MEM32 + 0x4000);
    put(bench, 1, COMMAND, 2, 2);
    assert_int_equal(plain.moved_to, MEM32 + 0x4000);
    put(bench, 1, BAR(4), 4, MEM32 + 0x8000);
    assert_int_equal(plain.moved_to, MEM32 + 0x8000);
    pci_device_reset(&plain.pci);
    assert_true(plain.moved_to == PCI_UNMAPPED);
    pci_device_detach(&plain.pci);
}

static void test_intx(void **state)
{
    struct bench *bench = *state;
    struct plain plain[5];

    for (unsigned i = 0; i < 5; i++)
        plain_attach(bench, &plain[i], 1 + i);
    for (unsigned i = 0; i < 4; i++) {
        pci_set_intx(&plain[i].pci, true);
        for (unsigned line = 0; line < 4; line++)
            assert_int_equal(bench->level[line], line == (1 + i) % 4);
        assert_true(get(bench, 1 + i, 0x06, 2) & 8);
        pci_set_intx(&plain[i].pci, false);
        assert_false(get(bench, 1 + i, 0x06, 2) & 8);
    }
    /* Slots 1 and 5 share a line. */
    pci_set_intx(&plain[0].pci, true);
    pci_set_intx(&plain[4].pci, true);
    pci_set_intx(&plain[4].pci, true);
    pci_set_intx(&plain[0].pci, false);
    assert_int_equal(bench->level[1], 1);
    /* Held back, but still shown in the status register. */
    put(bench, 5, COMMAND, 2, 0x400);
    assert_int_equal(bench->level[1], 0);
    assert_true(get(bench, 5, COMMAND, 4) & 0x80000);
    put(bench, 5, COMMAND, 2, 0);
    assert_int_equal(bench->level[1], 1);
    pci_device_detach(&plain[4].pci);
    assert_int_equal(bench->level[1], 0);
    for (unsigned i = 0; i < 4; i++)
        pci_device_detach(&plain[i].pci);
}

static void test_capabilities(void **state)
{
    struct bench *bench = *state;
    struct plain plain;
    unsigned at;

    memset(&plain, 0, sizeof(plain));
    pci_device_init(&plain.pci, &plain_type, &plain_identity);
    at = pci_add_capability(&plain.pci, 0x05, 14);
    assert_int_equal(at % 4, 0);
    store_le16(plain.pci.writable + at + 2, 0xff);
    pci_add_capability(&plain.pci, 0x10, 60);
    pci_add_extended_capability(&plain.pci, 0x0001, 2, 0x48);
    pci_add_extended_capability(&plain.pci, 0x000e, 1, 8);
    assert_true(pci_device_attach(&plain.pci, bench->bus, PCI_DEVFN(9, 0), NULL));
    assert_true(get(bench, 9, 0x06, 2) & 0x10);
    at = get(bench, 9, 0x34, 1);
    assert_int_equal(get(bench, 9, at, 1), 0x05);
    put(bench, 9, at + 2, 2, 0x1ab);
    assert_int_equal(get(bench, 9, at + 2, 2), 0xab);
    at = get(bench, 9, at + 1, 1);
    assert_int_equal(get(bench, 9, at, 2), 0x0010);
    assert_int_equal(get(bench, 9, 0x100, 4), 0x14820001);
    assert_int_equal(get(bench, 9, 0x148, 4), 0x0001000e);
    pci_device_detach(&plain.pci);
}

static void test_state(void **state)
{
    struct bench *bench = *state;
    struct device *host = pci_host_device(bench->host);
    struct stream *saving = stream_create_saving(), *loading;
    struct plain plain;
    const void *bytes;
    size_t size;

    plain_attach(bench, &plain, 1);
    assign(bench, 1, MEM32 + 0x10000, 0x1000, MEM64);
    put(bench, 1, COMMAND, 2, COMMAND_ALL);
    put(bench, 0, 0x3c, 1, 0x77);
    host->type->state(host, saving);
    pci_device_state(&plain.pci, saving);
    bytes = stream_data(saving, &size);
    pci_device_reset(&plain.pci);
    host->type->reset(host);
    assert_false(responds(bench, MEM32 + 0x10000));
    assert_false(plain.pci.bus_master);
    assert_int_equal(get(bench, 0, 0x3c, 1), 0);

    loading = stream_create_loading(bytes, size);
    host->type->state(host, loading);
    pci_device_state(&plain.pci, loading);
    assert_true(stream_check(loading, NULL));
    stream_destroy(loading);
    assert_true(responds(bench, MEM32 + 0x10000));
    assert_true(responds(bench, IO_BASE + 0x1000));
    assert_true(responds(bench, MEM64));
    assert_true(plain.pci.bus_master);
    assert_int_equal(get(bench, 0, 0x3c, 1), 0x77);

    /* Nothing that the guest cannot write is taken from a stream. */
    uint8_t *forged = xmalloc(size);
    memcpy(forged, bytes, size);
    memset(forged + size - 4096, 0xff, 4096);
    loading = stream_create_loading(forged, size);
    host->type->state(host, loading);
    pci_device_state(&plain.pci, loading);
    stream_destroy(loading);
    assert_int_equal(get(bench, 1, 0x00, 4), 0x56781234);
    assert_int_equal(get(bench, 1, 0x34, 1), 0);
    free(forged);
    stream_destroy(saving);
    pci_device_detach(&plain.pci);
}

/* virtio-rng over PCI, found and driven as a driver does it, without Linux. */
#define SLOT   2
#define COMMON (MEM64 + 0x4000)
#define RINGS  RAM_BASE

static unsigned find_capability(struct bench *bench, unsigned slot, unsigned cfg_type)
{
    unsigned at = get(bench, slot, 0x34, 1);

    while (at && !(get(bench, slot, at, 1) == 0x09 && get(bench, slot, at + 3, 1) == cfg_type))
        at = get(bench, slot, at + 1, 1);
    return at;
}

static uint64_t region_gpa(struct bench *bench, unsigned cfg_type)
{
    unsigned at = find_capability(bench, SLOT, cfg_type);

    assert_int_not_equal(at, 0);
    assert_int_equal(get(bench, SLOT, at + 4, 1), 4);
    return COMMON + get(bench, SLOT, at + 8, 4);
}

static void write_register(struct bench *bench, uint64_t gpa, unsigned size, uint64_t value)
{
    assert_true(memory_write(bench->memory, gpa, size, value));
}

static uint64_t read_register(struct bench *bench, uint64_t gpa, unsigned size)
{
    uint64_t value = 0;

    assert_true(memory_read(bench->memory, gpa, size, &value));
    return value;
}

static struct virtio_device *rng_start(struct bench *bench)
{
    struct virtio_device *rng = virtio_rng_create("rng0", bench->loop);
    uint64_t common;

    assert_true(virtio_pci_attach(bench->bus, SLOT, rng, NULL));
    assert_int_equal(get(bench, SLOT, 0x00, 4), 0x10441af4);
    assert_int_equal(get(bench, SLOT, 0x08, 1), 1);
    put(bench, SLOT, BAR(4), 4, (uint32_t)COMMON);
    put(bench, SLOT, BAR(5), 4, COMMON >> 32);
    put(bench, SLOT, COMMAND, 2, 0x2);
    common = region_gpa(bench, 1);
    write_register(bench, common + 0x14, 1, 0x3);
    write_register(bench, common + 0x08, 4, 1);
    write_register(bench, common + 0x0c, 4, 1);
    write_register(bench, common + 0x14, 1, 0xb);
    assert_int_equal(read_register(bench, common + 0x14, 1), 0xb);
    assert_int_equal(read_register(bench, common + 0x12, 2), 1);
    assert_int_equal(read_register(bench, common + 0x18, 2), 8);
    assert_int_equal(read_register(bench, common + 0x1a, 2), 0xffff);
    write_register(bench, common + 0x20, 4, RINGS);
    write_register(bench, common + 0x28, 4, RINGS + 0x1000);
    write_register(bench, common + 0x30, 8, RINGS + 0x2000); /* both halves at once */
    write_register(bench, common + 0x1c, 2, 1);
    write_register(bench, common + 0x14, 1, 0xf);
    return rng;
}

static void rng_request(struct bench *bench, uint16_t index)
{
    struct {
        uint64_t gpa;
        uint32_t size;
        uint16_t flags, next;
    } desc = {RAM_BASE + 0x8000, 32, 2, 0};

    memory_dma_fill(bench->memory, RAM_BASE + 0x8000, 0, 64);
    memory_dma_write(bench->memory, RINGS, &desc, sizeof(desc));
    memory_dma_write(bench->memory, RINGS + 0x1002, &index, 2);
    write_register(bench, region_gpa(bench, 2), 2, 0);
    for (unsigned i = 0; i < 4; i++)
        loop_turn(bench->loop, 0);
}

static uint16_t rng_used(struct bench *bench)
{
    uint16_t used = 0;

    memory_dma_read(bench->memory, RINGS + 0x2002, &used, 2);
    return used;
}

static bool buffer_filled(struct bench *bench)
{
    uint8_t bytes[64];
    unsigned inside = 0, behind = 0;

    memory_dma_read(bench->memory, RAM_BASE + 0x8000, bytes, sizeof(bytes));
    for (unsigned i = 0; i < 64; i++)
        *(i < 32 ? &inside : &behind) += bytes[i] != 0;
    return inside > 20 && behind == 0;
}

static void test_virtio_pci(void **state)
{
    struct bench *bench = *state;
    struct virtio_device *rng = rng_start(bench);
    uint64_t isr = region_gpa(bench, 3);

    /* No DMA before the device may master the bus; then the request is not lost. */
    rng_request(bench, 1);
    assert_int_equal(rng_used(bench), 0);
    put(bench, SLOT, COMMAND, 2, 0x6);
    for (unsigned i = 0; i < 4; i++)
        loop_turn(bench->loop, 0);
    assert_int_equal(rng_used(bench), 1);
    assert_true(buffer_filled(bench));
    assert_int_equal(bench->level[2], 1);
    assert_int_equal(read_register(bench, isr, 1), 1);
    assert_int_equal(bench->level[2], 0);
    assert_int_equal(read_register(bench, isr, 1), 0);

    /* Through the configuration access capability. */
    unsigned access = find_capability(bench, SLOT, 5);
    put(bench, SLOT, access + 4, 1, 4);
    put(bench, SLOT, access + 8, 4, 0x14);
    put(bench, SLOT, access + 12, 4, 1);
    assert_int_equal(get(bench, SLOT, access + 16, 1), 0xf);
    put(bench, SLOT, access + 16, 4, 0xffffff00); /* only one byte of it arrives */
    assert_int_equal(read_register(bench, region_gpa(bench, 1) + 0x14, 1), 0);
    put(bench, SLOT, access + 8, 4, 0xfffffffc);
    put(bench, SLOT, access + 12, 4, 4);
    get(bench, SLOT, access + 16, 4);
    put(bench, SLOT, access + 12, 4, 3);
    put(bench, SLOT, access + 16, 4, 0);
    /* Odd accesses are refused quietly. */
    read_register(bench, COMMON + 0x3d, 1);
    write_register(bench, COMMON + 0x17, 1, 0xff);
    write_register(bench, COMMON + 0x3ffc, 4, 0xff);

    rng->base.type->remove(&rng->base);
    assert_int_equal(get(bench, SLOT, 0, 4), 0xffffffff);
}

static void test_virtio_pci_state(void **state)
{
    struct bench *bench = *state;
    struct virtio_device *rng = rng_start(bench);
    struct stream *saving = stream_create_saving(), *loading;
    const void *bytes;
    size_t size;

    put(bench, SLOT, COMMAND, 2, 0x6);
    rng_request(bench, 1);
    assert_int_equal(bench->level[2], 1);
    rng->base.type->quiesce(&rng->base);
    rng->base.type->state(&rng->base, saving);
    assert_true(stream_check(saving, NULL));
    bytes = stream_data(saving, &size);
    rng->base.type->remove(&rng->base);
    assert_int_equal(bench->level[2], 0);
    assert_false(responds(bench, COMMON));

    rng = virtio_rng_create("rng0", bench->loop);
    assert_true(virtio_pci_attach(bench->bus, SLOT, rng, NULL));
    loading = stream_create_loading(bytes, size);
    rng->base.type->state(&rng->base, loading);
    assert_true(stream_check(loading, NULL));
    stream_destroy(loading);
    stream_destroy(saving);
    assert_int_equal(bench->level[2], 1);
    rng_request(bench, 2);
    assert_int_equal(rng_used(bench), 2);
    assert_true(buffer_filled(bench));
    rng->base.type->reset(&rng->base);
    assert_int_equal(bench->level[2], 0);
    assert_false(responds(bench, COMMON));
    assert_int_equal(get(bench, SLOT, BAR(4), 4), 0xc);
    rng->base.type->remove(&rng->base);
}

/* One hart moves a BAR about while another accesses it and a third reads configuration space. */
struct race {
    struct bench *bench;
    atomic_bool stop;
};

static void *race_access(void *opaque)
{
    struct race *race = opaque;
    uint64_t value;

    while (!race->stop) {
        memory_read(race->bench->memory, MEM32 + 0x1000, 4, &value);
        memory_write(race->bench->memory, MEM32 + 0x2000, 4, 1);
    }
    return NULL;
}

static void *race_configure(void *opaque)
{
    struct race *race = opaque;

    for (unsigned i = 0; !race->stop; i++) {
        memory_write(race->bench->memory, config_gpa(1, COMMAND), 2, i % 2 ? 2 : 0);
        memory_write(race->bench->memory, config_gpa(2, BAR(0)), 4, MEM32 + 0x1000 * (i % 3));
    }
    return NULL;
}

static void test_race(void **state)
{
    struct bench *bench = *state;
    struct race race = {.bench = bench};
    struct plain one, two;
    pthread_t access, configure;

    plain_attach(bench, &one, 1);
    plain_attach(bench, &two, 2);
    put(bench, 2, COMMAND, 2, 2);
    pthread_create(&access, NULL, race_access, &race);
    pthread_create(&configure, NULL, race_configure, &race);
    for (unsigned i = 0; i < 20000; i++)
        put(bench, 1, BAR(0), 4, MEM32 + 0x1000 * (1 + i % 2));
    race.stop = true;
    pthread_join(access, NULL);
    pthread_join(configure, NULL);
    put(bench, 2, COMMAND, 2, 0);
    put(bench, 1, COMMAND, 2, 2);
    put(bench, 1, BAR(0), 4, MEM32 + 0x1000);
    assert_true(responds(bench, MEM32 + 0x1000));
    assert_false(responds(bench, MEM32 + 0x2000));
    pci_device_detach(&one.pci);
    pci_device_detach(&two.pci);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_config_space),     TEST(test_bar_sizing),    TEST(test_bar_mapping),
        TEST(test_bar_conflicts),    TEST(test_owner_mapping), TEST(test_intx),
        TEST(test_capabilities),     TEST(test_state),         TEST(test_virtio_pci),
        TEST(test_virtio_pci_state), TEST(test_race),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
