/* The table of symbols, whichever files they come from: symbols.h. */
#include "debug/symbols_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"

/* How far a last symbol of unknown size reaches where nothing else bounds it. */
#define LAST_SIZE 4096

struct symbols *symbols_create(void)
{
    struct symbols *symbols = xcalloc(1, sizeof(*symbols));
    pthread_mutex_init(&symbols->lock, NULL);
    return symbols;
}

static void release_file(struct symbol_file *file)
{
    symbols_release_elf(file->elf);
    free(file->text);
    close(file->fd);
}

void symbols_destroy(struct symbols *symbols)
{
    if (!symbols)
        return;
    for (size_t i = 0; i < symbols->file_count; i++)
        release_file(&symbols->files[i]);
    pthread_mutex_destroy(&symbols->lock);
    free(symbols->files);
    free(symbols->entries);
    free(symbols->places);
    free(symbols);
}

size_t symbols_count(const struct symbols *symbols)
{
    return symbols->count;
}

/* --- Building the table --- */

void symbols_append(struct symbols *symbols, const struct symbol_entry *entry)
{
    if (symbols->count == symbols->capacity) {
        symbols->capacity = symbols->capacity ? 2 * symbols->capacity : 256;
        symbols->entries =
            xrealloc(symbols->entries, symbols->capacity * sizeof(*symbols->entries));
    }
    symbols->entries[symbols->count++] = *entry;
}

static int compare(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

/* How well a symbol names what is at its address. __ often are aliases, or marks of the linker. */
static unsigned preference(const struct symbol_entry *entry)
{
    return (entry->rank >= RANK_LOCAL) << 5 | (strncmp(entry->name, "__", 2) != 0) << 4 |
           entry->rank;
}

/* By address; among equals the one to be named is the last. */
static int by_address(const void *left, const void *right)
{
    const struct symbol_entry *a = left, *b = right;
    int order = compare(a->address, b->address);
    if (!order)
        order = compare(preference(a), preference(b));
    if (!order)
        order = compare(a->end, b->end);
    return order ? order : strcmp(b->name, a->name);
}

static int by_name(const void *left, const void *right)
{
    const struct symbol_entry *a = left, *b = right;
    int order = strcmp(a->name, b->name);
    if (!order)
        order = compare(b->rank, a->rank);
    return order ? order : compare(a->address, b->address);
}

/*
 * What can be found by address: of several at one address the best, and no labels inside of
 * something that has a size. Those without a size reach to the next one.
 */
static void make_places(struct symbols *symbols)
{
    size_t count = 0;
    uint64_t covered = 0; /* the end of what has a size, so far */
    if (!symbols->count)
        return; /* a file with DWARF only */
    free(symbols->places);
    symbols->places = xmalloc(symbols->count * sizeof(*symbols->places));
    memcpy(symbols->places, symbols->entries, symbols->count * sizeof(*symbols->places));
    struct symbol_entry *places = symbols->places;
    qsort(places, symbols->count, sizeof(*places), by_address);

    for (size_t i = 0; i < symbols->count; i++) {
        struct symbol_entry entry = places[i];
        bool last = i + 1 == symbols->count || places[i + 1].address != entry.address;
        bool sized = entry.end > entry.address;
        if (entry.rank == RANK_NUMBER || !last || (!sized && entry.address < covered))
            continue;
        if (sized && entry.end > covered)
            covered = entry.end;
        places[count++] = entry;
    }
    for (size_t i = 0; i < count; i++) {
        struct symbol_entry *entry = &places[i];
        if (entry->end > entry->address)
            continue;
        entry->end = i + 1 < count ? places[i + 1].address : entry->address + LAST_SIZE;
        if (entry->limit > entry->address && entry->end > entry->limit)
            entry->end = entry->limit;
    }
    symbols->place_count = count;
    qsort(symbols->entries, symbols->count, sizeof(*symbols->entries), by_name);
}

bool symbols_is_mapping(const char *name)
{
    return name[0] == '$' || !strncmp(name, ".L", 2);
}

static bool read_file(struct symbols *symbols, struct symbol_file *file, const char *name,
                      struct error *err)
{
    char magic[4];
    ssize_t size = pread(file->fd, magic, sizeof(magic), 0);
    if (size < 0)
        return error_set_errno(err, errno, "cannot read '%s'", name);
    if (size == 4 && !memcmp(magic, "\177ELF", 4))
        return symbols_read_elf(symbols, file, name, err);
    return symbols_read_text(symbols, file, name, err);
}

bool symbols_add(struct symbols *symbols, const char *name, int64_t offset, struct error *err)
{
    struct symbol_file file = {.offset = (uint64_t)offset};
    size_t before = symbols->count;
    file.fd = open(name, O_RDONLY | O_CLOEXEC);
    if (file.fd < 0)
        return error_set_errno(err, errno, "cannot open '%s'", name);
    if (!read_file(symbols, &file, name, err)) {
        release_file(&file);
        symbols->count = before; /* they are the last until they are sorted */
        return false;
    }
    symbols->files = xrealloc(symbols->files, (symbols->file_count + 1) * sizeof(*symbols->files));
    symbols->files[symbols->file_count++] = file;
    make_places(symbols);
    return true;
}

/* --- Looking up --- */

/* Of what begins at or before an address, how many before the last may still cover it. */
#define NESTED_MAX 16

bool symbols_find(struct symbols *symbols, uint64_t address, struct symbol *symbol)
{
    const struct symbol_entry *places = symbols->places;
    size_t low = 0, high = symbols->place_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (places[middle].address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    for (unsigned i = 0; i < NESTED_MAX && low > 0; i++) {
        const struct symbol_entry *entry = &places[--low];
        if (address >= entry->end)
            continue;
        *symbol = (struct symbol){
            .name = entry->name,
            .address = entry->address,
            .size = entry->end - entry->address,
            .offset = address - entry->address,
            .function = entry->function,
        };
        return true;
    }
    return false;
}

bool symbols_address(struct symbols *symbols, const char *name, uint64_t *address)
{
    size_t low = 0, high = symbols->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(symbols->entries[middle].name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == symbols->count || strcmp(symbols->entries[low].name, name))
        return false;
    *address = symbols->entries[low].address;
    return true;
}

unsigned symbols_line(struct symbols *symbols, uint64_t address,
                      struct symbols_place places[SYMBOLS_INLINED_MAX])
{
    unsigned count = 0;
    pthread_mutex_lock(&symbols->lock);
    for (size_t i = 0; i < symbols->file_count && !count; i++) {
        const struct symbol_file *file = &symbols->files[i];
        if (file->elf)
            count = symbols_elf_line(file->elf, address - file->offset, places);
    }
    pthread_mutex_unlock(&symbols->lock);
    return count;
}

const char *symbols_format_place(const struct symbols_place *place, char *text, size_t size)
{
    const char *slash = place->file ? strrchr(place->file, '/') : NULL;
    text[0] = '\0';
    if (place->file)
        snprintf(text, size, " (%s:%u)", slash ? slash + 1 : place->file, place->line);
    return text;
}

const char *symbols_format(struct symbols *symbols, uint64_t address, bool after_call, char *text,
                           size_t size)
{
    struct symbols_place places[SYMBOLS_INLINED_MAX];
    struct symbol symbol;
    uint64_t at = address - after_call;
    if (symbols_find(symbols, at, &symbol))
        snprintf(text, size, "%s+0x%llx", symbol.name,
                 (unsigned long long)(address - symbol.address));
    else
        snprintf(text, size, "0x%llx", (unsigned long long)address);
    if (symbols_line(symbols, at, places)) {
        size_t length = strlen(text);
        symbols_format_place(&places[0], text + length, size - length);
    }
    return text;
}
