#include "passthrough/host.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"

#define FILE_MAX (4u << 20) /* what is longer is cut */

static char *format_path(const struct host *host, const char *format, va_list arguments)
{
    char *path, *whole;
    if (vasprintf(&path, format, arguments) < 0)
        abort();
    whole = xasprintf("%s%s", host->root, path);
    free(path);
    return whole;
}

/* Opens, reads or asks about a path from variable arguments. */
#define PATH_OF(host, format, path)                                                                \
    va_list arguments;                                                                             \
    va_start(arguments, format);                                                                   \
    char *path = format_path(host, format, arguments);                                             \
    va_end(arguments)

/* Up to `size` bytes; -1 if it cannot be read. */
static ssize_t read_file(const char *path, char *bytes, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return -1;
    size_t done = 0;
    ssize_t count = 0;
    while (done < size && (count = read(fd, bytes + done, size - done)) != 0) {
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            break;
        done += (size_t)count;
    }
    close(fd);
    return count < 0 && !done ? -1 : (ssize_t)done;
}

static void clean(char *text, const char *kept)
{
    for (; *text; text++)
        if ((*text < ' ' || *text > '~') && !strchr(kept, *text))
            *text = '?';
}

void host_clean(char *text)
{
    clean(text, "");
}

static bool read_text(const char *path, char *text, size_t size)
{
    ssize_t length = read_file(path, text, size - 1);
    text[0] = length > 0 ? text[0] : '\0';
    if (length < 0)
        return false;
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        length--;
    text[length] = '\0';
    clean(text, "\n\t");
    return true;
}

bool host_read(const struct host *host, char *text, size_t size, const char *format, ...)
{
    PATH_OF(host, format, path);
    bool ok = read_text(path, text, size);
    free(path);
    return ok;
}

char *host_read_all(const struct host *host, const char *format, ...)
{
    PATH_OF(host, format, path);
    size_t room = 4096, length = 0;
    char *bytes = NULL;
    ssize_t count = -1;
    /* The kernel makes these files as they are read: a longer one is read anew, from its start. */
    do {
        bytes = xrealloc(bytes, room + 1);
        count = read_file(path, bytes, room);
        length = count > 0 ? (size_t)count : 0;
    } while (length == room && (room *= 4) <= FILE_MAX);
    free(path);
    if (count < 0) {
        free(bytes);
        return NULL;
    }
    bytes[length] = '\0';
    return bytes;
}

bool host_number(const struct host *host, uint64_t *value, const char *format, ...)
{
    PATH_OF(host, format, path);
    char text[64], *end;
    bool ok = read_text(path, text, sizeof(text));
    free(path);
    if (!ok || !text[0])
        return false;
    *value = strtoull(text, &end, 0);
    return !*end;
}

bool host_exists(const struct host *host, const char *format, ...)
{
    PATH_OF(host, format, path);
    bool exists = access(path, F_OK) == 0;
    free(path);
    return exists;
}

bool host_link(const struct host *host, char *name, size_t size, const char *format, ...)
{
    PATH_OF(host, format, path);
    char target[4096];
    ssize_t length = readlink(path, target, sizeof(target) - 1);
    free(path);
    if (length <= 0)
        return false;
    target[length] = '\0';
    const char *slash = strrchr(target, '/');
    snprintf(name, size, "%s", slash ? slash + 1 : target);
    host_clean(name);
    return name[0];
}

char *host_real(const struct host *host, const char *format, ...)
{
    PATH_OF(host, format, path);
    char *real = realpath(path, NULL);
    free(path);
    size_t length = strlen(host->root);
    if (real && strncmp(real, host->root, length) == 0)
        memmove(real, real + length, strlen(real + length) + 1);
    return real;
}

char *host_path(const struct host *host, const char *path)
{
    return xasprintf("%s%s", host->root, path);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

char **host_list(const struct host *host, const char *format, ...)
{
    PATH_OF(host, format, path);
    DIR *folder = opendir(path);
    free(path);
    char **names = xcalloc(1, sizeof(*names));
    size_t count = 0;
    if (!folder)
        return names;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (entry->d_name[0] == '.')
            continue;
        names = xrealloc(names, (count + 2) * sizeof(*names));
        names[count++] = xstrdup(entry->d_name);
    }
    names[count] = NULL;
    closedir(folder);
    if (count)
        qsort(names, count, sizeof(*names), compare_names);
    return names;
}

void host_list_free(char **names)
{
    for (size_t i = 0; names[i]; i++)
        free(names[i]);
    free(names);
}
