/* Pictures: how a frame is waited for, and the files it becomes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#ifdef HAVE_LIBPNG
#    include <png.h>
#endif

#include "display/display.h"
#include "gpu_bench.h"

/* --- Files --- */

static char folder[64];

static char *in_folder(const char *name)
{
    static char path[128];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static int setup_folder(void **state)
{
    strcpy(folder, "/tmp/hartvisor-picture-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

/* Names in the folder; temporary files would be among them. */
static unsigned count_files(bool remove_them)
{
    DIR *directory = opendir(folder);
    unsigned count = 0;
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (entry->d_name[0] == '.')
            continue;
        count++;
        if (remove_them)
            remove(in_folder(entry->d_name));
    }
    closedir(directory);
    return count;
}

static int teardown_folder(void **state)
{
    count_files(true);
    return rmdir(folder);
}

/* Colours that tell red from blue, with bytes where alpha would be. */
static struct gpu_frame *make_frame(uint32_t width, uint32_t height)
{
    struct gpu_frame *frame = gpu_frame_create(width, height, NULL);
    for (uint32_t y = 0; y < height; y++) {
        for (uint32_t x = 0; x < width; x++) {
            uint8_t *pixel = frame->pixels + (size_t)y * frame->stride + (size_t)x * 4;
            pixel[0] = (uint8_t)(x * 7);
            pixel[1] = (uint8_t)(y * 5);
            pixel[2] = (uint8_t)(x + y + 1);
            pixel[3] = (uint8_t)(x * y);
        }
    }
    return frame;
}

static void check_rgb(const uint8_t *rgb, uint32_t width, uint32_t height)
{
    for (uint32_t y = 0; y < height; y++) {
        for (uint32_t x = 0; x < width; x++, rgb += 3) {
            assert_int_equal(rgb[0], (uint8_t)(x + y + 1));
            assert_int_equal(rgb[1], (uint8_t)(y * 5));
            assert_int_equal(rgb[2], (uint8_t)(x * 7));
        }
    }
}

static uint8_t *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = xmalloc(*size + 1);
    assert_int_equal(fread(bytes, 1, *size, file), *size);
    fclose(file);
    return bytes;
}

static void check_ppm(const char *path, uint32_t width, uint32_t height)
{
    size_t size;
    char header[64];
    uint8_t *bytes = read_file(path, &size);
    int length = snprintf(header, sizeof(header), "P6\n%u %u\n255\n", width, height);
    assert_int_equal(size, (size_t)length + (size_t)3 * width * height);
    assert_memory_equal(bytes, header, (size_t)length);
    check_rgb(bytes + length, width, height);
    free(bytes);
}

#ifdef HAVE_LIBPNG
static void check_png(const char *path, uint32_t width, uint32_t height)
{
    png_image image = {.version = PNG_IMAGE_VERSION};
    assert_true(png_image_begin_read_from_file(&image, path));
    assert_int_equal(image.width, width);
    assert_int_equal(image.height, height);
    assert_int_equal(image.format & PNG_FORMAT_FLAG_ALPHA, 0);
    image.format = PNG_FORMAT_RGB;
    uint8_t *rgb = xmalloc(PNG_IMAGE_SIZE(image));
    assert_true(png_image_finish_read(&image, NULL, rgb, 0, NULL));
    check_rgb(rgb, width, height);
    free(rgb);
}
#endif

static const struct {
    uint32_t width, height;
} sizes[] = {{1, 1}, {3, 2}, {64, 64}, {1023, 5}, {1, 300}};

static void test_ppm(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct gpu_frame *frame = make_frame(sizes[i].width, sizes[i].height);
        struct error err;
        if (!picture_write(frame, in_folder("a.PPM"), PICTURE_BY_NAME, &err))
            fail_msg("%s", err.message);
        check_ppm(in_folder("a.PPM"), sizes[i].width, sizes[i].height);
        assert_true(picture_write(frame, in_folder("a.png"), PICTURE_PPM, &err));
        check_ppm(in_folder("a.png"), sizes[i].width, sizes[i].height);
        gpu_frame_put(frame);
    }
    assert_int_equal(count_files(false), 2);
}

static void test_png(void **state)
{
#ifdef HAVE_LIBPNG
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct gpu_frame *frame = make_frame(sizes[i].width, sizes[i].height);
        struct error err;
        if (!picture_write(frame, in_folder("a"), PICTURE_BY_NAME, &err))
            fail_msg("%s", err.message);
        check_png(in_folder("a"), sizes[i].width, sizes[i].height);
        assert_true(picture_write(frame, in_folder("a.ppm"), PICTURE_PNG, &err));
        check_png(in_folder("a.ppm"), sizes[i].width, sizes[i].height);
        gpu_frame_put(frame);
    }
    assert_int_equal(count_files(false), 2);
#else
    struct gpu_frame *frame = make_frame(1, 1);
    struct error err;
    assert_false(picture_write(frame, in_folder("a"), PICTURE_BY_NAME, &err));
    assert_non_null(strstr(err.message, "libpng"));
    assert_int_equal(count_files(false), 0);
    gpu_frame_put(frame);
#endif
}

/* A file gets the mode that any new file would, and the old one is whole until then. */
static void test_mode(void **state)
{
    struct gpu_frame *frame = make_frame(2, 2);
    struct stat status;
    mode_t mask = umask(027);
    assert_true(picture_write(frame, in_folder("a.ppm"), PICTURE_BY_NAME, NULL));
    umask(mask);
    assert_int_equal(stat(in_folder("a.ppm"), &status), 0);
    assert_int_equal(status.st_mode & 0777, 0640);
    gpu_frame_put(frame);
}

static void fails(const struct gpu_frame *frame, const char *path, enum picture_format format,
                  const char *fragment)
{
    struct error err = {""};
    assert_false(picture_write(frame, path, format, &err));
    if (!strstr(err.message, fragment) || !strstr(err.message, path))
        fail_msg("'%s' lacks '%s'", err.message, fragment);
}

static void test_bad_places(void **state)
{
    struct gpu_frame *frame = make_frame(2, 2);
    fails(frame, in_folder("none/a.ppm"), PICTURE_BY_NAME, "No such file");
    fails(frame, "", PICTURE_PPM, "No such file");
    fails(frame, folder, PICTURE_PPM, "another name");
    /* Root could replace these by a picture. */
    fails(frame, "/dev/null", PICTURE_PPM, "another name");
    assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0);
    fails(frame, in_folder("pipe"), PICTURE_PPM, "another name");
    char name[300];
    memset(name, 'x', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    fails(frame, name, PICTURE_PPM, "too long");
    assert_int_equal(count_files(false), 1);
    gpu_frame_put(frame);
}

/* The disk is full: what was there stays, nothing else does. */
static void test_no_space(void **state)
{
    struct gpu_frame *small = make_frame(2, 2), *large = make_frame(1000, 700);
    struct rlimit limit, old;
    /* Nothing that PNG could make small. */
    for (size_t i = 0; i < large->size; i++)
        large->pixels[i] = (uint8_t)(i * 2654435761u >> 13);
    assert_true(picture_write(small, in_folder("a.ppm"), PICTURE_BY_NAME, NULL));
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    limit = old;
    limit.rlim_cur = 10000;
    setrlimit(RLIMIT_FSIZE, &limit);
    fails(large, in_folder("a.ppm"), PICTURE_PPM, "File too large");
#ifdef HAVE_LIBPNG
    fails(large, in_folder("a.ppm"), PICTURE_PNG, "File too large");
#endif
    setrlimit(RLIMIT_FSIZE, &old);
    check_ppm(in_folder("a.ppm"), 2, 2);
    assert_int_equal(count_files(false), 1);
    gpu_frame_put(small);
    gpu_frame_put(large);
}

/* --- Frames --- */

static struct bench *bench;

/* Answers only when it is told to. */
static int setup_gpu(void **state)
{
    bench = bench_create(fake_open);
    return 0;
}

static int teardown_gpu(void **state)
{
    if (bench)
        bench_destroy(bench);
    bench = NULL;
    return 0;
}

static void show(void)
{
    assert_int_equal(SEND(bench, 0x101, 1, GPU_FORMAT_B8G8R8X8, 64, 32), OK_NODATA);
    assert_int_equal(SEND(bench, 0x103, 0, 0, 64, 32, 0, 1), OK_NODATA);
}

static void test_off(void **state)
{
    struct error err;
    assert_null(display_capture(bench->gpu, 0, 50, &err));
    assert_non_null(strstr(err.message, "turned it off"));
    assert_null(display_capture(bench->gpu, 99, 50, &err));
}

/* The renderer answers when the wait was given up: nothing is lost, nothing used again. */
static void test_late_frame(void **state)
{
    struct error err;
    show();
    uint64_t begin = loop_now();
    assert_null(display_capture(bench->gpu, 0, 100, &err));
    assert_non_null(strstr(err.message, "100 ms"));
    assert_in_range((loop_now() - begin) / 1000000, 100, 900);
    assert_null(display_capture(bench->gpu, 0, 0, &err));
    fake_answer_all(fakes.fake);
    turn(bench);
    /* And one that never comes, as the renderer is gone. */
    assert_null(display_capture(bench->gpu, 0, 0, &err));
    fake_lose(fakes.fake);
    turn(bench);
}

/* One that is not answered before the device goes. */
static void test_frame_at_the_end(void **state)
{
    struct error err;
    show();
    assert_null(display_capture(bench->gpu, 0, 0, &err));
    fake_answer_all(fakes.fake);
}

static void *answer_soon(void *opaque)
{
    usleep(50000);
    fake_answer_all(fakes.fake);
    return NULL;
}

static void test_frame(void **state)
{
    struct error err;
    pthread_t thread;
    show();
    pthread_create(&thread, NULL, answer_soon, NULL);
    struct gpu_frame *frame = display_capture(bench->gpu, 0, 10000, &err);
    pthread_join(thread, NULL);
    assert_non_null(frame);
    assert_int_equal(frame->width, 64);
    assert_int_equal(frame->height, 32);
    /* It outlives its scanout. */
    assert_int_equal(SEND(bench, 0x103, 0, 0, 0, 0, 0, 0), OK_NODATA);
    turn(bench);
    memset(frame->pixels, 1, frame->size);
    gpu_frame_put(frame);
}

int main(void)
{
#define F(name) cmocka_unit_test_setup_teardown(name, setup_folder, teardown_folder)
#define G(name) cmocka_unit_test_setup_teardown(name, setup_gpu, teardown_gpu)
    const struct CMUnitTest tests[] = {
        F(test_ppm),      F(test_png), F(test_mode),       F(test_bad_places),
        F(test_no_space), G(test_off), G(test_late_frame), G(test_frame_at_the_end),
        G(test_frame),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
