/*
 * HTIF: the host-target interface of RISC-V's test suites. A word written to the symbol `tohost`
 * is a command: device in bits 63:56, command in 55:48, payload below. Device 0 ends the program
 * (odd payload: exit code << 1 | 1) or points to a system call's arguments; device 1 is a console.
 */
#include <stdatomic.h>

#include "machine/internal.h"

#define HTIF_SYSCALL 0
#define HTIF_CONSOLE 1
#define HTIF_GETCHAR 0
#define HTIF_PUTCHAR 1

/* The newlib system call that riscv-tests' benchmarks print with: fd, GPA, length in a1 to a3. */
#define SYSCALL_WRITE 64

static uint64_t read_word(struct machine *machine, uint64_t gpa)
{
    uint64_t value = 0;
    memory_dma_read(machine->memory, gpa, &value, sizeof(value));
    return le64toh(value);
}

static void write_word(struct machine *machine, uint64_t gpa, uint64_t value)
{
    value = htole64(value);
    memory_dma_write(machine->memory, gpa, &value, sizeof(value));
}

static void respond(struct machine *machine, uint64_t value)
{
    if (machine->fromhost)
        write_word(machine, machine->fromhost, value);
}

static void print(struct machine *machine, uint64_t gpa, uint64_t size)
{
    char chunk[256];
    while (size) {
        size_t part = size < sizeof(chunk) ? size : sizeof(chunk);
        if (!memory_dma_read(machine->memory, gpa, chunk, part))
            return;
        if (machine->serial)
            chardev_force(machine->serial, chunk, part);
        gpa += part;
        size -= part;
    }
}

static void system_call(struct machine *machine, uint64_t gpa)
{
    uint64_t number = read_word(machine, gpa);
    uint64_t size = read_word(machine, gpa + 24);
    bool known = number == SYSCALL_WRITE && size <= memory_ram_size(machine->memory);
    if (known)
        print(machine, read_word(machine, gpa + 16), size);
    else
        trace_guest_error("htif", "system call %llu is not supported", (unsigned long long)number);
    write_word(machine, gpa, known ? size : UINT64_MAX);
    respond(machine, 1);
}

static void tohost_written(void *opaque, uint64_t gpa)
{
    struct machine *machine = opaque;
    uint64_t command = read_word(machine, machine->tohost);
    unsigned device = command >> 56, function = command >> 48 & 0xff;
    uint64_t payload = command & (BIT(48) - 1);
    uint8_t byte = command;
    if (!command)
        return;
    if (device == HTIF_SYSCALL && payload & 1) {
        uint64_t code = payload >> 1;
        machine_request(machine, REQUEST_END | REQUEST_BY_GUEST, code > 255 ? 255 : (int)code);
        return;
    }
    if (device == HTIF_SYSCALL)
        system_call(machine, payload);
    else if (device == HTIF_CONSOLE && function == HTIF_PUTCHAR) {
        if (machine->serial)
            chardev_force(machine->serial, &byte, 1);
        respond(machine, (uint64_t)HTIF_CONSOLE << 56 | (uint64_t)HTIF_PUTCHAR << 48);
    } else if (device == HTIF_CONSOLE && function == HTIF_GETCHAR) {
        if (uart_take_input(machine->uart, &byte, 1) == 1)
            respond(machine, (uint64_t)HTIF_CONSOLE << 56 | byte);
    } else
        trace_guest_error("htif", "no device answers command %#llx", (unsigned long long)command);
    write_word(machine, machine->tohost, 0);
}

void htif_attach(struct machine *machine)
{
    uint64_t word;
    if (machine->tohost && memory_dma_read(machine->memory, machine->tohost, &word, sizeof(word)))
        memory_watch(machine->memory, machine->tohost, sizeof(word), tohost_written, machine);
}
