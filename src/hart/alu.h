/* Integer operations that have no operator in C. */
#pragma once

#include <stdint.h>

/* Division: by zero and overflow have results, not traps (Unprivileged, "Division Operations"). */
static inline int64_t alu_div(int64_t a, int64_t b)
{
    return b == 0 ? -1 : a == INT64_MIN && b == -1 ? a : a / b;
}

static inline int64_t alu_rem(int64_t a, int64_t b)
{
    return b == 0 ? a : b == -1 ? 0 : a % b;
}

static inline uint64_t alu_divu(uint64_t a, uint64_t b)
{
    return b == 0 ? UINT64_MAX : a / b;
}

static inline uint64_t alu_remu(uint64_t a, uint64_t b)
{
    return b == 0 ? a : a % b;
}

static inline int32_t alu_divw(int32_t a, int32_t b)
{
    return b == 0 ? -1 : a == INT32_MIN && b == -1 ? a : a / b;
}

static inline int32_t alu_remw(int32_t a, int32_t b)
{
    return b == 0 ? a : b == -1 ? 0 : a % b;
}

static inline uint32_t alu_divuw(uint32_t a, uint32_t b)
{
    return b == 0 ? UINT32_MAX : a / b;
}

static inline uint32_t alu_remuw(uint32_t a, uint32_t b)
{
    return b == 0 ? a : a % b;
}

static inline uint64_t alu_mulh(uint64_t a, uint64_t b)
{
    return (uint64_t)(((__int128)(int64_t)a * (int64_t)b) >> 64);
}

static inline uint64_t alu_mulhu(uint64_t a, uint64_t b)
{
    return (uint64_t)(((unsigned __int128)a * b) >> 64);
}

static inline uint64_t alu_mulhsu(uint64_t a, uint64_t b)
{
    return (uint64_t)(((__int128)(int64_t)a * (__int128)(unsigned __int128)b) >> 64);
}

static inline uint64_t alu_rol(uint64_t a, unsigned n)
{
    return a << (n & 63) | a >> (-n & 63);
}

static inline uint64_t alu_ror(uint64_t a, unsigned n)
{
    return a >> (n & 63) | a << (-n & 63);
}

static inline int32_t alu_rolw(uint32_t a, unsigned n)
{
    return (int32_t)(a << (n & 31) | a >> (-n & 31));
}

static inline int32_t alu_rorw(uint32_t a, unsigned n)
{
    return (int32_t)(a >> (n & 31) | a << (-n & 31));
}

static inline uint64_t alu_clz(uint64_t a)
{
    return a ? (uint64_t)__builtin_clzll(a) : 64;
}

static inline uint64_t alu_ctz(uint64_t a)
{
    return a ? (uint64_t)__builtin_ctzll(a) : 64;
}

static inline uint64_t alu_clzw(uint32_t a)
{
    return a ? (uint64_t)__builtin_clz(a) : 32;
}

static inline uint64_t alu_ctzw(uint32_t a)
{
    return a ? (uint64_t)__builtin_ctz(a) : 32;
}

/* Each byte becomes all ones if any of its bits is set. */
static inline uint64_t alu_orc_b(uint64_t a)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    a |= a >> 4 & 0x0f * ones;
    a |= a >> 2 & 0x3f * ones;
    a |= a >> 1 & 0x7f * ones;
    return (a & ones) * 0xff;
}

/* The bits of each byte in reverse order. */
static inline uint64_t alu_brev8(uint64_t a)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    a = (a >> 4 & 0x0f * ones) | (a & 0x0f * ones) << 4;
    a = (a >> 2 & 0x33 * ones) | (a & 0x33 * ones) << 2;
    return (a >> 1 & 0x55 * ones) | (a & 0x55 * ones) << 1;
}

static inline unsigned __int128 alu_clmul_wide(uint64_t a, uint64_t b)
{
    unsigned __int128 product = 0;
    for (; b; b &= b - 1)
        product ^= (unsigned __int128)a << __builtin_ctzll(b);
    return product;
}

static inline uint64_t alu_clmul(uint64_t a, uint64_t b)
{
    return (uint64_t)alu_clmul_wide(a, b);
}

static inline uint64_t alu_clmulh(uint64_t a, uint64_t b)
{
    return (uint64_t)(alu_clmul_wide(a, b) >> 64);
}

static inline uint64_t alu_clmulr(uint64_t a, uint64_t b)
{
    return (uint64_t)(alu_clmul_wide(a, b) >> 63);
}

/* Each nibble or byte of `indices` chooses one of `table`, or zero if it is out of range. */
static inline uint64_t alu_xperm4(uint64_t table, uint64_t indices)
{
    uint64_t result = 0;
    for (unsigned i = 0; i < 64; i += 4)
        result |= (table >> 4 * (indices >> i & 15) & 15) << i;
    return result;
}

static inline uint64_t alu_xperm8(uint64_t table, uint64_t indices)
{
    uint64_t result = 0;
    for (unsigned i = 0; i < 64; i += 8) {
        unsigned index = indices >> i & 255;
        if (index < 8)
            result |= (table >> 8 * index & 255) << i;
    }
    return result;
}
