/* What draws a machine's screen, as control commands: statistics and the timeline. */
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "control/internal.h"
#include "virtio/gpu.h"

static bool run_stats(void *opaque, const struct control_value *values, struct json_object **result,
                      struct error *err)
{
    struct gpu_stats stats;
    if (!virtio_gpu_stats(opaque, &stats, values[0].boolean ? GPU_STATS_RESET : 0, err))
        return false;
    *result = gpu_stats_object(&stats);
    return true;
}

static bool run_trace_start(void *opaque, const struct control_value *values,
                            struct json_object **result, struct error *err)
{
    return virtio_gpu_trace(opaque, true, NULL, err);
}

static bool run_trace_stop(void *opaque, const struct control_value *values,
                           struct json_object **result, struct error *err)
{
    const char *path = values[0].string;
    char *events = NULL;
    FILE *file = fopen(path, "we");
    if (!file)
        return error_set_errno(err, errno, "cannot write the timeline to '%s'", path);
    bool ok = virtio_gpu_trace(opaque, false, &events, err);
    if (ok) {
        fprintf(file,
                "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n"
                "{\"ph\":\"M\",\"pid\":1,\"name\":\"process_name\",\"args\":{\"name\":"
                "\"hartvisor renderer\"}},\n"
                "{\"ph\":\"M\",\"pid\":1,\"tid\":1,\"name\":\"thread_name\",\"args\":{\"name\":"
                "\"no scanout\"}}");
        for (int i = 0; i < GPU_MAX_SCANOUTS; i++)
            fprintf(file,
                    ",\n{\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"name\":\"thread_name\",\"args\":"
                    "{\"name\":\"scanout %d\"}}",
                    i + 2, i);
        fprintf(file, "%s%s\n]}\n", events && *events ? ",\n" : "", events ? events : "");
    }
    free(events);
    if (fclose(file) && ok)
        ok = error_set_errno(err, errno, "cannot write the timeline to '%s'", path);
    return ok;
}

static const struct control_command gpu_commands[] = {
    {
        .name = "query-gpu-stats",
        .help = "tell what the renderer of the guest's screen has done",
        .arguments = {{"reset", CONTROL_BOOLEAN, true}},
        .run = run_stats,
    },
    {
        .name = "gpu-trace-start",
        .help = "begin to record a timeline of the renderer",
        .run = run_trace_start,
    },
    {
        .name = "gpu-trace-stop",
        .help = "end the timeline and write it to a file, for Perfetto",
        .arguments = {{"filename", CONTROL_STRING, false}},
        .run = run_trace_stop,
    },
};

void control_add_gpu(struct control *control, struct virtio_device *gpu)
{
    control_add_commands(control, gpu_commands, ARRAY_SIZE(gpu_commands), gpu);
}
