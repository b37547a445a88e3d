/* Traps and returns from them (Privileged, "Machine-Level ISA", "Supervisor-Level ISA"). */
#include "hart/internal.h"

static const char *const exception_names[] = {
    [TRAP_FETCH_MISALIGNED] = "instruction address misaligned",
    [TRAP_FETCH_ACCESS] = "instruction access fault",
    [TRAP_ILLEGAL] = "illegal instruction",
    [TRAP_BREAKPOINT] = "breakpoint",
    [TRAP_LOAD_MISALIGNED] = "load address misaligned",
    [TRAP_LOAD_ACCESS] = "load access fault",
    [TRAP_STORE_MISALIGNED] = "store address misaligned",
    [TRAP_STORE_ACCESS] = "store access fault",
    [TRAP_ECALL_U] = "environment call from U-mode",
    [TRAP_ECALL_S] = "environment call from S-mode",
    [TRAP_ECALL_M] = "environment call from M-mode",
    [TRAP_FETCH_PAGE] = "instruction page fault",
    [TRAP_LOAD_PAGE] = "load page fault",
    [TRAP_STORE_PAGE] = "store page fault",
};

static const char *const interrupt_names[] = {
    [INTERRUPT_SSI] = "supervisor software interrupt",
    [INTERRUPT_MSI] = "machine software interrupt",
    [INTERRUPT_STI] = "supervisor timer interrupt",
    [INTERRUPT_MTI] = "machine timer interrupt",
    [INTERRUPT_SEI] = "supervisor external interrupt",
    [INTERRUPT_MEI] = "machine external interrupt",
    [INTERRUPT_LCOFI] = "counter overflow interrupt",
};

const char *hart_cause_name(uint64_t cause)
{
    uint64_t number = cause & ~CAUSE_INTERRUPT;
    const char *name = NULL;
    if (cause & CAUSE_INTERRUPT)
        name = number < ARRAY_SIZE(interrupt_names) ? interrupt_names[number] : NULL;
    else
        name = number < ARRAY_SIZE(exception_names) ? exception_names[number] : NULL;
    return name ? name : "unknown cause";
}

static char privilege_letter(unsigned privilege)
{
    return "US?M"[privilege & 3];
}

static uint64_t vector(uint64_t tvec, uint64_t cause)
{
    uint64_t base = tvec & ~UINT64_C(3);
    bool vectored = (tvec & 3) == 1 && (cause & CAUSE_INTERRUPT);
    return vectored ? base + 4 * (cause & ~CAUSE_INTERRUPT) : base;
}

/* An exception that only leads to itself again: nobody set the vector, or its target faults. */
static bool handler_is_missing(const struct hart *hart, enum privilege target, uint64_t tvec,
                               uint64_t cause)
{
    if (cause & CAUSE_INTERRUPT)
        return false;
    return tvec == 0 || (target == hart->privilege && hart->pc == (tvec & ~UINT64_C(3)));
}

void hart_set_privilege(struct hart *hart, enum privilege privilege)
{
    counters_mode_changes(hart);
    hart->privilege = privilege;
    mmu_context_changed(hart);
    interrupt_update(hart);
}

static void enter_supervisor(struct hart *hart, uint64_t cause, uint64_t tval)
{
    uint64_t status = hart->mstatus;
    status = bits_set(status, 5, 1, bits_get(status, 1, 1)); /* SPIE = SIE */
    status = bits_set(status, 8, 1, hart->privilege);        /* SPP */
    hart->mstatus = status & ~MSTATUS_SIE;
    hart->sepc = hart->pc;
    hart->scause = cause;
    hart->stval = tval;
    hart->pc = vector(hart->stvec, cause);
    hart_set_privilege(hart, PRIVILEGE_SUPERVISOR);
}

static void enter_machine(struct hart *hart, uint64_t cause, uint64_t tval)
{
    uint64_t status = hart->mstatus;
    status = bits_set(status, 7, 1, bits_get(status, 3, 1)); /* MPIE = MIE */
    status = bits_set(status, MSTATUS_MPP_SHIFT, 2, hart->privilege);
    hart->mstatus = status & ~MSTATUS_MIE;
    hart->mepc = hart->pc;
    hart->mcause = cause;
    hart->mtval = tval;
    hart->pc = vector(hart->mtvec, cause);
    hart_set_privilege(hart, PRIVILEGE_MACHINE);
}

void hart_trap(struct hart *hart, uint64_t cause, uint64_t tval)
{
    uint64_t delegated = cause & CAUSE_INTERRUPT ? hart->mideleg : hart->medeleg;
    trap_take(hart, hart->privilege != PRIVILEGE_MACHINE && (delegated >> (cause & 63) & 1), cause,
              tval);
}

void trap_take(struct hart *hart, bool supervisor, uint64_t cause, uint64_t tval)
{
    enum privilege target = supervisor ? PRIVILEGE_SUPERVISOR : PRIVILEGE_MACHINE;
    uint64_t tvec = supervisor ? hart->stvec : hart->mtvec;

    hart->private->counts.traps++;
    reservation_drop(hart);
    if (trace_on(TRACE_TRAP))
        trace_write(TRACE_TRAP, "hart %u %c->%c %s, pc 0x%llx tval 0x%llx", hart->id,
                    privilege_letter(hart->privilege), privilege_letter(target),
                    hart_cause_name(cause), (unsigned long long)hart->pc, (unsigned long long)tval);

    if (!supervisor && hart->hooks.sbi && hart->hooks.unhandled) {
        hart->hooks.unhandled(hart->hooks.opaque, hart, cause, tval);
        return;
    }
    if (hart->hooks.lost && handler_is_missing(hart, target, tvec, cause)) {
        hart->hooks.lost(hart->hooks.opaque, hart, cause, tval);
        if (hart_stopping(hart))
            return; /* a debugger sees it where it happened */
    }
    if (supervisor)
        enter_supervisor(hart, cause, tval);
    else
        enter_machine(hart, cause, tval);
    if (unlikely(hart->points))
        debug_trap(hart, cause);
}

static void trace_return(const struct hart *hart, char from)
{
    if (trace_on(TRACE_TRAP))
        trace_write(TRACE_TRAP, "hart %u %c->%c return to pc 0x%llx", hart->id, from,
                    privilege_letter(hart->privilege), (unsigned long long)hart->pc);
}

bool trap_return_machine(struct hart *hart)
{
    if (hart->privilege != PRIVILEGE_MACHINE)
        return false;
    uint64_t status = hart->mstatus;
    enum privilege previous = bits_get(status, MSTATUS_MPP_SHIFT, 2);
    status = bits_set(status, 3, 1, bits_get(status, 7, 1)) | MSTATUS_MPIE;
    status = bits_set(status, MSTATUS_MPP_SHIFT, 2, PRIVILEGE_USER);
    hart->mstatus = previous == PRIVILEGE_MACHINE ? status : status & ~MSTATUS_MPRV;
    hart->pc = hart->mepc;
    reservation_drop(hart);
    hart_set_privilege(hart, previous);
    trace_return(hart, 'M');
    return true;
}

bool trap_return_supervisor(struct hart *hart)
{
    if (hart->privilege == PRIVILEGE_USER ||
        (hart->privilege == PRIVILEGE_SUPERVISOR && (hart->mstatus & MSTATUS_TSR)))
        return false;
    char from = privilege_letter(hart->privilege);
    uint64_t status = hart->mstatus;
    enum privilege previous = bits_get(status, 8, 1);
    status = bits_set(status, 1, 1, bits_get(status, 5, 1)) | MSTATUS_SPIE;
    hart->mstatus = status & ~(MSTATUS_SPP | MSTATUS_MPRV);
    hart->pc = hart->sepc;
    reservation_drop(hart);
    hart_set_privilege(hart, previous);
    trace_return(hart, from);
    return true;
}

void trap_environment_call(struct hart *hart)
{
    static const uint8_t causes[] = {TRAP_ECALL_U, TRAP_ECALL_S, TRAP_ILLEGAL, TRAP_ECALL_M};
    if (unlikely(hart->points) && hart->privilege == PRIVILEGE_SUPERVISOR &&
        debug_before(hart, HART_STOP_CALL))
        return;
    if (hart->privilege != PRIVILEGE_SUPERVISOR || !hart->hooks.sbi) {
        hart_trap(hart, causes[hart->privilege], 0);
        return;
    }
    reservation_drop(hart);
    hart->pc += 4;
    hart->instret++;
    hart->hooks.sbi(hart->hooks.opaque, hart);
}

/* RISC-V Semihosting: the three instructions are uncompressed and lie in one page. */
static bool is_semihosting_call(struct hart *hart)
{
    uint8_t code[12];
    return (hart->pc & ~PAGE_MASK) >= 4 && (hart->pc & ~PAGE_MASK) <= PAGE_SIZE - 8 &&
           hart_memory_read(hart, hart->pc - 4, code, sizeof(code), hart->privilege) &&
           load_le32(code) == 0x01f01013 &&     /* slli x0, x0, 0x1f */
           load_le32(code + 4) == 0x00100073 && /* ebreak */
           load_le32(code + 8) == 0x40705013;   /* srai x0, x0, 7 */
}

bool trap_breakpoint(struct hart *hart)
{
    if (hart->hooks.semihosting && is_semihosting_call(hart)) {
        reservation_drop(hart);
        if (hart->hooks.semihosting(hart->hooks.opaque, hart))
            return true;
    }
    hart_trap(hart, TRAP_BREAKPOINT, hart->pc);
    return false;
}
