/* Private to jit/: what its files share. */
#pragma once

#include "hart/engine.h"
#include "jit/ir.h"
#include "jit/jit.h"

#define CODE_SIZE     (16u << 20) /* bytes of host code a hart keeps */
#define CODE_ROOM     (48u << 10) /* at least this much is free before a block is translated */
#define JUMPS         2048        /* entries of the cache of jump targets */
#define BLOCK_BUCKETS 65536
#define PAGE_BUCKETS  4096
#define EPOCH_DEAD    0 /* no hart is ever in this epoch */

/*
 * A guest page that translations were made from. It is valid in one epoch; in the next it is
 * compared with what the page holds then. A page that has changed is left behind, in EPOCH_DEAD,
 * where no jump finds its blocks, and a new one is made.
 */
struct jit_page {
    uint64_t epoch;      /* first: host code compares it */
    const uint8_t *host; /* NULL: dead */
    struct jit_page *next;
    uint8_t *source; /* the bytes that were translated */
};

struct jit_block {
    uint64_t pc;
    const struct jit_page *page;
    const uint8_t *code; /* where it runs */
    struct jit_block *next;
};

/* An instruction that a block calls the interpreter for: always, or where the fast path ends. */
struct jit_site {
    struct engine_insn insn;
    uint64_t pc;
    uint32_t index;  /* instructions of the block that have retired before it */
    uint32_t length; /* in bytes */
};

/*
 * A direct jump to another block. Within a page it is patched once. Across pages it is guarded: the
 * fetch TLB must still translate the target's page as it did (page, addend), and its translations
 * must be valid (*epoch).
 */
struct jit_link {
    uint64_t pc; /* of the target; first: host code reads it */
    uint64_t page;
    uint64_t addend;
    const uint64_t *epoch;
    const struct jit_page *from;
    int32_t patch; /* of the jump's field, from this structure */
    bool guarded;
};

/* The target of an indirect jump: valid in this epoch while the fetch TLB has this addend. */
struct jit_jump {
    uint64_t pc, addend, epoch;
    const uint8_t *code;
};

/* Code that all blocks use. Addresses in the writable view. */
struct jit_thunks {
    const uint8_t *enter;     /* from C: see jit_enter */
    const uint8_t *one;       /* called with rax = struct jit_site */
    const uint8_t *exit_link; /* jumped to with rax = struct jit_link that is not linked */
    const uint8_t *jump;      /* jumped to with rax = the guest address to go to */
};

/* Runs host code until it needs the dispatcher. Returns the link it came by, or NULL. */
typedef const struct jit_link *jit_enter(struct hart *hart, const void *code, uint64_t epoch,
                                         const struct jit_jump *jumps);

/* Called by host code: executes the site's instruction. False: the block is left. */
typedef bool jit_one(struct hart *hart, const struct jit_site *site);

/* --- The code generator of the host (x86_64/) ------------------------------------------------ */

/* Writes the thunks at `at` and returns what follows them. */
uint8_t *host_make_thunks(uint8_t *at, struct jit_thunks *thunks, jit_one *one);

/* Writes a block's code, with its sites and links behind it, and returns what follows it. At most
 * CODE_ROOM bytes. */
uint8_t *host_translate(uint8_t *at, const struct jit_thunks *thunks, struct hart *hart,
                        const struct ir_block *block, const struct jit_page *page);

/* Makes the jump with this field go to `target`. */
void host_patch(uint8_t *field, const uint8_t *target);
