/* `hartvisor ctl`: one command for a running machine, over its control socket. */
#include <json-c/json.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "control/text.h"

static void print_json(struct json_object *value)
{
    printf("%s\n",
           json_object_to_json_string_ext(value, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
                                                     JSON_C_TO_STRING_NOSLASHESCAPE));
}

/* words[0] is the command, the rest its arguments. */
static bool run_command_words(struct client *client, char **words, size_t count, bool json,
                              bool *refused, struct error *err)
{
    struct json_object *commands = client_commands(client, refused, err);
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
        result = client_call(client, name, arguments, refused, err);
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
    struct client client;
    struct error err;
    int status;
    if (!cli_parse(self, words, &options, &arguments, &status))
        return status;
    if (arguments.count < 2) {
        error_set(&err, "ctl needs the control socket and a command: hartvisor ctl unix:PATH help");
        return cli_fail(&err);
    }
    bool refused = false;
    bool ok = client_open(&client, arguments.words[0], &err) &&
              run_command_words(&client, arguments.words + 1, arguments.count - 1, options.json,
                                &refused, &err);
    client_close(&client);
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
