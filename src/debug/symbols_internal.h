/* Private to symbols*.c and unwind_cfi.c: the files behind a struct symbols. */
#pragma once

#include <pthread.h>

#include "debug/symbols.h"

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

struct symbol_file {
    uint64_t offset;
    int fd;
    char *text;      /* a table, which names point into; NULL: it is none */
    struct elf *elf; /* symbols_elf.h; NULL: it is none */
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

/* Accepts NULL. */
void symbols_release_elf(struct elf *elf);

/* Whether a symbol is only of interest to linkers and disassemblers: $x, .L12. */
bool symbols_is_mapping(const char *name);

/* symbols_line in one ELF file, with an address of that file and the lock held. */
unsigned symbols_elf_line(struct elf *elf, uint64_t address,
                          struct symbols_place places[SYMBOLS_INLINED_MAX]);
