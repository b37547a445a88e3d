#include "virtio/rng.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#define RNG_QUEUE_SIZE 8
/* More than any driver asks for at once; a larger buffer gets this much (section 5.4.6.1). */
#define RNG_REQUEST_MAX 4096

static void fill(struct virtio_chain *chain)
{
    uint8_t bytes[RNG_REQUEST_MAX];
    size_t size = chain->writable_size < sizeof(bytes) ? chain->writable_size : sizeof(bytes);
    ssize_t got;

    do
        got = getrandom(bytes, size, 0);
    while (got < 0 && errno == EINTR);
    virtio_queue_push(chain, virtio_chain_write(chain, 0, bytes, got < 0 ? 0 : got));
}

static void rng_handle_queue(struct virtio_device *device, struct virtio_queue *queue)
{
    struct virtio_chain *chain;

    while ((chain = virtio_queue_pop(queue))) {
        if (chain->writable_size) {
            fill(chain);
            continue;
        }
        virtio_device_break(device, "request without a writable buffer");
        virtio_queue_push(chain, 0);
    }
}

static void rng_reset(struct virtio_device *device)
{
}

static void rng_remove(struct virtio_device *device)
{
    virtio_device_finish(device);
    free(device);
}

static const struct virtio_device_type rng_type = {
    .name = "virtio-rng",
    .id = 4,
    .pci_class = 0x00ff00,
    .handle_queue = rng_handle_queue,
    .reset = rng_reset,
    .remove = rng_remove,
};

struct virtio_device *virtio_rng_create(const char *name, struct loop *loop)
{
    struct virtio_device *device = xcalloc(1, sizeof(*device));

    virtio_device_init(device, &rng_type, name, 0, loop);
    virtio_device_add_queue(device, RNG_QUEUE_SIZE);
    return device;
}
