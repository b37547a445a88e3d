/* ACLINT and PLIC, seen as a hart's software sees them: through their registers and lines. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base.h"
#include "irq/irq.h"

#define HARTS   4
#define SOURCES 95

/* Lines end in these levels: source n of each controller's outputs. */
static _Atomic bool software[HARTS], timer[HARTS], external[2 * HARTS];

static void set_level(void *controller, unsigned source, bool level)
{
    ((_Atomic bool *)controller)[source] = level;
}

static struct irq_line lines_to(_Atomic bool *levels, unsigned source)
{
    return (struct irq_line){set_level, levels, source};
}

/* PLIC. */

static struct plic *plic;

static int plic_setup(void **state)
{
    struct irq_line machine[HARTS], supervisor[HARTS];
    for (unsigned i = 0; i < HARTS; i++) {
        machine[i] = lines_to(external, 2 * i);
        supervisor[i] = lines_to(external, 2 * i + 1);
    }
    plic = plic_create("plic", &(struct plic_config){.harts = HARTS,
                                                     .sources = SOURCES,
                                                     .machine = machine,
                                                     .supervisor = supervisor});
    for (unsigned i = 0; i < 2 * HARTS; i++)
        external[i] = false;
    return 0;
}

static int plic_teardown(void **state)
{
    plic_device(plic)->type->remove(plic_device(plic));
    return 0;
}

static void plic_put(uint64_t offset, uint32_t value)
{
    plic_ops.write(plic, offset, value, 4);
}

static uint32_t plic_get(uint64_t offset)
{
    return (uint32_t)plic_ops.read(plic, offset, 4);
}

static void priority(unsigned source, uint32_t value)
{
    plic_put(4 * source, value);
}

static void enable(unsigned context, unsigned source)
{
    uint64_t at = 0x2000 + 0x80 * context + source / 32 * 4;
    plic_put(at, plic_get(at) | 1U << source % 32);
}

static void threshold(unsigned context, uint32_t value)
{
    plic_put(0x200000 + 0x1000 * context, value);
}

static uint32_t claim(unsigned context)
{
    return plic_get(0x200004 + 0x1000 * context);
}

static void complete(unsigned context, uint32_t source)
{
    plic_put(0x200004 + 0x1000 * context, source);
}

static bool pending(unsigned source)
{
    return plic_get(0x1000 + source / 32 * 4) >> source % 32 & 1;
}

static void level(unsigned source, bool value)
{
    struct irq_line line = plic_line(plic, source);
    irq_set(&line, value);
}

static void plic_claims_and_completes(void **state)
{
    enable(1, 10);
    priority(10, 1);
    assert_false(external[1]);
    level(10, true);
    assert_true(pending(10));
    assert_true(external[1]);
    assert_false(external[0]);

    assert_int_equal(claim(1), 10);
    assert_false(pending(10));
    assert_false(external[1]);
    assert_int_equal(claim(1), 0);

    /* Still high when completed: a new request. Low: none. */
    complete(1, 10);
    assert_true(external[1]);
    assert_int_equal(claim(1), 10);
    level(10, false);
    complete(1, 10);
    assert_false(external[1]);
    assert_false(pending(10));
}

/* A request that was forwarded is not taken back when the line falls (PLIC 1.0.0, Interrupt
 * Gateways). */
static void plic_keeps_forwarded_request(void **state)
{
    enable(0, 95);
    priority(95, 7);
    level(95, true);
    level(95, false);
    assert_true(external[0]);
    assert_int_equal(claim(0), 95);
    complete(0, 95);
    assert_false(external[0]);
}

static void plic_orders_by_priority_then_number(void **state)
{
    static const struct {
        unsigned source, priority;
    } raised[] = {{40, 3}, {3, 3}, {64, 5}, {2, 1}, {31, 5}};
    static const unsigned expected[] = {31, 64, 3, 40, 2};

    for (size_t i = 0; i < ARRAY_SIZE(raised); i++) {
        enable(3, raised[i].source);
        priority(raised[i].source, raised[i].priority);
        level(raised[i].source, true);
    }
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
        assert_int_equal(claim(3), expected[i]);
    assert_int_equal(claim(3), 0);
}

static void plic_thresholds_notify_only(void **state)
{
    enable(0, 5);
    priority(5, 3);
    threshold(0, 3);
    level(5, true);
    assert_false(external[0]); /* not above the threshold */
    threshold(0, 2);
    assert_true(external[0]);
    threshold(0, 7);
    assert_false(external[0]);
    assert_int_equal(claim(0), 5); /* a claim ignores the threshold */
    complete(0, 5);
    priority(5, 0); /* never interrupts */
    threshold(0, 0);
    assert_false(external[0]);
    assert_int_equal(claim(0), 0);
    priority(5, 8 | 4); /* three bits are implemented */
    assert_int_equal(plic_get(4 * 5), 4);
    assert_true(external[0]);
}

static void plic_one_claim_wins(void **state)
{
    for (unsigned context = 0; context < 2 * HARTS; context++)
        enable(context, 7);
    priority(7, 1);
    level(7, true);
    for (unsigned context = 0; context < 2 * HARTS; context++)
        assert_true(external[context]);
    assert_int_equal(claim(5), 7);
    for (unsigned context = 0; context < 2 * HARTS; context++) {
        assert_false(external[context]);
        assert_int_equal(claim(context), 0);
    }
}

static void plic_ignores_wrong_completion(void **state)
{
    enable(1, 4);
    priority(4, 1);
    level(4, true);
    assert_int_equal(claim(1), 4);
    complete(3, 4); /* not enabled there */
    complete(1, 0);
    complete(1, 96);
    complete(1, UINT32_MAX);
    assert_false(external[1]);
    complete(1, 4);
    assert_true(external[1]);
}

static void plic_has_no_other_registers(void **state)
{
    plic_put(0, 7); /* source 0 */
    assert_int_equal(plic_get(0), 0);
    plic_put(4 * 96, 7); /* behind the last source */
    assert_int_equal(plic_get(4 * 96), 0);
    plic_put(0x2000, UINT32_MAX);
    assert_int_equal(plic_get(0x2000), 0xfffffffe);
    plic_put(0x2008, UINT32_MAX);
    plic_put(0x200c, UINT32_MAX);
    assert_int_equal(plic_get(0x2008), 0xffffffff);
    assert_int_equal(plic_get(0x200c), 0);
    plic_put(0x2000 + 0x80 * 2 * HARTS, UINT32_MAX); /* no such context */
    assert_int_equal(plic_get(0x2000 + 0x80 * 2 * HARTS), 0);
    assert_int_equal(claim(2 * HARTS), 0);
    for (uint64_t offset = 0; offset < PLIC_SIZE; offset += 0x1004 & ~3) {
        plic_put(offset, UINT32_MAX);
        plic_get(offset);
    }
}

static unsigned completions;

static void lower_line(void *opaque, unsigned source)
{
    completions++;
    level(source, false);
    assert_ptr_equal(opaque, &completions);
}

/* The listener runs before the line is sampled: what it lowers makes no new request. */
static void plic_tells_of_completion(void **state)
{
    completions = 0;
    plic_on_complete(plic, 33, lower_line, &completions);
    enable(1, 33);
    priority(33, 1);
    level(33, true);
    assert_int_equal(claim(1), 33);
    complete(3, 33);
    assert_int_equal(completions, 0);
    complete(1, 33);
    assert_int_equal(completions, 1);
    assert_false(pending(33));
    assert_false(external[1]);
}

static void plic_resets(void **state)
{
    enable(1, 33);
    priority(33, 1);
    level(33, true);
    plic_device(plic)->type->reset(plic_device(plic));
    assert_false(external[1]);
    assert_int_equal(plic_get(4 * 33), 0);
    level(33, false);
    enable(1, 33);
    priority(33, 1);
    assert_false(external[1]);
}

static void save(struct device *device, struct stream *stream)
{
    device->type->state(device, stream);
    assert_true(stream_check(stream, NULL));
}

static void load(struct device *device, struct stream *saved)
{
    size_t size;
    const void *data = stream_data(saved, &size);
    struct stream *stream = stream_create_loading(data, size);
    struct error err = {0};
    device->type->state(device, stream);
    if (!stream_check(stream, &err))
        fail_msg("%s", err.message);
    stream_destroy(stream);
}

/* Saved between claim and completion, with another request pending. */
static void plic_state_in_service(void **state)
{
    enable(1, 10);
    enable(1, 50);
    priority(10, 2);
    priority(50, 1);
    level(10, true);
    assert_int_equal(claim(1), 10);
    level(50, true);
    threshold(1, 0);

    struct stream *saved = stream_create_saving();
    save(plic_device(plic), saved);
    plic_teardown(NULL);
    plic_setup(NULL);
    load(plic_device(plic), saved);
    stream_destroy(saved);

    assert_true(external[1]);
    assert_int_equal(claim(1), 50);
    assert_int_equal(claim(1), 0); /* 10 is still in service */
    complete(1, 10);
    assert_int_equal(claim(1), 10); /* and its line still high */
}

static void plic_state_refuses_another_board(void **state)
{
    struct stream *saved = stream_create_saving();
    save(plic_device(plic), saved);
    size_t size;
    const void *data = stream_data(saved, &size);
    struct irq_line lines[1] = {{0}};
    struct plic *other = plic_create(
        "plic",
        &(struct plic_config){.harts = 1, .sources = 31, .machine = lines, .supervisor = lines});
    struct stream *stream = stream_create_loading(data, size);
    plic_device(other)->type->state(plic_device(other), stream);
    assert_false(stream_check(stream, NULL));
    stream_destroy(stream);
    stream_destroy(saved);
    plic_device(other)->type->remove(plic_device(other));
}

#define ROUNDS 8000

static _Atomic unsigned handled[HARTS];
static _Atomic bool stop;

/* A driver: claims, lowers the line that it serves, completes. */
static void *serve(void *opaque)
{
    unsigned hart = (unsigned)(uintptr_t)opaque, context = 2 * hart + 1;

    while (!stop) {
        if (!external[context]) {
            sched_yield();
            continue;
        }
        uint32_t source = claim(context);
        if (!source)
            continue;
        level(source, false);
        handled[source - 1]++;
        complete(context, source);
    }
    return NULL;
}

/* Each request is handled by exactly one hart, with all of them racing for it. */
static void plic_harts_race(void **state)
{
    pthread_t threads[HARTS];

    for (unsigned i = 0; i < HARTS; i++) {
        handled[i] = 0;
        priority(i + 1, 1 + i % 3);
        for (unsigned context = 1; context < 2 * HARTS; context += 2)
            enable(context, i + 1);
    }
    stop = false;
    for (unsigned i = 0; i < HARTS; i++)
        pthread_create(&threads[i], NULL, serve, (void *)(uintptr_t)i);
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned source = round % HARTS, before = handled[source];
        level(source + 1, true);
        while (handled[source] == before)
            sched_yield();
        assert_int_equal(handled[source], before + 1);
    }
    stop = true;
    for (unsigned i = 0; i < HARTS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < HARTS; i++)
        assert_int_equal(handled[i], ROUNDS / HARTS);
}

/* ACLINT. */

static struct loop *loop;
static struct clock guest_clock;
static struct aclint *aclint;
static unsigned time_changes;

static void on_time_changed(void *opaque)
{
    time_changes++;
}

static int aclint_setup(void **state)
{
    struct irq_line to_software[HARTS], to_timer[HARTS];
    for (unsigned i = 0; i < HARTS; i++) {
        software[i] = timer[i] = false;
        to_software[i] = lines_to(software, i);
        to_timer[i] = lines_to(timer, i);
    }
    loop = loop_create();
    clock_init(&guest_clock);
    aclint = aclint_create("aclint", &(struct aclint_config){.loop = loop,
                                                             .clock = &guest_clock,
                                                             .harts = HARTS,
                                                             .software = to_software,
                                                             .timer = to_timer,
                                                             .time_changed = on_time_changed});
    return 0;
}

static int aclint_teardown(void **state)
{
    aclint_device(aclint)->type->remove(aclint_device(aclint));
    loop_destroy(loop);
    return 0;
}

static void aclint_sends_ipis(void **state)
{
    aclint_ops.write(aclint, 4 * 2, 1, 4);
    assert_true(software[2]);
    assert_false(software[1]);
    assert_int_equal(aclint_ops.read(aclint, 8, 4), 1);
    aclint_ops.write(aclint, 8, UINT32_MAX - 1, 4); /* only bit 0 exists */
    assert_false(software[2]);
    assert_int_equal(aclint_ops.read(aclint, 8, 4), 0);

    aclint_ops.write(aclint, 0, UINT64_C(1) << 32, 8);
    assert_false(software[0]);
    assert_true(software[1]);
    assert_int_equal(aclint_ops.read(aclint, 0, 8), UINT64_C(1) << 32);

    aclint_ops.write(aclint, 4 * HARTS, 1, 4); /* no such hart */
    assert_int_equal(aclint_ops.read(aclint, 4 * HARTS, 4), 0);
    assert_int_equal(aclint_ops.read(aclint, 0xfff8 - 8, 8), 0);
}

static void aclint_timer_fires(void **state)
{
    uint64_t now = aclint_ops.read(aclint, 0xbff8, 8);
    uint64_t due = now + CLOCK_HZ / 50;

    aclint_ops.write(aclint, 0x4000 + 8 * 3, due, 8);
    assert_int_equal(aclint_ops.read(aclint, 0x4018, 8), due);
    assert_false(timer[3]);
    while (!timer[3])
        loop_turn(loop, 1000);
    assert_true(aclint_ops.read(aclint, 0xbff8, 8) >= due);
    assert_false(timer[2]);

    /* The line follows the comparison, at once. */
    aclint_ops.write(aclint, 0x4018, UINT64_MAX, 8);
    assert_false(timer[3]);
    aclint_ops.write(aclint, 0x4018, 0, 8);
    assert_true(timer[3]);
}

static void aclint_takes_halves(void **state)
{
    aclint_ops.write(aclint, 0x4000, 0x11111111, 4);
    aclint_ops.write(aclint, 0x4004, 0x22222222, 4);
    assert_int_equal(aclint_ops.read(aclint, 0x4000, 8), 0x2222222211111111);
    assert_int_equal(aclint_ops.read(aclint, 0x4004, 4), 0x22222222);

    aclint_ops.write(aclint, 0xbffc, 0x1234, 4);
    assert_int_equal(aclint_ops.read(aclint, 0xbffc, 4), 0x1234);
    assert_int_equal(clock_ticks(&guest_clock) >> 32, 0x1234);
}

static void aclint_mtime_is_written(void **state)
{
    time_changes = 0;
    aclint_ops.write(aclint, 0x4000, UINT64_C(1) << 40, 8);
    aclint_ops.write(aclint, 0x4008, UINT64_C(1) << 50, 8);
    assert_false(timer[0]);
    aclint_ops.write(aclint, 0xbff8, UINT64_C(1) << 41, 8);
    assert_true(timer[0]);
    assert_false(timer[1]);
    assert_int_equal(time_changes, 1);
    aclint_ops.write(aclint, 0xbff8, 0, 8);
    assert_false(timer[0]);
}

static void aclint_stands_still_when_frozen(void **state)
{
    aclint_ops.write(aclint, 0x4000, clock_ticks(&guest_clock) + CLOCK_HZ / 100, 8);
    clock_freeze(&guest_clock);
    aclint_update(aclint);
    loop_turn(loop, 30);
    assert_false(timer[0]);
    clock_thaw(&guest_clock);
    aclint_update(aclint);
    while (!timer[0])
        loop_turn(loop, 1000);
}

static void aclint_resets(void **state)
{
    aclint_ops.write(aclint, 0, 1, 4);
    aclint_ops.write(aclint, 0x4000, 0, 8);
    aclint_ops.write(aclint, 0xbff8, UINT64_C(1) << 60, 8);
    assert_true(software[0] && timer[0]);
    aclint_device(aclint)->type->reset(aclint_device(aclint));
    assert_false(software[0] || timer[0]);
    assert_true(clock_ticks(&guest_clock) < UINT64_C(1) << 59);
    assert_int_equal(aclint_ops.read(aclint, 0x4000, 8), UINT64_MAX);
}

static void aclint_state_with_timer_armed(void **state)
{
    uint64_t start = UINT64_C(1) << 44;
    aclint_ops.write(aclint, 0xbff8, start, 8);
    aclint_ops.write(aclint, 0x4010, start + CLOCK_HZ / 20, 8);
    aclint_ops.write(aclint, 4, 1, 4);

    struct stream *saved = stream_create_saving();
    save(aclint_device(aclint), saved);
    aclint_teardown(NULL);
    aclint_setup(NULL);
    load(aclint_device(aclint), saved);
    stream_destroy(saved);

    assert_true(software[1]);
    assert_true(clock_ticks(&guest_clock) >= start);
    while (!timer[2])
        loop_turn(loop, 1000);
    assert_true(clock_ticks(&guest_clock) >= start + CLOCK_HZ / 20);
}

#define PLIC_TEST(name)   cmocka_unit_test_setup_teardown(name, plic_setup, plic_teardown)
#define ACLINT_TEST(name) cmocka_unit_test_setup_teardown(name, aclint_setup, aclint_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLIC_TEST(plic_claims_and_completes),
        PLIC_TEST(plic_keeps_forwarded_request),
        PLIC_TEST(plic_orders_by_priority_then_number),
        PLIC_TEST(plic_thresholds_notify_only),
        PLIC_TEST(plic_one_claim_wins),
        PLIC_TEST(plic_ignores_wrong_completion),
        PLIC_TEST(plic_has_no_other_registers),
        PLIC_TEST(plic_tells_of_completion),
        PLIC_TEST(plic_resets),
        PLIC_TEST(plic_state_in_service),
        PLIC_TEST(plic_state_refuses_another_board),
        PLIC_TEST(plic_harts_race),
        ACLINT_TEST(aclint_sends_ipis),
        ACLINT_TEST(aclint_timer_fires),
        ACLINT_TEST(aclint_takes_halves),
        ACLINT_TEST(aclint_mtime_is_written),
        ACLINT_TEST(aclint_stands_still_when_frozen),
        ACLINT_TEST(aclint_resets),
        ACLINT_TEST(aclint_state_with_timer_armed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
