/* Harts that run at the same time: fences, reservations, and requests from other threads. */
#include <unistd.h>

#include "hart_guest.h"

#define CODE    (RAM + 0x1000)
#define PATCHED (RAM + 0x4000)
#define SHARED  (RAM + 0x10000)
#define NODES   (RAM + 0x11000)

static struct guest guest;
static pthread_t threads[GUEST_HARTS];

static void *interpret(void *opaque)
{
    guest_run(opaque);
    return NULL;
}

static void start(unsigned harts)
{
    guest_init(&guest, harts, NULL, NULL);
    for (unsigned i = 0; i < harts; i++) {
        guest.harts[i]->pc = CODE;
        guest.harts[i]->x[31] = STOP;
        guest.harts[i]->x[30] = SHARED;
    }
    guest.at = CODE;
}

static void begin(unsigned i)
{
    pthread_create(&threads[i], NULL, interpret, guest.harts[i]);
}

static void end_all(void)
{
    for (unsigned i = 0; i < guest.count; i++)
        hart_request(guest.harts[i], ATTENTION_STOP);
    for (unsigned i = 0; i < guest.count; i++)
        pthread_join(threads[i], NULL);
}

/* Runs all harts until each has stopped itself: x[31] of each points to its own flag. */
static void run_until_done(void)
{
    for (unsigned i = 0; i < guest.count; i++)
        begin(i);
    for (unsigned i = 0; i < guest.count; i++)
        pthread_join(threads[i], NULL);
}

/* Ends a program: the last hart to come here stops them all. */
static void emit_done(void)
{
    INSN(&guest, addi, .rd = 5, .imm = 1);
    INSN(&guest, addi, .rd = 6, .rs1 = 30, .imm = 0x400);
    INSN(&guest, amoadd_d, .rd = 5, .rs1 = 6, .rs2 = 5, .rm = 3);
    INSN(&guest, addi, .rd = 6, .imm = (int32_t)guest.count - 1);
    INSN(&guest, bne, .rs1 = 5, .rs2 = 6, .imm = 8);
    INSN(&guest, sd, .rs1 = 31);
    INSN(&guest, jal);
}

/* Loops until the shared word is set; each round calls PATCHED, whose result goes to x10. */
static void a_remote_fence_i_is_seen(void **state)
{
    start(2);
    guest.harts[0]->x[7] = guest.harts[1]->x[7] = PATCHED;
    INSN(&guest, jalr, .rd = 1, .rs1 = 7);
    INSN(&guest, sd, .rs1 = 30, .rs2 = 10);
    INSN(&guest, jal, .imm = -8);
    guest.at = PATCHED;
    INSN(&guest, addi, .rd = 10, .imm = 1);
    INSN(&guest, jalr, .rs1 = 1);
    begin(0);
    begin(1);
    for (int value = 2; value < 50; value++) {
        struct insn insn = {.op = INSN_addi, .rd = 10, .imm = value};
        uint32_t bits = isa_encode(&insn);
        assert_true(memory_dma_write(guest.memory, PATCHED, &bits, 4));
        hart_fence_remote(NULL, guest.harts, 2, &(struct hart_fence){.kind = HART_FENCE_I});
        /* The store of a round under way may still be an old value; those after it are not. */
        for (unsigned i = 0; i < 2; i++)
            while (guest_load(&guest, SHARED) != (uint64_t)value)
                sched_yield();
    }
    end_all();
    guest_finish(&guest);
}

#define TABLES (RAM + 0x100000)
#define GIGA   UINT64_C(0x40000000)

/* The page under a running hart is exchanged; after the fence it sees only the new one. */
static void a_remote_sfence_is_seen(void **state)
{
    start(1);
    struct hart *hart = guest.hart;
    guest_store(&guest, TABLES + 8 * 2, (RAM >> 12 << 10) | 0xcf); /* RAM, 1 GiB */
    guest_store(&guest, TABLES + 8 * 1, (TABLES + 0x1000) >> 12 << 10 | 1);
    guest_store(&guest, TABLES + 0x1000, (TABLES + 0x2000) >> 12 << 10 | 1);
    guest_set_csr(&guest, "pmpaddr0", UINT64_MAX);
    guest_set_csr(&guest, "pmpcfg0", 0x1f);
    guest_set_csr(&guest, "satp", UINT64_C(8) << 60 | TABLES >> 12);
    hart_set_privilege(hart, PRIVILEGE_SUPERVISOR);
    for (unsigned i = 0; i < 64; i++)
        guest_store(&guest, NODES + 0x1000 * i, i);
    hart->x[7] = GIGA;
    INSN(&guest, ld, .rd = 10, .rs1 = 7);
    INSN(&guest, sd, .rs1 = 30, .rs2 = 10);
    INSN(&guest, jal, .imm = -8);
    guest_store(&guest, TABLES + 0x2000, NODES >> 12 << 10 | 0x43);
    begin(0);
    for (unsigned i = 1; i < 64; i++) {
        guest_store(&guest, TABLES + 0x2000, (NODES + 0x1000 * i) >> 12 << 10 | 0x43);
        hart_fence_remote(NULL, guest.harts, 1,
                          &(struct hart_fence){.kind = HART_FENCE_VMA,
                                               .va = GIGA,
                                               .size = i % 2 ? 4096 : UINT64_MAX,
                                               .asid = UINT64_MAX});
        while (guest_load(&guest, SHARED) != i)
            sched_yield();
    }
    end_all();
    guest_finish(&guest);
}

/* Two harts that fence each other from within calls to their firmware do not wait for ever. */
static void fence_each_other(void *opaque, struct hart *hart)
{
    const struct hart_fence fences[] = {
        {.kind = HART_FENCE_I},
        {.kind = HART_FENCE_VMA, .va = 0x1000, .size = 0x1000, .asid = UINT64_MAX},
    };
    for (unsigned i = 0; i < 2; i++)
        hart_fence_remote(hart, guest.harts, guest.count, &fences[i]);
}

static void harts_may_fence_each_other(void **state)
{
    const struct hart_hooks hooks = {.sbi = fence_each_other};
    guest_init(&guest, 3, NULL, &hooks);
    guest.at = CODE;
    INSN(&guest, ecall);
    INSN(&guest, addi, .rd = 10, .rs1 = 10, .imm = -1);
    INSN(&guest, bne, .rs1 = 10, .imm = -8);
    emit_done();
    for (unsigned i = 0; i < 3; i++) {
        guest.hart = guest.harts[i];
        guest_open(&guest);
        guest.hart->pc = CODE;
        guest.hart->x[10] = 300;
        guest.hart->x[30] = SHARED;
        guest.hart->x[31] = STOP;
        hart_set_privilege(guest.hart, PRIVILEGE_SUPERVISOR);
    }
    run_until_done();
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(guest.harts[i]->x[10], 0);
    guest_finish(&guest);
}

/* A hart in wfi, or one that does not run, holds up nobody, and fences when it goes on. */
static void sleeping_harts_fence_later(void **state)
{
    const struct hart_fence fence = {.kind = HART_FENCE_I};
    start(2);
    INSN(&guest, wfi);
    INSN(&guest, addi, .rd = 10, .imm = 1);
    INSN(&guest, sd, .rs1 = 31);
    guest_set_csr(&guest, "mie", BIT(INTERRUPT_MSI));
    begin(0);
    usleep(20000);
    while (atomic_load(&guest.hart->running)) /* until it sleeps */
        sched_yield();
    struct insn insn = {.op = INSN_addi, .rd = 10, .imm = 2};
    uint32_t bits = isa_encode(&insn);
    assert_true(memory_dma_write(guest.memory, CODE + 4, &bits, 4));
    for (unsigned i = 0; i < 100; i++) /* more than the queue holds */
        hart_fence_remote(NULL, guest.harts, 2, &fence);
    hart_set_interrupt(guest.hart, INTERRUPT_MSI, true);
    pthread_join(threads[0], NULL);
    assert_int_equal(guest.hart->x[10], 2);
    guest_finish(&guest);
}

/* A counter under LR/SC loses nothing. */
static void constrained_sequences_are_atomic(void **state)
{
    enum { ROUNDS = 20000 };
    start(3);
    INSN(&guest, lr_d, .rd = 5, .rs1 = 30);
    INSN(&guest, addi, .rd = 5, .rs1 = 5, .imm = 1);
    INSN(&guest, sc_d, .rd = 6, .rs1 = 30, .rs2 = 5);
    INSN(&guest, bne, .rs1 = 6, .imm = -12);
    INSN(&guest, addi, .rd = 10, .rs1 = 10, .imm = -1);
    INSN(&guest, bne, .rs1 = 10, .imm = -20);
    emit_done();
    for (unsigned i = 0; i < 3; i++)
        guest.harts[i]->x[10] = ROUNDS;
    run_until_done();
    assert_int_equal(guest_load(&guest, SHARED), 3 * ROUNDS);
    guest_finish(&guest);
}

/*
 * A lock-free list, which is ABA's home: pop loads head->next between LR and SC. Each hart pops
 * two nodes and pushes them back in the other order, again and again. Were an SC to succeed
 * although head went away and came back, nodes would be lost or be in the list twice.
 */
static void lists_survive_aba(void **state)
{
    enum { ROUNDS = 300, NODE_COUNT = 6 };
    start(3);
    for (unsigned i = 0; i < NODE_COUNT; i++)
        guest_store(&guest, NODES + 64 * i, i + 1 < NODE_COUNT ? NODES + 64 * (i + 1) : 0);
    guest_store(&guest, SHARED, NODES);

    uint64_t loop = guest.at;
    for (unsigned i = 0; i < 2; i++) { /* x(11 + i) = pop */
        INSN(&guest, lr_d, .rd = 11 + i, .rs1 = 30);
        INSN(&guest, beq, .rs1 = 11 + i, .imm = -4);
        INSN(&guest, ld, .rd = 5, .rs1 = 11 + i);
        INSN(&guest, sc_d, .rd = 6, .rs1 = 30, .rs2 = 5);
        INSN(&guest, bne, .rs1 = 6, .imm = -16);
    }
    for (unsigned i = 0; i < 2; i++) { /* push x(11 + i) */
        INSN(&guest, ld, .rd = 5, .rs1 = 30);
        INSN(&guest, sd, .rs1 = 11 + i, .rs2 = 5);
        INSN(&guest, lr_d, .rd = 7, .rs1 = 30);
        INSN(&guest, bne, .rs1 = 7, .rs2 = 5, .imm = -12);
        INSN(&guest, sc_d, .rd = 6, .rs1 = 30, .rs2 = 11 + i);
        INSN(&guest, bne, .rs1 = 6, .imm = -20);
    }
    INSN(&guest, addi, .rd = 10, .rs1 = 10, .imm = -1);
    INSN(&guest, bne, .rs1 = 10, .imm = (int32_t)(loop - guest.at));
    emit_done();
    for (unsigned i = 0; i < 3; i++)
        guest.harts[i]->x[10] = ROUNDS;
    run_until_done();

    unsigned found = 0, count = 0;
    for (uint64_t node = guest_load(&guest, SHARED); node && count <= NODE_COUNT;
         node = guest_load(&guest, node)) {
        found |= 1u << (node - NODES) / 64;
        count++;
    }
    assert_int_equal(count, NODE_COUNT);
    assert_int_equal(found, (1 << NODE_COUNT) - 1);
    guest_finish(&guest);
}

/* What one hart does step by step while the other changes the word and changes it back. */
static void aba_is_seen_step_by_step(void **state)
{
    start(2);
    struct hart *other = guest.harts[1];
    guest_store(&guest, SHARED, 1);
    guest.at = CODE;
    INSN(&guest, lr_d, .rd = 5, .rs1 = 30);
    INSN(&guest, ld, .rd = 6, .rs1 = 30, .imm = 8);
    INSN(&guest, sc_d, .rd = 7, .rs1 = 30, .rs2 = 6);
    guest.at = CODE + 0x100;
    INSN(&guest, sd, .rs1 = 30, .rs2 = 8);
    INSN(&guest, sd, .rs1 = 30, .rs2 = 9);
    other->pc = CODE + 0x100;
    other->x[8] = 2;
    other->x[9] = 1;
    hart_step(guest.hart);
    hart_step(guest.hart);
    hart_step(other);
    hart_step(other);
    hart_step(guest.hart);
    assert_int_equal(guest.hart->x[7], 1);
    assert_int_equal(guest_load(&guest, SHARED), 1);
    guest_finish(&guest);
}

static void reservations_end(void **state)
{
    start(1);
    struct hart *hart = guest.hart;
    const struct {
        const char *what;
        struct insn between;
        unsigned size;
        uint64_t address;
        bool succeeds;
    } cases[] = {
        {"nothing between", {.op = INSN_addi}, 8, SHARED, true},
        {"a branch", {.op = INSN_beq, .imm = 4}, 8, SHARED, true},
        {"another address", {.op = INSN_addi}, 8, SHARED + 8, false},
        {"another size", {.op = INSN_addi}, 4, SHARED, false},
        {"a trap", {.op = INSN_ecall}, 8, SHARED, false},
        {"an SC before", {.op = INSN_sc_w, .rs1 = 29}, 8, SHARED, false},
    };
    hart->x[29] = SHARED + 64;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        guest_store(&guest, SHARED, 0);
        guest_set_csr(&guest, "mtvec", CODE + 8);
        guest.at = CODE;
        INSN(&guest, lr_d, .rd = 5, .rs1 = 30);
        guest_insn(&guest, cases[i].between);
        hart->x[28] = cases[i].address;
        hart->x[27] = 5;
        if (cases[i].size == 8)
            INSN(&guest, sc_d, .rd = 7, .rs1 = 28, .rs2 = 27);
        else
            INSN(&guest, sc_w, .rd = 7, .rs1 = 28, .rs2 = 27);
        INSN(&guest, sd, .rs1 = 31);
        hart_fence_i(hart);
        hart->pc = CODE;
        guest_run(hart);
        if (hart->x[7] != !cases[i].succeeds ||
            guest_load(&guest, SHARED) != (cases[i].succeeds ? 5u : 0u))
            fail_msg("%s", cases[i].what);
    }
    guest_finish(&guest);
}

static void amos_are_atomic(void **state)
{
    enum { ROUNDS = 20000 };
    start(3);
    INSN(&guest, addi, .rd = 5, .imm = 1);
    INSN(&guest, amoadd_w, .rs1 = 30, .rs2 = 5);
    INSN(&guest, ld, .rd = 12, .rs1 = 29); /* amocas increments the next word */
    INSN(&guest, addi, .rd = 14, .rs1 = 12);
    INSN(&guest, addi, .rd = 13, .rs1 = 12, .imm = 1);
    INSN(&guest, amocas_d, .rd = 12, .rs1 = 29, .rs2 = 13);
    INSN(&guest, bne, .rs1 = 12, .rs2 = 14, .imm = -16);
    INSN(&guest, addi, .rd = 10, .rs1 = 10, .imm = -1);
    INSN(&guest, bne, .rs1 = 10, .imm = -32);
    emit_done();
    for (unsigned i = 0; i < 3; i++) {
        guest.harts[i]->x[10] = ROUNDS;
        guest.harts[i]->x[29] = SHARED + 0x100;
    }
    run_until_done();
    assert_int_equal(guest_load(&guest, SHARED), 3 * ROUNDS);
    assert_int_equal(guest_load(&guest, SHARED + 0x100), 3 * ROUNDS);
    guest_finish(&guest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_remote_fence_i_is_seen),
        cmocka_unit_test(a_remote_sfence_is_seen),
        cmocka_unit_test(harts_may_fence_each_other),
        cmocka_unit_test(sleeping_harts_fence_later),
        cmocka_unit_test(constrained_sequences_are_atomic),
        cmocka_unit_test(lists_survive_aba),
        cmocka_unit_test(aba_is_seen_step_by_step),
        cmocka_unit_test(reservations_end),
        cmocka_unit_test(amos_are_atomic),
    };
    int failed = cmocka_run_group_tests_name("interpreted", tests, NULL, NULL);
    guest_translates = jit_available();
    if (guest_translates)
        failed += cmocka_run_group_tests_name("translated", tests, NULL, NULL);
    return failed;
}
