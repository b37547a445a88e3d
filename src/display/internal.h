/* What the displays' hub and the ways to show pictures have between them. */
#pragma once

#include "display/display.h"

/*
 * A way to show pictures. Everything runs on the display's thread, creation too.
 */
struct sink {
    const struct sink_ops *ops;
    struct display *display;
};

struct sink_ops {
    /* Whether anybody looks at that scanout. */
    bool (*watched)(struct sink *sink, unsigned scanout);
    /* `rect` of the frame has changed. NULL: the scanout is off. The frame is drawn on for as long
     * as it is the newest; whoever reads it later keeps a reference. */
    void (*show)(struct sink *sink, unsigned scanout, struct gpu_frame *frame,
                 const struct gpu_rect *rect);
    void (*destroy)(struct sink *sink);
};

/* `arguments`: what is behind "NAME:", or NULL. */
#ifdef HAVE_LIBVNCSERVER
struct sink *vnc_create(struct display *display, const char *arguments, struct error *err);
#endif
#ifdef HAVE_SDL2
struct sink *sdl_create(struct display *display, const char *arguments, struct error *err);
#endif

struct loop *display_loop(struct display *display);
const struct display_devices *display_devices(struct display *display);
/* Somebody began to look: has the scanout drawn and shown. */
void display_look(struct display *display, unsigned scanout);
