/*
 * The user network: libslirp, a TCP/IP stack in this process that turns the guest's connections
 * into ordinary sockets. 10.0.2.0/24 with the gateway (and this host) at .2, DNS at .3 and the
 * guest, by DHCP, at .15. Needs no privileges.
 *
 * libslirp wants to be polled: it names the descriptors that it waits for anew each time. They are
 * kept in an epoll set of our own, which is one descriptor to the loop.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "virtio/net_backend.h"

#ifdef HAVE_SLIRP

#    include <arpa/inet.h>
#    include <errno.h>
#    include <sys/epoll.h>
#    include <unistd.h>

#    include <slirp/libslirp.h>

/* Frames kept while the guest has no buffers. Beyond it they are dropped; TCP sends them again. */
#    define QUEUE_MAX 512

#    define EVENTS_AT_ONCE 64
#    define NS_PER_MS      UINT64_C(1000000)

struct queued_frame {
    struct queued_frame *next;
    size_t size;
    uint8_t bytes[];
};

/* What is known of a descriptor; an array indexed by it. */
struct watch {
    uint32_t set;    /* the epoll events it is in the set with, 0: not in it */
    uint32_t wanted; /* what libslirp asked for in this round */
    uint32_t got;    /* what epoll reported in this round */
};

struct user_timer {
    struct user_backend *user;
    struct loop_timer *timer;
    SlirpTimerCb callback;
    void *opaque;
    bool fired;
    struct user_timer *next;
};

struct user_backend {
    struct net_backend base;
    struct loop *loop;
    Slirp *slirp;
    int epoll;
    struct loop_fd *source;
    struct loop_timer *timeout; /* of slirp's own slow and fast timers */
    struct loop_task *update;   /* the watched descriptors may have changed */
    struct watch *watches;
    int watch_count;
    struct user_timer *timers;
    bool paused; /* the queue is not empty: no host socket is read */
    struct queued_frame *queue;
    struct queued_frame **queue_tail;
    unsigned queue_count;
    uint8_t frame[NET_FRAME_MAX];
};

static struct user_backend *user_of(struct net_backend *backend)
{
    return container_of(backend, struct user_backend, base);
}

static void call_ready(void *opaque)
{
    struct user_backend *user = opaque;
    if (user->base.receiver.ready)
        user->base.receiver.ready(user->base.receiver.opaque);
}

static void on_event(void *opaque, uint32_t events)
{
    call_ready(opaque);
}

/* Towards the guest. */

static bool deliver(struct user_backend *user, const void *frame, size_t size)
{
    /* No wire could have damaged it since libslirp made its checksums. */
    static const struct net_header header = {.flags = NET_HDR_F_DATA_VALID};
    const struct net_receiver *receiver = &user->base.receiver;
    return !receiver->receive || receiver->receive(receiver->opaque, &header, frame, size);
}

static bool deliver_queue(struct user_backend *user)
{
    while (user->queue) {
        struct queued_frame *queued = user->queue;
        if (!deliver(user, queued->bytes, queued->size))
            return false;
        user->queue = queued->next;
        user->queue_count--;
        free(queued);
    }
    user->queue_tail = &user->queue;
    return true;
}

static ssize_t on_frame(const void *frame, size_t size, void *opaque)
{
    struct user_backend *user = opaque;
    if (size < NET_FRAME_MIN || size > NET_FRAME_MAX)
        return (ssize_t)size;
    if (!user->queue && deliver(user, frame, size))
        return (ssize_t)size;
    if (user->queue_count == QUEUE_MAX)
        return (ssize_t)size;
    struct queued_frame *queued = xmalloc(sizeof(*queued) + size);
    queued->next = NULL;
    queued->size = size;
    memcpy(queued->bytes, frame, size);
    *user->queue_tail = queued;
    user->queue_tail = &queued->next;
    user->queue_count++;
    return (ssize_t)size;
}

/* Polling. */

static const struct {
    int slirp;
    uint32_t epoll;
} event_map[] = {
    {SLIRP_POLL_IN, EPOLLIN},   {SLIRP_POLL_OUT, EPOLLOUT}, {SLIRP_POLL_PRI, EPOLLPRI},
    {SLIRP_POLL_ERR, EPOLLERR}, {SLIRP_POLL_HUP, EPOLLHUP},
};

static struct watch *watch_of(struct user_backend *user, int fd)
{
    if (fd >= user->watch_count) {
        int count = fd + 64;
        user->watches = xrealloc(user->watches, (size_t)count * sizeof(*user->watches));
        memset(user->watches + user->watch_count, 0,
               (size_t)(count - user->watch_count) * sizeof(*user->watches));
        user->watch_count = count;
    }
    return &user->watches[fd];
}

/* The index by which libslirp asks for the result is the descriptor itself. */
static int add_poll(int fd, int events, void *opaque)
{
    struct watch *watch = watch_of(opaque, fd);
    watch->got = 0;
    for (size_t n = 0; n < ARRAY_SIZE(event_map); n++)
        if (events & event_map[n].slirp)
            watch->wanted |= event_map[n].epoll;
    return fd;
}

static int get_events(int index, void *opaque)
{
    struct user_backend *user = opaque;
    int events = 0;
    for (size_t n = 0; index >= 0 && index < user->watch_count && n < ARRAY_SIZE(event_map); n++)
        if (user->watches[index].got & event_map[n].epoll)
            events |= event_map[n].slirp;
    return events;
}

static void watch_update(struct user_backend *user, int fd)
{
    struct watch *watch = &user->watches[fd];
    struct epoll_event event = {.events = watch->wanted, .data.fd = fd};
    if (watch->set != watch->wanted) {
        int operation = !watch->wanted ? EPOLL_CTL_DEL : watch->set ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
        if (epoll_ctl(user->epoll, operation, fd, &event) < 0 && watch->wanted && errno == ENOENT)
            epoll_ctl(user->epoll, EPOLL_CTL_ADD, fd, &event);
        watch->set = watch->wanted;
    }
    watch->wanted = 0;
}

/* Asks libslirp what it waits for now. */
static void update_watches(struct user_backend *user)
{
    uint32_t timeout_ms = UINT32_MAX;
    slirp_pollfds_fill(user->slirp, &timeout_ms, add_poll, user);
    for (int fd = 0; fd < user->watch_count; fd++)
        watch_update(user, fd);
    loop_set_timer(user->timeout, timeout_ms == UINT32_MAX
                                      ? UINT64_MAX
                                      : loop_now() + (uint64_t)timeout_ms * NS_PER_MS);
}

static void collect_events(struct user_backend *user)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    int count = epoll_wait(user->epoll, events, EVENTS_AT_ONCE, 0);
    for (int n = 0; n < count; n++)
        watch_of(user, events[n].data.fd)->got = events[n].events;
}

static void set_paused(struct user_backend *user, bool paused)
{
    if (user->paused == paused)
        return;
    user->paused = paused;
    loop_update_fd(user->source, paused ? 0 : EPOLLIN);
    if (paused)
        loop_set_timer(user->timeout, UINT64_MAX);
    else
        loop_schedule(user->update);
}

static void run_timers(struct user_backend *user)
{
    for (struct user_timer *timer = user->timers; timer; timer = timer->next) {
        if (!timer->fired)
            continue;
        timer->fired = false;
        timer->callback(timer->opaque);
    }
}

static void user_process(struct net_backend *backend)
{
    struct user_backend *user = user_of(backend);
    if (deliver_queue(user)) {
        run_timers(user);
        collect_events(user);
        slirp_pollfds_poll(user->slirp, 0, get_events, user);
        update_watches(user);
    }
    set_paused(user, user->queue);
}

static void user_resume(struct net_backend *backend)
{
    struct user_backend *user = user_of(backend);
    if (user->paused && deliver_queue(user))
        set_paused(user, false);
}

static bool user_send(struct net_backend *backend, const struct net_header *header,
                      const struct iovec *iov, unsigned count, size_t size)
{
    struct user_backend *user = user_of(backend);
    size_t filled = 0;
    for (unsigned n = 0; n < count && filled < size; n++) {
        size_t part = iov[n].iov_len < size - filled ? iov[n].iov_len : size - filled;
        memcpy(user->frame + filled, iov[n].iov_base, part);
        filled += part;
    }
    /* A TCP segment larger than the MTU needs no cutting: the stack ends the connection here. */
    if (header->flags & NET_HDR_F_NEEDS_CSUM)
        net_complete_checksum(header, user->frame, filled);
    slirp_input(user->slirp, user->frame, (int)filled);
    if (user->queue)
        set_paused(user, true);
    loop_schedule(user->update);
    return true;
}

/* Callbacks of libslirp. */

static void on_guest_error(const char *message, void *opaque)
{
    trace_guest_error("user network", "%s", message);
}

static int64_t get_clock(void *opaque)
{
    return (int64_t)loop_now();
}

static void on_user_timer(void *opaque)
{
    struct user_timer *timer = opaque;
    timer->fired = true;
    call_ready(timer->user);
}

static void *timer_new(SlirpTimerCb callback, void *callback_opaque, void *opaque)
{
    struct user_backend *user = opaque;
    struct user_timer *timer = xcalloc(1, sizeof(*timer));
    timer->user = user;
    timer->callback = callback;
    timer->opaque = callback_opaque;
    timer->timer = loop_add_timer(user->loop, on_user_timer, timer);
    timer->next = user->timers;
    user->timers = timer;
    return timer;
}

static void timer_free(void *freed, void *opaque)
{
    struct user_backend *user = opaque;
    struct user_timer **link = &user->timers;
    while (*link && *link != freed)
        link = &(*link)->next;
    if (!*link)
        return;
    struct user_timer *timer = *link;
    *link = timer->next;
    loop_remove_timer(timer->timer);
    free(timer);
}

static void timer_mod(void *timer, int64_t deadline_ms, void *opaque)
{
    loop_set_timer(((struct user_timer *)timer)->timer, (uint64_t)deadline_ms * NS_PER_MS);
}

static void register_fd(int fd, void *opaque)
{
}

/* It is about to be closed, by which it leaves the epoll set; its number may come back soon. */
static void unregister_fd(int fd, void *opaque)
{
    struct user_backend *user = opaque;
    if (fd < 0 || fd >= user->watch_count)
        return;
    if (user->watches[fd].set)
        epoll_ctl(user->epoll, EPOLL_CTL_DEL, fd, NULL);
    user->watches[fd] = (struct watch){0};
}

static void on_notify(void *opaque)
{
    struct user_backend *user = opaque;
    if (user->update)
        loop_schedule(user->update);
}

static const SlirpCb callbacks = {
    .send_packet = on_frame,
    .guest_error = on_guest_error,
    .clock_get_ns = get_clock,
    .timer_new = timer_new,
    .timer_free = timer_free,
    .timer_mod = timer_mod,
    .register_poll_fd = register_fd,
    .unregister_poll_fd = unregister_fd,
    .notify = on_notify,
};

/* Options. */

struct forward {
    bool udp;
    struct in_addr host, guest;
    uint16_t host_port, guest_port;
};

static bool parse_address(const char *text, const char *otherwise, struct in_addr *address)
{
    return inet_pton(AF_INET, *text ? text : otherwise, address) == 1;
}

static bool parse_port(const char *text, uint16_t *port)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    *port = (uint16_t)value;
    return *text >= '0' && *text <= '9' && !*end && value >= 1 && value <= 65535;
}

/* tcp|udp:[HOST]:PORT-[GUEST]:PORT */
static bool parse_forward(const char *text, struct forward *forward, struct error *err)
{
    char *copy = xstrdup(text), *rest = copy;
    const char *protocol = strsep(&rest, ":"), *host = strsep(&rest, ":");
    const char *host_port = strsep(&rest, "-"), *guest = strsep(&rest, ":"), *guest_port = rest;
    bool valid = false;
    *forward = (struct forward){.udp = !strcmp(protocol, "udp")};
    if (!guest_port)
        error_set(err,
                  "hostfwd=%s is not of the form tcp|udp:[HOST]:PORT-[GUEST]:PORT, e.g. "
                  "hostfwd=tcp::2222-:22",
                  text);
    else if (!forward->udp && strcmp(protocol, "tcp"))
        error_set(err, "hostfwd=%s: '%s' is neither 'tcp' nor 'udp'", text, protocol);
    else if (!parse_address(host, "127.0.0.1", &forward->host))
        error_set(err, "hostfwd=%s: '%s' is not an IPv4 address of this host", text, host);
    else if (!parse_address(guest, "10.0.2.15", &forward->guest))
        error_set(err, "hostfwd=%s: '%s' is not an IPv4 address of the guest", text, guest);
    else if (!parse_port(host_port, &forward->host_port))
        error_set(err, "hostfwd=%s: '%s' is not a port number from 1 to 65535", text, host_port);
    else if (!parse_port(guest_port, &forward->guest_port))
        error_set(err, "hostfwd=%s: '%s' is not a port number from 1 to 65535", text, guest_port);
    else
        valid = true;
    free(copy);
    return valid;
}

static const char *forward_remedy(int error)
{
    switch (error) {
    case EADDRINUSE:
        return " (choose another port, or stop the program that listens there)";
    case EACCES:
        return " (ports below 1024 need privileges: choose a higher one)";
    case EADDRNOTAVAIL:
        return " (no network interface of this host has that address)";
    default:
        return "";
    }
}

static bool add_forward(struct user_backend *user, const char *text, struct error *err)
{
    struct forward forward;
    char host[INET_ADDRSTRLEN];
    if (!text)
        return error_set(err, "hostfwd needs a value, e.g. hostfwd=tcp::2222-:22");
    if (!parse_forward(text, &forward, err))
        return false;
    errno = 0;
    if (!slirp_add_hostfwd(user->slirp, forward.udp, forward.host, forward.host_port, forward.guest,
                           forward.guest_port))
        return true;
    int error = errno ? errno : EADDRINUSE;
    inet_ntop(AF_INET, &forward.host, host, sizeof(host));
    return error_set(err, "hostfwd=%s: cannot listen on %s port %u %s: %s%s", text, host,
                     forward.host_port, forward.udp ? "(UDP)" : "(TCP)", strerror(error),
                     forward_remedy(error));
}

static bool parse_network_option(const struct net_option *option, SlirpConfig *config,
                                 struct error *err)
{
    bool value;
    if (!strcmp(option->name, "hostfwd"))
        return true; /* once the network is there */
    if (!strcmp(option->name, "restrict")) {
        bool valid = net_option_bool(option, &value, err);
        config->restricted = value;
        return valid;
    }
    if (!strcmp(option->name, "ipv6")) {
        bool valid = net_option_bool(option, &value, err);
        config->in6_enabled = value;
        return valid;
    }
    return error_set(err, "'user' has no option '%s' (it has hostfwd, restrict, ipv6 and mac)",
                     option->name);
}

static void user_destroy(struct net_backend *backend)
{
    struct user_backend *user = user_of(backend);
    if (user->slirp)
        slirp_cleanup(user->slirp);
    while (user->timers)
        timer_free(user->timers, user);
    loop_remove_task(user->update);
    loop_remove_timer(user->timeout);
    loop_remove_fd(user->source);
    while (user->queue) {
        struct queued_frame *next = user->queue->next;
        free(user->queue);
        user->queue = next;
    }
    if (user->epoll >= 0)
        close(user->epoll);
    free(user->watches);
    free(user);
}

static const struct net_backend_type user_type = {
    .name = "user",
    .send = user_send,
    .process = user_process,
    .resume = user_resume,
    .destroy = user_destroy,
};

static bool user_start(struct user_backend *user, const struct net_option *options,
                       struct error *err)
{
    SlirpConfig config = {.version = 1, .in_enabled = true, .vprefix_len = 64};
    inet_pton(AF_INET, "10.0.2.0", &config.vnetwork);
    inet_pton(AF_INET, "255.255.255.0", &config.vnetmask);
    inet_pton(AF_INET, "10.0.2.2", &config.vhost);
    inet_pton(AF_INET, "10.0.2.15", &config.vdhcp_start);
    inet_pton(AF_INET, "10.0.2.3", &config.vnameserver);
    inet_pton(AF_INET6, "fec0::", &config.vprefix_addr6);
    inet_pton(AF_INET6, "fec0::2", &config.vhost6);
    inet_pton(AF_INET6, "fec0::3", &config.vnameserver6);
    for (const struct net_option *option = options; option->name; option++)
        if (!parse_network_option(option, &config, err))
            return false;

    user->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (user->epoll < 0)
        return error_set_errno(err, errno, "cannot create an epoll set");
    user->source = loop_add_fd(user->loop, user->epoll, EPOLLIN, on_event, user, err);
    if (!user->source)
        return false;
    user->timeout = loop_add_timer(user->loop, call_ready, user);
    user->update = loop_add_task(user->loop, call_ready, user);
    user->slirp = slirp_new(&config, &callbacks, user);
    if (!user->slirp)
        return error_set(err, "libslirp %s cannot start", slirp_version_string());
    for (const struct net_option *option = options; option->name; option++)
        if (!strcmp(option->name, "hostfwd") && !add_forward(user, option->value, err))
            return false;
    /* It reads the clock here only: what came before would be timed out by its first reading. */
    update_watches(user);
    slirp_pollfds_poll(user->slirp, 0, get_events, user);
    loop_schedule(user->update);
    return true;
}

struct net_backend *net_user_create(const struct net_option *options, struct loop *loop,
                                    struct error *err)
{
    struct user_backend *user = xcalloc(1, sizeof(*user));
    user->base.type = &user_type;
    user->base.offloads = NET_SEND_CSUM | NET_SEND_TSO4 | NET_RECEIVE_CSUM;
    user->loop = loop;
    user->epoll = -1;
    user->queue_tail = &user->queue;
    if (user_start(user, options, err))
        return &user->base;
    user_destroy(&user->base);
    return NULL;
}

#else

struct net_backend *net_user_create(const struct net_option *options, struct loop *loop,
                                    struct error *err)
{
    error_set(err, "the user network was not built in: libslirp was missing (build again with "
                   "libslirp-dev, or use tap)");
    return NULL;
}

#endif
