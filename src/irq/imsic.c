/*
 * IMSIC (AIA 1.0, chapter 3): interrupt files, one a hart, that message-signalled interrupts set
 * bits of. Setting one is an atomic or and a word to the hart; all else is done by the hart itself
 * through its CSRs, so that there is no lock.
 */
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "irq/irq.h"

/* Registers of a file by indirect access (section 3.8). */
enum {
    SELECT_DELIVERY = 0x70,
    SELECT_THRESHOLD = 0x72,
    SELECT_PENDING = 0x80,
    SELECT_ENABLED = 0xc0,
    SELECT_END = 0x100,
};

/* Registers of a file's page (section 3.5). */
enum { PAGE_SET_LE = 0x000, PAGE_SET_BE = 0x004 };

enum { WORDS = (IMSIC_IDENTITIES + 1) / 64 };

/* On cache lines of its own, as each hart works on its file. */
struct imsic_file {
    _Atomic uint64_t pending[WORDS]; /* set by any thread */
    /* The hart's thread only, or while it does not run. */
    uint64_t enabled[WORDS];
    uint32_t threshold;
    bool delivers;
    struct irq_line notify;
} __attribute__((aligned(64)));

struct imsic {
    struct device device;
    unsigned count;
    struct imsic_file *files;
};

static void file_set(struct imsic_file *file, unsigned identity)
{
    uint64_t bit = BIT(identity % 64);

    if (!(atomic_fetch_or(&file->pending[identity / 64], bit) & bit))
        irq_set(&file->notify, true);
}

static uint64_t imsic_read(void *opaque, uint64_t offset, unsigned size)
{
    return 0;
}

static void imsic_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct imsic *imsic = opaque;
    unsigned hart = offset / IMSIC_PAGE_SIZE, within = offset % IMSIC_PAGE_SIZE;
    uint32_t identity = within == PAGE_SET_BE ? __builtin_bswap32(value) : (uint32_t)value;

    if (within > PAGE_SET_BE || hart >= imsic->count)
        trace_guest_error(imsic->device.name, "write of no register at %#llx",
                          (unsigned long long)offset);
    else if (!identity || identity > IMSIC_IDENTITIES)
        trace_guest_error(imsic->device.name, "hart %u has no identity %u", hart, identity);
    else
        file_set(&imsic->files[hart], identity);
}

const struct mmio_ops imsic_ops = {
    .read = imsic_read,
    .write = imsic_write,
    .min_size = 4,
    .max_size = 4,
};

/* --- The hart's side --------------------------------------------------------------------------
 */

/* A threshold masks its own identity and those above it (section 3.8.2). */
static unsigned file_top(void *opaque, bool signals)
{
    const struct imsic_file *file = opaque;

    if (signals && !file->delivers)
        return 0;
    for (unsigned word = 0; word < WORDS; word++) {
        uint64_t candidates = atomic_load(&file->pending[word]) & file->enabled[word];
        if (!candidates)
            continue;
        unsigned identity = word * 64 + (unsigned)__builtin_ctzll(candidates);
        return !file->threshold || identity < file->threshold ? identity : 0;
    }
    return 0;
}

static void file_claim(void *opaque, unsigned identity)
{
    struct imsic_file *file = opaque;

    atomic_fetch_and(&file->pending[identity / 64], ~BIT(identity % 64));
}

/* The word of an array that an even number selects; arrays end behind the last identity. */
static bool array_word(unsigned select, unsigned first, unsigned *word)
{
    *word = (select - first) / 2;
    return select >= first && select < first + (SELECT_END - SELECT_ENABLED) && *word < WORDS;
}

static uint64_t file_read(void *opaque, unsigned select)
{
    struct imsic_file *file = opaque;
    unsigned word;

    if (select == SELECT_DELIVERY)
        return file->delivers;
    if (select == SELECT_THRESHOLD)
        return file->threshold;
    if (array_word(select, SELECT_PENDING, &word))
        return atomic_load(&file->pending[word]);
    return array_word(select, SELECT_ENABLED, &word) ? file->enabled[word] : 0;
}

/* Bits that stand for identities: there is none with the number 0. */
static uint64_t identities(unsigned word)
{
    return word ? UINT64_MAX : ~UINT64_C(1);
}

static void file_write(void *opaque, unsigned select, uint64_t old, uint64_t value)
{
    struct imsic_file *file = opaque;
    unsigned word;

    if (select == SELECT_DELIVERY) {
        file->delivers = value & 1;
    } else if (select == SELECT_THRESHOLD) {
        file->threshold = value & IMSIC_IDENTITIES;
    } else if (array_word(select, SELECT_PENDING, &word)) {
        atomic_fetch_or(&file->pending[word], value & ~old & identities(word));
        atomic_fetch_and(&file->pending[word], ~(old & ~value));
    } else if (array_word(select, SELECT_ENABLED, &word)) {
        file->enabled[word] = value & identities(word);
    }
}

struct interrupt_file imsic_file(struct imsic *imsic, unsigned hart)
{
    assert(hart < imsic->count);
    return (struct interrupt_file){
        .read = file_read,
        .write = file_write,
        .top = file_top,
        .claim = file_claim,
        .file = &imsic->files[hart],
    };
}

/* --- Its life ---------------------------------------------------------------------------------
 */

static void imsic_reset(struct device *device)
{
    struct imsic *imsic = container_of(device, struct imsic, device);

    for (unsigned i = 0; i < imsic->count; i++) {
        struct imsic_file *file = &imsic->files[i];
        for (unsigned word = 0; word < WORDS; word++) {
            atomic_store(&file->pending[word], 0);
            file->enabled[word] = 0;
        }
        file->threshold = 0;
        file->delivers = false;
        irq_set(&file->notify, true);
    }
}

static void file_state(struct imsic_file *file, struct stream *stream)
{
    for (unsigned word = 0; word < WORDS; word++) {
        uint64_t pending = atomic_load(&file->pending[word]);
        stream_u64(stream, &pending);
        stream_u64(stream, &file->enabled[word]);
        atomic_store(&file->pending[word], pending & identities(word));
        file->enabled[word] &= identities(word);
    }
    stream_u32(stream, &file->threshold);
    file->threshold &= IMSIC_IDENTITIES;
    stream_bool(stream, &file->delivers);
    if (stream_loading(stream))
        irq_set(&file->notify, true);
}

static void imsic_state(struct device *device, struct stream *stream)
{
    struct imsic *imsic = container_of(device, struct imsic, device);
    uint32_t count = imsic->count;

    stream_begin(stream, "imsic", 1);
    stream_u32(stream, &count);
    if (count != imsic->count)
        stream_fail(stream, "%s: the state has %u harts, the machine %u", device->name, count,
                    imsic->count);
    for (unsigned i = 0; i < imsic->count; i++)
        file_state(&imsic->files[i], stream);
    stream_end(stream);
}

static void imsic_remove(struct device *device)
{
    struct imsic *imsic = container_of(device, struct imsic, device);

    free(imsic->files);
    device_finish(device);
    free(imsic);
}

static const struct device_type imsic_type = {
    .name = "imsic",
    .reset = imsic_reset,
    .state = imsic_state,
    .remove = imsic_remove,
};

struct imsic *imsic_create(const char *name, const struct imsic_config *config)
{
    struct imsic *imsic = xcalloc(1, sizeof(*imsic));

    assert(config->harts >= 1);
    device_init(&imsic->device, &imsic_type, name);
    imsic->count = config->harts;
    imsic->files = aligned_alloc(64, config->harts * sizeof(*imsic->files));
    if (!imsic->files)
        abort();
    memset(imsic->files, 0, config->harts * sizeof(*imsic->files));
    for (unsigned i = 0; i < config->harts; i++)
        imsic->files[i].notify = config->notify[i];
    return imsic;
}

struct device *imsic_device(struct imsic *imsic)
{
    return &imsic->device;
}
