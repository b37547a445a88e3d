/*
 * Errors that a user can act on.
 *
 * A function that can fail returns bool (or a pointer) and takes a last `struct error *err`, which
 * may be NULL. The message names the thing, the value and the remedy, in one line without a final
 * stop or new line. Programming errors are asserts; running out of host memory aborts.
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct error {
    char message[512]; /* always terminated; empty means no error was reported */
};

/* Formats the message (truncating it to fit) and returns false, so that callers can return it. */
bool error_set(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* As error_set, with ": " and the text of errno value `number` behind the message. */
bool error_set_errno(struct error *err, int number, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the message that is already there. Returns false. */
bool error_prefix(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));
