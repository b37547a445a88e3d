/* A copy of a configuration space: values and the two lists of capabilities. Bounds come first. */
#include "passthrough/internal.h"

#define CONFIG_STATUS       0x06
#define CONFIG_HEADER_TYPE  0x0e
#define CONFIG_CARDBUS_LIST 0x14
#define CONFIG_CAPABILITIES 0x34
#define STATUS_CAPABILITIES 0x10
#define HEADER_CARDBUS      2
#define STANDARD_START      0x40
#define EXTENDED_START      0x100

bool config_space_read(struct config_space *space, struct passthrough_device *device,
                       struct error *err)
{
    *space = (struct config_space){0};
    if (!passthrough_config_read(device, 0, space->bytes, sizeof(space->bytes), &space->size, err))
        return false;
    return space->size || error_set(err, "the configuration space of %s is empty: is it powered?",
                                    device->info.name);
}

bool config_space_u8(const struct config_space *space, unsigned offset, uint8_t *value)
{
    bool known = range_fits(offset, 1, space->size);
    *value = known ? space->bytes[offset] : 0;
    return known;
}

bool config_space_u16(const struct config_space *space, unsigned offset, uint16_t *value)
{
    bool known = range_fits(offset, 2, space->size);
    *value = known ? load_le16(space->bytes + offset) : 0;
    return known;
}

bool config_space_u32(const struct config_space *space, unsigned offset, uint32_t *value)
{
    bool known = range_fits(offset, 4, space->size);
    *value = known ? load_le32(space->bytes + offset) : 0;
    return known;
}

struct walk {
    const struct config_space *space;
    struct config_capability *list;
    unsigned count;
    uint64_t seen[CONFIG_SPACE_SIZE / 4 / 64]; /* a bit for each aligned word */
};

/* Whether the list may go on at `offset`; marks it. */
static bool walk_to(struct walk *walk, unsigned offset)
{
    uint64_t *word = &walk->seen[offset / 4 / 64], bit = BIT(offset / 4 % 64);
    bool fresh = !(*word & bit) && walk->count < CONFIG_SPACE_MAX_CAPABILITIES;
    *word |= bit;
    return fresh;
}

static void walk_standard(struct walk *walk)
{
    uint16_t status, header;
    uint8_t type, next;
    config_space_u16(walk->space, CONFIG_STATUS, &status);
    if (!(status & STATUS_CAPABILITIES) || status == 0xffff ||
        !config_space_u8(walk->space, CONFIG_HEADER_TYPE, &type))
        return;
    type &= 0x7f;
    config_space_u8(walk->space, type == HEADER_CARDBUS ? CONFIG_CARDBUS_LIST : CONFIG_CAPABILITIES,
                    &next);
    while ((next &= 0xfc) >= STANDARD_START && walk_to(walk, next) &&
           config_space_u16(walk->space, next, &header) && (header & 0xff) != 0xff) {
        walk->list[walk->count++] = (struct config_capability){.id = header & 0xff, .offset = next};
        next = (uint8_t)(header >> 8);
    }
}

static void walk_extended(struct walk *walk)
{
    unsigned next = EXTENDED_START;
    uint32_t header;
    while (next >= EXTENDED_START && walk_to(walk, next) &&
           config_space_u32(walk->space, next, &header) && header && header != UINT32_MAX) {
        /* Number 0 only links to the next. */
        if (header & 0xffff)
            walk->list[walk->count++] = (struct config_capability){.extended = true,
                                                                   .id = header & 0xffff,
                                                                   .version = header >> 16 & 0xf,
                                                                   .offset = (uint16_t)next};
        next = header >> 20 & 0xffc;
    }
}

unsigned config_space_capabilities(const struct config_space *space,
                                   struct config_capability list[CONFIG_SPACE_MAX_CAPABILITIES])
{
    struct walk walk = {.space = space, .list = list};
    walk_standard(&walk);
    walk_extended(&walk);
    return walk.count;
}

bool config_space_find(const struct config_space *space, bool extended, uint16_t id,
                       struct config_capability *capability)
{
    struct config_capability list[CONFIG_SPACE_MAX_CAPABILITIES];
    unsigned count = config_space_capabilities(space, list);
    for (unsigned i = 0; i < count; i++) {
        if (list[i].extended != extended || list[i].id != id)
            continue;
        *capability = list[i];
        return true;
    }
    return false;
}
