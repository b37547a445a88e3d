/*
 * The board's own devices. Each x_create returns the instance; x_device gives its `struct device`
 * for the machine's list (reset, state, remove). The machine maps `x_ops` with the instance as
 * opaque at an address of its choice; only flash maps itself, because its mode changes the map.
 */
#pragma once

#include "base/device.h"
#include "base/error.h"
#include "base/loop.h"
#include "device/chardev.h"
#include "memory/memory.h"

enum {
    UART_SIZE = 0x8, /* bytes of registers, reg-shift 0 */
    UART_CLOCK_HZ = 3686400,
    RTC_SIZE = 0x1000,
    FINISHER_SIZE = 0x1000,
    FW_CFG_SIZE = 0x18,
    FLASH_SECTOR_SIZE = 256 * 1024, /* of a bank: two chips of 128 KiB sectors */
    FLASH_BANK_WIDTH = 4,           /* bytes: two x16 chips side by side */
};

/*
 * National Semiconductor 16550A (data sheet PC16550D). Sending takes no time while the channel
 * takes bytes; otherwise THRE stays 0 until it does. Receive timing follows the programmed rate,
 * for the character timeout only.
 */
struct uart_config {
    struct loop *loop;
    struct chardev *chardev; /* NULL: nothing is connected. Must outlive the UART. */
    struct irq_line irq;
};
struct uart;
extern const struct mmio_ops uart_ops;
struct uart *uart_create(const char *name, const struct uart_config *config);
struct device *uart_device(struct uart *uart);

/* Takes up to `size` received bytes, as a driver reading RBR would: for firmware that shares the
 * port with a kernel (SBI debug console). Returns how many there were. Any thread. */
size_t uart_take_input(struct uart *uart, void *bytes, size_t size);

/*
 * Goldfish RTC: nanoseconds since 1970 as the host's clock has them, plus an offset that the guest
 * sets by writing the time. The offset survives a reset, as a battery would make it. 32-bit
 * registers.
 */
struct rtc_config {
    struct loop *loop;
    struct irq_line irq;
};
struct rtc;
extern const struct mmio_ops rtc_ops;
struct rtc *rtc_create(const char *name, const struct rtc_config *config);
struct device *rtc_device(struct rtc *rtc);

/* SiFive test finisher, which is also the board's syscon: a word written at offset 0 ends or
 * resets the machine. */
enum finisher_action {
    FINISHER_PASS,
    FINISHER_FAIL,
    FINISHER_RESET,
};
struct finisher_config {
    /* On the hart's thread, no lock held. `code` is the exit code, 0..65535, for FAIL; else 0. */
    void (*finished)(void *opaque, enum finisher_action action, unsigned code);
    void *opaque;
};
struct finisher;
extern const struct mmio_ops finisher_ops;
struct finisher *finisher_create(const char *name, const struct finisher_config *config);
struct device *finisher_device(struct finisher *finisher);

/*
 * One bank of CFI parallel NOR flash, Intel command set 0x0001: two x16 chips on a 32-bit bus.
 * Programming clears bits only; erasing sets a sector to 0xff.
 *
 * A file keeps the contents: each program and erase is written to it before the guest sees the
 * operation's success, and quiesce makes it durable. The file is never grown: behind its end the
 * bank reads as 0xff, and sectors that do not lie wholly within it are write-protected. Without a
 * file the bank starts erased and forgets its contents.
 *
 * The file is locked (OFD lock) against another writer for as long as the flash exists.
 */
struct flash_config {
    struct memory *memory; /* where the bank maps itself; must outlive the flash */
    uint64_t base;         /* GPA, a multiple of the sector size */
    uint64_t size;         /* bytes, a power of two of sectors */
    const char *file;      /* path, or NULL */
    bool read_only;        /* the file is not written; every sector is write-protected */
};
struct flash;
struct flash *flash_create(const char *name, const struct flash_config *config, struct error *err);
struct device *flash_device(struct flash *flash);

/* The bank's contents, `size` bytes: for a loader, while harts are stopped. */
const uint8_t *flash_contents(const struct flash *flash);

/*
 * QEMU's firmware configuration device with its DMA interface (docs/specs/fw_cfg of that project is
 * the specification): data at 0, selector (16 bits, big-endian) at 8, DMA address (64 bits,
 * big-endian) at 16. Everything is read-only to the guest.
 */
enum {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_CPUS = 0x05,
    FW_CFG_KERNEL_SIZE = 0x08,
    FW_CFG_INITRD_SIZE = 0x0b,
    FW_CFG_KERNEL_DATA = 0x11,
    FW_CFG_INITRD_DATA = 0x12,
    FW_CFG_CMDLINE_SIZE = 0x14,
    FW_CFG_CMDLINE_DATA = 0x15,
    FW_CFG_FILE_DIR = 0x19,
    FW_CFG_FILE_FIRST = 0x20, /* the first file of the directory */
    FW_CFG_NAME_MAX = 55,     /* characters of a file's name */
    FW_CFG_FILES_MAX = 1024,
};
struct fw_cfg_config {
    struct memory *memory; /* for DMA; must outlive the device */
};
struct fw_cfg;
extern const struct mmio_ops fw_cfg_ops;
struct fw_cfg *fw_cfg_create(const char *name, const struct fw_cfg_config *config);
struct device *fw_cfg_device(struct fw_cfg *fw_cfg);

/* Adds a file to the directory, which is kept sorted by name. `data` is copied. Fails for a name
 * that is empty, too long or taken, and for data above 4 GiB. Before harts run. */
bool fw_cfg_add_file(struct fw_cfg *fw_cfg, const char *file_name, const void *data, size_t size,
                     struct error *err);

/* Sets the item with one of the fixed keys below FW_CFG_FILE_FIRST. `data` is copied. Before harts
 * run. */
void fw_cfg_set_item(struct fw_cfg *fw_cfg, uint16_t key, const void *data, size_t size);
