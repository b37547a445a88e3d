/*
 * Every operation is unpack -> operate exactly, or with a sticky bit -> round_and_pack. Unpacked
 * significands have their leading one in bit 63 whatever the format, so one mechanism serves all:
 * even binary64 leaves 11 bits below its last place for the round and sticky bits.
 */
#include "hart/fp.h"

typedef unsigned __int128 uint128;

const struct fp_format fp_half = {.exponent_bits = 5, .fraction_bits = 10};
const struct fp_format fp_single = {.exponent_bits = 8, .fraction_bits = 23};
const struct fp_format fp_double = {.exponent_bits = 11, .fraction_bits = 52};

/* Ordered: everything from KIND_INFINITY on needs special treatment in arithmetic. */
enum kind {
    KIND_ZERO,
    KIND_NUMBER,
    KIND_INFINITY,
    KIND_QUIET_NAN,
    KIND_SIGNALING_NAN,
};

/* A number is significand / 2^63 * 2^exponent. */
struct unpacked {
    enum kind kind;
    bool sign;
    int exponent;
    uint64_t significand;
};

/* An exact sum's operand: significand / 2^126 * 2^exponent, leading one in bit 126, or zero. */
struct wide {
    bool sign;
    int exponent;
    uint128 significand;
};

/* Below the exponent of every product of two numbers, so that a zero is the smallest operand. */
static const int zero_exponent = -(1 << 16);

static int bias(const struct fp_format *format)
{
    return (1 << (format->exponent_bits - 1)) - 1;
}

static uint64_t fraction_mask(const struct fp_format *format)
{
    return (1ULL << format->fraction_bits) - 1;
}

static uint64_t signed_bits(const struct fp_format *format, bool sign, uint64_t magnitude)
{
    return magnitude | ((uint64_t)sign << (format->exponent_bits + format->fraction_bits));
}

static uint64_t infinity_magnitude(const struct fp_format *format)
{
    return ((1ULL << format->exponent_bits) - 1) << format->fraction_bits;
}

static uint64_t infinity_bits(const struct fp_format *format, bool sign)
{
    return signed_bits(format, sign, infinity_magnitude(format));
}

static uint64_t invalid(const struct fp_format *format, unsigned *flags)
{
    *flags |= FP_NV;
    return fp_canonical_nan(format);
}

static struct unpacked unpack(const struct fp_format *format, uint64_t bits)
{
    unsigned all_ones = (1u << format->exponent_bits) - 1;
    unsigned biased = bits >> format->fraction_bits & all_ones;
    uint64_t fraction = bits & fraction_mask(format);
    struct unpacked u = {.sign = bits & fp_sign_mask(format)};

    if (biased == all_ones) {
        bool quiet = fraction >> (format->fraction_bits - 1);
        u.kind = fraction == 0 ? KIND_INFINITY : quiet ? KIND_QUIET_NAN : KIND_SIGNALING_NAN;
    } else if (biased != 0) {
        u.kind = KIND_NUMBER;
        u.exponent = (int)biased - bias(format);
        u.significand = (1ULL << 63) | fraction << (63 - format->fraction_bits);
    } else if (fraction != 0) {
        unsigned leading_zeros = __builtin_clzll(fraction);
        u.kind = KIND_NUMBER;
        u.exponent = 1 - bias(format) + (int)(63 - format->fraction_bits) - (int)leading_zeros;
        u.significand = fraction << leading_zeros;
    } else {
        u.kind = KIND_ZERO;
        u.exponent = zero_exponent;
    }
    return u;
}

static bool is_nan(struct unpacked u)
{
    return u.kind >= KIND_QUIET_NAN;
}

/* The result of an operation with a NaN among its operands. */
static uint64_t propagate_nan(const struct fp_format *format, bool signaling, unsigned *flags)
{
    if (signaling)
        *flags |= FP_NV;
    return fp_canonical_nan(format);
}

/* Bits shifted out stay visible as a one in the lowest bit. */
static uint128 shift_right_sticky(uint128 value, unsigned distance)
{
    if (distance == 0)
        return value;
    if (distance > 127)
        return value != 0;
    return value >> distance | (value << (128 - distance) != 0);
}

static uint64_t squeeze(uint128 value)
{
    return (uint64_t)(value >> 64) | ((uint64_t)value != 0);
}

/* Whether a magnitude with lowest kept bit `odd` and discarded part `rest`, out of 2 * half, goes
 * up. */
static bool rounds_up(unsigned rm, bool sign, bool odd, uint64_t rest, uint64_t half)
{
    switch (rm) {
    case FP_RNE:
        return rest > half || (rest == half && odd);
    case FP_RDN:
        return sign && rest != 0;
    case FP_RUP:
        return !sign && rest != 0;
    case FP_RMM:
        return rest >= half;
    default:
        return false;
    }
}

/* significand / 2^63 * 2^exponent with the leading one in bit 63; bit 0 may be sticky. */
static uint64_t round_and_pack(const struct fp_format *format, bool sign, int exponent,
                               uint64_t significand, unsigned rm, unsigned *flags)
{
    unsigned drop = 63 - format->fraction_bits;
    uint64_t half = 1ULL << (drop - 1);
    uint64_t drop_mask = 2 * half - 1;
    int biased = exponent + bias(format);
    bool tiny = false;

    if (biased <= 0) {
        /* Tininess after rounding: with an unbounded exponent, only a value just below the
         * smallest normal number can still become it (carry out of an all-ones significand). */
        tiny = biased < 0 || significand < ~drop_mask ||
               !rounds_up(rm, sign, true, significand & drop_mask, half);
        significand = squeeze(shift_right_sticky((uint128)significand << 64, 1 - biased));
        biased = 1;
    }

    uint64_t rest = significand & drop_mask;
    uint64_t kept = significand >> drop;
    kept += rounds_up(rm, sign, kept & 1, rest, half);
    if (rest != 0)
        *flags |= tiny ? FP_NX | FP_UF : FP_NX;

    /* The hidden bit adds one to the exponent field; a subnormal does not have it, and a carry out
     * of the fraction moves up by itself. */
    if (biased < 1 << format->exponent_bits) {
        uint64_t magnitude = ((uint64_t)(biased - 1) << format->fraction_bits) + kept;
        if (magnitude < infinity_magnitude(format))
            return signed_bits(format, sign, magnitude);
    }
    *flags |= FP_OF | FP_NX;
    bool to_infinity = rounds_up(rm, sign, true, drop_mask, half);
    return signed_bits(format, sign, infinity_magnitude(format) - !to_infinity);
}

static struct wide widen(struct unpacked u)
{
    return (struct wide){u.sign, u.exponent, (uint128)u.significand << 63};
}

static struct wide multiply(struct unpacked a, struct unpacked b)
{
    struct wide product = {.sign = a.sign ^ b.sign, .exponent = zero_exponent};

    if (a.kind == KIND_NUMBER && b.kind == KIND_NUMBER) {
        /* At most 2 * 53 bits are significant, so the shift loses nothing. */
        uint128 significand = (uint128)a.significand * b.significand;
        unsigned carry = (unsigned)(significand >> 127);
        product.significand = significand >> carry;
        product.exponent = a.exponent + b.exponent + (int)carry;
    }
    return product;
}

static uint64_t round_wide(const struct fp_format *format, bool sign, int exponent,
                           uint128 significand, unsigned rm, unsigned *flags)
{
    uint64_t high = (uint64_t)(significand >> 64);
    unsigned leading_zeros =
        high != 0 ? __builtin_clzll(high) : 64 + __builtin_clzll((uint64_t)significand);
    return round_and_pack(format, sign, exponent + 1 - (int)leading_zeros,
                          squeeze(significand << leading_zeros), rm, flags);
}

/* The sticky bit of the smaller operand does no harm to a difference: a shift of more than one
 * place leaves at most one leading zero, and a shift by one place is exact. */
static uint64_t add_wide(const struct fp_format *format, struct wide a, struct wide b, unsigned rm,
                         unsigned *flags)
{
    if (a.exponent < b.exponent || (a.exponent == b.exponent && a.significand < b.significand)) {
        struct wide swapped = a;
        a = b;
        b = swapped;
    }
    b.significand = shift_right_sticky(b.significand, a.exponent - b.exponent);

    bool same_sign = a.sign == b.sign;
    uint128 sum = same_sign ? a.significand + b.significand : a.significand - b.significand;
    if (sum == 0)
        return signed_bits(format, same_sign ? a.sign : rm == FP_RDN, 0);
    return round_wide(format, a.sign, a.exponent, sum, rm, flags);
}

static uint64_t add(const struct fp_format *format, struct unpacked a, struct unpacked b,
                    unsigned rm, unsigned *flags)
{
    if (is_nan(a) || is_nan(b))
        return propagate_nan(format, a.kind == KIND_SIGNALING_NAN || b.kind == KIND_SIGNALING_NAN,
                             flags);
    if (a.kind == KIND_INFINITY && b.kind == KIND_INFINITY && a.sign != b.sign)
        return invalid(format, flags);
    if (a.kind == KIND_INFINITY || b.kind == KIND_INFINITY)
        return infinity_bits(format, a.kind == KIND_INFINITY ? a.sign : b.sign);
    return add_wide(format, widen(a), widen(b), rm, flags);
}

uint64_t fp_add(const struct fp_format *format, uint64_t a, uint64_t b, unsigned rm,
                unsigned *flags)
{
    return add(format, unpack(format, a), unpack(format, b), rm, flags);
}

uint64_t fp_sub(const struct fp_format *format, uint64_t a, uint64_t b, unsigned rm,
                unsigned *flags)
{
    return add(format, unpack(format, a), unpack(format, b ^ fp_sign_mask(format)), rm, flags);
}

uint64_t fp_mul(const struct fp_format *format, uint64_t a_bits, uint64_t b_bits, unsigned rm,
                unsigned *flags)
{
    struct unpacked a = unpack(format, a_bits);
    struct unpacked b = unpack(format, b_bits);

    if (is_nan(a) || is_nan(b))
        return propagate_nan(format, a.kind == KIND_SIGNALING_NAN || b.kind == KIND_SIGNALING_NAN,
                             flags);
    if (a.kind == KIND_INFINITY || b.kind == KIND_INFINITY) {
        if (a.kind == KIND_ZERO || b.kind == KIND_ZERO)
            return invalid(format, flags);
        return infinity_bits(format, a.sign ^ b.sign);
    }

    struct wide product = multiply(a, b);
    if (product.significand == 0)
        return signed_bits(format, product.sign, 0);
    return round_wide(format, product.sign, product.exponent, product.significand, rm, flags);
}

uint64_t fp_fma(const struct fp_format *format, uint64_t a_bits, uint64_t b_bits, uint64_t c_bits,
                unsigned rm, unsigned *flags)
{
    struct unpacked a = unpack(format, a_bits);
    struct unpacked b = unpack(format, b_bits);
    struct unpacked c = unpack(format, c_bits);
    bool infinite_product = a.kind == KIND_INFINITY || b.kind == KIND_INFINITY;

    if (is_nan(a) || is_nan(b))
        return propagate_nan(format,
                             a.kind == KIND_SIGNALING_NAN || b.kind == KIND_SIGNALING_NAN ||
                                 c.kind == KIND_SIGNALING_NAN,
                             flags);
    if (infinite_product && (a.kind == KIND_ZERO || b.kind == KIND_ZERO))
        return invalid(format, flags);
    if (is_nan(c))
        return propagate_nan(format, c.kind == KIND_SIGNALING_NAN, flags);
    if (infinite_product) {
        bool sign = a.sign ^ b.sign;
        if (c.kind == KIND_INFINITY && c.sign != sign)
            return invalid(format, flags);
        return infinity_bits(format, sign);
    }
    if (c.kind == KIND_INFINITY)
        return infinity_bits(format, c.sign);
    return add_wide(format, multiply(a, b), widen(c), rm, flags);
}

uint64_t fp_div(const struct fp_format *format, uint64_t a_bits, uint64_t b_bits, unsigned rm,
                unsigned *flags)
{
    struct unpacked a = unpack(format, a_bits);
    struct unpacked b = unpack(format, b_bits);
    bool sign = a.sign ^ b.sign;

    if (is_nan(a) || is_nan(b))
        return propagate_nan(format, a.kind == KIND_SIGNALING_NAN || b.kind == KIND_SIGNALING_NAN,
                             flags);
    if (a.kind == b.kind && a.kind != KIND_NUMBER)
        return invalid(format, flags);
    if (a.kind == KIND_INFINITY)
        return infinity_bits(format, sign);
    if (a.kind == KIND_ZERO || b.kind == KIND_INFINITY)
        return signed_bits(format, sign, 0);
    if (b.kind == KIND_ZERO) {
        *flags |= FP_DZ;
        return infinity_bits(format, sign);
    }

    /* Scaled so that the quotient's leading one is in bit 63. */
    bool borrow = a.significand < b.significand;
    uint128 dividend = (uint128)a.significand << (63 + borrow);
    uint64_t quotient = (uint64_t)(dividend / b.significand);
    bool exact = (uint128)quotient * b.significand == dividend;
    return round_and_pack(format, sign, a.exponent - b.exponent - borrow, quotient | !exact, rm,
                          flags);
}

/* The root of a value of 63 or 64 bits, bit by bit. */
static uint64_t root_of_word(uint64_t value, uint64_t *remainder)
{
    uint64_t result = 0;

    for (uint64_t bit = 1ULL << 62; bit != 0; bit >>= 2) {
        bool fits = value >= result + bit;
        value -= fits ? result + bit : 0;
        result = result / 2 + (fits ? bit : 0);
    }
    *remainder = value;
    return result;
}

/* The root of a value in [2^126, 2^128), bit 0 sticky. Zimmermann's Karatsuba square root (INRIA
 * report 3805): the root of the upper half and one division give the lower half, at most one too
 * large. */
static uint64_t root(uint128 value)
{
    uint64_t remainder;
    uint64_t high = root_of_word((uint64_t)(value >> 64), &remainder);
    uint128 rest = (uint128)remainder << 32 | (uint32_t)(value >> 32);
    uint64_t low = (uint64_t)(rest / (2 * high));
    uint128 result = ((uint128)high << 32) + low;

    rest = (rest - (uint128)low * 2 * high) << 32 | (uint32_t)value;
    if (rest < (uint128)low * low)
        result--;
    return (uint64_t)result | (rest != (uint128)low * low);
}

uint64_t fp_sqrt(const struct fp_format *format, uint64_t a_bits, unsigned rm, unsigned *flags)
{
    struct unpacked a = unpack(format, a_bits);

    if (is_nan(a))
        return propagate_nan(format, a.kind == KIND_SIGNALING_NAN, flags);
    if (a.kind == KIND_ZERO)
        return a_bits;
    if (a.sign)
        return invalid(format, flags);
    if (a.kind == KIND_INFINITY)
        return a_bits;

    unsigned odd = a.exponent & 1;
    uint64_t result = root((uint128)a.significand << (63 + odd));
    return round_and_pack(format, false, (a.exponent - (int)odd) / 2, result, rm, flags);
}

/* Numbers in the order of their values; both zeros are 0. */
static int64_t ordinal(const struct fp_format *format, uint64_t a)
{
    int64_t magnitude = (int64_t)(a & (fp_sign_mask(format) - 1));
    return a & fp_sign_mask(format) ? -magnitude : magnitude;
}

static bool nan_bits(const struct fp_format *format, uint64_t a)
{
    return (a & (fp_sign_mask(format) - 1)) > infinity_magnitude(format);
}

static bool signaling_bits(const struct fp_format *format, uint64_t a)
{
    return nan_bits(format, a) && !(a >> (format->fraction_bits - 1) & 1);
}

/* True when one is a NaN; raises NV for a signaling one, or for every one. */
static bool unordered(const struct fp_format *format, uint64_t a, uint64_t b, bool quiet,
                      unsigned *flags)
{
    if (!nan_bits(format, a) && !nan_bits(format, b))
        return false;
    if (!quiet || signaling_bits(format, a) || signaling_bits(format, b))
        *flags |= FP_NV;
    return true;
}

uint64_t fp_min(const struct fp_format *format, uint64_t a, uint64_t b, unsigned *flags)
{
    if (unordered(format, a, b, true, flags))
        return !nan_bits(format, a) ? a : !nan_bits(format, b) ? b : fp_canonical_nan(format);
    int64_t a_ordinal = ordinal(format, a);
    int64_t b_ordinal = ordinal(format, b);
    /* Equal numbers differ at most in the sign of zero. */
    return a_ordinal < b_ordinal ? a : a_ordinal > b_ordinal ? b : a | b;
}

uint64_t fp_max(const struct fp_format *format, uint64_t a, uint64_t b, unsigned *flags)
{
    uint64_t sign = fp_sign_mask(format);
    uint64_t result = fp_min(format, a ^ sign, b ^ sign, flags);
    return nan_bits(format, result) ? result : result ^ sign;
}

bool fp_eq(const struct fp_format *format, uint64_t a, uint64_t b, unsigned *flags)
{
    return !unordered(format, a, b, true, flags) && ordinal(format, a) == ordinal(format, b);
}

bool fp_lt(const struct fp_format *format, uint64_t a, uint64_t b, unsigned *flags)
{
    return !unordered(format, a, b, false, flags) && ordinal(format, a) < ordinal(format, b);
}

bool fp_le(const struct fp_format *format, uint64_t a, uint64_t b, unsigned *flags)
{
    return !unordered(format, a, b, false, flags) && ordinal(format, a) <= ordinal(format, b);
}

unsigned fp_classify(const struct fp_format *format, uint64_t a)
{
    uint64_t magnitude = a & (fp_sign_mask(format) - 1);
    bool sign = a & fp_sign_mask(format);

    if (magnitude > infinity_magnitude(format))
        return signaling_bits(format, a) ? 1 << 8 : 1 << 9;
    if (magnitude == infinity_magnitude(format))
        return sign ? 1 << 0 : 1 << 7;
    if (magnitude > fraction_mask(format))
        return sign ? 1 << 1 : 1 << 6;
    if (magnitude != 0)
        return sign ? 1 << 2 : 1 << 5;
    return sign ? 1 << 3 : 1 << 4;
}

uint64_t fp_convert(const struct fp_format *to, const struct fp_format *from, uint64_t a_bits,
                    unsigned rm, unsigned *flags)
{
    struct unpacked a = unpack(from, a_bits);

    if (is_nan(a))
        return propagate_nan(to, a.kind == KIND_SIGNALING_NAN, flags);
    if (a.kind == KIND_INFINITY)
        return infinity_bits(to, a.sign);
    if (a.kind == KIND_ZERO)
        return signed_bits(to, a.sign, 0);
    return round_and_pack(to, a.sign, a.exponent, a.significand, rm, flags);
}

/* Rounds to a magnitude; a value of 2^64 or more has overflowed. */
static uint64_t round_to_magnitude(struct unpacked a, unsigned rm, bool *inexact, bool *overflow)
{
    if (a.exponent > 63) {
        *overflow = true;
        return 0;
    }
    /* Whole part in the high half, fraction in the low half. The carry of rounding cannot wrap:
     * no format has 64 significant bits. */
    uint128 fixed = shift_right_sticky((uint128)a.significand << 64, 63 - a.exponent);
    uint64_t whole = (uint64_t)(fixed >> 64);
    uint64_t rest = (uint64_t)fixed;
    *inexact = rest != 0;
    return whole + rounds_up(rm, a.sign, whole & 1, rest, 1ULL << 63);
}

uint64_t fp_to_int(const struct fp_format *format, uint64_t a_bits, unsigned width, bool is_signed,
                   unsigned rm, unsigned *flags)
{
    struct unpacked a = unpack(format, a_bits);
    uint64_t largest = UINT64_MAX >> (64 - width + is_signed);
    uint64_t largest_negative = is_signed ? largest + 1 : 0;
    uint64_t value;
    bool negative = a.sign && !is_nan(a);

    bool inexact = false;
    bool overflow = a.kind >= KIND_INFINITY;
    uint64_t magnitude = a.kind == KIND_NUMBER ? round_to_magnitude(a, rm, &inexact, &overflow) : 0;
    uint64_t limit = negative ? largest_negative : largest;
    if (overflow || magnitude > limit) {
        *flags |= FP_NV;
        magnitude = limit;
    } else if (inexact) {
        *flags |= FP_NX;
    }
    value = negative ? -magnitude : magnitude;
    return width == 32 ? (uint64_t)(int32_t)value : value;
}

static uint64_t from_magnitude(const struct fp_format *format, bool sign, uint64_t magnitude,
                               unsigned rm, unsigned *flags)
{
    if (magnitude == 0)
        return 0;
    unsigned leading_zeros = __builtin_clzll(magnitude);
    return round_and_pack(format, sign, 63 - (int)leading_zeros, magnitude << leading_zeros, rm,
                          flags);
}

uint64_t fp_from_int64(const struct fp_format *format, int64_t value, unsigned rm, unsigned *flags)
{
    bool sign = value < 0;
    return from_magnitude(format, sign, sign ? -(uint64_t)value : (uint64_t)value, rm, flags);
}

uint64_t fp_from_uint64(const struct fp_format *format, uint64_t value, unsigned rm,
                        unsigned *flags)
{
    return from_magnitude(format, false, value, rm, flags);
}
