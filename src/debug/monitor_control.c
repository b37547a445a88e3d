/* Commands of `monitor` that change something. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "debug/monitor.h"
#include "memory/memory.h"

/* One of some words, or -1, after saying which there are. */
static int choose(struct debug_session *session, const char *word, const char *const *choices)
{
    for (int i = 0; choices[i]; i++)
        if (!strcmp(word, choices[i]))
            return i;
    monitor_print(session, "'%s' is none of:", word);
    for (int i = 0; choices[i]; i++)
        monitor_print(session, " %s", choices[i]);
    monitor_print(session, "\n");
    return -1;
}

/* --- The machine
 * ------------------------------------------------------------------------------------ */

static void reset(struct debug_session *session, char **words, unsigned count)
{
    if (run_reset(session))
        monitor_print(session, "the machine was reset; all harts stand still\n");
}

static void quit(struct debug_session *session, char **words, unsigned count)
{
    monitor_print(session, "the machine ends\n");
    machine_quit(session->machine, 0);
}

static void set_time(struct debug_session *session, char **words, unsigned count)
{
    static const char *const choices[] = {"freeze", "run", NULL};
    int choice = choose(session, words[0], choices);
    if (choice < 0)
        return;
    session->freeze_time = choice == 0;
    machine_debug_freeze(session->machine,
                         session->freeze_time && session->attached && !session->non_stop);
    monitor_print(session, "while all harts stand still, guest time %s\n",
                  choice ? "runs" : "stands still");
}

/* --- Catching
 * ---------------------------------------------------------------------------------------- */

static bool parse_causes(struct debug_session *session, char **words, unsigned count,
                         bool interrupts, uint64_t *causes)
{
    *causes = count ? 0 : UINT64_MAX;
    for (unsigned i = 0; i < count; i++) {
        uint64_t number;
        if (!monitor_number(session, words[i], &number))
            return false;
        if (number >= 64) {
            monitor_print(session, "causes are 0 to 63\n");
            return false;
        }
        *causes |= BIT(number);
    }
    return true;
}

static void print_causes(struct debug_session *session, const char *what, uint64_t causes,
                         uint64_t flag)
{
    if (!causes)
        return;
    monitor_print(session, "%s:", what);
    if (causes == UINT64_MAX)
        monitor_print(session, " all");
    for (unsigned i = 0; i < 64 && causes != UINT64_MAX; i++)
        if (causes >> i & 1)
            monitor_print(session, " %u (%s)", i, hart_cause_name(flag | i));
    monitor_print(session, "\n");
}

static void print_catches(struct debug_session *session)
{
    const struct points_catch *catch = points_catch(session->points);
    print_causes(session, "exceptions", catch->exceptions, 0);
    print_causes(session, "interrupts", catch->interrupts, BIT(63));
    monitor_print(session, "%s%s%s", catch->calls ? "SBI calls\n" : "", catch->waits ? "wfi\n" : "",
                  catch->starts ? "harts that are started\n" : "");
}

static void catch_or_not(struct debug_session *session, char **words, unsigned count, bool on)
{
    static const char *const choices[] = {"exception", "interrupt", "sbi", "wfi", "start", NULL};
    struct points_catch *catch = points_catch(session->points);
    uint64_t causes = 0;
    if (!count) {
        print_catches(session);
        return;
    }
    int choice = choose(session, words[0], choices);
    if (choice < 0 || !parse_causes(session, words + 1, count - 1, choice == 1, &causes))
        return;
    uint64_t *const masks[] = {&catch->exceptions, &catch->interrupts};
    bool *const flags[] = {&catch->calls, &catch->waits, &catch->starts};
    if (choice < 2)
        *masks[choice] = on ? *masks[choice] | causes : *masks[choice] & ~causes;
    else
        *flags[choice - 2] = on;
    points_changed(session->points);
    if (session->non_stop)
        points_apply(session->points, true);
    print_catches(session);
}

static void catch (struct debug_session *session, char **words, unsigned count)
{
    catch_or_not(session, words, count, true);
}

static void uncatch(struct debug_session *session, char **words, unsigned count)
{
    catch_or_not(session, words, count, false);
}

/* --- Address spaces
 * ---------------------------------------------------------------------------------- */

enum { ASID_SHIFT = 44 };

static void bind(struct debug_session *session, char **words, unsigned count)
{
    static const char *const choices[] = {"asid", "satp", "here", "any", NULL};
    uint64_t address, value = session_hart(session)->satp, mask = UINT64_MAX;
    int choice = choose(session, words[1], choices);
    if (choice < 0 || !monitor_number(session, words[0], &address) ||
        (count > 2 && !monitor_number(session, words[2], &value)))
        return;
    if ((choice < 2) != (count > 2)) {
        monitor_print(session, "asid and satp want a number, here and any do not\n");
        return;
    }
    if (choice == 0) {
        value = value << ASID_SHIFT;
        mask = UINT64_C(0xffff) << ASID_SHIFT;
    } else if (choice == 3) {
        mask = 0;
    }
    points_bind(session->points, address, value, mask);
    if (session->non_stop)
        points_apply(session->points, true);
    if (mask)
        monitor_print(session,
                      "breakpoints at %#" PRIx64 " count where satp & %#" PRIx64 " is %#" PRIx64
                      "\n",
                      address, mask, value & mask);
    else
        monitor_print(session, "breakpoints at %#" PRIx64 " count in every address space\n",
                      address);
}

static void set_privilege(struct debug_session *session, char **words, unsigned count)
{
    static const char *const choices[] = {"u", "s", "m", "auto", NULL};
    static const char *const names[] = {"as U-mode may", "as S-mode may", "as M-mode may",
                                        "wherever it is mapped"};
    static const int values[] = {PRIVILEGE_USER, PRIVILEGE_SUPERVISOR, PRIVILEGE_MACHINE, -1};
    int choice = choose(session, words[0], choices);
    if (choice < 0)
        return;
    session->privilege = values[choice];
    monitor_print(session, "memory is read and written %s\n", names[choice]);
}

static void set_physical(struct debug_session *session, char **words, unsigned count)
{
    static const char *const choices[] = {"off", "on", NULL};
    int choice = choose(session, words[0], choices);
    if (choice < 0)
        return;
    session->physical = choice;
    monitor_print(session, "addresses are %s\n", choice ? "physical" : "virtual");
}

/* --- Memory
 * ------------------------------------------------------------------------------------------ */

static bool mmio_arguments(struct debug_session *session, char **words, uint64_t *size,
                           uint64_t *gpa)
{
    if (!monitor_number(session, words[0], size) || !monitor_number(session, words[1], gpa))
        return false;
    if (*size == 1 || *size == 2 || *size == 4 || *size == 8)
        return true;
    monitor_print(session, "an access has 1, 2, 4 or 8 bytes\n");
    return false;
}

static void mmio_read(struct debug_session *session, char **words, unsigned count)
{
    uint64_t size, gpa, value;
    if (!mmio_arguments(session, words, &size, &gpa))
        return;
    if (memory_read(machine_debug_memory(session->machine), gpa, (unsigned)size, &value))
        monitor_print(session, "%#" PRIx64 "\n", size < 8 ? value & (BIT(8 * size) - 1) : value);
    else
        monitor_print(session, "nothing answers at %#" PRIx64 "\n", gpa);
}

static void mmio_write(struct debug_session *session, char **words, unsigned count)
{
    uint64_t size, gpa, value;
    if (!mmio_arguments(session, words, &size, &gpa) || !monitor_number(session, words[2], &value))
        return;
    if (!memory_write(machine_debug_memory(session->machine), gpa, (unsigned)size, value))
        monitor_print(session, "nothing answers at %#" PRIx64 "\n", gpa);
}

static void mmio_memory(struct debug_session *session, char **words, unsigned count)
{
    static const char *const choices[] = {"off", "on", NULL};
    int choice = choose(session, words[0], choices);
    if (choice < 0)
        return;
    session->registers = choice;
    monitor_print(session, "what reads and writes memory %s registers of devices\n",
                  choice ? "reaches" : "does not reach");
}

static void save(struct debug_session *session, char **words, unsigned count)
{
    uint64_t address, left, done = 0;
    static uint8_t chunk[64 * 1024];
    if (!monitor_number(session, words[1], &address) || !monitor_number(session, words[2], &left))
        return;
    FILE *file = fopen(words[0], "wxe");
    if (!file) {
        monitor_print(session, "cannot create '%s': %s\n", words[0], strerror(errno));
        return;
    }
    bool written = true;
    while (left && written) {
        size_t size = left < sizeof(chunk) ? left : sizeof(chunk);
        size_t got = session_read(session, address + done, chunk, size);
        written = fwrite(chunk, 1, got, file) == got;
        done += got;
        left -= got;
        if (got < size)
            break;
    }
    written &= !fclose(file);
    if (!written)
        monitor_print(session, "cannot write '%s': %s\n", words[0], strerror(errno));
    else
        monitor_print(session, "%" PRIu64 " bytes saved to '%s'%s\n", done, words[0],
                      left ? "; what follows is not memory" : "");
}

/* --- Traces
 * ------------------------------------------------------------------------------------------ */

/* What is translated has no traces of CSRs in it: that is decided before the guest begins. */
static void set_log(struct debug_session *session, char **words, unsigned count)
{
    struct error err;
    bool off = !strcmp(words[0], "off");
    if (!off && strstr(words[0], "csr") && !trace_on(TRACE_CSR)) {
        monitor_print(session,
                      "csr is traced from the start or not at all: run with --trace csr\n");
        return;
    }
    if (~machine_debug_held(session->machine) << (64 - session->hart_count)) {
        monitor_print(session, "other harts are running: interrupt them first\n");
        return;
    }
    trace_finish();
    if (!off && !trace_configure(words[0], &err))
        monitor_print(session, "%s\n", err.message);
}

const struct monitor_command monitor_control_commands[] = {
    {"reset", "", "reset the machine; harts stay stopped", reset, 0, 0},
    {"quit", "", "end the machine", quit, 0, 0},
    {"catch", "[exception|interrupt [CAUSE...]|sbi|wfi|start]",
     "stop when that happens; without words: what is caught", catch, 0, MONITOR_WORDS, true},
    {"uncatch", "exception|interrupt [CAUSE...]|sbi|wfi|start", "take that back", uncatch, 1,
     MONITOR_WORDS, true},
    {"bind", "ADDRESS asid N|satp N|here|any", "the address space of breakpoints at ADDRESS", bind,
     2, 3, true},
    {"privilege", "u|s|m|auto", "read and write memory as that mode may; auto: whatever is mapped",
     set_privilege, 1, 1},
    {"physical", "on|off", "addresses are physical", set_physical, 1, 1},
    {"mmio read", "SIZE ADDRESS", "read a device's register", mmio_read, 2, 2},
    {"mmio write", "SIZE ADDRESS VALUE", "write it", mmio_write, 3, 3},
    {"mmio memory", "on|off", "let x, print and set reach registers of devices", mmio_memory, 1, 1},
    {"save", "FILE ADDRESS SIZE", "write memory to a new file", save, 3, 3, true},
    {"time", "freeze|run", "guest time while all harts stand still", set_time, 1, 1},
    {"log", "CATEGORY,...[:FILE]|off", "trace, as --trace does", set_log, 1, 1, true},
    {0},
};
