/*
 * A driver that the input programs: it builds chains (mostly valid ones), offers, notifies, writes
 * registers, resets, saves and loads, on one of the devices. Whatever it does, the machine stays
 * whole: after a reset the device works again, and what was saved can be loaded.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../unit/virtio_driver.h"
#include "device/chardev.h"
#include "virtio/blk.h"
#include "virtio/console.h"
#include "virtio/p9.h"
#include "virtio/rng.h"

#define QUEUE_SIZE 8 /* what every one of the devices has */
#define DISK_SIZE  65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct target {
    struct virtio_device *device;
    struct virtio_mmio *slot;
    struct driver driver;
    unsigned queues;
};

static struct loop *loop;
static struct memory *memory;
static struct target targets[4];
static char directory[] = "/tmp/hartvisor-fuzz-XXXXXX";

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

static void add_target(unsigned index, struct virtio_device *device, unsigned queues)
{
    struct irq_line irq = {0};
    struct target *target = &targets[index];
    uint64_t address = DRIVER_SLOT + UINT64_C(0x1000) * index;

    check(device != NULL);
    target->device = device;
    target->queues = queues;
    target->slot = virtio_mmio_create(memory, address, irq, "slot", NULL);
    check(target->slot && virtio_mmio_attach(target->slot, device, NULL));
    target->driver = (struct driver){.memory = memory, .slot = address, .queue_size = QUEUE_SIZE};
}

static void clean_up(void)
{
    char path[64];

    for (unsigned i = 0; i < ARRAY_SIZE(targets); i++)
        targets[i].device->base.type->remove(&targets[i].device->base);
    snprintf(path, sizeof(path), "%s/disk", directory);
    unlink(path);
    rmdir(directory);
}

static void set_up(void)
{
    struct virtio_p9_config share = {directory, "share", true};
    struct block_config disk = {.engine = BLOCK_ENGINE_THREADS};
    char path[64];

    check(mkdtemp(directory) != NULL);
    snprintf(path, sizeof(path), "%s/disk", directory);
    FILE *file = fopen(path, "w");
    check(file && ftruncate(fileno(file), DISK_SIZE) == 0);
    fclose(file);
    disk.path = path;
    loop = loop_create();
    memory = memory_create();
    check(memory_add_ram(memory, DRIVER_RAM_BASE, DRIVER_RAM_SIZE, NULL));
    add_target(0, virtio_rng_create("rng0", loop), 1);
    add_target(1, virtio_console_create("console0", chardev_create(loop, "none", NULL, NULL), loop),
               2);
    add_target(2, virtio_p9_create("share0", &share, loop, NULL), 1);
    add_target(3, virtio_blk_create("disk0", &disk, loop, NULL), 1);
    atexit(clean_up);
}

struct input {
    const uint8_t *bytes;
    size_t left;
};

static uint32_t take(struct input *input, unsigned size)
{
    uint32_t value = 0;

    for (unsigned i = 0; i < size && input->left; i++, input->left--)
        value |= (uint32_t)*input->bytes++ << 8 * i;
    return value;
}

static void start(struct target *target)
{
    uint64_t features = target->device->offered;

    driver_start(&target->driver, features, target->queues, QUEUE_SIZE);
}

static void settle(struct target *target)
{
    for (unsigned i = 0; i < 3; i++)
        loop_turn(loop, 0);
    target->device->base.type->quiesce(&target->device->base);
    loop_turn(loop, 0);
}

static void save_and_load(struct target *target)
{
    struct device *base = &target->device->base;
    struct stream *saving = stream_create_saving(), *loading;
    const void *bytes;
    size_t size;

    settle(target);
    base->type->state(base, saving);
    check_stream(saving);
    bytes = stream_data(saving, &size);
    loading = stream_create_loading(bytes, size);
    base->type->state(base, loading);
    check_stream(loading);
    stream_destroy(loading);
    stream_destroy(saving);
}

/* A valid chain of up to 8 buffers from descriptor `first` on, and its notification. */
static void offer_chain(struct target *target, struct input *input)
{
    struct driver_desc chain[8];
    unsigned queue = take(input, 1) % target->queues, first = take(input, 1) % QUEUE_SIZE;
    unsigned count = 1 + take(input, 1) % ARRAY_SIZE(chain),
             readable = take(input, 1) % (count + 1);

    if (first + count > QUEUE_SIZE)
        first = QUEUE_SIZE - count;
    for (unsigned i = 0; i < count; i++)
        chain[i] = (struct driver_desc){
            .gpa = DRIVER_BUFFERS + take(input, 2),
            .size = 1 + take(input, 2),
            .flags = i < readable ? 0 : DESC_WRITE,
        };
    driver_offer_chain(&target->driver, queue, first, chain, count);
    driver_notify(&target->driver, queue);
}

static void set_descriptor(struct target *target, struct input *input, bool wild)
{
    unsigned queue = take(input, 1) % target->queues, index = take(input, 1) % QUEUE_SIZE;
    struct driver_desc desc;

    if (wild) {
        desc.gpa = take(input, 4) | (uint64_t)take(input, 4) << 32;
        desc.size = take(input, 4);
        desc.flags = take(input, 2);
        desc.next = take(input, 2);
    } else {
        desc.gpa = DRIVER_BUFFERS + take(input, 2);
        desc.size = take(input, 2);
        desc.flags = take(input, 1) & 7;
        desc.next = take(input, 1) % (QUEUE_SIZE + 1);
    }
    driver_set_desc(&target->driver, driver_desc_gpa(queue), index, desc);
}

static void fill_buffer(struct input *input)
{
    uint64_t gpa = DRIVER_BUFFERS + take(input, 2);
    size_t size = take(input, 1);

    if (size > input->left)
        size = input->left;
    memory_dma_write(memory, gpa, input->bytes, size);
    input->bytes += size;
    input->left -= size;
}

static void step(struct target *target, struct input *input)
{
    struct driver *driver = &target->driver;
    unsigned operation = take(input, 1);
    unsigned queue;

    switch (operation % 12) {
    case 0:
    case 1:
        offer_chain(target, input);
        break;
    case 2:
        set_descriptor(target, input, false);
        break;
    case 3:
        set_descriptor(target, input, true);
        break;
    case 4:
        fill_buffer(input);
        break;
    case 5:
        queue = take(input, 1) % target->queues;
        driver_offer(driver, queue, take(input, 1));
        driver_notify(driver, queue);
        break;
    case 6:
        loop_turn(loop, 0);
        break;
    case 7:
        queue = take(input, 2) % 0x200 & ~3u;
        driver_write(driver, queue, take(input, 4));
        driver_read(driver, queue);
        break;
    case 8:
        driver_put16(driver, driver_avail_gpa(0) + 2, take(input, 2));
        driver_notify(driver, 0);
        break;
    case 9:
        start(target);
        break;
    case 10:
        save_and_load(target);
        break;
    case 11:
        memory_dma_fill(memory, DRIVER_RINGS + take(input, 2), take(input, 1), take(input, 1));
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    struct target *target;

    if (!loop)
        set_up();
    target = &targets[take(&input, 1) % ARRAY_SIZE(targets)];
    start(target);
    while (input.left)
        step(target, &input);
    settle(target);

    /* The device answers again. */
    start(target);
    check(!(driver_read(&target->driver, MMIO_STATUS) & VIRTIO_STATUS_NEEDS_RESET));
    driver_offer_chain(&target->driver, target->queues - 1, 0,
                       (struct driver_desc[]){{DRIVER_BUFFERS, 64, 0, 0},
                                              {DRIVER_BUFFERS + 64, 64, DESC_WRITE, 0}},
                       2);
    driver_notify(&target->driver, target->queues - 1);
    settle(target);
    check(driver_used_index(&target->driver, target->queues - 1) == 1);
    return 0;
}
