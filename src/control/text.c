#include "control/text.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/suggest.h"
#include "control/message.h"

/* A member that is text, "" if there is none. */
static const char *text_member(struct json_object *object, const char *key)
{
    const char *text = message_text(json_object_object_get(object, key));
    return text ? text : "";
}

static struct json_object *find_named(struct json_object *list, const char *name)
{
    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        struct json_object *item = json_object_array_get_idx(list, i);
        if (!strcmp(text_member(item, "name"), name))
            return item;
    }
    return NULL;
}

const char *control_text_name(struct json_object *commands, const char *word, struct error *err)
{
    struct suggestion nearest;
    suggest_begin(&nearest, word);
    for (size_t i = 0; i < json_object_array_length(commands); i++) {
        struct json_object *command = json_object_array_get_idx(commands, i);
        const char *name = text_member(command, "name"), *alias = text_member(command, "alias");
        if (!strcmp(word, name) || (*alias && !strcmp(word, alias)))
            return name;
        suggest_offer(&nearest, name);
        if (*alias)
            suggest_offer(&nearest, alias);
    }
    if (nearest.name)
        error_set(err, "there is no command '%s': did you mean '%s'?", word, nearest.name);
    else
        error_set(err, "there is no command '%s': 'help' lists them", word);
    return NULL;
}

/* --- Arguments --- */

static struct json_object *read_integer(const char *text)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 0);
    return *text && !*end && !errno ? json_object_new_int64(value) : NULL;
}

static struct json_object *read_boolean(const char *text)
{
    static const struct {
        const char *word;
        bool value;
    } words[] = {{"true", true},   {"on", true},   {"yes", true},
                 {"false", false}, {"off", false}, {"no", false}};
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (!strcmp(text, words[i].word))
            return json_object_new_boolean(words[i].value);
    return NULL;
}

static struct json_object *read_list(const char *text)
{
    struct json_object *list = json_tokener_parse(text);
    if (json_object_is_type(list, json_type_array))
        return list;
    json_object_put(list);
    return NULL;
}

/* Of a server that does not say what it wants. */
static struct json_object *read_guess(const char *text)
{
    struct json_object *value = read_integer(text);
    if (!value)
        value = read_boolean(text);
    if (!value)
        value = read_list(text);
    return value ? value : json_object_new_string(text);
}

static const struct {
    const char *type;
    struct json_object *(*read)(const char *text); /* NULL: it is none */
    const char *form;
} readers[] = {
    {"string", json_object_new_string, "text"},
    {"integer", read_integer, "a number"},
    {"boolean", read_boolean, "true or false"},
    {"list", read_list, "a JSON list"},
    {"", read_guess, "any value"},
};

static bool read_argument(struct json_object *known, const char *key, const char *text,
                          struct json_object *arguments, struct error *err)
{
    struct json_object *argument = find_named(known, key);
    if (known && !argument) {
        struct suggestion nearest;
        suggest_begin(&nearest, key);
        for (size_t i = 0; i < json_object_array_length(known); i++)
            suggest_offer(&nearest, text_member(json_object_array_get_idx(known, i), "name"));
        return nearest.name
                   ? error_set(err, "unknown argument '%s': did you mean '%s'?", key, nearest.name)
                   : error_set(err, "unknown argument '%s'", key);
    }
    const char *type = text_member(argument, "type");
    for (size_t i = 0; i < ARRAY_SIZE(readers); i++) {
        if (strcmp(readers[i].type, type) != 0)
            continue;
        struct json_object *value = readers[i].read(text);
        if (!value)
            return error_set(err, "%s=%s: give %s", key, text, readers[i].form);
        json_object_object_add(arguments, key, value);
        return true;
    }
    return error_set(err, "argument '%s' is of a type '%s' that is unknown here", key, type);
}

struct json_object *control_text_arguments(struct json_object *commands, const char *name,
                                           char *const *words, size_t count, struct error *err)
{
    struct json_object *known = json_object_object_get(find_named(commands, name), "arguments");
    struct json_object *arguments = json_object_new_object();
    if (!json_object_is_type(known, json_type_array))
        known = NULL;
    for (size_t i = 0; i < count; i++) {
        const char *equals = strchr(words[i], '=');
        bool ok = equals && equals != words[i];
        if (ok) {
            char *key = xasprintf("%.*s", (int)(equals - words[i]), words[i]);
            ok = read_argument(known, key, equals + 1, arguments, err);
            free(key);
        } else {
            error_set(err, "'%s' is no argument: write ARG=VALUE", words[i]);
        }
        if (!ok) {
            error_prefix(err, "%s", name);
            json_object_put(arguments);
            return NULL;
        }
    }
    return arguments;
}

/* --- Answers --- */

static void print_usage(FILE *out, struct json_object *command)
{
    const char *alias = text_member(command, "alias");
    struct json_object *arguments = json_object_object_get(command, "arguments");
    int width = fprintf(out, "%s", text_member(command, "name"));
    if (*alias)
        width += fprintf(out, ", %s", alias);
    for (size_t i = 0; arguments && i < json_object_array_length(arguments); i++) {
        struct json_object *argument = json_object_array_get_idx(arguments, i);
        bool optional = json_object_get_boolean(json_object_object_get(argument, "optional"));
        width += fprintf(out, optional ? " [%s=%s]" : " %s=%s", text_member(argument, "name"),
                         text_member(argument, "type"));
    }
    const char *help = text_member(command, "help");
    fprintf(out, "%*s%s\n", !*help ? 0 : width < 32 ? 32 - width : 2, "", help);
}

void control_text_help(FILE *out, struct json_object *commands)
{
    for (size_t i = 0; i < json_object_array_length(commands); i++)
        print_usage(out, json_object_array_get_idx(commands, i));
}

static bool is_compound(struct json_object *value)
{
    return json_object_is_type(value, json_type_object) ||
           json_object_is_type(value, json_type_array);
}

/* Text that came from elsewhere must not command the terminal. */
static void print_scalar(FILE *out, struct json_object *value)
{
    const char *text = json_object_is_type(value, json_type_boolean)
                           ? (json_object_get_boolean(value) ? "yes" : "no")
                           : json_object_get_string(value);
    for (text = text ? text : "none"; *text; text++)
        putc((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text, out);
    putc('\n', out);
}

/* `first` is what stands on the current line already: the indentation of what follows it. */
static void print_value(FILE *out, struct json_object *value, int indent, bool first)
{
    if (json_object_is_type(value, json_type_object)) {
        json_object_object_foreach(value, key, member)
        {
            fprintf(out, "%*s%s:%s", first ? 0 : indent, "", key, is_compound(member) ? "\n" : " ");
            print_value(out, member, indent + 2, false);
            first = false;
        }
    } else if (json_object_is_type(value, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(value); i++) {
            fprintf(out, "%*s- ", first ? 0 : indent, "");
            print_value(out, json_object_array_get_idx(value, i), indent + 2, true);
            first = false;
        }
    } else {
        print_scalar(out, value);
    }
}

void control_text_print(FILE *out, struct json_object *value)
{
    print_value(out, value, 0, true);
}
