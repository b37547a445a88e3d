/* `hartvisor ctl`: one command for a running machine, over its control socket. */
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/unix_socket.h"
#include "cli/cli.h"
#include "control/message.h"
#include "control/text.h"

#define ANSWER_MAX    (16 * 1024 * 1024)
#define STATUS_ANSWER 1 /* the machine answered with an error */

struct connection {
    int fd;
    struct message_parser parser;
    char input[4096];
    const char *start;
    size_t size;
};

static bool connection_open(struct connection *connection, const char *specification,
                            struct error *err)
{
    *connection = (struct connection){.fd = -1};
    const char *path = strchr(specification, '/') && strncmp(specification, "unix:", 5) != 0
                           ? specification
                           : unix_path(specification, err);
    if (path)
        connection->fd = unix_connect(path, err);
    if (connection->fd < 0)
        return false;
    message_parser_init(&connection->parser, ANSWER_MAX);
    return true;
}

static void connection_close(struct connection *connection)
{
    if (connection->fd < 0)
        return;
    message_parser_finish(&connection->parser);
    close(connection->fd);
}

/* The next message; NULL with err set where there is none. */
static struct json_object *receive(struct connection *connection, struct error *err)
{
    for (;;) {
        struct json_object *message;
        switch (message_parser_next(&connection->parser, &connection->start, &connection->size,
                                    &message, err)) {
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
        ssize_t count = recv(connection->fd, connection->input, sizeof(connection->input), 0);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0) {
            if (count < 0)
                error_set_errno(err, errno, "the connection broke");
            else
                error_set(err, "the machine closed the connection without an answer");
            return NULL;
        }
        connection->start = connection->input;
        connection->size = (size_t)count;
    }
}

static bool send_request(struct connection *connection, const char *name,
                         struct json_object *arguments, struct error *err)
{
    struct json_object *request = json_object_new_object();
    json_object_object_add(request, "execute", json_object_new_string(name));
    if (arguments && json_object_object_length(arguments))
        json_object_object_add(request, "arguments", json_object_get(arguments));
    char *line = xasprintf("%s\n", json_object_to_json_string_ext(request, JSON_C_TO_STRING_PLAIN));
    json_object_put(request);
    size_t length = strlen(line), done = 0;
    while (done < length) {
        ssize_t count = send(connection->fd, line + done, length - done, MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            break;
        done += (size_t)count;
    }
    free(line);
    return done == length || error_set_errno(err, errno, "cannot send '%s'", name);
}

/*
 * Sends a request and waits for its answer, past events. The member "return" is the caller's. NULL
 * with err set otherwise; *refused tells an error of the machine's from one of the connection.
 */
static struct json_object *call(struct connection *connection, const char *name,
                                struct json_object *arguments, bool *refused, struct error *err)
{
    if (!send_request(connection, name, arguments, err))
        return NULL;
    for (struct json_object *message; (message = receive(connection, err));) {
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

static struct json_object *open_session(struct connection *connection, bool *refused,
                                        struct error *err)
{
    struct json_object *greeting = receive(connection, err);
    if (!greeting)
        return NULL;
    bool known = json_object_object_get(greeting, "QMP");
    json_object_put(greeting);
    if (!known) {
        error_set(err, "there is no control socket: the greeting is missing");
        return NULL;
    }
    struct json_object *result = call(connection, "qmp_capabilities", NULL, refused, err);
    if (!result)
        return NULL;
    json_object_put(result);
    return call(connection, "query-commands", NULL, refused, err);
}

static void print_json(struct json_object *value)
{
    printf("%s\n",
           json_object_to_json_string_ext(value, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
                                                     JSON_C_TO_STRING_NOSLASHESCAPE));
}

/* words[0] is the command, the rest its arguments. */
static bool run_command_words(struct connection *connection, char **words, size_t count, bool json,
                              bool *refused, struct error *err)
{
    struct json_object *commands = open_session(connection, refused, err);
    struct json_object *arguments = NULL, *result = NULL;
    if (!json_object_is_type(commands, json_type_array)) {
        json_object_put(commands);
        return commands ? error_set(err, "query-commands has no list for an answer") : false;
    }
    if (!strcmp(words[0], "help")) {
        json ? print_json(commands) : control_text_help(stdout, commands);
        json_object_put(commands);
        return true;
    }
    const char *name = control_text_name(commands, words[0], err);
    if (name)
        arguments = control_text_arguments(commands, name, words + 1, count - 1, err);
    *refused = !arguments;
    if (arguments)
        result = call(connection, name, arguments, refused, err);
    if (result)
        json ? print_json(result) : control_text_print(stdout, result);
    bool ok = result;
    json_object_put(result);
    json_object_put(arguments);
    json_object_put(commands);
    return ok;
}

struct ctl_options {
    bool json;
};

static const struct option rows[] = {
    {
        .name = "json",
        .help = "print the answer as JSON",
        .parse = option_flag,
        .target = offsetof(struct ctl_options, json),
    },
};
static const struct option_table table = {rows, sizeof(rows) / sizeof(rows[0])};

static int run(const struct cli_command *self, char **words)
{
    struct ctl_options options = {0};
    struct option_arguments arguments = {.words = words};
    struct connection connection;
    struct error err;
    int status;
    if (!cli_parse(self, words, &options, &arguments, &status))
        return status;
    if (arguments.count < 2) {
        error_set(&err, "ctl needs the control socket and a command: hartvisor ctl unix:PATH help");
        return cli_fail(&err);
    }
    bool refused = false;
    bool ok = connection_open(&connection, arguments.words[0], &err) &&
              run_command_words(&connection, arguments.words + 1, arguments.count - 1, options.json,
                                &refused, &err);
    connection_close(&connection);
    if (ok)
        return 0;
    error_prefix(&err, "ctl");
    cli_fail(&err);
    return refused ? STATUS_ANSWER : STATUS_FAILURE;
}

const struct cli_command ctl_command = {
    .name = "ctl",
    .arguments = "[--json] unix:PATH COMMAND [ARG=VALUE]...",
    .help = "send a command to a running guest's --control socket",
    .manual = "Sends one command to the machine whose --control socket PATH is, and prints the "
              "answer. A path with a slash may stand without unix:. The command help lists what "
              "the machine knows. The exit status is 1 if the machine refuses, 125 if it cannot be "
              "reached. Other QMP servers are understood too.",
    .options = &table,
    .run = run,
};
