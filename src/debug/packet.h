/*
 * Packets of the GDB remote serial protocol (GDB manual, "Remote Protocol", "Overview"):
 * `$data#checksum`, where data has no $ and #, which are escaped as } does it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The most that a packet may have between $ and #, and what clients are told. */
#define PACKET_MAX 0x20000

enum packet_event {
    PACKET_NONE,      /* more bytes are needed */
    PACKET_COMPLETE,  /* parser->data holds a packet, without escapes */
    PACKET_CORRUPT,   /* its checksum was wrong, or it was too long */
    PACKET_INTERRUPT, /* a 0x03 outside of packets */
    PACKET_ACK,
    PACKET_NACK,
};

struct packet_parser {
    enum { PARSER_IDLE, PARSER_DATA, PARSER_ESCAPE, PARSER_HIGH, PARSER_LOW } state;
    uint8_t sum, wanted;
    bool overlong, bad_sum;
    size_t size;
    uint8_t data[PACKET_MAX + 1]; /* a zero follows the packet */
};

void packet_parser_init(struct packet_parser *parser);

/* Takes bytes from *data until something is complete, and moves *data behind what it took.
 * `checked`: checksums count; without, as after QStartNoAckMode, any will do. */
enum packet_event packet_parse(struct packet_parser *parser, const uint8_t **data, size_t *size,
                               bool checked);

/* --- What is sent ----------------------------------------------------------------------------- */

/* A growing text or binary; all functions append. */
struct buffer {
    uint8_t *data;
    size_t size, room;
};

void buffer_finish(struct buffer *buffer);
/* Room for `size` bytes, which then count as appended. */
uint8_t *buffer_extend(struct buffer *buffer, size_t size);
void buffer_bytes(struct buffer *buffer, const void *data, size_t size);
void buffer_text(struct buffer *buffer, const char *text);
void buffer_format(struct buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void buffer_hex(struct buffer *buffer, const void *data, size_t size);
/* A value's bytes in the order of the target, little-endian, as hex digits. */
void buffer_value(struct buffer *buffer, uint64_t value, unsigned bytes);

/* Appends `data` as a packet that begins with `start` ('$', or '%' for a notification): escaped,
 * runs of one character shortened where `runs` says so, with its checksum. */
void packet_encode(struct buffer *buffer, char start, const void *data, size_t size, bool runs);

/* The value of a hex digit, or -1. */
int hex_digit(uint8_t character);
