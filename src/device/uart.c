/* ns16550a serial port (PC16550D data sheet; section numbers are its). */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "device/device.h"

enum {
    REG_DATA = 0, /* RBR, THR; DLL with DLAB */
    REG_IER = 1,  /* DLM with DLAB */
    REG_IIR = 2,  /* read; FCR: write */
    REG_LCR = 3,
    REG_MCR = 4,
    REG_LSR = 5,
    REG_MSR = 6,
    REG_SCR = 7,

    IER_RECEIVED = 0x01,
    IER_THR_EMPTY = 0x02,
    IER_LINE = 0x04,
    IER_MODEM = 0x08,
    IER_MASK = 0x0f,

    IIR_NONE = 0x01,
    IIR_MODEM = 0x00,
    IIR_THR_EMPTY = 0x02,
    IIR_RECEIVED = 0x04,
    IIR_LINE = 0x06,
    IIR_TIMEOUT = 0x0c,
    IIR_FIFOS = 0xc0,

    FCR_ENABLE = 0x01,
    FCR_CLEAR_RECEIVER = 0x02,
    FCR_CLEAR_TRANSMITTER = 0x04,
    FCR_KEPT = 0xc9, /* enable, DMA mode, trigger level */

    LCR_BREAK = 0x40,
    LCR_DLAB = 0x80,

    MCR_DTR = 0x01,
    MCR_RTS = 0x02,
    MCR_OUT1 = 0x04,
    MCR_OUT2 = 0x08,
    MCR_LOOP = 0x10,
    MCR_MASK = 0x1f,

    LSR_READY = 0x01,
    LSR_OVERRUN = 0x02,
    LSR_BREAK = 0x10,
    LSR_ERRORS = 0x1e,
    LSR_THR_EMPTY = 0x20,
    LSR_IDLE = 0x40,
    LSR_FIFO_ERROR = 0x80,

    MSR_RI_DELTA = 0x04,
    MSR_CTS = 0x10,
    MSR_DSR = 0x20,
    MSR_RI = 0x40,
    MSR_DCD = 0x80,

    FIFO_SIZE = 16,
};

static const uint8_t trigger_levels[] = {1, 4, 8, 14};

struct uart {
    struct device device; /* its lock guards everything below */
    struct chardev *chardev;
    struct irq_line irq;
    struct loop_timer *timeout_timer;

    uint8_t ier, fcr, lcr, mcr, msr, scr;
    uint16_t divisor;
    uint8_t errors;   /* LSR bits 1..4, until LSR is read */
    bool thr_pending; /* the THR-empty interrupt, until IIR is read or THR is written */
    bool timed_out;   /* the character timeout, until RBR is read */
    bool level;       /* of the interrupt line */

    /* The receiver: a character and its error bits (LSR positions), oldest first. Without FIFOs
     * only one is held. The errors of the oldest have moved to `errors`. */
    uint8_t received[FIFO_SIZE], received_errors[FIFO_SIZE];
    uint8_t receive_start, receive_count;

    /* The transmitter: what the channel has not taken yet. */
    uint8_t transmit[FIFO_SIZE];
    uint8_t transmit_count;
};

static unsigned fifo_size(const struct uart *uart)
{
    return uart->fcr & FCR_ENABLE ? FIFO_SIZE : 1;
}

static unsigned trigger_level(const struct uart *uart)
{
    return uart->fcr & FCR_ENABLE ? trigger_levels[uart->fcr >> 6] : 1;
}

/* Interrupts. */

/* The pending interrupt of the highest priority, as IIR shows it (8.5, table III). */
static uint8_t interrupt_identify(const struct uart *uart)
{
    if (uart->ier & IER_LINE && uart->errors)
        return IIR_LINE;
    if (uart->ier & IER_RECEIVED && uart->receive_count >= trigger_level(uart))
        return IIR_RECEIVED;
    if (uart->ier & IER_RECEIVED && uart->timed_out)
        return IIR_TIMEOUT;
    if (uart->ier & IER_THR_EMPTY && uart->thr_pending)
        return IIR_THR_EMPTY;
    if (uart->ier & IER_MODEM && uart->msr & 0x0f)
        return IIR_MODEM;
    return IIR_NONE;
}

static void interrupt_update(struct uart *uart)
{
    bool level = interrupt_identify(uart) != IIR_NONE;

    if (level != uart->level) {
        uart->level = level;
        irq_set(&uart->irq, level);
    }
}

/* Receiver. */

/* Four character times of start, 5..8 data, parity and stop bits (8.10). Held down to 10 ms, since
 * programs made for emulators leave senseless divisors behind. */
static uint64_t timeout_ns(const struct uart *uart)
{
    uint64_t bits = 1 + 5 + (uart->lcr & 3) + (uart->lcr >> 3 & 1) + 1 + (uart->lcr >> 2 & 1);
    uint64_t divisor = uart->divisor ? uart->divisor : 1;
    uint64_t time = 4 * bits * 16 * divisor * UINT64_C(1000000000) / UART_CLOCK_HZ;

    return time < 10000000 ? time : 10000000;
}

/* Starts anew with each character that comes or is read, while characters wait below the trigger
 * level (8.10). */
static void timeout_restart(struct uart *uart)
{
    bool waiting = uart->fcr & FCR_ENABLE && uart->receive_count && !uart->timed_out &&
                   uart->receive_count < trigger_level(uart);

    loop_set_timer(uart->timeout_timer, waiting ? loop_now() + timeout_ns(uart) : UINT64_MAX);
}

static void timeout_expired(void *opaque)
{
    struct uart *uart = opaque;

    device_lock(&uart->device);
    if (uart->fcr & FCR_ENABLE && uart->receive_count)
        uart->timed_out = true;
    interrupt_update(uart);
    device_unlock(&uart->device);
}

/* A character's errors show when it has become the oldest (8.3). */
static void receiver_reveal(struct uart *uart)
{
    if (uart->receive_count) {
        uart->errors |= uart->received_errors[uart->receive_start];
        uart->received_errors[uart->receive_start] = 0;
    }
}

static void receiver_put(struct uart *uart, uint8_t byte, uint8_t errors)
{
    if (uart->receive_count >= fifo_size(uart)) {
        uart->errors |= LSR_OVERRUN;
        if (uart->fcr & FCR_ENABLE)
            return; /* the shift register is lost, the FIFO is not */
        uart->receive_count = 0;
    }
    unsigned at = (uart->receive_start + uart->receive_count) % FIFO_SIZE;
    uart->received[at] = byte;
    uart->received_errors[at] = errors;
    uart->receive_count++;
    receiver_reveal(uart);
}

static uint8_t receiver_take(struct uart *uart)
{
    uint8_t byte = 0; /* as programs expect that poll for a character without looking at LSR */

    uart->timed_out = false;
    if (uart->receive_count) {
        byte = uart->received[uart->receive_start];
        uart->receive_start = (uart->receive_start + 1) % FIFO_SIZE;
        uart->receive_count--;
        receiver_reveal(uart);
        if (uart->chardev)
            chardev_accept_input(uart->chardev);
    }
    timeout_restart(uart);
    return byte;
}

static void receiver_clear(struct uart *uart)
{
    uart->receive_count = 0;
    uart->timed_out = false;
    uart->errors &= LSR_OVERRUN;
    timeout_restart(uart);
    if (uart->chardev)
        chardev_accept_input(uart->chardev);
}

/* Transmitter. */

/* Gives the channel what it takes; THRE rises when all is gone. */
static void transmitter_run(struct uart *uart)
{
    size_t taken = uart->transmit_count;

    if (uart->chardev)
        taken = chardev_write(uart->chardev, uart->transmit, uart->transmit_count);
    uart->transmit_count -= taken;
    memmove(uart->transmit, uart->transmit + taken, uart->transmit_count);
    if (!uart->transmit_count)
        uart->thr_pending = true;
}

static void transmitter_put(struct uart *uart, uint8_t byte)
{
    uart->thr_pending = false;
    if (uart->mcr & MCR_LOOP) {
        receiver_put(uart, byte, 0);
        timeout_restart(uart);
        uart->thr_pending = true;
        return;
    }
    if (uart->transmit_count >= fifo_size(uart)) {
        /* The driver does not look at THRE. Hardware would lose characters here. */
        if (uart->chardev)
            chardev_force(uart->chardev, uart->transmit, uart->transmit_count);
        uart->transmit_count = 0;
    }
    uart->transmit[uart->transmit_count++] = byte;
    transmitter_run(uart);
}

/* Modem. */

/* Nothing drives the inputs: a cable that holds DCD, DSR and CTS. In loopback they are the
 * outputs (8.7). */
static uint8_t modem_inputs(const struct uart *uart)
{
    if (!(uart->mcr & MCR_LOOP))
        return MSR_DCD | MSR_DSR | MSR_CTS;
    return (uart->mcr & MCR_RTS ? MSR_CTS : 0) | (uart->mcr & MCR_DTR ? MSR_DSR : 0) |
           (uart->mcr & MCR_OUT1 ? MSR_RI : 0) | (uart->mcr & MCR_OUT2 ? MSR_DCD : 0);
}

static void modem_update(struct uart *uart)
{
    uint8_t inputs = modem_inputs(uart);
    uint8_t deltas = (inputs ^ uart->msr) >> 4;

    if (inputs & MSR_RI)
        deltas &= ~MSR_RI_DELTA; /* the trailing edge only (8.8) */
    uart->msr = inputs | (uart->msr & 0x0f) | deltas;
}

/* Registers. */

static uint8_t line_status(const struct uart *uart)
{
    uint8_t status = uart->errors;

    if (uart->receive_count)
        status |= LSR_READY;
    if (!uart->transmit_count)
        status |= LSR_THR_EMPTY | LSR_IDLE;
    if (uart->fcr & FCR_ENABLE) {
        uint8_t errors = uart->errors & ~LSR_OVERRUN;
        for (unsigned i = 0; i < uart->receive_count; i++)
            errors |= uart->received_errors[(uart->receive_start + i) % FIFO_SIZE];
        if (errors)
            status |= LSR_FIFO_ERROR;
    }
    return status;
}

static uint8_t register_read(struct uart *uart, unsigned reg)
{
    uint8_t value;

    switch (reg) {
    case REG_DATA:
        return uart->lcr & LCR_DLAB ? uart->divisor & 0xff : receiver_take(uart);
    case REG_IER:
        return uart->lcr & LCR_DLAB ? uart->divisor >> 8 : uart->ier;
    case REG_IIR:
        value = interrupt_identify(uart);
        if (value == IIR_THR_EMPTY)
            uart->thr_pending = false;
        return value | (uart->fcr & FCR_ENABLE ? IIR_FIFOS : 0);
    case REG_LCR:
        return uart->lcr;
    case REG_MCR:
        return uart->mcr;
    case REG_LSR:
        value = line_status(uart);
        uart->errors = 0;
        return value;
    case REG_MSR:
        value = uart->msr;
        uart->msr &= 0xf0;
        return value;
    default:
        return uart->scr;
    }
}

static void ier_write(struct uart *uart, uint8_t value)
{
    /* Enabling the THR-empty interrupt while THR is empty raises it. */
    if (value & ~uart->ier & IER_THR_EMPTY && !uart->transmit_count)
        uart->thr_pending = true;
    uart->ier = value & IER_MASK;
}

static void fcr_write(struct uart *uart, uint8_t value)
{
    bool toggled = (value ^ uart->fcr) & FCR_ENABLE;

    uart->fcr = value & FCR_ENABLE ? value & FCR_KEPT : 0;
    if (toggled || value & FCR_CLEAR_RECEIVER)
        receiver_clear(uart);
    /* What waits here was sent long ago by a real port, so it is not lost. */
    if ((toggled || value & FCR_CLEAR_TRANSMITTER) && uart->transmit_count) {
        if (uart->chardev)
            chardev_force(uart->chardev, uart->transmit, uart->transmit_count);
        uart->transmit_count = 0;
        uart->thr_pending = true;
    }
    timeout_restart(uart); /* by the new trigger level */
}

static void lcr_write(struct uart *uart, uint8_t value)
{
    if (uart->mcr & MCR_LOOP && value & ~uart->lcr & LCR_BREAK) {
        receiver_put(uart, 0, LSR_BREAK);
        timeout_restart(uart);
    }
    uart->lcr = value;
}

static void register_write(struct uart *uart, unsigned reg, uint8_t value)
{
    switch (reg) {
    case REG_DATA:
        if (uart->lcr & LCR_DLAB)
            uart->divisor = (uart->divisor & 0xff00) | value;
        else
            transmitter_put(uart, value);
        break;
    case REG_IER:
        if (uart->lcr & LCR_DLAB)
            uart->divisor = (uart->divisor & 0x00ff) | value << 8;
        else
            ier_write(uart, value);
        break;
    case REG_IIR:
        fcr_write(uart, value);
        break;
    case REG_LCR:
        lcr_write(uart, value);
        break;
    case REG_MCR:
        uart->mcr = value & MCR_MASK;
        modem_update(uart);
        if (uart->chardev)
            chardev_accept_input(uart->chardev); /* loopback may have ended */
        break;
    case REG_SCR:
        uart->scr = value;
        break;
    default: /* LSR and MSR are read-only */
        break;
    }
}

static uint64_t uart_read(void *opaque, uint64_t offset, unsigned size)
{
    struct uart *uart = opaque;

    device_lock(&uart->device);
    uint8_t value = register_read(uart, offset & 7);
    interrupt_update(uart);
    device_unlock(&uart->device);
    return value;
}

static void uart_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct uart *uart = opaque;

    device_lock(&uart->device);
    register_write(uart, offset & 7, (uint8_t)value);
    interrupt_update(uart);
    device_unlock(&uart->device);
}

/* Wide accesses reach the register at their address, as programs made for this board expect. */
const struct mmio_ops uart_ops = {
    .read = uart_read,
    .write = uart_write,
};

/* The channel's side. */

static size_t uart_room(void *opaque)
{
    struct uart *uart = opaque;

    device_lock(&uart->device);
    size_t room = uart->mcr & MCR_LOOP ? 0 : fifo_size(uart) - uart->receive_count;
    device_unlock(&uart->device);
    return room;
}

static void uart_receive(void *opaque, const uint8_t *bytes, size_t size)
{
    struct uart *uart = opaque;

    device_lock(&uart->device);
    for (size_t i = 0; i < size; i++)
        receiver_put(uart, bytes[i], 0);
    timeout_restart(uart);
    interrupt_update(uart);
    device_unlock(&uart->device);
}

static void uart_writable(void *opaque)
{
    struct uart *uart = opaque;

    device_lock(&uart->device);
    if (uart->transmit_count)
        transmitter_run(uart);
    interrupt_update(uart);
    device_unlock(&uart->device);
}

static void uart_event(void *opaque, enum chardev_event event)
{
    struct uart *uart = opaque;

    if (event != CHARDEV_BREAK)
        return;
    device_lock(&uart->device);
    if (!(uart->mcr & MCR_LOOP)) {
        receiver_put(uart, 0, LSR_BREAK);
        timeout_restart(uart);
        interrupt_update(uart);
    }
    device_unlock(&uart->device);
}

static const struct chardev_client uart_client = {
    .room = uart_room,
    .receive = uart_receive,
    .writable = uart_writable,
    .event = uart_event,
};

size_t uart_take_input(struct uart *uart, void *bytes, size_t size)
{
    uint8_t *to = bytes;
    size_t count = 0;

    device_lock(&uart->device);
    while (count < size && uart->receive_count)
        to[count++] = receiver_take(uart);
    interrupt_update(uart);
    device_unlock(&uart->device);
    return count;
}

/* Life. */

static void uart_reset(struct device *device)
{
    struct uart *uart = container_of(device, struct uart, device);

    device_lock(device);
    if (uart->chardev && uart->transmit_count)
        chardev_force(uart->chardev, uart->transmit, uart->transmit_count);
    uart->ier = uart->fcr = uart->lcr = uart->scr = uart->errors = 0;
    uart->mcr = 0;
    uart->msr = MSR_DCD | MSR_DSR | MSR_CTS;
    uart->divisor = UART_CLOCK_HZ / 16 / 9600;
    uart->thr_pending = uart->timed_out = false;
    uart->receive_start = uart->receive_count = uart->transmit_count = 0;
    loop_set_timer(uart->timeout_timer, UINT64_MAX);
    interrupt_update(uart);
    device_unlock(device);
    if (uart->chardev)
        chardev_accept_input(uart->chardev);
}

static void uart_check(struct uart *uart, struct stream *stream)
{
    uart->fcr &= FCR_KEPT;
    if (uart->receive_start >= FIFO_SIZE || uart->receive_count > fifo_size(uart) ||
        uart->transmit_count > fifo_size(uart)) {
        stream_fail(stream, "%s: a FIFO of the state is out of range", uart->device.name);
        uart->receive_start = uart->receive_count = uart->transmit_count = 0;
    }
    for (unsigned i = 0; i < FIFO_SIZE; i++)
        uart->received_errors[i] &= LSR_ERRORS;
    uart->errors &= LSR_ERRORS;
    uart->ier &= IER_MASK;
    uart->mcr &= MCR_MASK;
}

static void uart_state(struct device *device, struct stream *stream)
{
    struct uart *uart = container_of(device, struct uart, device);
    uint8_t *const registers[] = {
        &uart->ier,           &uart->fcr,           &uart->lcr,
        &uart->mcr,           &uart->msr,           &uart->scr,
        &uart->receive_start, &uart->receive_count, &uart->transmit_count,
        &uart->errors,
    };

    stream_begin(stream, "uart", 1);
    for (size_t i = 0; i < ARRAY_SIZE(registers); i++)
        stream_u8(stream, registers[i]);
    stream_u16(stream, &uart->divisor);
    stream_bool(stream, &uart->thr_pending);
    stream_bool(stream, &uart->timed_out);
    stream_bytes(stream, uart->received, sizeof(uart->received));
    stream_bytes(stream, uart->received_errors, sizeof(uart->received_errors));
    stream_bytes(stream, uart->transmit, sizeof(uart->transmit));
    stream_end(stream);
    if (!stream_loading(stream))
        return;
    uart_check(uart, stream);
    if (uart->transmit_count)
        transmitter_run(uart);
    timeout_restart(uart);
    uart->level = interrupt_identify(uart) != IIR_NONE;
    irq_set(&uart->irq, uart->level);
    if (uart->chardev)
        chardev_accept_input(uart->chardev);
}

static void uart_remove(struct device *device)
{
    struct uart *uart = container_of(device, struct uart, device);

    if (uart->chardev)
        chardev_attach(uart->chardev, NULL, NULL);
    loop_remove_timer(uart->timeout_timer);
    device_finish(device);
    free(uart);
}

/* Messages that the guest saw leave must be on their way before the machine ends. */
static void uart_quiesce(struct device *device)
{
    struct uart *uart = container_of(device, struct uart, device);

    if (uart->chardev)
        chardev_flush(uart->chardev, 500);
}

static const struct device_type uart_type = {
    .name = "ns16550a",
    .reset = uart_reset,
    .state = uart_state,
    .remove = uart_remove,
    .quiesce = uart_quiesce,
};

struct uart *uart_create(const char *name, const struct uart_config *config)
{
    struct uart *uart = xcalloc(1, sizeof(*uart));

    device_init(&uart->device, &uart_type, name);
    uart->chardev = config->chardev;
    uart->irq = config->irq;
    uart->timeout_timer = loop_add_timer(config->loop, timeout_expired, uart);
    uart_reset(&uart->device);
    if (uart->chardev)
        chardev_attach(uart->chardev, &uart_client, uart);
    return uart;
}

struct device *uart_device(struct uart *uart)
{
    return &uart->device;
}
