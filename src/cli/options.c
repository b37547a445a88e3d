#include "cli/options.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/suggest.h"
#include "cli/qemu.h"

#define HELP_COLUMN 28

/* --- Values --- */

bool option_flag(const char *value, void *target, struct error *err)
{
    *(bool *)target = true;
    return true;
}

bool option_string(const char *value, void *target, struct error *err)
{
    *(const char **)target = value;
    return true;
}

static bool read_number(const char *text, char **end, uint64_t *number)
{
    errno = 0;
    *number = strtoull(text, end, 10);
    return text[0] >= '0' && text[0] <= '9' && !errno;
}

bool option_size(const char *value, void *target, struct error *err)
{
    static const char units[] = "KMGT";
    char *end;
    uint64_t number;
    unsigned shift = 0;
    bool ok = read_number(value, &end, &number);
    if (ok && *end) {
        const char *unit = strchr(units, *end >= 'a' && *end <= 'z' ? *end - 'a' + 'A' : *end);
        ok = unit && !end[1];
        shift = ok ? 10 * (unsigned)(unit - units + 1) : 0;
    }
    if (!ok || number > UINT64_MAX >> shift)
        return error_set(err, "not a size: give a whole number with K, M, G or T, as in 512M");
    *(uint64_t *)target = number << shift;
    return true;
}

bool option_count(const char *value, void *target, struct error *err)
{
    char *end;
    uint64_t number;
    if (!read_number(value, &end, &number) || *end || number > UINT_MAX)
        return error_set(err, "not a number: give one like 4");
    *(unsigned *)target = (unsigned)number;
    return true;
}

/* --- Lists --- */

char *option_word(char **list)
{
    char *from = *list, *to = *list, *word = *list;
    if (!from)
        return NULL;
    while (*from && !(*from == ',' && from[1] != ',')) {
        if (*from == ',')
            from++;
        *to++ = *from++;
    }
    *list = *from ? from + 1 : NULL;
    *to = '\0';
    return word;
}

/* What may stand in a list, for messages: "ro, snapshot, bus=pci|mmio". */
static const char *list_names(const struct option_table *table, char *text, size_t size)
{
    size_t length = 0;
    text[0] = '\0';
    for (size_t i = 0; i < table->count && length < size; i++) {
        const struct option *row = &table->rows[i];
        length +=
            (size_t)snprintf(text + length, size - length, "%s%s%s%s", i ? ", " : "", row->name,
                             row->argument ? "=" : "", row->argument ? row->argument : "");
    }
    return text;
}

static bool read_word(const struct option_table *table, char *word, void *target, struct error *err)
{
    char names[200];
    char *value = strchr(word, '=');
    if (value)
        *value++ = '\0';
    const struct option *row = option_find(table, word);
    if (!row)
        return error_set(err, "unknown word '%s' (known: %s; a comma in a name is written ,,)",
                         word, list_names(table, names, sizeof(names)));
    if (!row->argument && value)
        return error_set(err, "'%s' takes no value, not '%s'", word, value);
    if (row->argument && (!value || !*value))
        return error_set(err, "'%s' needs a value: %s=%s", word, word, row->argument);
    return row->parse(value, (char *)target + row->target, err);
}

bool option_words(const struct option_table *table, char *list, void *target, struct error *err)
{
    for (char *word; (word = option_word(&list));)
        if (!read_word(table, word, target, err))
            return false;
    return true;
}

/* --- Options --- */

const struct option *option_find(const struct option_table *table, const char *name)
{
    for (size_t i = 0; i < table->count; i++)
        if (table->rows[i].name && !strcmp(table->rows[i].name, name))
            return &table->rows[i];
    return NULL;
}

static const struct option *find_letter(const struct option_table *table, char letter)
{
    for (size_t i = 0; i < table->count; i++)
        if (table->rows[i].letter && table->rows[i].letter == letter)
            return &table->rows[i];
    return NULL;
}

static bool unknown_option(const struct option_table *table, const char *word, const char *name,
                           struct error *err)
{
    const char *advice = qemu_advice(name);
    if (advice)
        return error_set(err, "%s is an option of QEMU: %s", word, advice);
    struct suggestion nearest;
    suggest_begin(&nearest, name);
    for (size_t i = 0; i < table->count; i++)
        if (table->rows[i].name)
            suggest_offer(&nearest, table->rows[i].name);
    if (nearest.name)
        return error_set(err, "unknown option %s: did you mean --%s?", word, nearest.name);
    return error_set(err, "unknown option %s: --help lists them", word);
}

struct parse {
    const struct option_table *table;
    char **words; /* the next one */
    void *target;
    struct option_arguments *arguments;
    struct error *err;
};

/* `shown` is the option as the user wrote it; `value` is NULL where none is attached to it. */
static bool apply(struct parse *parse, const struct option *row, const char *shown,
                  const char *value)
{
    struct error *err = parse->err;
    if (!row->argument && value)
        return error_set(err, "%s takes no value, not '%s'", shown, value);
    if (row->argument && !value) {
        if (!*parse->words)
            return error_set(err, "%s needs a value: %s", shown, row->argument);
        value = *parse->words++;
    }
    if (row->argument && !*value)
        return error_set(err, "%s '': give %s", shown, row->argument);
    return row->parse(value, (char *)parse->target + row->target, err) ||
           error_prefix(err, "%s%s%s", shown, value ? " " : "", value ? value : "");
}

static bool parse_long(struct parse *parse, char *word)
{
    char shown[64];
    const char *value = strchr(word, '=');
    int length = value ? (int)(value - word) : (int)strlen(word);
    snprintf(shown, sizeof(shown), "%.*s", length, word);
    if (!strcmp(word, "--help"))
        return parse->arguments->help = true;
    const struct option *row = option_find(parse->table, shown + 2);
    if (!row)
        return unknown_option(parse->table, shown, shown + 2, parse->err);
    return apply(parse, row, shown, value ? value + 1 : NULL);
}

/* One letter, or several flags of which the last may have a value behind it. */
static bool parse_letters(struct parse *parse, char *word)
{
    for (char *letter = word + 1; *letter; letter++) {
        char shown[] = {'-', *letter, '\0'};
        const struct option *row = find_letter(parse->table, *letter);
        if (!row && *letter == 'h')
            return parse->arguments->help = true;
        if (!row)
            return unknown_option(parse->table, letter == word + 1 ? word : shown, word + 1,
                                  parse->err);
        bool attached = row->argument && letter[1];
        if (!apply(parse, row, shown, attached ? letter + 1 : NULL))
            return false;
        if (row->argument)
            break;
    }
    return true;
}

/* A whole word behind one hyphen: QEMU's way of writing, which would be read as letters. */
static bool check_hyphens(const struct parse *parse, const char *word)
{
    const char *advice = qemu_advice(word);
    if (advice)
        return error_set(parse->err, "%s is an option of QEMU: %s", word, advice);
    if (option_find(parse->table, word + 1))
        return error_set(parse->err, "%s: write --%s, with two hyphens", word, word + 1);
    return true;
}

static bool parse_word(struct parse *parse, char *word)
{
    if (word[1] == '-')
        return parse_long(parse, word);
    if (!check_hyphens(parse, word))
        return false;
    return parse_letters(parse, word);
}

bool options_parse(const struct option_table *table, char **words, void *target,
                   struct option_arguments *arguments, struct error *err)
{
    struct parse parse = {
        .table = table, .words = words, .target = target, .arguments = arguments, .err = err};
    bool options = true;
    arguments->count = 0;
    arguments->help = false;
    while (*parse.words && !arguments->help) {
        char *word = *parse.words++;
        if (options && !strcmp(word, "--"))
            options = false;
        else if (!options || word[0] != '-' || !word[1])
            arguments->words[arguments->count++] = word;
        else if (!parse_word(&parse, word))
            return false;
    }
    return true;
}

/* --- Texts --- */

static void help_line(const struct option *row, FILE *out)
{
    if (!row->name) {
        fprintf(out, "\n%s:\n", row->help);
        return;
    }
    int width = row->letter ? fprintf(out, "  -%c, ", row->letter) : fprintf(out, "      ");
    width += fprintf(out, "--%s", row->name);
    if (row->argument)
        width += fprintf(out, " %s", row->argument);
    if (width > HELP_COLUMN - 2) {
        putc('\n', out);
        width = 0;
    }
    fprintf(out, "%*s%s\n", HELP_COLUMN - width, "", row->help);
}

void options_help(const struct option_table *table, FILE *out)
{
    static const struct option help = {.name = "help", .letter = 'h', .help = "print this text"};
    for (size_t i = 0; i < table->count; i++)
        help_line(&table->rows[i], out);
    help_line(&help, out);
}
