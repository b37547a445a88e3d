/*
 * Says what could draw a guest's screen on this machine, starts the best of it with libhartvisor,
 * and prints its statistics.
 *
 *     gpu [BACKENDS [ADAPTER]]
 *
 * BACKENDS is auto, or names like wgpu,2d.
 *
 *     cc gpu.c $(pkg-config --cflags --libs --static hartvisor)
 */
#include <stdio.h>

#include "hartvisor/gpu.h"

int main(int count, char **words)
{
    const char *backends = count > 1 ? words[1] : "auto", *adapter = count > 2 ? words[2] : NULL;
    const struct gpu_manager_config config = {.draws = true};
    struct gpu_stats stats;
    struct error err;

    struct gpu_manager *manager = gpu_manager_create(&config, &err);
    if (!manager || !gpu_manager_select(manager, backends, adapter, &err) ||
        !gpu_manager_start(manager, &err) || !gpu_manager_stats(manager, &stats, 0, &err)) {
        fprintf(stderr, "gpu: %s\n", err.message);
        gpu_manager_destroy(manager);
        return 1;
    }
    const struct gpu_adapter_info *info = gpu_manager_adapter(manager);
    printf("%s draws", gpu_manager_selected(manager)->name);
    if (info)
        printf(" on %s (%s, by %s)", info->name,
               gpu_adapter_type_name((enum gpu_adapter_type)info->type), info->api);
    printf("\n");
    gpu_stats_print(&stats, stdout, 0);
    gpu_manager_destroy(manager);
    return 0;
}
