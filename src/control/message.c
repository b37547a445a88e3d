#include "control/message.h"

#include <ctype.h>
#include <json-c/json.h>
#include <string.h>

/* RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. NUL is refused as well. */
static bool utf8_step(struct utf8 *utf8, uint8_t byte)
{
    if (utf8->left) {
        if (byte < utf8->low || byte > utf8->high)
            return false;
        *utf8 = (struct utf8){.left = utf8->left - 1, .low = 0x80, .high = 0xbf};
        return true;
    }
    if (byte < 0x80)
        return byte != 0;
    *utf8 = (struct utf8){
        .left = byte >= 0xf0   ? 3
                : byte >= 0xe0 ? 2
                               : 1,
        .low = byte == 0xe0   ? 0xa0
               : byte == 0xf0 ? 0x90
                              : 0x80,
        .high = byte == 0xed   ? 0x9f
                : byte == 0xf4 ? 0x8f
                               : 0xbf,
    };
    return byte >= 0xc2 && byte <= 0xf4;
}

/* The length of the front of `bytes` that is valid; `utf8` becomes the state behind it. */
static size_t utf8_prefix(struct utf8 *utf8, const char *bytes, size_t size)
{
    size_t length = 0;
    while (length < size && utf8_step(utf8, (uint8_t)bytes[length]))
        length++;
    return length;
}

void message_parser_init(struct message_parser *parser, size_t size_max)
{
    *parser = (struct message_parser){
        .tokener = json_tokener_new_ex(MESSAGE_DEPTH_MAX),
        .size_max = size_max,
    };
    json_tokener_set_flags(parser->tokener,
                           JSON_TOKENER_STRICT | JSON_TOKENER_ALLOW_TRAILING_CHARS);
}

void message_parser_finish(struct message_parser *parser)
{
    json_tokener_free(parser->tokener);
}

static void restart(struct message_parser *parser)
{
    json_tokener_reset(parser->tokener);
    parser->size = 0;
    parser->utf8 = (struct utf8){0};
}

static void consume(const char **bytes, size_t *size, size_t count)
{
    *bytes += count;
    *size -= count;
}

/* White space between messages, and what is left of an invalid line. */
static void skip(struct message_parser *parser, const char **bytes, size_t *size)
{
    if (parser->skipping) {
        const char *end = memchr(*bytes, '\n', *size);
        consume(bytes, size, end ? (size_t)(end - *bytes) + 1 : *size);
        parser->skipping = !end;
    }
    while (!parser->size && *size && isspace((unsigned char)**bytes))
        consume(bytes, size, 1);
}

static enum message_status fail(struct message_parser *parser)
{
    restart(parser);
    parser->skipping = true;
    return MESSAGE_INVALID;
}

enum message_status message_parser_next(struct message_parser *parser, const char **bytes,
                                        size_t *size, struct json_object **message,
                                        struct error *err)
{
    skip(parser, bytes, size);
    if (!*size)
        return MESSAGE_INCOMPLETE;

    size_t room = parser->size_max - parser->size;
    size_t offered = *size < room ? *size : room;
    struct utf8 utf8 = parser->utf8;
    size_t valid = utf8_prefix(&utf8, *bytes, offered);
    *message = json_tokener_parse_ex(parser->tokener, *bytes, (int)valid);
    enum json_tokener_error result = json_tokener_get_error(parser->tokener);
    size_t parsed = json_tokener_get_parse_end(parser->tokener);
    consume(bytes, size, parsed < valid ? parsed : valid);

    if (result == json_tokener_success) {
        restart(parser);
        return MESSAGE_COMPLETE;
    }
    if (result != json_tokener_continue) {
        error_set(err, "invalid JSON at byte %zu of the message: %s", parser->size + parsed,
                  json_tokener_error_desc(result));
        return fail(parser);
    }
    parser->size += valid;
    if (valid < offered) {
        error_set(err, "invalid UTF-8 at byte %zu of the message", parser->size);
        return fail(parser);
    }
    if (parser->size == parser->size_max) {
        error_set(err, "the message is longer than %zu bytes", parser->size_max);
        return fail(parser);
    }
    parser->utf8 = utf8;
    return MESSAGE_INCOMPLETE;
}

const char *message_text(struct json_object *object)
{
    if (!json_object_is_type(object, json_type_string))
        return NULL;
    const char *text = json_object_get_string(object);
    return strlen(text) == (size_t)json_object_get_string_len(object) ? text : NULL;
}
