/* The displays' hub: asks for frames, and hands them to what shows them. */
#include "display/display.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "display/internal.h"

#define FRAME_NS (UINT64_C(1000000000) / 60)

/* A scanout. */
struct screen {
    struct display *display;
    unsigned number;
    _Atomic bool damaged;
    /* Guarded by the display's lock: what a renderer's thread hands over. */
    bool arrived;
    struct gpu_frame *frame;
    struct gpu_rect rect;
    /* The display's thread's. */
    bool rendering;
    uint64_t next; /* when it may be drawn again */
    struct gpu_frame *shown;
};

struct display {
    struct display_devices devices;
    const struct kind *kind;
    const char *arguments;
    struct error *err; /* of display_create, until `started` */
    pthread_t thread;
    sem_t started;
    pthread_mutex_t lock;
    struct loop *loop;
    struct loop_task *pump, *end;
    struct loop_timer *timer;
    struct sink *sink;
    bool ending;
    struct screen screens[GPU_MAX_SCANOUTS];
};

static const struct kind {
    const char *name;
    struct sink *(*create)(struct display *display, const char *arguments, struct error *err);
    const char *remedy; /* where it was not built in */
} kinds[] = {
    {"none", NULL, NULL},
#ifdef HAVE_LIBVNCSERVER
    {"vnc", vnc_create, NULL},
#else
    {"vnc", NULL, "libvncserver-dev"},
#endif
#ifdef HAVE_SDL2
    {"sdl", sdl_create, NULL},
#else
    {"sdl", NULL, "libsdl2-dev"},
#endif
};

struct loop *display_loop(struct display *display)
{
    return display->loop;
}

const struct display_devices *display_devices(struct display *display)
{
    return &display->devices;
}

/* --- On threads of others ----------------------------------------------------------------------
 */

static void viewer_damaged(void *opaque, unsigned scanout)
{
    struct display *display = opaque;
    display->screens[scanout].damaged = true;
    loop_schedule(display->pump);
}

/* A frame of another size, or none, comes by a render as any other. */
static void viewer_changed(void *opaque, unsigned scanout, uint32_t width, uint32_t height)
{
    viewer_damaged(opaque, scanout);
}

static void rendered(void *opaque, struct gpu_frame *frame, const struct gpu_rect *rect)
{
    struct screen *screen = opaque;
    struct display *display = screen->display;
    pthread_mutex_lock(&display->lock);
    screen->arrived = true;
    screen->frame = frame ? gpu_frame_get(frame) : NULL;
    screen->rect = *rect;
    /* With the lock held: the display may end as soon as it has seen the frame. */
    loop_schedule(display->pump);
    pthread_mutex_unlock(&display->lock);
}

/* --- On the display's thread -------------------------------------------------------------------
 */

static void show_arrived(struct screen *screen)
{
    struct display *display = screen->display;
    pthread_mutex_lock(&display->lock);
    bool arrived = screen->arrived;
    struct gpu_frame *frame = screen->frame;
    struct gpu_rect rect = screen->rect;
    screen->arrived = false;
    screen->frame = NULL;
    pthread_mutex_unlock(&display->lock);
    if (!arrived)
        return;
    screen->rendering = false;
    bool other = frame != screen->shown;
    /* Nothing, though there was damage: a screenshot has drawn it, and knows what it was. */
    if (frame && (other || gpu_rect_empty(&rect)))
        rect = (struct gpu_rect){0, 0, frame->width, frame->height};
    if (!display->ending && (other || frame))
        display->sink->ops->show(display->sink, screen->number, frame, &rect);
    gpu_frame_put(screen->shown);
    screen->shown = frame;
}

/* Returns when the screen may be drawn, UINT64_MAX if it needs not be. */
static uint64_t draw_damaged(struct screen *screen, uint64_t now)
{
    struct display *display = screen->display;
    if (screen->rendering || !screen->damaged ||
        !display->sink->ops->watched(display->sink, screen->number))
        return UINT64_MAX;
    if (now < screen->next)
        return screen->next;
    screen->next = now + FRAME_NS;
    screen->rendering = true;
    screen->damaged = false;
    virtio_gpu_render(display->devices.gpu, screen->number, rendered, screen);
    return UINT64_MAX;
}

static void pump(void *opaque)
{
    struct display *display = opaque;
    uint64_t now = loop_now(), next = UINT64_MAX;
    bool rendering = false;
    for (unsigned i = 0; i < display->devices.scanout_count; i++) {
        struct screen *screen = &display->screens[i];
        show_arrived(screen);
        uint64_t due = display->ending ? UINT64_MAX : draw_damaged(screen, now);
        next = due < next ? due : next;
        rendering |= screen->rendering;
    }
    loop_set_timer(display->timer, next);
    if (display->ending && !rendering)
        loop_quit(display->loop);
}

static void end(void *opaque)
{
    struct display *display = opaque;
    display->ending = true;
    pump(display);
}

void display_look(struct display *display, unsigned scanout)
{
    display->screens[scanout].damaged = true;
    loop_schedule(display->pump);
}

static void *run(void *opaque)
{
    struct display *display = opaque;
    pthread_setname_np(pthread_self(), "display");
    display->loop = loop_create();
    display->pump = loop_add_task(display->loop, pump, display);
    display->end = loop_add_task(display->loop, end, display);
    display->timer = loop_add_timer(display->loop, pump, display);
    display->sink = display->kind->create(display, display->arguments, display->err);
    bool good = display->sink;
    sem_post(&display->started);
    if (good) {
        loop_run(display->loop);
        display->sink->ops->destroy(display->sink);
    }
    loop_remove_timer(display->timer);
    loop_remove_task(display->end);
    loop_remove_task(display->pump);
    loop_destroy(display->loop);
    return NULL;
}

/* --- Creation ----------------------------------------------------------------------------------
 */

static const struct kind *find_kind(const char *specification, struct error *err)
{
    size_t length = strcspn(specification, ":,");
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (strncmp(kinds[i].name, specification, length) || kinds[i].name[length])
            continue;
        if (!kinds[i].remedy)
            return &kinds[i];
        error_set(err, "display '%s': this build has no %s; install %s and build again",
                  specification, kinds[i].name, kinds[i].remedy);
        return NULL;
    }
    char *name = xasprintf("%.*s", (int)length, specification);
    struct suggestion nearest;
    suggest_begin(&nearest, name);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        suggest_offer(&nearest, kinds[i].name);
    error_set(err, "display '%s' is unknown; use none, sdl or vnc:PORT%s%s%s", name,
              nearest.name ? " (did you mean " : "", nearest.name ? nearest.name : "",
              nearest.name ? "?)" : "");
    free(name);
    return NULL;
}

static bool start(struct display *display, struct error *err)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old); /* signals are for other threads */
    int number = pthread_create(&display->thread, NULL, run, display);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (number)
        return error_set_errno(err, number, "no thread for the display");
    while (sem_wait(&display->started))
        ;
    if (display->sink)
        return true;
    pthread_join(display->thread, NULL);
    return false;
}

static void free_display(struct display *display)
{
    for (unsigned i = 0; i < GPU_MAX_SCANOUTS; i++) {
        gpu_frame_put(display->screens[i].frame);
        gpu_frame_put(display->screens[i].shown);
    }
    sem_destroy(&display->started);
    pthread_mutex_destroy(&display->lock);
    free(display);
}

struct display *display_create(const char *specification, const struct display_devices *devices,
                               struct error *err)
{
    const struct kind *kind = find_kind(specification, err);
    if (!kind)
        return NULL;
    const char *arguments = specification + strlen(kind->name);
    if (*arguments && (!kind->create || *arguments != ':')) {
        error_set(err, "display '%s': nothing may follow '%s'", specification, kind->name);
        return NULL;
    }
    if (kind->create && (!devices->gpu || !devices->scanout_count)) {
        error_set(err,
                  "display '%s' has nothing to show: the machine has no GPU; add one with "
                  "--gpu",
                  specification);
        return NULL;
    }
    struct display *display = xcalloc(1, sizeof(*display));
    display->devices = *devices;
    display->kind = kind;
    display->arguments = *arguments ? arguments + 1 : NULL;
    display->err = err;
    pthread_mutex_init(&display->lock, NULL);
    sem_init(&display->started, 0, 0);
    for (unsigned i = 0; i < GPU_MAX_SCANOUTS; i++) {
        display->screens[i].display = display;
        display->screens[i].number = i;
        display->screens[i].damaged = true;
    }
    if (!kind->create)
        return display;
    if (!start(display, err)) {
        free_display(display);
        return NULL;
    }
    const struct virtio_gpu_viewer viewer = {viewer_changed, viewer_damaged, display};
    virtio_gpu_set_viewer(devices->gpu, &viewer);
    return display;
}

void display_destroy(struct display *display)
{
    if (!display)
        return;
    if (display->kind->create) {
        virtio_gpu_set_viewer(display->devices.gpu, NULL);
        loop_schedule(display->end);
        pthread_join(display->thread, NULL);
    }
    free_display(display);
}
