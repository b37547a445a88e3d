/* Programs that the JIT has been, or could be, wrong about; each runs on both engines. */
#include <stdlib.h>

#include "hart_guest.h"

#define CODE  (RAM + 0x1000)
#define DATA  (RAM + 0x20000)
#define TABLE (RAM + 0x100000)
#define LEAF  0xcf /* V, R, W, X, A, D */

enum { RA = 1, T0 = 5, T1, T2, S0 = 8, S1, A0, A1, S2 = 18 };

static struct guest guest;
static uint64_t trap, trap_pc;

static void end(void *opaque, struct hart *hart)
{
    hart_request(hart, ATTENTION_STOP);
}

static void unhandled(void *opaque, struct hart *hart, uint64_t cause, uint64_t tval)
{
    trap = cause;
    trap_pc = hart->pc;
    hart_request(hart, ATTENTION_STOP);
}

static void begin(void)
{
    const struct hart_hooks hooks = {.sbi = end, .unhandled = unhandled};
    guest_init(&guest, 1, "max", &hooks);
    hart_reset(guest.hart, CODE);
    guest_set_csr(&guest, "pmpaddr0", (UINT64_C(1) << 54) - 1);
    guest_set_csr(&guest, "pmpcfg0", 0x1f);
    guest.at = CODE;
    trap = trap_pc = UINT64_MAX;
}

static void run(enum privilege privilege)
{
    hart_set_privilege(guest.hart, privilege);
    guest_run(guest.hart);
}

static uint64_t pte(uint64_t gpa, unsigned flags)
{
    return gpa >> 12 << 10 | flags;
}

/* What no entry of the table of jumps may be taken for. */
static void test_jumps_to_odd_places(void **state)
{
    static const uint64_t targets[] = {UINT64_MAX, 1, 0, 2, 3, UINT64_MAX - 1};
    for (unsigned i = 0; i < ARRAY_SIZE(targets); i++) {
        begin();
        INSN(&guest, jalr, .rs1 = T0);
        guest.hart->x[T0] = targets[i];
        run(PRIVILEGE_USER);
        assert_int_equal(trap, TRAP_FETCH_ACCESS);
        assert_int_equal(trap_pc, targets[i] & ~UINT64_C(1));
        guest_finish(&guest);
    }
}

/* Constants on opposite ends of the address space are no group. */
static void test_constants_far_apart(void **state)
{
    begin();
    INSN(&guest, addi, .rd = A0, .imm = 1);
    INSN(&guest, slli, .rd = A0, .rs1 = A0, .imm = 31);
    INSN(&guest, addi, .rd = A0, .rs1 = A0, .imm = 0x400);
    INSN(&guest, addi, .rd = A1, .imm = -1);
    INSN(&guest, slli, .rd = A1, .rs1 = A1, .imm = 63);
    INSN(&guest, addi, .rd = A1, .rs1 = A1, .imm = 0x410);
    INSN(&guest, lw, .rd = T0, .rs1 = A0);
    INSN(&guest, lw, .rd = T1, .rs1 = A1);
    for (unsigned i = 0; i < 3; i++) {
        guest.hart->pc = CODE;
        run(PRIVILEGE_USER);
        assert_int_equal(trap, TRAP_LOAD_ACCESS);
        assert_int_equal(trap_pc, CODE + 28);
    }
    guest_finish(&guest);
}

/* A page is mapped elsewhere, and all of its code is other code after sfence.vma of its address. */
static void test_fence_of_a_page(void **state)
{
    begin();
    guest_store(&guest, TABLE + 16, pte(RAM, LEAF));
    guest_store(&guest, TABLE + 8, pte(TABLE + 0x1000, 1));
    guest_store(&guest, TABLE + 0x1000, pte(TABLE + 0x2000, 1));
    guest_store(&guest, TABLE + 0x2000, pte(RAM + 0x3000, LEAF));
    for (int i = 1; i <= 2; i++) {
        guest.at = RAM + 0x2010 + 0x1000 * (unsigned)i;
        INSN(&guest, addi, .rd = A0, .imm = i);
        INSN(&guest, jalr, .rs1 = RA);
    }
    guest.at = CODE;
    INSN(&guest, jalr, .rd = RA, .rs1 = S0);
    INSN(&guest, add, .rd = S1, .rs1 = A0);
    INSN(&guest, sd, .rs1 = T0, .rs2 = T1);
    INSN(&guest, sfence_vma, .rs1 = T2);
    INSN(&guest, jalr, .rd = RA, .rs1 = S0);
    INSN(&guest, add, .rd = S2, .rs1 = A0);
    INSN(&guest, ecall);
    guest_set_csr(&guest, "satp", UINT64_C(8) << 60 | TABLE >> 12);
    guest.hart->x[S0] = 0x40000010;
    guest.hart->x[T2] = 0x40000000;
    guest.hart->x[T0] = TABLE + 0x2000;
    guest.hart->x[T1] = pte(RAM + 0x4000, LEAF);
    run(PRIVILEGE_SUPERVISOR);
    assert_int_equal(guest.hart->x[S1], 1);
    assert_int_equal(guest.hart->x[S2], 2);
    guest_finish(&guest);
}

/* Floating point is switched off in the middle of a block. */
static void test_fs_off(void **state)
{
    begin();
    INSN(&guest, fmv_d_x, .rd = 1, .rs1 = 0);
    INSN(&guest, csrrc, .rs1 = T0, .imm = 0x100);
    INSN(&guest, fmv_d_x, .rd = 2, .rs1 = A0);
    INSN(&guest, ecall);
    guest.hart->x[T0] = 3 << 13;
    guest_set_csr(&guest, "mstatus", 3 << 13);
    run(PRIVILEGE_SUPERVISOR);
    assert_int_equal(trap, TRAP_ILLEGAL);
    assert_int_equal(trap_pc, CODE + 8);
    guest_finish(&guest);
}

/* A flag makes FS dirty as soon as sstatus is read. */
static void test_flags_make_dirty(void **state)
{
    begin();
    INSN(&guest, feq_d, .rd = A0, .rs1 = 1, .rs2 = 1);
    INSN(&guest, csrrs, .rd = A1, .imm = 0x100);
    INSN(&guest, ecall);
    guest.hart->f[1] = UINT64_C(0x7ff0000000000001); /* a signaling NaN */
    guest_set_csr(&guest, "mstatus", 1 << 13);
    run(PRIVILEGE_SUPERVISOR);
    assert_int_equal(guest.hart->x[A1] >> 63, 1);
    assert_int_equal(guest.hart->x[A1] >> 13 & 3, 3);
    guest_finish(&guest);
}

/* The SC that an LR meets may be another one than the next. */
static void test_two_scs(void **state)
{
    enum { TRIES = 100 };
    begin();
    INSN(&guest, sd, .rs1 = A0);
    INSN(&guest, fence_i);
    uint64_t loop = guest.at;
    INSN(&guest, addi, .rd = S1, .rs1 = S1, .imm = 1);
    INSN(&guest, beq, .rs1 = S1, .rs2 = S2, .imm = 8 * 4);
    INSN(&guest, lr_d, .rd = T0, .rs1 = A0);
    INSN(&guest, bne, .rs1 = T1, .imm = 3 * 4);
    INSN(&guest, sc_d, .rd = T0, .rs1 = A0, .rs2 = A1);
    INSN(&guest, ecall);
    INSN(&guest, sc_d, .rd = T0, .rs1 = A0, .rs2 = A1);
    INSN(&guest, bne, .rs1 = T0, .imm = (int32_t)(loop - guest.at));
    INSN(&guest, ecall);
    INSN(&guest, ecall);
    guest.hart->x[S2] = TRIES;
    guest.hart->x[T1] = 1;
    guest.hart->x[A0] = DATA;
    guest.hart->x[A1] = 7;
    run(PRIVILEGE_SUPERVISOR);
    assert_int_not_equal(guest.hart->x[S1], TRIES);
    assert_int_equal(guest_load(&guest, DATA), 7);
    guest_finish(&guest);
}

/* An LR that the interpreter executes leads, by an exclusive section and a trap, to what stands
 * behind it, without the reservation. */
static void test_lr_and_trap(void **state)
{
    begin();
    guest_store(&guest, TABLE + 16, pte(RAM, LEAF));
    INSN(&guest, addi, .rd = S1, .imm = 2);
    uint64_t top = guest.at;
    INSN(&guest, addi, .rd = S0, .imm = 1);
    INSN(&guest, sfence_vma);
    uint64_t lr = guest.at;
    INSN(&guest, lr_d, .rd = T0, .rs1 = A0);
    INSN(&guest, bne, .rs1 = S0, .imm = 3 * 4);
    INSN(&guest, sc_d, .rd = T0, .rs1 = A0, .rs2 = A1);
    INSN(&guest, ecall);
    INSN(&guest, ld, .rd = T2, .rs1 = T1); /* exposes the reservation */
    INSN(&guest, addi, .rd = S1, .rs1 = S1, .imm = -1);
    INSN(&guest, beq, .rs1 = S1, .imm = 3 * 4);
    INSN(&guest, sc_d, .rd = T0, .rs1 = A0, .rs2 = A1);
    INSN(&guest, jal, .imm = (int32_t)(top - guest.at));
    INSN(&guest, addi, .rd = S0, .imm = 0);
    INSN(&guest, ebreak);
    guest_set_csr(&guest, "medeleg", 0xb3ff);
    guest_set_csr(&guest, "stvec", lr + 4);
    guest_set_csr(&guest, "satp", UINT64_C(8) << 60 | TABLE >> 12);
    guest.hart->x[A0] = DATA;
    guest.hart->x[A1] = 7;
    guest.hart->x[T1] = DATA + 0x1000;
    run(PRIVILEGE_SUPERVISOR);
    assert_int_equal(guest.hart->scause, TRAP_BREAKPOINT);
    assert_int_equal(guest.hart->x[T0], 1); /* the SC fails */
    guest_finish(&guest);
}

/* Stores to code of which there are translations: pages are suspects for a while, are cleared when
 * there are many, and are suspects again. */
static void test_many_suspects(void **state)
{
    enum { PAGES = 40, ROUNDS = 300, FUNCTIONS = 0x100000 };
    begin();
    for (unsigned i = 0; i < PAGES; i++) {
        guest.at = RAM + FUNCTIONS + i * 4096u;
        INSN(&guest, addi, .rd = A0, .imm = 0);
        INSN(&guest, jalr, .rs1 = RA);
    }
    guest.at = CODE;
    uint64_t loop = guest.at;
    INSN(&guest, sw, .rs1 = S0, .rs2 = T0); /* addi a0, x0, n */
    INSN(&guest, fence_i);
    INSN(&guest, jalr, .rd = RA, .rs1 = S0);
    INSN(&guest, add, .rd = S2, .rs1 = S2, .rs2 = A0);
    INSN(&guest, add, .rd = S0, .rs1 = S0, .rs2 = T1); /* the next page */
    INSN(&guest, bne, .rs1 = S0, .rs2 = A1, .imm = 3 * 4);
    INSN(&guest, sub, .rd = S0, .rs1 = S0, .rs2 = T2); /* the first */
    INSN(&guest, add, .rd = T0, .rs1 = T0, .rs2 = 19); /* n + 1 */
    INSN(&guest, addi, .rd = S1, .rs1 = S1, .imm = -1);
    INSN(&guest, bne, .rs1 = S1, .imm = (int32_t)(loop - guest.at));
    INSN(&guest, ecall);
    struct insn one = {.op = INSN_addi, .rd = A0, .imm = 1, .length = 4};
    guest.hart->x[S0] = RAM + FUNCTIONS;
    guest.hart->x[T0] = isa_encode(&one);
    guest.hart->x[19] = 1 << 20;
    guest.hart->x[T1] = 4096;
    guest.hart->x[T2] = PAGES * 4096;
    guest.hart->x[A1] = RAM + FUNCTIONS + PAGES * 4096;
    guest.hart->x[S1] = ROUNDS;
    uint64_t expected = 0;
    for (unsigned i = 0; i < ROUNDS; i++)
        expected += 1 + i / PAGES;
    run(PRIVILEGE_SUPERVISOR);
    assert_int_equal(guest.hart->x[S2], expected);
    guest_finish(&guest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jumps_to_odd_places), cmocka_unit_test(test_constants_far_apart),
        cmocka_unit_test(test_fence_of_a_page),     cmocka_unit_test(test_fs_off),
        cmocka_unit_test(test_flags_make_dirty),    cmocka_unit_test(test_two_scs),
        cmocka_unit_test(test_lr_and_trap),         cmocka_unit_test(test_many_suspects),
    };
    int failed = cmocka_run_group_tests_name("interpreted", tests, NULL, NULL);
    guest_translates = true;
    return failed + cmocka_run_group_tests_name("translated", tests, NULL, NULL);
}
