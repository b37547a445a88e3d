/* The control commands of a screen, on real devices and the renderer on a thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <json-c/json.h>

#include "control/internal.h"
#include "display/display.h"
#include "gpu_bench.h"
#include "input_bench.h"

#define WIDTH  64u
#define HEIGHT 32u

static struct bench *bench;
static struct input_bench *keyboard, *tablet, *mouse;
static struct display_devices devices;
static struct control *control;
static struct loop *loop; /* of the control socket */

static bool have_renderer(void)
{
    struct gpu_renderer *renderer = gpu_thread_create(NULL);
    gpu_renderer_destroy(renderer);
    return renderer;
}

static struct gpu_renderer *open_thread(void *opaque, bool again, struct error *err)
{
    return gpu_thread_create(err);
}

static void stop(void)
{
    control_destroy(control);
    loop_destroy(loop);
    control = NULL;
    loop = NULL;
}

static int setup(void **state)
{
    bench = bench_create(have_renderer() ? open_thread : fake_open);
    keyboard = input_bench_create(input_keyboard_create);
    tablet = input_bench_create(input_tablet_create);
    mouse = input_bench_create(input_mouse_create);
    input_bench_offer(keyboard, 64);
    input_bench_offer(tablet, 64);
    input_bench_offer(mouse, 64);
    devices = (struct display_devices){.gpu = bench->gpu,
                                       .keyboard = keyboard->device,
                                       .tablet = tablet->device,
                                       .mouse = mouse->device,
                                       .scanout_count = 2};
    loop = loop_create();
    control = control_create(loop);
    control_add_display(control, &devices);
    return 0;
}

static int teardown(void **state)
{
    if (control)
        stop();
    input_bench_destroy(keyboard);
    input_bench_destroy(tablet);
    input_bench_destroy(mouse);
    bench_destroy(bench);
    return 0;
}

/* --- Requests --- */

/* Runs NAME with arguments as JSON (with ' for "); the answer, or what was wrong behind "error: ".
 */
static const char *ask(const char *name, const char *arguments)
{
    static char out[2048];
    char *text = xstrdup(arguments);
    for (char *c = text; *c; c++)
        if (*c == '\'')
            *c = '"';
    struct json_object *object = json_tokener_parse(text), *result;
    struct error err;
    if (!object)
        fail_msg("%s is no JSON", text);
    if (control_execute(control, name, object, &result, &err)) {
        snprintf(out, sizeof(out), "%s",
                 json_object_to_json_string_ext(result, JSON_C_TO_STRING_PLAIN));
        json_object_put(result);
    } else {
        snprintf(out, sizeof(out), "error: %s", err.message);
    }
    json_object_put(object);
    free(text);
    return out;
}

static void works(const char *name, const char *arguments)
{
    assert_string_equal(ask(name, arguments), "{}");
}

static void fails(const char *name, const char *arguments, const char *fragment)
{
    const char *out = ask(name, arguments);
    if (strncmp(out, "error: ", 7) != 0 || !strstr(out, fragment))
        fail_msg("%s %s was answered by %s", name, arguments, out);
}

#define GOT(input, text) assert_string_equal(input_bench_take(input), text)

/* --- Keys --- */

static void test_send_key(void **state)
{
    works("send-key", "{'keys': [{'type': 'qcode', 'data': 'ctrl'}, {'type': 'qcode', 'data': "
                      "'alt'}, {'type': 'qcode', 'data': 'delete'}]}");
    GOT(keyboard, "1.29=1 | 1.56=1 | 1.111=1 | 1.111=0 | 1.56=0 | 1.29=0 | ");
    works("send-key", "{'keys': [{'type': 'number', 'data': 28}]}");
    GOT(keyboard, "1.28=1 | 1.28=0 | ");
    works("send-key", "{'keys': ['KEY_A', 'a']}");
    GOT(keyboard, "1.30=1 | 1.30=0 | ");
    fails("send-key", "{'keys': []}", "1 to 16");
    fails("send-key",
          "{'keys': ['a','b','c','d','e','f','g','h','i','j','k','l','m','n','o','p',"
          "'q']}",
          "1 to 16");
    fails("send-key", "{'keys': ['a', 'nokey']}", "nokey");
    fails("send-key", "{'keys': [null]}", "null");
    fails("send-key", "{'keys': [[]]}", "[ ]");
    fails("send-key", "{'keys': [{}]}", "{ }");
    fails("send-key", "{'keys': [{'type': 'qcode', 'data': {'data': 'a'}}]}", "no key");
    fails("send-key", "{'keys': [0]}", "number 0");
    fails("send-key", "{'keys': [-1]}", "number -1");
    fails("send-key", "{'keys': [768]}", "number 768");
    fails("send-key", "{'keys': [9223372036854775807]}", "number 9223372036854775807");
    fails("send-key", "{'keys': 'a'}", "list");
    GOT(keyboard, "");
}

static void test_hold_time(void **state)
{
    fails("send-key", "{'keys': ['a'], 'hold-time': -1}", "60000");
    fails("send-key", "{'keys': ['a'], 'hold-time': 60001}", "60000");
    uint64_t begin = loop_now();
    works("send-key", "{'keys': ['shift', 'a'], 'hold-time': 80}");
    GOT(keyboard, "1.42=1 | 1.30=1 | ");
    for (unsigned i = 0; i < 100 && !*input_bench_take(keyboard); i++)
        loop_turn(loop, 100);
    assert_string_equal(keyboard->text, "1.30=0 | 1.42=0 | ");
    assert_true(loop_now() - begin >= 80000000);
    /* The next ones end it. */
    works("send-key", "{'keys': ['a'], 'hold-time': 60000}");
    works("send-key", "{'keys': ['a', 'b'], 'hold-time': 60000}");
    GOT(keyboard, "1.30=1 | 1.30=0 | 1.30=1 | 1.48=1 | ");
    works("press-keys", "{'keys': 'c'}");
    GOT(keyboard, "1.48=0 | 1.30=0 | 1.46=1 | 1.46=0 | ");
    /* The end of the socket, too. */
    works("send-key", "{'keys': ['a'], 'hold-time': 60000}");
    stop();
    GOT(keyboard, "1.30=1 | 1.30=0 | ");
}

static void test_press(void **state)
{
    works("press-keys", "{'keys': 'ctrl-alt-f2'}");
    GOT(keyboard, "1.29=1 | 1.56=1 | 1.60=1 | 1.60=0 | 1.56=0 | 1.29=0 | ");
    fails("press-keys", "{'keys': ''}", "''");
    fails("press-keys", "{'keys': 'a-'}", "''");
    fails("press-keys", "{'keys': 'a-nokey-b'}", "'nokey'");
    fails("press-keys", "{'keys': 'a-b-c-d-e-f-g-h-i-j-k-l-m-n-o-p-q'}", "16");
    GOT(keyboard, "");
}

static void test_nobody_listens(void **state)
{
    driver_write(&keyboard->driver, MMIO_STATUS, 0);
    fails("send-key", "{'keys': ['a', 'b']}", "listens");
    fails("press-keys", "{'keys': 'a'}", "listens");
    input_bench_start(keyboard);
    input_bench_offer(keyboard, 8);
    works("send-key", "{'keys': ['a']}");
    GOT(keyboard, "1.30=1 | 1.30=0 | ");
    devices.keyboard = devices.tablet = devices.mouse = NULL;
    fails("send-key", "{'keys': ['a']}", "listens");
    works("input-send-event", "{'events': [{'type': 'btn', 'data': {'button': 'left', 'down': "
                              "true}}, {'type': 'abs', 'data': {'axis': 'x', 'value': 1}}]}");
}

/* A name that is cut off in an error is still UTF-8. */
static void test_long_name(void **state)
{
    for (unsigned shift = 0; shift < 4; shift++) {
        char request[1400] = "{'keys': '";
        for (unsigned i = 0; i < shift; i++)
            strcat(request, "x");
        for (unsigned i = 0; i < 300; i++)
            strcat(request, "\xe2\x82\xac");
        strcat(request, "'}");
        const char *out = ask("press-keys", request);
        char *quoted;
        assert_true(asprintf(&quoted, "[\"%s\"]", strstr(out, "'") + 1) > 0);
        struct json_tokener *tokener = json_tokener_new();
        json_tokener_set_flags(tokener, JSON_TOKENER_VALIDATE_UTF8);
        struct json_object *object =
            json_tokener_parse_ex(tokener, quoted, (int)strlen(quoted) + 1);
        assert_non_null(object);
        json_object_put(object);
        json_tokener_free(tokener);
        free(quoted);
    }
}

/* --- Events --- */

static void test_events(void **state)
{
    works("input-send-event",
          "{'events': [{'type': 'abs', 'data': {'axis': 'x', 'value': 100}},"
          "{'type': 'abs', 'data': {'axis': 'y', 'value': 32767}},"
          "{'type': 'btn', 'data': {'button': 'left', 'down': true}},"
          "{'type': 'btn', 'data': {'button': 'left', 'down': false}},"
          "{'type': 'btn', 'data': {'button': 'wheel-up', 'down': true}},"
          "{'type': 'btn', 'data': {'button': 'wheel-up', 'down': false}},"
          "{'type': 'btn', 'data': {'button': 'wheel-left', 'down': true}},"
          "{'type': 'rel', 'data': {'axis': 'x', 'value': -5}},"
          "{'type': 'rel', 'data': {'axis': 'x', 'value': 1}},"
          "{'type': 'rel', 'data': {'axis': 'y', 'value': 7}},"
          "{'type': 'key', 'data': {'key': {'type': 'qcode', 'data': 'a'}, 'down': true}},"
          "{'type': 'key', 'data': {'key': {'type': 'number', 'data': 30}, 'down': false}}],"
          "'device': 'video0', 'head': 0}");
    GOT(tablet, "3.0=100 3.1=32767 | 1.272=1 | 1.272=0 | 2.8=1 | 2.6=-1 | ");
    GOT(mouse, "2.0=-5 | 2.0=1 2.1=7 | ");
    GOT(keyboard, "1.30=1 | 1.30=0 | ");
    works("input-send-event", "{'events': []}");
    /* As in QEMU, wheels and buttons go to the mouse where there is no tablet. */
    devices.tablet = NULL;
    works("input-send-event",
          "{'events': [{'type': 'btn', 'data': {'button': 'extra', 'down': true}}]}");
    GOT(mouse, "1.276=1 | ");
}

/* Each is refused, and what comes before it is not sent either. */
static void test_bad_events(void **state)
{
    static const struct {
        const char *event, *fragment;
    } cases[] = {
        {"null", "type"},
        {"[]", "type"},
        {"{}", "type"},
        {"{'type': 'mtt', 'data': {}}", "key, btn, abs or rel"},
        {"{'type': 'key'}", "data"},
        {"{'type': 'key', 'data': []}", "data"},
        {"{'type': 'key', 'data': {}}", "no key"},
        {"{'type': 'key', 'data': {'key': 'a'}}", "'down'"},
        {"{'type': 'key', 'data': {'key': 'a', 'down': 1}}", "'down'"},
        {"{'type': 'key', 'data': {'key': 'nokey', 'down': true}}", "nokey"},
        {"{'type': 'btn', 'data': {'down': true}}", "no button"},
        {"{'type': 'btn', 'data': {'button': 1, 'down': true}}", "no button"},
        {"{'type': 'btn', 'data': {'button': 'touch', 'down': true}}", "touch"},
        {"{'type': 'btn', 'data': {'button': 'left'}}", "'down'"},
        {"{'type': 'abs', 'data': {'axis': 'z', 'value': 1}}", "x or y"},
        {"{'type': 'abs', 'data': {'value': 1}}", "x or y"},
        {"{'type': 'abs', 'data': {'axis': 'x'}}", "'value'"},
        {"{'type': 'abs', 'data': {'axis': 'x', 'value': '1'}}", "'value'"},
        {"{'type': 'abs', 'data': {'axis': 'x', 'value': -1}}", "32767"},
        {"{'type': 'abs', 'data': {'axis': 'x', 'value': 32768}}", "32767"},
        {"{'type': 'abs', 'data': {'axis': 'x', 'value': 4294967296}}", "32767"},
        {"{'type': 'rel', 'data': {'axis': 'xx', 'value': 1}}", "x or y"},
        {"{'type': 'rel', 'data': {'axis': 'x', 'value': 1.5}}", "'value'"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char arguments[512];
        snprintf(arguments, sizeof(arguments),
                 "{'events': [{'type': 'key', 'data': {'key': 'a', 'down': true}}, %s]}",
                 cases[i].event);
        fails("input-send-event", arguments, cases[i].fragment);
    }
    char many[20000] = "{'events': [";
    for (unsigned i = 0; i < 257; i++)
        sprintf(many + strlen(many), "%s{'type':'rel','data':{'axis':'x','value':1}}",
                i ? "," : "");
    strcat(many, "]}");
    fails("input-send-event", many, "256");
    GOT(keyboard, "");
    GOT(mouse, "");
}

/* --- Pictures --- */

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

static void show_picture(void)
{
    for (uint32_t i = 0; i < WIDTH * HEIGHT; i++) {
        uint32_t value = htole32(i * 0x010305 & 0xffffff);
        memory_dma_write(bench->memory, PIXELS_GPA + i * 4, &value, 4);
    }
    DO({0x101, {1, GPU_FORMAT_B8G8R8X8, WIDTH, HEIGHT}});
    DO({0x106, {1, 1, (uint32_t)PIXELS_GPA, 0, WIDTH * HEIGHT * 4}});
    DO({0x105, {0, 0, WIDTH, HEIGHT, 0, 0, 1}});
    DO({0x103, {0, 0, WIDTH, HEIGHT, 0, 1}});
}

static void check_picture(const char *path)
{
    FILE *file = fopen(path, "r");
    unsigned width, height;
    assert_non_null(file);
    assert_int_equal(fscanf(file, "P6\n%u %u\n255", &width, &height), 2);
    assert_int_equal(width, WIDTH);
    assert_int_equal(height, HEIGHT);
    assert_int_equal(getc(file), '\n');
    for (uint32_t i = 0; i < WIDTH * HEIGHT; i++) {
        uint32_t red = (uint32_t)getc(file), green = (uint32_t)getc(file);
        assert_int_equal(red << 16 | green << 8 | (uint32_t)getc(file), i * 0x010305 & 0xffffff);
    }
    assert_int_equal(getc(file), EOF);
    fclose(file);
}

static void test_screendump(void **state)
{
    char folder[] = "/tmp/hartvisor-shot-XXXXXX", path[64], arguments[256];
    if (!have_renderer())
        skip();
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/shot.ppm", folder);
    snprintf(arguments, sizeof(arguments), "{'filename': '%s', 'head': 0}", path);
    fails("screendump", arguments, "off");
    show_picture();
    works("screendump", arguments);
    check_picture(path);
    /* Without damage it is the same. */
    unlink(path);
    works("screendump", arguments);
    check_picture(path);
    snprintf(arguments, sizeof(arguments), "{'filename': '%s', 'format': 'png'}", path);
#ifdef HAVE_LIBPNG
    works("screendump", arguments);
    FILE *file = fopen(path, "r");
    assert_int_equal(getc(file), 0x89);
    fclose(file);
#else
    fails("screendump", arguments, "libpng");
#endif
    snprintf(arguments, sizeof(arguments), "{'filename': '%s', 'format': 'jpeg'}", path);
    fails("screendump", arguments, "png or ppm");
    fails("screendump", "{'filename': '/nonexistent/a.ppm'}", "/nonexistent");
    fails("screendump", "{'filename': 'a.ppm', 'head': 1}", "off");
    fails("screendump", "{'filename': 'a.ppm', 'head': 2}", "0 to 1");
    fails("screendump", "{'filename': 'a.ppm', 'head': -1}", "0 to 1");
    fails("screendump", "{'filename': 'a.ppm', 'head': 4294967296}", "0 to 1");
    fails("screendump", "{}", "filename");
    unlink(path);
    assert_int_equal(rmdir(folder), 0);
}

/* --- Sizes --- */

static void test_sizes(void **state)
{
    if (!have_renderer())
        skip();
    assert_string_equal(ask("query-displays", "{}"),
                        "[{\"head\":0,\"on\":false,\"width\":0,\"height\":0},"
                        "{\"head\":1,\"on\":false,\"width\":0,\"height\":0}]");
    show_picture();
    assert_string_equal(ask("query-displays", "{}"),
                        "[{\"head\":0,\"on\":true,\"width\":64,\"height\":32},"
                        "{\"head\":1,\"on\":false,\"width\":0,\"height\":0}]");
    /* The guest hears of the new size: a display event, and the display's information. */
    works("set-display-size", "{'width': 800, 'height': 600, 'head': 1}");
    turn(bench);
    assert_int_equal(driver_read(&bench->driver, MMIO_CONFIG), 1);
    struct words info = {0x100, {0}};
    uint8_t bytes[128];
    uint32_t head, written, size = make_command(&info, bytes);
    unsigned chain = offer(bench, CONTROL, bytes, size, 0x800);
    for (int i = 0; i < 100 && !driver_take(&bench->driver, CONTROL, &head, &written); i++)
        loop_turn(bench->loop, 10);
    assert_int_equal(response_word(bench, chain, 24 + 24 + 8), 800);
    assert_int_equal(response_word(bench, chain, 24 + 24 + 12), 600);
    works("set-display-size", "{'width': 0, 'height': 0, 'head': 1}");
    works("set-display-size", "{'width': 64, 'height': 64}");
    fails("set-display-size", "{'width': 63, 'height': 600}", "63x600");
    fails("set-display-size", "{'width': 800, 'height': 0}", "800x0");
    fails("set-display-size", "{'width': -800, 'height': 600}", "-800x600");
    fails("set-display-size", "{'width': 1000000, 'height': 600}", "1000000x600");
    fails("set-display-size", "{'width': 4294968096, 'height': 600}", "4294968096x600");
    fails("set-display-size", "{'width': 800, 'height': 600, 'head': 2}", "0 to 1");
    fails("set-display-size", "{'width': 800}", "height");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_send_key),       T(test_hold_time),  T(test_press),
        T(test_nobody_listens), T(test_long_name),  T(test_events),
        T(test_bad_events),     T(test_screendump), T(test_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
