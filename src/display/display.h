/*
 * Displays: what shows a guest's scanouts to people, and brings their keys and pointers back.
 *
 * A display has a thread with a loop of its own, as encoding a frame for a viewer takes longer than
 * a device may wait. It asks for a frame when there is damage and somebody looks, at most 60 times
 * a second; where nobody looks nothing is drawn.
 */
#pragma once

#include "base/base.h"
#include "virtio/gpu.h"
#include "virtio/input.h"

struct display;

/* What a display may send to; NULL: there is none. Devices outlive the display. */
struct display_devices {
    struct virtio_device *gpu, *keyboard, *tablet, *mouse;
    unsigned scanout_count;
    void (*closed)(void *opaque); /* a window was closed; on the display's thread. NULL: ignored */
    void *closed_opaque;
};

/*
 * `specification`: "none"; "sdl"; "vnc:[HOST:]PORT[,password=TEXT][,password-file=FILE]
 * [,no-password]". VNC listens on 127.0.0.1 unless HOST says otherwise; scanout n is on PORT + n.
 * Without a password one is made up, and told on the log. NULL with err set if it is wrong or not
 * to be had.
 */
struct display *display_create(const char *specification, const struct display_devices *devices,
                               struct error *err);
void display_destroy(struct display *display); /* accepts NULL */

/* --- Pictures ----------------------------------------------------------------------------------
 */

/* Draws a scanout's frame and waits for it, up to timeout_ms; a reference for the caller. NULL with
 * err set if it is off. Not from a thread of the renderer's. */
struct gpu_frame *display_capture(struct virtio_device *gpu, unsigned scanout, unsigned timeout_ms,
                                  struct error *err);

/* Writes a frame as PNG, or as PPM (P6) where the name ends so. A file that was there is replaced
 * when the new one is whole. */
bool picture_write(const struct gpu_frame *frame, const char *path, struct error *err);

/* --- Input -------------------------------------------------------------------------------------
 */

/* The Linux key code of a name that QEMU's send-key takes ("ret", "shift", "a"), or of "KEY_...";
 * 0 if there is none. */
uint16_t key_by_name(const char *name);
/* Of an X11 keysym, as VNC sends them; *shift: whether it stands for the key with shift, on a US
 * keyboard. 0 if there is none. */
uint16_t key_by_keysym(uint32_t keysym, bool *shift);

/* The input devices of a machine with a screen, as they are created and what they get. */
struct virtio_device *input_keyboard_create(struct loop *loop);
struct virtio_device *input_tablet_create(struct loop *loop);
struct virtio_device *input_mouse_create(struct loop *loop);

bool input_key(const struct display_devices *devices, uint16_t key, bool down);
/* The pointer in a picture of that size; goes to the tablet, or to nothing. */
bool input_pointer(const struct display_devices *devices, uint32_t x, uint32_t y, uint32_t width,
                   uint32_t height);
bool input_motion(const struct display_devices *devices, int32_t dx, int32_t dy);
/* BTN_LEFT, BTN_RIGHT...; to the tablet, or where there is none or `relative` to the mouse. */
bool input_button(const struct display_devices *devices, uint16_t button, bool down, bool relative);
bool input_wheel(const struct display_devices *devices, int32_t vertical, int32_t horizontal);
