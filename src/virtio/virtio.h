/*
 * Virtio 1.2: devices, split virtqueues, and the two transports.
 *
 * A device is a constant `struct virtio_device_type` and an instance whose first member is
 * `struct virtio_device`. It is created unattached (virtio_NAME_create), then given to a transport
 * by the machine (virtio_pci_attach, virtio_mmio_attach), and never learns which. `&device->base`
 * is the `struct device` that the machine lists, resets, saves, quiesces and removes; it takes the
 * transport's part (config space, registers) along.
 *
 * Threads and locks
 * - base.lock (virtio_lock) guards all of a device: status, features, configuration, queues, and
 *   the type's own fields unless it says otherwise. Every hook of the type is called with it held,
 *   except `remove`.
 * - Registers are accessed on hart threads under the lock. A queue notification takes no lock: it
 *   schedules the queue's task, which calls handle_queue on the loop's thread.
 * - Queues are touched on the loop's thread only, with the lock held. A back end that is called
 *   back by the loop (fd, timer, task) takes the lock itself; one with worker threads hands
 *   completions to a loop task.
 * - A hart thread that writes the status register may call `reset`. It holds the lock, the loop's
 *   thread may be waiting for it or for the harts: `reset` must not wait for the loop. It may wait
 *   for worker threads and for I/O that needs neither the lock nor the loop (reap it right there).
 * - Order: base.lock, then transport and interrupt controller locks (all inside irq delivery), and
 *   locks of memory/. Under the lock a device may schedule tasks, set timers and raise interrupts;
 *   it must not remove loop sources from a thread that is not the loop's.
 *
 * What the guest breaks: every rule of section 2.7 that a driver violates (index jumps, loops,
 * addresses out of RAM, nested indirection, empty buffers...) breaks the device: DEVICE_NEEDS_RESET
 * is set, a configuration interrupt is sent, and pops return NULL until the driver resets it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/base.h"
#include "memory/memory.h"

/* Feature bits of section 6 that the core deals with; offered by every device. */
#define VIRTIO_RING_INDIRECT_DESC 28
#define VIRTIO_RING_EVENT_IDX     29
#define VIRTIO_VERSION_1          32

#define VIRTIO_QUEUE_SIZE_MAX 1024
#define VIRTIO_CHAIN_MAX      1024 /* descriptors; what an indirect table may hold on any queue */

struct virtio_device;
struct virtio_queue;
struct virtio_transport;

struct virtio_device_type {
    const char *name;   /* "virtio-blk" */
    uint16_t id;        /* section 5 */
    uint32_t pci_class; /* class, subclass, interface: 0x018000 */

    /* The driver may have made buffers available. Pop until NULL, or until the back end is busy.
     * What was pushed is flushed by the core when this returns. Loop's thread; DRIVER_OK is set. */
    void (*handle_queue)(struct virtio_device *device, struct virtio_queue *queue);

    /* NULL, or: the driver wrote `size` bytes at offset of the configuration space, within
     * config_size. Nothing is stored; a field that can be written is updated here. Hart thread. */
    void (*config_written)(struct virtio_device *device, unsigned offset, uint32_t value,
                           unsigned size);

    /* NULL, or: the status register changed to device->status (FEATURES_OK: the negotiated features
     * are final; DRIVER_OK: queues are live), not called for a reset. Hart thread. */
    void (*status_changed)(struct virtio_device *device);

    /* The driver (or the machine) resets the device. On return nothing may touch guest memory any
     * more on its behalf: wait for I/O under way or cancel it, as above without the loop. Chains
     * that were popped are stale once this returns: free them here (virtio_chain_free), or push
     * them later, which then frees them and does nothing else. Any thread. */
    void (*reset)(struct virtio_device *device);

    /* NULL, or: finishes everything in flight (each popped chain is pushed) and makes acknowledged
     * data durable. Loop's thread; may wait. */
    void (*quiesce)(struct virtio_device *device);

    /* NULL, or: saves or loads the type's own fields (the core does features, status and queues).
     * Afterwards every queue's task is scheduled by the core, as after a notification. */
    void (*state)(struct virtio_device *device, struct stream *stream);

    /* Ends the back end, calls virtio_device_finish and frees the device. No lock held, loop's
     * thread; the transport is already gone. Also for devices that were never attached. */
    void (*remove)(struct virtio_device *device);
};

/* A split virtqueue (section 2.7). Fields are the core's; devices use `index` and `device`. */
struct virtio_queue {
    struct virtio_device *device;
    struct loop_task *task;
    uint16_t index;
    uint16_t size_max; /* what the device offers; a power of two */

    /* Written by the driver through the transport. */
    uint16_t size;
    uint16_t vector; /* of messages */
    bool enabled;
    uint64_t desc_gpa, avail_gpa, used_gpa;

    /* Host addresses of the three rings while enabled and usable, else NULL. */
    const uint8_t *desc;
    const uint8_t *avail;
    uint8_t *used;

    uint16_t avail_index; /* the next entry of the available ring to take */
    uint16_t avail_seen;  /* avail->idx when it was last read */
    uint16_t used_index;  /* used->idx as published */
    uint16_t used_staged; /* entries pushed behind used_index and not yet published */
    uint16_t in_flight;   /* chains popped and not yet pushed */
    uint32_t budget;      /* pops left to this run of handle_queue */
    uint32_t generation;  /* counts resets: tells stale chains */
    bool notify_off;      /* without EVENT_IDX: VIRTQ_USED_F_NO_NOTIFY is set */
};

struct virtio_device {
    struct device base;
    const struct virtio_device_type *type;
    struct loop *loop;
    struct memory *memory; /* NULL until attached */
    struct virtio_transport *transport;

    /* The configuration space (section 2.5): little-endian bytes that the type keeps up to date,
     * e.g. a struct virtio_blk_config; read by the guest under the lock. Reads behind its end are
     * 0. */
    const void *config;
    size_t config_size;
    uint32_t config_generation;

    uint64_t offered;  /* features; may be changed until the device is attached */
    uint64_t features; /* what the driver accepted; 0 after reset */
    uint8_t status;
    bool broken; /* DEVICE_NEEDS_RESET was raised; queues are dead until a reset */

    struct virtio_queue *queues;
    unsigned queue_count;
};

/*
 * Sets up everything but queues and configuration. `name` is unique in the machine ("blk0").
 * `features` are the device's own; those of the core are added.
 */
void virtio_device_init(struct virtio_device *device, const struct virtio_device_type *type,
                        const char *name, uint64_t features, struct loop *loop);

/* Adds a queue of at most `size` (a power of two up to VIRTIO_QUEUE_SIZE_MAX) entries. Only between
 * init and attach; pointers to queues are stable from the attach on. Queue n is queues[n]. */
void virtio_device_add_queue(struct virtio_device *device, unsigned size);

/* Frees what init and add_queue allocated (not `device`). Called by the type's `remove`. */
void virtio_device_finish(struct virtio_device *device);

static inline void virtio_lock(struct virtio_device *device)
{
    device_lock(&device->base);
}

static inline void virtio_unlock(struct virtio_device *device)
{
    device_unlock(&device->base);
}

/* True if feature `bit` was negotiated. */
static inline bool virtio_has_feature(const struct virtio_device *device, unsigned bit)
{
    return device->features & BIT(bit);
}

/* The bytes at device->config have changed: new generation and configuration interrupt. */
void virtio_config_changed(struct virtio_device *device);

/* The driver did what the specification forbids: DEVICE_NEEDS_RESET and a guest-errors trace. For
 * device types too, where a request cannot be answered with an error of its own. */
void virtio_device_break(struct virtio_device *device, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/*
 * One request: a descriptor chain, validated, as host memory. The readable part (from the driver)
 * comes before the writable part. The guest can change readable bytes at any time: copy a value out
 * (virtio_chain_read) before checking and using it.
 *
 * Owned by whoever popped it until it is pushed or freed. Its memory stays valid for ever, but the
 * device must not write it after `reset` returned.
 */
struct virtio_chain {
    struct virtio_queue *queue;
    uint32_t generation;
    uint16_t head;
    uint16_t readable_count, writable_count; /* elements of the arrays; either may be 0 */
    struct iovec *readable, *writable;
    size_t readable_size, writable_size; /* bytes, each below 4 GiB */
    uint64_t *writable_gpa;              /* of each element of `writable` */
};

/* The next available chain; NULL if there is none (notifications are then on), the queue cannot be
 * used now (not enabled, device broken or reset, DMA turned off), or handle_queue has taken so many
 * that others should get their turn (it is then called again). */
struct virtio_chain *virtio_queue_pop(struct virtio_queue *queue);

/* Undoes pops, the last one first, with no push of these chains. */
void virtio_queue_unpop(struct virtio_chain *chain);

/*
 * Gives the chain back with `written` bytes written at the front of its writable part (the whole
 * part counts as written where a status stands at its end), and frees it. The driver sees nothing
 * before the flush, so that several chains (a merged receive buffer) appear at once.
 */
void virtio_queue_push(struct virtio_chain *chain, size_t written);

/* Publishes what was pushed and interrupts the driver if it wants that. */
void virtio_queue_flush(struct virtio_queue *queue);

/* Frees a stale chain (after a reset) without pushing it. Accepts NULL. */
void virtio_chain_free(struct virtio_chain *chain);

/* True if the device was reset since the chain was popped: its result is of no interest. */
bool virtio_chain_stale(const struct virtio_chain *chain);

/* Copy from the readable / to the writable part, at offset; return the bytes copied: fewer than
 * `size` where the part ends. */
size_t virtio_chain_read(const struct virtio_chain *chain, size_t offset, void *buffer,
                         size_t size);
size_t virtio_chain_write(const struct virtio_chain *chain, size_t offset, const void *buffer,
                          size_t size);

/* Runs handle_queue soon on the loop's thread: for back ends that became ready. Any thread. */
void virtio_queue_schedule(struct virtio_queue *queue);

/* True if the driver has made the queue usable: enabled, DRIVER_OK, not broken. */
bool virtio_queue_ready(const struct virtio_queue *queue);

/*
 * Transports. Attaching can fail (slot taken, no such slot); the device then stays the caller's.
 * Once attached, removing the device (base.type->remove) detaches it first.
 */

struct pci_bus;

/* Makes the device PCI function SLOT.0 (slot 0..31) of the bus (section 4.1). */
bool virtio_pci_attach(struct pci_bus *bus, unsigned slot, struct virtio_device *device,
                       struct error *err);

#define VIRTIO_MMIO_SIZE 0x1000

/*
 * A slot of the MMIO transport (section 4.2), mapped at [base, base + VIRTIO_MMIO_SIZE). Empty, it
 * reads as device ID 0, which drivers skip. Create it before its device, remove it after.
 */
struct virtio_mmio;
struct virtio_mmio *virtio_mmio_create(struct memory *memory, uint64_t base, struct irq_line irq,
                                       const char *name, struct error *err);
bool virtio_mmio_attach(struct virtio_mmio *slot, struct virtio_device *device, struct error *err);
struct device *virtio_mmio_device(struct virtio_mmio *slot);
