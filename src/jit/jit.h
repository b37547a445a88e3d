/*
 * The engine that translates guest code to host code. docs/engine.md tells how.
 *
 * A struct jit belongs to one hart and its thread: translations and code cache are its own.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "hart/hart.h"

struct jit;

/* Whether this host has a code generator. */
bool jit_available(void);

/* Fails where the host refuses memory for code. */
struct jit *jit_create(struct hart *hart, struct error *err);
void jit_destroy(struct jit *jit);

/* As hart_interpret, which it calls while every instruction is to be traced. */
void jit_run(struct jit *jit);
