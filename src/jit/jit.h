/*
 * The engine that translates guest code to host code. docs/engine.md tells how.
 *
 * A struct jit holds the translations of a machine, a struct jit_hart runs one hart with them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "hart/hart.h"

struct jit;
struct jit_hart;

/* Whether this host has a code generator. */
bool jit_available(void);

/* Fails where the host refuses memory for code. */
struct jit *jit_create(struct error *err);
/* After its harts' jit_hart. */
void jit_destroy(struct jit *jit);

/* Writes the addresses of translations to /tmp/perf-PID.map, where perf looks for them. Before
 * harts run. */
bool jit_write_perf_map(struct jit *jit, struct error *err);

/* While no hart of the jit runs. */
struct jit_hart *jit_attach(struct jit *jit, struct hart *hart);
void jit_detach(struct jit_hart *jit_hart);

/* As hart_interpret, which it calls while every instruction is to be traced. */
void jit_run(struct jit_hart *jit_hart);

/* Forgets what was translated for the virtual pages of these addresses, which ascend: where harts
 * have got new breakpoints. While no hart of the jit runs. */
void jit_forget_code(struct jit *jit, const uint64_t *addresses, size_t count);

/* Something writes to RAM past memory/, as devices do that are passed through: every fence.i looks
 * at all that was translated. Before harts run. */
void jit_expect_silent_writes(struct jit *jit);

/* What memory_listener.code_written says. */
void jit_code_written(struct jit *jit, uint64_t gpa, uint64_t size);

/* What the engine has done. Any thread; the counts of a running machine are about right. */
struct jit_stats {
    uint64_t blocks;       /* translated */
    uint64_t instructions; /* in them */
    uint64_t bytes;        /* of host code */
    uint64_t pages;        /* of guest code */
    uint64_t changed;      /* pages found changed after a fence.i */
    uint64_t emptied;      /* regions of the cache that were used again */
};

struct jit_hart_stats {
    uint64_t interpreted; /* instructions that translated code called the interpreter for */
    uint64_t resumed;     /* jumps whose target had to be looked up */
    uint64_t attended;    /* interrupts, fences and other requests */
};

void jit_get_stats(struct jit *jit, struct jit_stats *stats);
void jit_hart_get_stats(const struct jit_hart *jit_hart, struct jit_hart_stats *stats);
