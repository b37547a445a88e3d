#include "virtio/net_filter.h"

#include <string.h>

#include "base/bits.h"

void net_filter_init(struct net_filter *filter)
{
    *filter = (struct net_filter){.modes = {[NET_FILTER_PROMISC] = true}};
}

bool net_filter_set_mode(struct net_filter *filter, uint8_t mode, uint8_t value)
{
    if (mode >= NET_FILTER_MODES)
        return false;
    filter->modes[mode] = value;
    return true;
}

/* Returns the bytes that the table takes, or 0 if it does not end within size. */
static size_t table_load(struct net_filter_table *table, const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    uint32_t count = load_le32(data);
    if (count > (size - 4) / 6)
        return 0;
    table->overflow = count > NET_FILTER_ADDRESSES;
    table->count = table->overflow ? 0 : count;
    memcpy(table->addresses, data + 4, (size_t)table->count * 6);
    return 4 + (size_t)count * 6;
}

bool net_filter_set_tables(struct net_filter *filter, const uint8_t *data, size_t size)
{
    struct net_filter_table unicast = {0}, multicast = {0};
    size_t first = table_load(&unicast, data, size);
    if (!first || table_load(&multicast, data + first, size - first) != size - first)
        return false;
    filter->unicast = unicast;
    filter->multicast = multicast;
    return true;
}

static bool table_has(const struct net_filter_table *table, const uint8_t *address)
{
    if (table->overflow)
        return true;
    for (uint32_t n = 0; n < table->count; n++)
        if (!memcmp(table->addresses[n], address, 6))
            return true;
    return false;
}

bool net_filter_accepts(const struct net_filter *filter, const uint8_t *mac, const uint8_t *frame)
{
    static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    const bool *modes = filter->modes;
    if (modes[NET_FILTER_PROMISC])
        return true;
    if (!memcmp(frame, broadcast, 6))
        return !modes[NET_FILTER_NOBCAST];
    if (frame[0] & 1)
        return !modes[NET_FILTER_NOMULTI] &&
               (modes[NET_FILTER_ALLMULTI] || table_has(&filter->multicast, frame));
    return !modes[NET_FILTER_NOUNI] && (modes[NET_FILTER_ALLUNI] || !memcmp(frame, mac, 6) ||
                                        table_has(&filter->unicast, frame));
}

static void table_state(struct net_filter_table *table, struct stream *stream)
{
    stream_bool(stream, &table->overflow);
    stream_u32(stream, &table->count);
    if (table->count > NET_FILTER_ADDRESSES) {
        stream_fail(stream, "network card: filter table of %u addresses, at most %u are possible",
                    table->count, NET_FILTER_ADDRESSES);
        table->count = 0;
    }
    stream_bytes(stream, table->addresses, (size_t)table->count * 6);
}

void net_filter_state(struct net_filter *filter, struct stream *stream)
{
    for (unsigned n = 0; n < NET_FILTER_MODES; n++)
        stream_bool(stream, &filter->modes[n]);
    table_state(&filter->unicast, stream);
    table_state(&filter->multicast, stream);
}
