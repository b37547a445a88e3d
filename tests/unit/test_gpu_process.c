/* A renderer in a process of its own: it draws what one on a thread draws; and whatever it does
 * instead, the machine hears of each request once and then of the end, and nothing is left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "gpu/gpu.h"

#define RAM_GPA  UINT64_C(0x80000000)
#define RAM_SIZE (UINT64_C(4) << 20)
#define MOST     8192 /* answers that are noted */

/* What a listener heard. */
struct heard {
    pthread_mutex_t lock;
    pthread_cond_t told;
    size_t count;
    struct gpu_answer answers[MOST];
    unsigned lost;
    size_t count_at_loss;
    char why[200];
};

static struct heard heard;
static struct gpu_renderer *renderer;
static unsigned descriptors;

static unsigned count_descriptors(void)
{
    unsigned count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void on_answer(void *opaque, const struct gpu_answer *answer, const void *payload)
{
    pthread_mutex_lock(&heard.lock);
    assert_true(heard.count < MOST);
    heard.answers[heard.count++] = *answer;
    pthread_cond_signal(&heard.told);
    pthread_mutex_unlock(&heard.lock);
}

static void on_loss(void *opaque, const char *why)
{
    pthread_mutex_lock(&heard.lock);
    heard.lost++;
    heard.count_at_loss = heard.count;
    snprintf(heard.why, sizeof(heard.why), "%s", why);
    pthread_cond_signal(&heard.told);
    pthread_mutex_unlock(&heard.lock);
}

/* Until so many answers came, and the loss; fails after 30 seconds. */
static void wait_for(size_t count, bool loss)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 30;
    pthread_mutex_lock(&heard.lock);
    int timed_out = 0;
    while (!timed_out && (heard.count < count || (loss && !heard.lost)))
        timed_out = pthread_cond_timedwait(&heard.told, &heard.lock, &end);
    pthread_mutex_unlock(&heard.lock);
    if (timed_out)
        fail_msg("%zu of %zu answers, lost %u times (%s)", heard.count, count, heard.lost,
                 heard.why);
}

/* Until the last answer is one of that type. */
static struct gpu_answer wait_for_type(uint32_t type)
{
    pthread_mutex_lock(&heard.lock);
    while (!heard.count || heard.answers[heard.count - 1].type != type)
        pthread_cond_wait(&heard.told, &heard.lock);
    struct gpu_answer answer = heard.answers[heard.count - 1];
    heard.count = 0;
    pthread_mutex_unlock(&heard.lock);
    return answer;
}

static const struct gpu_listener listener = {.answered = on_answer, .lost = on_loss};

static struct gpu_renderer *start(const char *manner, unsigned watchdog_ms)
{
    struct error err;
    setenv("HARTVISOR_GPU", FAKE_RENDERER, 1);
    setenv("FAKE_RENDERER", manner, 1);
    struct gpu_renderer *started = gpu_process_create(watchdog_ms, &err);
    if (!started)
        fail_msg("%s", err.message);
    return started;
}

static uint64_t fence(void)
{
    struct gpu_request request = {.type = GPU_REQUEST_FENCE};
    return gpu_renderer_submit(renderer, &request, NULL, 0, -1);
}

static bool open_adapters(struct gpu_renderer *to)
{
    struct gpu_request request = {.type = GPU_REQUEST_OPEN,
                                  .open = {.version = GPU_PROTOCOL_VERSION, .count = 1}};
    return gpu_renderer_call(to, &request, 20000, NULL, NULL, 0, NULL, NULL);
}

static int set_up(void **state)
{
    struct error err;
    struct gpu_canvas *canvas = gpu_canvas_pixman_create(&err);
    *state = canvas ? &heard : NULL;
    if (canvas)
        canvas->ops->destroy(canvas);
    memset(&heard, 0, sizeof(heard));
    pthread_mutex_init(&heard.lock, NULL);
    pthread_cond_init(&heard.told, NULL);
    descriptors = count_descriptors();
    return 0;
}

/* Nothing is left: no descriptor, no process. */
static int tear_down(void **state)
{
    gpu_renderer_destroy(renderer);
    renderer = NULL;
    assert_int_equal(count_descriptors(), descriptors);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    return 0;
}

/* --- Pictures ----------------------------------------------------------------------------------
 */

/* The same requests for a thread and a process. */
static struct {
    struct gpu_renderer *renderer;
    struct gpu_frame *frame;
} both[2];

static struct memory *memory;

static void start_both(void)
{
    struct error err;
    size_t count;
    memory = memory_create();
    memory_share_ram(memory);
    assert_true(memory_add_ram(memory, RAM_GPA, RAM_SIZE, &err));
    const struct memory_ram *ram = memory_ram_regions(memory, &count);
    assert_int_equal(count, 1);
    srand(7);
    for (size_t i = 0; i < RAM_SIZE; i++)
        ram->host[i] = (uint8_t)(rand() >> 7);
    both[0].renderer = gpu_thread_create(&err);
    both[1].renderer = start("", 0);
    assert_true(open_adapters(both[1].renderer));
    for (unsigned i = 0; i < 2; i++)
        assert_true(gpu_renderer_add_memory(both[i].renderer, ram, &err));
}

static void destroy_both(void)
{
    for (unsigned i = 0; i < 2; i++) {
        gpu_renderer_destroy(both[i].renderer);
        gpu_frame_put(both[i].frame);
        both[i].frame = NULL;
    }
    memory_destroy(memory);
}

/* Both answer alike. */
static uint32_t ask_both(const struct gpu_request *request, const void *payload, size_t size)
{
    struct gpu_answer answers[2];
    for (unsigned i = 0; i < 2; i++) {
        struct gpu_request copy = *request;
        bool output = request->type == GPU_REQUEST_OUTPUT;
        gpu_renderer_listen(both[i].renderer, &listener);
        gpu_renderer_submit(both[i].renderer, &copy, payload, size,
                            output ? both[i].frame->fd : -1);
        /* The process answers for its memory first. */
        answers[i] = wait_for_type(request->type);
        gpu_renderer_listen(both[i].renderer, &(struct gpu_listener){0});
    }
    assert_int_equal(answers[0].status, answers[1].status);
    assert_memory_equal(&answers[0].rect, &answers[1].rect, sizeof(answers[0].rect));
    assert_string_equal(answers[0].message, answers[1].message);
    return answers[0].status;
}

static uint32_t some(uint32_t most)
{
    return (uint32_t)rand() % (most + 1);
}

static struct gpu_rect some_rect(uint32_t width, uint32_t height)
{
    struct gpu_rect rect = {some(width - 1), some(height - 1), 0, 0};
    rect.width = 1 + some(width - rect.x - 1);
    rect.height = 1 + some(height - rect.y - 1);
    return rect;
}

static void set_output(uint32_t width, uint32_t height)
{
    for (unsigned i = 0; i < 2; i++) {
        gpu_frame_put(both[i].frame);
        both[i].frame = gpu_frame_create(width, height, NULL);
    }
    struct gpu_request request = {.type = GPU_REQUEST_OUTPUT,
                                  .output = {0, width, height, both[0].frame->stride}};
    assert_int_equal(ask_both(&request, NULL, 0), GPU_OK);
}

static const uint32_t formats[] = {GPU_FORMAT_B8G8R8A8, GPU_FORMAT_B8G8R8X8, GPU_FORMAT_A8R8G8B8,
                                   GPU_FORMAT_X8R8G8B8, GPU_FORMAT_R8G8B8A8, GPU_FORMAT_X8B8G8R8,
                                   GPU_FORMAT_A8B8G8R8, GPU_FORMAT_R8G8B8X8};

#define WIDTH  100u
#define HEIGHT 70u

static void make_resource(uint32_t id, uint32_t format, uint32_t width, uint32_t height)
{
    struct gpu_range ranges[3];
    struct gpu_request make = {.type = GPU_REQUEST_RESOURCE,
                               .resource = {id, format, width, height}};
    struct gpu_request back = {.type = GPU_REQUEST_BACKING, .backing = {id, 3}};
    for (unsigned i = 0; i < 3; i++)
        ranges[i] = (struct gpu_range){RAM_GPA + some(1 << 20), 1 + width * height * 2};
    assert_int_equal(ask_both(&make, NULL, 0), GPU_OK);
    assert_int_equal(ask_both(&back, ranges, sizeof(ranges)), GPU_OK);
}

static void draw_something(uint32_t id)
{
    const uint32_t cursor = id + 1;
    struct gpu_request requests[] = {
        {.type = GPU_REQUEST_TRANSFER, .transfer = {id, some_rect(WIDTH, HEIGHT), some(999)}},
        {.type = GPU_REQUEST_SCANOUT, .scanout = {.id = id, .rect = some_rect(WIDTH, HEIGHT)}},
        {.type = GPU_REQUEST_TRANSFER, .transfer = {cursor, {0, 0, 64, 64}, some(999)}},
        {.type = GPU_REQUEST_CURSOR,
         .cursor = {.id = cursor, .x = (int)some(90), .y = (int)some(60), .hot_x = 9}},
        {.type = GPU_REQUEST_RENDER},
        {.type = GPU_REQUEST_CURSOR_MOVE, .cursor = {.x = (int)some(90), .y = (int)some(60)}},
        {.type = GPU_REQUEST_FLUSH, .flush = {id, some_rect(WIDTH, HEIGHT)}},
        {.type = GPU_REQUEST_RENDER},
        {.type = GPU_REQUEST_DESTROY, .id = 12345}, /* refused by both */
    };
    for (unsigned i = 0; i < ARRAY_SIZE(requests); i++)
        assert_int_equal(ask_both(&requests[i], NULL, 0),
                         i + 1 < ARRAY_SIZE(requests) ? GPU_OK : GPU_BAD_REQUEST);
    assert_memory_equal(both[0].frame->pixels, both[1].frame->pixels, both[0].frame->size);
}

static void test_pictures(void **state)
{
    if (!*state)
        skip();
    start_both();
    for (uint32_t i = 0; i < ARRAY_SIZE(formats); i++) {
        make_resource(2 * i + 1, formats[i], WIDTH, HEIGHT);
        make_resource(2 * i + 2, formats[i], 64, 64);
        set_output(1 + some(150), 1 + some(150));
        for (unsigned n = 0; n < 4; n++)
            draw_something(2 * i + 1);
    }
    /* Guest memory itself. */
    struct gpu_request blob = {.type = GPU_REQUEST_BLOB, .blob = {99, 1 << 20}};
    struct gpu_range range = {RAM_GPA + 4096, 1 << 20};
    struct gpu_request back = {.type = GPU_REQUEST_BACKING, .backing = {99, 1}};
    struct gpu_request show = {
        .type = GPU_REQUEST_SCANOUT,
        .scanout = {0, 99, {3, 4, 50, 40}, GPU_FORMAT_R8G8B8X8, WIDTH, HEIGHT, 512, 100}};
    struct gpu_request render = {.type = GPU_REQUEST_RENDER};
    assert_int_equal(ask_both(&blob, NULL, 0), GPU_OK);
    assert_int_equal(ask_both(&back, &range, sizeof(range)), GPU_OK);
    assert_int_equal(ask_both(&show, NULL, 0), GPU_OK);
    assert_int_equal(ask_both(&render, NULL, 0), GPU_OK);
    assert_memory_equal(both[0].frame->pixels, both[1].frame->pixels, both[0].frame->size);
    destroy_both();
}

/* --- Bad manners -------------------------------------------------------------------------------
 */

#define ASKED 9u

static const struct {
    const char *manner;
    unsigned well; /* requests that are answered before the end */
    unsigned watchdog_ms;
    const char *why;
} cases[] = {
    {"signal 11 3", 2, 0, "it was ended by signal 11 (Segmentation fault)"},
    {"signal 9 1", 0, 0, "it was ended by signal 9 (Killed)"},
    {"signal 6 9", 8, 0, "it was ended by signal 6 (Aborted)"},
    {"exit 3 4", 3, 0, "it ended with status 3"},
    {"exit 0 4", 3, 0, "it ended with status 0"},
    {"half 7 2", 1, 0, "it ended with status 7"},
    {"close 0 2", 1, 0, "it closed its socket"},
    {"serial 1 2", 1, 0, "it answered what nobody had asked"},
    {"serial -1 2", 1, 0, "it answered what nobody had asked"},
    {"type 1 2", 1, 0, "it answered what nobody had asked"},
    {"size 0 3", 2, 0, "it answered what nobody had asked"},
    {"size 271 3", 2, 0, "it answered what nobody had asked"},
    {"size 17000000 3", 2, 0, "it answered what nobody had asked"},
    {"size -1 3", 2, 0, "it answered what nobody had asked"},
    {"twice 0 3", 3, 0, "it answered what nobody had asked"},
    {"garbage 0 1", 0, 0, "it answered what nobody had asked"},
    {"garbage 255 5", 4, 0, "it answered what nobody had asked"},
    {"flood 1 5", 4, 0, "it answered what nobody had asked"},
    {"silence 0 3", 2, 1500, "it did not answer for 1.5 s"},
    /* It says that bytes follow, and none do. */
    {"size 16000000 9", 8, 2000, "it did not answer for 2 s"},
};

static void run_case(unsigned index)
{
    uint64_t serials[ASKED + 1];
    heard.count = heard.lost = 0;
    renderer = start(cases[index].manner, cases[index].watchdog_ms);
    gpu_renderer_listen(renderer, &listener);
    for (unsigned i = 0; i < ASKED; i++)
        serials[i] = fence();
    wait_for(ASKED, true);
    assert_string_equal(heard.why, cases[index].why);
    assert_int_equal(heard.count_at_loss, ASKED);
    serials[ASKED] = fence();
    wait_for(ASKED + 1, true);
    assert_int_equal(heard.count, ASKED + 1);
    assert_int_equal(heard.lost, 1);
    for (unsigned i = 0; i <= ASKED; i++) {
        assert_int_equal(heard.answers[i].serial, serials[i]);
        assert_int_equal(heard.answers[i].type, GPU_REQUEST_FENCE);
        /* No adapter was opened. */
        assert_int_equal(heard.answers[i].status,
                         i < cases[index].well ? GPU_BAD_REQUEST : GPU_LOST);
    }
    gpu_renderer_destroy(renderer);
    renderer = NULL;
}

static void test_manners(void **state)
{
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        print_message("  %s\n", cases[i].manner);
        run_case(i);
    }
}

/* What it says about failures is text, and GPU_LOST is not its to say. */
static void test_status(void **state)
{
    struct gpu_request request = {.type = GPU_REQUEST_FENCE};
    struct error err;
    renderer = start("status 4 1", 0);
    gpu_renderer_listen(renderer, &listener);
    fence();
    wait_for(1, false);
    assert_int_equal(heard.answers[0].status, GPU_FAILED);
    assert_int_equal(strlen(heard.answers[0].message), sizeof(heard.answers[0].message) - 1);
    assert_false(gpu_renderer_call(renderer, &request, 20000, NULL, NULL, 0, NULL, &err));
    assert_string_equal(err.message, "no adapter is open");
    assert_int_equal(heard.lost, 0);
}

/* Time counts from the last answer: many requests for a slow renderer are no reason. */
static void test_slow(void **state)
{
    renderer = start("slow 150 1", 1500);
    gpu_renderer_listen(renderer, &listener);
    for (unsigned i = 0; i < 13; i++)
        fence();
    wait_for(13, false);
    assert_int_equal(heard.lost, 0);
    /* And no time counts while nothing is asked. */
    usleep(1700000);
    fence();
    wait_for(14, false);
    assert_int_equal(heard.lost, 0);
    assert_int_equal(heard.answers[13].status, GPU_BAD_REQUEST);
}

static uint32_t pid_of(struct gpu_renderer *of, uint32_t *descriptor_count)
{
    struct gpu_request request = {.type = GPU_REQUEST_ADAPTERS};
    struct gpu_adapter_info adapter;
    size_t got;
    struct error err;
    if (!gpu_renderer_call(of, &request, 20000, NULL, &adapter, sizeof(adapter), &got, &err))
        fail_msg("%s", err.message);
    assert_int_equal(got, sizeof(adapter));
    if (descriptor_count)
        *descriptor_count = adapter.vendor_id;
    return adapter.device_id;
}

static bool is_there(uint32_t pid)
{
    return kill((pid_t)pid, 0) == 0;
}

/* It dies with nothing to do, before anybody listens: who listens later hears of it. */
static void test_late_listener(void **state)
{
    renderer = start("", 0);
    uint32_t pid = pid_of(renderer, NULL);
    assert_int_equal(kill((pid_t)pid, SIGKILL), 0);
    while (is_there(pid))
        usleep(1000);
    usleep(50000);
    gpu_renderer_listen(renderer, &listener);
    fence();
    wait_for(1, true);
    assert_int_equal(heard.answers[0].status, GPU_LOST);
    assert_string_equal(heard.why, "it was ended by signal 9 (Killed)");
    for (unsigned i = 0; i < 20; i++)
        fence();
    wait_for(21, true);
    assert_int_equal(heard.lost, 1);
}

static void test_idle_death(void **state)
{
    renderer = start("", 0);
    uint32_t pid = pid_of(renderer, NULL);
    gpu_renderer_listen(renderer, &listener);
    assert_int_equal(kill((pid_t)pid, SIGTERM), 0);
    wait_for(0, true);
    assert_string_equal(heard.why, "it was ended by signal 15 (Terminated)");
    assert_false(is_there(pid));
}

/* A call that waits is told, too. */
static void test_call(void **state)
{
    struct gpu_request request = {.type = GPU_REQUEST_FENCE};
    struct error err;
    renderer = start("silence 0 1", 200);
    assert_false(gpu_renderer_call(renderer, &request, 20000, NULL, NULL, 0, NULL, &err));
    assert_string_equal(err.message, "the renderer was lost");
    /* One that had given up hears nothing, and nothing is left of it. */
    gpu_renderer_destroy(renderer);
    renderer = start("silence 0 1", 0);
    assert_false(gpu_renderer_call(renderer, &request, 50, NULL, NULL, 0, NULL, &err));
    assert_string_equal(err.message, "the wgpu renderer did not answer within 50 ms");
}

/* Of 4 MiB each, to one that reads none: whoever submits does not wait. */
static void test_never_waits(void **state)
{
    const size_t size = GPU_MAX_RANGES * sizeof(struct gpu_range);
    struct gpu_range *ranges = calloc(1, size);
    renderer = start("", 0);
    gpu_renderer_listen(renderer, &listener);
    uint32_t pid = pid_of(renderer, NULL);
    assert_int_equal(kill((pid_t)pid, SIGSTOP), 0);
    double begin = now();
    for (unsigned i = 0; i < 10; i++) {
        struct gpu_request request = {.type = GPU_REQUEST_BACKING, .backing = {1, GPU_MAX_RANGES}};
        gpu_renderer_submit(renderer, &request, ranges, size, -1);
    }
    assert_true(now() - begin < 5);
    assert_int_equal(heard.count, 0);
    assert_int_equal(kill((pid_t)pid, SIGCONT), 0);
    wait_for(10, false);
    /* Nor does the end, with one of them half sent. */
    assert_int_equal(kill((pid_t)pid, SIGSTOP), 0);
    for (unsigned i = 0; i < 3; i++) {
        struct gpu_request request = {.type = GPU_REQUEST_BACKING, .backing = {1, GPU_MAX_RANGES}};
        gpu_renderer_submit(renderer, &request, ranges, size, -1);
    }
    usleep(50000);
    begin = now();
    gpu_renderer_destroy(renderer);
    assert_true(now() - begin < 5);
    renderer = NULL;
    assert_false(is_there(pid));
    assert_int_equal(heard.count, 10);
    assert_int_equal(heard.lost, 0);
    free(ranges);
}

static void test_destroy(void **state)
{
    const char *const manners[] = {"silence 0 1", "silence 0 3", "slow 20 1", "flood 1 2", ""};
    for (unsigned i = 0; i < ARRAY_SIZE(manners); i++) {
        heard.count = heard.lost = 0;
        renderer = start(manners[i], 0);
        gpu_renderer_listen(renderer, &listener);
        for (unsigned n = 0; n < 50; n++)
            fence();
        usleep(i * 10000);
        double begin = now();
        gpu_renderer_destroy(renderer);
        renderer = NULL;
        assert_true(now() - begin < 5);
        size_t count = heard.count;
        unsigned lost = heard.lost;
        usleep(20000);
        assert_int_equal(heard.count, count);
        assert_int_equal(heard.lost, lost);
    }
}

static void *submit_many(void *opaque)
{
    for (unsigned i = 0; i < 1000; i++)
        fence();
    return NULL;
}

/* Submissions while it dies: each is answered once, in order. */
static void test_race(void **state)
{
    pthread_t threads[3];
    renderer = start("signal 9 200", 0);
    gpu_renderer_listen(renderer, &listener);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, submit_many, NULL), 0);
    for (unsigned i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    wait_for(3000, true);
    assert_int_equal(heard.count, 3000);
    assert_int_equal(heard.lost, 1);
    for (unsigned i = 0; i < 3000; i++) {
        assert_int_equal(heard.answers[i].serial, i + 1);
        assert_int_equal(heard.answers[i].status, i < 199 ? GPU_BAD_REQUEST : GPU_LOST);
    }
}

/* --- Starting ----------------------------------------------------------------------------------
 */

static void test_missing_program(void **state)
{
    struct error err;
    setenv("HARTVISOR_GPU", "/nonexistent/renderer", 1);
    assert_null(gpu_process_create(0, &err));
    assert_non_null(strstr(err.message, "HARTVISOR_GPU names /nonexistent/renderer"));
    setenv("HARTVISOR_GPU", "/proc/self/status", 1);
    assert_null(gpu_process_create(0, &err));
    assert_non_null(strstr(err.message, "/proc/self/status"));
    /* A test has none beside it; one may be installed. */
    unsetenv("HARTVISOR_GPU");
    renderer = gpu_process_create(0, &err);
    if (!renderer)
        assert_non_null(strstr(err.message, "/tests/unit/hartvisor-gpu or "));
}

/* It has its socket and the three that everybody has, whatever this process has. */
static void test_descriptors(void **state)
{
    uint32_t count;
    int more[3];
    for (unsigned i = 0; i < 3; i++)
        more[i] = open("/dev/null", O_RDONLY); /* not closed by exec */
    renderer = start("", 0);
    pid_of(renderer, &count);
    assert_int_equal(count, 4);
    for (unsigned i = 0; i < 3; i++)
        close(more[i]);
}

static void test_private_memory(void **state)
{
    uint8_t bytes[16];
    const struct memory_ram ram = {.base = RAM_GPA, .size = RAM_SIZE, .host = bytes, .fd = -1};
    struct error err;
    renderer = start("", 0);
    assert_false(gpu_renderer_add_memory(renderer, &ram, &err));
    assert_non_null(strstr(err.message, "memory_share_ram"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_pictures),
        TEST(test_manners),
        TEST(test_status),
        TEST(test_slow),
        TEST(test_call),
        TEST(test_late_listener),
        TEST(test_idle_death),
        TEST(test_destroy),
        TEST(test_never_waits),
        TEST(test_race),
        TEST(test_descriptors),
        TEST(test_private_memory),
        TEST(test_missing_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
