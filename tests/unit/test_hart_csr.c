/* CSRs: who may access which, legal values, and the counters. */
#include "hart_guest.h"

static struct guest guest;

static void start(const char *cpu)
{
    guest_init(&guest, 1, cpu, NULL);
    guest_open(&guest);
}

static void at_privilege(enum privilege privilege)
{
    hart_reset(guest.hart, RAM);
    guest_open(&guest);
    hart_set_privilege(guest.hart, privilege);
}

/* Executes csrrs x5, number, rs1 at the present privilege: true unless it was illegal. */
static bool accesses(unsigned number, bool write)
{
    STEP(&guest, csrrs, .rd = 5, .rs1 = write ? 6 : 0, .imm = number);
    if (guest.hart->pc == HANDLER) {
        assert_int_equal(guest.hart->mcause, TRAP_ILLEGAL);
        return false;
    }
    return true;
}

static bool reads(const char *name)
{
    return accesses(guest_csr_number(name), false);
}

/* Everything is enabled, so that only privilege and read-only numbers decide. */
static void privilege_and_number_decide(void **state)
{
    static const enum privilege privileges[] = {PRIVILEGE_USER, PRIVILEGE_SUPERVISOR,
                                                PRIVILEGE_MACHINE};
    start(NULL);
    for (unsigned p = 0; p < 3; p++)
        for (unsigned number = 0; number < 4096; number++)
            for (int write = 0; write < 2; write++) {
                at_privilege(PRIVILEGE_MACHINE);
                guest_set_csr(&guest, "mcounteren", UINT64_MAX);
                guest_set_csr(&guest, "scounteren", UINT64_MAX);
                guest_set_csr(&guest, "menvcfg", BIT(63));
                guest_set_csr(&guest, "mstateen0", UINT64_MAX);
                guest_set_csr(&guest, "mstateen1", UINT64_MAX);
                guest_set_csr(&guest, "mstateen2", UINT64_MAX);
                guest_set_csr(&guest, "mstateen3", UINT64_MAX);
                guest.hart->mstatus |= UINT64_C(3) << 13;
                hart_set_privilege(guest.hart, privileges[p]);
                bool expected = hart_csr_find(guest.hart, number) &&
                                (number >> 8 & 3) <= privileges[p] && !(write && number >> 10 == 3);
                if (accesses(number, write) != expected)
                    fail_msg("csr 0x%x privilege %u write %d", number, privileges[p], write);
            }
    guest_finish(&guest);
}

static void extensions_decide(void **state)
{
    static const struct {
        const char *cpu, *csr;
    } cases[] = {
        {"no-sstc", "stimecmp"},
        {"no-zihpm", "mhpmcounter3"},
        {"no-zihpm", "hpmcounter31"},
        {"no-zicntr", "time"},
        {"no-f", "fcsr"},
        {"no-sscofpmf", "scountovf"},
        {"no-ssstateen", "sstateen0"},
        {"no-smstateen", "mstateen0"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        start(NULL);
        assert_non_null(hart_csr_find(guest.hart, guest_csr_number(cases[i].csr)));
        guest_finish(&guest);
        start(cases[i].cpu);
        assert_null(hart_csr_find(guest.hart, guest_csr_number(cases[i].csr)));
        assert_false(reads(cases[i].csr));
        guest_finish(&guest);
    }
}

static void guards_decide(void **state)
{
    start(NULL);
    at_privilege(PRIVILEGE_MACHINE);
    assert_false(reads("fcsr")); /* FS is off */
    at_privilege(PRIVILEGE_MACHINE);
    guest.hart->mstatus |= BIT(13);
    assert_true(reads("fcsr"));

    at_privilege(PRIVILEGE_SUPERVISOR);
    assert_false(reads("time"));
    at_privilege(PRIVILEGE_SUPERVISOR);
    guest_set_csr(&guest, "mcounteren", 2);
    assert_true(reads("time"));
    at_privilege(PRIVILEGE_USER);
    guest_set_csr(&guest, "mcounteren", 2);
    assert_false(reads("time"));
    at_privilege(PRIVILEGE_USER);
    guest_set_csr(&guest, "mcounteren", 2);
    guest_set_csr(&guest, "scounteren", 2);
    assert_true(reads("time"));

    at_privilege(PRIVILEGE_SUPERVISOR);
    assert_true(reads("satp"));
    guest.hart->mstatus |= BIT(20); /* TVM */
    assert_false(reads("satp"));

    at_privilege(PRIVILEGE_SUPERVISOR);
    guest_set_csr(&guest, "mcounteren", 2);
    assert_false(reads("stimecmp"));
    at_privilege(PRIVILEGE_SUPERVISOR);
    guest_set_csr(&guest, "menvcfg", BIT(63));
    assert_false(reads("stimecmp"));
    at_privilege(PRIVILEGE_SUPERVISOR);
    guest_set_csr(&guest, "mcounteren", 2);
    guest_set_csr(&guest, "menvcfg", BIT(63));
    assert_true(reads("stimecmp"));

    at_privilege(PRIVILEGE_SUPERVISOR);
    assert_false(reads("senvcfg"));
    at_privilege(PRIVILEGE_SUPERVISOR);
    guest_set_csr(&guest, "mstateen0", BIT(62));
    assert_true(reads("senvcfg"));
    assert_false(reads("sstateen0"));
    at_privilege(PRIVILEGE_SUPERVISOR);
    guest_set_csr(&guest, "mstateen0", BIT(63));
    assert_true(reads("sstateen0"));
    guest_finish(&guest);
}

static uint64_t written(const char *name, uint64_t value)
{
    guest_set_csr(&guest, name, value);
    return guest_csr(&guest, name);
}

static void values_stay_legal(void **state)
{
    start(NULL);
    const uint64_t misa = guest_csr(&guest, "misa");
    assert_int_equal(misa, UINT64_C(2) << 62 | BIT(0) | BIT(2) | BIT(3) | BIT(5) | BIT(8) |
                               BIT(12) | BIT(18) | BIT(20));
    assert_int_equal(written("misa", 0), misa);

    assert_int_equal(written("mstatus", UINT64_C(3) << 11), UINT64_C(0xa00001800));
    assert_int_equal(written("mstatus", UINT64_C(2) << 11), UINT64_C(0xa00001800));
    assert_int_equal(written("mstatus", UINT64_MAX), UINT64_C(0x8000000a007e79aa));
    assert_int_equal(guest_csr(&guest, "sstatus"), UINT64_C(0x80000002000c6122));
    assert_int_equal(written("sstatus", 0), UINT64_C(0x200000000));
    assert_int_equal(guest_csr(&guest, "mstatus"), UINT64_C(0xa00721888));

    assert_int_equal(written("medeleg", UINT64_MAX), 0xb3ff);
    assert_int_equal(written("mideleg", UINT64_MAX), 0x2222);
    assert_int_equal(written("mie", UINT64_MAX), 0x2aaa);
    assert_int_equal(guest_csr(&guest, "sie"), 0x2222);
    assert_int_equal(written("mtvec", 0x1001), 0x1001);
    assert_int_equal(written("mtvec", 0x2002), 0x1001);
    assert_int_equal(written("mepc", UINT64_MAX), UINT64_MAX - 1);
    assert_int_equal(written("satp", UINT64_C(9) << 60 | 1), UINT64_C(9) << 60 | 1);
    assert_int_equal(written("satp", UINT64_C(1) << 60), UINT64_C(9) << 60 | 1);
    assert_int_equal(written("satp", UINT64_C(11) << 60), UINT64_C(9) << 60 | 1);
    assert_int_equal(written("satp", UINT64_C(10) << 60 | UINT64_C(0xffff) << 44),
                     UINT64_C(10) << 60 | UINT64_C(0xffff) << 44);
    assert_int_equal(written("menvcfg", UINT64_MAX), UINT64_C(0xe0000000000000f1));
    assert_int_equal(written("menvcfg", 2 << 4), 3 << 4); /* reserved CBIE */
    assert_int_equal(written("senvcfg", UINT64_MAX), 0xf1);
    assert_int_equal(written("scounteren", UINT64_MAX), 0xffffffff);
    assert_int_equal(written("mcountinhibit", UINT64_MAX), 0x7fd);
    assert_int_equal(written("mhpmevent3", UINT64_MAX), UINT64_C(0xf0000000ffffffff));
    assert_int_equal(written("mhpmevent20", UINT64_MAX), 0);
    assert_int_equal(written("mhpmcounter20", UINT64_MAX), 0);
    assert_int_equal(written("mstateen0", UINT64_MAX), UINT64_C(3) << 62);
    assert_int_equal(written("sstateen0", UINT64_MAX), 0);
    assert_int_equal(written("tselect", 1), 0);
    guest_finish(&guest);

    start("no-c,no-f,no-sv48,no-sstc,no-svadu,no-svpbmt,no-zicbom,no-zicboz,no-sscofpmf");
    assert_int_equal(written("mepc", UINT64_MAX), UINT64_MAX - 3);
    assert_int_equal(written("mstatus", UINT64_MAX) & BIT(13), 0);
    assert_int_equal(written("satp", UINT64_C(9) << 60), 0);
    assert_int_equal(written("satp", UINT64_C(8) << 60), UINT64_C(8) << 60);
    assert_int_equal(written("menvcfg", UINT64_MAX), 1);
    assert_int_equal(written("mie", UINT64_MAX), 0xaaa);
    assert_int_equal(written("mhpmevent3", UINT64_MAX), 0xffffffff);
    guest_finish(&guest);
}

static void pmp_locks(void **state)
{
    start(NULL);
    guest_set_csr(&guest, "pmpcfg0", 0);
    assert_int_equal(written("pmpcfg0", 0xff7e), 0x9f1c); /* W without R; reserved bits */
    assert_int_equal(written("pmpaddr1", 5), 0);          /* locked */
    assert_int_equal(written("pmpcfg0", 0), 0x9f00);
    assert_int_equal(written("pmpaddr0", UINT64_MAX), UINT64_C(0x3fffffffffffff));
    guest_set_csr(&guest, "pmpcfg0", UINT64_C(0x88) << 32); /* entry 4: locked TOR */
    assert_int_equal(written("pmpaddr3", 1), 0);
    assert_int_equal(written("pmpaddr2", 1), 1);
    guest_finish(&guest);
}

static void fp_state_becomes_dirty(void **state)
{
    start(NULL);
    guest_set_csr(&guest, "mstatus", BIT(13));
    STEP(&guest, csrrs, .rd = 1, .imm = 3);
    assert_int_equal(guest.hart->mstatus >> 13 & 3, 1);
    STEP(&guest, csrrwi, .rs1 = 2, .imm = 2);
    assert_int_equal(guest.hart->mstatus >> 13 & 3, 3);
    assert_int_equal(guest_csr(&guest, "fcsr"), 2 << 5);
    guest_set_csr(&guest, "mstatus", BIT(13));
    STEP(&guest, fmv_x_w, .rd = 1, .rs1 = 1);
    assert_int_equal(guest.hart->mstatus >> 13 & 3, 1);
    STEP(&guest, feq_s, .rd = 1, .rs1 = 1, .rs2 = 1); /* raises nothing */
    assert_int_equal(guest.hart->mstatus >> 13 & 3, 1);
    STEP(&guest, fadd_s, .rd = 1, .rs1 = 1, .rs2 = 1, .rm = 7);
    assert_int_equal(guest.hart->mstatus >> 13 & 3, 3);

    guest_set_csr(&guest, "frm", 5);
    STEP(&guest, fadd_s, .rd = 1, .rs1 = 1, .rs2 = 1, .rm = 0);
    assert_int_not_equal(guest.hart->pc, HANDLER);
    STEP(&guest, fadd_s, .rd = 1, .rs1 = 1, .rs2 = 1, .rm = 7);
    guest_assert_trap(&guest, TRAP_ILLEGAL, 0x0010f0d3);
    guest_set_csr(&guest, "mstatus", 0);
    guest.hart->pc = RAM;
    STEP(&guest, flw, .rd = 1, .rs1 = 0);
    guest_assert_trap(&guest, TRAP_ILLEGAL, 0x00002087);
    guest_finish(&guest);
}

static void instret_counts_instructions(void **state)
{
    start(NULL);
    uint64_t before = guest_csr(&guest, "minstret");
    for (unsigned i = 0; i < 10; i++)
        STEP(&guest, addi, .rd = 1);
    assert_int_equal(guest_csr(&guest, "minstret"), before + 10);
    STEP(&guest, ecall); /* does not retire */
    assert_int_equal(guest_csr(&guest, "minstret"), before + 10);

    guest.hart->x[1] = 1000;
    STEP(&guest, csrrw, .rs1 = 1, .imm = guest_csr_number("minstret"));
    STEP(&guest, csrrs, .rd = 2, .imm = guest_csr_number("minstret"));
    assert_int_equal(guest.hart->x[2], 1000); /* the write replaces the increment */
    STEP(&guest, csrrs, .rd = 2, .imm = guest_csr_number("minstret"));
    assert_int_equal(guest.hart->x[2], 1001);

    guest_set_csr(&guest, "mcountinhibit", 4);
    before = guest_csr(&guest, "minstret");
    uint64_t cycles = guest_csr(&guest, "mcycle");
    STEP(&guest, addi, .rd = 1);
    STEP(&guest, addi, .rd = 1);
    assert_int_equal(guest_csr(&guest, "minstret"), before);
    assert_int_equal(guest_csr(&guest, "mcycle"), cycles + 2);
    guest_set_csr(&guest, "mcountinhibit", 0);
    STEP(&guest, addi, .rd = 1);
    assert_int_equal(guest_csr(&guest, "minstret"), before + 1);
    guest_finish(&guest);
}

static void programmable_counters_count_and_overflow(void **state)
{
    start(NULL);
    guest_set_csr(&guest, "mhpmevent3", 2);           /* instructions */
    guest_set_csr(&guest, "mhpmevent4", 2 | BIT(62)); /* not those of M-mode */
    uint64_t before = guest_csr(&guest, "mhpmcounter3");
    STEP(&guest, addi, .rd = 1);
    STEP(&guest, addi, .rd = 1);
    assert_int_equal(guest_csr(&guest, "mhpmcounter3"), before + 2);
    assert_int_equal(guest_csr(&guest, "mhpmcounter4"), 0);
    hart_set_privilege(guest.hart, PRIVILEGE_SUPERVISOR);
    STEP(&guest, addi, .rd = 1);
    STEP(&guest, addi, .rd = 1);
    STEP(&guest, addi, .rd = 1);
    hart_set_privilege(guest.hart, PRIVILEGE_MACHINE);
    STEP(&guest, addi, .rd = 1);
    assert_int_equal(guest_csr(&guest, "mhpmcounter3"), before + 6);
    assert_int_equal(guest_csr(&guest, "mhpmcounter4"), 3);

    guest_set_csr(&guest, "mhpmcounter3", UINT64_MAX - 1);
    STEP(&guest, addi, .rd = 1);
    assert_int_equal(guest_csr(&guest, "scountovf"), 0);
    STEP(&guest, addi, .rd = 1);
    assert_int_equal(guest_csr(&guest, "scountovf"), BIT(3));
    assert_int_equal(guest_csr(&guest, "mip"), BIT(INTERRUPT_LCOFI));
    assert_int_equal(guest_csr(&guest, "mhpmevent3") >> 63, 1);
    guest_set_csr(&guest, "mip", 0);
    guest_set_csr(&guest, "mhpmcounter3", UINT64_MAX); /* OF is set: no second interrupt */
    STEP(&guest, addi, .rd = 1);
    assert_int_equal(guest_csr(&guest, "mhpmcounter3"), 0);
    assert_int_equal(guest_csr(&guest, "mip"), 0);
    guest_finish(&guest);
}

static void external_line_and_software_bit_are_apart(void **state)
{
    start(NULL);
    hart_set_interrupt(guest.hart, INTERRUPT_SEI, true);
    assert_int_equal(guest_csr(&guest, "mip"), BIT(INTERRUPT_SEI));
    /* Setting another bit must not turn the line's level into the software bit. */
    STEP(&guest, csrrsi, .rd = 1, .rs1 = 1 << INTERRUPT_SSI, .imm = guest_csr_number("mip"));
    assert_int_equal(guest.hart->x[1], BIT(INTERRUPT_SEI));
    hart_set_interrupt(guest.hart, INTERRUPT_SEI, false);
    assert_int_equal(guest_csr(&guest, "mip"), BIT(INTERRUPT_SSI));
    guest_set_csr(&guest, "mip", BIT(INTERRUPT_SEI));
    hart_set_interrupt(guest.hart, INTERRUPT_SEI, true);
    hart_set_interrupt(guest.hart, INTERRUPT_SEI, false);
    assert_int_equal(guest_csr(&guest, "mip"), BIT(INTERRUPT_SEI));
    guest_finish(&guest);
}

static void state_goes_through_a_stream(void **state)
{
    start(NULL);
    for (unsigned i = 1; i < 32; i++) {
        guest.hart->x[i] = i * UINT64_C(0x123456789);
        guest.hart->f[i] = i * UINT64_C(0x987654321);
    }
    guest.hart->pc = RAM + 0x1234;
    for (unsigned number = 0; number < 4096; number++)
        if (hart_csr_find(guest.hart, number) && number >> 10 != 3 && number >> 4 != 0x3a)
            hart_csr_write(guest.hart, number, UINT64_C(0x8005555555555555) ^ number);
    hart_set_privilege(guest.hart, PRIVILEGE_SUPERVISOR);
    struct stream *saving = stream_create_saving();
    hart_state(guest.hart, saving);
    size_t size;
    const void *data = stream_data(saving, &size);

    struct guest other;
    guest_init(&other, 1, NULL, NULL);
    struct stream *loading = stream_create_loading(data, size);
    hart_state(other.hart, loading);
    assert_true(stream_check(loading, NULL));
    assert_memory_equal(other.hart->x, guest.hart->x, 32 * 8);
    assert_memory_equal(other.hart->f, guest.hart->f, sizeof(guest.hart->f));
    assert_int_equal(other.hart->pc, RAM + 0x1234);
    assert_int_equal(other.hart->privilege, PRIVILEGE_SUPERVISOR);
    for (unsigned number = 0; number < 4096; number++) {
        uint64_t a = 0, b = 0;
        if (hart_csr_read(guest.hart, number, &a) && number != guest_csr_number("time")) {
            hart_csr_read(other.hart, number, &b);
            if (a != b)
                fail_msg("%s: %llx and %llx", hart_csr_name(number), (long long)a, (long long)b);
        }
    }
    stream_destroy(loading);

    /* A state that no hart can have. */
    guest.hart->satp = UINT64_C(15) << 60;
    struct stream *bad = stream_create_saving();
    hart_state(guest.hart, bad);
    data = stream_data(bad, &size);
    loading = stream_create_loading(data, size);
    hart_state(other.hart, loading);
    assert_false(stream_check(loading, NULL));
    assert_int_equal(other.hart->satp, 0);
    stream_destroy(loading);
    stream_destroy(bad);
    stream_destroy(saving);
    guest_finish(&other);
    guest_finish(&guest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(privilege_and_number_decide),
        cmocka_unit_test(extensions_decide),
        cmocka_unit_test(guards_decide),
        cmocka_unit_test(values_stay_legal),
        cmocka_unit_test(pmp_locks),
        cmocka_unit_test(fp_state_becomes_dirty),
        cmocka_unit_test(instret_counts_instructions),
        cmocka_unit_test(programmable_counters_count_and_overflow),
        cmocka_unit_test(external_line_and_software_bit_are_apart),
        cmocka_unit_test(state_goes_through_a_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
