/* The trace of executed instructions (--trace exec): a line each, with the result. */
#include <stdio.h>

#include "hart/internal.h"

void exec_trace_begin(struct hart *hart, uint64_t pc, uint32_t bits)
{
    struct hart_private *private = hart->private;
    struct insn insn;
    char text[ISA_TEXT_SIZE];

    isa_decode(bits, &hart->extensions, &insn);
    isa_disassemble(bits, pc, &hart->extensions, hart_csr_name, text, sizeof(text));
    unsigned operands = isa_instruction(insn.op)->operands;
    private->trace_fp = operands & ISA_FP_RD;
    private->trace_rd = operands & ISA_RD ? insn.rd : 0;
    if (insn.length == 2)
        bits &= 0xffff;
    for (char *tab = text; *tab; tab++)
        if (*tab == '\t')
            *tab = ' ';
    snprintf(private->trace_line, sizeof(private->trace_line), "hart %u %c %016llx %0*x%*s %s",
             hart->id, "US?M"[hart->privilege], (unsigned long long)pc, 2 * insn.length, bits,
             8 - 2 * insn.length, "", text);
    private->trace_open = true;
}

void exec_trace_end(struct hart *hart, bool completed)
{
    struct hart_private *private = hart->private;
    if (!private->trace_open)
        return;
    private->trace_open = false;
    unsigned rd = private->trace_rd;
    if (completed && private->trace_fp)
        trace_write(TRACE_EXEC, "%s  # %s=0x%016llx", private->trace_line, isa_fp_register_name(rd),
                    (unsigned long long)hart->f[rd]);
    else if (completed && rd)
        trace_write(TRACE_EXEC, "%s  # %s=0x%llx", private->trace_line, isa_register_name(rd),
                    (unsigned long long)hart->x[rd]);
    else
        trace_write(TRACE_EXEC, "%s", private->trace_line);
}
