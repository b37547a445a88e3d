/* Back ends without anybody at the other end: a file, and nothing. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "device/serial_backend.h"

/* Non-blocking for the sake of FIFOs and terminals; regular files ignore it. */
static bool file_open(struct chardev *chardev, const char *path, struct error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);

    if (fd < 0) {
        if (errno == ENXIO)
            return error_set(err, "file:%s: nobody reads this FIFO; start its reader first", path);
        return error_set_errno(err, errno, "file:%s: cannot write the file", path);
    }
    chardev->path = xstrdup(path);
    chardev_port_open(chardev, &chardev->out, fd, false);
    chardev_start(chardev, false);
    return true;
}

const struct chardev_backend chardev_file = {
    .name = "file",
    .takes_path = true,
    .open = file_open,
};

static bool none_open(struct chardev *chardev, const char *path, struct error *err)
{
    return true;
}

const struct chardev_backend chardev_none = {
    .name = "none",
    .open = none_open,
};
