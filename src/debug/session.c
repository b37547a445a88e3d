/* A session: bytes in, packets answered, bytes out. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "debug/session.h"

/* --- Replies ---------------------------------------------------------------------------------- */

void session_send(struct debug_session *session, char start, const void *data, size_t size)
{
    session->output.size = 0;
    packet_encode(&session->output, start, data, size, !session->transport.plain);
    if (start == '$') {
        session->last.size = 0;
        buffer_bytes(&session->last, session->output.data, session->output.size);
    }
    session->transport.send(session->transport.opaque, session->output.data, session->output.size);
}

void session_print(struct debug_session *session, const char *format, ...)
{
    struct buffer text = {0}, packet = {0};
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    if (length > (int)sizeof(line) - 1)
        length = sizeof(line) - 1;
    buffer_bytes(&text, line, (size_t)length);
    buffer_text(&packet, "O");
    buffer_hex(&packet, text.data, text.size);
    session_send(session, '$', packet.data, packet.size);
    buffer_finish(&text);
    buffer_finish(&packet);
}

void reply_ok(struct debug_session *session)
{
    buffer_text(&session->reply, "OK");
}

void reply_error(struct debug_session *session, unsigned number, const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    session->reply.size = 0;
    buffer_format(&session->reply, "E%02x", number);
    if (session->error_strings) { /* LLDB's QEnableErrorStrings */
        buffer_text(&session->reply, ";");
        buffer_hex(&session->reply, text, strlen(text));
    }
}

unsigned session_general(const struct debug_session *session)
{
    int thread = session->general_thread;
    return thread > 0 ? (unsigned)thread - 1 : session->stopped_hart;
}

struct hart *session_hart(const struct debug_session *session)
{
    return machine_debug_hart(session->machine, session_general(session));
}

void reply_thread(struct debug_session *session, unsigned hart)
{
    buffer_format(&session->reply, session->multiprocess ? "p1.%x" : "%x", hart + 1);
}

/* --- Input ------------------------------------------------------------------------------------ */

static void answer(struct debug_session *session)
{
    session->reply.size = 0;
    session->no_reply = false;
    commands_dispatch(session, session->parser.data, session->parser.size);
    if (!session->no_reply)
        session_send(session, '$', session->reply.data, session->reply.size);
}

static void acknowledge(struct debug_session *session, char sign)
{
    if (!session->no_ack)
        session->transport.send(session->transport.opaque, &sign, 1);
}

void debug_session_receive(struct debug_session *session, const void *data, size_t size)
{
    const uint8_t *at = data;
    while (size && !session->ended) {
        switch (packet_parse(&session->parser, &at, &size, !session->no_ack)) {
        case PACKET_NONE:
        case PACKET_ACK:
            break;
        case PACKET_COMPLETE:
            acknowledge(session, '+');
            answer(session);
            break;
        case PACKET_CORRUPT:
            acknowledge(session, '-');
            break;
        case PACKET_INTERRUPT:
            run_interrupt(session);
            break;
        case PACKET_NACK:
            if (!session->no_ack && session->last.size)
                session->transport.send(session->transport.opaque, session->last.data,
                                        session->last.size);
            break;
        }
    }
    if (session->ended && session->transport.end)
        session->transport.end(session->transport.opaque);
}

/* --- Life ------------------------------------------------------------------------------------- */

void session_end(struct debug_session *session)
{
    session->ended = true;
}

struct debug_session *debug_session_create(struct machine *machine,
                                           const struct debug_transport *transport,
                                           struct error *err)
{
    struct debug_session *session = xcalloc(1, sizeof(*session));
    const struct machine_debug_hooks hooks = {.opaque = session, .stopped = run_stopped};
    if (!machine_debug_attach(machine, &hooks)) {
        free(session);
        error_set(err, "another debugger has this machine: detach it first");
        return NULL;
    }
    session->machine = machine;
    session->transport = *transport;
    session->hart_count = machine_debug_hart_count(machine);
    for (unsigned i = 0; i < session->hart_count; i++)
        session->harts[i].stopped = machine_debug_held(machine) >> i & 1;
    session->privilege = -1;
    session->freeze_time = true;
    session->step_mask = STEP_ENABLE | STEP_NO_INTERRUPTS | STEP_NO_TIMERS;
    session->points = points_create(machine);
    packet_parser_init(&session->parser);
    return session;
}

void debug_session_destroy(struct debug_session *session)
{
    if (!session)
        return;
    if (session->killed)
        machine_quit(session->machine, 0);
    /* Those that the client knows to stand still do so for the next one. */
    uint64_t held = 0;
    for (unsigned i = 0; i < session->hart_count && !session->ended; i++)
        held |= (uint64_t)session->harts[i].stopped << i;
    machine_debug_detach(session->machine, held & machine_debug_held(session->machine));
    points_destroy(session->points);
    buffer_finish(&session->reply);
    buffer_finish(&session->output);
    buffer_finish(&session->last);
    buffer_finish(&session->target_xml);
    buffer_finish(&session->console);
    registers_forget(session);
    free(session);
}
