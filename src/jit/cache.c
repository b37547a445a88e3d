/*
 * Translations and the memory they are in.
 *
 * Host code fills regions one after another. When all are in use the oldest one is emptied: first
 * nothing leads to its blocks any more (the tables, jumps of other regions), then every hart is
 * asked to forget its jumps, which it does outside of translated code; after that no hart can be in
 * the region or get there.
 */
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/alloc.h"
#include "jit/internal.h"

#define CODE_SIZE ((size_t)REGIONS * REGION_SIZE)

/* --- Memory ----------------------------------------------------------------------------------- */

/* Shared memory that has no file, which perf takes for a JIT's; mremap of no bytes makes the second
 * view of it. */
static bool map_code(struct jit *jit, struct error *err)
{
    void *write = mmap(NULL, CODE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    void *run = write == MAP_FAILED ? MAP_FAILED : mremap(write, 0, CODE_SIZE, MREMAP_MAYMOVE);
    if (run != MAP_FAILED && !mprotect(run, CODE_SIZE, PROT_READ | PROT_EXEC)) {
        jit->write = write;
        jit->run = run;
        return true;
    }
    error_set_errno(err, errno, "cannot map memory for translated code: use --engine interp");
    if (write != MAP_FAILED)
        munmap(write, CODE_SIZE);
    if (run != MAP_FAILED)
        munmap(run, CODE_SIZE);
    return false;
}

bool cache_init(struct jit *jit, struct error *err)
{
    if (!map_code(jit, err))
        return false;
    pthread_mutex_init(&jit->lock, NULL);
    pthread_mutex_init(&jit->suspects_lock, NULL);
    pthread_cond_init(&jit->emptied, NULL);
    for (unsigned i = 0; i < REGIONS; i++) {
        uint8_t *start = jit->write + (size_t)i * REGION_SIZE;
        jit->regions[i] = (struct jit_region){start, start, start + REGION_SIZE};
    }
    return true;
}

void cache_finish(struct jit *jit)
{
    for (unsigned i = 0; i < PAGE_BUCKETS; i++)
        for (struct jit_page *page = jit->pages[i], *next; page; page = next) {
            next = page->next;
            free(page);
        }
    for (unsigned i = 0; i < BLOCK_BUCKETS; i++)
        for (struct jit_block *block = jit->blocks[i], *next; block; block = next) {
            next = block->next;
            free(block);
        }
    for (unsigned i = 0; i < REGIONS; i++)
        free(jit->regions[i].incoming);
    munmap(jit->write, CODE_SIZE);
    munmap(jit->run, CODE_SIZE);
    pthread_cond_destroy(&jit->emptied);
    pthread_mutex_destroy(&jit->suspects_lock);
    pthread_mutex_destroy(&jit->lock);
    free(jit->suspects);
}

static struct jit_region *region_of(struct jit *jit, const void *written)
{
    return &jit->regions[((const uint8_t *)written - jit->write) / REGION_SIZE];
}

static bool has_room(const struct jit_region *region)
{
    return region->end - region->at >= CODE_ROOM;
}

/* --- Blocks ----------------------------------------------------------------------------------- */

/* The page counts too: many pages may be executed at the same address. */
static struct jit_block **block_bucket(struct jit *jit, const struct jit_page *page, uint64_t pc)
{
    return &jit->blocks[(pc >> 1 ^ pc >> 15 ^ page->id * 0x9e37) % BLOCK_BUCKETS];
}

static void block_forget(struct jit *jit, struct jit_block *block)
{
    struct jit_block **link = block_bucket(jit, block->page, block->pc);
    while (*link != block)
        link = &(*link)->next;
    *link = block->next;
    free(block);
}

static void note_translation(struct jit *jit, const struct jit_block *block, size_t size)
{
    jit->stats.blocks++;
    for (unsigned i = 0; i < jit->ir.count; i++)
        jit->stats.instructions += jit->ir.code[i].length != 0;
    jit->stats.bytes += size;
    if (jit->perf_map)
        fprintf(jit->perf_map, "%llx %zx guest_%llx\n", (unsigned long long)(uintptr_t)block->code,
                size, (unsigned long long)block->pc);
}

static struct jit_block *block_translate(struct jit *jit, struct hart *hart, struct jit_page *page,
                                         uint64_t pc)
{
    uint64_t breaks[ENGINE_BREAKS_SIZE / sizeof(uint64_t)];
    ir_read(&jit->ir, page->source, pc, &hart->extensions, engine_breaks_in_page(hart, pc, breaks));
    if (jit->ir.count == 0)
        return NULL;
    ir_fold(&jit->ir);
    ir_rotate(&jit->ir);
    ir_share(&jit->ir);

    struct jit_region *region = &jit->regions[jit->current];
    struct jit_block *block = xmalloc(sizeof(*block));
    struct jit_block **bucket = block_bucket(jit, page, pc);
    uint8_t *start = region->at;
    *block = (struct jit_block){
        .pc = pc,
        .page = page,
        .code = jit_runnable(jit, start),
        .region = jit->current,
        .next = *bucket,
        .next_of_page = page->blocks,
    };
    *bucket = page->blocks = block;
    region->at = host_translate(start, &jit->thunks, hart, &jit->ir, page->id);
    assert(region->at - start <= CODE_ROOM);
    note_translation(jit, block, (size_t)(region->at - start));
    return block;
}

static struct jit_block *block_find(struct jit *jit, const struct jit_page *page, uint64_t pc)
{
    struct jit_block *block = *block_bucket(jit, page, pc);
    while (block && (block->pc != pc || block->page != page))
        block = block->next;
    return block;
}

/* --- Pages ------------------------------------------------------------------------------------ */

static struct jit_page **page_bucket(struct jit *jit, const uint8_t *host)
{
    return &jit->pages[((uintptr_t)host >> MEMORY_PAGE_SHIFT) % PAGE_BUCKETS];
}

/* Guest memory changes under us, and any mixture of old and new will do: whatever is written during
 * this makes the page a suspect again. */
#define RACES __attribute__((no_sanitize("thread")))

RACES static void source_copy(uint8_t *to, const uint8_t *host)
{
    for (unsigned i = 0; i < MEMORY_PAGE_SIZE; i += 8)
        *(uint64_t *)(to + i) = *(const uint64_t *)(host + i);
}

RACES static bool source_equal(const uint8_t *source, const uint8_t *host)
{
    uint64_t difference = 0;
    for (unsigned i = 0; i < MEMORY_PAGE_SIZE; i += 8)
        difference |= *(const uint64_t *)(source + i) ^ *(const uint64_t *)(host + i);
    return difference == 0;
}

static uint64_t gpa_of(const struct memory *memory, const uint8_t *host)
{
    size_t count;
    const struct memory_ram *ram = memory_ram_regions(memory, &count);
    for (size_t i = 0; i < count; i++)
        if (host >= ram[i].host && (size_t)(host - ram[i].host) < ram[i].size)
            return ram[i].base + (uint64_t)(host - ram[i].host);
    return JIT_NOT_RAM;
}

/* Marked before it is copied: whatever is written later makes it a suspect. */
static struct jit_page *page_create(struct jit *jit, struct hart *hart, const uint8_t *host)
{
    struct jit_page *page = xmalloc(sizeof(*page));
    struct jit_page **bucket = page_bucket(jit, host);
    page->host = host;
    page->next = *bucket;
    page->id = ++jit->page_ids;
    page->gpa = gpa_of(hart->memory, host);
    page->blocks = NULL;
    if (jit->clearing || !memory_mark_code(hart->memory, page->gpa))
        cache_suspect(jit, page->gpa, 1);
    source_copy(page->source, host);
    *bucket = page;
    jit->stats.pages++;
    return page;
}

static void page_forget(struct jit *jit, struct jit_page **link)
{
    struct jit_page *page = *link;
    *link = page->next;
    for (struct jit_block *block = page->blocks, *next; block; block = next) {
        next = block->next_of_page;
        block_forget(jit, block);
    }
    free(page);
}

static struct jit_page **page_find(struct jit *jit, const uint8_t *host)
{
    struct jit_page **link = page_bucket(jit, host);
    while (*link && (*link)->host != host)
        link = &(*link)->next;
    return link;
}

static int compare_pages(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a / MEMORY_PAGE_SIZE;
    uint64_t y = *(const uint64_t *)b / MEMORY_PAGE_SIZE;
    return x < y ? -1 : x > y;
}

static bool page_is_at(const struct jit_page *page, const uint64_t *addresses, size_t count)
{
    for (const struct jit_block *block = page->blocks; block; block = block->next_of_page)
        if (bsearch(&block->pc, addresses, count, sizeof(*addresses), compare_pages))
            return true;
    return false;
}

void cache_forget_at(struct jit *jit, const uint64_t *addresses, size_t count)
{
    pthread_mutex_lock(&jit->lock);
    for (unsigned i = 0; i < PAGE_BUCKETS; i++)
        for (struct jit_page **link = &jit->pages[i]; *link;)
            if (page_is_at(*link, addresses, count))
                page_forget(jit, link);
            else
                link = &(*link)->next;
    pthread_mutex_unlock(&jit->lock);
}

/* --- Code that changes ------------------------------------------------------------------------ */

static int compare_gpas(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* A guest that executes no fence.i lists its pages again and again: once is enough. */
static void suspects_make_room(struct jit *jit)
{
    size_t left = 0;
    if (jit->suspect_count)
        qsort(jit->suspects, jit->suspect_count, sizeof(*jit->suspects), compare_gpas);
    for (size_t i = 0; i < jit->suspect_count; i++)
        if (i == 0 || jit->suspects[i] != jit->suspects[i - 1])
            jit->suspects[left++] = jit->suspects[i];
    jit->suspect_count = left;
    if (left < jit->suspect_room / 2)
        return;
    jit->suspect_room = 2 * left + 64;
    jit->suspects = xrealloc(jit->suspects, jit->suspect_room * sizeof(*jit->suspects));
}

void cache_suspect(struct jit *jit, uint64_t gpa, uint64_t size)
{
    pthread_mutex_lock(&jit->suspects_lock);
    for (uint64_t at = 0; at < size; at += MEMORY_PAGE_SIZE) {
        if (jit->suspect_count == jit->suspect_room)
            suspects_make_room(jit);
        jit->suspects[jit->suspect_count++] = gpa + at;
    }
    pthread_mutex_unlock(&jit->suspects_lock);
}

/* Whether the page stays a suspect. */
static bool examine(struct jit *jit, struct memory *memory, uint64_t gpa)
{
    uint8_t *host;
    enum memory_kind kind = memory_page(memory, gpa, &host);
    if (kind != MEMORY_RAM && kind != MEMORY_ROM)
        return false;
    struct jit_page **link = page_find(jit, host);
    if (!*link)
        return false;
    bool stays = jit->clearing || !memory_mark_code(memory, gpa);
    if (source_equal((*link)->source, host))
        return stays;
    jit->stats.changed++;
    page_forget(jit, link);
    return false;
}

/* ROM has no marks; there is little of it, and little runs there. Nor does a device that was passed
 * through respect them. */
static void examine_unmarked(struct jit *jit)
{
    for (unsigned i = 0; i < PAGE_BUCKETS; i++)
        for (struct jit_page **link = &jit->pages[i]; *link;)
            if ((jit->silent_writes || (*link)->gpa == JIT_NOT_RAM) &&
                !source_equal((*link)->source, (*link)->host)) {
                jit->stats.changed++;
                page_forget(jit, link);
            } else {
                link = &(*link)->next;
            }
}

void cache_fenced(struct jit *jit, struct jit_hart *self)
{
    enum { MANY = 8, FENCES = 64 };
    struct memory *memory = self->hart->memory;
    bool rom = false;
    memory_wait_reports(memory);
    pthread_mutex_lock(&jit->lock);
    pthread_mutex_lock(&jit->suspects_lock);
    size_t left = 0;
    for (size_t i = 0; i < jit->suspect_count; i++) {
        uint64_t gpa = jit->suspects[i];
        bool stays = gpa == JIT_NOT_RAM ? !rom : examine(jit, memory, gpa);
        rom |= gpa == JIT_NOT_RAM;
        if (stays)
            jit->suspects[left++] = gpa;
    }
    jit->suspect_count = left;
    pthread_mutex_unlock(&jit->suspects_lock);
    if (rom || jit->silent_writes)
        examine_unmarked(jit);
    if (++jit->fences > FENCES && left > MANY && !jit->clearing)
        atomic_store_explicit(&jit->many, true, memory_order_relaxed);
    bool changed = self->changed != jit->stats.changed;
    self->changed = jit->stats.changed;
    pthread_mutex_unlock(&jit->lock);
    if (changed)
        engine_forget_jumps(self->hart);
}

void cache_clear_suspects(struct jit *jit, struct hart *hart)
{
    pthread_mutex_lock(&jit->lock);
    bool others = jit->clearing;
    if (!others) {
        jit->clearing = true;
        jit->fences = 0;
        pthread_mutex_lock(&jit->suspects_lock);
        for (size_t i = 0; i < jit->suspect_count; i++)
            memory_forget_stores(hart->memory, jit->suspects[i]);
        pthread_mutex_unlock(&jit->suspects_lock);
    }
    atomic_store(&jit->many, false);
    pthread_mutex_unlock(&jit->lock);
    if (others)
        return;

    const struct hart_fence fence = {.kind = HART_FENCE_STORES};
    hart_fence_remote(hart, jit->harts, jit->hart_count, &fence);
    engine_forget_stores(hart);

    pthread_mutex_lock(&jit->lock);
    jit->clearing = false;
    pthread_mutex_unlock(&jit->lock);
}

/* --- Links ------------------------------------------------------------------------------------ */

static void link_to(struct jit *jit, const struct jit_link *where, const struct jit_block *block)
{
    struct jit_link *link = (struct jit_link *)(jit->write + ((const uint8_t *)where - jit->run));
    const struct jit_region *from = region_of(jit, link);
    struct jit_region *to = &jit->regions[block->region];
    if (link->page_id != block->page->id || link->pc != block->pc || from->closed)
        return;
    if (from != to) {
        if (to->incoming_count == to->incoming_room) {
            to->incoming_room = to->incoming_room ? 2 * to->incoming_room : 64;
            to->incoming = xrealloc(to->incoming, to->incoming_room * sizeof(*to->incoming));
        }
        to->incoming[to->incoming_count++] =
            (struct jit_incoming){.link = link, .generation = from->generation};
    }
    host_patch((uint8_t *)link + link->patch, jit->write + (block->code - jit->run));
}

static void links_take_back(struct jit *jit, struct jit_region *region)
{
    for (size_t i = 0; i < region->incoming_count; i++) {
        struct jit_link *link = region->incoming[i].link;
        if (region_of(jit, link)->generation == region->incoming[i].generation)
            host_patch((uint8_t *)link + link->patch, (uint8_t *)link + link->stub);
    }
    region->incoming_count = 0;
}

/* --- Finding and emptying ----------------------------------------------------------------------
 */

enum cache_result cache_find(struct jit *jit, struct hart *hart, const uint8_t *host, uint64_t pc,
                             const struct jit_link *link, const uint8_t **code)
{
    enum cache_result result = CACHE_FOUND;
    pthread_mutex_lock(&jit->lock);
    struct jit_page *page = *page_find(jit, host);
    if (!page)
        page = page_create(jit, hart, host);
    struct jit_block *block = block_find(jit, page, pc);
    if (!block && (jit->emptying || !has_room(&jit->regions[jit->current])))
        result = CACHE_FULL;
    else if (!block && !(block = block_translate(jit, hart, page, pc)))
        result = CACHE_STRADDLES;
    if (block) {
        *code = block->code;
        if (link)
            link_to(jit, link, block);
    } else if (!page->blocks) {
        page_forget(jit, page_find(jit, host)); /* only blocks take it away again */
    }
    pthread_mutex_unlock(&jit->lock);
    return result;
}

/* Takes the region's blocks out of the tables, and pages that have none left. */
static void region_forget(struct jit *jit, unsigned region)
{
    for (unsigned i = 0; i < PAGE_BUCKETS; i++) {
        struct jit_page **page = &jit->pages[i];
        while (*page) {
            struct jit_block **link = &(*page)->blocks;
            while (*link) {
                struct jit_block *block = *link;
                if (block->region == region) {
                    *link = block->next_of_page;
                    block_forget(jit, block);
                } else {
                    link = &block->next_of_page;
                }
            }
            if ((*page)->blocks)
                page = &(*page)->next;
            else
                page_forget(jit, page);
        }
    }
}

static void wait_until_emptied(struct jit *jit, struct hart *hart)
{
    engine_leave(hart);
    while (jit->emptying)
        pthread_cond_wait(&jit->emptied, &jit->lock);
    pthread_mutex_unlock(&jit->lock);
    engine_enter(hart);
}

void cache_make_room(struct jit *jit, struct hart *hart)
{
    pthread_mutex_lock(&jit->lock);
    if (jit->emptying) {
        wait_until_emptied(jit, hart);
        return;
    }
    if (has_room(&jit->regions[jit->current])) {
        pthread_mutex_unlock(&jit->lock);
        return;
    }
    unsigned next = (jit->current + 1) % REGIONS;
    struct jit_region *region = &jit->regions[next];
    bool used = region->at != region->start;
    if (used) {
        jit->emptying = region->closed = true;
        region_forget(jit, next);
        links_take_back(jit, region);
        pthread_mutex_unlock(&jit->lock);

        const struct hart_fence fence = {.kind = HART_FENCE_JUMPS};
        hart_fence_remote(hart, jit->harts, jit->hart_count, &fence);
        engine_forget_jumps(hart);

        pthread_mutex_lock(&jit->lock);
        region->generation++;
        region->at = region->start;
        region->closed = jit->emptying = false;
        jit->stats.emptied++;
    }
    jit->current = next;
    pthread_cond_broadcast(&jit->emptied);
    pthread_mutex_unlock(&jit->lock);
}
