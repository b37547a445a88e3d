/* Pictures in windows, by SDL. */
#ifdef HAVE_SDL2

#    include <SDL.h>

#    include <linux/input-event-codes.h>
#    include <stdio.h>
#    include <stdlib.h>

#    include "display/internal.h"

#    define POLL_NS UINT64_C(8000000) /* SDL has no descriptor that says that there are events */

struct window {
    SDL_Window *window;
    SDL_Renderer *renderer;
    SDL_Texture *texture;
    int texture_width, texture_height;
    struct gpu_frame *frame; /* NULL: off */
    bool fitted;             /* had the size of the guest's first picture */
    bool opened;             /* the first one is at once, others with their first picture */
    bool hidden;             /* by the user, later */
};

struct sdl {
    struct sink sink;
    struct loop_timer *timer;
    unsigned count;
    bool started, grabbed;
    uint8_t held[KEY_MAX / 8 + 1];
    struct window windows[GPU_MAX_SCANOUTS];
};

static struct sdl *sdl_of(struct sink *sink)
{
    return container_of(sink, struct sdl, sink);
}

static const struct display_devices *devices_of(struct sdl *sdl)
{
    return display_devices(sdl->sink.display);
}

/* --- Pictures ----------------------------------------------------------------------------------
 */

static void present(struct window *window)
{
    SDL_RenderClear(window->renderer);
    if (window->frame && window->texture)
        SDL_RenderCopy(window->renderer, window->texture, NULL, NULL);
    SDL_RenderPresent(window->renderer);
}

/* The renderer scales, as it does that best. */
static void update_view(struct sdl *sdl, unsigned scanout)
{
    int width, height;
    SDL_GetRendererOutputSize(sdl->windows[scanout].renderer, &width, &height);
    if (width > 0 && height > 0)
        virtio_gpu_set_view(devices_of(sdl)->gpu, scanout, (uint32_t)width, (uint32_t)height);
}

/* The window gets the size of the first picture; later the guest is told of the window's. */
static void fit_window(struct sdl *sdl, unsigned scanout)
{
    struct window *window = &sdl->windows[scanout];
    uint32_t width, height;
    virtio_gpu_size(devices_of(sdl)->gpu, scanout, &width, &height);
    if (window->fitted || !width || !height)
        return;
    window->fitted = true;
    SDL_SetWindowSize(window->window, (int)width, (int)height);
    update_view(sdl, scanout);
}

static bool fit_texture(struct window *window, const struct gpu_frame *frame)
{
    int width = (int)frame->width, height = (int)frame->height;
    if (window->texture && window->texture_width == width && window->texture_height == height)
        return true;
    if (window->texture)
        SDL_DestroyTexture(window->texture);
    /* The X byte of a frame is 0xff, and XRGB8888 is B8G8R8X8 in memory. */
    window->texture = SDL_CreateTexture(window->renderer, SDL_PIXELFORMAT_ARGB8888,
                                        SDL_TEXTUREACCESS_STREAMING, width, height);
    window->texture_width = width;
    window->texture_height = height;
    return window->texture;
}

static void upload(struct window *window, struct gpu_rect rect)
{
    const struct gpu_frame *frame = window->frame;
    int width = window->texture_width, height = window->texture_height;
    bool had = window->texture;
    if (!fit_texture(window, frame))
        return;
    if (!had || width != window->texture_width || height != window->texture_height)
        rect = (struct gpu_rect){0, 0, frame->width, frame->height};
    const SDL_Rect part = {(int)rect.x, (int)rect.y, (int)rect.width, (int)rect.height};
    const uint8_t *pixels = frame->pixels + (size_t)rect.y * frame->stride + (size_t)rect.x * 4;
    SDL_UpdateTexture(window->texture, &part, pixels, (int)frame->stride);
}

static void sdl_show(struct sink *sink, unsigned scanout, struct gpu_frame *frame,
                     const struct gpu_rect *rect)
{
    struct sdl *sdl = sdl_of(sink);
    struct window *window = &sdl->windows[scanout];
    if (frame != window->frame) {
        gpu_frame_put(window->frame);
        window->frame = frame ? gpu_frame_get(frame) : NULL;
    }
    if (frame) {
        fit_window(sdl, scanout);
        if (!window->opened)
            SDL_ShowWindow(window->window);
        window->opened = true;
        upload(window, *rect);
    }
    present(window);
}

static bool sdl_watched(struct sink *sink, unsigned scanout)
{
    return !sdl_of(sink)->windows[scanout].hidden;
}

/* --- Keys --------------------------------------------------------------------------------------
 */

/* SDL's scancodes are the USB HID usages of a keyboard. */
static const uint16_t keys[SDL_NUM_SCANCODES] = {
    [SDL_SCANCODE_A] = KEY_A,
    [SDL_SCANCODE_B] = KEY_B,
    [SDL_SCANCODE_C] = KEY_C,
    [SDL_SCANCODE_D] = KEY_D,
    [SDL_SCANCODE_E] = KEY_E,
    [SDL_SCANCODE_F] = KEY_F,
    [SDL_SCANCODE_G] = KEY_G,
    [SDL_SCANCODE_H] = KEY_H,
    [SDL_SCANCODE_I] = KEY_I,
    [SDL_SCANCODE_J] = KEY_J,
    [SDL_SCANCODE_K] = KEY_K,
    [SDL_SCANCODE_L] = KEY_L,
    [SDL_SCANCODE_M] = KEY_M,
    [SDL_SCANCODE_N] = KEY_N,
    [SDL_SCANCODE_O] = KEY_O,
    [SDL_SCANCODE_P] = KEY_P,
    [SDL_SCANCODE_Q] = KEY_Q,
    [SDL_SCANCODE_R] = KEY_R,
    [SDL_SCANCODE_S] = KEY_S,
    [SDL_SCANCODE_T] = KEY_T,
    [SDL_SCANCODE_U] = KEY_U,
    [SDL_SCANCODE_V] = KEY_V,
    [SDL_SCANCODE_W] = KEY_W,
    [SDL_SCANCODE_X] = KEY_X,
    [SDL_SCANCODE_Y] = KEY_Y,
    [SDL_SCANCODE_Z] = KEY_Z,
    [SDL_SCANCODE_1] = KEY_1,
    [SDL_SCANCODE_2] = KEY_2,
    [SDL_SCANCODE_3] = KEY_3,
    [SDL_SCANCODE_4] = KEY_4,
    [SDL_SCANCODE_5] = KEY_5,
    [SDL_SCANCODE_6] = KEY_6,
    [SDL_SCANCODE_7] = KEY_7,
    [SDL_SCANCODE_8] = KEY_8,
    [SDL_SCANCODE_9] = KEY_9,
    [SDL_SCANCODE_0] = KEY_0,
    [SDL_SCANCODE_RETURN] = KEY_ENTER,
    [SDL_SCANCODE_ESCAPE] = KEY_ESC,
    [SDL_SCANCODE_BACKSPACE] = KEY_BACKSPACE,
    [SDL_SCANCODE_TAB] = KEY_TAB,
    [SDL_SCANCODE_SPACE] = KEY_SPACE,
    [SDL_SCANCODE_MINUS] = KEY_MINUS,
    [SDL_SCANCODE_EQUALS] = KEY_EQUAL,
    [SDL_SCANCODE_LEFTBRACKET] = KEY_LEFTBRACE,
    [SDL_SCANCODE_RIGHTBRACKET] = KEY_RIGHTBRACE,
    [SDL_SCANCODE_BACKSLASH] = KEY_BACKSLASH,
    [SDL_SCANCODE_NONUSHASH] = KEY_BACKSLASH,
    [SDL_SCANCODE_SEMICOLON] = KEY_SEMICOLON,
    [SDL_SCANCODE_APOSTROPHE] = KEY_APOSTROPHE,
    [SDL_SCANCODE_GRAVE] = KEY_GRAVE,
    [SDL_SCANCODE_COMMA] = KEY_COMMA,
    [SDL_SCANCODE_PERIOD] = KEY_DOT,
    [SDL_SCANCODE_SLASH] = KEY_SLASH,
    [SDL_SCANCODE_CAPSLOCK] = KEY_CAPSLOCK,
    [SDL_SCANCODE_F1] = KEY_F1,
    [SDL_SCANCODE_F2] = KEY_F2,
    [SDL_SCANCODE_F3] = KEY_F3,
    [SDL_SCANCODE_F4] = KEY_F4,
    [SDL_SCANCODE_F5] = KEY_F5,
    [SDL_SCANCODE_F6] = KEY_F6,
    [SDL_SCANCODE_F7] = KEY_F7,
    [SDL_SCANCODE_F8] = KEY_F8,
    [SDL_SCANCODE_F9] = KEY_F9,
    [SDL_SCANCODE_F10] = KEY_F10,
    [SDL_SCANCODE_F11] = KEY_F11,
    [SDL_SCANCODE_F12] = KEY_F12,
    [SDL_SCANCODE_PRINTSCREEN] = KEY_SYSRQ,
    [SDL_SCANCODE_SCROLLLOCK] = KEY_SCROLLLOCK,
    [SDL_SCANCODE_PAUSE] = KEY_PAUSE,
    [SDL_SCANCODE_INSERT] = KEY_INSERT,
    [SDL_SCANCODE_HOME] = KEY_HOME,
    [SDL_SCANCODE_PAGEUP] = KEY_PAGEUP,
    [SDL_SCANCODE_DELETE] = KEY_DELETE,
    [SDL_SCANCODE_END] = KEY_END,
    [SDL_SCANCODE_PAGEDOWN] = KEY_PAGEDOWN,
    [SDL_SCANCODE_RIGHT] = KEY_RIGHT,
    [SDL_SCANCODE_LEFT] = KEY_LEFT,
    [SDL_SCANCODE_DOWN] = KEY_DOWN,
    [SDL_SCANCODE_UP] = KEY_UP,
    [SDL_SCANCODE_NUMLOCKCLEAR] = KEY_NUMLOCK,
    [SDL_SCANCODE_KP_DIVIDE] = KEY_KPSLASH,
    [SDL_SCANCODE_KP_MULTIPLY] = KEY_KPASTERISK,
    [SDL_SCANCODE_KP_MINUS] = KEY_KPMINUS,
    [SDL_SCANCODE_KP_PLUS] = KEY_KPPLUS,
    [SDL_SCANCODE_KP_ENTER] = KEY_KPENTER,
    [SDL_SCANCODE_KP_1] = KEY_KP1,
    [SDL_SCANCODE_KP_2] = KEY_KP2,
    [SDL_SCANCODE_KP_3] = KEY_KP3,
    [SDL_SCANCODE_KP_4] = KEY_KP4,
    [SDL_SCANCODE_KP_5] = KEY_KP5,
    [SDL_SCANCODE_KP_6] = KEY_KP6,
    [SDL_SCANCODE_KP_7] = KEY_KP7,
    [SDL_SCANCODE_KP_8] = KEY_KP8,
    [SDL_SCANCODE_KP_9] = KEY_KP9,
    [SDL_SCANCODE_KP_0] = KEY_KP0,
    [SDL_SCANCODE_KP_PERIOD] = KEY_KPDOT,
    [SDL_SCANCODE_KP_EQUALS] = KEY_KPEQUAL,
    [SDL_SCANCODE_NONUSBACKSLASH] = KEY_102ND,
    [SDL_SCANCODE_APPLICATION] = KEY_COMPOSE,
    [SDL_SCANCODE_MUTE] = KEY_MUTE,
    [SDL_SCANCODE_VOLUMEUP] = KEY_VOLUMEUP,
    [SDL_SCANCODE_VOLUMEDOWN] = KEY_VOLUMEDOWN,
    [SDL_SCANCODE_LCTRL] = KEY_LEFTCTRL,
    [SDL_SCANCODE_LSHIFT] = KEY_LEFTSHIFT,
    [SDL_SCANCODE_LALT] = KEY_LEFTALT,
    [SDL_SCANCODE_LGUI] = KEY_LEFTMETA,
    [SDL_SCANCODE_RCTRL] = KEY_RIGHTCTRL,
    [SDL_SCANCODE_RSHIFT] = KEY_RIGHTSHIFT,
    [SDL_SCANCODE_RALT] = KEY_RIGHTALT,
    [SDL_SCANCODE_RGUI] = KEY_RIGHTMETA,
};

static void send_key(struct sdl *sdl, uint16_t key, bool down)
{
    uint8_t bit = (uint8_t)(1u << key % 8), *byte = &sdl->held[key / 8];
    if (!down && !(*byte & bit))
        return;
    *byte = (uint8_t)(down ? *byte | bit : *byte & ~bit);
    input_key(devices_of(sdl), key, down);
}

static void release_keys(struct sdl *sdl)
{
    for (uint16_t key = 1; key <= KEY_MAX; key++)
        send_key(sdl, key, false);
}

static void set_grab(struct sdl *sdl, SDL_Window *window, bool grabbed)
{
    sdl->grabbed = grabbed;
    SDL_SetWindowGrab(window, grabbed);
    /* A tablet has absolute coordinates, which a pointer that is hidden cannot give. */
    if (!devices_of(sdl)->tablet)
        SDL_SetRelativeMouseMode(grabbed);
}

/* What this program takes for itself. */
static bool take_key(struct sdl *sdl, SDL_Window *window, const SDL_KeyboardEvent *event)
{
    const SDL_Keymod mod = event->keysym.mod;
    SDL_Scancode code = event->keysym.scancode;
    if (!window || !(mod & KMOD_CTRL) || !(mod & KMOD_ALT) ||
        (code != SDL_SCANCODE_F && code != SDL_SCANCODE_G))
        return false;
    if (event->type != SDL_KEYDOWN || event->repeat)
        return true;
    release_keys(sdl);
    if (code == SDL_SCANCODE_G)
        set_grab(sdl, window, !sdl->grabbed);
    else if (SDL_GetWindowFlags(window) & SDL_WINDOW_FULLSCREEN)
        SDL_SetWindowFullscreen(window, 0);
    else
        SDL_SetWindowFullscreen(window, SDL_WINDOW_FULLSCREEN_DESKTOP);
    return true;
}

static void handle_key(struct sdl *sdl, const SDL_Event *event)
{
    const SDL_KeyboardEvent *key = &event->key;
    if (take_key(sdl, SDL_GetWindowFromID(key->windowID), key) || key->repeat ||
        (unsigned)key->keysym.scancode >= ARRAY_SIZE(keys) || !keys[key->keysym.scancode])
        return; /* the guest repeats keys itself */
    send_key(sdl, keys[key->keysym.scancode], event->type == SDL_KEYDOWN);
}

/* --- The pointer -------------------------------------------------------------------------------
 */

static void handle_motion(struct sdl *sdl, const SDL_Event *event)
{
    const struct display_devices *devices = devices_of(sdl);
    const SDL_MouseMotionEvent *motion = &event->motion;
    SDL_Window *window = SDL_GetWindowFromID(motion->windowID);
    int width, height;
    if (!window)
        return;
    if (!devices->tablet) {
        if (sdl->grabbed)
            input_motion(devices, motion->xrel, motion->yrel);
        return;
    }
    SDL_GetWindowSize(window, &width, &height);
    if (motion->x >= 0 && motion->y >= 0 && motion->x < width && motion->y < height)
        input_pointer(devices, (uint32_t)motion->x, (uint32_t)motion->y, (uint32_t)width,
                      (uint32_t)height);
}

static void handle_button(struct sdl *sdl, const SDL_Event *event)
{
    static const uint16_t buttons[] = {[SDL_BUTTON_LEFT] = BTN_LEFT,
                                       [SDL_BUTTON_MIDDLE] = BTN_MIDDLE,
                                       [SDL_BUTTON_RIGHT] = BTN_RIGHT,
                                       [SDL_BUTTON_X1] = BTN_SIDE,
                                       [SDL_BUTTON_X2] = BTN_EXTRA};
    const SDL_MouseButtonEvent *button = &event->button;
    SDL_Window *window = SDL_GetWindowFromID(button->windowID);
    bool relative = !devices_of(sdl)->tablet, down = event->type == SDL_MOUSEBUTTONDOWN;
    if (relative && !sdl->grabbed && window) {
        if (down)
            set_grab(sdl, window, true);
        return;
    }
    if (button->button < ARRAY_SIZE(buttons) && buttons[button->button])
        input_button(devices_of(sdl), buttons[button->button], down, relative);
}

static void handle_wheel(struct sdl *sdl, const SDL_Event *event)
{
    int sign = event->wheel.direction == SDL_MOUSEWHEEL_FLIPPED ? -1 : 1;
    input_wheel(devices_of(sdl), sign * event->wheel.y, sign * event->wheel.x);
}

/* --- Windows -----------------------------------------------------------------------------------
 */

static void resized(struct sdl *sdl, unsigned scanout)
{
    struct window *window = &sdl->windows[scanout];
    int width, height;
    SDL_GetRendererOutputSize(window->renderer, &width, &height);
    if (width <= 0 || height <= 0)
        return;
    window->fitted = true;
    virtio_gpu_resize(devices_of(sdl)->gpu, scanout, (uint32_t)width, (uint32_t)height);
}

static void close_window(struct sdl *sdl)
{
    const struct display_devices *devices = devices_of(sdl);
    if (devices->closed)
        devices->closed(devices->closed_opaque);
}

static void set_hidden(struct sdl *sdl, unsigned scanout, bool hidden)
{
    bool look = sdl->windows[scanout].hidden && !hidden;
    if (!sdl->windows[scanout].opened)
        return;
    sdl->windows[scanout].hidden = hidden;
    if (look)
        display_look(sdl->sink.display, scanout);
}

static void handle_window(struct sdl *sdl, const SDL_Event *event)
{
    unsigned scanout = 0;
    while (scanout < sdl->count &&
           SDL_GetWindowID(sdl->windows[scanout].window) != event->window.windowID)
        scanout++;
    if (scanout == sdl->count)
        return;
    switch (event->window.event) {
    case SDL_WINDOWEVENT_RESIZED: /* by the user */
        resized(sdl, scanout);
        break;
    case SDL_WINDOWEVENT_SIZE_CHANGED: /* by anybody */
        update_view(sdl, scanout);
        break;
    case SDL_WINDOWEVENT_EXPOSED:
        present(&sdl->windows[scanout]);
        break;
    case SDL_WINDOWEVENT_HIDDEN:
    case SDL_WINDOWEVENT_MINIMIZED:
        set_hidden(sdl, scanout, true);
        break;
    case SDL_WINDOWEVENT_SHOWN:
    case SDL_WINDOWEVENT_RESTORED:
        set_hidden(sdl, scanout, false);
        break;
    case SDL_WINDOWEVENT_FOCUS_LOST:
        release_keys(sdl);
        break;
    case SDL_WINDOWEVENT_CLOSE:
        close_window(sdl);
        break;
    default:
        break;
    }
}

/* Where a driver of SDL's has lost what textures had. */
static void handle_reset(struct sdl *sdl, const SDL_Event *event)
{
    for (unsigned i = 0; i < sdl->count; i++) {
        struct window *window = &sdl->windows[i];
        if (window->texture)
            SDL_DestroyTexture(window->texture);
        window->texture = NULL;
        if (window->frame)
            upload(window, (struct gpu_rect){0, 0, window->frame->width, window->frame->height});
        present(window);
    }
}

static const struct {
    uint32_t type;
    void (*handle)(struct sdl *sdl, const SDL_Event *event);
} handlers[] = {
    {SDL_KEYDOWN, handle_key},
    {SDL_KEYUP, handle_key},
    {SDL_MOUSEMOTION, handle_motion},
    {SDL_MOUSEBUTTONDOWN, handle_button},
    {SDL_MOUSEBUTTONUP, handle_button},
    {SDL_MOUSEWHEEL, handle_wheel},
    {SDL_WINDOWEVENT, handle_window},
    {SDL_RENDER_TARGETS_RESET, handle_reset},
    {SDL_RENDER_DEVICE_RESET, handle_reset},
};

static void poll_events(void *opaque)
{
    struct sdl *sdl = opaque;
    SDL_Event event;
    while (SDL_PollEvent(&event))
        for (size_t i = 0; i < ARRAY_SIZE(handlers); i++)
            if (handlers[i].type == event.type)
                handlers[i].handle(sdl, &event);
    loop_set_timer(sdl->timer, loop_now() + POLL_NS);
}

/* --- Creation ----------------------------------------------------------------------------------
 */

static void finish_window(struct window *window)
{
    if (window->texture)
        SDL_DestroyTexture(window->texture);
    if (window->renderer)
        SDL_DestroyRenderer(window->renderer);
    if (window->window)
        SDL_DestroyWindow(window->window);
    gpu_frame_put(window->frame);
}

static void sdl_destroy(struct sink *sink)
{
    struct sdl *sdl = sdl_of(sink);
    release_keys(sdl);
    loop_remove_timer(sdl->timer);
    for (unsigned i = 0; i < sdl->count; i++)
        finish_window(&sdl->windows[i]);
    if (sdl->started)
        SDL_QuitSubSystem(SDL_INIT_VIDEO);
    SDL_TLSCleanup(); /* what it keeps for this thread */
    free(sdl);
}

static const struct sink_ops sdl_ops = {sdl_watched, sdl_show, sdl_destroy};

static bool open_window(struct sdl *sdl, unsigned scanout, struct error *err)
{
    struct window *window = &sdl->windows[scanout];
    uint32_t width, height;
    char title[64];
    virtio_gpu_size(devices_of(sdl)->gpu, scanout, &width, &height);
    snprintf(title, sizeof(title), "hartvisor \u2013 display %u", scanout);
    window->fitted = width && height;
    window->opened = !scanout;
    window->window = SDL_CreateWindow(title, SDL_WINDOWPOS_UNDEFINED, SDL_WINDOWPOS_UNDEFINED,
                                      width ? (int)width : 1280, height ? (int)height : 800,
                                      SDL_WINDOW_RESIZABLE | SDL_WINDOW_ALLOW_HIGHDPI |
                                          (window->opened ? 0 : SDL_WINDOW_HIDDEN));
    /* Frames are drawn already; software is enough to copy them, and is there everywhere. */
    window->renderer = window->window ? SDL_CreateRenderer(window->window, -1, 0) : NULL;
    if (window->window && !window->renderer)
        window->renderer = SDL_CreateRenderer(window->window, -1, SDL_RENDERER_SOFTWARE);
    if (!window->renderer)
        return error_set(err, "display sdl: no window: %s", SDL_GetError());
    SDL_SetRenderDrawColor(window->renderer, 0, 0, 0, 255);
    update_view(sdl, scanout);
    present(window);
    return true;
}

static bool open_windows(struct sdl *sdl, struct error *err)
{
    SDL_SetHint(SDL_HINT_NO_SIGNAL_HANDLERS, "1");
    if (SDL_InitSubSystem(SDL_INIT_VIDEO))
        return error_set(err,
                         "display sdl: %s; set DISPLAY or WAYLAND_DISPLAY, or use vnc:5900 and a "
                         "VNC viewer",
                         SDL_GetError());
    sdl->started = true;
    unsigned count = devices_of(sdl)->scanout_count;
    while (sdl->count < count)
        if (!open_window(sdl, sdl->count++, err))
            return false;
    return true;
}

struct sink *sdl_create(struct display *display, const char *arguments, struct error *err)
{
    struct sdl *sdl = xcalloc(1, sizeof(*sdl));
    sdl->sink = (struct sink){&sdl_ops, display};
    sdl->timer = loop_add_timer(display_loop(display), poll_events, sdl);
    bool good = arguments ? error_set(err, "display sdl takes no options; got '%s'", arguments)
                          : open_windows(sdl, err);
    if (!good) {
        sdl_destroy(&sdl->sink);
        return NULL;
    }
    loop_set_timer(sdl->timer, loop_now());
    return &sdl->sink;
}

#endif
