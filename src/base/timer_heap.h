/* Private to the loop: a binary heap of timers, the earliest deadline first. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap_node {
    uint64_t deadline; /* UINT64_MAX: not in the heap */
    size_t index;      /* while in the heap */
};

struct timer_heap {
    struct heap_node **nodes;
    size_t count;
    size_t space;
};

/* Moves node to `deadline`: into the heap, within it, or (UINT64_MAX) out of it. */
void timer_heap_set(struct timer_heap *heap, struct heap_node *node, uint64_t deadline);

void timer_heap_finish(struct timer_heap *heap);

static inline struct heap_node *timer_heap_first(const struct timer_heap *heap)
{
    return heap->count ? heap->nodes[0] : NULL;
}
