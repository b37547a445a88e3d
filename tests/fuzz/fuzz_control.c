/*
 * Bytes from a client of the control socket: parser, protocol, commands with each type of argument,
 * and those of a screen that is off: no file is written. The first byte chooses how the rest is cut
 * into pieces.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "base/bits.h"
#include "control/internal.h"
#include "control/message.h"
#include "control/text.h"
#include "display/display.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool run_echo(void *opaque, const struct control_value *values, struct json_object **result,
                     struct error *err)
{
    if (values[1].present && values[1].integer < 0)
        return error_set(err, "%s: negative", values[0].string);
    assert(values[0].present && values[0].string);
    assert(!values[3].present || json_object_is_type(values[3].list, json_type_array));
    *result = json_object_new_string(values[0].string);
    return true;
}

static bool run_nothing(void *opaque, const struct control_value *values,
                        struct json_object **result, struct error *err)
{
    return true;
}

static const struct control_command commands[] = {
    {.name = "echo",
     .help = "say it back",
     .arguments = {{"text", CONTROL_STRING},
                   {"number", CONTROL_INTEGER, true},
                   {"flag", CONTROL_BOOLEAN, true},
                   {"list", CONTROL_LIST, true}},
     .run = run_echo},
    {.name = "stop", .help = "pause the machine", .run = run_nothing},
};

static void submit_nothing(struct gpu_renderer *renderer, const struct gpu_request *request,
                           const void *payload, int fd)
{
    assert(fd < 0); /* nothing is shown */
}

static struct gpu_renderer *open_renderer(void *opaque, bool again, struct error *err)
{
    static const struct gpu_renderer_ops ops = {.name = "none", .submit = submit_nothing};
    static struct gpu_renderer renderer;
    gpu_renderer_init(&renderer, &ops);
    return &renderer;
}

static struct control *create_control(void)
{
    static struct display_devices devices = {.scanout_count = 2};
    const struct virtio_gpu_config config = {
        .scanout_count = 2, .sizes = {{1280, 800}, {640, 480}}, .open = open_renderer};
    struct loop *loop = loop_create();
    struct control *control = control_create(loop);
    devices.gpu = virtio_gpu_create("gpu0", &config, loop, NULL);
    devices.keyboard = input_keyboard_create(loop);
    devices.tablet = input_tablet_create(loop);
    devices.mouse = input_mouse_create(loop);
    control_add_commands(control, commands, ARRAY_SIZE(commands), NULL);
    control_add_display(control, &devices);
    return control;
}

/* Answers are one line of JSON, with "return" or "error". */
static void check_answer(struct json_object *answer)
{
    assert(json_object_object_get(answer, "return") || json_object_object_get(answer, "error"));
    static FILE *nowhere;
    if (!nowhere)
        nowhere = fopen("/dev/null", "w");
    control_text_print(nowhere, answer);
    char *line = control_line(answer);
    size_t length = strlen(line);
    assert(length > 2 && strchr(line, '\n') == line + length - 1);
    free(line);
}

static void feed(struct message_parser *parser, struct control_session *session, const char *bytes,
                 size_t size)
{
    for (;;) {
        struct json_object *message = NULL;
        struct error err;
        size_t before = size;
        bool skipping = parser->skipping;
        enum message_status status = message_parser_next(parser, &bytes, &size, &message, &err);
        if (status == MESSAGE_INCOMPLETE) {
            assert(size == 0);
            return;
        }
        /* No byte is reported twice. */
        assert(size < before || (status == MESSAGE_INVALID && !skipping) ||
               status == MESSAGE_COMPLETE);
        check_answer(status == MESSAGE_COMPLETE ? session_answer(session, message)
                                                : session_complain(&err));
        json_object_put(message);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    static struct control *control; /* the same for all inputs: only the session has a state */
    if (!control)
        control = create_control();
    struct control_session session = {.control = control, .negotiated = data[0] & 1};
    size_t piece = data[0] >> 1 ? data[0] >> 1 : size;
    struct message_parser parser;
    message_parser_init(&parser, 4096);
    for (size_t from = 1; from < size; from += piece) {
        size_t length = size - from < piece ? size - from : piece;
        /* A copy of exactly this piece, so that reading past its end is seen. */
        char *copy = malloc(length);
        memcpy(copy, data + from, length);
        feed(&parser, &session, copy, length);
        free(copy);
    }
    message_parser_finish(&parser);
    return 0;
}
