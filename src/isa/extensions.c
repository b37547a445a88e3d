#include "isa/isa.h"

#include "base/error.h"
#include "base/suggest.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define ONE(a)     {ISA_EXT_##a, ISA_EXT_##a, true}
#define BOTH(a, b) {ISA_EXT_##a, ISA_EXT_##b, true}

static const struct isa_extension_info extensions[ISA_EXT_COUNT] = {
#define EXTENSION(id, name, needs, listed, by_default, description)                                \
    {name, description, needs, listed, by_default},
#include "isa/extensions.def"
};

/* What rv64gc and rva22s64 mean beyond their letters: "RVA22S64 Profile", mandatory parts. Sv57 is
 * in rv64gc because software asks for a mode and falls back, and Svade so that A and D are defined.
 */
static const struct {
    const char *name;
    const char *spec; /* applied to the empty set; NULL is every extension that is on by default */
    bool everything;
} bases[] = {
    {"default", NULL, false},
    {"max", NULL, true},
    {"rv64gc", "m,a,d,c,zicntr,zifencei,zihpm,sv57,svade,svbare", false},
    {"rva22s64",
     "m,a,d,c,zic64b,zicbom,zicbop,zicboz,ziccamoa,ziccif,zicclsm,ziccrse,zicntr,zifencei,"
     "zihintpause,zihpm,za64rs,zfhmin,zba,zbb,zbs,zkt,ssccptr,sscounterenw,sstvala,sstvecd,sv39,"
     "svade,svbare,svinval,svpbmt",
     false},
};

enum { BASE_COUNT = sizeof(bases) / sizeof(bases[0]), WORD_MAX = 32 };

const struct isa_extension_info *isa_extension_info(enum isa_extension e)
{
    assert(e < ISA_EXT_COUNT);
    return &extensions[e];
}

void isa_extensions_set(struct isa_extensions *set, enum isa_extension e)
{
    if (isa_extensions_test(set, e))
        return;
    set->words[e / 64] |= UINT64_C(1) << (e % 64);
    isa_extensions_set(set, extensions[e].needs.first);
    isa_extensions_set(set, extensions[e].needs.second);
}

void isa_extensions_clear(struct isa_extensions *set, enum isa_extension e)
{
    if (!isa_extensions_test(set, e))
        return;
    set->words[e / 64] &= ~(UINT64_C(1) << (e % 64));
    for (unsigned i = 0; i < ISA_EXT_COUNT; i++)
        if (extensions[i].needs.first == e || extensions[i].needs.second == e)
            isa_extensions_clear(set, i);
}

static struct isa_extensions default_or_all(bool all)
{
    struct isa_extensions set = {0};
    for (unsigned i = 0; i < ISA_EXT_COUNT; i++)
        if (all || extensions[i].by_default)
            isa_extensions_set(&set, i);
    return set;
}

struct isa_extensions isa_extensions_default(void)
{
    return default_or_all(false);
}

/* --- The text of --cpu --- */

static bool find_extension(const char *name, enum isa_extension *e)
{
    for (unsigned i = 0; i < ISA_EXT_COUNT; i++) {
        if (strcasecmp(name, extensions[i].name) == 0) {
            *e = i;
            return true;
        }
    }
    return false;
}

static bool unknown_extension(const char *name, struct error *err)
{
    struct suggestion nearest;
    suggest_begin(&nearest, name);
    for (unsigned i = 0; i < ISA_EXT_COUNT; i++)
        suggest_offer(&nearest, extensions[i].name);
    return error_set(err,
                     "unknown CPU extension '%s'%s%s (bases, only as the first word: default, max, "
                     "rv64gc, rva22s64)",
                     name, nearest.name ? ": did you mean " : "", nearest.name ? nearest.name : "");
}

/* Applies one word: NAME, no-NAME, NAME=on or NAME=off. It is changed on the way. */
static bool apply_word(char *word, struct isa_extensions *set, struct error *err)
{
    bool on = true;
    char *name = word, *value = strchr(word, '=');
    if (value) {
        *value++ = '\0';
        on = strcasecmp(value, "on") == 0;
        if (!on && strcasecmp(value, "off") != 0)
            return error_set(err, "CPU extension '%s' has the value '%s': use on or off", name,
                             value);
    } else if (strncasecmp(word, "no-", 3) == 0) {
        on = false;
        name += 3;
    }
    enum isa_extension e;
    if (!find_extension(name, &e))
        return unknown_extension(name, err);
    if (!on && e == ISA_EXT_I)
        return error_set(err, "CPU extension '%s' cannot be turned off: every hart has it", name);
    (on ? isa_extensions_set : isa_extensions_clear)(set, e);
    return true;
}

static bool apply_words(const char *spec, bool first, struct isa_extensions *set,
                        struct error *err);

static bool apply_base(const char *word, struct isa_extensions *set)
{
    for (unsigned i = 0; i < BASE_COUNT; i++) {
        if (strcasecmp(word, bases[i].name) != 0)
            continue;
        if (!bases[i].spec) {
            *set = default_or_all(bases[i].everything);
            return true;
        }
        *set = (struct isa_extensions){0};
        bool ok = apply_words(bases[i].spec, false, set, NULL);
        assert(ok);
        return ok;
    }
    return false;
}

static bool apply_words(const char *spec, bool first, struct isa_extensions *set, struct error *err)
{
    for (;; first = false) {
        char word[WORD_MAX];
        size_t length = strcspn(spec, ",");
        if (length == 0)
            return error_set(err, "an empty word in the list of CPU extensions: give names with "
                                  "single commas between them");
        if (length >= sizeof(word))
            return error_set(err, "unknown CPU extension '%.*s...'", WORD_MAX, spec);
        memcpy(word, spec, length);
        word[length] = '\0';
        if (!(first && apply_base(word, set)) && !apply_word(word, set, err))
            return false;
        spec += length;
        if (*spec++ == '\0')
            return true;
    }
}

bool isa_extensions_parse(const char *spec, struct isa_extensions *set, struct error *err)
{
    struct isa_extensions result = isa_extensions_default();
    if (!apply_words(spec, true, &result, err))
        return false;
    *set = result;
    return true;
}

/* --- The text for the device tree --- */

const char *isa_extensions_next(const struct isa_extensions *set, unsigned *position)
{
    while (*position < ISA_EXT_COUNT) {
        unsigned i = (*position)++;
        if (extensions[i].listed && isa_extensions_test(set, i))
            return extensions[i].name;
    }
    return NULL;
}

size_t isa_extensions_string(const struct isa_extensions *set, char *text, size_t size)
{
    size_t length = (size_t)snprintf(text, size, "rv64");
    unsigned position = 0;
    const char *name;
    while ((name = isa_extensions_next(set, &position))) {
        bool room = length < size;
        length += (size_t)snprintf(room ? text + length : NULL, room ? size - length : 0, "%s%s",
                                   name[1] ? "_" : "", name);
    }
    return length;
}
