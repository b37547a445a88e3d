/* The life of a hart: creation, reset, saving and loading. */
#include <stdlib.h>

#include "hart/internal.h"

#define MISA_MXL_64 (UINT64_C(2) << 62)

static uint64_t misa_value(const struct isa_extensions *extensions)
{
    static const struct {
        char letter;
        uint8_t extension;
    } letters[] = {{'a', ISA_EXT_A}, {'c', ISA_EXT_C}, {'d', ISA_EXT_D},
                   {'f', ISA_EXT_F}, {'i', ISA_EXT_I}, {'m', ISA_EXT_M}};
    uint64_t misa = MISA_MXL_64 | BIT('s' - 'a') | BIT('u' - 'a');
    for (unsigned i = 0; i < ARRAY_SIZE(letters); i++)
        if (isa_extensions_test(extensions, letters[i].extension))
            misa |= BIT(letters[i].letter - 'a');
    return misa;
}

/* Timers run on the loop's thread and only ask the hart to look. */
static void look(void *opaque)
{
    hart_request(opaque, ATTENTION_INTERRUPT);
}

struct hart *hart_create(const struct hart_config *config)
{
    struct hart *hart = xcalloc(1, sizeof(*hart));
    struct hart_private *private = xcalloc(1, sizeof(*private));

    hart->id = config->id;
    hart->extensions = config->extensions;
    hart->memory = config->memory;
    hart->clock = config->clock;
    hart->hooks = config->hooks;
    hart->private = private;

    private->jump_mask = isa_extensions_test(&config->extensions, ISA_EXT_C) ? 0 : 2;
    private->single[1].op = private->single[2].op = CODE_END;
    private->timer_deadline = UINT64_MAX;
    for (unsigned i = 0; i < TLB_CONTEXTS; i++) {
        struct tlb *tlb = &private->tlbs[i];
        tlb->stale = true;
    }
    pthread_mutex_init(&private->fence_lock, NULL);
    private->domain = domain_join(config->memory, hart);
    if (config->loop) {
        private->timer = loop_add_timer(config->loop, look, hart);
        private->counter_timer = loop_add_timer(config->loop, look, hart);
    }
    hart_reset(hart, 0);
    return hart;
}

void hart_destroy(struct hart *hart)
{
    if (!hart)
        return;
    loop_remove_timer(hart->private->timer);
    loop_remove_timer(hart->private->counter_timer);
    domain_leave(hart->private->domain, hart);
    code_forget(&hart->private->code);
    pthread_mutex_destroy(&hart->private->fence_lock);
    free(hart->private);
    free(hart);
}

const struct hart_counts *hart_get_counts(const struct hart *hart)
{
    return &hart->private->counts;
}

/* After the architectural state was replaced: what is computed from it. */
static void state_changed(struct hart *hart)
{
    hart->reservation_address = RESERVATION_NONE;
    pmp_changed(hart);
    hart_fence_i(hart);
    counters_restart(hart);
    atomic_fetch_or(&hart->attention, ATTENTION_INTERRUPT);
}

void hart_reset(struct hart *hart, uint64_t pc)
{
    /* Attention and the lines from outside stay: other threads may be setting them just now. */
    const uint64_t lines =
        MIP_SEI_LINE | BIT(INTERRUPT_MSI) | BIT(INTERRUPT_MTI) | BIT(INTERRUPT_MEI);
    atomic_fetch_and(&hart->mip, lines);
    memset(hart->x, 0, sizeof(hart->x));
    memset(hart->f, 0, sizeof(hart->f));
    hart->instret = 0;
    memset(&hart->reservation_address, 0,
           offsetof(struct hart, mip) - offsetof(struct hart, reservation_address));
    hart->pc = pc;
    hart->privilege = PRIVILEGE_MACHINE;
    hart->misa = misa_value(&hart->extensions);
    hart->mstatus = MSTATUS_UXL | MSTATUS_SXL;
    hart->stimecmp = UINT64_MAX;
    state_changed(hart);
}

static void check_loaded(struct hart *hart, struct stream *stream, uint8_t privilege)
{
    unsigned mpp = bits_get(hart->mstatus, MSTATUS_MPP_SHIFT, 2);
    unsigned scheme = hart->satp >> 60;
    bool known_scheme = scheme == 0 || (scheme >= 8 && scheme <= 10);
    if (privilege == 2 || privilege > PRIVILEGE_MACHINE || mpp == 2 || !known_scheme ||
        (hart->pc & 1)) {
        stream_fail(stream, "the saved state of hart %u is not one that a hart can have", hart->id);
        privilege = PRIVILEGE_MACHINE;
        hart->mstatus &= ~MSTATUS_MPP;
        hart->satp = 0;
        hart->pc = 0;
    }
    hart->privilege = privilege;
}

void hart_state(struct hart *hart, struct stream *stream)
{
    uint8_t privilege = hart->privilege;
    uint32_t fflags = hart->fflags;
    uint64_t mip = atomic_load(&hart->mip);
    uint64_t *const registers[] = {
        &hart->pc,
        &hart->instret,
        &hart->mstatus,
        &hart->medeleg,
        &hart->mideleg,
        &hart->mie,
        &hart->mtvec,
        &hart->mscratch,
        &hart->mepc,
        &hart->mcause,
        &hart->mtval,
        &hart->mcounteren,
        &hart->menvcfg,
        &hart->stvec,
        &hart->sscratch,
        &hart->sepc,
        &hart->scause,
        &hart->stval,
        &hart->satp,
        &hart->scounteren,
        &hart->senvcfg,
        &hart->stimecmp,
        &hart->mcountinhibit,
        &hart->mcycle_offset,
        &hart->minstret_offset,
        &hart->miselect,
        &hart->siselect,
        &hart->mvien,
        &hart->mvip,
        &hart->sie_virtual,
    };

    counters_update(hart);
    stream_begin(stream, "hart", 1);
    stream_u64_array(stream, hart->x, 32);
    stream_u64_array(stream, hart->f, 32);
    for (unsigned i = 0; i < ARRAY_SIZE(registers); i++)
        stream_u64(stream, registers[i]);
    stream_u64_array(stream, hart->mstateen, ARRAY_SIZE(hart->mstateen));
    stream_u64_array(stream, hart->sstateen, ARRAY_SIZE(hart->sstateen));
    stream_bytes(stream, hart->pmpcfg, sizeof(hart->pmpcfg));
    stream_u64_array(stream, hart->pmpaddr, ARRAY_SIZE(hart->pmpaddr));
    stream_u64_array(stream, hart->mhpmcounter, ARRAY_SIZE(hart->mhpmcounter));
    stream_u64_array(stream, hart->mhpmevent, ARRAY_SIZE(hart->mhpmevent));
    stream_u8(stream, &hart->frm);
    stream_u32(stream, &fflags);
    stream_u64(stream, &mip);
    stream_u8(stream, &privilege);
    stream_end(stream);
    if (!stream_loading(stream))
        return;

    hart->x[0] = 0;
    aia_check_loaded(hart);
    hart->frm &= 7;
    hart->fflags = fflags & 31;
    atomic_store(&hart->mip, mip & (MIP_MASK | MIP_SEI_LINE));
    check_loaded(hart, stream, privilege);
    state_changed(hart);
}
