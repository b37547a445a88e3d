/* The manager of GPUs: what is picked where, and what follows when a renderer is lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <json-c/json.h>

#include "gpu/gpu.h"
#include "hartvisor/machine.h"
#include "recorded_host.h"

static char root[64];

/* On a recorded machine. */
static struct gpu_manager *create(const char *machine, bool draws)
{
    struct error err;
    char *file = xasprintf(MACHINES "/%s", machine);
    snprintf(root, sizeof(root), "%s/hartvisor-machine-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(root));
    recorded_host_make(file, root);
    free(file);
    /* No renderer in another process. */
    setenv("HARTVISOR_GPU", "/nowhere/hartvisor-gpu", 1);
    const struct gpu_manager_config config = {.root = root, .draws = draws};
    struct gpu_manager *manager = gpu_manager_create(&config, &err);
    assert_non_null(manager);
    return manager;
}

static void destroy(struct gpu_manager *manager)
{
    gpu_manager_destroy(manager);
    recorded_host_remove(root);
}

static void test_probe(void **state)
{
    struct gpu_manager *manager = create("server", false);
    gpu_manager_probe(manager);
    assert_int_equal(gpu_manager_count(manager), 3);
    for (size_t i = 0; i < 3; i++) {
        const struct gpu_backend_info *info = gpu_manager_backend(manager, i);
        assert_int_equal(info->usable, !info->reason[0]);
    }
    const struct gpu_backend_info *host = gpu_manager_backend(manager, 0);
    assert_string_equal(host->name, "passthrough");
    assert_true(host->adapter_count > 0);
    assert_string_equal(host->adapters[0].api, "PCI");
    const struct gpu_backend_info *wgpu = gpu_manager_backend(manager, 1);
    assert_string_equal(wgpu->name, "wgpu");
    assert_false(wgpu->usable);
    assert_non_null(strstr(wgpu->reason, "/nowhere/hartvisor-gpu"));
    assert_true(gpu_manager_backend(manager, 2)->usable);
    assert_null(gpu_manager_backend(manager, 3));
    destroy(manager);
}

static void test_auto(void **state)
{
    struct error err;
    struct gpu_manager *manager = create("guest", false);
    assert_null(gpu_manager_selected(manager));
    assert_true(gpu_manager_select(manager, "auto", NULL, &err));
    assert_string_equal(gpu_manager_selected(manager)->name, "2d");
    assert_null(gpu_manager_adapter(manager));
    assert_false(gpu_manager_shares_memory(manager));
    assert_true(gpu_manager_draws(manager));
    destroy(manager);
}

static void test_chain(void **state)
{
    struct error err;
    struct gpu_manager *manager = create("guest", false);
    assert_true(gpu_manager_select(manager, "wgpu,2d", NULL, &err));
    assert_string_equal(gpu_manager_selected(manager)->name, "2d");
    assert_false(gpu_manager_select(manager, "wgpu", NULL, &err));
    assert_non_null(strstr(err.message, "wgpu: "));
    assert_null(gpu_manager_selected(manager));
    assert_false(gpu_manager_select(manager, "wgpu,passthrough", NULL, &err));
    assert_non_null(strstr(err.message, "; passthrough: "));
    assert_false(gpu_manager_select(manager, "2d,voodoo", NULL, &err));
    assert_non_null(strstr(err.message, "'voodoo'"));
    assert_false(gpu_manager_select(manager, "", NULL, &err));
    assert_false(gpu_manager_select(manager, "2d", "0", &err));
    assert_non_null(strstr(err.message, "adapter=0"));
    destroy(manager);
}

/* The GPU that a recorded server has bound to vfio-pci, or is to bind. */
static void test_passthrough(void **state)
{
    struct error err;
    struct machine_config config;
    struct gpu_manager *manager = create("server", false);
    gpu_manager_probe(manager);
    const struct gpu_backend_info *host = gpu_manager_backend(manager, 0);
    char address[160];
    bool found = false;
    for (size_t i = 0; i < host->adapter_count; i++) {
        snprintf(address, sizeof(address), "%s", host->adapters[i].name);
        address[strcspn(address, " ")] = '\0';
        if (strcmp(host->adapters[i].driver, "vfio-pci") != 0)
            continue;
        found = true;
        assert_true(gpu_manager_select(manager, "passthrough", address, &err));
        machine_config_init(&config);
        assert_true(gpu_manager_attach(manager, &config, &err));
        assert_int_equal(config.passthrough_count, 1);
        assert_string_equal(config.passthrough[0].address, address);
        assert_false(gpu_manager_draws(manager));
        assert_null(gpu_manager_open(manager, &err));
    }
    assert_int_equal(found, host->usable);
    assert_false(gpu_manager_select(manager, "passthrough", "0000:ee:00.0", &err));
    assert_false(gpu_manager_select(manager, "passthrough", "nonsense", &err));
    destroy(manager);

    /* A display of the host's has nothing of it. */
    manager = create("server", true);
    assert_false(gpu_manager_select(manager, "passthrough", NULL, &err));
    assert_non_null(strstr(err.message, "display"));
    assert_true(gpu_manager_select(manager, "passthrough,2d", NULL, &err));
    assert_string_equal(gpu_manager_selected(manager)->name, "2d");
    destroy(manager);
}

static void test_statistics(void **state)
{
    struct error err;
    struct gpu_stats stats;
    struct gpu_manager *manager = create("guest", false);
    assert_true(gpu_manager_select(manager, "2d", NULL, &err));
    assert_false(gpu_manager_stats(manager, &stats, 0, &err));
    assert_true(gpu_manager_start(manager, &err));
    assert_true(gpu_manager_stats(manager, &stats, 0, &err));
    assert_string_equal(stats.backend, "2d");
    assert_int_equal(stats.total.frames_presented, 0);

    /* As JSON and back. */
    stats.total.draws = UINT64_C(1) << 60;
    stats.scanouts[3].bytes_uploaded = 12345;
    stats.scanout_adapter[3] = 0;
    stats.adapters[0].memory_peak = 99;
    struct json_object *object = gpu_stats_object(&stats);
    struct gpu_stats again;
    gpu_stats_parse(object, &again);
    assert_memory_equal(&stats, &again, sizeof(stats));
    json_object_put(object);
    destroy(manager);
}

/* Three losses within a minute end a back end; without another one, there is none. */
static void test_lost(void **state)
{
    struct error err;
    struct gpu_manager *manager = create("guest", false);
    assert_true(gpu_manager_select(manager, "2d", NULL, &err));
    for (unsigned i = 0; i < 2; i++) {
        struct gpu_renderer *renderer = gpu_manager_reopen(manager, &err);
        assert_non_null(renderer);
        gpu_renderer_destroy(renderer);
    }
    assert_null(gpu_manager_reopen(manager, &err));
    assert_non_null(strstr(err.message, "no GPU back end is left"));
    assert_null(gpu_manager_reopen(manager, &err));
    destroy(manager);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_probe),      cmocka_unit_test(test_auto),
        cmocka_unit_test(test_chain),      cmocka_unit_test(test_passthrough),
        cmocka_unit_test(test_statistics), cmocka_unit_test(test_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
