/* What enable bits hide from lower modes: cache block operations (menvcfg, senvcfg), counters
 * (mcounteren, scounteren), state (mstateen, sstateen); and what counters count. */
#include "runtime.h"

static uint64_t block[64] __attribute__((aligned(4096)));

CODE(inval, "cbo.inval (a0)")
CODE(clean, "cbo.clean (a0)")
CODE(flush, "cbo.flush (a0)")
CODE(zero, "cbo.zero (a0)")

static const struct {
    const char *name;
    code *code;
} operations[] = {
    {"cbo.inval", inval}, {"cbo.clean", clean}, {"cbo.flush", flush}, {"cbo.zero", zero}};

static void permissions(void)
{
    for (unsigned i = 0; i < 4; i++)
        for (unsigned machine = 0; machine < 16; machine++)
            for (unsigned supervisor = 0; supervisor < 16; supervisor++) {
                /* CBIE 2 is reserved. */
                if ((machine & 3) == 2 || (supervisor & 3) == 2)
                    continue;
                csr_clear("menvcfg", 0xf0);
                csr_set("menvcfg", machine << 4);
                csr_write("senvcfg", supervisor << 4);
                uint64_t allowed = 0;
                for (unsigned mode = MODE_U; mode <= MODE_M; mode++) {
                    if (mode == 2)
                        continue;
                    struct outcome outcome = run(mode, operations[i].code, (uint64_t)block + 8, 0);
                    allowed |= outcome.cause << (8 * mode);
                }
                value(label(operations[i].name, " causes by mode ", machine * 100 + supervisor),
                      allowed);
            }
}

static void zeroing(void)
{
    csr_set("menvcfg", 0xf0);
    csr_write("senvcfg", 0xf0);
    for (unsigned offset = 0; offset < 64; offset += 21) {
        for (unsigned i = 0; i < 64; i++)
            block[i] = ~0UL;
        try(label("cbo.zero at ", "", offset), MODE_U, zero, (uint64_t)block + 64 + offset, 0);
        uint64_t cleared = 0;
        for (unsigned i = 0; i < 64; i++)
            cleared |= (uint64_t)(block[i] == 0) << i;
        value(label("words cleared by cbo.zero at ", "", offset), cleared);
    }
    for (unsigned i = 0; i < 4; i++)
        try(label(operations[i].name, " keeps data", 0), MODE_U, operations[i].code,
            (uint64_t)block + 3, 0);
}

static void faults(void)
{
    static const uint64_t flags[] = {0, PTE_R, PTE_X, PTE_R | PTE_X, PTE_R | PTE_W};
    const uint64_t address = 0x2140000000UL;

    for (unsigned i = 0; i < 4; i++)
        try(label(operations[i].name, " nowhere", 0), MODE_M, operations[i].code, 0x90000000, 0);
    paging_start(3);
    paging_on();
    for (unsigned f = 0; f < 5; f++)
        for (unsigned i = 0; i < 4; i++) {
            paging_map(address, (uint64_t)block, flags[f] | (f ? PTE_V : 0) | PTE_A | PTE_D, 0);
            fence_translation();
            try(label(operations[i].name, " on a page ", f), MODE_S, operations[i].code,
                address + 72, 0);
        }
    paging_off();
    csr_clear("menvcfg", 0xf0);
    csr_write("senvcfg", 0);
}

CODE(cycle, "csrr a0, cycle\nli a0, 0")
CODE(time, "csrr a0, time\nli a0, 0")
CODE(instret, "csrr a0, instret\nli a0, 0")
CODE(counter3, "csrr a0, hpmcounter3\nli a0, 0")

static void counter_access(void)
{
    static const struct {
        const char *name;
        code *code;
    } counters[] = {
        {"cycle", cycle}, {"time", time}, {"instret", instret}, {"hpmcounter3", counter3}};

    for (unsigned machine = 0; machine < 16; machine++)
        for (unsigned supervisor = 0; supervisor < 16; supervisor++) {
            csr_write("mcounteren", machine);
            csr_write("scounteren", supervisor);
            for (unsigned i = 0; i < 4; i++) {
                uint64_t causes = 0;
                for (unsigned mode = MODE_U; mode <= MODE_M; mode++)
                    if (mode != 2)
                        causes |= run(mode, counters[i].code, 0, 0).cause << (8 * mode);
                value(label(counters[i].name, " causes by mode ", machine * 100 + supervisor),
                      causes);
            }
        }
    csr_write("mcounteren", 0);
    csr_write("scounteren", 0);
}

static void counting(void)
{
    uint64_t before, after;

    csr_write("mcountinhibit", 0);
    __asm__ volatile("csrr %0, minstret\ncsrr %1, minstret" : "=r"(before), "=r"(after));
    value("instret goes up", after > before);
    before = csr_read("mcycle");
    for (volatile unsigned i = 0; i < 1000; i++)
        ;
    value("mcycle goes up", csr_read("mcycle") > before);
    csr_write("mcountinhibit", 5);
    before = csr_read("minstret");
    uint64_t cycles = csr_read("mcycle");
    for (volatile unsigned i = 0; i < 1000; i++)
        ;
    value("inhibited minstret", csr_read("minstret") - before);
    value("inhibited mcycle", csr_read("mcycle") - cycles);
    csr_write("minstret", 0x123456789abcdefUL);
    value("minstret written while inhibited", csr_read("minstret"));
    csr_write("mcycle", 0xfedcba9876543210UL);
    value("mcycle written while inhibited", csr_read("mcycle"));
    csr_write("mcountinhibit", 0);
    before = csr_read("time");
    for (volatile unsigned i = 0; i < 100000; i++)
        ;
    value("time goes up", csr_read("time") > before);
    csr_write("mhpmcounter3", 77);
    csr_write("mhpmevent3", 0);
    value("mhpmcounter3 without an event", csr_read("mhpmcounter3"));
}

CODE(read_senvcfg, "csrr a0, senvcfg\nli a0, 0")
CODE(read_sstateen, "csrr a0, sstateen0\nli a0, 0")
CODE(read_sstateen3, "csrr a0, sstateen3\nli a0, 0")

static void state_enable(void)
{
    csr_write("0x30c", 0);
    try("senvcfg, mstateen0 clear", MODE_S, read_senvcfg, 0, 0);
    try("sstateen0, mstateen0 clear", MODE_S, read_sstateen, 0, 0);
    try("sstateen3, mstateen0 clear", MODE_S, read_sstateen3, 0, 0);
    try("sstateen0 in U-mode", MODE_U, read_sstateen, 0, 0);
    csr_write("0x30c", 1UL << 62);
    try("senvcfg, ENVCFG set", MODE_S, read_senvcfg, 0, 0);
    try("sstateen0, ENVCFG set", MODE_S, read_sstateen, 0, 0);
    csr_write("0x30c", 1UL << 63);
    try("senvcfg, SE set", MODE_S, read_senvcfg, 0, 0);
    try("sstateen0, SE set", MODE_S, read_sstateen, 0, 0);
    csr_write("0x30c", ~0UL);
    value("mstateen0 of ones, those in use", csr_read("0x30c") >> 62);
    csr_write("0x30f", ~0UL);
    value("mstateen3 of ones", csr_read("0x30f") >> 62);
    csr_write("0x30f", 0);
    try("sstateen3, mstateen3 clear", MODE_S, read_sstateen3, 0, 0);
    csr_write("0x10c", ~0UL);
    /* Bit 1 (fcsr) exists with Zfinx only. */
    value("sstateen0 of ones", csr_read("0x10c") & 2);
    csr_write("0x30c", ~0UL);
    csr_write("senvcfg", ~0UL);
    value("senvcfg of ones", csr_read("senvcfg") & 0xf1);
    csr_write("senvcfg", 0);
    uint64_t before = csr_read("menvcfg");
    csr_write("menvcfg", ~0UL);
    value("menvcfg of ones", csr_read("menvcfg") & 0xe0000000000000f1UL);
    csr_write("menvcfg", before);
}

int main(void)
{
    csr_write("0x30c", ~0UL);
    permissions();
    zeroing();
    faults();
    counter_access();
    counting();
    state_enable();
    return 0;
}
