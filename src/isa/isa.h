/* The RISC-V instruction set: which extensions exist, which instructions, how they are encoded and
 * written.
 *
 * Everything is made from four tables, which other areas may include for generated code of their
 * own: extensions.def, instructions.def, compressed.def and formats.def. For example a dispatch
 * table:
 *
 *     #define INSN(id, mnemonic, mask, match, format, extension, flags) &&do_##id,
 *     #include "isa/instructions.def"
 *
 * Names and section titles in comments are those of "The RISC-V Instruction Set Manual", volumes I
 * and II. All functions are thread-safe: the tables are built before main() and constant
 * afterwards.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

/* --- Extensions --- */

enum isa_extension {
#define EXTENSION(id, name, needs, listed, by_default, description) ISA_EXT_##id,
#include "isa/extensions.def"
    ISA_EXT_COUNT
};

/* A set of extensions that is closed: whatever a member needs is a member too. */
struct isa_extensions {
    uint64_t words[2];
};

_Static_assert(ISA_EXT_COUNT <= 128, "struct isa_extensions needs another word");

static inline bool isa_extensions_test(const struct isa_extensions *set, enum isa_extension e)
{
    return set->words[e / 64] >> (e % 64) & 1;
}

/* Adds an extension and what it needs: D brings F and Zicsr. */
void isa_extensions_set(struct isa_extensions *set, enum isa_extension e);

/* Removes an extension and what needs it: without F there is no D, Zfh or Zfhmin. */
void isa_extensions_clear(struct isa_extensions *set, enum isa_extension e);

/* What a hart has when the user asks for nothing else. */
struct isa_extensions isa_extensions_default(void);

/* Reads the text of --cpu into *set: an optional base and changes to it, comma separated, from left
 * to right.
 *
 *     default | max | rv64gc | rva22s64      the base, only as the first word; without one it is
 * `default` NAME | NAME=on                         adds an extension (as isa_extensions_set)
 *     no-NAME | NAME=off                     removes one (as isa_extensions_clear)
 *
 * Case does not matter. On failure *set is unchanged and err names the word and similar names. */
bool isa_extensions_parse(const char *spec, struct isa_extensions *set, struct error *err);

/* The device tree's riscv,isa: "rv64imafdc_zicbom_...". Returns the length without the final 0, as
 * snprintf does: the text is cut (and still terminated) if that is not below size. ISA_STRING_SIZE
 * is always enough. */
enum { ISA_STRING_SIZE = 1024 };
size_t isa_extensions_string(const struct isa_extensions *set, char *text, size_t size);

/* The names for riscv,isa-extensions one by one, in canonical order, NULL at the end; *position
 * starts as 0. Page table modes (Sv39, Sv48, Sv57) are not among them: they are the device tree's
 * mmu-type. */
const char *isa_extensions_next(const struct isa_extensions *set, unsigned *position);

/* Both extensions or one of them; a single one stands twice. */
struct isa_requirement {
    uint8_t first, second; /* enum isa_extension */
    bool both;
};

bool isa_requirement_met(struct isa_requirement r, const struct isa_extensions *on);

struct isa_extension_info {
    const char *name;        /* as in the ISA string */
    const char *description; /* one line, for help texts */
    struct isa_requirement needs;
    bool listed; /* appears in riscv,isa */
    bool by_default;
};

const struct isa_extension_info *isa_extension_info(enum isa_extension e);

/* --- Instructions --- */

enum insn_op {
    INSN_illegal = 0,
#define INSN(id, mnemonic, mask, match, format, extension, flags) INSN_##id,
#include "isa/instructions.def"
    INSN_COUNT
};

enum isa_format {
#define FORMAT(id, operands, rd, rs1, rs2, rs3, rm, immediate) ISA_FORMAT_##id,
#include "isa/formats.def"
    ISA_FORMAT_COUNT
};

enum isa_flags {
    ISA_LOAD = 1 << 0,   /* reads memory at x[rs1] + imm */
    ISA_STORE = 1 << 1,  /* writes memory at x[rs1] + imm */
    ISA_BRANCH = 1 << 2, /* conditional, to pc + imm */
    ISA_JUMP = 1 << 3,   /* never goes on at the next instruction */
    ISA_SYSTEM = 1 << 4, /* may change privileged state or trap by design */
    ISA_CSR = 1 << 5,
    ISA_FENCE = 1 << 6,
    ISA_FP = 1 << 7,  /* illegal while mstatus.FS is off */
    ISA_AMO = 1 << 8, /* has aq and rl; LR and SC too */
    ISA_CBO = 1 << 9, /* works on the cache block at x[rs1] + imm */

    /* size of the memory access, see isa_access_bytes() */
    ISA_BYTES_1 = 1 << 16,
    ISA_BYTES_2 = 2 << 16,
    ISA_BYTES_4 = 4 << 16,
    ISA_BYTES_8 = 8 << 16,
    ISA_BYTES_16 = 16 << 16,

    ISA_AMO_4 = ISA_AMO | ISA_LOAD | ISA_STORE | ISA_BYTES_4,
    ISA_AMO_8 = ISA_AMO | ISA_LOAD | ISA_STORE | ISA_BYTES_8,
    ISA_AMO_16 = ISA_AMO | ISA_LOAD | ISA_STORE | ISA_BYTES_16,
};

/* Which fields of struct insn an instruction uses, and which of them name floating-point registers.
 */
enum isa_operands {
    ISA_RD = 1 << 0,
    ISA_RS1 = 1 << 1,
    ISA_RS2 = 1 << 2,
    ISA_RS3 = 1 << 3,
    ISA_FP_RD = 1 << 4, /* set together with ISA_RD, and so on */
    ISA_FP_RS1 = 1 << 5,
    ISA_FP_RS2 = 1 << 6,
    ISA_FP_RS3 = 1 << 7,
    ISA_ZIMM = 1 << 8,   /* rs1 is a 5-bit immediate */
    ISA_ROUNDS = 1 << 9, /* rm is a rounding mode */
    ISA_IMM = 1 << 10,
};

struct isa_instruction {
    const char *mnemonic;
    uint32_t mask, match;
    uint16_t format;   /* enum isa_format */
    uint16_t operands; /* enum isa_operands */
    uint32_t flags;    /* enum isa_flags */
    struct isa_requirement extension;
};

/* The row of the table; for INSN_illegal one with mnemonic "illegal" and zeros. */
const struct isa_instruction *isa_instruction(enum insn_op op);

/* Bytes that a load, store or AMO accesses, 0 for everything else (cbo.zero too). */
static inline unsigned isa_access_bytes(enum insn_op op)
{
    return isa_instruction(op)->flags >> 16;
}

/* --- Decoding --- */

/* One decoded instruction. Fields that it does not use are 0. */
struct insn {
    uint16_t op; /* enum insn_op; a 16-bit instruction has the op that it expands to */
    uint8_t rd, rs1, rs2,
        rs3;        /* register numbers 0..31; csrr?i have their 5-bit immediate in rs1 */
    uint8_t rm;     /* rounding mode, 5 and 6 (reserved) included; aq << 1 | rl for AMO, LR, SC */
    uint8_t length; /* 2 or 4 bytes, also when illegal */
    int32_t
        imm; /* sign-extended, scaled to bytes; lui and auipc: the value of the upper 20 bits in
                place; shift amount; CSR number; fence: fm << 8 | predecessors << 4 | successors */
};

_Static_assert(sizeof(struct insn) == 12, "interpreters keep many of these");

/* Decodes the instruction whose first 16 (or 32) bits are `bits`; the upper half is ignored when it
 * is 16 bits long. Returns false, with op INSN_illegal, for reserved encodings and for instructions
 * whose extension is not on. Hints are legal, and decode to an instruction that does nothing. */
bool isa_decode(uint32_t bits, const struct isa_extensions *on, struct insn *insn);

/* The inverse, always 32 bits long whatever insn->length is; extensions do not matter. Returns 0,
 * which is an illegal instruction, when op has no encoding or a field is out of its range. */
uint32_t isa_encode(const struct insn *insn);

/* The name of a CSR, NULL if it has none. */
typedef const char *isa_csr_name(unsigned number);

/* Writes the text of one instruction, in the form of `objdump -M no-aliases`: "addi\ta0,a0,1". pc
 * is its address, for branch targets; csr_name may be NULL, then CSRs are numbers. Illegal ones are
 * ".4byte\t0x..." or ".2byte\t0x...". Returns its length without the final 0, as snprintf does.
 * ISA_TEXT_SIZE is always enough. */
enum { ISA_TEXT_SIZE = 80 };
size_t isa_disassemble(uint32_t bits, uint64_t pc, const struct isa_extensions *on,
                       isa_csr_name *csr_name, char *text, size_t size);

/* "zero", "ra", ... and "ft0", ...; number 0..31. */
const char *isa_register_name(unsigned number);
const char *isa_fp_register_name(unsigned number);
