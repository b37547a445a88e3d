/* What bare-metal guests of the lab are written with: printing, configuration space, and the
 * interrupt controllers of S-mode. One hart, no page tables, built-in SBI. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define UART     0x10000000UL
#define FINISHER 0x00100000UL
#define ECAM     0x30000000UL
#define WINDOW   0x40000000UL
#define APLIC    0x0d000000UL
#define IMSIC    0x28000000UL
#define PLIC     0x0c000000UL
#define CONTEXT  1 /* of the PLIC: hart 0, S-mode */

static inline uint32_t load(uintptr_t address)
{
    return *(volatile uint32_t *)address;
}

static inline void store(uintptr_t address, uint32_t value)
{
    *(volatile uint32_t *)address = value;
}

static inline void store8(uintptr_t address, uint8_t value)
{
    *(volatile uint8_t *)address = value;
}

static inline uint16_t load16(uintptr_t address)
{
    return *(volatile uint16_t *)address;
}

static inline void store16(uintptr_t address, uint16_t value)
{
    *(volatile uint16_t *)address = value;
}

static inline uint64_t load64(uintptr_t address)
{
    return *(volatile uint64_t *)address;
}

static inline void store64(uintptr_t address, uint64_t value)
{
    *(volatile uint64_t *)address = value;
}

static inline void print(const char *text)
{
    while (*text)
        store8(UART, (uint8_t)*text++);
}

static inline void print_hex(uint64_t value)
{
    for (int i = 60; i >= 0; i -= 4)
        if (value >> i || !i)
            store8(UART, (uint8_t)"0123456789abcdef"[value >> i & 15]);
}

static inline void line(const char *what, uint64_t value)
{
    print(what);
    print(": ");
    print_hex(value);
    print("\n");
}

static inline void finish(unsigned status)
{
    store(FINISHER, status ? status << 16 | 0x3333 : 0x5555);
    for (;;)
        ;
}

/* Says what is wrong and ends with status 1. */
static inline void expect(bool truth, const char *what)
{
    if (truth)
        return;
    print("wrong: ");
    print(what);
    print("\n");
    finish(1);
}

#define csr_write(name, value) __asm__ volatile("csrw " name ", %0" ::"r"((uint64_t)(value)))
#define csr_swap(name, value)                                                                      \
    ({                                                                                             \
        uint64_t csr_value;                                                                        \
        __asm__ volatile("csrrw %0, " name ", %1" : "=r"(csr_value) : "r"((uint64_t)(value)));     \
        csr_value;                                                                                 \
    })

static inline uint64_t ticks(void)
{
    uint64_t value;
    __asm__ volatile("csrr %0, time" : "=r"(value));
    return value;
}

/* --- PCI -------------------------------------------------------------------------------------- */

static inline uintptr_t config(unsigned bus, unsigned slot)
{
    return ECAM + ((uintptr_t)bus << 20) + ((uintptr_t)slot << 15);
}

/* The configuration space of the device with this vendor and device ID on the root bus or behind a
 * root port, which is opened. */
static inline uintptr_t find_device(uint32_t id, unsigned *root_slot)
{
    unsigned bus = 0;
    for (unsigned slot = 0; slot < 32; slot++) {
        uintptr_t at = config(0, slot);
        *root_slot = slot;
        if (load(at) == id)
            return at;
        if ((load(at + 0x0c) >> 16 & 0x7f) != 1)
            continue;
        bus++;
        store(at + 0x18, bus << 8 | bus << 16);
        store(at + 0x20, (WINDOW >> 16) | (WINDOW + 0x0ff00000)); /* 256 MiB from WINDOW on */
        store16(at + 0x04, 6);
        if (load(config(bus, 0)) == id)
            return config(bus, 0);
        store(at + 0x18, 0);
    }
    expect(false, "the device is not there");
    return 0;
}

static inline uintptr_t find_capability(uintptr_t at, uint8_t id)
{
    uint8_t offset = load(at + 0x34) & 0xff;
    for (unsigned i = 0; offset && i < 48; i++) {
        uint32_t head = load(at + offset);
        if ((head & 0xff) == id)
            return at + offset;
        offset = head >> 8 & 0xff;
    }
    return 0;
}

/* --- Interrupts ------------------------------------------------------------------------------- */

/* .option arch is not for CSRs: by number. */
#define SISELECT "0x150"
#define SIREG    "0x151"
#define STOPEI   "0x15c"

static inline void imsic_register(unsigned select, uint64_t value)
{
    csr_write(SISELECT, select);
    csr_write(SIREG, value);
}

/* Enables the first 63 identities. */
static inline void imsic_begin(void)
{
    imsic_register(0x70, 1);
    imsic_register(0x72, 0);
    imsic_register(0xc0, ~1UL);
}

/* Waits up to 2 s for a message; its identity, or 0. */
static inline unsigned imsic_wait(unsigned milliseconds)
{
    uint64_t end = ticks() + milliseconds * 10000UL;
    for (;;) {
        unsigned identity = csr_swap(STOPEI, 0) >> 16;
        if (identity || ticks() > end)
            return identity;
    }
}

/* A level source becomes messages with this identity. */
static inline void aplic_source(unsigned source, unsigned identity)
{
    store(APLIC, 0x80000104);
    store(APLIC + 4 * source, 6);
    store(APLIC + 0x3000 + 4 * source, identity);
    store(APLIC + 0x1edc, source);
}

static inline void aplic_end(unsigned source)
{
    store(APLIC + 0x1cdc, source);
}

static inline void plic_source(unsigned source)
{
    store(PLIC + 4 * source, 1);
    store(PLIC + 0x2000 + 0x80 * CONTEXT + source / 32 * 4, 1u << source % 32);
}

static inline unsigned plic_wait(unsigned milliseconds)
{
    uint64_t end = ticks() + milliseconds * 10000UL;
    for (;;) {
        unsigned source = load(PLIC + 0x200000 + 0x1000 * CONTEXT + 4);
        if (source || ticks() > end)
            return source;
    }
}

static inline void plic_end(unsigned source)
{
    store(PLIC + 0x200000 + 0x1000 * CONTEXT + 4, source);
}
