/* Configuration space: values, lists of capabilities that are hostile, decoding. */
#include "recorded_machine.h"

#include <json-c/json.h>

#include "base/bits.h"

static struct config_space space;

/* A space with a list of standard capabilities that begins at 0x40. */
static void set_up_space(size_t size)
{
    memset(&space, 0, sizeof(space));
    space.size = size;
    space.bytes[0x06] = 0x10;
    space.bytes[0x34] = 0x40;
}

static void put16(unsigned offset, unsigned value)
{
    store_le16(space.bytes + offset, (uint16_t)value);
}

static void put32(unsigned offset, uint32_t value)
{
    store_le32(space.bytes + offset, value);
}

static unsigned walk(struct config_capability *list)
{
    return config_space_capabilities(&space, list);
}

static char *text_of(unsigned flags)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    config_space_print(&space, out, flags);
    fclose(out);
    return text;
}

static void test_values(void **state)
{
    uint8_t byte;
    uint16_t half;
    uint32_t word;
    set_up_space(64);
    put32(0x3c, 0x04030201);
    assert_true(config_space_u32(&space, 0x3c, &word));
    assert_int_equal(word, 0x04030201);
    assert_false(config_space_u32(&space, 0x3d, &word));
    assert_int_equal(word, 0);
    assert_false(config_space_u16(&space, 0x3f, &half));
    assert_true(config_space_u8(&space, 0x3f, &byte));
    assert_int_equal(byte, 4);
    assert_false(config_space_u8(&space, 64, &byte));
    assert_false(config_space_u32(&space, UINT32_MAX - 1, &word));
}

static void test_lists(void **state)
{
    struct config_capability list[CONFIG_SPACE_MAX_CAPABILITIES], found;
    set_up_space(4096);
    put16(0x40, 0x6001); /* power management, next 0x60 */
    put16(0x60, 0x8005); /* MSI */
    put16(0x80, 0x0010); /* PCI Express */
    put32(0x100, 0x14020001);
    put32(0x140, 0x00010010);
    assert_int_equal(walk(list), 5);
    assert_int_equal(list[1].id, 5);
    assert_int_equal(list[1].offset, 0x60);
    assert_true(list[3].extended);
    assert_int_equal(list[3].version, 2);
    assert_string_equal(config_capability_name(&list[4]), "SR-IOV");
    assert_true(config_space_find(&space, true, 0x10, &found));
    assert_int_equal(found.offset, 0x140);
    assert_false(config_space_find(&space, false, 0x11, &found));
    /* 64 bytes, as they are shown to others than root: a list that is not known. */
    space.size = 64;
    assert_int_equal(walk(list), 0);
    space.size = 0x61;
    assert_int_equal(walk(list), 1);
}

static void test_hostile_lists(void **state)
{
    struct config_capability list[CONFIG_SPACE_MAX_CAPABILITIES];
    set_up_space(4096);
    put16(0x40, 0x4001); /* itself */
    put32(0x100, 0x10010001);
    assert_int_equal(walk(list), 2);
    put16(0x40, 0x5001); /* a ring of two */
    put16(0x50, 0x4005);
    assert_int_equal(walk(list), 3);
    put16(0x50, 0x1005); /* into the header */
    assert_int_equal(walk(list), 3);
    put32(0x100, 0x04010001);
    assert_int_equal(walk(list), 3);
    put32(0x100, 0xffc10001); /* the last word */
    put32(0xffc, 0xfff10002);
    assert_int_equal(walk(list), 4);
    put32(0x100, UINT32_MAX); /* a device that is gone */
    assert_int_equal(walk(list), 2);
    memset(space.bytes, 0xff, sizeof(space.bytes));
    assert_int_equal(walk(list), 0);
    /* More than there is room for: each word of the space. */
    set_up_space(4096);
    for (unsigned offset = 0x100; offset < 0x1000; offset += 4)
        put32(offset, (offset + 4) << 20 | 0x10001);
    assert_int_equal(walk(list), CONFIG_SPACE_MAX_CAPABILITIES);
    /* CardBus bridges have the list elsewhere; unknown header types like devices. */
    set_up_space(256);
    space.bytes[0x0e] = 0x82;
    space.bytes[0x14] = 0x80;
    put16(0x80, 0x0001);
    assert_int_equal(walk(list), 1);
    assert_int_equal(list[0].offset, 0x80);
}

/* Every capability at the end of the space, where its registers are missing. */
static void test_truncated(void **state)
{
    for (unsigned id = 1; id < 0x40; id++) {
        for (unsigned cut = 4; cut < 64; cut += 4) {
            set_up_space(4096);
            memset(space.bytes + 0x100, 0xff, 0xf00);
            put32(0x100, (0x1000 - cut) << 20 | 0x10001);
            put32(0x1000 - cut, id | 0x10000);
            put16(0x40, 0xe000 | id);
            put16(0xe0, id);
            free(text_of(0));
            free(text_of(PASSTHROUGH_PRINT_JSON));
        }
    }
}

static void test_decoding(void **state)
{
    set_up_space(4096);
    put16(0x40, 0x5005); /* MSI: 8 vectors, 4 used, 64-bit, on */
    put16(0x42, 0x00a7);
    put16(0x50, 0x0011); /* MSI-X: 33 vectors, table in BAR 4, PBA in BAR 4 */
    put16(0x52, 0x8020);
    put32(0x54, 0x2004);
    put32(0x58, 0x3004);
    put32(0x100, 0x14010010); /* SR-IOV */
    put16(0x108, 1);
    put16(0x10e, 64);
    put16(0x110, 4);
    put32(0x140, 0x18010018); /* LTR: 3 * 32^3 ns */
    put16(0x144, 0x0c03);
    put32(0x180, 0x0001000d); /* ACS */
    put16(0x184, 0x005d);
    char *text = text_of(PASSTHROUGH_PRINT_WIDTH(200));
    assert_has(text, "enabled, vectors 8, vectors in use 4, 64 bit");
    assert_has(text, "vectors 33, table bar 4, table offset 0x2000, pba bar 4, pba offset 0x3000");
    assert_has(text, "total 64 functions, present 4 functions");
    assert_has(text, "max snoop 98304 ns");
    assert_has(text, "request redirect, completion redirect, upstream forward, direct translated");
    free(text);
    text = text_of(PASSTHROUGH_PRINT_JSON);
    assert_has(text, "\"table_offset\": \"0x2000\"");
    assert_has(text, "\"vectors\": 33");
    assert_has(text, "\"name\": \"access control services\"");
    struct json_object *object = json_tokener_parse(text);
    assert_non_null(object);
    json_object_put(object);
    free(text);
}

static void test_product_data(void **state)
{
    static const uint8_t data[] = {
        0x82, 4,    0, 'C', 'a',  'r', 'd',                 /* the name */
        0x01, 0xff,                                         /* a small tag of another kind */
        0x90, 14,   0, 'P', 'N',  3,   '1', '-', '2',       /* part number */
        'S',  'N',  5, 'a', 0x1b, 'b', ' ', ' ',            /* serial number */
        0x91, 8,    0, 'V', '0',  1,   'x', 'R', 'W', 1, 0, /* vendor's, and room */
        0x78,
    };
    struct product_field list[PRODUCT_DATA_MAX_FIELDS];
    assert_int_equal(product_data_fields(data, sizeof(data), list), 4);
    assert_string_equal(list[0].keyword, "ID");
    assert_string_equal(list[0].text, "Card");
    assert_string_equal(list[1].text, "1-2");
    assert_string_equal(product_field_name(&list[2]), "serial number");
    assert_string_equal(list[2].text, "a?b");
    assert_string_equal(list[3].keyword, "V0");
    assert_null(product_field_name(&list[3]));
    /* Cut anywhere, and with lengths that do not fit. */
    for (size_t size = 0; size < sizeof(data); size++) {
        uint8_t *copy = xmalloc(size + 1);
        memcpy(copy, data, size);
        assert_true(product_data_fields(copy, size, list) <= 4);
        free(copy);
    }
    uint8_t many[3 + 200 * 4] = {0x90, 0x20, 0x03};
    for (size_t i = 0; i < 200; i++)
        memcpy(many + 3 + 4 * i, "AB\1x", 4);
    assert_int_equal(product_data_fields(many, sizeof(many), list), PRODUCT_DATA_MAX_FIELDS);
}

static void test_read_and_write(void **state)
{
    struct machine_fixture fixture = fixture_open("server", (struct passthrough_config){0});
    struct passthrough_device *gpu = fixture_device(&fixture, "17:00.0");
    struct config_capability found;
    struct error err;
    uint16_t value;
    size_t got;
    assert_true(config_space_read(&space, gpu, &err));
    assert_int_equal(space.size, 4096);
    assert_true(config_space_find(&space, true, 0x15, &found));
    char *text = text_of(PASSTHROUGH_PRINT_WIDTH(200));
    assert_has(text, "bar 1 65536 MiB, bar 1 min 256 MiB, bar 1 max 65536 MiB");
    assert_has(text, "function level reset");
    assert_has(text, "link speed 2.5 GT/s, link width 16 lanes, max link speed 16 GT/s");
    free(text);

    value = 0x0406;
    assert_true(passthrough_config_write(gpu, 4, &value, 2, &err));
    value = 0;
    assert_true(passthrough_config_read(gpu, 4, &value, 2, &got, &err));
    assert_int_equal(value, 0x0406);
    uint32_t word;
    assert_true(passthrough_config_set(gpu, 6, 2, 0x0010, &err));
    assert_true(passthrough_config_get(gpu, 4, 4, &word, &err));
    assert_int_equal(word, 0x00100406);
    assert_true(passthrough_config_get(gpu, 5, 1, &word, &err));
    assert_int_equal(word, 0x04);
    assert_false(passthrough_config_get(gpu, 4094, 4, &word, &err));
    assert_int_equal(word, 0);
    fixture_add(&fixture, "config 67:00.0 0 4d 14 0a a8");
    struct passthrough_device *drive = fixture_device(&fixture, "67:00.0");
    assert_true(passthrough_config_get(drive, 0, 4, &word, &err));
    assert_int_equal(word, 0xa80a144d);
    assert_false(passthrough_config_get(drive, 2, 4, &word, &err));
    assert_has(err.message, "register 0x2 of 0000:67:00.0");
    gpu = fixture_device(&fixture, "17:00.0");
    assert_false(passthrough_config_read(gpu, 4095, &value, 2, &got, &err));
    assert_false(passthrough_config_write(gpu, UINT32_MAX, &value, 2, &err));
    assert_has(err.message, "0000:17:00.0");
    assert_false(config_space_read(&space, fixture_device(&fixture, "18:00.0"), &err));
    assert_has(err.message, "0000:18:00.0/config");
    fixture_close(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),         cmocka_unit_test(test_lists),
        cmocka_unit_test(test_hostile_lists),  cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_decoding),       cmocka_unit_test(test_product_data),
        cmocka_unit_test(test_read_and_write),
    };
    return cmocka_run_group_tests_name("passthrough_config", tests, NULL, NULL);
}
