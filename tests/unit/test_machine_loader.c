/* Boot images, good and broken: machine/loader.h and machine/decompress.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/base.h"
#include "machine/decompress.h"
#include "machine/loader.h"

#define RAM_BASE UINT64_C(0x80000000)
#define RAM_SIZE (UINT64_C(16) << 20)
#define BASE     (RAM_BASE + 0x200000)

static struct memory *memory;

static int set_up(void **state)
{
    memory = memory_create();
    return memory_add_ram(memory, RAM_BASE, RAM_SIZE, NULL) ? 0 : -1;
}

static int tear_down(void **state)
{
    memory_destroy(memory);
    return 0;
}

static bool load(const void *data, size_t size, struct loader_image *image, struct error *err)
{
    /* An exact copy, so that ASan sees every byte read past the end. */
    void *copy = malloc(size);
    memcpy(copy, data, size);
    bool ok = loader_load(memory, "test", copy, size, BASE, image, err);
    free(copy);
    return ok;
}

static void assert_loaded(uint64_t gpa, const void *bytes, size_t size)
{
    uint8_t *found = malloc(size);
    assert_true(memory_dma_read(memory, gpa, found, size));
    assert_memory_equal(found, bytes, size);
    free(found);
}

/* --- ELF ----------------------------------------------------------------------------------------
 */

struct test_elf {
    Elf64_Ehdr header;
    Elf64_Phdr segment;
    Elf64_Shdr sections[3]; /* null, symbols, strings */
    Elf64_Sym symbols[3];
    char strings[32];
    uint8_t code[64];
};

static struct test_elf make_elf(uint64_t paddr, uint64_t vaddr)
{
    struct test_elf elf = {
        .header =
            {
                .e_type = ET_EXEC,
                .e_machine = 243,
                .e_version = 1,
                .e_entry = vaddr + 8,
                .e_phoff = offsetof(struct test_elf, segment),
                .e_phnum = 1,
                .e_phentsize = sizeof(Elf64_Phdr),
                .e_shoff = offsetof(struct test_elf, sections),
                .e_shnum = 3,
                .e_shentsize = sizeof(Elf64_Shdr),
            },
        .segment =
            {
                .p_type = PT_LOAD,
                .p_offset = offsetof(struct test_elf, code),
                .p_vaddr = vaddr,
                .p_paddr = paddr,
                .p_filesz = 64,
                .p_memsz = 256,
            },
        .sections =
            {
                [1] = {.sh_type = SHT_SYMTAB,
                       .sh_offset = offsetof(struct test_elf, symbols),
                       .sh_size = 3 * sizeof(Elf64_Sym),
                       .sh_link = 2},
                [2] = {.sh_type = SHT_STRTAB,
                       .sh_offset = offsetof(struct test_elf, strings),
                       .sh_size = 32},
            },
        .symbols = {[1] = {.st_name = 1, .st_value = vaddr + 128},
                    [2] = {.st_name = 8, .st_value = vaddr + 136}},
        .strings = "\0tohost\0fromhost",
    };
    memcpy(elf.header.e_ident, ELFMAG, SELFMAG);
    elf.header.e_ident[EI_CLASS] = ELFCLASS64;
    elf.header.e_ident[EI_DATA] = ELFDATA2LSB;
    for (unsigned i = 0; i < sizeof(elf.code); i++)
        elf.code[i] = i + 1;
    return elf;
}

static void elf_goes_to_its_addresses(void **state)
{
    struct test_elf elf = make_elf(RAM_BASE + 0x1000, RAM_BASE + 0x1000);
    struct loader_image image;
    struct error err;
    memory_dma_fill(memory, RAM_BASE + 0x1000, 0xee, 256);
    assert_true(load(&elf, sizeof(elf), &image, &err));
    assert_string_equal(image.format, "ELF");
    assert_int_equal(image.entry, RAM_BASE + 0x1008);
    assert_int_equal(image.low, RAM_BASE + 0x1000);
    assert_int_equal(image.high, RAM_BASE + 0x1100);
    assert_int_equal(image.tohost, RAM_BASE + 0x1080);
    assert_int_equal(image.fromhost, RAM_BASE + 0x1088);
    assert_loaded(RAM_BASE + 0x1000, elf.code, sizeof(elf.code));
    static const uint8_t zeros[192];
    assert_loaded(RAM_BASE + 0x1040, zeros, sizeof(zeros));
}

static void elf_linked_at_zero_moves_and_starts_at_its_physical_entry(void **state)
{
    struct test_elf elf = make_elf(0, UINT64_C(0xffffffff80000000));
    struct loader_image image;
    struct error err;
    assert_true(load(&elf, sizeof(elf), &image, &err));
    assert_int_equal(image.entry, BASE + 8);
    assert_int_equal(image.tohost, BASE + 128);
    assert_loaded(BASE, elf.code, sizeof(elf.code));
}

static void position_independent_firmware_may_start_at_zero(void **state)
{
    struct test_elf elf = make_elf(0, 0);
    struct loader_image image;
    elf.header.e_type = ET_DYN;
    elf.header.e_entry = 0;
    assert_true(load(&elf, sizeof(elf), &image, NULL));
    assert_int_equal(image.entry, BASE);
    assert_int_equal(image.high, BASE + 256);
    assert_loaded(BASE, elf.code, sizeof(elf.code));
}

/* Each row breaks one field; the message must contain the words. */
static void broken_elves_are_refused(void **state)
{
    static const struct {
        size_t offset, size;
        uint64_t value;
        const char *words;
    } rows[] = {
#define FIELD(f) offsetof(struct test_elf, f), sizeof(((struct test_elf *)0)->f)
        {FIELD(header.e_ident[EI_CLASS]), ELFCLASS32, "64-bit"},
        {FIELD(header.e_ident[EI_DATA]), ELFDATA2MSB, "little-endian"},
        {FIELD(header.e_machine), EM_X86_64, "machine 62"},
        {FIELD(header.e_type), ET_REL, "link it"},
        {FIELD(header.e_phentsize), 8, "program headers"},
        {FIELD(header.e_phnum), 0xffff, "program headers"},
        {FIELD(header.e_phoff), UINT64_MAX - 8, "program headers"},
        {FIELD(header.e_phnum), 0, "nothing to load"},
        {FIELD(header.e_entry), 4, "entry point"},
        {FIELD(segment.p_offset), UINT64_MAX - 4, "truncated"},
        {FIELD(segment.p_filesz), 4096, "truncated"},
        {FIELD(segment.p_memsz), 8, "sizes"},
        {FIELD(segment.p_memsz), UINT64_MAX, "sizes"},
        {FIELD(segment.p_memsz), UINT64_C(1) << 40, "raise --memory"},
        {FIELD(segment.p_paddr), RAM_BASE + RAM_SIZE - 16, "raise --memory"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct test_elf elf = make_elf(RAM_BASE, RAM_BASE);
        store_le((uint8_t *)&elf + rows[i].offset, rows[i].value, rows[i].size);
        struct loader_image image;
        struct error err = {0};
        assert_false(load(&elf, sizeof(elf), &image, &err));
        if (!strstr(err.message, rows[i].words))
            fail_msg("row %zu: '%s' does not say '%s'", i, err.message, rows[i].words);
    }
}

static void every_truncated_elf_is_refused_or_whole(void **state)
{
    struct test_elf elf = make_elf(RAM_BASE, RAM_BASE);
    for (size_t size = SELFMAG; size < sizeof(elf); size++) {
        struct loader_image image;
        struct error err = {0};
        assert_false(load(&elf, size, &image, &err));
        assert_true(err.message[0]);
    }
}

static void damaged_symbols_are_no_symbols(void **state)
{
    struct test_elf elf = make_elf(RAM_BASE, RAM_BASE);
    struct loader_image image;
    elf.symbols[1].st_name = 0x7fffffff;
    elf.sections[2].sh_size = 9;
    assert_true(load(&elf, sizeof(elf), &image, NULL));
    assert_int_equal(image.tohost, 0);
    assert_int_equal(image.fromhost, 0);
    elf.sections[1].sh_link = 77;
    assert_true(load(&elf, sizeof(elf), &image, NULL));
    elf.header.e_shoff = UINT64_MAX;
    assert_true(load(&elf, sizeof(elf), &image, NULL));
}

/* --- Image and its wrappers ----------------------------------------------------------------------
 */

#define KERNEL_SIZE 4096

static void make_image(uint8_t *kernel, uint64_t text_offset, uint64_t image_size)
{
    for (unsigned i = 0; i < KERNEL_SIZE; i++)
        kernel[i] = i * 7;
    store_le64(kernel + 8, text_offset);
    store_le64(kernel + 16, image_size);
    memcpy(kernel + 48, "RISCV\0\0\0RSC\x05", 12);
}

static void image_goes_where_its_header_says(void **state)
{
    uint8_t kernel[KERNEL_SIZE];
    struct loader_image image;
    make_image(kernel, 0x400000, 0x8000);
    assert_true(load(kernel, sizeof(kernel), &image, NULL));
    assert_string_equal(image.format, "Image");
    assert_int_equal(image.entry, RAM_BASE + 0x400000);
    assert_int_equal(image.high, RAM_BASE + 0x408000);
    assert_loaded(image.entry, kernel, sizeof(kernel));
}

static void image_larger_than_ram_is_refused(void **state)
{
    uint8_t kernel[KERNEL_SIZE];
    struct loader_image image;
    struct error err;
    make_image(kernel, 0x200000, RAM_SIZE);
    assert_false(load(kernel, sizeof(kernel), &image, &err));
    assert_non_null(strstr(err.message, "raise --memory"));
}

static void foreign_kernels_are_named(void **state)
{
    uint8_t kernel[KERNEL_SIZE];
    struct loader_image image;
    struct error err;
    make_image(kernel, 0x200000, 0);
    memcpy(kernel + 56, "ARM\x64", 4);
    assert_false(load(kernel, sizeof(kernel), &image, &err));
    assert_non_null(strstr(err.message, "arm64"));
    memset(kernel + 56, 0, 4);
    memcpy(kernel + 0x202, "HdrS", 4);
    assert_false(load(kernel, sizeof(kernel), &image, &err));
    assert_non_null(strstr(err.message, "x86"));
}

static size_t pack_gzip(const void *data, size_t size, uint8_t *out, size_t room)
{
    z_stream z = {.next_in = (Bytef *)data, .avail_in = size, .next_out = out, .avail_out = room};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return room - z.avail_out;
}

static size_t pack_zstd(const void *data, size_t size, uint8_t *out, size_t room)
{
    size_t packed = ZSTD_compress(out, room, data, size, 3);
    assert_false(ZSTD_isError(packed));
    return packed;
}

static const struct {
    const char *name;
    size_t (*pack)(const void *data, size_t size, uint8_t *out, size_t room);
} packers[] = {{"gzip", pack_gzip}, {"zstd", pack_zstd}};

static void compressed_images_load(void **state)
{
    uint8_t kernel[KERNEL_SIZE], packed[2 * KERNEL_SIZE];
    make_image(kernel, 0x200000, 0);
    for (size_t i = 0; i < ARRAY_SIZE(packers); i++) {
        struct loader_image image;
        size_t size = packers[i].pack(kernel, sizeof(kernel), packed, sizeof(packed));
        memory_dma_fill(memory, BASE, 0, KERNEL_SIZE);
        assert_true(load(packed, size, &image, NULL));
        assert_loaded(BASE, kernel, sizeof(kernel));
        for (size_t cut = 4; cut < size - 8; cut += 13) {
            struct error err = {0};
            assert_false(load(packed, cut, &image, &err));
            assert_non_null(strstr(err.message, packers[i].name));
        }
    }
}

static void zboot_images_load(void **state)
{
    uint8_t kernel[KERNEL_SIZE], file[64 + 2 * KERNEL_SIZE] = {0};
    struct loader_image image;
    struct error err;
    make_image(kernel, 0x200000, 0);
    size_t size = pack_zstd(kernel, sizeof(kernel), file + 64, sizeof(file) - 64);
    memcpy(file, "MZ\0\0zimg", 8);
    store_le32(file + 8, 64);
    store_le32(file + 12, size);
    memcpy(file + 24, "zstd22", 6);
    assert_true(load(file, 64 + size, &image, NULL));
    assert_loaded(BASE, kernel, sizeof(kernel));

    assert_false(load(file, 32 + size, &image, &err));
    assert_non_null(strstr(err.message, "truncated"));
    memcpy(file + 24, "xzkern\0", 7);
    memset(file + 64, 0x5a, 16);
    assert_false(load(file, 64 + size, &image, &err));
    assert_non_null(strstr(err.message, "xzkern"));
}

/* A few bytes that unpack to more than the guest has must not take the host's memory. */
static void decompression_bombs_are_refused(void **state)
{
    size_t size = 64 << 20;
    uint8_t *zeros = calloc(1, size), *packed = malloc(1 << 20);
    for (size_t i = 0; i < ARRAY_SIZE(packers); i++) {
        struct loader_image image;
        struct error err;
        size_t packed_size = packers[i].pack(zeros, size, packed, 1 << 20);
        assert_false(load(packed, packed_size, &image, &err));
        assert_non_null(strstr(err.message, "larger than guest RAM"));
    }
    free(zeros);
    free(packed);
}

static void anything_else_is_raw(void **state)
{
    struct loader_image image;
    assert_true(load("\x13\x00\x00\x00", 4, &image, NULL));
    assert_string_equal(image.format, "raw");
    assert_int_equal(image.entry, BASE);
    assert_int_equal(image.high, BASE + 4);
}

static void files_that_cannot_be_read_are_named(void **state)
{
    static const struct {
        const char *path, *words;
    } rows[] = {
        {"/nonexistent/vmlinux", "No such file"},
        {"/", "not a regular file"},
        {"/dev/null", "not a regular file"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct loader_file file;
        struct error err;
        assert_false(loader_open(&file, "--kernel", rows[i].path, &err));
        assert_non_null(strstr(err.message, rows[i].path));
        assert_non_null(strstr(err.message, rows[i].words));
        assert_non_null(strstr(err.message, "--kernel"));
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(elf_goes_to_its_addresses),
        TEST(elf_linked_at_zero_moves_and_starts_at_its_physical_entry),
        TEST(position_independent_firmware_may_start_at_zero),
        TEST(broken_elves_are_refused),
        TEST(every_truncated_elf_is_refused_or_whole),
        TEST(damaged_symbols_are_no_symbols),
        TEST(image_goes_where_its_header_says),
        TEST(image_larger_than_ram_is_refused),
        TEST(foreign_kernels_are_named),
        TEST(compressed_images_load),
        TEST(zboot_images_load),
        TEST(decompression_bombs_are_refused),
        TEST(anything_else_is_raw),
        TEST(files_that_cannot_be_read_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
