/* From a packet to its handler: names, schemas, arguments. */
#include <string.h>

#include "debug/session.h"

const struct command *const command_tables[] = {
    run_commands,   process_commands, register_commands, memory_commands,  point_commands,
    query_commands, lldb_commands,    transfer_commands, monitor_commands, NULL,
};

/* --- Arguments -------------------------------------------------------------------------------- */

struct text {
    uint8_t *at, *end;
};

static bool parse_number(struct text *text, uint64_t *number)
{
    unsigned digits = 0;
    *number = 0;
    for (; text->at < text->end && hex_digit(*text->at) >= 0; digits++) {
        if (*number >> 60)
            return false;
        *number = *number << 4 | (unsigned)hex_digit(*text->at++);
    }
    return digits;
}

/* "p1.2", "2", "p1.-1", "-1", "0"; of another process none. */
bool thread_parse(const uint8_t **at, const uint8_t *end, int *thread)
{
    struct text text = {(uint8_t *)*at, (uint8_t *)end};
    bool process = text.at < text.end && *text.at == 'p';
    uint64_t number = 0;
    bool all = false;
    for (unsigned part = 0; part < 1u + process; part++) {
        text.at += part == 0 ? process : 0;
        if (part == 1 && (text.at == text.end || *text.at != '.')) {
            *thread = THREAD_ALL; /* a process alone is all its threads */
            *at = text.at;
            return true;
        }
        text.at += part;
        all = text.at < text.end && *text.at == '-';
        text.at += all;
        if (!parse_number(&text, &number) || (all && number != 1))
            return false;
        if (part == 0 && process && !all && number > 1)
            return false;
    }
    if (!all && number > MACHINE_MAX_CPUS)
        return false;
    *thread = all ? THREAD_ALL : (int)number;
    *at = text.at;
    return true;
}

static bool parse_bytes(struct text *text, struct argument *argument)
{
    size_t size = (size_t)(text->end - text->at);
    if (size % 2)
        return false;
    argument->data = text->at;
    argument->size = size / 2;
    for (size_t i = 0; i < size / 2; i++) {
        int high = hex_digit(text->at[2 * i]), low = hex_digit(text->at[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        text->at[i] = (uint8_t)(high << 4 | low);
    }
    text->at = text->end;
    return true;
}

static bool parse_one(char kind, struct text *text, struct argument *argument)
{
    int thread;
    switch (kind) {
    case 'h':
        return parse_number(text, &argument->number);
    case 't':
        if (!thread_parse((const uint8_t **)&text->at, text->end, &thread))
            return false;
        argument->number = (uint64_t)(int64_t)thread;
        return true;
    case 'b':
        return parse_bytes(text, argument);
    default: /* s, x */
        argument->data = text->at;
        argument->size = (size_t)(text->end - text->at);
        text->at = text->end;
        return true;
    }
}

static bool parse(const char *schema, struct text *text, struct argument *arguments, size_t *count)
{
    bool optional = false;
    *count = 0;
    for (; *schema; schema++) {
        if (*schema == '?') {
            optional = true;
            continue;
        }
        if (optional && text->at == text->end)
            return true;
        if (strchr("htbxs", *schema)) {
            if (!parse_one(*schema, text, &arguments[(*count)++]))
                return false;
        } else {
            if (text->at == text->end || *text->at != (uint8_t)*schema)
                return false;
            text->at++;
        }
    }
    return text->at == text->end;
}

/* --- Dispatch --------------------------------------------------------------------------------- */

static bool is_letter(uint8_t byte)
{
    return (byte | 0x20) >= 'a' && (byte | 0x20) <= 'z';
}

/* Whether the packet is this command. Where no argument follows at once, a word ends where letters
 * do: qC is not the beginning of qCRC. */
static bool is_command(const struct command *command, const uint8_t *packet, size_t size)
{
    size_t length = strlen(command->name);
    if (length > size || memcmp(packet, command->name, length) != 0)
        return false;
    const char *schema = command->schema + (command->schema[0] == '?');
    bool ended = *schema && strchr("htbxs", *schema);
    return ended || length == 1 || length == size || !is_letter(packet[length - 1]) ||
           !is_letter(packet[length]);
}

static const struct command *find(const uint8_t *packet, size_t size)
{
    const struct command *best = NULL;
    size_t length = 0;
    for (unsigned i = 0; command_tables[i]; i++)
        for (const struct command *command = command_tables[i]; command->name; command++)
            if (strlen(command->name) > length && is_command(command, packet, size)) {
                best = command;
                length = strlen(command->name);
            }
    return best;
}

/* LLDB's way to name a hart: ";thread:2;" at the end of any packet about registers. */
static bool take_suffix(struct debug_session *session, const uint8_t *packet, size_t *size)
{
    static const char mark[] = ";thread:";
    const size_t length = sizeof(mark) - 1;
    if (!session->thread_suffix || *size < length)
        return true;
    for (size_t at = *size - length + 1; at-- > 0;) {
        if (memcmp(packet + at, mark, length) != 0)
            continue;
        const uint8_t *text = packet + at + length, *end = packet + *size;
        int thread;
        if (!thread_parse(&text, end, &thread) || thread > (int)session->hart_count || thread < 1)
            return false;
        session->general_thread = thread;
        *size = at;
        return true;
    }
    return true;
}

/* Whether the hart that the packet is about stands still; if not, the error is the reply. */
static bool stands(struct debug_session *session)
{
    run_attach(session);
    unsigned hart = session_general(session);
    if (session->non_stop ? session->harts[hart].stopped : !session->running)
        return true;
    reply_error(session, REMOTE_EBUSY, "hart %u is running: interrupt it first", hart);
    return false;
}

void commands_dispatch(struct debug_session *session, uint8_t *packet, size_t size)
{
    struct argument arguments[ARGUMENTS_MAX];
    size_t count, name;
    const struct command *command = find(packet, size);
    if (!command)
        return; /* an empty reply says that it is not known */
    int thread = session->general_thread;
    bool registers = strchr("gGpP", *packet) || strstr(command->name, "RegisterState");
    name = strlen(command->name);
    if (registers && !take_suffix(session, packet, &size)) {
        reply_error(session, REMOTE_EINVAL, "no such thread");
        return;
    }
    struct text text = {packet + name, packet + size};
    if (!parse(command->schema, &text, arguments, &count))
        reply_error(session, REMOTE_EINVAL, "the arguments of %s are malformed", command->name);
    else if (!command->stands || stands(session))
        command->handle(session, arguments, count);
    if (registers)
        session->general_thread = thread;
}
