/* The contents of a flash bank: private memory, loaded from a file and written through to it. */
#include "device/flash_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"

#define TEMPLATE_SIZE (UINT64_C(2) << 20)

/*
 * An erased bank is 0xff throughout. Mapping the same few pages of 0xff again and again, copied
 * when written, keeps the two banks of a board that uses neither from costing 64 MiB of the host.
 */
static bool bank_map(struct flash_contents *contents, struct error *err)
{
    size_t size = contents->size, piece = size < TEMPLATE_SIZE ? size : TEMPLATE_SIZE;
    uint8_t *blank = xmalloc(piece);
    int fd = memfd_create("flash-erased", MFD_CLOEXEC);

    memset(blank, 0xff, piece);
    contents->bytes = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool done =
        contents->bytes != MAP_FAILED && fd >= 0 && write(fd, blank, piece) == (ssize_t)piece;
    for (size_t at = 0; done && at < size; at += piece)
        done = mmap(contents->bytes + at, piece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED,
                    fd, 0) != MAP_FAILED;
    if (!done)
        error_set_errno(err, errno, "cannot map %zu KiB of flash", size >> 10);
    if (!done && contents->bytes != MAP_FAILED)
        munmap(contents->bytes, size);
    if (fd >= 0)
        close(fd);
    free(blank);
    return done;
}

static bool file_lock(const struct flash_contents *contents, struct error *err)
{
    struct flock lock = {.l_type = contents->read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};

    if (!fcntl(contents->fd, F_OFD_SETLK, &lock))
        return true;
    if (errno == EAGAIN || errno == EACCES)
        return error_set(err,
                         "flash image '%s' is in use by another machine; stop that one, or give "
                         "this one a copy",
                         contents->path);
    return error_set_errno(err, errno, "flash image '%s' cannot be locked", contents->path);
}

static bool file_read(struct flash_contents *contents, struct error *err)
{
    for (size_t at = 0; at < contents->kept;) {
        ssize_t count = pread(contents->fd, contents->bytes + at, contents->kept - at, (off_t)at);
        if (count < 0 && errno != EINTR)
            return error_set_errno(err, errno, "flash image '%s' cannot be read", contents->path);
        if (count == 0)
            return error_set(err, "flash image '%s' shrank while it was read", contents->path);
        if (count > 0)
            at += (size_t)count;
    }
    return true;
}

static bool file_open(struct flash_contents *contents, struct error *err)
{
    struct stat status;

    contents->fd =
        open(contents->path, (contents->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK);
    if (contents->fd < 0 && !contents->read_only && (errno == EACCES || errno == EROFS))
        return error_set_errno(err, errno,
                               "flash image '%s' cannot be written; append ',ro' to "
                               "use it read-only",
                               contents->path);
    if (contents->fd < 0)
        return error_set_errno(err, errno, "flash image '%s' cannot be opened", contents->path);
    if (fstat(contents->fd, &status) || !S_ISREG(status.st_mode))
        return error_set(err, "flash image '%s' is no regular file", contents->path);
    if (status.st_size == 0)
        return error_set(err,
                         "flash image '%s' is empty; it is as large as what it is to keep, "
                         "up to %zu bytes",
                         contents->path, contents->size);
    if ((uint64_t)status.st_size > contents->size)
        return error_set(err, "flash image '%s' has %lld bytes, the flash bank only %zu",
                         contents->path, (long long)status.st_size, contents->size);
    contents->kept = (size_t)status.st_size;
    return file_lock(contents, err) && file_read(contents, err);
}

bool flash_contents_init(struct flash_contents *contents, size_t size, const char *path,
                         bool read_only, struct error *err)
{
    *contents =
        (struct flash_contents){.size = size, .kept = size, .fd = -1, .read_only = read_only};
    if (!bank_map(contents, err))
        return false;
    if (!path)
        return true;
    contents->path = xstrdup(path);
    if (file_open(contents, err))
        return true;
    flash_contents_finish(contents);
    return false;
}

void flash_contents_finish(struct flash_contents *contents)
{
    flash_contents_sync(contents);
    if (contents->fd >= 0)
        close(contents->fd);
    munmap(contents->bytes, contents->size);
    free(contents->path);
}

static void report(struct flash_contents *contents)
{
    if (!contents->failed)
        log_error("flash image '%s' cannot be written: %s; the guest sees errors from now on",
                  contents->path, strerror(errno));
    contents->failed = true;
}

bool flash_contents_write(struct flash_contents *contents, size_t offset, const uint8_t *bytes,
                          size_t size)
{
    size_t done = 0;

    while (contents->fd >= 0 && done < size) {
        ssize_t count = pwrite(contents->fd, bytes + done, size - done, (off_t)(offset + done));
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0) {
            report(contents);
            return false;
        }
        done += (size_t)count;
    }
    contents->dirty = contents->fd >= 0;
    memcpy(contents->bytes + offset, bytes, size);
    return true;
}

void flash_contents_sync(struct flash_contents *contents)
{
    if (contents->dirty && fdatasync(contents->fd))
        report(contents);
    contents->dirty = false;
}
