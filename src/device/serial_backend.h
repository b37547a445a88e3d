/*
 * What the back ends of character channels share (private to device/).
 *
 * The core moves bytes between the buffers and up to two ports, one a direction; a back end only
 * decides which file descriptors these are, and what happens when the peer goes away.
 */
#pragma once

#include <pthread.h>
#include <sys/types.h>

#include "device/chardev.h"

enum {
    CHARDEV_SOFT_LIMIT = 64 * 1024,
    CHARDEV_HARD_LIMIT = 1024 * 1024,
    CHARDEV_INPUT_SIZE = 4096,
};

/* A direction's file descriptor. Used on the loop's thread only. */
struct chardev_port {
    int fd;                /* owned; -1: none */
    struct loop_fd *watch; /* NULL if epoll cannot watch it: always ready (files, /dev/null) */
    bool socket;
    bool blocking;    /* the description is shared with others, so it could not be changed */
    uint32_t watched; /* events */
};

struct chardev_backend {
    const char *name;
    bool takes_path; /* "name:PATH", else just "name" */
    /* Terminals: read as long as the buffer has room, not only when the front end has, so that
     * the escape keys work while the guest does not listen. */
    bool read_ahead;
    /* NULL or: whether the port may be read. Asked again when the input task runs. */
    bool (*may_read)(struct chardev *chardev);
    bool (*open)(struct chardev *chardev, const char *path, struct error *err);
    /* The peer is gone; the ports are closed already. NULL: for good. */
    void (*hung_up)(struct chardev *chardev);
    /* Input that was read: takes out what is not for the guest, in place; returns what is left. */
    size_t (*filter)(struct chardev *chardev, uint8_t *bytes, size_t size);
    void (*close)(struct chardev *chardev);
};

struct chardev {
    const struct chardev_backend *backend;
    struct loop *loop;
    struct chardev_owner owner;
    char *path;  /* for chardev_path, or NULL */
    void *extra; /* the back end's own */

    /* The loop's thread only. */
    const struct chardev_client *client;
    void *client_opaque;
    void (*divert)(void *opaque, const uint8_t *bytes, size_t size);
    void *divert_opaque;
    struct chardev_port in, out;
    uint8_t input[CHARDEV_INPUT_SIZE];
    size_t input_start, input_count;
    struct loop_task *input_task, *output_task;

    pthread_mutex_t lock; /* guards the output buffer, a ring */
    uint8_t *output;
    size_t output_start, output_count;
    bool starved; /* chardev_write took less than it was offered */

    _Atomic bool connected;
};

extern const struct chardev_backend chardev_stdio, chardev_pty, chardev_unix, chardev_file,
    chardev_none;

/* Takes over fd (or -1) as the port of a direction. `blocking` as in the port. */
void chardev_port_open(struct chardev *chardev, struct chardev_port *port, int fd, bool blocking);

/* Both ports are ready or one is missing for good: starts moving bytes. With `announce`, tells the
 * front end that it is connected. */
void chardev_start(struct chardev *chardev, bool announce);

void chardev_send_event(struct chardev *chardev, enum chardev_event event);
