/*
 * The board's own devices under a guest that writes anything anywhere, and under saved states with
 * a byte changed. The input is a sequence of 8-byte operations. Beside the sanitizers' checks, a
 * state that is saved, loaded and saved again must be the same.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "device/device.h"
#include "irq/irq.h"

enum {
    HARTS = 2,
    SOURCES = 95,
    OPERATIONS_MAX = 400,
    RAM_SIZE = 64 * 1024,
    BANK_SIZE = 2 * FLASH_SECTOR_SIZE,
    AIA_REGIONS = 5,
    DEVICES = 9,
};

/* What bits 0..2 of an operation choose; devices are in the order of `regions`. */
enum { REGIONS = 6, ACTION_RAM = REGIONS, ACTION_OTHER };

static const struct {
    uint64_t base, size;
} regions[REGIONS + AIA_REGIONS] = {
    {0x10000000, UART_SIZE},
    {0x0c000000, PLIC_SIZE},
    {0x20000000, BANK_SIZE},
    {0x10100000, FW_CFG_SIZE},
    {0x00101000, RTC_SIZE},
    {0x02000000, ACLINT_SIZE},
    /* With bit 6 of an operation: an APLIC that sends messages, and one that does not. */
    {0x40000000, APLIC_SIZE},
    {0x40008000, APLIC_SIZE},
    {0x40010000, APLIC_SIZE},
    {0x40018000, APLIC_SIZE},
    {0x28000000, HARTS *IMSIC_PAGE_SIZE},
};

#define RAM_BASE UINT64_C(0x80000000)

struct board {
    struct loop *loop;
    struct clock clock;
    struct memory *memory;
    struct chardev *chardev;
    struct plic *plic;
    struct aplic *aplics[2];
    struct imsic *imsic;
    struct device *devices[DEVICES];
};

struct operation {
    uint8_t action; /* bits 0..2; bit 3: write; bits 4..5: the access's size; bit 6: the AIA */
    uint8_t offset[3];
    uint8_t value[4];
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool truth)
{
    if (!truth)
        abort();
}

static void map(struct board *board, unsigned i, const struct mmio_ops *ops, void *opaque,
                struct device *device)
{
    board->devices[i] = device;
    if (ops)
        check(memory_add_mmio(board->memory, regions[i].base, regions[i].size, ops, opaque,
                              device->name, NULL));
}

static void aia_create(struct board *board)
{
    const struct irq_line none[HARTS] = {{0}};

    board->imsic = imsic_create("imsic", &(struct imsic_config){.harts = HARTS, .notify = none});
    board->devices[8] = imsic_device(board->imsic);
    check(memory_add_messages(board->memory, regions[10].base, regions[10].size, &imsic_ops,
                              board->imsic, "imsic", NULL));
    for (unsigned i = 0; i < 2; i++) {
        board->aplics[i] =
            aplic_create("aplic", &(struct aplic_config){.harts = HARTS,
                                                         .sources = SOURCES,
                                                         .messages = i ? NULL : board->memory,
                                                         .machine = none,
                                                         .supervisor = none,
                                                         .delegated = i});
        board->devices[6 + i] = aplic_device(board->aplics[i]);
        for (unsigned s = 0; s < 2; s++)
            check(memory_add_mmio(board->memory, regions[REGIONS + 2 * i + s].base, APLIC_SIZE,
                                  &aplic_ops, aplic_domain(board->aplics[i], s), "aplic", NULL));
    }
}

static void board_create(struct board *board)
{
    struct irq_line none[HARTS] = {{0}};

    board->loop = loop_create();
    clock_init(&board->clock);
    clock_freeze(&board->clock);
    board->memory = memory_create();
    check(memory_add_ram(board->memory, RAM_BASE, RAM_SIZE, NULL));
    board->chardev = chardev_create(board->loop, "none", NULL, NULL);
    board->plic = plic_create(
        "plic", &(struct plic_config){
                    .harts = HARTS, .sources = SOURCES, .machine = none, .supervisor = none});
    struct uart *uart =
        uart_create("uart", &(struct uart_config){.loop = board->loop,
                                                  .chardev = board->chardev,
                                                  .irq = plic_line(board->plic, 10)});
    struct flash *flash = flash_create(
        "flash",
        &(struct flash_config){.memory = board->memory, .base = regions[2].base, .size = BANK_SIZE},
        NULL);
    struct fw_cfg *fw_cfg =
        fw_cfg_create("fw_cfg", &(struct fw_cfg_config){.memory = board->memory});
    check(fw_cfg_add_file(fw_cfg, "etc/file", "contents", 8, NULL));
    struct rtc *rtc = rtc_create(
        "rtc", &(struct rtc_config){.loop = board->loop, .irq = plic_line(board->plic, 11)});
    struct aclint *aclint = aclint_create("aclint", &(struct aclint_config){.loop = board->loop,
                                                                            .clock = &board->clock,
                                                                            .harts = HARTS,
                                                                            .software = none,
                                                                            .timer = none});
    map(board, 0, &uart_ops, uart, uart_device(uart));
    map(board, 1, &plic_ops, board->plic, plic_device(board->plic));
    map(board, 2, NULL, flash, flash_device(flash));
    map(board, 3, &fw_cfg_ops, fw_cfg, fw_cfg_device(fw_cfg));
    map(board, 4, &rtc_ops, rtc, rtc_device(rtc));
    map(board, 5, &aclint_ops, aclint, aclint_device(aclint));
    aia_create(board);
}

static void board_destroy(struct board *board)
{
    for (unsigned i = 0; i < DEVICES; i++)
        board->devices[i]->type->remove(board->devices[i]);
    chardev_destroy(board->chardev);
    memory_destroy(board->memory);
    loop_destroy(board->loop);
}

static uint8_t *save(struct device *device, size_t *size)
{
    struct stream *stream = stream_create_saving();

    device->type->state(device, stream);
    check(!stream_failed(stream));
    const void *data = stream_data(stream, size);
    uint8_t *copy = xmalloc(*size);
    memcpy(copy, data, *size);
    stream_destroy(stream);
    return copy;
}

static bool load(struct device *device, const uint8_t *data, size_t size)
{
    struct stream *stream = stream_create_loading(data, size);

    device->type->state(device, stream);
    bool loaded = !stream_failed(stream);
    stream_destroy(stream);
    return loaded;
}

/* Whether a device that is loaded from what it saved would save the same again. */
static bool reload_keeps(struct device *device)
{
    size_t size, again_size;
    uint8_t *state = save(device, &size);

    check(load(device, state, size));
    uint8_t *again = save(device, &again_size);
    bool same = size == again_size && !memcmp(state, again, size);
    free(state);
    free(again);
    return same;
}

/* The alarm of the RTC, which runs on the host's time, may fire meanwhile, but only once. */
static void reload(struct device *device)
{
    check(reload_keeps(device) || reload_keeps(device));
}

static void load_damaged(struct device *device, uint32_t offset, uint8_t bits)
{
    size_t size;
    uint8_t *state = save(device, &size);

    state[offset % size] ^= bits;
    load(device, state, size);
    free(state);
}

static void access_registers(struct board *board, unsigned i, const struct operation *operation)
{
    unsigned size = 1U << (operation->action >> 4 & 3);
    uint64_t offset = bits_get(load_le32(&operation->action), 8, 24) % regions[i].size;
    uint64_t gpa = align_down(regions[i].base + offset, size), value = load_le32(operation->value);

    if (operation->action & 8)
        memory_write(board->memory, gpa, size, value | value << 32);
    else
        memory_read(board->memory, gpa, size, &value);
}

static void act(struct board *board, const struct operation *operation)
{
    unsigned choice = operation->action >> 4, offset = load_le16(operation->offset);
    struct device *device = board->devices[operation->value[0] % DEVICES];
    struct irq_line line;

    switch (choice % 4) {
    case 0:
        line = plic_line(board->plic, 1 + offset % SOURCES);
        irq_set(&line, operation->value[1] & 1);
        for (unsigned i = 0; i < 2; i++) {
            line = aplic_line(board->aplics[i], 1 + offset % SOURCES);
            irq_set(&line, operation->value[1] & 1);
        }
        break;
    case 1:
        reload(device);
        break;
    case 2:
        load_damaged(device, offset, operation->value[1]);
        break;
    default:
        if (operation->value[1] == 0xff)
            device->type->reset(device);
        loop_turn(board->loop, 0);
        break;
    }
}

/* What a hart's CSRs do to its interrupt file. */
static void access_file(struct board *board, const struct operation *operation)
{
    struct interrupt_file file = imsic_file(board->imsic, operation->offset[1] % HARTS);
    unsigned select = 0x70 + operation->offset[0] % 0x90;
    uint64_t value = load_le32(operation->value);

    if (operation->action & 8)
        file.write(file.file, select, file.read(file.file, select), value << 32 | value);
    unsigned identity = file.top(file.file, operation->action & 16);
    check(identity <= IMSIC_IDENTITIES);
    if (identity && (operation->action & 32))
        file.claim(file.file, identity);
}

static void perform(struct board *board, const struct operation *operation)
{
    unsigned choice = operation->action & 7;

    if ((operation->action & 64) && choice == ACTION_OTHER)
        access_file(board, operation);
    else if (operation->action & 64)
        access_registers(board, REGIONS + choice % AIA_REGIONS, operation);
    else if (choice < REGIONS)
        access_registers(board, choice, operation);
    else if (choice == ACTION_RAM)
        memory_write(board->memory, RAM_BASE + load_le16(operation->offset) % (RAM_SIZE - 4), 4,
                     load_le32(operation->value));
    else
        act(board, operation);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct board board;

    board_create(&board);
    size_t count = size / sizeof(struct operation);
    for (size_t i = 0; i < count && i < OPERATIONS_MAX; i++) {
        struct operation operation;
        memcpy(&operation, data + i * sizeof(operation), sizeof(operation));
        perform(&board, &operation);
    }
    board_destroy(&board);
    return 0;
}
