/* `hartvisor run`: a machine from options to exit status. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/log.h"
#include "base/loop.h"
#include "cli/cli.h"
#include "cli/prompt.h"
#include "cli/run_options.h"
#include "cli/signals.h"
#include "control/control.h"
#include "debug/debug.h"
#include "debug/profile.h"
#include "debug/report.h"
#include "debug/symbols.h"
#include "display/display.h"
#include "machine/machine.h"

static double seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

/* Host times; a reset begins the count of instructions anew. */
struct stats {
    uint64_t began, counting;
};

static void note_reset(void *opaque, const struct machine_event_info *info)
{
    struct stats *stats = opaque;
    if (info->event == MACHINE_EVENT_RESET)
        stats->counting = loop_now();
}

static void print_stats(const struct stats *stats, const struct machine *machine, unsigned harts)
{
    struct rusage usage;
    uint64_t now = loop_now(), total = machine_instructions(machine);
    getrusage(RUSAGE_SELF, &usage);
    log_info("%.3f s wall, %.3f s user, %.3f s system, %ld MiB resident at most",
             (double)(now - stats->began) / 1e9, seconds(usage.ru_utime), seconds(usage.ru_stime),
             usage.ru_maxrss >> 10);
    log_info("%" PRIu64 " instructions%s, %.1f million a second", total,
             stats->counting != stats->began ? " since the last reset" : "",
             (double)total * 1e3 / (double)(now - stats->counting + 1));
    for (unsigned i = 0; i < harts && harts > 1; i++)
        log_info("  hart %u: %" PRIu64 " instructions", i, machine_hart_instructions(machine, i));
    const char *what;
    uint64_t count;
    for (unsigned i = 0; machine_get_count(machine, i, &what, &count); i++)
        if (count)
            log_info("%12" PRIu64 " %s", count, what);
}

static bool write_file(const char *path, const void *data, size_t size, struct error *err)
{
    bool standard = strcmp(path, "-") == 0;
    FILE *file = standard ? stdout : fopen(path, "we");
    if (!file)
        return error_set_errno(err, errno, "--dump-dtb: cannot write '%s'", path);
    bool ok = fwrite(data, 1, size, file) == size && !fflush(file);
    int number = errno;
    if (!standard && fclose(file) && ok) {
        number = errno;
        ok = false;
    }
    return ok || error_set_errno(err, number, "--dump-dtb: cannot write '%s'", path);
}

/* Builds the machine only for its tree, without touching the terminal. */
static int dump_tree(struct run_options *options)
{
    struct error err;
    options->config.serial = "none";
    if (options->config.console)
        options->config.console = "none";
    options->config.gpu = options->config.display = NULL; /* the tree knows no PCI device */
    struct machine *machine = machine_create(&options->config, &err);
    if (!machine)
        return cli_fail(&err);
    size_t size;
    const void *tree = machine_device_tree(machine, &size);
    bool ok = write_file(options->dump_dtb, tree, size, &err);
    machine_destroy(machine);
    return ok ? 0 : cli_fail(&err);
}

/* NULL without --gdb, or with an error. */
static struct debug_server *listen_for_debuggers(struct machine *machine,
                                                 const struct run_options *options,
                                                 struct symbols *symbols, struct error *err)
{
    err->message[0] = '\0';
    if (!options->gdb && options->gdb_wait)
        error_set(err, "--gdb-wait: say with --gdb where to wait");
    if (!options->gdb)
        return NULL;
    struct debug_server *server =
        debug_server_create(machine, options->gdb, options->gdb_wait, err);
    if (!server)
        return NULL;
    debug_server_set_symbols(server, symbols);
    log_info("waiting for a debugger at %s", debug_server_address(server));
    return server;
}

/* NULL without --symbols, or with an error. */
static struct symbols *load_symbols(const struct run_options *options, struct error *err)
{
    struct symbols *symbols = options->symbols_count ? symbols_create() : NULL;
    err->message[0] = '\0';
    for (unsigned i = 0; i < options->symbols_count; i++)
        if (!symbols_add(symbols, options->symbols[i].file, options->symbols[i].offset, err)) {
            error_prefix(err, "--symbols");
            symbols_destroy(symbols);
            return NULL;
        }
    return symbols;
}

/* From a paused machine to its end. */
static int run_machine(struct machine *machine, const struct run_options *options)
{
    struct error err;
    struct control *control = control_create(machine_loop(machine));
    const struct display_devices *screen = machine_screen(machine);
    control_add_machine(control, machine);
    if (screen) {
        control_add_display(control, screen);
        control_add_gpu(control, screen->gpu);
    }
    if ((options->trace && !trace_configure(options->trace, &err)) ||
        (options->control && !control_listen(control, options->control, &err))) {
        control_destroy(control);
        return cli_fail(&err);
    }
    struct prompt *prompt = prompt_create(machine, control);
    signals_attach(machine);

    struct stats stats = {.began = loop_now()};
    stats.counting = stats.began;
    machine_add_listener(machine, note_reset, &stats);
    int status = machine_run(machine);

    signals_attach(NULL);
    prompt_destroy(prompt);
    control_destroy(control);
    if (options->stats)
        print_stats(&stats, machine, options->config.cpus);
    return status;
}

/* The same, with what looks inside. */
static int run_watched(struct machine *machine, const struct run_options *options,
                       struct symbols *symbols)
{
    struct error err;
    struct profile *profile = NULL;
    if (options->profile && !(profile = profile_create(machine, options->profile, symbols, &err)))
        return cli_fail(&err);
    struct report *report = symbols ? report_create(machine, symbols) : NULL;
    struct debug_server *server = listen_for_debuggers(machine, options, symbols, &err);
    int status = err.message[0] ? cli_fail(&err) : run_machine(machine, options);
    debug_server_destroy(server);
    if (!profile_finish(profile, &err))
        status = cli_fail(&err);
    report_destroy(report);
    return status;
}

static int run_guest(struct run_options *options)
{
    struct error err;
    if (options->dump_dtb)
        return dump_tree(options);
    if (!signals_init(&err))
        return cli_fail(&err);
    struct symbols *symbols = load_symbols(options, &err);
    if (err.message[0])
        return cli_fail(&err);
    struct machine *machine = machine_create(&options->config, &err);
    int status = machine ? run_watched(machine, options, symbols) : cli_fail(&err);
    machine_destroy(machine);
    symbols_destroy(symbols);
    /* A failure stays one in the eight bits that the parent sees. */
    return status & ~0xff ? 0xff : status;
}

static int run(const struct cli_command *self, char **words)
{
    struct run_options options;
    struct option_arguments arguments = {.words = words};
    int status;
    run_options_init(&options);
    if (cli_parse(self, words, &options, &arguments, &status)) {
        struct error err;
        if (arguments.count) {
            error_set(&err, "run takes no argument '%s': write --kernel %s to boot it",
                      arguments.words[0], arguments.words[0]);
            status = cli_fail(&err);
        } else {
            status = run_guest(&options);
        }
        trace_finish();
    }
    run_options_finish(&options);
    return status;
}

const struct cli_command run_command = {
    .name = "run",
    .arguments = "[OPTION]...",
    .help = "boot a guest",
    .manual = "Boots a guest on a board that is compatible with QEMU's virt, and exits with the "
              "guest's status.",
    .options = &run_option_table,
    .run = run,
};
