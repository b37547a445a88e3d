/* A connection to a running machine's control socket. */
#include "cli/client.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/unix_socket.h"

#define ANSWER_MAX (16 * 1024 * 1024)

bool client_open(struct client *client, const char *specification, struct error *err)
{
    *client = (struct client){.fd = -1};
    const char *path = strchr(specification, '/') && strncmp(specification, "unix:", 5) != 0
                           ? specification
                           : unix_path(specification, err);
    if (path)
        client->fd = unix_connect(path, err);
    if (client->fd < 0)
        return false;
    message_parser_init(&client->parser, ANSWER_MAX);
    return true;
}

void client_close(struct client *client)
{
    if (client->fd < 0)
        return;
    message_parser_finish(&client->parser);
    close(client->fd);
}

/* The next message; NULL with err set where there is none. */
static struct json_object *receive(struct client *client, struct error *err)
{
    for (;;) {
        struct json_object *message;
        switch (
            message_parser_next(&client->parser, &client->start, &client->size, &message, err)) {
        case MESSAGE_COMPLETE:
            if (json_object_is_type(message, json_type_object))
                return message;
            json_object_put(message);
            error_set(err, "the answer is no JSON object: is this a control socket?");
            return NULL;
        case MESSAGE_INVALID:
            error_prefix(err, "the answer is no JSON");
            return NULL;
        case MESSAGE_INCOMPLETE:
            break;
        }
        ssize_t count = recv(client->fd, client->input, sizeof(client->input), 0);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0) {
            if (count < 0)
                error_set_errno(err, errno, "the connection broke");
            else
                error_set(err, "the machine closed the connection without an answer");
            return NULL;
        }
        client->start = client->input;
        client->size = (size_t)count;
    }
}

static bool send_request(struct client *client, const char *name, struct json_object *arguments,
                         struct error *err)
{
    struct json_object *request = json_object_new_object();
    json_object_object_add(request, "execute", json_object_new_string(name));
    if (arguments && json_object_object_length(arguments))
        json_object_object_add(request, "arguments", json_object_get(arguments));
    char *line = xasprintf("%s\n", json_object_to_json_string_ext(request, JSON_C_TO_STRING_PLAIN));
    json_object_put(request);
    size_t length = strlen(line), done = 0;
    while (done < length) {
        ssize_t count = send(client->fd, line + done, length - done, MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            break;
        done += (size_t)count;
    }
    free(line);
    return done == length || error_set_errno(err, errno, "cannot send '%s'", name);
}

struct json_object *client_call(struct client *client, const char *name,
                                struct json_object *arguments, bool *refused, struct error *err)
{
    if (!send_request(client, name, arguments, err))
        return NULL;
    for (struct json_object *message; (message = receive(client, err));) {
        struct json_object *result, *error;
        bool answer = json_object_object_get_ex(message, "return", &result);
        if (answer) {
            json_object_get(result);
        } else if (json_object_object_get_ex(message, "error", &error)) {
            const char *text = message_text(json_object_object_get(error, "desc"));
            error_set(err, "%s", text ? text : "the machine refused");
            *refused = answer = true;
            result = NULL;
        }
        json_object_put(message);
        if (answer)
            return result;
    }
    return NULL;
}

struct json_object *client_commands(struct client *client, bool *refused, struct error *err)
{
    struct json_object *greeting = receive(client, err);
    if (!greeting)
        return NULL;
    bool known = json_object_object_get(greeting, "QMP");
    json_object_put(greeting);
    if (!known) {
        error_set(err, "there is no control socket: the greeting is missing");
        return NULL;
    }
    struct json_object *result = client_call(client, "qmp_capabilities", NULL, refused, err);
    if (!result)
        return NULL;
    json_object_put(result);
    return client_call(client, "query-commands", NULL, refused, err);
}
