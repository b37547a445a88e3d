/* Names, and getting from one descriptor to another without ever leaving the shared directory. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "virtio/p9_internal.h"

#define QID_DIRECTORY 0x80
#define QID_SYMLINK   0x02
#define DEPTH_MAX     1024 /* directories between a fid and the root, when checking */

bool p9_name_valid(const char *name)
{
    return *name && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, "..");
}

int p9_stat(int path_fd, struct stat *info)
{
    return fstatat(path_fd, "", info, AT_EMPTY_PATH | AT_NO_AUTOMOUNT);
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

bool p9_is_root(const struct p9_server *server, const struct stat *info)
{
    return info->st_dev == server->root_device && info->st_ino == server->root_inode;
}

int p9_copy(int path_fd)
{
    return fcntl(path_fd, F_DUPFD_CLOEXEC, 0);
}

static int open_component(int directory_fd, const char *name)
{
    return openat(directory_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
}

/* True if climbing from the directory leads to the root. */
static bool is_beneath(const struct p9_server *server, int directory_fd)
{
    struct stat info, above;
    int fd = p9_copy(directory_fd), next;
    bool found = false;

    for (unsigned depth = 0; fd >= 0 && depth < DEPTH_MAX; depth++) {
        if (p9_stat(fd, &info))
            break;
        found = p9_is_root(server, &info);
        if (found)
            break;
        next = open_component(fd, "..");
        close(fd);
        fd = next;
        if (fd < 0 || p9_stat(fd, &above) || same_file(&info, &above))
            break;
    }
    if (fd >= 0)
        close(fd);
    return found;
}

/*
 * Somebody may have moved the directory out of the share: its parent is given out only if that
 * still lies beneath the root.
 */
static int step_up(const struct p9_server *server, int directory_fd)
{
    struct stat info;
    int parent;

    if (p9_stat(directory_fd, &info))
        return -1;
    if (p9_is_root(server, &info))
        return p9_copy(directory_fd);
    parent = open_component(directory_fd, "..");
    if (parent >= 0 && !is_beneath(server, parent)) {
        close(parent);
        errno = EACCES;
        return -1;
    }
    return parent;
}

int p9_step(const struct p9_server *server, int directory_fd, const char *name)
{
    if (!strcmp(name, ".."))
        return step_up(server, directory_fd);
    if (strcmp(name, ".") && !p9_name_valid(name)) {
        errno = ENOENT;
        return -1;
    }
    return open_component(directory_fd, name);
}

/*
 * The type is checked on the descriptor that is then opened: a device node, socket or FIFO is never
 * opened, not even for a moment.
 */
int p9_open(const struct p9_server *server, int path_fd, int flags)
{
    struct stat info;
    char name[16];

    if (p9_stat(path_fd, &info))
        return -1;
    if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) {
        errno = S_ISLNK(info.st_mode) ? ELOOP : EACCES;
        return -1;
    }
    snprintf(name, sizeof(name), "%d", path_fd);
    return openat(server->proc_fd, name, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}

static ssize_t absolute_path(const struct p9_server *server, int fd, char *path, size_t size)
{
    char name[16];
    ssize_t length;

    snprintf(name, sizeof(name), "%d", fd);
    length = readlinkat(server->proc_fd, name, path, size - 1);
    if (length < 0 || (size_t)length == size - 1) {
        errno = length < 0 ? errno : ENAMETOOLONG;
        return -1;
    }
    path[length] = 0;
    return length;
}

/* The kernel's idea of the two paths is a hint only: who uses it walks the path and compares. */
int p9_path_of(const struct p9_server *server, int path_fd, char *path, size_t size)
{
    char root[P9_TEXT_MAX + 1], full[2 * P9_TEXT_MAX];
    ssize_t root_length = absolute_path(server, server->root_fd, root, sizeof(root));
    ssize_t length = absolute_path(server, path_fd, full, sizeof(full));
    struct stat wanted, found;
    const char *below;
    int fd;

    if (root_length < 0 || length < 0)
        return -1;
    if (root_length == 1) /* "/" */
        root_length = 0;
    below = full + root_length;
    if (strncmp(full, root, root_length) || (*below && *below != '/'))
        below = NULL;
    while (below && *below == '/')
        below++;
    if (!below || strlen(below) >= size) {
        errno = ENOENT;
        return -1;
    }
    fd = p9_descend(server, below);
    if (fd < 0)
        return -1;
    bool same = !p9_stat(fd, &found) && !p9_stat(path_fd, &wanted) && same_file(&found, &wanted);
    close(fd);
    if (!same) {
        errno = ENOENT;
        return -1;
    }
    strcpy(path, below);
    return 0;
}

int p9_descend(const struct p9_server *server, const char *path)
{
    int fd = p9_copy(server->root_fd), next;
    char name[P9_NAME_MAX + 1];

    while (fd >= 0 && *path) {
        size_t length = strcspn(path, "/");
        if (length > P9_NAME_MAX) {
            close(fd);
            errno = ENAMETOOLONG;
            return -1;
        }
        memcpy(name, path, length);
        name[length] = 0;
        path += length + (path[length] == '/');
        next = -1;
        if (p9_name_valid(name))
            next = open_component(fd, name);
        else
            errno = EINVAL;
        int error = errno;
        close(fd);
        errno = error;
        fd = next;
    }
    return fd;
}

int p9_parent_of(const struct p9_server *server, int path_fd, char name[P9_NAME_MAX + 1])
{
    char path[P9_TEXT_MAX + 1];
    char *slash;

    if (p9_path_of(server, path_fd, path, sizeof(path)))
        return -1;
    if (!*path) {
        errno = EBUSY; /* the root has no name here */
        return -1;
    }
    slash = strrchr(path, '/');
    strcpy(name, slash ? slash + 1 : path); /* p9_path_of has walked it: a valid name */
    if (slash)
        *slash = 0;
    else
        *path = 0;
    return p9_descend(server, path);
}

/*
 * A qid names a file for the guest. Inode numbers of other file systems mounted below the share are
 * told apart by their device in the upper bits.
 */
void p9_put_qid(const struct p9_server *server, struct p9_reply *reply, const struct stat *info)
{
    uint64_t device = info->st_dev - server->root_device;
    uint8_t type = S_ISDIR(info->st_mode)   ? QID_DIRECTORY
                   : S_ISLNK(info->st_mode) ? QID_SYMLINK
                                            : 0;
    uint64_t version = (uint64_t)info->st_mtim.tv_sec * 1000000007 + info->st_mtim.tv_nsec +
                       (uint64_t)info->st_size;

    p9_put(reply, type, 1);
    p9_put(reply, version, 4);
    p9_put(reply, info->st_ino ^ device << 48, 8);
}
