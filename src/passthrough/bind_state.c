/*
 * The drivers that devices had, one "ADDRESS DRIVER" a line, "-" for none. In a folder that does
 * not outlive the boot, as bindings do not either. Written whole and renamed, under a lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "passthrough/internal.h"

static char *state_folder(const struct passthrough_manager *manager)
{
    const char *user = getenv("XDG_RUNTIME_DIR");
    if (manager->state_folder)
        return xstrdup(manager->state_folder);
    if (!manager->host.root[0] && access("/run", W_OK) != 0 && user && *user)
        return xasprintf("%s/hartvisor", user);
    return xasprintf("%s/run/hartvisor", manager->host.root);
}

static char *read_state(const char *folder)
{
    struct host host = {.root = (char *)folder};
    char *text = host_read_all(&host, "/drivers");
    return text ? text : xstrdup("");
}

/* Reads "ADDRESS DRIVER" from a line. */
static bool read_line(const char *line, char name[PCI_ADDRESS_SIZE], char driver[64])
{
    return sscanf(line, "%19s %63s", name, driver) == 2;
}

bool bind_state_get(const struct passthrough_manager *manager, const char *name, char *driver,
                    size_t size)
{
    char *folder = state_folder(manager);
    char *text = read_state(folder), *rest = text;
    bool found = false;
    for (char *line; (line = strsep(&rest, "\n"));) {
        char address[PCI_ADDRESS_SIZE], word[64];
        if (!read_line(line, address, word) || strcmp(address, name) != 0)
            continue;
        snprintf(driver, size, "%s", strcmp(word, "-") ? word : "");
        found = true;
    }
    free(text);
    free(folder);
    return found;
}

bool passthrough_former_driver(const struct passthrough_manager *manager,
                               const struct passthrough_device *device, char driver[64])
{
    return bind_state_get(manager, device->info.name, driver, 64);
}

/* All lines but that of `name`, and a new one unless `driver` is NULL. */
static bool write_lines(const char *folder, const char *path, const char *name, const char *driver)
{
    FILE *out = fopen(path, "we");
    if (!out)
        return false;
    char *text = read_state(folder), *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        char address[PCI_ADDRESS_SIZE], word[64];
        if (read_line(line, address, word) && strcmp(address, name) != 0)
            fprintf(out, "%s %s\n", address, word);
    }
    free(text);
    if (driver)
        fprintf(out, "%s %s\n", name, *driver ? driver : "-");
    bool ok = fflush(out) == 0;
    return fclose(out) == 0 && ok;
}

static bool replace_state(const char *folder, const char *name, const char *driver)
{
    char *lock = xasprintf("%s/lock", folder);
    char *fresh = xasprintf("%s/drivers.new", folder), *path = xasprintf("%s/drivers", folder);
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && flock(fd, LOCK_EX) == 0 && write_lines(folder, fresh, name, driver) &&
              rename(fresh, path) == 0;
    int number = errno;
    if (fd >= 0)
        close(fd);
    free(lock);
    free(fresh);
    free(path);
    errno = number;
    return ok;
}

/* The folder and what it is in. */
static bool make_folder(const char *folder)
{
    char *parent = xstrdup(folder), *slash = strrchr(parent, '/');
    if (slash && slash != parent) {
        *slash = '\0';
        mkdir(parent, 0755);
    }
    free(parent);
    return mkdir(folder, 0755) == 0 || errno == EEXIST;
}

bool bind_state_set(const struct passthrough_manager *manager, const char *name, const char *driver,
                    struct error *err)
{
    char *folder = state_folder(manager);
    bool ok = make_folder(folder) && replace_state(folder, name, driver);
    if (!ok)
        error_set_errno(err, errno, "cannot remember the driver of %s in %s", name, folder);
    free(folder);
    return ok;
}
