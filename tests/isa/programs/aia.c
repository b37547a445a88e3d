/* The AIA: indirect registers, interrupt files and messages, the APLIC's domains with the UART's
 * transmitter as source, priorities, and what S-mode may reach. Priorities of major interrupts are
 * not looked at: ours are read-only. */
#include "runtime.h"

CODE(read_mireg, "csrr a0, 0x351")
CODE(write_mireg, "csrw 0x351, a0\ncsrr a0, 0x351")
CODE(read_sireg, "csrr a0, 0x151")
CODE(read_siselect, "csrr a0, 0x150")
CODE(read_stopei, "csrr a0, 0x15c")
CODE(claim_stopei, "csrrw a0, 0x15c, x0")
CODE(read_stopi, "csrr a0, 0xdb0")
CODE(read_mtopei, "csrr a0, 0x35c")
CODE(write_mtopi, "csrw 0xfb0, x0")
CODE(spin, "li t0, 1000\n1: addi t0, t0, -1\nbnez t0, 1b")

#define MISELECT "0x350"
#define MIREG    "0x351"
#define MTOPEI   "0x35c"
#define MTOPI    "0xfb0"
#define SISELECT "0x150"
#define SIREG    "0x151"
#define STOPEI   "0x15c"
#define STOPI    "0xdb0"

#define BIT(n) (1UL << (n))
enum { SSI = 1, MSI = 3, STI = 5, MTI = 7, SEI = 9, MEI = 11 };

#define APLIC_M PLIC
#define APLIC_S 0xd000000
#define IMSIC_M 0x24000000
#define IMSIC_S 0x28000000

enum { UART_SOURCE = 10, OTHER_SOURCE = 20 };

static void quiet(void)
{
    csr_write("mie", 0);
    csr_write("mip", 0);
    csr_write("mideleg", 0);
    csr_clear("mstatus", MSTATUS_MIE | MSTATUS_SIE | MSTATUS_MPIE | MSTATUS_SPIE | MSTATUS_SPP);
}

static void machine_register(unsigned number, uint64_t v)
{
    csr_write(MISELECT, number);
    csr_write(MIREG, v);
}

static void supervisor_register(unsigned number, uint64_t v)
{
    csr_write(SISELECT, number);
    csr_write(SIREG, v);
}

static void open_files(void)
{
    for (unsigned number = 0xc0; number < 0xc8; number += 2) {
        machine_register(number, ~0UL);
        supervisor_register(number, ~0UL);
    }
    machine_register(0x72, 0);
    supervisor_register(0x72, 0);
    machine_register(0x70, 1);
    supervisor_register(0x70, 1);
}

static void selections(void)
{
    static const uint16_t numbers[] = {0x00, 0x2f, 0x31, 0x3f, 0x40, 0x6f, 0x70, 0x72,
                                       0x80, 0x81, 0x82, 0x86, 0x87, 0xc0, 0xc1, 0xc6};

    for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        csr_write(MISELECT, numbers[i]);
        csr_write(SISELECT, numbers[i]);
        try(label("mireg ", "", numbers[i]), MODE_M, read_mireg, 0, 0);
        try(label("mireg written ", "", numbers[i]), MODE_M, write_mireg, ~0UL, 0);
        try(label("mireg cleared ", "", numbers[i]), MODE_M, write_mireg, 0, 0);
        try(label("mireg from S-mode ", "", numbers[i]), MODE_S, read_mireg, 0, 0);
        try(label("sireg ", "", numbers[i]), MODE_S, read_sireg, 0, 0);
        try(label("sireg from U-mode ", "", numbers[i]), MODE_U, read_sireg, 0, 0);
    }
    try("mtopei from S-mode", MODE_S, read_mtopei, 0, 0);
    try("mtopi written", MODE_M, write_mtopi, 0, 0);
}

/* What the files show, and whether they signal. */
static void files(const char *name)
{
    value(label(name, ", mtopei", 0), csr_read(MTOPEI));
    value(label(name, ", stopei", 0), csr_read(STOPEI));
    value(label(name, ", mip", 0), csr_read("mip") & (BIT(MEI) | BIT(SEI)));
}

static void messages(void)
{
    open_files();
    files("nothing");
    write32(IMSIC_M, 200);
    write32(IMSIC_M, 64);
    write32(IMSIC_M, 0);
    write32(IMSIC_M, 256);
    write32(IMSIC_M + 8, 3);
    write32(IMSIC_S, 255);
    write32(IMSIC_S, 1);
    value("page", read32(IMSIC_M));
    files("sent");
    csr_write(MISELECT, 0x82);
    value("eip2", csr_read(MIREG));
    csr_write(MISELECT, 0x86);
    value("eip6", csr_read(MIREG));
    machine_register(0x72, 64);
    supervisor_register(0x72, 2);
    files("threshold");
    machine_register(0x72, 65);
    files("above the threshold");
    machine_register(0x70, 0);
    supervisor_register(0x70, 0);
    files("not delivered");
    machine_register(0x70, 1);
    supervisor_register(0x70, 1);
    machine_register(0x72, 0);
    supervisor_register(0x72, 0);
    for (unsigned i = 0; i < 3; i++) {
        value(label("claimed, M ", "", i), csr_swap(MTOPEI, 0));
        value(label("claimed, S ", "", i), csr_swap(STOPEI, 0));
        files(label("claim ", "", i));
    }
    machine_register(0x80, BIT(5) | BIT(0));
    csr_write(MISELECT, 0x80);
    value("eip0 written", csr_read(MIREG));
    csr_clear(MIREG, BIT(5));
    files("eip0 cleared");
}

/* The number that goes first, of all that are enabled and pending. */
static void order(void)
{
    for (unsigned delegated = 0; delegated < 2; delegated++) {
        uint64_t left = BIT(SSI) | BIT(MSI) | BIT(STI) | BIT(SEI) | BIT(MEI), taken = 0;
        quiet();
        csr_write("mideleg", delegated ? BIT(SSI) | BIT(STI) | BIT(SEI) : 0);
        write32(IMSIC_M, 7);
        write32(IMSIC_S, 7);
        write32(CLINT, 1);
        csr_set("mip", BIT(SSI) | BIT(STI));
        csr_write("mie", left);
        value(label("mtopi first ", "", delegated), csr_read(MTOPI) >> 16);
        value(label("stopi first ", "", delegated), csr_read(STOPI) >> 16);
        while (left) {
            uint64_t first = csr_read(MTOPI) >> 16;
            if (!first)
                first = csr_read(STOPI) >> 16;
            taken = taken << 4 | first;
            if (!first)
                break;
            left &= ~BIT(first);
            csr_write("mie", left);
        }
        value(label("order ", "", delegated), taken);
        write32(CLINT, 0);
        csr_swap(MTOPEI, 0);
        csr_swap(STOPEI, 0);
    }
    quiet();
}

static void supervisor(void)
{
    quiet();
    write32(IMSIC_S, 33);
    csr_write("mideleg", BIT(SEI));
    csr_write("mie", BIT(SEI));
    csr_write(SISELECT, 0x82);
    for (unsigned allowed = 0; allowed < 8; allowed++) {
        csr_write("mstateen0", (uint64_t)allowed << 58);
        try(label("siselect, allowed ", "", allowed), MODE_S, read_siselect, 0, 0);
        try(label("sireg, allowed ", "", allowed), MODE_S, read_sireg, 0, 0);
        try(label("stopei, allowed ", "", allowed), MODE_S, read_stopei, 0, 0);
    }
    csr_write("mstateen0", ~0UL);
    value("stopi", csr_read(STOPI) >> 16);
    csr_set("mstatus", MSTATUS_SIE);
    run(MODE_S, spin, 0, 0);
    value("S-mode took", supervisor_outcome.taken ? supervisor_outcome.cause : 99);
    csr_clear("mstatus", MSTATUS_SIE | MSTATUS_SPIE);
    try("claim in S-mode", MODE_S, claim_stopei, 0, 0);
    try("stopei after it", MODE_S, read_stopei, 0, 0);
    quiet();
}

/* What each register holds when all of its bits were written. */
static void aplic_registers(const char *name, uint64_t aplic)
{
    static const uint16_t offsets[] = {0x0000, 0x0004, 0x0180, 0x0184, 0x0ffc, 0x1bfc, 0x1c00,
                                       0x1c0c, 0x1c10, 0x1cdc, 0x1d00, 0x1ddc, 0x1e00, 0x1e0c,
                                       0x1f00, 0x2000, 0x3004, 0x3180, 0x3ffc, 0x4000, 0x4008};

    for (unsigned i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
        if (offsets[i] != 0x0004 && offsets[i] != 0x3004)
            write32(aplic + offsets[i], ~0U);
        value(label(name, " at ", offsets[i]), read32(aplic + offsets[i]));
    }
    for (unsigned mode = 0; mode < 8; mode++) {
        if (mode == 2 || mode == 3)
            continue; /* reserved */
        write32(aplic + 4 * OTHER_SOURCE, mode);
        value(label(name, " mode ", mode), read32(aplic + 4 * OTHER_SOURCE));
        value(label(name, " rectified ", mode), read32(aplic + 0x1d00) & BIT(OTHER_SOURCE));
        write32(aplic + 0x1cdc, OTHER_SOURCE);
        value(label(name, " pending ", mode), read32(aplic + 0x1c00) & BIT(OTHER_SOURCE));
        write32(aplic + 0x1edc, OTHER_SOURCE);
        value(label(name, " enabled ", mode), read32(aplic + 0x1e00) & BIT(OTHER_SOURCE));
        write32(aplic + 0x1fdc, OTHER_SOURCE);
        write32(aplic + 0x1ddc, OTHER_SOURCE);
        value(label(name, " cleared ", mode), read32(aplic + 0x1c00) & BIT(OTHER_SOURCE));
    }
    write32(aplic + 4 * OTHER_SOURCE, 0);
    write32(aplic, 0);
}

static uint64_t claim(bool machine)
{
    return machine ? csr_swap(MTOPEI, 0) : csr_swap(STOPEI, 0);
}

/* The UART's level as messages, through the domain of M- or S-mode. Nothing is printed meanwhile:
 * that would make the level fall and rise. */
static void wire(const char *name, uint64_t aplic)
{
    static const char *const names[] = {"before", "raised",   "rectified", "pending", "once",
                                        "again",  "disabled", "lowered",   "after",   "genmsi"};
    bool machine = aplic == APLIC_M;
    uint64_t seen[10];

    write32(aplic + 4 * UART_SOURCE, 6);
    write32(aplic + 0x3000 + 4 * UART_SOURCE, 77);
    write32(aplic + 0x1edc, UART_SOURCE);
    write32(aplic, 0x100);
    seen[0] = claim(machine);
    *(volatile uint8_t *)(UART + 1) = 2; /* an interrupt when the transmitter is empty */
    seen[1] = claim(machine);
    seen[2] = read32(aplic + 0x1d00);
    seen[3] = read32(aplic + 0x1c00);
    seen[4] = claim(machine);
    write32(aplic + 0x2000, UART_SOURCE); /* as a driver ends its handler */
    seen[5] = claim(machine);
    write32(aplic + 0x1fdc, UART_SOURCE);
    write32(aplic + 0x1cdc, UART_SOURCE);
    seen[6] = read32(aplic + 0x1c00);
    *(volatile uint8_t *)(UART + 1) = 0;
    seen[7] = read32(aplic + 0x1c00);
    write32(aplic + 0x1ddc, UART_SOURCE);
    write32(aplic + 0x1edc, UART_SOURCE);
    write32(aplic + 0x2000, UART_SOURCE);
    seen[8] = claim(machine);
    write32(aplic + 0x3000, 78); /* genmsi */
    seen[9] = claim(machine);
    write32(aplic, 0);
    for (unsigned i = 0; i < 10; i++)
        value(label(name, names[i], 0), seen[i]);
}

static void aplic(void)
{
    write32(APLIC_M + 0x1bc0, IMSIC_M >> 12);
    write32(APLIC_M + 0x1bc4, 0);
    write32(APLIC_M + 0x1bc8, IMSIC_S >> 12);
    write32(APLIC_M + 0x1bcc, 0);
    value("mmsiaddrcfg", read32(APLIC_M + 0x1bc0));
    value("smsiaddrcfg", read32(APLIC_M + 0x1bc8));
    aplic_registers("M", APLIC_M);
    wire("M wire ", APLIC_M);
    /* Not delegated, a source is not there in S-mode's domain. */
    write32(APLIC_S + 4 * OTHER_SOURCE, 6);
    value("not delegated", read32(APLIC_S + 4 * OTHER_SOURCE));
    write32(APLIC_S + 4 * OTHER_SOURCE, 0);
    for (unsigned source = 1; source <= 96; source++)
        write32(APLIC_M + 4 * source, 0x400);
    value("delegated", read32(APLIC_M + 4 * OTHER_SOURCE));
    aplic_registers("S", APLIC_S);
    wire("S wire ", APLIC_S);
}

int main(void)
{
    csr_write("mstateen0", ~0UL);
    csr_write("menvcfg", 0);
    quiet();
    selections();
    messages();
    order();
    supervisor();
    aplic();
    return 0;
}
