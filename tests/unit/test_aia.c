/* APLIC and IMSIC, seen as software and devices see them: registers, wires and messages. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base.h"
#include "irq/irq.h"
#include "memory/memory.h"

#define HARTS    4
#define SOURCES  96
#define RAM      UINT64_C(0x80000000)
#define APLIC_M  UINT64_C(0x0c000000)
#define APLIC_S  UINT64_C(0x0d000000)
#define IMSIC_S  UINT64_C(0x28000000)
#define SELECT_P 0x80 /* eip0 */
#define SELECT_E 0xc0 /* eie0 */

enum {
    DOMAINCFG = 0x0000,
    SOURCECFG = 0x0000, /* + 4n, n from 1 */
    SETIP = 0x1c00,
    SETIPNUM = 0x1cdc,
    CLRIP = 0x1d00,
    CLRIPNUM = 0x1ddc,
    SETIE = 0x1e00,
    SETIENUM = 0x1edc,
    CLRIENUM = 0x1fdc,
    SETIPNUM_LE = 0x2000,
    SETIPNUM_BE = 0x2004,
    GENMSI = 0x3000,
    TARGET = 0x3000, /* + 4n */
    IDC = 0x4000,    /* + 32 * hart */
};

enum { DELEGATE = 0x400, DETACHED = 1, RISING = 4, FALLING = 5, HIGH = 6, LOW = 7 };
#define IE 0x100

static struct memory *memory;
static struct imsic *imsic;
static struct aplic *aplic;
static _Atomic unsigned notified[HARTS];
static _Atomic bool machine_level[HARTS], supervisor_level[HARTS];

static void count(void *controller, unsigned source, bool level)
{
    ((_Atomic unsigned *)controller)[source]++;
}

static void set_level(void *controller, unsigned source, bool level)
{
    ((_Atomic bool *)controller)[source] = level;
}

static void create(bool messages, bool delegated)
{
    struct irq_line notify[HARTS], machine[HARTS], supervisor[HARTS];

    for (unsigned i = 0; i < HARTS; i++) {
        notify[i] = (struct irq_line){count, notified, i};
        machine[i] = (struct irq_line){set_level, machine_level, i};
        supervisor[i] = (struct irq_line){set_level, supervisor_level, i};
        notified[i] = 0;
        machine_level[i] = supervisor_level[i] = false;
    }
    memory = memory_create();
    assert_true(memory_add_ram(memory, RAM, 0x10000, NULL));
    imsic = imsic_create("imsic", &(struct imsic_config){.harts = HARTS, .notify = notify});
    assert_true(memory_add_messages(memory, IMSIC_S, HARTS * IMSIC_PAGE_SIZE, &imsic_ops, imsic,
                                    "imsic", NULL));
    aplic = aplic_create("aplic", &(struct aplic_config){.harts = HARTS,
                                                         .sources = SOURCES,
                                                         .messages = messages ? memory : NULL,
                                                         .machine = machine,
                                                         .supervisor = supervisor,
                                                         .delegated = delegated,
                                                         .supervisor_files = IMSIC_S});
    for (unsigned s = 0; s < 2; s++)
        assert_true(memory_add_mmio(memory, s ? APLIC_S : APLIC_M, APLIC_SIZE, &aplic_ops,
                                    aplic_domain(aplic, s), "aplic", NULL));
}

static int teardown(void **state)
{
    aplic_device(aplic)->type->remove(aplic_device(aplic));
    imsic_device(imsic)->type->remove(imsic_device(imsic));
    memory_destroy(memory);
    return 0;
}

static int setup_messages(void **state)
{
    create(true, true);
    return 0;
}

static int setup_firmware(void **state)
{
    create(true, false);
    return 0;
}

static int setup_direct(void **state)
{
    create(false, true);
    return 0;
}

static uint32_t get(uint64_t gpa)
{
    uint64_t value = 0;

    assert_true(memory_read(memory, gpa, 4, &value));
    return (uint32_t)value;
}

static void put(uint64_t gpa, uint32_t value)
{
    assert_true(memory_write(memory, gpa, 4, value));
}

static void wire(unsigned source, bool level)
{
    struct irq_line line = aplic_line(aplic, source);

    irq_set(&line, level);
}

static uint64_t file_get(unsigned hart, unsigned select)
{
    struct interrupt_file file = imsic_file(imsic, hart);

    return file.read(file.file, select);
}

static void file_put(unsigned hart, unsigned select, uint64_t value)
{
    struct interrupt_file file = imsic_file(imsic, hart);

    file.write(file.file, select, file.read(file.file, select), value);
}

static unsigned top(unsigned hart)
{
    struct interrupt_file file = imsic_file(imsic, hart);

    return file.top(file.file, true);
}

/* Claims what is on top, as a hart does that writes stopei. */
static unsigned claim(unsigned hart)
{
    struct interrupt_file file = imsic_file(imsic, hart);
    unsigned identity = file.top(file.file, false);

    if (identity)
        file.claim(file.file, identity);
    return identity;
}

static void open_file(unsigned hart)
{
    file_put(hart, 0x70, 1);
    for (unsigned word = 0; word < 4; word++)
        file_put(hart, SELECT_E + 2 * word, UINT64_MAX);
}

/* --- IMSIC ------------------------------------------------------------------------------------ */

static void messages_set_identities(void **state)
{
    open_file(1);
    put(IMSIC_S + 0x1000, 200);
    put(IMSIC_S + 0x1004, __builtin_bswap32(63)); /* seteipnum_be */
    assert_int_equal(notified[1], 2);
    assert_int_equal(notified[0], 0);
    put(IMSIC_S + 0x1000, 63); /* pending already */
    assert_int_equal(notified[1], 2);
    assert_int_equal(file_get(1, SELECT_P), BIT(63));
    assert_int_equal(file_get(1, SELECT_P + 6), BIT(200 - 192));
    assert_int_equal(claim(1), 63);
    assert_int_equal(claim(1), 200);
    assert_int_equal(claim(1), 0);
    /* There is no identity 0, and none above 255; other registers of the page ignore writes. */
    put(IMSIC_S + 0x1000, 0);
    put(IMSIC_S + 0x1000, 256);
    put(IMSIC_S + 0x1000, UINT32_MAX);
    put(IMSIC_S + 0x1008, 5);
    put(IMSIC_S + 0x1ffc, 5);
    for (unsigned word = 0; word < 4; word++)
        assert_int_equal(file_get(1, SELECT_P + 2 * word), 0);
    assert_int_equal(get(IMSIC_S + 0x1000), 0);
    uint64_t value;
    assert_false(memory_write(memory, IMSIC_S + 0x1000, 2, 5));
    assert_false(memory_write(memory, IMSIC_S + 0x1000, 8, 5));
    assert_false(memory_read(memory, IMSIC_S + HARTS * 0x1000, 4, &value));
}

static void delivery_threshold_and_enables(void **state)
{
    file_put(0, SELECT_E, UINT64_MAX);
    assert_int_equal(file_get(0, SELECT_E), ~UINT64_C(1));
    put(IMSIC_S, 9);
    assert_int_equal(top(0), 0); /* eidelivery is off, though *topei shows it */
    struct interrupt_file file = imsic_file(imsic, 0);
    assert_int_equal(file.top(file.file, false), 9);
    file_put(0, 0x70, 1);
    assert_int_equal(top(0), 9);
    file_put(0, 0x70, 0x40000001); /* delivery from a PLIC is not there */
    assert_int_equal(file_get(0, 0x70), 1);
    /* A threshold masks its own identity and all above. */
    file_put(0, 0x72, 9);
    assert_int_equal(top(0), 0);
    file_put(0, 0x72, 10);
    assert_int_equal(top(0), 9);
    file_put(0, 0x72, 0x1ff);
    assert_int_equal(file_get(0, 0x72), 0xff);
    file_put(0, SELECT_E, ~BIT(9));
    assert_int_equal(top(0), 0);
    /* Pending bits are the hart's to write as well; what arrives meanwhile stays. */
    file.write(file.file, SELECT_P, 0, BIT(5));
    assert_int_equal(file_get(0, SELECT_P), BIT(5) | BIT(9));
    file.write(file.file, SELECT_P, BIT(5), 0);
    assert_int_equal(file_get(0, SELECT_P), BIT(9));
    /* Reserved numbers, and arrays behind the last identity. */
    file_put(0, 0x71, 1);
    file_put(0, SELECT_P + 8, UINT64_MAX);
    assert_int_equal(file_get(0, 0x71), 0);
    assert_int_equal(file_get(0, SELECT_P + 8), 0);
    assert_int_equal(file_get(0, SELECT_E + 0x3e), 0);
}

#define ROUNDS 20000

static void *send_many(void *opaque)
{
    unsigned identity = *(unsigned *)opaque;

    for (unsigned i = 0; i < ROUNDS; i++)
        memory_send_message(memory, IMSIC_S + 0x2000, identity);
    return NULL;
}

/* Senders on two threads, a third one claims: after the last message nothing may be lost. */
static void messages_race_with_claims(void **state)
{
    static unsigned identities[2] = {70, 71};
    pthread_t threads[2];
    unsigned claims[2] = {0};

    open_file(2);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, send_many, &identities[i]), 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned identity = claim(2);
        if (identity)
            claims[identity - 70]++;
        file_put(2, SELECT_E + 2, i & 1 ? UINT64_MAX : 0);
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    file_put(2, SELECT_E + 2, UINT64_MAX);
    for (unsigned identity; (identity = claim(2));)
        claims[identity - 70]++;
    for (unsigned i = 0; i < 2; i++)
        assert_in_range(claims[i], 1, ROUNDS);
    assert_true(notified[2] >= claims[0] + claims[1]);
}

static void messages_elsewhere(void **state)
{
    uint32_t word;

    assert_true(memory_send_message(memory, RAM + 8, 0x12345678));
    assert_true(memory_dma_read(memory, RAM + 8, &word, 4));
    assert_int_equal(word, 0x12345678);
    assert_false(memory_send_message(memory, APLIC_S + SETIPNUM_LE, 1));
    assert_false(memory_send_message(memory, IMSIC_S + HARTS * 0x1000, 1));
    assert_false(memory_send_message(memory, UINT64_MAX - 3, 1));
}

/* --- APLIC with messages ---------------------------------------------------------------------- */

static void activate(unsigned source, unsigned mode, unsigned hart, unsigned identity)
{
    put(APLIC_S + SOURCECFG + 4 * source, mode);
    put(APLIC_S + TARGET + 4 * source, hart << 18 | identity);
    put(APLIC_S + SETIENUM, source);
}

static void start(void)
{
    for (unsigned i = 0; i < HARTS; i++)
        open_file(i);
    put(APLIC_S + DOMAINCFG, IE);
}

static void edges_become_messages(void **state)
{
    start();
    assert_int_equal(get(APLIC_S + DOMAINCFG), 0x80000104); /* DM is fixed */
    activate(10, RISING, 3, 40);
    activate(11, FALLING, 0, 41); /* whose input is high by that: an edge */
    assert_int_equal(claim(0), 41);
    wire(10, true);
    assert_int_equal(claim(3), 40);
    wire(10, true);
    wire(10, false);
    assert_int_equal(claim(3), 0);
    wire(11, true);
    assert_int_equal(claim(0), 0);
    wire(11, false);
    assert_int_equal(claim(0), 41);
    /* Held back while the domain or the source is disabled. */
    put(APLIC_S + CLRIENUM, 10);
    wire(10, true);
    assert_int_equal(claim(3), 0);
    assert_int_equal(get(APLIC_S + SETIP), BIT(10));
    put(APLIC_S + DOMAINCFG, 0);
    put(APLIC_S + SETIE, BIT(10));
    assert_int_equal(claim(3), 0);
    put(APLIC_S + DOMAINCFG, IE);
    assert_int_equal(claim(3), 40);
    assert_int_equal(get(APLIC_S + SETIP), 0); /* forwarding clears it */
    put(APLIC_S + SETIPNUM, 10);               /* software may set it whatever the wire */
    assert_int_equal(claim(3), 40);
}

/* As Linux does: the handler's end is a write of setipnum, which asks for the level again. */
static void levels_are_sent_again(void **state)
{
    start();
    activate(33, HIGH, 1, 50);
    put(APLIC_S + SETIPNUM_LE, 33); /* low: not pending */
    assert_int_equal(claim(1), 0);
    wire(33, true);
    assert_int_equal(claim(1), 50);
    assert_int_equal(get(APLIC_S + CLRIP + 4), BIT(1)); /* the rectified input */
    assert_int_equal(get(APLIC_S + SETIP + 4), 0);
    assert_int_equal(claim(1), 0); /* once a rise */
    put(APLIC_S + SETIPNUM_LE, 33);
    assert_int_equal(claim(1), 50);
    put(APLIC_S + SETIPNUM_BE, __builtin_bswap32(33));
    assert_int_equal(claim(1), 50);
    wire(33, false);
    put(APLIC_S + SETIPNUM_LE, 33);
    assert_int_equal(claim(1), 0);
    /* A level that falls before it is forwarded is no longer pending. */
    put(APLIC_S + CLRIENUM, 33);
    wire(33, true);
    assert_int_equal(get(APLIC_S + SETIP + 4), BIT(1));
    wire(33, false);
    assert_int_equal(get(APLIC_S + SETIP + 4), 0);
    /* The other level. */
    activate(34, LOW, 1, 51);
    assert_int_equal(claim(1), 51);
    wire(34, true);
    put(APLIC_S + SETIPNUM, 34);
    assert_int_equal(claim(1), 0);
}

static void lower(void *opaque, unsigned source)
{
    ++*(unsigned *)opaque;
    wire(source, false);
}

static void reevaluation_is_told(void **state)
{
    unsigned calls = 0;

    start();
    activate(35, HIGH, 0, 60);
    aplic_on_reevaluate(aplic, 35, lower, &calls);
    wire(35, true);
    assert_int_equal(claim(0), 60);
    assert_int_equal(calls, 0);
    put(APLIC_S + SETIPNUM_LE, 35);
    assert_int_equal(calls, 1);
    assert_int_equal(claim(0), 0); /* it had gone */
    put(APLIC_S + SOURCECFG + 4 * 35, RISING);
    put(APLIC_S + SETIPNUM_LE, 35);
    assert_int_equal(calls, 1);
}

static void detached_sources_and_genmsi(void **state)
{
    start();
    activate(1, DETACHED, 2, 255);
    wire(1, true);
    assert_int_equal(claim(2), 0);
    put(APLIC_S + SETIPNUM, 1);
    assert_int_equal(claim(2), 255);
    put(APLIC_S + DOMAINCFG, 0);
    put(APLIC_S + GENMSI, 1 << 18 | 77); /* whatever IE says */
    assert_int_equal(claim(1), 77);
    assert_int_equal(get(APLIC_S + GENMSI), 1 << 18 | 77); /* not busy */
    /* An index is cut to the bits that the addresses have room for (section 4.9.1). */
    put(APLIC_S + GENMSI, UINT32_C(0x3fff) << 18 | 77);
    assert_int_equal(claim(HARTS - 1), 77);
    for (unsigned i = 0; i < HARTS; i++)
        assert_int_equal(claim(i), 0);
}

/* What is not delegated, not active or not there is read-only zero. */
static void what_is_not_there(void **state)
{
    static const unsigned none[] = {0, 12, SOURCES + 1, 1023};

    start();
    for (unsigned i = 0; i < 4; i++) {
        put(APLIC_S + SETIPNUM, none[i]);
        put(APLIC_S + SETIENUM, none[i]);
        if (none[i])
            put(APLIC_S + TARGET + 4 * none[i], 1);
        assert_int_equal(none[i] ? get(APLIC_S + TARGET + 4 * none[i]) : 0, 0);
    }
    for (unsigned word = 0; word < 32; word++) {
        put(APLIC_S + SETIP + 4 * word, UINT32_MAX);
        put(APLIC_S + SETIE + 4 * word, UINT32_MAX);
        assert_int_equal(get(APLIC_S + SETIP + 4 * word), 0);
        assert_int_equal(get(APLIC_S + SETIE + 4 * word), 0);
    }
    put(APLIC_S + SOURCECFG + 4 * 1023, HIGH);
    assert_int_equal(get(APLIC_S + SOURCECFG + 4 * 1023), 0);
    put(APLIC_S + SOURCECFG + 4 * 12, DELEGATE); /* it has no child */
    assert_int_equal(get(APLIC_S + SOURCECFG + 4 * 12), 0);
    put(APLIC_S + SOURCECFG + 4 * 12, 3); /* reserved */
    assert_int_equal(get(APLIC_S + SOURCECFG + 4 * 12), 0);
    assert_int_equal(get(APLIC_S + 0x1bc8), 0); /* addresses are the root's */
    assert_int_equal(get(APLIC_S + IDC), 0);
    assert_int_equal(get(APLIC_S + 0x2ffc), 0);
}

/* What firmware does: addresses, then delegation. */
static void delegation(void **state)
{
    start();
    put(APLIC_S + SOURCECFG + 4 * 7, HIGH);
    assert_int_equal(get(APLIC_S + SOURCECFG + 4 * 7), 0);
    put(APLIC_M + 0x1bc4, 2 << 12); /* two bits of hart index */
    put(APLIC_M + 0x1bc8, IMSIC_S >> 12);
    put(APLIC_M + 0x1bcc, 0);
    put(APLIC_M + SOURCECFG + 4 * 7, HIGH);
    assert_int_equal(get(APLIC_M + SOURCECFG + 4 * 7), HIGH);
    put(APLIC_M + SOURCECFG + 4 * 7, DELEGATE | 5);
    assert_int_equal(get(APLIC_M + SOURCECFG + 4 * 7), DELEGATE);
    activate(7, HIGH, 3, 90);
    wire(7, true);
    assert_int_equal(claim(3), 90);
    assert_int_equal(get(APLIC_M + CLRIP), 0);
    /* Taken back: the child's is gone, with enable and target. */
    put(APLIC_M + SOURCECFG + 4 * 7, DETACHED);
    assert_int_equal(get(APLIC_S + SOURCECFG + 4 * 7), 0);
    assert_int_equal(get(APLIC_S + SETIE), 0);
    assert_int_equal(get(APLIC_S + TARGET + 4 * 7), 0);
    /* Locked, addresses stay. */
    put(APLIC_M + 0x1bc4, UINT32_C(1) << 31 | 2 << 12);
    put(APLIC_M + 0x1bc8, 0);
    put(APLIC_M + 0x1bc4, 0);
    assert_int_equal(get(APLIC_M + 0x1bc8), IMSIC_S >> 12);
    assert_int_equal(get(APLIC_M + 0x1bc4), UINT32_C(1) << 31 | 2 << 12);
}

/* --- APLIC in direct mode --------------------------------------------------------------------- */

static uint64_t idc(unsigned hart, unsigned offset)
{
    return APLIC_S + IDC + 32 * hart + offset;
}

static void direct_delivery(void **state)
{
    assert_int_equal(get(APLIC_S + DOMAINCFG), 0x80000000);
    put(APLIC_S + DOMAINCFG, IE);
    put(idc(2, 0), 1);
    activate(20, HIGH, 2, 5); /* its priority */
    activate(21, RISING, 2, 3);
    activate(22, RISING, 2, 3);
    wire(20, true);
    assert_true(supervisor_level[2]);
    assert_false(supervisor_level[1]);
    assert_int_equal(get(idc(2, 0x18)), 20 << 16 | 5);
    wire(22, true);
    wire(21, true);
    assert_int_equal(get(idc(2, 0x1c)), 21 << 16 | 3); /* of equal ones the lowest number */
    assert_int_equal(get(idc(2, 0x1c)), 22 << 16 | 3);
    assert_int_equal(get(idc(2, 0x1c)), 20 << 16 | 5);
    assert_int_equal(get(idc(2, 0x1c)), 20 << 16 | 5); /* a level stays */
    put(APLIC_S + CLRIPNUM, 20);
    put(APLIC_S + SETIPNUM, 20);
    wire(20, false);
    put(APLIC_S + SETIPNUM, 20);
    assert_int_equal(get(APLIC_S + SETIP), 0);
    assert_false(supervisor_level[2]);
    assert_int_equal(get(idc(2, 0x1c)), 0);
    assert_false(machine_level[2]);
}

static void direct_thresholds_and_force(void **state)
{
    put(APLIC_S + DOMAINCFG, IE);
    put(idc(1, 0), 1);
    activate(20, HIGH, 1, 0); /* priority 0 becomes 1 */
    assert_int_equal(get(APLIC_S + TARGET + 4 * 20), 1 << 18 | 1);
    put(APLIC_S + TARGET + 4 * 20, 1 << 18 | 8);
    wire(20, true);
    put(idc(1, 8), 8);
    assert_false(supervisor_level[1]);
    put(idc(1, 8), 9);
    assert_true(supervisor_level[1]);
    put(idc(1, 8), 8);
    put(idc(1, 4), 1); /* iforce */
    assert_true(supervisor_level[1]);
    assert_int_equal(get(idc(1, 0x1c)), 0); /* spurious: takes it back */
    assert_int_equal(get(idc(1, 4)), 0);
    assert_false(supervisor_level[1]);
    put(idc(1, 8), 0);
    assert_true(supervisor_level[1]);
    put(idc(1, 0), 0);
    assert_false(supervisor_level[1]);
    put(idc(1, 0), 1);
    put(APLIC_S + DOMAINCFG, 0);
    assert_false(supervisor_level[1]);
    put(APLIC_S + DOMAINCFG, IE);
    /* To another hart, and to one that is not there. */
    put(idc(3, 0), 1);
    put(APLIC_S + TARGET + 4 * 20, 3 << 18 | 8);
    assert_false(supervisor_level[1]);
    assert_true(supervisor_level[3]);
    put(APLIC_S + TARGET + 4 * 20, UINT32_C(0x3fff) << 18 | 8);
    assert_false(supervisor_level[3]);
    assert_int_equal(get(idc(HARTS, 0x18)), 0);
}

/* --- State ------------------------------------------------------------------------------------ */

static void move(struct device *device)
{
    struct stream *saving = stream_create_saving();
    size_t size;

    device->type->state(device, saving);
    const void *bytes = stream_data(saving, &size);
    struct stream *loading = stream_create_loading(bytes, size);
    device->type->reset(device);
    device->type->state(device, loading);
    assert_false(stream_failed(loading));
    stream_destroy(loading);
    stream_destroy(saving);
}

static void state_is_kept(void **state)
{
    start();
    activate(10, RISING, 3, 40);
    activate(33, HIGH, 1, 50);
    wire(33, true);
    put(APLIC_S + CLRIENUM, 10);
    wire(10, true);
    put(IMSIC_S, 9);
    file_put(0, 0x72, 100);
    move(imsic_device(imsic));
    move(aplic_device(aplic));
    assert_int_equal(file_get(0, 0x72), 100);
    assert_int_equal(claim(0), 9);
    assert_int_equal(claim(1), 50);
    assert_int_equal(get(APLIC_S + SETIP), BIT(10));
    put(APLIC_S + SETIENUM, 10);
    assert_int_equal(claim(3), 40);
    put(APLIC_S + SETIPNUM_LE, 33);
    assert_int_equal(claim(1), 50);
    aplic_device(aplic)->type->reset(aplic_device(aplic));
    assert_int_equal(get(APLIC_S + SOURCECFG + 4 * 33), 0);
    assert_int_equal(get(APLIC_S + DOMAINCFG), 0x80000004);
}

#define TEST(name, kind) cmocka_unit_test_setup_teardown(name, setup_##kind, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(messages_set_identities, messages),
        TEST(delivery_threshold_and_enables, messages),
        TEST(messages_race_with_claims, messages),
        TEST(messages_elsewhere, messages),
        TEST(edges_become_messages, messages),
        TEST(levels_are_sent_again, messages),
        TEST(reevaluation_is_told, messages),
        TEST(detached_sources_and_genmsi, messages),
        TEST(what_is_not_there, messages),
        TEST(delegation, firmware),
        TEST(direct_delivery, direct),
        TEST(direct_thresholds_and_force, direct),
        TEST(state_is_kept, messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
