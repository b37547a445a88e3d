/* Two threads at once: on one word, and each on its own. */

#include "bench.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

enum { THREADS = 2 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t shared;

struct job {
    void (*work)(struct job *job);
    uint64_t amount, result;
};

static void *begin(void *argument)
{
    struct job *job = argument;

    job->work(job);
    return NULL;
}

static uint64_t on_threads(void (*work)(struct job *job), uint64_t amount)
{
    pthread_t threads[THREADS];
    struct job jobs[THREADS];
    uint64_t sum = 0;

    shared = 0;
    for (int i = 0; i < THREADS; i++) {
        jobs[i] = (struct job){work, amount, 0};
        errno = pthread_create(&threads[i], NULL, begin, &jobs[i]);
        if (errno) {
            die("pthread_create");
        }
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        sum += jobs[i].result;
    }
    return mix(sum, shared);
}

static void lock_and_count(struct job *job)
{
    for (uint64_t i = 0; i < job->amount; i++) {
        pthread_mutex_lock(&mutex);
        shared++;
        pthread_mutex_unlock(&mutex);
    }
}

/* An AMO on RISC-V. */
static void add(struct job *job)
{
    for (uint64_t i = 0; i < job->amount; i++) {
        __atomic_fetch_add(&shared, i, __ATOMIC_RELAXED);
    }
}

/* LR and SC on RISC-V. */
static void exchange(struct job *job)
{
    for (uint64_t i = 0; i < job->amount; i++) {
        uint64_t seen = __atomic_load_n(&shared, __ATOMIC_RELAXED);
        while (!__atomic_compare_exchange_n(&shared, &seen, seen + 3, false, __ATOMIC_ACQ_REL,
                                            __ATOMIC_RELAXED)) {
        }
    }
}

static void compute(struct job *job)
{
    job->result = fib((unsigned)job->amount);
}

static uint64_t mutex_run(uint64_t amount)
{
    return on_threads(lock_and_count, amount);
}

static uint64_t atomic_run(uint64_t amount)
{
    return on_threads(add, amount);
}

static uint64_t cas_run(uint64_t amount)
{
    return on_threads(exchange, amount);
}

static uint64_t parallel_run(uint64_t amount)
{
    return on_threads(compute, amount);
}

const struct program thread_programs[] = {
    {"mutex", "locks", 5000000, 1000, NULL, mutex_run},
    {"atomic", "additions", 50000000, 1000, NULL, atomic_run},
    {"cas", "exchanges", 30000000, 1000, NULL, cas_run},
    {"parallel", "argument", 36, 16, NULL, parallel_run},
    {NULL, NULL, 0, 0, NULL, NULL},
};
