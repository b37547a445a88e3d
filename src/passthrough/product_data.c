/* Vital product data: resources with tags, PCI Local Bus 3.0 appendix I. The bytes are hostile. */
#include <string.h>

#include "passthrough/internal.h"

#define TAG_LARGE  0x80
#define TAG_NAME   0x82
#define TAG_READ   0x90
#define TAG_WRITE  0x91
#define TAG_END    0x78
#define SMALL_SIZE 0x07

bool passthrough_product_data_read(struct passthrough_device *device, void *data, size_t size,
                                   size_t *got, struct error *err)
{
    *got = 0;
    if (!device->ops->product_data_read)
        return error_set(err, "%s (%s) does not show its product data", device->info.name,
                         device->ops->name);
    return device->ops->product_data_read(device, data, size, got, err);
}

/* Text of up to `length` bytes, as a terminal may have it, without blanks at its end. */
static void copy_text(struct product_field *field, const uint8_t *bytes, size_t length)
{
    size_t count = 0;
    while (count < length && count < sizeof(field->text) - 1 && bytes[count]) {
        bool plain = bytes[count] >= ' ' && bytes[count] <= '~';
        field->text[count] = plain ? (char)bytes[count] : '?';
        count++;
    }
    while (count && field->text[count - 1] == ' ')
        count--;
    field->text[count] = '\0';
}

/* RV and RW are a checksum and room. */
static bool is_told(const struct product_field *field)
{
    return field->text[0] && strcmp(field->keyword, "RV") != 0 && strcmp(field->keyword, "RW") != 0;
}

static size_t read_fields(const uint8_t *data, size_t size, struct product_field *list,
                          size_t count)
{
    while (size >= 3 && count < PRODUCT_DATA_MAX_FIELDS) {
        struct product_field *field = &list[count];
        size_t length = data[2];
        if (length > size - 3)
            break;
        for (unsigned i = 0; i < 2; i++)
            field->keyword[i] = data[i] > ' ' && data[i] <= '~' ? (char)data[i] : '?';
        field->keyword[2] = '\0';
        copy_text(field, data + 3, length);
        count += is_told(field);
        data += 3 + length;
        size -= 3 + length;
    }
    return count;
}

size_t product_data_fields(const void *data, size_t size,
                           struct product_field list[PRODUCT_DATA_MAX_FIELDS])
{
    const uint8_t *bytes = data;
    size_t count = 0;
    while (size && (bytes[0] & ~SMALL_SIZE) != TAG_END && count < PRODUCT_DATA_MAX_FIELDS) {
        bool large = bytes[0] & TAG_LARGE;
        size_t head = large ? 3 : 1;
        if (size < head)
            break;
        size_t length = large ? load_le16(bytes + 1) : bytes[0] & SMALL_SIZE;
        if (length > size - head)
            break;
        if (bytes[0] == TAG_NAME) {
            memcpy(list[count].keyword, "ID", 3);
            copy_text(&list[count], bytes + head, length);
            count += list[count].text[0] != '\0';
        } else if (bytes[0] == TAG_READ || bytes[0] == TAG_WRITE) {
            count = read_fields(bytes + head, length, list, count);
        }
        bytes += head + length;
        size -= head + length;
    }
    return count;
}

const char *product_field_name(const struct product_field *field)
{
    static const struct {
        const char *keyword, *name;
    } names[] = {
        {"ID", "product"},          {"PN", "part number"},   {"SN", "serial number"},
        {"EC", "change level"},     {"MN", "maker"},         {"LC", "location"},
        {"FG", "fabric geography"}, {"PG", "PCI geography"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (!strcmp(names[i].keyword, field->keyword))
            return names[i].name;
    return NULL;
}
