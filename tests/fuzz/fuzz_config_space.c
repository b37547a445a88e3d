/*
 * A configuration space as the input says, as much of it as there is input: found capabilities are
 * within it and none is there twice, both ways to print end, and the JSON is JSON. The input as
 * text is also read as an address and as a set of types, and as vital product data.
 */
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hartvisor/passthrough.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct config_space space;

static void check(bool truth)
{
    if (!truth)
        abort();
}

static void check_capabilities(void)
{
    struct config_capability list[CONFIG_SPACE_MAX_CAPABILITIES], found;
    uint8_t seen[CONFIG_SPACE_SIZE / 4] = {0};
    unsigned count = config_space_capabilities(&space, list);
    check(count <= CONFIG_SPACE_MAX_CAPABILITIES);
    for (unsigned i = 0; i < count; i++) {
        check(list[i].offset >= 0x40 && list[i].offset % 4 == 0);
        check((size_t)list[i].offset + 2 <= space.size);
        check(list[i].extended == (list[i].offset >= 0x100));
        check(!seen[list[i].offset / 4]++);
        check(config_space_find(&space, list[i].extended, list[i].id, &found));
        check(found.id == list[i].id && found.extended == list[i].extended);
    }
}

static void print(unsigned flags)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    config_space_print(&space, out, flags);
    fclose(out);
    if (flags & PASSTHROUGH_PRINT_JSON) {
        struct json_object *object = json_tokener_parse(text);
        check(object != NULL);
        json_object_put(object);
    }
    free(text);
}

static void read_words(const uint8_t *data, size_t size)
{
    char text[64], again[PCI_ADDRESS_SIZE];
    struct pci_address address, same;
    struct error err;
    uint32_t kinds;
    snprintf(text, sizeof(text), "%.*s", (int)(size < 63 ? size : 63), (const char *)data);
    if (pci_address_parse(text, &address, &err)) {
        check(pci_address_parse(pci_address_print(&address, again), &same, &err));
        check(pci_address_compare(&address, &same) == 0);
    } else {
        check(err.message[0]);
    }
    if (!passthrough_kinds_parse(text, &kinds, &err))
        check(err.message[0]);
}

static void read_product_data(const uint8_t *data, size_t size)
{
    struct product_field list[PRODUCT_DATA_MAX_FIELDS];
    size_t count = product_data_fields(data, size, list);
    check(count <= PRODUCT_DATA_MAX_FIELDS);
    for (size_t i = 0; i < count; i++) {
        check(strlen(list[i].keyword) == 2 && list[i].text[0]);
        for (const char *byte = list[i].text; *byte; byte++)
            check(*byte >= ' ' && *byte <= '~');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    memset(&space, 0xa5, sizeof(space));
    space.size = size < CONFIG_SPACE_SIZE ? size : CONFIG_SPACE_SIZE;
    memcpy(space.bytes, data, space.size);
    check_capabilities();
    print(0);
    print(PASSTHROUGH_PRINT_COLOUR | PASSTHROUGH_PRINT_WIDTH(60));
    print(PASSTHROUGH_PRINT_JSON);
    read_words(data, size);
    read_product_data(data, size);
    return 0;
}
