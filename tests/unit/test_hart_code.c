/* Fetching and decoding: coherence by fence.i, instructions across pages, jumps, steps, traces. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "hart_guest.h"

static struct guest guest;

static void start(const char *cpu)
{
    guest_init(&guest, 1, cpu, NULL);
    guest_open(&guest);
    guest.hart->x[31] = STOP;
}

static void run_from(uint64_t pc)
{
    guest.hart->pc = pc;
    guest_run(guest.hart);
}

static uint32_t bits_of(struct insn insn)
{
    return isa_encode(&insn);
}

/* a0 = what `at` loads; then stop. */
static void function(uint64_t at, int value)
{
    guest.at = at;
    INSN(&guest, addi, .rd = 10, .imm = value);
    INSN(&guest, sd, .rs1 = 31);
}

static void code_is_seen_after_fence_i(void **state)
{
    start(NULL);
    function(RAM + 0x2000, 1);
    run_from(RAM + 0x2000);
    assert_int_equal(guest.hart->x[10], 1);

    /* Written past the hart; then the guest executes fence.i. */
    function(RAM + 0x2000, 2);
    run_from(RAM + 0x2000);
    guest.at = RAM;
    INSN(&guest, fence_i);
    INSN(&guest, jal, .imm = 0x2000 - 4);
    run_from(RAM);
    assert_int_equal(guest.hart->x[10], 2);

    /* In the page that is executing, by a store of its own. */
    guest.at = RAM + 0x3000;
    guest.hart->x[5] = bits_of((struct insn){.op = INSN_addi, .rd = 10, .imm = 4});
    guest.hart->x[6] = RAM + 0x3000 + 3 * 4;
    INSN(&guest, jal, .imm = 4);
    INSN(&guest, sw, .rs1 = 6, .rs2 = 5);
    INSN(&guest, fence_i);
    INSN(&guest, addi, .rd = 10, .imm = 3);
    INSN(&guest, sd, .rs1 = 31);
    run_from(RAM + 0x3000);
    assert_int_equal(guest.hart->x[10], 4);

    /* A debugger's write needs no fence.i. */
    uint32_t word = bits_of((struct insn){.op = INSN_addi, .rd = 10, .imm = 5});
    assert_true(hart_memory_write(guest.hart, RAM + 0x2000, &word, 4, PRIVILEGE_MACHINE));
    run_from(RAM + 0x2000);
    assert_int_equal(guest.hart->x[10], 5);
    guest_finish(&guest);
}

/* More pages than the cache holds, twice: pages that were thrown out come back right. */
static void many_pages_of_code(void **state)
{
    enum { PAGES = 1500 };
    start(NULL);
    for (unsigned i = 0; i < PAGES; i++) {
        guest.at = RAM + 0x100000 + 0x1000 * i + 8 * (i % 500);
        INSN(&guest, addi, .rd = 10, .rs1 = 10, .imm = 1);
        uint64_t next = RAM + 0x100000 + 0x1000 * (i + 1) + 8 * ((i + 1) % 500);
        INSN(&guest, jal, .imm = (int32_t)(next - guest.at));
    }
    guest.at = RAM + 0x100000 + 0x1000 * PAGES + 8 * (PAGES % 500);
    INSN(&guest, sd, .rs1 = 31);
    run_from(RAM + 0x100000);
    run_from(RAM + 0x100000);
    assert_int_equal(guest.hart->x[10], 2 * PAGES);
    guest_finish(&guest);
}

static void instructions_lie_across_pages(void **state)
{
    uint64_t end = RAM + 0x3000;
    start(NULL);
    guest.at = end - 6;
    INSN(&guest, addi, .rd = 1, .imm = 1);
    INSN(&guest, auipc, .rd = 2, .imm = 0x1000); /* its second half is in the next page */
    INSN(&guest, jal, .rd = 3, .imm = -0x100);
    guest.at = end + 2 - 0x100;
    INSN(&guest, addi, .rd = 4, .imm = 4);
    INSN(&guest, sd, .rs1 = 31);
    run_from(end - 6);
    assert_int_equal(guest.hart->x[1], 1);
    assert_int_equal(guest.hart->x[2], end - 2 + 0x1000);
    assert_int_equal(guest.hart->x[3], end + 2 + 4);
    assert_int_equal(guest.hart->x[4], 4);
    assert_int_equal(guest.hart->instret, 5);

    /* The jump itself across the border, backwards into its own page. */
    guest.at = end - 2;
    INSN(&guest, jal, .rd = 5, .imm = -0xfe);
    guest.at = end - 0x100;
    INSN(&guest, addi, .rd = 6, .imm = 6);
    INSN(&guest, sd, .rs1 = 31);
    hart_fence_i(guest.hart);
    run_from(end - 2);
    assert_int_equal(guest.hart->x[5], end + 2);
    assert_int_equal(guest.hart->x[6], 6);
    guest_finish(&guest);
}

/* The second half is where nothing can be fetched: its address is reported, pc is the first's. */
static void a_missing_second_half_faults(void **state)
{
    uint64_t end = RAM + RAM_SIZE;
    start(NULL);
    guest.at = end - 4;
    guest_half(&guest, 0x0001); /* c.nop */
    guest_half(&guest, 0x0513); /* half an addi */
    guest.hart->pc = end - 4;
    hart_step(guest.hart);
    assert_int_equal(guest.hart->pc, end - 2);
    hart_step(guest.hart);
    guest_assert_trap(&guest, TRAP_FETCH_ACCESS, end);
    assert_int_equal(guest.hart->mepc, end - 2);

    guest.at = end - 2;
    guest_half(&guest, 0x0001);
    hart_fence_i(guest.hart);
    guest.hart->pc = end - 2;
    hart_step(guest.hart);
    hart_step(guest.hart);
    guest_assert_trap(&guest, TRAP_FETCH_ACCESS, end);
    assert_int_equal(guest.hart->mepc, end);
    guest_finish(&guest);
}

static void branches_reach_their_targets(void **state)
{
    static const int32_t distances[] = {8, -8, 0x7fe, -0x800, 0xffe, -0x1000};
    start(NULL);
    for (unsigned place = 0; place < 0x1000; place += 0x3f2)
        for (unsigned i = 0; i < ARRAY_SIZE(distances); i++) {
            uint64_t pc = RAM + 0x8000 + place;
            guest.at = pc;
            INSN(&guest, beq, .imm = distances[i]);
            hart_fence_i(guest.hart);
            guest.hart->pc = pc;
            hart_step(guest.hart);
            assert_int_equal(guest.hart->pc, pc + distances[i]);
            guest.at = pc;
            INSN(&guest, bne, .imm = distances[i]);
            hart_fence_i(guest.hart);
            guest.hart->pc = pc;
            hart_step(guest.hart);
            assert_int_equal(guest.hart->pc, pc + 4);
        }
    guest.hart->x[5] = RAM + 0x9001;
    STEP(&guest, jalr, .rd = 5, .rs1 = 5, .imm = 0x10); /* bit 0 is cleared, rd is rs1 */
    assert_int_equal(guest.hart->pc, RAM + 0x9010);
    guest_finish(&guest);
}

/* Without C, jumps to half-words trap, and only when they are taken. */
static void misaligned_targets_trap_without_c(void **state)
{
    start("no-c");
    STEP(&guest, bne, .imm = 6);
    assert_int_equal(guest.hart->pc, RAM + 4);
    STEP(&guest, beq, .imm = 6);
    guest_assert_trap(&guest, TRAP_FETCH_MISALIGNED, RAM + 10);
    assert_int_equal(guest.hart->mepc, RAM + 4);
    guest.hart->pc = RAM;
    guest.hart->x[1] = 7;
    STEP(&guest, jal, .rd = 1, .imm = 0x1002);
    guest_assert_trap(&guest, TRAP_FETCH_MISALIGNED, RAM + 0x1002);
    assert_int_equal(guest.hart->x[1], 7);
    guest.hart->pc = RAM;
    guest.hart->x[2] = RAM;
    STEP(&guest, jalr, .rd = 1, .rs1 = 2, .imm = 0x12);
    guest_assert_trap(&guest, TRAP_FETCH_MISALIGNED, RAM + 0x12);
    assert_int_equal(guest.hart->x[1], 7);
    guest.at = guest.hart->pc = RAM;
    guest_word(&guest, 0x00010001); /* two c.nop */
    hart_fence_i(guest.hart);
    hart_step(guest.hart);
    guest_assert_trap(&guest, TRAP_ILLEGAL, 0x0001);
    guest_finish(&guest);
}

static void x0_stays_zero(void **state)
{
    start(NULL);
    guest.hart->x[5] = RAM + 0x4000;
    guest_store(&guest, RAM + 0x4000, 77);
    STEP(&guest, addi, .rd = 0, .imm = 5);
    STEP(&guest, ld, .rd = 0, .rs1 = 5);
    STEP(&guest, amoadd_d, .rd = 0, .rs1 = 5, .rs2 = 5);
    STEP(&guest, csrrs, .rd = 0, .imm = guest_csr_number("misa"));
    STEP(&guest, jal, .rd = 0, .imm = 8);
    assert_int_equal(guest.hart->x[0], 0);
    STEP(&guest, add, .rd = 6, .rs1 = 0, .rs2 = 0);
    assert_int_equal(guest.hart->x[6], 0);
    /* amocas with rd = x0 compares with zero. */
    guest_store(&guest, RAM + 0x4000, 0);
    STEP(&guest, amocas_d, .rd = 0, .rs1 = 5, .rs2 = 5);
    assert_int_equal(guest_load(&guest, RAM + 0x4000), RAM + 0x4000);
    STEP(&guest, amocas_d, .rd = 0, .rs1 = 5, .rs2 = 6);
    assert_int_equal(guest_load(&guest, RAM + 0x4000), RAM + 0x4000);
    /* amocas.q takes pairs; x0 stands for a pair of zeros. */
    guest_store(&guest, RAM + 0x4000, 10);
    guest_store(&guest, RAM + 0x4008, 11);
    guest.hart->x[8] = 10;
    guest.hart->x[9] = 11;
    STEP(&guest, amocas_q, .rd = 8, .rs1 = 5, .rs2 = 0);
    assert_int_equal(guest_load(&guest, RAM + 0x4000), 0);
    assert_int_equal(guest_load(&guest, RAM + 0x4008), 0);
    guest.hart->x[12] = 12;
    guest.hart->x[13] = 13;
    guest.hart->x[1] = 1;
    STEP(&guest, amocas_q, .rd = 0, .rs1 = 5, .rs2 = 12);
    assert_int_equal(guest_load(&guest, RAM + 0x4008), 13);
    assert_int_equal(guest.hart->x[1], 1);
    guest_finish(&guest);
}

static void steps_execute_one_instruction(void **state)
{
    start(NULL);
    guest.at = RAM + 0x1ffc - 2;
    guest_half(&guest, 0x0085); /* c.addi ra, 1 */
    INSN(&guest, addi, .rd = 1, .rs1 = 1, .imm = 1);
    INSN(&guest, jal, .imm = -4); /* in the next page */
    guest.hart->pc = RAM + 0x1ffa;
    static const uint64_t pcs[] = {0x1ffc, 0x2000, 0x1ffc, 0x2000, 0x1ffc};
    for (unsigned i = 0; i < ARRAY_SIZE(pcs); i++) {
        hart_step(guest.hart);
        assert_int_equal(guest.hart->pc, RAM + pcs[i]);
        assert_int_equal(guest.hart->instret, i + 1);
    }
    assert_int_equal(guest.hart->x[1], 3);
    guest_finish(&guest);
}

/* Every instruction that can be encoded is executed once with arbitrary registers: whatever it
 * does, x0 stays zero and pc goes on or to the handler. */
static void every_instruction_executes(void **state)
{
    start(NULL);
    for (unsigned op = INSN_illegal + 1; op < INSN_COUNT; op++) {
        if (op == INSN_wfi || op == INSN_mret || op == INSN_sret)
            continue;
        hart_reset(guest.hart, RAM);
        guest_open(&guest);
        guest_set_csr(&guest, "mstatus", BIT(13));
        for (unsigned i = 1; i < 32; i++)
            guest.hart->x[i] = RAM + 0x40000 + 16 * i;
        unsigned operands = isa_instruction(op)->operands;
        guest.at = RAM;
        guest_insn(&guest, (struct insn){
                               .op = op,
                               .rd = operands & ISA_RD ? 4 : 0,
                               .rs1 = operands & ISA_RS1 ? 6 : 0,
                               .rs2 = operands & ISA_RS2 ? 8 : 0,
                               .rs3 = operands & ISA_RS3 ? 10 : 0,
                           });
        hart_fence_i(guest.hart);
        hart_step(guest.hart);
        uint64_t target = guest.hart->x[6] & ~UINT64_C(1);
        bool fine = guest.hart->pc == RAM + 4 || guest.hart->pc == HANDLER ||
                    guest.hart->pc == RAM || (op == INSN_jalr && guest.hart->pc == target);
        if (!fine || guest.hart->x[0])
            fail_msg("%s: pc 0x%llx", isa_instruction(op)->mnemonic,
                     (unsigned long long)guest.hart->pc);
        /* csrrw and the like name no CSR here, ecall and ebreak trap by design. */
        if (guest.hart->pc == HANDLER && !(isa_instruction(op)->flags & ISA_SYSTEM))
            fail_msg("%s trapped", isa_instruction(op)->mnemonic);
    }
    guest_finish(&guest);
}

static void execution_is_traced(void **state)
{
    char path[] = "/tmp/hartvisor-trace-XXXXXX", specification[64], line[256];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    snprintf(specification, sizeof(specification), "exec,trap,csr:%s", path);
    struct error err;
    assert_true(trace_configure(specification, &err));
    start(NULL);
    INSN(&guest, addi, .rd = 10, .imm = 42);
    guest_half(&guest, 0x0505); /* c.addi a0, 1 */
    INSN(&guest, csrrw, .rs1 = 10, .imm = guest_csr_number("mscratch"));
    INSN(&guest, ecall);
    guest.at = HANDLER;
    INSN(&guest, sd, .rs1 = 31);
    guest_run(guest.hart);
    trace_finish();
    assert_int_equal(guest.hart->x[10], 43);

    static const char *const expected[] = {
        "hart 0 M 0000000080000000 02a00513 addi a0,zero,42  # a0=0x2a",
        "hart 0 M 0000000080000004 0505     c.addi a0,1  # a0=0x2b",
        "hart 0 pc 0x80000006 mscratch 0x0 <- 0x2b",
        "hart 0 M 0000000080000006 34051073 csrrw zero,mscratch,a0",
        "hart 0 M->M environment call from M-mode, pc 0x8000000a tval 0x0",
        "hart 0 M 000000008000000a 00000073 ecall",
        "hart 0 M 0000000080008000 000fb023 sd zero,0(t6)",
    };
    FILE *file = fdopen(fd, "r");
    for (unsigned i = 0; i < ARRAY_SIZE(expected); i++) {
        assert_non_null(fgets(line, sizeof(line), file));
        if (!strstr(line, expected[i]))
            fail_msg("'%s' is not '%s'", line, expected[i]);
    }
    assert_null(fgets(line, sizeof(line), file));
    fclose(file);
    unlink(path);
    guest_finish(&guest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(code_is_seen_after_fence_i),
        cmocka_unit_test(many_pages_of_code),
        cmocka_unit_test(instructions_lie_across_pages),
        cmocka_unit_test(a_missing_second_half_faults),
        cmocka_unit_test(branches_reach_their_targets),
        cmocka_unit_test(misaligned_targets_trap_without_c),
        cmocka_unit_test(x0_stays_zero),
        cmocka_unit_test(steps_execute_one_instruction),
        cmocka_unit_test(every_instruction_executes),
        cmocka_unit_test(execution_is_traced),
    };
    int failed = cmocka_run_group_tests_name("interpreted", tests, NULL, NULL);
    guest_translates = jit_available();
    if (guest_translates)
        failed += cmocka_run_group_tests_name("translated", tests, NULL, NULL);
    return failed;
}
