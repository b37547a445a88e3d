/* Hosts without a code generator. */
#include "jit/jit.h"

bool jit_available(void)
{
    return false;
}

struct jit *jit_create(struct hart *hart, struct error *err)
{
    error_set(err, "this host has no code generator: use --engine interp");
    return NULL;
}

void jit_destroy(struct jit *jit)
{
}

void jit_run(struct jit *jit)
{
}
