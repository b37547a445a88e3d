/* The table of device registers: mapping and unmapping while harts use it. */
#include "memory/registers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

/* The register functions that this thread is in, the innermost first. */
static _Thread_local struct visit *visits;

/* Index of the first region that ends above gpa. */
static size_t region_index(const struct memory *memory, uint64_t gpa)
{
    size_t low = 0, high = memory->region_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct region *region = memory->regions[middle];
        if (gpa < region->base || gpa - region->base < region->size)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

struct region *region_first(const struct memory *memory, uint64_t gpa, uint64_t size)
{
    size_t index = region_index(memory, gpa);
    if (index == memory->region_count)
        return NULL;
    struct region *region = memory->regions[index];
    return ranges_overlap(gpa, size, region->base, region->size) ? region : NULL;
}

/* With the lock held for writing. */
static void region_insert(struct memory *memory, struct region *region)
{
    if (memory->region_count == memory->region_space) {
        memory->region_space = memory->region_space ? 2 * memory->region_space : 32;
        memory->regions = xrealloc(memory->regions, memory->region_space * sizeof(struct region *));
    }
    size_t at = region_index(memory, region->base);
    memmove(memory->regions + at + 1, memory->regions + at,
            (memory->region_count - at) * sizeof(struct region *));
    memory->regions[at] = region;
    memory->region_count++;
}

/* Adds a copy of what is described, if there is room. */
static bool region_add(struct memory *memory, const struct region *described, const char *name,
                       struct error *err)
{
    pthread_rwlock_wrlock(&memory->lock);
    bool added = memory_check_free(memory, name, described->base, described->size, err);
    if (added) {
        struct region *region = xcalloc(1, sizeof(*region));
        *region = *described;
        region->users = 1;
        snprintf(region->name, sizeof(region->name), "%s", name);
        region_insert(memory, region);
    }
    pthread_rwlock_unlock(&memory->lock);
    return added;
}

bool memory_add_mmio(struct memory *memory, uint64_t base, uint64_t size,
                     const struct mmio_ops *ops, void *opaque, const char *name, struct error *err)
{
    const struct region region = {.base = base, .size = size, .ops = ops, .opaque = opaque};
    return region_add(memory, &region, name, err);
}

bool memory_add_device_memory(struct memory *memory, uint64_t base, uint64_t size, uint8_t *host,
                              const char *name, struct error *err)
{
    const struct region region = {.base = base, .size = size, .host = host};
    if ((base | size) & (MEMORY_PAGE_SIZE - 1))
        return error_set(err, "%s at 0x%llx of 0x%llx bytes is not made of whole pages of 4096",
                         name, (unsigned long long)base, (unsigned long long)size);
    if (!region_add(memory, &region, name, err))
        return false;
    tell_remapped(memory, base, size);
    return true;
}

static struct region *region_take_out(struct memory *memory, uint64_t base)
{
    pthread_rwlock_wrlock(&memory->lock);
    size_t at = region_index(memory, base);
    struct region *region = at < memory->region_count ? memory->regions[at] : NULL;
    if (region && region->base == base) {
        memory->region_count--;
        memmove(memory->regions + at, memory->regions + at + 1,
                (memory->region_count - at) * sizeof(struct region *));
    } else {
        region = NULL;
    }
    pthread_rwlock_unlock(&memory->lock);
    return region;
}

static void region_release(struct region *region)
{
    if (atomic_fetch_sub(&region->users, 1) == 1)
        free(region);
}

bool region_enter(struct memory *memory, uint64_t gpa, struct visit *visit)
{
    pthread_rwlock_rdlock(&memory->lock);
    struct region *region = region_first(memory, gpa, 1);
    if (region)
        atomic_fetch_add(&region->users, 1);
    pthread_rwlock_unlock(&memory->lock);
    if (!region)
        return false;
    *visit = (struct visit){.region = region, .outer = visits};
    visits = visit;
    return true;
}

/*
 * Looks for waiting removers after it has let go, as they count the users after they have announced
 * themselves: one of the two sees the other.
 */
void region_leave(struct memory *memory, struct visit *visit)
{
    visits = visit->outer;
    region_release(visit->region);
    if (atomic_load(&memory->removers)) {
        pthread_mutex_lock(&memory->remove_lock);
        pthread_cond_broadcast(&memory->region_left);
        pthread_mutex_unlock(&memory->remove_lock);
    }
}

void memory_remove_mmio(struct memory *memory, uint64_t base)
{
    struct region *region = region_take_out(memory, base);
    if (!region)
        return;
    unsigned own = 1; /* what the table held */
    for (const struct visit *visit = visits; visit; visit = visit->outer)
        own += visit->region == region;
    atomic_fetch_add(&memory->removers, 1);
    pthread_mutex_lock(&memory->remove_lock);
    while (atomic_load(&region->users) > own)
        pthread_cond_wait(&memory->region_left, &memory->remove_lock);
    pthread_mutex_unlock(&memory->remove_lock);
    atomic_fetch_sub(&memory->removers, 1);
    /* A hart that has just found the memory flushes its TLB after it has filled it. */
    if (region->host)
        tell_remapped(memory, region->base, region->size);
    region_release(region);
}
