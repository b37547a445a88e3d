/* The Goldfish RTC and the test finisher. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <time.h>

#include "base/base.h"
#include "device/device.h"

enum {
    TIME_LOW = 0x00,
    TIME_HIGH = 0x04,
    ALARM_LOW = 0x08,
    ALARM_HIGH = 0x0c,
    IRQ_ENABLED = 0x10,
    CLEAR_ALARM = 0x14,
    ALARM_STATUS = 0x18,
    CLEAR_INTERRUPT = 0x1c,
};

#define SECOND UINT64_C(1000000000)

static struct loop *loop;
static struct rtc *rtc;
static bool irq;

static void set_irq(void *controller, unsigned source, bool level)
{
    irq = level;
}

static int setup(void **state)
{
    irq = false;
    loop = loop_create();
    rtc = rtc_create("rtc", &(struct rtc_config){.loop = loop, .irq = {.set = set_irq}});
    return 0;
}

static int teardown(void **state)
{
    rtc_device(rtc)->type->remove(rtc_device(rtc));
    loop_destroy(loop);
    return 0;
}

static void put(uint64_t offset, uint64_t value)
{
    rtc_ops.write(rtc, offset, value & UINT32_MAX, 4);
}

static uint64_t get(uint64_t offset)
{
    return rtc_ops.read(rtc, offset, 4);
}

static uint64_t get_time(void)
{
    uint64_t low = get(TIME_LOW);
    return low | get(TIME_HIGH) << 32;
}

static void set_time(uint64_t now)
{
    put(TIME_HIGH, now >> 32);
    put(TIME_LOW, now);
}

static void set_alarm(uint64_t at)
{
    put(ALARM_HIGH, at >> 32);
    put(ALARM_LOW, at);
    put(IRQ_ENABLED, 1);
}

static void tells_the_hosts_time(void **state)
{
    uint64_t before = (uint64_t)time(NULL), now = get_time() / SECOND;
    assert_in_range(now, before, before + 5);
}

/* The high half belongs to the low half that was read last. */
static void latches_the_high_half(void **state)
{
    set_time((UINT64_C(7) << 32) - 1000);
    uint64_t low = get(TIME_LOW);
    set_time(UINT64_C(9) << 32);
    uint64_t time = low | get(TIME_HIGH) << 32;
    assert_in_range(time, (UINT64_C(7) << 32) - 1000, (UINT64_C(7) << 32) + 10 * SECOND);
    get(TIME_LOW);
    assert_int_equal(get(TIME_HIGH), 9);
}

static void is_set_by_the_guest(void **state)
{
    uint64_t then = UINT64_C(946684800) * SECOND;
    set_time(then);
    assert_in_range(get_time(), then, then + 10 * SECOND);
    rtc_device(rtc)->type->reset(rtc_device(rtc));
    assert_in_range(get_time(), then, then + 10 * SECOND); /* it has a battery */
}

static void alarm_fires(void **state)
{
    uint64_t at = get_time() + SECOND / 50;
    set_alarm(at);
    assert_int_equal(get(ALARM_STATUS), 1);
    assert_int_equal(get(ALARM_LOW) | get(ALARM_HIGH) << 32, at);
    assert_false(irq);
    while (!irq)
        loop_turn(loop, 1000);
    assert_true(get_time() >= at);
    assert_int_equal(get(ALARM_STATUS), 0);
    put(CLEAR_INTERRUPT, 1);
    assert_false(irq);

    set_alarm(get_time() - 1); /* already over */
    assert_true(irq);
    put(IRQ_ENABLED, 0);
    assert_false(irq);
    put(IRQ_ENABLED, 1);
    assert_true(irq);
    put(CLEAR_INTERRUPT, 1);

    set_alarm(get_time() + SECOND / 100);
    put(CLEAR_ALARM, 1);
    loop_turn(loop, 30);
    assert_false(irq);
}

/* Setting the time past the alarm fires it. */
static void alarm_follows_the_time(void **state)
{
    uint64_t at = get_time() + 1000 * SECOND;
    set_alarm(at);
    assert_false(irq);
    set_time(at + SECOND);
    assert_true(irq);
}

static void state_with_alarm_armed(void **state)
{
    uint64_t then = UINT64_C(86400) * SECOND;
    set_time(then);
    set_alarm(then + SECOND / 10);
    get(TIME_LOW);

    struct stream *saved = stream_create_saving();
    rtc_device(rtc)->type->state(rtc_device(rtc), saved);
    teardown(NULL);
    setup(NULL);
    size_t size;
    const void *data = stream_data(saved, &size);
    struct stream *stream = stream_create_loading(data, size);
    rtc_device(rtc)->type->state(rtc_device(rtc), stream);
    assert_true(stream_check(stream, NULL));
    stream_destroy(stream);
    stream_destroy(saved);

    assert_int_equal(get(TIME_HIGH), then >> 32);
    while (!irq)
        loop_turn(loop, 1000);
    assert_in_range(get_time(), then + SECOND / 10, then + 20 * SECOND);
}

/* Finisher. */

static unsigned calls, last_code;
static enum finisher_action last_action;

static void on_finished(void *opaque, enum finisher_action action, unsigned code)
{
    calls++;
    last_action = action;
    last_code = code;
}

static void finisher_actions(void **state)
{
    static const struct {
        uint32_t word;
        unsigned size;
        enum finisher_action action;
        unsigned code;
    } expected[] = {
        {0x00005555, 4, FINISHER_PASS, 0},     {0x5555, 2, FINISHER_PASS, 0},
        {0x00013333, 4, FINISHER_FAIL, 1},     {0x00ff3333, 4, FINISHER_FAIL, 255},
        {0xffff3333, 4, FINISHER_FAIL, 65535}, {0x7777, 4, FINISHER_RESET, 0},
    };
    struct finisher *finisher =
        finisher_create("finisher", &(struct finisher_config){.finished = on_finished});

    calls = 0;
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        finisher_ops.write(finisher, 0, expected[i].word, expected[i].size);
        assert_int_equal(calls, i + 1);
        assert_int_equal(last_action, expected[i].action);
        assert_int_equal(last_code, expected[i].code);
    }
    finisher_ops.write(finisher, 0, 0x1234, 4);
    finisher_ops.write(finisher, 4, 0x5555, 4);
    assert_int_equal(calls, ARRAY_SIZE(expected));
    assert_int_equal(finisher_ops.read(finisher, 0, 4), 0);
    finisher_device(finisher)->type->remove(finisher_device(finisher));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(tells_the_hosts_time),         TEST(latches_the_high_half),
        TEST(is_set_by_the_guest),          TEST(alarm_fires),
        TEST(alarm_follows_the_time),       TEST(state_with_alarm_armed),
        cmocka_unit_test(finisher_actions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
