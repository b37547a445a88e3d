/* Which adapter a picture is on. */
#include <stdlib.h>
#include <string.h>

#include "gpu/core.h"

#define LOAD_WINDOW_NS UINT64_C(500000000)

/* How much of the last time its queue was busy, in percent. */
static unsigned busy_percent(struct gpu_core *core, unsigned adapter, uint64_t now)
{
    struct core_load *load = &core->loads[adapter];
    uint64_t queue_ns = core->canvas->adapters[adapter].queue_ns;
    uint64_t elapsed = now - load->since_ns;
    if (elapsed >= LOAD_WINDOW_NS) {
        load->busy = (queue_ns - load->queue_ns) * 100 / elapsed;
        load->queue_ns = queue_ns;
        load->since_ns = now;
    }
    return load->busy;
}

/* A screen is worth a queue that is always busy: what it will cost is not known before it is drawn.
 * Memory decides between equals. */
unsigned core_choose_adapter(struct gpu_core *core, const struct core_scanout *scanout)
{
    unsigned best = 0, best_load = 0;
    uint64_t now = gpu_trace_now(), best_memory = 0;
    if (core->spread == GPU_SPREAD_NONE)
        return 0;
    for (unsigned i = 0; i < core->canvas->ops->adapter_count; i++) {
        unsigned load = busy_percent(core, i, now);
        uint64_t memory = core->canvas->adapters[i].memory;
        for (unsigned k = 0; k < GPU_MAX_SCANOUTS; k++)
            if (&core->scanouts[k] != scanout && core->scanouts[k].resource &&
                core->scanouts[k].adapter == i)
                load += 100;
        if (i == 0 || load < best_load || (load == best_load && memory < best_memory)) {
            best = i;
            best_load = load;
            best_memory = memory;
        }
    }
    return best;
}

bool core_move(struct gpu_core *core, struct core_resource *resource, unsigned adapter)
{
    const struct gpu_canvas_ops *ops = core->canvas->ops;
    struct gpu_rect all = {0, 0, resource->width, resource->height};
    size_t row = (size_t)resource->width * 4, stride;
    if (resource->adapter == adapter)
        return true;
    struct gpu_image *image = ops->image_create(core->canvas, adapter, resource->format,
                                                resource->width, resource->height);
    if (!image)
        return false;
    uint8_t *pixels = xmalloc(row * resource->height);
    bool moved = ops->read(core->canvas, resource->image, pixels);
    uint8_t *target = moved ? ops->write_begin(core->canvas, image, &all, &stride) : NULL;
    if (target) {
        for (uint32_t y = 0; y < resource->height; y++)
            memcpy(target + y * stride, pixels + y * row, row);
        ops->write_end(core->canvas, image, &all);
        ops->image_destroy(core->canvas, resource->image);
        resource->image = image;
        resource->adapter = adapter;
    } else {
        ops->image_destroy(core->canvas, image);
    }
    free(pixels);
    return target != NULL;
}
