/* virtio-gpu: the device, and what displays and the control socket ask of it. */
#include "virtio/gpu.h"

#include <assert.h>
#include <stdlib.h>

#include "virtio/gpu_internal.h"

#define CONTROL_QUEUE_SIZE 256
#define CURSOR_QUEUE_SIZE  64

#define STATS_MS 5000
#define TRACE_MS 10000

/* --- The device --------------------------------------------------------------------------------
 */

static void gpu_handle_queue(struct virtio_device *device, struct virtio_queue *queue)
{
    struct virtio_gpu *gpu = virtio_gpu_of(device);
    struct virtio_chain *chain;

    gpu->scene.memory = device->memory;
    if (!gpu_flight_prepare(gpu))
        return; /* a renderer that is opened schedules the queues */
    while (!(gpu->stalled = gpu_flight_busy(gpu)) && (chain = virtio_queue_pop(queue)))
        gpu_command_run(gpu, chain);
}

static void gpu_config_written(struct virtio_device *device, unsigned offset, uint32_t value,
                               unsigned size)
{
    struct virtio_gpu_config_space *config = &virtio_gpu_of(device)->config;

    if (offset == offsetof(struct virtio_gpu_config_space, events_clear))
        config->events_read &= ~htole32(value);
    else
        trace_guest_error(device->base.name, "write to configuration offset %u", offset);
}

static void gpu_reset(struct virtio_device *device)
{
    struct virtio_gpu *gpu = virtio_gpu_of(device);

    gpu_flight_drop(gpu);
    scene_clear(&gpu->scene);
    gpu->config.events_read = 0;
    gpu->failed = false;
    if (!gpu->renderer)
        loop_schedule(gpu->task);
}

static void gpu_quiesce(struct virtio_device *device)
{
    gpu_flight_quiesce(virtio_gpu_of(device));
}

static void gpu_state(struct virtio_device *device, struct stream *stream)
{
    struct virtio_gpu *gpu = virtio_gpu_of(device);

    gpu->scene.memory = device->memory;
    if (stream_loading(stream))
        gpu_flight_prepare(gpu);
    stream_u32(stream, &gpu->config.events_read);
    gpu->config.events_read &= htole32(VIRTIO_GPU_EVENT_DISPLAY);
    scene_state(&gpu->scene, stream);
}

static void gpu_remove(struct virtio_device *device)
{
    struct virtio_gpu *gpu = virtio_gpu_of(device);

    gpu_flight_finish(gpu);
    scene_finish(&gpu->scene);
    virtio_device_finish(device);
    free(gpu);
}

static const struct virtio_device_type gpu_type = {
    .name = "virtio-gpu",
    .id = 16,
    .pci_class = 0x038000, /* a display controller that is no VGA */
    .handle_queue = gpu_handle_queue,
    .config_written = gpu_config_written,
    .reset = gpu_reset,
    .quiesce = gpu_quiesce,
    .state = gpu_state,
    .remove = gpu_remove,
};

/* --- What the scene tells ----------------------------------------------------------------------
 */

static void scene_submit(void *opaque, struct gpu_request *request, const void *payload,
                         size_t size, int fd)
{
    gpu_flight_submit(opaque, request, payload, size, fd);
}

static void scene_changed(void *opaque, unsigned scanout)
{
    struct virtio_gpu *gpu = opaque;
    const struct gpu_rect *rect = &gpu->scene.scanouts[scanout].view.rect;

    if (gpu->viewer.changed)
        gpu->viewer.changed(gpu->viewer.opaque, scanout, rect->width, rect->height);
}

static void scene_damaged(void *opaque, unsigned scanout)
{
    struct virtio_gpu *gpu = opaque;

    if (gpu->told[scanout] || !gpu->viewer.damaged)
        return;
    gpu->told[scanout] = true;
    gpu->viewer.damaged(gpu->viewer.opaque, scanout);
}

static const struct scene_ops scene_ops = {
    .submit = scene_submit,
    .changed = scene_changed,
    .damaged = scene_damaged,
};

static void init_scene(struct virtio_gpu *gpu)
{
    gpu->scene.name = gpu->virtio.base.name;
    gpu->scene.ops = &scene_ops;
    gpu->scene.opaque = gpu;
    gpu->scene.scanout_count = gpu->machine.scanout_count;
    for (unsigned i = 0; i < gpu->scene.scanout_count; i++) {
        struct scene_scanout *scanout = &gpu->scene.scanouts[i];
        scanout->width = gpu->machine.sizes[i].width;
        scanout->height = gpu->machine.sizes[i].height;
        scanout->connected = true;
    }
}

struct virtio_device *virtio_gpu_create(const char *name, const struct virtio_gpu_config *config,
                                        struct loop *loop, struct error *err)
{
    struct virtio_gpu *gpu = xcalloc(1, sizeof(*gpu));

    assert(config->scanout_count >= 1 && config->scanout_count <= GPU_MAX_SCANOUTS);
    gpu->machine = *config;
    virtio_device_init(&gpu->virtio, &gpu_type, name,
                       BIT(VIRTIO_GPU_F_EDID) | BIT(VIRTIO_GPU_F_RESOURCE_UUID) |
                           BIT(VIRTIO_GPU_F_RESOURCE_BLOB),
                       loop);
    virtio_device_add_queue(&gpu->virtio, CONTROL_QUEUE_SIZE);
    virtio_device_add_queue(&gpu->virtio, CURSOR_QUEUE_SIZE);
    gpu->config.num_scanouts = htole32(config->scanout_count);
    gpu->virtio.config = &gpu->config;
    gpu->virtio.config_size = sizeof(gpu->config);
    init_scene(gpu);
    gpu_flight_init(gpu);
    if (gpu_flight_open(gpu, err))
        return &gpu->virtio;
    gpu_remove(&gpu->virtio);
    return NULL;
}

/* --- Displays ----------------------------------------------------------------------------------
 */

void virtio_gpu_set_viewer(struct virtio_device *device, const struct virtio_gpu_viewer *viewer)
{
    struct virtio_gpu *gpu = virtio_gpu_of(device);

    virtio_lock(device);
    gpu->viewer = viewer ? *viewer : (struct virtio_gpu_viewer){0};
    memset(gpu->told, 0, sizeof(gpu->told));
    virtio_unlock(device);
}

void virtio_gpu_render(struct virtio_device *device, unsigned scanout,
                       virtio_gpu_rendered *rendered, void *opaque)
{
    static const struct gpu_rect nothing;
    struct virtio_gpu *gpu = virtio_gpu_of(device);
    bool submitted = false;

    virtio_lock(device);
    if (scanout < gpu->scene.scanout_count) {
        gpu->told[scanout] = false;
        submitted = gpu_flight_render(gpu, scanout, rendered, opaque);
    }
    virtio_unlock(device);
    if (!submitted)
        rendered(opaque, NULL, &nothing);
}

void virtio_gpu_set_view(struct virtio_device *device, unsigned scanout, uint32_t width,
                         uint32_t height)
{
    struct virtio_gpu *gpu = virtio_gpu_of(device);

    virtio_lock(device);
    if (scanout < gpu->scene.scanout_count && width <= GPU_MAX_SIZE && height <= GPU_MAX_SIZE)
        scene_set_frame_size(&gpu->scene, scanout, height ? width : 0, width ? height : 0);
    virtio_unlock(device);
}

static uint32_t display_size(uint32_t size)
{
    if (size < SCENE_MIN_SIZE)
        return SCENE_MIN_SIZE;
    return size < GPU_MAX_SIZE ? size : GPU_MAX_SIZE;
}

/* A display that was unplugged keeps its size, for its EDID. */
static bool resize(struct scene_scanout *display, uint32_t width, uint32_t height)
{
    struct scene_scanout old = *display;

    display->connected = width && height;
    if (display->connected) {
        display->width = display_size(width);
        display->height = display_size(height);
    }
    return display->connected != old.connected || display->width != old.width ||
           display->height != old.height;
}

void virtio_gpu_resize(struct virtio_device *device, unsigned scanout, uint32_t width,
                       uint32_t height)
{
    struct virtio_gpu *gpu = virtio_gpu_of(device);

    virtio_lock(device);
    if (scanout < gpu->scene.scanout_count &&
        resize(&gpu->scene.scanouts[scanout], width, height)) {
        gpu->config.events_read |= htole32(VIRTIO_GPU_EVENT_DISPLAY);
        virtio_config_changed(device);
    }
    virtio_unlock(device);
}

void virtio_gpu_size(struct virtio_device *device, unsigned scanout, uint32_t *width,
                     uint32_t *height)
{
    struct virtio_gpu *gpu = virtio_gpu_of(device);

    *width = *height = 0;
    virtio_lock(device);
    if (scanout < gpu->scene.scanout_count) {
        *width = gpu->scene.scanouts[scanout].view.rect.width;
        *height = gpu->scene.scanouts[scanout].view.rect.height;
    }
    virtio_unlock(device);
}

/* --- Statistics and the timeline ---------------------------------------------------------------
 */

static bool call_renderer(struct virtio_gpu *gpu, struct gpu_request *request, unsigned timeout_ms,
                          void *payload, size_t size, size_t *got, struct error *err)
{
    pthread_rwlock_rdlock(&gpu->use);
    bool done =
        gpu->renderer
            ? gpu_renderer_call(gpu->renderer, request, timeout_ms, NULL, payload, size, got, err)
            : error_set(err, "%s has no renderer now; see the log for why", gpu->virtio.base.name);
    pthread_rwlock_unlock(&gpu->use);
    return done;
}

bool virtio_gpu_stats(struct virtio_device *device, struct gpu_stats *stats, unsigned flags,
                      struct error *err)
{
    struct gpu_request request = {.type = GPU_REQUEST_STATS, .flags = flags};
    size_t got = 0;

    memset(stats, 0, sizeof(*stats));
    if (!call_renderer(virtio_gpu_of(device), &request, STATS_MS, stats, sizeof(*stats), &got, err))
        return false;
    if (got != sizeof(*stats))
        return error_set(err,
                         "the renderer's statistics have %zu bytes, not %zu: it is of another "
                         "version",
                         got, sizeof(*stats));
    gpu_stats_tame(stats);
    stats->scanout_count = virtio_gpu_of(device)->scene.scanout_count;
    return true;
}

bool virtio_gpu_trace(struct virtio_device *device, bool start, char **events, struct error *err)
{
    struct gpu_request request = {.type = GPU_REQUEST_TRACE, .flags = start ? GPU_TRACE_START : 0};
    char *text = start ? NULL : xmalloc(GPU_PAYLOAD_MAX + 1);
    size_t got = 0;

    if (events)
        *events = NULL;
    if (!call_renderer(virtio_gpu_of(device), &request, TRACE_MS, text, GPU_PAYLOAD_MAX, &got,
                       err)) {
        free(text);
        return false;
    }
    if (start)
        return true;
    text[got < GPU_PAYLOAD_MAX ? got : GPU_PAYLOAD_MAX] = '\0';
    *events = xrealloc(text, got < GPU_PAYLOAD_MAX ? got + 1 : GPU_PAYLOAD_MAX + 1);
    return true;
}
