/* Giving devices of a recorded machine to the configuration of a guest. */
#include "recorded_machine.h"

#include "hartvisor/machine.h"

static struct machine_fixture fixture;
static struct machine_config config;

static int open_server(void **state)
{
    fixture = fixture_open("server", (struct passthrough_config){0});
    machine_config_init(&config);
    return 0;
}

static int open_guest(void **state)
{
    fixture = fixture_open("guest", (struct passthrough_config){0});
    machine_config_init(&config);
    return 0;
}

static int close_all(void **state)
{
    fixture_close(&fixture);
    return 0;
}

static void refused(const char *address, const char *fragment)
{
    struct error err;
    unsigned count = config.passthrough_count;

    assert_false(passthrough_manager_attach(fixture.manager, fixture_device(&fixture, address),
                                            &config, &err));
    if (!strstr(err.message, fragment))
        fail_msg("'%s' is not in '%s'", fragment, err.message);
    assert_int_equal(config.passthrough_count, count);
}

static void attached_and_detached(void **state)
{
    struct passthrough_device *gpu = fixture_device(&fixture, "65:00.0");
    struct passthrough_device *audio = fixture_device(&fixture, "65:00.1");
    struct error err;

    assert_true(passthrough_manager_attach(fixture.manager, gpu, &config, &err));
    assert_true(passthrough_manager_attach(fixture.manager, audio, &config, &err));
    assert_int_equal(config.passthrough_count, 2);
    assert_string_equal(config.passthrough[0].address, "0000:65:00.0");
    refused("65:00.0", "0000:65:00.0 is given to the machine already");
    assert_true(passthrough_manager_detach(fixture.manager, gpu, &config, &err));
    assert_int_equal(config.passthrough_count, 1);
    assert_string_equal(config.passthrough[0].address, "0000:65:00.1");
    assert_false(passthrough_manager_detach(fixture.manager, gpu, &config, &err));
    assert_non_null(strstr(err.message, "is not given"));
}

static void other_forms_of_an_address(void **state)
{
    config.passthrough[0].address = "65:00";
    config.passthrough_count = 1;
    refused("65:00.0", "already");
}

static void drivers_are_in_the_way(void **state)
{
    const struct passthrough_manager *manager = fixture.manager;
    for (size_t i = 0; i < passthrough_manager_count(manager); i++) {
        const struct passthrough_device *device = passthrough_manager_device(manager, i);
        const struct passthrough_info *info = &device->info;
        if (info->kind == PASSTHROUGH_KIND_BRIDGE || info->group < 0)
            continue;
        if (!info->driver[0])
            refused(info->name, "has no driver, not vfio-pci");
        else if (passthrough_device_hinders(device))
            refused(info->name, info->driver);
    }
}

static void without_an_iommu(void **state)
{
    refused(passthrough_manager_device(fixture.manager, 0)->info.name, "the IOMMU is off");
}

static void no_more_than_there_can_be(void **state)
{
    for (unsigned i = 0; i < MACHINE_MAX_PASSTHROUGH; i++)
        config.passthrough[i].address = "ff:1f.7";
    config.passthrough_count = MACHINE_MAX_PASSTHROUGH;
    refused("65:00.0", "16");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_server, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(attached_and_detached),
        TEST(other_forms_of_an_address),
        TEST(drivers_are_in_the_way),
        cmocka_unit_test_setup_teardown(without_an_iommu, open_guest, close_all),
        TEST(no_more_than_there_can_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
