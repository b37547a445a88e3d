/* Bit fields, alignment, and little-endian access to bytes that may be unaligned. */
#pragma once

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define BIT(n)        (UINT64_C(1) << (n))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(pointer, type, member)                                                        \
    ((type *)((char *)(pointer) - __builtin_offsetof(type, member)))

/* Bits [low, low + width) of value, right-aligned. width is 1..64. */
static inline uint64_t bits_get(uint64_t value, unsigned low, unsigned width)
{
    return (value >> low) & (~UINT64_C(0) >> (64 - width));
}

/* value with bits [low, low + width) replaced by those of field. */
static inline uint64_t bits_set(uint64_t value, unsigned low, unsigned width, uint64_t field)
{
    uint64_t mask = (~UINT64_C(0) >> (64 - width)) << low;
    return (value & ~mask) | ((field << low) & mask);
}

/* The low `width` bits of value, sign-extended. width is 1..64. */
static inline int64_t sign_extend(uint64_t value, unsigned width)
{
    return (int64_t)(value << (64 - width)) >> (64 - width);
}

/* All ones in the low `size` bytes; size is 1..8. */
static inline uint64_t size_mask(unsigned size)
{
    return ~UINT64_C(0) >> (64 - 8 * size);
}

static inline uint64_t align_down(uint64_t value, uint64_t alignment)
{
    return value & ~(alignment - 1);
}

static inline uint64_t align_up(uint64_t value, uint64_t alignment)
{
    return (value + alignment - 1) & ~(alignment - 1);
}

static inline bool is_power_of_two(uint64_t value)
{
    return value && !(value & (value - 1));
}

/* True if [start, start + size) lies within [0, limit), without overflow. */
static inline bool range_fits(uint64_t start, uint64_t size, uint64_t limit)
{
    return size <= limit && start <= limit - size;
}

static inline uint16_t load_le16(const void *p)
{
    uint16_t value;
    memcpy(&value, p, sizeof(value));
    return le16toh(value);
}

static inline uint32_t load_le32(const void *p)
{
    uint32_t value;
    memcpy(&value, p, sizeof(value));
    return le32toh(value);
}

static inline uint64_t load_le64(const void *p)
{
    uint64_t value;
    memcpy(&value, p, sizeof(value));
    return le64toh(value);
}

static inline void store_le16(void *p, uint16_t value)
{
    value = htole16(value);
    memcpy(p, &value, sizeof(value));
}

static inline void store_le32(void *p, uint32_t value)
{
    value = htole32(value);
    memcpy(p, &value, sizeof(value));
}

static inline void store_le64(void *p, uint64_t value)
{
    value = htole64(value);
    memcpy(p, &value, sizeof(value));
}

/* Little-endian value of `size` (1, 2, 4 or 8) bytes; how registers held as bytes are accessed. */
static inline uint64_t load_le(const void *p, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, p, size);
    return le64toh(value);
}

static inline void store_le(void *p, uint64_t value, unsigned size)
{
    value = htole64(value);
    memcpy(p, &value, size);
}
