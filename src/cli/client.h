/* A connection to a running machine's control socket, for the commands that have one as argument.
 */
#pragma once

#include "control/message.h"

#define STATUS_ANSWER 1 /* what such a command exits with if the machine refuses */

struct client {
    int fd;
    struct message_parser parser;
    char input[4096];
    const char *start;
    size_t size;
};

/* `specification`: unix:PATH, or a path with a slash. The client is to be closed in any case. */
bool client_open(struct client *client, const char *specification, struct error *err);
void client_close(struct client *client);

/* Begins the session. Returns the machine's commands as query-commands has them, the caller's. */
struct json_object *client_commands(struct client *client, bool *refused, struct error *err);

/*
 * Sends a request and waits for its answer, past events. The member "return" is the caller's. NULL
 * with err set otherwise; *refused tells an error of the machine's from one of the connection.
 */
struct json_object *client_call(struct client *client, const char *name,
                                struct json_object *arguments, bool *refused, struct error *err);
