/*
 * Files of the host, below a root that tests replace. Paths are formats and begin with /sys, /proc
 * or /dev.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct host {
    char *root; /* "" for this machine; real, without a final slash */
};

/* Text with blanks at the end cut off; false if it cannot be read. */
bool host_read(const struct host *host, char *text, size_t size, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The whole of a file of up to 4 MiB, with a zero behind it. NULL if it cannot be read. */
char *host_read_all(const struct host *host, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Puts question marks for what a terminal might obey, or JSON not take. What is read by the
 * functions for short texts and links is cleaned already. */
void host_clean(char *text);
/* A number, in C's notation. */
bool host_number(const struct host *host, uint64_t *value, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool host_exists(const struct host *host, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The last part of where a symbolic link leads. */
bool host_link(const struct host *host, char *name, size_t size, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Where a path leads, without the root. NULL if nowhere; the caller frees it. */
char *host_real(const struct host *host, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The path with the root before it; the caller frees it. */
char *host_path(const struct host *host, const char *path);

/* The names in a folder, sorted, NULL at the end; never NULL itself. */
char **host_list(const struct host *host, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void host_list_free(char **names);
