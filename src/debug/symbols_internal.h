/* Private to symbols_*.c and unwind_*.c: the files behind a struct symbols. */
#pragma once

#include <pthread.h>

#include "debug/symbols.h"

#ifdef HAVE_LIBDW
#    include <elfutils/libdw.h>
#endif

/* What a person would rather name, in rising order. */
enum symbol_rank {
    RANK_NUMBER, /* an absolute symbol: no address of code or data */
    RANK_LABEL,
    RANK_WEAK_LABEL,
    RANK_GLOBAL_LABEL,
    RANK_LOCAL,
    RANK_WEAK,
    RANK_GLOBAL,
};

struct symbol_entry {
    uint64_t address, end; /* at run time; end == address: to be found */
    uint64_t limit;        /* where `end` cannot be beyond: of the section */
    const char *name;
    uint8_t rank; /* enum symbol_rank */
    bool function;
};

/* The code of a compilation unit; the same unit may have several. */
struct unit_range {
    uint64_t low, high; /* in the file */
    uint64_t unit;      /* offset of the unit's DIE */
};

struct symbol_file {
    uint64_t offset;
    int fd;
    char *text; /* the names of a table; NULL: ELF */
#ifdef HAVE_LIBDW
    Elf *elf;
    Dwarf *dwarf;                      /* NULL: it has none */
    Dwarf_CFI *eh_frame, *dwarf_frame; /* NULL: it has none; the latter belongs to dwarf */
    struct unit_range *ranges;         /* sorted; made when first needed */
    size_t range_count;
    bool ranges_made;
#endif
};

struct symbols {
    struct symbol_file *files;
    size_t file_count;

    struct symbol_entry *entries; /* of all files, in the order of their names */
    size_t count, capacity;
    struct symbol_entry *places; /* those to be found by address, in its order */
    size_t place_count;

    pthread_mutex_t lock; /* libdw and what is made when first needed */
};

/* Adds a symbol of the file that is being added. The address is the one at run time. */
void symbols_append(struct symbols *symbols, const struct symbol_entry *entry);

/* Fill the file, whose offset and fd are set, and append its symbols. On failure the caller cleans
 * up. */
bool symbols_read_elf(struct symbols *symbols, struct symbol_file *file, const char *name,
                      struct error *err);
bool symbols_read_text(struct symbols *symbols, struct symbol_file *file, const char *name,
                       struct error *err);

/* Releases what symbols_read_elf made. */
void symbols_release_elf(struct symbol_file *file);

/* Whether a symbol is only of interest to linkers and disassemblers: $x, .L12. */
bool symbols_is_mapping(const char *name);

/* symbols_line in one file; with the lock held. */
unsigned symbols_file_line(struct symbol_file *file, uint64_t address,
                           struct symbols_place places[SYMBOLS_INLINED_MAX]);
