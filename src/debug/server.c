/*
 * The server: it listens, accepts one client at a time, and carries bytes.
 *
 * While a client does not read, what it is owed waits in memory, up to OUTPUT_MOST; then it is
 * dropped. Others are told that the place is taken, and closed.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/loop.h"
#include "base/unix_socket.h"
#include "debug/debug.h"
#include "debug/session.h"

enum { INPUT_SIZE = 64 * 1024, OUTPUT_MOST = 16 * PACKET_MAX };

struct debug_server {
    struct machine *machine;
    struct loop *loop;
    int listener;
    struct unix_listener unix_listener; /* its descriptor is `listener`, if there is a path */
    struct loop_fd *watch;
    char address[300];
    struct symbols *symbols; /* may be NULL */

    /* The client, if any. */
    int fd; /* -1: none */
    struct loop_fd *client_watch;
    struct debug_session *session; /* NULL: none, or it has detached */
    struct buffer unsent;
    size_t sent; /* of unsent */
    bool broken;
    bool receiving; /* within the session: it cannot go now */
};

/* --- Listening
 * ------------------------------------------------------------------------------------ */

/* "PORT", "HOST:PORT" or "[HOST]:PORT" in its parts. */
static bool split_address(const char *address, char *host, size_t size, const char **port,
                          struct error *err)
{
    const char *colon = strrchr(address, ':');
    size_t length = colon ? (size_t)(colon - address) : 0;
    const char *start = address;
    *port = colon ? colon + 1 : address;
    char *end;
    unsigned long number = strtoul(*port, &end, 10);
    if (!**port || *end || **port == '-' || number > 65535)
        return error_set(err, "--gdb %s: '%s' is no port: give PORT, HOST:PORT or unix:PATH",
                         address, *port);
    if (length >= 2 && start[0] == '[' && start[length - 1] == ']') {
        start++;
        length -= 2;
    }
    if (length >= size)
        return error_set(err, "--gdb %s: the host's name is too long", address);
    memcpy(host, start, length);
    host[length] = 0;
    if (!length)
        strcpy(host, "127.0.0.1");
    return true;
}

static int listen_at(const struct addrinfo *info)
{
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (!bind(fd, info->ai_addr, info->ai_addrlen) && !listen(fd, 4))
        return fd;
    int number = errno;
    close(fd);
    errno = number;
    return -1;
}

static bool listen_tcp(struct debug_server *server, const char *address, struct error *err)
{
    char host[256], numeric[NI_MAXHOST], service[NI_MAXSERV];
    const char *port;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *list;
    if (!split_address(address, host, sizeof(host), &port, err))
        return false;
    int status = getaddrinfo(strcmp(host, "*") ? host : NULL, port, &hints, &list);
    if (status)
        return error_set(err, "--gdb %s: no address for '%s': %s", address, host,
                         gai_strerror(status));
    int number = 0;
    for (const struct addrinfo *info = list; info && server->listener < 0; info = info->ai_next) {
        server->listener = listen_at(info);
        number = errno;
    }
    freeaddrinfo(list);
    if (server->listener < 0)
        return error_set_errno(err, number,
                               "--gdb %s: cannot listen: choose another port, or 0 "
                               "for any that is free",
                               address);
    struct sockaddr_storage bound;
    socklen_t size = sizeof(bound);
    getsockname(server->listener, (struct sockaddr *)&bound, &size);
    getnameinfo((struct sockaddr *)&bound, size, numeric, sizeof(numeric), service, sizeof(service),
                NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(server->address, sizeof(server->address), strchr(numeric, ':') ? "[%s]:%s" : "%s:%s",
             numeric, service);
    return true;
}

static bool listen_anywhere(struct debug_server *server, const char *address, struct error *err)
{
    if (strncmp(address, "unix:", 5) != 0)
        return listen_tcp(server, address, err);
    const char *path = unix_path(address, err);
    if (!path || !unix_listener_init(&server->unix_listener, path, err))
        return error_prefix(err, "--gdb");
    server->listener = server->unix_listener.fd;
    snprintf(server->address, sizeof(server->address), "%s", address);
    return true;
}

/* --- The client
 * ------------------------------------------------------------------------------------ */

static size_t pending(const struct debug_server *server)
{
    return server->unsent.size - server->sent;
}

static void flush(struct debug_server *server)
{
    while (pending(server) && !server->broken) {
        ssize_t count = send(server->fd, server->unsent.data + server->sent, pending(server),
                             MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count >= 0)
            server->sent += (size_t)count;
        else if (errno == EAGAIN)
            break;
        else if (errno != EINTR)
            server->broken = true;
    }
    server->unsent.size = server->broken ? 0 : pending(server);
    if (server->sent && server->unsent.size)
        memmove(server->unsent.data, server->unsent.data + server->sent, server->unsent.size);
    server->sent = 0;
}

static void transport_send(void *opaque, const void *data, size_t size)
{
    struct debug_server *server = opaque;
    if (pending(server) + size > OUTPUT_MOST)
        server->broken = true; /* it does not read */
    if (server->broken)
        return;
    buffer_bytes(&server->unsent, data, size);
    flush(server);
    if (pending(server))
        loop_update_fd(server->client_watch, EPOLLIN | EPOLLOUT);
}

/* The client detached. Its connection stays until it closes it, so that it can read the last answer
 * and acknowledge it; what it still sends is dropped. */
static void end_session(struct debug_server *server)
{
    debug_session_destroy(server->session);
    server->session = NULL;
}

static void drop_client(struct debug_server *server)
{
    if (server->fd < 0)
        return;
    end_session(server);
    loop_remove_fd(server->client_watch);
    close(server->fd);
    server->fd = -1;
    server->unsent.size = server->sent = 0;
}

static void serve(struct debug_server *server, uint32_t events)
{
    uint8_t input[INPUT_SIZE];
    ssize_t count = recv(server->fd, input, sizeof(input), MSG_DONTWAIT);
    bool gone = count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR);
    if (count > 0 && server->session) {
        server->receiving = true;
        debug_session_receive(server->session, input, (size_t)count);
        server->receiving = false;
    }
    if (events & EPOLLOUT)
        flush(server);
    if (server->session && server->session->ended)
        end_session(server);
    if (gone || server->broken)
        drop_client(server);
    else if (events & EPOLLOUT)
        loop_update_fd(server->client_watch, pending(server) ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* A debugger asks one thing after the other. While all harts stand still, its next question is
 * waited for a moment, so that this thread need not be woken up for it, which takes longer. */
static bool asks_at_once(const struct debug_server *server)
{
    enum { MOMENT_NS = 50000 };
    uint64_t until = loop_now() + MOMENT_NS;
    uint8_t byte;
    while (server->session && !server->session->running && !server->session->non_stop &&
           !pending(server)) {
        if (recv(server->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0)
            return true;
        if (loop_now() > until)
            return false;
    }
    return false;
}

static void client_ready(void *opaque, uint32_t events)
{
    enum { ROUNDS_MOST = 64 }; /* others use the loop, too */
    struct debug_server *server = opaque;
    serve(server, events);
    for (unsigned rounds = 1; rounds < ROUNDS_MOST && server->fd >= 0 && asks_at_once(server);
         rounds++)
        serve(server, EPOLLIN);
}

static void refuse(int fd, const char *why)
{
    struct buffer text = {0}, packet = {0};
    buffer_format(&text, "E.%s", why);
    packet_encode(&packet, '$', text.data, text.size, false);
    (void)!send(fd, packet.data, packet.size, MSG_NOSIGNAL | MSG_DONTWAIT);
    log_warning("--gdb: a client was refused: %s", why);
    buffer_finish(&text);
    buffer_finish(&packet);
    close(fd);
}

static void server_accept(void *opaque, uint32_t events)
{
    struct debug_server *server = opaque;
    const struct debug_transport transport = {.opaque = server, .send = transport_send};
    struct error err;
    int on = 1, fd = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    /* The one before may have said goodbye, and was not heard yet. */
    for (uint8_t byte; server->fd >= 0;) {
        ssize_t count = recv(server->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        if (count < 0 && errno == EAGAIN)
            break;
        serve(server, EPOLLIN);
    }
    if (server->fd >= 0 && (!server->session || server->broken))
        drop_client(server); /* it has detached, or does not read, and keeps its end open */
    if (server->fd >= 0) {
        refuse(fd, "another debugger is connected: it must detach first");
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    server->session = debug_session_create(server->machine, &transport, &err);
    if (!server->session) {
        refuse(fd, err.message);
        return;
    }
    server->session->symbols = server->symbols;
    server->client_watch = loop_add_fd(server->loop, fd, EPOLLIN, client_ready, server, &err);
    if (!server->client_watch) {
        debug_session_destroy(server->session);
        refuse(fd, err.message);
        return;
    }
    server->fd = fd;
    server->broken = false;
}

/* --- Life
 * ------------------------------------------------------------------------------------------- */

static void machine_event(void *opaque, const struct machine_event_info *info)
{
    struct debug_server *server = opaque;
    if (info->event != MACHINE_EVENT_SHUTDOWN || !server->session)
        return;
    run_ended(server->session, info->status);
    flush(server);
    if (!server->receiving)
        drop_client(server);
}

struct debug_server *debug_server_create(struct machine *machine, const char *address, bool wait,
                                         struct error *err)
{
    struct debug_server *server = xcalloc(1, sizeof(*server));
    server->machine = machine;
    server->loop = machine_loop(machine);
    server->fd = server->listener = -1;
    if (!listen_anywhere(server, address, err)) {
        free(server);
        return NULL;
    }
    server->watch =
        loop_add_fd(server->loop, server->listener, EPOLLIN, server_accept, server, err);
    if (!server->watch) { /* no listener yet */
        debug_server_destroy(server);
        return NULL;
    }
    machine_add_listener(machine, machine_event, server);
    if (wait) {
        machine_debug_hold(machine, UINT64_MAX);
        machine_debug_freeze(machine, true);
    }
    return server;
}

void debug_server_destroy(struct debug_server *server)
{
    if (!server)
        return;
    drop_client(server);
    if (server->watch)
        machine_remove_listener(server->machine, machine_event, server);
    loop_remove_fd(server->watch);
    if (server->unix_listener.path)
        unix_listener_finish(&server->unix_listener);
    else
        close(server->listener);
    buffer_finish(&server->unsent);
    free(server);
}

void debug_server_set_symbols(struct debug_server *server, struct symbols *symbols)
{
    server->symbols = symbols;
    if (server->session)
        server->session->symbols = symbols;
}

const char *debug_server_address(const struct debug_server *server)
{
    return server->address;
}
