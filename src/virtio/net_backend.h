/*
 * Network back ends: where the Ethernet frames of a guest go to and come from.
 *
 * Threads: as for disks (block.h), the owner serialises all calls by a lock of its own. `ready` is
 * called on the loop's thread without that lock when there is something to do; the owner takes the
 * lock and calls net_backend_process, which calls `receive` and `writable`. Every function but
 * net_backend_set_offloads belongs to the loop's thread.
 *
 * Back pressure: when `receive` has no room, the back end keeps that frame, stops reading from the
 * host and waits for net_backend_resume. When `send` has no room, it calls `writable` later.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/loop.h"

/* Bytes of a frame, from the destination address on, without FCS: what a 16-bit IP length needs. */
#define NET_FRAME_MIN 14
#define NET_FRAME_MAX (14 + 4 + 65535)

#define NET_MAC_SIZE 6

/* What goes before each frame: section 5.1.6, little-endian; also what a tap device takes. */
struct net_header {
    uint8_t flags;
    uint8_t gso_type;
    uint16_t hdr_len;
    uint16_t gso_size;
    uint16_t csum_start;
    uint16_t csum_offset;
    uint16_t num_buffers;
};

#define NET_HDR_F_NEEDS_CSUM 1
#define NET_HDR_F_DATA_VALID 2

#define NET_HDR_GSO_NONE  0
#define NET_HDR_GSO_TCPV4 1
#define NET_HDR_GSO_TCPV6 4
#define NET_HDR_GSO_ECN   0x80

enum net_offload {
    NET_SEND_CSUM = 1 << 0, /* takes frames whose checksum is partial */
    NET_SEND_TSO4 = 1 << 1, /* takes TCP segments larger than the MTU */
    NET_SEND_TSO6 = 1 << 2,
    NET_SEND_ECN = 1 << 3,
    NET_RECEIVE_CSUM = 1 << 4, /* gives frames with partial, or with known good checksums */
    NET_RECEIVE_TSO4 = 1 << 5,
    NET_RECEIVE_TSO6 = 1 << 6,
    NET_RECEIVE_ECN = 1 << 7,
};

struct net_receiver {
    void (*ready)(void *opaque);
    /* Takes a frame of NET_FRAME_MIN..NET_FRAME_MAX bytes; false: no room, wait for resume. */
    bool (*receive)(void *opaque, const struct net_header *header, const void *frame, size_t size);
    void (*writable)(void *opaque);
    void *opaque;
};

struct net_backend;

struct net_backend_type {
    const char *name;
    bool (*send)(struct net_backend *backend, const struct net_header *header,
                 const struct iovec *iov, unsigned count, size_t size);
    void (*process)(struct net_backend *backend);
    void (*resume)(struct net_backend *backend);
    void (*set_offloads)(struct net_backend *backend, unsigned offloads); /* or NULL */
    void (*destroy)(struct net_backend *backend);
};

struct net_backend {
    const struct net_backend_type *type;
    struct net_receiver receiver;
    unsigned offloads;         /* net_offload bits that it is capable of */
    uint8_t mac[NET_MAC_SIZE]; /* of the guest's side, if the specification names one, else zeros */
};

/*
 * Creates a back end from what --net takes:
 *     user[,hostfwd=tcp|udp:[HOST]:PORT-[GUEST]:PORT]...[,restrict=on|off][,ipv6=on|off][,mac=MAC]
 *     tap[,ifname=NAME][,mac=MAC]
 *     none
 * hostfwd without HOST listens on 127.0.0.1 only, without GUEST it goes to 10.0.2.15. The process
 * must ignore SIGPIPE. Errors name the option, the value and the remedy.
 */
struct net_backend *net_backend_create(const char *specification, struct loop *loop,
                                       struct error *err);
void net_backend_destroy(struct net_backend *backend); /* accepts NULL */

void net_backend_set_receiver(struct net_backend *backend, const struct net_receiver *receiver);

/* Which of its offloads the guest wants on what it receives. Any thread. */
void net_backend_set_offloads(struct net_backend *backend, unsigned offloads);

/*
 * Sends the frame of `size` bytes in iov (at most NET_FRAME_MAX). Only offloads that the back end
 * has may be asked for, with the offsets within the frame. False: busy, try again after `writable`.
 * May call `receive` from within.
 */
static inline bool net_backend_send(struct net_backend *backend, const struct net_header *header,
                                    const struct iovec *iov, unsigned count, size_t size)
{
    return backend->type->send(backend, header, iov, count, size);
}

static inline void net_backend_process(struct net_backend *backend)
{
    backend->type->process(backend);
}

static inline void net_backend_resume(struct net_backend *backend)
{
    backend->type->resume(backend);
}

/* For back ends. */

/* One "name=value" of a specification; the value is NULL if there is no '='. */
struct net_option {
    const char *name;
    const char *value;
};

/* Creators of the back ends; `options` ends with a NULL name. */
struct net_backend *net_user_create(const struct net_option *options, struct loop *loop,
                                    struct error *err);
struct net_backend *net_tap_create(const struct net_option *options, struct loop *loop,
                                   struct error *err);

/* on or off; false with err set for anything else. */
bool net_option_bool(const struct net_option *option, bool *value, struct error *err);

/* Completes the Internet checksum of a frame as header says. The offsets must be within it. */
void net_complete_checksum(const struct net_header *header, uint8_t *frame, size_t size);
