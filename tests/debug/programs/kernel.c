/*
 * A kernel in miniature: S-mode on the machine's SBI, Sv39 with the kernel in the upper half, two
 * processes at the same addresses with an ASID each, system calls, and a timer that takes turns
 * between them. It shuts down after `limit` system calls.
 */
#include "program.h"

#define OFFSET    0xffffffff00000000
#define PAGE      4096
#define USER_CODE 0x10000
#define USER_DATA 0x20000
#define TICK      20000 /* of the 10 MHz clock */

enum { V = 1, R = 2, W = 4, X = 8, U = 16, G = 32, A = 64, D = 128 };
enum { CALL_YIELD = 1, CALL_COUNT = 2 };

struct frame {
    uint64_t x[32];
    uint64_t pc, status;
};

struct process {
    struct frame frame; /* first: the trap entry gives its address */
    uint64_t satp;
    unsigned number;
    uint64_t calls, ticks;
};

/* What a process has on its data page. */
struct user_data {
    uint64_t number;
    uint64_t steps;
    uint64_t answer;
    uint64_t unused[61];
    uint64_t stack[448];
};

struct page {
    uint64_t words[PAGE / 8];
} __attribute__((aligned(PAGE)));

struct process processes[2];
struct process *current;
volatile uint64_t limit = 2000;
volatile uint64_t calls;
volatile uint64_t ticks;

static struct page tables[2][3], code[2], data[2];
extern uint64_t boot_table[], user_image[];
extern char user_size[];

_Noreturn void resume(struct frame *frame);

static uint64_t sbi(uint64_t extension, uint64_t function, uint64_t first, uint64_t second)
{
    register uint64_t a0 __asm__("a0") = first;
    register uint64_t a1 __asm__("a1") = second;
    register uint64_t a6 __asm__("a6") = function;
    register uint64_t a7 __asm__("a7") = extension;
    __asm__ volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a6), "r"(a7) : "memory");
    return a0;
}

static uint64_t now(void)
{
    uint64_t time;
    __asm__ volatile("rdtime %0" : "=r"(time));
    return time;
}

static uint64_t entry(const void *page, unsigned flags)
{
    return ((uint64_t)page - OFFSET) >> 12 << 10 | flags | V;
}

OWN_FRAME void set_timer(void)
{
    sbi(0x54494d45, 0, now() + TICK, 0); /* line: timer */
}

OWN_FRAME void make_process(unsigned number)
{
    struct process *process = &processes[number];
    struct page *table = tables[number];
    /* The kernel's half is the same in all address spaces. */
    table[0].words[510] = boot_table[510];
    table[0].words[0] = entry(&table[1], 0);
    table[1].words[0] = entry(&table[2], 0);
    table[2].words[USER_CODE / PAGE] = entry(&code[number], R | X | U | A);
    table[2].words[USER_DATA / PAGE] = entry(&data[number], R | W | U | A | D);
    for (size_t i = 0; i < ((size_t)user_size + 7) / 8; i++)
        code[number].words[i] = user_image[i];
    struct user_data *user = (struct user_data *)&data[number];
    user->number = number;
    process->number = number;
    process->satp = 8UL << 60 | (number + 1UL) << 44 | ((uint64_t)&table[0] - OFFSET) >> 12;
    process->frame.pc = USER_CODE;
    process->frame.x[2] = USER_DATA + PAGE;
    process->frame.x[10] = USER_DATA;
    process->frame.status = 1 << 5; /* SPIE, and SPP is user */
}

OWN_FRAME void switch_to(struct process *process)
{
    current = process; /* line: switch */
    __asm__ volatile("csrw satp, %0\n\tsfence.vma" : : "r"(process->satp) : "memory");
}

OWN_FRAME uint64_t system_call(struct process *process, uint64_t number, uint64_t argument)
{
    process->calls++; /* line: call */
    if (++calls >= limit)
        sbi(0x53525354, 0, 0, 0);
    if (number == CALL_YIELD)
        switch_to(&processes[!process->number]);
    return argument + process->number;
}

struct frame *trap(struct frame *frame)
{
    uint64_t cause;
    struct process *process = (struct process *)frame;
    __asm__ volatile("csrr %0, scause" : "=r"(cause));
    if (cause == 8) {
        frame->pc += 4;
        frame->x[10] = system_call(process, frame->x[17], frame->x[10]);
    } else if (cause == (1UL << 63 | 5)) {
        ticks++;
        process->ticks++;
        set_timer();
        switch_to(&processes[!process->number]); /* line: tick */
    } else {
        sbi(0x53525354, 0, 0, 1); /* line: panic */
    }
    return &current->frame;
}

void kernel_main(void)
{
    make_process(0); /* line: processes */
    make_process(1);
    __asm__ volatile("csrs sie, %0" : : "r"(1 << 5));
    switch_to(&processes[0]);
    set_timer();
    resume(&current->frame); /* line: resume */
}

/* The processes: all that they use is in their own section. */

#define USER __attribute__((section(".user"), noinline))

USER __attribute__((naked)) void user_start(void)
{
    __asm__("j user_main");
}

USER uint64_t user_call(uint64_t number, uint64_t argument)
{
    register uint64_t a0 __asm__("a0") = argument;
    register uint64_t a7 __asm__("a7") = number;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a7) : "memory");
    return a0;
}

USER uint64_t user_work(volatile struct user_data *user)
{
    for (int i = 0; i < 1000; i++)
        user->steps++; /* line: user work */
    return user->steps;
}

USER void user_main(volatile struct user_data *user)
{
    for (;;) {
        uint64_t steps = user_work(user); /* line: user loop */
        user->answer = user_call(CALL_COUNT, steps);
        user_call(CALL_YIELD, 0); /* line: user yield */
    }
}
