/*
 * APLIC (AIA 1.0, chapter 4): routes wires to harts, by lines of its own (direct mode) or as
 * messages to IMSICs. A machine-level domain may delegate each source to its supervisor-level
 * child.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "irq/aplic.h"
#include "memory/memory.h"

/* target and genmsi: what each mode has of it (sections 4.5.14 and 4.5.16). */
#define TARGET_HART_SHIFT 18
#define TARGET_HART       UINT32_C(0xfffc0000)
#define TARGET_PRIORITY   UINT32_C(0x000000ff)
#define TARGET_IDENTITY   UINT32_C(0x000007ff)

/* mmsiaddrcfgh (section 4.5.3). */
#define ADDRESS_LOCKED UINT32_C(0x80000000)

static struct aplic_domain *machine_domain(struct aplic *aplic)
{
    return &aplic->domains[0];
}

static struct aplic_domain *supervisor_domain(struct aplic *aplic)
{
    return &aplic->domains[1];
}

enum source_mode aplic_mode(const struct aplic_domain *domain, unsigned source)
{
    uint32_t value = domain->sourcecfg[source];
    return value & SOURCECFG_DELEGATED ? SOURCE_INACTIVE : (enum source_mode)(value & 7);
}

static bool is_level(enum source_mode mode)
{
    return mode == SOURCE_LEVEL_HIGH || mode == SOURCE_LEVEL_LOW;
}

static bool rectify(enum source_mode mode, bool level)
{
    switch (mode) {
    case SOURCE_EDGE_RISING:
    case SOURCE_LEVEL_HIGH:
        return level;
    case SOURCE_EDGE_FALLING:
    case SOURCE_LEVEL_LOW:
        return !level;
    default:
        return false;
    }
}

bool aplic_rectified(const struct aplic *aplic, const struct aplic_domain *domain, unsigned source)
{
    return rectify(aplic_mode(domain, source), map_test(aplic->level, source));
}

/* --- Delivery --------------------------------------------------------------------------------
 */

/* Section 4.9.1. Without guests' interrupt files there is one page a hart. */
static uint64_t message_address(const struct aplic *aplic, bool supervisor, uint32_t hart)
{
    uint32_t low = aplic->address[supervisor ? 2 : 0], high = aplic->address[supervisor ? 3 : 1];
    uint32_t fields = aplic->address[1]; /* HHXS, HHXW and LHXW are common to both levels */
    unsigned low_width = bits_get(fields, 12, 4), high_width = bits_get(fields, 16, 3);
    unsigned low_shift = bits_get(high, 20, 3), high_shift = bits_get(fields, 24, 5);
    uint64_t group = hart >> low_width & ((1U << high_width) - 1);
    uint64_t member = hart & ((1U << low_width) - 1);
    uint64_t page = (uint64_t)bits_get(high, 0, 12) << 32 | low;

    page |= group << (high_shift + 12) | member << low_shift;
    return page << 12;
}

void aplic_send(struct aplic *aplic, const struct aplic_domain *domain, uint32_t target)
{
    bool supervisor = domain == supervisor_domain(aplic);

    memory_send_message(aplic->memory,
                        message_address(aplic, supervisor, target >> TARGET_HART_SHIFT),
                        target & TARGET_IDENTITY);
}

uint32_t aplic_top(const struct aplic *aplic, const struct aplic_domain *domain, unsigned hart,
                   unsigned threshold)
{
    unsigned best = 0, limit = threshold ? threshold : TARGET_PRIORITY + 1;

    for (unsigned word = 0; word <= aplic->sources / 32; word++) {
        uint32_t candidates = domain->pending[word] & domain->enabled[word];
        for (; candidates; candidates &= candidates - 1) {
            unsigned source = word * 32 + (unsigned)__builtin_ctz(candidates);
            uint32_t target = domain->target[source];
            if (target >> TARGET_HART_SHIFT == hart && (target & TARGET_PRIORITY) < limit) {
                best = source;
                limit = target & TARGET_PRIORITY;
            }
        }
    }
    return best ? best << 16 | limit : 0;
}

static void idc_update(struct aplic *aplic, struct aplic_domain *domain, unsigned hart)
{
    const struct aplic_idc *idc = &domain->idc[hart];

    irq_set(&idc->line, (domain->domaincfg & DOMAINCFG_IE) && idc->delivers &&
                            (idc->forced || aplic_top(aplic, domain, hart, idc->threshold)));
}

void aplic_forward(struct aplic *aplic, struct aplic_domain *domain, unsigned source)
{
    uint32_t target = domain->target[source];

    if (!aplic->messages) {
        if (target >> TARGET_HART_SHIFT < aplic->harts)
            idc_update(aplic, domain, target >> TARGET_HART_SHIFT);
    } else if ((domain->domaincfg & DOMAINCFG_IE) && map_test(domain->pending, source) &&
               map_test(domain->enabled, source)) {
        map_put(domain->pending, source, false);
        aplic_send(aplic, domain, target);
    }
}

void aplic_forward_all(struct aplic *aplic, struct aplic_domain *domain)
{
    for (unsigned source = 1; aplic->messages && source <= aplic->sources; source++)
        aplic_forward(aplic, domain, source);
    for (unsigned hart = 0; !aplic->messages && hart < aplic->harts; hart++)
        idc_update(aplic, domain, hart);
}

/* Section 4.8.1.5: a claim that finds nothing takes iforce back. */
uint32_t aplic_claim(struct aplic *aplic, struct aplic_domain *domain, unsigned hart)
{
    uint32_t top = aplic_top(aplic, domain, hart, domain->idc[hart].threshold);

    if (!top)
        domain->idc[hart].forced = false;
    else if (!is_level(aplic_mode(domain, top >> 16)))
        map_put(domain->pending, top >> 16, false);
    idc_update(aplic, domain, hart);
    return top;
}

/* --- Pending bits (section 4.7) ---------------------------------------------------------------
 */

void aplic_set_pending(struct aplic *aplic, struct aplic_domain *domain, unsigned source)
{
    enum source_mode mode = aplic_mode(domain, source);

    /* A level can be made pending only while it is there, which is how drivers look again after
     * they have handled it: with messages there is no end of interrupt. */
    if (mode == SOURCE_INACTIVE ||
        (is_level(mode) && (!aplic->messages || !aplic_rectified(aplic, domain, source))))
        return;
    map_put(domain->pending, source, true);
    aplic_forward(aplic, domain, source);
}

void aplic_clear_pending(struct aplic *aplic, struct aplic_domain *domain, unsigned source)
{
    if (is_level(aplic_mode(domain, source)) && !aplic->messages)
        return;
    map_put(domain->pending, source, false);
    aplic_forward(aplic, domain, source);
}

/* The rectified input was `before` and may have changed. */
static void input_changed(struct aplic *aplic, struct aplic_domain *domain, unsigned source,
                          bool before)
{
    bool now = aplic_rectified(aplic, domain, source);

    if (now && !before)
        map_put(domain->pending, source, true);
    else if (!now && is_level(aplic_mode(domain, source)))
        map_put(domain->pending, source, false);
    aplic_forward(aplic, domain, source);
}

static void aplic_input(void *controller, unsigned source, bool level)
{
    struct aplic *aplic = controller;

    device_lock(&aplic->device);
    bool delegated = machine_domain(aplic)->sourcecfg[source] & SOURCECFG_DELEGATED;
    struct aplic_domain *domain = delegated ? supervisor_domain(aplic) : machine_domain(aplic);
    bool before = aplic_rectified(aplic, domain, source);
    map_put(aplic->level, source, level);
    if (aplic_rectified(aplic, domain, source) != before)
        input_changed(aplic, domain, source, before);
    device_unlock(&aplic->device);
}

struct irq_line aplic_line(struct aplic *aplic, unsigned source)
{
    assert(source >= 1 && source <= aplic->sources);
    return (struct irq_line){aplic_input, aplic, source};
}

/* --- Sources ----------------------------------------------------------------------------------
 */

/* What sourcecfg can hold: the child's index is 0, and a child has no children. */
static uint32_t legal_source(const struct aplic *aplic, const struct aplic_domain *domain,
                             uint32_t value)
{
    bool machine = domain == &aplic->domains[0];

    if (value & SOURCECFG_DELEGATED)
        return machine ? SOURCECFG_DELEGATED : 0;
    value &= 7;
    return value == 2 || value == 3 ? 0 : value;
}

static void set_source(struct aplic *aplic, struct aplic_domain *domain, unsigned source,
                       uint32_t value)
{
    bool before = aplic_rectified(aplic, domain, source);
    bool was_active = aplic_mode(domain, source) != SOURCE_INACTIVE;

    domain->sourcecfg[source] = value;
    if (aplic_mode(domain, source) == SOURCE_INACTIVE) {
        map_put(domain->pending, source, false);
        map_put(domain->enabled, source, false);
        aplic_forward(aplic, domain, source);
        domain->target[source] = 0;
        return;
    }
    if (!was_active)
        domain->target[source] = aplic->messages ? 0 : 1;
    input_changed(aplic, domain, source, before);
}

void aplic_write_source(struct aplic *aplic, struct aplic_domain *domain, unsigned source,
                        uint32_t value)
{
    const struct aplic_domain *machine = machine_domain(aplic);

    if (domain != machine && !(machine->sourcecfg[source] & SOURCECFG_DELEGATED))
        return;
    set_source(aplic, domain, source, legal_source(aplic, domain, value));
    if (!(machine->sourcecfg[source] & SOURCECFG_DELEGATED))
        set_source(aplic, supervisor_domain(aplic), source, 0);
}

void aplic_on_reevaluate(struct aplic *aplic, unsigned source,
                         void (*callback)(void *opaque, unsigned source), void *opaque)
{
    assert(source >= 1 && source <= aplic->sources);
    aplic->listeners[source] = (struct aplic_listener){callback, opaque};
}

/* --- Its life ---------------------------------------------------------------------------------
 */

/* Where messages go if no firmware says so: a page a hart, and locked (section 4.5.3). */
static void preset_addresses(struct aplic *aplic)
{
    unsigned width = 0;

    while (1U << width < aplic->harts)
        width++;
    for (unsigned i = 0; i < APLIC_DOMAINS; i++) {
        uint64_t page = aplic->message_base[i] >> 12;
        aplic->address[2 * i] = (uint32_t)page;
        aplic->address[2 * i + 1] = bits_get(page, 32, 12);
    }
    aplic->address[1] |= ADDRESS_LOCKED | width << 12;
}

static void domain_reset(struct aplic *aplic, struct aplic_domain *domain)
{
    struct aplic_idc *idc = domain->idc;

    memset(domain, 0, sizeof(*domain));
    domain->idc = idc;
    for (unsigned hart = 0; hart < aplic->harts; hart++) {
        idc[hart].delivers = idc[hart].forced = false;
        idc[hart].threshold = 0;
        if (!aplic->messages)
            idc_update(aplic, domain, hart);
    }
}

/* Levels belong to the devices at the other end, as the PLIC's. */
static void aplic_reset(struct device *device)
{
    struct aplic *aplic = container_of(device, struct aplic, device);

    device_lock(device);
    memset(aplic->address, 0, sizeof(aplic->address));
    for (unsigned i = 0; i < APLIC_DOMAINS; i++)
        domain_reset(aplic, &aplic->domains[i]);
    if (aplic->delegated) {
        for (unsigned source = 1; source <= aplic->sources; source++)
            machine_domain(aplic)->sourcecfg[source] = SOURCECFG_DELEGATED;
        preset_addresses(aplic);
    }
    device_unlock(device);
}

static void source_state(struct aplic *aplic, struct aplic_domain *domain, unsigned source,
                         struct stream *stream)
{
    bool pending = map_test(domain->pending, source), enabled = map_test(domain->enabled, source);

    stream_u32(stream, &domain->sourcecfg[source]);
    stream_u32(stream, &domain->target[source]);
    stream_bool(stream, &pending);
    stream_bool(stream, &enabled);
    domain->sourcecfg[source] = legal_source(aplic, domain, domain->sourcecfg[source]);
    if (domain != machine_domain(aplic) &&
        !(machine_domain(aplic)->sourcecfg[source] & SOURCECFG_DELEGATED))
        domain->sourcecfg[source] = 0;
    bool active = aplic_mode(domain, source) != SOURCE_INACTIVE;
    map_put(domain->pending, source, active && pending);
    map_put(domain->enabled, source, active && enabled);
    domain->target[source] = active ? aplic_legal_target(aplic, domain->target[source]) : 0;
}

static void domain_state(struct aplic *aplic, struct aplic_domain *domain, struct stream *stream)
{
    stream_u32(stream, &domain->domaincfg);
    stream_u32(stream, &domain->genmsi);
    domain->domaincfg &= DOMAINCFG_IE;
    domain->genmsi = aplic_legal_target(aplic, domain->genmsi) & (aplic->messages ? ~0U : 0);
    for (unsigned source = 1; source <= aplic->sources; source++)
        source_state(aplic, domain, source, stream);
    for (unsigned hart = 0; hart < aplic->harts; hart++) {
        struct aplic_idc *idc = &domain->idc[hart];
        stream_bool(stream, &idc->delivers);
        stream_bool(stream, &idc->forced);
        stream_u8(stream, &idc->threshold);
    }
}

static void aplic_state(struct device *device, struct stream *stream)
{
    struct aplic *aplic = container_of(device, struct aplic, device);
    uint32_t sources = aplic->sources, harts = aplic->harts;

    device_lock(device);
    stream_begin(stream, "aplic", 1);
    stream_u32(stream, &sources);
    stream_u32(stream, &harts);
    if (sources != aplic->sources || harts != aplic->harts)
        stream_fail(stream, "%s: the state has %u sources and %u harts, the machine %u and %u",
                    device->name, sources, harts, aplic->sources, aplic->harts);
    for (unsigned i = 0; i < APLIC_ADDRESS_REGISTERS; i++) {
        stream_u32(stream, &aplic->address[i]);
        aplic->address[i] &= aplic_address_masks[i];
    }
    for (unsigned source = 1; source <= aplic->sources; source++) {
        bool level = map_test(aplic->level, source);
        stream_bool(stream, &level);
        map_put(aplic->level, source, level);
    }
    for (unsigned i = 0; i < APLIC_DOMAINS; i++)
        domain_state(aplic, &aplic->domains[i], stream);
    stream_end(stream);
    for (unsigned i = 0; i < APLIC_DOMAINS && stream_loading(stream); i++)
        aplic_forward_all(aplic, &aplic->domains[i]);
    device_unlock(device);
}

static void aplic_remove(struct device *device)
{
    struct aplic *aplic = container_of(device, struct aplic, device);

    for (unsigned i = 0; i < APLIC_DOMAINS; i++)
        free(aplic->domains[i].idc);
    free(aplic->listeners);
    device_finish(device);
    free(aplic);
}

static const struct device_type aplic_type = {
    .name = "aplic",
    .reset = aplic_reset,
    .state = aplic_state,
    .remove = aplic_remove,
};

struct aplic *aplic_create(const char *name, const struct aplic_config *config)
{
    struct aplic *aplic = xcalloc(1, sizeof(*aplic));
    const struct irq_line *lines[APLIC_DOMAINS] = {config->machine, config->supervisor};

    assert(config->harts >= 1 && config->harts <= APLIC_HARTS_MAX);
    assert(config->sources >= 1 && config->sources <= APLIC_SOURCES_MAX);
    device_init(&aplic->device, &aplic_type, name);
    aplic->sources = config->sources;
    aplic->harts = config->harts;
    aplic->messages = config->messages;
    aplic->memory = config->messages;
    aplic->delegated = config->delegated;
    aplic->message_base[0] = config->machine_files;
    aplic->message_base[1] = config->supervisor_files;
    aplic->listeners = xcalloc(aplic->sources + 1, sizeof(*aplic->listeners));
    for (unsigned i = 0; i < APLIC_DOMAINS; i++) {
        aplic->windows[i] = (struct aplic_window){aplic, i};
        aplic->domains[i].idc = xcalloc(aplic->harts, sizeof(struct aplic_idc));
        for (unsigned hart = 0; hart < aplic->harts && lines[i]; hart++)
            aplic->domains[i].idc[hart].line = lines[i][hart];
    }
    aplic_reset(&aplic->device);
    return aplic;
}

struct device *aplic_device(struct aplic *aplic)
{
    return &aplic->device;
}

void *aplic_domain(struct aplic *aplic, bool supervisor)
{
    return &aplic->windows[supervisor];
}
