/*
 * Floating point in double precision. The checksums are of the results' bits: nothing here leaves
 * the compiler or the library a choice (no fused operations, no functions but the square root).
 */

#include "bench.h"

#include <math.h>
#include <string.h>

static uint64_t mix_double(uint64_t sum, double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    return mix(sum, bits);
}

static double random_double(uint64_t *state)
{
    return (double)(random_next(state) >> 11) * 0x1p-53;
}

/* nbody: a sun and four planets, each drawn by all others. */

enum { BODIES = 5 };

static struct body {
    double x[3], v[3], mass;
} bodies[BODIES];

static void nbody_prepare(uint64_t amount)
{
    static const double distance[BODIES] = {0, 1.25, 3.5, 7.75, 16.5};

    for (int i = 0; i < BODIES; i++) {
        bodies[i] = (struct body){
            .x = {i & 1 ? distance[i] : 0, i & 1 ? 0 : distance[i], distance[i] / 32},
            .mass = i ? 0.005 * i : 40,
        };
        if (i) {
            /* At right angles to the sun, as fast as a circle takes. */
            double speed = sqrt(40 / distance[i]);
            bodies[i].v[0] = i & 1 ? 0 : -speed;
            bodies[i].v[1] = i & 1 ? speed : 0;
        }
    }
}

static CALLED void nbody_step(double time)
{
    for (int i = 0; i < BODIES; i++) {
        struct body *a = &bodies[i];
        for (int j = i + 1; j < BODIES; j++) {
            struct body *b = &bodies[j];
            double x = a->x[0] - b->x[0], y = a->x[1] - b->x[1], z = a->x[2] - b->x[2];
            double square = x * x + y * y + z * z;
            double pull = time / (square * sqrt(square));
            a->v[0] -= x * b->mass * pull;
            a->v[1] -= y * b->mass * pull;
            a->v[2] -= z * b->mass * pull;
            b->v[0] += x * a->mass * pull;
            b->v[1] += y * a->mass * pull;
            b->v[2] += z * a->mass * pull;
        }
    }
    for (int i = 0; i < BODIES; i++) {
        for (int k = 0; k < 3; k++) {
            bodies[i].x[k] += time * bodies[i].v[k];
        }
    }
}

static uint64_t nbody_run(uint64_t steps)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < steps; i++) {
        nbody_step(0.001);
    }
    for (int i = 0; i < BODIES; i++) {
        for (int k = 0; k < 3; k++) {
            sum = mix_double(mix_double(sum, bodies[i].x[k]), bodies[i].v[k]);
        }
    }
    return sum;
}

/* matmul: square matrices, in the order of loops that reads and writes rows. */

enum { SIDE = 160 };

static double a[SIDE][SIDE], b[SIDE][SIDE], c[SIDE][SIDE];

static void matmul_prepare(uint64_t amount)
{
    uint64_t random = 7;

    for (int i = 0; i < SIDE; i++) {
        for (int j = 0; j < SIDE; j++) {
            a[i][j] = random_double(&random) - 0.5;
            b[i][j] = random_double(&random) - 0.5;
        }
    }
}

static uint64_t matmul_run(uint64_t times)
{
    uint64_t sum = 0;

    for (uint64_t round = 0; round < times; round++) {
        for (int i = 0; i < SIDE; i++) {
            for (int k = 0; k < SIDE; k++) {
                double factor = a[i][k];
                for (int j = 0; j < SIDE; j++) {
                    c[i][j] += factor * b[k][j];
                }
            }
        }
    }
    for (int i = 0; i < SIDE; i++) {
        for (int j = 0; j < SIDE; j++) {
            sum = mix_double(sum, c[i][j]);
        }
    }
    return sum;
}

/* fft: radix 2, in place, forth and back. */

enum { BITS = 13, POINTS = 1 << BITS };

static struct complex {
    double re, im;
} points[POINTS], roots[BITS];

static void fft_prepare(uint64_t amount)
{
    uint64_t random = 8;

    for (int i = 0; i < POINTS; i++) {
        points[i] = (struct complex){random_double(&random), random_double(&random)};
    }
    /* roots[i] is the 2^(i+1)th root of unity: halves of a half turn, by square roots alone. */
    roots[0] = (struct complex){-1, 0};
    roots[1] = (struct complex){0, 1};
    for (int i = 2; i < BITS; i++) {
        double re = sqrt((1 + roots[i - 1].re) / 2);
        roots[i] = (struct complex){re, roots[i - 1].im / (2 * re)};
    }
}

static inline struct complex times(struct complex x, struct complex y)
{
    return (struct complex){x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re};
}

static CALLED void reorder(void)
{
    for (unsigned i = 0, j = 0; i < POINTS; i++) {
        if (i < j) {
            struct complex kept = points[i];
            points[i] = points[j];
            points[j] = kept;
        }
        /* j counts in bits that are reversed. */
        unsigned bit = POINTS >> 1;
        while (j & bit) {
            j ^= bit;
            bit >>= 1;
        }
        j |= bit;
    }
}

static CALLED void transform(double direction)
{
    reorder();
    for (int level = 0; level < BITS; level++) {
        int half = 1 << level;
        struct complex root = {roots[level].re, roots[level].im * direction};
        for (int at = 0; at < POINTS; at += 2 * half) {
            struct complex turn = {1, 0};
            for (int i = at; i < at + half; i++) {
                struct complex odd = times(points[i + half], turn);
                points[i + half] = (struct complex){points[i].re - odd.re, points[i].im - odd.im};
                points[i] = (struct complex){points[i].re + odd.re, points[i].im + odd.im};
                turn = times(turn, root);
            }
        }
    }
}

static uint64_t fft_run(uint64_t times)
{
    uint64_t sum = 0;

    for (uint64_t round = 0; round < times; round++) {
        transform(1);
        transform(-1);
        for (int i = 0; i < POINTS; i++) {
            points[i].re /= POINTS;
            points[i].im /= POINTS;
        }
    }
    for (int i = 0; i < POINTS; i++) {
        sum = mix_double(mix_double(sum, points[i].re), points[i].im);
    }
    return sum;
}

const struct program floating_programs[] = {
    {"nbody", "steps", 800000, 500, nbody_prepare, nbody_run},
    {"matmul", "products", 30, 1, matmul_prepare, matmul_run},
    {"fft", "pairs", 150, 1, fft_prepare, fft_run},
    {NULL, NULL, 0, 0, NULL, NULL},
};
