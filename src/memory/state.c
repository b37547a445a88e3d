/*
 * Saving and loading RAM: for each region a bitmap of the pages that are not zero, then those
 * pages. Parts that the guest never touched do not exist on the host and are not even looked at.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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

/* Marks those of the pages from first on that hold anything. */
static void mark_pages(const struct memory_ram *ram, size_t first, size_t limit, uint8_t *bitmap)
{
    for (size_t page = first; page < limit; page++)
        if (!page_is_zero(ram->host + page * MEMORY_PAGE_SIZE))
            bitmap[page / 8] |= (uint8_t)(1 << page % 8);
}

static void find_used_in_file(const struct memory_ram *ram, uint8_t *bitmap)
{
    off_t start = (off_t)ram->fd_offset, end = start + (off_t)ram->size, hole;
    for (off_t data = start; data < end; data = hole) {
        data = lseek(ram->fd, data, SEEK_DATA);
        if (data < 0 || data >= end)
            return;
        hole = lseek(ram->fd, data, SEEK_HOLE);
        if (hole <= data || hole > end)
            hole = end;
        mark_pages(ram, (size_t)(data - start) >> MEMORY_PAGE_SHIFT,
                   (size_t)(hole - start + MEMORY_PAGE_SIZE - 1) >> MEMORY_PAGE_SHIFT, bitmap);
    }
}

/* Of private memory, pagemap tells which host pages exist: bits 63 (present) and 62 (swapped). */
static void find_used_in_memory(const struct memory_ram *ram, uint8_t *bitmap)
{
    enum { CHUNK = 4096 };
    size_t host_page = (size_t)sysconf(_SC_PAGESIZE), pages = ram->size / MEMORY_PAGE_SIZE;
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || host_page != MEMORY_PAGE_SIZE) {
        mark_pages(ram, 0, pages, bitmap);
        pages = 0;
    }
    uint64_t *entries = xcalloc(CHUNK, sizeof(*entries));
    for (size_t page = 0; page < pages; page += CHUNK) {
        size_t count = pages - page < CHUNK ? pages - page : CHUNK;
        off_t at = (off_t)(((uintptr_t)ram->host / host_page + page) * sizeof(*entries));
        bool known =
            pread(fd, entries, count * sizeof(*entries), at) == (ssize_t)(count * sizeof(*entries));
        for (size_t i = 0; i < count; i++)
            if (!known || entries[i] >> 62)
                mark_pages(ram, page + i, page + i + 1, bitmap);
    }
    free(entries);
    if (fd >= 0)
        close(fd);
}

static void find_used_pages(const struct memory_ram *ram, uint8_t *bitmap)
{
    if (ram->fd >= 0)
        find_used_in_file(ram, bitmap);
    else
        find_used_in_memory(ram, bitmap);
}

static void clear_ram(const struct memory_ram *ram)
{
    bool cleared = ram->fd < 0 ? !madvise(ram->host, ram->size, MADV_DONTNEED)
                               : !fallocate(ram->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                            (off_t)ram->fd_offset, (off_t)ram->size);
    if (!cleared)
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
