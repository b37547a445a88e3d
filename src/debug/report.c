#include "debug/report.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "debug/symbols.h"
#include "debug/unwind.h"
#include "hart/hart.h"
#include "machine/machine.h"

#define DEPTH 64

struct report {
    struct machine *machine;
    struct symbols *symbols;
    struct unwinder *unwinder; /* under lock */
    pthread_mutex_t lock;
    bool panicked; /* has been reported; under lock */
};

struct backtrace {
    struct unwind_frame frames[DEPTH];
    size_t count;
};

static bool read_guest(void *opaque, uint64_t va, void *buffer, size_t size)
{
    struct hart *hart = opaque;
    return hart_memory_read(hart, va, buffer, size, (int)hart->privilege);
}

static void take(struct report *report, struct hart *hart, struct backtrace *backtrace)
{
    struct unwind_registers registers = {.pc = hart->pc};
    memcpy(registers.x, hart->x, sizeof(registers.x));
    backtrace->count =
        unwind_backtrace(report->unwinder, &registers, read_guest, hart, backtrace->frames, DEPTH);
}

/* A frame, and before it what is inlined there. */
static void print_frame(struct report *report, const struct unwind_frame *frame, unsigned *number)
{
    struct symbols_place places[SYMBOLS_INLINED_MAX];
    char text[512], where[256];
    uint64_t at = frame->pc - frame->after_call;
    unsigned count = symbols_line(report->symbols, at, places);
    for (unsigned i = 0; i + 1 < count; i++)
        log_info("  #%-2u %016llx %s%s, inlined in", (*number)++, (unsigned long long)frame->pc,
                 places[i].function ? places[i].function : "?",
                 symbols_format_place(&places[i], where, sizeof(where)));
    struct symbol symbol;
    where[0] = '\0';
    if (count)
        symbols_format_place(&places[count - 1], where, sizeof(where));
    if (symbols_find(report->symbols, at, &symbol))
        snprintf(text, sizeof(text), "%s+0x%llx", symbol.name,
                 (unsigned long long)(frame->pc - symbol.address));
    else
        snprintf(text, sizeof(text), "%s",
                 count && places[count - 1].function ? places[count - 1].function : "?");
    log_info("  #%-2u %016llx %s%s%s", (*number)++, (unsigned long long)frame->pc, text, where,
             frame->method == UNWIND_EXCEPTION ? ", interrupted" : "");
}

static void print(struct report *report, const struct hart *hart, const struct backtrace *backtrace,
                  const char *heading)
{
    unsigned number = 0;
    log_info("hart %u: %s:", hart->id, heading);
    for (size_t i = 0; i < backtrace->count; i++)
        print_frame(report, &backtrace->frames[i], &number);
    if (backtrace->count == DEPTH)
        log_info("  ...");
}

void report_backtrace(struct report *report, struct hart *hart, const char *heading)
{
    struct backtrace backtrace;
    pthread_mutex_lock(&report->lock);
    take(report, hart, &backtrace);
    print(report, hart, &backtrace, heading);
    pthread_mutex_unlock(&report->lock);
}

/* Linux ends in panic(), or resets from there, and tells the machine nothing. */
static bool is_panic(struct report *report, const struct backtrace *backtrace)
{
    static const char *const names[] = {"panic", "vpanic", "nmi_panic"};
    for (size_t i = 0; i < backtrace->count; i++) {
        const struct unwind_frame *frame = &backtrace->frames[i];
        struct symbol symbol;
        if (symbols_find(report->symbols, frame->pc - frame->after_call, &symbol))
            for (size_t j = 0; j < ARRAY_SIZE(names); j++)
                if (!strcmp(symbol.name, names[j]))
                    return true;
    }
    return false;
}

static void report_if_panic(struct report *report, struct hart *hart)
{
    struct backtrace backtrace;
    pthread_mutex_lock(&report->lock);
    take(report, hart, &backtrace);
    if (!report->panicked && is_panic(report, &backtrace)) {
        report->panicked = true;
        print(report, hart, &backtrace, "the kernel panicked");
    }
    pthread_mutex_unlock(&report->lock);
}

static void on_distress(void *opaque, struct hart *hart, enum machine_distress distress)
{
    struct report *report = opaque;
    if (distress == MACHINE_LOST)
        report_backtrace(report, hart, "backtrace");
    else if (distress == MACHINE_FAILED)
        report_backtrace(report, hart, "the guest reports a failure of its system");
    else
        report_if_panic(report, hart);
}

/* A kernel that panicked and stays so is noticed when somebody ends it. */
static void on_event(void *opaque, const struct machine_event_info *info)
{
    struct report *report = opaque;
    struct hart *hart;
    if (info->event == MACHINE_EVENT_RESET) {
        pthread_mutex_lock(&report->lock);
        report->panicked = false;
        pthread_mutex_unlock(&report->lock);
    }
    if (info->event != MACHINE_EVENT_SHUTDOWN || info->by_guest)
        return;
    for (unsigned i = 0; (hart = machine_hart(report->machine, i)); i++)
        if (hart->privilege == PRIVILEGE_SUPERVISOR)
            report_if_panic(report, hart);
}

struct report *report_create(struct machine *machine, struct symbols *symbols)
{
    struct report *report = xcalloc(1, sizeof(*report));
    *report =
        (struct report){.machine = machine, .symbols = symbols, .unwinder = unwind_create(symbols)};
    pthread_mutex_init(&report->lock, NULL);
    machine_set_distress(machine, on_distress, report);
    machine_add_listener(machine, on_event, report);
    return report;
}

void report_destroy(struct report *report)
{
    if (!report)
        return;
    machine_set_distress(report->machine, NULL, NULL);
    unwind_destroy(report->unwinder);
    pthread_mutex_destroy(&report->lock);
    free(report);
}
