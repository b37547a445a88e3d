/*
 * The instruction set tables: extensions, decoding, encoding and text. What needs an independent
 * disassembler is in test_isa_oracle.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "isa/isa.h"

static uint64_t random_state;

static uint32_t random_word(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

static struct isa_extensions all_but(const char *off)
{
    char spec[128];
    struct isa_extensions set;
    snprintf(spec, sizeof(spec), "max%s%s", off ? ",no-" : "", off ? off : "");
    assert_true(isa_extensions_parse(spec, &set, NULL));
    return set;
}

static void assert_decodes(uint32_t bits, const struct isa_extensions *on, struct insn expected)
{
    struct insn insn;
    memset(&insn, 0xff, sizeof(insn));
    assert_int_equal(isa_decode(bits, on, &insn), expected.op != INSN_illegal);
    assert_int_equal(insn.op, expected.op);
    assert_int_equal(insn.rd, expected.rd);
    assert_int_equal(insn.rs1, expected.rs1);
    assert_int_equal(insn.rs2, expected.rs2);
    assert_int_equal(insn.rs3, expected.rs3);
    assert_int_equal(insn.rm, expected.rm);
    assert_int_equal(insn.length, expected.length);
    assert_int_equal(insn.imm, expected.imm);
}

#define ILLEGAL(n) {.op = INSN_illegal, .length = n}

/* Each row by hand from the manual, so that a slip in a table cannot confirm itself. */
static void decodes_each_format(void **state)
{
    static const struct {
        uint32_t bits;
        struct insn insn;
    } cases[] = {
        {0xfff50593, {.op = INSN_addi, .rd = 11, .rs1 = 10, .length = 4, .imm = -1}},
        {0x03f51593, {.op = INSN_slli, .rd = 11, .rs1 = 10, .length = 4, .imm = 63}},
        {0x43f55593, {.op = INSN_srai, .rd = 11, .rs1 = 10, .length = 4, .imm = 63}},
        {0x0005051b, {.op = INSN_addiw, .rd = 10, .rs1 = 10, .length = 4}},
        {0x02b5151b, ILLEGAL(4)}, /* slliw by 43 */
        {0x800000b7, {.op = INSN_lui, .rd = 1, .length = 4, .imm = INT32_MIN}},
        {0x7ffff117, {.op = INSN_auipc, .rd = 2, .length = 4, .imm = 0x7ffff000}},
        {0x800000ef, {.op = INSN_jal, .rd = 1, .length = 4, .imm = -0x100000}},
        {0x7ffff0ef, {.op = INSN_jal, .rd = 1, .length = 4, .imm = 0xffffe}},
        {0x80000063, {.op = INSN_beq, .length = 4, .imm = -0x1000}},
        {0x7eb51fe3, {.op = INSN_bne, .rs1 = 10, .rs2 = 11, .length = 4, .imm = 0xffe}},
        {0x80b53023, {.op = INSN_sd, .rs1 = 10, .rs2 = 11, .length = 4, .imm = -2048}},
        {0x0ff0000f, {.op = INSN_fence, .length = 4, .imm = 0x0ff}},
        {0x0100000f, {.op = INSN_pause, .length = 4}},
        {0x8330000f, {.op = INSN_fence_tso, .length = 4}},
        {0x30529073, {.op = INSN_csrrw, .rs1 = 5, .length = 4, .imm = 0x305}},
        {0xfff0f0f3, {.op = INSN_csrrci, .rd = 1, .rs1 = 1, .length = 4, .imm = 0xfff}},
        {0x16b5252f, ILLEGAL(4)}, /* lr.w with rs2 */
        {0x1605252f, {.op = INSN_lr_w, .rd = 10, .rs1 = 10, .rm = 3, .length = 4}},
        {0x0cc5b52f, {.op = INSN_amoswap_d, .rd = 10, .rs1 = 11, .rs2 = 12, .rm = 2, .length = 4}},
        {0x28c5c52f, {.op = INSN_amocas_q, .rd = 10, .rs1 = 11, .rs2 = 12, .length = 4}},
        {0x28c5c5af, ILLEGAL(4)}, /* amocas.q to an odd register */
        {0x28d5c52f, ILLEGAL(4)}, /* amocas.q from an odd register */
        {0x6ac5f543,
         {.op = INSN_fmadd_d, .rd = 10, .rs1 = 11, .rs2 = 12, .rs3 = 13, .rm = 7, .length = 4}},
        {0x02c5d553, {.op = INSN_fadd_d, .rd = 10, .rs1 = 11, .rs2 = 12, .rm = 5, .length = 4}},
        {0xe0058553, {.op = INSN_fmv_x_w, .rd = 10, .rs1 = 11, .length = 4}},
        {0xe0158553, ILLEGAL(4)}, /* fmv.x.w with rs2 */
        {0x12b50073, {.op = INSN_sfence_vma, .rs1 = 10, .rs2 = 11, .length = 4}},
        {0x0045200f, {.op = INSN_cbo_zero, .rs1 = 10, .length = 4}},
        {0xfe156013, {.op = INSN_prefetch_r, .rs1 = 10, .length = 4, .imm = -32}},
        {0xfe256013, {.op = INSN_ori, .rs1 = 10, .length = 4, .imm = -30}},
        {0x0805c53b, {.op = INSN_zext_h, .rd = 10, .rs1 = 11, .length = 4}},
        {0x0815c53b, {.op = INSN_packw, .rd = 10, .rs1 = 11, .rs2 = 1, .length = 4}},
        {0x6b85d513, {.op = INSN_rev8, .rd = 10, .rs1 = 11, .length = 4}},
        {0x6985d513, {.op = INSN_illegal, .length = 4}}, /* beside rev8 and binvi */
        {0x0e0575b3, {.op = INSN_czero_nez, .rd = 11, .rs1 = 10, .length = 4}},
        {0xffffffff, ILLEGAL(4)},
        {0x00000000, ILLEGAL(2)},
        {0xffff0000, ILLEGAL(2)},
        /* 16 bits; the upper half must not matter */
        {0xffff1fe8, {.op = INSN_addi, .rd = 10, .rs1 = 2, .length = 2, .imm = 1020}},
        {0xffff5d7c, {.op = INSN_lw, .rd = 15, .rs1 = 10, .length = 2, .imm = 124}},
        {0xfffffd7c, {.op = INSN_sd, .rs1 = 10, .rs2 = 15, .length = 2, .imm = 248}},
        {0xffff2108, {.op = INSN_fld, .rd = 10, .rs1 = 10, .length = 2}},
        {0x00000001, {.op = INSN_addi, .length = 2}},
        {0x0000107d, {.op = INSN_addi, .length = 2, .imm = -1}}, /* hint */
        {0x00007139, {.op = INSN_addi, .rd = 2, .rs1 = 2, .length = 2, .imm = -64}},
        {0x0000617d, {.op = INSN_addi, .rd = 2, .rs1 = 2, .length = 2, .imm = 496}},
        {0x00006101, ILLEGAL(2)}, /* c.addi16sp 0 */
        {0x00006501, ILLEGAL(2)}, /* c.lui 0 */
        {0x0000757d, {.op = INSN_lui, .rd = 10, .length = 2, .imm = -4096}},
        {0x00002001, ILLEGAL(2)}, /* c.addiw to x0 */
        {0x0000357d, {.op = INSN_addiw, .rd = 10, .rs1 = 10, .length = 2, .imm = -1}},
        {0x0000957d, {.op = INSN_srai, .rd = 10, .rs1 = 10, .length = 2, .imm = 63}},
        {0x00008d09, {.op = INSN_sub, .rd = 10, .rs1 = 10, .rs2 = 10, .length = 2}},
        {0x00009d49, ILLEGAL(2)}, /* between c.addw and nothing */
        {0x0000b001, {.op = INSN_jal, .length = 2, .imm = -2048}},
        {0x0000affd, {.op = INSN_jal, .length = 2, .imm = 2046}},
        {0x0000d101, {.op = INSN_beq, .rs1 = 10, .length = 2, .imm = -256}},
        {0x0000ed7d, {.op = INSN_bne, .rs1 = 10, .length = 2, .imm = 254}},
        {0x0000157e, {.op = INSN_slli, .rd = 10, .rs1 = 10, .length = 2, .imm = 63}},
        {0x00004002, ILLEGAL(2)}, /* c.lwsp to x0 */
        {0x0000557e, {.op = INSN_lw, .rd = 10, .rs1 = 2, .length = 2, .imm = 252}},
        {0x0000757e, {.op = INSN_ld, .rd = 10, .rs1 = 2, .length = 2, .imm = 504}},
        {0x0000dfaa, {.op = INSN_sw, .rs1 = 2, .rs2 = 10, .length = 2, .imm = 252}},
        {0x0000ffaa, {.op = INSN_sd, .rs1 = 2, .rs2 = 10, .length = 2, .imm = 504}},
        {0x00008002, ILLEGAL(2)}, /* c.jr to x0 */
        {0x00008082, {.op = INSN_jalr, .rs1 = 1, .length = 2}},
        {0x00009502, {.op = INSN_jalr, .rd = 1, .rs1 = 10, .length = 2}},
        {0x00009002, {.op = INSN_ebreak, .length = 2}},
        {0x0000852e, {.op = INSN_add, .rd = 10, .rs2 = 11, .length = 2}},
        {0x0000952e, {.op = INSN_add, .rd = 10, .rs1 = 10, .rs2 = 11, .length = 2}},
        {0x00008000, ILLEGAL(2)}, /* quadrant 0, funct3 4 */
    };
    struct isa_extensions all = all_but(NULL);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_decodes(cases[i].bits, &all, cases[i].insn);
}

/* An instruction belongs to its extension, and what it hides shows again when that is off. */
static void decoding_follows_extensions(void **state)
{
    static const struct {
        const char *off;
        uint32_t bits;
        enum insn_op with, without;
    } cases[] = {
        {"zbb", 0x0805c53b, INSN_zext_h, INSN_packw},
        {"zbb", 0x6b85d513, INSN_rev8, INSN_rev8}, /* Zbkb has it too */
        {"zbkb", 0x6b85d513, INSN_rev8, INSN_rev8},
        {"zbb", 0x28705013, INSN_orc_b, INSN_illegal},
        {"zicbop", 0xfe156013, INSN_prefetch_r, INSN_ori},
        {"zihintpause", 0x0100000f, INSN_pause, INSN_fence},
        {"c", 0x00000001, INSN_addi, INSN_illegal},
        {"d", 0x00002108, INSN_fld, INSN_illegal},
        {"d", 0x42200053, INSN_fcvt_d_h, INSN_illegal},
        {"d", 0x40200053, INSN_fcvt_s_h, INSN_fcvt_s_h},
        {"zfh", 0x40200053, INSN_fcvt_s_h, INSN_fcvt_s_h},
        {"zfh", 0x04000053, INSN_fadd_h, INSN_illegal},
        {"zfhmin", 0x04000053, INSN_fadd_h, INSN_illegal},
        {"f", 0x00000053, INSN_fadd_s, INSN_illegal},
        {"m", 0x02000033, INSN_mul, INSN_illegal},
        {"a", 0x2800202f, INSN_amocas_w, INSN_illegal},
        {"zicsr", 0x30529073, INSN_csrrw, INSN_illegal},
        {"svinval", 0x16000073, INSN_sinval_vma, INSN_illegal},
        {"zicboz", 0x0045200f, INSN_cbo_zero, INSN_illegal},
        {"zicbom", 0x0045200f, INSN_cbo_zero, INSN_cbo_zero},
    };
    struct isa_extensions all = all_but(NULL);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct isa_extensions some = all_but(cases[i].off);
        struct insn insn;
        isa_decode(cases[i].bits, &all, &insn);
        assert_int_equal(insn.op, cases[i].with);
        isa_decode(cases[i].bits, &some, &insn);
        assert_int_equal(insn.op, cases[i].without);
    }
}

/* Words of every row, with random operands: whatever they decode to encodes to the same word,
 * unless bits that the row ignores were set. */
static void encoding_inverts_decoding(void **state)
{
    struct isa_extensions all = all_but(NULL);
    for (unsigned op = 1; op < INSN_COUNT; op++) {
        const struct isa_instruction *row = isa_instruction(op);
        unsigned hits = 0;
        for (unsigned i = 0; i < 200; i++) {
            uint32_t bits = (random_word() & ~row->mask) | row->match;
            struct insn insn, again;
            assert_true(isa_decode(bits, &all, &insn));
            hits += insn.op == op;
            uint32_t encoded = isa_encode(&insn);
            assert_int_not_equal(encoded, 0);
            assert_true(isa_decode(encoded, &all, &again));
            assert_memory_equal(&insn, &again, sizeof(insn));
            bool ignores_bits =
                insn.op == INSN_fence || insn.op == INSN_fence_tso || insn.op == INSN_fence_i;
            if (!ignores_bits)
                assert_int_equal(encoded, bits);
        }
        assert_true(hits > 0);
    }
}

static void encoding_refuses_what_does_not_fit(void **state)
{
    static const struct insn bad[] = {
        {.op = INSN_illegal},           {.op = INSN_COUNT},
        {.op = INSN_addi, .imm = 2048}, {.op = INSN_addi, .imm = -2049},
        {.op = INSN_addi, .rd = 32},    {.op = INSN_addi, .rs2 = 1},
        {.op = INSN_add, .imm = 1},     {.op = INSN_beq, .imm = 1},
        {.op = INSN_beq, .imm = 4096},  {.op = INSN_lui, .imm = 1},
        {.op = INSN_slli, .imm = 64},   {.op = INSN_slliw, .imm = 32},
        {.op = INSN_csrrw, .imm = -1},  {.op = INSN_prefetch_i, .imm = 16},
        {.op = INSN_fadd_s, .rm = 8},   {.op = INSN_amoadd_w, .rm = 4},
        {.op = INSN_amocas_q, .rd = 1},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(isa_encode(&bad[i]), 0);
    assert_int_equal(isa_encode(&(struct insn){.op = INSN_addi, .rd = 1, .imm = -2048}),
                     0x80000093);
}

/* The lookup must find what a search of the whole table finds. */
static void lookup_equals_search(void **state)
{
    struct isa_extensions all = all_but(NULL);
    for (unsigned i = 0; i < 300000; i++) {
        uint32_t bits = random_word() | 3;
        if (i % 4) { /* near a real one, because most random words are illegal */
            const struct isa_instruction *row =
                isa_instruction(1 + random_word() % (INSN_COUNT - 1));
            bits =
                ((random_word() & ~row->mask) | row->match) ^ (UINT32_C(4) << random_word() % 30);
        }
        enum insn_op best = INSN_illegal;
        for (unsigned op = 1; op < INSN_COUNT; op++) {
            const struct isa_instruction *row = isa_instruction(op);
            if ((bits & row->mask) == row->match &&
                (best == INSN_illegal ||
                 __builtin_popcount(row->mask) > __builtin_popcount(isa_instruction(best)->mask)))
                best = op;
        }
        struct insn insn;
        assert_int_equal(isa_decode(bits, &all, &insn), best != INSN_illegal);
        assert_int_equal(insn.op, best);
        assert_int_equal(insn.length, 4);
    }
}

/* Two rows may only overlap when one is a special case of the other. */
static void rows_are_well_formed(void **state)
{
    for (unsigned a = 1; a < INSN_COUNT; a++) {
        const struct isa_instruction *x = isa_instruction(a);
        assert_int_equal(x->match & ~x->mask, 0);
        assert_int_equal(x->match & 3, 3);
        bool memory = x->flags & (ISA_LOAD | ISA_STORE) && a != INSN_cbo_zero;
        assert_int_equal(isa_access_bytes(a) != 0, memory);
        for (unsigned b = a + 1; b < INSN_COUNT; b++) {
            const struct isa_instruction *y = isa_instruction(b);
            assert_string_not_equal(x->mnemonic, y->mnemonic);
            if ((x->match ^ y->match) & x->mask & y->mask)
                continue;
            uint32_t common = x->mask & y->mask;
            assert_true(common == x->mask || common == y->mask);
            assert_int_not_equal(x->mask, y->mask);
        }
    }
}

static void tells_operands_and_sizes(void **state)
{
    assert_int_equal(isa_instruction(INSN_fsd)->operands, ISA_RS1 | ISA_RS2 | ISA_FP_RS2 | ISA_IMM);
    assert_int_equal(isa_instruction(INSN_fmadd_s)->operands,
                     ISA_RD | ISA_FP_RD | ISA_RS1 | ISA_FP_RS1 | ISA_RS2 | ISA_FP_RS2 | ISA_RS3 |
                         ISA_FP_RS3 | ISA_ROUNDS);
    assert_int_equal(isa_instruction(INSN_csrrwi)->operands, ISA_RD | ISA_ZIMM | ISA_IMM);
    assert_int_equal(isa_instruction(INSN_fcvt_d_w)->operands,
                     ISA_RD | ISA_FP_RD | ISA_RS1 | ISA_ROUNDS);
    assert_int_equal(isa_access_bytes(INSN_lhu), 2);
    assert_int_equal(isa_access_bytes(INSN_amocas_q), 16);
    assert_int_equal(isa_access_bytes(INSN_add), 0);
    assert_string_equal(isa_instruction(INSN_illegal)->mnemonic, "illegal");
}

static const char *csr_name(unsigned number)
{
    return number == 0x300 ? "mstatus" : NULL;
}

static void disassembles(void **state)
{
    static const struct {
        uint32_t bits;
        const char *text;
    } cases[] = {
        {0xfff50593, "addi\ta1,a0,-1"},
        {0x03f51593, "slli\ta1,a0,0x3f"},
        {0x80b53023, "sd\ta1,-2048(a0)"},
        {0xfe0508e3, "beq\ta0,zero,0xfffffff0"},
        {0x800000b7, "lui\tra,0x80000"},
        {0x30529073, "csrrw\tzero,0x305,t0"},
        {0x30029073, "csrrw\tzero,mstatus,t0"},
        {0x0ff0000f, "fence\tiorw,iorw"},
        {0x0310000f, "fence\trw,w"},
        {0x1605252f, "lr.w.aqrl\ta0,(a0)"},
        {0x02c5f553, "fadd.d\tfa0,fa1,fa2"},
        {0x02c59553, "fadd.d\tfa0,fa1,fa2,rtz"},
        {0xd2058553, "fcvt.d.w\tfa0,a1"},
        {0x00000073, "ecall"},
        {0xffff0505, "c.addi\ta0,1"},
        {0x00006505, "c.lui\ta0,0x1"},
        {0x00000001, "c.nop"},
        {0x00000000, ".2byte\t0x0000"},
        {0xffffffff, ".4byte\t0xffffffff"},
    };
    struct isa_extensions all = all_but(NULL);
    char text[ISA_TEXT_SIZE];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t n = isa_disassemble(cases[i].bits, 0x100000000, &all, csr_name, text, sizeof(text));
        assert_string_equal(text, cases[i].text);
        assert_int_equal(n, strlen(text));
    }
    /* a short buffer is cut, terminated, and nothing behind it is touched */
    char tiny[8];
    memset(tiny, 'x', sizeof(tiny));
    assert_int_equal(isa_disassemble(0xfff50593, 0, &all, NULL, tiny, 6), 13);
    assert_string_equal(tiny, "addi\t");
    assert_int_equal(tiny[6], 'x');
}

static bool has(const struct isa_extensions *set, const char *name)
{
    for (unsigned e = 0; e < ISA_EXT_COUNT; e++)
        if (strcmp(isa_extension_info(e)->name, name) == 0)
            return isa_extensions_test(set, e);
    fail_msg("no extension %s", name);
    return false;
}

static void parses_extensions(void **state)
{
    static const struct {
        const char *spec, *on, *off;
    } cases[] = {
        {"default", "i m a f d c zicond svadu svade sv57", ""},
        {"no-d", "f zfh zicsr c", "d"},
        {"no-f", "c m zba", "f d zfh zfhmin"},
        {"F=off,zfh=ON", "f zfh zfhmin zicsr", "d"},
        {"f=off,d", "f d", "zfh zfhmin"},
        {"no-zicsr", "i m a", "f d zfh zicntr zihpm sstc sscofpmf smstateen"},
        {"rv64gc", "i m a f d c zicsr zifencei zicntr sv39 sv57", "zba zbb sstc zfhmin svadu"},
        {"rv64gc,zba,sstc", "zba sstc zicntr", "zbb"},
        {"rva22s64", "zba zbb zbs zicbom zicboz zfhmin svpbmt svinval sv39 svade",
         "zfh zbc zicond zacas svadu sv48 sstc"},
        {"RVA22S64,no-C", "i", "c"},
        {"no-sv39", "svade", "sv39 sv48 sv57 svnapot svpbmt"},
        {"no-sv57", "sv48 sv39", "sv57"},
        {"no-a", "m", "a zacas zawrs za64rs ziccrse ziccamoa"},
        {"max,no-svadu", "svade", "svadu"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct isa_extensions set;
        struct error err = {0};
        if (!isa_extensions_parse(cases[i].spec, &set, &err))
            fail_msg("%s: %s", cases[i].spec, err.message);
        for (int on = 0; on <= 1; on++) {
            char names[128];
            snprintf(names, sizeof(names), "%s", on ? cases[i].on : cases[i].off);
            for (char *name = strtok(names, " "); name; name = strtok(NULL, " "))
                if (has(&set, name) != on)
                    fail_msg("%s: %s should be %s", cases[i].spec, name, on ? "on" : "off");
        }
    }
}

static void refuses_bad_extensions(void **state)
{
    static const struct {
        const char *spec, *message;
    } cases[] = {
        {"zbbb", "unknown CPU extension 'zbbb': did you mean zbb"},
        {"zicbon", "did you mean zicbom"},
        {"zba,default", "unknown CPU extension 'default'"},
        {"", "empty word"},
        {"zba,", "empty word"},
        {",zba", "empty word"},
        {"zba=1", "'zba' has the value '1': use on or off"},
        {"no-i", "cannot be turned off"},
        {"rv64gc,i=off", "cannot be turned off"},
        {"no-max", "unknown CPU extension 'max'"},
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "unknown"},
    };
    struct isa_extensions before = all_but("zbb");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct isa_extensions set = before;
        struct error err = {0};
        assert_false(isa_extensions_parse(cases[i].spec, &set, &err));
        if (!strstr(err.message, cases[i].message))
            fail_msg("'%s' gave: %s", cases[i].spec, err.message);
        assert_memory_equal(&set, &before, sizeof(set));
    }
}

/* The order that "ISA Extension Naming Conventions" asks for, as a key that sorts. */
static void sort_key(const char *name, char key[32])
{
    static const char letters[] = "imafdqlcbkjtpvh";
    if (!name[1])
        snprintf(key, 32, "0%c", (int)('a' + (strchr(letters, name[0]) - letters)));
    else if (name[0] == 'z')
        snprintf(key, 32, "1%c%s", (int)('a' + (strchr(letters, name[1]) - letters)), name);
    else
        snprintf(key, 32, "%c%s", strncmp(name, "sm", 2) == 0 ? '3' : '2', name);
}

static void writes_isa_string(void **state)
{
    char text[ISA_STRING_SIZE], previous[32] = "", key[32];
    struct isa_extensions set = all_but(NULL);
    unsigned position = 0;
    const char *name;
    while ((name = isa_extensions_next(&set, &position))) {
        sort_key(name, key);
        assert_true(strcmp(previous, key) < 0);
        snprintf(previous, sizeof(previous), "%s", key);
        assert_true(strncmp(name, "sv39", 4) && strncmp(name, "sv48", 4) &&
                    strncmp(name, "sv57", 4));
    }
    assert_true(isa_extensions_string(&set, text, sizeof(text)) < sizeof(text));
    assert_int_equal(strncmp(text, "rv64imafdc_zic64b_zicbom_", 25), 0);
    assert_non_null(strstr(text, "_svadu_"));

    assert_true(isa_extensions_parse("rv64gc", &set, NULL));
    size_t length = isa_extensions_string(&set, text, sizeof(text));
    assert_string_equal(text, "rv64imafdc_zicntr_zicsr_zifencei_zihpm_svade_svbare");
    assert_int_equal(length, strlen(text));
    assert_int_equal(isa_extensions_string(&set, text, 9), length);
    assert_string_equal(text, "rv64imaf");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_each_format),
        cmocka_unit_test(decoding_follows_extensions),
        cmocka_unit_test(encoding_inverts_decoding),
        cmocka_unit_test(encoding_refuses_what_does_not_fit),
        cmocka_unit_test(lookup_equals_search),
        cmocka_unit_test(rows_are_well_formed),
        cmocka_unit_test(tells_operands_and_sizes),
        cmocka_unit_test(disassembles),
        cmocka_unit_test(parses_extensions),
        cmocka_unit_test(refuses_bad_extensions),
        cmocka_unit_test(writes_isa_string),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
