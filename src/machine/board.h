/*
 * The board's map, compatible with QEMU's `virt`: one table that board.c maps devices by and fdt.c
 * describes them by. Addresses are GPAs, sizes bytes. There is a PLIC, or APLIC and IMSIC.
 */
#pragma once

#include <stdint.h>

struct board_range {
    uint64_t base, size;
};

static const struct {
    struct board_range boot_rom, finisher, rtc, aclint, pci_io, plic, aplic[2], imsic[2], uart,
        virtio_mmio, fw_cfg, flash[2], pci_ecam, pci_mmio32;
} board_map = {
    .boot_rom = {0x00001000, 0xf000},
    .finisher = {0x00100000, 0x1000},
    .rtc = {0x00101000, 0x1000},
    .aclint = {0x02000000, 0x10000},
    .pci_io = {0x03000000, 0x10000},
    .plic = {0x0c000000, 0x600000},
    .aplic = {{0x0c000000, 0x8000}, {0x0d000000, 0x8000}}, /* M and S */
    .imsic = {{0x24000000, 0x1000}, {0x28000000, 0x1000}}, /* M and S: of each hart */
    .uart = {0x10000000, 0x100},
    .virtio_mmio = {0x10001000, 0x1000}, /* of each slot */
    .fw_cfg = {0x10100000, 0x18},
    .flash = {{0x20000000, 0x2000000}, {0x22000000, 0x2000000}},
    .pci_ecam = {0x30000000, 0x10000000},
    .pci_mmio32 = {0x40000000, 0x40000000},
};

/* Sources of the PLIC or APLIC. */
enum {
    BOARD_IRQ_VIRTIO = 1, /* to 8: one a slot */
    BOARD_IRQ_UART = 10,
    BOARD_IRQ_RTC = 11,
    BOARD_IRQ_PCI = 32, /* to 35: INTA to INTD */
    BOARD_IRQ_SOURCES = 95,
    BOARD_IRQ_SOURCES_AIA = 96,
};
