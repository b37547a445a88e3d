/* Exceptions without translation: each cause, from each mode, with what it leaves in mepc, mtval
 * and mstatus; mret and sret; the TSR, TVM and TW traps. */
#include "runtime.h"

/* In no RAM and no device of either machine. */
#define NOWHERE 0x90000000UL

CODE(code_nothing, "nop")
CODE(code_ebreak, "nop\nebreak")
CODE(code_c_ebreak, ".option rvc\nc.ebreak\n.option norvc")
CODE(code_zeros, ".2byte 0")
CODE(code_ones, ".4byte 0xffffffff")
CODE(code_reserved_add, ".4byte 0x02a5b533 | 0x7c000000")
CODE(code_reserved_c, ".2byte 0x2001") /* c.addiw x0 */
CODE(code_reserved_c_lui, ".2byte 0x6501")
CODE(code_reserved_load, ".4byte 0x00057503")                        /* funct3 7 */
CODE(code_reserved_rounding, ".4byte 0x00b57553 & ~0x7000 | 0x5000") /* fadd.s with rm 5 */
CODE(code_dynamic_rounding, "fsrmi 6\n.4byte 0x00b57553")            /* fadd.s, dyn */
CODE(code_csr_missing, "csrr a0, 0x7c0")
CODE(code_csr_read_only, "csrw mhartid, a0")
CODE(code_csr_read_only_set, "csrrs a0, mhartid, x0")
CODE(code_csr_read_only_clear, "csrrci a0, mhartid, 0")
CODE(code_mret, "mret")
CODE(code_sret, "sret")
CODE(code_wfi, "wfi")
CODE(code_sfence, "sfence.vma")
CODE(code_sinval, "sinval.vma a0, a1")
CODE(code_sfence_w_inval, "sfence.w.inval")
CODE(code_satp, "csrr a0, satp")
CODE(code_satp_write, "csrw satp, x0")
CODE(code_sstatus, "csrr a0, sstatus\nli a0, 0")
CODE(code_mstatus, "csrr a0, mstatus")

CODE(code_lb, "lb a0, 0(a0)")
CODE(code_ld, "ld a0, 0(a0)")
CODE(code_lw3, "lw a0, 3(a0)")
CODE(code_sd, "sd a1, 0(a0)")
CODE(code_sh, "sh a1, 1(a0)")
CODE(code_fld, "fld fa0, 0(a0)")
CODE(code_fsw, "fsw fa0, 0(a0)")
CODE(code_lr, "lr.d a0, (a0)")
CODE(code_sc, "sc.d a0, a1, (a0)")
CODE(code_amo, "amoadd.d a0, a1, (a0)")
CODE(code_amocas, "amocas.d a2, a1, (a0)")
CODE(code_cbo_zero, "cbo.zero (a0)")
CODE(code_cbo_clean, "cbo.clean (a0)")
CODE(code_prefetch, "prefetch.r 0(a0)\nprefetch.w 32(a0)\nprefetch.i 64(a0)")
CODE(code_jump, "jr a0")

static void illegal_instructions(void)
{
    static const struct {
        const char *name;
        code *code;
    } cases[] = {
        {"ebreak", code_ebreak},
        {"c.ebreak", code_c_ebreak},
        {"all zeros", code_zeros},
        {"all ones", code_ones},
        {"reserved funct7", code_reserved_add},
        {"reserved compressed", code_reserved_c},
        {"c.lui 0", code_reserved_c_lui},
        {"reserved load", code_reserved_load},
        {"reserved rounding mode", code_reserved_rounding},
        {"reserved dynamic rounding mode", code_dynamic_rounding},
        {"missing csr", code_csr_missing},
        {"write to read-only csr", code_csr_read_only},
        {"set nothing in read-only csr", code_csr_read_only_set},
        {"clear nothing in read-only csr", code_csr_read_only_clear},
        {"sfence.vma", code_sfence},
        {"sinval.vma", code_sinval},
        {"sfence.w.inval", code_sfence_w_inval},
        {"satp read", code_satp},
        {"satp write", code_satp_write},
        {"sstatus read", code_sstatus},
        {"ecall", code_nothing},
    };

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        try(label(cases[i].name, " in mode ", MODE_U), MODE_U, cases[i].code, 0, 0);
        try(label(cases[i].name, " in mode ", MODE_S), MODE_S, cases[i].code, 0, 0);
        try(label(cases[i].name, " in mode ", MODE_M), MODE_M, cases[i].code, 0, 0);
    }
    /* The value depends on the machine; only that it traps. */
    try("mstatus read in mode 0", MODE_U, code_mstatus, 0, 0);
    try("mstatus read in mode 1", MODE_S, code_mstatus, 0, 0);
    csr_write("fcsr", 0);
}

static void access_faults(void)
{
    static const struct {
        const char *name;
        code *code;
    } cases[] = {
        {"lb", code_lb},
        {"ld", code_ld},
        {"lw misaligned", code_lw3},
        {"sd", code_sd},
        {"sh misaligned", code_sh},
        {"fld", code_fld},
        {"fsw", code_fsw},
        {"lr", code_lr},
        {"amoadd", code_amo},
        {"amocas", code_amocas},
        {"prefetch", code_prefetch},
        {"jump", code_jump},
    };

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        try(label(cases[i].name, " nowhere, mode ", MODE_M), MODE_M, cases[i].code, NOWHERE, 1);
        try(label(cases[i].name, " nowhere, mode ", MODE_U), MODE_U, cases[i].code, NOWHERE, 1);
        /* Beyond every physical address. */
        try(label(cases[i].name, " far beyond, mode ", MODE_M), MODE_M, cases[i].code,
            0x8000000000000000UL, 1);
    }
}

static uint64_t words[16] __attribute__((aligned(64)));

static void misaligned(void)
{
    uint64_t base = (uint64_t)words;

    for (unsigned i = 0; i < 16; i++)
        words[i] = 0x0102030405060708UL * (i + 1);
    for (unsigned offset = 0; offset < 8; offset++) {
        try(label("ld offset ", "", offset), MODE_M, code_ld, base + offset, 0);
        try(label("lw offset ", "", offset + 3), MODE_M, code_lw3, base + offset, 0);
        try(label("sd offset ", "", offset), MODE_M, code_sd, base + offset, ~0UL / 3 * offset);
        value(label("stored low ", "", offset), words[0]);
        value(label("stored high ", "", offset), words[1]);
        /* Across the boundary of a cache line. */
        try(label("sd offset ", "", 56 + offset), MODE_U, code_sd, base + 56 + offset,
            0x1122334455667788UL);
        value(label("stored low ", "", 56 + offset), words[7]);
        value(label("stored high ", "", 56 + offset), words[8]);
        try(label("lr offset ", "", offset), MODE_M, code_lr, base + offset, 0);
        if (offset == 0)
            continue;
        try(label("amoadd offset ", "", offset), MODE_U, code_amo, base + offset, 1);
        try(label("amocas offset ", "", offset), MODE_U, code_amocas, base + offset, 1);
    }
}

CODE(code_jump_odd, "addi a0, a0, 1\njalr a1, 0(a0)")
CODE(code_jump_half, "auipc a0, 0\njr 12(a0)\n.2byte 0\n.2byte 0x0001\nnop")

static void jumps(void)
{
    try("jalr clears bit 0", MODE_M, code_jump_odd, (uint64_t)code_nothing, 0);
    try("jump to the middle of 4 bytes", MODE_M, code_jump_half, 0, 0);
}

/* What mret and sret do to mstatus, seen in the trap that follows, and where they go. */
static void returns(void)
{
    const uint64_t bits =
        MSTATUS_MPIE | MSTATUS_SPIE | MSTATUS_SPP | MSTATUS_MPRV | MSTATUS_SUM | MSTATUS_MXR;

    for (unsigned mode = MODE_U; mode <= MODE_M; mode++) {
        if (mode == 2)
            continue;
        csr_clear("mstatus", bits);
        try(label("mret with clear bits to mode ", "", mode), mode, code_nothing, 0, 0);
        csr_set("mstatus", bits);
        try(label("mret with set bits to mode ", "", mode), mode, code_nothing, 0, 0);
        csr_clear("mstatus", bits);
    }
    for (unsigned tsr = 0; tsr < 2; tsr++)
        for (unsigned mode = MODE_U; mode <= MODE_M; mode++)
            for (unsigned spp = 0; spp < 2; spp++) {
                if (mode == 2)
                    continue;
                csr_clear("mstatus", bits | MSTATUS_TSR);
                csr_set("mstatus",
                        (tsr ? MSTATUS_TSR : 0) | (spp ? MSTATUS_SPP | MSTATUS_SPIE : 0));
                csr_write("sepc", code_nothing);
                /* mret itself clears nothing of S-mode's. */
                try(label("sret, tsr and spp ", tsr ? "set, in mode " : "clear, in mode ",
                          mode * 10 + spp),
                    mode, code_sret, 0, 0);
            }
    csr_clear("mstatus", MSTATUS_TSR | MSTATUS_SPP | MSTATUS_SPIE);
    try("mret in S-mode", MODE_S, code_mret, 0, 0);
    try("mret in U-mode", MODE_U, code_mret, 0, 0);
    /* MPP keeps only modes that exist. */
    csr_set("mstatus", MSTATUS_MPP);
    csr_clear("mstatus", 1 << 11);
    value("MPP after writing 2", csr_read("mstatus") & MSTATUS_MPP);
    for (unsigned i = 0; i < 4; i++) {
        csr_write("mepc", (uint64_t)words + i);
        value(label("mepc bit ", "", i), csr_read("mepc") - (uint64_t)words);
        csr_write("sepc", (uint64_t)words + i);
        value(label("sepc bit ", "", i), csr_read("sepc") - (uint64_t)words);
    }
}

static void virtualisation_traps(void)
{
    static const struct {
        const char *name;
        uint64_t bit;
    } bits[] = {{"TVM", MSTATUS_TVM}, {"TW", MSTATUS_TW}, {"TSR", MSTATUS_TSR}};
    static const struct {
        const char *name;
        code *code;
    } cases[] = {{" sfence.vma ", code_sfence},
                 {" sinval.vma ", code_sinval},
                 {" sfence.w.inval ", code_sfence_w_inval},
                 {" satp ", code_satp},
                 {" satp write ", code_satp_write},
                 {" sstatus ", code_sstatus}};

    for (unsigned b = 0; b < 3; b++)
        for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++)
            for (unsigned mode = MODE_U; mode <= MODE_M; mode++) {
                if (mode == 2)
                    continue;
                csr_set("mstatus", bits[b].bit);
                try(label(bits[b].name, cases[i].name, mode), mode, cases[i].code, 0, 0);
                csr_clear("mstatus", bits[b].bit);
            }
    /* wfi without a trap only where an interrupt is pending: enabled in mie, not taken. */
    csr_write("mie", 2);
    csr_write("mip", 2);
    csr_clear("mstatus", MSTATUS_MIE);
    csr_write("mideleg", 0x222);
    csr_clear("mstatus", MSTATUS_SIE);
    try("wfi in M-mode, interrupt pending", MODE_M, code_wfi, 0, 0);
    try("wfi in S-mode, interrupt pending", MODE_S, code_wfi, 0, 0);
    csr_set("mstatus", MSTATUS_TW);
    try("wfi in M-mode, TW", MODE_M, code_wfi, 0, 0);
    csr_write("mip", 0);
    try("wfi in S-mode, TW, nothing pending", MODE_S, code_wfi, 0, 0);
    csr_write("mie", 0);
    csr_write("mideleg", 0);
    csr_clear("mstatus", MSTATUS_TW);
}

/* FS off: every FP instruction and FP CSR is illegal. */
CODE(code_fadd, "fadd.d fa0, fa1, fa2")
CODE(code_fmv, "fmv.x.w a0, fa0")
CODE(code_flh, "flh fa0, 0(a0)")
CODE(code_fsd, "fsd fa0, 0(a0)")
CODE(code_fcsr, "csrr a0, fcsr")
CODE(code_frm_write, "csrwi frm, 1")
CODE(code_fadd_s, "fmadd.s fa0, fa1, fa2, fa3")
CODE(code_c_fld, ".option rvc\nc.fld fa0, 0(a0)\n.option norvc")

static void float_state(void)
{
    static const struct {
        const char *name;
        code *code;
    } cases[] = {{"fadd.d", code_fadd},    {"fmv.x.w", code_fmv}, {"flh", code_flh},
                 {"fsd", code_fsd},        {"fcsr", code_fcsr},   {"frm", code_frm_write},
                 {"fmadd.s", code_fadd_s}, {"c.fld", code_c_fld}};
    uint64_t base = (uint64_t)words;

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        csr_set("mstatus", MSTATUS_FS);
        csr_write("fcsr", 0);
        try(label(cases[i].name, ", FS ", 3), MODE_U, cases[i].code, base, 0);
        csr_clear("mstatus", MSTATUS_FS);
        try(label(cases[i].name, ", FS ", 0), MODE_U, cases[i].code, base, 0);
        try(label(cases[i].name, ", FS in M-mode ", 0), MODE_M, cases[i].code, base, 0);
        /* What changes state makes it dirty. */
        csr_set("mstatus", 1 << 13);
        run(MODE_U, cases[i].code, base, 0);
        if (i != 1 && i != 3 && i != 4)
            value(label("FS and SD after ", cases[i].name, 0),
                  csr_read("mstatus") & (MSTATUS_FS | 1UL << 63));
    }
    csr_set("mstatus", MSTATUS_FS);
    csr_write("fcsr", 0xffffffffffffffff);
    value("fcsr of all ones", csr_read("fcsr"));
    csr_write("frm", 0xff);
    value("frm of all ones", csr_read("frm"));
    csr_write("fflags", 0xe0);
    value("fcsr after fflags", csr_read("fcsr"));
    csr_write("fcsr", 0);
}

/* Every exception from U and S, delegated. */
static void delegation(void)
{
    csr_write("medeleg", 0);
    csr_write("medeleg", ~0UL);
    value("medeleg of all ones, those in use", csr_read("medeleg") & 0xfbff);
    csr_write("medeleg", 0xb1ff & ~(1 << 9));
    for (unsigned mode = MODE_U; mode <= MODE_M; mode++) {
        if (mode == 2)
            continue;
        for (unsigned vectored = 0; vectored < 2; vectored++)
            for (unsigned enabled = 0; enabled < 2; enabled++) {
                unsigned number = mode * 100 + vectored * 10 + enabled;
                csr_clear("mstatus", MSTATUS_SIE | MSTATUS_SPIE | MSTATUS_SPP);
                if (enabled)
                    csr_set("mstatus", MSTATUS_SIE);
                try(label("delegated illegal ", "", number), mode, code_ones, 0, 0);
                try(label("delegated ebreak ", "", number), mode, code_ebreak, 0, 0);
                try(label("delegated load fault ", "", number), mode, code_ld, NOWHERE, 0);
                try(label("delegated store fault ", "", number), mode, code_sd, NOWHERE, 0);
                try(label("delegated fetch fault ", "", number), mode, code_jump, NOWHERE, 0);
                try(label("delegated amo misaligned ", "", number), mode, code_amo,
                    (uint64_t)words + 1, 0);
                try(label("delegated ecall ", "", number), mode, code_nothing, 0, 0);
            }
    }
    csr_write("medeleg", 0);
}

int main(void)
{
    illegal_instructions();
    access_faults();
    misaligned();
    jumps();
    returns();
    virtualisation_traps();
    float_state();
    delegation();
    return 0;
}
