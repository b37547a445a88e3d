/*
 * The host's PCI devices, for handing them to guests: what there is, what stands in the way, and
 * the drivers that have them.
 *
 *     struct error err;
 *     struct passthrough_manager *manager = passthrough_manager_create(NULL, &err);
 *     if (!manager || !passthrough_manager_scan(manager, &err))
 *         fprintf(stderr, "%s\n", err.message);
 *     passthrough_manager_print(manager, PASSTHROUGH_ALL_KINDS, stdout, 0);
 *     passthrough_manager_destroy(manager);
 *
 * A manager and its devices belong to one thread at a time; two managers are independent, and
 * binding is serialised between processes by the file that remembers drivers. Scanning needs no
 * privilege; binding needs root. Functions that fail leave a message in `err` and change nothing,
 * unless they say otherwise.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "hartvisor/error.h"

/* --- Addresses -------------------------------------------------------------------------------- */

struct pci_address {
    uint32_t domain; /* above 0xffff where a controller hides a tree of its own */
    uint8_t bus;
    uint8_t device;   /* 0..31 */
    uint8_t function; /* 0..7 */
};

#define PCI_ADDRESS_SIZE 20 /* of a text, with its end */

/* Reads DDDD:BB:DD.F, BB:DD.F (domain 0), or either without .F (function 0), all hexadecimal. */
bool pci_address_parse(const char *text, struct pci_address *address, struct error *err);

/* The long form, as sysfs has it. Returns `text`. */
char *pci_address_print(const struct pci_address *address, char text[PCI_ADDRESS_SIZE]);

/* Below, equal to or above 0, in the order of domain, bus, device, function. */
int pci_address_compare(const struct pci_address *a, const struct pci_address *b);

/* --- What a device is ------------------------------------------------------------------------- */

enum passthrough_type {
    PASSTHROUGH_GPU,
    PASSTHROUGH_NPU, /* and every other accelerator */
    PASSTHROUGH_NETWORK,
    PASSTHROUGH_STORAGE,
    PASSTHROUGH_USB,
    PASSTHROUGH_AUDIO,
    PASSTHROUGH_BRIDGE,
    PASSTHROUGH_OTHER,
    PASSTHROUGH_TYPES
};

enum passthrough_kind {
    PASSTHROUGH_GPU_NVIDIA,
    PASSTHROUGH_GPU_AMD,
    PASSTHROUGH_GPU_INTEL,
    PASSTHROUGH_GPU_MOBILE, /* of a vendor that makes GPUs for phones and tablets */
    PASSTHROUGH_GPU_OTHER,
    PASSTHROUGH_NPU_NPU,
    PASSTHROUGH_NPU_ACCELERATOR, /* FPGA, compression, cryptography, or not known better */
    PASSTHROUGH_NETWORK_ETHERNET,
    PASSTHROUGH_NETWORK_WIFI,
    PASSTHROUGH_NETWORK_INFINIBAND,
    PASSTHROUGH_NETWORK_OTHER,
    PASSTHROUGH_STORAGE_NVME,
    PASSTHROUGH_STORAGE_SATA,
    PASSTHROUGH_STORAGE_OTHER,
    PASSTHROUGH_KIND_USB,
    PASSTHROUGH_KIND_AUDIO,
    PASSTHROUGH_KIND_BRIDGE,
    PASSTHROUGH_KIND_OTHER,
    PASSTHROUGH_KINDS
};

/* A set of kinds, for filters: bit (1 << kind). */
#define PASSTHROUGH_ALL_KINDS ((UINT32_C(1) << PASSTHROUGH_KINDS) - 1)

/* Names that never change: "gpu"; "gpu-nvidia", "nvme". Constant strings. */
const char *passthrough_type_name(enum passthrough_type type);
const char *passthrough_kind_name(enum passthrough_kind kind);
enum passthrough_type passthrough_kind_type(enum passthrough_kind kind);

/* Reads names of types and kinds, separated by commas, into a set of kinds. */
bool passthrough_kinds_parse(const char *text, uint32_t *kinds, struct error *err);

enum passthrough_bar_kind {
    PASSTHROUGH_BAR_NONE,
    PASSTHROUGH_BAR_IO,
    PASSTHROUGH_BAR_MEMORY32,
    PASSTHROUGH_BAR_MEMORY64, /* the next one is part of it */
};

#define PASSTHROUGH_BARS    7 /* six and the expansion ROM */
#define PASSTHROUGH_BAR_ROM 6

struct passthrough_bar {
    enum passthrough_bar_kind kind;
    bool prefetchable;
    uint64_t address, size; /* the host's; 0 where only root may know the address */
};

struct passthrough_link {
    unsigned speed; /* MT/s a lane; 0: not known */
    unsigned width; /* lanes */
};

/* What the scan found. Texts are empty where there is nothing. */
struct passthrough_info {
    struct pci_address address;
    char name[PCI_ADDRESS_SIZE]; /* the address as text */
    uint16_t vendor, device, subsystem_vendor, subsystem_device;
    uint32_t class_code; /* 24 bits: base class, subclass, interface */
    uint8_t revision;
    char vendor_name[64], device_name[96];
    enum passthrough_kind kind;
    bool integrated; /* a GPU in the processor */
    char driver[64];
    int group;     /* IOMMU group; -1: none */
    int numa_node; /* -1: none */
    struct passthrough_bar bars[PASSTHROUGH_BARS];
    struct passthrough_link link, link_max;
    unsigned virtual_functions, virtual_functions_max; /* SR-IOV: there are, there can be */
    char physical_function[PCI_ADDRESS_SIZE];          /* of a virtual function: whose it is */
    char reset_methods[64];                            /* in the order the kernel tries them */
    bool boot_vga;                                     /* the firmware's display */
    char power_state[16];                              /* "D0" */
};

/* --- A device ---------------------------------------------------------------------------------
 *
 * Those that the scan finds are the host's; a program may add devices of its own (a device in
 * another process, a test double) by filling the table. An operation may be NULL where the device
 * lacks it: the functions below then fail and say so. New operations will come at the end.
 */

struct passthrough_device;

struct passthrough_device_ops {
    const char *name; /* what provides the device: "sysfs" */
    /* Reads up to `size` bytes of configuration space from `offset` on and sets *got, which is
     * less where the rest is not there or not permitted. */
    bool (*config_read)(struct passthrough_device *device, unsigned offset, void *data, size_t size,
                        size_t *got, struct error *err);
    bool (*config_write)(struct passthrough_device *device, unsigned offset, const void *data,
                         size_t size, struct error *err);
    /* Ends the device; `device` is the owner's storage. */
    void (*destroy)(struct passthrough_device *device);
    /* Reads the vital product data from its start, as config_read does. */
    bool (*product_data_read)(struct passthrough_device *device, void *data, size_t size,
                              size_t *got, struct error *err);
};

struct passthrough_device {
    const struct passthrough_device_ops *ops;
    struct passthrough_info info;
    void *opaque; /* the implementation's */
};

bool passthrough_config_read(struct passthrough_device *device, unsigned offset, void *data,
                             size_t size, size_t *got, struct error *err);
bool passthrough_config_write(struct passthrough_device *device, unsigned offset, const void *data,
                              size_t size, struct error *err);

/* One register of 1, 2 or 4 bytes. False too if not all of it is to be had. */
bool passthrough_config_get(struct passthrough_device *device, unsigned offset, unsigned size,
                            uint32_t *value, struct error *err);
bool passthrough_config_set(struct passthrough_device *device, unsigned offset, unsigned size,
                            uint32_t value, struct error *err);

bool passthrough_product_data_read(struct passthrough_device *device, void *data, size_t size,
                                   size_t *got, struct error *err);

/* --- Configuration space ----------------------------------------------------------------------
 *
 * A copy, of which only the first `size` bytes are known: the kernel shows others than root no
 * more than 64. The bytes may be anything; nothing here trusts them.
 */

#define CONFIG_SPACE_SIZE             4096
#define CONFIG_SPACE_MAX_CAPABILITIES 128

struct config_space {
    uint8_t bytes[CONFIG_SPACE_SIZE];
    size_t size;
};

struct config_capability {
    bool extended;
    uint16_t id;
    uint8_t version; /* of extended ones; otherwise 0 */
    uint16_t offset;
};

/* As much as there is. False if there is nothing at all. */
bool config_space_read(struct config_space *space, struct passthrough_device *device,
                       struct error *err);

/* Little-endian values. False, with *value 0, if not all of it is known. */
bool config_space_u8(const struct config_space *space, unsigned offset, uint8_t *value);
bool config_space_u16(const struct config_space *space, unsigned offset, uint16_t *value);
bool config_space_u32(const struct config_space *space, unsigned offset, uint32_t *value);

/* The capabilities in the order of the device's lists, standard ones first; returns how many. A
 * list ends where it leaves its part of the space, comes back on itself, or is not known. */
unsigned config_space_capabilities(const struct config_space *space,
                                   struct config_capability list[CONFIG_SPACE_MAX_CAPABILITIES]);

/* The first with that number; false if there is none. */
bool config_space_find(const struct config_space *space, bool extended, uint16_t id,
                       struct config_capability *capability);

/* "MSI-X"; NULL if the number is not known. A constant string. */
const char *config_capability_name(const struct config_capability *capability);

/* The header and each capability decoded, as lines of text or as one JSON object. */
void config_space_print(const struct config_space *space, FILE *out, unsigned flags);

/* --- Vital product data: what a card says of itself ------------------------------------------- */

#define PRODUCT_DATA_MAX_SIZE   32768
#define PRODUCT_DATA_MAX_FIELDS 64

struct product_field {
    char keyword[3]; /* "PN", "SN", "V0"; "ID" is the product's name */
    char text[128];  /* printable; cut if longer */
};

/* The fields in the order of the data, which may be anything; returns how many. */
size_t product_data_fields(const void *data, size_t size,
                           struct product_field list[PRODUCT_DATA_MAX_FIELDS]);

/* "serial number"; NULL where the keyword has no meaning of its own. A constant string. */
const char *product_field_name(const struct product_field *field);

/* --- The manager ------------------------------------------------------------------------------ */

struct passthrough_manager;

struct passthrough_config {
    /* Stands for "/": a folder with copies of sys, proc and dev. NULL or "": this machine. */
    const char *root;
    /* Where former drivers are remembered. NULL: /run/hartvisor, or $XDG_RUNTIME_DIR/hartvisor
     * where the former is not to be written. */
    const char *state_folder;
    /* Writes `text` to a file of sysfs; `path` begins with /sys. Returns 0 or an errno value.
     * NULL: really does it, under the root. */
    int (*write)(void *opaque, const char *path, const char *text);
    void *opaque;
};

/* `config` NULL: this machine. Its strings are copied. */
struct passthrough_manager *passthrough_manager_create(const struct passthrough_config *config,
                                                       struct error *err);
void passthrough_manager_destroy(struct passthrough_manager *manager); /* accepts NULL */

/* Looks at the host anew. Devices of an earlier scan end; those that were added stay. */
bool passthrough_manager_scan(struct passthrough_manager *manager, struct error *err);

/* Adds a device, which the manager owns from then on (ops->destroy). Fails if its address is
 * taken; the device then stays the caller's. */
bool passthrough_manager_add(struct passthrough_manager *manager, struct passthrough_device *device,
                             struct error *err);

/* The devices in the order of their addresses; valid until the next scan or add. */
size_t passthrough_manager_count(const struct passthrough_manager *manager);
struct passthrough_device *passthrough_manager_device(const struct passthrough_manager *manager,
                                                      size_t index);

/* Puts up to `size` devices of those kinds into `devices`; returns how many there are. */
size_t passthrough_manager_filter(const struct passthrough_manager *manager, uint32_t kinds,
                                  struct passthrough_device **devices, size_t size);

/* NULL with err set if there is no such device. */
struct passthrough_device *passthrough_manager_find(const struct passthrough_manager *manager,
                                                    const struct pci_address *address,
                                                    struct error *err);

/* Flags of everything that prints. */
#define PASSTHROUGH_PRINT_JSON   1 /* one document; keys do not change */
#define PASSTHROUGH_PRINT_COLOUR 2
/* How wide a line may be, 60..400; 0 means 100. */
#define PASSTHROUGH_PRINT_WIDTH(columns) ((unsigned)(columns) << 8)

/* A table of the devices of those kinds. */
void passthrough_manager_print(const struct passthrough_manager *manager, uint32_t kinds, FILE *out,
                               unsigned flags);
/* All about one device, with its configuration space as far as it may be read. */
void passthrough_device_print(const struct passthrough_manager *manager,
                              struct passthrough_device *device, FILE *out, unsigned flags);

/* --- IOMMU groups -----------------------------------------------------------------------------
 *
 * A group is what the IOMMU can isolate; its devices go to one guest, all or none. It is viable if
 * each has no driver, or one that keeps its hands off; bridges and PCIe ports do not count.
 */

/* Whether the host's IOMMU is on. */
bool passthrough_iommu_on(const struct passthrough_manager *manager);

/* Numbers of the groups, ascending; up to `size`; returns how many there are. */
size_t passthrough_groups(const struct passthrough_manager *manager, int *groups, size_t size);

/* Its devices, as passthrough_manager_filter gives them. */
size_t passthrough_group_devices(const struct passthrough_manager *manager, int group,
                                 struct passthrough_device **devices, size_t size);

/* Whether this device, by its driver, keeps its group from being viable. */
bool passthrough_device_hinders(const struct passthrough_device *device);

/* False, with err naming each device in the way and its driver, if the group is not viable. */
bool passthrough_group_viable(const struct passthrough_manager *manager, int group,
                              struct error *err);

void passthrough_groups_print(const struct passthrough_manager *manager, FILE *out, unsigned flags);

/* --- Giving devices to machines ---------------------------------------------------------------
 *
 * A machine takes its devices when it is created (machine_create opens them, and says what is in
 * the way), and gives them back when it is destroyed.
 */

struct machine_config;

/*
 * Enters a device in the configuration of a machine that is still to be created, after checking
 * what can be checked without opening it: IOMMU, group, driver. Fails for a device that is entered
 * already. The configuration then points to info.name, and like its other strings that must live as
 * long as the machine: until the next scan.
 */
bool passthrough_manager_attach(const struct passthrough_manager *manager,
                                const struct passthrough_device *device,
                                struct machine_config *config, struct error *err);
/* Takes it out again; false if it is not there. */
bool passthrough_manager_detach(const struct passthrough_manager *manager,
                                const struct passthrough_device *device,
                                struct machine_config *config, struct error *err);

/* --- Is the machine ready? -------------------------------------------------------------------- */

enum passthrough_check_state {
    PASSTHROUGH_CHECK_RIGHT,
    PASSTHROUGH_CHECK_WRONG,
    PASSTHROUGH_CHECK_WAITS, /* cannot be said before an earlier one is right */
    PASSTHROUGH_CHECK_NOTE,  /* neither; something to know */
};

struct passthrough_check {
    const char *name; /* "iommu"; does not change */
    enum passthrough_check_state state;
    char found[256];  /* what is there */
    char remedy[768]; /* what to do, in lines; empty where nothing is */
};

#define PASSTHROUGH_MAX_CHECKS 12

/* Looks at processor, firmware, kernel, modules, permissions and limits, for a guest with so many
 * bytes of RAM. Returns how many checks there are. */
size_t passthrough_check(const struct passthrough_manager *manager, uint64_t memory_size,
                         struct passthrough_check checks[PASSTHROUGH_MAX_CHECKS]);

/* Prints them; returns whether nothing is wrong. */
bool passthrough_check_print(const struct passthrough_manager *manager, uint64_t memory_size,
                             FILE *out, unsigned flags);

/* --- Drivers ---------------------------------------------------------------------------------- */

struct passthrough_bind_options {
    bool group;    /* every device of the groups that needs it, not only those named */
    bool force;    /* even if the host uses the device, or the group does not become viable */
    FILE *dry_run; /* NULL, or: write nothing, print here what would be written */
};

/*
 * Gives devices to vfio-pci and remembers the drivers that they had. Everything is checked before
 * the first write; if a write fails later, the device at hand gets its driver back and those before
 * it keep vfio-pci. Refused are bridges, and without `force` what the host lives on: the controller
 * of a mounted disk or swap, the console's GPU, the last network link.
 */
bool passthrough_bind(struct passthrough_manager *manager, struct passthrough_device **devices,
                      size_t count, const struct passthrough_bind_options *options,
                      struct error *err);

/* Takes devices from vfio-pci and gives them back to their former drivers; to whichever the kernel
 * finds where none is remembered. Refused while a process has the device open. */
bool passthrough_unbind(struct passthrough_manager *manager, struct passthrough_device **devices,
                        size_t count, const struct passthrough_bind_options *options,
                        struct error *err);

/* The driver that a bound device had before and unbind gives it back to: "" for none. False if
 * nothing is remembered. */
bool passthrough_former_driver(const struct passthrough_manager *manager,
                               const struct passthrough_device *device, char driver[64]);
