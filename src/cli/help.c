/* `hartvisor help`, --help and the man page: all from the tables. */
#include <ctype.h>
#include <string.h>

#include "base/bits.h"
#include "cli/cli.h"

/* --- --help --- */

void help_overview(FILE *out)
{
    fprintf(out, "hartvisor runs RISC-V guests.\n\n");
    for (size_t i = 0; cli_commands[i]; i++)
        fprintf(out, "  hartvisor %-8s %s\n", cli_commands[i]->name, cli_commands[i]->help);
    fprintf(out, "\n'hartvisor help COMMAND' says more; `man hartvisor` says it all.\n"
                 "\n  hartvisor run -k Image -i initrd -a console=ttyS0\n");
}

/* A paragraph in lines that fit a terminal. */
static void wrap(FILE *out, const char *text)
{
    for (int column = 0; *text; text += strspn(text, " ")) {
        int length = (int)strcspn(text, " ");
        if (column && column + 1 + length > 80) {
            putc('\n', out);
            column = 0;
        }
        column += fprintf(out, "%s%.*s", column ? " " : "", length, text);
        text += length;
    }
    putc('\n', out);
}

void help_command_text(const struct cli_command *command, FILE *out)
{
    fprintf(out, "usage: hartvisor %s %s\n\n", command->name, command->arguments);
    wrap(out, command->manual);
    if (command->options->rows[0].name)
        putc('\n', out); /* otherwise a heading follows, which brings its own */
    options_help(command->options, out);
}

/* --- The man page --- */

/* Text as roff: nothing in it is a request or an escape, and a hyphen is what one types. */
static void roff_text(FILE *out, const char *text)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", out);
    for (; *text; text++) {
        if (*text == '\\')
            fputs("\\e", out);
        else if (*text == '-')
            fputs("\\-", out);
        else
            putc(*text, out);
    }
}

/* A sentence from a help line. */
static void roff_sentence(FILE *out, const char *text)
{
    char first[] = {(char)toupper((unsigned char)*text), '\0'};
    roff_text(out, first);
    roff_text(out, text + (*text ? 1 : 0));
    fputs(".\n", out);
}

static void roff_request(FILE *out, const char *request, const char *text)
{
    fprintf(out, "%s ", request);
    roff_text(out, text);
    putc('\n', out);
}

static void roff_option(FILE *out, const struct option *row)
{
    fputs(".TP\n", out);
    if (row->letter)
        fprintf(out, "\\fB\\-%c\\fR, ", row->letter);
    fputs("\\fB\\-\\-", out);
    roff_text(out, row->name);
    fputs("\\fR", out);
    if (row->argument) {
        fputs(" \\fI", out);
        roff_text(out, row->argument);
        fputs("\\fR", out);
    }
    putc('\n', out);
    roff_sentence(out, row->help);
    if (row->manual) {
        roff_text(out, row->manual);
        putc('\n', out);
    }
}

static void roff_command(FILE *out, const struct cli_command *command)
{
    fputs(".SS hartvisor ", out);
    roff_text(out, command->name);
    putc(' ', out);
    roff_text(out, command->arguments);
    putc('\n', out);
    roff_text(out, command->manual);
    putc('\n', out);
    for (size_t i = 0; i < command->options->count; i++) {
        const struct option *row = &command->options->rows[i];
        if (row->name) {
            roff_option(out, row);
        } else {
            fputs(".PP\n\\fI", out);
            roff_text(out, row->help);
            fputs("\\fR\n", out);
        }
    }
}

struct entry {
    const char *term, *text;
};

/* Parts of the page that no table has: paragraphs, and entries with a term. */
static const struct section {
    const char *title;
    const struct entry *entries; /* a NULL term: a paragraph; NULL text: the end */
} sections[] = {
    {"EXIT STATUS",
     (const struct entry[]){
         {NULL, "hartvisor run exits with the guest's status:"},
         {"0", "the guest shut down (SBI system reset, power off), or its program reported a pass "
               "to the test finisher, tohost or semihosting; or the user ended it (Ctrl-A x, the "
               "control command quit)."},
         {"1 to 255", "the code of the failure that the guest reported; 255 for greater ones."},
         {"125", "hartvisor itself failed: a wrong option, a file, the host. One line on stderr "
                 "says why, and nothing was changed."},
         {"128 + N", "signal N ended it."},
         {NULL, "hartvisor devices check exits with 1 if the machine is not ready."},
         {0}}},
    {"SIGNALS",
     (const struct entry[]){
         {NULL, "SIGINT, SIGTERM and SIGHUP end the machine in order: disks are flushed, sockets "
                "removed, the terminal restored. A second one, a second later, ends the process at "
                "once. In a terminal, Ctrl-C belongs to the guest."},
         {0}}},
    {"CONTROL SOCKET",
     (const struct entry[]){
         {NULL, "--control makes a socket that speaks QMP, QEMU's machine protocol, so that its "
                "clients work: JSON requests after qmp_capabilities, and the events RESET, "
                "SHUTDOWN, STOP, RESUME and POWERDOWN. The command query-commands lists the "
                "commands with their arguments. Only the user may connect."},
         {0}}},
    {"EXAMPLES",
     (const struct entry[]){
         {"hartvisor run -k Image -i initrd.gz -a \"console=ttyS0\" -c 4 -m 2G",
          "Boots a Linux kernel with four harts."},
         {"hartvisor run -f program.elf", "Runs a bare-metal program in M-mode."},
         {"hartvisor run -k Image -d disk.img,snapshot -n user,hostfwd=tcp::2222-:22",
          "Gives it a disk that stays as it is, and forwards a port to its SSH server."},
         {"hartvisor run -k Image --dump-dtb - | dtc -I dtb", "Shows the device tree."},
         {"hartvisor ctl unix:vm.sock status", "Asks a machine started with --control "
                                               "unix:vm.sock whether it runs."},
         {"hartvisor devices list --type gpu,npu", "Lists this machine's GPUs and accelerators."},
         {"hartvisor devices bind --dry-run --group 01:00.0",
          "Shows what would give the IOMMU group of that device to vfio-pci."},
         {0}}},
    {"SEE ALSO", (const struct entry[]){{NULL, "qemu(1), dtc(1), socat(1), lspci(8)"}, {0}}},
};

static void roff_entry(FILE *out, const char *term, const char *text)
{
    if (term) {
        fputs(".TP\n.B ", out);
        roff_text(out, term);
        putc('\n', out);
    } else {
        fputs(".PP\n", out);
    }
    roff_text(out, text);
    putc('\n', out);
}

void help_manual(FILE *out)
{
    fputs(".TH HARTVISOR 1 \"\" \"hartvisor " HARTVISOR_VERSION "\" \"User Commands\"\n"
          ".nh\n.ad l\n.SH NAME\nhartvisor \\- run RISC\\-V guests\n.SH SYNOPSIS\n",
          out);
    for (size_t i = 0; cli_commands[i]; i++) {
        fprintf(out, "%s.B hartvisor %s\n", i ? ".br\n" : "", cli_commands[i]->name);
        roff_text(out, cli_commands[i]->arguments);
        putc('\n', out);
    }
    fputs(".SH DESCRIPTION\n", out);
    roff_text(out, "hartvisor is a RISC-V virtual machine monitor for the people who write "
                   "operating systems, firmware and drivers. Options may be written --name VALUE, "
                   "--name=VALUE, -n VALUE or -nVALUE. Where an option takes a list, a comma that "
                   "belongs to a name is written twice.\n");
    fputs(".SH COMMANDS\n", out);
    for (size_t i = 0; cli_commands[i]; i++)
        roff_command(out, cli_commands[i]);
    fputs(".SH KEYS\n", out);
    roff_text(out, "With --serial stdio on a terminal, every key goes to the guest but these:\n");
    for (const struct escape_key *key = escape_keys; key->name; key++)
        roff_entry(out, key->name, key->help);
    for (size_t i = 0; i < ARRAY_SIZE(sections); i++) {
        roff_request(out, ".SH", sections[i].title);
        for (const struct entry *entry = sections[i].entries; entry->text; entry++)
            roff_entry(out, entry->term, entry->text);
    }
}

/* --- The command --- */

struct help_options {
    bool man;
};

static const struct option rows[] = {
    {
        .name = "man",
        .help = "print the man page, as roff",
        .parse = option_flag,
        .target = offsetof(struct help_options, man),
    },
};
static const struct option_table table = {rows, ARRAY_SIZE(rows)};

static int run(const struct cli_command *self, char **words)
{
    struct help_options options = {0};
    struct option_arguments arguments = {.words = words};
    struct error err;
    int status;
    if (!cli_parse(self, words, &options, &arguments, &status))
        return status;
    if (options.man) {
        help_manual(stdout);
        return 0;
    }
    if (!arguments.count) {
        help_overview(stdout);
        return 0;
    }
    const struct cli_command *command = cli_find(arguments.words[0], &err);
    if (!command)
        return cli_fail(&err);
    help_command_text(command, stdout);
    return 0;
}

const struct cli_command help_command = {
    .name = "help",
    .arguments = "[--man] [COMMAND]",
    .help = "say what a command does",
    .manual = "Prints the options of a command, or what commands there are.",
    .options = &table,
    .run = run,
};
