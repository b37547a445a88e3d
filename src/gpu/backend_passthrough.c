/* The passthrough back end: a GPU of the host's becomes the guest's, as a PCI device. */
#include <stdio.h>
#include <string.h>

#include "gpu/manager.h"
#include "hartvisor/machine.h"
#include "hartvisor/passthrough.h"

static bool scan(struct gpu_manager *manager, struct error *err)
{
    const struct passthrough_config config = {.root = manager->root};
    if (!manager->host)
        manager->host = passthrough_manager_create(&config, err);
    return manager->host && passthrough_manager_scan(manager->host, err);
}

/* Those that could be given to a guest now. */
static bool is_ready(const struct gpu_manager *manager, const struct passthrough_device *device,
                     struct error *err)
{
    struct machine_config config;
    machine_config_init(&config);
    return passthrough_manager_attach(manager->host, device, &config, err);
}

static void add(struct gpu_backend *backend, const struct passthrough_info *info)
{
    struct gpu_adapter_info *adapter = &backend->adapters[backend->info.adapter_count];
    *adapter = (struct gpu_adapter_info){
        .index = (uint32_t)backend->info.adapter_count,
        .type = info->integrated ? GPU_ADAPTER_INTEGRATED : GPU_ADAPTER_DISCRETE,
        .vendor_id = info->vendor,
        .device_id = info->device,
        .api = "PCI",
    };
    snprintf(adapter->name, sizeof(adapter->name), "%s %s", info->name, info->device_name);
    snprintf(adapter->vendor, sizeof(adapter->vendor), "%s", info->vendor_name);
    snprintf(adapter->driver, sizeof(adapter->driver), "%s", info->driver);
    backend->info.adapter_count++;
}

static void probe(struct gpu_manager *manager, struct gpu_backend *backend)
{
    struct passthrough_device *devices[GPU_MAX_BACKEND_ADAPTERS];
    struct error err, first = {{0}};
    if (!scan(manager, &err)) {
        gpu_backend_refuse(backend, "%s", err.message);
        return;
    }
    uint32_t kinds = 0;
    passthrough_kinds_parse("gpu", &kinds, NULL);
    size_t count = passthrough_manager_filter(manager->host, kinds, devices, ARRAY_SIZE(devices));
    bool ready = false;
    for (size_t i = 0; i < count && i < ARRAY_SIZE(devices); i++) {
        if (is_ready(manager, devices[i], &err))
            ready = true;
        else if (!first.message[0])
            first = err;
        add(backend, &devices[i]->info);
    }
    if (!count)
        gpu_backend_refuse(backend, "this machine has no GPU on PCI");
    else if (!ready)
        gpu_backend_refuse(backend, "%s", first.message);
}

static bool choose(const struct gpu_backend *backend, const char *adapter,
                   struct gpu_choice *choice, struct error *err)
{
    struct pci_address address;
    char name[PCI_ADDRESS_SIZE];
    if (!adapter && backend->info.adapter_count > 1)
        return error_set(err, "there are %zu GPUs: name one with adapter=BUS:DEVICE.FUNCTION",
                         backend->info.adapter_count);
    if (adapter && !pci_address_parse(adapter, &address, err))
        return false;
    if (adapter)
        pci_address_print(&address, name);
    for (uint32_t i = 0; i < backend->info.adapter_count; i++) {
        if (!adapter || !strncmp(backend->adapters[i].name, name, strlen(name))) {
            choice->adapters[choice->adapter_count++] = i;
            return true;
        }
    }
    return error_set(err, "there is no GPU at %s", adapter);
}

static bool attach(struct gpu_manager *manager, const struct gpu_choice *choice,
                   struct machine_config *config, struct error *err)
{
    struct pci_address address;
    char name[PCI_ADDRESS_SIZE];
    snprintf(name, sizeof(name), "%s", choice->backend->adapters[choice->adapters[0]].name);
    name[strcspn(name, " ")] = '\0';
    if (!pci_address_parse(name, &address, err))
        return false;
    struct passthrough_device *device = passthrough_manager_find(manager->host, &address, err);
    return device && passthrough_manager_attach(manager->host, device, config, err);
}

const struct gpu_backend_type gpu_backend_passthrough = {
    .name = "passthrough",
    .description = "a GPU of this machine, given to the guest",
    .probe = probe,
    .choose = choose,
    .attach = attach,
};
