/*
 * Draws known pictures on every display of a DRM device, in the guest:
 *
 *     draw /dev/dri/card0
 *
 * says "SCANOUT WxH" for each display that is connected, where it has set the first mode, and
 * "ready" when all is drawn. Pixel x, y of display n is then 0xRRGGBB with
 *
 *     R = x & 255, G = y & 255, B = (n << 6) + (x >> 8 << 3) + (y >> 8), cut to 8 bits.
 *
 * After that it does what lines of its input say, and answers each with "done". Its end gives the
 * displays back.
 *
 * - fill SCANOUT X Y WIDTH HEIGHT RRGGBB: fills a rectangle, and flushes only that
 * - paint SCANOUT TIMES: draws and flushes the whole picture, says how many milliseconds it took
 * - cursor SCANOUT X Y HOT_X HOT_Y: shows a cursor with its hot spot there. It is 64 pixels
 * squared, and pixel x, y of it 0xAARRGGBB with A = 255 where x > y, else 0 where y is odd, else
 * 128; R = min(4 * x, A), G = min(4 * y, A), B = 0
 * - move SCANOUT X Y: moves it
 * - hide SCANOUT: hides it
 * - off SCANOUT: turns the display off
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#include <drm/drm.h>
#include <drm/drm_mode.h>

#define MAX_SCANOUTS 16
#define MAX_MODES    128
#define CURSOR_SIZE  64

struct buffer {
    uint32_t handle, pitch;
    uint32_t *pixels;
};

struct scanout {
    uint32_t crtc, width, height, framebuffer;
    struct buffer picture, cursor;
};

static int device;
static struct scanout scanouts[MAX_SCANOUTS];
static unsigned scanout_count;

static void call(unsigned long request, void *argument, const char *what)
{
    if (ioctl(device, request, argument) == 0)
        return;
    printf("%s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t address(const void *pointer)
{
    return (uintptr_t)pointer;
}

static struct buffer make_buffer(uint32_t width, uint32_t height)
{
    struct drm_mode_create_dumb create = {.width = width, .height = height, .bpp = 32};
    call(DRM_IOCTL_MODE_CREATE_DUMB, &create, "a buffer");
    struct drm_mode_map_dumb map = {.handle = create.handle};
    call(DRM_IOCTL_MODE_MAP_DUMB, &map, "a buffer's mapping");
    void *pixels =
        mmap(NULL, create.size, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)map.offset);
    if (pixels == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return (struct buffer){create.handle, create.pitch / 4, pixels};
}

static void draw_picture(const struct scanout *scanout, unsigned number)
{
    for (uint32_t y = 0; y < scanout->height; y++)
        for (uint32_t x = 0; x < scanout->width; x++)
            scanout->picture.pixels[y * scanout->picture.pitch + x] =
                (x & 255) << 16 | (y & 255) << 8 |
                (((number << 6) + (x >> 8 << 3) + (y >> 8)) & 255);
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void draw_cursor(const struct buffer *cursor)
{
    for (uint32_t y = 0; y < CURSOR_SIZE; y++) {
        for (uint32_t x = 0; x < CURSOR_SIZE; x++) {
            uint32_t alpha = x > y ? 255 : y & 1 ? 0 : 128;
            cursor->pixels[y * cursor->pitch + x] =
                alpha << 24 | smaller(4 * x, alpha) << 16 | smaller(4 * y, alpha) << 8;
        }
    }
}

static void flush(const struct scanout *scanout, uint32_t x, uint32_t y, uint32_t width,
                  uint32_t height)
{
    struct drm_clip_rect clip = {(uint16_t)x, (uint16_t)y, (uint16_t)(x + width),
                                 (uint16_t)(y + height)};
    struct drm_mode_fb_dirty_cmd dirty = {
        .fb_id = scanout->framebuffer, .num_clips = 1, .clips_ptr = address(&clip)};
    call(DRM_IOCTL_MODE_DIRTYFB, &dirty, "a flush");
}

/* Sets a connector's first mode, which is the one that its display prefers. */
static void start_scanout(uint32_t connector, uint32_t crtc, unsigned number)
{
    static struct drm_mode_modeinfo modes[MAX_MODES];
    struct drm_mode_get_connector get = {.connector_id = connector};
    struct scanout *scanout = &scanouts[number];
    call(DRM_IOCTL_MODE_GETCONNECTOR, &get, "a connector");
    get.count_props = get.count_encoders = 0;
    get.count_modes = smaller(get.count_modes, MAX_MODES);
    get.modes_ptr = address(modes);
    call(DRM_IOCTL_MODE_GETCONNECTOR, &get, "a connector's modes");
    if (get.connection != 1 || !get.count_modes)
        return;
    scanout->crtc = crtc;
    scanout->width = modes[0].hdisplay;
    scanout->height = modes[0].vdisplay;
    scanout->picture = make_buffer(scanout->width, scanout->height);
    draw_picture(scanout, number);
    struct drm_mode_fb_cmd add = {.width = scanout->width,
                                  .height = scanout->height,
                                  .pitch = scanout->picture.pitch * 4,
                                  .bpp = 32,
                                  .depth = 24,
                                  .handle = scanout->picture.handle};
    call(DRM_IOCTL_MODE_ADDFB, &add, "a frame buffer");
    scanout->framebuffer = add.fb_id;
    struct drm_mode_crtc set = {.crtc_id = crtc,
                                .fb_id = add.fb_id,
                                .set_connectors_ptr = address(&connector),
                                .count_connectors = 1,
                                .mode = modes[0],
                                .mode_valid = 1};
    call(DRM_IOCTL_MODE_SETCRTC, &set, "a mode");
    flush(scanout, 0, 0, scanout->width, scanout->height);
    printf("%u %ux%u\n", number, scanout->width, scanout->height);
}

static void start(void)
{
    uint32_t connectors[MAX_SCANOUTS], crtcs[MAX_SCANOUTS];
    struct drm_mode_card_res resources = {.connector_id_ptr = address(connectors),
                                          .crtc_id_ptr = address(crtcs),
                                          .count_connectors = MAX_SCANOUTS,
                                          .count_crtcs = MAX_SCANOUTS};
    call(DRM_IOCTL_MODE_GETRESOURCES, &resources, "the displays");
    scanout_count = smaller(resources.count_connectors, resources.count_crtcs);
    scanout_count = smaller(scanout_count, MAX_SCANOUTS);
    for (unsigned i = 0; i < scanout_count; i++)
        start_scanout(connectors[i], crtcs[i], i);
}

static void fill(struct scanout *scanout, const int *numbers, uint32_t colour)
{
    for (int y = numbers[1]; y < numbers[1] + numbers[3]; y++)
        for (int x = numbers[0]; x < numbers[0] + numbers[2]; x++)
            scanout->picture.pixels[(uint32_t)y * scanout->picture.pitch + (uint32_t)x] = colour;
    flush(scanout, (uint32_t)numbers[0], (uint32_t)numbers[1], (uint32_t)numbers[2],
          (uint32_t)numbers[3]);
}

static long milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* A new picture each time, as what plays a film makes them. */
static void paint(struct scanout *scanout, int times)
{
    long start = milliseconds();
    for (int i = 0; i < times; i++) {
        for (uint32_t y = 0; y < scanout->height; y++)
            memset(scanout->picture.pixels + y * scanout->picture.pitch, (int)y + i,
                   scanout->width * 4);
        flush(scanout, 0, 0, scanout->width, scanout->height);
    }
    printf("%ld ms\n", milliseconds() - start);
}

static void move_cursor(const struct scanout *scanout, int x, int y)
{
    struct drm_mode_cursor2 move = {
        .flags = DRM_MODE_CURSOR_MOVE, .crtc_id = scanout->crtc, .x = x, .y = y};
    call(DRM_IOCTL_MODE_CURSOR2, &move, "a cursor's move");
}

static void set_cursor(struct scanout *scanout, const int *numbers)
{
    if (!scanout->cursor.pixels) {
        scanout->cursor = make_buffer(CURSOR_SIZE, CURSOR_SIZE);
        draw_cursor(&scanout->cursor);
    }
    struct drm_mode_cursor2 show = {.flags = DRM_MODE_CURSOR_BO | DRM_MODE_CURSOR_MOVE,
                                    .crtc_id = scanout->crtc,
                                    .x = numbers[0],
                                    .y = numbers[1],
                                    .width = CURSOR_SIZE,
                                    .height = CURSOR_SIZE,
                                    .handle = scanout->cursor.handle,
                                    .hot_x = numbers[2],
                                    .hot_y = numbers[3]};
    call(DRM_IOCTL_MODE_CURSOR2, &show, "a cursor");
}

static void hide_cursor(const struct scanout *scanout)
{
    struct drm_mode_cursor2 hide = {.flags = DRM_MODE_CURSOR_BO, .crtc_id = scanout->crtc};
    call(DRM_IOCTL_MODE_CURSOR2, &hide, "hiding a cursor");
}

static void turn_off(const struct scanout *scanout)
{
    struct drm_mode_crtc off = {.crtc_id = scanout->crtc};
    call(DRM_IOCTL_MODE_SETCRTC, &off, "turning a display off");
}

/* False for a line that says nothing. */
static int obey(const char *line)
{
    char word[16];
    unsigned number, colour = 0;
    int numbers[4];
    int count = sscanf(line, "%15s %u %d %d %d %d %x", word, &number, &numbers[0], &numbers[1],
                       &numbers[2], &numbers[3], &colour);
    if (count < 2 || number >= scanout_count || !scanouts[number].picture.pixels)
        return 0;
    struct scanout *scanout = &scanouts[number];
    if (!strcmp(word, "fill") && count == 7)
        fill(scanout, numbers, colour);
    else if (!strcmp(word, "paint") && count == 3)
        paint(scanout, numbers[0]);
    else if (!strcmp(word, "cursor") && count == 6)
        set_cursor(scanout, numbers);
    else if (!strcmp(word, "move") && count == 4)
        move_cursor(scanout, numbers[0], numbers[1]);
    else if (!strcmp(word, "hide"))
        hide_cursor(scanout);
    else if (!strcmp(word, "off"))
        turn_off(scanout);
    else
        return 0;
    return 1;
}

int main(int argc, char **argv)
{
    char line[256];
    setlinebuf(stdout);
    device = argc == 2 ? open(argv[1], O_RDWR) : -1;
    if (device < 0) {
        perror(argc == 2 ? argv[1] : "usage: draw /dev/dri/card0");
        return 1;
    }
    start();
    puts("ready");
    while (fgets(line, sizeof(line), stdin))
        puts(obey(line) ? "done" : "what?");
    return 0;
}
