/* MSI and MSI-X: capabilities, masking, pending bits, and virtio's vectors. */
#include "pci_bench.h"

/* Where messages go: what arrived, in order. */
#define DOORBELL UINT64_C(0x28000000)

static struct {
    uint64_t offset;
    uint32_t data;
} arrived[64];
static unsigned arrivals;

static void doorbell_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    assert_in_range(arrivals, 0, ARRAY_SIZE(arrived) - 1);
    arrived[arrivals].offset = offset;
    arrived[arrivals++].data = (uint32_t)value;
}

static const struct mmio_ops doorbell_ops = {.write = doorbell_write, .min_size = 4, .max_size = 4};

static int setup_messages(void **state)
{
    arrivals = 0;
    setup_with(state, true);
    struct bench *bench = *state;
    assert_true(memory_add_messages(bench->memory, DOORBELL, 0x1000, &doorbell_ops, NULL,
                                    "doorbell", NULL));
    return 0;
}

static void expect_arrival(uint64_t offset, uint32_t data)
{
    assert_int_equal(arrivals, 1);
    assert_int_equal(arrived[0].offset, offset);
    assert_int_equal(arrived[0].data, data);
    arrivals = 0;
}

#define SLOT    3
#define TABLE   (MEM32 + 0x10000)
#define VECTORS 70

struct function {
    struct pci_device pci;
    struct pci_msix msix;
    struct pci_msi msi;
};

static unsigned find(struct bench *bench, unsigned slot, unsigned id)
{
    unsigned at = get(bench, slot, 0x34, 1);

    while (at && get(bench, slot, at, 1) != id)
        at = get(bench, slot, at + 1, 1);
    assert_int_not_equal(at, 0);
    return at;
}

static void attach(struct bench *bench, struct function *function)
{
    memset(function, 0, sizeof(*function));
    pci_device_init(&function->pci, &plain_type, &plain_identity);
    pci_msix_init(&function->msix, &function->pci, 1, VECTORS);
    pci_msi_init(&function->msi, &function->pci, 4);
    assert_true(pci_device_attach(&function->pci, bench->bus, PCI_DEVFN(SLOT, 0), NULL));
    put(bench, SLOT, BAR(1), 4, TABLE);
    put(bench, SLOT, COMMAND, 2, COMMAND_ALL);
}

static void detach(struct function *function)
{
    pci_device_detach(&function->pci);
    pci_msix_finish(&function->msix);
    pci_msi_finish(&function->msi);
}

static void table_put(struct bench *bench, unsigned offset, unsigned size, uint64_t value)
{
    assert_true(memory_write(bench->memory, TABLE + offset, size, value));
}

static uint64_t table_get(struct bench *bench, unsigned offset, unsigned size)
{
    uint64_t value = 0;

    assert_true(memory_read(bench->memory, TABLE + offset, size, &value));
    return value;
}

static void entry_put(struct bench *bench, unsigned vector, uint64_t address, uint32_t data,
                      uint32_t control)
{
    table_put(bench, vector * 16, 8, address);
    table_put(bench, vector * 16 + 8, 4, data);
    table_put(bench, vector * 16 + 12, 4, control);
}

static void msix_capability_and_table(void **state)
{
    struct bench *bench = *state;
    struct function function;

    attach(bench, &function);
    unsigned at = find(bench, SLOT, 0x11);
    assert_int_equal(get(bench, SLOT, at + 2, 2), VECTORS - 1);
    assert_int_equal(get(bench, SLOT, at + 4, 4), 1);
    assert_int_equal(get(bench, SLOT, at + 8, 4), 0x801);
    put(bench, SLOT, at + 2, 2, 0xffff);
    assert_int_equal(get(bench, SLOT, at + 2, 2), 0xc000 | (VECTORS - 1));
    for (unsigned i = 0; i < VECTORS; i++)
        assert_int_equal(table_get(bench, i * 16 + 12, 4), 1); /* masked after reset */
    entry_put(bench, VECTORS - 1, UINT64_MAX, UINT32_MAX, UINT32_MAX);
    assert_int_equal(table_get(bench, (VECTORS - 1) * 16, 8), ~UINT64_C(3));
    assert_int_equal(table_get(bench, (VECTORS - 1) * 16 + 8, 8), UINT64_C(0x1ffffffff));
    /* Behind the table, and on the pending bits. */
    table_put(bench, VECTORS * 16, 8, UINT64_MAX);
    assert_int_equal(table_get(bench, VECTORS * 16, 8), 0);
    table_put(bench, 0x800, 8, UINT64_MAX);
    assert_int_equal(table_get(bench, 0x800, 8), 0);
    assert_int_equal(table_get(bench, 0xff8, 8), 0);
    pci_device_reset(&function.pci);
    put(bench, SLOT, BAR(1), 4, TABLE);
    put(bench, SLOT, COMMAND, 2, COMMAND_ALL);
    assert_int_equal(get(bench, SLOT, at + 2, 2), VECTORS - 1);
    assert_int_equal(table_get(bench, (VECTORS - 1) * 16, 8), 0);
    assert_int_equal(table_get(bench, (VECTORS - 1) * 16 + 8, 8), UINT64_C(0x100000000));
    detach(&function);
}

static void msix_masking(void **state)
{
    struct bench *bench = *state;
    struct function function;

    attach(bench, &function);
    unsigned control = find(bench, SLOT, 0x11) + 2;
    entry_put(bench, 65, DOORBELL + 0x10, 0x1234, 0);
    pci_msix_send(&function.msix, 65); /* not enabled: nothing, not even pending */
    put(bench, SLOT, control, 2, 0x8000);
    assert_int_equal(arrivals, 0);
    pci_msix_send(&function.msix, 65);
    expect_arrival(0x10, 0x1234);
    pci_msix_send(&function.msix, VECTORS);
    assert_int_equal(arrivals, 0);
    /* By vector. */
    table_put(bench, 65 * 16 + 12, 4, 1);
    pci_msix_send(&function.msix, 65);
    pci_msix_send(&function.msix, 65);
    assert_int_equal(table_get(bench, 0x808, 8), BIT(1));
    table_put(bench, 65 * 16 + 8, 4, 0x5678); /* as it is when it goes out */
    assert_int_equal(arrivals, 0);
    table_put(bench, 65 * 16 + 12, 4, 0);
    expect_arrival(0x10, 0x5678);
    assert_int_equal(table_get(bench, 0x808, 8), 0);
    /* All of the function's. */
    put(bench, SLOT, control, 2, 0xc000);
    pci_msix_send(&function.msix, 65);
    pci_msix_send(&function.msix, 2); /* masked itself as well */
    assert_int_equal(table_get(bench, 0x800, 8), BIT(2));
    put(bench, SLOT, control, 2, 0x8000);
    expect_arrival(0x10, 0x5678);
    assert_int_equal(table_get(bench, 0x800, 8), BIT(2));
    /* Without bus mastering nothing leaves the function. */
    put(bench, SLOT, COMMAND, 2, 2);
    pci_msix_send(&function.msix, 65);
    put(bench, SLOT, COMMAND, 2, COMMAND_ALL);
    assert_int_equal(arrivals, 0);
    /* To RAM it is an ordinary write; to other registers it is lost. */
    entry_put(bench, 0, RAM_BASE + 0x40, 0xabcdef, 0);
    pci_msix_send(&function.msix, 0);
    uint32_t word;
    assert_true(memory_dma_read(bench->memory, RAM_BASE + 0x40, &word, 4));
    assert_int_equal(word, 0xabcdef);
    entry_put(bench, 0, TABLE, 0x1, 0);
    pci_msix_send(&function.msix, 0);
    entry_put(bench, 0, ECAM, 0x1, 0);
    pci_msix_send(&function.msix, 0);
    assert_int_equal(arrivals, 0);
    detach(&function);
}

static void intx_is_silent_meanwhile(void **state)
{
    struct bench *bench = *state;
    struct function function;

    attach(bench, &function);
    unsigned msix = find(bench, SLOT, 0x11) + 2, msi = find(bench, SLOT, 0x05) + 2;
    pci_set_intx(&function.pci, true);
    assert_int_equal(bench->level[3], 1);
    put(bench, SLOT, msix, 2, 0x8000);
    assert_int_equal(bench->level[3], 0);
    put(bench, SLOT, msix, 2, 0);
    assert_int_equal(bench->level[3], 1);
    put(bench, SLOT, msi, 2, 1);
    assert_int_equal(bench->level[3], 0);
    pci_device_reset(&function.pci);
    detach(&function);
    assert_int_equal(bench->level[3], 0);
}

static void msi(void **state)
{
    struct bench *bench = *state;
    struct function function;

    attach(bench, &function);
    unsigned at = find(bench, SLOT, 0x05);
    assert_int_equal(get(bench, SLOT, at + 2, 2), 0x0180 | 2 << 1);
    put(bench, SLOT, at + 4, 4, DOORBELL | 0x23);
    put(bench, SLOT, at + 12, 4, 0xffff0043);
    assert_int_equal(get(bench, SLOT, at + 4, 4), DOORBELL | 0x20);
    assert_int_equal(get(bench, SLOT, at + 12, 4), 0x43);
    pci_msi_send(&function.msi, 0);
    assert_int_equal(arrivals, 0);
    put(bench, SLOT, at + 2, 2, 2 << 4 | 1); /* all four */
    pci_msi_send(&function.msi, 2);
    expect_arrival(0x20, 0x42);
    put(bench, SLOT, at + 2, 2, 1); /* one: every vector is it */
    pci_msi_send(&function.msi, 2);
    expect_arrival(0x20, 0x43);
    put(bench, SLOT, at + 2, 2, 2 << 4 | 1);
    put(bench, SLOT, at + 16, 4, UINT32_MAX);
    assert_int_equal(get(bench, SLOT, at + 16, 4), 0xf);
    pci_msi_send(&function.msi, 1);
    pci_msi_send(&function.msi, 3);
    assert_int_equal(get(bench, SLOT, at + 20, 4), 0xa);
    put(bench, SLOT, at + 20, 4, 0);
    assert_int_equal(get(bench, SLOT, at + 20, 4), 0xa);
    put(bench, SLOT, at + 16, 4, 0xd);
    expect_arrival(0x20, 0x41);
    assert_int_equal(get(bench, SLOT, at + 20, 4), 0x8);
    put(bench, SLOT, at + 2, 2, 7 << 4 | 1); /* reserved: no more than there can be */
    pci_msi_send(&function.msi, 33);
    assert_int_equal(arrivals, 1);
    detach(&function);
}

static void messages_state(void **state)
{
    struct bench *bench = *state;
    struct stream *saving = stream_create_saving(), *loading;
    struct function function;
    size_t size;

    attach(bench, &function);
    unsigned control = find(bench, SLOT, 0x11) + 2;
    entry_put(bench, 4, DOORBELL, 0x44, 1);
    put(bench, SLOT, control, 2, 0x8000);
    pci_msix_send(&function.msix, 4);
    pci_device_state(&function.pci, saving);
    const void *bytes = stream_data(saving, &size);
    pci_device_reset(&function.pci);
    loading = stream_create_loading(bytes, size);
    pci_device_state(&function.pci, loading);
    assert_true(stream_check(loading, NULL));
    assert_true(pci_msix_enabled(&function.msix));
    assert_int_equal(table_get(bench, 0x800, 8), BIT(4));
    assert_int_equal(arrivals, 0);
    table_put(bench, 4 * 16 + 12, 4, 0);
    expect_arrival(0, 0x44);
    stream_destroy(loading);
    stream_destroy(saving);
    detach(&function);
}

/* Senders and a driver that masks and unmasks, at once: what was sent last arrives. */
static _Atomic unsigned seen;

static void count_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    seen++;
}

static const struct mmio_ops count_ops = {.write = count_write, .min_size = 4, .max_size = 4};

static void *send_many(void *opaque)
{
    struct function *function = opaque;

    for (unsigned i = 0; i < 5000; i++)
        pci_msix_send(&function->msix, i & 1);
    return NULL;
}

static void masks_race_with_senders(void **state)
{
    struct bench *bench = *state;
    struct function function;
    pthread_t threads[2];

    assert_true(memory_add_messages(bench->memory, DOORBELL + 0x1000, 0x1000, &count_ops, NULL,
                                    "count", NULL));
    attach(bench, &function);
    unsigned control = find(bench, SLOT, 0x11) + 2;
    for (unsigned i = 0; i < 2; i++)
        entry_put(bench, i, DOORBELL + 0x1000, i, 0);
    put(bench, SLOT, control, 2, 0x8000);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, send_many, &function), 0);
    for (unsigned i = 0; i < 500; i++) {
        table_put(bench, 12, 4, i & 1);
        put(bench, SLOT, control, 2, i & 2 ? 0xc000 : 0x8000);
        pci_set_intx(&function.pci, i & 1);
    }
    table_put(bench, 12, 4, 1);
    put(bench, SLOT, control, 2, 0x8000);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    unsigned before = seen;
    pci_msix_send(&function.msix, 0);
    assert_int_equal(seen, before);
    table_put(bench, 12, 4, 0);
    assert_int_equal(seen, before + 1);
    assert_int_equal(table_get(bench, 0x800, 8), 0);
    pci_set_intx(&function.pci, false);
    detach(&function);
}

/* --- virtio (sections 4.1.4.3 and 4.1.5.1.2) ---------------------------------------------------
 */

#define COMMON (MEM64 + 0x4000) /* the common structure is first in its BAR */

static uint64_t reg_get(struct bench *bench, unsigned offset, unsigned size)
{
    uint64_t value = 0;

    assert_true(memory_read(bench->memory, COMMON + offset, size, &value));
    return value;
}

static void reg_put(struct bench *bench, unsigned offset, unsigned size, uint64_t value)
{
    assert_true(memory_write(bench->memory, COMMON + offset, size, value));
}

static struct virtio_device *rng_attach(struct bench *bench)
{
    struct virtio_device *rng = virtio_rng_create("rng0", bench->loop);

    assert_true(virtio_pci_attach(bench->bus, SLOT, rng, NULL));
    put(bench, SLOT, BAR(1), 4, TABLE);
    put(bench, SLOT, BAR(4), 4, (uint32_t)COMMON);
    put(bench, SLOT, BAR(5), 4, COMMON >> 32);
    put(bench, SLOT, COMMAND, 2, COMMAND_ALL);
    return rng;
}

static void virtio_vector_registers(void **state)
{
    struct bench *bench = *state;
    struct virtio_device *rng = rng_attach(bench);

    assert_int_equal(get(bench, SLOT, find(bench, SLOT, 0x11) + 2, 2), 1); /* two vectors */
    assert_int_equal(reg_get(bench, 0x10, 2), 0xffff);
    assert_int_equal(reg_get(bench, 0x1a, 2), 0xffff);
    reg_put(bench, 0x10, 2, 1);
    reg_put(bench, 0x1a, 2, 0);
    assert_int_equal(reg_get(bench, 0x10, 2), 1);
    assert_int_equal(reg_get(bench, 0x1a, 2), 0);
    reg_put(bench, 0x10, 2, 2); /* there is no such vector */
    reg_put(bench, 0x1a, 2, 0xfffe);
    assert_int_equal(reg_get(bench, 0x10, 2), 0xffff);
    assert_int_equal(reg_get(bench, 0x1a, 2), 0xffff);
    reg_put(bench, 0x10, 2, 1);
    reg_put(bench, 0x1a, 2, 1);
    reg_put(bench, 0x16, 2, 9); /* a queue that is not there */
    reg_put(bench, 0x1a, 2, 1);
    assert_int_equal(reg_get(bench, 0x1a, 2), 0);
    reg_put(bench, 0x14, 1, 0); /* the device's reset */
    assert_int_equal(reg_get(bench, 0x10, 2), 0xffff);
    assert_int_equal(reg_get(bench, 0x1a, 2), 0xffff);
    rng->base.type->remove(&rng->base);
}

static void virtio_configuration_interrupt(void **state)
{
    struct bench *bench = *state;
    struct virtio_device *rng = rng_attach(bench);
    uint64_t isr = COMMON + 0x1000, value;

    reg_put(bench, 0x08, 4, 1);
    reg_put(bench, 0x0c, 4, 1); /* VERSION_1 */
    reg_put(bench, 0x14, 1, 0xb);
    reg_put(bench, 0x14, 1, 0xf);
    virtio_lock(rng);
    virtio_config_changed(rng); /* by the line */
    virtio_unlock(rng);
    assert_int_equal(bench->level[3], 1);
    assert_true(memory_read(bench->memory, isr, 1, &value));
    assert_int_equal(value, 2);
    put(bench, SLOT, find(bench, SLOT, 0x11) + 2, 2, 0x8000);
    entry_put(bench, 1, DOORBELL, 0x55, 0);
    virtio_lock(rng);
    virtio_config_changed(rng); /* no vector: no interrupt */
    virtio_unlock(rng);
    assert_int_equal(arrivals, 0);
    reg_put(bench, 0x10, 2, 1);
    virtio_lock(rng);
    virtio_config_changed(rng);
    virtio_unlock(rng);
    expect_arrival(0, 0x55);
    assert_int_equal(bench->level[3], 0);
    assert_true(memory_read(bench->memory, isr, 1, &value));
    assert_int_equal(value, 0);
    rng->base.type->remove(&rng->base);
}

static void virtio_without_messages(void **state)
{
    struct bench *bench = *state;
    struct virtio_device *rng = rng_attach(bench);

    for (unsigned at = get(bench, SLOT, 0x34, 1); at; at = get(bench, SLOT, at + 1, 1))
        assert_int_equal(get(bench, SLOT, at, 1), 0x09);
    assert_int_equal(get(bench, SLOT, BAR(1), 4), 0);
    reg_put(bench, 0x10, 2, 0);
    assert_int_equal(reg_get(bench, 0x10, 2), 0xffff);
    rng->base.type->remove(&rng->base);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_messages, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(msix_capability_and_table),
        TEST(msix_masking),
        TEST(intx_is_silent_meanwhile),
        TEST(msi),
        TEST(messages_state),
        TEST(masks_race_with_senders),
        TEST(virtio_vector_registers),
        TEST(virtio_configuration_interrupt),
        cmocka_unit_test_setup_teardown(virtio_without_messages, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
