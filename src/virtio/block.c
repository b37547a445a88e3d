/* The disk: requests in, completions out; the engines and the image do the work. */
#include "virtio/block.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "virtio/block_internal.h"

/* A failing operation is told again only after it worked, and not more often than this. */
#define COMPLAINT_INTERVAL_NS UINT64_C(10000000000)

struct complaint {
    int error; /* 0: nothing to tell since */
    bool recovered;
    uint64_t when;
};

struct block {
    struct block_image image;
    bool read_only;
    struct block_overlay *overlay; /* NULL unless snapshot */
    struct block_uring *uring;     /* NULL: everything runs in the workers */
    struct block_workers workers;
    struct loop_fd *source;
    loop_callback *ready;
    void *opaque;
    int event_fd; /* counts completions of both engines */
    unsigned in_flight;
    struct complaint complaints[BLOCK_OPERATIONS];

    pthread_mutex_t lock; /* guards the list of what workers have done */
    struct block_request *done_head;
    struct block_request **done_tail;
};

static const char *const operation_names[BLOCK_OPERATIONS] = {
    [BLOCK_READ] = "read",
    [BLOCK_WRITE] = "write",
    [BLOCK_FLUSH] = "flush",
    [BLOCK_DISCARD] = "discard",
    [BLOCK_WRITE_ZEROES] = "write zeroes",
};

/* A full disk fails some writes and not others: without the interval it would flood the user. */
static void complain(struct block *block, enum block_operation operation, int error)
{
    struct complaint *complaint = &block->complaints[operation];
    if (!error) {
        complaint->recovered = true;
        return;
    }
    uint64_t now = loop_now();
    bool again = complaint->recovered && now - complaint->when > COMPLAINT_INTERVAL_NS;
    if (complaint->error == error && !again)
        return;
    *complaint = (struct complaint){.error = error, .when = now};
    if (block->overlay && operation != BLOCK_READ)
        log_error("disk '%s': %s failed in the snapshot's temporary file: %s; the guest gets an "
                  "I/O error (make room in '%s', or set TMPDIR to another folder)",
                  block->image.path, operation_names[operation], strerror(error),
                  block_overlay_folder(block->overlay));
    else
        log_error("disk '%s': %s failed: %s; the guest gets an I/O error%s", block->image.path,
                  operation_names[operation], strerror(error),
                  error == ENOSPC ? " (make room on the host's file system)" : "");
}

void block_finish(struct block *block, struct block_request *request, int error)
{
    block->in_flight--;
    if (!block->read_only || error != EROFS) /* that is the owner's affair */
        complain(block, request->operation, error);
    request->done(request, error);
}

/* One at a time, since `done` may drain. */
static struct block_request *take_completed(struct block *block)
{
    pthread_mutex_lock(&block->lock);
    struct block_request *request = block->done_head;
    if (request && !(block->done_head = request->next))
        block->done_tail = &block->done_head;
    pthread_mutex_unlock(&block->lock);
    return request;
}

void block_reap(struct block *block)
{
    uint64_t count;
    if (read(block->event_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        log_error("disk '%s': eventfd: %s", block->image.path, strerror(errno));
    if (block->uring)
        block_uring_reap(block->uring);
    struct block_request *request;
    while ((request = take_completed(block)))
        block_finish(block, request, request->error);
}

static void on_event(void *opaque, uint32_t events)
{
    struct block *block = opaque;
    block->ready(block->opaque);
}

void block_complete(struct block *block, struct block_request *request, int error)
{
    request->error = error;
    request->next = NULL;
    pthread_mutex_lock(&block->lock);
    *block->done_tail = request;
    block->done_tail = &request->next;
    pthread_mutex_unlock(&block->lock);

    uint64_t one = 1;
    ssize_t written = write(block->event_fd, &one, sizeof(one));
    assert(written == sizeof(one)); /* the counter cannot overflow: one a request in flight */
    (void)written;
}

void block_continue(struct block *block, struct block_request *request)
{
    block_workers_submit(&block->workers, request);
}

int block_execute(struct block *block, struct block_request *request)
{
    return block->overlay ? block_overlay_execute(block->overlay, request)
                          : block_image_execute(&block->image, request);
}

static bool start_engine(struct block *block, enum block_engine engine, struct error *err)
{
    /* The overlay's bookkeeping is sequential code, which the workers run. */
    if (block->overlay || engine == BLOCK_ENGINE_THREADS)
        return true;
    block->uring = block_uring_create(block, block->image.fd, block->event_fd, err);
    return block->uring || engine == BLOCK_ENGINE_AUTO;
}

struct block *block_open(struct loop *loop, const struct block_config *config, loop_callback *ready,
                         void *opaque, struct error *err)
{
    struct block *block = xcalloc(1, sizeof(*block));
    block->ready = ready;
    block->opaque = opaque;
    block->read_only = config->read_only;
    block->image.fd = -1;
    block->done_tail = &block->done_head;
    pthread_mutex_init(&block->lock, NULL);
    block_workers_init(&block->workers, block);
    block->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (block->event_fd < 0) {
        error_set_errno(err, errno, "disk '%s': cannot create an eventfd", config->path);
        goto failed;
    }
    if (!block_image_open(&block->image, config, err))
        goto failed;
    if (config->snapshot && !config->read_only &&
        !(block->overlay = block_overlay_create(&block->image, err)))
        goto failed;
    if (!start_engine(block, config->engine, err))
        goto failed;
    block->source = loop_add_fd(loop, block->event_fd, EPOLLIN, on_event, block, err);
    if (!block->source)
        goto failed;
    return block;

failed:
    block_close(block);
    return NULL;
}

void block_close(struct block *block)
{
    if (!block)
        return;
    block_drain(block);
    loop_remove_fd(block->source);
    block_workers_finish(&block->workers);
    block_uring_destroy(block->uring);
    block_overlay_destroy(block->overlay);
    block_image_close(&block->image);
    if (block->event_fd >= 0)
        close(block->event_fd);
    pthread_mutex_destroy(&block->lock);
    free(block);
}

uint64_t block_size(const struct block *block)
{
    return block->image.size;
}

bool block_read_only(const struct block *block)
{
    return block->read_only;
}

unsigned block_physical_size(const struct block *block)
{
    return block->image.physical_size;
}

const char *block_engine_name(const struct block *block)
{
    return block->uring ? "io_uring" : "threads";
}

void block_submit(struct block *block, struct block_request *request)
{
    assert(range_fits(request->offset, request->length, block->image.size));
    assert((request->offset | request->length) % BLOCK_SECTOR_SIZE == 0);
    request->progress = 0;
    request->next = NULL;
    block->in_flight++;
    bool changes = request->operation != BLOCK_READ && request->operation != BLOCK_FLUSH;
    if (changes && block->read_only)
        block_complete(block, request, EROFS);
    else if (!block->uring || !block_uring_submit(block->uring, request))
        block_workers_submit(&block->workers, request);
}

void block_kick(struct block *block)
{
    if (block->uring)
        block_uring_kick(block->uring);
}

void block_drain(struct block *block)
{
    while (block->in_flight) {
        block_kick(block);
        struct pollfd wait = {.fd = block->event_fd, .events = POLLIN};
        poll(&wait, 1, -1);
        block_reap(block);
    }
}

bool block_quiesce(struct block *block, struct error *err)
{
    block_drain(block);
    if (block->overlay || !block->image.writable || !fdatasync(block->image.fd))
        return true;
    return error_set_errno(err, errno, "disk '%s': what the guest wrote could not be made durable",
                           block->image.path);
}

void block_state(struct block *block, struct stream *stream)
{
    assert(!block->in_flight);
    stream_begin(stream, "block", 1);
    uint64_t size = block->image.size;
    bool overlay = block->overlay;
    stream_u64(stream, &size);
    stream_bool(stream, &overlay);
    if (stream_loading(stream) && !stream_failed(stream)) {
        if (size != block->image.size)
            stream_fail(stream, "disk '%s' has %llu bytes, the saved machine's had %llu",
                        block->image.path, (unsigned long long)block->image.size,
                        (unsigned long long)size);
        else if (overlay && !block->overlay)
            stream_fail(stream,
                        "disk '%s' was a snapshot disk when the machine was saved: give "
                        "it 'snapshot' again",
                        block->image.path);
    }
    if (overlay && !stream_failed(stream))
        block_overlay_state(block->overlay, stream);
    stream_end(stream);
}
