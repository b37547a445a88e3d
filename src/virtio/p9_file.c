/* Messages about files: opening, contents, attributes, locks. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "virtio/p9_internal.h"

#define P9_FS_MAGIC     0x01021997
#define GETATTR_BASIC   UINT64_C(0x7ff) /* all but birth time, generation and data version */
#define SPECIAL_BITS    (S_ISUID | S_ISGID)
#define DIRECTORY_CHUNK 32768

/* The open flags of 9P2000.L that mean something here; Linux' generic numbers on the wire. */
#define OPEN_CREATE 00000100
#define OPEN_EXCL   00000200
static const struct {
    uint32_t wire;
    int host;
} open_flags[] = {
    {00001000, O_TRUNC},
    {00010000, O_DSYNC},
    {00200000, O_DIRECTORY},
    {04000000, O_SYNC},
};

/* O_APPEND is left out: each write carries its offset. */
static int host_flags(uint32_t wire)
{
    int flags = wire & O_ACCMODE;

    for (unsigned i = 0; i < ARRAY_SIZE(open_flags); i++)
        if (wire & open_flags[i].wire)
            flags |= open_flags[i].host;
    return (flags & O_ACCMODE) == O_ACCMODE ? (flags & ~O_ACCMODE) | O_RDWR : flags;
}

/* The largest message that this reply may become, for the I/O unit. */
static uint32_t io_unit(const struct p9_server *server)
{
    return server->message_max - 24; /* the header of a write, rounded up */
}

static int put_opened(struct p9_server *server, struct p9_fid *fid, int io_fd, int flags,
                      struct p9_reply *reply)
{
    struct stat info;

    if (fstat(io_fd, &info)) {
        int error = errno;
        close(io_fd);
        return error;
    }
    fid->io_fd = io_fd;
    fid->io_flags = flags & (O_ACCMODE | O_SYNC | O_DSYNC);
    p9_put_qid(server, reply, &info);
    p9_put(reply, io_unit(server), 4);
    return 0;
}

int p9_lopen(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    struct p9_fid *fid = request->fid[0];
    int flags = host_flags(request->number[0]);
    int io_fd;

    if (fid->io_fd >= 0)
        return EBUSY;
    if (server->read_only && (flags & (O_ACCMODE | O_TRUNC)))
        return EROFS;
    io_fd = p9_open(server, fid->path_fd, flags);
    return io_fd < 0 ? errno : put_opened(server, fid, io_fd, flags, reply);
}

/*
 * Creates without ever opening what is already there by its name: if something is, and that is
 * allowed, it is opened as by a walk and an open.
 */
static int create_file(struct p9_server *server, int directory_fd, const char *name, uint32_t wire,
                       mode_t mode, int *path_fd)
{
    int flags = host_flags(wire);
    int io_fd = openat(directory_fd, name,
                       (flags & ~O_DIRECTORY) | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);

    if (io_fd < 0 && (errno != EEXIST || wire & OPEN_EXCL))
        return -1;
    if (io_fd >= 0) {
        char link[16];
        snprintf(link, sizeof(link), "%d", io_fd);
        *path_fd = openat(server->proc_fd, link, O_PATH | O_CLOEXEC);
    } else {
        *path_fd = p9_step(server, directory_fd, name);
        if (*path_fd >= 0)
            io_fd = p9_open(server, *path_fd, flags);
    }
    if (*path_fd >= 0 && io_fd >= 0)
        return io_fd;
    int error = errno;
    if (io_fd >= 0)
        close(io_fd);
    if (*path_fd >= 0)
        close(*path_fd);
    errno = error;
    return -1;
}

/* The fid, a directory, becomes the new file, open. */
int p9_lcreate(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    struct p9_fid *fid = request->fid[0];
    mode_t mode = request->number[1] & 0777;
    int path_fd, io_fd;

    if (fid->io_fd >= 0)
        return EBUSY;
    io_fd = create_file(server, fid->path_fd, request->text[0], request->number[0], mode, &path_fd);
    if (io_fd < 0)
        return errno;
    p9_fid_set_path(fid, path_fd);
    return put_opened(server, fid, io_fd, host_flags(request->number[0]), reply);
}

int p9_read(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    uint8_t *count = p9_put_space(reply, 4);
    size_t size = request->number[1], room = reply->capacity - reply->size;
    ssize_t got;

    if (!count)
        return EMSGSIZE;
    if (request->number[0] > INT64_MAX)
        return EINVAL;
    got = pread(request->fid[0]->io_fd, reply->bytes + reply->size, size < room ? size : room,
                request->number[0]);
    if (got < 0)
        return errno;
    store_le32(count, got);
    p9_put_space(reply, got);
    return 0;
}

int p9_write(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    ssize_t put;

    if (request->number[0] > INT64_MAX)
        return EINVAL;
    put = pwrite(request->fid[0]->io_fd, request->data, request->data_size, request->number[0]);
    if (put < 0)
        return errno;
    p9_put(reply, put, 4);
    return 0;
}

/*
 * A directory entry tells inode and type, which is all that a qid here needs. The inode of what
 * lies above the root is not the guest's business.
 */
static void put_entry(struct p9_server *server, dev_t device, const struct dirent64 *entry,
                      size_t length, struct p9_reply *reply)
{
    bool above = !strcmp(entry->d_name, "..");
    struct stat info = {
        .st_dev = device,
        .st_ino = above ? server->root_inode : entry->d_ino,
        .st_mode = DTTOIF(entry->d_type),
    };

    p9_put_qid(server, reply, &info);
    p9_put(reply, entry->d_off, 8);
    p9_put(reply, entry->d_type, 1);
    p9_put_text(reply, entry->d_name, length);
}

/* Adds entries until the reply or `limit` is full; false then. */
static bool put_entries(struct p9_server *server, dev_t device, const uint8_t *entries, size_t size,
                        struct p9_reply *reply, size_t limit)
{
    const struct dirent64 *entry;

    for (size_t at = 0; at < size; at += entry->d_reclen) {
        entry = (const struct dirent64 *)(entries + at);
        size_t length = strlen(entry->d_name);
        if (reply->size + 13 + 8 + 1 + 2 + length > limit)
            return false;
        put_entry(server, device, entry, length, reply);
    }
    return true;
}

int p9_readdir(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    int fd = request->fid[0]->io_fd;
    uint8_t *count = p9_put_space(reply, 4);
    size_t start = reply->size, room = reply->capacity - reply->size;
    size_t limit = start + (request->number[1] < room ? request->number[1] : room);
    _Alignas(struct dirent64) uint8_t entries[DIRECTORY_CHUNK];
    struct stat info;
    ssize_t got;

    if (!count)
        return EMSGSIZE;
    if (request->number[0] > INT64_MAX)
        return EINVAL;
    if (fstat(fd, &info) || lseek(fd, request->number[0], SEEK_SET) < 0)
        return errno;
    do {
        got = getdents64(fd, entries, sizeof(entries));
        if (got < 0)
            return errno;
    } while (got && put_entries(server, info.st_dev, entries, got, reply, limit));
    if (got && reply->size == start)
        return EINVAL; /* not even one entry fits */
    store_le32(count, reply->size - start);
    return 0;
}

int p9_fsync(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    int fd = request->fid[0]->io_fd;

    return (request->number[0] ? fdatasync(fd) : fsync(fd)) ? errno : 0;
}

int p9_getattr(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    struct stat info;

    if (p9_stat(request->fid[0]->path_fd, &info))
        return errno;
    /* The kernel's own encoding of a device number, which the guest's kernel decodes. */
    unsigned device_major = major(info.st_rdev), device_minor = minor(info.st_rdev);
    const uint64_t numbers[] = {
        info.st_nlink,
        (device_minor & 0xff) | device_major << 8 | (device_minor & ~0xffu) << 12,
        info.st_size,
        info.st_blksize,
        info.st_blocks,
        info.st_atim.tv_sec,
        info.st_atim.tv_nsec,
        info.st_mtim.tv_sec,
        info.st_mtim.tv_nsec,
        info.st_ctim.tv_sec,
        info.st_ctim.tv_nsec,
        0, /* birth time, not known */
        0,
        0, /* generation and data version */
        0,
    };

    p9_put(reply, GETATTR_BASIC, 8);
    p9_put_qid(server, reply, &info);
    p9_put(reply, info.st_mode, 4);
    p9_put(reply, info.st_uid, 4);
    p9_put(reply, info.st_gid, 4);
    for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++)
        p9_put(reply, numbers[i], 8);
    return 0;
}

enum setattr_valid {
    SETATTR_MODE = 0x001,
    SETATTR_UID = 0x002,
    SETATTR_GID = 0x004,
    SETATTR_SIZE = 0x008,
    SETATTR_ATIME = 0x010,
    SETATTR_MTIME = 0x020,
    SETATTR_ATIME_SET = 0x080,
    SETATTR_MTIME_SET = 0x100,
};

static int set_mode(struct p9_server *server, const char *link, const struct stat *info,
                    mode_t mode)
{
    mode &= S_ISDIR(info->st_mode) ? 07777 : 07777 & ~SPECIAL_BITS;
    return fchmodat(server->proc_fd, link, mode, 0) ? errno : 0;
}

/* A user who is not root cannot give files away; guests expect to (tar, dpkg), so it is let pass.
 */
static int set_owner(const struct p9_fid *fid, uint32_t valid, uint32_t uid, uint32_t gid)
{
    if (fchownat(fid->path_fd, "", valid & SETATTR_UID ? uid : UINT32_MAX,
                 valid & SETATTR_GID ? gid : UINT32_MAX, AT_EMPTY_PATH) == 0)
        return 0;
    return errno == EPERM && geteuid() ? 0 : errno;
}

static int set_size(struct p9_server *server, const struct p9_fid *fid, uint64_t size)
{
    int fd, error = 0;

    if (size > INT64_MAX)
        return EFBIG;
    if (fid->io_fd >= 0 && (fid->io_flags & O_ACCMODE) != O_RDONLY)
        return ftruncate(fid->io_fd, size) ? errno : 0;
    fd = p9_open(server, fid->path_fd, O_WRONLY);
    if (fd < 0)
        return errno;
    if (ftruncate(fd, size))
        error = errno;
    close(fd);
    return error;
}

static struct timespec set_time(uint32_t valid, uint32_t change, uint32_t given, uint64_t seconds,
                                uint64_t nanoseconds)
{
    if (!(valid & change))
        return (struct timespec){.tv_nsec = UTIME_OMIT};
    if (!(valid & given))
        return (struct timespec){.tv_nsec = UTIME_NOW};
    if (nanoseconds > 999999999)
        nanoseconds = 999999999;
    return (struct timespec){.tv_sec = seconds, .tv_nsec = nanoseconds};
}

int p9_setattr(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    const uint64_t *number = request->number;
    struct p9_fid *fid = request->fid[0];
    uint32_t valid = number[0];
    struct stat info;
    char link[16];
    int error = p9_stat(fid->path_fd, &info) ? errno : 0;

    snprintf(link, sizeof(link), "%d", fid->path_fd);
    if (!error && valid & (SETATTR_UID | SETATTR_GID))
        error = set_owner(fid, valid, number[2], number[3]);
    if (!error && valid & SETATTR_MODE)
        error = set_mode(server, link, &info, number[1]);
    if (!error && valid & SETATTR_SIZE)
        error = set_size(server, fid, number[4]);
    if (!error && valid & (SETATTR_ATIME | SETATTR_MTIME)) {
        const struct timespec times[2] = {
            set_time(valid, SETATTR_ATIME, SETATTR_ATIME_SET, number[5], number[6]),
            set_time(valid, SETATTR_MTIME, SETATTR_MTIME_SET, number[7], number[8]),
        };
        error = utimensat(server->proc_fd, link, times, 0) ? errno : 0;
    }
    return error;
}

int p9_statfs(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    struct statfs info;

    if (fstatfs(request->fid[0]->path_fd, &info))
        return errno;
    p9_put(reply, P9_FS_MAGIC, 4);
    p9_put(reply, info.f_bsize, 4);
    p9_put(reply, info.f_blocks, 8);
    p9_put(reply, info.f_bfree, 8);
    p9_put(reply, info.f_bavail, 8);
    p9_put(reply, info.f_files, 8);
    p9_put(reply, info.f_ffree, 8);
    p9_put(reply, (uint32_t)info.f_fsid.__val[0] | (uint64_t)info.f_fsid.__val[1] << 32, 8);
    p9_put(reply, P9_NAME_MAX, 4);
    return 0;
}

/*
 * Locks. The guest's kernel settles what its own processes want of each other; here they are held
 * against processes of the host, by open file (the fid).
 */
enum lock_status {
    LOCK_SUCCESS,
    LOCK_BLOCKED,
    LOCK_ERROR,
};
static const short lock_types[] = {F_RDLCK, F_WRLCK, F_UNLCK};
static const int flock_operations[] = {LOCK_SH, LOCK_EX, LOCK_UN};

static bool lock_describe(uint64_t type, uint64_t start, uint64_t length, struct flock *lock)
{
    if (type >= ARRAY_SIZE(lock_types) || start > INT64_MAX || length > INT64_MAX)
        return false;
    *lock = (struct flock){
        .l_type = lock_types[type],
        .l_whence = SEEK_SET,
        .l_start = start,
        .l_len = length,
    };
    return true;
}

int p9_lock(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    const uint64_t *number = request->number; /* type, flags, start, length, process */
    int fd = request->fid[0]->io_fd;
    enum lock_status status = LOCK_SUCCESS;
    struct flock lock;
    int result;

    if (fd < 0)
        return EBADF;
    if (!lock_describe(number[0], number[2], number[3], &lock))
        return EINVAL;
    result = fcntl(fd, F_OFD_SETLK, &lock);
    /* An exclusive lock of a file that is open for reading only is a guest's flock(). */
    if (result < 0 && errno == EBADF && !lock.l_start && !lock.l_len)
        result = flock(fd, flock_operations[number[0]] | LOCK_NB);
    if (result < 0)
        status = errno == EAGAIN || errno == EACCES ? LOCK_BLOCKED : LOCK_ERROR;
    p9_put(reply, status, 1);
    return 0;
}

int p9_getlock(struct p9_server *server, struct p9_request *request, struct p9_reply *reply)
{
    const uint64_t *number = request->number; /* type, start, length, process */
    int fd = request->fid[0]->io_fd;
    struct flock lock;
    uint8_t type = 0;

    if (fd < 0)
        return EBADF;
    if (!lock_describe(number[0], number[1], number[2], &lock) || lock.l_type == F_UNLCK)
        return EINVAL;
    if (fcntl(fd, F_OFD_GETLK, &lock))
        return errno;
    while (lock_types[type] != lock.l_type)
        type++;
    p9_put(reply, type, 1);
    p9_put(reply, lock.l_type == F_UNLCK ? number[1] : (uint64_t)lock.l_start, 8);
    p9_put(reply, lock.l_type == F_UNLCK ? number[2] : (uint64_t)lock.l_len, 8);
    p9_put(reply, number[3], 4);
    p9_put_text(reply, request->text[0], strlen(request->text[0]));
    return 0;
}
