/*
 * virtio-blk against a model: the input programs requests, mostly valid ones, cut into descriptors
 * at random places; each must end with the status that the model foretells, and the disk must hold
 * what the model holds, across resets in the middle of requests and saved states.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../unit/virtio_driver.h"
#include "virtio/blk.h"

#define SECTORS    64
#define DISK_SIZE  (SECTORS * 512)
#define QUEUE_SIZE 16
#define HEADER_GPA DRIVER_BUFFERS
#define STATUS_GPA (DRIVER_BUFFERS + 0x100)
#define DATA_GPA   (DRIVER_BUFFERS + 0x1000)
#define DATA_MAX   (DISK_SIZE + 1024)
#define DATA_SPARE 64 /* behind each buffer, to see that it stays */

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };

#define F_DISCARD      13
#define F_WRITE_ZEROES 14

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct loop *loop;
static struct memory *memory;
static struct virtio_mmio *slot;
static int image;

static struct virtio_device *device;
static struct driver driver;
static struct block_config config;
static uint64_t features;

static uint8_t disk[DISK_SIZE]; /* the model's */
static uint8_t data[DATA_MAX + DATA_SPARE];

struct input {
    const uint8_t *bytes;
    size_t left;
};

static uint64_t take(struct input *input, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size && input->left; i++, input->left--)
        value |= (uint64_t)*input->bytes++ << 8 * i;
    return value;
}

static void check(bool truth)
{
    if (!truth)
        abort();
}

/* What the guest wrote may look like a container format, which is refused: hidden meanwhile. */
static void create_device(void)
{
    uint8_t whole[DISK_SIZE], zeros[DISK_SIZE] = {0};
    struct error err = {0};
    check(pread(image, whole, DISK_SIZE, 0) == DISK_SIZE);
    check(pwrite(image, zeros, DISK_SIZE, 0) == DISK_SIZE);
    device = virtio_blk_create("disk0", &config, loop, &err);
    check(pwrite(image, whole, DISK_SIZE, 0) == DISK_SIZE);
    if (!device)
        fprintf(stderr, "%s\n", err.message);
    check(device && virtio_mmio_attach(slot, device, NULL));
    driver = (struct driver){.memory = memory, .slot = DRIVER_SLOT};
}

static void remove_device(void)
{
    device->base.type->remove(&device->base);
}

static void start(void)
{
    driver_start(&driver, features & device->offered, 1, QUEUE_SIZE);
}

static bool has_feature(unsigned bit)
{
    return features & device->offered & BIT(bit);
}

static bool is_broken(void)
{
    return driver_read(&driver, MMIO_STATUS) & VIRTIO_STATUS_NEEDS_RESET;
}

/* Descriptors of the request being built. */
static struct driver_desc descs[QUEUE_SIZE];
static unsigned desc_count;

/* A buffer in one to four pieces. */
static void add_pieces(struct input *input, uint64_t gpa, uint32_t size, uint16_t flags)
{
    unsigned pieces = take(input, 1) % 4;
    for (; size && pieces; pieces--) {
        uint32_t part = 1 + (uint32_t)take(input, 2) % size;
        descs[desc_count++] = (struct driver_desc){gpa, part, flags, 0};
        gpa += part;
        size -= part;
    }
    if (size)
        descs[desc_count++] = (struct driver_desc){gpa, size, flags, 0};
}

static void offer(struct input *input, uint32_t type, uint64_t sector, uint32_t size, bool writes)
{
    uint8_t header[16] = {0}, none = 0xee;
    store_le32(header, type);
    store_le64(header + 8, sector);
    memory_dma_write(memory, HEADER_GPA, header, sizeof(header));
    memory_dma_write(memory, STATUS_GPA, &none, 1);
    memory_dma_write(memory, DATA_GPA, data, size + DATA_SPARE);
    desc_count = 0;
    add_pieces(input, HEADER_GPA, 16, 0);
    add_pieces(input, DATA_GPA, size, writes ? DESC_WRITE : 0);
    descs[desc_count++] = (struct driver_desc){STATUS_GPA, 1, DESC_WRITE, 0};
    driver_offer_chain(&driver, 0, 0, descs, desc_count);
    driver_notify(&driver, 0);
}

/* Lets the request finish; returns its status. */
static uint8_t finish(void)
{
    uint32_t head, written;
    uint8_t status;
    for (int turns = 0; !driver_take(&driver, 0, &head, &written); turns++) {
        check(!is_broken() && turns < 5000);
        loop_turn(loop, 1);
    }
    check(head == 0);
    memory_dma_read(memory, STATUS_GPA, &status, 1);
    return status;
}

static bool in_disk(uint64_t sector, uint64_t length)
{
    return length % 512 == 0 && range_fits(sector, length / 512, SECTORS);
}

/* Copied from a table, since the fuzzer would trace each round of a loop. */
static uint8_t pattern[sizeof(data) + 256];

static void fill(struct input *input, uint32_t size)
{
    memcpy(data, pattern + take(input, 1), size);
}

static void transfer(struct input *input, bool write)
{
    uint8_t choice = (uint8_t)take(input, 1);
    uint64_t sector = choice & 1 ? take(input, 8) : take(input, 1) % (SECTORS + 1);
    uint32_t size = choice & 2 ? (uint32_t)take(input, 2) : (uint32_t)take(input, 1) % 65 * 512;
    if (size > DATA_MAX)
        size = DATA_MAX;
    fill(input, size);
    uint8_t expected = in_disk(sector, size) && !(write && config.read_only) ? S_OK : S_IOERR;
    offer(input, write ? T_OUT : T_IN, sector, size, !write);
    if (choice & 4 && choice & 8) { /* a reset in the middle: a write may be done or not */
        driver_write(&driver, MMIO_STATUS, 0);
        start();
        if (write && expected == S_OK && size) {
            offer(input, T_IN, sector, size, true);
            check(finish() == S_OK);
            uint8_t *known = disk + sector * 512;
            memory_dma_read(memory, DATA_GPA, data, size);
            for (uint32_t n = 0; n < size; n++)
                check(data[n] == known[n] || write);
            memcpy(known, data, size);
        }
        return;
    }
    check(finish() == expected);
    if (expected != S_OK || !size)
        return;
    if (write) {
        memcpy(disk + sector * 512, data, size);
    } else {
        memory_dma_read(memory, DATA_GPA, data, size);
        check(!memcmp(data, disk + sector * 512, size));
    }
}

static void segments(struct input *input, uint32_t type)
{
    bool zeroes = type == T_WRITE_ZEROES;
    uint8_t expected = has_feature(zeroes ? F_WRITE_ZEROES : F_DISCARD) ? S_OK : S_UNSUPP;
    unsigned count = take(input, 1) % 4, extra = take(input, 1);
    extra = extra & 0xf0 ? 0 : extra;
    uint8_t first = S_OK;
    for (unsigned n = 0; n < count; n++) {
        uint8_t choice = (uint8_t)take(input, 1);
        uint64_t sector = choice & 1 ? take(input, 8) : take(input, 1) % SECTORS;
        uint32_t sectors = choice & 2 ? (uint32_t)take(input, 4) : (uint32_t)take(input, 1) % 16;
        uint32_t flags = choice & 4 ? (uint32_t)take(input, 1) : 0;
        store_le64(data + 16 * n, sector);
        store_le32(data + 16 * n + 8, sectors);
        store_le32(data + 16 * n + 12, flags);
        bool limit = sectors > (zeroes ? 1u << 18 : 1u << 21);
        if (first == S_OK && flags & ~(zeroes ? 1u : 0u))
            first = S_UNSUPP;
        else if (first == S_OK && (limit || !in_disk(sector, (uint64_t)sectors * 512)))
            first = S_IOERR;
    }
    if (expected == S_OK)
        expected = !count || extra || (zeroes && count > 1) ? S_IOERR : first;
    if (config.read_only)
        expected = S_IOERR;
    uint8_t copy[64];
    memcpy(copy, data, sizeof(copy));
    offer(input, type, 0, 16 * count + extra, false);
    check(finish() == expected);
    for (unsigned n = 0; expected == S_OK && n < count; n++)
        memset(disk + load_le64(copy + 16 * n) * 512, 0,
               (size_t)load_le32(copy + 16 * n + 8) * 512);
}

static void get_id(struct input *input)
{
    uint32_t size = (uint32_t)take(input, 1) % 32;
    memset(data, 0x77, 64);
    offer(input, T_GET_ID, 0, size, true);
    check(finish() == S_OK);
    memory_dma_read(memory, DATA_GPA, data, 64);
    check(!memcmp(data, "disk0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", size < 20 ? size : 20));
    check(data[size] == 0x77);
}

static void other_type(struct input *input)
{
    uint32_t type = 14 + (uint32_t)take(input, 4) % 0xfffffff0;
    offer(input, type, take(input, 8), (uint32_t)take(input, 1), take(input, 1) & 1);
    check(finish() == S_UNSUPP);
}

/* Descriptors as the input has them: anything may come of it but harm. */
static void rubbish(struct input *input)
{
    unsigned count = 1 + take(input, 1) % 4;
    for (unsigned n = 0; n < count; n++) {
        uint64_t gpa = take(input, 1) & 1 ? take(input, 8) : DATA_GPA + take(input, 2);
        descs[n] = (struct driver_desc){gpa, (uint32_t)take(input, 3), (uint16_t)take(input, 1),
                                        (uint16_t)take(input, 1)};
    }
    memory_dma_write(memory, DATA_GPA, data, DATA_MAX);
    driver_offer_chain(&driver, 0, 0, descs, count);
    driver_notify(&driver, 0);
    for (int turns = 0; turns < 3; turns++)
        loop_turn(loop, 0);
    driver_write(&driver, MMIO_STATUS, 0);
    start();
    /* it may have been a valid write: the model starts again from what is there */
    offer(input, T_IN, 0, DISK_SIZE, true);
    check(finish() == S_OK);
    memory_dma_read(memory, DATA_GPA, disk, DISK_SIZE);
}

/* Saves with a request under way, and loads it into a new device. */
static void save_and_load(struct input *input)
{
    struct stream *saving = stream_create_saving();
    uint64_t sector = take(input, 1) % SECTORS;
    size_t size;
    offer(input, T_IN, sector, 512, true);
    if (take(input, 1) & 1)
        loop_turn(loop, 0);
    device->base.type->quiesce(&device->base);
    device->base.type->state(&device->base, saving);
    check(!stream_failed(saving));
    struct driver kept = driver;
    remove_device();
    create_device();
    driver = kept;
    const void *bytes = stream_data(saving, &size);
    struct stream *loading = stream_create_loading(bytes, size);
    device->base.type->state(&device->base, loading);
    struct error err = {0};
    if (!stream_check(loading, &err)) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    stream_destroy(loading);
    stream_destroy(saving);
    check(finish() == S_OK);
    memory_dma_read(memory, DATA_GPA, data, 512);
    check(!memcmp(data, disk + sector * 512, 512));
}

static void step(struct input *input)
{
    uint8_t operation = (uint8_t)take(input, 1);
    switch (operation % 16) {
    case 0 ... 3:
        transfer(input, true);
        break;
    case 4 ... 6:
        transfer(input, false);
        break;
    case 7:
        offer(input, T_FLUSH, take(input, 8), 0, false);
        check(finish() == S_OK);
        break;
    case 8:
        segments(input, T_DISCARD);
        break;
    case 9:
        segments(input, T_WRITE_ZEROES);
        break;
    case 10:
        get_id(input);
        break;
    case 11:
        other_type(input);
        break;
    case 12:
        memory_write(memory, DRIVER_SLOT + MMIO_CONFIG + take(input, 1) % 64, 1, take(input, 1));
        break;
    case 13:
        save_and_load(input);
        break;
    case 14:
        features = take(input, 5);
        start();
        break;
    default:
        rubbish(input);
    }
}

static void set_up(void)
{
    for (size_t n = 0; n < sizeof(pattern); n++)
        pattern[n] = (uint8_t)(n + (n >> 8) * 7);
    static char path[32];
    loop = loop_create();
    memory = memory_create();
    check(memory_add_ram(memory, DRIVER_RAM_BASE, DRIVER_RAM_SIZE, NULL));
    slot = virtio_mmio_create(memory, DRIVER_SLOT, (struct irq_line){0}, "slot0", NULL);
    image = memfd_create("disk", MFD_CLOEXEC);
    check(slot && image >= 0 && !ftruncate(image, DISK_SIZE));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", image);
    config.path = path;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct input input = {bytes, size};
    if (!loop)
        set_up();
    memcpy(disk, pattern, DISK_SIZE);
    check(pwrite(image, disk, DISK_SIZE, 0) == DISK_SIZE);
    uint8_t kind = (uint8_t)take(&input, 1);
    config.engine = kind & 1 ? BLOCK_ENGINE_AUTO : BLOCK_ENGINE_THREADS;
    config.snapshot = kind & 2;
    config.read_only = (kind & 12) == 12;
    features = ~UINT64_C(0);
    create_device();
    start();
    for (int steps = 0; input.left && steps < 200; steps++)
        step(&input);
    remove_device();
    return 0;
}
