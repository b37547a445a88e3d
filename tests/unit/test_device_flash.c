/* CFI flash as drivers use it: probe, identify, program, erase, lock, and what a file keeps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "device/device.h"

#define BASE   UINT64_C(0x20000000)
#define SIZE   (UINT64_C(32) << 20)
#define SECTOR FLASH_SECTOR_SIZE

static struct memory *memory;
static struct flash *flash;

static void remove_flash(void)
{
    if (flash)
        flash_device(flash)->type->remove(flash_device(flash));
    memory_destroy(memory);
    flash = NULL;
    memory = NULL;
}

static struct flash *create_flash(const char *file, bool read_only, struct error *err)
{
    memory = memory_create();
    flash = flash_create(
        "flash0",
        &(struct flash_config){
            .memory = memory, .base = BASE, .size = SIZE, .file = file, .read_only = read_only},
        err);
    return flash;
}

static int setup(void **state)
{
    return create_flash(NULL, false, NULL) ? 0 : -1;
}

static int teardown(void **state)
{
    remove_flash();
    return 0;
}

static void put(uint64_t offset, uint32_t value)
{
    assert_true(memory_write(memory, BASE + offset, 4, value));
}

static uint32_t get(uint64_t offset)
{
    uint64_t value;
    assert_true(memory_read(memory, BASE + offset, 4, &value));
    return (uint32_t)value;
}

/* The command in both chips. */
static void command(uint64_t offset, uint8_t code)
{
    put(offset, code | (uint32_t)code << 16);
}

static void program(uint64_t offset, uint32_t value)
{
    command(offset, 0x40);
    put(offset, value);
}

static void erase(uint64_t offset)
{
    command(offset, 0x20);
    command(offset, 0xd0);
}

static uint8_t status(void)
{
    command(0, 0x70);
    uint32_t value = get(0);
    assert_int_equal(value >> 16, value & 0xffff);
    return (uint8_t)value;
}

static void read_array(void)
{
    command(0, 0xff);
}

static void starts_erased(void **state)
{
    uint8_t *host;
    assert_int_equal(get(0), UINT32_MAX);
    assert_int_equal(get(SIZE - 4), UINT32_MAX);
    assert_int_equal(memory_page(memory, BASE, &host), MEMORY_ROM);
    command(0, 0x70);
    assert_int_equal(memory_page(memory, BASE, &host), MEMORY_MMIO);
    read_array();
    assert_int_equal(memory_page(memory, BASE, &host), MEMORY_ROM);
}

/* What Linux's and U-Boot's probing compares. */
static void answers_the_query(void **state)
{
    static const struct {
        uint8_t word, value;
    } expected[] = {
        {0x10, 'Q'},  {0x11, 'R'}, {0x12, 'Y'},  {0x13, 0x01}, {0x14, 0x00}, {0x15, 0x31},
        {0x16, 0x00}, {0x27, 24},  {0x28, 0x02}, {0x29, 0x00}, {0x2a, 11},   {0x2b, 0},
        {0x2c, 1},    {0x2d, 127}, {0x2e, 0},    {0x2f, 0},    {0x30, 2},    {0x31, 'P'},
        {0x32, 'R'},  {0x33, 'I'}, {0x34, '1'},  {0x35, '0'},
    };

    command(0x55 * 4, 0x98);
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
        assert_int_equal(get(expected[i].word * 4), expected[i].value * 0x10001u);
    uint64_t value;
    assert_true(memory_read(memory, BASE + 0x40, 1, &value));
    assert_int_equal(value, 'Q');
    assert_true(memory_read(memory, BASE + 0x41, 1, &value));
    assert_int_equal(value, 0);
    assert_true(memory_read(memory, BASE + 0x42, 2, &value));
    assert_int_equal(value, 'Q');
    assert_true(memory_read(memory, BASE + 0x40, 8, &value));
    assert_int_equal(value, 0x0052005200510051);
    assert_int_equal(get(SIZE - 4), 0);

    command(0, 0x90);
    assert_int_equal(get(0), 0x00890089);
    assert_int_equal(get(4), 0x00180018);
    command(0, 0xf0);
    assert_int_equal(get(0x40), UINT32_MAX);
}

static void programs_and_erases(void **state)
{
    program(SECTOR + 8, 0xf0f0f0f0);
    assert_int_equal(get(SECTOR), 0x00800080);
    read_array();
    assert_int_equal(get(SECTOR + 8), 0xf0f0f0f0);
    program(SECTOR + 8, 0xff00ff00); /* no bit comes back */
    read_array();
    assert_int_equal(get(SECTOR + 8), 0xf000f000);
    assert_int_equal(get(SECTOR + 4), UINT32_MAX);
    assert_int_equal(get(SECTOR + 12), UINT32_MAX);

    program(2 * SECTOR - 4, 0);
    program(2 * SECTOR, 0);
    erase(SECTOR + 0x1234);
    assert_int_equal(status(), 0x80);
    read_array();
    assert_int_equal(get(SECTOR + 8), UINT32_MAX);
    assert_int_equal(get(2 * SECTOR - 4), UINT32_MAX);
    assert_int_equal(get(2 * SECTOR), 0);
}

static void programs_narrow(void **state)
{
    command(0, 0x10);
    assert_true(memory_write(memory, BASE + 5, 1, 0x5a));
    command(0, 0x10);
    assert_true(memory_write(memory, BASE + 6, 2, 0x1234));
    read_array();
    assert_int_equal(get(4), 0x12345aff);
}

static void buffered(uint64_t offset, unsigned words, uint32_t first)
{
    command(offset, 0xe8);
    assert_int_equal(get(offset), 0x00800080);
    put(offset, (words - 1) * 0x10001);
    for (unsigned i = 0; i < words; i++)
        put(offset + 4 * i, first + i);
}

static void programs_by_buffer(void **state)
{
    command(4096, 0xe8);
    assert_int_equal(get(4096), 0x00800080);
    put(4096, 1023 | 1023u << 16);
    for (unsigned i = 0; i < 1024; i++)
        put(4096 + 4 * i, i * 3);
    command(4096, 0xd0);
    assert_int_equal(status(), 0x80);
    read_array();
    for (unsigned i = 0; i < 1024; i++)
        assert_int_equal(get(4096 + 4 * i), i * 3);
    assert_int_equal(get(4092), UINT32_MAX);
    assert_int_equal(get(8192), UINT32_MAX);

    /* Words in any order; a 64-bit store is two of them. */
    command(0, 0xe8);
    put(0, 0x00020002);
    put(0x28, 0x11111111);
    assert_true(memory_write(memory, BASE + 0x20, 8, 0x3333333322222222));
    command(0, 0xd0);
    read_array();
    assert_int_equal(get(0x20), 0x22222222);
    assert_int_equal(get(0x24), 0x33333333);
    assert_int_equal(get(0x28), 0x11111111);
}

static void refuses_wrong_sequences(void **state)
{
    /* Data outside the buffer's window: nothing is programmed. */
    command(0, 0xe8);
    put(0, 0x00010001);
    put(0, 0);
    put(8192, 0);
    command(0, 0xd0);
    assert_int_equal(status(), 0xb0);
    command(0, 0x50);
    assert_int_equal(status(), 0x80);

    /* No confirmation. */
    buffered(0, 1, 0);
    command(0, 0x70);
    assert_int_equal(status(), 0xb0);
    command(0, 0x50);
    command(0, 0x20);
    command(0, 0x70);
    assert_int_equal(status(), 0xb0);
    command(0, 0x50);

    /* More words than the buffer has. */
    command(0, 0xe8);
    put(0, 0x04000400);
    assert_int_equal(status(), 0xb0);
    command(0, 0x50);

    command(0, 0x20);
    read_array();
    assert_int_equal(get(0), UINT32_MAX);
    assert_int_equal(get(8192), UINT32_MAX);
}

static void locks_sectors(void **state)
{
    command(SECTOR, 0x60);
    command(SECTOR, 0x01);
    command(SECTOR, 0x90);
    assert_int_equal(get(SECTOR + 8), 0x00010001);
    assert_int_equal(get(8), 0);
    program(SECTOR, 0);
    assert_int_equal(status(), 0x92);
    command(0, 0x50);
    erase(SECTOR);
    assert_int_equal(status(), 0xa2);
    command(0, 0x50);
    assert_int_equal(get(SECTOR), UINT32_MAX);

    command(SECTOR, 0x60);
    command(SECTOR, 0xd0);
    program(SECTOR, 0x12345678);
    assert_int_equal(status(), 0x80);
    read_array();
    assert_int_equal(get(SECTOR), 0x12345678);
}

static void resets(void **state)
{
    program(0, 0x1234);
    command(SECTOR, 0x60);
    command(SECTOR, 0x01);
    command(0, 0x20);
    flash_device(flash)->type->reset(flash_device(flash));
    assert_int_equal(get(0), 0x1234);
    erase(SECTOR);
    assert_int_equal(status(), 0x80);
}

/* The file. */

static char path[64];

static void make_file(size_t size)
{
    strcpy(path, "/tmp/hartvisor-test-XXXXXX");
    int fd = mkstemp(path);
    uint8_t *bytes = xmalloc(size ? size : 1);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i / 1000 | 1);
    assert_int_equal(write(fd, bytes, size), size);
    free(bytes);
    close(fd);
}

static uint32_t word_in_file(uint64_t offset)
{
    uint32_t word = 0;
    int fd = open(path, O_RDONLY);
    assert_int_equal(pread(fd, &word, sizeof(word), (off_t)offset), sizeof(word));
    close(fd);
    return word;
}

static void file_keeps_contents(void **state)
{
    struct error err = {0};
    make_file(2 * SECTOR + 1000);
    if (!create_flash(path, false, &err))
        fail_msg("%s", err.message);
    assert_int_equal(get(1000), 0x01010101);
    assert_int_equal(get(2 * SECTOR), 0x0d0d0d0d);
    assert_int_equal(get(2 * SECTOR + 1000), UINT32_MAX); /* behind the file */

    erase(SECTOR);
    program(SECTOR + 16, 0xcafef00d);
    assert_int_equal(status(), 0x80);
    assert_int_equal(word_in_file(SECTOR + 16), 0xcafef00d);
    assert_int_equal(word_in_file(SECTOR + 20), UINT32_MAX);

    /* What the file has no room for is not promised. */
    program(2 * SECTOR, 0);
    assert_int_equal(status(), 0x92);
    command(0, 0x50);
    erase(5 * SECTOR);
    assert_int_equal(status(), 0xa2);
    flash_device(flash)->type->quiesce(flash_device(flash));
    remove_flash();

    struct stat file;
    assert_int_equal(stat(path, &file), 0);
    assert_int_equal(file.st_size, 2 * SECTOR + 1000);
    assert_non_null(create_flash(path, false, NULL));
    assert_int_equal(get(SECTOR + 16), 0xcafef00d);
    remove_flash();
    unlink(path);
}

static void file_read_only(void **state)
{
    make_file(SECTOR);
    assert_non_null(create_flash(path, true, NULL));
    program(0, 0);
    assert_int_equal(status(), 0x92);
    command(0, 0x50);
    erase(0);
    assert_int_equal(status(), 0xa2);
    read_array();
    assert_int_equal(get(0), 0x01010101);
    remove_flash();
    assert_int_equal(word_in_file(0), 0x01010101);
    unlink(path);
}

static void expect_refusal(const char *file, bool read_only, const char *message)
{
    struct error err = {0};
    struct memory *first = memory;
    struct flash *owner = flash;

    assert_null(create_flash(file, read_only, &err));
    remove_flash();
    if (!strstr(err.message, file) || !strstr(err.message, message))
        fail_msg("unexpected message: %s", err.message);
    memory = first;
    flash = owner;
}

static void file_is_locked(void **state)
{
    make_file(SECTOR);
    assert_non_null(create_flash(path, false, NULL));
    expect_refusal(path, false, "in use by another machine");
    expect_refusal(path, true, "in use by another machine");
    remove_flash();

    assert_non_null(create_flash(path, true, NULL));
    struct flash *reader = flash;
    struct memory *reader_memory = memory;
    assert_non_null(create_flash(path, true, NULL)); /* readers may be many */
    remove_flash();
    flash = reader;
    memory = reader_memory;
    remove_flash();
    unlink(path);
}

static void file_errors(void **state)
{
    flash = NULL;
    memory = NULL;
    expect_refusal("/nonexistent/flash", false, "No such file");
    expect_refusal("/tmp", true, "no regular file");
    make_file(0);
    expect_refusal(path, false, "empty");
    assert_int_equal(truncate(path, SIZE + 1), 0);
    expect_refusal(path, false, "the flash bank only");
    unlink(path);
}

/* Saved in the middle of a buffered write. */
static void state_mid_write(void **state)
{
    program(3 * SECTOR, 0xabcd1234);
    command(SECTOR, 0x60);
    command(SECTOR, 0x01);
    command(0, 0xe8);
    put(0, 0x00020002);
    put(64, 0x01010101);
    put(68, 0x02020202);

    struct stream *saved = stream_create_saving();
    flash_device(flash)->type->state(flash_device(flash), saved);
    assert_true(stream_check(saved, NULL));
    remove_flash();
    setup(NULL);
    size_t size;
    const void *data = stream_data(saved, &size);
    assert_true(size < 2 * SECTOR); /* erased sectors take a byte */
    struct stream *stream = stream_create_loading(data, size);
    flash_device(flash)->type->state(flash_device(flash), stream);
    assert_true(stream_check(stream, NULL));
    stream_destroy(stream);

    put(72, 0x03030303);
    command(0, 0xd0);
    assert_int_equal(get(0), 0x00800080);
    read_array();
    assert_int_equal(get(64), 0x01010101);
    assert_int_equal(get(68), 0x02020202);
    assert_int_equal(get(72), 0x03030303);
    assert_int_equal(get(3 * SECTOR), 0xabcd1234);
    program(SECTOR, 0);
    assert_int_equal(status(), 0x92);

    /* Another board's, or a damaged one, is refused. */
    for (size_t cut = 0; cut < 64; cut++) {
        stream = stream_create_loading(data, cut);
        flash_device(flash)->type->state(flash_device(flash), stream);
        assert_false(stream_check(stream, NULL));
        stream_destroy(stream);
    }
    stream_destroy(saved);
}

/* A state whose contents the file cannot take. */
static void state_needs_its_file(void **state)
{
    make_file(SECTOR);
    assert_non_null(create_flash(path, false, NULL));
    program(0, 0x01000001);
    struct stream *saved = stream_create_saving();
    flash_device(flash)->type->state(flash_device(flash), saved);
    remove_flash();

    size_t size;
    const void *data = stream_data(saved, &size);
    struct stream *stream = stream_create_loading(data, size);
    assert_non_null(create_flash(path, true, NULL)); /* has it already */
    flash_device(flash)->type->state(flash_device(flash), stream);
    assert_true(stream_check(stream, NULL));
    stream_destroy(stream);
    remove_flash();

    unlink(path);
    make_file(SECTOR);
    stream = stream_create_loading(data, size);
    assert_non_null(create_flash(path, true, NULL));
    flash_device(flash)->type->state(flash_device(flash), stream);
    assert_false(stream_check(stream, NULL));
    stream_destroy(stream);
    remove_flash();
    unlink(path);
    stream_destroy(saved);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(starts_erased),
        TEST(answers_the_query),
        TEST(programs_and_erases),
        TEST(programs_narrow),
        TEST(programs_by_buffer),
        TEST(refuses_wrong_sequences),
        TEST(locks_sectors),
        TEST(resets),
        TEST(state_mid_write),
        cmocka_unit_test(file_keeps_contents),
        cmocka_unit_test(file_read_only),
        cmocka_unit_test(file_is_locked),
        cmocka_unit_test(file_errors),
        cmocka_unit_test(state_needs_its_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
