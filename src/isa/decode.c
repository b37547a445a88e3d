#include "isa/encoding.h"

#include <assert.h>
#include <string.h>

#define ONE(a)       {ISA_EXT_##a, ISA_EXT_##a, true}
#define EITHER(a, b) {ISA_EXT_##a, ISA_EXT_##b, false}
#define BOTH(a, b)   {ISA_EXT_##a, ISA_EXT_##b, true}

/* The instructions with their operands filled in by build_instructions(). */
static struct isa_instruction instructions[INSN_COUNT] = {
    [INSN_illegal] = {.mnemonic = "illegal"},
#define INSN(id, mnemonic, mask, match, format, extension, flags)                                  \
    [INSN_##id] = {mnemonic, mask, match, ISA_FORMAT_##format, 0, flags, extension},
#include "isa/instructions.def"
};

static const struct isa_encoding encodings[] = {
#define INSN(id, mnemonic, mask, match, format, extension, flags)                                  \
    {mnemonic, mask, match, INSN_##id, ISA_FORMAT_##format, extension},
#include "isa/instructions.def"
#define COMPRESSED(mnemonic, mask, match, format, extension, expansion)                            \
    {mnemonic, mask, match, INSN_##expansion, ISA_FORMAT_##format, extension},
#include "isa/compressed.def"
};

/* --- Fields --- */

enum field {
    FIELD_NONE,
    FIELD_RD,
    FIELD_RS1,
    FIELD_RS2,
    FIELD_RS3,
    FIELD_RM,
    FIELD_AQRL,
    FIELD_CRD, /* of 16-bit instructions */
    FIELD_CRS1,
    FIELD_CRS2,
    FIELD_RA, /* implied */
    FIELD_SP,
    FIELD_COUNT
};

/* A register number or small field: the bits of `mask` after a shift to the right, plus `add`. */
static const struct {
    uint8_t shift, mask, add;
} fields[FIELD_COUNT] = {
    [FIELD_NONE] = {0, 0, 0},  [FIELD_RD] = {7, 31, 0},   [FIELD_RS1] = {15, 31, 0},
    [FIELD_RS2] = {20, 31, 0}, [FIELD_RS3] = {27, 31, 0}, [FIELD_RM] = {12, 7, 0},
    [FIELD_AQRL] = {25, 3, 0}, [FIELD_CRD] = {2, 7, 8},   [FIELD_CRS1] = {7, 7, 8},
    [FIELD_CRS2] = {2, 31, 0}, [FIELD_RA] = {0, 0, 1},    [FIELD_SP] = {0, 0, 2},
};

enum immediate {
    IMM_NONE,
    IMM_I,
    IMM_S,
    IMM_B,
    IMM_U,
    IMM_J,
    IMM_SHAMT6,
    IMM_SHAMT5,
    IMM_CSR,
    IMM_FENCE,
    IMM_PREFETCH,
    IMM_C_ADDI4SPN,
    IMM_C_LW,
    IMM_C_LD,
    IMM_C_I,
    IMM_C_SHAMT,
    IMM_C_ADDI16SP,
    IMM_C_LUI,
    IMM_C_J,
    IMM_C_B,
    IMM_C_LWSP,
    IMM_C_LDSP,
    IMM_C_SWSP,
    IMM_C_SDSP,
    IMM_COUNT
};

/* imm's bits in pieces: `width` bits from bit `from` of the instruction on are imm's from bit `to`
 * on. `top` is the sign bit of imm, 0 if it has none. */
struct piece {
    uint8_t from, width, to;
};

static const struct {
    uint8_t top;
    struct piece pieces[9]; /* ends with width 0 */
} immediates[IMM_COUNT] = {
    [IMM_NONE] = {0},
    [IMM_I] = {11, {{20, 12, 0}}},
    [IMM_S] = {11, {{7, 5, 0}, {25, 7, 5}}},
    [IMM_B] = {12, {{8, 4, 1}, {25, 6, 5}, {7, 1, 11}, {31, 1, 12}}},
    [IMM_U] = {31, {{12, 20, 12}}},
    [IMM_J] = {20, {{21, 10, 1}, {20, 1, 11}, {12, 8, 12}, {31, 1, 20}}},
    [IMM_SHAMT6] = {0, {{20, 6, 0}}},
    [IMM_SHAMT5] = {0, {{20, 5, 0}}},
    [IMM_CSR] = {0, {{20, 12, 0}}},
    [IMM_FENCE] = {0, {{20, 12, 0}}},
    [IMM_PREFETCH] = {11, {{25, 7, 5}}},
    [IMM_C_ADDI4SPN] = {0, {{6, 1, 2}, {5, 1, 3}, {11, 2, 4}, {7, 4, 6}}},
    [IMM_C_LW] = {0, {{6, 1, 2}, {10, 3, 3}, {5, 1, 6}}},
    [IMM_C_LD] = {0, {{10, 3, 3}, {5, 2, 6}}},
    [IMM_C_I] = {5, {{2, 5, 0}, {12, 1, 5}}},
    [IMM_C_SHAMT] = {0, {{2, 5, 0}, {12, 1, 5}}},
    [IMM_C_ADDI16SP] = {9, {{6, 1, 4}, {2, 1, 5}, {5, 1, 6}, {3, 2, 7}, {12, 1, 9}}},
    [IMM_C_LUI] = {17, {{2, 5, 12}, {12, 1, 17}}},
    [IMM_C_J] = {11,
                 {{3, 3, 1},
                  {11, 1, 4},
                  {2, 1, 5},
                  {7, 1, 6},
                  {6, 1, 7},
                  {9, 2, 8},
                  {8, 1, 10},
                  {12, 1, 11}}},
    [IMM_C_B] = {8, {{3, 2, 1}, {10, 2, 3}, {2, 1, 5}, {5, 2, 6}, {12, 1, 8}}},
    [IMM_C_LWSP] = {0, {{4, 3, 2}, {12, 1, 5}, {2, 2, 6}}},
    [IMM_C_LDSP] = {0, {{5, 2, 3}, {12, 1, 5}, {2, 3, 6}}},
    [IMM_C_SWSP] = {0, {{9, 4, 2}, {7, 2, 6}}},
    [IMM_C_SDSP] = {0, {{10, 3, 3}, {7, 3, 6}}},
};

static const struct format {
    const char *operands;
    uint8_t rd, rs1, rs2, rs3, rm; /* enum field */
    uint8_t immediate;             /* enum immediate */
} formats[ISA_FORMAT_COUNT] = {
#define FORMAT(id, operands, rd, rs1, rs2, rs3, rm, immediate)                                     \
    {operands, FIELD_##rd, FIELD_##rs1, FIELD_##rs2, FIELD_##rs3, FIELD_##rm, IMM_##immediate},
#include "isa/formats.def"
};

static uint32_t low_bits(uint32_t value, unsigned width)
{
    return value & (uint32_t)((UINT64_C(1) << width) - 1);
}

static uint8_t get_field(uint32_t bits, enum field f)
{
    return (uint8_t)((bits >> fields[f].shift & fields[f].mask) + fields[f].add);
}

static int32_t get_immediate(uint32_t bits, enum immediate kind)
{
    uint32_t value = 0;
    for (const struct piece *p = immediates[kind].pieces; p->width; p++)
        value |= low_bits(bits >> p->from, p->width) << p->to;
    uint32_t sign = immediates[kind].top ? UINT32_C(1) << immediates[kind].top : 0;
    return (int32_t)((value ^ sign) - sign);
}

static uint32_t put_immediate(int32_t imm, enum immediate kind)
{
    uint32_t bits = 0;
    for (const struct piece *p = immediates[kind].pieces; p->width; p++)
        bits |= low_bits((uint32_t)imm >> p->to, p->width) << p->from;
    return bits;
}

void isa_extract(uint32_t bits, const struct isa_encoding *row, struct insn *insn)
{
    const struct format *format = &formats[row->format];
    *insn = (struct insn){
        .op = row->op,
        .rd = get_field(bits, format->rd),
        .rs1 = get_field(bits, format->rs1),
        .rs2 = get_field(bits, format->rs2),
        .rs3 = get_field(bits, format->rs3),
        .rm = get_field(bits, format->rm),
        .length = (uint8_t)isa_length(bits),
        .imm = get_immediate(bits, format->immediate),
    };
}

uint32_t isa_encode(const struct insn *insn)
{
    if (insn->op == INSN_illegal || insn->op >= INSN_COUNT)
        return 0;
    const struct isa_instruction *instruction = &instructions[insn->op];
    const struct format *format = &formats[instruction->format];
    const struct {
        uint8_t field, value;
    } parts[] = {{format->rd, insn->rd},
                 {format->rs1, insn->rs1},
                 {format->rs2, insn->rs2},
                 {format->rs3, insn->rs3},
                 {format->rm, insn->rm}};
    uint32_t bits = instruction->match | put_immediate(insn->imm, format->immediate);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (parts[i].value & ~fields[parts[i].field].mask)
            return 0;
        bits |= (uint32_t)parts[i].value << fields[parts[i].field].shift;
    }
    bool fits = get_immediate(bits, format->immediate) == insn->imm &&
                (bits & instruction->mask) == instruction->match;
    return fits ? bits : 0;
}

/* --- Lookup ---
 *
 * Two levels: the opcode and funct3 (quadrant and funct3 of 16-bit instructions) choose a slot;
 * where more than SPLIT_ABOVE rows share it, as for OP-FP, AMO and OP, bits 31:25 choose among 128
 * further slots. A slot is a run of candidates, those with the most mask bits first. */

enum {
    ROOT_SLOTS = 256 + 24,
    SPLIT_SLOTS = 128,
    SPLIT_ABOVE = 4,
    SPLITS_MAX = 40,
    CANDIDATES_MAX = 4096,
};

struct slot {
    uint16_t first; /* a candidate, or the slot for bits 31:25 = 0 if split */
    uint8_t count;
    bool split;
};

static struct slot slots[ROOT_SLOTS + SPLITS_MAX * SPLIT_SLOTS];
static uint16_t candidates[CANDIDATES_MAX]; /* rows of encodings[] */
static unsigned slots_used, candidates_used;

static unsigned root_slot(uint32_t bits)
{
    if ((bits & 3) == 3)
        return (bits >> 2 & 31) | (bits >> 12 & 7) << 5;
    return 256 + ((bits & 3) << 3 | (bits >> 13 & 7));
}

bool isa_requirement_met(struct isa_requirement r, const struct isa_extensions *on)
{
    bool first = isa_extensions_test(on, r.first), second = isa_extensions_test(on, r.second);
    return r.both ? first && second : first || second;
}

const struct isa_encoding *isa_find(uint32_t bits, const struct isa_extensions *on)
{
    if (isa_length(bits) == 2)
        bits &= 0xffff;
    struct slot slot = slots[root_slot(bits)];
    if (slot.split)
        slot = slots[slot.first + (bits >> 25)];
    for (unsigned i = 0; i < slot.count; i++) {
        const struct isa_encoding *row = &encodings[candidates[slot.first + i]];
        if ((bits & row->mask) == row->match && isa_requirement_met(row->extension, on))
            return row->op == INSN_illegal ? NULL : row;
    }
    return NULL;
}

bool isa_decode(uint32_t bits, const struct isa_extensions *on, struct insn *insn)
{
    const struct isa_encoding *row = isa_find(bits, on);
    if (!row) {
        *insn = (struct insn){.op = INSN_illegal, .length = (uint8_t)isa_length(bits)};
        return false;
    }
    isa_extract(bits, row, insn);
    return true;
}

const struct isa_instruction *isa_instruction(enum insn_op op)
{
    assert(op < INSN_COUNT);
    return &instructions[op];
}

const char *isa_format_operands(enum isa_format format)
{
    return formats[format].operands;
}

/* --- Building the tables --- */

/* Lists in `slot` the rows that some word with these `bits` under `mask` could be. */
static void fill_slot(struct slot *slot, uint32_t mask, uint32_t bits)
{
    *slot = (struct slot){.first = (uint16_t)candidates_used};
    for (size_t i = 0; i < sizeof(encodings) / sizeof(encodings[0]); i++) {
        const struct isa_encoding *row = &encodings[i];
        if ((row->match ^ bits) & row->mask & mask || (row->match & 3) != (bits & 3))
            continue;
        assert(candidates_used < CANDIDATES_MAX);
        unsigned place = candidates_used++;
        int weight = __builtin_popcount(row->mask);
        for (; place > slot->first; place--) {
            if (__builtin_popcount(encodings[candidates[place - 1]].mask) >= weight)
                break;
            candidates[place] = candidates[place - 1];
        }
        candidates[place] = (uint16_t)i;
        slot->count++;
    }
}

static void build_root(uint32_t mask, uint32_t bits)
{
    struct slot *root = &slots[root_slot(bits)];
    fill_slot(root, mask, bits);
    if (root->count <= SPLIT_ABOVE || isa_length(bits) == 2)
        return;
    candidates_used = root->first;
    *root = (struct slot){.first = (uint16_t)slots_used, .split = true};
    slots_used += SPLIT_SLOTS;
    assert(slots_used <= sizeof(slots) / sizeof(slots[0]));
    for (uint32_t i = 0; i < SPLIT_SLOTS; i++)
        fill_slot(&slots[root->first + i], mask | 0xfe000000, bits | i << 25);
}

static const struct {
    char letter;
    uint16_t operands;
} letters[] = {
    {'d', ISA_RD},     {'D', ISA_RD | ISA_FP_RD},
    {'s', ISA_RS1},    {'S', ISA_RS1 | ISA_FP_RS1},
    {'t', ISA_RS2},    {'T', ISA_RS2 | ISA_FP_RS2},
    {'z', ISA_ZIMM},   {'R', ISA_RS3 | ISA_FP_RS3},
    {'i', ISA_IMM},    {'x', ISA_IMM},
    {'u', ISA_IMM},    {'l', ISA_IMM},
    {'c', ISA_IMM},    {'p', ISA_IMM},
    {'q', ISA_IMM},    {'m', ISA_ROUNDS},
    {'M', ISA_ROUNDS},
};

static void build_instructions(void)
{
    for (unsigned op = INSN_illegal + 1; op < INSN_COUNT; op++) {
        const char *operands = formats[instructions[op].format].operands;
        for (size_t i = 0; i < sizeof(letters) / sizeof(letters[0]); i++)
            if (strchr(operands, letters[i].letter))
                instructions[op].operands |= letters[i].operands;
    }
}

__attribute__((constructor)) static void build_tables(void)
{
    build_instructions();
    slots_used = ROOT_SLOTS;
    for (uint32_t funct3 = 0; funct3 < 8; funct3++) {
        for (uint32_t opcode = 0; opcode < 32; opcode++)
            build_root(0x707f, funct3 << 12 | opcode << 2 | 3);
        for (uint32_t quadrant = 0; quadrant < 3; quadrant++)
            build_root(0xe003, funct3 << 13 | quadrant);
    }
}
