/* virtio-net (section 5.1): an Ethernet card with one pair of queues and a control queue. */
#pragma once

#include "virtio/net_backend.h"
#include "virtio/virtio.h"

/*
 * Creates a card and its back end from what --net takes (see net_backend_create). `index` counts
 * the machine's cards: the default MAC address is 52:54:00:12:34:56 plus it, the same in each run.
 */
struct virtio_device *virtio_net_create(const char *name, const char *specification, unsigned index,
                                        struct loop *loop, struct error *err);

/* The same on a back end that exists, which becomes the card's. */
struct virtio_device *virtio_net_create_with(const char *name, struct net_backend *backend,
                                             unsigned index, struct loop *loop);
