/*
 * A machine's sysfs, proc and dev made from a short text, tests/machines/NAME. Lines:
 *
 *     # a comment
 *     pci 00:01.0/01:00.0 10de:2204 class=030000 [KEY=VALUE]...   a function, with its bridges
 *         sub=1043:87d9 rev=a1 driver=nvidia group=14 node=0 link=2.5x16/16x16 vfs=0/8 pf=02:00.0
 *         reset=flr,bus boot=1 power=D0 override=no bars=16M,32G+64+p,,rom:512K,128+io
 *     config 01:00.0 OFFSET HEX...   bytes of configuration space; what comes before is 0
 *     net eth0 02:00.0 [CARRIER]     an interface of a function
 *     disk nvme0n1 03:00.0 259:0     a disk of a function
 *     part nvme0n1p1 nvme0n1 259:1   a partition of a disk
 *     names 10de [DEVICE] TEXT       for pci.ids
 *     file PATH TEXT, link PATH TARGET, dir PATH, mode PATH OCTAL   anything else; \n is a new line
 */
#pragma once

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "hartvisor/passthrough.h"

static const char *recorded_root;

static void recorded_fail(const char *what, const char *text)
{
    fprintf(stderr, "recorded host: %s: %s (%s)\n", what, text, strerror(errno));
    abort();
}

/* Makes the folders that a path below the root goes through; returns the whole path. */
static char *recorded_path(const char *path)
{
    char *whole = xasprintf("%s/%s", recorded_root, path + (*path == '/'));
    for (char *slash = whole + strlen(recorded_root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        if (mkdir(whole, 0755) != 0 && errno != EEXIST)
            recorded_fail("mkdir", whole);
        *slash = '/';
    }
    return whole;
}

static void recorded_dir(const char *path)
{
    char *whole = recorded_path(path);
    if (mkdir(whole, 0755) != 0 && errno != EEXIST)
        recorded_fail("mkdir", whole);
    free(whole);
}

static void recorded_file(const char *path, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void recorded_file(const char *path, const char *format, ...)
{
    char *whole = recorded_path(path);
    FILE *file = fopen(whole, "w");
    va_list arguments;
    if (!file)
        recorded_fail("open", whole);
    va_start(arguments, format);
    vfprintf(file, format, arguments);
    va_end(arguments);
    fputc('\n', file);
    fclose(file);
    free(whole);
}

static void recorded_link(const char *path, const char *target)
{
    char *whole = recorded_path(path), *to = recorded_path(target);
    unlink(whole);
    if (symlink(to, whole) != 0)
        recorded_fail("symlink", whole);
    free(whole);
    free(to);
}

/* --- Functions --- */

static char *recorded_name(const char *word)
{
    struct pci_address address;
    struct error err;
    char text[PCI_ADDRESS_SIZE];
    if (!pci_address_parse(word, &address, &err))
        recorded_fail(word, err.message);
    return xstrdup(pci_address_print(&address, text));
}

/* Where a function's folder is. */
static char *recorded_device(const char *word)
{
    char *name = recorded_name(word), *link = xasprintf("sys/bus/pci/devices/%s", name);
    char *whole = recorded_path(link), *real = realpath(whole, NULL);
    if (!real)
        recorded_fail("no such function", word);
    char *path = xstrdup(real + strlen(recorded_root) + 1);
    free(name);
    free(link);
    free(whole);
    free(real);
    return path;
}

static uint64_t recorded_size(const char *text, const char **rest)
{
    char *end;
    uint64_t size = strtoull(text, &end, 10);
    const char *units = "KMGT", *unit = *end ? strchr(units, *end) : NULL;
    *rest = end + (unit ? 1 : 0);
    return unit ? size << 10 * (unit - units + 1) : size;
}

static void recorded_bars(const char *folder, const char *list)
{
    uint64_t rows[7][3] = {{0}}, next = UINT64_C(0x4000000000);
    unsigned index = 0;
    for (const char *word = list; *word; word += *word == ',') {
        const char *rest = word;
        bool rom = !strncmp(word, "rom:", 4);
        uint64_t size = recorded_size(word + (rom ? 4 : 0), &rest), flags = 0x200;
        for (; *rest == '+'; rest += strcspn(rest + 1, "+,") + 1)
            flags = rest[1] == 'i' ? 0x100 : rest[1] == 'p' ? flags | 0x2000 : flags | 0x100000;
        unsigned at = rom ? 6 : index++;
        if (size && at < 7) {
            next = (next + size - 1) / size * size;
            rows[at][0] = next;
            rows[at][1] = next + size - 1;
            rows[at][2] = flags;
            next += size;
        }
        word = rest;
    }
    char *path = xasprintf("%s/resource", folder), text[7 * 64] = "";
    for (unsigned i = 0; i < 7; i++)
        sprintf(text + strlen(text), "0x%016" PRIx64 " 0x%016" PRIx64 " 0x%016" PRIx64 "%s",
                rows[i][0], rows[i][1], rows[i][2], i < 6 ? "\n" : "");
    recorded_file(path, "%s", text);
    free(path);
}

static void recorded_text(const char *folder, const char *name, const char *text)
{
    char *path = xasprintf("%s/%s", folder, name);
    recorded_file(path, "%s", text);
    free(path);
}

static void recorded_driver(const char *folder, const char *driver)
{
    char *target = xasprintf("sys/bus/pci/drivers/%s", driver),
         *link = xasprintf("%s/driver", folder);
    recorded_dir(target);
    recorded_text(target, "bind", "");
    recorded_text(target, "unbind", "");
    recorded_text(target, "new_id", "");
    recorded_link(link, target);
    free(target);
    free(link);
}

static void recorded_group(const char *folder, const char *name, const char *group)
{
    char *target = xasprintf("sys/kernel/iommu_groups/%s", group);
    char *link = xasprintf("%s/iommu_group", folder);
    char *member = xasprintf("%s/devices/%s", target, name);
    recorded_dir(target);
    recorded_link(link, target);
    recorded_link(member, folder);
    free(target);
    free(link);
    free(member);
}

/* "2.5x16/16x16": now, at most. */
static void recorded_pcie_link(const char *folder, const char *value)
{
    static const char *const names[2] = {"current", "max"};
    for (unsigned i = 0; i < 2 && value; i++, value = value ? strchr(value, '/') : NULL) {
        double speed;
        unsigned width;
        char text[64], name[32];
        value += *value == '/';
        if (sscanf(value, "%lfx%u", &speed, &width) != 2)
            recorded_fail("no link", value);
        snprintf(text, sizeof(text), "%.1f GT/s PCIe", speed);
        snprintf(name, sizeof(name), "%s_link_speed", names[i]);
        recorded_text(folder, name, text);
        snprintf(text, sizeof(text), "%u", width);
        snprintf(name, sizeof(name), "%s_link_width", names[i]);
        recorded_text(folder, name, text);
    }
}

static void recorded_key(const char *folder, const char *name, const char *key, char *value)
{
    static const char *const files[][2] = {
        {"node", "numa_node"}, {"boot", "boot_vga"}, {"power", "power_state"}};
    char text[64];
    unsigned a, b;
    for (unsigned i = 0; i < 3; i++)
        if (!strcmp(key, files[i][0]))
            recorded_text(folder, files[i][1], value);
    snprintf(text, sizeof(text), "0x%s", value);
    if (!strcmp(key, "class")) {
        recorded_text(folder, "class", text);
    } else if (!strcmp(key, "rev")) {
        recorded_text(folder, "revision", text);
    } else if (!strcmp(key, "sub") && sscanf(value, "%x:%x", &a, &b) == 2) {
        snprintf(text, sizeof(text), "0x%04x", a);
        recorded_text(folder, "subsystem_vendor", text);
        snprintf(text, sizeof(text), "0x%04x", b);
        recorded_text(folder, "subsystem_device", text);
    } else if (!strcmp(key, "driver")) {
        recorded_driver(folder, value);
    } else if (!strcmp(key, "group")) {
        recorded_group(folder, name, value);
    } else if (!strcmp(key, "link")) {
        recorded_pcie_link(folder, value);
    } else if (!strcmp(key, "vfs")) {
        recorded_text(folder, "sriov_numvfs", strtok_r(value, "/", &value));
        recorded_text(folder, "sriov_totalvfs", value);
    } else if (!strcmp(key, "pf")) {
        char *target = recorded_device(value), *link = xasprintf("%s/physfn", folder);
        recorded_link(link, target);
        free(target);
        free(link);
    } else if (!strcmp(key, "reset")) {
        for (char *comma = value; (comma = strchr(comma, ','));)
            *comma = ' ';
        recorded_text(folder, "reset_method", value);
    } else if (!strcmp(key, "bars")) {
        recorded_bars(folder, value);
    } else if (!strcmp(key, "override")) {
        char *path = xasprintf("%s/%s/driver_override", recorded_root, folder);
        unlink(path);
        free(path);
    }
}

static void recorded_pci(char *rest)
{
    char *chain = strtok_r(rest, " ", &rest), *ids = strtok_r(rest, " ", &rest), text[64];
    char *last = strrchr(chain, '/'), *name = recorded_name(last ? last + 1 : chain);
    char *folder = xasprintf("sys/devices/pci%.*s:00", (int)(strchr(name, ':') - name), name);
    for (char *word; (word = strtok_r(chain, "/", &chain));) {
        char *step = recorded_name(word), *longer = xasprintf("%s/%s", folder, step);
        free(step);
        free(folder);
        folder = longer;
    }
    char *link = xasprintf("sys/bus/pci/devices/%s", name);
    unsigned vendor, device;
    if (!ids || sscanf(ids, "%x:%x", &vendor, &device) != 2)
        recorded_fail("no numbers for", name);
    recorded_dir(folder);
    recorded_link(link, folder);
    snprintf(text, sizeof(text), "0x%04x", vendor);
    recorded_text(folder, "vendor", text);
    snprintf(text, sizeof(text), "0x%04x", device);
    recorded_text(folder, "device", text);
    recorded_text(folder, "driver_override", "(null)");
    for (char *word; (word = strtok_r(rest, " ", &rest));) {
        char *value = strchr(word, '=');
        if (!value)
            recorded_fail("no value for", word);
        *value++ = '\0';
        recorded_key(folder, name, word, value);
    }
    free(link);
    free(folder);
    free(name);
}

static void recorded_config(char *rest)
{
    char *folder = recorded_device(strtok_r(rest, " ", &rest));
    long offset = strtol(strtok_r(rest, " ", &rest), NULL, 16);
    char *path = xasprintf("%s/%s/config", recorded_root, folder);
    int fd = open(path, O_RDWR | O_CREAT, 0644);
    for (char *word; (word = strtok_r(rest, " ", &rest)); offset++) {
        uint8_t byte = (uint8_t)strtoul(word, NULL, 16);
        if (pwrite(fd, &byte, 1, offset) != 1)
            recorded_fail("write", path);
    }
    close(fd);
    free(path);
    free(folder);
}

/* --- What is on functions --- */

static void recorded_net(char *rest)
{
    char *name = strtok_r(rest, " ", &rest), *device = recorded_device(strtok_r(rest, " ", &rest));
    char *carrier = strtok_r(rest, " ", &rest);
    char *folder = xasprintf("%s/net/%s", device, name);
    char *link = xasprintf("sys/class/net/%s", name), *back = xasprintf("%s/device", folder);
    recorded_text(folder, "carrier", carrier ? carrier : "1");
    recorded_link(link, folder);
    recorded_link(back, device);
    free(device);
    free(folder);
    free(link);
    free(back);
}

static void recorded_block(const char *folder, const char *name, const char *number)
{
    char *link = xasprintf("sys/class/block/%s", name), *by = xasprintf("sys/dev/block/%s", number);
    recorded_text(folder, "dev", number);
    recorded_link(link, folder);
    recorded_link(by, folder);
    free(link);
    free(by);
}

static void recorded_disk(char *rest)
{
    char *name = strtok_r(rest, " ", &rest), *device = recorded_device(strtok_r(rest, " ", &rest));
    char *folder = xasprintf("%s/block/%s", device, name);
    recorded_block(folder, name, strtok_r(rest, " ", &rest));
    free(device);
    free(folder);
}

static void recorded_part(char *rest)
{
    char *name = strtok_r(rest, " ", &rest), *disk = strtok_r(rest, " ", &rest);
    char *link = xasprintf("%s/sys/class/block/%s", recorded_root, disk);
    char *real = realpath(link, NULL);
    if (!real)
        recorded_fail("no such disk", disk);
    char *folder = xasprintf("%s/%s", real + strlen(recorded_root), name);
    recorded_block(folder, name, strtok_r(rest, " ", &rest));
    free(link);
    free(real);
    free(folder);
}

static void recorded_names(char *rest)
{
    char *vendor = strtok_r(rest, " ", &rest);
    char *path = recorded_path("usr/share/misc/pci.ids"), *device = NULL;
    FILE *file = fopen(path, "a");
    if (strspn(rest, "0123456789abcdef") == 4 && rest[4] == ' ')
        device = strtok_r(rest, " ", &rest);
    if (device)
        fprintf(file, "\t%s  %s\n", device, rest);
    else
        fprintf(file, "%s  %s\n", vendor, rest);
    fclose(file);
    free(path);
}

static void recorded_line(char *line)
{
    char *word = strtok_r(line, " ", &line), *path;
    static const struct {
        const char *word;
        void (*make)(char *rest);
    } makers[] = {
        {"pci", recorded_pci},   {"config", recorded_config}, {"net", recorded_net},
        {"disk", recorded_disk}, {"part", recorded_part},     {"names", recorded_names},
    };
    for (unsigned i = 0; i < sizeof(makers) / sizeof(makers[0]); i++) {
        if (strcmp(makers[i].word, word) != 0)
            continue;
        makers[i].make(line);
        return;
    }
    path = strtok_r(line, " ", &line);
    if (!strcmp(word, "file")) {
        for (char *newline; (newline = strstr(line, "\\n"));) {
            *newline = '\n';
            memmove(newline + 1, newline + 2, strlen(newline + 2) + 1);
        }
        recorded_file(path, "%s", line);
    } else if (!strcmp(word, "link")) {
        recorded_link(path, line);
    } else if (!strcmp(word, "dir")) {
        recorded_dir(path);
    } else if (!strcmp(word, "mode")) {
        char *whole = recorded_path(path);
        chmod(whole, (mode_t)strtoul(line, NULL, 8));
        free(whole);
    } else {
        recorded_fail("unknown line", word);
    }
}

static int recorded_remove_one(const char *path, const struct stat *status, int type,
                               struct FTW *place)
{
    return remove(path);
}

/* Removes a folder and all that is in it. */
static inline void recorded_host_remove(const char *root)
{
    nftw(root, recorded_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Makes the machine of `file` in the folder `root`, which exists. */
static void recorded_host_make(const char *file, const char *root)
{
    FILE *in = fopen(file, "r");
    char *line = NULL;
    size_t size = 0;
    ssize_t length;
    char *real = realpath(root, NULL);
    if (!in || !real)
        recorded_fail("open", file);
    recorded_root = real;
    recorded_dir("sys/bus/pci/devices");
    recorded_dir("sys/bus/pci/drivers");
    recorded_file("sys/bus/pci/drivers_probe", "%s", "");
    while ((length = getline(&line, &size, in)) > 0) {
        while (length > 0 && strchr(" \n", line[length - 1]))
            line[--length] = '\0';
        if (line[0] && line[0] != '#')
            recorded_line(line);
    }
    free(line);
    fclose(in);
    free(real);
}
