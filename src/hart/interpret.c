/*
 * The interpreter: the reference engine.
 *
 * It threads its way from slot to slot of decoded pages (code.c), one line of semantics an
 * instruction. pc is not kept but derived from the slot when something needs it; leaving the page,
 * by whatever way, goes through `enter`, which looks up the next one and is also where everything
 * asynchronous is noticed (hart->attention, checked at taken branches too).
 *
 * What happens between instructions depends on the table of labels they dispatch through:
 *
 *   run       straight to the instruction
 *   reserved  after an LR: instructions that access memory go to `expose` first (reservation.c)
 *   trace     to `trace`, which writes a line about the instruction (--trace exec)
 *   step      to `stepped`, which leaves: the first instruction was dispatched past the table
 *
 * Engines that translate have it execute single instructions (MODE_ONE), and LRs together with what
 * follows until the reservation needs no more watching (MODE_RESERVED): interpret_single.
 */
#include "hart/alu.h"
#include "hart/fp.h"
#include "hart/internal.h"

enum mode { MODE_RUN, MODE_TRACE, MODE_STEP, MODE_ONE, MODE_RESERVED };

/* What is executed after an LR is watched by the table `reserved`. */
#define WATCHES (mode == MODE_RUN || mode == MODE_RESERVED)

static uint64_t fp_unbox_h(uint64_t f)
{
    return f >> 16 == UINT64_C(0xffffffffffff) ? f & 0xffff : 0x7e00;
}

static uint64_t fp_unbox_s(uint64_t f)
{
    return f >> 32 == 0xffffffff ? f & 0xffffffff : 0x7fc00000;
}

static uint64_t fp_unbox_d(uint64_t f)
{
    return f;
}

#define FP_BOX_h UINT64_C(0xffffffffffff0000)
#define FP_BOX_s UINT64_C(0xffffffff00000000)
#define FP_BOX_d UINT64_C(0)

/* MODE_RESERVED goes on only as long as an SC may succeed that needs what was executed watched. */
static bool reservation_watched(struct hart *hart)
{
    if (hart->private->exclusive)
        return true;
    if (hart->reservation_address == RESERVATION_NONE || hart->reservation_exposed)
        return false;
    if (!atomic_load_explicit(&hart->attention, memory_order_relaxed))
        return true;
    reservation_leave(hart);
    return false;
}

static uint32_t slot_bits(const struct hart *hart, const struct code_slot *slots,
                          const struct code_slot *insn)
{
    if (slots == hart->private->single)
        return hart->private->single_bits;
    const struct code_page *page = container_of(slots, const struct code_page, slots[0]);
    const uint8_t *source = page->source + 2 * (insn - slots);
    uint32_t bits = load_le16(source);
    if ((bits & 3) == 3 && source < page->source + PAGE_SIZE - 2)
        bits |= (uint32_t)load_le16(source + 2) << 16;
    return bits;
}

/* Fence of the guest: which kinds of earlier accesses stay before which kinds of later ones. */
static void fence(unsigned predecessors, unsigned successors)
{
    enum {
        W = 1 << 0 | 1 << 2, /* writes and device output */
        R = 1 << 1 | 1 << 3,
    };
    if ((predecessors & W) && (successors & R))
        atomic_thread_fence(memory_order_seq_cst);
    else
        atomic_thread_fence(memory_order_acq_rel);
}

#ifdef __x86_64__
__attribute__((target("cx16"), noinline))
#endif
static bool
compare_exchange_16(void *pointer, unsigned __int128 *expected, unsigned __int128 desired)
{
    unsigned __int128 old =
        __sync_val_compare_and_swap((unsigned __int128 *)pointer, *expected, desired);
    bool swapped = old == *expected;
    *expected = old;
    return swapped;
}

/* Allowed by menvcfg and senvcfg (Zicbom, Zicboz)? */
static bool block_allowed(const struct hart *hart, uint64_t field)
{
    if (hart->privilege < PRIVILEGE_MACHINE && !(hart->menvcfg & field))
        return false;
    return hart->privilege > PRIVILEGE_USER || (hart->senvcfg & field);
}

/* sfence.vma, sinval.vma: illegal in U-mode, and in S-mode with mstatus.TVM. */
static bool translation_fence_allowed(const struct hart *hart)
{
    return hart->privilege == PRIVILEGE_MACHINE ||
           (hart->privilege == PRIVILEGE_SUPERVISOR && !(hart->mstatus & MSTATUS_TVM));
}

/* --- The vocabulary of semantics ------------------------------------------------------------- */

#define PC()   (page_va + (uint64_t)(insn - slots) * 2)
#define SYNC() (hart->pc = PC(), hart->instret = count)

#define RD  hart->x[insn->rd]
#define RS1 hart->x[insn->rs1]
#define RS2 hart->x[insn->rs2]
#define IMM (int64_t)insn->imm

#define NEXT                                                                                       \
    do {                                                                                           \
        count++;                                                                                   \
        insn = (const struct code_slot *)((const char *)insn + insn->advance);                     \
        goto *labels[insn->op];                                                                    \
    } while (0)

#define OP(name, ...)                                                                              \
    do_##name:                                                                                     \
    {                                                                                              \
        __VA_ARGS__;                                                                               \
        NEXT;                                                                                      \
    }

/* An instruction after which the next one is fetched anew: what it did may concern fetching. */
#define OP_REENTER(name, ...)                                                                      \
    do_##name:                                                                                     \
    {                                                                                              \
        SYNC();                                                                                    \
        __VA_ARGS__;                                                                               \
        goto next_enter;                                                                           \
    }

#define BRANCH(name, condition)                                                                    \
    do_##name : if (condition)                                                                     \
    {                                                                                              \
        if (unlikely(insn->far))                                                                   \
            goto branch_far;                                                                       \
        count++;                                                                                   \
        insn = (const struct code_slot *)((const char *)insn + insn->imm);                         \
        if (unlikely(atomic_load_explicit(&hart->attention, memory_order_relaxed)))                \
            goto attention;                                                                        \
        goto *labels[insn->op];                                                                    \
    }                                                                                              \
    NEXT;

/* The entry that may translate va, and whether it does for an access of this size. */
#define TLB_LOOKUP(va) tlb_entry_of(hart->data_tlb, va)
#define TLB_HIT(entry, access, va, size)                                                           \
    likely((entry)->tag[access] == ((va) & (PAGE_MASK | ((size) - 1))))

#define LOAD(name, type, before, ...)                                                              \
    do_##name:                                                                                     \
    {                                                                                              \
        before;                                                                                    \
        uint64_t va = RS1 + IMM;                                                                   \
        const struct tlb_entry *entry = TLB_LOOKUP(va);                                            \
        type value;                                                                                \
        if (TLB_HIT(entry, ACCESS_LOAD, va, sizeof(type))) {                                       \
            value = __atomic_load_n((type *)(va + entry->addend), __ATOMIC_RELAXED);               \
            __VA_ARGS__;                                                                           \
            NEXT;                                                                                  \
        }                                                                                          \
        uint64_t wide;                                                                             \
        SYNC();                                                                                    \
        if (!mmu_load(hart, va, sizeof(type), &wide))                                              \
            goto enter;                                                                            \
        value = (type)wide;                                                                        \
        __VA_ARGS__;                                                                               \
        goto next_accessed;                                                                        \
    }

#define STORE(name, type, before, value)                                                           \
    do_##name:                                                                                     \
    {                                                                                              \
        before;                                                                                    \
        uint64_t va = RS1 + IMM;                                                                   \
        const struct tlb_entry *entry = TLB_LOOKUP(va);                                            \
        if (TLB_HIT(entry, ACCESS_STORE, va, sizeof(type))) {                                      \
            __atomic_store_n((type *)(va + entry->addend), (type)(value), __ATOMIC_RELAXED);       \
            NEXT;                                                                                  \
        }                                                                                          \
        SYNC();                                                                                    \
        if (!mmu_store(hart, va, sizeof(type), (value)))                                           \
            goto enter;                                                                            \
        goto next_accessed;                                                                        \
    }

#define LOADS  (1 << ACCESS_LOAD)
#define STORES (1 << ACCESS_STORE)

/* Host atomics are sequentially consistent, which is at least what any aq and rl ask for. access is
 * what is translated for, `does` what a watchpoint sees. */
#define ATOMIC(name, type, access, does, ...)                                                      \
    do_##name:                                                                                     \
    {                                                                                              \
        uint64_t va = RS1;                                                                         \
        const struct tlb_entry *entry = TLB_LOOKUP(va);                                            \
        type *pointer = (type *)(va + entry->addend);                                              \
        if (!TLB_HIT(entry, access, va, sizeof(type))) {                                           \
            SYNC();                                                                                \
            pointer = mmu_atomic(hart, va, sizeof(type), access, does);                            \
            if (!pointer)                                                                          \
                goto enter;                                                                        \
        }                                                                                          \
        __VA_ARGS__;                                                                               \
        NEXT;                                                                                      \
    }

#define AMO(name, type, function)                                                                  \
    ATOMIC(name, type, ACCESS_STORE, LOADS | STORES,                                               \
           RD = (uint64_t)(int64_t)function(pointer, (type)RS2, __ATOMIC_SEQ_CST))

#define AMO_CHOOSE(name, type, chosen)                                                             \
    ATOMIC(name, type, ACCESS_STORE, LOADS | STORES, type operand = (type)RS2;                     \
           type old = __atomic_load_n(pointer, __ATOMIC_RELAXED);                                  \
           while (!__atomic_compare_exchange_n(pointer, &old, (chosen), false, __ATOMIC_SEQ_CST,   \
                                               __ATOMIC_RELAXED));                                 \
           RD = sign_extend((uint64_t)old, 8 * sizeof(type)))

#define AMO_CAS(name, type)                                                                        \
    ATOMIC(name, type, ACCESS_STORE, LOADS | STORES, type old = insn->rd == 32 ? 0 : (type)RD;     \
           __atomic_compare_exchange_n(pointer, &old, (type)RS2, false, __ATOMIC_SEQ_CST,          \
                                       __ATOMIC_SEQ_CST);                                          \
           RD = (uint64_t)(int64_t)old)

#define LR(name, type)                                                                             \
    ATOMIC(name, type, ACCESS_LOAD, LOADS, type old = __atomic_load_n(pointer, __ATOMIC_SEQ_CST);  \
           reservation_drop(hart); hart->reservation_address = va;                                 \
           hart->reservation_value = (uint64_t)(int64_t)old;                                       \
           hart->reservation_size = sizeof(type); hart->reservation_pc = PC();                     \
           hart->reservation_exposed = false; RD = (uint64_t)(int64_t)old;                         \
           if (WATCHES) labels = reserved)

/* Whether the memory still holds what LR loaded decides; reservation.c tells why that is enough. */
#define SC(name, type)                                                                             \
    ATOMIC(name, type, ACCESS_STORE, STORES, type old = (type)hart->reservation_value;             \
           bool stored = reservation_claim(hart, va, sizeof(type)) &&                              \
                         __atomic_compare_exchange_n(pointer, &old, (type)RS2, false,              \
                                                     __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);          \
           reservation_drop(hart); RD = !stored;                                                   \
           if (WATCHES) labels = mode == MODE_RUN ? run : step)

#define CSR(name, operation, operand, writes)                                                      \
    do_##name:                                                                                     \
    {                                                                                              \
        uint64_t old;                                                                              \
        SYNC();                                                                                    \
        enum csr_result result = csr_execute(hart, insn->imm, operation, operand, writes, &old);   \
        if (result == CSR_ILLEGAL)                                                                 \
            goto illegal;                                                                          \
        RD = old;                                                                                  \
        if (result == CSR_REENTER)                                                                 \
            goto next_enter;                                                                       \
        NEXT;                                                                                      \
    }

/* Floating point. GET unboxes, PUT boxes; instructions that write an f register make FS dirty,
 * those that only raise flags when they do. */
#define FP_ENABLED()                                                                               \
    if (unlikely(!(hart->mstatus & MSTATUS_FS)))                                                   \
        goto illegal;
#define FP_DIRTY()    (hart->mstatus |= MSTATUS_FS)
#define GET(s, field) fp_unbox_##s(hart->f[insn->field])
#define PUT(s, value) (hart->f[insn->rd] = (value) | FP_BOX_##s, FP_DIRTY())
#define FLAGS         (&hart->fflags)
#define ROUND()                                                                                    \
    unsigned rm = insn->rm == 7 ? hart->frm : insn->rm;                                            \
    if (unlikely(rm > FP_RMM))                                                                     \
        goto illegal;

#define FP_MOVE(name, ...)    OP(name, FP_ENABLED() __VA_ARGS__)
#define FP_ROUNDED(name, ...) OP(name, FP_ENABLED() ROUND() __VA_ARGS__)
#define FP_TO_X(name, round, ...)                                                                  \
    OP(name, FP_ENABLED() round unsigned before = hart->fflags; RD = __VA_ARGS__;                  \
       if (hart->fflags != before) FP_DIRTY())

/* What every format has. */
#define FP_FORMAT(s, format)                                                                       \
    FP_ROUNDED(fadd_##s, PUT(s, fp_add(format, GET(s, rs1), GET(s, rs2), rm, FLAGS)))              \
    FP_ROUNDED(fsub_##s, PUT(s, fp_sub(format, GET(s, rs1), GET(s, rs2), rm, FLAGS)))              \
    FP_ROUNDED(fmul_##s, PUT(s, fp_mul(format, GET(s, rs1), GET(s, rs2), rm, FLAGS)))              \
    FP_ROUNDED(fdiv_##s, PUT(s, fp_div(format, GET(s, rs1), GET(s, rs2), rm, FLAGS)))              \
    FP_ROUNDED(fsqrt_##s, PUT(s, fp_sqrt(format, GET(s, rs1), rm, FLAGS)))                         \
    FP_ROUNDED(fmadd_##s,                                                                          \
               PUT(s, fp_fma(format, GET(s, rs1), GET(s, rs2), GET(s, rs3), rm, FLAGS)))           \
    FP_ROUNDED(fmsub_##s, PUT(s, fp_fma(format, GET(s, rs1), GET(s, rs2),                          \
                                        GET(s, rs3) ^ fp_sign_mask(format), rm, FLAGS)))           \
    FP_ROUNDED(fnmsub_##s, PUT(s, fp_fma(format, GET(s, rs1) ^ fp_sign_mask(format), GET(s, rs2),  \
                                         GET(s, rs3), rm, FLAGS)))                                 \
    FP_ROUNDED(fnmadd_##s, PUT(s, fp_fma(format, GET(s, rs1) ^ fp_sign_mask(format), GET(s, rs2),  \
                                         GET(s, rs3) ^ fp_sign_mask(format), rm, FLAGS)))          \
    FP_MOVE(fsgnj_##s,                                                                             \
            PUT(s, (GET(s, rs1) & ~fp_sign_mask(format)) | (GET(s, rs2) & fp_sign_mask(format))))  \
    FP_MOVE(fsgnjn_##s,                                                                            \
            PUT(s, (GET(s, rs1) & ~fp_sign_mask(format)) | (~GET(s, rs2) & fp_sign_mask(format)))) \
    FP_MOVE(fsgnjx_##s, PUT(s, GET(s, rs1) ^ (GET(s, rs2) & fp_sign_mask(format))))                \
    FP_MOVE(fmin_##s, PUT(s, fp_min(format, GET(s, rs1), GET(s, rs2), FLAGS)))                     \
    FP_MOVE(fmax_##s, PUT(s, fp_max(format, GET(s, rs1), GET(s, rs2), FLAGS)))                     \
    FP_TO_X(feq_##s, , fp_eq(format, GET(s, rs1), GET(s, rs2), FLAGS))                             \
    FP_TO_X(flt_##s, , fp_lt(format, GET(s, rs1), GET(s, rs2), FLAGS))                             \
    FP_TO_X(fle_##s, , fp_le(format, GET(s, rs1), GET(s, rs2), FLAGS))                             \
    FP_TO_X(fclass_##s, , fp_classify(format, GET(s, rs1)))                                        \
    FP_TO_X(fcvt_w_##s, ROUND(), fp_to_int(format, GET(s, rs1), 32, true, rm, FLAGS))              \
    FP_TO_X(fcvt_wu_##s, ROUND(), fp_to_int(format, GET(s, rs1), 32, false, rm, FLAGS))            \
    FP_TO_X(fcvt_l_##s, ROUND(), fp_to_int(format, GET(s, rs1), 64, true, rm, FLAGS))              \
    FP_TO_X(fcvt_lu_##s, ROUND(), fp_to_int(format, GET(s, rs1), 64, false, rm, FLAGS))            \
    FP_ROUNDED(fcvt_##s##_w, PUT(s, fp_from_int64(format, (int32_t)RS1, rm, FLAGS)))               \
    FP_ROUNDED(fcvt_##s##_wu, PUT(s, fp_from_uint64(format, (uint32_t)RS1, rm, FLAGS)))            \
    FP_ROUNDED(fcvt_##s##_l, PUT(s, fp_from_int64(format, (int64_t)RS1, rm, FLAGS)))               \
    FP_ROUNDED(fcvt_##s##_lu, PUT(s, fp_from_uint64(format, RS1, rm, FLAGS)))

#define FP_CONVERT(to, to_format, from, from_format)                                               \
    FP_ROUNDED(fcvt_##to##_##from,                                                                 \
               PUT(to, fp_convert(to_format, from_format, GET(from, rs1), rm, FLAGS)))

/* --- The engine ------------------------------------------------------------------------------ */

/* MODE_ONE: true if execution goes on at the next instruction, without fetching anew. */
static __attribute__((noinline)) bool execute(struct hart *hart, enum mode mode)
{
    static const void *const run[CODE_OPS] = {
        [CODE_UNDECODED] = &&do_undecoded, [CODE_ILLEGAL] = &&illegal,
        [CODE_STRADDLES] = &&do_straddles, [CODE_END] = &&do_end,
        [CODE_BREAK] = &&do_break,
#define INSN(id, mnemonic, mask, match, format, extension, flags) [INSN_##id] = &&do_##id,
#include "isa/instructions.def"
    };
    static const void *const trace[CODE_OPS] = {[0 ... CODE_OPS - 1] = &&trace};
    static const void *const step[CODE_OPS] = {[0 ... CODE_OPS - 1] = &&stepped};
    static const void *reserved[CODE_OPS];
    static atomic_bool reserved_made;
    static const void *const *const tables[] = {run, trace, step, step, run};

    if (!atomic_load_explicit(&reserved_made, memory_order_acquire)) {
        /* Several harts may do this at once: they write the same values. */
        for (unsigned op = 0; op < CODE_OPS; op++)
            __atomic_store_n(&reserved[op], reservation_exposes[op] ? &&expose : run[op],
                             __ATOMIC_RELAXED);
        atomic_store_explicit(&reserved_made, true, memory_order_release);
    }

    const void *const *labels = tables[mode];
    const struct code_slot *insn;
    const struct code_slot *slots; /* of the page that insn is in */
    uint64_t page_va;              /* of slots[0] */
    uint64_t count;                /* hart->instret while it is not in sync */
    bool entered = false, completed = false;

    if (mode >= MODE_ONE)
        goto single;
    guest_enter(hart);

enter: {
    if (mode != MODE_RUN) {
        if (mode == MODE_TRACE && hart->private->trace_open)
            exec_trace_end(hart, false);
        if ((mode == MODE_STEP && entered) || mode == MODE_ONE)
            goto leave;
        if (mode == MODE_RESERVED && !reservation_watched(hart))
            goto leave;
        entered = true;
    }
    if (unlikely(atomic_load_explicit(&hart->attention, memory_order_relaxed))) {
        enum attended attended = hart_attend(hart);
        if (attended == ATTENDED_STOP && mode == MODE_RESERVED)
            atomic_fetch_or(&hart->attention, ATTENTION_STOP);
        if (attended == ATTENDED_STOP || (attended == ATTENDED_TRAP && mode == MODE_STEP))
            goto leave;
    }
    count = hart->instret;
    uint64_t pc = hart->pc;
    const struct tlb_entry *entry = tlb_entry_of(hart->fetch_tlb, pc);
    struct code_page *page;
    if (likely(entry->tag[ACCESS_FETCH] == (pc & PAGE_MASK))) {
        page = code_find(&hart->private->code, (const uint8_t *)((pc & PAGE_MASK) + entry->addend));
    } else {
        bool single;
        page = mmu_fetch(hart, pc, &single);
        if (!page) {
            if (!single || (unlikely(hart->points) && mode != MODE_STEP &&
                            engine_break(hart) == DEBUG_BREAK_STOP))
                goto enter;
            goto single;
        }
    }
    slots = page->slots;
    page_va = pc & PAGE_MASK;
    insn = slots + (pc - page_va) / 2;
    if (!WATCHES)
        goto first;
    goto *labels[insn->op];
}

single:
    slots = insn = hart->private->single;
    page_va = hart->pc;
    count = hart->instret;
    if (!WATCHES)
        goto first;
    goto *labels[insn->op];

first: /* of a step, or with tracing */
    if (mode == MODE_TRACE)
        goto trace;
    if (insn->op == CODE_UNDECODED)
        code_decode(hart, container_of(slots, struct code_page, slots[0]),
                    (struct code_slot *)insn);
    if (reservation_is_exposed_by(hart, insn->op))
        hart->reservation_exposed = true;
    goto *run[insn->op];

attention:
    SYNC();
    if (mode == MODE_TRACE)
        exec_trace_end(hart, true);
    goto enter;

next_accessed: /* the same, and nothing else has changed */
    completed = true;

next_enter: /* hart->pc is that of insn, which is done */
    hart->pc += insn->advance / (sizeof(*insn) / 2);
    hart->instret++;
    if (mode == MODE_TRACE)
        exec_trace_end(hart, true);
    goto enter;

branch_far: {
    uint64_t target = PC() + IMM;
    if (unlikely(target & hart->private->jump_mask)) {
        SYNC();
        hart_trap(hart, TRAP_FETCH_MISALIGNED, target);
        goto enter;
    }
    count++;
    hart->pc = target;
    hart->instret = count;
    if (mode == MODE_TRACE)
        exec_trace_end(hart, true);
    goto enter;
}

illegal:
    SYNC();
    hart_trap(hart, TRAP_ILLEGAL, slot_bits(hart, slots, insn));
    goto enter;

do_undecoded:
    code_decode(hart, container_of(slots, struct code_page, slots[0]), (struct code_slot *)insn);
    goto *(WATCHES ? labels : run)[insn->op];

do_straddles:
    SYNC();
    if (!mmu_fetch_single(hart, hart->pc))
        goto enter;
    goto single;

do_end:
    SYNC();
    goto enter;

do_break:
    SYNC();
    if (mode != MODE_STEP && engine_break(hart) == DEBUG_BREAK_STOP)
        goto enter;
    if (!mmu_fetch_single(hart, hart->pc))
        goto enter;
    goto single;

stepped:
    SYNC();
    completed = true;
    goto leave;

trace:
    if (hart->private->trace_open)
        exec_trace_end(hart, true);
    if (insn->op == CODE_UNDECODED)
        code_decode(hart, container_of(slots, struct code_page, slots[0]),
                    (struct code_slot *)insn);
    if (insn->op == CODE_STRADDLES || insn->op == CODE_END || insn->op == CODE_BREAK)
        goto *run[insn->op];
    if (reservation_is_exposed_by(hart, insn->op)) {
        SYNC();
        reservation_expose(hart);
        goto enter;
    }
    exec_trace_begin(hart, PC(), slot_bits(hart, slots, insn));
    goto *run[insn->op];

expose:
    labels = run;
    if (!reservation_is_exposed_by(hart, insn->op))
        goto *labels[insn->op];
    SYNC();
    reservation_expose(hart);
    goto enter;

    /* clang-format off */

    /* RV64I */
    OP(lui,     RD = IMM)
    OP(auipc,   RD = page_va + IMM) /* code.c added the offset in the page */
    OP(addi,    RD = RS1 + IMM)
    OP(slti,    RD = (int64_t)RS1 < IMM)
    OP(sltiu,   RD = RS1 < (uint64_t)IMM)
    OP(xori,    RD = RS1 ^ IMM)
    OP(ori,     RD = RS1 | IMM)
    OP(andi,    RD = RS1 & IMM)
    OP(slli,    RD = RS1 << insn->imm)
    OP(srli,    RD = RS1 >> insn->imm)
    OP(srai,    RD = (int64_t)RS1 >> insn->imm)
    OP(add,     RD = RS1 + RS2)
    OP(sub,     RD = RS1 - RS2)
    OP(sll,     RD = RS1 << (RS2 & 63))
    OP(slt,     RD = (int64_t)RS1 < (int64_t)RS2)
    OP(sltu,    RD = RS1 < RS2)
    OP(xor,     RD = RS1 ^ RS2)
    OP(srl,     RD = RS1 >> (RS2 & 63))
    OP(sra,     RD = (int64_t)RS1 >> (RS2 & 63))
    OP(or,      RD = RS1 | RS2)
    OP(and,     RD = RS1 & RS2)
    OP(addiw,   RD = (int32_t)((uint32_t)RS1 + (uint32_t)insn->imm))
    OP(slliw,   RD = (int32_t)((uint32_t)RS1 << insn->imm))
    OP(srliw,   RD = (int32_t)((uint32_t)RS1 >> insn->imm))
    OP(sraiw,   RD = (int32_t)RS1 >> insn->imm)
    OP(addw,    RD = (int32_t)((uint32_t)RS1 + (uint32_t)RS2))
    OP(subw,    RD = (int32_t)((uint32_t)RS1 - (uint32_t)RS2))
    OP(sllw,    RD = (int32_t)((uint32_t)RS1 << (RS2 & 31)))
    OP(srlw,    RD = (int32_t)((uint32_t)RS1 >> (RS2 & 31)))
    OP(sraw,    RD = (int32_t)RS1 >> (RS2 & 31))

    BRANCH(beq,  RS1 == RS2)
    BRANCH(bne,  RS1 != RS2)
    BRANCH(blt,  (int64_t)RS1 < (int64_t)RS2)
    BRANCH(bge,  (int64_t)RS1 >= (int64_t)RS2)
    BRANCH(bltu, RS1 < RS2)
    BRANCH(bgeu, RS1 >= RS2)

    LOAD(lb,  int8_t,   , RD = value)
    LOAD(lh,  int16_t,  , RD = value)
    LOAD(lw,  int32_t,  , RD = value)
    LOAD(ld,  uint64_t, , RD = value)
    LOAD(lbu, uint8_t,  , RD = value)
    LOAD(lhu, uint16_t, , RD = value)
    LOAD(lwu, uint32_t, , RD = value)
    STORE(sb, uint8_t,  , RS2)
    STORE(sh, uint16_t, , RS2)
    STORE(sw, uint32_t, , RS2)
    STORE(sd, uint64_t, , RS2)

    OP(fence,     fence(insn->imm >> 4 & 15, insn->imm & 15))
    OP(fence_tso, atomic_thread_fence(memory_order_acq_rel))
    OP(pause,     interrupt_pause(hart))

    /* M */
    OP(mul,    RD = RS1 * RS2)
    OP(mulh,   RD = alu_mulh(RS1, RS2))
    OP(mulhsu, RD = alu_mulhsu(RS1, RS2))
    OP(mulhu,  RD = alu_mulhu(RS1, RS2))
    OP(div,    RD = alu_div(RS1, RS2))
    OP(divu,   RD = alu_divu(RS1, RS2))
    OP(rem,    RD = alu_rem(RS1, RS2))
    OP(remu,   RD = alu_remu(RS1, RS2))
    OP(mulw,   RD = (int32_t)((uint32_t)RS1 * (uint32_t)RS2))
    OP(divw,   RD = alu_divw(RS1, RS2))
    OP(divuw,  RD = (int32_t)alu_divuw(RS1, RS2))
    OP(remw,   RD = alu_remw(RS1, RS2))
    OP(remuw,  RD = (int32_t)alu_remuw(RS1, RS2))

    /* A, Zacas */
    LR(lr_w, int32_t)
    LR(lr_d, int64_t)
    SC(sc_w, uint32_t)
    SC(sc_d, uint64_t)
    AMO(amoswap_w, int32_t, __atomic_exchange_n)
    AMO(amoadd_w,  int32_t, __atomic_fetch_add)
    AMO(amoxor_w,  int32_t, __atomic_fetch_xor)
    AMO(amoand_w,  int32_t, __atomic_fetch_and)
    AMO(amoor_w,   int32_t, __atomic_fetch_or)
    AMO(amoswap_d, int64_t, __atomic_exchange_n)
    AMO(amoadd_d,  int64_t, __atomic_fetch_add)
    AMO(amoxor_d,  int64_t, __atomic_fetch_xor)
    AMO(amoand_d,  int64_t, __atomic_fetch_and)
    AMO(amoor_d,   int64_t, __atomic_fetch_or)
    AMO_CHOOSE(amomin_w,  int32_t,  old < operand ? old : operand)
    AMO_CHOOSE(amomax_w,  int32_t,  old > operand ? old : operand)
    AMO_CHOOSE(amominu_w, uint32_t, old < operand ? old : operand)
    AMO_CHOOSE(amomaxu_w, uint32_t, old > operand ? old : operand)
    AMO_CHOOSE(amomin_d,  int64_t,  old < operand ? old : operand)
    AMO_CHOOSE(amomax_d,  int64_t,  old > operand ? old : operand)
    AMO_CHOOSE(amominu_d, uint64_t, old < operand ? old : operand)
    AMO_CHOOSE(amomaxu_d, uint64_t, old > operand ? old : operand)
    AMO_CAS(amocas_w, int32_t)
    AMO_CAS(amocas_d, int64_t)
    ATOMIC(amocas_q, unsigned __int128, ACCESS_STORE, LOADS | STORES,
        unsigned __int128 old = 0;
        unsigned __int128 desired = 0;
        if (insn->rd != 32) old = (unsigned __int128)hart->x[insn->rd + 1] << 64 | RD;
        if (insn->rs2) desired = (unsigned __int128)hart->x[insn->rs2 + 1] << 64 | RS2;
        compare_exchange_16(pointer, &old, desired);
        if (insn->rd != 32) {
            RD = (uint64_t)old;
            hart->x[insn->rd + 1] = (uint64_t)(old >> 64);
        })
    OP_REENTER(wrs_nto, interrupt_reservation_wait(hart))
    OP_REENTER(wrs_sto, interrupt_reservation_wait(hart))

    /* Zba, Zbb, Zbkb */
    OP(add_uw,    RD = (uint32_t)RS1 + RS2)
    OP(sh1add,    RD = (RS1 << 1) + RS2)
    OP(sh2add,    RD = (RS1 << 2) + RS2)
    OP(sh3add,    RD = (RS1 << 3) + RS2)
    OP(sh1add_uw, RD = ((uint64_t)(uint32_t)RS1 << 1) + RS2)
    OP(sh2add_uw, RD = ((uint64_t)(uint32_t)RS1 << 2) + RS2)
    OP(sh3add_uw, RD = ((uint64_t)(uint32_t)RS1 << 3) + RS2)
    OP(slli_uw,   RD = (uint64_t)(uint32_t)RS1 << insn->imm)
    OP(andn,      RD = RS1 & ~RS2)
    OP(orn,       RD = RS1 | ~RS2)
    OP(xnor,      RD = ~(RS1 ^ RS2))
    OP(clz,       RD = alu_clz(RS1))
    OP(ctz,       RD = alu_ctz(RS1))
    OP(cpop,      RD = __builtin_popcountll(RS1))
    OP(clzw,      RD = alu_clzw(RS1))
    OP(ctzw,      RD = alu_ctzw(RS1))
    OP(cpopw,     RD = __builtin_popcount((uint32_t)RS1))
    OP(max,       RD = (int64_t)RS1 > (int64_t)RS2 ? RS1 : RS2)
    OP(maxu,      RD = RS1 > RS2 ? RS1 : RS2)
    OP(min,       RD = (int64_t)RS1 < (int64_t)RS2 ? RS1 : RS2)
    OP(minu,      RD = RS1 < RS2 ? RS1 : RS2)
    OP(sext_b,    RD = (int8_t)RS1)
    OP(sext_h,    RD = (int16_t)RS1)
    OP(zext_h,    RD = (uint16_t)RS1)
    OP(rol,       RD = alu_rol(RS1, RS2))
    OP(rolw,      RD = alu_rolw(RS1, RS2))
    OP(ror,       RD = alu_ror(RS1, RS2))
    OP(rorw,      RD = alu_rorw(RS1, RS2))
    OP(rori,      RD = alu_ror(RS1, insn->imm))
    OP(roriw,     RD = alu_rorw(RS1, insn->imm))
    OP(orc_b,     RD = alu_orc_b(RS1))
    OP(rev8,      RD = __builtin_bswap64(RS1))
    OP(pack,      RD = (uint32_t)RS1 | RS2 << 32)
    OP(packh,     RD = (RS1 & 0xff) | (RS2 & 0xff) << 8)
    OP(packw,     RD = (int32_t)((RS1 & 0xffff) | (uint32_t)RS2 << 16))
    OP(brev8,     RD = alu_brev8(RS1))

    /* Zbc, Zbkx, Zbs, Zicond */
    OP(clmul,     RD = alu_clmul(RS1, RS2))
    OP(clmulr,    RD = alu_clmulr(RS1, RS2))
    OP(clmulh,    RD = alu_clmulh(RS1, RS2))
    OP(xperm4,    RD = alu_xperm4(RS1, RS2))
    OP(xperm8,    RD = alu_xperm8(RS1, RS2))
    OP(bclr,      RD = RS1 & ~BIT(RS2 & 63))
    OP(bext,      RD = RS1 >> (RS2 & 63) & 1)
    OP(binv,      RD = RS1 ^ BIT(RS2 & 63))
    OP(bset,      RD = RS1 | BIT(RS2 & 63))
    OP(bclri,     RD = RS1 & ~BIT(insn->imm))
    OP(bexti,     RD = RS1 >> insn->imm & 1)
    OP(binvi,     RD = RS1 ^ BIT(insn->imm))
    OP(bseti,     RD = RS1 | BIT(insn->imm))
    OP(czero_eqz, RD = RS2 == 0 ? 0 : RS1)
    OP(czero_nez, RD = RS2 != 0 ? 0 : RS1)

    /* F, D, Zfh */
    FP_FORMAT(s, &fp_single)
    FP_FORMAT(d, &fp_double)
    FP_FORMAT(h, &fp_half)
    FP_CONVERT(s, &fp_single, d, &fp_double)
    FP_CONVERT(d, &fp_double, s, &fp_single)
    FP_CONVERT(s, &fp_single, h, &fp_half)
    FP_CONVERT(h, &fp_half, s, &fp_single)
    FP_CONVERT(d, &fp_double, h, &fp_half)
    FP_CONVERT(h, &fp_half, d, &fp_double)
    FP_MOVE(fmv_x_h, RD = (int16_t)hart->f[insn->rs1])
    FP_MOVE(fmv_x_w, RD = (int32_t)hart->f[insn->rs1])
    FP_MOVE(fmv_x_d, RD = hart->f[insn->rs1])
    FP_MOVE(fmv_h_x, PUT(h, (uint16_t)RS1))
    FP_MOVE(fmv_w_x, PUT(s, (uint32_t)RS1))
    FP_MOVE(fmv_d_x, PUT(d, RS1))
    LOAD(flh, uint16_t, FP_ENABLED(), PUT(h, value))
    LOAD(flw, uint32_t, FP_ENABLED(), PUT(s, value))
    LOAD(fld, uint64_t, FP_ENABLED(), PUT(d, value))
    STORE(fsh, uint16_t, FP_ENABLED(), hart->f[insn->rs2])
    STORE(fsw, uint32_t, FP_ENABLED(), hart->f[insn->rs2])
    STORE(fsd, uint64_t, FP_ENABLED(), hart->f[insn->rs2])

    /* Zicsr */
    CSR(csrrw,  CSR_WRITE, RS1, true)
    CSR(csrrs,  CSR_SET,   RS1, insn->rs1 != 0)
    CSR(csrrc,  CSR_CLEAR, RS1, insn->rs1 != 0)
    CSR(csrrwi, CSR_WRITE, insn->rs1, true)
    CSR(csrrsi, CSR_SET,   insn->rs1, insn->rs1 != 0)
    CSR(csrrci, CSR_CLEAR, insn->rs1, insn->rs1 != 0)

    /* Zicbom, Zicbop, Zicboz: memory is coherent, so only permissions matter. */
    OP_REENTER(cbo_inval,
        if (!block_allowed(hart, ENVCFG_CBIE)) goto illegal;
        if (!mmu_block_manage(hart, RS1)) goto enter)
    OP_REENTER(cbo_clean,
        if (!block_allowed(hart, ENVCFG_CBCFE)) goto illegal;
        if (!mmu_block_manage(hart, RS1)) goto enter)
    OP_REENTER(cbo_flush,
        if (!block_allowed(hart, ENVCFG_CBCFE)) goto illegal;
        if (!mmu_block_manage(hart, RS1)) goto enter)
    do_cbo_zero:
    {
        if (!block_allowed(hart, ENVCFG_CBZE)) goto illegal;
        SYNC();
        if (!mmu_block_zero(hart, RS1)) goto enter;
        goto next_enter;
    }
    OP(prefetch_i, )
    OP(prefetch_r, )
    OP(prefetch_w, )

    /* Privileged and fences of translations and code */
    OP_REENTER(fence_i, hart_fence_i(hart))
    OP_REENTER(sfence_vma,
        if (!translation_fence_allowed(hart)) goto illegal;
        hart_sfence(hart, insn->rs1 ? RS1 : 0, insn->rs1 ? 1 : UINT64_MAX,
                    insn->rs2 ? RS2 & 0xffff : UINT64_MAX))
    OP_REENTER(sinval_vma,
        if (!translation_fence_allowed(hart)) goto illegal;
        hart_sfence(hart, insn->rs1 ? RS1 : 0, insn->rs1 ? 1 : UINT64_MAX,
                    insn->rs2 ? RS2 & 0xffff : UINT64_MAX))
    OP_REENTER(sfence_w_inval, if (hart->privilege == PRIVILEGE_USER) goto illegal)
    OP_REENTER(sfence_inval_ir, if (hart->privilege == PRIVILEGE_USER) goto illegal)
    OP_REENTER(wfi,
        if (hart->privilege == PRIVILEGE_USER ||
            (hart->privilege == PRIVILEGE_SUPERVISOR && (hart->mstatus & MSTATUS_TW)))
            goto illegal;
        if (unlikely(hart->points) && debug_before(hart, HART_STOP_WAIT)) goto enter;
        reservation_drop(hart);
        hart_wait(hart))

    /* clang-format on */

do_jal: {
    uint64_t link = PC() + insn->advance / (sizeof(*insn) / 2);
    if (likely(!insn->far)) {
        RD = link;
        count++;
        insn = (const struct code_slot *)((const char *)insn + insn->imm);
        if (unlikely(atomic_load_explicit(&hart->attention, memory_order_relaxed)))
            goto attention;
        goto *labels[insn->op];
    }
    if (unlikely((PC() + IMM) & hart->private->jump_mask))
        goto branch_far; /* which traps */
    RD = link;
    goto branch_far;
}

do_jalr: {
    uint64_t target = (RS1 + IMM) & ~UINT64_C(1);
    if (unlikely(target & hart->private->jump_mask)) {
        SYNC();
        hart_trap(hart, TRAP_FETCH_MISALIGNED, target);
        goto enter;
    }
    RD = PC() + insn->advance / (sizeof(*insn) / 2);
    count++;
    if (target - page_va < PAGE_SIZE && slots != hart->private->single &&
        likely(!atomic_load_explicit(&hart->attention, memory_order_relaxed))) {
        insn = slots + (target - page_va) / 2;
        goto *labels[insn->op];
    }
    hart->pc = target;
    hart->instret = count;
    if (mode == MODE_TRACE)
        exec_trace_end(hart, true);
    goto enter;
}

do_ecall:
    SYNC();
    trap_environment_call(hart);
    goto enter;

do_ebreak:
    SYNC();
    if (trap_breakpoint(hart))
        goto next_enter;
    goto enter;

do_mret:
    SYNC();
    if (!trap_return_machine(hart))
        goto illegal;
    hart->instret++;
    goto enter;

do_sret:
    SYNC();
    if (!trap_return_supervisor(hart))
        goto illegal;
    hart->instret++;
    goto enter;

leave:
    if (mode < MODE_ONE)
        guest_leave(hart);
    return completed;
}

void hart_interpret(struct hart *hart)
{
    /* What is executed while a reservation is held must be watched from its LR on. */
    reservation_drop(hart);
    execute(hart, trace_on(TRACE_EXEC) ? MODE_TRACE : MODE_RUN);
    reservation_leave(hart);
}

void hart_step(struct hart *hart)
{
    hart->private->stepping = true;
    execute(hart, MODE_STEP);
    hart->private->stepping = false;
}

/* --- One at a time --------------------------------------------------------------------------- */

bool interpret_single(struct hart *hart)
{
    unsigned op = hart->private->single[0].op;
    if (op != INSN_lr_w && op != INSN_lr_d)
        return execute(hart, MODE_ONE);
    execute(hart, MODE_RESERVED); /* goes on, to wherever */
    return false;
}
