/* What the files of this area share. */
#pragma once

#include <json-c/json.h>

#include "passthrough/host.h"
#include "passthrough/passthrough.h"

#define VFIO_DRIVER "vfio-pci"

struct pci_names;

struct passthrough_manager {
    struct host host;
    struct pci_names *names;
    struct passthrough_device **devices; /* by address */
    size_t count;
    char *state_folder; /* NULL: the default */
    int (*write)(void *opaque, const char *path, const char *text);
    void *opaque;
};

/* --- scan.c --- */

/* Reads what sysfs has on one device. False if it is gone. */
bool scan_device(const struct passthrough_manager *manager, const struct pci_address *address,
                 struct passthrough_info *info);

/* Reads the driver anew. */
void scan_driver(const struct host *host, struct passthrough_info *info);

/* --- names.c: texts from pci.ids; without libpci there are none --- */

struct pci_names *pci_names_create(const struct host *host);
void pci_names_destroy(struct pci_names *names);
void pci_names_find(struct pci_names *names, struct passthrough_info *info);

/* --- classify.c --- */

/* From class_code, vendor, device and address. */
void classify(struct passthrough_info *info);

/* --- guard.c, guard_disk.c, guard_users.c: what the host lives on --- */

/* False, with err saying why, if the host would miss the device. */
bool guard_check(const struct host *host, const struct passthrough_info *info, struct error *err);

/* Each puts a reason into `why` if the host uses the device. */
bool guard_disk(const struct host *host, const char *name, char *why, size_t size);
bool guard_users(const struct host *host, const struct passthrough_info *info, char *why,
                 size_t size);

/* A process that has one of those files open, as far as may be seen; 0: none. */
long guard_process(const struct host *host, char *const *paths, size_t count, char name[32]);

/* Whether a path below /sys leads through the PCI device of that name. */
bool guard_path_has(const char *path, const char *name);

/* --- bind_state.c: the former drivers, in a file --- */

/* The driver remembered for a device: "" if it had none; false if nothing is remembered. */
bool bind_state_get(const struct passthrough_manager *manager, const char *name, char *driver,
                    size_t size);
/* Remembers one; `driver` NULL forgets it. */
bool bind_state_set(const struct passthrough_manager *manager, const char *name, const char *driver,
                    struct error *err);

/* --- check_iommu.c --- */

enum host_processor {
    PROCESSOR_UNKNOWN,
    PROCESSOR_INTEL,
    PROCESSOR_AMD,
    PROCESSOR_ARM,
};

struct host_platform {
    enum host_processor processor;
    bool virtual;        /* a guest itself */
    char hypervisor[80]; /* its name, as far as known */
};

void host_platform_find(const struct host *host, struct host_platform *platform);
/* The checks of the hardware, the firmware and the kernel's parameters. */
void check_platform(const struct passthrough_manager *manager, struct passthrough_check *check);
void check_firmware(const struct passthrough_manager *manager, struct passthrough_check *check);
void check_parameters(const struct passthrough_manager *manager, struct passthrough_check *check);
void check_iommu(const struct passthrough_manager *manager, struct passthrough_check *check);
void check_interrupts(const struct passthrough_manager *manager, struct passthrough_check *check);

/* Fills a check, whose name is set. */
void check_set(struct passthrough_check *check, enum passthrough_check_state state,
               const char *format, ...) __attribute__((format(printf, 3, 4)));
void check_remedy(struct passthrough_check *check, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* --- text.c, config_text.c, json.c --- */

const char *text_colour(unsigned flags, const char *code); /* "" without colours */
unsigned text_width(unsigned flags);
char *text_size(uint64_t bytes, char text[32]); /* "16 MiB" */

struct json_object *json_device(const struct passthrough_info *info);
struct json_object *json_config_space(const struct config_space *space);
struct json_object *json_product_data(const struct product_field *list, size_t count);
void json_print(FILE *out, struct json_object *object); /* and puts it */
void json_groups(const struct passthrough_manager *manager, FILE *out);

/* --- capabilities.c: the fields of a capability, one after the other --- */

enum field_type {
    FIELD_NUMBER,
    FIELD_FLAG,
    FIELD_TEXT,
};

struct field {
    const char *key; /* "max_payload": for JSON; for people the underscores are blanks */
    const char *unit;
    enum field_type type;
    uint64_t number;
    char text[160];
};

typedef void field_sink(void *opaque, const struct field *field);

void capability_decode(const struct config_space *space, const struct config_capability *capability,
                       field_sink *sink, void *opaque);
