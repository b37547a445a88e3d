/*
 * Running and stopping: vCont and its elders, all-stop and non-stop mode.
 *
 * All-stop: `running` from the packet that lets harts go until the stop reply. When a hart stops by
 * itself the others are held at once, on its thread; run_stopped then waits for them and tells the
 * client of one. Others that stopped before an instruction come to it again, if the client still
 * wants that then, and of steps that ended beside it nobody is told. What has happened, a trap or a
 * start, waits for the next resumption, which tells it instead of resuming.
 *
 * Non-stop: each stop is told by a notification, the next one after the client has asked for it
 * (vStopped).
 */
#include <stdio.h>
#include <string.h>

#include "debug/session.h"

static uint64_t all_harts(const struct debug_session *session)
{
    return UINT64_MAX >> (64 - session->hart_count);
}

/* --- What has stopped --------------------------------------------------------------------------
 */

void run_collect(struct debug_session *session)
{
    for (unsigned i = 0; i < session->hart_count; i++) {
        struct session_hart *hart = &session->harts[i];
        struct machine_stop stop;
        if (!machine_debug_take_stop(session->machine, i, &stop))
            continue;
        hart->stop = stop;
        hart->pending = true;
        hart->asked = false;
    }
}

static void tell(struct debug_session *session, unsigned index)
{
    session->harts[index].pending = false;
    session->harts[index].stopped = true;
    session->stopped_hart = index;
}

/* All harts stand still; one of them is told of. */
static void stop_all(struct debug_session *session, unsigned index)
{
    session->running = false;
    session->general_thread = session->continue_thread = (int)index + 1;
    for (unsigned i = 0; i < session->hart_count; i++) {
        struct session_hart *hart = &session->harts[i];
        hart->stopped = true;
        if (i == index || !hart->pending || hart->stop.started ||
            hart->stop.hart.reason == HART_STOP_TRAP)
            continue;
        hart->pending = false;
        if (hart->stop.hart.reason != HART_STOP_NONE) /* what it stopped for is still before it */
            machine_debug_pass(session->machine, i, false);
    }
    stop_explain(session, index);
    tell(session, index);
    session->reply.size = 0;
    stop_reply(session, index);
}

static int first_pending(const struct debug_session *session)
{
    for (unsigned i = 0; i < session->hart_count; i++)
        if (session->harts[i].pending)
            return (int)i;
    return -1;
}

/* All-stop: a hart has stopped while the client waits. */
static void stop_and_send(struct debug_session *session, unsigned index)
{
    stop_all(session, index);
    session_send(session, '$', session->reply.data, session->reply.size);
}

void run_hold_all(struct debug_session *session)
{
    machine_debug_hold(session->machine, all_harts(session));
    machine_debug_freeze(session->machine, session->freeze_time);
}

static void notify(struct debug_session *session)
{
    int next = first_pending(session);
    if (next < 0 || session->notifying)
        return;
    session->notifying = true;
    tell(session, (unsigned)next);
    struct buffer text = {0};
    session->reply.size = 0;
    stop_reply(session, (unsigned)next);
    buffer_text(&text, "Stop:");
    buffer_bytes(&text, session->reply.data, session->reply.size);
    session_send(session, '%', text.data, text.size);
    buffer_finish(&text);
    session->reply.size = 0;
}

void run_stopped(void *opaque)
{
    struct debug_session *session = opaque;
    if (!session->non_stop && !session->running)
        return; /* it is found when harts are to run again */
    run_collect(session);
    if (session->non_stop) {
        notify(session);
        return;
    }
    if (first_pending(session) < 0)
        return; /* it was found before, and harts run again */
    run_hold_all(session);
    run_collect(session);
    stop_and_send(session, (unsigned)first_pending(session));
}

void run_interrupt(struct debug_session *session)
{
    if (session->non_stop || !session->running)
        return;
    run_hold_all(session);
    run_collect(session);
    int index = first_pending(session); /* it stopped just before */
    if (index < 0) {
        index = session->continue_thread > 0 ? session->continue_thread - 1 : 0;
        session->harts[index].asked = true;
    }
    stop_and_send(session, (unsigned)index);
}

void run_ended(struct debug_session *session, int status)
{
    char text[32];
    int length = snprintf(text, sizeof(text), session->multiprocess ? "W%02x;process:1" : "W%02x",
                          status & 0xff);
    if (session->non_stop && session->attached) {
        char notification[48];
        length = snprintf(notification, sizeof(notification), "Stop:%s", text);
        session_send(session, '%', notification, (size_t)length);
    } else if (session->running) {
        session_send(session, '$', text, (size_t)length);
    }
    session_end(session);
}

/* --- Attaching, interrupting -------------------------------------------------------------------
 */

void run_attach(struct debug_session *session)
{
    if (session->attached)
        return;
    session->attached = true;
    if (session->non_stop)
        return;
    machine_debug_set_all_stop(session->machine, true);
    run_hold_all(session);
    for (unsigned i = 0; i < session->hart_count; i++) {
        session->harts[i].stopped = true;
        session->harts[i].asked = false;
    }
    for (unsigned i = session->hart_count; i-- > 0;)
        if (machine_debug_started(session->machine, i))
            session->stopped_hart = i;
}

void run_answer_why(struct debug_session *session, const struct argument *arguments, size_t count)
{
    run_attach(session);
    if (!session->non_stop) {
        if (session->running)
            reply_error(session, REMOTE_EBUSY, "harts are running: interrupt them first");
        else
            stop_reply(session, session->stopped_hart);
        return;
    }
    /* Tells of all that stand still, one after another. */
    uint64_t held = machine_debug_held(session->machine);
    run_collect(session);
    for (unsigned i = 0; i < session->hart_count; i++) {
        struct session_hart *hart = &session->harts[i];
        hart->asked |= (held >> i & 1) && !hart->pending && !hart->stopped;
        hart->pending = held >> i & 1;
    }
    int next = first_pending(session);
    session->notifying = next >= 0;
    session->listing = session->is_gdb;
    if (next < 0) {
        reply_ok(session);
        return;
    }
    tell(session, (unsigned)next);
    stop_reply(session, (unsigned)next);
}

/* GDB 13 gives up if an answer to ? is followed by a second one: what else stands still is told of
 * by notifications. */
static void handle_stopped(struct debug_session *session, const struct argument *arguments,
                           size_t count)
{
    int next = first_pending(session);
    bool listing = session->listing;
    session->notifying = next >= 0 && !listing;
    session->listing = false;
    if (!session->notifying) {
        session_send(session, '$', "OK", 2);
        session->no_reply = true;
        notify(session);
        return;
    }
    tell(session, (unsigned)next);
    stop_reply(session, (unsigned)next);
}

/* --- Letting go --------------------------------------------------------------------------------
 */

/* What a hart is to do. */
struct action {
    enum { ACTION_NONE, ACTION_CONTINUE, ACTION_STEP, ACTION_RANGE, ACTION_STOP } kind;
    uint64_t start, end;
};

static bool interrupts_step(const struct debug_session *session)
{
    return !(session->step_mask & STEP_NO_INTERRUPTS);
}

static void let_go(struct debug_session *session, unsigned index)
{
    session->harts[index].stopped = session->harts[index].asked = false;
    session->harts[index].ran = true;
    session->harts[index].stop = (struct machine_stop){0};
}

/* One that steps is stepped here, on this thread: it needs to wait for nobody. */
static void step(struct debug_session *session, unsigned index)
{
    struct session_hart *hart = &session->harts[index];
    let_go(session, index);
    machine_debug_step(session->machine, index, interrupts_step(session));
    run_collect(session);
    hart->pending = true; /* a step has ended, if nothing else */
}

/* Starts what is to run. A hart that has made its step already, or -1. */
static int start(struct debug_session *session, const struct action *actions)
{
    uint64_t go = 0;
    bool ranges = false;
    int stepped = -1;
    for (unsigned i = 0; i < session->hart_count; i++) {
        if (actions[i].kind == ACTION_CONTINUE)
            go |= UINT64_C(1) << i;
        ranges |= actions[i].kind == ACTION_RANGE;
    }
    bool runs = go || ranges || session->non_stop;
    points_apply(session->points, runs);
    if (runs)
        machine_debug_freeze(session->machine, false);
    for (unsigned i = 0; i < session->hart_count; i++)
        if (actions[i].kind == ACTION_CONTINUE || actions[i].kind == ACTION_RANGE)
            let_go(session, i);
    if (go)
        machine_debug_release(session->machine, go);
    for (unsigned i = 0; i < session->hart_count; i++)
        if (actions[i].kind == ACTION_RANGE)
            machine_debug_step_range(session->machine, i, actions[i].start, actions[i].end,
                                     interrupts_step(session));
    for (unsigned i = session->hart_count; i-- > 0;) {
        if (actions[i].kind != ACTION_STEP || session->ended)
            continue;
        step(session, i);
        stepped = (int)i;
    }
    return stepped;
}

static void resume_all_stop(struct debug_session *session, const struct action *actions)
{
    bool any = false;
    run_collect(session);
    for (unsigned i = 0; i < session->hart_count; i++) {
        any |= actions[i].kind != ACTION_NONE;
        if (actions[i].kind == ACTION_NONE || !session->harts[i].pending)
            continue;
        stop_all(session, i); /* it had something to tell all the time */
        return;
    }
    if (!any) {
        buffer_text(&session->reply, "N"); /* no thread is left that runs */
        return;
    }
    session->running = true;
    int stepped = start(session, actions);
    if (stepped < 0 || session->ended) {
        session->no_reply = true;
        return;
    }
    run_hold_all(session);
    run_collect(session);
    stop_all(session, (unsigned)stepped);
}

static void resume_non_stop(struct debug_session *session, struct action *actions)
{
    uint64_t stop = 0;
    for (unsigned i = 0; i < session->hart_count; i++) {
        struct session_hart *hart = &session->harts[i];
        bool stands = hart->stopped || hart->pending;
        if (actions[i].kind == ACTION_STOP) {
            if (!stands)
                stop |= UINT64_C(1) << i;
            actions[i].kind = ACTION_NONE;
        } else if (!hart->stopped) {
            actions[i].kind = ACTION_NONE; /* it runs, or has a stop to tell of first */
        }
    }
    start(session, actions);
    session->no_reply = true;
    if (session->ended)
        return;
    machine_debug_hold(session->machine, stop);
    run_collect(session);
    for (unsigned i = 0; i < session->hart_count; i++)
        if ((stop >> i & 1) && !session->harts[i].pending)
            session->harts[i].pending = session->harts[i].asked = true;
    session_send(session, '$', "OK", 2);
    notify(session);
}

static void resume(struct debug_session *session, struct action *actions)
{
    if (session->non_stop)
        resume_non_stop(session, actions);
    else
        resume_all_stop(session, actions);
}

/* "c", "C05", "s", "S05", "t", "r1000,1010" */
static bool parse_action(const uint8_t **at, const uint8_t *end, struct action *action)
{
    static const struct {
        char letter;
        uint8_t kind, numbers;
    } kinds[] = {{'c', ACTION_CONTINUE, 0}, {'C', ACTION_CONTINUE, 1}, {'s', ACTION_STEP, 0},
                 {'S', ACTION_STEP, 1},     {'t', ACTION_STOP, 0},     {'r', ACTION_RANGE, 2}};
    uint64_t numbers[2] = {0};
    for (unsigned i = 0; i < ARRAY_SIZE(kinds) && *at < end; i++) {
        if (**at != (uint8_t)kinds[i].letter)
            continue;
        ++*at;
        for (unsigned n = 0; n < kinds[i].numbers; n++) {
            if (n) {
                if (*at == end || **at != ',')
                    return false;
                ++*at;
            }
            const uint8_t *first = *at;
            for (; *at < end && hex_digit(**at) >= 0; ++*at)
                numbers[n] = numbers[n] << 4 | (unsigned)hex_digit(**at);
            if (*at == first || *at - first > 16)
                return false;
        }
        *action = (struct action){.kind = kinds[i].kind, .start = numbers[0], .end = numbers[1]};
        return true;
    }
    return false;
}

/* ";ACTION[:THREAD]...": the first that fits a hart is its own. */
static bool parse_actions(struct debug_session *session, const struct argument *argument,
                          struct action *actions)
{
    const uint8_t *at = argument->data, *end = at + argument->size;
    while (at < end) {
        struct action action;
        int thread = THREAD_ALL;
        if (*at != ';')
            return false;
        at++;
        if (!parse_action(&at, end, &action))
            return false;
        if (at < end && *at == ':') {
            at++;
            if (!thread_parse(&at, end, &thread) || thread > (int)session->hart_count)
                return false;
        }
        if (thread == THREAD_ANY)
            thread = (int)session->stopped_hart + 1;
        for (unsigned i = 0; i < session->hart_count; i++)
            if (actions[i].kind == ACTION_NONE && (thread == THREAD_ALL || thread == (int)i + 1))
                actions[i] = action;
    }
    return true;
}

static void handle_vcont(struct debug_session *session, const struct argument *arguments,
                         size_t count)
{
    struct action actions[MACHINE_MAX_CPUS] = {0};
    run_attach(session);
    if (!session->non_stop && session->running)
        reply_error(session, REMOTE_EBUSY, "harts are running: interrupt them first");
    else if (!arguments[0].size || !parse_actions(session, &arguments[0], actions))
        reply_error(session, REMOTE_EINVAL, "the actions of vCont are malformed");
    else
        resume(session, actions);
}

static void handle_vcont_query(struct debug_session *session, const struct argument *arguments,
                               size_t count)
{
    buffer_text(&session->reply, "vCont;c;C;s;S;t;r");
}

/* c, s, C, S: the hart of Hc, and for c all others. */
static void resume_elder(struct debug_session *session, unsigned kind, const uint64_t *address)
{
    struct action actions[MACHINE_MAX_CPUS] = {0};
    int thread = session->continue_thread;
    unsigned index = thread > 0 ? (unsigned)thread - 1 : session->stopped_hart;
    if (address)
        register_write(machine_debug_hart(session->machine, index), REGISTER_PC, *address);
    if (address)
        machine_debug_pass(session->machine, index, false);
    for (unsigned i = 0; i < session->hart_count; i++)
        if (i == index || (kind == ACTION_CONTINUE && thread <= 0))
            actions[i].kind = kind;
    resume(session, actions);
}

static void handle_continue(struct debug_session *session, const struct argument *arguments,
                            size_t count)
{
    /* All run: a client that knows no vCont knows no harts. */
    session->continue_thread = session->continue_thread > 0 ? THREAD_ALL : session->continue_thread;
    resume_elder(session, ACTION_CONTINUE, count ? &arguments[0].number : NULL);
}

static void handle_step(struct debug_session *session, const struct argument *arguments,
                        size_t count)
{
    resume_elder(session, ACTION_STEP, count ? &arguments[0].number : NULL);
}

static void handle_continue_signal(struct debug_session *session, const struct argument *arguments,
                                   size_t count)
{
    handle_continue(session, arguments + 1, count - 1);
}

static void handle_step_signal(struct debug_session *session, const struct argument *arguments,
                               size_t count)
{
    handle_step(session, arguments + 1, count - 1);
}

/* --- Modes -------------------------------------------------------------------------------------
 */

static void handle_non_stop(struct debug_session *session, const struct argument *arguments,
                            size_t count)
{
    bool wanted = arguments[0].number;
    if (arguments[0].number > 1 || session->running) {
        reply_error(session, REMOTE_EINVAL, "QNonStop is 0 or 1, while no hart runs");
        return;
    }
    if (wanted != session->non_stop) {
        session->non_stop = wanted;
        session->notifying = false;
        machine_debug_set_all_stop(session->machine, !wanted);
        machine_debug_freeze(session->machine, false);
        if (!wanted) {
            session->attached = false;
            run_attach(session);
        }
    }
    reply_ok(session);
}

static void handle_interrupt(struct debug_session *session, const struct argument *arguments,
                             size_t count)
{
    if (session->non_stop) {
        struct action actions[MACHINE_MAX_CPUS];
        for (unsigned i = 0; i < session->hart_count; i++)
            actions[i] = (struct action){.kind = ACTION_STOP};
        resume_non_stop(session, actions);
        return;
    }
    session_send(session, '$', "OK", 2);
    session->no_reply = true;
    run_interrupt(session);
}

static void handle_step_bits(struct debug_session *session, const struct argument *arguments,
                             size_t count)
{
    buffer_format(&session->reply, "ENABLE=%x,NOIRQ=%x,NOTIMER=%x", STEP_ENABLE, STEP_NO_INTERRUPTS,
                  STEP_NO_TIMERS);
}

static void handle_step_mask(struct debug_session *session, const struct argument *arguments,
                             size_t count)
{
    buffer_format(&session->reply, "0x%x", session->step_mask);
}

static void handle_set_step_mask(struct debug_session *session, const struct argument *arguments,
                                 size_t count)
{
    session->step_mask = (unsigned)arguments[0].number & 7;
    reply_ok(session);
}

const struct command run_commands[] = {
    {"vCont?", "", handle_vcont_query},
    {"vCont", "x", handle_vcont},
    {"c", "?h", handle_continue, .stands = true},
    {"s", "?h", handle_step, .stands = true},
    {"C", "h?;h", handle_continue_signal, .stands = true},
    {"S", "h?;h", handle_step_signal, .stands = true},
    {"?", "", run_answer_why},
    {"vStopped", "", handle_stopped},
    {"vCtrlC", "", handle_interrupt},
    {"QNonStop", ":h", handle_non_stop},
    {"qqemu.sstepbits", "", handle_step_bits},
    {"qqemu.sstep", "", handle_step_mask},
    {"Qqemu.sstep", "=h", handle_set_step_mask},
    {0},
};
