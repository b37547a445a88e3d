/* `hartvisor version`: what this build is made of. */
#include <json-c/json.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/bits.h"
#include "cli/cli.h"
#include "components.h"

/* The libraries that the build knows; version NULL: not built in, "": it does not tell. */
static const struct {
    const char *name, *version;
} components[] = {COMPONENTS};

static const char *const engines[] = {
#ifdef __x86_64__
    "jit",
#endif
    "interp",
};

struct version_options {
    bool json;
};

static void print_json(const struct utsname *host)
{
    struct json_object *object = json_object_new_object(), *list = json_object_new_array();
    struct json_object *libraries = json_object_new_object();
    json_object_object_add(object, "version", json_object_new_string(HARTVISOR_VERSION));
    json_object_object_add(object, "system", json_object_new_string(host->sysname));
    json_object_object_add(object, "machine", json_object_new_string(host->machine));
    for (size_t i = 0; i < ARRAY_SIZE(engines); i++)
        json_object_array_add(list, json_object_new_string(engines[i]));
    json_object_object_add(object, "engines", list);
    for (size_t i = 0; i < ARRAY_SIZE(components); i++)
        json_object_object_add(libraries, components[i].name,
                               components[i].version ? json_object_new_string(components[i].version)
                                                     : NULL);
    json_object_object_add(object, "libraries", libraries);
    printf("%s\n", json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY |
                                                              JSON_C_TO_STRING_SPACED));
    json_object_put(object);
}

static void print_text(const struct utsname *host)
{
    printf("hartvisor %s (%s %s)\n", HARTVISOR_VERSION, host->sysname, host->machine);
    printf("engines:");
    for (size_t i = 0; i < ARRAY_SIZE(engines); i++)
        printf(" %s", engines[i]);
    printf("\nlibraries:\n");
    for (size_t i = 0; i < ARRAY_SIZE(components); i++) {
        const char *version = components[i].version;
        printf("  %-12s %s\n", components[i].name,
               !version   ? "not built in"
               : *version ? version
                          : "built in");
    }
}

static const struct option rows[] = {
    {
        .name = "json",
        .help = "print it as JSON",
        .parse = option_flag,
        .target = offsetof(struct version_options, json),
    },
};
static const struct option_table table = {rows, ARRAY_SIZE(rows)};

static int run(const struct cli_command *self, char **words)
{
    struct version_options options = {0};
    struct option_arguments arguments = {.words = words};
    struct utsname host;
    int status;
    if (!cli_parse(self, words, &options, &arguments, &status))
        return status;
    uname(&host);
    (options.json ? print_json : print_text)(&host);
    return 0;
}

const struct cli_command version_command = {
    .name = "version",
    .arguments = "[--json]",
    .help = "print the version and what is built in",
    .manual = "Prints the version, the engines, and the libraries that are built in.",
    .options = &table,
    .run = run,
};
