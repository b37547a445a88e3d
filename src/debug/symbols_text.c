/* Tables of symbols: System.map, nm and /proc/kallsyms write `ADDRESS TYPE NAME [MODULE]`. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "debug/symbols_internal.h"

#define TABLE_MAX (UINT64_C(256) << 20)

/* The whole file, with a NUL behind it; kallsyms has no size before it is read. */
static char *read_whole(const char *name, int fd, struct error *err)
{
    char *text = NULL;
    size_t size = 0, capacity = 0;
    for (;;) {
        if (size + 1 >= capacity) {
            capacity = capacity ? 2 * capacity : 65536;
            text = xrealloc(text, capacity);
        }
        ssize_t count = pread(fd, text + size, capacity - size - 1, (off_t)size);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            error_set_errno(err, errno, "cannot read '%s'", name);
        size += count > 0 ? (size_t)count : 0;
        if (size > TABLE_MAX)
            error_set(err, "'%s' is larger than a table of symbols can be (%llu MiB)", name,
                      (unsigned long long)(TABLE_MAX >> 20));
        if (count < 0 || size > TABLE_MAX) {
            free(text);
            return NULL;
        }
        if (count == 0)
            break;
    }
    text[size] = '\0';
    return text;
}

/* The letters of nm. False: not the address of something in the guest. */
static bool read_type(char letter, struct symbol_entry *entry)
{
    static const struct {
        const char *letters;
        uint8_t rank;
        bool function;
    } types[] = {
        {"T", RANK_GLOBAL, true},      {"t", RANK_LOCAL, true},      {"WwVv", RANK_WEAK, true},
        {"DBRGS", RANK_GLOBAL, false}, {"dbrgs", RANK_LOCAL, false}, {"Aa", RANK_NUMBER, false},
    };
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (strchr(types[i].letters, letter)) {
            entry->rank = types[i].rank;
            entry->function = types[i].function;
            return true;
        }
    return false;
}

/* Reads one line, in which it ends the name. */
static bool read_line(char *line, struct symbol_entry *entry, char *type)
{
    char *end;
    size_t digits = strspn(line, "0123456789abcdefABCDEF");
    if (digits < 1 || digits > 16 || line[digits] != ' ')
        return false;
    entry->address = strtoull(line, &end, 16);
    *type = end[1];
    if (!*type || end[2] != ' ' || !end[3])
        return false;
    char *name = end + 3;
    size_t length = strcspn(name, " \t\r");
    const char *rest = name + length + strspn(name + length, " \t\r");
    if (!length || (*rest && *rest != '[')) /* [MODULE] */
        return false;
    name[length] = '\0';
    entry->name = name;
    return true;
}

bool symbols_read_text(struct symbols *symbols, struct symbol_file *file, const char *name,
                       struct error *err)
{
    size_t before = symbols->count;
    uint64_t any = 0;
    unsigned number = 0;
    file->text = read_whole(name, file->fd, err);
    if (!file->text)
        return false;
    for (char *line = file->text, *next; *line; line = next) {
        struct symbol_entry entry = {0};
        char type;
        next = line + strcspn(line, "\n");
        if (*next)
            *next++ = '\0';
        number++;
        if (!*line)
            continue;
        if (!read_line(line, &entry, &type)) {
            if (symbols->count == before)
                return error_set(err,
                                 "'%s' is neither an ELF file nor a table of symbols: line %u is "
                                 "not 'ADDRESS TYPE NAME', as in System.map and /proc/kallsyms",
                                 name, number);
            return error_set(err, "'%s', line %u: not 'ADDRESS TYPE NAME'", name, number);
        }
        any |= entry.address;
        if (!read_type(type, &entry) || symbols_is_mapping(entry.name))
            continue;
        if (entry.rank != RANK_NUMBER)
            entry.address += file->offset;
        entry.end = entry.address;
        symbols_append(symbols, &entry);
    }
    if (symbols->count == before)
        return error_set(err, "'%s' has no symbols", name);
    return any || error_set(err,
                            "'%s' has no addresses, only zeros: read it as root, after `sysctl "
                            "kernel.kptr_restrict=0`",
                            name);
}
