/* Files of --symbols: the input is the file. What was understood of it is looked up. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "debug/symbols.h"
#include "debug/unwind.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool read_nothing(void *opaque, uint64_t va, void *buffer, size_t size)
{
    memset(buffer, 0x10, size);
    return va & 0x10;
}

static void look_up(struct symbols *symbols, struct unwinder *unwinder, uint64_t address)
{
    struct symbol symbol;
    struct unwind_registers registers = {.pc = address, .x[2] = address, .x[8] = address + 64};
    struct unwind_frame frames[8];
    char text[64];
    if (symbols_find(symbols, address, &symbol) &&
        (symbol.offset >= symbol.size || symbol.address + symbol.offset != address))
        abort();
    symbols_format(symbols, address, true, text, sizeof(text));
    if (strlen(text) >= sizeof(text) ||
        !unwind_backtrace(unwinder, &registers, read_nothing, NULL, frames, 8))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct symbols *symbols = symbols_create();
    struct error err = {0};
    char path[40];
    int fd = memfd_create("symbols", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    bool ok = symbols_add(symbols, path, 0x1000, &err);
    close(fd);
    if (ok == !!err.message[0])
        abort();
    struct unwinder *unwinder = unwind_create(symbols);
    for (uint64_t address = 0x80201000; ok && address < 0x80201080; address += 10)
        look_up(symbols, unwinder, address);
    look_up(symbols, unwinder, 0);
    look_up(symbols, unwinder, UINT64_MAX);
    unwind_destroy(unwinder);
    symbols_destroy(symbols);
    return 0;
}
