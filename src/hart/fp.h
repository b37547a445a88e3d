/*
 * Floating-point arithmetic in software, exact as IEEE 754-2008 and the RISC-V unprivileged
 * specification (chapters F, D, Zfh) ask. Integer arithmetic only: no host FPU, no <fenv.h>.
 *
 * Operands and results are the raw bits of the format in the low bits of a uint64_t, upper bits
 * zero: NaN boxing is the caller's. Every NaN result is the format's canonical NaN. `flags` points
 * to an accumulated fflags value: functions only OR bits in. All functions are pure apart from
 * `*flags`, so any thread may call them.
 */
#ifndef HART_FP_H
#define HART_FP_H

#include <stdbool.h>
#include <stdint.h>

/* A binary interchange format; total width = 1 + exponent_bits + fraction_bits, at most 64 bits,
 * and at most 52 fraction bits. */
struct fp_format {
    unsigned exponent_bits;
    unsigned fraction_bits; /* without the hidden bit */
};

extern const struct fp_format fp_half;   /* binary16: H */
extern const struct fp_format fp_single; /* binary32: S */
extern const struct fp_format fp_double; /* binary64: D */

/* The encodings of frm. The caller resolves DYN (7) and traps on 5 and 6 before it calls. */
enum fp_rounding {
    FP_RNE = 0, /* to nearest, ties to even */
    FP_RTZ = 1, /* towards zero */
    FP_RDN = 2, /* down */
    FP_RUP = 3, /* up */
    FP_RMM = 4, /* to nearest, ties away from zero */
};

/* The bits of fflags. */
enum fp_flag {
    FP_NX = 1 << 0, /* inexact */
    FP_UF = 1 << 1, /* underflow; tininess is detected after rounding */
    FP_OF = 1 << 2, /* overflow */
    FP_DZ = 1 << 3, /* divide by zero */
    FP_NV = 1 << 4, /* invalid operation */
};

/* The sign bit alone, for sign injection and for negating an operand. */
static inline uint64_t fp_sign_mask(const struct fp_format *format)
{
    return 1ULL << (format->exponent_bits + format->fraction_bits);
}

/* The canonical NaN: positive, quiet, no payload. */
static inline uint64_t fp_canonical_nan(const struct fp_format *format)
{
    return ((2ULL << format->exponent_bits) - 1) << (format->fraction_bits - 1);
}

uint64_t fp_add(const struct fp_format *format, uint64_t a, uint64_t b, unsigned rm,
                unsigned *flags);
uint64_t fp_sub(const struct fp_format *format, uint64_t a, uint64_t b, unsigned rm,
                unsigned *flags);
uint64_t fp_mul(const struct fp_format *format, uint64_t a, uint64_t b, unsigned rm,
                unsigned *flags);
uint64_t fp_div(const struct fp_format *format, uint64_t a, uint64_t b, unsigned rm,
                unsigned *flags);
uint64_t fp_sqrt(const struct fp_format *format, uint64_t a, unsigned rm, unsigned *flags);

/* a * b + c, rounded once. FMSUB, FNMSUB and FNMADD negate operands with fp_sign_mask() first:
 * (a, b, -c), (-a, b, c) and (-a, b, -c). infinity * 0 + NaN raises NV. */
uint64_t fp_fma(const struct fp_format *format, uint64_t a, uint64_t b, uint64_t c, unsigned rm,
                unsigned *flags);

/* minimumNumber and maximumNumber of IEEE 754-2019: -0 < +0, a NaN loses against a number, two
 * NaNs give the canonical NaN, a signaling NaN raises NV. */
uint64_t fp_min(const struct fp_format *format, uint64_t a, uint64_t b, unsigned *flags);
uint64_t fp_max(const struct fp_format *format, uint64_t a, uint64_t b, unsigned *flags);

/* Comparisons are false when an operand is a NaN. FEQ is quiet (NV for signaling NaNs only), FLT
 * and FLE raise NV for every NaN. */
bool fp_eq(const struct fp_format *format, uint64_t a, uint64_t b, unsigned *flags);
bool fp_lt(const struct fp_format *format, uint64_t a, uint64_t b, unsigned *flags);
bool fp_le(const struct fp_format *format, uint64_t a, uint64_t b, unsigned *flags);

/* The one-hot result of FCLASS: bit 0 -inf, 1 -normal, 2 -subnormal, 3 -0, 4 +0, 5 +subnormal,
 * 6 +normal, 7 +inf, 8 signaling NaN, 9 quiet NaN. */
unsigned fp_classify(const struct fp_format *format, uint64_t a);

/* From one format to another (FCVT.S.D and so on). */
uint64_t fp_convert(const struct fp_format *to, const struct fp_format *from, uint64_t a,
                    unsigned rm, unsigned *flags);

/* To an integer of `width` (32 or 64) bits. Out of range saturates and raises NV alone; a NaN
 * gives the largest value. A 32-bit result comes sign-extended to 64 bits, the unsigned ones too,
 * as FCVT.W and FCVT.WU write it to a register. */
uint64_t fp_to_int(const struct fp_format *format, uint64_t a, unsigned width, bool is_signed,
                   unsigned rm, unsigned *flags);

/* From an integer. Callers extend 32-bit sources to 64 bits, by sign or by zeros. */
uint64_t fp_from_int64(const struct fp_format *format, int64_t value, unsigned rm, unsigned *flags);
uint64_t fp_from_uint64(const struct fp_format *format, uint64_t value, unsigned rm,
                        unsigned *flags);

#endif
