/*
 * RISC-V semihosting (the Arm semihosting operations, version 2.0 of that specification, behind
 * RISC-V's ebreak sequence): operation in a0, address of its arguments in a1, result in a0.
 *
 * Console, clock and exit always work. Files are the host's, with the rights of this process, and
 * only there with --semihosting. So is SYS_ERRNO, which firmware probes with: OpenSBI and U-Boot
 * would prefer a debugger's console, which they take this for, to the UART.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "machine/internal.h"

#define FILES_MAX  32
#define PATH_LIMIT 4096
#define CHUNK_SIZE 4096
#define TEXT_MAX   (1 << 20) /* of one SYS_WRITE0 */

#define EXIT_APPLICATION 0x20026 /* ADP_Stopped_ApplicationExit */

enum file_kind {
    FILE_CLOSED,
    FILE_CONSOLE,
    FILE_FEATURES, /* ":semihosting-features" */
    FILE_HOST,
};

struct semihosting_file {
    enum file_kind kind;
    int fd;
    uint64_t position; /* in the features */
};

struct semihosting {
    struct machine *machine;
    bool files_allowed;
    pthread_mutex_t lock; /* any hart may call */
    struct semihosting_file files[FILES_MAX];
    int error;
    uint64_t started_ns;
};

/* One call: where its arguments come from. */
struct call {
    struct semihosting *s;
    struct hart *hart;
    uint64_t parameter; /* a1 */
};

static bool fetch(struct call *call, uint64_t *args, unsigned count)
{
    return hart_memory_read(call->hart, call->parameter, args, count * sizeof(*args), -1);
}

static int64_t fail(struct call *call, int number)
{
    call->s->error = number;
    return -1;
}

/* --- Files ---------------------------------------------------------------------------------------
 */

static const uint8_t features[] = {'S', 'H', 'F', 'B', 0x03}; /* EXIT_EXTENDED, stdout and stderr */

/* fopen modes r, rb, r+, r+b, w, ... a+b by their number in SYS_OPEN. */
static const int open_flags[] = {
    O_RDONLY,
    O_RDONLY,
    O_RDWR,
    O_RDWR,
    O_WRONLY | O_CREAT | O_TRUNC,
    O_WRONLY | O_CREAT | O_TRUNC,
    O_RDWR | O_CREAT | O_TRUNC,
    O_RDWR | O_CREAT | O_TRUNC,
    O_WRONLY | O_CREAT | O_APPEND,
    O_WRONLY | O_CREAT | O_APPEND,
    O_RDWR | O_CREAT | O_APPEND,
    O_RDWR | O_CREAT | O_APPEND,
};

static struct semihosting_file *find_file(struct call *call, uint64_t handle)
{
    if (handle < 1 || handle > FILES_MAX || call->s->files[handle - 1].kind == FILE_CLOSED) {
        call->s->error = EBADF;
        return NULL;
    }
    return &call->s->files[handle - 1];
}

/* Reads a name of `length` bytes at va; the caller frees it. */
static char *fetch_name(struct call *call, uint64_t va, uint64_t length)
{
    if (length >= PATH_LIMIT) {
        call->s->error = ENAMETOOLONG;
        return NULL;
    }
    char *name = xmalloc(length + 1);
    if (!hart_memory_read(call->hart, va, name, length, -1)) {
        call->s->error = EFAULT;
        free(name);
        return NULL;
    }
    name[length] = 0;
    return name;
}

static int64_t open_name(struct call *call, struct semihosting_file *file, const char *name,
                         unsigned mode)
{
    if (!strcmp(name, ":tt"))
        *file = (struct semihosting_file){.kind = FILE_CONSOLE};
    else if (!strcmp(name, ":semihosting-features"))
        *file = (struct semihosting_file){.kind = FILE_FEATURES};
    else if (!call->s->files_allowed)
        return fail(call, EACCES);
    else {
        int fd = open(name, open_flags[mode] | O_CLOEXEC | O_NOCTTY, 0666);
        if (fd < 0)
            return fail(call, errno);
        *file = (struct semihosting_file){.kind = FILE_HOST, .fd = fd};
    }
    return file - call->s->files + 1;
}

static int64_t sys_open(struct call *call)
{
    uint64_t args[3];
    if (!fetch(call, args, 3))
        return fail(call, EFAULT);
    if (args[1] >= ARRAY_SIZE(open_flags))
        return fail(call, EINVAL);
    unsigned slot = 0;
    while (slot < FILES_MAX && call->s->files[slot].kind != FILE_CLOSED)
        slot++;
    if (slot == FILES_MAX)
        return fail(call, EMFILE);
    char *name = fetch_name(call, args[0], args[2]);
    if (!name)
        return -1;
    int64_t handle = open_name(call, &call->s->files[slot], name, args[1]);
    free(name);
    return handle;
}

static void close_file(struct semihosting_file *file)
{
    if (file->kind == FILE_HOST)
        close(file->fd);
    file->kind = FILE_CLOSED;
}

static int64_t sys_close(struct call *call)
{
    uint64_t handle;
    if (!fetch(call, &handle, 1))
        return fail(call, EFAULT);
    struct semihosting_file *file = find_file(call, handle);
    if (!file)
        return -1;
    close_file(file);
    return 0;
}

static void console_write(struct call *call, const void *bytes, size_t size)
{
    if (call->s->machine->serial)
        chardev_force(call->s->machine->serial, bytes, size);
}

static ssize_t write_chunk(struct call *call, struct semihosting_file *file, const void *bytes,
                           size_t size)
{
    if (file->kind == FILE_HOST)
        return write(file->fd, bytes, size);
    if (file->kind != FILE_CONSOLE)
        return errno = EBADF, -1;
    console_write(call, bytes, size);
    return size;
}

static ssize_t read_chunk(struct call *call, struct semihosting_file *file, void *bytes,
                          size_t size)
{
    if (file->kind == FILE_HOST)
        return read(file->fd, bytes, size);
    if (file->kind == FILE_CONSOLE)
        return uart_take_input(call->s->machine->uart, bytes, size);
    size_t left = sizeof(features) - file->position;
    size = size < left ? size : left;
    memcpy(bytes, features + file->position, size);
    file->position += size;
    return size;
}

/* Moves data in chunks; both operations return the bytes that were *not* moved. */
static int64_t transfer(struct call *call, bool writing)
{
    uint64_t args[3];
    if (!fetch(call, args, 3))
        return fail(call, EFAULT);
    struct semihosting_file *file = find_file(call, args[0]);
    uint64_t va = args[1], left = args[2];
    if (!file)
        return args[2];
    while (left) {
        uint8_t chunk[CHUNK_SIZE];
        size_t size = left < sizeof(chunk) ? left : sizeof(chunk);
        if (writing && !hart_memory_read(call->hart, va, chunk, size, -1))
            return fail(call, EFAULT), left;
        ssize_t moved =
            writing ? write_chunk(call, file, chunk, size) : read_chunk(call, file, chunk, size);
        if (moved < 0)
            return fail(call, errno), left;
        if (!writing && !hart_memory_write(call->hart, va, chunk, moved, -1))
            return fail(call, EFAULT), left;
        va += moved;
        left -= moved;
        if ((size_t)moved < size)
            break;
    }
    return left;
}

static int64_t sys_write(struct call *call)
{
    return transfer(call, true);
}

static int64_t sys_read(struct call *call)
{
    return transfer(call, false);
}

static int64_t sys_istty(struct call *call)
{
    uint64_t handle;
    if (!fetch(call, &handle, 1))
        return fail(call, EFAULT);
    struct semihosting_file *file = find_file(call, handle);
    return file ? file->kind == FILE_CONSOLE : -1;
}

static int64_t sys_seek(struct call *call)
{
    uint64_t args[2];
    if (!fetch(call, args, 2))
        return fail(call, EFAULT);
    struct semihosting_file *file = find_file(call, args[0]);
    if (!file)
        return -1;
    if (file->kind == FILE_HOST)
        return lseek(file->fd, args[1], SEEK_SET) < 0 ? fail(call, errno) : 0;
    if (file->kind != FILE_FEATURES || args[1] > sizeof(features))
        return fail(call, ESPIPE);
    file->position = args[1];
    return 0;
}

static int64_t sys_flen(struct call *call)
{
    uint64_t handle;
    if (!fetch(call, &handle, 1))
        return fail(call, EFAULT);
    struct semihosting_file *file = find_file(call, handle);
    struct stat st;
    if (!file)
        return -1;
    if (file->kind != FILE_HOST)
        return file->kind == FILE_FEATURES ? (int64_t)sizeof(features) : 0;
    return fstat(file->fd, &st) < 0 ? fail(call, errno) : st.st_size;
}

static int64_t sys_remove(struct call *call)
{
    uint64_t args[2];
    if (!fetch(call, args, 2))
        return fail(call, EFAULT);
    char *name = fetch_name(call, args[0], args[1]);
    int64_t result = !name ? -1 : unlink(name) < 0 ? fail(call, errno) : 0;
    free(name);
    return result;
}

static int64_t sys_rename(struct call *call)
{
    uint64_t args[4];
    if (!fetch(call, args, 4))
        return fail(call, EFAULT);
    char *old = fetch_name(call, args[0], args[1]);
    char *new = fetch_name(call, args[2], args[3]);
    int64_t result = !old || !new ? -1 : rename(old, new) < 0 ? fail(call, errno) : 0;
    free(old);
    free(new);
    return result;
}

/* --- Console, time, exit -------------------------------------------------------------------------
 */

static int64_t sys_writec(struct call *call)
{
    char c;
    if (hart_memory_read(call->hart, call->parameter, &c, 1, -1))
        console_write(call, &c, 1);
    return 0;
}

static int64_t sys_write0(struct call *call)
{
    char c;
    uint64_t va = call->parameter, end = va + TEXT_MAX;
    for (; va != end && hart_memory_read(call->hart, va, &c, 1, -1) && c; va++)
        console_write(call, &c, 1);
    return 0;
}

static int64_t sys_readc(struct call *call)
{
    uint8_t c;
    return uart_take_input(call->s->machine->uart, &c, 1) == 1 ? c : -1;
}

static int64_t sys_iserror(struct call *call)
{
    uint64_t status;
    return fetch(call, &status, 1) && (int64_t)status < 0;
}

static int64_t sys_clock(struct call *call)
{
    return (loop_now() - call->s->started_ns) / 10000000; /* centiseconds */
}

static int64_t sys_time(struct call *call)
{
    return time(NULL);
}

static int64_t sys_errno(struct call *call)
{
    return call->s->error;
}

static int64_t sys_elapsed(struct call *call)
{
    uint64_t ticks = clock_ticks(&call->s->machine->clock);
    return hart_memory_write(call->hart, call->parameter, &ticks, sizeof(ticks), -1) ? 0 : -1;
}

static int64_t sys_tickfreq(struct call *call)
{
    return CLOCK_HZ;
}

/* On RV64 the parameter of both exits is a block of reason and exit code. */
static int64_t sys_exit(struct call *call)
{
    uint64_t args[2];
    int status = 1;
    if (fetch(call, args, 2) && args[0] == EXIT_APPLICATION)
        status = args[1] & 0xff;
    machine_request(call->s->machine, REQUEST_END | REQUEST_BY_GUEST, status);
    return 0;
}

static const struct {
    uint64_t number;
    int64_t (*handle)(struct call *call);
    bool on_demand; /* with --semihosting only */
} operations[] = {
    {0x01, sys_open, false},    {0x02, sys_close, false},    {0x03, sys_writec, false},
    {0x04, sys_write0, false},  {0x05, sys_write, false},    {0x06, sys_read, false},
    {0x07, sys_readc, false},   {0x08, sys_iserror, false},  {0x09, sys_istty, false},
    {0x0a, sys_seek, false},    {0x0c, sys_flen, false},     {0x0e, sys_remove, true},
    {0x0f, sys_rename, true},   {0x10, sys_clock, false},    {0x11, sys_time, false},
    {0x13, sys_errno, true},    {0x18, sys_exit, false},     {0x20, sys_exit, false},
    {0x30, sys_elapsed, false}, {0x31, sys_tickfreq, false},
};

bool semihosting_handle(void *opaque, struct hart *hart)
{
    struct semihosting *s = opaque;
    struct call call = {.s = s, .hart = hart, .parameter = hart->x[11]};
    for (size_t i = 0; i < ARRAY_SIZE(operations); i++)
        if (operations[i].number == hart->x[10]) {
            if (operations[i].on_demand && !s->files_allowed)
                return false;
            pthread_mutex_lock(&s->lock);
            hart->x[10] = operations[i].handle(&call);
            pthread_mutex_unlock(&s->lock);
            return true;
        }
    trace_guest_error("semihosting", "operation %#llx is not supported",
                      (unsigned long long)hart->x[10]);
    hart->x[10] = -1;
    return true;
}

struct semihosting *semihosting_create(struct machine *machine, bool files)
{
    struct semihosting *s = xcalloc(1, sizeof(*s));
    s->machine = machine;
    s->files_allowed = files;
    s->started_ns = loop_now();
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

void semihosting_reset(struct semihosting *s)
{
    for (unsigned i = 0; i < FILES_MAX; i++)
        close_file(&s->files[i]);
}

void semihosting_destroy(struct semihosting *s)
{
    if (!s)
        return;
    semihosting_reset(s);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
