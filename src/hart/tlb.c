/*
 * The TLB: contexts, what they keep, and the fences that take it away. hart.h describes the fast
 * path in front of this, mmu.c fills it.
 */
#include "hart/internal.h"

/* tlb->span: log2 of the leaf's size, and whether all address spaces have it. */
#define SPAN_MASK   UINT64_C(0x7f)
#define SPAN_GLOBAL 0x80

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

uint32_t context_mode(const struct hart *hart, unsigned privilege, uint64_t *satp)
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

/* --- Filling ---------------------------------------------------------------------------------- */

/* Many misses among few instructions: more entries help. */
void tlb_miss(struct hart *hart, struct tlb *tlb)
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

void tlb_fill(struct tlb *tlb, uint64_t va, const struct walk *walk, unsigned allowed,
              unsigned watched, enum memory_kind kind, const uint8_t *host)
{
    uint64_t page = va & PAGE_MASK;
    unsigned index = entry_index(tlb, va);
    struct tlb_entry *entry = &tlb->entries[index];
    uint64_t slow = 0;

    if (kind == MEMORY_ROM)
        allowed &= ~(1u << ACCESS_STORE);
    if (kind == MEMORY_DEVICE)
        allowed &= ~(1u << ACCESS_FETCH);
    if (kind == MEMORY_MMIO) {
        allowed &= ~(1u << ACCESS_FETCH);
        watched = 0; /* TLB_SLOW is enough */
        slow = TLB_SLOW;
    }
    for (unsigned access = 0; access < 3; access++) {
        uint64_t mark = watched & 1 << access ? TLB_WATCHED : slow;
        entry->tag[access] = allowed & 1 << access ? page | mark : TLB_INVALID;
    }
    entry->addend = (kind == MEMORY_MMIO ? walk->gpa & PAGE_MASK : (uintptr_t)host) - page;
    tlb->span[index] = walk->span | (walk->global ? SPAN_GLOBAL : 0);
    if (walk->span > MEMORY_PAGE_SHIFT)
        note_large(tlb, va, walk->span);
}
