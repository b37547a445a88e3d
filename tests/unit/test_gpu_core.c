/* A renderer's core: what requests do to frames, what bad ones do not, and what is counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gpu/gpu.h"

#define RAM_GPA  UINT64_C(0x80000000)
#define RAM_SIZE (4u << 20)
#define WIDTH    80
#define HEIGHT   48

static uint8_t *ram;
static struct gpu_renderer *renderer;
static struct gpu_frame *frame;

static int create(void **state)
{
    struct error err;
    ram = calloc(1, RAM_SIZE);
    renderer = gpu_thread_create(&err);
    if (!renderer)
        return -1;
    const struct memory_ram region = {.base = RAM_GPA, .size = RAM_SIZE, .host = ram, .fd = -1};
    return gpu_renderer_add_memory(renderer, &region, &err) ? 0 : -1;
}

static int destroy(void **state)
{
    gpu_renderer_destroy(renderer);
    gpu_frame_put(frame);
    frame = NULL;
    free(ram);
    return 0;
}

static unsigned last_status;

static void remember(void *opaque, const struct gpu_answer *answer, const void *payload)
{
    last_status = answer->status;
}

static unsigned submit(struct gpu_request *request, const void *payload, size_t size, int fd)
{
    struct gpu_request fence = {.type = GPU_REQUEST_FENCE};
    gpu_renderer_listen(renderer, &(struct gpu_listener){.answered = remember});
    gpu_renderer_submit(renderer, request, payload, size, fd);
    assert_true(gpu_renderer_call(renderer, &fence, 5000, NULL, NULL, 0, NULL, NULL));
    return last_status;
}

static unsigned output(unsigned scanout, uint32_t width, uint32_t height)
{
    gpu_frame_put(frame);
    frame = gpu_frame_create(width, height, NULL);
    struct gpu_request request = {.type = GPU_REQUEST_OUTPUT,
                                  .output = {scanout, width, height, frame->stride}};
    return submit(&request, NULL, 0, frame->fd);
}

static unsigned resource(uint32_t id, uint32_t format, uint32_t width, uint32_t height)
{
    struct gpu_request request = {.type = GPU_REQUEST_RESOURCE,
                                  .resource = {id, format, width, height}};
    return submit(&request, NULL, 0, -1);
}

static unsigned blob(uint32_t id, uint64_t size)
{
    struct gpu_request request = {.type = GPU_REQUEST_BLOB, .blob = {id, size}};
    return submit(&request, NULL, 0, -1);
}

static unsigned backing(uint32_t id, const struct gpu_range *ranges, uint32_t count)
{
    struct gpu_request request = {.type = GPU_REQUEST_BACKING, .backing = {id, count}};
    return submit(&request, ranges, count * sizeof(*ranges), -1);
}

static unsigned transfer(uint32_t id, struct gpu_rect rect, uint64_t offset)
{
    struct gpu_request request = {.type = GPU_REQUEST_TRANSFER, .transfer = {id, rect, offset}};
    return submit(&request, NULL, 0, -1);
}

static unsigned scanout(unsigned number, uint32_t id, struct gpu_rect rect)
{
    struct gpu_request request = {.type = GPU_REQUEST_SCANOUT,
                                  .scanout = {.scanout = number, .id = id, .rect = rect}};
    return submit(&request, NULL, 0, -1);
}

static unsigned flush(uint32_t id, struct gpu_rect rect)
{
    struct gpu_request request = {.type = GPU_REQUEST_FLUSH, .flush = {id, rect}};
    return submit(&request, NULL, 0, -1);
}

static unsigned cursor(unsigned number, uint32_t id, int32_t x, int32_t y)
{
    struct gpu_request request = {.type = GPU_REQUEST_CURSOR,
                                  .cursor = {.scanout = number, .id = id, .x = x, .y = y}};
    return submit(&request, NULL, 0, -1);
}

static struct gpu_rect render(unsigned number)
{
    struct gpu_request request = {.type = GPU_REQUEST_RENDER, .scanout = {.scanout = number}};
    struct gpu_answer answer;
    struct error err;
    if (!gpu_renderer_call(renderer, &request, 5000, &answer, NULL, 0, NULL, &err))
        fail_msg("%s", err.message);
    return answer.rect;
}

static struct gpu_stats stats(unsigned flags)
{
    struct gpu_request request = {.type = GPU_REQUEST_STATS, .flags = flags};
    struct gpu_stats now;
    size_t got;
    assert_true(gpu_renderer_call(renderer, &request, 5000, NULL, &now, sizeof(now), &got, NULL));
    assert_int_equal(got, sizeof(now));
    return now;
}

static void assert_rect(struct gpu_rect rect, uint32_t x, uint32_t y, uint32_t width,
                        uint32_t height)
{
    assert_int_equal(rect.x, x);
    assert_int_equal(rect.y, y);
    assert_int_equal(rect.width, width);
    assert_int_equal(rect.height, height);
}

static const struct gpu_rect all = {0, 0, WIDTH, HEIGHT};
static const struct gpu_range whole = {RAM_GPA, RAM_SIZE};

static void fill_ram(void)
{
    srand(1);
    for (size_t i = 0; i < RAM_SIZE; i++)
        ram[i] = (uint8_t)(rand() >> 7);
}

/* What a pixel of guest memory looks like in a frame. */
static uint32_t shown(const uint8_t *pixel, uint32_t format)
{
    const struct gpu_format_layout *layout = gpu_format_layout(format);
    return GPU_BLACK | (uint32_t)pixel[layout->red] << 16 | (uint32_t)pixel[layout->green] << 8 |
           pixel[layout->blue];
}

static uint32_t frame_pixel(uint32_t x, uint32_t y)
{
    uint32_t pixel;
    memcpy(&pixel, frame->pixels + (size_t)y * frame->stride + (size_t)x * 4, 4);
    return pixel;
}

static const uint32_t all_formats[] = {
    GPU_FORMAT_B8G8R8A8, GPU_FORMAT_B8G8R8X8, GPU_FORMAT_A8R8G8B8, GPU_FORMAT_X8R8G8B8,
    GPU_FORMAT_R8G8B8A8, GPU_FORMAT_X8B8G8R8, GPU_FORMAT_A8B8G8R8, GPU_FORMAT_R8G8B8X8};

static void test_formats(void **state)
{
    fill_ram();
    assert_int_equal(output(0, WIDTH, HEIGHT), GPU_OK);
    for (unsigned i = 0; i < ARRAY_SIZE(all_formats); i++) {
        uint32_t id = i + 1, format = all_formats[i];
        assert_int_equal(resource(id, format, WIDTH, HEIGHT), GPU_OK);
        assert_int_equal(backing(id, &whole, 1), GPU_OK);
        assert_int_equal(transfer(id, all, 0), GPU_OK);
        assert_int_equal(scanout(0, id, all), GPU_OK);
        assert_rect(render(0), 0, 0, WIDTH, HEIGHT);
        for (uint32_t y = 0; y < HEIGHT; y++)
            for (uint32_t x = 0; x < WIDTH; x++)
                assert_int_equal(frame_pixel(x, y), shown(ram + (y * WIDTH + x) * 4, format));
    }
}

/* A backing in pieces of odd sizes, in another order than they lie in memory, gives the picture
 * that the pieces put together are. */
static void test_scattered(void **state)
{
    struct gpu_range ranges[64];
    uint8_t *together = malloc(RAM_SIZE);
    size_t size = 0, count = 0;
    fill_ram();
    for (uint64_t at = RAM_SIZE - 8192; count < ARRAY_SIZE(ranges); at -= 40000, count++) {
        ranges[count] = (struct gpu_range){RAM_GPA + at, 1 + (size_t)rand() % 700};
        memcpy(together + size, ram + at, ranges[count].size);
        size += ranges[count].size;
    }
    assert_true(size > WIDTH * HEIGHT * 4 + 13);
    assert_int_equal(output(0, WIDTH, HEIGHT), GPU_OK);
    assert_int_equal(resource(7, GPU_FORMAT_B8G8R8X8, WIDTH, HEIGHT), GPU_OK);
    assert_int_equal(backing(7, ranges, (uint32_t)count), GPU_OK);
    assert_int_equal(scanout(0, 7, all), GPU_OK);

    const struct gpu_rect rect = {11, 5, 33, 21};
    const uint64_t offset = 13;
    assert_int_equal(transfer(7, rect, offset), GPU_OK);
    render(0);
    for (uint32_t y = 0; y < HEIGHT; y++)
        for (uint32_t x = 0; x < WIDTH; x++) {
            bool inside = x - 11 < 33 && y - 5 < 21;
            uint32_t pixel = inside ? shown(together + offset + ((y - 5) * WIDTH + x - 11) * 4,
                                            GPU_FORMAT_B8G8R8X8)
                                    : GPU_BLACK;
            assert_int_equal(frame_pixel(x, y), pixel);
        }
    free(together);
}

/* Frames hold what is damaged, and nothing is drawn where nothing is. */
static void test_damage(void **state)
{
    assert_int_equal(output(2, 40, 30), GPU_OK);
    assert_rect(render(2), 0, 0, 40, 30); /* black: it is off */
    assert_rect(render(2), 0, 0, 0, 0);
    assert_int_equal(resource(1, GPU_FORMAT_B8G8R8X8, WIDTH, HEIGHT), GPU_OK);
    assert_int_equal(backing(1, &whole, 1), GPU_OK);
    assert_int_equal(scanout(2, 1, (struct gpu_rect){10, 10, 40, 30}), GPU_OK);
    assert_rect(render(2), 0, 0, 40, 30);

    fill_ram();
    assert_int_equal(transfer(1, all, 0), GPU_OK);
    assert_int_equal(flush(1, (struct gpu_rect){0, 0, 12, 13}), GPU_OK);
    assert_rect(render(2), 0, 0, 2, 3);
    assert_int_equal(frame_pixel(1, 2), shown(ram + (12 * WIDTH + 11) * 4, GPU_FORMAT_B8G8R8X8));
    assert_int_equal(frame_pixel(2, 2), GPU_BLACK);

    /* Two flushes before a frame: one of them is dropped. */
    assert_int_equal(flush(1, (struct gpu_rect){20, 20, 1, 1}), GPU_OK);
    assert_int_equal(flush(1, (struct gpu_rect){30, 25, 2, 2}), GPU_OK);
    assert_rect(render(2), 10, 10, 12, 7);
    /* Not in the picture that is shown. */
    assert_int_equal(flush(1, (struct gpu_rect){60, 45, 2, 2}), GPU_OK);
    assert_rect(render(2), 0, 0, 0, 0);
    struct gpu_stats now = stats(0);
    assert_int_equal(now.scanouts[2].frames_presented, 3);
    assert_int_equal(now.scanouts[2].frames_dropped, 1);
    assert_int_equal(now.scanouts[2].bytes_uploaded, WIDTH * HEIGHT * 4);

    struct gpu_request gone = {.type = GPU_REQUEST_DESTROY, .id = 1};
    assert_int_equal(submit(&gone, NULL, 0, -1), GPU_OK);
    assert_rect(render(2), 0, 0, 40, 30);
    assert_int_equal(frame_pixel(1, 2), GPU_BLACK);
}

static void test_scaling(void **state)
{
    /* A grey ramp stays one, at any size. */
    assert_int_equal(resource(1, GPU_FORMAT_B8G8R8X8, WIDTH, HEIGHT), GPU_OK);
    for (uint32_t y = 0; y < HEIGHT; y++)
        for (uint32_t x = 0; x < WIDTH; x++)
            memset(ram + (y * WIDTH + x) * 4, (int)(x * 3), 4);
    assert_int_equal(backing(1, &whole, 1), GPU_OK);
    assert_int_equal(transfer(1, all, 0), GPU_OK);
    assert_int_equal(scanout(0, 1, all), GPU_OK);
    assert_int_equal(output(0, WIDTH * 2, HEIGHT * 3), GPU_OK);
    assert_rect(render(0), 0, 0, WIDTH * 2, HEIGHT * 3);
    for (uint32_t x = 2; x < WIDTH * 2 - 2; x++) {
        int level = (int)(frame_pixel(x, 7) & 0xff), expected = (int)((x * 2 - 1) * 3) / 4;
        assert_in_range(level + 1, expected, expected + 2);
    }
    /* Damage covers all that a changed pixel shines into. */
    memset(ram + (20 * WIDTH + 30) * 4, 255, 4);
    assert_int_equal(transfer(1, all, 0), GPU_OK);
    assert_int_equal(flush(1, (struct gpu_rect){30, 20, 1, 1}), GPU_OK);
    struct gpu_rect drawn = render(0);
    assert_true(drawn.x <= 59 && drawn.x + drawn.width >= 63);
    assert_true(drawn.y <= 58 && drawn.y + drawn.height >= 65);
    uint8_t *partly = malloc(frame->size);
    memcpy(partly, frame->pixels, frame->size);
    assert_int_equal(output(0, WIDTH * 2, HEIGHT * 3), GPU_OK);
    render(0);
    assert_memory_equal(partly, frame->pixels, frame->size);
    free(partly);
}

/* Premultiplied alpha over the picture, at the edge too, and gone when hidden. */
static void test_cursor(void **state)
{
    uint8_t *pixels = ram + (1 << 20);
    const struct gpu_range range = {RAM_GPA + (1 << 20), 64 * 64 * 4};
    memset(ram, 200, WIDTH * HEIGHT * 4);
    for (unsigned i = 0; i < 64 * 64; i++)
        memcpy(pixels + i * 4, (uint8_t[]){10, 20, 30, 128}, 4);
    assert_int_equal(resource(1, GPU_FORMAT_B8G8R8X8, WIDTH, HEIGHT), GPU_OK);
    assert_int_equal(backing(1, &whole, 1), GPU_OK);
    assert_int_equal(transfer(1, all, 0), GPU_OK);
    assert_int_equal(scanout(0, 1, all), GPU_OK);
    assert_int_equal(output(0, WIDTH, HEIGHT), GPU_OK);
    assert_int_equal(resource(2, GPU_FORMAT_B8G8R8A8, 64, 64), GPU_OK);
    assert_int_equal(backing(2, &range, 1), GPU_OK);
    assert_int_equal(transfer(2, (struct gpu_rect){0, 0, 64, 64}, 0), GPU_OK);
    assert_int_equal(cursor(0, 2, -60, 5), GPU_OK);
    render(0);
    /* 200 * 127 / 255, rounded: 100 */
    assert_int_equal(frame_pixel(0, 4), 0xffc8c8c8);
    assert_int_equal(frame_pixel(3, 5), 0xff82786e);
    assert_int_equal(frame_pixel(4, 5), 0xffc8c8c8);

    struct gpu_request move = {.type = GPU_REQUEST_CURSOR_MOVE,
                               .cursor = {.scanout = 0, .x = 70, .y = 40}};
    assert_int_equal(submit(&move, NULL, 0, -1), GPU_OK);
    render(0);
    assert_int_equal(frame_pixel(3, 5), 0xffc8c8c8);
    assert_int_equal(frame_pixel(79, 47), 0xff82786e);
    assert_int_equal(cursor(0, 0, 0, 0), GPU_OK);
    assert_rect(render(0), 70, 40, 10, 8);
    assert_int_equal(frame_pixel(79, 47), 0xffc8c8c8);

    /* Guest memory as a cursor. */
    assert_int_equal(blob(3, 64 * 64 * 4), GPU_OK);
    assert_int_equal(cursor(0, 3, 0, 0), GPU_BAD_REQUEST); /* no backing */
    assert_int_equal(backing(3, &range, 1), GPU_OK);
    assert_int_equal(cursor(0, 3, 0, 0), GPU_OK);
    render(0);
    assert_int_equal(frame_pixel(63, 20), 0xff82786e);
    assert_int_equal(frame_pixel(64, 20), 0xffc8c8c8);
}

static unsigned show_blob(uint32_t id, struct gpu_rect rect, uint32_t width, uint32_t height,
                          uint32_t stride, uint64_t offset)
{
    struct gpu_request request = {.type = GPU_REQUEST_SCANOUT,
                                  .scanout = {.scanout = 0,
                                              .id = id,
                                              .rect = rect,
                                              .format = GPU_FORMAT_R8G8B8X8,
                                              .width = width,
                                              .height = height,
                                              .stride = stride,
                                              .offset = offset}};
    return submit(&request, NULL, 0, -1);
}

static void test_blob(void **state)
{
    const uint32_t stride = 400;
    fill_ram();
    assert_int_equal(blob(5, 200000), GPU_OK);
    assert_int_equal(backing(5, &(struct gpu_range){RAM_GPA + 4096, 200000}, 1), GPU_OK);
    assert_int_equal(output(0, 50, 20), GPU_OK);
    assert_int_equal(show_blob(5, (struct gpu_rect){3, 2, 50, 20}, WIDTH, HEIGHT, stride, 100),
                     GPU_OK);
    render(0);
    const uint8_t *first = ram + 4096 + 100 + 2 * stride + 3 * 4;
    for (uint32_t y = 0; y < 20; y++)
        for (uint32_t x = 0; x < 50; x++)
            assert_int_equal(frame_pixel(x, y),
                             shown(first + y * stride + x * 4, GPU_FORMAT_R8G8B8X8));
    /* What the guest writes is seen when it says so. */
    uint32_t before = frame_pixel(9, 9);
    ram[4096 + 100 + 11 * stride + 12 * 4] ^= 0x55;
    assert_rect(render(0), 0, 0, 0, 0);
    assert_int_equal(flush(5, (struct gpu_rect){12, 11, 1, 1}), GPU_OK);
    assert_rect(render(0), 9, 9, 1, 1);
    assert_int_equal(frame_pixel(9, 9), before ^ 0x550000);
}

/* Each is refused, and changes nothing. */
static void test_bad(void **state)
{
    assert_int_equal(resource(1, GPU_FORMAT_B8G8R8X8, WIDTH, HEIGHT), GPU_OK);
    assert_int_equal(resource(1, GPU_FORMAT_B8G8R8X8, WIDTH, HEIGHT), GPU_BAD_REQUEST);
    assert_int_equal(resource(0, GPU_FORMAT_B8G8R8X8, WIDTH, HEIGHT), GPU_BAD_REQUEST);
    assert_int_equal(resource(2, 99, WIDTH, HEIGHT), GPU_BAD_REQUEST);
    assert_int_equal(resource(2, GPU_FORMAT_B8G8R8X8, 0, HEIGHT), GPU_BAD_REQUEST);
    assert_int_equal(resource(2, GPU_FORMAT_B8G8R8X8, GPU_MAX_SIZE + 1, 1), GPU_BAD_REQUEST);
    assert_int_equal(resource(2, GPU_FORMAT_B8G8R8X8, GPU_MAX_SIZE, GPU_MAX_SIZE),
                     GPU_OUT_OF_MEMORY); /* the first one is there already */
    assert_int_equal(transfer(1, all, 0), GPU_BAD_REQUEST);

    const struct gpu_range bad[] = {
        {RAM_GPA - 1, 16},         {RAM_GPA, RAM_SIZE + 1},     {RAM_GPA + RAM_SIZE, 1},
        {RAM_GPA + 5, UINT64_MAX}, {RAM_GPA + RAM_SIZE - 1, 2}, {RAM_GPA, 0},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(backing(1, &bad[i], 1), GPU_BAD_REQUEST);
    assert_int_equal(backing(9, &whole, 1), GPU_BAD_REQUEST);
    struct gpu_request liar = {.type = GPU_REQUEST_BACKING, .backing = {1, 2}};
    assert_int_equal(submit(&liar, &whole, sizeof(whole), -1), GPU_BAD_REQUEST);
    assert_int_equal(backing(1, &(struct gpu_range){RAM_GPA, WIDTH * HEIGHT * 4}, 1), GPU_OK);
    assert_int_equal(transfer(1, all, 1), GPU_BAD_REQUEST);
    assert_int_equal(transfer(1, all, UINT64_MAX), GPU_BAD_REQUEST);
    assert_int_equal(transfer(1, (struct gpu_rect){1, 0, WIDTH, 1}, 0), GPU_BAD_REQUEST);
    assert_int_equal(transfer(1, (struct gpu_rect){0, 0, 0, 0}, 0), GPU_BAD_REQUEST);
    assert_int_equal(transfer(1, (struct gpu_rect){UINT32_MAX, 0, 2, 2}, 0), GPU_BAD_REQUEST);
    assert_int_equal(transfer(1, (struct gpu_rect){0, 1, WIDTH, HEIGHT - 1}, WIDTH * 4), GPU_OK);

    assert_int_equal(scanout(GPU_MAX_SCANOUTS, 1, all), GPU_BAD_REQUEST);
    assert_int_equal(scanout(0, 3, all), GPU_BAD_REQUEST);
    assert_int_equal(scanout(0, 1, (struct gpu_rect){0, 0, WIDTH + 1, 1}), GPU_BAD_REQUEST);
    assert_int_equal(scanout(0, 1, (struct gpu_rect){0, 0, 0, 1}), GPU_BAD_REQUEST);
    assert_int_equal(flush(1, (struct gpu_rect){0, 0, WIDTH, HEIGHT + 1}), GPU_BAD_REQUEST);
    assert_int_equal(cursor(0, 1, 0, 0), GPU_BAD_REQUEST); /* not 64 x 64 */

    assert_int_equal(blob(4, 0), GPU_BAD_REQUEST);
    assert_int_equal(blob(4, 1000), GPU_OK);
    assert_int_equal(show_blob(4, all, WIDTH, HEIGHT, WIDTH * 4 - 4, 0), GPU_BAD_REQUEST);
    assert_int_equal(show_blob(4, all, WIDTH, HEIGHT, WIDTH * 4, 1001), GPU_BAD_REQUEST);
    assert_int_equal(show_blob(4, all, WIDTH - 1, HEIGHT, WIDTH * 4, 0), GPU_BAD_REQUEST);
    /* More than its bytes: a picture, of what there is. */
    assert_int_equal(show_blob(4, all, WIDTH, HEIGHT, WIDTH * 4, 0), GPU_OK);
    assert_int_equal(output(0, WIDTH, HEIGHT), GPU_OK);
    render(0);
    assert_int_equal(frame_pixel(5, 5), GPU_BLACK);

    struct gpu_request unknown = {.type = 999};
    assert_int_equal(submit(&unknown, NULL, 0, -1), GPU_BAD_REQUEST);
    struct gpu_request open = {.type = GPU_REQUEST_OPEN};
    assert_int_equal(submit(&open, NULL, 0, -1), GPU_BAD_REQUEST);
    struct gpu_request loud = {.type = GPU_REQUEST_FENCE};
    assert_int_equal(submit(&loud, "x", 1, -1), GPU_BAD_REQUEST);
    struct gpu_request nowhere = {.type = GPU_REQUEST_OUTPUT, .output = {0, 8, 8, 32}};
    assert_int_equal(submit(&nowhere, NULL, 0, -1), GPU_BAD_REQUEST);
    struct gpu_request small = {.type = GPU_REQUEST_OUTPUT,
                                .output = {0, WIDTH, HEIGHT + 1, WIDTH * 4}};
    assert_int_equal(submit(&small, NULL, 0, frame->fd), GPU_BAD_REQUEST);
}

static void test_bad_cursor(void **state)
{
    assert_int_equal(resource(1, GPU_FORMAT_B8G8R8X8, WIDTH, HEIGHT), GPU_OK);
    assert_int_equal(resource(2, GPU_FORMAT_B8G8R8A8, 64, 64), GPU_OK);
    assert_int_equal(blob(3, 64 * 64 * 4), GPU_OK); /* without a backing */
    assert_int_equal(scanout(0, 1, all), GPU_OK);
    assert_int_equal(output(0, WIDTH, HEIGHT), GPU_OK);
    assert_int_equal(cursor(0, 2, 5, 5), GPU_OK);
    render(0);
    /* What was shown still is, where it was. */
    assert_int_equal(cursor(0, 1, 20, 20), GPU_BAD_REQUEST);
    assert_int_equal(cursor(0, 3, 20, 20), GPU_BAD_REQUEST);
    assert_rect(render(0), 0, 0, 0, 0);
    assert_int_equal(cursor(0, 0, 0, 0), GPU_OK);
    assert_rect(render(0), 5, 5, 64, HEIGHT - 5);
}

/* Sizes of ranges whose sum is no 64-bit number. */
static void test_huge_backing(void **state)
{
    const uint64_t gpa = UINT64_C(1) << 50;
    const struct memory_ram huge = {.base = gpa, .size = UINT64_C(1) << 46, .host = ram, .fd = -1};
    struct gpu_range *ranges = calloc(GPU_MAX_RANGES, sizeof(*ranges));
    assert_true(gpu_renderer_add_memory(renderer, &huge, NULL));
    for (uint32_t i = 0; i < GPU_MAX_RANGES; i++)
        ranges[i] = (struct gpu_range){gpa, huge.size};
    assert_int_equal(blob(1, 4096), GPU_OK);
    assert_int_equal(backing(1, ranges, GPU_MAX_RANGES), GPU_BAD_REQUEST);
    assert_int_equal(backing(1, ranges, 1000), GPU_OK);
    free(ranges);
}

static void test_statistics(void **state)
{
    assert_int_equal(resource(1, GPU_FORMAT_B8G8R8X8, 64, 64), GPU_OK);
    struct gpu_stats now = stats(GPU_STATS_RESET);
    assert_string_equal(now.backend, "2d");
    assert_int_equal(now.adapter_count, 1);
    assert_int_equal(now.adapters[0].textures, 1);
    assert_int_equal(now.adapters[0].memory, 64 * 64 * 4);
    assert_int_equal(resource(2, GPU_FORMAT_B8G8R8X8, 64, 64), GPU_OK);
    struct gpu_request gone = {.type = GPU_REQUEST_DESTROY, .id = 2};
    assert_int_equal(submit(&gone, NULL, 0, -1), GPU_OK);
    now = stats(GPU_STATS_RESET);
    assert_int_equal(now.adapters[0].textures, 1);
    assert_int_equal(now.adapters[0].memory, 64 * 64 * 4);
    assert_int_equal(now.adapters[0].memory_peak, 2 * 64 * 64 * 4);
    assert_int_equal(stats(0).adapters[0].memory_peak, 64 * 64 * 4);
}

static void test_trace(void **state)
{
    struct gpu_request request = {.type = GPU_REQUEST_TRACE, .flags = GPU_TRACE_START};
    assert_int_equal(submit(&request, NULL, 0, -1), GPU_OK);
    assert_int_equal(resource(1, GPU_FORMAT_B8G8R8X8, WIDTH, HEIGHT), GPU_OK);
    assert_int_equal(backing(1, &whole, 1), GPU_OK);
    assert_int_equal(transfer(1, all, 0), GPU_OK);
    char text[4096] = "";
    size_t got;
    struct gpu_request end = {.type = GPU_REQUEST_TRACE};
    assert_true(gpu_renderer_call(renderer, &end, 5000, NULL, text, sizeof(text) - 1, &got, NULL));
    assert_non_null(strstr(text, "\"name\":\"transfer\""));
    assert_true(got < sizeof(text));
    assert_int_equal(text[got - 1], '}');
}

/* A caller that gives up leaves nothing behind. */
static void test_timeout(void **state)
{
    struct gpu_request request = {.type = GPU_REQUEST_FENCE};
    struct error err;
    for (unsigned i = 0; i < 100; i++)
        gpu_renderer_call(renderer, &request, 0, NULL, NULL, 0, NULL, &err);
    assert_true(gpu_renderer_call(renderer, &request, 5000, NULL, NULL, 0, NULL, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_formats, create, destroy),
        cmocka_unit_test_setup_teardown(test_scattered, create, destroy),
        cmocka_unit_test_setup_teardown(test_damage, create, destroy),
        cmocka_unit_test_setup_teardown(test_scaling, create, destroy),
        cmocka_unit_test_setup_teardown(test_cursor, create, destroy),
        cmocka_unit_test_setup_teardown(test_blob, create, destroy),
        cmocka_unit_test_setup_teardown(test_bad, create, destroy),
        cmocka_unit_test_setup_teardown(test_bad_cursor, create, destroy),
        cmocka_unit_test_setup_teardown(test_huge_backing, create, destroy),
        cmocka_unit_test_setup_teardown(test_statistics, create, destroy),
        cmocka_unit_test_setup_teardown(test_trace, create, destroy),
        cmocka_unit_test_setup_teardown(test_timeout, create, destroy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
