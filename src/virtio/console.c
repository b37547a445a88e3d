#include "virtio/console.h"

#include <stdlib.h>

#define CONSOLE_F_SIZE        0
#define CONSOLE_F_EMERG_WRITE 2
#define CONSOLE_QUEUE_SIZE    128
#define CONSOLE_INPUT_MAX     4096
#define CONSOLE_PIECE         4096 /* bytes handed to the channel at once */

enum console_queue { QUEUE_RECEIVE, QUEUE_TRANSMIT };

/* struct virtio_console_config, section 5.3.4. */
enum config_offset {
    CONFIG_COLUMNS = 0,
    CONFIG_ROWS = 2,
    CONFIG_EMERG_WRITE = 8,
    CONFIG_SIZE = 12,
};

struct virtio_console {
    struct virtio_device virtio;
    struct chardev *chardev;
    uint8_t config[CONFIG_SIZE];
    /* Input that the channel gave and the guest has no buffer for yet. */
    uint8_t input[CONSOLE_INPUT_MAX];
    uint32_t input_size;
    /* Bytes of the next chain of the transmit queue that were already sent, before the channel was
     * full. */
    uint32_t sent;
};

static struct virtio_console *console_of(struct virtio_device *device)
{
    return container_of(device, struct virtio_console, virtio);
}

static void deliver_input(struct virtio_console *self)
{
    struct virtio_queue *queue = &self->virtio.queues[QUEUE_RECEIVE];
    struct virtio_chain *chain;
    size_t size;

    while (self->input_size && (chain = virtio_queue_pop(queue))) {
        size = virtio_chain_write(chain, 0, self->input, self->input_size);
        virtio_queue_push(chain, size);
        self->input_size -= size;
        memmove(self->input, self->input + size, self->input_size);
    }
    virtio_queue_flush(queue);
}

/* Sends the chain from self->sent on; false if the channel took only a part. */
static bool send_chain(struct virtio_console *self, const struct virtio_chain *chain)
{
    uint8_t piece[CONSOLE_PIECE];
    size_t size, taken;

    while ((size = virtio_chain_read(chain, self->sent, piece, sizeof(piece)))) {
        taken = chardev_write(self->chardev, piece, size);
        self->sent += taken;
        if (taken < size)
            return false;
    }
    self->sent = 0;
    return true;
}

/*
 * A chain that does not fit into the channel goes back to the queue, so that nothing is in flight
 * that a saved state would have to describe; console_writable brings us here again.
 */
static void transmit(struct virtio_console *self, struct virtio_queue *queue)
{
    struct virtio_chain *chain;

    while ((chain = virtio_queue_pop(queue))) {
        if (!send_chain(self, chain)) {
            virtio_queue_unpop(chain);
            return;
        }
        virtio_queue_push(chain, 0);
    }
}

static void console_handle_queue(struct virtio_device *device, struct virtio_queue *queue)
{
    struct virtio_console *self = console_of(device);

    if (queue->index == QUEUE_TRANSMIT) {
        transmit(self, queue);
    } else {
        deliver_input(self);
        chardev_accept_input(self->chardev);
    }
}

static void console_config_written(struct virtio_device *device, unsigned offset, uint32_t value,
                                   unsigned size)
{
    uint8_t byte = value;

    if (offset == CONFIG_EMERG_WRITE)
        chardev_force(console_of(device)->chardev, &byte, 1);
}

static void console_reset(struct virtio_device *device)
{
    console_of(device)->sent = 0;
    console_of(device)->input_size = 0;
}

static void console_state(struct virtio_device *device, struct stream *stream)
{
    struct virtio_console *self = console_of(device);

    stream_u32(stream, &self->sent);
    stream_u32(stream, &self->input_size);
    if (self->input_size > sizeof(self->input)) {
        stream_fail(stream, "%s: %u bytes of input; at most %zu are possible", device->base.name,
                    self->input_size, sizeof(self->input));
        self->input_size = 0;
    }
    stream_bytes(stream, self->input, self->input_size);
}

static void console_remove(struct virtio_device *device)
{
    struct virtio_console *self = console_of(device);

    chardev_attach(self->chardev, NULL, NULL);
    virtio_device_finish(device);
    free(self);
}

static const struct virtio_device_type console_type = {
    .name = "virtio-console",
    .id = 3,
    .pci_class = 0x078000,
    .handle_queue = console_handle_queue,
    .config_written = console_config_written,
    .reset = console_reset,
    .state = console_state,
    .remove = console_remove,
};

static size_t console_room(void *opaque)
{
    struct virtio_console *self = opaque;
    size_t room = 0;

    virtio_lock(&self->virtio);
    if (virtio_queue_ready(&self->virtio.queues[QUEUE_RECEIVE]))
        room = sizeof(self->input) - self->input_size;
    virtio_unlock(&self->virtio);
    return room;
}

static void console_receive(void *opaque, const uint8_t *bytes, size_t size)
{
    struct virtio_console *self = opaque;

    virtio_lock(&self->virtio);
    if (size > sizeof(self->input) - self->input_size)
        size = sizeof(self->input) - self->input_size;
    memcpy(self->input + self->input_size, bytes, size);
    self->input_size += size;
    deliver_input(self);
    virtio_unlock(&self->virtio);
}

static void console_writable(void *opaque)
{
    struct virtio_console *self = opaque;

    virtio_queue_schedule(&self->virtio.queues[QUEUE_TRANSMIT]);
}

/* True if the channel has a window at all. */
static bool update_size(struct virtio_console *self)
{
    uint16_t columns, rows;

    if (!chardev_window_size(self->chardev, &columns, &rows))
        return false;
    store_le16(self->config + CONFIG_COLUMNS, columns);
    store_le16(self->config + CONFIG_ROWS, rows);
    return true;
}

static void console_event(void *opaque, enum chardev_event event)
{
    struct virtio_console *self = opaque;

    if (event != CHARDEV_RESIZED)
        return;
    virtio_lock(&self->virtio);
    if (update_size(self) && virtio_has_feature(&self->virtio, CONSOLE_F_SIZE))
        virtio_config_changed(&self->virtio);
    virtio_unlock(&self->virtio);
}

static const struct chardev_client console_client = {
    .room = console_room,
    .receive = console_receive,
    .writable = console_writable,
    .event = console_event,
};

struct virtio_device *virtio_console_create(const char *name, struct chardev *chardev,
                                            struct loop *loop)
{
    struct virtio_console *self = xcalloc(1, sizeof(*self));
    uint64_t features = BIT(CONSOLE_F_EMERG_WRITE);

    self->chardev = chardev;
    if (update_size(self))
        features |= BIT(CONSOLE_F_SIZE);
    virtio_device_init(&self->virtio, &console_type, name, features, loop);
    self->virtio.config = self->config;
    self->virtio.config_size = sizeof(self->config);
    virtio_device_add_queue(&self->virtio, CONSOLE_QUEUE_SIZE);
    virtio_device_add_queue(&self->virtio, CONSOLE_QUEUE_SIZE);
    chardev_attach(chardev, &console_client, self);
    return &self->virtio;
}
