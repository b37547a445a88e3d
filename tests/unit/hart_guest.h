/*
 * A small guest for tests of harts: RAM, a few registers, harts, and code made of decoded
 * instructions. Each test builds its own.
 */
#pragma once

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "hart/hart.h"
#include "isa/isa.h"
#include "jit/jit.h"
#include "memory/memory.h"

#define RAM         UINT64_C(0x80000000)
#define RAM_SIZE    (UINT64_C(16) << 20)
#define MMIO        UINT64_C(0x10000000) /* a device that reads back what was written */
#define STOP        (MMIO + 8)           /* a store here stops all harts */
#define GUEST_HARTS 4

struct guest {
    struct memory *memory;
    struct clock clock;
    struct hart *harts[GUEST_HARTS];
    unsigned count;
    struct hart *hart; /* harts[0] */
    uint64_t at;       /* where the next instruction is assembled */
    uint64_t device;
    struct jit *jit; /* NULL: its harts are interpreted */
    struct jit_hart *jit_harts[GUEST_HARTS];
};

/* Whether guests that are made from now on run on the engine that translates. */
static bool guest_translates;

static uint64_t guest_device_read(void *opaque, uint64_t offset, unsigned size)
{
    return ((struct guest *)opaque)->device;
}

static void guest_device_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct guest *guest = opaque;
    if (offset == STOP - MMIO)
        for (unsigned i = 0; i < guest->count; i++)
            hart_request(guest->harts[i], ATTENTION_STOP);
    else
        guest->device = value;
}

static void guest_code_written(void *opaque, uint64_t gpa, uint64_t size)
{
    jit_code_written(opaque, gpa, size);
}

static inline void guest_translate(struct guest *guest)
{
    struct error err;
    guest->jit = jit_create(&err);
    assert_non_null(guest->jit);
    for (unsigned i = 0; i < guest->count; i++)
        guest->jit_harts[i] = jit_attach(guest->jit, guest->harts[i]);
    const struct memory_listener listener = {.code_written = guest_code_written,
                                             .opaque = guest->jit};
    memory_set_listener(guest->memory, &listener);
}

/* A guest with `count` harts. cpu: changes to the default extensions, as in --cpu, or NULL. */
static inline void guest_init(struct guest *guest, unsigned count, const char *cpu,
                              const struct hart_hooks *hooks)
{
    static const struct mmio_ops ops = {.read = guest_device_read, .write = guest_device_write};
    struct error err = {{0}};
    *guest = (struct guest){.memory = memory_create(), .count = count, .at = RAM};
    clock_init(&guest->clock);
    assert_true(memory_add_ram(guest->memory, RAM, RAM_SIZE, &err));
    assert_true(memory_add_mmio(guest->memory, MMIO, 4096, &ops, guest, "test", &err));
    struct isa_extensions extensions = isa_extensions_default();
    if (cpu && !isa_extensions_parse(cpu, &extensions, &err))
        fail_msg("%s", err.message);
    for (unsigned i = 0; i < count; i++) {
        const struct hart_config config = {
            .id = i,
            .extensions = extensions,
            .memory = guest->memory,
            .clock = &guest->clock,
            .hooks = hooks ? *hooks : (struct hart_hooks){0},
        };
        guest->harts[i] = hart_create(&config);
        hart_reset(guest->harts[i], RAM);
    }
    guest->hart = guest->harts[0];
    if (guest_translates)
        guest_translate(guest);
}

/* Executes instructions until the hart is asked to stop. */
static inline void guest_run(struct hart *hart)
{
    if (hart->engine)
        jit_run(hart->engine);
    else
        hart_interpret(hart);
}

static inline void guest_finish(struct guest *guest)
{
    for (unsigned i = 0; i < guest->count; i++)
        jit_detach(guest->jit_harts[i]);
    jit_destroy(guest->jit);
    for (unsigned i = 0; i < guest->count; i++)
        hart_destroy(guest->harts[i]);
    memory_destroy(guest->memory);
}

static inline uint64_t guest_load(struct guest *guest, uint64_t gpa)
{
    uint64_t value;
    assert_true(memory_dma_read(guest->memory, gpa, &value, sizeof(value)));
    return value;
}

static inline void guest_store(struct guest *guest, uint64_t gpa, uint64_t value)
{
    assert_true(memory_dma_write(guest->memory, gpa, &value, sizeof(value)));
}

/* Writes bits at guest->at; half: 16 of them. */
static inline void guest_word(struct guest *guest, uint32_t bits)
{
    assert_true(memory_dma_write(guest->memory, guest->at, &bits, 4));
    guest->at += 4;
}

static inline void guest_half(struct guest *guest, uint16_t bits)
{
    assert_true(memory_dma_write(guest->memory, guest->at, &bits, 2));
    guest->at += 2;
}

static inline void guest_insn(struct guest *guest, struct insn insn)
{
    uint32_t bits = isa_encode(&insn);
    assert_true(bits != 0);
    guest_word(guest, bits);
}

/* INSN(guest, addi, .rd = 1, .imm = 5) */
#define INSN(guest, name, ...) guest_insn(guest, (struct insn){.op = INSN_##name, ##__VA_ARGS__})

/* Assembles one instruction at the hart's pc and executes it. */
#define STEP(guest, name, ...)                                                                     \
    do {                                                                                           \
        (guest)->at = (guest)->hart->pc;                                                           \
        INSN(guest, name, ##__VA_ARGS__);                                                          \
        hart_fence_i((guest)->hart);                                                               \
        hart_step((guest)->hart);                                                                  \
    } while (0)

static inline uint64_t guest_csr(struct guest *guest, const char *name)
{
    for (unsigned number = 0; number < 4096; number++) {
        const char *found = hart_csr_name(number);
        if (found && strcmp(found, name) == 0) {
            uint64_t value = 0;
            assert_true(hart_csr_read(guest->hart, number, &value));
            return value;
        }
    }
    fail_msg("no CSR %s", name);
    return 0;
}

static inline unsigned guest_csr_number(const char *name)
{
    for (unsigned number = 0; number < 4096; number++)
        if (hart_csr_name(number) && strcmp(hart_csr_name(number), name) == 0)
            return number;
    fail_msg("no CSR %s", name);
    return 0;
}

static inline void guest_set_csr(struct guest *guest, const char *name, uint64_t value)
{
    assert_true(hart_csr_write(guest->hart, guest_csr_number(name), value));
}

/* Where traps go in tests that look at the state afterwards. */
#define HANDLER (RAM + 0x8000)

/* Lets S- and U-mode use all memory, and sets the vectors to HANDLER. */
static inline void guest_open(struct guest *guest)
{
    guest_set_csr(guest, "pmpaddr0", UINT64_MAX);
    guest_set_csr(guest, "pmpcfg0", 0x1f);
    guest_set_csr(guest, "mtvec", HANDLER);
    guest_set_csr(guest, "stvec", HANDLER);
}

/* The hart trapped to M-mode for this cause. */
static inline void guest_assert_trap(struct guest *guest, uint64_t cause, uint64_t tval)
{
    assert_int_equal(guest->hart->pc, HANDLER);
    assert_int_equal(guest->hart->privilege, PRIVILEGE_MACHINE);
    assert_int_equal(guest->hart->mcause, cause);
    assert_int_equal(guest->hart->mtval, tval);
}
