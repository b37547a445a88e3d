/*
 * PCI Express: the ECAM host bridge, root ports, configuration space, BARs, INTx, MSI and MSI-X.
 *
 * A function is a `struct pci_device` inside its owner (a virtio transport, a root port, later a
 * VFIO device), which initialises it, describes its BARs and capabilities, and attaches it to a
 * bus. Configuration space is bytes with two masks (writable, write 1 to clear); an owner that
 * needs more hooks reads and writes.
 *
 * Threads: configuration accesses come on hart threads, serialised by the host's config lock, which
 * is held around the hooks except bar_moved. A hook may take its device's lock; so whoever holds a
 * device's lock must not call functions here but pci_set_intx, pci_msix_send, pci_msi_send and the
 * two that tell whether these are enabled, which any thread may call. Describing, attaching,
 * detaching, reset and state: the loop's thread.
 *
 * BARs are mapped and unmapped by the thread that wrote the register, after the config lock is
 * released. If two harts do so at once, one of them does the work of both.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/base.h"
#include "memory/memory.h"

#define PCI_CONFIG_SIZE 4096
#define PCI_SLOTS       32
#define PCI_BARS        7 /* six and the expansion ROM */
#define PCI_BAR_ROM     6
#define PCI_UNMAPPED    UINT64_MAX

#define PCI_DEVFN(slot, function) ((slot) << 3 | (function))

struct pci_host;
struct pci_bus;
struct pci_device;

/* Where the host bridge's windows are. Memory windows are identity-mapped; sizes in bytes. */
struct pci_host_config {
    uint64_t ecam_base, ecam_size; /* 1 MiB a bus, at most 256 MiB */
    uint64_t io_base, io_size;     /* port 0 is at io_base */
    uint64_t mmio32_base, mmio32_size;
    uint64_t mmio64_base, mmio64_size; /* prefetchable; size 0: none */
    struct irq_line intx[4];           /* INTA..INTD of slot 0; slots rotate over them */
    bool messages;                     /* memory has registers for messages: MSI and MSI-X work */
};

/* Creates the host bridge (00:00.0, 1b36:0008) and its root bus, and maps the ECAM. */
struct pci_host *pci_host_create(struct memory *memory, const struct pci_host_config *config,
                                 struct error *err);
/* What the machine lists; removing it requires every function on its buses to be detached. */
struct device *pci_host_device(struct pci_host *host);
struct pci_bus *pci_host_bus(struct pci_host *host);
struct memory *pci_bus_memory(struct pci_bus *bus);
/* Whether functions should have MSI or MSI-X. */
bool pci_bus_has_messages(const struct pci_bus *bus);

/*
 * A root port at `devfn` of the root bus, with a slot whose number is the guest's to see. What is
 * attached to its bus is seen behind the windows and the bus number that the guest gives it. It is
 * removed after all that is attached to its bus. NULL if devfn is taken.
 */
#define PCI_ROOT_PORT_SLOT_MAX 255

struct pci_root_port;

struct pci_root_port *pci_root_port_create(struct pci_bus *bus, unsigned devfn, unsigned slot,
                                           struct error *err);
struct device *pci_root_port_device(struct pci_root_port *port);
struct pci_bus *pci_root_port_bus(struct pci_root_port *port);

enum pci_bar_kind {
    PCI_BAR_NONE,
    PCI_BAR_IO,
    PCI_BAR_MEMORY32,
    PCI_BAR_MEMORY64, /* takes the next index as well */
};

struct pci_bar {
    enum pci_bar_kind kind;
    bool prefetchable;
    uint64_t size;              /* a power of two, at least 16 (4 for I/O) */
    const struct mmio_ops *ops; /* NULL: memory, or the owner maps it, in bar_moved */
    void *opaque;
    uint8_t *host; /* NULL: not memory */

    /* The host's, under its config lock. */
    uint64_t mapped;  /* GPA at which it is mapped, or PCI_UNMAPPED */
    uint64_t refused; /* GPA at which mapping failed: not tried again until something moves */
};

struct pci_device_type {
    const char *name;
    /* NULL or: called instead of pci_config_read / pci_config_write, which it may call. Offset is a
     * multiple of size (1, 2, 4). Config lock held. */
    uint32_t (*config_read)(struct pci_device *device, unsigned offset, unsigned size);
    void (*config_write)(struct pci_device *device, unsigned offset, uint32_t value, unsigned size);
    /* NULL or: the command register was written. Config lock held. */
    void (*command_changed)(struct pci_device *device);
    /* For BARs without ops: maps them at GPA `to` after unmapping them from `from` (either may be
     * PCI_UNMAPPED). False if it could not be mapped. No lock held. */
    bool (*bar_moved)(struct pci_device *device, unsigned bar, uint64_t from, uint64_t to);
};

struct pci_device {
    const struct pci_device_type *type;
    struct pci_bus *bus;       /* NULL while detached */
    struct pci_bus *secondary; /* of a bridge; NULL: it is none */
    uint8_t devfn;
    struct pci_bar bars[PCI_BARS];

    uint8_t config[PCI_CONFIG_SIZE];
    uint8_t writable[PCI_CONFIG_SIZE];
    uint8_t clear_by_one[PCI_CONFIG_SIZE]; /* RW1C bits */
    uint8_t initial[PCI_CONFIG_SIZE];      /* what a reset restores; taken at the attach */
    uint16_t capability_last, capability_free;
    uint16_t extended_last, extended_free;

    struct pci_msix *msix; /* NULL: none; as is the next */
    struct pci_msi *msi;
    _Atomic bool messages; /* one of them is enabled: INTx is not used */

    /* Command bit 2, here and in all bridges above: the device may read and write guest memory. */
    _Atomic bool bus_master;
    _Atomic bool intx_level;    /* what the device asks for: the status register's bit */
    _Atomic bool intx_disabled; /* command bit 10 */
    bool intx_sent;             /* under the host's intx lock */
};

struct pci_identity {
    uint16_t vendor, device, subsystem_vendor, subsystem;
    uint32_t class_code; /* class, subclass, interface: 0x018000 */
    uint8_t revision;
    uint8_t interrupt_pin; /* 1..4: INTA..INTD; 0: none */
};

void pci_device_init(struct pci_device *device, const struct pci_device_type *type,
                     const struct pci_identity *identity);

/* Describes BAR `index`. Before the attach. */
void pci_add_bar(struct pci_device *device, unsigned index, enum pci_bar_kind kind,
                 bool prefetchable, uint64_t size, const struct mmio_ops *ops, void *opaque);

/* The same for a BAR that shows `size` bytes of host memory, in whole pages: harts access it with
 * no call. The owner keeps it alive until the device is detached. */
void pci_add_memory_bar(struct pci_device *device, unsigned index, enum pci_bar_kind kind,
                        bool prefetchable, uint64_t size, uint8_t *host);

/*
 * Appends a capability of `size` bytes (its two-byte header included) to the list and returns its
 * offset: the body is config[offset + 2...], for the caller to fill, with bits that the guest may
 * write set in `writable`. Before the attach. Asserts that it fits.
 */
unsigned pci_add_capability(struct pci_device *device, uint8_t id, unsigned size);
/* The same for extended capabilities, whose header has four bytes. */
unsigned pci_add_extended_capability(struct pci_device *device, uint16_t id, uint8_t version,
                                     unsigned size);

/* Makes it function `devfn` of the bus. Fails if that is taken. */
bool pci_device_attach(struct pci_device *device, struct pci_bus *bus, unsigned devfn,
                       struct error *err);
/* Unmaps its BARs and takes it off the bus: no hook or register function runs any more. A device
 * that is not attached is left alone. */
void pci_device_detach(struct pci_device *device);

/* Configuration space as after power-on, BARs unmapped, INTx low. */
void pci_device_reset(struct pci_device *device);
void pci_device_state(struct pci_device *device, struct stream *stream);

/* Plain accesses by the masks, BARs and command register included. Config lock held. */
uint32_t pci_config_read(struct pci_device *device, unsigned offset, unsigned size);
void pci_config_write(struct pci_device *device, unsigned offset, uint32_t value, unsigned size);

/* The level the device drives on its INTx pin; the command register may hold it back. */
void pci_set_intx(struct pci_device *device, bool level);
/* Which of the host bridge's lines, 0 to 3, the pin of an attached function ends in. */
unsigned pci_intx_line(const struct pci_device *device);

/*
 * Message-signalled interrupts, for buses that have them: a vector is a 4-byte store to an IMSIC
 * page (memory_send_message). The owner keeps the struct beside its pci_device and gives it vectors
 * from any thread, with any lock held; its lock is the function's own, and innermost. While one of
 * the two capabilities is enabled INTx is silent. A masked vector stays pending until it is
 * unmasked.
 */
#define PCI_MSIX_VECTORS_MAX 2048

struct pci_msix {
    struct pci_device *device;
    unsigned capability, count, pending_offset, pending_words;
    pthread_mutex_t lock; /* guards what follows */
    uint8_t *table;       /* as the guest sees it */
    uint64_t *pending;
    _Atomic bool enabled; /* readable without the lock */
    bool masked;
};

/* Adds the capability, and BAR `bar` with table and pending bits. Before the attach. Finished after
 * the detach, by the owner. */
void pci_msix_init(struct pci_msix *msix, struct pci_device *device, unsigned bar,
                   unsigned vectors);
void pci_msix_finish(struct pci_msix *msix);
bool pci_msix_enabled(const struct pci_msix *msix);
/* Does nothing while MSI-X is off, or where there is no such vector. */
void pci_msix_send(struct pci_msix *msix, unsigned vector);

/*
 * For a function whose capability and table are where real hardware has them: the capability is in
 * config at that offset already, and the owner routes accesses of 4 bytes to table and pending bits
 * (from offset 0 on) to these. pci_msix_unmasked: MSI-X is enabled and the entry's own mask clear.
 */
void pci_msix_adopt(struct pci_msix *msix, struct pci_device *device, unsigned capability,
                    unsigned vectors);
uint32_t pci_msix_table_read(struct pci_msix *msix, uint64_t offset);
void pci_msix_table_write(struct pci_msix *msix, uint64_t offset, uint32_t value);
uint32_t pci_msix_pending_read(struct pci_msix *msix, uint64_t offset);
bool pci_msix_unmasked(struct pci_msix *msix, unsigned vector);

struct pci_msi {
    struct pci_device *device;
    unsigned capability, data_at, mask_at; /* offsets; mask_at 0: there is no mask */
    pthread_mutex_t lock;                  /* guards what follows: a copy of the registers */
    uint64_t address;
    uint32_t data, mask, pending;
    unsigned vectors;     /* enabled, a power of two */
    _Atomic bool enabled; /* readable without the lock */
};

/* The same for MSI, with 64-bit addresses and a mask; vectors: 1, 2, 4 ... 32. */
void pci_msi_init(struct pci_msi *msi, struct pci_device *device, unsigned vectors);
/* In the form of the capability that is in config at that offset. Its bytes, by its control
 * register. */
void pci_msi_adopt(struct pci_msi *msi, struct pci_device *device, unsigned capability);
unsigned pci_msi_size(uint16_t control);
void pci_msi_finish(struct pci_msi *msi);
bool pci_msi_enabled(const struct pci_msi *msi);
void pci_msi_send(struct pci_msi *msi, unsigned vector);
