/* A configuration space for people. */
#include <string.h>

#include "passthrough/internal.h"

struct paragraph {
    FILE *out;
    unsigned width, indent, column;
    bool first;
};

/* The next item of a list, on the next line where this one is full. */
static void paragraph_item(struct paragraph *paragraph, const char *text)
{
    unsigned length = (unsigned)strlen(text);
    if (!paragraph->first) {
        fputc(',', paragraph->out);
        paragraph->column++;
    }
    if (paragraph->column + 2 + length > paragraph->width && !paragraph->first) {
        fprintf(paragraph->out, "\n%*s", (int)paragraph->indent, "");
        paragraph->column = paragraph->indent;
    } else if (!paragraph->first) {
        fputc(' ', paragraph->out);
        paragraph->column++;
    }
    fputs(text, paragraph->out);
    paragraph->column += length;
    paragraph->first = false;
}

static void print_field(void *opaque, const struct field *field)
{
    char text[256], label[64];
    snprintf(label, sizeof(label), "%s", field->key);
    for (char *blank = label; (blank = strchr(blank, '_'));)
        *blank = ' ';
    const char *space = field->unit ? " " : "", *unit = field->unit ? field->unit : "";
    if (field->type == FIELD_FLAG)
        snprintf(text, sizeof(text), "%s%s", field->number ? "" : "not ", label);
    else if (field->type == FIELD_TEXT)
        snprintf(text, sizeof(text), "%s %s%s%s", label, field->text, space, unit);
    else
        snprintf(text, sizeof(text), "%s %llu%s%s", label, (unsigned long long)field->number, space,
                 unit);
    paragraph_item(opaque, text);
}

static void print_capability(const struct config_space *space,
                             const struct config_capability *capability, FILE *out, unsigned flags)
{
    const char *name = config_capability_name(capability);
    char label[48];
    if (name)
        snprintf(label, sizeof(label), "%s", name);
    else
        snprintf(label, sizeof(label), "%s %#x", capability->extended ? "extended" : "standard",
                 capability->id);
    fprintf(out, "    %s%03x%s  %-29s ", text_colour(flags, "2"), capability->offset,
            text_colour(flags, "0"), label);
    struct paragraph paragraph = {
        .out = out, .width = text_width(flags), .indent = 39, .column = 39, .first = true};
    capability_decode(space, capability, print_field, &paragraph);
    fputc('\n', out);
}

static void print_header(const struct config_space *space, FILE *out)
{
    static const char *const bits[] = {"I/O", "memory", "bus master"};
    uint16_t command;
    uint8_t pin;
    if (!config_space_u16(space, 4, &command))
        return;
    fprintf(out, "  command       ");
    for (unsigned i = 0; i < ARRAY_SIZE(bits); i++)
        fprintf(out, "%s%s%s", i ? ", " : "", command >> i & 1 ? "" : "no ", bits[i]);
    fprintf(out, "%s\n", command >> 10 & 1 ? ", INTx off" : "");
    if (config_space_u8(space, 0x3d, &pin) && pin >= 1 && pin <= 4)
        fprintf(out, "  interrupt     INT%c\n", 'A' + pin - 1);
}

static void print_text(const struct config_space *space, FILE *out, unsigned flags)
{
    struct config_capability list[CONFIG_SPACE_MAX_CAPABILITIES];
    unsigned count = config_space_capabilities(space, list);
    print_header(space, out);
    if (count)
        fprintf(out, "  capabilities\n");
    for (unsigned i = 0; i < count; i++)
        print_capability(space, &list[i], out, flags);
    if (space->size <= 64)
        fprintf(out, "  capabilities  only root may read them\n");
}

void config_space_print(const struct config_space *space, FILE *out, unsigned flags)
{
    if (flags & PASSTHROUGH_PRINT_JSON)
        json_print(out, json_config_space(space));
    else
        print_text(space, out, flags);
}
