/* A host bridge with plain functions, for tests of pci/. Each test builds its own. */
#pragma once

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pci/pci.h"
#include "virtio/rng.h"
#include "virtio/virtio.h"

#define RAM_BASE   UINT64_C(0x80000000)
#define RAM_SIZE   UINT64_C(0x100000)
#define ECAM       UINT64_C(0x30000000)
#define ECAM_SIZE  UINT64_C(0x10000000)
#define IO_BASE    UINT64_C(0x03000000)
#define MEM32      UINT64_C(0x40000000)
#define MEM64      UINT64_C(0x400000000)
#define MEM64_SIZE UINT64_C(0x2000000000)

#define COMMAND     0x04
#define BAR(n)      (0x10 + 4 * (n))
#define COMMAND_ALL 0x7 /* I/O, memory, bus master */

struct bench {
    struct memory *memory;
    struct loop *loop;
    struct pci_host *host;
    struct pci_bus *bus;
    atomic_int level[4];
};

static inline void set_level(void *controller, unsigned source, bool level)
{
    atomic_store(&((struct bench *)controller)->level[source], level);
}

static inline int setup_with(void **state, bool messages)
{
    struct bench *bench = xcalloc(1, sizeof(*bench));
    struct pci_host_config config = {
        .ecam_base = ECAM,
        .ecam_size = ECAM_SIZE,
        .io_base = IO_BASE,
        .io_size = 0x10000,
        .mmio32_base = MEM32,
        .mmio32_size = 0x40000000,
        .mmio64_base = MEM64,
        .mmio64_size = MEM64_SIZE,
        .messages = messages,
    };

    for (unsigned i = 0; i < 4; i++)
        config.intx[i] = (struct irq_line){set_level, bench, i};
    bench->loop = loop_create();
    bench->memory = memory_create();
    assert_true(memory_add_ram(bench->memory, RAM_BASE, RAM_SIZE, NULL));
    bench->host = pci_host_create(bench->memory, &config, NULL);
    assert_non_null(bench->host);
    bench->bus = pci_host_bus(bench->host);
    *state = bench;
    return 0;
}

static inline int setup(void **state)
{
    return setup_with(state, false);
}

static inline int teardown(void **state)
{
    struct bench *bench = *state;
    struct device *host = pci_host_device(bench->host);

    host->type->remove(host);
    memory_destroy(bench->memory);
    loop_destroy(bench->loop);
    free(bench);
    return 0;
}

static inline uint64_t config_gpa(unsigned slot, unsigned offset)
{
    return ECAM + ((uint64_t)slot << 15) + offset;
}

static inline uint64_t get(struct bench *bench, unsigned slot, unsigned offset, unsigned size)
{
    uint64_t value = 0;

    assert_true(memory_read(bench->memory, config_gpa(slot, offset), size, &value));
    return value;
}

static inline void put(struct bench *bench, unsigned slot, unsigned offset, unsigned size,
                       uint64_t value)
{
    assert_true(memory_write(bench->memory, config_gpa(slot, offset), size, value));
}

/* A function with three register BARs, each 32-bit word of which reads as what was written. */
struct plain {
    struct pci_device pci;
    _Atomic uint32_t word[3];
    unsigned moves;
    uint64_t moved_to;
};

static inline uint64_t plain_read(void *opaque, uint64_t offset, unsigned size)
{
    return atomic_load((_Atomic uint32_t *)opaque) + offset;
}

static inline void plain_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    atomic_store((_Atomic uint32_t *)opaque, value);
}

static const struct mmio_ops plain_ops = {.read = plain_read, .write = plain_write};

static inline bool plain_moved(struct pci_device *pci, unsigned bar, uint64_t from, uint64_t to)
{
    struct plain *plain = container_of(pci, struct plain, pci);

    plain->moves++;
    plain->moved_to = to;
    return true;
}

static const struct pci_device_type plain_type = {.name = "plain", .bar_moved = plain_moved};
static const struct pci_identity plain_identity = {
    .vendor = 0x1234,
    .device = 0x5678,
    .subsystem_vendor = 0x9abc,
    .subsystem = 0xdef0,
    .class_code = 0x010203,
    .revision = 4,
    .interrupt_pin = 1,
};

static inline void plain_attach(struct bench *bench, struct plain *plain, unsigned slot)
{
    memset(plain, 0, sizeof(*plain));
    pci_device_init(&plain->pci, &plain_type, &plain_identity);
    pci_add_bar(&plain->pci, 0, PCI_BAR_MEMORY32, false, 0x1000, &plain_ops, &plain->word[0]);
    pci_add_bar(&plain->pci, 1, PCI_BAR_IO, false, 0x20, &plain_ops, &plain->word[1]);
    pci_add_bar(&plain->pci, 2, PCI_BAR_MEMORY64, true, 0x100000, &plain_ops, &plain->word[2]);
    pci_add_bar(&plain->pci, 4, PCI_BAR_MEMORY32, false, 0x2000, NULL, NULL);
    assert_true(pci_device_attach(&plain->pci, bench->bus, PCI_DEVFN(slot, 0), NULL));
}

static inline bool responds(struct bench *bench, uint64_t gpa)
{
    uint64_t value;

    return memory_read(bench->memory, gpa, 4, &value);
}

static inline void assign(struct bench *bench, unsigned slot, uint64_t mem32, uint64_t io,
                          uint64_t mem64)
{
    put(bench, slot, BAR(0), 4, mem32);
    put(bench, slot, BAR(1), 4, io);
    put(bench, slot, BAR(2), 4, mem64);
    put(bench, slot, BAR(3), 4, mem64 >> 32);
}
