/* virtio-gpu, driven as a guest drives it, on a renderer that only notes what it is asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "gpu_bench.h"
#include "virtio/edid.h"

static int setup(void **state)
{
    *state = bench_create(fake_open);
    return 0;
}

static int teardown(void **state)
{
    bench_destroy(*state);
    return 0;
}

#define EXPECT(response, type, ...)                                                                \
    assert_int_equal(send_words(bench, &(struct words){type, {__VA_ARGS__}}), response)

#define BACKING(gpa, size) (uint32_t)(gpa), (uint32_t)((uint64_t)(gpa) >> 32), size, 0

/* A 64 x 32 picture, number 1, with its backing. */
static void make_picture(struct bench *bench)
{
    EXPECT(OK_NODATA, 0x101, 1, GPU_FORMAT_B8G8R8X8, 64, 32);
    EXPECT(OK_NODATA, 0x106, 1, 1, BACKING(PIXELS_GPA, 64 * 32 * 4));
}

static const struct gpu_request *last_request(void)
{
    return &fakes.fake->requests[fakes.fake->count - 1];
}

static void test_display_info(void **state)
{
    struct bench *bench = *state;
    uint32_t size, head;
    uint8_t bytes[128];
    size = make_command(&(struct words){0x100}, bytes);
    unsigned chain = offer(bench, CONTROL, bytes, size, 0x800);
    assert_true(driver_take(&bench->driver, CONTROL, &head, &size));
    assert_int_equal(size, 24 + 16 * 24);
    assert_int_equal(response_word(bench, chain, 0), OK_DISPLAY_INFO);
    assert_int_equal(response_word(bench, chain, 24 + 8), 1280);
    assert_int_equal(response_word(bench, chain, 24 + 12), 800);
    assert_int_equal(response_word(bench, chain, 24 + 16), 1);
    assert_int_equal(response_word(bench, chain, 48), 1280); /* beside the first */
    assert_int_equal(response_word(bench, chain, 48 + 8), 640);
    assert_int_equal(response_word(bench, chain, 72 + 16), 0);
    assert_int_equal(driver_read(&bench->driver, MMIO_CONFIG + 8), 2);
    assert_int_equal(driver_read(&bench->driver, MMIO_CONFIG + 12), 0);
}

static void test_resize(void **state)
{
    struct bench *bench = *state;
    turn(bench);
    virtio_gpu_resize(bench->gpu, 1, 800, 600);
    assert_int_equal(driver_read(&bench->driver, MMIO_CONFIG), 1);
    assert_int_equal(driver_read(&bench->driver, MMIO_ISR) & 2, 2);
    EXPECT(OK_DISPLAY_INFO, 0x100);
    assert_int_equal(response_word(bench, 0, 48 + 8), 800);
    driver_write(&bench->driver, MMIO_CONFIG + 4, 1);
    assert_int_equal(driver_read(&bench->driver, MMIO_CONFIG), 0);
    virtio_gpu_resize(bench->gpu, 1, 800, 600); /* nothing new */
    assert_int_equal(driver_read(&bench->driver, MMIO_CONFIG), 0);
    virtio_gpu_resize(bench->gpu, 0, 0, 0);
    EXPECT(OK_DISPLAY_INFO, 0x100);
    assert_int_equal(response_word(bench, 1, 24 + 16), 0);
    assert_int_equal(response_word(bench, 1, 48), 0);
    virtio_gpu_resize(bench->gpu, 0, 1, UINT32_MAX);
    EXPECT(OK_DISPLAY_INFO, 0x100);
    assert_int_equal(response_word(bench, 2, 24 + 8), 64);
    assert_int_equal(response_word(bench, 2, 24 + 12), GPU_MAX_SIZE);
    virtio_gpu_resize(bench->gpu, 2, 800, 600); /* there is none */
}

/* The sum over each block is 0; the first timing is the display's size. */
static void check_edid(const uint8_t *edid, size_t size, uint32_t width, uint32_t height)
{
    static const uint8_t header[] = {0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0};
    assert_memory_equal(edid, header, sizeof(header));
    assert_int_equal(size, 128 * (1 + edid[126]));
    for (size_t block = 0; block < size; block += 128) {
        uint8_t sum = 0;
        for (size_t i = 0; i < 128; i++)
            sum = (uint8_t)(sum + edid[block + i]);
        assert_int_equal(sum, 0);
    }
    const uint8_t *timing = edid + 54;
    uint32_t x = timing[2] | (timing[4] & 0xf0) << 4, y = timing[5] | (timing[7] & 0xf0) << 4;
    if (size == 256) { /* DisplayID's Type I */
        timing = edid + 128 + 5 + 15 + 15 + 13 + 3;
        x = load_le16(timing + 4) + 1u;
        y = load_le16(timing + 12) + 1u;
        assert_int_equal(edid[128], 0x70);
        assert_true(timing[3] & 0x80);
    }
    assert_int_equal(x, width);
    assert_int_equal(y, height);
}

static void test_edid(void **state)
{
    struct bench *bench = *state;
    uint8_t edid[1024];
    EXPECT(OK_EDID, 0x10a, 0);
    assert_int_equal(response_word(bench, 0, 24), 128);
    memory_dma_read(bench->memory, RESPONSE_GPA + 32, edid, sizeof(edid));
    check_edid(edid, 128, 1280, 800);
    assert_memory_equal(edid + 54 + 18 + 5, "hartvisor\n   ", 13);
    for (size_t i = 128; i < sizeof(edid); i++)
        assert_int_equal(edid[i], 0);
    EXPECT(ERR_SCANOUT, 0x10a, 2);
    static const uint32_t sizes[] = {64, 65, 480, 799, 1080, 1366, 2160, 4095, 4096, 9999, 16384};
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        for (size_t k = 0; k < ARRAY_SIZE(sizes); k++) {
            size_t size = edid_create(edid, sizes[i], sizes[k], 15);
            check_edid(edid, size, sizes[i], sizes[k]);
        }
    }
}

static void test_pictures(void **state)
{
    struct bench *bench = *state;
    EXPECT(OK_NODATA, 0x101, 1, GPU_FORMAT_B8G8R8X8, 64, 32);
    assert_string_equal(asked(0), "R");
    assert_int_equal(last_request()->resource.width, 64);
    EXPECT(ERR_RESOURCE, 0x101, 1, GPU_FORMAT_B8G8R8X8, 64, 32);
    EXPECT(ERR_RESOURCE, 0x101, 0, GPU_FORMAT_B8G8R8X8, 64, 32);
    EXPECT(ERR_PARAMETER, 0x101, 2, 5, 64, 32);
    EXPECT(ERR_PARAMETER, 0x101, 2, GPU_FORMAT_B8G8R8X8, 0, 32);
    EXPECT(ERR_PARAMETER, 0x101, 2, GPU_FORMAT_B8G8R8X8, 64, GPU_MAX_SIZE + 1);
    EXPECT(ERR_PARAMETER, 0x101, 2, GPU_FORMAT_B8G8R8X8, 0x80000001, 0x80000000);
    EXPECT(ERR_RESOURCE, 0x102, 2);
    EXPECT(ERR_RESOURCE, 0x102, 0);
    assert_string_equal(asked(0), "R");
    EXPECT(OK_NODATA, 0x102, 1);
    EXPECT(ERR_RESOURCE, 0x102, 1);
    assert_string_equal(asked(0), "RD");
}

static void test_memory_is_bounded(void **state)
{
    struct bench *bench = *state;
    EXPECT(ERR_MEMORY, 0x101, 1, GPU_FORMAT_B8G8R8X8, GPU_MAX_SIZE, GPU_MAX_SIZE);
    EXPECT(OK_NODATA, 0x101, 1, GPU_FORMAT_B8G8R8X8, GPU_MAX_SIZE, GPU_MAX_SIZE / 2);
    EXPECT(ERR_MEMORY, 0x101, 2, GPU_FORMAT_B8G8R8X8, 1, 1);
    EXPECT(OK_NODATA, 0x102, 1);
    EXPECT(OK_NODATA, 0x101, 2, GPU_FORMAT_B8G8R8X8, 1, 1);
}

/* A blob may have the same bytes again and again, but is not shown beyond the bound. */
static void test_views_are_bounded(void **state)
{
    struct bench *bench = *state;
    const uint32_t entries = 256; /* of 4 MiB: 1 GiB */
    uint8_t *bytes = xcalloc(entries + 4, 16);
    uint32_t head, size;
    make_command(&(struct words){0x10c, {1, 1, 0, entries, 0, 0, 1u << 30}}, bytes);
    for (uint32_t i = 0; i < entries; i++) {
        store_le64(bytes + 56 + 16 * i, DRIVER_RAM_BASE);
        store_le32(bytes + 64 + 16 * i, DRIVER_RAM_SIZE);
    }
    memory_dma_write(bench->memory, PIXELS_GPA, bytes, 56 + 16 * entries);
    const struct driver_desc descs[] = {{PIXELS_GPA, 56 + 16 * entries, 0, 0},
                                        {RESPONSE_GPA, 24, DESC_WRITE, 0}};
    driver_offer_chain(&bench->driver, CONTROL, 0, descs, 2);
    driver_notify(&bench->driver, CONTROL);
    turn(bench);
    fake_answer_all(fakes.fake);
    turn(bench);
    assert_true(driver_take(&bench->driver, CONTROL, &head, &size));
    assert_int_equal(response_word(bench, 0, 0), OK_NODATA);
    EXPECT(ERR_MEMORY, 0x10d, 0, 0, GPU_MAX_SIZE, GPU_MAX_SIZE, 0, 1, GPU_MAX_SIZE, GPU_MAX_SIZE,
           GPU_FORMAT_B8G8R8X8, 0, GPU_MAX_SIZE * 4);
    assert_string_equal(asked(0), "BK");
    EXPECT(OK_NODATA, 0x10d, 5, 6, 64, 32, 0, 1, GPU_MAX_SIZE, GPU_MAX_SIZE, GPU_FORMAT_B8G8R8X8, 0,
           GPU_MAX_SIZE * 4);
    free(bytes);
}

static void test_resources_are_bounded(void **state)
{
    struct bench *bench = *state;
    for (uint32_t id = 1; id <= GPU_MAX_RESOURCES; id++) {
        assert_int_equal(SEND(bench, 0x101, id, GPU_FORMAT_B8G8R8X8, 1, 1), OK_NODATA);
        fakes.fake->count = fakes.fake->answered = 0;
    }
    EXPECT(ERR_MEMORY, 0x101, GPU_MAX_RESOURCES + 1, GPU_FORMAT_B8G8R8X8, 1, 1);
    EXPECT(ERR_MEMORY, 0x10c, GPU_MAX_RESOURCES + 1, 1, 0, 1, 0, 0, 64, 0, BACKING(PIXELS_GPA, 64));
    for (uint32_t id = 1; id <= GPU_MAX_RESOURCES - 10; id++) {
        assert_int_equal(SEND(bench, 0x102, id), OK_NODATA);
        fakes.fake->count = fakes.fake->answered = 0;
    }
}

static void test_backing(void **state)
{
    struct bench *bench = *state;
    uint64_t end = DRIVER_RAM_BASE + DRIVER_RAM_SIZE;
    EXPECT(OK_NODATA, 0x101, 1, GPU_FORMAT_B8G8R8X8, 64, 32);
    EXPECT(ERR_RESOURCE, 0x106, 2, 1, BACKING(PIXELS_GPA, 64));
    EXPECT(ERR_PARAMETER, 0x106, 1, 0);
    EXPECT(ERR_PARAMETER, 0x106, 1, 1, BACKING(PIXELS_GPA, 0));
    EXPECT(ERR_PARAMETER, 0x106, 1, 1, BACKING(end - 64, 65));
    EXPECT(ERR_PARAMETER, 0x106, 1, 1, BACKING(0, 64));
    EXPECT(ERR_PARAMETER, 0x106, 1, 1, BACKING(UINT64_MAX, 64));
    EXPECT(ERR_PARAMETER, 0x106, 1, 2, BACKING(PIXELS_GPA, 64), BACKING(0x10000000, 64));
    EXPECT(ERR_UNSPEC, 0x107, 1);
    assert_string_equal(asked(0), "R");
    EXPECT(OK_NODATA, 0x106, 1, 3, BACKING(PIXELS_GPA, 64), BACKING(PIXELS_GPA + 64, 64),
           BACKING(PIXELS_GPA, 64));
    assert_string_equal(asked(0), "RK");
    assert_int_equal(last_request()->backing.count, 2); /* neighbours are one */
    assert_int_equal(fakes.fake->ranges[0].size, 128);
    assert_int_equal(fakes.fake->ranges[1].gpa, PIXELS_GPA);
    EXPECT(ERR_UNSPEC, 0x106, 1, 1, BACKING(PIXELS_GPA, 64));
    EXPECT(OK_NODATA, 0x107, 1);
    assert_int_equal(last_request()->backing.count, 0);
    EXPECT(ERR_RESOURCE, 0x107, 2);
    EXPECT(OK_NODATA, 0x106, 1, 1, BACKING(end - 64, 64));
}

/* A range over two regions of RAM is two, which a renderer maps apart. */
static void test_backing_over_regions(void **state)
{
    struct bench *bench = *state;
    uint64_t border = DRIVER_RAM_BASE + DRIVER_RAM_SIZE;
    assert_true(memory_add_ram(bench->memory, border, 0x10000, NULL));
    EXPECT(OK_NODATA, 0x101, 1, GPU_FORMAT_B8G8R8X8, 64, 32);
    assert_int_equal(fakes.fake->regions, 2);
    EXPECT(OK_NODATA, 0x106, 1, 2, BACKING(border - 64, 128), BACKING(border + 64, 64));
    assert_int_equal(last_request()->backing.count, 2);
    assert_int_equal(fakes.fake->ranges[0].size, 64);
    assert_int_equal(fakes.fake->ranges[1].gpa, border);
    assert_int_equal(fakes.fake->ranges[1].size, 128);
    EXPECT(ERR_PARAMETER, 0x106, 1, 1, BACKING(border + 0xfff0, 17));
}

/* Entries that are fewer than the request says; a count whose product overflows. */
static void test_backing_count(void **state)
{
    struct bench *bench = *state;
    static const uint32_t counts[] = {2, GPU_MAX_RANGES, GPU_MAX_RANGES + 1, 0x10000001,
                                      UINT32_MAX};
    EXPECT(OK_NODATA, 0x101, 1, GPU_FORMAT_B8G8R8X8, 64, 32);
    for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
        uint8_t bytes[128];
        uint32_t head, size;
        make_command(&(struct words){0x106, {1, counts[i], BACKING(PIXELS_GPA, 64)}}, bytes);
        unsigned chain = offer(bench, CONTROL, bytes, 48, 0x800);
        assert_true(driver_take(&bench->driver, CONTROL, &head, &size));
        assert_int_equal(response_word(bench, chain, 0), ERR_PARAMETER);
    }
}

/* Entries in a buffer of their own, cut across. */
static void test_backing_in_pieces(void **state)
{
    struct bench *bench = *state;
    uint8_t bytes[128];
    uint32_t head, size;
    EXPECT(OK_NODATA, 0x101, 1, GPU_FORMAT_B8G8R8X8, 64, 32);
    make_command(
        &(struct words){0x106, {1, 2, BACKING(PIXELS_GPA, 64), BACKING(PIXELS_GPA + 128, 8)}},
        bytes);
    memory_dma_write(bench->memory, REQUEST_GPA, bytes, 64);
    const struct driver_desc descs[] = {{REQUEST_GPA, 37, 0, 0},
                                        {REQUEST_GPA + 37, 20, 0, 0},
                                        {REQUEST_GPA + 57, 7, 0, 0},
                                        {RESPONSE_GPA, 24, DESC_WRITE, 0}};
    driver_offer_chain(&bench->driver, CONTROL, 0, descs, 4);
    driver_notify(&bench->driver, CONTROL);
    turn(bench);
    fake_answer_all(fakes.fake);
    turn(bench);
    assert_true(driver_take(&bench->driver, CONTROL, &head, &size));
    assert_int_equal(response_word(bench, 0, 0), OK_NODATA);
    assert_int_equal(fakes.fake->ranges[1].gpa, PIXELS_GPA + 128);
    assert_int_equal(fakes.fake->ranges[1].size, 8);
}

static void test_transfer(void **state)
{
    struct bench *bench = *state;
    make_picture(bench);
    size_t mark = fakes.fake->count;
    EXPECT(OK_NODATA, 0x105, 0, 0, 64, 32, 0, 0, 1);
    EXPECT(OK_NODATA, 0x105, 60, 31, 4, 1, 31 * 256 + 240, 0, 1);
    assert_int_equal(last_request()->transfer.offset, 31 * 256 + 240);
    EXPECT(OK_NODATA, 0x105, 0, 0, 0, 0, 0, 0, 1); /* nothing */
    assert_string_equal(asked(mark), "TT");
    EXPECT(ERR_PARAMETER, 0x105, 0, 0, 64, 33, 0, 0, 1);
    EXPECT(ERR_PARAMETER, 0x105, 1, 0, 64, 32, 0, 0, 1);
    EXPECT(ERR_PARAMETER, 0x105, 0xffffffff, 0, 2, 1, 0, 0, 1);
    EXPECT(ERR_PARAMETER, 0x105, 0, 0, 64, 32, 1, 0, 1);
    EXPECT(ERR_PARAMETER, 0x105, 60, 31, 4, 1, 31 * 256 + 241, 0, 1);
    EXPECT(ERR_PARAMETER, 0x105, 0, 0, 1, 1, 0, 0x80000000, 1);
    EXPECT(ERR_PARAMETER, 0x105, 0, 0, 1, 1, 0xffffffff, 0xffffffff, 1);
    EXPECT(ERR_RESOURCE, 0x105, 0, 0, 64, 32, 0, 0, 2);
    EXPECT(OK_NODATA, 0x107, 1);
    EXPECT(ERR_PARAMETER, 0x105, 0, 0, 1, 1, 0, 0, 1);
    assert_string_equal(asked(mark), "TTK");
}

static void test_scanout(void **state)
{
    struct bench *bench = *state;
    uint32_t width, height;
    make_picture(bench);
    size_t mark = fakes.fake->count;
    EXPECT(ERR_SCANOUT, 0x103, 0, 0, 64, 32, 2, 1);
    EXPECT(ERR_RESOURCE, 0x103, 0, 0, 64, 32, 0, 2);
    EXPECT(ERR_PARAMETER, 0x103, 0, 0, 65, 32, 0, 1);
    EXPECT(ERR_PARAMETER, 0x103, 0, 0, 0, 32, 0, 1);
    EXPECT(ERR_PARAMETER, 0x103, 0xfffffff0, 0, 32, 32, 0, 1);
    assert_string_equal(asked(mark), "");
    EXPECT(OK_NODATA, 0x103, 0, 0, 64, 32, 0, 1);
    assert_string_equal(asked(mark), "OS");
    assert_int_equal(bench->changed, 1);
    assert_int_equal(bench->width, 64);
    assert_int_equal(bench->damaged, 1);
    EXPECT(OK_NODATA, 0x103, 0, 0, 64, 32, 0, 1); /* the frame stays */
    assert_string_equal(asked(mark), "OSS");
    assert_int_equal(bench->changed, 1);
    virtio_gpu_size(bench->gpu, 0, &width, &height);
    assert_int_equal(width, 64);
    assert_int_equal(height, 32);
    virtio_gpu_size(bench->gpu, 7, &width, &height);
    assert_int_equal(width, 0);
    /* a view is another frame */
    virtio_gpu_set_view(bench->gpu, 0, 100, 50);
    assert_string_equal(asked(mark), "OSSO");
    assert_int_equal(last_request()->output.width, 100);
    virtio_gpu_set_view(bench->gpu, 0, 0, 0);
    assert_int_equal(last_request()->output.width, 64);
    virtio_gpu_set_view(bench->gpu, 1, 10, 10); /* off: later */
    virtio_gpu_set_view(bench->gpu, 9, 10, 10);
    assert_string_equal(asked(mark), "OSSOO");
    EXPECT(OK_NODATA, 0x103, 0, 0, 0, 0, 0, 0);
    assert_int_equal(bench->width, 0);
    EXPECT(OK_NODATA, 0x103, 0, 0, 64, 32, 1, 1);
    assert_string_equal(asked(mark), "OSSOOSOS");
    assert_int_equal(fakes.fake->requests[fakes.fake->count - 2].output.width, 10);
    EXPECT(OK_NODATA, 0x102, 1); /* turns it off */
    assert_string_equal(asked(mark), "OSSOOSOSSD");
    assert_int_equal(bench->width, 0);
}

struct drawn {
    unsigned count;
    struct gpu_frame *frame;
    struct gpu_rect rect;
};

static void note_frame(void *opaque, struct gpu_frame *frame, const struct gpu_rect *rect)
{
    struct drawn *drawn = opaque;
    drawn->count++;
    drawn->frame = frame;
    drawn->rect = *rect;
}

static void test_render(void **state)
{
    struct bench *bench = *state;
    struct drawn drawn = {0};
    make_picture(bench);
    virtio_gpu_render(bench->gpu, 0, note_frame, &drawn);
    virtio_gpu_render(bench->gpu, 5, note_frame, &drawn);
    assert_int_equal(drawn.count, 2);
    assert_null(drawn.frame);
    EXPECT(OK_NODATA, 0x103, 0, 0, 64, 32, 0, 1);
    unsigned damaged = bench->damaged;
    EXPECT(OK_NODATA, 0x104, 0, 0, 64, 32, 1);
    assert_int_equal(bench->damaged, damaged); /* was told already */
    virtio_gpu_render(bench->gpu, 0, note_frame, &drawn);
    assert_int_equal(drawn.count, 2);
    fake_answer_all(fakes.fake);
    assert_int_equal(drawn.count, 3);
    assert_non_null(drawn.frame);
    assert_int_equal(drawn.rect.width, 3);
    EXPECT(OK_NODATA, 0x104, 0, 0, 1, 1, 1);
    EXPECT(OK_NODATA, 0x104, 0, 0, 1, 1, 1);
    assert_int_equal(bench->damaged, damaged + 1);
    EXPECT(ERR_PARAMETER, 0x104, 0, 0, 65, 1, 1);
    EXPECT(ERR_RESOURCE, 0x104, 0, 0, 1, 1, 2);
    virtio_gpu_render(bench->gpu, 0, note_frame, &drawn);
    fake_answer(fakes.fake, GPU_FAILED);
    assert_int_equal(drawn.count, 4);
    assert_null(drawn.frame);
}

static void test_blob(void **state)
{
    struct bench *bench = *state;
    uint32_t gpa = PIXELS_GPA;
    EXPECT(ERR_PARAMETER, 0x10c, 1, 2, 0, 1, 0, 0, 64, 0, BACKING(gpa, 64)); /* not the guest's */
    EXPECT(ERR_PARAMETER, 0x10c, 1, 1, 8, 1, 0, 0, 64, 0, BACKING(gpa, 64));
    EXPECT(ERR_PARAMETER, 0x10c, 1, 1, 0, 1, 0, 0, 65, 0, BACKING(gpa, 64));
    EXPECT(ERR_PARAMETER, 0x10c, 1, 1, 0, 1, 0, 0, 0, 0, BACKING(gpa, 64));
    EXPECT(ERR_PARAMETER, 0x10c, 1, 1, 0, 0, 0, 0, 64, 0);
    EXPECT(ERR_RESOURCE, 0x10c, 0, 1, 0, 1, 0, 0, 64, 0, BACKING(gpa, 64));
    assert_string_equal(asked(0), "");
    EXPECT(OK_NODATA, 0x10c, 1, 1, 2, 1, 0, 0, 0x10000, 0, BACKING(gpa, 0x10000));
    assert_string_equal(asked(0), "BK");
    EXPECT(ERR_RESOURCE, 0x10c, 1, 1, 0, 1, 0, 0, 64, 0, BACKING(gpa, 64));
    EXPECT(OK_NODATA, 0x105, 0, 0, 5000, 5000, 0, 0, 1); /* as Linux does */
    assert_string_equal(asked(0), "BK");
    EXPECT(ERR_PARAMETER, 0x103, 0, 0, 64, 32, 0, 1);
    EXPECT(ERR_PARAMETER, 0x10d, 0, 0, 64, 32, 0, 1, 0, 32, 2, 0, 256); /* no width */
    EXPECT(ERR_PARAMETER, 0x10d, 0, 0, 64, 32, 0, 1, 64, 32, 99, 0, 256);
    EXPECT(ERR_PARAMETER, 0x10d, 0, 0, 64, 32, 0, 1, 64, 32, 2, 0, 255);
    EXPECT(ERR_PARAMETER, 0x10d, 0, 0, 64, 32, 0, 1, 64, 32, 2, 0, 252);
    EXPECT(ERR_PARAMETER, 0x10d, 0, 0, 64, 33, 0, 1, 64, 32, 2, 0, 256);
    EXPECT(ERR_PARAMETER, 0x10d, 0, 0, 64, 32, 0, 1, 64, 257, 2, 0, 256);
    EXPECT(ERR_PARAMETER, 0x10d, 0, 0, 64, 32, 0, 1, 64, 256, 2, 0, 256, 0, 0, 0, 4);
    EXPECT(ERR_PARAMETER, 0x10d, 0, 0, 64, 32, 0, 1, 64, 32, 2, 0, 0xfffffffc);
    EXPECT(ERR_SCANOUT, 0x10d, 0, 0, 64, 32, 2, 1, 64, 32, 2, 0, 256);
    EXPECT(OK_NODATA, 0x10d, 0, 224, 64, 32, 0, 1, 64, 256, 2, 0, 256);
    assert_string_equal(asked(0), "BKOS");
    assert_int_equal(last_request()->scanout.stride, 256);
    EXPECT(OK_NODATA, 0x104, 0, 0, 64, 32, 1);
    EXPECT(ERR_PARAMETER, 0x104, 0, 0, GPU_MAX_SIZE, GPU_MAX_SIZE + 1, 1);
    EXPECT(OK_NODATA, 0x107, 1);
    EXPECT(ERR_PARAMETER, 0x106, 1, 1, BACKING(gpa, 0xffff));
    EXPECT(OK_NODATA, 0x106, 1, 1, BACKING(gpa, 0x10000));
    EXPECT(OK_NODATA, 0x10d, 0, 0, 0, 0, 0, 0);
}

static void test_uuid(void **state)
{
    struct bench *bench = *state;
    uint32_t first[4], again[4];
    EXPECT(ERR_RESOURCE, 0x10b, 1);
    make_picture(bench);
    bench->next = 0;
    EXPECT(OK_UUID, 0x10b, 1);
    memory_dma_read(bench->memory, RESPONSE_GPA + 24, first, sizeof(first));
    EXPECT(OK_UUID, 0x10b, 1);
    memory_dma_read(bench->memory, RESPONSE_GPA + 0x1000 + 24, again, sizeof(again));
    assert_memory_equal(first, again, sizeof(first));
    assert_int_equal(first[1] >> 20 & 0xf, 4); /* the version */
}

static void test_cursor(void **state)
{
    struct bench *bench = *state;
    EXPECT(OK_NODATA, 0x101, 1, GPU_FORMAT_B8G8R8A8, 64, 64);
    EXPECT(OK_NODATA, 0x101, 2, GPU_FORMAT_B8G8R8A8, 64, 32);
    size_t mark = fakes.fake->count;
    EXPECT(ERR_SCANOUT, 0x300, 2, 0, 0, 0, 1);
    EXPECT(ERR_RESOURCE, 0x300, 0, 0, 0, 0, 3);
    EXPECT(ERR_PARAMETER, 0x300, 0, 0, 0, 0, 2);
    EXPECT(ERR_PARAMETER, 0x300, 0, 0, 0, 0, 1, 64, 0);
    EXPECT(ERR_PARAMETER, 0x300, 0, 0, 0, 0, 1, 0, 0xffffffff);
    EXPECT(ERR_SCANOUT, 0x301, 2, 0, 0);
    assert_string_equal(asked(mark), "");
    EXPECT(OK_NODATA, 0x300, 0, 0xfffffffb, 7, 0, 1, 3, 63);
    assert_int_equal(last_request()->cursor.x, -5);
    assert_int_equal(last_request()->cursor.hot_y, 63);
    EXPECT(OK_NODATA, 0x301, 0, 20, 30);
    assert_string_equal(asked(mark), "CM");
    assert_int_equal(last_request()->cursor.y, 30);
    EXPECT(OK_NODATA, 0x102, 1); /* hides it */
    assert_string_equal(asked(mark), "CMCD");
    assert_int_equal(fakes.fake->requests[mark + 2].cursor.id, 0);
    /* without room for a response, as Linux sends them */
    uint8_t bytes[128];
    uint32_t size = make_command(&(struct words){0x301, {0, 1, 2}}, bytes), head, written;
    offer(bench, CURSOR, bytes, size, 0);
    fake_answer_all(fakes.fake);
    turn(bench);
    assert_true(driver_take(&bench->driver, CURSOR, &head, &written));
    assert_int_equal(written, 0);
}

static void test_unknown_commands(void **state)
{
    struct bench *bench = *state;
    static const uint32_t types[] = {0, 0xff, 0x109, 0x10e, 0x200, 0x207, 0x302, 0xffffffff};
    uint8_t bytes[128];
    uint32_t head, size;
    for (size_t i = 0; i < ARRAY_SIZE(types); i++)
        EXPECT(ERR_UNSPEC, types[i]);
    EXPECT(ERR_PARAMETER, 0x108, 0);
    /* a command on the other queue, and requests that are cut */
    make_command(&(struct words){0x100}, bytes);
    unsigned chain = offer(bench, CURSOR, bytes, 24, 0x800);
    assert_true(driver_take(&bench->driver, CURSOR, &head, &size));
    assert_int_equal(response_word(bench, chain, 0), ERR_UNSPEC);
    make_command(&(struct words){0x101, {1, 1, 1, 1}}, bytes);
    chain = offer(bench, CONTROL, bytes, 39, 0x800);
    assert_true(driver_take(&bench->driver, CONTROL, &head, &size));
    assert_int_equal(response_word(bench, chain, 0), ERR_PARAMETER);
    chain = offer(bench, CONTROL, bytes, 3, 0x800);
    assert_true(driver_take(&bench->driver, CONTROL, &head, &size));
    assert_int_equal(response_word(bench, chain, 0), ERR_PARAMETER);
    /* a response that has no room for all */
    make_command(&(struct words){0x100}, bytes);
    chain = offer(bench, CONTROL, bytes, 24, 10);
    assert_true(driver_take(&bench->driver, CONTROL, &head, &size));
    assert_int_equal(size, 10);
    assert_int_equal(response_word(bench, chain, 0), OK_DISPLAY_INFO);
    assert_int_equal(response_word(bench, chain, 12), 0xeeeeeeee);
    /* commands of features that were not taken */
    driver_start(&bench->driver, 0, 2, QUEUE_SIZE);
    EXPECT(ERR_UNSPEC, 0x10a, 0);
    EXPECT(ERR_UNSPEC, 0x10c, 1, 1, 0, 1, 0, 0, 64, 0, BACKING(PIXELS_GPA, 64));
}

static void test_fences(void **state)
{
    struct bench *bench = *state;
    uint8_t bytes[128];
    uint32_t head, size;
    make_picture(bench);
    make_command(&(struct words){0x104, {0, 0, 1, 1, 1}}, bytes);
    store_le32(bytes + 4, 3);
    store_le64(bytes + 8, 0x1122334455667788);
    store_le32(bytes + 16, 77);
    bytes[20] = 5;
    unsigned flush = offer(bench, CONTROL, bytes, 48, 0x800);
    store_le32(bytes, 0x100);
    unsigned info = offer(bench, CONTROL, bytes, 24, 0x800);
    store_le32(bytes, 0xdead);
    unsigned wrong = offer(bench, CONTROL, bytes, 24, 0x800);
    store_le32(bytes, 0x100);
    store_le32(bytes + 4, 0);
    unsigned quick = offer(bench, CONTROL, bytes, 24, 0x800);
    assert_string_equal(asked(2), "LFF");
    /* what has no fence needs not wait */
    assert_true(driver_take(&bench->driver, CONTROL, &head, &size));
    assert_int_equal(head, 2 * quick);
    assert_int_equal(response_word(bench, quick, 8), 0);
    assert_false(driver_take(&bench->driver, CONTROL, &head, &size));
    fake_answer(fakes.fake, GPU_OK);
    turn(bench);
    assert_true(driver_take(&bench->driver, CONTROL, &head, &size));
    assert_int_equal(head, 2 * flush);
    assert_int_equal(response_word(bench, flush, 4), 3);
    assert_int_equal(response_word(bench, flush, 8), 0x55667788);
    assert_int_equal(response_word(bench, flush, 12), 0x11223344);
    assert_int_equal(response_word(bench, flush, 16), 77);
    assert_int_equal(response_word(bench, flush, 20), 5);
    assert_false(driver_take(&bench->driver, CONTROL, &head, &size));
    fake_answer_all(fakes.fake);
    turn(bench);
    assert_true(driver_take(&bench->driver, CONTROL, &head, &size));
    assert_int_equal(head, 2 * info);
    assert_int_equal(response_word(bench, info, 0), OK_DISPLAY_INFO);
    assert_true(driver_take(&bench->driver, CONTROL, &head, &size));
    assert_int_equal(head, 2 * wrong);
    assert_int_equal(response_word(bench, wrong, 0), ERR_UNSPEC);
    /* nothing under way: at once */
    store_le32(bytes + 4, 1);
    offer(bench, CONTROL, bytes, 24, 0x800);
    assert_true(driver_take(&bench->driver, CONTROL, &head, &size));
}

/* What the renderer has no memory for does not exist. */
static void test_renderer_fails(void **state)
{
    struct bench *bench = *state;
    uint8_t bytes[128];
    uint32_t head, size;
    make_command(&(struct words){0x101, {1, GPU_FORMAT_B8G8R8X8, 64, 32}}, bytes);
    unsigned chain = offer(bench, CONTROL, bytes, 40, 0x800);
    fake_answer(fakes.fake, GPU_OUT_OF_MEMORY);
    turn(bench);
    fake_answer_all(fakes.fake);
    assert_true(driver_take(&bench->driver, CONTROL, &head, &size));
    assert_int_equal(response_word(bench, chain, 0), ERR_MEMORY);
    EXPECT(ERR_RESOURCE, 0x102, 1);
    /* made again before the answer: the second one stays */
    offer(bench, CONTROL, bytes, 40, 0x800);
    uint8_t unref[128];
    make_command(&(struct words){0x102, {1}}, unref);
    offer(bench, CONTROL, unref, 32, 0x800);
    offer(bench, CONTROL, bytes, 40, 0x800);
    fake_answer(fakes.fake, GPU_OUT_OF_MEMORY);
    fake_answer(fakes.fake, GPU_BAD_REQUEST);
    turn(bench);
    fake_answer_all(fakes.fake);
    turn(bench);
    for (unsigned i = 0; i < 3; i++)
        assert_true(driver_take(&bench->driver, CONTROL, &head, &size));
    EXPECT(OK_NODATA, 0x102, 1);
}

static void test_reset(void **state)
{
    struct bench *bench = *state;
    uint8_t bytes[128];
    uint32_t head, size;
    make_picture(bench);
    EXPECT(OK_NODATA, 0x103, 0, 0, 64, 32, 0, 1);
    make_command(&(struct words){0x105, {0, 0, 64, 32, 0, 0, 1}}, bytes);
    unsigned chain = offer(bench, CONTROL, bytes, 56, 0x800);
    offer(bench, CONTROL, bytes, 56, 0x800);
    fake_answer(fakes.fake, GPU_OK); /* landed or not */
    size_t mark = fakes.fake->count;
    driver_start(&bench->driver, ALL, 2, QUEUE_SIZE);
    assert_string_equal(asked(mark), "SD");
    assert_int_equal(bench->width, 0);
    fake_answer_all(fakes.fake);
    turn(bench);
    assert_false(driver_take(&bench->driver, CONTROL, &head, &size));
    assert_int_equal(response_word(bench, chain, 0), 0xeeeeeeee);
    make_picture(bench);
}

static void test_lost_renderer(void **state)
{
    struct bench *bench = *state;
    struct drawn drawn = {0};
    uint8_t bytes[128];
    uint32_t head, size;
    make_picture(bench);
    EXPECT(OK_NODATA, 0x101, 2, GPU_FORMAT_B8G8R8A8, 64, 64);
    EXPECT(OK_NODATA, 0x103, 0, 0, 64, 32, 0, 1);
    EXPECT(OK_NODATA, 0x300, 0, 5, 6, 0, 2, 1, 2);
    EXPECT(OK_NODATA, 0x10c, 3, 1, 0, 1, 0, 0, 64, 0, BACKING(PIXELS_GPA, 64));
    make_command(&(struct words){0x104, {0, 0, 1, 1, 1}}, bytes);
    unsigned chain = offer(bench, CONTROL, bytes, 48, 0x800);
    virtio_gpu_render(bench->gpu, 0, note_frame, &drawn);
    unsigned damaged = bench->damaged;
    fake_lose(fakes.fake);
    assert_int_equal(drawn.count, 1);
    assert_null(drawn.frame);
    turn(bench);
    assert_int_equal(fakes.destroyed, 1);
    assert_int_equal(fakes.again, 1);
    assert_int_equal(fakes.fake->regions, 1);
    assert_true(driver_take(&bench->driver, CONTROL, &head, &size));
    assert_int_equal(response_word(bench, chain, 0), OK_NODATA);
    assert_string_equal(asked(0), "RKTRBKOSCC");
    assert_int_equal(fakes.fake->requests[2].transfer.rect.height, 32);
    assert_int_equal(fakes.fake->requests[8].cursor.x, 5);
    assert_int_equal(bench->damaged, damaged + 2);
    fake_answer_all(fakes.fake);
    EXPECT(OK_NODATA, 0x104, 0, 0, 1, 1, 1);
    virtio_gpu_render(bench->gpu, 0, note_frame, &drawn);
    fake_answer_all(fakes.fake);
    assert_non_null(drawn.frame);
}

static void test_no_renderer(void **state)
{
    struct bench *bench = *state;
    struct drawn drawn = {0};
    struct gpu_stats stats;
    struct error err;
    uint8_t bytes[128];
    make_picture(bench);
    EXPECT(OK_NODATA, 0x103, 0, 0, 64, 32, 0, 1);
    fakes.refuse = true;
    fake_lose(fakes.fake);
    turn(bench);
    assert_null(fakes.fake);
    assert_true(driver_read(&bench->driver, MMIO_STATUS) & VIRTIO_STATUS_NEEDS_RESET);
    assert_int_equal(fakes.opened, 2);
    virtio_gpu_render(bench->gpu, 0, note_frame, &drawn);
    assert_int_equal(drawn.count, 1);
    assert_null(drawn.frame);
    assert_false(virtio_gpu_stats(bench->gpu, &stats, 0, &err));
    turn(bench);
    assert_int_equal(fakes.opened, 2); /* only a reset tries again */
    driver_start(&bench->driver, ALL, 2, QUEUE_SIZE);
    turn(bench);
    assert_int_equal(fakes.opened, 3);
    assert_true(driver_read(&bench->driver, MMIO_STATUS) & VIRTIO_STATUS_NEEDS_RESET);
    fakes.refuse = false;
    driver_start(&bench->driver, ALL, 2, QUEUE_SIZE);
    make_command(&(struct words){0x101, {1, GPU_FORMAT_B8G8R8X8, 64, 32}}, bytes);
    turn(bench);
    assert_non_null(fakes.fake);
    make_picture(bench);
    assert_false(driver_read(&bench->driver, MMIO_STATUS) & VIRTIO_STATUS_NEEDS_RESET);
    /* one that does not take the memory */
    fakes.refuse_memory = true;
    fake_lose(fakes.fake);
    turn(bench);
    assert_null(fakes.fake);
    assert_true(driver_read(&bench->driver, MMIO_STATUS) & VIRTIO_STATUS_NEEDS_RESET);
    fakes.refuse = true;
    assert_null(create_gpu(bench, &err));
    assert_string_equal(err.message, "there is none");
}

/* Commands wait in the queue while many megabytes are under way. */
static void test_too_much_under_way(void **state)
{
    struct bench *bench = *state;
    const uint32_t entries = GPU_MAX_RANGES / 2, rounds = 40; /* of 2 MiB each */
    const uint64_t attach = DRIVER_RAM_BASE + 0x180000;
    uint32_t head, size, taken = 0;
    uint8_t *bytes = xcalloc(entries + 2, 16), detach[128];
    driver_start(&bench->driver, ALL, 1, 128);
    assert_int_equal(SEND(bench, 0x101, 1, GPU_FORMAT_B8G8R8X8, 1, 1), OK_NODATA);
    store_le32(bytes, 0x106);
    store_le32(bytes + 24, 1);
    store_le32(bytes + 28, entries);
    for (uint32_t i = 0; i < entries; i++) { /* too far apart to be merged */
        store_le64(bytes + 32 + 16 * i, DRIVER_RAM_BASE + 16 * (i % 1000));
        store_le32(bytes + 40 + 16 * i, 4);
    }
    memory_dma_write(bench->memory, attach, bytes, 32 + 16 * entries);
    make_command(&(struct words){0x107, {1}}, detach);
    memory_dma_write(bench->memory, REQUEST_GPA, detach, 32);
    const struct driver_desc descs[] = {{attach, 32 + 16 * entries, 0, 0}, {REQUEST_GPA, 32, 0, 0}};
    for (uint32_t i = 0; i < 2 * rounds; i++)
        driver_offer_chain(&bench->driver, CONTROL, i, &descs[i % 2], 1);
    driver_notify(&bench->driver, CONTROL);
    turn(bench);
    size_t under_way = fakes.fake->count - fakes.fake->answered;
    assert_true(under_way > 60 && under_way < 66);
    for (int i = 0; i < 4; i++) {
        fake_answer_all(fakes.fake);
        turn(bench);
    }
    while (driver_take(&bench->driver, CONTROL, &head, &size))
        taken++;
    assert_int_equal(taken, 2 * rounds);
    EXPECT(OK_NODATA, 0x102, 1);
    free(bytes);
}

/* Answers what it is asked, from a thread of its own, so that others can wait for it. */
static _Atomic bool answering;

static void *answer_all(void *opaque)
{
    while (answering) {
        struct fake *fake = opaque;
        pthread_mutex_lock(&fake->base.lock);
        bool some = fake->answered < fake->count;
        pthread_mutex_unlock(&fake->base.lock);
        if (some)
            fake_answer(fake, GPU_OK);
        else
            usleep(100);
    }
    return NULL;
}

static void test_state(void **state)
{
    struct bench *bench = *state;
    struct stream *saving = stream_create_saving();
    uint32_t uuid[4], again[4], head, size;
    uint8_t bytes[128];
    pthread_t thread;
    make_picture(bench);
    EXPECT(OK_NODATA, 0x101, 2, GPU_FORMAT_B8G8R8A8, 64, 64);
    EXPECT(OK_NODATA, 0x103, 0, 0, 64, 32, 0, 1);
    EXPECT(OK_NODATA, 0x300, 0, 0xfffffff0, 6, 0, 2, 1, 2);
    EXPECT(OK_NODATA, 0x10c, 3, 1, 0, 1, 0, 0, 0x10000, 0, BACKING(PIXELS_GPA, 0x10000));
    EXPECT(OK_NODATA, 0x10d, 0, 0, 64, 32, 1, 3, 64, 32, 2, 0, 256);
    bench->next = 0;
    EXPECT(OK_UUID, 0x10b, 2);
    memory_dma_read(bench->memory, RESPONSE_GPA + 24, uuid, sizeof(uuid));
    EXPECT(OK_NODATA, 0x10c, 4, 1, 0, 1, 0, 0, 64, 0, BACKING(PIXELS_GPA, 64));
    EXPECT(OK_NODATA, 0x107, 4);
    virtio_gpu_resize(bench->gpu, 1, 700, 500);
    /* one under way, which the save waits for */
    make_command(&(struct words){0x104, {0, 0, 1, 1, 1}}, bytes);
    unsigned chain = offer(bench, CONTROL, bytes, 48, 0x800);
    answering = true;
    assert_int_equal(pthread_create(&thread, NULL, answer_all, fakes.fake), 0);
    bench->gpu->base.type->quiesce(&bench->gpu->base);
    answering = false;
    pthread_join(thread, NULL);
    assert_true(driver_take(&bench->driver, CONTROL, &head, &size));
    assert_int_equal(response_word(bench, chain, 0), OK_NODATA);

    answering = true;
    assert_int_equal(pthread_create(&thread, NULL, answer_all, fakes.fake), 0);
    bench->gpu->base.type->quiesce(&bench->gpu->base);
    bench->gpu->base.type->state(&bench->gpu->base, saving);
    answering = false;
    pthread_join(thread, NULL);
    struct error err = {0};
    assert_true(stream_check(saving, &err));
    remove_gpu(bench);
    attach_gpu(bench);
    size_t total;
    const uint8_t *saved = stream_data(saving, &total);
    struct stream *loading = stream_create_loading(saved, total);
    bench->changed = 0;
    bench->gpu->base.type->state(&bench->gpu->base, loading);
    assert_true(stream_check(loading, &err));
    stream_destroy(loading);
    assert_string_equal(asked(0), "RKTRBKBOSCOSC");
    assert_int_equal(bench->changed, 2);
    assert_int_equal(fakes.fake->requests[9].cursor.x, -16);
    fake_answer_all(fakes.fake);
    turn(bench);
    assert_int_equal(driver_read(&bench->driver, MMIO_CONFIG), 1);
    bench->next = 0;
    EXPECT(OK_UUID, 0x10b, 2);
    memory_dma_read(bench->memory, RESPONSE_GPA + 24, again, sizeof(again));
    assert_memory_equal(uuid, again, sizeof(uuid));
    EXPECT(OK_DISPLAY_INFO, 0x100);
    assert_int_equal(response_word(bench, 1, 48 + 8), 700);
    EXPECT(OK_NODATA, 0x104, 0, 0, 1, 1, 1);

    /* cut short, and with each byte changed: refused, or something that a guest could have made */
    for (size_t i = 0; i < 2 * total; i++) {
        uint8_t *copy = xmalloc(total);
        memcpy(copy, saved, total);
        if (i >= total)
            copy[i - total] ^= 0xff;
        loading = stream_create_loading(copy, i < total ? i : total);
        bench->gpu->base.type->state(&bench->gpu->base, loading);
        assert_true(i >= total || !stream_check(loading, &err));
        stream_destroy(loading);
        free(copy);
        fakes.fake->count = fakes.fake->answered = 0;
    }
    stream_destroy(saving);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_display_info, setup, teardown),
        cmocka_unit_test_setup_teardown(test_resize, setup, teardown),
        cmocka_unit_test_setup_teardown(test_edid, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pictures, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_views_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_resources_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_backing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_backing_over_regions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_backing_count, setup, teardown),
        cmocka_unit_test_setup_teardown(test_backing_in_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(test_transfer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_scanout, setup, teardown),
        cmocka_unit_test_setup_teardown(test_render, setup, teardown),
        cmocka_unit_test_setup_teardown(test_blob, setup, teardown),
        cmocka_unit_test_setup_teardown(test_uuid, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cursor, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown_commands, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fences, setup, teardown),
        cmocka_unit_test_setup_teardown(test_renderer_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lost_renderer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_renderer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_much_under_way, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
