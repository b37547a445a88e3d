/* What the programs for debuggers share. Lines that a test stops at are marked "line: NAME", so
 * that tests need no numbers. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* A function that has a frame of its own, with optimisation too. */
#define OWN_FRAME __attribute__((noinline))

#define FINISHER ((volatile uint32_t *)0x100000)
#define MSIP     ((volatile uint32_t *)0x2000000)

/* Ends the machine with a status. */
static inline _Noreturn void finish(unsigned status)
{
    *FINISHER = status ? status << 16 | 0x3333 : 0x5555;
    for (;;)
        ;
}
