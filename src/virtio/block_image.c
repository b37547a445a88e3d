/* Image files and host block devices: opening, locking, and blocking I/O. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "virtio/block_internal.h"
#include "virtio/iovec.h"

#define ZERO_CHUNK    65536
#define WINDOW_IOVECS 64

static const uint8_t zeros[ZERO_CHUNK];

/* Opening. */

static bool open_failed(const struct block_config *config, bool writable, int error,
                        struct error *err)
{
    const char *path = config->path;
    if (error == ENOENT)
        return error_set_errno(err, error, "disk '%s' (create it with: truncate -s 8G '%s')", path,
                               path);
    if (writable && (error == EACCES || error == EPERM || error == EROFS))
        return error_set_errno(err, error,
                               "disk '%s' cannot be opened for writing (change its permissions, or "
                               "add ',ro' or ',snapshot')",
                               path);
    if (writable && error == EBUSY)
        return error_set_errno(err, error,
                               "disk '%s' is used by this host (unmount it, or add ',ro' or "
                               "',snapshot')",
                               path);
    return error_set_errno(err, error, "disk '%s' cannot be opened", path);
}

/* Before opening: opening a FIFO or a terminal would have effects of its own. */
static bool check_kind(const char *path, mode_t mode, struct error *err)
{
    if (S_ISREG(mode) || S_ISBLK(mode))
        return true;
    if (S_ISDIR(mode))
        return error_set(err,
                         "disk '%s' is a directory, not an image file or block device (to give a "
                         "directory to the guest, use --share)",
                         path);
    return error_set(err, "disk '%s' is neither a regular file nor a block device", path);
}

static bool open_file(struct block_image *image, const struct block_config *config,
                      struct error *err)
{
    struct stat status;
    image->writable = !config->read_only && !config->snapshot;
    if (stat(config->path, &status) < 0)
        return open_failed(config, image->writable, errno, err);
    if (!check_kind(config->path, status.st_mode, err))
        return false;
    /* O_EXCL on a block device: fails while the host has it mounted. */
    int flags = O_CLOEXEC | (image->writable ? O_RDWR : O_RDONLY);
    if (image->writable && S_ISBLK(status.st_mode))
        flags |= O_EXCL;
    image->fd = open(config->path, flags);
    if (image->fd < 0)
        return open_failed(config, image->writable, errno, err);
    if (fstat(image->fd, &status) < 0)
        return open_failed(config, image->writable, errno, err);
    if (!check_kind(config->path, status.st_mode, err))
        return false;
    image->is_device = S_ISBLK(status.st_mode);
    image->data_size = (uint64_t)status.st_size;
    image->physical_size = 4096;
    return true;
}

static bool measure_device(struct block_image *image, struct error *err)
{
    unsigned physical = 0;
    if (ioctl(image->fd, BLKGETSIZE64, &image->data_size) < 0)
        return error_set_errno(err, errno, "disk '%s': its size cannot be read", image->path);
    if (!ioctl(image->fd, BLKPBSZGET, &physical) && is_power_of_two(physical) &&
        physical >= BLOCK_SECTOR_SIZE && physical <= 65536)
        image->physical_size = physical;
    return true;
}

static bool measure(struct block_image *image, struct error *err)
{
    if (image->is_device && !measure_device(image, err))
        return false;
    if (!image->data_size)
        return error_set(err, "disk '%s' is empty (give it a size with: truncate -s 8G '%s')",
                         image->path, image->path);
    image->size = align_up(image->data_size, BLOCK_SECTOR_SIZE);
    if (image->size != image->data_size && image->writable)
        return error_set(err,
                         "disk '%s' has %llu bytes, which is not a multiple of 512 (add ',ro' or "
                         "',snapshot', or round it up with: truncate -s %llu '%s')",
                         image->path, (unsigned long long)image->data_size,
                         (unsigned long long)image->size, image->path);
    return true;
}

/* Open file description locks end with the descriptor, also when the process is killed. */
static bool lock_image(const struct block_image *image, struct error *err)
{
    struct flock lock = {.l_type = image->writable ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};
    if (!fcntl(image->fd, F_OFD_SETLK, &lock))
        return true;
    if (errno != EAGAIN && errno != EACCES) {
        log_warning("disk '%s' cannot be locked: %s; make sure that no other machine uses it",
                    image->path, strerror(errno));
        return true;
    }
    char holder[128];
    block_image_find_user(image, holder, sizeof(holder));
    return error_set(err,
                     "disk '%s' is in use by %s (stop it, or copy the disk; machines can share a "
                     "disk only if each of them has ',ro' or ',snapshot')",
                     image->path, holder);
}

bool block_image_open(struct block_image *image, const struct block_config *config,
                      struct error *err)
{
    image->path = xstrdup(config->path);
    return open_file(image, config, err) && measure(image, err) &&
           block_image_check_format(image, err) && lock_image(image, err);
}

void block_image_close(struct block_image *image)
{
    if (image->fd >= 0)
        close(image->fd);
    free(image->path);
}

/* Blocking I/O. */

static uint64_t fill_zero(const struct iovec *window, unsigned count)
{
    uint64_t size = 0;
    for (unsigned n = 0; n < count; n++) {
        memset(window[n].iov_base, 0, window[n].iov_len);
        size += window[n].iov_len;
    }
    return size;
}

int block_transfer(int fd, bool write, struct block_span span, uint64_t data_size)
{
    for (uint64_t done = 0; done < span.length;) {
        struct iovec window[WINDOW_IOVECS];
        unsigned count = iovec_slice(window, WINDOW_IOVECS, span.iov, span.iov_count,
                                     span.skip + done, span.length - done);
        assert(count);
        uint64_t offset = span.offset + done;
        ssize_t result = write ? pwritev(fd, window, (int)count, (off_t)offset)
                               : preadv(fd, window, (int)count, (off_t)offset);
        if (result > 0)
            done += (uint64_t)result;
        else if (result < 0 && errno != EINTR)
            return errno;
        else if (result == 0 && (write || offset < data_size))
            return EIO;
        else if (result == 0)
            done += fill_zero(window, count);
    }
    return 0;
}

static int write_zeros(int fd, uint64_t offset, uint64_t length)
{
    while (length) {
        uint64_t size = length < ZERO_CHUNK ? length : ZERO_CHUNK;
        ssize_t result = pwrite(fd, zeros, size, (off_t)offset);
        if (result < 0 && errno == EINTR)
            continue;
        if (result <= 0)
            return result ? errno : EIO;
        offset += (uint64_t)result;
        length -= (uint64_t)result;
    }
    return 0;
}

/* What a file system or driver says when it has no such operation. */
static bool unsupported(int error)
{
    return error == EOPNOTSUPP || error == ENOSYS || error == ENOTTY || error == EINVAL;
}

static int device_ioctl(int fd, unsigned long command, uint64_t offset, uint64_t length)
{
    uint64_t range[2] = {offset, length};
    return ioctl(fd, command, range) < 0 ? errno : 0;
}

static int allocate(int fd, int mode, uint64_t offset, uint64_t length)
{
    int result;
    do
        result = fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length);
    while (result < 0 && errno == EINTR);
    return result < 0 ? errno : 0;
}

int block_zero(int fd, bool is_device, uint64_t offset, uint64_t length, bool unmap)
{
    int error = EOPNOTSUPP;
    if (unmap) /* on devices too: deallocates, and guarantees zeros */
        error = allocate(fd, FALLOC_FL_PUNCH_HOLE, offset, length);
    if (error && unsupported(error))
        error = is_device ? device_ioctl(fd, BLKZEROOUT, offset, length)
                          : allocate(fd, FALLOC_FL_ZERO_RANGE, offset, length);
    if (error && unsupported(error))
        error = write_zeros(fd, offset, length);
    return error;
}

static int discard(const struct block_image *image, uint64_t offset, uint64_t length)
{
    int error = image->is_device ? device_ioctl(image->fd, BLKDISCARD, offset, length)
                                 : allocate(image->fd, FALLOC_FL_PUNCH_HOLE, offset, length);
    return unsupported(error) ? 0 : error;
}

int block_image_execute(const struct block_image *image, struct block_request *request)
{
    uint64_t offset = request->offset, length = request->length;
    bool write = request->operation == BLOCK_WRITE;
    switch (request->operation) {
    case BLOCK_READ:
    case BLOCK_WRITE:
        return block_transfer(image->fd, write,
                              (struct block_span){
                                  .iov = request->iov,
                                  .iov_count = request->iov_count,
                                  .skip = request->progress,
                                  .offset = offset + request->progress,
                                  .length = length - request->progress,
                              },
                              image->data_size);
    case BLOCK_FLUSH:
        return image->writable && fdatasync(image->fd) ? errno : 0;
    case BLOCK_DISCARD:
        return length ? discard(image, offset, length) : 0;
    case BLOCK_WRITE_ZEROES:
        return length ? block_zero(image->fd, image->is_device, offset, length, request->unmap) : 0;
    default:
        return EINVAL;
    }
}
