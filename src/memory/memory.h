/*
 * The guest physical address space: RAM, device registers, and DMA.
 *
 * Guest physical addresses (GPA) are 64-bit. RAM is a list of regions, never one pointer. Lookup
 * functions may be called from any thread; mapping and unmapping from any thread that holds no lock
 * which a register function takes, also from within register functions. RAM and ROM stay mapped for
 * the life of the memory.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/device.h"
#include "base/error.h"

#define MEMORY_PAGE_SIZE  4096
#define MEMORY_PAGE_SHIFT 12

struct memory;

struct memory_ram {
    uint64_t base; /* GPA, page-aligned */
    uint64_t size; /* bytes, page-aligned */
    uint8_t *host; /* shared mapping of [fd, fd_offset), or private memory */
    int fd;        /* -1: none */
    uint64_t fd_offset;
};

struct memory *memory_create(void);
void memory_destroy(struct memory *memory);

/*
 * Adds RAM at [base, base + size), zero-filled, on huge pages where the host has them. Fails if it
 * overlaps, is not page-aligned, or the host has not enough address space; the message names the
 * size.
 */
bool memory_add_ram(struct memory *memory, uint64_t base, uint64_t size, struct error *err);

/* RAM that is added from now on is a memfd, which other processes can map. */
void memory_share_ram(struct memory *memory);

/*
 * Maps whole pages that the caller owns and keeps alive as readable and executable, not writable.
 * Stores go to ops->write, or are access faults where ops is NULL. (With ops, memory_set_rom_mode
 * can turn the reads into register reads as well: flash in its command modes.)
 */
bool memory_add_rom(struct memory *memory, uint64_t base, uint64_t size, uint8_t *host,
                    const struct mmio_ops *ops, void *opaque, struct error *err);

/*
 * true: reads of the ROM region at base go to ops->read and its contents cannot be executed;
 * false: they read the memory. Changing it makes every hart drop its translations of the region,
 * and waits for that: to be called with no lock that a register function takes.
 */
void memory_set_rom_mode(struct memory *memory, uint64_t base, bool registers);

/*
 * Maps device registers. base and size need not be page-aligned. Overlaps are refused. `name` is
 * copied (and cut at 31 characters). Where ops lacks read or write, such accesses are refused.
 */
bool memory_add_mmio(struct memory *memory, uint64_t base, uint64_t size,
                     const struct mmio_ops *ops, void *opaque, const char *name, struct error *err);

/*
 * Makes accesses to [base, base + size) that hit nothing else read as all ones and vanish when
 * written, instead of faulting: the windows of a PCI bus (a master abort). Before harts run; a few
 * windows at most.
 */
void memory_add_background(struct memory *memory, uint64_t base, uint64_t size);

/*
 * Maps registers as memory_add_mmio does that message-signalled interrupts are for: their write
 * function takes no lock that a sender could hold. They stay for the life of the memory. Before
 * harts run; a few at most.
 */
bool memory_add_messages(struct memory *memory, uint64_t base, uint64_t size,
                         const struct mmio_ops *ops, void *opaque, const char *name,
                         struct error *err);

/*
 * What a message-signalled interrupt is: 4 bytes written by a device, to registers added with
 * memory_add_messages or to RAM. Elsewhere it is lost (false). Takes no lock; any thread, with any
 * lock held.
 */
bool memory_send_message(struct memory *memory, uint64_t gpa, uint32_t data);

/*
 * Maps whole pages of memory that belong to a device (a BAR that shows host memory): harts load and
 * store there with one host access of the guest's width, but do not execute it, and DMA does not
 * reach it. The caller keeps it alive until memory_remove_mmio has returned.
 */
bool memory_add_device_memory(struct memory *memory, uint64_t base, uint64_t size, uint8_t *host,
                              const char *name, struct error *err);

/* Unmaps the registers or device memory that start at base, if any; on return no register function
 * of theirs is running, except one on the calling thread, and no hart accesses the memory or has it
 * in its TLB. */
void memory_remove_mmio(struct memory *memory, uint64_t base);

/* RAM regions, without ROM, in ascending order of base; *count is set. The array stays valid for
 * the life of the memory, as the regions were when it was asked for. */
const struct memory_ram *memory_ram_regions(const struct memory *memory, size_t *count);

/* Total bytes of RAM. */
uint64_t memory_ram_size(const struct memory *memory);

enum memory_kind {
    MEMORY_NONE, /* nothing there: an access fault */
    MEMORY_RAM,
    MEMORY_ROM,    /* reads and fetches as RAM, stores through memory_write (also watched RAM,
                    * where memory_dma_begin for writing gives AMOs the host address) */
    MEMORY_MMIO,   /* through memory_read / memory_write only */
    MEMORY_DEVICE, /* loads and stores as RAM; nothing else */
};

/*
 * What a whole page is made of. For RAM, ROM and device memory *host is the host address of the
 * page. A page that is partly registers is MEMORY_MMIO. This is what a TLB is filled from.
 */
enum memory_kind memory_page(struct memory *memory, uint64_t gpa, uint8_t **host);

/* One piece of the address space, for people. */
struct memory_range {
    uint64_t base, size;
    enum memory_kind kind;
    const char *name;
};

/* Tells of all memory, then of all registers, each in ascending order. The callback must not map or
 * unmap. */
void memory_list(struct memory *memory,
                 void (*tell)(void *opaque, const struct memory_range *range), void *opaque);

/*
 * One access of 1, 2, 4 or 8 bytes by a hart, to whatever is there. A misaligned access to
 * registers is refused. Returns false where nothing answers (an access fault).
 */
bool memory_read(struct memory *memory, uint64_t gpa, unsigned size, uint64_t *value);
bool memory_write(struct memory *memory, uint64_t gpa, unsigned size, uint64_t value);

/*
 * Loads and stores of 1, 2, 4 or 8 bytes. Aligned ones are a single host access, since guests and
 * devices rely on seeing whole values; others may tear.
 */
uint64_t memory_host_load(const uint8_t *host, unsigned size);
void memory_host_store(uint8_t *host, uint64_t value, unsigned size);

/*
 * DMA: how devices, firmware services and debuggers reach RAM (and ROM, for reading). False if any
 * part of the range is not RAM; then nothing was written. Writes invalidate translated code. Any
 * size, any alignment, across regions; an aligned 1, 2, 4 or 8 bytes are one host access.
 */
bool memory_dma_read(struct memory *memory, uint64_t gpa, void *buffer, size_t size);
bool memory_dma_write(struct memory *memory, uint64_t gpa, const void *buffer, size_t size);
bool memory_dma_fill(struct memory *memory, uint64_t gpa, uint8_t byte, uint64_t size);

/*
 * Direct access for scatter-gather I/O. Returns the host address of [gpa, gpa + *size), with *size
 * cut down to what is contiguous there, or NULL if gpa is not RAM. A buffer begun with `write` must
 * be ended by memory_dma_end after its last byte was written, so that translations learn of it.
 * Guest memory changes under the reader: fetch each value once, then check it.
 */
void *memory_dma_begin(struct memory *memory, uint64_t gpa, size_t *size, bool write);
void memory_dma_end(struct memory *memory, uint64_t gpa, size_t size, bool write);

/*
 * Called (on the thread that changes something) when host addresses or contents that harts may have
 * cached are no longer right: [gpa, gpa + size) was remapped, or written past the harts. One
 * listener per engine; the machine installs it. Registers that come and go are not reported: nobody
 * keeps more of them than "not RAM". Device memory is. `remapped` may wait for other harts;
 * `code_written` may not, as DMA goes on under the locks of devices; it is also called by harts.
 * Neither may map or unmap.
 */
struct memory_listener {
    void (*remapped)(void *opaque, uint64_t gpa, uint64_t size);
    void (*code_written)(void *opaque, uint64_t gpa, uint64_t size);
    void *opaque;
};

/* Copies the listener; NULL takes it away. Before harts run. */
void memory_set_listener(struct memory *memory, const struct memory_listener *listener);

/*
 * Translated code. An engine marks each page of RAM before it reads the bytes it translates; writes
 * to marked pages through the DMA calls, or by memory_write, clear the mark and call code_written
 * for the whole page (runs of pages in one call). So does a hart that gets a fast path for stores
 * to the page, which are not noticed one by one. False, without a mark, as long as a hart may have
 * one, and for what is not RAM. Any thread.
 */
bool memory_mark_code(struct memory *memory, uint64_t gpa);

/*
 * A hart is about to get a fast path for stores to a page. False: it shall not, since there is code
 * in the page; with `needed` it may all the same. Any thread.
 */
bool memory_allow_stores(struct memory *memory, uint64_t gpa, bool needed);

/* Returns when code_written has been called for all marks that were taken away so far. */
void memory_wait_reports(struct memory *memory);

/* No hart has a fast path for stores to the page, or each of them loses it before the engine that
 * calls this marks the page again. */
void memory_forget_stores(struct memory *memory, uint64_t gpa);

/*
 * Calls `written` (on the hart's thread) after each hart store that touches [gpa, gpa + size) of
 * RAM, which then no longer has a fast path for stores to that page. For words such as HTIF's
 * tohost. Before harts run only; a few watches at most. AMOs and DMA are not reported; a range that
 * is not within one RAM region is ignored. `gpa` is the address of the store.
 */
void memory_watch(struct memory *memory, uint64_t gpa, uint64_t size,
                  void (*written)(void *opaque, uint64_t gpa), void *opaque);

/* Saves or loads the contents of RAM. Zero pages take one bit. */
void memory_state(struct memory *memory, struct stream *stream);
