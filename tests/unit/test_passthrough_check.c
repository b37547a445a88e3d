/* IOMMU groups, viability, and the checks of a machine, on recorded ones. */
#include "recorded_machine.h"

#include "base/bits.h"

static const struct passthrough_check *find(const struct passthrough_check *checks, size_t count,
                                            const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(checks[i].name, name))
            return &checks[i];
    fail_msg("there is no check %s", name);
    return NULL;
}

/* A check's state on a machine, and words of what it found and of the remedy. */
static void expect(const struct machine_fixture *fixture, const char *name,
                   enum passthrough_check_state expected, const char *found, const char *remedy)
{
    struct passthrough_check checks[PASSTHROUGH_MAX_CHECKS];
    size_t count = passthrough_check(fixture->manager, UINT64_C(4) << 30, checks);
    const struct passthrough_check *check = find(checks, count, name);
    if (check->state != expected)
        fail_msg("%s is in state %d: %s", name, check->state, check->found);
    assert_has(check->found, found);
    if (remedy)
        assert_has(check->remedy, remedy);
    else
        assert_string_equal(check->remedy, "");
}

#define RIGHT PASSTHROUGH_CHECK_RIGHT
#define WRONG PASSTHROUGH_CHECK_WRONG
#define WAITS PASSTHROUGH_CHECK_WAITS
#define NOTE  PASSTHROUGH_CHECK_NOTE

static bool ready(const struct machine_fixture *fixture)
{
    FILE *out = fopen("/dev/null", "w");
    bool is = passthrough_check_print(fixture->manager, UINT64_C(4) << 30, out, 0);
    fclose(out);
    return is;
}

static void test_groups(void **state)
{
    struct machine_fixture fixture = fixture_open("server", (struct passthrough_config){0});
    struct passthrough_device *devices[4];
    struct error err;
    int groups[64];
    size_t count = passthrough_groups(fixture.manager, groups, 64);
    assert_true(passthrough_iommu_on(fixture.manager));
    assert_int_equal(count, 22);
    assert_int_equal(groups[0], 2);
    assert_int_equal(groups[21], 64);
    assert_int_equal(passthrough_group_devices(fixture.manager, 21, devices, 4), 2);
    assert_string_equal(devices[1]->info.name, "0000:17:00.1");
    assert_int_equal(passthrough_group_devices(fixture.manager, 999, devices, 4), 0);
    assert_int_equal(passthrough_group_devices(fixture.manager, -1, devices, 4), 0);

    assert_false(passthrough_group_viable(fixture.manager, 21, &err));
    assert_has(err.message, "0000:17:00.0 (nvidia), 0000:17:00.1 (snd_hda_intel)");
    assert_true(passthrough_group_viable(fixture.manager, 41, &err));
    /* A port with its driver, and a bridge without one, do not count. */
    assert_true(passthrough_group_viable(fixture.manager, 20, &err));
    assert_false(passthrough_device_hinders(fixture_device(&fixture, "02:00.0")));
    fixture_close(&fixture);

    fixture = fixture_open("accelerators", (struct passthrough_config){0});
    assert_false(passthrough_group_viable(fixture.manager, 11, &err));
    assert_has(err.message, "lpc_ich"); /* an ISA bridge is a device like others */
    fixture_add(&fixture, "pci 2:00:1f.3 8086:7e28 class=040300 driver=mlx5_vfio_pci group=11");
    assert_false(passthrough_device_hinders(fixture_device(&fixture, "2:00:1f.3")));
    fixture_close(&fixture);

    fixture = fixture_open("guest", (struct passthrough_config){0});
    assert_false(passthrough_iommu_on(fixture.manager));
    assert_int_equal(passthrough_groups(fixture.manager, groups, 64), 0);
    fixture_close(&fixture);
}

static void test_server(void **state)
{
    struct machine_fixture fixture = fixture_open("server", (struct passthrough_config){0});
    expect(&fixture, "machine", RIGHT, "physical machine with an Intel", NULL);
    expect(&fixture, "firmware", RIGHT, "DMAR", NULL);
    expect(&fixture, "parameters", RIGHT, "", NULL);
    expect(&fixture, "iommu", RIGHT, "22 groups", NULL);
    expect(&fixture, "interrupts", RIGHT, "remapped", NULL);
    expect(&fixture, "driver", RIGHT, "vfio-pci", NULL);
    expect(&fixture, "container", RIGHT, "/dev/vfio/vfio", NULL);
    expect(&fixture, "devices", RIGHT, "3 ready", NULL);
    expect(&fixture, "memlock", RIGHT, "root", NULL);
    assert_true(ready(&fixture));

    /* The same for a user of a group that has no access yet, and then has. */
    fixture_add(&fixture, "file proc/self/status Uid: 1 4242 1 1\\nGid: 1 4242 1 1\\n"
                          "Groups: 4243 4244\\nCapEff: 0");
    expect(&fixture, "container", RIGHT, "may open", NULL);
    expect(&fixture, "devices", WRONG, "/dev/vfio/41", "udev");
    expect(&fixture, "memlock", WRONG, "8 MiB", "4259840");
    char group[64], path[160];
    struct stat status;
    snprintf(path, sizeof(path), "%s/dev/vfio/41", fixture.root);
    assert_int_equal(stat(path, &status), 0);
    snprintf(group, sizeof(group), "Groups: 4243 %u", status.st_gid);
    char *line = xasprintf("file proc/self/status Uid: 1 4242 1 1\\nGid: 1 4242 1 1\\n%s\\n"
                           "CapEff: 0",
                           group);
    fixture_add(&fixture, line);
    free(line);
    expect(&fixture, "devices", RIGHT, "3 ready", NULL);
    fixture_add(&fixture,
                "pci 64:02.0/65:00.1 10de:1aef class=040300 driver=snd_hda_intel group=41");
    expect(&fixture, "devices", WRONG, "0000:65:00.0 is not viable", "--group");
    fixture_close(&fixture);
}

static void remove_file(const struct machine_fixture *fixture, const char *path)
{
    char *whole = xasprintf("%s/%s", fixture->root, path);
    assert_int_equal(unlink(whole), 0);
    free(whole);
}

static void test_parameters(void **state)
{
    struct machine_fixture fixture = fixture_open("laptop", (struct passthrough_config){0});
    expect(&fixture, "firmware", RIGHT, "DMAR", NULL);
    expect(&fixture, "parameters", WRONG, "intel_iommu=on", "add intel_iommu=on");
    expect(&fixture, "iommu", WAITS, "off", NULL);
    expect(&fixture, "container", WRONG, "may not open", "chmod");
    expect(&fixture, "memlock", WRONG, "8 MiB", "limits.d");
    assert_false(ready(&fixture));
    fixture_add(&fixture, "file proc/cmdline quiet intel_iommu=on");
    expect(&fixture, "parameters", RIGHT, "", NULL);
    expect(&fixture, "iommu", WRONG, "off", "dmesg");
    fixture_add(&fixture, "file proc/cmdline intel_iommu=off quiet");
    expect(&fixture, "parameters", WRONG, "intel_iommu=off", "remove intel_iommu=off");
    fixture_add(&fixture, "file proc/cmdline xintel_iommu=off intel_iommu=on,sm_on");
    expect(&fixture, "parameters", RIGHT, "", NULL);
    remove_file(&fixture, "sys/firmware/acpi/tables/DMAR");
    expect(&fixture, "firmware", WRONG, "DMAR", "VT-d");
    fixture_add(&fixture, "file proc/cpuinfo vendor_id : AuthenticAMD\\nflags : svm");
    expect(&fixture, "firmware", WRONG, "IVRS", "AMD-Vi");
    fixture_add(&fixture, "file proc/cpuinfo CPU implementer : 0x41");
    expect(&fixture, "firmware", WRONG, "IORT", "SMMU");
    fixture_close(&fixture);
}

static void test_modules(void **state)
{
    struct machine_fixture fixture = fixture_open("desktop", (struct passthrough_config){0});
    fixture_add(&fixture, "file proc/interrupts  24: 1 PCI-MSI-0000:00:1c.0 0-edge PCIe PME");
    expect(&fixture, "interrupts", WRONG, "not remapped", "allow_unsafe_interrupts");
    fixture_add(&fixture, "file sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts Y");
    expect(&fixture, "interrupts", NOTE, "not remapped", NULL);
    expect(&fixture, "iommu", RIGHT, "groups", NULL);
    expect(&fixture, "driver", WRONG, "not loaded", "modprobe vfio-pci");
    expect(&fixture, "container", WAITS, "driver", NULL);
    expect(&fixture, "memlock", WRONG, "8 MiB", "ulimit -l 4259840");
    fixture_add(&fixture, "file proc/sys/kernel/osrelease 6.99");
    expect(&fixture, "driver", WRONG, "6.99", "CONFIG_VFIO_PCI");
    fixture_add(&fixture, "dir sys/bus/pci/drivers/vfio-pci");
    expect(&fixture, "container", WRONG, "not there", "vfio_iommu_type1");
    fixture_close(&fixture);

    fixture = fixture_open("accelerators", (struct passthrough_config){0});
    expect(&fixture, "machine", RIGHT, "ARM", NULL);
    expect(&fixture, "interrupts", NOTE, "", NULL);
    expect(&fixture, "memlock", RIGHT, "any amount", NULL);
    assert_true(ready(&fixture));
    fixture_close(&fixture);
}

static void test_virtual_machines(void **state)
{
    static const struct {
        const char *vendor, *product, *remedy;
    } machines[] = {
        {"QEMU", "Standard PC", "-device intel-iommu"},
        {"VMware, Inc.", "VMware7,1", "vvtd.enable"},
        {"innotek GmbH", "VirtualBox", "--iommu automatic"},
        {"Microsoft Corporation", "Virtual Machine", "physical machine"},
        {"Amazon EC2", "m5.large", ".metal"},
        {"Nobody", "Nothing", "hypervisor"},
    };
    struct machine_fixture fixture = fixture_open("guest", (struct passthrough_config){0});
    for (size_t i = 0; i < ARRAY_SIZE(machines); i++) {
        char *vendor = xasprintf("file sys/class/dmi/id/sys_vendor %s", machines[i].vendor);
        char *product = xasprintf("file sys/class/dmi/id/product_name %s", machines[i].product);
        fixture_add(&fixture, vendor);
        fixture_add(&fixture, product);
        free(vendor);
        free(product);
        expect(&fixture, "machine", NOTE, "virtual machine", NULL);
        expect(&fixture, "firmware", WRONG, "no IOMMU", machines[i].remedy);
    }
    expect(&fixture, "iommu", WAITS, "off", NULL);
    expect(&fixture, "interrupts", WAITS, "IOMMU", NULL);
    expect(&fixture, "driver", WRONG, "6.12.1", "CONFIG_VFIO_PCI");
    /* With an emulated IOMMU it is like a physical one. */
    fixture_add(&fixture, "file sys/firmware/acpi/tables/DMAR x");
    expect(&fixture, "firmware", RIGHT, "DMAR", NULL);
    expect(&fixture, "parameters", WRONG, "intel_iommu=on", "intel_iommu=on");
    /* A physical machine of a maker that sells virtual ones, too. */
    fixture_add(&fixture, "file proc/cpuinfo vendor_id : GenuineIntel\\nflags : vmx");
    fixture_add(&fixture, "file sys/class/dmi/id/sys_vendor Microsoft Corporation");
    fixture_add(&fixture, "file sys/class/dmi/id/product_name Surface");
    expect(&fixture, "machine", RIGHT, "physical", NULL);
    fixture_close(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups),           cmocka_unit_test(test_server),
        cmocka_unit_test(test_parameters),       cmocka_unit_test(test_modules),
        cmocka_unit_test(test_virtual_machines),
    };
    return cmocka_run_group_tests_name("passthrough_check", tests, NULL, NULL);
}
