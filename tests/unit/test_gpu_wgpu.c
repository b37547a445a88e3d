/* The WebGPU canvas against pixman's: equal pixels for the same requests. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "renderer/renderer.h"

static struct adapters adapters;
static struct gpu_canvas *wgpu, *plain;
static struct gpu_counters counters;

static const uint32_t formats[] = {GPU_FORMAT_B8G8R8A8, GPU_FORMAT_B8G8R8X8, GPU_FORMAT_A8R8G8B8,
                                   GPU_FORMAT_X8R8G8B8, GPU_FORMAT_R8G8B8A8, GPU_FORMAT_X8B8G8R8,
                                   GPU_FORMAT_A8B8G8R8, GPU_FORMAT_R8G8B8X8};

static int start(void **state)
{
    memset(&adapters, 0xff, sizeof(adapters));
    adapters_init(&adapters);
    assert_false(adapters.indirect);
    return 0;
}

/* As on a device that has memory of its own. */
static int start_indirect(void **state)
{
    adapters_init(&adapters);
    adapters.indirect = true;
    return 0;
}

static int finish(void **state)
{
    adapters_finish(&adapters);
    return 0;
}

static int create(void **state)
{
    struct error err;
    const uint32_t indices[] = {0, 0};
    if (!adapters.count)
        return 0;
    wgpu = wgpu_canvas_create(&adapters, indices, 2, &err);
    plain = gpu_canvas_pixman_create(&err);
    if (!wgpu || !plain)
        fail_msg("%s", err.message);
    wgpu->counters = plain->counters = &counters;
    counters = (struct gpu_counters){0};
    return 0;
}

/* Drivers keep what they like until the end of the process. What is ours is counted below. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

/* Nothing that a canvas had is left, neither by its own count nor by wgpu's. */
static int destroy(void **state)
{
    WGPUGlobalReport report;
    if (!adapters.count)
        return 0;
    wgpu->ops->destroy(wgpu);
    plain->ops->destroy(plain);
    wgpuGenerateReport(adapters.instance, &report);
    const WGPURegistryReport *const kinds[] = {
        &report.hub.devices,       &report.hub.queues,          &report.hub.buffers,
        &report.hub.textures,      &report.hub.textureViews,    &report.hub.bindGroups,
        &report.hub.shaderModules, &report.hub.renderPipelines, &report.hub.commandBuffers,
        &report.hub.querySets,     &report.hub.bindGroupLayouts};
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (kinds[i]->numKeptFromUser)
            fail_msg("%zu things of kind %zu are left", kinds[i]->numKeptFromUser, i);
    return 0;
}

/* Software Vulkan comes with the packages that the tests need. */
static void need_adapter(void)
{
    if (!adapters.count) {
        print_message("there is no Vulkan driver: mesa-vulkan-drivers has one\n");
        skip();
    }
}

static uint32_t random_below(uint32_t limit)
{
    return (uint32_t)(rand() >> 3) % limit;
}

/* A rectangle of a picture, not empty. */
static struct gpu_rect random_rect(uint32_t width, uint32_t height)
{
    struct gpu_rect rect = {random_below(width), random_below(height), 0, 0};
    rect.width = 1 + random_below(width - rect.x);
    rect.height = 1 + random_below(height - rect.y);
    return rect;
}

static void write_noise(struct gpu_canvas *canvas, struct gpu_image *image,
                        const struct gpu_rect *rect, unsigned seed, bool premultiplied)
{
    size_t stride;
    uint8_t *pixels = canvas->ops->write_begin(canvas, image, rect, &stride);
    assert_non_null(pixels);
    for (uint32_t y = 0; y < rect->height; y++)
        for (uint32_t x = 0; x < rect->width * 4; x++) {
            seed = seed * 1103515245 + 12345;
            pixels[y * stride + x] = (uint8_t)(seed >> 16);
            /* Colours that are no more than a small alpha would be. */
            if (premultiplied)
                pixels[y * stride + x] &= 0x7f;
        }
    canvas->ops->write_end(canvas, image, rect);
}

struct picture {
    struct gpu_image *wgpu, *plain;
    uint32_t width, height;
};

static struct picture make_picture(unsigned adapter, uint32_t format, uint32_t width,
                                   uint32_t height)
{
    struct picture picture = {wgpu->ops->image_create(wgpu, adapter, format, width, height),
                              plain->ops->image_create(plain, 0, format, width, height), width,
                              height};
    assert_non_null(picture.wgpu);
    assert_non_null(picture.plain);
    return picture;
}

static void fill_picture(const struct picture *picture, const struct gpu_rect *rect,
                         bool premultiplied)
{
    unsigned seed = (unsigned)rand();
    write_noise(wgpu, picture->wgpu, rect, seed, premultiplied);
    write_noise(plain, picture->plain, rect, seed, premultiplied);
}

static void drop_picture(const struct picture *picture)
{
    if (picture->wgpu)
        wgpu->ops->image_destroy(wgpu, picture->wgpu);
    if (picture->plain)
        plain->ops->image_destroy(plain, picture->plain);
}

/* Composes the same on both; no byte may differ by more than `step`. */
static void compare(const struct picture *picture, const struct picture *cursor,
                    struct gpu_composition what, const struct gpu_rect *damage, int step)
{
    size_t stride = (size_t)what.width * 4 + 8, size = stride * what.height;
    uint8_t *first = malloc(size), *second = malloc(size);
    memset(first, 0x33, size);
    memset(second, 0x33, size);
    what.image = picture->wgpu;
    what.cursor = cursor ? cursor->wgpu : NULL;
    assert_true(wgpu->ops->compose(wgpu, &what, damage, first, stride));
    what.image = picture->plain;
    what.cursor = cursor ? cursor->plain : NULL;
    assert_true(plain->ops->compose(plain, &what, damage, second, stride));
    for (size_t i = 0; i < size; i++)
        if (abs(first[i] - second[i]) > step)
            fail_msg("byte %zu of %ux%u at %zu,%zu is 0x%02x, and 0x%02x by pixman", i % 4,
                     what.width, what.height, i % stride / 4, i / stride, first[i], second[i]);
    free(first);
    free(second);
}

static void test_formats(void **state)
{
    need_adapter();
    for (unsigned i = 0; i < ARRAY_SIZE(formats); i++) {
        struct picture picture = make_picture(i % 2, formats[i], 97, 61);
        const struct gpu_rect all = {0, 0, 97, 61};
        fill_picture(&picture, &all, false);
        for (unsigned k = 0; k < 4; k++) {
            struct gpu_rect part = random_rect(97, 61);
            fill_picture(&picture, &part, false);
        }
        struct gpu_composition what = {.source = all, .width = 97, .height = 61};
        compare(&picture, NULL, what, &all, 0);
        /* A part of a part. */
        what.source = random_rect(97, 61);
        what.width = what.source.width;
        what.height = what.source.height;
        const struct gpu_rect damage = random_rect(what.width, what.height);
        compare(&picture, NULL, what, &damage, 0);
        drop_picture(&picture);
    }
}

static void test_cursors(void **state)
{
    need_adapter();
    const struct gpu_rect all = {0, 0, 97, 61}, square = {0, 0, 64, 64};
    struct picture picture = make_picture(0, GPU_FORMAT_B8G8R8X8, 97, 61);
    fill_picture(&picture, &all, false);
    for (unsigned i = 0; i < 24; i++) {
        struct picture cursor = make_picture(0, formats[(i % 4) * 2], 64, 64);
        fill_picture(&cursor, &square, true);
        const struct gpu_composition what = {.source = all,
                                             .width = 97,
                                             .height = 61,
                                             .cursor_x = (int32_t)random_below(160) - 63,
                                             .cursor_y = (int32_t)random_below(124) - 63};
        compare(&picture, &cursor, what, &all, 0);
        drop_picture(&cursor);
    }
    drop_picture(&picture);
}

/* Up and down, with and without a cursor: within a step, as pixman's own paths differ by one. */
static void test_scaling(void **state)
{
    need_adapter();
    const struct gpu_rect square = {0, 0, 64, 64};
    for (unsigned i = 0; i < 60; i++) {
        uint32_t width = 65 + random_below(100), height = 65 + random_below(100);
        const struct gpu_rect all = {0, 0, width, height};
        struct picture picture = make_picture(i % 2, formats[i % 8], width, height);
        struct picture cursor = make_picture(i % 2, GPU_FORMAT_B8G8R8A8, 64, 64);
        fill_picture(&picture, &all, false);
        fill_picture(&cursor, &square, true);
        struct gpu_composition what = {.source = i % 3 ? all : random_rect(width, height),
                                       .width = 1 + random_below(300),
                                       .height = 1 + random_below(300)};
        what.cursor_x = (int32_t)random_below(what.source.width + 60) - 60;
        what.cursor_y = (int32_t)random_below(what.source.height + 60) - 60;
        const struct gpu_rect damage = random_rect(what.width, what.height);
        compare(&picture, i % 2 ? &cursor : NULL, what, &damage, i % 2 ? 2 : 1);
        drop_picture(&picture);
        drop_picture(&cursor);
    }
}

static void test_read(void **state)
{
    need_adapter();
    const struct gpu_rect all = {0, 0, 77, 33};
    struct picture picture = make_picture(1, GPU_FORMAT_X8R8G8B8, 77, 33);
    uint8_t first[77 * 33 * 4], second[77 * 33 * 4];
    fill_picture(&picture, &all, false);
    assert_true(wgpu->ops->read(wgpu, picture.wgpu, first));
    assert_true(plain->ops->read(plain, picture.plain, second));
    assert_memory_equal(first, second, sizeof(first));
    drop_picture(&picture);
}

/* More uploads than the buffers hold at a time; then all that was counted is gone again. */
static void test_load(void **state)
{
    need_adapter();
    const struct gpu_rect all = {0, 0, 1920, 1080};
    uint64_t before = wgpu->adapters[0].memory;
    uint64_t things = wgpu->adapters[0].textures + wgpu->adapters[0].buffers;
    struct picture picture = make_picture(0, GPU_FORMAT_B8G8R8X8, 1920, 1080);
    assert_int_equal(wgpu->adapters[0].textures + wgpu->adapters[0].buffers, things + 1);
    assert_int_equal(wgpu->adapters[0].memory, before + 1920 * 1080 * 4);
    for (unsigned i = 0; i < 20; i++)
        write_noise(wgpu, picture.wgpu, &all, i, false);
    write_noise(plain, picture.plain, &all, 19, false);
    const struct gpu_composition what = {.source = all, .width = 1920, .height = 1080};
    compare(&picture, NULL, what, &all, 0);
    assert_true(wgpu->adapters[0].memory_peak < (UINT64_C(128) << 20));
    assert_int_equal(counters.render_passes, 1);
    assert_int_equal(counters.bytes_read_back, 1920 * 1080 * 4);
    drop_picture(&picture);
    assert_int_equal(wgpu->adapters[0].textures, 1); /* of frames */
}

/* A small picture that is shown as it is, and must come out right. */
static void check_drawing(void)
{
    const struct gpu_rect all = {0, 0, 33, 21};
    struct picture picture = make_picture(0, GPU_FORMAT_R8G8B8A8, 33, 21);
    fill_picture(&picture, &all, false);
    compare(&picture, NULL, (struct gpu_composition){.source = all, .width = 33, .height = 21},
            &all, 0);
    drop_picture(&picture);
}

/* Guests do this to what they no longer show. */
static void test_end_after_upload(void **state)
{
    need_adapter();
    const struct gpu_rect all = {0, 0, 64, 64};
    for (unsigned i = 0; i < 3; i++) {
        struct picture picture = make_picture(0, GPU_FORMAT_B8G8R8X8, 64, 64);
        fill_picture(&picture, &all, false);
        drop_picture(&picture);
        check_drawing();
    }
    /* Large ones, of which little is used: the device must not collect them. */
    for (unsigned i = 0; i < 40; i++) {
        struct gpu_image *image = wgpu->ops->image_create(wgpu, 0, GPU_FORMAT_B8G8R8X8, 4096, 2048);
        assert_non_null(image);
        write_noise(wgpu, image, &all, i, false);
        wgpu->ops->image_destroy(wgpu, image);
    }
    check_drawing();
    assert_true(wgpu->adapters[0].memory_peak < (UINT64_C(128) << 20));
}

/* Buffers for small uploads are all that there are, when a large one comes. */
static void test_many_small_uploads(void **state)
{
    need_adapter();
    const struct gpu_rect all = {0, 0, 512, 512};
    struct picture picture = make_picture(0, GPU_FORMAT_B8G8R8X8, 512, 512);
    for (unsigned i = 0; i < 300; i++) {
        const struct gpu_rect part = {i, i, 16, 16};
        fill_picture(&picture, &part, false);
    }
    fill_picture(&picture, &all, false);
    for (unsigned i = 0; i < 100; i++) {
        const struct gpu_rect part = {i, i, 1, 1};
        fill_picture(&picture, &part, false);
    }
    const struct gpu_composition what = {.source = all, .width = 512, .height = 512};
    compare(&picture, NULL, what, &all, 0);
    drop_picture(&picture);
}

/* What a device reports fails one request, and no other. */
static void test_errors(void **state)
{
    need_adapter();
    struct error err;
    const struct gpu_rect all = {0, 0, 64, 64}, corner = {0, 0, 1, 1};
    struct gpu_device *device = gpu_device_open(&adapters, 0, &err);
    struct gpu_image *image = wgpu->ops->image_create(wgpu, 0, GPU_FORMAT_B8G8R8X8, 64, 64);
    struct gpu_composition what = {.image = image, .source = all, .width = 64, .height = 64};
    uint8_t pixels[64 * 64 * 4];
    assert_non_null(device);
    assert_true(wgpu->ops->compose(wgpu, &what, &all, pixels, 64 * 4));
    const WGPUBufferDescriptor bad = {.usage = WGPUBufferUsage_CopyDst,
                                      .size = device->max_buffer_size + 5};
    WGPUBuffer buffer = wgpuDeviceCreateBuffer(device->handle, &bad);
    assert_false(wgpu->ops->compose(wgpu, &what, &all, pixels, 64 * 4));
    assert_non_null(strstr(wgpu->message, "buffer size"));
    assert_null(strchr(wgpu->message, '\n'));
    assert_true(wgpu->ops->compose(wgpu, &what, &all, pixels, 64 * 4));
    wgpuBufferRelease(buffer);

    /* What an adapter cannot do is an error, not the end. */
    uint32_t most = device->max_texture_size;
    if (device->direct)
        assert_null(wgpu->ops->image_create(wgpu, 0, GPU_FORMAT_B8G8R8X8, 1 << 16, 1 << 16));
    else
        assert_null(wgpu->ops->image_create(wgpu, 0, GPU_FORMAT_B8G8R8X8, most + 1, 1));
    assert_non_null(strstr(wgpu->message, "at most"));

    /* Nor is what the device refuses, though the canvas thinks it fits. */
    device->max_texture_size = most + 1;
    if (!device->direct)
        assert_null(wgpu->ops->image_create(wgpu, 0, GPU_FORMAT_B8G8R8X8, most + 1, 1));
    uint8_t *wide = malloc((size_t)(most + 1) * 4);
    what.width = most + 1;
    what.height = 1;
    for (unsigned i = 0; i < 2; i++)
        assert_false(wgpu->ops->compose(wgpu, &what, &corner, wide, (size_t)(most + 1) * 4));
    device->max_texture_size = most;
    free(wide);
    check_drawing();
    wgpu->ops->image_destroy(wgpu, image);
    gpu_device_put(device);
}

/* Frames of many sizes do not pile up. */
static void test_output_sizes(void **state)
{
    need_adapter();
    const struct gpu_rect all = {0, 0, 64, 64}, corner = {0, 0, 1, 1};
    struct picture picture = make_picture(0, GPU_FORMAT_B8G8R8X8, 64, 64);
    fill_picture(&picture, &all, false);
    for (unsigned i = 0; i < 12; i++) {
        const struct gpu_composition what = {
            .source = all, .width = 4096 + i, .height = i % 2 ? 4096 : 16};
        compare(&picture, NULL, what, &corner, 1);
    }
    assert_true(wgpu->adapters[0].memory < (UINT64_C(320) << 20));
    assert_true(wgpu->adapters[0].textures <= 9);
    drop_picture(&picture);
}

static void *run_thread(void *opaque)
{
    return opaque;
}

/* Run in a process of its own: there is no way back. */
static void test_sandbox(void **state)
{
    pid_t machine = getpid(), child = fork();
    if (!child) {
        struct error err;
        char *words[] = {"/bin/true", NULL};
        if (!sandbox_enter(&err))
            _exit(1);
        if (execve(words[0], words, NULL) == 0 || errno != EPERM)
            _exit(2);
        if (socket(AF_INET, SOCK_STREAM, 0) >= 0 || errno != EPERM)
            _exit(3);
        if (open("/tmp/sandboxed", O_WRONLY | O_CREAT, 0600) >= 0 || errno != EPERM)
            _exit(4);
        if (open("/dev/null", O_RDONLY) < 0)
            _exit(5);
        void *memory = malloc(1 << 24);
        if (!memory)
            _exit(6);
        /* Nor another process, nor a word to one; writing to its memory would be as good. */
        if (fork() >= 0 || errno != EPERM)
            _exit(7);
        if (kill(machine, 0) == 0 || errno != EPERM)
            _exit(8);
        if (access("/dev/nvidiactl", F_OK) < 0 &&
            (open("/proc/self/mem", O_RDWR) >= 0 || errno != EPERM))
            _exit(9);
        pthread_t thread;
        if (pthread_create(&thread, NULL, run_thread, NULL) || pthread_join(thread, NULL))
            _exit(10);
        free(memory);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void *start_renderer(void *opaque)
{
    struct gpu_request request = {.type = GPU_REQUEST_FENCE};
    struct error err;
    struct gpu_renderer *renderer = gpu_process_create(0, &err);
    /* It runs, and knows who started it. */
    if (renderer)
        gpu_renderer_call(renderer, &request, 60000, NULL, NULL, 0, NULL, &err);
    return renderer;
}

/* A manager may go from one thread to another. */
static void test_renderer_outlives_thread(void **state)
{
    need_adapter();
    struct error err;
    struct gpu_request request = {.type = GPU_REQUEST_ADAPTERS};
    struct gpu_answer answer;
    size_t got;
    void *renderer;
    pthread_t thread;
    assert_int_equal(setenv("HARTVISOR_GPU", RENDERER, 1), 0);
    assert_int_equal(setenv("ASAN_OPTIONS", "detect_leaks=0", 1), 0); /* as above */
    assert_int_equal(pthread_create(&thread, NULL, start_renderer, NULL), 0);
    pthread_join(thread, &renderer);
    assert_non_null(renderer);
    for (unsigned i = 0; i < 2; i++) {
        if (!gpu_renderer_call(renderer, &request, 60000, &answer, NULL, 0, &got, &err))
            fail_msg("%s", err.message);
        assert_int_equal(got, adapters.count * sizeof(struct gpu_adapter_info));
    }
    gpu_renderer_destroy(renderer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sandbox),
        cmocka_unit_test(test_renderer_outlives_thread),
        cmocka_unit_test_setup_teardown(test_formats, create, destroy),
        cmocka_unit_test_setup_teardown(test_cursors, create, destroy),
        cmocka_unit_test_setup_teardown(test_scaling, create, destroy),
        cmocka_unit_test_setup_teardown(test_read, create, destroy),
        cmocka_unit_test_setup_teardown(test_load, create, destroy),
        cmocka_unit_test_setup_teardown(test_end_after_upload, create, destroy),
        cmocka_unit_test_setup_teardown(test_many_small_uploads, create, destroy),
        cmocka_unit_test_setup_teardown(test_errors, create, destroy),
        cmocka_unit_test_setup_teardown(test_output_sizes, create, destroy),
    };
    int failed = cmocka_run_group_tests_name("direct", tests, start, finish);
    return failed + cmocka_run_group_tests_name("textures", tests, start_indirect, finish);
}
