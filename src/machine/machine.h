/*
 * The machine as the areas above it (control, cli) see it: the public interface, and access to
 * parts that no program outside has a use for.
 */
#pragma once

#include "device/chardev.h"
#include "hartvisor/machine.h"

struct display_devices;
struct hart;
struct loop;

/* The event loop that machine_run runs. */
struct loop *machine_loop(struct machine *machine);

/* The devices of the guest's screen; NULL: there is none. */
const struct display_devices *machine_screen(const struct machine *machine);

/* The character channel of the serial port or the virtio console that is on stdio, or NULL. */
struct chardev *machine_terminal(struct machine *machine);

/* Instructions that one hart has retired. Any thread; approximate while running. */
uint64_t machine_hart_instructions(const struct machine *machine, unsigned hart);

/*
 * What harts and engine have counted, one after another: false behind the last one. Any thread;
 * approximate while running.
 */
bool machine_get_count(const struct machine *machine, unsigned index, const char **what,
                       uint64_t *value);

/* A hart, whose registers may be read on its thread and while the machine stands still. NULL: there
 * are not so many. */
struct hart *machine_hart(struct machine *machine, unsigned index);

enum machine_distress {
    MACHINE_LOST,   /* an exception that nothing in the guest can handle: the machine ends */
    MACHINE_FAILED, /* the guest ends or resets itself, for the reason "system failure" (SBI) */
    MACHINE_LEAVES, /* the same for no reason, which is also what a kernel that panics does */
};

/* Is told, on the hart's thread and before anything is done about it. Before machine_run. */
typedef void machine_distress_callback(void *opaque, struct hart *hart,
                                       enum machine_distress distress);
void machine_set_distress(struct machine *machine, machine_distress_callback *callback,
                          void *opaque);

/* Is called on a hart's thread soon after machine_sample, between two instructions; hart->waiting:
 * in wfi. Before machine_run. */
void machine_set_sampler(struct machine *machine, void (*sample)(void *opaque, struct hart *hart),
                         void *opaque);

enum machine_sample {
    MACHINE_SAMPLE_ASKED,
    MACHINE_SAMPLE_WAITING, /* the hart sleeps in wfi: it is not asked */
    MACHINE_SAMPLE_STOPPED, /* it executes nothing, and is not asked */
};

/* Any thread. */
enum machine_sample machine_sample(struct machine *machine, unsigned hart);

/*
 * Receives the keys behind Ctrl-A on the terminal that the channel itself does not handle
 * (x, c, h, ...). On the loop's thread. NULL removes it. On the loop's thread, or while the loop
 * does not run.
 */
void machine_set_escape(struct machine *machine, void (*escape)(void *opaque, char key),
                        void *opaque);
