/* What the network back ends have in common, and the one that leads nowhere. */
#include "virtio/net_backend.h"

#include <assert.h>
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"

#define OPTIONS_MAX 64

void net_backend_set_receiver(struct net_backend *backend, const struct net_receiver *receiver)
{
    backend->receiver = *receiver;
}

void net_backend_set_offloads(struct net_backend *backend, unsigned offloads)
{
    if (backend->type->set_offloads)
        backend->type->set_offloads(backend, offloads & backend->offloads);
}

void net_backend_destroy(struct net_backend *backend)
{
    if (backend)
        backend->type->destroy(backend);
}

/* RFC 1071: the field holds the sum of the pseudo header, which is thus part of the sum. */
void net_complete_checksum(const struct net_header *header, uint8_t *frame, size_t size)
{
    size_t start = le16toh(header->csum_start), at = start + le16toh(header->csum_offset);
    uint64_t sum = 0;
    assert(at + 2 <= size);
    for (size_t n = start; n + 1 < size; n += 2)
        sum += (uint32_t)frame[n] << 8 | frame[n + 1];
    if ((size - start) % 2)
        sum += (uint32_t)frame[size - 1] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    uint16_t checksum = (uint16_t)~sum;
    if (!checksum) /* 0 would mean "none" in UDP; both are the same number to the others */
        checksum = 0xffff;
    frame[at] = (uint8_t)(checksum >> 8);
    frame[at + 1] = (uint8_t)checksum;
}

/* none: a cable that ends in the air. */

static bool none_send(struct net_backend *backend, const struct net_header *header,
                      const struct iovec *iov, unsigned count, size_t size)
{
    return true;
}

static void none_nothing(struct net_backend *backend)
{
}

static void none_destroy(struct net_backend *backend)
{
    free(backend);
}

static const struct net_backend_type none_type = {
    .name = "none",
    .send = none_send,
    .process = none_nothing,
    .resume = none_nothing,
    .destroy = none_destroy,
};

static struct net_backend *none_create(const struct net_option *options, struct loop *loop,
                                       struct error *err)
{
    if (options->name) {
        error_set(err, "'none' has no option '%s'", options->name);
        return NULL;
    }
    struct net_backend *backend = xcalloc(1, sizeof(*backend));
    backend->type = &none_type;
    return backend;
}

/* Specifications. */

static const struct {
    const char *name;
    struct net_backend *(*create)(const struct net_option *options, struct loop *loop,
                                  struct error *err);
} creators[] = {
    {"user", net_user_create},
    {"tap", net_tap_create},
    {"none", none_create},
};

bool net_option_bool(const struct net_option *option, bool *value, struct error *err)
{
    *value = option->value && !strcmp(option->value, "on");
    if (*value || (option->value && !strcmp(option->value, "off")))
        return true;
    return error_set(err, "%s=%s: it is 'on' or 'off'", option->name,
                     option->value ? option->value : "");
}

static bool parse_mac(const char *text, uint8_t mac[NET_MAC_SIZE], struct error *err)
{
    unsigned bytes[NET_MAC_SIZE];
    int end = 0;
    if (!text || strlen(text) != 17 ||
        sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &bytes[0], &bytes[1], &bytes[2], &bytes[3],
               &bytes[4], &bytes[5], &end) != NET_MAC_SIZE ||
        end != 17)
        return error_set(err, "mac=%s is not an Ethernet address such as 52:54:00:12:34:56",
                         text ? text : "");
    if (bytes[0] & 1)
        return error_set(err, "mac=%s is a multicast address (its first byte must be even)", text);
    for (unsigned n = 0; n < NET_MAC_SIZE; n++)
        mac[n] = (uint8_t)bytes[n];
    return true;
}

/* Cuts text at its commas and takes out what is common to all back ends; text is changed. */
static bool parse_options(char *text, struct net_option options[OPTIONS_MAX],
                          uint8_t mac[NET_MAC_SIZE], struct error *err)
{
    unsigned count = 0;
    while (text) {
        char *name = strsep(&text, ",");
        char *value = strchr(name, '=');
        if (value)
            *value++ = 0;
        if (count == OPTIONS_MAX - 1)
            return error_set(err, "more than %u options", OPTIONS_MAX - 1);
        if (strcmp(name, "mac"))
            options[count++] = (struct net_option){name, value};
        else if (!parse_mac(value, mac, err))
            return false;
    }
    options[count] = (struct net_option){NULL, NULL};
    return true;
}

struct net_backend *net_backend_create(const char *specification, struct loop *loop,
                                       struct error *err)
{
    char *text = xstrdup(specification), *rest = text;
    const char *kind = strsep(&rest, ",");
    struct net_option options[OPTIONS_MAX];
    uint8_t mac[NET_MAC_SIZE] = {0};
    struct net_backend *backend = NULL;
    bool known = false;

    if (parse_options(rest, options, mac, err)) {
        for (size_t n = 0; n < ARRAY_SIZE(creators); n++) {
            if (strcmp(kind, creators[n].name))
                continue;
            known = true;
            backend = creators[n].create(options, loop, err);
        }
        if (!known)
            error_set(err, "'%s' is not 'user', 'tap' or 'none'", kind);
    }
    if (backend)
        memcpy(backend->mac, mac, sizeof(mac));
    else
        error_prefix(err, "network '%s'", specification);
    free(text);
    return backend;
}
