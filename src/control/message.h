/*
 * Cuts a stream of bytes into JSON messages: what both ends of the control socket read with.
 *
 * Messages need no separator, and may come in any pieces. The bytes are hostile: size and nesting
 * are bounded, UTF-8 is checked. After an error everything up to the end of the line is skipped.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define MESSAGE_DEPTH_MAX 32

struct json_object;

/* How much of a UTF-8 sequence is still to come, and what its next byte may be. */
struct utf8 {
    uint8_t left, low, high;
};

struct message_parser {
    struct json_tokener *tokener;
    struct utf8 utf8;
    size_t size, size_max; /* of one message, in bytes */
    bool skipping;
};

enum message_status {
    MESSAGE_INCOMPLETE, /* everything was consumed */
    MESSAGE_COMPLETE,   /* *message is the caller's; NULL for the JSON value null */
    MESSAGE_INVALID,    /* err says why */
};

void message_parser_init(struct message_parser *parser, size_t size_max);
void message_parser_finish(struct message_parser *parser);

/* Takes bytes from the front of [*bytes, *bytes + *size), at most up to the end of one message. */
enum message_status message_parser_next(struct message_parser *parser, const char **bytes,
                                        size_t *size, struct json_object **message,
                                        struct error *err);

/* The text of a JSON string, NULL if it is none or has a NUL in it. Lives as long as the object. */
const char *message_text(struct json_object *object);
