/* Addresses, classes, and what a scan finds on recorded machines. */
#include "recorded_machine.h"

#include <inttypes.h>

#include "base/bits.h"

static void test_addresses(void **state)
{
    static const struct {
        const char *text, *printed;
    } good[] = {
        {"0000:01:00.0", "0000:01:00.0"},
        {"01:00.0", "0000:01:00.0"},
        {"1:0.7", "0000:01:00.7"},
        {"ff:1f.7", "0000:ff:1f.7"},
        {"FF:1F.7", "0000:ff:1f.7"},
        {"01:00", "0000:01:00.0"},
        {"0002:01:00", "0002:01:00.0"},
        {"10000:e1:00.0", "10000:e1:00.0"},
        {"ffffffff:ff:1f.7", "ffffffff:ff:1f.7"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        struct pci_address address;
        struct error err;
        char text[PCI_ADDRESS_SIZE];
        if (!pci_address_parse(good[i].text, &address, &err))
            fail_msg("%s", err.message);
        assert_string_equal(pci_address_print(&address, text), good[i].printed);
    }
    static const struct {
        const char *text, *named;
    } bad[] = {
        {"", "01:00.0"},
        {"1c.0", "bus:device.function"},
        {"nonsense", "nonsense"},
        {"01:20.0", "device 20 is above 1f"},
        {"01:00.8", "function 8 is above 7"},
        {"100:00.0", "bus has more than 2 digits"},
        {"123456789:01:00.0", "domain has more than 8"},
        {"01:00.", "function is missing"},
        {"01:.0", "device is missing"},
        {":00.0", "bus is missing"},
        {"01:00.0x", "'x' stands behind its function"},
        {"01:00 ", "' ' stands behind its device"},
        {"0000:01:00:0", "':0' stands behind its device"},
        {"01:00.0.0", "'.0' stands behind its function"},
        {"-1:00.0", "bus is missing"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct pci_address address;
        struct error err;
        if (pci_address_parse(bad[i].text, &address, &err))
            fail_msg("'%s' is no address", bad[i].text);
        assert_has(err.message, bad[i].named);
        assert_has(err.message, bad[i].text);
    }
}

static void test_kinds(void **state)
{
    uint32_t set;
    struct error err;
    assert_true(passthrough_kinds_parse("gpu", &set, &err));
    assert_int_equal(set, 0x1f);
    assert_true(passthrough_kinds_parse("nvme,sata", &set, &err));
    assert_int_equal(set, 1u << PASSTHROUGH_STORAGE_NVME | 1u << PASSTHROUGH_STORAGE_SATA);
    assert_true(passthrough_kinds_parse("npu", &set, &err));
    assert_int_equal(set, 1u << PASSTHROUGH_NPU_NPU | 1u << PASSTHROUGH_NPU_ACCELERATOR);
    assert_false(passthrough_kinds_parse("gpus", &set, &err));
    assert_has(err.message, "did you mean gpu");
    assert_false(passthrough_kinds_parse("toaster", &set, &err));
    assert_has(err.message, "network");
    assert_false(passthrough_kinds_parse("gpu,", &set, &err));
    /* Every kind has a name, which is its own. */
    for (unsigned i = 0; i < PASSTHROUGH_KINDS; i++) {
        assert_true(passthrough_kinds_parse(passthrough_kind_name(i), &set, &err));
        assert_true(set & 1u << i);
    }
}

/* What each function of the recorded machines is. */
static void test_classes(void **state)
{
    static const struct {
        const char *machine, *address;
        enum passthrough_kind kind;
        bool integrated;
    } cases[] = {
        {"server", "17:00.0", PASSTHROUGH_GPU_NVIDIA},
        {"server", "17:00.1", PASSTHROUGH_KIND_AUDIO},
        {"server", "03:00.0", PASSTHROUGH_GPU_OTHER},
        {"server", "02:00.0", PASSTHROUGH_KIND_BRIDGE},
        {"server", "18:00.0", PASSTHROUGH_STORAGE_NVME},
        {"server", "00:17.0", PASSTHROUGH_STORAGE_SATA},
        {"server", "00:14.0", PASSTHROUGH_KIND_USB},
        {"server", "b3:00.2", PASSTHROUGH_NETWORK_ETHERNET},
        {"desktop", "03:00.0", PASSTHROUGH_GPU_AMD, false},
        {"desktop", "10:00.0", PASSTHROUGH_GPU_AMD, true},
        {"desktop", "00:14.0", PASSTHROUGH_KIND_OTHER},
        {"laptop", "00:02.0", PASSTHROUGH_GPU_INTEL, true},
        {"laptop", "00:0b.0", PASSTHROUGH_NPU_NPU},
        {"laptop", "00:14.3", PASSTHROUGH_NETWORK_WIFI},
        {"laptop", "00:1f.3", PASSTHROUGH_KIND_AUDIO},
        {"accelerators", "1:01:00.0", PASSTHROUGH_NPU_NPU},
        {"accelerators", "1:02:00.0", PASSTHROUGH_NPU_NPU},
        {"accelerators", "1:03:00.0", PASSTHROUGH_NPU_NPU},
        {"accelerators", "1:04:00.0", PASSTHROUGH_GPU_AMD},
        {"accelerators", "1:05:00.0", PASSTHROUGH_NPU_ACCELERATOR},
        {"accelerators", "1:06:00.0", PASSTHROUGH_NPU_NPU},
        {"accelerators", "1:07:00.0", PASSTHROUGH_NPU_ACCELERATOR},
        {"accelerators", "1:08:00.0", PASSTHROUGH_NPU_NPU},
        {"accelerators", "1:09:00.0", PASSTHROUGH_GPU_MOBILE, true},
        {"accelerators", "10000:e1:00.0", PASSTHROUGH_STORAGE_NVME},
        {"guest", "00:01.0", PASSTHROUGH_GPU_OTHER},
        {"guest", "00:03.0", PASSTHROUGH_STORAGE_OTHER},
    };
    struct machine_fixture fixture = {0};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        if (!i || strcmp(cases[i].machine, cases[i - 1].machine) != 0) {
            if (fixture.manager)
                fixture_close(&fixture);
            fixture = fixture_open(cases[i].machine, (struct passthrough_config){0});
        }
        const struct passthrough_info *info = &fixture_device(&fixture, cases[i].address)->info;
        if (info->kind != cases[i].kind || info->integrated != cases[i].integrated)
            fail_msg("%s of the %s is %s%s", cases[i].address, cases[i].machine,
                     passthrough_kind_name(info->kind), info->integrated ? ", integrated" : "");
    }
    fixture_close(&fixture);
}

static void test_details(void **state)
{
    struct machine_fixture fixture = fixture_open("server", (struct passthrough_config){0});
    const struct passthrough_info *gpu = &fixture_device(&fixture, "17:00.0")->info;
    assert_int_equal(gpu->vendor, 0x10de);
    assert_int_equal(gpu->device, 0x2230);
    assert_int_equal(gpu->subsystem_vendor, 0x10de);
    assert_int_equal(gpu->subsystem_device, 0x1459);
    assert_int_equal(gpu->class_code, 0x030000);
    assert_int_equal(gpu->revision, 0xa1);
    assert_string_equal(gpu->driver, "nvidia");
    assert_int_equal(gpu->group, 21);
    assert_int_equal(gpu->numa_node, 0);
    assert_int_equal(gpu->link.speed, 2500);
    assert_int_equal(gpu->link.width, 16);
    assert_int_equal(gpu->link_max.speed, 16000);
    assert_string_equal(gpu->reset_methods, "flr bus");
    assert_string_equal(gpu->power_state, "D0");
    assert_int_equal(gpu->bars[0].kind, PASSTHROUGH_BAR_MEMORY32);
    assert_int_equal(gpu->bars[0].size, 16 << 20);
    assert_int_equal(gpu->bars[1].kind, PASSTHROUGH_BAR_MEMORY64);
    assert_true(gpu->bars[1].prefetchable);
    assert_true(gpu->bars[1].size == UINT64_C(64) << 30);
    assert_int_equal(gpu->bars[2].kind, PASSTHROUGH_BAR_NONE);
    assert_int_equal(gpu->bars[5].kind, PASSTHROUGH_BAR_IO);
    assert_int_equal(gpu->bars[PASSTHROUGH_BAR_ROM].size, 512 << 10);
    assert_false(gpu->boot_vga);
    assert_true(fixture_device(&fixture, "03:00.0")->info.boot_vga);

    const struct passthrough_info *nic = &fixture_device(&fixture, "b3:00.0")->info;
    assert_int_equal(nic->virtual_functions, 2);
    assert_int_equal(nic->virtual_functions_max, 8);
    assert_string_equal(fixture_device(&fixture, "b3:00.3")->info.physical_function,
                        "0000:b3:00.0");
#ifdef HAVE_LIBPCI
    assert_string_equal(gpu->vendor_name, "NVIDIA Corporation");
    assert_string_equal(gpu->device_name, "GA102GL [RTX A6000]");
#endif
    fixture_close(&fixture);
}

/* Files that are missing, empty or nonsense leave the rest as it is. */
static void test_damaged(void **state)
{
    struct machine_fixture fixture = fixture_open("guest", (struct passthrough_config){0});
    fixture_add(&fixture, "file sys/devices/pci0000:00/0000:00:02.0/resource 0x10 zz");
    fixture_add(&fixture, "file sys/devices/pci0000:00/0000:00:02.0/numa_node -1");
    fixture_add(&fixture, "file sys/devices/pci0000:00/0000:00:02.0/max_link_speed Unknown");
    fixture_add(&fixture, "file sys/devices/pci0000:00/0000:00:02.0/max_link_width 255");
    fixture_add(&fixture, "file sys/devices/pci0000:00/0000:00:03.0/class many");
    fixture_add(&fixture, "dir sys/bus/pci/devices/whatever");
    const struct passthrough_info *info = &fixture_device(&fixture, "00:02.0")->info;
    assert_int_equal(info->bars[0].kind, PASSTHROUGH_BAR_NONE);
    assert_int_equal(info->numa_node, -1);
    assert_int_equal(info->link_max.speed + info->link_max.width, 0);
    assert_int_equal(passthrough_manager_count(fixture.manager), 4);

    /* Texts that a terminal would obey. */
    fixture_add(&fixture, "names 1af4 1041 \033[2Jodd");
    fixture_add(&fixture, "pci 00:02.0 1af4:1041 class=020000 driver=\033[2Jodd reset=\033[1m");
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    passthrough_manager_print(fixture.manager, PASSTHROUGH_ALL_KINDS, out, 0);
    passthrough_groups_print(fixture.manager, out, 0);
    passthrough_device_print(fixture.manager, fixture_device(&fixture, "00:02.0"), out, 0);
    fclose(out);
    assert_null(strchr(text, '\033'));
    free(text);
    fixture_close(&fixture);
}

static unsigned ended;

static void end(struct passthrough_device *device)
{
    ended++;
}

static void test_manager(void **state)
{
    static const struct passthrough_device_ops ops = {.name = "double", .destroy = end};
    struct passthrough_device mine = {
        .ops = &ops,
        .info = {.address = {.bus = 0x17, .device = 1}, .kind = PASSTHROUGH_GPU_OTHER, .group = -1},
    };
    struct passthrough_device same = {.ops = &ops, .info = {.address = {.bus = 0x17}}};
    struct machine_fixture fixture = fixture_open("server", (struct passthrough_config){0});
    struct passthrough_manager *manager = fixture.manager;
    struct passthrough_device *gpus[2];
    struct error err;
    uint8_t byte = 0;
    size_t got, count = passthrough_manager_count(manager);
    assert_int_equal(passthrough_manager_filter(manager, 0x1f, NULL, 0), 3);
    assert_true(passthrough_manager_add(manager, &mine, &err));
    assert_false(passthrough_manager_add(manager, &same, &err));
    assert_has(err.message, "0000:17:00.0");
    assert_int_equal(passthrough_manager_filter(manager, 0x1f, gpus, 2), 4);
    assert_string_equal(gpus[1]->info.name, "0000:17:00.0");

    /* It stays where a scan is; the order is that of the addresses. */
    assert_true(passthrough_manager_scan(manager, &err));
    assert_int_equal(passthrough_manager_count(manager), count + 1);
    assert_int_equal(ended, 0);
    for (size_t i = 0; i < count; i++)
        assert_true(pci_address_compare(&passthrough_manager_device(manager, i)->info.address,
                                        &passthrough_manager_device(manager, i + 1)->info.address) <
                    0);
    assert_null(passthrough_manager_device(manager, count + 1));

    assert_false(passthrough_config_read(&mine, 0, &byte, 1, &got, &err));
    assert_has(err.message, "double");
    assert_false(passthrough_config_write(&mine, 0, &byte, 1, &err));
    struct pci_address nobody = {.domain = 7};
    assert_null(passthrough_manager_find(manager, &nobody, &err));
    assert_has(err.message, "0007:00:00.0");
    fixture_close(&fixture);
    assert_int_equal(ended, 1);
}

/* Lines fit, whatever the width; without colours there is no escape. */
static void test_table(void **state)
{
    static const char *const machines[] = {"server", "desktop", "laptop", "accelerators", "guest"};
    for (size_t i = 0; i < ARRAY_SIZE(machines); i++) {
        struct machine_fixture fixture = fixture_open(machines[i], (struct passthrough_config){0});
        for (unsigned width = 80; width <= 120; width += 20) {
            char *text, *rest;
            size_t size;
            FILE *out = open_memstream(&text, &size);
            passthrough_manager_print(fixture.manager, PASSTHROUGH_ALL_KINDS, out,
                                      PASSTHROUGH_PRINT_WIDTH(width));
            passthrough_groups_print(fixture.manager, out, PASSTHROUGH_PRINT_WIDTH(width));
            fclose(out);
            assert_null(strchr(text, '\033'));
            rest = text;
            for (char *line; (line = strsep(&rest, "\n"));)
                if (strlen(line) > width)
                    fail_msg("wider than %u: %s", width, line);
            free(text);
        }
        fixture_close(&fixture);
    }
}

static void test_no_machine(void **state)
{
    struct error err;
    struct passthrough_config config = {.root = "/nonexistent"};
    assert_null(passthrough_manager_create(&config, &err));
    assert_has(err.message, "/nonexistent");
    config.root = MACHINES;
    struct passthrough_manager *manager = passthrough_manager_create(&config, &err);
    assert_false(passthrough_manager_scan(manager, &err));
    assert_has(err.message, "sysfs");
    passthrough_manager_destroy(manager);
    passthrough_manager_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses), cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_classes),   cmocka_unit_test(test_details),
        cmocka_unit_test(test_damaged),   cmocka_unit_test(test_manager),
        cmocka_unit_test(test_table),     cmocka_unit_test(test_no_machine),
    };
    return cmocka_run_group_tests_name("passthrough_scan", tests, NULL, NULL);
}
