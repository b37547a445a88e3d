/* What the programs of the benchmark share. */

#ifndef BENCH_H
#define BENCH_H

#include <stddef.h>
#include <stdint.h>

/*
 * One row of the benchmark: a fixed amount of work whose result is the same on every machine.
 * The amount is in units of the program's own (`unit` says which); quick is one for tests.
 */
struct program {
    const char *name;
    const char *unit;
    uint64_t amount, quick;
    void (*prepare)(uint64_t amount); /* what is not timed; may be NULL */
    uint64_t (*run)(uint64_t amount); /* the work; gives its checksum */
};

/* Each ends with a program without a name. */
extern const struct program integer_programs[];
extern const struct program floating_programs[];
extern const struct program memory_programs[];
extern const struct program system_programs[];
extern const struct program thread_programs[];

/* Spelled out in two files of their own. */
void digest_prepare(uint64_t amount);
uint64_t sha256_run(uint64_t mebibytes);
uint64_t crc32_run(uint64_t mebibytes);
void mixed_prepare(uint64_t amount);
uint64_t mixed_run(uint64_t rounds);
uint64_t fib(unsigned n);

/* The path of this program, to execute again. */
extern const char *own_path;

/* The argument that makes it end at once. */
#define DO_NOTHING "--do-nothing"

/* Prints what failed and errno's message, and ends the program. */
_Noreturn void die(const char *what);

/* malloc for those who cannot go on without. */
void *need_memory(size_t size);

/* A call that stays a call, as one into another file would. */
#define CALLED __attribute__((noinline, noclone))

static inline uint64_t mix(uint64_t sum, uint64_t value)
{
    sum = (sum ^ value) * 0x9e3779b97f4a7c15;
    return sum ^ sum >> 29;
}

/* Marsaglia's xorshift: the state must not be 0. */
static inline uint64_t random_next(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

#endif
