/* The host bridge's inside, shared by its files. */
#pragma once

#include <pthread.h>

#include "pci/pci.h"

/* Offsets in the type 0 header (PCI Express Base 6.0, section 7.5.1). */
enum pci_offset {
    PCI_VENDOR_ID = 0x00,
    PCI_DEVICE_ID = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CLASS = 0x09,
    PCI_CACHE_LINE = 0x0c,
    PCI_LATENCY = 0x0d,
    PCI_HEADER_TYPE = 0x0e,
    PCI_BAR_0 = 0x10,
    PCI_SUBSYSTEM_VENDOR = 0x2c,
    PCI_SUBSYSTEM_ID = 0x2e,
    PCI_ROM = 0x30,
    PCI_CAPABILITIES = 0x34,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,
    PCI_HEADER_END = 0x40,
    PCI_CONVENTIONAL_END = 0x100,
};

/* Those of a bridge's, the type 1 header, that differ (section 7.5.1.3). */
enum pci_bridge_offset {
    PCI_PRIMARY_BUS = 0x18,
    PCI_SECONDARY_BUS = 0x19,
    PCI_SUBORDINATE_BUS = 0x1a,
    PCI_IO_BASE = 0x1c,
    PCI_IO_LIMIT = 0x1d,
    PCI_SECONDARY_STATUS = 0x1e,
    PCI_MEMORY_BASE = 0x20,
    PCI_MEMORY_LIMIT = 0x22,
    PCI_PREFETCH_BASE = 0x24,
    PCI_PREFETCH_LIMIT = 0x26,
    PCI_PREFETCH_BASE_UPPER = 0x28,
    PCI_PREFETCH_LIMIT_UPPER = 0x2c,
    PCI_IO_BASE_UPPER = 0x30,
    PCI_IO_LIMIT_UPPER = 0x32,
    PCI_BRIDGE_CONTROL = 0x3e,
};

#define PCI_COMMAND_IO           0x0001
#define PCI_COMMAND_MEMORY       0x0002
#define PCI_COMMAND_MASTER       0x0004
#define PCI_COMMAND_PARITY       0x0040
#define PCI_COMMAND_SERR         0x0100
#define PCI_COMMAND_INTX_DISABLE 0x0400
#define PCI_STATUS_INTERRUPT     0x0008
#define PCI_STATUS_CAPABILITIES  0x0010
#define PCI_STATUS_ERRORS        0xf900 /* write 1 to clear */
#define PCI_MULTIFUNCTION        0x80
#define PCI_HEADER_BRIDGE        0x01
#define PCI_BRIDGE_PARITY        0x0001
#define PCI_BRIDGE_SERR          0x0002
#define PCI_CAPABILITY_EXPRESS   0x10

/* The root bus, whose number is 0, or the secondary bus of a bridge, whose registers number it. */
struct pci_bus {
    struct pci_host *host;
    struct pci_device *bridge; /* NULL: the root bus */
    /* Under the config lock: */
    struct pci_device *functions[256]; /* by devfn */
    struct pci_bus *next;              /* of all buses of the host; the root bus is the first */
};

struct pci_host {
    struct device base;
    struct memory *memory;
    struct pci_host_config config;

    pthread_mutex_t config_lock;
    pthread_cond_t mapped; /* signalled when `mapping` turns false */
    bool mapping;          /* a thread is in pci_apply_mappings */
    bool mapping_stale;    /* a BAR or command register was written since that thread last looked */

    pthread_mutex_t intx_lock; /* innermost but for the interrupt controller's */
    unsigned intx_count[4];    /* functions that assert each line */

    struct pci_bus root;
    struct pci_device bridge; /* 00:00.0 */
};

/* As pci_device_init, for a function with the header of a bridge. */
void pci_bridge_init(struct pci_device *device, const struct pci_device_type *type,
                     const struct pci_identity *identity);
/* The bus that configuration accesses to `number` reach, or NULL. Config lock held. */
struct pci_bus *pci_find_bus(struct pci_host *host, unsigned number);
/* Whether all bridges above the bus let accesses to the range through. Config lock held. */
bool pci_bridges_forward(const struct pci_bus *bus, bool io, uint64_t address, uint64_t size);

/* Maps and unmaps BARs until each is where its registers say. No lock held. */
void pci_apply_mappings(struct pci_host *host);

/* As above, and waits until another thread that does it is done. Not on a hart thread. */
void pci_settle_mappings(struct pci_host *host);

/* The configuration space of a function with MSI or MSI-X was written, is about to be read (MSI
 * alone), was reset. Config lock held. */
void pci_messages_apply(struct pci_device *device);
void pci_messages_refresh(struct pci_device *device);
void pci_messages_reset(struct pci_device *device);
/* What is not in the configuration space. */
void pci_messages_state(struct pci_device *device, struct stream *stream);

/* Sends the device's INTx level on if the command register lets it. */
void pci_update_intx(struct pci_device *device);
