/* ACLINT: machine software interrupts (MSWI) and the machine timer (MTIMER), in CLINT places. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "irq/irq.h"

enum {
    MSIP_BASE = 0x0,
    MTIMECMP_BASE = 0x4000,
    MTIME_BASE = 0xbff8,
};

/* A hart's registers have their own lock, on their own cache line: without Sstc every timer tick
 * and every IPI of every hart comes through here. */
struct aclint_hart {
    pthread_mutex_t lock; /* guards what follows, together with the levels of the two lines */
    uint64_t timecmp;
    bool msip;
    struct irq_line software;
    struct irq_line timer;
    struct loop_timer *alarm;
    struct aclint *aclint;
} __attribute__((aligned(64)));

struct aclint {
    struct device device; /* its lock guards read-modify-write of mtime */
    struct clock *clock;
    unsigned count;
    void (*time_changed)(void *opaque);
    void *opaque;
    struct aclint_hart *harts;
};

/* Drives MTIP (mtime >= mtimecmp) and arms the alarm for its next change. */
static void hart_compare(struct aclint_hart *hart)
{
    bool due = clock_ticks(hart->aclint->clock) >= hart->timecmp;

    irq_set(&hart->timer, due);
    loop_set_timer(hart->alarm,
                   due ? UINT64_MAX : clock_deadline(hart->aclint->clock, hart->timecmp));
}

static void hart_alarm(void *opaque)
{
    struct aclint_hart *hart = opaque;

    pthread_mutex_lock(&hart->lock);
    hart_compare(hart);
    pthread_mutex_unlock(&hart->lock);
}

void aclint_update(struct aclint *aclint)
{
    for (unsigned i = 0; i < aclint->count; i++)
        hart_alarm(&aclint->harts[i]);
}

static void time_set(struct aclint *aclint, uint64_t ticks)
{
    clock_set(aclint->clock, ticks);
    aclint_update(aclint);
    if (aclint->time_changed)
        aclint->time_changed(aclint->opaque);
}

/* What lies at offset: the first register of its kind, and the index of the register. */
static unsigned register_find(const struct aclint *aclint, uint64_t offset, unsigned *index)
{
    if (offset >= MTIME_BASE && offset < MTIME_BASE + 8) {
        *index = 0;
        return MTIME_BASE;
    }
    unsigned base = offset < MTIMECMP_BASE ? MSIP_BASE : MTIMECMP_BASE;
    *index = (offset - base) / (base == MSIP_BASE ? 4 : 8);
    return offset < MTIME_BASE && *index < aclint->count ? base : ~0U;
}

static uint64_t aclint_read_word(struct aclint *aclint, uint64_t offset, unsigned size)
{
    unsigned index;
    uint64_t value = 0;

    switch (register_find(aclint, offset, &index)) {
    case MSIP_BASE:
        pthread_mutex_lock(&aclint->harts[index].lock);
        value = aclint->harts[index].msip;
        pthread_mutex_unlock(&aclint->harts[index].lock);
        break;
    case MTIMECMP_BASE:
        pthread_mutex_lock(&aclint->harts[index].lock);
        value = aclint->harts[index].timecmp >> (offset & 4) * 8;
        pthread_mutex_unlock(&aclint->harts[index].lock);
        break;
    case MTIME_BASE:
        value = clock_ticks(aclint->clock) >> (offset & 4) * 8;
        break;
    default:
        trace_guest_error(aclint->device.name, "read of no register at 0x%x", (unsigned)offset);
        break;
    }
    return value & size_mask(size);
}

static void aclint_write_word(struct aclint *aclint, uint64_t offset, uint64_t value, unsigned size)
{
    unsigned index, low = (offset & 4) * 8;
    struct aclint_hart *hart;

    switch (register_find(aclint, offset, &index)) {
    case MSIP_BASE:
        hart = &aclint->harts[index];
        pthread_mutex_lock(&hart->lock);
        hart->msip = value & 1;
        irq_set(&hart->software, hart->msip);
        pthread_mutex_unlock(&hart->lock);
        break;
    case MTIMECMP_BASE:
        hart = &aclint->harts[index];
        pthread_mutex_lock(&hart->lock);
        hart->timecmp = bits_set(hart->timecmp, low, size * 8, value);
        hart_compare(hart);
        pthread_mutex_unlock(&hart->lock);
        break;
    case MTIME_BASE:
        device_lock(&aclint->device);
        time_set(aclint, bits_set(clock_ticks(aclint->clock), low, size * 8, value));
        device_unlock(&aclint->device);
        break;
    default:
        trace_guest_error(aclint->device.name, "write of no register at 0x%x", (unsigned)offset);
        break;
    }
}

static uint64_t aclint_read(void *opaque, uint64_t offset, unsigned size)
{
    if (size == 8 && offset < MTIMECMP_BASE)
        return aclint_read_word(opaque, offset, 4) | aclint_read_word(opaque, offset + 4, 4) << 32;
    return aclint_read_word(opaque, offset, size);
}

static void aclint_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    if (size == 8 && offset < MTIMECMP_BASE) {
        aclint_write_word(opaque, offset, value, 4);
        aclint_write_word(opaque, offset + 4, value >> 32, 4);
    } else {
        aclint_write_word(opaque, offset, value, size);
    }
}

const struct mmio_ops aclint_ops = {
    .read = aclint_read,
    .write = aclint_write,
    .min_size = 4,
    .max_size = 8,
};

static void aclint_reset(struct device *device)
{
    struct aclint *aclint = container_of(device, struct aclint, device);

    for (unsigned i = 0; i < aclint->count; i++) {
        struct aclint_hart *hart = &aclint->harts[i];
        pthread_mutex_lock(&hart->lock);
        hart->msip = false;
        hart->timecmp = UINT64_MAX;
        irq_set(&hart->software, false);
        pthread_mutex_unlock(&hart->lock);
    }
    time_set(aclint, 0);
}

static void aclint_state(struct device *device, struct stream *stream)
{
    struct aclint *aclint = container_of(device, struct aclint, device);
    uint32_t count = aclint->count;
    uint64_t ticks = clock_ticks(aclint->clock);

    stream_begin(stream, "aclint", 1);
    stream_u32(stream, &count);
    if (count != aclint->count)
        stream_fail(stream, "%s: the state has %u harts, the machine %u", device->name, count,
                    aclint->count);
    stream_u64(stream, &ticks);
    for (unsigned i = 0; i < aclint->count; i++) {
        stream_bool(stream, &aclint->harts[i].msip);
        stream_u64(stream, &aclint->harts[i].timecmp);
    }
    stream_end(stream);
    if (!stream_loading(stream) || stream_failed(stream))
        return;
    for (unsigned i = 0; i < aclint->count; i++)
        irq_set(&aclint->harts[i].software, aclint->harts[i].msip);
    time_set(aclint, ticks);
}

static void aclint_remove(struct device *device)
{
    struct aclint *aclint = container_of(device, struct aclint, device);

    for (unsigned i = 0; i < aclint->count; i++) {
        loop_remove_timer(aclint->harts[i].alarm);
        pthread_mutex_destroy(&aclint->harts[i].lock);
    }
    free(aclint->harts);
    device_finish(device);
    free(aclint);
}

static const struct device_type aclint_type = {
    .name = "aclint",
    .reset = aclint_reset,
    .state = aclint_state,
    .remove = aclint_remove,
};

struct aclint *aclint_create(const char *name, const struct aclint_config *config)
{
    struct aclint *aclint = xcalloc(1, sizeof(*aclint));

    assert(config->harts >= 1 && config->harts <= ACLINT_HARTS_MAX);
    device_init(&aclint->device, &aclint_type, name);
    aclint->clock = config->clock;
    aclint->count = config->harts;
    aclint->time_changed = config->time_changed;
    aclint->opaque = config->opaque;
    aclint->harts = aligned_alloc(64, config->harts * sizeof(*aclint->harts));
    if (!aclint->harts)
        abort();
    for (unsigned i = 0; i < config->harts; i++) {
        struct aclint_hart *hart = &aclint->harts[i];
        memset(hart, 0, sizeof(*hart));
        pthread_mutex_init(&hart->lock, NULL);
        hart->timecmp = UINT64_MAX;
        hart->software = config->software[i];
        hart->timer = config->timer[i];
        hart->aclint = aclint;
        hart->alarm = loop_add_timer(config->loop, hart_alarm, hart);
    }
    return aclint;
}

struct device *aclint_device(struct aclint *aclint)
{
    return &aclint->device;
}
