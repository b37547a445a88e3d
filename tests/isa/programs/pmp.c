/* Physical memory protection: 16 entries, every mode and permission, TOR, NA4 and NAPOT, priority,
 * locks, M-mode, MPRV, accesses across a boundary, and what page walks meet. */
#include "runtime.h"

CODE(load, "ld a0, 0(a0)")
CODE(store, "sd a1, 0(a0)")
CODE(amo, "amoadd.d a0, a1, (a0)")
CODE(jump, "jr a0")
/* As the mode a1. */
CODE(load_mprv, "li t0, 0x1800\ncsrc mstatus, t0\nslli a1, a1, 11\ncsrs mstatus, a1\n"
                "li t0, 1 << 17\ncsrs mstatus, t0\nld a0, 0(a0)\ncsrc mstatus, t0")

static uint64_t area[4096] __attribute__((aligned(32768)));

/* What registers are made of on RV64; QEMU keeps the reserved bits, too. */
#define ADDRESS_BITS 0x3fffffffffffffUL
#define RESERVED     0x60

enum { R = 1, W = 2, X = 4, TOR = 1 << 3, NA4 = 2 << 3, NAPOT = 3 << 3, L = 1 << 7 };

/* pmpaddr and pmpcfg by number. */
static void set_address(unsigned entry, uint64_t v)
{
#define ENTRY(n)                                                                                   \
    case n:                                                                                        \
        csr_write("pmpaddr" #n, v);                                                                \
        break;
    switch (entry) {
        ENTRY(0)
        ENTRY(1)
        ENTRY(2)
        ENTRY(3)
        ENTRY(4)
        ENTRY(5)
        ENTRY(6)
        ENTRY(7)
        ENTRY(8)
        ENTRY(9)
        ENTRY(10)
        ENTRY(11)
        ENTRY(12)
        ENTRY(13)
        ENTRY(14)
        ENTRY(15)
    }
#undef ENTRY
}

static uint64_t get_address(unsigned entry)
{
#define ENTRY(n)                                                                                   \
    case n:                                                                                        \
        return csr_read("pmpaddr" #n);
    switch (entry) {
        ENTRY(0)
        ENTRY(1)
        ENTRY(2)
        ENTRY(3)
        ENTRY(4)
        ENTRY(5)
        ENTRY(6)
        ENTRY(7)
        ENTRY(8)
        ENTRY(9)
        ENTRY(10)
        ENTRY(11)
        ENTRY(12)
        ENTRY(13)
        ENTRY(14)
        ENTRY(15)
    }
#undef ENTRY
    return 0;
}

static void set_config(unsigned entry, unsigned config)
{
    uint64_t mask = 0xffUL << (8 * (entry % 8)), v = (uint64_t)config << (8 * (entry % 8));
    if (entry < 8)
        csr_write("pmpcfg0", (csr_read("pmpcfg0") & ~mask) | v);
    else
        csr_write("pmpcfg2", (csr_read("pmpcfg2") & ~mask) | v);
}

static unsigned get_config(unsigned entry)
{
    uint64_t v = entry < 8 ? csr_read("pmpcfg0") : csr_read("pmpcfg2");
    return v >> (8 * (entry % 8)) & 0xff;
}

/* Everything else stays open through the last entry. */
static void reset(void)
{
    for (unsigned i = 0; i < 15; i++) {
        set_config(i, 0);
        set_address(i, 0);
    }
    set_address(15, ~0UL);
    set_config(15, NAPOT | R | W | X);
    for (unsigned i = 0; i < 4096; i++)
        area[i] = 0x73; /* ecall, then illegal */
    fence_translation();
}

static uint64_t napot(uint64_t base, uint64_t size)
{
    return (base | (size / 2 - 1)) >> 2;
}

static void try_all(const char *name, uint64_t address)
{
    static const struct {
        const char *name;
        code *code;
    } accesses[] = {{" load ", load}, {" store ", store}, {" amo ", amo}, {" jump ", jump}};

    fence_translation();
    for (unsigned i = 0; i < 4; i++)
        for (unsigned mode = MODE_U; mode <= MODE_M; mode++) {
            if (mode == 2)
                continue;
            try(label(name, accesses[i].name, mode), mode, accesses[i].code, address, 0);
        }
}

static void permissions(void)
{
    for (unsigned permission = 0; permission < 8; permission++) {
        if ((permission & 3) == W)
            continue; /* reserved: what is kept of it is the implementation's choice */
        reset();
        set_address(3, napot((uint64_t)area, 4096));
        set_config(3, NAPOT | permission);
        value(label("permission ", ", configuration ", permission), get_config(3));
        try_all(label("permission ", "", permission), (uint64_t)area + 512);
        try_all(label("outside of permission ", "", permission), (uint64_t)area + 4096);
        for (unsigned mode = MODE_U; mode <= MODE_S; mode++) {
            try(label("MPRV with permission ", "", permission * 10 + mode), MODE_M, load_mprv,
                (uint64_t)area + 512, mode);
            csr_clear("mstatus", MSTATUS_MPRV);
        }
    }
    reset();
}

static void ranges(void)
{
    const uint64_t base = (uint64_t)area;
    static const uint64_t sizes[] = {8, 16, 64, 256, 4096, 8192, 16384};

    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint64_t size = sizes[i];
        reset();
        set_address(2, napot(base + size, size));
        set_config(2, NAPOT | R);
        fence_translation();
        try(label("NAPOT, before ", "", size), MODE_S, store, base + size - 8, 0);
        try(label("NAPOT, first ", "", size), MODE_S, store, base + size, 0);
        try(label("NAPOT, last ", "", size), MODE_S, store, base + 2 * size - 8, 0);
        try(label("NAPOT, behind ", "", size), MODE_S, store, base + 2 * size, 0);
        reset();
        set_address(4, (base + size) >> 2);
        set_address(5, (base + size + 24) >> 2);
        set_config(5, TOR | R);
        fence_translation();
        for (unsigned offset = 0; offset < 48; offset += 8)
            try(label("TOR ", "", size * 100 + offset), MODE_S, store, base + size - 8 + offset, 0);
    }
    /* From zero; empty; backwards. */
    reset();
    set_address(0, (base + 16) >> 2);
    set_config(0, TOR | R | X);
    fence_translation();
    try("TOR from zero, below", MODE_U, store, base + 8, 0);
    try("TOR from zero, above", MODE_U, store, base + 16, 0);
    reset();
    set_address(1, (base + 16) >> 2);
    set_address(2, (base + 16) >> 2);
    set_config(2, TOR);
    fence_translation();
    try("TOR, empty", MODE_U, load, base + 16, 0);
    set_address(2, base >> 2);
    fence_translation();
    try("TOR, backwards", MODE_U, load, base + 8, 0);
    /* Four bytes. */
    reset();
    set_address(1, (base + 64) >> 2);
    set_config(1, NA4);
    fence_translation();
    for (unsigned offset = 48; offset <= 72; offset += 4)
        try(label("NA4, load at ", "", offset), MODE_U, load, base + offset, 0);
    value("NA4, configuration", get_config(1));
    reset();
}

static void priority(void)
{
    const uint64_t base = (uint64_t)area;

    for (unsigned order = 0; order < 2; order++) {
        reset();
        set_address(order ? 9 : 6, napot(base, 4096));
        set_config(order ? 9 : 6, NAPOT | R);
        set_address(order ? 6 : 9, napot(base, 64));
        set_config(order ? 6 : 9, NAPOT | R | W);
        fence_translation();
        try(label("lowest number wins ", "", order), MODE_U, store, base, 0);
        try(label("lowest number wins, outside of the smaller ", "", order), MODE_U, store,
            base + 64, 0);
    }
    /* An access must lie wholly in the entry that matches. */
    reset();
    set_address(7, napot(base, 64));
    set_config(7, NAPOT | R | W);
    fence_translation();
    try("across the end of an entry, U-mode", MODE_U, load, base + 60, 0);
    try("across the end of an entry, M-mode", MODE_M, load, base + 60, 0);
    try("across the start of an entry, U-mode", MODE_U, load, base - 4, 0);
    reset();
    /* No entry matches. */
    set_config(15, 0);
    fence_translation();
    try("no entry, U-mode", MODE_U, load, base, 0);
    try("no entry, S-mode", MODE_S, load, base, 0);
    try("no entry, M-mode", MODE_M, load, base, 0);
    reset();
}

/* Page tables that PMP forbids to read, and to write for A and D. */
static void page_walks(void)
{
    const uint64_t all = PTE_V | PTE_R | PTE_W | PTE_X | PTE_A | PTE_D;
    const uint64_t address = 0x2140000000UL;

    reset();
    paging_start(3);
    uint64_t *entry = paging_map(address, (uint64_t)area, all, 0);
    paging_on();
    try("walk, allowed", MODE_S, load, address, 0);
    uint64_t table = (uint64_t)entry & ~0xfffUL;
    set_address(0, napot(table, 4096));
    set_config(0, NAPOT);
    fence_translation();
    try("walk, table not readable, load", MODE_S, load, address, 0);
    try("walk, table not readable, store", MODE_S, store, address, 0);
    try("walk, table not readable, amo", MODE_S, amo, address, 0);
    try("walk, table not readable, jump", MODE_S, jump, address, 0);
    set_config(0, NAPOT | R);
    fence_translation();
    try("walk, table read-only", MODE_S, load, address, 0);
    /* The page itself. */
    set_address(0, napot((uint64_t)area, 4096));
    set_config(0, NAPOT | R);
    fence_translation();
    try("page readable, load", MODE_S, load, address, 0);
    try("page readable, store", MODE_S, store, address, 0);
    try("page readable, jump", MODE_S, jump, address, 0);
    paging_off();
    reset();
}

static void registers(void)
{
    reset();
    for (unsigned i = 0; i < 15; i++) {
        set_address(i, ~0UL);
        value(label("pmpaddr of ones ", "", i), get_address(i) & ADDRESS_BITS);
        set_address(i, 0x123456789abcdUL * (i + 1));
        value(label("pmpaddr ", "", i), get_address(i) & ADDRESS_BITS);
        set_config(i, 0x60);
        value(label("pmpcfg, reserved bits ", "", i), get_config(i) & ~RESERVED);
        set_config(i, NA4 | R);
        value(label("pmpcfg NA4 ", "", i), get_config(i));
        value(label("pmpaddr under NA4 ", "", i), get_address(i));
        set_config(i, NAPOT | X);
        value(label("pmpcfg NAPOT ", "", i), get_config(i));
        value(label("pmpaddr under NAPOT ", "", i), get_address(i));
        set_config(i, 0);
    }
    value("pmpcfg0", csr_read("pmpcfg0"));
    value("pmpcfg2", csr_read("pmpcfg2"));
    reset();
}

/* Last: locks stay. Entries 8 and 10, and 9 as the base of 10. */
static void locks(void)
{
    const uint64_t base = (uint64_t)area;

    reset();
    set_address(8, napot(base, 4096));
    set_config(8, NAPOT | R | L);
    fence_translation();
    try_all("locked read-only", base + 8);
    set_address(8, 0);
    set_config(8, 0);
    value("locked address", get_address(8) == napot(base, 4096));
    value("locked configuration", get_config(8));
    set_address(9, (base + 8192) >> 2);
    set_address(10, (base + 8192 + 64) >> 2);
    set_config(10, TOR | X | L);
    fence_translation();
    try_all("locked execute-only", base + 8192 + 8);
    set_address(9, 0);
    value("address below a locked TOR", get_address(9) == (base + 8192) >> 2);
    set_config(9, NAPOT | R);
    value("configuration below a locked TOR", get_config(9));
    set_config(9, 0);
    fence_translation();
    try_all("behind the locked range", base + 8192 + 64);
    /* One register, some of it locked. */
    csr_write("pmpcfg2", 0x1f1f1f1f1f1f1f1fUL);
    value("pmpcfg2 with locked parts", csr_read("pmpcfg2"));
    csr_write("pmpcfg2", 0x1f00000000000000UL);
}

int main(void)
{
    registers();
    permissions();
    ranges();
    priority();
    page_walks();
    locks();
    return 0;
}
