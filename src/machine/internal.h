/*
 * The machine area's private parts: what board, boot, firmware services and lifecycle share.
 *
 * Threads. `lock` guards the fields that say so, and is held for moments only: never while a
 * device, the loop or a hart is called. The harts' threads belong to cpu.c.
 */
#pragma once

#include <pthread.h>

#include "base/base.h"
#include "device/device.h"
#include "display/display.h"
#include "hart/hart.h"
#include "hartvisor/machine.h"
#include "irq/irq.h"
#include "machine/debug.h"
#include "machine/loader.h"
#include "machine/machine.h"
#include "pci/pci.h"
#include "virtio/virtio.h"

#define BOARD_RAM_BASE     UINT64_C(0x80000000)
#define BOARD_KERNEL_BASE  UINT64_C(0x80200000) /* where a raw S-mode kernel goes: 2 MiB in */
#define BOARD_RESET_VECTOR UINT64_C(0x1000)

#define BOARD_DEVICES_MAX    128
#define BOARD_VIRTIO_SLOTS   8
#define MACHINE_LISTENER_MAX 8

/* HSM states (SBI 2.0, section 9.1, table "HSM Hart States"). */
enum hsm_state {
    HSM_STARTED = 0,
    HSM_STOPPED = 1,
    HSM_START_PENDING = 2,
    HSM_STOP_PENDING = 3,
    HSM_SUSPENDED = 4,
};

/* A hart with its thread. */
struct cpu {
    struct machine *machine;
    struct hart *hart;
    struct jit_hart *jit; /* NULL: interpreted */
    unsigned index;
    pthread_t thread;
    bool thread_started;

    /* Under the machine's lock. */
    bool parked;          /* the thread waits for the machine to run or the hart to be started */
    _Atomic unsigned hsm; /* enum hsm_state; readable without the lock */
    uint64_t start_pc, start_opaque;

    /* For a debugger (debug.c). Under the machine's lock: */
    bool held;                /* executes nothing */
    bool told;                /* `stop` is news */
    struct machine_stop stop; /* why it stopped by itself */
    /* The loop's thread while the hart is held, else the hart's: */
    bool resumed; /* it was held, and has not run on yet */
    bool pass;    /* the instruction at pass_pc is executed whatever there is to stop for */
    unsigned pass_flags, range_flags; /* HART_STEP_... */
    uint64_t pass_pc;
    bool range, range_done; /* stepping until pc is outside of range_size bytes */
    uint64_t range_start, range_size;

    struct loop_timer *sbi_timer; /* SBI set_timer on a hart without Sstc */
    struct pmu *pmu;              /* SBI PMU counters of this hart; its thread only */
    uint64_t fwft_locked;         /* bit n: row n of the FWFT table; its thread only */
};

/* What the next loop turn does to the machine; set by any thread. */
enum machine_request {
    REQUEST_RESET = 1 << 0,
    REQUEST_END = 1 << 1,
    REQUEST_BY_GUEST = 1 << 2,
};

struct semihosting;

struct machine {
    struct jit *jit; /* NULL: interpreted */
    struct machine_config config;
    struct isa_extensions extensions;
    struct loop *loop;
    struct memory *memory;
    struct clock clock;

    struct cpu cpus[MACHINE_MAX_CPUS];
    unsigned cpu_count;

    /* Constant after creation. */
    struct device *devices[BOARD_DEVICES_MAX]; /* in the order of creation */
    unsigned device_count;
    struct chardev *serial, *console;
    struct aclint *aclint;
    bool aia;            /* APLIC and IMSIC, */
    struct aplic *aplic; /* or NULL */
    struct plic *plic;   /* or NULL */
    struct pci_host *pci;
    struct uart *uart;
    struct flash *flash[MACHINE_MAX_FLASH];
    struct fw_cfg *fw_cfg;
    struct virtio_mmio *virtio_slots[BOARD_VIRTIO_SLOTS];
    unsigned next_pci_slot, next_mmio_slot;
    struct virtio_device *power_button;
    struct gpu_manager *gpu_manager; /* NULL: no GPU was asked for */
    struct display_devices screen;   /* without a GPU that draws, all NULL */
    struct display *display;         /* or NULL */
    uint64_t pci_window64_base, pci_window64_size;
    struct passthrough_manager *host_devices; /* NULL: nothing is passed through */
    struct vfio_container *vfio_container;
    struct vfio *vfio[MACHINE_MAX_PASSTHROUGH]; /* opened, and not yet a device's */
    struct vfio_device *vfio_devices[MACHINE_MAX_PASSTHROUGH];
    unsigned vfio_count;
    uint8_t *boot_rom;

    /* Boot: constant after creation, but that a reset loads the images again. */
    bool builtin_sbi;
    uint64_t entry;      /* of the kernel (built-in SBI) or the firmware */
    uint64_t next_entry; /* what firmware hands over to, 0 where there is no kernel */
    uint64_t device_tree_gpa;
    void *device_tree;
    size_t device_tree_size;
    uint64_t initrd_gpa, initrd_size;
    uint64_t tohost, fromhost;
    struct semihosting *semihosting;

    machine_distress_callback *distress; /* or NULL; constant while harts run, as is sample */
    void *distress_opaque;
    void (*sample)(void *opaque, struct hart *hart);
    void *sample_opaque;

    void (*escape)(void *opaque, char key); /* Ctrl-A keys; the loop's thread only */
    void *escape_opaque;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* running, ending, parked or hsm changed */
    bool running, ending;   /* under lock */
    _Atomic unsigned state; /* enum machine_state */
    _Atomic uint32_t requests;
    _Atomic int status;       /* exit status, valid with REQUEST_END */
    _Atomic unsigned callers; /* threads in machine_pause or machine_resume */
    struct loop_task *request_task;

    struct machine_debug *debug; /* NULL: no debugger; changes while no hart executes */
    bool debug_frozen;           /* it stops the clock; the loop's thread only */

    struct {
        machine_event_callback *callback;
        void *opaque;
    } listeners[MACHINE_LISTENER_MAX];
    unsigned listener_count;
};

/* --- machine.c ---------------------------------------------------------------------------------
 */

/* Any thread, hart threads included: asks for the end or a reset, and stops all harts at their next
 * block boundary. */
void machine_request(struct machine *machine, uint32_t requests, int status);

/* Does what was asked for. On the loop's thread. */
void machine_serve_requests(struct machine *machine);

/* --- cpu.c: hart threads -----------------------------------------------------------------------
 */

bool cpu_create_all(struct machine *machine, struct error *err);
void cpu_destroy_all(struct machine *machine);

/* To the state of power-on: every hart at the reset vector, or hart 0 at the kernel's entry and the
 * others stopped. Harts are stopped. */
void cpu_reset_all(struct machine *machine);

/* Guest time runs or stands still as the machine and a debugger want it. */
void cpu_update_clock(struct machine *machine);

/* hart_debug_step for a parked hart, on the loop's thread. */
void cpu_step(struct cpu *cpu, unsigned flags);

/* Starts the threads (parked), on the first call. */
bool cpu_start_threads(struct machine *machine, struct error *err);

/* Makes harts run, or waits until none does. Not on a hart's thread. */
void cpu_resume_all(struct machine *machine);
void cpu_pause_all(struct machine *machine);

void cpu_state(struct cpu *cpu, struct stream *stream);

/* Tells whoever wants to know (machine_set_distress). On the hart's thread. */
void cpu_distress(struct cpu *cpu, enum machine_distress distress);

/* --- board.c -----------------------------------------------------------------------------------
 */

bool board_create(struct machine *machine, struct error *err);
void board_destroy(struct machine *machine);

void board_add_device(struct machine *machine, struct device *device);
/* Puts a device on the PCI bus; takes ownership in any case. False too for NULL. */
bool board_attach(struct machine *machine, struct virtio_device *device, struct error *err);

/* --- screen.c: the guest's screen ---------------------------------------------------------------
 */

/* Picks what draws it, and enters it in the configuration. Before there is RAM. */
bool screen_open(struct machine *machine, struct error *err);
/* Creates its devices and the display. */
bool screen_attach(struct machine *machine, struct error *err);
/* Ends the display, before the devices go; and what drew, after them. */
void screen_detach(struct machine *machine);
void screen_close(struct machine *machine);

/* --- passthrough.c -----------------------------------------------------------------------------
 */

/* Opens the devices that are passed through, and adds RAM where they can reach it. */
bool passthrough_open(struct machine *machine, struct error *err);
bool passthrough_add_ram(struct machine *machine, struct error *err);
/* Puts them on the PCI bus. */
bool passthrough_attach_all(struct machine *machine, struct error *err);
/* After the devices were removed. */
void passthrough_close(struct machine *machine);

/* --- boot.c, fdt.c -----------------------------------------------------------------------------
 */

/* Loads images and the device tree into RAM and the boot ROM. Also after each reset. */
bool boot_load(struct machine *machine, struct error *err);

/* A user's device tree, checked, with --append and --initrd put into /chosen; `*blob` is to be
 * freed. */
bool boot_edit_tree(struct machine *machine, const char *name, const void *data, size_t size,
                    void **blob, size_t *blob_size, struct error *err);

/* Builds the device tree of what is really there; `*blob` is the caller's to free. */
bool fdt_build(struct machine *machine, void **blob, size_t *size, struct error *err);

/* --- sbi.c, sbi_pmu.c --------------------------------------------------------------------------
 */

/* The hart's hook for ecalls from S-mode. */
void sbi_handle(void *opaque, struct hart *hart);

/* Puts a hart into S-mode at `pc` with a0 = hart ID and a1 = opaque, as after sbi_hart_start. */
void sbi_enter(struct hart *hart, uint64_t pc, uint64_t opaque);

/* Section 3.1, table "Standard SBI Errors". */
enum sbi_error {
    SBI_SUCCESS = 0,
    SBI_ERR_FAILED = -1,
    SBI_ERR_NOT_SUPPORTED = -2,
    SBI_ERR_INVALID_PARAM = -3,
    SBI_ERR_DENIED = -4,
    SBI_ERR_INVALID_ADDRESS = -5,
    SBI_ERR_ALREADY_AVAILABLE = -6,
    SBI_ERR_ALREADY_STARTED = -7,
    SBI_ERR_ALREADY_STOPPED = -8,
    SBI_ERR_DENIED_LOCKED = -14,
};

struct sbi_result {
    int64_t error;
    uint64_t value;
};

struct pmu *pmu_create(struct hart *hart);
void pmu_destroy(struct pmu *pmu);
void pmu_reset(struct pmu *pmu);
void pmu_state(struct pmu *pmu, struct stream *stream);

/* Counts a firmware event (SBI 2.0, section 11.5), if a counter is configured for it. */
enum pmu_firmware_event {
    PMU_FW_ILLEGAL_INSN = 4,
    PMU_FW_SET_TIMER = 5,
    PMU_FW_IPI_SENT = 6,
    PMU_FW_IPI_RECEIVED = 7,
    PMU_FW_FENCE_I_SENT = 8,
    PMU_FW_FENCE_I_RECEIVED = 9,
    PMU_FW_SFENCE_VMA_SENT = 10,
    PMU_FW_SFENCE_VMA_RECEIVED = 11,
    PMU_FW_SFENCE_VMA_ASID_SENT = 12,
    PMU_FW_SFENCE_VMA_ASID_RECEIVED = 13,
};
void pmu_count(struct pmu *pmu, enum pmu_firmware_event event);

/* The PMU extension's functions; args are a0..a5. */
struct sbi_result pmu_num_counters(struct cpu *cpu, const uint64_t *args);
struct sbi_result pmu_counter_get_info(struct cpu *cpu, const uint64_t *args);
struct sbi_result pmu_config_matching(struct cpu *cpu, const uint64_t *args);
struct sbi_result pmu_start(struct cpu *cpu, const uint64_t *args);
struct sbi_result pmu_stop(struct cpu *cpu, const uint64_t *args);
struct sbi_result pmu_fw_read(struct cpu *cpu, const uint64_t *args);
struct sbi_result pmu_fw_read_hi(struct cpu *cpu, const uint64_t *args);

/* --- debug.c: what hart threads call ------------------------------------------------------------
 */

/* Under the lock, after the hart was started, and after it has stopped executing. */
void debug_started(struct cpu *cpu);
void debug_stopped(struct cpu *cpu);

/* Executes what a debugger asked to be executed first. True: the hart runs on. */
bool debug_execute(struct cpu *cpu);

/* A trap that no handler can take: whether a debugger is told instead. */
bool debug_lost(struct cpu *cpu, uint64_t cause);

/* --- htif.c, semihosting.c ---------------------------------------------------------------------
 */

/* Watches the image's tohost word, if it has one. */
void htif_attach(struct machine *machine);

struct semihosting *semihosting_create(struct machine *machine, bool files);
void semihosting_destroy(struct semihosting *semihosting);
void semihosting_reset(struct semihosting *semihosting);
bool semihosting_handle(void *opaque, struct hart *hart);
