/* Scatter-gather lists. */
#pragma once

#include <stdint.h>
#include <sys/uio.h>

/* Writes bytes [skip, skip + length) of `parts` to `slice` as at most `max` entries; returns their
 * number. */
static inline unsigned iovec_slice(struct iovec *slice, unsigned max, const struct iovec *parts,
                                   unsigned count, uint64_t skip, uint64_t length)
{
    unsigned used = 0;
    for (unsigned n = 0; n < count && length && used < max; n++) {
        uint64_t size = parts[n].iov_len;
        if (skip >= size) {
            skip -= size;
            continue;
        }
        size = size - skip < length ? size - skip : length;
        slice[used++] = (struct iovec){(char *)parts[n].iov_base + skip, size};
        length -= size;
        skip = 0;
    }
    return used;
}
