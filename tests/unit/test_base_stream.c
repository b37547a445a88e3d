/* Saving and loading through streams, and what hostile input cannot do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/stream.h"

struct sample {
    bool flag;
    uint8_t u8;
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;
    uint64_t array[3];
    uint8_t bytes[5];
    void *blob;
    size_t blob_size;
    uint32_t version;
    uint32_t inner;
};

static void sample_state(struct sample *sample, struct stream *stream)
{
    sample->version = stream_begin(stream, "sample", 2);
    stream_bool(stream, &sample->flag);
    stream_u8(stream, &sample->u8);
    stream_u16(stream, &sample->u16);
    stream_u32(stream, &sample->u32);
    stream_u64(stream, &sample->u64);
    stream_u64_array(stream, sample->array, ARRAY_SIZE(sample->array));
    stream_bytes(stream, sample->bytes, sizeof(sample->bytes));
    stream_begin(stream, "inner", 1);
    stream_u32(stream, &sample->inner);
    stream_end(stream);
    stream_blob(stream, &sample->blob, &sample->blob_size, 16);
    stream_end(stream);
}

static struct sample a_sample(void)
{
    return (struct sample){.flag = true,
                           .u8 = 0x12,
                           .u16 = 0x3456,
                           .u32 = 0x789abcde,
                           .u64 = UINT64_C(0xf123456789abcdef),
                           .array = {1, UINT64_MAX, 3},
                           .bytes = "abcd",
                           .blob = xstrdup("0123456789"),
                           .blob_size = 11,
                           .inner = 77};
}

static struct stream *save_sample(void)
{
    struct sample sample = a_sample();
    struct stream *stream = stream_create_saving();
    assert_false(stream_loading(stream));
    sample_state(&sample, stream);
    assert_int_equal(sample.version, 2);
    assert_true(stream_check(stream, NULL));
    free(sample.blob);
    return stream;
}

static void test_round_trip(void **state)
{
    struct stream *saved = save_sample();
    size_t size;
    const void *data = stream_data(saved, &size);
    struct stream *stream = stream_create_loading(data, size);
    assert_true(stream_loading(stream));
    struct sample sample = {.blob = xstrdup("old"), .blob_size = 4};
    sample_state(&sample, stream);
    struct error err;
    assert_true(stream_check(stream, &err));
    struct sample wanted = a_sample();
    assert_int_equal(sample.version, 2);
    assert_true(sample.flag);
    assert_int_equal(sample.u8, wanted.u8);
    assert_int_equal(sample.u16, wanted.u16);
    assert_int_equal(sample.u32, wanted.u32);
    assert_int_equal(sample.u64, wanted.u64);
    assert_memory_equal(sample.array, wanted.array, sizeof(wanted.array));
    assert_memory_equal(sample.bytes, wanted.bytes, sizeof(wanted.bytes));
    assert_int_equal(sample.inner, 77);
    assert_int_equal(sample.blob_size, 11);
    assert_string_equal(sample.blob, "0123456789");
    free(sample.blob);
    free(wanted.blob);
    stream_destroy(stream);
    stream_destroy(saved);
    stream_destroy(NULL);
}

/* The bytes themselves: a saved state must be readable by later versions. */
static void test_format(void **state)
{
    struct stream *stream = stream_create_saving();
    uint16_t value = 0x1234;
    void *blob = NULL;
    size_t blob_size = 0;
    stream_begin(stream, "ab", 7);
    stream_u16(stream, &value);
    stream_blob(stream, &blob, &blob_size, 0);
    stream_end(stream);
    static const uint8_t wanted[] = {2, 'a', 'b',  7,    0, 0, 0, 10, 0, 0, 0, 0, 0,
                                     0, 0,   0x34, 0x12, 0, 0, 0, 0,  0, 0, 0, 0};
    size_t size;
    const void *data = stream_data(stream, &size);
    assert_int_equal(size, sizeof(wanted));
    assert_memory_equal(data, wanted, size);
    stream_destroy(stream);
}

/* Each prefix fails, yields zeros behind its end, and reads no byte beyond (ASan watches). */
static void test_truncated(void **state)
{
    struct stream *saved = save_sample();
    size_t size;
    const uint8_t *data = stream_data(saved, &size);
    for (size_t length = 0; length < size; length++) {
        uint8_t *cut = xmalloc(length);
        memcpy(cut, data, length);
        struct stream *stream = stream_create_loading(cut, length);
        struct sample sample = {.inner = 5};
        sample_state(&sample, stream);
        struct error err = {{0}};
        assert_false(stream_check(stream, &err));
        assert_non_null(strstr(err.message, "saved state: "));
        assert_null(sample.blob);
        assert_int_equal(sample.blob_size, 0);
        if (length < 60)
            assert_int_equal(sample.inner, 0);
        uint64_t after = 1;
        stream_u64(stream, &after);
        assert_int_equal(after, 0);
        stream_destroy(stream);
        free(cut);
    }
    stream_destroy(saved);
}

static void load_fails(const void *data, size_t size, const char *message)
{
    struct stream *stream = stream_create_loading(data, size);
    struct sample sample = {0};
    sample_state(&sample, stream);
    struct error err = {{0}};
    assert_false(stream_check(stream, &err));
    if (!strstr(err.message, message))
        fail_msg("'%s' is not in '%s'", message, err.message);
    free(sample.blob);
    stream_destroy(stream);
}

/* Offsets in the saved sample: "sample" header of 1+6+4+8 bytes, then the fields. */
enum {
    AT_NAME = 1,
    AT_VERSION = 7,
    AT_LENGTH = 11,
    AT_FLAG = 19,
    AT_INNER_LENGTH = 19 + 16 + 24 + 5 + 1 + 5 + 4,
    AT_BLOB = AT_INNER_LENGTH + 8 + 4,
};

static void test_corrupted(void **state)
{
    struct stream *saved = save_sample();
    size_t size;
    const void *original = stream_data(saved, &size);
    static const struct {
        size_t at;
        uint64_t value;
        unsigned size;
        const char *message;
    } changes[] = {
        {AT_NAME, 'S', 1, "section 'sample' expected, 'Sample' found"},
        {0, 5, 1, "section 'sample' expected, 'sampl' found"},
        {0, 255, 1, "ends early"},
        {AT_VERSION, 3, 4, "section 'sample' has version 3; this hartvisor knows up to 2"},
        {AT_LENGTH, UINT64_MAX, 8, "section 'sample' of 18446744073709551615 bytes ends early"},
        {AT_LENGTH, 30, 8, "sample: ends early"},
        {AT_FLAG, 2, 1, "sample: 2 is not a truth value"},
        {AT_INNER_LENGTH, 3, 8, "sample: inner: ends early: 4 bytes wanted, 3 left"},
        {AT_INNER_LENGTH, 5, 8, "sample: inner: 1 bytes too many"},
        {AT_BLOB, 17, 8, "a buffer of 17 bytes is above the limit of 16"},
        {AT_BLOB, UINT64_MAX, 8, "above the limit"},
        {AT_BLOB, 12, 8, "ends early: a buffer of 12 bytes, 11 left"},
        {AT_BLOB, 10, 8, "sample: 1 bytes too many"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
        uint8_t *data = xmalloc(size);
        memcpy(data, original, size);
        store_le(data + changes[i].at, changes[i].value, changes[i].size);
        load_fails(data, size, changes[i].message);
        free(data);
    }
    stream_destroy(saved);
}

static void test_older_version(void **state)
{
    struct stream *saved = stream_create_saving();
    uint32_t value = 9;
    stream_begin(saved, "thing", 1);
    stream_u32(saved, &value);
    stream_end(saved);
    size_t size;
    const void *data = stream_data(saved, &size);
    struct stream *stream = stream_create_loading(data, size);
    assert_int_equal(stream_begin(stream, "thing", 4), 1);
    value = 0;
    stream_u32(stream, &value);
    stream_end(stream);
    assert_false(stream_failed(stream));
    assert_int_equal(value, 9);
    stream_destroy(stream);
    stream_destroy(saved);
}

/* The first failure is kept, names the sections around it, and leaves begin and end balanced. */
static void test_failures_stick(void **state)
{
    struct stream *stream = stream_create_saving();
    for (int i = 0; i < 8; i++)
        stream_begin(stream, i == 7 ? "deep" : "x", 1);
    stream_fail(stream, "reason %d", 1);
    stream_fail(stream, "reason %d", 2);
    for (int i = 0; i < 8; i++)
        stream_end(stream);
    struct error err;
    assert_false(stream_check(stream, &err));
    assert_string_equal(err.message, "saved state: x: x: x: x: x: x: x: deep: reason 1");
    stream_destroy(stream);
}

static void test_growth(void **state)
{
    enum { COUNT = 100000 };
    struct stream *saved = stream_create_saving();
    stream_begin(saved, "numbers", 1);
    for (uint32_t i = 0; i < COUNT; i++)
        stream_u32(saved, &i);
    stream_end(saved);
    size_t size;
    const void *data = stream_data(saved, &size);
    struct stream *stream = stream_create_loading(data, size);
    stream_begin(stream, "numbers", 1);
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t value = 0;
        stream_u32(stream, &value);
        assert_int_equal(value, i);
    }
    stream_end(stream);
    assert_false(stream_failed(stream));
    stream_destroy(stream);
    stream_destroy(saved);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_format),
        cmocka_unit_test(test_truncated),     cmocka_unit_test(test_corrupted),
        cmocka_unit_test(test_older_version), cmocka_unit_test(test_failures_stick),
        cmocka_unit_test(test_growth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
