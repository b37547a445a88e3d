/* Which frames a card accepts (sections 5.1.6.5.1 and 5.1.6.5.2). The owner's lock guards it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/stream.h"

/* Commands of the receive mode class, as the specification numbers them. */
enum net_filter_mode {
    NET_FILTER_PROMISC,
    NET_FILTER_ALLMULTI,
    NET_FILTER_ALLUNI,
    NET_FILTER_NOMULTI,
    NET_FILTER_NOUNI,
    NET_FILTER_NOBCAST,
    NET_FILTER_MODES
};

#define NET_FILTER_ADDRESSES 64 /* of each kind; with more of them, all of that kind pass */

/* Bytes of the largest tables that a driver may set; larger ones are refused. */
#define NET_FILTER_TABLES_MAX (2 * (4 + 1024 * 6))

struct net_filter_table {
    uint32_t count;
    bool overflow;
    uint8_t addresses[NET_FILTER_ADDRESSES][6];
};

struct net_filter {
    bool modes[NET_FILTER_MODES];
    struct net_filter_table unicast, multicast;
};

void net_filter_init(struct net_filter *filter); /* promiscuous, as without a control queue */

bool net_filter_set_mode(struct net_filter *filter, uint8_t mode, uint8_t value);

/* Takes both tables as the driver sends them; false, and nothing changed, if they are malformed. */
bool net_filter_set_tables(struct net_filter *filter, const uint8_t *data, size_t size);

/* `frame` has at least its two addresses; `mac` is the card's own. */
bool net_filter_accepts(const struct net_filter *filter, const uint8_t *mac, const uint8_t *frame);

void net_filter_state(struct net_filter *filter, struct stream *stream);
