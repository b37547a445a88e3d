/* Parsing of command lines, against the real table of `hartvisor run` and a small one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/suggest.h"
#include "cli/cli.h"
#include "cli/line.h"
#include "cli/qemu.h"
#include "cli/run_options.h"

#define WORDS_MAX 64

struct parsed {
    struct run_options options;
    struct option_arguments arguments;
    struct error err;
    char *words[WORDS_MAX], *rest[WORDS_MAX];
    bool ok;
};

/* Parses words that are separated by spaces. */
static struct parsed *parse(const char *line)
{
    static char text[4096];
    static struct parsed parsed;
    run_options_finish(&parsed.options);
    memset(&parsed, 0, sizeof(parsed));
    snprintf(text, sizeof(text), "%s", line);
    size_t count = 0;
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " "))
        parsed.words[count++] = word;
    assert_true(count < WORDS_MAX);
    run_options_init(&parsed.options);
    parsed.arguments.words = parsed.rest;
    parsed.ok = options_parse(&run_option_table, parsed.words, &parsed.options, &parsed.arguments,
                              &parsed.err);
    return &parsed;
}

static struct parsed *parse_ok(const char *line)
{
    struct parsed *parsed = parse(line);
    if (!parsed->ok)
        fail_msg("'%s': %s", line, parsed->err.message);
    return parsed;
}

/* The message names everything in the list of fragments. */
static void refused(const char *line, const char *const *fragments)
{
    struct parsed *parsed = parse(line);
    if (parsed->ok)
        fail_msg("'%s' was accepted", line);
    for (; *fragments; fragments++)
        if (!strstr(parsed->err.message, *fragments))
            fail_msg("'%s': no '%s' in: %s", line, *fragments, parsed->err.message);
}

#define REFUSED(line, ...) refused(line, (const char *const[]){__VA_ARGS__, NULL})

static void test_forms(void **state)
{
    static const char *const forms[] = {
        "-k Image -m 512M -c 4 --stats",
        "-kImage -m512M -c4 --stats",
        "--kernel Image --memory 512M --cpus 4 --stats",
        "--kernel=Image --memory=512M --cpus=4 --stats",
        "--stats -c 64 -m 1G -c 4 -k other -m 524288K -k Image",
    };
    for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
        const struct run_options *options = &parse_ok(forms[i])->options;
        assert_string_equal(options->config.kernel, "Image");
        assert_int_equal(options->config.memory_size, UINT64_C(512) << 20);
        assert_int_equal(options->config.cpus, 4);
        assert_true(options->stats);
        assert_false(options->config.semihosting);
    }
    assert_string_equal(parse_ok("--append console=ttyS0")->options.config.append, "console=ttyS0");
    assert_string_equal(parse_ok("--append=console=ttyS0")->options.config.append, "console=ttyS0");
    assert_string_equal(parse_ok("--dump-dtb -")->options.dump_dtb, "-");
    assert_string_equal(parse_ok("-a --stats")->options.config.append, "--stats");
    assert_string_equal(parse_ok("-a=1")->options.config.append, "=1");
}

static void test_arguments(void **state)
{
    struct parsed *parsed = parse_ok("one -k Image two -- --stats -m");
    assert_int_equal(parsed->arguments.count, 4);
    assert_string_equal(parsed->rest[0], "one");
    assert_string_equal(parsed->rest[1], "two");
    assert_string_equal(parsed->rest[2], "--stats");
    assert_string_equal(parsed->rest[3], "-m");
    assert_false(parsed->options.stats);
    assert_true(parse_ok("-k Image --help --nonsense")->arguments.help);
    assert_true(parse_ok("-h")->arguments.help);
    assert_int_equal(parse_ok("-")->arguments.count, 1);
}

static void test_defaults(void **state)
{
    const struct machine_config *config = &parse_ok("")->options.config;
    assert_int_equal(config->memory_size, UINT64_C(1) << 30);
    assert_int_equal(config->cpus, 1);
    assert_string_equal(config->serial, "stdio");
    assert_null(config->kernel);
    assert_null(config->console);
    assert_int_equal(config->disk_count + config->net_count + config->share_count, 0);
}

static void test_sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t size;
    } sizes[] = {
        {"4194304", 4194304},      {"4096K", 4194304},        {"64m", UINT64_C(64) << 20},
        {"3G", UINT64_C(3) << 30}, {"1T", UINT64_C(1) << 40}, {"00064M", UINT64_C(64) << 20},
    };
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        char line[64];
        snprintf(line, sizeof(line), "-m %s", sizes[i].text);
        assert_int_equal(parse_ok(line)->options.config.memory_size, sizes[i].size);
    }
    /* 2^64 bytes and a little more would be a plausible size if they wrapped. */
    static const char *const bad[] = {
        "x",
        "12X",
        "M",
        "1GB",
        "1G1",
        "-1G",
        "+1G",
        "0x10",
        "1.5G",
        "1GG",
        "18014398509482112K",
        "16777217T",
        "18446744073709551616",
        "99999999999999999999M",
        "17179869185G",
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        char line[64];
        snprintf(line, sizeof(line), "--memory=%s", bad[i]);
        REFUSED(line, "--memory", bad[i], "512M");
    }
    REFUSED("-m 512", "-m 512", "512M");
    REFUSED("-m 2T", "-m 2T", "1024 GiB");
    REFUSED("-m 1M", "4 MiB");
    REFUSED("-c 0", "-c 0", "64");
    REFUSED("-c 65", "-c 65", "64");
    REFUSED("-c 4294967297", "-c 4294967297");
    REFUSED("-c two", "-c two");
}

static void test_symbols(void **state)
{
    const struct run_options *options =
        &parse_ok("--symbols a --symbols b,,c,0x80000000 --symbols=d,-4096 --symbols e,-0x1000 "
                  "--symbols f,0xffffffff80000000 --profile g")
             ->options;
    assert_int_equal(options->symbols_count, 5);
    assert_string_equal(options->symbols[0].file, "a");
    assert_int_equal(options->symbols[0].offset, 0);
    assert_string_equal(options->symbols[1].file, "b,c");
    assert_int_equal(options->symbols[1].offset, 0x80000000);
    assert_int_equal(options->symbols[2].offset, -4096);
    assert_int_equal(options->symbols[3].offset, -4096);
    assert_int_equal(options->symbols[4].offset, -0x80000000ll);
    assert_string_equal(options->profile, "g");
    static const char *const bad[] = {"zz", "0x", "-", "--1", "0x1g"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        char line[64];
        snprintf(line, sizeof(line), "--symbols a,%s", bad[i]);
        REFUSED(line, "--symbols", bad[i], "0x1000");
    }
    REFUSED("--symbols a,0x10000000000000000", "0x10000000000000000");
    REFUSED("--symbols a,1,2", "behind the offset");
    REFUSED("--symbols ,1", "file");
}

static void test_lists(void **state)
{
    const struct machine_config *config =
        &parse_ok("-d a.img -d b.img,ro,bus=mmio --disk=c,,d.img,snapshot -d e,,,,f -d ,,g,,")
             ->options.config;
    assert_int_equal(config->disk_count, 5);
    assert_string_equal(config->disks[0].path, "a.img");
    assert_false(config->disks[0].read_only || config->disks[0].snapshot);
    assert_int_equal(config->disks[0].bus, MACHINE_BUS_PCI);
    assert_string_equal(config->disks[1].path, "b.img");
    assert_true(config->disks[1].read_only);
    assert_int_equal(config->disks[1].bus, MACHINE_BUS_MMIO);
    assert_string_equal(config->disks[2].path, "c,d.img");
    assert_true(config->disks[2].snapshot);
    assert_string_equal(config->disks[3].path, "e,,f");
    assert_string_equal(config->disks[4].path, ",g,");

    config = &parse_ok("--share . --share /srv,tag=a,,b,ro,bus=mmio")->options.config;
    assert_int_equal(config->share_count, 2);
    assert_string_equal(config->shares[0].directory, ".");
    assert_null(config->shares[0].tag);
    assert_string_equal(config->shares[1].tag, "a,b");
    assert_true(config->shares[1].read_only);
    assert_int_equal(config->shares[1].bus, MACHINE_BUS_MMIO);

    config = &parse_ok("--flash code.fd,ro --flash vars.fd")->options.config;
    assert_string_equal(config->flash[0].path, "code.fd");
    assert_true(config->flash[0].read_only);
    assert_string_equal(config->flash[1].path, "vars.fd");
    assert_false(config->flash[1].read_only);

    REFUSED("--flash a --flash b --flash c", "--flash c", "2");
    REFUSED("-d a.img,", "-d a.img,", "unknown word ''");
    REFUSED("-d ,ro", "-d ,ro", "file");
    REFUSED("-d a.img,rw", "'rw'", "ro, snapshot, bus=pci|mmio");
    REFUSED("-d a.img,ro=on", "'ro'", "no value");
    REFUSED("-d a.img,bus", "bus=pci|mmio");
    REFUSED("-d a.img,bus=", "bus=pci|mmio");
    REFUSED("-d a.img,bus=scsi", "'scsi'", "bus=pci");
    REFUSED("-d file=a.img,format=raw", "file=", "leave");
    REFUSED("--share ,ro", "directory");
}

static void test_passthrough(void **state)
{
    const struct machine_config *config =
        &parse_ok("--passthrough 01:00.0 --passthrough 0000:02:00.1,rom=a,,b.rom,no-mmap=0:2 "
                  "--passthrough=3:0,no-mmap=all")
             ->options.config;
    assert_int_equal(config->passthrough_count, 3);
    assert_string_equal(config->passthrough[0].address, "01:00.0");
    assert_null(config->passthrough[0].rom);
    assert_int_equal(config->passthrough[0].no_mmap, 0);
    assert_string_equal(config->passthrough[1].rom, "a,b.rom");
    assert_int_equal(config->passthrough[1].no_mmap, 5);
    assert_int_equal(config->passthrough[2].no_mmap, 0x3f);

    REFUSED("--passthrough nvme", "--passthrough nvme", "nvme");
    REFUSED("--passthrough ,rom=a", "PCI address");
    REFUSED("--passthrough host=1:0.0", "host=", "leave");
    REFUSED("--passthrough 1:0.0,no-mmap=", "no-mmap=BARS");
    REFUSED("--passthrough 1:0.0,no-mmap=6", "'6'", "0:2");
    REFUSED("--passthrough 1:0.0,no-mmap=0:", "'0:'", "0:2");
    REFUSED("--passthrough 1:0.0,no-mmap=02", "'02'", "0:2");
    REFUSED("--passthrough 1:0.0,bar=1", "'bar'", "rom=FILE, no-mmap=BARS");
}

static void test_networks(void **state)
{
    const struct machine_config *config =
        &parse_ok("-n user -n user,hostfwd=tcp::2222-:22,bus=mmio,hostfwd=udp::53-:53 "
                  "--net=tap,bus=pci,ifname=tap0")
             ->options.config;
    assert_int_equal(config->net_count, 3);
    assert_string_equal(config->nets[0].backend, "user");
    assert_string_equal(config->nets[1].backend, "user,hostfwd=tcp::2222-:22,hostfwd=udp::53-:53");
    assert_int_equal(config->nets[1].bus, MACHINE_BUS_MMIO);
    assert_string_equal(config->nets[2].backend, "tap,ifname=tap0");
    assert_int_equal(config->nets[2].bus, MACHINE_BUS_PCI);
    assert_int_equal(parse_ok("-n user -n none")->options.config.net_count, 0);
    assert_int_equal(parse_ok("-n none -n user")->options.config.net_count, 1);
    REFUSED("-n bridge", "'bridge'", "user, tap or none");
    REFUSED("-n user,bus=usb", "'usb'");
}

static void test_limits(void **state)
{
    char line[4096] = "";
    for (unsigned i = 0; i < MACHINE_MAX_DISKS; i++)
        snprintf(line + strlen(line), sizeof(line) - strlen(line), " -d%u", i);
    assert_int_equal(parse_ok(line)->options.config.disk_count, MACHINE_MAX_DISKS);
    strcat(line, " -d last");
    REFUSED(line, "-d last", "16");
    line[0] = '\0';
    for (unsigned i = 0; i < MACHINE_MAX_NETS; i++)
        strcat(line, " -n user");
    char again[4096];
    snprintf(again, sizeof(again), "%s -n user", line);
    REFUSED(again, "-n user", "8");
    strcat(line, " -n none");
    snprintf(again, sizeof(again), "%s%s", line, line);
    assert_int_equal(parse_ok(again)->options.config.net_count, 0);
}

static void test_mistakes(void **state)
{
    REFUSED("--kernl x", "--kernl", "--kernel");
    REFUSED("--memroy=1G", "--memroy", "--memory");
    REFUSED("--mem 1G", "--mem", "--memory");
    REFUSED("--flsh x", "--flash");
    REFUSED("--zzzzzz", "--zzzzzz", "--help");
    REFUSED("-z", "-z", "--help");
    REFUSED("--kernel", "--kernel", "FILE");
    REFUSED("-k", "-k", "FILE");
    REFUSED("--kernel=", "--kernel ''", "FILE");
    REFUSED("--stats=on", "--stats", "'on'");
    REFUSED("-memory 1G", "-memory", "--memory");
    REFUSED("--engine turbo", "--engine turbo", "interp");
}

/* Every habit is recognised before letters are read, and unless the option is ours too. */
static void test_habits(void **state)
{
    REFUSED("-kernel Image", "-kernel", "QEMU", "--kernel FILE");
    REFUSED("-append x", "QEMU", "--append");
    REFUSED("-nographic", "QEMU", "leave it out");
    REFUSED("-smp 4", "QEMU", "--cpus");
    REFUSED("--smp 4", "--smp", "QEMU", "--cpus");
    REFUSED("-bios none", "QEMU", "--firmware");
    REFUSED("-drive file=x", "QEMU", "-d FILE");
    REFUSED("-M virt", "QEMU", "virt");
    REFUSED("-machine virt", "QEMU", "virt");
    REFUSED("-netdev user", "QEMU", "-n user");
    REFUSED("-device virtio-net-pci", "QEMU", "--net");
    REFUSED("-qmp unix:x", "QEMU", "--control");
    assert_null(qemu_advice("--flash"));
    assert_string_equal(parse_ok("--serial none")->options.config.serial, "none");
}

/* Each row has what the texts need, no two share a name or letter, and all parse something. */
static void test_table(void **state)
{
    for (size_t i = 0; cli_commands[i]; i++) {
        const struct option_table *table = cli_commands[i]->options;
        for (size_t j = 0; j < table->count; j++) {
            const struct option *row = &table->rows[j];
            assert_non_null(row->help);
            if (!row->name)
                continue;
            assert_non_null(row->parse);
            assert_ptr_equal(option_find(table, row->name), row);
            for (size_t k = 0; k < j; k++)
                if (row->letter && table->rows[k].letter == row->letter)
                    fail_msg("-%c is --%s and --%s", row->letter, row->name, table->rows[k].name);
        }
    }
}

static char *text_of(void (*print)(FILE *out))
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    print(out);
    fclose(out);
    return text;
}

static void print_run_help(FILE *out)
{
    help_command_text(&run_command, out);
}

static void test_texts(void **state)
{
    char *help = text_of(print_run_help), *manual = text_of(help_manual);
    for (size_t i = 0; i < run_option_table.count; i++) {
        const struct option *row = &run_option_table.rows[i];
        if (!row->name)
            continue;
        char option[64];
        snprintf(option, sizeof(option), "--%s", row->name);
        assert_non_null(strstr(help, option));
        assert_non_null(strstr(help, row->help));
    }
    assert_non_null(strstr(manual, "\\fB\\-\\-dump\\-dtb\\fR"));
    for (char *line = strtok(manual, "\n"); line; line = strtok(NULL, "\n"))
        if (line[0] == '\'' || strstr(line, " -") == line)
            fail_msg("'%s' is no text for roff", line);
    for (char *line = strtok(help, "\n"); line; line = strtok(NULL, "\n"))
        if (strlen(line) > 90)
            fail_msg("too wide for a terminal: %s", line);
    free(help);
    free(manual);
}

static void test_suggestions(void **state)
{
    static const struct {
        const char *word, *best;
    } cases[] = {
        {"satus", "status"}, {"sttaus", "status"}, {"stat", "status"}, {"quti", "quit"},
        {"rset", "reset"},   {"xyzzy", NULL},      {"", NULL},         {"st", NULL},
    };
    static const char *const names[] = {"status", "quit", "reset", "stop"};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct suggestion nearest;
        suggest_begin(&nearest, cases[i].word);
        for (size_t j = 0; j < ARRAY_SIZE(names); j++)
            suggest_offer(&nearest, names[j]);
        if (cases[i].best)
            assert_string_equal(nearest.name, cases[i].best);
        else
            assert_null(nearest.name);
    }
    char long_word[200];
    memset(long_word, 'a', sizeof(long_word) - 1);
    long_word[sizeof(long_word) - 1] = '\0';
    struct suggestion nearest;
    suggest_begin(&nearest, long_word);
    suggest_offer(&nearest, "quit");
    assert_null(nearest.name);
}

/* Types keys; returns the last event. */
static enum line_event type(struct line *line, const char *keys)
{
    enum line_event event = LINE_MORE;
    for (; *keys; keys++)
        event = line_key(line, (uint8_t)*keys);
    return event;
}

static void enter(struct line *line, const char *text)
{
    type(line, text);
    assert_int_equal(type(line, "\r"), LINE_DONE);
    line_clear(line);
}

static void test_line_editor(void **state)
{
    struct line line = {0};
    assert_int_equal(type(&line, "stauts\x7f\x7f\x7ftus"), LINE_MORE);
    assert_string_equal(line.text, "status");
    assert_int_equal(type(&line, "\r"), LINE_DONE);
    line_clear(&line);
    type(&line, "one two  \x17three");
    assert_string_equal(line.text, "one three");
    type(&line, "\x15");
    assert_string_equal(line.text, "");
    type(&line, "\x7f\x7f\x17\x15");
    assert_string_equal(line.text, "");
    assert_int_equal(type(&line, "\x04"), LINE_LEAVE);
    type(&line, "abc");
    assert_int_equal(type(&line, "\x04"), LINE_MORE);
    assert_int_equal(type(&line, "\x03"), LINE_DONE);
    assert_string_equal(line.text, "");
    line_clear(&line);

    /* History, by arrows of both kinds; left and right and unknown sequences are not typed. */
    enter(&line, "first");
    enter(&line, "second");
    enter(&line, "second");
    type(&line, "\x1b[A");
    assert_string_equal(line.text, "second");
    type(&line, "\x1bOA");
    assert_string_equal(line.text, "first");
    assert_non_null(strstr(line.echo, "first"));
    type(&line, "\x1b[B");
    assert_string_equal(line.text, "second");
    type(&line, "\x1b[B\x1b[B");
    assert_string_equal(line.text, "");
    type(&line, "a\x1b[C\x1b[1;5Db\x1b[3~c\xc3\xa4\t");
    assert_string_equal(line.text, "abc");
    line_clear(&line);

    /* Longer than the buffer, and more lines than the history. */
    for (unsigned i = 0; i < 2 * LINE_SIZE; i++)
        type(&line, "x");
    assert_int_equal(line.length, LINE_SIZE - 1);
    type(&line, "\x15");
    for (unsigned i = 0; i < 3 * LINE_HISTORY; i++) {
        char text[16];
        snprintf(text, sizeof(text), "line%u", i);
        enter(&line, text);
    }
    for (unsigned i = 0; i < 3 * LINE_HISTORY; i++)
        type(&line, "\x1b[A");
    assert_string_equal(line.text, "line32");
}

static int tear_down(void **state)
{
    parse("");
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),       cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_defaults),    cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_symbols),     cmocka_unit_test(test_lists),
        cmocka_unit_test(test_passthrough), cmocka_unit_test(test_networks),
        cmocka_unit_test(test_limits),      cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_habits),      cmocka_unit_test(test_table),
        cmocka_unit_test(test_texts),       cmocka_unit_test(test_suggestions),
        cmocka_unit_test(test_line_editor),
    };
    return cmocka_run_group_tests_name("cli_options", tests, NULL, tear_down);
}
