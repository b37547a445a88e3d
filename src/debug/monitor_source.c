/* Commands of `monitor` that know names and source lines: --symbols. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "debug/monitor.h"
#include "debug/symbols.h"
#include "debug/unwind.h"

enum { TEXT_SIZE = 400, FRAMES_MOST = 64 };

static bool read_stack(void *opaque, uint64_t va, void *buffer, size_t size)
{
    return hart_debug_read(opaque, va, buffer, size, -1) == size;
}

static void backtrace(struct debug_session *session, char **words, unsigned count)
{
    uint64_t index = session_general(session);
    if (count && !monitor_number(session, words[0], &index))
        return;
    if (index >= session->hart_count) {
        monitor_print(session, "there is no hart %" PRIu64 ": 0 to %u\n", index,
                      session->hart_count - 1);
        return;
    }
    struct hart *hart = machine_debug_hart(session->machine, (unsigned)index);
    struct unwind_registers registers = {.pc = hart->pc};
    struct unwind_frame frames[FRAMES_MOST];
    char text[TEXT_SIZE];
    memcpy(registers.x, hart->x, sizeof(registers.x));
    struct unwinder *unwinder = unwind_create(session->symbols);
    size_t depth = unwind_backtrace(unwinder, &registers, read_stack, hart, frames, FRAMES_MOST);
    for (size_t i = 0; i < depth; i++)
        monitor_print(session, "#%-2zu 0x%016" PRIx64 " %s%s\n", i, frames[i].pc,
                      !session->symbols ? ""
                                        : symbols_format(session->symbols, frames[i].pc,
                                                         frames[i].after_call, text, sizeof(text)),
                      frames[i].method == UNWIND_EXCEPTION ? "  <- interrupted" : "");
    unwind_destroy(unwinder);
}

/* The lines around the one that is meant, if the file is here. */
static void print_lines(struct debug_session *session, const char *file, unsigned middle)
{
    enum { AROUND = 4 };
    char line[TEXT_SIZE];
    FILE *source = fopen(file, "re");
    if (!source)
        return;
    for (unsigned number = 1; number <= middle + AROUND && fgets(line, sizeof(line), source);) {
        bool whole = strchr(line, '\n');
        if (number + AROUND >= middle)
            monitor_print(session, "%s%5u %s%s", number == middle ? "->" : "  ", number, line,
                          whole ? "" : "\n");
        for (int c = '\0'; !whole && c != '\n' && c != EOF;)
            c = fgetc(source);
        number++;
    }
    fclose(source);
}

static void list(struct debug_session *session, char **words, unsigned count)
{
    struct symbols_place places[SYMBOLS_INLINED_MAX];
    char text[TEXT_SIZE];
    uint64_t address = session_hart(session)->pc;
    if (!session->symbols) {
        monitor_print(session, "no symbols: run with --symbols FILE\n");
        return;
    }
    if (count && !monitor_number(session, words[0], &address))
        return;
    unsigned found = symbols_line(session->symbols, address, places);
    monitor_print(session, "0x%" PRIx64 " %s\n", address,
                  symbols_format(session->symbols, address, false, text, sizeof(text)));
    for (unsigned i = 0; i < found; i++)
        if (places[i].file)
            monitor_print(session, "%s%s:%u%s%s\n", i ? "  inlined into " : "  ", places[i].file,
                          places[i].line, places[i].function ? " in " : "",
                          places[i].function ? places[i].function : "");
    if (!found)
        monitor_print(session, "no file of --symbols has the line of this address\n");
    else if (places[0].file && places[0].line)
        print_lines(session, places[0].file, places[0].line);
}

const struct monitor_command monitor_source_commands[] = {
    {"bt", "[HART]", "the functions that the hart is in (names with --symbols)", backtrace, 0, 1,
     true},
    {"list", "[ADDRESS|SYMBOL]", "file and line of an address (with --symbols)", list, 0, 1, true},
    {0},
};
