/* Messages about sessions, fids and directories. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "virtio/p9_internal.h"

#define MESSAGE_MIN  4096
#define UNLINK_DIR   0x200 /* the flag of Tunlinkat */
#define SPECIAL_BITS (S_ISUID | S_ISGID)

int p9_version(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    uint64_t wanted = request->number[0];
    const char *version = strcmp(request->text[0], "9P2000.L") ? "unknown" : "9P2000.L";

    if (wanted < MESSAGE_MIN)
        return EMSGSIZE;
    p9_server_reset(server);
    server->message_max = wanted < P9_MESSAGE_MAX ? wanted : P9_MESSAGE_MAX;
    p9_put(reply, server->message_max, 4);
    p9_put_text(reply, version, strlen(version));
    return 0;
}

/* The user and the tree that the guest names mean nothing here: there is one tree and one user. */
int p9_attach(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    struct stat info;
    int fd;

    if (request->number[1] != P9_NO_FID)
        return EINVAL; /* there is no authentication */
    fd = p9_copy(server->root_fd);
    if (fd < 0 || p9_stat(fd, &info)) {
        int error = errno;
        if (fd >= 0)
            close(fd);
        return error;
    }
    if (!p9_fid_add(server, request->number[0], fd))
        return errno;
    p9_put_qid(server, reply, &info);
    return 0;
}

/* Walks as far as it goes; returns the descriptor reached and counts the steps made. */
static int walk_names(struct p9_server *server, struct p9_request *request, struct p9_reply *reply,
                      unsigned *steps)
{
    int fd = p9_copy(request->fid[0]->path_fd);
    struct stat info;

    for (*steps = 0; fd >= 0 && *steps < request->text_count; ++*steps) {
        int next = p9_step(server, fd, request->text[*steps]);
        if (next >= 0 && p9_stat(next, &info)) {
            close(next);
            next = -1;
        }
        if (next < 0)
            break;
        close(fd);
        fd = next;
        p9_put_qid(server, reply, &info);
    }
    return fd;
}

int p9_walk(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    struct p9_fid *fid = request->fid[0];
    uint32_t new_id = request->number[0];
    uint8_t *count = p9_put_space(reply, 2);
    unsigned steps;
    int fd;

    if (!count)
        return EMSGSIZE;
    if (new_id != fid->id && p9_fid_find(server, new_id))
        return EBUSY;
    errno = 0;
    fd = walk_names(server, request, reply, &steps);
    if (fd < 0)
        return errno;
    store_le16(count, steps);
    if (steps < request->text_count || reply->overflow) {
        int error = errno;
        close(fd);
        return steps ? 0 : error; /* a part of the way is no error, but makes no fid */
    }
    if (new_id == fid->id)
        p9_fid_set_path(fid, fd);
    else if (!p9_fid_add(server, new_id, fd))
        return errno;
    return 0;
}

int p9_clunk(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    p9_fid_remove(server, request->fid[0]);
    return 0;
}

/* Requests are answered in their order: what a flush wants to cancel is already done. */
int p9_flush(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    return 0;
}

static int remove_by_fid(struct p9_server *server, const struct p9_fid *fid)
{
    char name[P9_NAME_MAX + 1];
    struct stat info;
    int parent = p9_parent_of(server, fid->path_fd, name);
    int error = 0;

    if (parent < 0)
        return errno;
    if (p9_stat(fid->path_fd, &info) ||
        unlinkat(parent, name, S_ISDIR(info.st_mode) ? AT_REMOVEDIR : 0))
        error = errno;
    close(parent);
    return error;
}

/* The fid is gone even if the file could not be removed. */
int p9_remove(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    int error = remove_by_fid(server, request->fid[0]);

    p9_fid_remove(server, request->fid[0]);
    return error;
}

/* Answers with the qid of what was just made. */
static int put_made(struct p9_server *server, int directory_fd, const char *name,
                    struct p9_reply *reply)
{
    struct stat info;

    if (fstatat(directory_fd, name, &info, AT_SYMLINK_NOFOLLOW))
        return errno;
    p9_put_qid(server, reply, &info);
    return 0;
}

int p9_symlink(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    int directory = request->fid[0]->path_fd;

    if (symlinkat(request->text[1], directory, request->text[0]))
        return errno;
    return put_made(server, directory, request->text[0], reply);
}

/* A device node would be the guest's handle on the host's devices. */
int p9_mknod(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    int directory = request->fid[0]->path_fd;
    mode_t mode = request->number[0] & ~SPECIAL_BITS;

    if (!S_ISREG(mode) && !S_ISFIFO(mode) && !S_ISSOCK(mode))
        return EPERM;
    if (mknodat(directory, request->text[0], mode, 0))
        return errno;
    return put_made(server, directory, request->text[0], reply);
}

int p9_mkdir(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    int directory = request->fid[0]->path_fd;

    if (mkdirat(directory, request->text[0], request->number[0] & 01777))
        return errno;
    return put_made(server, directory, request->text[0], reply);
}

/* The link in /proc leads to the very file of the fid, even if that is a symbolic link. */
int p9_link(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    char name[16];

    snprintf(name, sizeof(name), "%d", request->fid[1]->path_fd);
    return linkat(server->proc_fd, name, request->fid[0]->path_fd, request->text[0],
                  AT_SYMLINK_FOLLOW)
               ? errno
               : 0;
}

int p9_rename(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    char name[P9_NAME_MAX + 1];
    int parent = p9_parent_of(server, request->fid[0]->path_fd, name);
    int error = 0;

    if (parent < 0)
        return errno;
    if (renameat(parent, name, request->fid[1]->path_fd, request->text[0]))
        error = errno;
    close(parent);
    return error;
}

int p9_renameat(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    return renameat(request->fid[0]->path_fd, request->text[0], request->fid[1]->path_fd,
                    request->text[1])
               ? errno
               : 0;
}

int p9_unlinkat(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    int flags = request->number[0] & UNLINK_DIR ? AT_REMOVEDIR : 0;

    return unlinkat(request->fid[0]->path_fd, request->text[0], flags) ? errno : 0;
}

int p9_readlink(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    char target[P9_TEXT_MAX + 1];
    ssize_t length = readlinkat(request->fid[0]->path_fd, "", target, sizeof(target));

    if (length < 0)
        return errno == ENOENT ? EINVAL : errno; /* what readlinkat says of no link */
    p9_put_text(reply, target, length);
    return 0;
}
