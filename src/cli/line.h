/* A line editor for a raw terminal: what the keyboard sends becomes lines and an echo. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { LINE_SIZE = 256, LINE_HISTORY = 16, LINE_ECHO = 2 * LINE_SIZE };

enum line_event {
    LINE_MORE,  /* nothing but the echo */
    LINE_DONE,  /* `text` is a whole line; line_clear before the next byte */
    LINE_LEAVE, /* Ctrl-D on an empty line */
};

struct line {
    char text[LINE_SIZE]; /* always terminated; printable ASCII */
    size_t length;
    char echo[LINE_ECHO]; /* what to write to the terminal after line_key; terminated */
    char history[LINE_HISTORY][LINE_SIZE];
    unsigned lines;    /* ever put into the history */
    unsigned recalled; /* 0: editing a new line; n: the n-th line back */
    enum { KEY_PLAIN, KEY_ESCAPE, KEY_SEQUENCE } state;
};

/* All zeros is an empty line. */
enum line_event line_key(struct line *line, uint8_t key);
void line_clear(struct line *line);
