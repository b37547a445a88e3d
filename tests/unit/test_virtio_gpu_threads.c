/* virtio-gpu with a renderer on a thread: the pixels that a display gets, and displays, statistics,
 * resets and lost renderers all at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "gpu_picture.h"

#define ROUNDS 200u

static _Atomic(struct gpu_renderer *) current; /* of the device */

static struct gpu_renderer *open_thread(void *opaque, bool again, struct error *err)
{
    current = gpu_thread_create(err);
    return current;
}

/* A build without pixman has no such renderer. */
static int setup(void **state)
{
    struct error err;
    struct gpu_renderer *renderer = gpu_thread_create(&err);
    if (!renderer) {
        print_message("%s\n", err.message);
        return 0;
    }
    gpu_renderer_destroy(renderer);
    *state = bench_create(open_thread);
    return 0;
}

static int teardown(void **state)
{
    if (*state)
        bench_destroy(*state);
    return 0;
}

static void test_pixels(void **state)
{
    struct bench *bench = *state;
    struct drawn drawn = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, NULL};
    struct gpu_stats stats;
    char *events;
    if (!bench)
        skip();
    paint(bench, 1);
    show_picture(bench);
    assert_true(virtio_gpu_trace(bench->gpu, true, NULL, NULL));
    draw(bench, &drawn, 0);
    check_frame(drawn.frame, 1);
    paint(bench, 99);
    assert_int_equal(DO({0x105, {0, 0, WIDTH, HEIGHT, 0, 0, 1}}), OK_NODATA);
    assert_int_equal(DO({0x104, {0, 0, WIDTH, HEIGHT, 1}}), OK_NODATA);
    draw(bench, &drawn, 0);
    check_frame(drawn.frame, 99);
    assert_true(virtio_gpu_stats(bench->gpu, &stats, 0, NULL));
    assert_int_equal(stats.scanout_count, 2);
    assert_int_equal(stats.total.frames_presented, 2);
    assert_int_equal(stats.total.transfers, 2);
    assert_true(virtio_gpu_trace(bench->gpu, false, &events, NULL));
    assert_non_null(strstr(events, "\"frame\""));
    free(events);
    /* a new renderer shows the same */
    struct gpu_renderer *renderer = current;
    renderer->listener.lost(renderer->listener.opaque, "the test says so");
    turn(bench);
    draw(bench, &drawn, 0);
    check_frame(drawn.frame, 99);
    gpu_frame_put(drawn.frame);
}

/* Transparent where its alpha is 0, whatever its format says: dumb buffers of Linux have none. */
static void test_cursor(void **state)
{
    struct bench *bench = *state;
    struct drawn drawn = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, NULL};
    uint32_t pixels[64 * 64] = {0xff112233};
    if (!bench)
        skip();
    paint(bench, 7);
    show_picture(bench);
    assert_int_equal(DO({0x101, {2, GPU_FORMAT_B8G8R8X8, 64, 64}}), OK_NODATA);
    memory_dma_write(bench->memory, PIXELS_GPA, pixels, sizeof(pixels));
    assert_int_equal(DO({0x106, {2, 1, (uint32_t)PIXELS_GPA, 0, sizeof(pixels)}}), OK_NODATA);
    assert_int_equal(DO({0x105, {0, 0, 64, 64, 0, 0, 2}}), OK_NODATA);
    assert_int_equal(DO({0x300, {0, 0, 0, 0, 2}}), OK_NODATA);
    draw(bench, &drawn, 0);
    assert_int_equal(load_le32(drawn.frame->pixels), 0xff112233);
    assert_int_equal(load_le32(drawn.frame->pixels + 4), 0xff000000 | (0x010305 + 7));
    gpu_frame_put(drawn.frame);
}

static _Atomic bool ending;

static void *watch(void *opaque)
{
    struct bench *bench = opaque;
    struct drawn drawn = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, NULL};
    uint32_t width, height;
    for (unsigned i = 0; !ending; i++) {
        draw(bench, &drawn, i % 3);
        virtio_gpu_size(bench->gpu, 0, &width, &height);
        if (i % 16 == 0)
            virtio_gpu_set_view(bench->gpu, i % 2, i % 5 * 20, i % 7 * 20);
    }
    gpu_frame_put(drawn.frame);
    return NULL;
}

static void *control(void *opaque)
{
    struct bench *bench = opaque;
    struct gpu_stats stats;
    struct error err;
    char *events;
    for (uint32_t i = 0; !ending; i++) {
        virtio_gpu_resize(bench->gpu, i % 2, 640 + i % 64, 480);
        virtio_gpu_stats(bench->gpu, &stats, i & 1, &err);
        if (i % 32 == 0 && virtio_gpu_trace(bench->gpu, i & 32, &events, &err))
            free(events);
    }
    return NULL;
}

static void test_all_at_once(void **state)
{
    struct bench *bench = *state;
    pthread_t watcher, controller;
    if (!bench)
        skip();
    ending = false;
    assert_int_equal(pthread_create(&watcher, NULL, watch, bench), 0);
    assert_int_equal(pthread_create(&controller, NULL, control, bench), 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        paint(bench, round);
        show_picture(bench);
        assert_int_equal(DO({0x104, {0, 0, WIDTH, HEIGHT, 1}}), OK_NODATA);
        assert_int_equal(DO({0x301, {0, round, 3}}), OK_NODATA);
        if (round % 10 == 3) {
            struct gpu_renderer *renderer = current;
            renderer->listener.lost(renderer->listener.opaque, "the test says so");
        }
        if (round % 10 == 5)
            bench->gpu->base.type->quiesce(&bench->gpu->base);
        if (round % 4 == 1)
            driver_start(&bench->driver, ALL, 2, QUEUE_SIZE);
        else
            assert_int_equal(DO({0x102, {1}}), OK_NODATA);
    }
    ending = true;
    pthread_join(watcher, NULL);
    pthread_join(controller, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pixels, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cursor, setup, teardown),
        cmocka_unit_test_setup_teardown(test_all_at_once, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
