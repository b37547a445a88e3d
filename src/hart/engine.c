/* What an engine that translates needs of a hart: engine.h, on the means of this area. */
#include "hart/internal.h"

void engine_begin(struct hart *hart)
{
    reservation_drop(hart);
    guest_enter(hart);
}

void engine_end(struct hart *hart)
{
    guest_leave(hart);
    reservation_leave(hart);
}

enum attended engine_attend(struct hart *hart)
{
    return hart_attend(hart);
}

void engine_leave(struct hart *hart)
{
    guest_leave(hart);
}

void engine_enter(struct hart *hart)
{
    guest_enter(hart);
}

uint64_t engine_jumps_generation(const struct hart *hart)
{
    return hart->private->jumps_generation;
}

void engine_forget_jumps(struct hart *hart)
{
    mmu_forget_jumps(hart);
}

void engine_forget_stores(struct hart *hart)
{
    mmu_forget_stores(hart);
}

void engine_prepare(const struct hart *hart, struct engine_insn *insn, uint32_t bits)
{
    insn->bits = bits;
    code_fill(hart, &insn->slot, bits, CODE_ALONE);
}

bool engine_execute(struct hart *hart, const struct engine_insn *insn)
{
    hart->private->single[0] = insn->slot;
    hart->private->single_bits = insn->bits;
    return interpret_single(hart);
}

void engine_execute_fetched(struct hart *hart)
{
    if (mmu_fetch_single(hart, hart->pc))
        interpret_single(hart);
}

const uint8_t *engine_fetch(struct hart *hart)
{
    bool single;
    const uint8_t *page = mmu_fetch_page(hart, hart->pc, &single);
    if (single)
        interpret_single(hart);
    return page;
}
