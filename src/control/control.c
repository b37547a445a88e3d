/* The table of commands, and the way of events to the socket. */
#include <assert.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/suggest.h"
#include "base/unix_socket.h"
#include "control/internal.h"
#include "control/message.h"

/* How the types are called, and what JSON has for them. */
static const struct {
    const char *name;
    enum json_type json;
} types[] = {
    [CONTROL_STRING] = {"string", json_type_string},
    [CONTROL_INTEGER] = {"integer", json_type_int},
    [CONTROL_BOOLEAN] = {"boolean", json_type_boolean},
    [CONTROL_LIST] = {"list", json_type_array},
};

static size_t argument_count(const struct control_command *command)
{
    size_t count = 0;
    while (count < CONTROL_ARGUMENTS_MAX && command->arguments[count].name)
        count++;
    return count;
}

/* --- Running a command --- */

static bool check_names(const struct control_command *command, struct json_object *arguments,
                        struct error *err)
{
    json_object_object_foreach(arguments, key, unused)
    {
        (void)unused;
        struct suggestion nearest;
        suggest_begin(&nearest, key);
        bool known = false;
        for (size_t i = 0; i < argument_count(command); i++) {
            known |= strcmp(key, command->arguments[i].name) == 0;
            suggest_offer(&nearest, command->arguments[i].name);
        }
        if (!known)
            return error_set(err, "'%s' has no argument '%s'%s%s%s", command->name, key,
                             nearest.name ? ": did you mean '" : "",
                             nearest.name ? nearest.name : "", nearest.name ? "'?" : "");
    }
    return true;
}

static bool read_value(const struct control_command *command,
                       const struct control_argument *argument, struct json_object *object,
                       struct control_value *value, struct error *err)
{
    if (!json_object_is_type(object, types[argument->type].json))
        return error_set(err, "argument '%s' of '%s' must be of type %s", argument->name,
                         command->name, types[argument->type].name);
    *value = (struct control_value){
        .present = true,
        .string = message_text(object),
        .integer = argument->type == CONTROL_INTEGER ? json_object_get_int64(object) : 0,
        .boolean = argument->type == CONTROL_BOOLEAN && json_object_get_boolean(object),
        .list = argument->type == CONTROL_LIST ? object : NULL,
    };
    if (argument->type == CONTROL_STRING && !value->string)
        return error_set(err, "argument '%s' of '%s' has a NUL character in it", argument->name,
                         command->name);
    return true;
}

bool control_run(const struct control_entry *entry, struct json_object *arguments,
                 struct json_object **result, struct error *err)
{
    const struct control_command *command = entry->command;
    struct control_value values[CONTROL_ARGUMENTS_MAX] = {0};
    if (arguments && !check_names(command, arguments, err))
        return false;
    for (size_t i = 0; i < argument_count(command); i++) {
        const struct control_argument *argument = &command->arguments[i];
        struct json_object *object;
        if (arguments && json_object_object_get_ex(arguments, argument->name, &object)) {
            if (!read_value(command, argument, object, &values[i], err))
                return false;
        } else if (!argument->optional) {
            return error_set(err, "'%s' needs the argument '%s' (%s)", command->name,
                             argument->name, types[argument->type].name);
        }
    }
    *result = NULL;
    if (!command->run(entry->opaque, values, result, err))
        return false;
    if (!*result)
        *result = json_object_new_object();
    return true;
}

bool control_execute(struct control *control, const char *name, struct json_object *arguments,
                     struct json_object **result, struct error *err)
{
    const struct control_entry *entry = control_find(control, name);
    if (!entry)
        return error_set(err, "there is no command '%s'", name);
    return control_run(entry, arguments, result, err);
}

/* --- The protocol's own commands --- */

static bool run_capabilities(void *opaque, const struct control_value *values,
                             struct json_object **result, struct error *err)
{
    if (values[0].present && json_object_array_length(values[0].list))
        return error_set(err, "'enable' must be empty: the greeting offers no capabilities");
    return true;
}

struct json_object *control_version(void)
{
    int numbers[3] = {0};
    char *position = (char *)HARTVISOR_VERSION;
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        numbers[i] = (int)strtol(position, &position, 10);
        if (*position == '.')
            position++;
    }
    /* Clients look for these members; they may not assume a feature of QEMU from the numbers. */
    static const char *const names[] = {"major", "minor", "micro"};
    struct json_object *triple = json_object_new_object(), *version = json_object_new_object();
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        json_object_object_add(triple, names[i], json_object_new_int(numbers[i]));
    json_object_object_add(version, "qemu", triple);
    json_object_object_add(version, "package",
                           json_object_new_string("hartvisor " HARTVISOR_VERSION));
    return version;
}

static bool run_version(void *opaque, const struct control_value *values,
                        struct json_object **result, struct error *err)
{
    *result = control_version();
    return true;
}

static struct json_object *describe(const struct control_command *command)
{
    struct json_object *description = json_object_new_object();
    json_object_object_add(description, "name", json_object_new_string(command->name));
    if (command->alias)
        json_object_object_add(description, "alias", json_object_new_string(command->alias));
    json_object_object_add(description, "help", json_object_new_string(command->help));
    struct json_object *arguments = json_object_new_array();
    for (size_t i = 0; i < argument_count(command); i++) {
        const struct control_argument *argument = &command->arguments[i];
        struct json_object *object = json_object_new_object();
        json_object_object_add(object, "name", json_object_new_string(argument->name));
        json_object_object_add(object, "type", json_object_new_string(types[argument->type].name));
        json_object_object_add(object, "optional", json_object_new_boolean(argument->optional));
        json_object_array_add(arguments, object);
    }
    json_object_object_add(description, "arguments", arguments);
    return description;
}

static bool run_commands(void *opaque, const struct control_value *values,
                         struct json_object **result, struct error *err)
{
    struct control *control = opaque;
    *result = json_object_new_array();
    for (size_t i = 0; i < control->entry_count; i++)
        json_object_array_add(*result, describe(control->entries[i].command));
    return true;
}

static const struct control_command own_commands[] = {
    {
        .name = "qmp_capabilities",
        .help = "open a connection for commands",
        .arguments = {{"enable", CONTROL_LIST, .optional = true}},
        .run = run_capabilities,
    },
    {
        .name = "query-version",
        .alias = "version",
        .help = "say which hartvisor this is",
        .run = run_version,
    },
    {
        .name = "query-commands",
        .help = "list the commands with their arguments",
        .run = run_commands,
    },
};

/* --- Events --- */

static void send_events(void *opaque)
{
    struct control *control = opaque;
    pthread_mutex_lock(&control->lock);
    struct control_event *event = control->first_event;
    control->first_event = NULL;
    control->last_event = &control->first_event;
    pthread_mutex_unlock(&control->lock);
    while (event) {
        struct control_event *next = event->next;
        if (control->server)
            server_broadcast(control->server, event->text);
        free(event->text);
        free(event);
        event = next;
    }
}

static struct json_object *timestamp(void)
{
    struct timeval now;
    gettimeofday(&now, NULL);
    struct json_object *object = json_object_new_object();
    json_object_object_add(object, "seconds", json_object_new_int64(now.tv_sec));
    json_object_object_add(object, "microseconds", json_object_new_int64(now.tv_usec));
    return object;
}

void control_emit(struct control *control, const char *name, struct json_object *data)
{
    struct json_object *object = json_object_new_object();
    json_object_object_add(object, "timestamp", timestamp());
    json_object_object_add(object, "event", json_object_new_string(name));
    if (data)
        json_object_object_add(object, "data", data);
    struct control_event *event = xcalloc(1, sizeof(*event));
    event->text = control_line(object);

    pthread_mutex_lock(&control->lock);
    *control->last_event = event;
    control->last_event = &event->next;
    pthread_mutex_unlock(&control->lock);
    if (loop_on_thread(control->loop))
        send_events(control);
    else
        loop_schedule(control->event_task);
}

/* --- The table --- */

const struct control_entry *control_find(const struct control *control, const char *name)
{
    for (size_t i = 0; i < control->entry_count; i++)
        if (!strcmp(control->entries[i].command->name, name))
            return &control->entries[i];
    return NULL;
}

void control_add_commands(struct control *control, const struct control_command *commands,
                          size_t count, void *opaque)
{
    size_t total = control->entry_count + count;
    control->entries = xrealloc(control->entries, total * sizeof(*control->entries));
    for (size_t i = 0; i < count; i++) {
        assert(!control_find(control, commands[i].name));
        control->entries[control->entry_count++] =
            (struct control_entry){.command = &commands[i], .opaque = opaque};
    }
}

struct control *control_create(struct loop *loop)
{
    struct control *control = xcalloc(1, sizeof(*control));
    control->loop = loop;
    control->last_event = &control->first_event;
    pthread_mutex_init(&control->lock, NULL);
    control->event_task = loop_add_task(loop, send_events, control);
    control_add_commands(control, own_commands, ARRAY_SIZE(own_commands), control);
    return control;
}

bool control_listen(struct control *control, const char *specification, struct error *err)
{
    assert(!control->server);
    const char *path = unix_path(specification, err);
    if (path)
        control->server = server_create(control, path, err);
    return control->server || error_prefix(err, "--control");
}

void control_destroy(struct control *control)
{
    if (!control)
        return;
    loop_remove_task(control->event_task);
    send_events(control);
    server_destroy(control->server);
    screen_destroy(control->screen);
    pthread_mutex_destroy(&control->lock);
    free(control->entries);
    free(control);
}
