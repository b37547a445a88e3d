/*
 * virtio-net.
 *
 * Frames go straight from the guest's buffers to the back end, which copies or sends them before it
 * returns, so nothing is ever in flight: a reset has nothing to wait for. Offloads are offered as
 * far as the back end has them: a user network completes checksums and takes large TCP segments, a
 * tap device leaves both to the host's kernel.
 */
#include "virtio/net.h"

#include <stdlib.h>

#include "virtio/iovec.h"
#include "virtio/net_filter.h"

#define NET_QUEUE_SIZE      256
#define NET_CTRL_QUEUE_SIZE 64

enum net_queue { NET_RX, NET_TX, NET_CTRL, NET_QUEUES };

/* Section 5.1.3 */
enum net_feature {
    NET_F_CSUM = 0,
    NET_F_GUEST_CSUM = 1,
    NET_F_MAC = 5,
    NET_F_GUEST_TSO4 = 7,
    NET_F_GUEST_TSO6 = 8,
    NET_F_GUEST_ECN = 9,
    NET_F_HOST_TSO4 = 11,
    NET_F_HOST_TSO6 = 12,
    NET_F_HOST_ECN = 13,
    NET_F_MRG_RXBUF = 15,
    NET_F_STATUS = 16,
    NET_F_CTRL_VQ = 17,
    NET_F_CTRL_RX = 18,
    NET_F_CTRL_RX_EXTRA = 20,
    NET_F_CTRL_MAC_ADDR = 23,
};

/* Each offload is worth nothing without the feature that it stands on (section 5.1.3.1). */
static const struct {
    unsigned offload, feature, needs;
} offload_features[] = {
    {NET_SEND_CSUM, NET_F_CSUM, NET_F_CSUM},
    {NET_SEND_TSO4, NET_F_HOST_TSO4, NET_F_CSUM},
    {NET_SEND_TSO6, NET_F_HOST_TSO6, NET_F_CSUM},
    {NET_SEND_ECN, NET_F_HOST_ECN, NET_F_CSUM},
    {NET_RECEIVE_CSUM, NET_F_GUEST_CSUM, NET_F_GUEST_CSUM},
    {NET_RECEIVE_TSO4, NET_F_GUEST_TSO4, NET_F_GUEST_CSUM},
    {NET_RECEIVE_TSO6, NET_F_GUEST_TSO6, NET_F_GUEST_CSUM},
    {NET_RECEIVE_ECN, NET_F_GUEST_ECN, NET_F_GUEST_TSO4},
};

#define NET_S_LINK_UP 1

/* Section 5.1.4 */
struct net_config {
    uint8_t mac[NET_MAC_SIZE];
    uint16_t status;
};

struct virtio_net {
    struct virtio_device virtio;
    struct net_backend *backend;
    struct net_config config;
    uint8_t default_mac[NET_MAC_SIZE];
    struct net_filter filter;
    unsigned offloads; /* negotiated */
};

static struct virtio_net *net_of(struct virtio_device *device)
{
    return container_of(device, struct virtio_net, virtio);
}

static void update_offloads(struct virtio_net *net)
{
    net->offloads = 0;
    for (size_t n = 0; n < ARRAY_SIZE(offload_features); n++)
        if (virtio_has_feature(&net->virtio, offload_features[n].feature) &&
            virtio_has_feature(&net->virtio, offload_features[n].needs))
            net->offloads |= offload_features[n].offload;
    net_backend_set_offloads(net->backend, net->offloads);
}

/* From the guest. */

static unsigned gso_offload(uint8_t type, unsigned tso4, unsigned tso6, unsigned ecn)
{
    unsigned extra = type & NET_HDR_GSO_ECN ? ecn : 0;
    switch (type & ~NET_HDR_GSO_ECN) {
    case NET_HDR_GSO_TCPV4:
        return tso4 | extra;
    case NET_HDR_GSO_TCPV6:
        return tso6 | extra;
    default:
        return UINT32_MAX; /* nobody has it */
    }
}

/* Reduces the header to what was negotiated and lies within the frame; false if it is wrong. */
static bool check_header(const struct virtio_net *net, struct net_header *header, size_t size)
{
    bool partial = header->flags & NET_HDR_F_NEEDS_CSUM && net->offloads & NET_SEND_CSUM;
    uint32_t end = (uint32_t)le16toh(header->csum_start) + le16toh(header->csum_offset) + 2;
    struct net_header clean = {0};
    if (partial) {
        clean.flags = NET_HDR_F_NEEDS_CSUM;
        clean.csum_start = header->csum_start;
        clean.csum_offset = header->csum_offset;
    }
    if (header->gso_type != NET_HDR_GSO_NONE) {
        unsigned needed = gso_offload(header->gso_type, NET_SEND_TSO4, NET_SEND_TSO6, NET_SEND_ECN);
        if (!partial || !header->gso_size || (needed & ~net->offloads))
            return false;
        clean.gso_type = header->gso_type;
        clean.gso_size = header->gso_size;
        clean.hdr_len = header->hdr_len;
    }
    *header = clean;
    return !partial || end <= size;
}

/* False if the back end is busy and the chain has to wait. */
static bool transmit(struct virtio_net *net, struct virtio_chain *chain)
{
    struct iovec iov[VIRTIO_CHAIN_MAX];
    struct net_header header;
    virtio_chain_read(chain, 0, &header, sizeof(header));
    size_t size = chain->readable_size - sizeof(header);
    if (size < NET_FRAME_MIN || size > NET_FRAME_MAX || !check_header(net, &header, size)) {
        trace_guest_error(net->virtio.base.name,
                          "frame of %zu bytes dropped (flags %#x, gso type %#x, size %u, checksum "
                          "at %u + %u)",
                          size, header.flags, header.gso_type, le16toh(header.gso_size),
                          le16toh(header.csum_start), le16toh(header.csum_offset));
        return true;
    }
    unsigned count = iovec_slice(iov, VIRTIO_CHAIN_MAX, chain->readable, chain->readable_count,
                                 sizeof(header), size);
    return net_backend_send(net->backend, &header, iov, count, size);
}

static void handle_tx(struct virtio_net *net, struct virtio_queue *queue)
{
    struct virtio_chain *chain;
    while ((chain = virtio_queue_pop(queue))) {
        if (chain->readable_size < sizeof(struct net_header)) {
            virtio_device_break(&net->virtio, "frame of %zu bytes, less than its header",
                                chain->readable_size);
            virtio_queue_push(chain, 0);
            break;
        }
        if (!transmit(net, chain)) {
            virtio_queue_unpop(chain);
            break;
        }
        virtio_queue_push(chain, 0);
    }
    virtio_queue_flush(&net->virtio.queues[NET_RX]); /* the user network answers at once */
}

/* To the guest. */

struct receive_buffers {
    struct virtio_chain *chains[NET_QUEUE_SIZE];
    unsigned count;
    size_t size; /* bytes in all */
};

static void buffers_return(struct receive_buffers *buffers)
{
    while (buffers->count)
        virtio_queue_unpop(buffers->chains[--buffers->count]);
}

/* Takes buffers for `size` bytes: one, or with MRG_RXBUF as many as it takes. False if there are
 * too few. */
static bool buffers_take(struct virtio_net *net, struct virtio_queue *queue, size_t size,
                         struct receive_buffers *buffers)
{
    unsigned limit = virtio_has_feature(&net->virtio, NET_F_MRG_RXBUF) ? queue->size : 1;
    buffers->count = 0;
    buffers->size = 0;
    while (buffers->size < size && buffers->count < limit) {
        struct virtio_chain *chain = virtio_queue_pop(queue);
        if (!chain)
            return false;
        buffers->chains[buffers->count++] = chain;
        buffers->size += chain->writable_size;
        if (chain->writable_size < sizeof(struct net_header)) {
            virtio_device_break(&net->virtio, "receive buffer of %zu bytes", chain->writable_size);
            return false;
        }
    }
    return true;
}

static void buffers_fill(struct receive_buffers *buffers, const struct net_header *header,
                         const uint8_t *frame, size_t size)
{
    size_t skip = sizeof(*header);
    virtio_chain_write(buffers->chains[0], 0, header, sizeof(*header));
    for (unsigned n = 0; n < buffers->count; n++) {
        size_t done = virtio_chain_write(buffers->chains[n], skip, frame, size);
        virtio_queue_push(buffers->chains[n], skip + done);
        frame += done;
        size -= done;
        skip = 0;
    }
}

/* The back end may still hold frames with offloads that an earlier driver had accepted. */
static bool header_acceptable(const struct virtio_net *net, const struct net_header *header)
{
    if (header->flags & NET_HDR_F_NEEDS_CSUM && !(net->offloads & NET_RECEIVE_CSUM))
        return false;
    return header->gso_type == NET_HDR_GSO_NONE ||
           !(gso_offload(header->gso_type, NET_RECEIVE_TSO4, NET_RECEIVE_TSO6, NET_RECEIVE_ECN) &
             ~net->offloads);
}

static bool on_receive(void *opaque, const struct net_header *header, const void *frame,
                       size_t size)
{
    struct virtio_net *net = opaque;
    struct virtio_queue *queue = &net->virtio.queues[NET_RX];
    struct net_header own = *header;
    struct receive_buffers buffers;

    if (!virtio_queue_ready(queue) || !net_filter_accepts(&net->filter, net->config.mac, frame) ||
        !header_acceptable(net, header))
        return true; /* nobody listens: lost, as on a wire */
    if (!buffers_take(net, queue, sizeof(own) + size, &buffers)) {
        buffers_return(&buffers);
        return net->virtio.broken;
    }
    if (buffers.size < sizeof(own) + size) {
        trace_guest_error(net->virtio.base.name,
                          "%u receive buffers of %zu bytes for a frame of %zu", buffers.count,
                          buffers.size, size);
        buffers_return(&buffers);
        return true;
    }
    if (!(net->offloads & NET_RECEIVE_CSUM))
        own.flags = 0;
    own.num_buffers = htole16((uint16_t)buffers.count);
    buffers_fill(&buffers, &own, frame, size);
    return true;
}

static void on_ready(void *opaque)
{
    struct virtio_net *net = opaque;
    virtio_lock(&net->virtio);
    net_backend_process(net->backend);
    if (net->virtio.transport)
        virtio_queue_flush(&net->virtio.queues[NET_RX]);
    virtio_unlock(&net->virtio);
}

static void on_writable(void *opaque)
{
    struct virtio_net *net = opaque;
    virtio_queue_schedule(&net->virtio.queues[NET_TX]);
}

/* The control queue (section 5.1.6.5). */

/* MAC filtering: its first command needs a feature of its own. */
static bool set_mac(struct virtio_net *net, const uint8_t *data, size_t size)
{
    if (size != NET_MAC_SIZE || !virtio_has_feature(&net->virtio, NET_F_CTRL_MAC_ADDR))
        return false;
    memcpy(net->config.mac, data, NET_MAC_SIZE);
    return true;
}

static bool set_mode(struct virtio_net *net, uint8_t command, const uint8_t *data, size_t size)
{
    bool extra = command > NET_FILTER_ALLMULTI;
    return size == 1 &&
           virtio_has_feature(&net->virtio, extra ? NET_F_CTRL_RX_EXTRA : NET_F_CTRL_RX) &&
           net_filter_set_mode(&net->filter, command, data[0]);
}

#define NET_CTRL_RX            0
#define NET_CTRL_MAC           1
#define NET_CTRL_MAC_TABLE_SET 0
#define NET_CTRL_MAC_ADDR_SET  1

static bool control(struct virtio_net *net, uint8_t class, uint8_t command, const uint8_t *data,
                    size_t size)
{
    if (class == NET_CTRL_RX)
        return set_mode(net, command, data, size);
    if (class == NET_CTRL_MAC && command == NET_CTRL_MAC_ADDR_SET)
        return set_mac(net, data, size);
    if (class == NET_CTRL_MAC && command == NET_CTRL_MAC_TABLE_SET &&
        virtio_has_feature(&net->virtio, NET_F_CTRL_RX))
        return net_filter_set_tables(&net->filter, data, size);
    return false;
}

static void handle_control(struct virtio_net *net, struct virtio_queue *queue)
{
    uint8_t bytes[2 + NET_FILTER_TABLES_MAX];
    struct virtio_chain *chain;
    while ((chain = virtio_queue_pop(queue))) {
        if (chain->readable_size < 2 || !chain->writable_size) {
            virtio_device_break(&net->virtio, "control command of %zu and %zu bytes",
                                chain->readable_size, chain->writable_size);
            virtio_queue_push(chain, 0);
            break;
        }
        size_t size = virtio_chain_read(chain, 0, bytes, sizeof(bytes));
        bool whole = size == chain->readable_size;
        uint8_t error = !(whole && control(net, bytes[0], bytes[1], bytes + 2, size - 2));
        if (error)
            trace_guest_error(net->virtio.base.name, "control command %u.%u of %zu bytes refused",
                              bytes[0], bytes[1], chain->readable_size);
        virtio_queue_push(chain, virtio_chain_write(chain, 0, &error, 1));
    }
}

static void handle_rx(struct virtio_net *net, struct virtio_queue *queue)
{
    net_backend_resume(net->backend);
}

static void net_handle_queue(struct virtio_device *device, struct virtio_queue *queue)
{
    static void (*const handlers[NET_QUEUES])(struct virtio_net *, struct virtio_queue *) = {
        [NET_RX] = handle_rx,
        [NET_TX] = handle_tx,
        [NET_CTRL] = handle_control,
    };
    handlers[queue->index](net_of(device), queue);
}

static void net_status_changed(struct virtio_device *device)
{
    update_offloads(net_of(device));
}

static void net_reset(struct virtio_device *device)
{
    struct virtio_net *net = net_of(device);
    net_filter_init(&net->filter);
    memcpy(net->config.mac, net->default_mac, NET_MAC_SIZE);
    net->offloads = 0;
    net_backend_set_offloads(net->backend, 0);
}

static void net_state(struct virtio_device *device, struct stream *stream)
{
    struct virtio_net *net = net_of(device);
    stream_bytes(stream, net->config.mac, NET_MAC_SIZE);
    net_filter_state(&net->filter, stream);
    if (stream_loading(stream))
        update_offloads(net);
}

static void net_remove(struct virtio_device *device)
{
    struct virtio_net *net = net_of(device);
    net_backend_destroy(net->backend);
    virtio_device_finish(device);
    free(net);
}

static const struct virtio_device_type net_type = {
    .name = "virtio-net",
    .id = 1,
    .pci_class = 0x020000,
    .handle_queue = net_handle_queue,
    .status_changed = net_status_changed,
    .reset = net_reset,
    .state = net_state,
    .remove = net_remove,
};

static void choose_mac(struct virtio_net *net, unsigned index)
{
    static const uint8_t none[NET_MAC_SIZE];
    uint32_t low = 0x123456 + index;
    const uint8_t own[NET_MAC_SIZE] = {
        0x52, 0x54, 0x00, (uint8_t)(low >> 16), (uint8_t)(low >> 8), (uint8_t)low,
    };
    bool given = memcmp(net->backend->mac, none, NET_MAC_SIZE);
    memcpy(net->default_mac, given ? net->backend->mac : own, NET_MAC_SIZE);
    memcpy(net->config.mac, net->default_mac, NET_MAC_SIZE);
}

struct virtio_device *virtio_net_create_with(const char *name, struct net_backend *backend,
                                             unsigned index, struct loop *loop)
{
    struct virtio_net *net = xcalloc(1, sizeof(*net));
    struct net_receiver receiver = {on_ready, on_receive, on_writable, net};
    uint64_t features = BIT(NET_F_MAC) | BIT(NET_F_MRG_RXBUF) | BIT(NET_F_STATUS) |
                        BIT(NET_F_CTRL_VQ) | BIT(NET_F_CTRL_RX) | BIT(NET_F_CTRL_RX_EXTRA) |
                        BIT(NET_F_CTRL_MAC_ADDR);
    for (size_t n = 0; n < ARRAY_SIZE(offload_features); n++)
        if (backend->offloads & offload_features[n].offload)
            features |= BIT(offload_features[n].feature);

    net->backend = backend;
    net->config.status = htole16(NET_S_LINK_UP);
    choose_mac(net, index);
    net_filter_init(&net->filter);
    virtio_device_init(&net->virtio, &net_type, name, features, loop);
    virtio_device_add_queue(&net->virtio, NET_QUEUE_SIZE);
    virtio_device_add_queue(&net->virtio, NET_QUEUE_SIZE);
    virtio_device_add_queue(&net->virtio, NET_CTRL_QUEUE_SIZE);
    net->virtio.config = &net->config;
    net->virtio.config_size = sizeof(net->config);
    net_backend_set_receiver(backend, &receiver);
    return &net->virtio;
}

struct virtio_device *virtio_net_create(const char *name, const char *specification, unsigned index,
                                        struct loop *loop, struct error *err)
{
    struct net_backend *backend = net_backend_create(specification, loop, err);
    return backend ? virtio_net_create_with(name, backend, index, loop) : NULL;
}
