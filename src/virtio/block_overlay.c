/*
 * A snapshot's overlay: an unlinked sparse file of the disk's size in $TMPDIR. A cluster that was
 * ever written lives in it; all others are read from the image, which is never written.
 *
 * Clusters are 4 KiB, a guest page, so that few writes need the rest of their cluster copied up.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "virtio/block_internal.h"

#define CLUSTER_SIZE UINT64_C(4096)
#define RUN_LIMIT    256 /* clusters of one run in a saved state */

struct block_overlay {
    const struct block_image *image;
    char *folder;
    int fd;
    uint64_t clusters;
    /* One writer at a time: two that write parts of one cluster would copy it up twice. Readers
     * need no lock: a bit is set after its cluster is complete, and never cleared. */
    pthread_mutex_t write_lock;
    _Atomic uint64_t *present; /* a bit a cluster */
};

static bool is_present(const struct block_overlay *overlay, uint64_t cluster)
{
    return atomic_load_explicit(&overlay->present[cluster / 64], memory_order_acquire) &
           BIT(cluster % 64);
}

/* Clusters [first, end). */
static void set_present(struct block_overlay *overlay, uint64_t first, uint64_t end)
{
    for (uint64_t cluster = first; cluster < end; cluster++)
        atomic_fetch_or_explicit(&overlay->present[cluster / 64], BIT(cluster % 64),
                                 memory_order_release);
}

static int open_unlinked(const char *folder)
{
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
        return fd;
    char *name = xasprintf("%s/hartvisor-snapshot-XXXXXX", folder);
    fd = mkostemp(name, O_CLOEXEC);
    if (fd >= 0)
        unlink(name);
    free(name);
    return fd;
}

struct block_overlay *block_overlay_create(const struct block_image *image, struct error *err)
{
    const char *folder = getenv("TMPDIR");
    struct block_overlay *overlay = xcalloc(1, sizeof(*overlay));
    overlay->image = image;
    overlay->folder = xstrdup(folder && *folder ? folder : "/tmp");
    overlay->clusters = (image->size + CLUSTER_SIZE - 1) / CLUSTER_SIZE;
    overlay->present = xcalloc(overlay->clusters / 64 + 1, sizeof(*overlay->present));
    pthread_mutex_init(&overlay->write_lock, NULL);
    overlay->fd = open_unlinked(overlay->folder);
    if (overlay->fd >= 0 && !ftruncate(overlay->fd, (off_t)(overlay->clusters * CLUSTER_SIZE)))
        return overlay;
    error_set_errno(err, errno,
                    "disk '%s': no temporary file for the snapshot in '%s' (set TMPDIR to a folder "
                    "that can be written)",
                    image->path, overlay->folder);
    block_overlay_destroy(overlay);
    return NULL;
}

void block_overlay_destroy(struct block_overlay *overlay)
{
    if (!overlay)
        return;
    if (overlay->fd >= 0)
        close(overlay->fd);
    pthread_mutex_destroy(&overlay->write_lock);
    free(overlay->present);
    free(overlay->folder);
    free(overlay);
}

const char *block_overlay_folder(const struct block_overlay *overlay)
{
    return overlay->folder;
}

/* The bytes from `offset` on, at most `limit`, that all come from one file. */
static uint64_t run_length(const struct block_overlay *overlay, uint64_t offset, uint64_t limit,
                           bool *present)
{
    uint64_t cluster = offset / CLUSTER_SIZE;
    *present = is_present(overlay, cluster);
    uint64_t length = CLUSTER_SIZE - offset % CLUSTER_SIZE;
    while (length < limit && is_present(overlay, ++cluster) == *present)
        length += CLUSTER_SIZE;
    return length < limit ? length : limit;
}

static int read_runs(struct block_overlay *overlay, const struct block_request *request)
{
    for (uint64_t done = 0; done < request->length;) {
        bool present;
        struct block_span span = {
            .iov = request->iov,
            .iov_count = request->iov_count,
            .skip = done,
            .offset = request->offset + done,
        };
        span.length = run_length(overlay, span.offset, request->length - done, &present);
        int error =
            present ? block_transfer(overlay->fd, false, span, 0)
                    : block_transfer(overlay->image->fd, false, span, overlay->image->data_size);
        if (error)
            return error;
        done += span.length;
    }
    return 0;
}

/* Brings the cluster that holds `offset` into the overlay if it is not there. */
static int copy_up(struct block_overlay *overlay, uint64_t offset)
{
    uint64_t cluster = offset / CLUSTER_SIZE;
    if (is_present(overlay, cluster))
        return 0;
    uint8_t bytes[CLUSTER_SIZE];
    struct iovec iov = {bytes, sizeof(bytes)};
    struct block_span span = {&iov, 1, 0, cluster * CLUSTER_SIZE, CLUSTER_SIZE};
    int error = block_transfer(overlay->image->fd, false, span, overlay->image->data_size);
    if (!error)
        error = block_transfer(overlay->fd, true, span, 0);
    if (!error)
        set_present(overlay, cluster, cluster + 1);
    return error;
}

static int change(struct block_overlay *overlay, const struct block_request *request)
{
    uint64_t start = request->offset, end = start + request->length;
    int error = 0;
    if (start % CLUSTER_SIZE)
        error = copy_up(overlay, start);
    if (!error && end % CLUSTER_SIZE)
        error = copy_up(overlay, end);
    if (!error && request->operation == BLOCK_WRITE)
        error = block_transfer(
            overlay->fd, true,
            (struct block_span){request->iov, request->iov_count, 0, start, request->length}, 0);
    else if (!error)
        error = block_zero(overlay->fd, false, start, request->length, true);
    if (!error)
        set_present(overlay, start / CLUSTER_SIZE, (end + CLUSTER_SIZE - 1) / CLUSTER_SIZE);
    return error;
}

int block_overlay_execute(struct block_overlay *overlay, struct block_request *request)
{
    if (request->operation == BLOCK_FLUSH || !request->length)
        return 0; /* nothing of a snapshot needs to outlive a crash */
    if (request->operation == BLOCK_READ)
        return read_runs(overlay, request);
    pthread_mutex_lock(&overlay->write_lock);
    int error = change(overlay, request);
    pthread_mutex_unlock(&overlay->write_lock);
    return error;
}

/* State: runs of present clusters (first, count, bytes), ended by a count of 0. */

static void run_state(struct block_overlay *overlay, struct stream *stream, uint64_t first,
                      uint64_t count, uint8_t *bytes)
{
    struct iovec iov = {bytes, count * CLUSTER_SIZE};
    struct block_span span = {&iov, 1, 0, first * CLUSTER_SIZE, iov.iov_len};
    bool loading = stream_loading(stream);
    int error = loading ? 0 : block_transfer(overlay->fd, false, span, 0);
    stream_bytes(stream, bytes, iov.iov_len);
    if (loading && !stream_failed(stream))
        error = block_transfer(overlay->fd, true, span, 0);
    if (error)
        stream_fail(stream, "disk '%s': the snapshot's temporary file in '%s': %s",
                    overlay->image->path, overlay->folder, strerror(error));
    else if (loading && !stream_failed(stream))
        set_present(overlay, first, first + count);
}

static void save_runs(struct block_overlay *overlay, struct stream *stream, uint8_t *bytes)
{
    uint64_t cluster = 0, count;
    do {
        while (cluster < overlay->clusters && !is_present(overlay, cluster))
            cluster++;
        uint64_t first = cluster;
        while (cluster < overlay->clusters && cluster - first < RUN_LIMIT &&
               is_present(overlay, cluster))
            cluster++;
        count = cluster - first;
        stream_u64(stream, &first);
        stream_u64(stream, &count);
        if (count)
            run_state(overlay, stream, first, count, bytes);
    } while (count && !stream_failed(stream));
}

static void load_runs(struct block_overlay *overlay, struct stream *stream, uint8_t *bytes)
{
    /* The saved machine's clusters replace whatever was written since. */
    memset((void *)overlay->present, 0, (overlay->clusters / 64 + 1) * sizeof(uint64_t));
    for (;;) {
        uint64_t first, count;
        stream_u64(stream, &first);
        stream_u64(stream, &count);
        if (stream_failed(stream) || !count)
            return;
        if (count > RUN_LIMIT || !range_fits(first, count, overlay->clusters)) {
            stream_fail(stream, "disk '%s': clusters beyond its end in the saved snapshot",
                        overlay->image->path);
            return;
        }
        run_state(overlay, stream, first, count, bytes);
    }
}

void block_overlay_state(struct block_overlay *overlay, struct stream *stream)
{
    uint8_t *bytes = xmalloc(RUN_LIMIT * CLUSTER_SIZE);
    if (stream_loading(stream))
        load_runs(overlay, stream, bytes);
    else
        save_runs(overlay, stream, bytes);
    free(bytes);
}
