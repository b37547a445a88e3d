/* What is in a capability: rows of registers and bits, PCI Express Base 6.0 chapter 7. */
#include <stdio.h>

#include "passthrough/internal.h"

static const struct {
    bool extended;
    uint16_t id;
    const char *name;
} names[] = {
    {false, 0x01, "power management"},
    {false, 0x02, "AGP"},
    {false, 0x03, "vital product data"},
    {false, 0x04, "slot identification"},
    {false, 0x05, "MSI"},
    {false, 0x06, "CompactPCI hot swap"},
    {false, 0x07, "PCI-X"},
    {false, 0x08, "HyperTransport"},
    {false, 0x09, "vendor specific"},
    {false, 0x0a, "debug port"},
    {false, 0x0b, "CompactPCI resource control"},
    {false, 0x0c, "hot-plug"},
    {false, 0x0d, "bridge subsystem"},
    {false, 0x0e, "AGP 8x"},
    {false, 0x0f, "secure device"},
    {false, 0x10, "PCI Express"},
    {false, 0x11, "MSI-X"},
    {false, 0x12, "SATA"},
    {false, 0x13, "advanced features"},
    {false, 0x14, "enhanced allocation"},
    {true, 0x01, "advanced error reporting"},
    {true, 0x02, "virtual channel"},
    {true, 0x03, "serial number"},
    {true, 0x04, "power budgeting"},
    {true, 0x05, "root complex link"},
    {true, 0x06, "root complex internal link"},
    {true, 0x07, "root complex event collector"},
    {true, 0x08, "multi-function virtual channel"},
    {true, 0x09, "virtual channel"},
    {true, 0x0a, "root complex register block"},
    {true, 0x0b, "vendor specific"},
    {true, 0x0d, "access control services"},
    {true, 0x0e, "alternative routing-ID"},
    {true, 0x0f, "address translation services"},
    {true, 0x10, "SR-IOV"},
    {true, 0x11, "MR-IOV"},
    {true, 0x12, "multicast"},
    {true, 0x13, "page request"},
    {true, 0x15, "resizable BAR"},
    {true, 0x16, "dynamic power allocation"},
    {true, 0x17, "TLP processing hints"},
    {true, 0x18, "latency tolerance reporting"},
    {true, 0x19, "secondary PCI Express"},
    {true, 0x1b, "process address space ID"},
    {true, 0x1d, "downstream port containment"},
    {true, 0x1e, "L1 substates"},
    {true, 0x1f, "precision time measurement"},
    {true, 0x22, "readiness time reporting"},
    {true, 0x23, "designated vendor specific"},
    {true, 0x24, "VF resizable BAR"},
    {true, 0x25, "data link feature"},
    {true, 0x26, "16 GT/s physical layer"},
    {true, 0x27, "lane margining"},
    {true, 0x2a, "32 GT/s physical layer"},
    {true, 0x2e, "data object exchange"},
    {true, 0x2f, "device 3"},
    {true, 0x30, "integrity and data encryption"},
    {true, 0x31, "64 GT/s physical layer"},
};

const char *config_capability_name(const struct config_capability *capability)
{
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (names[i].extended == capability->extended && names[i].id == capability->id)
            return names[i].name;
    return NULL;
}

/* --- Values and how they are shown --- */

enum format {
    FLAG,
    CLEAR, /* a flag that is said the other way round */
    NUMBER,
    PLUS_ONE,
    POWER,   /* 1 << value */
    BYTES,   /* 128 << value */
    HEX,     /* text */
    HEX8,    /* text, eightfold: offsets whose low bits hold something else */
    LATENCY, /* value in bits 0..9, a power of 32 in 10..12 */
    NAME,    /* of the value, from `names` */
    BITS,    /* names of the bits that are set */
};

struct row {
    bool extended;
    uint16_t id;
    uint8_t offset, size; /* of the register, in bytes; 1, 2, 4, 8 */
    uint8_t low, width;
    const char *key;
    enum format format;
    const char *unit;
    const char *const *names;  /* NULL ends them; "" has no name */
    uint8_t if_offset, if_bit; /* shown only if that bit of a 16-bit register is set; 0: always */
};

static const char *const power_states[] = {"D0", "D1", "D2", "D3hot", NULL};
static const char *const speeds[] = {"",        "2.5 GT/s", "5 GT/s",  "8 GT/s",
                                     "16 GT/s", "32 GT/s",  "64 GT/s", NULL};
static const char *const port_types[] = {"endpoint",
                                         "legacy endpoint",
                                         "",
                                         "",
                                         "root port",
                                         "upstream port",
                                         "downstream port",
                                         "PCIe to PCI bridge",
                                         "PCI to PCIe bridge",
                                         "integrated endpoint",
                                         "event collector",
                                         NULL};
static const char *const aspm[] = {"none", "L0s", "L1", "L0s and L1", NULL};
static const char *const acs[] = {
    "source validation", "translation blocking", "request redirect",  "completion redirect",
    "upstream forward",  "egress control",       "direct translated", NULL};
static const char *const substates[] = {"PCI-PM L1.2", "PCI-PM L1.1", "ASPM L1.2", "ASPM L1.1",
                                        NULL};
static const char *const atomics[] = {"32", "64", "128 CAS", NULL};
static const char *const rates[] = {"2.5", "5", "8", "16", "32", "64", NULL};

#define STANDARD(id) false, id
#define EXTENDED(id) true, id

static const struct row rows[] = {
    {STANDARD(0x01), 2, 2, 0, 3, "version", NUMBER},
    {STANDARD(0x01), 4, 2, 0, 2, "state", NAME, .names = power_states},
    {STANDARD(0x01), 2, 2, 9, 1, "d1", FLAG},
    {STANDARD(0x01), 2, 2, 10, 1, "d2", FLAG},
    {STANDARD(0x01), 4, 2, 3, 1, "soft_reset", CLEAR},

    {STANDARD(0x03), 2, 2, 0, 15, "last_address", HEX},

    {STANDARD(0x05), 2, 2, 0, 1, "enabled", FLAG},
    {STANDARD(0x05), 2, 2, 1, 3, "vectors", POWER},
    {STANDARD(0x05), 2, 2, 4, 3, "vectors_in_use", POWER, .if_offset = 2, .if_bit = 0},
    {STANDARD(0x05), 2, 2, 7, 1, "64_bit", FLAG},
    {STANDARD(0x05), 2, 2, 8, 1, "maskable", FLAG},

    {STANDARD(0x09), 2, 1, 0, 8, "length", NUMBER, "bytes"},

    {STANDARD(0x0d), 4, 2, 0, 16, "vendor", HEX},
    {STANDARD(0x0d), 6, 2, 0, 16, "device", HEX},

    {STANDARD(0x10), 2, 2, 0, 4, "version", NUMBER},
    {STANDARD(0x10), 2, 2, 4, 4, "type", NAME, .names = port_types},
    {STANDARD(0x10), 4, 4, 28, 1, "function_level_reset", FLAG},
    {STANDARD(0x10), 8, 2, 5, 3, "max_payload", BYTES, "bytes"},
    {STANDARD(0x10), 4, 4, 0, 3, "max_payload_supported", BYTES, "bytes"},
    {STANDARD(0x10), 8, 2, 12, 3, "max_read_request", BYTES, "bytes"},
    {STANDARD(0x10), 4, 4, 5, 1, "extended_tags", FLAG},
    {STANDARD(0x10), 18, 2, 0, 4, "link_speed", NAME, .names = speeds},
    {STANDARD(0x10), 18, 2, 4, 6, "link_width", NUMBER, "lanes"},
    {STANDARD(0x10), 12, 4, 0, 4, "max_link_speed", NAME, .names = speeds},
    {STANDARD(0x10), 12, 4, 4, 6, "max_link_width", NUMBER, "lanes"},
    {STANDARD(0x10), 12, 4, 10, 2, "power_saving", NAME, .names = aspm},
    {STANDARD(0x10), 16, 2, 0, 2, "power_saving_enabled", NAME, .names = aspm},
    {STANDARD(0x10), 20, 4, 19, 13, "slot", NUMBER, .if_offset = 2, .if_bit = 8},
    {STANDARD(0x10), 20, 4, 6, 1, "slot_hot_plug", FLAG, .if_offset = 2, .if_bit = 8},
    {STANDARD(0x10), 20, 4, 1, 1, "slot_power_control", FLAG, .if_offset = 2, .if_bit = 8},
    {STANDARD(0x10), 26, 2, 6, 1, "slot_occupied", FLAG, .if_offset = 2, .if_bit = 8},
    /* Version 2 and later; bit 1 of the version stands for that. */
    {STANDARD(0x10), 36, 4, 7, 3, "atomics", BITS, .names = atomics, .if_offset = 2, .if_bit = 1},
    {STANDARD(0x10), 36, 4, 11, 1, "latency_tolerance", FLAG, .if_offset = 2, .if_bit = 1},
    {STANDARD(0x10), 44, 4, 1, 7, "link_speeds", BITS, "GT/s", rates, 2, 1},

    {STANDARD(0x11), 2, 2, 15, 1, "enabled", FLAG},
    {STANDARD(0x11), 2, 2, 14, 1, "masked", FLAG},
    {STANDARD(0x11), 2, 2, 0, 11, "vectors", PLUS_ONE},
    {STANDARD(0x11), 4, 4, 0, 3, "table_bar", NUMBER},
    {STANDARD(0x11), 4, 4, 3, 29, "table_offset", HEX8},
    {STANDARD(0x11), 8, 4, 0, 3, "pba_bar", NUMBER},
    {STANDARD(0x11), 8, 4, 3, 29, "pba_offset", HEX8},

    {EXTENDED(0x01), 4, 4, 0, 32, "uncorrectable_errors", HEX},
    {EXTENDED(0x01), 8, 4, 0, 32, "uncorrectable_mask", HEX},
    {EXTENDED(0x01), 12, 4, 0, 32, "uncorrectable_severity", HEX},
    {EXTENDED(0x01), 16, 4, 0, 32, "correctable_errors", HEX},
    {EXTENDED(0x02), 4, 4, 0, 3, "extra_channels", NUMBER},
    {EXTENDED(0x03), 4, 8, 0, 64, "number", HEX},
    {EXTENDED(0x0b), 4, 4, 0, 16, "vendor_id", HEX},
    {EXTENDED(0x0b), 4, 4, 20, 12, "length", NUMBER, "bytes"},
    {EXTENDED(0x0d), 4, 2, 0, 7, "offered", BITS, .names = acs},
    {EXTENDED(0x0d), 6, 2, 0, 7, "enabled", BITS, .names = acs},
    {EXTENDED(0x0e), 4, 2, 8, 8, "next_function", NUMBER},
    {EXTENDED(0x0f), 6, 2, 15, 1, "enabled", FLAG},
    {EXTENDED(0x0f), 4, 2, 0, 5, "queue_depth", NUMBER},
    {EXTENDED(0x10), 8, 2, 0, 1, "enabled", FLAG},
    {EXTENDED(0x10), 14, 2, 0, 16, "total", NUMBER, "functions"},
    {EXTENDED(0x10), 16, 2, 0, 16, "present", NUMBER, "functions"},
    {EXTENDED(0x10), 20, 2, 0, 16, "first_offset", NUMBER},
    {EXTENDED(0x10), 22, 2, 0, 16, "stride", NUMBER},
    {EXTENDED(0x10), 26, 2, 0, 16, "device", HEX},
    {EXTENDED(0x13), 4, 2, 0, 1, "enabled", FLAG},
    {EXTENDED(0x13), 8, 4, 0, 32, "capacity", NUMBER, "requests"},
    {EXTENDED(0x18), 4, 2, 0, 13, "max_snoop", LATENCY, "ns"},
    {EXTENDED(0x18), 6, 2, 0, 13, "max_no_snoop", LATENCY, "ns"},
    {EXTENDED(0x1b), 6, 2, 0, 1, "enabled", FLAG},
    {EXTENDED(0x1b), 4, 2, 8, 5, "width", NUMBER, "bits"},
    {EXTENDED(0x1b), 4, 2, 1, 1, "execute", FLAG},
    {EXTENDED(0x1b), 4, 2, 2, 1, "privileged", FLAG},
    {EXTENDED(0x1d), 6, 2, 0, 2, "trigger", NUMBER},
    {EXTENDED(0x1e), 4, 4, 0, 4, "offered", BITS, .names = substates},
    {EXTENDED(0x1e), 8, 4, 0, 4, "enabled", BITS, .names = substates},
    {EXTENDED(0x1f), 8, 4, 0, 1, "enabled", FLAG},
    {EXTENDED(0x23), 4, 2, 0, 16, "vendor", HEX},
    {EXTENDED(0x23), 8, 2, 0, 16, "vendor_id", HEX},
    {EXTENDED(0x23), 4, 4, 20, 12, "length", NUMBER, "bytes"},
};

static bool read_register(const struct config_space *space, unsigned offset, unsigned size,
                          uint64_t *value)
{
    if (!range_fits(offset, size, space->size))
        return false;
    *value = load_le(space->bytes + offset, size);
    return true;
}

static void name_bits(struct field *field, const char *const *bits, uint64_t value)
{
    size_t length = 0;
    field->text[0] = '\0';
    for (unsigned i = 0; bits[i]; i++)
        if (value >> i & 1 && length < sizeof(field->text))
            length += (size_t)snprintf(field->text + length, sizeof(field->text) - length, "%s%s",
                                       length ? ", " : "", bits[i]);
    if (length)
        return;
    field->unit = NULL;
    snprintf(field->text, sizeof(field->text), "none");
}

static void name_value(struct field *field, const char *const *values, uint64_t value)
{
    unsigned count = 0;
    while (values[count])
        count++;
    if (value < count && values[value][0])
        snprintf(field->text, sizeof(field->text), "%s", values[value]);
    else
        snprintf(field->text, sizeof(field->text), "%u", (unsigned)value);
}

static void make_field(struct field *field, const struct row *row, uint64_t value)
{
    *field = (struct field){.key = row->key, .unit = row->unit, .type = FIELD_NUMBER};
    field->number = value;
    switch (row->format) {
    case FLAG:
        field->type = FIELD_FLAG;
        break;
    case CLEAR:
        field->type = FIELD_FLAG;
        field->number = !value;
        break;
    case NUMBER:
        break;
    case PLUS_ONE:
        field->number = value + 1;
        break;
    case POWER:
        field->number = BIT(value);
        break;
    case BYTES:
        field->number = UINT64_C(128) << value;
        break;
    case LATENCY:
        field->number = bits_get(value, 0, 10) << 5 * bits_get(value, 10, 3);
        break;
    case HEX:
    case HEX8:
        field->type = FIELD_TEXT;
        snprintf(field->text, sizeof(field->text), "0x%llx",
                 (unsigned long long)(row->format == HEX8 ? value << 3 : value));
        break;
    case NAME:
        field->type = FIELD_TEXT;
        name_value(field, row->names, value);
        break;
    case BITS:
        field->type = FIELD_TEXT;
        name_bits(field, row->names, value);
        break;
    }
}

/* Entries of resizable BARs, section 7.8.6: possible sizes, and which BAR has which size. */
static void decode_resizable(const struct config_space *space, unsigned offset, field_sink *sink,
                             void *opaque)
{
    static const char *const keys[][3] = {
        {"bar_0", "bar_0_min", "bar_0_max"}, {"bar_1", "bar_1_min", "bar_1_max"},
        {"bar_2", "bar_2_min", "bar_2_max"}, {"bar_3", "bar_3_min", "bar_3_max"},
        {"bar_4", "bar_4_min", "bar_4_max"}, {"bar_5", "bar_5_min", "bar_5_max"},
    };
    uint64_t control, sizes;
    if (!read_register(space, offset + 8, 4, &control))
        return;
    unsigned count = (unsigned)bits_get(control, 5, 3);
    for (unsigned i = 0; i < count && i < ARRAY_SIZE(keys); i++) {
        if (!read_register(space, offset + 4 + 8 * i, 4, &sizes) ||
            !read_register(space, offset + 8 + 8 * i, 4, &control))
            return;
        unsigned bar = (unsigned)bits_get(control, 0, 3);
        /* Bit 4 is 1 MiB; the control register continues where the capability ends, at 2^28. */
        sizes = bits_get(sizes, 4, 28) | bits_get(control, 16, 16) << 28;
        if (bar >= ARRAY_SIZE(keys) || !sizes)
            continue;
        uint64_t values[] = {bits_get(control, 8, 6), (unsigned)__builtin_ctzll(sizes),
                             63u - (unsigned)__builtin_clzll(sizes)};
        for (unsigned j = 0; j < ARRAY_SIZE(values); j++)
            sink(opaque, &(struct field){.key = keys[bar][j],
                                         .unit = "MiB",
                                         .number = values[j] < 44 ? BIT(values[j]) : 0});
    }
}

void capability_decode(const struct config_space *space, const struct config_capability *capability,
                       field_sink *sink, void *opaque)
{
    unsigned base = capability->offset;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct row *row = &rows[i];
        struct field field;
        uint64_t value, condition = 0;
        if (row->extended != capability->extended || row->id != capability->id)
            continue;
        if (row->if_offset && (!read_register(space, base + row->if_offset, 2, &condition) ||
                               !(condition >> row->if_bit & 1)))
            continue;
        if (!read_register(space, base + row->offset, row->size, &value))
            continue;
        make_field(&field, row, bits_get(value, row->low, row->width));
        sink(opaque, &field);
    }
    if (capability->extended && (capability->id == 0x15 || capability->id == 0x24))
        decode_resizable(space, base, sink, opaque);
}
