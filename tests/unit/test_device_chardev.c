/* The back ends of character channels: terminals and how they are left, pipes, files, sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/base.h"
#include "device/device.h"

/* A handler of the sanitizer's own would keep ours from being installed. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "handle_segv=0:handle_abort=0:detect_leaks=1";
}

/* A front end that keeps what it gets. */

struct front {
    uint8_t bytes[65536];
    size_t count;
    size_t limit; /* room is limit - count */
    unsigned opened, closed, breaks, writable;
    char keys[16];
    size_t key_count;
};

static size_t front_room(void *opaque)
{
    struct front *front = opaque;
    return front->limit - front->count;
}

static void front_receive(void *opaque, const uint8_t *bytes, size_t size)
{
    struct front *front = opaque;
    assert_true(size <= front->limit - front->count);
    memcpy(front->bytes + front->count, bytes, size);
    front->count += size;
}

static void front_writable(void *opaque)
{
    ((struct front *)opaque)->writable++;
}

static void front_event(void *opaque, enum chardev_event event)
{
    struct front *front = opaque;
    front->opened += event == CHARDEV_OPENED;
    front->closed += event == CHARDEV_CLOSED;
    front->breaks += event == CHARDEV_BREAK;
}

static void front_escape(void *opaque, char key)
{
    struct front *front = opaque;
    front->keys[front->key_count++ % sizeof(front->keys)] = key;
}

static const struct chardev_client client = {
    .room = front_room,
    .receive = front_receive,
    .writable = front_writable,
    .event = front_event,
};

static struct front front;
static struct loop *loop;
static struct chardev *chardev;
static char directory[64];

static struct chardev *open_channel(const char *specification)
{
    struct error err = {0};
    struct chardev_owner owner = {.escape = front_escape, .opaque = &front};
    memset(&front, 0, sizeof(front));
    front.limit = sizeof(front.bytes);
    loop = loop_create();
    chardev = chardev_create(loop, specification, &owner, &err);
    if (!chardev) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    chardev_attach(chardev, &client, &front);
    return chardev;
}

static void close_channel(void)
{
    chardev_destroy(chardev);
    loop_destroy(loop);
}

static int setup(void **state)
{
    strcpy(directory, "/tmp/hartvisor-test-XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

static int teardown(void **state)
{
    return rmdir(directory); /* nothing may be left in it */
}

static const char *in_directory(const char *prefix, const char *name)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s%s/%s", prefix, directory, name);
    return path;
}

/* Specifications. */

static void expect_error(const char *specification, const char *message)
{
    struct error err = {0};
    struct loop *other = loop_create();
    assert_null(chardev_create(other, specification, NULL, &err));
    if (!strstr(err.message, message))
        fail_msg("%s: unexpected message: %s", specification, err.message);
    loop_destroy(other);
}

static void refuses_specifications(void **state)
{
    expect_error("tty", "use stdio, pty, unix:PATH, file:PATH or none");
    expect_error("", "is no serial back end");
    expect_error("unix", "write unix:PATH");
    expect_error("file:", "write file:PATH");
    expect_error("stdio:x", "takes no path");
    expect_error("file:/nonexistent/log", "/nonexistent/log");
    expect_error("file:/tmp", "cannot write");
    char path[256] = "unix:/tmp/";
    memset(path + strlen(path), 'n', 120);
    expect_error(path, "longer than 107");
    expect_error("unix:/nonexistent/socket", "No such file");
}

static void none_discards(void **state)
{
    open_channel("none");
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(chardev_write(chardev, front.bytes, sizeof(front.bytes)),
                         sizeof(front.bytes));
    loop_turn(loop, 0);
    close_channel();
}

static void file_keeps_output(void **state)
{
    enum { SIZE = 300000 };
    char *text = xmalloc(SIZE), *found = xcalloc(1, SIZE + 1);
    for (size_t i = 0; i < SIZE; i++)
        text[i] = (char)('a' + i % 23);

    open_channel(in_directory("file:", "log"));
    for (size_t sent = 0; sent < SIZE;) {
        size_t count = chardev_write(chardev, text + sent, SIZE - sent);
        sent += count;
        if (!count)
            loop_turn(loop, 0);
    }
    assert_true(front.writable > 0);
    close_channel(); /* writes the rest */
    int fd = open(in_directory("", "log"), O_RDONLY);
    assert_int_equal(read(fd, found, SIZE + 1), SIZE);
    assert_memory_equal(found, text, SIZE);
    close(fd);
    unlink(in_directory("", "log"));
    free(text);
    free(found);
}

/* Unix sockets. */

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return connect(fd, (struct sockaddr *)&address, sizeof(address)) ? -1 : fd;
}

static void unix_serves_peers(void **state)
{
    char text[8] = {0};

    open_channel(in_directory("unix:", "s"));
    chardev_write(chardev, "lost", 4);
    int first = connect_to(chardev_path(chardev)), second = connect_to(chardev_path(chardev));
    assert_true(first >= 0 && second >= 0);
    while (!front.opened)
        loop_turn(loop, 100);
    chardev_write(chardev, "one", 3);
    assert_int_equal(write(first, "abc", 3), 3);
    while (front.count < 3)
        loop_turn(loop, 100);
    assert_int_equal(read(first, text, sizeof(text)), 3);
    assert_string_equal(text, "one");

    close(first); /* the next in the queue is served */
    while (front.opened < 2)
        loop_turn(loop, 100);
    assert_int_equal(front.closed, 1);
    chardev_write(chardev, "two", 3);
    loop_turn(loop, 0);
    assert_int_equal(read(second, text, sizeof(text)), 3);
    assert_string_equal(text, "two");
    close(second);
    close_channel();
    assert_int_equal(access(in_directory("", "s"), F_OK), -1);
}

static void unix_respects_what_is_there(void **state)
{
    open_channel(in_directory("unix:", "s"));
    struct loop *first_loop = loop;
    struct chardev *first = chardev;
    expect_error(in_directory("unix:", "s"), "another process listens there");

    /* A socket that nobody listens on is replaced, and only the own one is removed. */
    unlink(in_directory("", "s"));
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, in_directory("", "s"));
    int stale = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(stale, (struct sockaddr *)&address, sizeof(address)), 0);
    close(stale);
    open_channel(in_directory("unix:", "s"));
    chardev_destroy(first);
    loop_destroy(first_loop);
    int peer = connect_to(in_directory("", "s"));
    assert_true(peer >= 0);
    close(peer);
    close_channel();

    int fd = open(in_directory("", "s"), O_CREAT | O_WRONLY, 0600);
    close(fd);
    expect_error(in_directory("unix:", "s"), "is no socket");
    assert_int_equal(unlink(in_directory("", "s")), 0);
}

/* Input is read only as far as the front end has room: the rest waits at the sender. */
static void input_waits_for_room(void **state)
{
    static uint8_t bytes[40000];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i % 241);

    open_channel(in_directory("unix:", "s"));
    front.limit = 0;
    int peer = connect_to(chardev_path(chardev));
    assert_int_equal(write(peer, bytes, sizeof(bytes)), sizeof(bytes));
    for (unsigned i = 0; i < 10; i++)
        loop_turn(loop, 1);
    int unread;
    assert_int_equal(ioctl(peer, SIOCOUTQ, &unread), 0);
    assert_true(unread > 0);
    while (front.count < sizeof(bytes)) {
        front.limit = front.count + 17 < sizeof(bytes) ? front.count + 17 : sizeof(bytes);
        chardev_accept_input(chardev);
        loop_turn(loop, 0);
    }
    assert_memory_equal(front.bytes, bytes, sizeof(bytes));
    close(peer);
    close_channel();
}

static char diverted[16];

static void divert(void *opaque, const uint8_t *bytes, size_t size)
{
    strncat(diverted, (const char *)bytes, size);
}

static void prompt_takes_input(void **state)
{
    open_channel(in_directory("unix:", "s"));
    front.limit = 0; /* the guest does not listen */
    int peer = connect_to(chardev_path(chardev));
    while (!front.opened)
        loop_turn(loop, 100);
    chardev_divert(chardev, divert, NULL);
    assert_int_equal(write(peer, "quit", 4), 4);
    while (strlen(diverted) < 4)
        loop_turn(loop, 100);
    assert_string_equal(diverted, "quit");
    front.limit = 8;
    chardev_divert(chardev, NULL, NULL);
    assert_int_equal(write(peer, "x", 1), 1);
    while (front.count < 1)
        loop_turn(loop, 100);
    close(peer);
    close_channel();
}

/* pty. */

static void pty_connects_again(void **state)
{
    char text[8] = {0};

    open_channel("pty");
    assert_false(chardev_connected(chardev));
    for (unsigned round = 1; round <= 2; round++) {
        int fd = open(chardev_path(chardev), O_RDWR | O_NOCTTY);
        assert_true(fd >= 0);
        while (front.opened < round)
            loop_turn(loop, 200);
        chardev_write(chardev, "a\n", 2);
        loop_turn(loop, 0);
        assert_int_equal(read(fd, text, sizeof(text)), 2); /* raw: no carriage return */
        assert_memory_equal(text, "a\n", 2);
        assert_int_equal(write(fd, "\x03", 1), 1); /* and no signal */
        while (front.count < round)
            loop_turn(loop, 200);
        assert_int_equal(front.bytes[round - 1], 3);
        close(fd);
        while (front.closed < round)
            loop_turn(loop, 200);
        assert_int_equal(chardev_write(chardev, text, 8), 8);
    }
    close_channel();
}

/* stdio: a process of its own, on a terminal or on pipes. */

struct child {
    pid_t leader, pid; /* the session's leader, and the process under test */
    int master, slave; /* or the pipe's ends */
    pid_t *shared;
};

/* What the process under test does: echoes in capitals, and obeys keys. */
static void echo_loop(void)
{
    int *volatile nowhere = (int *)8;

    signal(SIGSEGV, SIG_DFL); /* cmocka has handlers */
    alarm(30);
    open_channel("stdio");
    chardev_write(chardev, "ready\n", 6);
    while (!front.key_count || front.keys[0] != 'x') {
        loop_turn(loop, 100);
        for (size_t i = 0; i < front.count; i++) {
            uint8_t byte = front.bytes[i];
            if (byte >= 'a' && byte <= 'z')
                byte -= 'a' - 'A';
            chardev_write(chardev, &byte, 1);
        }
        if (front.breaks)
            chardev_write(chardev, "<break>", 7);
        front.count = front.breaks = 0;
        if (front.key_count && front.keys[0] == 's')
            *nowhere = 0;
        if (front.key_count && front.keys[0] == 'a')
            abort();
        if (front.key_count && front.keys[0] == 'e')
            exit(3);
    }
    close_channel();
}

/* A job on a terminal needs a session, in which its process group is not orphaned. */
static void terminal_session(struct child *child)
{
    setsid();
    ioctl(child->slave, TIOCSCTTY, 0);
    pid_t job = fork();
    if (!job) {
        setpgid(0, 0);
        signal(SIGTTOU, SIG_IGN);
        tcsetpgrp(child->slave, getpid());
        signal(SIGTTOU, SIG_DFL);
        struct rlimit none = {0};
        setrlimit(RLIMIT_CORE, &none);
        dup2(child->slave, 0);
        dup2(child->slave, 1);
        echo_loop();
        _exit(0);
    }
    *child->shared = job;
    int status;
    signal(SIGHUP, SIG_IGN);
    waitpid(job, &status, 0);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static void expect_output(int fd, const char *text)
{
    char found[4096] = {0};
    size_t count = 0;

    while (!strstr(found, text)) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (poll(&ready, 1, 20000) <= 0)
            fail_msg("'%s' did not come; got '%s'", text, found);
        ssize_t size = read(fd, found + count, sizeof(found) - 1 - count);
        if (size <= 0)
            fail_msg("'%s' did not come; got '%s' and the end", text, found);
        count += (size_t)size;
    }
}

static struct child terminal_start(void)
{
    struct child child = {.master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)};
    char path[64];

    assert_int_equal(grantpt(child.master) | unlockpt(child.master), 0);
    assert_int_equal(ptsname_r(child.master, path, sizeof(path)), 0);
    child.slave = open(path, O_RDWR | O_NOCTTY);
    child.shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    child.leader = fork();
    if (!child.leader)
        terminal_session(&child);
    expect_output(child.master, "ready");
    child.pid = *child.shared;
    return child;
}

static bool is_raw(const struct child *child)
{
    struct termios mode;
    assert_int_equal(tcgetattr(child->slave, &mode), 0);
    return !(mode.c_lflag & (ICANON | ECHO | ISIG));
}

static void wait_raw(const struct child *child, bool raw)
{
    for (unsigned i = 0; i < 2000 && is_raw(child) != raw; i++)
        usleep(10000);
    assert_int_equal(is_raw(child), raw);
}

static void type(const struct child *child, const char *text)
{
    assert_int_equal(write(child->master, text, strlen(text)), strlen(text));
}

/* Returns the status that the session's leader passes on. */
static int terminal_end(struct child *child)
{
    int status;
    assert_int_equal(waitpid(child->leader, &status, 0), child->leader);
    assert_false(is_raw(child));
    close(child->slave);
    close(child->master);
    munmap(child->shared, 4096);
    return WEXITSTATUS(status);
}

static void terminal_is_raw_and_left(void **state)
{
    struct child child = terminal_start();

    assert_true(is_raw(&child));
    assert_false(fcntl(child.slave, F_GETFL) & O_NONBLOCK); /* shared with the process's stdio */
    type(&child, "hello\r");
    expect_output(child.master, "HELLO\r");
    type(&child, "\x03\x1a\x04.");
    expect_output(child.master, "\x03\x1a\x04.");
    type(&child, "\x01\x01.");
    expect_output(child.master, "\x01.");
    type(&child, "\x01"
                 "b");
    expect_output(child.master, "<break>");
    type(&child, "\x01x");
    assert_int_equal(terminal_end(&child), 0);
}

static void terminal_is_left_by_exit(void **state)
{
    struct child child = terminal_start();
    type(&child, "\x01"
                 "e");
    assert_int_equal(terminal_end(&child), 3);
}

static void terminal_is_left_by_crash(void **state)
{
    struct child child = terminal_start();
    type(&child, "\x01s");
    assert_int_equal(terminal_end(&child), 128 + SIGSEGV);
    child = terminal_start();
    type(&child, "\x01"
                 "a");
    assert_int_equal(terminal_end(&child), 128 + SIGABRT);
}

static void terminal_is_left_by_signal(void **state)
{
    static const int numbers[] = {SIGTERM, SIGHUP, SIGINT, SIGQUIT};
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        struct child child = terminal_start();
        assert_true(is_raw(&child));
        kill(child.pid, numbers[i]);
        assert_int_equal(terminal_end(&child), 128 + numbers[i]);
    }
}

static void terminal_stops_and_goes_on(void **state)
{
    struct child child = terminal_start();
    for (unsigned i = 0; i < 2; i++) {
        kill(child.pid, SIGTSTP);
        wait_raw(&child, false);
        kill(child.pid, SIGCONT);
        wait_raw(&child, true);
        type(&child, "go");
        expect_output(child.master, "GO");
    }
    type(&child, "\x01x");
    assert_int_equal(terminal_end(&child), 0);
}

/* Starts the process under test on `input`; returns the reading end of its output. */
static int start_on(int input, pid_t *pid)
{
    int output[2];
    assert_int_equal(pipe2(output, O_CLOEXEC), 0);
    *pid = fork();
    if (!*pid) {
        dup2(input, 0);
        dup2(output[1], 1);
        echo_loop();
        _exit(0);
    }
    close(output[1]);
    return output[0];
}

static void finish(pid_t pid, int output)
{
    int status;
    kill(pid, SIGTERM);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    close(output);
}

static void pipes_work(void **state)
{
    int input[2];
    pid_t pid;
    assert_int_equal(pipe2(input, O_CLOEXEC), 0);
    int output = start_on(input[0], &pid);
    assert_int_equal(write(input[1], "some\x01x", 6), 6); /* no keys in a pipe */
    expect_output(output, "SOME\x01X");
    assert_false(fcntl(input[0], F_GETFL) & O_NONBLOCK);
    assert_int_equal(write(input[1], "last", 4), 4);
    close(input[1]); /* the end of the input ends nothing else */
    expect_output(output, "LAST");
    assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    finish(pid, output);
    close(input[0]);
}

static void files_and_null_work(void **state)
{
    pid_t pid;
    int fd = open(in_directory("", "in"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    unlink(in_directory("", "in"));
    assert_int_equal(write(fd, "text of a file", 14), 14);
    lseek(fd, 0, SEEK_SET);
    int output = start_on(fd, &pid);
    expect_output(output, "TEXT OF A FILE");
    finish(pid, output);
    close(fd);

    fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    output = start_on(fd, &pid);
    expect_output(output, "ready");
    finish(pid, output);
    close(fd);
}

/* A reader that goes away (| head) does not end the process. */
static void reader_goes_away(void **state)
{
    int input[2];
    pid_t pid;
    assert_int_equal(pipe2(input, O_CLOEXEC), 0);
    int output = start_on(input[0], &pid);
    expect_output(output, "ready");
    close(output);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(write(input[1], "x", 1), 1);
        usleep(5000);
    }
    assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    finish(pid, -1);
    close(input[0]);
    close(input[1]);
}

static void stdio_is_one(void **state)
{
    pid_t pid = fork();
    if (!pid) {
        struct error err = {0};
        int fd = open("/dev/null", O_RDWR);
        dup2(fd, 0);
        dup2(fd, 1);
        open_channel("stdio");
        bool refused =
            !chardev_create(loop, "stdio", NULL, &err) && strstr(err.message, "already used");
        close_channel();
        open_channel("stdio");
        close_channel();
        _exit(refused ? 0 : 1);
    }
    int status;
    waitpid(pid, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(refuses_specifications),
        TEST(none_discards),
        TEST(file_keeps_output),
        TEST(unix_serves_peers),
        TEST(unix_respects_what_is_there),
        TEST(input_waits_for_room),
        TEST(prompt_takes_input),
        TEST(pty_connects_again),
        TEST(terminal_is_raw_and_left),
        TEST(terminal_is_left_by_exit),
        TEST(terminal_is_left_by_crash),
        TEST(terminal_is_left_by_signal),
        TEST(terminal_stops_and_goes_on),
        TEST(pipes_work),
        TEST(files_and_null_work),
        TEST(reader_goes_away),
        TEST(stdio_is_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
