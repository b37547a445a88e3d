/* Where harts stop for a debugger: breakpoints, watchpoints, catches; steps; memory as mapped. */
#include "hart_guest.h"

#include "hart/debug.h"

#define CODE RAM
#define DATA (RAM + 0x4000)

static struct guest guest;
static struct hart *hart;
static struct hart_points points;

static void start(void)
{
    guest_init(&guest, 1, NULL, NULL);
    guest_open(&guest);
    hart = guest.hart;
    hart->x[31] = STOP;
    points = (struct hart_points){0};
}

static void finish(void)
{
    hart_set_points(hart, NULL);
    guest_finish(&guest);
}

/* What the machine does for its harts. */
static void set_points(void)
{
    hart_set_points(hart, &points);
    for (size_t i = 0; guest.jit && i < points.break_count; i++)
        jit_forget_code(guest.jit, &points.breaks[i].address, 1);
}

static void set_breaks(const struct hart_point *breaks, size_t count)
{
    hart_set_points(hart, NULL);
    points.breaks = breaks;
    points.break_count = count;
    set_points();
}

static void set_watch(const struct hart_point *watch)
{
    hart_set_points(hart, NULL);
    points.watches = watch;
    points.watch_count = watch != NULL;
    set_points();
}

/* Runs on and returns why it stopped. */
static struct hart_stop run_on(void)
{
    guest_run(hart);
    return hart_take_stop(hart);
}

static void assert_stops(enum hart_stop_reason reason, uint64_t pc)
{
    struct hart_stop stop = run_on();
    assert_int_equal(stop.reason, reason);
    assert_int_equal(hart->pc, pc);
}

static struct hart_point breakpoint(uint64_t address)
{
    return (struct hart_point){.address = address, .accesses = 1 << ACCESS_FETCH};
}

/* a0 = sum of 1..100, in a loop of four instructions at CODE + 8. */
static void assemble_loop(void)
{
    guest.at = CODE;
    INSN(&guest, addi, .rd = 10);
    INSN(&guest, addi, .rd = 11, .imm = 100);
    INSN(&guest, add, .rd = 10, .rs1 = 10, .rs2 = 11);
    INSN(&guest, addi, .rd = 12, .rs1 = 12, .imm = 1);
    INSN(&guest, addi, .rd = 11, .rs1 = 11, .imm = -1);
    INSN(&guest, bne, .rs1 = 11, .rs2 = 0, .imm = -12);
    INSN(&guest, sd, .rs1 = 31);
}

static void breakpoints_stop_before_their_instruction(void **state)
{
    start();
    assemble_loop();
    hart->pc = CODE;
    assert_stops(HART_STOP_NONE, CODE + 28); /* translated once, without */
    const struct hart_point breaks[] = {breakpoint(CODE + 8), breakpoint(CODE + 16)};
    set_breaks(breaks, 2);
    hart->pc = CODE;
    hart->x[12] = 0;
    for (unsigned i = 0; i < 100; i++) {
        assert_stops(HART_STOP_BREAK, CODE + 8);
        assert_int_equal(hart->x[11], 100 - i);
        assert_int_equal(hart->x[12], i);
        assert_stops(HART_STOP_BREAK, CODE + 8); /* nothing was executed */
        hart_debug_step(hart, 0);
        assert_int_equal(hart->pc, CODE + 12);
        assert_stops(HART_STOP_BREAK, CODE + 16);
        hart_debug_step(hart, 0);
    }
    assert_stops(HART_STOP_NONE, CODE + 28);
    assert_int_equal(hart->x[10], 5050);

    set_breaks(NULL, 0);
    hart->pc = CODE;
    assert_stops(HART_STOP_NONE, CODE + 28);
    finish();
}

static unsigned asked;

static bool is_seven(void *opaque, struct hart *self)
{
    asked++;
    return self->x[11] == *(uint64_t *)opaque;
}

static void conditions_and_address_spaces_decide(void **state)
{
    uint64_t seven = 7;
    start();
    assemble_loop();
    struct hart_point point = breakpoint(CODE + 12);
    point.condition = is_seven;
    point.opaque = &seven;
    asked = 0;
    set_breaks(&point, 1);
    hart->pc = CODE;
    assert_stops(HART_STOP_BREAK, CODE + 12);
    assert_int_equal(hart->x[11], 7);
    assert_int_equal(asked, 94);
    assert_int_equal(hart->instret, 2 + 4 * 93 + 1);

    /* The same, where satp never has this value. */
    point.satp = UINT64_C(5) << 44;
    point.satp_mask = UINT64_C(0xffff) << 44;
    hart->pc = CODE;
    assert_stops(HART_STOP_NONE, CODE + 28);
    finish();
}

/* Every address is a breakpoint: each instruction stops once. */
static void breakpoints_may_be_anywhere(void **state)
{
    struct hart_point breaks[8];
    start();
    assemble_loop();
    for (unsigned i = 0; i < 8; i++)
        breaks[i] = breakpoint(CODE + 4 * i);
    set_breaks(breaks, 7);
    hart->pc = CODE;
    for (unsigned i = 0; i < 2 + 4 * 100; i++) {
        assert_stops(HART_STOP_BREAK, hart->pc);
        assert_int_equal(hart->instret, i);
        hart_debug_step(hart, 0);
    }
    assert_stops(HART_STOP_BREAK, CODE + 24);
    assert_int_equal(hart->x[10], 5050);
    finish();
}

static void breakpoints_lie_between_lr_and_sc(void **state)
{
    start();
    guest.at = CODE;
    INSN(&guest, lr_d, .rd = 10, .rs1 = 20);
    INSN(&guest, addi, .rd = 10, .rs1 = 10, .imm = 1);
    INSN(&guest, sc_d, .rd = 11, .rs1 = 20, .rs2 = 10);
    INSN(&guest, bne, .rs1 = 11, .rs2 = 0, .imm = -12);
    INSN(&guest, sd, .rs1 = 31);
    guest_store(&guest, DATA, 41);
    hart->x[20] = DATA;
    const struct hart_point point = breakpoint(CODE + 4);
    set_breaks(&point, 1);
    assert_stops(HART_STOP_BREAK, CODE + 4);
    while (hart_holds_reservation(hart))
        hart_debug_step(hart, 0);
    assert_stops(HART_STOP_NONE, CODE + 20);
    assert_int_equal(guest_load(&guest, DATA), 42);
    finish();
}

/* --- Watchpoints ---------------------------------------------------------------------------- */

enum { L = 1 << ACCESS_LOAD, S = 1 << ACCESS_STORE };

static const struct {
    struct insn insn; /* rs1 is x20, which holds DATA + offset */
    int offset;
    unsigned size;
    unsigned accesses;
} accesses[] = {
    {{.op = INSN_lb, .rd = 10, .rs1 = 20}, 0, 1, L},
    {{.op = INSN_lhu, .rd = 10, .rs1 = 20}, 2, 2, L},
    {{.op = INSN_lw, .rd = 10, .rs1 = 20}, 4, 4, L},
    {{.op = INSN_ld, .rd = 10, .rs1 = 20}, 8, 8, L},
    {{.op = INSN_ld, .rd = 10, .rs1 = 20}, 13, 8, L},    /* misaligned */
    {{.op = INSN_ld, .rd = 10, .rs1 = 20}, 0xffc, 8, L}, /* across pages */
    {{.op = INSN_sb, .rs1 = 20, .rs2 = 11}, 3, 1, S},
    {{.op = INSN_sh, .rs1 = 20, .rs2 = 11}, 6, 2, S},
    {{.op = INSN_sw, .rs1 = 20, .rs2 = 11}, 8, 4, S},
    {{.op = INSN_sd, .rs1 = 20, .rs2 = 11}, 16, 8, S},
    {{.op = INSN_sd, .rs1 = 20, .rs2 = 11}, 0xffd, 8, S},
    {{.op = INSN_amoadd_w, .rd = 10, .rs1 = 20, .rs2 = 11}, 4, 4, L | S},
    {{.op = INSN_amocas_d, .rd = 10, .rs1 = 20, .rs2 = 11}, 8, 8, L | S},
    {{.op = INSN_lr_w, .rd = 10, .rs1 = 20}, 4, 4, L},
    {{.op = INSN_fld, .rd = 1, .rs1 = 20}, 24, 8, L},
    {{.op = INSN_fsw, .rs1 = 20, .rs2 = 1}, 28, 4, S},
    {{.op = INSN_cbo_zero, .rs1 = 20}, 0x40, 64, S},
};

/* The access in a loop of three rounds, of which each is to stop, or none. */
static void try_watch(size_t i, const struct hart_point *watch, bool stops)
{
    uint64_t va = DATA + (uint64_t)accesses[i].offset;
    hart->x[20] = va;
    hart->x[13] = 3;
    hart->pc = CODE;
    set_watch(watch);
    for (unsigned round = 0; round < 3 && stops; round++) {
        struct hart_stop stop = run_on();
        assert_int_equal(stop.reason, HART_STOP_WATCH);
        assert_int_equal(hart->pc, CODE);
        assert_int_equal(stop.accesses, watch->accesses);
        assert_int_equal(stop.address, va > watch->address ? va : watch->address);
        hart_debug_step(hart, HART_STEP_UNWATCHED);
        assert_int_equal(hart->pc, CODE + 4);
    }
    assert_stops(HART_STOP_NONE, CODE + 16);
    assert_int_equal(hart->x[13], 0);
}

static void watchpoints_are_exact_to_the_byte(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(accesses); i++) {
        start();
        hart->mstatus |= UINT64_C(3) << 13; /* FS */
        guest.at = CODE;
        guest_insn(&guest, accesses[i].insn);
        INSN(&guest, addi, .rd = 13, .rs1 = 13, .imm = -1);
        INSN(&guest, bne, .rs1 = 13, .rs2 = 0, .imm = -8);
        INSN(&guest, sd, .rs1 = 31);
        uint64_t first = DATA + (uint64_t)accesses[i].offset, last = first + accesses[i].size - 1;
        for (unsigned kinds = L; kinds <= (L | S); kinds++) {
            bool stops = kinds & accesses[i].accesses;
            struct hart_point watch = {.address = first, .size = 1, .accesses = kinds};
            try_watch(i, &watch, stops);
            watch.address = last;
            try_watch(i, &watch, stops);
            watch.address = last + 1;
            try_watch(i, &watch, false);
            watch.address = first - 1;
            try_watch(i, &watch, false);
            watch.size = 0x3000;
            try_watch(i, &watch, stops);
        }
        finish();
    }
}

/* A word is watched that an LR/SC sequence writes: it goes on after each stop. */
static void watched_sequences_come_to_an_end(void **state)
{
    const struct hart_point watch = {.address = DATA, .size = 8, .accesses = L | S};
    start();
    guest.at = CODE;
    INSN(&guest, lr_d, .rd = 10, .rs1 = 20);
    INSN(&guest, addi, .rd = 10, .rs1 = 10, .imm = 1);
    INSN(&guest, sc_d, .rd = 11, .rs1 = 20, .rs2 = 10);
    INSN(&guest, bne, .rs1 = 11, .rs2 = 0, .imm = -12);
    INSN(&guest, sd, .rs1 = 31);
    guest_store(&guest, DATA, 41);
    hart->x[20] = DATA;
    set_watch(&watch);
    assert_stops(HART_STOP_WATCH, CODE);
    hart_debug_step(hart, HART_STEP_UNWATCHED);
    assert_true(hart_holds_reservation(hart));
    hart_debug_step(hart, 0);
    hart_debug_step(hart, 0); /* the SC, which does not come to be executed */
    assert_int_equal(hart_take_stop(hart).reason, HART_STOP_WATCH);
    assert_int_equal(hart->pc, CODE + 8);
    hart_debug_step(hart, HART_STEP_UNWATCHED);
    assert_int_equal(hart->x[11], 0);
    assert_stops(HART_STOP_NONE, CODE + 20);
    assert_int_equal(guest_load(&guest, DATA), 42);
    finish();
}

/* Code in a page that PMP divides is fetched instruction by instruction. */
static void breakpoints_lie_in_divided_pages(void **state)
{
    const struct hart_point point = breakpoint(CODE + 12);
    start();
    assemble_loop();
    guest_set_csr(&guest, "pmpaddr0", (CODE + 0x800) >> 2);
    guest_set_csr(&guest, "pmpaddr1", UINT64_MAX);
    guest_set_csr(&guest, "pmpcfg0", 0x1f0f);
    set_breaks(&point, 1);
    hart->pc = CODE;
    for (unsigned i = 0; i < 3; i++) {
        assert_stops(HART_STOP_BREAK, CODE + 12);
        assert_int_equal(hart->x[12], i);
        hart_debug_step(hart, 0);
        assert_int_equal(hart->pc, CODE + 16);
    }
    set_breaks(NULL, 0);
    assert_stops(HART_STOP_NONE, CODE + 28);
    assert_int_equal(hart->x[10], 5050);
    finish();
}

/* A breakpoint in a page that is not there yet: the fault is the guest's, and the stop comes when
 * the instruction can be fetched. */
static void breakpoints_wait_for_their_page(void **state)
{
    const uint64_t table = RAM + 0x10000, va = 0x4000;
    const struct hart_point point = breakpoint(va);
    start();
    guest.at = DATA;
    INSN(&guest, addi, .rd = 10, .rs1 = 10, .imm = 1);
    guest_set_csr(&guest, "satp", UINT64_C(8) << 60 | table >> 12);
    guest_set_csr(&guest, "medeleg", 0);
    guest.at = HANDLER;
    INSN(&guest, sd, .rs1 = 31);
    set_breaks(&point, 1);
    hart_set_privilege(hart, PRIVILEGE_SUPERVISOR);
    hart->pc = va;
    assert_stops(HART_STOP_NONE, HANDLER + 4);
    assert_int_equal(hart->mcause, TRAP_FETCH_PAGE);

    guest_store(&guest, table, RAM >> 2 | 0xcf);
    hart_sfence(hart, 0, UINT64_MAX, UINT64_MAX);
    hart_set_privilege(hart, PRIVILEGE_SUPERVISOR);
    hart->pc = va;
    assert_stops(HART_STOP_BREAK, va);
    hart_debug_step(hart, 0);
    assert_int_equal(hart->pc, va + 4);
    assert_int_equal(hart->x[10], 1);
    finish();
}

/* --- Catches, steps, memory ------------------------------------------------------------------ */

static void traps_calls_and_waits_are_caught(void **state)
{
    start();
    guest.at = CODE;
    INSN(&guest, ebreak);
    points.exceptions = BIT(TRAP_BREAKPOINT);
    set_points();
    struct hart_stop stop = run_on();
    assert_int_equal(stop.reason, HART_STOP_TRAP);
    assert_int_equal(stop.cause, TRAP_BREAKPOINT);
    guest_assert_trap(&guest, TRAP_BREAKPOINT, CODE);

    points = (struct hart_points){.calls = true, .waits = true};
    set_points();
    guest.at = CODE;
    INSN(&guest, wfi);
    INSN(&guest, ecall);
    hart_fence_i(hart);
    hart->pc = CODE;
    assert_stops(HART_STOP_WAIT, CODE);
    hart_debug_step(hart, 0);
    assert_int_equal(hart->pc, CODE + 4);
    hart_set_privilege(hart, PRIVILEGE_SUPERVISOR);
    assert_stops(HART_STOP_CALL, CODE + 4);
    hart_debug_step(hart, HART_STEP_BREAKS);
    assert_int_equal(hart_take_stop(hart).reason, HART_STOP_CALL);
    assert_int_equal(hart->pc, CODE + 4);
    hart_debug_step(hart, 0);
    assert_int_equal(hart->mcause, TRAP_ECALL_S);
    finish();
}

static void steps_hold_interrupts_back(void **state)
{
    start();
    assemble_loop();
    guest_set_csr(&guest, "mie", BIT(INTERRUPT_MSI));
    guest_set_csr(&guest, "mstatus", 8); /* MIE */
    hart->pc = CODE;
    hart_set_interrupt(hart, INTERRUPT_MSI, true);
    hart_debug_step(hart, 0);
    assert_int_equal(hart->pc, CODE + 4);
    hart_debug_step(hart, HART_STEP_INTERRUPTS);
    assert_int_equal(hart->pc, HANDLER);
    finish();
}

static void memory_is_read_whatever_permissions_say(void **state)
{
    /* Sv39: one gigapage at VA 0 that is only executable, and not accessed yet. */
    const uint64_t table = RAM + 0x10000, va = 0x4000;
    struct hart_walk walk;
    uint64_t value = 0;
    start();
    guest_store(&guest, table, RAM >> 2 | 0x9);
    guest_store(&guest, DATA, 0x1122334455667788);
    guest_set_csr(&guest, "satp", UINT64_C(8) << 60 | table >> 12);
    assert_false(hart_memory_read(hart, va, &value, 8, PRIVILEGE_USER));
    assert_int_equal(hart_debug_read(hart, va, &value, 8, PRIVILEGE_USER), 8);
    assert_int_equal(value, 0x1122334455667788);
    assert_true(hart_debug_walk(hart, va, PRIVILEGE_USER, &walk));
    assert_int_equal(walk.count, 1);
    assert_int_equal(walk.shift, 30);
    assert_int_equal(walk.gpa, DATA);
    assert_false(hart_debug_walk(hart, UINT64_C(1) << 40, PRIVILEGE_USER, &walk));
    assert_non_null(walk.failure);
    assert_false(hart_debug_walk(hart, UINT64_C(1) << 30, PRIVILEGE_USER, &walk));
    assert_int_equal(walk.count, 1);

    /* What lies behind the end of RAM is not read. */
    uint8_t bytes[16];
    assert_int_equal(hart_debug_read(hart, RAM + RAM_SIZE - 4, bytes, 16, PRIVILEGE_MACHINE), 4);
    assert_int_equal(hart_debug_read(hart, RAM + RAM_SIZE - 4096, bytes, 16, PRIVILEGE_MACHINE),
                     16);
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(breakpoints_stop_before_their_instruction),
        cmocka_unit_test(conditions_and_address_spaces_decide),
        cmocka_unit_test(breakpoints_may_be_anywhere),
        cmocka_unit_test(breakpoints_lie_between_lr_and_sc),
        cmocka_unit_test(breakpoints_lie_in_divided_pages),
        cmocka_unit_test(breakpoints_wait_for_their_page),
        cmocka_unit_test(watchpoints_are_exact_to_the_byte),
        cmocka_unit_test(watched_sequences_come_to_an_end),
        cmocka_unit_test(traps_calls_and_waits_are_caught),
        cmocka_unit_test(steps_hold_interrupts_back),
        cmocka_unit_test(memory_is_read_whatever_permissions_say),
    };
    int failed = cmocka_run_group_tests_name("interpreted", tests, NULL, NULL);
    guest_translates = jit_available();
    if (guest_translates)
        failed += cmocka_run_group_tests_name("translated", tests, NULL, NULL);
    return failed;
}
