/*
 * The control socket: commands to a running machine and events from it, for programs and people.
 *
 * The protocol is JSON over a Unix socket and compatible with QMP, QEMU's machine protocol, so that
 * its clients work: a greeting, `qmp_capabilities`, then requests {"execute", "arguments", "id"}
 * that are answered in order by {"return"} or {"error"}, and events in between.
 *
 * Commands are a table. An area adds its own by control_add_commands, and they are there in the
 * socket, in `query-commands`, at the terminal's prompt and in `hartvisor ctl` at once.
 *
 * Everything runs on the loop's thread, and is called there or before the loop runs, except where
 * it says "any thread". What comes through the socket is hostile: see LIMITS in server.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"

struct control;
struct json_object;
struct machine;

#define CONTROL_ARGUMENTS_MAX 8

enum control_type {
    CONTROL_STRING, /* without NUL characters */
    CONTROL_INTEGER,
    CONTROL_BOOLEAN,
    CONTROL_LIST,
};

struct control_argument {
    const char *name;
    enum control_type type;
    bool optional;
};

/* The value of one argument, of the type that its description names. */
struct control_value {
    bool present; /* false only where the argument is optional; then the rest is 0 */
    const char *string;
    int64_t integer;
    bool boolean;
    struct json_object *list;
};

struct control_command {
    const char *name;  /* words with hyphens: "query-status" */
    const char *alias; /* NULL, or what people may type instead: "status" */
    const char *help;  /* one line that begins with a verb: "continue a paused machine" */
    struct control_argument arguments[CONTROL_ARGUMENTS_MAX]; /* NULL name: no more */

    /*
     * values[i] belongs to arguments[i] and is checked. The answer may be left in *result (which
     * then is the caller's); without one it is {}. False, with err set, answers with an error.
     */
    bool (*run)(void *opaque, const struct control_value *values, struct json_object **result,
                struct error *err);
};

/* A table with the protocol's own commands, and no socket yet. */
struct control *control_create(struct loop *loop);

/* Ends connections, for which what was sent to them is given half a second, and removes the
 * socket's file. Accepts NULL. */
void control_destroy(struct control *control);

/* `commands` stays the caller's. Names are unique in the table (asserted). */
void control_add_commands(struct control *control, const struct control_command *commands,
                          size_t count, void *opaque);

/* Adds a machine's commands and forwards its events. Before machine_run; the machine, whose loop
 * this is, is destroyed after `control`. */
void control_add_machine(struct control *control, struct machine *machine);

struct display_devices;
struct virtio_device;

/* Adds the commands of a machine's screen, and those of what draws it. */
void control_add_display(struct control *control, const struct display_devices *devices);
void control_add_gpu(struct control *control, struct virtio_device *gpu);

/* Listens on the socket that `specification` (unix:PATH) names. Once. */
bool control_listen(struct control *control, const char *specification, struct error *err);

/* Runs a command as the socket would; `arguments` may be NULL and stays the caller's. *result is
 * the caller's (json_object_put), {} where the command gives nothing. */
bool control_execute(struct control *control, const char *name, struct json_object *arguments,
                     struct json_object **result, struct error *err);

/* Tells every client of an event. Takes over `data`, which may be NULL. Any thread; sent at once
 * where that is the loop's. */
void control_emit(struct control *control, const char *event, struct json_object *data);
