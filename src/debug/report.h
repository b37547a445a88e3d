/*
 * Backtraces for the person at the keyboard, when a guest is lost, says that it has failed, or is a
 * Linux that panics and then resets or is ended.
 */
#pragma once

#include <stdbool.h>

struct hart;
struct machine;
struct report;
struct symbols;

/* Watches a machine that does not run yet. Both outlive the report. */
struct report *report_create(struct machine *machine, struct symbols *symbols);
void report_destroy(struct report *report); /* the machine does not run any more; accepts NULL */

/*
 * Prints the backtrace of a hart now: for a breakpoint on `panic`, for a debugger's command. On the
 * hart's thread, or while the machine stands still.
 */
void report_backtrace(struct report *report, struct hart *hart, const char *heading);
