/* What a client is told of a hart that stands still. */
#include <stdio.h>
#include <string.h>

#include "debug/session.h"

enum { SIGNAL_INT = 2, SIGNAL_ILL = 4, SIGNAL_TRAP = 5, SIGNAL_SEGV = 11 };

unsigned stop_signal(const struct debug_session *session, unsigned index)
{
    const struct session_hart *hart = &session->harts[index];
    if (hart->asked)
        return SIGNAL_INT;
    if (hart->stop.hart.reason != HART_STOP_LOST)
        return SIGNAL_TRAP;
    return hart->stop.hart.cause == TRAP_ILLEGAL ? SIGNAL_ILL : SIGNAL_SEGV;
}

/* In LLDB's words. */
const char *stop_reason(const struct debug_session *session, unsigned index)
{
    static const char *const reasons[] = {
        [HART_STOP_NONE] = "trace",       [HART_STOP_BREAK] = "breakpoint",
        [HART_STOP_WATCH] = "watchpoint", [HART_STOP_TRAP] = "exception",
        [HART_STOP_CALL] = "exception",   [HART_STOP_WAIT] = "exception",
        [HART_STOP_LOST] = "exception",
    };
    const struct session_hart *hart = &session->harts[index];
    if (hart->asked || !hart->ran)
        return "signal"; /* it was stopped from outside */
    return reasons[hart->stop.hart.reason];
}

static void put_reason(struct debug_session *session, unsigned index)
{
    struct session_hart *hart = &session->harts[index];
    const struct hart_stop *stop = &hart->stop.hart;
    uint64_t pc = machine_debug_hart(session->machine, index)->pc;
    const char *watch = stop->accesses == 1 << ACCESS_STORE  ? "watch"
                        : stop->accesses == 1 << ACCESS_LOAD ? "rwatch"
                                                             : "awatch";
    bool hardware = points_is_hardware(session->points, pc);
    if (!hart->asked && hart->stop.started && session->thread_events)
        buffer_text(&session->reply, "create:;");
    else if (!hart->asked && stop->reason == HART_STOP_WATCH)
        buffer_format(&session->reply, "%s:%llx;", watch, (unsigned long long)stop->address);
    else if (!hart->asked && stop->reason == HART_STOP_BREAK &&
             (hardware ? session->hwbreak : session->swbreak))
        buffer_text(&session->reply, hardware ? "hwbreak:;" : "swbreak:;");
    buffer_format(&session->reply, "reason:%s;", stop_reason(session, index));
    if (session->threads_in_stop && !hart->asked &&
        stop->reason == HART_STOP_WATCH) { /* address and index, as text in hex */
        char text[32];
        int length = snprintf(text, sizeof(text), "%llu 0", (unsigned long long)stop->address);
        buffer_text(&session->reply, "description:");
        buffer_hex(&session->reply, text, (size_t)length);
        buffer_text(&session->reply, ";");
    }
}

/* What LLDB asks for with QListThreadsInStopReply. */
static void put_threads(struct debug_session *session)
{
    for (unsigned i = 0; i < session->hart_count; i++)
        buffer_format(&session->reply, "%s%x", i ? "," : "threads:", i + 1);
    for (unsigned i = 0; i < session->hart_count; i++)
        buffer_format(&session->reply, "%s%llx", i ? "," : ";thread-pcs:",
                      (unsigned long long)machine_debug_hart(session->machine, i)->pc);
    buffer_text(&session->reply, ";");
}

/* Signal, thread, and the registers that every client reads next. */
static void put_hart(struct debug_session *session, unsigned index, unsigned signal)
{
    static const uint8_t expedited[] = {1, 2, 8, REGISTER_PC};
    struct hart *hart = machine_debug_hart(session->machine, index);
    buffer_format(&session->reply, "T%02x", signal);
    for (unsigned i = 0; i < ARRAY_SIZE(expedited); i++) {
        uint64_t value;
        register_read(hart, expedited[i], &value);
        buffer_format(&session->reply, "%02x:", expedited[i]);
        buffer_value(&session->reply, value, 8);
        buffer_text(&session->reply, ";");
    }
    buffer_text(&session->reply, "thread:");
    reply_thread(session, index);
    buffer_format(&session->reply, ";core:%x;", index);
}

void stop_idle_reply(struct debug_session *session, unsigned index)
{
    put_hart(session, index, 0);
    buffer_text(&session->reply, "reason:none;");
}

void stop_reply(struct debug_session *session, unsigned index)
{
    const struct session_hart *hart = &session->harts[index];
    put_hart(session, index, hart->asked && session->non_stop ? 0 : stop_signal(session, index));
    put_reason(session, index);
    if (session->threads_in_stop)
        put_threads(session);
}

/* Says what no stop reply has a word for. */
void stop_explain(struct debug_session *session, unsigned index)
{
    const struct session_hart *hart = &session->harts[index];
    const struct hart_stop *stop = &hart->stop.hart;
    struct hart *state = machine_debug_hart(session->machine, index);
    if (hart->asked || session->non_stop)
        return;
    if (hart->stop.started)
        session_print(session, "hart %u was started\n", index);
    else if (stop->reason == HART_STOP_TRAP || stop->reason == HART_STOP_LOST)
        session_print(session, "hart %u: %s%s\n", index, hart_cause_name(stop->cause),
                      stop->reason == HART_STOP_LOST ? ", and there is no handler for it" : "");
    else if (stop->reason == HART_STOP_CALL)
        session_print(session, "hart %u calls SBI extension %#llx, function %llu\n", index,
                      (unsigned long long)state->x[17], (unsigned long long)state->x[16]);
    else if (stop->reason == HART_STOP_WAIT)
        session_print(session, "hart %u is about to wait (wfi)\n", index);
}
