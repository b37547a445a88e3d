/* The symbols of ELF files. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "debug/symbols_elf.h"

static bool check_header(Elf *elf, const char *name, struct error *err)
{
    GElf_Ehdr header;
    if (elf_kind(elf) != ELF_K_ELF || !gelf_getehdr(elf, &header))
        return error_set(err, "'%s' is a damaged ELF file: %s", name, elf_errmsg(-1));
    if (header.e_machine != EM_RISCV)
        return error_set(err,
                         "'%s' is for another machine than RISC-V (ELF machine %u): give the file "
                         "that the guest runs",
                         name, header.e_machine);
    if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB)
        return error_set(err, "'%s' is not for 64-bit little-endian RISC-V: the guest is", name);
    if (header.e_type == ET_REL)
        return error_set(err,
                         "'%s' is not linked, so that its symbols have no addresses: give the "
                         "linked file (for kernel modules, a copy of the guest's /proc/kallsyms)",
                         name);
    if (header.e_type != ET_EXEC && header.e_type != ET_DYN)
        return error_set(err, "'%s' is no program (ELF type %u): give an executable or a library",
                         name, header.e_type);
    return true;
}

/* False: not the address of something in the guest. */
static bool classify(const GElf_Sym *symbol, struct symbol_entry *entry)
{
    static const uint8_t objects[] = {
        [STB_LOCAL] = RANK_LOCAL, [STB_GLOBAL] = RANK_GLOBAL, [STB_WEAK] = RANK_WEAK};
    static const uint8_t labels[] = {
        [STB_LOCAL] = RANK_LABEL, [STB_GLOBAL] = RANK_GLOBAL_LABEL, [STB_WEAK] = RANK_WEAK_LABEL};
    unsigned type = GELF_ST_TYPE(symbol->st_info), binding = GELF_ST_BIND(symbol->st_info);
    if (binding > STB_WEAK)
        binding = STB_GLOBAL; /* STB_GNU_UNIQUE */
    entry->function = type == STT_FUNC || type == STT_GNU_IFUNC;
    if (symbol->st_shndx == SHN_UNDEF)
        return false;
    if (symbol->st_shndx == SHN_ABS)
        entry->rank = RANK_NUMBER;
    else if (entry->function || type == STT_OBJECT || type == STT_COMMON)
        entry->rank = objects[binding];
    else if (type == STT_NOTYPE)
        entry->rank = labels[binding];
    else
        return false;
    return true;
}

static uint64_t saturating_add(uint64_t a, uint64_t b)
{
    return a + b < a ? UINT64_MAX : a + b;
}

static void read_symbol(struct symbols *symbols, const struct symbol_file *file,
                        const GElf_Sym *symbol, const char *name)
{
    struct symbol_entry entry = {.name = name};
    GElf_Shdr section;
    if (!name || !*name || symbols_is_mapping(name) || !classify(symbol, &entry))
        return;
    entry.address = symbol->st_value;
    if (entry.rank != RANK_NUMBER) {
        entry.address += file->offset;
        Elf_Scn *scn =
            symbol->st_shndx < SHN_LORESERVE ? elf_getscn(file->elf->file, symbol->st_shndx) : NULL;
        if (scn && gelf_getshdr(scn, &section))
            entry.limit = saturating_add(section.sh_addr + file->offset, section.sh_size);
    }
    entry.end = saturating_add(entry.address, symbol->st_size);
    symbols_append(symbols, &entry);
}

static void read_table(struct symbols *symbols, const struct symbol_file *file, Elf_Scn *section,
                       const GElf_Shdr *header)
{
    Elf_Data *data = elf_getdata(section, NULL);
    size_t count = data ? data->d_size / sizeof(Elf64_Sym) : 0;
    for (size_t i = 1; i < count; i++) {
        GElf_Sym symbol;
        if (gelf_getsym(data, (int)i, &symbol))
            read_symbol(symbols, file, &symbol,
                        elf_strptr(file->elf->file, header->sh_link, symbol.st_name));
    }
}

/* The full table, or, where it was stripped, that of the dynamic linker. */
static void read_tables(struct symbols *symbols, const struct symbol_file *file)
{
    static const uint32_t types[] = {SHT_SYMTAB, SHT_DYNSYM};
    size_t before = symbols->count;
    for (size_t i = 0; i < 2 && symbols->count == before; i++) {
        GElf_Shdr header;
        for (Elf_Scn *section = NULL; (section = elf_nextscn(file->elf->file, section));)
            if (gelf_getshdr(section, &header) && header.sh_type == types[i])
                read_table(symbols, file, section, &header);
    }
}

bool symbols_read_elf(struct symbols *symbols, struct symbol_file *file, const char *name,
                      struct error *err)
{
    size_t before = symbols->count;
    elf_version(EV_CURRENT);
    struct elf *elf = file->elf = xcalloc(1, sizeof(*elf));
    elf->file = elf_begin(file->fd, ELF_C_READ_MMAP, NULL);
    if (!elf->file)
        return error_set(err, "'%s' is a damaged ELF file: %s", name, elf_errmsg(-1));
    if (!check_header(elf->file, name, err))
        return false;
    read_tables(symbols, file);
    elf->dwarf = dwarf_begin_elf(elf->file, DWARF_C_READ, NULL);
    elf->eh_frame = dwarf_getcfi_elf(elf->file);
    if (elf->dwarf)
        elf->dwarf_frame = dwarf_getcfi(elf->dwarf);
    if (symbols->count == before && !elf->dwarf)
        return error_set(err,
                         "'%s' has neither symbols nor DWARF: give it as it was before it was "
                         "stripped",
                         name);
    return true;
}

void symbols_release_elf(struct elf *elf)
{
    if (!elf)
        return;
    free(elf->ranges);
    if (elf->eh_frame)
        dwarf_cfi_end(elf->eh_frame);
    if (elf->dwarf)
        dwarf_end(elf->dwarf);
    if (elf->file)
        elf_end(elf->file);
    free(elf);
}
