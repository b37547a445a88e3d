/* The 16550, driven through its registers, with a socket as its channel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/base.h"
#include "device/device.h"

enum { RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR, THR = RBR, FCR = IIR, DLL = RBR, DLM = IER };

static struct loop *loop;
static struct chardev *chardev;
static struct uart *uart;
static int peer;
static _Atomic bool irq;
static char directory[64], specification[128];

static void set_irq(void *controller, unsigned source, bool level)
{
    irq = level;
}

static void put(unsigned reg, uint8_t value)
{
    uart_ops.write(uart, reg, value, 1);
}

static uint8_t get(unsigned reg)
{
    return (uint8_t)uart_ops.read(uart, reg, 1);
}

static void turns(unsigned count)
{
    while (count--)
        loop_turn(loop, 1);
}

static int connect_peer(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void create_uart(void)
{
    irq = false;
    uart = uart_create("serial0", &(struct uart_config){
                                      .loop = loop, .chardev = chardev, .irq = {.set = set_irq}});
}

static int setup(void **state)
{
    struct error err = {0};
    strcpy(directory, "/tmp/hartvisor-test-XXXXXX");
    assert_non_null(mkdtemp(directory));
    snprintf(specification, sizeof(specification), "unix:%s/serial", directory);
    loop = loop_create();
    chardev = chardev_create(loop, specification, NULL, &err);
    if (!chardev)
        fail_msg("%s", err.message);
    create_uart();
    peer = connect_peer(chardev_path(chardev));
    while (!chardev_connected(chardev))
        loop_turn(loop, 100);
    return 0;
}

static int teardown(void **state)
{
    uart_device(uart)->type->remove(uart_device(uart));
    chardev_destroy(chardev);
    close(peer);
    loop_destroy(loop);
    assert_int_equal(rmdir(directory), 0); /* the socket is gone */
    return 0;
}

static void type(const char *text)
{
    assert_int_equal(send(peer, text, strlen(text), 0), strlen(text));
    turns(3);
}

/* After reset: nothing received, transmitter empty, no interrupt (PC16550D, table I). */
static void starts_idle(void **state)
{
    assert_int_equal(get(LSR), 0x60);
    assert_int_equal(get(IIR), 0x01);
    assert_int_equal(get(IER), 0);
    assert_int_equal(get(LCR), 0);
    assert_int_equal(get(MCR), 0);
    assert_int_equal(get(MSR), 0xb0);
    put(SCR, 0xa5);
    assert_int_equal(get(SCR), 0xa5);
    assert_false(irq);
}

/* What Linux's autoconfig looks at. */
static void identifies_as_16550a(void **state)
{
    put(IER, 0x0f);
    assert_int_equal(get(IER), 0x0f);
    put(IER, 0xf0);
    assert_int_equal(get(IER), 0); /* no UUE, no sleep mode */
    put(MCR, 0x10 | 0x0a);
    assert_int_equal(get(MSR) & 0xf0, 0x90);
    put(MCR, 0);
    put(FCR, 0x01);
    assert_int_equal(get(IIR) >> 6, 3);
    put(LCR, 0x80);
    put(FCR, 0x21);
    assert_int_equal(get(IIR) >> 5, 6); /* no 64-byte FIFO */
    put(DLL, 0x34);
    put(DLM, 0x12);
    assert_int_equal(get(DLL), 0x34);
    assert_int_equal(get(DLM), 0x12);
    put(LCR, 0x03);
    assert_int_equal(get(IER), 0);
}

static void sends(void **state)
{
    char text[16] = {0};

    for (const char *p = "hello"; *p; p++) {
        assert_true(get(LSR) & 0x20);
        put(THR, (uint8_t)*p);
    }
    turns(3);
    assert_int_equal(recv(peer, text, sizeof(text), 0), 5);
    assert_string_equal(text, "hello");
}

/* Enabling raises it, reading IIR takes it, writing THR begins anew. */
static void thr_empty_interrupts(void **state)
{
    put(IER, 0x02);
    assert_true(irq);
    assert_int_equal(get(IIR), 0x02);
    assert_false(irq);
    assert_int_equal(get(IIR), 0x01);
    put(THR, 'x');
    assert_true(irq);
    assert_int_equal(get(IIR), 0x02);
    put(IER, 0x02); /* enabled already: nothing new */
    assert_false(irq);
    put(IER, 0);
    put(IER, 0x02);
    assert_true(irq);
    put(IER, 0);
    assert_false(irq);
    assert_int_equal(get(IIR), 0x01);
}

static void receives_without_fifo(void **state)
{
    put(IER, 0x01);
    type("ab");
    assert_true(irq);
    assert_int_equal(get(IIR), 0x04);
    assert_int_equal(get(LSR), 0x61);
    assert_int_equal(get(RBR), 'a');
    assert_false(irq);
    turns(3); /* the second was kept back, not lost */
    assert_true(irq);
    assert_int_equal(get(RBR), 'b');
    assert_int_equal(get(LSR), 0x60);
}

static void interrupts_at_trigger_level(void **state)
{
    put(FCR, 0x81); /* 8 characters */
    put(LCR, 0x80);
    put(DLL, 0xff); /* slow, so that no timeout comes in between */
    put(DLM, 0xff);
    put(LCR, 0x03);
    put(IER, 0x01);
    type("1234567");
    assert_false(irq);
    type("8");
    assert_true(irq);
    assert_int_equal(get(IIR), 0xc4);
    assert_int_equal(get(RBR), '1');
    assert_false(irq);
    put(FCR, 0x41); /* 4 characters: seven are waiting */
    assert_true(irq);
    put(FCR, 0x43); /* cleared */
    assert_false(irq);
    assert_int_equal(get(LSR), 0x60);
}

static void times_out(void **state)
{
    put(FCR, 0xc1);
    put(LCR, 0x80);
    put(DLL, 2);
    put(DLM, 0);
    put(LCR, 0x03);
    put(IER, 0x01);
    assert_int_equal(send(peer, "xyz", 3, 0), 3);
    for (unsigned i = 0; i < 1000 && !irq; i++)
        loop_turn(loop, 1);
    assert_true(irq);
    assert_int_equal(get(IIR), 0xcc);
    assert_int_equal(get(RBR), 'x');
    assert_false(irq); /* the read ends it, and starts it anew for the rest */
    for (unsigned i = 0; i < 1000 && !irq; i++)
        loop_turn(loop, 1);
    assert_int_equal(get(IIR), 0xcc);
    assert_int_equal(get(RBR), 'y');
    assert_int_equal(get(RBR), 'z');
    turns(20);
    assert_false(irq);
}

/* Line status before received data before THR empty before modem status. */
static void orders_interrupts(void **state)
{
    put(FCR, 0x01);
    put(MCR, 0x10);
    put(IER, 0x0f);
    put(MCR, 0x12); /* RTS is CTS here: a modem status change */
    put(LCR, 0x43); /* a break */
    assert_int_equal(get(IIR), 0xc6);
    assert_int_equal(get(LSR), 0xf1);
    assert_int_equal(get(IIR), 0xc4);
    assert_int_equal(get(RBR), 0);
    assert_int_equal(get(IIR), 0xc2);
    assert_int_equal(get(IIR), 0xc0);
    assert_int_equal(get(MSR) & 0x1f, 0x1b); /* CTS on; CTS, DSR and DCD changed */
    assert_int_equal(get(IIR), 0xc1);
    assert_false(irq);
}

static void loops_back(void **state)
{
    put(FCR, 0x01);
    put(MCR, 0x10);
    for (unsigned i = 0; i < 17; i++)
        put(THR, (uint8_t)('A' + i));
    type("outside");
    assert_int_equal(get(LSR), 0x63); /* an overrun by the 17th */
    assert_int_equal(get(LSR), 0x61);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(get(RBR), 'A' + i);
    assert_int_equal(get(LSR), 0x60);
    put(MCR, 0);
    turns(3);
    assert_int_equal(get(RBR), 'o'); /* input waited for the end of loopback */
    char nothing;
    assert_int_equal(recv(peer, &nothing, 1, 0), -1);
}

static size_t drain(char *text, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t count = recv(peer, text + done, size - done, 0);
        if (count > 0)
            done += (size_t)count;
        else if (errno == EAGAIN)
            break;
    }
    return done;
}

#define MUCH (3 * 1024 * 1024)

/* A peer that reads slowly: THRE holds the driver back and not a character is lost. */
static void sends_much_with_back_pressure(void **state)
{
    char *text = xmalloc(MUCH);
    size_t sent = 0, received = 0;
    unsigned held_back = 0;

    put(FCR, 0x01);
    while (sent < MUCH) {
        if (get(LSR) & 0x20) {
            for (unsigned i = 0; i < 16; i++)
                put(THR, (uint8_t)(sent++ % 251));
            continue;
        }
        held_back++;
        assert_false(get(LSR) & 0x40);
        loop_turn(loop, 0);
        received += drain(text + received, MUCH - received);
    }
    while (received < MUCH) {
        loop_turn(loop, 0);
        received += drain(text + received, MUCH - received);
    }
    assert_true(held_back > 0);
    for (size_t i = 0; i < MUCH; i++)
        assert_int_equal((uint8_t)text[i], i % 251);
    free(text);
}

/* A program that never looks at LSR, with nobody reading: up to the hard limit nothing is lost. */
static void sends_without_looking(void **state)
{
    enum { SIZE = 300000 };
    char *text = xmalloc(SIZE);
    size_t received = 0;

    for (size_t i = 0; i < SIZE; i++)
        put(THR, (uint8_t)(i % 253));
    while (received < SIZE) {
        loop_turn(loop, 0);
        received += drain(text + received, SIZE - received);
    }
    for (size_t i = 0; i < SIZE; i++)
        assert_int_equal((uint8_t)text[i], i % 253);
    free(text);
}

static void receives_much(void **state)
{
    enum { SIZE = 100000 };
    size_t sent = 0, received = 0;

    put(FCR, 0x01);
    while (received < SIZE) {
        uint8_t bytes[256];
        size_t size = SIZE - sent < sizeof(bytes) ? SIZE - sent : sizeof(bytes);
        for (size_t i = 0; i < size; i++)
            bytes[i] = (uint8_t)((sent + i) % 249);
        ssize_t count = size ? send(peer, bytes, size, MSG_DONTWAIT) : 0;
        sent += count > 0 ? (size_t)count : 0;
        loop_turn(loop, 0);
        while (get(LSR) & 1)
            assert_int_equal(get(RBR), received++ % 249);
    }
    assert_int_equal(get(LSR), 0x60);
}

static void firmware_takes_input(void **state)
{
    char text[8] = {0};
    put(FCR, 0x01);
    put(IER, 0x01);
    type("abc");
    assert_true(irq);
    assert_int_equal(uart_take_input(uart, text, 2), 2);
    assert_int_equal(uart_take_input(uart, text + 2, 6), 1);
    assert_string_equal(text, "abc");
    assert_false(irq);
}

static void peer_reconnects(void **state)
{
    char text[8] = {0};

    close(peer);
    while (chardev_connected(chardev))
        loop_turn(loop, 100);
    put(THR, '-'); /* to nobody */
    peer = connect_peer(chardev_path(chardev));
    while (!chardev_connected(chardev))
        loop_turn(loop, 100);
    put(THR, '+');
    type("k");
    assert_int_equal(get(RBR), 'k');
    assert_int_equal(recv(peer, text, sizeof(text), 0), 1);
    assert_string_equal(text, "+");
}

static void resets(void **state)
{
    put(FCR, 0x01);
    put(IER, 0x0f);
    put(MCR, 0x0b);
    put(LCR, 0x03);
    type("abc");
    assert_true(irq);
    uart_device(uart)->type->reset(uart_device(uart));
    assert_false(irq);
    starts_idle(state);
}

/* Saved with a half-read FIFO, a pending THR-empty interrupt and the timeout running. */
static void state_roundtrip(void **state)
{
    put(FCR, 0xc1);
    put(LCR, 0x80);
    put(DLL, 1);
    put(LCR, 0x07);
    put(SCR, 0x77);
    type("abcd");
    assert_int_equal(get(RBR), 'a');
    put(IER, 0x03);

    struct stream *saved = stream_create_saving();
    uart_device(uart)->type->state(uart_device(uart), saved);
    assert_true(stream_check(saved, NULL));
    uart_device(uart)->type->remove(uart_device(uart));
    create_uart();
    size_t size;
    const void *data = stream_data(saved, &size);
    struct stream *stream = stream_create_loading(data, size);
    uart_device(uart)->type->state(uart_device(uart), stream);
    assert_true(stream_check(stream, NULL));
    stream_destroy(stream);

    assert_true(irq);
    assert_int_equal(get(IER), 0x03);
    assert_int_equal(get(SCR), 0x77);
    assert_int_equal(get(LCR), 0x07);
    if (get(IIR) == 0xc2) { /* unless the timeout was faster */
        for (unsigned i = 0; i < 1000 && !irq; i++)
            loop_turn(loop, 1);
        assert_int_equal(get(IIR), 0xcc);
    }
    assert_int_equal(get(RBR), 'b');
    assert_int_equal(get(RBR), 'c');
    assert_int_equal(get(RBR), 'd');

    /* FIFO positions from a hostile stream must not lead out of the FIFO. */
    uint8_t *bytes = xmalloc(size);
    for (size_t i = 0; i < size; i++) {
        memcpy(bytes, data, size);
        bytes[i] = 0xff;
        stream = stream_create_loading(bytes, size);
        uart_device(uart)->type->state(uart_device(uart), stream);
        for (unsigned n = 0; n < 20; n++)
            get(RBR);
        stream_destroy(stream);
    }
    free(bytes);
    stream_destroy(saved);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(starts_idle),
        TEST(identifies_as_16550a),
        TEST(sends),
        TEST(thr_empty_interrupts),
        TEST(receives_without_fifo),
        TEST(interrupts_at_trigger_level),
        TEST(times_out),
        TEST(orders_interrupts),
        TEST(loops_back),
        TEST(sends_much_with_back_pressure),
        TEST(sends_without_looking),
        TEST(receives_much),
        TEST(firmware_takes_input),
        TEST(peer_reconnects),
        TEST(resets),
        TEST(state_roundtrip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
