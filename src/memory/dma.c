/* Access to RAM by everything that is not a hart, and what translated code must learn of it. */
#include <sched.h>
#include <string.h>

#include "memory/internal.h"

static _Atomic uint8_t *page_flags(const struct block *block, uint64_t gpa)
{
    return &block->flags[(gpa - block->ram.base) >> MEMORY_PAGE_SHIFT];
}

static bool clear_code(const struct block *block, uint64_t gpa)
{
    _Atomic uint8_t *flags = page_flags(block, gpa);
    return atomic_load_explicit(flags, memory_order_relaxed) & PAGE_CODE &&
           atomic_fetch_and(flags, (uint8_t)~PAGE_CODE) & PAGE_CODE;
}

static void report(struct memory *memory, struct block *block, uint64_t gpa, uint64_t size)
{
    uint64_t page = align_down(gpa, MEMORY_PAGE_SIZE), last = gpa + size - 1, run = 0;
    for (;;) {
        bool inside = page <= last && page - block->ram.base < block->ram.size;
        if (inside && clear_code(block, page)) {
            run += MEMORY_PAGE_SIZE;
        } else if (run) {
            if (memory->listener.code_written)
                memory->listener.code_written(memory->listener.opaque, page - run, run);
            run = 0;
        }
        if (!inside)
            return;
        page += MEMORY_PAGE_SIZE;
    }
}

/*
 * The fence pairs with that of memory_mark_code: either the engine's reading of the page, after it
 * marked it, sees the new bytes, or the mark is seen here.
 */
void block_written(struct memory *memory, struct block *block, uint64_t gpa, uint64_t size)
{
    if (!size)
        return;
    atomic_fetch_add(&memory->reporting, 1);
    atomic_thread_fence(memory_order_seq_cst);
    report(memory, block, gpa, size);
    atomic_fetch_sub(&memory->reporting, 1);
}

void memory_wait_reports(struct memory *memory)
{
    while (atomic_load(&memory->reporting))
        sched_yield();
}

bool memory_mark_code(struct memory *memory, uint64_t gpa)
{
    const struct block *block = block_find(memory, gpa);
    if (!block || block->rom)
        return false;
    /* Of this and memory_allow_stores, the later one sees what the earlier one set. */
    _Atomic uint8_t *flags = page_flags(block, gpa);
    bool marked = !(atomic_fetch_or(flags, PAGE_CODE) & PAGE_STORED);
    if (!marked)
        atomic_fetch_and(flags, (uint8_t)~PAGE_CODE);
    atomic_thread_fence(memory_order_seq_cst);
    return marked;
}

bool memory_allow_stores(struct memory *memory, uint64_t gpa, bool needed)
{
    struct block *block = block_find(memory, gpa);
    if (!block || block->rom)
        return true;
    _Atomic uint8_t *flags = page_flags(block, gpa);
    uint8_t now = atomic_load_explicit(flags, memory_order_relaxed);
    if (now & PAGE_STORED)
        return true;
    if ((now & PAGE_CODE) && !needed)
        return false;
    atomic_fetch_add(&memory->reporting, 1);
    if (atomic_fetch_or(flags, PAGE_STORED) & PAGE_CODE)
        report(memory, block, gpa, 1);
    atomic_fetch_sub(&memory->reporting, 1);
    return true;
}

void memory_forget_stores(struct memory *memory, uint64_t gpa)
{
    const struct block *block = block_find(memory, gpa);
    if (block && !block->rom)
        atomic_fetch_and(page_flags(block, gpa), (uint8_t)~PAGE_STORED);
}

/* Part of a range: what of it lies in one block. */
struct part {
    struct block *block;
    uint8_t *host;
    uint64_t size;
};

static bool part_find(const struct memory *memory, uint64_t gpa, uint64_t size, bool write,
                      struct part *part)
{
    part->block = block_find(memory, gpa);
    if (!part->block || (write && part->block->rom))
        return false;
    uint64_t left = block_left(part->block, gpa);
    part->host = block_host(part->block, gpa);
    part->size = size < left ? size : left;
    return true;
}

static bool range_is_ram(const struct memory *memory, uint64_t gpa, uint64_t size, bool write)
{
    if (size && gpa > UINT64_MAX - (size - 1))
        return false;
    struct part part;
    for (; size; gpa += part.size, size -= part.size)
        if (!part_find(memory, gpa, size, write, &part))
            return false;
    return true;
}

/* True for what must not tear: an aligned ring index, descriptor field or doorbell word. */
static bool is_word(const uint8_t *host, uint64_t size)
{
    return size <= 8 && is_power_of_two(size) && !((uintptr_t)host & (size - 1));
}

bool memory_dma_read(struct memory *memory, uint64_t gpa, void *buffer, size_t size)
{
    if (!range_is_ram(memory, gpa, size, false))
        return false;
    struct part part;
    uint8_t *to = buffer;
    for (; size && part_find(memory, gpa, size, false, &part); gpa += part.size) {
        if (is_word(part.host, part.size))
            store_le(to, memory_host_load(part.host, (unsigned)part.size), (unsigned)part.size);
        else
            memcpy(to, part.host, part.size);
        to += part.size;
        size -= part.size;
    }
    return true;
}

bool memory_dma_write(struct memory *memory, uint64_t gpa, const void *buffer, size_t size)
{
    if (!range_is_ram(memory, gpa, size, true))
        return false;
    struct part part;
    const uint8_t *from = buffer;
    for (; size && part_find(memory, gpa, size, true, &part); gpa += part.size) {
        if (is_word(part.host, part.size))
            memory_host_store(part.host, load_le(from, (unsigned)part.size), (unsigned)part.size);
        else
            memcpy(part.host, from, part.size);
        block_written(memory, part.block, gpa, part.size);
        from += part.size;
        size -= part.size;
    }
    return true;
}

bool memory_dma_fill(struct memory *memory, uint64_t gpa, uint8_t byte, uint64_t size)
{
    if (!range_is_ram(memory, gpa, size, true))
        return false;
    struct part part;
    for (; size && part_find(memory, gpa, size, true, &part); gpa += part.size) {
        memset(part.host, byte, part.size);
        block_written(memory, part.block, gpa, part.size);
        size -= part.size;
    }
    return true;
}

void *memory_dma_begin(struct memory *memory, uint64_t gpa, size_t *size, bool write)
{
    struct part part;
    if (!part_find(memory, gpa, *size, write, &part))
        return NULL;
    *size = part.size;
    return part.host;
}

void memory_dma_end(struct memory *memory, uint64_t gpa, size_t size, bool write)
{
    struct part part;
    if (write && part_find(memory, gpa, size, true, &part))
        block_written(memory, part.block, gpa, part.size);
}
