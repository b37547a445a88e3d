/* The disk back end, in both engines: transfers, snapshots, locks, formats, errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/loop.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "base/base.h"
#include "virtio/block.h"

#define DISK_SIZE (UINT64_C(4) << 20)

static char folder[] = "/tmp/test-block-XXXXXX";
static char image[64];
static struct loop *loop;
static struct block *block;

/* The engine that a group of tests runs in. */
static enum block_engine engine = BLOCK_ENGINE_THREADS;

static void on_ready(void *opaque)
{
    block_reap(block);
}

static struct block *open_disk(const char *path, bool read_only, bool snapshot, struct error *err)
{
    struct block_config config = {path, read_only, snapshot, engine};
    return block_open(loop, &config, on_ready, NULL, err);
}

static void open_image(bool read_only, bool snapshot)
{
    struct error err = {0};
    block = open_disk(image, read_only, snapshot, &err);
    if (!block)
        fail_msg("%s", err.message);
}

static void close_image(void)
{
    block_close(block);
    block = NULL;
}

static void write_file(const char *path, uint64_t size, const void *bytes, size_t count,
                       uint64_t offset)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    assert_int_equal(pwrite(fd, bytes, count, (off_t)offset), count);
    close(fd);
}

static void read_image(void *bytes, size_t size, uint64_t offset)
{
    int fd = open(image, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, bytes, size, (off_t)offset), size);
    close(fd);
}

/* Requests of the tests. */

struct test_request {
    struct block_request block;
    struct iovec iov[4];
    int error;
    unsigned done;
};

static void request_done(struct block_request *request, int error)
{
    struct test_request *test = container_of(request, struct test_request, block);
    test->error = error;
    test->done++;
}

static void prepare(struct test_request *request, enum block_operation operation, uint64_t offset,
                    void *buffer, uint64_t length)
{
    *request = (struct test_request){
        .block = {.operation = operation,
                  .offset = offset,
                  .length = length,
                  .iov_count = buffer ? 1 : 0,
                  .done = request_done},
        .iov = {{buffer, length}},
        .error = -1,
    };
    request->block.iov = request->iov;
}

/* Runs one request through the loop. */
static int run(enum block_operation operation, uint64_t offset, void *buffer, uint64_t length,
               bool unmap)
{
    struct test_request request;
    prepare(&request, operation, offset, buffer, length);
    request.block.unmap = unmap;
    block_submit(block, &request.block);
    assert_int_equal(request.done, 0); /* never from within */
    block_kick(block);
    for (int turns = 0; !request.done && turns < 1000; turns++)
        loop_turn(loop, 100);
    assert_int_equal(request.done, 1);
    return request.error;
}

static void pattern(uint8_t *bytes, size_t size, uint8_t seed)
{
    for (size_t n = 0; n < size; n++)
        bytes[n] = (uint8_t)(seed + n * 7 + (n >> 8) * 13);
}

static void assert_bytes(const uint8_t *bytes, uint8_t value, size_t size)
{
    for (size_t n = 0; n < size; n++)
        if (bytes[n] != value)
            fail_msg("byte %zu is %#x, not %#x", n, bytes[n], value);
}

/* stderr of what `act` says, for messages to the user. */
static char *messages(void (*act)(void))
{
    char *text = calloc(1, 65536);
    int saved = dup(2), pipes[2];
    assert_int_equal(pipe2(pipes, O_NONBLOCK), 0);
    fflush(stderr);
    dup2(pipes[1], 2);
    act();
    fflush(stderr);
    dup2(saved, 2);
    close(saved);
    close(pipes[1]);
    for (ssize_t size = 0, got; (got = read(pipes[0], text + size, 65535 - size)) > 0; size += got)
        ;
    close(pipes[0]);
    return text;
}

static unsigned count_lines(const char *text)
{
    unsigned lines = 0;
    for (; *text; text++)
        lines += *text == '\n';
    return lines;
}

/* Transfers. */

static void test_read_back(void **state)
{
    static uint8_t out[131072], in[131072];
    write_file(image, DISK_SIZE, "", 0, 0);
    open_image(false, false);
    assert_int_equal(block_size(block), DISK_SIZE);
    assert_string_equal(block_engine_name(block),
                        engine == BLOCK_ENGINE_THREADS ? "threads" : "io_uring");
    pattern(out, sizeof(out), 3);
    assert_int_equal(run(BLOCK_WRITE, 1024, out, sizeof(out), false), 0);
    assert_int_equal(run(BLOCK_FLUSH, 0, NULL, 0, false), 0);
    assert_int_equal(run(BLOCK_READ, 1024, in, sizeof(in), false), 0);
    assert_memory_equal(in, out, sizeof(in));
    read_image(in, sizeof(in), 1024);
    assert_memory_equal(in, out, sizeof(in));
    /* the last sector, and before the first byte written */
    assert_int_equal(run(BLOCK_WRITE, DISK_SIZE - 512, out, 512, false), 0);
    read_image(in, 512, DISK_SIZE - 512);
    assert_memory_equal(in, out, 512);
    assert_int_equal(run(BLOCK_READ, 0, in, 1024, false), 0);
    assert_bytes(in, 0, 1024);
    close_image();
}

/* Parts of odd sizes: what a guest's scattered pages become. */
static void test_scatter_gather(void **state)
{
    uint8_t out[4096], in[4096];
    struct test_request request;
    write_file(image, DISK_SIZE, "", 0, 0);
    open_image(false, false);
    pattern(out, sizeof(out), 9);
    for (int write = 1; write >= 0; write--) {
        uint8_t *bytes = write ? out : in;
        prepare(&request, write ? BLOCK_WRITE : BLOCK_READ, 8192, bytes, sizeof(out));
        request.iov[0] = (struct iovec){bytes, 1};
        request.iov[1] = (struct iovec){bytes + 1, 4000};
        request.iov[2] = (struct iovec){bytes + 4001, 0};
        request.iov[3] = (struct iovec){bytes + 4001, 95};
        request.block.iov_count = 4;
        block_submit(block, &request.block);
        block_drain(block);
        assert_int_equal(request.done, 1);
        assert_int_equal(request.error, 0);
    }
    assert_memory_equal(in, out, sizeof(in));
    close_image();
}

/* More parts than the kernel takes in one call (IOV_MAX), and than one window. */
static void test_many_parts(void **state)
{
    enum { PARTS = 2048, PART = 64 };
    static uint8_t out[PARTS * PART], in[PARTS * PART];
    static struct iovec iov[PARTS];
    struct test_request request;
    write_file(image, DISK_SIZE, "", 0, 0);
    open_image(false, false);
    pattern(out, sizeof(out), 1);
    for (int write = 1; write >= 0; write--) {
        for (int n = 0; n < PARTS; n++)
            iov[n] = (struct iovec){(write ? out : in) + n * PART, PART};
        prepare(&request, write ? BLOCK_WRITE : BLOCK_READ, 512, out, sizeof(out));
        request.block.iov = iov;
        request.block.iov_count = PARTS;
        block_submit(block, &request.block);
        block_drain(block);
        assert_int_equal(request.error, 0);
    }
    assert_memory_equal(in, out, sizeof(in));
    close_image();
}

/* More requests at once than the ring has entries. */
static void test_many_requests(void **state)
{
    enum { COUNT = 1500 };
    static uint8_t sectors[COUNT][512];
    static struct test_request requests[COUNT];
    write_file(image, DISK_SIZE, "", 0, 0);
    open_image(false, false);
    for (int n = 0; n < COUNT; n++) {
        pattern(sectors[n], 512, (uint8_t)n);
        prepare(&requests[n], BLOCK_WRITE, 512 * (uint64_t)n, sectors[n], 512);
        block_submit(block, &requests[n].block);
    }
    block_drain(block);
    for (int n = 0; n < COUNT; n++) {
        uint8_t read_back[512];
        assert_int_equal(requests[n].done, 1);
        assert_int_equal(requests[n].error, 0);
        read_image(read_back, 512, 512 * (uint64_t)n);
        assert_memory_equal(read_back, sectors[n], 512);
    }
    close_image();
}

/* `done` may submit the next request, and drain. */
static uint8_t chained[512];
static struct test_request chained_request;

static void submit_second(struct block_request *request, int error)
{
    request_done(request, error);
    prepare(&chained_request, BLOCK_READ, 512, chained, 512);
    block_submit(block, &chained_request.block);
    block_drain(block);
}

static void test_chained(void **state)
{
    uint8_t bytes[512];
    struct test_request request, other;
    write_file(image, DISK_SIZE, "x", 1, 512);
    open_image(false, false);
    prepare(&request, BLOCK_READ, 0, bytes, 512);
    request.block.done = submit_second;
    prepare(&other, BLOCK_FLUSH, 0, NULL, 0);
    block_submit(block, &request.block);
    block_submit(block, &other.block);
    block_drain(block);
    assert_int_equal(chained_request.done, 1);
    assert_int_equal(other.done, 1);
    assert_int_equal(chained[0], 'x');
    close_image();
}

static uint64_t allocated(void)
{
    struct stat status;
    assert_int_equal(stat(image, &status), 0);
    return (uint64_t)status.st_blocks * 512;
}

static void test_discard_and_zero(void **state)
{
    static uint8_t ones[65536], bytes[65536];
    memset(ones, 0xff, sizeof(ones));
    write_file(image, DISK_SIZE, "", 0, 0);
    open_image(false, false);
    assert_int_equal(run(BLOCK_WRITE, 0, ones, sizeof(ones), false), 0);
    assert_int_equal(run(BLOCK_FLUSH, 0, NULL, 0, false), 0);
    uint64_t full = allocated();

    /* within a page: the rest of it stays */
    assert_int_equal(run(BLOCK_WRITE_ZEROES, 512, NULL, 1024, false), 0);
    read_image(bytes, 4096, 0);
    assert_bytes(bytes, 0xff, 512);
    assert_bytes(bytes + 512, 0, 1024);
    assert_bytes(bytes + 1536, 0xff, 4096 - 1536);

    assert_int_equal(run(BLOCK_WRITE_ZEROES, 8192, NULL, 16384, true), 0);
    read_image(bytes, 65536, 0);
    assert_bytes(bytes + 4096, 0xff, 4096);
    assert_bytes(bytes + 8192, 0, 16384);
    assert_bytes(bytes + 24576, 0xff, 4096);

    assert_int_equal(run(BLOCK_DISCARD, 32768, NULL, 32768, false), 0);
    read_image(bytes, 65536, 0);
    assert_bytes(bytes + 28672, 0xff, 4096);
    assert_bytes(bytes + 32768, 0, 32768);
    assert_true(allocated() < full); /* the host got its space back */
    assert_int_equal(run(BLOCK_DISCARD, 0, NULL, 0, false), 0);
    close_image();
}

/* Errors. */

static void test_read_only(void **state)
{
    uint8_t bytes[512] = {1};
    write_file(image, DISK_SIZE, "", 0, 0);
    assert_int_equal(chmod(image, 0400), 0);
    open_image(true, false);
    assert_true(block_read_only(block));
    assert_int_equal(run(BLOCK_WRITE, 0, bytes, 512, false), EROFS);
    assert_int_equal(run(BLOCK_DISCARD, 0, NULL, 512, false), EROFS);
    assert_int_equal(run(BLOCK_WRITE_ZEROES, 0, NULL, 512, false), EROFS);
    assert_int_equal(run(BLOCK_FLUSH, 0, NULL, 0, false), 0);
    assert_int_equal(run(BLOCK_READ, 0, bytes, 512, false), 0);
    assert_bytes(bytes, 0, 512);
    close_image();
}

/* The file shrinks while it is open: the lost part cannot be read as if it had been zeros. */
static void shrink(void)
{
    uint8_t bytes[8192];
    assert_int_equal(truncate(image, 4096), 0);
    assert_int_equal(run(BLOCK_READ, 0, bytes, sizeof(bytes), false), EIO);
    assert_int_equal(run(BLOCK_READ, 0, bytes, 4096, false), 0);
}

static void test_shrunk(void **state)
{
    write_file(image, DISK_SIZE, "", 0, 0);
    open_image(false, false);
    char *text = messages(shrink);
    assert_int_equal(count_lines(text), 1);
    assert_non_null(strstr(text, image));
    free(text);
    close_image();
}

/* A limit on file sizes stands for a full disk: the write fails half way. */
static void beyond_limit(void)
{
    static uint8_t bytes[65536];
    for (int n = 0; n < 3; n++)
        assert_int_equal(run(BLOCK_WRITE, 1048576 - 32768, bytes, sizeof(bytes), false), EFBIG);
}

static void test_size_limit(void **state)
{
    struct rlimit old, limit;
    uint8_t bytes[512];
    write_file(image, DISK_SIZE, "", 0, 0);
    open_image(false, false);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = old;
    limit.rlim_cur = 1048576;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    char *text = messages(beyond_limit);
    assert_int_equal(run(BLOCK_WRITE, 0, bytes, 512, false), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(count_lines(text), 1); /* once, not three times */
    assert_non_null(strstr(text, image));
    free(text);
    assert_int_equal(run(BLOCK_WRITE, 1048576 - 256 * 512, bytes, 512, false), 0);
    close_image();
}

/* A really full file system, which takes root. */
static char *full_text;

static void fill_disk(void)
{
    static uint8_t bytes[262144];
    memset(bytes, 0x55, sizeof(bytes));
    assert_int_equal(run(BLOCK_WRITE, 0, bytes, sizeof(bytes), false), 0);
    int error = 0;
    for (uint64_t offset = sizeof(bytes); !error && offset < DISK_SIZE; offset += sizeof(bytes))
        error = run(BLOCK_WRITE, offset, bytes, sizeof(bytes), false);
    assert_int_equal(error, ENOSPC);
    assert_int_equal(run(BLOCK_WRITE, DISK_SIZE - 4096, bytes, 4096, false), ENOSPC);
}

static void full_disk(bool snapshot)
{
    char mounted[80], path[96];
    snprintf(mounted, sizeof(mounted), "%s/full", folder);
    snprintf(path, sizeof(path), "%s/disk", mounted);
    mkdir(mounted, 0700);
    if (mount("none", mounted, "tmpfs", 0, "size=1m") < 0) {
        print_message("skipped: mounting a small file system takes root\n");
        rmdir(mounted);
        skip();
    }
    if (snapshot) {
        setenv("TMPDIR", mounted, 1);
        write_file(image, DISK_SIZE, "", 0, 0);
        open_image(false, true);
    } else {
        struct error err = {0};
        write_file(path, DISK_SIZE, "", 0, 0);
        block = open_disk(path, false, false, &err);
        assert_non_null(block);
    }
    full_text = messages(fill_disk);
    close_image();
    unsetenv("TMPDIR");
    umount(mounted);
    rmdir(mounted);
    assert_int_equal(count_lines(full_text), 1);
    assert_non_null(strstr(full_text, "No space left"));
    assert_non_null(strstr(full_text, mounted));
    free(full_text);
}

static void test_full_disk(void **state)
{
    full_disk(false);
}

static void test_full_overlay(void **state)
{
    full_disk(true);
}

/* Snapshots. */

static void test_snapshot(void **state)
{
    static uint8_t original[65536], expected[65536], bytes[65536];
    pattern(original, sizeof(original), 5);
    write_file(image, DISK_SIZE, original, sizeof(original), 0);
    memcpy(expected, original, sizeof(original));
    assert_int_equal(chmod(image, 0400), 0);
    open_image(false, true);
    assert_false(block_read_only(block));

    /* single sectors, runs that begin and end within clusters, whole clusters, zeros */
    static const struct {
        enum block_operation operation;
        unsigned sector, sectors;
    } steps[] = {
        {BLOCK_WRITE, 1, 1},         {BLOCK_WRITE, 7, 2},         {BLOCK_WRITE, 20, 30},
        {BLOCK_WRITE, 64, 8},        {BLOCK_WRITE_ZEROES, 66, 3}, {BLOCK_DISCARD, 80, 16},
        {BLOCK_WRITE_ZEROES, 99, 5}, {BLOCK_WRITE, 100, 1},
    };
    for (size_t n = 0; n < ARRAY_SIZE(steps); n++) {
        uint64_t offset = steps[n].sector * 512, length = steps[n].sectors * 512;
        bool write = steps[n].operation == BLOCK_WRITE;
        if (write)
            pattern(expected + offset, length, (uint8_t)(40 + n));
        else
            memset(expected + offset, 0, length);
        assert_int_equal(
            run(steps[n].operation, offset, write ? expected + offset : NULL, length, false), 0);
        assert_int_equal(run(BLOCK_READ, 0, bytes, sizeof(bytes), false), 0);
        assert_memory_equal(bytes, expected, sizeof(bytes));
    }
    assert_int_equal(run(BLOCK_FLUSH, 0, NULL, 0, false), 0);
    read_image(bytes, sizeof(bytes), 0);
    assert_memory_equal(bytes, original, sizeof(bytes));

    /* its changes go along with the state, and only there */
    struct stream *saving = stream_create_saving();
    block_state(block, saving);
    assert_false(stream_failed(saving));
    close_image();
    open_image(false, true);
    assert_int_equal(run(BLOCK_READ, 0, bytes, sizeof(bytes), false), 0);
    assert_memory_equal(bytes, original, sizeof(bytes));
    size_t size;
    const void *data = stream_data(saving, &size);
    struct stream *loading = stream_create_loading(data, size);
    block_state(block, loading);
    assert_false(stream_failed(loading));
    assert_int_equal(run(BLOCK_READ, 0, bytes, sizeof(bytes), false), 0);
    assert_memory_equal(bytes, expected, sizeof(bytes));
    stream_destroy(loading);

    /* truncated at any byte, it fails and does no harm */
    for (size_t cut = 0; cut < size; cut += 1 + size / 97) {
        loading = stream_create_loading(data, cut);
        block_state(block, loading);
        assert_true(stream_failed(loading));
        stream_destroy(loading);
    }
    stream_destroy(saving);
    close_image();
}

/* Concurrent writes to sectors of one cluster: none may be lost to another's copy. */
static void test_snapshot_concurrent(void **state)
{
    enum { SECTORS = 512 };
    static uint8_t data[SECTORS][512], bytes[SECTORS][512];
    static struct test_request requests[SECTORS];
    memset(data, 0xee, sizeof(data));
    write_file(image, DISK_SIZE, data, sizeof(data), 0);
    for (int round = 0; round < 30; round++) {
        open_image(false, true);
        for (int n = 0; n < SECTORS; n++) {
            if (n % 8 == round % 8) /* one of each cluster keeps what it was */
                continue;
            memset(data[n], n + round, 512);
            prepare(&requests[n], BLOCK_WRITE, 512 * (uint64_t)n, data[n], 512);
            block_submit(block, &requests[n].block);
        }
        block_drain(block);
        assert_int_equal(run(BLOCK_READ, 0, bytes, sizeof(bytes), false), 0);
        for (int n = 0; n < SECTORS; n++)
            assert_bytes(bytes[n], n % 8 == round % 8 ? 0xee : (uint8_t)(n + round), 512);
        close_image();
    }
}

static void test_snapshot_without_folder(void **state)
{
    struct error err = {0};
    write_file(image, DISK_SIZE, "", 0, 0);
    setenv("TMPDIR", "/nonexistent/folder", 1);
    assert_null(open_disk(image, false, true, &err));
    unsetenv("TMPDIR");
    assert_non_null(strstr(err.message, "/nonexistent/folder"));
    assert_non_null(strstr(err.message, "TMPDIR"));
}

static void test_state_mismatch(void **state)
{
    write_file(image, DISK_SIZE, "", 0, 0);
    open_image(false, false);
    struct stream *saving = stream_create_saving();
    block_state(block, saving);
    close_image();
    write_file(image, DISK_SIZE * 2, "", 0, 0);
    open_image(false, false);
    size_t size;
    const void *data = stream_data(saving, &size);
    struct stream *loading = stream_create_loading(data, size);
    block_state(block, loading);
    struct error err;
    assert_false(stream_check(loading, &err));
    assert_non_null(strstr(err.message, "8388608"));
    stream_destroy(loading);
    stream_destroy(saving);
    close_image();
}

/* What is refused. */

static void assert_refused(const char *path, bool read_only, const char *first, const char *second)
{
    struct error err = {0};
    struct block *opened = open_disk(path, read_only, false, &err);
    if (opened)
        fail_msg("'%s' was opened", path);
    if (!strstr(err.message, path) || !strstr(err.message, first) || !strstr(err.message, second))
        fail_msg("'%s' lacks '%s' or '%s'", err.message, first, second);
    assert_null(strchr(err.message, '\n'));
}

static void test_refused_files(void **state)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/none", folder);
    assert_refused(path, false, "No such file", "truncate -s");
    assert_refused(folder, false, "directory", "--share");
    assert_refused(folder, true, "directory", "--share");
    assert_refused("/dev/null", false, "neither a regular file nor a block device", "");
    snprintf(path, sizeof(path), "%s/fifo", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_refused(path, true, "neither", ""); /* and does not wait for a writer */
    unlink(path);
    snprintf(path, sizeof(path), "%s/none/disk", folder);
    assert_refused(path, false, "No such file", "");

    write_file(image, 0, "", 0, 0);
    assert_refused(image, false, "empty", "truncate -s");
    assert_refused(image, true, "empty", "truncate -s");
}

static void test_permission(void **state)
{
    write_file(image, DISK_SIZE, "", 0, 0);
    assert_int_equal(chmod(image, 0444), 0);
    assert_int_equal(chmod(folder, 0755), 0);
    pid_t child = fork();
    if (!child) { /* root may write anything */
        struct block_config config = {image, false, false, BLOCK_ENGINE_THREADS};
        struct error err = {0};
        if (!geteuid() && setuid(65534))
            _exit(2);
        struct block *opened = block_open(loop, &config, on_ready, NULL, &err);
        _exit(!opened && strstr(err.message, "Permission denied") && strstr(err.message, ",ro")
                  ? 0
                  : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_odd_size(void **state)
{
    uint8_t bytes[1024];
    write_file(image, 700, "end", 3, 697);
    assert_refused(image, false, "700", "truncate -s 1024");
    for (int snapshot = 0; snapshot < 2; snapshot++) {
        open_image(!snapshot, snapshot);
        assert_int_equal(block_size(block), 1024);
        memset(bytes, 0xff, sizeof(bytes));
        assert_int_equal(run(BLOCK_READ, 0, bytes, 1024, false), 0);
        assert_memory_equal(bytes + 697, "end", 3);
        assert_bytes(bytes + 700, 0, 324);
        if (snapshot) {
            assert_int_equal(run(BLOCK_WRITE, 512, bytes, 512, false), 0);
            assert_int_equal(run(BLOCK_READ, 0, bytes, 1024, false), 0);
            assert_bytes(bytes, 0, 697);
        }
        close_image();
    }
}

static void test_formats(void **state)
{
    static const struct {
        const char *name, *convert;
        uint64_t offset;
        const char *magic;
        size_t size;
    } formats[] = {
        {"disk.qcow2", "-f qcow2", 0, "QFI\xfb\0\0\0\3", 8},
        {"disk", "-f qcow2", 0, "QFI\xfb\0\0\0\2", 8},
        {"a.qcow", "-f qcow ", 0, "QFI\xfb\0\0\0\1", 8},
        {"a.vmdk", "-f vmdk", 0, "KDMV", 4},
        {"a.vdi", "-f vdi", 64, "\x7f\x10\xda\xbe", 4},
        {"a.vhdx", "-f vhdx", 0, "vhdxfile", 8},
        {"a.vhd", "-f vpc", 0, "conectix", 8},
        {"fixed.vhd", "-f vpc", 65536 - 512, "conectix", 8},
        {"a.qed", "-f qed", 0, "QED\0", 4},
        {"a.hdd", "-f parallels", 0, "WithouFreSpacExt", 16},
        {"text.vmdk", "-f vmdk", 0, "# Disk DescriptorFile\n", 22},
    };
    for (size_t n = 0; n < ARRAY_SIZE(formats); n++) {
        char path[128], expected[160];
        snprintf(path, sizeof(path), "%s/%s", folder, formats[n].name);
        write_file(path, 65536, formats[n].magic, formats[n].size, formats[n].offset);
        snprintf(expected, sizeof(expected), "qemu-img convert -O raw %s", formats[n].convert);
        assert_refused(path, false, expected, ".raw'");
        assert_refused(path, true, expected, ".raw'");
        unlink(path);
    }
    write_file(image, 65536, "LUKS\xba\xbe\0\1", 8, 0); /* a guest's own encryption */
    open_image(false, false);
    close_image();
}

/* Locks. */

static void test_locks(void **state)
{
    static const struct {
        bool read_only, snapshot, second_read_only, second_snapshot, allowed;
    } cases[] = {
        {false, false, false, false, false}, {false, false, true, false, false},
        {false, false, false, true, false},  {true, false, false, false, false},
        {false, true, false, false, false},  {true, false, true, false, true},
        {true, false, false, true, true},    {false, true, false, true, true},
    };
    write_file(image, DISK_SIZE, "", 0, 0);
    for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
        struct error err = {0};
        open_image(cases[n].read_only, cases[n].snapshot);
        struct block *other =
            open_disk(image, cases[n].second_read_only, cases[n].second_snapshot, &err);
        assert_int_equal(other != NULL, cases[n].allowed);
        if (!other) {
            assert_non_null(strstr(err.message, image));
            assert_non_null(strstr(err.message, "in use"));
            assert_non_null(strstr(err.message, "another disk of this machine"));
        }
        block_close(other);
        close_image();
    }
    open_image(false, false); /* closed is unlocked */
    close_image();
}

static void test_lock_of_other_process(void **state)
{
    int ready[2], leave[2];
    char byte, pid[32];
    write_file(image, DISK_SIZE, "", 0, 0);
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(leave), 0);
    pid_t child = fork();
    if (!child) {
        struct block_config config = {image, false, false, BLOCK_ENGINE_THREADS};
        bool opened = block_open(loop, &config, on_ready, NULL, NULL);
        _exit(write(ready[1], opened ? "y" : "n", 1) != 1 || read(leave[0], &byte, 1) != 1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    snprintf(pid, sizeof(pid), "process %d ", child);
    assert_refused(image, false, pid, "stop it");
    assert_int_equal(write(leave[1], "x", 1), 1);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    open_image(false, false); /* a dead process holds no lock */
    close_image();
    for (int n = 0; n < 2; n++) {
        close(ready[n]);
        close(leave[n]);
    }
}

/* Where io_uring is forbidden, as containers do it, disks work all the same. */
static bool forbid_uring(void)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {ARRAY_SIZE(program), program};
    return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
           !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

static void test_without_uring(void **state)
{
    int status;
    write_file(image, DISK_SIZE, "data", 4, 512);
    pid_t child = fork();
    if (!child) {
        struct error err = {0};
        uint8_t bytes[512] = {0};
        if (!forbid_uring())
            _exit(77);
        engine = BLOCK_ENGINE_URING;
        if (open_disk(image, false, false, &err) || !strstr(err.message, "io_uring"))
            _exit(1);
        engine = BLOCK_ENGINE_AUTO;
        block = open_disk(image, false, false, &err);
        if (!block || strcmp(block_engine_name(block), "threads"))
            _exit(2);
        _exit(run(BLOCK_READ, 512, bytes, 512, false) || memcmp(bytes, "data", 4) ? 3 : 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        print_message("skipped: no seccomp here\n");
        skip();
    }
    assert_int_equal(status, 0);
}

/* A loop device over the image, which takes root. */
static void test_block_device(void **state)
{
    static uint8_t out[8192], in[8192];
    char path[32];
    write_file(image, DISK_SIZE, "", 0, 0);
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
    snprintf(path, sizeof(path), "/dev/loop%d", number);
    int device = number < 0 ? -1 : open(path, O_RDWR | O_CLOEXEC);
    int backing = open(image, O_RDWR | O_CLOEXEC);
    if (device < 0 || ioctl(device, LOOP_SET_FD, backing) < 0) {
        print_message("skipped: no loop device can be set up here\n");
        skip();
    }
    close(backing);
    struct error err = {0};
    block = open_disk(path, false, false, &err);
    if (!block)
        fail_msg("%s", err.message);
    assert_int_equal(block_size(block), DISK_SIZE);
    pattern(out, sizeof(out), 77);
    assert_int_equal(run(BLOCK_WRITE, 512, out, sizeof(out), false), 0);
    assert_int_equal(run(BLOCK_FLUSH, 0, NULL, 0, false), 0);
    assert_int_equal(run(BLOCK_READ, 512, in, sizeof(in), false), 0);
    assert_memory_equal(in, out, sizeof(in));
    assert_int_equal(run(BLOCK_WRITE_ZEROES, 1024, NULL, 1024, false), 0);
    assert_int_equal(run(BLOCK_WRITE_ZEROES, 4096, NULL, 512, true), 0);
    memset(out + 512, 0, 1024);
    memset(out + 3584, 0, 512);
    assert_int_equal(run(BLOCK_READ, 512, in, sizeof(in), false), 0);
    assert_memory_equal(in, out, sizeof(in));
    assert_int_equal(run(BLOCK_DISCARD, 0, NULL, 65536, false), 0);
    assert_true(block_quiesce(block, &err));
    close_image();
    ioctl(device, LOOP_CLR_FD, 0);
    close(device);
    close(control);
}

static int set_up(void **state)
{
    if (!mkdtemp(folder))
        return -1;
    snprintf(image, sizeof(image), "%s/image", folder);
    loop = loop_create();
    return 0;
}

static int use_uring(void **state)
{
    engine = BLOCK_ENGINE_URING;
    return set_up(state);
}

static int tear_down(void **state)
{
    loop_destroy(loop);
    unlink(image);
    int result = rmdir(folder);
    memcpy(folder + strlen(folder) - 6, "XXXXXX", 6);
    return result;
}

static int remove_image(void **state)
{
    close_image();
    unlink(image);
    return 0;
}

/* Whether the kernel lets us use io_uring; containers often forbid it. */
static bool uring_works(void)
{
    struct error err = {0};
    engine = BLOCK_ENGINE_URING;
    set_up(NULL);
    write_file(image, DISK_SIZE, "", 0, 0);
    struct block *opened = open_disk(image, false, false, &err);
    block_close(opened);
    tear_down(NULL);
    engine = BLOCK_ENGINE_THREADS;
    if (!opened)
        print_message("skipped: io_uring tests: %s\n", err.message);
    return opened;
}

#define T(name) cmocka_unit_test_teardown(name, remove_image)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        T(test_read_back),  T(test_scatter_gather),   T(test_many_parts),   T(test_many_requests),
        T(test_chained),    T(test_discard_and_zero), T(test_read_only),    T(test_shrunk),
        T(test_size_limit), T(test_full_disk),        T(test_block_device),
    };
    static const struct CMUnitTest common[] = {
        T(test_full_overlay),
        T(test_snapshot),
        T(test_snapshot_concurrent),
        T(test_snapshot_without_folder),
        T(test_state_mismatch),
        T(test_refused_files),
        T(test_permission),
        T(test_odd_size),
        T(test_formats),
        T(test_locks),
        T(test_lock_of_other_process),
        T(test_without_uring),
    };
    int failed = cmocka_run_group_tests_name("threads", tests, set_up, tear_down);
    failed += cmocka_run_group_tests_name("opening, snapshots", common, set_up, tear_down);
    if (uring_works())
        failed += cmocka_run_group_tests_name("io_uring", tests, use_uring, tear_down);
    return failed;
}
