#include "cli/prompt.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "cli/cli.h"
#include "cli/line.h"
#include "control/control.h"
#include "control/text.h"
#include "machine/machine.h"

#define WORDS_MAX 16

struct prompt {
    struct machine *machine;
    struct control *control;
    struct chardev *terminal;
    struct line line;
    bool open;
};

/* --- Output --- */

static void put(struct prompt *prompt, const char *text)
{
    chardev_force(prompt->terminal, text, strlen(text));
}

static void put_lines(struct prompt *prompt, const char *text, size_t size)
{
    for (const char *end = text + size; text < end;) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        size_t length = newline ? (size_t)(newline - text) : (size_t)(end - text);
        chardev_force(prompt->terminal, text, length);
        put(prompt, "\r\n");
        text += length + 1;
    }
}

/* --- Keys --- */

static void escape_quit(struct prompt *prompt);
static void escape_prompt(struct prompt *prompt);
static void escape_help(struct prompt *prompt);

const struct escape_key escape_keys[] = {
    {"Ctrl-A x", "end hartvisor, with exit status 0"},
    {"Ctrl-A c", "control prompt; again: back to the guest"},
    {"Ctrl-A b", "send a break to the guest (Linux: SysRq)"},
    {"Ctrl-A h", "list these keys"},
    {"Ctrl-A Ctrl-A", "send Ctrl-A to the guest"},
    {0},
};

static const struct {
    char key;
    void (*run)(struct prompt *prompt);
} actions[] = {
    {'x', escape_quit},
    {'c', escape_prompt},
    {'h', escape_help},
    {'?', escape_help},
};

static void escape(void *opaque, char key)
{
    for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
        if (actions[i].key == key)
            actions[i].run(opaque);
}

static void escape_quit(struct prompt *prompt)
{
    machine_quit(prompt->machine, 0);
}

static void show_prompt(struct prompt *prompt)
{
    line_clear(&prompt->line);
    put(prompt, "(hartvisor) ");
}

static void escape_help(struct prompt *prompt)
{
    put(prompt, "\r\n");
    for (const struct escape_key *key = escape_keys; key->name; key++) {
        char text[128];
        snprintf(text, sizeof(text), "%-15s %s\r\n", key->name, key->help);
        put(prompt, text);
    }
    if (prompt->open)
        show_prompt(prompt);
}

/* --- Commands --- */

/* Cuts a line into words at spaces; a word in double quotes may have some. */
static size_t split(char *text, char **words, size_t most)
{
    size_t count = 0;
    for (char *from = text, *to; *from && count < most;) {
        from += strspn(from, " ");
        if (!*from)
            break;
        words[count++] = to = from;
        for (bool quoted = false; *from && (quoted || *from != ' '); from++) {
            if (*from == '"')
                quoted = !quoted;
            else
                *to++ = *from;
        }
        if (*from)
            from++;
        *to = '\0';
    }
    return count;
}

static bool run_words(struct prompt *prompt, char **words, size_t count, FILE *out,
                      struct error *err)
{
    struct json_object *commands = NULL, *arguments = NULL, *result = NULL;
    if (!control_execute(prompt->control, "query-commands", NULL, &commands, err))
        return false;
    bool ok = true;
    if (!strcmp(words[0], "help")) {
        control_text_help(out, commands);
    } else {
        const char *name = control_text_name(commands, words[0], err);
        if (name)
            arguments = control_text_arguments(commands, name, words + 1, count - 1, err);
        ok = arguments && control_execute(prompt->control, name, arguments, &result, err);
        if (ok)
            control_text_print(out, result);
    }
    json_object_put(result);
    json_object_put(arguments);
    json_object_put(commands);
    return ok;
}

static void run_line(struct prompt *prompt, char *text)
{
    char *words[WORDS_MAX], *output = NULL;
    size_t size, count = split(text, words, WORDS_MAX);
    if (!count)
        return;
    FILE *out = open_memstream(&output, &size);
    struct error err;
    if (!run_words(prompt, words, count, out, &err))
        fprintf(out, "%s\n", err.message);
    fclose(out);
    put_lines(prompt, output, size);
    free(output);
}

static void receive(void *opaque, const uint8_t *bytes, size_t size)
{
    struct prompt *prompt = opaque;
    for (size_t i = 0; i < size && prompt->open; i++) {
        enum line_event event = line_key(&prompt->line, bytes[i]);
        put(prompt, prompt->line.echo);
        if (event == LINE_LEAVE) {
            escape_prompt(prompt);
        } else if (event == LINE_DONE) {
            run_line(prompt, prompt->line.text);
            show_prompt(prompt);
        }
    }
}

static void escape_prompt(struct prompt *prompt)
{
    prompt->open = !prompt->open;
    chardev_divert(prompt->terminal, prompt->open ? receive : NULL, prompt);
    put(prompt, prompt->open ? "\r\nThe control prompt: 'help' lists commands, Ctrl-A c goes back "
                               "to the guest.\r\n"
                             : "\r\n");
    if (prompt->open)
        show_prompt(prompt);
}

struct prompt *prompt_create(struct machine *machine, struct control *control)
{
    struct prompt *prompt = xcalloc(1, sizeof(*prompt));
    prompt->machine = machine;
    prompt->control = control;
    prompt->terminal = machine_terminal(machine);
    if (prompt->terminal)
        machine_set_escape(machine, escape, prompt);
    return prompt;
}

void prompt_destroy(struct prompt *prompt)
{
    if (!prompt)
        return;
    if (prompt->open)
        chardev_divert(prompt->terminal, NULL, NULL);
    machine_set_escape(prompt->machine, NULL, NULL);
    free(prompt);
}
