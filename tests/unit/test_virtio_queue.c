/* Split virtqueues and the MMIO transport, driven as a guest drives them. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "virtio_driver.h"

#define FEATURE_OWN    5
#define QUEUES         2
#define SIZE           16
#define FEATURES_PLAIN 0
#define FEATURES_RING  (BIT(VIRTIO_RING_INDIRECT_DESC) | BIT(VIRTIO_RING_EVENT_IDX))

/* A device that answers each request with the readable bytes, inverted. On `hold` it keeps them. */
struct mirror {
    struct virtio_device virtio;
    uint8_t config[8];
    bool hold;
    unsigned held_count;
    struct virtio_chain *held[64];
    unsigned resets, config_writes;
    uint32_t own;
};

static void mirror_answer(struct virtio_chain *chain)
{
    uint8_t bytes[4096];
    size_t size = virtio_chain_read(chain, 0, bytes, sizeof(bytes));

    for (size_t i = 0; i < size; i++)
        bytes[i] = ~bytes[i];
    virtio_queue_push(chain, virtio_chain_write(chain, 0, bytes, size));
}

static void mirror_handle_queue(struct virtio_device *device, struct virtio_queue *queue)
{
    struct mirror *mirror = container_of(device, struct mirror, virtio);
    struct virtio_chain *chain;

    while ((chain = virtio_queue_pop(queue))) {
        if (mirror->hold && mirror->held_count < ARRAY_SIZE(mirror->held))
            mirror->held[mirror->held_count++] = chain;
        else
            mirror_answer(chain);
    }
}

static void mirror_quiesce(struct virtio_device *device)
{
    struct mirror *mirror = container_of(device, struct mirror, virtio);

    for (unsigned i = 0; i < mirror->held_count; i++)
        mirror_answer(mirror->held[i]);
    mirror->held_count = 0;
}

static void mirror_reset(struct virtio_device *device)
{
    container_of(device, struct mirror, virtio)->resets++;
}

static void mirror_config_written(struct virtio_device *device, unsigned offset, uint32_t value,
                                  unsigned size)
{
    struct mirror *mirror = container_of(device, struct mirror, virtio);

    store_le(mirror->config + offset, value, size);
    mirror->config_writes++;
}

static void mirror_state(struct virtio_device *device, struct stream *stream)
{
    stream_u32(stream, &container_of(device, struct mirror, virtio)->own);
}

static void mirror_remove(struct virtio_device *device)
{
    struct mirror *mirror = container_of(device, struct mirror, virtio);

    for (unsigned i = 0; i < mirror->held_count; i++)
        virtio_chain_free(mirror->held[i]);
    virtio_device_finish(device);
    free(mirror);
}

static const struct virtio_device_type mirror_type = {
    .name = "mirror",
    .id = 42,
    .handle_queue = mirror_handle_queue,
    .config_written = mirror_config_written,
    .reset = mirror_reset,
    .quiesce = mirror_quiesce,
    .state = mirror_state,
    .remove = mirror_remove,
};

struct bench {
    struct loop *loop;
    struct memory *memory;
    struct virtio_mmio *slot;
    struct mirror *mirror;
    struct driver driver;
    atomic_int level;
};

static void set_level(void *controller, unsigned source, bool level)
{
    atomic_store((atomic_int *)controller, level);
}

static void bench_attach(struct bench *bench)
{
    struct mirror *mirror = xcalloc(1, sizeof(*mirror));

    memcpy(mirror->config, "\x01\x02\x03\x04\x05\x06\x07\x08", 8);
    virtio_device_init(&mirror->virtio, &mirror_type, "mirror0", BIT(FEATURE_OWN), bench->loop);
    mirror->virtio.config = mirror->config;
    mirror->virtio.config_size = sizeof(mirror->config);
    for (unsigned i = 0; i < QUEUES; i++)
        virtio_device_add_queue(&mirror->virtio, 256);
    assert_true(virtio_mmio_attach(bench->slot, &mirror->virtio, NULL));
    bench->mirror = mirror;
}

static int setup(void **state)
{
    struct bench *bench = xcalloc(1, sizeof(*bench));
    struct irq_line irq = {set_level, &bench->level, 0};

    bench->loop = loop_create();
    bench->memory = memory_create();
    /* Two regions that touch: buffers may cross from one to the other. */
    assert_true(memory_add_ram(bench->memory, DRIVER_RAM_BASE, DRIVER_RAM_SIZE, NULL));
    assert_true(
        memory_add_ram(bench->memory, DRIVER_RAM_BASE + DRIVER_RAM_SIZE, DRIVER_RAM_SIZE, NULL));
    bench->slot = virtio_mmio_create(bench->memory, DRIVER_SLOT, irq, "slot0", NULL);
    assert_non_null(bench->slot);
    bench->driver = (struct driver){.memory = bench->memory, .slot = DRIVER_SLOT};
    bench_attach(bench);
    *state = bench;
    return 0;
}

static int teardown(void **state)
{
    struct bench *bench = *state;
    struct device *slot = virtio_mmio_device(bench->slot);

    bench->mirror->virtio.base.type->remove(&bench->mirror->virtio.base);
    slot->type->remove(slot);
    memory_destroy(bench->memory);
    loop_destroy(bench->loop);
    free(bench);
    return 0;
}

static void turn(struct bench *bench)
{
    for (unsigned i = 0; i < 4; i++)
        loop_turn(bench->loop, 0);
}

static bool needs_reset(struct bench *bench)
{
    return driver_read(&bench->driver, MMIO_STATUS) & VIRTIO_STATUS_NEEDS_RESET;
}

/* One request "abcd" in two readable parts, answered into two writable ones. */
static void offer_request(struct bench *bench, unsigned queue, unsigned first)
{
    const struct driver_desc chain[] = {
        {DRIVER_BUFFERS, 1, 0, 0},
        {DRIVER_BUFFERS + 100, 3, 0, 0},
        {DRIVER_BUFFERS + 200, 2, DESC_WRITE, 0},
        {DRIVER_BUFFERS + 300, 60, DESC_WRITE, 0},
    };

    memory_dma_write(bench->memory, DRIVER_BUFFERS, "a", 1);
    memory_dma_write(bench->memory, DRIVER_BUFFERS + 100, "bcd", 3);
    memory_dma_fill(bench->memory, DRIVER_BUFFERS + 200, 0, 200);
    driver_offer_chain(&bench->driver, queue, first, chain, ARRAY_SIZE(chain));
}

static void expect_answer(struct bench *bench, unsigned queue, uint32_t expected_head)
{
    uint32_t head = 0, size = 0;
    uint8_t bytes[4];

    assert_true(driver_take(&bench->driver, queue, &head, &size));
    assert_int_equal(head, expected_head);
    assert_int_equal(size, 4);
    memory_dma_read(bench->memory, DRIVER_BUFFERS + 200, bytes, 2);
    memory_dma_read(bench->memory, DRIVER_BUFFERS + 300, bytes + 2, 2);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(bytes[i], (uint8_t)~("abcd"[i]));
}

static void test_request(void **state)
{
    struct bench *bench = *state;

    driver_start(&bench->driver, FEATURES_PLAIN, QUEUES, SIZE);
    offer_request(bench, 1, 3);
    turn(bench);
    driver_notify(&bench->driver, 1);
    turn(bench);
    expect_answer(bench, 1, 3);
    assert_int_equal(atomic_load(&bench->level), 1);
    assert_int_equal(driver_read(&bench->driver, MMIO_ISR), VIRTIO_ISR_QUEUE);
    driver_write(&bench->driver, MMIO_ISR_ACK, VIRTIO_ISR_QUEUE);
    assert_int_equal(atomic_load(&bench->level), 0);
    assert_int_equal(driver_used_index(&bench->driver, 0), 0);
}

/* Nothing may happen before DRIVER_OK; a notification that came too early is not lost. */
static void test_before_driver_ok(void **state)
{
    struct bench *bench = *state;

    assert_true(driver_negotiate(&bench->driver, BIT(VIRTIO_VERSION_1)));
    bench->driver.queue_size = SIZE;
    driver_queue_setup(&bench->driver, 0);
    offer_request(bench, 0, 0);
    driver_notify(&bench->driver, 0);
    turn(bench);
    assert_int_equal(driver_used_index(&bench->driver, 0), 0);
    driver_write(&bench->driver, MMIO_STATUS, 0xf);
    turn(bench);
    expect_answer(bench, 0, 0);
}

static void test_indirect(void **state)
{
    struct bench *bench = *state;
    struct driver *driver = &bench->driver;
    uint64_t table = DRIVER_BUFFERS + 0x1000;

    driver_start(driver, FEATURES_RING, QUEUES, SIZE);
    for (unsigned mixed = 0; mixed < 2; mixed++) {
        offer_request(bench, 0, 0);
        bench->driver.avail[0]--; /* taken back: it only filled the buffers */
        /* The table's elements in an order of their own. */
        driver_set_desc(driver, table, 0, (struct driver_desc){DRIVER_BUFFERS + 100, 3, 1, 2});
        driver_set_desc(driver, table, 1, (struct driver_desc){DRIVER_BUFFERS + 300, 60, 2, 0});
        driver_set_desc(driver, table, 2, (struct driver_desc){DRIVER_BUFFERS + 200, 2, 3, 1});
        driver_set_desc(driver, table, 3, (struct driver_desc){DRIVER_BUFFERS, 1, 1, 0});
        if (mixed) {
            /* Section 2.7.5.3.2: normal descriptors, then one indirect. */
            driver_set_desc(driver, driver_desc_gpa(0), 5,
                            (struct driver_desc){DRIVER_BUFFERS, 1, DESC_NEXT, 6});
            driver_set_desc(driver, driver_desc_gpa(0), 6,
                            (struct driver_desc){table, 48, DESC_INDIRECT, 0});
        } else {
            uint64_t other = table + 64;
            driver_set_desc(driver, other, 0, (struct driver_desc){DRIVER_BUFFERS, 1, 1, 1});
            for (unsigned i = 0; i < 3; i++) {
                struct driver_desc desc;
                memory_dma_read(bench->memory, table + 16 * i, &desc, 16);
                desc.next++;
                driver_set_desc(driver, other, i + 1, desc);
            }
            driver_set_desc(driver, driver_desc_gpa(0), 5,
                            (struct driver_desc){other, 64, DESC_INDIRECT, 0});
        }
        driver_offer(driver, 0, 5);
        driver_notify(driver, 0);
        turn(bench);
        assert_false(needs_reset(bench));
        expect_answer(bench, 0, 5);
    }
}

/* A buffer across two RAM regions becomes two parts with one content. */
static void test_across_regions(void **state)
{
    struct bench *bench = *state;
    uint64_t edge = DRIVER_RAM_BASE + DRIVER_RAM_SIZE;
    const struct driver_desc chain[] = {
        {edge - 2, 4, 0, 0},
        {edge - 0x1001, 0x1004, DESC_WRITE, 0},
    };
    uint32_t head, size;
    uint8_t bytes[4];

    driver_start(&bench->driver, FEATURES_PLAIN, QUEUES, SIZE);
    memory_dma_write(bench->memory, edge - 2, "wxyz", 4);
    driver_offer_chain(&bench->driver, 0, 0, chain, 2);
    driver_notify(&bench->driver, 0);
    turn(bench);
    assert_true(driver_take(&bench->driver, 0, &head, &size));
    assert_int_equal(size, 4);
    memory_dma_read(bench->memory, edge - 0x1001, bytes, 4);
    assert_int_equal(bytes[3], (uint8_t)~'z');
}

/* What a driver must not do; each breaks the device until its reset, and nothing else. */
struct violation {
    const char *name;
    struct driver_desc desc[3]; /* descriptors 0, 1, 2; the chain starts at 0 */
    struct driver_desc table[2];
    uint16_t head;
    uint16_t jump; /* added to the available index */
};

#define TABLE  (DRIVER_BUFFERS + 0x2000)
#define BUFFER DRIVER_BUFFERS
#define HOLE   UINT64_C(0x1000)

static const struct violation violations[] = {
    {"loop", {{BUFFER, 4, DESC_NEXT, 1}, {BUFFER, 4, DESC_NEXT, 0}}},
    {"loop to itself", {{BUFFER, 4, DESC_NEXT, 0}}},
    {"next outside the table", {{BUFFER, 4, DESC_NEXT, SIZE}}},
    {"next far outside the table", {{BUFFER, 4, DESC_NEXT, 0xffff}}},
    {"head outside the table", .head = SIZE},
    {"not in RAM", {{HOLE, 4, 0, 0}}},
    {"beyond RAM", {{DRIVER_RAM_BASE + 2 * DRIVER_RAM_SIZE - 2, 4, 0, 0}}},
    {"device registers", {{DRIVER_SLOT, 4, DESC_WRITE, 0}}},
    {"address wraps", {{UINT64_MAX - 1, 16, 0, 0}}},
    {"empty buffer", {{BUFFER, 0, 0, 0}}},
    {"empty writable buffer", {{BUFFER, 4, DESC_NEXT, 1}, {BUFFER, 0, DESC_WRITE, 0}}},
    {"readable behind writable", {{BUFFER, 4, DESC_WRITE | DESC_NEXT, 1}, {BUFFER, 4, 0, 0}}},
    {"nested indirect", {{TABLE, 32, DESC_INDIRECT, 0}}, {{TABLE, 16, DESC_INDIRECT, 0}}},
    {"indirect with next",
     {{TABLE, 16, DESC_INDIRECT | DESC_NEXT, 1}, {BUFFER, 4, 0, 0}},
     {{BUFFER, 4, 0, 0}}},
    {"indirect of no size", {{TABLE, 0, DESC_INDIRECT, 0}}},
    {"indirect of odd size", {{TABLE, 24, DESC_INDIRECT, 0}}, {{BUFFER, 4, 0, 0}}},
    {"indirect of huge size", {{TABLE, 0xfffffff0, DESC_INDIRECT, 0}}, {{BUFFER, 4, 0, 0}}},
    {"indirect not in RAM", {{HOLE, 32, DESC_INDIRECT, 0}}},
    {"loop in indirect",
     {{TABLE, 32, DESC_INDIRECT, 0}},
     {{BUFFER, 4, DESC_NEXT, 1}, {BUFFER, 4, DESC_NEXT, 0}}},
    {"next outside indirect",
     {{TABLE, 32, DESC_INDIRECT, 0}},
     {{BUFFER, 4, DESC_NEXT, 2}, {BUFFER, 4, 0, 0}}},
    {"index jump", {{BUFFER, 4, 0, 0}}, .jump = SIZE},
    {"index back", {{BUFFER, 4, 0, 0}}, .jump = 0xfffe},
};

static void offer_violation(struct bench *bench, const struct violation *violation)
{
    struct driver *driver = &bench->driver;

    for (unsigned i = 0; i < 3; i++)
        driver_set_desc(driver, driver_desc_gpa(0), i, violation->desc[i]);
    for (unsigned i = 0; i < 2; i++)
        driver_set_desc(driver, TABLE, i, violation->table[i]);
    driver_offer(driver, 0, violation->head);
    driver_put16(driver, driver_avail_gpa(0) + 2, driver->avail[0] + violation->jump);
    driver_notify(driver, 0);
    turn(bench);
}

static void test_violations(void **state)
{
    struct bench *bench = *state;
    struct driver *driver = &bench->driver;

    for (unsigned i = 0; i < ARRAY_SIZE(violations); i++) {
        driver_start(driver, FEATURES_RING, QUEUES, SIZE);
        assert_false(needs_reset(bench));
        offer_violation(bench, &violations[i]);
        if (!needs_reset(bench))
            fail_msg("%s was accepted", violations[i].name);
        assert_int_equal(driver_used_index(driver, 0), 0);
        assert_int_equal(driver_read(driver, MMIO_ISR), VIRTIO_ISR_CONFIG);
        assert_int_equal(atomic_load(&bench->level), 1);
        /* Dead, also on the other queue, until the reset. */
        offer_request(bench, 1, 0);
        driver_notify(driver, 1);
        turn(bench);
        assert_int_equal(driver_used_index(driver, 1), 0);
        driver_start(driver, FEATURES_RING, QUEUES, SIZE);
        assert_int_equal(atomic_load(&bench->level), 0);
        offer_request(bench, 0, 0);
        driver_notify(driver, 0);
        turn(bench);
        expect_answer(bench, 0, 0);
    }
}

/* Indirect descriptors are a violation where they were not negotiated. */
static void test_indirect_not_negotiated(void **state)
{
    struct bench *bench = *state;

    driver_start(&bench->driver, FEATURES_PLAIN, QUEUES, SIZE);
    driver_set_desc(&bench->driver, TABLE, 0, (struct driver_desc){BUFFER, 4, 0, 0});
    driver_set_desc(&bench->driver, driver_desc_gpa(0), 0,
                    (struct driver_desc){TABLE, 16, DESC_INDIRECT, 0});
    driver_offer(&bench->driver, 0, 0);
    driver_notify(&bench->driver, 0);
    turn(bench);
    assert_true(needs_reset(bench));
}

/* The longest chain that is allowed, and one more. */
static void test_chain_length(void **state)
{
    struct bench *bench = *state;
    struct driver_desc chain[SIZE];
    uint32_t head, size;

    for (unsigned i = 0; i < SIZE; i++)
        chain[i] = (struct driver_desc){BUFFER + 8 * i, 8, i < SIZE / 2 ? 0 : DESC_WRITE, 0};
    driver_start(&bench->driver, FEATURES_PLAIN, QUEUES, SIZE);
    driver_offer_chain(&bench->driver, 0, 0, chain, SIZE);
    driver_notify(&bench->driver, 0);
    turn(bench);
    assert_true(driver_take(&bench->driver, 0, &head, &size));
    assert_int_equal(size, 8 * SIZE / 2);

    /* 4 GiB in parts that are each in RAM. */
    driver_start(&bench->driver, FEATURES_RING, QUEUES, SIZE);
    for (unsigned i = 0; i < 1024; i++)
        driver_set_desc(&bench->driver, TABLE, i,
                        (struct driver_desc){DRIVER_RAM_BASE, DRIVER_RAM_SIZE,
                                             DESC_WRITE | (i < 1023 ? DESC_NEXT : 0), i + 1});
    driver_set_desc(&bench->driver, driver_desc_gpa(0), 0,
                    (struct driver_desc){TABLE, 16384, DESC_INDIRECT, 0});
    driver_offer(&bench->driver, 0, 0);
    driver_notify(&bench->driver, 0);
    turn(bench);
    assert_true(needs_reset(bench));
}

static void test_bad_rings(void **state)
{
    struct bench *bench = *state;
    struct driver *driver = &bench->driver;
    static const struct {
        uint32_t offset; /* of the address register */
        uint64_t gpa;
    } cases[] = {
        {0x080, DRIVER_RINGS + 8},
        {0x080, HOLE},
        {0x090, DRIVER_RINGS + 1},
        {0x090, UINT64_MAX - 1},
        {0x0a0, DRIVER_RINGS + 2},
        {0x0a0, DRIVER_SLOT},
        {0x080, DRIVER_RAM_BASE + DRIVER_RAM_SIZE - 16}, /* not in one region */
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        driver_start(driver, FEATURES_PLAIN, 0, SIZE);
        driver_write(driver, 0x030, 0);
        driver_write(driver, 0x038, SIZE);
        driver_write64(driver, 0x080, driver_desc_gpa(0));
        driver_write64(driver, 0x090, driver_avail_gpa(0));
        driver_write64(driver, 0x0a0, driver_used_gpa(0));
        driver_write64(driver, cases[i].offset, cases[i].gpa);
        driver_write(driver, 0x044, 1);
        assert_true(needs_reset(bench));
        driver_notify(driver, 0);
        turn(bench);
    }
    static const uint32_t sizes[] = {0, 3, 512, 0x10000, UINT32_MAX};
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        driver_start(driver, FEATURES_PLAIN, 0, SIZE);
        driver->queue_size = sizes[i];
        driver_queue_setup(driver, 0);
        assert_true(needs_reset(bench));
        driver_notify(driver, 0);
        turn(bench);
    }
}

static void test_negotiation(void **state)
{
    struct bench *bench = *state;
    struct driver *driver = &bench->driver;
    uint64_t offered = BIT(FEATURE_OWN) | FEATURES_RING | BIT(VIRTIO_VERSION_1);

    assert_int_equal(driver_read(driver, 0x000), 0x74726976);
    assert_int_equal(driver_read(driver, 0x004), 2);
    assert_int_equal(driver_read(driver, 0x008), 42);
    driver_write(driver, 0x014, 0);
    assert_int_equal(driver_read(driver, MMIO_DEVICE_FEATURES), (uint32_t)offered);
    driver_write(driver, 0x014, 1);
    assert_int_equal(driver_read(driver, MMIO_DEVICE_FEATURES), offered >> 32);
    driver_write(driver, 0x014, 2);
    assert_int_equal(driver_read(driver, MMIO_DEVICE_FEATURES), 0);

    assert_true(driver_negotiate(driver, offered));
    assert_false(driver_negotiate(driver, 0)); /* no VERSION_1 */
    assert_false(driver_negotiate(driver, offered | BIT(7)));
    driver_write(driver, MMIO_STATUS, 0x7); /* DRIVER_OK without FEATURES_OK */
    assert_false(driver_read(driver, MMIO_STATUS) & VIRTIO_STATUS_DRIVER_OK);

    assert_true(driver_negotiate(driver, BIT(VIRTIO_VERSION_1)));
    driver_write(driver, 0x024, 0);
    driver_write(driver, 0x020, UINT32_MAX); /* too late */
    driver_write(driver, MMIO_STATUS, 0xf);
    assert_int_equal(bench->mirror->virtio.features, BIT(VIRTIO_VERSION_1));
    /* A queue that is not there. */
    driver_write(driver, 0x030, QUEUES);
    assert_int_equal(driver_read(driver, 0x034), 0);
    driver_write(driver, 0x044, 1);
    driver_notify(driver, 77);
    assert_false(needs_reset(bench));
}

static void test_config(void **state)
{
    struct bench *bench = *state;
    struct driver *driver = &bench->driver;
    uint64_t value;
    uint32_t generation;

    driver_start(driver, FEATURES_PLAIN, QUEUES, SIZE);
    generation = driver_read(driver, 0x0fc);
    assert_true(memory_read(bench->memory, DRIVER_SLOT + MMIO_CONFIG + 1, 1, &value));
    assert_int_equal(value, 0x02);
    assert_true(memory_read(bench->memory, DRIVER_SLOT + MMIO_CONFIG + 2, 2, &value));
    assert_int_equal(value, 0x0403);
    assert_int_equal(driver_read(driver, MMIO_CONFIG + 4), 0x08070605);
    assert_int_equal(driver_read(driver, MMIO_CONFIG + 8), 0);
    assert_true(memory_write(bench->memory, DRIVER_SLOT + MMIO_CONFIG + 7, 1, 0xaa));
    assert_int_equal(driver_read(driver, MMIO_CONFIG + 4), 0xaa070605);
    driver_write(driver, MMIO_CONFIG + 8, 1);
    driver_write(driver, MMIO_CONFIG + 0xe00, 1);
    assert_int_equal(bench->mirror->config_writes, 1);

    virtio_lock(&bench->mirror->virtio);
    virtio_config_changed(&bench->mirror->virtio);
    virtio_unlock(&bench->mirror->virtio);
    assert_int_not_equal(driver_read(driver, 0x0fc), generation);
    assert_int_equal(driver_read(driver, MMIO_ISR), VIRTIO_ISR_CONFIG);
}

/* Section 2.7.7.2, over the wrap of the 16-bit indices. */
static void test_event_index(void **state)
{
    struct bench *bench = *state;
    struct driver *driver = &bench->driver;
    uint64_t used_event = driver_avail_gpa(0) + 4 + 2 * SIZE;
    uint64_t avail_event = driver_used_gpa(0) + 4 + 8 * SIZE;

    driver_start(driver, FEATURES_RING, QUEUES, SIZE);
    for (unsigned round = 0; round < 70000; round++) {
        bool wanted = round % 3 == 0;
        /* Wanted: interrupt when the entry of this round is used; otherwise far ahead. */
        driver_put16(driver, used_event, wanted ? round : round + 1000);
        driver_set_desc(driver, driver_desc_gpa(0), 2,
                        (struct driver_desc){BUFFER, 4, DESC_WRITE, 0});
        driver_offer(driver, 0, 2);
        driver_notify(driver, 0);
        loop_turn(bench->loop, 0);
        assert_int_equal(driver_used_index(driver, 0), (uint16_t)(round + 1));
        assert_int_equal(driver_get16(driver, avail_event), (uint16_t)(round + 1));
        assert_int_equal(atomic_load(&bench->level), wanted);
        driver_write(driver, MMIO_ISR_ACK, 3);
    }
}

static void test_flags(void **state)
{
    struct bench *bench = *state;
    struct driver *driver = &bench->driver;

    driver_start(driver, FEATURES_PLAIN, QUEUES, SIZE);
    driver_put16(driver, driver_avail_gpa(0), 1); /* VIRTQ_AVAIL_F_NO_INTERRUPT */
    offer_request(bench, 0, 0);
    driver_notify(driver, 0);
    turn(bench);
    assert_int_equal(driver_used_index(driver, 0), 1);
    assert_int_equal(atomic_load(&bench->level), 0);
    /* An empty queue wants notifications; one whose chains are being taken does not. */
    assert_int_equal(driver_get16(driver, driver_used_gpa(0)), 0);
    offer_request(bench, 0, 0);
    virtio_lock(&bench->mirror->virtio);
    struct virtio_chain *chain = virtio_queue_pop(&bench->mirror->virtio.queues[0]);
    assert_non_null(chain);
    assert_int_equal(driver_get16(driver, driver_used_gpa(0)), 1);
    virtio_queue_push(chain, 0);
    assert_null(virtio_queue_pop(&bench->mirror->virtio.queues[0]));
    assert_int_equal(driver_get16(driver, driver_used_gpa(0)), 0);
    virtio_unlock(&bench->mirror->virtio);
}

/* Several pushes appear at once; an undone pop is as if it had never been. */
static void test_batch(void **state)
{
    struct bench *bench = *state;
    struct virtio_queue *queue = &bench->mirror->virtio.queues[0];
    struct virtio_chain *first, *second;

    driver_start(&bench->driver, FEATURES_RING, QUEUES, SIZE);
    offer_request(bench, 0, 0);
    offer_request(bench, 0, 4);
    virtio_lock(&bench->mirror->virtio);
    first = virtio_queue_pop(queue);
    second = virtio_queue_pop(queue);
    assert_non_null(second);
    assert_null(virtio_queue_pop(queue));
    virtio_queue_unpop(second);
    second = virtio_queue_pop(queue);
    assert_int_equal(second->head, 4);
    virtio_queue_push(second, 4);
    virtio_queue_push(first, 4);
    assert_int_equal(driver_used_index(&bench->driver, 0), 0);
    virtio_queue_flush(queue);
    assert_int_equal(driver_used_index(&bench->driver, 0), 2);
    virtio_unlock(&bench->mirror->virtio);
}

/* Requests in flight over a reset never reach the new rings. */
static void test_reset_in_flight(void **state)
{
    struct bench *bench = *state;
    struct mirror *mirror = bench->mirror;
    unsigned resets;

    mirror->hold = true;
    driver_start(&bench->driver, FEATURES_RING, QUEUES, SIZE);
    resets = mirror->resets;
    offer_request(bench, 0, 0);
    offer_request(bench, 0, 4);
    driver_notify(&bench->driver, 0);
    turn(bench);
    assert_int_equal(mirror->held_count, 2);
    driver_start(&bench->driver, FEATURES_RING, QUEUES, SIZE);
    assert_int_equal(mirror->resets, resets + 1);
    assert_true(virtio_chain_stale(mirror->held[0]));
    virtio_lock(&mirror->virtio);
    virtio_queue_push(mirror->held[0], 4);
    virtio_queue_unpop(mirror->held[1]);
    virtio_queue_flush(&mirror->virtio.queues[0]);
    virtio_unlock(&mirror->virtio);
    mirror->held_count = 0;
    assert_int_equal(driver_used_index(&bench->driver, 0), 0);
    mirror->hold = false;
    offer_request(bench, 0, 0);
    driver_notify(&bench->driver, 0);
    turn(bench);
    expect_answer(bench, 0, 0);
    assert_int_equal(driver_used_index(&bench->driver, 0), 1);
}

/* Descriptors offered again and again while in use cannot make the device hold without end. */
static void test_in_flight_bound(void **state)
{
    struct bench *bench = *state;

    bench->mirror->hold = true;
    driver_start(&bench->driver, FEATURES_RING, QUEUES, SIZE);
    for (unsigned i = 0; i < 2 * SIZE; i++) {
        offer_request(bench, 0, 0);
        driver_notify(&bench->driver, 0);
        turn(bench);
    }
    assert_true(needs_reset(bench));
    assert_int_equal(bench->mirror->held_count, SIZE);
}

/* Saved between two requests, with one in flight, loaded into a new device on the same memory. */
static void test_state(void **state)
{
    struct bench *bench = *state;
    struct stream *stream = stream_create_saving();
    struct device *base = &bench->mirror->virtio.base;
    const void *bytes;
    size_t size;

    driver_start(&bench->driver, FEATURES_RING | BIT(FEATURE_OWN), QUEUES, SIZE);
    bench->mirror->own = 0x1234;
    bench->mirror->hold = true;
    offer_request(bench, 0, 0);
    driver_notify(&bench->driver, 0);
    turn(bench);
    assert_int_equal(bench->mirror->held_count, 1);
    base->type->quiesce(base);
    offer_request(bench, 0, 4); /* the notification is lost with the old machine */
    base->type->state(base, stream);
    assert_true(stream_check(stream, NULL));
    bytes = stream_data(stream, &size);
    base->type->remove(base);

    bench_attach(bench);
    base = &bench->mirror->virtio.base;
    struct stream *loading = stream_create_loading(bytes, size);
    base->type->state(base, loading);
    struct error err = {0};
    if (!stream_check(loading, &err))
        fail_msg("%s", err.message);
    assert_int_equal(bench->mirror->own, 0x1234);
    assert_int_equal(bench->mirror->virtio.features,
                     FEATURES_RING | BIT(FEATURE_OWN) | BIT(VIRTIO_VERSION_1));
    assert_int_equal(atomic_load(&bench->level), 1);
    turn(bench);
    uint32_t head, length;
    assert_true(driver_take(&bench->driver, 0, &head, &length));
    assert_int_equal(head, 0);
    expect_answer(bench, 0, 4);

    /* Every truncation of the stream is refused or harmless. */
    for (size_t cut = 0; cut < size; cut++) {
        struct stream *short_one = stream_create_loading(bytes, cut);
        base->type->state(base, short_one);
        assert_false(stream_check(short_one, NULL));
        stream_destroy(short_one);
        turn(bench);
    }
    stream_destroy(loading);
    stream_destroy(stream);
}

static void test_empty_slot(void **state)
{
    struct bench *bench = *state;
    struct irq_line irq = {0};
    struct virtio_mmio *slot =
        virtio_mmio_create(bench->memory, DRIVER_SLOT + 0x1000, irq, "slot1", NULL);
    struct driver driver = {.memory = bench->memory, .slot = DRIVER_SLOT + 0x1000};
    struct error err = {0};

    assert_int_equal(driver_read(&driver, 0x000), 0x74726976);
    assert_int_equal(driver_read(&driver, 0x008), 0);
    driver_write(&driver, MMIO_STATUS, 1);
    driver_write(&driver, MMIO_QUEUE_NOTIFY, 0);
    assert_int_equal(driver_read(&driver, MMIO_STATUS), 0);
    assert_false(virtio_mmio_attach(bench->slot, &bench->mirror->virtio, &err));
    assert_non_null(strstr(err.message, "slot0"));
    virtio_mmio_device(slot)->type->remove(virtio_mmio_device(slot));
}

/*
 * A driver on its own thread that notifies only when avail_event asks for it: one lost notification
 * and it waits for ever.
 */
#define RACE_ROUNDS 30000

struct race {
    struct bench *bench;
    bool stuck;
};

static void *race_driver(void *opaque)
{
    struct race *race = opaque;
    struct driver *driver = &race->bench->driver;
    uint64_t avail_event = driver_used_gpa(0) + 4 + 8 * SIZE;
    unsigned offered = 0, seen = 0;
    uint32_t seed = 1;

    while (seen < RACE_ROUNDS && !race->stuck) {
        unsigned burst = (seed = seed * 1664525 + 1013904223) >> 30;
        uint16_t old = driver->avail[0];
        for (; burst && offered - seen < SIZE && offered < RACE_ROUNDS; burst--, offered++)
            driver_offer(driver, 0, offered % SIZE);
        atomic_thread_fence(memory_order_seq_cst);
        uint16_t event = driver_get16(driver, avail_event);
        if ((uint16_t)(driver->avail[0] - event - 1) < (uint16_t)(driver->avail[0] - old))
            driver_notify(driver, 0);
        uint64_t deadline = loop_now() + UINT64_C(20000000000);
        do
            seen += (uint16_t)(driver_used_index(driver, 0) - (uint16_t)seen);
        while (seen < offered && offered - seen >= SIZE / 2 && loop_now() < deadline);
        race->stuck = loop_now() >= deadline;
        if (offered == RACE_ROUNDS)
            while (seen < offered && !race->stuck) {
                seen += (uint16_t)(driver_used_index(driver, 0) - (uint16_t)seen);
                race->stuck = loop_now() >= deadline;
            }
    }
    loop_quit(race->bench->loop);
    return NULL;
}

static void test_notification_race(void **state)
{
    struct bench *bench = *state;
    struct race race = {bench, false};
    pthread_t thread;

    driver_start(&bench->driver, FEATURES_RING, QUEUES, SIZE);
    for (unsigned i = 0; i < SIZE; i++)
        driver_set_desc(&bench->driver, driver_desc_gpa(0), i,
                        (struct driver_desc){BUFFER, 4, DESC_WRITE, 0});
    pthread_create(&thread, NULL, race_driver, &race);
    loop_run(bench->loop);
    pthread_join(thread, NULL);
    assert_false(race.stuck);
    assert_int_equal(driver_used_index(&bench->driver, 0), (uint16_t)RACE_ROUNDS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_request),        TEST(test_before_driver_ok), TEST(test_indirect),
        TEST(test_across_regions), TEST(test_violations),       TEST(test_indirect_not_negotiated),
        TEST(test_chain_length),   TEST(test_bad_rings),        TEST(test_negotiation),
        TEST(test_config),         TEST(test_event_index),      TEST(test_flags),
        TEST(test_batch),          TEST(test_reset_in_flight),  TEST(test_in_flight_bound),
        TEST(test_state),          TEST(test_empty_slot),       TEST(test_notification_race),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
