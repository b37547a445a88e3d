/*
 * The socket: clients, and the bytes to and from them.
 *
 * LIMITS. A client has one message of at most MESSAGE_MAX bytes in memory. While more than
 * OUTPUT_SOFT bytes wait for it to read them, nothing more is read from it; one that lets events
 * pile up to OUTPUT_HARD is dropped. Past CLIENTS_MAX, others wait to be accepted.
 */
#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "base/unix_socket.h"
#include "control/internal.h"
#include "control/message.h"

enum {
    CLIENTS_MAX = 32,
    MESSAGE_MAX = 64 * 1024,
    INPUT_SIZE = 4096,
    OUTPUT_SOFT = 64 * 1024,
    OUTPUT_HARD = 1024 * 1024,
    FAREWELL_MS = 500,
};

#define ACCEPT_RETRY_NS UINT64_C(1000000000)

struct control_client {
    struct control_server *server;
    struct control_client *next;
    int fd;
    struct loop_fd *watch;
    struct message_parser parser;
    struct control_session session;
    char input[INPUT_SIZE]; /* read and not yet parsed: [input, input + input_size) */
    const char *input_start;
    size_t input_size;
    char *output; /* not yet sent: [output_start, output_end) */
    size_t output_start, output_end, output_space;
    bool ending; /* the peer sends nothing more */
    bool broken; /* to be closed by the next call of client_ready */
};

struct control_server {
    struct control *control;
    struct unix_listener listener;
    struct loop_fd *watch;
    struct loop_timer *retry;
    struct control_client *clients;
    unsigned client_count;
};

char *control_line(struct json_object *object)
{
    const char *text = json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN |
                                                                  JSON_C_TO_STRING_NOSLASHESCAPE);
    char *line = xasprintf("%s\r\n", text);
    json_object_put(object);
    return line;
}

/* --- Output --- */

static size_t output_pending(const struct control_client *client)
{
    return client->output_end - client->output_start;
}

/* Only client_ready frees a client: this makes sure that it is called. */
static void client_break(struct control_client *client)
{
    client->broken = true;
    shutdown(client->fd, SHUT_RDWR);
    loop_update_fd(client->watch, EPOLLIN);
}

static void client_flush(struct control_client *client)
{
    while (output_pending(client) && !client->broken) {
        ssize_t sent = send(client->fd, client->output + client->output_start,
                            output_pending(client), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0)
            client->output_start += (size_t)sent;
        else if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        else if (sent == 0 || errno != EINTR)
            client_break(client);
    }
    client->output_start = client->output_end = 0;
}

static void client_send(struct control_client *client, const char *text)
{
    size_t length = strlen(text), pending = output_pending(client);
    if (client->broken)
        return;
    if (length > OUTPUT_HARD - pending) {
        log_warning("--control: a client that does not read was dropped");
        client_break(client);
        return;
    }
    if (client->output_end + length > client->output_space) {
        if (pending)
            memmove(client->output, client->output + client->output_start, pending);
        client->output_start = 0;
        client->output_end = pending;
        if (pending + length > client->output_space) {
            client->output_space = (pending + length) * 2;
            client->output = xrealloc(client->output, client->output_space);
        }
    }
    memcpy(client->output + client->output_end, text, length);
    client->output_end += length;
    client_flush(client);
    if (output_pending(client))
        loop_update_fd(client->watch, EPOLLOUT);
}

static void client_send_object(struct control_client *client, struct json_object *object)
{
    char *line = control_line(object);
    client_send(client, line);
    free(line);
}

void server_broadcast(struct control_server *server, const char *text)
{
    for (struct control_client *client = server->clients; client; client = client->next)
        if (client->session.negotiated)
            client_send(client, text);
}

/* --- Input --- */

static void client_read(struct control_client *client)
{
    if (client->input_size || client->ending)
        return;
    ssize_t count = recv(client->fd, client->input, sizeof(client->input), MSG_DONTWAIT);
    if (count > 0) {
        client->input_start = client->input;
        client->input_size = (size_t)count;
    } else if (count == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
        client->ending = true;
    }
}

static void client_answer(struct control_client *client)
{
    while (client->input_size && output_pending(client) < OUTPUT_SOFT && !client->broken) {
        struct json_object *message;
        struct error err;
        enum message_status status = message_parser_next(&client->parser, &client->input_start,
                                                         &client->input_size, &message, &err);
        if (status == MESSAGE_COMPLETE) {
            client_send_object(client, session_answer(&client->session, message));
            json_object_put(message);
        } else if (status == MESSAGE_INVALID) {
            client_send_object(client, session_complain(&err));
        }
    }
}

/* --- Clients --- */

static void listen_again(struct control_server *server)
{
    loop_set_timer(server->retry, UINT64_MAX);
    loop_update_fd(server->watch, server->client_count < CLIENTS_MAX ? EPOLLIN : 0);
}

static void client_destroy(struct control_client *client)
{
    struct control_server *server = client->server;
    struct control_client **link = &server->clients;
    while (*link != client)
        link = &(*link)->next;
    *link = client->next;
    server->client_count--;
    loop_remove_fd(client->watch);
    close(client->fd);
    message_parser_finish(&client->parser);
    free(client->output);
    free(client);
}

static void client_ready(void *opaque, uint32_t events)
{
    struct control_client *client = opaque;
    client_flush(client);
    client_read(client);
    client_answer(client);
    size_t pending = output_pending(client);
    if (client->broken || (client->ending && !pending && !client->input_size)) {
        struct control_server *server = client->server;
        client_destroy(client);
        listen_again(server);
        return;
    }
    loop_update_fd(client->watch,
                   (pending ? EPOLLOUT : 0) | (client->input_size || client->ending ? 0 : EPOLLIN));
}

static void client_create(struct control_server *server, int fd)
{
    struct control_client *client = xcalloc(1, sizeof(*client));
    client->server = server;
    client->fd = fd;
    client->session.control = server->control;
    struct error err;
    client->watch = loop_add_fd(server->control->loop, fd, EPOLLIN, client_ready, client, &err);
    if (!client->watch) {
        log_warning("--control: %s", err.message);
        close(fd);
        free(client);
        return;
    }
    message_parser_init(&client->parser, MESSAGE_MAX);
    client->next = server->clients;
    server->clients = client;
    server->client_count++;
    client_send_object(client, session_greeting());
}

static void server_accept(void *opaque, uint32_t events)
{
    struct control_server *server = opaque;
    int fd = accept4(server->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        client_create(server, fd);
        if (server->client_count == CLIENTS_MAX)
            loop_update_fd(server->watch, 0);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        /* The connection stays ready: do not spin until something was closed. */
        loop_update_fd(server->watch, 0);
        loop_set_timer(server->retry, loop_now() + ACCEPT_RETRY_NS);
    }
}

static void server_retry(void *opaque)
{
    listen_again(opaque);
}

struct control_server *server_create(struct control *control, const char *path, struct error *err)
{
    struct control_server *server = xcalloc(1, sizeof(*server));
    server->control = control;
    if (!unix_listener_init(&server->listener, path, err)) {
        free(server);
        return NULL;
    }
    server->watch =
        loop_add_fd(control->loop, server->listener.fd, EPOLLIN, server_accept, server, err);
    if (!server->watch) {
        unix_listener_finish(&server->listener);
        free(server);
        return NULL;
    }
    server->retry = loop_add_timer(control->loop, server_retry, server);
    return server;
}

/* Lets clients read the last answers and the SHUTDOWN event. */
static void farewell(struct control_server *server)
{
    uint64_t until = loop_now() + FAREWELL_MS * UINT64_C(1000000);
    for (struct control_client *client = server->clients; client; client = client->next) {
        struct pollfd ready = {.fd = client->fd, .events = POLLOUT};
        for (uint64_t now = loop_now(); output_pending(client) && !client->broken && now < until;
             now = loop_now()) {
            poll(&ready, 1, (int)((until - now) / 1000000) + 1);
            client_flush(client);
        }
    }
}

void server_destroy(struct control_server *server)
{
    if (!server)
        return;
    farewell(server);
    while (server->clients)
        client_destroy(server->clients);
    loop_remove_timer(server->retry);
    loop_remove_fd(server->watch);
    unix_listener_finish(&server->listener);
    free(server);
}
