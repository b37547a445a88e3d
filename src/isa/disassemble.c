#include "isa/encoding.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

static const char *const registers[32] = {
    "zero", "ra", "sp", "gp", "tp",  "t0",  "t1", "t2", "s0", "s1", "a0",
    "a1",   "a2", "a3", "a4", "a5",  "a6",  "a7", "s2", "s3", "s4", "s5",
    "s6",   "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
};

static const char *const fp_registers[32] = {
    "ft0", "ft1", "ft2", "ft3", "ft4",  "ft5",  "ft6", "ft7", "fs0",  "fs1",  "fa0",
    "fa1", "fa2", "fa3", "fa4", "fa5",  "fa6",  "fa7", "fs2", "fs3",  "fs4",  "fs5",
    "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", "ft10", "ft11",
};

static const char *const rounding_modes[8] = {"rne", "rtz",     "rdn",     "rup",
                                              "rmm", "unknown", "unknown", "dyn"};

static const char *const aqrl_suffixes[4] = {"", ".rl", ".aq", ".aqrl"};

enum { RM_NEAREST = 0, RM_DYNAMIC = 7 };

const char *isa_register_name(unsigned number)
{
    return registers[number & 31];
}

const char *isa_fp_register_name(unsigned number)
{
    return fp_registers[number & 31];
}

struct text {
    char *start;
    size_t size, length; /* length counts what did not fit too */
};

__attribute__((format(printf, 2, 3))) static void put(struct text *text, const char *format, ...)
{
    bool room = text->length < text->size;
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(room ? text->start + text->length : NULL,
                      room ? text->size - text->length : 0, format, arguments);
    va_end(arguments);
    if (n > 0)
        text->length += (size_t)n;
}

static void put_fence_set(struct text *text, unsigned set)
{
    if (!set)
        put(text, "0");
    for (unsigned i = 0; i < 4; i++)
        if (set & 8 >> i)
            put(text, "%c", "iorw"[i]);
}

static void put_csr(struct text *text, unsigned number, isa_csr_name *csr_name)
{
    const char *name = csr_name ? csr_name(number) : NULL;
    if (name)
        put(text, "%s", name);
    else
        put(text, "0x%x", number);
}

static void put_operand(struct text *text, char letter, const struct insn *insn, uint64_t pc,
                        isa_csr_name *csr_name)
{
    switch (letter) {
    case 'd':
        put(text, "%s", registers[insn->rd]);
        break;
    case 's':
        put(text, "%s", registers[insn->rs1]);
        break;
    case 't':
        put(text, "%s", registers[insn->rs2]);
        break;
    case 'D':
        put(text, "%s", fp_registers[insn->rd]);
        break;
    case 'S':
        put(text, "%s", fp_registers[insn->rs1]);
        break;
    case 'T':
        put(text, "%s", fp_registers[insn->rs2]);
        break;
    case 'R':
        put(text, "%s", fp_registers[insn->rs3]);
        break;
    case 'i':
        put(text, "%" PRId32, insn->imm);
        break;
    case 'x':
        put(text, "0x%" PRIx32, (uint32_t)insn->imm);
        break;
    case 'u':
        put(text, "0x%" PRIx32, (uint32_t)insn->imm >> 12);
        break;
    case 'l':
        put(text, "0x%" PRIx64, pc + (uint64_t)(int64_t)insn->imm);
        break;
    case 'z':
        put(text, "%u", insn->rs1);
        break;
    case 'c':
        put_csr(text, (unsigned)insn->imm, csr_name);
        break;
    case 'p':
        put_fence_set(text, insn->imm >> 4 & 15);
        break;
    case 'q':
        put_fence_set(text, insn->imm & 15);
        break;
    case 'm':
        if (insn->rm != RM_DYNAMIC)
            put(text, ",%s", rounding_modes[insn->rm]);
        break;
    case 'M':
        if (insn->rm != RM_NEAREST)
            put(text, ",%s", rounding_modes[insn->rm]);
        break;
    default:
        put(text, "%c", letter);
    }
}

size_t isa_disassemble(uint32_t bits, uint64_t pc, const struct isa_extensions *on,
                       isa_csr_name *csr_name, char *buffer, size_t size)
{
    struct text text = {buffer, size, 0};
    const struct isa_encoding *row = isa_find(bits, on);
    if (!row && isa_length(bits) == 2) {
        put(&text, ".2byte\t0x%04x", bits & 0xffff);
        return text.length;
    }
    if (!row) {
        put(&text, ".4byte\t0x%08" PRIx32, bits);
        return text.length;
    }
    struct insn insn;
    isa_extract(bits, row, &insn);
    put(&text, "%s", row->mnemonic);
    if (isa_instruction(insn.op)->flags & ISA_AMO)
        put(&text, "%s", aqrl_suffixes[insn.rm]);
    const char *operands = isa_format_operands(row->format);
    if (*operands)
        put(&text, "\t");
    for (; *operands; operands++)
        put_operand(&text, *operands, &insn, pc, csr_name);
    return text.length;
}
