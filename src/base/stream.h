/*
 * Byte streams for saving and loading state.
 *
 * One `state(thing, stream)` function describes a thing's state once; the stream's direction
 * decides whether the calls write the fields or overwrite them. Integers are little-endian.
 * Sections carry a name, a version and a length, so that a mismatch is reported by name.
 *
 * A loaded stream is hostile: after stream_failed() turns true every further load yields zeros, and
 * a state function must check ranges of what it loads (stream_fail) before using it as an index or
 * a size. Errors stick; callers check once, at the end.
 *
 * Not thread-safe; harts and devices are paused while their state is taken.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct stream;

/* A stream that saves into memory, growing as needed. */
struct stream *stream_create_saving(void);

/* A stream that loads from `data`, which the caller keeps alive. */
struct stream *stream_create_loading(const void *data, size_t size);

void stream_destroy(struct stream *stream);

/* The bytes saved so far; valid until the next call on the stream. */
const void *stream_data(const struct stream *stream, size_t *size);

bool stream_loading(const struct stream *stream);
bool stream_failed(const struct stream *stream);

/* Marks a stream as failed with a message; the first failure is the one that is kept. */
void stream_fail(struct stream *stream, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Fills err and returns false if the stream has failed. */
bool stream_check(const struct stream *stream, struct error *err);

void stream_bool(struct stream *stream, bool *value);
void stream_u8(struct stream *stream, uint8_t *value);
void stream_u16(struct stream *stream, uint16_t *value);
void stream_u32(struct stream *stream, uint32_t *value);
void stream_u64(struct stream *stream, uint64_t *value);
void stream_u64_array(struct stream *stream, uint64_t *values, size_t count);
void stream_bytes(struct stream *stream, void *bytes, size_t size);

/*
 * A buffer whose size is part of the state, at most `limit` bytes. While loading, *bytes is
 * reallocated (old contents freed) and *size set; *bytes is NULL when *size is 0.
 */
void stream_blob(struct stream *stream, void **bytes, size_t *size, size_t limit);

/*
 * Opens a section. While loading, a section of another name, or of a version above `version`, fails
 * the stream; the return value is the version found (equal to `version` while saving). Sections
 * nest, at most 8 deep. stream_end fails the stream if the section was not consumed whole.
 */
uint32_t stream_begin(struct stream *stream, const char *name, uint32_t version);
void stream_end(struct stream *stream);
