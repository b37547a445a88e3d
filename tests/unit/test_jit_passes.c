/* The stages of the JIT before host code, each by itself: reading, folding, rotations, sharing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "jit/ir.h"

#define PC UINT64_C(0x40001000)

enum { ZERO, RA, SP, S0 = 8, A0 = 10, A1, A2, A3, A4, A5, PAGE = 4096 };

static uint8_t page[PAGE];
static unsigned at;
static struct ir_block block;

static void put(struct insn insn)
{
    insn.length = 4;
    uint32_t bits = isa_encode(&insn);
    assert_int_not_equal(bits, 0);
    store_le(page + at, bits, 4);
    at += 4;
}

#define PUT(name, ...) put((struct insn){.op = INSN_##name, __VA_ARGS__})

static void start(unsigned offset)
{
    memset(page, 0, sizeof(page));
    at = offset;
}

static void read_from(unsigned offset)
{
    struct isa_extensions extensions = isa_extensions_default();
    ir_read(&block, page, PC + offset, &extensions, NULL);
}

static const struct ir *ir(unsigned i)
{
    assert_true(i < block.count);
    return &block.code[i];
}

/* --- Reading ---------------------------------------------------------------------------------- */

static void test_reading(void **state)
{
    start(0);
    PUT(addi, .rd = A0, .rs1 = A0, .imm = 1);
    PUT(beq, .rs1 = A0, .rs2 = A1, .imm = 0x40);
    PUT(jal, .imm = 8); /* followed */
    PUT(addi, .rd = A1, .imm = 7);
    PUT(auipc, .rd = A2, .imm = 0x1000);
    PUT(ecall, .imm = 0);
    read_from(0);
    assert_int_equal(block.count, 6);
    assert_int_equal(ir(1)->imm, PC + 4 + 0x40);
    assert_int_equal(ir(3)->op, IR_CONSTANT);
    assert_int_equal(ir(3)->imm, PC + 16 + 0x1000);
    assert_int_equal(ir(4)->op, IR_CALL);
    assert_int_equal(ir(5)->op, IR_EXIT);
    assert_int_equal(ir(5)->index, 5);
    assert_int_equal(ir(5)->imm, PC + 24);
}

static void test_end_of_page(void **state)
{
    start(PAGE - 6);
    PUT(addi, .rd = A0, .imm = 1);
    page[PAGE - 2] = 0x13; /* the first half of an instruction */
    read_from(PAGE - 6);
    assert_int_equal(block.count, 2);
    assert_int_equal(ir(1)->op, IR_EXIT);
    assert_int_equal(ir(1)->imm, PC + PAGE - 2);
    read_from(PAGE - 2);
    assert_int_equal(block.count, 0);
}

static void test_length(void **state)
{
    start(0);
    for (unsigned i = 0; i < 100; i++)
        PUT(addi, .rd = A0, .rs1 = A0, .imm = 1);
    read_from(0);
    assert_int_equal(block.count, IR_BLOCK_MAX + 1);
    assert_int_equal(ir(IR_BLOCK_MAX)->imm, PC + 4 * IR_BLOCK_MAX);
}

/* --- LR and SC -------------------------------------------------------------------------------- */

/* lr.w a0, (s0); MIDDLE; sc.w a1, a2, (s0). What became of the LR? */
static void reservation(const struct insn *middle, struct insn sc)
{
    start(0);
    PUT(lr_w, .rd = A0, .rs1 = S0);
    if (middle)
        put(*middle);
    put(sc);
    PUT(ecall, .imm = 0);
    read_from(0);
}

static void test_pairs(void **state)
{
    const struct insn sc = {.op = INSN_sc_w, .rd = A1, .rs1 = S0, .rs2 = A2};
    const struct insn add = {.op = INSN_addi, .rd = A2, .rs1 = A0, .imm = 1};
    const struct insn out = {.op = INSN_bne, .rs1 = A0, .rs2 = A3, .imm = 64};
    const struct insn again = {.op = INSN_bne, .rs1 = A0, .rs2 = A3, .imm = -4};
    const struct insn *const simple[] = {NULL, &add, &out, &again};
    for (unsigned i = 0; i < ARRAY_SIZE(simple); i++) {
        reservation(simple[i], sc);
        assert_int_equal(ir(0)->op, INSN_lr_w);
        assert_true(ir(0)->paired);
        assert_true(ir(simple[i] ? 2 : 1)->paired);
    }

    const struct insn inside = {.op = INSN_bne, .rs1 = A0, .rs2 = A3, .imm = 4};
    const struct insn load = {.op = INSN_ld, .rd = A2, .rs1 = SP};
    const struct insn address = {.op = INSN_addi, .rd = S0, .rs1 = S0, .imm = 4};
    const struct insn jump = {.op = INSN_jal, .imm = 4};
    const struct insn *const others[] = {&inside, &load, &address, &jump};
    for (unsigned i = 0; i < ARRAY_SIZE(others); i++) {
        reservation(others[i], sc);
        assert_int_equal(ir(0)->op, IR_CALL);
        assert_int_equal(block.count, 2);
    }
    const struct insn wrong[] = {
        {.op = INSN_sc_w, .rd = A1, .rs1 = A3, .rs2 = A2},
        {.op = INSN_sc_d, .rd = A1, .rs1 = S0, .rs2 = A2},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
        reservation(&add, wrong[i]);
        assert_int_equal(ir(0)->op, IR_CALL);
    }
}

/* The second LR of a block does not take the first one's SC for its own. */
static void test_second_pair(void **state)
{
    start(0);
    PUT(lr_w, .rd = A0, .rs1 = S0);
    PUT(sc_w, .rd = A1, .rs1 = S0, .rs2 = A2);
    for (unsigned i = 0; i < 50; i++)
        PUT(addi, .rd = A3, .rs1 = A3, .imm = 1);
    PUT(lr_w, .rd = A0, .rs1 = S0);
    PUT(sc_w, .rd = A1, .rs1 = S0, .rs2 = A2);
    read_from(0);
    assert_true(ir(1)->paired);
    assert_int_equal(block.count, 54); /* too near to the end of the block */
    assert_int_equal(ir(52)->op, IR_CALL);
    read_from(52 * 4);
    assert_true(ir(0)->paired);
    read_from(53 * 4);
    assert_int_equal(ir(0)->op, INSN_sc_w);
    assert_false(ir(0)->paired);
}

/* --- Folding ---------------------------------------------------------------------------------- */

static void test_folding(void **state)
{
    start(0);
    PUT(lui, .rd = A0, .imm = 0x12345000);
    PUT(addi, .rd = A0, .rs1 = A0, .imm = 0x678);
    PUT(slli, .rd = A1, .rs1 = A0, .imm = 4);
    PUT(addi, .rd = A2, .rs1 = S0, .imm = 0);
    PUT(add, .rd = ZERO, .rs1 = A0, .rs2 = A1);
    PUT(auipc, .rd = RA, .imm = 0x2000);
    PUT(jalr, .rd = RA, .rs1 = RA, .imm = 0x10);
    read_from(0);
    ir_fold(&block);
    assert_int_equal(ir(1)->op, IR_CONSTANT);
    assert_int_equal(ir(1)->imm, 0x12345678);
    assert_int_equal(ir(2)->imm, 0x123456780);
    assert_int_equal(ir(3)->op, IR_MOVE);
    assert_int_equal(ir(4)->op, IR_NOTHING);
    assert_int_equal(ir(6)->op, IR_CONSTANT);
    assert_int_equal(ir(6)->imm, PC + 28);
    assert_int_equal(ir(7)->op, IR_EXIT);
    assert_int_equal(ir(7)->imm, PC + 20 + 0x2010);
}

/* --- Rotations -------------------------------------------------------------------------------- */

static void test_rotation(void **state)
{
    start(0);
    PUT(srliw, .rd = A1, .rs1 = A0, .imm = 25);
    PUT(slliw, .rd = A2, .rs1 = A0, .imm = 7);
    PUT(lw, .rd = A3, .rs1 = S0);
    PUT(addiw, .rd = A0, .rs1 = A0); /* keeps the word */
    PUT(or, .rd = A4, .rs1 = A1, .rs2 = A2);
    read_from(0);
    ir_rotate(&block);
    assert_true(ir(0)->later);
    assert_true(ir(1)->later);
    assert_int_equal(ir(4)->op, INSN_roriw);
    assert_int_equal(ir(4)->rs1, A0);
    assert_int_equal(ir(4)->imm, 25);
}

static void test_no_rotation(void **state)
{
    start(0);
    PUT(slliw, .rd = A1, .rs1 = A0, .imm = 7);
    PUT(srliw, .rd = A2, .rs1 = A0, .imm = 24); /* not 32 together */
    PUT(or, .rd = A3, .rs1 = A1, .rs2 = A2);    /* 2 */
    PUT(srliw, .rd = A2, .rs1 = A0, .imm = 25);
    PUT(addi, .rd = A0, .rs1 = A0, .imm = 1);  /* another word */
    PUT(or, .rd = A3, .rs1 = A1, .rs2 = A2);   /* 5 */
    PUT(slliw, .rd = A1, .rs1 = A1, .imm = 7); /* of itself */
    PUT(srliw, .rd = A2, .rs1 = A1, .imm = 25);
    PUT(or, .rd = A3, .rs1 = A1, .rs2 = A2); /* 8 */
    read_from(0);
    ir_rotate(&block);
    assert_int_equal(ir(2)->op, INSN_or);
    assert_int_equal(ir(5)->op, INSN_or);
    assert_int_equal(ir(8)->op, INSN_or);
    for (unsigned i = 0; i <= 8; i++)
        assert_false(ir(i)->later);
}

/* --- Arms ------------------------------------------------------------------------------------- */

/* A loop with an if and its else, each of which goes back. */
static void read_arms(void)
{
    start(0);
    PUT(ld, .rd = A0, .rs1 = S0);           /* 0 */
    PUT(addi, .rd = A1, .imm = 7);          /* 1: forgotten where 2 is taken */
    PUT(beq, .rs1 = A0, .imm = 5 * 4);      /* 2: to 7 */
    PUT(ld, .rd = A2, .rs1 = S0, .imm = 8); /* 3 */
    PUT(bne, .rs1 = A2, .imm = -4 * 4);     /* 4: again */
    PUT(beq, .rs1 = A2, .imm = 40 * 4);     /* 5: leaves */
    PUT(jalr, .rs1 = RA);                   /* 6 */
    PUT(addi, .rd = A3, .rs1 = A1, .imm = 1);
    PUT(ld, .rd = A2, .rs1 = S0, .imm = 16);
    PUT(jal, .imm = -9 * 4); /* again */
    read_from(0);
}

static void test_arms(void **state)
{
    read_arms();
    assert_int_equal(block.arm_count, 1);
    assert_int_equal(block.arms[0].branch, 2);
    assert_int_equal(block.arms[0].begin, 8); /* behind the jalr, which may become two */
    assert_ptr_equal(ir_arm_of(&block, 2), &block.arms[0]);
    assert_ptr_equal(ir_arm_at(&block, 8), &block.arms[0]);
    assert_int_equal(ir(8)->pc, PC + 7 * 4);
    assert_int_equal(ir(8)->index, 3);
    assert_int_equal(ir(11)->op, IR_EXIT);
    assert_int_equal(ir(11)->imm, PC);
    assert_int_equal(ir(11)->index, 6);
    assert_int_equal(block.count, 12);
}

static void test_passes_over_arms(void **state)
{
    read_arms();
    ir_fold(&block);
    ir_share(&block);
    assert_int_equal(ir(8)->op, INSN_addi); /* nothing is known there */
    assert_true(ir(0)->share_begins);
    assert_int_equal(ir(0)->last, 23);
    assert_int_equal(ir(3)->share, ir(0)->share);
    assert_int_equal(ir(9)->share, ir(0)->share);
}

/* --- Sharing ---------------------------------------------------------------------------------- */

static void share(void)
{
    PUT(ecall, .imm = 0);
    read_from(0);
    ir_fold(&block);
    ir_share(&block);
}

/* A function's entry and exit: one frame, though sp changes. */
static void test_frame(void **state)
{
    start(0);
    PUT(addi, .rd = SP, .rs1 = SP, .imm = -32);
    PUT(sd, .rs1 = SP, .rs2 = RA, .imm = 24);
    PUT(sw, .rs1 = SP, .rs2 = S0, .imm = 0);
    PUT(ld, .rd = A0, .rs1 = SP, .imm = 8);
    PUT(addi, .rd = SP, .rs1 = SP, .imm = 32);
    PUT(ld, .rd = RA, .rs1 = SP, .imm = -8);
    share();
    assert_true(ir(1)->share_begins);
    assert_int_equal(ir(1)->first, -24);
    assert_int_equal(ir(1)->last, 7);
    for (unsigned i = 2; i <= 5; i++)
        if (i != 4) {
            assert_int_equal(ir(i)->share, ir(1)->share);
            assert_false(ir(i)->share_begins);
        }
}

static void test_no_sharing(void **state)
{
    start(0);
    PUT(ld, .rd = A0, .rs1 = S0, .imm = 0); /* 0: it is not sure that 2 stores */
    PUT(beq, .rs1 = A0, .rs2 = A1, .imm = 64);
    PUT(sd, .rs1 = S0, .rs2 = A0, .imm = 8);   /* 2 */
    PUT(ld, .rd = A1, .rs1 = SP, .imm = 0);    /* 3: too far from 4 */
    PUT(ld, .rd = A1, .rs1 = SP, .imm = 2000); /* 4 */
    PUT(ld, .rd = A2, .rs1 = A3, .imm = 0);    /* 5: another address in 7 */
    PUT(add, .rd = A3, .rs1 = A3, .rs2 = A0);
    PUT(ld, .rd = A2, .rs1 = A3, .imm = 0); /* 7 */
    share();
    for (unsigned i = 0; i <= 7; i++)
        assert_int_equal(ir(i)->share, 0);
}

/* A load that a store is sure to follow asks for its permission as well. */
static void test_sharing_with_store(void **state)
{
    start(0);
    PUT(ld, .rd = A0, .rs1 = S0, .imm = 8);
    PUT(addi, .rd = A0, .rs1 = A0, .imm = 1);
    PUT(sd, .rs1 = S0, .rs2 = A0, .imm = 8);
    share();
    assert_true(ir(0)->share_begins);
    assert_true(ir(0)->share_stores);
    assert_int_equal(ir(0)->first, 0);
    assert_int_equal(ir(0)->last, 7);
    assert_int_equal(ir(2)->share, ir(0)->share);
}

/* The index of a table. */
static void test_scale(void **state)
{
    start(0);
    PUT(slli, .rd = A5, .rs1 = A4, .imm = 3);
    PUT(add, .rd = A5, .rs1 = A0, .rs2 = A5);
    PUT(slli, .rd = A4, .rs1 = A4, .imm = 2);
    PUT(add, .rd = A4, .rs1 = A4, .rs2 = A4);
    read_from(0);
    ir_fold(&block);
    assert_int_equal(ir(0)->op, IR_NOTHING);
    assert_int_equal(ir(1)->op, INSN_sh3add);
    assert_int_equal(ir(1)->rs1, A4);
    assert_int_equal(ir(1)->rs2, A0);
    assert_int_equal(ir(3)->op, INSN_add);
}

/* Behind a CSR access the same address may be translated otherwise. */
static void test_sharing_ends(void **state)
{
    start(0);
    PUT(ld, .rd = A0, .rs1 = S0, .imm = 0);
    PUT(ld, .rd = A1, .rs1 = S0, .imm = 8);
    PUT(csrrc, .rd = ZERO, .rs1 = A2, .imm = 0x100);
    PUT(ld, .rd = A0, .rs1 = S0, .imm = 16);
    PUT(ld, .rd = A1, .rs1 = S0, .imm = 24);
    share();
    assert_true(ir(0)->share_begins);
    assert_int_equal(ir(0)->last, 15);
    assert_true(ir(3)->share_begins);
    assert_int_not_equal(ir(3)->share, ir(0)->share);
}

/* A register that is loaded over is another value from then on. */
static void test_loaded_base(void **state)
{
    start(0);
    PUT(ld, .rd = A0, .rs1 = A0, .imm = 0);
    PUT(ld, .rd = A0, .rs1 = A0, .imm = 8);
    PUT(ld, .rd = A1, .rs1 = A0, .imm = 0);
    PUT(lw, .rd = A2, .rs1 = A0, .imm = 12);
    share();
    assert_int_equal(ir(0)->share, 0);
    assert_int_equal(ir(1)->share, 0);
    assert_true(ir(2)->share_begins);
    assert_int_equal(ir(3)->share, ir(2)->share);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reading),
        cmocka_unit_test(test_end_of_page),
        cmocka_unit_test(test_length),
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_second_pair),
        cmocka_unit_test(test_folding),
        cmocka_unit_test(test_frame),
        cmocka_unit_test(test_no_sharing),
        cmocka_unit_test(test_sharing_with_store),
        cmocka_unit_test(test_scale),
        cmocka_unit_test(test_rotation),
        cmocka_unit_test(test_no_rotation),
        cmocka_unit_test(test_arms),
        cmocka_unit_test(test_passes_over_arms),
        cmocka_unit_test(test_sharing_ends),
        cmocka_unit_test(test_loaded_base),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
