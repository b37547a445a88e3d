/* An adapter that is open, with all that every canvas on it has in common. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "renderer/renderer.h"
#include "shader.h"

static struct gpu_device *open_devices[GPU_MAX_ADAPTERS];

static void note_error(struct gpu_device *device, WGPUStringView message)
{
    size_t length = !message.data                   ? 0
                    : message.length == WGPU_STRLEN ? strlen(message.data)
                                                    : message.length;
    if (!device->error[0])
        snprintf(device->error, sizeof(device->error), "%.*s",
                 (int)(length < sizeof(device->error) ? length : sizeof(device->error)),
                 message.data ? message.data : "unknown");
}

static void on_error(WGPUDevice const *handle, WGPUErrorType type, WGPUStringView message,
                     void *opaque, void *unused)
{
    note_error(opaque, message);
}

/* There is nothing to draw on any more: the machine starts another renderer. */
static void on_lost(WGPUDevice const *handle, WGPUDeviceLostReason reason, WGPUStringView message,
                    void *opaque, void *unused)
{
    struct gpu_device *device = opaque;
    if (reason == WGPUDeviceLostReason_Destroyed || !device->references)
        return;
    note_error(device, message);
    log_error("hartvisor-gpu: %s: the device was lost: %s", device->name, device->error);
    exit(1);
}

static void on_device(WGPURequestDeviceStatus status, WGPUDevice handle, WGPUStringView message,
                      void *opaque, void *unused)
{
    struct gpu_device *device = opaque;
    if (status == WGPURequestDeviceStatus_Success)
        device->handle = handle;
    else
        note_error(device, message);
}

bool gpu_device_take_error(struct gpu_device *device, char *text, size_t size)
{
    if (!device->error[0])
        return false;
    snprintf(text, size, "%s", device->error);
    device->error[0] = '\0';
    return true;
}

void gpu_device_wait(struct gpu_device *device)
{
    wgpuDevicePoll(device->handle, true, NULL);
}

static WGPUStringView view(const char *text)
{
    return (WGPUStringView){text, strlen(text)};
}

static void make_pipeline(struct gpu_device *device)
{
    WGPUShaderSourceWGSL source = {.chain = {.sType = WGPUSType_ShaderSourceWGSL},
                                   .code = view(shader_source)};
    const WGPUShaderModuleDescriptor module_descriptor = {.nextInChain = &source.chain};
    WGPUShaderModule module = wgpuDeviceCreateShaderModule(device->handle, &module_descriptor);
    const WGPUColorTargetState target = {.format = WGPUTextureFormat_RGBA8Uint,
                                         .writeMask = WGPUColorWriteMask_All};
    const WGPUFragmentState fragment = {
        .module = module, .entryPoint = view("compose"), .targetCount = 1, .targets = &target};
    const WGPURenderPipelineDescriptor descriptor = {
        .vertex = {.module = module, .entryPoint = view("corner")},
        .primitive = {.topology = WGPUPrimitiveTopology_TriangleList},
        .multisample = {.count = 1, .mask = UINT32_MAX},
        .fragment = &fragment,
    };
    device->pipeline = wgpuDeviceCreateRenderPipeline(device->handle, &descriptor);
    device->layout = wgpuRenderPipelineGetBindGroupLayout(device->pipeline, 0);
    wgpuShaderModuleRelease(module);
}

static void request(struct gpu_device *device, WGPUAdapter adapter)
{
    const WGPUFeatureName features[] = {WGPUFeatureName_TimestampQuery};
    bool timed = wgpuAdapterHasFeature(adapter, features[0]);
    WGPULimits there = {0}, wanted = WGPU_LIMITS_INIT;
    wgpuAdapterGetLimits(adapter, &there);
    wanted.maxTextureDimension2D = there.maxTextureDimension2D;
    wanted.maxBufferSize = there.maxBufferSize;
    const WGPUDeviceDescriptor descriptor = {
        .requiredFeatureCount = timed,
        .requiredFeatures = features,
        .requiredLimits = &wanted,
        .deviceLostCallbackInfo = {.mode = WGPUCallbackMode_AllowSpontaneous,
                                   .callback = on_lost,
                                   .userdata1 = device},
        .uncapturedErrorCallbackInfo = {.callback = on_error, .userdata1 = device},
    };
    const WGPURequestDeviceCallbackInfo done = {
        .mode = WGPUCallbackMode_AllowSpontaneous, .callback = on_device, .userdata1 = device};
    wgpuAdapterRequestDevice(adapter, &descriptor, done);
    if (!device->handle)
        return;
    device->max_texture_size = there.maxTextureDimension2D;
    device->max_buffer_size = there.maxBufferSize;
    device->queue = wgpuDeviceGetQueue(device->handle);
    device->timestamp_ns = timed ? wgpuQueueGetTimestampPeriod(device->queue) : 0;
    make_pipeline(device);
}

struct gpu_device *gpu_device_open(const struct adapters *adapters, uint32_t index,
                                   struct error *err)
{
    struct gpu_device **place = NULL;
    if (index >= adapters->count) {
        error_set(err, "there is no adapter %u; there are %zu", index, adapters->count);
        return NULL;
    }
    for (size_t i = 0; i < GPU_MAX_ADAPTERS; i++) {
        if (open_devices[i] && open_devices[i]->adapter == index)
            return gpu_device_get(open_devices[i]);
        if (!open_devices[i])
            place = &open_devices[i];
    }
    struct gpu_adapter_info info;
    adapters_describe(adapters, index, &info);
    struct gpu_device *device = xcalloc(1, sizeof(*device));
    device->adapter = index;
    snprintf(device->name, sizeof(device->name), "%s", info.name);
    request(device, adapters->list[index]);
    char text[200];
    if (gpu_device_take_error(device, text, sizeof(text)) || !device->handle) {
        error_set(err, "%s cannot be opened: %s", device->name, text);
        gpu_device_put(device);
        return NULL;
    }
    device->references = 1;
    *place = device;
    return device;
}

struct gpu_device *gpu_device_get(struct gpu_device *device)
{
    device->references++;
    return device;
}

void gpu_device_put(struct gpu_device *device)
{
    if (!device || (device->references && --device->references))
        return;
    for (size_t i = 0; i < GPU_MAX_ADAPTERS; i++)
        if (open_devices[i] == device)
            open_devices[i] = NULL;
    if (device->layout)
        wgpuBindGroupLayoutRelease(device->layout);
    if (device->pipeline)
        wgpuRenderPipelineRelease(device->pipeline);
    if (device->queue)
        wgpuQueueRelease(device->queue);
    if (device->handle)
        wgpuDeviceRelease(device->handle);
    free(device);
}
