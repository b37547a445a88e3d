/* `hartvisor gpus`: what a guest's screen could be drawn by, and what a running one is drawn by. */
#include <json-c/json.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "gpu/gpu.h"

struct gpus_options {
    const char *sysfs;
    bool json, reset, once;
};

struct gpus {
    const struct gpus_options *options;
    char **words; /* behind the action */
    size_t count;
    unsigned flags; /* for printing */
};

static int list_backends(struct gpus *gpus)
{
    struct error err;
    const struct gpu_manager_config config = {.root = gpus->options->sysfs};
    struct gpu_manager *manager = gpu_manager_create(&config, &err);
    if (!manager)
        return cli_fail(&err);
    gpu_manager_probe(manager);
    gpu_manager_print(manager, stdout, gpus->flags);
    gpu_manager_destroy(manager);
    return 0;
}

/* One command with an answer; NULL with the status that is to be returned. */
static struct json_object *ask(struct client *client, const char *name,
                               struct json_object *arguments, int *status)
{
    struct error err;
    bool refused = false;
    struct json_object *result = client_call(client, name, arguments, &refused, &err);
    json_object_put(arguments);
    if (!result)
        *status = refused ? (fprintf(stderr, "hartvisor: %s\n", err.message), STATUS_ANSWER)
                          : cli_fail(&err);
    return result;
}

static bool begin(struct client *client, const char *socket, int *status)
{
    struct error err;
    bool refused = false;
    struct json_object *commands =
        client_open(client, socket, &err) ? client_commands(client, &refused, &err) : NULL;
    if (!commands)
        *status = cli_fail(&err);
    json_object_put(commands);
    return commands;
}

static volatile sig_atomic_t interrupted;

static void interrupt(int number)
{
    interrupted = 1;
}

static bool print_stats(struct client *client, const struct gpus *gpus, int *status)
{
    struct json_object *arguments = json_object_new_object();
    struct gpu_stats stats;
    if (gpus->options->reset)
        json_object_object_add(arguments, "reset", json_object_new_boolean(true));
    struct json_object *result = ask(client, "query-gpu-stats", arguments, status);
    if (!result)
        return false;
    gpu_stats_parse(result, &stats);
    gpu_stats_print(&stats, stdout, gpus->flags);
    fflush(stdout);
    json_object_put(result);
    return true;
}

/* On a terminal a table that is drawn anew each second, until Ctrl-C. */
static int show_stats(struct gpus *gpus)
{
    struct client client;
    int status = 0;
    bool refreshes = isatty(STDOUT_FILENO) && !gpus->options->json && !gpus->options->once &&
                     !gpus->options->reset;
    const struct sigaction action = {.sa_handler = interrupt};
    if (refreshes)
        sigaction(SIGINT, &action, NULL);
    if (begin(&client, gpus->words[0], &status)) {
        do {
            if (refreshes)
                printf("\033[H\033[J");
            if (!print_stats(&client, gpus, &status))
                break;
            if (refreshes)
                nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
        } while (refreshes && !interrupted);
    }
    client_close(&client);
    return status;
}

/* Records for some seconds, and writes the file. */
static int record_trace(struct gpus *gpus)
{
    struct client client;
    struct error err;
    unsigned seconds = 5;
    int status = 0;
    if (gpus->count > 2 && (!option_count(gpus->words[2], &seconds, &err) || seconds > 3600)) {
        error_set(&err, "gpus trace: '%s' is no number of seconds: give 0 to 3600", gpus->words[2]);
        return cli_fail(&err);
    }
    char *path = gpus->words[1][0] == '/' ? xstrdup(gpus->words[1]) : NULL;
    char *folder = path ? NULL : getcwd(NULL, 0);
    if (!path)
        path = xasprintf("%s/%s", folder ? folder : ".", gpus->words[1]);
    free(folder);
    if (begin(&client, gpus->words[0], &status)) {
        struct json_object *started = ask(&client, "gpu-trace-start", NULL, &status);
        if (started) {
            sleep(seconds);
            struct json_object *arguments = json_object_new_object();
            json_object_object_add(arguments, "filename", json_object_new_string(path));
            json_object_put(ask(&client, "gpu-trace-stop", arguments, &status));
        }
        json_object_put(started);
    }
    client_close(&client);
    free(path);
    return status;
}

static const struct action {
    const char *name;
    size_t least, most; /* words behind it */
    int (*run)(struct gpus *gpus);
    bool counts; /* --reset and --once mean something with it */
    const char *usage;
} actions[] = {
    {"list", 0, 0, list_backends, false, "hartvisor gpus list"},
    {"stats", 1, 1, show_stats, true, "hartvisor gpus stats unix:PATH"},
    {"trace", 2, 3, record_trace, false, "hartvisor gpus trace unix:PATH FILE [SECONDS]"},
};

static const struct option rows[] = {
    {
        .name = "json",
        .help = "print for programs",
        .parse = option_flag,
        .target = offsetof(struct gpus_options, json),
    },
    {
        .name = "reset",
        .help = "with stats: begin to count anew, after printing",
        .parse = option_flag,
        .target = offsetof(struct gpus_options, reset),
    },
    {
        .name = "once",
        .help = "with stats: print once, on a terminal too",
        .parse = option_flag,
        .target = offsetof(struct gpus_options, once),
    },
    {
        .name = "sysfs",
        .argument = "DIR",
        .help = "with list: look for GPUs to pass through in a copy of a machine",
        .parse = option_string,
        .target = offsetof(struct gpus_options, sysfs),
    },
};
static const struct option_table table = {rows, ARRAY_SIZE(rows)};

static int run(const struct cli_command *self, char **words)
{
    struct gpus_options options = {0};
    struct option_arguments arguments = {.words = words};
    struct error err;
    int status;
    if (!cli_parse(self, words, &options, &arguments, &status))
        return status;
    const char *word = arguments.count ? arguments.words[0] : "list";
    const struct action *action = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
        if (!strcmp(actions[i].name, word))
            action = &actions[i];
    if (!action) {
        error_set(&err, "gpus does not know '%s': it is list, stats or trace", word);
        return cli_fail(&err);
    }
    size_t count = arguments.count ? arguments.count - 1 : 0;
    if (count < action->least || count > action->most) {
        error_set(&err, "write it as: %s", action->usage);
        return cli_fail(&err);
    }
    if (!action->counts && (options.reset || options.once)) {
        error_set(&err, "--%s means nothing to 'gpus %s'", options.reset ? "reset" : "once", word);
        return cli_fail(&err);
    }
    struct gpus gpus = {.options = &options, .words = arguments.words + 1, .count = count};
    if (options.json)
        gpus.flags |= GPU_PRINT_JSON;
    if (isatty(STDOUT_FILENO) && !getenv("NO_COLOR"))
        gpus.flags |= GPU_PRINT_COLOUR;
    return action->run(&gpus);
}

const struct cli_command gpus_command = {
    .name = "gpus",
    .arguments = "[list|stats CONTROL|trace CONTROL FILE [SECONDS]] [OPTION]...",
    .help = "what draws guests' screens: back ends, adapters, statistics",
    .manual = "list names the ways to give a guest a screen (see --gpu of run), says which of them "
              "this machine can use and why not the others, and tells of each adapter. stats "
              "shows what the renderer of a running machine does, by its control socket: on a "
              "terminal each second anew. trace records a timeline for some seconds (5) into a "
              "file that Perfetto and Chrome's about:tracing open.",
    .options = &table,
    .run = run,
};
