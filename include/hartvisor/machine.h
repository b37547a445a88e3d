/*
 * libhartvisor: a RISC-V machine inside your program.
 *
 *     struct machine_config config;
 *     struct error err;
 *     machine_config_init(&config);
 *     config.kernel = "vmlinux";
 *     struct machine *machine = machine_create(&config, &err);
 *     if (!machine)
 *         fprintf(stderr, "%s\n", err.message);
 *     int status = machine_run(machine);
 *     machine_destroy(machine);
 *
 * The board is compatible with QEMU's `virt`. Each hart runs on a thread of its own; devices run on
 * the thread that calls machine_run, in one event loop. Functions marked "any thread" may be called
 * while it runs, from callbacks too; the others belong to the thread that created the machine.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hartvisor/error.h"

#define MACHINE_MAX_CPUS        64
#define MACHINE_MAX_DISKS       16
#define MACHINE_MAX_NETS        8
#define MACHINE_MAX_SHARES      8
#define MACHINE_MAX_FLASH       2
#define MACHINE_MAX_PASSTHROUGH 16
#define MACHINE_MAX_DISPLAYS    16

#define MACHINE_MIN_MEMORY (UINT64_C(4) << 20)
#define MACHINE_MAX_MEMORY (UINT64_C(1) << 40)

enum machine_engine {
    MACHINE_ENGINE_INTERPRETER,
    MACHINE_ENGINE_JIT, /* where the host has a code generator */
};

enum machine_aia {
    MACHINE_AIA_AUTO, /* as the machine needs it: on with devices that are passed through */
    MACHINE_AIA_OFF,  /* a PLIC: wired interrupts */
    MACHINE_AIA_ON,   /* APLIC and IMSIC: wired and message-signalled interrupts */
};

enum machine_bus {
    MACHINE_BUS_PCI,
    MACHINE_BUS_MMIO,
};

struct machine_disk {
    const char *path; /* a raw image or a host block device */
    bool read_only;
    bool snapshot; /* writes go to a temporary overlay and are dropped at the end */
    enum machine_bus bus;
};

struct machine_net {
    /* "user[,hostfwd=tcp:HOST:PORT-:PORT]...", "tap[,ifname=NAME]": as --net takes it, less bus= */
    const char *backend;
    enum machine_bus bus;
};

struct machine_share {
    const char *directory; /* the guest sees this host directory and nothing above it (9p) */
    const char *tag;       /* NULL means "host" */
    bool read_only;
    enum machine_bus bus;
};

struct machine_flash {
    const char *path; /* NULL: this bank is erased and forgotten at the end */
    bool read_only;
};

/* A PCI device of the host's, bound to vfio-pci, that becomes the guest's. */
struct machine_passthrough {
    const char *address; /* as pci_address_parse takes it: "0000:01:00.0" */
    const char *rom;     /* a file instead of the device's expansion ROM; NULL: its own */
    unsigned no_mmap;    /* bit n: accesses to BAR n go through the kernel */
};

/* Strings stay the caller's, and are needed until machine_destroy. */
struct machine_config {
    uint64_t memory_size; /* bytes; a multiple of 4096 */
    unsigned cpus;        /* 1..MACHINE_MAX_CPUS */
    enum machine_engine engine;
    const char *cpu; /* extensions, as --cpu takes them; NULL is everything */
    enum machine_aia aia;

    const char *kernel; /* entered in S-mode on the built-in SBI, or handed to the firmware */
    const char *initrd; /* NULL: none */
    const char *append; /* the kernel's command line; NULL: none */
    const char
        *firmware;   /* M-mode firmware or bare-metal program, ELF or raw; NULL: built-in SBI */
    const char *dtb; /* a device tree blob instead of the generated one; NULL: generated */

    struct machine_flash flash[MACHINE_MAX_FLASH];
    struct machine_disk disks[MACHINE_MAX_DISKS];
    unsigned disk_count;
    struct machine_net nets[MACHINE_MAX_NETS];
    unsigned net_count;
    struct machine_share shares[MACHINE_MAX_SHARES];
    unsigned share_count;
    struct machine_passthrough passthrough[MACHINE_MAX_PASSTHROUGH];
    unsigned passthrough_count;

    /* The guest's screen. gpu: NULL for none without a display, and auto with one; "off"; or back
     * ends as gpu_manager_select takes them (gpu.h). */
    const char *gpu;
    const char *gpu_adapter; /* NULL: the best */
    const char *display;     /* NULL, "none", "sdl" or "vnc:..." as --display takes it */
    struct {
        uint32_t width, height; /* pixels, 64..16384 */
    } displays[MACHINE_MAX_DISPLAYS];
    unsigned display_count; /* 0: one of 1280x800 */

    const char *serial;  /* "stdio", "pty", "unix:PATH", "file:PATH" or "none" */
    const char *console; /* NULL or the same for a virtio console (hvc0) */
    bool semihosting;    /* lets the guest open host files by semihosting */
    bool perf_map;       /* the JIT writes /tmp/perf-PID.map, for Linux perf */
};

/* Defaults: 1 GiB, one hart, the JIT where there is one, serial on stdio, nothing else. */
void machine_config_init(struct machine_config *config);

struct machine;

/*
 * Builds a paused machine and loads what it boots. NULL, with a message that names the file or
 * option, the value and the remedy, if anything is wrong; then nothing was changed.
 */
struct machine *machine_create(const struct machine_config *config, struct error *err);

/* Ends what still runs, flushes disks, restores the terminal. Accepts NULL. */
void machine_destroy(struct machine *machine);

/*
 * Resumes the machine and runs it until it ends, on the calling thread. Returns the exit status: 0
 * for a shutdown or a pass, the guest's code for a failure, MACHINE_STATUS_FAILURE where hartvisor
 * itself failed.
 */
int machine_run(struct machine *machine);

#define MACHINE_STATUS_FAILURE 125

enum machine_state {
    MACHINE_PAUSED,
    MACHINE_RUNNING,
    MACHINE_ENDED,
};

/* Any thread. */
enum machine_state machine_get_state(const struct machine *machine);

/*
 * Any thread but a hart's. Pausing returns when no hart executes instructions; guest time stands
 * still until the machine is resumed. Both do nothing where there is nothing to do.
 */
void machine_pause(struct machine *machine);
void machine_resume(struct machine *machine);

/* Any thread: asks for a reset, as a reset button would; or for the end, with an exit status. Both
 * happen soon after, on the thread that runs machine_run. */
void machine_reset(struct machine *machine);
void machine_quit(struct machine *machine, int status);

/* Any thread: presses the power button. False if this board's guest cannot see one. */
bool machine_powerdown(struct machine *machine);

enum machine_event {
    MACHINE_EVENT_STOP,      /* paused */
    MACHINE_EVENT_RESUME,    /* running again */
    MACHINE_EVENT_RESET,     /* after a reset */
    MACHINE_EVENT_POWERDOWN, /* the power button was pressed */
    MACHINE_EVENT_SHUTDOWN,  /* the machine ends, with `status` */
};

struct machine_event_info {
    enum machine_event event;
    bool by_guest; /* the guest asked for it */
    int status;
};

/* Calls `callback` on each event, on the loop's thread or the one that caused it. Before
 * machine_run; several listeners may be added. */
typedef void machine_event_callback(void *opaque, const struct machine_event_info *info);
void machine_add_listener(struct machine *machine, machine_event_callback *callback, void *opaque);

/* Takes one away. On the thread that runs the machine, but not from a listener. */
void machine_remove_listener(struct machine *machine, machine_event_callback *callback,
                             void *opaque);

/*
 * Any thread: copies from or to guest physical RAM. False, with nothing copied, if the range is not
 * all RAM.
 */
bool machine_read_memory(struct machine *machine, uint64_t gpa, void *buffer, size_t size);
bool machine_write_memory(struct machine *machine, uint64_t gpa, const void *buffer, size_t size);

/*
 * Saves the state of the paused machine into memory that the caller frees, or loads it into a
 * paused machine of the same configuration. A load that fails leaves a machine that only reset or
 * destroy make sense of.
 */
bool machine_save(struct machine *machine, void **data, size_t *size, struct error *err);
bool machine_load(struct machine *machine, const void *data, size_t size, struct error *err);

/* The device tree blob that the guest gets; valid until machine_destroy. */
const void *machine_device_tree(const struct machine *machine, size_t *size);

/* Instructions retired by all harts together. Any thread; approximate while running. */
uint64_t machine_instructions(const struct machine *machine);
