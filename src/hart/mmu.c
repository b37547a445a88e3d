/*
 * Address translation: page walks, the TLB, and the engine's slow paths.
 *
 * Privileged, "Sv39", "Sv48", "Sv57", "Svnapot", "Svpbmt", "Svadu". The fast path in front of this
 * is described in hart.h. A page enters the TLB only if all of it has the same permissions (PMP can
 * divide pages), and for an access kind only if that kind needs no more page table updates.
 */
#include "hart/internal.h"

#define SATP_MODE_SHIFT 60
#define SATP_ASID_SHIFT 44
#define SATP_MODE_BARE  0
#define SATP_PPN        (BIT(44) - 1)

#define PTE_V    BIT(0)
#define PTE_R    BIT(1)
#define PTE_W    BIT(2)
#define PTE_X    BIT(3)
#define PTE_U    BIT(4)
#define PTE_G    BIT(5)
#define PTE_A    BIT(6)
#define PTE_D    BIT(7)
#define PTE_PBMT (BIT(61) | BIT(62))
#define PTE_N    BIT(63)
#define PTE_ZERO (UINT64_C(0x7f) << 54) /* reserved */

#define PTE_PPN_SHIFT 10

/* tlb->mode: the effective privilege in bits 1..0, and: */
#define VIEW_SUM BIT(2)
#define VIEW_MXR BIT(3)

/* tlb->span: log2 of the leaf's size, and whether all address spaces have it. */
#define SPAN_MASK   UINT64_C(0x7f)
#define SPAN_GLOBAL 0x80

static const uint8_t page_fault[] = {TRAP_LOAD_PAGE, TRAP_STORE_PAGE, TRAP_FETCH_PAGE};
static const uint8_t access_fault[] = {TRAP_LOAD_ACCESS, TRAP_STORE_ACCESS, TRAP_FETCH_ACCESS};
static const uint8_t misaligned[] = {TRAP_LOAD_MISALIGNED, TRAP_STORE_MISALIGNED};

/* --- Sets of numbers -------------------------------------------------------------------------- */

/* A place has one number, or several, which then all seem to be there. */

#define SET_SEVERAL UINT64_MAX

/* Fibonacci hashing: neighbours, as in a linear map, do not meet. */
static unsigned set_place(uint64_t number)
{
    return (number * UINT64_C(0x9e3779b97f4a7c15) >> 32) % TLB_SET;
}

static bool set_may_have(const struct tlb_set *set, uint64_t number)
{
    uint64_t there = set->numbers[set_place(number)];
    return there == number + 1 || there == SET_SEVERAL;
}

static void set_add(struct tlb_set *set, uint64_t number)
{
    uint64_t *there = &set->numbers[set_place(number)];
    *there = *there == 0 || *there == number + 1 ? number + 1 : SET_SEVERAL;
}

/* --- Contexts -------------------------------------------------------------------------------- */

static void jump_clear(struct tlb *tlb, unsigned i)
{
    tlb->jumps[i].pc = i == 0 ? 2 : 0;
}

static void jumps_clear(struct tlb *tlb, uint64_t generation)
{
    for (unsigned i = 0; i < tlb->jump_count; i++)
        jump_clear(tlb, tlb->jumped[i]);
    tlb->jump_count = 0;
    tlb->jumps_local = false;
    memset(&tlb->jumps_into, 0, sizeof(tlb->jumps_into));
    tlb->jumps_generation = generation;
}

static unsigned entry_count(const struct tlb *tlb)
{
    return tlb->entries_mask / sizeof(struct tlb_entry) + 1;
}

static unsigned entry_index(const struct tlb *tlb, uint64_t va)
{
    return va >> MEMORY_PAGE_SHIFT & (entry_count(tlb) - 1);
}

static void tables_clear(struct tlb *tlb)
{
    for (unsigned i = 0; i < TLB_TABLES; i++)
        tlb->tables[i].region = UINT64_MAX;
}

static void entries_invalidate(struct tlb *tlb, unsigned first, unsigned limit)
{
    for (unsigned i = first; i < limit; i++)
        memset(tlb->entries[i].tag, 0xff, sizeof(tlb->entries[i].tag));
}

/*
 * Empties it, with so many entries. Those behind them are invalid as well, as far as any context of
 * the hart ever reached: translated code may look at them (hart->predicted).
 */
static void entries_clear(struct hart_private *private, struct tlb *tlb, unsigned count)
{
    unsigned reached = private->tlb_reach;
    entries_invalidate(tlb, 0, tlb->used ? entry_count(tlb) : reached);
    for (unsigned i = 0; i < TLB_CONTEXTS && count > reached; i++)
        if (private->tlbs[i].used || &private->tlbs[i] == tlb)
            entries_invalidate(&private->tlbs[i], reached, count);
    private->tlb_reach = count > reached ? count : reached;
    tlb->entries_mask = (count - 1) * sizeof(struct tlb_entry);
    memset(tlb->span, 0, count);
    tlb->fills = 0;
}

static void tlb_clear(struct hart_private *private, struct tlb *tlb)
{
    if (!tlb->used)
        jump_clear(tlb, 0);
    entries_clear(private, tlb, TLB_ENTRIES_MIN);
    tables_clear(tlb);
    jumps_clear(tlb, private->jumps_generation);
    tlb->huge = 0;
    memset(&tlb->large, 0, sizeof(tlb->large));
    tlb->stale = false;
}

/* Drops all entries but those of global mappings, which all address spaces have, and which fences
 * of one leave alone (Privileged, "Supervisor Memory-Management Fence Instruction"). */
static void tlb_drop_local(struct tlb *tlb)
{
    if (tlb->jumps_local)
        jumps_clear(tlb, tlb->jumps_generation);
    tables_clear(tlb);
    for (unsigned i = 0; i < entry_count(tlb); i++)
        if (!(tlb->span[i] & SPAN_GLOBAL))
            memset(tlb->entries[i].tag, 0xff, sizeof(tlb->entries[i].tag));
}

/* The context to give up for another: the one that was not used for the longest time; among those
 * of the same mode, if there are two, since what is global may stay in it. */
static struct tlb *context_victim(struct hart_private *private, uint32_t mode)
{
    struct tlb *oldest = NULL, *alike = NULL;
    unsigned count = 0;
    for (unsigned i = 0; i < TLB_CONTEXTS; i++) {
        struct tlb *tlb = &private->tlbs[i];
        if (!oldest || tlb->used < oldest->used)
            oldest = tlb;
        if (tlb->mode != mode || !tlb->used)
            continue;
        count++;
        if (!alike || tlb->used < alike->used)
            alike = tlb;
    }
    return count >= 2 ? alike : oldest;
}

static struct tlb *context_take(struct hart_private *private, uint64_t satp, uint32_t mode)
{
    struct tlb *tlb = context_victim(private, mode);
    bool same_scheme = tlb->satp && tlb->satp >> SATP_MODE_SHIFT == satp >> SATP_MODE_SHIFT;
    if (!tlb->stale && tlb->mode == mode && same_scheme)
        tlb_drop_local(tlb);
    else
        tlb->stale = true;
    tlb->satp = satp;
    tlb->mode = mode;
    return tlb;
}

static struct tlb *context_find(struct hart_private *private, uint64_t satp, uint32_t mode)
{
    struct tlb *tlb = NULL;
    for (unsigned i = 0; i < TLB_CONTEXTS && !tlb; i++)
        if (private->tlbs[i].satp == satp && private->tlbs[i].mode == mode)
            tlb = &private->tlbs[i];
    if (!tlb)
        tlb = context_take(private, satp, mode);
    if (tlb->stale)
        tlb_clear(private, tlb);
    else if (tlb->jumps_generation != private->jumps_generation)
        jumps_clear(tlb, private->jumps_generation);
    tlb->used = ++private->tlb_uses;
    return tlb;
}

/* satp and mode leave out what makes no difference, so that more contexts are the same. */
static uint32_t context_mode(const struct hart *hart, unsigned privilege, uint64_t *satp)
{
    *satp = privilege == PRIVILEGE_MACHINE ? 0 : hart->satp;
    uint32_t mode = privilege;
    if (*satp >> SATP_MODE_SHIFT == SATP_MODE_BARE) {
        *satp = 0;
        return mode;
    }
    if (privilege == PRIVILEGE_SUPERVISOR && (hart->mstatus & MSTATUS_SUM))
        mode |= VIEW_SUM;
    if (hart->mstatus & MSTATUS_MXR)
        mode |= VIEW_MXR;
    return mode;
}

static struct tlb *context_select(struct hart *hart, struct tlb *current, unsigned privilege)
{
    uint64_t satp;
    uint32_t mode = context_mode(hart, privilege, &satp);
    if (current && current->satp == satp && current->mode == mode && !current->stale)
        return current;
    return context_find(hart->private, satp, mode);
}

void mmu_context_changed(struct hart *hart)
{
    unsigned data = hart->privilege;
    if (data == PRIVILEGE_MACHINE && (hart->mstatus & MSTATUS_MPRV))
        data = bits_get(hart->mstatus, MSTATUS_MPP_SHIFT, 2);

    hart->fetch_tlb = context_select(hart, hart->fetch_tlb, hart->privilege);
    hart->data_tlb =
        data == hart->privilege ? hart->fetch_tlb : context_select(hart, hart->data_tlb, data);
}

/* Those of the context in use go now; the others when they are used again. */
void mmu_forget_jumps(struct hart *hart)
{
    uint64_t generation = ++hart->private->jumps_generation;
    if (hart->fetch_tlb)
        jumps_clear(hart->fetch_tlb, generation);
    if (hart->data_tlb && hart->data_tlb != hart->fetch_tlb)
        jumps_clear(hart->data_tlb, generation);
}

void mmu_forget_stores(struct hart *hart)
{
    for (unsigned i = 0; i < TLB_CONTEXTS; i++) {
        struct tlb *tlb = &hart->private->tlbs[i];
        for (unsigned j = 0; tlb->used && j < entry_count(tlb); j++)
            if (!(tlb->entries[j].tag[ACCESS_STORE] & TLB_SLOW))
                tlb->entries[j].tag[ACCESS_STORE] = TLB_INVALID;
    }
}

void mmu_flush(struct hart *hart)
{
    for (unsigned i = 0; i < TLB_CONTEXTS; i++)
        hart->private->tlbs[i].stale = true;
    mmu_context_changed(hart);
}

static void jumps_drop(struct tlb *tlb, uint64_t first, uint64_t last)
{
    for (unsigned i = 0; i < tlb->jump_count; i++) {
        uint64_t pc = tlb->jumps[tlb->jumped[i]].pc;
        if (pc >= first && pc <= last)
            jump_clear(tlb, tlb->jumped[i]);
    }
}

/* Superpages of up to 2 MiB are noted by their number, larger ones by a hash of their GiB. */
#define LARGE_SHIFT 21

static uint64_t huge_bit(uint64_t va)
{
    return BIT((va >> 30) * UINT64_C(0x9e3779b97f4a7c15) >> 58);
}

static bool has_large(const struct tlb *tlb, uint64_t va)
{
    return (tlb->huge & huge_bit(va)) || set_may_have(&tlb->large, va >> LARGE_SHIFT);
}

static void note_large(struct tlb *tlb, uint64_t va, unsigned span)
{
    if (span > 30)
        tlb->huge = UINT64_MAX;
    else if (span > LARGE_SHIFT)
        tlb->huge |= huge_bit(va);
    else
        set_add(&tlb->large, va >> LARGE_SHIFT);
}

/* Drops the entry if the leaf that it comes from translates a part of [first, last]. */
static void entry_drop(struct tlb *tlb, unsigned i, uint64_t first, uint64_t last)
{
    struct tlb_entry *entry = &tlb->entries[i];
    uint64_t offset = BIT(tlb->span[i] & SPAN_MASK) - 1;
    for (unsigned access = 0; access < 3; access++) {
        uint64_t tag = entry->tag[access];
        if (tag != TLB_INVALID && (tag & ~offset) <= last && (tag | offset) >= first)
            entry->tag[access] = TLB_INVALID;
    }
}

/* Drops the entries that come from the leaf PTEs of [first, last]: all pages of a superpage, which
 * may be anywhere, and the others, each of which has one place. */
static void tlb_drop(struct tlb *tlb, uint64_t first, uint64_t last)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    bool jumps = false;
    for (uint64_t region = first >> LARGE_SHIFT; region <= last >> LARGE_SHIFT; region++)
        tlb->tables[region % TLB_TABLES].region = UINT64_MAX;
    for (uint64_t page = first >> MEMORY_PAGE_SHIFT; page <= last >> MEMORY_PAGE_SHIFT; page++) {
        entry_drop(tlb, entry_index(tlb, page << MEMORY_PAGE_SHIFT), first, last);
        jumps |= set_may_have(&tlb->jumps_into, page);
    }
    if (!has_large(tlb, first) && !has_large(tlb, last)) {
        if (jumps)
            jumps_drop(tlb, first, last);
        return;
    }
    jumps_clear(tlb, tlb->jumps_generation); /* to anywhere in the superpage */
    for (unsigned i = 0; i < entry_count(tlb); i += 8) {
        /* Eight at once: is any span above that of a page? */
        uint64_t spans = load_le64(&tlb->span[i]) & SPAN_MASK * ones;
        if ((spans + (127 - MEMORY_PAGE_SHIFT) * ones) & 128 * ones)
            for (unsigned j = i; j < i + 8; j++)
                entry_drop(tlb, j, first, last);
    }
}

void hart_sfence(struct hart *hart, uint64_t va, uint64_t size, uint64_t asid)
{
    enum { PAGES_ONE_BY_ONE = 32 };
    uint64_t first = va & PAGE_MASK;
    bool whole = size > PAGES_ONE_BY_ONE * PAGE_SIZE || va + size < va;
    hart->private->counts.fences_translation++;
    for (unsigned i = 0; i < TLB_CONTEXTS; i++) {
        struct tlb *tlb = &hart->private->tlbs[i];
        bool matches = asid == UINT64_MAX || bits_get(tlb->satp, SATP_ASID_SHIFT, 16) == asid;
        if (tlb->satp == 0 || tlb->stale || !matches)
            continue;
        if (whole && asid != UINT64_MAX && (tlb->mode & 3) != PRIVILEGE_USER)
            tlb_drop_local(tlb);
        else if (whole)
            tlb->stale = true;
        else if (size)
            tlb_drop(tlb, first, (va + size - 1) | ~PAGE_MASK);
    }
    if (whole)
        mmu_context_changed(hart);
}

void engine_remember_jump(struct hart *hart, uint64_t pc, const void *code)
{
    struct tlb *tlb = hart->fetch_tlb;
    unsigned at = pc / 2 % TLB_JUMPS, page = entry_index(tlb, pc);
    if (tlb->jump_count == TLB_JUMPS)
        jumps_clear(tlb, tlb->jumps_generation);
    tlb->jumps[at] = (struct tlb_jump){.pc = pc, .code = code};
    tlb->jumped[tlb->jump_count++] = (uint16_t)at;
    set_add(&tlb->jumps_into, pc / PAGE_SIZE);
    /* Only while the TLB has the page is it known to be global. */
    if (tlb->entries[page].tag[ACCESS_FETCH] != (pc & PAGE_MASK) ||
        !(tlb->span[page] & SPAN_GLOBAL))
        tlb->jumps_local = true;
}

/* --- Page walks ------------------------------------------------------------------------------ */

struct walk {
    uint64_t gpa;
    unsigned allowed; /* mask by enum access: what needs no further check of the page tables */
    uint8_t span;
    bool global;
};

/* The host address of RAM that may be written, watched RAM included; NULL for anything else. */
static uint8_t *ram_host(struct hart *hart, uint64_t gpa)
{
    size_t size = 1;
    memory_allow_stores(hart->memory, gpa, true);
    return memory_dma_begin(hart->memory, gpa, &size, true);
}

static const uint64_t *pte_host(struct hart *hart, uint64_t gpa)
{
    uint8_t *host;
    enum memory_kind kind = memory_page(hart->memory, gpa & PAGE_MASK, &host);
    if (kind != MEMORY_RAM && kind != MEMORY_ROM)
        return NULL;
    if (!(pmp_allowed(hart, gpa, 8, PRIVILEGE_SUPERVISOR) & 1 << ACCESS_LOAD))
        return NULL;
    return (const uint64_t *)(host + (gpa & ~PAGE_MASK));
}

/* What the permission bits of a leaf allow in this view. */
static unsigned leaf_allowed(uint64_t pte, uint32_t mode)
{
    unsigned privilege = mode & 3;
    unsigned allowed = 0;
    if ((pte & PTE_R) || ((mode & VIEW_MXR) && (pte & PTE_X)))
        allowed |= 1 << ACCESS_LOAD;
    if (pte & PTE_W)
        allowed |= 1 << ACCESS_STORE;
    if (pte & PTE_X)
        allowed |= 1 << ACCESS_FETCH;

    if (privilege == PRIVILEGE_USER)
        return pte & PTE_U ? allowed : 0;
    if (!(pte & PTE_U))
        return allowed;
    return mode & VIEW_SUM ? allowed & ~(1u << ACCESS_FETCH) : 0;
}

/* True if the attribute bits of a leaf are valid (Svpbmt, Svnapot). */
static bool leaf_valid(const struct hart *hart, uint64_t pte, unsigned level)
{
    uint64_t ppn = bits_get(pte, PTE_PPN_SHIFT, 44);
    if (pte & PTE_ZERO)
        return false;
    if ((pte & PTE_PBMT) && (!(hart->menvcfg & ENVCFG_PBMTE) || (pte & PTE_PBMT) == PTE_PBMT))
        return false;
    if ((pte & PTE_N) &&
        (!isa_extensions_test(&hart->extensions, ISA_EXT_SVNAPOT) || level || (ppn & 15) != 8))
        return false;
    return !(ppn & (BIT(9 * level) - 1)); /* a misaligned superpage */
}

/* Sets A, and for stores D. False if the PTE has changed meanwhile. */
static enum trap_cause leaf_update(struct hart *hart, uint64_t gpa, uint64_t *pte, uint64_t wanted,
                                   enum access access, bool *changed)
{
    uint64_t *host = (uint64_t *)ram_host(hart, gpa);
    if (!host || !(pmp_allowed(hart, gpa, 8, PRIVILEGE_SUPERVISOR) & 1 << ACCESS_STORE))
        return access_fault[access];
    *changed = !__atomic_compare_exchange_n(host, pte, *pte | wanted, false, __ATOMIC_SEQ_CST,
                                            __ATOMIC_SEQ_CST);
    if (!*changed)
        *pte |= wanted;
    return TRAP_NONE;
}

static struct tlb_table *table_of(struct tlb *tlb, uint64_t va)
{
    return &tlb->tables[(va >> LARGE_SHIFT) % TLB_TABLES];
}

/* The table of pages that the walk has come to, unless PMP divides it. */
static void table_remember(struct hart *hart, struct tlb *tlb, uint64_t va, uint64_t gpa,
                           bool global)
{
    const uint64_t *host = pmp_page_uniform(hart, gpa) ? pte_host(hart, gpa) : NULL;
    if (host)
        *table_of(tlb, va) = (struct tlb_table){va >> LARGE_SHIFT, gpa, host, global};
}

/*
 * Translates va for `access` in the view (satp, mode). With `update` the walk sets A and D bits
 * where menvcfg.ADUE says that hardware does; without, nothing changes. tlb is that of the view, or
 * NULL; a walk begins with the last table that it remembers.
 */
static enum trap_cause walk(struct hart *hart, uint64_t satp, uint32_t mode, struct tlb *tlb,
                            uint64_t va, enum access access, bool update, struct walk *result)
{
    unsigned scheme = satp >> SATP_MODE_SHIFT;
    if (scheme == SATP_MODE_BARE) {
        *result = (struct walk){.gpa = va, .allowed = 7, .span = MEMORY_PAGE_SHIFT};
        return TRAP_NONE;
    }
    unsigned levels = scheme - 5; /* Sv39 is 8 and has 3 */
    unsigned bits = 12 + 9 * levels;
    if (sign_extend(va, bits) != (int64_t)va)
        return page_fault[access];

restart:;
    uint64_t table = (satp & SATP_PPN) << MEMORY_PAGE_SHIFT;
    bool global = false;
    const struct tlb_table *last = tlb ? table_of(tlb, va) : NULL;
    unsigned level = levels;
    if (last && last->region == va >> LARGE_SHIFT) {
        level = 1;
        table = last->gpa;
        global = last->global;
    } else {
        last = NULL;
    }
    while (level-- > 0) {
        unsigned shift = 12 + 9 * level, index = bits_get(va, shift, 9);
        uint64_t gpa = table + 8 * index;
        const uint64_t *host = last ? last->host + index : pte_host(hart, gpa);
        if (!host)
            return access_fault[access];
        uint64_t pte = __atomic_load_n(host, __ATOMIC_ACQUIRE);
        if (!(pte & PTE_V) || (pte & (PTE_R | PTE_W)) == PTE_W)
            return page_fault[access];
        global |= (pte & PTE_G) != 0;
        if (!(pte & (PTE_R | PTE_X))) {
            if (pte & (PTE_A | PTE_D | PTE_U | PTE_PBMT | PTE_N | PTE_ZERO))
                return page_fault[access];
            table = bits_get(pte, PTE_PPN_SHIFT, 44) << MEMORY_PAGE_SHIFT;
            if (tlb && level == 1)
                table_remember(hart, tlb, va, table, global);
            continue;
        }

        unsigned allowed = leaf_allowed(pte, mode);
        if (!leaf_valid(hart, pte, level) || !(allowed & 1 << access))
            return page_fault[access];
        uint64_t wanted = PTE_A | (access == ACCESS_STORE ? PTE_D : 0);
        if ((pte & wanted) != wanted) {
            if (!(hart->menvcfg & ENVCFG_ADUE))
                return page_fault[access];
            if (update) {
                bool changed;
                enum trap_cause cause = leaf_update(hart, gpa, &pte, wanted, access, &changed);
                if (cause != TRAP_NONE)
                    return cause;
                if (changed)
                    goto restart;
            }
        }

        if (pte & PTE_N)
            shift = 16;
        uint64_t base = bits_get(pte, PTE_PPN_SHIFT, 44) << MEMORY_PAGE_SHIFT;
        uint64_t offset = BIT(shift) - 1;
        *result = (struct walk){
            .gpa = (base & ~offset) | (va & offset),
            .allowed = pte & PTE_D ? allowed : allowed & ~(1u << ACCESS_STORE),
            .span = shift,
            .global = global,
        };
        return TRAP_NONE;
    }
    return page_fault[access]; /* the last level is no leaf */
}

enum trap_cause hart_translate(struct hart *hart, uint64_t va, enum access access, int privilege,
                               uint64_t *gpa)
{
    unsigned effective = privilege;
    if (privilege < 0) {
        effective = hart->privilege;
        if (access != ACCESS_FETCH && effective == PRIVILEGE_MACHINE &&
            (hart->mstatus & MSTATUS_MPRV))
            effective = bits_get(hart->mstatus, MSTATUS_MPP_SHIFT, 2);
    }
    uint64_t satp;
    uint32_t mode = context_mode(hart, effective, &satp);
    struct walk result;
    enum trap_cause cause = walk(hart, satp, mode, NULL, va, access, false, &result);
    if (cause != TRAP_NONE)
        return cause;
    *gpa = result.gpa;
    return pmp_allowed(hart, result.gpa, 1, effective) & 1 << access ? TRAP_NONE
                                                                     : access_fault[access];
}

/* --- Filling the TLB ------------------------------------------------------------------------- */

/* Where an access within one page goes. */
struct place {
    uint8_t *host; /* NULL: registers, or memory whose stores are somebody else's */
    uint64_t gpa;
    bool divided; /* by PMP: another byte of this page may have other permissions */
};

/* Many misses among few instructions: more entries help. */
static void tlb_miss(struct hart *hart, struct tlb *tlb)
{
    enum { INSTRUCTIONS = 48 }; /* for each miss */
    unsigned count = entry_count(tlb);
    if (++tlb->fills == 1)
        tlb->fills_instret = hart->instret;
    if (tlb->fills < 2 * count)
        return;
    bool often = hart->instret - tlb->fills_instret < (uint64_t)INSTRUCTIONS * tlb->fills;
    tlb->fills = 0;
    if (often && count < TLB_ENTRIES_MAX)
        entries_clear(hart->private, tlb, 4 * count);
}

static void tlb_fill(struct tlb *tlb, uint64_t va, const struct walk *walk, unsigned allowed,
                     enum memory_kind kind, const uint8_t *host)
{
    uint64_t page = va & PAGE_MASK;
    unsigned index = entry_index(tlb, va);
    struct tlb_entry *entry = &tlb->entries[index];
    uint64_t slow = 0;

    if (kind == MEMORY_ROM)
        allowed &= ~(1u << ACCESS_STORE);
    if (kind == MEMORY_MMIO) {
        allowed &= ~(1u << ACCESS_FETCH);
        slow = TLB_SLOW;
    }
    for (unsigned access = 0; access < 3; access++)
        entry->tag[access] = allowed & 1 << access ? page | slow : TLB_INVALID;
    entry->addend = (kind == MEMORY_MMIO ? walk->gpa & PAGE_MASK : (uintptr_t)host) - page;
    tlb->span[index] = walk->span | (walk->global ? SPAN_GLOBAL : 0);
    if (walk->span > MEMORY_PAGE_SHIFT)
        note_large(tlb, va, walk->span);
}

/* Translates an access of `size` bytes that does not leave its page. */
static enum trap_cause place_find(struct hart *hart, struct tlb *tlb, uint64_t va, unsigned size,
                                  enum access access, struct place *place)
{
    const struct tlb_entry *entry = tlb_entry_of(tlb, va);
    uint64_t page = va & PAGE_MASK;
    if (entry->tag[access] == page) {
        *place = (struct place){.host = (uint8_t *)(va + entry->addend)};
        return TRAP_NONE;
    }
    if (entry->tag[access] == (page | TLB_SLOW)) {
        *place = (struct place){.gpa = va + entry->addend};
        return TRAP_NONE;
    }

    hart->private->counts.tlb_misses[access]++;
    tlb_miss(hart, tlb);
    struct walk result;
    enum trap_cause cause = walk(hart, tlb->satp, tlb->mode, tlb, va, access, true, &result);
    if (cause != TRAP_NONE)
        return cause;
    unsigned privilege = tlb->mode & 3;
    unsigned allowed = pmp_allowed(hart, result.gpa, size, privilege);
    if (!(allowed & 1 << access))
        return access_fault[access];

    uint8_t *host;
    enum memory_kind kind = memory_page(hart->memory, result.gpa & PAGE_MASK, &host);
    if (kind == MEMORY_NONE || (kind == MEMORY_MMIO && access == ACCESS_FETCH))
        return access_fault[access];
    bool uniform = pmp_page_uniform(hart, result.gpa);
    unsigned fast = result.allowed & allowed;
    if (kind == MEMORY_RAM && (fast & 1 << ACCESS_STORE) &&
        !memory_allow_stores(hart->memory, result.gpa, access == ACCESS_STORE))
        fast &= ~(1u << ACCESS_STORE);
    if (uniform)
        tlb_fill(tlb, va, &result, fast, kind, host);
    bool direct = kind == MEMORY_RAM || (kind == MEMORY_ROM && access != ACCESS_STORE);
    *place = (struct place){
        .host = direct ? host + (result.gpa & ~PAGE_MASK) : NULL,
        .gpa = result.gpa,
        .divided = !uniform,
    };
    return TRAP_NONE;
}

/* --- Loads and stores ------------------------------------------------------------------------ */

static uint64_t host_load(const uint8_t *host, unsigned size)
{
    if ((uintptr_t)host & (size - 1))
        return load_le(host, size);
    switch (size) {
    case 1:
        return __atomic_load_n(host, __ATOMIC_RELAXED);
    case 2:
        return __atomic_load_n((const uint16_t *)host, __ATOMIC_RELAXED);
    case 4:
        return __atomic_load_n((const uint32_t *)host, __ATOMIC_RELAXED);
    default:
        return __atomic_load_n((const uint64_t *)host, __ATOMIC_RELAXED);
    }
}

static void host_store(uint8_t *host, unsigned size, uint64_t value)
{
    if ((uintptr_t)host & (size - 1)) {
        store_le(host, value, size);
        return;
    }
    switch (size) {
    case 1:
        __atomic_store_n(host, (uint8_t)value, __ATOMIC_RELAXED);
        break;
    case 2:
        __atomic_store_n((uint16_t *)host, (uint16_t)value, __ATOMIC_RELAXED);
        break;
    case 4:
        __atomic_store_n((uint32_t *)host, (uint32_t)value, __ATOMIC_RELAXED);
        break;
    default:
        __atomic_store_n((uint64_t *)host, value, __ATOMIC_RELAXED);
    }
}

static bool place_load(struct hart *hart, const struct place *place, unsigned size, uint64_t *value)
{
    if (!place->host)
        return memory_read(hart->memory, place->gpa, size, value);
    *value = host_load(place->host, size);
    return true;
}

static bool place_store(struct hart *hart, const struct place *place, unsigned size, uint64_t value)
{
    if (!place->host)
        return memory_write(hart->memory, place->gpa, size, value);
    host_store(place->host, size, value);
    return true;
}

static bool fault(struct hart *hart, enum trap_cause cause, uint64_t va)
{
    hart_trap(hart, cause, va);
    return false;
}

/*
 * An access across a page boundary: both parts are translated before anything happens, then the
 * bytes go one by one. Registers refuse to be accessed like this.
 */
static bool access_across(struct hart *hart, uint64_t va, unsigned size, enum access access,
                          uint64_t *value)
{
    struct place places[2];
    uint64_t second = (va + size) & PAGE_MASK;
    unsigned in_first = second - va;
    enum trap_cause cause = place_find(hart, hart->data_tlb, va, in_first, access, &places[0]);
    if (cause != TRAP_NONE)
        return fault(hart, cause, va);
    cause = place_find(hart, hart->data_tlb, second, size - in_first, access, &places[1]);
    if (cause != TRAP_NONE)
        return fault(hart, cause, second);
    for (unsigned i = 0; i < 2; i++)
        if (!places[i].host)
            return fault(hart, access_fault[access], i ? second : va);

    uint64_t bytes = 0;
    for (unsigned i = 0; i < size; i++) {
        uint8_t *byte = i < in_first ? places[0].host + i : places[1].host + (i - in_first);
        if (access == ACCESS_LOAD)
            bytes |= host_load(byte, 1) << 8 * i;
        else
            host_store(byte, 1, *value >> 8 * i);
    }
    if (access == ACCESS_LOAD)
        *value = bytes;
    return true;
}

static bool crosses_page(uint64_t va, unsigned size)
{
    return (va & ~PAGE_MASK) + size > PAGE_SIZE;
}

bool mmu_load(struct hart *hart, uint64_t va, unsigned size, uint64_t *value)
{
    if (crosses_page(va, size))
        return access_across(hart, va, size, ACCESS_LOAD, value);
    struct place place;
    enum trap_cause cause = place_find(hart, hart->data_tlb, va, size, ACCESS_LOAD, &place);
    if (cause == TRAP_NONE && !place.host && hart->private->exclusive)
        exclusive_end(hart); /* devices may need other harts */
    if (cause == TRAP_NONE && !place_load(hart, &place, size, value))
        cause = TRAP_LOAD_ACCESS;
    return cause == TRAP_NONE || fault(hart, cause, va);
}

bool mmu_store(struct hart *hart, uint64_t va, unsigned size, uint64_t value)
{
    if (crosses_page(va, size))
        return access_across(hart, va, size, ACCESS_STORE, &value);
    struct place place;
    enum trap_cause cause = place_find(hart, hart->data_tlb, va, size, ACCESS_STORE, &place);
    if (cause == TRAP_NONE && !place.host && hart->private->exclusive)
        exclusive_end(hart);
    if (cause == TRAP_NONE && !place_store(hart, &place, size, value))
        cause = TRAP_STORE_ACCESS;
    return cause == TRAP_NONE || fault(hart, cause, va);
}

void *mmu_atomic(struct hart *hart, uint64_t va, unsigned size, enum access access)
{
    if (va & (size - 1)) {
        fault(hart, misaligned[access], va);
        return NULL;
    }
    struct place place;
    enum trap_cause cause = place_find(hart, hart->data_tlb, va, size, access, &place);
    if (cause == TRAP_NONE) {
        uint8_t *host = place.host ? place.host : ram_host(hart, place.gpa);
        if (host)
            return host;
        cause = access_fault[access];
    }
    fault(hart, cause, va);
    return NULL;
}

/* --- Cache blocks (Zicbom, Zicboz): 64 bytes, which never leave a page ----------------------- */

#define BLOCK_SIZE 64

bool mmu_block_zero(struct hart *hart, uint64_t va)
{
    va = align_down(va, BLOCK_SIZE);
    struct place place;
    enum trap_cause cause = place_find(hart, hart->data_tlb, va, BLOCK_SIZE, ACCESS_STORE, &place);
    for (unsigned i = 0; i < BLOCK_SIZE && cause == TRAP_NONE; i += 8) {
        struct place word = {.host = place.host ? place.host + i : NULL, .gpa = place.gpa + i};
        if (!place_store(hart, &word, 8, 0))
            cause = TRAP_STORE_ACCESS;
    }
    return cause == TRAP_NONE || fault(hart, cause, va);
}

/* Allowed where loads or stores are; faults as a store. */
bool mmu_block_manage(struct hart *hart, uint64_t va)
{
    va = align_down(va, BLOCK_SIZE);
    struct place place;
    if (place_find(hart, hart->data_tlb, va, BLOCK_SIZE, ACCESS_LOAD, &place) == TRAP_NONE)
        return true;
    enum trap_cause cause = place_find(hart, hart->data_tlb, va, BLOCK_SIZE, ACCESS_STORE, &place);
    return cause == TRAP_NONE || fault(hart, cause, va);
}

/* --- Fetches --------------------------------------------------------------------------------- */

static bool fetch_half(struct hart *hart, uint64_t va, uint16_t *half)
{
    struct place place;
    enum trap_cause cause = place_find(hart, hart->fetch_tlb, va, 2, ACCESS_FETCH, &place);
    if (cause != TRAP_NONE)
        return fault(hart, cause, va);
    *half = (uint16_t)host_load(place.host, 2);
    return true;
}

bool mmu_fetch_single(struct hart *hart, uint64_t pc)
{
    uint16_t low, high = 0;
    if (!fetch_half(hart, pc, &low))
        return false;
    if ((low & 3) == 3 && !fetch_half(hart, pc + 2, &high))
        return false;
    struct hart_private *private = hart->private;
    private->single_bits = low | (uint32_t)high << 16;
    code_fill(hart, &private->single[0], private->single_bits, CODE_ALONE);
    return true;
}

const uint8_t *mmu_fetch_page(struct hart *hart, uint64_t pc, bool *single)
{
    struct place place;
    enum trap_cause cause = place_find(hart, hart->fetch_tlb, pc, 2, ACCESS_FETCH, &place);
    *single = false;
    if (cause != TRAP_NONE) {
        fault(hart, cause, pc);
        return NULL;
    }
    if (place.divided) {
        *single = mmu_fetch_single(hart, pc);
        return NULL;
    }
    return place.host - (pc & ~PAGE_MASK);
}

struct code_page *mmu_fetch(struct hart *hart, uint64_t pc, bool *single)
{
    const uint8_t *page = mmu_fetch_page(hart, pc, single);
    return page ? code_find(&hart->private->code, page) : NULL;
}

/* --- Copies without side effects ------------------------------------------------------------- */

/* Finds the page of va for a debugger's access: permission to read or execute it is enough. */
static bool debug_translate(struct hart *hart, uint64_t va, int privilege, uint64_t *gpa)
{
    return hart_translate(hart, va, ACCESS_LOAD, privilege, gpa) == TRAP_NONE ||
           hart_translate(hart, va, ACCESS_FETCH, privilege, gpa) == TRAP_NONE;
}

static bool debug_copy(struct hart *hart, uint64_t va, uint8_t *buffer, size_t size, int privilege,
                       bool write)
{
    while (size) {
        uint64_t gpa;
        size_t part = PAGE_SIZE - (va & ~PAGE_MASK);
        if (part > size)
            part = size;
        if (!debug_translate(hart, va, privilege, &gpa) ||
            !(write ? memory_dma_write(hart->memory, gpa, buffer, part)
                    : memory_dma_read(hart->memory, gpa, buffer, part)))
            return false;
        va += part;
        buffer += part;
        size -= part;
    }
    return true;
}

bool hart_memory_read(struct hart *hart, uint64_t va, void *buffer, size_t size, int privilege)
{
    return debug_copy(hart, va, buffer, size, privilege, false);
}

bool hart_memory_write(struct hart *hart, uint64_t va, const void *buffer, size_t size,
                       int privilege)
{
    bool written = debug_copy(hart, va, (uint8_t *)buffer, size, privilege, true);
    hart_fence_i(hart); /* what was written may be code */
    return written;
}
