/*
 * io_uring for reads, writes and flushes.
 *
 * The ring is used on whichever thread holds the owner's lock, so it must not be set up with flags
 * that bind it to one task (SINGLE_ISSUER), nor that let completions wait until the submitter
 * enters the kernel by itself (COOP_TASKRUN, DEFER_TASKRUN): a hart may wait for them while the
 * loop's thread, which submitted, waits for the lock.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "virtio/block_internal.h"

#ifdef HAVE_LIBURING
#    include <liburing.h>

#    define RING_ENTRIES 256

struct block_uring {
    struct block *block;
    struct io_uring ring;
    int fd;
    unsigned in_ring; /* at most RING_ENTRIES, so that completions never overflow */
};

static bool supports_operations(struct io_uring *ring)
{
    static const int needed[] = {IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC};
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    bool supported = probe;
    for (size_t n = 0; supported && n < ARRAY_SIZE(needed); n++)
        supported = io_uring_opcode_supported(probe, needed[n]);
    free(probe);
    /* Without SUBMIT_STABLE (Linux 5.5) the kernel reads the iovecs after submission. */
    return supported && (ring->features & IORING_FEAT_NODROP) &&
           (ring->features & IORING_FEAT_SUBMIT_STABLE);
}

struct block_uring *block_uring_create(struct block *block, int fd, int event_fd, struct error *err)
{
    struct block_uring *uring = xcalloc(1, sizeof(*uring));
    uring->block = block;
    uring->fd = fd;
    int result = io_uring_queue_init(RING_ENTRIES, &uring->ring, 0);
    if (result < 0) {
        free(uring);
        error_set_errno(err, -result, "io_uring cannot be used here");
        return NULL;
    }
    result = supports_operations(&uring->ring) ? io_uring_register_eventfd(&uring->ring, event_fd)
                                               : -ENOSYS;
    if (result < 0) {
        block_uring_destroy(uring);
        error_set_errno(err, -result, "io_uring of this kernel is too old");
        return NULL;
    }
    return uring;
}

void block_uring_destroy(struct block_uring *uring)
{
    if (!uring)
        return;
    io_uring_queue_exit(&uring->ring);
    free(uring);
}

bool block_uring_submit(struct block_uring *uring, struct block_request *request)
{
    bool offered = request->operation <= BLOCK_FLUSH && request->iov_count <= IOV_MAX;
    if (!offered || uring->in_ring == RING_ENTRIES)
        return false;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    if (!sqe)
        return false;
    switch (request->operation) {
    case BLOCK_READ:
        io_uring_prep_readv(sqe, uring->fd, request->iov, request->iov_count, request->offset);
        break;
    case BLOCK_WRITE:
        io_uring_prep_writev(sqe, uring->fd, request->iov, request->iov_count, request->offset);
        break;
    default:
        io_uring_prep_fsync(sqe, uring->fd, IORING_FSYNC_DATASYNC);
    }
    io_uring_sqe_set_data(sqe, request);
    uring->in_ring++;
    return true;
}

void block_uring_kick(struct block_uring *uring)
{
    /* EAGAIN, EBUSY: the entries stay in the ring, and the next kick or drain submits them; reaping
     * first makes room. With nothing in the kernel no event would come: so try again. */
    while (io_uring_sq_ready(&uring->ring)) {
        int result = io_uring_submit(&uring->ring);
        if (result <= 0 && uring->in_ring > io_uring_sq_ready(&uring->ring))
            break;
    }
}

/* True if the request is done; *error is set. Otherwise the rest is left to the workers. */
static bool is_done(struct block_request *request, int result, int *error)
{
    *error = result < 0 ? -result : 0;
    if (result == -EAGAIN || result == -EINTR)
        return false;
    if (result < 0 || request->operation == BLOCK_FLUSH)
        return true;
    request->progress = (uint64_t)result;
    return request->progress >= request->length;
}

void block_uring_reap(struct block_uring *uring)
{
    struct io_uring_cqe *cqe;
    while (!io_uring_peek_cqe(&uring->ring, &cqe)) {
        struct block_request *request = io_uring_cqe_get_data(cqe);
        int result = cqe->res, error;
        io_uring_cqe_seen(&uring->ring, cqe);
        uring->in_ring--;
        if (is_done(request, result, &error))
            block_finish(uring->block, request, error);
        else
            block_continue(uring->block, request);
    }
    block_uring_kick(uring); /* what an earlier kick had to leave */
}

#else

struct block_uring *block_uring_create(struct block *block, int fd, int event_fd, struct error *err)
{
    error_set(err, "io_uring was not built in (liburing was missing)");
    return NULL;
}

void block_uring_destroy(struct block_uring *uring)
{
}

bool block_uring_submit(struct block_uring *uring, struct block_request *request)
{
    return false;
}

void block_uring_kick(struct block_uring *uring)
{
}

void block_uring_reap(struct block_uring *uring)
{
}

#endif
