/* Private to control/: the table, the protocol of one connection, and the socket's server. */
#pragma once

#include <pthread.h>

#include "control/control.h"

struct control_entry {
    const struct control_command *command;
    void *opaque;
};

struct control_event {
    char *text; /* as it goes out */
    struct control_event *next;
};

struct control {
    struct loop *loop;
    struct control_entry *entries;
    size_t entry_count;
    struct control_server *server; /* NULL: no socket */

    pthread_mutex_t lock; /* guards the events of other threads */
    struct control_event *first_event, **last_event;
    struct loop_task *event_task;

    /* control_add_machine's. */
    struct machine *machine;
    _Atomic bool quit; /* the `quit` command ended the machine */

    struct control_screen *screen; /* control_add_display's; NULL: no screen */
};

/* --- control.c --- */

const struct control_entry *control_find(const struct control *control, const char *name);
bool control_run(const struct control_entry *entry, struct json_object *arguments,
                 struct json_object **result, struct error *err);

/* The version as the greeting and query-version give it. */
struct json_object *control_version(void);

/* --- session.c: the protocol of one connection, without its socket --- */

struct control_session {
    struct control *control;
    bool negotiated; /* qmp_capabilities was answered */
};

/* What a client is sent first. Objects that these return are the caller's. */
struct json_object *session_greeting(void);

/* The answer to one parsed message, which stays the caller's. */
struct json_object *session_answer(struct control_session *session, struct json_object *request);

/* The answer to bytes that are no message. */
struct json_object *session_complain(const struct error *err);

/* --- display.c --- */

/* Releases what is held. Accepts NULL. */
void screen_destroy(struct control_screen *screen);

/* --- server.c --- */

struct control_server *server_create(struct control *control, const char *path, struct error *err);
void server_destroy(struct control_server *server); /* accepts NULL */

/* Sends a line of text to every client that has negotiated. */
void server_broadcast(struct control_server *server, const char *text);

/* The line that goes over the socket; the caller frees it. Consumes `object`. */
char *control_line(struct json_object *object);
