/* fw_cfg as firmware reads it: by the data register and by DMA. */
#include <endian.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "base/base.h"
#include "device/device.h"

#define BASE UINT64_C(0x10100000)
#define RAM  UINT64_C(0x80000000)

enum { RAM_SIZE = 1 << 20, DESCRIPTOR = 0x100 };
enum { ERROR = 1, READ = 2, SKIP = 4, SELECT = 8, WRITE = 16 };

static struct memory *memory;
static struct fw_cfg *fw_cfg;

static void add(const char *name, const char *text)
{
    struct error err = {0};
    if (!fw_cfg_add_file(fw_cfg, name, text, strlen(text), &err))
        fail_msg("%s", err.message);
}

static int setup(void **state)
{
    memory = memory_create();
    fw_cfg = fw_cfg_create("fw_cfg", &(struct fw_cfg_config){.memory = memory});
    assert_true(memory_add_ram(memory, RAM, RAM_SIZE, NULL));
    assert_true(memory_add_mmio(memory, BASE, FW_CFG_SIZE, &fw_cfg_ops, fw_cfg, "fw_cfg", NULL));
    add("opt/org.test/two", "second");
    add("bootorder", "x");
    add("etc/a", "0123456789");
    add("opt/org.test/one", "");
    return 0;
}

static int teardown(void **state)
{
    fw_cfg_device(fw_cfg)->type->remove(fw_cfg_device(fw_cfg));
    memory_destroy(memory);
    return 0;
}

static void put(uint64_t offset, unsigned size, uint64_t value)
{
    assert_true(memory_write(memory, BASE + offset, size, value));
}

static uint64_t get(uint64_t offset, unsigned size)
{
    uint64_t value;
    assert_true(memory_read(memory, BASE + offset, size, &value));
    return value;
}

static void select_item(uint16_t key)
{
    put(8, 2, htobe16(key));
}

static void read_bytes(void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)bytes)[i] = (uint8_t)get(0, 1);
}

struct entry {
    uint32_t size;
    uint16_t key, reserved;
    char name[56];
};

static void signature_and_id(void **state)
{
    char text[5] = {0};
    select_item(FW_CFG_SIGNATURE);
    read_bytes(text, 4);
    assert_string_equal(text, "QEMU");
    assert_int_equal(get(0, 1), 0); /* behind the end */

    select_item(FW_CFG_SIGNATURE);
    uint64_t value = get(0, 4); /* in memory order at any width */
    assert_memory_equal(&value, "QEMU", 4);
    select_item(FW_CFG_ID);
    assert_int_equal(get(0, 4), 3);

    value = get(16, 8);
    assert_memory_equal(&value, "QEMU CFG", 8);
    value = get(20, 4);
    assert_memory_equal(&value, " CFG", 4);
    assert_int_equal(get(8, 2), 0);
}

static void directory_is_sorted(void **state)
{
    static const struct {
        const char *name, *text;
    } expected[] = {
        {"bootorder", "x"},
        {"etc/a", "0123456789"},
        {"opt/org.test/one", ""},
        {"opt/org.test/two", "second"},
    };
    uint32_t count;
    struct entry entries[ARRAY_SIZE(expected)];

    select_item(FW_CFG_FILE_DIR);
    read_bytes(&count, sizeof(count));
    assert_int_equal(be32toh(count), ARRAY_SIZE(expected));
    read_bytes(entries, sizeof(entries));
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        char text[32] = {0};
        assert_string_equal(entries[i].name, expected[i].name);
        assert_int_equal(be32toh(entries[i].size), strlen(expected[i].text));
        assert_int_equal(be16toh(entries[i].key), FW_CFG_FILE_FIRST + i);
        select_item(be16toh(entries[i].key));
        read_bytes(text, sizeof(text));
        assert_string_equal(text, expected[i].text);
    }
}

static void refuses_names(void **state)
{
    struct error err = {0};
    char name[FW_CFG_NAME_MAX + 2];
    memset(name, 'n', sizeof(name));
    name[FW_CFG_NAME_MAX + 1] = 0;
    assert_false(fw_cfg_add_file(fw_cfg, name, "", 0, &err));
    assert_false(fw_cfg_add_file(fw_cfg, "", "", 0, &err));
    assert_false(fw_cfg_add_file(fw_cfg, "etc/a", "", 0, &err));
    assert_non_null(strstr(err.message, "etc/a"));
    name[FW_CFG_NAME_MAX] = 0;
    assert_true(fw_cfg_add_file(fw_cfg, name, "", 0, &err));
}

static void unknown_keys_read_as_zero(void **state)
{
    select_item(0x24);
    assert_int_equal(get(0, 8), 0);
    select_item(0xffff);
    assert_int_equal(get(0, 8), 0);
    select_item(0x02);
    assert_int_equal(get(0, 8), 0);
    put(0, 1, 'x'); /* data is read-only */
}

/* Returns the control word that the device left. */
static uint32_t dma(uint32_t control, uint32_t length, uint64_t address)
{
    struct {
        uint32_t control, length;
        uint64_t address;
    } descriptor = {htobe32(control), htobe32(length), htobe64(address)};
    assert_true(memory_dma_write(memory, RAM + DESCRIPTOR, &descriptor, sizeof(descriptor)));
    put(16, 8, htobe64(RAM + DESCRIPTOR));
    assert_true(memory_dma_read(memory, RAM + DESCRIPTOR, &descriptor, sizeof(descriptor)));
    return be32toh(descriptor.control);
}

static void check_ram(uint64_t offset, const char *text, size_t size)
{
    char bytes[64];
    assert_true(memory_dma_read(memory, RAM + offset, bytes, size));
    assert_memory_equal(bytes, text, size);
}

static void dma_reads(void **state)
{
    memory_dma_fill(memory, RAM + 0x1000, 0xee, 64);
    assert_int_equal(dma(0x21 << 16 | SELECT | READ, 4, RAM + 0x1000), 0);
    check_ram(0x1000, "0123\xee", 5);
    assert_int_equal(dma(SKIP, 3, 0), 0);
    assert_int_equal(dma(READ, 8, RAM + 0x1010), 0);
    check_ram(0x1010, "789\0\0\0\0\0\xee", 9); /* zeros behind the end */
    assert_int_equal(dma(SKIP, UINT32_MAX, 0), 0);
    assert_int_equal(dma(READ, 1, RAM + 0x1020), 0);
    check_ram(0x1020, "\0\xee", 2);
    assert_int_equal(dma(0x21 << 16 | SELECT, 0, 0), 0);
    assert_int_equal(get(0, 1), '0'); /* both ways share the position */
    assert_int_equal(dma(READ, 1, RAM + 0x1030), 0);
    check_ram(0x1030, "1\xee", 2);
}

static void dma_by_halves(void **state)
{
    struct {
        uint32_t control, length;
        uint64_t address;
    } descriptor = {htobe32(0x20 << 16 | SELECT | READ), htobe32(1), htobe64(RAM + 0x2000)};
    memory_dma_write(memory, RAM + DESCRIPTOR, &descriptor, sizeof(descriptor));
    put(16, 4, htobe32(0));
    put(20, 4, htobe32((uint32_t)RAM + DESCRIPTOR));
    check_ram(0x2000, "x", 1);
}

static void dma_stays_in_ram(void **state)
{
    uint32_t read_a = 0x21 << 16 | SELECT | READ;

    assert_int_equal(dma(read_a, 10, RAM + RAM_SIZE - 9), ERROR);
    assert_int_equal(dma(read_a, 10, RAM + RAM_SIZE - 10), 0);
    assert_int_equal(dma(read_a, 10, 0), ERROR);
    assert_int_equal(dma(read_a, 10, UINT64_MAX - 4), ERROR);
    assert_int_equal(dma(read_a, UINT32_MAX, RAM + 0x1000), ERROR);
    assert_int_equal(dma(read_a, 10, BASE), ERROR);
    assert_int_equal(dma(read_a, 0, 0), 0);
    assert_int_equal(dma(0x21 << 16 | SELECT | WRITE, 1, RAM), ERROR);
    select_item(0x21);
    assert_int_equal(get(0, 1), '0');

    put(16, 8, htobe64(RAM + RAM_SIZE - 8)); /* a descriptor half outside, and one nowhere */
    put(16, 8, htobe64(UINT64_MAX - 3));
    put(16, 8, 0);
    assert_int_equal(get(0, 1), '1');
}

static void fixed_items(void **state)
{
    uint8_t cpus[2];
    store_le16(cpus, 7);
    fw_cfg_set_item(fw_cfg, FW_CFG_CPUS, cpus, sizeof(cpus));
    select_item(FW_CFG_CPUS);
    assert_int_equal(get(0, 2), 7);
}

static void state_mid_read(void **state)
{
    select_item(0x21);
    get(0, 4);
    put(16, 4, htobe32(0));
    struct stream *saved = stream_create_saving();
    fw_cfg_device(fw_cfg)->type->state(fw_cfg_device(fw_cfg), saved);
    teardown(NULL);
    setup(NULL);
    size_t size;
    const void *data = stream_data(saved, &size);
    struct stream *stream = stream_create_loading(data, size);
    fw_cfg_device(fw_cfg)->type->state(fw_cfg_device(fw_cfg), stream);
    assert_true(stream_check(stream, NULL));
    assert_int_equal(get(0, 1), '4');
    stream_destroy(stream);

    uint8_t *bytes = xmalloc(size);
    memcpy(bytes, data, size);
    memset(bytes + size - 14, 0xff, 14); /* any key and position */
    stream = stream_create_loading(bytes, size);
    fw_cfg_device(fw_cfg)->type->state(fw_cfg_device(fw_cfg), stream);
    assert_int_equal(get(0, 8), 0);
    fw_cfg_device(fw_cfg)->type->reset(fw_cfg_device(fw_cfg));
    assert_int_equal(get(0, 1), 'Q');
    stream_destroy(stream);
    free(bytes);
    stream_destroy(saved);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(signature_and_id),          TEST(directory_is_sorted), TEST(refuses_names),
        TEST(unknown_keys_read_as_zero), TEST(dma_reads),           TEST(dma_by_halves),
        TEST(dma_stays_in_ram),          TEST(fixed_items),         TEST(state_mid_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
