#include "debug/packet.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

/* --- Parsing ---------------------------------------------------------------------------------- */

int hex_digit(uint8_t character)
{
    if (character >= '0' && character <= '9')
        return character - '0';
    character |= 0x20;
    return character >= 'a' && character <= 'f' ? character - 'a' + 10 : -1;
}

void packet_parser_init(struct packet_parser *parser)
{
    parser->state = PARSER_IDLE;
    parser->size = 0;
}

static enum packet_event parse_idle(struct packet_parser *parser, uint8_t byte)
{
    switch (byte) {
    case '$':
        parser->state = PARSER_DATA;
        parser->size = 0;
        parser->sum = 0;
        parser->overlong = parser->bad_sum = false;
        return PACKET_NONE;
    case 0x03:
        return PACKET_INTERRUPT;
    case '+':
        return PACKET_ACK;
    case '-':
        return PACKET_NACK;
    default:
        return PACKET_NONE;
    }
}

static void put(struct packet_parser *parser, uint8_t byte)
{
    if (parser->size == PACKET_MAX)
        parser->overlong = true;
    else
        parser->data[parser->size++] = byte;
}

static void parse_data(struct packet_parser *parser, uint8_t byte)
{
    if (byte == '$') { /* the one before was cut off */
        parse_idle(parser, byte);
        return;
    }
    if (byte == '#') {
        parser->state = PARSER_HIGH;
        return;
    }
    parser->sum += byte;
    if (parser->state == PARSER_ESCAPE) {
        put(parser, byte ^ 0x20);
        parser->state = PARSER_DATA;
    } else if (byte == '}') {
        parser->state = PARSER_ESCAPE;
    } else {
        put(parser, byte);
    }
}

static enum packet_event parse_sum(struct packet_parser *parser, uint8_t byte, bool checked)
{
    int digit = hex_digit(byte);
    parser->bad_sum |= digit < 0;
    if (parser->state == PARSER_HIGH) {
        parser->wanted = (uint8_t)((unsigned)digit << 4);
        parser->state = PARSER_LOW;
        return PACKET_NONE;
    }
    parser->wanted |= (uint8_t)(digit & 15);
    parser->state = PARSER_IDLE;
    if (parser->overlong || (checked && (parser->bad_sum || parser->wanted != parser->sum)))
        return PACKET_CORRUPT;
    parser->data[parser->size] = 0;
    return PACKET_COMPLETE;
}

/* Plain data up to the next special character, in one go. */
static size_t parse_plain(struct packet_parser *parser, const uint8_t *data, size_t size)
{
    size_t count = 0;
    uint8_t sum = parser->sum;
    if (size > PACKET_MAX - parser->size)
        size = PACKET_MAX - parser->size;
    for (; count < size && data[count] != '#' && data[count] != '}' && data[count] != '$'; count++)
        sum += parser->data[parser->size + count] = data[count];
    parser->size += count;
    parser->sum = sum;
    return count;
}

enum packet_event packet_parse(struct packet_parser *parser, const uint8_t **data, size_t *size,
                               bool checked)
{
    enum packet_event event = PACKET_NONE;
    while (*size && event == PACKET_NONE) {
        size_t plain = parser->state == PARSER_DATA ? parse_plain(parser, *data, *size) : 0;
        *data += plain;
        *size -= plain;
        if (!*size)
            break;
        uint8_t byte = *(*data)++;
        --*size;
        if (parser->state == PARSER_IDLE)
            event = parse_idle(parser, byte);
        else if (parser->state == PARSER_DATA || parser->state == PARSER_ESCAPE)
            parse_data(parser, byte);
        else
            event = parse_sum(parser, byte, checked);
    }
    return event;
}

/* --- Buffers ---------------------------------------------------------------------------------- */

void buffer_finish(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){0};
}

uint8_t *buffer_extend(struct buffer *buffer, size_t size)
{
    if (size > buffer->room - buffer->size) {
        buffer->room = 2 * (buffer->size + size) + 64;
        buffer->data = xrealloc(buffer->data, buffer->room);
    }
    buffer->size += size;
    return buffer->data + buffer->size - size;
}

void buffer_bytes(struct buffer *buffer, const void *data, size_t size)
{
    if (size)
        memcpy(buffer_extend(buffer, size), data, size);
}

void buffer_text(struct buffer *buffer, const char *text)
{
    buffer_bytes(buffer, text, strlen(text));
}

void buffer_format(struct buffer *buffer, const char *format, ...)
{
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    /* The zero behind it is written, and not kept. */
    char *text = (char *)buffer_extend(buffer, (size_t)length + 1);
    vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    buffer->size--;
}

void buffer_hex(struct buffer *buffer, const void *data, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *bytes = data;
    uint8_t *out = buffer_extend(buffer, 2 * size);
    for (size_t i = 0; i < size; i++) {
        *out++ = digits[bytes[i] >> 4];
        *out++ = digits[bytes[i] & 15];
    }
}

void buffer_value(struct buffer *buffer, uint64_t value, unsigned bytes)
{
    uint8_t little[8];
    for (unsigned i = 0; i < bytes; i++)
        little[i] = (uint8_t)(value >> 8 * i);
    buffer_hex(buffer, little, bytes);
}

/* --- Encoding --------------------------------------------------------------------------------- */

/* A run has its character, '*', and how many follow, plus 29; counts that would be one of the
 * protocol's own characters are not used (GDB manual, "Overview", run-length encoding). */
enum { RUN_LEAST = 3, RUN_MOST = 97, RUN_BIAS = 29 };

static bool is_special(uint8_t byte)
{
    return byte == '$' || byte == '#' || byte == '}' || byte == '*';
}

static uint8_t *encode_run(uint8_t *out, size_t following)
{
    uint8_t count = (uint8_t)(following + RUN_BIAS);
    while (count == '#' || count == '$' || count == '+' || count == '-')
        count--;
    out[0] = '*';
    out[1] = count;
    return out + 2;
}

static size_t run_length(const uint8_t *data, size_t size)
{
    size_t length = 1;
    while (length < size && length <= RUN_MOST && data[length] == data[0])
        length++;
    return length;
}

void packet_encode(struct buffer *buffer, char start, const void *data, size_t size, bool runs)
{
    const uint8_t *bytes = data;
    uint8_t *out = buffer_extend(buffer, 2 * size + 4);
    *out++ = (uint8_t)start;
    const uint8_t *first = out;
    for (size_t i = 0; i < size;) {
        uint8_t byte = bytes[i++];
        if (is_special(byte)) {
            *out++ = '}';
            *out++ = byte ^ 0x20;
            continue;
        }
        *out++ = byte;
        if (!runs || i == size || bytes[i] != byte)
            continue;
        size_t following = run_length(bytes + i - 1, size - i + 1) - 1;
        if (following < RUN_LEAST)
            continue;
        out = encode_run(out, following);
        i += (size_t)(out[-1] - RUN_BIAS);
    }
    uint8_t sum = 0;
    for (const uint8_t *at = first; at < out; at++)
        sum += *at;
    *out++ = '#';
    buffer->size = (size_t)(out - buffer->data);
    buffer_hex(buffer, &sum, 1);
}
