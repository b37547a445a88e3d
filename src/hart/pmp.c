/* Physical memory protection (Privileged, "Physical Memory Protection"): 16 entries, granularity 4.
 */
#include "hart/internal.h"

#define PMP_ENTRIES 16

#define PMP_A      (3 << 3)
#define PMP_A_TOR  (1 << 3)
#define PMP_A_NA4  (2 << 3)
#define PMP_LOCKED (1 << 7)

/* From R, W and X to a mask by enum access. */
static unsigned cfg_allowed(uint8_t cfg)
{
    return (cfg & 1) << ACCESS_LOAD | (cfg >> 1 & 1) << ACCESS_STORE |
           (cfg >> 2 & 1) << ACCESS_FETCH;
}

static struct pmp_range entry_range(const struct hart *hart, unsigned i)
{
    const struct pmp_range off = {1, 0};
    uint64_t address = hart->pmpaddr[i];
    switch (hart->pmpcfg[i] & PMP_A) {
    case 0:
        return off;
    case PMP_A_TOR: {
        uint64_t first = i ? hart->pmpaddr[i - 1] << 2 : 0;
        return address << 2 > first ? (struct pmp_range){first, (address << 2) - 1} : off;
    }
    case PMP_A_NA4:
        return (struct pmp_range){address << 2, (address << 2) + 3};
    default: {
        uint64_t ones = address ^ (address + 1); /* up to and with the lowest zero */
        return (struct pmp_range){(address & ~ones) << 2, (address | ones) << 2 | 3};
    }
    }
}

void pmp_changed(struct hart *hart)
{
    for (unsigned i = 0; i < PMP_ENTRIES; i++)
        hart->private->pmp[i] = entry_range(hart, i);
    mmu_flush(hart);
}

unsigned pmp_allowed(const struct hart *hart, uint64_t gpa, unsigned size, unsigned privilege)
{
    uint64_t last = gpa + size - 1;
    for (unsigned i = 0; i < PMP_ENTRIES; i++) {
        const struct pmp_range *range = &hart->private->pmp[i];
        if (last < range->first || gpa > range->last || range->first > range->last)
            continue;
        if (gpa < range->first || last > range->last)
            return 0; /* the first entry that matches any byte must match all */
        if (privilege == PRIVILEGE_MACHINE && !(hart->pmpcfg[i] & PMP_LOCKED))
            return 7;
        return cfg_allowed(hart->pmpcfg[i]);
    }
    return privilege == PRIVILEGE_MACHINE ? 7 : 0;
}

bool pmp_page_uniform(const struct hart *hart, uint64_t gpa)
{
    uint64_t first = gpa & PAGE_MASK, last = first + PAGE_SIZE - 1;
    for (unsigned i = 0; i < PMP_ENTRIES; i++) {
        const struct pmp_range *range = &hart->private->pmp[i];
        if (last < range->first || first > range->last || range->first > range->last)
            continue;
        return first >= range->first && last <= range->last;
    }
    return true;
}
