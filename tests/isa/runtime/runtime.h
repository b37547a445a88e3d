/* What test programs in C are written with: printing, code run in any mode until it traps, page
 * tables. Each printed line is "label: values"; labels are unique in a program. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

enum mode { MODE_U = 0, MODE_S = 1, MODE_M = 3 };

/* How a run of code in some mode ended: the trap that reached M-mode. */
struct outcome {
    uint64_t cause, epc, tval;
    uint64_t status; /* mstatus, as the trap left it */
    uint64_t a0, a1;
};

/* The trap that reached S-mode before, if there was one. */
struct supervisor_outcome {
    uint64_t taken, cause, epc, tval, status;
    uint64_t vector; /* which entry of supervisor_vector was taken */
};
extern volatile struct supervisor_outcome supervisor_outcome;

/* A piece of code to run in some mode. It is position-independent, uses no stack, takes a0 and a1
 * and ends with ecall. */
typedef void code(void);
#define CODE(name, text)                                                                           \
    __attribute__((naked, used)) static void name(void)                                            \
    {                                                                                              \
        __asm__(".option push\n.option arch, +d, +zfh, +zba, +zbb, +zbc, +zbs, +zbkb, +zbkx\n"     \
                ".option arch, +zicond, +zacas, +zawrs, +zicbom, +zicboz, +zicbop, +svinval\n"     \
                ".option norvc\n" text "\necall\n.option pop\n");                                  \
    }

void *memset(void *target, int byte, size_t size);
void *memcpy(void *target, const void *source, size_t size);

void print(const char *text);
void print_char(char c);
void print_hex(uint64_t value);
_Noreturn void finish(unsigned status);

/* Runs code with a0 and a1 until a trap reaches M-mode. With page tables on (paging_on), U-mode
 * code runs at its alias. */
struct outcome run(enum mode mode, code *code, uint64_t a0, uint64_t a1);

/* Prints "name: cause epc tval status a0", epc relative to the code, and the trap that S-mode saw
 * first. */
void report(const char *name, const struct outcome *outcome);

/* run() and report(). */
void try(const char *name, enum mode mode, code *code, uint64_t a0, uint64_t a1);

/* Prints "name: value". */
void value(const char *name, uint64_t value);

/* Names made of parts: label("sv39", " level ", 2). The result lives for 31 more calls. */
const char *label(const char *first, const char *second, uint64_t number);

/* --- translation --- */

enum pte {
    PTE_V = 1,
    PTE_R = 2,
    PTE_W = 4,
    PTE_X = 8,
    PTE_U = 16,
    PTE_G = 32,
    PTE_A = 64,
    PTE_D = 128,
};
#define PTE_N    (1UL << 63)
#define PTE_PBMT (3UL << 61)

/* Begins new page tables with 3, 4 or 5 levels: RAM appears where it is for S-mode, and at
 * USER_ALIAS for U-mode; the UART for S-mode. */
void paging_start(unsigned levels);
#define USER_ALIAS 0x40000000UL

/* Puts an entry for `address` at a level (0: the last), making tables above it. physical may be any
 * value: its page number goes into the entry with these flags. Returns the entry's place. */
uint64_t *paging_map(uint64_t address, uint64_t physical, uint64_t flags, unsigned level);

/* The entry that is there at a level. */
uint64_t *paging_entry(uint64_t address, unsigned level);

void paging_on(void);
void paging_off(void);

#define csr_read(name)                                                                             \
    ({                                                                                             \
        uint64_t csr_value;                                                                        \
        __asm__ volatile("csrr %0, " name : "=r"(csr_value));                                      \
        csr_value;                                                                                 \
    })
#define csr_write(name, value)                                                                     \
    __asm__ volatile("csrw " name ", %0" ::"rK"((uint64_t)(value)) : "memory")
#define csr_set(name, value)                                                                       \
    __asm__ volatile("csrs " name ", %0" ::"rK"((uint64_t)(value)) : "memory")
#define csr_clear(name, value)                                                                     \
    __asm__ volatile("csrc " name ", %0" ::"rK"((uint64_t)(value)) : "memory")
#define csr_swap(name, value)                                                                      \
    ({                                                                                             \
        uint64_t csr_value;                                                                        \
        __asm__ volatile("csrrw %0, " name ", %1"                                                  \
                         : "=r"(csr_value)                                                         \
                         : "rK"((uint64_t)(value))                                                 \
                         : "memory");                                                              \
        csr_value;                                                                                 \
    })

static inline void fence_translation(void)
{
    __asm__ volatile("sfence.vma" ::: "memory");
}

static inline uint64_t read64(uint64_t address)
{
    return *(volatile uint64_t *)address;
}

static inline void write64(uint64_t address, uint64_t v)
{
    *(volatile uint64_t *)address = v;
}

static inline uint32_t read32(uint64_t address)
{
    return *(volatile uint32_t *)address;
}

static inline void write32(uint64_t address, uint32_t v)
{
    *(volatile uint32_t *)address = v;
}

#define MSTATUS_SIE  (1UL << 1)
#define MSTATUS_MIE  (1UL << 3)
#define MSTATUS_SPIE (1UL << 5)
#define MSTATUS_MPIE (1UL << 7)
#define MSTATUS_SPP  (1UL << 8)
#define MSTATUS_MPP  (3UL << 11)
#define MSTATUS_FS   (3UL << 13)
#define MSTATUS_MPRV (1UL << 17)
#define MSTATUS_SUM  (1UL << 18)
#define MSTATUS_MXR  (1UL << 19)
#define MSTATUS_TVM  (1UL << 20)
#define MSTATUS_TW   (1UL << 21)
#define MSTATUS_TSR  (1UL << 22)
