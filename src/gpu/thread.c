/* The 2d back end: a renderer's core on a thread of this process. */
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpu/gpu.h"

struct job {
    struct job *next;
    struct gpu_request request;
    int fd;
    alignas(8) uint8_t payload[]; /* with 64-bit fields */
};

struct thread_renderer {
    struct gpu_renderer base;
    struct gpu_core *core;
    pthread_t thread;
    pthread_mutex_t lock; /* guards the following */
    pthread_cond_t wake;
    struct job *first, **last;
    bool ending;
};

static struct thread_renderer *thread_of(struct gpu_renderer *renderer)
{
    return container_of(renderer, struct thread_renderer, base);
}

static void free_job(struct job *job)
{
    if (job->fd >= 0)
        close(job->fd);
    free(job);
}

static void execute(struct thread_renderer *self, struct job *job)
{
    struct gpu_answer answer;
    void *payload;
    gpu_core_execute(self->core, &job->request, job->payload, job->fd, &answer, &payload);
    gpu_renderer_answer(&self->base, &answer, payload);
    free(payload);
    free_job(job);
}

static void *run(void *opaque)
{
    struct thread_renderer *self = opaque;
    pthread_setname_np(pthread_self(), "gpu-2d");
    pthread_mutex_lock(&self->lock);
    while (!self->ending) {
        struct job *job = self->first;
        if (!job) {
            pthread_cond_wait(&self->wake, &self->lock);
            continue;
        }
        self->first = job->next;
        if (!self->first)
            self->last = &self->first;
        pthread_mutex_unlock(&self->lock);
        execute(self, job);
        pthread_mutex_lock(&self->lock);
    }
    pthread_mutex_unlock(&self->lock);
    return NULL;
}

static void thread_submit(struct gpu_renderer *renderer, const struct gpu_request *request,
                          const void *payload, int fd)
{
    struct thread_renderer *self = thread_of(renderer);
    size_t payload_size = request->size - sizeof(*request);
    struct job *job = xmalloc(sizeof(*job) + payload_size);
    job->next = NULL;
    job->request = *request;
    job->fd = fd;
    if (payload_size)
        memcpy(job->payload, payload, payload_size);
    pthread_mutex_lock(&self->lock);
    *self->last = job;
    self->last = &job->next;
    pthread_cond_signal(&self->wake);
    pthread_mutex_unlock(&self->lock);
}

/* Before requests that need it, so the thread does not look at the list of regions. */
static bool thread_add_memory(struct gpu_renderer *renderer, const struct memory_ram *ram,
                              struct error *err)
{
    gpu_core_add_memory(thread_of(renderer)->core, ram->base, ram->size, ram->host);
    return true;
}

static void thread_destroy(struct gpu_renderer *renderer)
{
    struct thread_renderer *self = thread_of(renderer);
    pthread_mutex_lock(&self->lock);
    self->ending = true;
    pthread_cond_signal(&self->wake);
    pthread_mutex_unlock(&self->lock);
    pthread_join(self->thread, NULL);
    while (self->first) {
        struct job *job = self->first;
        self->first = job->next;
        free_job(job);
    }
    gpu_core_destroy(self->core);
    pthread_cond_destroy(&self->wake);
    pthread_mutex_destroy(&self->lock);
    gpu_renderer_finish(&self->base);
    free(self);
}

static const struct gpu_renderer_ops thread_ops = {
    .name = "2d",
    .submit = thread_submit,
    .add_memory = thread_add_memory,
    .destroy = thread_destroy,
};

struct gpu_renderer *gpu_thread_create(struct error *err)
{
    struct gpu_canvas *canvas = gpu_canvas_pixman_create(err);
    if (!canvas)
        return NULL;
    struct thread_renderer *self = xcalloc(1, sizeof(*self));
    gpu_renderer_init(&self->base, &thread_ops);
    self->core = gpu_core_create(canvas, GPU_SPREAD_NONE);
    self->last = &self->first;
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->wake, NULL);
    if (pthread_create(&self->thread, NULL, run, self)) {
        error_set(err, "the host gives no thread for the 2d renderer");
        gpu_core_destroy(self->core);
        gpu_renderer_finish(&self->base);
        free(self);
        return NULL;
    }
    return &self->base;
}
