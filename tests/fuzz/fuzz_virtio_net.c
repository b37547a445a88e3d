/*
 * virtio-net against a model: the input programs frames in both directions with headers of any
 * kind, receive buffers of any size, control commands, resets and saved states. What is valid must
 * arrive whole and once; what is not must be dropped; nothing else may happen.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../unit/virtio_driver.h"
#include "virtio/net.h"

#define RX         0
#define TX         1
#define CTRL       2
#define QUEUE_SIZE 16
#define HEADER     12
#define BUFFER_MAX 4096
#define TX_GPA     DRIVER_BUFFERS
#define CTRL_GPA   (DRIVER_BUFFERS + 0x20000)
#define ACK_GPA    (DRIVER_BUFFERS + 0x30000)
#define RX_GPA(n)  (DRIVER_BUFFERS + 0x40000 + BUFFER_MAX * (uint64_t)(n))

#define F_CSUM      0
#define F_HOST_TSO4 11
#define F_MRG_RXBUF 15

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct loop *loop;
static struct memory *memory;
static struct virtio_mmio *slot;
static struct virtio_device *device;
static struct driver driver;
static uint64_t features;
static bool controlled; /* the filter may drop frames */

/* Receive buffers that are offered and not yet filled, in order; their sizes. */
static uint32_t offered[QUEUE_SIZE];
static unsigned offered_first, offered_count;

/* The back end: what it was given last. */
static struct net_backend backend;
static bool busy;
static unsigned sent;
static struct net_header sent_header;
static uint8_t sent_frame[NET_FRAME_MAX];
static size_t sent_size;

static uint8_t frame[NET_FRAME_MAX + 64];

struct input {
    const uint8_t *bytes;
    size_t left;
};

static uint64_t take(struct input *input, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size && input->left; i++, input->left--)
        value |= (uint64_t)*input->bytes++ << 8 * i;
    return value;
}

static void check(bool truth)
{
    if (!truth)
        abort();
}

static bool model_send(struct net_backend *own, const struct net_header *header,
                       const struct iovec *iov, unsigned count, size_t size)
{
    if (busy)
        return false;
    sent++;
    sent_header = *header;
    sent_size = 0;
    for (unsigned n = 0; n < count; n++) {
        check(iov[n].iov_len <= sizeof(sent_frame) - sent_size);
        memcpy(sent_frame + sent_size, iov[n].iov_base, iov[n].iov_len);
        sent_size += iov[n].iov_len;
    }
    check(sent_size == size && size >= NET_FRAME_MIN);
    /* As the user network does: an offset out of bounds is its assertion. */
    if (header->flags & NET_HDR_F_NEEDS_CSUM)
        net_complete_checksum(header, sent_frame, size);
    return true;
}

static void model_nothing(struct net_backend *own)
{
}

static const struct net_backend_type model_type = {
    .name = "model",
    .send = model_send,
    .process = model_nothing,
    .resume = model_nothing,
    .destroy = model_nothing,
};

static bool has_feature(unsigned bit)
{
    return features & device->offered & BIT(bit);
}

static bool is_broken(void)
{
    return driver_read(&driver, MMIO_STATUS) & VIRTIO_STATUS_NEEDS_RESET;
}

static void turn(void)
{
    for (int n = 0; n < 3; n++)
        loop_turn(loop, 0);
}

static void start(void)
{
    driver_start(&driver, features & device->offered, 3, QUEUE_SIZE);
    offered_first = offered_count = 0;
    controlled = false;
    turn();
}

/* Copied from a table, since the fuzzer would trace each round of a loop. */
static uint8_t pattern[sizeof(frame) + 256];

static void fill(struct input *input, size_t size)
{
    memcpy(frame, pattern + take(input, 1), size);
}

/* Whether the header may be used on a frame of this size (section 5.1.6.2). */
static bool header_valid(const struct net_header *header, size_t size, bool *partial)
{
    *partial = header->flags & NET_HDR_F_NEEDS_CSUM && has_feature(F_CSUM);
    if (*partial && (size_t)header->csum_start + header->csum_offset + 2 > size)
        return false;
    if (header->gso_type == NET_HDR_GSO_NONE)
        return true;
    return header->gso_type == NET_HDR_GSO_TCPV4 && has_feature(F_HOST_TSO4) && *partial &&
           header->gso_size;
}

static struct net_header take_header(struct input *input)
{
    struct net_header header = {0};
    uint8_t choice = (uint8_t)take(input, 1);
    if (choice & 1) {
        header.flags = NET_HDR_F_NEEDS_CSUM;
        header.csum_start = (uint16_t)take(input, 1);
        header.csum_offset = (uint16_t)take(input, 1) % 20;
    }
    if (choice & 2) {
        header.gso_type = NET_HDR_GSO_TCPV4;
        header.gso_size = (uint16_t)take(input, 2);
    }
    if ((choice & 0x1c) == 0x1c) {
        header.flags = (uint8_t)take(input, 1);
        header.gso_type = (uint8_t)take(input, 1);
        header.csum_start = (uint16_t)take(input, 2);
        header.csum_offset = (uint16_t)take(input, 2);
    }
    return header;
}

static void transmit(struct input *input)
{
    struct net_header header = take_header(input);
    struct driver_desc descs[8];
    unsigned count = 0, pieces = take(input, 1) % 6;
    size_t size = take(input, 2) >> take(input, 1) % 8;
    uint64_t gpa = TX_GPA;
    uint32_t head, written, left;
    bool partial;
    fill(input, size);
    memory_dma_write(memory, gpa, &header, HEADER);
    memory_dma_write(memory, gpa + HEADER, frame, size);
    for (left = (uint32_t)(HEADER + size); left && pieces; pieces--) {
        uint32_t part = 1 + (uint32_t)take(input, 2) % left;
        descs[count++] = (struct driver_desc){gpa, part, 0, 0};
        gpa += part;
        left -= part;
    }
    if (left)
        descs[count++] = (struct driver_desc){gpa, left, 0, 0};

    bool valid = size >= NET_FRAME_MIN && header_valid(&header, size, &partial);
    unsigned before = sent;
    busy = take(input, 1) % 4 == 0;
    driver_offer_chain(&driver, TX, 0, descs, count);
    driver_notify(&driver, TX);
    turn();
    if (busy && valid) {
        check(sent == before && !driver_take(&driver, TX, &head, &written));
        busy = false;
        backend.receiver.writable(backend.receiver.opaque);
        turn();
    }
    busy = false;
    check(driver_take(&driver, TX, &head, &written) && !written && !is_broken());
    check(sent == before + valid);
    if (!valid)
        return;
    check(sent_size == size && !!(sent_header.flags & NET_HDR_F_NEEDS_CSUM) == partial);
    if (partial) /* all but the checksum itself */
        memcpy(frame + header.csum_start + header.csum_offset,
               sent_frame + header.csum_start + header.csum_offset, 2);
    check(!memcmp(sent_frame, frame, size));
}

static void offer_buffer(struct input *input)
{
    if (offered_count == QUEUE_SIZE)
        return;
    uint8_t choice = (uint8_t)take(input, 1);
    uint32_t size = choice & 1 ? 2048 : HEADER + (uint32_t)take(input, 2) % (BUFFER_MAX - HEADER);
    unsigned n = (offered_first + offered_count) % QUEUE_SIZE;
    struct driver_desc desc = {RX_GPA(n), size, DESC_WRITE, 0};
    driver_offer_chain(&driver, RX, n, &desc, 1);
    offered[n] = size;
    offered_count++;
    if (choice & 2) {
        driver_notify(&driver, RX);
        turn();
    }
}

/* How many of the offered buffers the frame takes; 0 if it does not fit. */
static unsigned buffers_needed(size_t size)
{
    unsigned limit = has_feature(F_MRG_RXBUF) ? offered_count : 1;
    size_t room = 0;
    for (unsigned n = 0; n < limit && n < offered_count; n++) {
        room += offered[(offered_first + n) % QUEUE_SIZE];
        if (room >= size)
            return n + 1;
    }
    return 0;
}

static void receive(struct input *input)
{
    struct net_header header = {.flags = NET_HDR_F_DATA_VALID};
    uint8_t choice = (uint8_t)take(input, 1), bytes[BUFFER_MAX];
    size_t size = choice & 1 ? 1514 : NET_FRAME_MIN + take(input, 2) % 10000, done = 0;
    uint32_t head, written;
    fill(input, size);
    memset(frame, 0xff, 6);
    unsigned needed = buffers_needed(HEADER + size);
    virtio_lock(device);
    bool taken = backend.receiver.receive(backend.receiver.opaque, &header, frame, size);
    virtio_unlock(device);
    backend.receiver.ready(backend.receiver.opaque);
    check(!is_broken());
    if (controlled && taken && driver_used_index(&driver, RX) == driver.used[RX])
        return; /* filtered */
    check(taken || !needed);
    for (unsigned n = 0; n < needed; n++) {
        check(driver_take(&driver, RX, &head, &written) && head == offered_first % QUEUE_SIZE);
        check(written <= offered[head]);
        memory_dma_read(memory, RX_GPA(head), bytes, written);
        size_t skip = n ? 0 : HEADER;
        check(n || load_le16(bytes + 10) == needed);
        check(done + written - skip <= size && !memcmp(bytes + skip, frame + done, written - skip));
        done += written - skip;
        offered_first = (offered_first + 1) % QUEUE_SIZE;
        offered_count--;
    }
    check(!needed || done == size);
    check(driver_used_index(&driver, RX) == driver.used[RX]);
}

static void control(struct input *input)
{
    uint8_t bytes[600] = {0}, ack = 0xee;
    size_t size = 2 + take(input, 1) % 32;
    uint32_t head, written;
    bytes[0] = (uint8_t)take(input, 1) % 3;
    bytes[1] = (uint8_t)take(input, 1) % 7;
    for (size_t n = 2; n < size; n++)
        bytes[n] = (uint8_t)take(input, 1);
    if (take(input, 1) % 8 == 0) /* large tables */
        size = sizeof(bytes);
    memory_dma_write(memory, CTRL_GPA, bytes, size);
    memory_dma_write(memory, ACK_GPA, &ack, 1);
    struct driver_desc descs[] = {{CTRL_GPA, (uint32_t)size, 0, 0}, {ACK_GPA, 1, DESC_WRITE, 0}};
    driver_offer_chain(&driver, CTRL, 0, descs, 2);
    driver_notify(&driver, CTRL);
    turn();
    check(driver_take(&driver, CTRL, &head, &written) && written == 1 && !is_broken());
    memory_dma_read(memory, ACK_GPA, &ack, 1);
    check(ack <= 1);
    controlled |= !ack;
}

static void save_and_load(struct input *input)
{
    struct stream *saving = stream_create_saving();
    size_t size;
    device->base.type->quiesce(&device->base);
    device->base.type->state(&device->base, saving);
    check(!stream_failed(saving));
    const void *bytes = stream_data(saving, &size);
    driver_write(&driver, MMIO_STATUS, 0);
    struct stream *loading = stream_create_loading(bytes, size);
    device->base.type->state(&device->base, loading);
    check(!stream_failed(loading));
    stream_destroy(loading);
    stream_destroy(saving);
    turn();
}

/* A chain as the input has it, on any queue; then everything starts again. */
static void rubbish(struct input *input)
{
    struct driver_desc descs[4];
    unsigned queue = take(input, 1) % 3, count = 1 + take(input, 1) % 4;
    for (unsigned n = 0; n < count; n++) {
        uint64_t gpa = take(input, 1) & 1 ? take(input, 8) : TX_GPA + take(input, 2);
        descs[n] = (struct driver_desc){gpa, (uint32_t)take(input, 3), (uint16_t)take(input, 1),
                                        (uint16_t)take(input, 1)};
    }
    driver_offer_chain(&driver, queue, 0, descs, count);
    driver_notify(&driver, queue);
    turn();
    struct net_header header = {0};
    fill(input, 1000);
    virtio_lock(device);
    backend.receiver.receive(backend.receiver.opaque, &header, frame, 1000);
    virtio_unlock(device);
    start();
    check(!is_broken());
}

static void step(struct input *input)
{
    static void (*const steps[])(struct input *) = {
        transmit, transmit, transmit,      offer_buffer, offer_buffer, offer_buffer,
        receive,  receive,  save_and_load, control,      rubbish,
    };
    uint8_t operation = (uint8_t)take(input, 1) % (ARRAY_SIZE(steps) + 1);
    if (operation < ARRAY_SIZE(steps)) {
        steps[operation](input);
        return;
    }
    features = take(input, 5) | BIT(F_MRG_RXBUF) * (take(input, 1) & 1);
    start();
}

static void set_up(void)
{
    for (size_t n = 0; n < sizeof(pattern); n++)
        pattern[n] = (uint8_t)(n + (n >> 8) * 7);
    backend.type = &model_type;
    backend.offloads = NET_SEND_CSUM | NET_SEND_TSO4 | NET_RECEIVE_CSUM;
    loop = loop_create();
    memory = memory_create();
    check(memory_add_ram(memory, DRIVER_RAM_BASE, DRIVER_RAM_SIZE, NULL));
    slot = virtio_mmio_create(memory, DRIVER_SLOT, (struct irq_line){0}, "slot0", NULL);
    device = virtio_net_create_with("net0", &backend, 0, loop);
    check(slot && virtio_mmio_attach(slot, device, NULL));
    driver = (struct driver){.memory = memory, .slot = DRIVER_SLOT};
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct input input = {bytes, size};
    if (!loop)
        set_up();
    features = ~UINT64_C(0);
    start();
    for (int steps = 0; input.left && steps < 300; steps++)
        step(&input);
    driver_write(&driver, MMIO_STATUS, 0);
    return 0;
}
