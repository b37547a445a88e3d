/* Smaia and Ssaia: a hart with interrupt files, through its CSRs. */
#include "hart_guest.h"

#include "irq/irq.h"

static struct guest guest;
static struct imsic *imsics[2]; /* M, S */

static void start(const char *cpu)
{
    guest_init(&guest, 1, cpu, NULL);
    guest_open(&guest);
    struct irq_line notify = hart_look_line(guest.hart);
    for (unsigned i = 0; i < 2; i++) {
        imsics[i] = imsic_create("imsic", &(struct imsic_config){.harts = 1, .notify = &notify});
        struct interrupt_file file = imsic_file(imsics[i], 0);
        hart_set_interrupt_file(guest.hart, i ? PRIVILEGE_SUPERVISOR : PRIVILEGE_MACHINE, &file);
    }
}

static void finish(void)
{
    guest_finish(&guest);
    for (unsigned i = 0; i < 2; i++)
        imsic_device(imsics[i])->type->remove(imsic_device(imsics[i]));
}

static void message(bool supervisor, unsigned identity)
{
    imsic_ops.write(imsics[supervisor], 0, identity, 4);
}

static uint64_t csr(const char *name)
{
    return guest_csr(&guest, name);
}

static void set(const char *name, uint64_t value)
{
    guest_set_csr(&guest, name, value);
}

static void set_indirect(const char *select, const char *reg, unsigned number, uint64_t value)
{
    set(select, number);
    set(reg, value);
}

/* Executes csrrs x5, csr, x0 (or csrrw x5, csr, x6): whether it is legal. x5 has the old value. */
static bool executes(const char *name, bool write)
{
    guest.hart->pc = RAM;
    if (write)
        STEP(&guest, csrrw, .rd = 5, .rs1 = 6, .imm = guest_csr_number(name));
    else
        STEP(&guest, csrrs, .rd = 5, .rs1 = 0, .imm = guest_csr_number(name));
    if (guest.hart->pc != HANDLER)
        return true;
    assert_int_equal(guest.hart->mcause, TRAP_ILLEGAL);
    return false;
}

static void in_supervisor_mode(void)
{
    hart_set_privilege(guest.hart, PRIVILEGE_SUPERVISOR);
}

static void in_machine_mode(void)
{
    hart_set_privilege(guest.hart, PRIVILEGE_MACHINE);
}

static void open_files(void)
{
    set_indirect("miselect", "mireg", 0x70, 1);
    set_indirect("miselect", "mireg", 0xc0, UINT64_MAX);
    set_indirect("siselect", "sireg", 0x70, 1);
    set_indirect("siselect", "sireg", 0xc0, UINT64_MAX);
}

static void there_only_with_the_extension(void **state)
{
    static const char *const names[] = {"miselect", "mireg",    "mtopei", "mtopi",  "mvien",
                                        "mvip",     "siselect", "sireg",  "stopei", "stopi"};
    guest_init(&guest, 1, NULL, NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
        assert_null(hart_csr_find(guest.hart, guest_csr_number(names[i])));
    set("mstateen0", UINT64_MAX);
    assert_int_equal(csr("mstateen0"), BIT(63) | BIT(62));
    guest_finish(&guest);
    start("smaia");
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
        assert_non_null(hart_csr_find(guest.hart, guest_csr_number(names[i])));
    set("mstateen0", UINT64_MAX);
    assert_int_equal(csr("mstateen0"), BIT(63) | BIT(62) | BIT(60) | BIT(59) | BIT(58));
    finish();
}

/* AIA 1.0, section 2.4: what *iselect may select. */
static void selections(void **state)
{
    start("smaia");
    set("miselect", UINT64_MAX);
    assert_int_equal(csr("miselect"), 0xfff);
    for (unsigned number = 0; number < 0x200; number++) {
        bool priorities = number >= 0x30 && number <= 0x3f && !(number & 1);
        bool registers = number >= 0x70 && number < 0x80;
        bool arrays = number >= 0x80 && number <= 0xff && !(number & 1);
        set("miselect", number);
        set("siselect", number);
        guest.hart->x[6] = UINT64_MAX;
        for (int write = 0; write < 2; write++) {
            assert_int_equal(executes("mireg", write), priorities || registers || arrays);
            in_machine_mode();
            assert_int_equal(executes("sireg", write), priorities || registers || arrays);
            in_machine_mode();
        }
        if (priorities)
            assert_int_equal(csr("mireg"), 0); /* read-only zero */
    }
    finish();
}

static void without_files(void **state)
{
    guest_init(&guest, 1, "smaia", NULL);
    guest_open(&guest);
    set("miselect", 0x70);
    assert_false(executes("mireg", false));
    assert_false(executes("mtopei", false));
    assert_false(executes("stopei", true));
    set("miselect", 0x30);
    assert_true(executes("mireg", false));
    assert_true(executes("mtopi", false));
    guest_finish(&guest);
}

static void a_message_interrupts(void **state)
{
    start("smaia");
    open_files();
    set("mie", BIT(11) | BIT(9));
    set("mideleg", BIT(9));
    message(false, 6);
    message(false, 4);
    assert_int_equal(csr("mip"), BIT(11));
    assert_int_equal(csr("mtopi"), 11 << 16 | 1);
    assert_int_equal(csr("mtopei"), 4 << 16 | 4);
    set("mstatus", csr("mstatus") | BIT(3));
    STEP(&guest, addi);
    assert_int_equal(guest.hart->pc, HANDLER);
    assert_int_equal(guest.hart->mcause, BIT(63) | 11);
    /* Reading and writing in one instruction claims what was read; reading alone does not. */
    assert_true(executes("mtopei", false));
    assert_int_equal(guest.hart->x[5], 4 << 16 | 4);
    assert_true(executes("mtopei", true));
    assert_int_equal(guest.hart->x[5], 4 << 16 | 4);
    assert_int_equal(csr("mip"), BIT(11));
    assert_true(executes("mtopei", true));
    assert_int_equal(guest.hart->x[5], 6 << 16 | 6);
    assert_int_equal(csr("mip"), 0);
    assert_int_equal(csr("mtopi"), 0);
    assert_true(executes("mtopei", true));
    assert_int_equal(guest.hart->x[5], 0);
    /* S-mode's goes to S-mode. */
    message(true, 63);
    assert_int_equal(csr("mtopi"), 0);
    assert_int_equal(csr("stopi"), 9 << 16 | 1);
    guest.hart->pc = RAM;
    in_supervisor_mode();
    set("sstatus", BIT(1));
    STEP(&guest, addi);
    assert_int_equal(guest.hart->scause, BIT(63) | 9);
    assert_int_equal(guest.hart->privilege, PRIVILEGE_SUPERVISOR);
    finish();
}

/* csrrs and csrrc on eip change only their own bits. */
static void pending_bits_are_written_by_the_bit(void **state)
{
    start("smaia");
    set("miselect", 0x80);
    guest.hart->x[6] = BIT(7) | BIT(0);
    guest.hart->pc = RAM;
    STEP(&guest, csrrs, .rd = 5, .rs1 = 6, .imm = guest_csr_number("mireg"));
    assert_int_equal(csr("mireg"), BIT(7)); /* there is no identity 0 */
    message(false, 9);
    guest.hart->x[6] = BIT(7);
    STEP(&guest, csrrc, .rd = 5, .rs1 = 6, .imm = guest_csr_number("mireg"));
    assert_int_equal(guest.hart->x[5], BIT(9) | BIT(7));
    assert_int_equal(csr("mireg"), BIT(9));
    finish();
}

/* mtopi and stopi show what would be taken first: the default order (section 5.1). */
static void order(void **state)
{
    static const uint8_t machine[] = {11, 3, 7, 9, 1, 5, 13};
    start("smaia");
    open_files();
    set("mie", UINT64_MAX);
    message(false, 1);
    message(true, 1);
    hart_set_interrupt(guest.hart, INTERRUPT_MSI, true);
    hart_set_interrupt(guest.hart, INTERRUPT_MTI, true);
    set("mip", BIT(1) | BIT(5) | BIT(13));
    for (unsigned i = 0; i < ARRAY_SIZE(machine); i++) {
        assert_int_equal(csr("mtopi"), machine[i] << 16 | 1);
        set("mie", csr("mie") & ~BIT(machine[i]));
    }
    assert_int_equal(csr("mtopi"), 0);
    set("mie", UINT64_MAX);
    set("mideleg", UINT64_MAX);
    assert_int_equal(csr("stopi"), 9 << 16 | 1);
    set("sie", csr("sie") & ~BIT(9));
    assert_int_equal(csr("stopi"), 1 << 16 | 1);
    finish();
}

/* Bits of mstateen0 for S-mode (Smstateen). */
static void state_enable(void **state)
{
    static const struct {
        const char *csr;
        unsigned select;
        uint64_t needs;
    } cases[] = {
        {"siselect", 0x70, BIT(60)},        {"sireg", 0x70, BIT(60) | BIT(58)},
        {"sireg", 0x30, BIT(60) | BIT(59)}, {"stopei", 0x70, BIT(58)},
        {"stopi", 0x70, BIT(59)},
    };
    start("smaia");
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
        for (uint64_t enabled = 0; enabled < 8; enabled++) {
            in_machine_mode();
            set("mstateen0", enabled << 58);
            set("siselect", cases[i].select);
            in_supervisor_mode();
            bool expected = (cases[i].needs & ~(enabled << 58)) == 0;
            if (executes(cases[i].csr, false) != expected)
                fail_msg("%s with 0x%x: bits %u", cases[i].csr, cases[i].select, (unsigned)enabled);
        }
    finish();
}

/* Section 5.3: M-mode filters S-mode's external interrupts and makes up its own. */
static void filtering(void **state)
{
    start("smaia");
    open_files();
    set("mstateen0", UINT64_MAX);
    set("mvien", UINT64_MAX);
    assert_int_equal(csr("mvien"), BIT(9) | BIT(1));
    /* The file's signal is M-mode's now, and S-mode sees neither the file nor the signal. */
    message(true, 5);
    assert_int_equal(csr("mip"), BIT(9));
    assert_int_equal(csr("sip"), 0);
    set("siselect", 0x70);
    in_supervisor_mode();
    assert_false(executes("stopei", false));
    in_supervisor_mode();
    assert_false(executes("sireg", false));
    in_machine_mode();
    assert_true(executes("stopei", true)); /* M-mode claims it */
    assert_int_equal(guest.hart->x[5], 5 << 16 | 5);
    /* mvip's SEIP shows in sip alone; SSIP is separate from mip's. */
    set("mvip", BIT(9) | BIT(1));
    assert_int_equal(csr("mip"), 0);
    assert_int_equal(csr("sip"), BIT(9) | BIT(1));
    set("sie", BIT(9));
    assert_int_equal(csr("mie"), 0);
    assert_int_equal(csr("sie"), BIT(9));
    assert_int_equal(csr("stopi"), 9 << 16 | 1);
    assert_int_equal(csr("mtopi"), 0);
    in_supervisor_mode();
    set("sstatus", BIT(1));
    guest.hart->pc = RAM;
    STEP(&guest, addi);
    assert_int_equal(guest.hart->scause, BIT(63) | 9);
    assert_int_equal(guest.hart->privilege, PRIVILEGE_SUPERVISOR);
    /* S-mode writes its own SSIP, M-mode's stays. */
    set("sip", 0);
    assert_int_equal(csr("mvip"), BIT(9));
    set("mip", BIT(1));
    assert_int_equal(csr("sip"), BIT(9));
    set("mvien", 0);
    assert_int_equal(csr("mvip"), BIT(9) | BIT(1)); /* aliases of mip's */
    set("mvip", 0);
    assert_int_equal(csr("mip"), 0);
    finish();
}

/* mvip's STIP is mip's as long as software writes that. */
static void virtual_timer(void **state)
{
    start("smaia");
    set("menvcfg", 0);
    set("mvip", BIT(5));
    assert_int_equal(csr("mip"), BIT(5));
    set("mip", 0);
    assert_int_equal(csr("mvip"), 0);
    set("menvcfg", BIT(63));
    set("mvip", BIT(5));
    assert_int_equal(csr("mvip"), 0);
    finish();
}

static void *run_hart(void *opaque)
{
    guest_run(guest.hart);
    return NULL;
}

/* wfi sleeps until a message arrives; the handler claims it and stores what it was. */
static void run_wfi_and_wake(void)
{
    pthread_t thread;
    start("smaia");
    open_files();
    set("mie", BIT(11));
    set("mstatus", csr("mstatus") | BIT(3));
    guest.hart->x[10] = RAM + 0x4000;
    guest.hart->x[11] = STOP;
    guest.at = RAM;
    INSN(&guest, wfi);
    INSN(&guest, jal, .rd = 0, .imm = -4);
    guest.at = HANDLER;
    INSN(&guest, csrrw, .rd = 5, .rs1 = 0, .imm = guest_csr_number("mtopei"));
    INSN(&guest, sd, .rs1 = 10, .rs2 = 5, .imm = 0);
    INSN(&guest, addi, .rd = 10, .rs1 = 10, .imm = 8);
    INSN(&guest, srli, .rd = 7, .rs1 = 5, .imm = 16);
    INSN(&guest, addi, .rd = 6, .rs1 = 0, .imm = 50);
    INSN(&guest, bne, .rs1 = 7, .rs2 = 6, .imm = 8);
    INSN(&guest, sd, .rs1 = 11, .rs2 = 0, .imm = 0);
    INSN(&guest, mret);
    hart_fence_i(guest.hart);
    guest.hart->pc = RAM;
    assert_int_equal(pthread_create(&thread, NULL, run_hart, NULL), 0);
    for (unsigned identity = 1; identity <= 50; identity++)
        message(false, identity);
    pthread_join(thread, NULL);
    uint64_t last = 0;
    for (unsigned i = 0; i < 50; i++) {
        last = guest_load(&guest, RAM + 0x4000 + 8 * i);
        if (last >> 16 == 50)
            break;
        assert_in_range(last >> 16, 1, 49);
    }
    assert_int_equal(last, 50 << 16 | 50);
    finish();
}

static void messages_wake_the_interpreter(void **state)
{
    for (unsigned i = 0; i < 20; i++)
        run_wfi_and_wake();
}

static void messages_wake_translated_code(void **state)
{
    struct error err;
    struct jit *jit = jit_create(&err);
    if (!jit)
        skip();
    jit_destroy(jit);
    guest_translates = true;
    for (unsigned i = 0; i < 20; i++)
        run_wfi_and_wake();
    guest_translates = false;
}

static void state_is_kept(void **state)
{
    start("smaia");
    set("miselect", 0x72);
    set("siselect", 0x80);
    set("mvien", BIT(1));
    set("mvip", BIT(1));
    set("sie", BIT(1));
    struct stream *saving = stream_create_saving();
    hart_state(guest.hart, saving);
    size_t size;
    const void *bytes = stream_data(saving, &size);
    hart_reset(guest.hart, RAM);
    assert_int_equal(csr("miselect"), 0);
    struct stream *loading = stream_create_loading(bytes, size);
    hart_state(guest.hart, loading);
    assert_false(stream_failed(loading));
    assert_int_equal(csr("miselect"), 0x72);
    assert_int_equal(csr("siselect"), 0x80);
    assert_int_equal(csr("mvien"), BIT(1));
    assert_int_equal(csr("sip"), BIT(1));
    assert_int_equal(csr("sie"), BIT(1));
    stream_destroy(loading);
    stream_destroy(saving);
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_only_with_the_extension),
        cmocka_unit_test(selections),
        cmocka_unit_test(without_files),
        cmocka_unit_test(a_message_interrupts),
        cmocka_unit_test(pending_bits_are_written_by_the_bit),
        cmocka_unit_test(order),
        cmocka_unit_test(state_enable),
        cmocka_unit_test(filtering),
        cmocka_unit_test(virtual_timer),
        cmocka_unit_test(messages_wake_the_interpreter),
        cmocka_unit_test(messages_wake_translated_code),
        cmocka_unit_test(state_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
