/* unix:PATH: listens on a socket and serves one peer after the other. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "device/serial_backend.h"

struct unix_listener {
    int fd;
    struct loop_fd *watch;
    dev_t device; /* the socket's file, so that only this one is removed at the end */
    ino_t inode;
};

/* While a peer is connected others wait in the queue of the socket. */
static void unix_accept(void *opaque, uint32_t events)
{
    struct chardev *chardev = opaque;
    struct unix_listener *listener = chardev->extra;
    int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0)
        return;
    int output = fcntl(fd, F_DUPFD_CLOEXEC, 0); /* epoll watches a descriptor only once */
    if (output < 0) {
        close(fd);
        return;
    }
    loop_update_fd(listener->watch, 0);
    chardev_port_open(chardev, &chardev->in, fd, false);
    chardev_port_open(chardev, &chardev->out, output, false);
    chardev_start(chardev, true);
}

static void unix_hung_up(struct chardev *chardev)
{
    struct unix_listener *listener = chardev->extra;

    loop_update_fd(listener->watch, EPOLLIN);
}

/* A socket that nobody listens on any more is what an earlier run left behind. */
static bool unix_remove_stale(const struct sockaddr_un *address, struct error *err)
{
    struct stat status;

    if (lstat(address->sun_path, &status))
        return errno == ENOENT;
    if (!S_ISSOCK(status.st_mode))
        return error_set(err, "unix:%s: the path exists and is no socket; choose another path",
                         address->sun_path);

    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool refused =
        connect(fd, (const struct sockaddr *)address, sizeof(*address)) && errno == ECONNREFUSED;
    close(fd);
    if (!refused)
        return error_set(err,
                         "unix:%s: another process listens there; stop it or choose another path",
                         address->sun_path);
    if (unlink(address->sun_path))
        return error_set_errno(err, errno, "unix:%s: cannot remove the stale socket",
                               address->sun_path);
    return true;
}

static bool unix_listen(int fd, const struct sockaddr_un *address, struct error *err)
{
    const struct sockaddr *generic = (const struct sockaddr *)address;

    if (bind(fd, generic, sizeof(*address))) {
        if (errno == EADDRINUSE && !unix_remove_stale(address, err))
            return false;
        if (bind(fd, generic, sizeof(*address)))
            return error_set_errno(err, errno, "unix:%s: cannot create the socket",
                                   address->sun_path);
    }
    if (listen(fd, 4))
        return error_set_errno(err, errno, "unix:%s: cannot listen", address->sun_path);
    return true;
}

static bool unix_open(struct chardev *chardev, const char *path, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;

    if (strlen(path) >= sizeof(address.sun_path))
        return error_set(err, "unix:%s: the path is longer than %zu characters", path,
                         sizeof(address.sun_path) - 1);
    strcpy(address.sun_path, path);

    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_set_errno(err, errno, "unix:%s: cannot create a socket", path);
    if (!unix_listen(fd, &address, err)) {
        close(fd);
        return false;
    }
    struct loop_fd *watch = loop_add_fd(chardev->loop, fd, EPOLLIN, unix_accept, chardev, err);
    if (!watch) {
        close(fd);
        unlink(path);
        return error_prefix(err, "unix:%s", path);
    }
    struct unix_listener *listener = xcalloc(1, sizeof(*listener));
    listener->fd = fd;
    listener->watch = watch;
    if (!lstat(path, &status)) {
        listener->device = status.st_dev;
        listener->inode = status.st_ino;
    }
    chardev->extra = listener;
    chardev->path = xstrdup(path);
    return true;
}

static void unix_close(struct chardev *chardev)
{
    struct unix_listener *listener = chardev->extra;
    struct stat status;

    loop_remove_fd(listener->watch);
    close(listener->fd);
    if (!lstat(chardev->path, &status) && status.st_dev == listener->device &&
        status.st_ino == listener->inode)
        unlink(chardev->path);
    free(listener);
}

const struct chardev_backend chardev_unix = {
    .name = "unix",
    .takes_path = true,
    .open = unix_open,
    .hung_up = unix_hung_up,
    .close = unix_close,
};
