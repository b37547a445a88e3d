/*
 * Backtraces of a guest.
 *
 * Each caller is found by call frame information (.eh_frame, .debug_frame) where a file of the
 * symbols has it, by frame pointers (s0) otherwise, and by ra for an innermost function that has no
 * frame. Exception frames of Linux (pt_regs) are gone through into the kernel code that was
 * interrupted, where the symbols of the kernel are known.
 *
 * What is read from the guest is not trusted: the number of frames is bounded, the stack must go
 * upward, and a read that fails ends the backtrace.
 *
 * Threads: a struct unwinder is used by one thread at a time; several may share their symbols.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct symbols;

struct unwind_registers {
    uint64_t pc;
    uint64_t x[32];
};

/* Copies guest memory; false if any of it cannot be read. */
typedef bool unwind_read(void *opaque, uint64_t va, void *buffer, size_t size);

enum unwind_method {
    UNWIND_START,         /* the frame that the registers are of */
    UNWIND_CFI,           /* by call frame information of the frame before (inside) it */
    UNWIND_FRAME_POINTER, /* by s0 */
    UNWIND_RA,            /* by ra */
    UNWIND_EXCEPTION,     /* it was interrupted: by a frame of signals in CFI, or by pt_regs */
};

struct unwind_frame {
    uint64_t pc;
    uint64_t sp;               /* 0: not known */
    bool after_call;           /* pc is where a call returns to, not what runs */
    enum unwind_method method; /* how it was found */
};

#define UNWIND_FRAMES_MAX 256

struct unwinder;

/* After the last symbols_add. symbols, which stays the caller's, may be NULL. */
struct unwinder *unwind_create(struct symbols *symbols);
void unwind_destroy(struct unwinder *unwinder); /* accepts NULL */

/*
 * Fills at most `max` frames, innermost first, and returns how many there are: at least one, if
 * max is not 0.
 */
size_t unwind_backtrace(struct unwinder *unwinder, const struct unwind_registers *registers,
                        unwind_read *read, void *opaque, struct unwind_frame *frames, size_t max);

/*
 * The registers as they are in the caller of a frame, for debuggers: *registers go in as those of
 * the frame and come out as those of its caller, with a bit set in *known for each x register whose
 * value is the caller's (*known goes in likewise, UINT32_MAX for the innermost frame). innermost:
 * pc is what runs, as in the first frame and after UNWIND_EXCEPTION, not where a call returns to.
 * Returns how the caller was found; UNWIND_START: it was not, and nothing was changed.
 */
enum unwind_method unwind_step(struct unwinder *unwinder, struct unwind_registers *registers,
                               uint32_t *known, bool innermost, unwind_read *read, void *opaque);
