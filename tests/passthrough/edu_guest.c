/*
 * A bare-metal guest that drives QEMU's edu device: registers, factorials, INTx, MSI, DMA both
 * ways, DMA to where nothing is, and code that the device has written. (QEMU: docs/specs/edu.rst.)
 */
#include "guest.h"

enum {
    ID = 0x00,
    INVERT = 0x04,
    FACTORIAL = 0x08,
    STATUS = 0x20,
    INTERRUPTS = 0x24,
    RAISE = 0x60,
    ACKNOWLEDGE = 0x64,
    DMA_SOURCE = 0x80,
    DMA_TARGET = 0x88,
    DMA_COUNT = 0x90,
    DMA_COMMAND = 0x98,
};

#define BUFFER   0x40000UL /* as the device sees it */
#define IDENTITY 5
#define NOWHERE  0x20001000UL /* no RAM of the guest's */

static uintptr_t bar;
/* Less than the device's buffer: QEMU 7.2 aborts for one that fills it. */
typedef uint8_t buffer[2048];
#ifdef HIGH /* behind the addresses that x86 keeps for messages */
#    define from (*(buffer *)0xff000000UL)
#    define to   (*(buffer *)0xff001000UL)
#else
static buffer from __attribute__((aligned(4096))), to __attribute__((aligned(4096)));
#endif
static uint32_t code[1024] __attribute__((aligned(4096)));

static void registers(void)
{
    line("id", load(bar + ID));
    expect((load(bar + ID) & 0xff) == 0xed, "the identification");
    store(bar + INVERT, 0x12345678);
    expect(load(bar + INVERT) == ~0x12345678u, "the inverted value");
    store(bar + FACTORIAL, 5);
    while (load(bar + STATUS) & 1)
        ;
    line("factorial of 5", load(bar + FACTORIAL));
    expect(load(bar + FACTORIAL) == 120, "the factorial");
    while (load(bar + DMA_COMMAND) & 1) /* of the guest before a reset */
        ;
#ifndef THROUGH_KERNEL /* Linux before 6.11 divides such an access into two */
    store64(bar + DMA_SOURCE, 0x123456789aUL);
    expect(load64(bar + DMA_SOURCE) == 0x123456789aUL, "a register of 64 bits");
#endif
}

/* --- Interrupts: raised, seen once, and again ------------------------------------------------- */

static unsigned source;

static unsigned wait(unsigned milliseconds)
{
#ifdef WITH_PLIC
    return plic_wait(milliseconds);
#else
    return imsic_wait(milliseconds);
#endif
}

static void end(void)
{
#ifdef WITH_PLIC
    plic_end(source);
#else
    aplic_end(source);
#endif
}

static void wires(unsigned slot)
{
    source = 32 + slot % 4;
#ifdef WITH_PLIC
    const unsigned expected = source;
    plic_source(source);
#else
    const unsigned expected = IDENTITY;
    imsic_begin();
    aplic_source(source, IDENTITY);
#endif
    for (unsigned i = 0; i < 3; i++) {
        store(bar + RAISE, 1u << i);
        expect(wait(5000) == expected, "an interrupt by wire");
        expect(load(bar + INTERRUPTS) == 1u << i, "its reason");
        if (i == 1) { /* not acknowledged: it is asserted still */
            end();
            expect(wait(2000) == expected, "the interrupt that is not handled");
        }
        store(bar + ACKNOWLEDGE, 1u << i);
        end();
        expect(wait(50) == 0, "no interrupt that nobody raised");
    }
    line("interrupts by wire", 4);
}

static void messages(uintptr_t at)
{
#ifdef WITH_PLIC
    expect(!find_capability(at, 0x05), "no MSI without an IMSIC");
#else
    uintptr_t msi = find_capability(at, 0x05);
    expect(msi, "MSI");
    store(msi + 4, IMSIC);
    store(msi + 8, 0);
    store16(msi + 12, 9);
    store16(msi + 2, load16(msi + 2) | 1);
    for (unsigned i = 0; i < 3; i++) {
        store(bar + RAISE, 1);
        expect(imsic_wait(2000) == 9, "a message");
        store(bar + ACKNOWLEDGE, 1);
        expect(imsic_wait(20) == 0, "one message only");
    }
    store16(msi + 2, load16(msi + 2) & ~1u);
    store(bar + RAISE, 1);
    expect(wait(2000) == IDENTITY, "the wire again");
    store(bar + ACKNOWLEDGE, 1);
    end();
    line("messages", 3);
#endif
}

/* --- DMA -------------------------------------------------------------------------------------- */

static void transfer(uint64_t source_address, uint64_t target, uint64_t count, bool to_memory)
{
    store64(bar + DMA_SOURCE, source_address);
    store64(bar + DMA_TARGET, target);
    store64(bar + DMA_COUNT, count);
    store64(bar + DMA_COMMAND, to_memory ? 3 : 1);
    while (load64(bar + DMA_COMMAND) & 1)
        ;
}

static void transfers(void)
{
    for (unsigned i = 0; i < sizeof(from); i++)
        from[i] = (uint8_t)(i * 7 + (i >> 8));
    transfer((uintptr_t)from, BUFFER, sizeof(from), false);
    transfer(BUFFER, (uintptr_t)to, sizeof(to), true);
    for (unsigned i = 0; i < sizeof(from); i++)
        expect(to[i] == from[i], "what came back");
    line("bytes there and back", sizeof(from));
    transfer(BUFFER, NOWHERE, 64, true);
    transfer((uintptr_t)from, BUFFER, sizeof(from), false);
    transfer(NOWHERE, BUFFER, 64, false);
    print("blocked transfers: survived\n");
}

/* The device replaces a function that has run. */
static void new_code(void)
{
    static uint32_t other[2]
        __attribute__((aligned(8))) = {0x02a00513, 0x00008067}; /* li a0, 42; ret */
    code[0] = 0x00700513;                                       /* li a0, 7 */
    code[1] = 0x00008067;                                       /* ret */
    __asm__ volatile("fence.i" ::: "memory");
    unsigned (*function)(void) = (unsigned (*)(void))code;
    unsigned sum = 0;
    for (unsigned i = 0; i < 1000; i++)
        sum += function();
    expect(sum == 7000, "the first code");
    transfer((uintptr_t)other, BUFFER, sizeof(other), false);
    transfer(BUFFER, (uintptr_t)code, sizeof(other), true);
    __asm__ volatile("fence.i" ::: "memory");
    expect(function() == 42, "the code that the device wrote");
    print("code by DMA: runs\n");
}

/* Runs until it is ended, with DMA going on. */
static void transfer_for_ever(void)
{
    print("transferring\n");
    for (;;)
        transfer(BUFFER, (uintptr_t)to, sizeof(to), true);
}

/* Resets the machine while the device is busy, with messages on and DMA under way; the second time
 * it returns. RAM outside of the image keeps what was there. */
static void reset_once(uintptr_t at)
{
    volatile uint32_t *marks = (volatile uint32_t *)0x81000000;
    if (marks[0] == 0x12345678) {
        print("second time\n");
        return;
    }
    marks[0] = 0x12345678;
    uintptr_t msi = find_capability(at, 0x05);
    store(msi + 4, IMSIC);
    store16(msi + 2, load16(msi + 2) | 1);
    store(bar + RAISE, 1);
    store64(bar + DMA_COUNT, sizeof(to));
    store64(bar + DMA_SOURCE, BUFFER);
    store64(bar + DMA_TARGET, (uintptr_t)to);
    store64(bar + DMA_COMMAND, 3);
    store(FINISHER, 0x7777);
    for (;;)
        ;
}

int main(void)
{
    unsigned slot;
    uintptr_t at = find_device(0x11e81234, &slot);
    line("edu in slot", slot);
    store(at + 0x10, 0xffffffff);
    line("BAR 0 of", -load(at + 0x10));
    expect(load(at + 0x10) == 0xfff00000, "the size of BAR 0");
    bar = WINDOW;
    store(at + 0x10, WINDOW);
    store16(at + 4, 6);
    registers();
    store16(at + 4, 4);
    store(at + 0x10, WINDOW + 0x300000); /* moves */
    store16(at + 4, 6);
    expect(load(bar + ID) == 0xffffffff, "nothing where it was");
    bar = WINDOW + 0x300000;
    registers();
#ifdef FOR_EVER
    transfer_for_ever();
#endif
#ifdef RESET
    expect(!(load16(at + 4) & 0x400), "the command register after a reset");
    reset_once(at);
    store(bar + ACKNOWLEDGE, ~0u); /* edu itself cannot be reset */
#endif
    (void)transfer_for_ever;
    (void)reset_once;
    wires(slot);
    messages(at);
    transfers();
    new_code();
    print("edu: all right\n");
    finish(0);
    return 0;
}
