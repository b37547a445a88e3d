/* Page walks of every mode, the TLB's coherence rules, PMP, and what accesses do at the edges. */
#include "hart_guest.h"

#define V BIT(0)
#define R BIT(1)
#define W BIT(2)
#define X BIT(3)
#define U BIT(4)
#define A BIT(6)
#define D BIT(7)
#define N BIT(63)

#define MPRV BIT(17)
#define SUM  BIT(18)
#define MXR  BIT(19)

#define TABLES (RAM + 0x100000) /* one page of page table a level */
#define PAGE   (RAM + 0x200000) /* what is mapped: 2 MiB-aligned */
#define GIGA   UINT64_C(0x80000000)

static struct guest guest;

static void start(const char *cpu)
{
    guest_init(&guest, 1, cpu, NULL);
    guest_open(&guest);
}

static uint64_t pte(uint64_t gpa, uint64_t flags)
{
    return gpa >> 12 << 10 | flags;
}

static uint64_t table_at(unsigned level)
{
    return TABLES + 0x1000 * level;
}

/* Maps va by a leaf at `level` of the tree of `levels`; returns the leaf's address. */
static uint64_t map(unsigned levels, uint64_t va, unsigned level, uint64_t leaf)
{
    for (unsigned i = levels - 1; i > level; i--)
        guest_store(&guest, table_at(i) + 8 * bits_get(va, 12 + 9 * i, 9), pte(table_at(i - 1), V));
    uint64_t at = table_at(level) + 8 * bits_get(va, 12 + 9 * level, 9);
    guest_store(&guest, at, leaf);
    return at;
}

static uint64_t satp(unsigned levels, unsigned asid)
{
    return (uint64_t)(levels + 5) << 60 | (uint64_t)asid << 44 | table_at(levels - 1) >> 12;
}

static void use(unsigned levels, unsigned asid)
{
    guest_set_csr(&guest, "satp", satp(levels, asid));
}

/* Translates as S-mode would. */
static enum trap_cause cause_of(uint64_t va, enum access access)
{
    uint64_t gpa;
    return hart_translate(guest.hart, va, access, PRIVILEGE_SUPERVISOR, &gpa);
}

static void every_mode_and_level_translates(void **state)
{
    start(NULL);
    for (unsigned levels = 3; levels <= 5; levels++)
        for (unsigned level = 0; level < 3; level++) {
            uint64_t span = UINT64_C(0x1000) << 9 * level;
            uint64_t target = align_down(PAGE, span);
            /* In the upper half, in the last page of its span. */
            uint64_t va = -(UINT64_C(1) << (12 + 9 * levels - 1)) + 2 * GIGA + span - 0x1000 + 0x38;
            uint64_t gpa = 0;
            use(levels, 0);
            map(levels, va, level, pte(target, V | R | W | X | A | D));
            assert_int_equal(
                hart_translate(guest.hart, va, ACCESS_LOAD, PRIVILEGE_SUPERVISOR, &gpa), TRAP_NONE);
            assert_int_equal(gpa, target + (va & (span - 1)));
            /* Not canonical. */
            assert_int_equal(cause_of(va & (BIT(12 + 9 * levels) - 1), ACCESS_LOAD),
                             TRAP_LOAD_PAGE);
        }
    guest_finish(&guest);
}

static void each_fault_is_found(void **state)
{
    enum { PAGE_FAULT = 0, FINE = 1 };
    static const struct {
        const char *what;
        uint64_t leaf, status;
        unsigned level;
        enum access access;
        int result;
    } cases[] = {
        {"a readable page", V | R | A, 0, 0, ACCESS_LOAD, FINE},
        {"not valid", R | A, 0, 0, ACCESS_LOAD, PAGE_FAULT},
        {"writable, not readable", V | W | A | D, 0, 0, ACCESS_STORE, PAGE_FAULT},
        {"writable, executable, not readable", V | W | X | A | D, 0, 0, ACCESS_FETCH, PAGE_FAULT},
        {"a store to a read-only page", V | R | A | D, 0, 0, ACCESS_STORE, PAGE_FAULT},
        {"a store", V | R | W | A | D, 0, 0, ACCESS_STORE, FINE},
        {"a fetch", V | X | A, 0, 0, ACCESS_FETCH, FINE},
        {"a fetch from data", V | R | W | A | D, 0, 0, ACCESS_FETCH, PAGE_FAULT},
        {"a load from code", V | X | A, 0, 0, ACCESS_LOAD, PAGE_FAULT},
        {"a load from code with MXR", V | X | A, MXR, 0, ACCESS_LOAD, FINE},
        {"a user page", V | R | U | A, 0, 0, ACCESS_LOAD, PAGE_FAULT},
        {"a user page with SUM", V | R | U | A, SUM, 0, ACCESS_LOAD, FINE},
        {"code of a user page with SUM", V | X | U | A, SUM, 0, ACCESS_FETCH, PAGE_FAULT},
        {"A is clear", V | R, 0, 0, ACCESS_LOAD, PAGE_FAULT},
        {"D is clear", V | R | W | A, 0, 0, ACCESS_STORE, PAGE_FAULT},
        {"D is clear for a load", V | R | W | A, 0, 0, ACCESS_LOAD, FINE},
        {"a reserved bit", V | R | A | BIT(54), 0, 0, ACCESS_LOAD, PAGE_FAULT},
        {"a memory type without PBMTE", V | R | A | BIT(61), 0, 0, ACCESS_LOAD, PAGE_FAULT},
        {"a table in the last level", V, 0, 0, ACCESS_LOAD, PAGE_FAULT},
        {"a superpage", V | R | A, 0, 1, ACCESS_LOAD, FINE},
        {"a misaligned superpage", V | R | A | BIT(10), 0, 1, ACCESS_LOAD, PAGE_FAULT},
        {"NAPOT without its pattern", V | R | A | N, 0, 0, ACCESS_LOAD, PAGE_FAULT},
        {"NAPOT of 64 KiB", V | R | A | N | BIT(13), 0, 0, ACCESS_LOAD, FINE},
        {"a NAPOT superpage", V | R | A | N, 0, 1, ACCESS_LOAD, PAGE_FAULT},
        {"a table with A", V | A, 0, 1, ACCESS_LOAD, PAGE_FAULT},
        {"a table with D", V | D, 0, 1, ACCESS_LOAD, PAGE_FAULT},
        {"a table with U", V | U, 0, 1, ACCESS_LOAD, PAGE_FAULT},
        {"a table with N", V | N, 0, 1, ACCESS_LOAD, PAGE_FAULT},
    };
    static const enum trap_cause faults[] = {TRAP_LOAD_PAGE, TRAP_STORE_PAGE, TRAP_FETCH_PAGE};
    start(NULL);
    use(3, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        guest.hart->mstatus = (guest.hart->mstatus & ~(SUM | MXR)) | cases[i].status;
        map(3, GIGA, cases[i].level, pte(PAGE, cases[i].leaf));
        enum trap_cause expected = cases[i].result == FINE ? TRAP_NONE : faults[cases[i].access];
        if (cause_of(GIGA, cases[i].access) != expected)
            fail_msg("%s: %d", cases[i].what, cause_of(GIGA, cases[i].access));
    }

    /* A page table where there is no memory, and one in device registers. */
    map(3, GIGA, 1, pte(0, V));
    assert_int_equal(cause_of(GIGA, ACCESS_STORE), TRAP_STORE_ACCESS);
    map(3, GIGA, 1, pte(MMIO, V));
    assert_int_equal(cause_of(GIGA, ACCESS_FETCH), TRAP_FETCH_ACCESS);

    guest_set_csr(&guest, "menvcfg", BIT(62)); /* PBMTE */
    map(3, GIGA, 0, pte(PAGE, V | R | A | BIT(61)));
    assert_int_equal(cause_of(GIGA, ACCESS_LOAD), TRAP_NONE);
    map(3, GIGA, 0, pte(PAGE, V | R | A | BIT(61) | BIT(62)));
    assert_int_equal(cause_of(GIGA, ACCESS_LOAD), TRAP_LOAD_PAGE);
    guest_finish(&guest);
}

static void user_pages_are_for_users(void **state)
{
    uint64_t gpa;
    start(NULL);
    use(4, 0);
    map(4, GIGA, 0, pte(PAGE, V | R | X | A));
    assert_int_equal(hart_translate(guest.hart, GIGA, ACCESS_LOAD, PRIVILEGE_USER, &gpa),
                     TRAP_LOAD_PAGE);
    map(4, GIGA, 0, pte(PAGE, V | R | X | A | U));
    assert_int_equal(hart_translate(guest.hart, GIGA, ACCESS_FETCH, PRIVILEGE_USER, &gpa),
                     TRAP_NONE);
    assert_int_equal(gpa, PAGE);
    guest_finish(&guest);
}

static void napot_translates_sixteen_pages(void **state)
{
    uint64_t gpa;
    start(NULL);
    use(3, 0);
    for (unsigned i = 0; i < 16; i++)
        map(3, GIGA + 0x1000 * i, 0, pte(PAGE + 0x8000, V | R | A | N));
    assert_int_equal(
        hart_translate(guest.hart, GIGA + 0xd123, ACCESS_LOAD, PRIVILEGE_SUPERVISOR, &gpa),
        TRAP_NONE);
    assert_int_equal(gpa, PAGE + 0xd123);
    guest_finish(&guest);

    start("no-svnapot");
    use(3, 0);
    map(3, GIGA, 0, pte(PAGE + 0x8000, V | R | A | N));
    assert_int_equal(cause_of(GIGA, ACCESS_LOAD), TRAP_LOAD_PAGE);
    guest_finish(&guest);
}

/* From here on with instructions: in M-mode with MPRV, so that code needs no mapping. */
static void data_as_supervisor(void)
{
    guest_set_csr(&guest, "mstatus", UINT64_C(1) << 11 | MPRV);
    guest.hart->pc = RAM;
}

static void load(uint64_t va)
{
    guest.hart->pc = RAM;
    guest.hart->x[10] = va;
    STEP(&guest, ld, .rd = 11, .rs1 = 10);
}

static void store(uint64_t va, uint64_t value)
{
    guest.hart->pc = RAM;
    guest.hart->x[10] = va;
    guest.hart->x[11] = value;
    STEP(&guest, sd, .rs1 = 10, .rs2 = 11);
}

static void hardware_sets_a_and_d(void **state)
{
    start(NULL);
    use(3, 0);
    uint64_t leaf = map(3, GIGA, 0, pte(PAGE, V | R | W));
    data_as_supervisor();
    load(GIGA);
    guest_assert_trap(&guest, TRAP_LOAD_PAGE, GIGA);

    guest_set_csr(&guest, "menvcfg", BIT(61)); /* ADUE */
    data_as_supervisor();
    load(GIGA);
    assert_int_equal(guest.hart->pc, RAM + 4);
    assert_int_equal(guest_load(&guest, leaf), pte(PAGE, V | R | W | A));
    store(GIGA, 77);
    assert_int_equal(guest_load(&guest, leaf), pte(PAGE, V | R | W | A | D));
    assert_int_equal(guest_load(&guest, PAGE), 77);

    /* A page table that PMP does not let be written. */
    guest_store(&guest, leaf, pte(PAGE, V | R | W));
    guest_set_csr(&guest, "pmpcfg0", 0x1f19);
    guest_set_csr(&guest, "pmpaddr0", TABLES >> 2 | 0x7ff); /* NAPOT 16 KiB, read only */
    guest_set_csr(&guest, "pmpaddr1", UINT64_MAX);
    data_as_supervisor();
    load(GIGA);
    guest_assert_trap(&guest, TRAP_LOAD_ACCESS, GIGA);
    assert_int_equal(guest_load(&guest, leaf), pte(PAGE, V | R | W));

    /* Permissions come first: no A for an access that faults. */
    guest_set_csr(&guest, "pmpcfg0", 0x1f00);
    guest_store(&guest, leaf, pte(PAGE, V | R));
    data_as_supervisor();
    store(GIGA, 1);
    guest_assert_trap(&guest, TRAP_STORE_PAGE, GIGA);
    assert_int_equal(guest_load(&guest, leaf), pte(PAGE, V | R));
    guest_finish(&guest);
}

static void translations_live_until_a_fence(void **state)
{
    uint64_t other = PAGE + 0x1000;
    start(NULL);
    guest_store(&guest, PAGE, 1);
    guest_store(&guest, other, 2);
    use(3, 1);
    uint64_t leaf = map(3, GIGA, 0, pte(PAGE, V | R | A));
    data_as_supervisor();
    load(GIGA);
    assert_int_equal(guest.hart->x[11], 1);

    /* Another address space does not see it, and it is still there afterwards. */
    guest_store(&guest, leaf, pte(other, V | R | A));
    use(3, 2);
    load(GIGA);
    assert_int_equal(guest.hart->x[11], 2);
    use(3, 1);
    load(GIGA);
    assert_int_equal(guest.hart->x[11], 1);

    guest.hart->x[5] = GIGA + 0x1000;
    guest.hart->x[6] = 1;
    STEP(&guest, sfence_vma, .rs1 = 5, .rs2 = 6); /* another page */
    load(GIGA);
    assert_int_equal(guest.hart->x[11], 1);
    guest.hart->x[5] = GIGA + 0x123;
    guest.hart->x[6] = 2;
    STEP(&guest, sfence_vma, .rs1 = 5, .rs2 = 6); /* another address space */
    load(GIGA);
    assert_int_equal(guest.hart->x[11], 1);
    guest.hart->x[6] = 1;
    STEP(&guest, sfence_vma, .rs1 = 5, .rs2 = 6);
    load(GIGA);
    assert_int_equal(guest.hart->x[11], 2);

    guest_store(&guest, leaf, pte(PAGE, V | R | A));
    STEP(&guest, sfence_vma);
    load(GIGA);
    assert_int_equal(guest.hart->x[11], 1);
    guest_finish(&guest);
}

/* One address covers the whole superpage that it is in. */
static void a_fence_covers_a_superpage(void **state)
{
    start(NULL);
    use(3, 0);
    uint64_t leaf = map(3, GIGA, 1, pte(PAGE, V | R | A));
    guest_store(&guest, PAGE + 0x5000, 5);
    guest_store(&guest, PAGE + 0x9000, 9);
    data_as_supervisor();
    load(GIGA + 0x5000);
    load(GIGA + 0x9000);
    guest_store(&guest, leaf, 0);
    guest.hart->x[5] = GIGA + 0x9000;
    STEP(&guest, sfence_vma, .rs1 = 5);
    data_as_supervisor();
    load(GIGA + 0x5000);
    guest_assert_trap(&guest, TRAP_LOAD_PAGE, GIGA + 0x5000);
    guest_finish(&guest);
}

static void views_of_memory_are_kept_apart(void **state)
{
    start(NULL);
    use(3, 0);
    map(3, GIGA, 0, pte(PAGE, V | R | U | A));
    guest_store(&guest, PAGE, 3);
    data_as_supervisor();
    guest_set_csr(&guest, "mstatus", guest.hart->mstatus | SUM);
    load(GIGA);
    assert_int_equal(guest.hart->x[11], 3);
    guest_set_csr(&guest, "mstatus", guest.hart->mstatus & ~SUM);
    load(GIGA);
    guest_assert_trap(&guest, TRAP_LOAD_PAGE, GIGA);
    /* The trap left MPP = M, so that MPRV has no effect: the address is a physical one. */
    load(GIGA + 0x40);
    assert_int_equal(guest.hart->pc, RAM + 4);
    assert_int_equal(guest.hart->x[11], guest_load(&guest, GIGA + 0x40));
    guest_finish(&guest);
}

static void misaligned_accesses_work_across_pages(void **state)
{
    start(NULL);
    use(3, 0);
    map(3, GIGA, 0, pte(PAGE, V | R | W | A | D));
    map(3, GIGA + 0x1000, 0, pte(PAGE + 0x5000, V | R | W | A | D));
    data_as_supervisor();
    store(GIGA + 0xffd, UINT64_C(0x1122334455667788));
    load(GIGA + 0xffd);
    assert_int_equal(guest.hart->x[11], UINT64_C(0x1122334455667788));
    assert_int_equal(guest_load(&guest, PAGE + 0xff8) >> 40, 0x667788);
    assert_int_equal(guest_load(&guest, PAGE + 0x5000), UINT64_C(0x1122334455));
    store(GIGA + 0x11, UINT64_C(0x99aabbccddeeff00)); /* within a page */
    load(GIGA + 0x11);
    assert_int_equal(guest.hart->x[11], UINT64_C(0x99aabbccddeeff00));

    /* The second page is missing: its address is reported, and the first is untouched. */
    map(3, GIGA + 0x1000, 0, 0);
    STEP(&guest, sfence_vma);
    store(GIGA + 0xffd, 0);
    guest_assert_trap(&guest, TRAP_STORE_PAGE, GIGA + 0x1000);
    assert_int_equal(guest_load(&guest, PAGE + 0xff8) >> 40, 0x667788);
    data_as_supervisor();
    load(GIGA + 0xff9);
    guest_assert_trap(&guest, TRAP_LOAD_PAGE, GIGA + 0x1000);
    guest_finish(&guest);
}

static void registers_and_atomics_have_rules(void **state)
{
    start(NULL);
    store(MMIO, 0x42);
    load(MMIO);
    assert_int_equal(guest.hart->x[11], 0x42);
    load(MMIO + 4);
    guest_assert_trap(&guest, TRAP_LOAD_ACCESS, MMIO + 4); /* misaligned */
    store(MMIO + 1, 0);
    guest_assert_trap(&guest, TRAP_STORE_ACCESS, MMIO + 1);
    load(0x1000);
    guest_assert_trap(&guest, TRAP_LOAD_ACCESS, 0x1000); /* nothing there */
    load(RAM + RAM_SIZE - 4);
    guest_assert_trap(&guest, TRAP_LOAD_ACCESS, RAM + RAM_SIZE);

    guest.hart->pc = RAM;
    guest.hart->x[10] = MMIO;
    STEP(&guest, amoadd_d, .rd = 1, .rs1 = 10, .rs2 = 0);
    guest_assert_trap(&guest, TRAP_STORE_ACCESS, MMIO);
    guest.hart->pc = RAM;
    STEP(&guest, lr_d, .rd = 1, .rs1 = 10);
    guest_assert_trap(&guest, TRAP_LOAD_ACCESS, MMIO);
    guest.hart->x[10] = PAGE + 4;
    guest.hart->pc = RAM;
    STEP(&guest, amoadd_d, .rd = 1, .rs1 = 10, .rs2 = 0);
    guest_assert_trap(&guest, TRAP_STORE_MISALIGNED, PAGE + 4);
    guest.hart->pc = RAM;
    STEP(&guest, lr_d, .rd = 1, .rs1 = 10);
    guest_assert_trap(&guest, TRAP_LOAD_MISALIGNED, PAGE + 4);
    guest.hart->pc = RAM;
    STEP(&guest, sc_d, .rd = 1, .rs1 = 10);
    guest_assert_trap(&guest, TRAP_STORE_MISALIGNED, PAGE + 4);

    guest.hart->pc = MMIO;
    hart_step(guest.hart);
    guest_assert_trap(&guest, TRAP_FETCH_ACCESS, MMIO);
    guest_finish(&guest);
}

static uint64_t watched;

static void on_watched(void *opaque, uint64_t gpa)
{
    watched = gpa;
}

static void watched_memory_is_memory(void **state)
{
    start(NULL);
    memory_watch(guest.memory, PAGE + 8, 8, on_watched, NULL);
    store(PAGE + 16, 5);
    assert_int_equal(watched, 0);
    store(PAGE + 8, 6);
    assert_int_equal(watched, PAGE + 8);
    assert_int_equal(guest_load(&guest, PAGE + 8), 6);
    guest.hart->x[10] = PAGE + 8;
    guest.hart->x[11] = 10;
    STEP(&guest, amoadd_d, .rd = 1, .rs1 = 10, .rs2 = 11);
    assert_int_equal(guest.hart->x[1], 6);
    assert_int_equal(guest_load(&guest, PAGE + 8), 16);
    guest_finish(&guest);
}

static void cache_blocks(void **state)
{
    start(NULL);
    for (unsigned i = 0; i < 24; i++)
        guest_store(&guest, PAGE + 8 * i, UINT64_MAX);
    guest.hart->x[10] = PAGE + 0x53;
    STEP(&guest, cbo_zero, .rs1 = 10);
    for (unsigned i = 0; i < 24; i++)
        assert_int_equal(guest_load(&guest, PAGE + 8 * i), i / 8 == 1 ? 0 : UINT64_MAX);

    use(3, 0);
    map(3, GIGA, 0, pte(PAGE, V | R | A));
    data_as_supervisor();
    guest.hart->x[10] = GIGA + 0x40;
    STEP(&guest, cbo_clean, .rs1 = 10); /* readable is enough */
    assert_int_equal(guest.hart->pc, RAM + 4);
    STEP(&guest, cbo_zero, .rs1 = 10);
    guest_assert_trap(&guest, TRAP_STORE_PAGE, GIGA + 0x40);

    /* Lower privileges need menvcfg, and U-mode senvcfg as well. */
    static const enum insn_op ops[] = {INSN_cbo_inval, INSN_cbo_clean, INSN_cbo_flush,
                                       INSN_cbo_zero};
    static const uint64_t fields[] = {3 << 4, 1 << 6, 1 << 6, 1 << 7};
    for (unsigned i = 0; i < 4; i++)
        for (unsigned allowed = 0; allowed < 4; allowed++)
            for (unsigned privilege = 0; privilege < 2; privilege++) {
                hart_reset(guest.hart, RAM);
                guest_open(&guest);
                guest_set_csr(&guest, "menvcfg", allowed & 1 ? fields[i] : 0);
                guest_set_csr(&guest, "senvcfg", allowed & 2 ? fields[i] : 0);
                hart_set_privilege(guest.hart, privilege);
                guest.hart->x[10] = PAGE;
                guest.at = RAM;
                guest_insn(&guest, (struct insn){.op = ops[i], .rs1 = 10});
                hart_fence_i(guest.hart);
                hart_step(guest.hart);
                bool expected = privilege == 0 ? allowed == 3 : allowed & 1;
                assert_int_equal(guest.hart->pc, expected ? RAM + 4 : HANDLER);
            }
    guest_finish(&guest);
}

/* --- PMP ------------------------------------------------------------------------------------- */

static void pmp_entries_match(void **state)
{
    static const struct {
        const char *what;
        uint8_t cfg[2];
        uint64_t addr[2];
        uint64_t va;
        bool allowed, divided;
    } cases[] = {
        {"no entry matches", {0, 0}, {0, 0}, PAGE, false},
        {"NAPOT", {0x19, 0}, {PAGE >> 2 | 0x1ff, 0}, PAGE + 0xff8, true},
        {"behind NAPOT", {0x19, 0}, {PAGE >> 2 | 0x1ff, 0}, PAGE + 0x1000, false},
        {"NA4 does not hold 8 bytes", {0x11, 0x19}, {PAGE >> 2, -1}, PAGE, false, true},
        {"NA4 elsewhere", {0x11, 0x19}, {PAGE >> 2, -1}, PAGE + 8, true},
        {"TOR", {0, 0x09}, {PAGE >> 2, (PAGE + 0x20) >> 2}, PAGE + 0x18, true},
        {"behind TOR", {0, 0x09}, {PAGE >> 2, (PAGE + 0x20) >> 2}, PAGE + 0x20, false},
        {"across the end of TOR",
         {0, 0x09},
         {PAGE >> 2, (PAGE + 0x20) >> 2},
         PAGE + 0x1c,
         false,
         true},
        {"TOR without addresses", {0, 0x09}, {PAGE >> 2, PAGE >> 2}, PAGE, false},
        {"the first entry decides", {0x18, 0x1f}, {PAGE >> 2 | 0x1ff, -1}, PAGE, false},
        {"not readable", {0x1c, 0}, {-1, 0}, PAGE, false},
    };
    start(NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        guest_set_csr(&guest, "pmpcfg0", 0);
        guest_set_csr(&guest, "pmpaddr0", cases[i].addr[0]);
        guest_set_csr(&guest, "pmpaddr1", cases[i].addr[1]);
        guest_set_csr(&guest, "pmpcfg0", cases[i].cfg[0] | cases[i].cfg[1] << 8);
        for (unsigned twice = 0; twice < 2; twice++) { /* the second time from the TLB */
            data_as_supervisor();
            load(cases[i].va);
            if ((guest.hart->pc == RAM + 4) != cases[i].allowed)
                fail_msg("%s", cases[i].what);
        }
        /* M-mode may do what no locked entry forbids, but not what an entry matches in part. */
        guest_set_csr(&guest, "mstatus", 0);
        load(cases[i].va);
        assert_int_equal(guest.hart->pc, cases[i].divided ? HANDLER : RAM + 4);
    }
    guest_finish(&guest);
}

static void locked_entries_bind_machine_mode(void **state)
{
    start(NULL);
    guest_set_csr(&guest, "pmpcfg0", 0);
    guest_set_csr(&guest, "pmpaddr0", PAGE >> 2 | 0x1ff);
    load(PAGE);
    assert_int_equal(guest.hart->pc, RAM + 4);
    guest_set_csr(&guest, "pmpcfg0", 0x99);
    load(PAGE);
    assert_int_equal(guest.hart->pc, RAM + 4);
    store(PAGE, 0);
    guest_assert_trap(&guest, TRAP_STORE_ACCESS, PAGE);
    guest_finish(&guest);
}

/* A page whose second half may not be executed: the instruction across the border faults. */
static void pmp_divides_a_page_of_code(void **state)
{
    start(NULL);
    guest_set_csr(&guest, "pmpcfg0", 0);
    guest_set_csr(&guest, "pmpaddr0", (PAGE + 0x804) >> 2);
    guest_set_csr(&guest, "pmpcfg0", 0x0f);
    guest.at = PAGE + 0x7fc;
    INSN(&guest, addi, .rd = 1, .rs1 = 1, .imm = 1);
    guest_half(&guest, 0x0085); /* c.addi ra, 1 */
    INSN(&guest, addi, .rd = 1, .rs1 = 1, .imm = 1);
    guest.hart->pc = PAGE + 0x7fc;
    guest.hart->x[1] = 0;
    hart_set_privilege(guest.hart, PRIVILEGE_USER);
    hart_step(guest.hart);
    hart_step(guest.hart);
    assert_int_equal(guest.hart->x[1], 2);
    hart_step(guest.hart);
    guest_assert_trap(&guest, TRAP_FETCH_ACCESS, PAGE + 0x804);
    assert_int_equal(guest.hart->mepc, PAGE + 0x802);
    guest_finish(&guest);
}

static void debug_copies_have_no_side_effects(void **state)
{
    uint8_t bytes[8] = {1, 2, 3, 4, 5, 6, 7, 8}, back[8] = {0};
    start(NULL);
    use(3, 0);
    map(3, GIGA, 0, pte(PAGE, V | R | X | A));
    uint64_t leaf = map(3, GIGA + 0x1000, 0, pte(PAGE + 0x3000, V | R | A));
    assert_true(hart_memory_write(guest.hart, GIGA + 0xffc, bytes, 8, PRIVILEGE_SUPERVISOR));
    assert_int_equal(guest_load(&guest, PAGE + 0x3000) & 0xffffffff, 0x08070605);
    assert_true(hart_memory_read(guest.hart, GIGA + 0xffc, back, 8, PRIVILEGE_SUPERVISOR));
    assert_memory_equal(bytes, back, 8);
    assert_int_equal(guest_load(&guest, leaf), pte(PAGE + 0x3000, V | R | A));
    assert_false(hart_memory_read(guest.hart, GIGA + 0x1ffc, back, 8, PRIVILEGE_SUPERVISOR));
    assert_false(hart_memory_read(guest.hart, GIGA, back, 8, PRIVILEGE_USER));
    guest_finish(&guest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_mode_and_level_translates),
        cmocka_unit_test(each_fault_is_found),
        cmocka_unit_test(user_pages_are_for_users),
        cmocka_unit_test(napot_translates_sixteen_pages),
        cmocka_unit_test(hardware_sets_a_and_d),
        cmocka_unit_test(translations_live_until_a_fence),
        cmocka_unit_test(a_fence_covers_a_superpage),
        cmocka_unit_test(views_of_memory_are_kept_apart),
        cmocka_unit_test(misaligned_accesses_work_across_pages),
        cmocka_unit_test(registers_and_atomics_have_rules),
        cmocka_unit_test(watched_memory_is_memory),
        cmocka_unit_test(cache_blocks),
        cmocka_unit_test(pmp_entries_match),
        cmocka_unit_test(locked_entries_bind_machine_mode),
        cmocka_unit_test(pmp_divides_a_page_of_code),
        cmocka_unit_test(debug_copies_have_no_side_effects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
