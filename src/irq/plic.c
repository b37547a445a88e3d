/* PLIC: routes wired interrupts to the external interrupt inputs of harts (PLIC 1.0.0). */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "irq/irq.h"

/* Offsets and strides of the register blocks, PLIC 1.0.0, Memory Map. */
enum {
    PRIORITY_BASE = 0x0,
    PENDING_BASE = 0x1000,
    PENDING_END = 0x1080,
    ENABLE_BASE = 0x2000,
    ENABLE_STRIDE = 0x80,
    CONTEXT_BASE = 0x200000,
    CONTEXT_STRIDE = 0x1000,
    CONTEXT_THRESHOLD = 0x0,
    CONTEXT_CLAIM = 0x4,
    WORDS = (PLIC_SOURCES_MAX + 1) / 32,
};

struct plic_context {
    uint32_t enabled[WORDS];
    uint8_t threshold;
    bool notified; /* level of the line */
    struct irq_line line;
};

struct plic_listener {
    void (*callback)(void *opaque, unsigned source);
    void *opaque;
};

struct plic {
    struct device device; /* its lock guards everything below but the listeners */
    unsigned sources, words, contexts;
    /* A source's gateway: the line's level, a request forwarded and not claimed (the IP bit), and
     * one claimed and not completed. */
    uint32_t level[WORDS];
    uint32_t pending[WORDS];
    uint32_t claimed[WORDS];
    uint8_t priority[PLIC_SOURCES_MAX + 1];
    struct plic_context *context;
    struct plic_listener *listeners; /* [sources + 1] */
};

static bool bitmap_test(const uint32_t *map, unsigned n)
{
    return map[n / 32] >> n % 32 & 1;
}

static void bitmap_put(uint32_t *map, unsigned n, bool value)
{
    map[n / 32] = (map[n / 32] & ~(1U << n % 32)) | (uint32_t)value << n % 32;
}

/* The pending and enabled source of the highest priority, of equal ones the lowest number;
 * 0 if there is none above priority `above`. */
static unsigned context_best(const struct plic *plic, const struct plic_context *context,
                             unsigned above)
{
    unsigned best = 0;

    for (unsigned word = 0; word < plic->words; word++) {
        uint32_t candidates = plic->pending[word] & context->enabled[word];
        for (; candidates; candidates &= candidates - 1) {
            unsigned source = word * 32 + (unsigned)__builtin_ctz(candidates);
            if (plic->priority[source] > above) {
                above = plic->priority[source];
                best = source;
            }
        }
    }
    return best;
}

static void context_notify(struct plic *plic, struct plic_context *context)
{
    bool notified = context_best(plic, context, context->threshold) != 0;

    if (notified != context->notified) {
        context->notified = notified;
        irq_set(&context->line, notified);
    }
}

/* A change of `source` can matter only where it is enabled. */
static void source_notify(struct plic *plic, unsigned source)
{
    for (unsigned i = 0; i < plic->contexts; i++) {
        if (bitmap_test(plic->context[i].enabled, source))
            context_notify(plic, &plic->context[i]);
    }
}

/* The gateway forwards one request at a time: not before the last one was completed
 * (PLIC 1.0.0, Interrupt Gateways). */
static void gateway_sample(struct plic *plic, unsigned source)
{
    if (!bitmap_test(plic->level, source) || bitmap_test(plic->pending, source) ||
        bitmap_test(plic->claimed, source))
        return;
    bitmap_put(plic->pending, source, true);
    source_notify(plic, source);
}

static void plic_input(void *controller, unsigned source, bool level)
{
    struct plic *plic = controller;

    device_lock(&plic->device);
    bitmap_put(plic->level, source, level);
    gateway_sample(plic, source);
    device_unlock(&plic->device);
}

struct irq_line plic_line(struct plic *plic, unsigned source)
{
    assert(source >= 1 && source <= plic->sources);
    return (struct irq_line){plic_input, plic, source};
}

/* A claim is not affected by the threshold (PLIC 1.0.0, Interrupt Claim Process). */
static unsigned context_claim(struct plic *plic, struct plic_context *context)
{
    unsigned source = context_best(plic, context, 0);

    if (source) {
        bitmap_put(plic->pending, source, false);
        bitmap_put(plic->claimed, source, true);
        source_notify(plic, source);
    }
    return source;
}

/*
 * The listener runs between two holds of the lock: it may lower the line, which takes the lock, and
 * while the source still counts as claimed a line that is still high makes no new request.
 */
static void context_complete(struct plic *plic, unsigned index, uint32_t source)
{
    device_lock(&plic->device);
    bool valid = source >= 1 && source <= plic->sources &&
                 bitmap_test(plic->context[index].enabled, source) &&
                 bitmap_test(plic->claimed, source);
    device_unlock(&plic->device);
    if (!valid) {
        trace_guest_error(plic->device.name,
                          "context %u completes source %u, which is not enabled or not claimed",
                          index, source);
        return;
    }
    if (plic->listeners[source].callback)
        plic->listeners[source].callback(plic->listeners[source].opaque, source);

    device_lock(&plic->device);
    bitmap_put(plic->claimed, source, false);
    gateway_sample(plic, source);
    device_unlock(&plic->device);
}

/*
 * Registers. Each block of the map is a row: where it starts, how far one context's part is from
 * the next, and what an access of a word within it does. Functions run with the lock held.
 */
struct plic_block {
    uint32_t base, end, stride;
    uint32_t (*read)(struct plic *plic, unsigned context, unsigned offset);
    void (*write)(struct plic *plic, unsigned context, unsigned offset, uint32_t value);
};

static uint32_t priority_read(struct plic *plic, unsigned context, unsigned offset)
{
    return offset / 4 <= plic->sources ? plic->priority[offset / 4] : 0;
}

static void priority_write(struct plic *plic, unsigned context, unsigned offset, uint32_t value)
{
    unsigned source = offset / 4;

    if (source >= 1 && source <= plic->sources) {
        plic->priority[source] = value & PLIC_PRIORITY_MAX;
        source_notify(plic, source);
    }
}

static uint32_t pending_read(struct plic *plic, unsigned context, unsigned offset)
{
    return plic->pending[offset / 4];
}

static uint32_t enable_read(struct plic *plic, unsigned context, unsigned offset)
{
    return plic->context[context].enabled[offset / 4];
}

/* Bits of the word at `offset` that stand for sources; source 0 does not exist. */
static uint32_t source_mask(const struct plic *plic, unsigned offset)
{
    unsigned first = offset * 8;
    uint32_t mask = first ? ~0U : ~1U;

    if (first > plic->sources)
        return 0;
    return plic->sources - first < 31 ? mask & ((2U << (plic->sources - first)) - 1) : mask;
}

static void enable_write(struct plic *plic, unsigned context, unsigned offset, uint32_t value)
{
    plic->context[context].enabled[offset / 4] = value & source_mask(plic, offset);
    context_notify(plic, &plic->context[context]);
}

static uint32_t context_read(struct plic *plic, unsigned context, unsigned offset)
{
    if (offset == CONTEXT_CLAIM)
        return context_claim(plic, &plic->context[context]);
    return offset == CONTEXT_THRESHOLD ? plic->context[context].threshold : 0;
}

static void context_write(struct plic *plic, unsigned context, unsigned offset, uint32_t value)
{
    if (offset == CONTEXT_THRESHOLD) {
        plic->context[context].threshold = value & PLIC_PRIORITY_MAX;
        context_notify(plic, &plic->context[context]);
    }
}

static const struct plic_block blocks[] = {
    {PRIORITY_BASE, PENDING_BASE, 0, priority_read, priority_write},
    {PENDING_BASE, PENDING_END, 0, pending_read, NULL},
    {ENABLE_BASE, CONTEXT_BASE, ENABLE_STRIDE, enable_read, enable_write},
    {CONTEXT_BASE, PLIC_SIZE, CONTEXT_STRIDE, context_read, context_write},
};

static const struct plic_block *block_find(struct plic *plic, uint64_t offset, unsigned *context,
                                           unsigned *within)
{
    for (size_t i = 0; i < ARRAY_SIZE(blocks); i++) {
        const struct plic_block *block = &blocks[i];
        if (offset < block->base || offset >= block->end)
            continue;
        unsigned relative = offset - block->base;
        *context = block->stride ? relative / block->stride : 0;
        *within = block->stride ? relative % block->stride : relative;
        if (*context < plic->contexts)
            return block;
    }
    trace_guest_error(plic->device.name, "access to no register at 0x%x", (unsigned)offset);
    return NULL;
}

static uint64_t plic_read(void *opaque, uint64_t offset, unsigned size)
{
    struct plic *plic = opaque;
    unsigned context, within;
    const struct plic_block *block = block_find(plic, offset, &context, &within);

    if (!block)
        return 0;
    device_lock(&plic->device);
    uint32_t value = block->read(plic, context, within);
    device_unlock(&plic->device);
    return value;
}

static void plic_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct plic *plic = opaque;
    unsigned context, within;
    const struct plic_block *block = block_find(plic, offset, &context, &within);

    if (!block || !block->write)
        return;
    if (block->base == CONTEXT_BASE && within == CONTEXT_CLAIM) {
        context_complete(plic, context, value);
        return;
    }
    device_lock(&plic->device);
    block->write(plic, context, within, value);
    device_unlock(&plic->device);
}

const struct mmio_ops plic_ops = {
    .read = plic_read,
    .write = plic_write,
    .min_size = 4,
    .max_size = 4,
};

void plic_on_complete(struct plic *plic, unsigned source,
                      void (*callback)(void *opaque, unsigned source), void *opaque)
{
    assert(source >= 1 && source <= plic->sources);
    plic->listeners[source] = (struct plic_listener){callback, opaque};
}

/* Levels belong to the devices at the other end. One that is still high is sampled when its device
 * sets it the next time: devices are reset too, and lower their lines. */
static void plic_reset(struct device *device)
{
    struct plic *plic = container_of(device, struct plic, device);

    device_lock(device);
    memset(plic->pending, 0, sizeof(plic->pending));
    memset(plic->claimed, 0, sizeof(plic->claimed));
    memset(plic->priority, 0, sizeof(plic->priority));
    for (unsigned i = 0; i < plic->contexts; i++) {
        memset(plic->context[i].enabled, 0, sizeof(plic->context[i].enabled));
        plic->context[i].threshold = 0;
        context_notify(plic, &plic->context[i]);
    }
    device_unlock(device);
}

static void bitmap_state(struct plic *plic, struct stream *stream, uint32_t *map)
{
    for (unsigned word = 0; word < plic->words; word++) {
        stream_u32(stream, &map[word]);
        map[word] &= source_mask(plic, word * 4);
    }
}

static void plic_state(struct device *device, struct stream *stream)
{
    struct plic *plic = container_of(device, struct plic, device);
    uint32_t sources = plic->sources, contexts = plic->contexts;

    stream_begin(stream, "plic", 1);
    stream_u32(stream, &sources);
    stream_u32(stream, &contexts);
    if (sources != plic->sources || contexts != plic->contexts)
        stream_fail(stream, "%s: the state has %u sources and %u contexts, the machine %u and %u",
                    device->name, sources, contexts, plic->sources, plic->contexts);
    bitmap_state(plic, stream, plic->level);
    bitmap_state(plic, stream, plic->pending);
    bitmap_state(plic, stream, plic->claimed);
    for (unsigned i = 1; i <= plic->sources; i++) {
        stream_u8(stream, &plic->priority[i]);
        plic->priority[i] &= PLIC_PRIORITY_MAX;
    }
    for (unsigned i = 0; i < plic->contexts; i++) {
        bitmap_state(plic, stream, plic->context[i].enabled);
        stream_u8(stream, &plic->context[i].threshold);
        plic->context[i].threshold &= PLIC_PRIORITY_MAX;
    }
    stream_end(stream);
    if (!stream_loading(stream) || stream_failed(stream))
        return;
    for (unsigned i = 0; i < plic->contexts; i++) {
        struct plic_context *context = &plic->context[i];
        context->notified = context_best(plic, context, context->threshold) != 0;
        irq_set(&context->line, context->notified);
    }
}

static void plic_remove(struct device *device)
{
    struct plic *plic = container_of(device, struct plic, device);

    free(plic->context);
    free(plic->listeners);
    device_finish(device);
    free(plic);
}

static const struct device_type plic_type = {
    .name = "plic",
    .reset = plic_reset,
    .state = plic_state,
    .remove = plic_remove,
};

struct plic *plic_create(const char *name, const struct plic_config *config)
{
    struct plic *plic = xcalloc(1, sizeof(*plic));

    assert(config->harts >= 1 && config->harts <= PLIC_HARTS_MAX);
    assert(config->sources >= 1 && config->sources <= PLIC_SOURCES_MAX);
    device_init(&plic->device, &plic_type, name);
    plic->sources = config->sources;
    plic->words = config->sources / 32 + 1;
    plic->contexts = config->harts * 2;
    plic->context = xcalloc(plic->contexts, sizeof(*plic->context));
    plic->listeners = xcalloc(plic->sources + 1, sizeof(*plic->listeners));
    for (unsigned i = 0; i < config->harts; i++) {
        plic->context[2 * i].line = config->machine[i];
        plic->context[2 * i + 1].line = config->supervisor[i];
    }
    return plic;
}

struct device *plic_device(struct plic *plic)
{
    return &plic->device;
}
