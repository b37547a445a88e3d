/* What registers there are, for clients: target.xml and LLDB's qRegisterInfo. */
#include <string.h>

#include "debug/session.h"
#include "isa/isa.h"

/* --- Fields of CSRs ---------------------------------------------------------------------------- */

static const struct csr_field {
    const char *csr, *name;
    uint8_t first, last;
} csr_fields[] = {
#define CSR_FIELD(csr, field, first, last) {#csr, #field, first, last},
#include "debug/csr_fields.def"
};

static const struct csr_field *fields_of(const char *csr, unsigned *count)
{
    for (unsigned i = 0; i < ARRAY_SIZE(csr_fields); i++) {
        if (strcmp(csr_fields[i].csr, csr) != 0)
            continue;
        for (*count = 1; i + *count < ARRAY_SIZE(csr_fields) &&
                         !strcmp(csr_fields[i + *count].csr, csr);)
            ++*count;
        return &csr_fields[i];
    }
    *count = 0;
    return NULL;
}

/* --- Roles ------------------------------------------------------------------------------------- */

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

/* --- target.xml --------------------------------------------------------------------------------- */

static void put_register(struct buffer *xml, const struct hart *hart, unsigned number)
{
    unsigned bits = register_bits(hart, number), fields;
    const char *name = register_name(hart, number);
    if (!bits)
        return;
    buffer_format(xml, "<reg name=\"%s\" bitsize=\"%u\" regnum=\"%u\" group=\"%s\"", name, bits,
                  number, group_name(number));
    if (is_float(number))
        buffer_format(xml, " type=\"%s\" encoding=\"ieee754\" format=\"float\"",
                      bits == 64 ? "riscv_double" : "ieee_single");
    else if (number == REGISTER_PC)
        buffer_text(xml, " type=\"code_ptr\"");
    else if (number == 2 || number == 3 || number == 4 || number == 8)
        buffer_text(xml, " type=\"data_ptr\"");
    else if (number > REGISTER_CSR && fields_of(name, &fields))
        buffer_format(xml, " type=\"%s_fields\"", name);
    else
        buffer_text(xml, " type=\"int\"");
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

static void put_fields(struct buffer *xml, const struct hart *hart, unsigned first, unsigned limit)
{
    for (unsigned number = first; number < limit; number++) {
        unsigned count;
        const char *name = register_bits(hart, number) ? register_name(hart, number) : "";
        const struct csr_field *fields = fields_of(name, &count);
        if (!fields)
            continue;
        buffer_format(xml, "<flags id=\"%s_fields\" size=\"8\">", name);
        for (unsigned i = 0; i < count; i++)
            buffer_format(xml, "<field name=\"%s\" start=\"%u\" end=\"%u\"%s/>", fields[i].name,
                          fields[i].first, fields[i].last,
                          fields[i].first == fields[i].last ? "" : " type=\"uint64\"");
        buffer_text(xml, "</flags>");
    }
}

static void put_feature(struct buffer *xml, const struct hart *hart, const char *name,
                        unsigned first, unsigned limit)
{
    buffer_format(xml, "<feature name=\"org.gnu.gdb.riscv.%s\">", name);
    if (first == REGISTER_F0)
        buffer_text(xml, "<union id=\"riscv_double\"><field name=\"float\" type=\"ieee_single\"/>"
                         "<field name=\"double\" type=\"ieee_double\"/></union>");
    put_fields(xml, hart, first, limit);
    for (unsigned number = first; number < limit; number++)
        put_register(xml, hart, number);
    buffer_text(xml, "</feature>");
}

void target_describe(struct buffer *xml, const struct hart *hart)
{
    enum { AFTER_FCSR = REGISTER_CSR + 4 };
    buffer_text(xml, "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">"
                     "<target version=\"1.0\"><architecture>riscv:rv64</architecture>"
                     /* or GDB takes the guest for a Linux process, and steps by breakpoints */
                     "<osabi>none</osabi>");
    put_feature(xml, hart, "cpu", 0, REGISTER_F0);
    if (register_bits(hart, REGISTER_F0)) /* with fflags, frm and fcsr */
        put_feature(xml, hart, "fpu", REGISTER_F0, AFTER_FCSR);
    put_feature(xml, hart, "csr", AFTER_FCSR, REGISTER_PRIV);
    put_feature(xml, hart, "virtual", REGISTER_PRIV, REGISTER_LIMIT);
    buffer_text(xml, "</target>");
}

/* --- LLDB's qRegisterInfo ----------------------------------------------------------------------- */

/* Only those whose numbers follow one another, as LLDB takes the place for the number; the others are
 * in target.xml. */
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
