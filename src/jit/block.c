/* Guest code to IR. */
#include "base/bits.h"
#include "jit/ir.h"
#include "memory/memory.h"

#define PAGE_OFFSET (MEMORY_PAGE_SIZE - 1)

enum {
    LR_SC_LENGTH = 16
}; /* instructions of a sequence that the architecture gives promises for */

static bool is_same_page(uint64_t a, uint64_t b)
{
    return (a ^ b) < MEMORY_PAGE_SIZE;
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

static bool is_lr(unsigned op)
{
    return op == INSN_lr_w || op == INSN_lr_d;
}

static bool is_sc(unsigned op)
{
    return op == INSN_sc_w || op == INSN_sc_d;
}

static bool is_break(const uint64_t *breaks, uint64_t pc)
{
    unsigned half = (pc & PAGE_OFFSET) / 2;
    return breaks && (breaks[half / 64] >> half % 64 & 1);
}

/* Whether what begins at pc may be the rest of a sequence to which the architecture promises
 * success: it comes to an SC, by few instructions that only compute with registers. */
static bool leads_to_sc(const uint8_t *page, uint64_t pc, const struct isa_extensions *extensions)
{
    uint64_t at = pc;
    for (unsigned i = 0; i < LR_SC_LENGTH; i++) {
        struct insn insn;
        uint32_t bits;
        if (!is_same_page(at, pc) || !read_bits(page, at & PAGE_OFFSET, &bits))
            return true; /* who knows */
        if (!isa_decode(bits, extensions, &insn))
            return false;
        if (is_sc(insn.op))
            return true;
        if (isa_instruction(insn.op)->flags & ~(uint32_t)ISA_BRANCH)
            return false;
        at += insn.length;
    }
    return false;
}

/*
 * The address of the SC that belongs to the LR at pc, if what lies in between only computes with
 * registers and can neither be entered from within nor replace the address, and if no other SC may
 * be meant; 0 for all others. With that, SC is a compare-and-swap of what was loaded, and need not
 * look at a reservation.
 */
static uint64_t matching_sc(const uint8_t *page, uint64_t pc, const struct insn *lr,
                            const struct isa_extensions *extensions, const uint64_t *breaks)
{
    uint64_t targets[LR_SC_LENGTH]; /* of branches forward */
    unsigned count = 0;
    uint64_t at = pc + lr->length;
    if (lr->rd == lr->rs1)
        return 0;
    for (unsigned i = 0; i < LR_SC_LENGTH && is_same_page(at, pc); i++) {
        struct insn insn;
        uint32_t bits;
        if (is_break(breaks, at) || !read_bits(page, at & PAGE_OFFSET, &bits) ||
            !isa_decode(bits, extensions, &insn))
            return 0;
        if (is_sc(insn.op)) {
            bool same =
                insn.rs1 == lr->rs1 && isa_access_bytes(insn.op) == isa_access_bytes(lr->op);
            for (unsigned j = 0; j < count && same; j++)
                same = targets[j] > at && is_same_page(targets[j], pc) &&
                       !leads_to_sc(page, targets[j], extensions);
            return same ? at : 0;
        }
        const struct isa_instruction *info = isa_instruction(insn.op);
        if (info->flags & ISA_BRANCH) {
            uint64_t target = at + (uint64_t)(int64_t)insn.imm;
            if (target > pc)
                targets[count++] = target;
        } else if (info->flags || insn.rd == lr->rs1) {
            return 0;
        }
        at += insn.length;
    }
    return 0;
}

/* Whether the interpreter is what comes next in any case: the block ends with such a call. */
static bool ends_block(const struct insn *insn, uint32_t flags)
{
    if (insn->op == INSN_illegal || insn->op == INSN_fence_i || is_lr(insn->op))
        return true;
    return ((flags & ISA_SYSTEM) && !(flags & ISA_CSR)) ||
           ((flags & ISA_JUMP) && insn->op != INSN_jal && insn->op != INSN_jalr);
}

static void finish(struct ir_block *block, unsigned retired, uint64_t pc)
{
    block->code[block->count++] = (struct ir){.op = IR_EXIT, .index = retired, .imm = (int64_t)pc};
}

/* Appends what follows at pc, where so many instructions have retired. */
static void read_trace(struct ir_block *block, const uint8_t *page, uint64_t pc, unsigned retired,
                       const struct isa_extensions *extensions, const uint64_t *breaks)
{
    bool halfwords = isa_extensions_test(extensions, ISA_EXT_C);
    uint64_t sc = 0; /* that belongs to an LR before it */
    while (block->count < IR_BLOCK_MAX) {
        struct insn insn;
        uint32_t bits;
        if ((block->count && is_break(breaks, pc)) || !read_bits(page, pc & PAGE_OFFSET, &bits))
            break;
        if (!isa_decode(bits, extensions, &insn))
            insn.op = INSN_illegal;
        uint32_t flags = isa_instruction(insn.op)->flags;
        struct ir *ir = &block->code[block->count++];
        *ir = (struct ir){
            .op = insn.op,
            .rd = insn.rd,
            .rs1 = insn.rs1,
            .rs2 = insn.rs2,
            .rs3 = insn.rs3,
            .rm = insn.rm,
            .length = insn.length,
            .index = retired++,
            .bits = bits,
            .pc = pc,
            .imm = insn.imm,
        };
        uint64_t next = pc + insn.length, target = pc + (uint64_t)(int64_t)insn.imm;

        if (is_lr(insn.op))
            sc = block->count + LR_SC_LENGTH <= IR_BLOCK_MAX
                     ? matching_sc(page, pc, &insn, extensions, breaks)
                     : 0;
        ir->paired = sc && (is_lr(insn.op) || pc == sc);
        if (is_lr(insn.op) && sc) {
            pc = next;
            continue;
        }
        if (ends_block(&insn, flags)) {
            ir->op = IR_CALL;
            finish(block, retired, next);
            return;
        }
        if (insn.op == INSN_jalr) {
            if (halfwords)
                return;
            ir->op = IR_CALL; /* the target may be misaligned */
            finish(block, retired, next);
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
                finish(block, retired, target);
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
        finish(block, retired, pc);
}

/* Whether code[begin] and what follows comes back to the start. */
static bool goes_back(const struct ir_block *block, unsigned begin)
{
    for (unsigned i = begin; i < block->count; i++)
        if (ir_is_exit(&block->code[i]) && (uint64_t)block->code[i].imm == block->pc)
            return true;
    return false;
}

static void read_arms(struct ir_block *block, const uint8_t *page,
                      const struct isa_extensions *extensions, const uint64_t *breaks)
{
    for (unsigned i = 0; i < block->count && block->arm_count < IR_ARMS; i++) {
        const struct ir *ir = &block->code[i];
        unsigned count = block->count;
        if (ir->op == IR_EXIT || !ir_is_exit(ir) || (uint64_t)ir->imm <= ir->pc ||
            !is_same_page((uint64_t)ir->imm, block->pc))
            continue;
        if (block->code[count - 1].op == INSN_jalr) /* it may become two */
            block->code[block->count++] = (struct ir){.op = IR_NOTHING};
        unsigned begin = block->count;
        if (begin < IR_BLOCK_MAX)
            read_trace(block, page, (uint64_t)ir->imm, ir->index + 1u, extensions, breaks);
        if (goes_back(block, begin))
            block->arms[block->arm_count++] = (struct ir_arm){(uint8_t)i, (uint8_t)begin};
        else
            block->count = count;
    }
}

void ir_read(struct ir_block *block, const uint8_t *page, uint64_t pc,
             const struct isa_extensions *extensions, const uint64_t *breaks)
{
    block->pc = pc;
    block->count = block->arm_count = 0;
    read_trace(block, page, pc, 0, extensions, breaks);
    if (goes_back(block, 0))
        read_arms(block, page, extensions, breaks);
}

const struct ir_arm *ir_arm_at(const struct ir_block *block, unsigned i)
{
    for (unsigned arm = 0; arm < block->arm_count; arm++)
        if (block->arms[arm].begin == i)
            return &block->arms[arm];
    return NULL;
}

const struct ir_arm *ir_arm_of(const struct ir_block *block, unsigned i)
{
    for (unsigned arm = 0; arm < block->arm_count; arm++)
        if (block->arms[arm].branch == i)
            return &block->arms[arm];
    return NULL;
}

bool ir_is_exit(const struct ir *ir)
{
    return ir->op == IR_EXIT ||
           (ir->op < INSN_COUNT && (isa_instruction(ir->op)->flags & ISA_BRANCH));
}

bool ir_ends_trace(const struct ir *ir)
{
    return ir->op == IR_EXIT || ir->op == INSN_jalr;
}

uint32_t ir_reads(const struct ir *ir)
{
    if (ir->op == IR_MOVE)
        return 1u << ir->rs1 & ~1u;
    if (ir->op >= INSN_COUNT)
        return 0;
    uint32_t operands = isa_instruction(ir->op)->operands, reads = 0;
    if ((operands & ISA_RS1) && !(operands & ISA_FP_RS1))
        reads |= 1u << ir->rs1;
    if ((operands & ISA_RS2) && !(operands & ISA_FP_RS2))
        reads |= 1u << ir->rs2;
    return reads & ~1u;
}

uint32_t ir_writes(const struct ir *ir)
{
    if (ir->op == IR_NOTHING || ir->op == IR_EXIT)
        return 0;
    if (ir->op < INSN_COUNT) {
        uint32_t operands = isa_instruction(ir->op)->operands;
        if (!(operands & ISA_RD) || (operands & ISA_FP_RD))
            return 0;
    }
    uint32_t writes = 1u << ir->rd;
    if (ir->op == INSN_amocas_q)
        writes |= 1u << ((ir->rd + 1u) & 31);
    return writes & ~1u;
}
