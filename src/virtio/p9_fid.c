/* The server itself and its table of fids. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "virtio/p9_internal.h"

#define MESSAGE_MAX_BEFORE_VERSION 8192

static struct p9_fid **bucket(struct p9_server *server, uint32_t id)
{
    return &server->buckets[id % P9_BUCKETS];
}

struct p9_fid *p9_fid_find(struct p9_server *server, uint32_t id)
{
    struct p9_fid *fid = *bucket(server, id);

    while (fid && fid->id != id)
        fid = fid->next;
    return fid;
}

struct p9_fid *p9_fid_add(struct p9_server *server, uint32_t id, int path_fd)
{
    bool taken = id == P9_NO_FID || p9_fid_find(server, id);
    struct p9_fid *fid;

    if (taken || server->fid_count == P9_FIDS_MAX) {
        if (path_fd >= 0)
            close(path_fd);
        errno = taken ? EBUSY : EMFILE;
        return NULL;
    }
    fid = xcalloc(1, sizeof(*fid));
    *fid = (struct p9_fid){.next = *bucket(server, id), .id = id, .path_fd = path_fd, .io_fd = -1};
    *bucket(server, id) = fid;
    server->fid_count++;
    return fid;
}

static void fid_close(struct p9_fid *fid)
{
    if (fid->path_fd >= 0)
        close(fid->path_fd);
    if (fid->io_fd >= 0)
        close(fid->io_fd);
    fid->path_fd = fid->io_fd = -1;
}

void p9_fid_set_path(struct p9_fid *fid, int path_fd)
{
    fid_close(fid);
    fid->path_fd = path_fd;
}

void p9_fid_remove(struct p9_server *server, struct p9_fid *fid)
{
    struct p9_fid **link = bucket(server, fid->id);

    while (*link != fid)
        link = &(*link)->next;
    *link = fid->next;
    server->fid_count--;
    fid_close(fid);
    free(fid);
}

void p9_server_reset(struct p9_server *server)
{
    for (unsigned i = 0; i < P9_BUCKETS; i++)
        while (server->buckets[i])
            p9_fid_remove(server, server->buckets[i]);
    server->message_max = MESSAGE_MAX_BEFORE_VERSION;
}

/* Each fid holds a descriptor or two, and a guest's cache holds many fids. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

struct p9_server *p9_server_create(const char *directory, bool read_only, struct error *err)
{
    struct p9_server *server = xcalloc(1, sizeof(*server));
    struct stat info;

    server->read_only = read_only;
    server->message_max = MESSAGE_MAX_BEFORE_VERSION;
    server->proc_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    server->root_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (server->root_fd < 0)
        error_set_errno(err, errno, "share \"%s\": cannot open the directory", directory);
    else if (faccessat(server->root_fd, ".", R_OK | X_OK, AT_EACCESS))
        error_set_errno(err, errno, "share \"%s\": cannot read the directory", directory);
    else if (p9_stat(server->root_fd, &info))
        error_set_errno(err, errno, "share \"%s\"", directory);
    else if (server->proc_fd < 0)
        error_set_errno(err, errno, "share \"%s\": sharing needs /proc/self/fd; mount /proc",
                        directory);
    else {
        server->root_device = info.st_dev;
        server->root_inode = info.st_ino;
        raise_descriptor_limit();
        return server;
    }
    p9_server_destroy(server);
    return NULL;
}

void p9_server_destroy(struct p9_server *server)
{
    if (!server)
        return;
    p9_server_reset(server);
    if (server->root_fd >= 0)
        close(server->root_fd);
    if (server->proc_fd >= 0)
        close(server->proc_fd);
    free(server);
}

/* A fid that is open is saved with what it takes to open it again. */
static void fid_save(struct p9_server *server, struct p9_fid *fid, struct stream *stream)
{
    char path[P9_TEXT_MAX + 1];
    bool found = fid->path_fd >= 0 && p9_path_of(server, fid->path_fd, path, sizeof(path)) == 0;
    bool is_open = fid->io_fd >= 0;
    uint32_t flags = fid->io_flags;
    uint16_t length = found ? strlen(path) : 0;

    stream_u32(stream, &fid->id);
    stream_bool(stream, &found);
    stream_bool(stream, &is_open);
    stream_u32(stream, &flags);
    stream_u16(stream, &length);
    stream_bytes(stream, path, length);
}

/* What is no longer there becomes a fid that answers ESTALE. */
static void fid_load(struct p9_server *server, struct stream *stream)
{
    char path[P9_TEXT_MAX + 1];
    bool found = false, is_open = false;
    uint32_t id = 0, flags = 0;
    uint16_t length = 0;
    struct p9_fid *fid;

    stream_u32(stream, &id);
    stream_bool(stream, &found);
    stream_bool(stream, &is_open);
    stream_u32(stream, &flags);
    stream_u16(stream, &length);
    if (length > P9_TEXT_MAX)
        stream_fail(stream, "9p: a path of %u bytes; at most %u are possible", length, P9_TEXT_MAX);
    if (stream_failed(stream))
        return;
    stream_bytes(stream, path, length);
    path[length] = 0;
    fid = p9_fid_add(server, id, found ? p9_descend(server, path) : -1);
    if (!fid) {
        stream_fail(stream, "9p: fid %u twice or too many fids", id);
        return;
    }
    fid->io_flags = flags & (O_ACCMODE | O_SYNC | O_DSYNC);
    if (is_open && fid->path_fd >= 0)
        fid->io_fd = p9_open(server, fid->path_fd, server->read_only ? O_RDONLY : fid->io_flags);
    if (is_open && fid->io_fd < 0)
        p9_fid_set_path(fid, -1);
}

void p9_server_state(struct p9_server *server, struct stream *stream)
{
    uint32_t count = server->fid_count;

    stream_begin(stream, "9p-session", 1);
    if (stream_loading(stream))
        p9_server_reset(server);
    stream_u32(stream, &server->message_max);
    if (server->message_max > P9_MESSAGE_MAX || server->message_max < P9_REPLY_MIN) {
        server->message_max = MESSAGE_MAX_BEFORE_VERSION;
        stream_fail(stream, "9p: message size out of range");
    }
    stream_u32(stream, &count);
    if (stream_loading(stream)) {
        for (; count && !stream_failed(stream); count--)
            fid_load(server, stream);
    } else {
        for (unsigned i = 0; i < P9_BUCKETS; i++)
            for (struct p9_fid *fid = server->buckets[i]; fid; fid = fid->next)
                fid_save(server, fid, stream);
    }
    stream_end(stream);
}
