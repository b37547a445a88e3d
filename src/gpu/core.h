/* Private to gpu/: what the core's files share. */
#pragma once

#include "gpu/gpu.h"

/* Bytes of a backing at [offset, offset + size) are at host + offset - start. */
struct core_range {
    uint64_t start, size;
    const uint8_t *host;
};

struct core_resource {
    struct core_resource *next; /* of its hash bucket */
    uint32_t id;
    bool blob;
    uint32_t format, width, height; /* of a picture */
    uint64_t blob_size;
    struct gpu_image *image; /* of a picture */
    unsigned adapter;
    struct core_range *ranges;
    size_t range_count;
    uint64_t backing_size;
};

struct core_cursor {
    struct gpu_image *image; /* NULL: hidden */
    int32_t x, y;            /* of the hot spot */
    uint32_t hot_x, hot_y;
    uint32_t format;
    unsigned adapter; /* that the image is on */
    uint8_t pixels[GPU_CURSOR_SIZE * GPU_CURSOR_SIZE * 4];
};

struct core_scanout {
    struct core_resource *resource; /* NULL: off */
    struct gpu_rect rect;           /* of the resource's picture */
    unsigned adapter;
    /* Of a blob: the picture that its bytes are, as large as `rect`, and what of it is out of date,
     * in its own pixels. */
    struct gpu_image *image;
    uint32_t blob_format, blob_stride;
    uint64_t blob_offset;
    struct gpu_rect stale;

    struct gpu_rect damage; /* in the scanout's pixels: `rect` moved to 0, 0 */
    bool flushed;           /* since the last frame */
    struct core_cursor cursor;

    /* Where frames go. */
    uint8_t *pixels; /* NULL: nowhere */
    size_t size;
    uint32_t width, height, stride;
    bool blank; /* off, and not yet drawn as such */
};

#define CORE_BUCKETS     1024
#define CORE_MAX_MEMORY  8                   /* regions */
#define CORE_MAX_PICTURE (UINT64_C(1) << 30) /* bytes of all pictures */

struct gpu_core {
    struct gpu_canvas *canvas;
    uint32_t spread;
    struct core_memory {
        uint64_t gpa, size;
        const uint8_t *host;
    } memory[CORE_MAX_MEMORY];
    size_t memory_count;
    struct core_resource *buckets[CORE_BUCKETS];
    size_t resource_count;
    uint64_t picture_bytes;
    struct core_scanout scanouts[GPU_MAX_SCANOUTS];
    struct gpu_counters counters[GPU_MAX_SCANOUTS + 1]; /* the last: of no scanout */
    struct gpu_trace *trace;                            /* kept while it is off, too */
    struct core_load {
        uint64_t since_ns, queue_ns; /* when the share was computed last, and the load's value */
        unsigned busy;               /* percent of the time before that */
    } loads[GPU_MAX_ADAPTERS];
};

/* --- backing.c --- */

/* Replaces the backing; false if a range is not RAM. No ranges: takes it away. */
bool core_set_backing(struct gpu_core *core, struct core_resource *resource,
                      const struct gpu_range *ranges, uint32_t count);

/* Copies `rows` rows of row_size bytes, `stride` bytes apart in the backing from `offset` on, to
 * rows of `target`. False, with nothing copied, if they are not all in the backing. */
bool core_gather(const struct core_resource *resource, uint64_t offset, uint64_t stride,
                 size_t row_size, uint32_t rows, uint8_t *target, size_t target_stride);
bool core_backing_holds(const struct core_resource *resource, uint64_t offset, uint64_t stride,
                        size_t row_size, uint32_t rows);

/* --- compose.c: a scanout's frames --- */

/* Something of a resource's picture has changed, or of a scanout's. */
void core_damage(struct core_scanout *scanout, const struct gpu_rect *rect);
void core_damage_all(struct core_scanout *scanout);
/* Where the cursor is now. */
void core_damage_cursor(struct core_scanout *scanout);

/* Draws what is damaged; *drawn is that, in the output's pixels. */
enum gpu_status core_render(struct gpu_core *core, struct core_scanout *scanout,
                            struct gpu_rect *drawn);

/* --- spread.c: which adapter --- */

/* The adapter with the least load, for a scanout or, with NULL, for a picture. */
unsigned core_choose_adapter(struct gpu_core *core, const struct core_scanout *scanout);
/* Brings a picture to an adapter; false if there is no memory. */
bool core_move(struct gpu_core *core, struct core_resource *resource, unsigned adapter);

/* --- trace.c --- */

struct gpu_trace *gpu_trace_create(void);
void gpu_trace_destroy(struct gpu_trace *trace);
void gpu_trace_clear(struct gpu_trace *trace);
/* The events as text, which the caller frees. */
char *gpu_trace_format(const struct gpu_trace *trace, size_t *size);
