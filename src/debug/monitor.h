/* Private to debug/: commands of `monitor` (qRcmd), one row each. */
#pragma once

#include "debug/session.h"

#define MONITOR_WORDS 12

struct monitor_command {
    const char *name;      /* one word, or two: "info harts" */
    const char *arguments; /* for the help */
    const char *help;
    /* The words behind the name; count is at least `least` and at most `most`. */
    void (*run)(struct debug_session *session, char **words, unsigned count);
    uint8_t least, most;
    bool stands; /* harts must stand still */
};

extern const struct monitor_command monitor_info_commands[], monitor_control_commands[],
    monitor_source_commands[];

/* Appends to what the command prints. */
#define monitor_print(session, ...) buffer_format(&(session)->console, __VA_ARGS__)

/* A number, 0x... or decimal, a register's name with a $, or a symbol; false, after saying that it
 * is none. */
bool monitor_number(struct debug_session *session, const char *word, uint64_t *number);
