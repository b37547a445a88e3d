#include "machine/decompress.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

#if HAVE_ZLIB
#    include <zlib.h>
#endif
#if HAVE_ZSTD
#    include <zstd.h>
#endif

/* Output grows in these steps: a decompressed size in a header is not to be believed. */
#define STEP (4 << 20)

struct output {
    uint8_t *data;
    size_t size, capacity, limit;
};

/* Makes room; false once the limit is reached. */
static bool output_grow(struct output *out, struct error *err)
{
    if (out->capacity >= out->limit)
        return error_set(err,
                         "decompressed data is larger than guest RAM (%zu MiB): raise --memory",
                         out->limit >> 20);
    out->capacity += STEP;
    if (out->capacity > out->limit)
        out->capacity = out->limit;
    out->data = xrealloc(out->data, out->capacity);
    return true;
}

#if HAVE_ZLIB
static bool inflate_gzip(const void *data, size_t size, struct output *out, struct error *err)
{
    if (size > UINT_MAX)
        return error_set(err, "gzip data over 4 GiB");
    z_stream z = {.next_in = (Bytef *)data, .avail_in = size};
    if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
        return error_set(err, "cannot start zlib");

    int result = Z_OK;
    bool room = true;
    while (result == Z_OK && (room = out->size < out->capacity || output_grow(out, err))) {
        z.next_out = out->data + out->size;
        z.avail_out = out->capacity - out->size;
        result = inflate(&z, Z_NO_FLUSH);
        out->size = out->capacity - z.avail_out;
    }
    inflateEnd(&z);
    if (!room)
        return false;
    return result == Z_STREAM_END || error_set(err, "damaged or truncated gzip data");
}
#endif

#if HAVE_ZSTD
static bool inflate_zstd(const void *data, size_t size, struct output *out, struct error *err)
{
    ZSTD_DStream *z = ZSTD_createDStream();
    ZSTD_inBuffer in = {.src = data, .size = size};
    size_t result = 1;
    bool room = true;
    while (result != 0 && !ZSTD_isError(result) &&
           (room = out->size < out->capacity || output_grow(out, err))) {
        ZSTD_outBuffer buffer = {.dst = out->data, .size = out->capacity, .pos = out->size};
        result = ZSTD_decompressStream(z, &buffer, &in);
        bool stuck = buffer.pos == out->size && in.pos == in.size;
        out->size = buffer.pos;
        if (stuck)
            break;
    }
    ZSTD_freeDStream(z);
    if (!room)
        return false;
    return result == 0 || error_set(err, "damaged or truncated zstd data");
}
#endif

static const struct format {
    const char *name;
    uint8_t magic[4];
    size_t magic_size;
    bool (*inflate)(const void *data, size_t size, struct output *out, struct error *err);
} formats[] = {
#if HAVE_ZLIB
    {"gzip", {0x1f, 0x8b}, 2, inflate_gzip},
#else
    {"gzip", {0x1f, 0x8b}, 2, NULL},
#endif
#if HAVE_ZSTD
    {"zstd", {0x28, 0xb5, 0x2f, 0xfd}, 4, inflate_zstd},
#else
    {"zstd", {0x28, 0xb5, 0x2f, 0xfd}, 4, NULL},
#endif
};

static const struct format *find_format(const void *data, size_t size)
{
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
        if (size >= formats[i].magic_size && !memcmp(data, formats[i].magic, formats[i].magic_size))
            return &formats[i];
    return NULL;
}

bool decompress_recognises(const void *data, size_t size)
{
    return find_format(data, size) != NULL;
}

bool decompress(const void *data, size_t size, size_t limit, void **out, size_t *out_size,
                struct error *err)
{
    const struct format *format = find_format(data, size);
    if (!format)
        return error_set(err, "neither gzip nor zstd data");
    if (!format->inflate)
        return error_set(err, "%s data, and this build has no %s: decompress it first",
                         format->name, format->name);
    struct output output = {.limit = limit};
    if (!format->inflate(data, size, &output, err)) {
        free(output.data);
        return false;
    }
    *out = output.data;
    *out_size = output.size;
    return true;
}
