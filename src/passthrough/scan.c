/* One device, as sysfs describes it. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "passthrough/internal.h"

#define DEVICES "/sys/bus/pci/devices"

/* Flags of the kernel's resources, in the third column of `resource`. */
#define RESOURCE_IO       0x100
#define RESOURCE_MEMORY   0x200
#define RESOURCE_PREFETCH 0x2000
#define RESOURCE_64       0x100000

static uint64_t number(const struct host *host, const struct passthrough_info *info,
                       const char *file, uint64_t otherwise)
{
    uint64_t value;
    return host_number(host, &value, DEVICES "/%s/%s", info->name, file) ? value : otherwise;
}

static void scan_bars(const struct host *host, struct passthrough_info *info)
{
    char text[2048], *line = text;
    if (!host_read(host, text, sizeof(text), DEVICES "/%s/resource", info->name))
        return;
    for (unsigned i = 0; i < PASSTHROUGH_BARS && line; i++) {
        uint64_t start, end, flags;
        struct passthrough_bar *bar = &info->bars[i];
        if (sscanf(line, "%" SCNx64 " %" SCNx64 " %" SCNx64, &start, &end, &flags) != 3)
            return;
        if (flags && end > start) {
            bar->kind = flags & RESOURCE_IO   ? PASSTHROUGH_BAR_IO
                        : flags & RESOURCE_64 ? PASSTHROUGH_BAR_MEMORY64
                                              : PASSTHROUGH_BAR_MEMORY32;
            bar->prefetchable = flags & RESOURCE_PREFETCH;
            bar->address = start;
            bar->size = end - start + 1;
        }
        line = strchr(line, '\n');
        line += line ? 1 : 0;
    }
}

/* "16.0 GT/s PCIe", "Unknown". */
static unsigned scan_speed(const struct host *host, const struct passthrough_info *info,
                           const char *file)
{
    char text[64];
    unsigned whole, tenth = 0;
    if (!host_read(host, text, sizeof(text), DEVICES "/%s/%s", info->name, file) ||
        sscanf(text, "%u.%1u", &whole, &tenth) < 1 || whole > 10000)
        return 0;
    return whole * 1000 + tenth * 100;
}

static unsigned scan_width(const struct host *host, const struct passthrough_info *info,
                           const char *file)
{
    uint64_t width = number(host, info, file, 0);
    return width <= 32 ? (unsigned)width : 0; /* 255: not known */
}

static void scan_link(const struct host *host, struct passthrough_info *info)
{
    info->link.speed = scan_speed(host, info, "current_link_speed");
    info->link.width = scan_width(host, info, "current_link_width");
    info->link_max.speed = scan_speed(host, info, "max_link_speed");
    info->link_max.width = scan_width(host, info, "max_link_width");
}

static int scan_group(const struct host *host, const struct passthrough_info *info)
{
    char name[32], *end;
    if (!host_link(host, name, sizeof(name), DEVICES "/%s/iommu_group", info->name))
        return -1;
    long group = strtol(name, &end, 10);
    return *end || group < 0 || group > INT32_MAX ? -1 : (int)group;
}

void scan_driver(const struct host *host, struct passthrough_info *info)
{
    info->driver[0] = '\0';
    host_link(host, info->driver, sizeof(info->driver), DEVICES "/%s/driver", info->name);
}

static void scan_texts(const struct host *host, struct passthrough_info *info)
{
    scan_driver(host, info);
    host_link(host, info->physical_function, sizeof(info->physical_function), DEVICES "/%s/physfn",
              info->name);
    host_read(host, info->reset_methods, sizeof(info->reset_methods), DEVICES "/%s/reset_method",
              info->name);
    host_read(host, info->power_state, sizeof(info->power_state), DEVICES "/%s/power_state",
              info->name);
}

bool scan_device(const struct passthrough_manager *manager, const struct pci_address *address,
                 struct passthrough_info *info)
{
    const struct host *host = &manager->host;
    uint64_t vendor, class_code;
    *info = (struct passthrough_info){.address = *address};
    pci_address_print(address, info->name);
    if (!host_number(host, &vendor, DEVICES "/%s/vendor", info->name) ||
        !host_number(host, &class_code, DEVICES "/%s/class", info->name))
        return false;
    info->vendor = (uint16_t)vendor;
    info->device = (uint16_t)number(host, info, "device", 0);
    info->subsystem_vendor = (uint16_t)number(host, info, "subsystem_vendor", 0);
    info->subsystem_device = (uint16_t)number(host, info, "subsystem_device", 0);
    info->class_code = (uint32_t)class_code & 0xffffff;
    info->revision = (uint8_t)number(host, info, "revision", 0);
    info->group = scan_group(host, info);
    uint64_t node = number(host, info, "numa_node", UINT64_MAX);
    info->numa_node = node > INT32_MAX ? -1 : (int)node;
    info->virtual_functions = (unsigned)number(host, info, "sriov_numvfs", 0);
    info->virtual_functions_max = (unsigned)number(host, info, "sriov_totalvfs", 0);
    info->boot_vga = number(host, info, "boot_vga", 0) == 1;
    scan_bars(host, info);
    scan_link(host, info);
    scan_texts(host, info);
    classify(info);
    if (manager->names)
        pci_names_find(manager->names, info);
    return true;
}
