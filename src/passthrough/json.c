/* The same as the texts, for programs. Keys are never renamed. */
#include <stdlib.h>
#include <string.h>

#include "passthrough/internal.h"

static void add(struct json_object *object, const char *key, struct json_object *value)
{
    json_object_object_add(object, key, value);
}

static void add_text(struct json_object *object, const char *key, const char *text)
{
    add(object, key, text && *text ? json_object_new_string(text) : NULL);
}

static void add_number(struct json_object *object, const char *key, uint64_t number)
{
    add(object, key, json_object_new_uint64(number));
}

static void add_flag(struct json_object *object, const char *key, bool flag)
{
    add(object, key, json_object_new_boolean(flag));
}

static void add_hex(struct json_object *object, const char *key, uint64_t number, int digits)
{
    char text[24];
    snprintf(text, sizeof(text), "0x%0*llx", digits, (unsigned long long)number);
    add_text(object, key, text);
}

/* Negative numbers stand for nothing. */
static void add_index(struct json_object *object, const char *key, int number)
{
    add(object, key, number < 0 ? NULL : json_object_new_int(number));
}

void json_print(FILE *out, struct json_object *object)
{
    fprintf(out, "%s\n",
            json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY |
                                                       JSON_C_TO_STRING_SPACED |
                                                       JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(object);
}

static struct json_object *json_bars(const struct passthrough_info *info)
{
    static const char *const kinds[] = {
        [PASSTHROUGH_BAR_IO] = "io",
        [PASSTHROUGH_BAR_MEMORY32] = "memory32",
        [PASSTHROUGH_BAR_MEMORY64] = "memory64",
    };
    struct json_object *list = json_object_new_array();
    for (unsigned i = 0; i < PASSTHROUGH_BARS; i++) {
        const struct passthrough_bar *bar = &info->bars[i];
        if (bar->kind == PASSTHROUGH_BAR_NONE)
            continue;
        struct json_object *object = json_object_new_object();
        add(object, "index", i == PASSTHROUGH_BAR_ROM ? NULL : json_object_new_int((int)i));
        add_text(object, "kind", i == PASSTHROUGH_BAR_ROM ? "rom" : kinds[bar->kind]);
        add_flag(object, "prefetchable", bar->prefetchable);
        add_hex(object, "address", bar->address, 1);
        add_number(object, "size", bar->size);
        json_object_array_add(list, object);
    }
    return list;
}

static struct json_object *json_link(const struct passthrough_info *info)
{
    if (!info->link_max.width)
        return NULL;
    struct json_object *object = json_object_new_object();
    add_number(object, "speed_mts", info->link.speed);
    add_number(object, "width", info->link.width);
    add_number(object, "max_speed_mts", info->link_max.speed);
    add_number(object, "max_width", info->link_max.width);
    return object;
}

static struct json_object *json_words(const char *text)
{
    struct json_object *list = json_object_new_array();
    for (text += strspn(text, " "); *text; text += strspn(text, " ")) {
        size_t length = strcspn(text, " ");
        json_object_array_add(list, json_object_new_string_len(text, (int)length));
        text += length;
    }
    return list;
}

static struct json_object *json_functions(const struct passthrough_info *info)
{
    if (!info->virtual_functions_max)
        return NULL;
    struct json_object *object = json_object_new_object();
    add_number(object, "present", info->virtual_functions);
    add_number(object, "total", info->virtual_functions_max);
    return object;
}

struct json_object *json_device(const struct passthrough_info *info)
{
    struct json_object *object = json_object_new_object();
    add_text(object, "address", info->name);
    add_text(object, "type", passthrough_type_name(passthrough_kind_type(info->kind)));
    add_text(object, "kind", passthrough_kind_name(info->kind));
    add_flag(object, "integrated", info->integrated);
    add_hex(object, "vendor", info->vendor, 4);
    add_hex(object, "device", info->device, 4);
    add_hex(object, "subsystem_vendor", info->subsystem_vendor, 4);
    add_hex(object, "subsystem_device", info->subsystem_device, 4);
    add_hex(object, "class", info->class_code, 6);
    add_hex(object, "revision", info->revision, 2);
    add_text(object, "vendor_name", info->vendor_name);
    add_text(object, "device_name", info->device_name);
    add_text(object, "driver", info->driver);
    add_index(object, "iommu_group", info->group);
    add_index(object, "numa_node", info->numa_node);
    add(object, "bars", json_bars(info));
    add(object, "link", json_link(info));
    add(object, "sriov", json_functions(info));
    add_text(object, "physical_function", info->physical_function);
    add(object, "reset_methods", json_words(info->reset_methods));
    add_flag(object, "boot_vga", info->boot_vga);
    add_text(object, "power_state", info->power_state);
    return object;
}

/* --- Configuration space, product data --- */

struct json_object *json_product_data(const struct product_field *list, size_t count)
{
    struct json_object *object = json_object_new_object();
    for (size_t i = 0; i < count; i++)
        add_text(object, list[i].keyword, list[i].text);
    return object;
}

static void add_field(void *opaque, const struct field *field)
{
    if (field->type == FIELD_FLAG)
        add_flag(opaque, field->key, field->number);
    else if (field->type == FIELD_TEXT)
        add_text(opaque, field->key, field->text);
    else
        add_number(opaque, field->key, field->number);
}

struct json_object *json_config_space(const struct config_space *space)
{
    struct config_capability list[CONFIG_SPACE_MAX_CAPABILITIES];
    unsigned count = config_space_capabilities(space, list);
    struct json_object *object = json_object_new_object(), *all = json_object_new_array();
    uint16_t command;
    add_number(object, "known_bytes", space->size);
    if (config_space_u16(space, 4, &command)) {
        add_flag(object, "io", command & 1);
        add_flag(object, "memory", command & 2);
        add_flag(object, "bus_master", command & 4);
        add_flag(object, "intx_off", command & 0x400);
    }
    for (unsigned i = 0; i < count; i++) {
        struct json_object *one = json_object_new_object(), *fields = json_object_new_object();
        add_number(one, "offset", list[i].offset);
        add_flag(one, "extended", list[i].extended);
        add_number(one, "id", list[i].id);
        add_number(one, "version", list[i].version);
        add_text(one, "name", config_capability_name(&list[i]));
        capability_decode(space, &list[i], add_field, fields);
        add(one, "fields", fields);
        json_object_array_add(all, one);
    }
    add(object, "capabilities", all);
    return object;
}

/* --- Groups --- */

static struct json_object *json_group(const struct passthrough_manager *manager, int group)
{
    struct json_object *object = json_object_new_object();
    struct json_object *members = json_object_new_array(), *hindrances = json_object_new_array();
    for (size_t i = 0; i < manager->count; i++) {
        const struct passthrough_device *device = manager->devices[i];
        if (device->info.group != group)
            continue;
        json_object_array_add(members, json_object_new_string(device->info.name));
        if (!passthrough_device_hinders(device))
            continue;
        struct json_object *hindrance = json_object_new_object();
        add_text(hindrance, "device", device->info.name);
        add_text(hindrance, "driver", device->info.driver);
        json_object_array_add(hindrances, hindrance);
    }
    add_index(object, "group", group);
    add_flag(object, "viable", passthrough_group_viable(manager, group, NULL));
    add(object, "devices", members);
    add(object, "hindered_by", hindrances);
    return object;
}

void json_groups(const struct passthrough_manager *manager, FILE *out)
{
    size_t count = passthrough_groups(manager, NULL, 0);
    int *groups = xcalloc(count + 1, sizeof(*groups));
    struct json_object *list = json_object_new_array();
    passthrough_groups(manager, groups, count);
    for (size_t i = 0; i < count; i++)
        json_object_array_add(list, json_group(manager, groups[i]));
    free(groups);
    json_print(out, list);
}
