/* A BAR that is memory, on harts that have it in their TLBs: where it was moved from it is gone. */
#include "hart_guest.h"

#include "pci/pci.h"

#define ECAM    UINT64_C(0x30000000)
#define WINDOW  UINT64_C(0x40000000)
#define BAR     (ECAM + (1 << 15) + 0x10)
#define COMMAND (ECAM + (1 << 15) + 0x04)
#define FLAG    (RAM + 0x10000)
#define RESULT  (RAM + 0x10040)
#define CODE    (RAM + 0x1000) /* of hart 1; hart 0's is at RAM */

enum { BAR_SIZE = 0x10000, ROUNDS = 100 };

static struct guest guest;
static struct pci_host *host;
static struct pci_device function;
static uint8_t *bar;
static _Thread_local struct hart *current;

static void remapped(void *opaque, uint64_t gpa, uint64_t size)
{
    hart_remapped(current, guest.harts, guest.count);
}

static void code_written(void *opaque, uint64_t gpa, uint64_t size)
{
    if (guest.jit)
        jit_code_written(guest.jit, gpa, size);
}

static void start(unsigned harts)
{
    static const struct pci_device_type type = {.name = "memory"};
    static const struct pci_identity identity = {
        .vendor = 0x1234, .device = 1, .class_code = 0x058000};
    const struct pci_host_config config = {
        .ecam_base = ECAM,
        .ecam_size = 0x10000000,
        .mmio32_base = WINDOW,
        .mmio32_size = 0x40000000,
    };
    guest_init(&guest, harts, NULL, NULL);
    const struct memory_listener listener = {.remapped = remapped, .code_written = code_written};
    memory_set_listener(guest.memory, &listener);
    memory_add_background(guest.memory, WINDOW, 0x40000000);
    host = pci_host_create(guest.memory, &config, NULL);
    assert_non_null(host);
    bar = aligned_alloc(MEMORY_PAGE_SIZE, BAR_SIZE);
    assert_non_null(bar);
    memset(bar, 0, BAR_SIZE);
    pci_device_init(&function, &type, &identity);
    pci_add_memory_bar(&function, 0, PCI_BAR_MEMORY32, true, BAR_SIZE, bar);
    assert_true(pci_device_attach(&function, pci_host_bus(host), PCI_DEVFN(1, 0), NULL));
    assert_true(memory_write(guest.memory, BAR, 4, WINDOW));
    assert_true(memory_write(guest.memory, COMMAND, 2, 2));
}

static void finish(void)
{
    current = NULL;
    pci_device_detach(&function);
    pci_host_device(host)->type->remove(pci_host_device(host));
    free(bar);
    guest_finish(&guest);
}

static void is_memory_to_harts(void **state)
{
    uint8_t *page;
    uint64_t value;
    start(1);
    guest_open(&guest);
    current = guest.hart; /* it executes on this thread */
    assert_int_equal(memory_page(guest.memory, WINDOW + 0x1000, &page), MEMORY_DEVICE);
    assert_ptr_equal(page, bar + 0x1000);
    guest.hart->x[10] = WINDOW + 0x1000;
    guest.hart->x[11] = 0x1122334455667788;
    STEP(&guest, sd, .rs1 = 10, .rs2 = 11, .imm = 8);
    assert_int_equal(load_le64(bar + 0x1008), 0x1122334455667788);
    STEP(&guest, lhu, .rd = 12, .rs1 = 10, .imm = 10);
    assert_int_equal(guest.hart->x[12], 0x5566);
    assert_true(memory_write(guest.memory, WINDOW + 4, 4, 99)); /* without a TLB */
    assert_true(memory_read(guest.memory, WINDOW + 4, 4, &value));
    assert_int_equal(value, 99);
    assert_int_equal(bar[4], 99);
    assert_false(memory_read(guest.memory, WINDOW + BAR_SIZE - 4, 8, &value));
    /* Not executed, and not what DMA reaches. */
    assert_false(memory_dma_read(guest.memory, WINDOW, &value, 8));
    guest.hart->pc = WINDOW;
    hart_step(guest.hart);
    guest_assert_trap(&guest, TRAP_FETCH_ACCESS, WINDOW);
    /* Moved: the old place is nothing, the new one has the contents. */
    guest.hart->pc = RAM;
    STEP(&guest, lw, .rd = 12, .rs1 = 10, .imm = 8);
    assert_int_equal(guest.hart->x[12], 0x55667788);
    guest.hart->x[13] = BAR;
    guest.hart->x[14] = WINDOW + BAR_SIZE;
    STEP(&guest, sw, .rs1 = 13, .rs2 = 14, .imm = 0);
    STEP(&guest, lw, .rd = 12, .rs1 = 10, .imm = 8);
    assert_int_equal(guest.hart->x[12], UINT64_MAX);
    STEP(&guest, sw, .rs1 = 10, .rs2 = 0, .imm = 8);
    guest.hart->x[10] += BAR_SIZE;
    STEP(&guest, lw, .rd = 12, .rs1 = 10, .imm = 8);
    assert_int_equal(guest.hart->x[12], 0x55667788);
    /* No longer decoded at all. */
    guest.hart->x[13] = COMMAND;
    STEP(&guest, sh, .rs1 = 13, .rs2 = 0, .imm = 0);
    STEP(&guest, lw, .rd = 12, .rs1 = 10, .imm = 8);
    assert_int_equal(guest.hart->x[12], UINT64_MAX);
    finish();
}

static void *run_hart(void *opaque)
{
    current = opaque;
    guest_run(opaque);
    return NULL;
}

/*
 * Hart 1 loads from the BAR over and over; a load that begins after it has seen the flag is at an
 * address that hart 0 had moved the BAR away from before it set the flag.
 */
static void assemble(void)
{
    guest.at = CODE;
    INSN(&guest, lw, .rd = 6, .rs1 = 10, .imm = 0); /* the flag */
    INSN(&guest, fence, .imm = 0x0ff);
    INSN(&guest, lw, .rd = 5, .rs1 = 11, .imm = 0); /* the old address */
    INSN(&guest, addi, .rd = 7, .rs1 = 7, .imm = 1);
    INSN(&guest, sd, .rs1 = 12, .rs2 = 7, .imm = 8); /* how often */
    INSN(&guest, beq, .rs1 = 6, .rs2 = 0, .imm = -20);
    INSN(&guest, sd, .rs1 = 12, .rs2 = 5, .imm = 0);
    INSN(&guest, sd, .rs1 = 14, .rs2 = 0, .imm = 0); /* stop */
    INSN(&guest, jal, .rd = 0, .imm = 0);

    guest.at = RAM;
    INSN(&guest, ld, .rd = 5, .rs1 = 12, .imm = 8); /* wait until it has the page */
    INSN(&guest, addi, .rd = 5, .rs1 = 5, .imm = -100);
    INSN(&guest, blt, .rs1 = 5, .rs2 = 0, .imm = -8);
    INSN(&guest, sw, .rs1 = 13, .rs2 = 15, .imm = 0); /* move it */
    INSN(&guest, fence, .imm = 0x0ff);
    INSN(&guest, addi, .rd = 5, .rs1 = 0, .imm = 1);
    INSN(&guest, sw, .rs1 = 10, .rs2 = 5, .imm = 0);
    INSN(&guest, jal, .rd = 0, .imm = 0);
}

static void race(void)
{
    start(2);
    assemble();
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t from = WINDOW + BAR_SIZE * round;
        pthread_t threads[2];
        guest_store(&guest, FLAG, 0);
        guest_store(&guest, RESULT, 0);
        guest_store(&guest, RESULT + 8, 0);
        for (unsigned i = 0; i < 2; i++) {
            struct hart *hart = guest.harts[i];
            hart->pc = i ? CODE : RAM;
            hart->x[7] = 0;
            hart->x[10] = FLAG;
            hart->x[11] = from;
            hart->x[12] = RESULT;
            hart->x[13] = BAR;
            hart->x[14] = STOP;
            hart->x[15] = from + BAR_SIZE;
        }
        for (unsigned i = 0; i < 2; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, run_hart, guest.harts[i]), 0);
        for (unsigned i = 0; i < 2; i++)
            pthread_join(threads[i], NULL);
        assert_int_equal(guest_load(&guest, RESULT), UINT64_MAX);
    }
    finish();
}

static void moves_are_seen_by_all_harts(void **state)
{
    race();
}

static void moves_are_seen_by_translated_code(void **state)
{
    struct error err;
    struct jit *jit = jit_create(&err);
    if (!jit)
        skip();
    jit_destroy(jit);
    guest_translates = true;
    race();
    guest_translates = false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_memory_to_harts),
        cmocka_unit_test(moves_are_seen_by_all_harts),
        cmocka_unit_test(moves_are_seen_by_translated_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
