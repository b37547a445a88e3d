/* The input devices of a machine with a screen. */
#include <linux/input-event-codes.h>

#include "display/display.h"

#define TABLET_MAX 32767

static const uint16_t buttons[] = {BTN_LEFT, BTN_RIGHT, BTN_MIDDLE, BTN_SIDE, BTN_EXTRA};

struct virtio_device *input_keyboard_create(struct loop *loop)
{
    uint16_t keys[KEY_MICMUTE];
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        keys[i] = (uint16_t)(i + 1);
    const struct virtio_input_config config = {
        .label = "hartvisor Keyboard",
        .keys = keys,
        .key_count = ARRAY_SIZE(keys),
        .repeats = true,
    };
    return virtio_input_create("keyboard0", &config, loop);
}

struct virtio_device *input_tablet_create(struct loop *loop)
{
    static const uint16_t wheels[] = {REL_WHEEL, REL_HWHEEL};
    static const struct virtio_input_axis axes[] = {{ABS_X, 0, TABLET_MAX}, {ABS_Y, 0, TABLET_MAX}};
    const struct virtio_input_config config = {
        .label = "hartvisor Tablet",
        .keys = buttons,
        .key_count = ARRAY_SIZE(buttons),
        .relative = wheels,
        .relative_count = ARRAY_SIZE(wheels),
        .axes = axes,
        .axis_count = ARRAY_SIZE(axes),
        .direct = true,
    };
    return virtio_input_create("tablet0", &config, loop);
}

struct virtio_device *input_mouse_create(struct loop *loop)
{
    static const uint16_t motions[] = {REL_X, REL_Y, REL_WHEEL, REL_HWHEEL};
    const struct virtio_input_config config = {
        .label = "hartvisor Mouse",
        .keys = buttons,
        .key_count = ARRAY_SIZE(buttons),
        .relative = motions,
        .relative_count = ARRAY_SIZE(motions),
    };
    return virtio_input_create("mouse0", &config, loop);
}

static bool send_one(struct virtio_device *device, uint16_t type, uint16_t code, int32_t value)
{
    const struct virtio_input_event event = {type, code, value};
    return device && virtio_input_send(device, &event, 1);
}

bool input_key(const struct display_devices *devices, uint16_t key, bool down)
{
    return send_one(devices->keyboard, EV_KEY, key, down);
}

/* The middle of a pixel, on the tablet. */
static int32_t tablet_axis(uint32_t at, uint32_t size)
{
    if (at >= size)
        at = size - 1;
    return (int32_t)(((uint64_t)at * 2 + 1) * (TABLET_MAX + 1) / ((uint64_t)size * 2));
}

bool input_pointer(const struct display_devices *devices, uint32_t x, uint32_t y, uint32_t width,
                   uint32_t height)
{
    if (!devices->tablet || !width || !height)
        return false;
    const struct virtio_input_event events[] = {{EV_ABS, ABS_X, tablet_axis(x, width)},
                                                {EV_ABS, ABS_Y, tablet_axis(y, height)}};
    return virtio_input_send(devices->tablet, events, ARRAY_SIZE(events));
}

bool input_motion(const struct display_devices *devices, int32_t dx, int32_t dy)
{
    const struct virtio_input_event events[] = {{EV_REL, REL_X, dx}, {EV_REL, REL_Y, dy}};
    return devices->mouse && virtio_input_send(devices->mouse, events, ARRAY_SIZE(events));
}

/* Buttons and wheels go where the pointer goes. */
static struct virtio_device *pointer(const struct display_devices *devices, bool relative)
{
    return relative || !devices->tablet ? devices->mouse : devices->tablet;
}

bool input_button(const struct display_devices *devices, uint16_t button, bool down, bool relative)
{
    return send_one(pointer(devices, relative), EV_KEY, button, down);
}

bool input_wheel(const struct display_devices *devices, int32_t vertical, int32_t horizontal)
{
    struct virtio_device *device = pointer(devices, false);
    struct virtio_input_event events[2];
    unsigned count = 0;
    if (vertical)
        events[count++] = (struct virtio_input_event){EV_REL, REL_WHEEL, vertical};
    if (horizontal)
        events[count++] = (struct virtio_input_event){EV_REL, REL_HWHEEL, horizontal};
    return device && count && virtio_input_send(device, events, count);
}
