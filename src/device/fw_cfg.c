/* QEMU's firmware configuration device: items and named files that firmware reads. */
#include <assert.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "device/device.h"

enum {
    REG_DATA = 0,      /* 1..8 bytes of the stream, in memory order */
    REG_SELECTOR = 8,  /* big-endian */
    REG_DMA_HIGH = 16, /* big-endian; writing the low half starts the transfer */
    REG_DMA_LOW = 20,

    ID_TRADITIONAL = 0x1,
    ID_DMA = 0x2,

    DMA_ERROR = 0x01,
    DMA_READ = 0x02,
    DMA_SKIP = 0x04,
    DMA_SELECT = 0x08,
    DMA_WRITE = 0x10,
};

/* What the DMA register reads as: "QEMU CFG". */
#define DMA_SIGNATURE UINT64_C(0x51454d5520434647)

/* A descriptor in guest memory and a directory entry; all fields are big-endian. */
struct fw_cfg_dma {
    uint32_t control, length;
    uint64_t address;
};

struct fw_cfg_entry {
    uint32_t size;
    uint16_t key, reserved;
    char name[FW_CFG_NAME_MAX + 1];
};

struct fw_cfg_item {
    char *name; /* files only */
    uint8_t *data;
    size_t size;
};

struct fw_cfg {
    struct device device; /* its lock guards key, offset and dma_address */
    struct memory *memory;
    /* Constant while harts run: items by key, then files in order of their names. */
    struct fw_cfg_item items[FW_CFG_FILE_FIRST];
    struct fw_cfg_item files[FW_CFG_FILES_MAX];
    unsigned file_count;

    uint16_t key;
    uint32_t offset; /* of the next byte; stops at the item's end */
    uint64_t dma_address;
};

/* Contents. */

static void item_set(struct fw_cfg_item *item, const void *data, size_t size)
{
    free(item->data);
    item->data = xmalloc(size ? size : 1);
    item->size = size;
    if (size)
        memcpy(item->data, data, size);
}

/* The file directory: the number of files, then an entry for each. */
static void directory_build(struct fw_cfg *fw_cfg)
{
    size_t size = sizeof(uint32_t) + fw_cfg->file_count * sizeof(struct fw_cfg_entry);
    uint8_t *directory = xcalloc(1, size);
    uint32_t count = htobe32(fw_cfg->file_count);

    memcpy(directory, &count, sizeof(count));
    for (unsigned i = 0; i < fw_cfg->file_count; i++) {
        struct fw_cfg_entry entry = {
            .size = htobe32((uint32_t)fw_cfg->files[i].size),
            .key = htobe16(FW_CFG_FILE_FIRST + i),
        };
        strcpy(entry.name, fw_cfg->files[i].name);
        memcpy(directory + sizeof(count) + i * sizeof(entry), &entry, sizeof(entry));
    }
    item_set(&fw_cfg->items[FW_CFG_FILE_DIR], directory, size);
    free(directory);
}

void fw_cfg_set_item(struct fw_cfg *fw_cfg, uint16_t key, const void *data, size_t size)
{
    assert(key < FW_CFG_FILE_FIRST && key != FW_CFG_FILE_DIR && size <= UINT32_MAX);
    item_set(&fw_cfg->items[key], data, size);
}

bool fw_cfg_add_file(struct fw_cfg *fw_cfg, const char *file_name, const void *data, size_t size,
                     struct error *err)
{
    unsigned at = 0;

    if (!*file_name || strlen(file_name) > FW_CFG_NAME_MAX)
        return error_set(err, "fw_cfg file '%s': a name has 1 to %d characters", file_name,
                         FW_CFG_NAME_MAX);
    if (size > UINT32_MAX)
        return error_set(err, "fw_cfg file '%s': %zu bytes are more than the limit of 4 GiB",
                         file_name, size);
    if (fw_cfg->file_count == FW_CFG_FILES_MAX)
        return error_set(err, "fw_cfg file '%s': there are %d files already, the limit", file_name,
                         FW_CFG_FILES_MAX);
    while (at < fw_cfg->file_count && strcmp(fw_cfg->files[at].name, file_name) < 0)
        at++;
    if (at < fw_cfg->file_count && !strcmp(fw_cfg->files[at].name, file_name))
        return error_set(err, "fw_cfg file '%s' exists already; choose another name", file_name);

    memmove(&fw_cfg->files[at + 1], &fw_cfg->files[at],
            (fw_cfg->file_count - at) * sizeof(fw_cfg->files[0]));
    fw_cfg->files[at] = (struct fw_cfg_item){.name = xstrdup(file_name)};
    item_set(&fw_cfg->files[at], data, size);
    fw_cfg->file_count++;
    directory_build(fw_cfg);
    return true;
}

/* The selected item; one without bytes for a key that means nothing. */
static const struct fw_cfg_item *item_selected(const struct fw_cfg *fw_cfg)
{
    static const struct fw_cfg_item nothing;

    if (fw_cfg->key < FW_CFG_FILE_FIRST)
        return &fw_cfg->items[fw_cfg->key];
    if (fw_cfg->key - FW_CFG_FILE_FIRST < (int)fw_cfg->file_count)
        return &fw_cfg->files[fw_cfg->key - FW_CFG_FILE_FIRST];
    return &nothing;
}

/* The part of the next `size` bytes that the item has; moves behind it. */
static const uint8_t *item_advance(struct fw_cfg *fw_cfg, uint32_t size, uint32_t *available)
{
    const struct fw_cfg_item *item = item_selected(fw_cfg);
    uint32_t start = fw_cfg->offset < item->size ? fw_cfg->offset : (uint32_t)item->size;
    uint32_t left = (uint32_t)item->size - start;

    *available = size < left ? size : left;
    fw_cfg->offset = start + *available;
    return *available ? item->data + start : NULL;
}

static void item_select(struct fw_cfg *fw_cfg, uint16_t key)
{
    fw_cfg->key = key;
    fw_cfg->offset = 0;
}

/* DMA. */

static bool dma_read(struct fw_cfg *fw_cfg, uint64_t address, uint32_t length)
{
    uint32_t available;
    const uint8_t *data = item_advance(fw_cfg, length, &available);

    /* Behind its end an item reads as zeros. */
    return (!available || memory_dma_write(fw_cfg->memory, address, data, available)) &&
           (available == length ||
            memory_dma_fill(fw_cfg->memory, address + available, 0, length - available));
}

static void dma_run(struct fw_cfg *fw_cfg, uint64_t address)
{
    struct fw_cfg_dma descriptor;

    if (!memory_dma_read(fw_cfg->memory, address, &descriptor, sizeof(descriptor))) {
        trace_guest_error(fw_cfg->device.name, "the DMA descriptor at 0x%llx is not in RAM",
                          (unsigned long long)address);
        return;
    }
    uint32_t control = be32toh(descriptor.control), length = be32toh(descriptor.length);
    uint32_t skipped;
    bool done = true;

    if (control & DMA_SELECT)
        item_select(fw_cfg, control >> 16);
    if (control & DMA_READ)
        done = dma_read(fw_cfg, be64toh(descriptor.address), length);
    else if (control & DMA_WRITE)
        done = false;
    else if (control & DMA_SKIP)
        item_advance(fw_cfg, length, &skipped);
    if (!done)
        trace_guest_error(fw_cfg->device.name, "DMA of %u bytes (control 0x%x) refused", length,
                          control);
    uint32_t result = htobe32(done ? 0 : DMA_ERROR);
    memory_dma_write(fw_cfg->memory, address, &result, sizeof(result));
}

/* Registers. */

static uint64_t fw_cfg_read(void *opaque, uint64_t offset, unsigned size)
{
    struct fw_cfg *fw_cfg = opaque;
    uint8_t bytes[8] = {0};
    uint32_t available;

    if (offset >= REG_DMA_HIGH) {
        uint64_t signature = htobe64(DMA_SIGNATURE);
        return signature >> (offset - REG_DMA_HIGH) * 8;
    }
    if (offset >= REG_SELECTOR)
        return 0;
    device_lock(&fw_cfg->device);
    const uint8_t *data = item_advance(fw_cfg, size, &available);
    if (available)
        memcpy(bytes, data, available);
    device_unlock(&fw_cfg->device);
    return load_le64(bytes);
}

/* Values come as a little-endian hart writes them. The halves of the DMA address may be written
 * one after the other. */
static void fw_cfg_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct fw_cfg *fw_cfg = opaque;

    device_lock(&fw_cfg->device);
    if (offset == REG_SELECTOR && size == 2)
        item_select(fw_cfg, be16toh((uint16_t)value));
    else if (offset == REG_DMA_HIGH && size == 4)
        fw_cfg->dma_address = (uint64_t)be32toh((uint32_t)value) << 32;
    else if (offset == REG_DMA_HIGH && size == 8)
        fw_cfg->dma_address = be64toh(value);
    else if (offset == REG_DMA_LOW && size == 4)
        fw_cfg->dma_address |= be32toh((uint32_t)value);
    else
        trace_guest_error(fw_cfg->device.name, "write of %u bytes at 0x%x", size, (unsigned)offset);
    if (offset + size == FW_CFG_SIZE && size >= 4) {
        uint64_t address = fw_cfg->dma_address;
        fw_cfg->dma_address = 0;
        dma_run(fw_cfg, address);
    }
    device_unlock(&fw_cfg->device);
}

const struct mmio_ops fw_cfg_ops = {
    .read = fw_cfg_read,
    .write = fw_cfg_write,
};

/* Life. */

static void fw_cfg_reset(struct device *device)
{
    struct fw_cfg *fw_cfg = container_of(device, struct fw_cfg, device);

    device_lock(device);
    item_select(fw_cfg, FW_CFG_SIGNATURE);
    fw_cfg->dma_address = 0;
    device_unlock(device);
}

/* The contents come from the machine's configuration, not from the state. */
static void fw_cfg_state(struct device *device, struct stream *stream)
{
    struct fw_cfg *fw_cfg = container_of(device, struct fw_cfg, device);

    stream_begin(stream, "fw_cfg", 1);
    stream_u16(stream, &fw_cfg->key);
    stream_u32(stream, &fw_cfg->offset);
    stream_u64(stream, &fw_cfg->dma_address);
    stream_end(stream);
}

static void fw_cfg_remove(struct device *device)
{
    struct fw_cfg *fw_cfg = container_of(device, struct fw_cfg, device);

    for (size_t i = 0; i < ARRAY_SIZE(fw_cfg->items); i++)
        free(fw_cfg->items[i].data);
    for (unsigned i = 0; i < fw_cfg->file_count; i++) {
        free(fw_cfg->files[i].name);
        free(fw_cfg->files[i].data);
    }
    device_finish(device);
    free(fw_cfg);
}

static const struct device_type fw_cfg_type = {
    .name = "fw-cfg-mmio",
    .reset = fw_cfg_reset,
    .state = fw_cfg_state,
    .remove = fw_cfg_remove,
};

struct fw_cfg *fw_cfg_create(const char *name, const struct fw_cfg_config *config)
{
    struct fw_cfg *fw_cfg = xcalloc(1, sizeof(*fw_cfg));
    uint8_t id[4];

    device_init(&fw_cfg->device, &fw_cfg_type, name);
    fw_cfg->memory = config->memory;
    store_le32(id, ID_TRADITIONAL | ID_DMA);
    fw_cfg_set_item(fw_cfg, FW_CFG_SIGNATURE, "QEMU", 4);
    fw_cfg_set_item(fw_cfg, FW_CFG_ID, id, sizeof(id));
    directory_build(fw_cfg);
    return fw_cfg;
}

struct device *fw_cfg_device(struct fw_cfg *fw_cfg)
{
    return &fw_cfg->device;
}
