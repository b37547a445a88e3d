/* The 9P2000.L server: every message, and that nothing outside the share can be reached. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "virtio/p9.h"
#include "virtio/p9_server.h"
#include "virtio_driver.h"

enum {
    T_STATFS = 8,
    T_LOPEN = 12,
    T_LCREATE = 14,
    T_SYMLINK = 16,
    T_MKNOD = 18,
    T_RENAME = 20,
    T_READLINK = 22,
    T_GETATTR = 24,
    T_SETATTR = 26,
    T_XATTRWALK = 30,
    T_READDIR = 40,
    T_FSYNC = 50,
    T_LOCK = 52,
    T_GETLOCK = 54,
    T_LINK = 70,
    T_MKDIR = 72,
    T_RENAMEAT = 74,
    T_UNLINKAT = 76,
    T_VERSION = 100,
    T_ATTACH = 104,
    T_FLUSH = 108,
    T_WALK = 110,
    T_READ = 116,
    T_WRITE = 118,
    T_CLUNK = 120,
    T_REMOVE = 122,
};

#define NO_FID 0xffffffffu
#define TAG    0x55aa

struct bench {
    char base[64]; /* a fresh directory; the share is base/share, and beside it is base/secret */
    struct p9_server *server;
    uint8_t reply[65536];
    size_t size, at;
};

static const char *path(const struct bench *bench, const char *name)
{
    static char text[4][512];
    static unsigned next;
    char *result = text[next++ % 4];

    snprintf(result, sizeof(text[0]), "%s/%s", bench->base, name);
    return result;
}

static void make_file(const char *name, const char *content)
{
    FILE *file = fopen(name, "w");

    assert_non_null(file);
    fputs(content, file);
    fclose(file);
}

static bool file_is(const char *name, const char *content)
{
    char text[256] = "";
    FILE *file = fopen(name, "r");

    if (!file)
        return false;
    size_t size = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    return size == strlen(content) && !memcmp(text, content, size);
}

/* Sends one message described by a format as in p9_messages.c (integers b w d q, strings s, a list
 * of names W: count then strings, data D: size then pointer); returns 0 or the error answered. */
static int call(struct bench *bench, uint8_t type, const char *format, ...)
{
    static uint8_t request[70000];
    size_t size = 7;
    va_list arguments;

    va_start(arguments, format);
    for (; *format; format++) {
        const char *text;
        switch (*format) {
        case 'b':
            request[size++] = va_arg(arguments, unsigned);
            break;
        case 'w':
            store_le16(request + size, va_arg(arguments, unsigned));
            size += 2;
            break;
        case 'd':
            store_le32(request + size, va_arg(arguments, unsigned));
            size += 4;
            break;
        case 'q':
            store_le64(request + size, va_arg(arguments, uint64_t));
            size += 8;
            break;
        case 's':
            text = va_arg(arguments, const char *);
            store_le16(request + size, strlen(text));
            memcpy(request + size + 2, text, strlen(text));
            size += 2 + strlen(text);
            break;
        case 'D':
            store_le32(request + size, va_arg(arguments, unsigned));
            memcpy(request + size + 4, va_arg(arguments, void *), load_le32(request + size));
            size += 4 + load_le32(request + size);
            break;
        }
    }
    va_end(arguments);
    store_le32(request, size);
    request[4] = type;
    store_le16(request + 5, TAG);
    bench->size =
        p9_server_handle(bench->server, request, size, bench->reply, sizeof(bench->reply));
    bench->at = 7;
    assert_int_equal(load_le32(bench->reply), bench->size);
    assert_int_equal(load_le16(bench->reply + 5), TAG);
    if (bench->reply[4] != 7) {
        assert_int_equal(bench->reply[4], type + 1);
        return 0;
    }
    assert_int_equal(bench->size, 11);
    return load_le32(bench->reply + 7);
}

static uint64_t next(struct bench *bench, unsigned size)
{
    uint64_t value = load_le(bench->reply + bench->at, size);

    bench->at += size;
    assert_true(bench->at <= bench->size);
    return value;
}

static int walk(struct bench *bench, uint32_t fid, uint32_t to, const char *name)
{
    return call(bench, T_WALK, "ddws", fid, to, 1, name);
}

static int open_path(struct bench *bench, uint32_t fid, const char *name, uint32_t flags)
{
    int error = walk(bench, 1, fid, name);

    if (error)
        return error;
    error = call(bench, T_LOPEN, "dd", fid, flags);
    if (error)
        assert_int_equal(call(bench, T_CLUNK, "d", fid), 0);
    return error;
}

static void session(struct bench *bench, bool read_only)
{
    struct error err = {0};

    p9_server_destroy(bench->server);
    bench->server = p9_server_create(path(bench, "share"), read_only, &err);
    if (!bench->server)
        fail_msg("%s", err.message);
    assert_int_equal(call(bench, T_VERSION, "ds", 65536, "9P2000.L"), 0);
    assert_int_equal(next(bench, 4), 65536);
    assert_int_equal(call(bench, T_ATTACH, "ddssd", 1, NO_FID, "root", "", 0), 0);
    assert_int_equal(next(bench, 1), 0x80);
}

static int setup(void **state)
{
    struct bench *bench = xcalloc(1, sizeof(*bench));

    snprintf(bench->base, sizeof(bench->base), "/tmp/hartvisor-p9-XXXXXX");
    assert_non_null(mkdtemp(bench->base));
    mkdir(path(bench, "share"), 0755);
    mkdir(path(bench, "share/sub"), 0755);
    mkdir(path(bench, "outside"), 0755);
    make_file(path(bench, "secret"), "secret");
    make_file(path(bench, "outside/secret"), "secret");
    make_file(path(bench, "share/hello"), "hello world");
    make_file(path(bench, "share/sub/inner"), "inner");
    session(bench, false);
    *state = bench;
    return 0;
}

static int remove_one(const char *name, const struct stat *info, int flag, struct FTW *ftw)
{
    return remove(name);
}

static int teardown(void **state)
{
    struct bench *bench = *state;

    p9_server_destroy(bench->server);
    nftw(bench->base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(bench);
    return 0;
}

static void test_version(void **state)
{
    struct bench *bench = *state;

    assert_int_equal(walk(bench, 1, 2, "hello"), 0);
    assert_int_equal(call(bench, T_VERSION, "ds", 0xffffffffu, "9P2000"), 0);
    assert_int_equal(next(bench, 4), P9_MESSAGE_MAX);
    assert_int_equal(next(bench, 2), 7);
    assert_memory_equal(bench->reply + bench->at, "unknown", 7);
    assert_int_equal(call(bench, T_CLUNK, "d", 2), EBADF); /* the session ended */
    assert_int_equal(call(bench, T_VERSION, "ds", 100, "9P2000.L"), EMSGSIZE);
    assert_int_equal(call(bench, 102, "dss", 1, "a", "b"), EOPNOTSUPP); /* Tauth */
    assert_int_equal(call(bench, T_ATTACH, "ddssd", 1, 5, "u", "", 0), EINVAL);
    assert_int_equal(call(bench, T_ATTACH, "ddssd", NO_FID, NO_FID, "u", "", 0), EBUSY);
    assert_int_equal(call(bench, T_ATTACH, "ddssd", 1, NO_FID, "u", "/etc", 0), 0);
    assert_int_equal(walk(bench, 1, 2, "passwd"), ENOENT);
    assert_int_equal(call(bench, T_FLUSH, "w", 3), 0);
    assert_int_equal(call(bench, 255, ""), EOPNOTSUPP);
}

static void test_walk(void **state)
{
    struct bench *bench = *state;

    assert_int_equal(call(bench, T_WALK, "ddwss", 1, 2, 2, "sub", "inner"), 0);
    assert_int_equal(next(bench, 2), 2);
    assert_int_equal(next(bench, 1), 0x80);
    bench->at += 12;
    assert_int_equal(next(bench, 1), 0);
    assert_int_equal(call(bench, T_CLUNK, "d", 2), 0);
    /* A part of the way is answered with as many qids and makes no fid. */
    assert_int_equal(call(bench, T_WALK, "ddwss", 1, 2, 2, "sub", "missing"), 0);
    assert_int_equal(next(bench, 2), 1);
    assert_int_equal(call(bench, T_CLUNK, "d", 2), EBADF);
    assert_int_equal(walk(bench, 1, 2, "missing"), ENOENT);
    assert_int_equal(call(bench, T_WALK, "ddw", 1, 2, 0), 0); /* a copy */
    assert_int_equal(walk(bench, 1, 2, "sub"), EBUSY);
    assert_int_equal(walk(bench, 2, 2, "sub"), 0);
    assert_int_equal(walk(bench, 2, 2, "inner"), 0);
    assert_int_equal(walk(bench, 2, 3, "x"), ENOTDIR);
    assert_int_equal(call(bench, T_WALK, "ddw", 2, 4, 0), 0); /* a copy of a file */
    assert_int_equal(call(bench, T_WALK, "ddwsssssssssssssssss", 1, 9, 17, "a", "a", "a", "a", "a",
                          "a", "a", "a", "a", "a", "a", "a", "a", "a", "a", "a", "a"),
                     EPROTO);
}

static void test_file(void **state)
{
    struct bench *bench = *state;

    assert_int_equal(open_path(bench, 2, "hello", 2), 0);
    assert_int_equal(call(bench, T_LOPEN, "dd", 2, 0), EBUSY);
    assert_int_equal(call(bench, T_READ, "dqd", 2, UINT64_C(6), 100), 0);
    assert_int_equal(next(bench, 4), 5);
    assert_memory_equal(bench->reply + bench->at, "world", 5);
    assert_int_equal(call(bench, T_READ, "dqd", 2, UINT64_C(11), 0xffffffffu), 0);
    assert_int_equal(next(bench, 4), 0);
    assert_int_equal(call(bench, T_READ, "dqd", 2, UINT64_MAX, 1), EINVAL);
    assert_int_equal(call(bench, T_WRITE, "dqD", 2, UINT64_C(6), 3, "you"), 0);
    assert_int_equal(next(bench, 4), 3);
    assert_int_equal(call(bench, T_FSYNC, "dd", 2, 0), 0);
    assert_int_equal(call(bench, T_FSYNC, "dd", 2, 1), 0);
    assert_true(file_is(path(bench, "share/hello"), "hello yould"));
    assert_int_equal(call(bench, T_READ, "dqd", 1, UINT64_C(0), 1), EBADF); /* not open */
    assert_int_equal(call(bench, T_STATFS, "d", 2), 0);
    assert_int_equal(next(bench, 4), 0x01021997);
    assert_int_equal(call(bench, T_CLUNK, "d", 2), 0);
    /* A directory. */
    assert_int_equal(open_path(bench, 2, "sub", 0), 0);
    assert_int_equal(call(bench, T_READ, "dqd", 2, UINT64_C(0), 10), EISDIR);
    assert_int_equal(call(bench, T_CLUNK, "d", 2), 0);
    assert_int_equal(open_path(bench, 2, "sub", 1), EISDIR);
    /* Truncation by the open. */
    assert_int_equal(open_path(bench, 2, "hello", 01001), 0);
    assert_true(file_is(path(bench, "share/hello"), ""));
}

static void test_create(void **state)
{
    struct bench *bench = *state;
    struct stat info;

    assert_int_equal(call(bench, T_WALK, "ddw", 1, 2, 0), 0);
    assert_int_equal(call(bench, T_LCREATE, "dsddd", 2, "new", 0102, 04755, 0), 0);
    assert_int_equal(call(bench, T_WRITE, "dqD", 2, UINT64_C(0), 3, "abc"), 0);
    assert_int_equal(call(bench, T_GETATTR, "dq", 2, UINT64_C(0x7ff)), 0);
    assert_int_equal(next(bench, 8), 0x7ff);
    bench->at += 13;
    assert_int_equal(next(bench, 4) & 07000, 0); /* never setuid */
    assert_int_equal(call(bench, T_CLUNK, "d", 2), 0);
    assert_true(file_is(path(bench, "share/new"), "abc"));

    /* What exists is opened unless the guest wants it exclusively. */
    call(bench, T_WALK, "ddw", 1, 2, 0);
    assert_int_equal(call(bench, T_LCREATE, "dsddd", 2, "new", 0302, 0644, 0), EEXIST);
    assert_int_equal(call(bench, T_LCREATE, "dsddd", 2, "new", 0102, 0644, 0), 0);
    assert_int_equal(call(bench, T_READ, "dqd", 2, UINT64_C(0), 10), 0);
    assert_int_equal(next(bench, 4), 3);

    assert_int_equal(call(bench, T_MKDIR, "dsdd", 1, "dir", 07755, 0), 0);
    assert_int_equal(next(bench, 1), 0x80);
    stat(path(bench, "share/dir"), &info);
    assert_int_equal(info.st_mode & 06000, 0);
    assert_int_equal(call(bench, T_SYMLINK, "dssd", 1, "link", "/etc/passwd", 0), 0);
    assert_int_equal(next(bench, 1), 0x02);
    assert_int_equal(walk(bench, 1, 3, "link"), 0);
    assert_int_equal(call(bench, T_READLINK, "d", 3), 0);
    assert_int_equal(next(bench, 2), 11);
    assert_memory_equal(bench->reply + bench->at, "/etc/passwd", 11);
    assert_int_equal(call(bench, T_READLINK, "d", 1), EINVAL);
    assert_int_equal(call(bench, T_LINK, "dds", 1, 2, "hard"), 0);
    assert_true(file_is(path(bench, "share/hard"), "abc"));
    assert_int_equal(call(bench, T_LINK, "dds", 1, 3, "hardlink"), 0);
    lstat(path(bench, "share/hardlink"), &info);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(call(bench, T_MKNOD, "dsdddd", 1, "fifo", S_IFIFO | 0644, 0, 0, 0), 0);
    assert_int_equal(call(bench, T_MKNOD, "dsdddd", 1, "plain", S_IFREG | 0644, 0, 0, 0), 0);
    assert_int_equal(call(bench, T_MKNOD, "dsdddd", 1, "sda", S_IFBLK | 0644, 8, 0, 0), EPERM);
    assert_int_equal(call(bench, T_MKNOD, "dsdddd", 1, "mem", S_IFCHR | 0644, 1, 1, 0), EPERM);
    assert_int_not_equal(lstat(path(bench, "share/mem"), &info), 0);
}

static void test_rename_and_remove(void **state)
{
    struct bench *bench = *state;

    assert_int_equal(walk(bench, 1, 2, "sub"), 0);
    assert_int_equal(call(bench, T_RENAMEAT, "dsds", 1, "hello", 2, "moved"), 0);
    assert_true(file_is(path(bench, "share/sub/moved"), "hello world"));
    assert_int_equal(walk(bench, 2, 3, "moved"), 0);
    assert_int_equal(call(bench, T_RENAME, "dds", 3, 1, "again"), 0);
    assert_true(file_is(path(bench, "share/again"), "hello world"));
    assert_int_equal(call(bench, T_UNLINKAT, "dsd", 1, "again", 0x200), ENOTDIR);
    assert_int_equal(call(bench, T_UNLINKAT, "dsd", 1, "sub", 0), EISDIR);
    assert_int_equal(call(bench, T_UNLINKAT, "dsd", 1, "sub", 0x200), ENOTEMPTY);
    assert_int_equal(call(bench, T_REMOVE, "d", 3), 0);
    assert_int_not_equal(access(path(bench, "share/again"), F_OK), 0);
    assert_int_equal(call(bench, T_CLUNK, "d", 3), EBADF);
    /* A file that is gone keeps its fid, attributes and contents. */
    assert_int_equal(call(bench, T_WALK, "ddwss", 1, 3, 2, "sub", "inner"), 0);
    assert_int_equal(call(bench, T_LOPEN, "dd", 3, 0), 0);
    assert_int_equal(call(bench, T_UNLINKAT, "dsd", 2, "inner", 0), 0);
    assert_int_equal(call(bench, T_GETATTR, "dq", 3, UINT64_C(0x7ff)), 0);
    assert_int_equal(call(bench, T_READ, "dqd", 3, UINT64_C(0), 10), 0);
    assert_int_equal(next(bench, 4), 5);
    assert_int_equal(call(bench, T_RENAME, "dds", 3, 1, "ghost"), ENOENT);
    assert_int_equal(call(bench, T_REMOVE, "d", 3), ENOENT);
    /* The root has no name that could be changed. */
    assert_int_equal(call(bench, T_RENAME, "dds", 1, 2, "root"), EBUSY);
    call(bench, T_WALK, "ddw", 1, 5, 0);
    assert_int_equal(call(bench, T_REMOVE, "d", 5), EBUSY);
    assert_int_equal(call(bench, T_REMOVE, "d", 2), 0);
    assert_int_not_equal(access(path(bench, "share/sub"), F_OK), 0);
}

static void test_setattr(void **state)
{
    struct bench *bench = *state;
    struct stat info;

    assert_int_equal(walk(bench, 1, 2, "hello"), 0);
    assert_int_equal(call(bench, T_SETATTR, "dddddqqqqq", 2, 0x1b9, 06751, 0, 0, UINT64_C(4),
                          UINT64_C(1000), UINT64_C(5), UINT64_C(2000), UINT64_C(6)),
                     0);
    stat(path(bench, "share/hello"), &info);
    assert_int_equal(info.st_mode & 07777, 0751);
    assert_int_equal(info.st_size, 4);
    assert_int_equal(info.st_atim.tv_sec, 1000);
    assert_int_equal(info.st_mtim.tv_nsec, 6);
    assert_int_equal(call(bench, T_SETATTR, "dddddqqqqq", 2, 0x8, 0, 0, 0, UINT64_MAX, UINT64_C(0),
                          UINT64_C(0), UINT64_C(0), UINT64_C(0)),
                     EFBIG);
    assert_int_equal(call(bench, T_SETATTR, "dddddqqqqq", 2, 0x6, 0, getuid(), getgid(),
                          UINT64_C(0), UINT64_C(0), UINT64_C(0), UINT64_C(0), UINT64_C(0)),
                     0);
    /* Neither mode nor time of what a link points to can be reached. */
    symlink(path(bench, "secret"), path(bench, "share/link"));
    stat(path(bench, "secret"), &info);
    mode_t before = info.st_mode;
    assert_int_equal(walk(bench, 1, 3, "link"), 0);
    call(bench, T_SETATTR, "dddddqqqqq", 3, 0x1b1, 0777, 0, 0, UINT64_C(0), UINT64_C(77),
         UINT64_C(0), UINT64_C(77), UINT64_C(0));
    call(bench, T_SETATTR, "dddddqqqqq", 3, 0x8, 0777, 0, 0, UINT64_C(0), UINT64_C(77), UINT64_C(0),
         UINT64_C(77), UINT64_C(0));
    stat(path(bench, "secret"), &info);
    assert_int_equal(info.st_mode, before);
    assert_int_equal(info.st_size, 6);
    assert_true(info.st_mtime != 77);
}

/* Reads a whole directory in steps of `count` bytes; returns the entries and sets *dot_dot_inode.
 */
static unsigned read_directory(struct bench *bench, uint32_t fid, unsigned count,
                               uint64_t *dot_dot_inode, unsigned *steps)
{
    uint64_t offset = 0;
    unsigned entries = 0;

    for (*steps = 0;; ++*steps) {
        assert_int_equal(call(bench, T_READDIR, "dqd", fid, offset, count), 0);
        size_t size = next(bench, 4), end = bench->at + size;
        assert_true(size <= count);
        if (!size)
            return entries;
        while (bench->at < end) {
            bench->at += 5;
            uint64_t inode = next(bench, 8);
            offset = next(bench, 8);
            bench->at++;
            size_t length = next(bench, 2);
            if (length == 2 && !memcmp(bench->reply + bench->at, "..", 2))
                *dot_dot_inode = inode;
            bench->at += length;
            entries++;
        }
        assert_int_equal(bench->at, end);
    }
}

static void test_readdir(void **state)
{
    struct bench *bench = *state;
    uint64_t above = 0;
    unsigned steps;
    struct stat info;
    char name[64];

    for (unsigned i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "share/sub/a-name-that-has-some-length-%u", i);
        make_file(path(bench, name), "");
    }
    assert_int_equal(open_path(bench, 2, "sub", 0200000), 0);
    assert_int_equal(read_directory(bench, 2, 60000, &above, &steps), 1003);
    assert_int_equal(read_directory(bench, 2, 300, &above, &steps), 1003);
    assert_true(steps > 100);
    assert_int_equal(call(bench, T_READDIR, "dqd", 2, UINT64_C(0), 10), EINVAL);
    /* The directory above the root is not shown, not even its number. */
    call(bench, T_WALK, "ddw", 1, 3, 0);
    assert_int_equal(call(bench, T_LOPEN, "dd", 3, 0), 0);
    read_directory(bench, 3, 60000, &above, &steps);
    stat(path(bench, "share"), &info);
    assert_int_equal(above, info.st_ino);
    assert_int_equal(open_path(bench, 4, "hello", 0), 0);
    assert_int_equal(call(bench, T_READDIR, "dqd", 4, UINT64_C(0), 1000), ENOTDIR);
}

static void test_confinement_names(void **state)
{
    struct bench *bench = *state;
    static const char *const names[] = {
        "", "/", "/etc", "a/b", "sub/inner", "../secret", "sub/../../secret", "./hello"};
    struct stat root, info;

    stat(path(bench, "share"), &root);
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        assert_int_equal(walk(bench, 1, 2, names[i]), ENOENT);
        assert_int_equal(call(bench, T_MKDIR, "dsdd", 1, names[i], 0755, 0), EINVAL);
        assert_int_equal(call(bench, T_UNLINKAT, "dsd", 1, names[i], 0), EINVAL);
        assert_int_equal(call(bench, T_SYMLINK, "dssd", 1, names[i], "x", 0), EINVAL);
        assert_int_equal(call(bench, T_RENAMEAT, "dsds", 1, "hello", 1, names[i]), EINVAL);
        assert_int_equal(call(bench, T_RENAMEAT, "dsds", 1, names[i], 1, "x"), EINVAL);
        assert_int_equal(call(bench, T_LCREATE, "dsddd", 1, names[i], 0102, 0644, 0), EINVAL);
    }
    assert_int_equal(call(bench, T_RENAMEAT, "dsds", 1, "hello", 1, ".."), EINVAL);
    assert_int_equal(call(bench, T_UNLINKAT, "dsd", 1, "..", 0x200), EINVAL);
    assert_int_equal(call(bench, T_LCREATE, "dsddd", 1, "..", 0102, 0644, 0), EINVAL);
    /* ".." stays at the root, however often, and leads up inside. */
    assert_int_equal(call(bench, T_WALK, "ddwssss", 1, 2, 4, "..", "..", "..", ".."), 0);
    assert_int_equal(next(bench, 2), 4);
    bench->at += 5;
    assert_int_equal(next(bench, 8), root.st_ino);
    assert_int_equal(walk(bench, 2, 3, "secret"), ENOENT);
    assert_int_equal(call(bench, T_WALK, "ddwsss", 1, 3, 3, "sub", "..", "hello"), 0);
    assert_int_equal(next(bench, 2), 3);
    assert_int_equal(call(bench, T_WALK, "ddwssss", 1, 4, 4, "sub", "..", "..", "secret"), 0);
    assert_int_equal(next(bench, 2), 3);
    assert_int_equal(call(bench, T_CLUNK, "d", 4), EBADF);
    stat(path(bench, "secret"), &info);
    assert_true(file_is(path(bench, "secret"), "secret"));
    /* A NUL inside a name, and a name that is too long. */
    static const uint8_t nul[] = {30, 0, 0, 0, 110, 1, 0, 1,   0,   0, 0,   9,
                                  0,  0, 0, 1, 0,   5, 0, 'h', 'e', 0, 'l', 'o'};
    uint8_t message[64];
    memcpy(message, nul, sizeof(nul));
    message[0] = sizeof(nul);
    p9_server_handle(bench->server, message, sizeof(nul), bench->reply, sizeof(bench->reply));
    assert_int_equal(load_le32(bench->reply + 7), EINVAL);
    char big[300];
    memset(big, 'x', 299);
    big[299] = 0;
    assert_int_equal(walk(bench, 1, 2 + 7, big), ENAMETOOLONG);
}

static void test_confinement_links(void **state)
{
    struct bench *bench = *state;

    symlink("/etc", path(bench, "share/etc"));
    symlink("/etc/passwd", path(bench, "share/passwd"));
    symlink("../outside", path(bench, "share/relative"));
    symlink("/proc/self/root", path(bench, "share/magic"));
    symlink(path(bench, "victim"), path(bench, "share/dangling"));
    static const char *const links[] = {"etc", "passwd", "relative", "magic", "dangling"};
    for (unsigned i = 0; i < ARRAY_SIZE(links); i++) {
        uint32_t fid = 10 + i;
        assert_int_equal(walk(bench, 1, fid, links[i]), 0);
        assert_int_equal(bench->reply[9], 0x02); /* the link itself */
        assert_int_equal(call(bench, T_LOPEN, "dd", fid, 0), ELOOP);
        assert_int_equal(call(bench, T_LOPEN, "dd", fid, 01001), ELOOP);
        assert_int_equal(walk(bench, fid, 20, "passwd"), ENOTDIR);
        assert_int_equal(walk(bench, fid, 20, "secret"), ENOTDIR);
        assert_int_equal(walk(bench, fid, 20, ".."), ENOTDIR);
        assert_int_equal(call(bench, T_MKDIR, "dsdd", fid, "x", 0755, 0), ENOTDIR);
        assert_int_equal(call(bench, T_RENAMEAT, "dsds", 1, "hello", fid, "x"), ENOTDIR);
        assert_int_equal(call(bench, T_UNLINKAT, "dsd", fid, "secret", 0), ENOTDIR);
        call(bench, T_WALK, "ddw", 1, 21, 0);
        assert_int_equal(call(bench, T_LCREATE, "dsddd", 21, links[i], 0102, 0644, 0), ELOOP);
        assert_int_equal(call(bench, T_CLUNK, "d", 21), 0);
    }
    assert_int_not_equal(access(path(bench, "victim"), F_OK), 0);
    assert_true(file_is(path(bench, "outside/secret"), "secret"));
}

/* Device nodes, FIFOs and sockets of the host are shown but never opened. */
static void test_confinement_special(void **state)
{
    struct bench *bench = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);

    assert_int_equal(mkfifo(path(bench, "share/fifo"), 0666), 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path(bench, "share/socket"));
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(open_path(bench, 2, "fifo", 0), EACCES);
    assert_int_equal(open_path(bench, 2, "fifo", 2), EACCES);
    assert_int_equal(open_path(bench, 2, "socket", 2), EACCES);
    if (mknod(path(bench, "share/null"), S_IFCHR | 0666, 0x103) == 0) {
        assert_int_equal(open_path(bench, 2, "null", 2), EACCES);
        call(bench, T_WALK, "ddw", 1, 3, 0);
        assert_int_equal(call(bench, T_LCREATE, "dsddd", 3, "null", 0102, 0644, 0), EACCES);
        assert_int_equal(call(bench, T_CLUNK, "d", 3), 0);
    }
    call(bench, T_WALK, "ddw", 1, 3, 0);
    assert_int_equal(call(bench, T_LCREATE, "dsddd", 3, "fifo", 0101, 0644, 0), EACCES);
    close(listener);
}

/* A directory that somebody on the host moves out of the share is no way out. */
static void test_confinement_moved(void **state)
{
    struct bench *bench = *state;

    assert_int_equal(walk(bench, 1, 2, "sub"), 0);
    assert_int_equal(rename(path(bench, "share/sub"), path(bench, "outside/sub")), 0);
    assert_int_equal(walk(bench, 2, 3, ".."), EACCES);
    assert_int_equal(call(bench, T_WALK, "ddwss", 2, 3, 2, "..", "secret"), EACCES);
    assert_int_equal(call(bench, T_RENAME, "dds", 2, 1, "back"), ENOENT);
    assert_int_equal(call(bench, T_REMOVE, "d", 2), ENOENT);
    assert_int_equal(access(path(bench, "outside/sub"), F_OK), 0);
}

/* The host exchanges a directory for a link to the outside, again and again, under the walks. */
struct race {
    struct bench *bench;
    atomic_bool stop;
};

static void *race_exchange(void *opaque)
{
    struct race *race = opaque;
    const char *one = xstrdup(path(race->bench, "share/swap"));
    const char *two = xstrdup(path(race->bench, "share/other"));

    while (!race->stop)
        renameat2(AT_FDCWD, one, AT_FDCWD, two, RENAME_EXCHANGE);
    free((char *)one);
    free((char *)two);
    return NULL;
}

static void test_confinement_race(void **state)
{
    struct bench *bench = *state;
    struct race race = {.bench = bench};
    unsigned inside = 0, refused = 0;
    pthread_t thread;

    mkdir(path(bench, "share/swap"), 0755);
    make_file(path(bench, "share/swap/secret"), "public");
    symlink("../outside", path(bench, "share/other"));
    pthread_create(&thread, NULL, race_exchange, &race);
    for (unsigned i = 0; i < 20000; i++) {
        if (call(bench, T_WALK, "ddwss", 1, 2, 2, "swap", "secret") || next(bench, 2) < 2) {
            refused++;
            continue;
        }
        assert_int_equal(call(bench, T_LOPEN, "dd", 2, 0), 0);
        assert_int_equal(call(bench, T_READ, "dqd", 2, UINT64_C(0), 6), 0);
        assert_memory_equal(bench->reply + 11, "public", 6);
        assert_int_equal(call(bench, T_CLUNK, "d", 2), 0);
        inside++;
    }
    race.stop = true;
    pthread_join(thread, NULL);
    assert_true(inside && refused);
}

static void test_read_only(void **state)
{
    struct bench *bench = *state;

    session(bench, true);
    assert_int_equal(open_path(bench, 2, "hello", 1), EROFS);
    assert_int_equal(open_path(bench, 2, "hello", 2), EROFS);
    assert_int_equal(open_path(bench, 2, "hello", 3), EROFS);
    assert_int_equal(open_path(bench, 2, "hello", 01000), EROFS);
    assert_int_equal(open_path(bench, 2, "hello", 0), 0);
    assert_int_equal(call(bench, T_WRITE, "dqD", 2, UINT64_C(0), 1, "x"), EROFS);
    assert_int_equal(call(bench, T_LCREATE, "dsddd", 1, "n", 0102, 0644, 0), EROFS);
    assert_int_equal(call(bench, T_MKDIR, "dsdd", 1, "n", 0755, 0), EROFS);
    assert_int_equal(call(bench, T_SYMLINK, "dssd", 1, "n", "x", 0), EROFS);
    assert_int_equal(call(bench, T_MKNOD, "dsdddd", 1, "n", S_IFREG, 0, 0, 0), EROFS);
    assert_int_equal(call(bench, T_LINK, "dds", 1, 2, "n"), EROFS);
    assert_int_equal(call(bench, T_RENAME, "dds", 2, 1, "n"), EROFS);
    assert_int_equal(call(bench, T_RENAMEAT, "dsds", 1, "hello", 1, "n"), EROFS);
    assert_int_equal(call(bench, T_UNLINKAT, "dsd", 1, "hello", 0), EROFS);
    assert_int_equal(call(bench, T_SETATTR, "dddddqqqqq", 2, 1, 0, 0, 0, UINT64_C(0), UINT64_C(0),
                          UINT64_C(0), UINT64_C(0), UINT64_C(0)),
                     EROFS);
    assert_int_equal(call(bench, T_REMOVE, "d", 2), EROFS);
    assert_true(file_is(path(bench, "share/hello"), "hello world"));
}

static void test_locks(void **state)
{
    struct bench *bench = *state;
    int other;

    assert_int_equal(open_path(bench, 2, "hello", 2), 0);
    assert_int_equal(open_path(bench, 3, "hello", 0), 0);
    assert_int_equal(call(bench, T_GETLOCK, "dbqqds", 2, 1, UINT64_C(0), UINT64_C(10), 7, "me"), 0);
    assert_int_equal(next(bench, 1), 2);
    assert_int_equal(call(bench, T_LOCK, "dbdqqds", 2, 1, 1, UINT64_C(0), UINT64_C(10), 7, "me"),
                     0);
    assert_int_equal(next(bench, 1), 0);
    /* Another process of the host sees it. */
    other = open(path(bench, "share/hello"), O_RDWR);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
    assert_int_equal(fcntl(other, F_OFD_SETLK, &lock), -1);
    lock.l_start = 20;
    assert_int_equal(fcntl(other, F_OFD_SETLK, &lock), 0);
    assert_int_equal(call(bench, T_LOCK, "dbdqqds", 2, 1, 1, UINT64_C(20), UINT64_C(1), 7, "me"),
                     0);
    assert_int_equal(next(bench, 1), 1);
    assert_int_equal(call(bench, T_GETLOCK, "dbqqds", 2, 1, UINT64_C(0), UINT64_C(0), 7, "me"), 0);
    assert_int_equal(next(bench, 1), 1);
    assert_int_equal(next(bench, 8), 20);
    assert_int_equal(call(bench, T_LOCK, "dbdqqds", 2, 2, 0, UINT64_C(0), UINT64_C(0), 7, "me"), 0);
    assert_int_equal(next(bench, 1), 0);
    lock.l_start = 0;
    assert_int_equal(fcntl(other, F_OFD_SETLK, &lock), 0);
    /* flock() of a file opened for reading. */
    assert_int_equal(call(bench, T_LOCK, "dbdqqds", 3, 1, 0, UINT64_C(0), UINT64_C(0), 7, "me"), 0);
    assert_int_equal(next(bench, 1), 0);
    assert_int_equal(call(bench, T_LOCK, "dbdqqds", 3, 9, 0, UINT64_C(0), UINT64_C(0), 7, "me"),
                     EINVAL);
    assert_int_equal(call(bench, T_LOCK, "dbdqqds", 1, 1, 0, UINT64_C(0), UINT64_C(0), 7, "me"),
                     EBADF);
    close(other);
    assert_int_equal(call(bench, T_XATTRWALK, "dds", 2, 9, "user.x"), EOPNOTSUPP);
}

/* Every prefix of a valid message, and every length in its size field. */
static void test_malformed(void **state)
{
    struct bench *bench = *state;
    static const uint8_t valid[] = {26, 0, 0, 0, 110, 1, 0,   1,   0,   0, 0, 2,   0,
                                    0,  0, 2, 0, 3,   0, 's', 'u', 'b', 1, 0, '.', 0};
    uint8_t message[64];

    for (unsigned size = 7; size < 25; size++)
        for (unsigned claimed = 0; claimed < 40; claimed++) {
            memcpy(message, valid, 25);
            message[0] = claimed;
            size_t got = p9_server_handle(bench->server, message, size, bench->reply, 64);
            assert_int_equal(got, 11);
            assert_int_equal(bench->reply[4], 7);
        }
    memcpy(message, valid, 25);
    message[0] = 25;
    message[15] = 2;
    assert_int_equal(p9_server_handle(bench->server, message, 25, bench->reply, 64), 9 + 2 * 13);
    assert_int_equal(call(bench, T_CLUNK, "dd", 2, 0), EPROTO); /* more than the message has */
    assert_int_equal(call(bench, T_CLUNK, "d", 2), 0);
    /* A reply that does not fit becomes an error. */
    uint8_t getattr[] = {19, 0, 0, 0, 24, 1, 0, 1, 0, 0, 0, 0xff, 7, 0, 0, 0, 0, 0, 0};
    for (unsigned capacity = 11; capacity < 160; capacity++) {
        memset(bench->reply, 0xee, 200);
        p9_server_handle(bench->server, getattr, sizeof(getattr), bench->reply, capacity);
        assert_int_equal(bench->reply[4], capacity < 160 ? 7 : 25);
        assert_int_equal(load_le32(bench->reply + 7), EMSGSIZE);
        assert_int_equal(bench->reply[capacity], 0xee);
    }
    assert_int_equal(p9_server_handle(bench->server, getattr, sizeof(getattr), bench->reply, 160),
                     160);
    /* Fids are bounded. */
    unsigned count = 0;
    while (call(bench, T_WALK, "ddw", 1, 100 + count, 0) == 0 && count < 100000)
        count++;
    assert_int_equal(call(bench, T_WALK, "ddw", 1, 100 + count, 0), EMFILE);
    assert_true(count < 65536);
}

static void test_state(void **state)
{
    struct bench *bench = *state;
    struct stream *saving = stream_create_saving(), *loading;
    const void *bytes;
    size_t size;

    assert_int_equal(open_path(bench, 2, "hello", 2), 0);
    assert_int_equal(call(bench, T_WALK, "ddwss", 1, 3, 2, "sub", "inner"), 0);
    assert_int_equal(open_path(bench, 4, "sub", 0), 0);
    make_file(path(bench, "share/gone"), "");
    assert_int_equal(walk(bench, 1, 5, "gone"), 0);
    unlink(path(bench, "share/gone"));
    p9_server_state(bench->server, saving);
    assert_true(stream_check(saving, NULL));
    bytes = stream_data(saving, &size);

    p9_server_destroy(bench->server);
    bench->server = p9_server_create(path(bench, "share"), false, NULL);
    loading = stream_create_loading(bytes, size);
    p9_server_state(bench->server, loading);
    assert_true(stream_check(loading, NULL));
    stream_destroy(loading);
    assert_int_equal(call(bench, T_WRITE, "dqD", 2, UINT64_C(0), 1, "J"), 0);
    assert_true(file_is(path(bench, "share/hello"), "Jello world"));
    assert_int_equal(call(bench, T_LOPEN, "dd", 3, 0), 0);
    assert_int_equal(call(bench, T_READDIR, "dqd", 4, UINT64_C(0), 1000), 0);
    assert_int_equal(call(bench, T_GETATTR, "dq", 5, UINT64_C(1)), ESTALE);
    assert_int_equal(call(bench, T_CLUNK, "d", 5), 0);
    for (size_t cut = 0; cut < size; cut++) {
        loading = stream_create_loading(bytes, cut);
        p9_server_state(bench->server, loading);
        assert_false(stream_check(loading, NULL));
        stream_destroy(loading);
    }
    /* A forged path does not lead out. */
    uint8_t *forged = xmalloc(size);
    memcpy(forged, bytes, size);
    uint8_t *at = memmem(forged, size, "sub/inner", 9);
    memcpy(at, "../secret", 9);
    loading = stream_create_loading(forged, size);
    p9_server_state(bench->server, loading);
    stream_destroy(loading);
    assert_int_equal(call(bench, T_GETATTR, "dq", 3, UINT64_C(1)), ESTALE);
    free(forged);
    stream_destroy(saving);
}

static void test_create_errors(void **state)
{
    struct bench *bench = *state;
    struct error err = {0};

    assert_null(p9_server_create(path(bench, "nowhere"), false, &err));
    assert_non_null(strstr(err.message, "nowhere"));
    assert_null(p9_server_create(path(bench, "secret"), false, &err));
    struct virtio_p9_config config = {path(bench, "share"), "", false};
    struct loop *loop = loop_create();
    assert_null(virtio_p9_create("share0", &config, loop, &err));
    assert_non_null(strstr(err.message, "tag"));
    loop_destroy(loop);
}

/* The device: a message through a virtqueue, one that is too short, and a reset meanwhile. */
static void test_device(void **state)
{
    struct bench *bench = *state;
    struct virtio_p9_config config = {path(bench, "share"), "mytag", false};
    struct loop *loop = loop_create();
    struct memory *memory = memory_create();
    struct irq_line irq = {0};
    struct error err = {0};
    static const uint8_t version[] = {21, 0, 0,   0,   100, 0xff, 0xff, 0,   32,  0,  0,
                                      8,  0, '9', 'P', '2', '0',  '0',  '0', '.', 'L'};
    static const struct driver_desc chain[] = {
        {DRIVER_BUFFERS, sizeof(version), 0, 0},
        {DRIVER_BUFFERS + 0x100, 7, DESC_WRITE, 0},
        {DRIVER_BUFFERS + 0x200, 100, DESC_WRITE, 0},
    };
    uint32_t head, size;
    uint8_t reply[32];

    assert_true(memory_add_ram(memory, DRIVER_RAM_BASE, DRIVER_RAM_SIZE, NULL));
    struct virtio_mmio *slot = virtio_mmio_create(memory, DRIVER_SLOT, irq, "slot0", NULL);
    struct virtio_device *device = virtio_p9_create("share0", &config, loop, &err);
    assert_non_null(device);
    assert_true(virtio_mmio_attach(slot, device, NULL));
    struct driver driver = {.memory = memory, .slot = DRIVER_SLOT};
    driver_start(&driver, 1, 1, 16);
    assert_int_equal(driver_read(&driver, MMIO_CONFIG), 5 | 'm' << 16 | 'y' << 24);
    memory_dma_write(memory, DRIVER_BUFFERS, version, sizeof(version));
    driver_offer_chain(&driver, 0, 0, chain, 3);
    driver_notify(&driver, 0);
    while (!driver_take(&driver, 0, &head, &size))
        loop_turn(loop, 100);
    assert_int_equal(size, 21);
    memory_dma_read(memory, DRIVER_BUFFERS + 0x100, reply, 7);
    memory_dma_read(memory, DRIVER_BUFFERS + 0x200, reply + 7, 14);
    assert_int_equal(reply[4], 101);
    assert_memory_equal(reply + 7, version + 7, 14);

    /* Many requests, and a reset while the worker has them. */
    for (unsigned round = 0; round < 200; round++) {
        for (unsigned i = 0; i < 5; i++)
            driver_offer_chain(&driver, 0, 3 * i, chain, 3);
        driver_notify(&driver, 0);
        loop_turn(loop, 0);
        driver_start(&driver, 1, 1, 16);
        loop_turn(loop, 0);
    }
    device->base.type->quiesce(&device->base);
    assert_int_equal(driver_used_index(&driver, 0), 0);
    struct stream *stream = stream_create_saving();
    device->base.type->state(&device->base, stream);
    assert_true(stream_check(stream, NULL));
    stream_destroy(stream);

    const struct driver_desc too_short[] = {{DRIVER_BUFFERS, 6, 0, 0},
                                            {DRIVER_BUFFERS, 100, DESC_WRITE, 0}};
    driver_offer_chain(&driver, 0, 0, too_short, 2);
    driver_notify(&driver, 0);
    loop_turn(loop, 100);
    assert_true(driver_read(&driver, MMIO_STATUS) & VIRTIO_STATUS_NEEDS_RESET);
    device->base.type->remove(&device->base);
    virtio_mmio_device(slot)->type->remove(virtio_mmio_device(slot));
    memory_destroy(memory);
    loop_destroy(loop);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_version),
        TEST(test_walk),
        TEST(test_file),
        TEST(test_create),
        TEST(test_rename_and_remove),
        TEST(test_setattr),
        TEST(test_readdir),
        TEST(test_confinement_names),
        TEST(test_confinement_links),
        TEST(test_confinement_special),
        TEST(test_confinement_moved),
        TEST(test_confinement_race),
        TEST(test_read_only),
        TEST(test_locks),
        TEST(test_malformed),
        TEST(test_state),
        TEST(test_create_errors),
        TEST(test_device),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
