#include "base/stream.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"

/*
 * A section is: u8 length of the name, the name, u32 version, u64 length of the contents, contents.
 * While saving, the length is filled in when the section ends.
 */
#define MAX_DEPTH     8
#define LENGTH_SIZE   sizeof(uint64_t)
#define INITIAL_SPACE 4096

struct section {
    const char *name;
    size_t start; /* of the contents */
    size_t end;   /* while loading */
};

struct stream {
    bool loading;
    bool failed;
    uint8_t *saved;        /* while saving, owned; `space` bytes are allocated */
    const uint8_t *source; /* while loading */
    size_t space;
    size_t size;     /* bytes saved, or of the source */
    size_t position; /* while loading */
    size_t depth;
    struct section sections[MAX_DEPTH];
    struct error error;
};

struct stream *stream_create_saving(void)
{
    return xcalloc(1, sizeof(struct stream));
}

struct stream *stream_create_loading(const void *data, size_t size)
{
    struct stream *stream = xcalloc(1, sizeof(*stream));
    stream->loading = true;
    stream->source = data;
    stream->size = size;
    return stream;
}

void stream_destroy(struct stream *stream)
{
    if (!stream)
        return;
    free(stream->saved);
    free(stream);
}

const void *stream_data(const struct stream *stream, size_t *size)
{
    *size = stream->size;
    return stream->loading ? stream->source : stream->saved;
}

bool stream_loading(const struct stream *stream)
{
    return stream->loading;
}

bool stream_failed(const struct stream *stream)
{
    return stream->failed;
}

void stream_fail(struct stream *stream, const char *format, ...)
{
    if (stream->failed)
        return;
    stream->failed = true;
    char text[sizeof(stream->error.message)];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    error_set(&stream->error, "%s", text);
    for (size_t i = stream->depth; i > 0; i--)
        error_prefix(&stream->error, "%s", stream->sections[i - 1].name);
    error_prefix(&stream->error, "saved state");
}

bool stream_check(const struct stream *stream, struct error *err)
{
    if (!stream->failed)
        return true;
    return error_set(err, "%s", stream->error.message);
}

static void stream_append(struct stream *stream, const void *bytes, size_t size)
{
    if (stream->failed || !size)
        return;
    if (size > stream->space - stream->size) {
        size_t space = stream->space ? stream->space : INITIAL_SPACE;
        while (space - stream->size < size)
            space *= 2;
        stream->saved = xrealloc(stream->saved, space);
        stream->space = space;
    }
    memcpy(stream->saved + stream->size, bytes, size);
    stream->size += size;
}

/* Bytes left in the innermost section. */
static size_t stream_left(const struct stream *stream)
{
    size_t end = stream->depth ? stream->sections[stream->depth - 1].end : stream->size;
    return end - stream->position;
}

static void stream_take(struct stream *stream, void *bytes, size_t size)
{
    size_t left = stream_left(stream);
    if (!stream->failed && size > left)
        stream_fail(stream, "ends early: %zu bytes wanted, %zu left", size, left);
    if (!size)
        return;
    if (stream->failed) {
        memset(bytes, 0, size);
        return;
    }
    memcpy(bytes, stream->source + stream->position, size);
    stream->position += size;
}

void stream_bytes(struct stream *stream, void *bytes, size_t size)
{
    if (stream->loading)
        stream_take(stream, bytes, size);
    else
        stream_append(stream, bytes, size);
}

static uint64_t stream_integer(struct stream *stream, uint64_t value, unsigned size)
{
    uint8_t bytes[sizeof(uint64_t)];
    store_le(bytes, value, size);
    stream_bytes(stream, bytes, size);
    return load_le(bytes, size);
}

void stream_u8(struct stream *stream, uint8_t *value)
{
    *value = (uint8_t)stream_integer(stream, *value, sizeof(*value));
}

void stream_u16(struct stream *stream, uint16_t *value)
{
    *value = (uint16_t)stream_integer(stream, *value, sizeof(*value));
}

void stream_u32(struct stream *stream, uint32_t *value)
{
    *value = (uint32_t)stream_integer(stream, *value, sizeof(*value));
}

void stream_u64(struct stream *stream, uint64_t *value)
{
    *value = stream_integer(stream, *value, sizeof(*value));
}

void stream_bool(struct stream *stream, bool *value)
{
    uint8_t byte = *value;
    stream_u8(stream, &byte);
    if (byte > 1)
        stream_fail(stream, "%u is not a truth value", byte);
    *value = byte == 1;
}

void stream_u64_array(struct stream *stream, uint64_t *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        stream_u64(stream, &values[i]);
}

void stream_blob(struct stream *stream, void **bytes, size_t *size, size_t limit)
{
    uint64_t length = *size;
    stream_u64(stream, &length);
    if (length > limit)
        stream_fail(stream, "a buffer of %llu bytes is above the limit of %zu",
                    (unsigned long long)length, limit);
    else if (stream->loading && length > stream_left(stream))
        stream_fail(stream, "ends early: a buffer of %llu bytes, %zu left",
                    (unsigned long long)length, stream_left(stream));
    if (stream->loading) {
        free(*bytes);
        *size = stream->failed ? 0 : (size_t)length;
        *bytes = *size ? xmalloc(*size) : NULL;
    }
    stream_bytes(stream, *bytes, *size);
}

static void section_save(struct stream *stream, const char *name, uint32_t version)
{
    uint8_t length = (uint8_t)strlen(name);
    stream_u8(stream, &length);
    stream_append(stream, name, length);
    stream_u32(stream, &version);
    uint64_t unknown_yet = 0;
    stream_u64(stream, &unknown_yet);
}

/* Returns the version found, and the length of the contents; both 0 on failure. */
static uint32_t section_load(struct stream *stream, const char *name, uint32_t version,
                             uint64_t *contents)
{
    uint8_t length = 0;
    char found[UINT8_MAX + 1] = "";
    uint32_t found_version = 0;
    stream_u8(stream, &length);
    stream_bytes(stream, found, length);
    stream_u32(stream, &found_version);
    stream_u64(stream, contents);
    if (length != strlen(name) || memcmp(found, name, length))
        stream_fail(stream, "section '%s' expected, '%s' found", name, found);
    else if (found_version > version)
        stream_fail(stream, "section '%s' has version %u; this hartvisor knows up to %u", name,
                    found_version, version);
    else if (*contents > stream_left(stream))
        stream_fail(stream, "section '%s' of %llu bytes ends early: %zu left", name,
                    (unsigned long long)*contents, stream_left(stream));
    if (!stream->failed)
        return found_version;
    *contents = 0;
    return 0;
}

uint32_t stream_begin(struct stream *stream, const char *name, uint32_t version)
{
    assert(stream->depth < MAX_DEPTH && strlen(name) <= UINT8_MAX);
    uint64_t contents = 0;
    if (stream->loading)
        version = section_load(stream, name, version, &contents);
    else
        section_save(stream, name, version);
    size_t start = stream->loading ? stream->position : stream->size;
    stream->sections[stream->depth++] =
        (struct section){.name = name, .start = start, .end = start + (size_t)contents};
    return version;
}

void stream_end(struct stream *stream)
{
    assert(stream->depth > 0);
    const struct section *section = &stream->sections[stream->depth - 1];
    if (stream->failed) {
        stream->depth--;
        return;
    }
    if (stream->loading) {
        if (stream_left(stream))
            stream_fail(stream, "%zu bytes too many", stream_left(stream));
    } else {
        store_le64(stream->saved + section->start - LENGTH_SIZE, stream->size - section->start);
    }
    stream->depth--;
}
