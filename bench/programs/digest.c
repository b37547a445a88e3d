/* sha256 (FIPS 180-4) and crc32 (IEEE 802.3) of a pseudo-random mebibyte, over and over. */

#include "bench.h"

enum { BUFFER = 1 << 20 };

static uint8_t buffer[BUFFER];
static uint32_t round_constants[64], initial[8];
static uint32_t crc_table[256];

/* The first 32 bits of the fraction of the square (or cube) root of n. */
static uint32_t root_fraction(unsigned n, int power)
{
    unsigned __int128 of = (unsigned __int128)n << (32 * power);
    uint64_t root = 0;

    for (uint64_t bit = UINT64_C(1) << 36; bit; bit >>= 1) {
        uint64_t trial = root | bit;
        unsigned __int128 square = (unsigned __int128)trial * trial;
        if ((power == 2 ? square : square * trial) <= of) {
            root = trial;
        }
    }
    return (uint32_t)root;
}

void digest_prepare(uint64_t amount)
{
    uint64_t random = 5;

    for (size_t i = 0; i < BUFFER; i++) {
        buffer[i] = (uint8_t)(random_next(&random) >> 40);
    }

    int primes = 0;
    for (unsigned n = 2; primes < 64; n++) {
        unsigned divisor = 2;
        while (n % divisor) {
            divisor++;
        }
        if (divisor == n) {
            if (primes < 8) {
                initial[primes] = root_fraction(n, 2);
            }
            round_constants[primes++] = root_fraction(n, 3);
        }
    }

    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
        }
        crc_table[i] = crc;
    }
}

static inline uint32_t rotate(uint32_t x, int by)
{
    return x >> by | x << (32 - by);
}

static inline uint32_t big_endian(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static CALLED void sha256_block(uint32_t state[8], const uint8_t *block)
{
    uint32_t w[64];
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];

    for (int i = 0; i < 16; i++) {
        w[i] = big_endian(block + 4 * i);
    }
    for (int i = 16; i < 64; i++) {
        uint32_t x = w[i - 15], y = w[i - 2];
        w[i] = w[i - 16] + (rotate(x, 7) ^ rotate(x, 18) ^ x >> 3) + w[i - 7] +
               (rotate(y, 17) ^ rotate(y, 19) ^ y >> 10);
    }
    for (int i = 0; i < 64; i++) {
        uint32_t one = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) +
                       round_constants[i] + w[i];
        uint32_t two =
            (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g;
        g = f;
        f = e;
        e = d + one;
        d = c;
        c = b;
        b = a;
        a = one + two;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

/* The checksum is the first 8 bytes of the digest. */
uint64_t sha256_run(uint64_t mebibytes)
{
    uint32_t state[8];
    uint8_t padding[64] = {0x80};
    uint64_t bits = mebibytes * BUFFER * 8;

    for (int i = 0; i < 8; i++) {
        state[i] = initial[i];
    }
    for (uint64_t i = 0; i < mebibytes; i++) {
        for (size_t at = 0; at < BUFFER; at += 64) {
            sha256_block(state, buffer + at);
        }
    }
    for (int i = 0; i < 8; i++) {
        padding[56 + i] = (uint8_t)(bits >> (56 - 8 * i));
    }
    sha256_block(state, padding);
    return (uint64_t)state[0] << 32 | state[1];
}

uint64_t crc32_run(uint64_t mebibytes)
{
    uint32_t crc = ~UINT32_C(0);

    for (uint64_t i = 0; i < mebibytes; i++) {
        for (size_t at = 0; at < BUFFER; at++) {
            crc = crc >> 8 ^ crc_table[(crc ^ buffer[at]) & 255];
        }
    }
    return (uint32_t)~crc;
}
