/*
 * Smaia and Ssaia (AIA 1.0, chapters 2, 3 and 5): indirect access to interrupt files, the
 * highest-priority interrupt, and S-mode interrupts that M-mode software makes up. The arrays of
 * major interrupts' priorities are read-only zero: the order is the default one.
 */
#include "hart/internal.h"

/* What miselect and siselect select (AIA 1.0, section 2.4). */
enum {
    SELECT_IPRIO_FIRST = 0x30,
    SELECT_IPRIO_LAST = 0x3f,
    SELECT_ARRAYS = 0x80, /* eip and eie */
    SELECT_LAST = 0xff,
};

void hart_set_interrupt_file(struct hart *hart, enum privilege privilege,
                             const struct interrupt_file *file)
{
    hart->private->files[privilege == PRIVILEGE_MACHINE] = *file;
}

static void look(void *controller, unsigned source, bool level)
{
    hart_request(controller, ATTENTION_INTERRUPT);
}

struct irq_line hart_look_line(struct hart *hart)
{
    return (struct irq_line){.set = look, .controller = hart};
}

bool aia_has_file(const struct hart *hart, bool machine)
{
    return hart->private->files[machine].top;
}

/* Of a CSR's number, bits 9..8 are the privilege. */
static bool is_machine(unsigned number)
{
    return (number >> 8 & 3) == PRIVILEGE_MACHINE;
}

static uint64_t selected(const struct hart *hart, bool machine)
{
    return machine ? hart->miselect : hart->siselect;
}

/* Registers of 64 bits have the even numbers; the odd ones are those of RV32 (section 2.4). */
bool aia_select_exists(const struct hart *hart, bool machine)
{
    uint64_t select = selected(hart, machine);
    if (select >= SELECT_IPRIO_FIRST && select <= SELECT_IPRIO_LAST)
        return !(select & 1);
    return select >= AIA_SELECT_FILE && select <= SELECT_LAST && aia_has_file(hart, machine) &&
           !(select >= SELECT_ARRAYS && (select & 1));
}

uint64_t aia_read_indirect(struct hart *hart, unsigned number)
{
    bool machine = is_machine(number);
    const struct interrupt_file *file = &hart->private->files[machine];
    uint64_t value = 0;
    if (aia_select_exists(hart, machine) && selected(hart, machine) >= AIA_SELECT_FILE)
        value = file->read(file->file, selected(hart, machine));
    return hart->private->indirect_read[machine] = value;
}

void aia_write_indirect(struct hart *hart, unsigned number, uint64_t value)
{
    bool machine = is_machine(number);
    const struct interrupt_file *file = &hart->private->files[machine];
    if (!aia_select_exists(hart, machine) || selected(hart, machine) < AIA_SELECT_FILE)
        return;
    file->write(file->file, selected(hart, machine), hart->private->indirect_read[machine], value);
    aia_update(hart);
    interrupt_update(hart);
}

/* Section 3.9: the identity in both halves, as it is also the priority. */
uint64_t aia_read_topei(struct hart *hart, unsigned number)
{
    bool machine = is_machine(number);
    const struct interrupt_file *file = &hart->private->files[machine];
    unsigned identity = file->top ? file->top(file->file, false) : 0;
    hart->private->top_read[machine] = identity;
    return (uint64_t)identity << 16 | identity;
}

/* A write, of whatever value, claims what the same instruction has read. */
void aia_write_topei(struct hart *hart, unsigned number, uint64_t value)
{
    bool machine = is_machine(number);
    const struct interrupt_file *file = &hart->private->files[machine];
    unsigned identity = hart->private->top_read[machine];
    hart->private->top_read[machine] = 0;
    if (!identity || !file->claim)
        return;
    file->claim(file->file, identity);
    aia_update(hart);
    interrupt_update(hart);
}

/* Section 5.2.2. As no priority can be set, IPRIO is 1. */
uint64_t aia_read_topi(struct hart *hart, unsigned number)
{
    interrupt_sources_update(hart);
    uint64_t pending = interrupt_mip(hart) & hart->mie;
    if (is_machine(number))
        pending &= ~hart->mideleg;
    else
        pending = (pending & hart->mideleg) | (aia_mvip(hart) & aia_virtual_enabled(hart));
    unsigned first = interrupt_first(pending);
    return first ? (uint64_t)first << 16 | 1 : 0;
}

/* Section 5.3: SEIP is the bit that software writes in mip as well; SSIP is mip's unless mvien
 * separates them; STIP is mip's where that can be written. */
static uint64_t mvip_aliases(const struct hart *hart)
{
    bool timer =
        isa_extensions_test(&hart->extensions, ISA_EXT_SSTC) && (hart->menvcfg & ENVCFG_STCE);
    return BIT(INTERRUPT_SEI) | (hart->mvien & BIT(INTERRUPT_SSI) ? 0 : BIT(INTERRUPT_SSI)) |
           (timer ? 0 : BIT(INTERRUPT_STI));
}

uint64_t aia_mvip(const struct hart *hart)
{
    uint64_t aliases = mvip_aliases(hart);
    return (atomic_load(&hart->mip) & aliases) | (hart->mvip & ~aliases & BIT(INTERRUPT_SSI));
}

uint64_t aia_read_mvip(struct hart *hart, unsigned number)
{
    return aia_mvip(hart);
}

void aia_write_mvip(struct hart *hart, unsigned number, uint64_t value)
{
    uint64_t aliases = mvip_aliases(hart);
    atomic_fetch_or(&hart->mip, value & aliases);
    atomic_fetch_and(&hart->mip, value | ~aliases);
    if (!(aliases & BIT(INTERRUPT_SSI)))
        hart->mvip = value & BIT(INTERRUPT_SSI);
    interrupt_update(hart);
}

uint64_t aia_read_mvien(struct hart *hart, unsigned number)
{
    return hart->mvien;
}

void aia_write_mvien(struct hart *hart, unsigned number, uint64_t value)
{
    hart->mvien = value & (BIT(INTERRUPT_SSI) | BIT(INTERRUPT_SEI));
    interrupt_update(hart);
}

void aia_update(struct hart *hart)
{
    static const uint64_t bits[2] = {MIP_SEI_LINE, BIT(INTERRUPT_MEI)};
    for (unsigned machine = 0; machine < 2; machine++) {
        const struct interrupt_file *file = &hart->private->files[machine];
        if (likely(!file->top))
            continue;
        bool level = file->top(file->file, true) != 0;
        if (level == !!(atomic_load(&hart->mip) & bits[machine]))
            continue;
        if (level)
            atomic_fetch_or(&hart->mip, bits[machine]);
        else
            atomic_fetch_and(&hart->mip, ~bits[machine]);
    }
}

/* Only what the registers can hold is taken from a loaded state. */
void aia_check_loaded(struct hart *hart)
{
    static const uint16_t numbers[] = {0x350, 0x150, 0x308}; /* miselect, siselect, mvien */
    uint64_t *const fields[] = {&hart->miselect, &hart->siselect, &hart->mvien};
    for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++) {
        uint64_t value = *fields[i];
        *fields[i] = 0;
        hart_csr_write(hart, numbers[i], value);
    }
    hart->mvip &= BIT(INTERRUPT_SSI);
    hart->sie_virtual &= BIT(INTERRUPT_SSI) | BIT(INTERRUPT_SEI);
}
