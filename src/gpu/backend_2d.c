/* The 2d back end: pixman, in this process. */
#include <stdio.h>

#include "gpu/manager.h"

static void probe(struct gpu_manager *manager, struct gpu_backend *backend)
{
    struct error err;
    struct gpu_canvas *canvas = gpu_canvas_pixman_create(&err);
    if (canvas)
        canvas->ops->destroy(canvas);
    else
        gpu_backend_refuse(backend, "%s", err.message);
}

static bool choose(const struct gpu_backend *backend, const char *adapter,
                   struct gpu_choice *choice, struct error *err)
{
    return !adapter || error_set(err, "it has no adapters: leave adapter=%s out", adapter);
}

static struct gpu_renderer *open_thread(const struct gpu_choice *choice, struct error *err)
{
    return gpu_thread_create(err);
}

const struct gpu_backend_type gpu_backend_2d = {
    .name = "2d",
    .description = "virtio-gpu, drawn by this machine's processor",
    .probe = probe,
    .choose = choose,
    .open = open_thread,
};
