#include "machine/loader.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "machine/decompress.h"

#ifndef EM_RISCV
#    define EM_RISCV 243
#endif

/* Reads all of fd. A mapping would end in SIGBUS if somebody cut the file meanwhile. */
static bool read_all(int fd, uint8_t *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = read(fd, data + done, size - done);
        if (n <= 0 && !(n < 0 && errno == EINTR)) {
            errno = n ? errno : EIO;
            return false;
        }
        done += n > 0 ? n : 0;
    }
    return true;
}

bool loader_open(struct loader_file *file, const char *option, const char *path, struct error *err)
{
    *file = (struct loader_file){.path = path};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set_errno(err, errno, "%s: cannot open '%s'", option, path);

    struct stat st;
    bool ok = false;
    if (fstat(fd, &st) < 0)
        error_set_errno(err, errno, "%s: cannot examine '%s'", option, path);
    else if (!S_ISREG(st.st_mode))
        error_set(err, "%s: '%s' is not a regular file", option, path);
    else if (st.st_size == 0)
        error_set(err, "%s: '%s' is empty", option, path);
    else {
        file->size = st.st_size;
        file->data = xmalloc(file->size);
        ok = read_all(fd, file->data, file->size);
        if (!ok) {
            error_set_errno(err, errno, "%s: cannot read '%s'", option, path);
            loader_close(file);
        }
    }
    close(fd);
    return ok;
}

void loader_close(struct loader_file *file)
{
    free(file->data);
    *file = (struct loader_file){0};
}

/* Says what of [gpa, gpa + size) has no RAM behind it, and what would help. */
static bool outside_ram(struct memory *memory, const char *name, const char *what, uint64_t gpa,
                        uint64_t size, struct error *err)
{
    size_t count;
    const struct memory_ram *ram = memory_ram_regions(memory, &count);
    if (!count)
        return error_set(err, "%s: the machine has no RAM", name);
    return error_set(err,
                     "%s: %s of %#llx bytes at %#llx does not fit into RAM (%#llx to %#llx): raise "
                     "--memory or link the image elsewhere",
                     name, what, (unsigned long long)size, (unsigned long long)gpa,
                     (unsigned long long)ram[0].base,
                     (unsigned long long)(ram[count - 1].base + ram[count - 1].size - 1));
}

static bool in_ram(struct memory *memory, uint64_t gpa, uint64_t size)
{
    size_t count;
    const struct memory_ram *ram = memory_ram_regions(memory, &count);
    for (size_t i = 0; i < count; i++)
        if (gpa >= ram[i].base && range_fits(gpa - ram[i].base, size, ram[i].size))
            return true;
    return false;
}

/* Data at gpa with zeros behind it up to `total` bytes. */
static bool place(struct memory *memory, const char *name, const char *what, uint64_t gpa,
                  const void *data, uint64_t size, uint64_t total, struct error *err)
{
    if (!in_ram(memory, gpa, total))
        return outside_ram(memory, name, what, gpa, total, err);
    return (size == 0 || memory_dma_write(memory, gpa, data, size)) &&
           (size == total || memory_dma_fill(memory, gpa + size, 0, total - size));
}

static bool load_raw(struct memory *memory, const char *name, const uint8_t *data, size_t size,
                     uint64_t base, struct loader_image *image, struct error *err)
{
    image->entry = image->low = base;
    image->high = base + size;
    image->format = "raw";
    return place(memory, name, "a raw image", base, data, size, size, err);
}

/* --- ELF ---------------------------------------------------------------------------------------
 */

struct elf {
    const char *name;
    const uint8_t *data;
    size_t size;
    Elf64_Ehdr header;
};

static bool elf_check(struct elf *elf, struct error *err)
{
    if (elf->size < sizeof(elf->header))
        return error_set(err, "%s: truncated ELF header: %zu bytes", elf->name, elf->size);
    memcpy(&elf->header, elf->data, sizeof(elf->header));
    const Elf64_Ehdr *h = &elf->header;
    if (h->e_ident[EI_CLASS] != ELFCLASS64 || h->e_ident[EI_DATA] != ELFDATA2LSB)
        return error_set(err, "%s: not a 64-bit little-endian ELF: build it for riscv64",
                         elf->name);
    if (h->e_machine != EM_RISCV)
        return error_set(err, "%s: ELF for machine %u, not RISC-V (%u): build it for riscv64",
                         elf->name, h->e_machine, EM_RISCV);
    if (h->e_type != ET_EXEC && h->e_type != ET_DYN)
        return error_set(err, "%s: ELF of type %u is not an executable: link it", elf->name,
                         h->e_type);
    if (h->e_phentsize != sizeof(Elf64_Phdr) ||
        !range_fits(h->e_phoff, (uint64_t)h->e_phnum * sizeof(Elf64_Phdr), elf->size))
        return error_set(err, "%s: ELF program headers lie outside the file: it is truncated",
                         elf->name);
    return true;
}

static Elf64_Phdr elf_segment(const struct elf *elf, unsigned index)
{
    Elf64_Phdr segment;
    memcpy(&segment, elf->data + elf->header.e_phoff + index * sizeof(segment), sizeof(segment));
    return segment;
}

/* Checks the loadable segments and finds the physical range they span. */
static bool elf_span(const struct elf *elf, struct loader_image *image, struct error *err)
{
    image->low = UINT64_MAX;
    for (unsigned i = 0; i < elf->header.e_phnum; i++) {
        Elf64_Phdr s = elf_segment(elf, i);
        if (s.p_type != PT_LOAD || s.p_memsz == 0)
            continue;
        if (!range_fits(s.p_offset, s.p_filesz, elf->size))
            return error_set(err, "%s: ELF segment %u lies outside the file: it is truncated",
                             elf->name, i);
        if (s.p_filesz > s.p_memsz || s.p_paddr + s.p_memsz < s.p_paddr)
            return error_set(err, "%s: ELF segment %u has impossible sizes", elf->name, i);
        if (s.p_paddr < image->low)
            image->low = s.p_paddr;
        if (s.p_paddr + s.p_memsz > image->high)
            image->high = s.p_paddr + s.p_memsz;
    }
    if (image->low >= image->high)
        return error_set(err, "%s: ELF has nothing to load", elf->name);
    return true;
}

/*
 * The physical address of what is linked at virtual address `va`: kernels have virtual entry points
 * and symbols while they start without translation. False if no segment has that address.
 */
static bool elf_physical(const struct elf *elf, uint64_t va, uint64_t *physical)
{
    for (unsigned i = 0; i < elf->header.e_phnum; i++) {
        Elf64_Phdr s = elf_segment(elf, i);
        if (s.p_type == PT_LOAD && va >= s.p_vaddr && va - s.p_vaddr < s.p_memsz) {
            *physical = s.p_paddr + (va - s.p_vaddr);
            return true;
        }
    }
    return false;
}

static bool elf_section(const struct elf *elf, unsigned index, Elf64_Shdr *section)
{
    const Elf64_Ehdr *h = &elf->header;
    uint64_t offset = h->e_shoff + (uint64_t)index * sizeof(*section);
    if (index >= h->e_shnum || h->e_shentsize != sizeof(*section) ||
        !range_fits(h->e_shoff, (uint64_t)h->e_shnum * sizeof(*section), elf->size))
        return false;
    memcpy(section, elf->data + offset, sizeof(*section));
    return section->sh_type == SHT_NOBITS ||
           range_fits(section->sh_offset, section->sh_size, elf->size);
}

/* Finds HTIF's symbols. A symbol table that is damaged is as good as none. */
static void elf_symbols(const struct elf *elf, struct loader_image *image)
{
    for (unsigned i = 0; i < elf->header.e_shnum; i++) {
        Elf64_Shdr table, strings;
        if (!elf_section(elf, i, &table) || table.sh_type != SHT_SYMTAB ||
            !elf_section(elf, table.sh_link, &strings) || strings.sh_type != SHT_STRTAB)
            continue;
        const char *names = (const char *)elf->data + strings.sh_offset;
        for (uint64_t at = 0; at + sizeof(Elf64_Sym) <= table.sh_size; at += sizeof(Elf64_Sym)) {
            Elf64_Sym symbol;
            memcpy(&symbol, elf->data + table.sh_offset + at, sizeof(symbol));
            if (symbol.st_name >= strings.sh_size)
                continue;
            const char *name = names + symbol.st_name;
            size_t room = strings.sh_size - symbol.st_name;
            if (room >= sizeof("tohost") && !memcmp(name, "tohost", sizeof("tohost")))
                elf_physical(elf, symbol.st_value, &image->tohost);
            if (room >= sizeof("fromhost") && !memcmp(name, "fromhost", sizeof("fromhost")))
                elf_physical(elf, symbol.st_value, &image->fromhost);
        }
    }
}

static bool load_elf(struct memory *memory, const char *name, const uint8_t *data, size_t size,
                     uint64_t base, struct loader_image *image, struct error *err)
{
    struct elf elf = {.name = name, .data = data, .size = size};
    if (!elf_check(&elf, err) || !elf_span(&elf, image, err))
        return false;

    image->format = "ELF";
    if (!elf_physical(&elf, elf.header.e_entry, &image->entry))
        return error_set(err, "%s: ELF entry point %#llx lies in no loadable segment", name,
                         (unsigned long long)elf.header.e_entry);
    elf_symbols(&elf, image);

    /* An ELF linked below RAM (vmlinux: physical address 0) is position-independent: move it. */
    size_t count;
    const struct memory_ram *ram = memory_ram_regions(memory, &count);
    uint64_t move = count && image->high <= ram[0].base ? base - image->low : 0;
    for (unsigned i = 0; i < elf.header.e_phnum; i++) {
        Elf64_Phdr s = elf_segment(&elf, i);
        if (s.p_type == PT_LOAD && s.p_memsz &&
            !place(memory, name, "an ELF segment", s.p_paddr + move, data + s.p_offset, s.p_filesz,
                   s.p_memsz, err))
            return false;
    }
    image->entry += move;
    image->low += move;
    image->high += move;
    image->tohost += image->tohost ? move : 0;
    image->fromhost += image->fromhost ? move : 0;
    return true;
}

/* --- Linux Image (Documentation/arch/riscv/boot-image-header.rst) ------------------------------
 */

#define IMAGE_HEADER_SIZE 64
#define IMAGE_TEXT_OFFSET 8
#define IMAGE_SIZE        16
#define IMAGE_MAGIC2      56

static bool is_image(const uint8_t *data, size_t size)
{
    return size >= IMAGE_HEADER_SIZE && !memcmp(data + IMAGE_MAGIC2, "RSC\x05", 4);
}

static bool load_image(struct memory *memory, const char *name, const uint8_t *data, size_t size,
                       uint64_t base, struct loader_image *image, struct error *err)
{
    /* text_offset is from the start of RAM, which must be 2 MiB aligned; it is 2 MiB on RV64. */
    uint64_t offset = load_le64(data + IMAGE_TEXT_OFFSET);
    uint64_t total = load_le64(data + IMAGE_SIZE);
    size_t count;
    const struct memory_ram *ram = memory_ram_regions(memory, &count);
    if (count && offset < ram[0].size && ram[0].base + offset >= base)
        base = ram[0].base + offset;
    if (total < size)
        total = size; /* kernels before 5.4 have no image_size */
    image->entry = image->low = base;
    image->high = base + total;
    image->format = "Image";
    return place(memory, name, "a kernel image", base, data, size, total, err);
}

static bool is_foreign_image(const uint8_t *data, size_t size, const char **what)
{
    if (size >= IMAGE_HEADER_SIZE && !memcmp(data + IMAGE_MAGIC2, "ARM\x64", 4))
        *what = "an arm64 kernel image";
    else if (size > 0x206 && !memcmp(data + 0x202, "HdrS", 4))
        *what = "an x86 kernel image (bzImage)";
    else
        return false;
    return true;
}

/* --- EFI-zboot (drivers/firmware/efi/libstub/zboot-header.S) -----------------------------------
 */

#define ZBOOT_PAYLOAD_OFFSET 8
#define ZBOOT_PAYLOAD_SIZE   12
#define ZBOOT_COMPRESSION    24
#define ZBOOT_HEADER_SIZE    64

static bool is_zboot(const uint8_t *data, size_t size)
{
    return size >= ZBOOT_HEADER_SIZE && !memcmp(data, "MZ", 2) && !memcmp(data + 4, "zimg", 4);
}

/* --- All of them -------------------------------------------------------------------------------
 */

static bool load_unpacked(struct memory *memory, const char *name, const uint8_t *data, size_t size,
                          uint64_t base, struct loader_image *image, struct error *err)
{
    const char *foreign;
    if (size >= SELFMAG && !memcmp(data, ELFMAG, SELFMAG))
        return load_elf(memory, name, data, size, base, image, err);
    if (is_image(data, size))
        return load_image(memory, name, data, size, base, image, err);
    if (is_foreign_image(data, size, &foreign))
        return error_set(err, "%s: this is %s: give one for riscv64", name, foreign);
    return load_raw(memory, name, data, size, base, image, err);
}

bool loader_load(struct memory *memory, const char *name, const void *data, size_t size,
                 uint64_t base, struct loader_image *image, struct error *err)
{
    *image = (struct loader_image){0};
    const uint8_t *packed = data;
    size_t packed_size = size;
    if (is_zboot(packed, packed_size)) {
        uint64_t offset = load_le32(packed + ZBOOT_PAYLOAD_OFFSET);
        packed_size = load_le32(packed + ZBOOT_PAYLOAD_SIZE);
        if (!range_fits(offset, packed_size, size))
            return error_set(err, "%s: EFI-zboot payload lies outside the file: it is truncated",
                             name);
        char kind[9] = {0};
        memcpy(kind, packed + ZBOOT_COMPRESSION, 8);
        packed += offset;
        if (!decompress_recognises(packed, packed_size))
            return error_set(err,
                             "%s: EFI-zboot payload is compressed with '%s': only gzip and "
                             "zstd are supported; give the uncompressed Image",
                             name, kind);
    }
    if (!decompress_recognises(packed, packed_size))
        return load_unpacked(memory, name, packed, packed_size, base, image, err);

    void *unpacked;
    size_t unpacked_size;
    if (!decompress(packed, packed_size, memory_ram_size(memory), &unpacked, &unpacked_size, err))
        return error_prefix(err, "%s", name);
    bool ok = load_unpacked(memory, name, unpacked, unpacked_size, base, image, err);
    free(unpacked);
    return ok;
}
