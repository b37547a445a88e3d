/* Private to what needs libdw: an ELF file of a struct symbols. */
#pragma once

#include <elfutils/libdw.h>

#include "debug/symbols_internal.h"

/* The code of a compilation unit; the same unit may have several. */
struct unit_range {
    uint64_t low, high;
    uint64_t unit; /* offset of the unit's DIE */
};

/* Under the lock of struct symbols once it was added, since libdw reads when it is asked. */
struct elf {
    Elf *file;
    Dwarf *dwarf;                      /* NULL: it has none */
    Dwarf_CFI *eh_frame, *dwarf_frame; /* NULL: it has none; the latter belongs to dwarf */
    struct unit_range *ranges;         /* sorted; made when first needed */
    size_t range_count;
    bool ranges_made;
};
