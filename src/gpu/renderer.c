#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gpu/gpu.h"

/* A thread in gpu_renderer_call. Who comes last, the thread or the answer, frees it. */
struct gpu_caller {
    struct gpu_caller *next;
    uint64_t serial;
    bool answered, given_up;
    struct gpu_answer answer;
    void *payload;
    size_t payload_size, got;
};

void gpu_renderer_init(struct gpu_renderer *renderer, const struct gpu_renderer_ops *ops)
{
    *renderer = (struct gpu_renderer){.ops = ops, .next_serial = 1};
    pthread_mutex_init(&renderer->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&renderer->called, &attributes);
    pthread_condattr_destroy(&attributes);
}

void gpu_renderer_finish(struct gpu_renderer *renderer)
{
    while (renderer->callers) {
        struct gpu_caller *caller = renderer->callers;
        assert(caller->given_up);
        renderer->callers = caller->next;
        free(caller);
    }
    pthread_cond_destroy(&renderer->called);
    pthread_mutex_destroy(&renderer->lock);
}

void gpu_text_tame(char *text, size_t size)
{
    text[size - 1] = '\0';
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
}

void gpu_renderer_listen(struct gpu_renderer *renderer, const struct gpu_listener *listener)
{
    pthread_mutex_lock(&renderer->lock);
    renderer->listener = *listener;
    pthread_mutex_unlock(&renderer->lock);
}

/* With the lock held. */
static void submit(struct gpu_renderer *renderer, struct gpu_request *request, const void *payload,
                   size_t payload_size, int fd)
{
    assert(payload_size <= GPU_PAYLOAD_MAX);
    request->size = (uint32_t)(sizeof(*request) + payload_size);
    request->serial = renderer->next_serial++;
    renderer->ops->submit(renderer, request, payload, fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

uint64_t gpu_renderer_submit(struct gpu_renderer *renderer, struct gpu_request *request,
                             const void *payload, size_t payload_size, int fd)
{
    pthread_mutex_lock(&renderer->lock);
    submit(renderer, request, payload, payload_size, fd);
    uint64_t serial = request->serial;
    pthread_mutex_unlock(&renderer->lock);
    return serial;
}

static struct timespec deadline_after(unsigned timeout_ms)
{
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += timeout_ms / 1000;
    deadline.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (deadline.tv_nsec >= 1000000000) {
        deadline.tv_sec++;
        deadline.tv_nsec -= 1000000000;
    }
    return deadline;
}

bool gpu_renderer_call(struct gpu_renderer *renderer, struct gpu_request *request,
                       unsigned timeout_ms, struct gpu_answer *answer, void *payload,
                       size_t payload_size, size_t *got, struct error *err)
{
    struct timespec deadline = deadline_after(timeout_ms);
    struct gpu_caller *caller = xcalloc(1, sizeof(*caller));
    caller->payload = payload;
    caller->payload_size = payload_size;

    pthread_mutex_lock(&renderer->lock);
    caller->serial = renderer->next_serial;
    caller->next = renderer->callers;
    renderer->callers = caller;
    submit(renderer, request, NULL, 0, -1);
    while (!caller->answered &&
           !pthread_cond_timedwait(&renderer->called, &renderer->lock, &deadline))
        ;
    if (!caller->answered) {
        caller->given_up = true;
        pthread_mutex_unlock(&renderer->lock);
        return error_set(err, "the %s renderer did not answer within %u ms", renderer->ops->name,
                         timeout_ms);
    }
    pthread_mutex_unlock(&renderer->lock);

    struct gpu_answer reply = caller->answer;
    if (got)
        *got = caller->got;
    free(caller);
    if (answer)
        *answer = reply;
    return reply.status == GPU_OK || error_set(err, "%s", reply.message);
}

void gpu_renderer_answer(struct gpu_renderer *renderer, const struct gpu_answer *answer,
                         const void *payload)
{
    pthread_mutex_lock(&renderer->lock);
    struct gpu_caller **at = &renderer->callers;
    while (*at && (*at)->serial != answer->serial)
        at = &(*at)->next;
    struct gpu_caller *caller = *at;
    if (caller) {
        *at = caller->next;
        caller->answered = true;
        caller->answer = *answer;
        caller->got = answer->size - sizeof(*answer);
        if (caller->given_up) {
            free(caller);
        } else {
            if (caller->payload && payload)
                memcpy(caller->payload, payload,
                       caller->got < caller->payload_size ? caller->got : caller->payload_size);
            pthread_cond_broadcast(&renderer->called);
        }
    }
    struct gpu_listener listener = renderer->listener;
    pthread_mutex_unlock(&renderer->lock);
    if (!caller && listener.answered)
        listener.answered(listener.opaque, answer, payload);
}

bool gpu_renderer_add_memory(struct gpu_renderer *renderer, const struct memory_ram *ram,
                             struct error *err)
{
    return renderer->ops->add_memory(renderer, ram, err);
}

void gpu_renderer_destroy(struct gpu_renderer *renderer)
{
    if (renderer)
        renderer->ops->destroy(renderer);
}
