/* Network back ends against real sockets of this host, with a guest's frames made by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base.h"
#include "virtio/net_backend.h"

#define ETH_ARP  0x0806
#define ETH_IPV4 0x0800
#define TCP_FIN  0x01
#define TCP_SYN  0x02
#define TCP_PUSH 0x08
#define TCP_ACK  0x10
#define MSS      1460

static const uint8_t guest_mac[6] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};

/* The guest: a back end's receiver that keeps what arrives. */
struct guest {
    struct loop *loop;
    struct net_backend *backend;
    bool no_room;
    unsigned ready_calls, refused;
    struct {
        struct net_header header;
        size_t size;
        uint8_t bytes[NET_FRAME_MAX];
    } *frames;
    unsigned count, taken;
    uint8_t gateway_mac[6];
};

#define FRAMES_MAX 64

static bool on_receive(void *opaque, const struct net_header *header, const void *frame,
                       size_t size)
{
    struct guest *guest = opaque;
    assert_true(size >= NET_FRAME_MIN && size <= NET_FRAME_MAX);
    if (guest->no_room || guest->count - guest->taken == FRAMES_MAX) {
        guest->refused++;
        return false;
    }
    unsigned slot = guest->count++ % FRAMES_MAX;
    guest->frames[slot].header = *header;
    guest->frames[slot].size = size;
    memcpy(guest->frames[slot].bytes, frame, size);
    return true;
}

static void on_ready(void *opaque)
{
    struct guest *guest = opaque;
    guest->ready_calls++;
    net_backend_process(guest->backend);
}

static bool guest_open(struct guest *guest, const char *specification, struct error *err)
{
    *guest = (struct guest){.loop = loop_create()};
    guest->frames = calloc(FRAMES_MAX, sizeof(*guest->frames));
    guest->backend = net_backend_create(specification, guest->loop, err);
    if (guest->backend)
        net_backend_set_receiver(guest->backend,
                                 &(struct net_receiver){on_ready, on_receive, NULL, guest});
    return guest->backend;
}

static void guest_close(struct guest *guest)
{
    net_backend_destroy(guest->backend);
    loop_destroy(guest->loop);
    free(guest->frames);
}

static void guest_send(struct guest *guest, const struct net_header *header, const uint8_t *frame,
                       size_t size)
{
    static const struct net_header plain;
    /* in two pieces, as from descriptors */
    struct iovec iov[2] = {{(void *)(uintptr_t)frame, 14},
                           {(void *)(uintptr_t)(frame + 14), size - 14}};
    assert_true(net_backend_send(guest->backend, header ? header : &plain, iov, 2, size));
}

/* The next frame; NULL if none comes within about a second. Valid for the next few frames. */
static uint8_t *guest_take(struct guest *guest, size_t *size)
{
    for (int turns = 0; guest->taken == guest->count; turns++) {
        if (turns == 100)
            return NULL;
        net_backend_resume(guest->backend);
        loop_turn(guest->loop, guest->taken == guest->count ? 10 : 0);
    }
    unsigned slot = guest->taken++ % FRAMES_MAX;
    *size = guest->frames[slot].size;
    return guest->frames[slot].bytes;
}

static const struct net_header *guest_header(const struct guest *guest)
{
    return &guest->frames[(guest->taken - 1) % FRAMES_MAX].header;
}

static void put16(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static void put32(uint8_t *p, uint32_t value)
{
    put16(p, (uint16_t)(value >> 16));
    put16(p + 2, (uint16_t)value);
}

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static uint32_t sum16(uint32_t sum, const uint8_t *bytes, size_t size)
{
    for (size_t n = 0; n < size; n++)
        sum += n % 2 ? bytes[n] : (uint32_t)bytes[n] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

static uint32_t pseudo_sum(const uint8_t *ip, size_t payload)
{
    uint8_t tail[4] = {0, ip[9], (uint8_t)(payload >> 8), (uint8_t)payload};
    return sum16(sum16(0, ip + 12, 8), tail, 4);
}

/* Ethernet and IPv4 header for `payload` bytes of a protocol. */
static uint8_t *put_ip(const struct guest *guest, uint8_t *frame, uint8_t protocol,
                       const char *from, const char *to, size_t payload)
{
    uint8_t *ip = frame + 14;
    memset(frame, 0, 34);
    memcpy(frame, guest->gateway_mac, 6);
    memcpy(frame + 6, guest_mac, 6);
    put16(frame + 12, ETH_IPV4);
    ip[0] = 0x45;
    put16(ip + 2, (uint16_t)(20 + payload));
    ip[8] = 64;
    ip[9] = protocol;
    inet_pton(AF_INET, from, ip + 12);
    inet_pton(AF_INET, to, ip + 16);
    put16(ip + 10, (uint16_t)~sum16(0, ip, 20));
    return ip + 20;
}

/* Completes the checksum at `field` here, or leaves it partial for the back end. */
static void send_ip(struct guest *guest, uint8_t *frame, size_t payload, unsigned field,
                    bool partial, uint16_t gso_size)
{
    uint8_t *ip = frame + 14, *data = frame + 34;
    uint32_t sum = pseudo_sum(ip, payload);
    struct net_header header = {0};
    put16(data + field, (uint16_t)sum);
    if (partial) {
        header = (struct net_header){
            .flags = NET_HDR_F_NEEDS_CSUM, .csum_start = 34, .csum_offset = (uint16_t)field};
        header.gso_type = gso_size ? NET_HDR_GSO_TCPV4 : NET_HDR_GSO_NONE;
        header.gso_size = gso_size;
        header.hdr_len = gso_size ? 54 : 0;
    } else {
        put16(data + field, (uint16_t)~sum16(0, data, payload));
    }
    guest_send(guest, &header, frame, 34 + payload);
}

static void send_udp(struct guest *guest, const char *from, const char *to, uint16_t from_port,
                     uint16_t to_port, const void *data, size_t size, bool partial)
{
    static uint8_t frame[NET_FRAME_MAX];
    uint8_t *udp = put_ip(guest, frame, 17, from, to, 8 + size);
    put16(udp, from_port);
    put16(udp + 2, to_port);
    put16(udp + 4, (uint16_t)(8 + size));
    memcpy(udp + 8, data, size);
    send_ip(guest, frame, 8 + size, 6, partial, 0);
}

static void send_arp(struct guest *guest, uint16_t operation, const char *from, const char *to)
{
    uint8_t frame[60] = {0};
    memset(frame, 0xff, 6);
    if (operation == 2)
        memcpy(frame, guest->gateway_mac, 6);
    memcpy(frame + 6, guest_mac, 6);
    put16(frame + 12, ETH_ARP);
    memcpy(frame + 14, "\x00\x01\x08\x00\x06\x04", 6);
    put16(frame + 20, operation);
    memcpy(frame + 22, guest_mac, 6);
    inet_pton(AF_INET, from, frame + 28);
    if (operation == 2)
        memcpy(frame + 32, guest->gateway_mac, 6);
    inet_pton(AF_INET, to, frame + 38);
    guest_send(guest, NULL, frame, sizeof(frame));
}

/* The next IPv4 frame of the protocol, with a good checksum; answers ARP requests on the way. */
static uint8_t *take_ip(struct guest *guest, const char *own, uint8_t protocol, size_t *payload)
{
    size_t size;
    uint8_t *frame;
    while ((frame = guest_take(guest, &size))) {
        if (get16(frame + 12) == ETH_ARP && get16(frame + 20) == 1) {
            char asker[INET_ADDRSTRLEN];
            uint8_t wanted[4];
            inet_pton(AF_INET, own, wanted);
            inet_ntop(AF_INET, frame + 28, asker, sizeof(asker));
            memcpy(guest->gateway_mac, frame + 6, 6);
            if (!memcmp(frame + 38, wanted, 4))
                send_arp(guest, 2, own, asker);
        }
        if (get16(frame + 12) != ETH_IPV4 || frame[14 + 9] != protocol)
            continue;
        *payload = get16(frame + 16) - 20u;
        assert_true(34 + *payload <= size);
        assert_int_equal(sum16(0, frame + 14, 20), 0xffff);
        if (!(guest_header(guest)->flags & NET_HDR_F_NEEDS_CSUM))
            assert_int_equal(sum16(pseudo_sum(frame + 14, *payload), frame + 34, *payload), 0xffff);
        return frame + 34;
    }
    return NULL;
}

/* Sockets of the host. */

static int host_socket(int type, uint16_t *port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(*port)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    if (type == SOCK_STREAM)
        assert_int_equal(listen(fd, 4), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

/* A port that is free at this moment. */
static uint16_t free_port(int type)
{
    uint16_t port = 0;
    close(host_socket(type, &port));
    return port;
}

/* The user network. */

static void user_open(struct guest *guest, const char *specification)
{
    struct error err = {0};
    size_t size;
    if (!guest_open(guest, specification, &err))
        fail_msg("%s", err.message);
    send_arp(guest, 1, "10.0.2.15", "10.0.2.2");
    uint8_t *reply = guest_take(guest, &size);
    assert_non_null(reply);
    assert_int_equal(get16(reply + 12), ETH_ARP);
    assert_int_equal(get16(reply + 20), 2);
    memcpy(guest->gateway_mac, reply + 22, 6);
}

static void test_dhcp(void **state)
{
    struct guest guest;
    size_t size;
    user_open(&guest, "user");
    uint8_t discover[300] = {1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78};
    memcpy(discover + 28, guest_mac, 6);
    memcpy(discover + 236, "\x63\x82\x53\x63\x35\x01\x01\xff", 8);
    memset(guest.gateway_mac, 0xff, 6);
    send_udp(&guest, "0.0.0.0", "255.255.255.255", 68, 67, discover, sizeof(discover), false);
    uint8_t *udp = take_ip(&guest, "10.0.2.15", 17, &size);
    assert_non_null(udp);
    assert_int_equal(get16(udp + 2), 68);
    assert_int_equal(get32(udp + 8 + 4), 0x12345678);
    assert_int_equal(get32(udp + 8 + 16), 0x0a00020f); /* 10.0.2.15 */
    guest_close(&guest);
}

static void test_udp(void **state)
{
    struct guest guest;
    uint16_t port = 0;
    uint8_t bytes[2048], payload[1000];
    struct sockaddr_in peer;
    socklen_t peer_size = sizeof(peer);
    size_t size;
    int server = host_socket(SOCK_DGRAM, &port);
    user_open(&guest, "user");
    for (int partial = 0; partial < 2; partial++) {
        memset(payload, 'a' + partial, sizeof(payload));
        send_udp(&guest, "10.0.2.15", "10.0.2.2", 5000, port, payload, 999 + partial, partial);
        loop_turn(guest.loop, 0);
        struct pollfd wait = {.fd = server, .events = POLLIN};
        assert_int_equal(poll(&wait, 1, 2000), 1);
        ssize_t got =
            recvfrom(server, bytes, sizeof(bytes), 0, (struct sockaddr *)&peer, &peer_size);
        assert_int_equal(got, 999 + partial);
        assert_memory_equal(bytes, payload, 999);
        assert_int_equal(sendto(server, "answer", 6, 0, (struct sockaddr *)&peer, peer_size), 6);
        uint8_t *udp = take_ip(&guest, "10.0.2.15", 17, &size);
        assert_non_null(udp);
        assert_int_equal(get16(udp), port);
        assert_int_equal(get16(udp + 2), 5000);
        assert_memory_equal(udp + 8, "answer", 6);
        assert_int_equal(guest_header(&guest)->flags, NET_HDR_F_DATA_VALID);
    }
    guest_close(&guest);
    close(server);
}

/* One TCP connection of the guest: in order, nothing lost, since nothing loses it. */
struct connection {
    struct guest *guest;
    uint16_t port, peer_port;
    uint32_t sequence, received; /* the next byte of each direction */
    uint32_t acknowledged;       /* by the peer */
    uint8_t flags;               /* seen since */
    uint8_t *data;               /* of the segment that came last */
    size_t size;
};

static void tcp_send(struct connection *tcp, uint8_t flags, const void *data, size_t size,
                     bool partial)
{
    static uint8_t frame[NET_FRAME_MAX];
    uint8_t *header = put_ip(tcp->guest, frame, 6, "10.0.2.15", "10.0.2.2", 20 + size);
    memset(header, 0, 20);
    put16(header, tcp->port);
    put16(header + 2, tcp->peer_port);
    put32(header + 4, tcp->sequence);
    put32(header + 8, tcp->received);
    header[12] = 5 << 4;
    header[13] = flags;
    put16(header + 14, 65535);
    if (size)
        memcpy(header + 20, data, size);
    send_ip(tcp->guest, frame, 20 + size, 16, partial, size > MSS ? MSS : 0);
    tcp->sequence += (uint32_t)size + !!(flags & (TCP_SYN | TCP_FIN));
}

/* Takes a segment to tcp->port; false if none comes. In-order data is acknowledged. */
static bool tcp_take(struct connection *tcp)
{
    size_t size;
    uint8_t *header = take_ip(tcp->guest, "10.0.2.15", 6, &size);
    tcp->size = 0;
    if (!header)
        return false;
    size_t length = header[12] >> 4 << 2;
    assert_int_equal(get16(header + 2), tcp->port);
    tcp->peer_port = get16(header);
    tcp->flags |= header[13];
    if (header[13] & TCP_ACK)
        tcp->acknowledged = get32(header + 8);
    if (header[13] & TCP_SYN)
        tcp->received = get32(header + 4) + 1;
    else if (get32(header + 4) == tcp->received) {
        tcp->data = header + length;
        tcp->size = size - length;
        tcp->received += (uint32_t)tcp->size + !!(header[13] & TCP_FIN);
        if (tcp->size)
            tcp_send(tcp, TCP_ACK, NULL, 0, false);
    }
    return true;
}

static void tcp_connect(struct connection *tcp, struct guest *guest, uint16_t port)
{
    *tcp = (struct connection){.guest = guest, .port = 40000, .peer_port = port, .sequence = 1000};
    tcp_send(tcp, TCP_SYN, NULL, 0, false);
    while (!(tcp->flags & TCP_SYN))
        assert_true(tcp_take(tcp));
    tcp_send(tcp, TCP_ACK, NULL, 0, false);
}

static uint8_t stream_byte(size_t n)
{
    return (uint8_t)(n ^ n >> 8 ^ n >> 16);
}

static size_t host_read(int fd, size_t offset)
{
    uint8_t bytes[65536];
    ssize_t got = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    for (ssize_t n = 0; n < got; n++)
        if (bytes[n] != stream_byte(offset + (size_t)n))
            fail_msg("byte %zu is wrong", offset + (size_t)n);
    return got > 0 ? (size_t)got : 0;
}

/* Segments of any size up to 64 KiB, as a driver with TSO sends them. */
static void test_tcp_upload(void **state)
{
    static const size_t sizes[] = {1460, 1, 30000, 8000, 20000, 2921, 14600, 5};
    static uint8_t data[65536];
    struct guest guest;
    struct connection tcp;
    uint16_t port = 0;
    int listener = host_socket(SOCK_STREAM, &port);
    user_open(&guest, "user");
    tcp_connect(&tcp, &guest, port);
    int server = accept(listener, NULL, NULL);
    assert_true(server >= 0);
    size_t sent = 0, got = 0;
    for (int round = 0; round < 40; round++) {
        size_t size = sizes[round % ARRAY_SIZE(sizes)];
        for (size_t n = 0; n < size; n++)
            data[n] = stream_byte(sent + n);
        tcp_send(&tcp, TCP_ACK | TCP_PUSH, data, size, true);
        sent += size;
        for (int wait = 0; tcp.acknowledged != tcp.sequence && wait < 200; wait++) {
            got += host_read(server, got);
            assert_true(tcp_take(&tcp));
        }
        assert_int_equal(tcp.acknowledged, tcp.sequence);
    }
    for (int wait = 0; got < sent && wait < 100; wait++) {
        got += host_read(server, got);
        loop_turn(guest.loop, 10);
    }
    assert_int_equal(got, sent);
    close(server);
    while (!(tcp.flags & TCP_FIN))
        assert_true(tcp_take(&tcp));
    guest_close(&guest);
    close(listener);
}

static size_t check_download(const struct connection *tcp, size_t got)
{
    for (size_t n = 0; n < tcp->size; n++)
        if (tcp->data[n] != stream_byte(got + n))
            fail_msg("byte %zu is wrong", got + n);
    return got + tcp->size;
}

/* The guest has no room for a while: the host waits, nothing is lost, nothing spins. */
static void test_tcp_download(void **state)
{
    enum { TOTAL = 3000000 };
    static uint8_t data[TOTAL];
    struct guest guest;
    struct connection tcp;
    uint16_t port = 0;
    size_t sent = 0, got = 0;
    int listener = host_socket(SOCK_STREAM, &port);
    user_open(&guest, "user");
    tcp_connect(&tcp, &guest, port);
    int server = accept(listener, NULL, NULL);
    for (size_t n = 0; n < TOTAL; n++)
        data[n] = stream_byte(n);
    for (int round = 0; got < TOTAL; round++) {
        ssize_t now = send(server, data + sent, TOTAL - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += now > 0 ? (size_t)now : 0;
        guest.no_room = round == 100;
        while (guest.no_room && guest.taken != guest.count) { /* and its answers bring more */
            assert_true(tcp_take(&tcp));
            got = check_download(&tcp, got);
        }
        if (guest.no_room) {
            for (int turns = 0; turns < 5; turns++)
                loop_turn(guest.loop, 10);
            unsigned calls = guest.ready_calls;
            for (int turns = 0; turns < 5; turns++)
                loop_turn(guest.loop, 20);
            assert_true(guest.ready_calls - calls <= 1);
            assert_true(guest.refused > 0);
            guest.no_room = false;
        }
        assert_true(tcp_take(&tcp));
        got = check_download(&tcp, got);
    }
    assert_int_equal(sent, TOTAL);
    assert_true(guest.refused > 0);
    guest_close(&guest);
    close(server);
    close(listener);
}

static void test_hostfwd(void **state)
{
    struct guest guest;
    char specification[128];
    uint16_t tcp_port = free_port(SOCK_STREAM), udp_port = free_port(SOCK_DGRAM);
    snprintf(specification, sizeof(specification),
             "user,hostfwd=tcp::%u-:22,hostfwd=udp:127.0.0.1:%u-10.0.2.15:53", tcp_port, udp_port);
    user_open(&guest, specification);

    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons(tcp_port)};
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    connect(client, (struct sockaddr *)&address, sizeof(address));
    struct connection tcp = {.guest = &guest, .port = 22, .sequence = 7000};
    assert_true(tcp_take(&tcp));
    assert_true(tcp.flags & TCP_SYN);
    tcp_send(&tcp, TCP_SYN | TCP_ACK, NULL, 0, false);
    while (tcp.acknowledged != tcp.sequence)
        assert_true(tcp_take(&tcp));
    assert_int_equal(send(client, "knock", 5, MSG_NOSIGNAL), 5);
    while (!tcp.size)
        assert_true(tcp_take(&tcp));
    assert_int_equal(tcp.size, 5);
    assert_memory_equal(tcp.data, "knock", 5);
    close(client);

    int sender = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    address.sin_port = htons(udp_port);
    assert_int_equal(sendto(sender, "query", 5, 0, (struct sockaddr *)&address, sizeof(address)),
                     5);
    size_t size;
    uint8_t *udp = take_ip(&guest, "10.0.2.15", 17, &size);
    assert_non_null(udp);
    assert_int_equal(get16(udp + 2), 53);
    assert_memory_equal(udp + 8, "query", 5);
    close(sender);
    guest_close(&guest);

    user_open(&guest, specification); /* closed is free again */
    guest_close(&guest);
}

static void assert_refused(const char *specification, const char *first, const char *second)
{
    struct loop *loop = loop_create();
    struct error err = {0};
    struct net_backend *backend = net_backend_create(specification, loop, &err);
    if (backend)
        fail_msg("'%s' was accepted", specification);
    if (!strstr(err.message, specification) || !strstr(err.message, first) ||
        !strstr(err.message, second))
        fail_msg("'%s' lacks '%s' or '%s'", err.message, first, second);
    loop_destroy(loop);
}

static void test_refused(void **state)
{
    static const struct {
        const char *specification, *first, *second;
    } cases[] = {
        {"", "''", "'user', 'tap' or 'none'"},
        {"usr", "'usr'", "'user', 'tap' or 'none'"},
        {"none,x=1", "'x'", ""},
        {"user,hostfw=tcp::1-:2", "'hostfw'", "hostfwd"},
        {"user,hostfwd", "hostfwd", "tcp::2222-:22"},
        {"user,hostfwd=", "hostfwd=", "tcp|udp"},
        {"user,hostfwd=tcp::2222", "tcp::2222", "tcp|udp"},
        {"user,hostfwd=tcp:2222-:22", "tcp|udp", ""},
        {"user,hostfwd=sctp::2222-:22", "'sctp'", "'tcp'"},
        {"user,hostfwd=tcp:localhost:2222-:22", "'localhost'", "IPv4"},
        {"user,hostfwd=tcp::2222-guest:22", "'guest'", "IPv4"},
        {"user,hostfwd=tcp::0-:22", "'0'", "1 to 65535"},
        {"user,hostfwd=tcp::65536-:22", "'65536'", "1 to 65535"},
        {"user,hostfwd=tcp::-22-:22", "hostfwd", ""},
        {"user,hostfwd=tcp::22x-:22", "'22x'", "1 to 65535"},
        {"user,hostfwd=tcp::2222-:", "''", "1 to 65535"},
        {"user,hostfwd=tcp:192.0.2.77:2222-:22", "192.0.2.77 port 2222", "no network interface"},
        {"user,restrict=yes", "restrict=yes", "'on' or 'off'"},
        {"user,mac=52:54:00:12:34", "mac=", "52:54:00:12:34:56"},
        {"user,mac=53:54:00:12:34:56", "multicast", "even"},
        {"user,mac=52:54:00:12:34:5g", "mac=", ""},
        {"tap,ifname=", "ifname=", "1 to 15"},
        {"tap,ifname=a-name-that-is-too-long", "ifname=", "1 to 15"},
        {"tap,ifname=../etc", "ifname=", ""},
        {"tap,script=x", "'script'", "ifname"},
    };
    for (size_t n = 0; n < ARRAY_SIZE(cases); n++)
        assert_refused(cases[n].specification, cases[n].first, cases[n].second);

    char specification[64], port_text[32];
    uint16_t port = 0;
    int taken = host_socket(SOCK_STREAM, &port);
    snprintf(specification, sizeof(specification), "user,hostfwd=tcp:127.0.0.1:%u-:22", port);
    snprintf(port_text, sizeof(port_text), "port %u", port);
    assert_refused(specification, port_text, "already in use (choose another port");
    close(taken);
}

static void test_mac_and_none(void **state)
{
    struct loop *loop = loop_create();
    struct net_backend *backend = net_backend_create("none,mac=02:AB:cd:00:00:01", loop, NULL);
    assert_non_null(backend);
    assert_memory_equal(backend->mac, "\x02\xab\xcd\x00\x00\x01", 6);
    assert_int_equal(backend->offloads, 0);
    net_backend_destroy(backend);
    backend = net_backend_create("user,restrict=on,ipv6=on", loop, NULL);
    assert_non_null(backend);
    for (int n = 0; n < 5; n++)
        loop_turn(loop, 10); /* its timers run without a receiver */
    net_backend_destroy(backend);
    loop_destroy(loop);
}

static void test_checksum(void **state)
{
    /* RFC 1071's example, at an odd place and with an odd end */
    uint8_t frame[] = {9, 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7, 0, 0, 0};
    struct net_header header = {.csum_start = 1, .csum_offset = 8};
    net_complete_checksum(&header, frame, sizeof(frame));
    assert_int_equal(get16(frame + 9), 0x220d);
    uint8_t odd[] = {0x12, 0x34, 0, 0, 0x56};
    header = (struct net_header){.csum_start = 0, .csum_offset = 2};
    net_complete_checksum(&header, odd, sizeof(odd));
    assert_int_equal(get16(odd + 2), (uint16_t)~(0x1234 + 0x5600));
    uint8_t full[] = {0xff, 0xff, 0, 0};
    net_complete_checksum(&header, full, sizeof(full));
    assert_int_equal(get16(full + 2), 0xffff);
}

/* A tap device in a network namespace of its own, which takes root. */

#define TAP_HOST  "192.0.2.1"
#define TAP_GUEST "192.0.2.2"

static bool set_address(const char *name, const char *address, unsigned long command)
{
    struct ifreq request = {0};
    struct sockaddr_in *value = (struct sockaddr_in *)&request.ifr_addr;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    value->sin_family = AF_INET;
    inet_pton(AF_INET, address, &value->sin_addr);
    bool done = !ioctl(fd, command, &request);
    close(fd);
    return done;
}

static void tap_exchange(struct guest *guest, int server, uint16_t port, unsigned offloads)
{
    struct sockaddr_in peer;
    socklen_t peer_size = sizeof(peer);
    uint8_t bytes[64];
    size_t size;
    net_backend_set_offloads(guest->backend, offloads);
    send_udp(guest, TAP_GUEST, TAP_HOST, 5000, port, "hello", 5, offloads);
    struct pollfd wait = {.fd = server, .events = POLLIN};
    assert_int_equal(poll(&wait, 1, 2000), 1);
    assert_int_equal(
        recvfrom(server, bytes, sizeof(bytes), 0, (struct sockaddr *)&peer, &peer_size), 5);
    assert_memory_equal(bytes, "hello", 5);
    assert_int_equal(sendto(server, "answer", 6, 0, (struct sockaddr *)&peer, peer_size), 6);
    uint8_t *udp = take_ip(guest, TAP_GUEST, 17, &size);
    assert_non_null(udp);
    assert_memory_equal(udp + 8, "answer", 6);
    assert_int_equal(!!(guest_header(guest)->flags & NET_HDR_F_NEEDS_CSUM), !!offloads);
}

static void run_tap(void)
{
    struct guest guest, second;
    struct error err = {0};
    size_t size;
    if (!guest_open(&guest, "tap,ifname=hvtest0", &err))
        fail_msg("%s", err.message);
    assert_true(guest.backend->offloads & NET_SEND_TSO4);
    assert_true(set_address("hvtest0", TAP_HOST, SIOCSIFADDR));
    assert_true(set_address("hvtest0", "255.255.255.0", SIOCSIFNETMASK));

    assert_false(guest_open(&second, "tap,ifname=hvtest0", &err));
    assert_non_null(strstr(err.message, "used by another program"));
    guest_close(&second);
    assert_false(guest_open(&second, "tap,ifname=lo", &err));
    assert_non_null(strstr(err.message, "not a single-queue tap"));
    guest_close(&second);

    /* ours is up and answers */
    uint8_t *reply;
    send_arp(&guest, 1, TAP_GUEST, TAP_HOST);
    do
        assert_non_null(reply = guest_take(&guest, &size));
    while (get16(reply + 12) != ETH_ARP || get16(reply + 20) != 2);
    memcpy(guest.gateway_mac, reply + 22, 6);

    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t address_size = sizeof(address);
    int server = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(getsockname(server, (struct sockaddr *)&address, &address_size), 0);
    tap_exchange(&guest, server, ntohs(address.sin_port), 0);
    tap_exchange(&guest, server, ntohs(address.sin_port), NET_RECEIVE_CSUM | NET_SEND_CSUM);

    /* no room: one frame waits here, the others in the kernel; nothing spins */
    inet_pton(AF_INET, TAP_GUEST, &address.sin_addr);
    address.sin_port = htons(5000);
    guest.no_room = true;
    for (char n = 0; n < 20; n++)
        assert_int_equal(sendto(server, &n, 1, 0, (struct sockaddr *)&address, sizeof(address)), 1);
    for (int turns = 0; turns < 10; turns++)
        loop_turn(guest.loop, 5);
    assert_true(guest.ready_calls < 200 && guest.refused > 0 && guest.refused < 5);
    guest.no_room = false;
    for (char n = 0; n < 20; n++) {
        uint8_t *udp = take_ip(&guest, TAP_GUEST, 17, &size);
        assert_non_null(udp);
        assert_int_equal(udp[8], n);
    }
    close(server);
    guest_close(&guest);
}

static void test_tap(void **state)
{
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    close(fd);
    if (geteuid() || fd < 0) {
        print_message("skipped: tap devices take root and /dev/net/tun\n");
        skip();
    }
    int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (unshare(CLONE_NEWNET) < 0) {
        print_message("skipped: no network namespace can be made here\n");
        skip();
    }
    run_tap();
    assert_int_equal(setns(own, CLONE_NEWNET), 0);
    close(own);
}

static void test_tap_without_right(void **state)
{
    pid_t child = fork();
    if (!child) {
        struct error err = {0};
        struct loop *loop = loop_create();
        if (!geteuid() && setuid(65534))
            _exit(2);
        struct net_backend *backend = net_backend_create("tap,ifname=hvtest1", loop, &err);
        _exit(!backend && strstr(err.message, "root") ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checksum),     cmocka_unit_test(test_refused),
        cmocka_unit_test(test_mac_and_none), cmocka_unit_test(test_dhcp),
        cmocka_unit_test(test_udp),          cmocka_unit_test(test_tcp_upload),
        cmocka_unit_test(test_tcp_download), cmocka_unit_test(test_hostfwd),
        cmocka_unit_test(test_tap),          cmocka_unit_test(test_tap_without_right),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
