/* The canvas on WebGPU: a slot for each adapter. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "renderer/canvas.h"

static void slot_finish(struct slot *slot)
{
    if (!slot->device)
        return;
    if (slot->encoder)
        wgpuCommandEncoderRelease(slot->encoder);
    gpu_device_wait(slot->device, NULL);
    for (size_t i = 0; i < STAGING_COUNT; i++)
        slot_drop_buffer(slot, &slot->staging[i].buffer, slot->staging[i].size);
    frame_finish(slot);
    slot->load->pipelines = 0;
    gpu_device_put(slot->device);
}

static void canvas_destroy(struct gpu_canvas *canvas)
{
    struct wgpu_canvas *self = canvas_of(canvas);
    for (unsigned i = 0; i < self->slot_count; i++)
        slot_finish(&self->slots[i]);
    free(self);
}

static const struct gpu_canvas_ops wgpu_ops = {
    .name = "wgpu",
    .image_create = picture_create,
    .image_destroy = picture_destroy,
    .write_begin = picture_write_begin,
    .write_end = picture_write_end,
    .read = picture_read,
    .compose = frame_compose,
    .destroy = canvas_destroy,
};

struct gpu_canvas *wgpu_canvas_create(const struct adapters *adapters, const uint32_t *indices,
                                      unsigned count, struct error *err)
{
    struct wgpu_canvas *self = xcalloc(1, sizeof(*self));
    self->ops = wgpu_ops;
    self->ops.adapter_count = count;
    self->base.ops = &self->ops;
    for (unsigned i = 0; i < count; i++) {
        struct slot *slot = &self->slots[self->slot_count++];
        slot->load = &self->base.adapters[i];
        slot->device = gpu_device_open(adapters, indices[i], err);
        if (!slot->device) {
            canvas_destroy(&self->base);
            return NULL;
        }
        slot->load->pipelines = DEVICE_PIPELINES;
        frame_init(slot);
        if (slot_failed(&self->base, slot)) {
            error_set(err, "%s cannot be used: %s", slot->device->name,
                      self->base.message[0] ? self->base.message : "no memory");
            canvas_destroy(&self->base);
            return NULL;
        }
        snprintf(self->base.adapter_names[i], sizeof(self->base.adapter_names[i]), "%s",
                 slot->device->name);
    }
    return &self->base;
}
