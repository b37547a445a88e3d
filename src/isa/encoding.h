/* What decoder and disassembler share: one row per encoding, 32-bit and 16-bit alike. */
#pragma once

#include "isa/isa.h"

struct isa_encoding {
    const char *mnemonic;
    uint32_t mask, match;
    uint16_t op;
    uint16_t format;
    struct isa_requirement extension;
};

/* The row that decodes `bits`, NULL if it is illegal with these extensions. */
const struct isa_encoding *isa_find(uint32_t bits, const struct isa_extensions *on);

/* Takes the fields of `bits` apart as `row` says. */
void isa_extract(uint32_t bits, const struct isa_encoding *row, struct insn *insn);

/* The operand letters of a format, see formats.def. */
const char *isa_format_operands(enum isa_format format);

static inline unsigned isa_length(uint32_t bits)
{
    return (bits & 3) == 3 ? 4 : 2;
}
