/*
 * Boots a kernel that has PCI devices of the host, with libhartvisor.
 *
 *     passthrough KERNEL ADDRESS...
 *
 * The devices must be bound to vfio-pci ('hartvisor devices bind ADDRESS'). The program exits with
 * the guest's status.
 *
 *     cc passthrough.c $(pkg-config --cflags --libs --static hartvisor)
 */
#include <stdio.h>

#include "hartvisor/machine.h"
#include "hartvisor/passthrough.h"

static bool attach(struct passthrough_manager *manager, const char *text,
                   struct machine_config *config, struct error *err)
{
    struct pci_address address;
    if (!pci_address_parse(text, &address, err))
        return false;
    struct passthrough_device *device = passthrough_manager_find(manager, &address, err);
    return device && passthrough_manager_attach(manager, device, config, err);
}

/* The machine's configuration points into the manager. */
static struct machine *create(struct passthrough_manager *manager, char **words, struct error *err)
{
    struct machine_config config;
    machine_config_init(&config);
    config.memory_size = 64 << 20;
    config.kernel = *words;
    while (*++words)
        if (!attach(manager, *words, &config, err))
            return NULL;
    return machine_create(&config, err);
}

int main(int argc, char **argv)
{
    struct error err;
    if (argc < 3) {
        fprintf(stderr, "usage: passthrough KERNEL ADDRESS...\n");
        return 2;
    }
    struct passthrough_manager *manager = passthrough_manager_create(NULL, &err);
    struct machine *machine = NULL;
    if (manager && passthrough_manager_scan(manager, &err))
        machine = create(manager, argv + 1, &err);
    if (!machine)
        fprintf(stderr, "passthrough: %s\n", err.message);
    int status = machine ? machine_run(machine) : 1;
    machine_destroy(machine);
    passthrough_manager_destroy(manager);
    return status;
}
