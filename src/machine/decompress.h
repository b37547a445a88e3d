/* gzip and zstd, whole buffers, with a limit on what comes out. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* True if the data begins as gzip or zstd data does. */
bool decompress_recognises(const void *data, size_t size);

/*
 * Decompresses into a new buffer that the caller frees. Fails on damaged data, on more than `limit`
 * bytes of output, and where the library for this format was not built in. Bytes behind the
 * compressed data are ignored.
 */
bool decompress(const void *data, size_t size, size_t limit, void **out, size_t *out_size,
                struct error *err);
