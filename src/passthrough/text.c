/* Tables and pages for people. */
#include <stdlib.h>
#include <string.h>

#include "passthrough/internal.h"

#define NAME_MIN 16

/* --- Colours and widths --- */

static const char *const type_colours[PASSTHROUGH_TYPES] = {
    [PASSTHROUGH_GPU] = "1;32",   [PASSTHROUGH_NPU] = "1;35", [PASSTHROUGH_NETWORK] = "36",
    [PASSTHROUGH_STORAGE] = "33", [PASSTHROUGH_USB] = "0",    [PASSTHROUGH_AUDIO] = "0",
    [PASSTHROUGH_BRIDGE] = "2",   [PASSTHROUGH_OTHER] = "0",
};

const char *text_colour(unsigned flags, const char *code)
{
    static const struct {
        const char *code, *sequence;
    } sequences[] = {
        {"0", "\033[0m"},       {"1", "\033[1m"},       {"2", "\033[2m"},   {"31", "\033[31m"},
        {"32", "\033[32m"},     {"33", "\033[33m"},     {"36", "\033[36m"}, {"1;32", "\033[1;32m"},
        {"1;35", "\033[1;35m"}, {"1;31", "\033[1;31m"},
    };
    for (size_t i = 0; flags & PASSTHROUGH_PRINT_COLOUR && i < ARRAY_SIZE(sequences); i++)
        if (!strcmp(sequences[i].code, code))
            return sequences[i].sequence;
    return "";
}

unsigned text_width(unsigned flags)
{
    unsigned width = flags >> 8;
    return !width ? 100 : width < 60 ? 60 : width > 400 ? 400 : width;
}

char *text_size(uint64_t bytes, char text[32])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    unsigned unit = 0;
    while (unit + 1 < ARRAY_SIZE(units) && bytes >= 1024 && bytes % 1024 == 0) {
        bytes /= 1024;
        unit++;
    }
    snprintf(text, 32, "%llu %s", (unsigned long long)bytes, units[unit]);
    return text;
}

/* --- Names that fit --- */

/* "Advanced Micro Devices, Inc. [AMD/ATI]" is AMD/ATI, "Intel Corporation" Intel. */
static void short_vendor(const struct passthrough_info *info, char *text, size_t size)
{
    static const char *const endings[] = {" Corporation",   " Corp",        ", Inc",
                                          " Inc",           " Co.",         ", Ltd",
                                          " Ltd",           " Limited",     " Technologies",
                                          " Semiconductor", " Electronics", " Technology"};
    const char *open = strchr(info->vendor_name, '['), *close = open ? strchr(open, ']') : NULL;
    if (close) {
        snprintf(text, size, "%.*s", (int)(close - open - 1), open + 1);
        return;
    }
    snprintf(text, size, "%s", info->vendor_name);
    for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
        char *end = strstr(text, endings[i]);
        if (end && end != text)
            *end = '\0';
    }
}

/* Vendor and device in so many columns; numbers where there are no names. */
static void fit_name(const struct passthrough_info *info, char *text, size_t width)
{
    char vendor[64], whole[256];
    short_vendor(info, vendor, sizeof(vendor));
    const char *device = info->device_name;
    /* Some devices bear their vendor's name already. */
    if (!strncmp(device, vendor, strlen(vendor)))
        vendor[0] = '\0';
    const char *space = *vendor ? " " : "";
    if (*device)
        snprintf(whole, sizeof(whole), "%s%s%s", vendor, space, device);
    else
        snprintf(whole, sizeof(whole), "%s%s%04x:%04x", vendor, space, info->vendor, info->device);
    /* What a GPU or NIC is sold as stands in brackets. */
    const char *open = strrchr(device, '['), *close = open ? strchr(open, ']') : NULL;
    enum passthrough_type type = passthrough_kind_type(info->kind);
    if (strlen(whole) > width && close && type <= PASSTHROUGH_NETWORK)
        snprintf(whole, sizeof(whole), "%s%s%.*s", vendor, space, (int)(close - open - 1),
                 open + 1);
    snprintf(text, width + 1, "%s", whole);
    if (strlen(whole) > width)
        text[width - 2] = text[width - 1] = '.';
    for (unsigned char *byte = (unsigned char *)text; *byte; byte++)
        if (*byte < ' ' || *byte > '~')
            *byte = '?'; /* an odd list of names does not get at the terminal */
}

static const char *short_type(const struct passthrough_info *info)
{
    enum passthrough_type type = passthrough_kind_type(info->kind);
    const char *kind = passthrough_kind_name(info->kind);
    return type == PASSTHROUGH_GPU || strstr(kind, "-other") ? passthrough_type_name(type) : kind;
}

static const char *or_dash(const char *text)
{
    return *text ? text : "-";
}

/* --- The table --- */

struct table {
    FILE *out;
    unsigned flags;
    unsigned address, type, name, driver; /* widths */
};

static void measure(struct table *table, const struct passthrough_info *info)
{
    unsigned address = (unsigned)strlen(info->name), driver = (unsigned)strlen(info->driver);
    unsigned type = (unsigned)strlen(short_type(info));
    table->address = address > table->address ? address : table->address;
    table->driver = driver > table->driver ? driver : table->driver;
    table->type = type > table->type ? type : table->type;
}

/* Names get what the other columns leave. */
static void fit_table(struct table *table, unsigned others)
{
    unsigned width = text_width(table->flags);
    table->name = width > others + NAME_MIN ? width - others : NAME_MIN;
}

static void print_row(const struct table *table, const struct passthrough_info *info)
{
    unsigned flags = table->flags;
    char name[256], group[16] = "-";
    fit_name(info, name, table->name);
    if (info->group >= 0)
        snprintf(group, sizeof(group), "%d", info->group);
    fprintf(table->out, "%-*s  %s%-*s%s  %-*s  %s%-*s%s  %5s\n", (int)table->address, info->name,
            text_colour(flags, type_colours[passthrough_kind_type(info->kind)]), (int)table->type,
            short_type(info), text_colour(flags, "0"), (int)table->name, name,
            text_colour(flags, !strcmp(info->driver, VFIO_DRIVER) ? "32" : "0"), (int)table->driver,
            or_dash(info->driver), text_colour(flags, "0"), group);
}

void passthrough_manager_print(const struct passthrough_manager *manager, uint32_t kinds, FILE *out,
                               unsigned flags)
{
    struct table table = {out, flags, 7, 4, 0, 6};
    struct json_object *list = json_object_new_array();
    size_t count = 0;
    for (size_t i = 0; i < manager->count; i++) {
        const struct passthrough_info *info = &manager->devices[i]->info;
        if (!(kinds >> info->kind & 1))
            continue;
        measure(&table, info);
        json_object_array_add(list, json_device(info));
        count++;
    }
    if (flags & PASSTHROUGH_PRINT_JSON) {
        json_print(out, list);
        return;
    }
    json_object_put(list);
    if (!count) {
        fprintf(out, "There are no such PCI devices.\n");
        return;
    }
    fit_table(&table, table.address + table.type + table.driver + 5 + 8);
    fprintf(out, "%s%-*s  %-*s  %-*s  %-*s  GROUP%s\n", text_colour(flags, "1"), (int)table.address,
            "ADDRESS", (int)table.type, "TYPE", (int)table.name, "DEVICE", (int)table.driver,
            "DRIVER", text_colour(flags, "0"));
    for (size_t i = 0; i < manager->count; i++)
        if (kinds >> manager->devices[i]->info.kind & 1)
            print_row(&table, &manager->devices[i]->info);
}

/* --- One device --- */

static void print_line(FILE *out, const char *label, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void print_line(FILE *out, const char *label, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(out, "  %-13s ", label);
    vfprintf(out, format, arguments);
    fputc('\n', out);
    va_end(arguments);
}

static void print_bars(const struct passthrough_info *info, FILE *out)
{
    static const char *const kinds[] = {
        [PASSTHROUGH_BAR_IO] = "I/O",
        [PASSTHROUGH_BAR_MEMORY32] = "32-bit",
        [PASSTHROUGH_BAR_MEMORY64] = "64-bit",
    };
    for (unsigned i = 0; i < PASSTHROUGH_BARS; i++) {
        const struct passthrough_bar *bar = &info->bars[i];
        char label[16], size[32];
        if (bar->kind == PASSTHROUGH_BAR_NONE)
            continue;
        snprintf(label, sizeof(label), "BAR %u", i);
        print_line(out, i == PASSTHROUGH_BAR_ROM ? "ROM" : label, "%s, %s%s",
                   text_size(bar->size, size), kinds[bar->kind],
                   bar->prefetchable ? ", prefetchable" : "");
    }
}

static void print_link(const struct passthrough_info *info, FILE *out)
{
    const struct passthrough_link *now = &info->link, *most = &info->link_max;
    char current[48] = "not up";
    if (!most->width)
        return;
    if (now->width)
        snprintf(current, sizeof(current), "%g GT/s x%u", now->speed / 1000.0, now->width);
    print_line(out, "link", "%s (at most %g GT/s x%u)", current, most->speed / 1000.0, most->width);
}

static void print_group(const struct passthrough_manager *manager,
                        const struct passthrough_info *info, FILE *out)
{
    if (info->group < 0) {
        print_line(out, "IOMMU group", "none: 'hartvisor devices check' says why");
        return;
    }
    print_line(out, "IOMMU group", "%d", info->group);
    for (size_t i = 0; i < manager->count; i++) {
        const struct passthrough_info *other = &manager->devices[i]->info;
        if (other->group == info->group && other != info)
            print_line(out, "", "with %s (%s)", other->name,
                       other->driver[0] ? other->driver : "no driver");
    }
}

static void print_functions(const struct passthrough_info *info, FILE *out)
{
    if (info->virtual_functions_max)
        print_line(out, "SR-IOV", "%u of %u virtual functions", info->virtual_functions,
                   info->virtual_functions_max);
    if (info->physical_function[0])
        print_line(out, "SR-IOV", "virtual function of %s", info->physical_function);
}

static void print_driver(const struct passthrough_manager *manager,
                         const struct passthrough_info *info, FILE *out)
{
    char former[64];
    const char *driver = info->driver[0] ? info->driver : "none";
    if (!strcmp(driver, VFIO_DRIVER) && bind_state_get(manager, info->name, former, 64))
        print_line(out, "driver", "%s (before: %s)", driver, *former ? former : "none");
    else
        print_line(out, "driver", "%s", driver);
}

static void print_device(const struct passthrough_manager *manager,
                         const struct passthrough_info *info, FILE *out, unsigned flags)
{
    char name[256];
    fit_name(info, name, text_width(flags) - strlen(info->name) - 2);
    fprintf(out, "%s%s  %s%s\n", text_colour(flags, "1"), info->name, name,
            text_colour(flags, "0"));
    print_line(out, "type", "%s%s%s", passthrough_kind_name(info->kind),
               info->integrated ? ", integrated" : "", info->boot_vga ? ", boot display" : "");
    print_line(out, "IDs", "%04x:%04x revision %02x, subsystem %04x:%04x, class %06x", info->vendor,
               info->device, info->revision, info->subsystem_vendor, info->subsystem_device,
               info->class_code);
    print_driver(manager, info, out);
    print_group(manager, info, out);
    if (info->numa_node >= 0)
        print_line(out, "NUMA node", "%d", info->numa_node);
    print_link(info, out);
    print_bars(info, out);
    print_functions(info, out);
    if (info->reset_methods[0])
        print_line(out, "reset", "%s", info->reset_methods);
    if (info->power_state[0])
        print_line(out, "power", "%s", info->power_state);
}

static size_t read_product_data(struct passthrough_device *device,
                                struct product_field list[PRODUCT_DATA_MAX_FIELDS])
{
    void *data = xmalloc(PRODUCT_DATA_MAX_SIZE);
    size_t size, count = 0;
    if (passthrough_product_data_read(device, data, PRODUCT_DATA_MAX_SIZE, &size, NULL))
        count = product_data_fields(data, size, list);
    free(data);
    return count;
}

static void print_product_data(const struct product_field *list, size_t count, FILE *out)
{
    for (size_t i = 0; i < count; i++) {
        const char *name = product_field_name(&list[i]);
        print_line(out, name ? name : list[i].keyword, "%s", list[i].text);
    }
}

void passthrough_device_print(const struct passthrough_manager *manager,
                              struct passthrough_device *device, FILE *out, unsigned flags)
{
    struct config_space *space = xcalloc(1, sizeof(*space));
    struct product_field fields[PRODUCT_DATA_MAX_FIELDS];
    struct error err;
    bool known = config_space_read(space, device, &err);
    size_t count = read_product_data(device, fields);
    if (flags & PASSTHROUGH_PRINT_JSON) {
        struct json_object *object = json_device(&device->info);
        char former[64];
        bool remembered = !strcmp(device->info.driver, VFIO_DRIVER) &&
                          passthrough_former_driver(manager, device, former);
        json_object_object_add(object, "former_driver",
                               remembered && *former ? json_object_new_string(former) : NULL);
        json_object_object_add(object, "product_data", json_product_data(fields, count));
        json_object_object_add(object, "config", known ? json_config_space(space) : NULL);
        json_print(out, object);
    } else {
        print_device(manager, &device->info, out, flags);
        print_product_data(fields, count, out);
        if (known)
            config_space_print(space, out, flags);
        else
            print_line(out, "configuration", "%s", err.message);
    }
    free(space);
}

/* --- Groups --- */

static void print_group_row(const struct passthrough_manager *manager, int group,
                            const struct table *table)
{
    FILE *out = table->out;
    unsigned flags = table->flags;
    bool viable = passthrough_group_viable(manager, group, NULL), first = true;
    for (size_t i = 0; i < manager->count; i++) {
        const struct passthrough_device *device = manager->devices[i];
        const struct passthrough_info *info = &device->info;
        char name[256], number[16];
        if (info->group != group)
            continue;
        snprintf(number, sizeof(number), "%d", group);
        fit_name(info, name, table->name);
        fprintf(out, "%5s  %s%-6s%s  %-*s  %-*s  %s%s%s\n", first ? number : "",
                text_colour(flags, viable ? "32" : "33"),
                !first   ? ""
                : viable ? "viable"
                         : "in use",
                text_colour(flags, "0"), (int)table->address, info->name, (int)table->name, name,
                text_colour(flags, passthrough_device_hinders(device) ? "33" : "0"),
                or_dash(info->driver), text_colour(flags, "0"));
        first = false;
    }
}

void passthrough_groups_print(const struct passthrough_manager *manager, FILE *out, unsigned flags)
{
    if (flags & PASSTHROUGH_PRINT_JSON) {
        json_groups(manager, out);
        return;
    }
    size_t count = passthrough_groups(manager, NULL, 0);
    if (!count) {
        fprintf(out, "There are no IOMMU groups: the IOMMU is off, or there is none.\n"
                     "'hartvisor devices check' says what to do.\n");
        return;
    }
    struct table table = {out, flags, 7, 4, 0, 6};
    for (size_t i = 0; i < manager->count; i++)
        measure(&table, &manager->devices[i]->info);
    fit_table(&table, table.address + table.driver + 5 + 6 + 8);
    int *groups = xcalloc(count, sizeof(*groups));
    passthrough_groups(manager, groups, count);
    fprintf(out, "%sGROUP  STATE   %-*s  %-*s  DRIVER%s\n", text_colour(flags, "1"),
            (int)table.address, "ADDRESS", (int)table.name, "DEVICE", text_colour(flags, "0"));
    for (size_t i = 0; i < count; i++)
        print_group_row(manager, groups[i], &table);
    free(groups);
}
