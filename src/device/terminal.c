/* Raw mode of the process's terminal, and all the ways of leaving it. */
#include "device/terminal.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <termios.h>
#include <unistd.h>

#include "base/bits.h"
#include "device/chardev.h"

/* Written before handlers are installed; handlers only read it. */
static struct {
    int fd;
    int event_fd;
    struct termios saved, raw;
} terminal = {.fd = -1, .event_fd = -1};

static _Atomic bool is_raw;
static bool exit_hook;

static void on_fatal(int number);
static void on_stop(int number);
static void on_continue(int number);
static void on_resize(int number);

/* Handlers replace default actions only: whoever handles one of these already is responsible for
 * leaving in order. on_fatal and on_stop run once, with the default action behind them. */
static const struct terminal_signal {
    int number;
    void (*handler)(int);
    int flags;
} signals[] = {
    {SIGHUP, on_fatal, SA_RESETHAND | SA_NODEFER},
    {SIGINT, on_fatal, SA_RESETHAND | SA_NODEFER},
    {SIGQUIT, on_fatal, SA_RESETHAND | SA_NODEFER},
    {SIGILL, on_fatal, SA_RESETHAND | SA_NODEFER},
    {SIGTRAP, on_fatal, SA_RESETHAND | SA_NODEFER},
    {SIGABRT, on_fatal, SA_RESETHAND | SA_NODEFER},
    {SIGBUS, on_fatal, SA_RESETHAND | SA_NODEFER},
    {SIGFPE, on_fatal, SA_RESETHAND | SA_NODEFER},
    {SIGSEGV, on_fatal, SA_RESETHAND | SA_NODEFER},
    {SIGALRM, on_fatal, SA_RESETHAND | SA_NODEFER},
    {SIGTERM, on_fatal, SA_RESETHAND | SA_NODEFER},
    {SIGXCPU, on_fatal, SA_RESETHAND | SA_NODEFER},
    {SIGXFSZ, on_fatal, SA_RESETHAND | SA_NODEFER},
    {SIGSYS, on_fatal, SA_RESETHAND | SA_NODEFER},
    {SIGTSTP, on_stop, SA_RESETHAND | SA_NODEFER},
    {SIGCONT, on_continue, SA_RESTART},
    {SIGWINCH, on_resize, SA_RESTART},
};

static struct sigaction previous[ARRAY_SIZE(signals)];
static bool installed[ARRAY_SIZE(signals)];

static void signal_install(size_t i)
{
    struct sigaction action = {.sa_handler = signals[i].handler,
                               .sa_flags = signals[i].flags | SA_ONSTACK};

    sigemptyset(&action.sa_mask);
    sigaction(signals[i].number, &action, NULL);
}

/* A terminal that does not control this process (ENOTTY) knows no background. */
bool terminal_in_foreground(void)
{
    pid_t group = tcgetpgrp(terminal.fd);

    return group < 0 || group == getpgrp();
}

/* From the background, changing the mode would stop the process and disturb the shell. */
static void set_raw(void)
{
    if (terminal_in_foreground() && !tcsetattr(terminal.fd, TCSANOW, &terminal.raw))
        is_raw = true;
}

void chardev_restore_terminal(void)
{
    if (!atomic_exchange(&is_raw, false))
        return;
    int saved_errno = errno;
    if (terminal_in_foreground())
        tcsetattr(terminal.fd, TCSANOW, &terminal.saved);
    errno = saved_errno;
}

static void on_fatal(int number)
{
    chardev_restore_terminal();
    raise(number);
}

static void on_stop(int number)
{
    chardev_restore_terminal();
    raise(number); /* stops here, and goes on after SIGCONT's handler */
}

static void notify(void)
{
    uint64_t one = 1;
    ssize_t written = write(terminal.event_fd, &one, sizeof(one));
    (void)written; /* a full counter is readable as well */
}

static void on_continue(int number)
{
    int saved_errno = errno;

    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        if (signals[i].handler == on_stop && installed[i])
            signal_install(i);
    }
    set_raw();
    notify();
    errno = saved_errno;
}

static void on_resize(int number)
{
    int saved_errno = errno;
    notify();
    errno = saved_errno;
}

int terminal_event_fd(void)
{
    return terminal.event_fd;
}

/*
 * Everything the keyboard sends goes to the guest as it is. Output processing stays on: programs
 * on bare metal (and our own messages) end lines with "\n" alone, and for "\r\n" it changes nothing
 * that one would see.
 */
static struct termios raw_mode(const struct termios *saved)
{
    struct termios raw = *saved;

    raw.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    return raw;
}

bool terminal_begin(int fd, struct error *err)
{
    if (terminal.fd >= 0)
        return error_set(err, "stdio: the terminal is already in use by another console");
    if (tcgetattr(fd, &terminal.saved))
        return error_set_errno(err, errno, "stdio: cannot read the terminal's mode");
    int event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (event_fd < 0)
        return error_set_errno(err, errno, "stdio: cannot create an event");

    terminal.fd = fd;
    terminal.event_fd = event_fd;
    terminal.raw = raw_mode(&terminal.saved);
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        sigaction(signals[i].number, NULL, &previous[i]);
        installed[i] = previous[i].sa_handler == SIG_DFL && !(previous[i].sa_flags & SA_SIGINFO);
        if (installed[i])
            signal_install(i);
    }
    if (!exit_hook)
        atexit(chardev_restore_terminal);
    exit_hook = true;
    set_raw();
    return true;
}

void terminal_end(void)
{
    if (terminal.fd < 0)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        struct sigaction now;
        sigaction(signals[i].number, NULL, &now);
        if (installed[i] && now.sa_handler == signals[i].handler)
            sigaction(signals[i].number, &previous[i], NULL);
        installed[i] = false;
    }
    chardev_restore_terminal();
    close(terminal.event_fd);
    terminal.fd = terminal.event_fd = -1;
}
