/* virtio-input: what a device says it has, and that every key that goes down comes up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <linux/input-event-codes.h>

#include "display/display.h"
#include "input_bench.h"

static struct input_bench *bench;

static int setup(void **state)
{
    return 0;
}

static int teardown(void **state)
{
    if (bench)
        input_bench_destroy(bench);
    bench = NULL;
    return 0;
}

/* --- Configuration --- */

/* Selects, and returns the size; the data is in `data`. */
static uint8_t data[128];

static unsigned select_config(uint8_t select, uint8_t subselect)
{
    uint64_t config = DRIVER_SLOT + MMIO_CONFIG, value;
    assert_true(memory_write(bench->memory, config, 1, select));
    assert_true(memory_write(bench->memory, config + 1, 1, subselect));
    for (unsigned i = 0; i < sizeof(data); i++) {
        assert_true(memory_read(bench->memory, config + 8 + i, 1, &value));
        data[i] = (uint8_t)value;
    }
    assert_true(memory_read(bench->memory, config + 2, 1, &value));
    return (unsigned)value;
}

static bool has(unsigned bit)
{
    return data[bit / 8] >> bit % 8 & 1;
}

static void test_keyboard(void **state)
{
    bench = input_bench_create(input_keyboard_create);
    assert_int_equal(select_config(1, 0), strlen("hartvisor Keyboard"));
    assert_memory_equal(data, "hartvisor Keyboard", strlen("hartvisor Keyboard"));
    assert_int_equal(select_config(2, 0), strlen("keyboard0"));
    assert_int_equal(select_config(3, 0), 8);
    assert_int_equal(data[0] | data[1] << 8, 6);
    assert_int_equal(select_config(0x11, EV_KEY), 32);
    assert_false(has(0));
    assert_true(has(KEY_ESC) && has(KEY_A) && has(KEY_MICMUTE));
    assert_false(has(KEY_MICMUTE + 1));
    assert_int_equal(select_config(0x11, EV_REP), 1);
    assert_int_equal(data[0], 3);
    assert_int_equal(select_config(0x10, 0), 0);
    assert_int_equal(select_config(0x11, EV_REL), 0);
    assert_int_equal(select_config(0x11, EV_ABS), 0);
    assert_int_equal(select_config(0x12, ABS_X), 0);
}

static void test_tablet(void **state)
{
    bench = input_bench_create(input_tablet_create);
    assert_int_equal(select_config(0x11, EV_ABS), 1);
    assert_int_equal(data[0], 3);
    for (unsigned axis = ABS_X; axis <= ABS_Y; axis++) {
        assert_int_equal(select_config(0x12, axis), 20);
        assert_int_equal(load_le32(data), 0);
        assert_int_equal(load_le32(data + 4), 32767);
        for (unsigned i = 8; i < 20; i++)
            assert_int_equal(data[i], 0);
    }
    assert_int_equal(select_config(0x12, ABS_Z), 0);
    assert_int_equal(select_config(0x10, 0), 1);
    assert_int_equal(data[0], 1 << INPUT_PROP_DIRECT);
    select_config(0x11, EV_KEY);
    assert_true(has(BTN_LEFT) && has(BTN_RIGHT) && has(BTN_MIDDLE) && has(BTN_EXTRA));
    assert_false(has(KEY_A) || has(BTN_TOUCH));
    select_config(0x11, EV_REL);
    assert_true(has(REL_WHEEL) && has(REL_HWHEEL) && !has(REL_X));
    assert_int_equal(select_config(0x11, EV_REP), 0);
}

static void test_mouse(void **state)
{
    bench = input_bench_create(input_mouse_create);
    select_config(0x11, EV_REL);
    assert_true(has(REL_X) && has(REL_Y) && has(REL_WHEEL) && has(REL_HWHEEL));
    select_config(0x10, 0);
    assert_int_equal(data[0], 1 << INPUT_PROP_POINTER);
    assert_int_equal(select_config(0x11, EV_ABS), 0);
}

/* Whatever is selected: at most 128 bytes, and nothing of what was selected before. */
static void test_any_selection(void **state)
{
    bench = input_bench_create(input_tablet_create);
    for (unsigned select = 0; select < 256; select++) {
        for (unsigned subselect = 0; subselect < 256; subselect++) {
            select_config(1, 0);
            unsigned size = select_config((uint8_t)select, (uint8_t)subselect);
            assert_in_range(size, 0, 128);
            for (unsigned i = size; i < sizeof(data); i++)
                assert_int_equal(data[i], 0);
        }
    }
}

/* --- Events --- */

static bool send(unsigned count, const struct virtio_input_event *events)
{
    return virtio_input_send(bench->device, events, count);
}

#define SEND(...)                                                                                  \
    send(sizeof((struct virtio_input_event[]){__VA_ARGS__}) / sizeof(struct virtio_input_event),   \
         (struct virtio_input_event[]){__VA_ARGS__})
#define KEY(code, down) {EV_KEY, code, down}
#define GOT(text)       assert_string_equal(input_bench_take(bench), text)

static void test_groups(void **state)
{
    bench = input_bench_create(input_tablet_create);
    input_bench_offer(bench, 8);
    assert_true(SEND({EV_ABS, ABS_X, 5}, {EV_ABS, ABS_Y, 32767}));
    GOT("3.0=5 3.1=32767 | ");
    assert_true(SEND({EV_REL, REL_WHEEL, -1}));
    GOT("2.8=-1 | ");
    /* What the device has not, or a guest could not tell from nothing, is left out. */
    assert_true(SEND(KEY(KEY_A, 1)));
    assert_true(SEND({EV_REL, REL_X, 1}));
    assert_true(SEND({EV_SYN, SYN_REPORT, 0}, {EV_LED, 0, 1}));
    assert_true(SEND({0xffff, 0xffff, -1}, {EV_KEY, 0xffff, 1}));
    assert_true(SEND(KEY(BTN_LEFT, 0)));
    GOT("");
    assert_true(SEND({EV_ABS, ABS_Z, 1}, KEY(BTN_LEFT, 1)));
    GOT("1.272=1 | ");
    assert_true(SEND(KEY(BTN_LEFT, 1)));
    GOT("");
}

/* A group may change a key more than once. */
static void test_key_twice_in_a_group(void **state)
{
    bench = input_bench_create(input_keyboard_create);
    input_bench_offer(bench, 32);
    assert_true(SEND(KEY(KEY_A, 1), KEY(KEY_A, 0)));
    GOT("1.30=1 1.30=0 | ");
    assert_true(SEND(KEY(KEY_A, 1), KEY(KEY_A, 1)));
    GOT("1.30=1 | ");
    assert_true(SEND(KEY(KEY_A, 0), KEY(KEY_A, 0)));
    GOT("1.30=0 | ");
    assert_true(SEND(KEY(KEY_A, 0)));
    GOT("");
    assert_true(virtio_input_press(bench->device, KEY_B));
    GOT("1.48=1 | 1.48=0 | ");
}

static void test_no_listener(void **state)
{
    bench = input_bench_create(input_keyboard_create);
    driver_write(&bench->driver, MMIO_STATUS, 0);
    assert_false(SEND(KEY(KEY_A, 1)));
    assert_false(virtio_input_press(bench->device, KEY_A));
    input_bench_start(bench);
    input_bench_offer(bench, 8);
    GOT("");
    /* A reset with a key down: the guest begins with none. */
    assert_true(SEND(KEY(KEY_A, 1)));
    GOT("1.30=1 | ");
    driver_write(&bench->driver, MMIO_STATUS, 0);
    assert_false(SEND(KEY(KEY_A, 0)));
    input_bench_start(bench);
    input_bench_offer(bench, 8);
    assert_true(SEND(KEY(KEY_A, 0)));
    GOT("");
    assert_true(SEND(KEY(KEY_A, 1)));
    GOT("1.30=1 | ");
}

/* A guest that reads nothing: the backlog ends, and the keys that are down come up nonetheless. */
static void test_backlog(void **state)
{
    bench = input_bench_create(input_keyboard_create);
    unsigned down = 0;
    while (SEND(KEY((uint16_t)(KEY_ESC + down), 1)))
        down++;
    assert_in_range(down, 32, 128);
    assert_false(SEND(KEY(KEY_MICMUTE, 1)));
    for (unsigned i = 0; i < down; i++)
        assert_true(SEND(KEY((uint16_t)(KEY_ESC + i), 0)));
    /* Each came and went once, whatever is taken when. */
    int keys[KEY_CNT] = {0};
    unsigned reports = 0;
    for (unsigned i = 0; i < 40; i++) {
        input_bench_offer(bench, 1 + i % 30);
        input_bench_take(bench);
        for (unsigned j = 0; j < bench->taken; j++) {
            const struct virtio_input_event *event = &bench->events[j];
            reports += event->type == EV_SYN;
            if (event->type == EV_KEY) {
                keys[event->code] += event->value ? 1 : -1;
                assert_in_range(keys[event->code], 0, 1);
            }
        }
    }
    assert_int_equal(reports, 2 * down);
    for (unsigned i = 0; i < KEY_CNT; i++)
        assert_int_equal(keys[i], 0);
    input_bench_offer(bench, 8);
    assert_true(virtio_input_press(bench->device, KEY_A));
    GOT("1.30=1 | 1.30=0 | ");
}

/* A release that comes with what has no room is sent alone. */
static void test_release_among_others(void **state)
{
    bench = input_bench_create(input_mouse_create);
    assert_true(SEND(KEY(BTN_LEFT, 1)));
    assert_true(SEND(KEY(BTN_RIGHT, 1)));
    while (SEND({EV_REL, REL_X, 1}))
        ;
    assert_false(
        SEND(KEY(BTN_LEFT, 0), {EV_REL, REL_X, 100}, KEY(BTN_RIGHT, 0), KEY(BTN_MIDDLE, 1)));
    assert_true(SEND(KEY(BTN_RIGHT, 0)));
    char last[64] = "";
    for (unsigned i = 0; i < 40; i++) {
        input_bench_offer(bench, 16);
        const char *text = input_bench_take(bench);
        assert_null(strstr(text, "=100"));
        if (strstr(text, "1."))
            snprintf(last, sizeof(last), "%s", strstr(text, "1."));
    }
    assert_string_equal(last, "1.272=0 1.273=0 | ");
}

/* Buffers that are short, or not the device's to write. */
static void test_bad_buffers(void **state)
{
    bench = input_bench_create(input_keyboard_create);
    const struct driver_desc small = {DRIVER_BUFFERS, 3, DESC_WRITE, 0},
                             readable = {DRIVER_BUFFERS, 8, 0, 0};
    uint32_t head, size;
    assert_true(SEND(KEY(KEY_A, 1)));
    driver_offer_chain(&bench->driver, 0, 0, &small, 1);
    driver_offer_chain(&bench->driver, 0, 1, &readable, 1);
    driver_notify(&bench->driver, 0);
    input_bench_turn(bench);
    assert_true(driver_take(&bench->driver, 0, &head, &size));
    assert_in_range(size, 0, 3);
    assert_true(driver_take(&bench->driver, 0, &head, &size));
    assert_int_equal(size, 0);
}

/* LEDs come back at once. */
static void test_status_queue(void **state)
{
    bench = input_bench_create(input_keyboard_create);
    const struct driver_desc led = {DRIVER_BUFFERS, 8, 0, 0};
    uint32_t head, size;
    driver_offer_chain(&bench->driver, 1, 3, &led, 1);
    driver_notify(&bench->driver, 1);
    input_bench_turn(bench);
    assert_true(driver_take(&bench->driver, 1, &head, &size));
    assert_int_equal(head, 3);
    assert_int_equal(size, 0);
}

/* --- State --- */

static void load(const void *bytes, size_t size, bool sane)
{
    struct stream *stream = stream_create_loading(bytes, size);
    bench->device->base.type->state(&bench->device->base, stream);
    assert_int_equal(stream_check(stream, NULL), sane);
    stream_destroy(stream);
}

static struct stream *save(void)
{
    struct stream *stream = stream_create_saving();
    bench->device->base.type->state(&bench->device->base, stream);
    assert_true(stream_check(stream, NULL));
    return stream;
}

static void test_state(void **state)
{
    bench = input_bench_create(input_keyboard_create);
    size_t size;
    assert_true(SEND(KEY(KEY_A, 1)));
    assert_true(SEND(KEY(KEY_B, 1)));
    struct stream *saved = save();
    const void *bytes = stream_data(saved, &size);
    assert_true(SEND(KEY(KEY_B, 0)));
    assert_true(SEND(KEY(KEY_C, 1)));
    load(bytes, size, true);
    stream_destroy(saved);
    input_bench_offer(bench, 16);
    GOT("1.30=1 | 1.48=1 | ");
    assert_true(SEND(KEY(KEY_B, 0), KEY(KEY_C, 0)));
    GOT("1.48=0 | ");
}

/* Each byte of a state changed: it is refused, or the device goes on within its bounds. */
static void test_hostile_state(void **state)
{
    bench = input_bench_create(input_keyboard_create);
    size_t size;
    assert_true(SEND(KEY(KEY_A, 1)));
    struct stream *saved = save();
    const uint8_t *bytes = stream_data(saved, &size);
    uint8_t *copy = xmalloc(size);
    unsigned refused = 0;
    for (size_t i = 0; i < size; i++) {
        memcpy(copy, bytes, size);
        copy[i] ^= 0xff;
        struct stream *stream = stream_create_loading(copy, size);
        bench->device->base.type->state(&bench->device->base, stream);
        refused += stream_failed(stream);
        stream_destroy(stream);
        for (uint16_t key = 0; key < 260; key++)
            SEND(KEY(key, 0));
        for (uint16_t key = 0; key < 260; key++)
            SEND(KEY(key, 1));
    }
    assert_true(refused > 0);
    for (size_t length = 0; length < size; length += 7)
        load(bytes, length, false);
    load(bytes, size, true);
    free(copy);
    stream_destroy(saved);
}

/* Keys down whose releases would not fit behind the events that wait. */
static void test_state_without_room(void **state)
{
    bench = input_bench_create(input_mouse_create);
    size_t size;
    assert_true(SEND(KEY(BTN_LEFT, 1)));
    while (SEND({EV_REL, REL_X, 1}))
        ;
    struct stream *saved = save();
    const uint8_t *bytes = stream_data(saved, &size);
    uint8_t *copy = xmalloc(size);
    memcpy(copy, bytes, size);
    /* The bitmap of keys is the one place with a lone bit of BTN_LEFT's in it. */
    size_t at = 0;
    for (size_t i = BTN_LEFT / 8; i + 128 - BTN_LEFT / 8 <= size; i++)
        if (copy[i] == 1 << BTN_LEFT % 8)
            at = i;
    copy[at] |= 0x1f;
    load(copy, size, false);
    for (uint16_t button = BTN_LEFT; button <= BTN_EXTRA; button++)
        SEND(KEY(button, 0));
    free(copy);
    stream_destroy(saved);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_keyboard),
        T(test_tablet),
        T(test_mouse),
        T(test_any_selection),
        T(test_groups),
        T(test_key_twice_in_a_group),
        T(test_no_listener),
        T(test_backlog),
        T(test_release_among_others),
        T(test_bad_buffers),
        T(test_status_queue),
        T(test_state),
        T(test_hostile_state),
        T(test_state_without_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
