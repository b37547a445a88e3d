/* The timeline: the newest spans of work, in Chrome's trace event format. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gpu/core.h"

#define TRACE_SPANS 65536

struct gpu_trace {
    size_t count; /* ever; the newest TRACE_SPANS are there */
    struct span {
        const char *name; /* a constant */
        int scanout;
        uint64_t start_ns, duration_ns;
    } spans[TRACE_SPANS];
};

struct gpu_trace *gpu_trace_create(void)
{
    return xcalloc(1, sizeof(struct gpu_trace));
}

void gpu_trace_destroy(struct gpu_trace *trace)
{
    free(trace);
}

void gpu_trace_clear(struct gpu_trace *trace)
{
    trace->count = 0;
}

uint64_t gpu_trace_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void gpu_trace_span(struct gpu_trace *trace, const char *name, int scanout, uint64_t start_ns)
{
    if (trace)
        trace->spans[trace->count++ % TRACE_SPANS] =
            (struct span){name, scanout, start_ns, gpu_trace_now() - start_ns};
}

char *gpu_trace_format(const struct gpu_trace *trace, size_t *size)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, size);
    size_t first = trace->count > TRACE_SPANS ? trace->count - TRACE_SPANS : 0;
    /* Thread 1 is for what belongs to no scanout. */
    for (size_t i = first; i < trace->count; i++) {
        const struct span *span = &trace->spans[i % TRACE_SPANS];
        fprintf(out,
                "%s{\"ph\":\"X\",\"pid\":1,\"tid\":%d,\"name\":\"%s\",\"ts\":%llu.%03u,"
                "\"dur\":%llu.%03u}",
                i == first ? "" : ",\n", span->scanout + 2, span->name,
                (unsigned long long)(span->start_ns / 1000), (unsigned)(span->start_ns % 1000),
                (unsigned long long)(span->duration_ns / 1000),
                (unsigned)(span->duration_ns % 1000));
    }
    fclose(out);
    return text;
}
