#include "base/clock.h"

#include "base/loop.h"

static uint64_t host_ticks(void)
{
    return loop_now() / CLOCK_TICK_NS;
}

void clock_init(struct clock *clock)
{
    clock->frozen_at = 0;
    clock->frozen = false;
    clock->offset = -host_ticks();
}

uint64_t clock_ticks(const struct clock *clock)
{
    if (clock->frozen)
        return clock->frozen_at;
    /* In this order: a host time older than the offset would be before the time just set. */
    uint64_t offset = clock->offset;
    return host_ticks() + offset;
}

void clock_set(struct clock *clock, uint64_t ticks)
{
    clock->frozen_at = ticks;
    clock->offset = ticks - host_ticks();
}

void clock_freeze(struct clock *clock)
{
    if (clock->frozen)
        return;
    clock->frozen_at = clock_ticks(clock);
    clock->frozen = true;
}

void clock_thaw(struct clock *clock)
{
    if (!clock->frozen)
        return;
    clock->offset = clock->frozen_at - host_ticks();
    clock->frozen = false;
}

uint64_t clock_deadline(const struct clock *clock, uint64_t ticks)
{
    if (clock->frozen)
        return UINT64_MAX;
    uint64_t offset = clock->offset;
    uint64_t now = host_ticks();
    uint64_t guest_now = now + offset;
    if (ticks <= guest_now)
        return now * CLOCK_TICK_NS;
    uint64_t left = ticks - guest_now;
    if (left > UINT64_MAX / CLOCK_TICK_NS - now)
        return UINT64_MAX;
    return (now + left) * CLOCK_TICK_NS;
}
