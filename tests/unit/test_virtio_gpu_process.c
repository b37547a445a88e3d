/* virtio-gpu with a renderer that is a process and dies: guests and displays go on. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <sys/wait.h>

#include <cmocka.h>

#include "gpu_picture.h"

static _Atomic pid_t pid; /* of the device's renderer */
static _Atomic unsigned opened;
static unsigned most_opened; /* no more after these */

static struct gpu_renderer *open_process(void *opaque, bool again, struct error *err)
{
    struct gpu_request adapters = {.type = GPU_REQUEST_ADAPTERS};
    struct gpu_request request = {.type = GPU_REQUEST_OPEN,
                                  .open = {.version = GPU_PROTOCOL_VERSION, .count = 1}};
    struct gpu_adapter_info adapter;
    if (opened == most_opened) {
        error_set(err, "there are no more");
        return NULL;
    }
    opened++;
    struct gpu_renderer *renderer = gpu_process_create(0, err);
    if (renderer &&
        gpu_renderer_call(renderer, &adapters, 20000, NULL, &adapter, sizeof(adapter), NULL, err) &&
        gpu_renderer_call(renderer, &request, 20000, NULL, NULL, 0, NULL, err)) {
        pid = (pid_t)adapter.device_id;
        return renderer;
    }
    gpu_renderer_destroy(renderer);
    return NULL;
}

static void start(void **state, const char *manner, unsigned most)
{
    struct gpu_canvas *canvas = gpu_canvas_pixman_create(NULL);
    if (!canvas)
        skip(); /* a build without pixman draws nothing */
    canvas->ops->destroy(canvas);
    setenv("HARTVISOR_GPU", FAKE_RENDERER, 1);
    setenv("FAKE_RENDERER", manner, 1);
    opened = 0;
    most_opened = most;
    *state = bench_create(open_process);
}

static int teardown(void **state)
{
    if (*state)
        bench_destroy(*state);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    return 0;
}

/* Until the next renderer is there. */
static void wait_for_opened(struct bench *bench, unsigned count)
{
    for (unsigned i = 0; opened < count && i < 1000; i++)
        loop_turn(bench->loop, 10);
    assert_int_equal(opened, count);
    turn(bench);
}

static void show_cursor(struct bench *bench)
{
    uint32_t pixels[64 * 64];
    for (uint32_t i = 0; i < 64 * 64; i++)
        pixels[i] = i % 3 ? 0xff000000 | i * 0x030201 : 0;
    memory_dma_write(bench->memory, PIXELS_GPA + 0x10000, pixels, sizeof(pixels));
    assert_int_equal(DO({0x101, {2, GPU_FORMAT_B8G8R8A8, 64, 64}}), OK_NODATA);
    assert_int_equal(DO({0x106, {2, 1, (uint32_t)PIXELS_GPA + 0x10000, 0, sizeof(pixels)}}),
                     OK_NODATA);
    assert_int_equal(DO({0x105, {0, 0, 64, 64, 0, 0, 2}}), OK_NODATA);
    assert_int_equal(DO({0x300, {0, 20, 10, 0, 2, 3, 4}}), OK_NODATA);
}

/* Killed while nothing is asked: the next one shows what was there, cursor and all. */
static void test_idle(void **state)
{
    struct drawn drawn = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, NULL};
    uint8_t before[WIDTH * HEIGHT * 4];
    start(state, "", 100);
    struct bench *bench = *state;
    paint(bench, 5);
    show_picture(bench);
    show_cursor(bench);
    draw(bench, &drawn, 0);
    assert_non_null(drawn.frame);
    assert_int_equal(drawn.frame->size, sizeof(before));
    memcpy(before, drawn.frame->pixels, sizeof(before));
    for (unsigned i = 0; i < 5; i++) {
        unsigned count = opened;
        assert_int_equal(kill(pid, SIGKILL), 0);
        wait_for_opened(bench, count + 1);
        draw(bench, &drawn, 0);
        assert_non_null(drawn.frame);
        assert_memory_equal(drawn.frame->pixels, before, sizeof(before));
    }
    gpu_frame_put(drawn.frame);
}

static void *kill_later(void *opaque)
{
    usleep(*(useconds_t *)opaque);
    kill(pid, SIGKILL);
    return NULL;
}

/* Killed while it draws, at any moment: commands are answered, and the picture comes. */
static void test_busy(void **state)
{
    struct drawn drawn = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, NULL};
    pthread_t killer;
    start(state, "", 1000);
    struct bench *bench = *state;
    paint(bench, 0);
    show_picture(bench);
    for (uint32_t round = 1; round <= 30; round++) {
        useconds_t moment = round * 131 % 4000;
        unsigned count = opened;
        assert_int_equal(pthread_create(&killer, NULL, kill_later, &moment), 0);
        for (unsigned i = 0; i < 10; i++) {
            paint(bench, round * 100 + i);
            assert_int_equal(DO({0x105, {0, 0, WIDTH, HEIGHT, 0, 0, 1}}), OK_NODATA);
            assert_int_equal(DO({0x104, {0, 0, WIDTH, HEIGHT, 1}}), OK_NODATA);
            draw(bench, &drawn, 0);
        }
        pthread_join(killer, NULL);
        wait_for_opened(bench, count + 1);
        draw(bench, &drawn, 0);
        check_frame(drawn.frame, round * 100 + 9);
    }
    gpu_frame_put(drawn.frame);
}

/* Each dies soon. A guest's command is answered by as many as it takes, until there is none. */
static void test_hopeless(void **state)
{
    struct drawn drawn = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, NULL};
    start(state, "signal 11 6", 5);
    struct bench *bench = *state;
    paint(bench, 3);
    DO({0x101, {1, GPU_FORMAT_B8G8R8X8, WIDTH, HEIGHT}});
    for (unsigned i = 0; i < 40 && opened < most_opened; i++) {
        draw(bench, &drawn, 0);
        loop_turn(bench->loop, 10);
        turn(bench);
        assert_int_equal(DO({0x104, {0, 0, WIDTH, HEIGHT, 1}}), OK_NODATA);
    }
    assert_int_equal(opened, most_opened);
    for (unsigned i = 0; i < 20; i++) {
        draw(bench, &drawn, 0);
        loop_turn(bench->loop, 10);
    }
    assert_null(drawn.frame);
}

/* Statistics that keep no rule. */
static void test_statistics(void **state)
{
    struct gpu_stats stats;
    start(state, "stats 255 1", 1);
    struct bench *bench = *state;
    assert_true(virtio_gpu_stats(bench->gpu, &stats, 0, NULL));
    assert_int_equal(stats.scanout_count, 2);
    assert_int_equal(stats.adapter_count, GPU_STATS_ADAPTERS);
    assert_int_equal(strlen(stats.backend), sizeof(stats.backend) - 1);
    for (unsigned i = 0; i < GPU_STATS_ADAPTERS; i++)
        assert_int_equal(strlen(stats.adapter_name[i]), sizeof(stats.adapter_name[i]) - 1);
    for (unsigned i = 0; i < GPU_STATS_SCANOUTS; i++)
        assert_int_equal(stats.scanout_adapter[i], UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_idle, teardown),
        cmocka_unit_test_teardown(test_busy, teardown),
        cmocka_unit_test_teardown(test_hopeless, teardown),
        cmocka_unit_test_teardown(test_statistics, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
