/*
 * The software floating point against the host's (binary32 and binary64, through <fenv.h>), and
 * against rounding in 113-bit arithmetic where the host has no such format or mode (binary16,
 * RMM).
 */
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

static uint64_t random_bits(void)
{
    random_state += 0x9e3779b97f4a7c15;
    uint64_t z = random_state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static unsigned width_of(const struct fp_format *format)
{
    return 1 + format->exponent_bits + format->fraction_bits;
}

static uint64_t infinity_of(const struct fp_format *format)
{
    return ((1ULL << format->exponent_bits) - 1) << format->fraction_bits;
}

/* Operands that meet: exponents near each other, near the ends, near an integer's width; few
 * significant bits, long runs, all random. */
static uint64_t random_operand(const struct fp_format *format)
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
static size_t fill_grid(const struct fp_format *format, uint64_t *grid)
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

/* --- the host's arithmetic --- */

enum operation { OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_SQRT, OP_FMA, OP_COUNT };

static const char *const operation_names[] = {"add", "sub", "mul", "div", "sqrt", "fma"};

static float float_of(uint64_t bits)
{
    uint32_t word = (uint32_t)bits;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

static double double_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint64_t float_bits(float value)
{
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    return isnan(value) ? fp_canonical_nan(&fp_single) : word;
}

static uint64_t double_bits(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return isnan(value) ? fp_canonical_nan(&fp_double) : bits;
}

static void host_begin(unsigned rm)
{
    feclearexcept(FE_ALL_EXCEPT);
    fesetround(host_modes[rm]);
}

static unsigned host_end(void)
{
    int raised = fetestexcept(FE_ALL_EXCEPT);
    fesetround(FE_TONEAREST);
    return (raised & FE_INEXACT ? FP_NX : 0) | (raised & FE_UNDERFLOW ? FP_UF : 0) |
           (raised & FE_OVERFLOW ? FP_OF : 0) | (raised & FE_DIVBYZERO ? FP_DZ : 0) |
           (raised & FE_INVALID ? FP_NV : 0);
}

static uint64_t host_single(enum operation op, uint64_t a, uint64_t b, uint64_t c, unsigned rm,
                            unsigned *flags)
{
    volatile float x = float_of(a), y = float_of(b), z = float_of(c), result = 0;

    host_begin(rm);
    switch (op) {
    case OP_ADD:
        result = x + y;
        break;
    case OP_SUB:
        result = x - y;
        break;
    case OP_MUL:
        result = x * y;
        break;
    case OP_DIV:
        result = x / y;
        break;
    case OP_SQRT:
        result = sqrtf(x);
        break;
    default:
        result = fmaf(x, y, z);
        break;
    }
    *flags = host_end();
    return float_bits(result);
}

static uint64_t host_double(enum operation op, uint64_t a, uint64_t b, uint64_t c, unsigned rm,
                            unsigned *flags)
{
    volatile double x = double_of(a), y = double_of(b), z = double_of(c), result = 0;

    host_begin(rm);
    switch (op) {
    case OP_ADD:
        result = x + y;
        break;
    case OP_SUB:
        result = x - y;
        break;
    case OP_MUL:
        result = x * y;
        break;
    case OP_DIV:
        result = x / y;
        break;
    case OP_SQRT:
        result = sqrt(x);
        break;
    default:
        result = fma(x, y, z);
        break;
    }
    *flags = host_end();
    return double_bits(result);
}

static uint64_t own(const struct fp_format *format, enum operation op, uint64_t a, uint64_t b,
                    uint64_t c, unsigned rm, unsigned *flags)
{
    switch (op) {
    case OP_ADD:
        return fp_add(format, a, b, rm, flags);
    case OP_SUB:
        return fp_sub(format, a, b, rm, flags);
    case OP_MUL:
        return fp_mul(format, a, b, rm, flags);
    case OP_DIV:
        return fp_div(format, a, b, rm, flags);
    case OP_SQRT:
        return fp_sqrt(format, a, rm, flags);
    default:
        return fp_fma(format, a, b, c, rm, flags);
    }
}

static bool is_nan(const struct fp_format *format, uint64_t a)
{
    return (a & ~fp_sign_mask(format)) > infinity_of(format);
}

static bool is_signaling(const struct fp_format *format, uint64_t a)
{
    return is_nan(format, a) && !(a & 1ULL << (format->fraction_bits - 1));
}

static bool is_zero(const struct fp_format *format, uint64_t a)
{
    return (a & ~fp_sign_mask(format)) == 0;
}

static bool is_infinite(const struct fp_format *format, uint64_t a)
{
    return (a & ~fp_sign_mask(format)) == infinity_of(format);
}

static void check(const struct fp_format *format, const char *what, uint64_t a, uint64_t b,
                  uint64_t c, unsigned rm, uint64_t result, unsigned flags, uint64_t expected,
                  unsigned expected_flags)
{
    if (result == expected && ((flags ^ expected_flags) & compared_flags) == 0)
        return;
    fail_msg("%s of f%u, rm %u: %#llx, %#llx, %#llx gave %#llx flags %#x, not %#llx flags %#x",
             what, width_of(format), rm, (unsigned long long)a, (unsigned long long)b,
             (unsigned long long)c, (unsigned long long)result, flags, (unsigned long long)expected,
             expected_flags);
}

static void compare_with_host(const struct fp_format *format, enum operation op, uint64_t a,
                              uint64_t b, uint64_t c)
{
    for (unsigned rm = FP_RNE; rm <= FP_RUP; rm++) {
        unsigned flags = 0, host_flags = 0;
        uint64_t expected = format == &fp_single ? host_single(op, a, b, c, rm, &host_flags)
                                                 : host_double(op, a, b, c, rm, &host_flags);
        uint64_t result = own(format, op, a, b, c, rm, &flags);
        /* IEEE 754 leaves infinity * 0 + quiet NaN to the implementation; RISC-V does not. */
        if (op == OP_FMA && is_nan(format, c) &&
            ((is_infinite(format, a) && is_zero(format, b)) ||
             (is_zero(format, a) && is_infinite(format, b))))
            host_flags = FP_NV;
        check(format, operation_names[op], a, b, c, rm, result, flags, expected, host_flags);
    }
}

static void detect_host_tininess(void)
{
    unsigned flags;
    /* (2 - 2^-23) * 2^-127 rounds up to the smallest normal number, and is not tiny after that. */
    host_single(OP_MUL, 0x3fffffff, 0x00400000, 0, FP_RNE, &flags);
    if (flags & FP_UF)
        compared_flags &= ~(unsigned)FP_UF;
}

static void grid_matches_host(void **state)
{
    const struct fp_format *formats[] = {&fp_single, &fp_double};
    uint64_t grid[GRID_MAX];

    for (size_t f = 0; f < 2; f++) {
        size_t count = fill_grid(formats[f], grid);
        assert_true(count <= GRID_MAX);
        for (size_t i = 0; i < count; i++) {
            compare_with_host(formats[f], OP_SQRT, grid[i], 0, 0);
            for (size_t j = 0; j < count; j++) {
                for (enum operation op = OP_ADD; op <= OP_DIV; op++)
                    compare_with_host(formats[f], op, grid[i], grid[j], 0);
                for (size_t k = 0; k < count; k++)
                    compare_with_host(formats[f], OP_FMA, grid[i], grid[j], grid[k]);
            }
        }
    }
}

static void random_operands_match_host(void **state)
{
    const struct fp_format *formats[] = {&fp_single, &fp_double};

    for (unsigned i = 0; i < 150000; i++) {
        const struct fp_format *format = formats[i & 1];
        uint64_t a = random_operand(format);
        uint64_t b = random_operand(format);
        uint64_t c = random_operand(format);
        for (enum operation op = 0; op < OP_COUNT; op++)
            compare_with_host(format, op, a, b, c);
        /* c near -(a * b): cancellation, and rests far below the sum. */
        unsigned ignored = 0;
        uint64_t product = fp_mul(format, a, b, FP_RNE, &ignored);
        if (!is_nan(format, product))
            compare_with_host(format, OP_FMA, a, b,
                              (product ^ fp_sign_mask(format)) + (random_bits() & 1));
    }
}

/* --- rounding by neighbours, in 113-bit arithmetic --- */

static _Float128 wide_of(const struct fp_format *format, uint64_t bits)
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

static _Float128 wide_abs(_Float128 value)
{
    return value < 0 ? -value : value;
}

/* Chooses the away-from-zero neighbour or the one towards zero of a magnitude between them. */
static bool goes_away(unsigned rm, bool negative, bool odd, _Float128 value, _Float128 near,
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
static uint64_t half_of(_Float128 value, bool negative, unsigned rm, unsigned *flags)
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

static void compare_half(enum operation op, uint64_t a, uint64_t b, uint64_t c)
{
    _Float128 x = wide_of(&fp_half, a), y = wide_of(&fp_half, b), z = wide_of(&fp_half, c);
    _Float128 exact;

    switch (op) {
    case OP_ADD:
        exact = x + y;
        break;
    case OP_SUB:
        exact = x - y;
        break;
    case OP_MUL:
        exact = x * y;
        break;
    case OP_DIV:
        if (y == 0)
            return;
        exact = x / y;
        break;
    case OP_SQRT:
        if (x < 0)
            return;
        exact = sqrt((double)x);
        break;
    default:
        exact = x * y + z;
        break;
    }
    for (unsigned rm = FP_RNE; rm <= FP_RMM; rm++) {
        bool product_sign = (a ^ b) >> 15;
        bool negative = exact < 0;
        if (exact == 0) {
            uint64_t other = op == OP_ADD   ? b >> 15
                             : op == OP_SUB ? !(b >> 15)
                             : op == OP_FMA ? c >> 15
                                            : product_sign;
            bool first = op == OP_FMA || op == OP_MUL || op == OP_DIV ? product_sign : a >> 15;
            negative = op == OP_SQRT ? a >> 15 : first == other ? first : rm == FP_RDN;
        }
        unsigned flags = 0, expected_flags = 0;
        uint64_t expected = half_of(exact, negative, rm, &expected_flags);
        uint64_t result = own(&fp_half, op, a, b, c, rm, &flags);
        check(&fp_half, operation_names[op], a, b, c, rm, result, flags, expected, expected_flags);
    }
}

static bool is_finite(const struct fp_format *format, uint64_t a)
{
    return (a & ~fp_sign_mask(format)) < infinity_of(format);
}

static void half_matches_wide_arithmetic(void **state)
{
    uint64_t grid[GRID_MAX];
    size_t count = fill_grid(&fp_half, grid);

    for (uint64_t a = 0; a < 0x10000; a++)
        if (is_finite(&fp_half, a))
            compare_half(OP_SQRT, a, 0, 0);
    for (size_t i = 0; i < count * count * count; i++) {
        uint64_t a = grid[i % count], b = grid[i / count % count], c = grid[i / count / count];
        if (is_finite(&fp_half, a) && is_finite(&fp_half, b) && is_finite(&fp_half, c))
            compare_half(OP_FMA, a, b, c);
    }
    for (unsigned i = 0; i < 60000; i++) {
        uint64_t a = i & 1 ? random_operand(&fp_half) : random_bits() & 0xffff;
        uint64_t b = i & 2 ? random_operand(&fp_half) : random_bits() & 0xffff;
        uint64_t c = random_operand(&fp_half);
        if (is_finite(&fp_half, a) && is_finite(&fp_half, b) && is_finite(&fp_half, c))
            for (enum operation op = 0; op < OP_COUNT; op++)
                compare_half(op, a, b, c);
    }
}

/* What each class of operands gives does not depend on the format: binary16 against binary64. */
static void half_specials_match_double(void **state)
{
    uint64_t grid[GRID_MAX];
    size_t count = fill_grid(&fp_half, grid);

    for (size_t i = 0; i < count * count; i++) {
        uint64_t a = grid[i % count], b = grid[i / count];
        bool finite = is_finite(&fp_half, a) && is_finite(&fp_half, b);
        for (enum operation op = OP_ADD; op <= OP_SQRT; op++) {
            bool special = op == OP_DIV    ? !finite || is_zero(&fp_half, b)
                           : op == OP_SQRT ? !is_finite(&fp_half, a) || a >> 15
                                           : !finite;
            if (!special)
                continue;
            uint64_t wide[2] = {a, b};
            for (unsigned k = 0; k < 2; k++) {
                unsigned ignored = 0;
                uint64_t half = wide[k];
                wide[k] = fp_convert(&fp_double, &fp_half, half, FP_RNE, &ignored);
                if (is_signaling(&fp_half, half))
                    wide[k] = 0x7ff0000000000001;
            }
            for (unsigned rm = FP_RNE; rm <= FP_RUP; rm++) {
                unsigned flags = 0, expected_flags = 0, ignored = 0;
                uint64_t expected = host_double(op, wide[0], wide[1], 0, rm, &expected_flags);
                expected = fp_convert(&fp_half, &fp_double, expected, rm, &ignored);
                uint64_t result = own(&fp_half, op, a, b, 0, rm, &flags);
                check(&fp_half, operation_names[op], a, b, 0, rm, result, flags, expected,
                      expected_flags);
            }
        }
    }
}

/* --- RMM for binary32 and binary64: the neighbour that the exact value is nearer to --- */

static void max_magnitude_takes_nearer_neighbour(void **state)
{
    const struct fp_format *formats[] = {&fp_single, &fp_double};
    unsigned ties = 0;

    for (unsigned i = 0; i < 200000; i++) {
        const struct fp_format *format = formats[i & 1];
        bool multiply = i & 2;
        uint64_t bias = (1ULL << (format->exponent_bits - 1)) - 1;
        uint64_t operands[2];
        for (unsigned k = 0; k < 2; k++) {
            /* Sums and products that stay exact in 113 bits, with few bits so that ties happen. */
            uint64_t fraction = random_bits() & ((1ULL << format->fraction_bits) - 1);
            fraction &= ~0ULL << (multiply ? format->fraction_bits / 2 : 0);
            operands[k] = (random_bits() & 1) << (width_of(format) - 1) |
                          (bias + random_bits() % 8) << format->fraction_bits | fraction;
        }
        uint64_t a = operands[0], b = operands[1];
        enum operation op = multiply ? OP_MUL : OP_ADD;
        _Float128 exact = multiply ? wide_of(format, a) * wide_of(format, b)
                                   : wide_of(format, a) + wide_of(format, b);
        unsigned flags[3] = {0};
        uint64_t results[3];
        const unsigned modes[3] = {FP_RTZ, exact < 0 ? FP_RDN : FP_RUP, FP_RMM};
        for (unsigned k = 0; k < 3; k++)
            results[k] = own(format, op, a, b, 0, modes[k], &flags[k]);
        _Float128 near = wide_abs(wide_of(format, results[0]));
        _Float128 far = wide_abs(wide_of(format, results[1]));
        ties += near != far && 2 * wide_abs(exact) == near + far;
        uint64_t expected = 2 * wide_abs(exact) >= near + far ? results[1] : results[0];
        check(format, operation_names[op], a, b, 0, FP_RMM, results[2], flags[2], expected,
              flags[0]);
    }
    assert_true(ties > 1000);
}

static void max_magnitude_vectors(void **state)
{
    const struct {
        double value;
        uint64_t nearest_even, max_magnitude;
    } vectors[] = {
        {0.5, 0, 1},          {1.5, 2, 2},          {2.5, 2, 3},
        {-0.5, 0, -1ULL},     {-2.5, -2ULL, -3ULL}, {0.49999999999999994, 0, 0},
        {-3.5, -4ULL, -4ULL},
    };
    unsigned flags = 0;

    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        uint64_t bits = double_bits(vectors[i].value);
        assert_int_equal(fp_to_int(&fp_double, bits, 64, true, FP_RNE, &flags),
                         vectors[i].nearest_even);
        assert_int_equal(fp_to_int(&fp_double, bits, 64, true, FP_RMM, &flags),
                         vectors[i].max_magnitude);
    }
    assert_int_equal(flags, FP_NX);
    /* 2^24 + 1 and the largest binary32 plus half its last place. */
    assert_int_equal(fp_from_int64(&fp_single, 16777217, FP_RNE, &flags), 0x4b800000);
    assert_int_equal(fp_from_int64(&fp_single, 16777217, FP_RMM, &flags), 0x4b800001);
    assert_int_equal(fp_from_int64(&fp_single, -16777217, FP_RMM, &flags), 0xcb800001);
    assert_int_equal(fp_add(&fp_single, 0x7f7fffff, 0x73000000, FP_RMM, &flags), 0x7f800000);
    assert_int_equal(flags, FP_NX | FP_OF);
    /* Half the smallest subnormal. */
    assert_int_equal(fp_mul(&fp_single, 1, 0x3f000000, FP_RNE, &flags), 0);
    assert_int_equal(fp_mul(&fp_single, 1, 0x3f000000, FP_RMM, &flags), 1);
}

/* --- conversions --- */

/* Called through a pointer: compilers expand rint() inline as if rounding were to nearest. */
static double (*volatile host_rint)(double) = rint;

static uint64_t host_to_int(double value, unsigned width, bool is_signed, unsigned rm,
                            unsigned *flags)
{
    double lowest = is_signed ? -ldexp(1, (int)width - 1) : 0;
    double limit = ldexp(1, (int)width - is_signed);
    uint64_t largest = ~0ULL >> (64 - width + is_signed);
    volatile double input = value;
    uint64_t result;

    fesetround(rm == FP_RMM ? FE_TOWARDZERO : host_modes[rm]);
    volatile double rounded = host_rint(input);
    fesetround(FE_TONEAREST);
    if (rm == FP_RMM && fabs(value - rounded) >= 0.5)
        rounded += copysign(1, value);

    if (isnan(value) || rounded >= limit) {
        *flags = FP_NV;
        result = largest;
    } else if (rounded < lowest) {
        *flags = FP_NV;
        result = is_signed ? largest + 1 : 0;
    } else {
        *flags = rounded == value ? 0 : FP_NX;
        result = rounded < 0 ? (uint64_t)(int64_t)rounded : (uint64_t)rounded;
    }
    return width == 32 ? (uint64_t)(int32_t)result : result;
}

static double exact_double(const struct fp_format *format, uint64_t bits)
{
    if (is_nan(format, bits))
        return NAN;
    if (is_infinite(format, bits))
        return bits & fp_sign_mask(format) ? -INFINITY : INFINITY;
    return (double)wide_of(format, bits);
}

static void check_to_int(const struct fp_format *format, uint64_t bits)
{
    for (unsigned rm = FP_RNE; rm <= FP_RMM; rm++)
        for (unsigned kind = 0; kind < 4; kind++) {
            unsigned width = kind & 1 ? 64 : 32;
            unsigned flags = 0, expected_flags;
            uint64_t expected =
                host_to_int(exact_double(format, bits), width, kind & 2, rm, &expected_flags);
            uint64_t result = fp_to_int(format, bits, width, kind & 2, rm, &flags);
            check(format, "to_int", bits, width, kind & 2, rm, result, flags, expected,
                  expected_flags);
        }
}

static void integers_from_numbers(void **state)
{
    const struct fp_format *formats[] = {&fp_single, &fp_double};
    uint64_t grid[GRID_MAX];

    for (uint64_t a = 0; a < 0x10000; a++)
        check_to_int(&fp_half, a);
    for (unsigned f = 0; f < 2; f++) {
        size_t count = fill_grid(formats[f], grid);
        for (size_t i = 0; i < count; i++)
            check_to_int(formats[f], grid[i]);
        for (unsigned i = 0; i < 100000; i++)
            check_to_int(formats[f], random_operand(formats[f]));
    }
    /* Limits of the integer types and their neighbours. */
    for (unsigned exponent = 30; exponent <= 65; exponent++)
        for (int64_t step = -4; step <= 4; step++) {
            check_to_int(&fp_double, double_bits(ldexp(1, (int)exponent)) + step);
            check_to_int(&fp_double, double_bits(-ldexp(1, (int)exponent)) + step);
            if (exponent < 40) {
                check_to_int(&fp_double, double_bits(ldexp(1, (int)exponent) + step / 2.0));
                check_to_int(&fp_double, double_bits(-ldexp(1, (int)exponent) + step / 2.0));
            }
        }
}

static uint64_t host_from_int(const struct fp_format *format, uint64_t value, bool is_signed,
                              unsigned rm, unsigned *flags)
{
    volatile int64_t as_signed = (int64_t)value;
    volatile uint64_t as_unsigned = value;
    volatile float single = 0;
    volatile double wide = 0;

    if (format == &fp_half)
        return half_of(is_signed ? (_Float128)as_signed : (_Float128)as_unsigned,
                       is_signed && as_signed < 0, rm, flags);
    host_begin(rm);
    if (format == &fp_single)
        single = is_signed ? (float)as_signed : (float)as_unsigned;
    else
        wide = is_signed ? (double)as_signed : (double)as_unsigned;
    *flags = host_end();
    return format == &fp_single ? float_bits(single) : double_bits(wide);
}

static void check_from_int(uint64_t value)
{
    const struct fp_format *formats[] = {&fp_half, &fp_single, &fp_double};

    for (unsigned f = 0; f < 3; f++)
        for (unsigned rm = FP_RNE; rm <= (f == 0 ? FP_RMM : FP_RUP); rm++)
            for (unsigned is_signed = 0; is_signed < 2; is_signed++) {
                unsigned flags = 0, expected_flags = 0;
                uint64_t expected =
                    host_from_int(formats[f], value, is_signed, rm, &expected_flags);
                uint64_t result = is_signed ? fp_from_int64(formats[f], (int64_t)value, rm, &flags)
                                            : fp_from_uint64(formats[f], value, rm, &flags);
                check(formats[f], "from_int", value, is_signed, 0, rm, result, flags, expected,
                      expected_flags);
            }
}

static void numbers_from_integers(void **state)
{
    for (unsigned shift = 0; shift < 64; shift++)
        for (uint64_t step = 0; step < 5; step++) {
            check_from_int((1ULL << shift) + step - 2);
            check_from_int(~0ULL << shift | step);
        }
    for (unsigned i = 0; i < 30000; i++)
        check_from_int(random_bits() >> random_bits() % 64);
}

static void check_narrowing(uint64_t bits)
{
    volatile double input = double_of(bits);

    for (unsigned rm = FP_RNE; rm <= FP_RUP; rm++) {
        unsigned flags = 0;
        host_begin(rm);
        volatile float narrowed = (float)input;
        unsigned expected_flags = host_end();
        uint64_t result = fp_convert(&fp_single, &fp_double, bits, rm, &flags);
        check(&fp_single, "convert", bits, 0, 0, rm, result, flags, float_bits(narrowed),
              expected_flags);
    }
    if (!isfinite(input))
        return;
    for (unsigned rm = FP_RNE; rm <= FP_RMM; rm++) {
        unsigned flags = 0, expected_flags = 0;
        uint64_t expected = half_of(input, bits >> 63, rm, &expected_flags);
        uint64_t result = fp_convert(&fp_half, &fp_double, bits, rm, &flags);
        check(&fp_half, "convert", bits, 0, 0, rm, result, flags, expected, expected_flags);
    }
}

static void formats_convert(void **state)
{
    uint64_t grid[GRID_MAX];
    size_t count = fill_grid(&fp_double, grid);

    for (size_t i = 0; i < count; i++)
        check_narrowing(grid[i]);
    for (unsigned i = 0; i < 100000; i++) {
        check_narrowing(random_operand(&fp_double));
        /* Around what binary16 and binary32 can hold. */
        uint64_t exponent =
            random_bits() & 1 ? 1023 - 30 + random_bits() % 50 : 1023 - 155 + random_bits() % 10;
        check_narrowing(random_bits() << 63 | exponent << 52 |
                        (random_bits() >> 12 & ~0ULL << random_bits() % 52));
    }
    /* Widening is exact, and narrowing back finds the same number. */
    for (uint64_t a = 0; a < 0x10000; a++) {
        unsigned flags = 0;
        uint64_t single = fp_convert(&fp_single, &fp_half, a, FP_RNE, &flags);
        uint64_t wide = fp_convert(&fp_double, &fp_half, a, FP_RNE, &flags);
        assert_int_equal(flags, is_signaling(&fp_half, a) ? FP_NV : 0);
        if (is_nan(&fp_half, a)) {
            assert_int_equal(single, fp_canonical_nan(&fp_single));
            assert_int_equal(wide, fp_canonical_nan(&fp_double));
            continue;
        }
        assert_int_equal(wide, double_bits(exact_double(&fp_half, a)));
        assert_int_equal(single, float_bits((float)exact_double(&fp_half, a)));
        for (unsigned rm = FP_RNE; rm <= FP_RMM; rm++) {
            assert_int_equal(fp_convert(&fp_half, &fp_single, single, rm, &flags), a);
            assert_int_equal(fp_convert(&fp_half, &fp_double, wide, rm, &flags), a);
        }
        assert_int_equal(flags, 0);
    }
    for (unsigned i = 0; i < 100000; i++) {
        uint64_t a = random_operand(&fp_single);
        unsigned flags = 0;
        uint64_t wide = fp_convert(&fp_double, &fp_single, a, FP_RNE, &flags);
        assert_int_equal(wide, double_bits(exact_double(&fp_single, a)));
        assert_int_equal(flags, is_signaling(&fp_single, a) ? FP_NV : 0);
    }
}

/* --- comparisons, minimum and maximum, classes --- */

static void check_comparisons(const struct fp_format *format, uint64_t a, uint64_t b)
{
    double x = exact_double(format, a), y = exact_double(format, b);
    bool nan = is_nan(format, a) || is_nan(format, b);
    bool signaling = is_signaling(format, a) || is_signaling(format, b);
    unsigned quiet_flags = signaling ? FP_NV : 0, loud_flags = nan ? FP_NV : 0, flags = 0;
    bool a_first = x < y || (x == y && (a & fp_sign_mask(format)));
    uint64_t result, least, greatest;

    result = fp_eq(format, a, b, &flags);
    check(format, "eq", a, b, 0, 0, result, flags, x == y, quiet_flags);
    flags = 0;
    result = fp_lt(format, a, b, &flags);
    check(format, "lt", a, b, 0, 0, result, flags, x < y, loud_flags);
    flags = 0;
    result = fp_le(format, a, b, &flags);
    check(format, "le", a, b, 0, 0, result, flags, x <= y, loud_flags);

    if (is_nan(format, a) && is_nan(format, b))
        least = greatest = fp_canonical_nan(format);
    else if (nan)
        least = greatest = is_nan(format, a) ? b : a;
    else
        least = a_first ? a : b, greatest = a_first ? b : a;
    flags = 0;
    result = fp_min(format, a, b, &flags);
    check(format, "min", a, b, 0, 0, result, flags, least, quiet_flags);
    flags = 0;
    result = fp_max(format, a, b, &flags);
    check(format, "max", a, b, 0, 0, result, flags, greatest, quiet_flags);
}

static void numbers_compare(void **state)
{
    const struct fp_format *formats[] = {&fp_half, &fp_single, &fp_double};
    uint64_t grid[GRID_MAX];

    for (unsigned f = 0; f < 3; f++) {
        size_t count = fill_grid(formats[f], grid);
        for (size_t i = 0; i < count * count; i++)
            check_comparisons(formats[f], grid[i % count], grid[i / count]);
        for (unsigned i = 0; i < 100000; i++)
            check_comparisons(formats[f], random_operand(formats[f]), random_operand(formats[f]));
    }
}

static void numbers_classify(void **state)
{
    const struct fp_format *formats[] = {&fp_half, &fp_single, &fp_double};

    for (unsigned f = 0; f < 3; f++) {
        const struct fp_format *format = formats[f];
        uint64_t sign = fp_sign_mask(format), normal = 1ULL << format->fraction_bits;
        uint64_t infinity = infinity_of(format);
        const struct {
            uint64_t bits;
            unsigned mask;
        } vectors[] = {
            {sign | infinity, 1 << 0},
            {sign | normal, 1 << 1},
            {sign | (infinity - 1), 1 << 1},
            {sign | (normal - 1), 1 << 2},
            {sign | 1, 1 << 2},
            {sign, 1 << 3},
            {0, 1 << 4},
            {1, 1 << 5},
            {normal - 1, 1 << 5},
            {normal, 1 << 6},
            {infinity - 1, 1 << 6},
            {infinity, 1 << 7},
            {infinity + 1, 1 << 8},
            {sign | (infinity + normal / 2 - 1), 1 << 8},
            {infinity + normal / 2, 1 << 9},
            {sign | (infinity + normal - 1), 1 << 9},
        };
        for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++)
            assert_int_equal(fp_classify(format, vectors[i].bits), vectors[i].mask);
    }
    assert_int_equal(fp_canonical_nan(&fp_half), 0x7e00);
    assert_int_equal(fp_canonical_nan(&fp_single), 0x7fc00000);
    assert_int_equal(fp_canonical_nan(&fp_double), 0x7ff8000000000000);
}

/* Flags accumulate: nothing clears what was raised before. */
static void flags_accumulate(void **state)
{
    unsigned flags = 0;

    fp_div(&fp_single, 0x3f800000, 0, FP_RNE, &flags);
    assert_int_equal(flags, FP_DZ);
    fp_div(&fp_single, 0x3f800000, 0x40400000, FP_RNE, &flags);
    assert_int_equal(flags, FP_DZ | FP_NX);
    fp_add(&fp_single, 0x3f800000, 0x3f800000, FP_RNE, &flags);
    assert_int_equal(flags, FP_DZ | FP_NX);
    fp_sqrt(&fp_single, 0xbf800000, FP_RNE, &flags);
    assert_int_equal(flags, FP_DZ | FP_NX | FP_NV);
    fp_mul(&fp_single, 0x7f7fffff, 0x7f7fffff, FP_RNE, &flags);
    assert_int_equal(flags, FP_DZ | FP_NX | FP_NV | FP_OF);
    fp_mul(&fp_single, 0x00800001, 0x3f000000, FP_RNE, &flags);
    assert_int_equal(flags, FP_DZ | FP_NX | FP_NV | FP_OF | FP_UF);
}

int main(void)
{
    const char *seed = getenv("SEED");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grid_matches_host),
        cmocka_unit_test(random_operands_match_host),
        cmocka_unit_test(half_matches_wide_arithmetic),
        cmocka_unit_test(half_specials_match_double),
        cmocka_unit_test(max_magnitude_takes_nearer_neighbour),
        cmocka_unit_test(max_magnitude_vectors),
        cmocka_unit_test(integers_from_numbers),
        cmocka_unit_test(numbers_from_integers),
        cmocka_unit_test(formats_convert),
        cmocka_unit_test(numbers_compare),
        cmocka_unit_test(numbers_classify),
        cmocka_unit_test(flags_accumulate),
    };

    random_state = seed != NULL ? strtoull(seed, NULL, 0) : 1;
    detect_host_tininess();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
