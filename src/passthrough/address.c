#include <ctype.h>
#include <string.h>

#include "passthrough/passthrough.h"

struct part {
    const char *name;
    unsigned digits; /* at most */
    uint64_t limit;
};

static const struct part domain_part = {"domain", 8, UINT32_MAX};
static const struct part bus_part = {"bus", 2, 0xff};
static const struct part device_part = {"device", 2, 0x1f};
static const struct part function_part = {"function", 1, 7};

/* Reads a hexadecimal number up to `end`, which is past its separator afterwards. */
static bool read_part(const char *whole, const char **text, char end, const struct part *part,
                      uint64_t *value, struct error *err)
{
    unsigned digits = 0;
    *value = 0;
    for (; isxdigit((unsigned char)**text); (*text)++, digits++) {
        unsigned digit = (unsigned char)**text;
        digit = digit <= '9' ? digit - '0' : (digit | 0x20) - 'a' + 10;
        if (digits == part->digits)
            return error_set(err, "'%s' is no PCI address: its %s has more than %u digits", whole,
                             part->name, part->digits);
        *value = *value << 4 | digit;
    }
    if (!digits)
        return error_set(err,
                         "'%s' is no PCI address: a hexadecimal %s is missing; write it like "
                         "0000:01:00.0 or 01:00.0",
                         whole, part->name);
    if (*value > part->limit)
        return error_set(err, "'%s' is no PCI address: %s %x is above %x", whole, part->name,
                         (unsigned)*value, (unsigned)part->limit);
    if (**text != end)
        return error_set(err, "'%s' is no PCI address: '%s' stands behind its %s", whole, *text,
                         part->name);
    if (end)
        (*text)++;
    return true;
}

bool pci_address_parse(const char *text, struct pci_address *address, struct error *err)
{
    const char *whole = text, *colon = strchr(text, ':');
    bool has_domain = colon && strchr(colon + 1, ':');
    bool has_function = strchr(text, '.');
    uint64_t domain = 0, bus, device, function = 0;
    if (!colon)
        return error_set(err,
                         "'%s' is no PCI address: write bus:device.function, like 01:00.0 "
                         "('hartvisor devices' lists them)",
                         whole);
    if (has_domain && !read_part(whole, &text, ':', &domain_part, &domain, err))
        return false;
    if (!read_part(whole, &text, ':', &bus_part, &bus, err) ||
        !read_part(whole, &text, has_function ? '.' : '\0', &device_part, &device, err))
        return false;
    if (has_function && !read_part(whole, &text, '\0', &function_part, &function, err))
        return false;
    *address =
        (struct pci_address){(uint32_t)domain, (uint8_t)bus, (uint8_t)device, (uint8_t)function};
    return true;
}

char *pci_address_print(const struct pci_address *address, char text[PCI_ADDRESS_SIZE])
{
    snprintf(text, PCI_ADDRESS_SIZE, "%04x:%02x:%02x.%x", address->domain, address->bus,
             address->device & 0x1f, address->function & 7);
    return text;
}

static uint64_t order(const struct pci_address *address)
{
    return (uint64_t)address->domain << 16 | (uint64_t)address->bus << 8 | address->device << 3 |
           address->function;
}

int pci_address_compare(const struct pci_address *a, const struct pci_address *b)
{
    return (order(a) > order(b)) - (order(a) < order(b));
}
