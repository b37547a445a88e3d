/* Memory that no cache holds: latency and bandwidth. */

#include "bench.h"

#include <string.h>

enum { MIB = 1 << 20 };

/* chase: one pointer in every line of 64 MiB, in a random circle through all of them. */

enum { LINES = MIB };

static struct line {
    struct line *next;
    uint64_t number;
    char rest[48];
} *lines;

static void chase_prepare(uint64_t amount)
{
    uint32_t *order = need_memory(LINES * sizeof *order);
    uint64_t random = 9;

    lines = need_memory(LINES * sizeof *lines);
    for (uint32_t i = 0; i < LINES; i++) {
        order[i] = i;
    }
    for (uint32_t i = LINES - 1; i > 0; i--) {
        uint32_t j = (uint32_t)((random_next(&random) >> 32) * i >> 32);
        uint32_t kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
    for (uint32_t i = 0; i < LINES; i++) {
        lines[order[i]].next = &lines[order[(i + 1) % LINES]];
        lines[order[i]].number = order[i];
    }
}

static uint64_t chase_run(uint64_t steps)
{
    const struct line *line = lines;

    for (uint64_t i = 0; i < steps; i++) {
        line = line->next;
    }
    return line->number;
}

/* triad: STREAM's third of four; three arrays, 64 MiB together. */

enum { ELEMENTS = 64 * MIB / 24 };

static double *a, *b, *c;

static void triad_prepare(uint64_t amount)
{
    a = need_memory(ELEMENTS * sizeof *a);
    b = need_memory(ELEMENTS * sizeof *b);
    c = need_memory(ELEMENTS * sizeof *c);
    for (int i = 0; i < ELEMENTS; i++) {
        a[i] = 0;
        b[i] = i;
        c[i] = ELEMENTS - i;
    }
}

static CALLED void triad(double factor)
{
    for (int i = 0; i < ELEMENTS; i++) {
        a[i] = b[i] + factor * c[i];
    }
}

static uint64_t triad_run(uint64_t times)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < times; i++) {
        triad((double)(i + 1));
    }
    for (int i = 0; i < ELEMENTS; i += 4096) {
        sum = mix(sum, (uint64_t)a[i]);
    }
    return sum;
}

/* memcpy: the library's, since that is what programs call; a native one uses vectors. */

static uint8_t *from, *to;

static void memcpy_prepare(uint64_t amount)
{
    uint64_t random = 10;

    from = need_memory(32 * MIB);
    to = need_memory(32 * MIB);
    for (size_t i = 0; i < 32 * MIB; i += 8) {
        uint64_t value = random_next(&random);
        memcpy(from + i, &value, 8);
    }
    memset(to, 0, 32 * MIB);
}

static uint64_t memcpy_run(uint64_t times)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < times; i++) {
        memcpy(to, from, 32 * MIB);
        from[i] ^= 1;
        sum = mix(sum, to[i * 4099]);
    }
    return sum;
}

const struct program memory_programs[] = {
    {"chase", "loads", 3000000, 100000, chase_prepare, chase_run},
    {"triad", "passes", 30, 1, triad_prepare, triad_run},
    {"memcpy", "copies", 80, 1, memcpy_prepare, memcpy_run},
    {NULL, NULL, 0, 0, NULL, NULL},
};
