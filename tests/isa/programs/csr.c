/* CSRs: which exist for whom, what they keep of ones and zeros, what they hide behind enable bits.
 */
#include "runtime.h"

/* A csrr or csrw of any number, made in memory. */
static uint32_t made[4] __attribute__((aligned(16)));

static code *make(unsigned number, bool write)
{
    /* csrr a0, number; or csrrs a0, number, a0 with a0 = 0, which writes nothing but is a write. */
    made[0] = number << 20 | (write ? 10 << 15 : 0) | 2 << 12 | 10 << 7 | 0x73;
    made[1] = 0x73; /* ecall */
    __asm__ volatile("fence.i" ::: "memory");
    return (code *)made;
}

/* The numbers that our extensions define, and some that nothing does: a line for each group. QEMU
 * has others (debug triggers, for one) and counters only up to hpmcounter18, so these are left out.
 */
static const struct {
    const char *name;
    unsigned first, last;
} groups[] = {
    {"float", 0x001, 0x003},
    {"supervisor", 0x100, 0x106},
    {"senvcfg", 0x10a, 0x10a},
    {"sstateen", 0x10c, 0x10f},
    {"supervisor trap", 0x140, 0x144},
    {"stimecmp", 0x14d, 0x14d},
    {"satp", 0x180, 0x180},
    {"machine", 0x300, 0x306},
    {"menvcfg", 0x30a, 0x30a},
    {"mstateen", 0x30c, 0x30f},
    {"mcountinhibit", 0x320, 0x320},
    {"events", 0x323, 0x33f},
    {"machine trap", 0x340, 0x344},
    {"pmpcfg", 0x3a0, 0x3a3},
    {"pmpaddr", 0x3b0, 0x3bf},
    {"machine counters", 0xb00, 0xb12},
    {"counters", 0xc00, 0xc12},
    {"scountovf", 0xda0, 0xda0},
    {"identity", 0xf11, 0xf15},
    {"reserved 0x0", 0x005, 0x007},
    {"reserved 0x5", 0x5a0, 0x5a7},
    {"custom 0x8", 0x800, 0x80f},
    {"custom 0xc", 0xcc0, 0xccf},
    {"hypervisor", 0x600, 0x607},
    {"vs", 0x200, 0x205},
    {"high halves", 0xb80, 0xb9f},
    {"high counters", 0xc80, 0xc9f},
    {"user trap", 0x040, 0x044},
};

static void existence(void)
{
    for (unsigned g = 0; g < sizeof groups / sizeof groups[0]; g++)
        for (unsigned mode = MODE_U; mode <= MODE_M; mode++)
            for (unsigned write = 0; write < 2; write++) {
                if (mode == 2)
                    continue;
                uint64_t present = 0;
                for (unsigned number = groups[g].first; number <= groups[g].last; number++) {
                    if (mode == MODE_M && number == 0xf15)
                        continue;
                    struct outcome outcome = run(mode, make(number, write), 0, 0);
                    present |= (uint64_t)(outcome.cause != 2) << (number - groups[g].first);
                }
                value(label(groups[g].name, write ? " written in mode " : " read in mode ", mode),
                      present);
            }
}

/* Writes ones, zeros and a pattern, prints what is kept among the bits that extensions of ours
 * define, and restores. */
#define KEEPS(name, mask)                                                                          \
    do {                                                                                           \
        uint64_t before = csr_read(name);                                                          \
        csr_write(name, ~0UL);                                                                     \
        uint64_t ones = csr_read(name);                                                            \
        csr_write(name, 0);                                                                        \
        uint64_t zeros = csr_read(name);                                                           \
        csr_write(name, 0x5a5a5a5a5a5a5a5aUL);                                                     \
        uint64_t pattern = csr_read(name);                                                         \
        csr_write(name, before);                                                                   \
        value(name " of ones", ones &(mask));                                                      \
        value(name " of zeros", zeros &(mask));                                                    \
        value(name " of a pattern", pattern &(mask));                                              \
    } while (0)

static void storage(void)
{
    KEEPS("sscratch", ~0UL);
    KEEPS("stval", ~0UL);
    KEEPS("mtval", ~0UL);
    KEEPS("mepc", ~1UL);
    KEEPS("sepc", ~1UL);
    KEEPS("mie", 0xfff & ~0x444UL); /* without the hypervisor's and local interrupts */
    KEEPS("mcounteren", 0x7ffffUL);
    KEEPS("scounteren", 0x7ffffUL);
    KEEPS("mideleg", 0xfff & ~0x444UL);
    KEEPS("medeleg", 0xb3ffUL);
    KEEPS("mcountinhibit", 0x7);
    KEEPS("fcsr", ~0UL);
    /* Fields of mstatus and sstatus that M, S, U and F define. */
    uint64_t before = csr_read("mstatus");
    csr_write("mstatus", ~0UL & ~MSTATUS_MPRV & ~MSTATUS_MIE);
    value("mstatus of ones", csr_read("mstatus") & 0x7e79aaUL);
    value("sstatus of mstatus ones", csr_read("sstatus") & 0x80000003000de762UL);
    csr_write("mstatus", 0);
    value("mstatus of zeros", csr_read("mstatus") & 0xf007fffffUL);
    csr_write("sstatus", ~0UL);
    value("mstatus of sstatus ones", csr_read("mstatus") & 0x80000003007e79aaUL);
    csr_write("mstatus", before);
    value("UXL, SXL, MBE, SBE, UBE", csr_read("mstatus") & 0x3f00000040UL);
}

static void trap_vectors(void)
{
    for (unsigned mode = 0; mode < 4; mode++) {
        csr_write("stvec", 0x80001000 + mode);
        if (mode < 2)
            value(label("stvec mode ", "", mode), csr_read("stvec"));
    }
    csr_write("stvec", 0xfffffffffffffffcUL);
    value("stvec of high ones", csr_read("stvec"));
    csr_write("scause", 0x800000000000000fUL);
    value("scause", csr_read("scause"));
    csr_write("mcause", 0x800000000000000bUL);
    value("mcause", csr_read("mcause"));
}

/* sie, sip and mip, mie: what is seen through mideleg, what can be written. */
static void interrupt_bits(void)
{
    for (unsigned delegated = 0; delegated < 2; delegated++) {
        csr_write("mideleg", delegated ? 0x222 : 0);
        csr_write("mie", 0);
        csr_write("sie", ~0UL);
        value(label("mie after sie of ones, delegated ", "", delegated), csr_read("mie"));
        csr_write("mie", 0xaaa);
        value(label("sie of mie, delegated ", "", delegated), csr_read("sie"));
        csr_write("sie", 0);
        value(label("mie after sie of zeros, delegated ", "", delegated), csr_read("mie"));
        csr_write("mie", 0);
        csr_write("mip", ~0x80UL);
        value(label("mip of ones, delegated ", "", delegated), csr_read("mip") & 0xb3bUL);
        value(label("sip of mip, delegated ", "", delegated), csr_read("sip"));
        csr_write("sip", 0);
        value(label("mip after sip of zeros, delegated ", "", delegated),
              csr_read("mip") & 0xb3bUL);
        csr_write("mip", 0);
        value(label("mip of zeros, delegated ", "", delegated), csr_read("mip") & 0xb3bUL);
        csr_write("sip", ~0UL);
        value(label("mip after sip of ones, delegated ", "", delegated), csr_read("mip") & 0xb3bUL);
        csr_write("mip", 0);
    }
    csr_write("mideleg", 0);
}

CODE(swap, "csrrw a0, stval, a1\ncsrr a1, stval")
CODE(set, "csrrs a0, stval, a1\ncsrr a1, stval")
CODE(clear, "csrrc a0, stval, a1\ncsrr a1, stval")
CODE(swap_immediate, "csrrwi a0, stval, 21\ncsrr a1, stval")
CODE(set_immediate, "csrrsi a0, stval, 10\ncsrr a1, stval")
CODE(clear_immediate, "csrrci a0, stval, 31\ncsrr a1, stval")
CODE(swap_same, "csrw stval, a1\nli a0, 77\ncsrrw a0, stval, a0\ncsrr a1, stval")
CODE(swap_nowhere, "csrrw x0, stval, a1\ncsrr a1, stval")

static void instructions(void)
{
    static code *const list[] = {
        swap, set, clear, swap_immediate, set_immediate, clear_immediate, swap_same, swap_nowhere};
    for (unsigned i = 0; i < sizeof list / sizeof list[0]; i++)
        for (unsigned mode = MODE_S; mode <= MODE_M; mode += 2) {
            csr_write("stval", 0xff00ff00ff00ff00UL);
            struct outcome outcome = run(mode, list[i], 0, 0x0ff00ff00ff00ffUL);
            value(label("csr instruction before ", "", i * 10 + mode), outcome.a0);
            value(label("csr instruction after ", "", i * 10 + mode), outcome.a1);
        }
}

int main(void)
{
    existence();
    storage();
    trap_vectors();
    interrupt_bits();
    instructions();
    return 0;
}
