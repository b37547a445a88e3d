/* debug/symbols.h on small RISC-V programs (tests/unit/symbols), on tables, and on broken files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/base.h"
#include "debug/symbols.h"

static struct symbols *load(const char *program, int64_t offset)
{
    struct symbols *symbols = symbols_create();
    struct error err;
    char path[512];
    snprintf(path, sizeof(path), SYMBOLS_GUESTS "/%s", program);
    if (!symbols_add(symbols, path, offset, &err))
        fail_msg("%s", err.message);
    return symbols;
}

static uint64_t address_of(struct symbols *symbols, const char *name)
{
    uint64_t address;
    if (!symbols_address(symbols, name, &address))
        fail_msg("no symbol %s", name);
    return address;
}

static void assert_found(struct symbols *symbols, uint64_t address, const char *name,
                         uint64_t offset)
{
    struct symbol symbol;
    assert_true(symbols_find(symbols, address, &symbol));
    assert_string_equal(symbol.name, name);
    assert_int_equal(symbol.offset, offset);
    assert_int_equal(symbol.address + offset, address);
}

/* A file of its own, without a name in any folder. */
static bool add_bytes(struct symbols *symbols, const void *bytes, size_t size, struct error *err)
{
    char path[40];
    int fd = memfd_create("symbols", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), size);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    bool ok = symbols_add(symbols, path, 0, err);
    close(fd);
    return ok;
}

static struct symbols *load_text(const char *text)
{
    struct symbols *symbols = symbols_create();
    struct error err;
    if (!add_bytes(symbols, text, strlen(text), &err))
        fail_msg("%s", err.message);
    return symbols;
}

static void assert_refused(const void *bytes, size_t size, const char *fragment)
{
    struct symbols *symbols = symbols_create();
    struct error err = {0};
    assert_false(add_bytes(symbols, bytes, size, &err));
    if (!strstr(err.message, fragment))
        fail_msg("'%s' is not in: %s", fragment, err.message);
    assert_int_equal(symbols_count(symbols), 0);
    symbols_destroy(symbols);
}

/* --- Names --- */

static void functions_and_variables(void **state)
{
    struct symbols *symbols = load("clang-frames", 0);
    uint64_t outer = address_of(symbols, "outer");
    struct symbol symbol;
    assert_found(symbols, outer, "outer", 0);
    assert_found(symbols, outer + 6, "outer", 6);
    assert_true(symbols_find(symbols, outer, &symbol));
    assert_true(symbol.function);
    assert_true(symbol.size > 6);
    assert_found(symbols, address_of(symbols, "variable") + 15, "variable", 15);
    assert_true(symbols_find(symbols, address_of(symbols, "variable"), &symbol));
    assert_false(symbol.function);
    assert_false(symbols_find(symbols, 0x80200000 - 1, &symbol));
    assert_false(symbols_find(symbols, 0, &symbol));
    assert_false(symbols_find(symbols, UINT64_MAX, &symbol));
    uint64_t address;
    assert_false(symbols_address(symbols, "nonsense", &address));
    assert_false(symbols_address(symbols, "", &address));
    symbols_destroy(symbols);
}

static void labels_without_size(void **state)
{
    static const char *const programs[] = {"clang-lines", "gcc-lines"};
    for (size_t i = 0; i < ARRAY_SIZE(programs); i++) {
        struct symbols *symbols = load(programs[i], 0);
        uint64_t first = address_of(symbols, "bare_first");
        uint64_t second = address_of(symbols, "bare_second");
        assert_found(symbols, first, "bare_first", 0);
        assert_found(symbols, second - 1, "bare_first", second - 1 - first);
        assert_found(symbols, second, "bare_second", 0);
        /* A label inside of a function is no place of its own, but has an address. */
        uint64_t sized = address_of(symbols, "sized"), inside = address_of(symbols, "inside");
        assert_true(inside > sized);
        assert_found(symbols, inside, "sized", inside - sized);
        assert_int_equal(address_of(symbols, "__sized_alias"), sized);
        symbols_destroy(symbols);
    }
}

static void no_mapping_symbols(void **state)
{
    struct symbols *symbols = load("gcc-lines", 0);
    uint64_t address;
    struct symbol symbol;
    assert_false(symbols_address(symbols, "$x", &address));
    assert_false(symbols_address(symbols, "$d", &address));
    for (uint64_t at = 0x80200000; at < 0x80200200; at += 2)
        if (symbols_find(symbols, at, &symbol))
            assert_int_not_equal(symbol.name[0], '$');
    symbols_destroy(symbols);
}

static void offsets(void **state)
{
    struct symbols *plain = load("clang-lines", 0);
    uint64_t outer = address_of(plain, "outer");
    static const int64_t values[] = {0x1000, -0x80000000ll, INT64_MIN, 0x7fffffff00000000};
    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        struct symbols *moved = load("clang-lines", values[i]);
        struct symbols_place places[SYMBOLS_INLINED_MAX];
        uint64_t at = outer + (uint64_t)values[i];
        assert_int_equal(address_of(moved, "outer"), at);
        assert_found(moved, at + 2, "outer", 2);
        assert_true(symbols_line(moved, at, places));
        assert_string_equal(places[0].function, "outer");
        symbols_destroy(moved);
    }
    symbols_destroy(plain);
}

static void several_files(void **state)
{
    struct symbols *symbols = load("clang-lines", 0);
    struct error err;
    size_t count = symbols_count(symbols);
    assert_true(symbols_add(symbols, SYMBOLS_GUESTS "/gcc-lines", 0x10000000, &err));
    assert_int_equal(add_bytes(symbols, "garbage", 7, &err), false);
    const char *table = "ffffffff80001000 T kernel_text\n";
    assert_true(add_bytes(symbols, table, strlen(table), &err));
    assert_true(symbols_count(symbols) > count);
    assert_found(symbols, 0xffffffff80001004, "kernel_text", 4);
    assert_found(symbols, 0x80200000, "_start", 0);
    assert_found(symbols, 0x90200002, "_start", 2);
    symbols_destroy(symbols);
}

/* --- Lines --- */

/* The address of the call or store on a line of program.c, from what has the line. */
static uint64_t find_line(struct symbols *symbols, uint64_t from, unsigned line)
{
    struct symbols_place places[SYMBOLS_INLINED_MAX];
    for (uint64_t at = from; at < from + 200; at += 2)
        if (symbols_line(symbols, at, places) && places[0].line == line &&
            strstr(places[0].file, "program.c"))
            return at;
    fail_msg("no code of line %u", line);
    return 0;
}

static void lines_and_inlined_functions(void **state)
{
    static const char *const programs[] = {"clang-lines", "gcc-lines"};
    for (size_t i = 0; i < ARRAY_SIZE(programs); i++) {
        struct symbols *symbols = load(programs[i], 0);
        struct symbols_place places[SYMBOLS_INLINED_MAX];
        uint64_t at = find_line(symbols, 0x80200000, 13);
        assert_int_equal(symbols_line(symbols, at, places), 2);
        assert_string_equal(places[0].function, "inlined");
        assert_int_equal(places[0].line, 13);
        assert_true(places[0].column > 0);
        assert_string_equal(strrchr(places[0].file, '/'), "/program.c");
        assert_string_equal(places[1].function, "outer");
        assert_int_equal(places[1].line, 21);
        assert_string_equal(strrchr(places[1].file, '/'), "/program.c");

        at = find_line(symbols, 0x80200000, 6);
        assert_int_equal(symbols_line(symbols, at, places), 1);
        assert_string_equal(places[0].function, "fail");
        assert_int_equal(symbols_line(symbols, 0x1000, places), 0);

        /* Assembly has lines, and no functions. */
        assert_int_equal(symbols_line(symbols, address_of(symbols, "bare_second"), places), 1);
        assert_string_equal(strrchr(places[0].file, '/'), "/start.S");
        symbols_destroy(symbols);
    }
}

static void no_lines_without_dwarf(void **state)
{
    struct symbols *symbols = load("clang-frames", 0);
    struct symbols_place places[SYMBOLS_INLINED_MAX];
    assert_int_equal(symbols_line(symbols, address_of(symbols, "outer"), places), 0);
    symbols_destroy(symbols);
}

static void formatted(void **state)
{
    struct symbols *symbols = load("clang-lines", 0);
    char text[100], expected[100];
    uint64_t call = find_line(symbols, 0x80200000, 13);
    snprintf(expected, sizeof(expected), "outer+0x%llx (program.c:13)",
             (unsigned long long)(call - address_of(symbols, "outer")));
    assert_string_equal(symbols_format(symbols, call, false, text, sizeof(text)), expected);
    assert_string_equal(symbols_format(symbols, 0x1234, false, text, sizeof(text)), "0x1234");
    /* Behind the last instruction of a function, where a call that does not return would lead. */
    struct symbol symbol;
    assert_true(symbols_find(symbols, call, &symbol));
    symbols_format(symbols, symbol.address + symbol.size, true, text, sizeof(text));
    assert_memory_equal(text, "outer+0x", 8);
    for (size_t size = 1; size < 30; size++) {
        char *exact = malloc(size);
        symbols_format(symbols, call, false, exact, size);
        assert_true(strlen(exact) < size);
        free(exact);
    }
    symbols_destroy(symbols);
}

/* --- Tables --- */

static void tables(void **state)
{
    struct symbols *symbols = load_text("ffffffff80000000 T _start\n"
                                        "ffffffff80002000 t first\n"
                                        "ffffffff80002010 T __first_end\n"
                                        "ffffffff80002010 t second\r\n"
                                        "ffffffff80002020 D data\n"
                                        "\n"
                                        "0000000000000123 A number\n"
                                        "ffffffff80002030 t $x\n"
                                        "ffffffff01000000 t in_module\t[virtio_net]");
    struct symbol symbol;
    assert_found(symbols, 0xffffffff80001fff, "_start", 0x1fff);
    assert_found(symbols, 0xffffffff80002008, "first", 8);
    assert_found(symbols, 0xffffffff80002012, "second", 2);
    assert_found(symbols, 0xffffffff80002020, "data", 0);
    assert_found(symbols, 0xffffffff80002038, "data", 0x18);
    assert_found(symbols, 0xffffffff01000004, "in_module", 4);
    assert_false(symbols_find(symbols, 0x123, &symbol));
    assert_int_equal(address_of(symbols, "number"), 0x123);
    assert_int_equal(address_of(symbols, "__first_end"), 0xffffffff80002010);
    symbols_destroy(symbols);
}

static void broken_tables(void **state)
{
    static const struct {
        const char *text, *fragment;
    } cases[] = {
        {"", "no symbols"},
        {"\n\n", "no symbols"},
        {"hello\n", "neither an ELF file nor a table"},
        {"ffffffffffffffff B The real System.map is elsewhere\n", "line 1"},
        {"80000000 T a\n80000001 T\n", "line 2"},
        {"80000000 T a\n8000000100000000000 T b\n", "line 2"},
        {"80000000  T a\n", "line 1"},
        {"80000000", "line 1"},
        {"80000000 ", "line 1"},
        {"80000000 T", "line 1"},
        {"80000000 T ", "line 1"},
        {"80000000 U a\n", "no symbols"},
        {"0000000000000000 T a\n0000000000000000 T b\n", "kptr_restrict"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_refused(cases[i].text, strlen(cases[i].text), cases[i].fragment);
}

/* --- Files that are not what is wanted --- */

static uint8_t *read_program(const char *name, size_t *size)
{
    char path[512];
    snprintf(path, sizeof(path), SYMBOLS_GUESTS "/%s", name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    uint8_t *bytes = malloc(1 << 20);
    *size = fread(bytes, 1, 1 << 20, file);
    fclose(file);
    return bytes;
}

static void wrong_kinds(void **state)
{
    size_t size;
    uint8_t *bytes = read_program("clang-lines", &size);
    Elf64_Ehdr *header = (Elf64_Ehdr *)bytes;
    header->e_machine = EM_X86_64;
    assert_refused(bytes, size, "RISC-V");
    header->e_machine = EM_RISCV;
    header->e_type = ET_CORE;
    assert_refused(bytes, size, "no program");
    header->e_type = ET_EXEC;
    header->e_ident[EI_CLASS] = ELFCLASS32;
    assert_refused(bytes, size, "64-bit");
    free(bytes);

    bytes = read_program("object", &size);
    assert_refused(bytes, size, "kallsyms");
    free(bytes);
    bytes = read_program("clang-stripped", &size);
    assert_refused(bytes, size, "stripped");
    free(bytes);
    assert_refused("\177ELF", 4, "damaged");

    struct symbols *symbols = symbols_create();
    struct error err;
    assert_false(symbols_add(symbols, "/nonexistent/file", 0, &err));
    assert_non_null(strstr(err.message, "/nonexistent/file"));
    assert_false(symbols_add(symbols, "/tmp", 0, &err));
    assert_non_null(strstr(err.message, "/tmp"));
    symbols_destroy(symbols);
}

static void look_around(struct symbols *symbols)
{
    struct symbols_place places[SYMBOLS_INLINED_MAX];
    char text[100];
    for (uint64_t at = 0x80200000; at < 0x80200100; at += 6) {
        symbols_line(symbols, at, places);
        symbols_format(symbols, at, true, text, sizeof(text));
    }
}

/* Whatever is missing or wrong: an error, or less to be found. */
static void damaged(void **state)
{
    size_t size;
    uint8_t *bytes = read_program("clang-lines", &size);
    for (size_t cut = 0; cut < size; cut += 37) {
        struct symbols *symbols = symbols_create();
        struct error err = {0};
        if (add_bytes(symbols, bytes, cut, &err))
            look_around(symbols);
        else
            assert_true(err.message[0]);
        symbols_destroy(symbols);
    }
    uint32_t random = 1;
    for (unsigned round = 0; round < 300; round++) {
        uint8_t *copy = malloc(size);
        struct symbols *symbols = symbols_create();
        memcpy(copy, bytes, size);
        for (unsigned i = 0; i < 8; i++) {
            random = random * 1664525 + 1013904223;
            copy[random % size] ^= 1 << (random >> 29);
        }
        if (add_bytes(symbols, copy, size, NULL))
            look_around(symbols);
        symbols_destroy(symbols);
        free(copy);
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(functions_and_variables),
        cmocka_unit_test(labels_without_size),
        cmocka_unit_test(no_mapping_symbols),
        cmocka_unit_test(offsets),
        cmocka_unit_test(several_files),
        cmocka_unit_test(lines_and_inlined_functions),
        cmocka_unit_test(no_lines_without_dwarf),
        cmocka_unit_test(formatted),
        cmocka_unit_test(tables),
        cmocka_unit_test(broken_tables),
        cmocka_unit_test(wrong_kinds),
        cmocka_unit_test(damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
