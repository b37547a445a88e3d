/* The options of `hartvisor run`. */
#pragma once

#include "cli/options.h"
#include "hartvisor/machine.h"

struct run_options {
    struct machine_config config;
    const char *dump_dtb; /* NULL or a file, "-" for stdout */
    const char *trace;    /* NULL or as trace_configure takes it */
    const char *control;  /* NULL or "unix:PATH" */
    const char *gdb;      /* NULL or where debug_server_create listens */
    bool gdb_wait;
    bool stats;
    unsigned flash_count;
    char **copies; /* the lists that `config` points into; owned */
    unsigned copy_count;
};

extern const struct option_table run_option_table; /* its targets are in struct run_options */

void run_options_init(struct run_options *options);
void run_options_finish(struct run_options *options);
