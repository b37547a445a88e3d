/* What the host lives on: its console and its network; guard_disk.c has the disks. */
#include <stdlib.h>
#include <string.h>

#include "passthrough/internal.h"

bool guard_path_has(const char *path, const char *name)
{
    size_t length = strlen(name);
    for (const char *place = path; (place = strstr(place, name)); place++)
        if (place > path && place[-1] == '/' && (!place[length] || place[length] == '/'))
            return true;
    return false;
}

/* --- The console --- */

static bool framebuffer_console_on(const struct host *host)
{
    char **consoles = host_list(host, "/sys/class/vtconsole");
    bool on = false;
    for (size_t i = 0; consoles[i]; i++) {
        uint64_t bound;
        char name[64];
        if (host_number(host, &bound, "/sys/class/vtconsole/%s/bind", consoles[i]) && bound == 1 &&
            host_read(host, name, sizeof(name), "/sys/class/vtconsole/%s/name", consoles[i]) &&
            strstr(name, "frame buffer"))
            on = true;
    }
    host_list_free(consoles);
    return on;
}

static bool has_framebuffer(const struct host *host, const char *device)
{
    char **buffers = host_list(host, "/sys/class/graphics");
    bool has = false;
    for (size_t i = 0; buffers[i]; i++) {
        char *path = host_real(host, "/sys/class/graphics/%s", buffers[i]);
        has = has || (path && guard_path_has(path, device));
        free(path);
    }
    host_list_free(buffers);
    return has;
}

static bool guard_console(const struct host *host, const struct passthrough_info *info, char *why,
                          size_t size)
{
    if (passthrough_kind_type(info->kind) != PASSTHROUGH_GPU)
        return false;
    if (info->boot_vga)
        snprintf(why, size, "it is the display that the firmware started with");
    else if (framebuffer_console_on(host) && has_framebuffer(host, info->name))
        snprintf(why, size, "the console is on it");
    else
        return false;
    return true;
}

/* --- The network --- */

/* Whether an interface is on the device, itself or by those it is made of (bonds, bridges). */
static bool interface_on(const struct host *host, const char *interface, const char *device,
                         unsigned depth)
{
    char *path = host_real(host, "/sys/class/net/%s", interface);
    bool on = path && guard_path_has(path, device);
    free(path);
    if (on || !depth)
        return on;
    char **names = host_list(host, "/sys/class/net/%s", interface);
    for (size_t i = 0; names[i] && !on; i++)
        if (!strncmp(names[i], "lower_", 6))
            on = interface_on(host, names[i] + 6, device, depth - 1);
    host_list_free(names);
    /* A bridge lists its ports elsewhere. */
    names = host_list(host, "/sys/class/net/%s/brif", interface);
    for (size_t i = 0; names[i] && !on; i++)
        on = interface_on(host, names[i], device, depth - 1);
    host_list_free(names);
    return on;
}

/* The interface of a default route in a line of /proc/net/route or ipv6_route. */
static bool default_route(const char *line, bool six, char interface[64])
{
    char destination[40], length[8];
    if (!six)
        return sscanf(line, "%63s %39s", interface, destination) == 2 &&
               !strcmp(destination, "00000000");
    return sscanf(line, "%39s %7s %*s %*s %*s %*s %*s %*s %*s %63s", destination, length,
                  interface) == 3 &&
           strspn(destination, "0") == 32 && !strcmp(length, "00") && strcmp(interface, "lo") != 0;
}

static bool carries_default_route(const struct host *host, const char *device, char *interface)
{
    static const char *const files[] = {"/proc/net/route", "/proc/net/ipv6_route"};
    bool found = false;
    for (unsigned i = 0; i < ARRAY_SIZE(files) && !found; i++) {
        char *text = host_read_all(host, "%s", files[i]), *rest = text;
        for (char *line; text && !found && (line = strsep(&rest, "\n"));)
            found =
                default_route(line, i == 1, interface) && interface_on(host, interface, device, 4);
        free(text);
    }
    return found;
}

/* Whether the only physical interface with a carrier is on the device. */
static bool is_only_carrier(const struct host *host, const char *device, char *interface)
{
    char **names = host_list(host, "/sys/class/net");
    bool here = false, elsewhere = false;
    for (size_t i = 0; names[i]; i++) {
        uint64_t carrier;
        if (!host_exists(host, "/sys/class/net/%s/device", names[i]) ||
            !host_number(host, &carrier, "/sys/class/net/%s/carrier", names[i]) || carrier != 1)
            continue;
        if (interface_on(host, names[i], device, 0)) {
            here = true;
            snprintf(interface, 64, "%s", names[i]);
        } else {
            elsewhere = true;
        }
    }
    host_list_free(names);
    return here && !elsewhere;
}

static bool guard_network(const struct host *host, const struct passthrough_info *info, char *why,
                          size_t size)
{
    char interface[64];
    if (carries_default_route(host, info->name, interface))
        snprintf(why, size, "the default route goes through it (%s)", interface);
    else if (is_only_carrier(host, info->name, interface))
        snprintf(why, size, "its %s is the only network link that is up", interface);
    else
        return false;
    return true;
}

bool guard_check(const struct host *host, const struct passthrough_info *info, struct error *err)
{
    char why[256]; /* names in it may be anybody's choice */
    if (guard_disk(host, info->name, why, sizeof(why)) ||
        guard_console(host, info, why, sizeof(why)) ||
        guard_network(host, info, why, sizeof(why)) || guard_users(host, info, why, sizeof(why))) {
        host_clean(why);
        return error_set(err, "the host needs %s: %s (--force takes it away all the same)",
                         info->name, why);
    }
    return true;
}
