/* The renderer's end of the socket: what a process that draws is made of, but for its canvas. */
#pragma once

#include "gpu/gpu.h"

struct gpu_server_ops {
    /* Fills in the adapters that there are, at most `most`; returns how many. */
    size_t (*adapters)(void *opaque, struct gpu_adapter_info *list, size_t most);
    /* Opens the adapters of a GPU_REQUEST_OPEN whose numbers were checked to be no more than
     * GPU_MAX_ADAPTERS; NULL with err set. */
    struct gpu_canvas *(*open)(void *opaque, const struct gpu_request *request, struct error *err);
    /* NULL, or: all that needs rights was opened. False, with err set, ends the server. */
    bool (*opened)(void *opaque, struct error *err);
};

/* Serves requests from `in` until it is at its end; answers go to `out`. False with err set if what
 * came is no request, or an answer cannot be written. Both stay the caller's. */
bool gpu_server_run(int in, int out, const struct gpu_server_ops *ops, void *opaque,
                    struct error *err);
