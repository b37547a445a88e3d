/* What the manager knows, for people and as JSON. */
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "gpu/manager.h"

static const char *colour(unsigned flags, const char *code)
{
    static const struct {
        const char *code, *sequence;
    } sequences[] = {{"0", "\033[0m"},
                     {"1", "\033[1m"},
                     {"2", "\033[2m"},
                     {"32", "\033[32m"},
                     {"33", "\033[33m"}};
    for (size_t i = 0; flags & GPU_PRINT_COLOUR && i < ARRAY_SIZE(sequences); i++)
        if (!strcmp(sequences[i].code, code))
            return sequences[i].sequence;
    return "";
}

const char *gpu_adapter_type_name(enum gpu_adapter_type type)
{
    static const char *const names[] = {
        [GPU_ADAPTER_DISCRETE] = "discrete GPU", [GPU_ADAPTER_INTEGRATED] = "integrated GPU",
        [GPU_ADAPTER_VIRTUAL] = "virtual GPU",   [GPU_ADAPTER_CPU] = "CPU",
        [GPU_ADAPTER_UNKNOWN] = "unknown",
    };
    return type < ARRAY_SIZE(names) ? names[type] : names[GPU_ADAPTER_UNKNOWN];
}

static void print_json(struct json_object *object, FILE *out)
{
    fprintf(
        out, "%s\n",
        json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED));
    json_object_put(object);
}

static void add_text(struct json_object *object, const char *key, const char *text)
{
    json_object_object_add(object, key, json_object_new_string(text));
}

static void add_number(struct json_object *object, const char *key, uint64_t number)
{
    json_object_object_add(object, key, json_object_new_uint64(number));
}

/* --- Back ends and adapters --------------------------------------------------------------------
 */

static struct json_object *adapter_object(const struct gpu_adapter_info *adapter)
{
    struct json_object *object = json_object_new_object();
    char id[16];
    add_number(object, "index", adapter->index);
    add_text(object, "name", adapter->name);
    add_text(object, "vendor", adapter->vendor);
    snprintf(id, sizeof(id), "0x%04x", adapter->vendor_id);
    add_text(object, "vendor_id", id);
    snprintf(id, sizeof(id), "0x%04x", adapter->device_id);
    add_text(object, "device_id", id);
    add_text(object, "type", gpu_adapter_type_name(adapter->type));
    add_text(object, "api", adapter->api);
    add_text(object, "driver", adapter->driver);
    add_number(object, "max_texture_size", adapter->max_texture_size);
    add_number(object, "max_buffer_size", adapter->max_buffer_size);
    json_object_object_add(object, "timestamps", json_object_new_boolean(adapter->timestamps));
    add_text(object, "features", adapter->features);
    return object;
}

static void print_backends_json(const struct gpu_manager *manager, FILE *out)
{
    struct json_object *list = json_object_new_array();
    for (unsigned i = 0; i < manager->backend_count; i++) {
        const struct gpu_backend_info *info = &manager->backends[i].info;
        struct json_object *object = json_object_new_object();
        struct json_object *adapters = json_object_new_array();
        add_text(object, "name", info->name);
        add_text(object, "description", info->description);
        json_object_object_add(object, "usable", json_object_new_boolean(info->usable));
        add_text(object, "reason", info->reason);
        for (size_t k = 0; k < info->adapter_count; k++)
            json_object_array_add(adapters, adapter_object(&info->adapters[k]));
        json_object_object_add(object, "adapters", adapters);
        json_object_array_add(list, object);
    }
    print_json(list, out);
}

static void print_adapter(const struct gpu_adapter_info *adapter, FILE *out, unsigned flags)
{
    fprintf(out, "    %s%u%s  %s\n", colour(flags, "1"), adapter->index, colour(flags, "0"),
            adapter->name);
    fprintf(out, "       %s, %s %04x:%04x, %s%s%s\n", gpu_adapter_type_name(adapter->type),
            adapter->vendor[0] ? adapter->vendor : "vendor", adapter->vendor_id, adapter->device_id,
            adapter->api, adapter->driver[0] ? ", driver " : "", adapter->driver);
    if (adapter->max_texture_size)
        fprintf(out, "       textures up to %u pixels wide, buffers up to %llu MiB, %s\n",
                adapter->max_texture_size, (unsigned long long)(adapter->max_buffer_size >> 20),
                adapter->timestamps ? "GPU times" : "no GPU times");
}

void gpu_manager_print(const struct gpu_manager *manager, FILE *out, unsigned flags)
{
    if (flags & GPU_PRINT_JSON) {
        print_backends_json(manager, out);
        return;
    }
    for (unsigned i = 0; i < manager->backend_count; i++) {
        const struct gpu_backend_info *info = &manager->backends[i].info;
        fprintf(out, "%s%-12s%s %s%s%s  %s\n", colour(flags, "1"), info->name, colour(flags, "0"),
                colour(flags, info->usable ? "32" : "33"),
                info->usable ? "usable    " : "not usable", colour(flags, "0"), info->description);
        if (!info->usable)
            fprintf(out, "    %s\n", info->reason);
        for (size_t k = 0; k < info->adapter_count; k++)
            print_adapter(&info->adapters[k], out, flags);
    }
}

/* --- Statistics --------------------------------------------------------------------------------
 */

enum unit { UNIT_COUNT, UNIT_BYTES, UNIT_TIME };

static const struct counter {
    const char *key, *label;
    size_t offset;
    enum unit unit;
} counters[] = {
#define COUNTER(field, label, unit) {#field, label, offsetof(struct gpu_counters, field), unit}
    COUNTER(frames_presented, "frames presented", UNIT_COUNT),
    COUNTER(frames_dropped, "frames dropped", UNIT_COUNT),
    COUNTER(transfers, "transfers", UNIT_COUNT),
    COUNTER(bytes_uploaded, "uploaded", UNIT_BYTES),
    COUNTER(bytes_read_back, "read back", UNIT_BYTES),
    COUNTER(command_buffers, "command buffers", UNIT_COUNT),
    COUNTER(render_passes, "render passes", UNIT_COUNT),
    COUNTER(draws, "draws", UNIT_COUNT),
    COUNTER(gpu_time_ns, "time on the GPU", UNIT_TIME),
    COUNTER(passes_timed, "passes timed", UNIT_COUNT),
    COUNTER(busy_ns, "renderer busy", UNIT_TIME),
#undef COUNTER
};

static const struct counter load_counters[] = {
#define COUNTER(field, label, unit) {#field, label, offsetof(struct gpu_adapter_load, field), unit}
    COUNTER(textures, "textures", UNIT_COUNT),
    COUNTER(buffers, "buffers", UNIT_COUNT),
    COUNTER(pipelines, "pipelines", UNIT_COUNT),
    COUNTER(memory, "memory", UNIT_BYTES),
    COUNTER(memory_peak, "memory at its peak", UNIT_BYTES),
    COUNTER(queue_ns, "queue busy", UNIT_TIME),
#undef COUNTER
};

static uint64_t value_of(const struct counter *counter, const void *thing)
{
    return *(const uint64_t *)((const char *)thing + counter->offset);
}

static void print_value(const struct counter *counter, const void *thing, FILE *out)
{
    double value = (double)value_of(counter, thing);
    char text[32];
    if (counter->unit == UNIT_TIME)
        snprintf(text, sizeof(text), "%.1f ms", value / 1e6);
    else if (counter->unit == UNIT_BYTES)
        snprintf(text, sizeof(text), "%.1f MiB", value / 1048576);
    else
        snprintf(text, sizeof(text), "%.0f", value);
    fprintf(out, " %14s", text);
}

static struct json_object *counters_object(const struct counter *list, size_t count,
                                           const void *thing)
{
    struct json_object *object = json_object_new_object();
    for (size_t i = 0; i < count; i++)
        add_number(object, list[i].key, value_of(&list[i], thing));
    return object;
}

struct json_object *gpu_stats_object(const struct gpu_stats *stats)
{
    struct json_object *object = json_object_new_object();
    struct json_object *scanouts = json_object_new_array(), *adapters = json_object_new_array();
    add_text(object, "backend", stats->backend);
    json_object_object_add(object, "total",
                           counters_object(counters, ARRAY_SIZE(counters), &stats->total));
    for (uint32_t i = 0; i < stats->scanout_count && i < GPU_STATS_SCANOUTS; i++) {
        struct json_object *scanout =
            counters_object(counters, ARRAY_SIZE(counters), &stats->scanouts[i]);
        add_number(scanout, "scanout", i);
        json_object_object_add(scanout, "adapter",
                               stats->scanout_adapter[i] == UINT32_MAX
                                   ? NULL
                                   : json_object_new_int64(stats->scanout_adapter[i]));
        json_object_array_add(scanouts, scanout);
    }
    for (uint32_t i = 0; i < stats->adapter_count && i < GPU_STATS_ADAPTERS; i++) {
        struct json_object *adapter =
            counters_object(load_counters, ARRAY_SIZE(load_counters), &stats->adapters[i]);
        add_text(adapter, "name", stats->adapter_name[i]);
        json_object_array_add(adapters, adapter);
    }
    json_object_object_add(object, "scanouts", scanouts);
    json_object_object_add(object, "adapters", adapters);
    return object;
}

static void parse_counters(const struct counter *list, size_t count, struct json_object *object,
                           void *thing)
{
    for (size_t i = 0; i < count; i++)
        *(uint64_t *)((char *)thing + list[i].offset) =
            json_object_get_uint64(json_object_object_get(object, list[i].key));
}

void gpu_stats_parse(struct json_object *object, struct gpu_stats *stats)
{
    struct json_object *scanouts = json_object_object_get(object, "scanouts");
    struct json_object *adapters = json_object_object_get(object, "adapters");
    const char *backend = json_object_get_string(json_object_object_get(object, "backend"));
    *stats = (struct gpu_stats){0};
    snprintf(stats->backend, sizeof(stats->backend), "%s", backend ? backend : "");
    parse_counters(counters, ARRAY_SIZE(counters), json_object_object_get(object, "total"),
                   &stats->total);
    if (json_object_is_type(scanouts, json_type_array))
        stats->scanout_count = (uint32_t)json_object_array_length(scanouts);
    if (json_object_is_type(adapters, json_type_array))
        stats->adapter_count = (uint32_t)json_object_array_length(adapters);
    if (stats->scanout_count > GPU_STATS_SCANOUTS)
        stats->scanout_count = GPU_STATS_SCANOUTS;
    if (stats->adapter_count > GPU_STATS_ADAPTERS)
        stats->adapter_count = GPU_STATS_ADAPTERS;
    for (uint32_t i = 0; i < stats->scanout_count; i++) {
        struct json_object *scanout = json_object_array_get_idx(scanouts, i);
        struct json_object *adapter = json_object_object_get(scanout, "adapter");
        parse_counters(counters, ARRAY_SIZE(counters), scanout, &stats->scanouts[i]);
        stats->scanout_adapter[i] = adapter ? (uint32_t)json_object_get_int64(adapter) : UINT32_MAX;
    }
    for (uint32_t i = 0; i < stats->adapter_count; i++) {
        struct json_object *adapter = json_object_array_get_idx(adapters, i);
        const char *name = json_object_get_string(json_object_object_get(adapter, "name"));
        parse_counters(load_counters, ARRAY_SIZE(load_counters), adapter, &stats->adapters[i]);
        snprintf(stats->adapter_name[i], sizeof(stats->adapter_name[i]), "%s", name ? name : "");
    }
}

void gpu_stats_tame(struct gpu_stats *stats)
{
    if (stats->scanout_count > GPU_STATS_SCANOUTS)
        stats->scanout_count = GPU_STATS_SCANOUTS;
    if (stats->adapter_count > GPU_STATS_ADAPTERS)
        stats->adapter_count = GPU_STATS_ADAPTERS;
    gpu_text_tame(stats->backend, sizeof(stats->backend));
    for (unsigned i = 0; i < GPU_STATS_ADAPTERS; i++)
        gpu_text_tame(stats->adapter_name[i], sizeof(stats->adapter_name[i]));
    for (unsigned i = 0; i < GPU_STATS_SCANOUTS; i++)
        if (stats->scanout_adapter[i] >= stats->adapter_count)
            stats->scanout_adapter[i] = UINT32_MAX;
}

void gpu_stats_print(const struct gpu_stats *stats, FILE *out, unsigned flags)
{
    if (flags & GPU_PRINT_JSON) {
        print_json(gpu_stats_object(stats), out);
        return;
    }
    unsigned shown[GPU_STATS_SCANOUTS], count = 0;
    for (uint32_t i = 0; i < stats->scanout_count && i < GPU_STATS_SCANOUTS; i++)
        if (stats->scanout_adapter[i] != UINT32_MAX || stats->scanouts[i].frames_presented)
            shown[count++] = i;
    fprintf(out, "%s%-20s %14s", colour(flags, "1"), stats->backend, "TOTAL");
    for (unsigned i = 0; i < count; i++)
        fprintf(out, "     SCANOUT %2u", shown[i]);
    fprintf(out, "%s\n", colour(flags, "0"));
    for (size_t k = 0; k < ARRAY_SIZE(counters); k++) {
        fprintf(out, "%-20s", counters[k].label);
        print_value(&counters[k], &stats->total, out);
        for (unsigned i = 0; i < count; i++)
            print_value(&counters[k], &stats->scanouts[shown[i]], out);
        fprintf(out, "\n");
    }
    for (uint32_t i = 0; i < stats->adapter_count && i < GPU_STATS_ADAPTERS; i++) {
        fprintf(out, "%sadapter %u: %s%s\n", colour(flags, "1"), i, stats->adapter_name[i],
                colour(flags, "0"));
        for (size_t k = 0; k < ARRAY_SIZE(load_counters); k++) {
            fprintf(out, "%-20s", load_counters[k].label);
            print_value(&load_counters[k], &stats->adapters[i], out);
            fprintf(out, "\n");
        }
    }
}
