/* An input device on a transport, with a driver that notes its events. */
#pragma once

#include <stdio.h>
#include <stdlib.h>

#include <linux/input-event-codes.h>

#include "virtio/input.h"
#include "virtio_driver.h"

#define INPUT_BENCH_QUEUE 64

struct input_bench {
    struct loop *loop;
    struct memory *memory;
    struct virtio_mmio *slot;
    struct virtio_device *device;
    struct driver driver;
    unsigned offered, outstanding; /* buffers: in all, and with the device now */
    /* What input_bench_take took. */
    struct virtio_input_event events[INPUT_BENCH_QUEUE];
    unsigned taken;
    char text[4096];
};

static inline void input_bench_turn(struct input_bench *bench)
{
    for (unsigned i = 0; i < 4; i++)
        loop_turn(bench->loop, 0);
}

/* Resets the device and starts it, without buffers. */
static inline void input_bench_start(struct input_bench *bench)
{
    driver_start(&bench->driver, 0, 2, INPUT_BENCH_QUEUE);
    bench->outstanding = 0;
}

static inline struct input_bench *
input_bench_create(struct virtio_device *(*create)(struct loop *loop))
{
    struct input_bench *bench = xcalloc(1, sizeof(*bench));
    bench->loop = loop_create();
    bench->memory = memory_create();
    bool added = memory_add_ram(bench->memory, DRIVER_RAM_BASE, DRIVER_RAM_SIZE, NULL);
    bench->slot =
        virtio_mmio_create(bench->memory, DRIVER_SLOT, (struct irq_line){0}, "slot0", NULL);
    bench->device = create(bench->loop);
    added = added && virtio_mmio_attach(bench->slot, bench->device, NULL);
    assert(added);
    (void)added;
    bench->driver = (struct driver){.memory = bench->memory, .slot = DRIVER_SLOT};
    input_bench_start(bench);
    return bench;
}

static inline void input_bench_destroy(struct input_bench *bench)
{
    struct device *slot = virtio_mmio_device(bench->slot);
    bench->device->base.type->remove(&bench->device->base);
    slot->type->remove(slot);
    memory_destroy(bench->memory);
    loop_destroy(bench->loop);
    free(bench);
}

/* Gives the device `count` buffers more, as far as the queue holds them. */
static inline void input_bench_offer(struct input_bench *bench, unsigned count)
{
    for (unsigned i = 0; i < count && bench->outstanding < INPUT_BENCH_QUEUE; i++) {
        bench->outstanding++;
        unsigned index = bench->offered++ % INPUT_BENCH_QUEUE;
        const struct driver_desc desc = {DRIVER_BUFFERS + 8 * (uint64_t)index, 8, DESC_WRITE, 0};
        driver_offer_chain(&bench->driver, 0, index, &desc, 1);
    }
    driver_notify(&bench->driver, 0);
    input_bench_turn(bench);
}

/* The events since the last time, "type.code=value " each and "| " for a report. */
static inline const char *input_bench_take(struct input_bench *bench)
{
    uint32_t head, size;
    size_t length = 0;
    input_bench_turn(bench);
    bench->taken = 0;
    bench->text[0] = '\0';
    while (bench->taken < INPUT_BENCH_QUEUE && driver_take(&bench->driver, 0, &head, &size)) {
        uint64_t at = DRIVER_BUFFERS + 8 * (uint64_t)head;
        struct virtio_input_event *event = &bench->events[bench->taken++];
        bench->outstanding--;
        assert(size == 8);
        event->type = driver_get16(&bench->driver, at);
        event->code = driver_get16(&bench->driver, at + 2);
        event->value = (int32_t)driver_get32(&bench->driver, at + 4);
        const char *format = event->type == EV_SYN ? "| " : "%u.%u=%d ";
        length += (size_t)snprintf(bench->text + length, sizeof(bench->text) - length, format,
                                   event->type, event->code, event->value);
    }
    return bench->text;
}
