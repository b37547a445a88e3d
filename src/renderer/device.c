/* An adapter that is open, with all that every canvas on it has in common. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "renderer/renderer.h"
#include "shader.h"

static struct gpu_device *open_devices[GPU_MAX_ADAPTERS];

static void note_error(struct gpu_device *device, WGPUStringView message)
{
    device->error_count++;
    size_t length = !message.data                   ? 0
                    : message.length == WGPU_STRLEN ? strlen(message.data)
                                                    : message.length;
    if (device->error[0])
        return;
    snprintf(device->error, sizeof(device->error), "%.*s",
             (int)(length < sizeof(device->error) ? length : sizeof(device->error)),
             message.data ? message.data : "unknown");
    /* It has lines; a message has one. */
    char *to = device->error;
    for (const char *from = to; *from; from++)
        if (!isspace((unsigned char)*from))
            *to++ = *from;
        else if (to > device->error && to[-1] != ' ')
            *to++ = ' ';
    *to = '\0';
}

static void on_error(WGPUDevice const *handle, WGPUErrorType type, WGPUStringView message,
                     void *opaque, void *unused)
{
    struct gpu_device *device = opaque;
    if (!device->error[0])
        device->no_memory = type == WGPUErrorType_OutOfMemory;
    note_error(device, message);
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
    /* Not exit: this is called from the inside of the driver, which would be taken down. */
    _exit(1);
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
    snprintf(text, size, "%s", device->no_memory ? "" : device->error);
    device->error[0] = '\0';
    device->no_memory = false;
    return true;
}

void gpu_device_wait(struct gpu_device *device, const WGPUSubmissionIndex *submission)
{
    wgpuDevicePoll(device->handle, true, submission);
}

static WGPUStringView view(const char *text)
{
    return (WGPUStringView){text, strlen(text)};
}

/* What frames are drawn from: parameters, the picture, the cursor. */
static void make_layout(struct gpu_device *device)
{
    WGPUBindGroupLayoutEntry entries[] = {
        {.binding = 0,
         .visibility = WGPUShaderStage_Fragment,
         .buffer = {.type = WGPUBufferBindingType_Uniform}},
        {.binding = 1, .visibility = WGPUShaderStage_Fragment},
        {.binding = 2, .visibility = WGPUShaderStage_Fragment},
    };
    for (size_t i = 1; i < ARRAY_SIZE(entries); i++) {
        if (device->direct)
            entries[i].buffer.type = WGPUBufferBindingType_ReadOnlyStorage;
        else
            entries[i].texture =
                (WGPUTextureBindingLayout){.sampleType = WGPUTextureSampleType_Uint,
                                           .viewDimension = WGPUTextureViewDimension_2D};
    }
    const WGPUBindGroupLayoutDescriptor descriptor = {.entryCount = ARRAY_SIZE(entries),
                                                      .entries = entries};
    device->layout = wgpuDeviceCreateBindGroupLayout(device->handle, &descriptor);
}

static WGPURenderPipeline make_pipeline(struct gpu_device *device, WGPUPipelineLayout layout,
                                        WGPUShaderModule module, bool scaled, bool with_cursor)
{
    const WGPUConstantEntry constants[] = {{.key = view("scaled"), .value = scaled},
                                           {.key = view("with_cursor"), .value = with_cursor}};
    const WGPUColorTargetState target = {.format = WGPUTextureFormat_R32Uint,
                                         .writeMask = WGPUColorWriteMask_All};
    const WGPUFragmentState fragment = {.module = module,
                                        .entryPoint = view("compose"),
                                        .constantCount = ARRAY_SIZE(constants),
                                        .constants = constants,
                                        .targetCount = 1,
                                        .targets = &target};
    const WGPURenderPipelineDescriptor descriptor = {
        .layout = layout,
        .vertex = {.module = module, .entryPoint = view("corner")},
        .primitive = {.topology = WGPUPrimitiveTopology_TriangleList},
        .multisample = {.count = 1, .mask = UINT32_MAX},
        .fragment = &fragment,
    };
    return wgpuDeviceCreateRenderPipeline(device->handle, &descriptor);
}

/* All of them now: translating shaders may need what the sandbox takes away. */
static void make_pipelines(struct gpu_device *device)
{
    char *text = xasprintf("%s%s", shader_source, device->direct ? buffer_source : texture_source);
    WGPUShaderSourceWGSL source = {.chain = {.sType = WGPUSType_ShaderSourceWGSL},
                                   .code = view(text)};
    const WGPUShaderModuleDescriptor module_descriptor = {.nextInChain = &source.chain};
    WGPUShaderModule module = wgpuDeviceCreateShaderModule(device->handle, &module_descriptor);
    make_layout(device);
    const WGPUPipelineLayoutDescriptor descriptor = {.bindGroupLayoutCount = 1,
                                                     .bindGroupLayouts = &device->layout};
    WGPUPipelineLayout layout = wgpuDeviceCreatePipelineLayout(device->handle, &descriptor);
    for (unsigned i = 0; i < DEVICE_PIPELINES; i++)
        device->pipelines[i / 2][i % 2] = make_pipeline(device, layout, module, i / 2, i % 2);
    wgpuPipelineLayoutRelease(layout);
    wgpuShaderModuleRelease(module);
    free(text);
}

static void request(struct gpu_device *device, WGPUAdapter adapter)
{
    WGPUFeatureName features[2];
    size_t count = 0;
    bool timed = wgpuAdapterHasFeature(adapter, WGPUFeatureName_TimestampQuery);
    if (timed)
        features[count++] = WGPUFeatureName_TimestampQuery;
    if (device->direct)
        features[count++] = (WGPUFeatureName)WGPUNativeFeature_MappablePrimaryBuffers;
    /* All that there is: the usual limits are more than some adapters have. */
    WGPULimits there = {0};
    wgpuAdapterGetLimits(adapter, &there);
    const WGPUDeviceDescriptor descriptor = {
        .requiredFeatureCount = count,
        .requiredFeatures = features,
        .requiredLimits = &there,
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
    device->max_binding_size = there.maxStorageBufferBindingSize;
    device->queue = wgpuDeviceGetQueue(device->handle);
    device->timestamp_ns = timed ? wgpuQueueGetTimestampPeriod(device->queue) : 0;
    make_pipelines(device);
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
    device->direct =
        info.type == GPU_ADAPTER_CPU && !adapters->indirect &&
        wgpuAdapterHasFeature(adapters->list[index],
                              (WGPUFeatureName)WGPUNativeFeature_MappablePrimaryBuffers);
    request(device, adapters->list[index]);
    char text[200] = "";
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
    if (!device)
        return;
    /* One that could not be opened has no references. */
    if (device->references)
        device->references--;
    if (device->references)
        return;
    for (size_t i = 0; i < GPU_MAX_ADAPTERS; i++)
        if (open_devices[i] == device)
            open_devices[i] = NULL;
    if (device->layout)
        wgpuBindGroupLayoutRelease(device->layout);
    for (unsigned i = 0; i < DEVICE_PIPELINES; i++)
        if (device->pipelines[i / 2][i % 2])
            wgpuRenderPipelineRelease(device->pipelines[i / 2][i % 2]);
    if (device->queue)
        wgpuQueueRelease(device->queue);
    if (device->handle)
        wgpuDeviceRelease(device->handle);
    free(device);
}
