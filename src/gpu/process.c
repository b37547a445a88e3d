/*
 * A renderer in a process of its own, at the other end of a socket. Two threads: one writes
 * requests, so that no caller ever waits; one reads answers, watches the time, and tells of the
 * end. What comes from the process is not to be trusted.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpu/gpu.h"

#define WATCHDOG_MS    20000
#define END_MS         500 /* what a renderer gets to end by itself */
#define CHILD_SOCKET   3
#define PROGRAM        "hartvisor-gpu"
#define NS_IN_MS       UINT64_C(1000000)
#define ANSWER_TOO_BIG (sizeof(struct gpu_answer) + GPU_PAYLOAD_MAX)

/* A request. Whoever is done with it last, the writer or the reader, frees it. */
struct flight {
    struct flight *next;
    struct gpu_request request;
    uint64_t submitted; /* loop_now */
    int fd;
    bool sent, answered; /* under the lock */
    _Alignas(8) uint8_t payload[];
};

struct process_renderer {
    struct gpu_renderer base;
    pid_t pid;
    int socket;
    int wake; /* eventfd: there is a first request, or it ends */
    uint64_t watchdog_ns;
    pthread_t reader, writer;

    pthread_mutex_t lock; /* guards the following */
    pthread_cond_t unsent_added;
    struct flight *first, **last; /* without an answer, the oldest first */
    struct flight *unsent;
    uint64_t answered_at; /* when the last answer came */
    bool lost, ending;
};

static struct process_renderer *process_of(struct gpu_renderer *renderer)
{
    return container_of(renderer, struct process_renderer, base);
}

static void free_flight(struct flight *flight)
{
    if (flight->fd >= 0)
        close(flight->fd);
    free(flight);
}

static void wake_reader(struct process_renderer *self)
{
    uint64_t one = 1;
    if (write(self->wake, &one, sizeof(one)) < 0)
        log_warning("gpu: the renderer's reader cannot be woken");
}

/* --- Writing -----------------------------------------------------------------------------------
 */

static bool send_bytes(int socket, const void *data, size_t size, int fd)
{
    for (size_t done = 0; done < size;) {
        union {
            struct cmsghdr align;
            char bytes[CMSG_SPACE(sizeof(int))];
        } control = {0};
        struct iovec piece = {(char *)data + done, size - done};
        struct msghdr header = {.msg_iov = &piece, .msg_iovlen = 1};
        if (fd >= 0 && !done) {
            header.msg_control = &control;
            header.msg_controllen = sizeof(control);
            *CMSG_FIRSTHDR(&header) = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)),
                                                       .cmsg_level = SOL_SOCKET,
                                                       .cmsg_type = SCM_RIGHTS};
            memcpy(CMSG_DATA(CMSG_FIRSTHDR(&header)), &fd, sizeof(int));
        }
        ssize_t count = sendmsg(socket, &header, MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return false;
        done += (size_t)count;
    }
    return true;
}

/* The next one to be sent, after a wait; NULL at the end. */
static struct flight *next_unsent(struct process_renderer *self)
{
    struct flight *flight = NULL;
    pthread_mutex_lock(&self->lock);
    while (!self->ending && !self->lost && !self->unsent)
        pthread_cond_wait(&self->unsent_added, &self->lock);
    if (!self->ending && !self->lost) {
        flight = self->unsent;
        self->unsent = flight->next;
    }
    pthread_mutex_unlock(&self->lock);
    return flight;
}

static void *run_writer(void *opaque)
{
    struct process_renderer *self = opaque;
    pthread_setname_np(pthread_self(), "gpu-write");
    for (struct flight *flight; (flight = next_unsent(self));) {
        size_t payload_size = flight->request.size - sizeof(flight->request);
        /* A failure is seen by the reader, as the end of the socket. */
        if (send_bytes(self->socket, &flight->request, sizeof(flight->request), flight->fd))
            send_bytes(self->socket, flight->payload, payload_size, -1);
        pthread_mutex_lock(&self->lock);
        flight->sent = true;
        bool done = flight->answered;
        pthread_mutex_unlock(&self->lock);
        if (done)
            free_flight(flight);
    }
    return NULL;
}

/* --- Reading -----------------------------------------------------------------------------------
 */

/* Takes the oldest request off the list, if there is one; it stays valid until `release`. */
static struct flight *take_first(struct process_renderer *self)
{
    pthread_mutex_lock(&self->lock);
    struct flight *flight = self->first;
    if (flight) {
        self->first = flight->next;
        if (!self->first)
            self->last = &self->first;
        if (self->unsent == flight) /* nobody will send it any more */
            self->unsent = flight->next;
        self->answered_at = loop_now();
    }
    pthread_mutex_unlock(&self->lock);
    return flight;
}

static void release(struct process_renderer *self, struct flight *flight, bool never_sent)
{
    pthread_mutex_lock(&self->lock);
    flight->answered = true;
    bool done = flight->sent || never_sent;
    pthread_mutex_unlock(&self->lock);
    if (done)
        free_flight(flight);
}

/* When the renderer is taken to hang, in milliseconds from now; -1 while nothing is asked. */
static int patience(struct process_renderer *self)
{
    pthread_mutex_lock(&self->lock);
    uint64_t since = self->first ? self->first->submitted : 0;
    if (since && since < self->answered_at)
        since = self->answered_at;
    pthread_mutex_unlock(&self->lock);
    if (!since)
        return -1;
    uint64_t now = loop_now(), end = since + self->watchdog_ns;
    return now >= end ? 0 : (int)((end - now) / NS_IN_MS) + 1;
}

static bool is_ending(struct process_renderer *self)
{
    pthread_mutex_lock(&self->lock);
    bool ending = self->ending;
    pthread_mutex_unlock(&self->lock);
    return ending;
}

static void clear_wake(struct process_renderer *self)
{
    uint64_t count;
    if (read(self->wake, &count, sizeof(count)) < 0 && errno != EAGAIN)
        log_warning("gpu: the renderer's reader cannot wait");
}

/* Waits for bytes; false with why set when there will be none. */
static bool wait_for_bytes(struct process_renderer *self, char *why, size_t size)
{
    for (;;) {
        struct pollfd fds[] = {{self->socket, POLLIN, 0}, {self->wake, POLLIN, 0}};
        int ready = poll(fds, 2, patience(self));
        if (ready < 0 && errno != EINTR)
            ready = 0;
        if (fds[1].revents)
            clear_wake(self);
        if (is_ending(self))
            return false;
        if (fds[0].revents)
            return true;
        if (!ready && !patience(self)) {
            snprintf(why, size, "it did not answer for %g s", (double)self->watchdog_ns / 1e9);
            return false;
        }
    }
}

static bool receive_bytes(struct process_renderer *self, void *buffer, size_t size, char *why,
                          size_t why_size)
{
    for (size_t done = 0; done < size;) {
        if (!wait_for_bytes(self, why, why_size))
            return false;
        ssize_t count = recv(self->socket, (char *)buffer + done, size - done, MSG_DONTWAIT);
        if (count < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (count <= 0)
            return false;
        done += (size_t)count;
    }
    return true;
}

/* An answer to the oldest request. */
static bool fits(struct process_renderer *self, const struct gpu_answer *answer)
{
    pthread_mutex_lock(&self->lock);
    const struct flight *first = self->first;
    bool expected = first && first != self->unsent && answer->serial == first->request.serial &&
                    answer->type == first->request.type;
    pthread_mutex_unlock(&self->lock);
    return expected && answer->size >= sizeof(*answer) && answer->size <= ANSWER_TOO_BIG;
}

static bool receive_answer(struct process_renderer *self, char *why, size_t why_size)
{
    struct gpu_answer answer;
    if (!receive_bytes(self, &answer, sizeof(answer), why, why_size))
        return false;
    if (!fits(self, &answer)) {
        snprintf(why, why_size, "it answered what nobody had asked");
        return false;
    }
    gpu_text_tame(answer.message, sizeof(answer.message));
    if (answer.status > GPU_FAILED)
        answer.status = GPU_FAILED;
    size_t size = answer.size - sizeof(answer);
    void *payload = size ? xmalloc(size) : NULL;
    bool ok = receive_bytes(self, payload, size, why, why_size);
    if (ok) {
        struct flight *flight = take_first(self);
        gpu_renderer_answer(&self->base, &answer, payload);
        release(self, flight, false);
    }
    free(payload);
    return ok;
}

/* Whether it ended by itself within that time, and was reaped: its number may be another's now. */
static bool wait_end(pid_t pid, unsigned ms, int *status)
{
    const struct timespec moment = {.tv_nsec = (long)NS_IN_MS};
    for (unsigned i = 0; i < ms; i++) {
        if (waitpid(pid, status, WNOHANG) != 0)
            return true;
        nanosleep(&moment, NULL);
    }
    return false;
}

static void kill_process(pid_t pid)
{
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

/* Ends the process, and says how it ended if `why` is still empty. */
static void bury(struct process_renderer *self, char *why, size_t size)
{
    int status = 0;
    /* At the end of its socket it ends by itself; its status is worth a little patience. */
    bool ended = !*why && wait_end(self->pid, END_MS, &status);
    if (!ended)
        kill_process(self->pid);
    self->pid = -1;
    if (*why)
        return;
    if (!ended)
        snprintf(why, size, "it closed its socket");
    else if (WIFSIGNALED(status))
        snprintf(why, size, "it was ended by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(why, size, "it ended with status %d", WEXITSTATUS(status));
}

/* Answers everything for a renderer that is gone. */
static void answer_lost(struct process_renderer *self)
{
    for (struct flight *flight; (flight = take_first(self));) {
        struct gpu_answer answer = {.type = flight->request.type,
                                    .size = sizeof(answer),
                                    .serial = flight->request.serial,
                                    .status = GPU_LOST,
                                    .message = "the renderer was lost"};
        gpu_renderer_answer(&self->base, &answer, NULL);
        release(self, flight, true);
    }
}

/* False if nobody listens yet. */
static bool tell_lost(struct process_renderer *self, const char *why)
{
    pthread_mutex_lock(&self->base.lock);
    struct gpu_listener listener = self->base.listener;
    pthread_mutex_unlock(&self->base.lock);
    if (listener.lost)
        listener.lost(listener.opaque, why);
    return listener.lost != NULL;
}

/* After the loss: until something is submitted; false at the end. */
static bool wait_for_more(struct process_renderer *self)
{
    if (!is_ending(self)) {
        poll(&(struct pollfd){self->wake, POLLIN, 0}, 1, -1);
        clear_wake(self);
    }
    return !is_ending(self);
}

static void *run_reader(void *opaque)
{
    struct process_renderer *self = opaque;
    char why[160] = "";
    pthread_setname_np(pthread_self(), "gpu-read");
    while (receive_answer(self, why, sizeof(why)))
        ;
    if (is_ending(self))
        return NULL;
    bury(self, why, sizeof(why));
    pthread_mutex_lock(&self->lock);
    self->lost = true;
    pthread_cond_signal(&self->unsent_added);
    pthread_mutex_unlock(&self->lock);
    shutdown(self->socket, SHUT_RDWR);
    pthread_join(self->writer, NULL);
    answer_lost(self);
    bool told = tell_lost(self, why);
    while (wait_for_more(self)) {
        answer_lost(self);
        /* Who began to listen after the loss hears of it after the first answer. */
        told = told || tell_lost(self, why);
    }
    return NULL;
}

/* --- The renderer ------------------------------------------------------------------------------
 */

static void process_submit(struct gpu_renderer *renderer, const struct gpu_request *request,
                           const void *payload, int fd)
{
    struct process_renderer *self = process_of(renderer);
    size_t payload_size = request->size - sizeof(*request);
    struct flight *flight = xmalloc(sizeof(*flight) + payload_size);
    *flight = (struct flight){.request = *request, .submitted = loop_now(), .fd = fd};
    if (payload_size)
        memcpy(flight->payload, payload, payload_size);
    pthread_mutex_lock(&self->lock);
    bool first = !self->first;
    *self->last = flight;
    self->last = &flight->next;
    if (!self->unsent)
        self->unsent = flight;
    pthread_cond_signal(&self->unsent_added);
    pthread_mutex_unlock(&self->lock);
    if (first)
        wake_reader(self);
}

static bool process_add_memory(struct gpu_renderer *renderer, const struct memory_ram *ram,
                               struct error *err)
{
    char path[64];
    if (ram->fd < 0)
        return error_set(err, "guest RAM is this process's alone: it must be shared for a renderer "
                              "in another (memory_share_ram)");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", ram->fd);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set_errno(err, errno, "guest RAM cannot be opened for the renderer to read");
    struct gpu_request request = {.type = GPU_REQUEST_MEMORY,
                                  .memory = {ram->base, ram->size, ram->fd_offset}};
    gpu_renderer_submit(renderer, &request, NULL, 0, fd);
    close(fd);
    return true;
}

static void finish(struct process_renderer *self)
{
    close(self->socket);
    close(self->wake);
    pthread_cond_destroy(&self->unsent_added);
    pthread_mutex_destroy(&self->lock);
    gpu_renderer_finish(&self->base);
    free(self);
}

static void process_destroy(struct gpu_renderer *renderer)
{
    struct process_renderer *self = process_of(renderer);
    pthread_mutex_lock(&self->lock);
    self->ending = true;
    pthread_cond_signal(&self->unsent_added);
    pthread_mutex_unlock(&self->lock);
    shutdown(self->socket, SHUT_RDWR);
    wake_reader(self);
    pthread_join(self->reader, NULL);
    if (!self->lost) /* else the reader has waited for it */
        pthread_join(self->writer, NULL);
    int status;
    if (self->pid > 0 && !wait_end(self->pid, END_MS, &status))
        kill_process(self->pid);
    for (struct flight *flight; (flight = take_first(self));)
        free_flight(flight);
    finish(self);
}

static const struct gpu_renderer_ops process_ops = {
    .name = "wgpu",
    .submit = process_submit,
    .add_memory = process_add_memory,
    .destroy = process_destroy,
};

/* --- Starting ----------------------------------------------------------------------------------
 */

/* The caller frees it. */
static char *beside_this_program(void)
{
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
    if (length < 0)
        return xstrdup(PROGRAM);
    path[length] = '\0';
    char *slash = strrchr(path, '/');
    *slash = '\0';
    return xasprintf("%s/" PROGRAM, path);
}

static char *find_program(struct error *err)
{
    const char *wanted = getenv("HARTVISOR_GPU"), *installed = HARTVISOR_LIBEXECDIR "/" PROGRAM;
    char *path = wanted ? xstrdup(wanted) : beside_this_program();
    if (!wanted && access(path, X_OK) < 0 && access(installed, X_OK) == 0) {
        free(path);
        path = xstrdup(installed);
    }
    if (access(path, X_OK) == 0)
        return path;
    if (wanted)
        error_set_errno(err, errno, "HARTVISOR_GPU names %s", path);
    else
        error_set(err,
                  "there is no " PROGRAM " at %s or %s: this build had no wgpu-native (see "
                  "docs/gpu.md)",
                  path, installed);
    free(path);
    return NULL;
}

static int spawn(const char *program, int socket, pid_t *pid)
{
    char *words[] = {(char *)program, "--socket", "3", NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    /* Standard output is the guest's. */
    posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, socket, CHILD_SOCKET);
#ifdef HAVE_CLOSEFROM
    /* All are closed by exec, but for those that came from whoever started this program. */
    posix_spawn_file_actions_addclosefrom_np(&actions, CHILD_SOCKET + 1);
#endif
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    /* In a group of its own, Ctrl-C on the terminal does not reach it. */
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                              POSIX_SPAWN_SETPGROUP);
    int number = posix_spawn(pid, program, &actions, &attributes, words, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return number;
}

static bool start_process(struct process_renderer *self, struct error *err)
{
    int ends[2];
    char *program = find_program(err);
    if (!program)
        return false;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
        free(program);
        return error_set_errno(err, errno, "no socket for the renderer");
    }
    int number = spawn(program, ends[1], &self->pid);
    close(ends[1]);
    if (number) {
        close(ends[0]);
        error_set_errno(err, number, "cannot start %s", program);
    } else {
        self->socket = ends[0];
    }
    free(program);
    return !number;
}

static bool start_threads(struct process_renderer *self, struct error *err)
{
    int number = pthread_create(&self->writer, NULL, run_writer, self);
    if (!number) {
        number = pthread_create(&self->reader, NULL, run_reader, self);
        if (!number)
            return true;
        pthread_mutex_lock(&self->lock);
        self->ending = true;
        pthread_cond_signal(&self->unsent_added);
        pthread_mutex_unlock(&self->lock);
        pthread_join(self->writer, NULL);
    }
    return error_set_errno(err, number, "the host has no thread left for a renderer");
}

struct gpu_renderer *gpu_process_create(unsigned watchdog_ms, struct error *err)
{
    struct process_renderer *self = xcalloc(1, sizeof(*self));
    self->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->wake < 0) {
        error_set_errno(err, errno, "the host has no descriptor left for a renderer");
        free(self);
        return NULL;
    }
    if (!start_process(self, err)) {
        close(self->wake);
        free(self);
        return NULL;
    }
    gpu_renderer_init(&self->base, &process_ops);
    self->watchdog_ns = (watchdog_ms ? watchdog_ms : WATCHDOG_MS) * NS_IN_MS;
    self->last = &self->first;
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->unsent_added, NULL);
    if (start_threads(self, err))
        return &self->base;
    kill_process(self->pid);
    finish(self);
    return NULL;
}
