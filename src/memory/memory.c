#include "memory/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"

#define HUGE_PAGE_SIZE (UINT64_C(2) << 20)

_Static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "guest RAM is accessed in the host's byte order");

struct memory *memory_create(void)
{
    struct memory *memory = xcalloc(1, sizeof(*memory));
    memory->blocks = xcalloc(1, sizeof(struct block_table));
    pthread_rwlock_init(&memory->lock, NULL);
    pthread_mutex_init(&memory->remove_lock, NULL);
    pthread_cond_init(&memory->region_left, NULL);
    return memory;
}

static void block_destroy(struct block *block)
{
    if (!block->rom) {
        munmap(block->ram.host, block->ram.size);
        if (block->ram.fd >= 0)
            close(block->ram.fd);
        munmap((void *)block->flags, block->ram.size >> MEMORY_PAGE_SHIFT);
    }
    free(block);
}

void memory_destroy(struct memory *memory)
{
    if (!memory)
        return;
    struct block_table *table = memory->blocks;
    for (size_t i = 0; i < table->count; i++)
        block_destroy(table->blocks[i]);
    while (table) {
        struct block_table *older = table->older;
        free(table);
        table = older;
    }
    for (size_t i = 0; i < memory->region_count; i++)
        free(memory->regions[i]);
    free(memory->regions);
    free(memory->watches);
    free(memory->background);
    pthread_cond_destroy(&memory->region_left);
    pthread_mutex_destroy(&memory->remove_lock);
    pthread_rwlock_destroy(&memory->lock);
    free(memory);
}

bool memory_check_free(const struct memory *memory, const char *what, uint64_t base, uint64_t size,
                       struct error *err)
{
    unsigned long long first = base, last = base + size - 1;
    if (!size || base > UINT64_MAX - (size - 1))
        return error_set(err, "%s at 0x%llx: a size of 0x%llx does not fit the address space", what,
                         first, (unsigned long long)size);
    const struct block_table *table = memory->blocks;
    for (size_t i = 0; i < table->count; i++) {
        const struct memory_ram *ram = &table->blocks[i]->ram;
        if (ranges_overlap(base, size, ram->base, ram->size))
            return error_set(err, "%s at 0x%llx..0x%llx overlaps the %s at 0x%llx", what, first,
                             last, table->blocks[i]->rom ? "ROM" : "RAM",
                             (unsigned long long)ram->base);
    }
    const struct region *region = region_first(memory, base, size);
    if (region)
        return error_set(err, "%s at 0x%llx..0x%llx overlaps %s at 0x%llx", what, first, last,
                         region->name, (unsigned long long)region->base);
    return true;
}

/* RAM and ROM. */

/* With the lock held for writing. */
static bool check_block(const struct memory *memory, const char *what, uint64_t base, uint64_t size,
                        struct error *err)
{
    if ((base | size) & (MEMORY_PAGE_SIZE - 1))
        return error_set(err, "%s at 0x%llx of 0x%llx bytes is not made of whole pages of 4096",
                         what, (unsigned long long)base, (unsigned long long)size);
    if (atomic_load(&memory->blocks)->count == MAX_BLOCKS)
        return error_set(err, "%s at 0x%llx: no more than %d memory regions are possible", what,
                         (unsigned long long)base, MAX_BLOCKS);
    return memory_check_free(memory, what, base, size, err);
}

/* With the lock held for writing. */
static void block_publish(struct memory *memory, struct block *block)
{
    struct block_table *old = memory->blocks;
    struct block_table *table = xcalloc(1, sizeof(*table));
    table->older = old;
    size_t at = 0;
    while (at < old->count && old->blocks[at]->ram.base < block->ram.base)
        at++;
    memcpy(table->blocks, old->blocks, at * sizeof(struct block *));
    table->blocks[at] = block;
    memcpy(table->blocks + at + 1, old->blocks + at, (old->count - at) * sizeof(struct block *));
    table->count = old->count + 1;
    for (size_t i = 0; i < table->count; i++)
        if (!table->blocks[i]->rom)
            table->ram[table->ram_count++] = table->blocks[i]->ram;
    atomic_store_explicit(&memory->blocks, table, memory_order_release);
}

/* Whether the host gives huge pages to memory that processes share. Where it does not, they are
 * worth more than a memfd that nobody needs: they halve the host's page faults of a boot. */
static bool shares_huge_pages(void)
{
    char text[100] = "";
    int fd = open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t size = read(fd, text, sizeof(text) - 1);
    close(fd);
    return size > 0 && !strstr(text, "[never]") && !strstr(text, "[deny]");
}

/* Maps fd, or with -1 anonymous memory, on a boundary of huge pages, which the host can use only
 * then. */
static uint8_t *map_aligned(int fd, uint64_t size)
{
    if (size > SIZE_MAX - HUGE_PAGE_SIZE)
        return NULL;
    size_t reserved = size + HUGE_PAGE_SIZE;
    uint8_t *start =
        mmap(NULL, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED)
        return NULL;
    uint8_t *host = (uint8_t *)align_up((uintptr_t)start, HUGE_PAGE_SIZE);
    size_t before = (size_t)(host - start), after = reserved - before - size;
    int kind = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    if (mmap(host, size, PROT_READ | PROT_WRITE, kind | MAP_FIXED | MAP_NORESERVE, fd, 0) ==
        MAP_FAILED) {
        int number = errno;
        munmap(start, reserved);
        errno = number;
        return NULL;
    }
    if (before)
        munmap(start, before);
    if (after)
        munmap(host + size, after);
    madvise(host, size, MADV_HUGEPAGE); /* a hint */
    madvise(host, size, MADV_DONTFORK); /* I/O in flight must not end up in a copy */
    return host;
}

/* Untouched parts of this cost nothing, unlike with calloc of a large table. */
static _Atomic uint8_t *map_flags(size_t pages)
{
    void *flags = mmap(NULL, pages, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return flags == MAP_FAILED ? NULL : flags;
}

static struct block *block_create_ram(uint64_t base, uint64_t size, bool shared, struct error *err)
{
    int fd = shared || shares_huge_pages() ? memfd_create("guest-ram", MFD_CLOEXEC) : -1;
    uint8_t *host = NULL;
    _Atomic uint8_t *flags = NULL;
    if (size <= INT64_MAX && (fd < 0 || !ftruncate(fd, (off_t)size)))
        host = map_aligned(fd, size);
    if (host)
        flags = map_flags(size >> MEMORY_PAGE_SHIFT);
    if (!flags) {
        error_set_errno(err, size > INT64_MAX ? EFBIG : errno,
                        "cannot map %llu MiB of guest RAM; ask for less with --memory",
                        (unsigned long long)(size >> 20));
        if (host)
            munmap(host, size);
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    struct block *block = xcalloc(1, sizeof(*block));
    block->ram = (struct memory_ram){.base = base, .size = size, .host = host, .fd = fd};
    block->flags = flags;
    return block;
}

void tell_remapped(struct memory *memory, uint64_t gpa, uint64_t size)
{
    if (memory->listener.remapped)
        memory->listener.remapped(memory->listener.opaque, gpa, size);
}

void memory_share_ram(struct memory *memory)
{
    memory->shared = true;
}

bool memory_add_ram(struct memory *memory, uint64_t base, uint64_t size, struct error *err)
{
    pthread_rwlock_wrlock(&memory->lock);
    struct block *block = NULL;
    if (check_block(memory, "RAM", base, size, err))
        block = block_create_ram(base, size, memory->shared, err);
    if (block)
        block_publish(memory, block);
    pthread_rwlock_unlock(&memory->lock);
    if (block)
        tell_remapped(memory, base, size);
    return block != NULL;
}

bool memory_add_rom(struct memory *memory, uint64_t base, uint64_t size, uint8_t *host,
                    const struct mmio_ops *ops, void *opaque, struct error *err)
{
    pthread_rwlock_wrlock(&memory->lock);
    bool added = check_block(memory, "ROM", base, size, err);
    if (added) {
        struct block *block = xcalloc(1, sizeof(*block));
        block->ram = (struct memory_ram){.base = base, .size = size, .host = host, .fd = -1};
        block->rom = true;
        block->ops = ops;
        block->opaque = opaque;
        block_publish(memory, block);
    }
    pthread_rwlock_unlock(&memory->lock);
    if (added)
        tell_remapped(memory, base, size);
    return added;
}

void memory_set_rom_mode(struct memory *memory, uint64_t base, bool registers)
{
    struct block *block = block_find(memory, base);
    if (block && block->rom && atomic_exchange(&block->registers, registers) != registers)
        tell_remapped(memory, block->ram.base, block->ram.size);
}

const struct memory_ram *memory_ram_regions(const struct memory *memory, size_t *count)
{
    const struct block_table *table = memory->blocks;
    *count = table->ram_count;
    return table->ram;
}

uint64_t memory_ram_size(const struct memory *memory)
{
    const struct block_table *table = memory->blocks;
    uint64_t size = 0;
    for (size_t i = 0; i < table->ram_count; i++)
        size += table->ram[i].size;
    return size;
}

void memory_set_listener(struct memory *memory, const struct memory_listener *listener)
{
    memory->listener = listener ? *listener : (struct memory_listener){0};
}

void memory_watch(struct memory *memory, uint64_t gpa, uint64_t size,
                  void (*written)(void *opaque, uint64_t gpa), void *opaque)
{
    struct block *block = block_find(memory, gpa);
    if (!block || block->rom || !size || size > block_left(block, gpa))
        return;
    memory->watches = xrealloc(memory->watches, (memory->watch_count + 1) * sizeof(struct watch));
    memory->watches[memory->watch_count++] =
        (struct watch){.base = gpa, .size = size, .written = written, .opaque = opaque};
    uint64_t first = (gpa - block->ram.base) >> MEMORY_PAGE_SHIFT;
    uint64_t last = (gpa - block->ram.base + size - 1) >> MEMORY_PAGE_SHIFT;
    for (uint64_t page = first; page <= last; page++)
        block->flags[page] |= PAGE_WATCHED;
}

/* Of a page that is neither RAM nor ROM. Device memory that does not fill it is as registers. */
static enum memory_kind device_page(struct memory *memory, uint64_t gpa, uint8_t **host)
{
    enum memory_kind kind = MEMORY_NONE;
    pthread_rwlock_rdlock(&memory->lock);
    const struct region *region = region_first(memory, gpa, MEMORY_PAGE_SIZE);
    if (region)
        kind = MEMORY_MMIO;
    if (region && region->host && region->base <= gpa &&
        range_fits(gpa - region->base, MEMORY_PAGE_SIZE, region->size)) {
        *host = region->host + (gpa - region->base);
        kind = MEMORY_DEVICE;
    }
    pthread_rwlock_unlock(&memory->lock);
    return kind == MEMORY_NONE && in_background(memory, gpa) ? MEMORY_MMIO : kind;
}

enum memory_kind memory_page(struct memory *memory, uint64_t gpa, uint8_t **host)
{
    gpa = align_down(gpa, MEMORY_PAGE_SIZE);
    struct block *block = block_find(memory, gpa);
    if (!block)
        return device_page(memory, gpa, host);
    if (block->registers)
        return MEMORY_MMIO;
    *host = block_host(block, gpa);
    if (block->rom)
        return MEMORY_ROM;
    uint8_t flags = atomic_load_explicit(
        &block->flags[(gpa - block->ram.base) >> MEMORY_PAGE_SHIFT], memory_order_relaxed);
    return flags & PAGE_WATCHED ? MEMORY_ROM : MEMORY_RAM;
}

void memory_list(struct memory *memory,
                 void (*tell)(void *opaque, const struct memory_range *range), void *opaque)
{
    const struct block_table *table = atomic_load(&memory->blocks);
    for (size_t i = 0; table && i < table->count; i++) {
        const struct block *block = table->blocks[i];
        tell(opaque, &(struct memory_range){.base = block->ram.base,
                                            .size = block->ram.size,
                                            .kind = block->rom ? MEMORY_ROM : MEMORY_RAM,
                                            .name = ""});
    }
    pthread_rwlock_rdlock(&memory->lock);
    for (size_t i = 0; i < memory->region_count; i++) {
        const struct region *region = memory->regions[i];
        tell(opaque, &(struct memory_range){.base = region->base,
                                            .size = region->size,
                                            .kind = region->host ? MEMORY_DEVICE : MEMORY_MMIO,
                                            .name = region->name});
    }
    pthread_rwlock_unlock(&memory->lock);
}
