/* Split virtqueues (section 2.7): taking chains, checking every word of them, giving them back. */
#include <stdatomic.h>
#include <stdlib.h>

#include "virtio/transport.h"

#define DESC_SIZE        16
#define DESC_F_NEXT      1
#define DESC_F_WRITE     2
#define DESC_F_INDIRECT  4
#define AVAIL_F_NO_IRQ   1
#define USED_F_NO_NOTIFY 1

struct descriptor {
    uint64_t gpa;
    uint32_t size;
    uint16_t flags;
    uint16_t next;
};

/* A chain while it is being read. */
struct walk {
    struct virtio_queue *queue;
    unsigned count, readable_count;
    uint64_t size[2]; /* bytes: readable, writable */
    struct iovec parts[VIRTIO_CHAIN_MAX];
    uint64_t gpa[VIRTIO_CHAIN_MAX];
};

/*
 * The rings are shared with harts that run at this moment; their 16-bit words are naturally
 * aligned (checked when the queue is enabled).
 */
static _Atomic uint16_t *ring_word(const uint8_t *ring, size_t offset)
{
    return (_Atomic uint16_t *)(uintptr_t)(ring + offset);
}

static size_t avail_bytes(const struct virtio_queue *queue)
{
    return 6 + 2 * (size_t)queue->size;
}

static size_t used_bytes(const struct virtio_queue *queue)
{
    return 6 + 8 * (size_t)queue->size;
}

static void used_written(struct virtio_queue *queue, size_t offset, size_t size)
{
    memory_dma_end(queue->device->memory, queue->used_gpa + offset, size, true);
}

bool virtio_queue_ready(const struct virtio_queue *queue)
{
    const struct virtio_device *device = queue->device;
    const struct virtio_transport *transport = device->transport;

    return transport && queue->enabled && queue->used && !device->broken &&
           (device->status & VIRTIO_STATUS_DRIVER_OK) &&
           (!transport->ops->dma_allowed || transport->ops->dma_allowed(device->transport));
}

void virtio_queue_schedule(struct virtio_queue *queue)
{
    if (queue->task)
        loop_schedule(queue->task);
}

/* The ring at gpa as host memory; NULL if it is not in RAM, misaligned, or not in one piece. */
static uint8_t *ring_map(struct virtio_queue *queue, uint64_t gpa, size_t bytes, unsigned alignment,
                         bool write)
{
    size_t mapped = bytes;
    uint8_t *host =
        gpa % alignment ? NULL : memory_dma_begin(queue->device->memory, gpa, &mapped, write);
    return host && mapped == bytes ? host : NULL;
}

static bool rings_map(struct virtio_queue *queue)
{
    queue->desc =
        ring_map(queue, queue->desc_gpa, DESC_SIZE * (size_t)queue->size, DESC_SIZE, false);
    queue->avail = ring_map(queue, queue->avail_gpa, avail_bytes(queue), 2, false);
    queue->used = ring_map(queue, queue->used_gpa, used_bytes(queue), 4, true);
    if (queue->desc && queue->avail && queue->used)
        return true;
    queue->used = NULL;
    return false;
}

void virtio_queue_enable(struct virtio_queue *queue)
{
    struct virtio_device *device = queue->device;

    queue->generation++;
    queue->avail_index = queue->avail_seen = 0;
    queue->used_index = queue->used_staged = 0;
    queue->in_flight = 0;
    queue->notify_off = false;
    queue->enabled = true;
    if (!is_power_of_two(queue->size) || queue->size > queue->size_max) {
        queue->used = NULL;
        virtio_device_break(device, "queue %u: size %u is not a power of two up to %u",
                            queue->index, queue->size, queue->size_max);
    } else if (!rings_map(queue)) {
        virtio_device_break(
            device, "queue %u: rings at %#llx, %#llx, %#llx are misaligned or not in RAM",
            queue->index, (unsigned long long)queue->desc_gpa, (unsigned long long)queue->avail_gpa,
            (unsigned long long)queue->used_gpa);
    }
}

void virtio_queue_reset(struct virtio_queue *queue)
{
    queue->generation++;
    queue->enabled = false;
    queue->size = queue->size_max;
    queue->desc_gpa = queue->avail_gpa = queue->used_gpa = 0;
    queue->desc = queue->avail = NULL;
    queue->used = NULL;
    queue->avail_index = queue->avail_seen = 0;
    queue->used_index = queue->used_staged = 0;
    queue->in_flight = 0;
    queue->vector = VIRTIO_NO_VECTOR;
    queue->notify_off = false;
}

void virtio_queue_state(struct virtio_queue *queue, struct stream *stream)
{
    if (queue->in_flight)
        stream_fail(stream, "%s: queue %u has %u requests in flight", queue->device->base.name,
                    queue->index, queue->in_flight);
    stream_begin(stream, "queue", 1);
    stream_u16(stream, &queue->size);
    stream_bool(stream, &queue->enabled);
    stream_u64(stream, &queue->desc_gpa);
    stream_u64(stream, &queue->avail_gpa);
    stream_u64(stream, &queue->used_gpa);
    stream_u16(stream, &queue->avail_index);
    stream_u16(stream, &queue->used_index);
    stream_bool(stream, &queue->notify_off);
    stream_end(stream);
    if (!stream_loading(stream))
        return;

    queue->generation++;
    queue->avail_seen = queue->avail_index;
    queue->used_staged = 0;
    queue->used = NULL;
    if (queue->size > queue->size_max)
        stream_fail(stream, "%s: queue %u of size %u; at most %u is possible",
                    queue->device->base.name, queue->index, queue->size, queue->size_max);
    else if (queue->enabled && !queue->device->broken &&
             (!is_power_of_two(queue->size) || !rings_map(queue)))
        stream_fail(stream, "%s: the rings of queue %u are not in RAM", queue->device->base.name,
                    queue->index);
}

/*
 * Notifications (section 2.7.10). With EVENT_IDX, avail_event is left behind while chains are being
 * taken, so that the driver stays silent, and moved up when the queue was found empty.
 */
static void notifications_on(struct virtio_queue *queue)
{
    size_t event = 4 + 8 * (size_t)queue->size;

    if (virtio_has_feature(queue->device, VIRTIO_RING_EVENT_IDX)) {
        atomic_store_explicit(ring_word(queue->used, event), queue->avail_index,
                              memory_order_relaxed);
        used_written(queue, event, 2);
    } else if (queue->notify_off) {
        atomic_store_explicit(ring_word(queue->used, 0), 0, memory_order_relaxed);
        used_written(queue, 0, 2);
        queue->notify_off = false;
    }
}

static void notifications_off(struct virtio_queue *queue)
{
    if (queue->notify_off || virtio_has_feature(queue->device, VIRTIO_RING_EVENT_IDX))
        return;
    atomic_store_explicit(ring_word(queue->used, 0), USED_F_NO_NOTIFY, memory_order_relaxed);
    used_written(queue, 0, 2);
    queue->notify_off = true;
}

/* True if the driver has made chains available beyond avail_index. */
static bool available_fetch(struct virtio_queue *queue)
{
    if (queue->avail_index != queue->avail_seen)
        return true;
    queue->avail_seen = atomic_load_explicit(ring_word(queue->avail, 2), memory_order_acquire);
    if (queue->avail_index == queue->avail_seen) {
        /* The driver reads avail_event after it wrote avail->idx; we write, then read again: with a
         * full fence on both sides one of the two sees the other. */
        notifications_on(queue);
        atomic_thread_fence(memory_order_seq_cst);
        queue->avail_seen = atomic_load_explicit(ring_word(queue->avail, 2), memory_order_acquire);
        if (queue->avail_index == queue->avail_seen)
            return false;
    }
    if ((uint16_t)(queue->avail_seen - queue->avail_index) > queue->size) {
        virtio_device_break(queue->device, "queue %u: available index jumped from %u to %u",
                            queue->index, queue->avail_index, queue->avail_seen);
        return false;
    }
    notifications_off(queue);
    return true;
}

static bool walk_break(struct walk *walk, const char *what, const struct descriptor *desc)
{
    virtio_device_break(walk->queue->device,
                        "queue %u: %s (address %#llx, length %u, flags %#x, next %u)",
                        walk->queue->index, what, (unsigned long long)desc->gpa, desc->size,
                        desc->flags, desc->next);
    return false;
}

/* Adds a buffer, in as many parts as RAM regions it crosses. */
static bool walk_add(struct walk *walk, const struct descriptor *desc)
{
    bool write = desc->flags & DESC_F_WRITE;
    uint64_t gpa = desc->gpa, left = desc->size;

    if (!left)
        return walk_break(walk, "empty buffer", desc);
    if (!write && walk->size[1])
        return walk_break(walk, "readable buffer behind a writable one", desc);
    walk->size[write] += left;
    if (walk->size[write] > UINT32_MAX)
        return walk_break(walk, "chain of 4 GiB or more", desc);
    while (left) {
        size_t size = left;
        void *host = memory_dma_begin(walk->queue->device->memory, gpa, &size, write);
        if (!host || !size)
            return walk_break(walk, "buffer is not in RAM", desc);
        if (walk->count == VIRTIO_CHAIN_MAX)
            return walk_break(walk, "chain is too long", desc);
        walk->parts[walk->count] = (struct iovec){host, size};
        walk->gpa[walk->count++] = gpa;
        walk->readable_count += !write;
        gpa += size;
        left -= size;
    }
    return true;
}

/* The descriptor as it is now: the guest may be changing it, so it is read once. */
static struct descriptor descriptor_load(const uint8_t *bytes)
{
    uint8_t copy[DESC_SIZE];

    memcpy(copy, bytes, sizeof(copy));
    atomic_signal_fence(memory_order_seq_cst);
    return (struct descriptor){load_le64(copy), load_le32(copy + 8), load_le16(copy + 12),
                               load_le16(copy + 14)};
}

/* Section 2.7.5.3: the table is copied out whole, so no loop in it can outlast `count` steps. */
static bool walk_indirect(struct walk *walk, const struct descriptor *outer)
{
    uint8_t table[VIRTIO_CHAIN_MAX * DESC_SIZE];
    unsigned count = outer->size / DESC_SIZE;
    unsigned index = 0;

    if (!virtio_has_feature(walk->queue->device, VIRTIO_RING_INDIRECT_DESC))
        return walk_break(walk, "indirect descriptor without the feature", outer);
    if (outer->flags & DESC_F_NEXT)
        return walk_break(walk, "indirect descriptor with a next one", outer);
    if (!count || outer->size % DESC_SIZE || count > VIRTIO_CHAIN_MAX)
        return walk_break(walk, "indirect table of a wrong size", outer);
    if (!memory_dma_read(walk->queue->device->memory, outer->gpa, table, outer->size))
        return walk_break(walk, "indirect table is not in RAM", outer);

    for (unsigned steps = 0; steps < count; steps++) {
        struct descriptor desc = descriptor_load(table + (size_t)index * DESC_SIZE);
        if (desc.flags & DESC_F_INDIRECT)
            return walk_break(walk, "nested indirect descriptor", &desc);
        if (!walk_add(walk, &desc))
            return false;
        if (!(desc.flags & DESC_F_NEXT))
            return true;
        index = desc.next;
        if (index >= count)
            return walk_break(walk, "next is outside the indirect table", &desc);
    }
    return walk_break(walk, "loop in an indirect table", outer);
}

static bool walk_chain(struct walk *walk, uint16_t head)
{
    struct virtio_queue *queue = walk->queue;
    struct descriptor desc = {.next = head};

    for (unsigned steps = 0; steps < queue->size; steps++) {
        if (desc.next >= queue->size)
            return walk_break(walk, "next is outside the descriptor table", &desc);
        desc = descriptor_load(queue->desc + (size_t)desc.next * DESC_SIZE);
        if (desc.flags & DESC_F_INDIRECT)
            return walk_indirect(walk, &desc);
        if (!walk_add(walk, &desc))
            return false;
        if (!(desc.flags & DESC_F_NEXT))
            return true;
    }
    return walk_break(walk, "chain is longer than the queue", &desc);
}

static struct virtio_chain *chain_create(const struct walk *walk, uint16_t head)
{
    unsigned count = walk->count, writable = count - walk->readable_count;
    struct virtio_chain *chain =
        xmalloc(sizeof(*chain) + count * sizeof(struct iovec) + writable * sizeof(uint64_t));
    struct iovec *parts = (struct iovec *)(chain + 1);

    memcpy(parts, walk->parts, count * sizeof(struct iovec));
    *chain = (struct virtio_chain){
        .queue = walk->queue,
        .generation = walk->queue->generation,
        .head = head,
        .readable_count = walk->readable_count,
        .writable_count = writable,
        .readable = parts,
        .writable = parts + walk->readable_count,
        .readable_size = walk->size[0],
        .writable_size = walk->size[1],
        .writable_gpa = (uint64_t *)(parts + count),
    };
    memcpy(chain->writable_gpa, walk->gpa + walk->readable_count, writable * sizeof(uint64_t));
    return chain;
}

struct virtio_chain *virtio_queue_pop(struct virtio_queue *queue)
{
    struct walk walk;
    uint16_t slot, head;

    if (!virtio_queue_ready(queue) || !available_fetch(queue))
        return NULL;
    if (!queue->budget) {
        virtio_queue_schedule(queue);
        return NULL;
    }
    /* A driver that offers descriptors again before they were used could make us hold any number of
     * chains. */
    if (queue->in_flight >= queue->size) {
        virtio_device_break(queue->device, "queue %u: more than %u chains at once", queue->index,
                            queue->size);
        return NULL;
    }
    slot = queue->avail_index & (queue->size - 1);
    head =
        atomic_load_explicit(ring_word(queue->avail, 4 + 2 * (size_t)slot), memory_order_relaxed);
    walk.queue = queue;
    walk.count = walk.readable_count = 0;
    walk.size[0] = walk.size[1] = 0;
    if (!walk_chain(&walk, head))
        return NULL;
    queue->avail_index++;
    queue->in_flight++;
    queue->budget -= queue->budget != UINT32_MAX;
    return chain_create(&walk, head);
}

/* Tells the memory's logs that the first `written` bytes of the writable part have changed. */
static void chain_end(struct virtio_chain *chain, size_t written)
{
    for (unsigned i = 0; i < chain->writable_count && written; i++) {
        size_t size = chain->writable[i].iov_len;
        if (size > written)
            size = written;
        memory_dma_end(chain->queue->device->memory, chain->writable_gpa[i], size, true);
        written -= size;
    }
}

bool virtio_chain_stale(const struct virtio_chain *chain)
{
    return chain->generation != chain->queue->generation;
}

void virtio_chain_free(struct virtio_chain *chain)
{
    if (!chain)
        return;
    chain_end(chain, chain->writable_size);
    free(chain);
}

void virtio_queue_unpop(struct virtio_chain *chain)
{
    struct virtio_queue *queue = chain->queue;

    if (!virtio_chain_stale(chain)) {
        queue->avail_index--;
        queue->in_flight--;
    }
    free(chain);
}

void virtio_queue_push(struct virtio_chain *chain, size_t written)
{
    struct virtio_queue *queue = chain->queue;
    size_t offset;

    if (virtio_chain_stale(chain) || !queue->used) {
        virtio_chain_free(chain);
        return;
    }
    if (written > chain->writable_size)
        written = chain->writable_size;
    chain_end(chain, written);
    offset =
        4 + 8 * (size_t)((uint16_t)(queue->used_index + queue->used_staged) & (queue->size - 1));
    store_le32(queue->used + offset, chain->head);
    store_le32(queue->used + offset + 4, written);
    used_written(queue, offset, 8);
    queue->used_staged++;
    queue->in_flight--;
    free(chain);
}

/* Sections 2.7.7 and 2.7.8: whether the driver wants to hear of used entries [old, used_index). */
static bool interrupt_wanted(struct virtio_queue *queue, uint16_t old)
{
    size_t event = 4 + 2 * (size_t)queue->size;
    uint16_t word;

    atomic_thread_fence(memory_order_seq_cst);
    if (!virtio_has_feature(queue->device, VIRTIO_RING_EVENT_IDX)) {
        word = atomic_load_explicit(ring_word(queue->avail, 0), memory_order_relaxed);
        return !(word & AVAIL_F_NO_IRQ);
    }
    word = atomic_load_explicit(ring_word(queue->avail, event), memory_order_relaxed);
    return (uint16_t)(queue->used_index - word - 1) < (uint16_t)(queue->used_index - old);
}

void virtio_queue_flush(struct virtio_queue *queue)
{
    uint16_t old = queue->used_index;

    if (!queue->used_staged)
        return;
    queue->used_index += queue->used_staged;
    queue->used_staged = 0;
    atomic_store_explicit(ring_word(queue->used, 2), queue->used_index, memory_order_release);
    used_written(queue, 2, 2);
    if (interrupt_wanted(queue, old))
        virtio_transport_interrupt(queue->device->transport, queue);
}

static size_t iovec_copy(const struct iovec *parts, unsigned count, size_t offset, void *buffer,
                         size_t size, bool to_parts)
{
    size_t done = 0;

    for (unsigned i = 0; i < count && done < size; i++) {
        size_t length = parts[i].iov_len;
        if (offset >= length) {
            offset -= length;
            continue;
        }
        length -= offset;
        if (length > size - done)
            length = size - done;
        char *part = (char *)parts[i].iov_base + offset, *flat = (char *)buffer + done;
        memcpy(to_parts ? part : flat, to_parts ? flat : part, length);
        done += length;
        offset = 0;
    }
    return done;
}

size_t virtio_chain_read(const struct virtio_chain *chain, size_t offset, void *buffer, size_t size)
{
    return iovec_copy(chain->readable, chain->readable_count, offset, buffer, size, false);
}

size_t virtio_chain_write(const struct virtio_chain *chain, size_t offset, const void *buffer,
                          size_t size)
{
    return iovec_copy(chain->writable, chain->writable_count, offset, (void *)(uintptr_t)buffer,
                      size, true);
}
