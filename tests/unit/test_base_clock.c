/* Guest time, devices and bit helpers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/device.h"
#include "base/loop.h"

#define SECOND UINT64_C(1000000000)

static void sleep_ms(long ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static void test_runs(void **state)
{
    struct clock clock;
    uint64_t host = loop_now();
    clock_init(&clock);
    uint64_t start = clock_ticks(&clock);
    sleep_ms(20);
    uint64_t ticks = clock_ticks(&clock);
    uint64_t most = (loop_now() - host) / CLOCK_TICK_NS + 1;
    assert_true(start < CLOCK_HZ / 10);
    assert_true(ticks >= CLOCK_HZ / 50);
    assert_true(ticks <= most);
}

static void test_freeze(void **state)
{
    struct clock clock;
    clock_init(&clock);
    clock_set(&clock, 5000);
    clock_freeze(&clock);
    uint64_t frozen = clock_ticks(&clock);
    assert_true(frozen >= 5000);
    sleep_ms(5);
    clock_freeze(&clock);
    assert_int_equal(clock_ticks(&clock), frozen);
    assert_int_equal(clock_deadline(&clock, 0), UINT64_MAX);
    clock_set(&clock, 100);
    assert_int_equal(clock_ticks(&clock), 100);
    clock_thaw(&clock);
    uint64_t thawed = clock_ticks(&clock);
    assert_in_range(thawed, 100, 100 + CLOCK_HZ);
    sleep_ms(2);
    assert_true(clock_ticks(&clock) > thawed);
    clock_thaw(&clock);
}

/* All 64 bits of mtime can be written, and it wraps. */
static void test_extremes(void **state)
{
    struct clock clock;
    clock_init(&clock);
    clock_set(&clock, UINT64_C(1) << 63);
    assert_in_range(clock_ticks(&clock) - (UINT64_C(1) << 63), 0, CLOCK_HZ);
    clock_set(&clock, UINT64_MAX);
    sleep_ms(1);
    assert_in_range(clock_ticks(&clock), 0, CLOCK_HZ);
}

static void test_deadline(void **state)
{
    struct clock clock;
    clock_init(&clock);
    uint64_t now = loop_now();
    clock_set(&clock, 1000);
    assert_true(clock_deadline(&clock, 0) <= loop_now());
    uint64_t in_a_second = clock_deadline(&clock, 1000 + CLOCK_HZ);
    assert_in_range(in_a_second, now + SECOND - 200, now + SECOND + SECOND / 10);
    assert_int_equal(clock_deadline(&clock, UINT64_MAX), UINT64_MAX);
    assert_int_equal(clock_deadline(&clock, UINT64_MAX / CLOCK_TICK_NS + 5000), UINT64_MAX);
    /* At the deadline, and not a tick later, the guest's time is there. */
    uint64_t target = clock_ticks(&clock) + 20000;
    uint64_t deadline = clock_deadline(&clock, target);
    while (loop_now() < deadline)
        ;
    assert_true(clock_ticks(&clock) >= target);
}

static void set_level(void *controller, unsigned source, bool level)
{
    int *levels = controller;
    levels[source] = level;
}

static void test_device(void **state)
{
    static const struct device_type type = {.name = "tester"};
    struct device device;
    device_init(&device, &type, "a name that is longer than thirty-one characters");
    assert_string_equal(device.name, "a name that is longer than thir");
    assert_ptr_equal(device.type, &type);
    device_lock(&device);
    device_unlock(&device);
    device_finish(&device);
    int levels[4] = {0};
    struct irq_line line = {.set = set_level, .controller = levels, .source = 2};
    irq_set(&line, true);
    assert_int_equal(levels[2], 1);
    irq_set(&line, false);
    assert_int_equal(levels[2], 0);
    struct irq_line nowhere = {0};
    irq_set(&nowhere, true);
}

static void test_bits(void **state)
{
    assert_int_equal(bits_get(0xabcd, 4, 8), 0xbc);
    assert_int_equal(bits_get(UINT64_MAX, 0, 64), UINT64_MAX);
    assert_int_equal(bits_set(0xabcd, 4, 8, 0x112), 0xa12d);
    assert_true(sign_extend(0x800, 12) == -2048);
    assert_true(sign_extend(0x7ff, 12) == 2047);
    assert_true(sign_extend(UINT64_MAX, 64) == -1);
    assert_int_equal(size_mask(1), 0xff);
    assert_int_equal(size_mask(8), UINT64_MAX);
    assert_int_equal(align_down(0x1fff, 0x1000), 0x1000);
    assert_int_equal(align_up(0x1001, 0x1000), 0x2000);
    assert_true(range_fits(8, 8, 16));
    assert_false(range_fits(9, 8, 16));
    assert_false(range_fits(UINT64_MAX, 2, 16));
    assert_false(is_power_of_two(0));
    uint8_t bytes[9] = {0};
    store_le(bytes + 1, 0x1122334455667788, 4);
    assert_int_equal(load_le32(bytes + 1), 0x55667788);
    assert_int_equal(load_le(bytes + 1, 2), 0x7788);
    assert_int_equal(bytes[5], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs),     cmocka_unit_test(test_freeze),
        cmocka_unit_test(test_extremes), cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_device),   cmocka_unit_test(test_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
