/* The machine as the process that a client sees: detaching, killing, starting again. */
#include "debug/session.h"

/* Whether the process is meant that there is. */
static bool is_process(struct debug_session *session, const struct argument *arguments,
                       size_t count)
{
    if (!count || arguments[0].number == 1)
        return true;
    reply_error(session, REMOTE_EINVAL, "there is no process but 1");
    return false;
}

static void handle_detach(struct debug_session *session, const struct argument *arguments,
                          size_t count)
{
    if (!is_process(session, arguments, count))
        return;
    session_send(session, '$', "OK", 2);
    session->no_reply = true;
    session_end(session);
}

static void handle_kill(struct debug_session *session, const struct argument *arguments,
                        size_t count)
{
    session->no_reply = true;
    machine_quit(session->machine, 0);
    session_end(session);
}

static void handle_vkill(struct debug_session *session, const struct argument *arguments,
                         size_t count)
{
    if (!is_process(session, arguments, count))
        return;
    session_send(session, '$', "OK", 2);
    if (!session->extended) {
        handle_kill(session, arguments, count);
        return;
    }
    /* The client may go on with vRun; if it does not, the machine ends with the session. */
    session->no_reply = session->killed = true;
    run_attach(session);
    run_hold_all(session);
}

bool run_reset(struct debug_session *session)
{
    run_attach(session);
    run_hold_all(session);
    run_collect(session);
    session->killed = session->running = false;
    bool done = machine_debug_reset(session->machine);
    for (unsigned i = 0; i < session->hart_count; i++)
        session->harts[i] = (struct session_hart){.stopped = true};
    session->stopped_hart = 0;
    session->general_thread = session->continue_thread = THREAD_ANY;
    return done;
}

static void handle_run(struct debug_session *session, const struct argument *arguments,
                       size_t count)
{
    if (!run_reset(session))
        reply_error(session, REMOTE_EIO, "the machine cannot be reset");
    else if (session->non_stop)
        run_answer_why(session, arguments, 0);
    else
        stop_reply(session, session->stopped_hart);
}

static void handle_restart(struct debug_session *session, const struct argument *arguments,
                           size_t count)
{
    run_reset(session);
    session->no_reply = true;
}

static void handle_vattach(struct debug_session *session, const struct argument *arguments,
                           size_t count)
{
    run_answer_why(session, arguments, 0);
}

static void handle_extended(struct debug_session *session, const struct argument *arguments,
                            size_t count)
{
    session->extended = true;
    reply_ok(session);
}

const struct command process_commands[] = {
    {"D", "?;h", handle_detach},    {"k", "", handle_kill},
    {"vKill", "?;h", handle_vkill}, {"vAttach", "?;h", handle_vattach},
    {"vRun", "?x", handle_run},     {"R", "?x", handle_restart},
    {"!", "", handle_extended},     {0},
};
