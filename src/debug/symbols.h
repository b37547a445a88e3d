/*
 * Names, source lines and call frame information of what a guest runs, by run-time address.
 *
 * A struct symbols holds any number of files: ELF files (symbols, DWARF), and tables as System.map
 * and /proc/kallsyms have them. Each has an offset: run-time address minus address in the file,
 * modulo 2^64.
 *
 * Threads: all functions may be called on any thread, except that files are added and the object is
 * destroyed while nobody else uses it. Strings belong to the struct symbols and stay valid until it
 * is destroyed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct symbols;

struct symbols *symbols_create(void);
void symbols_destroy(struct symbols *symbols); /* accepts NULL */

/*
 * Adds a file. False, with a message that names it and the remedy, and nothing added: it cannot be
 * read, is no ELF file or table, is not for 64-bit RISC-V, is not linked (.o, .ko), is damaged, or
 * has neither symbols nor DWARF. ELF files need a build with libdw.
 */
bool symbols_add(struct symbols *symbols, const char *file, int64_t offset, struct error *err);

struct symbol {
    const char *name;
    uint64_t address, size; /* of the whole; the size of what has none in its file reaches to the
                               next symbol or the end of the section */
    uint64_t offset;        /* of the address that was asked for */
    bool function;          /* the file says that it is one */
};

/*
 * The symbol that covers an address; where there are several, the one that a person would name:
 * functions and variables before labels, global before local. False: there is none.
 */
bool symbols_find(struct symbols *symbols, uint64_t address, struct symbol *symbol);

/* The address of a name: of a global symbol before local ones, of the lowest among equals. */
bool symbols_address(struct symbols *symbols, const char *name, uint64_t *address);

#define SYMBOLS_INLINED_MAX 8

/* A place in the source. */
struct symbols_place {
    const char *function; /* NULL: not known */
    const char *file;     /* as the compiler was given it, with its directory; NULL: not known */
    unsigned line;        /* 1...; 0: not known */
    unsigned column;      /* 1...; 0: not known */
};

/*
 * Where the code at an address comes from. places[0] is the line itself; where its function was
 * inlined, places[1] is the call in the function that it was inlined into, and so on: the last one
 * is in the function that the address belongs to. Returns how many there are, at least 1 and at
 * most SYMBOLS_INLINED_MAX; 0: no file has DWARF for the address.
 */
unsigned symbols_line(struct symbols *symbols, uint64_t address,
                      struct symbols_place places[SYMBOLS_INLINED_MAX]);

/* Both write at most `size` bytes, of which there is at least one, and return `text`. */

/* " (file.c:34)", without directories, or nothing. */
const char *symbols_format_place(const struct symbols_place *place, char *text, size_t size);

/*
 * "name+0x12 (file.c:34)", with what is known of it, or the bare address: "0x80001234".
 * after_call: it is an address that a call returns to, so the symbol and line are those of the
 * call.
 */
const char *symbols_format(struct symbols *symbols, uint64_t address, bool after_call, char *text,
                           size_t size);

/* The number of symbols. */
size_t symbols_count(const struct symbols *symbols);
