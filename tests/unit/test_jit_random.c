/*
 * Random programs run on the interpreter and on the translating engine, and must leave the same
 * registers, memory, traps and count of instructions. JIT_SEED and JIT_PROGRAMS choose others than
 * the ones that are always run.
 */
#include <stdlib.h>

#include "hart_guest.h"

enum {
    LENGTH = 300,   /* instructions of a program */
    PROGRAMS = 400, /* unless JIT_PROGRAMS says otherwise */
    DATA_SIZE = 4 * MEMORY_PAGE_SIZE,
    NOWHERE = 24, /* registers that keep their value: an address without memory, */
    DEVICE,       /* registers, */
    DATA,         /* the middle of the data, */
    COUNTER,      /* and a loop's count */
};

#define CODE_GPA (RAM + MEMORY_PAGE_SIZE)
#define DATA_GPA (RAM + (1 << 20))

/* What one engine did. */
struct run {
    struct guest guest;
    uint64_t traps, trap_count;
};

static uint64_t seed;

static uint64_t random_bits(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * UINT64_C(0x2545f4914f6cdd1d);
}

static unsigned below(unsigned limit)
{
    return (unsigned)((random_bits() >> 32) % limit);
}

/* --- Machines -------------------------------------------------------------------------------- */

static void note(struct run *run, uint64_t value)
{
    run->traps = (run->traps ^ value) * UINT64_C(0x9e3779b97f4a7c15) + (run->traps >> 29);
}

/* The trap is noted, and execution goes on behind the instruction. */
static void unhandled(void *opaque, struct hart *hart, uint64_t cause, uint64_t tval)
{
    struct run *run = opaque;
    uint16_t half = 0;
    note(run, cause);
    note(run, tval);
    note(run, hart->pc);
    note(run, hart->instret);
    for (unsigned i = 1; i < 32; i++)
        note(run, hart->x[i]);
    assert_true(memory_dma_read(run->guest.memory, hart->pc, &half, sizeof(half)));
    hart->pc += (half & 3) == 3 ? 4 : 2;
    if (++run->trap_count > 100000)
        hart_request(hart, ATTENTION_STOP);
}

static void sbi(void *opaque, struct hart *hart)
{
    hart_request(hart, ATTENTION_STOP);
}

static void run_init(struct run *run, bool translated)
{
    const struct hart_hooks hooks = {.opaque = run, .sbi = sbi, .unhandled = unhandled};
    *run = (struct run){0};
    guest_translates = translated;
    guest_init(&run->guest, 1, "max", &hooks);
}

static void run_finish(struct run *run)
{
    guest_finish(&run->guest);
}

/* --- Programs -------------------------------------------------------------------------------- */

static const uint64_t specials[] = {
    0,
    1,
    UINT64_MAX,
    INT64_MAX,
    (uint64_t)INT64_MIN,
    INT32_MAX,
    (uint64_t)(int64_t)INT32_MIN,
    UINT32_MAX,
    UINT64_C(0x3ff0000000000000), /* 1.0 */
    UINT64_C(0xbff0000000000000),
    UINT64_C(0x7ff0000000000000), /* infinity */
    UINT64_C(0x7ff8000000000000), /* NaN */
    UINT64_C(0x7ff0000000000001), /* signaling NaN */
    UINT64_C(0x000fffffffffffff), /* subnormal */
    UINT64_C(0x0010000000000000),
    UINT64_C(0x7fefffffffffffff),
    UINT64_C(0x41e0000000000000), /* 2^31 */
    UINT64_C(0xc1e0000000200000),
    UINT64_C(0x43e0000000000000), /* 2^63 */
    UINT64_C(0xffffffff3f800000), /* single 1.0 */
    UINT64_C(0xffffffff7f800000),
    UINT64_C(0xffffffff7fc00001),
    UINT64_C(0xffffffff7f800001),
    UINT64_C(0xffffffff007fffff),
    UINT64_C(0xffffffff00800000),
    UINT64_C(0xffffffff4f000000),
    UINT64_C(0xffffffffff7fffff),
    UINT64_C(0xffffffff80000000),
    UINT64_C(0x000000003f800000), /* not boxed */
};

static uint64_t random_value(void)
{
    switch (below(4)) {
    case 0:
        return random_bits();
    case 1:
        return UINT64_C(0xffffffff00000000) | (uint32_t)random_bits();
    default:
        return specials[below(ARRAY_SIZE(specials))];
    }
}

static unsigned random_source(void)
{
    return below(32);
}

static unsigned random_destination(void)
{
    unsigned rd = below(28);
    return rd < NOWHERE ? rd : rd + 4;
}

/* What may run anywhere: no jumps, and no stores but to the data. */
static bool random_insn(struct insn *insn)
{
    static const uint16_t csrs[] = {0x001, 0x002, 0x003, 0x140, 0xc02, 0x143, 0x100, 0x7c0};
    *insn = (struct insn){.op = (uint16_t)(1 + below(INSN_COUNT - 1)), .length = 4};
    const struct isa_instruction *info = isa_instruction(insn->op);
    if ((info->flags & (ISA_JUMP | ISA_BRANCH)) || insn->op == INSN_ecall || insn->op == INSN_wfi)
        return false;
    bool fp_rd = info->operands & ISA_FP_RD;
    insn->rd = info->operands & ISA_RD ? fp_rd ? random_source() : random_destination() : 0;
    insn->rs1 = info->operands & ISA_RS1 ? random_source() : 0;
    insn->rs2 = info->operands & ISA_RS2 ? random_source() : 0;
    insn->rs3 = info->operands & ISA_RS3 ? random_source() : 0;
    insn->rm = below(3) ? 7 * below(2) : below(8);
    if (info->flags & ISA_AMO)
        insn->rm = below(4);
    else if (!(info->operands & ISA_ROUNDS))
        insn->rm = 0;
    insn->imm = (int32_t)(random_bits() & 0xfff) - 2048;
    if (info->flags & (ISA_LOAD | ISA_STORE | ISA_CBO))
        insn->rs1 = below(16) ? DATA : NOWHERE + below(2);
    if (info->flags & ISA_CSR) {
        insn->imm = csrs[below(ARRAY_SIZE(csrs))];
        if (insn->imm == 0x100) { /* sstatus: FS and SUM at most */
            insn->op = INSN_csrrsi;
            insn->rs1 = 0;
        }
    } else if (info->format == ISA_FORMAT_SHIFT) {
        insn->imm &= 63;
    } else if (info->format == ISA_FORMAT_SHIFTW) {
        insn->imm &= 31;
    } else if (info->format == ISA_FORMAT_U) {
        insn->imm = (int32_t)(random_bits() & 0xfffff000);
    } else if (info->format == ISA_FORMAT_FENCE) {
        insn->imm &= 0xff;
    } else if (info->format == ISA_FORMAT_PREFETCH) {
        insn->imm &= ~31;
    } else if (!(info->operands & ISA_IMM)) {
        insn->imm = 0;
    }
    if (insn->op == INSN_amocas_q) {
        insn->rd = 2 * below(NOWHERE / 2);
        insn->rs2 &= ~1u;
    }
    return isa_encode(insn) != 0;
}

static void random_straight(struct guest *guest, unsigned count)
{
    for (unsigned i = 0; i < count;) {
        struct insn insn;
        if (below(12) == 0) {
            guest_half(guest, 0x0001); /* c.nop, so that others get to odd places */
            continue;
        }
        if (!random_insn(&insn))
            continue;
        guest_insn(guest, insn);
        i++;
    }
}

/* Over a few instructions, by a branch or a jump. */
static void random_skip(struct guest *guest)
{
    static const uint16_t branches[] = {INSN_beq, INSN_bne,  INSN_blt,
                                        INSN_bge, INSN_bltu, INSN_bgeu};
    uint64_t from = guest->at;
    unsigned kind = below(4);
    guest_word(guest, 0);
    random_straight(guest, 1 + below(8));
    uint64_t to = guest->at;
    guest->at = from;
    if (kind == 0)
        guest_insn(guest, (struct insn){.op = INSN_jal,
                                        .rd = (uint8_t)random_destination(),
                                        .imm = (int32_t)(to - from)});
    else
        guest_insn(guest, (struct insn){.op = branches[below(ARRAY_SIZE(branches))],
                                        .rs1 = (uint8_t)random_source(),
                                        .rs2 = (uint8_t)random_source(),
                                        .imm = (int32_t)(to - from)});
    guest->at = to;
}

/* By auipc and jalr. */
static void random_jump(struct guest *guest)
{
    int32_t over = 4 * (int32_t)below(6);
    unsigned reg = 1 + below(NOWHERE - 1);
    INSN(guest, auipc, .rd = (uint8_t)reg);
    if (below(2))
        INSN(guest, andi, .rd = (uint8_t)reg, .rs1 = (uint8_t)reg, .imm = -1);
    else
        INSN(guest, fence_i);
    INSN(guest, jalr, .rd = (uint8_t)random_destination(), .rs1 = (uint8_t)reg, .imm = 12 + over);
    for (int32_t i = 0; i < over; i += 4)
        INSN(guest, addi, .rd = (uint8_t)random_destination(), .rs1 = (uint8_t)random_source(),
             .imm = i);
}

/* Arithmetic as hash functions have it: words, rotations made of shifts, values that are moved on,
 * overwritten or looked at in the middle, with few registers or with all of them. */
static void random_mixing(struct guest *guest, unsigned count)
{
    static const uint16_t ops[] = {
        INSN_addw,   INSN_addw,  INSN_subw,  INSN_addiw, INSN_xor,  INSN_xor,  INSN_and,
        INSN_or,     INSN_slliw, INSN_srliw, INSN_sraiw, INSN_add,  INSN_addi, INSN_sltu,
        INSN_mulw,   INSN_xori,  INSN_andi,  INSN_sllw,  INSN_srlw, INSN_sub,  INSN_sh2add,
        INSN_add_uw, INSN_lw,    INSN_sw,    INSN_sd,    INSN_ld,   INSN_lbu,  INSN_beq,
    };
    unsigned first = below(8), span = 2 + below(NOWHERE - 10);
    for (unsigned i = 0; i < count; i++) {
        uint8_t rd = (uint8_t)(first + below(span)), a = (uint8_t)(first + below(span));
        uint8_t b = (uint8_t)(first + below(span));
        struct insn insn = {.op = ops[below(ARRAY_SIZE(ops))], .rd = rd, .rs1 = a, .rs2 = b};
        const struct isa_instruction *info = isa_instruction(insn.op);
        if (below(4) == 0) {
            uint8_t t = (uint8_t)(first + below(span));
            int32_t n = 1 + (int32_t)below(31);
            INSN(guest, slliw, .rd = t, .rs1 = a, .imm = n);
            if (below(3) == 0)
                INSN(guest, lw, .rd = rd, .rs1 = DATA, .imm = 4 * (int32_t)below(8));
            INSN(guest, srliw, .rd = b, .rs1 = a, .imm = 32 - n);
            if (below(3) == 0)
                INSN(guest, addiw, .rd = a, .rs1 = a, .imm = below(2) ? 0 : 5);
            INSN(guest, or, .rd = below(2) ? t : rd, .rs1 = t, .rs2 = b);
            continue;
        }
        insn.rd = info->operands & ISA_RD ? rd : 0;
        insn.rs2 = info->operands & ISA_RS2 ? b : 0;
        insn.imm = info->operands & ISA_IMM ? (int32_t)below(16) : 0;
        if (insn.op == INSN_addiw && below(2))
            insn.imm = 0;
        if (insn.op == INSN_beq) {
            insn.imm = 8;
        } else if (info->flags & (ISA_LOAD | ISA_STORE)) {
            insn.rs1 = below(20) ? DATA : NOWHERE + below(2);
            insn.imm = (int32_t)(8 * below(16)) - 64 + (below(6) ? 0 : 2);
        }
        guest_insn(guest, insn);
    }
    INSN(guest, addi, .rd = 0); /* what a branch may skip */
}

static void random_part(struct guest *guest)
{
    switch (below(10)) {
    case 8:
    case 9:
        random_mixing(guest, 1 + below(40));
        break;
    case 0:
    case 1:
        random_skip(guest);
        break;
    case 2:
        random_jump(guest);
        break;
    default:
        random_straight(guest, 1 + below(20));
    }
}

static void random_loop(struct guest *guest)
{
    INSN(guest, addi, .rd = COUNTER, .imm = 1 + (int32_t)below(6));
    uint64_t start = guest->at;
    if (below(2)) {
        random_mixing(guest, 2 + below(30));
    } else {
        random_part(guest);
        if (below(2))
            random_part(guest);
    }
    INSN(guest, addi, .rd = COUNTER, .rs1 = COUNTER, .imm = -1);
    INSN(guest, bne, .rs1 = COUNTER, .imm = (int32_t)(start - guest->at));
}

/* Returns the entry. The same seed makes the same program. */
static uint64_t random_program(struct run *run)
{
    struct guest *guest = &run->guest;
    struct hart *hart = guest->hart;
    uint64_t entry = CODE_GPA + 2 * (uint64_t)below(MEMORY_PAGE_SIZE / 2);
    guest->at = entry;
    while (guest->at < entry + 4 * LENGTH)
        (below(4) ? random_part : random_loop)(guest);
    INSN(guest, ecall);

    for (uint64_t i = 0; i < DATA_SIZE; i += 8)
        guest_store(guest, DATA_GPA + i, random_value());
    hart_reset(hart, entry);
    for (unsigned i = 0; i < 32; i++) {
        hart->x[i] = i ? random_value() : 0;
        hart->f[i] = random_value();
    }
    hart->x[NOWHERE] = 0x10;
    hart->x[DEVICE] = MMIO + 2048 + 64;
    hart->x[DATA] = DATA_GPA + 2 * MEMORY_PAGE_SIZE - below(64);
    assert_true(hart_csr_write(hart, 0x306, 7));                       /* mcounteren */
    assert_true(hart_csr_write(hart, 0x30a, 0xf0));                    /* menvcfg: cache blocks */
    assert_true(hart_csr_write(hart, 0x3b0, (UINT64_C(1) << 54) - 1)); /* PMP: everything */
    assert_true(hart_csr_write(hart, 0x3a0, 0x1f));
    if (below(8))
        assert_true(hart_csr_write(hart, 0x300, 3 << 13)); /* mstatus.FS */
    hart->frm = below(3) ? 0 : below(8);
    hart_set_privilege(hart, PRIVILEGE_SUPERVISOR);
    run->traps = run->trap_count = guest->device = 0;
    return entry;
}

static void execute(struct run *run)
{
    guest_run(run->guest.hart);
}

static void compare(struct run *a, struct run *b)
{
    const struct hart *x = a->guest.hart, *y = b->guest.hart;
    for (unsigned i = 0; i < 32; i++)
        if (x->x[i] != y->x[i])
            fail_msg("%s: %#llx, translated %#llx", isa_register_name(i),
                     (unsigned long long)x->x[i], (unsigned long long)y->x[i]);
    for (unsigned i = 0; i < 32; i++)
        if (x->f[i] != y->f[i])
            fail_msg("%s: %#llx, translated %#llx", isa_fp_register_name(i),
                     (unsigned long long)x->f[i], (unsigned long long)y->f[i]);
    assert_int_equal(x->pc, y->pc);
    assert_int_equal(x->instret, y->instret);
    assert_int_equal(x->fflags, y->fflags);
    assert_int_equal(x->frm, y->frm);
    assert_int_equal(x->mstatus, y->mstatus);
    assert_int_equal(x->sscratch, y->sscratch);
    assert_int_equal(a->trap_count, b->trap_count);
    assert_int_equal(a->traps, b->traps);
    assert_int_equal(a->guest.device, b->guest.device);
    for (uint64_t i = 0; i < DATA_SIZE; i += 8)
        assert_int_equal(guest_load(&a->guest, DATA_GPA + i), guest_load(&b->guest, DATA_GPA + i));
}

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 0) : otherwise;
}

static void test_random(void **state)
{
    struct run interpreted, translated;
    uint64_t first = from_environment("JIT_SEED", 1);
    uint64_t programs = from_environment("JIT_PROGRAMS", PROGRAMS);
    run_init(&interpreted, false);
    run_init(&translated, true);
    for (uint64_t i = first; i < first + programs; i++) {
        struct run *runs[] = {&interpreted, &translated};
        for (unsigned r = 0; r < 2; r++) {
            seed = i * UINT64_C(0x9e3779b97f4a7c15) | 1;
            random_program(runs[r]);
            execute(runs[r]);
        }
        print_message("seed %llu: %llu instructions, %llu traps\n", (unsigned long long)i,
                      (unsigned long long)translated.guest.hart->instret,
                      (unsigned long long)translated.trap_count);
        compare(&interpreted, &translated);
    }
    run_finish(&interpreted);
    run_finish(&translated);
}

/* --- Code that changes ------------------------------------------------------------------------ */

static uint32_t encoded(struct insn insn)
{
    return isa_encode(&insn);
}

/* A loop patches an instruction of a function, in its own page or in another one, with fence.i in
 * between, and adds up what the function returns. */
static void check_patching(uint64_t function)
{
    enum { A0 = 10, S0 = 8, S1, S2 = 18, RA = 1 };
    struct run run;
    run_init(&run, true);
    struct guest *guest = &run.guest;
    struct hart *hart = guest->hart;

    guest->at = function;
    INSN(guest, addi, .rd = A0, .imm = 0);
    INSN(guest, jalr, .rs1 = RA);

    guest->at = CODE_GPA;
    uint64_t loop = guest->at;
    INSN(guest, sw, .rs1 = S0, .rs2 = S1);
    INSN(guest, fence_i);
    INSN(guest, jalr, .rd = RA, .rs1 = S0);
    INSN(guest, add, .rd = S2, .rs1 = S2, .rs2 = A0);
    INSN(guest, add, .rd = S1, .rs1 = S1, .rs2 = 20); /* the immediate is one more */
    INSN(guest, addi, .rd = COUNTER, .rs1 = COUNTER, .imm = -1);
    INSN(guest, bne, .rs1 = COUNTER, .imm = (int32_t)(loop - guest->at));
    INSN(guest, ecall);

    hart_reset(hart, CODE_GPA);
    assert_true(hart_csr_write(hart, 0x3b0, (UINT64_C(1) << 54) - 1));
    assert_true(hart_csr_write(hart, 0x3a0, 0x1f));
    hart_set_privilege(hart, PRIVILEGE_SUPERVISOR);
    hart->x[S0] = function;
    hart->x[S1] = encoded((struct insn){.op = INSN_addi, .rd = A0, .imm = 1});
    hart->x[20] = 1 << 20;
    hart->x[COUNTER] = 100;
    execute(&run);
    assert_int_equal(hart->x[S2], 100 * 101 / 2);
    run_finish(&run);
}

static void test_patching(void **state)
{
    check_patching(CODE_GPA + 256);
    check_patching(CODE_GPA + MEMORY_PAGE_SIZE);
    check_patching(CODE_GPA + 3 * MEMORY_PAGE_SIZE + 64);
}

/* More code than the cache holds: everything is flushed, and made anew. */
static void test_flush(void **state)
{
    enum { PAGES = 1500, T0 = 5, T1 };
    struct run run;
    run_init(&run, true);
    struct guest *guest = &run.guest;
    struct hart *hart = guest->hart;
    guest->at = CODE_GPA;
    uint64_t end = CODE_GPA + (uint64_t)PAGES * MEMORY_PAGE_SIZE;
    while (guest->at < end) {
        INSN(guest, addi, .rd = T0, .rs1 = T0, .imm = 1);
        INSN(guest, sd, .rs1 = DATA, .rs2 = T0);
    }
    INSN(guest, addi, .rd = T1, .rs1 = T1, .imm = -1);
    INSN(guest, jalr, .rd = 0, .rs1 = 1);
    uint64_t caller = guest->at;
    INSN(guest, addi, .rd = T1, .imm = 3);
    INSN(guest, jalr, .rd = 1, .rs1 = 9);
    INSN(guest, bne, .rs1 = T1, .imm = -4);
    INSN(guest, ecall);

    hart_reset(hart, caller);
    assert_true(hart_csr_write(hart, 0x3b0, (UINT64_C(1) << 54) - 1));
    assert_true(hart_csr_write(hart, 0x3a0, 0x1f));
    hart_set_privilege(hart, PRIVILEGE_SUPERVISOR);
    hart->x[9] = CODE_GPA;
    hart->x[DATA] = RAM + RAM_SIZE - 4096;
    execute(&run);
    assert_int_equal(hart->x[T0], 3ULL * PAGES * MEMORY_PAGE_SIZE / 8);
    assert_int_equal(guest_load(guest, RAM + RAM_SIZE - 4096), hart->x[T0]);
    run_finish(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_patching),
        cmocka_unit_test(test_flush),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
