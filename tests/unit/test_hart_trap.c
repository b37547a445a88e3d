/* Traps, interrupts and returns, the hooks of the machine, and waiting. */
#include <unistd.h>

#include "hart_guest.h"

#define S_HANDLER (RAM + 0x9000)

#define MIE    BIT(3)
#define SIE    BIT(1)
#define MPIE   BIT(7)
#define SPIE   BIT(5)
#define SPP    BIT(8)
#define MPRV   BIT(17)
#define TVM    BIT(20)
#define TW     BIT(21)
#define TSR    BIT(22)
#define MPP(p) ((uint64_t)(p) << 11)

static struct guest guest;

static void start(const struct hart_hooks *hooks)
{
    guest_init(&guest, 1, NULL, hooks);
    guest_open(&guest);
    guest_set_csr(&guest, "stvec", S_HANDLER);
}

static uint64_t status_bits(uint64_t mask)
{
    return guest.hart->mstatus & mask;
}

static void exceptions_are_delegated(void **state)
{
    start(NULL);
    guest_set_csr(&guest, "medeleg", BIT(TRAP_ECALL_U) | BIT(TRAP_ILLEGAL));
    guest_set_csr(&guest, "mstatus", SIE | MIE);

    hart_set_privilege(guest.hart, PRIVILEGE_USER);
    STEP(&guest, ecall);
    assert_int_equal(guest.hart->pc, S_HANDLER);
    assert_int_equal(guest.hart->privilege, PRIVILEGE_SUPERVISOR);
    assert_int_equal(guest.hart->scause, TRAP_ECALL_U);
    assert_int_equal(guest.hart->sepc, RAM);
    assert_int_equal(guest.hart->stval, 0);
    assert_int_equal(status_bits(SIE | SPIE | SPP | MIE), SPIE | MIE);

    /* Not delegated from S-mode. */
    STEP(&guest, ecall);
    guest_assert_trap(&guest, TRAP_ECALL_S, 0);
    assert_int_equal(guest.hart->mepc, S_HANDLER);
    assert_int_equal(status_bits(MIE | MPIE | MPP(3)), MPIE | MPP(1));

    /* Never from M-mode. */
    guest.at = guest.hart->pc = RAM + 0x40;
    guest_word(&guest, 0xffffffff);
    hart_fence_i(guest.hart);
    hart_step(guest.hart);
    guest_assert_trap(&guest, TRAP_ILLEGAL, 0xffffffff);
    assert_int_equal(status_bits(MPP(3)), MPP(3));
    STEP(&guest, ecall);
    guest_assert_trap(&guest, TRAP_ECALL_M, 0);
    STEP(&guest, ebreak);
    guest_assert_trap(&guest, TRAP_BREAKPOINT, HANDLER);
    guest_finish(&guest);
}

static void returns_restore(void **state)
{
    start(NULL);
    guest_set_csr(&guest, "mepc", RAM + 0x100);
    guest_set_csr(&guest, "mstatus", MPP(PRIVILEGE_SUPERVISOR) | MPIE | MPRV);
    STEP(&guest, mret);
    assert_int_equal(guest.hart->pc, RAM + 0x100);
    assert_int_equal(guest.hart->privilege, PRIVILEGE_SUPERVISOR);
    assert_int_equal(status_bits(MIE | MPIE | MPP(3) | MPRV), MIE | MPIE);

    guest_set_csr(&guest, "sepc", RAM + 0x200);
    guest_set_csr(&guest, "mstatus", SPIE);
    STEP(&guest, sret);
    assert_int_equal(guest.hart->pc, RAM + 0x200);
    assert_int_equal(guest.hart->privilege, PRIVILEGE_USER);
    assert_int_equal(status_bits(SIE | SPIE | SPP), SIE | SPIE);

    /* To M-mode MPRV stays. */
    hart_set_privilege(guest.hart, PRIVILEGE_MACHINE);
    guest_set_csr(&guest, "mstatus", MPP(PRIVILEGE_MACHINE) | MPRV);
    STEP(&guest, mret);
    assert_int_equal(guest.hart->privilege, PRIVILEGE_MACHINE);
    assert_int_equal(status_bits(MPRV), MPRV);
    guest_finish(&guest);
}

static void modes_may_not_execute_everything(void **state)
{
    static const struct {
        enum insn_op op;
        enum privilege privilege;
        uint64_t status;
        bool legal;
    } cases[] = {
        {INSN_mret, PRIVILEGE_SUPERVISOR, 0, false},
        {INSN_sret, PRIVILEGE_SUPERVISOR, 0, true},
        {INSN_sret, PRIVILEGE_SUPERVISOR, TSR, false},
        {INSN_sret, PRIVILEGE_MACHINE, TSR, true},
        {INSN_sret, PRIVILEGE_USER, 0, false},
        {INSN_wfi, PRIVILEGE_SUPERVISOR, 0, true},
        {INSN_wfi, PRIVILEGE_SUPERVISOR, TW, false},
        {INSN_wfi, PRIVILEGE_MACHINE, TW, true},
        {INSN_wfi, PRIVILEGE_USER, 0, false},
        {INSN_sfence_vma, PRIVILEGE_SUPERVISOR, 0, true},
        {INSN_sfence_vma, PRIVILEGE_SUPERVISOR, TVM, false},
        {INSN_sfence_vma, PRIVILEGE_MACHINE, TVM, true},
        {INSN_sfence_vma, PRIVILEGE_USER, 0, false},
        {INSN_sinval_vma, PRIVILEGE_SUPERVISOR, TVM, false},
        {INSN_sfence_w_inval, PRIVILEGE_SUPERVISOR, TVM, true},
        {INSN_sfence_inval_ir, PRIVILEGE_USER, 0, false},
    };
    start(NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        hart_reset(guest.hart, RAM);
        guest_open(&guest);
        guest_set_csr(&guest, "mstatus", cases[i].status);
        guest_set_csr(&guest, "sepc", RAM + 4);
        hart_set_privilege(guest.hart, cases[i].privilege);
        guest.at = RAM;
        guest_insn(&guest, (struct insn){.op = cases[i].op});
        hart_fence_i(guest.hart);
        hart_step(guest.hart);
        if (guest.hart->pc != (cases[i].legal ? RAM + 4 : HANDLER))
            fail_msg("case %u", i);
        if (!cases[i].legal)
            guest_assert_trap(&guest, TRAP_ILLEGAL, isa_encode(&(struct insn){.op = cases[i].op}));
    }
    guest_finish(&guest);
}

static void interrupts_have_priorities_and_vectors(void **state)
{
    static const uint8_t order[] = {11, 3, 7, 9, 1, 5, 13};
    start(NULL);
    guest_set_csr(&guest, "mtvec", HANDLER | 1);
    guest_set_csr(&guest, "mie", UINT64_MAX);
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
        for (unsigned j = i; j < ARRAY_SIZE(order); j++) {
            atomic_store(&guest.hart->mip, BIT(order[i]) | BIT(order[j]));
            guest.hart->pc = RAM;
            guest_set_csr(&guest, "mstatus", MIE);
            hart_step(guest.hart);
            assert_int_equal(guest.hart->mcause, BIT(63) | order[i]);
            assert_int_equal(guest.hart->pc, HANDLER + 4 * order[i]);
            assert_int_equal(guest.hart->mepc, RAM);
            assert_int_equal(guest.hart->mtval, 0);
        }
    /* Exceptions go to the base. */
    atomic_store(&guest.hart->mip, 0);
    guest.hart->pc = RAM;
    STEP(&guest, ecall);
    assert_int_equal(guest.hart->pc, HANDLER);
    guest_finish(&guest);
}

static void interrupts_are_masked_by_privilege(void **state)
{
    static const struct {
        enum privilege privilege;
        uint64_t status, delegated;
        int target; /* -1: none is taken */
    } cases[] = {
        {PRIVILEGE_MACHINE, 0, 0, -1},
        {PRIVILEGE_MACHINE, MIE, 0, PRIVILEGE_MACHINE},
        {PRIVILEGE_MACHINE, MIE | SIE, BIT(5), -1},
        {PRIVILEGE_SUPERVISOR, 0, 0, PRIVILEGE_MACHINE},
        {PRIVILEGE_SUPERVISOR, 0, BIT(5), -1},
        {PRIVILEGE_SUPERVISOR, SIE, BIT(5), PRIVILEGE_SUPERVISOR},
        {PRIVILEGE_USER, 0, BIT(5), PRIVILEGE_SUPERVISOR},
        {PRIVILEGE_USER, 0, 0, PRIVILEGE_MACHINE},
    };
    start(NULL);
    INSN(&guest, addi);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        hart_reset(guest.hart, RAM);
        guest_open(&guest);
        guest_set_csr(&guest, "mideleg", cases[i].delegated);
        guest_set_csr(&guest, "mie", BIT(5));
        guest_set_csr(&guest, "mstatus", cases[i].status);
        hart_set_privilege(guest.hart, cases[i].privilege);
        hart_set_interrupt(guest.hart, INTERRUPT_STI, true);
        hart_step(guest.hart);
        if (cases[i].target < 0) {
            assert_int_equal(guest.hart->pc, RAM + 4);
        } else {
            assert_int_equal(guest.hart->pc, HANDLER);
            assert_int_equal(guest.hart->privilege, cases[i].target);
        }
        hart_set_interrupt(guest.hart, INTERRUPT_STI, false);
    }
    guest_finish(&guest);
}

/* Whatever makes a pending interrupt possible, it is taken before the next instruction. */
static void interrupts_are_taken_at_once(void **state)
{
    static const char *const csrs[] = {"mstatus", "mie", "mip"};
    for (unsigned i = 0; i < ARRAY_SIZE(csrs); i++) {
        start(NULL);
        guest_set_csr(&guest, "mstatus", i == 0 ? 0 : MIE);
        guest_set_csr(&guest, "mie", i == 1 ? 0 : BIT(1));
        guest_set_csr(&guest, "mip", i == 2 ? 0 : BIT(1));
        guest.hart->x[5] = i == 0 ? MIE : BIT(1);
        guest.hart->x[31] = STOP;
        INSN(&guest, csrrs, .rs1 = 5, .imm = guest_csr_number(csrs[i]));
        INSN(&guest, addi, .rd = 1, .imm = 1); /* must not be executed */
        guest.at = HANDLER;
        INSN(&guest, addi, .rd = 2, .imm = 2);
        INSN(&guest, sd, .rs1 = 31);
        hart_interpret(guest.hart);
        assert_int_equal(guest.hart->x[1], 0);
        assert_int_equal(guest.hart->x[2], 2);
        assert_int_equal(guest.hart->mepc, RAM + 4);
        guest_finish(&guest);
    }
}

/* --- The machine's hooks -----------------------------------------------------------------------
 */

static struct {
    unsigned sbi, unhandled, lost, semihosting;
    uint64_t cause, tval, pc;
} seen;

static void on_sbi(void *opaque, struct hart *hart)
{
    seen.sbi++;
    seen.pc = hart->pc;
    hart->x[10] = hart->x[10] + hart->x[17];
}

static void on_unhandled(void *opaque, struct hart *hart, uint64_t cause, uint64_t tval)
{
    seen.unhandled++;
    seen.cause = cause;
    seen.tval = tval;
    hart_request(hart, ATTENTION_STOP);
}

static void on_lost(void *opaque, struct hart *hart, uint64_t cause, uint64_t tval)
{
    seen.lost++;
    seen.cause = cause;
    seen.pc = hart->pc;
    hart_request(hart, ATTENTION_STOP);
}

static bool on_semihosting(void *opaque, struct hart *hart)
{
    seen.semihosting++;
    hart->x[10] = 99;
    return true;
}

static void firmware_calls_reach_the_machine(void **state)
{
    const struct hart_hooks hooks = {.sbi = on_sbi, .unhandled = on_unhandled};
    memset(&seen, 0, sizeof(seen));
    start(&hooks);
    hart_set_privilege(guest.hart, PRIVILEGE_SUPERVISOR);
    guest.hart->x[10] = 1;
    guest.hart->x[17] = 4;
    STEP(&guest, ecall);
    assert_int_equal(seen.sbi, 1);
    assert_int_equal(seen.pc, RAM + 4);
    assert_int_equal(guest.hart->pc, RAM + 4);
    assert_int_equal(guest.hart->x[10], 5);
    assert_int_equal(guest.hart->privilege, PRIVILEGE_SUPERVISOR);

    /* A trap to M-mode, where nobody is: the state is that of the instruction. */
    guest.at = guest.hart->pc;
    guest_word(&guest, 0);
    hart_fence_i(guest.hart);
    hart_interpret(guest.hart);
    assert_int_equal(seen.unhandled, 1);
    assert_int_equal(seen.cause, TRAP_ILLEGAL);
    assert_int_equal(guest.hart->pc, RAM + 4);
    assert_int_equal(guest.hart->privilege, PRIVILEGE_SUPERVISOR);
    guest_finish(&guest);
}

static void lost_guests_are_noticed(void **state)
{
    const struct hart_hooks hooks = {.lost = on_lost};
    memset(&seen, 0, sizeof(seen));
    guest_init(&guest, 1, NULL, &hooks);
    STEP(&guest, ecall); /* mtvec is still that of reset */
    assert_int_equal(seen.lost, 1);
    assert_int_equal(seen.cause, TRAP_ECALL_M);
    assert_int_equal(seen.pc, RAM);

    hart_reset(guest.hart, RAM);
    guest_set_csr(&guest, "mtvec", 0x4000); /* where nothing is */
    guest.hart->attention = 0;
    hart_step(guest.hart);
    assert_int_equal(seen.lost, 1);
    hart_step(guest.hart);
    assert_int_equal(seen.lost, 2);
    assert_int_equal(seen.cause, TRAP_FETCH_ACCESS);
    assert_int_equal(seen.pc, 0x4000);
    guest_finish(&guest);
}

static void semihosting_needs_its_markers(void **state)
{
    const struct hart_hooks hooks = {.semihosting = on_semihosting};
    memset(&seen, 0, sizeof(seen));
    start(&hooks);
    guest_word(&guest, 0x01f01013);
    guest_word(&guest, 0x00100073);
    guest_word(&guest, 0x40705013);
    guest_word(&guest, 0x00100073);
    for (unsigned i = 0; i < 3; i++)
        hart_step(guest.hart);
    assert_int_equal(seen.semihosting, 1);
    assert_int_equal(guest.hart->x[10], 99);
    assert_int_equal(guest.hart->pc, RAM + 12);
    hart_step(guest.hart);
    guest_assert_trap(&guest, TRAP_BREAKPOINT, RAM + 12);
    assert_int_equal(seen.semihosting, 1);
    guest_finish(&guest);
}

/* --- Waiting -----------------------------------------------------------------------------------
 */

static void *interpret(void *opaque)
{
    hart_interpret(opaque);
    return NULL;
}

/* wfi; stop */
static pthread_t start_waiting(void)
{
    pthread_t thread;
    guest.hart->x[31] = STOP;
    guest.at = RAM;
    INSN(&guest, wfi);
    INSN(&guest, sd, .rs1 = 31);
    pthread_create(&thread, NULL, interpret, guest.hart);
    return thread;
}

static void wfi_sleeps_until_an_interrupt(void **state)
{
    start(NULL);
    guest_set_csr(&guest, "mie", BIT(INTERRUPT_MSI)); /* mstatus.MIE is clear: no trap */
    pthread_t thread = start_waiting();
    usleep(20000);
    hart_set_interrupt(guest.hart, INTERRUPT_MEI, true); /* not enabled */
    usleep(20000);
    assert_int_equal(guest.hart->instret, 0);
    hart_set_interrupt(guest.hart, INTERRUPT_MSI, true);
    pthread_join(thread, NULL);
    assert_int_equal(guest.hart->instret, 2);
    guest_finish(&guest);
}

static void wfi_ends_at_the_timer(void **state)
{
    start(NULL);
    guest_set_csr(&guest, "menvcfg", BIT(63)); /* STCE */
    guest_set_csr(&guest, "mie", BIT(INTERRUPT_STI));
    uint64_t due = clock_ticks(&guest.clock) + CLOCK_HZ / 50;
    guest_set_csr(&guest, "stimecmp", due);
    pthread_t thread = start_waiting();
    pthread_join(thread, NULL);
    uint64_t now = clock_ticks(&guest.clock);
    assert_true(now >= due);
    assert_int_equal(guest_csr(&guest, "mip"), BIT(INTERRUPT_STI));
    guest_set_csr(&guest, "stimecmp", UINT64_MAX);
    assert_int_equal(guest_csr(&guest, "mip"), 0);
    guest_finish(&guest);
}

static void a_stop_ends_wfi(void **state)
{
    start(NULL);
    pthread_t thread = start_waiting();
    usleep(10000);
    hart_request(guest.hart, ATTENTION_STOP);
    pthread_join(thread, NULL);
    assert_int_equal(guest.hart->pc, RAM + 4);
    guest_finish(&guest);
}

/* A hart that never leaves a loop of its own takes the timer's interrupt, through the loop. */
static void the_timer_interrupts_a_running_hart(void **state)
{
    struct loop *loop = loop_create();
    struct hart *plain;
    start(NULL);
    const struct hart_config config = {
        .id = 1,
        .extensions = isa_extensions_default(),
        .memory = guest.memory,
        .clock = &guest.clock,
        .loop = loop,
    };
    plain = guest.hart;
    guest.harts[guest.count++] = guest.hart = hart_create(&config);
    hart_reset(guest.hart, RAM);
    guest_open(&guest);
    guest_set_csr(&guest, "menvcfg", BIT(63));
    guest_set_csr(&guest, "mie", BIT(INTERRUPT_STI));
    guest_set_csr(&guest, "mstatus", MIE);
    guest_set_csr(&guest, "stimecmp", clock_ticks(&guest.clock) + CLOCK_HZ / 50);
    guest.hart->x[31] = STOP;
    INSN(&guest, jal);
    guest.at = HANDLER;
    INSN(&guest, sd, .rs1 = 31);
    pthread_t thread;
    pthread_create(&thread, NULL, interpret, guest.hart);
    while (pthread_tryjoin_np(thread, NULL) != 0)
        loop_turn(loop, 10);
    assert_int_equal(guest.hart->mcause, BIT(63) | INTERRUPT_STI);
    guest.hart = plain;
    guest_finish(&guest);
    loop_destroy(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exceptions_are_delegated),
        cmocka_unit_test(returns_restore),
        cmocka_unit_test(modes_may_not_execute_everything),
        cmocka_unit_test(interrupts_have_priorities_and_vectors),
        cmocka_unit_test(interrupts_are_masked_by_privilege),
        cmocka_unit_test(interrupts_are_taken_at_once),
        cmocka_unit_test(firmware_calls_reach_the_machine),
        cmocka_unit_test(lost_guests_are_noticed),
        cmocka_unit_test(semihosting_needs_its_markers),
        cmocka_unit_test(wfi_sleeps_until_an_interrupt),
        cmocka_unit_test(wfi_ends_at_the_timer),
        cmocka_unit_test(a_stop_ends_wfi),
        cmocka_unit_test(the_timer_interrupts_a_running_hart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
