/* `hartvisor devices`: the host's PCI devices, and whose they are. */
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/base.h"
#include "base/suggest.h"
#include "cli/cli.h"
#include "hartvisor/passthrough.h"

#define STATUS_NOT_READY 1

struct devices_options {
    const char *type, *sysfs;
    bool json, group, dry_run, force;
    uint64_t memory;
};

/* What an action works with. */
struct devices {
    struct passthrough_manager *manager;
    const struct devices_options *options;
    char **words; /* behind the action */
    size_t count;
    unsigned flags; /* for printing */
};

/* --- Actions; each returns the exit status --- */

static int list_devices(struct devices *devices)
{
    uint32_t kinds = PASSTHROUGH_ALL_KINDS;
    struct error err;
    if (devices->options->type && !passthrough_kinds_parse(devices->options->type, &kinds, &err)) {
        error_prefix(&err, "--type");
        return cli_fail(&err);
    }
    passthrough_manager_print(devices->manager, kinds, stdout, devices->flags);
    return 0;
}

static struct passthrough_device *find_device(struct devices *devices, const char *word,
                                              struct error *err)
{
    struct pci_address address;
    if (!pci_address_parse(word, &address, err))
        return NULL;
    return passthrough_manager_find(devices->manager, &address, err);
}

static int show_device(struct devices *devices)
{
    struct error err;
    struct passthrough_device *device = find_device(devices, devices->words[0], &err);
    if (!device)
        return cli_fail(&err);
    passthrough_device_print(devices->manager, device, stdout, devices->flags);
    return 0;
}

static int list_groups(struct devices *devices)
{
    passthrough_groups_print(devices->manager, stdout, devices->flags);
    return 0;
}

static int check_machine(struct devices *devices)
{
    bool ready =
        passthrough_check_print(devices->manager, devices->options->memory, stdout, devices->flags);
    return ready ? 0 : STATUS_NOT_READY;
}

typedef bool bind_function(struct passthrough_manager *manager, struct passthrough_device **devices,
                           size_t count, const struct passthrough_bind_options *options,
                           struct error *err);

/* The drivers before, to say afterwards what has changed. */
typedef char driver_name[sizeof(((struct passthrough_info *)0)->driver)];

static driver_name *note_drivers(const struct passthrough_manager *manager)
{
    size_t count = passthrough_manager_count(manager);
    driver_name *drivers = xcalloc(count + 1, sizeof(*drivers));
    for (size_t i = 0; i < count; i++)
        snprintf(drivers[i], sizeof(drivers[i]), "%s",
                 passthrough_manager_device(manager, i)->info.driver);
    return drivers;
}

static void say_changes(const struct passthrough_manager *manager, driver_name *before)
{
    for (size_t i = 0; i < passthrough_manager_count(manager); i++) {
        const struct passthrough_info *info = &passthrough_manager_device(manager, i)->info;
        if (strcmp(before[i], info->driver) != 0)
            printf("%s: %s -> %s\n", info->name, before[i][0] ? before[i] : "no driver",
                   info->driver[0] ? info->driver : "no driver");
    }
}

static int change_drivers(struct devices *devices, bind_function *function)
{
    const struct devices_options *given = devices->options;
    const struct passthrough_bind_options options = {
        .group = given->group, .force = given->force, .dry_run = given->dry_run ? stdout : NULL};
    struct passthrough_device **chosen = xcalloc(devices->count, sizeof(*chosen));
    struct error err;
    bool ok = true;
    if (given->sysfs && !given->dry_run)
        ok = error_set(&err, "--sysfs is a copy, in which no driver changes: add --dry-run");
    for (size_t i = 0; i < devices->count && ok; i++) {
        chosen[i] = find_device(devices, devices->words[i], &err);
        ok = chosen[i];
    }
    driver_name *before = note_drivers(devices->manager);
    ok = ok && function(devices->manager, chosen, devices->count, &options, &err);
    say_changes(devices->manager, before);
    free(before);
    free(chosen);
    return ok ? 0 : cli_fail(&err);
}

static int bind_devices(struct devices *devices)
{
    return change_drivers(devices, passthrough_bind);
}

static int unbind_devices(struct devices *devices)
{
    return change_drivers(devices, passthrough_unbind);
}

/* --- The command line --- */

static const struct action {
    const char *name;
    size_t least, most; /* words behind it */
    int (*run)(struct devices *devices);
    const char *options; /* those that mean something with it */
} actions[] = {
    {"list", 0, 0, list_devices, "type json sysfs"},
    {"show", 1, 1, show_device, "json sysfs"},
    {"groups", 0, 0, list_groups, "json sysfs"},
    {"check", 0, 0, check_machine, "json sysfs memory"},
    {"bind", 1, SIZE_MAX, bind_devices, "group dry-run force sysfs"},
    {"unbind", 1, SIZE_MAX, unbind_devices, "group dry-run sysfs"},
};

static const struct option rows[] = {
    {
        .name = "type",
        .letter = 't',
        .argument = "TYPE[,TYPE]",
        .help = "only gpu, npu, network, storage, usb, audio, bridge, other",
        .manual = "Narrower types are gpu-nvidia, gpu-amd, gpu-intel, gpu-mobile, gpu-other, "
                  "accelerator, ethernet, wifi, infiniband, network-other, nvme, sata, "
                  "storage-other.",
        .parse = option_string,
        .target = offsetof(struct devices_options, type),
    },
    {
        .name = "json",
        .help = "print for programs: with list, show, groups, check",
        .parse = option_flag,
        .target = offsetof(struct devices_options, json),
    },
    {
        .name = "memory",
        .letter = 'm',
        .argument = "SIZE",
        .help = "check for a guest with that much RAM (default 4G)",
        .parse = option_size,
        .target = offsetof(struct devices_options, memory),
    },
    {
        .name = "group",
        .letter = 'g',
        .help = "bind or unbind whole IOMMU groups",
        .manual = "All devices of the groups of those named, but for bridges.",
        .parse = option_flag,
        .target = offsetof(struct devices_options, group),
    },
    {
        .name = "dry-run",
        .letter = 'n',
        .help = "only print what bind or unbind would write to sysfs",
        .parse = option_flag,
        .target = offsetof(struct devices_options, dry_run),
    },
    {
        .name = "force",
        .letter = 'f',
        .help = "bind even what the host itself uses",
        .manual = "Without it, the controller of a mounted disk or of swap, the GPU of the "
                  "console, the network link of the default route or the only one that is up, a "
                  "GPU or NPU that a process has open, a function with virtual functions, and a "
                  "device whose IOMMU group would not become viable are refused.",
        .parse = option_flag,
        .target = offsetof(struct devices_options, force),
    },
    {
        .name = "sysfs",
        .argument = "DIR",
        .help = "look at a copy of a machine: DIR/sys, DIR/proc, DIR/dev",
        .parse = option_string,
        .target = offsetof(struct devices_options, sysfs),
    },
};
static const struct option_table table = {rows, ARRAY_SIZE(rows)};

static const struct action *find_action(const char *word, struct error *err)
{
    struct suggestion nearest;
    suggest_begin(&nearest, word);
    for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
        if (!strcmp(actions[i].name, word))
            return &actions[i];
        suggest_offer(&nearest, actions[i].name);
    }
    if (nearest.name)
        error_set(err, "devices does not know '%s': did you mean %s?", word, nearest.name);
    else
        error_set(err,
                  "devices does not know '%s': it is list, show, groups, check, bind or unbind",
                  word);
    return NULL;
}

static bool has_word(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (; *list; list += strspn(list, " ")) {
        size_t next = strcspn(list, " ");
        if (next == length && !strncmp(list, word, length))
            return true;
        list += next;
    }
    return false;
}

/* An option that the action would pass over is a mistake: --force with list, --json with bind. */
static bool check_options(const struct action *action, const struct devices_options *options,
                          struct error *err)
{
    const struct {
        const char *name;
        bool given;
    } given[] = {
        {"type", options->type},       {"json", options->json},   {"memory", options->memory},
        {"group", options->group},     {"force", options->force}, {"sysfs", options->sysfs},
        {"dry-run", options->dry_run},
    };
    for (size_t i = 0; i < ARRAY_SIZE(given); i++)
        if (given[i].given && !has_word(action->options, given[i].name))
            return error_set(err, "--%s means nothing to 'devices %s'", given[i].name,
                             action->name);
    return true;
}

static bool check_words(const struct action *action, const struct devices *devices,
                        struct error *err)
{
    if (devices->count < action->least)
        return error_set(err, "devices %s needs an address: hartvisor devices %s 01:00.0",
                         action->name, action->name);
    if (devices->count > action->most)
        return error_set(err, "devices %s does not take '%s'", action->name,
                         devices->words[action->most]);
    return true;
}

static unsigned print_flags(bool json)
{
    struct winsize size;
    const char *no_colour = getenv("NO_COLOR"), *terminal = getenv("TERM");
    if (json)
        return PASSTHROUGH_PRINT_JSON;
    if (!isatty(STDOUT_FILENO))
        return 0;
    unsigned flags = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col
                         ? PASSTHROUGH_PRINT_WIDTH(size.ws_col > 160 ? 160 : size.ws_col)
                         : 0;
    bool plain = (no_colour && *no_colour) || (terminal && !strcmp(terminal, "dumb"));
    return flags | (plain ? 0 : PASSTHROUGH_PRINT_COLOUR);
}

static int run(const struct cli_command *self, char **words)
{
    struct devices_options options = {0};
    struct option_arguments arguments = {.words = words};
    struct devices devices = {.options = &options};
    struct error err;
    int status;
    if (!cli_parse(self, words, &options, &arguments, &status))
        return status;
    bool named = arguments.count > 0;
    const struct action *action = named ? find_action(words[0], &err) : &actions[0];
    if (!action)
        return cli_fail(&err);
    devices.words = words + named;
    devices.count = arguments.count - named;
    if (!check_options(action, &options, &err) || !check_words(action, &devices, &err))
        return cli_fail(&err);
    options.memory = options.memory ? options.memory : UINT64_C(4) << 30;
    devices.flags = print_flags(options.json);
    const struct passthrough_config config = {.root = options.sysfs};
    devices.manager = passthrough_manager_create(&config, &err);
    if (devices.manager && passthrough_manager_scan(devices.manager, &err))
        status = action->run(&devices);
    else
        status = cli_fail(&err);
    passthrough_manager_destroy(devices.manager);
    return status;
}

const struct cli_command devices_command = {
    .name = "devices",
    .arguments = "[list|show|groups|check|bind|unbind] [ADDRESS]... [OPTION]...",
    .help = "find this machine's PCI devices and make them ready for guests",
    .manual = "Without an action or with list, prints the PCI devices of this machine. show prints "
              "all about one, as root with its capabilities. groups prints which devices the IOMMU "
              "can only separate together. check says whether the machine is ready to give devices "
              "to guests, and what to do where it is not; the exit status is then 1. bind gives "
              "devices to vfio-pci and remembers their drivers; unbind gives them back. An ADDRESS "
              "is written 0000:01:00.0 or 01:00.0.",
    .options = &table,
    .run = run,
};
