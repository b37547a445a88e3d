/* The APLIC's registers: one page of them for each domain (AIA 1.0, section 4.5). */
#include "base/bits.h"
#include "base/log.h"
#include "irq/aplic.h"

enum {
    DOMAINCFG = 0x0000,
    SOURCECFG = 0x0004,
    ADDRESSES = 0x1bc0,
    SETIP = 0x1c00,
    SETIPNUM = 0x1cdc,
    CLRIP = 0x1d00,
    CLRIPNUM = 0x1ddc,
    SETIE = 0x1e00,
    SETIENUM = 0x1edc,
    CLRIE = 0x1f00,
    CLRIENUM = 0x1fdc,
    SETIPNUM_LE = 0x2000,
    SETIPNUM_BE = 0x2004,
    GENMSI = 0x3000,
    TARGET = 0x3004,
    IDC = 0x4000,
};

/* Of one hart (section 4.8.1). */
enum {
    IDC_DELIVERY = 0x00,
    IDC_FORCE = 0x04,
    IDC_THRESHOLD = 0x08,
    IDC_TOP = 0x18,
    IDC_CLAIM = 0x1c,
    IDC_SIZE = 0x20,
};

const uint32_t aplic_address_masks[APLIC_ADDRESS_REGISTERS] = {UINT32_MAX, 0x9f77ffff, UINT32_MAX,
                                                               0x00700fff};
#define ADDRESS_LOCKED UINT32_C(0x80000000)

static bool is_source(const struct aplic *aplic, uint32_t number)
{
    return number >= 1 && number <= aplic->sources;
}

/* There are no guests' files to choose from; in direct mode priority 0 becomes 1 (4.5.16). */
uint32_t aplic_legal_target(const struct aplic *aplic, uint32_t value)
{
    if (aplic->messages)
        return value & UINT32_C(0xfffc07ff);
    return (value & UINT32_C(0xfffc00ff)) | !(value & 0xff);
}

/* --- One function a register: `index` is the word's in its block ------------------------------ */

static uint32_t domaincfg_read(struct aplic *aplic, struct aplic_domain *domain, unsigned index)
{
    return DOMAINCFG_FIXED | domain->domaincfg | (aplic->messages ? DOMAINCFG_DM : 0);
}

static void domaincfg_write(struct aplic *aplic, struct aplic_domain *domain, unsigned index,
                            uint32_t value)
{
    domain->domaincfg = value & DOMAINCFG_IE;
    aplic_forward_all(aplic, domain);
}

static uint32_t sourcecfg_read(struct aplic *aplic, struct aplic_domain *domain, unsigned index)
{
    return domain->sourcecfg[index + 1];
}

static void sourcecfg_write(struct aplic *aplic, struct aplic_domain *domain, unsigned index,
                            uint32_t value)
{
    if (is_source(aplic, index + 1))
        aplic_write_source(aplic, domain, index + 1, value);
}

/* Only in the root domain (section 4.5.3). */
static uint32_t address_read(struct aplic *aplic, struct aplic_domain *domain, unsigned index)
{
    return domain == &aplic->domains[0] && aplic->messages ? aplic->address[index] : 0;
}

static void address_write(struct aplic *aplic, struct aplic_domain *domain, unsigned index,
                          uint32_t value)
{
    if (domain == &aplic->domains[0] && aplic->messages && !(aplic->address[1] & ADDRESS_LOCKED))
        aplic->address[index] = value & aplic_address_masks[index];
}

static uint32_t pending_read(struct aplic *aplic, struct aplic_domain *domain, unsigned index)
{
    return domain->pending[index];
}

static uint32_t enabled_read(struct aplic *aplic, struct aplic_domain *domain, unsigned index)
{
    return domain->enabled[index];
}

static uint32_t rectified_read(struct aplic *aplic, struct aplic_domain *domain, unsigned index)
{
    uint32_t word = 0;

    for (unsigned bit = 0; bit < 32; bit++)
        if (is_source(aplic, index * 32 + bit))
            word |= (uint32_t)aplic_rectified(aplic, domain, index * 32 + bit) << bit;
    return word;
}

static void enable(struct aplic *aplic, struct aplic_domain *domain, unsigned source, bool value)
{
    if (aplic_mode(domain, source) == SOURCE_INACTIVE)
        return;
    map_put(domain->enabled, source, value);
    aplic_forward(aplic, domain, source);
}

static void enable_source(struct aplic *aplic, struct aplic_domain *domain, unsigned source)
{
    enable(aplic, domain, source, true);
}

static void disable_source(struct aplic *aplic, struct aplic_domain *domain, unsigned source)
{
    enable(aplic, domain, source, false);
}

typedef void source_action(struct aplic *aplic, struct aplic_domain *domain, unsigned source);

static void each_bit(struct aplic *aplic, struct aplic_domain *domain, unsigned index,
                     uint32_t value, source_action *action)
{
    for (; value; value &= value - 1) {
        unsigned source = index * 32 + (unsigned)__builtin_ctz(value);
        if (is_source(aplic, source))
            action(aplic, domain, source);
    }
}

static void numbered(struct aplic *aplic, struct aplic_domain *domain, uint32_t value,
                     source_action *action)
{
    if (is_source(aplic, value))
        action(aplic, domain, value);
}

/* A block of 32 words of bits, and the register that takes a number instead. */
#define BITS_AND_NUMBER(NAME, ACTION)                                                              \
    static void NAME##_write(struct aplic *aplic, struct aplic_domain *domain, unsigned index,     \
                             uint32_t value)                                                       \
    {                                                                                              \
        each_bit(aplic, domain, index, value, ACTION);                                             \
    }                                                                                              \
    static void NAME##num_write(struct aplic *aplic, struct aplic_domain *domain, unsigned index,  \
                                uint32_t value)                                                    \
    {                                                                                              \
        numbered(aplic, domain, value, ACTION);                                                    \
    }

BITS_AND_NUMBER(setip, aplic_set_pending)
BITS_AND_NUMBER(clrip, aplic_clear_pending)
BITS_AND_NUMBER(setie, enable_source)
BITS_AND_NUMBER(clrie, disable_source)

/* The message goes out before the write is done: Busy is never seen (section 4.5.14). */
static uint32_t genmsi_read(struct aplic *aplic, struct aplic_domain *domain, unsigned index)
{
    return domain->genmsi;
}

static void genmsi_write(struct aplic *aplic, struct aplic_domain *domain, unsigned index,
                         uint32_t value)
{
    if (!aplic->messages)
        return;
    domain->genmsi = aplic_legal_target(aplic, value);
    aplic_send(aplic, domain, domain->genmsi);
}

static uint32_t target_read(struct aplic *aplic, struct aplic_domain *domain, unsigned index)
{
    return domain->target[index + 1];
}

static void target_write(struct aplic *aplic, struct aplic_domain *domain, unsigned index,
                         uint32_t value)
{
    unsigned source = index + 1;

    if (!is_source(aplic, source) || aplic_mode(domain, source) == SOURCE_INACTIVE)
        return;
    domain->target[source] = aplic_legal_target(aplic, value);
    if (!aplic->messages) /* the hart that had it, too */
        aplic_forward_all(aplic, domain);
}

static uint32_t idc_read(struct aplic *aplic, struct aplic_domain *domain, unsigned index)
{
    unsigned hart = index * 4 / IDC_SIZE;

    if (hart >= aplic->harts || aplic->messages)
        return 0;
    switch (index * 4 % IDC_SIZE) {
    case IDC_DELIVERY:
        return domain->idc[hart].delivers;
    case IDC_FORCE:
        return domain->idc[hart].forced;
    case IDC_THRESHOLD:
        return domain->idc[hart].threshold;
    case IDC_TOP:
        return aplic_top(aplic, domain, hart, domain->idc[hart].threshold);
    case IDC_CLAIM:
        return aplic_claim(aplic, domain, hart);
    default:
        return 0;
    }
}

static void idc_write(struct aplic *aplic, struct aplic_domain *domain, unsigned index,
                      uint32_t value)
{
    unsigned hart = index * 4 / IDC_SIZE;

    if (hart >= aplic->harts || aplic->messages)
        return;
    switch (index * 4 % IDC_SIZE) {
    case IDC_DELIVERY:
        domain->idc[hart].delivers = value & 1;
        break;
    case IDC_FORCE:
        domain->idc[hart].forced = value & 1;
        break;
    case IDC_THRESHOLD:
        domain->idc[hart].threshold = value & 0xff;
        break;
    default:
        return;
    }
    aplic_forward_all(aplic, domain);
}

/* --- The map ---------------------------------------------------------------------------------- */

struct aplic_block {
    uint32_t base, words;
    uint32_t (*read)(struct aplic *aplic, struct aplic_domain *domain, unsigned index);
    void (*write)(struct aplic *aplic, struct aplic_domain *domain, unsigned index, uint32_t value);
};

static const struct aplic_block blocks[] = {
    {DOMAINCFG, 1, domaincfg_read, domaincfg_write},
    {SOURCECFG, APLIC_SOURCES_MAX, sourcecfg_read, sourcecfg_write},
    {ADDRESSES, APLIC_ADDRESS_REGISTERS, address_read, address_write},
    {SETIP, APLIC_WORDS, pending_read, setip_write},
    {SETIPNUM, 1, NULL, setipnum_write},
    {CLRIP, APLIC_WORDS, rectified_read, clrip_write},
    {CLRIPNUM, 1, NULL, clripnum_write},
    {SETIE, APLIC_WORDS, enabled_read, setie_write},
    {SETIENUM, 1, NULL, setienum_write},
    {CLRIE, APLIC_WORDS, NULL, clrie_write},
    {CLRIENUM, 1, NULL, clrienum_write},
    {SETIPNUM_LE, 1, NULL, setipnum_write},
    {SETIPNUM_BE, 1, NULL, setipnum_write},
    {GENMSI, 1, genmsi_read, genmsi_write},
    {TARGET, APLIC_SOURCES_MAX, target_read, target_write},
    {IDC, APLIC_HARTS_MAX *IDC_SIZE / 4, idc_read, idc_write},
};

static const struct aplic_block *block_find(const struct aplic *aplic, uint64_t offset,
                                            unsigned *index)
{
    for (size_t i = 0; i < ARRAY_SIZE(blocks); i++) {
        if (offset < blocks[i].base || offset - blocks[i].base >= 4 * (uint64_t)blocks[i].words)
            continue;
        *index = (offset - blocks[i].base) / 4;
        return &blocks[i];
    }
    trace_guest_error(aplic->device.name, "access to no register at 0x%x", (unsigned)offset);
    return NULL;
}

static uint64_t aplic_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct aplic_window *window = opaque;
    struct aplic *aplic = window->aplic;
    unsigned index;
    const struct aplic_block *block = block_find(aplic, offset, &index);

    if (!block || !block->read)
        return 0;
    device_lock(&aplic->device);
    uint32_t value = block->read(aplic, &aplic->domains[window->index], index);
    device_unlock(&aplic->device);
    return value;
}

/* Who waits for a level to be looked at again hears of it first, as it may lower the line. */
static void tell_listener(struct aplic *aplic, const struct aplic_domain *domain, uint32_t source)
{
    if (!is_source(aplic, source) || !aplic->listeners[source].callback)
        return;
    device_lock(&aplic->device);
    enum source_mode mode = aplic_mode(domain, source);
    device_unlock(&aplic->device);
    if (mode >= SOURCE_LEVEL_HIGH)
        aplic->listeners[source].callback(aplic->listeners[source].opaque, source);
}

static void aplic_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    const struct aplic_window *window = opaque;
    struct aplic *aplic = window->aplic;
    struct aplic_domain *domain = &aplic->domains[window->index];
    unsigned index;
    const struct aplic_block *block = block_find(aplic, offset, &index);

    if (!block || !block->write)
        return;
    if (offset == SETIPNUM_BE)
        value = __builtin_bswap32(value);
    if (block->write == setipnum_write)
        tell_listener(aplic, domain, value);
    device_lock(&aplic->device);
    block->write(aplic, domain, index, value);
    device_unlock(&aplic->device);
}

const struct mmio_ops aplic_ops = {
    .read = aplic_read,
    .write = aplic_write,
    .min_size = 4,
    .max_size = 4,
};
