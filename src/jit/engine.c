/*
 * Running harts: what host code calls, and where execution goes on. Everything asynchronous is
 * attended to here; host code comes back when hart->attention is set.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "jit/internal.h"

#define PAGE_MASK (~(uint64_t)(MEMORY_PAGE_SIZE - 1))

bool jit_available(void)
{
    return true;
}

/* The host page of the code at pc. NULL: something else was done there. */
static const uint8_t *fetch(struct hart *hart)
{
    uint64_t pc = hart->pc;
    const struct tlb_entry *entry = tlb_entry_of(hart->fetch_tlb, pc);
    if (entry->tag[ACCESS_FETCH] == (pc & PAGE_MASK))
        return (const uint8_t *)((pc & PAGE_MASK) + entry->addend);
    return engine_fetch(hart);
}

static struct jit_recent *recent(struct jit_hart *self, const uint8_t *host)
{
    uint64_t generation = engine_jumps_generation(self->hart);
    if (self->recent_generation != generation) {
        memset(self->recent, 0, sizeof(self->recent));
        self->recent_generation = generation;
    }
    return &self->recent[(uintptr_t)host / 2 % RECENT];
}

/* cache_find, but for what was found lately. */
static enum cache_result find(struct jit_hart *self, const uint8_t *page,
                              const struct jit_link *link, const uint8_t **code)
{
    uint64_t pc = self->hart->pc;
    const uint8_t *host = page + pc % MEMORY_PAGE_SIZE;
    struct jit_recent *entry = recent(self, host);
    if (entry->host == host && entry->pc == pc && !link) {
        *code = entry->code;
        return CACHE_FOUND;
    }
    enum cache_result result = cache_find(self->jit, self->hart, page, pc, link, code);
    if (result == CACHE_FOUND)
        *entry = (struct jit_recent){host, pc, *code};
    return result;
}

/*
 * Where to go on at hart->pc. Loads and stores of translated code go through the translations that
 * jumps belong to: where MPRV makes them two, the interpreter goes on.
 */
static const void *resume(struct hart *hart, const struct jit_link *link)
{
    struct jit_hart *self = hart->engine;
    struct jit *jit = self->jit;
    for (;; link = NULL) {
        const uint8_t *code;
        if (atomic_load_explicit(&hart->attention, memory_order_relaxed)) {
            link = NULL;
            self->stats.attended++;
            if (engine_attend(hart) == ATTENDED_STOP)
                return jit_runnable(jit, jit->thunks.leave);
        }
        if (atomic_load_explicit(&jit->many, memory_order_relaxed)) {
            cache_clear_suspects(jit, hart);
            continue;
        }
        enum debug_break debug = hart->points ? engine_break(hart) : DEBUG_BREAK_NONE;
        if (debug == DEBUG_BREAK_STOP)
            continue;
        if (debug == DEBUG_BREAK_PASS || hart->data_tlb != hart->fetch_tlb) {
            engine_execute_fetched(hart);
            continue;
        }
        const struct tlb_jump *jump = &hart->fetch_tlb->jumps[hart->pc / 2 % TLB_JUMPS];
        if (jump->pc == hart->pc && !link)
            return jump->code;

        self->stats.resumed++;
        const uint8_t *host = fetch(hart);
        if (!host)
            continue;
        switch (find(self, host, link, &code)) {
        case CACHE_FOUND:
            engine_remember_jump(hart, hart->pc, code);
            return code;
        case CACHE_STRADDLES:
            engine_execute_fetched(hart);
            break;
        case CACHE_FULL:
            cache_make_room(jit, hart);
            break;
        }
    }
}

static const void *execute_one(struct hart *hart, const struct jit_site *site)
{
    ((struct jit_hart *)hart->engine)->stats.interpreted++;
    hart->pc = site->pc;
    hart->instret += site->index;
    if (!engine_execute(hart, &site->insn) || hart->pc != site->pc + site->length ||
        atomic_load_explicit(&hart->attention, memory_order_relaxed) ||
        hart->data_tlb != hart->fetch_tlb)
        return resume(hart, NULL);
    hart->instret -= site->index + 1;
    return NULL;
}

static void code_fenced(struct hart *hart)
{
    struct jit_hart *self = hart->engine;
    cache_fenced(self->jit, self);
}

void jit_run(struct jit_hart *self)
{
    struct hart *hart = self->hart;
    const struct jit *jit = self->jit;
    if (trace_on(TRACE_EXEC)) {
        hart_interpret(hart);
        return;
    }
    engine_begin(hart);
    ((jit_enter *)(uintptr_t)jit_runnable(jit, jit->thunks.enter))(hart, resume(hart, NULL));
    engine_end(hart);
}

/* --- Life ------------------------------------------------------------------------------------- */

struct jit *jit_create(struct error *err)
{
    struct jit *jit = xcalloc(1, sizeof(*jit));
    if (!cache_init(jit, err)) {
        free(jit);
        return NULL;
    }
    struct jit_region *first = &jit->regions[0];
    first->at = host_make_thunks(first->start, &jit->thunks, execute_one, resume);
    first->start = first->at; /* they stay */
    return jit;
}

void jit_destroy(struct jit *jit)
{
    if (!jit)
        return;
    if (jit->perf_map)
        fclose(jit->perf_map);
    cache_finish(jit);
    free(jit);
}

void jit_expect_silent_writes(struct jit *jit)
{
    jit->silent_writes = true;
}

bool jit_write_perf_map(struct jit *jit, struct error *err)
{
    char path[40];
    snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
    jit->perf_map = fopen(path, "we");
    if (!jit->perf_map)
        return error_set_errno(err, errno, "cannot write the map for perf, '%s'", path);
    setlinebuf(jit->perf_map); /* also whole when the machine is killed */
    return true;
}

struct jit_hart *jit_attach(struct jit *jit, struct hart *hart)
{
    struct jit_hart *self = xcalloc(1, sizeof(*self));
    self->jit = jit;
    self->hart = hart;
    hart->engine = self;
    hart->code_fenced = code_fenced;
    jit->harts[jit->hart_count++] = hart;
    return self;
}

void jit_detach(struct jit_hart *self)
{
    if (!self)
        return;
    struct jit *jit = self->jit;
    unsigned i = 0;
    while (jit->harts[i] != self->hart)
        i++;
    jit->harts[i] = jit->harts[--jit->hart_count];
    engine_forget_jumps(self->hart);
    self->hart->code_fenced = NULL;
    self->hart->engine = NULL;
    free(self);
}

void jit_forget_code(struct jit *jit, const uint64_t *addresses, size_t count)
{
    cache_forget_at(jit, addresses, count);
    for (unsigned i = 0; i < jit->hart_count; i++)
        engine_forget_jumps(jit->harts[i]);
}

void jit_code_written(struct jit *jit, uint64_t gpa, uint64_t size)
{
    cache_suspect(jit, gpa, size);
}

void jit_get_stats(struct jit *jit, struct jit_stats *stats)
{
    pthread_mutex_lock(&jit->lock);
    *stats = jit->stats;
    pthread_mutex_unlock(&jit->lock);
}

void jit_hart_get_stats(const struct jit_hart *self, struct jit_hart_stats *stats)
{
    *stats = self->stats;
}
