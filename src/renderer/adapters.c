/* What this machine can draw on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "renderer/renderer.h"

void adapters_init(struct adapters *adapters)
{
    const WGPUInstanceEnumerateAdapterOptions options = {.backends = WGPUInstanceBackend_Primary |
                                                                     WGPUInstanceBackend_Secondary};
    *adapters = (struct adapters){0};
    /* A cache on disk needs rights that this process gives up. */
    setenv("MESA_SHADER_CACHE_DISABLE", "true", 1);
    /* Looking for a Wayland display, GL complains of a session that is missing. */
    setenv("XDG_RUNTIME_DIR", "/nonexistent", 0);
    wgpuSetLogLevel(WGPULogLevel_Off);
    adapters->instance = wgpuCreateInstance(NULL);
    adapters->count = wgpuInstanceEnumerateAdapters(adapters->instance, &options, NULL);
    adapters->list = xcalloc(adapters->count + 1, sizeof(*adapters->list));
    adapters->count = wgpuInstanceEnumerateAdapters(adapters->instance, &options, adapters->list);
}

void adapters_finish(struct adapters *adapters)
{
    for (size_t i = 0; i < adapters->count; i++)
        wgpuAdapterRelease(adapters->list[i]);
    free(adapters->list);
    if (adapters->instance)
        wgpuInstanceRelease(adapters->instance);
}

static void copy_text(char *text, size_t size, WGPUStringView view)
{
    size_t length = !view.data ? 0 : view.length == WGPU_STRLEN ? strlen(view.data) : view.length;
    snprintf(text, size, "%.*s", (int)(length < size ? length : size), view.data ? view.data : "");
}

static const char *vendor_name(uint32_t id)
{
    static const struct {
        uint32_t id;
        const char *name;
    } vendors[] = {
        {0x10de, "NVIDIA"}, {0x1002, "AMD"},       {0x8086, "Intel"},       {0x106b, "Apple"},
        {0x13b5, "Arm"},    {0x5143, "Qualcomm"},  {0x1010, "Imagination"}, {0x1af4, "Red Hat"},
        {0x15ad, "VMware"}, {0x1414, "Microsoft"}, {0x14e4, "Broadcom"},    {0x10003, "Kazan"},
        {0x10005, "Mesa"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(vendors); i++)
        if (vendors[i].id == id)
            return vendors[i].name;
    return "";
}

static uint32_t type_of(WGPUAdapterType type)
{
    static const enum gpu_adapter_type types[] = {
        [WGPUAdapterType_DiscreteGPU] = GPU_ADAPTER_DISCRETE,
        [WGPUAdapterType_IntegratedGPU] = GPU_ADAPTER_INTEGRATED,
        [WGPUAdapterType_CPU] = GPU_ADAPTER_CPU,
        [WGPUAdapterType_Unknown] = GPU_ADAPTER_UNKNOWN,
    };
    return type > 0 && type < ARRAY_SIZE(types) ? types[type] : GPU_ADAPTER_UNKNOWN;
}

static const char *api_name(WGPUBackendType type)
{
    static const char *const names[] = {
        [WGPUBackendType_D3D11] = "DX11",  [WGPUBackendType_D3D12] = "DX12",
        [WGPUBackendType_Metal] = "Metal", [WGPUBackendType_Vulkan] = "Vulkan",
        [WGPUBackendType_OpenGL] = "GL",   [WGPUBackendType_OpenGLES] = "GLES",
    };
    return type < ARRAY_SIZE(names) && names[type] ? names[type] : "";
}

static void describe_features(WGPUAdapter adapter, struct gpu_adapter_info *info)
{
    static const struct {
        WGPUFeatureName feature;
        const char *name;
    } features[] = {
        {WGPUFeatureName_TimestampQuery, "timestamp-query"},
        {WGPUFeatureName_DepthClipControl, "depth-clip-control"},
        {WGPUFeatureName_TextureCompressionBC, "texture-compression-bc"},
        {WGPUFeatureName_TextureCompressionASTC, "texture-compression-astc"},
        {WGPUFeatureName_IndirectFirstInstance, "indirect-first-instance"},
        {WGPUFeatureName_ShaderF16, "shader-f16"},
        {WGPUFeatureName_DualSourceBlending, "dual-source-blending"},
        {WGPUFeatureName_Subgroups, "subgroups"},
    };
    char *end = info->features;
    for (size_t i = 0; i < ARRAY_SIZE(features); i++)
        if (wgpuAdapterHasFeature(adapter, features[i].feature))
            end += sprintf(end, "%s%s", end > info->features ? " " : "", features[i].name);
    info->timestamps = wgpuAdapterHasFeature(adapter, WGPUFeatureName_TimestampQuery);
}

void adapters_describe(const struct adapters *adapters, size_t index, struct gpu_adapter_info *info)
{
    WGPUAdapter adapter = adapters->list[index];
    WGPUAdapterInfo told = {0};
    WGPULimits limits = {0};
    wgpuAdapterGetInfo(adapter, &told);
    wgpuAdapterGetLimits(adapter, &limits);
    *info = (struct gpu_adapter_info){
        .index = (uint32_t)index,
        .type = type_of(told.adapterType),
        .vendor_id = told.vendorID,
        .device_id = told.deviceID,
        .max_texture_size = limits.maxTextureDimension2D,
        .max_buffer_size = limits.maxBufferSize,
    };
    copy_text(info->name, sizeof(info->name), told.device);
    snprintf(info->vendor, sizeof(info->vendor), "%s", vendor_name(told.vendorID));
    snprintf(info->api, sizeof(info->api), "%s", api_name(told.backendType));
    copy_text(info->driver, sizeof(info->driver), told.description);
    describe_features(adapter, info);
    wgpuAdapterInfoFreeMembers(told);
}
