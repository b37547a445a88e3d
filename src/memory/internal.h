/* Private to memory/: the tables behind the address space. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "base/bits.h"
#include "memory/memory.h"

#define MAX_BLOCKS 32 /* RAM and ROM regions; a board has about five */

/* Per page of RAM. */
enum page_flag {
    PAGE_CODE = 1 << 0,    /* an engine holds translations of it */
    PAGE_WATCHED = 1 << 1, /* memory_watch */
    PAGE_STORED = 1 << 2,  /* a hart may have a fast path for stores to it */
};

/* A region of RAM or ROM. Never removed, and constant but for the atomic fields. */
struct block {
    struct memory_ram ram; /* fd -1: ROM */
    bool rom;
    const struct mmio_ops *ops; /* of ROM, may be NULL */
    void *opaque;
    _Atomic bool registers; /* ROM whose reads go to ops->read */
    _Atomic uint8_t *flags; /* page_flag bits of each page; NULL for ROM */
};

/*
 * RAM and ROM in ascending order. Immutable: a change publishes a new table, and the few old ones
 * live as long as the memory, so that lookups take no lock.
 */
struct block_table {
    struct block_table *older;
    size_t count;
    struct block *blocks[MAX_BLOCKS];
    size_t ram_count;
    struct memory_ram ram[MAX_BLOCKS];
};

/* Mapped registers or device memory. Freed when the last of `users` lets go. */
struct region {
    uint64_t base;
    uint64_t size;
    uint8_t *host; /* NULL: registers */
    const struct mmio_ops *ops;
    void *opaque;
    _Atomic unsigned users; /* the table, and each register function under way */
    char name[32];
};

struct watch {
    uint64_t base;
    uint64_t size;
    void (*written)(void *opaque, uint64_t gpa);
    void *opaque;
};

struct window {
    uint64_t base;
    uint64_t size;
};

/* Registers that take messages: found with no lock, also in the table of regions. */
struct message_window {
    uint64_t base;
    uint64_t size;
    const struct mmio_ops *ops;
    void *opaque;
    char name[32];
};

#define MESSAGE_WINDOWS 4

struct memory {
    bool shared; /* RAM that is added is a memfd; before harts run */
    struct block_table *_Atomic blocks;
    struct memory_listener listener; /* installed before harts run */

    /* Covers the MMIO table; held for writing also while `blocks` changes. Never held while a
     * register function runs: these may map and unmap. */
    pthread_rwlock_t lock;
    struct region **regions; /* in ascending order of base */
    size_t region_count;
    size_t region_space;

    /* Those who wait in memory_remove_mmio for register functions to return. */
    _Atomic unsigned removers;
    pthread_mutex_t remove_lock;
    pthread_cond_t region_left;

    _Atomic unsigned reporting; /* who has found a mark of code gone, and has not told it yet */

    struct watch *watches; /* before harts run */
    size_t watch_count;
    struct window *background; /* before harts run */
    size_t background_count;
    struct message_window messages[MESSAGE_WINDOWS]; /* before harts run */
    size_t message_count;
};

/* Tells the engine that what harts have cached of [gpa, gpa + size) is no longer right. */
void tell_remapped(struct memory *memory, uint64_t gpa, uint64_t size);

/* True if accesses to gpa that hit nothing else are answered. */
bool in_background(const struct memory *memory, uint64_t gpa);

/* The RAM or ROM that gpa lies in, or NULL. */
static inline struct block *block_find(const struct memory *memory, uint64_t gpa)
{
    const struct block_table *table = atomic_load_explicit(&memory->blocks, memory_order_acquire);
    size_t low = 0, high = table->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        struct block *block = table->blocks[middle];
        if (gpa < block->ram.base)
            high = middle;
        else if (gpa - block->ram.base >= block->ram.size)
            low = middle + 1;
        else
            return block;
    }
    return NULL;
}

/* Bytes from gpa, which lies in the block, to the block's end. */
static inline uint64_t block_left(const struct block *block, uint64_t gpa)
{
    return block->ram.size - (gpa - block->ram.base);
}

static inline uint8_t *block_host(const struct block *block, uint64_t gpa)
{
    return block->ram.host + (gpa - block->ram.base);
}

static inline bool ranges_overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return a < b ? b - a < a_size : a - b < b_size;
}

/* May something new be put at [base, base + size)? With the lock held for writing. */
bool memory_check_free(const struct memory *memory, const char *what, uint64_t base, uint64_t size,
                       struct error *err);

/* The lowest registers in [gpa, gpa + size), or NULL. With the lock held. */
struct region *region_first(const struct memory *memory, uint64_t gpa, uint64_t size);

/* Lets the engine know of a write to [gpa, gpa + size) of the block, after it was made. */
void block_written(struct memory *memory, struct block *block, uint64_t gpa, uint64_t size);
