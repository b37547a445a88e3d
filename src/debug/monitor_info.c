/* Commands of `monitor` that look. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "debug/monitor.h"
#include "isa/isa.h"
#include "memory/memory.h"

static const char *const privileges[] = {"U", "S", "?", "M"};

/* The hart of the argument, or the one that the client looks at. */
static bool hart_of(struct debug_session *session, char **words, unsigned count, unsigned *index)
{
    uint64_t number = session_general(session);
    if (count && !monitor_number(session, words[0], &number))
        return false;
    if (number >= session->hart_count) {
        monitor_print(session, "there is no hart %" PRIu64 ": 0 to %u\n", number,
                      session->hart_count - 1);
        return false;
    }
    *index = (unsigned)number;
    return true;
}

/* --- Harts --------------------------------------------------------------------------------------
 */

static void info_harts(struct debug_session *session, char **words, unsigned count)
{
    for (unsigned i = 0; i < session->hart_count; i++) {
        const struct hart *hart = machine_debug_hart(session->machine, i);
        describe_hart(session, i, &session->console);
        if (machine_debug_held(session->machine) >> i & 1)
            monitor_print(session, ", pc %#" PRIx64 ", %" PRIu64 " instructions", hart->pc,
                          hart->instret);
        monitor_print(session, "%s\n", i == session_general(session) ? "  <- current" : "");
    }
}

static void print_csrs(struct debug_session *session, struct hart *hart)
{
    unsigned column = 0;
    for (unsigned number = 0; number < 4096; number++) {
        uint64_t value;
        const char *name = hart_csr_name(number);
        /* The many counters and PMP registers only where they say something. */
        if (!name || !hart_csr_read(hart, number, &value) ||
            (!value && (strstr(name, "hpm") || strstr(name, "pmp"))))
            continue;
        monitor_print(session, "%14s %016" PRIx64 "%s", name, value, ++column % 3 ? "" : "\n");
    }
    if (column % 3)
        monitor_print(session, "\n");
}

static void info_registers(struct debug_session *session, char **words, unsigned count)
{
    unsigned index;
    if (!hart_of(session, words, count, &index))
        return;
    struct hart *hart = machine_debug_hart(session->machine, index);
    monitor_print(session, "hart %u, %s-mode\n%14s %016" PRIx64 "\n", index,
                  privileges[hart->privilege & 3], "pc", hart->pc);
    for (unsigned i = 0; i < 32; i++)
        monitor_print(session, "%14s %016" PRIx64 "%s", isa_register_name(i), i ? hart->x[i] : 0,
                      i % 3 == 2 ? "\n" : "");
    monitor_print(session, "\n");
    print_csrs(session, hart);
}

static void info_stop(struct debug_session *session, char **words, unsigned count)
{
    for (unsigned i = 0; i < session->hart_count; i++) {
        const struct session_hart *hart = &session->harts[i];
        const struct hart_stop *stop = &hart->stop.hart;
        monitor_print(session, "hart %u: ", i);
        if (hart->asked)
            monitor_print(session, "interrupted\n");
        else if (hart->stop.started)
            monitor_print(session, "was started\n");
        else if (stop->reason == HART_STOP_BREAK)
            monitor_print(session, "at a breakpoint\n");
        else if (stop->reason == HART_STOP_WATCH)
            monitor_print(session, "about to access %#" PRIx64 ", which is watched\n",
                          stop->address);
        else if (stop->reason == HART_STOP_TRAP || stop->reason == HART_STOP_LOST)
            monitor_print(session, "%s%s\n", hart_cause_name(stop->cause),
                          stop->reason == HART_STOP_LOST ? ", without a handler" : "");
        else if (stop->reason == HART_STOP_CALL)
            monitor_print(session, "about to call the SBI\n");
        else if (stop->reason == HART_STOP_WAIT)
            monitor_print(session, "about to wait (wfi)\n");
        else
            monitor_print(session, i == session->stopped_hart ? "stepped, or stopped from outside\n"
                                                              : "stopped with the others\n");
    }
}

static void info_breakpoints(struct debug_session *session, char **words, unsigned count)
{
    points_print(session->points, &session->console);
}

/* --- Memory --------------------------------------------------------------------------------------
 */

static void print_range(void *opaque, const struct memory_range *range)
{
    struct debug_session *session = opaque;
    static const char *const kinds[] = {[MEMORY_RAM] = "RAM",
                                        [MEMORY_ROM] = "ROM",
                                        [MEMORY_MMIO] = "registers",
                                        [MEMORY_DEVICE] = "device memory"};
    monitor_print(session, "%016" PRIx64 "-%016" PRIx64 " %-9s %s\n", range->base,
                  range->base + (range->size - 1), kinds[range->kind], range->name);
}

static void info_mem(struct debug_session *session, char **words, unsigned count)
{
    memory_list(machine_debug_memory(session->machine), print_range, session);
}

/* Mappings of the current address space, neighbours of one kind together. */
struct mapping {
    struct debug_session *session;
    uint64_t va, gpa, size;
    unsigned flags;
    unsigned lines, tables;
};

/* Tables may lead to themselves. */
enum { MAPPINGS_MOST = 2000, TABLES_MOST = 32768 };

static bool has_enough(const struct mapping *mapping)
{
    return mapping->lines >= MAPPINGS_MOST || mapping->tables >= TABLES_MOST;
}

static void mapping_flush(struct mapping *mapping)
{
    unsigned flags = mapping->flags;
    if (mapping->size && mapping->lines++ < MAPPINGS_MOST)
        monitor_print(
            mapping->session, "%016" PRIx64 "-%016" PRIx64 " -> %014" PRIx64 " %c%c%c%c%c%c%c\n",
            mapping->va, mapping->va + (mapping->size - 1), mapping->gpa, flags & 2 ? 'r' : '-',
            flags & 4 ? 'w' : '-', flags & 8 ? 'x' : '-', flags & 16 ? 'u' : '-',
            flags & 32 ? 'g' : '-', flags & 64 ? 'a' : '-', flags & 128 ? 'd' : '-');
    mapping->size = 0;
}

static void mapping_add(struct mapping *mapping, uint64_t va, uint64_t gpa, uint64_t size,
                        unsigned flags)
{
    if (mapping->size && va == mapping->va + mapping->size && gpa == mapping->gpa + mapping->size &&
        flags == mapping->flags) {
        mapping->size += size;
        return;
    }
    mapping_flush(mapping);
    mapping->va = va;
    mapping->gpa = gpa;
    mapping->size = size;
    mapping->flags = flags;
}

static void list_table(struct mapping *mapping, struct memory *memory, uint64_t table,
                       unsigned level, uint64_t base)
{
    mapping->tables++;
    for (unsigned i = 0; i < 512 && !has_enough(mapping); i++) {
        uint64_t pte, va = base | (uint64_t)i << (12 + 9 * level);
        if (!memory_dma_read(memory, table + 8 * i, &pte, sizeof(pte)) || !(pte & 1))
            continue;
        uint64_t gpa = bits_get(pte, 10, 44) << 12;
        if (pte & 10)
            mapping_add(mapping, va, gpa, UINT64_C(1) << (12 + 9 * level), pte & 0xff);
        else if (level)
            list_table(mapping, memory, gpa, level - 1, va);
    }
}

static void info_mappings(struct debug_session *session, char **words, unsigned count)
{
    struct hart *hart = session_hart(session);
    struct mapping mapping = {.session = session};
    unsigned scheme = hart->satp >> 60;
    if (!scheme) {
        monitor_print(session, "satp is 0: nothing is translated\n");
        return;
    }
    unsigned levels = scheme - 5;
    struct memory *memory = machine_debug_memory(session->machine);
    uint64_t root = bits_get(hart->satp, 0, 44) << 12, half = UINT64_C(1) << (11 + 9 * levels);
    for (unsigned i = 0; i < 512; i++) {
        uint64_t pte, va = (uint64_t)i << (3 + 9 * levels);
        va = va & half ? va | ~(2 * half - 1) : va; /* addresses are signed */
        if (!memory_dma_read(memory, root + 8 * i, &pte, sizeof(pte)) || !(pte & 1))
            continue;
        uint64_t gpa = bits_get(pte, 10, 44) << 12;
        if (pte & 10)
            mapping_add(&mapping, va, gpa, UINT64_C(1) << (3 + 9 * levels), pte & 0xff);
        else
            list_table(&mapping, memory, gpa, levels - 2, va);
    }
    mapping_flush(&mapping);
    if (has_enough(&mapping))
        monitor_print(session, "... and more\n");
}

static void print_tlb(void *opaque, const struct hart_tlb_entry *entry)
{
    struct debug_session *session = opaque;
    monitor_print(session, "%016" PRIx64 " %c%c%c%s%s  %s-mode satp %016" PRIx64 "\n", entry->va,
                  entry->accesses & 1 << ACCESS_LOAD ? 'r' : '-',
                  entry->accesses & 1 << ACCESS_STORE ? 'w' : '-',
                  entry->accesses & 1 << ACCESS_FETCH ? 'x' : '-', entry->slow ? " registers" : "",
                  entry->watched ? " watched" : "", privileges[entry->privilege & 3], entry->satp);
}

static void info_tlb(struct debug_session *session, char **words, unsigned count)
{
    unsigned index;
    if (hart_of(session, words, count, &index))
        hart_debug_tlb(machine_debug_hart(session->machine, index), print_tlb, session);
}

static void translate(struct debug_session *session, char **words, unsigned count)
{
    struct hart_walk walk;
    uint64_t va;
    if (!monitor_number(session, words[0], &va))
        return;
    bool mapped = hart_debug_walk(session_hart(session), va, session->privilege, &walk);
    if (!walk.scheme)
        monitor_print(session, "no translation in this mode\n");
    else
        monitor_print(session, "Sv%u, satp %#" PRIx64 "\n", 9 * (walk.scheme - 8) + 39,
                      session_hart(session)->satp);
    for (unsigned i = 0; i < walk.count; i++) {
        uint64_t pte = walk.steps[i].pte;
        monitor_print(
            session, "  level %u: entry at %#" PRIx64 " is %016" PRIx64 ": %c%c%c%c%c%c%c%c\n",
            walk.scheme - 6 - i, walk.steps[i].gpa, pte, pte & 1 ? 'v' : '-', pte & 2 ? 'r' : '-',
            pte & 4 ? 'w' : '-', pte & 8 ? 'x' : '-', pte & 16 ? 'u' : '-', pte & 32 ? 'g' : '-',
            pte & 64 ? 'a' : '-', pte & 128 ? 'd' : '-');
    }
    if (mapped)
        monitor_print(session,
                      "%#" PRIx64 " is physical %#" PRIx64 ", in a page of %" PRIu64 " KiB\n", va,
                      walk.gpa, UINT64_C(1) << (walk.shift - 10));
    else
        monitor_print(session, "%#" PRIx64 " is not mapped: %s\n", va, walk.failure);
}

/* "xp", with GDB's /COUNT, FORMAT and SIZE: x d u c i s, b h w g. */
static bool parse_format(const char *word, unsigned *items, char *format, unsigned *size)
{
    char *end;
    *items = 1;
    if (word[1] >= '0' && word[1] <= '9') {
        *items = (unsigned)strtoul(word + 1, &end, 10);
        word = end - 1;
    }
    for (const char *at = word + 1; *at; at++) {
        static const char sizes[] = "bhwg";
        const char *found = strchr(sizes, *at);
        if (found)
            *size = 1u << (found - sizes);
        else if (strchr("xduci", *at))
            *format = *at;
        else
            return false;
    }
    return *items > 0 && *items <= 4096;
}

static void print_instruction(struct debug_session *session, uint64_t gpa, uint32_t bits)
{
    char text[100];
    struct hart *hart = session_hart(session);
    isa_disassemble(bits, gpa, &hart->extensions, hart_csr_name, text, sizeof(text));
    monitor_print(session, "%#" PRIx64 ": %s\n", gpa, text);
}

static bool load(struct debug_session *session, bool physical, uint64_t address, void *data,
                 size_t size)
{
    if (physical)
        return memory_dma_read(machine_debug_memory(session->machine), address, data, size);
    return session_read(session, address, data, size) == size;
}

static void examine(struct debug_session *session, char **words, unsigned count, bool physical)
{
    unsigned items = 1, size = 4;
    char format = 'x';
    uint64_t address;
    if (count == 2 && (words[0][0] != '/' || !parse_format(words[0], &items, &format, &size))) {
        monitor_print(session, "'%s' is no format: /COUNT, one of xduci, one of bhwg\n", words[0]);
        return;
    }
    if (!monitor_number(session, words[count - 1], &address))
        return;
    unsigned columns = format == 'i' ? 1 : size == 8 ? 2 : size == 4 ? 4 : 8;
    for (unsigned i = 0; i < items; i++) {
        uint8_t data[8] = {0};
        unsigned length = format == 'i' ? 2 : size;
        bool there = load(session, physical, address, data, length);
        if (there && format == 'i' && (data[0] & 3) == 3) {
            there = load(session, physical, address + 2, data + 2, 2);
            length = 4;
        }
        if (!there) {
            monitor_print(session, "%s%#" PRIx64 " is not %s\n", i % columns ? "\n" : "", address,
                          physical ? "RAM" : "mapped, or not RAM");
            return;
        }
        uint64_t value = load_le64(data);
        if (format == 'i') {
            print_instruction(session, address, (uint32_t)value);
        } else {
            if (i % columns == 0)
                monitor_print(session, "%#" PRIx64 ":", address);
            if (format == 'x')
                monitor_print(session, " 0x%0*" PRIx64, 2 * (int)size, value);
            else if (format == 'c')
                monitor_print(session, " '%c'", value >= 32 && value < 127 ? (char)value : '.');
            else if (format == 'd')
                monitor_print(session, " %" PRId64, (int64_t)sign_extend(value, 8 * size));
            else
                monitor_print(session, " %" PRIu64, value);
            if (i % columns == columns - 1 || i == items - 1)
                monitor_print(session, "\n");
        }
        address += length;
    }
}

static void examine_virtual(struct debug_session *session, char **words, unsigned count)
{
    examine(session, words, count, false);
}

static void examine_physical(struct debug_session *session, char **words, unsigned count)
{
    examine(session, words, count, true);
}

/* --- Devices -------------------------------------------------------------------------------------
 */

static void info_devices(struct debug_session *session, char **words, unsigned count)
{
    const char *type;
    for (unsigned i = 0;; i++) {
        const char *name = machine_debug_device(session->machine, i, &type);
        if (!name)
            break;
        monitor_print(session, "%-16s %s\n", name, type);
    }
}

static uint32_t config_read(struct debug_session *session, unsigned function, unsigned offset)
{
    uint64_t value = UINT32_MAX;
    memory_read(machine_debug_memory(session->machine),
                machine_debug_ecam() + ((uint64_t)function << 12) + offset, 4, &value);
    return (uint32_t)value;
}

static void print_function(struct debug_session *session, unsigned function)
{
    uint32_t id = config_read(session, function, 0), class = config_read(session, function, 8);
    uint32_t command = config_read(session, function, 4);
    if (id == UINT32_MAX)
        return;
    monitor_print(session, "%02x:%02x.%u %04x:%04x class %06x%s%s%s\n", function >> 8,
                  function >> 3 & 31, function & 7, id & 0xffff, id >> 16, class >> 8,
                  command & 1 ? " io" : "", command & 2 ? " memory" : "",
                  command & 4 ? " master" : "");
    bool bridge = config_read(session, function, 12) >> 16 & 1;
    for (unsigned bar = 0; bar < (bridge ? 2 : 6); bar++) {
        uint64_t value = config_read(session, function, 0x10 + 4 * bar);
        if (!value)
            continue;
        bool wide = !(value & 1) && (value & 6) == 4;
        uint64_t base = value & 1 ? value & ~3u : value & ~15u;
        if (wide)
            base |= (uint64_t)config_read(session, function, 0x14 + 4 * bar) << 32;
        monitor_print(session, "        BAR %u at %#" PRIx64 ", %s%s\n", bar, base,
                      value & 1 ? "I/O"
                      : wide    ? "64-bit"
                                : "32-bit",
                      value & 1   ? ""
                      : value & 8 ? ", prefetchable"
                                  : "");
        bar += wide;
    }
}

static void info_pci(struct debug_session *session, char **words, unsigned count)
{
    for (unsigned function = 0; function < 0x10000; function++) {
        bool first = (function & 7) == 0;
        uint32_t id = first ? config_read(session, function, 0) : 0;
        if (first && id == UINT32_MAX) {
            function += 7;
            continue;
        }
        print_function(session, function);
        if (first && !(config_read(session, function, 12) >> 16 & 0x80))
            function += 7; /* it has one function */
    }
}

const struct monitor_command monitor_info_commands[] = {
    {"info harts", "", "what each hart does", info_harts, 0, 0},
    {"info registers", "[HART]", "registers and CSRs", info_registers, 0, 1, true},
    {"info stop", "", "why each hart stands still", info_stop, 0, 0, true},
    {"info breakpoints", "", "what the server has been told to stop at", info_breakpoints, 0, 0},
    {"info mem", "", "the physical address space", info_mem, 0, 0},
    {"info mappings", "", "what the page tables of the hart map", info_mappings, 0, 0, true},
    {"info tlb", "[HART]", "translations that the hart has cached", info_tlb, 0, 1, true},
    {"info devices", "", "the devices of the machine", info_devices, 0, 0},
    {"info pci", "", "PCI functions and their BARs", info_pci, 0, 0},
    {"translate", "ADDRESS", "the walk through the page tables", translate, 1, 1, true},
    {"x", "[/COUNT FORMAT SIZE] ADDRESS", "memory, as GDB's own x: x /4i $pc", examine_virtual, 1,
     2, true},
    {"xp", "[/COUNT FORMAT SIZE] ADDRESS", "physical memory: xp /8xw 0x80000000", examine_physical,
     1, 2},
    {0},
};
