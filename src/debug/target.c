/* What registers there are, for clients: target.xml and LLDB's qRegisterInfo. */
#include <string.h>

#include "debug/session.h"
#include "isa/isa.h"

/* --- Fields of CSRs ----------------------------------------------------------------------------
 */

static const struct csr_field {
    const char *csr, *name;
    uint8_t first, last;
} csr_fields[] = {
#define CSR_FIELD(csr, field, first, last) {#csr, #field, first, last},
#include "debug/csr_fields.def"
};

_Static_assert(ARRAY_SIZE(csr_fields) <= REGISTER_LIMIT - REGISTER_FIELDS, "registers for fields");

static const struct csr_field *fields_of(const char *csr, unsigned *count)
{
    for (unsigned i = 0; i < ARRAY_SIZE(csr_fields); i++) {
        if (strcmp(csr_fields[i].csr, csr) != 0)
            continue;
        for (*count = 1;
             i + *count < ARRAY_SIZE(csr_fields) && !strcmp(csr_fields[i + *count].csr, csr);)
            ++*count;
        return &csr_fields[i];
    }
    *count = 0;
    return NULL;
}

int target_fields_csr(const struct hart *hart, unsigned row)
{
    if (row >= ARRAY_SIZE(csr_fields) ||
        (row > 0 && !strcmp(csr_fields[row].csr, csr_fields[row - 1].csr)))
        return -1; /* only the first of its rows stands for a CSR */
    for (unsigned number = 0; number < 4096; number++) {
        const char *name = hart_csr_name(number);
        if (name && !strcmp(name, csr_fields[row].csr))
            return hart_csr_find(hart, number) ? (int)number : -1;
    }
    return -1;
}

/* --- Roles -------------------------------------------------------------------------------------
 */

/* LLDB's names of what every architecture has. */
static const char *generic_name(unsigned number)
{
    static const char *const arguments[] = {"arg1", "arg2", "arg3", "arg4",
                                            "arg5", "arg6", "arg7", "arg8"};
    if (number >= 10 && number < 18)
        return arguments[number - 10];
    return number == 1             ? "ra"
           : number == 2           ? "sp"
           : number == 8           ? "fp"
           : number == REGISTER_PC ? "pc"
                                   : NULL;
}

/* RISC-V ABIs, "DWARF register numbers"; -1: none. */
static int dwarf_number(unsigned number)
{
    if (number < REGISTER_PC)
        return (int)number;
    if (number >= REGISTER_F0 && number < REGISTER_CSR)
        return (int)(number - REGISTER_F0) + 32;
    if (number >= REGISTER_CSR && number < REGISTER_PRIV)
        return (int)(number - REGISTER_CSR) + 4096;
    return -1;
}

static bool is_float(unsigned number)
{
    return number >= REGISTER_F0 && number < REGISTER_CSR;
}

static const char *group_name(unsigned number)
{
    return is_float(number) ? "float" : number <= REGISTER_PC ? "general" : "csr";
}

/* --- target.xml ---------------------------------------------------------------------------------
 */

/* The type of a register, and what LLDB wants to know beside it. */
static void put_type(struct buffer *xml, const struct hart *hart, unsigned number, bool for_gdb)
{
    unsigned fields;
    if (is_float(number))
        buffer_format(xml, " type=\"%s\" encoding=\"ieee754\" format=\"float\"",
                      register_bits(hart, number) == 64 ? "riscv_double" : "ieee_single");
    else if (number == REGISTER_PC)
        buffer_text(xml, " type=\"code_ptr\"");
    else if (number == 2 || number == 3 || number == 4 || number == 8)
        buffer_text(xml, " type=\"data_ptr\"");
    else if (number > REGISTER_CSR && !for_gdb && fields_of(register_name(hart, number), &fields))
        buffer_format(xml, " type=\"%s_type\"", register_name(hart, number));
    else
        buffer_text(xml, " type=\"int\"");
}

static void put_register(struct buffer *xml, const struct hart *hart, unsigned number, bool for_gdb)
{
    unsigned bits = register_bits(hart, number);
    if (!bits)
        return;
    buffer_format(xml, "<reg name=\"%s\" bitsize=\"%u\" regnum=\"%u\" group=\"%s\"",
                  register_name(hart, number), bits, number, group_name(number));
    put_type(xml, hart, number, for_gdb);
    if (number < REGISTER_PC || is_float(number))
        buffer_format(xml, " altname=\"%c%u\"", is_float(number) ? 'f' : 'x',
                      is_float(number) ? number - REGISTER_F0 : number);
    if (generic_name(number))
        buffer_format(xml, " generic=\"%s\"", generic_name(number));
    if (dwarf_number(number) >= 0)
        buffer_format(xml, " dwarf_regnum=\"%d\" ehframe_regnum=\"%d\"", dwarf_number(number),
                      dwarf_number(number));
    buffer_text(xml, "/>");
}

static void put_flags(struct buffer *xml, const char *name)
{
    unsigned count;
    const struct csr_field *fields = fields_of(name, &count);
    if (!fields)
        return;
    buffer_format(xml, "<flags id=\"%s_type\" size=\"8\">", name);
    for (unsigned i = 0; i < count; i++)
        buffer_format(xml, "<field name=\"%s\" start=\"%u\" end=\"%u\"%s/>", fields[i].name,
                      fields[i].first, fields[i].last,
                      fields[i].first == fields[i].last ? "" : " type=\"uint64\"");
    buffer_text(xml, "</flags>");
}

static void put_feature(struct buffer *xml, const struct hart *hart, const char *name,
                        unsigned first, unsigned limit, bool for_gdb)
{
    buffer_format(xml, "<feature name=\"org.gnu.gdb.riscv.%s\">", name);
    if (first == REGISTER_F0)
        buffer_text(xml, "<union id=\"riscv_double\"><field name=\"float\" type=\"ieee_single\"/>"
                         "<field name=\"double\" type=\"ieee_double\"/></union>");
    for (unsigned number = first; number < limit && !for_gdb; number++)
        if (register_bits(hart, number))
            put_flags(xml, register_name(hart, number));
    for (unsigned number = first; number < limit; number++)
        put_register(xml, hart, number, for_gdb);
    buffer_text(xml, "</feature>");
}

static void put_fields_feature(struct buffer *xml, const struct hart *hart)
{
    buffer_text(xml, "<feature name=\"hartvisor.csr-fields\">");
    for (unsigned row = 0; row < ARRAY_SIZE(csr_fields); row++)
        if (target_fields_csr(hart, row) >= 0)
            put_flags(xml, csr_fields[row].csr);
    for (unsigned row = 0; row < ARRAY_SIZE(csr_fields); row++)
        if (target_fields_csr(hart, row) >= 0)
            buffer_format(xml,
                          "<reg name=\"%s_fields\" bitsize=\"64\" regnum=\"%u\" "
                          "group=\"csr_fields\" type=\"%s_type\" save-restore=\"no\"/>",
                          csr_fields[row].csr, REGISTER_FIELDS + row, csr_fields[row].csr);
    buffer_text(xml, "</feature>");
}

void target_describe(struct buffer *xml, const struct hart *hart, bool for_gdb)
{
    enum { AFTER_FCSR = REGISTER_CSR + 4 };
    buffer_text(xml, "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">"
                     "<target version=\"1.0\"><architecture>riscv:rv64</architecture>"
                     /* or GDB takes the guest for a Linux process, and steps by breakpoints */
                     "<osabi>none</osabi>");
    put_feature(xml, hart, "cpu", 0, REGISTER_F0, for_gdb);
    if (register_bits(hart, REGISTER_F0)) /* with fflags, frm and fcsr */
        put_feature(xml, hart, "fpu", REGISTER_F0, AFTER_FCSR, for_gdb);
    put_feature(xml, hart, "csr", AFTER_FCSR, REGISTER_PRIV, for_gdb);
    put_feature(xml, hart, "virtual", REGISTER_PRIV, REGISTER_FIELDS, for_gdb);
    if (for_gdb)
        put_fields_feature(xml, hart);
    buffer_text(xml, "</target>");
}

/* --- LLDB's qRegisterInfo -----------------------------------------------------------------------
 */

/* Only those whose numbers follow one another, as LLDB takes the place for the number; the others
 * are in target.xml. */
bool target_register_info(struct buffer *text, const struct hart *hart, unsigned number)
{
    if (number >= REGISTER_CSR || !register_bits(hart, number))
        return false;
    buffer_format(text, "name:%s;", register_name(hart, number));
    if (number < REGISTER_PC || is_float(number))
        buffer_format(text, "alt-name:%c%u;", is_float(number) ? 'f' : 'x',
                      is_float(number) ? number - REGISTER_F0 : number);
    buffer_format(text, "bitsize:%u;encoding:%s;format:%s;set:%s;", register_bits(hart, number),
                  is_float(number) ? "ieee754" : "uint", is_float(number) ? "float" : "hex",
                  is_float(number) ? "Floating Point Registers" : "General Purpose Registers");
    if (dwarf_number(number) >= 0)
        buffer_format(text, "ehframe:%d;dwarf:%d;", dwarf_number(number), dwarf_number(number));
    if (generic_name(number))
        buffer_format(text, "generic:%s;", generic_name(number));
    return true;
}
