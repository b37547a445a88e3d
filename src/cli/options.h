/*
 * Command-line options as tables: one row feeds parsing, --help and the man page.
 *
 * Accepted are --name VALUE, --name=VALUE, -n VALUE, -nVALUE, flags in a bundle (-ab), arguments
 * between options, and -- before arguments that begin with a hyphen. The last one of an option that
 * is given twice counts, unless its parser collects them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/error.h"

/* Reads `value` (NULL for a flag) into *target. The option and the value are put before the
 * message. */
typedef bool option_parser(const char *value, void *target, struct error *err);

struct option {
    const char *name;     /* without hyphens; NULL: a row that is a heading, in `help` */
    char letter;          /* 0: only the long form */
    const char *argument; /* stands for the value in texts: "FILE"; NULL: a flag */
    const char *help;     /* one short line */
    const char *manual;   /* NULL, or the man page's text, in sentences */
    option_parser *parse;
    size_t target; /* offset of what `parse` gets, from the command's structure */
};

struct option_table {
    const struct option *rows;
    size_t count;
};

struct option_arguments {
    char **words; /* those that are no options, in order; the caller's array */
    size_t count;
    bool help; /* --help was given; parsing has stopped there */
};

/* `words` ends with NULL. `arguments->words` has room for them all. */
bool options_parse(const struct option_table *table, char **words, void *target,
                   struct option_arguments *arguments, struct error *err);

/* The row of a name, or NULL. */
const struct option *option_find(const struct option_table *table, const char *name);

/* --- Parsers for rows; targets in comments --- */

bool option_flag(const char *value, void *target, struct error *err);   /* bool */
bool option_string(const char *value, void *target, struct error *err); /* const char * */
bool option_size(const char *value, void *target, struct error *err);   /* uint64_t, bytes */
bool option_count(const char *value, void *target, struct error *err);  /* unsigned */

/* --- Values that are lists: FILE[,ro][,bus=pci] --- */

/* Cuts the next word off *list, which it changes: "," separates, ",," is a comma. NULL at the end.
 */
char *option_word(char **list);

/* Reads the words of `list` by a table of their own, in which names are words and letters 0. */
bool option_words(const struct option_table *table, char *list, void *target, struct error *err);

/* What --help says of the options. */
void options_help(const struct option_table *table, FILE *out);
