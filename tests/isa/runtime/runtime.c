#include "runtime.h"

volatile struct supervisor_outcome supervisor_outcome;

void enter(struct outcome *outcome, enum mode mode, uint64_t code, uint64_t a0, uint64_t a1);
extern char supervisor_vector[];

void *memset(void *target, int byte, size_t size)
{
    for (unsigned char *p = target; size > 0; size--)
        *p++ = (unsigned char)byte;
    return target;
}

void *memcpy(void *target, const void *source, size_t size)
{
    unsigned char *to = target;
    for (const unsigned char *from = source; size > 0; size--)
        *to++ = *from++;
    return target;
}

/* --- results --- */

/* The bits of mstatus that traps and returns move: SIE to MPP, MPRV to TSR. */
#define STATUS_SHOWN 0x7e19aaUL

static uint64_t user_offset;

struct outcome run(enum mode mode, code *code, uint64_t a0, uint64_t a1)
{
    struct outcome outcome = {0};
    uint64_t entry = (uint64_t)code - (mode == MODE_U ? user_offset : 0);

    supervisor_outcome.taken = 0;
    csr_write("stvec", supervisor_vector);
    enter(&outcome, mode, entry, a0, a1);
    outcome.epc -= entry;
    supervisor_outcome.epc -= entry;
    return outcome;
}

static void print_values(const uint64_t *values, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        print_char(' ');
        print_hex(values[i]);
    }
}

void report(const char *name, const struct outcome *o)
{
    print(name);
    print(": cause epc tval status a0");
    print_values((uint64_t[]){o->cause, o->epc, o->tval, o->status & STATUS_SHOWN, o->a0}, 5);
    if (supervisor_outcome.taken) {
        print(", before in S-mode: cause epc tval status vector");
        print_values((uint64_t[]){supervisor_outcome.cause, supervisor_outcome.epc,
                                  supervisor_outcome.tval, supervisor_outcome.status & STATUS_SHOWN,
                                  supervisor_outcome.vector},
                     5);
    }
    print_char('\n');
}

void try(const char *name, enum mode mode, code *code, uint64_t a0, uint64_t a1)
{
    struct outcome outcome = run(mode, code, a0, a1);
    report(name, &outcome);
}

void value(const char *name, uint64_t v)
{
    print(name);
    print(": ");
    print_hex(v);
    print_char('\n');
}

const char *label(const char *first, const char *second, uint64_t number)
{
    static char texts[32][128];
    static unsigned next;
    char *text = texts[next++ % 32];
    char *p = text;
    char digits[20];
    unsigned count = 0;

    while (*first && p < text + 80)
        *p++ = *first++;
    while (*second && p < text + 104)
        *p++ = *second++;
    do
        digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    while (count > 0)
        *p++ = digits[--count];
    *p = 0;
    return text;
}

/* --- translation --- */

#define TABLES 48
static uint64_t tables[TABLES][512] __attribute__((aligned(4096)));
static unsigned tables_used;
static unsigned levels;

static uint64_t *new_table(void)
{
    if (tables_used == TABLES) {
        print("out of page tables\n");
        finish(8);
    }
    memset(tables[tables_used], 0, sizeof tables[0]);
    return tables[tables_used++];
}

uint64_t *paging_entry(uint64_t address, unsigned level)
{
    uint64_t *table = tables[0];

    for (unsigned at = levels - 1;; at--) {
        uint64_t *entry = &table[address >> (12 + 9 * at) & 511];
        if (at == level)
            return entry;
        if (!(*entry & PTE_V))
            *entry = (uint64_t)new_table() >> 12 << 10 | PTE_V;
        table = (uint64_t *)((*entry & 0x3ffffffffffc00) >> 10 << 12);
    }
}

uint64_t *paging_map(uint64_t address, uint64_t physical, uint64_t flags, unsigned level)
{
    uint64_t *entry = paging_entry(address, level);
    *entry = (physical >> 12 & 0xfffffffffff) << 10 | flags;
    return entry;
}

void paging_start(unsigned level_count)
{
    const uint64_t all = PTE_V | PTE_R | PTE_W | PTE_X | PTE_A | PTE_D;

    levels = level_count;
    tables_used = 0;
    new_table();
    for (uint64_t offset = 0; offset < 0x4000000; offset += 0x200000) {
        paging_map(0x80000000 + offset, 0x80000000 + offset, all, 1);
        paging_map(0x80000000 - USER_ALIAS + offset, 0x80000000 + offset, all | PTE_U, 1);
    }
    paging_map(UART, UART, all, 0);
}

void paging_on(void)
{
    user_offset = USER_ALIAS;
    csr_write("satp", (uint64_t)(levels + 5) << 60 | (uint64_t)tables[0] >> 12);
    fence_translation();
}

void paging_off(void)
{
    user_offset = 0;
    csr_write("satp", 0);
    fence_translation();
}
