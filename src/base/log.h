/*
 * Messages to the user (stderr) and the guest traces that `--trace` selects.
 *
 * Thread-safe: each call writes one whole line. A trace category costs one predictable branch on a
 * global word while it is off; hot paths of the engine do not even have that (see hart/).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * While a terminal is in raw mode, a message needs "\r\n" and must not be torn by guest output.
 * `prefix_carriage_return` is set by whoever puts the terminal into raw mode.
 */
void log_set_raw_terminal(bool raw);

enum trace_category {
    TRACE_TRAP,         /* traps taken and returned from */
    TRACE_SBI,          /* SBI calls and their results */
    TRACE_MMIO,         /* device register accesses */
    TRACE_CSR,          /* CSR accesses */
    TRACE_GUEST_ERRORS, /* what a driver does that the specification forbids */
    TRACE_EXEC,         /* each instruction executed */
    TRACE_CATEGORIES
};

/* Bit (1 << category) is set while that category is traced. Written before harts start only. */
extern uint32_t trace_enabled;

static inline bool trace_on(enum trace_category category)
{
    return __builtin_expect((trace_enabled >> category) & 1, 0);
}

/* Writes one line, "category: text", to the trace file. Call only where trace_on() is true. */
void trace_write(enum trace_category category, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Reports a guest's mistake if the guest-errors category is on. `device` names who noticed. */
#define trace_guest_error(device, format, ...)                                                     \
    do {                                                                                           \
        if (trace_on(TRACE_GUEST_ERRORS))                                                          \
            trace_write(TRACE_GUEST_ERRORS, "%s: " format, device, ##__VA_ARGS__);                 \
    } while (0)

/*
 * Parses "trap,sbi,...[:FILE]" (the argument of --trace), opens FILE (stderr without one) and
 * turns the categories on. "all" turns on every one but exec.
 */
bool trace_configure(const char *specification, struct error *err);

/* Flushes and closes the trace file. Safe to call when nothing was configured. */
void trace_finish(void);
