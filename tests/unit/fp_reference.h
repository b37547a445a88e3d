/*
 * What the tests of floating point have in common: operands worth trying, the host's arithmetic
 * through <fenv.h>, and rounding in 113-bit arithmetic where the host has no such format or mode.
 */
#pragma once

#include <fenv.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hart/fp.h"

static const int host_modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};

/* Some hosts detect tininess before rounding; there UF is not compared. */
static unsigned compared_flags = FP_NX | FP_UF | FP_OF | FP_DZ | FP_NV;

static uint64_t random_state;

static inline uint64_t random_bits(void)
{
    random_state += 0x9e3779b97f4a7c15;
    uint64_t z = random_state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static inline unsigned width_of(const struct fp_format *format)
{
    return 1 + format->exponent_bits + format->fraction_bits;
}

static inline uint64_t infinity_of(const struct fp_format *format)
{
    return ((1ULL << format->exponent_bits) - 1) << format->fraction_bits;
}

/* Operands that meet: exponents near each other, near the ends, near an integer's width; few
 * significant bits, long runs, all random. */
static inline uint64_t random_operand(const struct fp_format *format)
{
    unsigned fraction_bits = format->fraction_bits;
    unsigned exponents = 1u << format->exponent_bits;
    unsigned bias = exponents / 2 - 1;
    uint64_t choice = random_bits();
    uint64_t fraction = random_bits();
    unsigned exponent;

    switch (choice & 7) {
    case 0:
        exponent = choice >> 8 & (exponents - 1);
        break;
    case 1:
        exponent = (choice >> 8) % 3;
        break;
    case 2:
        exponent = exponents - 1 - (choice >> 8) % 3;
        break;
    case 3:
        exponent = bias / 2 + (choice >> 8) % 5;
        break;
    default:
        exponent = (bias - 4 + (choice >> 8) % (fraction_bits + 16)) & (exponents - 1);
        break;
    }
    switch (choice >> 4 & 3) {
    case 0:
        fraction <<= random_bits() % 64;
        break;
    case 1:
        fraction = (fraction & 3) - 2 + (1ULL << random_bits() % fraction_bits);
        break;
    case 2:
        fraction = ~(fraction << (random_bits() % 64));
        break;
    }
    fraction &= (1ULL << fraction_bits) - 1;
    return (choice >> 63) << (width_of(format) - 1) | (uint64_t)exponent << fraction_bits |
           fraction;
}

#define GRID_MAX 64

/* Zeros, subnormals, the normal boundary, ones and their neighbours, integer limits, the largest
 * number, infinity, quiet and signaling NaNs, each with both signs. */
static inline size_t fill_grid(const struct fp_format *format, uint64_t *grid)
{
    unsigned f = format->fraction_bits;
    uint64_t bias = (1ULL << (format->exponent_bits - 1)) - 1;
    uint64_t normal = 1ULL << f;
    uint64_t one = bias << f;
    uint64_t infinity = infinity_of(format);
    uint64_t quiet = 1ULL << (f - 1);
    const uint64_t magnitudes[] = {
        0,
        1,
        2,
        normal / 2,
        normal - 1,
        normal,
        normal + 1,
        2 * normal,
        one / 2,
        one - normal,
        one - 1,
        one,
        one + 1,
        one + quiet,
        one + 2 * normal,
        one + f * normal,
        one + (f + 1) * normal - 1,
        (bias + 15) << f,
        (bias + (bias > 31 ? 31 : 14)) << f,
        (bias + (bias > 32 ? 32 : 13)) << f,
        (bias + (bias > 63 ? 63 : 12)) << f,
        ((bias + (bias > 64 ? 64 : 11)) << f) - 1,
        infinity - normal,
        infinity - 1,
        infinity,
        infinity + quiet,
        infinity + quiet + 1,
        infinity + 1,
        infinity + quiet - 1,
        2 * infinity - infinity + normal - 1,
    };
    size_t count = 0;

    for (size_t i = 0; i < sizeof magnitudes / sizeof magnitudes[0]; i++) {
        grid[count++] = magnitudes[i];
        grid[count++] = magnitudes[i] | fp_sign_mask(format);
    }
    return count;
}

/* --- the host --- */

static inline float float_of(uint64_t bits)
{
    uint32_t word = (uint32_t)bits;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

static inline double double_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint64_t float_bits(float value)
{
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    return isnan(value) ? fp_canonical_nan(&fp_single) : word;
}

static inline uint64_t double_bits(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return isnan(value) ? fp_canonical_nan(&fp_double) : bits;
}

static inline void host_begin(unsigned rm)
{
    feclearexcept(FE_ALL_EXCEPT);
    fesetround(host_modes[rm]);
}

static inline unsigned host_end(void)
{
    int raised = fetestexcept(FE_ALL_EXCEPT);
    fesetround(FE_TONEAREST);
    return (raised & FE_INEXACT ? FP_NX : 0) | (raised & FE_UNDERFLOW ? FP_UF : 0) |
           (raised & FE_OVERFLOW ? FP_OF : 0) | (raised & FE_DIVBYZERO ? FP_DZ : 0) |
           (raised & FE_INVALID ? FP_NV : 0);
}

/* Call it first. */
static inline void detect_host_tininess(void)
{
    /* (2 - 2^-23) * 2^-127 rounds up to the smallest normal number, and is not tiny after that. */
    volatile float below_two = float_of(0x3fffffff), subnormal = float_of(0x00400000), result;

    host_begin(FP_RNE);
    result = below_two * subnormal;
    (void)result;
    if (host_end() & FP_UF)
        compared_flags &= ~(unsigned)FP_UF;
}

static inline bool is_nan(const struct fp_format *format, uint64_t a)
{
    return (a & ~fp_sign_mask(format)) > infinity_of(format);
}

static inline bool is_signaling(const struct fp_format *format, uint64_t a)
{
    return is_nan(format, a) && !(a & 1ULL << (format->fraction_bits - 1));
}

static inline bool is_zero(const struct fp_format *format, uint64_t a)
{
    return (a & ~fp_sign_mask(format)) == 0;
}

static inline bool is_infinite(const struct fp_format *format, uint64_t a)
{
    return (a & ~fp_sign_mask(format)) == infinity_of(format);
}

static inline bool is_finite(const struct fp_format *format, uint64_t a)
{
    return (a & ~fp_sign_mask(format)) < infinity_of(format);
}

static inline void check(const struct fp_format *format, const char *what, uint64_t a, uint64_t b,
                         uint64_t c, unsigned rm, uint64_t result, unsigned flags,
                         uint64_t expected, unsigned expected_flags)
{
    if (result == expected && ((flags ^ expected_flags) & compared_flags) == 0)
        return;
    fail_msg("%s of f%u, rm %u: %#llx, %#llx, %#llx gave %#llx flags %#x, not %#llx flags %#x",
             what, width_of(format), rm, (unsigned long long)a, (unsigned long long)b,
             (unsigned long long)c, (unsigned long long)result, flags, (unsigned long long)expected,
             expected_flags);
}

/* --- rounding by neighbours, in 113-bit arithmetic --- */

static inline _Float128 wide_of(const struct fp_format *format, uint64_t bits)
{
    unsigned ignored = 0;

    if (format == &fp_single)
        return float_of(bits);
    if (format == &fp_double)
        return double_of(bits);
    /* binary16: exact in binary64, by hand where it is a number. */
    unsigned exponent = bits >> 10 & 31;
    double magnitude =
        exponent == 31 ? double_of(fp_convert(&fp_double, format, bits & 0x7fff, FP_RNE, &ignored))
        : exponent     ? ldexp(1024 + (bits & 1023), (int)exponent - 25)
                       : ldexp(bits & 1023, -24);
    return bits & 0x8000 ? -magnitude : magnitude;
}

static inline _Float128 wide_abs(_Float128 value)
{
    return value < 0 ? -value : value;
}

/* Chooses the away-from-zero neighbour or the one towards zero of a magnitude between them. */
static inline bool goes_away(unsigned rm, bool negative, bool odd, _Float128 value, _Float128 near,
                             _Float128 far)
{
    _Float128 twice = 2 * value, middle = near + far;

    switch (rm) {
    case FP_RNE:
        return twice > middle || (twice == middle && odd);
    case FP_RMM:
        return twice >= middle;
    case FP_RDN:
        return negative;
    case FP_RUP:
        return !negative;
    default:
        return false;
    }
}

/* A binary16 from a value that is exact, or has far more correct bits than a tie needs. */
static inline uint64_t half_of(_Float128 value, bool negative, unsigned rm, unsigned *flags)
{
    const uint64_t infinity = infinity_of(&fp_half);
    const _Float128 smallest_normal = 0x1p-14;
    _Float128 magnitude = wide_abs(value);
    uint64_t sign = negative ? 0x8000 : 0;
    uint64_t low = 0, high = infinity;

    /* The largest pattern that is not above the magnitude. */
    while (high - low > 1) {
        uint64_t middle = (low + high) / 2;
        if (wide_of(&fp_half, middle) <= magnitude)
            low = middle;
        else
            high = middle;
    }
    _Float128 near = wide_of(&fp_half, low);
    if (near == magnitude)
        return sign | low;

    *flags |= FP_NX;
    /* Beyond the largest number the next one would be 2^16. */
    _Float128 far = high == infinity ? (_Float128)65536 : wide_of(&fp_half, high);
    if (magnitude < smallest_normal) {
        /* Tiny after rounding to 11 bits with no bound on the exponent. */
        _Float128 below = smallest_normal - 0x1p-25;
        if (magnitude <= below || !goes_away(rm, negative, true, magnitude, below, smallest_normal))
            *flags |= FP_UF;
    }
    bool away = magnitude >= 65536 ? goes_away(rm, negative, true, 1, 0, 1)
                                   : goes_away(rm, negative, low & 1, magnitude, near, far);
    if (high == infinity && (away || magnitude >= 65536))
        *flags |= FP_OF;
    return sign | (away ? high : low);
}

static inline double exact_double(const struct fp_format *format, uint64_t bits)
{
    if (is_nan(format, bits))
        return NAN;
    if (is_infinite(format, bits))
        return bits & fp_sign_mask(format) ? -INFINITY : INFINITY;
    return (double)wide_of(format, bits);
}
