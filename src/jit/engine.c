/*
 * The dispatcher: finds or makes the translation of what comes next, and runs it. Everything
 * asynchronous is attended to here; host code comes back when hart->attention is set.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "jit/internal.h"

#define PAGE_MASK (~(uint64_t)(MEMORY_PAGE_SIZE - 1))

struct jit {
    struct hart *hart;
    uint8_t *write, *run; /* two views of the same memory */
    uint8_t *at, *blocks_start;
    struct jit_thunks thunks;
    struct jit_page *pages[PAGE_BUCKETS];
    struct jit_page *dead;
    struct jit_block *blocks[BLOCK_BUCKETS];
    struct jit_jump jumps[JUMPS];
    struct ir_block ir;
};

bool jit_available(void)
{
    return true;
}

static bool execute_one(struct hart *hart, const struct jit_site *site)
{
    hart->pc = site->pc;
    hart->instret += site->index;
    if (!engine_execute(hart, &site->insn) || hart->pc != site->pc + site->length ||
        atomic_load_explicit(&hart->attention, memory_order_relaxed))
        return false;
    hart->instret -= site->index + 1;
    return true;
}

/* --- Memory for code -------------------------------------------------------------------------- */

static bool map_code(struct jit *jit, struct error *err)
{
    int fd = memfd_create("hartvisor-code", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, CODE_SIZE) < 0) {
        error_set_errno(err, errno, "cannot get memory for translated code: use --engine interp");
        if (fd >= 0)
            close(fd);
        return false;
    }
    void *write = mmap(NULL, CODE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    void *run = mmap(NULL, CODE_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    close(fd);
    if (write != MAP_FAILED && run != MAP_FAILED) {
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

static const uint8_t *runnable(const struct jit *jit, const uint8_t *code)
{
    return jit->run + (code - jit->write);
}

/* --- Pages ------------------------------------------------------------------------------------ */

static struct jit_page **page_bucket(struct jit *jit, const uint8_t *host)
{
    return &jit->pages[((uintptr_t)host >> MEMORY_PAGE_SHIFT) % PAGE_BUCKETS];
}

/* Guest memory changes under us: word by word, as relaxed atomics. */
static void source_copy(uint8_t *to, const uint8_t *host)
{
    for (unsigned i = 0; i < MEMORY_PAGE_SIZE; i += 8)
        *(uint64_t *)(to + i) = __atomic_load_n((const uint64_t *)(host + i), __ATOMIC_RELAXED);
}

static bool source_equal(const uint8_t *source, const uint8_t *host)
{
    uint64_t difference = 0;
    for (unsigned i = 0; i < MEMORY_PAGE_SIZE; i += 8)
        difference |= *(const uint64_t *)(source + i) ^
                      __atomic_load_n((const uint64_t *)(host + i), __ATOMIC_RELAXED);
    return difference == 0;
}

static struct jit_page *page_create(struct jit *jit, const uint8_t *host, uint64_t epoch)
{
    struct jit_page *page = xmalloc(sizeof(*page));
    struct jit_page **bucket = page_bucket(jit, host);
    *page = (struct jit_page){
        .epoch = epoch, .host = host, .next = *bucket, .source = xmalloc(MEMORY_PAGE_SIZE)};
    source_copy(page->source, host);
    *bucket = page;
    return page;
}

/* Its blocks stay in their buckets, where nothing matches a dead page, until all are flushed. */
static void page_bury(struct jit *jit, struct jit_page **link)
{
    struct jit_page *page = *link;
    *link = page->next;
    free(page->source);
    page->source = NULL;
    page->host = NULL;
    page->epoch = EPOCH_DEAD;
    page->next = jit->dead;
    jit->dead = page;
}

static struct jit_page *page_find(struct jit *jit, const uint8_t *host, uint64_t epoch)
{
    struct jit_page **link = page_bucket(jit, host);
    while (*link && (*link)->host != host)
        link = &(*link)->next;
    if (!*link)
        return page_create(jit, host, epoch);
    struct jit_page *page = *link;
    if (page->epoch == epoch)
        return page;
    if (source_equal(page->source, host)) {
        page->epoch = epoch;
        return page;
    }
    page_bury(jit, link);
    return page_create(jit, host, epoch);
}

static void pages_free(struct jit_page *page)
{
    while (page) {
        struct jit_page *next = page->next;
        free(page->source);
        free(page);
        page = next;
    }
}

/* Forgets all translations. */
static void flush(struct jit *jit)
{
    for (unsigned i = 0; i < PAGE_BUCKETS; i++)
        pages_free(jit->pages[i]);
    pages_free(jit->dead);
    for (unsigned i = 0; i < BLOCK_BUCKETS; i++) {
        for (struct jit_block *block = jit->blocks[i], *next; block; block = next) {
            next = block->next;
            free(block);
        }
    }
    memset(jit->pages, 0, sizeof(jit->pages));
    memset(jit->blocks, 0, sizeof(jit->blocks));
    memset(jit->jumps, 0, sizeof(jit->jumps));
    jit->dead = NULL;
    jit->at = jit->blocks_start;
}

/* --- Blocks ----------------------------------------------------------------------------------- */

static struct jit_block **block_bucket(struct jit *jit, uint64_t pc)
{
    return &jit->blocks[(pc >> 1 ^ pc >> 15) % BLOCK_BUCKETS];
}

static struct jit_block *block_translate(struct jit *jit, const struct jit_page *page, uint64_t pc)
{
    ir_read(&jit->ir, page->source, pc, &jit->hart->extensions);
    if (jit->ir.count == 0)
        return NULL;
    ir_fold(&jit->ir);

    struct jit_block *block = xmalloc(sizeof(*block));
    struct jit_block **bucket = block_bucket(jit, pc);
    *block =
        (struct jit_block){.pc = pc, .page = page, .code = runnable(jit, jit->at), .next = *bucket};
    *bucket = block;
    jit->at = host_translate(jit->at, &jit->thunks, jit->hart, &jit->ir, page);
    return block;
}

static struct jit_block *block_find(struct jit *jit, const struct jit_page *page, uint64_t pc)
{
    struct jit_block *block = *block_bucket(jit, pc);
    while (block && (block->pc != pc || block->page != page))
        block = block->next;
    return block ? block : block_translate(jit, page, pc);
}

/* --- Jumps ------------------------------------------------------------------------------------ */

/* The addend that the fetch TLB has for the page of pc, if it has the page. */
static bool fetch_addend(const struct hart *hart, uint64_t pc, uint64_t *addend)
{
    const struct tlb_entry *entry =
        &hart->fetch_tlb->entries[pc >> MEMORY_PAGE_SHIFT & (TLB_ENTRIES - 1)];
    *addend = entry->addend;
    return entry->tag[ACCESS_FETCH] == (pc & PAGE_MASK);
}

static void jump_remember(struct jit *jit, const struct jit_block *block, uint64_t addend)
{
    jit->jumps[block->pc / 2 % JUMPS] = (struct jit_jump){
        .pc = block->pc, .addend = addend, .epoch = block->page->epoch, .code = block->code};
}

static void link_to(struct jit *jit, const struct jit_link *where, const struct jit_block *block,
                    uint64_t addend)
{
    struct jit_link *link = (struct jit_link *)(jit->write + ((const uint8_t *)where - jit->run));
    if (link->guarded) {
        link->page = block->pc & PAGE_MASK;
        link->addend = addend;
        link->epoch = &block->page->epoch;
    } else if (link->from != block->page) {
        return; /* mapped anew since */
    }
    host_patch((uint8_t *)link + link->patch, jit->write + (block->code - jit->run));
}

/* --- The engine ------------------------------------------------------------------------------- */

/* The block at hart->pc, or NULL after something else was done there. */
static struct jit_block *next_block(struct jit *jit, const struct jit_link **link)
{
    struct hart *hart = jit->hart;
    uint64_t addend;
    if (jit->write + CODE_SIZE - jit->at < CODE_ROOM) {
        flush(jit);
        *link = NULL;
    }
    const uint8_t *host = fetch_addend(hart, hart->pc, &addend)
                              ? (const uint8_t *)((hart->pc & PAGE_MASK) + addend)
                              : engine_fetch(hart);
    if (!host)
        return NULL;
    struct jit_page *page = page_find(jit, host, engine_code_epoch(hart) + 1);
    struct jit_block *block = block_find(jit, page, hart->pc);
    if (block && fetch_addend(hart, hart->pc, &addend)) {
        jump_remember(jit, block, addend);
        if (*link && (*link)->pc == hart->pc)
            link_to(jit, *link, block, addend);
    }
    return block;
}

void jit_run(struct jit *jit)
{
    struct hart *hart = jit->hart;
    jit_enter *enter = (jit_enter *)(uintptr_t)runnable(jit, jit->thunks.enter);
    const struct jit_link *link = NULL;

    if (trace_on(TRACE_EXEC)) {
        hart_interpret(hart);
        return;
    }
    engine_begin(hart);
    for (;;) {
        if (atomic_load_explicit(&hart->attention, memory_order_relaxed)) {
            link = NULL;
            if (engine_attend(hart) == ATTENDED_STOP)
                break;
        }
        struct jit_block *block = next_block(jit, &link);
        link = NULL;
        if (block)
            link = enter(hart, block->code, block->page->epoch, jit->jumps);
        else if (hart->pc % MEMORY_PAGE_SIZE == MEMORY_PAGE_SIZE - 2)
            engine_execute_fetched(hart); /* it lies across two pages */
    }
    engine_end(hart);
}

/* --- Life ------------------------------------------------------------------------------------- */

struct jit *jit_create(struct hart *hart, struct error *err)
{
    struct jit *jit = xcalloc(1, sizeof(*jit));
    jit->hart = hart;
    if (!map_code(jit, err)) {
        free(jit);
        return NULL;
    }
    jit->at = host_make_thunks(jit->write, &jit->thunks, execute_one);
    jit->blocks_start = jit->at;
    return jit;
}

void jit_destroy(struct jit *jit)
{
    if (!jit)
        return;
    flush(jit);
    munmap(jit->write, CODE_SIZE);
    munmap(jit->run, CODE_SIZE);
    free(jit);
}
