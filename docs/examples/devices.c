/*
 * Finds the host's GPUs and other accelerators with libhartvisor, says what each needs before a
 * guest can have it, and adds a device of its own to the list.
 *
 *     devices [ROOT]
 *
 * ROOT is a folder with a copy of another machine's sys and proc. The program changes nothing, and
 * needs no privilege.
 *
 *     cc devices.c $(pkg-config --cflags --libs --static hartvisor)
 */
#include <stdio.h>
#include <string.h>

#include "hartvisor/passthrough.h"

#define MAX_DEVICES 64

/* --- A device that no PCI slot has: its configuration space is an array --- */

static bool model_read(struct passthrough_device *device, unsigned offset, void *data, size_t size,
                       size_t *got, struct error *err)
{
    const unsigned char *space = device->opaque;
    *got = offset >= 64 ? 0 : size < 64 - offset ? size : 64 - offset;
    memcpy(data, space + offset, *got);
    return true;
}

static const struct passthrough_device_ops model_ops = {
    .name = "model",
    .config_read = model_read,
};

static unsigned char model_space[64] = {0x34, 0x12, 0x78, 0x56};

static struct passthrough_device model = {
    .ops = &model_ops,
    .info = {.address = {.domain = 0xffff},
             .vendor = 0x1234,
             .device = 0x5678,
             .class_code = 0x120000,
             .kind = PASSTHROUGH_NPU_ACCELERATOR,
             .group = -1,
             .numa_node = -1},
    .opaque = model_space,
};

/* --- The host's --- */

static void describe(const struct passthrough_manager *manager, struct passthrough_device *device)
{
    struct config_space space;
    struct config_capability msix;
    struct error err;
    printf("%s: %s, from %s\n", device->info.name, passthrough_kind_name(device->info.kind),
           device->ops->name);
    if (device->info.group < 0)
        printf("    no IOMMU group\n");
    else if (passthrough_group_viable(manager, device->info.group, &err))
        printf("    IOMMU group %d is viable\n", device->info.group);
    else
        printf("    %s\n", err.message);
    if (!config_space_read(&space, device, &err))
        printf("    %s\n", err.message);
    else
        printf("    %zu bytes of configuration space%s\n", space.size,
               config_space_find(&space, false, 0x11, &msix) ? ", with MSI-X" : "");
}

int main(int count, char **words)
{
    struct passthrough_config config = {.root = count > 1 ? words[1] : NULL};
    struct passthrough_device *devices[MAX_DEVICES];
    struct error err;
    uint32_t kinds;

    struct passthrough_manager *manager = passthrough_manager_create(&config, &err);
    if (!manager || !passthrough_manager_scan(manager, &err) ||
        !passthrough_manager_add(manager, &model, &err) ||
        !passthrough_kinds_parse("gpu,npu", &kinds, &err)) {
        fprintf(stderr, "devices: %s\n", err.message);
        passthrough_manager_destroy(manager);
        return 1;
    }
    passthrough_manager_print(manager, kinds, stdout, PASSTHROUGH_PRINT_WIDTH(80));
    size_t found = passthrough_manager_filter(manager, kinds, devices, MAX_DEVICES);
    for (size_t i = 0; i < found && i < MAX_DEVICES; i++)
        describe(manager, devices[i]);
    printf("The IOMMU is %s.\n", passthrough_iommu_on(manager) ? "on" : "off");
    passthrough_manager_destroy(manager);
    return 0;
}
