/*
 * Guest time: what mtime, the `time` CSR and timer comparisons are measured in.
 *
 * One clock a machine, counting CLOCK_HZ ticks from machine start (or from the value a saved state
 * brings). It can be frozen while the machine is paused. Reading is lock-free, on any thread;
 * freezing and setting happen while harts are stopped, or atomically enough that a racing reader
 * sees the old or the new time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define CLOCK_HZ      UINT64_C(10000000) /* the timebase of QEMU's virt board */
#define CLOCK_TICK_NS (UINT64_C(1000000000) / CLOCK_HZ)

struct clock {
    _Atomic uint64_t offset;    /* guest's time minus host time (loop_now) in ticks; wraps */
    _Atomic uint64_t frozen_at; /* ticks while frozen */
    _Atomic bool frozen;
};

void clock_init(struct clock *clock); /* running, at 0 */
uint64_t clock_ticks(const struct clock *clock);
void clock_set(struct clock *clock, uint64_t ticks);
void clock_freeze(struct clock *clock);
void clock_thaw(struct clock *clock);

/* Host time (for loop_set_timer) at which the guest's time reaches `ticks`: now or earlier if it
 * has passed, UINT64_MAX if it is too far away to be represented or the clock is frozen. Deadlines
 * taken before a set, freeze or thaw are to be taken anew after it. */
uint64_t clock_deadline(const struct clock *clock, uint64_t ticks);
