/* The APLIC's inside, shared by its files. */
#pragma once

#include <stdatomic.h>

#include "irq/irq.h"

enum {
    APLIC_WORDS = (APLIC_SOURCES_MAX + 1) / 32,
    APLIC_DOMAINS = 2, /* M, whose child is S */
    APLIC_ADDRESS_REGISTERS = 4,
};

/* domaincfg (AIA 1.0, section 4.5.1). */
#define DOMAINCFG_FIXED UINT32_C(0x80000000)
#define DOMAINCFG_IE    UINT32_C(0x100)
#define DOMAINCFG_DM    UINT32_C(0x4)

/* sourcecfg (section 4.5.2): SM, or D and the child's index. */
#define SOURCECFG_DELEGATED UINT32_C(0x400)
enum source_mode {
    SOURCE_INACTIVE = 0,
    SOURCE_DETACHED = 1,
    SOURCE_EDGE_RISING = 4,
    SOURCE_EDGE_FALLING = 5,
    SOURCE_LEVEL_HIGH = 6,
    SOURCE_LEVEL_LOW = 7,
};

/* Interrupt delivery control of one hart, in direct mode (section 4.8.1). */
struct aplic_idc {
    bool delivers;
    bool forced;
    uint8_t threshold;
    struct irq_line line;
};

struct aplic_domain {
    uint32_t domaincfg;
    uint32_t sourcecfg[APLIC_SOURCES_MAX + 1];
    uint32_t target[APLIC_SOURCES_MAX + 1];
    uint32_t pending[APLIC_WORDS];
    uint32_t enabled[APLIC_WORDS];
    uint32_t genmsi;
    struct aplic_idc *idc; /* [harts] */
};

struct aplic_listener {
    void (*callback)(void *opaque, unsigned source);
    void *opaque;
};

struct aplic {
    struct device device; /* its lock guards everything below but the constants and listeners */
    unsigned sources, harts;
    bool messages; /* forwards interrupts as MSIs; otherwise by the lines of its idcs */
    bool delegated;
    uint64_t message_base[APLIC_DOMAINS];
    struct memory *memory;

    uint32_t level[APLIC_WORDS]; /* of the wires */
    struct aplic_domain domains[APLIC_DOMAINS];
    uint32_t address[APLIC_ADDRESS_REGISTERS]; /* mmsiaddrcfg, ...h, smsiaddrcfg, ...h */
    struct aplic_listener *listeners;          /* [sources + 1] */
    struct aplic_window {
        struct aplic *aplic;
        unsigned index; /* of the domain */
    } windows[APLIC_DOMAINS];
};

static inline bool map_test(const uint32_t *map, unsigned n)
{
    return map[n / 32] >> n % 32 & 1;
}

static inline void map_put(uint32_t *map, unsigned n, bool value)
{
    map[n / 32] = (map[n / 32] & ~(1U << n % 32)) | (uint32_t)value << n % 32;
}

/* The bits of mmsiaddrcfg, mmsiaddrcfgh, smsiaddrcfg and smsiaddrcfgh. */
extern const uint32_t aplic_address_masks[APLIC_ADDRESS_REGISTERS];
/* What target and genmsi can hold. */
uint32_t aplic_legal_target(const struct aplic *aplic, uint32_t value);

/* All of what follows: with the lock held. */

/* The source's mode in this domain: inactive where it is delegated or not the domain's. */
enum source_mode aplic_mode(const struct aplic_domain *domain, unsigned source);
/* The level, inverted where the mode says so (section 4.5.2). */
bool aplic_rectified(const struct aplic *aplic, const struct aplic_domain *domain, unsigned source);
/* Software sets or clears a pending bit, as the mode allows (section 4.7). */
void aplic_set_pending(struct aplic *aplic, struct aplic_domain *domain, unsigned source);
void aplic_clear_pending(struct aplic *aplic, struct aplic_domain *domain, unsigned source);
void aplic_write_source(struct aplic *aplic, struct aplic_domain *domain, unsigned source,
                        uint32_t value);
/* A source became pending or enabled, or something about all of them changed. */
void aplic_forward(struct aplic *aplic, struct aplic_domain *domain, unsigned source);
void aplic_forward_all(struct aplic *aplic, struct aplic_domain *domain);
/* Sends a message as a target or genmsi register says (section 4.9). */
void aplic_send(struct aplic *aplic, const struct aplic_domain *domain, uint32_t target);
/* The topi register: priority and source, or 0 (section 4.8.1.4). `threshold` 0: none. */
uint32_t aplic_top(const struct aplic *aplic, const struct aplic_domain *domain, unsigned hart,
                   unsigned threshold);
uint32_t aplic_claim(struct aplic *aplic, struct aplic_domain *domain, unsigned hart);
