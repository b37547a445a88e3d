/* Keys by name and by keysym, and what goes to which input device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "display/display.h"
#include "input_bench.h"

/* Some of each kind. */
static const struct {
    const char *name;
    uint16_t code;
} names[] = {
    {"a", KEY_A},
    {"z", KEY_Z},
    {"0", KEY_0},
    {"ret", KEY_ENTER},
    {"spc", KEY_SPACE},
    {"esc", KEY_ESC},
    {"ctrl", KEY_LEFTCTRL},
    {"ctrl_r", KEY_RIGHTCTRL},
    {"shift", KEY_LEFTSHIFT},
    {"shift_r", KEY_RIGHTSHIFT},
    {"alt", KEY_LEFTALT},
    {"alt_r", KEY_RIGHTALT},
    {"meta_l", KEY_LEFTMETA},
    {"bracket_left", KEY_LEFTBRACE},
    {"grave_accent", KEY_GRAVE},
    {"less", KEY_102ND},
    {"asterisk", KEY_KPASTERISK},
    {"kp_multiply", KEY_KPASTERISK},
    {"kp_0", KEY_KP0},
    {"kp_decimal", KEY_KPDOT},
    {"kp_comma", KEY_KPCOMMA},
    {"sysrq", KEY_SYSRQ},
    {"print", KEY_SYSRQ},
    {"f1", KEY_F1},
    {"f12", KEY_F12},
    {"f24", KEY_F24},
    {"henkan", KEY_HENKAN},
    {"lang1", KEY_HANGEUL},
    {"ac_bookmarks", KEY_BOOKMARKS},
    {"audionext", KEY_NEXTSONG},
    {"volumeup", KEY_VOLUMEUP},
    {"power", KEY_POWER},
    {"KEY_A", KEY_A},
    {"KEY_ENTER", KEY_ENTER},
    {"KEY_KP7", KEY_KP7},
};

static void test_names(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (key_by_name(names[i].name) != names[i].code)
            fail_msg("%s is %u, not %u", names[i].name, key_by_name(names[i].name), names[i].code);
    static const char *const none[] = {"", "A", "key_a", "KEY_", "KEY_NOTHING", "ret ", "unmapped"};
    for (size_t i = 0; i < ARRAY_SIZE(none); i++)
        assert_int_equal(key_by_name(none[i]), 0);
}

static void test_keysyms(void **state)
{
    static const struct {
        uint32_t keysym;
        uint16_t code;
        bool shift;
    } cases[] = {
        {'a', KEY_A, false},
        {'A', KEY_A, true},
        {'1', KEY_1, false},
        {'!', KEY_1, true},
        {'"', KEY_APOSTROPHE, true},
        {'~', KEY_GRAVE, true},
        {'|', KEY_BACKSLASH, true},
        {' ', KEY_SPACE, false},
        {0xff0d, KEY_ENTER, false},
        {0xff8d, KEY_KPENTER, false},
        {0xffb0, KEY_KP0, false},
        {0xffe1, KEY_LEFTSHIFT, false},
        {0xfe03, KEY_RIGHTALT, false},
        {0xffff, KEY_DELETE, false},
        {0xffc9, KEY_F12, false},
        {0x1008ff13, KEY_VOLUMEUP, false},
        {0, 0, false},
        {0xffffffff, 0, false},
        {0xe4, 0, false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        bool shift = true;
        assert_int_equal(key_by_keysym(cases[i].keysym, &shift), cases[i].code);
        assert_int_equal(shift, cases[i].shift);
    }
    /* All of ASCII can be typed. */
    for (uint32_t keysym = ' '; keysym < 0x7f; keysym++) {
        bool shift;
        assert_int_not_equal(key_by_keysym(keysym, &shift), 0);
    }
}

/* --- Devices --- */

struct screen {
    struct input_bench *keyboard, *tablet, *mouse;
    struct display_devices devices;
};

static int setup(void **state)
{
    struct screen *screen = xcalloc(1, sizeof(*screen));
    screen->keyboard = input_bench_create(input_keyboard_create);
    screen->tablet = input_bench_create(input_tablet_create);
    screen->mouse = input_bench_create(input_mouse_create);
    input_bench_offer(screen->keyboard, 64);
    input_bench_offer(screen->tablet, 64);
    input_bench_offer(screen->mouse, 64);
    screen->devices.keyboard = screen->keyboard->device;
    screen->devices.tablet = screen->tablet->device;
    screen->devices.mouse = screen->mouse->device;
    *state = screen;
    return 0;
}

static int teardown(void **state)
{
    struct screen *screen = *state;
    input_bench_destroy(screen->keyboard);
    input_bench_destroy(screen->tablet);
    input_bench_destroy(screen->mouse);
    free(screen);
    return 0;
}

#define GOT(bench, text) assert_string_equal(input_bench_take(bench), text)

static void test_pointer(void **state)
{
    struct screen *screen = *state;
    const struct display_devices *devices = &screen->devices;
    static const struct {
        uint32_t x, width;
    } places[] = {{0, 1}, {0, 640}, {639, 640}, {1919, 1920}, {16383, 16384}, {5000, 640}};
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        assert_true(input_pointer(devices, places[i].x, 0, places[i].width, 1));
        input_bench_take(screen->tablet);
        assert_int_equal(screen->tablet->taken, 3);
        /* The guest, which scales it back, comes out at the same pixel. */
        int64_t value = screen->tablet->events[0].value;
        assert_in_range(value, 0, 32767);
        uint32_t at = places[i].x < places[i].width ? places[i].x : places[i].width - 1;
        assert_int_equal(value * places[i].width / 32768, at);
    }
    input_bench_offer(screen->tablet, 64);
    assert_false(input_pointer(devices, 0, 0, 0, 10));
    assert_false(input_pointer(devices, 0, 0, 10, 0));
    GOT(screen->tablet, "");
    GOT(screen->mouse, "");
}

static void test_routes(void **state)
{
    struct screen *screen = *state;
    struct display_devices devices = screen->devices;
    assert_true(input_key(&devices, KEY_A, true));
    assert_true(input_key(&devices, KEY_A, false));
    GOT(screen->keyboard, "1.30=1 | 1.30=0 | ");
    assert_true(input_button(&devices, BTN_LEFT, true, false));
    assert_true(input_button(&devices, BTN_RIGHT, true, true));
    assert_true(input_wheel(&devices, 2, -1));
    assert_true(input_motion(&devices, -3, 4));
    assert_false(input_wheel(&devices, 0, 0));
    GOT(screen->tablet, "1.272=1 | 2.8=2 2.6=-1 | ");
    GOT(screen->mouse, "1.273=1 | 2.0=-3 2.1=4 | ");
    /* Without a tablet the mouse gets it; without either nobody. */
    devices.tablet = NULL;
    assert_true(input_button(&devices, BTN_LEFT, true, false));
    assert_true(input_wheel(&devices, -1, 0));
    assert_false(input_pointer(&devices, 1, 1, 10, 10));
    GOT(screen->mouse, "1.272=1 | 2.8=-1 | ");
    devices.mouse = devices.keyboard = NULL;
    assert_false(input_button(&devices, BTN_LEFT, false, false));
    assert_false(input_motion(&devices, 1, 1));
    assert_false(input_wheel(&devices, 1, 1));
    assert_false(input_key(&devices, KEY_A, true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_keysyms),
        cmocka_unit_test_setup_teardown(test_pointer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_routes, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
