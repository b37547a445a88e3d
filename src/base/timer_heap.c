#include "base/timer_heap.h"

#include <stdlib.h>

#include "base/alloc.h"

static void put(struct timer_heap *heap, size_t index, struct heap_node *node)
{
    heap->nodes[index] = node;
    node->index = index;
}

static void sift_up(struct timer_heap *heap, struct heap_node *node)
{
    size_t index = node->index;
    while (index > 0) {
        size_t parent = (index - 1) / 2;
        if (heap->nodes[parent]->deadline <= node->deadline)
            break;
        put(heap, index, heap->nodes[parent]);
        index = parent;
    }
    put(heap, index, node);
}

static void sift_down(struct timer_heap *heap, struct heap_node *node)
{
    size_t index = node->index;
    for (;;) {
        size_t child = 2 * index + 1;
        if (child >= heap->count)
            break;
        if (child + 1 < heap->count &&
            heap->nodes[child + 1]->deadline < heap->nodes[child]->deadline)
            child++;
        if (node->deadline <= heap->nodes[child]->deadline)
            break;
        put(heap, index, heap->nodes[child]);
        index = child;
    }
    put(heap, index, node);
}

static void heap_add(struct timer_heap *heap, struct heap_node *node)
{
    if (heap->count == heap->space) {
        heap->space = heap->space ? 2 * heap->space : 16;
        heap->nodes = xrealloc(heap->nodes, heap->space * sizeof(struct heap_node *));
    }
    put(heap, heap->count++, node);
}

/* The last node takes the place of the one that leaves, and finds its own from there. */
static void heap_remove(struct timer_heap *heap, struct heap_node *node)
{
    struct heap_node *last = heap->nodes[--heap->count];
    if (last == node)
        return;
    put(heap, node->index, last);
    sift_up(heap, last);
    sift_down(heap, last);
}

void timer_heap_set(struct timer_heap *heap, struct heap_node *node, uint64_t deadline)
{
    bool inside = node->deadline != UINT64_MAX;
    node->deadline = deadline;
    if (deadline == UINT64_MAX) {
        if (inside)
            heap_remove(heap, node);
        return;
    }
    if (!inside)
        heap_add(heap, node);
    sift_up(heap, node);
    sift_down(heap, node);
}

void timer_heap_finish(struct timer_heap *heap)
{
    free(heap->nodes);
}
