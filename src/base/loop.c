#include "base/loop.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "base/timer_heap.h"

#define NS_PER_SECOND UINT64_C(1000000000)
#define EVENTS_A_TURN 64

/*
 * What fds, timers and tasks have in common. A removed source stays allocated until the end of the
 * loop's turn, because events that epoll has already handed out may still point to it.
 */
struct source {
    struct loop *loop;
    void *opaque;
    struct source *next_removed;
    bool removed;
};

struct loop_fd {
    struct source source; /* first in each kind of source: it is what free() gets */
    loop_fd_callback *callback;
    int fd;
    uint32_t events; /* 0: not in the epoll set, so that a hang-up does not spin */
};

struct loop_timer {
    struct source source;
    loop_callback *callback;
    struct heap_node node;
};

struct loop_task {
    struct source source;
    loop_callback *callback;
    _Atomic bool pending; /* scheduled and not yet begun */
    bool queued;          /* in the loop's queue: pending, a moment later */
    uint64_t turn;        /* of the loop when it was queued */
    struct loop_task *previous, *next;
};

/* The lock covers every field that does not say otherwise. No callback runs with it held. */
struct loop {
    pthread_mutex_t lock;
    pthread_cond_t finished; /* a callback that somebody waits for has returned */
    unsigned waiters;
    int epoll, timerfd, eventfd; /* constant */
    _Atomic(pthread_t) thread;
    _Atomic bool quit;
    bool asleep; /* in epoll_wait with nothing to do: needs the eventfd to notice tasks */
    bool in_turn;
    struct source *running; /* whose callback runs */
    struct source *removed; /* to be freed at the end of the turn */
    struct timer_heap timers;
    uint64_t armed; /* when the timerfd fires; may be earlier than needed, never later */
    struct loop_task *first_task, *last_task;
    uint64_t turn; /* turns that have begun to run tasks */
    size_t sources;
};

uint64_t loop_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

/* The loop's own descriptors are edge-triggered, so that they never need to be read. */
static bool watch_own(struct loop *loop, int fd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
    return fd >= 0 && !epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event);
}

struct loop *loop_create(void)
{
    struct loop *loop = xcalloc(1, sizeof(*loop));
    pthread_mutex_init(&loop->lock, NULL);
    pthread_cond_init(&loop->finished, NULL);
    loop->thread = pthread_self();
    loop->armed = UINT64_MAX;
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    loop->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    loop->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!watch_own(loop, loop->timerfd) || !watch_own(loop, loop->eventfd)) {
        log_error("cannot create an event loop: %s (raise the limit of open files, ulimit -n)",
                  strerror(errno));
        abort();
    }
    return loop;
}

static void free_removed(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    struct source *source = loop->removed;
    loop->removed = NULL;
    pthread_mutex_unlock(&loop->lock);
    while (source) {
        struct source *next = source->next_removed;
        free(source);
        source = next;
    }
}

void loop_destroy(struct loop *loop)
{
    if (!loop)
        return;
    assert(!loop->sources && !loop->in_turn);
    free_removed(loop);
    timer_heap_finish(&loop->timers);
    close(loop->epoll);
    close(loop->timerfd);
    close(loop->eventfd);
    pthread_cond_destroy(&loop->finished);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

bool loop_on_thread(const struct loop *loop)
{
    return pthread_equal(loop->thread, pthread_self());
}

static void wake(struct loop *loop)
{
    uint64_t one = 1;
    ssize_t written = write(loop->eventfd, &one, sizeof(one));
    (void)written; /* only fails when the counter is full, and then the loop is awake */
}

/* Sources: adding, removing, running. */

static void *source_add(struct loop *loop, size_t size, void *opaque)
{
    struct source *source = xcalloc(1, size);
    source->loop = loop;
    source->opaque = opaque;
    pthread_mutex_lock(&loop->lock);
    loop->sources++;
    pthread_mutex_unlock(&loop->lock);
    return source;
}

/* With the lock held, after the source was unlinked from its own list; releases the lock. */
static void source_remove(struct source *source)
{
    struct loop *loop = source->loop;
    assert(!source->removed);
    source->removed = true;
    if (!loop_on_thread(loop)) {
        loop->waiters++;
        while (loop->running == source)
            pthread_cond_wait(&loop->finished, &loop->lock);
        loop->waiters--;
    }
    loop->sources--;
    source->next_removed = loop->removed;
    loop->removed = source;
    pthread_mutex_unlock(&loop->lock);
}

/* Bracket a callback: the lock is held before the first and after the second. */
static void callback_begin(struct source *source)
{
    source->loop->running = source;
    pthread_mutex_unlock(&source->loop->lock);
}

static void callback_end(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->running = NULL;
    if (loop->waiters)
        pthread_cond_broadcast(&loop->finished);
}

/* File descriptors. */

static bool control_fd(struct loop_fd *source, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    return !epoll_ctl(source->source.loop->epoll, operation, source->fd, &event);
}

struct loop_fd *loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_callback *callback,
                            void *opaque, struct error *err)
{
    struct loop_fd *source = source_add(loop, sizeof(*source), opaque);
    source->callback = callback;
    source->fd = fd;
    source->events = events;
    /* Also with no events, to learn now whether fd can be watched at all. */
    if (!control_fd(source, EPOLL_CTL_ADD, events)) {
        error_set_errno(err, errno, "cannot watch file descriptor %d", fd);
        pthread_mutex_lock(&loop->lock);
        source_remove(&source->source);
        return NULL;
    }
    if (!events)
        control_fd(source, EPOLL_CTL_DEL, 0);
    return source;
}

void loop_update_fd(struct loop_fd *source, uint32_t events)
{
    struct loop *loop = source->source.loop;
    pthread_mutex_lock(&loop->lock);
    if (source->events != events) {
        int operation = !events ? EPOLL_CTL_DEL : !source->events ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
        source->events = events;
        control_fd(source, operation, events);
    }
    pthread_mutex_unlock(&loop->lock);
}

void loop_remove_fd(struct loop_fd *source)
{
    if (!source)
        return;
    pthread_mutex_lock(&source->source.loop->lock);
    if (source->events)
        control_fd(source, EPOLL_CTL_DEL, 0);
    source_remove(&source->source);
}

static void run_fd(struct loop *loop, struct loop_fd *source, uint32_t events)
{
    pthread_mutex_lock(&loop->lock);
    events &= source->events | EPOLLERR | EPOLLHUP;
    if (!source->source.removed && source->events && events) {
        callback_begin(&source->source);
        source->callback(source->source.opaque, events);
        callback_end(loop);
    }
    pthread_mutex_unlock(&loop->lock);
}

/* Timers. */

struct loop_timer *loop_add_timer(struct loop *loop, loop_callback *callback, void *opaque)
{
    struct loop_timer *timer = source_add(loop, sizeof(*timer), opaque);
    timer->callback = callback;
    timer->node.deadline = UINT64_MAX;
    return timer;
}

/* With the lock held: lets the timerfd fire no later than the first deadline. */
static void arm(struct loop *loop)
{
    const struct heap_node *first = timer_heap_first(&loop->timers);
    if (!first || first->deadline >= loop->armed)
        return;
    loop->armed = first->deadline;
    uint64_t at = loop->armed ? loop->armed : 1; /* 0 would disarm the timerfd */
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(at / NS_PER_SECOND),
                                           .tv_nsec = (long)(at % NS_PER_SECOND)}};
    timerfd_settime(loop->timerfd, TFD_TIMER_ABSTIME, &when, NULL);
}

/*
 * A deadline that moves later leaves the timerfd alone: the loop wakes once for nothing and arms it
 * anew. Inside a turn the loop's thread arms it once, before it sleeps.
 */
void loop_set_timer(struct loop_timer *timer, uint64_t deadline_ns)
{
    struct loop *loop = timer->source.loop;
    pthread_mutex_lock(&loop->lock);
    if (!timer->source.removed) /* which its own callback need not know yet */
        timer_heap_set(&loop->timers, &timer->node, deadline_ns);
    if (loop->asleep)
        arm(loop);
    pthread_mutex_unlock(&loop->lock);
}

void loop_remove_timer(struct loop_timer *timer)
{
    if (!timer)
        return;
    struct loop *loop = timer->source.loop;
    pthread_mutex_lock(&loop->lock);
    timer_heap_set(&loop->timers, &timer->node, UINT64_MAX);
    source_remove(&timer->source);
}

/* Runs no more timers than there were, so that one set to the past by its callback starves nobody.
 */
static void run_timers(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    uint64_t now = loop->armed != UINT64_MAX || loop->timers.count ? loop_now() : 0;
    if (loop->armed <= now)
        loop->armed = UINT64_MAX; /* it has fired */
    for (size_t left = loop->timers.count; left > 0; left--) {
        struct heap_node *first = timer_heap_first(&loop->timers);
        if (!first || first->deadline > now)
            break;
        struct loop_timer *timer = container_of(first, struct loop_timer, node);
        timer_heap_set(&loop->timers, first, UINT64_MAX);
        callback_begin(&timer->source);
        timer->callback(timer->source.opaque);
        callback_end(loop);
    }
    pthread_mutex_unlock(&loop->lock);
}

/* Tasks. */

struct loop_task *loop_add_task(struct loop *loop, loop_callback *callback, void *opaque)
{
    struct loop_task *task = source_add(loop, sizeof(*task), opaque);
    task->callback = callback;
    return task;
}

static void task_enqueue(struct loop *loop, struct loop_task *task)
{
    task->queued = true;
    task->next = NULL;
    task->previous = loop->last_task;
    if (loop->last_task)
        loop->last_task->next = task;
    else
        loop->first_task = task;
    loop->last_task = task;
    task->turn = loop->turn;
}

static void task_dequeue(struct loop *loop, struct loop_task *task)
{
    if (task->next)
        task->next->previous = task->previous;
    else
        loop->last_task = task->previous;
    if (task->previous)
        task->previous->next = task->next;
    else
        loop->first_task = task->next;
    task->queued = false;
}

void loop_schedule(struct loop_task *task)
{
    if (atomic_exchange(&task->pending, true))
        return;
    struct loop *loop = task->source.loop;
    pthread_mutex_lock(&loop->lock);
    if (!task->source.removed)
        task_enqueue(loop, task);
    bool asleep = loop->asleep;
    loop->asleep = false;
    pthread_mutex_unlock(&loop->lock);
    if (asleep)
        wake(loop);
}

void loop_remove_task(struct loop_task *task)
{
    if (!task)
        return;
    struct loop *loop = task->source.loop;
    pthread_mutex_lock(&loop->lock);
    if (task->queued)
        task_dequeue(loop, task);
    source_remove(&task->source);
}

/* Tasks that are scheduled by callbacks of this turn wait for the next one. */
static void run_tasks(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    uint64_t turn = loop->turn++;
    while (loop->first_task && loop->first_task->turn <= turn) {
        struct loop_task *task = loop->first_task;
        task_dequeue(loop, task);
        callback_begin(&task->source);
        atomic_exchange(&task->pending, false); /* sees all that was done before loop_schedule */
        task->callback(task->source.opaque);
        callback_end(loop);
    }
    pthread_mutex_unlock(&loop->lock);
}

/* Calls. */

struct call {
    struct loop *loop;
    loop_callback *callback;
    void *opaque;
    bool done;
};

static void run_call(void *opaque)
{
    struct call *call = opaque;
    call->callback(call->opaque);
    pthread_mutex_lock(&call->loop->lock);
    call->done = true;
    pthread_cond_broadcast(&call->loop->finished);
    pthread_mutex_unlock(&call->loop->lock);
}

void loop_call(struct loop *loop, loop_callback *callback, void *opaque)
{
    if (loop_on_thread(loop)) {
        callback(opaque);
        return;
    }
    struct call call = {.loop = loop, .callback = callback, .opaque = opaque};
    struct loop_task *task = loop_add_task(loop, run_call, &call);
    loop_schedule(task);
    pthread_mutex_lock(&loop->lock);
    while (!call.done)
        pthread_cond_wait(&loop->finished, &loop->lock);
    pthread_mutex_unlock(&loop->lock);
    loop_remove_task(task);
}

/* Turns. */

static int wait_for_events(struct loop *loop, struct epoll_event *events, int timeout_ms)
{
    pthread_mutex_lock(&loop->lock);
    arm(loop);
    loop->asleep = !loop->first_task;
    if (!loop->asleep)
        timeout_ms = 0;
    pthread_mutex_unlock(&loop->lock);
    int count = epoll_wait(loop->epoll, events, EVENTS_A_TURN, timeout_ms);
    pthread_mutex_lock(&loop->lock);
    loop->asleep = false;
    pthread_mutex_unlock(&loop->lock);
    return count;
}

void loop_turn(struct loop *loop, int timeout_ms)
{
    assert(!loop->in_turn); /* callbacks must not run turns of their own */
    loop->thread = pthread_self();
    loop->in_turn = true;
    struct epoll_event events[EVENTS_A_TURN];
    int count = wait_for_events(loop, events, timeout_ms);
    for (int i = 0; i < count; i++)
        if (events[i].data.ptr)
            run_fd(loop, events[i].data.ptr, events[i].events);
    run_timers(loop);
    run_tasks(loop);
    free_removed(loop);
    loop->in_turn = false;
}

void loop_run(struct loop *loop)
{
    while (!atomic_exchange(&loop->quit, false))
        loop_turn(loop, -1);
}

void loop_quit(struct loop *loop)
{
    loop->quit = true;
    wake(loop);
}
