/* One frame of a scanout, for whoever waits for it. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "display/display.h"

/* Who comes last, the waiting thread or the frame, frees it. */
struct capture {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool rendered, given_up;
    struct gpu_frame *frame;
};

static void capture_free(struct capture *capture)
{
    gpu_frame_put(capture->frame);
    pthread_cond_destroy(&capture->wake);
    pthread_mutex_destroy(&capture->lock);
    free(capture);
}

static void rendered(void *opaque, struct gpu_frame *frame, const struct gpu_rect *rect)
{
    struct capture *capture = opaque;
    pthread_mutex_lock(&capture->lock);
    capture->rendered = true;
    capture->frame = frame ? gpu_frame_get(frame) : NULL;
    bool given_up = capture->given_up;
    pthread_cond_signal(&capture->wake);
    pthread_mutex_unlock(&capture->lock);
    if (given_up)
        capture_free(capture);
}

struct gpu_frame *display_capture(struct virtio_device *gpu, unsigned scanout, unsigned timeout_ms,
                                  struct error *err)
{
    pthread_condattr_t attributes;
    struct timespec deadline;
    uint32_t width, height;
    virtio_gpu_size(gpu, scanout, &width, &height);
    if (!width) {
        error_set(err, "display %u shows nothing: the guest has turned it off", scanout);
        return NULL;
    }
    struct capture *capture = xcalloc(1, sizeof(*capture));
    pthread_mutex_init(&capture->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&capture->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    uint64_t end = loop_now() + timeout_ms * UINT64_C(1000000);
    deadline =
        (struct timespec){(time_t)(end / UINT64_C(1000000000)), (long)(end % UINT64_C(1000000000))};
    virtio_gpu_render(gpu, scanout, rendered, capture);

    pthread_mutex_lock(&capture->lock);
    while (!capture->rendered &&
           pthread_cond_timedwait(&capture->wake, &capture->lock, &deadline) != ETIMEDOUT)
        ;
    if (!capture->rendered) {
        capture->given_up = true;
        pthread_mutex_unlock(&capture->lock);
        error_set(err, "display %u: no frame was drawn within %u ms", scanout, timeout_ms);
        return NULL;
    }
    pthread_mutex_unlock(&capture->lock);
    struct gpu_frame *frame = capture->frame ? gpu_frame_get(capture->frame) : NULL;
    capture_free(capture);
    if (!frame)
        error_set(err, "display %u shows nothing: it was turned off, or its renderer failed",
                  scanout);
    return frame;
}
