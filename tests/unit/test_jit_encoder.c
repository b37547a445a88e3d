/* The x86-64 encoder: every form with every kind of operand, read back by objdump. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base.h"
#include "jit/x86_64/encode.h"

enum { INSTRUCTIONS = 1 << 15, TEXT = 96, CODE_BYTES = 16 * INSTRUCTIONS };

static uint8_t code[CODE_BYTES];
static char (*expected)[TEXT];
static unsigned count;
static struct x86 x;

static const char *const names[16] = {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"};

/* A register of so many bytes. */
static const char *name(unsigned reg, unsigned bytes)
{
    static char text[8][8];
    static unsigned next;
    char *to = text[next++ % 8];
    if (reg >= R8)
        snprintf(to, 8, "r%u%s", reg, bytes == 8 ? "" : bytes == 4 ? "d" : bytes == 2 ? "w" : "b");
    else if (bytes == 1 && reg < RSP)
        snprintf(to, 8, "%cl", names[reg][0]);
    else
        snprintf(to, 8, "%s%s", bytes == 8 ? "r" : bytes == 4 ? "e" : "", names[reg]);
    if (bytes == 1 && reg >= RSP && reg < R8)
        snprintf(to, 8, "%sl", names[reg]);
    return to;
}

static const char *operand(struct x86_operand rm, unsigned bytes)
{
    static char text[4][64];
    static unsigned next;
    char *to = text[next++ % 4];
    static const char *const sizes[] = {[1] = "BYTE", [2] = "WORD", [4] = "DWORD", [8] = "QWORD"};
    if (!rm.memory)
        return name(rm.base, bytes);
    int length = bytes ? snprintf(to, 64, "%s PTR [%s", sizes[bytes], name(rm.base, 8))
                       : snprintf(to, 64, "[%s", name(rm.base, 8));
    if (rm.index >= 0)
        length += snprintf(to + length, 64 - length, "+%s*%u", name((unsigned)rm.index, 8),
                           1u << rm.scale);
    if (rm.displacement || (rm.base & 7) == RBP)
        length +=
            snprintf(to + length, 64 - length, "%c0x%x", rm.displacement < 0 ? '-' : '+',
                     rm.displacement < 0 ? -(unsigned)rm.displacement : (unsigned)rm.displacement);
    snprintf(to + length, 64 - length, "]");
    return to;
}

static void expect(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    assert_true(count < INSTRUCTIONS);
    vsnprintf(expected[count++], TEXT, format, arguments);
    va_end(arguments);
}

static const struct x86_operand *operands(unsigned *number)
{
    static struct x86_operand all[256];
    static const int32_t displacements[] = {0, 8, -128, 127, 128, -129, 0x12345};
    static const uint8_t indexes[] = {RAX, RBP, RSI, R12, R13, R15};
    unsigned n = 0;
    for (unsigned reg = 0; reg < 16; reg++) {
        all[n++] = x86_register(reg);
        for (unsigned d = 0; d < ARRAY_SIZE(displacements); d++)
            all[n++] = x86_memory(reg, displacements[d]);
        all[n++] = x86_indexed(reg, indexes[reg % ARRAY_SIZE(indexes)], reg % 4, 0);
        all[n++] = x86_indexed(reg, indexes[(reg + 3) % ARRAY_SIZE(indexes)], reg / 4, 64);
    }
    *number = n;
    return all;
}

/* --- Emission, with what it should read as ---------------------------------------------------- */

static void emit_general(struct x86_operand rm, unsigned reg)
{
    static const struct {
        enum x86_opcode opcode;
        const char *mnemonic;
        bool stores; /* rm is the first operand */
    } rows[] = {
        {X86_ADD, "add"},         {X86_OR, "or"},           {X86_AND, "and"},
        {X86_SUB, "sub"},         {X86_XOR, "xor"},         {X86_CMP, "cmp"},
        {X86_LOAD, "mov"},        {X86_IMUL, "imul"},       {X86_CMOVE, "cmove"},
        {X86_CMOVNE, "cmovne"},   {X86_CMOVL, "cmovl"},     {X86_CMOVG, "cmovg"},
        {X86_CMOVB, "cmovb"},     {X86_CMOVA, "cmova"},     {X86_STORE, "mov", true},
        {X86_TEST, "test", true}, {X86_XADD, "xadd", true}, {X86_CMPXCHG, "cmpxchg", true},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
        for (unsigned bytes = 4; bytes <= 8; bytes += 4) {
            x86_form(&x, rows[i].opcode, bytes == 8, false, reg, rm);
            if (rows[i].stores)
                expect("%s %s,%s", rows[i].mnemonic, operand(rm, bytes), name(reg, bytes));
            else
                expect("%s %s,%s", rows[i].mnemonic, name(reg, bytes), operand(rm, bytes));
        }
}

static void emit_narrow(struct x86_operand rm, unsigned reg)
{
    x86_form(&x, X86_MOVZX_8, true, true, reg, rm);
    expect("movzx %s,%s", name(reg, 8), operand(rm, 1));
    x86_form(&x, X86_MOVSX_8, true, true, reg, rm);
    expect("movsx %s,%s", name(reg, 8), operand(rm, 1));
    x86_form(&x, X86_MOVZX_16, true, false, reg, rm);
    expect("movzx %s,%s", name(reg, 8), operand(rm, 2));
    x86_form(&x, X86_MOVSX_16, true, false, reg, rm);
    expect("movsx %s,%s", name(reg, 8), operand(rm, 2));
    x86_op(&x, X86_MOVSXD, reg, rm);
    expect("movsxd %s,%s", name(reg, 8), operand(rm, 4));
    if (!rm.memory)
        return;
    x86_op(&x, X86_LEA, reg, rm);
    expect("lea %s,%s", name(reg, 8), operand(rm, 0));
    x86_form(&x, X86_STORE_8, false, true, reg, rm);
    expect("mov %s,%s", operand(rm, 1), name(reg, 1));
    x86_form(&x, X86_STORE_16, false, false, reg, rm);
    expect("mov %s,%s", operand(rm, 2), name(reg, 2));
}

static void emit_immediate(struct x86_operand rm)
{
    static const struct {
        enum x86_group group;
        const char *mnemonic;
    } rows[] = {{X86_GROUP_ADD, "add"}, {X86_GROUP_OR, "or"},   {X86_GROUP_AND, "and"},
                {X86_GROUP_SUB, "sub"}, {X86_GROUP_XOR, "xor"}, {X86_GROUP_CMP, "cmp"}};
    static const int32_t values[] = {1, 127, 128, 0x7ff};
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        int32_t value = values[(rm.base + i) % ARRAY_SIZE(values)];
        x86_arithmetic(&x, true, rows[i].group, rm, value);
        expect("%s %s,0x%x", rows[i].mnemonic, operand(rm, 8), value);
        x86_arithmetic(&x, false, rows[i].group, rm, value);
        expect("%s %s,0x%x", rows[i].mnemonic, operand(rm, 4), value);
    }
    x86_unary(&x, true, X86_GROUP_NEG, rm);
    expect("neg %s", operand(rm, 8));
    x86_unary(&x, false, X86_GROUP_IDIV, rm);
    expect("idiv %s", operand(rm, 4));
    x86_unary(&x, true, X86_GROUP_MUL, rm);
    expect("mul %s", operand(rm, 8));
}

static void emit_floating(struct x86_operand rm, unsigned xmm)
{
    static const struct {
        enum x86_opcode opcode;
        const char *mnemonic;
        unsigned bytes;
    } rows[] = {{X86_ADDSD, "addsd", 8},       {X86_MULSS, "mulss", 4},
                {X86_SQRTSD, "sqrtsd", 8},     {X86_UCOMISD, "ucomisd", 8},
                {X86_COMISS, "comiss", 4},     {X86_MOVSD_LOAD, "movsd", 8},
                {X86_CVTSD2SS, "cvtsd2ss", 8}, {X86_DIVSS, "divss", 4}};
    if (!rm.memory)
        return;
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        x86_form(&x, rows[i].opcode, false, false, xmm, rm);
        expect("%s xmm%u,%s", rows[i].mnemonic, xmm, operand(rm, rows[i].bytes));
    }
    x86_form(&x, X86_MOVSS_STORE, false, false, xmm, rm);
    expect("movss %s,xmm%u", operand(rm, 4), xmm);
    x86_form(&x, X86_CVTTSD2SI, true, false, xmm, rm);
    expect("cvttsd2si %s,%s", name(xmm, 8), operand(rm, 8));
    x86_fused(&x, 0xa9, true, xmm, 15 - xmm, rm);
    expect("vfmadd213sd xmm%u,xmm%u,%s", xmm, 15 - xmm, operand(rm, 8));
    x86_fused(&x, 0xaf, false, xmm, 1, rm);
    expect("vfnmsub213ss xmm%u,xmm1,%s", xmm, operand(rm, 4));
}

static void emit_others(unsigned reg)
{
    x86_constant(&x, reg, 0);
    expect("xor %s,%s", name(reg, 4), name(reg, 4));
    x86_constant(&x, reg, 0x80000000);
    expect("mov %s,0x80000000", name(reg, 4));
    x86_constant(&x, reg, (uint64_t)-2);
    expect("mov %s,0xfffffffffffffffe", name(reg, 8));
    x86_constant(&x, reg, UINT64_C(0x123456789abcdef0));
    expect("movabs %s,0x123456789abcdef0", name(reg, 8));
    x86_shift(&x, true, X86_GROUP_SHL, reg, 63);
    expect("shl %s,0x3f", name(reg, 8));
    x86_shift(&x, false, X86_GROUP_SAR, reg, -1);
    expect("sar %s,cl", name(reg, 4));
    x86_shift(&x, true, X86_GROUP_ROR, reg, 5);
    expect("ror %s,0x5", name(reg, 8));
    x86_set(&x, X86_B, reg);
    expect("setb %s", name(reg, 1));
    expect("movzx %s,%s", name(reg, 4), name(reg, 1));
}

static void read_back(void)
{
    char path[] = "/tmp/test_jit_encoder.XXXXXX", command[256], line[256];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, code, (size_t)(x.at - code)), x.at - code);
    close(fd);
    snprintf(command, sizeof(command),
             "objdump -D -b binary -m i386:x86-64 -M intel --no-show-raw-insn %s", path);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    unsigned seen = 0;
    while (fgets(line, sizeof(line), pipe)) {
        char *text = strstr(line, ":\t");
        if (!text)
            continue;
        char squeezed[256];
        unsigned length = 0;
        for (text += 2; *text && *text != '\n'; text++)
            if (*text != ' ' || (length && squeezed[length - 1] != ' '))
                squeezed[length++] = *text;
        while (length && squeezed[length - 1] == ' ')
            length--;
        squeezed[length] = 0;
        assert_true(seen < count);
        assert_string_equal(squeezed, expected[seen]);
        seen++;
    }
    int status = pclose(pipe);
    unlink(path);
    assert_int_equal(status, 0);
    assert_int_equal(seen, count);
}

static void test_forms(void **state)
{
    if (system("objdump --version > /dev/null 2>&1") != 0) {
        print_message("objdump is not installed\n");
        skip();
    }
    unsigned number;
    const struct x86_operand *all = operands(&number);
    expected = calloc(INSTRUCTIONS, TEXT);
    assert_non_null(expected);
    x.at = code;
    for (unsigned i = 0; i < number; i++) {
        emit_general(all[i], (i * 7 + 3) % 16);
        emit_narrow(all[i], (i * 5 + 1) % 16);
        emit_immediate(all[i]);
        emit_floating(all[i], (i * 3) % 16);
    }
    for (unsigned reg = 0; reg < 16; reg++)
        emit_others(reg);
    assert_true(x.at <= code + sizeof(code));
    read_back();
    free(expected);
}

/* Forward and backward jumps, and addresses, meet their targets. */
static void test_targets(void **state)
{
    x.at = code;
    uint8_t *far = x86_jump(&x), *near = x86_jump_short_if(&x, X86_E);
    uint8_t *address = x86_address(&x, R9);
    x86_here_short(&x, near);
    x86_jump_to(&x, code);
    x86_here(&x, far);
    x86_patch(address, code + 100);

    int32_t distance;
    memcpy(&distance, far, 4);
    assert_ptr_equal(far + 4 + distance, x.at);
    assert_ptr_equal(near + 1 + (int8_t)*near, address + 4);
    memcpy(&distance, x.at - 4, 4);
    assert_ptr_equal(x.at + distance, code);
    memcpy(&distance, address, 4);
    assert_ptr_equal(address + 4 + distance, code + 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_targets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
