/* Is the machine ready to give devices away? Each check looks, and knows its remedy. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "passthrough/internal.h"

#define CAP_DAC_OVERRIDE 1
#define CAP_IPC_LOCK     14

/* What a guest maps beside its RAM: flash, ROMs, rings. */
#define MEMLOCK_SLACK (UINT64_C(64) << 20)

static const char *const udev_rule =
    "as root: groupadd -f -r vfio; usermod -aG vfio USER;\n"
    "echo 'SUBSYSTEM==\"vfio\", GROUP=\"vfio\", MODE=\"0660\"' > /etc/udev/rules.d/60-vfio.rules;\n"
    "udevadm control --reload; udevadm trigger --subsystem-match=vfio; then log in anew";

void check_set(struct passthrough_check *check, enum passthrough_check_state state,
               const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    check->state = state;
    vsnprintf(check->found, sizeof(check->found), format, arguments);
    va_end(arguments);
}

void check_remedy(struct passthrough_check *check, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(check->remedy, sizeof(check->remedy), format, arguments);
    va_end(arguments);
}

/* --- The process that asks --- */

struct who {
    uint64_t capabilities;
    unsigned uid, gid;
    char *groups; /* " 4 24 27" */
};

static void who_init(struct who *who, const struct host *host)
{
    char *status = host_read_all(host, "/proc/self/status"), *rest = status;
    *who = (struct who){.uid = UINT32_MAX, .gid = UINT32_MAX};
    for (char *line; status && (line = strsep(&rest, "\n"));) {
        sscanf(line, "CapEff: %" SCNx64, &who->capabilities);
        sscanf(line, "Uid: %*u %u", &who->uid);
        sscanf(line, "Gid: %*u %u", &who->gid);
        if (!strncmp(line, "Groups:", 7) && !who->groups)
            who->groups = xasprintf(" %s ", line + 7);
    }
    free(status);
}

static bool in_group(const struct who *who, unsigned gid)
{
    char text[16];
    snprintf(text, sizeof(text), " %u ", gid);
    for (char *blank = who->groups; blank && (blank = strchr(blank, '\t'));)
        *blank = ' ';
    return who->gid == gid || (who->groups && strstr(who->groups, text));
}

/* Whether the process may read and write. In a recorded tree it is another's, so it is worked out
 * from the mode; on this machine the kernel knows better (access lists). */
static bool may_open(const struct host *host, const struct who *who, const char *path)
{
    char *whole = host_path(host, path);
    struct stat status;
    bool may = false;
    if (!host->root[0]) {
        may = access(whole, R_OK | W_OK) == 0;
    } else if (stat(whole, &status) == 0) {
        unsigned shift = who->uid == status.st_uid ? 6 : in_group(who, status.st_gid) ? 3 : 0;
        may = who->capabilities >> CAP_DAC_OVERRIDE & 1 || (status.st_mode >> shift & 6) == 6;
    }
    free(whole);
    return may;
}

/* --- The checks --- */

static bool text_has(char *text, const char *word)
{
    bool has = text && strstr(text, word);
    free(text);
    return has;
}

static void check_driver(const struct passthrough_manager *manager, struct passthrough_check *check)
{
    const struct host *host = &manager->host;
    char release[128] = "";
    check->name = "driver";
    if (host_exists(host, "/sys/bus/pci/drivers/" VFIO_DRIVER)) {
        check_set(check, PASSTHROUGH_CHECK_RIGHT, "vfio-pci is there");
        return;
    }
    host_read(host, release, sizeof(release), "/proc/sys/kernel/osrelease");
    if (text_has(host_read_all(host, "/lib/modules/%s/modules.dep", release), "vfio-pci.ko")) {
        check_set(check, PASSTHROUGH_CHECK_WRONG, "vfio-pci is not loaded");
        check_remedy(check, "as root: modprobe vfio-pci;\nand at each start: echo vfio-pci > "
                            "/etc/modules-load.d/vfio-pci.conf");
    } else {
        check_set(check, PASSTHROUGH_CHECK_WRONG, "vfio-pci is not there, nor a module for %s",
                  *release ? release : "this kernel");
        check_remedy(check, "take a kernel with CONFIG_VFIO_PCI, or install the rest of its modules"
                            ", then: modprobe vfio-pci");
    }
}

static void check_container(const struct passthrough_manager *manager,
                            const struct passthrough_check *driver, const struct who *who,
                            struct passthrough_check *check)
{
    check->name = "container";
    /* Its modes are set when the driver is loaded. */
    if (driver->state != PASSTHROUGH_CHECK_RIGHT) {
        check_set(check, PASSTHROUGH_CHECK_WAITS, "/dev/vfio/vfio comes with the driver");
    } else if (!host_exists(&manager->host, "/dev/vfio/vfio")) {
        check_set(check, PASSTHROUGH_CHECK_WRONG, "/dev/vfio/vfio is not there");
        check_remedy(check, "as root: modprobe vfio_iommu_type1");
    } else if (!may_open(&manager->host, who, "/dev/vfio/vfio")) {
        check_set(check, PASSTHROUGH_CHECK_WRONG, "you may not open /dev/vfio/vfio");
        check_remedy(check, "as root: chmod 0666 /dev/vfio/vfio (it gives access to no device)");
    } else {
        check_set(check, PASSTHROUGH_CHECK_RIGHT, "you may open /dev/vfio/vfio");
    }
}

static void check_devices(const struct passthrough_manager *manager, const struct who *who,
                          struct passthrough_check *check)
{
    unsigned bound = 0;
    check->name = "devices";
    for (size_t i = 0; i < manager->count; i++) {
        const struct passthrough_info *info = &manager->devices[i]->info;
        char path[32];
        struct error err;
        if (strcmp(info->driver, VFIO_DRIVER) != 0)
            continue;
        bound++;
        snprintf(path, sizeof(path), "/dev/vfio/%d", info->group);
        if (info->group >= 0 && !may_open(&manager->host, who, path)) {
            check_set(check, PASSTHROUGH_CHECK_WRONG, "you may not open %s, the group of %s", path,
                      info->name);
            check_remedy(check, "%s", udev_rule);
            return;
        }
        if (!passthrough_group_viable(manager, info->group, &err)) {
            check_set(check, PASSTHROUGH_CHECK_WRONG, "the IOMMU group of %s is not viable",
                      info->name);
            check_remedy(check, "%s", err.message);
            return;
        }
    }
    if (bound)
        check_set(check, PASSTHROUGH_CHECK_RIGHT, "%u ready for guests", bound);
    else
        check_set(check, PASSTHROUGH_CHECK_NOTE,
                  "vfio-pci has none yet: 'hartvisor devices bind ADDRESS' gives it one");
}

/* The soft and the hard limit of locked memory, in bytes. */
static bool memlock_limits(const struct host *host, uint64_t *soft, uint64_t *hard)
{
    char *text = host_read_all(host, "/proc/self/limits"), words[2][32];
    const char *line = text ? strstr(text, "Max locked memory") : NULL;
    bool ok = line && sscanf(line, "Max locked memory %31s %31s", words[0], words[1]) == 2;
    free(text);
    if (!ok)
        return false;
    *soft = words[0][0] == 'u' ? UINT64_MAX : strtoull(words[0], NULL, 10);
    *hard = words[1][0] == 'u' ? UINT64_MAX : strtoull(words[1], NULL, 10);
    return true;
}

static void check_memlock(const struct passthrough_manager *manager, const struct who *who,
                          uint64_t memory, struct passthrough_check *check)
{
    uint64_t soft, hard, needed = memory + MEMLOCK_SLACK;
    char guest[32], limit[32], need[32];
    check->name = "memlock";
    text_size(memory, guest);
    text_size(needed, need);
    if (who->capabilities >> CAP_IPC_LOCK & 1) {
        check_set(check, PASSTHROUGH_CHECK_RIGHT, "locked memory is not limited for root");
        return;
    }
    if (!memlock_limits(&manager->host, &soft, &hard)) {
        check_set(check, PASSTHROUGH_CHECK_NOTE, "the limit of locked memory is not known");
        return;
    }
    if (soft >= needed) {
        check_set(check, PASSTHROUGH_CHECK_RIGHT, "%s may be locked, %s of RAM need %s",
                  soft == UINT64_MAX ? "any amount" : text_size(soft, limit), guest, need);
        return;
    }
    check_set(check, PASSTHROUGH_CHECK_WRONG, "only %s may be locked, but %s of RAM need %s",
              text_size(soft, limit), guest, need);
    if (hard >= needed)
        check_remedy(check, "in this shell: ulimit -l %" PRIu64, needed >> 10);
    else
        check_remedy(check,
                     "as root: echo 'USER - memlock %" PRIu64 "' > "
                     "/etc/security/limits.d/hartvisor.conf; then log in anew\n(for a service: "
                     "LimitMEMLOCK=%" PRIu64 "; for this shell only, as root: prlimit --pid PID "
                     "--memlock=%" PRIu64 ")",
                     needed >> 10, needed, needed);
}

size_t passthrough_check(const struct passthrough_manager *manager, uint64_t memory_size,
                         struct passthrough_check checks[PASSTHROUGH_MAX_CHECKS])
{
    size_t count = 0;
    struct who who;
    memset(checks, 0, PASSTHROUGH_MAX_CHECKS * sizeof(*checks));
    who_init(&who, &manager->host);
    check_platform(manager, &checks[count++]);
    check_firmware(manager, &checks[count++]);
    check_parameters(manager, &checks[count++]);
    check_iommu(manager, &checks[count++]);
    check_interrupts(manager, &checks[count++]);
    struct passthrough_check *driver = &checks[count++];
    check_driver(manager, driver);
    check_container(manager, driver, &who, &checks[count++]);
    check_devices(manager, &who, &checks[count++]);
    check_memlock(manager, &who, memory_size, &checks[count++]);
    free(who.groups);
    return count;
}

/* --- Printing --- */

static const struct {
    const char *name, *mark, *colour;
} states[] = {
    [PASSTHROUGH_CHECK_RIGHT] = {"right", "[ok]", "32"},
    [PASSTHROUGH_CHECK_WRONG] = {"wrong", "[no]", "1;31"},
    [PASSTHROUGH_CHECK_WAITS] = {"waits", "[..]", "33"},
    [PASSTHROUGH_CHECK_NOTE] = {"note", "[  ]", "0"},
};

/* Words up to the end of the line that they come with, or of the terminal's. */
static void print_wrapped(FILE *out, const char *text, unsigned indent, unsigned width)
{
    unsigned column = indent;
    bool begins = true;
    fprintf(out, "%*s", (int)indent, "");
    while (*text) {
        unsigned length = (unsigned)strcspn(text, " \n");
        if (!begins && column + 1 + length > width) {
            fprintf(out, "\n%*s", (int)indent, "");
            column = indent;
            begins = true;
        }
        fprintf(out, "%s%.*s", begins ? "" : " ", (int)length, text);
        column += length + !begins;
        begins = false;
        text += length;
        if (*text == '\n') {
            fprintf(out, "\n%*s", (int)indent, "");
            column = indent;
            begins = true;
        }
        text += *text ? 1 : 0;
    }
    fputc('\n', out);
}

static void print_json(const struct passthrough_check *checks, size_t count, uint64_t memory,
                       bool ready, FILE *out)
{
    struct json_object *object = json_object_new_object(), *list = json_object_new_array();
    json_object_object_add(object, "ready", json_object_new_boolean(ready));
    json_object_object_add(object, "memory", json_object_new_uint64(memory));
    for (size_t i = 0; i < count; i++) {
        struct json_object *one = json_object_new_object();
        const char *remedy = checks[i].remedy;
        json_object_object_add(one, "name", json_object_new_string(checks[i].name));
        json_object_object_add(one, "state", json_object_new_string(states[checks[i].state].name));
        json_object_object_add(one, "found", json_object_new_string(checks[i].found));
        json_object_object_add(one, "remedy", *remedy ? json_object_new_string(remedy) : NULL);
        json_object_array_add(list, one);
    }
    json_object_object_add(object, "checks", list);
    json_print(out, object);
}

bool passthrough_check_print(const struct passthrough_manager *manager, uint64_t memory_size,
                             FILE *out, unsigned flags)
{
    struct passthrough_check checks[PASSTHROUGH_MAX_CHECKS];
    size_t count = passthrough_check(manager, memory_size, checks);
    bool ready = true;
    for (size_t i = 0; i < count; i++)
        ready = ready && checks[i].state != PASSTHROUGH_CHECK_WRONG &&
                checks[i].state != PASSTHROUGH_CHECK_WAITS;
    if (flags & PASSTHROUGH_PRINT_JSON) {
        print_json(checks, count, memory_size, ready, out);
        return ready;
    }
    for (size_t i = 0; i < count; i++) {
        fprintf(out, "%s%s%s %-11s %s\n", text_colour(flags, states[checks[i].state].colour),
                states[checks[i].state].mark, text_colour(flags, "0"), checks[i].name,
                checks[i].found);
        if (checks[i].remedy[0])
            print_wrapped(out, checks[i].remedy, 17, text_width(flags));
    }
    fprintf(out, "%s\n",
            ready ? "This machine is ready to give devices to guests."
                  : "This machine is not ready to give devices to guests.");
    return ready;
}
