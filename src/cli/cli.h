/* The `hartvisor` command: its subcommands, and what they share. */
#pragma once

#include <stdio.h>

#include "cli/options.h"

#define STATUS_FAILURE 125 /* hartvisor itself failed; all others are the guest's */

struct cli_command {
    const char *name;
    const char *arguments; /* behind the name in texts: "[OPTION]..." */
    const char *help;      /* one short line */
    const char *manual;    /* sentences */
    const struct option_table *options;
    /* Returns the exit status. `words` are those behind the command's name, then NULL. */
    int (*run)(const struct cli_command *self, char **words);
};

extern const struct cli_command run_command, devices_command, gpus_command, ctl_command,
    version_command, help_command;

/* All of them, in the order of the texts. NULL ends them. */
extern const struct cli_command *const cli_commands[];

/*
 * Parses a command's words into `target`. False if the command has nothing more to do: help was
 * printed or an error reported; *status is then what it returns.
 */
bool cli_parse(const struct cli_command *command, char **words, void *target,
               struct option_arguments *arguments, int *status);

/* The command of that name; NULL with err set if there is none. */
const struct cli_command *cli_find(const char *name, struct error *err);

/* The whole command; returns the exit status. */
int cli_main(int count, char **words);

/* Reports an error and returns STATUS_FAILURE. */
int cli_fail(const struct error *err);

void help_overview(FILE *out);
void help_command_text(const struct cli_command *command, FILE *out);
void help_manual(FILE *out); /* the man page, as roff */

/* Rows of the keys behind Ctrl-A, for the terminal and the man page. NULL name ends them. */
struct escape_key {
    const char *name;
    const char *help;
};
extern const struct escape_key escape_keys[];
