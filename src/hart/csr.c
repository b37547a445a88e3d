/* Control and status registers: access rules, and the registers that are more than storage. */
#include "hart/internal.h"

/* What else than privilege an access may need. */
enum guard {
    GUARD_NONE,
    GUARD_FP,       /* mstatus.FS is not off */
    GUARD_COUNTER,  /* mcounteren and scounteren */
    GUARD_TVM,      /* satp: mstatus.TVM is clear in S-mode */
    GUARD_STIMECMP, /* menvcfg.STCE and mcounteren.TM in S-mode */
    GUARD_ENVCFG,   /* mstateen0.ENVCFG in S-mode */
    GUARD_STATEEN,  /* mstateenN.SE in S-mode */
    GUARD_CSRIND,   /* the AIA's, with bits of mstateen0 in S-mode: siselect, */
    GUARD_SIREG,    /* also a register behind it, */
    GUARD_MIREG,
    GUARD_STOPEI, /* an interrupt file, */
    GUARD_MTOPEI,
    GUARD_STOPI,
};

#define STATEEN_IMSIC  BIT(58)
#define STATEEN_AIA    BIT(59)
#define STATEEN_CSRIND BIT(60)
#define STATEEN_ENVCFG BIT(62)
#define STATEEN_SE     BIT(63)

#define AIA_SELECT 0xfff /* the bits of miselect and siselect */

#define CSR_MIP      0x344
#define COUNTEREN_TM BIT(1)

struct csr_row {
    struct csr csr;
    uint8_t extension; /* enum isa_extension */
    uint8_t guard;
    uint16_t offset; /* of the storage in struct hart, if there are no functions */
    uint64_t mask;   /* its writable bits */
    uint64_t (*read)(struct hart *hart, unsigned number);
    void (*write)(struct hart *hart, unsigned number, uint64_t value);
};

static uint64_t read_zero(struct hart *hart, unsigned number)
{
    return 0;
}

static void write_nothing(struct hart *hart, unsigned number, uint64_t value)
{
}

static bool has(const struct hart *hart, enum isa_extension extension)
{
    return isa_extensions_test(&hart->extensions, extension);
}

/* --- Floating point -------------------------------------------------------------------------- */

static uint64_t read_fflags(struct hart *hart, unsigned number)
{
    return hart->fflags;
}

static uint64_t read_frm(struct hart *hart, unsigned number)
{
    return hart->frm;
}

static uint64_t read_fcsr(struct hart *hart, unsigned number)
{
    return hart->frm << 5 | hart->fflags;
}

static void write_fflags(struct hart *hart, unsigned number, uint64_t value)
{
    hart->fflags = value & 31;
    hart->mstatus |= MSTATUS_FS;
}

static void write_frm(struct hart *hart, unsigned number, uint64_t value)
{
    hart->frm = value & 7;
    hart->mstatus |= MSTATUS_FS;
}

static void write_fcsr(struct hart *hart, unsigned number, uint64_t value)
{
    write_fflags(hart, number, value);
    write_frm(hart, number, value >> 5);
}

/* --- Status ---------------------------------------------------------------------------------- */

#define SSTATUS_WRITABLE                                                                           \
    (MSTATUS_SIE | MSTATUS_SPIE | MSTATUS_SPP | MSTATUS_FS | MSTATUS_SUM | MSTATUS_MXR)
#define SSTATUS_READABLE (SSTATUS_WRITABLE | MSTATUS_UXL | MSTATUS_SD)
#define MSTATUS_WRITABLE                                                                           \
    (SSTATUS_WRITABLE | MSTATUS_MIE | MSTATUS_MPIE | MSTATUS_MPP | MSTATUS_MPRV | MSTATUS_TVM |    \
     MSTATUS_TW | MSTATUS_TSR)

static uint64_t read_mstatus(struct hart *hart, unsigned number)
{
    bool dirty = (hart->mstatus & MSTATUS_FS) == MSTATUS_FS;
    return hart->mstatus | (dirty ? MSTATUS_SD : 0);
}

static uint64_t read_sstatus(struct hart *hart, unsigned number)
{
    return read_mstatus(hart, number) & SSTATUS_READABLE;
}

static void status_write(struct hart *hart, uint64_t value, uint64_t writable)
{
    if (!has(hart, ISA_EXT_F))
        writable &= ~MSTATUS_FS;
    if (bits_get(value, MSTATUS_MPP_SHIFT, 2) == 2) /* no such privilege */
        writable &= ~MSTATUS_MPP;
    uint64_t old = hart->mstatus;
    hart->mstatus = (old & ~writable) | (value & writable);
    if ((old ^ hart->mstatus) & (MSTATUS_MPRV | MSTATUS_MPP | MSTATUS_SUM | MSTATUS_MXR))
        mmu_context_changed(hart);
    interrupt_update(hart);
}

static void write_mstatus(struct hart *hart, unsigned number, uint64_t value)
{
    status_write(hart, value, MSTATUS_WRITABLE);
}

static void write_sstatus(struct hart *hart, unsigned number, uint64_t value)
{
    status_write(hart, value, SSTATUS_WRITABLE);
}

static uint64_t read_mhartid(struct hart *hart, unsigned number)
{
    return hart->id;
}

/* --- Interrupts ------------------------------------------------------------------------------ */

#define S_INTERRUPTS (BIT(INTERRUPT_SSI) | BIT(INTERRUPT_STI) | BIT(INTERRUPT_SEI))
#define M_INTERRUPTS (BIT(INTERRUPT_MSI) | BIT(INTERRUPT_MTI) | BIT(INTERRUPT_MEI))

/* The counter overflow interrupt, where it exists. */
static uint64_t overflow_interrupt(const struct hart *hart)
{
    return has(hart, ISA_EXT_SSCOFPMF) ? BIT(INTERRUPT_LCOFI) : 0;
}

static uint64_t read_mideleg(struct hart *hart, unsigned number)
{
    return hart->mideleg;
}

static void write_mideleg(struct hart *hart, unsigned number, uint64_t value)
{
    hart->mideleg = value & (S_INTERRUPTS | overflow_interrupt(hart));
    interrupt_update(hart);
}

static void mie_write(struct hart *hart, uint64_t value, uint64_t writable)
{
    hart->mie = (hart->mie & ~writable) | (value & writable);
    interrupt_update(hart);
}

static uint64_t read_mie(struct hart *hart, unsigned number)
{
    return hart->mie;
}

static void write_mie(struct hart *hart, unsigned number, uint64_t value)
{
    mie_write(hart, value, S_INTERRUPTS | M_INTERRUPTS | overflow_interrupt(hart));
}

/* Those of S-mode that are neither mie's nor mip's: the AIA's virtual ones. */
static uint64_t virtual_interrupts(const struct hart *hart)
{
    return hart->mvien & ~hart->mideleg;
}

static uint64_t read_sie(struct hart *hart, unsigned number)
{
    return (hart->mie & hart->mideleg) | (hart->sie_virtual & virtual_interrupts(hart));
}

static void write_sie(struct hart *hart, unsigned number, uint64_t value)
{
    uint64_t virtual = virtual_interrupts(hart);
    hart->sie_virtual = (hart->sie_virtual & ~virtual) | (value & virtual);
    mie_write(hart, value, hart->mideleg);
}

static uint64_t read_mip(struct hart *hart, unsigned number)
{
    interrupt_sources_update(hart);
    return interrupt_mip(hart);
}

static uint64_t read_sip(struct hart *hart, unsigned number)
{
    return (read_mip(hart, number) & hart->mideleg) | (aia_mvip(hart) & virtual_interrupts(hart));
}

static void mip_write(struct hart *hart, uint64_t value, uint64_t writable)
{
    atomic_fetch_or(&hart->mip, value & writable);
    atomic_fetch_and(&hart->mip, value | ~writable);
    interrupt_update(hart);
}

static void write_mip(struct hart *hart, unsigned number, uint64_t value)
{
    bool timer = has(hart, ISA_EXT_SSTC) && (hart->menvcfg & ENVCFG_STCE);
    uint64_t fixed = (timer ? BIT(INTERRUPT_STI) : 0) | (hart->mvien & BIT(INTERRUPT_SEI));
    mip_write(hart, value, (S_INTERRUPTS & ~fixed) | overflow_interrupt(hart));
}

static void write_sip(struct hart *hart, unsigned number, uint64_t value)
{
    uint64_t virtual = virtual_interrupts(hart) & BIT(INTERRUPT_SSI);
    hart->mvip = (hart->mvip & ~virtual) | (value & virtual);
    mip_write(hart, value, hart->mideleg & (BIT(INTERRUPT_SSI) | overflow_interrupt(hart)));
}

static uint64_t read_stimecmp(struct hart *hart, unsigned number)
{
    return hart->stimecmp;
}

static void write_stimecmp(struct hart *hart, unsigned number, uint64_t value)
{
    hart->stimecmp = value;
    timer_update(hart);
    interrupt_update(hart);
}

/* --- Traps ----------------------------------------------------------------------------------- */

/* Reserved modes leave the vector as it is. */
static void tvec_write(uint64_t *tvec, uint64_t value)
{
    if (!(value & 2))
        *tvec = value;
}

static uint64_t read_mtvec(struct hart *hart, unsigned number)
{
    return hart->mtvec;
}

static void write_mtvec(struct hart *hart, unsigned number, uint64_t value)
{
    tvec_write(&hart->mtvec, value);
}

static uint64_t read_stvec(struct hart *hart, unsigned number)
{
    return hart->stvec;
}

static void write_stvec(struct hart *hart, unsigned number, uint64_t value)
{
    tvec_write(&hart->stvec, value);
}

static uint64_t read_mepc(struct hart *hart, unsigned number)
{
    return hart->mepc;
}

static void write_mepc(struct hart *hart, unsigned number, uint64_t value)
{
    hart->mepc = value & ~(UINT64_C(1) | hart->private->jump_mask);
}

static uint64_t read_sepc(struct hart *hart, unsigned number)
{
    return hart->sepc;
}

static void write_sepc(struct hart *hart, unsigned number, uint64_t value)
{
    hart->sepc = value & ~(UINT64_C(1) | hart->private->jump_mask);
}

/* --- Environment ----------------------------------------------------------------------------- */

/* CBIE = 2 is reserved: the field keeps its value. */
static uint64_t envcfg_legal(const struct hart *hart, uint64_t old, uint64_t value)
{
    uint64_t mask = ENVCFG_FIOM;
    if (has(hart, ISA_EXT_ZICBOM))
        mask |= ENVCFG_CBCFE | (bits_get(value, 4, 2) == 2 ? 0 : ENVCFG_CBIE);
    if (has(hart, ISA_EXT_ZICBOZ))
        mask |= ENVCFG_CBZE;
    return (old & ~mask) | (value & mask);
}

static uint64_t read_menvcfg(struct hart *hart, unsigned number)
{
    return hart->menvcfg;
}

static void write_menvcfg(struct hart *hart, unsigned number, uint64_t value)
{
    uint64_t mask = 0;
    if (has(hart, ISA_EXT_SSTC))
        mask |= ENVCFG_STCE;
    if (has(hart, ISA_EXT_SVPBMT))
        mask |= ENVCFG_PBMTE;
    if (has(hart, ISA_EXT_SVADU))
        mask |= ENVCFG_ADUE;
    uint64_t old = hart->menvcfg;
    hart->menvcfg = envcfg_legal(hart, (old & ~mask) | (value & mask), value);
    if ((old ^ hart->menvcfg) & (ENVCFG_PBMTE | ENVCFG_ADUE))
        mmu_flush(hart);
    if ((old ^ hart->menvcfg) & ENVCFG_STCE) {
        atomic_fetch_and(&hart->mip, ~BIT(INTERRUPT_STI));
        timer_update(hart);
        interrupt_update(hart);
    }
}

static uint64_t read_mstateen0(struct hart *hart, unsigned number)
{
    return hart->mstateen[0];
}

static void write_mstateen0(struct hart *hart, unsigned number, uint64_t value)
{
    uint64_t aia = has(hart, ISA_EXT_SSAIA) ? STATEEN_IMSIC | STATEEN_AIA | STATEEN_CSRIND : 0;
    hart->mstateen[0] = value & (STATEEN_SE | STATEEN_ENVCFG | aia);
}

static uint64_t read_senvcfg(struct hart *hart, unsigned number)
{
    return hart->senvcfg;
}

static void write_senvcfg(struct hart *hart, unsigned number, uint64_t value)
{
    hart->senvcfg = envcfg_legal(hart, hart->senvcfg, value);
}

/* --- Memory ---------------------------------------------------------------------------------- */

static uint64_t read_satp(struct hart *hart, unsigned number)
{
    return hart->satp;
}

static void write_satp(struct hart *hart, unsigned number, uint64_t value)
{
    switch (value >> 60) {
    case 0:
        break;
    case 8:
        if (has(hart, ISA_EXT_SV39))
            break;
        return;
    case 9:
        if (has(hart, ISA_EXT_SV48))
            break;
        return;
    case 10:
        if (has(hart, ISA_EXT_SV57))
            break;
        return;
    default:
        return;
    }
    hart->satp = value;
    mmu_context_changed(hart);
    hart->private->reenter = true;
}

static uint64_t read_pmpcfg(struct hart *hart, unsigned number)
{
    return load_le64(hart->pmpcfg + 4 * (number - 0x3a0));
}

static void write_pmpcfg(struct hart *hart, unsigned number, uint64_t value)
{
    enum { PMP_WARL = 0x9f, PMP_LOCKED = 0x80 };
    uint8_t *cfg = hart->pmpcfg + 4 * (number - 0x3a0);
    for (unsigned i = 0; i < 8; i++) {
        uint8_t entry = value >> 8 * i & PMP_WARL;
        if ((entry & 3) == 2) /* writable but not readable is reserved */
            entry &= ~3;
        if (!(cfg[i] & PMP_LOCKED))
            cfg[i] = entry;
    }
    pmp_changed(hart);
    hart->private->reenter = true;
}

static uint64_t read_pmpaddr(struct hart *hart, unsigned number)
{
    return hart->pmpaddr[number - 0x3b0];
}

/* Locked: by its own entry, or as the start of a locked TOR entry above it. */
static void write_pmpaddr(struct hart *hart, unsigned number, uint64_t value)
{
    enum { LOCKED = 0x80, LOCKED_TOR = 0x88, A_MASK = 0x98 };
    unsigned i = number - 0x3b0;
    if ((hart->pmpcfg[i] & LOCKED) || (i < 15 && (hart->pmpcfg[i + 1] & A_MASK) == LOCKED_TOR))
        return;
    hart->pmpaddr[i] = value & (BIT(54) - 1);
    pmp_changed(hart);
    hart->private->reenter = true;
}

/* --- Counters -------------------------------------------------------------------------------- */

static uint64_t read_counter(struct hart *hart, unsigned number)
{
    return counter_read(hart, number & 31);
}

static void write_counter(struct hart *hart, unsigned number, uint64_t value)
{
    counter_write(hart, number & 31, value);
}

static uint64_t read_event(struct hart *hart, unsigned number)
{
    unsigned i = (number & 31) - 3;
    counters_update(hart); /* OF */
    return i < HART_HPM_COUNTERS ? hart->mhpmevent[i] : 0;
}

static void write_event(struct hart *hart, unsigned number, uint64_t value)
{
    counters_set_event(hart, number & 31, value);
}

static uint64_t read_inhibit(struct hart *hart, unsigned number)
{
    return hart->mcountinhibit;
}

static void write_inhibit(struct hart *hart, unsigned number, uint64_t value)
{
    counters_set_inhibit(hart, value);
}

static uint64_t read_scountovf(struct hart *hart, unsigned number)
{
    uint64_t overflowed = 0;
    counters_update(hart);
    for (unsigned i = 0; i < HART_HPM_COUNTERS; i++)
        overflowed |= (hart->mhpmevent[i] >> 63) << (i + 3);
    return hart->privilege == PRIVILEGE_MACHINE ? overflowed : overflowed & hart->mcounteren;
}

/* --- The table ------------------------------------------------------------------------------- */

static const struct csr_row rows[4096] = {
#define FIELD(NUMBER, NAME, EXTENSION, GUARD, FIELD_NAME, MASK)                                    \
    [NUMBER] = {.csr = {#NAME, NUMBER},                                                            \
                .extension = ISA_EXT_##EXTENSION,                                                  \
                .guard = GUARD_##GUARD,                                                            \
                .offset = offsetof(struct hart, FIELD_NAME),                                       \
                .mask = MASK},
#define VIEW(NUMBER, NAME, EXTENSION, GUARD, READ, WRITE)                                          \
    [NUMBER] = {.csr = {#NAME, NUMBER},                                                            \
                .extension = ISA_EXT_##EXTENSION,                                                  \
                .guard = GUARD_##GUARD,                                                            \
                .read = READ,                                                                      \
                .write = WRITE},
#include "hart/csr_table.h"
};

static const struct csr_row *row_find(const struct hart *hart, unsigned number)
{
    if (number >= ARRAY_SIZE(rows) || !rows[number].csr.name || !has(hart, rows[number].extension))
        return NULL;
    return &rows[number];
}

static uint64_t row_read(const struct csr_row *row, struct hart *hart)
{
    if (row->read)
        return row->read(hart, row->csr.number);
    return *(const uint64_t *)((const char *)hart + row->offset);
}

static void row_write(const struct csr_row *row, struct hart *hart, uint64_t value)
{
    if (row->write) {
        row->write(hart, row->csr.number, value);
    } else if (!row->read) {
        uint64_t *field = (uint64_t *)((char *)hart + row->offset);
        *field = (*field & ~row->mask) | (value & row->mask);
    }
}

enum engine_csr engine_csr_find(struct hart *hart, unsigned number, uint64_t **storage,
                                uint64_t *mask)
{
    const struct csr_row *row = row_find(hart, number);
    if (!row || row->guard != GUARD_NONE || trace_on(TRACE_CSR))
        return ENGINE_CSR_OTHER;
    if (row->write == write_sstatus) {
        *mask = SSTATUS_READABLE & ~MSTATUS_SD;
        return ENGINE_CSR_SSTATUS;
    }
    if (row->write == write_sepc) {
        *storage = &hart->sepc;
        *mask = ~(UINT64_C(1) | hart->private->jump_mask);
        return ENGINE_CSR_STORAGE;
    }
    if (row->read || row->mask != UINT64_MAX)
        return ENGINE_CSR_OTHER;
    *storage = (uint64_t *)((char *)hart + row->offset);
    *mask = row->mask;
    return ENGINE_CSR_STORAGE;
}

static bool counter_enabled(const struct hart *hart, unsigned number)
{
    uint64_t bit = BIT(number & 31);
    if (hart->privilege < PRIVILEGE_MACHINE && !(hart->mcounteren & bit))
        return false;
    return hart->privilege > PRIVILEGE_USER || (hart->scounteren & bit);
}

/* Smstateen: bits of mstateen0 decide for S-mode. */
static bool state_enabled(const struct hart *hart, uint64_t bit)
{
    return hart->privilege == PRIVILEGE_MACHINE || !has(hart, ISA_EXT_SMSTATEEN) ||
           (hart->mstateen[0] & bit);
}

/* Where M-mode filters S-mode's external interrupts, S-mode cannot see the interrupt file itself
 * (AIA 1.0, section 5.3). */
static bool supervisor_file_enabled(const struct hart *hart)
{
    return hart->privilege == PRIVILEGE_MACHINE || !(hart->mvien & BIT(INTERRUPT_SEI));
}

/* Interrupt files and the rest have bits of their own in mstateen0. */
static bool supervisor_select_enabled(const struct hart *hart)
{
    if (hart->siselect >= AIA_SELECT_FILE)
        return state_enabled(hart, STATEEN_IMSIC) && supervisor_file_enabled(hart);
    return state_enabled(hart, STATEEN_AIA);
}

static bool guard_passes(const struct hart *hart, const struct csr_row *row)
{
    bool machine = hart->privilege == PRIVILEGE_MACHINE;
    unsigned number = row->csr.number;
    switch ((enum guard)row->guard) {
    case GUARD_NONE:
        return true;
    case GUARD_FP:
        return hart->mstatus & MSTATUS_FS;
    case GUARD_COUNTER:
        return counter_enabled(hart, number);
    case GUARD_TVM:
        return machine || !(hart->mstatus & MSTATUS_TVM);
    case GUARD_STIMECMP:
        return machine || ((hart->menvcfg & ENVCFG_STCE) && (hart->mcounteren & COUNTEREN_TM));
    case GUARD_ENVCFG:
        return state_enabled(hart, STATEEN_ENVCFG);
    case GUARD_CSRIND:
        return state_enabled(hart, STATEEN_CSRIND);
    case GUARD_SIREG:
        return state_enabled(hart, STATEEN_CSRIND) && supervisor_select_enabled(hart) &&
               aia_select_exists(hart, false);
    case GUARD_MIREG:
        return aia_select_exists(hart, true);
    case GUARD_STOPEI:
        return state_enabled(hart, STATEEN_IMSIC) && supervisor_file_enabled(hart) &&
               aia_has_file(hart, false);
    case GUARD_MTOPEI:
        return aia_has_file(hart, true);
    case GUARD_STOPI:
        return state_enabled(hart, STATEEN_AIA);
    case GUARD_STATEEN:
        return machine || !has(hart, ISA_EXT_SMSTATEEN) ||
               (hart->mstateen[number & 3] & STATEEN_SE);
    }
    return false;
}

static void trace_access(const struct hart *hart, const struct csr_row *row, bool writes,
                         uint64_t old, uint64_t value)
{
    if (writes)
        trace_write(TRACE_CSR, "hart %u pc 0x%llx %s 0x%llx <- 0x%llx", hart->id,
                    (unsigned long long)hart->pc, row->csr.name, (unsigned long long)old,
                    (unsigned long long)value);
    else
        trace_write(TRACE_CSR, "hart %u pc 0x%llx %s 0x%llx", hart->id,
                    (unsigned long long)hart->pc, row->csr.name, (unsigned long long)old);
}

enum csr_result csr_execute(struct hart *hart, unsigned number, enum csr_operation operation,
                            uint64_t operand, bool writes, uint64_t *old)
{
    const struct csr_row *row = row_find(hart, number);
    if (!row || (number >> 8 & 3) > hart->privilege || (writes && number >> 10 == 3) ||
        !guard_passes(hart, row))
        return CSR_ILLEGAL;

    uint64_t value = *old = row_read(row, hart);
    if (writes) {
        /* What csrrs and csrrc write back has SEIP as software wrote it, not the line's level
         * (Privileged, "mip"). */
        if (number == CSR_MIP)
            value = (value & ~BIT(INTERRUPT_SEI)) | (atomic_load(&hart->mip) & BIT(INTERRUPT_SEI));
        value = operation == CSR_WRITE ? operand
                : operation == CSR_SET ? value | operand
                                       : value & ~operand;
        /* A write comes after the instruction has retired, when it concerns instret. */
        hart->instret++;
        row_write(row, hart, value);
        hart->instret--;
    }
    if (trace_on(TRACE_CSR))
        trace_access(hart, row, writes, *old, value);
    if (hart->private->reenter || atomic_load_explicit(&hart->attention, memory_order_relaxed)) {
        hart->private->reenter = false;
        return CSR_REENTER;
    }
    return CSR_DONE;
}

const struct csr *hart_csr_find(const struct hart *hart, unsigned number)
{
    const struct csr_row *row = row_find(hart, number);
    return row ? &row->csr : NULL;
}

const char *hart_csr_name(unsigned number)
{
    return number < ARRAY_SIZE(rows) ? rows[number].csr.name : NULL;
}

bool hart_csr_read(struct hart *hart, unsigned number, uint64_t *value)
{
    const struct csr_row *row = row_find(hart, number);
    if (row)
        *value = row_read(row, hart); /* reading has no side effects on any of them */
    return row;
}

bool hart_csr_write(struct hart *hart, unsigned number, uint64_t value)
{
    const struct csr_row *row = row_find(hart, number);
    if (!row || number >> 10 == 3)
        return false;
    row_read(row, hart); /* some write what differs from what was read */
    row_write(row, hart, value);
    return true;
}
