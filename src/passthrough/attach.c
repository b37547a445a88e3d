/* Devices in the configuration of a machine. */
#include <string.h>

#include "base/base.h"
#include "hartvisor/machine.h"
#include "passthrough/internal.h"
#include "passthrough/vfio.h"

/* The place of a device in the configuration, or that behind the last. Addresses have several
 * forms. */
static unsigned find(const struct machine_config *config, const struct passthrough_device *device)
{
    for (unsigned i = 0; i < config->passthrough_count; i++) {
        struct pci_address address;
        if (pci_address_parse(config->passthrough[i].address, &address, NULL) &&
            !pci_address_compare(&address, &device->info.address))
            return i;
    }
    return config->passthrough_count;
}

bool passthrough_manager_attach(const struct passthrough_manager *manager,
                                const struct passthrough_device *device,
                                struct machine_config *config, struct error *err)
{
    unsigned at = find(config, device);
    if (at < config->passthrough_count)
        return error_set(err, "%s is given to the machine already", device->info.name);
    if (at == MACHINE_MAX_PASSTHROUGH)
        return error_set(err, "a machine can have %d of the host's devices at most",
                         MACHINE_MAX_PASSTHROUGH);
    if (!vfio_kernel_check(manager, device, err))
        return false;
    config->passthrough[at] = (struct machine_passthrough){.address = device->info.name};
    config->passthrough_count++;
    return true;
}

bool passthrough_manager_detach(const struct passthrough_manager *manager,
                                const struct passthrough_device *device,
                                struct machine_config *config, struct error *err)
{
    unsigned at = find(config, device);
    if (at == config->passthrough_count)
        return error_set(err, "%s is not given to the machine", device->info.name);
    config->passthrough_count--;
    memmove(config->passthrough + at, config->passthrough + at + 1,
            (config->passthrough_count - at) * sizeof(*config->passthrough));
    return true;
}
