/* Interrupts: software, timer and external ones, from CLINT, PLIC and by writing mip; enabling,
 * delegation, priority, vectored handlers, wfi; stimecmp (Sstc). */
#include "runtime.h"

CODE(spin, "1: j 1b")
CODE(short_spin, "li t0, 1000\n1: addi t0, t0, -1\nbnez t0, 1b")
CODE(enable_and_spin, "csrs mstatus, 8\nli t0, 1000\n1: addi t0, t0, -1\nbnez t0, 1b")
CODE(wait, "wfi")
CODE(enable_supervisor, "csrsi sstatus, 2\nli t0, 1000\n1: addi t0, t0, -1\nbnez t0, 1b")
CODE(raise_software, "csrsi sip, 2\nli t0, 1000\n1: addi t0, t0, -1\nbnez t0, 1b")
CODE(read_stimecmp, "csrr a0, stimecmp\nli a0, 0")
CODE(read_time, "csrr a0, time\nli a0, 0")

#define BIT(n) (1UL << (n))
enum { SSI = 1, MSI = 3, STI = 5, MTI = 7, SEI = 9, MEI = 11 };

#define MTIMECMP (CLINT + 0x4000)
#define MTIME    (CLINT + 0xbff8)

static void quiet(void)
{
    csr_write("mie", 0);
    csr_write("mip", 0);
    csr_write("mideleg", 0);
    csr_clear("mstatus", MSTATUS_MIE | MSTATUS_SIE | MSTATUS_MPIE | MSTATUS_SPIE | MSTATUS_SPP);
    write32(CLINT, 0);
    write64(MTIMECMP, ~0UL);
}

/* MPIE becomes MIE on the way into the code. Shows only where interrupts are taken: epc and loops
 * depend on time, so they are not printed. */
static void show(const char *name, enum mode mode, code *code, bool machine_enable,
                 bool supervisor_enable)
{
    csr_clear("mstatus", MSTATUS_MPIE | MSTATUS_SIE | MSTATUS_SPIE | MSTATUS_SPP);
    csr_set("mstatus", (machine_enable ? MSTATUS_MPIE : 0) | (supervisor_enable ? MSTATUS_SIE : 0));
    struct outcome outcome = run(mode, code, 0, 0);
    value(label(name, ", cause ", 0), outcome.cause);
    value(label(name, ", status ", 0), outcome.status & 0x19aa);
    value(label(name, ", tval ", 0), outcome.tval);
    value(label(name, ", in S-mode ", 0), supervisor_outcome.taken ? supervisor_outcome.cause : 99);
    if (supervisor_outcome.taken) {
        value(label(name, ", sstatus ", 0), supervisor_outcome.status & 0x122);
        value(label(name, ", entry of the vector ", 0), supervisor_outcome.vector);
    }
}

/* Each interrupt that can be written, in each mode, enabled and delegated in all ways. */
static void by_software(void)
{
    static const unsigned numbers[] = {SSI, STI, SEI};
    static const char *const names[] = {"SSI", "STI", "SEI"};

    for (unsigned i = 0; i < 3; i++)
        for (unsigned delegated = 0; delegated < 2; delegated++)
            for (unsigned enabled = 0; enabled < 2; enabled++)
                for (unsigned globally = 0; globally < 4; globally++)
                    for (unsigned mode = MODE_U; mode <= MODE_M; mode++) {
                        if (mode == 2)
                            continue;
                        quiet();
                        csr_write("mideleg", delegated ? BIT(numbers[i]) : 0);
                        csr_write("mie", enabled ? BIT(numbers[i]) : 0);
                        csr_set("mip", BIT(numbers[i]));
                        show(label(names[i], delegated ? " delegated " : " not delegated ",
                                   enabled * 100 + globally * 10 + mode),
                             mode, short_spin, globally & 1, globally & 2);
                    }
    quiet();
}

static void from_devices(void)
{
    for (unsigned mode = MODE_U; mode <= MODE_M; mode++) {
        if (mode == 2)
            continue;
        quiet();
        write32(CLINT, 1);
        value(label("mip with msip ", "", mode), csr_read("mip") & BIT(MSI));
        csr_write("mie", BIT(MSI));
        show(label("MSI, enabled, mode ", "", mode), mode, short_spin, true, false);
        show(label("MSI, MIE clear, mode ", "", mode), mode, short_spin, false, false);
        write32(CLINT, 0);
        value(label("mip without msip ", "", mode), csr_read("mip") & BIT(MSI));
        show(label("MSI gone, mode ", "", mode), mode, short_spin, true, false);

        quiet();
        value(label("mip without timer ", "", mode), csr_read("mip") & BIT(MTI));
        write64(MTIMECMP, 0);
        value(label("mip with timer ", "", mode), csr_read("mip") & BIT(MTI));
        csr_write("mie", BIT(MTI));
        show(label("MTI, enabled, mode ", "", mode), mode, short_spin, true, false);
        quiet();
        csr_write("mie", BIT(MTI));
        write64(MTIMECMP, read64(MTIME) + 20000); /* 2 ms */
        show(label("MTI in the future, mode ", "", mode), mode, spin, true, false);
    }
    quiet();
    /* Not to be delegated, not to be written. */
    csr_write("mip", BIT(MSI) | BIT(MTI) | BIT(MEI));
    value("mip of MSI, MTI, MEI", csr_read("mip"));
    quiet();
}

/* All pending at once: the numbers, one hexadecimal digit each, in the order they are taken. */
static void priority(void)
{
    const uint64_t all = BIT(SSI) | BIT(MSI) | BIT(STI) | BIT(MTI) | BIT(SEI);

    for (unsigned delegated = 0; delegated < 8; delegated++) {
        uint64_t left = all, order = 0;
        uint64_t mideleg = (delegated & 1 ? BIT(SSI) : 0) | (delegated & 2 ? BIT(STI) : 0) |
                           (delegated & 4 ? BIT(SEI) : 0);
        while (left != 0) {
            quiet();
            csr_write("mideleg", mideleg);
            write32(CLINT, 1);
            write64(MTIMECMP, 0);
            csr_set("mip", BIT(SSI) | BIT(STI) | BIT(SEI));
            csr_write("mie", left);
            csr_set("mstatus", MSTATUS_MPIE | MSTATUS_SIE);
            struct outcome outcome = run(MODE_S, short_spin, 0, 0);
            uint64_t taken = supervisor_outcome.taken ? supervisor_outcome.cause : outcome.cause;
            order = order << 4 | (taken & 15);
            if (!(taken >> 63))
                break;
            left &= ~BIT(taken & 63);
        }
        value(label("priority, delegated ", "", delegated), order);
    }
    quiet();
}

/* The PLIC's claim and completion, with the UART's transmitter as source. */
static void external(void)
{
    const uint64_t enable_m = PLIC + 0x2000, enable_s = PLIC + 0x2080;
    const uint64_t context_m = PLIC + 0x200000, context_s = PLIC + 0x201000;

    for (unsigned supervisor = 0; supervisor < 2; supervisor++) {
        uint64_t context = supervisor ? context_s : context_m;
        quiet();
        write32(PLIC + 4 * 10, 3);
        write32(enable_m, supervisor ? 0 : 1 << 10);
        write32(enable_s, supervisor ? 1 << 10 : 0);
        write32(context_m, 0);
        write32(context_s, 0);
        csr_write("mie", BIT(MEI) | BIT(SEI));
        csr_write("mideleg", supervisor ? BIT(SEI) : 0);
        value(label("external before ", "", supervisor), csr_read("mip") & (BIT(MEI) | BIT(SEI)));
        *(volatile uint8_t *)(UART + 1) = 2; /* an interrupt when the transmitter is empty */
        value(label("external raised ", "", supervisor), csr_read("mip") & (BIT(MEI) | BIT(SEI)));
        value(label("PLIC pending ", "", supervisor), read32(PLIC + 0x1000));
        show(label("external, ", "", supervisor), MODE_S, short_spin, true, true);
        /* Threshold at and above the priority. */
        write32(context, 3);
        value(label("external at threshold ", "", supervisor),
              csr_read("mip") & (BIT(MEI) | BIT(SEI)));
        write32(context, 2);
        value(label("external above threshold ", "", supervisor),
              csr_read("mip") & (BIT(MEI) | BIT(SEI)));
        *(volatile uint8_t *)(UART + 1) = 0;
        uint32_t claim = read32(context + 4);
        value(label("claim ", "", supervisor), claim);
        value(label("second claim ", "", supervisor), read32(context + 4));
        value(label("external after claim ", "", supervisor),
              csr_read("mip") & (BIT(MEI) | BIT(SEI)));
        write32(context + 4, claim);
        value(label("external after completion ", "", supervisor),
              csr_read("mip") & (BIT(MEI) | BIT(SEI)));
        write32(PLIC + 4 * 10, 0);
    }
    /* SEIP is the PLIC's line or software's bit; csrrs writes back only the latter. */
    quiet();
    csr_set("mip", BIT(SEI));
    value("SEIP by software", csr_read("mip") & BIT(SEI));
    csr_clear("mip", BIT(SEI));
    value("SEIP cleared", csr_read("mip") & BIT(SEI));
    quiet();
}

static void supervisor_vectors(void)
{
    extern char supervisor_vector[];
    extern void enter(struct outcome *, enum mode, uint64_t, uint64_t, uint64_t);
    static const unsigned numbers[] = {SSI, STI, SEI};

    for (unsigned vectored = 0; vectored < 2; vectored++)
        for (unsigned i = 0; i < 3; i++) {
            struct outcome outcome;
            quiet();
            csr_write("mideleg", BIT(numbers[i]));
            csr_write("medeleg", 1 << 3);
            csr_write("mie", BIT(numbers[i]));
            csr_set("mip", BIT(numbers[i]));
            csr_write("stvec", (uint64_t)supervisor_vector + vectored);
            supervisor_outcome.taken = 0;
            enter(&outcome, MODE_U, (uint64_t)short_spin, 0, 0);
            value(label("vector of interrupt ", "", vectored * 100 + numbers[i]),
                  supervisor_outcome.taken ? supervisor_outcome.vector : 99);
        }
    csr_write("medeleg", 0);
    quiet();
}

/* M-mode's own vector: 16 jumps, each of which loads its number. */
__attribute__((naked, aligned(256), used)) static void machine_vector(void)
{
    __asm__(".option push\n.option norvc\n"
            ".set entry, 0\n.rept 16\nj 1f + 8 * entry\n.set entry, entry + 1\n.endr\n"
            "1:\n.set entry, 0\n.rept 16\nli a0, entry\nj caught\n.set entry, entry + 1\n.endr\n"
            ".option pop");
}

CODE(vector_spin, "csrw mtvec, a1\ncsrsi mstatus, 8\nli t0, 1000\n1: addi t0, t0, -1\nbnez t0, 1b\n"
                  "li a0, 77")
CODE(vector_exception, "csrw mtvec, a1\nli a0, 77\nebreak")

static void machine_vectors(void)
{
    for (unsigned vectored = 0; vectored < 2; vectored++) {
        static const unsigned numbers[] = {SSI, MSI, STI, MTI, SEI};
        for (unsigned i = 0; i < 5; i++) {
            quiet();
            write32(CLINT, numbers[i] == MSI);
            write64(MTIMECMP, numbers[i] == MTI ? 0 : ~0UL);
            csr_set("mip", BIT(numbers[i]) & (BIT(SSI) | BIT(STI) | BIT(SEI)));
            csr_write("mie", BIT(numbers[i]));
            struct outcome outcome =
                run(MODE_M, vector_spin, 0, (uint64_t)machine_vector + vectored);
            value(label("M-mode vector of interrupt ", "", vectored * 100 + numbers[i]),
                  outcome.a0);
        }
        quiet();
        struct outcome outcome =
            run(MODE_M, vector_exception, 0, (uint64_t)machine_vector + vectored);
        value(label("M-mode vector of an exception ", "", vectored), outcome.a0);
    }
}

static void supervisor_timer(void)
{
    quiet();
    csr_write("mcounteren", 7);
    csr_clear("menvcfg", 1UL << 63);
    try("stimecmp in S-mode, STCE clear", MODE_S, read_stimecmp, 0, 0);
    try("stimecmp in M-mode, STCE clear", MODE_M, read_stimecmp, 0, 0);
    csr_set("menvcfg", 1UL << 63);
    try("stimecmp in S-mode, STCE set", MODE_S, read_stimecmp, 0, 0);
    try("stimecmp in U-mode, STCE set", MODE_U, read_stimecmp, 0, 0);
    csr_write("mcounteren", 0);
    try("stimecmp in S-mode, TM clear", MODE_S, read_stimecmp, 0, 0);
    try("time in S-mode, TM clear", MODE_S, read_time, 0, 0);
    csr_write("mcounteren", 7);
    try("time in S-mode, TM set", MODE_S, read_time, 0, 0);
    csr_write("scounteren", 0);
    try("time in U-mode, scounteren clear", MODE_U, read_time, 0, 0);
    csr_write("scounteren", 7);
    try("time in U-mode, scounteren set", MODE_U, read_time, 0, 0);

    csr_write("0x14d", ~0UL);
    value("STIP, stimecmp far", csr_read("mip") & BIT(STI));
    csr_write("0x14d", 0);
    value("STIP, stimecmp past", csr_read("mip") & BIT(STI));
    csr_write("mip", 0);
    value("STIP after mip = 0", csr_read("mip") & BIT(STI));
    csr_write("0x14d", ~0UL);
    csr_write("mip", BIT(STI));
    value("STIP after mip = STIP", csr_read("mip") & BIT(STI));
    csr_write("mideleg", BIT(STI));
    csr_write("mie", BIT(STI));
    csr_write("0x14d", csr_read("time") + 20000);
    show("stimecmp in the future", MODE_U, spin, false, true);
    csr_write("0x14d", csr_read("time") + 20000);
    csr_write("stvec", 0);
    show("stimecmp in the future, wfi", MODE_S, wait, false, false);
    csr_write("0x14d", ~0UL);
    csr_clear("menvcfg", 1UL << 63);
    quiet();
}

static void waiting(void)
{
    quiet();
    csr_write("mie", BIT(MTI));
    write64(MTIMECMP, read64(MTIME) + 20000);
    show("wfi until the timer, MIE clear", MODE_M, wait, false, false);
    value("mip after wfi", csr_read("mip") & BIT(MTI));
    quiet();
    csr_write("mie", BIT(MTI));
    write64(MTIMECMP, read64(MTIME) + 20000);
    show("wfi until the timer in S-mode", MODE_S, wait, false, false);
    quiet();
    csr_write("mideleg", BIT(SSI));
    csr_write("mie", BIT(SSI));
    show("SSIP set by S-mode", MODE_S, raise_software, false, true);
    quiet();
    csr_write("mideleg", BIT(SSI));
    csr_write("mie", BIT(SSI));
    csr_set("mip", BIT(SSI));
    show("SIE set by S-mode", MODE_S, enable_supervisor, false, false);
    quiet();
    write32(CLINT, 1);
    csr_write("mie", BIT(MSI));
    show("MIE set by M-mode", MODE_M, enable_and_spin, false, false);
    quiet();
}

static void clint_registers(void)
{
    write32(CLINT, 0xffffffff);
    value("msip of ones", read32(CLINT));
    write32(CLINT, 0xfffffffe);
    value("msip of an even number", read32(CLINT));
    write64(MTIMECMP, 0x1122334455667788UL);
    value("mtimecmp", read64(MTIMECMP));
    value("mtimecmp low", read32(MTIMECMP));
    value("mtimecmp high", read32(MTIMECMP + 4));
    write32(MTIMECMP, 0xaabbccdd);
    value("mtimecmp after its low half", read64(MTIMECMP));
    write32(MTIMECMP + 4, 0x99887766);
    value("mtimecmp after its high half", read64(MTIMECMP));
    write64(MTIME, 0x123456789000000UL);
    value("mtime after a write, upper bits", read64(MTIME) >> 28);
    value("time after it, upper bits", csr_read("time") >> 28);
    value("mtime high half", read32(MTIME + 4));
    quiet();
}

int main(void)
{
    csr_write("mcounteren", 7);
    clint_registers();
    by_software();
    from_devices();
    priority();
    external();
    supervisor_vectors();
    machine_vectors();
    supervisor_timer();
    waiting();
    return 0;
}
