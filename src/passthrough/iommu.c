/* IOMMU groups, and what keeps one from being given to a guest. */
#include <stdlib.h>
#include <string.h>

#include "passthrough/internal.h"

bool passthrough_iommu_on(const struct passthrough_manager *manager)
{
    char **groups = host_list(&manager->host, "/sys/kernel/iommu_groups");
    bool on = groups[0];
    host_list_free(groups);
    for (size_t i = 0; i < manager->count && !on; i++)
        on = manager->devices[i]->info.group >= 0;
    return on;
}

static int compare_numbers(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

size_t passthrough_groups(const struct passthrough_manager *manager, int *groups, size_t size)
{
    int *all = xcalloc(manager->count + 1, sizeof(*all));
    size_t members = 0, count = 0;
    for (size_t i = 0; i < manager->count; i++)
        if (manager->devices[i]->info.group >= 0)
            all[members++] = manager->devices[i]->info.group;
    qsort(all, members, sizeof(*all), compare_numbers);
    for (size_t i = 0; i < members; i++) {
        if (i && all[i] == all[i - 1])
            continue;
        if (count < size)
            groups[count] = all[i];
        count++;
    }
    free(all);
    return count;
}

size_t passthrough_group_devices(const struct passthrough_manager *manager, int group,
                                 struct passthrough_device **devices, size_t size)
{
    size_t count = 0;
    for (size_t i = 0; i < manager->count; i++) {
        if (group < 0 || manager->devices[i]->info.group != group)
            continue;
        if (count < size)
            devices[count] = manager->devices[i];
        count++;
    }
    return count;
}

/* Drivers which promise the kernel that they do no DMA of their own. */
static bool driver_keeps_off(const char *driver)
{
    static const char *const names[] = {VFIO_DRIVER, "pci-stub", "pcieport"};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (!strcmp(driver, names[i]))
            return true;
    /* mlx5_vfio_pci and others: vfio-pci with the knowledge of one device. */
    size_t length = strlen(driver);
    return length > 9 && !strcmp(driver + length - 9, "_vfio_pci");
}

bool passthrough_device_hinders(const struct passthrough_device *device)
{
    bool bridge = device->info.class_code >> 8 == 0x0604;
    return device->info.driver[0] && !bridge && !driver_keeps_off(device->info.driver);
}

bool passthrough_group_viable(const struct passthrough_manager *manager, int group,
                              struct error *err)
{
    char list[320] = "";
    unsigned count = 0;
    for (size_t i = 0; i < manager->count; i++) {
        const struct passthrough_device *device = manager->devices[i];
        if (device->info.group != group || !passthrough_device_hinders(device))
            continue;
        size_t length = strlen(list);
        snprintf(list + length, sizeof(list) - length, "%s%s (%s)", count++ ? ", " : "",
                 device->info.name, device->info.driver);
    }
    if (!count)
        return true;
    return error_set(err,
                     "IOMMU group %d is not viable, because the host's drivers have %s: 'hartvisor "
                     "devices bind --group' takes the whole group",
                     group, list);
}
