/* A device that is passed through, with a test double in the kernel's place. */
#include "pci_bench.h"

#include "passthrough/vfio_device.h"
#include "vfio_double.h"

#define DOORBELL UINT64_C(0x28000000)
#define SLOT     2
#define FIRST    (MEM64 + 0x100000)
#define SECOND   (MEM32 + 0x100000)
#define MSI      0x50
#define VENDOR   0x70
#define EXPRESS  0x80
#define MSIX     0xc0

static struct {
    uint64_t offset;
    uint32_t data;
} arrived[256];
static unsigned arrivals;

static void doorbell_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    assert_in_range(arrivals, 0, ARRAY_SIZE(arrived) - 1);
    arrived[arrivals].offset = offset;
    arrived[arrivals++].data = (uint32_t)value;
}

static struct double_vfio *there;
static struct vfio_device *device;
static bool closed;
static unsigned events[2];

static void event(void *opaque, const char *name, enum vfio_event what)
{
    assert_string_equal(name, "0000:01:00.0");
    events[what]++;
}

static struct vfio_device_config device_config(struct bench *bench)
{
    return (struct vfio_device_config){
        .vfio = &there->vfio,
        .loop = bench->loop,
        .memory = bench->memory,
        .messages = pci_bus_has_messages(bench->bus),
        .event = event,
    };
}

static void attach(struct bench *bench)
{
    const struct vfio_device_config config = device_config(bench);
    struct error err = {0};

    device = vfio_device_create(&config, &err);
    if (!device)
        fail_msg("%s", err.message);
    assert_true(vfio_device_attach(device, bench->bus, PCI_DEVFN(SLOT, 0), true, &err));
}

static int setup_bus(void **state, bool messages)
{
    static const struct mmio_ops doorbell_ops = {
        .write = doorbell_write, .min_size = 4, .max_size = 4};
    setup_with(state, messages);
    struct bench *bench = *state;
    arrivals = 0;
    closed = false;
    memset(events, 0, sizeof(events));
    assert_true(memory_add_messages(bench->memory, DOORBELL, 0x1000, &doorbell_ops, NULL,
                                    "doorbell", NULL));
    there = double_create();
    there->closed = &closed;
    device = NULL;
    return 0;
}

static int setup_messages(void **state)
{
    return setup_bus(state, true);
}

static int setup_wires(void **state)
{
    return setup_bus(state, false);
}

static int end(void **state)
{
    if (device) {
        struct device *base = vfio_device_base(device);
        base->type->remove(base);
        assert_true(closed);
    }
    return teardown(state);
}

/* --- Configuration space ---------------------------------------------------------------------- */

static void identity_and_capabilities(void **state)
{
    static const uint8_t expected[] = {0x40, MSI, VENDOR, EXPRESS, MSIX};
    struct bench *bench = *state;
    unsigned at;

    attach(bench);
    assert_int_equal(get(bench, SLOT, 0, 4), 0x56781234);
    assert_int_equal(get(bench, SLOT, 8, 4), 0x02000007);
    assert_int_equal(get(bench, SLOT, 0x2c, 4), 0x9abcdef0);
    assert_int_equal(get(bench, SLOT, 0x0e, 1), 0);
    assert_int_equal(get(bench, SLOT, 0x3d, 1), 1);
    assert_true(vfio_device_needs_port(device));
    at = get(bench, SLOT, 0x34, 1);
    for (unsigned i = 0; i < ARRAY_SIZE(expected); i++) {
        assert_int_equal(at, expected[i]);
        at = get(bench, SLOT, at + 1, 1);
    }
    assert_int_equal(at, 0);
    assert_int_equal(get(bench, SLOT, 0x64, 4), 0);      /* hidden */
    assert_int_equal(get(bench, SLOT, 0x100, 4), 0);     /* no extended ones */
    assert_int_equal(get(bench, SLOT, 0x42, 2), 0x0603); /* no PME */
    assert_int_equal(get(bench, SLOT, 0x44, 2), 0x0008);
}

static void without_messages_there_is_no_msi(void **state)
{
    struct bench *bench = *state;

    attach(bench);
    for (unsigned at = get(bench, SLOT, 0x34, 1); at; at = get(bench, SLOT, at + 1, 1)) {
        assert_int_not_equal(get(bench, SLOT, at, 1), 0x05);
        assert_int_not_equal(get(bench, SLOT, at, 1), 0x11);
    }
}

static void writes_are_masked(void **state)
{
    struct bench *bench = *state;

    attach(bench);
    for (unsigned at = 0; at < 0x200; at += 4) {
        if (at >= VENDOR && at < VENDOR + 16)
            continue;
        put(bench, SLOT, at, 4, 0xffffffff);
        put(bench, SLOT, at, 4, 0);
    }
    assert_int_equal(get(bench, SLOT, 0, 4), 0x56781234);
    assert_int_equal(get(bench, SLOT, 0x82, 2), 0x0002);
    assert_int_equal(get(bench, SLOT, 0x42, 2), 0x0603);
    /* Of all that only the command register and resets have reached the device. */
    assert_int_equal(load_le32(there->config + 0x84), 0x10008000);
    assert_int_equal(load_le32(there->config + 0x10), 0x0c);
}

static void power_states_are_only_told(void **state)
{
    struct bench *bench = *state;

    attach(bench);
    unsigned accesses = there->accesses;
    put(bench, SLOT, 0x44, 2, 3);
    assert_int_equal(get(bench, SLOT, 0x44, 2), 0x000b);
    assert_int_equal(there->accesses, accesses);
}

static void vendors_registers_are_the_devices(void **state)
{
    struct bench *bench = *state;

    attach(bench);
    put(bench, SLOT, VENDOR + 8, 4, 0xcafe1234);
    assert_int_equal(load_le32(there->config + VENDOR + 8), 0xcafe1234);
    assert_int_equal(there->last_size, 4);
    store_le32(there->config + VENDOR + 12, 0x11223344);
    assert_int_equal(get(bench, SLOT, VENDOR + 12, 4), 0x11223344);
    /* The header stays the guest's. */
    put(bench, SLOT, VENDOR, 4, 0xab00ffff);
    assert_int_equal(get(bench, SLOT, VENDOR, 2), 0x09 | EXPRESS << 8);
    assert_int_equal(there->config[VENDOR + 3], 0xab);
    assert_int_equal(there->last_size, 1);
}

static void command_reaches_the_device_as_bus_mastering(void **state)
{
    struct bench *bench = *state;

    attach(bench);
    assert_int_equal(load_le16(there->config + 4), 0x3);
    put(bench, SLOT, 4, 2, 0x406);
    assert_int_equal(load_le16(there->config + 4), 0x7);
    put(bench, SLOT, 4, 2, 0);
    assert_int_equal(load_le16(there->config + 4), 0x3); /* decoding stays on */
}

/* A capability list that leads round and to the edge. */
static void odd_lists_end(void **state)
{
    struct bench *bench = *state;

    there->config[0x41] = 0xfc;
    there->config[0xfc] = 0x11;
    there->config[0xfd] = 0x40;
    attach(bench);
    assert_int_equal(get(bench, SLOT, 0x41, 1), 0);
}

static void a_table_outside_of_the_bar_is_none(void **state)
{
    struct bench *bench = *state;

    store_le32(there->config + MSIX + 4, 0xfff8);
    attach(bench);
    for (unsigned at = get(bench, SLOT, 0x34, 1); at; at = get(bench, SLOT, at + 1, 1))
        assert_int_not_equal(get(bench, SLOT, at, 1), 0x11);
}

static void a_dead_device_is_refused(void **state)
{
    struct bench *bench = *state;
    struct error err;

    memset(there->config, 0xff, sizeof(there->config));
    const struct vfio_device_config config = device_config(bench);
    assert_null(vfio_device_create(&config, &err));
    assert_non_null(strstr(err.message, "does not answer"));
    assert_true(closed);
}

/* --- BARs ------------------------------------------------------------------------------------- */

static void place_bars(struct bench *bench)
{
    put(bench, SLOT, BAR(0), 4, (uint32_t)FIRST);
    put(bench, SLOT, BAR(1), 4, FIRST >> 32);
    put(bench, SLOT, BAR(2), 4, SECOND);
    put(bench, SLOT, BAR(4), 4, 0x1000);
    put(bench, SLOT, COMMAND, 2, COMMAND_ALL);
}

static void bars_have_sizes(void **state)
{
    struct bench *bench = *state;

    attach(bench);
    for (unsigned i = 0; i < 6; i++)
        put(bench, SLOT, BAR(i), 4, 0xffffffff);
    put(bench, SLOT, 0x30, 4, 0xfffff800);
    assert_int_equal(get(bench, SLOT, BAR(0), 4), 0xffff000c);
    assert_int_equal(get(bench, SLOT, BAR(1), 4), 0xffffffff);
    assert_int_equal(get(bench, SLOT, BAR(2), 4), 0xfffff000);
    assert_int_equal(get(bench, SLOT, BAR(3), 4), 0);
    assert_int_equal(get(bench, SLOT, BAR(4), 4), 0xffffffe1);
    assert_int_equal(get(bench, SLOT, 0x30, 4), 0xfffff800);
}

static void accesses_keep_their_width(void **state)
{
    struct bench *bench = *state;
    uint64_t value;

    attach(bench);
    place_bars(bench);
    for (unsigned size = 1; size <= 8; size *= 2) {
        assert_true(memory_write(bench->memory, SECOND + 0x40, size, 0x1122334455667788));
        assert_int_equal(there->last_size, size);
        assert_int_equal(there->last_region, 2);
        assert_int_equal(there->last_offset, 0x40);
        assert_true(memory_read(bench->memory, SECOND + 0x40, size, &value));
        assert_int_equal(value, 0x1122334455667788 & size_mask(size));
    }
    assert_true(memory_write(bench->memory, IO_BASE + 0x1004, 4, 7));
    assert_int_equal(there->ports[4], 7);
    assert_false(memory_write(bench->memory, SECOND + 0x41, 4, 0)); /* misaligned */
}

static void mapped_pages_need_no_kernel(void **state)
{
    struct bench *bench = *state;
    uint64_t value;

    attach(bench);
    place_bars(bench);
    unsigned accesses = there->accesses;
    assert_true(memory_write(bench->memory, FIRST + 0x7ff8, 8, 0x0102030405060708));
    assert_int_equal(load_le64(there->first + 0x7ff8), 0x0102030405060708);
    store_le32(there->first + 0x9000, 0xabcdef01);
    assert_true(memory_read(bench->memory, FIRST + 0x9000, 4, &value));
    assert_int_equal(value, 0xabcdef01);
    assert_int_equal(there->accesses, accesses);
    /* The table's page is not, beside the table. */
    assert_true(memory_write(bench->memory, FIRST + 0x8f00, 4, 5));
    assert_int_equal(there->accesses, accesses + 1);
}

static void check_through_kernel(struct bench *bench)
{
    uint64_t value;

    place_bars(bench);
    unsigned accesses = there->accesses;
    assert_true(memory_read(bench->memory, FIRST, 4, &value));
    assert_int_equal(there->accesses, accesses + 1);
}

static void a_bar_that_cannot_be_mapped_works(void **state)
{
    there->can_map = false;
    attach(*state);
    check_through_kernel(*state);
}

static void a_bar_that_shall_not_be_mapped(void **state)
{
    struct bench *bench = *state;
    struct vfio_device_config config = device_config(bench);

    config.no_mmap = 1;
    device = vfio_device_create(&config, NULL);
    assert_non_null(device);
    assert_true(vfio_device_attach(device, bench->bus, PCI_DEVFN(SLOT, 0), true, NULL));
    check_through_kernel(bench);
}

static void bars_move(void **state)
{
    struct bench *bench = *state;
    uint64_t value;

    attach(bench);
    place_bars(bench);
    store_le32(there->first, 0x12121212);
    put(bench, SLOT, BAR(1), 4, (FIRST + (UINT64_C(16) << 30)) >> 32);
    assert_false(memory_read(bench->memory, FIRST, 4, &value));
    assert_true(memory_read(bench->memory, FIRST + (UINT64_C(16) << 30), 4, &value));
    assert_int_equal(value, 0x12121212);
    put(bench, SLOT, COMMAND, 2, 0);
    assert_false(memory_read(bench->memory, FIRST + (UINT64_C(16) << 30), 4, &value));
}

static void the_rom_is_read(void **state)
{
    struct bench *bench = *state;
    uint64_t value;

    attach(bench);
    put(bench, SLOT, COMMAND, 2, 2);
    put(bench, SLOT, 0x30, 4, (MEM32 + 0x200000) | 1);
    assert_true(memory_read(bench->memory, MEM32 + 0x200000 + 0x7f8, 8, &value));
    assert_int_equal(value, 0x5a5a5a5a5a5a5a5a);
}

static void a_rom_from_a_file(void **state)
{
    struct bench *bench = *state;
    struct vfio_device_config config = device_config(bench);
    char path[] = "/tmp/hartvisor-rom-XXXXXX";
    uint64_t value;
    struct error err;
    int fd = mkstemp(path);

    assert_int_equal(write(fd, "\x55\xaa\x01\x02", 4), 4);
    config.rom_file = path;
    device = vfio_device_create(&config, &err);
    assert_non_null(device);
    assert_true(vfio_device_attach(device, bench->bus, PCI_DEVFN(SLOT, 0), true, NULL));
    put(bench, SLOT, COMMAND, 2, 2);
    put(bench, SLOT, 0x30, 4, (MEM32 + 0x200000) | 1);
    assert_true(memory_read(bench->memory, MEM32 + 0x200000, 8, &value));
    assert_int_equal(value, 0xffffffff0201aa55);
    close(fd);
    unlink(path);
}

static void a_rom_file_that_is_none(void **state)
{
    struct bench *bench = *state;
    struct vfio_device_config config = device_config(bench);
    struct error err;

    config.rom_file = "/dev/zero";
    assert_null(vfio_device_create(&config, &err));
    assert_non_null(strstr(err.message, "rom=/dev/zero"));
}

/* --- Interrupts ------------------------------------------------------------------------------- */

static void turn(struct bench *bench)
{
    loop_turn(bench->loop, 0);
}

static void intx_is_masked_until_its_end(void **state)
{
    struct bench *bench = *state;
    unsigned line = SLOT % 4;

    attach(bench);
    assert_true(double_raise(there, VFIO_IRQ_INTX, 0));
    turn(bench);
    assert_int_equal(bench->level[line], 1);
    assert_int_equal(there->unmasks, 0);
    vfio_device_end_intx(device, (line + 1) % 4); /* another line */
    assert_int_equal(there->unmasks, 0);
    vfio_device_end_intx(device, line);
    assert_int_equal(bench->level[line], 0);
    assert_int_equal(there->unmasks, 1);
    vfio_device_end_intx(device, line);
    assert_int_equal(there->unmasks, 1);
    double_raise(there, VFIO_IRQ_INTX, 0);
    turn(bench);
    assert_int_equal(bench->level[line], 1);
}

static void intx_can_be_disabled(void **state)
{
    struct bench *bench = *state;

    attach(bench);
    put(bench, SLOT, COMMAND, 2, 0x400);
    double_raise(there, VFIO_IRQ_INTX, 0);
    turn(bench);
    assert_int_equal(bench->level[SLOT % 4], 0);
    assert_int_equal(get(bench, SLOT, 6, 2) & 8, 8);
    put(bench, SLOT, COMMAND, 2, 0);
    assert_int_equal(bench->level[SLOT % 4], 1);
}

static void entry_put(struct bench *bench, unsigned vector, uint32_t control)
{
    uint64_t entry = FIRST + DOUBLE_TABLE + 16 * vector;

    assert_true(memory_write(bench->memory, entry, 8, DOORBELL));
    assert_true(memory_write(bench->memory, entry + 8, 4, vector));
    assert_true(memory_write(bench->memory, entry + 12, 4, control));
}

static void expect_message(struct bench *bench, unsigned vector)
{
    arrivals = 0;
    assert_true(double_raise(there, VFIO_IRQ_MSIX, vector));
    turn(bench);
    assert_int_equal(arrivals, 1);
    assert_int_equal(arrived[0].data, vector);
    arrivals = 0;
}

static void enable_msix(struct bench *bench)
{
    attach(bench);
    place_bars(bench);
    put(bench, SLOT, MSIX + 2, 2, 0x8000);
}

static void vectors_come_when_unmasked(void **state)
{
    struct bench *bench = *state;

    enable_msix(bench);
    assert_int_equal(there->enabled[VFIO_IRQ_INTX], 0);
    assert_int_equal(there->enabled[VFIO_IRQ_MSIX], 1);
    unsigned calls = there->set_calls;
    for (unsigned i = 0; i < DOUBLE_VECTORS; i++)
        entry_put(bench, i, 1);
    assert_int_equal(there->set_calls, calls); /* all masked: nothing to do */
    entry_put(bench, 0, 0);
    expect_message(bench, 0);
    entry_put(bench, 5, 0);
    arrivals = 0;
    expect_message(bench, 5);
    expect_message(bench, 0);
    assert_true(there->enabled[VFIO_IRQ_MSIX] < DOUBLE_VECTORS);
    /* Masked by the guest, it stays pending. */
    entry_put(bench, 5, 1);
    double_raise(there, VFIO_IRQ_MSIX, 5);
    turn(bench);
    assert_int_equal(arrivals, 0);
    uint64_t pending;
    assert_true(memory_read(bench->memory, FIRST + DOUBLE_PENDING, 8, &pending));
    assert_int_equal(pending, 1 << 5);
    entry_put(bench, 5, 0);
    assert_int_equal(arrivals, 1);
}

/* A kernel that cannot add vectors: none of those in use gets lost while they are given anew. */
static void growing_loses_nothing(void **state)
{
    struct bench *bench = *state;

    enable_msix(bench);
    entry_put(bench, 0, 0);
    double_raise(there, VFIO_IRQ_MSIX, 0);
    unsigned disables = there->disables;
    entry_put(bench, 9, 0);
    assert_int_equal(there->disables, disables + 1);
    assert_int_equal(arrivals, 1); /* vector 0, since it might have fired */
    assert_int_equal(arrived[0].data, 0);
    turn(bench);
    assert_int_equal(arrivals, 2);
    expect_message(bench, 9);
    expect_message(bench, 0);
}

static void dynamic_vectors_are_added(void **state)
{
    struct bench *bench = *state;

    there->dynamic = true;
    enable_msix(bench);
    entry_put(bench, 0, 0);
    unsigned disables = there->disables;
    entry_put(bench, 39, 0);
    assert_int_equal(there->disables, disables);
    assert_int_equal(arrivals, 0);
    expect_message(bench, 39);
}

static void a_host_short_of_vectors(void **state)
{
    struct bench *bench = *state;

    there->short_of_vectors = 6;
    enable_msix(bench);
    for (unsigned i = 0; i < 6; i++)
        entry_put(bench, i, 0);
    expect_message(bench, 5);
    entry_put(bench, 7, 0); /* complains, and leaves the others as they are */
    arrivals = 0;
    expect_message(bench, 5);
}

static void unmasked_before_enabled(void **state)
{
    struct bench *bench = *state;

    attach(bench);
    place_bars(bench);
    entry_put(bench, 3, 0);
    put(bench, SLOT, MSIX + 2, 2, 0x8000);
    assert_int_equal(there->enabled[VFIO_IRQ_MSIX], 4);
    expect_message(bench, 3);
    /* Off, and INTx again: one 32-bit write at the capability's start. */
    put(bench, SLOT, MSIX, 4, 0);
    assert_int_equal(there->enabled[VFIO_IRQ_MSIX], 0);
    assert_int_equal(there->enabled[VFIO_IRQ_INTX], 1);
}

static void msi_has_its_own_form(void **state)
{
    struct bench *bench = *state;

    attach(bench);
    put(bench, SLOT, COMMAND, 2, COMMAND_ALL);
    put(bench, SLOT, MSI + 4, 4, DOORBELL + 0x10);
    put(bench, SLOT, MSI + 12, 2, 0x40);
    put(bench, SLOT, MSI + 2, 2, 0x0011); /* two vectors */
    assert_int_equal(there->enabled[VFIO_IRQ_MSI], 2);
    assert_true(double_raise(there, VFIO_IRQ_MSI, 1));
    turn(bench);
    assert_int_equal(arrivals, 1);
    assert_int_equal(arrived[0].offset, 0x10);
    assert_int_equal(arrived[0].data, 0x41);
    put(bench, SLOT, MSI + 2, 2, 0x0021); /* four */
    assert_int_equal(there->enabled[VFIO_IRQ_MSI], 4);
    put(bench, SLOT, MSI + 2, 2, 0);
    assert_int_equal(there->enabled[VFIO_IRQ_INTX], 1);
}

static void notices_arrive(void **state)
{
    struct bench *bench = *state;

    attach(bench);
    double_raise(there, VFIO_IRQ_REQUEST, 0);
    turn(bench);
    assert_int_equal(events[VFIO_EVENT_REQUESTED], 1);
    double_raise(there, VFIO_IRQ_ERROR, 0);
    turn(bench);
    assert_int_equal(events[VFIO_EVENT_FAILED], 1);
}

/* --- Resets ----------------------------------------------------------------------------------- */

static void a_reset_brings_all_back(void **state)
{
    struct bench *bench = *state;
    struct device *base;

    enable_msix(bench);
    base = vfio_device_base(device);
    entry_put(bench, 2, 0);
    assert_int_equal(there->reset_count, 1);
    base->type->reset(base);
    assert_int_equal(there->reset_count, 2);
    assert_int_equal(get(bench, SLOT, BAR(0), 4), 0x0c);
    assert_int_equal(get(bench, SLOT, COMMAND, 2), 0);
    assert_int_equal(there->enabled[VFIO_IRQ_MSIX], 0);
    assert_int_equal(there->enabled[VFIO_IRQ_INTX], 1);
    assert_int_equal(load_le16(there->config + 4), 0x3);
    place_bars(bench);
    put(bench, SLOT, MSIX + 2, 2, 0x8000);
    entry_put(bench, 2, 0);
    arrivals = 0;
    expect_message(bench, 2);
}

static void the_guest_resets_its_function(void **state)
{
    struct bench *bench = *state;

    enable_msix(bench);
    put(bench, SLOT, EXPRESS + 8, 2, 0x8000 | 0x2810);
    assert_int_equal(there->reset_count, 2);
    assert_int_equal(get(bench, SLOT, EXPRESS + 8, 2), 0x2810);
    assert_int_equal(get(bench, SLOT, COMMAND, 2), 0);
    assert_int_equal(get(bench, SLOT, MSIX + 2, 2) & 0x8000, 0);
    put(bench, SLOT, EXPRESS + 9, 1, 0x80);
    assert_int_equal(there->reset_count, 3);
}

/* --- DMA -------------------------------------------------------------------------------------- */

static void all_ram_is_mapped(void **state)
{
    struct bench *bench = *state;

    assert_true(memory_add_ram(bench->memory, RAM_BASE + 0x10000000, 0x200000, NULL));
    attach(bench);
    assert_int_equal(there->map_count, 2);
    assert_int_equal(there->maps[0].start, RAM_BASE);
    assert_int_equal(there->maps[0].size, RAM_SIZE);
    assert_int_equal(there->maps[1].start, RAM_BASE + 0x10000000);
    assert_int_equal(there->maps[1].size, 0x200000);
}

static void ram_that_cannot_be_mapped(void **state)
{
    struct bench *bench = *state;
    struct error err;
    const struct vfio_device_config config = device_config(bench);

    there->map_failure = 1;
    device = vfio_device_create(&config, &err);
    assert_false(vfio_device_attach(device, bench->bus, PCI_DEVFN(SLOT, 0), true, &err));
    assert_string_equal(err.message, "0000:01:00.0: the limit of locked memory");
}

#define GIB (UINT64_C(1) << 30)

static void ram_goes_around_what_is_reserved(void **state)
{
    static const struct vfio_range usable[] = {{0, 0xfee00000},
                                               {0xfef00000, (UINT64_C(1) << 39) - 0xfef00000}};
    struct vfio_range ram[VFIO_RANGES_MAX];
    size_t count;
    struct error err;

    assert_true(dma_layout(usable, 2, RAM_BASE, GIB, ram, &count, &err));
    assert_int_equal(count, 1);
    assert_int_equal(ram[0].size, GIB);
    assert_true(dma_layout(usable, 2, RAM_BASE, 4 * GIB, ram, &count, &err));
    assert_int_equal(count, 2);
    assert_int_equal(ram[0].start, RAM_BASE);
    assert_int_equal(ram[0].size, 0x7ee00000);
    assert_int_equal(ram[1].start, 0xff000000);
    assert_int_equal(ram[0].size + ram[1].size, 4 * GIB);
    assert_false(dma_layout(usable, 2, RAM_BASE, 600 * GIB, ram, &count, &err));
    assert_non_null(strstr(err.message, "--memory"));
    assert_false(dma_layout(usable, 1, GIB * 8, GIB, ram, &count, &err));
    static const struct vfio_range all[] = {{0, UINT64_MAX}};
    assert_true(dma_layout(all, 1, RAM_BASE, 5 * GIB + 4096, ram, &count, &err));
    assert_int_equal(ram[0].size, 5 * GIB + 4096);
}

static void what_two_iommus_can_map(void **state)
{
    struct vfio_range ranges[VFIO_RANGES_MAX] = {{0, 0x1000}, {0x2000, 0x4000}};
    static const struct vfio_range others[] = {{0x800, 0x2000}, {0x5000, 0x10000}};
    size_t count = 2;

    dma_intersect(ranges, &count, others, 2);
    assert_int_equal(count, 3);
    assert_int_equal(ranges[0].start, 0x800);
    assert_int_equal(ranges[0].size, 0x800);
    assert_int_equal(ranges[1].start, 0x2000);
    assert_int_equal(ranges[1].size, 0x800);
    assert_int_equal(ranges[2].start, 0x5000);
    assert_int_equal(ranges[2].size, 0x1000);
}

static void states_are_refused(void **state)
{
    struct error err;
    struct stream *stream = stream_create_saving();

    attach(*state);
    vfio_device_base(device)->type->state(vfio_device_base(device), stream);
    assert_false(stream_check(stream, &err));
    stream_destroy(stream);
}

#define TEST(name)       cmocka_unit_test_setup_teardown(name, setup_messages, end)
#define TEST_WIRES(name) cmocka_unit_test_setup_teardown(name, setup_wires, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(identity_and_capabilities),
        TEST_WIRES(without_messages_there_is_no_msi),
        TEST(writes_are_masked),
        TEST(power_states_are_only_told),
        TEST(vendors_registers_are_the_devices),
        TEST(command_reaches_the_device_as_bus_mastering),
        TEST(odd_lists_end),
        TEST(a_table_outside_of_the_bar_is_none),
        TEST(a_dead_device_is_refused),
        TEST(bars_have_sizes),
        TEST(accesses_keep_their_width),
        TEST(mapped_pages_need_no_kernel),
        TEST(a_bar_that_cannot_be_mapped_works),
        TEST(a_bar_that_shall_not_be_mapped),
        TEST(bars_move),
        TEST(the_rom_is_read),
        TEST(a_rom_from_a_file),
        TEST(a_rom_file_that_is_none),
        TEST_WIRES(intx_is_masked_until_its_end),
        TEST(intx_can_be_disabled),
        TEST(vectors_come_when_unmasked),
        TEST(growing_loses_nothing),
        TEST(dynamic_vectors_are_added),
        TEST(a_host_short_of_vectors),
        TEST(unmasked_before_enabled),
        TEST(msi_has_its_own_form),
        TEST(notices_arrive),
        TEST(a_reset_brings_all_back),
        TEST(the_guest_resets_its_function),
        TEST(all_ram_is_mapped),
        TEST(ram_that_cannot_be_mapped),
        cmocka_unit_test(ram_goes_around_what_is_reserved),
        cmocka_unit_test(what_two_iommus_can_map),
        TEST(states_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
