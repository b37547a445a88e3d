/*
 * Binding and unbinding against a recorded machine whose sysfs answers like the kernel's: writes
 * are noted, and change which driver a device has.
 */
#include "recorded_machine.h"

#include "base/bits.h"

/* What the writes go to. */
static struct kernel {
    struct machine_fixture fixture;
    char log[4096];
    const char *natural; /* the driver that the kernel finds for a device without an override */
    const char *fail;    /* writes to paths with this in them fail ... */
    int number;          /* ... with this */
    bool vfio_refuses;   /* probes of vfio-pci fail */
} kernel;

static void set_driver(const char *device, const char *driver)
{
    char *link = xasprintf("sys/bus/pci/devices/%s/driver", device);
    char *whole = xasprintf("%s/%s", kernel.fixture.root, link);
    char *target = driver ? xasprintf("sys/bus/pci/drivers/%s", driver) : NULL;
    recorded_root = kernel.fixture.root;
    unlink(whole);
    if (driver && !(kernel.vfio_refuses && !strcmp(driver, "vfio-pci")))
        recorded_link(link, target);
    free(link);
    free(whole);
    free(target);
}

static bool read_first(const char *path, char *text, size_t size)
{
    char *whole = xasprintf("%s%s", kernel.fixture.root, path);
    FILE *file = fopen(whole, "r");
    bool ok = file && fgets(text, (int)size, file);
    if (file)
        fclose(file);
    if (ok)
        text[strcspn(text, "\n")] = '\0';
    free(whole);
    return ok;
}

/* A device that has a driver is left alone by a probe. */
static bool is_bound(const char *device)
{
    char *whole = xasprintf("%s/sys/bus/pci/devices/%s/driver", kernel.fixture.root, device);
    struct stat status;
    bool bound = lstat(whole, &status) == 0;
    free(whole);
    return bound;
}

static void probe(const char *device)
{
    char path[128], override[64] = "";
    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver_override", device);
    if (is_bound(device))
        return;
    bool named = read_first(path, override, sizeof(override)) && override[0] && override[0] != '(';
    if (named || kernel.natural)
        set_driver(device, named ? override : kernel.natural);
}

/* The device whose numbers new_id was given: the tests use it for the free NVMe drive. */
#define FREE_DRIVE "0000:67:00.0"

static int kernel_write(void *opaque, const char *path, const char *text)
{
    char name[64];
    const char *shown = strcmp(text, "\n") ? text : "";
    size_t length = strlen(kernel.log);
    snprintf(kernel.log + length, sizeof(kernel.log) - length, "%s=%s\n", path + 12, shown);
    if (kernel.fail && strstr(path, kernel.fail))
        return kernel.number;
    recorded_root = kernel.fixture.root;
    if (strstr(path, "/driver_override"))
        recorded_file(path, "%s", shown);
    else if (strstr(path, "/driver/unbind"))
        set_driver(text, NULL);
    else if (strstr(path, "/drivers_probe"))
        probe(text);
    else if (strstr(path, "/new_id"))
        set_driver(FREE_DRIVE, "vfio-pci");
    else if (sscanf(path, "/sys/bus/pci/drivers/%63[^/]/bind", name) == 1 && strstr(path, "/bind"))
        set_driver(text, name);
    return 0;
}

static int set_up(void **state)
{
    kernel = (struct kernel){.natural = NULL};
    kernel.fixture = fixture_open("server", (struct passthrough_config){.write = kernel_write});
    return 0;
}

static int tear_down(void **state)
{
    fixture_close(&kernel.fixture);
    return 0;
}

static struct error err;

static bool change(bool binding, const char *address, struct passthrough_bind_options options)
{
    struct passthrough_device *device = fixture_device(&kernel.fixture, address);
    kernel.log[0] = '\0';
    return (binding ? passthrough_bind : passthrough_unbind)(kernel.fixture.manager, &device, 1,
                                                             &options, &err);
}

static bool bind_one(const char *address)
{
    return change(true, address, (struct passthrough_bind_options){0});
}

static bool unbind_one(const char *address)
{
    return change(false, address, (struct passthrough_bind_options){0});
}

static void assert_driver(const char *address, const char *driver)
{
    assert_string_equal(fixture_device(&kernel.fixture, address)->info.driver, driver);
    assert_true(passthrough_manager_scan(kernel.fixture.manager, NULL));
    assert_string_equal(fixture_device(&kernel.fixture, address)->info.driver, driver);
}

static void must(bool ok)
{
    if (!ok)
        fail_msg("%s", err.message);
}

static void test_there_and_back(void **state)
{
    must(bind_one("67:00.0"));
    assert_string_equal(kernel.log, "/devices/0000:67:00.0/driver_override=vfio-pci\n"
                                    "/devices/0000:67:00.0/driver/unbind=0000:67:00.0\n"
                                    "/drivers_probe=0000:67:00.0\n");
    assert_driver("67:00.0", "vfio-pci");
    must(bind_one("67:00.0"));
    assert_string_equal(kernel.log, "");
    must(unbind_one("67:00.0"));
    assert_string_equal(kernel.log, "/devices/0000:67:00.0/driver/unbind=0000:67:00.0\n"
                                    "/devices/0000:67:00.0/driver_override=\n"
                                    "/drivers/nvme/bind=0000:67:00.0\n");
    assert_driver("67:00.0", "nvme");
    assert_false(unbind_one("67:00.0"));
    assert_has(err.message, "its driver is nvme");
}

/* What is remembered outlives the manager; a device that had no driver gets none. */
static void test_remembered(void **state)
{
    char text[64];
    fixture_add(&kernel.fixture, "pci 64:05.0/68:00.0 1ac1:089a class=ff0000 group=70");
    must(bind_one("68:00.0"));
    must(bind_one("67:00.0"));
    assert_true(read_first("/run/hartvisor/drivers", text, sizeof(text)));
    assert_string_equal(text, "0000:68:00.0 -");
    const struct passthrough_device *drive = fixture_device(&kernel.fixture, "67:00.0");
    assert_true(passthrough_former_driver(kernel.fixture.manager, drive, text));
    assert_string_equal(text, "nvme");
    assert_false(passthrough_former_driver(kernel.fixture.manager,
                                           fixture_device(&kernel.fixture, "17:00.0"), text));
    struct passthrough_config config = {.root = kernel.fixture.root, .write = kernel_write};
    passthrough_manager_destroy(kernel.fixture.manager);
    kernel.fixture.manager = passthrough_manager_create(&config, &err);
    must(passthrough_manager_scan(kernel.fixture.manager, &err));
    must(unbind_one("68:00.0"));
    assert_null(strstr(kernel.log, "probe"));
    assert_driver("68:00.0", "");
    must(unbind_one("67:00.0"));
    assert_driver("67:00.0", "nvme");
    assert_false(read_first("/run/hartvisor/drivers", text, sizeof(text)));

    /* Of a device that something else has bound nothing is remembered: the kernel chooses. */
    kernel.natural = "nvidia";
    fixture_add(&kernel.fixture, "pci 64:02.0/65:00.1 10de:1aef class=040300 group=41");
    must(unbind_one("65:00.0"));
    assert_has(kernel.log, "/drivers_probe=0000:65:00.0");
    assert_driver("65:00.0", "nvidia");
}

static void test_without_override(void **state)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/sys/bus/pci/devices/" FREE_DRIVE "/driver_override",
             kernel.fixture.root);
    assert_int_equal(unlink(path), 0);
    must(bind_one("67:00.0"));
    assert_string_equal(kernel.log, "/devices/0000:67:00.0/driver/unbind=0000:67:00.0\n"
                                    "/drivers/vfio-pci/new_id=144d a80a\n"
                                    "/drivers/vfio-pci/remove_id=144d a80a\n");
    assert_driver("67:00.0", "vfio-pci");
    must(unbind_one("67:00.0"));
    assert_string_equal(kernel.log, "/devices/0000:67:00.0/driver/unbind=0000:67:00.0\n"
                                    "/drivers/nvme/bind=0000:67:00.0\n");
    /* The numbers are known already: then the device is bound by its address. */
    kernel.fail = "new_id";
    kernel.number = EEXIST;
    must(bind_one("67:00.0"));
    assert_has(kernel.log, "/drivers/vfio-pci/bind=0000:67:00.0");
    assert_driver("67:00.0", "vfio-pci");
}

static void test_group(void **state)
{
    assert_false(bind_one("17:00.0"));
    assert_has(err.message, "0000:17:00.1 (snd_hda_intel)");
    assert_has(err.message, "--group");
    assert_string_equal(kernel.log, "");
    must(change(true, "17:00.0", (struct passthrough_bind_options){.group = true}));
    assert_driver("17:00.0", "vfio-pci");
    assert_driver("17:00.1", "vfio-pci");
    must(passthrough_group_viable(kernel.fixture.manager, 21, &err));
    must(change(false, "17:00.1", (struct passthrough_bind_options){.group = true}));
    assert_driver("17:00.0", "nvidia");
    assert_driver("17:00.1", "snd_hda_intel");

    /* Both by name; one twice. */
    struct passthrough_device *both[] = {fixture_device(&kernel.fixture, "17:00.1"),
                                         fixture_device(&kernel.fixture, "17:00.0"),
                                         fixture_device(&kernel.fixture, "17:00.1")};
    must(passthrough_bind(kernel.fixture.manager, both, 3, NULL, &err));
    assert_driver("17:00.0", "vfio-pci");
}

static void test_dry_run(void **state)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    must(change(true, "17:00.0", (struct passthrough_bind_options){.group = true, .dry_run = out}));
    fclose(out);
    assert_string_equal(kernel.log, "");
    assert_has(text, "echo vfio-pci > /sys/bus/pci/devices/0000:17:00.1/driver_override\n");
    free(text);
    assert_driver("17:00.0", "nvidia");
    char *folder = xasprintf("%s/run", kernel.fixture.root);
    assert_int_not_equal(access(folder, F_OK), 0);
    free(folder);
}

/* What the host lives on, and why. */
static void test_refused(void **state)
{
    static const struct {
        const char *machine, *address, *named;
        bool forced; /* --force helps */
    } cases[] = {
        {"server", "18:00.0", "mounted at /", true},
        {"server", "66:00.0", "mounted at /", true},
        {"server", "03:00.0", "display", true},
        {"server", "04:00.0", "default route goes through it (eno1)", true},
        {"server", "b3:00.0", "2 virtual functions", true},
        {"server", "16:02.0", "is a bridge", false},
        {"desktop", "03:00.0", "display", true},
        {"desktop", "0f:00.0", "mounted at /", true},
        {"desktop", "0e:00.0", "mounted at /mnt/my disk", true},
        {"desktop", "08:00.0", "default route goes through it (br0)", true},
        {"desktop", "0d:00.0", "would not be viable", true},
        {"accelerators", "2:00:1f.3", "lpc_ich", true},
        {"laptop", "01:00.0", "no IOMMU group", true},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        fixture_close(&kernel.fixture);
        kernel.fixture =
            fixture_open(cases[i].machine, (struct passthrough_config){.write = kernel_write});
        fixture_add(&kernel.fixture, "dir sys/bus/pci/drivers/vfio-pci");
        if (bind_one(cases[i].address))
            fail_msg("%s of the %s was bound", cases[i].address, cases[i].machine);
        assert_has(err.message, cases[i].named);
        assert_string_equal(kernel.log, "");
        bool forced =
            change(true, cases[i].address, (struct passthrough_bind_options){.force = true});
        assert_int_equal(forced, cases[i].forced);
    }
}

/* The same on the laptop, as if its IOMMU were on: the ways that need a closer look. */
static void test_refused_without_group(void **state)
{
    static const struct {
        const char *line, *address, *named;
    } cases[] = {
        {"pci 00:06.0/01:00.0 1c5c:1959 class=010802 driver=nvme group=1", "01:00.0", "/home"},
        {"pci 00:02.0 8086:7d55 class=030000 driver=i915 group=2 boot=0", "00:02.0", "console"},
        {"pci 00:14.3 8086:7e40 class=028000 driver=iwlwifi group=3", "00:14.3", "wlp0s20f3"},
    };
    fixture_close(&kernel.fixture);
    kernel.fixture = fixture_open("laptop", (struct passthrough_config){.write = kernel_write});
    fixture_add(&kernel.fixture, "dir sys/devices/pci0000:00/0000:00:02.0/graphics/fb0");
    fixture_add(&kernel.fixture, "link sys/class/graphics/fb0 "
                                 "sys/devices/pci0000:00/0000:00:02.0/graphics/fb0");
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        fixture_add(&kernel.fixture, cases[i].line);
        assert_false(bind_one(cases[i].address));
        assert_has(err.message, cases[i].named);
    }
    /* Without a route it is still the only link that is up; with another one it is not. */
    fixture_add(&kernel.fixture, "file proc/net/ipv6_route x");
    assert_false(bind_one("00:14.3"));
    assert_has(err.message, "only network link");
    fixture_add(&kernel.fixture, "net usb0 00:14.0");
    must(bind_one("00:14.3"));
    /* Swap. */
    fixture_add(&kernel.fixture, "file proc/self/mountinfo x");
    fixture_add(&kernel.fixture, "file proc/swaps Filename\\n/dev/nvme0n1 partition 1 0 -2");
    assert_false(bind_one("01:00.0"));
    assert_has(err.message, "swaps");
}

static void test_failures(void **state)
{
    static const struct {
        const char *path;
        int number;
        const char *named;
    } cases[] = {
        {"driver_override", EACCES, "root"},
        {"driver/unbind", ENODEV, "driver/unbind"},
        {"drivers_probe", EROFS, "read-only"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        kernel.fail = cases[i].path;
        kernel.number = cases[i].number;
        assert_false(bind_one("67:00.0"));
        assert_has(err.message, cases[i].named);
        kernel.fail = NULL;
        assert_driver("67:00.0", "nvme");
        char text[64];
        assert_false(read_first("/run/hartvisor/drivers", text, sizeof(text)));
    }
    /* vfio-pci does not take it: the driver comes back. */
    kernel.vfio_refuses = true;
    assert_false(bind_one("67:00.0"));
    assert_has(err.message, "vfio-pci did not take 0000:67:00.0");
    assert_driver("67:00.0", "nvme");
    kernel.vfio_refuses = false;

    /* The former driver does not take it back: it stays remembered. */
    must(bind_one("67:00.0"));
    kernel.fail = "nvme/bind";
    kernel.number = ENODEV;
    assert_false(unbind_one("67:00.0"));
    assert_has(err.message, "modprobe nvme");
    kernel.fail = NULL;
    must(unbind_one("67:00.0"));
    assert_driver("67:00.0", "nvme");
}

static void test_gone(void **state)
{
    struct passthrough_device *device = fixture_device(&kernel.fixture, "67:00.0");
    char *link = xasprintf("%s/sys/bus/pci/devices/0000:67:00.0", kernel.fixture.root);
    unlink(link);
    free(link);
    assert_false(passthrough_bind(kernel.fixture.manager, &device, 1, NULL, &err));
    assert_has(err.message, "0000:67:00.0 is gone");
    assert_false(passthrough_unbind(kernel.fixture.manager, &device, 1, NULL, &err));
    assert_has(err.message, "0000:67:00.0 is gone");
    char *driver = xasprintf("%s/sys/bus/pci/drivers/vfio-pci", kernel.fixture.root);
    recorded_host_remove(driver);
    free(driver);
    assert_false(bind_one("17:00.0"));
    assert_false(change(true, "17:00.0", (struct passthrough_bind_options){.group = true}));
    assert_has(err.message, "modprobe vfio-pci");
}

static void test_in_use(void **state)
{
    /* A GPU by NVIDIA's own file, then by that of the kernel's graphics. */
    struct passthrough_bind_options group = {.group = true};
    fixture_add(&kernel.fixture, "file proc/driver/nvidia/gpus/0000:17:00.0/information Model:\\n"
                                 "Device Minor: \t 1\\n");
    fixture_add(&kernel.fixture, "file dev/nvidia1 x");
    fixture_add(&kernel.fixture, "link proc/321/fd/3 dev/nvidia1");
    fixture_add(&kernel.fixture, "file proc/321/comm python3");
    assert_false(change(true, "17:00.0", group));
    assert_has(err.message, "process 321 (python3) uses it");
    assert_string_equal(kernel.log, "");
    fixture_add(&kernel.fixture, "link proc/321/fd/3 dev/dri/renderD129");
    fixture_add(&kernel.fixture, "file dev/dri/renderD129 x");
    must(change(true, "17:00.0", group));
    must(change(false, "17:00.0", group));
    fixture_add(&kernel.fixture, "link sys/class/drm/renderD129 "
                                 "sys/devices/pci0000:16/0000:16:02.0/0000:17:00.0/drm/renderD129");
    fixture_add(&kernel.fixture,
                "dir sys/devices/pci0000:16/0000:16:02.0/0000:17:00.0/drm/renderD129");
    assert_false(change(true, "17:00.0", group));
    assert_has(err.message, "process 321");

    fixture_add(&kernel.fixture, "link proc/4711/fd/7 dev/vfio/41");
    fixture_add(&kernel.fixture, "link proc/4711/fd/8 dev/vfio/vfio");
    fixture_add(&kernel.fixture, "file proc/4711/comm hartvisor");
    assert_false(unbind_one("65:00.0"));
    assert_has(err.message, "process 4711 (hartvisor)");
    must(unbind_one("b3:00.3"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_there_and_back),
        TEST(test_remembered),
        TEST(test_without_override),
        TEST(test_group),
        TEST(test_dry_run),
        TEST(test_refused),
        TEST(test_refused_without_group),
        TEST(test_failures),
        TEST(test_gone),
        TEST(test_in_use),
    };
    return cmocka_run_group_tests_name("passthrough_bind", tests, NULL, NULL);
}
