/* What a debugger needs of a hart: debug.h. */
#include "hart/debug.h"

#include "hart/internal.h"

/* --- Stopping -------------------------------------------------------------------------------- */

void hart_stop(struct hart *hart, const struct hart_stop *stop)
{
    if (hart->private->stop.reason == HART_STOP_NONE)
        hart->private->stop = *stop;
    atomic_fetch_or(&hart->attention, ATTENTION_STOP);
}

bool hart_stopping(const struct hart *hart)
{
    return hart->private->stop.reason != HART_STOP_NONE;
}

struct hart_stop hart_take_stop(struct hart *hart)
{
    struct hart_stop stop = hart->private->stop;
    hart->private->stop = (struct hart_stop){HART_STOP_NONE};
    if (stop.reason != HART_STOP_NONE) /* after a step it was not attended to */
        atomic_fetch_and(&hart->attention, ~(uint32_t)ATTENTION_STOP);
    return stop;
}

static bool point_applies(const struct hart_point *point, struct hart *hart)
{
    return (hart->satp & point->satp_mask) == point->satp &&
           (!point->condition || point->condition(point->opaque, hart));
}

/* --- Breakpoints ----------------------------------------------------------------------------- */

/* The first breakpoint at `address` or above it. */
static size_t first_break(const struct hart_points *points, uint64_t address)
{
    size_t low = 0, high = points->break_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (points->breaks[middle].address < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool can_fetch(struct hart *hart)
{
    const struct tlb_entry *entry = tlb_entry_of(hart->fetch_tlb, hart->pc);
    uint64_t gpa;
    return entry->tag[ACCESS_FETCH] == (hart->pc & PAGE_MASK) ||
           hart_translate(hart, hart->pc, ACCESS_FETCH, -1, &gpa) == TRAP_NONE;
}

enum debug_break engine_break(struct hart *hart)
{
    const struct hart_points *points = hart->points;
    size_t i = first_break(points, hart->pc);
    if (i == points->break_count || points->breaks[i].address != hart->pc)
        return DEBUG_BREAK_NONE;
    /* What cannot be fetched faults, and stops when it has come. */
    if (!can_fetch(hart))
        return DEBUG_BREAK_PASS;
    for (; i < points->break_count && points->breaks[i].address == hart->pc; i++)
        if (point_applies(&points->breaks[i], hart)) {
            hart_stop(hart, &(struct hart_stop){.reason = HART_STOP_BREAK});
            return DEBUG_BREAK_STOP;
        }
    return DEBUG_BREAK_PASS;
}

const uint64_t *engine_breaks_in_page(const struct hart *hart, uint64_t pc, uint64_t *bitmap)
{
    const struct hart_points *points = hart->points;
    uint64_t page = pc & PAGE_MASK;
    if (!points)
        return NULL;
    size_t i = first_break(points, page);
    if (i == points->break_count || points->breaks[i].address - page >= PAGE_SIZE)
        return NULL;
    memset(bitmap, 0, ENGINE_BREAKS_SIZE);
    for (; i < points->break_count && points->breaks[i].address - page < PAGE_SIZE; i++) {
        unsigned half = (points->breaks[i].address & ~PAGE_MASK) / 2;
        bitmap[half / 64] |= BIT(half % 64);
    }
    return bitmap;
}

static bool same_watches(const struct hart_points *a, const struct hart_points *b)
{
    size_t count = a ? a->watch_count : 0;
    if (count != (b ? b->watch_count : 0))
        return false;
    for (size_t i = 0; i < count; i++)
        if (a->watches[i].address != b->watches[i].address ||
            a->watches[i].size != b->watches[i].size ||
            a->watches[i].accesses != b->watches[i].accesses)
            return false;
    return true;
}

static void note_watched_range(struct hart *hart)
{
    enum { REACH = 7 }; /* of an access that begins before a watched byte */
    uint64_t first = UINT64_MAX, last = 0;
    size_t count = hart->points ? hart->points->watch_count : 0;
    for (size_t i = 0; i < count; i++) {
        const struct hart_point *watch = &hart->points->watches[i];
        uint64_t end = watch->address + (watch->size - 1);
        first = watch->address < first ? watch->address : first;
        last = end > last ? end : last;
    }
    first = first > REACH ? first - REACH : 0;
    hart->watched_first = count ? first : 0;
    hart->watched_size = count ? last - first + 1 : 0;
    if (count && last - first == UINT64_MAX)
        hart->watched_size = UINT64_MAX; /* all but one address: that one is in the last page */
}

/* Decoded pages are found by host address: they only know where in a page a breakpoint is. */
void hart_set_points(struct hart *hart, const struct hart_points *points)
{
    struct hart_private *private = hart->private;
    const struct hart_points *old = hart->points;
    uint64_t offsets[ENGINE_BREAKS_SIZE / sizeof(uint64_t)] = {0};
    for (size_t i = 0; points && i < points->break_count; i++) {
        unsigned half = (points->breaks[i].address & ~PAGE_MASK) / 2;
        offsets[half / 64] |= BIT(half % 64);
    }
    hart->points = points;
    for (unsigned i = 0; i < ARRAY_SIZE(offsets); i++) {
        uint64_t changed = offsets[i] ^ private->break_offsets[i];
        private->break_offsets[i] = offsets[i];
        for (; changed; changed &= changed - 1)
            code_undecode(&private->code, 64 * i + (unsigned)__builtin_ctzll(changed));
    }
    if (!same_watches(old, points))
        mmu_flush(hart); /* pages are to be watched, or no longer */
    note_watched_range(hart);
}

/* --- Watchpoints ----------------------------------------------------------------------------- */

unsigned debug_watched_accesses(const struct hart *hart, uint64_t page)
{
    unsigned accesses = 0;
    for (size_t i = 0; i < hart->points->watch_count; i++) {
        const struct hart_point *point = &hart->points->watches[i];
        if (point->address <= (page | ~PAGE_MASK) && point->address + (point->size - 1) >= page)
            accesses |= point->accesses;
    }
    /* AMOs load what is translated for a store. */
    return accesses & 1 << ACCESS_LOAD ? accesses | 1 << ACCESS_STORE : accesses;
}

bool debug_access(struct hart *hart, uint64_t va, unsigned size, unsigned accesses)
{
    for (size_t i = 0; i < hart->points->watch_count && !hart->private->unwatched; i++) {
        const struct hart_point *point = &hart->points->watches[i];
        uint64_t last = point->address + (point->size - 1);
        if (va > last || va + (size - 1) < point->address || !(accesses & point->accesses) ||
            !point_applies(point, hart))
            continue;
        hart_stop(hart, &(struct hart_stop){
                            .reason = HART_STOP_WATCH,
                            .address = va > point->address ? va : point->address,
                            .accesses = point->accesses,
                        });
        return true;
    }
    return false;
}

/* --- Traps and calls ------------------------------------------------------------------------- */

void debug_trap(struct hart *hart, uint64_t cause)
{
    uint64_t causes = cause & CAUSE_INTERRUPT ? hart->points->interrupts : hart->points->exceptions;
    uint64_t number = cause & ~CAUSE_INTERRUPT;
    if (number < 64 && (causes & BIT(number)))
        hart_stop(hart, &(struct hart_stop){.reason = HART_STOP_TRAP, .cause = cause});
}

bool debug_before(struct hart *hart, enum hart_stop_reason reason)
{
    const struct hart_points *points = hart->points;
    bool wanted = reason == HART_STOP_CALL ? points->calls : points->waits;
    if (!wanted || hart->private->uncaught)
        return false;
    hart_stop(hart, &(struct hart_stop){.reason = reason});
    return true;
}

/* --- Steps ----------------------------------------------------------------------------------- */

void hart_debug_step(struct hart *hart, unsigned flags)
{
    if ((flags & HART_STEP_BREAKS) && hart->points && engine_break(hart) == DEBUG_BREAK_STOP)
        return;
    struct hart_private *private = hart->private;
    private->interrupts_held = !(flags & HART_STEP_INTERRUPTS);
    private->unwatched = flags & HART_STEP_UNWATCHED;
    private->uncaught = !(flags & HART_STEP_BREAKS);
    hart_step(hart);
    private->interrupts_held = private->unwatched = private->uncaught = false;
    atomic_fetch_or(&hart->attention, ATTENTION_INTERRUPT);
}

bool hart_holds_reservation(const struct hart *hart)
{
    return hart->reservation_address != RESERVATION_NONE;
}

/* --- Memory ---------------------------------------------------------------------------------- */

#define PTE_V 1u
#define PTE_R 2u
#define PTE_W 4u
#define PTE_X 8u

static bool walk_fail(struct hart_walk *walk, const char *failure)
{
    walk->failure = failure;
    return false;
}

bool hart_debug_walk(struct hart *hart, uint64_t va, int privilege, struct hart_walk *walk)
{
    unsigned effective = privilege >= 0 ? (unsigned)privilege : hart->privilege;
    if (privilege < 0 && effective == PRIVILEGE_MACHINE && (hart->mstatus & MSTATUS_MPRV))
        effective = bits_get(hart->mstatus, MSTATUS_MPP_SHIFT, 2);
    *walk = (struct hart_walk){.gpa = va, .shift = MEMORY_PAGE_SHIFT};
    if (effective != PRIVILEGE_MACHINE)
        walk->scheme = hart->satp >> SATP_MODE_SHIFT;
    if (walk->scheme == SATP_MODE_BARE)
        return true;

    unsigned level = walk->scheme - 5; /* Sv39 is 8 and has 3 levels */
    if (sign_extend(va, 12 + 9 * level) != (int64_t)va)
        return walk_fail(walk, "the address is not canonical");
    uint64_t table = bits_get(hart->satp, 0, 44) << MEMORY_PAGE_SHIFT;
    while (level-- > 0) {
        unsigned shift = 12 + 9 * level;
        uint64_t gpa = table + 8 * bits_get(va, shift, 9), pte;
        if (!memory_dma_read(hart->memory, gpa, &pte, sizeof(pte)))
            return walk_fail(walk, "the page table is not in RAM");
        walk->steps[walk->count].gpa = gpa;
        walk->steps[walk->count++].pte = pte;
        if (!(pte & PTE_V))
            return walk_fail(walk, "the entry is not valid");
        if ((pte & (PTE_R | PTE_W)) == PTE_W)
            return walk_fail(walk, "the entry is reserved");
        table = bits_get(pte, 10, 44) << MEMORY_PAGE_SHIFT;
        if (!(pte & (PTE_R | PTE_X)))
            continue;
        if (pte >> 63 && !level)
            shift = 16; /* Svnapot: 64 KiB */
        uint64_t offset = BIT(shift) - 1;
        walk->gpa = (table & ~offset) | (va & offset);
        walk->shift = shift;
        return true;
    }
    return walk_fail(walk, "the last level is not a leaf");
}

void hart_debug_tlb(const struct hart *hart,
                    void (*tell)(void *opaque, const struct hart_tlb_entry *entry), void *opaque)
{
    for (unsigned i = 0; i < TLB_CONTEXTS; i++) {
        const struct tlb *tlb = &hart->private->tlbs[i];
        if (!tlb->used || tlb->stale)
            continue;
        for (unsigned j = 0; j <= tlb->entries_mask / sizeof(struct tlb_entry); j++) {
            struct hart_tlb_entry entry = {.privilege = tlb->mode & 3, .satp = tlb->satp};
            for (unsigned access = 0; access < 3; access++) {
                uint64_t tag = tlb->entries[j].tag[access];
                if (tag == TLB_INVALID)
                    continue;
                entry.va = tag & PAGE_MASK;
                entry.accesses |= 1u << access;
                entry.slow |= (tag & TLB_SLOW) != 0;
                entry.watched |= (tag & TLB_WATCHED) != 0;
            }
            if (entry.accesses)
                tell(opaque, &entry);
        }
    }
}

size_t hart_debug_read(struct hart *hart, uint64_t va, void *buffer, size_t size, int privilege)
{
    uint8_t *bytes = buffer;
    size_t done = 0;
    while (done < size) {
        struct hart_walk walk;
        size_t part = PAGE_SIZE - (va & ~PAGE_MASK);
        if (part > size - done)
            part = size - done;
        if (!hart_debug_walk(hart, va, privilege, &walk) ||
            !memory_dma_read(hart->memory, walk.gpa, bytes + done, part))
            break;
        va += part;
        done += part;
    }
    return done;
}
