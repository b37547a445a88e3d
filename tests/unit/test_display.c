/* Displays: pictures as a VNC client and a window get them, and what they send back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <linux/input-event-codes.h>
#include <rfb/rfbclient.h>
#ifdef HAVE_SDL2
#    include <SDL.h>
#endif

#include "display/display.h"
#include "gpu_bench.h"

#define WIDTH  64u
#define HEIGHT 32u

/* --- What the guest gets -----------------------------------------------------------------------
 */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char events[4096];

static void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void note(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    pthread_mutex_lock(&lock);
    size_t length = strlen(events);
    vsnprintf(events + length, sizeof(events) - length, format, args);
    pthread_mutex_unlock(&lock);
    va_end(args);
}

static bool noted(const char *text)
{
    pthread_mutex_lock(&lock);
    bool found = strstr(events, text);
    pthread_mutex_unlock(&lock);
    return found;
}

/* In the place of the library's: the test has no input devices. */
__attribute__((weak)) uint16_t key_by_keysym(uint32_t keysym, bool *shift)
{
    *shift = keysym == 'A';
    return keysym == 'a' || keysym == 'A' ? KEY_A : keysym == 0xffe1 ? KEY_LEFTSHIFT : 0;
}

__attribute__((weak)) bool input_key(const struct display_devices *devices, uint16_t key, bool down)
{
    note("key %u %d;", key, down);
    return true;
}

__attribute__((weak)) bool input_pointer(const struct display_devices *devices, uint32_t x,
                                         uint32_t y, uint32_t width, uint32_t height)
{
    note("at %u,%u of %ux%u;", x, y, width, height);
    return true;
}

__attribute__((weak)) bool input_motion(const struct display_devices *devices, int32_t dx,
                                        int32_t dy)
{
    note("by %d,%d;", dx, dy);
    return true;
}

__attribute__((weak)) bool input_button(const struct display_devices *devices, uint16_t button,
                                        bool down, bool relative)
{
    note("button %u %d%s;", button, down, relative ? " relative" : "");
    return true;
}

__attribute__((weak)) bool input_wheel(const struct display_devices *devices, int32_t vertical,
                                       int32_t horizontal)
{
    note("wheel %d,%d;", vertical, horizontal);
    return true;
}

/* --- The guest ---------------------------------------------------------------------------------
 */

static struct bench *bench;
static struct display_devices devices;
static struct display *display;
static unsigned port;

static struct gpu_renderer *open_thread(void *opaque, bool again, struct error *err)
{
    return gpu_thread_create(err);
}

static int setup(void **state)
{
    struct error err;
    struct gpu_renderer *renderer = gpu_thread_create(&err);
    if (!renderer)
        return 0;
    gpu_renderer_destroy(renderer);
    bench = bench_create(open_thread);
    devices = (struct display_devices){.gpu = bench->gpu, .scanout_count = 2};
    events[0] = '\0';
    return 0;
}

static int teardown(void **state)
{
    display_destroy(display);
    display = NULL;
    if (bench)
        bench_destroy(bench);
    bench = NULL;
    return 0;
}

static uint32_t command(const struct words *words)
{
    uint8_t bytes[128];
    uint32_t size = make_command(words, bytes), head, written;
    unsigned chain = offer(bench, queue_of(words->type), bytes, size, 0x800);
    for (int i = 0; i < 1000; i++) {
        if (driver_take(&bench->driver, queue_of(words->type), &head, &written))
            return response_word(bench, chain, 0);
        loop_turn(bench->loop, 10);
    }
    return 0;
}

#define DO(...) assert_int_equal(command(&(struct words)__VA_ARGS__), OK_NODATA)

static uint32_t pixel(uint32_t i, uint32_t seed)
{
    return (i * 0x010305 + seed) & 0xffffff;
}

/* Shows a picture of scanout + 1's own. */
static void show_picture(unsigned scanout, unsigned id, uint32_t width, uint32_t height,
                         uint32_t seed)
{
    uint64_t at = PIXELS_GPA + id * 0x10000;
    for (uint32_t i = 0; i < width * height; i++) {
        uint32_t value = htole32(pixel(i, seed));
        memory_dma_write(bench->memory, at + i * 4, &value, 4);
    }
    DO({0x101, {id, GPU_FORMAT_B8G8R8X8, width, height}});
    DO({0x106, {id, 1, (uint32_t)at, 0, width * height * 4}});
    DO({0x105, {0, 0, width, height, 0, 0, id}});
    DO({0x103, {0, 0, width, height, scanout, id}});
}

static void repaint(unsigned id, uint32_t width, uint32_t height, uint32_t seed)
{
    uint64_t at = PIXELS_GPA + id * 0x10000;
    for (uint32_t i = 0; i < width * height; i++) {
        uint32_t value = htole32(pixel(i, seed));
        memory_dma_write(bench->memory, at + i * 4, &value, 4);
    }
    DO({0x105, {0, 0, width, height, 0, 0, id}});
    DO({0x104, {0, 0, width, height, id}});
}

/* --- VNC ---------------------------------------------------------------------------------------
 */

static void open_vnc(const char *options)
{
    struct error err;
    for (unsigned i = 0; i < 50 && !display; i++) {
        port = 20000 + ((unsigned)getpid() * 16 + i * 2) % 10000;
        char *specification = xasprintf("vnc:%u%s", port, options);
        display = display_create(specification, &devices, &err);
        free(specification);
    }
    if (!display)
        fail_msg("%s", err.message);
}

static const char *client_password;

static char *get_password(rfbClient *client)
{
    return strdup(client_password);
}

static void say_nothing(const char *format, ...)
{
}

static rfbClient *connect_client(unsigned scanout, bool swapped)
{
    rfbClientLog = rfbClientErr = say_nothing;
    rfbClient *client = rfbGetClient(8, 3, 4);
    if (!swapped) {
        client->format.redShift = 16;
        client->format.greenShift = 8;
        client->format.blueShift = 0;
    }
    client->GetPassword = get_password;
    free(client->serverHost);
    client->serverHost = strdup("127.0.0.1");
    client->serverPort = (int)(port + scanout);
    client->canHandleNewFBSize = TRUE;
    /* Without JPEG, so that pixels can be compared. */
    client->appData.encodingsString = swapped ? "zrle zlib raw" : "hextile copyrect raw";
    client->appData.enableJPEG = FALSE;
    return rfbInitClient(client, NULL, NULL) ? client : NULL;
}

static void disconnect(rfbClient *client)
{
    free(client->frameBuffer);
    rfbClientCleanup(client);
}

static bool has_picture(rfbClient *client, uint32_t width, uint32_t height, uint32_t seed)
{
    if ((uint32_t)client->width != width || (uint32_t)client->height != height)
        return false;
    for (uint32_t i = 0; i < width * height; i++) {
        uint32_t value = load_le32(client->frameBuffer + i * 4);
        uint32_t red = value >> client->format.redShift & 0xff,
                 green = value >> client->format.greenShift & 0xff,
                 blue = value >> client->format.blueShift & 0xff;
        if ((red << 16 | green << 8 | blue) != pixel(i, seed))
            return false;
    }
    return true;
}

static void turn_client(rfbClient *client)
{
    /* The library waits for the socket, though a message may be read already. */
    int status = client->buffered ? 1 : WaitForMessage(client, 10000);
    assert_true(status >= 0);
    if (status)
        assert_true(HandleRFBServerMessage(client));
}

static void await_picture(rfbClient *client, uint32_t width, uint32_t height, uint32_t seed)
{
    for (unsigned i = 0; i < 1000; i++) {
        if (has_picture(client, width, height, seed))
            return;
        turn_client(client);
    }
    fail_msg("the client (%s) has %dx%d and %08x..., not the picture of %u",
             client->appData.encodingsString, client->width, client->height,
             load_le32(client->frameBuffer + 4), seed);
}

static void await_event(const char *text)
{
    for (unsigned i = 0; i < 500; i++, usleep(10000))
        if (noted(text))
            return;
    fail_msg("'%s' did not come, only '%s'", text, events);
}

#define NEED_BENCH()                                                                               \
    do {                                                                                           \
        if (!bench)                                                                                \
            skip();                                                                                \
    } while (0)

static void ignore_frame(void *opaque, struct gpu_frame *frame, const struct gpu_rect *rect)
{
}

static void test_vnc_pictures(void **state)
{
    NEED_BENCH();
    show_picture(0, 1, WIDTH, HEIGHT, 1);
    open_vnc(",password=secret");
    client_password = "secret";
    rfbClient *client = connect_client(0, false), *swapped = connect_client(0, true);
    assert_non_null(client);
    assert_non_null(swapped);
    await_picture(client, WIDTH, HEIGHT, 1);
    await_picture(swapped, WIDTH, HEIGHT, 1);
    repaint(1, WIDTH, HEIGHT, 77);
    await_picture(client, WIDTH, HEIGHT, 77);
    await_picture(swapped, WIDTH, HEIGHT, 77);
    /* Somebody else draws what is damaged. */
    for (unsigned i = 0; i < 20; i++) {
        repaint(1, WIDTH, HEIGHT, 200 + i);
        virtio_gpu_render(bench->gpu, 0, ignore_frame, NULL);
        usleep(20000);
        await_picture(client, WIDTH, HEIGHT, 200 + i);
    }
    /* Another size, an odd one; one client goes meanwhile. */
    disconnect(swapped);
    show_picture(0, 2, 101, 67, 5);
    await_picture(client, 101, 67, 5);
    /* The other scanout is another display. */
    rfbClient *second = connect_client(1, false);
    assert_non_null(second);
    show_picture(1, 3, 40, 30, 9);
    await_picture(second, 40, 30, 9);
    disconnect(second);
    /* Off: black. */
    DO({0x103, {0, 0, 0, 0, 0, 0}});
    for (unsigned i = 0; i < 1000 && load_le32(client->frameBuffer) & 0xffffff; i++)
        turn_client(client);
    assert_int_equal(load_le32(client->frameBuffer) & 0xffffff, 0);
    assert_int_equal(client->width, 101);
    show_picture(0, 4, WIDTH, HEIGHT, 3);
    await_picture(client, WIDTH, HEIGHT, 3);
    /* The display ends while a client looks. */
    display_destroy(display);
    display = NULL;
    disconnect(client);
}

static void test_vnc_password(void **state)
{
    NEED_BENCH();
    open_vnc(",password=secret");
    client_password = "Secret";
    assert_null(connect_client(0, false));
    client_password = "secret";
    rfbClient *client = connect_client(0, false);
    assert_non_null(client);
    disconnect(client);
}

/* One that was made up is told. */
static void test_vnc_made_up_password(void **state)
{
    char text[512] = "", password[9] = "";
    int ends[2], old = dup(2);
    NEED_BENCH();
    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], 2);
    open_vnc("");
    dup2(old, 2);
    close(old);
    close(ends[1]);
    assert_true(read(ends[0], text, sizeof(text) - 1) > 0);
    close(ends[0]);
    const char *found = strstr(text, "password ");
    assert_non_null(found);
    assert_int_equal(sscanf(found, "password %8s", password), 1);
    assert_int_equal(strlen(password), 8);
    client_password = password;
    rfbClient *client = connect_client(0, false);
    assert_non_null(client);
    disconnect(client);
}

static void test_vnc_input(void **state)
{
    uint32_t width, height;
    NEED_BENCH();
    show_picture(0, 1, WIDTH, HEIGHT, 1);
    open_vnc(",password=secret"); /* nor does a password make it a viewer only */
    client_password = "secret";
    rfbClient *client = connect_client(0, false);
    assert_non_null(client);
    await_picture(client, WIDTH, HEIGHT, 1);
    SendKeyEvent(client, 0xffe1, TRUE);
    SendKeyEvent(client, 'A', TRUE);
    SendKeyEvent(client, 'A', FALSE);
    await_event("key 42 1;key 30 1;key 30 0;");
    SendPointerEvent(client, 10, 20, 0);
    await_event("at 10,20 of 64x32;");
    SendPointerEvent(client, 60000, 20, 1);
    await_event("at 63,20 of 64x32;button 272 1;");
    SendPointerEvent(client, 1, 1, 8);
    await_event("button 272 0;wheel 1,0;");
    SendPointerEvent(client, 1, 1, 4);
    await_event("button 273 1;");
    /* It goes while a key and a button are held. */
    disconnect(client);
    await_event("key 42 0;");
    await_event("button 273 0;");
    virtio_gpu_size(bench->gpu, 0, &width, &height);
    assert_int_equal(width, WIDTH);
}

static int raw_connect(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void test_vnc_hostile(void **state)
{
    NEED_BENCH();
    show_picture(0, 1, WIDTH, HEIGHT, 1);
    open_vnc(",no-password");
    srand(1);
    for (unsigned round = 0; round < 40; round++) {
        uint8_t bytes[512];
        size_t length = 0;
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)(rand() >> 7);
        int fd = raw_connect();
        /* Half of them past the handshake. */
        if (round % 2) {
            memcpy(bytes, "RFB 003.008\n\1\1", 14);
            bytes[14] = (uint8_t)(round / 2 % 16); /* a message's type, or near one */
        }
        length = send(fd, bytes, round % 3 ? sizeof(bytes) : 13, MSG_NOSIGNAL) > 0;
        assert_true(length);
        shutdown(fd, SHUT_WR);
        close(fd);
    }
    /* More than may be connected, none of which says a word. */
    int idle[20];
    for (unsigned i = 0; i < ARRAY_SIZE(idle); i++)
        idle[i] = raw_connect();
    rfbClient *client = connect_client(0, false);
    assert_non_null(client);
    await_picture(client, WIDTH, HEIGHT, 1);
    for (unsigned i = 0; i < ARRAY_SIZE(idle); i++)
        close(idle[i]);
    disconnect(client);
}

static void test_specifications(void **state)
{
    static const struct {
        const char *specification, *message;
    } wrong[] = {
        {"vmc:5900", "did you mean vnc?"},
        {"none:1", "nothing may follow"},
        {"vnc", "needs a port"},
        {"vnc:", "needs a port"},
        {"vnc:x", "must be a number"},
        {"vnc:65535", "from 1 to 65534"},
        {"vnc:0", "must be a number"},
        {"vnc::5900", "no address"},
        {"vnc:5900,password=123456789", "has 9 characters"},
        {"vnc:5900,password=", "has 0 characters"},
        {"vnc:5900,password-file=/nowhere", "cannot read the password file '/nowhere'"},
        {"vnc:5900,password-file=/dev/null", "is empty"},
        {"vnc:5900,secret=x", "'secret=x' is unknown"},
        {"vnc:5900,no-password,password=x", "exclude each other"},
        {"vnc:0.0.0.0:5900,no-password", "needs a password"},
        {"vnc:[::]:5900,no-password", "needs a password"},
        {"sdl:x", "takes no options"},
    };
    struct error err;
    NEED_BENCH();
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        assert_null(display_create(wrong[i].specification, &devices, &err));
        if (!strstr(err.message, wrong[i].message))
            fail_msg("%s: %s", wrong[i].specification, err.message);
    }
    struct display_devices none = {0};
    assert_null(display_create("vnc:5900", &none, &err));
    assert_non_null(strstr(err.message, "no GPU"));
    display = display_create("none", &none, &err);
    assert_non_null(display);
    display_destroy(display);
    display = NULL;
    /* A port that is in use. */
    open_vnc(",no-password");
    char *specification = xasprintf("vnc:%u", port);
    assert_null(display_create(specification, &devices, &err));
    free(specification);
    char *named = xasprintf("port %u", port);
    assert_non_null(strstr(err.message, named));
    free(named);
}

/* --- Windows -----------------------------------------------------------------------------------
 */

#ifdef HAVE_SDL2
static _Atomic unsigned closed;

static void window_closed(void *opaque)
{
    closed++;
}

static void push_key(uint32_t window, uint32_t type, SDL_Scancode code)
{
    SDL_Event event = {.key = {.type = type, .windowID = window, .keysym.scancode = code}};
    assert_int_equal(SDL_PushEvent(&event), 1);
}

static void push_window(uint32_t window, uint8_t what)
{
    SDL_Event event = {.window = {.type = SDL_WINDOWEVENT, .windowID = window, .event = what}};
    assert_int_equal(SDL_PushEvent(&event), 1);
}

static bool window_has_picture(SDL_Window *window, uint32_t seed)
{
    /* The dummy driver's window has a surface, which the software renderer draws on. */
    SDL_Surface *surface = SDL_GetWindowSurface(window);
    if (!surface || surface->w != (int)WIDTH || surface->h != (int)HEIGHT)
        return false;
    for (uint32_t i = 0; i < WIDTH * HEIGHT; i++) {
        const uint8_t *at = (uint8_t *)surface->pixels + i / WIDTH * (unsigned)surface->pitch +
                            i % WIDTH * surface->format->BytesPerPixel;
        if ((load_le32(at) & 0xffffff) != pixel(i, seed))
            return false;
    }
    return true;
}

static void await_window(SDL_Window *window, uint32_t seed)
{
    for (unsigned i = 0; i < 500; i++, usleep(10000))
        if (window_has_picture(window, seed))
            return;
    fail_msg("the window does not have the picture");
}

static void test_window(void **state)
{
    struct error err;
    NEED_BENCH();
    setenv("SDL_VIDEODRIVER", "dummy", 1);
    devices.closed = window_closed;
    show_picture(0, 1, WIDTH, HEIGHT, 1);
    display = display_create("sdl", &devices, &err);
    if (!display)
        fail_msg("%s", err.message);
    SDL_Window *window = SDL_GetWindowFromID(1);
    assert_non_null(window);
    assert_string_equal(SDL_GetWindowTitle(window), "hartvisor \u2013 display 0");
    await_window(window, 1);
    repaint(1, WIDTH, HEIGHT, 50);
    await_window(window, 50);
    push_key(1, SDL_KEYDOWN, SDL_SCANCODE_Q);
    push_key(1, SDL_KEYUP, SDL_SCANCODE_Q);
    await_event("key 16 1;key 16 0;");
    push_key(1, SDL_KEYDOWN, SDL_SCANCODE_RETURN);
    push_window(1, SDL_WINDOWEVENT_FOCUS_LOST);
    await_event("key 28 1;key 28 0;");
    push_window(1, SDL_WINDOWEVENT_CLOSE);
    for (unsigned i = 0; i < 500 && !closed; i++)
        usleep(10000);
    assert_int_equal(closed, 1);
    SDL_TLSCleanup();
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_vnc_pictures, setup, teardown),
        cmocka_unit_test_setup_teardown(test_vnc_password, setup, teardown),
        cmocka_unit_test_setup_teardown(test_vnc_made_up_password, setup, teardown),
        cmocka_unit_test_setup_teardown(test_vnc_input, setup, teardown),
        cmocka_unit_test_setup_teardown(test_vnc_hostile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_specifications, setup, teardown),
#ifdef HAVE_SDL2
        cmocka_unit_test_setup_teardown(test_window, setup, teardown),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
