#include "virtio/input.h"

#include <assert.h>
#include <linux/input-event-codes.h>
#include <stdio.h>
#include <stdlib.h>

#define INPUT_QUEUE_SIZE 64
#define INPUT_BACKLOG    256 /* events waiting for the loop; what comes on top is dropped */
#define INPUT_GROUP      16
#define INPUT_AXES       64
#define INPUT_DATA       128
#define INPUT_KEYS       (INPUT_DATA * 8)

enum input_queue { QUEUE_EVENTS, QUEUE_STATUS };

/* Section 5.8.4, enum virtio_input_config_select. */
enum select {
    SELECT_ID_NAME = 0x01,
    SELECT_ID_SERIAL = 0x02,
    SELECT_ID_DEVIDS = 0x03,
    SELECT_PROP_BITS = 0x10,
    SELECT_EV_BITS = 0x11,
    SELECT_ABS_INFO = 0x12,
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
    uint8_t types[EV_CNT][INPUT_DATA]; /* bitmaps: the codes of each type of event */
    uint8_t properties[INPUT_DATA];
    struct {
        int32_t min, max;
    } axes[INPUT_AXES];
    /* Keys that the guest was told are down; for each there is room for two events, so that it is
     * always told when they are up again. */
    uint8_t pressed[INPUT_DATA];
    unsigned pressed_count;
    struct input_event backlog[INPUT_BACKLOG];
    uint32_t backlog_size;
};

static struct virtio_input *input_of(struct virtio_device *device)
{
    return container_of(device, struct virtio_input, virtio);
}

static bool has_bit(const uint8_t *bitmap, unsigned bit)
{
    return bit < INPUT_KEYS && bitmap[bit / 8] >> bit % 8 & 1;
}

static void set_bit(uint8_t *bitmap, unsigned bit)
{
    if (bit < INPUT_KEYS)
        bitmap[bit / 8] |= 1 << bit % 8;
}

/* Bytes of a bitmap up to its last bit: a size of 0 means that the device has no such events. */
static unsigned bitmap_size(const uint8_t *bitmap)
{
    unsigned size = INPUT_DATA;
    while (size && !bitmap[size - 1])
        size--;
    return size;
}

/* What select and subselect ask for, into the data part; returns its size. */

static unsigned tell_name(const struct virtio_input *self, unsigned subselect, uint8_t *data)
{
    memcpy(data, self->label, strlen(self->label));
    return strlen(self->label);
}

static unsigned tell_serial(const struct virtio_input *self, unsigned subselect, uint8_t *data)
{
    memcpy(data, self->virtio.base.name, strlen(self->virtio.base.name));
    return strlen(self->virtio.base.name);
}

static unsigned tell_ids(const struct virtio_input *self, unsigned subselect, uint8_t *data)
{
    store_le16(data, BUS_VIRTUAL);
    return 8;
}

static unsigned tell_properties(const struct virtio_input *self, unsigned subselect, uint8_t *data)
{
    memcpy(data, self->properties, INPUT_DATA);
    return bitmap_size(data);
}

static unsigned tell_codes(const struct virtio_input *self, unsigned subselect, uint8_t *data)
{
    if (subselect >= EV_CNT)
        return 0;
    memcpy(data, self->types[subselect], INPUT_DATA);
    return bitmap_size(data);
}

static unsigned tell_axis(const struct virtio_input *self, unsigned subselect, uint8_t *data)
{
    if (subselect >= INPUT_AXES || !has_bit(self->types[EV_ABS], subselect))
        return 0;
    store_le32(data, (uint32_t)self->axes[subselect].min);
    store_le32(data + 4, (uint32_t)self->axes[subselect].max);
    return 20; /* fuzz, flat and resolution are 0 */
}

static const struct {
    enum select select;
    unsigned (*tell)(const struct virtio_input *self, unsigned subselect, uint8_t *data);
} selections[] = {
    {SELECT_ID_NAME, tell_name},  {SELECT_ID_SERIAL, tell_serial},
    {SELECT_ID_DEVIDS, tell_ids}, {SELECT_PROP_BITS, tell_properties},
    {SELECT_EV_BITS, tell_codes}, {SELECT_ABS_INFO, tell_axis},
};

static void update_config(struct virtio_input *self)
{
    uint8_t *data = self->config + CONFIG_DATA;
    unsigned size = 0;
    memset(data, 0, INPUT_DATA);
    for (size_t i = 0; i < ARRAY_SIZE(selections); i++)
        if (selections[i].select == self->config[CONFIG_SELECT])
            size = selections[i].tell(self, self->config[CONFIG_SUBSELECT], data);
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
    struct virtio_input *self = input_of(device);
    self->backlog_size = 0;
    self->pressed_count = 0;
    memset(self->pressed, 0, sizeof(self->pressed));
}

/* A loaded state may claim keys that the device has not, or leave no room for their releases. */
static void check_pressed(struct virtio_input *self, struct stream *stream)
{
    bool sane = self->backlog_size + 2 * self->pressed_count <= INPUT_BACKLOG;
    for (unsigned i = 0; i < INPUT_DATA; i++)
        sane &= !(self->pressed[i] & ~self->types[EV_KEY][i]);
    if (sane)
        return;
    stream_fail(stream, "%s: %u keys are down behind %u events, which cannot be",
                self->virtio.base.name, self->pressed_count, self->backlog_size);
    input_reset(&self->virtio);
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
    stream_bytes(stream, self->pressed, sizeof(self->pressed));
    self->pressed_count = 0;
    for (unsigned key = 0; key < INPUT_KEYS; key++)
        self->pressed_count += has_bit(self->pressed, key);
    check_pressed(self, stream);
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

/* Whether the device has such an event, and the guest's view of a key changes by it. */
static bool means_something(const struct virtio_input *self, const uint8_t *pressed,
                            const struct virtio_input_event *event)
{
    if (event->type >= EV_CNT || !has_bit(self->types[event->type], event->code))
        return false;
    return event->type != EV_KEY || has_bit(pressed, event->code) != (event->value != 0);
}

static void put(struct virtio_input *self, uint16_t type, uint16_t code, uint32_t value)
{
    self->backlog[self->backlog_size++] = (struct input_event){type, code, value};
}

/* Of a group: what the guest gets, and the keys that are down after it. */
struct group {
    const struct virtio_input_event *events[INPUT_GROUP];
    unsigned count;
    uint8_t pressed[INPUT_DATA];
    unsigned pressed_count;
};

static void choose(const struct virtio_input *self, struct group *group,
                   const struct virtio_input_event *events, unsigned count, bool releases_only)
{
    group->count = 0;
    group->pressed_count = self->pressed_count;
    memcpy(group->pressed, self->pressed, sizeof(group->pressed));
    for (unsigned i = 0; i < count; i++) {
        bool key = events[i].type == EV_KEY, down = events[i].value;
        if ((releases_only && (!key || down)) || !means_something(self, group->pressed, &events[i]))
            continue;
        group->events[group->count++] = &events[i];
        if (key) {
            group->pressed[events[i].code / 8] ^= 1 << events[i].code % 8;
            group->pressed_count += down ? 1 : -1;
        }
    }
}

static bool fits(const struct virtio_input *self, const struct group *group)
{
    return self->backlog_size + group->count + 1 + 2 * group->pressed_count <= INPUT_BACKLOG;
}

bool virtio_input_send(struct virtio_device *device, const struct virtio_input_event *events,
                       unsigned count)
{
    struct virtio_input *self = input_of(device);
    struct group group = {0};
    assert(count <= INPUT_GROUP);
    virtio_lock(device);
    struct virtio_queue *queue = &device->queues[QUEUE_EVENTS];
    bool listening = virtio_queue_ready(queue);
    choose(self, &group, events, count, false);
    bool sent = listening && (!group.count || fits(self, &group));
    /* Of what is dropped, the releases have room, and a guest that does not listen has no keys
     * down. */
    if (!sent)
        choose(self, &group, events, count, true);
    memcpy(self->pressed, group.pressed, sizeof(self->pressed));
    self->pressed_count = group.pressed_count;
    if (listening && group.count) {
        for (unsigned i = 0; i < group.count; i++)
            put(self, group.events[i]->type, group.events[i]->code,
                (uint32_t)group.events[i]->value);
        put(self, EV_SYN, SYN_REPORT, 0);
        virtio_queue_schedule(queue);
    }
    virtio_unlock(device);
    return sent;
}

bool virtio_input_press(struct virtio_device *device, uint16_t key)
{
    const struct virtio_input_event down = {EV_KEY, key, 1}, up = {EV_KEY, key, 0};
    bool pressed = virtio_input_send(device, &down, 1);
    virtio_input_send(device, &up, 1);
    return pressed;
}

struct virtio_device *
virtio_input_create(const char *name, const struct virtio_input_config *config, struct loop *loop)
{
    struct virtio_input *self = xcalloc(1, sizeof(*self));
    virtio_device_init(&self->virtio, &input_type, name, 0, loop);
    snprintf(self->label, sizeof(self->label), "%s", config->label);
    for (unsigned i = 0; i < config->key_count; i++)
        set_bit(self->types[EV_KEY], config->keys[i]);
    for (unsigned i = 0; i < config->relative_count; i++)
        set_bit(self->types[EV_REL], config->relative[i]);
    for (unsigned i = 0; i < config->axis_count; i++) {
        const struct virtio_input_axis *axis = &config->axes[i];
        assert(axis->code < INPUT_AXES);
        set_bit(self->types[EV_ABS], axis->code);
        self->axes[axis->code].min = axis->min;
        self->axes[axis->code].max = axis->max;
    }
    if (config->repeats) {
        set_bit(self->types[EV_REP], REP_DELAY);
        set_bit(self->types[EV_REP], REP_PERIOD);
    }
    if (config->relative_count || config->axis_count)
        set_bit(self->properties, config->direct ? INPUT_PROP_DIRECT : INPUT_PROP_POINTER);
    self->virtio.config = self->config;
    self->virtio.config_size = sizeof(self->config);
    virtio_device_add_queue(&self->virtio, INPUT_QUEUE_SIZE);
    virtio_device_add_queue(&self->virtio, INPUT_QUEUE_SIZE);
    return &self->virtio;
}
