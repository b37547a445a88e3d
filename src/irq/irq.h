/*
 * Interrupt controllers: ACLINT (software and timer interrupts), and PLIC (wired interrupts) or
 * APLIC (wired) and IMSIC (message-signalled interrupts) of the AIA.
 *
 * A controller raises harts' interrupt inputs through irq_line values that its configuration
 * gives, and hands out irq_line values for its own inputs. Inputs may be set on any thread;
 * outputs are set with the controller's lock held.
 *
 * Each controller is a device whose mmio_ops take the controller as `opaque`.
 */
#pragma once

#include "base/clock.h"
#include "base/device.h"
#include "base/loop.h"

struct memory;

enum {
    ACLINT_SIZE = 0x10000,   /* bytes of registers, as the CLINT of QEMU's virt board */
    ACLINT_HARTS_MAX = 4095, /* mtimecmp registers that fit below mtime */
    PLIC_SIZE = 0x600000,    /* bytes of registers on QEMU's virt board, whatever its harts */
    PLIC_PRIORITY_MAX = 7,   /* 0 means never */
    PLIC_SOURCES_MAX = 1023, /* PLIC specification 1.0.0 */
    PLIC_HARTS_MAX = 512,    /* two contexts a hart, as many as PLIC_SIZE has room for */
    APLIC_SIZE = 0x8000,     /* bytes of registers of each domain on QEMU's virt board */
    APLIC_SOURCES_MAX = 1023,
    APLIC_HARTS_MAX = 512, /* as many as APLIC_SIZE has room for */
    IMSIC_PAGE_SIZE = 0x1000,
    IMSIC_IDENTITIES = 255, /* of each file: 1 to 255 */
};

/*
 * ACLINT 1.0, MSWI and MTIMER devices in the places of the SiFive CLINT: msip of hart n at 4n,
 * mtimecmp at 0x4000 + 8n, mtime at 0xbff8. Registers take 32- and 64-bit accesses. After reset
 * every mtimecmp is all ones and mtime is 0.
 */
struct aclint_config {
    struct loop *loop;
    struct clock *clock; /* mtime; written when the guest writes mtime, and at reset */
    unsigned harts;
    const struct irq_line *software; /* [harts], copied: MSIP of each hart */
    const struct irq_line *timer;    /* [harts], copied: MTIP of each hart */
    /* NULL or: the clock was set, so other users of it (stimecmp) must compare again. */
    void (*time_changed)(void *opaque);
    void *opaque;
};

struct aclint;

extern const struct mmio_ops aclint_ops;

struct aclint *aclint_create(const char *name, const struct aclint_config *config);
struct device *aclint_device(struct aclint *aclint);

/* Compares mtime with every mtimecmp again: after the clock was thawed, set or restored by somebody
 * else. Any thread. The clock's time is part of the ACLINT's state(). */
void aclint_update(struct aclint *aclint);

/*
 * PLIC specification 1.0.0 with level-triggered gateways. Context 2n is M-mode of hart n, context
 * 2n + 1 its S-mode. A request that the gateway has forwarded stays pending until it is claimed
 * even if the line falls. Registers are 32 bits wide.
 */
struct plic_config {
    unsigned harts;                    /* 1..PLIC_HARTS_MAX */
    unsigned sources;                  /* riscv,ndev: sources 1..sources; at most 1023 */
    const struct irq_line *machine;    /* [harts], copied: MEIP of each hart */
    const struct irq_line *supervisor; /* [harts], copied: SEIP of each hart */
};

struct plic;

extern const struct mmio_ops plic_ops;

struct plic *plic_create(const char *name, const struct plic_config *config);
struct device *plic_device(struct plic *plic);

/* The input `source`, 1..sources. Setting a high level again is a new request if the last one was
 * completed meanwhile. */
struct irq_line plic_line(struct plic *plic, unsigned source);

/*
 * Calls `callback` (NULL: nothing) whenever a hart completes `source`, before the gateway samples
 * the line again and with no lock held, so that it may lower the line (INTx resampling). On the
 * completing hart's thread. Set while harts are stopped, or before the source is in use.
 */
void plic_on_complete(struct plic *plic, unsigned source,
                      void (*callback)(void *opaque, unsigned source), void *opaque);

/*
 * IMSIC of one privilege (AIA 1.0, chapter 3): an interrupt file a hart, without files for guests.
 * The page of hart n is at IMSIC_PAGE_SIZE * n; its registers take 32-bit writes on any thread,
 * with any lock held (memory_add_messages).
 */
struct imsic_config {
    unsigned harts;
    const struct irq_line *notify; /* [harts], copied: set when the hart is to look at its file */
};

struct imsic;

extern const struct mmio_ops imsic_ops;

struct imsic *imsic_create(const char *name, const struct imsic_config *config);
struct device *imsic_device(struct imsic *imsic);
struct interrupt_file imsic_file(struct imsic *imsic, unsigned hart);

/*
 * APLIC (AIA 1.0, chapter 4): a machine-level domain, the root, and a supervisor-level one that is
 * its child. Registers are 32 bits wide, little-endian, APLIC_SIZE bytes for each domain. The
 * delivery mode is fixed: by messages to IMSICs, or direct.
 */
struct aplic_config {
    unsigned harts;   /* 1..APLIC_HARTS_MAX */
    unsigned sources; /* riscv,num-sources: sources 1..sources */
    /* Where messages are sent (memory_send_message); NULL: direct mode. */
    struct memory *messages;
    /* [harts], copied: MEIP and SEIP of each hart, for direct mode; else NULL. */
    const struct irq_line *machine, *supervisor;
    /* There is no firmware: after reset every source is delegated to the supervisor-level domain,
     * and messages go to the IMSICs at these GPAs. */
    bool delegated;
    uint64_t machine_files, supervisor_files;
};

struct aplic;

/* For the `opaque` that aplic_domain gives. */
extern const struct mmio_ops aplic_ops;

struct aplic *aplic_create(const char *name, const struct aplic_config *config);
struct device *aplic_device(struct aplic *aplic);
void *aplic_domain(struct aplic *aplic, bool supervisor);

/* The input `source`, 1..sources. */
struct irq_line aplic_line(struct aplic *aplic, unsigned source);

/*
 * Messages have no end of interrupt: a driver that has handled a level writes setipnum, and the
 * interrupt is sent again if the level is still there. Calls `callback` (NULL: nothing) before
 * that, on the hart's thread and with no lock held, so that it may lower the line (INTx
 * resampling). Set while harts are stopped, or before the source is in use.
 */
void aplic_on_reevaluate(struct aplic *aplic, unsigned source,
                         void (*callback)(void *opaque, unsigned source), void *opaque);
