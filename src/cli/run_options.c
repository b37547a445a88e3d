#include "cli/run_options.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "hartvisor/passthrough.h"

void run_options_init(struct run_options *options)
{
    *options = (struct run_options){0};
    machine_config_init(&options->config);
}

void run_options_finish(struct run_options *options)
{
    while (options->copy_count)
        free(options->copies[--options->copy_count]);
    free(options->copies);
    options->copies = NULL;
}

/* --- Values that are lists --- */

/* A copy of the list that lives as long as the options. */
static char *keep(struct run_options *options, const char *list)
{
    size_t size = (options->copy_count + 1) * sizeof(*options->copies);
    options->copies = xrealloc(options->copies, size);
    return options->copies[options->copy_count++] = xstrdup(list);
}

static bool parse_bus(const char *value, void *target, struct error *err)
{
    static const char *const names[] = {[MACHINE_BUS_PCI] = "pci", [MACHINE_BUS_MMIO] = "mmio"};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (!strcmp(value, names[i])) {
            *(enum machine_bus *)target = (enum machine_bus)i;
            return true;
        }
    }
    return error_set(err, "there is no bus '%s': give bus=pci or bus=mmio", value);
}

/* Takes the file or directory at the front of a list. */
static const char *first_name(char **list, const char *habit, const char *kind, struct error *err)
{
    const char *name = option_word(list);
    if (!*name)
        error_set(err, "the list must begin with a %s", kind);
    else if (!strncmp(name, habit, strlen(habit)))
        error_set(err, "leave '%s' out: the list begins with the %s", habit, kind);
    else
        return name;
    return NULL;
}

static bool too_many(unsigned count, unsigned most, struct error *err)
{
    return count == most && !error_set(err, "there can be at most %u", most);
}

static const struct option flash_words[] = {
    {.name = "ro", .parse = option_flag, .target = offsetof(struct machine_flash, read_only)},
};

static const struct option disk_words[] = {
    {.name = "ro", .parse = option_flag, .target = offsetof(struct machine_disk, read_only)},
    {.name = "snapshot", .parse = option_flag, .target = offsetof(struct machine_disk, snapshot)},
    {.name = "bus",
     .argument = "pci|mmio",
     .parse = parse_bus,
     .target = offsetof(struct machine_disk, bus)},
};

static const struct option share_words[] = {
    {.name = "tag",
     .argument = "TAG",
     .parse = option_string,
     .target = offsetof(struct machine_share, tag)},
    {.name = "ro", .parse = option_flag, .target = offsetof(struct machine_share, read_only)},
    {.name = "bus",
     .argument = "pci|mmio",
     .parse = parse_bus,
     .target = offsetof(struct machine_share, bus)},
};

static const struct option_table flash_table = {flash_words, ARRAY_SIZE(flash_words)};
static const struct option_table disk_table = {disk_words, ARRAY_SIZE(disk_words)};
static const struct option_table share_table = {share_words, ARRAY_SIZE(share_words)};

static bool parse_flash(const char *value, void *target, struct error *err)
{
    struct run_options *options = target;
    struct machine_flash flash = {0};
    if (too_many(options->flash_count, MACHINE_MAX_FLASH, err))
        return false;
    char *list = keep(options, value);
    flash.path = first_name(&list, "file=", "file", err);
    if (!flash.path || !option_words(&flash_table, list, &flash, err))
        return false;
    options->config.flash[options->flash_count++] = flash;
    return true;
}

static bool parse_disk(const char *value, void *target, struct error *err)
{
    struct run_options *options = target;
    struct machine_disk disk = {0};
    if (too_many(options->config.disk_count, MACHINE_MAX_DISKS, err))
        return false;
    char *list = keep(options, value);
    disk.path = first_name(&list, "file=", "file", err);
    if (!disk.path || !option_words(&disk_table, list, &disk, err))
        return false;
    options->config.disks[options->config.disk_count++] = disk;
    return true;
}

static bool parse_share(const char *value, void *target, struct error *err)
{
    struct run_options *options = target;
    struct machine_share share = {0};
    if (too_many(options->config.share_count, MACHINE_MAX_SHARES, err))
        return false;
    char *list = keep(options, value);
    share.directory = first_name(&list, "path=", "directory", err);
    if (!share.directory || !option_words(&share_table, list, &share, err))
        return false;
    options->config.shares[options->config.share_count++] = share;
    return true;
}

/* Numbers of BARs, with colons between them, or "all". */
static bool parse_bars(const char *value, void *target, struct error *err)
{
    unsigned *bars = target;
    if (!strcmp(value, "all")) {
        *bars = 0x3f;
        return true;
    }
    for (const char *at = value;; at += 2) {
        if (*at < '0' || *at > '5' || (at[1] && at[1] != ':'))
            return error_set(err,
                             "'%s' is no list of BARs: give all, or numbers from 0 to 5 with "
                             "colons between them, as in 0:2",
                             value);
        *bars |= 1u << (*at - '0');
        if (!at[1])
            return true;
    }
}

static const struct option passthrough_words[] = {
    {.name = "rom",
     .argument = "FILE",
     .parse = option_string,
     .target = offsetof(struct machine_passthrough, rom)},
    {.name = "no-mmap",
     .argument = "BARS",
     .parse = parse_bars,
     .target = offsetof(struct machine_passthrough, no_mmap)},
};

static const struct option_table passthrough_table = {passthrough_words,
                                                      ARRAY_SIZE(passthrough_words)};

static bool parse_passthrough(const char *value, void *target, struct error *err)
{
    struct run_options *options = target;
    struct machine_passthrough device = {0};
    struct pci_address address;
    if (too_many(options->config.passthrough_count, MACHINE_MAX_PASSTHROUGH, err))
        return false;
    char *list = keep(options, value);
    device.address = first_name(&list, "host=", "PCI address", err);
    if (!device.address || !pci_address_parse(device.address, &address, err) ||
        !option_words(&passthrough_table, list, &device, err))
        return false;
    options->config.passthrough[options->config.passthrough_count++] = device;
    return true;
}

/* The back end reads its own words; only bus= is for the board. */
static bool parse_net(const char *value, void *target, struct error *err)
{
    struct run_options *options = target;
    struct machine_net net = {0};
    if (!strcmp(value, "none")) {
        options->config.net_count = 0;
        return true;
    }
    if (too_many(options->config.net_count, MACHINE_MAX_NETS, err))
        return false;
    char *list = keep(options, value);
    const char *kind = option_word(&list);
    if (strcmp(kind, "user") != 0 && strcmp(kind, "tap") != 0)
        return error_set(err, "there is no network '%s': give user, tap or none", kind);
    net.backend = kind;
    /* Words without bus= move up behind the kind: the result is never longer than the list. */
    char *end = (char *)kind + strlen(kind);
    for (char *word; (word = option_word(&list));) {
        if (!strncmp(word, "bus=", 4)) {
            if (!parse_bus(word + 4, &net.bus, err))
                return false;
            continue;
        }
        size_t length = strlen(word);
        *end++ = ',';
        memmove(end, word, length + 1);
        end += length;
    }
    options->config.nets[options->config.net_count++] = net;
    return true;
}

/* Names of back ends, and adapter=. */
static bool parse_gpu(const char *value, void *target, struct error *err)
{
    struct run_options *options = target;
    char *list = keep(options, value), *names = keep(options, value), *end = names;
    options->config.gpu_adapter = NULL;
    for (char *word; (word = option_word(&list));) {
        if (!strncmp(word, "adapter=", 8))
            options->config.gpu_adapter = word + 8;
        else
            end += sprintf(end, "%s%s", end > names ? "," : "", word);
    }
    *end = '\0';
    if (end == names)
        return error_set(err, "say what is to draw: auto, passthrough, wgpu, 2d or off");
    options->config.gpu = names;
    return true;
}

/* WxH, one for each display. */
static bool parse_display_size(const char *value, void *target, struct error *err)
{
    struct machine_config *config = target;
    config->display_count = 0;
    for (const char *at = value;; at++) {
        char *end;
        unsigned long width = strtoul(at, &end, 10), height = 0;
        bool sane = isdigit((unsigned char)*at) && *end == 'x' && isdigit((unsigned char)end[1]);
        if (sane)
            height = strtoul(end + 1, &end, 10);
        if (!sane || (*end && *end != ','))
            return error_set(err, "give WIDTHxHEIGHT in pixels, as in 1920x1080, and with commas "
                                  "between them one for each display");
        if (width < 64 || height < 64 || width > 16384 || height > 16384)
            return error_set(err, "a display has 64 to 16384 pixels each way, not %lux%lu", width,
                             height);
        if (too_many(config->display_count, MACHINE_MAX_DISPLAYS, err))
            return false;
        config->displays[config->display_count].width = (uint32_t)width;
        config->displays[config->display_count++].height = (uint32_t)height;
        if (!*end)
            return true;
        at = end;
    }
}

/* --- Other values --- */

static bool parse_memory(const char *value, void *target, struct error *err)
{
    uint64_t size;
    if (!option_size(value, &size, err))
        return false;
    if (size < MACHINE_MIN_MEMORY && value[strlen(value) - 1] <= '9')
        return error_set(err, "%llu bytes are too few for a guest: did you mean %sM?",
                         (unsigned long long)size, value);
    if (size < MACHINE_MIN_MEMORY || size > MACHINE_MAX_MEMORY)
        return error_set(err, "give %llu MiB to %llu GiB",
                         (unsigned long long)(MACHINE_MIN_MEMORY >> 20),
                         (unsigned long long)(MACHINE_MAX_MEMORY >> 30));
    *(uint64_t *)target = size;
    return true;
}

static bool parse_cpus(const char *value, void *target, struct error *err)
{
    unsigned count;
    if (!option_count(value, &count, err))
        return false;
    if (count < 1 || count > MACHINE_MAX_CPUS)
        return error_set(err, "a machine has 1 to %u harts", MACHINE_MAX_CPUS);
    *(unsigned *)target = count;
    return true;
}

static bool parse_engine(const char *value, void *target, struct error *err)
{
    enum machine_engine *engine = target;
    if (strcmp(value, "interp") == 0)
        *engine = MACHINE_ENGINE_INTERPRETER;
    else if (strcmp(value, "jit") == 0)
        *engine = MACHINE_ENGINE_JIT;
    else
        return error_set(err, "there is no engine '%s': give jit or interp", value);
    return true;
}

static bool parse_aia(const char *value, void *target, struct error *err)
{
    static const char *const names[] = {
        [MACHINE_AIA_AUTO] = "auto", [MACHINE_AIA_OFF] = "off", [MACHINE_AIA_ON] = "on"};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (!strcmp(value, names[i])) {
            *(enum machine_aia *)target = (enum machine_aia)i;
            return true;
        }
    }
    return error_set(err, "'%s' is not a choice: give on, off or auto", value);
}

/* Hexadecimal with 0x, or decimal, and perhaps negative. */
static bool parse_offset(const char *text, int64_t *offset)
{
    bool negative = *text == '-';
    const char *digits = text + negative;
    bool hexadecimal = digits[0] == '0' && (digits[1] | 0x20) == 'x';
    const char *first = digits + (hexadecimal ? 2 : 0);
    char *end;
    errno = 0;
    uint64_t value = strtoull(first, &end, hexadecimal ? 16 : 10);
    *offset = (int64_t)(negative ? 0 - value : value);
    return isxdigit((unsigned char)*first) && end != first && !*end && !errno;
}

static bool parse_symbols(const char *value, void *target, struct error *err)
{
    struct run_options *options = target;
    struct run_symbols symbols = {0};
    if (too_many(options->symbols_count, RUN_SYMBOLS_MAX, err))
        return false;
    char *list = keep(options, value);
    symbols.file = first_name(&list, "file=", "file", err);
    if (!symbols.file)
        return false;
    const char *offset = option_word(&list);
    if (offset && !parse_offset(offset, &symbols.offset))
        return error_set(err, "'%s' is no offset: give a number like 0x1000 or -4096", offset);
    if (list)
        return error_set(err, "there is nothing behind the offset: a comma in the name is written "
                              "twice");
    options->symbols[options->symbols_count++] = symbols;
    return true;
}

/* --- The table --- */

static const struct option rows[] = {
    {.help = "What boots"},
    {
        .name = "kernel",
        .letter = 'k',
        .argument = "FILE",
        .help = "kernel: ELF, Image (raw, gzip, zstd) or EFI zboot image",
        .manual = "Loads a kernel and enters it in S-mode, on the built-in SBI or, with "
                  "--firmware, as what the firmware starts. a0 is the hart's number and a1 the "
                  "address of the device tree. A raw Image is loaded 2 MiB above the start of RAM.",
        .parse = option_string,
        .target = offsetof(struct run_options, config.kernel),
    },
    {
        .name = "initrd",
        .letter = 'i',
        .argument = "FILE",
        .help = "initial RAM disk for the kernel",
        .parse = option_string,
        .target = offsetof(struct run_options, config.initrd),
    },
    {
        .name = "append",
        .letter = 'a',
        .argument = "TEXT",
        .help = "the kernel's command line",
        .manual = "Becomes bootargs in the device tree. Linux needs console=ttyS0 to print on the "
                  "serial port.",
        .parse = option_string,
        .target = offsetof(struct run_options, config.append),
    },
    {
        .name = "firmware",
        .letter = 'f',
        .argument = "FILE",
        .help = "M-mode firmware or bare-metal program, ELF or raw",
        .manual = "Runs OpenSBI, U-Boot or any other M-mode program from the reset vector instead "
                  "of the built-in SBI. a2 points to OpenSBI's fw_dynamic_info. An ELF file with "
                  "the symbols tohost and fromhost gets the HTIF interface.",
        .parse = option_string,
        .target = offsetof(struct run_options, config.firmware),
    },
    {
        .name = "flash",
        .argument = "FILE[,ro]",
        .help = "contents of a flash bank; twice for both",
        .manual = "The first one fills the bank at 0x20000000, the second that at 0x22000000. "
                  "What the guest writes is kept in the file unless it is read-only.",
        .parse = parse_flash,
    },
    {
        .name = "dtb",
        .argument = "FILE",
        .help = "device tree blob instead of the generated one",
        .manual = "--append and --initrd are put into it.",
        .parse = option_string,
        .target = offsetof(struct run_options, config.dtb),
    },
    {
        .name = "dump-dtb",
        .argument = "FILE",
        .help = "write the device tree and exit; - is stdout",
        .parse = option_string,
        .target = offsetof(struct run_options, dump_dtb),
    },
    {.help = "The machine"},
    {
        .name = "memory",
        .letter = 'm',
        .argument = "SIZE",
        .help = "RAM, with K, M, G or T (1G)",
        .parse = parse_memory,
        .target = offsetof(struct run_options, config.memory_size),
    },
    {
        .name = "cpus",
        .letter = 'c',
        .argument = "N",
        .help = "harts, 1 to 64 (1)",
        .parse = parse_cpus,
        .target = offsetof(struct run_options, config.cpus),
    },
    {
        .name = "cpu",
        .argument = "EXTENSIONS",
        .help = "instruction set extensions, such as rv64gc,zba,no-zbb",
        .manual = "A list that may begin with a base (default, max, rv64gc or rva22s64). NAME or "
                  "NAME=on adds an extension and what it needs, no-NAME or NAME=off removes it "
                  "and what needs it.",
        .parse = option_string,
        .target = offsetof(struct run_options, config.cpu),
    },
    {
        .name = "engine",
        .argument = "jit|interp",
        .help = "translates guest code, or interprets it (jit on x86-64)",
        .parse = parse_engine,
        .target = offsetof(struct run_options, config.engine),
    },
    {
        .name = "aia",
        .argument = "on|off|auto",
        .help = "interrupts by APLIC and IMSIC instead of a PLIC",
        .manual =
            "on gives the board the Advanced Interrupt Architecture: message-signalled "
            "interrupts reach each hart without a detour, and virtio devices on PCI have "
            "MSI-X. off gives it a PLIC, which every kernel knows. auto, the default, is on with "
            "--passthrough, and off without.",
        .parse = parse_aia,
        .target = offsetof(struct run_options, config.aia),
    },
    {.help = "Devices"},
    {
        .name = "disk",
        .letter = 'd',
        .argument = "FILE[,ro][,snapshot][,bus=pci|mmio]",
        .help = "virtio disk on a raw image or a block device; repeatable",
        .manual = "With snapshot, writes go to a temporary file and are forgotten at the end. A "
                  "comma in the name is written twice.",
        .parse = parse_disk,
    },
    {
        .name = "net",
        .letter = 'n',
        .argument = "user[,hostfwd=tcp:HOST:PORT-:PORT]...|tap[,ifname=NAME]|none[,bus=pci|mmio]",
        .help = "virtio network card; repeatable",
        .manual = "user is a network of its own behind the host's address, which needs no rights; "
                  "hostfwd forwards a port of the host into it. tap joins a tap interface of the "
                  "host. none takes back those given before.",
        .parse = parse_net,
    },
    {
        .name = "share",
        .argument = "DIR[,tag=TAG][,ro][,bus=pci|mmio]",
        .help = "host directory for the guest to mount (9p); repeatable",
        .manual =
            "The guest mounts it with: mount -t 9p -o trans=virtio,version=9p2000.L TAG /mnt. "
            "The tag is host unless it is given.",
        .parse = parse_share,
    },
    {
        .name = "passthrough",
        .argument = "BDF[,rom=FILE][,no-mmap=BARS]",
        .help = "a PCI device of the host for the guest; repeatable",
        .manual = "The device must be bound to vfio-pci: see hartvisor devices. rom is a file "
                  "instead of the device's expansion ROM. no-mmap lists BARs, as in no-mmap=0:2, "
                  "which the guest reaches through the kernel instead of directly.",
        .parse = parse_passthrough,
    },
    {
        .name = "serial",
        .argument = "stdio|pty|unix:PATH|file:PATH|none",
        .help = "where the serial port goes (stdio)",
        .manual = "On a terminal, Ctrl-A is the key before commands: see KEYS. pty makes a "
                  "pseudo-terminal and prints its name.",
        .parse = option_string,
        .target = offsetof(struct run_options, config.serial),
    },
    {
        .name = "console",
        .argument = "stdio|pty|unix:PATH|file:PATH|none",
        .help = "the same for a virtio console, hvc0 (none)",
        .parse = option_string,
        .target = offsetof(struct run_options, config.console),
    },
    {
        .name = "gpu",
        .argument = "auto|passthrough|wgpu|2d|off[,adapter=NAME]",
        .help = "the guest's GPU (auto with --display, else off)",
        .manual =
            "auto takes a GPU that is bound to vfio-pci; else virtio-gpu drawn by WebGPU where "
            "this machine has a GPU, or by its processor (2d). Several names are tried in that "
            "order: wgpu,2d. adapter is a PCI address for passthrough; for wgpu a number or a part "
            "of a name as `hartvisor gpus list` has them, or spread for all of them by load. "
            "A keyboard, a tablet and a mouse come with virtio-gpu.",
        .parse = parse_gpu,
    },
    {
        .name = "display",
        .argument = "none|sdl|vnc:[HOST:]PORT[,password=TEXT|,password-file=FILE|,no-password]",
        .help = "where the guest's screen is shown (none)",
        .manual = "sdl opens a window for each display. vnc listens on the loopback address unless "
                  "HOST is given, at PORT for the first display, PORT + 1 for the second; without "
                  "a password one is made up and printed. Without a display, screendump of "
                  "`hartvisor ctl` still shows the screen.",
        .parse = option_string,
        .target = offsetof(struct run_options, config.display),
    },
    {
        .name = "display-size",
        .argument = "WxH[,WxH]...",
        .help = "pixels of the guest's display, or of several (1280x800)",
        .parse = parse_display_size,
        .target = offsetof(struct run_options, config),
    },
    {.help = "Looking inside"},
    {
        .name = "control",
        .argument = "unix:PATH",
        .help = "socket for `hartvisor ctl` and QMP clients",
        .parse = option_string,
        .target = offsetof(struct run_options, control),
    },
    {
        .name = "gdb",
        .argument = "[HOST:]PORT|unix:PATH",
        .help = "wait for GDB or LLDB there, while the guest runs",
        .manual = "On the loopback address unless HOST is given; port 0 is any that is free, and "
                  "is printed. In GDB: target remote :PORT. In LLDB: gdb-remote PORT. The guest "
                  "stops when a debugger attaches, and runs on when it detaches.",
        .parse = option_string,
        .target = offsetof(struct run_options, gdb),
    },
    {
        .name = "gdb-wait",
        .help = "let no hart run before a debugger does",
        .parse = option_flag,
        .target = offsetof(struct run_options, gdb_wait),
    },
    {
        .name = "trace",
        .argument = "trap,sbi,mmio,csr,guest-errors,exec[:FILE]",
        .help = "write what the guest does to stderr or FILE",
        .manual = "trap: traps taken and returned from. sbi: calls and results. mmio: accesses to "
                  "device registers. csr: accesses to CSRs. guest-errors: what drivers do that "
                  "the specifications forbid. exec: every instruction. all is all but exec.",
        .parse = option_string,
        .target = offsetof(struct run_options, trace),
    },
    {
        .name = "symbols",
        .argument = "FILE[,OFFSET]",
        .help = "names and source lines of what the guest runs; repeatable",
        .manual = "An ELF file with symbols and, for lines, DWARF; or a table like System.map and "
                  "/proc/kallsyms. OFFSET is the difference between the address at which it runs "
                  "and the one in the file, in hexadecimal (0x...) or decimal. A guest that cannot "
                  "go on, or a Linux that panics, gets a backtrace with them.",
        .parse = parse_symbols,
    },
    {
        .name = "profile",
        .argument = "FILE",
        .help = "write where the guest spent its time, as collapsed stacks",
        .manual = "Samples each hart 997 times a second. A line of FILE is a stack, from the "
                  "outside in, and how often it was seen: what flame graph programs read.",
        .parse = option_string,
        .target = offsetof(struct run_options, profile),
    },
    {
        .name = "stats",
        .help = "print time and instructions at the end",
        .parse = option_flag,
        .target = offsetof(struct run_options, stats),
    },
    {
        .name = "perf-map",
        .help = "let Linux perf name translated code, in /tmp/perf-PID.map",
        .manual = "Each block of translated code is named after the guest address that it begins "
                  "at: guest_ffffffff80a1b2c4.",
        .parse = option_flag,
        .target = offsetof(struct run_options, config.perf_map),
    },
    {
        .name = "semihosting",
        .help = "let the guest open host files by semihosting",
        .manual = "Without it semihosting has the console and exit only.",
        .parse = option_flag,
        .target = offsetof(struct run_options, config.semihosting),
    },
};

const struct option_table run_option_table = {rows, ARRAY_SIZE(rows)};
