/* Crashes four calls deep, one of which is inlined. The line numbers are in test_symbols.c. */
#define NOINLINE __attribute__((noinline))

NOINLINE static void fail(volatile int *where)
{
    *where = 1; /* line 6 */
    __asm__ volatile("" ::: "memory");
}

static inline __attribute__((always_inline)) void inlined(volatile int *where)
{
    __asm__ volatile("" ::: "memory");
    fail(where); /* line 13 */
    __asm__ volatile("" ::: "memory");
}

NOINLINE static int outer(int n)
{
    volatile char room[64];
    room[n] = 1;
    inlined((volatile int *)0x40); /* line 21 */
    return room[n];
}

int main(void)
{
    int value = outer(3); /* line 27 */
    __asm__ volatile("" ::: "memory");
    return value + 1;
}
