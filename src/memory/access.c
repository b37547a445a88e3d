/* Single accesses by harts, to RAM, ROM or registers. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "memory/internal.h"
#include "memory/registers.h"

uint64_t memory_host_load(const uint8_t *host, unsigned size)
{
    if ((uintptr_t)host & (size - 1))
        return load_le(host, size);
    switch (size) {
    case 1:
        return __atomic_load_n(host, __ATOMIC_RELAXED);
    case 2:
        return __atomic_load_n((const uint16_t *)host, __ATOMIC_RELAXED);
    case 4:
        return __atomic_load_n((const uint32_t *)host, __ATOMIC_RELAXED);
    default:
        return __atomic_load_n((const uint64_t *)host, __ATOMIC_RELAXED);
    }
}

void memory_host_store(uint8_t *host, uint64_t value, unsigned size)
{
    if ((uintptr_t)host & (size - 1)) {
        store_le(host, value, size);
        return;
    }
    switch (size) {
    case 1:
        __atomic_store_n(host, (uint8_t)value, __ATOMIC_RELAXED);
        break;
    case 2:
        __atomic_store_n((uint16_t *)host, (uint16_t)value, __ATOMIC_RELAXED);
        break;
    case 4:
        __atomic_store_n((uint32_t *)host, (uint32_t)value, __ATOMIC_RELAXED);
        break;
    default:
        __atomic_store_n((uint64_t *)host, value, __ATOMIC_RELAXED);
        break;
    }
}

/* The range of registers an access is for: a mapped region, or ROM in register mode. */
struct target {
    const struct mmio_ops *ops;
    void *opaque;
    const char *name;
    uint64_t offset;
    uint64_t size;
};

/* The size of the pieces that the access is made in, or 0 if the registers do not allow it. */
static unsigned piece_size(const struct target *target, uint64_t gpa, unsigned size)
{
    const struct mmio_ops *ops = target->ops;
    unsigned piece = size;
    if (ops->max_size && size > ops->max_size)
        piece = ops->split ? ops->max_size : 0;
    if (!piece || piece < ops->min_size || gpa & (size - 1) || target->offset & (piece - 1))
        return 0;
    return range_fits(target->offset, size, target->size) ? piece : 0;
}

static void trace_access(const struct target *target, const char *verb, unsigned size,
                         uint64_t value)
{
    trace_write(TRACE_MMIO, "%s %s+0x%llx size %u value 0x%llx", verb, target->name,
                (unsigned long long)target->offset, size, (unsigned long long)value);
}

static bool target_read(const struct target *target, uint64_t gpa, unsigned size, uint64_t *value)
{
    unsigned piece = target->ops && target->ops->read ? piece_size(target, gpa, size) : 0;
    if (!piece)
        return false;
    uint64_t whole = 0;
    for (unsigned at = 0; at < size; at += piece) {
        uint64_t part = target->ops->read(target->opaque, target->offset + at, piece);
        whole |= (part & size_mask(piece)) << (8 * at);
    }
    if (trace_on(TRACE_MMIO))
        trace_access(target, "read", size, whole);
    *value = whole;
    return true;
}

static bool target_write(const struct target *target, uint64_t gpa, unsigned size, uint64_t value)
{
    unsigned piece = target->ops && target->ops->write ? piece_size(target, gpa, size) : 0;
    if (!piece)
        return false;
    if (trace_on(TRACE_MMIO))
        trace_access(target, "write", size, value & size_mask(size));
    for (unsigned at = 0; at < size; at += piece)
        target->ops->write(target->opaque, target->offset + at,
                           (value >> (8 * at)) & size_mask(piece), piece);
    return true;
}

static struct target block_target(const struct block *block, uint64_t gpa)
{
    return (struct target){.ops = block->ops,
                           .opaque = block->opaque,
                           .name = "rom",
                           .offset = gpa - block->ram.base,
                           .size = block->ram.size};
}

static struct target region_target(const struct region *region, uint64_t gpa)
{
    return (struct target){.ops = region->ops,
                           .opaque = region->opaque,
                           .name = region->name,
                           .offset = gpa - region->base,
                           .size = region->size};
}

/* Device memory that is not accessed through a TLB. */
static uint8_t *region_host(const struct region *region, uint64_t gpa, unsigned size)
{
    uint64_t offset = gpa - region->base;
    return range_fits(offset, size, region->size) ? region->host + offset : NULL;
}

static bool region_read(const struct region *region, uint64_t gpa, unsigned size, uint64_t *value)
{
    if (!region->host) {
        struct target target = region_target(region, gpa);
        return target_read(&target, gpa, size, value);
    }
    const uint8_t *host = region_host(region, gpa, size);
    if (host)
        *value = memory_host_load(host, size);
    return host;
}

static bool region_write(const struct region *region, uint64_t gpa, unsigned size, uint64_t value)
{
    if (!region->host) {
        struct target target = region_target(region, gpa);
        return target_write(&target, gpa, size, value);
    }
    uint8_t *host = region_host(region, gpa, size);
    if (host)
        memory_host_store(host, value, size);
    return host;
}

/* An access that goes on behind the block's end is made byte by byte, if all of it is contents. */
static bool read_across(struct memory *memory, uint64_t gpa, unsigned size, uint64_t *value)
{
    const struct block *next = block_find(memory, gpa + size - 1);
    if (!next || next->registers)
        return false;
    uint64_t whole = 0;
    for (unsigned i = 0; i < size; i++) {
        uint64_t byte = 0;
        if (!memory_read(memory, gpa + i, 1, &byte))
            return false;
        whole |= byte << (8 * i);
    }
    *value = whole;
    return true;
}

static bool write_across(struct memory *memory, uint64_t gpa, unsigned size, uint64_t value)
{
    const struct block *next = block_find(memory, gpa + size - 1);
    if (!next || next->rom)
        return false;
    for (unsigned i = 0; i < size; i++)
        if (!memory_write(memory, gpa + i, 1, (value >> (8 * i)) & 0xff))
            return false;
    return true;
}

static void tell_watchers(const struct memory *memory, uint64_t gpa, unsigned size)
{
    for (size_t i = 0; i < memory->watch_count; i++) {
        const struct watch *watch = &memory->watches[i];
        if (ranges_overlap(gpa, size, watch->base, watch->size))
            watch->written(watch->opaque, gpa);
    }
}

static void write_ram(struct memory *memory, struct block *block, uint64_t gpa, unsigned size,
                      uint64_t value)
{
    memory_host_store(block_host(block, gpa), value, size);
    block_written(memory, block, gpa, size);
    tell_watchers(memory, gpa, size);
}

void memory_add_background(struct memory *memory, uint64_t base, uint64_t size)
{
    size_t count = memory->background_count++;
    memory->background = xrealloc(memory->background, (count + 1) * sizeof(*memory->background));
    memory->background[count] = (struct window){.base = base, .size = size};
}

bool in_background(const struct memory *memory, uint64_t gpa)
{
    for (size_t i = 0; i < memory->background_count; i++)
        if (gpa - memory->background[i].base < memory->background[i].size)
            return true;
    return false;
}

bool memory_add_messages(struct memory *memory, uint64_t base, uint64_t size,
                         const struct mmio_ops *ops, void *opaque, const char *name,
                         struct error *err)
{
    assert(memory->message_count < MESSAGE_WINDOWS);
    if (!memory_add_mmio(memory, base, size, ops, opaque, name, err))
        return false;
    struct message_window *window = &memory->messages[memory->message_count++];
    *window = (struct message_window){.base = base, .size = size, .ops = ops, .opaque = opaque};
    snprintf(window->name, sizeof(window->name), "%s", name);
    return true;
}

/* The registers for messages at gpa: harts reach them as devices do, without the lock. */
static bool message_find(const struct memory *memory, uint64_t gpa, struct target *target)
{
    for (size_t i = 0; i < memory->message_count; i++) {
        const struct message_window *window = &memory->messages[i];
        if (gpa - window->base >= window->size)
            continue;
        *target = (struct target){.ops = window->ops,
                                  .opaque = window->opaque,
                                  .name = window->name,
                                  .offset = gpa - window->base,
                                  .size = window->size};
        return true;
    }
    return false;
}

bool memory_send_message(struct memory *memory, uint64_t gpa, uint32_t data)
{
    struct target target;
    if (message_find(memory, gpa, &target))
        return target_write(&target, gpa, sizeof(data), data);
    uint8_t bytes[4];
    store_le32(bytes, data);
    return memory_dma_write(memory, gpa, bytes, sizeof(bytes));
}

bool memory_read(struct memory *memory, uint64_t gpa, unsigned size, uint64_t *value)
{
    const struct block *block = block_find(memory, gpa);
    if (block && !block->registers) {
        if (size > block_left(block, gpa))
            return read_across(memory, gpa, size, value);
        *value = memory_host_load(block_host(block, gpa), size);
        return true;
    }
    if (block) {
        struct target target = block_target(block, gpa);
        return target_read(&target, gpa, size, value);
    }
    struct visit visit;
    if (!region_enter(memory, gpa, &visit)) {
        *value = size_mask(size);
        return in_background(memory, gpa);
    }
    bool done = region_read(visit.region, gpa, size, value);
    region_leave(memory, &visit);
    return done;
}

bool memory_write(struct memory *memory, uint64_t gpa, unsigned size, uint64_t value)
{
    struct block *block = block_find(memory, gpa);
    if (block && !block->rom) {
        if (size > block_left(block, gpa))
            return write_across(memory, gpa, size, value);
        write_ram(memory, block, gpa, size, value);
        return true;
    }
    if (block) {
        struct target target = block_target(block, gpa);
        return target_write(&target, gpa, size, value);
    }
    struct target target;
    if (message_find(memory, gpa, &target))
        return target_write(&target, gpa, size, value);
    struct visit visit;
    if (!region_enter(memory, gpa, &visit))
        return in_background(memory, gpa);
    bool done = region_write(visit.region, gpa, size, value);
    region_leave(memory, &visit);
    return done;
}
