/* A recorded machine and its manager, for unit tests. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "recorded_host.h"

struct machine_fixture {
    char root[64];
    struct passthrough_manager *manager;
};

/* Makes the machine of that name, and scans it. The writes of `config` go on. */
static struct machine_fixture fixture_open(const char *name, struct passthrough_config config)
{
    /* Hundreds of little files: in memory, where there is a place for that. */
    struct machine_fixture fixture;
    snprintf(fixture.root, sizeof(fixture.root), "%s/hartvisor-machine-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    struct error err;
    char *file = xasprintf(MACHINES "/%s", name);
    assert_non_null(mkdtemp(fixture.root));
    recorded_host_make(file, fixture.root);
    free(file);
    config.root = fixture.root;
    fixture.manager = passthrough_manager_create(&config, &err);
    assert_non_null(fixture.manager);
    assert_true(passthrough_manager_scan(fixture.manager, &err));
    return fixture;
}

static void fixture_close(struct machine_fixture *fixture)
{
    passthrough_manager_destroy(fixture->manager);
    recorded_host_remove(fixture->root);
}

/* A device by its address, which is there. */
static struct passthrough_device *fixture_device(const struct machine_fixture *fixture,
                                                 const char *text)
{
    struct pci_address address;
    struct error err;
    if (!pci_address_parse(text, &address, &err))
        fail_msg("%s", err.message);
    struct passthrough_device *device = passthrough_manager_find(fixture->manager, &address, &err);
    if (!device)
        fail_msg("%s", err.message);
    return device;
}

/* Adds to the machine what a line says, and scans anew. */
static inline void fixture_add(struct machine_fixture *fixture, const char *line)
{
    char *copy = xstrdup(line);
    recorded_root = fixture->root;
    recorded_line(copy);
    free(copy);
    assert_true(passthrough_manager_scan(fixture->manager, NULL));
}

static inline void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("'%s' is not in: %s", part, text);
}
