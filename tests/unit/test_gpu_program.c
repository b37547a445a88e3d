/* hartvisor-gpu as a machine has it: the program itself, confined, on whatever adapter there is. */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "renderer/renderer.h"

#define CALL_MS  60000
#define RAM_GPA  UINT64_C(0x80000000)
#define RAM_SIZE (64u << 10)
#define WIDTH    97
#define HEIGHT   61

static struct gpu_renderer *renderer;
static uint32_t *ram;
static int ram_fd;
static unsigned failures; /* under no lock: read after a call that came later */

static void count_failures(void *opaque, const struct gpu_answer *answer, const void *payload)
{
    failures += answer->status != GPU_OK;
}

static struct gpu_renderer *start_program(void)
{
    struct error err;
    setenv("HARTVISOR_GPU", RENDERER, 1);
    setenv("ASAN_OPTIONS", "detect_leaks=0", 1); /* which needs another process */
    struct gpu_renderer *started = gpu_process_create(0, &err);
    if (!started)
        fail_msg("%s", err.message);
    return started;
}

static void submit(struct gpu_request request, const void *payload, size_t size, int fd)
{
    gpu_renderer_submit(renderer, &request, payload, size, fd);
}

static struct gpu_answer call(struct gpu_request request)
{
    struct gpu_answer answer = {0};
    struct error err;
    if (!gpu_renderer_call(renderer, &request, CALL_MS, &answer, NULL, 0, NULL, &err))
        fail_msg("%s", err.message);
    return answer;
}

/* Software Vulkan comes with the packages that the tests need. */
static void need_adapter(void)
{
    struct adapters adapters = {0};
    adapters_init(&adapters);
    size_t count = adapters.count;
    adapters_finish(&adapters);
    if (!count) {
        print_message("there is no Vulkan driver: mesa-vulkan-drivers has one\n");
        skip();
    }
}

/* Drivers keep what they like until the end of the process. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

/* A renderer that has an adapter and guest memory with noise in it. */
static void open_program(void)
{
    struct error err;
    need_adapter();
    failures = 0;
    renderer = start_program();
    gpu_renderer_listen(renderer, &(struct gpu_listener){.answered = count_failures});
    call((struct gpu_request){.type = GPU_REQUEST_OPEN,
                              .open = {.version = GPU_PROTOCOL_VERSION, .count = 1}});
    ram_fd = memfd_create("ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(ram_fd, RAM_SIZE), 0);
    ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, ram_fd, 0);
    assert_ptr_not_equal(ram, MAP_FAILED);
    for (uint32_t i = 0; i < RAM_SIZE / 4; i++)
        ram[i] = i * 0x9e3779b1;
    const struct memory_ram region = {
        .base = RAM_GPA, .size = RAM_SIZE, .host = (void *)ram, .fd = ram_fd};
    assert_true(gpu_renderer_add_memory(renderer, &region, &err));
}

static void close_program(void)
{
    gpu_renderer_destroy(renderer);
    renderer = NULL;
    munmap(ram, RAM_SIZE);
    close(ram_fd);
}

static void upload(uint32_t id)
{
    const struct gpu_range range = {RAM_GPA, RAM_SIZE};
    submit((struct gpu_request){.type = GPU_REQUEST_RESOURCE,
                                .resource = {id, GPU_FORMAT_B8G8R8X8, WIDTH, HEIGHT}},
           NULL, 0, -1);
    submit((struct gpu_request){.type = GPU_REQUEST_BACKING, .backing = {id, 1}}, &range,
           sizeof(range), -1);
    submit((struct gpu_request){.type = GPU_REQUEST_TRANSFER,
                                .transfer = {id, {0, 0, WIDTH, HEIGHT}, 0}},
           NULL, 0, -1);
}

/* A resource is destroyed while its upload waits for others to be submitted with: those arrive. */
static void test_drawing(void **state)
{
    struct error err;
    open_program();
    struct gpu_frame *frame = gpu_frame_create(WIDTH, HEIGHT, &err);
    submit((struct gpu_request){.type = GPU_REQUEST_OUTPUT,
                                .output = {0, WIDTH, HEIGHT, frame->stride}},
           NULL, 0, frame->fd);
    upload(1);
    upload(2);
    submit((struct gpu_request){.type = GPU_REQUEST_DESTROY, .id = 1}, NULL, 0, -1);
    submit((struct gpu_request){.type = GPU_REQUEST_SCANOUT,
                                .scanout = {.id = 2, .rect = {0, 0, WIDTH, HEIGHT}}},
           NULL, 0, -1);
    struct gpu_answer answer = call((struct gpu_request){.type = GPU_REQUEST_RENDER});
    assert_int_equal(failures, 0);
    assert_int_equal(answer.rect.width, WIDTH);
    assert_int_equal(answer.rect.height, HEIGHT);
    for (uint32_t i = 0; i < WIDTH * HEIGHT; i++)
        assert_int_equal(((uint32_t *)frame->pixels)[i], ram[i] | 0xff000000);
    close_program();
    gpu_frame_put(frame);
}

/* A machine that has no descriptor left goes on without a renderer. */
static void test_no_descriptors(void **state)
{
    struct error err;
    struct rlimit before, now;
    setenv("HARTVISOR_GPU", RENDERER, 1);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    int next = dup(0);
    close(next);
    /* None, the one of the event, and one end of the socket. */
    for (unsigned left = 0; left < 3; left++) {
        now = (struct rlimit){(rlim_t)next + left, before.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
        struct gpu_renderer *started = gpu_process_create(0, &err);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        assert_null(started);
        assert_non_null(strstr(err.message, "Too many open files"));
    }
    int again = dup(0);
    close(again);
    assert_int_equal(again, next);
}

/* What a renderer says may go to a terminal. */
static void test_texts(void **state)
{
    char text[9] = "a\033[\n\177\303\251z";
    gpu_text_tame(text, 8);
    assert_string_equal(text, "a?[??\303\251");
}

/* In a process of its own: there is no way back. */
static void expect_zero(pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void *touch(void *path)
{
    return open(path, O_RDWR) < 0 && errno == EACCES ? path : NULL;
}

static int look_at_files(char *path)
{
    struct error err;
    pthread_t thread;
    void *seen;
    int fd = open(path, O_RDWR);
    if (!sandbox_close_files(&err))
        return 1;
    if (open(path, O_RDWR) >= 0 || errno != EACCES)
        return 2;
    if (unlink(path) == 0 || errno != EACCES)
        return 3;
    if (open("/tmp/sandboxed", O_RDWR | O_CREAT, 0600) >= 0 || errno != EACCES)
        return 4;
    if (pthread_create(&thread, NULL, touch, path) || pthread_join(thread, &seen) || seen != path)
        return 5;
    if (open(path, O_RDONLY) < 0 || open("/dev/null", O_RDWR) < 0)
        return 6;
    /* What was opened before is its own. */
    if (write(fd, "x", 1) != 1)
        return 7;
    int memory = memfd_create("memory", MFD_CLOEXEC);
    return memory >= 0 && ftruncate(memory, 4096) == 0 ? 0 : 8;
}

static void test_files(void **state)
{
    char path[] = "/tmp/hartvisor-test-XXXXXX";
    if (syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) < 1) {
        print_message("this kernel has no Landlock\n");
        skip();
    }
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    pid_t child = fork();
    if (!child)
        _exit(look_at_files(path));
    expect_zero(child);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_drawing),
        cmocka_unit_test(test_no_descriptors),
        cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
