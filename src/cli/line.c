#include "cli/line.h"

#include <stdio.h>
#include <string.h>

#define CTRL(letter) ((letter) & 0x1f)
#define ESCAPE       0x1b
#define DELETE       0x7f

static void echo(struct line *line, const char *text)
{
    size_t length = strlen(line->echo);
    snprintf(line->echo + length, sizeof(line->echo) - length, "%s", text);
}

static void rub_out(struct line *line)
{
    line->text[--line->length] = '\0';
    echo(line, "\b \b");
}

void line_clear(struct line *line)
{
    line->length = 0;
    line->text[0] = '\0';
    line->recalled = 0;
}

/* Replaces the text, with the echo that shows it. */
static void line_set(struct line *line, const char *text)
{
    char erase[32];
    /* Back to where the line began, and erase to the right (ECMA-48 CUB and EL). */
    if (line->length) {
        snprintf(erase, sizeof(erase), "\x1b[%zuD\x1b[K", line->length);
        echo(line, erase);
    }
    snprintf(line->text, sizeof(line->text), "%s", text);
    line->length = strlen(line->text);
    echo(line, line->text);
}

/* The n-th line back in the history, 0 being the empty new one. */
static void recall(struct line *line, unsigned back)
{
    unsigned kept = line->lines < LINE_HISTORY ? line->lines : LINE_HISTORY;
    if (back > kept)
        return;
    line->recalled = back;
    line_set(line, back ? line->history[(line->lines - back) % LINE_HISTORY] : "");
}

static void remember(struct line *line)
{
    const char *last = line->history[(line->lines + LINE_HISTORY - 1) % LINE_HISTORY];
    if (line->length && strcmp(last, line->text) != 0)
        memcpy(line->history[line->lines++ % LINE_HISTORY], line->text, sizeof(line->text));
}

static void erase_word(struct line *line)
{
    while (line->length && line->text[line->length - 1] == ' ')
        rub_out(line);
    while (line->length && line->text[line->length - 1] != ' ')
        rub_out(line);
}

static enum line_event plain_key(struct line *line, uint8_t key)
{
    switch (key) {
    case '\r':
    case '\n':
        echo(line, "\r\n");
        remember(line);
        return LINE_DONE;
    case CTRL('D'):
        return line->length ? LINE_MORE : LINE_LEAVE;
    case CTRL('C'):
        line_clear(line);
        echo(line, "^C\r\n");
        return LINE_DONE;
    case '\b':
    case DELETE:
        if (line->length)
            rub_out(line);
        break;
    case CTRL('U'):
        line_set(line, "");
        break;
    case CTRL('W'):
        erase_word(line);
        break;
    case CTRL('P'):
        recall(line, line->recalled + 1);
        break;
    case CTRL('N'):
        if (line->recalled)
            recall(line, line->recalled - 1);
        break;
    case ESCAPE:
        line->state = KEY_ESCAPE;
        break;
    default:
        if (key >= ' ' && key < DELETE && line->length + 1 < sizeof(line->text)) {
            char text[] = {(char)key, '\0'};
            line->text[line->length++] = (char)key;
            line->text[line->length] = '\0';
            echo(line, text);
        }
    }
    return LINE_MORE;
}

enum line_event line_key(struct line *line, uint8_t key)
{
    line->echo[0] = '\0';
    switch (line->state) {
    case KEY_PLAIN:
        return plain_key(line, key);
    case KEY_ESCAPE:
        line->state = key == '[' || key == 'O' ? KEY_SEQUENCE : KEY_PLAIN;
        return LINE_MORE;
    case KEY_SEQUENCE:
        /* A control sequence ends with a byte from '@' on (ECMA-48, section 5.4). */
        if (key < '@')
            return LINE_MORE;
        line->state = KEY_PLAIN;
        if (key == 'A')
            return plain_key(line, CTRL('P'));
        if (key == 'B')
            return plain_key(line, CTRL('N'));
    }
    return LINE_MORE;
}
