/*
 * Four harts that take turns: each holds the lock for one increment of its own counter. They do so
 * for ever, unless a debugger sets `limit`. With IDLE the harts but the first sleep in wfi, and
 * wake by a software interrupt for one increment.
 */
#include "program.h"

#define HARTS 4

volatile uint64_t limit = UINT64_MAX;
volatile unsigned lock;
volatile unsigned holder;
volatile uint64_t counters[HARTS];
volatile uint64_t turns;
volatile unsigned ring;
volatile unsigned asleep;

uint64_t trap(uint64_t cause, uint64_t pc)
{
    (void)cause;
    (void)pc;
    finish(71);
}

OWN_FRAME void acquire(void)
{
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
        ;
}

OWN_FRAME void release(void)
{
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
}

OWN_FRAME void take_turn(unsigned hart)
{
    acquire();
    holder = hart; /* line: holder */
    counters[hart]++;
    turns++;
    release();
}

OWN_FRAME void spin(unsigned hart)
{
    while (turns < limit)
        take_turn(hart); /* line: spin */
}

OWN_FRAME void sleep(unsigned hart)
{
    __asm__ volatile("csrs mie, %0" : : "r"(1 << 3));
    __atomic_fetch_add(&asleep, 1, __ATOMIC_RELEASE);
    for (;;) {
        __asm__ volatile("wfi"); /* line: wfi */
        if (MSIP[hart]) {
            MSIP[hart] = 0;
            take_turn(hart);
        }
    }
}

OWN_FRAME void call_others(void)
{
    while (turns < limit) {
        take_turn(0);
        unsigned hart = ring; /* line: ring */
        if (hart) {
            ring = 0;
            MSIP[hart] = 1;
        }
    }
}

void hart_start(unsigned hart)
{
#ifdef IDLE
    if (hart)
        sleep(hart);
    while (asleep < HARTS - 1)
        ;
    call_others();
#else
    spin(hart);
#endif
}

int main(unsigned hart)
{
    hart_start(hart);
    if (hart == 0)
        finish(0);
    for (;;)
        __asm__ volatile("wfi");
}
