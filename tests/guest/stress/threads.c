/* Threads that share data in every way that there is: `threads SEED` prints sums that must be
 * exact, and how often a thread saw what must not be. */
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define THREADS 6
#define STEPS   3000

static uint64_t seed;
static atomic_uint_fast64_t wrong;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t guarded[2];

static atomic_uint_least64_t sum64;
static atomic_uint_least32_t sum32;
static atomic_uint_least16_t sum16[2];
static atomic_uchar sum8[4];
static atomic_uint_least64_t swapped;

static atomic_flag spin = ATOMIC_FLAG_INIT;
static uint64_t spun[2];

static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static uint64_t pair[2];

static pthread_barrier_t barrier;
static uint64_t slots[THREADS];

static void expect(bool right)
{
    if (!right)
        atomic_fetch_add(&wrong, 1);
}

static void step(uint64_t thread, uint64_t i)
{
    uint64_t value = seed + thread * STEPS + i;

    pthread_mutex_lock(&mutex);
    expect(guarded[0] == guarded[1]);
    guarded[0] += value;
    guarded[1] += value;
    pthread_mutex_unlock(&mutex);

    atomic_fetch_add(&sum64, value);
    atomic_fetch_add_explicit(&sum32, (uint32_t)value, memory_order_relaxed);
    atomic_fetch_add(&sum16[i & 1], (uint16_t)value);
    atomic_fetch_add(&sum8[i & 3], (unsigned char)value);
    uint64_t old = atomic_load(&swapped);
    while (!atomic_compare_exchange_weak(&swapped, &old, old * 5 + 1))
        continue;

    while (atomic_flag_test_and_set_explicit(&spin, memory_order_acquire))
        sched_yield();
    expect(spun[0] == spun[1]);
    spun[0] += value;
    spun[1] += value;
    atomic_flag_clear_explicit(&spin, memory_order_release);

    if (i % 8 == 0) {
        pthread_rwlock_wrlock(&lock);
        pair[0] += value;
        pair[1] -= value;
        pthread_rwlock_unlock(&lock);
    } else {
        pthread_rwlock_rdlock(&lock);
        expect(pair[0] + pair[1] == 0);
        pthread_rwlock_unlock(&lock);
    }

    /* Between two barriers each slot has the value of this phase. */
    if (i % 100 == 0) {
        slots[thread] = value;
        pthread_barrier_wait(&barrier);
        for (uint64_t other = 0; other < THREADS; other++)
            expect(slots[other] == seed + other * STEPS + i);
        pthread_barrier_wait(&barrier);
    }
}

static void *work(void *thread)
{
    for (uint64_t i = 0; i < STEPS; i++)
        step((uintptr_t)thread, i);
    return NULL;
}

/* --- a bounded queue with condition variables --- */

static uint64_t queue[8];
static unsigned queued, first;
static pthread_cond_t not_full = PTHREAD_COND_INITIALIZER, not_empty = PTHREAD_COND_INITIALIZER;
static uint64_t taken;

static void *produce(void *thread)
{
    for (uint64_t i = 1; i <= STEPS; i++) {
        pthread_mutex_lock(&mutex);
        while (queued == 8)
            pthread_cond_wait(&not_full, &mutex);
        queue[(first + queued++) % 8] = i + seed;
        pthread_cond_signal(&not_empty);
        pthread_mutex_unlock(&mutex);
    }
    return thread;
}

static void *consume(void *thread)
{
    for (uint64_t i = 1; i <= STEPS; i++) {
        pthread_mutex_lock(&mutex);
        while (queued == 0)
            pthread_cond_wait(&not_empty, &mutex);
        taken += queue[first];
        first = (first + 1) % 8;
        queued--;
        pthread_cond_signal(&not_full);
        pthread_mutex_unlock(&mutex);
    }
    return thread;
}

static void *square(void *number)
{
    return (void *)((uintptr_t)number * (uintptr_t)number);
}

static void run(unsigned count, void *(*function)(void *))
{
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < count; i++)
        pthread_create(&threads[i], NULL, function == produce && i & 1 ? consume : function,
                       (void *)i);
    for (unsigned i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
    seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    pthread_barrier_init(&barrier, NULL, THREADS);
    run(THREADS, work);
    run(THREADS, produce);
    uint64_t squares = 0;
    for (uintptr_t i = 0; i < 60; i++) {
        pthread_t thread;
        void *result;
        pthread_create(&thread, NULL, square, (void *)(seed + i));
        pthread_join(thread, &result);
        squares += (uintptr_t)result;
    }
    printf("mutex %" PRIu64 " %" PRIu64 "\n", guarded[0], guarded[1]);
    printf("atomic %" PRIu64 " %u %u %u %u %u %u %u %" PRIu64 "\n", (uint64_t)sum64,
           (unsigned)sum32, sum16[0], sum16[1], sum8[0], sum8[1], sum8[2], sum8[3],
           (uint64_t)swapped);
    printf("spin %" PRIu64 " %" PRIu64 "\n", spun[0], spun[1]);
    printf("pair %" PRIu64 " %" PRIu64 "\n", pair[0], pair[1]);
    printf("queue %" PRIu64 " %u\n", taken, queued);
    printf("squares %" PRIu64 "\n", squares);
    printf("wrong %" PRIu64 "\n", (uint64_t)wrong);
    return 0;
}
