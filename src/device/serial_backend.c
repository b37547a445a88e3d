/* Character channels: buffers and flow control between a front end and a back end's ports. */
#include "device/serial_backend.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"

static const struct chardev_backend *const backends[] = {
    &chardev_stdio, &chardev_pty, &chardev_unix, &chardev_file, &chardev_none,
};

/* Ports. */

static void input_ready(void *opaque, uint32_t events);
static void output_ready(void *opaque, uint32_t events);

void chardev_port_open(struct chardev *chardev, struct chardev_port *port, int fd, bool blocking)
{
    struct stat status;

    *port = (struct chardev_port){.fd = fd, .blocking = blocking};
    if (fd < 0)
        return;
    port->socket = !fstat(fd, &status) && S_ISSOCK(status.st_mode);
    port->watch = loop_add_fd(chardev->loop, fd, 0,
                              port == &chardev->in ? input_ready : output_ready, chardev, NULL);
}

static void port_watch(struct chardev_port *port, uint32_t events)
{
    if (port->watch && port->watched != events) {
        loop_update_fd(port->watch, events);
        port->watched = events;
    }
}

static void port_close(struct chardev_port *port)
{
    loop_remove_fd(port->watch);
    if (port->fd >= 0)
        close(port->fd);
    *port = (struct chardev_port){.fd = -1};
}

static ssize_t port_read(struct chardev_port *port, void *bytes, size_t size)
{
    ssize_t count;

    do {
        count =
            port->socket ? recv(port->fd, bytes, size, MSG_DONTWAIT) : read(port->fd, bytes, size);
    } while (count < 0 && errno == EINTR);
    return count;
}

/* A description that may block takes at least this much once poll says that it is writable (a
 * terminal's line discipline promises 256 bytes, a pipe 4096). */
#define BLOCKING_CHUNK 256

static ssize_t port_write(struct chardev_port *port, const void *bytes, size_t size)
{
    ssize_t count;

    if (port->blocking && port->watch && !port->socket) {
        struct pollfd ready = {.fd = port->fd, .events = POLLOUT};
        if (poll(&ready, 1, 0) == 0) {
            errno = EAGAIN;
            return -1;
        }
        if (size > BLOCKING_CHUNK)
            size = BLOCKING_CHUNK;
    }
    do {
        count = port->socket ? send(port->fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL)
                             : write(port->fd, bytes, size);
    } while (count < 0 && errno == EINTR);
    return count;
}

/* Front end. */

void chardev_send_event(struct chardev *chardev, enum chardev_event event)
{
    if (chardev->client && chardev->client->event)
        chardev->client->event(chardev->client_opaque, event);
}

void chardev_attach(struct chardev *chardev, const struct chardev_client *client, void *opaque)
{
    chardev->client = client;
    chardev->client_opaque = opaque;
    loop_schedule(chardev->input_task);
}

void chardev_divert(struct chardev *chardev,
                    void (*receive)(void *opaque, const uint8_t *bytes, size_t size), void *opaque)
{
    chardev->divert = receive;
    chardev->divert_opaque = opaque;
    loop_schedule(chardev->input_task);
}

static size_t client_room(const struct chardev *chardev)
{
    if (chardev->divert)
        return SIZE_MAX;
    if (!chardev->client || !chardev->client->receive)
        return 0;
    return chardev->client->room ? chardev->client->room(chardev->client_opaque) : SIZE_MAX;
}

/* Output. */

static void output_discard(struct chardev *chardev)
{
    pthread_mutex_lock(&chardev->lock);
    chardev->output_count = chardev->output_start = 0;
    bool starved = chardev->starved;
    chardev->starved = false;
    pthread_mutex_unlock(&chardev->lock);
    if (starved && chardev->client && chardev->client->writable)
        chardev->client->writable(chardev->client_opaque);
}

/* The peer is gone. Where it cannot come back, input may go on without output. */
static void chardev_hang_up(struct chardev *chardev)
{
    chardev->connected = false;
    port_close(&chardev->out);
    output_discard(chardev);
    chardev_send_event(chardev, CHARDEV_CLOSED);
    if (chardev->backend->hung_up) {
        port_close(&chardev->in);
        chardev->backend->hung_up(chardev);
    }
}

/* Only producers run beside this, and they append behind the bytes that are written here. */
static ssize_t output_write_some(struct chardev *chardev, size_t *left)
{
    pthread_mutex_lock(&chardev->lock);
    size_t start = chardev->output_start, size = chardev->output_count;
    pthread_mutex_unlock(&chardev->lock);
    if (size > CHARDEV_HARD_LIMIT - start)
        size = CHARDEV_HARD_LIMIT - start;
    if (!size) {
        *left = 0;
        return 0;
    }
    ssize_t count = port_write(&chardev->out, chardev->output + start, size);

    pthread_mutex_lock(&chardev->lock);
    if (count > 0) {
        chardev->output_count -= count;
        chardev->output_start = (start + count) % CHARDEV_HARD_LIMIT;
        if (!chardev->output_count)
            chardev->output_start = 0; /* keeps touching the same few pages */
    }
    *left = chardev->output_count;
    pthread_mutex_unlock(&chardev->lock);
    return count;
}

static void output_wake_client(struct chardev *chardev)
{
    pthread_mutex_lock(&chardev->lock);
    bool wake = chardev->starved && chardev->output_count <= CHARDEV_SOFT_LIMIT / 2;
    if (wake)
        chardev->starved = false;
    pthread_mutex_unlock(&chardev->lock);
    if (wake && chardev->client && chardev->client->writable)
        chardev->client->writable(chardev->client_opaque);
}

/* One write a turn of the loop, so that others get theirs. */
static void output_run(void *opaque)
{
    struct chardev *chardev = opaque;
    size_t left;

    if (chardev->out.fd < 0) {
        output_discard(chardev);
        return;
    }
    ssize_t count = output_write_some(chardev, &left);
    if (count < 0 && errno != EAGAIN) {
        if (!chardev->backend->hung_up)
            log_warning("%s: the serial output can no longer be written and is lost: %s",
                        chardev->path ? chardev->path : chardev->backend->name, strerror(errno));
        chardev_hang_up(chardev);
        return;
    }
    port_watch(&chardev->out, left ? EPOLLOUT : 0);
    if (left && !chardev->out.watch)
        loop_schedule(chardev->output_task);
    output_wake_client(chardev);
}

static void output_ready(void *opaque, uint32_t events)
{
    output_run(opaque);
}

static size_t output_append(struct chardev *chardev, const void *bytes, size_t size, size_t limit,
                            bool wait)
{
    if (!chardev->connected)
        return size;
    pthread_mutex_lock(&chardev->lock);
    size_t room = chardev->output_count < limit ? limit - chardev->output_count : 0;
    size_t taken = size < room ? size : room;
    size_t end = (chardev->output_start + chardev->output_count) % CHARDEV_HARD_LIMIT;
    size_t first = taken < CHARDEV_HARD_LIMIT - end ? taken : CHARDEV_HARD_LIMIT - end;

    memcpy(chardev->output + end, bytes, first);
    memcpy(chardev->output, (const uint8_t *)bytes + first, taken - first);
    bool idle = !chardev->output_count && taken;
    chardev->output_count += taken;
    if (wait && taken < size)
        chardev->starved = true;
    pthread_mutex_unlock(&chardev->lock);
    if (idle) /* else a write is under way or waits for the port */
        loop_schedule(chardev->output_task);
    return taken;
}

size_t chardev_write(struct chardev *chardev, const void *bytes, size_t size)
{
    return output_append(chardev, bytes, size, CHARDEV_SOFT_LIMIT, true);
}

size_t chardev_force(struct chardev *chardev, const void *bytes, size_t size)
{
    return output_append(chardev, bytes, size, CHARDEV_HARD_LIMIT, false);
}

void chardev_flush(struct chardev *chardev, int timeout_ms)
{
    uint64_t end = loop_now() + (uint64_t)timeout_ms * 1000000;
    size_t left = 0;

    while (chardev->out.fd >= 0) {
        ssize_t count = output_write_some(chardev, &left);
        uint64_t now = loop_now();
        if (!left || (count < 0 && errno != EAGAIN) || now >= end)
            break;
        struct pollfd ready = {.fd = chardev->out.fd, .events = POLLOUT};
        poll(&ready, 1, (int)((end - now) / 1000000));
    }
    output_wake_client(chardev);
}

/* Input. */

static void input_deliver(struct chardev *chardev)
{
    while (chardev->input_count) {
        size_t size = client_room(chardev);
        if (size > chardev->input_count)
            size = chardev->input_count;
        if (!size)
            return;
        const uint8_t *bytes = chardev->input + chardev->input_start;
        chardev->input_start += size;
        chardev->input_count -= size;
        if (chardev->divert)
            chardev->divert(chardev->divert_opaque, bytes, size);
        else
            chardev->client->receive(chardev->client_opaque, bytes, size);
    }
}

static bool input_wanted(struct chardev *chardev)
{
    if (chardev->in.fd < 0 || (chardev->backend->may_read && !chardev->backend->may_read(chardev)))
        return false;
    if (chardev->backend->read_ahead)
        return chardev->input_count < CHARDEV_INPUT_SIZE;
    return !chardev->input_count && client_room(chardev);
}

/* Hands over what is buffered, and reads on only if more is wanted. */
static void input_run(void *opaque)
{
    struct chardev *chardev = opaque;

    input_deliver(chardev);
    bool wanted = input_wanted(chardev);
    port_watch(&chardev->in, wanted ? EPOLLIN : 0);
    if (wanted && !chardev->in.watch)
        input_ready(chardev, EPOLLIN);
}

static void input_ready(void *opaque, uint32_t events)
{
    struct chardev *chardev = opaque;
    struct chardev_port *port = &chardev->in;

    memmove(chardev->input, chardev->input + chardev->input_start, chardev->input_count);
    chardev->input_start = 0;
    uint8_t *free_space = chardev->input + chardev->input_count;
    ssize_t count = port_read(port, free_space, CHARDEV_INPUT_SIZE - chardev->input_count);
    if (count < 0 && errno == EAGAIN)
        return;
    if (count <= 0) {
        /* Without a way back (a pipe's end, Ctrl-D) only the input is over. */
        if (chardev->backend->hung_up)
            chardev_hang_up(chardev);
        else
            port_close(port);
        return;
    }
    if (chardev->backend->filter)
        count = (ssize_t)chardev->backend->filter(chardev, free_space, (size_t)count);
    chardev->input_count += count;
    if (port->fd >= 0 && !port->watch)
        loop_schedule(chardev->input_task);
    else
        input_run(chardev);
}

void chardev_accept_input(struct chardev *chardev)
{
    loop_schedule(chardev->input_task);
}

/* Life. */

void chardev_start(struct chardev *chardev, bool announce)
{
    chardev->connected = true;
    if (announce)
        chardev_send_event(chardev, CHARDEV_OPENED);
    loop_schedule(chardev->input_task);
}

static const struct chardev_backend *backend_find(const char *specification, const char **path,
                                                  struct error *err)
{
    size_t length = strcspn(specification, ":");

    for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
        const struct chardev_backend *backend = backends[i];
        if (strlen(backend->name) != length || memcmp(backend->name, specification, length) != 0)
            continue;
        *path = specification[length] ? specification + length + 1 : "";
        if (backend->takes_path && !**path)
            error_set(err, "%s: the path is missing; write %s:PATH", specification, backend->name);
        else if (!backend->takes_path && specification[length])
            error_set(err, "%s: %s takes no path; write %s", specification, backend->name,
                      backend->name);
        else
            return backend;
        return NULL;
    }
    error_set(err, "'%s' is no serial back end; use stdio, pty, unix:PATH, file:PATH or none",
              specification);
    return NULL;
}

static void chardev_free(struct chardev *chardev)
{
    port_close(&chardev->in);
    port_close(&chardev->out);
    loop_remove_task(chardev->input_task);
    loop_remove_task(chardev->output_task);
    pthread_mutex_destroy(&chardev->lock);
    free(chardev->output);
    free(chardev->path);
    free(chardev);
}

struct chardev *chardev_create(struct loop *loop, const char *specification,
                               const struct chardev_owner *owner, struct error *err)
{
    const char *path;
    const struct chardev_backend *backend = backend_find(specification, &path, err);
    if (!backend)
        return NULL;

    struct chardev *chardev = xcalloc(1, sizeof(*chardev));
    chardev->backend = backend;
    chardev->loop = loop;
    if (owner)
        chardev->owner = *owner;
    chardev->in.fd = chardev->out.fd = -1;
    chardev->output = xmalloc(CHARDEV_HARD_LIMIT);
    chardev->input_task = loop_add_task(loop, input_run, chardev);
    chardev->output_task = loop_add_task(loop, output_run, chardev);
    pthread_mutex_init(&chardev->lock, NULL);
    signal(SIGPIPE, SIG_IGN); /* a reader of a pipe that goes away must not end the machine */
    if (!backend->open(chardev, path, err)) {
        chardev_free(chardev);
        return NULL;
    }
    return chardev;
}

void chardev_destroy(struct chardev *chardev)
{
    if (!chardev)
        return;
    chardev->client = NULL;
    chardev_flush(chardev, 500);
    if (chardev->backend->close)
        chardev->backend->close(chardev);
    chardev_free(chardev);
}

bool chardev_connected(const struct chardev *chardev)
{
    return chardev->connected;
}

const char *chardev_path(const struct chardev *chardev)
{
    return chardev->path;
}

bool chardev_window_size(const struct chardev *chardev, uint16_t *columns, uint16_t *rows)
{
    struct winsize size;

    if (chardev->out.fd < 0 || ioctl(chardev->out.fd, TIOCGWINSZ, &size) || !size.ws_col)
        return false;
    *columns = size.ws_col;
    *rows = size.ws_row;
    return true;
}
