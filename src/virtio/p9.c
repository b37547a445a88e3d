/*
 * The virtio-9p device (transport "virtio", device ID 9). The loop copies requests out of guest
 * memory and replies into it; a worker thread, where the host's file system may block, sees only
 * the copies, so that a reset never has to wait for it.
 */
#include "virtio/p9.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "virtio/p9_server.h"

#define P9_F_MOUNT_TAG 0
#define P9_QUEUE_SIZE  128
#define P9_TAG_MAX     255

/* A request on its way through the worker. */
struct job {
    struct job *next;
    struct virtio_chain *chain;
    size_t request_size, reply_size, reply_capacity;
    uint8_t bytes[]; /* the request, then the reply */
};

struct job_list {
    struct job *first, **last;
};

struct virtio_p9 {
    struct virtio_device virtio;
    uint8_t config[2 + P9_TAG_MAX];
    struct p9_server *server; /* the worker's while it is busy */

    pthread_t worker;
    pthread_mutex_t lock; /* guards what follows; innermost */
    pthread_cond_t wake, idle;
    struct job_list pending, done;
    bool busy, stop;
    bool session_over; /* after a reset: every fid must go before the next request */

    struct loop_task *completion;
};

static struct virtio_p9 *p9_of(struct virtio_device *device)
{
    return container_of(device, struct virtio_p9, virtio);
}

static void list_init(struct job_list *list)
{
    list->first = NULL;
    list->last = &list->first;
}

static void list_append(struct job_list *list, struct job *job)
{
    job->next = NULL;
    *list->last = job;
    list->last = &job->next;
}

static struct job *list_take(struct job_list *list)
{
    struct job *job = list->first;

    if (job && !(list->first = job->next))
        list->last = &list->first;
    return job;
}

/* Does the next thing that is to be done, with the lock dropped meanwhile; false: nothing is. */
static bool work(struct virtio_p9 *self)
{
    bool session_over = self->session_over;
    struct job *job = session_over ? NULL : list_take(&self->pending);

    if (!session_over && !job)
        return false;
    self->session_over = false;
    self->busy = true;
    pthread_mutex_unlock(&self->lock);
    if (session_over)
        p9_server_reset(self->server);
    else
        job->reply_size = p9_server_handle(self->server, job->bytes, job->request_size,
                                           job->bytes + job->request_size, job->reply_capacity);
    pthread_mutex_lock(&self->lock);
    self->busy = false;
    if (job) {
        list_append(&self->done, job);
        loop_schedule(self->completion);
    }
    return true;
}

static void *worker_main(void *opaque)
{
    struct virtio_p9 *self = opaque;

    /* Modes come from the guest, whose umask has been applied: ours is turned off, for this thread
     * alone. */
    if (unshare(CLONE_FS) == 0)
        umask(0);
    pthread_mutex_lock(&self->lock);
    while (!self->stop) {
        if (work(self))
            continue;
        pthread_cond_broadcast(&self->idle);
        pthread_cond_wait(&self->wake, &self->lock);
    }
    pthread_mutex_unlock(&self->lock);
    return NULL;
}

static void submit(struct virtio_p9 *self, struct job *job)
{
    pthread_mutex_lock(&self->lock);
    list_append(&self->pending, job);
    pthread_cond_signal(&self->wake);
    pthread_mutex_unlock(&self->lock);
}

/* Waits until the worker has nothing to do. */
static void drain(struct virtio_p9 *self)
{
    pthread_mutex_lock(&self->lock);
    while (self->busy || self->session_over || self->pending.first)
        pthread_cond_wait(&self->idle, &self->lock);
    pthread_mutex_unlock(&self->lock);
}

/* Gives the replies to the guest. Device lock held. */
static void complete(struct virtio_p9 *self)
{
    struct job *job, *next;

    pthread_mutex_lock(&self->lock);
    next = self->done.first;
    list_init(&self->done);
    pthread_mutex_unlock(&self->lock);
    while ((job = next)) {
        next = job->next;
        if (!virtio_chain_stale(job->chain))
            virtio_chain_write(job->chain, 0, job->bytes + job->request_size, job->reply_size);
        virtio_queue_push(job->chain, job->reply_size);
        free(job);
    }
    virtio_queue_flush(&self->virtio.queues[0]);
}

static void completion_task(void *opaque)
{
    struct virtio_p9 *self = opaque;

    virtio_lock(&self->virtio);
    complete(self);
    virtio_unlock(&self->virtio);
}

static struct job *job_create(struct virtio_chain *chain)
{
    size_t request = chain->readable_size;
    size_t reply = chain->writable_size < P9_MESSAGE_MAX ? chain->writable_size : P9_MESSAGE_MAX;
    struct job *job = xmalloc(sizeof(*job) + request + reply);

    job->chain = chain;
    job->request_size = virtio_chain_read(chain, 0, job->bytes, request);
    job->reply_capacity = reply;
    job->reply_size = 0;
    return job;
}

static void p9_handle_queue(struct virtio_device *device, struct virtio_queue *queue)
{
    struct virtio_chain *chain;

    while ((chain = virtio_queue_pop(queue))) {
        if (chain->readable_size >= P9_HEADER_SIZE && chain->readable_size <= P9_MESSAGE_MAX &&
            chain->writable_size >= P9_REPLY_MIN) {
            submit(p9_of(device), job_create(chain));
            continue;
        }
        virtio_device_break(device, "message of %zu bytes with %zu for the reply",
                            chain->readable_size, chain->writable_size);
        virtio_queue_push(chain, 0);
    }
}

static void free_jobs(struct job_list *list)
{
    struct job *job;

    while ((job = list_take(list))) {
        virtio_chain_free(job->chain);
        free(job);
    }
}

/* What the worker is at is let run: it sees no guest memory, and its chain has become stale. */
static void p9_reset(struct virtio_device *device)
{
    struct virtio_p9 *self = p9_of(device);

    pthread_mutex_lock(&self->lock);
    free_jobs(&self->pending);
    self->session_over = true;
    pthread_cond_signal(&self->wake);
    pthread_mutex_unlock(&self->lock);
}

static void p9_quiesce(struct virtio_device *device)
{
    struct virtio_p9 *self = p9_of(device);

    drain(self);
    complete(self);
}

static void p9_state(struct virtio_device *device, struct stream *stream)
{
    struct virtio_p9 *self = p9_of(device);

    drain(self);
    p9_server_state(self->server, stream);
}

static void p9_remove(struct virtio_device *device)
{
    struct virtio_p9 *self = p9_of(device);

    pthread_mutex_lock(&self->lock);
    self->stop = true;
    pthread_cond_signal(&self->wake);
    pthread_mutex_unlock(&self->lock);
    pthread_join(self->worker, NULL);
    loop_remove_task(self->completion);
    free_jobs(&self->pending);
    free_jobs(&self->done);
    p9_server_destroy(self->server);
    pthread_mutex_destroy(&self->lock);
    pthread_cond_destroy(&self->wake);
    pthread_cond_destroy(&self->idle);
    virtio_device_finish(device);
    free(self);
}

static const struct virtio_device_type p9_type = {
    .name = "virtio-9p",
    .id = 9,
    .pci_class = 0x018000,
    .handle_queue = p9_handle_queue,
    .reset = p9_reset,
    .quiesce = p9_quiesce,
    .state = p9_state,
    .remove = p9_remove,
};

struct virtio_device *virtio_p9_create(const char *name, const struct virtio_p9_config *config,
                                       struct loop *loop, struct error *err)
{
    size_t tag_length = strlen(config->tag);
    struct p9_server *server;
    struct virtio_p9 *self;

    if (!tag_length || tag_length > P9_TAG_MAX) {
        error_set(err, "share \"%s\": its tag \"%s\" has %zu bytes; choose one of 1 to %d",
                  config->directory, config->tag, tag_length, P9_TAG_MAX);
        return NULL;
    }
    server = p9_server_create(config->directory, config->read_only, err);
    if (!server)
        return NULL;
    self = xcalloc(1, sizeof(*self));
    self->server = server;
    virtio_device_init(&self->virtio, &p9_type, name, BIT(P9_F_MOUNT_TAG), loop);
    store_le16(self->config, tag_length);
    memcpy(self->config + 2, config->tag, tag_length);
    self->virtio.config = self->config;
    self->virtio.config_size = 2 + tag_length;
    virtio_device_add_queue(&self->virtio, P9_QUEUE_SIZE);
    list_init(&self->pending);
    list_init(&self->done);
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->wake, NULL);
    pthread_cond_init(&self->idle, NULL);
    self->completion = loop_add_task(loop, completion_task, self);
    if (pthread_create(&self->worker, NULL, worker_main, self) == 0)
        return &self->virtio;
    error_set(err, "share \"%s\": no thread for it; raise the limit on processes",
              config->directory);
    loop_remove_task(self->completion);
    p9_server_destroy(server);
    virtio_device_finish(&self->virtio);
    free(self);
    return NULL;
}
