/*
 * Character channels: what a serial port or a console port is connected to on the host.
 *
 * A channel has one front end (the device) and one back end, chosen by a specification as in
 * `--serial`: stdio, pty, unix:PATH, file:PATH, none. Output is buffered and written by the loop,
 * so that a slow reader never blocks a hart; input is read only while the front end has room.
 *
 * Threads: chardev_write, chardev_force and chardev_accept_input may be called on any thread, also
 * with the device's lock held; they never call back. All callbacks run on the loop's thread with no
 * lock of the channel held, so they may take the device's lock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"

struct chardev;

enum chardev_event {
    CHARDEV_OPENED,  /* somebody is at the other end now */
    CHARDEV_CLOSED,  /* nobody is; output is discarded until CHARDEV_OPENED */
    CHARDEV_BREAK,   /* the line was held at 0: a serial break (Ctrl-A b) */
    CHARDEV_RESIZED, /* chardev_window_size has changed */
};

/* The device's side. Every callback may be NULL. */
struct chardev_client {
    /* Bytes that `receive` could take now. */
    size_t (*room)(void *opaque);
    /* At most as many bytes as `room` returned; all are taken. */
    void (*receive)(void *opaque, const uint8_t *bytes, size_t size);
    /* After chardev_write took less than it was offered: there is space again. */
    void (*writable)(void *opaque);
    void (*event)(void *opaque, enum chardev_event event);
};

/* The side of whoever created the channel: the keys behind Ctrl-A on a terminal. */
struct chardev_owner {
    /* A key after Ctrl-A, other than Ctrl-A itself (sent to the guest) and b (a break). Must not
     * destroy the channel. */
    void (*escape)(void *opaque, char key);
    void *opaque;
};

/*
 * Opens the back end that `specification` names. `owner` (may be NULL) is copied. Errors name the
 * specification and the remedy. With stdio on a terminal, the terminal is raw from here until
 * chardev_destroy, exit or a fatal signal, whichever comes first; only one channel can be stdio.
 */
struct chardev *chardev_create(struct loop *loop, const char *specification,
                               const struct chardev_owner *owner, struct error *err);

/* Writes out what is buffered, for at most half a second, and closes it. Accepts NULL. On the
 * loop's thread, or while the loop is not running. */
void chardev_destroy(struct chardev *chardev);

/* Sets the front end (NULL: none). `client` must stay valid. On the loop's thread, or while the
 * loop is not running. */
void chardev_attach(struct chardev *chardev, const struct chardev_client *client, void *opaque);

/* Takes as many bytes as fit below the buffer's soft limit (64 KiB) and returns how many. Where
 * that is less than `size`, the front end's `writable` is called later. */
size_t chardev_write(struct chardev *chardev, const void *bytes, size_t size);

/* As chardev_write for a guest that ignores flow control: up to the hard limit (1 MiB), without
 * a call of `writable`. */
size_t chardev_force(struct chardev *chardev, const void *bytes, size_t size);

/* The front end has room again. */
void chardev_accept_input(struct chardev *chardev);

/* True while somebody is at the other end (always, for stdio, file and none). Any thread. */
bool chardev_connected(const struct chardev *chardev);

/* Waits until all output was written, at most timeout_ms. On the loop's thread, or while the loop
 * is not running. */
void chardev_flush(struct chardev *chardev, int timeout_ms);

/*
 * Sends all input to `receive` instead of the front end, until called with NULL: how a prompt takes
 * over the terminal. It may write to the channel meanwhile. On the loop's thread.
 */
void chardev_divert(struct chardev *chardev,
                    void (*receive)(void *opaque, const uint8_t *bytes, size_t size), void *opaque);

/* What a user has to open to talk to the guest (the pty's path, the socket's path), or NULL. */
const char *chardev_path(const struct chardev *chardev);

/* Columns and rows of the terminal; false where the channel is none. */
bool chardev_window_size(const struct chardev *chardev, uint16_t *columns, uint16_t *rows);

/* Puts a raw terminal back as it was. Async-signal-safe: for handlers of fatal signals. Does
 * nothing when no terminal is raw. */
void chardev_restore_terminal(void);
