/* virtio-net, driven as a guest drives it, on a back end of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "virtio/net.h"
#include "virtio/net_filter.h"
#include "virtio_driver.h"

#define RX         0
#define TX         1
#define CTRL       2
#define QUEUE_SIZE 16
#define HEADER     12

#define F_CSUM          0
#define F_GUEST_CSUM    1
#define F_GUEST_TSO4    7
#define F_HOST_TSO4     11
#define F_MRG_RXBUF     15
#define F_CTRL_VQ       17
#define F_CTRL_RX       18
#define F_CTRL_RX_EXTRA 20
#define F_CTRL_MAC_ADDR 23
#define CTRL_FEATURES                                                                              \
    (BIT(F_CTRL_VQ) | BIT(F_CTRL_RX) | BIT(F_CTRL_RX_EXTRA) | BIT(F_CTRL_MAC_ADDR))

/* Notes what it is given, and gives what the test wants. */
struct fake {
    struct net_backend base;
    bool busy;
    bool echo; /* answers each frame from within send */
    unsigned sent;
    struct net_header header;
    uint8_t frame[NET_FRAME_MAX];
    size_t size;
    unsigned resumed, wanted;
    bool destroyed;
};

static bool fake_send(struct net_backend *backend, const struct net_header *header,
                      const struct iovec *iov, unsigned count, size_t size)
{
    struct fake *fake = container_of(backend, struct fake, base);
    if (fake->busy)
        return false;
    fake->sent++;
    fake->header = *header;
    fake->size = 0;
    for (unsigned n = 0; n < count; n++) {
        assert_true(fake->size + iov[n].iov_len <= sizeof(fake->frame));
        memcpy(fake->frame + fake->size, iov[n].iov_base, iov[n].iov_len);
        fake->size += iov[n].iov_len;
    }
    assert_int_equal(fake->size, size);
    if (fake->echo)
        backend->receiver.receive(backend->receiver.opaque, header, fake->frame, fake->size);
    return true;
}

static void fake_process(struct net_backend *backend)
{
}

static void fake_resume(struct net_backend *backend)
{
    container_of(backend, struct fake, base)->resumed++;
}

static void fake_set_offloads(struct net_backend *backend, unsigned offloads)
{
    container_of(backend, struct fake, base)->wanted = offloads;
}

static void fake_destroy(struct net_backend *backend)
{
    container_of(backend, struct fake, base)->destroyed = true;
}

static const struct net_backend_type fake_type = {
    .name = "fake",
    .send = fake_send,
    .process = fake_process,
    .resume = fake_resume,
    .set_offloads = fake_set_offloads,
    .destroy = fake_destroy,
};

struct bench {
    struct loop *loop;
    struct memory *memory;
    struct virtio_mmio *slot;
    struct virtio_device *device;
    struct fake fake;
    struct driver driver;
};

static int setup(void **state)
{
    struct bench *bench = xcalloc(1, sizeof(*bench));
    bench->loop = loop_create();
    bench->memory = memory_create();
    bench->fake.base.type = &fake_type;
    bench->fake.base.offloads = NET_SEND_CSUM | NET_SEND_TSO4 | NET_RECEIVE_CSUM | NET_RECEIVE_TSO4;
    assert_true(memory_add_ram(bench->memory, DRIVER_RAM_BASE, DRIVER_RAM_SIZE, NULL));
    bench->slot =
        virtio_mmio_create(bench->memory, DRIVER_SLOT, (struct irq_line){0}, "slot0", NULL);
    bench->device = virtio_net_create_with("net0", &bench->fake.base, 2, bench->loop);
    assert_true(virtio_mmio_attach(bench->slot, bench->device, NULL));
    bench->driver = (struct driver){.memory = bench->memory, .slot = DRIVER_SLOT};
    *state = bench;
    return 0;
}

static int teardown(void **state)
{
    struct bench *bench = *state;
    struct device *slot = virtio_mmio_device(bench->slot);
    bench->device->base.type->remove(&bench->device->base);
    slot->type->remove(slot);
    memory_destroy(bench->memory);
    loop_destroy(bench->loop);
    bool destroyed = bench->fake.destroyed;
    free(bench);
    return destroyed ? 0 : -1;
}

static void start(struct bench *bench, uint64_t features)
{
    driver_start(&bench->driver, features, 3, QUEUE_SIZE);
}

static void turn(struct bench *bench)
{
    for (int n = 0; n < 10; n++)
        loop_turn(bench->loop, 0);
}

static uint64_t buffer(unsigned n)
{
    return DRIVER_BUFFERS + n * UINT64_C(0x20000);
}

static bool broken(struct bench *bench)
{
    return driver_read(&bench->driver, MMIO_STATUS) & VIRTIO_STATUS_NEEDS_RESET;
}

/* Sends a frame with the header; the guest's queue is served. */
static void send_frame(struct bench *bench, const struct net_header *header, const void *frame,
                       size_t size)
{
    uint32_t head, written;
    memory_dma_write(bench->memory, buffer(0), header, sizeof(*header));
    memory_dma_write(bench->memory, buffer(0) + HEADER, frame, size);
    struct driver_desc desc = {buffer(0), (uint32_t)(HEADER + size), 0, 0};
    driver_offer_chain(&bench->driver, TX, 0, &desc, 1);
    driver_notify(&bench->driver, TX);
    turn(bench);
    assert_true(driver_take(&bench->driver, TX, &head, &written));
    assert_int_equal(written, 0);
}

static void make_frame(uint8_t *frame, size_t size, uint8_t to)
{
    for (size_t n = 0; n < size; n++)
        frame[n] = (uint8_t)(n * 5 + size);
    memcpy(frame, (const uint8_t[]){0x52, 0x54, 0x00, 0x12, 0x34, to}, 6);
}

/* The back end has a frame for the guest. */
static bool give(struct bench *bench, uint8_t flags, const void *frame, size_t size)
{
    struct net_header header = {.flags = flags};
    struct net_receiver *receiver = &bench->fake.base.receiver;
    virtio_lock(bench->device);
    bool taken = receiver->receive(receiver->opaque, &header, frame, size);
    virtio_unlock(bench->device);
    receiver->ready(receiver->opaque);
    return taken;
}

static void offer_buffer(struct bench *bench, unsigned n, uint32_t size)
{
    struct driver_desc desc = {buffer(n), size, DESC_WRITE, 0};
    driver_offer_chain(&bench->driver, RX, n, &desc, 1);
}

/* Takes the next received buffer; returns the bytes in it. */
static size_t take(struct bench *bench, uint8_t *bytes, size_t size)
{
    uint32_t head, written;
    if (!driver_take(&bench->driver, RX, &head, &written))
        return 0;
    assert_true(written <= size);
    memory_dma_read(bench->memory, buffer(head), bytes, written);
    return written;
}

static void test_config(void **state)
{
    struct bench *bench = *state;
    assert_int_equal(driver_read(&bench->driver, 0x008), 1);
    assert_int_equal(driver_read(&bench->driver, MMIO_CONFIG), 0x12005452);
    assert_int_equal(driver_read(&bench->driver, MMIO_CONFIG + 4), 0x00015834); /* up; ..:58 */
    driver_write(&bench->driver, 0x014, 0);
    uint32_t offered = driver_read(&bench->driver, MMIO_DEVICE_FEATURES);
    assert_true(offered & BIT(F_CSUM));
    assert_true(offered & BIT(F_HOST_TSO4));
    assert_false(offered & BIT(12)); /* TSO6, which the back end has not */
}

static void test_send(void **state)
{
    struct bench *bench = *state;
    static uint8_t frame[NET_FRAME_MAX];
    struct net_header plain = {0};
    uint32_t head, written;
    start(bench, 0);
    make_frame(frame, sizeof(frame), 1);
    send_frame(bench, &plain, frame, 60);
    assert_int_equal(bench->fake.sent, 1);
    assert_int_equal(bench->fake.size, 60);
    assert_memory_equal(bench->fake.frame, frame, 60);
    send_frame(bench, &plain, frame, sizeof(frame));
    assert_int_equal(bench->fake.sent, 2);
    assert_memory_equal(bench->fake.frame, frame, sizeof(frame));

    /* header and frame cut anywhere */
    memory_dma_write(bench->memory, buffer(0), &plain, HEADER);
    memory_dma_write(bench->memory, buffer(0) + HEADER, frame, 100);
    struct driver_desc pieces[] = {
        {buffer(0), 5, 0, 0}, {buffer(0) + 5, 20, 0, 0}, {buffer(0) + 25, 87, 0, 0}};
    driver_offer_chain(&bench->driver, TX, 0, pieces, 3);
    driver_notify(&bench->driver, TX);
    turn(bench);
    assert_true(driver_take(&bench->driver, TX, &head, &written));
    assert_int_equal(bench->fake.size, 100);
    assert_memory_equal(bench->fake.frame, frame, 100);

    /* too short, too long: dropped, given back */
    send_frame(bench, &plain, frame, 13);
    send_frame(bench, &plain, frame, 0);
    static uint8_t big[NET_FRAME_MAX + 1];
    send_frame(bench, &plain, big, sizeof(big));
    assert_int_equal(bench->fake.sent, 3);
    assert_false(broken(bench));

    struct driver_desc stub = {buffer(0), HEADER - 1, 0, 0};
    driver_offer_chain(&bench->driver, TX, 0, &stub, 1);
    driver_notify(&bench->driver, TX);
    turn(bench);
    assert_true(broken(bench));
}

static void test_offload_headers(void **state)
{
    struct bench *bench = *state;
    uint8_t frame[2000];
    static const struct {
        struct net_header header;
        bool sent, partial, segmented;
    } cases[] = {
        {{.flags = 1, .csum_start = 34, .csum_offset = 16}, true, true, false},
        {{.flags = 0xff, .csum_start = 34, .csum_offset = 16}, true, true, false},
        {{.flags = 1, .csum_start = 1990, .csum_offset = 8}, true, true, false},
        {{.flags = 1, .csum_start = 1990, .csum_offset = 9}, false, false, false},
        {{.flags = 1, .csum_start = 0xffff, .csum_offset = 0xffff}, false, false, false},
        {{.flags = 0, .csum_start = 0xffff, .csum_offset = 0xffff}, true, false, false},
        {{.flags = 1, .gso_type = 1, .gso_size = 1460, .csum_start = 34, .csum_offset = 16},
         true,
         true,
         true},
        {{.flags = 1, .gso_type = 1, .gso_size = 0, .csum_start = 34, .csum_offset = 16},
         false,
         false,
         false},
        {{.flags = 0, .gso_type = 1, .gso_size = 1460}, false, false, false},
        {{.flags = 1, .gso_type = 4, .gso_size = 1460, .csum_start = 34, .csum_offset = 16},
         false,
         false,
         false},
        {{.flags = 1, .gso_type = 0x81, .gso_size = 1460, .csum_start = 34, .csum_offset = 16},
         false,
         false,
         false},
        {{.flags = 1, .gso_type = 0x7f, .gso_size = 1460, .csum_start = 34, .csum_offset = 16},
         false,
         false,
         false},
    };
    make_frame(frame, sizeof(frame), 1);
    start(bench, BIT(F_CSUM) | BIT(F_HOST_TSO4));
    for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
        unsigned before = bench->fake.sent;
        send_frame(bench, &cases[n].header, frame, sizeof(frame));
        assert_int_equal(bench->fake.sent - before, cases[n].sent);
        if (!cases[n].sent)
            continue;
        assert_int_equal(bench->fake.header.flags, cases[n].partial);
        assert_int_equal(bench->fake.header.gso_type, cases[n].segmented);
        assert_int_equal(bench->fake.header.csum_start,
                         cases[n].partial ? cases[n].header.csum_start : 0);
    }
    assert_false(broken(bench));

    /* none of it was negotiated: none of it arrives */
    start(bench, 0);
    unsigned before = bench->fake.sent;
    send_frame(bench, &cases[0].header, frame, sizeof(frame));
    assert_int_equal(bench->fake.sent, before + 1);
    assert_int_equal(bench->fake.header.flags, 0);
    send_frame(bench, &cases[6].header, frame, sizeof(frame));
    assert_int_equal(bench->fake.sent, before + 1);
}

static void test_wanted_offloads(void **state)
{
    struct bench *bench = *state;
    start(bench, BIT(F_GUEST_CSUM) | BIT(F_GUEST_TSO4));
    assert_int_equal(bench->fake.wanted, NET_RECEIVE_CSUM | NET_RECEIVE_TSO4);
    start(bench, BIT(F_GUEST_TSO4)); /* stands on GUEST_CSUM */
    assert_int_equal(bench->fake.wanted, 0);
    start(bench, BIT(F_GUEST_CSUM));
    driver_write(&bench->driver, MMIO_STATUS, 0);
    assert_int_equal(bench->fake.wanted, 0);
}

/* A busy back end holds the queue up and loses nothing. */
static void test_busy(void **state)
{
    struct bench *bench = *state;
    uint32_t head, written;
    uint8_t zeros[HEADER + 60] = {0};
    start(bench, 0);
    bench->fake.busy = true;
    for (unsigned n = 0; n < 3; n++) {
        struct driver_desc desc = {buffer(n), sizeof(zeros), 0, 0};
        zeros[HEADER + 20] = (uint8_t)(n + 1);
        memory_dma_write(bench->memory, buffer(n), zeros, sizeof(zeros));
        driver_offer_chain(&bench->driver, TX, n, &desc, 1);
    }
    driver_notify(&bench->driver, TX);
    turn(bench);
    assert_false(driver_take(&bench->driver, TX, &head, &written));
    bench->fake.busy = false;
    bench->fake.base.receiver.writable(bench->fake.base.receiver.opaque);
    turn(bench);
    for (unsigned n = 0; n < 3; n++) {
        assert_true(driver_take(&bench->driver, TX, &head, &written));
        assert_int_equal(head, n);
    }
    assert_int_equal(bench->fake.sent, 3);
    assert_int_equal(bench->fake.frame[20], 3);
}

static void test_receive(void **state)
{
    struct bench *bench = *state;
    uint8_t frame[1514], bytes[4096];
    make_frame(frame, sizeof(frame), 0x58);
    assert_true(give(bench, 0, frame, sizeof(frame))); /* no driver yet: lost */
    start(bench, 0);
    assert_false(give(bench, 0, frame, sizeof(frame))); /* no buffers: to be tried again */
    offer_buffer(bench, 0, 2048);
    driver_notify(&bench->driver, RX);
    unsigned before = bench->fake.resumed;
    turn(bench);
    assert_true(bench->fake.resumed > before);
    assert_true(give(bench, NET_HDR_F_DATA_VALID, frame, sizeof(frame)));
    assert_int_equal(take(bench, bytes, sizeof(bytes)), HEADER + sizeof(frame));
    assert_memory_equal(bytes, "\0\0\0\0\0\0\0\0\0\0\1\0", HEADER); /* one buffer, no flags */
    assert_memory_equal(bytes + HEADER, frame, sizeof(frame));

    /* a single buffer that is too small cannot take it, but a smaller frame */
    offer_buffer(bench, 1, 200);
    assert_true(give(bench, 0, frame, sizeof(frame)));
    assert_int_equal(take(bench, bytes, sizeof(bytes)), 0);
    assert_true(give(bench, 0, frame, 188));
    assert_int_equal(take(bench, bytes, sizeof(bytes)), 200);
    assert_memory_equal(bytes + HEADER, frame, 188);
    assert_false(give(bench, 0, frame, 188));

    /* partial checksums and segments only for who can take them */
    offer_buffer(bench, 2, 2048);
    assert_true(give(bench, NET_HDR_F_NEEDS_CSUM, frame, 100));
    assert_int_equal(take(bench, bytes, sizeof(bytes)), 0);
    start(bench, BIT(F_GUEST_CSUM));
    offer_buffer(bench, 2, 2048);
    assert_true(give(bench, NET_HDR_F_DATA_VALID, frame, 100));
    assert_int_equal(take(bench, bytes, sizeof(bytes)), HEADER + 100);
    assert_int_equal(bytes[0], NET_HDR_F_DATA_VALID);
}

static void test_merged_buffers(void **state)
{
    struct bench *bench = *state;
    uint8_t frame[1514], bytes[4096], joined[4096];
    make_frame(frame, sizeof(frame), 0x58);
    start(bench, BIT(F_MRG_RXBUF));
    for (unsigned n = 0; n < 3; n++)
        offer_buffer(bench, n, 400);
    assert_false(give(bench, 0, frame, sizeof(frame))); /* 1526 bytes need one more */
    assert_int_equal(driver_used_index(&bench->driver, RX), 0);
    offer_buffer(bench, 3, 1000);
    assert_true(give(bench, 0, frame, sizeof(frame)));
    size_t size = 0;
    for (unsigned n = 0; n < 4; n++) {
        size_t part = take(bench, bytes, sizeof(bytes));
        assert_int_equal(part, n < 3 ? 400 : HEADER + 1514 - 1200);
        memcpy(joined + size, bytes, part);
        size += part;
    }
    assert_int_equal(joined[10], 4);
    assert_memory_equal(joined + HEADER, frame, sizeof(frame));

    /* all that the queue can hold is still too little: lost, and the buffers stay */
    static uint8_t large[60000];
    make_frame(large, sizeof(large), 0x58);
    for (unsigned n = 0; n < QUEUE_SIZE; n++)
        offer_buffer(bench, n, 400);
    assert_true(give(bench, 0, large, sizeof(large)));
    assert_int_equal(take(bench, bytes, sizeof(bytes)), 0);
    assert_true(give(bench, 0, frame, 300));
    assert_int_equal(take(bench, bytes, sizeof(bytes)), 312);
    assert_false(broken(bench));

    start(bench, BIT(F_MRG_RXBUF));
    offer_buffer(bench, 0, HEADER - 1);
    assert_true(give(bench, 0, frame, 300));
    assert_true(broken(bench));
    assert_true(give(bench, 0, frame, 300)); /* lost, not waited for */
}

/* An answer from within `send` arrives, and is announced. */
static void test_echo(void **state)
{
    struct bench *bench = *state;
    uint8_t frame[60], bytes[4096];
    struct net_header plain = {0};
    start(bench, 0);
    make_frame(frame, sizeof(frame), 0x58);
    offer_buffer(bench, 4, 2048);
    bench->fake.echo = true;
    send_frame(bench, &plain, frame, sizeof(frame));
    assert_int_equal(take(bench, bytes, sizeof(bytes)), HEADER + 60);
    assert_memory_equal(bytes + HEADER, frame, 60);
}

/* Sends a control command; returns the acknowledgement. */
static uint8_t control(struct bench *bench, uint8_t class, uint8_t command, const void *data,
                       size_t size)
{
    uint8_t head_bytes[2] = {class, command}, ack = 0xee;
    uint32_t head, written;
    memory_dma_write(bench->memory, buffer(8), head_bytes, 2);
    memory_dma_write(bench->memory, buffer(8) + 2, data, size);
    memory_dma_write(bench->memory, buffer(9), &ack, 1);
    struct driver_desc descs[] = {{buffer(8), (uint32_t)(2 + size), 0, 0},
                                  {buffer(9), 1, DESC_WRITE, 0}};
    driver_offer_chain(&bench->driver, CTRL, 0, descs, 2);
    driver_notify(&bench->driver, CTRL);
    turn(bench);
    assert_true(driver_take(&bench->driver, CTRL, &head, &written));
    assert_int_equal(written, 1);
    memory_dma_read(bench->memory, buffer(9), &ack, 1);
    return ack;
}

static uint8_t set_mode(struct bench *bench, uint8_t mode, uint8_t on)
{
    return control(bench, 0, mode, &on, 1);
}

/* Whether a frame to this address arrives. */
static bool arrives(struct bench *bench, const char *address)
{
    uint8_t frame[60] = {0}, bytes[2048];
    memcpy(frame, address, 6);
    offer_buffer(bench, 5, 2048);
    assert_true(give(bench, 0, frame, sizeof(frame)));
    bool there = take(bench, bytes, sizeof(bytes));
    if (!there) { /* take the buffer back by filling it */
        memcpy(frame, "\x52\x54\x00\x12\x34\x58", 6);
        bool own = give(bench, 0, frame, sizeof(frame)) && take(bench, bytes, sizeof(bytes));
        assert_true(own);
    }
    return there;
}

static void test_filter(void **state)
{
    static const char own[] = "\x52\x54\x00\x12\x34\x58", other[] = "\x52\x54\x00\x12\x34\x59";
    static const char all[] = "\xff\xff\xff\xff\xff\xff", group[] = "\x01\x00\x5e\x00\x00\x01";
    struct bench *bench = *state;
    start(bench, CTRL_FEATURES);
    assert_true(arrives(bench, other)); /* promiscuous until told otherwise */
    assert_int_equal(set_mode(bench, NET_FILTER_PROMISC, 0), 0);
    assert_true(arrives(bench, own));
    assert_true(arrives(bench, all));
    assert_false(arrives(bench, other));
    assert_false(arrives(bench, group));
    assert_int_equal(set_mode(bench, NET_FILTER_ALLMULTI, 1), 0);
    assert_true(arrives(bench, group));
    assert_int_equal(set_mode(bench, NET_FILTER_ALLMULTI, 0), 0);

    uint8_t tables[20] = {1, 0, 0, 0, [10] = 1};
    memcpy(tables + 4, other, 6);
    memcpy(tables + 14, group, 6);
    assert_int_equal(control(bench, 1, 0, tables, sizeof(tables)), 0);
    assert_true(arrives(bench, other));
    assert_true(arrives(bench, group));
    assert_false(arrives(bench, "\x01\x00\x5e\x00\x00\x02"));
    assert_int_equal(set_mode(bench, NET_FILTER_NOMULTI, 1), 0);
    assert_false(arrives(bench, group));
    assert_int_equal(set_mode(bench, NET_FILTER_NOBCAST, 1), 0);
    assert_false(arrives(bench, all));

    /* wrong ones change nothing */
    assert_int_equal(control(bench, 1, 0, tables, sizeof(tables) - 1), 1);
    store_le32(tables, 0xffffffff);
    assert_int_equal(control(bench, 1, 0, tables, sizeof(tables)), 1);
    store_le32(tables, 0x2aaaaaab); /* times 6 wraps around */
    assert_int_equal(control(bench, 1, 0, tables, sizeof(tables)), 1);
    assert_int_equal(set_mode(bench, 6, 1), 1);
    assert_int_equal(control(bench, 0, 0, tables, 2), 1);
    assert_int_equal(control(bench, 9, 0, tables, 2), 1);
    assert_true(arrives(bench, other));

    /* more addresses than the table holds: all of that kind */
    static uint8_t many[4 + 6 * 100 + 4];
    store_le32(many, 100);
    assert_int_equal(control(bench, 1, 0, many, sizeof(many)), 0);
    assert_true(arrives(bench, "\x02\x33\x44\x55\x66\x77"));
    static uint8_t huge[20000];
    assert_int_equal(control(bench, 1, 0, huge, sizeof(huge)), 1);

    /* the address itself */
    assert_int_equal(control(bench, 1, 1, "\x52\x54\x00\x12\x34\x77", 6), 0);
    assert_int_equal(driver_read(&bench->driver, MMIO_CONFIG + 4) & 0xffff, 0x7734);
    assert_int_equal(control(bench, 1, 1, own, 5), 1);
    start(bench, 0);
    assert_int_equal(driver_read(&bench->driver, MMIO_CONFIG + 4) & 0xffff, 0x5834);
    assert_int_equal(set_mode(bench, NET_FILTER_PROMISC, 0), 1); /* not negotiated */
    assert_false(broken(bench));

    struct driver_desc stub = {buffer(0), 2, 0, 0};
    driver_offer_chain(&bench->driver, CTRL, 0, &stub, 1);
    driver_notify(&bench->driver, CTRL);
    turn(bench);
    assert_true(broken(bench));
}

static void test_state(void **state)
{
    struct bench *bench = *state;
    uint8_t frame[60], bytes[2048];
    start(bench, CTRL_FEATURES | BIT(F_GUEST_CSUM) | BIT(F_MRG_RXBUF));
    assert_int_equal(control(bench, 1, 1, "\x52\x54\x00\x12\x34\x77", 6), 0);
    assert_int_equal(set_mode(bench, NET_FILTER_PROMISC, 0), 0);
    offer_buffer(bench, 0, 2048);
    offer_buffer(bench, 1, 2048);
    make_frame(frame, sizeof(frame), 0x77);
    assert_true(give(bench, 0, frame, sizeof(frame)));

    struct stream *saving = stream_create_saving();
    struct device *device = &bench->device->base;
    device->type->quiesce(device);
    device->type->state(device, saving);
    assert_false(stream_failed(saving));
    size_t size;
    const void *data = stream_data(saving, &size);
    driver_write(&bench->driver, MMIO_STATUS, 0);
    assert_int_equal(bench->fake.wanted, 0);
    struct stream *loading = stream_create_loading(data, size);
    device->type->state(device, loading);
    struct error err;
    if (!stream_check(loading, &err))
        fail_msg("%s", err.message);
    stream_destroy(loading);

    assert_int_equal(bench->fake.wanted, NET_RECEIVE_CSUM);
    assert_int_equal(take(bench, bytes, sizeof(bytes)), HEADER + 60);
    assert_true(give(bench, 0, frame, sizeof(frame))); /* the second buffer is still offered */
    assert_int_equal(take(bench, bytes, sizeof(bytes)), HEADER + 60);
    assert_memory_equal(bytes + HEADER, frame, sizeof(frame));
    make_frame(frame, sizeof(frame), 0x58);
    assert_true(give(bench, 0, frame, sizeof(frame))); /* filtered, with no buffer left */
    assert_int_equal(driver_read(&bench->driver, MMIO_CONFIG + 4) & 0xffff, 0x7734);

    for (size_t cut = 0; cut < size; cut++) {
        loading = stream_create_loading(data, cut);
        device->type->state(device, loading);
        assert_true(stream_failed(loading));
        stream_destroy(loading);
    }
    stream_destroy(saving);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        T(test_config), T(test_send),    T(test_offload_headers), T(test_wanted_offloads),
        T(test_busy),   T(test_receive), T(test_merged_buffers),  T(test_echo),
        T(test_filter), T(test_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
