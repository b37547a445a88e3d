/* Code that is written while it runs: fence.i makes it visible; instructions across pages and of
 * both lengths; branches and jumps over every distance that their encodings end at. */
#include "runtime.h"

static uint32_t text[4096] __attribute__((aligned(8192)));

enum { ECALL = 0x73, RET = 0x8067, NOP = 0x13 };

static uint32_t addi(unsigned rd, unsigned rs, int immediate)
{
    return (uint32_t)immediate << 20 | rs << 15 | rd << 7 | 0x13;
}

static void fence_code(void)
{
    __asm__ volatile("fence.i" ::: "memory");
}

static uint64_t call(void *entry)
{
    return run(MODE_M, (code *)entry, 0, 0).a0;
}

static void rewriting(void)
{
    /* The same place, again and again, at each offset around the page's end. */
    for (unsigned offset = 1020; offset < 1028; offset++)
        for (int round = 0; round < 4; round++) {
            text[offset] = addi(10, 10, round * 3 + 1);
            text[offset + 1] = addi(10, 10, round);
            text[offset + 2] = ECALL;
            fence_code();
            value(label("rewritten ", "", offset * 10 + (unsigned)round), call(&text[offset]));
        }
    /* 4-byte instructions that begin 2 bytes before the page's end. */
    uint16_t *halves = (uint16_t *)text;
    for (int round = 0; round < 4; round++) {
        uint32_t first = addi(10, 10, 100 + round), second = addi(10, 10, round);
        halves[2045] = (uint16_t)first;
        halves[2046] = first >> 16;
        halves[2047] = (uint16_t)second;
        halves[2048] = second >> 16;
        halves[2049] = ECALL;
        halves[2050] = 0;
        fence_code();
        value(label("across the page ", "", (unsigned)round), call(&halves[2045]));
        /* Only the second half, in the other page. */
        halves[2048] = addi(10, 10, round + 1000) >> 16;
        fence_code();
        value(label("second half rewritten ", "", (unsigned)round), call(&halves[2045]));
        /* Two short ones instead. */
        halves[2047] = 0x0505; /* c.addi a0, 1 */
        halves[2048] = 0x0509; /* c.addi a0, 2 */
        fence_code();
        value(label("short ones instead ", "", (unsigned)round), call(&halves[2045]));
    }
}

/* Code that patches the instruction behind its own fence.i. */
CODE(patches_itself, "auipc a2, 0\nlw a3, 20(a2)\nsw a3, 16(a2)\nfence.i\naddi a0, a0, 1\n"
                     "addi a0, a0, 64")

static void patching(void)
{
    try("patches itself", MODE_M, patches_itself, 0, 0);
    try("patched before", MODE_M, patches_itself, 0, 0);
    /* A loop whose body changes in every turn. */
    uint64_t sum = 0;
    for (int i = 0; i < 300; i++) {
        text[0] = addi(10, 10, i);
        text[1] = ECALL;
        fence_code();
        sum += call(text);
    }
    value("sum of changing code", sum);
    /* Many places, written first and called after one fence. */
    for (unsigned i = 0; i < 1024; i++) {
        text[4 * i] = addi(10, 0, (int)i);
        text[4 * i + 1] = ECALL;
    }
    fence_code();
    sum = 0;
    for (unsigned i = 0; i < 1024; i++)
        sum = sum * 3 + call(&text[4 * i]);
    value("sum of many places", sum);
}

static uint32_t jal(int offset)
{
    uint32_t o = (uint32_t)offset;
    return 0x6f | (o >> 20 & 1) << 31 | (o >> 1 & 0x3ff) << 21 | (o >> 11 & 1) << 20 |
           (o >> 12 & 0xff) << 12;
}

static uint32_t branch(unsigned funct, int offset)
{
    uint32_t o = (uint32_t)offset;
    return 0x63 | funct << 12 | (o >> 12 & 1) << 31 | (o >> 5 & 0x3f) << 25 | (o >> 1 & 15) << 8 |
           (o >> 11 & 1) << 7;
}

/* 2 MiB of RAM behind the program, for the longest jumps. */
#define FAR 0x80800000UL

static void distances(void)
{
    static const int jumps[] = {4,     8,     2048,    4094,    4096,     -4,
                                -2048, -4096, 0xffffe, 0x80000, -0x100000};
    static const int branches[] = {4, 8, 1024, 2046, 2048, 4094, -4, -1024, -2048, -4096};
    const uint64_t from = FAR + 0x100000;

    for (unsigned i = 0; i < sizeof jumps / sizeof jumps[0]; i++) {
        uint16_t *target = (uint16_t *)(from + (uint64_t)(int64_t)jumps[i]);
        /* Two short instructions fit anywhere: c.li a0 and a 4-byte ecall. */
        target[0] = 0x4501 | (i & 31) << 2;
        target[1] = ECALL;
        target[2] = 0;
        *(volatile uint32_t *)from = jal(jumps[i]);
        fence_code();
        value(label("jump over distance ", "", i), call((void *)from));
    }
    for (unsigned i = 0; i < sizeof branches / sizeof branches[0]; i++)
        for (unsigned funct = 0; funct < 8; funct++) {
            if (funct == 2 || funct == 3)
                continue;
            uint16_t *target = (uint16_t *)(from + (uint64_t)(int64_t)branches[i]);
            *(volatile uint32_t *)(from + 4) = ECALL;
            target[0] = 0x4501 | (i & 31) << 2;
            target[1] = ECALL;
            target[2] = 0;
            *(volatile uint32_t *)from = branch(funct, branches[i]); /* x0 with x0 */
            fence_code();
            struct outcome outcome = run(MODE_M, (code *)from, 99, 0);
            value(label("branch ", "", funct * 100 + i), outcome.a0);
            value(label("branch ended at ", "", funct * 100 + i), outcome.epc);
        }
}

/* The same physical code at two addresses, changed through one of them. */
static void aliases(void)
{
    const uint64_t address = 0x2140000000UL;
    const uint64_t all = PTE_V | PTE_R | PTE_W | PTE_X | PTE_A | PTE_D;

    paging_start(4);
    paging_map(address, (uint64_t)text, all, 0);
    paging_map(address + 0x5000, (uint64_t)text, all, 0);
    paging_on();
    for (int round = 0; round < 4; round++) {
        text[0] = addi(10, 10, round + 1);
        text[1] = ECALL;
        fence_code();
        value(label("alias one ", "", (unsigned)round), run(MODE_S, (code *)address, 0, 0).a0);
        text[0] = addi(10, 10, round + 10);
        fence_code();
        value(label("alias two ", "", (unsigned)round),
              run(MODE_S, (code *)(address + 0x5000), 0, 0).a0);
        value(label("alias one again ", "", (unsigned)round),
              run(MODE_S, (code *)address, 0, 0).a0);
    }
    paging_off();
}

int main(void)
{
    rewriting();
    patching();
    distances();
    aliases();
    return 0;
}
