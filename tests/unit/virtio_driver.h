/*
 * A guest's virtio driver for tests: queues in guest RAM, registers through memory_read and
 * memory_write, on the MMIO transport.
 */
#pragma once

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#include "base/base.h"
#include "memory/memory.h"
#include "virtio/transport.h"

#define DRIVER_RAM_BASE UINT64_C(0x80000000)
#define DRIVER_RAM_SIZE UINT64_C(0x400000)
#define DRIVER_SLOT     UINT64_C(0x10001000)
#define DRIVER_RINGS    DRIVER_RAM_BASE              /* 0x8000 a queue */
#define DRIVER_BUFFERS  (DRIVER_RAM_BASE + 0x100000) /* free for the test */

#define DESC_NEXT     1
#define DESC_WRITE    2
#define DESC_INDIRECT 4

#define MMIO_DEVICE_FEATURES 0x010
#define MMIO_QUEUE_NOTIFY    0x050
#define MMIO_ISR             0x060
#define MMIO_ISR_ACK         0x064
#define MMIO_STATUS          0x070
#define MMIO_CONFIG          0x100

struct driver {
    struct memory *memory;
    uint64_t slot;
    unsigned queue_size;
    uint16_t avail[8]; /* the next available index of each queue */
    uint16_t used[8];  /* the next used entry to look at */
};

struct driver_desc {
    uint64_t gpa;
    uint32_t size;
    uint16_t flags, next;
};

static inline uint32_t driver_read(const struct driver *driver, uint64_t offset)
{
    uint64_t value = 0;
    bool there = memory_read(driver->memory, driver->slot + offset, 4, &value);
    assert(there);
    (void)there;
    return value;
}

static inline void driver_write(const struct driver *driver, uint64_t offset, uint32_t value)
{
    bool there = memory_write(driver->memory, driver->slot + offset, 4, value);
    assert(there);
    (void)there;
}

/* Registers of the slot with both halves of a 64-bit address. */
static inline void driver_write64(const struct driver *driver, uint64_t offset, uint64_t value)
{
    driver_write(driver, offset, value);
    driver_write(driver, offset + 4, value >> 32);
}

static inline uint64_t driver_desc_gpa(unsigned queue)
{
    return DRIVER_RINGS + queue * UINT64_C(0x8000);
}

static inline uint64_t driver_avail_gpa(unsigned queue)
{
    return driver_desc_gpa(queue) + 0x4000;
}

static inline uint64_t driver_used_gpa(unsigned queue)
{
    return driver_desc_gpa(queue) + 0x5000;
}

static inline uint16_t driver_get16(const struct driver *driver, uint64_t gpa)
{
    uint16_t value = 0;
    memory_dma_read(driver->memory, gpa, &value, 2);
    return value;
}

static inline uint32_t driver_get32(const struct driver *driver, uint64_t gpa)
{
    uint32_t value = 0;
    memory_dma_read(driver->memory, gpa, &value, 4);
    return value;
}

static inline void driver_put16(const struct driver *driver, uint64_t gpa, uint16_t value)
{
    memory_dma_write(driver->memory, gpa, &value, 2);
}

static inline void driver_queue_setup(struct driver *driver, unsigned queue)
{
    uint8_t zeros[64] = {0};

    for (uint64_t at = 0; at < 0x8000; at += sizeof(zeros))
        memory_dma_write(driver->memory, driver_desc_gpa(queue) + at, zeros, sizeof(zeros));
    driver->avail[queue] = driver->used[queue] = 0;
    driver_write(driver, 0x030, queue);
    driver_write(driver, 0x038, driver->queue_size);
    driver_write64(driver, 0x080, driver_desc_gpa(queue));
    driver_write64(driver, 0x090, driver_avail_gpa(queue));
    driver_write64(driver, 0x0a0, driver_used_gpa(queue));
    driver_write(driver, 0x044, 1);
}

/* Negotiates; returns true if the device accepted the features. */
static inline bool driver_negotiate(struct driver *driver, uint64_t features)
{
    driver_write(driver, MMIO_STATUS, 0);
    driver_write(driver, MMIO_STATUS, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
    for (unsigned word = 0; word < 2; word++) {
        driver_write(driver, 0x024, word);
        driver_write(driver, 0x020, features >> (32 * word));
    }
    driver_write(driver, MMIO_STATUS, driver_read(driver, MMIO_STATUS) | VIRTIO_STATUS_FEATURES_OK);
    return driver_read(driver, MMIO_STATUS) & VIRTIO_STATUS_FEATURES_OK;
}

/* Resets the device and brings it to DRIVER_OK with `queues` queues of `size` entries. */
static inline void driver_start(struct driver *driver, uint64_t features, unsigned queues,
                                unsigned size)
{
    bool accepted = driver_negotiate(driver, features | BIT(VIRTIO_VERSION_1));

    assert(accepted);
    (void)accepted;
    driver->queue_size = size;
    for (unsigned i = 0; i < queues; i++)
        driver_queue_setup(driver, i);
    driver_write(driver, MMIO_STATUS, driver_read(driver, MMIO_STATUS) | VIRTIO_STATUS_DRIVER_OK);
}

static inline void driver_set_desc(const struct driver *driver, uint64_t table, unsigned index,
                                   struct driver_desc desc)
{
    memory_dma_write(driver->memory, table + 16 * (uint64_t)index, &desc, sizeof(desc));
}

/* Makes the chain at descriptor `head` available, without a notification. */
static inline void driver_offer(struct driver *driver, unsigned queue, uint16_t head)
{
    uint16_t slot = driver->avail[queue]++ & (driver->queue_size - 1);

    driver_put16(driver, driver_avail_gpa(queue) + 4 + 2 * (uint64_t)slot, head);
    driver_put16(driver, driver_avail_gpa(queue) + 2, driver->avail[queue]);
}

static inline void driver_notify(const struct driver *driver, unsigned queue)
{
    driver_write(driver, MMIO_QUEUE_NOTIFY, queue);
}

/* Writes `count` descriptors from `first` on, chained in order, and offers them. */
static inline void driver_offer_chain(struct driver *driver, unsigned queue, unsigned first,
                                      const struct driver_desc *descs, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct driver_desc desc = descs[i];
        if (i + 1 < count) {
            desc.flags |= DESC_NEXT;
            desc.next = first + i + 1;
        }
        driver_set_desc(driver, driver_desc_gpa(queue), first + i, desc);
    }
    driver_offer(driver, queue, first);
}

static inline uint16_t driver_used_index(const struct driver *driver, unsigned queue)
{
    return driver_get16(driver, driver_used_gpa(queue) + 2);
}

/* Takes the next used entry; false if there is none. */
static inline bool driver_take(struct driver *driver, unsigned queue, uint32_t *head,
                               uint32_t *size)
{
    uint64_t entry =
        driver_used_gpa(queue) + 4 + 8 * (uint64_t)(driver->used[queue] & (driver->queue_size - 1));

    if (driver_used_index(driver, queue) == driver->used[queue])
        return false;
    *head = driver_get32(driver, entry);
    *size = driver_get32(driver, entry + 4);
    driver->used[queue]++;
    return true;
}
