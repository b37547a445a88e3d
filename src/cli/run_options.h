/* The options of `hartvisor run`. */
#pragma once

#include "cli/options.h"
#include "hartvisor/machine.h"

#define RUN_SYMBOLS_MAX 32

/* A file of --symbols. */
struct run_symbols {
    const char *file;
    int64_t offset; /* run-time address minus address in the file */
};

struct run_options {
    struct machine_config config;
    const char *dump_dtb; /* NULL or a file, "-" for stdout */
    const char *trace;    /* NULL or as trace_configure takes it */
    const char *control;  /* NULL or "unix:PATH" */
    const char *gdb;      /* NULL or where debug_server_create listens */
    bool gdb_wait;
    const char *profile; /* NULL or a file */
    struct run_symbols symbols[RUN_SYMBOLS_MAX];
    unsigned symbols_count;
    bool stats;
    unsigned flash_count;
    char **copies; /* the lists that `config` points into; owned */
    unsigned copy_count;
};

extern const struct option_table run_option_table; /* its targets are in struct run_options */

void run_options_init(struct run_options *options);
void run_options_finish(struct run_options *options);
