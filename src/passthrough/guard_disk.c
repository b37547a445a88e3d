/*
 * Whether a mounted filesystem or swap is on a disk of a device. From each block device in use the
 * way goes down through its `slaves` (device mapper, RAID) to disks, whose path in sysfs leads
 * through their controller.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "passthrough/internal.h"

#define DEPTH_MAX 8

/* A disk with several ways to it has no controller in its path; the subsystem lists them. */
static bool nvme_subsystem_on(const struct host *host, const char *path, const char *device)
{
    const char *subsystem = strstr(path, "/nvme-subsys");
    if (!subsystem || !(subsystem = strstr(subsystem + 1, "/nvme-subsys")))
        subsystem = strstr(path, "/nvme-subsys");
    if (!subsystem)
        return false;
    const char *end = strchr(subsystem + 1, '/');
    size_t length = end ? (size_t)(end - path) : strlen(path);
    bool on = false;
    char **names = host_list(host, "%.*s", (int)length, path);
    for (size_t i = 0; names[i] && !on; i++) {
        char *real = host_real(host, "%.*s/%s", (int)length, path, names[i]);
        on = !strncmp(names[i], "nvme", 4) && real && guard_path_has(real, device);
        free(real);
    }
    host_list_free(names);
    return on;
}

static bool block_on(const struct host *host, const char *block, const char *device, unsigned depth)
{
    char *path = host_real(host, "/sys/class/block/%s", block);
    if (!path)
        return false;
    bool on = guard_path_has(path, device) || nvme_subsystem_on(host, path, device);
    char **slaves = host_list(host, "%s/slaves", path);
    for (size_t i = 0; slaves[i] && !on && depth; i++)
        on = block_on(host, slaves[i], device, depth - 1);
    host_list_free(slaves);
    free(path);
    return on;
}

/* The block device's name in sysfs for a path like /dev/sda2 or /dev/mapper/root. */
static bool block_name(const struct host *host, const char *path, char *name, size_t size)
{
    const char *base = strrchr(path, '/');
    if (!base || strncmp(path, "/dev/", 5) != 0)
        return false;
    snprintf(name, size, "%s", base + 1);
    if (host_exists(host, "/sys/class/block/%s", name))
        return true;
    char **blocks = host_list(host, "/sys/class/block");
    bool found = false;
    for (size_t i = 0; blocks[i] && !found; i++) {
        char mapped[128];
        found = host_read(host, mapped, sizeof(mapped), "/sys/class/block/%s/dm/name", blocks[i]) &&
                !strcmp(mapped, base + 1);
        if (found)
            snprintf(name, size, "%s", blocks[i]);
    }
    host_list_free(blocks);
    return found;
}

/* Blanks and others are written as \040 in the kernel's tables. */
static void unescape(char *text)
{
    char *out = text;
    for (; *text; text++) {
        bool octal = text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] >= '0' &&
                     text[2] <= '7' && text[3] >= '0' && text[3] <= '7';
        *out++ =
            octal ? (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0')) : *text;
        text += octal ? 3 : 0;
    }
    *out = '\0';
}

/* A line of mountinfo: its block device by number, or by the source for filesystems that hide it.
 */
static bool mount_on(const struct host *host, char *line, const char *device, char *where,
                     size_t size)
{
    char name[128], number[32], source[1024], target[512];
    const char *rest = strstr(line, " - ");
    if (sscanf(line, "%*s %*s %31s %*s %511s", number, target) != 2)
        return false;
    unescape(target);
    snprintf(where, size, "%.120s", target);
    if (host_link(host, name, sizeof(name), "/sys/dev/block/%s", number) &&
        block_on(host, name, device, DEPTH_MAX))
        return true;
    if (!rest || sscanf(rest + 3, "%*s %1023s", source) != 1)
        return false;
    unescape(source);
    return block_name(host, source, name, sizeof(name)) && block_on(host, name, device, DEPTH_MAX);
}

static bool mounted(const struct host *host, const char *device, char *why, size_t size)
{
    char *text = host_read_all(host, "/proc/self/mountinfo"), *rest = text, where[160];
    bool found = false;
    for (char *line; text && !found && (line = strsep(&rest, "\n"));)
        found = mount_on(host, line, device, where, sizeof(where));
    if (found)
        snprintf(why, size, "a disk on it is mounted at %s", where);
    free(text);
    return found;
}

static bool swaps(const struct host *host, const char *device, char *why, size_t size)
{
    char *text = host_read_all(host, "/proc/swaps"), *rest = text;
    bool found = false;
    for (char *line; text && !found && (line = strsep(&rest, "\n"));) {
        char path[512], name[128];
        if (sscanf(line, "%511s", path) != 1)
            continue;
        unescape(path);
        found =
            block_name(host, path, name, sizeof(name)) && block_on(host, name, device, DEPTH_MAX);
        if (found)
            snprintf(why, size, "the host swaps to a disk on it (%.120s)", path);
    }
    free(text);
    return found;
}

bool guard_disk(const struct host *host, const char *name, char *why, size_t size)
{
    return mounted(host, name, why, size) || swaps(host, name, why, size);
}
