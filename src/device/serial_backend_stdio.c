/* stdio: the terminal that the command was started on, or the pipes and files in its place. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device/serial_backend.h"
#include "device/terminal.h"

#define ESCAPE_KEY 0x01 /* Ctrl-A */

/* One a process, like the descriptors it stands for. The loop's thread only. */
static struct stdio_state {
    bool in_use;
    bool terminal;
    bool escaped; /* the last key was Ctrl-A */
    struct loop_fd *events;
} state;

/*
 * A descriptor of our own for what `fd` is open on. Non-blocking mode belongs to the open file
 * description, which the shell and others share, so terminals and pipes are opened anew. Where that
 * is refused (a terminal of another user), the shared one is used as it is, with care.
 */
static int descriptor_own(int fd, bool *blocking)
{
    char path[32];
    struct stat status;
    int flags = fcntl(fd, F_GETFL);

    *blocking = false;
    if (flags < 0 || fstat(fd, &status))
        return -1;
    if (S_ISCHR(status.st_mode) || S_ISFIFO(status.st_mode)) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        int own = open(path, (flags & O_ACCMODE) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (own >= 0)
            return own;
        *blocking = true;
    }
    return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static void stdio_terminal_event(void *opaque, uint32_t events)
{
    struct chardev *chardev = opaque;
    uint64_t count;

    if (read(terminal_event_fd(), &count, sizeof(count)) < 0)
        return;
    chardev_accept_input(chardev); /* perhaps in the foreground again */
    chardev_send_event(chardev, CHARDEV_RESIZED);
}

static bool stdio_open(struct chardev *chardev, const char *unused, struct error *err)
{
    bool blocking;

    if (state.in_use)
        return error_set(err, "stdio is already used by another console; choose pty or unix:PATH");
    state = (struct stdio_state){.terminal = isatty(STDIN_FILENO)};
    if (state.terminal) {
        if (!terminal_begin(STDIN_FILENO, err))
            return false;
        state.events = loop_add_fd(chardev->loop, terminal_event_fd(), EPOLLIN,
                                   stdio_terminal_event, chardev, err);
        if (!state.events) {
            terminal_end();
            return error_prefix(err, "stdio");
        }
    }
    state.in_use = true;
    int fd = descriptor_own(STDIN_FILENO, &blocking);
    chardev_port_open(chardev, &chardev->in, fd, blocking);
    fd = descriptor_own(STDOUT_FILENO, &blocking);
    chardev_port_open(chardev, &chardev->out, fd, blocking);
    chardev_start(chardev, false);
    return true;
}

static void stdio_close(struct chardev *chardev)
{
    loop_remove_fd(state.events);
    if (state.terminal)
        terminal_end();
    state = (struct stdio_state){0};
}

static bool stdio_may_read(struct chardev *chardev)
{
    return !state.terminal || terminal_in_foreground();
}

/* Returns true if the key is for the guest. */
static bool key_passes(struct chardev *chardev, uint8_t key)
{
    if (!state.escaped) {
        state.escaped = key == ESCAPE_KEY;
        return !state.escaped;
    }
    state.escaped = false;
    if (key == ESCAPE_KEY)
        return true;
    if (key == 'b')
        chardev_send_event(chardev, CHARDEV_BREAK);
    else if (chardev->owner.escape)
        chardev->owner.escape(chardev->owner.opaque, (char)key);
    return false;
}

/* Only a terminal has keys; what comes through a pipe is data. */
static size_t stdio_filter(struct chardev *chardev, uint8_t *bytes, size_t size)
{
    size_t kept = 0;

    if (!state.terminal)
        return size;
    for (size_t i = 0; i < size; i++) {
        if (key_passes(chardev, bytes[i]))
            bytes[kept++] = bytes[i];
    }
    return kept;
}

const struct chardev_backend chardev_stdio = {
    .name = "stdio",
    .read_ahead = true,
    .may_read = stdio_may_read,
    .open = stdio_open,
    .filter = stdio_filter,
    .close = stdio_close,
};
