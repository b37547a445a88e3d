/* One hart with something of everything that a debugger looks at. It does `rounds` rounds of work
 * and passes. */
#include "program.h"

enum colour { RED, GREEN = 5, BLUE };

struct point {
    int x, y;
    const char *name;
    double weight;
    enum colour colour;
};

volatile uint8_t byte_value = 0x11;
volatile uint16_t half_value = 0x2222;
volatile uint32_t word_value = 0x33333333;
volatile uint64_t doubleword_value = 0x4444444444444444;

/* `watched` and `neighbour` share a page, and a doubleword stands between them. */
_Alignas(64) volatile uint64_t watched = 100;
volatile uint64_t between;
volatile uint64_t neighbour = 200;

volatile unsigned rounds = 1;
volatile unsigned counter;
volatile unsigned traps;
volatile uint64_t last_cause;
volatile double average;
struct point point = {3, -4, "corner", 0.5, GREEN};
char buffer[64];
const char text[] = "a needle in the haystack";

uint64_t trap(uint64_t cause, uint64_t pc)
{
    traps++;
    last_cause = cause;
    if (cause != 11) /* an ecall from M-mode */
        finish(70);
    return pc + 4;
}

OWN_FRAME int inner(int value)
{
    int doubled = value * 2; /* line: inner */
    return doubled + 1;
}

OWN_FRAME int middle(int value)
{
    int result = inner(value + 1); /* line: middle */
    return result * 3;             /* line: after inner */
}

OWN_FRAME int outer(int value)
{
    int result = middle(value + 10); /* line: outer */
    return result - 1;               /* line: after middle */
}

OWN_FRAME unsigned factorial(unsigned n)
{
    if (n <= 1)
        return 1; /* line: bottom */
    return n * factorial(n - 1);
}

OWN_FRAME void copy(void *to, const void *from, size_t size)
{
    volatile char *out = to;
    const char *in = from;
    while (size--)
        *out++ = *in++; /* line: copy */
}

OWN_FRAME double mean(const double *values, int count)
{
    double sum = 0;
    for (int i = 0; i < count; i++)
        sum += values[i]; /* line: sum */
    return sum / count;
}

OWN_FRAME void store(unsigned value)
{
    byte_value = value; /* line: store */
    half_value = value * 2;
    word_value = value * 3;
    doubleword_value = value * 4;
    neighbour++;
    between = neighbour;
    watched += 11;
    neighbour++;
}

OWN_FRAME void count(unsigned limit)
{
    for (unsigned i = 0; i < limit; i++)
        counter++; /* line: count */
}

OWN_FRAME void write_csr(uint64_t value)
{
    __asm__ volatile("csrw mscratch, %0" : : "r"(value)); /* line: csr */
}

OWN_FRAME void environment_call(void)
{
    __asm__ volatile("ecall" : : : "memory"); /* line: ecall */
}

int main(void)
{
    static const double values[] = {1.5, 2.5, 5.0};
    for (unsigned round = 0; round < rounds; round++) {
        int result = outer(1); /* line: round */
        count(10);             /* line: after outer */
        store(round + 7);
        point.x += result;
        factorial(5);
        copy(buffer, text, sizeof text);
        average = mean(values, 3);
        write_csr(0x1234567890abcdef); /* line: after mean */
        environment_call();
    }
    finish(0); /* line: end */
}
