/* virtio-blk, driven as a guest drives it: real queues in guest RAM, the MMIO transport, a file. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "virtio/blk.h"
#include "virtio_driver.h"

#define DISK_SIZE    (UINT64_C(1) << 20)
#define DISK_SECTORS (DISK_SIZE / 512)
#define QUEUE_SIZE   64

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2, S_NONE = 0xee };

#define F_RO           5
#define F_FLUSH        9
#define F_CONFIG_WCE   11
#define F_DISCARD      13
#define F_WRITE_ZEROES 14
#define F_INDIRECT     VIRTIO_RING_INDIRECT_DESC
#define ALL_FEATURES                                                                               \
    (BIT(F_FLUSH) | BIT(F_CONFIG_WCE) | BIT(F_DISCARD) | BIT(F_WRITE_ZEROES) | BIT(F_INDIRECT) |   \
     BIT(VIRTIO_RING_EVENT_IDX))

struct bench {
    struct loop *loop;
    struct memory *memory;
    struct virtio_mmio *slot;
    struct virtio_device *device;
    struct driver driver;
    unsigned code_writes;
};

static char folder[] = "/tmp/test-virtio-blk-XXXXXX";
static char image[64];

static void code_written(void *opaque, uint64_t gpa, uint64_t size)
{
    ((struct bench *)opaque)->code_writes++;
}

static void bench_open(struct bench *bench, bool read_only, bool snapshot)
{
    struct block_config config = {image, read_only, snapshot, BLOCK_ENGINE_AUTO};
    struct memory_listener listener = {.code_written = code_written, .opaque = bench};
    struct error err = {0};
    *bench = (struct bench){.loop = loop_create(), .memory = memory_create()};
    memory_set_listener(bench->memory, &listener);
    assert_true(memory_add_ram(bench->memory, DRIVER_RAM_BASE, DRIVER_RAM_SIZE, NULL));
    bench->slot =
        virtio_mmio_create(bench->memory, DRIVER_SLOT, (struct irq_line){0}, "slot0", NULL);
    assert_non_null(bench->slot);
    bench->device = virtio_blk_create("disk0", &config, bench->loop, &err);
    if (!bench->device)
        fail_msg("%s", err.message);
    assert_true(virtio_mmio_attach(bench->slot, bench->device, NULL));
    bench->driver = (struct driver){.memory = bench->memory, .slot = DRIVER_SLOT};
}

static void bench_close(struct bench *bench)
{
    struct device *slot = virtio_mmio_device(bench->slot);
    bench->device->base.type->remove(&bench->device->base);
    slot->type->remove(slot);
    memory_destroy(bench->memory);
    loop_destroy(bench->loop);
}

static void write_image(uint64_t size)
{
    int fd = open(image, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    close(fd);
}

static void image_access(uint64_t offset, void *bytes, size_t size, bool write)
{
    int fd = open(image, O_RDWR);
    ssize_t done =
        write ? pwrite(fd, bytes, size, (off_t)offset) : pread(fd, bytes, size, (off_t)offset);
    assert_int_equal(done, size);
    close(fd);
}

static void put(struct bench *bench, uint64_t gpa, const void *bytes, size_t size)
{
    assert_true(memory_dma_write(bench->memory, gpa, bytes, size));
}

static void get(struct bench *bench, uint64_t gpa, void *bytes, size_t size)
{
    assert_true(memory_dma_read(bench->memory, gpa, bytes, size));
}

static void pattern(uint8_t *bytes, size_t size, unsigned seed)
{
    for (size_t n = 0; n < size; n++)
        bytes[n] = (uint8_t)(seed + n * 11 + (n >> 9) * 3);
}

/* Where each request of the tests keeps its header, status and data. */
#define HEADER_GPA(slot) (DRIVER_BUFFERS + 0x20000 * (uint64_t)(slot))
#define STATUS_GPA(slot) (HEADER_GPA(slot) + 0x800)
#define DATA_GPA(slot)   (HEADER_GPA(slot) + 0x1000)

static void put_header(struct bench *bench, unsigned slot, uint32_t type, uint64_t sector)
{
    uint8_t header[16], none = S_NONE;
    store_le32(header, type);
    store_le32(header + 4, 0);
    store_le64(header + 8, sector);
    put(bench, HEADER_GPA(slot), header, sizeof(header));
    put(bench, STATUS_GPA(slot), &none, 1);
}

/* Offers header, data (if any) and status as three descriptors, from 3 * slot on. */
static void offer(struct bench *bench, unsigned slot, uint32_t type, uint64_t sector, uint32_t size,
                  bool device_writes)
{
    struct driver_desc descs[3] = {
        {HEADER_GPA(slot), 16, 0, 0},
        {DATA_GPA(slot), size, device_writes ? DESC_WRITE : 0, 0},
        {STATUS_GPA(slot), 1, DESC_WRITE, 0},
    };
    put_header(bench, slot, type, sector);
    if (!size)
        descs[1] = descs[2];
    driver_offer_chain(&bench->driver, 0, 3 * slot, descs, size ? 3 : 2);
}

static void wait_used(struct bench *bench, unsigned count)
{
    for (int turns = 0; turns < 500; turns++) {
        if ((uint16_t)(driver_used_index(&bench->driver, 0) - bench->driver.used[0]) >= count)
            return;
        loop_turn(bench->loop, 100);
    }
    fail_msg("requests did not finish");
}

static uint8_t status_of(struct bench *bench, unsigned slot)
{
    uint8_t status;
    get(bench, STATUS_GPA(slot), &status, 1);
    return status;
}

/* Waits for the request that was offered; returns its status, *written what the device wrote. */
static uint8_t finish(struct bench *bench, uint32_t *written)
{
    uint32_t head, size;
    driver_notify(&bench->driver, 0);
    wait_used(bench, 1);
    assert_true(driver_take(&bench->driver, 0, &head, &size));
    if (written)
        *written = size;
    return status_of(bench, head / 3);
}

static uint8_t request(struct bench *bench, uint32_t type, uint64_t sector, uint32_t size,
                       bool device_writes)
{
    offer(bench, 0, type, sector, size, device_writes);
    return finish(bench, NULL);
}

static uint64_t config64(struct bench *bench, unsigned offset)
{
    return driver_read(&bench->driver, MMIO_CONFIG + offset) |
           (uint64_t)driver_read(&bench->driver, MMIO_CONFIG + offset + 4) << 32;
}

static void test_config(void **state)
{
    struct bench bench;
    write_image(DISK_SIZE);
    bench_open(&bench, false, false);
    assert_int_equal(driver_read(&bench.driver, 0x008), 2);
    assert_int_equal(config64(&bench, 0), DISK_SECTORS);
    assert_int_equal(driver_read(&bench.driver, MMIO_CONFIG + 20), 512);
    assert_int_equal(driver_read(&bench.driver, MMIO_CONFIG + 24) & 0xff, 3); /* 4 KiB below */
    driver_start(&bench.driver, ALL_FEATURES, 1, QUEUE_SIZE);
    bench_close(&bench);

    bench_open(&bench, true, false);
    driver_write(&bench.driver, 0x014, 0);
    assert_true(driver_read(&bench.driver, MMIO_DEVICE_FEATURES) & BIT(F_RO));
    assert_false(driver_read(&bench.driver, MMIO_DEVICE_FEATURES) & BIT(F_DISCARD));
    bench_close(&bench);
}

static void test_read_write(void **state)
{
    static uint8_t out[65536], in[65536];
    struct bench bench;
    uint32_t written;
    write_image(DISK_SIZE);
    bench_open(&bench, false, false);
    driver_start(&bench.driver, ALL_FEATURES, 1, QUEUE_SIZE);

    pattern(out, sizeof(out), 1);
    put(&bench, DATA_GPA(0), out, sizeof(out));
    offer(&bench, 0, T_OUT, 3, sizeof(out), false);
    assert_int_equal(finish(&bench, &written), S_OK);
    assert_int_equal(written, 1);
    assert_int_equal(request(&bench, T_FLUSH, 0, 0, false), S_OK);
    image_access(3 * 512, in, sizeof(in), false);
    assert_memory_equal(in, out, sizeof(in));

    assert_true(memory_dma_fill(bench.memory, DATA_GPA(0), 0xaa, sizeof(out) + 512));
    memory_mark_code(bench.memory, DATA_GPA(0) + 4096);
    offer(&bench, 0, T_IN, 3, sizeof(out), true);
    assert_int_equal(finish(&bench, &written), S_OK);
    assert_int_equal(written, sizeof(out) + 1);
    assert_int_equal(bench.code_writes, 1); /* translated code learns of the read */
    get(&bench, DATA_GPA(0), in, sizeof(in));
    assert_memory_equal(in, out, sizeof(in));
    get(&bench, DATA_GPA(0) + sizeof(out), in, 1);
    assert_int_equal(in[0], 0xaa);

    /* the last sector can be used, the one behind it not */
    assert_int_equal(request(&bench, T_OUT, DISK_SECTORS - 1, 512, false), S_OK);
    assert_int_equal(request(&bench, T_OUT, DISK_SECTORS - 1, 1024, false), S_IOERR);
    assert_int_equal(request(&bench, T_IN, DISK_SECTORS, 512, true), S_IOERR);
    assert_int_equal(request(&bench, T_IN, UINT64_MAX, 512, true), S_IOERR);
    assert_int_equal(request(&bench, T_IN, UINT64_MAX / 512, 512, true), S_IOERR);
    assert_int_equal(request(&bench, T_OUT, (UINT64_C(1) << 55) + 1, 512, false), S_IOERR);
    assert_int_equal(request(&bench, T_IN, 0, 511, true), S_IOERR);
    assert_int_equal(request(&bench, T_IN, 0, 0, true), S_OK);
    bench_close(&bench);
}

/* Section 2.7.4.1: how a request is cut into descriptors means nothing. */
static void test_framing(void **state)
{
    uint8_t out[1024], in[1024];
    struct bench bench;
    write_image(DISK_SIZE);
    bench_open(&bench, false, false);
    driver_start(&bench.driver, ALL_FEATURES, 1, QUEUE_SIZE);
    pattern(out, sizeof(out), 99);

    /* header and data in pieces of odd sizes */
    put_header(&bench, 0, T_OUT, 7);
    put(&bench, DATA_GPA(0), out, sizeof(out));
    struct driver_desc write_descs[] = {
        {HEADER_GPA(0), 3, 0, 0},       {HEADER_GPA(0) + 3, 13, 0, 0},
        {DATA_GPA(0), 1, 0, 0},         {DATA_GPA(0) + 1, 1000, 0, 0},
        {DATA_GPA(0) + 1001, 23, 0, 0}, {STATUS_GPA(0), 1, DESC_WRITE, 0},
    };
    driver_offer_chain(&bench.driver, 0, 0, write_descs, ARRAY_SIZE(write_descs));
    assert_int_equal(finish(&bench, NULL), S_OK);
    image_access(7 * 512, in, sizeof(in), false);
    assert_memory_equal(in, out, sizeof(in));

    /* header and data to write in one descriptor */
    put(&bench, HEADER_GPA(0) + 16, out, 512);
    put_header(&bench, 0, T_OUT, 100);
    struct driver_desc joined[] = {{HEADER_GPA(0), 16 + 512, 0, 0},
                                   {STATUS_GPA(0), 1, DESC_WRITE, 0}};
    driver_offer_chain(&bench.driver, 0, 0, joined, 2);
    assert_int_equal(finish(&bench, NULL), S_OK);
    image_access(100 * 512, in, 512, false);
    assert_memory_equal(in, out, 512);

    /* data and status in one descriptor, in an indirect table */
    put_header(&bench, 0, T_IN, 7);
    uint64_t table = DATA_GPA(1);
    driver_set_desc(&bench.driver, table, 0, (struct driver_desc){HEADER_GPA(0), 16, DESC_NEXT, 1});
    driver_set_desc(&bench.driver, table, 1,
                    (struct driver_desc){DATA_GPA(0), 1025, DESC_WRITE, 0});
    struct driver_desc indirect = {table, 32, DESC_INDIRECT, 0};
    driver_offer_chain(&bench.driver, 0, 0, &indirect, 1);
    finish(&bench, NULL);
    get(&bench, DATA_GPA(0), in, sizeof(in));
    assert_memory_equal(in, out, sizeof(in));
    get(&bench, DATA_GPA(0) + 1024, in, 1);
    assert_int_equal(in[0], S_OK);
    bench_close(&bench);
}

static void test_other_types(void **state)
{
    char id[21] = {0};
    struct bench bench;
    write_image(DISK_SIZE);
    bench_open(&bench, false, false);
    driver_start(&bench.driver, ALL_FEATURES, 1, QUEUE_SIZE);
    memset(id, 'x', 20);
    put(&bench, DATA_GPA(0), id, 20);
    assert_int_equal(request(&bench, T_GET_ID, 0, 20, true), S_OK);
    get(&bench, DATA_GPA(0), id, 20);
    assert_memory_equal(id, "disk0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
    assert_int_equal(request(&bench, T_GET_ID, 0, 3, true), S_OK); /* as much as fits */
    assert_int_equal(request(&bench, 77, 0, 512, true), S_UNSUPP);
    assert_int_equal(request(&bench, 14, 0, 16, false), S_UNSUPP); /* secure erase */
    assert_int_equal(request(&bench, 0x80000000, 0, 512, false), S_UNSUPP);

    /* without the features, these are unknown */
    driver_start(&bench.driver, 0, 1, QUEUE_SIZE);
    assert_int_equal(request(&bench, T_DISCARD, 0, 16, false), S_UNSUPP);
    assert_int_equal(request(&bench, T_WRITE_ZEROES, 0, 16, false), S_UNSUPP);
    assert_int_equal(request(&bench, T_OUT, 0, 512, false), S_OK); /* and written through */
    assert_int_equal(request(&bench, T_FLUSH, 0, 0, false), S_OK);
    bench_close(&bench);
}

struct segment {
    uint64_t sector;
    uint32_t sectors, flags;
};

static uint8_t segments(struct bench *bench, uint32_t type, const struct segment *list,
                        unsigned count)
{
    put(bench, DATA_GPA(0), list, count * sizeof(*list));
    return request(bench, type, 0, count * 16, false);
}

static void test_discard_and_zeroes(void **state)
{
    static uint8_t bytes[65536];
    struct segment many[65] = {{0}};
    struct bench bench;
    write_image(DISK_SIZE);
    memset(bytes, 0xff, sizeof(bytes));
    image_access(0, bytes, sizeof(bytes), true);
    bench_open(&bench, false, false);
    driver_start(&bench.driver, ALL_FEATURES, 1, QUEUE_SIZE);

    struct segment two[] = {{0, 8, 0}, {64, 16, 0}};
    assert_int_equal(segments(&bench, T_DISCARD, two, 2), S_OK);
    struct segment zero = {33, 2, 0}, zero_unmap = {40, 8, 1};
    assert_int_equal(segments(&bench, T_WRITE_ZEROES, &zero, 1), S_OK);
    assert_int_equal(segments(&bench, T_WRITE_ZEROES, &zero_unmap, 1), S_OK);
    image_access(0, bytes, sizeof(bytes), false);
    for (unsigned sector = 0; sector < 128; sector++) {
        bool gone = sector < 8 || (sector >= 64 && sector < 80) || sector == 33 || sector == 34 ||
                    (sector >= 40 && sector < 48);
        assert_int_equal(bytes[sector * 512], gone ? 0 : 0xff);
        assert_int_equal(bytes[sector * 512 + 511], gone ? 0 : 0xff);
    }

    struct segment unmap = {0, 8, 1}, reserved = {0, 8, 2}, long_one = {0, 0xffffffff, 0};
    struct segment beyond = {DISK_SECTORS - 1, 2, 0}, wrapping = {UINT64_MAX, 2, 0};
    struct segment half[] = {{100, 1, 0}, {DISK_SECTORS, 1, 0}};
    assert_int_equal(segments(&bench, T_DISCARD, &unmap, 1), S_UNSUPP);
    assert_int_equal(segments(&bench, T_WRITE_ZEROES, &reserved, 1), S_UNSUPP);
    assert_int_equal(segments(&bench, T_DISCARD, &long_one, 1), S_IOERR);
    assert_int_equal(segments(&bench, T_WRITE_ZEROES, &beyond, 1), S_IOERR);
    assert_int_equal(segments(&bench, T_DISCARD, &wrapping, 1), S_IOERR);
    assert_int_equal(segments(&bench, T_DISCARD, many, 65), S_IOERR);
    assert_int_equal(segments(&bench, T_DISCARD, many, 64), S_OK); /* of no sectors */
    assert_int_equal(request(&bench, T_DISCARD, 0, 15, false), S_IOERR);
    assert_int_equal(request(&bench, T_WRITE_ZEROES, 0, 0, false), S_IOERR);
    assert_int_equal(segments(&bench, T_DISCARD, half, 2), S_IOERR);
    image_access(100 * 512, bytes, 512, false);
    assert_int_equal(bytes[0], 0xff); /* nothing of a wrong request is done */
    bench_close(&bench);
}

static void test_read_only(void **state)
{
    struct segment one = {0, 1, 0};
    struct bench bench;
    uint8_t bytes[512] = {5};
    write_image(DISK_SIZE);
    image_access(0, bytes, 512, true);
    bench_open(&bench, true, false);
    driver_start(&bench.driver, BIT(F_RO), 1, QUEUE_SIZE);
    assert_int_equal(request(&bench, T_OUT, 0, 512, false), S_IOERR);
    assert_int_equal(segments(&bench, T_DISCARD, &one, 1), S_IOERR);
    assert_int_equal(segments(&bench, T_WRITE_ZEROES, &one, 1), S_IOERR);
    assert_int_equal(request(&bench, T_IN, 0, 512, true), S_OK);
    get(&bench, DATA_GPA(0), bytes, 1);
    assert_int_equal(bytes[0], 5);
    bench_close(&bench);
}

/* The host fails, the guest hears of it. */
static void test_host_error(void **state)
{
    struct bench bench;
    write_image(DISK_SIZE);
    bench_open(&bench, false, false);
    driver_start(&bench.driver, ALL_FEATURES, 1, QUEUE_SIZE);
    assert_int_equal(truncate(image, 4096), 0);
    int saved = dup(2), null = open("/dev/null", O_WRONLY);
    dup2(null, 2);
    assert_int_equal(request(&bench, T_IN, 8, 512, true), S_IOERR);
    dup2(saved, 2);
    close(saved);
    close(null);
    assert_int_equal(request(&bench, T_IN, 7, 512, true), S_OK);
    bench_close(&bench);
}

static void assert_broken(struct bench *bench)
{
    driver_notify(&bench->driver, 0);
    for (int turns = 0; turns < 20; turns++)
        loop_turn(bench->loop, 0);
    assert_true(driver_read(&bench->driver, MMIO_STATUS) & VIRTIO_STATUS_NEEDS_RESET);
    driver_start(&bench->driver, ALL_FEATURES, 1, QUEUE_SIZE);
    assert_int_equal(request(bench, T_IN, 0, 512, true), S_OK);
}

static void test_malformed(void **state)
{
    struct bench bench;
    write_image(DISK_SIZE);
    bench_open(&bench, false, false);
    driver_start(&bench.driver, ALL_FEATURES, 1, QUEUE_SIZE);
    put_header(&bench, 0, T_IN, 0);
    struct driver_desc short_header[] = {{HEADER_GPA(0), 15, 0, 0},
                                         {STATUS_GPA(0), 1, DESC_WRITE, 0}};
    struct driver_desc no_status[] = {{HEADER_GPA(0), 16, 0, 0}};
    struct driver_desc no_header[] = {{DATA_GPA(0), 513, DESC_WRITE, 0}};
    struct driver_desc out_of_ram[] = {{HEADER_GPA(0), 16, 0, 0},
                                       {UINT64_C(0x10000000), 513, DESC_WRITE, 0}};
    driver_offer_chain(&bench.driver, 0, 0, short_header, 2);
    assert_broken(&bench);
    driver_offer_chain(&bench.driver, 0, 0, no_status, 1);
    assert_broken(&bench);
    driver_offer_chain(&bench.driver, 0, 0, no_header, 1);
    assert_broken(&bench);
    driver_offer_chain(&bench.driver, 0, 0, out_of_ram, 2);
    assert_broken(&bench);
    bench_close(&bench);
}

static void test_cache_mode(void **state)
{
    struct bench bench;
    write_image(DISK_SIZE);
    bench_open(&bench, false, false);
    driver_start(&bench.driver, ALL_FEATURES, 1, QUEUE_SIZE);
    assert_true(memory_write(bench.memory, DRIVER_SLOT + MMIO_CONFIG + 32, 1, 0));
    assert_int_equal(driver_read(&bench.driver, MMIO_CONFIG + 32) & 0xff, 0);
    assert_int_equal(request(&bench, T_OUT, 0, 512, false), S_OK);
    driver_write(&bench.driver, MMIO_CONFIG, 12345); /* a field that cannot be written */
    assert_int_equal(config64(&bench, 0), DISK_SECTORS);
    driver_start(&bench.driver, ALL_FEATURES, 1, QUEUE_SIZE);
    assert_int_equal(driver_read(&bench.driver, MMIO_CONFIG + 32) & 0xff, 1);
    bench_close(&bench);
}

/* Saved in the middle of traffic, loaded elsewhere, and on it goes. */
static void state_round(bool snapshot)
{
    enum { COUNT = 12 };
    static uint8_t out[COUNT][4096];
    uint8_t in[4096];
    struct bench bench, other;
    uint32_t head, size;
    write_image(DISK_SIZE);
    bench_open(&bench, false, snapshot);
    driver_start(&bench.driver, ALL_FEATURES, 1, QUEUE_SIZE);
    for (unsigned n = 0; n < COUNT; n++) {
        pattern(out[n], sizeof(out[n]), 17 * n);
        put(&bench, DATA_GPA(n), out[n], sizeof(out[n]));
        offer(&bench, n, T_OUT, 8 * n, sizeof(out[n]), false);
        if (n == COUNT / 2) { /* half is in flight, half only offered */
            driver_notify(&bench.driver, 0);
            loop_turn(bench.loop, 0);
        }
    }
    struct stream *saving = stream_create_saving();
    bench.device->base.type->quiesce(&bench.device->base);
    bench.device->base.type->state(&bench.device->base, saving);
    memory_state(bench.memory, saving);
    assert_false(stream_failed(saving));
    struct driver driver = bench.driver;
    bench_close(&bench);

    size_t data_size;
    const void *data = stream_data(saving, &data_size);
    struct stream *loading = stream_create_loading(data, data_size);
    bench_open(&other, false, snapshot);
    other.device->base.type->state(&other.device->base, loading);
    memory_state(other.memory, loading);
    struct error err;
    if (!stream_check(loading, &err))
        fail_msg("%s", err.message);
    stream_destroy(loading);
    stream_destroy(saving);

    other.driver = driver;
    other.driver.memory = other.memory;
    wait_used(&other, COUNT);
    for (unsigned n = 0; n < COUNT; n++) {
        assert_true(driver_take(&other.driver, 0, &head, &size));
        assert_int_equal(status_of(&other, head / 3), S_OK);
    }
    for (unsigned n = 0; n < COUNT; n++) {
        assert_int_equal(request(&other, T_IN, 8 * n, 4096, true), S_OK);
        get(&other, DATA_GPA(0), in, sizeof(in));
        assert_memory_equal(in, out[n], sizeof(in));
    }
    bench_close(&other);
}

static void test_state(void **state)
{
    state_round(false);
}

static void test_state_snapshot(void **state)
{
    state_round(true);
}

/*
 * A driver that resets the device while requests are in flight, as a hart does it: on another
 * thread than the loop's. After the reset guest memory belongs to the driver again.
 */
static void *run_loop(void *opaque)
{
    loop_run(opaque);
    return NULL;
}

static void reset_rounds(bool snapshot)
{
    enum { COUNT = 16, ROUNDS = 60, SIZE = 122880 };
    static uint8_t bytes[SIZE];
    struct bench bench;
    pthread_t thread;
    write_image(DISK_SIZE);
    bench_open(&bench, false, snapshot);
    pthread_create(&thread, NULL, run_loop, bench.loop);
    for (unsigned round = 0; round < ROUNDS; round++) {
        driver_start(&bench.driver, ALL_FEATURES, 1, QUEUE_SIZE);
        for (unsigned n = 0; n < COUNT; n++) {
            offer(&bench, n, T_IN, 240 * (uint64_t)(n % 8), SIZE, true);
        }
        driver_notify(&bench.driver, 0);
        /* now that some are done, the others are under way */
        for (int spin = 0; driver_used_index(&bench.driver, 0) < round % 4 && spin < 100000; spin++)
            ;
        driver_write(&bench.driver, MMIO_STATUS, 0);
        assert_int_equal(driver_read(&bench.driver, MMIO_STATUS), 0);
        for (unsigned n = 0; n < COUNT; n++)
            assert_true(memory_dma_fill(bench.memory, DATA_GPA(n), 0x5a, SIZE));
        usleep(500);
        for (unsigned n = 0; n < COUNT; n++) {
            get(&bench, DATA_GPA(n), bytes, SIZE);
            for (size_t at = 0; at < SIZE; at++)
                if (bytes[at] != 0x5a)
                    fail_msg("written after the reset");
        }
    }
    driver_start(&bench.driver, ALL_FEATURES, 1, QUEUE_SIZE);
    offer(&bench, 0, T_IN, 0, 512, true);
    driver_notify(&bench.driver, 0);
    for (int wait = 0; wait < 2000 && driver_used_index(&bench.driver, 0) == 0; wait++)
        usleep(1000);
    assert_int_equal(status_of(&bench, 0), S_OK);
    loop_quit(bench.loop);
    pthread_join(thread, NULL);
    bench_close(&bench);
}

static void test_reset_in_flight(void **state)
{
    reset_rounds(false); /* io_uring where it can be used */
    reset_rounds(true);  /* worker threads */
}

static void test_refused(void **state)
{
    struct block_config config = {"/nonexistent/disk", false, false, BLOCK_ENGINE_AUTO};
    struct loop *loop = loop_create();
    struct error err = {0};
    assert_null(virtio_blk_create("disk0", &config, loop, &err));
    assert_non_null(strstr(err.message, "/nonexistent/disk"));
    write_image(DISK_SIZE);
    config.path = image;
    struct virtio_device *device = virtio_blk_create("disk0", &config, loop, &err);
    assert_non_null(device);
    assert_int_equal(block_size(virtio_blk_disk(device)), DISK_SIZE);
    device->base.type->remove(&device->base); /* never attached */
    loop_destroy(loop);
}

static int set_up(void **state)
{
    if (!mkdtemp(folder))
        return -1;
    snprintf(image, sizeof(image), "%s/image", folder);
    return 0;
}

static int tear_down(void **state)
{
    unlink(image);
    return rmdir(folder);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_read_write),
        cmocka_unit_test(test_framing),
        cmocka_unit_test(test_other_types),
        cmocka_unit_test(test_discard_and_zeroes),
        cmocka_unit_test(test_read_only),
        cmocka_unit_test(test_host_error),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_cache_mode),
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_state_snapshot),
        cmocka_unit_test(test_reset_in_flight),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
