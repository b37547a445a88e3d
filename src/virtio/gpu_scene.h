/*
 * What a guest has made on its GPU: resources with their backings, scanouts, cursors. Checked and
 * bounded here; told to the renderer by requests, now, and all over again to a new renderer.
 *
 * Private to virtio/gpu*.c. Used under the device's lock.
 */
#pragma once

#include "gpu/gpu.h"

/* Of section 5.7.6.7. */
enum gpu_response {
    GPU_RESP_OK_NODATA = 0x1100,
    GPU_RESP_OK_DISPLAY_INFO = 0x1101,
    GPU_RESP_OK_EDID = 0x1104,
    GPU_RESP_OK_RESOURCE_UUID = 0x1105,
    GPU_RESP_ERR_UNSPEC = 0x1200,
    GPU_RESP_ERR_OUT_OF_MEMORY = 0x1201,
    GPU_RESP_ERR_INVALID_SCANOUT_ID = 0x1202,
    GPU_RESP_ERR_INVALID_RESOURCE_ID = 0x1203,
    GPU_RESP_ERR_INVALID_PARAMETER = 0x1205,
};

#define SCENE_UUID_SIZE 16
#define SCENE_MIN_SIZE  64 /* pixels of a display, each way */

struct scene_resource {
    struct scene_resource *next; /* of its hash bucket */
    uint32_t id;
    uint64_t token;                 /* no other resource of the scene has had it */
    uint64_t blob_size;             /* 0: a picture */
    uint32_t format, width, height; /* of a picture */
    struct gpu_range *ranges;
    uint32_t range_count; /* 0: no backing */
    uint64_t backing_size;
    bool has_uuid;
    uint8_t uuid[SCENE_UUID_SIZE];
};

/* What a scanout shows. */
struct scene_view {
    uint32_t id; /* 0: off */
    struct gpu_rect rect;
    uint32_t format, width, height, stride; /* of a blob, else 0 */
    uint64_t offset;
};

struct scene_cursor {
    uint32_t id; /* 0: hidden */
    int32_t x, y;
    uint32_t hot_x, hot_y;
};

struct scene_scanout {
    struct scene_view view;
    struct scene_cursor cursor;
    uint32_t width, height;             /* of the display */
    bool connected;                     /* the display is there */
    uint32_t frame_width, frame_height; /* that are wanted; 0: as the view */
    struct gpu_frame *frame;            /* NULL while it is off */
};

/* Told under the device's lock. */
struct scene_ops {
    void (*submit)(void *opaque, struct gpu_request *request, const void *payload, size_t size,
                   int fd);
    void (*changed)(void *opaque, unsigned scanout); /* the size of its view has */
    void (*damaged)(void *opaque, unsigned scanout);
};

#define SCENE_BUCKETS 1024

struct gpu_scene {
    const char *name; /* of the device, for messages */
    const struct scene_ops *ops;
    void *opaque;
    struct memory *memory;
    unsigned scanout_count;
    struct scene_scanout scanouts[GPU_MAX_SCANOUTS];
    struct scene_resource *buckets[SCENE_BUCKETS];
    uint32_t resource_count;
    uint64_t picture_bytes; /* of all pictures */
    uint64_t range_count;   /* of all backings */
    uint64_t last_token;
};

/* Frees everything, and tells nobody. */
void scene_finish(struct gpu_scene *scene);

struct scene_resource *scene_find(const struct gpu_scene *scene, uint32_t id);

/* What the guest asks for. Each returns an enum gpu_response, and has no effect for an error. */
uint32_t scene_create_picture(struct gpu_scene *scene, uint32_t id, uint32_t format, uint32_t width,
                              uint32_t height);
/* Takes over `ranges`, made by scene_add_range, for an error too. No ranges: without a backing. */
uint32_t scene_create_blob(struct gpu_scene *scene, uint32_t id, uint64_t size,
                           struct gpu_range *ranges, uint32_t count);
uint32_t scene_unref(struct gpu_scene *scene, uint32_t id);
uint32_t scene_attach(struct gpu_scene *scene, uint32_t id, struct gpu_range *ranges,
                      uint32_t count);
uint32_t scene_detach(struct gpu_scene *scene, uint32_t id);
uint32_t scene_transfer(struct gpu_scene *scene, uint32_t id, const struct gpu_rect *rect,
                        uint64_t offset);
uint32_t scene_flush(struct gpu_scene *scene, uint32_t id, const struct gpu_rect *rect);
/* `view` of a picture if its width is 0. */
uint32_t scene_show(struct gpu_scene *scene, uint32_t scanout, const struct scene_view *view);
uint32_t scene_set_cursor(struct gpu_scene *scene, uint32_t scanout,
                          const struct scene_cursor *cursor);
uint32_t scene_move_cursor(struct gpu_scene *scene, uint32_t scanout, int32_t x, int32_t y);
uint32_t scene_uuid(struct gpu_scene *scene, uint32_t id, uint8_t uuid[SCENE_UUID_SIZE]);

/*
 * Adds [gpa, gpa + size) to the end of a list that has room for scene_max_pieces more, merged with
 * its last range where it follows it, and cut where regions of RAM end. False if it is empty or not
 * all RAM.
 */
bool scene_add_range(const struct gpu_scene *scene, struct gpu_range *ranges, uint32_t *count,
                     uint64_t gpa, uint64_t size);
uint32_t scene_max_pieces(const struct gpu_scene *scene);

/* The frames that are wanted of a scanout have another size now; 0: as its view. */
void scene_set_frame_size(struct gpu_scene *scene, unsigned scanout, uint32_t width,
                          uint32_t height);

/* Destroys all resources, here and in the renderer. */
void scene_clear(struct gpu_scene *scene);
/* The renderer could not create a resource: it is gone here as well. */
void scene_forget(struct gpu_scene *scene, uint32_t id, uint64_t token);

/* --- gpu_scene_state.c --- */

/* Tells everything to a renderer that knows nothing but guest RAM. */
void scene_replay(struct gpu_scene *scene);
/* Transfers what the backing has of a picture: where the renderer's copy is lost. A guest that
 * changed the backing since its last transfer sees more of it than it asked for. */
void scene_transfer_all(struct gpu_scene *scene, const struct scene_resource *resource);

/* Loads into a scene that was cleared, by what the guest could have asked for. A load that fails
 * leaves a part of it. */
void scene_state(struct gpu_scene *scene, struct stream *stream);
