/* `monitor` in GDB, `process plugin packet monitor` in LLDB: commands for people. */
#include "debug/monitor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "debug/symbols.h"

static const struct monitor_command *const tables[] = {
    monitor_info_commands, monitor_source_commands, monitor_control_commands};

static void print_row(struct debug_session *session, const struct monitor_command *command)
{
    char usage[100];
    snprintf(usage, sizeof(usage), "%s%s%s", command->name, *command->arguments ? " " : "",
             command->arguments);
    monitor_print(session, strlen(usage) > 34 ? "%s\n%36s%s\n" : "%-36s%s%s\n", usage, "",
                  command->help);
}

static void print_help(struct debug_session *session, const char *word)
{
    for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
        for (const struct monitor_command *command = tables[i]; command->name; command++)
            if (!word || !strncmp(command->name, word, strlen(word)))
                print_row(session, command);
    if (!word)
        monitor_print(session, "%-36s%s\n", "help [WORD]", "these lines, or those that begin so");
}

bool monitor_number(struct debug_session *session, const char *word, uint64_t *number)
{
    char *end;
    if (*word == '$') {
        struct hart *hart = session_hart(session);
        unsigned index = register_find(hart, word + 1);
        if (index < REGISTER_LIMIT)
            return register_read(hart, index, number);
        monitor_print(session, "there is no register '%s'\n", word + 1);
        return false;
    }
    errno = 0;
    *number = strtoull(word, &end, 0);
    if (*word >= '0' && *word <= '9' && !*end && !errno)
        return true;
    if (session->symbols && symbols_address(session->symbols, word, number))
        return true;
    monitor_print(session, "'%s' is no number%s: write 0x80000000, 4096 or $pc\n", word,
                  session->symbols ? " and no symbol" : "");
    return false;
}

/* How many words of the name the line begins with: all of them, or 0. */
static unsigned matches(const struct monitor_command *command, char **words, unsigned count)
{
    const char *space = strchr(command->name, ' ');
    size_t first = space ? (size_t)(space - command->name) : strlen(command->name);
    if (strlen(words[0]) != first || memcmp(words[0], command->name, first) != 0)
        return 0;
    if (!space)
        return 1;
    return count > 1 && !strcmp(words[1], space + 1) ? 2 : 0;
}

static const struct monitor_command *find(char **words, unsigned count, unsigned *length)
{
    for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
        for (const struct monitor_command *command = tables[i]; command->name; command++)
            if ((*length = matches(command, words, count)))
                return command;
    return NULL;
}

static void complain(struct debug_session *session, char **words, unsigned count)
{
    struct suggestion nearest;
    char text[80];
    bool group = !strcmp(words[0], "info") || !strcmp(words[0], "mmio");
    snprintf(text, sizeof(text), group && count > 1 ? "%s %s" : "%s", words[0],
             count > 1 ? words[1] : "");
    suggest_begin(&nearest, text);
    for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
        for (const struct monitor_command *command = tables[i]; command->name; command++)
            suggest_offer(&nearest, command->name);
    monitor_print(session, "there is no command '%s'", text);
    if (nearest.name)
        monitor_print(session, ": did you mean '%s'?", nearest.name);
    monitor_print(session, "\n`monitor help` lists them all\n");
}

static void run_line(struct debug_session *session, char *line)
{
    char *words[MONITOR_WORDS], *save;
    unsigned count = 0, length;
    for (char *word = strtok_r(line, " \t\n", &save); word; word = strtok_r(NULL, " \t\n", &save)) {
        if (count == MONITOR_WORDS) {
            monitor_print(session, "too many words\n");
            return;
        }
        words[count++] = word;
    }
    if (!count || !strcmp(words[0], "help")) {
        print_help(session, count > 1 ? words[1] : NULL);
        return;
    }
    const struct monitor_command *command = find(words, count, &length);
    if (!command) {
        complain(session, words, count);
        return;
    }
    unsigned arguments = count - length;
    if (arguments < command->least || arguments > command->most) {
        monitor_print(session, "usage: monitor %s %s\n", command->name, command->arguments);
        return;
    }
    if (command->stands) {
        run_attach(session);
        if (session->running ||
            (session->non_stop && !session->harts[session_general(session)].stopped)) {
            monitor_print(session, "harts are running: interrupt them first\n");
            return;
        }
    }
    command->run(session, words + length, arguments);
}

/* The text comes as hex digits; what is printed goes the same way, or OK if that is nothing. */
static void handle_command(struct debug_session *session, const struct argument *arguments,
                           size_t count)
{
    char *line = xcalloc(1, arguments[0].size + 1);
    memcpy(line, arguments[0].data, arguments[0].size);
    session->console.size = 0;
    run_line(session, line);
    free(line);
    size_t size = session->console.size;
    if (size > PACKET_MAX / 2 - 1)
        size = PACKET_MAX / 2 - 1;
    if (size && session->thread_suffix) { /* LLDB shows text that is output, and no other */
        struct buffer output = {0};
        buffer_text(&output, "O");
        buffer_hex(&output, session->console.data, size);
        session_send(session, '$', output.data, output.size);
        buffer_finish(&output);
        reply_ok(session);
    } else if (size) {
        buffer_hex(&session->reply, session->console.data, size);
    } else {
        reply_ok(session);
    }
}

const struct command monitor_commands[] = {
    {"qRcmd", ",b", handle_command},
    {0},
};
