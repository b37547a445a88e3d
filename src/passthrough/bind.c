/*
 * Devices change drivers by writes to sysfs. What is to be written is a list, made first and then
 * carried out, or printed. driver_override names the one driver that may take a device (since
 * Linux 3.16); without it vfio-pci is told the device's numbers, which is meant for all devices of
 * that kind and therefore taken back at once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "passthrough/internal.h"

#define STEPS_MAX 8

struct step {
    char path[160];
    char text[64];
    bool unless_bound; /* not needed where an earlier one has bound the device */
    bool may_fail;     /* how it ends is seen by the driver that the device then has */
};

struct plan {
    struct step steps[STEPS_MAX];
    unsigned count;
};

static struct step *plan_step(struct plan *plan, const char *text, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static struct step *plan_step(struct plan *plan, const char *text, const char *format, ...)
{
    struct step *step = &plan->steps[plan->count++];
    va_list arguments;
    *step = (struct step){0};
    va_start(arguments, format);
    vsnprintf(step->path, sizeof(step->path), format, arguments);
    va_end(arguments);
    snprintf(step->text, sizeof(step->text), "%s", text);
    return step;
}

static bool has_override(const struct passthrough_manager *manager, const char *name)
{
    return host_exists(&manager->host, "/sys/bus/pci/devices/%s/driver_override", name);
}

static void plan_bind(const struct passthrough_manager *manager,
                      const struct passthrough_info *info, struct plan *plan)
{
    bool override = has_override(manager, info->name);
    char numbers[16];
    plan->count = 0;
    if (override)
        plan_step(plan, VFIO_DRIVER, "/sys/bus/pci/devices/%s/driver_override", info->name);
    if (info->driver[0])
        plan_step(plan, info->name, "/sys/bus/pci/devices/%s/driver/unbind", info->name);
    if (override) {
        plan_step(plan, info->name, "/sys/bus/pci/drivers_probe");
        return;
    }
    snprintf(numbers, sizeof(numbers), "%04x %04x", info->vendor, info->device);
    plan_step(plan, numbers, "/sys/bus/pci/drivers/" VFIO_DRIVER "/new_id")->may_fail = true;
    struct step *bind = plan_step(plan, info->name, "/sys/bus/pci/drivers/" VFIO_DRIVER "/bind");
    bind->unless_bound = bind->may_fail = true;
    plan_step(plan, numbers, "/sys/bus/pci/drivers/" VFIO_DRIVER "/remove_id")->may_fail = true;
}

/* A device that has another driver than vfio-pci keeps it, and loses the override only. */
static void plan_unbind(const struct passthrough_manager *manager,
                        const struct passthrough_info *info, struct plan *plan, char former[64])
{
    bool known = bind_state_get(manager, info->name, former, 64);
    bool has_vfio = !strcmp(info->driver, VFIO_DRIVER), is_free = has_vfio || !info->driver[0];
    plan->count = 0;
    if (has_vfio)
        plan_step(plan, info->name, "/sys/bus/pci/devices/%s/driver/unbind", info->name);
    if (has_override(manager, info->name))
        plan_step(plan, "\n", "/sys/bus/pci/devices/%s/driver_override", info->name);
    if (is_free && known && *former &&
        host_exists(&manager->host, "/sys/bus/pci/drivers/%s", former))
        plan_step(plan, info->name, "/sys/bus/pci/drivers/%s/bind", former)->may_fail = true;
    else if (is_free && (!known || *former))
        plan_step(plan, info->name, "/sys/bus/pci/drivers_probe")->may_fail = true;
    if (!known)
        former[0] = '\0';
}

static void print_plan(const struct plan *plan, FILE *out)
{
    for (unsigned i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];
        const char *quote = strchr(step->text, ' ') ? "'" : "";
        if (step->text[0] == '\n')
            fprintf(out, "echo > %s\n", step->path);
        else
            fprintf(out, "echo %s%s%s > %s\n", quote, step->text, quote, step->path);
    }
}

static bool write_failed(const struct passthrough_manager *manager,
                         const struct passthrough_info *info, const struct step *step, int number,
                         struct error *err)
{
    if (!host_exists(&manager->host, "/sys/bus/pci/devices/%s", info->name))
        return error_set(err, "the device %s is gone", info->name);
    const char *advice = number == EACCES || number == EPERM
                             ? " (binding needs root: put sudo before the command)"
                         : number == EROFS ? " (sysfs is read-only here: is this a container?)"
                                           : "";
    return error_set_errno(err, number, "cannot write '%s' to %s%s",
                           step->text[0] == '\n' ? "" : step->text, step->path, advice);
}

static bool carry_out(const struct passthrough_manager *manager, struct passthrough_info *info,
                      const struct plan *plan, struct error *err)
{
    for (unsigned i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];
        scan_driver(&manager->host, info);
        if (step->unless_bound && !strcmp(info->driver, VFIO_DRIVER))
            continue;
        int number = manager->write(manager->opaque, step->path, step->text);
        if (number && !step->may_fail)
            return write_failed(manager, info, step, number, err);
    }
    scan_driver(&manager->host, info);
    return true;
}

/* --- What is refused --- */

static bool contains(struct passthrough_device **devices, size_t count,
                     const struct passthrough_device *device)
{
    for (size_t i = 0; i < count; i++)
        if (devices[i] == device)
            return true;
    return false;
}

/* Whether others in the group would keep it from being viable. */
static bool check_group(const struct passthrough_manager *manager,
                        struct passthrough_device **devices, size_t count, int group,
                        struct error *err)
{
    char list[320] = "";
    bool bridge = false;
    for (size_t i = 0; i < manager->count; i++) {
        const struct passthrough_device *device = manager->devices[i];
        if (device->info.group != group || !passthrough_device_hinders(device) ||
            contains(devices, count, device))
            continue;
        size_t length = strlen(list);
        snprintf(list + length, sizeof(list) - length, "%s%s (%s)", length ? ", " : "",
                 device->info.name, device->info.driver);
        bridge = bridge || device->info.kind == PASSTHROUGH_KIND_BRIDGE;
    }
    if (!list[0])
        return true;
    return error_set(err,
                     "IOMMU group %d would not be viable, because the host's drivers keep %s: %s",
                     group, list,
                     bridge ? "another slot may be in a group without a bridge that has a driver"
                            : "bind those too, or give --group");
}

static bool check_bind(const struct passthrough_manager *manager,
                       struct passthrough_device **devices, size_t count,
                       const struct passthrough_device *device, bool force, struct error *err)
{
    const struct passthrough_info *info = &device->info;
    if (!host_exists(&manager->host, "/sys/bus/pci/devices/%s", info->name))
        return error_set(err, "the device %s is gone", info->name);
    if (info->kind == PASSTHROUGH_KIND_BRIDGE)
        return error_set(err, "%s is a bridge, which no guest can have: name a device behind it",
                         info->name);
    if (force)
        return true;
    if (info->group < 0)
        return error_set(err,
                         "%s is in no IOMMU group, because the IOMMU is off: 'hartvisor devices "
                         "check' says what to do",
                         info->name);
    if (info->virtual_functions)
        return error_set(
            err,
            "%s has %u virtual functions, which would end with its driver: name one of "
            "those, or give --force",
            info->name, info->virtual_functions);
    return guard_check(&manager->host, info, err) &&
           check_group(manager, devices, count, info->group, err);
}

/* Whether this process may write at all, before the first write. */
static bool check_permission(const struct passthrough_manager *manager, struct error *err)
{
    if (manager->opaque != manager)
        return true; /* writes go somewhere else */
    char *path = host_path(&manager->host, "/sys/bus/pci/drivers_probe");
    bool ok = access(path, W_OK) == 0;
    if (!ok)
        error_set_errno(err, errno,
                        "cannot write to %s (binding needs root: put sudo before the "
                        "command)",
                        path);
    free(path);
    return ok;
}

/* --- Sets of devices --- */

struct set {
    struct passthrough_device **devices;
    size_t count;
};

static bool has_driver(const struct passthrough_device *device, const char *driver)
{
    return !strcmp(device->info.driver, driver);
}

/* Those named, and with `group` the others of their groups that count: for binding all but bridges,
 * for unbinding those that vfio-pci has. */
static struct set make_set(const struct passthrough_manager *manager,
                           struct passthrough_device **devices, size_t count, bool group,
                           bool binding)
{
    struct set set = {xcalloc(manager->count + count + 1, sizeof(*set.devices)), 0};
    for (size_t i = 0; i < count; i++)
        if (!contains(set.devices, set.count, devices[i]))
            set.devices[set.count++] = devices[i];
    for (size_t i = 0; group && i < count; i++) {
        for (size_t j = 0; j < manager->count; j++) {
            struct passthrough_device *other = manager->devices[j];
            bool wanted = binding ? other->info.kind != PASSTHROUGH_KIND_BRIDGE
                                  : has_driver(other, VFIO_DRIVER);
            if (wanted && devices[i]->info.group >= 0 &&
                other->info.group == devices[i]->info.group &&
                !contains(set.devices, set.count, other))
                set.devices[set.count++] = other;
        }
    }
    return set;
}

/* --- Binding --- */

static void give_back(struct passthrough_manager *manager, struct passthrough_info *info)
{
    struct plan plan;
    char former[64];
    plan_unbind(manager, info, &plan, former);
    for (unsigned i = 0; i < plan.count; i++)
        plan.steps[i].may_fail = true; /* what can be done is done */
    carry_out(manager, info, &plan, NULL);
    bind_state_set(manager, info->name, NULL, NULL);
}

static bool bind_one(struct passthrough_manager *manager, struct passthrough_info *info,
                     struct error *err)
{
    struct plan plan;
    plan_bind(manager, info, &plan);
    /* Remembered first: who is killed now leaves a device that unbind can still give back. */
    if (!bind_state_set(manager, info->name, info->driver, err))
        return false;
    bool ok = carry_out(manager, info, &plan, err);
    if (ok && strcmp(info->driver, VFIO_DRIVER) != 0)
        ok =
            error_set(err,
                      "vfio-pci did not take %s, which has %s%s now: the kernel's log (dmesg) says "
                      "why",
                      info->name, info->driver[0] ? "the driver " : "no driver", info->driver);
    if (!ok)
        give_back(manager, info);
    return ok;
}

static bool check_all(struct passthrough_manager *manager, const struct set *set,
                      const struct passthrough_bind_options *options, struct error *err)
{
    for (size_t i = 0; i < set->count; i++)
        if (!has_driver(set->devices[i], VFIO_DRIVER) &&
            !check_bind(manager, set->devices, set->count, set->devices[i], options->force, err))
            return false;
    if (!host_exists(&manager->host, "/sys/bus/pci/drivers/" VFIO_DRIVER))
        return error_set(err, "the driver vfio-pci is not there: 'modprobe vfio-pci' loads it "
                              "('hartvisor devices check' says more)");
    return options->dry_run || check_permission(manager, err);
}

static const struct passthrough_bind_options no_options;

bool passthrough_bind(struct passthrough_manager *manager, struct passthrough_device **devices,
                      size_t count, const struct passthrough_bind_options *options,
                      struct error *err)
{
    options = options ? options : &no_options;
    struct set set = make_set(manager, devices, count, options->group, true);
    bool ok = check_all(manager, &set, options, err);
    for (size_t i = 0; i < set.count && ok; i++) {
        struct plan plan;
        struct passthrough_info *info = &set.devices[i]->info;
        if (has_driver(set.devices[i], VFIO_DRIVER))
            continue;
        plan_bind(manager, info, &plan);
        if (options->dry_run)
            print_plan(&plan, options->dry_run);
        else
            ok = bind_one(manager, info, err);
    }
    free(set.devices);
    return ok;
}

/* --- Giving back --- */

static bool check_unbind(const struct passthrough_manager *manager,
                         const struct passthrough_device *device, struct error *err)
{
    const struct passthrough_info *info = &device->info;
    char name[32];
    if (!host_exists(&manager->host, "/sys/bus/pci/devices/%s", info->name))
        return error_set(err, "the device %s is gone", info->name);
    if (info->driver[0] && !has_driver(device, VFIO_DRIVER))
        return error_set(err, "vfio-pci does not have %s: its driver is %s", info->name,
                         info->driver);
    char *path = xasprintf("/dev/vfio/%d", info->group);
    long user = guard_process(&manager->host, &path, info->group >= 0, name);
    free(path);
    if (user)
        return error_set(err,
                         "%s is in use: process %ld (%s) has IOMMU group %d open; end it first",
                         info->name, user, name, info->group);
    return true;
}

static bool unbind_one(struct passthrough_manager *manager, struct passthrough_info *info,
                       FILE *dry_run, struct error *err)
{
    struct plan plan;
    char former[64];
    plan_unbind(manager, info, &plan, former);
    if (dry_run) {
        print_plan(&plan, dry_run);
        return true;
    }
    if (!carry_out(manager, info, &plan, err))
        return false;
    if (*former && strcmp(info->driver, former) != 0)
        return error_set(err,
                         "%s did not take %s back, which has %s%s now: is its module loaded "
                         "('modprobe %s')?",
                         former, info->name, info->driver[0] ? "the driver " : "no driver",
                         info->driver, former);
    return bind_state_set(manager, info->name, NULL, err);
}

bool passthrough_unbind(struct passthrough_manager *manager, struct passthrough_device **devices,
                        size_t count, const struct passthrough_bind_options *options,
                        struct error *err)
{
    options = options ? options : &no_options;
    struct set set = make_set(manager, devices, count, options->group, false);
    bool ok = true;
    for (size_t i = 0; i < set.count && ok; i++)
        ok = check_unbind(manager, set.devices[i], err);
    if (ok && !options->dry_run)
        ok = check_permission(manager, err);
    for (size_t i = 0; i < set.count && ok; i++)
        ok = unbind_one(manager, &set.devices[i]->info, options->dry_run, err);
    free(set.devices);
    return ok;
}
