/*
 * A bare-metal guest that drives an NVMe controller behind a root port: identifies it, makes a pair
 * of I/O queues, writes a block and reads it back, each completion by a message of MSI-X's.
 * (NVM Express Base 2.0, sections 3.1, 3.5, 5; NVM Command Set 1.0.)
 */
#include "guest.h"

enum {
    CAPABILITIES = 0x00,
    CONFIGURATION = 0x14,
    STATUS = 0x1c,
    ADMIN_SIZES = 0x24,
    ADMIN_SUBMISSION = 0x28,
    ADMIN_COMPLETION = 0x30,
    DOORBELLS = 0x1000,
};

enum { CREATE_SUBMISSION = 1, CREATE_COMPLETION = 5, IDENTIFY = 6, FLUSH = 0, WRITE = 1, READ = 2 };

#define ENTRIES 8
#define PAGE    __attribute__((aligned(4096)))
#define BLOCK   8

struct command {
    uint32_t head, namespace, reserved[2];
    uint64_t metadata, data, data_2;
    uint32_t arguments[6];
};

struct completion {
    uint32_t result, reserved, queue;
    uint16_t id, status;
};

struct queue {
    struct command *commands;
    volatile struct completion *completions;
    unsigned number, tail, head, phase, identity;
};

static struct command admin_commands[ENTRIES] PAGE, io_commands[ENTRIES] PAGE;
static struct completion admin_completions[ENTRIES] PAGE, io_completions[ENTRIES] PAGE;
static uint8_t data[4096] PAGE, back[4096] PAGE;
static uintptr_t bar;
static unsigned stride;

static struct queue admin = {admin_commands, admin_completions, 0, 0, 0, 1, 10};
static struct queue io = {io_commands, io_completions, 1, 0, 0, 1, 11};

static void doorbell(const struct queue *queue, unsigned completion, uint32_t value)
{
    store(bar + DOORBELLS + (2 * queue->number + completion) * stride, value);
}

/* Submits a command and waits for the queue's message; anything but success ends the guest. */
static void execute(struct queue *queue, const struct command *command)
{
    queue->commands[queue->tail] = *command;
    queue->commands[queue->tail].head |= queue->tail << 16;
    queue->tail = (queue->tail + 1) % ENTRIES;
    __asm__ volatile("fence" ::: "memory");
    doorbell(queue, 0, queue->tail);
    expect(imsic_wait(5000) == queue->identity, "the queue's message");
    uint16_t status = queue->completions[queue->head].status;
    expect((status & 1) == queue->phase, "a completion");
    expect(!(status >> 1), "success");
    queue->head = (queue->head + 1) % ENTRIES;
    queue->phase ^= !queue->head;
    doorbell(queue, 1, queue->head);
}

static void set_vector(uintptr_t table, unsigned vector, unsigned identity)
{
    store64(table + 16 * vector, IMSIC);
    store(table + 16 * vector + 8, identity);
    store(table + 16 * vector + 12, 0);
}

static void begin(uintptr_t at)
{
    bar = WINDOW;
    store(at + 0x10, WINDOW);
    store(at + 0x14, 0);
    store16(at + 4, 6);
    uintptr_t msix = find_capability(at, 0x11);
    expect(msix, "MSI-X");
    expect((load(msix + 4) & 7) == 0, "the table in BAR 0");
    imsic_begin();
    store16(msix + 2, load16(msix + 2) | 0x8000);
    set_vector(bar + (load(msix + 4) & ~7u), 0, admin.identity);

    uint64_t able = load64(bar + CAPABILITIES);
    stride = 4u << (able >> 32 & 15);
    store(bar + CONFIGURATION, 0);
    while (load(bar + STATUS) & 1)
        ;
    store(bar + ADMIN_SIZES, (ENTRIES - 1) << 16 | (ENTRIES - 1));
    store64(bar + ADMIN_SUBMISSION, (uintptr_t)admin_commands);
    store64(bar + ADMIN_COMPLETION, (uintptr_t)admin_completions);
    store(bar + CONFIGURATION, 4 << 20 | 6 << 16 | 1);
    while (!(load(bar + STATUS) & 1))
        ;
    /* The second vector comes when the first is in use. */
    set_vector(bar + (load(msix + 4) & ~7u), 1, io.identity);
    unsigned spurious = imsic_wait(0);
    expect(!spurious || spurious == admin.identity, "no message but a repeated one");
}

static void identify(void)
{
    execute(&admin, &(struct command){.head = IDENTIFY, .data = (uintptr_t)data, .arguments = {1}});
    char serial[21] = {0};
    for (unsigned i = 0; i < 20 && data[4 + i] != ' '; i++)
        serial[i] = (char)data[4 + i];
    print("serial: ");
    print(serial);
    print("\n");
}

static void make_queues(void)
{
    execute(&admin, &(struct command){.head = CREATE_COMPLETION,
                                      .data = (uintptr_t)io_completions,
                                      .arguments = {(ENTRIES - 1) << 16 | 1, 1 << 16 | 3}});
    execute(&admin, &(struct command){.head = CREATE_SUBMISSION,
                                      .data = (uintptr_t)io_commands,
                                      .arguments = {(ENTRIES - 1) << 16 | 1, 1 << 16 | 1}});
}

/* 4 KiB at a block of 512 bytes. */
static void block(unsigned opcode, uint8_t *buffer, unsigned number)
{
    execute(&io, &(struct command){.head = opcode,
                                   .namespace = 1,
                                   .data = (uintptr_t)buffer,
                                   .arguments = {number, 0, 7}});
}

int main(void)
{
    unsigned slot;
    uintptr_t at = find_device(0x00101b36, &slot);
    line("nvme behind slot", slot);
    begin(at);
    identify();
    make_queues();
    block(READ, data, 0);
    print("block 0: ");
    for (unsigned i = 0; i < 5; i++)
        store8(UART, data[i]);
    print("\n");
    for (unsigned i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 13 + (i >> 8));
    block(WRITE, data, BLOCK);
    execute(&io, &(struct command){.head = FLUSH, .namespace = 1});
    block(READ, back, BLOCK);
    for (unsigned i = 0; i < sizeof(data); i++)
        expect(back[i] == data[i], "what was written");
    for (unsigned i = 0; i < 20; i++)
        block(READ, back, BLOCK);
    print("nvme: all right\n");
    finish(0);
    return 0;
}
