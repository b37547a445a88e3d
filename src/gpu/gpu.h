/*
 * What draws for a machine: renderers, and the manager that picks one.
 *
 * virtio/'s GPU turns what the guest asks for into requests (message.h); a renderer executes them
 * against guest RAM and puts frames into memory that displays read.
 */
#pragma once

#include "base/base.h"
#include "gpu/message.h"
#include "memory/memory.h"

/* --- Frames: what a scanout looks like, as memory that a renderer and displays share -------------
 *
 * Counted references, any thread. Pixels are GPU_FORMAT_B8G8R8X8, the X bytes 0xff. They change
 * whenever a render request for the frame's scanout is under way.
 */

struct gpu_frame {
    uint32_t width, height;
    uint32_t stride; /* bytes */
    uint8_t *pixels;
    size_t size; /* bytes of the mapping */
    int fd;      /* a memfd, which cannot shrink */
    _Atomic unsigned references;
};

/* A black frame with one reference. */
struct gpu_frame *gpu_frame_create(uint32_t width, uint32_t height, struct error *err);
struct gpu_frame *gpu_frame_get(struct gpu_frame *frame); /* one reference more */
void gpu_frame_put(struct gpu_frame *frame);              /* one less; accepts NULL */

/* --- Renderers ----------------------------------------------------------------------------------
 *
 * `submit` takes requests from any thread and never waits. The listener is told on a thread of the
 * renderer's: `answered` once for each request, in the order of submission, with the payload that
 * is valid until it returns; `lost` once, if the renderer is gone (all requests without an answer
 * have then had GPU_LOST for one, and so has each that is submitted later, at once). A listener
 * must not wait for the renderer, nor destroy it.
 */

struct gpu_renderer;

struct gpu_listener {
    void (*answered)(void *opaque, const struct gpu_answer *answer, const void *payload);
    void (*lost)(void *opaque, const char *why); /* "it ended by signal 11" */
    void *opaque;
};

struct gpu_renderer_ops {
    const char *name; /* "2d" */
    /* Queues a complete request; takes over fd (-1: none). Called with `lock` held, so answers come
     * from another thread, GPU_LOST too. */
    void (*submit)(struct gpu_renderer *renderer, const struct gpu_request *request,
                   const void *payload, int fd);
    /* Makes guest RAM known, before requests that need it. */
    bool (*add_memory)(struct gpu_renderer *renderer, const struct memory_ram *ram,
                       struct error *err);
    /* Ends it, frees the instance; nothing is told any more. */
    void (*destroy)(struct gpu_renderer *renderer);
};

/* The first member of each implementation's. */
struct gpu_renderer {
    const struct gpu_renderer_ops *ops;
    struct gpu_listener listener;
    _Atomic uint64_t next_serial;
    struct gpu_caller *callers; /* threads in gpu_renderer_call */
    pthread_mutex_t lock;       /* guards callers and keeps submissions in the order of serials */
    pthread_cond_t called;
};

/* For implementations. */
void gpu_renderer_init(struct gpu_renderer *renderer, const struct gpu_renderer_ops *ops);
void gpu_renderer_finish(struct gpu_renderer *renderer);
/* Passes an answer on: to the thread that waits for it, or to the listener. */
void gpu_renderer_answer(struct gpu_renderer *renderer, const struct gpu_answer *answer,
                         const void *payload);

/* Ends a text of a renderer's, which is not to be trusted, and takes control characters out: it may
 * go to a terminal. */
void gpu_text_tame(char *text, size_t size);

/* Before the first submission that the listener is to hear of. */
void gpu_renderer_listen(struct gpu_renderer *renderer, const struct gpu_listener *listener);

/*
 * Submits a request: type, its own fields and `count` or the like are set by the caller, size and
 * serial here. Returns the serial. The payload is copied; fd is duplicated where it must live on.
 */
uint64_t gpu_renderer_submit(struct gpu_renderer *renderer, struct gpu_request *request,
                             const void *payload, size_t payload_size, int fd);

/*
 * Submits a request and waits for its answer, which the listener does not hear of; false with err
 * set for a status that is not GPU_OK, or after timeout_ms. `payload`, if not NULL, gets up to
 * payload_size bytes of the answer's, and *got how many bytes it has. Not from a listener.
 */
bool gpu_renderer_call(struct gpu_renderer *renderer, struct gpu_request *request,
                       unsigned timeout_ms, struct gpu_answer *answer, void *payload,
                       size_t payload_size, size_t *got, struct error *err);

bool gpu_renderer_add_memory(struct gpu_renderer *renderer, const struct memory_ram *ram,
                             struct error *err);
void gpu_renderer_destroy(struct gpu_renderer *renderer); /* accepts NULL */

/* The 2d back end: pixman on a thread of this process. NULL where pixman was not built in. */
struct gpu_renderer *gpu_thread_create(struct error *err);

/*
 * The wgpu back end: starts hartvisor-gpu, which stands beside this program, or in libexec, or
 * where the environment's HARTVISOR_GPU says, and speaks with it. Adapters are opened by
 * GPU_REQUEST_OPEN. A renderer that leaves a request unanswered for `watchdog_ms` (0: 20 s) is
 * killed and lost.
 */
struct gpu_renderer *gpu_process_create(unsigned watchdog_ms, struct error *err);

/* --- The core of every renderer: requests against a canvas ---------------------------------------
 *
 * One thread. A canvas knows pixels and nothing else; the core has resources, backings, scanouts,
 * cursors, damage and statistics.
 */

struct gpu_core;
struct gpu_canvas;
struct gpu_image;

/* What a scanout's frame is made of. All is within its picture, and no size is 0. */
struct gpu_composition {
    struct gpu_image *image;
    struct gpu_rect source;     /* of the image, scaled to the output's size */
    struct gpu_image *cursor;   /* or NULL; alpha is premultiplied */
    int32_t cursor_x, cursor_y; /* of its upper left corner, in pixels of the source */
    uint32_t width, height;     /* of the output */
};

/*
 * Pixels of the output are, exactly: the source's pixel where the sizes are equal; else bilinear as
 * pixman's (7 bits of weight, edges repeated), within a step. The cursor is scaled alike, and put
 * over with round(d * (255 - a) / 255) + s.
 */
struct gpu_canvas_ops {
    const char *name;
    unsigned adapter_count;
    /* A black image on that adapter; NULL if there is no memory for it. */
    struct gpu_image *(*image_create)(struct gpu_canvas *canvas, unsigned adapter, uint32_t format,
                                      uint32_t width, uint32_t height);
    void (*image_destroy)(struct gpu_canvas *canvas, struct gpu_image *image);
    /* Where the pixels of a rectangle are to be written, rows *stride bytes apart; NULL if there is
     * no memory. The rectangle is then written whole, and ended. */
    uint8_t *(*write_begin)(struct gpu_canvas *canvas, struct gpu_image *image,
                            const struct gpu_rect *rect, size_t *stride);
    void (*write_end)(struct gpu_canvas *canvas, struct gpu_image *image,
                      const struct gpu_rect *rect);
    /* Copies a whole image's pixels out, rows width * 4 bytes apart. */
    bool (*read)(struct gpu_canvas *canvas, struct gpu_image *image, uint8_t *pixels);
    /* Draws the rectangle `damage` of the output into `pixels`, the output's first pixel. */
    bool (*compose)(struct gpu_canvas *canvas, const struct gpu_composition *composition,
                    const struct gpu_rect *damage, uint8_t *pixels, size_t stride);
    void (*destroy)(struct gpu_canvas *canvas);
};

struct gpu_canvas {
    const struct gpu_canvas_ops *ops;
    /* The counters of the scanout, or of no scanout, that it works for now; set by the core. The
     * canvas counts what it does. What is alive, and memory, is counted in `adapters` only. */
    struct gpu_counters *counters;
    struct gpu_adapter_load adapters[GPU_MAX_ADAPTERS];
    char adapter_names[GPU_MAX_ADAPTERS][128];
    struct gpu_trace *trace; /* NULL: off */
    char message[200];       /* why something failed; empty: no memory */
};

/* The core owns the canvas. `spread` is an enum gpu_spread. */
struct gpu_core *gpu_core_create(struct gpu_canvas *canvas, uint32_t spread);
void gpu_core_destroy(struct gpu_core *core);

/* Guest RAM, which stays mapped. */
void gpu_core_add_memory(struct gpu_core *core, uint64_t gpa, uint64_t size, const uint8_t *host);

/*
 * Executes one request; the payload has request->size - sizeof(*request) bytes and lies on a
 * multiple of 8. Fills the answer
 * and sets *payload_out to memory that the caller frees, or NULL. FENCE and everything from OUTPUT
 * on is the core's; the rest is the renderer's and is GPU_BAD_REQUEST here. `fd` stays the
 * caller's.
 */
void gpu_core_execute(struct gpu_core *core, const struct gpu_request *request, const void *payload,
                      int fd, struct gpu_answer *answer, void **payload_out);

/* Pixels by pixman; NULL where it was not built in. */
struct gpu_canvas *gpu_canvas_pixman_create(struct error *err);

/* A span of work for the timeline, from a gpu_trace_now to now; does nothing while trace is NULL.
 * `scanout` -1: none. */
uint64_t gpu_trace_now(void);
void gpu_trace_span(struct gpu_trace *trace, const char *name, int scanout, uint64_t start_ns);

/* --- The manager's inside ----------------------------------------------------------------------
 */

/* Opens the selected back end's renderer, adapters and all; NULL with err set. */
struct gpu_renderer *gpu_manager_open(struct gpu_manager *manager, struct error *err);

/* The renderer was lost: opens it anew, or after three losses within a minute the next back end of
 * the chain, and says so on the log. NULL: there is none left. */
struct gpu_renderer *gpu_manager_reopen(struct gpu_manager *manager, struct error *err);

/* Whether the selected back end is one that draws: virtio-gpu. */
bool gpu_manager_draws(const struct gpu_manager *manager);

/* Whether the selected back end draws in another process, so that guest RAM must be shared. */
bool gpu_manager_shares_memory(const struct gpu_manager *manager);

struct json_object;

/* Statistics as gpu_stats_print has them in JSON; the caller's. */
struct json_object *gpu_stats_object(const struct gpu_stats *stats);
/* And back; what is missing is 0. */
void gpu_stats_parse(struct json_object *object, struct gpu_stats *stats);
/* Makes what a renderer told keep the rules: counts, indices, ends of texts. */
void gpu_stats_tame(struct gpu_stats *stats);
