/*
 * The event loop: file descriptors, timers and deferred calls on one thread (epoll).
 *
 * Every callback runs on the loop's thread, one at a time. All functions here may be called from
 * any thread unless they say otherwise. A callback may remove any source, itself included; after
 * loop_remove_* returns *on the loop's thread*, the callback will not run again. From another
 * thread the removal also waits for a callback of that source that is running.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct loop;
struct loop_fd;
struct loop_timer;
struct loop_task;

struct loop *loop_create(void);
void loop_destroy(struct loop *loop); /* every source must have been removed */

/* Runs callbacks until loop_quit is called. The calling thread becomes the loop's thread. */
void loop_run(struct loop *loop);
void loop_quit(struct loop *loop);

/* One turn: waits at most timeout_ms (-1: no limit), runs what is ready. For tests and embedders.
 */
void loop_turn(struct loop *loop, int timeout_ms);

/* True on the thread that runs the loop (and, before it runs, on the thread that created it). */
bool loop_on_thread(const struct loop *loop);

/*
 * Watches fd (which the caller keeps owning) for the EPOLLIN / EPOLLOUT bits in `events`.
 * Regular files cannot be watched: they are always ready (returns NULL with err set).
 */
typedef void loop_fd_callback(void *opaque, uint32_t events);
struct loop_fd *loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_callback *callback,
                            void *opaque, struct error *err);
void loop_update_fd(struct loop_fd *source, uint32_t events);
void loop_remove_fd(struct loop_fd *source); /* accepts NULL */

/* Monotonic host time in nanoseconds: what deadlines are measured in. */
uint64_t loop_now(void);

/* A one-shot timer, not armed when created. Deadlines are absolute; UINT64_MAX disarms. */
typedef void loop_callback(void *opaque);
struct loop_timer *loop_add_timer(struct loop *loop, loop_callback *callback, void *opaque);
void loop_set_timer(struct loop_timer *timer, uint64_t deadline_ns);
void loop_remove_timer(struct loop_timer *timer); /* accepts NULL */

/*
 * A task runs once on the loop's thread for any number of loop_schedule calls since it last began
 * to run: how a hart's register write becomes work on the loop. loop_schedule never blocks.
 */
struct loop_task *loop_add_task(struct loop *loop, loop_callback *callback, void *opaque);
void loop_schedule(struct loop_task *task);
void loop_remove_task(struct loop_task *task); /* accepts NULL */

/* Runs callback on the loop's thread and waits for it (directly if already there). */
void loop_call(struct loop *loop, loop_callback *callback, void *opaque);
