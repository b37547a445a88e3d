/*
 * Devices and their registers, interrupt lines.
 *
 * A device is a constant type and an instance whose first member is `struct device`. The machine
 * keeps the list of devices, resets them together, saves and loads them by name, and removes them
 * in the reverse order of their creation.
 *
 * A device's registers are one or more `struct mmio_ops` mapped by memory/ (or as PCI BARs). They
 * are called on hart threads, several at once: a device locks its own state, and there is no lock
 * around it. It may raise interrupt lines and schedule loop tasks while holding its lock; it must
 * not map or unmap memory regions while holding a lock that its register functions take.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/stream.h"

struct device;

struct device_type {
    const char *name; /* the field's term, e.g. "ns16550a" */
    /* To the state after power-on. Harts are stopped. */
    void (*reset)(struct device *device);
    /* Saves or loads everything the guest could tell apart. Harts and the loop are stopped. */
    void (*state)(struct device *device, struct stream *stream);
    /* Finishes all work under way and frees the device, `device` itself included. */
    void (*remove)(struct device *device);
    /* NULL or: makes data that was acknowledged to the guest durable, and lets nothing be in
     * flight, before state is saved or the machine ends. Called on the loop's thread. */
    void (*quiesce)(struct device *device);
};

struct device {
    const struct device_type *type;
    char name[32]; /* unique in the machine, e.g. "serial0"; set by device_init */
    pthread_mutex_t lock;
};

/* `name` is copied (and cut at 31 characters). */
void device_init(struct device *device, const struct device_type *type, const char *name);
void device_finish(struct device *device);

static inline void device_lock(struct device *device)
{
    pthread_mutex_lock(&device->lock);
}

static inline void device_unlock(struct device *device)
{
    pthread_mutex_unlock(&device->lock);
}

/*
 * Registers. `size` is 1, 2, 4 or 8 and offset a multiple of it, within the region. Accesses
 * narrower than min_size or wider than max_size never arrive: memory/ refuses (access fault) or
 * splits them, as `split` says. Read values above `size` bytes are cut off by the caller.
 */
struct mmio_ops {
    uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
    void (*write)(void *opaque, uint64_t offset, uint64_t value, unsigned size);
    uint8_t min_size; /* 0 means 1 */
    uint8_t max_size; /* 0 means 8 */
    bool split;       /* wider accesses become several of max_size, in ascending order */
};

/*
 * An interrupt line is a value: its holder sets the level and never learns what controller it ends
 * in. `set` may be called on any thread with the device's lock held. A zeroed line goes nowhere.
 */
struct irq_line {
    void (*set)(void *controller, unsigned source, bool level);
    void *controller;
    unsigned source;
};

static inline void irq_set(const struct irq_line *line, bool level)
{
    if (line->set)
        line->set(line->controller, line->source, level);
}

/*
 * How a hart's CSRs reach an interrupt file of an IMSIC (AIA 1.0, chapter 3), by the numbers that
 * indirect access selects: 0x70 to 0xff. Like a line it is a value; a zeroed one is no file. All
 * three are called on the hart's thread, or while the hart does not run.
 */
struct interrupt_file {
    uint64_t (*read)(void *file, unsigned select);
    /* Changes the bits in which `value` differs from `old`, what the register was read as before:
     * identities that arrive meanwhile stay pending. */
    void (*write)(void *file, unsigned select, uint64_t old, uint64_t value);
    /* The identity that is pending, enabled, not masked and of the highest priority; 0: none. With
     * `signals`, 0 as well while the file delivers nothing (eidelivery). */
    unsigned (*top)(void *file, bool signals);
    void (*claim)(void *file, unsigned identity); /* no longer pending */
    void *file;
};
