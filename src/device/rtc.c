/* Goldfish RTC: the time of day in nanoseconds, and one alarm. */
#include <stdlib.h>
#include <time.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "device/device.h"

enum {
    REG_TIME_LOW = 0x00, /* reading latches the high half */
    REG_TIME_HIGH = 0x04,
    REG_ALARM_LOW = 0x08, /* writing arms the alarm */
    REG_ALARM_HIGH = 0x0c,
    REG_IRQ_ENABLED = 0x10,
    REG_CLEAR_ALARM = 0x14,
    REG_ALARM_STATUS = 0x18,
    REG_CLEAR_INTERRUPT = 0x1c,
};

/* The host's time of day may be set while an alarm waits, so it is looked at this often. */
#define ALARM_RECHECK_NS UINT64_C(10000000000)

struct rtc {
    struct device device; /* its lock guards everything below */
    struct irq_line irq;
    struct loop_timer *timer;
    uint64_t offset; /* guest's time minus the host's; wraps */
    uint64_t alarm;
    uint32_t time_high;
    bool alarm_armed, irq_enabled, irq_pending;
};

static uint64_t rtc_now(const struct rtc *rtc)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec + rtc->offset;
}

/* Fires the alarm if it is due, and drives the line. */
static void rtc_update(struct rtc *rtc)
{
    uint64_t deadline = UINT64_MAX;

    if (rtc->alarm_armed) {
        uint64_t now = rtc_now(rtc);
        if (rtc->alarm <= now) {
            rtc->alarm_armed = false;
            rtc->irq_pending = true;
        } else {
            uint64_t wait = rtc->alarm - now;
            deadline = loop_now() + (wait < ALARM_RECHECK_NS ? wait : ALARM_RECHECK_NS);
        }
    }
    loop_set_timer(rtc->timer, deadline);
    irq_set(&rtc->irq, rtc->irq_pending && rtc->irq_enabled);
}

static void rtc_alarm(void *opaque)
{
    struct rtc *rtc = opaque;

    device_lock(&rtc->device);
    rtc_update(rtc);
    device_unlock(&rtc->device);
}

static uint64_t rtc_read(void *opaque, uint64_t offset, unsigned size)
{
    struct rtc *rtc = opaque;
    uint64_t value = 0;

    device_lock(&rtc->device);
    switch (offset) {
    case REG_TIME_LOW:
        value = rtc_now(rtc);
        rtc->time_high = value >> 32;
        break;
    case REG_TIME_HIGH:
        value = rtc->time_high;
        break;
    case REG_ALARM_LOW:
        value = rtc->alarm;
        break;
    case REG_ALARM_HIGH:
        value = rtc->alarm >> 32;
        break;
    case REG_IRQ_ENABLED:
        value = rtc->irq_enabled;
        break;
    case REG_ALARM_STATUS:
        value = rtc->alarm_armed;
        break;
    default:
        trace_guest_error(rtc->device.name, "read of no register at 0x%x", (unsigned)offset);
        break;
    }
    device_unlock(&rtc->device);
    return value & UINT32_MAX;
}

/* Replaces one half of the time; the other runs on. */
static void time_write(struct rtc *rtc, unsigned low, uint64_t half)
{
    uint64_t now = rtc_now(rtc);

    rtc->offset += bits_set(now, low, 32, half) - now;
}

static void rtc_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct rtc *rtc = opaque;

    device_lock(&rtc->device);
    switch (offset) {
    case REG_TIME_LOW:
        time_write(rtc, 0, value);
        break;
    case REG_TIME_HIGH:
        time_write(rtc, 32, value);
        break;
    case REG_ALARM_LOW:
        rtc->alarm = bits_set(rtc->alarm, 0, 32, value);
        rtc->alarm_armed = true;
        break;
    case REG_ALARM_HIGH:
        rtc->alarm = bits_set(rtc->alarm, 32, 32, value);
        break;
    case REG_IRQ_ENABLED:
        rtc->irq_enabled = value & 1;
        break;
    case REG_CLEAR_ALARM:
        rtc->alarm_armed = false;
        break;
    case REG_CLEAR_INTERRUPT:
        rtc->irq_pending = false;
        break;
    default:
        trace_guest_error(rtc->device.name, "write of no register at 0x%x", (unsigned)offset);
        break;
    }
    rtc_update(rtc);
    device_unlock(&rtc->device);
}

const struct mmio_ops rtc_ops = {
    .read = rtc_read,
    .write = rtc_write,
    .min_size = 4,
    .max_size = 4,
};

static void rtc_reset(struct device *device)
{
    struct rtc *rtc = container_of(device, struct rtc, device);

    device_lock(device);
    rtc->alarm = 0;
    rtc->time_high = 0;
    rtc->alarm_armed = rtc->irq_enabled = rtc->irq_pending = false;
    rtc_update(rtc);
    device_unlock(device);
}

static void rtc_state(struct device *device, struct stream *stream)
{
    struct rtc *rtc = container_of(device, struct rtc, device);

    stream_begin(stream, "rtc", 1);
    stream_u64(stream, &rtc->offset);
    stream_u64(stream, &rtc->alarm);
    stream_u32(stream, &rtc->time_high);
    stream_bool(stream, &rtc->alarm_armed);
    stream_bool(stream, &rtc->irq_enabled);
    stream_bool(stream, &rtc->irq_pending);
    stream_end(stream);
    if (stream_loading(stream))
        rtc_update(rtc);
}

static void rtc_remove(struct device *device)
{
    struct rtc *rtc = container_of(device, struct rtc, device);

    loop_remove_timer(rtc->timer);
    device_finish(device);
    free(rtc);
}

static const struct device_type rtc_type = {
    .name = "goldfish-rtc",
    .reset = rtc_reset,
    .state = rtc_state,
    .remove = rtc_remove,
};

struct rtc *rtc_create(const char *name, const struct rtc_config *config)
{
    struct rtc *rtc = xcalloc(1, sizeof(*rtc));

    device_init(&rtc->device, &rtc_type, name);
    rtc->irq = config->irq;
    rtc->timer = loop_add_timer(config->loop, rtc_alarm, rtc);
    return rtc;
}

struct device *rtc_device(struct rtc *rtc)
{
    return &rtc->device;
}
