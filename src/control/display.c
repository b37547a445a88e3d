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
    const struct display_devices *devices = opaque;
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

static unsigned press(const struct display_devices *devices, const uint16_t *keys, unsigned count)
{
    unsigned sent = 0;
    for (unsigned i = 0; i < count; i++)
        sent += input_key(devices, keys[i], true);
    for (unsigned i = count; i-- > 0;)
        input_key(devices, keys[i], false);
    return sent;
}

static bool run_send_key(void *opaque, const struct control_value *values,
                         struct json_object **result, struct error *err)
{
    uint16_t keys[KEYS_MAX];
    size_t count = json_object_array_length(values[0].list);
    if (!count || count > KEYS_MAX)
        return error_set(err, "give 1 to %u keys that are pressed together, not %zu", KEYS_MAX,
                         count);
    for (size_t i = 0; i < count; i++)
        if (!read_key(json_object_array_get_idx(values[0].list, i), &keys[i], err))
            return false;
    return press(opaque, keys, (unsigned)count) == count ||
           error_set(err, "the guest has no driver that listens to the keyboard");
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
    return ok && (press(opaque, keys, count) == count ||
                  error_set(err, "the guest has no driver that listens to the keyboard"));
}

/* --- Events, as QEMU's input-send-event has them --- */

static bool send_key_event(const struct display_devices *devices, struct json_object *data,
                           struct error *err)
{
    uint16_t key;
    if (!read_key(json_object_object_get(data, "key"), &key, err))
        return false;
    input_key(devices, key, json_object_get_boolean(json_object_object_get(data, "down")));
    return true;
}

static bool send_button_event(const struct display_devices *devices, struct json_object *data,
                              struct error *err)
{
    static const struct {
        const char *name;
        uint16_t button;
        int vertical, horizontal;
    } buttons[] = {
        {"left", BTN_LEFT, 0, 0}, {"right", BTN_RIGHT, 0, 0}, {"middle", BTN_MIDDLE, 0, 0},
        {"side", BTN_SIDE, 0, 0}, {"extra", BTN_EXTRA, 0, 0}, {"wheel-up", 0, 1, 0},
        {"wheel-down", 0, -1, 0}, {"wheel-left", 0, 0, -1},   {"wheel-right", 0, 0, 1},
    };
    const char *name = message_text(json_object_object_get(data, "button"));
    bool down = json_object_get_boolean(json_object_object_get(data, "down"));
    for (size_t i = 0; name && i < ARRAY_SIZE(buttons); i++) {
        if (strcmp(buttons[i].name, name) != 0)
            continue;
        if (buttons[i].button)
            input_button(devices, buttons[i].button, down, false);
        else if (down)
            input_wheel(devices, buttons[i].vertical, buttons[i].horizontal);
        return true;
    }
    return error_set(err, "there is no button '%s'", name ? name : "");
}

static int32_t number_member(struct json_object *data, const char *name)
{
    return json_object_get_int(json_object_object_get(data, name));
}

static bool is_axis(struct json_object *data, const char *axis)
{
    const char *name = message_text(json_object_object_get(data, "axis"));
    return name && !strcmp(name, axis);
}

/* One axis of the tablet, 0 to 32767. */
static bool send_absolute_event(const struct display_devices *devices, struct json_object *data,
                                struct error *err)
{
    bool horizontal = is_axis(data, "x");
    int32_t value = number_member(data, "value");
    if (!horizontal && !is_axis(data, "y"))
        return error_set(err, "an event's axis is x or y");
    if (value < 0 || value > 32767)
        return error_set(err, "%d is no place on the tablet: give 0 to 32767", value);
    const struct virtio_input_event event = {EV_ABS, horizontal ? ABS_X : ABS_Y, value};
    if (devices->tablet)
        virtio_input_send(devices->tablet, &event, 1);
    return true;
}

static bool send_relative_event(const struct display_devices *devices, struct json_object *data,
                                struct error *err)
{
    bool horizontal = is_axis(data, "x");
    int32_t value = number_member(data, "value");
    if (!horizontal && !is_axis(data, "y"))
        return error_set(err, "an event's axis is x or y");
    input_motion(devices, horizontal ? value : 0, horizontal ? 0 : value);
    return true;
}

static bool send_event(const struct display_devices *devices, struct json_object *event,
                       struct error *err)
{
    static const struct {
        const char *type;
        bool (*send)(const struct display_devices *devices, struct json_object *data,
                     struct error *err);
    } kinds[] = {
        {"key", send_key_event},
        {"btn", send_button_event},
        {"abs", send_absolute_event},
        {"rel", send_relative_event},
    };
    bool sane = json_object_is_type(event, json_type_object);
    const char *type = sane ? message_text(json_object_object_get(event, "type")) : NULL;
    struct json_object *data = sane ? json_object_object_get(event, "data") : NULL;
    for (size_t i = 0; type && i < ARRAY_SIZE(kinds); i++)
        if (!strcmp(kinds[i].type, type))
            return json_object_is_type(data, json_type_object)
                       ? kinds[i].send(devices, data, err)
                       : error_set(err, "an event has data, an object");
    return error_set(err, "an event's type is key, btn, abs or rel");
}

static bool run_send_event(void *opaque, const struct control_value *values,
                           struct json_object **result, struct error *err)
{
    size_t count = json_object_array_length(values[0].list);
    if (count > EVENTS_MAX)
        return error_set(err, "give at most %u events at once, not %zu", EVENTS_MAX, count);
    for (size_t i = 0; i < count; i++)
        if (!send_event(opaque, json_object_array_get_idx(values[0].list, i), err))
            return false;
    return true;
}

/* --- Sizes --- */

static bool run_set_size(void *opaque, const struct control_value *values,
                         struct json_object **result, struct error *err)
{
    const struct display_devices *devices = opaque;
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
    const struct display_devices *devices = opaque;
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
        .help = "press and release keys together, given as a list",
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
    control_add_commands(control, display_commands, ARRAY_SIZE(display_commands), (void *)devices);
}
