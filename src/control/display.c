/* A machine's screen as control commands: pictures of it, keys and pointers, sizes. */
#include <json-c/json.h>
#include <linux/input-event-codes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "control/internal.h"
#include "control/message.h"
#include "display/display.h"

#define SHOT_TIMEOUT_MS 5000
#define KEYS_MAX        16
#define EVENTS_MAX      256
#define HOLD_MAX_MS     60000

/* What the commands act on, and the keys that send-key holds down. */
struct control_screen {
    const struct display_devices *devices;
    struct loop_timer *release;
    uint16_t held[KEYS_MAX];
    unsigned held_count;
};

static bool check_head(const struct display_devices *devices, const struct control_value *head,
                       unsigned *scanout, struct error *err)
{
    if (head->integer < 0 || head->integer >= devices->scanout_count)
        return error_set(err, "there is no display %lld: they are numbered from 0 to %u",
                         (long long)head->integer, devices->scanout_count - 1);
    *scanout = (unsigned)head->integer;
    return true;
}

static bool find_format(const struct control_value *name, enum picture_format *format,
                        struct error *err)
{
    *format = PICTURE_BY_NAME;
    if (name->present && !strcmp(name->string, "png"))
        *format = PICTURE_PNG;
    else if (name->present && !strcmp(name->string, "ppm"))
        *format = PICTURE_PPM;
    else if (name->present)
        return error_set(err, "there is no format '%s': give png or ppm", name->string);
    return true;
}

static bool run_screendump(void *opaque, const struct control_value *values,
                           struct json_object **result, struct error *err)
{
    const struct display_devices *devices = ((struct control_screen *)opaque)->devices;
    enum picture_format format;
    unsigned scanout = 0;
    if (!check_head(devices, &values[1], &scanout, err) || !find_format(&values[2], &format, err))
        return false;
    struct gpu_frame *frame = display_capture(devices->gpu, scanout, SHOT_TIMEOUT_MS, err);
    bool ok = frame && picture_write(frame, values[0].string, format, err);
    gpu_frame_put(frame);
    return ok;
}

/* --- Keys --- */

/* {"type": "qcode", "data": "ret"}, {"type": "number", "data": 28} (Linux's code), or "ret". */
static bool read_key(struct json_object *object, uint16_t *key, struct error *err)
{
    struct json_object *data = object;
    if (json_object_is_type(object, json_type_object))
        data = json_object_object_get(object, "data");
    if (json_object_is_type(data, json_type_int)) {
        int64_t number = json_object_get_int64(data);
        *key = number > 0 && number < KEY_CNT ? (uint16_t)number : 0;
        return *key || error_set(err, "there is no key number %lld", (long long)number);
    }
    const char *name = message_text(data);
    *key = name ? key_by_name(name) : 0;
    return *key || error_set(err,
                             "there is no key '%s': names are those of QEMU (a, ret, shift, "
                             "f1) or of Linux (KEY_A)",
                             name ? name : json_object_to_json_string(object));
}

static void release_keys(void *opaque)
{
    struct control_screen *screen = opaque;
    while (screen->held_count)
        input_key(screen->devices, screen->held[--screen->held_count], false);
}

/* What is still held is released first. */
static bool press_keys(struct control_screen *screen, const uint16_t *keys, unsigned count,
                       int64_t hold_ms, struct error *err)
{
    bool sent = true;
    loop_set_timer(screen->release, UINT64_MAX);
    release_keys(screen);
    for (unsigned i = 0; sent && i < count; i++) {
        screen->held[screen->held_count++] = keys[i];
        sent = input_key(screen->devices, keys[i], true);
    }
    if (sent && hold_ms)
        loop_set_timer(screen->release, loop_now() + (uint64_t)hold_ms * 1000000);
    else
        release_keys(screen);
    return sent || error_set(err, "the guest has no driver that listens to the keyboard, or does "
                                  "not keep up with its keys");
}

static bool run_send_key(void *opaque, const struct control_value *values,
                         struct json_object **result, struct error *err)
{
    uint16_t keys[KEYS_MAX];
    size_t count = json_object_array_length(values[0].list);
    int64_t hold_ms = values[1].integer;
    if (!count || count > KEYS_MAX)
        return error_set(err, "give 1 to %u keys that are pressed together, not %zu", KEYS_MAX,
                         count);
    if (hold_ms < 0 || hold_ms > HOLD_MAX_MS)
        return error_set(err, "keys can be held for 0 to %u ms, not %lld", HOLD_MAX_MS,
                         (long long)hold_ms);
    for (size_t i = 0; i < count; i++)
        if (!read_key(json_object_array_get_idx(values[0].list, i), &keys[i], err))
            return false;
    return press_keys(opaque, keys, (unsigned)count, hold_ms, err);
}

/* Names with hyphens between them, as people type them: ctrl-alt-delete. */
static bool run_press(void *opaque, const struct control_value *values, struct json_object **result,
                      struct error *err)
{
    uint16_t keys[KEYS_MAX];
    unsigned count = 0;
    char *list = xstrdup(values[0].string), *rest = list;
    bool ok = true;
    for (char *name; ok && (name = strsep(&rest, "-"));) {
        uint16_t key = key_by_name(name);
        if (!key)
            ok = error_set(err, "there is no key '%s': write keys as in ctrl-alt-delete", name);
        else if (count == KEYS_MAX)
            ok = error_set(err, "at most %u keys can be pressed together", KEYS_MAX);
        else
            keys[count++] = key;
    }
    free(list);
    return ok && press_keys(opaque, keys, count, 0, err);
}

/* --- Events, as QEMU's input-send-event has them --- */

/* An event of the request, for the device that gets it (NULL: there is none). */
struct parsed {
    struct virtio_device *device;
    struct virtio_input_event event; /* type EV_SYN: nothing is to be sent */
};

static bool read_down(struct json_object *data, bool *down, struct error *err)
{
    struct json_object *member = json_object_object_get(data, "down");
    *down = json_object_get_boolean(member);
    return json_object_is_type(member, json_type_boolean) ||
           error_set(err, "an event of a key or a button has 'down', true or false");
}

static bool parse_key(const struct display_devices *devices, struct json_object *data,
                      struct parsed *parsed, struct error *err)
{
    uint16_t key;
    bool down;
    if (!read_key(json_object_object_get(data, "key"), &key, err) || !read_down(data, &down, err))
        return false;
    *parsed = (struct parsed){devices->keyboard, {EV_KEY, key, down}};
    return true;
}

/* Buttons and wheels go where the pointer goes. */
static struct virtio_device *pointer(const struct display_devices *devices)
{
    return devices->tablet ? devices->tablet : devices->mouse;
}

static bool parse_button(const struct display_devices *devices, struct json_object *data,
                         struct parsed *parsed, struct error *err)
{
    /* What a press of it is; a wheel has no release. */
    static const struct {
        const char *name;
        struct virtio_input_event press;
    } buttons[] = {
        {"left", {EV_KEY, BTN_LEFT, 1}},          {"right", {EV_KEY, BTN_RIGHT, 1}},
        {"middle", {EV_KEY, BTN_MIDDLE, 1}},      {"side", {EV_KEY, BTN_SIDE, 1}},
        {"extra", {EV_KEY, BTN_EXTRA, 1}},        {"wheel-up", {EV_REL, REL_WHEEL, 1}},
        {"wheel-down", {EV_REL, REL_WHEEL, -1}},  {"wheel-left", {EV_REL, REL_HWHEEL, -1}},
        {"wheel-right", {EV_REL, REL_HWHEEL, 1}},
    };
    const char *name = message_text(json_object_object_get(data, "button"));
    bool down;
    if (!read_down(data, &down, err))
        return false;
    for (size_t i = 0; name && i < ARRAY_SIZE(buttons); i++) {
        if (strcmp(buttons[i].name, name) != 0)
            continue;
        *parsed = (struct parsed){pointer(devices), buttons[i].press};
        if (!down && parsed->event.type == EV_KEY)
            parsed->event.value = 0;
        else if (!down)
            parsed->event = (struct virtio_input_event){EV_SYN, SYN_REPORT, 0};
        return true;
    }
    return error_set(err,
                     "there is no button '%s': give left, middle, right, side, extra or "
                     "wheel-up, -down, -left, -right",
                     name ? name : "");
}

static bool read_motion(struct json_object *data, bool *vertical, int32_t *value, struct error *err)
{
    const char *axis = message_text(json_object_object_get(data, "axis"));
    struct json_object *member = json_object_object_get(data, "value");
    if (!axis || (strcmp(axis, "x") != 0 && strcmp(axis, "y") != 0))
        return error_set(err, "an event's axis is x or y");
    if (!json_object_is_type(member, json_type_int))
        return error_set(err, "an event of an axis has 'value', a number");
    *vertical = *axis == 'y';
    *value = json_object_get_int(member); /* as near as an int comes to it */
    return true;
}

/* One axis of the tablet, 0 to 32767. */
static bool parse_absolute(const struct display_devices *devices, struct json_object *data,
                           struct parsed *parsed, struct error *err)
{
    bool vertical = false;
    int32_t value = 0;
    if (!read_motion(data, &vertical, &value, err))
        return false;
    if (value < 0 || value > 32767)
        return error_set(err, "%d is no place on the tablet: give 0 to 32767", value);
    *parsed = (struct parsed){devices->tablet, {EV_ABS, vertical ? ABS_Y : ABS_X, value}};
    return true;
}

static bool parse_relative(const struct display_devices *devices, struct json_object *data,
                           struct parsed *parsed, struct error *err)
{
    bool vertical = false;
    int32_t value = 0;
    if (!read_motion(data, &vertical, &value, err))
        return false;
    *parsed = (struct parsed){devices->mouse, {EV_REL, vertical ? REL_Y : REL_X, value}};
    return true;
}

static bool parse_event(const struct display_devices *devices, struct json_object *event,
                        struct parsed *parsed, struct error *err)
{
    static const struct {
        const char *type;
        bool (*parse)(const struct display_devices *devices, struct json_object *data,
                      struct parsed *parsed, struct error *err);
    } kinds[] = {
        {"key", parse_key},
        {"btn", parse_button},
        {"abs", parse_absolute},
        {"rel", parse_relative},
    };
    bool sane = json_object_is_type(event, json_type_object);
    const char *type = sane ? message_text(json_object_object_get(event, "type")) : NULL;
    struct json_object *data = sane ? json_object_object_get(event, "data") : NULL;
    for (size_t i = 0; type && i < ARRAY_SIZE(kinds); i++)
        if (!strcmp(kinds[i].type, type))
            return json_object_is_type(data, json_type_object)
                       ? kinds[i].parse(devices, data, parsed, err)
                       : error_set(err, "an event has data, an object");
    return error_set(err, "an event's type is key, btn, abs or rel");
}

/* Both axes of a motion are one report, so that the pointer does not go round a corner. */
static bool is_other_axis(const struct parsed *one, const struct parsed *next)
{
    return one->device == next->device && one->event.type == next->event.type &&
           one->event.type != EV_KEY && one->event.code != next->event.code;
}

static void send_events(const struct parsed *parsed, size_t count)
{
    for (size_t i = 0, size; i < count; i += size) {
        struct virtio_input_event group[2] = {parsed[i].event};
        size = 1;
        if (i + 1 < count && is_other_axis(&parsed[i], &parsed[i + 1]))
            group[size++] = parsed[i + 1].event;
        if (parsed[i].device && parsed[i].event.type != EV_SYN)
            virtio_input_send(parsed[i].device, group, (unsigned)size);
    }
}

/* Nothing is sent where one of the events is wrong. */
static bool run_send_event(void *opaque, const struct control_value *values,
                           struct json_object **result, struct error *err)
{
    const struct control_screen *screen = opaque;
    struct parsed parsed[EVENTS_MAX];
    size_t count = json_object_array_length(values[0].list);
    if (count > EVENTS_MAX)
        return error_set(err, "give at most %u events at once, not %zu", EVENTS_MAX, count);
    for (size_t i = 0; i < count; i++)
        if (!parse_event(screen->devices, json_object_array_get_idx(values[0].list, i), &parsed[i],
                         err))
            return false;
    send_events(parsed, count);
    return true;
}

/* --- Sizes --- */

static bool run_set_size(void *opaque, const struct control_value *values,
                         struct json_object **result, struct error *err)
{
    const struct display_devices *devices = ((struct control_screen *)opaque)->devices;
    int64_t width = values[0].integer, height = values[1].integer;
    unsigned scanout = 0;
    if (!check_head(devices, &values[2], &scanout, err))
        return false;
    bool unplugged = !width && !height;
    if (!unplugged && (width < 64 || height < 64 || width > GPU_MAX_SIZE || height > GPU_MAX_SIZE))
        return error_set(err,
                         "a display has 64 to %u pixels each way, or 0 and 0 when unplugged, not "
                         "%lldx%lld",
                         GPU_MAX_SIZE, (long long)width, (long long)height);
    virtio_gpu_resize(devices->gpu, scanout, (uint32_t)width, (uint32_t)height);
    return true;
}

static bool run_query(void *opaque, const struct control_value *values, struct json_object **result,
                      struct error *err)
{
    const struct display_devices *devices = ((struct control_screen *)opaque)->devices;
    *result = json_object_new_array();
    for (unsigned i = 0; i < devices->scanout_count; i++) {
        struct json_object *object = json_object_new_object();
        uint32_t width, height;
        virtio_gpu_size(devices->gpu, i, &width, &height);
        json_object_object_add(object, "head", json_object_new_int64(i));
        json_object_object_add(object, "on", json_object_new_boolean(width != 0));
        json_object_object_add(object, "width", json_object_new_int64(width));
        json_object_object_add(object, "height", json_object_new_int64(height));
        json_object_array_add(*result, object);
    }
    return true;
}

static const struct control_command display_commands[] = {
    {
        .name = "screendump",
        .help = "write a picture of a display, PNG or PPM",
        .arguments = {{"filename", CONTROL_STRING, false},
                      {"head", CONTROL_INTEGER, true},
                      {"format", CONTROL_STRING, true}},
        .run = run_screendump,
    },
    {
        .name = "send-key",
        .help = "press keys together and release them, at once or after hold-time ms",
        .arguments = {{"keys", CONTROL_LIST, false}, {"hold-time", CONTROL_INTEGER, true}},
        .run = run_send_key,
    },
    {
        .name = "press-keys",
        .alias = "sendkey",
        .help = "press and release keys together, as in ctrl-alt-delete",
        .arguments = {{"keys", CONTROL_STRING, false}},
        .run = run_press,
    },
    {
        .name = "input-send-event",
        .help = "send events of keys, buttons and pointers",
        .arguments = {{"events", CONTROL_LIST, false},
                      {"device", CONTROL_STRING, true},
                      {"head", CONTROL_INTEGER, true}},
        .run = run_send_event,
    },
    {
        .name = "set-display-size",
        .help = "tell the guest that a display has another size",
        .arguments = {{"width", CONTROL_INTEGER, false},
                      {"height", CONTROL_INTEGER, false},
                      {"head", CONTROL_INTEGER, true}},
        .run = run_set_size,
    },
    {
        .name = "query-displays",
        .help = "tell the displays and the sizes of their pictures",
        .run = run_query,
    },
};

void control_add_display(struct control *control, const struct display_devices *devices)
{
    struct control_screen *screen = xcalloc(1, sizeof(*screen));
    screen->devices = devices;
    screen->release = loop_add_timer(control->loop, release_keys, screen);
    control->screen = screen;
    control_add_commands(control, display_commands, ARRAY_SIZE(display_commands), screen);
}

void screen_destroy(struct control_screen *screen)
{
    if (!screen)
        return;
    loop_remove_timer(screen->release);
    release_keys(screen);
    free(screen);
}
