/*
 * Saving and loading RAM: for each region a bitmap of the pages that are not zero, then those
 * pages. Parts that the guest never touched are holes of the memfd and are not even looked at.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "memory/internal.h"

static bool bitmap_test(const uint8_t *bitmap, size_t page)
{
    return bitmap[page / 8] >> page % 8 & 1;
}

/* The first page from `page` on whose bit is `set`, or `pages`. */
static size_t bitmap_find(const uint8_t *bitmap, size_t page, size_t pages, bool set)
{
    while (page < pages && bitmap_test(bitmap, page) != set)
        page++;
    return page;
}

static bool page_is_zero(const uint8_t *host)
{
    const uint64_t *words = (const uint64_t *)host;
    uint64_t any = 0;
    for (size_t i = 0; i < MEMORY_PAGE_SIZE / sizeof(*words); i++)
        any |= words[i];
    return !any;
}

static void find_used_pages(const struct memory_ram *ram, uint8_t *bitmap)
{
    off_t start = (off_t)ram->fd_offset, end = start + (off_t)ram->size, hole;
    for (off_t data = start; data < end; data = hole) {
        data = lseek(ram->fd, data, SEEK_DATA);
        if (data < 0 || data >= end)
            return;
        hole = lseek(ram->fd, data, SEEK_HOLE);
        if (hole <= data || hole > end)
            hole = end;
        size_t page = (size_t)(data - start) >> MEMORY_PAGE_SHIFT;
        size_t limit = (size_t)(hole - start + MEMORY_PAGE_SIZE - 1) >> MEMORY_PAGE_SHIFT;
        for (; page < limit; page++)
            if (!page_is_zero(ram->host + page * MEMORY_PAGE_SIZE))
                bitmap[page / 8] |= (uint8_t)(1 << page % 8);
    }
}

static void clear_ram(const struct memory_ram *ram)
{
    if (fallocate(ram->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)ram->fd_offset,
                  (off_t)ram->size))
        memset(ram->host, 0, ram->size);
}

static void ram_state(const struct memory_ram *ram, struct stream *stream)
{
    uint64_t base = ram->base, size = ram->size;
    stream_u64(stream, &base);
    stream_u64(stream, &size);
    if (base != ram->base || size != ram->size)
        stream_fail(stream,
                    "RAM at 0x%llx of %llu bytes was saved, the machine has 0x%llx of %llu bytes "
                    "there; start it with the same --memory",
                    (unsigned long long)base, (unsigned long long)size,
                    (unsigned long long)ram->base, (unsigned long long)ram->size);
    if (stream_failed(stream))
        return;
    size_t pages = ram->size >> MEMORY_PAGE_SHIFT, bitmap_size = (pages + 7) / 8;
    uint8_t *bitmap = xcalloc(bitmap_size, 1);
    if (stream_loading(stream))
        clear_ram(ram);
    else
        find_used_pages(ram, bitmap);
    stream_bytes(stream, bitmap, bitmap_size);
    size_t page = bitmap_find(bitmap, 0, pages, true);
    while (page < pages && !stream_failed(stream)) {
        size_t end = bitmap_find(bitmap, page, pages, false);
        stream_bytes(stream, ram->host + page * MEMORY_PAGE_SIZE, (end - page) * MEMORY_PAGE_SIZE);
        page = bitmap_find(bitmap, end, pages, true);
    }
    free(bitmap);
}

/* Everything that an engine knows of the block's contents is void. */
static void block_replaced(struct memory *memory, struct block *block)
{
    const struct memory_listener *listener = &memory->listener;
    block_written(memory, block, block->ram.base, block->ram.size);
    if (listener->remapped)
        listener->remapped(listener->opaque, block->ram.base, block->ram.size);
}

void memory_state(struct memory *memory, struct stream *stream)
{
    const struct block_table *table = memory->blocks;
    uint64_t count = table->ram_count;
    stream_begin(stream, "ram", 1);
    stream_u64(stream, &count);
    if (count != table->ram_count)
        stream_fail(stream, "%llu RAM regions were saved, the machine has %zu",
                    (unsigned long long)count, table->ram_count);
    for (size_t i = 0; i < table->count; i++) {
        if (table->blocks[i]->rom)
            continue;
        ram_state(&table->blocks[i]->ram, stream);
        if (stream_loading(stream))
            block_replaced(memory, table->blocks[i]);
    }
    stream_end(stream);
}
