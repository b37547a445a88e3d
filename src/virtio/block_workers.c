/* Worker threads: they run any request, one blocking call after the other. */
#include <assert.h>
#include <signal.h>

#include "base/log.h"
#include "virtio/block_internal.h"

static void *work(void *opaque)
{
    struct block_workers *workers = opaque;
    pthread_mutex_lock(&workers->lock);
    for (;;) {
        while (!workers->head && !workers->stop) {
            workers->idle++;
            pthread_cond_wait(&workers->work, &workers->lock);
            workers->idle--;
        }
        struct block_request *request = workers->head;
        if (!request)
            break;
        workers->head = request->next;
        if (!workers->head)
            workers->tail = &workers->head;
        workers->waiting--;
        pthread_mutex_unlock(&workers->lock);
        block_complete(workers->block, request, block_execute(workers->block, request));
        pthread_mutex_lock(&workers->lock);
    }
    pthread_mutex_unlock(&workers->lock);
    return NULL;
}

/* Signals are for the main thread; blocked here, SIGXFSZ becomes a plain EFBIG. */
static bool start_thread(struct block_workers *workers)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    bool started = !pthread_create(&workers->threads[workers->count], NULL, work, workers);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    workers->count += started;
    return started;
}

void block_workers_init(struct block_workers *workers, struct block *block)
{
    *workers = (struct block_workers){.block = block};
    workers->tail = &workers->head;
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->work, NULL);
}

void block_workers_finish(struct block_workers *workers)
{
    pthread_mutex_lock(&workers->lock);
    assert(!workers->head);
    workers->stop = true;
    pthread_cond_broadcast(&workers->work);
    pthread_mutex_unlock(&workers->lock);
    for (unsigned n = 0; n < workers->count; n++)
        pthread_join(workers->threads[n], NULL);
    pthread_cond_destroy(&workers->work);
    pthread_mutex_destroy(&workers->lock);
}

void block_workers_submit(struct block_workers *workers, struct block_request *request)
{
    request->next = NULL;
    pthread_mutex_lock(&workers->lock);
    *workers->tail = request;
    workers->tail = &request->next;
    workers->waiting++;
    bool more = workers->waiting > workers->idle && workers->count < BLOCK_WORKERS;
    bool stuck = more && !start_thread(workers) && !workers->count;
    if (stuck) {
        workers->head = NULL;
        workers->tail = &workers->head;
        workers->waiting = 0;
    } else {
        pthread_cond_signal(&workers->work);
    }
    pthread_mutex_unlock(&workers->lock);

    if (stuck) /* no thread at all can be had: slow, but right */
        block_complete(workers->block, request, block_execute(workers->block, request));
}
