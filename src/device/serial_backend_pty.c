/* pty: a pseudo-terminal that a terminal program opens by its path. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "device/serial_backend.h"

/* The kernel does not tell when somebody opens the other side, so it is asked this often. */
#define PTY_POLL_NS UINT64_C(100000000)

struct pty {
    int master; /* kept open while nobody is at the other side; the ports are copies */
    struct loop_timer *timer;
};

static void pty_poll(void *opaque)
{
    struct chardev *chardev = opaque;
    struct pty *pty = chardev->extra;
    struct pollfd state = {.fd = pty->master};

    if (poll(&state, 1, 0) < 0 || state.revents & POLLHUP) {
        loop_set_timer(pty->timer, loop_now() + PTY_POLL_NS);
        return;
    }
    chardev_port_open(chardev, &chardev->in, fcntl(pty->master, F_DUPFD_CLOEXEC, 0), false);
    chardev_port_open(chardev, &chardev->out, fcntl(pty->master, F_DUPFD_CLOEXEC, 0), false);
    chardev_start(chardev, true);
}

static void pty_hung_up(struct chardev *chardev)
{
    struct pty *pty = chardev->extra;

    loop_set_timer(pty->timer, loop_now() + PTY_POLL_NS);
}

/* Raw from the start: what the guest sends first must not be echoed back as its input. Opening and
 * closing the other side also makes the master report that nobody is there. */
static bool pty_prepare(int master, const char *path)
{
    struct termios mode;
    int slave = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);

    if (slave < 0)
        return false;
    bool done = !tcgetattr(slave, &mode);
    cfmakeraw(&mode);
    done = done && !tcsetattr(slave, TCSANOW, &mode);
    close(slave);
    return done && !fcntl(master, F_SETFL, O_RDWR | O_NONBLOCK);
}

static bool pty_open(struct chardev *chardev, const char *unused, struct error *err)
{
    char path[128];
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);

    if (master < 0)
        return error_set_errno(err, errno, "pty: cannot create a pseudo-terminal");
    if (grantpt(master) || unlockpt(master) || ptsname_r(master, path, sizeof(path)) ||
        !pty_prepare(master, path)) {
        error_set_errno(err, errno, "pty: cannot prepare the pseudo-terminal");
        close(master);
        return false;
    }
    struct pty *pty = xcalloc(1, sizeof(*pty));
    pty->master = master;
    pty->timer = loop_add_timer(chardev->loop, pty_poll, chardev);
    chardev->extra = pty;
    chardev->path = xstrdup(path);
    loop_set_timer(pty->timer, loop_now());
    log_info("pty: connect a terminal program to %s", path);
    return true;
}

static void pty_close(struct chardev *chardev)
{
    struct pty *pty = chardev->extra;

    loop_remove_timer(pty->timer);
    close(pty->master);
    free(pty);
}

const struct chardev_backend chardev_pty = {
    .name = "pty",
    .open = pty_open,
    .hung_up = pty_hung_up,
    .close = pty_close,
};
