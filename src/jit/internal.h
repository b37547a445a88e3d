/* Private to jit/: what its files share. */
#pragma once

#include <pthread.h>
#include <stdio.h>

#include "hart/engine.h"
#include "jit/ir.h"
#include "jit/jit.h"

#define REGIONS     8
#define REGION_SIZE (4u << 20)  /* bytes of host code */
#define CODE_ROOM   (48u << 10) /* at least this much is free before a block is translated */

#define BLOCK_BUCKETS 65536
#define PAGE_BUCKETS  4096

/*
 * A guest page that translations were made from, found by where it lies on the host. One that is
 * found changed at a fence.i is forgotten with its blocks, whose code nothing leads to any more
 * once each hart has executed its own fence.i.
 */
struct jit_page {
    const uint8_t *host;
    struct jit_page *next;
    uint64_t id;  /* no two pages ever have the same */
    uint64_t gpa; /* JIT_NOT_RAM: it is compared at every fence.i */
    struct jit_block *blocks;
    uint8_t source[MEMORY_PAGE_SIZE] __attribute__((aligned(8)));
};

#define JIT_NOT_RAM UINT64_MAX

struct jit_block {
    uint64_t pc;
    struct jit_page *page;
    const uint8_t *code; /* where it runs */
    unsigned region;
    struct jit_block *next;         /* in its bucket */
    struct jit_block *next_of_page; /* of the same page */
};

/* An instruction that a block calls the interpreter for: always, or where the fast path ends. */
struct jit_site {
    struct engine_insn insn;
    uint64_t pc;
    uint16_t index;  /* instructions of the block that have retired before it */
    uint16_t length; /* in bytes */
};

/* A direct jump to another block of the same page. It leads to its stub until that block exists,
 * and again when that block's region is emptied. */
struct jit_link {
    uint64_t pc; /* of the target */
    uint64_t page_id;
    int32_t patch, stub; /* the jump's field and the stub, from this structure */
};

/* A jump out of another region, to be taken back when this region is emptied. */
struct jit_incoming {
    struct jit_link *link; /* as written */
    uint64_t generation;   /* of the region it is in */
};

struct jit_region {
    uint8_t *start, *at, *end; /* as written */
    uint64_t generation;       /* how often it was emptied */
    bool closed;               /* being emptied */
    struct jit_incoming *incoming;
    size_t incoming_count, incoming_room;
};

/* Code that all blocks use, as written. */
struct jit_thunks {
    const uint8_t *enter;       /* from C: see jit_enter */
    const uint8_t *leave;       /* jumped to: back to C */
    const uint8_t *one;         /* called with rax = struct jit_site */
    const uint8_t *one_in_loop; /* the same, where guest registers are in struct hart already */
    const uint8_t *resume;      /* jumped to with rax = the guest address to go to */
    const uint8_t *link;        /* jumped to with rax = struct jit_link that is not linked */

    /* Called with rdx = an address: looks up the page of an access of 1 << n bytes. Equal: rcx is
     * the offset of its entry, rdx what to add to the address. */
    const uint8_t *look_up[2][4]; /* ACCESS_LOAD, ACCESS_STORE; n */
};

/* Translations are of the machine; all is under the lock, but for what says otherwise. */
struct jit {
    pthread_mutex_t lock;
    pthread_cond_t emptied;
    uint8_t *write, *run; /* two views of the same memory; constant */
    struct jit_thunks thunks;
    struct jit_region regions[REGIONS];
    unsigned current;
    bool emptying;
    uint64_t page_ids;
    struct jit_page *pages[PAGE_BUCKETS];
    struct jit_block *blocks[BLOCK_BUCKETS];
    struct ir_block ir;
    FILE *perf_map;
    struct jit_stats stats;

    /* Pages that may have changed since the last fence.i: harts or devices could write to them. The
     * list has a lock of its own, as devices add to it under theirs. */
    pthread_mutex_t suspects_lock;
    uint64_t *suspects; /* GPAs */
    size_t suspect_count, suspect_room;
    bool clearing;      /* cache_clear_suspects is under way */
    unsigned fences;    /* since it last was */
    _Atomic bool many;  /* it would be worthwhile */
    bool silent_writes; /* jit_expect_silent_writes; constant once harts run */

    struct hart *harts[HART_MAX]; /* constant once they run */
    unsigned hart_count;
};

#define RECENT 4096

/* A block that the hart looked up, by where its guest code lies on the host. */
struct jit_recent {
    const uint8_t *host;
    uint64_t pc;
    const uint8_t *code;
};

/* What one hart runs, on its thread. */
struct jit_hart {
    struct jit *jit;
    struct hart *hart;
    uint64_t changed; /* jit->stats.changed when its jumps were last known to be right */
    struct jit_hart_stats stats;

    /* Each new address space starts without jumps, and most of what it runs is not new. */
    uint64_t recent_generation; /* of jumps */
    struct jit_recent recent[RECENT];
};

/* Runs host code until the hart is to stop. */
typedef void jit_enter(struct hart *hart, const void *code);

/* What host code calls. Each returns where to go on; NULL from jit_one: behind the site. */
typedef const void *jit_one(struct hart *hart, const struct jit_site *site);
typedef const void *jit_resume(struct hart *hart, const struct jit_link *link);

static inline const uint8_t *jit_runnable(const struct jit *jit, const uint8_t *code)
{
    return jit->run + (code - jit->write);
}

/* --- Translations (cache.c) ------------------------------------------------------------------ */

bool cache_init(struct jit *jit, struct error *err);
void cache_finish(struct jit *jit);

enum cache_result {
    CACHE_FOUND,
    CACHE_STRADDLES, /* the instruction lies across two pages */
    CACHE_FULL,      /* cache_make_room, and try again */
};

/* The code for pc, which lies in the page at `host`. A link, if any, is made to lead to it. */
enum cache_result cache_find(struct jit *jit, struct hart *hart, const uint8_t *host, uint64_t pc,
                             const struct jit_link *link, const uint8_t **code);

/* Forgets the translations of the virtual pages of these addresses, which ascend. No hart runs. */
void cache_forget_at(struct jit *jit, const uint64_t *addresses, size_t count);

/* After a fence.i of the hart: forgets what has changed. */
void cache_fenced(struct jit *jit, struct jit_hart *self);

/* [gpa, gpa + size) may be written to from now on. Any thread. */
void cache_suspect(struct jit *jit, uint64_t gpa, uint64_t size);

/* Takes from all harts the fast path for stores, so that suspects are not suspect for ever. */
void cache_clear_suspects(struct jit *jit, struct hart *hart);

/* Empties the oldest region. Other harts run on, but for a moment at their next attention. */
void cache_make_room(struct jit *jit, struct hart *hart);

/* --- The code generator of the host (x86_64/) ------------------------------------------------ */

/* Writes the thunks at `at` and returns what follows them. */
uint8_t *host_make_thunks(uint8_t *at, struct jit_thunks *thunks, jit_one *one, jit_resume *resume);

/* Writes a block's code, with its sites and links behind it, and returns what follows it. At most
 * CODE_ROOM bytes. */
uint8_t *host_translate(uint8_t *at, const struct jit_thunks *thunks, struct hart *hart,
                        const struct ir_block *block, uint64_t page_id);

/* Makes the jump with this field go to `target`, while others may be executing it. */
void host_patch(uint8_t *field, const uint8_t *target);
