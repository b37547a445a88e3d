/*
 * Where a guest spends its time: --profile.
 *
 * Each hart is asked for a sample 997 times a second, and takes it itself between two instructions.
 * What is written in the end are collapsed stacks: a line is "hart 0;supervisor;outer;inner COUNT",
 * from the outside in. A hart in wfi is not disturbed, and counted as "hart 0;[wfi]".
 */
#pragma once

#include <stdbool.h>

#include "base/error.h"

struct machine;
struct profile;
struct symbols;

/* Begins with the machine, which does not run yet. symbols may be NULL; all must live until
 * profile_finish. NULL: the file cannot be written. */
struct profile *profile_create(struct machine *machine, const char *file, struct symbols *symbols,
                               struct error *err);

/* Writes the file and releases everything, after the machine has ended. Accepts NULL. False: it
 * could not be written. */
bool profile_finish(struct profile *profile, struct error *err);
