#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "passthrough/internal.h"

/* --- The host's own devices --- */

static int open_file(struct passthrough_device *device, const char *name, int flags,
                     struct error *err)
{
    const struct passthrough_manager *manager = device->opaque;
    char *path =
        xasprintf("%s/sys/bus/pci/devices/%s/%s", manager->host.root, device->info.name, name);
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        error_set(err, "there is no %s: the device is gone, or was not recorded", path);
    else if (fd < 0)
        error_set_errno(err, errno, "cannot open %s%s", path,
                        errno == EACCES ? " (only root may)" : "");
    free(path);
    return fd;
}

/* As much as there is, up to `size`. */
static bool read_file(struct passthrough_device *device, const char *name, unsigned offset,
                      void *data, size_t size, size_t *got, struct error *err)
{
    int fd = open_file(device, name, O_RDONLY, err);
    if (fd < 0)
        return false;
    ssize_t count = 0;
    *got = 0;
    while (*got < size &&
           (count = pread(fd, (char *)data + *got, size - *got, offset + (off_t)*got)) > 0)
        *got += (size_t)count;
    int number = errno;
    close(fd);
    if (count < 0 && !*got)
        return error_set_errno(err, number, "cannot read the file %s of %s", name,
                               device->info.name);
    return true;
}

static bool sysfs_read(struct passthrough_device *device, unsigned offset, void *data, size_t size,
                       size_t *got, struct error *err)
{
    return read_file(device, "config", offset, data, size, got, err);
}

static bool sysfs_read_product_data(struct passthrough_device *device, void *data, size_t size,
                                    size_t *got, struct error *err)
{
    return read_file(device, "vpd", 0, data, size, got, err);
}

static bool sysfs_write(struct passthrough_device *device, unsigned offset, const void *data,
                        size_t size, struct error *err)
{
    int fd = open_file(device, "config", O_WRONLY, err);
    if (fd < 0)
        return false;
    ssize_t count = pwrite(fd, data, size, offset);
    int number = errno;
    close(fd);
    if (count == (ssize_t)size)
        return true;
    if (count < 0)
        return error_set_errno(err, number, "cannot write %#x in the configuration space of %s",
                               offset, device->info.name);
    return error_set(err, "%#x in the configuration space of %s: only %zu of %zu bytes are there",
                     offset, device->info.name, (size_t)count, size);
}

static void sysfs_destroy(struct passthrough_device *device)
{
    free(device);
}

static const struct passthrough_device_ops sysfs_ops = {
    .name = "sysfs",
    .config_read = sysfs_read,
    .config_write = sysfs_write,
    .destroy = sysfs_destroy,
    .product_data_read = sysfs_read_product_data,
};

bool passthrough_config_read(struct passthrough_device *device, unsigned offset, void *data,
                             size_t size, size_t *got, struct error *err)
{
    *got = 0;
    if (!device->ops->config_read)
        return error_set(err, "%s (%s) does not show its configuration space", device->info.name,
                         device->ops->name);
    if (!range_fits(offset, size, CONFIG_SPACE_SIZE))
        return error_set(err, "%zu bytes at %#x are not within the configuration space of %s", size,
                         offset, device->info.name);
    return device->ops->config_read(device, offset, data, size, got, err);
}

bool passthrough_config_write(struct passthrough_device *device, unsigned offset, const void *data,
                              size_t size, struct error *err)
{
    if (!device->ops->config_write)
        return error_set(err, "the configuration space of %s (%s) is not to be written",
                         device->info.name, device->ops->name);
    if (!range_fits(offset, size, CONFIG_SPACE_SIZE))
        return error_set(err, "%zu bytes at %#x are not within the configuration space of %s", size,
                         offset, device->info.name);
    return device->ops->config_write(device, offset, data, size, err);
}

bool passthrough_config_get(struct passthrough_device *device, unsigned offset, unsigned size,
                            uint32_t *value, struct error *err)
{
    uint8_t bytes[4] = {0};
    size_t got;
    assert(size == 1 || size == 2 || size == 4);
    *value = 0;
    if (!passthrough_config_read(device, offset, bytes, size, &got, err))
        return false;
    if (got < size)
        return error_set(err, "register %#x of %s is not to be read: only root may", offset,
                         device->info.name);
    *value = (uint32_t)load_le32(bytes);
    return true;
}

bool passthrough_config_set(struct passthrough_device *device, unsigned offset, unsigned size,
                            uint32_t value, struct error *err)
{
    uint8_t bytes[4];
    assert(size == 1 || size == 2 || size == 4);
    store_le32(bytes, value);
    return passthrough_config_write(device, offset, bytes, size, err);
}

/* --- The manager --- */

/* Really writes to sysfs. */
static int write_file(void *opaque, const char *path, const char *text)
{
    const struct passthrough_manager *manager = opaque;
    char *whole = host_path(&manager->host, path);
    int fd = open(whole, O_WRONLY | O_CLOEXEC);
    free(whole);
    if (fd < 0)
        return errno;
    ssize_t count = write(fd, text, strlen(text));
    int number = count < 0 ? errno : 0;
    close(fd);
    return number;
}

struct passthrough_manager *passthrough_manager_create(const struct passthrough_config *config,
                                                       struct error *err)
{
    static const struct passthrough_config defaults;
    config = config ? config : &defaults;
    const char *root = config->root ? config->root : "";
    char *real = *root && strcmp(root, "/") != 0 ? realpath(root, NULL) : xstrdup("");
    if (!real) {
        error_set_errno(err, errno, "cannot look at '%s' as a copy of a machine", root);
        return NULL;
    }
    struct passthrough_manager *manager = xcalloc(1, sizeof(*manager));
    manager->host.root = real;
    manager->state_folder = config->state_folder ? xstrdup(config->state_folder) : NULL;
    manager->write = config->write ? config->write : write_file;
    manager->opaque = config->write ? config->opaque : manager;
    manager->names = pci_names_create(&manager->host);
    return manager;
}

static void device_end(struct passthrough_device *device)
{
    if (device->ops->destroy)
        device->ops->destroy(device);
}

void passthrough_manager_destroy(struct passthrough_manager *manager)
{
    if (!manager)
        return;
    for (size_t i = 0; i < manager->count; i++)
        device_end(manager->devices[i]);
    free(manager->devices);
    pci_names_destroy(manager->names);
    free(manager->state_folder);
    free(manager->host.root);
    free(manager);
}

/* The place of an address among the devices; *taken: there is one already. */
static size_t find_place(const struct passthrough_manager *manager,
                         const struct pci_address *address, bool *taken)
{
    size_t low = 0, high = manager->count;
    *taken = false;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = pci_address_compare(&manager->devices[middle]->info.address, address);
        if (!order)
            *taken = true;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool passthrough_manager_add(struct passthrough_manager *manager, struct passthrough_device *device,
                             struct error *err)
{
    bool taken;
    pci_address_print(&device->info.address, device->info.name);
    size_t place = find_place(manager, &device->info.address, &taken);
    if (taken)
        return error_set(err, "there is a device %s already", device->info.name);
    manager->devices = xrealloc(manager->devices, (manager->count + 1) * sizeof(*manager->devices));
    memmove(manager->devices + place + 1, manager->devices + place,
            (manager->count - place) * sizeof(*manager->devices));
    manager->devices[place] = device;
    manager->count++;
    return true;
}

static void forget_scanned(struct passthrough_manager *manager)
{
    size_t kept = 0;
    for (size_t i = 0; i < manager->count; i++) {
        if (manager->devices[i]->ops == &sysfs_ops)
            device_end(manager->devices[i]);
        else
            manager->devices[kept++] = manager->devices[i];
    }
    manager->count = kept;
}

bool passthrough_manager_scan(struct passthrough_manager *manager, struct error *err)
{
    forget_scanned(manager);
    if (!host_exists(&manager->host, "/sys/bus/pci/devices")) {
        if (host_exists(&manager->host, "/sys/bus"))
            return true; /* a machine without PCI */
        return error_set(err, "there is no sysfs in '%s/sys': mount it, or give a copy of one",
                         manager->host.root);
    }
    char **names = host_list(&manager->host, "/sys/bus/pci/devices");
    for (size_t i = 0; names[i]; i++) {
        struct pci_address address;
        struct passthrough_device *device = xcalloc(1, sizeof(*device));
        device->ops = &sysfs_ops;
        device->opaque = manager;
        /* What is gone between listing and reading is not there; an added device has precedence. */
        if (!pci_address_parse(names[i], &address, NULL) ||
            !scan_device(manager, &address, &device->info) ||
            !passthrough_manager_add(manager, device, NULL))
            free(device);
    }
    host_list_free(names);
    return true;
}

size_t passthrough_manager_count(const struct passthrough_manager *manager)
{
    return manager->count;
}

struct passthrough_device *passthrough_manager_device(const struct passthrough_manager *manager,
                                                      size_t index)
{
    return index < manager->count ? manager->devices[index] : NULL;
}

size_t passthrough_manager_filter(const struct passthrough_manager *manager, uint32_t kinds,
                                  struct passthrough_device **devices, size_t size)
{
    size_t count = 0;
    for (size_t i = 0; i < manager->count; i++) {
        if (!(kinds >> manager->devices[i]->info.kind & 1))
            continue;
        if (count < size)
            devices[count] = manager->devices[i];
        count++;
    }
    return count;
}

struct passthrough_device *passthrough_manager_find(const struct passthrough_manager *manager,
                                                    const struct pci_address *address,
                                                    struct error *err)
{
    bool taken;
    char name[PCI_ADDRESS_SIZE];
    size_t place = find_place(manager, address, &taken);
    if (taken)
        return manager->devices[place];
    error_set(err, "there is no PCI device %s: 'hartvisor devices' lists those there are",
              pci_address_print(address, name));
    return NULL;
}
