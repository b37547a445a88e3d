#include "base/device.h"

#include <stdio.h>

void device_init(struct device *device, const struct device_type *type, const char *name)
{
    device->type = type;
    snprintf(device->name, sizeof(device->name), "%s", name);
    pthread_mutex_init(&device->lock, NULL);
}

void device_finish(struct device *device)
{
    pthread_mutex_destroy(&device->lock);
}
