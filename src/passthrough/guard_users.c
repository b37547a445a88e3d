/* Which processes have a device open: its driver would wait for them, or take them along. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "passthrough/internal.h"

static bool is_one_of(const char *path, char *const *paths, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(path, paths[i]))
            return true;
    return false;
}

static bool has_open(const struct host *host, const char *process, char *const *paths, size_t count)
{
    char **files = host_list(host, "/proc/%s/fd", process);
    bool found = false;
    for (size_t i = 0; files[i] && !found; i++) {
        char *path = host_real(host, "/proc/%s/fd/%s", process, files[i]);
        found = path && is_one_of(path, paths, count);
        free(path);
    }
    host_list_free(files);
    return found;
}

long guard_process(const struct host *host, char *const *paths, size_t count, char name[32])
{
    char **processes = host_list(host, "/proc");
    long user = 0;
    for (size_t i = 0; count && processes[i] && !user; i++)
        if (isdigit((unsigned char)processes[i][0]) && has_open(host, processes[i], paths, count))
            user = strtol(processes[i], NULL, 10);
    host_list_free(processes);
    if (user && !host_read(host, name, 32, "/proc/%ld/comm", user))
        snprintf(name, 32, "?");
    return user;
}

/* --- The files in /dev of a GPU or NPU --- */

#define NODES_MAX 16

struct nodes {
    char *paths[NODES_MAX];
    size_t count;
};

static void add_node(struct nodes *nodes, char *path)
{
    if (nodes->count < NODES_MAX)
        nodes->paths[nodes->count++] = path;
    else
        free(path);
}

/* Those of a class whose path leads through the device. */
static void add_class(const struct host *host, const char *class, const char *folder,
                      const char *device, struct nodes *nodes)
{
    char **names = host_list(host, "/sys/class/%s", class);
    for (size_t i = 0; names[i]; i++) {
        char *path = host_real(host, "/sys/class/%s/%s", class, names[i]);
        if (path && guard_path_has(path, device))
            add_node(nodes, xasprintf("/dev/%s/%s", folder, names[i]));
        free(path);
    }
    host_list_free(names);
}

/* NVIDIA's own driver has no class; it tells the number of its file. */
static void add_nvidia(const struct host *host, const char *device, struct nodes *nodes)
{
    char *text = host_read_all(host, "/proc/driver/nvidia/gpus/%s/information", device);
    const char *line = text ? strstr(text, "Device Minor:") : NULL;
    unsigned number;
    if (line && sscanf(line, "Device Minor: %u", &number) == 1)
        add_node(nodes, xasprintf("/dev/nvidia%u", number));
    free(text);
}

bool guard_users(const struct host *host, const struct passthrough_info *info, char *why,
                 size_t size)
{
    struct nodes nodes = {.count = 0};
    char name[32];
    add_class(host, "drm", "dri", info->name, &nodes);
    add_class(host, "accel", "accel", info->name, &nodes);
    add_nvidia(host, info->name, &nodes);
    long user = guard_process(host, nodes.paths, nodes.count, name);
    if (user)
        snprintf(why, size, "process %ld (%s) uses it", user, name);
    for (size_t i = 0; i < nodes.count; i++)
        free(nodes.paths[i]);
    return user;
}
