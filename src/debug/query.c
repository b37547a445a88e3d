/* Questions about the server and its threads. */
#include <string.h>

#include "debug/session.h"

/* --- Features -----------------------------------------------------------------------------------
 */

static bool mentions(const struct argument *argument, const char *feature)
{
    return argument->size && memmem(argument->data, argument->size, feature, strlen(feature));
}

static void handle_supported(struct debug_session *session, const struct argument *arguments,
                             size_t count)
{
    const struct argument none = {0}, *features = count ? &arguments[0] : &none;
    session->multiprocess = mentions(features, "multiprocess+");
    session->is_gdb = mentions(features, "xmlRegisters=");
    session->swbreak = mentions(features, "swbreak+");
    session->hwbreak = mentions(features, "hwbreak+");
    buffer_format(&session->reply,
                  "PacketSize=%x;QStartNoAckMode+;multiprocess+;vContSupported+;swbreak+;hwbreak+;"
                  "QNonStop+;QThreadEvents+;no-resumed+;ConditionalBreakpoints+;binary-upload+;"
                  "qXfer:features:read+;qXfer:threads:read+;qXfer:memory-map:read+;MultiMemRead+;"
                  "jMultiBreakpoint+",
                  PACKET_MAX);
}

static void handle_no_ack(struct debug_session *session, const struct argument *arguments,
                          size_t count)
{
    reply_ok(session);
    session->no_ack = true; /* from the next packet on: this one was acknowledged */
}

static void handle_ok(struct debug_session *session, const struct argument *arguments, size_t count)
{
    reply_ok(session);
}

static void handle_attached(struct debug_session *session, const struct argument *arguments,
                            size_t count)
{
    buffer_text(&session->reply, "1"); /* leaving detaches, and does not kill */
}

static void handle_thread_events(struct debug_session *session, const struct argument *arguments,
                                 size_t count)
{
    if (arguments[0].number > 1) {
        reply_error(session, REMOTE_EINVAL, "QThreadEvents is 0 or 1");
        return;
    }
    session->thread_events = arguments[0].number;
    points_catch(session->points)->events = session->thread_events;
    points_changed(session->points);
    if (session->non_stop)
        points_apply(session->points, true);
    reply_ok(session);
}

/* --- Threads -------------------------------------------------------------------------------------
 */

static bool exists(struct debug_session *session, int64_t thread)
{
    if (thread <= (int)session->hart_count)
        return true;
    reply_error(session, REMOTE_EINVAL, "there is no thread %lld: hart n is thread n + 1",
                (long long)thread);
    return false;
}

static void handle_general(struct debug_session *session, const struct argument *arguments,
                           size_t count)
{
    int64_t thread = (int64_t)arguments[0].number;
    if (!exists(session, thread))
        return;
    session->general_thread = (int)thread;
    reply_ok(session);
}

static void handle_continued(struct debug_session *session, const struct argument *arguments,
                             size_t count)
{
    int64_t thread = (int64_t)arguments[0].number;
    if (!exists(session, thread))
        return;
    session->continue_thread = (int)thread;
    reply_ok(session);
}

static void handle_alive(struct debug_session *session, const struct argument *arguments,
                         size_t count)
{
    int64_t thread = (int64_t)arguments[0].number;
    if (exists(session, thread))
        reply_ok(session);
}

static void handle_current(struct debug_session *session, const struct argument *arguments,
                           size_t count)
{
    buffer_text(&session->reply, "QC");
    reply_thread(session, session_general(session));
}

static void handle_threads(struct debug_session *session, const struct argument *arguments,
                           size_t count)
{
    for (unsigned i = 0; i < session->hart_count; i++) {
        buffer_text(&session->reply, i ? "," : "m");
        reply_thread(session, i);
    }
}

static void handle_more_threads(struct debug_session *session, const struct argument *arguments,
                                size_t count)
{
    buffer_text(&session->reply, "l");
}

void describe_hart(struct debug_session *session, unsigned index, struct buffer *text)
{
    static const char *const privileges[] = {"U-mode", "S-mode", "?", "M-mode"};
    const struct hart *hart = machine_debug_hart(session->machine, index);
    bool held = machine_debug_held(session->machine) >> index & 1;
    buffer_format(text, "hart %u ", index);
    if (!machine_debug_started(session->machine, index))
        buffer_text(text, "not started");
    else if (!held)
        buffer_text(text, "running");
    else
        buffer_format(text, "%s stopped", privileges[hart->privilege & 3]);
}

static void handle_extra_info(struct debug_session *session, const struct argument *arguments,
                              size_t count)
{
    int64_t thread = (int64_t)arguments[0].number;
    if (!exists(session, thread))
        return;
    struct buffer text = {0};
    describe_hart(session, thread > 0 ? (unsigned)thread - 1 : session->stopped_hart, &text);
    buffer_hex(&session->reply, text.data, text.size);
    buffer_finish(&text);
}

const struct command query_commands[] = {
    {"qSupported", "?:s", handle_supported},
    {"QStartNoAckMode", "", handle_no_ack},
    {"Hg", "t", handle_general},
    {"Hc", "t", handle_continued},
    {"T", "t", handle_alive},
    {"qC", "", handle_current},
    {"qAttached", "?:s", handle_attached},
    {"qfThreadInfo", "", handle_threads},
    {"qsThreadInfo", "", handle_more_threads},
    {"qThreadExtraInfo", ",t", handle_extra_info},
    {"qSymbol", "?:s", handle_ok}, /* nothing to ask */
    {"QThreadEvents", ":h", handle_thread_events},
    {0},
};
