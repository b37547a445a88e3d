/* The guest's address space: RAM, ROM, registers that come and go, DMA, saved contents. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "memory/memory.h"

#define RAM_BASE UINT64_C(0x80000000)
#define RAM_SIZE UINT64_C(0x400000)
#define PAGE     UINT64_C(4096)

/* Registers that remember the last access. */
struct probe {
    unsigned reads, writes;
    uint64_t offsets[8];
    unsigned sizes[8];
    uint64_t values[8];
};

static uint64_t probe_read(void *opaque, uint64_t offset, unsigned size)
{
    struct probe *probe = opaque;
    probe->offsets[probe->reads % 8] = offset;
    probe->sizes[probe->reads++ % 8] = size;
    return UINT64_C(0xf0e0d0c0b0a09080) + offset; /* more than was asked for */
}

static void probe_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct probe *probe = opaque;
    probe->offsets[probe->writes % 8] = offset;
    probe->values[probe->writes % 8] = value;
    probe->sizes[probe->writes++ % 8] = size;
}

static const struct mmio_ops any_size = {.read = probe_read, .write = probe_write};
static const struct mmio_ops only_words = {
    .read = probe_read, .write = probe_write, .min_size = 4, .max_size = 4};
static const struct mmio_ops split_words = {
    .read = probe_read, .write = probe_write, .max_size = 4, .split = true};

static struct memory *memory_with_ram(void)
{
    struct memory *memory = memory_create();
    struct error err;
    assert_true(memory_add_ram(memory, RAM_BASE, RAM_SIZE, &err));
    return memory;
}

/* What a listener was told. */
struct told {
    unsigned remapped, written;
    uint64_t gpa, size;
    uint64_t written_total;
};

static void on_remapped(void *opaque, uint64_t gpa, uint64_t size)
{
    struct told *told = opaque;
    told->remapped++;
    told->gpa = gpa;
    told->size = size;
}

static void on_code_written(void *opaque, uint64_t gpa, uint64_t size)
{
    struct told *told = opaque;
    told->written++;
    told->written_total += size;
    told->gpa = gpa;
    told->size = size;
}

static void listen(struct memory *memory, struct told *told)
{
    *told = (struct told){0};
    struct memory_listener listener = {
        .remapped = on_remapped, .code_written = on_code_written, .opaque = told};
    memory_set_listener(memory, &listener);
}

static void test_ram_access(void **state)
{
    struct memory *memory = memory_with_ram();
    uint64_t value;
    for (unsigned size = 1; size <= 8; size *= 2) {
        for (unsigned offset = 0; offset < 16; offset++) {
            uint64_t gpa = RAM_BASE + 0x100 + offset;
            assert_true(memory_dma_fill(memory, RAM_BASE + 0xf0, 0xee, 64));
            assert_true(memory_write(memory, gpa, size, UINT64_C(0x8877665544332211)));
            assert_true(memory_read(memory, gpa, size, &value));
            assert_int_equal(value, UINT64_C(0x8877665544332211) & size_mask(size));
            assert_true(memory_read(memory, gpa - 1, 1, &value));
            assert_int_equal(value, 0xee);
            assert_true(memory_read(memory, gpa + size, 1, &value));
            assert_int_equal(value, 0xee);
        }
    }
    assert_false(memory_read(memory, RAM_BASE - 1, 1, &value));
    assert_false(memory_read(memory, RAM_BASE + RAM_SIZE, 1, &value));
    assert_false(memory_read(memory, RAM_BASE + RAM_SIZE - 4, 8, &value));
    assert_false(memory_write(memory, RAM_BASE + RAM_SIZE - 4, 8, 1));
    assert_false(memory_read(memory, UINT64_MAX, 1, &value));
    assert_true(memory_write(memory, RAM_BASE + RAM_SIZE - 8, 8, 1));
    memory_destroy(memory);
    memory_destroy(NULL);
}

static void test_ram_regions(void **state)
{
    struct memory *memory = memory_with_ram();
    struct error err;
    assert_true(memory_add_ram(memory, UINT64_C(0x100000000), PAGE, &err));
    assert_true(memory_add_ram(memory, 0x40000000, 2 * PAGE, &err));
    static uint8_t rom[4096];
    assert_true(memory_add_rom(memory, 0x1000, PAGE, rom, NULL, NULL, &err));
    size_t count;
    const struct memory_ram *ram = memory_ram_regions(memory, &count);
    assert_int_equal(count, 3);
    assert_int_equal(ram[0].base, 0x40000000);
    assert_int_equal(ram[1].base, RAM_BASE);
    assert_int_equal(ram[2].base, UINT64_C(0x100000000));
    assert_int_equal(memory_ram_size(memory), RAM_SIZE + 3 * PAGE);
    assert_true(memory_write(memory, 0x40000000 + PAGE, 4, 0x12345678));
    assert_int_equal(load_le32(ram[0].host + PAGE), 0x12345678);
    if (ram[0].fd >= 0) { /* another mapping of it is the same memory */
        uint8_t *again =
            mmap(NULL, ram[0].size, PROT_READ, MAP_SHARED, ram[0].fd, (off_t)ram[0].fd_offset);
        assert_ptr_not_equal(again, MAP_FAILED);
        assert_int_equal(load_le32(again + PAGE), 0x12345678);
        munmap(again, ram[0].size);
    }
    memory_destroy(memory);
}

static void test_refused(void **state)
{
    static const struct {
        uint64_t base, size;
        const char *message;
    } cases[] = {
        {RAM_BASE + RAM_SIZE - PAGE, PAGE, "overlaps the RAM at 0x80000000"},
        {0, UINT64_C(1) << 63, "overlaps the RAM"},
        {0x10000000, PAGE, "overlaps uart at 0x10000000"},
        {0x0ffff000, 2 * PAGE, "overlaps uart"},
        {0x800, PAGE, "whole pages"},
        {0, 0x800, "whole pages"},
        {0x1000, 0, "does not fit"},
        {UINT64_C(0xfffffffffffff000), 2 * PAGE, "does not fit"},
        {UINT64_C(1) << 56, UINT64_C(1) << 50, "cannot map 1073741824 MiB of guest RAM"},
    };
    struct memory *memory = memory_with_ram();
    struct probe probe = {0};
    struct error err;
    assert_true(memory_add_mmio(memory, 0x10000000, 0x100, &any_size, &probe, "uart", &err));
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_false(memory_add_ram(memory, cases[i].base, cases[i].size, &err));
        if (!strstr(err.message, cases[i].message))
            fail_msg("'%s' is not in '%s'", cases[i].message, err.message);
    }
    assert_false(memory_add_mmio(memory, 0x100000f8, 16, &any_size, &probe, "b", &err));
    assert_string_equal(err.message, "b at 0x100000f8..0x10000107 overlaps uart at 0x10000000");
    assert_false(memory_add_mmio(memory, RAM_BASE + 4, 4, &any_size, &probe, "b", &err));
    assert_false(memory_add_mmio(memory, UINT64_MAX, 2, &any_size, &probe, "b", &err));
    assert_false(memory_add_mmio(memory, 0x20000000, 0, &any_size, &probe, "b", &err));
    /* Right behind and before, and at the very end, there is room. */
    assert_true(memory_add_mmio(memory, 0x10000100, 8, &any_size, &probe, "after", &err));
    assert_true(memory_add_mmio(memory, 0x0ffffff8, 8, &any_size, &probe, "before", &err));
    assert_true(memory_add_mmio(memory, UINT64_MAX - 7, 8, &any_size, &probe, "end", &err));
    uint64_t value;
    assert_true(memory_read(memory, UINT64_MAX - 7, 8, &value));
    assert_false(memory_read(memory, UINT64_MAX - 3, 8, &value));
    memory_destroy(memory);
}

/* Two RAM regions side by side: an access may lie in both; one that ends in registers may not. */
static void test_across_regions(void **state)
{
    struct memory *memory = memory_with_ram();
    struct probe probe = {0};
    struct error err;
    uint64_t border = RAM_BASE + RAM_SIZE, value = 0;
    assert_true(memory_add_ram(memory, border, PAGE, &err));
    assert_true(memory_add_mmio(memory, border + PAGE, 8, &any_size, &probe, "m", &err));
    assert_true(memory_write(memory, border - 3, 8, UINT64_C(0x1122334455667788)));
    assert_true(memory_read(memory, border - 3, 8, &value));
    assert_int_equal(value, UINT64_C(0x1122334455667788));
    assert_true(memory_read(memory, border, 1, &value));
    assert_int_equal(value, 0x55);
    assert_false(memory_write(memory, border + PAGE - 4, 8, UINT64_MAX));
    assert_false(memory_read(memory, border + PAGE - 4, 8, &value));
    assert_int_equal(probe.writes + probe.reads, 0);
    assert_true(memory_read(memory, border + PAGE - 4, 4, &value));
    assert_int_equal(value, 0);

    uint8_t out[300], in[300];
    for (size_t i = 0; i < sizeof(out); i++)
        out[i] = (uint8_t)(i * 7);
    assert_true(memory_dma_write(memory, border - 100, out, sizeof(out)));
    assert_true(memory_dma_read(memory, border - 100, in, sizeof(in)));
    assert_memory_equal(in, out, sizeof(in));
    size_t size = 300;
    assert_non_null(memory_dma_begin(memory, border - 100, &size, false));
    assert_int_equal(size, 100);
    memory_destroy(memory);
}

static void test_dma_refused(void **state)
{
    struct memory *memory = memory_with_ram();
    static uint8_t rom[4096] = "rom";
    struct error err;
    uint8_t buffer[16] = "0123456789abcde";
    assert_true(memory_add_rom(memory, RAM_BASE - PAGE, PAGE, rom, NULL, NULL, &err));
    uint64_t end = RAM_BASE + RAM_SIZE;
    assert_false(memory_dma_write(memory, end - 8, buffer, 16));
    assert_false(memory_dma_read(memory, end - 8, buffer, 16));
    assert_false(memory_dma_fill(memory, end - 8, 1, UINT64_MAX));
    assert_false(memory_dma_fill(memory, RAM_BASE, 1, UINT64_MAX));
    assert_false(memory_dma_write(memory, RAM_BASE - 8, buffer, 16));
    uint64_t value;
    assert_true(memory_read(memory, end - 8, 8, &value));
    assert_int_equal(value, 0); /* nothing was written */
    assert_true(memory_dma_read(memory, RAM_BASE - PAGE, buffer, 4));
    assert_string_equal(buffer, "rom");
    assert_true(memory_dma_read(memory, 0, buffer, 0));
    size_t size = 16;
    assert_null(memory_dma_begin(memory, end, &size, false));
    assert_null(memory_dma_begin(memory, RAM_BASE - 8, &size, true));
    size = SIZE_MAX;
    assert_non_null(memory_dma_begin(memory, RAM_BASE + 1, &size, true));
    assert_int_equal(size, RAM_SIZE - 1);
    memory_dma_end(memory, RAM_BASE + 1, size, true);
    memory_dma_end(memory, RAM_BASE + 1, SIZE_MAX, true); /* more than was lent: cut down */
    memory_destroy(memory);
}

static void test_registers(void **state)
{
    struct memory *memory = memory_with_ram();
    struct probe probe = {0};
    struct error err;
    uint64_t value;
    assert_true(memory_add_mmio(memory, 0x1000, 0x20, &any_size, &probe, "any", &err));
    for (unsigned size = 1; size <= 8; size *= 2) {
        unsigned reads = probe.reads;
        assert_true(memory_read(memory, 0x1008, size, &value));
        assert_int_equal(value, UINT64_C(0xf0e0d0c0b0a09088) & size_mask(size));
        assert_int_equal(probe.reads, reads + 1);
        assert_int_equal(probe.offsets[reads], 8);
        assert_int_equal(probe.sizes[reads], size);
        assert_true(memory_write(memory, 0x1010, size, UINT64_MAX));
        assert_int_equal(probe.values[reads], size_mask(size));
    }
    assert_false(memory_read(memory, 0x1001, 2, &value));
    assert_false(memory_write(memory, 0x1004, 8, 0));
    assert_false(memory_read(memory, 0x1020, 1, &value));
    assert_false(memory_read(memory, 0xfff, 1, &value));
    assert_int_equal(probe.reads + probe.writes, 8);
    memory_destroy(memory);
}

static void test_register_sizes(void **state)
{
    struct memory *memory = memory_create();
    struct probe words = {0}, split = {0}, dead = {0};
    static const struct mmio_ops neither = {.max_size = 8};
    struct error err;
    uint64_t value;
    assert_true(memory_add_mmio(memory, 0x1000, 0x14, &only_words, &words, "words", &err));
    assert_true(memory_add_mmio(memory, 0x2000, 0x14, &split_words, &split, "split", &err));
    assert_true(memory_add_mmio(memory, 0x3000, 0x10, &neither, &dead, "neither", &err));
    assert_true(memory_read(memory, 0x1004, 4, &value));
    for (unsigned size = 1; size <= 8; size *= 2) {
        assert_int_equal(memory_read(memory, 0x1008, size, &value), size == 4);
        assert_int_equal(memory_write(memory, 0x1008, size, 0), size == 4);
        assert_false(memory_read(memory, 0x3000, size, &value));
        assert_false(memory_write(memory, 0x3000, size, 0));
    }
    assert_true(memory_read(memory, 0x2008, 8, &value));
    assert_int_equal(value, UINT64_C(0xb0a0908cb0a09088));
    assert_int_equal(split.reads, 2);
    assert_true(memory_write(memory, 0x2008, 8, UINT64_C(0x1122334455667788)));
    assert_int_equal(split.writes, 2);
    assert_int_equal(split.offsets[0], 8);
    assert_int_equal(split.values[0], 0x55667788);
    assert_int_equal(split.offsets[1], 12);
    assert_int_equal(split.values[1], 0x11223344);
    assert_true(memory_write(memory, 0x2001, 1, 0x99));
    assert_int_equal(split.sizes[2], 1);
    assert_false(memory_read(memory, 0x2010, 8, &value)); /* half of it lies outside */
    assert_int_equal(split.reads, 2);
    memory_destroy(memory);
}

static void test_rom(void **state)
{
    struct memory *memory = memory_create();
    struct error err;
    struct probe probe = {0};
    struct told told;
    uint8_t *host;
    uint8_t *rom = aligned_alloc(4096, 8192);
    memset(rom, 0x5a, 8192);
    assert_true(memory_add_rom(memory, 0x1000, PAGE, rom, NULL, NULL, &err));
    assert_true(memory_add_rom(memory, 0x20000000, PAGE, rom + 4096, &any_size, &probe, &err));
    listen(memory, &told);
    uint64_t value;
    assert_true(memory_read(memory, 0x1001, 4, &value));
    assert_int_equal(value, 0x5a5a5a5a);
    assert_false(memory_write(memory, 0x1000, 4, 1));
    assert_int_equal(memory_page(memory, 0x1fff, &host), MEMORY_ROM);
    assert_ptr_equal(host, rom);
    /* Flash: stores are commands, which turn reads into register reads and back. */
    assert_true(memory_write(memory, 0x20000008, 4, 0x90));
    assert_int_equal(probe.values[0], 0x90);
    assert_int_equal(memory_page(memory, 0x20000008, &host), MEMORY_ROM);
    memory_set_rom_mode(memory, 0x20000000, true);
    assert_int_equal(told.remapped, 1);
    assert_int_equal(told.gpa, 0x20000000);
    assert_int_equal(told.size, PAGE);
    assert_int_equal(memory_page(memory, 0x20000008, &host), MEMORY_MMIO);
    assert_true(memory_read(memory, 0x20000004, 4, &value));
    assert_int_equal(value, 0xb0a09084);
    memory_set_rom_mode(memory, 0x20000000, true);
    assert_int_equal(told.remapped, 1);
    memory_set_rom_mode(memory, 0x20000000, false);
    assert_int_equal(told.remapped, 2);
    assert_true(memory_read(memory, 0x20000004, 4, &value));
    assert_int_equal(value, 0x5a5a5a5a);
    assert_int_equal(rom[0], 0x5a);
    memory_destroy(memory);
    free(rom);
}

static void test_page_kinds(void **state)
{
    struct memory *memory = memory_with_ram();
    struct probe probe = {0};
    struct error err;
    uint8_t *host = NULL;
    assert_true(memory_add_mmio(memory, 0x10000ff8, 0x10, &any_size, &probe, "edge", &err));
    assert_int_equal(memory_page(memory, 0x10000000, &host), MEMORY_MMIO);
    assert_int_equal(memory_page(memory, 0x10001fff, &host), MEMORY_MMIO);
    assert_int_equal(memory_page(memory, 0x10002000, &host), MEMORY_NONE);
    assert_int_equal(memory_page(memory, 0x0fffffff, &host), MEMORY_NONE);
    size_t count;
    const struct memory_ram *ram = memory_ram_regions(memory, &count);
    assert_int_equal(memory_page(memory, RAM_BASE + 5 * PAGE + 77, &host), MEMORY_RAM);
    assert_ptr_equal(host, ram->host + 5 * PAGE);
    assert_int_equal(memory_page(memory, RAM_BASE + RAM_SIZE, &host), MEMORY_NONE);
    assert_int_equal(memory_page(memory, UINT64_MAX, &host), MEMORY_NONE);
    memory_destroy(memory);
}

/* Regions looked up in a crowd, against a plain list. */
static void test_many_regions(void **state)
{
    enum { SLOTS = 256 };
    struct memory *memory = memory_create();
    static struct probe probes[SLOTS];
    bool mapped[SLOTS] = {false};
    uint64_t value;
    srand(11);
    for (int step = 0; step < 5000; step++) {
        int slot = rand() % SLOTS;
        uint64_t base = (uint64_t)slot * 0x100;
        if (mapped[slot])
            memory_remove_mmio(memory, base);
        else
            assert_true(memory_add_mmio(memory, base, 0x80, &any_size, &probes[slot], "r", NULL));
        mapped[slot] = !mapped[slot];
        int other = rand() % SLOTS;
        unsigned reads = probes[other].reads;
        assert_int_equal(memory_read(memory, (uint64_t)other * 0x100 + 0x78, 8, &value),
                         mapped[other]);
        assert_int_equal(probes[other].reads, reads + mapped[other]);
        assert_false(memory_read(memory, (uint64_t)other * 0x100 + 0x80, 8, &value));
    }
    memory_remove_mmio(memory, 0x12340000); /* nothing there: nothing happens */
    memory_destroy(memory);
}

static void test_code_marks(void **state)
{
    struct memory *memory = memory_with_ram();
    struct told told;
    listen(memory, &told);
    uint64_t a = RAM_BASE + 4 * PAGE, value = 0;
    assert_true(memory_dma_write(memory, a, &value, 8));
    assert_int_equal(told.written, 0);
    memory_mark_code(memory, a + 100);
    assert_true(memory_dma_read(memory, a, &value, 8));
    assert_true(memory_dma_write(memory, a + PAGE, &value, 8));
    assert_true(memory_dma_write(memory, a - 8, &value, 8));
    assert_int_equal(told.written, 0);
    assert_true(memory_dma_write(memory, a - 4, &value, 8)); /* its last bytes touch the page */
    assert_int_equal(told.written, 1);
    assert_int_equal(told.gpa, a);
    assert_int_equal(told.size, PAGE);
    assert_true(memory_dma_write(memory, a, &value, 8)); /* the mark is gone */
    assert_int_equal(told.written, 1);
    /* A run of marked pages is one call, a gap makes two. */
    static const int marked[] = {0, 1, 2, 4};
    for (size_t i = 0; i < ARRAY_SIZE(marked); i++)
        memory_mark_code(memory, a + (uint64_t)marked[i] * PAGE);
    assert_true(memory_dma_fill(memory, a + 8, 0, 16 * PAGE));
    assert_int_equal(told.written, 3);
    assert_int_equal(told.gpa, a + 4 * PAGE);
    assert_int_equal(told.written_total, 5 * PAGE);
    /* Lent buffers, when they are given back; harts, when they go through memory_write. */
    memory_mark_code(memory, a);
    size_t size = 100;
    memset(memory_dma_begin(memory, a, &size, true), 1, size);
    assert_int_equal(told.written, 3);
    memory_dma_end(memory, a, size, false);
    assert_int_equal(told.written, 3);
    memory_dma_end(memory, a, size, true);
    assert_int_equal(told.written, 4);
    memory_mark_code(memory, a);
    assert_true(memory_write(memory, a - 4, 8, 1));
    assert_int_equal(told.written, 5);
    /* The last page of the region. */
    memory_mark_code(memory, RAM_BASE + RAM_SIZE - 1);
    assert_true(memory_dma_fill(memory, RAM_BASE, 0, RAM_SIZE));
    assert_int_equal(told.gpa, RAM_BASE + RAM_SIZE - PAGE);
    assert_int_equal(told.size, PAGE);
    assert_false(memory_mark_code(memory, 0x1000)); /* not RAM */
    /* A fast path for stores: not by the way, and not unnoticed. */
    told.written = 0;
    assert_true(memory_mark_code(memory, a));
    assert_false(memory_allow_stores(memory, a + 8, false));
    assert_int_equal(told.written, 0);
    assert_true(memory_allow_stores(memory, a + 8, true));
    assert_int_equal(told.written, 1);
    assert_int_equal(told.gpa, a);
    assert_false(memory_mark_code(memory, a));
    assert_true(memory_allow_stores(memory, a, false));
    memory_forget_stores(memory, a);
    assert_true(memory_mark_code(memory, a));
    assert_true(memory_allow_stores(memory, a + PAGE, false));
    assert_int_equal(told.written, 1);
    memory_set_listener(memory, NULL);
    memory_mark_code(memory, a);
    assert_true(memory_dma_fill(memory, a, 0, 1));
    memory_destroy(memory);
}

struct watched {
    struct memory *memory;
    unsigned calls;
    uint64_t gpa, value;
};

static void on_watched(void *opaque, uint64_t gpa)
{
    struct watched *watched = opaque;
    watched->calls++;
    watched->gpa = gpa;
    memory_dma_read(watched->memory, RAM_BASE + 0x1040, &watched->value, 8);
}

static void test_watch(void **state)
{
    struct memory *memory = memory_with_ram();
    struct watched watched = {.memory = memory};
    uint8_t *host, *same;
    memory_watch(memory, RAM_BASE + 0x1040, 8, on_watched, &watched);
    memory_watch(memory, 0x1040, 8, on_watched, &watched);                  /* not RAM: ignored */
    memory_watch(memory, RAM_BASE + RAM_SIZE - 4, 8, on_watched, &watched); /* nor this */
    assert_int_equal(memory_page(memory, RAM_BASE + 0x1000, &host), MEMORY_ROM);
    assert_int_equal(memory_page(memory, RAM_BASE, &same), MEMORY_RAM);
    assert_int_equal(memory_page(memory, RAM_BASE + RAM_SIZE - 1, &same), MEMORY_RAM);
    assert_true(memory_write(memory, RAM_BASE + 0x1048, 8, 1));
    assert_true(memory_write(memory, RAM_BASE + 0x1038, 8, 1));
    assert_int_equal(watched.calls, 0);
    assert_true(memory_write(memory, RAM_BASE + 0x1040, 8, 0x55aa));
    assert_int_equal(watched.calls, 1);
    assert_int_equal(watched.value, 0x55aa);
    assert_int_equal(watched.gpa, RAM_BASE + 0x1040);
    assert_true(memory_write(memory, RAM_BASE + 0x103d, 4, 0));
    assert_true(memory_write(memory, RAM_BASE + 0x1047, 1, 0));
    assert_int_equal(watched.calls, 3);
    assert_int_equal(load_le(host + 0x40, 2), 0x5500);
    /* An AMO takes this way around. */
    size_t size = 8;
    assert_ptr_equal(memory_dma_begin(memory, RAM_BASE + 0x1040, &size, true), host + 0x40);
    memory_dma_end(memory, RAM_BASE + 0x1040, size, true);
    assert_int_equal(watched.calls, 3);
    memory_destroy(memory);
}

static void fill_pattern(struct memory *memory)
{
    assert_true(memory_dma_fill(memory, RAM_BASE, 0x11, 2 * PAGE));
    assert_true(memory_write(memory, RAM_BASE + 7 * PAGE + 4095, 1, 1));
    assert_true(memory_dma_fill(memory, RAM_BASE + 20 * PAGE, 0, 5 * PAGE)); /* touched, but zero */
    assert_true(memory_write(memory, RAM_BASE + RAM_SIZE - 8, 8, 42));
    assert_true(memory_write(memory, UINT64_C(0x100000000), 8, 43));
}

static struct memory *memory_with_two_regions(void)
{
    struct memory *memory = memory_with_ram();
    assert_true(memory_add_ram(memory, UINT64_C(0x100000000), 3 * PAGE, NULL));
    return memory;
}

static void test_state(void **state)
{
    struct memory *memory = memory_with_two_regions();
    fill_pattern(memory);
    struct stream *saved = stream_create_saving();
    memory_state(memory, saved);
    assert_false(stream_failed(saved));
    size_t size;
    const void *data = stream_data(saved, &size);
    /* Five pages that are not zero, a bit for each page, and little else. */
    assert_in_range(size, 5 * PAGE + RAM_SIZE / PAGE / 8, 5 * PAGE + RAM_SIZE / PAGE / 8 + 128);

    struct memory *other = memory_with_two_regions();
    struct told told;
    listen(other, &told);
    assert_true(memory_dma_fill(other, RAM_BASE, 0xff, RAM_SIZE));
    assert_true(memory_dma_fill(other, UINT64_C(0x100000000), 0xff, 3 * PAGE));
    memory_mark_code(other, RAM_BASE + PAGE);
    struct stream *stream = stream_create_loading(data, size);
    memory_state(other, stream);
    struct error err;
    assert_true(stream_check(stream, &err));
    size_t count, other_count;
    const struct memory_ram *ram = memory_ram_regions(memory, &count);
    const struct memory_ram *other_ram = memory_ram_regions(other, &other_count);
    assert_int_equal(count, 2);
    assert_int_equal(other_count, 2);
    for (size_t i = 0; i < count; i++)
        assert_memory_equal(ram[i].host, other_ram[i].host, ram[i].size);
    assert_int_equal(told.written, 1);
    assert_int_equal(told.remapped, 2);
    stream_destroy(stream);
    memory_destroy(other);
    stream_destroy(saved);
    memory_destroy(memory);
}

static size_t resident_bytes(const struct memory_ram *ram)
{
    size_t pages = ram->size / PAGE, resident = 0;
    unsigned char *core = xcalloc(pages, 1);
    assert_int_equal(mincore(ram->host, ram->size, core), 0);
    for (size_t i = 0; i < pages; i++)
        resident += core[i] & 1;
    free(core);
    return resident * PAGE;
}

/* RAM that was never touched is neither looked at nor allocated by saving. */
static void test_state_of_holes(void **state)
{
    struct memory *memory = memory_create();
    uint64_t huge = UINT64_C(8) << 30;
    assert_true(memory_add_ram(memory, RAM_BASE, huge, NULL));
    assert_true(memory_write(memory, RAM_BASE + huge - PAGE, 8, 1));
    struct stream *saved = stream_create_saving();
    memory_state(memory, saved);
    size_t size;
    stream_data(saved, &size);
    assert_in_range(size, PAGE, PAGE + huge / PAGE / 8 + 128);
    size_t count;
    assert_in_range(resident_bytes(memory_ram_regions(memory, &count)), PAGE, 2 << 20);
    stream_destroy(saved);
    memory_destroy(memory);
}

static void test_state_mistakes(void **state)
{
    struct memory *memory = memory_with_two_regions();
    fill_pattern(memory);
    struct stream *saved = stream_create_saving();
    memory_state(memory, saved);
    size_t size;
    const uint8_t *data = stream_data(saved, &size);
    struct error err;

    struct memory *smaller = memory_with_ram();
    struct stream *stream = stream_create_loading(data, size);
    memory_state(smaller, stream);
    assert_false(stream_check(stream, &err));
    assert_string_equal(err.message,
                        "saved state: ram: 2 RAM regions were saved, the machine has 1");
    stream_destroy(stream);
    assert_true(memory_add_ram(smaller, UINT64_C(0x100000000), PAGE, NULL));
    stream = stream_create_loading(data, size);
    memory_state(smaller, stream);
    assert_false(stream_check(stream, &err));
    assert_non_null(strstr(err.message, "start it with the same --memory"));
    stream_destroy(stream);
    memory_destroy(smaller);

    static const size_t cuts[] = {0, 10, 30, 60, 200, 5000, 20000};
    for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
        uint8_t *cut = xmalloc(cuts[i]);
        memcpy(cut, data, cuts[i]);
        stream = stream_create_loading(cut, cuts[i]);
        memory_state(memory, stream);
        assert_true(stream_failed(stream));
        stream_destroy(stream);
        free(cut);
    }
    stream_destroy(saved);
    memory_destroy(memory);
}

static void test_trace(void **state)
{
    char path[] = "/tmp/hartvisor-memory-XXXXXX", specification[64], text[512];
    int fd = mkstemp(path);
    snprintf(specification, sizeof(specification), "mmio:%s", path);
    assert_true(trace_configure(specification, NULL));
    struct memory *memory = memory_with_ram();
    struct probe probe = {0};
    uint64_t value;
    assert_true(memory_add_mmio(memory, 0x1000, 0x20, &any_size, &probe, "uart", NULL));
    assert_true(memory_read(memory, 0x1004, 2, &value));
    assert_true(memory_write(memory, 0x1010, 1, 0xfff));
    assert_true(memory_read(memory, RAM_BASE, 8, &value)); /* no registers: not traced */
    trace_finish();
    ssize_t length = read(fd, text, sizeof(text) - 1);
    assert_true(length > 0);
    text[length] = '\0';
    assert_string_equal(text, "mmio: read uart+0x4 size 2 value 0x9084\n"
                              "mmio: write uart+0x10 size 1 value 0xff\n");
    close(fd);
    unlink(path);
    memory_destroy(memory);
}

/* A register function that moves another region, and its own: as a BAR write does. */
struct mover {
    struct memory *memory;
    struct probe *probe;
    uint64_t at;
};

static uint64_t mover_read(void *opaque, uint64_t offset, unsigned size)
{
    struct mover *mover = opaque;
    return mover->at;
}

static void mover_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct mover *mover = opaque;
    memory_remove_mmio(mover->memory, mover->at);
    mover->at = value;
    if (value)
        memory_add_mmio(mover->memory, value, 16, &any_size, mover->probe, "moved", NULL);
    else
        memory_remove_mmio(mover->memory, 0x1000); /* the region that this write is for */
}

static const struct mmio_ops mover_ops = {.read = mover_read, .write = mover_write};

static void test_remap_from_inside(void **state)
{
    struct memory *memory = memory_create();
    struct probe probe = {0};
    struct mover mover = {.memory = memory, .probe = &probe};
    uint64_t value;
    assert_true(memory_add_mmio(memory, 0x1000, 8, &mover_ops, &mover, "mover", NULL));
    for (uint64_t at = 0x2000; at < 0x4000; at += 0x100) {
        assert_true(memory_write(memory, 0x1000, 8, at));
        assert_true(memory_read(memory, at, 8, &value));
        assert_false(memory_read(memory, at - 0x100, 8, &value));
    }
    assert_true(memory_write(memory, 0x1000, 8, 0));
    assert_false(memory_write(memory, 0x1000, 8, 0x2000));
    memory_destroy(memory);
}

/* Removal waits for the register functions of other threads. */
struct busy {
    struct memory *memory;
    _Atomic bool gone;
    _Atomic unsigned calls, inside, mistakes;
    _Atomic bool stop;
};

static uint64_t busy_read(void *opaque, uint64_t offset, unsigned size)
{
    struct busy *busy = opaque;
    busy->inside++;
    busy->calls++;
    for (int i = 0; i < 200; i++)
        if (busy->gone)
            busy->mistakes++;
    busy->inside--;
    return 0;
}

static const struct mmio_ops busy_ops = {.read = busy_read};

static void *keep_reading(void *opaque)
{
    struct busy *busy = opaque;
    uint64_t value, gpa = 0;
    uint8_t *host;
    while (!busy->stop) {
        gpa += 8;
        memory_read(busy->memory, 0x1000 + gpa % 0x1000, 8, &value);
        memory_page(busy->memory, 0x1000, &host);
        memory_write(busy->memory, RAM_BASE + gpa % RAM_SIZE, 8, gpa);
    }
    return NULL;
}

static void test_removal_waits(void **state)
{
    enum { THREADS = 3, ROUNDS = 1000 };
    struct busy busy = {.memory = memory_with_ram()};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, keep_reading, &busy);
    for (int i = 0; i < ROUNDS; i++) {
        busy.gone = false;
        memory_add_mmio(busy.memory, 0x1000, 0x1000, &busy_ops, &busy, "busy", NULL);
        if (i % 10 == 0)
            while (!busy.inside)
                sched_yield();
        memory_remove_mmio(busy.memory, 0x1000);
        busy.gone = true;
        if (busy.inside)
            busy.mistakes++;
        /* Meanwhile the tables of RAM change too. */
        if (i % 100 == 0)
            memory_add_ram(busy.memory, UINT64_C(0x200000000) + (uint64_t)i * PAGE, PAGE, NULL);
    }
    busy.stop = true;
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_true(busy.calls > 0);
    assert_int_equal(busy.mistakes, 0);
    size_t count;
    memory_ram_regions(busy.memory, &count);
    assert_int_equal(count, 1 + ROUNDS / 100);
    memory_destroy(busy.memory);
}

/*
 * An engine marks a page and reads it while a device writes: the engine has read what was written,
 * or code_written was called.
 */
struct marking {
    struct memory *memory;
    _Atomic unsigned arrived;
    unsigned reported; /* on the device's thread */
    uint64_t translated;
};

enum { MARK_ROUNDS = 20000 };

static void on_marked_written(void *opaque, uint64_t gpa, uint64_t size)
{
    ((struct marking *)opaque)->reported++;
}

/* Both threads leave at the same moment, which those of a pthread_barrier do not. */
static void meet(struct marking *marking, unsigned count)
{
    marking->arrived++;
    for (unsigned spins = 1; marking->arrived < 2 * count; spins++)
        if (spins % 1000 == 0)
            sched_yield();
}

static void *translate(void *opaque)
{
    struct marking *marking = opaque;
    for (unsigned round = 0; round < MARK_ROUNDS; round++) {
        meet(marking, 2 * round + 1);
        for (volatile unsigned delay = round % 64; delay > 0; delay--)
            ; /* so that each interleaving has its turn */
        memory_mark_code(marking->memory, RAM_BASE);
        memory_read(marking->memory, RAM_BASE, 8, &marking->translated);
        meet(marking, 2 * round + 2);
    }
    return NULL;
}

static void test_marks_race(void **state)
{
    struct marking marking = {.memory = memory_with_ram()};
    struct memory_listener listener = {.code_written = on_marked_written, .opaque = &marking};
    memory_set_listener(marking.memory, &listener);
    pthread_t thread;
    pthread_create(&thread, NULL, translate, &marking);
    unsigned stale = 0;
    for (unsigned round = 0; round < MARK_ROUNDS; round++) {
        unsigned before = marking.reported;
        uint64_t value = round + 1;
        meet(&marking, 2 * round + 1);
        memory_dma_write(marking.memory, RAM_BASE, &value, 8);
        meet(&marking, 2 * round + 2);
        stale += marking.translated != value && marking.reported == before;
    }
    pthread_join(thread, NULL);
    assert_int_equal(stale, 0);
    memory_destroy(marking.memory);
}

static void background_answers_where_nothing_else_does(void **state)
{
    struct memory *memory = memory_create();
    uint64_t value = 0;
    uint8_t *host;
    memory_add_background(memory, 0x40000000, 0x1000000);
    assert_int_equal(memory_page(memory, 0x40001000, &host), MEMORY_MMIO);
    assert_true(memory_read(memory, 0x40001004, 4, &value));
    assert_int_equal(value, 0xffffffff);
    assert_true(memory_write(memory, 0x40ffffff, 1, 0));
    assert_false(memory_read(memory, 0x41000000, 1, &value));
    assert_false(memory_write(memory, 0x3fffffff, 1, 0));
    assert_int_equal(memory_page(memory, 0x41000000, &host), MEMORY_NONE);
    memory_destroy(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(background_answers_where_nothing_else_does),
        cmocka_unit_test(test_ram_access),
        cmocka_unit_test(test_ram_regions),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_across_regions),
        cmocka_unit_test(test_dma_refused),
        cmocka_unit_test(test_registers),
        cmocka_unit_test(test_register_sizes),
        cmocka_unit_test(test_rom),
        cmocka_unit_test(test_page_kinds),
        cmocka_unit_test(test_many_regions),
        cmocka_unit_test(test_code_marks),
        cmocka_unit_test(test_watch),
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_state_of_holes),
        cmocka_unit_test(test_state_mistakes),
        cmocka_unit_test(test_trace),
        cmocka_unit_test(test_remap_from_inside),
        cmocka_unit_test(test_removal_waits),
        cmocka_unit_test(test_marks_race),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
