/* What is between the device and its renderer: requests under way, answers, and renderers that are
 * lost. */
#include <stdio.h>
#include <stdlib.h>

#include "virtio/gpu_internal.h"

/* Beyond these, commands wait in their queues. */
#define MAX_FLIGHTS 4096
#define MAX_BYTES   (UINT64_C(64) << 20)

#define QUIESCE_MS 30000

static void append(struct gpu_flights *flights, struct gpu_flight *flight)
{
    flight->next = NULL;
    *flights->last = flight;
    flights->last = &flight->next;
}

static struct gpu_flight *take(struct gpu_flights *flights)
{
    struct gpu_flight *flight = flights->first;
    if (flight) {
        flights->first = flight->next;
        if (!flights->first)
            flights->last = &flights->first;
    }
    return flight;
}

static void free_flight(struct gpu_flight *flight)
{
    gpu_frame_put(flight->frame);
    free(flight);
}

/* --- Answers, on the renderer's thread ---------------------------------------------------------
 */

static void tell_rendered(const struct gpu_flight *flight, uint32_t status,
                          const struct gpu_rect *rect)
{
    static const struct gpu_rect nothing;
    bool drawn = status == GPU_OK;
    flight->rendered(flight->opaque, drawn ? flight->frame : NULL, drawn ? rect : &nothing);
}

/* A frame's size is known here, what the renderer says it drew is only what it says. */
static struct gpu_rect drawn_rect(const struct gpu_flight *flight, const struct gpu_answer *answer)
{
    struct gpu_rect rect = answer->rect;
    if (!gpu_rect_within(&rect, flight->frame->width, flight->frame->height))
        rect = (struct gpu_rect){0, 0, flight->frame->width, flight->frame->height};
    return rect;
}

static void on_answer(void *opaque, const struct gpu_answer *answer, const void *payload)
{
    struct virtio_gpu *gpu = opaque;
    bool frame = false;

    pthread_mutex_lock(&gpu->flight_lock);
    /* Guest RAM is made known by requests of the renderer's own. */
    struct gpu_flight *flight = answer->type == GPU_REQUEST_MEMORY ? NULL : take(&gpu->flying);
    if (flight) {
        gpu->flight_count--;
        gpu->flight_bytes -= flight->payload;
        flight->status = answer->status;
        frame = flight->rendered;
        if (!frame) /* the loop's thread may free it at once */
            append(&gpu->landed, flight);
    }
    pthread_mutex_unlock(&gpu->flight_lock);
    if (frame) {
        struct gpu_rect rect = drawn_rect(flight, answer);
        tell_rendered(flight, answer->status, &rect);
        free_flight(flight);
    }
    loop_schedule(gpu->task);
}

static void on_lost(void *opaque, const char *why)
{
    struct virtio_gpu *gpu = opaque;

    pthread_mutex_lock(&gpu->flight_lock);
    gpu->lost = true;
    snprintf(gpu->why, sizeof(gpu->why), "%s", why);
    pthread_mutex_unlock(&gpu->flight_lock);
    loop_schedule(gpu->task);
}

/* --- Submitting --------------------------------------------------------------------------------
 */

static void submit(struct virtio_gpu *gpu, struct gpu_flight *flight, struct gpu_request *request,
                   const void *payload, size_t size, int fd)
{
    flight->type = request->type;
    flight->payload = size;
    pthread_mutex_lock(&gpu->flight_lock);
    append(&gpu->flying, flight);
    gpu->flight_count++;
    gpu->flight_bytes += size;
    pthread_mutex_unlock(&gpu->flight_lock);
    gpu_renderer_submit(gpu->renderer, request, payload, size, fd);
}

void gpu_flight_submit(struct virtio_gpu *gpu, struct gpu_request *request, const void *payload,
                       size_t size, int fd)
{
    if (!gpu->renderer)
        return;
    struct gpu_flight *flight = xcalloc(1, sizeof(*flight));
    flight->command = gpu->command;
    if (gpu->command)
        gpu->command->requests++;
    submit(gpu, flight, request, payload, size, fd);
}

bool gpu_flight_render(struct virtio_gpu *gpu, unsigned scanout, virtio_gpu_rendered *rendered,
                       void *opaque)
{
    struct gpu_frame *frame = gpu->scene.scanouts[scanout].frame;
    if (!gpu->renderer || !frame)
        return false;
    struct gpu_flight *flight = xcalloc(1, sizeof(*flight));
    flight->rendered = rendered;
    flight->opaque = opaque;
    flight->frame = gpu_frame_get(frame);
    struct gpu_request request = {.type = GPU_REQUEST_RENDER};
    request.scanout.scanout = scanout;
    submit(gpu, flight, &request, NULL, 0, -1);
    return true;
}

bool gpu_flight_busy(struct virtio_gpu *gpu)
{
    pthread_mutex_lock(&gpu->flight_lock);
    bool busy = gpu->flight_count >= MAX_FLIGHTS || gpu->flight_bytes >= MAX_BYTES;
    pthread_mutex_unlock(&gpu->flight_lock);
    return busy;
}

bool gpu_flight_any(struct virtio_gpu *gpu)
{
    pthread_mutex_lock(&gpu->flight_lock);
    bool any = gpu->flying.first || gpu->landed.first;
    pthread_mutex_unlock(&gpu->flight_lock);
    return any;
}

/* --- Landing, on the loop's thread -------------------------------------------------------------
 */

/* What the guest gets to hear. What a renderer that was lost did not do, the next one does. */
static uint32_t response_for(uint32_t status)
{
    if (status == GPU_OK || status == GPU_LOST)
        return GPU_RESP_OK_NODATA;
    return status == GPU_OUT_OF_MEMORY ? GPU_RESP_ERR_OUT_OF_MEMORY : GPU_RESP_ERR_UNSPEC;
}

static void settle(struct virtio_gpu *gpu, const struct gpu_flight *flight)
{
    struct gpu_command *command = flight->command;
    uint32_t response = response_for(flight->status);
    if (!command)
        return;
    if (response != GPU_RESP_OK_NODATA && load_le32(command->response) < GPU_RESP_ERR_UNSPEC) {
        store_le32(command->response, response);
        command->size = GPU_HEADER_SIZE;
        if (command->resource && command->chain)
            scene_forget(&gpu->scene, command->resource, command->token);
    }
    if (!--command->requests)
        gpu_command_finish(command);
}

void gpu_flight_land(struct virtio_gpu *gpu)
{
    for (;;) {
        pthread_mutex_lock(&gpu->flight_lock);
        struct gpu_flight *flight = take(&gpu->landed);
        pthread_mutex_unlock(&gpu->flight_lock);
        if (!flight)
            return;
        settle(gpu, flight);
        free_flight(flight);
    }
}

/* Takes the commands away from the flights; those are answered some time, or never. */
static void end_commands(struct virtio_gpu *gpu, struct gpu_flights *flights, bool stale)
{
    pthread_mutex_lock(&gpu->flight_lock);
    for (struct gpu_flight *flight = flights->first; flight; flight = flight->next) {
        struct gpu_command *command = flight->command;
        flight->command = NULL;
        if (!command || --command->requests)
            continue;
        if (stale) {
            virtio_chain_free(command->chain);
            free(command);
        } else {
            gpu_command_finish(command);
        }
    }
    pthread_mutex_unlock(&gpu->flight_lock);
}

void gpu_flight_drop(struct virtio_gpu *gpu)
{
    end_commands(gpu, &gpu->landed, true);
    end_commands(gpu, &gpu->flying, true);
}

/* As if the renderer had been lost, for one that is gone or does not answer in time. */
static void finish_commands(struct virtio_gpu *gpu)
{
    gpu_flight_land(gpu);
    end_commands(gpu, &gpu->flying, false);
}

void gpu_flight_quiesce(struct virtio_gpu *gpu)
{
    struct gpu_request request = {.type = GPU_REQUEST_FENCE};
    struct error err;

    /* An answer may be for somebody who waits for the device's lock. */
    virtio_unlock(&gpu->virtio);
    bool answered = !gpu->renderer || gpu_renderer_call(gpu->renderer, &request, QUIESCE_MS, NULL,
                                                        NULL, 0, NULL, &err);
    virtio_lock(&gpu->virtio);
    if (!answered)
        log_warning("%s: %s", gpu->virtio.base.name, err.message);
    finish_commands(gpu);
}

/* --- Renderers come and go ---------------------------------------------------------------------
 */

static bool add_memory(const struct virtio_gpu *gpu, struct gpu_renderer *renderer,
                       struct error *err)
{
    size_t count;
    const struct memory_ram *regions = memory_ram_regions(gpu->virtio.memory, &count);
    for (size_t i = 0; i < count; i++)
        if (!gpu_renderer_add_memory(renderer, &regions[i], err))
            return false;
    return true;
}

static void fail(struct virtio_gpu *gpu, const struct error *err)
{
    log_error("%s: %s", gpu->virtio.base.name, err->message);
    gpu->failed = true;
    virtio_device_break(&gpu->virtio, "there is no renderer");
}

bool gpu_flight_prepare(struct virtio_gpu *gpu)
{
    struct error err;
    if (!gpu->renderer)
        return false;
    if (!gpu->knows_memory) {
        gpu->knows_memory = add_memory(gpu, gpu->renderer, &err);
        if (!gpu->knows_memory)
            fail(gpu, &err);
    }
    return gpu->knows_memory;
}

/* Ends a renderer, of which nothing is heard any more. */
static void end_renderer(struct virtio_gpu *gpu, struct gpu_renderer *renderer)
{
    gpu_renderer_destroy(renderer);
    pthread_mutex_lock(&gpu->flight_lock);
    gpu->lost = false;
    pthread_mutex_unlock(&gpu->flight_lock);
}

/* Opens a renderer that knows guest RAM, if there is any yet. */
static struct gpu_renderer *open_renderer(struct virtio_gpu *gpu, bool again, struct error *err)
{
    const struct gpu_listener listener = {.answered = on_answer, .lost = on_lost, .opaque = gpu};
    struct gpu_renderer *renderer = gpu->machine.open(gpu->machine.opaque, again, err);
    if (!renderer)
        return NULL;
    gpu_renderer_listen(renderer, &listener);
    if (gpu->virtio.memory && !add_memory(gpu, renderer, err)) {
        end_renderer(gpu, renderer);
        return NULL;
    }
    return renderer;
}

bool gpu_flight_open(struct virtio_gpu *gpu, struct error *err)
{
    gpu->renderer = open_renderer(gpu, false, err);
    return gpu->renderer;
}

static void reopen(struct virtio_gpu *gpu)
{
    struct error err;
    struct gpu_renderer *renderer = open_renderer(gpu, true, &err);

    pthread_rwlock_wrlock(&gpu->use);
    virtio_lock(&gpu->virtio);
    gpu->renderer = renderer;
    gpu->knows_memory = renderer && gpu->virtio.memory;
    if (renderer)
        scene_replay(&gpu->scene);
    else
        fail(gpu, &err);
    for (unsigned i = 0; i < GPU_QUEUES; i++)
        virtio_queue_schedule(&gpu->virtio.queues[i]);
    virtio_unlock(&gpu->virtio);
    pthread_rwlock_unlock(&gpu->use);
}

/* Who waits for a frame learns that there will be none. No lock is held: they may ask again. */
static void fail_renders(struct virtio_gpu *gpu)
{
    struct gpu_flight *flight;
    while ((flight = take(&gpu->flying))) {
        if (flight->rendered)
            tell_rendered(flight, GPU_LOST, NULL);
        free_flight(flight);
    }
    gpu->flight_count = gpu->flight_bytes = 0;
}

/* Ends the renderer, with no lock held, since an answer may be for somebody who waits for one. On
 * return nothing is under way. */
static void close_renderer(struct virtio_gpu *gpu)
{
    pthread_rwlock_wrlock(&gpu->use);
    virtio_lock(&gpu->virtio);
    struct gpu_renderer *renderer = gpu->renderer;
    gpu->renderer = NULL;
    virtio_unlock(&gpu->virtio);
    pthread_rwlock_unlock(&gpu->use);
    end_renderer(gpu, renderer);

    virtio_lock(&gpu->virtio);
    finish_commands(gpu);
    virtio_unlock(&gpu->virtio);
    fail_renders(gpu);
}

static void on_task(void *opaque)
{
    struct virtio_gpu *gpu = opaque;

    virtio_lock(&gpu->virtio);
    gpu_flight_land(gpu);
    bool resume = gpu->stalled && !gpu_flight_busy(gpu);
    for (unsigned i = 0; i < GPU_QUEUES; i++) {
        virtio_queue_flush(&gpu->virtio.queues[i]);
        if (resume)
            virtio_queue_schedule(&gpu->virtio.queues[i]);
    }
    bool wanted = !gpu->renderer && !gpu->failed;
    virtio_unlock(&gpu->virtio);

    pthread_mutex_lock(&gpu->flight_lock);
    bool lost = gpu->lost;
    pthread_mutex_unlock(&gpu->flight_lock);
    if (lost) {
        log_warning("%s: the renderer is lost: %s; the screen is drawn anew", gpu->virtio.base.name,
                    gpu->why);
        close_renderer(gpu);
    }
    if (lost || wanted)
        reopen(gpu);
}

void gpu_flight_init(struct virtio_gpu *gpu)
{
    pthread_rwlock_init(&gpu->use, NULL);
    pthread_mutex_init(&gpu->flight_lock, NULL);
    gpu->flying.last = &gpu->flying.first;
    gpu->landed.last = &gpu->landed.first;
    gpu->task = loop_add_task(gpu->virtio.loop, on_task, gpu);
}

void gpu_flight_finish(struct virtio_gpu *gpu)
{
    close_renderer(gpu);
    loop_remove_task(gpu->task);
    pthread_mutex_destroy(&gpu->flight_lock);
    pthread_rwlock_destroy(&gpu->use);
}
