/*
 * A block's host code: the table of emitters, and what is put together around them.
 *
 *     code of the instructions    fast paths, in order
 *     exits of taken branches
 *     translations                of accesses that share one and did not find it
 *     sites and links             data
 *     stubs                       where fast paths fall back to: call the interpreter, or leave
 */
#include "jit/x86_64/emitter.h"

/* clang-format off */
const struct emitter_row emitters[IR_OPS] = {
    [IR_CONSTANT]    = {emit_constant},
    [IR_MOVE]        = {emit_move},
    [IR_NOTHING]     = {emit_nothing},
    [IR_EXIT]        = {emit_exit},

    [INSN_addi]      = {emit_alu_imm, X86_ADD},
    [INSN_xori]      = {emit_alu_imm, X86_XOR},
    [INSN_ori]       = {emit_alu_imm, X86_OR},
    [INSN_andi]      = {emit_alu_imm, X86_AND},
    [INSN_slti]      = {emit_less_imm, X86_L},
    [INSN_sltiu]     = {emit_less_imm, X86_B},
    [INSN_slli]      = {emit_shift_imm, X86_GROUP_SHL},
    [INSN_srli]      = {emit_shift_imm, X86_GROUP_SHR},
    [INSN_srai]      = {emit_shift_imm, X86_GROUP_SAR},
    [INSN_add]       = {emit_alu, X86_ADD},
    [INSN_sub]       = {emit_alu, X86_SUB},
    [INSN_xor]       = {emit_alu, X86_XOR},
    [INSN_or]        = {emit_alu, X86_OR},
    [INSN_and]       = {emit_alu, X86_AND},
    [INSN_sll]       = {emit_shift, X86_GROUP_SHL},
    [INSN_srl]       = {emit_shift, X86_GROUP_SHR},
    [INSN_sra]       = {emit_shift, X86_GROUP_SAR},
    [INSN_slt]       = {emit_less, X86_L},
    [INSN_sltu]      = {emit_less, X86_B},
    [INSN_addiw]     = {emit_alu_imm_word, X86_ADD},
    [INSN_slliw]     = {emit_shift_imm_word, X86_GROUP_SHL},
    [INSN_srliw]     = {emit_shift_imm_word, X86_GROUP_SHR},
    [INSN_sraiw]     = {emit_shift_imm_word, X86_GROUP_SAR},
    [INSN_addw]      = {emit_alu_word, X86_ADD},
    [INSN_subw]      = {emit_alu_word, X86_SUB},
    [INSN_sllw]      = {emit_shift_word, X86_GROUP_SHL},
    [INSN_srlw]      = {emit_shift_word, X86_GROUP_SHR},
    [INSN_sraw]      = {emit_shift_word, X86_GROUP_SAR},

    [INSN_beq]       = {emit_branch, X86_E},
    [INSN_bne]       = {emit_branch, X86_NE},
    [INSN_blt]       = {emit_branch, X86_L},
    [INSN_bge]       = {emit_branch, X86_GE},
    [INSN_bltu]      = {emit_branch, X86_B},
    [INSN_bgeu]      = {emit_branch, X86_AE},
    [INSN_jalr]      = {emit_jalr},

    [INSN_csrrw]     = {emit_csr, 0},
    [INSN_csrrs]     = {emit_csr, 1},
    [INSN_csrrc]     = {emit_csr, 2},
    [INSN_csrrwi]    = {emit_csr, 4},
    [INSN_csrrsi]    = {emit_csr, 5},
    [INSN_csrrci]    = {emit_csr, 6},

    [INSN_lb]        = {emit_load_memory, X86_MOVSX_8},
    [INSN_lh]        = {emit_load_memory, X86_MOVSX_16},
    [INSN_lw]        = {emit_load_memory, X86_MOVSXD},
    [INSN_ld]        = {emit_load_memory, X86_LOAD},
    [INSN_lbu]       = {emit_load_memory, X86_MOVZX_8},
    [INSN_lhu]       = {emit_load_memory, X86_MOVZX_16},
    [INSN_lwu]       = {emit_load_memory, X86_LOAD},
    [INSN_sb]        = {emit_store_memory},
    [INSN_sh]        = {emit_store_memory},
    [INSN_sw]        = {emit_store_memory},
    [INSN_sd]        = {emit_store_memory},
    [INSN_fence]     = {emit_fence},
    [INSN_fence_tso] = {emit_fence, 1},
    [INSN_cbo_zero]   = {emit_cbo_zero},
    [INSN_prefetch_i] = {emit_nothing},
    [INSN_prefetch_r] = {emit_nothing},
    [INSN_prefetch_w] = {emit_nothing},

    [INSN_mul]       = {emit_mul},
    [INSN_mulw]      = {emit_mul_word},
    [INSN_mulh]      = {emit_mul_high, X86_GROUP_IMUL},
    [INSN_mulhu]     = {emit_mul_high, X86_GROUP_MUL},
    [INSN_div]       = {emit_divide, 0},
    [INSN_divu]      = {emit_divide, 2},
    [INSN_rem]       = {emit_divide, 1},
    [INSN_remu]      = {emit_divide, 3},
    [INSN_divw]      = {emit_divide_word, 0},
    [INSN_divuw]     = {emit_divide_word, 2},
    [INSN_remw]      = {emit_divide_word, 1},
    [INSN_remuw]     = {emit_divide_word, 3},

    [INSN_add_uw]    = {emit_shift_add, 4},
    [INSN_sh1add]    = {emit_shift_add, 1},
    [INSN_sh2add]    = {emit_shift_add, 2},
    [INSN_sh3add]    = {emit_shift_add, 3},
    [INSN_sh1add_uw] = {emit_shift_add, 5},
    [INSN_sh2add_uw] = {emit_shift_add, 6},
    [INSN_sh3add_uw] = {emit_shift_add, 7},
    [INSN_slli_uw]   = {emit_slli_uw},
    [INSN_andn]      = {emit_negated, X86_AND},
    [INSN_orn]       = {emit_negated, X86_OR},
    [INSN_xnor]      = {emit_negated, X86_XOR},
    [INSN_max]       = {emit_min_max, X86_CMOVL},
    [INSN_maxu]      = {emit_min_max, X86_CMOVB},
    [INSN_min]       = {emit_min_max, X86_CMOVG},
    [INSN_minu]      = {emit_min_max, X86_CMOVA},
    [INSN_sext_b]    = {emit_extend, X86_MOVSX_8},
    [INSN_sext_h]    = {emit_extend, X86_MOVSX_16},
    [INSN_zext_h]    = {emit_extend, X86_MOVZX_16},
    [INSN_rol]       = {emit_shift, X86_GROUP_ROL},
    [INSN_ror]       = {emit_shift, X86_GROUP_ROR},
    [INSN_rori]      = {emit_shift_imm, X86_GROUP_ROR},
    [INSN_rolw]      = {emit_shift_word, X86_GROUP_ROL},
    [INSN_rorw]      = {emit_shift_word, X86_GROUP_ROR},
    [INSN_roriw]     = {emit_shift_imm_word, X86_GROUP_ROR},
    [INSN_bseti]     = {emit_bit_imm, 5},
    [INSN_bclri]     = {emit_bit_imm, 6},
    [INSN_binvi]     = {emit_bit_imm, 7},
    [INSN_bexti]     = {emit_bit_imm, 4},
    [INSN_bset]      = {emit_bit, 5},
    [INSN_bclr]      = {emit_bit, 6},
    [INSN_binv]      = {emit_bit, 7},
    [INSN_bext]      = {emit_bit, 4},
    [INSN_clz]       = {emit_count, 1},
    [INSN_ctz]       = {emit_count, 3},
    [INSN_cpop]      = {emit_count, 5},
    [INSN_clzw]      = {emit_count, 0},
    [INSN_ctzw]      = {emit_count, 2},
    [INSN_cpopw]     = {emit_count, 4},
    [INSN_rev8]      = {emit_swap_bytes},
    [INSN_orc_b]     = {emit_or_combine},
    [INSN_pack]      = {emit_pack, 32},
    [INSN_packw]     = {emit_pack, 16},
    [INSN_packh]     = {emit_pack, 8},
    [INSN_czero_eqz] = {emit_conditional_zero, X86_CMOVE},
    [INSN_czero_nez] = {emit_conditional_zero, X86_CMOVNE},

    [INSN_flh]       = {emit_load_fp},
    [INSN_flw]       = {emit_load_fp},
    [INSN_fld]       = {emit_load_fp},
    [INSN_fsh]       = {emit_store_fp},
    [INSN_fsw]       = {emit_store_fp},
    [INSN_fsd]       = {emit_store_fp},

    [INSN_lr_w]       = {emit_lr},
    [INSN_sc_w]       = {emit_sc},
    [INSN_lr_d]       = {emit_lr},
    [INSN_sc_d]       = {emit_sc},
    [INSN_amoswap_w]  = {emit_swap, X86_XCHG},
    [INSN_amoadd_w]   = {emit_swap, X86_XADD},
    [INSN_amoxor_w]   = {emit_amo, X86_XOR},
    [INSN_amoand_w]   = {emit_amo, X86_AND},
    [INSN_amoor_w]    = {emit_amo, X86_OR},
    [INSN_amomin_w]   = {emit_amo_choose, X86_CMOVG},
    [INSN_amomax_w]   = {emit_amo_choose, X86_CMOVL},
    [INSN_amominu_w]  = {emit_amo_choose, X86_CMOVA},
    [INSN_amomaxu_w]  = {emit_amo_choose, X86_CMOVB},
    [INSN_amocas_w]   = {emit_amo_cas},
    [INSN_amoswap_d]  = {emit_swap, X86_XCHG},
    [INSN_amoadd_d]   = {emit_swap, X86_XADD},
    [INSN_amoxor_d]   = {emit_amo, X86_XOR},
    [INSN_amoand_d]   = {emit_amo, X86_AND},
    [INSN_amoor_d]    = {emit_amo, X86_OR},
    [INSN_amomin_d]   = {emit_amo_choose, X86_CMOVG},
    [INSN_amomax_d]   = {emit_amo_choose, X86_CMOVL},
    [INSN_amominu_d]  = {emit_amo_choose, X86_CMOVA},
    [INSN_amomaxu_d]  = {emit_amo_choose, X86_CMOVB},
    [INSN_amocas_d]   = {emit_amo_cas},

    [INSN_fadd_s]     = {emit_fp_operation, X86_ADDSD},
    [INSN_fsub_s]     = {emit_fp_operation, X86_SUBSD},
    [INSN_fmul_s]     = {emit_fp_operation, X86_MULSD},
    [INSN_fdiv_s]     = {emit_fp_operation, X86_DIVSD},
    [INSN_fsqrt_s]    = {emit_fp_operation, X86_SQRTSD},
    [INSN_fmadd_s]    = {emit_fp_fused, 0xa9},
    [INSN_fmsub_s]    = {emit_fp_fused, 0xab},
    [INSN_fnmsub_s]   = {emit_fp_fused, 0xad},
    [INSN_fnmadd_s]   = {emit_fp_fused, 0xaf},
    [INSN_fsgnj_s]    = {emit_fp_sign, 0},
    [INSN_fsgnjn_s]   = {emit_fp_sign, 1},
    [INSN_fsgnjx_s]   = {emit_fp_sign, 2},
    [INSN_feq_s]      = {emit_fp_compare, INSN_feq_d},
    [INSN_flt_s]      = {emit_fp_compare, INSN_flt_d},
    [INSN_fle_s]      = {emit_fp_compare, INSN_fle_d},
    [INSN_fcvt_w_s]   = {emit_fp_to_int, 0},
    [INSN_fcvt_l_s]   = {emit_fp_to_int, 1},
    [INSN_fcvt_wu_s]  = {emit_fp_to_int, 2},
    [INSN_fcvt_lu_s]  = {emit_fp_to_int, 3},
    [INSN_fmin_s]     = {emit_fp_min_max, X86_MINSD},
    [INSN_fmax_s]     = {emit_fp_min_max, X86_MAXSD},
    [INSN_fcvt_s_w]   = {emit_fp_from_int, 0},
    [INSN_fcvt_s_wu]  = {emit_fp_from_int, 1},
    [INSN_fcvt_s_l]   = {emit_fp_from_int, 2},
    [INSN_fcvt_s_lu]  = {emit_fp_from_int, 3},
    [INSN_fadd_d]     = {emit_fp_operation, X86_ADDSD},
    [INSN_fsub_d]     = {emit_fp_operation, X86_SUBSD},
    [INSN_fmul_d]     = {emit_fp_operation, X86_MULSD},
    [INSN_fdiv_d]     = {emit_fp_operation, X86_DIVSD},
    [INSN_fsqrt_d]    = {emit_fp_operation, X86_SQRTSD},
    [INSN_fmadd_d]    = {emit_fp_fused, 0xa9},
    [INSN_fmsub_d]    = {emit_fp_fused, 0xab},
    [INSN_fnmsub_d]   = {emit_fp_fused, 0xad},
    [INSN_fnmadd_d]   = {emit_fp_fused, 0xaf},
    [INSN_fsgnj_d]    = {emit_fp_sign, 0},
    [INSN_fsgnjn_d]   = {emit_fp_sign, 1},
    [INSN_fsgnjx_d]   = {emit_fp_sign, 2},
    [INSN_feq_d]      = {emit_fp_compare, INSN_feq_d},
    [INSN_flt_d]      = {emit_fp_compare, INSN_flt_d},
    [INSN_fle_d]      = {emit_fp_compare, INSN_fle_d},
    [INSN_fcvt_w_d]   = {emit_fp_to_int, 0},
    [INSN_fcvt_l_d]   = {emit_fp_to_int, 1},
    [INSN_fcvt_wu_d]  = {emit_fp_to_int, 2},
    [INSN_fcvt_lu_d]  = {emit_fp_to_int, 3},
    [INSN_fmin_d]     = {emit_fp_min_max, X86_MINSD},
    [INSN_fmax_d]     = {emit_fp_min_max, X86_MAXSD},
    [INSN_fcvt_d_w]   = {emit_fp_from_int, 0},
    [INSN_fcvt_d_wu]  = {emit_fp_from_int, 1},
    [INSN_fcvt_d_l]   = {emit_fp_from_int, 2},
    [INSN_fcvt_d_lu]  = {emit_fp_from_int, 3},
    [INSN_fcvt_s_d]   = {emit_fp_convert, 1},
    [INSN_fcvt_d_s]   = {emit_fp_convert, 0},
    [INSN_fmv_x_w]    = {emit_fp_to_bits, 0},
    [INSN_fmv_x_d]    = {emit_fp_to_bits, 1},
    [INSN_fmv_w_x]    = {emit_fp_from_bits, 0},
    [INSN_fmv_d_x]    = {emit_fp_from_bits, 1},
};
/* clang-format on */

void emit_load(struct emitter *e, unsigned host, unsigned reg)
{
    if (reg == 0)
        x86_constant(&e->x, host, 0);
    else if (e->now.regs.host[reg] != host)
        x86_op(&e->x, X86_LOAD, host, guest(e, reg));
}

void emit_save(struct emitter *e, unsigned reg, unsigned host)
{
    if (reg != 0 && e->now.regs.host[reg] != host)
        x86_op(&e->x, X86_STORE, host, guest(e, reg));
}

unsigned emit_use(struct emitter *e, unsigned reg, unsigned temporary)
{
    if (is_in_host(e, reg))
        return e->now.regs.host[reg];
    emit_load(e, temporary, reg);
    return temporary;
}

/* --- Calls of the interpreter ------------------------------------------------------------------
 */

struct site *site_open(struct emitter *e, const struct ir *ir)
{
    struct site *site = &e->sites[e->site_count++];
    site->ir = ir;
    site->jump_count = 0;
    site->back = site->address = NULL;
    if (e->looping) {
        site->before = e->before;
        site->after = e->now.regs;
    }
    return site;
}

static bool are_moved(const struct emitter *e, const struct site *site)
{
    return e->looping && !(registers_are_home(&site->before) && registers_are_home(&site->after));
}

void site_unless(struct emitter *e, struct site *site, enum x86_condition failed)
{
    site->jumps[site->jump_count++] = x86_jump_if(&e->x, failed);
}

void site_close(struct emitter *e, struct site *site)
{
    site->back = e->x.at;
    site->held = (uint8_t)e->now.held;
}

void emit_call(struct emitter *e, const struct ir *ir, unsigned code)
{
    struct site *site = site_open(e, ir);
    if (are_moved(e, site)) {
        site->jumps[site->jump_count++] = x86_jump(&e->x);
        site_close(e, site);
    } else {
        site->address = x86_address(&e->x, RAX);
        x86_call_to(&e->x, e->thunks->one);
    }
    /* A CSR may have been written. */
    e->now.fp_on = e->now.fp_dirty = false;
    e->now.fp_boxed = 0;
    e->now.held = 0;
}

/* --- Blocks ------------------------------------------------------------------------------------
 */

static void emit_instructions(struct emitter *e)
{
    for (unsigned i = 0; i < e->block->count; i++) {
        const struct ir *ir = &e->block->code[i];
        const struct emitter_row *row = &emitters[ir->op];
        const struct ir_arm *arm = ir_arm_at(e->block, i);
        if (arm) {
            x86_here(&e->x, e->arms[arm - e->block->arms].jump);
            e->now = e->arms[arm - e->block->arms].state;
        }
        if (e->looping && !registers_prepare(e, i))
            continue;
        (row->emit ? row->emit : emit_call)(e, ir, row->code);
        if (e->looping)
            registers_finish(e);
    }
}

/* Where nothing has been emitted. */
static void begin(struct emitter *e)
{
    e->x.at = e->start;
    e->predicted =
        (unsigned)(e->block->pc >> 1) * 7; /* loops of several blocks shall not share places */
    e->site_count = e->alone_count = e->link_count = e->taken_count = 0;
    e->now = (struct state){.regs = home};
}

static void emit_loop(struct emitter *e)
{
    enum { ROUNDS = 3 };
    e->tail = home;
    for (unsigned round = 0; round < ROUNDS; round++) {
        begin(e);
        registers_begin_round(e);
        e->loop = e->x.at;
        emit_instructions(e);
    }
}

static void emit_code(struct emitter *e)
{
    e->looping = registers_find_loop(e);
    begin(e);
    (e->looping ? emit_loop : emit_instructions)(e);
    for (unsigned i = 0; i < e->taken_count; i++) {
        const struct ir *branch = e->taken[i].ir;
        x86_here(&e->x, e->taken[i].jump);
        if (e->looping)
            emit_transition(e, e->taken[i].regs, &home);
        emit_exit_to(e, branch->pc, (uint64_t)branch->imm, branch->index + 1u);
    }
}

static uint8_t *reserve(struct emitter *e, size_t size)
{
    uint8_t *at = e->x.at;
    e->x.at += size;
    return at;
}

static void emit_site(struct emitter *e, const struct site *site, const uint8_t *data)
{
    if (site->address) {
        x86_patch(site->address, data);
        return;
    }
    for (unsigned i = 0; i < site->jump_count; i++)
        x86_here(&e->x, site->jumps[i]);
    bool moved = are_moved(e, site);
    if (moved)
        emit_write_back(e, &site->before);
    x86_patch(x86_address(&e->x, RAX), data);
    x86_call_to(&e->x, moved ? e->thunks->one_in_loop : e->thunks->one);
    if (moved)
        emit_read_back(e, &site->after);
    if (site->held)
        x86_op(&e->x, X86_LOAD, RDX, x86_memory(RSP, FRAME_SHARE(site->held)));
    x86_jump_to(&e->x, site->back);
}

/* The stub of a jump that is not linked yet, and where one goes that notices an interrupt. */
static void emit_link(struct emitter *e, const struct link *link, struct jit_link *data)
{
    if (link->attention) {
        x86_here(&e->x, link->attention);
        x86_constant(&e->x, RAX, link->pc);
        x86_jump_to(&e->x, e->thunks->resume);
    }
    if (!link->patch)
        return;
    *data = (struct jit_link){
        .pc = link->pc,
        .page_id = e->page_id,
        .patch = (int32_t)(link->patch - (uint8_t *)data),
        .stub = (int32_t)(e->x.at - (uint8_t *)data),
    };
    x86_here(&e->x, link->patch);
    x86_patch(x86_address(&e->x, RAX), (const uint8_t *)data);
    x86_jump_to(&e->x, e->thunks->link);
}

static void fill_site(struct emitter *e, const struct site *site, struct jit_site *data)
{
    *data =
        (struct jit_site){.pc = site->ir->pc, .index = site->ir->index, .length = site->ir->length};
    engine_prepare(e->hart, &data->insn, site->ir->bits);
}

uint8_t *host_translate(uint8_t *at, const struct jit_thunks *thunks, struct hart *hart,
                        const struct ir_block *block, uint64_t page_id)
{
    struct emitter e;
    e.start = at;
    e.thunks = thunks;
    e.hart = hart;
    e.block = block;
    e.page_id = page_id;
    emit_code(&e);
    for (unsigned i = 0; i < e.alone_count; i++)
        emit_alone(&e, &e.alones[i]);

    e.x.at += -(uintptr_t)e.x.at & 7;
    struct jit_site *sites = (struct jit_site *)reserve(&e, e.site_count * sizeof(*sites));
    struct jit_link *links = (struct jit_link *)reserve(&e, e.link_count * sizeof(*links));
    for (unsigned i = 0; i < e.site_count; i++) {
        fill_site(&e, &e.sites[i], &sites[i]);
        emit_site(&e, &e.sites[i], (const uint8_t *)&sites[i]);
    }
    for (unsigned i = 0; i < e.link_count; i++)
        emit_link(&e, &e.links[i], &links[i]);
    return e.x.at + (-(uintptr_t)e.x.at & 15);
}

void host_patch(uint8_t *field, const uint8_t *target)
{
    int32_t distance = (int32_t)(target - (field + 4));
    __atomic_store_n((int32_t *)field, distance, __ATOMIC_RELEASE);
}
