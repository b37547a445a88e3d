/* Message-signalled interrupts: MSI-X and MSI (PCI Express Base 6.0, sections 6.1.4, 7.7.1, 7.7.2).
 */
#include <assert.h>
#include <stdlib.h>

#include "pci/internal.h"

#define CAPABILITY_MSI  0x05
#define CAPABILITY_MSIX 0x11

enum {
    CONTROL = 2, /* of either capability */

    MSIX_TABLE = 4,
    MSIX_PENDING = 8,
    MSIX_SIZE = 12,

    MSI_ADDRESS = 4,
    MSI_SIZE = 24, /* with 64-bit addresses and a mask */
};

#define MSIX_ENABLE     0x8000
#define MSIX_MASK_ALL   0x4000
#define MSI_ENABLE      0x0001
#define MSI_CAPABLE     0x000e /* log2 of the vectors that the function asks for */
#define MSI_GRANTED     0x0070
#define MSI_64_BITS     0x0080
#define MSI_VECTOR_MASK 0x0100

/* An entry of the table (section 7.7.2). */
enum { ENTRY_ADDRESS = 0, ENTRY_DATA = 8, ENTRY_CONTROL = 12, ENTRY_SIZE = 16 };
#define ENTRY_MASKED 1

static void send(struct pci_device *device, uint64_t address, uint32_t data)
{
    /* Without bus mastering a function sends nothing (section 7.5.1.1.3). */
    if (device->bus && device->bus_master &&
        !memory_send_message(device->bus->host->memory, address, data))
        trace_guest_error("pci", "%s sends a message to %#llx, where nothing takes it",
                          device->type->name, (unsigned long long)address);
}

/* --- MSI-X ------------------------------------------------------------------------------------ */

static uint8_t *entry_of(const struct pci_msix *msix, unsigned vector)
{
    return msix->table + (size_t)vector * ENTRY_SIZE;
}

static bool is_masked(const struct pci_msix *msix, unsigned vector)
{
    return msix->masked || (entry_of(msix, vector)[ENTRY_CONTROL] & ENTRY_MASKED);
}

static void send_entry(const struct pci_msix *msix, unsigned vector)
{
    const uint8_t *entry = entry_of(msix, vector);

    send(msix->device, load_le64(entry + ENTRY_ADDRESS), load_le32(entry + ENTRY_DATA));
}

/* What was held back goes out as soon as nothing masks it. Lock held. */
static void send_pending(struct pci_msix *msix, unsigned vector)
{
    uint64_t bit = BIT(vector % 64);

    if (!msix->enabled || is_masked(msix, vector) || !(msix->pending[vector / 64] & bit))
        return;
    msix->pending[vector / 64] &= ~bit;
    send_entry(msix, vector);
}

void pci_msix_send(struct pci_msix *msix, unsigned vector)
{
    if (vector >= msix->count)
        return;
    pthread_mutex_lock(&msix->lock);
    if (!msix->enabled)
        ; /* the function has its line instead */
    else if (is_masked(msix, vector))
        msix->pending[vector / 64] |= BIT(vector % 64);
    else
        send_entry(msix, vector);
    pthread_mutex_unlock(&msix->lock);
}

bool pci_msix_enabled(const struct pci_msix *msix)
{
    return msix->enabled;
}

uint32_t pci_msix_table_read(struct pci_msix *msix, uint64_t offset)
{
    uint32_t value = 0;

    pthread_mutex_lock(&msix->lock);
    if (offset < (uint64_t)msix->count * ENTRY_SIZE)
        value = load_le32(msix->table + align_down(offset, 4));
    pthread_mutex_unlock(&msix->lock);
    return value;
}

uint32_t pci_msix_pending_read(struct pci_msix *msix, uint64_t offset)
{
    uint32_t value = 0;

    pthread_mutex_lock(&msix->lock);
    if (offset / 8 < msix->pending_words)
        value = msix->pending[offset / 8] >> (offset & 4) * 8;
    pthread_mutex_unlock(&msix->lock);
    return value;
}

static uint64_t msix_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_msix *msix = opaque;

    return offset < msix->pending_offset
               ? pci_msix_table_read(msix, offset)
               : pci_msix_pending_read(msix, offset - msix->pending_offset);
}

void pci_msix_table_write(struct pci_msix *msix, uint64_t offset, uint32_t value)
{
    if (offset >= (uint64_t)msix->count * ENTRY_SIZE)
        return;
    offset = align_down(offset, 4);
    pthread_mutex_lock(&msix->lock);
    if (offset % ENTRY_SIZE == ENTRY_ADDRESS)
        value &= ~UINT64_C(3);
    else if (offset % ENTRY_SIZE == ENTRY_CONTROL)
        value &= ENTRY_MASKED;
    store_le32(msix->table + offset, value);
    send_pending(msix, offset / ENTRY_SIZE);
    pthread_mutex_unlock(&msix->lock);
}

bool pci_msix_unmasked(struct pci_msix *msix, unsigned vector)
{
    pthread_mutex_lock(&msix->lock);
    bool unmasked = msix->enabled && vector < msix->count &&
                    !(entry_of(msix, vector)[ENTRY_CONTROL] & ENTRY_MASKED);
    pthread_mutex_unlock(&msix->lock);
    return unmasked;
}

/* Pending bits are read-only. */
static void msix_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    pci_msix_table_write(opaque, offset, (uint32_t)value);
}

static const struct mmio_ops msix_ops = {
    .read = msix_read,
    .write = msix_write,
    .min_size = 4,
    .max_size = 4,
    .split = true,
};

static void msix_clear(struct pci_msix *msix)
{
    memset(msix->table, 0, (size_t)msix->count * ENTRY_SIZE);
    memset(msix->pending, 0, msix->pending_words * sizeof(*msix->pending));
    for (unsigned i = 0; i < msix->count; i++)
        entry_of(msix, i)[ENTRY_CONTROL] = ENTRY_MASKED;
}

void pci_msix_adopt(struct pci_msix *msix, struct pci_device *device, unsigned capability,
                    unsigned vectors)
{
    assert(vectors >= 1 && vectors <= PCI_MSIX_VECTORS_MAX && !device->msix);
    assert(capability + MSIX_SIZE <= PCI_CONVENTIONAL_END);
    *msix = (struct pci_msix){
        .device = device,
        .capability = capability,
        .count = vectors,
        .pending_words = (vectors + 63) / 64,
    };
    pthread_mutex_init(&msix->lock, NULL);
    msix->table = xcalloc(vectors, ENTRY_SIZE);
    msix->pending = xcalloc(msix->pending_words, sizeof(*msix->pending));
    msix_clear(msix);
    store_le16(device->config + capability + CONTROL, vectors - 1);
    store_le16(device->writable + capability + CONTROL, MSIX_ENABLE | MSIX_MASK_ALL);
    device->msix = msix;
}

void pci_msix_init(struct pci_msix *msix, struct pci_device *device, unsigned bar, unsigned vectors)
{
    uint64_t half = 2048;

    while (half < (uint64_t)vectors * ENTRY_SIZE)
        half *= 2;
    pci_msix_adopt(msix, device, pci_add_capability(device, CAPABILITY_MSIX, MSIX_SIZE), vectors);
    msix->pending_offset = half;
    uint8_t *capability = device->config + msix->capability;
    store_le32(capability + MSIX_TABLE, bar);
    store_le32(capability + MSIX_PENDING, half | bar);
    pci_add_bar(device, bar, PCI_BAR_MEMORY32, false, 2 * half, &msix_ops, msix);
}

void pci_msix_finish(struct pci_msix *msix)
{
    pthread_mutex_destroy(&msix->lock);
    free(msix->table);
    free(msix->pending);
}

static bool msix_apply(struct pci_msix *msix)
{
    uint16_t control = load_le16(msix->device->config + msix->capability + CONTROL);

    pthread_mutex_lock(&msix->lock);
    msix->enabled = control & MSIX_ENABLE;
    msix->masked = control & MSIX_MASK_ALL;
    for (unsigned i = 0; i < msix->pending_words; i++)
        for (uint64_t left = msix->pending[i]; left; left &= left - 1)
            send_pending(msix, i * 64 + (unsigned)__builtin_ctzll(left));
    pthread_mutex_unlock(&msix->lock);
    return control & MSIX_ENABLE;
}

static void msix_state(struct pci_msix *msix, struct stream *stream)
{
    pthread_mutex_lock(&msix->lock);
    stream_bytes(stream, msix->table, (size_t)msix->count * ENTRY_SIZE);
    stream_u64_array(stream, msix->pending, msix->pending_words);
    for (unsigned i = 0; i < msix->count; i++) {
        uint8_t *entry = entry_of(msix, i);
        entry[ENTRY_ADDRESS] &= ~3;
        store_le32(entry + ENTRY_CONTROL, entry[ENTRY_CONTROL] & ENTRY_MASKED);
    }
    if (msix->count % 64)
        msix->pending[msix->pending_words - 1] &= BIT(msix->count % 64) - 1;
    pthread_mutex_unlock(&msix->lock);
}

/* --- MSI -------------------------------------------------------------------------------------- */

static unsigned enabled_vectors(uint16_t control)
{
    unsigned width = bits_get(control, 4, 3); /* Multiple Message Enable; 6 and 7 are reserved */
    return 1U << (width > 5 ? 5 : width);
}

static void send_vector(const struct pci_msi *msi, unsigned vector)
{
    send(msi->device, msi->address, (msi->data & ~(msi->vectors - 1)) | vector);
}

/* A function that got fewer vectors than it asked for folds its own over them. */
void pci_msi_send(struct pci_msi *msi, unsigned vector)
{
    pthread_mutex_lock(&msi->lock);
    vector &= msi->vectors - 1;
    if (!msi->enabled)
        ; /* the function has its line instead */
    else if (msi->mask >> vector & 1)
        msi->pending |= UINT32_C(1) << vector;
    else
        send_vector(msi, vector);
    pthread_mutex_unlock(&msi->lock);
}

bool pci_msi_enabled(const struct pci_msi *msi)
{
    return msi->enabled;
}

unsigned pci_msi_size(uint16_t control)
{
    return 10 + (control & MSI_64_BITS ? 4 : 0) + (control & MSI_VECTOR_MASK ? 10 : 0);
}

void pci_msi_adopt(struct pci_msi *msi, struct pci_device *device, unsigned capability)
{
    uint8_t *registers = device->config + capability, *writable = device->writable + capability;
    uint16_t control =
        load_le16(registers + CONTROL) & (MSI_64_BITS | MSI_VECTOR_MASK | MSI_CAPABLE);
    unsigned vectors = 1u << bits_get(control, 1, 3);

    assert(vectors <= 32 && !device->msi);
    assert(capability + pci_msi_size(control) <= PCI_CONVENTIONAL_END);
    *msi = (struct pci_msi){.device = device, .capability = capability, .vectors = 1};
    pthread_mutex_init(&msi->lock, NULL);
    msi->data_at = capability + (control & MSI_64_BITS ? 12 : 8);
    msi->mask_at = control & MSI_VECTOR_MASK ? msi->data_at + 4 : 0;
    memset(registers + CONTROL, 0, pci_msi_size(control) - CONTROL);
    store_le16(registers + CONTROL, control);
    store_le16(writable + CONTROL, MSI_ENABLE | MSI_GRANTED);
    store_le32(writable + MSI_ADDRESS, ~UINT32_C(3));
    if (control & MSI_64_BITS)
        store_le32(writable + MSI_ADDRESS + 4, UINT32_MAX);
    store_le16(device->writable + msi->data_at, UINT16_MAX);
    if (msi->mask_at)
        store_le32(device->writable + msi->mask_at, (uint32_t)((UINT64_C(1) << vectors) - 1));
    device->msi = msi;
}

void pci_msi_init(struct pci_msi *msi, struct pci_device *device, unsigned vectors)
{
    assert(is_power_of_two(vectors) && vectors <= 32);
    unsigned capability = pci_add_capability(device, CAPABILITY_MSI, MSI_SIZE);
    store_le16(device->config + capability + CONTROL,
               MSI_64_BITS | MSI_VECTOR_MASK | (unsigned)__builtin_ctz(vectors) << 1);
    pci_msi_adopt(msi, device, capability);
}

void pci_msi_finish(struct pci_msi *msi)
{
    pthread_mutex_destroy(&msi->lock);
}

static bool msi_apply(struct pci_msi *msi)
{
    const uint8_t *capability = msi->device->config + msi->capability;
    uint16_t control = load_le16(capability + CONTROL);

    pthread_mutex_lock(&msi->lock);
    msi->enabled = control & MSI_ENABLE;
    msi->vectors = enabled_vectors(control);
    msi->address = control & MSI_64_BITS ? load_le64(capability + MSI_ADDRESS)
                                         : load_le32(capability + MSI_ADDRESS);
    msi->data = load_le16(msi->device->config + msi->data_at);
    msi->mask = msi->mask_at ? load_le32(msi->device->config + msi->mask_at) : 0;
    uint32_t due = msi->enabled ? msi->pending & ~msi->mask : 0;
    msi->pending &= ~due;
    for (; due; due &= due - 1)
        send_vector(msi, (unsigned)__builtin_ctz(due) & (msi->vectors - 1));
    pthread_mutex_unlock(&msi->lock);
    return control & MSI_ENABLE;
}

/* --- Both, for the configuration space -------------------------------------------------------- */

void pci_messages_apply(struct pci_device *device)
{
    bool enabled = false;

    if (device->msix)
        enabled |= msix_apply(device->msix);
    if (device->msi)
        enabled |= msi_apply(device->msi);
    if (enabled == device->messages)
        return;
    device->messages = enabled;
    if (device->bus)
        pci_update_intx(device);
}

void pci_messages_refresh(struct pci_device *device)
{
    struct pci_msi *msi = device->msi;

    if (!msi->mask_at)
        return;
    pthread_mutex_lock(&msi->lock);
    store_le32(device->config + msi->mask_at + 4, msi->pending);
    pthread_mutex_unlock(&msi->lock);
}

void pci_messages_reset(struct pci_device *device)
{
    if (device->msix) {
        pthread_mutex_lock(&device->msix->lock);
        msix_clear(device->msix);
        pthread_mutex_unlock(&device->msix->lock);
    }
    if (device->msi) {
        pthread_mutex_lock(&device->msi->lock);
        device->msi->pending = 0;
        pthread_mutex_unlock(&device->msi->lock);
    }
    pci_messages_apply(device);
}

void pci_messages_state(struct pci_device *device, struct stream *stream)
{
    if (device->msix)
        msix_state(device->msix, stream);
    if (!device->msi)
        return;
    pthread_mutex_lock(&device->msi->lock);
    stream_u32(stream, &device->msi->pending);
    pthread_mutex_unlock(&device->msi->lock);
}
