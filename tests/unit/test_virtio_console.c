/* virtio-console on a socket: input, output, back pressure, state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "virtio/console.h"
#include "virtio_driver.h"

#define RECEIVE    0
#define TRANSMIT   1
#define QUEUE_SIZE 16
#define EMERG      (BIT(2))
#define SPACE      (DRIVER_BUFFERS + 0x10000) /* receive buffers */

struct bench {
    char path[64];
    struct loop *loop;
    struct memory *memory;
    struct chardev *chardev;
    struct virtio_mmio *slot;
    struct virtio_device *console;
    struct driver driver;
    int peer;
};

static void turn(struct bench *bench)
{
    for (unsigned i = 0; i < 8; i++)
        loop_turn(bench->loop, 0);
}

static int setup(void **state)
{
    struct bench *bench = xcalloc(1, sizeof(*bench));
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct irq_line irq = {0};
    char specification[80];

    snprintf(bench->path, sizeof(bench->path), "/tmp/hartvisor-console-%d", getpid());
    snprintf(specification, sizeof(specification), "unix:%s", bench->path);
    bench->loop = loop_create();
    bench->memory = memory_create();
    assert_true(memory_add_ram(bench->memory, DRIVER_RAM_BASE, DRIVER_RAM_SIZE, NULL));
    bench->chardev = chardev_create(bench->loop, specification, NULL, NULL);
    assert_non_null(bench->chardev);
    bench->slot = virtio_mmio_create(bench->memory, DRIVER_SLOT, irq, "slot0", NULL);
    bench->console = virtio_console_create("console0", bench->chardev, bench->loop);
    assert_true(virtio_mmio_attach(bench->slot, bench->console, NULL));
    bench->driver = (struct driver){.memory = bench->memory, .slot = DRIVER_SLOT};
    driver_start(&bench->driver, EMERG, 2, QUEUE_SIZE);
    bench->peer = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    strcpy(address.sun_path, bench->path);
    assert_int_equal(connect(bench->peer, (struct sockaddr *)&address, sizeof(address)), 0);
    turn(bench);
    *state = bench;
    return 0;
}

static int teardown(void **state)
{
    struct bench *bench = *state;
    struct device *slot = virtio_mmio_device(bench->slot);

    bench->console->base.type->remove(&bench->console->base);
    slot->type->remove(slot);
    chardev_destroy(bench->chardev);
    memory_destroy(bench->memory);
    loop_destroy(bench->loop);
    close(bench->peer);
    free(bench);
    return 0;
}

static void offer_space(struct bench *bench, unsigned index, uint32_t size)
{
    struct driver_desc desc = {SPACE + 0x1000 * index, size, DESC_WRITE, 0};

    driver_offer_chain(&bench->driver, RECEIVE, index, &desc, 1);
    driver_notify(&bench->driver, RECEIVE);
    turn(bench);
}

static void test_output(void **state)
{
    struct bench *bench = *state;
    const struct driver_desc chain[] = {{DRIVER_BUFFERS, 6, 0, 0}, {DRIVER_BUFFERS + 64, 5, 0, 0}};
    char text[32] = "";
    uint32_t head, size;

    memory_dma_write(bench->memory, DRIVER_BUFFERS, "hello ", 6);
    memory_dma_write(bench->memory, DRIVER_BUFFERS + 64, "world", 5);
    driver_offer_chain(&bench->driver, TRANSMIT, 0, chain, 2);
    driver_notify(&bench->driver, TRANSMIT);
    turn(bench);
    assert_true(driver_take(&bench->driver, TRANSMIT, &head, &size));
    assert_int_equal(size, 0);
    assert_int_equal(read(bench->peer, text, sizeof(text)), 11);
    assert_string_equal(text, "hello world");
    driver_write(&bench->driver, MMIO_CONFIG + 8, '!');
    turn(bench);
    assert_int_equal(read(bench->peer, text, sizeof(text)), 1);
    assert_int_equal(text[0], '!');
}

/* Input waits for buffers, fills the ones that come, and none of it is lost. */
static void test_input(void **state)
{
    struct bench *bench = *state;
    uint8_t sent[20000], got[sizeof(sent)];
    uint32_t head, size, total = 0, written = 0;

    for (unsigned i = 0; i < sizeof(sent); i++)
        sent[i] = i * 7 + i / 256;
    for (unsigned round = 0; total < sizeof(sent) && round < 100000; round++) {
        if (written < sizeof(sent)) {
            ssize_t put = write(bench->peer, sent + written, sizeof(sent) - written);
            written += put > 0 ? put : 0;
        }
        offer_space(bench, round % 4, 1 + round % 700);
        while (driver_take(&bench->driver, RECEIVE, &head, &size)) {
            memory_dma_read(bench->memory, SPACE + 0x1000 * head, got + total, size);
            total += size;
        }
    }
    assert_int_equal(total, sizeof(sent));
    assert_memory_equal(sent, got, sizeof(sent));
}

/* Reads what the peer has got and checks that it goes on where it stopped. */
static void read_pattern(struct bench *bench, uint64_t *total)
{
    uint8_t bytes[65536];
    ssize_t got;

    while ((got = read(bench->peer, bytes, sizeof(bytes))) > 0)
        for (ssize_t i = 0; i < got; i++, ++*total)
            if (bytes[i] != (uint8_t)(*total % 251))
                fail_msg("byte %llu is wrong", (unsigned long long)*total);
}

#define CHUNK (251 * 1024)
#define LOTS  12 /* chunks: far more than the socket and the channel hold */

/* The reader stops: the guest's buffers stay in the queue, also over a saved state. */
static void test_back_pressure(void **state)
{
    struct bench *bench = *state;
    const struct driver_desc chain = {DRIVER_BUFFERS, CHUNK, 0, 0};
    uint64_t total = 0;
    uint8_t byte;

    for (unsigned i = 0; i < CHUNK; i++) {
        byte = i % 251;
        memory_dma_write(bench->memory, DRIVER_BUFFERS + i, &byte, 1);
    }
    for (unsigned i = 0; i < LOTS; i++)
        driver_offer_chain(&bench->driver, TRANSMIT, i, &chain, 1);
    driver_notify(&bench->driver, TRANSMIT);
    turn(bench);
    assert_true(driver_used_index(&bench->driver, TRANSMIT) < LOTS);

    struct stream *saving = stream_create_saving(), *loading;
    struct device *base = &bench->console->base;
    const void *bytes;
    size_t size;
    base->type->quiesce(base);
    base->type->state(base, saving);
    assert_true(stream_check(saving, NULL));
    bytes = stream_data(saving, &size);
    base->type->reset(base);
    loading = stream_create_loading(bytes, size);
    base->type->state(base, loading);
    assert_true(stream_check(loading, NULL));
    stream_destroy(loading);
    stream_destroy(saving);

    for (unsigned i = 0; i < 100000 && total < (uint64_t)CHUNK * LOTS; i++) {
        read_pattern(bench, &total);
        turn(bench);
    }
    assert_int_equal(total, (uint64_t)CHUNK * LOTS);
    assert_int_equal(driver_used_index(&bench->driver, TRANSMIT), LOTS);
}

/* Input that the guest has not fetched yet is part of the state. */
static void test_state(void **state)
{
    struct bench *bench = *state;
    struct stream *saving = stream_create_saving(), *loading;
    struct device *base = &bench->console->base;
    uint32_t head, length;
    const void *bytes;
    char text[8] = "";
    size_t size;

    assert_int_equal(write(bench->peer, "typed", 5), 5);
    turn(bench);
    base->type->state(base, saving);
    bytes = stream_data(saving, &size);
    base->type->reset(base);
    loading = stream_create_loading(bytes, size);
    base->type->state(base, loading);
    assert_true(stream_check(loading, NULL));
    offer_space(bench, 0, 100);
    assert_true(driver_take(&bench->driver, RECEIVE, &head, &length));
    assert_int_equal(length, 5);
    memory_dma_read(bench->memory, SPACE, text, 5);
    assert_string_equal(text, "typed");
    stream_destroy(loading);
    stream_destroy(saving);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_output),
        TEST(test_input),
        TEST(test_back_pressure),
        TEST(test_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
