/* SiFive test finisher: the word that ends or resets the machine. */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "device/device.h"

/* The low half of the word; for a failure the high half is the code. */
enum {
    WORD_FAIL = 0x3333,
    WORD_PASS = 0x5555,
    WORD_RESET = 0x7777,
};

struct finisher {
    struct device device; /* without state, so its lock is unused */
    struct finisher_config config;
};

static uint64_t finisher_read(void *opaque, uint64_t offset, unsigned size)
{
    return 0;
}

static void finisher_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct finisher *finisher = opaque;
    const struct finisher_config *config = &finisher->config;
    unsigned word = value & 0xffff, code = value >> 16 & 0xffff;

    if (!offset && word == WORD_PASS)
        config->finished(config->opaque, FINISHER_PASS, 0);
    else if (!offset && word == WORD_FAIL)
        config->finished(config->opaque, FINISHER_FAIL, code);
    else if (!offset && word == WORD_RESET)
        config->finished(config->opaque, FINISHER_RESET, 0);
    else
        trace_guest_error(finisher->device.name, "0x%x written at 0x%x means nothing",
                          (unsigned)value, (unsigned)offset);
}

const struct mmio_ops finisher_ops = {
    .read = finisher_read,
    .write = finisher_write,
    .min_size = 2,
    .max_size = 4,
};

static void finisher_reset(struct device *device)
{
}

static void finisher_state(struct device *device, struct stream *stream)
{
}

static void finisher_remove(struct device *device)
{
    device_finish(device);
    free(container_of(device, struct finisher, device));
}

static const struct device_type finisher_type = {
    .name = "sifive-test",
    .reset = finisher_reset,
    .state = finisher_state,
    .remove = finisher_remove,
};

struct finisher *finisher_create(const char *name, const struct finisher_config *config)
{
    struct finisher *finisher = xcalloc(1, sizeof(*finisher));

    device_init(&finisher->device, &finisher_type, name);
    finisher->config = *config;
    return finisher;
}

struct device *finisher_device(struct finisher *finisher)
{
    return &finisher->device;
}
