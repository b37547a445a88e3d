/* Source lines and inlined functions, from DWARF. The lock of struct symbols is held. */
#include "debug/symbols_elf.h"

#include <dwarf.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

/* What a damaged file may make us look at, in entries and in levels. */
#define WORK_MAX  4000000
#define DEPTH_MAX 64

/* --- Compilation units by address --- */

static int by_low(const void *left, const void *right)
{
    const struct unit_range *a = left, *b = right;
    if (a->low != b->low)
        return a->low < b->low ? -1 : 1;
    return a->high < b->high ? -1 : a->high > b->high;
}

static void add_unit(struct elf *elf, Dwarf_Die *unit, size_t *capacity, unsigned *work)
{
    Dwarf_Addr base, low, high;
    for (ptrdiff_t next = 0; *work; --*work) {
        next = dwarf_ranges(unit, next, &base, &low, &high);
        if (next <= 0)
            break;
        if (low >= high)
            continue;
        if (elf->range_count == *capacity) {
            *capacity = *capacity ? 2 * *capacity : 64;
            elf->ranges = xrealloc(elf->ranges, *capacity * sizeof(*elf->ranges));
        }
        elf->ranges[elf->range_count++] =
            (struct unit_range){.low = low, .high = high, .unit = dwarf_dieoffset(unit)};
    }
}

/* .debug_aranges would have them, but compilers leave it out. */
static void make_ranges(struct elf *elf)
{
    size_t capacity = 0;
    unsigned work = WORK_MAX;
    Dwarf_CU *unit = NULL;
    Dwarf_Die die;
    uint8_t type;
    elf->ranges_made = true;
    while (work && !dwarf_get_units(elf->dwarf, unit, &unit, NULL, &type, &die, NULL)) {
        work--;
        if (type == DW_UT_compile || type == DW_UT_skeleton)
            add_unit(elf, &die, &capacity, &work);
    }
    if (elf->range_count)
        qsort(elf->ranges, elf->range_count, sizeof(*elf->ranges), by_low);
}

static bool find_unit(struct elf *elf, uint64_t address, Dwarf_Die *unit)
{
    enum { OVERLAPPING_MAX = 16 };
    size_t low = 0, high;
    if (!elf->ranges_made)
        make_ranges(elf);
    for (high = elf->range_count; low < high;) {
        size_t middle = low + (high - low) / 2;
        if (elf->ranges[middle].low <= address)
            low = middle + 1;
        else
            high = middle;
    }
    for (unsigned i = 0; i < OVERLAPPING_MAX && low > 0; i++) {
        const struct unit_range *range = &elf->ranges[--low];
        if (address < range->high)
            return dwarf_offdie(elf->dwarf, range->unit, unit);
    }
    return false;
}

/* --- Functions --- */

struct scopes {
    Dwarf_Die functions[DEPTH_MAX]; /* the function, then what is inlined in it, outermost first */
    unsigned count, work;
};

enum scope_kind { SCOPE_NONE, SCOPE_FUNCTION, SCOPE_INLINED, SCOPE_BLOCK, SCOPE_NAMES };

static enum scope_kind scope_kind(Dwarf_Die *die)
{
    switch (dwarf_tag(die)) {
    case DW_TAG_subprogram:
        return SCOPE_FUNCTION;
    case DW_TAG_inlined_subroutine:
        return SCOPE_INLINED;
    case DW_TAG_lexical_block:
    case DW_TAG_try_block:
    case DW_TAG_catch_block:
        return SCOPE_BLOCK;
    case DW_TAG_namespace:
    case DW_TAG_module:
    case DW_TAG_structure_type:
    case DW_TAG_class_type:
        return SCOPE_NAMES;
    default:
        return SCOPE_NONE;
    }
}

/* Descends into what holds the address. True: it was found. */
static bool find_scopes(struct scopes *scopes, Dwarf_Die *parent, uint64_t address, unsigned depth)
{
    Dwarf_Die child;
    if (depth == DEPTH_MAX || dwarf_child(parent, &child))
        return false;
    do {
        enum scope_kind kind = scope_kind(&child);
        if (scopes->work == 0)
            return false;
        scopes->work--;
        if (kind == SCOPE_NONE || (kind != SCOPE_NAMES && dwarf_haspc(&child, address) <= 0))
            continue;
        if (kind == SCOPE_FUNCTION || kind == SCOPE_INLINED)
            scopes->functions[scopes->count++] = child;
        if (find_scopes(scopes, &child, address, depth + 1) || kind != SCOPE_NAMES)
            return true;
    } while (!dwarf_siblingof(&child, &child));
    return false;
}

static unsigned number_of(Dwarf_Die *die, unsigned attribute)
{
    Dwarf_Attribute value;
    Dwarf_Word number;
    if (!dwarf_attr(die, attribute, &value) || dwarf_formudata(&value, &number))
        return 0;
    return number > UINT32_MAX ? 0 : (unsigned)number;
}

/* Where an inlined function was called. */
static void read_call(Dwarf_Die *inlined, Dwarf_Files *files, size_t file_count,
                      struct symbols_place *place)
{
    unsigned file = number_of(inlined, DW_AT_call_file);
    place->line = number_of(inlined, DW_AT_call_line);
    place->column = number_of(inlined, DW_AT_call_column);
    if (files && file < file_count)
        place->file = dwarf_filesrc(files, file, NULL, NULL);
}

static void read_line(Dwarf_Die *unit, uint64_t address, struct symbols_place *place)
{
    int number;
    Dwarf_Line *line = dwarf_getsrc_die(unit, address);
    if (!line)
        return;
    place->file = dwarf_linesrc(line, NULL, NULL);
    if (!dwarf_lineno(line, &number) && number > 0)
        place->line = (unsigned)number;
    if (!dwarf_linecol(line, &number) && number > 0)
        place->column = (unsigned)number;
}

unsigned symbols_elf_line(struct elf *elf, uint64_t address,
                          struct symbols_place places[SYMBOLS_INLINED_MAX])
{
    struct scopes scopes = {.work = WORK_MAX};
    Dwarf_Die unit;
    Dwarf_Files *files = NULL;
    size_t file_count = 0;
    unsigned count = 1;
    if (!elf->dwarf || !find_unit(elf, address, &unit))
        return 0;
    places[0] = (struct symbols_place){0};
    read_line(&unit, address, &places[0]);
    find_scopes(&scopes, &unit, address, 0);
    if (scopes.count > 1)
        dwarf_getsrcfiles(&unit, &files, &file_count);
    for (unsigned i = scopes.count; i > 0; i--) {
        Dwarf_Die *die = &scopes.functions[i - 1];
        places[count - 1].function = dwarf_diename(die);
        if (i == 1 || count == SYMBOLS_INLINED_MAX)
            break;
        places[count] = (struct symbols_place){0};
        read_call(die, files, file_count, &places[count++]);
    }
    return places[0].file || places[0].function ? count : 0;
}
