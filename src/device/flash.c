/*
 * CFI parallel NOR flash with Intel command set 0x0001: two x16 chips side by side on a 32-bit bus,
 * that always get the same commands (JEDEC JESD68.01, JEP137; Intel's P30 data sheet).
 */
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "device/device.h"
#include "device/flash_file.h"

enum {
    STATUS_READY = 0x80,
    STATUS_ERASE_ERROR = 0x20,
    STATUS_PROGRAM_ERROR = 0x10,
    STATUS_PROTECTED = 0x02,
    STATUS_SEQUENCE_ERROR = STATUS_ERASE_ERROR | STATUS_PROGRAM_ERROR,

    COMMAND_CONFIRM = 0xd0,
    COMMAND_READ_ARRAY = 0xff,
    COMMAND_LOCK = 0x01,

    ID_MANUFACTURER = 0x89,
    ID_DEVICE = 0x18,

    CHIPS = 2,
    CHIP_BUFFER_SHIFT = 11, /* 2 KiB of write buffer a chip */
    BUFFER_SIZE = CHIPS << CHIP_BUFFER_SHIFT,
    QUERY_SIZE = 0x40, /* words of the CFI table, the first 0x10 unused */
};

/* What reads give. */
enum flash_mode { MODE_ARRAY, MODE_STATUS, MODE_ID, MODE_QUERY, MODES };

/* What the next write is. */
enum flash_step {
    STEP_COMMAND,
    STEP_PROGRAM,
    STEP_ERASE_CONFIRM,
    STEP_LOCK_CONFIRM,
    STEP_BUFFER_COUNT,
    STEP_BUFFER_DATA,
    STEP_BUFFER_CONFIRM,
    STEPS,
};

struct flash {
    struct device device; /* its lock guards everything below */
    struct memory *memory;
    uint64_t base;
    struct flash_contents contents;
    uint8_t query[QUERY_SIZE];
    uint8_t *locked;        /* [sectors], 0 or 1 */
    _Atomic bool registers; /* mode is not MODE_ARRAY; written with the lock held */

    uint8_t mode, step, status;
    uint32_t words_left; /* of the buffered write, after the next one */
    bool buffer_wrong;   /* a word of it lay outside the buffer's window */
    uint32_t buffer_base, buffer_low, buffer_high; /* the window; what of it was written */
    uint8_t buffer[BUFFER_SIZE];                   /* 0xff where not written */
};

/* Contents. */

static size_t sector_count(const struct flash *flash)
{
    return flash->contents.size / FLASH_SECTOR_SIZE;
}

static bool sector_protected(const struct flash *flash, size_t sector)
{
    const struct flash_contents *contents = &flash->contents;

    return flash->locked[sector] || contents->read_only ||
           (sector + 1) * FLASH_SECTOR_SIZE > contents->kept;
}

/* Programming turns ones into zeros and never back. At most BUFFER_SIZE bytes, within a sector. */
static void program(struct flash *flash, size_t offset, const uint8_t *bytes, size_t size)
{
    uint8_t result[BUFFER_SIZE];

    flash->status |= STATUS_READY;
    if (sector_protected(flash, offset / FLASH_SECTOR_SIZE)) {
        flash->status |= STATUS_PROGRAM_ERROR | STATUS_PROTECTED;
        return;
    }
    for (size_t i = 0; i < size; i++)
        result[i] = flash->contents.bytes[offset + i] & bytes[i];
    if (!flash_contents_write(&flash->contents, offset, result, size))
        flash->status |= STATUS_PROGRAM_ERROR;
}

static void erase(struct flash *flash, size_t sector)
{
    flash->status |= STATUS_READY;
    if (sector_protected(flash, sector)) {
        flash->status |= STATUS_ERASE_ERROR | STATUS_PROTECTED;
        return;
    }
    uint8_t *blank = xmalloc(FLASH_SECTOR_SIZE);
    memset(blank, 0xff, FLASH_SECTOR_SIZE);
    if (!flash_contents_write(&flash->contents, sector * FLASH_SECTOR_SIZE, blank,
                              FLASH_SECTOR_SIZE))
        flash->status |= STATUS_ERASE_ERROR;
    free(blank);
}

/* Commands. */

struct command {
    uint8_t code;
    uint8_t mode, step;
};

static const struct command commands[] = {
    {0x10, MODE_STATUS, STEP_PROGRAM},
    {0x20, MODE_STATUS, STEP_ERASE_CONFIRM},
    {0x40, MODE_STATUS, STEP_PROGRAM},
    {0x50, MODE_ARRAY, STEP_COMMAND}, /* clear the status register */
    {0x60, MODE_STATUS, STEP_LOCK_CONFIRM},
    {0x70, MODE_STATUS, STEP_COMMAND},
    {0x90, MODE_ID, STEP_COMMAND},
    {0x98, MODE_QUERY, STEP_COMMAND},
    {0xe8, MODE_STATUS, STEP_BUFFER_COUNT},
    {0xf0, MODE_ARRAY, STEP_COMMAND}, /* the reset of AMD's command set: drivers probe with it */
    {COMMAND_READ_ARRAY, MODE_ARRAY, STEP_COMMAND},
};

/* What does not begin a command returns to reading. */
static void step_command(struct flash *flash, uint32_t offset, uint32_t value, unsigned size)
{
    flash->mode = MODE_ARRAY;
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (commands[i].code != (value & 0xff))
            continue;
        flash->mode = commands[i].mode;
        flash->step = commands[i].step;
        if (commands[i].code == 0x50)
            flash->status = STATUS_READY;
        return;
    }
    trace_guest_error(flash->device.name, "unknown command 0x%x at 0x%x", value, offset);
}

static void step_program(struct flash *flash, uint32_t offset, uint32_t value, unsigned size)
{
    uint8_t bytes[4];

    store_le32(bytes, value);
    flash->step = STEP_COMMAND;
    program(flash, offset, bytes, size);
}

/* The second write of a command was none that can follow. */
static void sequence_error(struct flash *flash, uint32_t value)
{
    flash->step = STEP_COMMAND;
    if ((value & 0xff) == COMMAND_READ_ARRAY)
        flash->mode = MODE_ARRAY;
    else
        flash->status |= STATUS_READY | STATUS_SEQUENCE_ERROR;
}

static void step_erase_confirm(struct flash *flash, uint32_t offset, uint32_t value, unsigned size)
{
    if ((value & 0xff) != COMMAND_CONFIRM) {
        sequence_error(flash, value);
        return;
    }
    flash->step = STEP_COMMAND;
    erase(flash, offset / FLASH_SECTOR_SIZE);
}

static void step_lock_confirm(struct flash *flash, uint32_t offset, uint32_t value, unsigned size)
{
    uint8_t code = value & 0xff;

    if (code != COMMAND_LOCK && code != COMMAND_CONFIRM) {
        sequence_error(flash, value);
        return;
    }
    flash->step = STEP_COMMAND;
    flash->status |= STATUS_READY;
    flash->locked[offset / FLASH_SECTOR_SIZE] = code == COMMAND_LOCK;
}

/* The count is that of bus words, less one, and each chip gets it. */
static void step_buffer_count(struct flash *flash, uint32_t offset, uint32_t value, unsigned size)
{
    uint32_t count = value & 0xffff;

    if (count >= BUFFER_SIZE / FLASH_BANK_WIDTH) {
        flash->step = STEP_COMMAND;
        flash->status |= STATUS_READY | STATUS_SEQUENCE_ERROR;
        trace_guest_error(flash->device.name, "buffered write of %u words", count + 1);
        return;
    }
    flash->words_left = count;
    flash->buffer_wrong = false;
    flash->buffer_base = 0;
    flash->buffer_low = BUFFER_SIZE;
    flash->buffer_high = 0;
    memset(flash->buffer, 0xff, sizeof(flash->buffer));
    flash->step = STEP_BUFFER_DATA;
}

static void step_buffer_data(struct flash *flash, uint32_t offset, uint32_t value, unsigned size)
{
    if (!flash->buffer_high && !flash->buffer_wrong)
        flash->buffer_base = (uint32_t)align_down(offset, BUFFER_SIZE);
    uint32_t at = offset - flash->buffer_base;
    if (at < BUFFER_SIZE) {
        store_le(&flash->buffer[at], value, size);
        flash->buffer_low = at < flash->buffer_low ? at : flash->buffer_low;
        flash->buffer_high = at + size > flash->buffer_high ? at + size : flash->buffer_high;
    } else {
        flash->buffer_wrong = true;
    }
    if (!flash->words_left--)
        flash->step = STEP_BUFFER_CONFIRM;
}

static void step_buffer_confirm(struct flash *flash, uint32_t offset, uint32_t value, unsigned size)
{
    if ((value & 0xff) != COMMAND_CONFIRM || flash->buffer_wrong) {
        sequence_error(flash, value);
        return;
    }
    flash->step = STEP_COMMAND;
    program(flash, flash->buffer_base + flash->buffer_low, flash->buffer + flash->buffer_low,
            flash->buffer_high - flash->buffer_low);
}

static void (*const steps[STEPS])(struct flash *flash, uint32_t offset, uint32_t value,
                                  unsigned size) = {
    [STEP_COMMAND] = step_command,
    [STEP_PROGRAM] = step_program,
    [STEP_ERASE_CONFIRM] = step_erase_confirm,
    [STEP_LOCK_CONFIRM] = step_lock_confirm,
    [STEP_BUFFER_COUNT] = step_buffer_count,
    [STEP_BUFFER_DATA] = step_buffer_data,
    [STEP_BUFFER_CONFIRM] = step_buffer_confirm,
};

/* Registers. */

/*
 * Tells memory/ what reads of the bank are. Harts may be waited for there, so no lock is held; two
 * writers may get here in any order, but the last one to call sees the last value.
 */
static void mode_apply(struct flash *flash)
{
    bool registers;

    do {
        registers = flash->registers;
        memory_set_rom_mode(flash->memory, flash->base, registers);
    } while (registers != flash->registers);
}

static void flash_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct flash *flash = opaque;

    device_lock(&flash->device);
    steps[flash->step](flash, (uint32_t)offset, (uint32_t)value, size);
    bool registers = flash->mode != MODE_ARRAY;
    bool changed = registers != flash->registers;
    flash->registers = registers;
    device_unlock(&flash->device);
    if (changed)
        mode_apply(flash);
}

/* The 16-bit value that each chip puts on the bus for word `word` of its own address space. */
static uint16_t chip_read(const struct flash *flash, uint32_t word)
{
    uint32_t word_in_sector = word % (FLASH_SECTOR_SIZE / FLASH_BANK_WIDTH);

    switch (flash->mode) {
    case MODE_STATUS:
        return flash->status;
    case MODE_ID:
        if (word_in_sector == 2)
            return flash->locked[word / (FLASH_SECTOR_SIZE / FLASH_BANK_WIDTH)];
        return word_in_sector == 0 ? ID_MANUFACTURER : word_in_sector == 1 ? ID_DEVICE : 0;
    default:
        return word < QUERY_SIZE ? flash->query[word] : 0;
    }
}

static uint64_t flash_read(void *opaque, uint64_t offset, unsigned size)
{
    struct flash *flash = opaque;
    uint8_t bytes[8];

    device_lock(&flash->device);
    for (unsigned i = 0; i < size; i++) {
        uint32_t at = (uint32_t)offset + i;
        bytes[i] = flash->mode == MODE_ARRAY
                       ? flash->contents.bytes[at]
                       : chip_read(flash, at / FLASH_BANK_WIDTH) >> at % 2 * 8;
    }
    device_unlock(&flash->device);
    return load_le(bytes, size);
}

static const struct mmio_ops flash_ops = {
    .read = flash_read,
    .write = flash_write,
    .max_size = FLASH_BANK_WIDTH,
    .split = true,
};

/* The table that a query shows (JESD68.01, table 1, and Intel's extension), a byte a word. */
static void query_fill(struct flash *flash)
{
    static const uint8_t fixed[QUERY_SIZE] = {
        [0x10] = 'Q',  'R',  'Y', /* then the command set: Intel extended */
        [0x13] = 0x01, 0x00, 0x31,
        0x00,                /* and where its own table is */
        [0x1b] = 0x45, 0x55, /* Vcc 4.5 to 5.5 V, no Vpp */
        [0x1f] = 0x07, 0x07, 0x0a,
        0x00, /* typical times: 128 us, 128 us, 1 s */
        [0x23] = 0x04, 0x04, 0x04,
        0x00,                                   /* the longest: 16 times as much */
        [0x28] = 0x02, 0x00, CHIP_BUFFER_SHIFT, /* x8/x16; the write buffer */
        [0x2c] = 0x01,                          /* one region of equal sectors */
        [0x31] = 'P',  'R',  'I',
        '1',           '0', /* nothing optional */
        [0x3f] = 0x01,
    };
    size_t last_sector = sector_count(flash) - 1;

    memcpy(flash->query, fixed, sizeof(fixed));
    flash->query[0x27] = (uint8_t)__builtin_ctzll(flash->contents.size / CHIPS);
    store_le16(&flash->query[0x2d], (uint16_t)last_sector);
    store_le16(&flash->query[0x2f], FLASH_SECTOR_SIZE / CHIPS / 256);
}

/* Life. */

static void flash_reset(struct device *device)
{
    struct flash *flash = container_of(device, struct flash, device);

    device_lock(device);
    flash->mode = MODE_ARRAY;
    flash->step = STEP_COMMAND;
    flash->status = STATUS_READY;
    flash->registers = false;
    memset(flash->locked, 0, sector_count(flash));
    device_unlock(device);
    mode_apply(flash);
}

static bool is_blank(const uint8_t *bytes, size_t size)
{
    return bytes[0] == 0xff && !memcmp(bytes, bytes + 1, size - 1);
}

/* A loaded sector must go where the guest's later writes go, so it is refused where none can. */
static void sector_load(struct flash *flash, struct stream *stream, size_t offset,
                        const uint8_t *bytes)
{
    struct flash_contents *contents = &flash->contents;

    if (stream_failed(stream) || !memcmp(contents->bytes + offset, bytes, FLASH_SECTOR_SIZE))
        return;
    if (contents->read_only || offset + FLASH_SECTOR_SIZE > contents->kept)
        stream_fail(stream, "%s: the image does not hold what the state was saved with",
                    flash->device.name);
    else if (!flash_contents_write(contents, offset, bytes, FLASH_SECTOR_SIZE))
        stream_fail(stream, "%s: the image cannot be written", flash->device.name);
}

static void sectors_state(struct flash *flash, struct stream *stream)
{
    uint8_t *bytes = xmalloc(FLASH_SECTOR_SIZE);

    for (size_t i = 0; i < sector_count(flash) && !stream_failed(stream); i++) {
        size_t offset = i * FLASH_SECTOR_SIZE;
        memcpy(bytes, flash->contents.bytes + offset, FLASH_SECTOR_SIZE);
        bool blank = is_blank(bytes, FLASH_SECTOR_SIZE);
        stream_bool(stream, &blank);
        if (!blank)
            stream_bytes(stream, bytes, FLASH_SECTOR_SIZE);
        else
            memset(bytes, 0xff, FLASH_SECTOR_SIZE);
        if (stream_loading(stream))
            sector_load(flash, stream, offset, bytes);
    }
    free(bytes);
}

/* What a loaded state may not be, lest it leads out of the bank or the buffer. */
static bool state_valid(const struct flash *flash)
{
    bool buffered = flash->step == STEP_BUFFER_DATA || flash->step == STEP_BUFFER_CONFIRM;
    bool empty = flash->buffer_low == BUFFER_SIZE && flash->buffer_high == 0;

    if (flash->mode >= MODES || flash->step >= STEPS)
        return false;
    if (!buffered)
        return true;
    if (flash->words_left != UINT32_MAX && flash->words_left >= BUFFER_SIZE / FLASH_BANK_WIDTH)
        return false;
    if (flash->buffer_base % BUFFER_SIZE || flash->buffer_base >= flash->contents.size)
        return false;
    if (empty)
        return flash->step == STEP_BUFFER_DATA || flash->buffer_wrong;
    return flash->buffer_high <= BUFFER_SIZE && flash->buffer_low < flash->buffer_high;
}

static void flash_state(struct device *device, struct stream *stream)
{
    struct flash *flash = container_of(device, struct flash, device);
    uint64_t size = flash->contents.size;

    stream_begin(stream, "flash", 1);
    stream_u64(stream, &size);
    if (size != flash->contents.size)
        stream_fail(stream, "%s: the state has %llu bytes, the bank %zu", device->name,
                    (unsigned long long)size, flash->contents.size);
    sectors_state(flash, stream);
    stream_bytes(stream, flash->locked, sector_count(flash));
    stream_u8(stream, &flash->mode);
    stream_u8(stream, &flash->step);
    stream_u8(stream, &flash->status);
    stream_u32(stream, &flash->words_left);
    stream_bool(stream, &flash->buffer_wrong);
    stream_u32(stream, &flash->buffer_base);
    stream_u32(stream, &flash->buffer_low);
    stream_u32(stream, &flash->buffer_high);
    stream_bytes(stream, flash->buffer, sizeof(flash->buffer));
    stream_end(stream);
    if (!stream_loading(stream))
        return;
    for (size_t i = 0; i < sector_count(flash); i++)
        flash->locked[i] &= 1;
    if (!state_valid(flash)) {
        stream_fail(stream, "%s: the command in progress is out of range", device->name);
        flash->mode = MODE_ARRAY;
        flash->step = STEP_COMMAND;
    }
    flash->registers = flash->mode != MODE_ARRAY;
    mode_apply(flash);
}

static void flash_quiesce(struct device *device)
{
    struct flash *flash = container_of(device, struct flash, device);

    device_lock(device);
    flash_contents_sync(&flash->contents);
    device_unlock(device);
}

static void flash_free(struct flash *flash)
{
    flash_contents_finish(&flash->contents);
    free(flash->locked);
    device_finish(&flash->device);
    free(flash);
}

static void flash_remove(struct device *device)
{
    flash_free(container_of(device, struct flash, device));
}

static const struct device_type flash_type = {
    .name = "cfi-flash",
    .reset = flash_reset,
    .state = flash_state,
    .remove = flash_remove,
    .quiesce = flash_quiesce,
};

struct flash *flash_create(const char *name, const struct flash_config *config, struct error *err)
{
    struct flash_contents contents;

    assert(is_power_of_two(config->size) && config->size >= FLASH_SECTOR_SIZE &&
           config->size <= UINT32_MAX / 2 && config->base % FLASH_SECTOR_SIZE == 0);
    if (!flash_contents_init(&contents, config->size, config->file, config->read_only, err))
        return NULL;
    struct flash *flash = xcalloc(1, sizeof(*flash));
    device_init(&flash->device, &flash_type, name);
    flash->memory = config->memory;
    flash->base = config->base;
    flash->contents = contents;
    flash->status = STATUS_READY;
    flash->locked = xcalloc(sector_count(flash), 1);
    query_fill(flash);
    if (!memory_add_rom(config->memory, config->base, config->size, contents.bytes, &flash_ops,
                        flash, err)) {
        flash_free(flash);
        return NULL;
    }
    return flash;
}

struct device *flash_device(struct flash *flash)
{
    return &flash->device;
}

const uint8_t *flash_contents(const struct flash *flash)
{
    return flash->contents.bytes;
}
