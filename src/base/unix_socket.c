#include "base/unix_socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"

#define BACKLOG 16

const char *unix_path(const char *specification, struct error *err)
{
    static const char prefix[] = "unix:";
    if (strncmp(specification, prefix, strlen(prefix)) != 0 || !specification[strlen(prefix)]) {
        error_set(err, "'%s' is not a socket: write unix:PATH", specification);
        return NULL;
    }
    return specification + strlen(prefix);
}

static bool address_set(struct sockaddr_un *address, const char *path, struct error *err)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (!*path || strlen(path) >= sizeof(address->sun_path))
        return error_set(err, "unix:%s: a socket's path has 1 to %zu characters, this one %zu",
                         path, sizeof(address->sun_path) - 1, strlen(path));
    strcpy(address->sun_path, path);
    return true;
}

static bool try_connect(int fd, const struct sockaddr_un *address)
{
    return connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0;
}

static bool try_bind(int fd, const struct sockaddr_un *address)
{
    return bind(fd, (const struct sockaddr *)address, sizeof(*address)) == 0;
}

/* A socket that refuses connections is what an earlier run left behind. */
static bool remove_stale(const struct sockaddr_un *address, struct error *err)
{
    const char *path = address->sun_path;
    struct stat status;
    if (lstat(path, &status))
        return errno == ENOENT;
    if (!S_ISSOCK(status.st_mode))
        return error_set(err, "unix:%s: the path exists and is no socket: choose another", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool refused = fd >= 0 && !try_connect(fd, address) && errno == ECONNREFUSED;
    if (fd >= 0)
        close(fd);
    if (!refused)
        return error_set(err,
                         "unix:%s: another process listens there: end it or choose another "
                         "path",
                         path);
    if (unlink(path))
        return error_set_errno(err, errno, "unix:%s: cannot remove the stale socket", path);
    return true;
}

static bool bind_and_listen(int fd, const struct sockaddr_un *address, struct error *err)
{
    /* Linux gives the file the mode of the socket's inode: at no moment may others connect. */
    if (fchmod(fd, 0600))
        return error_set_errno(err, errno, "unix:%s: cannot set the mode", address->sun_path);
    if (!try_bind(fd, address)) {
        if (errno == EADDRINUSE && !remove_stale(address, err))
            return false;
        if (!try_bind(fd, address))
            return error_set_errno(err, errno, "unix:%s: cannot create the socket",
                                   address->sun_path);
    }
    if (listen(fd, BACKLOG)) {
        int number = errno;
        unlink(address->sun_path);
        return error_set_errno(err, number, "unix:%s: cannot listen", address->sun_path);
    }
    return true;
}

bool unix_listener_init(struct unix_listener *listener, const char *path, struct error *err)
{
    struct sockaddr_un address;
    if (!address_set(&address, path, err))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_set_errno(err, errno, "unix:%s: cannot create a socket", path);
    if (!bind_and_listen(fd, &address, err)) {
        close(fd);
        return false;
    }
    struct stat status = {0};
    lstat(path, &status);
    *listener = (struct unix_listener){
        .fd = fd,
        .path = xstrdup(path),
        .device = status.st_dev,
        .inode = status.st_ino,
    };
    return true;
}

void unix_listener_finish(struct unix_listener *listener)
{
    struct stat status;
    if (!lstat(listener->path, &status) && status.st_dev == listener->device &&
        status.st_ino == listener->inode)
        unlink(listener->path);
    close(listener->fd);
    free(listener->path);
}

int unix_connect(const char *path, struct error *err)
{
    struct sockaddr_un address;
    if (!address_set(&address, path, err))
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && try_connect(fd, &address))
        return fd;
    error_set_errno(err, errno, "cannot connect to unix:%s", path);
    if (fd >= 0)
        close(fd);
    return -1;
}
