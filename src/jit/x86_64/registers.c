/*
 * Where guest registers are in a loop.
 *
 * Between blocks, and in most of them, that is fixed: see `home`. A block that branches back to its
 * own start is a loop, which has registers of its own: the host registers hold whatever is read
 * next, and the rest waits in struct hart. In addition,
 *
 *   - the sign of a word is extended when somebody looks at the upper half, or at the register from
 *     outside (narrow);
 *   - a shift that is part of a rotation is computed when somebody looks at it (later).
 *
 * What leaves the loop, or calls the interpreter, first puts everything where it is at home; the
 * code for that is behind the block.
 */
#include "jit/x86_64/emitter.h"

enum { NEVER = 1000, HOSTS = 10 };

static const uint8_t hosts[HOSTS] = {RBX, RSI, RDI, R8, R9, R10, R11, R12, R13, INSTRET};

const struct registers home = {
    .host =
        {
            [0 ... 31] = IN_MEMORY,
            [INSTRET_REG] = INSTRET,
            [2] = RBX,
            [8] = R12,
            [9] = R13,
            [10] = RSI,
            [11] = RDI,
            [12] = R8,
            [13] = R9,
            [14] = R10,
            [15] = R11,
        },
    .dirty = 1u << INSTRET_REG | 1u << 2 | 1u << 8 | 1u << 9 | 0x3fu << 10,
};

static const struct registers nowhere = {.host = {[0 ... 31] = IN_MEMORY}};

static bool has(uint32_t mask, unsigned reg)
{
    return mask >> reg & 1;
}

/* --- What instructions do with words -----------------------------------------------------------
 */

enum word_use {
    USES_ALL,     /* of its operands */
    USES_WORDS,   /* the lower halves only */
    USES_WORD_1,  /* the lower half of rs1 */
    USES_WORD_2,  /* the lower half of rs2 */
    USES_BITWISE, /* the lower half of the result depends on lower halves only, the upper on upper
                   */
};

enum word_result {
    GIVES_ANY,
    GIVES_WORD,   /* extended by its sign */
    GIVES_NARROW, /* whose extension may wait */
};

static enum word_use word_use(const struct ir *ir)
{
    switch (ir->op) {
    case IR_MOVE:
    case INSN_and:
    case INSN_or:
    case INSN_xor:
    case INSN_ori:
    case INSN_xori:
        return USES_BITWISE;
    case INSN_andi:
        return ir->imm >= 0 ? USES_WORDS : USES_BITWISE;
    case INSN_addw:
    case INSN_subw:
    case INSN_addiw:
    case INSN_slliw:
    case INSN_srliw:
    case INSN_sraiw:
    case INSN_sllw:
    case INSN_srlw:
    case INSN_sraw:
    case INSN_mulw:
    case INSN_roriw:
        return USES_WORDS;
    case INSN_add_uw:
    case INSN_slli_uw:
    case INSN_sh1add_uw:
    case INSN_sh2add_uw:
    case INSN_sh3add_uw:
        return USES_WORD_1;
    case INSN_sb:
    case INSN_sh:
    case INSN_sw:
        return USES_WORD_2;
    default:
        return USES_ALL;
    }
}

static enum word_result word_result(const struct ir *ir)
{
    switch (ir->op) {
    case IR_CONSTANT:
        return ir->imm == (int32_t)ir->imm ? GIVES_WORD : GIVES_ANY;
    case INSN_srliw:
        return ir->imm ? GIVES_WORD : GIVES_NARROW;
    case INSN_andi:
        return ir->imm >= 0 ? GIVES_WORD : GIVES_ANY;
    case INSN_lb:
    case INSN_lbu:
    case INSN_lh:
    case INSN_lhu:
    case INSN_lw:
        return GIVES_WORD;
    default:
        return word_use(ir) == USES_WORDS ? GIVES_NARROW : GIVES_ANY;
    }
}

static bool is_extension(const struct ir *ir)
{
    return ir->op == INSN_addiw && ir->imm == 0;
}

/* --- Looking ahead -----------------------------------------------------------------------------
 */

/* In how many instructions from i on the register is read, around the loop. */
static unsigned next_read(const struct emitter *e, unsigned i, unsigned reg)
{
    unsigned count = e->block->count;
    for (unsigned n = 0; n < count; n++) {
        const struct register_uses *uses = &e->uses[i];
        if (has(uses->reads, reg))
            return n;
        if (has(uses->writes, reg))
            return NEVER;
        i = uses->again || i + 1 == count ? 0 : i + 1;
    }
    return NEVER;
}

/* Whether registers may be looked at from outside of the block while it is executed. */
static bool is_seen(const struct ir *ir)
{
    const uint32_t fp = ISA_FP_RD | ISA_FP_RS1 | ISA_FP_RS2 | ISA_FP_RS3;
    if (ir->op == IR_CONSTANT || ir->op == IR_MOVE || ir->op == IR_NOTHING)
        return false;
    if (ir->op >= INSN_COUNT || !emitters[ir->op].emit)
        return true;
    const struct isa_instruction *info = isa_instruction(ir->op);
    return info->flags || (info->operands & fp);
}

static bool is_computed_later_from(const struct emitter *e, unsigned reg, unsigned operand)
{
    return has(e->now.regs.later, reg) && e->block->code[e->now.regs.shift[reg]].rs1 == operand;
}

/* Whether the register's value may still be looked at, in whatever way, from instruction i on. */
static bool is_wanted(const struct emitter *e, unsigned i, unsigned reg)
{
    for (unsigned other = 0; other < 32 && e->now.regs.later; other++)
        if (is_computed_later_from(e, other, reg))
            return true;
    for (; i < e->block->count; i++) {
        const struct register_uses *uses = &e->uses[i];
        if (uses->seen || has(uses->reads, reg))
            return true;
        if (has(uses->writes, reg))
            return false;
    }
    return true;
}

/* --- Moving ------------------------------------------------------------------------------------
 */

static void extend(struct emitter *e, unsigned host)
{
    x86_op(&e->x, X86_MOVSXD, host, x86_register(host));
}

static void widen(struct emitter *e, unsigned reg)
{
    extend(e, e->now.regs.host[reg]);
    e->now.regs.narrow &= ~(1u << reg);
}

static void widen_all(struct emitter *e, uint32_t mask)
{
    for (unsigned reg = 0; reg < 32; reg++)
        if (has(mask & e->now.regs.narrow, reg))
            widen(e, reg);
}

static void drop(struct registers *regs, unsigned reg)
{
    uint32_t others = ~(1u << reg);
    regs->host[reg] = IN_MEMORY;
    regs->dirty &= others;
    regs->narrow &= others;
    regs->later &= others;
}

static void evict(struct emitter *e, unsigned i, unsigned reg)
{
    if (has(e->now.regs.dirty, reg) && is_wanted(e, i, reg)) {
        if (has(e->now.regs.narrow, reg))
            widen(e, reg);
        x86_op(&e->x, X86_STORE, e->now.regs.host[reg], guest_slot(reg));
    }
    drop(&e->now.regs, reg);
}

/* A host register for `reg`, at the cost of one that is read later than it; IN_MEMORY if there is
 * none. */
static uint8_t find_host(struct emitter *e, unsigned i, unsigned reg, uint32_t locked)
{
    uint32_t used = 0;
    unsigned after = e->uses[i].again || i + 1 == e->block->count ? 0 : i + 1;
    unsigned latest = next_read(e, after, reg), victim = 32;
    if (latest == NEVER)
        return IN_MEMORY;
    for (unsigned other = 0; other < 32; other++) {
        if (e->now.regs.host[other] == IN_MEMORY)
            continue;
        used |= 1u << e->now.regs.host[other];
        unsigned read = next_read(e, i, other);
        if (read == NEVER && !(has(e->now.regs.dirty, other) && is_wanted(e, i, other)))
            read++; /* nothing needs to be stored */
        if (!has(locked, other) && read > latest) {
            latest = read;
            victim = other;
        }
    }
    uint8_t wanted = e->head.host[reg]; /* at the end of the round */
    if (wanted != IN_MEMORY && !has(used, wanted))
        return wanted;
    for (unsigned h = 0; h < HOSTS; h++)
        if (!has(used, hosts[h]))
            return hosts[h];
    if (victim == 32)
        return IN_MEMORY;
    uint8_t host = e->now.regs.host[victim];
    evict(e, i, victim);
    return host;
}

/* Computes what was to be computed later, before instruction i. */
static void compute(struct emitter *e, unsigned i, unsigned reg, uint32_t locked)
{
    const struct ir *shift = &e->block->code[e->now.regs.shift[reg]];
    uint8_t host = find_host(e, i, reg, locked | 1u << reg | 1u << shift->rs1);
    drop(&e->now.regs, reg);
    e->now.regs.host[reg] = host;
    if (host != IN_MEMORY) {
        e->now.regs.dirty |= 1u << reg;
        if (word_result(shift) == GIVES_NARROW)
            e->now.regs.narrow |= 1u << reg;
    }
    emitters[shift->op].emit(e, shift, emitters[shift->op].code);
}

static bool moves(const struct registers *from, const struct registers *to, unsigned reg)
{
    return from->host[reg] != IN_MEMORY && to->host[reg] != IN_MEMORY &&
           from->host[reg] != to->host[reg];
}

/* The register that is in `host` and is to go on existing; 32 if there is none. */
static unsigned staying_in(const struct registers *from, const struct registers *to, unsigned host)
{
    for (unsigned reg = 0; reg < 32; reg++)
        if (from->host[reg] == host && to->host[reg] != IN_MEMORY)
            return reg;
    return 32;
}

/* Moves between host registers: first to those that are free, and what is left then goes round. */
static void move_hosts(struct emitter *e, struct registers from, const struct registers *to)
{
    for (bool moved = true; moved;) {
        moved = false;
        for (unsigned reg = 0; reg < 32; reg++)
            if (moves(&from, to, reg) && staying_in(&from, to, to->host[reg]) == 32) {
                x86_op(&e->x, X86_LOAD, to->host[reg], x86_register(from.host[reg]));
                from.host[reg] = to->host[reg];
                moved = true;
            }
    }
    for (unsigned reg = 0; reg < 32; reg++) {
        if (!moves(&from, to, reg))
            continue;
        x86_op(&e->x, X86_LOAD, RAX, x86_register(from.host[reg]));
        for (unsigned hole = from.host[reg], next; hole != to->host[reg]; hole = next) {
            unsigned other = 0;
            while (to->host[other] != hole || from.host[other] == IN_MEMORY)
                other++;
            next = from.host[other];
            x86_op(&e->x, X86_LOAD, hole, x86_register(next));
            from.host[other] = (uint8_t)hole;
        }
        x86_op(&e->x, X86_LOAD, to->host[reg], x86_register(RAX));
        from.host[reg] = to->host[reg];
    }
}

void emit_transition(struct emitter *e, struct registers from, const struct registers *to)
{
    struct registers saved = e->now.regs;
    e->now.regs = from;
    for (unsigned reg = 0; reg < 32; reg++)
        if (has(from.later, reg)) {
            const struct ir *shift = &e->block->code[from.shift[reg]];
            emitters[shift->op].emit(e, shift, emitters[shift->op].code);
        }
    e->now.regs = saved;
    for (unsigned reg = 0; reg < 32; reg++) {
        unsigned host = from.host[reg];
        if (host == IN_MEMORY)
            continue;
        bool stays = to->host[reg] != IN_MEMORY;
        bool store = has(from.dirty, reg) && !(stays && has(to->dirty, reg));
        if (has(from.narrow, reg) && (stays || store))
            extend(e, host);
        if (store)
            x86_op(&e->x, X86_STORE, host, guest_slot(reg));
    }
    move_hosts(e, from, to);
    for (unsigned reg = 0; reg < 32; reg++)
        if (from.host[reg] == IN_MEMORY && to->host[reg] != IN_MEMORY)
            x86_op(&e->x, X86_LOAD, to->host[reg], guest_slot(reg));
}

bool registers_are_home(const struct registers *regs)
{
    return !memcmp(regs->host, home.host, sizeof(home.host)) && !regs->narrow && !regs->later;
}

void emit_write_back(struct emitter *e, const struct registers *from)
{
    emit_transition(e, *from, &nowhere);
}

void emit_read_back(struct emitter *e, const struct registers *to)
{
    emit_transition(e, nowhere, to);
}

/* --- Instructions ------------------------------------------------------------------------------
 */

/* Whether somebody still has to compute from what the instruction overwrites. */
static bool overwrites_operand(const struct emitter *e, const struct ir *ir, unsigned reg)
{
    return has(ir_writes(ir), ir->rd) && ir->rd != reg && is_computed_later_from(e, reg, ir->rd) &&
           !(is_extension(ir) && ir->rs1 == ir->rd);
}

/* Operands into host registers, where that is worth it, and extended, where that is needed. */
static void prepare_operands(struct emitter *e, unsigned i, uint32_t locked)
{
    const struct ir *ir = &e->block->code[i];
    struct registers *regs = &e->now.regs;
    uint32_t reads = e->uses[i].reads;
    for (unsigned reg = 0; reg < 32; reg++) {
        if (has(regs->later, reg) && (has(reads, reg) || overwrites_operand(e, ir, reg)))
            compute(e, i, reg, locked);
        if (!has(reads, reg) || regs->host[reg] != IN_MEMORY)
            continue;
        uint8_t host = find_host(e, i, reg, locked);
        if (host == IN_MEMORY)
            continue;
        x86_op(&e->x, X86_LOAD, host, guest_slot(reg));
        regs->host[reg] = host;
    }
    uint32_t whole = reads;
    switch (word_use(ir)) {
    case USES_ALL:
        break;
    case USES_WORDS:
        whole = 0;
        break;
    case USES_WORD_1:
        whole = 1u << ir->rs2;
        break;
    case USES_WORD_2:
        whole = 1u << ir->rs1;
        break;
    case USES_BITWISE:
        if (!(reads & ~regs->word))
            whole = 0;
        break;
    }
    if (is_extension(ir) && ir->rd != ir->rs1) /* once, and not in each copy */
        whole = reads;
    widen_all(e, whole);
}

/* What is known of rd behind the instruction. */
static void note_result(struct emitter *e, const struct ir *ir)
{
    struct registers *regs = &e->now.regs;
    const struct registers *before = &e->before;
    uint32_t bit = 1u << ir->rd, reads = ir_reads(ir);
    enum word_result result = word_result(ir);
    bool in_host = regs->host[ir->rd] != IN_MEMORY;
    bool narrow = result == GIVES_NARROW;
    if (word_use(ir) == USES_BITWISE && !(reads & ~before->word)) {
        result = GIVES_WORD;
        narrow = reads & before->narrow;
    }
    if (is_extension(ir) && has(before->word & ~before->narrow, ir->rs1))
        narrow = false;
    regs->later &= ~bit;
    regs->dirty = in_host ? regs->dirty | bit : regs->dirty & ~bit;
    regs->narrow = in_host && narrow ? regs->narrow | bit : regs->narrow & ~bit;
    regs->word = result != GIVES_ANY ? regs->word | bit : regs->word & ~bit;
}

/* Whether the instruction is the last one to look at rs1, whose host register rd can have. */
static bool inherits(const struct emitter *e, unsigned i)
{
    const struct ir *ir = &e->block->code[i];
    const struct register_uses *uses = &e->uses[i];
    return uses->writes && !has(uses->reads, ir->rd) && !uses->seen && has(uses->reads, ir->rs1) &&
           is_in_host(e, ir->rs1) && !is_wanted(e, i + 1, ir->rs1);
}

static void set_aside(struct emitter *e, unsigned i)
{
    const struct ir *ir = &e->block->code[i];
    struct registers *regs = &e->now.regs;
    for (unsigned reg = 0; reg < 32; reg++)
        if (has(regs->later, reg) && (reg == ir->rs1 || overwrites_operand(e, ir, reg)))
            compute(e, i, reg, 1u << ir->rs1 | 1u << ir->rd);
    drop(regs, ir->rd);
    regs->later |= 1u << ir->rd;
    regs->word |= 1u << ir->rd;
    regs->shift[ir->rd] = (uint8_t)i;
}

bool registers_prepare(struct emitter *e, unsigned i)
{
    const struct ir *ir = &e->block->code[i];
    const struct register_uses *uses = &e->uses[i];
    struct registers *regs = &e->now.regs;
    uint32_t locked = uses->reads | uses->writes;
    e->inherited = 0;
    if (uses->at_home) {
        emit_transition(e, *regs, &home);
        *regs = e->before = home;
        return true;
    }
    if (ir->later) {
        set_aside(e, i);
        return false;
    }
    prepare_operands(e, i, locked);
    uint8_t host = uses->writes ? regs->host[ir->rd] : IN_MEMORY;
    e->inherited = inherits(e, i) ? ir->rs1 : 0;
    if (e->inherited)
        host = regs->host[ir->rs1];
    else if (uses->writes && host == IN_MEMORY && !has(uses->reads, ir->rd))
        host = find_host(e, i, ir->rd, locked);
    if (uses->writes && host == IN_MEMORY && word_use(ir) == USES_BITWISE)
        widen_all(e, uses->reads);
    e->before = *regs;
    if (uses->writes) {
        regs->host[ir->rd] = host;
        note_result(e, ir);
    }
    return true;
}

void registers_finish(struct emitter *e)
{
    if (e->inherited)
        drop(&e->now.regs, e->inherited);
}

/* What the interpreter does, or what may be jumped from to anywhere. */
static bool is_of_block(const struct ir *ir)
{
    const uint32_t flags = ISA_AMO | ISA_CSR | ISA_SYSTEM | ISA_CBO | ISA_JUMP;
    return ir->op == IR_CALL || (ir->op < INSN_COUNT && (isa_instruction(ir->op)->flags & flags));
}

bool registers_find_loop(struct emitter *e)
{
    const struct ir_block *block = e->block;
    bool loops = false, left = true; /* nothing behind goes back, in this trace */
    for (unsigned i = block->count; i-- > 0;) {
        const struct ir *ir = &block->code[i];
        bool again = ir_is_exit(ir) && (uint64_t)ir->imm == block->pc;
        left = !again && (left || ir_ends_trace(ir));
        struct register_uses *uses = &e->uses[i];
        *uses = (struct register_uses){ir_reads(ir), ir_writes(ir)};
        uses->again = again;
        uses->at_home = left || is_of_block(ir);
        uses->seen = uses->at_home || is_seen(ir);
        if (again)
            uses->reads |= 1u << INSTRET_REG;
        loops |= again;
    }
    return loops;
}

void registers_begin_round(struct emitter *e)
{
    struct registers *head = &e->head;
    *head = e->tail;
    for (unsigned reg = 0; reg < 32; reg++)
        if (has(head->later, reg))
            drop(head, reg);
    head->narrow = head->word = 0;
    emit_transition(e, home, head);
    e->now.regs = e->before = *head;
    e->inherited = 0;
}
