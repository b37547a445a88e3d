/* Address translation: leaf entries at every level of Sv39, Sv48 and Sv57 with every combination of
 * permissions, from U-mode, S-mode and through MPRV; SUM and MXR; reserved encodings; A and D bits
 * with and without Svadu; Svnapot, Svpbmt; canonical addresses; sfence.vma and Svinval; accesses
 * across a page boundary. */
#include "runtime.h"

CODE(load, "ld a0, 0(a0)")
CODE(load_byte, "lb a0, 0(a0)")
CODE(store, "sd a1, 0(a0)")
CODE(amo, "amoswap.d a0, a1, (a0)")
CODE(reserve, "lr.d a0, (a0)")
/* What is jumped to may just have been stored. */
CODE(jump, "fence.i\njr a0")
/* In M-mode with MPRV, as the mode in MPP (a1). */
CODE(load_as, "li t0, 0x1800\ncsrc mstatus, t0\nslli a1, a1, 11\ncsrs mstatus, a1\n"
              "li t0, 1 << 17\ncsrs mstatus, t0\nld a0, 0(a0)\ncsrc mstatus, t0")
CODE(store_as, "li t0, 0x1800\ncsrc mstatus, t0\nslli a1, a1, 11\ncsrs mstatus, a1\n"
               "li t0, 1 << 17\ncsrs mstatus, t0\nsd a1, 0(a0)\ncsrc mstatus, t0")

/* A stretch of code and data that test mappings show: it begins with ecall, so a jump to it
 * succeeds. */
static uint64_t target[1024] __attribute__((aligned(8192)));
static const uint64_t everything = PTE_V | PTE_R | PTE_W | PTE_X | PTE_U | PTE_A | PTE_D;

static uint64_t target_page;

static void reset_target(void)
{
    target_page = (uint64_t)target;
    for (unsigned i = 0; i < 1024; i++)
        target[i] = 0x1000000000000073UL + (i << 8);
    __asm__ volatile("fence.i");
}

/* A virtual address that walks through other entries of the root than the program itself. */
static uint64_t probe_address(unsigned levels, unsigned level)
{
    uint64_t address = 0x2000000000UL | 0x40000000UL * 5 | 0x200000UL * 17 | 0x1000UL * 33;
    if (levels >= 4)
        address |= 0x8000000000UL * 3;
    if (levels == 5)
        address |= 0x1000000000000UL * 7;
    return address & ~((0x1000UL << (9 * level)) - 1);
}

static const char *levels_name(unsigned levels)
{
    return levels == 3 ? "sv39" : levels == 4 ? "sv48" : "sv57";
}

static void try_all(const char *name, uint64_t address)
{
    static const struct {
        const char *name;
        code *code;
    } accesses[] = {
        {" load ", load}, {" store ", store}, {" amo ", amo}, {" lr ", reserve}, {" jump ", jump}};
    const char *text;

    for (unsigned i = 0; i < sizeof accesses / sizeof accesses[0]; i++)
        for (enum mode mode = MODE_U; mode <= MODE_S; mode++) {
            text = label(name, accesses[i].name, mode);
            try(text, mode, accesses[i].code, address, 5);
        }
}

static void permissions(unsigned levels)
{
    for (unsigned level = 0; level < levels; level++) {
        uint64_t address = probe_address(levels, level);
        uint64_t size = 0x1000UL << (9 * level);
        /* A large page shows the target at its offset in the page. */
        uint64_t inside = address + (target_page & (size - 1));
        const char *text;
        for (unsigned flags = 0; flags < 64; flags++) {
            /* V, R, W, X, U from bits 0..4; A and D together from bit 5. */
            uint64_t pte = (flags & 31) | (flags & 32 ? PTE_A | PTE_D : 0);
            if (level != 0 && level != levels - 1 && (flags & 0x21) != 0x21)
                continue; /* the rest at the lowest and the highest level only */
            paging_map(address, target_page & ~(size - 1), pte, level);
            fence_translation();
            reset_target();
            text = label(levels_name(levels),
                         level == 0   ? " level 0 flags "
                         : level == 1 ? " level 1 flags "
                         : level == 2 ? " level 2 flags "
                         : level == 3 ? " level 3 flags "
                                      : " level 4 flags ",
                         flags);
            try_all(text, inside);
        }
        *paging_entry(address, level) = 0;
        fence_translation();
    }
}

/* Superpages whose physical address is not a multiple of their size. */
static void misaligned_superpages(unsigned levels)
{
    for (unsigned level = 1; level < levels; level++) {
        uint64_t address = probe_address(levels, level);
        uint64_t size = 0x1000UL << (9 * level);
        paging_map(address, (target_page & ~(size - 1)) + 0x1000, everything & ~PTE_U, level);
        fence_translation();
        try(label(levels_name(levels), " misaligned superpage at level ", level), MODE_S, load,
            address, 0);
        *paging_entry(address, level) = 0;
    }
    fence_translation();
}

static void reserved_bits(unsigned levels)
{
    uint64_t address = probe_address(levels, 0);

    /* Leaf bits 54 to 63: reserved, PBMT, N. */
    for (unsigned bit = 54; bit < 64; bit++) {
        uint64_t *entry = paging_map(address, target_page, everything & ~PTE_U, 0);
        *entry |= 1UL << bit;
        fence_translation();
        try(label(levels_name(levels), " leaf with bit ", bit), MODE_S, load, address, 0);
    }
    paging_map(address, target_page, everything & ~PTE_U, 0);
    /* Pointers to tables: the same bits, and those that only leaves may have. */
    uint64_t *pointer = paging_entry(address, 1), good = *pointer;
    for (unsigned bit = 4; bit < 64; bit++) {
        if (bit >= 8 && bit < 54)
            continue;
        *pointer = good | 1UL << bit;
        fence_translation();
        try(label(levels_name(levels), " pointer with bit ", bit), MODE_S, load, address, 0);
    }
    *pointer = good;
    /* No leaf at the last level. */
    paging_map(address, target_page, PTE_V, 0);
    fence_translation();
    try(label(levels_name(levels), " pointer at level ", 0), MODE_S, load, address, 0);
    /* Tables and leaves where there is no memory. */
    paging_map(address, 0x90000000, everything & ~PTE_U, 0);
    fence_translation();
    try(label(levels_name(levels), " leaf to nowhere, load, ", 0), MODE_S, load, address, 0);
    try(label(levels_name(levels), " leaf to nowhere, store, ", 0), MODE_S, store, address, 0);
    try(label(levels_name(levels), " leaf to nowhere, jump, ", 0), MODE_S, jump, address, 0);
    *pointer = 0x90000000 >> 12 << 10 | PTE_V;
    fence_translation();
    try(label(levels_name(levels), " table nowhere, load, ", 0), MODE_S, load, address, 0);
    try(label(levels_name(levels), " table nowhere, store, ", 0), MODE_S, store, address, 0);
    try(label(levels_name(levels), " table nowhere, jump, ", 0), MODE_S, jump, address, 0);
    *pointer = good;
    *paging_entry(address, 0) = 0;
    fence_translation();
}

static void canonical_addresses(unsigned levels)
{
    unsigned bits = 12 + 9 * levels;
    uint64_t address = probe_address(levels, 0);
    uint64_t top = -0x1000UL * 3; /* the highest pages */

    paging_map(address, target_page, everything & ~PTE_U, 0);
    paging_map(top, target_page, everything & ~PTE_U, 0);
    fence_translation();
    for (unsigned bit = bits - 1; bit < 64; bit++) {
        uint64_t wrong = address ^ 1UL << bit;
        try(label(levels_name(levels), " load, address bit ", bit), MODE_S, load, wrong, 0);
        if (bit > bits - 1)
            try(label(levels_name(levels), " jump, address bit ", bit), MODE_S, jump, wrong, 0);
        try(label(levels_name(levels), " load at the top, address bit ", bit), MODE_S, load,
            top ^ 1UL << bit, 0);
    }
    try(label(levels_name(levels), " load at the top", 0), MODE_S, load, top, 0);
    try(label(levels_name(levels), " store at the top", 0), MODE_S, store, top, 0);
    *paging_entry(address, 0) = 0;
    *paging_entry(top, 0) = 0;
    fence_translation();
}

static void status_bits(unsigned levels)
{
    uint64_t address = probe_address(levels, 0);
    static const uint64_t kinds[] = {PTE_R, PTE_R | PTE_W, PTE_X, PTE_R | PTE_X,
                                     PTE_R | PTE_W | PTE_X};
    const char *text;

    for (unsigned kind = 0; kind < 5; kind++)
        for (unsigned user = 0; user < 2; user++)
            for (unsigned bits = 0; bits < 4; bits++) {
                reset_target();
                paging_map(address, target_page,
                           kinds[kind] | (user ? PTE_U : 0) | PTE_V | PTE_A | PTE_D, 0);
                fence_translation();
                csr_clear("mstatus", MSTATUS_SUM | MSTATUS_MXR);
                csr_set("mstatus", (uint64_t)bits << 18);
                text = label(levels_name(levels), " SUM and MXR ", bits * 100 + user * 10 + kind);
                try_all(text, address);
                for (unsigned mode = MODE_U; mode <= MODE_M; mode++) {
                    if (mode == 2)
                        continue;
                    /* M-mode sees no translation: an address that is RAM. */
                    uint64_t seen = mode == MODE_M ? target_page : address;
                    try(label(text, ", MPRV load as ", mode), MODE_M, load_as, seen, mode);
                    csr_clear("mstatus", MSTATUS_MPRV);
                    try(label(text, ", MPRV store as ", mode), MODE_M, store_as, seen, mode);
                    csr_clear("mstatus", MSTATUS_MPRV);
                }
            }
    csr_clear("mstatus", MSTATUS_SUM | MSTATUS_MXR);
    *paging_entry(address, 0) = 0;
    fence_translation();
}

/* A and D: a page fault (Svade), or set by the hart when menvcfg.ADUE is (Svadu). */
static void accessed_and_dirty(unsigned levels)
{
    static const struct {
        const char *name;
        code *code;
    } accesses[] = {
        {" load ", load}, {" store ", store}, {" amo ", amo}, {" lr ", reserve}, {" jump ", jump}};
    const char *text;

    for (unsigned update = 0; update < 2; update++) {
        if (update)
            csr_set("menvcfg", 1UL << 61);
        else
            csr_clear("menvcfg", 1UL << 61);
        for (unsigned level = 0; level < 2; level++)
            for (unsigned state = 0; state < 4; state++)
                for (unsigned i = 0; i < 5; i++) {
                    uint64_t address = probe_address(levels, level);
                    uint64_t size = 0x1000UL << (9 * level);
                    uint64_t *entry =
                        paging_map(address, target_page & ~(size - 1),
                                   PTE_V | PTE_R | PTE_W | PTE_X | (uint64_t)state << 6, level);
                    reset_target();
                    fence_translation();
                    text = label(levels_name(levels), update ? " Svadu" : " Svade",
                                 level * 10 + state);
                    text = label(text, accesses[i].name, 0);
                    try(text, MODE_S, accesses[i].code, address + (target_page & (size - 1)), 5);
                    value(label(text, " entry after it ", 0), *entry & 0x3ff);
                    *entry = 0;
                }
        /* A read-only page is not made dirty by a store that faults. */
        uint64_t address = probe_address(levels, 0);
        uint64_t *entry = paging_map(address, target_page, PTE_V | PTE_R, 0);
        fence_translation();
        try(label(levels_name(levels), " store to a clean read-only page ", update), MODE_S, store,
            address, 0);
        value(label(levels_name(levels), " its entry after it ", update), *entry & 0x3ff);
        /* Writes after a read through the same translation still set D. */
        entry = paging_map(address, target_page, PTE_V | PTE_R | PTE_W, 0);
        fence_translation();
        try(label(levels_name(levels), " read first ", update), MODE_S, load, address, 0);
        value(label(levels_name(levels), " entry after the read ", update), *entry & 0x3ff);
        try(label(levels_name(levels), " then write ", update), MODE_S, store, address, 0);
        value(label(levels_name(levels), " entry after the write ", update), *entry & 0x3ff);
        *entry = 0;
        fence_translation();
    }
    csr_clear("menvcfg", 1UL << 61);
}

static void napot_and_memory_types(unsigned levels)
{
    uint64_t address = probe_address(levels, 0) & ~0xffffUL;
    const char *text;

    /* Sixteen entries, each with the size in the low bits of its page number. */
    for (unsigned pattern = 0; pattern < 16; pattern++) {
        for (unsigned i = 0; i < 16; i++) {
            uint64_t *entry = paging_map(address + 0x1000 * i, 0x80000000, everything & ~PTE_U, 0);
            *entry |= PTE_N | (uint64_t)pattern << 10;
        }
        fence_translation();
        text = label(levels_name(levels), " napot pattern ", pattern);
        try(text, MODE_S, load, address + 0x3008, 0);
        value(label(text, ", memory there ", 0), read64(0x80003008));
        try(label(text, ", last page ", 0), MODE_S, load, address + 0xf010, 0);
        value(label(text, ", memory at the last page ", 0), read64(0x8000f010));
    }
    for (unsigned level = 1; level < levels; level++) {
        uint64_t large = probe_address(levels, level);
        uint64_t *entry = paging_map(large, 0, everything & ~PTE_U, level);
        *entry |= PTE_N | 8 << 10;
        fence_translation();
        try(label(levels_name(levels), " napot at level ", level), MODE_S, load,
            large + 0x80000000 % (0x1000UL << (9 * level)), 0);
        *entry = 0;
    }
    for (unsigned enabled = 0; enabled < 2; enabled++) {
        if (enabled)
            csr_set("menvcfg", 1UL << 62);
        else
            csr_clear("menvcfg", 1UL << 62);
        for (unsigned type = 0; type < 4; type++) {
            uint64_t *entry = paging_map(address, target_page, everything & ~PTE_U, 0);
            *entry |= (uint64_t)type << 61;
            fence_translation();
            try(label(levels_name(levels), " memory type ", type * 10 + enabled), MODE_S, load,
                address, 0);
            *entry = 0;
            uint64_t *pointer = paging_entry(address, 1);
            uint64_t good = *pointer;
            paging_map(address, target_page, everything & ~PTE_U, 0);
            *pointer |= (uint64_t)type << 61;
            fence_translation();
            try(label(levels_name(levels), " memory type in a pointer ", type * 10 + enabled),
                MODE_S, load, address, 0);
            *pointer = good;
        }
    }
    csr_clear("menvcfg", 1UL << 62);
    for (unsigned i = 0; i < 16; i++)
        *paging_entry(address + 0x1000 * i, 0) = 0;
    fence_translation();
}

CODE(load_fence_load, "ld t0, 0(a0)\nsd a1, 0(a2)\nsfence.vma a0, x0\nld a0, 0(a0)")

/* What a fence must make visible. (What is seen before a fence is not determined.) */
static void fences(unsigned levels)
{
    uint64_t address = probe_address(levels, 0);
    uint64_t *entry = paging_map(address, target_page, everything & ~PTE_U, 0);

    reset_target();
    fence_translation();
    try(label(levels_name(levels), " before the change", 0), MODE_S, load, address, 0);
    for (unsigned kind = 0; kind < 6; kind++) {
        paging_map(address, target_page + (kind & 1 ? 0 : 0x1000), everything & ~PTE_U, 0);
        switch (kind) {
        case 0:
            __asm__ volatile("sfence.vma" ::: "memory");
            break;
        case 1:
            __asm__ volatile("sfence.vma %0, x0" ::"r"(address) : "memory");
            break;
        case 2:
            __asm__ volatile("sfence.vma x0, %0" ::"r"(0UL) : "memory");
            break;
        case 3:
            __asm__ volatile("sfence.vma %0, %1" ::"r"(address), "r"(0UL) : "memory");
            break;
        case 4:
            __asm__ volatile(".option push\n.option arch, +svinval\nsfence.w.inval\n"
                             "sinval.vma %0, x0\nsfence.inval.ir\n.option pop" ::"r"(address)
                             : "memory");
            break;
        case 5:
            __asm__ volatile(".option push\n.option arch, +svinval\nsfence.w.inval\n"
                             "sinval.vma x0, x0\nsfence.inval.ir\n.option pop" ::
                                 : "memory");
            break;
        }
        try(label(levels_name(levels), " after fence ", kind), MODE_S, load, address, 0);
    }
    /* A mapping that was invalid, then valid. */
    *entry = 0;
    fence_translation();
    try(label(levels_name(levels), " invalid", 0), MODE_S, load, address, 0);
    paging_map(address, target_page, everything & ~PTE_U, 0);
    fence_translation();
    try(label(levels_name(levels), " valid again", 0), MODE_S, load, address, 0);
    /* Executable code that moves. */
    try(label(levels_name(levels), " jump there", 0), MODE_S, jump, address, 0);
    target[512] = 0x0000000000100073; /* ebreak in the second page */
    __asm__ volatile("fence.i");
    paging_map(address, target_page + 0x1000, everything & ~PTE_U, 0);
    fence_translation();
    try(label(levels_name(levels), " jump there after the page changed", 0), MODE_S, jump, address,
        0);
    *entry = 0;
    fence_translation();
}

/* ASIDs: each has its own translation of a page that is not global. */
static void address_spaces(unsigned levels)
{
    uint64_t address = probe_address(levels, 0);
    uint64_t satp = csr_read("satp");

    paging_map(address, target_page, everything & ~PTE_U, 0);
    csr_write("satp", satp | 1UL << 44);
    fence_translation();
    value(label(levels_name(levels), " ASID 1 kept", 0), csr_read("satp") >> 44 & 1);
    try(label(levels_name(levels), " in ASID 1", 0), MODE_S, load, address, 0);
    paging_map(address, target_page + 0x1000, everything & ~PTE_U, 0);
    csr_write("satp", satp | 2UL << 44);
    __asm__ volatile("sfence.vma x0, %0" ::"r"(2UL) : "memory");
    try(label(levels_name(levels), " in ASID 2", 0), MODE_S, load, address, 0);
    csr_write("satp", satp | 1UL << 44);
    __asm__ volatile("sfence.vma x0, %0" ::"r"(1UL) : "memory");
    try(label(levels_name(levels), " in ASID 1 after its fence", 0), MODE_S, load, address, 0);
    csr_write("satp", satp);
    fence_translation();
    *paging_entry(address, 0) = 0;
    fence_translation();
}

/* Accesses and instructions across two pages of which one, or none, is there. */
static void boundaries(unsigned levels)
{
    uint64_t address = probe_address(levels, 1);
    const uint64_t kinds[] = {0, PTE_V | PTE_R | PTE_A, everything & ~PTE_U};
    const char *text;

    for (unsigned first = 0; first < 3; first++)
        for (unsigned second = 0; second < 3; second++) {
            reset_target();
            paging_map(address, target_page, kinds[first], 0);
            paging_map(address + 0x1000, target_page + 0x1000, kinds[second], 0);
            fence_translation();
            for (unsigned offset = 0xff8; offset <= 0x1000; offset++) {
                text = label(levels_name(levels), " across, ",
                             first * 10 + second + 100 * (offset - 0xff8));
                try(label(text, " load ", 0), MODE_S, load, address + offset, 0);
                try(label(text, " store ", 0), MODE_S, store, address + offset, 0x1112131415161718);
                value(label(text, " low ", 0), target[511]);
                value(label(text, " high ", 0), target[512]);
            }
            /* A 4-byte ecall, then 4-byte nop, in the last two bytes of the first page. */
            uint16_t *halves = (uint16_t *)target;
            halves[2047] = 0x0013;
            halves[2048] = 0x0000;
            halves[2049] = 0x0073;
            halves[2050] = 0x0000;
            __asm__ volatile("fence.i");
            text = label(levels_name(levels), " instruction across, ", first * 10 + second);
            try(text, MODE_S, jump, address + 0xffe, 0);
        }
    *paging_entry(address, 0) = 0;
    *paging_entry(address + 0x1000, 0) = 0;
    fence_translation();
}

/* satp keeps its value when the mode is not there. */
static void modes(void)
{
    for (uint64_t mode = 0; mode < 16; mode++) {
        csr_write("satp", 0);
        csr_write("satp", mode << 60 | 0x80000);
        value(label("satp mode ", "", mode), csr_read("satp") >> 60);
    }
    csr_write("satp", 0);
}

int main(void)
{
    modes();
    for (unsigned levels = 3; levels <= 5; levels++) {
        paging_start(levels);
        reset_target();
        paging_on();
        permissions(levels);
        misaligned_superpages(levels);
        reserved_bits(levels);
        canonical_addresses(levels);
        status_bits(levels);
        accessed_and_dirty(levels);
        napot_and_memory_types(levels);
        fences(levels);
        address_spaces(levels);
        boundaries(levels);
        paging_off();
    }
    return 0;
}
