#include "cli/cli.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/suggest.h"
#include "cli/qemu.h"

const struct cli_command *const cli_commands[] = {
    &run_command,     &devices_command, &gpus_command, &ctl_command,
    &version_command, &help_command,    NULL,
};

int cli_fail(const struct error *err)
{
    log_error("%s", err->message);
    return STATUS_FAILURE;
}

bool cli_parse(const struct cli_command *command, char **words, void *target,
               struct option_arguments *arguments, int *status)
{
    struct error err;
    if (!options_parse(command->options, words, target, arguments, &err)) {
        *status = cli_fail(&err);
        return false;
    }
    if (!arguments->help)
        return true;
    help_command_text(command, stdout);
    *status = 0;
    return false;
}

const struct cli_command *cli_find(const char *name, struct error *err)
{
    struct suggestion nearest;
    suggest_begin(&nearest, name);
    for (size_t i = 0; cli_commands[i]; i++) {
        if (!strcmp(cli_commands[i]->name, name))
            return cli_commands[i];
        suggest_offer(&nearest, cli_commands[i]->name);
    }
    if (nearest.name)
        error_set(err, "there is no command '%s': did you mean 'hartvisor %s'?", name,
                  nearest.name);
    else
        error_set(err, "there is no command '%s': 'hartvisor --help' lists them", name);
    return NULL;
}

/* The options that stand for commands, and those that belong behind `run`. */
static const struct cli_command *find_option(const char *word, struct error *err)
{
    if (!strcmp(word, "--help") || !strcmp(word, "-h"))
        return &help_command;
    if (!strcmp(word, "--version") || !strcmp(word, "-V"))
        return &version_command;
    const char *advice = qemu_advice(word);
    if (advice && word[1] != '-')
        error_set(err, "%s is an option of QEMU: %s, behind 'hartvisor run'", word, advice);
    else
        error_set(err, "%s stands before the command: write 'hartvisor run %s'", word, word);
    return NULL;
}

int cli_main(int count, char **words)
{
    struct error err;
    if (count < 2) {
        error_set(&err, "a command is missing: 'hartvisor run -k FILE' boots a kernel, "
                        "'hartvisor --help' lists the commands");
        return cli_fail(&err);
    }
    const struct cli_command *command =
        words[1][0] == '-' ? find_option(words[1], &err) : cli_find(words[1], &err);
    if (!command)
        return cli_fail(&err);
    int status = command->run(command, words + 2);
    if (fflush(stdout) && errno != EPIPE) {
        error_set_errno(&err, errno, "cannot write to stdout");
        return cli_fail(&err);
    }
    return status;
}
