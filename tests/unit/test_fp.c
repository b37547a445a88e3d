/*
 * The arithmetic of the software floating point against the host's (binary32 and binary64), and
 * against wider arithmetic (binary16, RMM).
 */
#include "fp_reference.h"

enum operation { OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_SQRT, OP_FMA, OP_COUNT };

static const char *const operation_names[] = {"add", "sub", "mul", "div", "sqrt", "fma"};

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
        cmocka_unit_test(flags_accumulate),
    };

    random_state = seed != NULL ? strtoull(seed, NULL, 0) : 1;
    detect_host_tininess();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
