/* Builds without libdw: only tables have symbols. */
#include "debug/symbols_internal.h"
#include "debug/unwind_internal.h"

bool symbols_read_elf(struct symbols *symbols, struct symbol_file *file, const char *name,
                      struct error *err)
{
    return error_set(err,
                     "'%s' is an ELF file, and this build cannot read those: install libdw-dev "
                     "and libelf-dev (elfutils), and build again",
                     name);
}

void symbols_release_elf(struct elf *elf)
{
}

unsigned symbols_elf_line(struct elf *elf, uint64_t address,
                          struct symbols_place places[SYMBOLS_INLINED_MAX])
{
    return 0;
}

bool cfi_find(struct symbols *symbols, uint64_t pc, struct rules *rules)
{
    *rules = (struct rules){.pc = pc};
    return false;
}

bool cfi_evaluate(const struct cfi_context *context, const struct rule *rule, uint64_t *value)
{
    return false;
}
