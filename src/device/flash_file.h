/* What a flash bank remembers, and the file that keeps it (private to device/). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct flash_contents {
    uint8_t *bytes; /* `size` of them, page-aligned */
    size_t size;
    size_t kept; /* bytes that have a place in the file; all of them without a file */
    int fd;      /* -1: no file */
    bool read_only;
    bool dirty;  /* written since the last flash_contents_sync */
    bool failed; /* an error was reported to the user */
    char *path;
};

/* Maps an erased bank, and loads `path` (may be NULL) into it. Locks the file. */
bool flash_contents_init(struct flash_contents *contents, size_t size, const char *path,
                         bool read_only, struct error *err);
void flash_contents_finish(struct flash_contents *contents);

/* Writes the file, then the bank. False if the file cannot be written: the bank keeps the old
 * bytes. The range must lie below `kept`. */
bool flash_contents_write(struct flash_contents *contents, size_t offset, const uint8_t *bytes,
                          size_t size);

/* Makes the file's contents durable. */
void flash_contents_sync(struct flash_contents *contents);
