/* Hosts without a code generator. */
#include "jit/jit.h"

bool jit_available(void)
{
    return false;
}

struct jit *jit_create(struct error *err)
{
    error_set(err, "this host has no code generator: use --engine interp");
    return NULL;
}

void jit_destroy(struct jit *jit)
{
}

bool jit_write_perf_map(struct jit *jit, struct error *err)
{
    return false;
}

struct jit_hart *jit_attach(struct jit *jit, struct hart *hart)
{
    return NULL;
}

void jit_detach(struct jit_hart *jit_hart)
{
}

void jit_run(struct jit_hart *jit_hart)
{
}

void jit_forget_code(struct jit *jit, const uint64_t *addresses, size_t count)
{
}

void jit_expect_silent_writes(struct jit *jit)
{
}

void jit_code_written(struct jit *jit, uint64_t gpa, uint64_t size)
{
}

void jit_get_stats(struct jit *jit, struct jit_stats *stats)
{
    *stats = (struct jit_stats){0};
}

void jit_hart_get_stats(const struct jit_hart *jit_hart, struct jit_hart_stats *stats)
{
    *stats = (struct jit_hart_stats){0};
}
