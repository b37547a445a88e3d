/*
 * The configuration space that the guest sees: the device's identity and those capabilities that a
 * guest may use, at their offsets; the rest reads as zero. Registers that steer the function as a
 * whole (BARs, decoding, power, the link) are the guest's to write and never reach the device, as
 * the host relies on them; vendors' capabilities do.
 */
#include "passthrough/vfio_parts.h"

/* The type 0 header and capabilities (PCI Express Base 6.0, sections 7.5.1 and 7.5). */
enum {
    VENDOR_ID = 0x00,
    COMMAND = 0x04,
    STATUS = 0x06,
    REVISION = 0x08,
    HEADER_TYPE = 0x0e,
    BAR_0 = 0x10,
    SUBSYSTEM = 0x2c,
    CAPABILITIES = 0x34,
    INTERRUPT_PIN = 0x3d,
    HEADER_END = 0x40,

    POWER_CAPABILITIES = 2,
    POWER_CONTROL = 4,
    POWER_SIZE = 8,

    EXPRESS_FLAGS = 2,
    EXPRESS_DEVICE = 4,
    EXPRESS_DEVICE_CONTROL = 8,
    EXPRESS_DEVICE_STATUS = 10,
    EXPRESS_LINK_CONTROL = 16,
    EXPRESS_DEVICE_CONTROL_2 = 40,
    EXPRESS_LINK_CONTROL_2 = 48,
    EXPRESS_SIZE_1 = 20,
    EXPRESS_SIZE = 60,

    MSIX_CONTROL = 2,
    MSIX_TABLE = 4,
    MSIX_PENDING = 8,
    MSIX_SIZE = 12,
};

#define COMMAND_IO          0x1
#define COMMAND_MEMORY      0x2
#define COMMAND_MASTER      0x4
#define STATUS_CAPABILITIES 0x10
#define POWER_PME           0xf800
#define POWER_STATE         0x0003
#define POWER_KEEPS_STATE   0x0008
#define EXPRESS_FLR         (UINT32_C(1) << 28)
#define EXPRESS_START_FLR   0x8000

static void put16(uint8_t *bytes, unsigned offset, uint16_t value)
{
    store_le16(bytes + offset, value);
}

/* --- Capabilities ----------------------------------------------------------------------------- */

/* Each takes over a capability at `at`, and returns its size; 0: the guest does not see it. */

/* The function stays in D0, in which the host left it: states only change in the register. */
static unsigned show_power(struct vfio_device *self, unsigned at)
{
    uint16_t able = load_le16(self->physical + at + POWER_CAPABILITIES);

    put16(self->pci.config, at + POWER_CAPABILITIES, able & ~POWER_PME);
    put16(self->pci.config, at + POWER_CONTROL, POWER_KEEPS_STATE);
    put16(self->pci.writable, at + POWER_CONTROL, POWER_STATE);
    return POWER_SIZE;
}

static unsigned show_msi(struct vfio_device *self, unsigned at)
{
    uint16_t control = load_le16(self->physical + at + 2);

    if (!self->config.messages || !self->irqs[VFIO_IRQ_MSI].count || bits_get(control, 1, 3) > 5 ||
        self->pci.msi || at + pci_msi_size(control) > CONFIG_SIZE)
        return 0;
    put16(self->pci.config, at + 2, control);
    pci_msi_adopt(&self->msi, &self->pci, at);
    return pci_msi_size(control);
}

/* A range of a BAR that a register of MSI-X tells; false if there is no such thing. */
static bool msix_range(struct vfio_device *self, uint32_t value, uint64_t size,
                       struct vfio_bar **bar, struct vfio_range *range)
{
    unsigned index = value & 7;

    *range = (struct vfio_range){value & ~UINT32_C(7), size};
    if (index >= VFIO_BARS)
        return false;
    *bar = &self->bars[index];
    return self->pci.bars[index].kind >= PCI_BAR_MEMORY32 &&
           range_fits(range->start, size, (*bar)->size);
}

static unsigned show_msix(struct vfio_device *self, unsigned at)
{
    unsigned count = (load_le16(self->physical + at + MSIX_CONTROL) & 0x7ff) + 1;
    unsigned there = self->irqs[VFIO_IRQ_MSIX].count;
    struct vfio_bar *table_bar, *pending_bar;
    struct vfio_range table, pending;

    if (!self->config.messages || !there || self->pci.msix)
        return 0;
    count = count < there ? count : there;
    if (!msix_range(self, load_le32(self->physical + at + MSIX_TABLE), count * UINT64_C(16),
                    &table_bar, &table) ||
        !msix_range(self, load_le32(self->physical + at + MSIX_PENDING),
                    (count + 63) / 64 * UINT64_C(8), &pending_bar, &pending)) {
        log_warning("%s: its MSI-X is left out: the table is in no BAR", self->vfio->name);
        return 0;
    }
    table_bar->table = table;
    pending_bar->pending = pending;
    memcpy(self->pci.config + at, self->physical + at, MSIX_SIZE);
    pci_msix_adopt(&self->msix, &self->pci, at, count);
    return MSIX_SIZE;
}

static unsigned show_express(struct vfio_device *self, unsigned at)
{
    static const struct {
        uint8_t offset;
        uint16_t writable;
    } registers[] = {
        {EXPRESS_DEVICE_CONTROL, 0x7fff},
        {EXPRESS_LINK_CONTROL, 0x01cb}, /* ASPM, common clock, extended synch, power of the clock */
        {EXPRESS_DEVICE_CONTROL_2, 0x03ff},
        {EXPRESS_LINK_CONTROL_2, 0x000f},
    };
    bool second = (load_le16(self->physical + at + EXPRESS_FLAGS) & 0xf) >= 2;
    unsigned size = second ? EXPRESS_SIZE : EXPRESS_SIZE_1;

    if (self->express || at + size > CONFIG_SIZE)
        return 0;
    self->express = at;
    memcpy(self->pci.config + at, self->physical + at, size);
    put16(self->pci.config, at + EXPRESS_DEVICE_STATUS, 0);
    for (size_t i = 0; i < ARRAY_SIZE(registers); i++)
        if (registers[i].offset < size)
            put16(self->pci.writable, at + registers[i].offset, registers[i].writable);
    if (load_le32(self->physical + at + EXPRESS_DEVICE) & EXPRESS_FLR)
        self->flr = at + EXPRESS_DEVICE_CONTROL;
    return size;
}

static unsigned show_vendor(struct vfio_device *self, unsigned at)
{
    unsigned size = self->physical[at + 2];

    if (size < 3 || at + size > CONFIG_SIZE)
        return 0;
    memcpy(self->pci.config + at, self->physical + at, size);
    memset(self->live + at + 2, 1, size - 2);
    return size;
}

static const struct {
    uint8_t id;
    unsigned (*show)(struct vfio_device *self, unsigned at);
} capabilities[] = {
    {0x01, show_power},   {0x05, show_msi},  {0x09, show_vendor},
    {0x10, show_express}, {0x11, show_msix},
};

static unsigned show(struct vfio_device *self, unsigned at)
{
    for (size_t i = 0; i < ARRAY_SIZE(capabilities); i++)
        if (capabilities[i].id == self->physical[at])
            return capabilities[i].show(self, at);
    return 0;
}

/* A device's list may be anything: capabilities do not overlap, and lists end. */
static void add_capabilities(struct vfio_device *self)
{
    bool taken[CONFIG_SIZE] = {false};
    unsigned link = CAPABILITIES, at = self->physical[CAPABILITIES] & ~3u;

    for (unsigned i = 0; i < CONFIG_SIZE / 4 && at >= HEADER_END && !taken[at]; i++) {
        unsigned next = self->physical[at + 1] & ~3u;
        unsigned size = at + POWER_SIZE <= CONFIG_SIZE ? show(self, at) : 0;
        taken[at] = true;
        for (unsigned j = at; j < at + size; j++)
            taken[j] = true;
        if (size) {
            self->pci.config[link] = (uint8_t)at;
            self->pci.config[at] = self->physical[at];
            self->pci.config[at + 1] = 0;
            link = at + 1;
            self->pci.config[STATUS] |= STATUS_CAPABILITIES;
        }
        at = next;
    }
}

/* --- Accesses --------------------------------------------------------------------------------- */

static bool is_live(const struct vfio_device *self, unsigned offset)
{
    return offset < CONFIG_SIZE && self->live[offset];
}

static unsigned count_live(const struct vfio_device *self, unsigned offset, unsigned size)
{
    unsigned count = 0;
    for (unsigned i = offset; i < offset + size; i++)
        count += is_live(self, i);
    return count;
}

static uint32_t config_read(struct pci_device *pci, unsigned offset, unsigned size)
{
    struct vfio_device *self = container_of(pci, struct vfio_device, pci);
    uint32_t value = pci_config_read(pci, offset, size);
    uint64_t there;

    if (!count_live(self, offset, size))
        return value;
    self->vfio->ops->read(self->vfio, VFIO_REGION_CONFIG, offset, size, &there);
    for (unsigned i = 0; i < size; i++)
        if (is_live(self, offset + i))
            value = bits_set(value, 8 * i, 8, there >> 8 * i & 0xff);
    return value;
}

static void write_live(struct vfio_device *self, unsigned offset, uint32_t value, unsigned size)
{
    struct vfio *vfio = self->vfio;
    unsigned live = count_live(self, offset, size);

    if (live == size)
        vfio->ops->write(vfio, VFIO_REGION_CONFIG, offset, size, value & size_mask(size));
    else
        for (unsigned i = 0; live && i < size; i++)
            if (is_live(self, offset + i))
                vfio->ops->write(vfio, VFIO_REGION_CONFIG, offset + i, 1, value >> 8 * i & 0xff);
}

/* A guest's driver resets its function: what the guest has set up stays, less what a reset clears
 * (section 6.6.2). */
static void reset_function(struct vfio_device *self)
{
    struct error err;
    struct pci_device *pci = &self->pci;

    interrupt_stop(self);
    if (!self->vfio->ops->reset(self->vfio, &err))
        log_warning("%s", err.message);
    pci_config_write(pci, COMMAND, 0, 2);
    if (pci->msi)
        pci_config_write(pci, self->msi.capability + 2, 0, 2);
    if (pci->msix)
        pci_config_write(pci, self->msix.capability + 2, 0, 2);
}

static void config_write(struct pci_device *pci, unsigned offset, uint32_t value, unsigned size)
{
    struct vfio_device *self = container_of(pci, struct vfio_device, pci);
    unsigned start_byte = self->flr + 1; /* the bit is in the upper one */

    write_live(self, offset, value, size);
    pci_config_write(pci, offset, value, size);
    if (self->flr && offset <= start_byte && offset + size > start_byte &&
        value >> 8 * (start_byte - offset) & EXPRESS_START_FLR >> 8)
        reset_function(self);
    interrupt_follow(self);
}

/* The kernel lets a mapped BAR fault while decoding is off, which another hart might meet: for the
 * guest it is off when the BAR is not in its address space. */
void config_send_command(struct vfio_device *self)
{
    uint16_t command = COMMAND_IO | COMMAND_MEMORY;

    if (self->pci.bus_master)
        command |= COMMAND_MASTER;
    self->vfio->ops->write(self->vfio, VFIO_REGION_CONFIG, COMMAND, 2, command);
}

static void command_changed(struct pci_device *pci)
{
    config_send_command(container_of(pci, struct vfio_device, pci));
}

static bool bar_moved(struct pci_device *pci, unsigned bar, uint64_t from, uint64_t to)
{
    return region_move(container_of(pci, struct vfio_device, pci), bar, from, to);
}

static const struct pci_device_type vfio_pci_type = {
    .name = "vfio-pci",
    .config_read = config_read,
    .config_write = config_write,
    .command_changed = command_changed,
    .bar_moved = bar_moved,
};

/* --- Building --------------------------------------------------------------------------------- */

static bool read_physical(struct vfio_device *self, struct error *err)
{
    for (unsigned at = 0; at < CONFIG_SIZE; at += 4) {
        uint64_t value;
        if (!self->vfio->ops->read(self->vfio, VFIO_REGION_CONFIG, at, 4, &value))
            return error_set(err, "%s does not show its configuration space: it may be gone",
                             self->vfio->name);
        store_le32(self->physical + at, (uint32_t)value);
    }
    if (load_le16(self->physical + VENDOR_ID) == 0xffff)
        return error_set(err, "%s does not answer: it may be gone, or asleep for good",
                         self->vfio->name);
    if (self->physical[HEADER_TYPE] & 0x7f)
        return error_set(err, "%s is a bridge: give the devices behind it", self->vfio->name);
    return true;
}

static bool add_bars(struct vfio_device *self, struct error *err)
{
    for (unsigned i = 0; i < VFIO_BARS; i++) {
        bool wide;
        if (!region_add_bar(self, i, load_le32(self->physical + BAR_0 + 4 * i), &wide, err))
            return false;
        i += wide;
    }
    return region_add_rom(self, err);
}

bool config_build(struct vfio_device *self, struct error *err)
{
    struct vfio_region region;

    if (!self->vfio->ops->region(self->vfio, VFIO_REGION_CONFIG, &region, err) ||
        !read_physical(self, err))
        return false;
    const uint8_t *physical = self->physical;
    unsigned pin = physical[INTERRUPT_PIN];
    const struct pci_identity identity = {
        .vendor = load_le16(physical + VENDOR_ID),
        .device = load_le16(physical + VENDOR_ID + 2),
        .subsystem_vendor = load_le16(physical + SUBSYSTEM),
        .subsystem = load_le16(physical + SUBSYSTEM + 2),
        .class_code = load_le32(physical + REVISION) >> 8,
        .revision = physical[REVISION],
        .interrupt_pin = pin <= 4 && self->irqs[VFIO_IRQ_INTX].count ? pin : 0,
    };
    pci_device_init(&self->pci, &vfio_pci_type, &identity);
    if (!add_bars(self, err))
        return false;
    add_capabilities(self);
    region_map(self);
    return true;
}
