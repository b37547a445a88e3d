/*
 * The guest's screen: what draws it is picked before there is RAM, since RAM is shared with a
 * renderer in another process; the devices come last on the bus; displays come when all is there.
 */
#include "display/display.h"
#include "gpu/gpu.h"
#include "machine/internal.h"
#include "virtio/gpu.h"

#define DEFAULT_WIDTH  1280
#define DEFAULT_HEIGHT 800

static bool is_off(const char *choice)
{
    return !choice || !strcmp(choice, "off") || !strcmp(choice, "none");
}

bool screen_open(struct machine *machine, struct error *err)
{
    struct machine_config *config = &machine->config;
    const struct gpu_manager_config manager = {.draws = !is_off(config->display)};
    if (is_off(config->gpu) && manager.draws && config->gpu)
        return error_set(err, "--display %s: with --gpu off there is nothing to show",
                         config->display);
    if (is_off(config->gpu) && !manager.draws)
        return true;
    machine->gpu_manager = gpu_manager_create(&manager, err);
    if (!machine->gpu_manager)
        return false;
    const char *backends = config->gpu ? config->gpu : "auto";
    if (!gpu_manager_select(machine->gpu_manager, backends, config->gpu_adapter, err) ||
        !gpu_manager_attach(machine->gpu_manager, config, err))
        return error_prefix(err, "--gpu %s", backends);
    if (gpu_manager_shares_memory(machine->gpu_manager))
        memory_share_ram(machine->memory);
    return true;
}

static struct gpu_renderer *open_renderer(void *opaque, bool again, struct error *err)
{
    struct machine *machine = opaque;
    return again ? gpu_manager_reopen(machine->gpu_manager, err)
                 : gpu_manager_open(machine->gpu_manager, err);
}

static void display_closed(void *opaque)
{
    struct machine *machine = opaque;
    if (!machine_powerdown(machine))
        machine_quit(machine, 0);
}

bool screen_attach(struct machine *machine, struct error *err)
{
    const struct machine_config *config = &machine->config;
    struct display_devices *devices = &machine->screen;
    if (!machine->gpu_manager || !gpu_manager_draws(machine->gpu_manager))
        return true;
    struct virtio_gpu_config gpu = {
        .scanout_count = config->display_count ? config->display_count : 1,
        .sizes = {{DEFAULT_WIDTH, DEFAULT_HEIGHT}},
        .open = open_renderer,
        .opaque = machine,
    };
    for (unsigned i = 0; i < config->display_count; i++) {
        gpu.sizes[i].width = config->displays[i].width;
        gpu.sizes[i].height = config->displays[i].height;
    }
    struct virtio_device *device = virtio_gpu_create("gpu0", &gpu, machine->loop, err);
    if (!board_attach(machine, device, err))
        return error_prefix(err, "--gpu");
    devices->gpu = device;
    devices->scanout_count = gpu.scanout_count;
    devices->closed = display_closed;
    devices->closed_opaque = machine;
    devices->keyboard = input_keyboard_create(machine->loop);
    devices->tablet = input_tablet_create(machine->loop);
    devices->mouse = input_mouse_create(machine->loop);
    if (!board_attach(machine, devices->keyboard, err) ||
        !board_attach(machine, devices->tablet, err) || !board_attach(machine, devices->mouse, err))
        return false;
    if (is_off(config->display))
        return true;
    machine->display = display_create(config->display, devices, err);
    return machine->display || error_prefix(err, "--display %s", config->display);
}

void screen_detach(struct machine *machine)
{
    display_destroy(machine->display);
    machine->display = NULL;
}

void screen_close(struct machine *machine)
{
    gpu_manager_destroy(machine->gpu_manager);
    machine->gpu_manager = NULL;
}

const struct display_devices *machine_screen(const struct machine *machine)
{
    return machine->screen.gpu ? &machine->screen : NULL;
}
