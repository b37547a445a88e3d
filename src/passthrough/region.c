/*
 * BARs and the expansion ROM. An access of the guest's becomes one of the host's, of the same
 * width: by the hart itself where the BAR is mapped, else by the kernel. MSI-X's table and pending
 * bits are ours: messages go to the guest's interrupt files, which the device cannot reach.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "passthrough/vfio_parts.h"

#define BAR_IO       0x1
#define BAR_TYPE_64  0x4
#define BAR_PREFETCH 0x8
#define ENTRY_SIZE   16
#define ROM_MIN      2048

/* --- Accesses --------------------------------------------------------------------------------- */

static bool within(const struct vfio_range *range, uint64_t offset)
{
    return offset - range->start < range->size;
}

/* Table and pending bits are made of words. */
static uint64_t read_words(struct vfio_bar *bar, uint64_t offset, unsigned size)
{
    struct pci_msix *msix = &bar->device->msix;
    bool table = within(&bar->table, offset);
    uint64_t from = align_down(offset, 4), value = 0;

    offset -= from;
    from -= table ? bar->table.start : bar->pending.start;
    for (unsigned i = 0; i < size; i += 4)
        value |= (uint64_t)(table ? pci_msix_table_read(msix, from + i)
                                  : pci_msix_pending_read(msix, from + i))
                 << 8 * i;
    return value >> 8 * offset & size_mask(size);
}

/* Drivers write whole words (PCI Express Base 6.0, section 7.7.2); pending bits are read-only. */
static void write_words(struct vfio_bar *bar, uint64_t offset, uint64_t value, unsigned size)
{
    struct vfio_device *self = bar->device;
    uint64_t at = offset - bar->table.start;

    if (!within(&bar->table, offset) || size < 4)
        return;
    for (unsigned i = 0; i < size; i += 4)
        pci_msix_table_write(&self->msix, at + i, (uint32_t)(value >> 8 * i));
    interrupt_unmasked(self, (unsigned)(at / ENTRY_SIZE));
}

static uint64_t bar_read(void *opaque, uint64_t offset, unsigned size)
{
    struct vfio_bar *bar = opaque;
    struct vfio *vfio = bar->device->vfio;
    uint64_t value;

    if (within(&bar->table, offset) || within(&bar->pending, offset))
        return read_words(bar, offset, size);
    vfio->ops->read(vfio, bar->index, offset, size, &value);
    return value;
}

static void bar_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct vfio_bar *bar = opaque;
    struct vfio *vfio = bar->device->vfio;

    if (within(&bar->table, offset) || within(&bar->pending, offset))
        write_words(bar, offset, value, size);
    else
        vfio->ops->write(vfio, bar->index, offset, size, value);
}

static uint64_t piece_read(void *opaque, uint64_t offset, unsigned size)
{
    struct vfio_piece *piece = opaque;
    return bar_read(piece->bar, piece->range.start + offset, size);
}

static void piece_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct vfio_piece *piece = opaque;
    bar_write(piece->bar, piece->range.start + offset, value, size);
}

static const struct mmio_ops memory_ops = {.read = bar_read, .write = bar_write};
static const struct mmio_ops piece_ops = {.read = piece_read, .write = piece_write};
static const struct mmio_ops io_ops = {
    .read = bar_read, .write = bar_write, .max_size = 4, .split = true};

/* --- BARs ------------------------------------------------------------------------------------- */

bool region_add_bar(struct vfio_device *self, unsigned index, uint32_t value, bool *wide,
                    struct error *err)
{
    struct vfio_bar *bar = &self->bars[index];
    struct vfio_region region;
    bool io = value & BAR_IO;
    enum pci_bar_kind kind = io ? PCI_BAR_IO : PCI_BAR_MEMORY32;

    *wide = !io && value & BAR_TYPE_64 && index + 1 < VFIO_BARS;
    if (*wide)
        kind = PCI_BAR_MEMORY64;
    if (!self->vfio->ops->region(self->vfio, index, &region, err))
        return false;
    if (!region.size)
        return true;
    if (!is_power_of_two(region.size) || region.size < (io ? 4 : 16) || !region.readable ||
        (kind != PCI_BAR_MEMORY64 && region.size > UINT64_C(1) << 31)) {
        log_warning("%s: BAR %u of %#llx bytes is left out: no BAR can be like that",
                    self->vfio->name, index, (unsigned long long)region.size);
        return true;
    }
    bar->size = region.size;
    pci_add_bar(&self->pci, index, kind, value & BAR_PREFETCH, region.size,
                io ? &io_ops : &memory_ops, bar);
    return true;
}

static void add_piece(struct vfio_bar *bar, uint64_t start, uint64_t end, uint8_t *host)
{
    bar->pieces[bar->piece_count++] =
        (struct vfio_piece){.bar = bar, .range = {start, end - start}, .host = host};
}

/* Where the pieces so far end. */
static uint64_t pieces_end(const struct vfio_bar *bar)
{
    const struct vfio_piece *last = bar->pieces + bar->piece_count - 1;
    return bar->piece_count ? last->range.start + last->range.size : 0;
}

/* Areas come in ascending order; what lies before one is registers. */
static void map_area(struct vfio_bar *bar, uint64_t start, uint64_t end)
{
    struct vfio *vfio = bar->device->vfio;
    struct error err;

    if (start >= end || start < pieces_end(bar) || bar->piece_count + 3 > PIECES_MAX)
        return;
    uint8_t *host = vfio->ops->map(vfio, bar->index, start, end - start, &err);
    if (!host) {
        log_warning("%s; accesses to it go through the kernel", err.message);
        return;
    }
    if (start > pieces_end(bar))
        add_piece(bar, pieces_end(bar), start, NULL);
    add_piece(bar, start, end, host);
}

/* Maps [start, end) but for the pages that hold table or pending bits. */
static void map_around(struct vfio_bar *bar, uint64_t start, uint64_t end)
{
    const struct vfio_range *first = &bar->table, *second = &bar->pending;

    if (second->size && (!first->size || second->start < first->start)) {
        first = &bar->pending;
        second = &bar->table;
    }
    for (unsigned i = 0; i < 2; i++) {
        const struct vfio_range *hole = i ? second : first;
        uint64_t from = align_down(hole->start, MEMORY_PAGE_SIZE);
        uint64_t to = align_up(hole->start + hole->size, MEMORY_PAGE_SIZE);
        if (!hole->size || to <= start || from >= end)
            continue;
        map_area(bar, start, from);
        start = to;
    }
    map_area(bar, start, end);
}

void region_map(struct vfio_device *self)
{
    struct vfio_region region;

    for (unsigned i = 0; i < VFIO_BARS; i++) {
        struct vfio_bar *bar = &self->bars[i];
        if (!bar->size || self->pci.bars[i].kind == PCI_BAR_IO || self->config.no_mmap >> i & 1 ||
            !self->vfio->ops->region(self->vfio, i, &region, NULL))
            continue;
        for (unsigned j = 0; j < region.area_count; j++) {
            const struct vfio_range *area = &region.areas[j];
            if (!((area->start | area->size) % MEMORY_PAGE_SIZE) &&
                range_fits(area->start, area->size, bar->size))
                map_around(bar, area->start, area->start + area->size);
        }
        if (!bar->piece_count)
            continue;
        if (pieces_end(bar) < bar->size)
            add_piece(bar, pieces_end(bar), bar->size, NULL);
        self->pci.bars[i].ops = NULL; /* region_move maps it */
    }
}

static bool add_to_memory(struct vfio_device *self, struct vfio_piece *piece, uint64_t gpa)
{
    const char *name = self->vfio->name;
    struct memory *memory = self->config.memory;

    return piece->host
               ? memory_add_device_memory(memory, gpa, piece->range.size, piece->host, name, NULL)
               : memory_add_mmio(memory, gpa, piece->range.size, &piece_ops, piece, name, NULL);
}

static void remove_pieces(struct vfio_bar *bar, unsigned count, uint64_t gpa)
{
    for (unsigned i = 0; i < count; i++)
        memory_remove_mmio(bar->device->config.memory, gpa + bar->pieces[i].range.start);
}

bool region_move(struct vfio_device *self, unsigned index, uint64_t from, uint64_t to)
{
    struct vfio_bar *bar = &self->bars[index];

    if (from != PCI_UNMAPPED)
        remove_pieces(bar, bar->piece_count, from);
    if (to == PCI_UNMAPPED)
        return true;
    for (unsigned i = 0; i < bar->piece_count; i++)
        if (!add_to_memory(self, &bar->pieces[i], to + bar->pieces[i].range.start)) {
            remove_pieces(bar, i, to);
            return false;
        }
    return true;
}

/* --- The expansion ROM ------------------------------------------------------------------------ */

static bool load_rom_file(struct vfio_device *self, const char *path, struct error *err)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return error_set_errno(err, errno, "%s: cannot open rom=%s", self->vfio->name, path);
    uint8_t *bytes = xmalloc(ROM_MAX + 1);
    size_t size = fread(bytes, 1, ROM_MAX + 1, file);
    fclose(file);
    if (size < 2 || size > ROM_MAX || bytes[0] != 0x55 || bytes[1] != 0xaa) {
        free(bytes);
        return error_set(err,
                         "%s: rom=%s is no expansion ROM of at most %u MiB, which begins "
                         "with 55 aa",
                         self->vfio->name, path, ROM_MAX >> 20);
    }
    self->rom_size = ROM_MIN;
    while (self->rom_size < size)
        self->rom_size *= 2;
    self->rom = xrealloc(bytes, self->rom_size > size ? self->rom_size : size);
    memset(self->rom + size, 0xff, self->rom_size - size);
    return true;
}

/* With rom_lock. Reading it takes the device a while, and some must be woken first: not before the
 * guest wants it. */
static void read_rom(struct vfio_device *self)
{
    self->rom = xmalloc(self->rom_size);
    for (uint64_t at = 0; at < self->rom_size; at += 4) {
        uint64_t value = 0;
        if (!self->vfio->ops->read(self->vfio, VFIO_REGION_ROM, at, 4, &value)) {
            memset(self->rom + at, 0xff, self->rom_size - at);
            return;
        }
        store_le32(self->rom + at, (uint32_t)value);
    }
}

static uint64_t rom_read(void *opaque, uint64_t offset, unsigned size)
{
    struct vfio_device *self = opaque;

    pthread_mutex_lock(&self->rom_lock);
    if (!self->rom)
        read_rom(self);
    uint64_t value = load_le(self->rom + offset, size);
    pthread_mutex_unlock(&self->rom_lock);
    return value;
}

static void rom_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
}

static const struct mmio_ops rom_ops = {.read = rom_read, .write = rom_write};

bool region_add_rom(struct vfio_device *self, struct error *err)
{
    struct vfio_region region = {0};

    if (self->config.rom_file) {
        if (!load_rom_file(self, self->config.rom_file, err))
            return false;
    } else {
        if (!self->vfio->ops->region(self->vfio, VFIO_REGION_ROM, &region, err))
            return false;
        if (!region.readable || region.size < ROM_MIN || region.size > ROM_MAX ||
            !is_power_of_two(region.size))
            return true;
        self->rom_size = region.size;
    }
    pci_add_bar(&self->pci, PCI_BAR_ROM, PCI_BAR_MEMORY32, false, self->rom_size, &rom_ops, self);
    return true;
}

void region_finish(struct vfio_device *self)
{
    for (unsigned i = 0; i < VFIO_BARS; i++)
        for (unsigned j = 0; j < self->bars[i].piece_count; j++) {
            const struct vfio_piece *piece = &self->bars[i].pieces[j];
            if (piece->host)
                self->vfio->ops->unmap(self->vfio, piece->host, piece->range.size);
        }
    free(self->rom);
}
