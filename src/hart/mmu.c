/*
 * Address translation: page walks, and the engines' slow paths.
 *
 * Privileged, "Sv39", "Sv48", "Sv57", "Svnapot", "Svpbmt", "Svadu". The fast path in front of this
 * is described in hart.h. A page enters the TLB only if all of it has the same permissions (PMP can
 * divide pages), and for an access kind only if that kind needs no more page table updates.
 */
#include "hart/internal.h"

#define SATP_PPN (BIT(44) - 1)

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

static const uint8_t page_fault[] = {TRAP_LOAD_PAGE, TRAP_STORE_PAGE, TRAP_FETCH_PAGE};
static const uint8_t access_fault[] = {TRAP_LOAD_ACCESS, TRAP_STORE_ACCESS, TRAP_FETCH_ACCESS};
static const uint8_t misaligned[] = {TRAP_LOAD_MISALIGNED, TRAP_STORE_MISALIGNED};

/* --- Page walks ------------------------------------------------------------------------------ */

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

/* Translates an access of `size` bytes that does not leave its page. */
static enum trap_cause place_find(struct hart *hart, struct tlb *tlb, uint64_t va, unsigned size,
                                  enum access access, struct place *place)
{
    const struct tlb_entry *entry = tlb_entry_of(tlb, va);
    uint64_t page = va & PAGE_MASK;
    if ((entry->tag[access] & ~TLB_WATCHED) == page) {
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
    bool device = kind == MEMORY_MMIO || kind == MEMORY_DEVICE;
    if (kind == MEMORY_NONE || (device && access == ACCESS_FETCH))
        return access_fault[access];
    bool uniform = pmp_page_uniform(hart, result.gpa);
    unsigned fast = result.allowed & allowed;
    if (kind == MEMORY_RAM && (fast & 1 << ACCESS_STORE) &&
        !memory_allow_stores(hart->memory, result.gpa, access == ACCESS_STORE))
        fast &= ~(1u << ACCESS_STORE);
    unsigned watched = hart->points ? debug_watched_accesses(hart, page) : 0;
    if (uniform)
        tlb_fill(tlb, va, &result, fast, watched, kind, host);
    bool direct = kind == MEMORY_RAM || kind == MEMORY_DEVICE ||
                  (kind == MEMORY_ROM && access != ACCESS_STORE);
    *place = (struct place){
        .host = direct ? host + (result.gpa & ~PAGE_MASK) : NULL,
        .gpa = result.gpa,
        .divided = !uniform,
    };
    return TRAP_NONE;
}

/* --- Loads and stores ------------------------------------------------------------------------ */

static bool place_load(struct hart *hart, const struct place *place, unsigned size, uint64_t *value)
{
    if (!place->host)
        return memory_read(hart->memory, place->gpa, size, value);
    *value = memory_host_load(place->host, size);
    return true;
}

static bool place_store(struct hart *hart, const struct place *place, unsigned size, uint64_t value)
{
    if (!place->host)
        return memory_write(hart->memory, place->gpa, size, value);
    memory_host_store(place->host, value, size);
    return true;
}

static bool fault(struct hart *hart, enum trap_cause cause, uint64_t va)
{
    hart_trap(hart, cause, va);
    return false;
}

/* Whether a debugger stops the hart before this access. */
static bool stops(struct hart *hart, uint64_t va, unsigned size, unsigned accesses)
{
    return unlikely(hart->points) && debug_access(hart, va, size, accesses);
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
    if (stops(hart, va, size, 1 << access))
        return false;

    uint64_t bytes = 0;
    for (unsigned i = 0; i < size; i++) {
        uint8_t *byte = i < in_first ? places[0].host + i : places[1].host + (i - in_first);
        if (access == ACCESS_LOAD)
            bytes |= memory_host_load(byte, 1) << 8 * i;
        else
            memory_host_store(byte, *value >> 8 * i, 1);
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
    if (cause == TRAP_NONE && stops(hart, va, size, 1 << ACCESS_LOAD))
        return false;
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
    if (cause == TRAP_NONE && stops(hart, va, size, 1 << ACCESS_STORE))
        return false;
    if (cause == TRAP_NONE && !place.host && hart->private->exclusive)
        exclusive_end(hart);
    if (cause == TRAP_NONE && !place_store(hart, &place, size, value))
        cause = TRAP_STORE_ACCESS;
    return cause == TRAP_NONE || fault(hart, cause, va);
}

void *mmu_atomic(struct hart *hart, uint64_t va, unsigned size, enum access access, unsigned does)
{
    if (va & (size - 1)) {
        fault(hart, misaligned[access], va);
        return NULL;
    }
    struct place place;
    enum trap_cause cause = place_find(hart, hart->data_tlb, va, size, access, &place);
    if (cause == TRAP_NONE) {
        uint8_t *host = place.host ? place.host : ram_host(hart, place.gpa);
        if (host && stops(hart, va, size, does))
            return NULL;
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
    if (cause == TRAP_NONE && stops(hart, va, BLOCK_SIZE, 1 << ACCESS_STORE))
        return false;
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
    *half = (uint16_t)memory_host_load(place.host, 2);
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
