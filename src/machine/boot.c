/*
 * What a machine starts with: images and device tree in RAM, the boot ROM's hand-over.
 *
 * From the top of the first GiB of RAM downwards: device tree, initrd. Firmware starts at the
 * beginning of RAM, a kernel 2 MiB above it.
 */
#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine/board.h"
#include "machine/internal.h"

/* OpenSBI's fw_dynamic_info, version 2 (its include/sbi/fw_dynamic.h names the fields). */
#define FW_DYNAMIC_MAGIC   0x4942534f
#define FW_DYNAMIC_VERSION 2
#define FW_DYNAMIC_MODE_S  1

/* The device tree lies below this address: firmware may look at it in its first mappings only. */
#define DEVICE_TREE_TOP UINT64_C(0xc0000000)
#define DEVICE_TREE_MAX (UINT64_C(1) << 20)

static uint64_t top_of_low_ram(const struct machine *machine)
{
    size_t count;
    const struct memory_ram *ram = memory_ram_regions(machine->memory, &count);
    uint64_t top = ram[0].base + ram[0].size;
    return top < DEVICE_TREE_TOP ? top : DEVICE_TREE_TOP;
}

static bool load_image(struct machine *machine, const char *option, const char *path, uint64_t base,
                       struct loader_image *image, struct error *err)
{
    struct loader_file file;
    if (!loader_open(&file, option, path, err))
        return false;
    char name[256];
    snprintf(name, sizeof(name), "%s %s", option, path);
    bool ok = loader_load(machine->memory, name, file.data, file.size, base, image, err);
    loader_close(&file);
    return ok;
}

/* Puts the initrd below `top`, and not into [0, used), which the kernel has. */
static bool load_initrd(struct machine *machine, uint64_t used, uint64_t top, struct error *err)
{
    struct loader_file file;
    if (!loader_open(&file, "--initrd", machine->config.initrd, err))
        return false;
    bool ok = file.size <= top && align_down(top - file.size, MEMORY_PAGE_SIZE) >= used;
    if (ok) {
        machine->initrd_gpa = align_down(top - file.size, MEMORY_PAGE_SIZE);
        machine->initrd_size = file.size;
        ok = memory_dma_write(machine->memory, machine->initrd_gpa, file.data, file.size);
    }
    if (!ok)
        error_set(err,
                  "--initrd %s: %zu MiB do not fit between the kernel's end (%#llx) and %#llx: "
                  "raise --memory",
                  file.path, file.size >> 20, (unsigned long long)used, (unsigned long long)top);
    loader_close(&file);
    return ok;
}

/* Overrides in a tree that the user gave what other options say. */
static int apply_options(struct machine *machine, void *blob)
{
    int chosen = fdt_path_offset(blob, "/chosen");
    if (chosen == -FDT_ERR_NOTFOUND)
        chosen = fdt_add_subnode(blob, 0, "chosen");
    if (chosen < 0)
        return chosen;
    int result = 0;
    if (machine->config.append)
        result = fdt_setprop_string(blob, chosen, "bootargs", machine->config.append);
    if (!result && machine->initrd_size) {
        result = fdt_setprop_u64(blob, chosen, "linux,initrd-start", machine->initrd_gpa);
        if (!result)
            result = fdt_setprop_u64(blob, chosen, "linux,initrd-end",
                                     machine->initrd_gpa + machine->initrd_size);
    }
    return result;
}

bool boot_edit_tree(struct machine *machine, const char *name, const void *data, size_t size,
                    void **blob, size_t *blob_size, struct error *err)
{
    if (size > DEVICE_TREE_MAX)
        return error_set(err, "%s: %zu KiB: a device tree may have %llu KiB", name, size >> 10,
                         (unsigned long long)(DEVICE_TREE_MAX >> 10));
    int result = size < sizeof(struct fdt_header) ? -FDT_ERR_TRUNCATED : fdt_check_full(data, size);
    if (result)
        return error_set(err, "%s: not a valid device tree blob: %s", name, fdt_strerror(result));
    size_t room = fdt_totalsize(data) + 4096;
    if (machine->config.append)
        room += strlen(machine->config.append);
    void *copy = xmalloc(room);
    result = fdt_open_into(data, copy, room);
    if (!result)
        result = apply_options(machine, copy);
    if (!result)
        result = fdt_pack(copy);
    if (result) {
        free(copy);
        return error_set(err, "%s: cannot set /chosen: %s", name, fdt_strerror(result));
    }
    *blob = copy;
    *blob_size = fdt_totalsize(copy);
    return true;
}

static bool make_device_tree(struct machine *machine, struct error *err)
{
    free(machine->device_tree);
    machine->device_tree = NULL;
    const char *path = machine->config.dtb;
    if (!path)
        return fdt_build(machine, &machine->device_tree, &machine->device_tree_size, err);
    struct loader_file file;
    if (!loader_open(&file, "--dtb", path, err))
        return false;
    bool ok = boot_edit_tree(machine, path, file.data, file.size, &machine->device_tree,
                             &machine->device_tree_size, err);
    loader_close(&file);
    return ok || error_prefix(err, "--dtb");
}

/*
 * The first instructions of every hart with firmware: a0 = hart ID, a1 = device tree, a2 = the
 * fw_dynamic_info below, then the jump to the firmware.
 */
static void fill_boot_rom(struct machine *machine)
{
    static const uint32_t code[] = {
        0x00000297, /* auipc t0, 0 */
        0x02828613, /* addi  a2, t0, 40 */
        0xf1402573, /* csrr  a0, mhartid */
        0x0202b583, /* ld    a1, 32(t0) */
        0x0182b283, /* ld    t0, 24(t0) */
        0x00028067, /* jr    t0 */
    };
    const uint64_t data[] = {
        machine->entry,
        machine->device_tree_gpa,
        FW_DYNAMIC_MAGIC,
        FW_DYNAMIC_VERSION,
        machine->next_entry,
        FW_DYNAMIC_MODE_S,
        0, /* options */
        0, /* boot hart */
    };
    memset(machine->boot_rom, 0, board_map.boot_rom.size);
    for (size_t i = 0; i < ARRAY_SIZE(code); i++)
        store_le32(machine->boot_rom + 4 * i, code[i]);
    for (size_t i = 0; i < ARRAY_SIZE(data); i++)
        store_le64(machine->boot_rom + sizeof(code) + 8 * i, data[i]);
}

/* Loads kernel and firmware; *used is set to the end of what they occupy. */
static bool load_images(struct machine *machine, uint64_t *used, struct error *err)
{
    const struct machine_config *config = &machine->config;
    struct loader_image kernel = {0}, firmware = {0};
    if (config->firmware &&
        !load_image(machine, "--firmware", config->firmware, BOARD_RAM_BASE, &firmware, err))
        return false;
    if (config->kernel &&
        !load_image(machine, "--kernel", config->kernel, BOARD_KERNEL_BASE, &kernel, err))
        return false;
    if (config->firmware && config->kernel && kernel.low < firmware.high &&
        firmware.low < kernel.high)
        return error_set(err, "--kernel %s overlaps --firmware %s at %#llx", config->kernel,
                         config->firmware, (unsigned long long)kernel.low);

    /* A flash bank takes the place of a kernel, as firmware volumes for this board expect. */
    uint64_t next = config->kernel          ? kernel.entry
                    : config->flash[0].path ? board_map.flash[0].base
                                            : 0;
    machine->entry = config->firmware ? firmware.entry : next;
    machine->next_entry = next;
    const struct loader_image *symbols = config->firmware ? &firmware : &kernel;
    machine->tohost = symbols->tohost;
    machine->fromhost = symbols->fromhost;
    *used = kernel.high > firmware.high ? kernel.high : firmware.high;
    return true;
}

bool boot_load(struct machine *machine, struct error *err)
{
    uint64_t used = 0;
    if (!load_images(machine, &used, err))
        return false;

    /* The tree's size is known only once the initrd has its place: reserve for the largest. */
    uint64_t top = top_of_low_ram(machine);
    uint64_t reserve = machine->config.dtb ? DEVICE_TREE_MAX : DEVICE_TREE_MAX / 8;
    if (top - BOARD_RAM_BASE <= reserve || top - reserve < used)
        return error_set(err,
                         "no room for the device tree between the image's end (%#llx) and %#llx: "
                         "raise --memory",
                         (unsigned long long)used, (unsigned long long)top);
    machine->device_tree_gpa = align_down(top - reserve, MEMORY_PAGE_SIZE);
    if (machine->config.initrd && !load_initrd(machine, used, machine->device_tree_gpa, err))
        return false;
    if (!make_device_tree(machine, err))
        return false;
    memory_dma_write(machine->memory, machine->device_tree_gpa, machine->device_tree,
                     machine->device_tree_size);
    fill_boot_rom(machine);
    return true;
}
