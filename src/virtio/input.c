#include "virtio/input.h"

#include <linux/input-event-codes.h>
#include <stdio.h>
#include <stdlib.h>

#define INPUT_QUEUE_SIZE 64
#define INPUT_BACKLOG    64 /* events waiting for the loop; what comes on top is dropped */
#define INPUT_DATA       128
#define INPUT_KEYS       (INPUT_DATA * 8)

enum input_queue { QUEUE_EVENTS, QUEUE_STATUS };

/* Section 5.8.4, enum virtio_input_config_select. */
enum select {
    SELECT_ID_NAME = 0x01,
    SELECT_ID_SERIAL = 0x02,
    SELECT_ID_DEVIDS = 0x03,
    SELECT_EV_BITS = 0x11,
};

enum config_offset {
    CONFIG_SELECT = 0,
    CONFIG_SUBSELECT = 1,
    CONFIG_DATA_SIZE = 2,
    CONFIG_DATA = 8,
    CONFIG_SIZE = CONFIG_DATA + INPUT_DATA,
};

#define BUS_VIRTUAL 0x06

struct input_event {
    uint16_t type, code;
    uint32_t value;
};

struct virtio_input {
    struct virtio_device virtio;
    uint8_t config[CONFIG_SIZE];
    char label[INPUT_DATA];
    uint8_t keys[INPUT_DATA]; /* bitmap */
    struct input_event backlog[INPUT_BACKLOG];
    uint32_t backlog_size;
};

static struct virtio_input *input_of(struct virtio_device *device)
{
    return container_of(device, struct virtio_input, virtio);
}

/* Bytes of a bitmap up to its last bit: a size of 0 means that the device has no such events. */
static unsigned bitmap_size(const uint8_t *bitmap)
{
    unsigned size = INPUT_DATA;
    while (size && !bitmap[size - 1])
        size--;
    return size;
}

/* Fills the data part with what select and subselect ask for. */
static void update_config(struct virtio_input *self)
{
    uint8_t *data = self->config + CONFIG_DATA;
    unsigned size = 0;
    memset(data, 0, INPUT_DATA);
    switch (self->config[CONFIG_SELECT]) {
    case SELECT_ID_NAME:
        size = strlen(self->label);
        memcpy(data, self->label, size);
        break;
    case SELECT_ID_SERIAL:
        size = strlen(self->virtio.base.name);
        memcpy(data, self->virtio.base.name, size);
        break;
    case SELECT_ID_DEVIDS:
        size = 8;
        store_le16(data, BUS_VIRTUAL);
        break;
    case SELECT_EV_BITS:
        if (self->config[CONFIG_SUBSELECT] == EV_KEY) {
            size = bitmap_size(self->keys);
            memcpy(data, self->keys, size);
        }
        break;
    }
    self->config[CONFIG_DATA_SIZE] = size;
}

static void input_config_written(struct virtio_device *device, unsigned offset, uint32_t value,
                                 unsigned size)
{
    struct virtio_input *self = input_of(device);
    for (unsigned i = 0; i < size; i++, value >>= 8)
        if (offset + i <= CONFIG_SUBSELECT)
            self->config[offset + i] = value;
    update_config(self);
}

static void deliver(struct virtio_input *self, struct virtio_queue *queue)
{
    struct virtio_chain *chain;
    unsigned sent = 0;
    while (sent < self->backlog_size && (chain = virtio_queue_pop(queue))) {
        uint8_t event[8];
        store_le16(event, self->backlog[sent].type);
        store_le16(event + 2, self->backlog[sent].code);
        store_le32(event + 4, self->backlog[sent].value);
        virtio_queue_push(chain, virtio_chain_write(chain, 0, event, sizeof(event)));
        sent++;
    }
    self->backlog_size -= sent;
    memmove(self->backlog, self->backlog + sent, self->backlog_size * sizeof(*self->backlog));
}

static void input_handle_queue(struct virtio_device *device, struct virtio_queue *queue)
{
    struct virtio_chain *chain;
    if (queue->index == QUEUE_EVENTS)
        deliver(input_of(device), queue);
    else
        while ((chain = virtio_queue_pop(queue))) /* LEDs and the like: there are none */
            virtio_queue_push(chain, 0);
}

static void input_reset(struct virtio_device *device)
{
    input_of(device)->backlog_size = 0;
}

static void input_state(struct virtio_device *device, struct stream *stream)
{
    struct virtio_input *self = input_of(device);
    stream_bytes(stream, self->config, 2);
    stream_u32(stream, &self->backlog_size);
    if (self->backlog_size > INPUT_BACKLOG) {
        stream_fail(stream, "%s: %u events; at most %u are possible", device->base.name,
                    self->backlog_size, INPUT_BACKLOG);
        self->backlog_size = 0;
    }
    for (unsigned i = 0; i < self->backlog_size; i++) {
        stream_u16(stream, &self->backlog[i].type);
        stream_u16(stream, &self->backlog[i].code);
        stream_u32(stream, &self->backlog[i].value);
    }
    update_config(self);
}

static void input_remove(struct virtio_device *device)
{
    virtio_device_finish(device);
    free(input_of(device));
}

static const struct virtio_device_type input_type = {
    .name = "virtio-input",
    .id = 18,
    .pci_class = 0x098000,
    .handle_queue = input_handle_queue,
    .config_written = input_config_written,
    .reset = input_reset,
    .state = input_state,
    .remove = input_remove,
};

bool virtio_input_press(struct virtio_device *device, uint16_t key)
{
    struct virtio_input *self = input_of(device);
    const struct input_event events[] = {
        {EV_KEY, key, 1}, {EV_SYN, SYN_REPORT, 0}, {EV_KEY, key, 0}, {EV_SYN, SYN_REPORT, 0}};
    virtio_lock(device);
    struct virtio_queue *queue = &device->queues[QUEUE_EVENTS];
    bool listening = virtio_queue_ready(queue);
    if (listening && self->backlog_size + ARRAY_SIZE(events) <= INPUT_BACKLOG) {
        memcpy(self->backlog + self->backlog_size, events, sizeof(events));
        self->backlog_size += ARRAY_SIZE(events);
        virtio_queue_schedule(queue);
    }
    virtio_unlock(device);
    return listening;
}

struct virtio_device *
virtio_input_create(const char *name, const struct virtio_input_config *config, struct loop *loop)
{
    struct virtio_input *self = xcalloc(1, sizeof(*self));
    virtio_device_init(&self->virtio, &input_type, name, 0, loop);
    snprintf(self->label, sizeof(self->label), "%s", config->label);
    for (unsigned i = 0; i < config->key_count; i++)
        if (config->keys[i] < INPUT_KEYS)
            self->keys[config->keys[i] / 8] |= 1 << config->keys[i] % 8;
    self->virtio.config = self->config;
    self->virtio.config_size = sizeof(self->config);
    virtio_device_add_queue(&self->virtio, INPUT_QUEUE_SIZE);
    virtio_device_add_queue(&self->virtio, INPUT_QUEUE_SIZE);
    return &self->virtio;
}
