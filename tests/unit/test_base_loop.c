/* The event loop: readiness, timers, tasks, and removal while callbacks run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/loop.h"
#include "base/timer_heap.h"

#define MS UINT64_C(1000000)

static void count_call(void *opaque)
{
    ++*(int *)opaque;
}

/* A loop on a thread of its own. */
struct runner {
    struct loop *loop;
    pthread_t thread;
};

static void set_flag(void *opaque)
{
    atomic_store((_Atomic bool *)opaque, true);
}

static void *run_loop(void *opaque)
{
    loop_run(opaque);
    return NULL;
}

static void runner_start(struct runner *runner)
{
    runner->loop = loop_create();
    _Atomic bool runs = false; /* until then the loop's thread is the one that created it */
    struct loop_task *task = loop_add_task(runner->loop, set_flag, &runs);
    loop_schedule(task);
    pthread_create(&runner->thread, NULL, run_loop, runner->loop);
    while (!runs)
        usleep(100);
    loop_remove_task(task);
}

static void runner_stop(struct runner *runner)
{
    loop_quit(runner->loop);
    pthread_join(runner->thread, NULL);
}

struct fd_log {
    struct loop_fd *source;
    struct fd_log *other; /* removed by the callback */
    int fd;
    int calls;
    uint32_t events;
};

static void fd_ready(void *opaque, uint32_t events)
{
    struct fd_log *log = opaque;
    log->calls++;
    log->events = events;
    if (log->other) {
        loop_remove_fd(log->other->source);
        log->other->source = NULL;
        log->other = NULL;
    }
}

static void make_pair(int pair[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
}

static void test_fd_events(void **state)
{
    struct loop *loop = loop_create();
    struct error err;
    int pair[2];
    make_pair(pair);
    struct fd_log log = {0};
    log.source = loop_add_fd(loop, pair[0], EPOLLIN, fd_ready, &log, &err);
    assert_non_null(log.source);
    loop_turn(loop, 0);
    assert_int_equal(log.calls, 0);
    assert_int_equal(write(pair[1], "x", 1), 1);
    loop_turn(loop, -1);
    loop_turn(loop, -1); /* level-triggered */
    assert_int_equal(log.calls, 2);
    assert_int_equal(log.events, EPOLLIN);
    loop_update_fd(log.source, EPOLLOUT);
    loop_turn(loop, -1);
    assert_int_equal(log.events, EPOLLOUT);
    loop_update_fd(log.source, EPOLLIN | EPOLLOUT);
    loop_turn(loop, -1);
    assert_int_equal(log.events, EPOLLIN | EPOLLOUT);
    /* Without events there is silence, even after a hang-up. */
    loop_update_fd(log.source, 0);
    close(pair[1]);
    log.calls = 0;
    loop_turn(loop, 0);
    assert_int_equal(log.calls, 0);
    loop_update_fd(log.source, EPOLLIN);
    loop_turn(loop, 0);
    assert_int_equal(log.calls, 1);
    assert_true(log.events & EPOLLHUP);
    loop_remove_fd(log.source);
    loop_remove_fd(NULL);
    loop_turn(loop, 0);
    assert_int_equal(log.calls, 1);
    close(pair[0]);
    loop_destroy(loop);
    loop_destroy(NULL);
}

static void test_fd_refused(void **state)
{
    struct loop *loop = loop_create();
    struct error err = {{0}};
    char path[] = "/tmp/hartvisor-loop-XXXXXX";
    int fd = mkstemp(path);
    unlink(path);
    assert_null(loop_add_fd(loop, fd, EPOLLIN, fd_ready, NULL, &err));
    assert_non_null(strstr(err.message, "Operation not permitted"));
    assert_null(loop_add_fd(loop, fd, 0, fd_ready, NULL, &err));
    assert_null(loop_add_fd(loop, -1, EPOLLIN, fd_ready, NULL, NULL));
    close(fd);
    loop_destroy(loop);
}

/* Both are ready in one turn; whichever runs first removes the other, which then never runs. */
static void test_fd_removed_in_batch(void **state)
{
    struct loop *loop = loop_create();
    int a[2], b[2];
    make_pair(a);
    make_pair(b);
    struct fd_log first = {0}, second = {0};
    first.other = &second;
    second.other = &first;
    first.source = loop_add_fd(loop, a[0], EPOLLOUT, fd_ready, &first, NULL);
    second.source = loop_add_fd(loop, b[0], EPOLLOUT, fd_ready, &second, NULL);
    loop_turn(loop, -1);
    assert_int_equal(first.calls + second.calls, 1);
    struct fd_log *left = first.source ? &first : &second;
    left->other = left; /* removes itself */
    loop_turn(loop, -1);
    loop_turn(loop, 0);
    assert_int_equal(left->calls, 2);
    loop_destroy(loop);
    for (int i = 0; i < 2; i++) {
        close(a[i]);
        close(b[i]);
    }
}

static void test_heap(void **state)
{
    enum { NODES = 200 };
    struct timer_heap heap = {0};
    struct heap_node nodes[NODES];
    srand(7);
    for (int i = 0; i < NODES; i++)
        nodes[i] = (struct heap_node){.deadline = UINT64_MAX};
    for (int step = 0; step < 20000; step++) {
        struct heap_node *node = &nodes[rand() % NODES];
        timer_heap_set(&heap, node, rand() % 4 ? (uint64_t)(rand() % 1000) : UINT64_MAX);
        uint64_t earliest = UINT64_MAX;
        size_t count = 0;
        for (int i = 0; i < NODES; i++) {
            if (nodes[i].deadline < earliest)
                earliest = nodes[i].deadline;
            count += nodes[i].deadline != UINT64_MAX;
        }
        const struct heap_node *first = timer_heap_first(&heap);
        assert_int_equal(heap.count, count);
        assert_int_equal(first ? first->deadline : UINT64_MAX, earliest);
    }
    timer_heap_finish(&heap);
}

struct order {
    int next;
    int at[3];
};

struct order_timer {
    struct order *order;
    int number;
    uint64_t deadline;
    struct loop_timer *timer;
    bool early;
};

static void note_order(void *opaque)
{
    struct order_timer *timer = opaque;
    timer->early = loop_now() < timer->deadline;
    timer->order->at[timer->order->next++] = timer->number;
}

static void test_timers_in_order(void **state)
{
    static const int delays[] = {6, 2, 4};
    struct loop *loop = loop_create();
    struct order order = {0};
    struct order_timer timers[3];
    uint64_t now = loop_now();
    for (int i = 0; i < 3; i++) {
        timers[i] = (struct order_timer){
            .order = &order, .number = i, .deadline = now + (uint64_t)delays[i] * MS};
        timers[i].timer = loop_add_timer(loop, note_order, &timers[i]);
        loop_set_timer(timers[i].timer, timers[i].deadline);
    }
    while (order.next < 3)
        loop_turn(loop, -1);
    static const int wanted[] = {1, 2, 0};
    assert_memory_equal(order.at, wanted, sizeof(wanted));
    for (int i = 0; i < 3; i++) {
        assert_false(timers[i].early);
        loop_remove_timer(timers[i].timer);
    }
    loop_remove_timer(NULL);
    loop_destroy(loop);
}

static void test_timer_moves(void **state)
{
    struct loop *loop = loop_create();
    int calls = 0;
    struct loop_timer *timer = loop_add_timer(loop, count_call, &calls);
    loop_turn(loop, 0);
    assert_int_equal(calls, 0); /* not armed when created */
    loop_set_timer(timer, 0);   /* long ago */
    loop_turn(loop, -1);
    assert_int_equal(calls, 1);
    loop_turn(loop, 2); /* one-shot */
    assert_int_equal(calls, 1);
    /* Later: wakes in vain at the old time, fires at the new one. */
    uint64_t start = loop_now();
    loop_set_timer(timer, start + 2 * MS);
    loop_turn(loop, 0);
    loop_set_timer(timer, start + 6 * MS);
    while (calls == 1)
        loop_turn(loop, -1);
    assert_true(loop_now() >= start + 6 * MS);
    /* Disarmed. */
    loop_set_timer(timer, loop_now() + MS);
    loop_turn(loop, 0);
    loop_set_timer(timer, UINT64_MAX);
    loop_turn(loop, 5);
    loop_turn(loop, 5);
    assert_int_equal(calls, 2);
    /* Armed again for the very time that the timerfd last had. */
    loop_set_timer(timer, loop_now() + MS);
    while (calls == 2)
        loop_turn(loop, -1);
    /* Removed while armed. */
    loop_set_timer(timer, loop_now() + MS);
    loop_remove_timer(timer);
    loop_turn(loop, 5);
    assert_int_equal(calls, 3);
    loop_destroy(loop);
}

struct repeating {
    struct loop_timer *timer;
    int calls;
};

static void again_at_once(void *opaque)
{
    struct repeating *repeating = opaque;
    repeating->calls++;
    loop_set_timer(repeating->timer, 1);
}

/* A timer that its callback keeps in the past runs once a turn, and starves nothing. */
static void test_timer_in_the_past(void **state)
{
    struct loop *loop = loop_create();
    struct repeating repeating = {0};
    int tasks = 0;
    repeating.timer = loop_add_timer(loop, again_at_once, &repeating);
    struct loop_task *task = loop_add_task(loop, count_call, &tasks);
    loop_set_timer(repeating.timer, 1);
    loop_schedule(task);
    loop_turn(loop, -1);
    assert_int_equal(repeating.calls, 1);
    assert_int_equal(tasks, 1);
    loop_turn(loop, -1);
    assert_int_equal(repeating.calls, 2);
    loop_remove_task(task);
    loop_remove_timer(repeating.timer);
    loop_destroy(loop);
}

struct chained {
    struct loop_task *task;
    struct loop_task *victim;
    int calls;
};

static void reschedule_and_remove(void *opaque)
{
    struct chained *chained = opaque;
    chained->calls++;
    loop_schedule(chained->task);
    loop_remove_task(chained->victim);
    chained->victim = NULL;
}

static void test_tasks(void **state)
{
    struct loop *loop = loop_create();
    int calls = 0, victims = 0;
    struct loop_task *task = loop_add_task(loop, count_call, &calls);
    loop_turn(loop, 0);
    assert_int_equal(calls, 0);
    for (int i = 0; i < 5; i++)
        loop_schedule(task);
    loop_turn(loop, -1);
    loop_turn(loop, 0);
    assert_int_equal(calls, 1);
    loop_schedule(task);
    loop_turn(loop, -1);
    assert_int_equal(calls, 2);
    /* Scheduled by itself: in the next turn. The task behind it is removed before its turn. */
    struct chained chained = {.victim = loop_add_task(loop, count_call, &victims)};
    chained.task = loop_add_task(loop, reschedule_and_remove, &chained);
    loop_schedule(chained.task);
    loop_schedule(chained.victim);
    loop_schedule(task);
    loop_turn(loop, -1);
    assert_int_equal(chained.calls, 1);
    assert_int_equal(victims, 0);
    assert_int_equal(calls, 3);
    loop_turn(loop, -1);
    assert_int_equal(chained.calls, 2);
    loop_remove_task(chained.task);
    loop_schedule(task);
    loop_remove_task(task);
    loop_remove_task(NULL);
    loop_turn(loop, 0);
    assert_int_equal(calls, 3);
    loop_destroy(loop);
}

/* From here on with a loop that runs on another thread. */

enum { PRODUCERS = 3, ROUNDS = 20000 };

struct production {
    struct loop *loop;
    struct loop_task *task;
    struct loop_timer *timer;
    _Atomic int produced;
    int seen; /* on the loop's thread */
    int runs;
    int timer_runs;
};

static void consume(void *opaque)
{
    struct production *production = opaque;
    production->seen = production->produced;
    production->runs++;
}

static void count_timer(void *opaque)
{
    struct production *production = opaque;
    production->timer_runs++;
}

static void *produce(void *opaque)
{
    struct production *production = opaque;
    for (int i = 0; i < ROUNDS; i++) {
        production->produced++;
        loop_schedule(production->task);
        if (i % 16 == 0)
            loop_set_timer(production->timer, loop_now() + (i % 3) * MS / 10);
    }
    return NULL;
}

static void nothing(void *opaque)
{
}

/* What was produced before loop_schedule is seen by a run of the task after it. */
static void test_no_wakeup_is_lost(void **state)
{
    struct runner runner;
    runner_start(&runner);
    struct production production = {.loop = runner.loop};
    production.task = loop_add_task(runner.loop, consume, &production);
    production.timer = loop_add_timer(runner.loop, count_timer, &production);
    pthread_t producers[PRODUCERS];
    for (int i = 0; i < PRODUCERS; i++)
        pthread_create(&producers[i], NULL, produce, &production);
    for (int i = 0; i < PRODUCERS; i++)
        pthread_join(producers[i], NULL);
    usleep(1000); /* the last deadline passes; the second call's turn runs it at the latest */
    loop_call(runner.loop, nothing, NULL);
    loop_call(runner.loop, nothing, NULL);
    loop_remove_task(production.task);
    loop_remove_timer(production.timer);
    runner_stop(&runner);
    assert_int_equal(production.seen, PRODUCERS * ROUNDS);
    assert_true(production.timer_runs > 0);
    loop_destroy(runner.loop);
}

struct ping {
    struct loop_timer *timer;
    pthread_mutex_t lock;
    pthread_cond_t arrived;
    int calls;
    uint64_t at;
};

static void ping_arrived(void *opaque)
{
    struct ping *ping = opaque;
    pthread_mutex_lock(&ping->lock);
    ping->calls++;
    ping->at = loop_now();
    pthread_cond_signal(&ping->arrived);
    pthread_mutex_unlock(&ping->lock);
}

/* Deadlines set from outside while the loop sleeps, also earlier than the one it sleeps for. */
static void test_timer_from_other_thread(void **state)
{
    struct runner runner;
    runner_start(&runner);
    int distant_calls = 0;
    struct loop_timer *distant = loop_add_timer(runner.loop, count_call, &distant_calls);
    struct ping ping = {.lock = PTHREAD_MUTEX_INITIALIZER, .arrived = PTHREAD_COND_INITIALIZER};
    ping.timer = loop_add_timer(runner.loop, ping_arrived, &ping);
    loop_set_timer(distant, loop_now() + 100000 * MS);
    for (int i = 0; i < 100; i++) {
        uint64_t deadline = loop_now() + (uint64_t)(i % 4) * MS / 4;
        pthread_mutex_lock(&ping.lock);
        int before = ping.calls;
        loop_set_timer(ping.timer, deadline);
        while (ping.calls == before)
            pthread_cond_wait(&ping.arrived, &ping.lock);
        assert_true(ping.at >= deadline);
        pthread_mutex_unlock(&ping.lock);
    }
    loop_remove_timer(ping.timer);
    loop_remove_timer(distant);
    runner_stop(&runner);
    assert_int_equal(distant_calls, 0);
    loop_destroy(runner.loop);
}

/* A callback that takes its time: removal from outside must wait for its end. */
struct slow {
    union {
        struct loop_task *task;
        struct loop_timer *timer;
        struct loop_fd *fd;
    };
    _Atomic int started;
    _Atomic int ended;
};

static void take_time(struct slow *slow)
{
    slow->started++;
    usleep(2000);
    slow->ended++;
}

static void slow_task(void *opaque)
{
    struct slow *slow = opaque;
    take_time(slow);
    loop_schedule(slow->task); /* also while it is being removed */
}

static void slow_timer(void *opaque)
{
    struct slow *slow = opaque;
    take_time(slow);
    loop_set_timer(slow->timer, loop_now());
}

static void slow_fd(void *opaque, uint32_t events)
{
    struct slow *slow = opaque;
    take_time(slow);
    loop_update_fd(slow->fd, EPOLLOUT);
}

static void wait_started(const struct slow *slow)
{
    while (slow->started < 2)
        usleep(100);
}

static void check_stopped(const struct slow *slow)
{
    int started = slow->started;
    assert_int_equal(started, slow->ended);
    usleep(5000);
    assert_int_equal(started, slow->started);
}

static void test_removal_waits(void **state)
{
    struct runner runner;
    runner_start(&runner);
    for (int i = 0; i < 10; i++) {
        struct slow task = {0}, timer = {0}, fd = {0};
        task.task = loop_add_task(runner.loop, slow_task, &task);
        loop_schedule(task.task);
        wait_started(&task);
        loop_remove_task(task.task);
        check_stopped(&task);

        timer.timer = loop_add_timer(runner.loop, slow_timer, &timer);
        loop_set_timer(timer.timer, 0);
        wait_started(&timer);
        loop_remove_timer(timer.timer);
        check_stopped(&timer);

        int pair[2];
        make_pair(pair);
        fd.fd = loop_add_fd(runner.loop, pair[0], 0, slow_fd, &fd, NULL);
        loop_update_fd(fd.fd, EPOLLOUT);
        wait_started(&fd);
        loop_remove_fd(fd.fd);
        check_stopped(&fd);
        close(pair[0]);
        close(pair[1]);
    }
    runner_stop(&runner);
    loop_destroy(runner.loop);
}

/* Sources come and go on one thread while the loop runs them on another. */
static void *churn(void *opaque)
{
    struct loop *loop = opaque;
    int pair[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    for (int i = 0; i < 500; i++) {
        struct fd_log log = {0};
        int calls = 0, timer_calls = 0;
        struct loop_fd *fd = loop_add_fd(loop, pair[0], EPOLLOUT, fd_ready, &log, NULL);
        struct loop_task *task = loop_add_task(loop, count_call, &calls);
        struct loop_timer *timer = loop_add_timer(loop, count_call, &timer_calls);
        loop_set_timer(timer, loop_now() + (uint64_t)(i % 5) * 20000);
        loop_schedule(task);
        if (i % 3 == 0)
            sched_yield();
        loop_remove_timer(timer);
        loop_remove_task(task);
        loop_remove_fd(fd);
    }
    close(pair[0]);
    close(pair[1]);
    return NULL;
}

static void test_churn(void **state)
{
    struct runner runner;
    runner_start(&runner);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, churn, runner.loop);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    runner_stop(&runner);
    loop_destroy(runner.loop);
}

struct call_check {
    struct loop *loop;
    int calls;
    bool on_thread;
    bool inner;
};

static void inner_call(void *opaque)
{
    ((struct call_check *)opaque)->inner = true;
}

static void checked_call(void *opaque)
{
    struct call_check *check = opaque;
    check->calls++;
    check->on_thread = loop_on_thread(check->loop);
    loop_call(check->loop, inner_call, check); /* directly */
}

static void test_call(void **state)
{
    struct runner runner;
    runner_start(&runner);
    struct call_check check = {.loop = runner.loop};
    for (int i = 1; i <= 200; i++) {
        loop_call(runner.loop, checked_call, &check);
        assert_int_equal(check.calls, i);
    }
    assert_true(check.on_thread);
    assert_true(check.inner);
    assert_false(loop_on_thread(runner.loop));
    runner_stop(&runner);
    loop_destroy(runner.loop);
}

static void test_quit_before_run(void **state)
{
    struct loop *loop = loop_create();
    assert_true(loop_on_thread(loop));
    loop_quit(loop);
    loop_run(loop); /* returns at once */
    loop_destroy(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fd_events),
        cmocka_unit_test(test_fd_refused),
        cmocka_unit_test(test_fd_removed_in_batch),
        cmocka_unit_test(test_heap),
        cmocka_unit_test(test_timers_in_order),
        cmocka_unit_test(test_timer_moves),
        cmocka_unit_test(test_timer_in_the_past),
        cmocka_unit_test(test_tasks),
        cmocka_unit_test(test_no_wakeup_is_lost),
        cmocka_unit_test(test_timer_from_other_thread),
        cmocka_unit_test(test_removal_waits),
        cmocka_unit_test(test_churn),
        cmocka_unit_test(test_call),
        cmocka_unit_test(test_quit_before_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
