/* LR, SC and atomic operations: results, reservations and what ends them, Zacas in every width,
 * faults. */
#include "runtime.h"

static uint64_t words[64] __attribute__((aligned(4096)));

#define AMO(name, op) CODE(name, #op " a0, a1, (a0)")
AMO(swap_w, amoswap.w)
AMO(add_w, amoadd.w)
AMO(xor_w, amoxor.w)
AMO(and_w, amoand.w)
AMO(or_w, amoor.w)
AMO(min_w, amomin.w)
AMO(max_w, amomax.w)
AMO(minu_w, amominu.w)
AMO(maxu_w, amomaxu.w)
AMO(swap_d, amoswap.d)
AMO(add_d, amoadd.d)
AMO(xor_d, amoxor.d)
AMO(and_d, amoand.d)
AMO(or_d, amoor.d)
AMO(min_d, amomin.d)
AMO(max_d, amomax.d)
AMO(minu_d, amominu.d)
AMO(maxu_d, amomaxu.d)

static void operations(void)
{
    static const struct {
        const char *name;
        code *code;
    } cases[] = {
        {"amoswap.w", swap_w}, {"amoadd.w", add_w},   {"amoxor.w", xor_w}, {"amoand.w", and_w},
        {"amoor.w", or_w},     {"amomin.w", min_w},   {"amomax.w", max_w}, {"amominu.w", minu_w},
        {"amomaxu.w", maxu_w}, {"amoswap.d", swap_d}, {"amoadd.d", add_d}, {"amoxor.d", xor_d},
        {"amoand.d", and_d},   {"amoor.d", or_d},     {"amomin.d", min_d}, {"amomax.d", max_d},
        {"amominu.d", minu_d}, {"amomaxu.d", maxu_d},
    };
    static const uint64_t values[] = {0,
                                      1,
                                      0x7fffffff,
                                      0x80000000,
                                      0xffffffff,
                                      0x100000000,
                                      0x7fffffffffffffff,
                                      0x8000000000000000,
                                      ~0UL,
                                      0x123456789abcdef0};

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (unsigned v = 0; v < 100; v++) {
            words[0] = values[v / 10];
            struct outcome outcome = run(MODE_M, cases[i].code, (uint64_t)words, values[v % 10]);
            value(label(cases[i].name, " old ", v), outcome.a0);
            value(label(cases[i].name, " new ", v), words[0]);
        }
}

CODE(operands_alias, "amoadd.d a0, a0, (a0)")
CODE(operands_alias2, "mv a2, a0\namoadd.d a2, a1, (a2)\nmv a0, a2")
CODE(destination_zero, "amoadd.d x0, a1, (a0)\nmv a0, x0")

static void registers(void)
{
    words[0] = 5;
    try("amoadd a0, a0, (a0)", MODE_M, operands_alias, (uint64_t)words, 0);
    value("amoadd of its own address", words[0] - (uint64_t)words);
    words[0] = 5;
    try("amoadd a2, a1, (a2)", MODE_M, operands_alias2, (uint64_t)words, 3);
    value("amoadd with destination as address", words[0]);
    try("amoadd x0, a1, (a0)", MODE_M, destination_zero, (uint64_t)words, 3);
    value("amoadd to x0", words[0]);
}

CODE(cas_w, "mv a2, a1\nld a3, 8(a0)\namocas.w a2, a3, (a0)\nmv a0, a2")
CODE(cas_d, "mv a2, a1\nld a3, 8(a0)\namocas.d a2, a3, (a0)\nmv a0, a2")
/* Expected in a2, a3 (a1 and ~a1), new in a4, a5. */
CODE(cas_q, "mv a2, a1\nnot a3, a1\nld a4, 16(a0)\nld a5, 24(a0)\namocas.q a2, a4, (a0)\n"
            "mv a0, a2\nmv a1, a3")
CODE(cas_q_zero, "li a2, 0\nli a3, 0\namocas.q a2, x0, (a0)\nmv a0, a2\nmv a1, a3")
CODE(cas_q_odd_destination, ".4byte 0x28e546af") /* amocas.q a3, a4, (a0) */
CODE(cas_q_odd_source, ".4byte 0x28f5462f")      /* amocas.q a2, a5, (a0) */
/* QEMU's own constant zero suffers from rd = x0, so nothing follows in the same block. */
CODE(cas_fault, "li a2, 0\namocas.d a2, a1, (a0)")

static void compare_and_swap(void)
{
    static const uint64_t values[] = {0,          0xffffffff,         0xffffffff00000000,
                                      0x80000000, 0xffffffff80000000, 0x123456789abcdef0};

    for (unsigned v = 0; v < 36; v++) {
        words[0] = values[v / 6];
        words[1] = 0xfeedface12345678;
        try(label("amocas.w ", "", v), MODE_M, cas_w, (uint64_t)words, values[v % 6]);
        value(label("amocas.w stored ", "", v), words[0]);
        words[0] = values[v / 6];
        try(label("amocas.d ", "", v), MODE_M, cas_d, (uint64_t)words, values[v % 6]);
        value(label("amocas.d stored ", "", v), words[0]);
        for (unsigned second = 0; second < 2; second++) {
            words[0] = values[v / 6];
            words[1] = second ? ~values[v / 6] : 7;
            words[2] = 0x1111111111111111;
            words[3] = 0x2222222222222222;
            struct outcome outcome = run(MODE_M, cas_q, (uint64_t)words, values[v % 6]);
            value(label("amocas.q low ", "", v * 10 + second), outcome.a0);
            value(label("amocas.q high ", "", v * 10 + second), outcome.a1);
            value(label("amocas.q stored low ", "", v * 10 + second), words[0]);
            value(label("amocas.q stored high ", "", v * 10 + second), words[1]);
        }
    }
    words[0] = words[1] = 0;
    try("amocas.q with x0, equal", MODE_M, cas_q_zero, (uint64_t)words, 0);
    words[0] = words[1] = 9;
    try("amocas.q with x0, different", MODE_M, cas_q_zero, (uint64_t)words, 0);
    value("amocas.q with x0, kept", words[1]);
    try("amocas.q, odd rd", MODE_M, cas_q_odd_destination, (uint64_t)words, 0);
    try("amocas.q, odd rs2", MODE_M, cas_q_odd_source, (uint64_t)words, 0);
    try("amocas.q, misaligned by 8", MODE_M, cas_q, (uint64_t)words + 8, 0);
    try("amocas.d, misaligned by 4", MODE_M, cas_fault, (uint64_t)words + 4, 0);
}

CODE(pair_d, "lr.d a2, (a0)\nsc.d a3, a1, (a0)\nmv a0, a3")
CODE(pair_w, "lr.w a2, (a0)\nsc.w a3, a1, (a0)\nmv a0, a2")
CODE(second_sc, "lr.d a2, (a0)\nsc.d a3, a1, (a0)\nsc.d a0, a1, (a0)")
CODE(no_lr, "sc.d a0, a1, (a0)")
CODE(other_address, "lr.d a2, (a0)\naddi a3, a0, 1024\nsc.d a0, a1, (a3)")
CODE(second_lr, "lr.d a2, (a0)\naddi a3, a0, 1024\nlr.d a4, (a3)\nsc.d a0, a1, (a0)")
CODE(second_lr_back, "lr.d a2, (a0)\naddi a3, a0, 1024\nlr.d a4, (a3)\nsc.d a0, a1, (a3)")
CODE(changed_between, "lr.d a2, (a0)\nsd a1, 0(a0)\nli a4, 55\nsc.d a3, a4, (a0)\nld a0, 0(a0)")
CODE(loop, "li a2, 100\n1: lr.d a3, (a0)\nadd a3, a3, a1\nsc.d a4, a3, (a0)\nbnez a4, 1b\n"
           "addi a2, a2, -1\nbnez a2, 1b\nld a0, 0(a0)")

static void reservations(void)
{
    words[0] = 0x1122334455667788;
    try("lr.d, sc.d", MODE_M, pair_d, (uint64_t)words, 7);
    value("stored", words[0]);
    words[0] = 0x80000000;
    try("lr.w, sc.w", MODE_U, pair_w, (uint64_t)words, 7);
    value("stored by sc.w", words[0]);
    try("second sc", MODE_M, second_sc, (uint64_t)words, 8);
    try("sc without lr", MODE_M, no_lr, (uint64_t)words, 9);
    value("not stored", words[0]);
    words[128 / 8] = 3;
    try("sc elsewhere", MODE_M, other_address, (uint64_t)words, 10);
    try("second lr, sc to the first", MODE_M, second_lr, (uint64_t)words, 11);
    try("second lr, sc to the second", MODE_M, second_lr_back, (uint64_t)words, 12);
    words[0] = 0;
    try("add in a loop", MODE_U, loop, (uint64_t)words, 3);
}

/* Through page tables: an AMO needs read and write, and faults as a store. */
static void faults(void)
{
    static const uint64_t flags[] = {0, PTE_R, PTE_X, PTE_R | PTE_X, PTE_R | PTE_W};
    const uint64_t address = 0x2140000000UL;

    paging_start(3);
    paging_on();
    for (unsigned i = 0; i < 5; i++) {
        paging_map(address, (uint64_t)words, flags[i] | (i ? PTE_V : 0) | PTE_A | PTE_D, 0);
        fence_translation();
        try(label("lr and sc on a page ", "", i), MODE_S, pair_d, address, 1);
        try(label("amoadd on a page ", "", i), MODE_S, add_d, address, 1);
        try(label("amocas on a page ", "", i), MODE_S, cas_fault, address, 1);
    }
    /* Without D: an AMO that may not even store faults, too. */
    paging_map(address, (uint64_t)words, PTE_V | PTE_R | PTE_W | PTE_A, 0);
    fence_translation();
    try("lr on a clean page", MODE_S, pair_d, address, 1);
    try("amocas on a clean page", MODE_S, cas_fault, address, 1);
    paging_off();
}

int main(void)
{
    operations();
    registers();
    compare_and_swap();
    reservations();
    faults();
    return 0;
}
