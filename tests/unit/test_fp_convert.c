/*
 * Conversions, comparisons and classes of the software floating point, against the host's and
 * against wider arithmetic.
 */
#include "fp_reference.h"

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

int main(void)
{
    const char *seed = getenv("SEED");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_from_numbers), cmocka_unit_test(numbers_from_integers),
        cmocka_unit_test(formats_convert),       cmocka_unit_test(numbers_compare),
        cmocka_unit_test(numbers_classify),
    };

    random_state = seed != NULL ? strtoull(seed, NULL, 0) : 1;
    detect_host_tininess();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
