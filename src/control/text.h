/*
 * Control commands as people write and read them: for the terminal's prompt and `hartvisor ctl`.
 *
 * `commands` is the answer to query-commands, so that a client needs to know nothing in advance;
 * what describes no arguments and no help (another QMP server) is taken as it comes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/error.h"

struct json_object;

/* The name of the command that `word` means (its name or alias); NULL with err set if it is none.
 * Lives as long as `commands`. */
const char *control_text_name(struct json_object *commands, const char *word, struct error *err);

/* The words "ARG=VALUE" as the arguments of `name`; the caller's. NULL with err set. */
struct json_object *control_text_arguments(struct json_object *commands, const char *name,
                                           char *const *words, size_t count, struct error *err);

/* One line a command. */
void control_text_help(FILE *out, struct json_object *commands);

/* An answer, one line a value; nothing for {}. */
void control_text_print(FILE *out, struct json_object *value);
