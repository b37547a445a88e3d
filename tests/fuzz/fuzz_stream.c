/*
 * Loads a saved state whose shape the input chooses too: its first bytes are a program of load
 * calls, the rest is the stream. What loads must be what was there, and what fails must yield
 * zeros.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/stream.h"

#define BLOB_LIMIT 64
#define MAX_DEPTH  8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool truth)
{
    if (!truth)
        abort();
}

static void load_integers(struct stream *stream)
{
    uint8_t u8 = 1;
    uint16_t u16 = 1;
    uint32_t u32 = 1;
    uint64_t u64 = 1, array[3] = {1, 1, 1};
    bool flag = true;
    stream_u8(stream, &u8);
    stream_u16(stream, &u16);
    stream_u32(stream, &u32);
    stream_u64(stream, &u64);
    stream_u64_array(stream, array, ARRAY_SIZE(array));
    stream_bool(stream, &flag);
    if (stream_failed(stream))
        check(!array[2] || !flag);
}

static void load_bytes(struct stream *stream, uint8_t size)
{
    uint8_t bytes[UINT8_MAX + 1];
    memset(bytes, 0xee, sizeof(bytes));
    stream_bytes(stream, bytes, size);
    check(bytes[size] == 0xee);
    for (unsigned i = 0; stream_failed(stream) && i < size; i++)
        check(!bytes[i]);
}

static void load_blob(struct stream *stream, void **blob, size_t *blob_size)
{
    stream_blob(stream, blob, blob_size, BLOB_LIMIT);
    check(*blob_size <= BLOB_LIMIT && !*blob == !*blob_size);
    check(!stream_failed(stream) || !*blob_size);
    for (size_t i = 0; i < *blob_size; i++)
        ((uint8_t *)*blob)[i] ^= 0xff; /* all of it is ours */
}

static void run_program(const uint8_t *program, size_t length, struct stream *stream)
{
    static const char *const names[] = {"ram", "uart", "", "hart0"};
    void *blob = NULL;
    size_t blob_size = 0;
    unsigned depth = 0;
    for (size_t i = 0; i < length; i++) {
        bool failed = stream_failed(stream);
        uint8_t argument = program[i] >> 3;
        switch (program[i] & 7) {
        case 0:
        case 1:
            if (depth == MAX_DEPTH)
                break;
            depth++;
            check(stream_begin(stream, names[argument % ARRAY_SIZE(names)], argument) <= argument);
            break;
        case 2:
        case 3:
            if (depth) {
                depth--;
                stream_end(stream);
            }
            break;
        case 4:
            load_integers(stream);
            break;
        case 5:
            load_bytes(stream, (uint8_t)(argument * 8));
            break;
        default:
            load_blob(stream, &blob, &blob_size);
            break;
        }
        check(!failed || stream_failed(stream));
    }
    while (depth--)
        stream_end(stream);
    struct error err = {{0}};
    check(stream_check(stream, &err) == !err.message[0]);
    free(blob);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t length = size ? data[0] % 32u : 0;
    if (size < 1 + length)
        return 0;
    /* A copy of just the size, so that a byte read beyond it is noticed. */
    size_t left = size - 1 - length;
    uint8_t *source = malloc(left ? left : 1);
    memcpy(source, data + 1 + length, left);
    struct stream *stream = stream_create_loading(source, left);
    run_program(data + 1, length, stream);
    stream_destroy(stream);
    free(source);
    return 0;
}
