/* Guest code to IR. */
#include "base/bits.h"
#include "jit/ir.h"
#include "memory/memory.h"

#define PAGE_OFFSET (MEMORY_PAGE_SIZE - 1)

static bool is_same_page(uint64_t a, uint64_t b)
{
    return (a ^ b) < MEMORY_PAGE_SIZE &&
           (a & ~(uint64_t)PAGE_OFFSET) == (b & ~(uint64_t)PAGE_OFFSET);
}

/* The bits of the instruction at `offset`; false if it lies across the end of the page. */
static bool read_bits(const uint8_t *page, unsigned offset, uint32_t *bits)
{
    *bits = load_le16(page + offset);
    if ((*bits & 3) != 3)
        return true;
    if (offset == MEMORY_PAGE_SIZE - 2)
        return false;
    *bits |= (uint32_t)load_le16(page + offset + 2) << 16;
    return true;
}

/* Whether the interpreter is what comes next in any case: the block ends with such a call. */
static bool ends_block(const struct insn *insn, uint32_t flags)
{
    if (insn->op == INSN_illegal || insn->op == INSN_fence_i || insn->op == INSN_lr_w ||
        insn->op == INSN_lr_d)
        return true;
    return ((flags & ISA_SYSTEM) && !(flags & ISA_CSR)) ||
           ((flags & ISA_JUMP) && insn->op != INSN_jal && insn->op != INSN_jalr);
}

static void finish(struct ir_block *block, unsigned retired, uint64_t pc)
{
    block->code[block->count++] = (struct ir){.op = IR_EXIT, .index = retired, .imm = (int64_t)pc};
}

void ir_read(struct ir_block *block, const uint8_t *page, uint64_t pc,
             const struct isa_extensions *extensions)
{
    bool halfwords = isa_extensions_test(extensions, ISA_EXT_C);
    block->pc = pc;
    block->count = 0;
    while (block->count < IR_BLOCK_MAX) {
        struct insn insn;
        uint32_t bits;
        if (!read_bits(page, pc & PAGE_OFFSET, &bits))
            break;
        if (!isa_decode(bits, extensions, &insn))
            insn.op = INSN_illegal;
        uint32_t flags = isa_instruction(insn.op)->flags;
        struct ir *ir = &block->code[block->count];
        *ir = (struct ir){
            .op = insn.op,
            .rd = insn.rd,
            .rs1 = insn.rs1,
            .rs2 = insn.rs2,
            .rs3 = insn.rs3,
            .rm = insn.rm,
            .length = insn.length,
            .index = block->count++,
            .bits = bits,
            .pc = pc,
            .imm = insn.imm,
        };
        uint64_t next = pc + insn.length, target = pc + (uint64_t)(int64_t)insn.imm;

        if (ends_block(&insn, flags)) {
            ir->op = IR_CALL;
            finish(block, block->count, next);
            return;
        }
        if (insn.op == INSN_jalr) {
            if (halfwords)
                return;
            ir->op = IR_CALL; /* the target may be misaligned */
            finish(block, block->count, next);
            return;
        }
        if (insn.op == INSN_jal || (flags & ISA_BRANCH)) {
            if (!halfwords && (target & 2)) {
                ir->op = IR_CALL; /* which traps where it jumps */
            } else if (insn.op == INSN_jal) {
                ir->op = IR_CONSTANT;
                ir->imm = (int64_t)next;
                if (insn.rd == 0 && target > pc && is_same_page(target, block->pc)) {
                    pc = target;
                    continue;
                }
                finish(block, block->count, target);
                return;
            } else {
                ir->imm = (int64_t)target;
            }
        } else if (insn.op == INSN_auipc) {
            ir->op = IR_CONSTANT;
            ir->imm = (int64_t)target;
        } else if (insn.op == INSN_lui) {
            ir->op = IR_CONSTANT;
        }
        pc = next;
        if (!is_same_page(pc, block->pc))
            break;
    }
    if (block->count)
        finish(block, block->count, pc);
}
