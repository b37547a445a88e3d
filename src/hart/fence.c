/*
 * Fences between harts, and attention.
 *
 * Whoever needs something of a running hart posts it, sets an attention bit, and waits until the
 * hart has done it or is not running (hart->running). A hart that starts to run first says so and
 * then looks at its attention bits; both sides use sequentially consistent accesses, so one of them
 * sees the other. A hart that itself waits counts as not running: two harts that fence each other
 * do not wait for each other, and each does its fences before its next instruction.
 */
#include <sched.h>

#include "hart/internal.h"

static void fences_execute(struct hart *hart)
{
    struct hart_private *private = hart->private;
    struct hart_fence fences[FENCE_QUEUE];

    pthread_mutex_lock(&private->fence_lock);
    unsigned count = private->fence_count;
    bool everything = private->fence_everything;
    uint64_t posted = private->fences_posted;
    memcpy(fences, private->fences, count * sizeof(fences[0]));
    private->fence_count = 0;
    private->fence_everything = false;
    pthread_mutex_unlock(&private->fence_lock);

    if (everything) {
        mmu_flush(hart);
        mmu_forget_jumps(hart);
        hart_fence_i(hart);
        count = 0;
    }
    for (unsigned i = 0; i < count; i++) {
        switch (fences[i].kind) {
        case HART_FENCE_I:
            hart_fence_i(hart);
            break;
        case HART_FENCE_VMA:
            hart_sfence(hart, fences[i].va, fences[i].size, fences[i].asid);
            break;
        case HART_FENCE_JUMPS:
            mmu_forget_jumps(hart);
            break;
        case HART_FENCE_STORES:
            mmu_forget_stores(hart);
            break;
        }
    }
    atomic_store(&private->fences_done, posted);
}

/* Queues a fence (NULL: everything) and returns its number. */
static uint64_t fence_post(struct hart *hart, const struct hart_fence *fence)
{
    struct hart_private *private = hart->private;
    pthread_mutex_lock(&private->fence_lock);
    bool room = private->fence_count < FENCE_QUEUE;
    if (fence && room) {
        struct hart_fence *queued = &private->fences[private->fence_count++];
        *queued = *fence;
    }
    private->fence_everything |= !fence || !room;
    uint64_t number = ++private->fences_posted;
    pthread_mutex_unlock(&private->fence_lock);
    atomic_fetch_or(&hart->attention, ATTENTION_FENCE);
    return number;
}

static void fence_wait(struct hart *target, uint64_t number)
{
    enum { SPINS = 64 };
    for (unsigned spins = 0; atomic_load(&target->running) &&
                             (int64_t)(atomic_load(&target->private->fences_done) - number) < 0;
         spins++)
        if (spins >= SPINS)
            sched_yield();
}

static void fence_all(struct hart *caller, struct hart *const *targets, unsigned count,
                      const struct hart_fence *fence)
{
    uint64_t numbers[HART_MAX];
    bool was_running = caller && atomic_load(&caller->running);

    for (unsigned i = 0; i < count; i++)
        numbers[i] = fence_post(targets[i], fence);
    if (was_running)
        guest_leave(caller);
    for (unsigned i = 0; i < count; i++)
        if (targets[i] != caller)
            fence_wait(targets[i], numbers[i]);
    if (was_running)
        guest_enter(caller);
}

void hart_fence_remote(struct hart *caller, struct hart *const *targets, unsigned count,
                       const struct hart_fence *fence)
{
    for (unsigned i = 0; i < count; i += HART_MAX)
        fence_all(caller, targets + i, count - i < HART_MAX ? count - i : HART_MAX, fence);
}

void hart_remapped(struct hart *caller, struct hart *const *harts, unsigned count)
{
    hart_fence_remote(caller, harts, count, NULL);
}

/* --- Attention ------------------------------------------------------------------------------- */

void guest_enter(struct hart *hart)
{
    for (;;) {
        atomic_store(&hart->running, true);
        if (!(atomic_load(&hart->attention) & ATTENTION_HALT))
            return;
        atomic_store(&hart->running, false);
        domain_wait(hart);
    }
}

void guest_leave(struct hart *hart)
{
    atomic_store(&hart->running, false);
}

enum attended hart_attend(struct hart *hart)
{
    uint32_t bits = atomic_exchange(&hart->attention, 0);

    while (bits & ATTENTION_HALT) { /* another section may begin before its HALT is looked at */
        guest_leave(hart);
        domain_wait(hart);
        guest_enter(hart);
        bits = (bits & ~(uint32_t)ATTENTION_HALT) | atomic_exchange(&hart->attention, 0);
    }
    if (bits & ATTENTION_EXCLUSIVE) {
        if (hart->private->exclusive && !(bits & ATTENTION_STOP) &&
            hart->private->exclusive_left-- > 0)
            atomic_fetch_or(&hart->attention, ATTENTION_EXCLUSIVE);
        else
            reservation_drop(hart);
    }
    if (bits & ATTENTION_FENCE)
        fences_execute(hart);
    if (bits & ATTENTION_SAMPLE)
        hart->hooks.sample(hart->hooks.opaque, hart);
    if (bits & ATTENTION_STOP) {
        /* What else was asked for is done when the hart runs again. */
        atomic_fetch_or(&hart->attention, bits & ATTENTION_INTERRUPT);
        return ATTENDED_STOP;
    }
    if (bits & ATTENTION_INTERRUPT) {
        interrupt_sources_update(hart);
        if (unlikely(hart->private->hpm_active)) {
            counters_update(hart);
            counters_arm(hart);
        }
        if (!hart->private->interrupts_held && interrupt_take(hart))
            return ATTENDED_TRAP;
    }
    return ATTENDED;
}
