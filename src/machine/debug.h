/*
 * What a debugger asks of a running machine: harts held and released one by one, steps, and where
 * harts stop by themselves.
 *
 * A hart that is held does not execute, whatever the machine does; one that is not held executes
 * while the machine runs. Devices go on in either case. Masks have bit n for hart n.
 *
 * All functions are called on the loop's thread, or before the machine runs. Those that read or
 * change a hart's state are for harts that are held.
 */
#pragma once

#include "hart/debug.h"
#include "hartvisor/machine.h"

struct machine_debug_hooks {
    void *opaque;
    /* Harts have stopped by themselves since this was last called: machine_debug_take_stop. */
    void (*stopped)(void *opaque);
};

/* One debugger at a time: false if there is one. Harts run on as they did. */
bool machine_debug_attach(struct machine *machine, const struct machine_debug_hooks *hooks);
/* All points go, and all harts run on, but for those in `held`; as long as there are any, guest
 * time stays as it is. */
void machine_debug_detach(struct machine *machine, uint64_t held);

/* Resets the machine before it returns; harts that are held stay so, at their first instruction.
 * False: what boots cannot be loaded again, and the machine ends. */
bool machine_debug_reset(struct machine *machine);

struct hart *machine_debug_hart(struct machine *machine, unsigned index);
unsigned machine_debug_hart_count(const struct machine *machine);

/* Whether the hart has been started (SBI HSM): one that has not executes nothing when released. */
bool machine_debug_started(const struct machine *machine, unsigned index);

/* Guest physical memory, for registers of devices and what is not RAM. */
struct memory *machine_debug_memory(struct machine *machine);

/* The name of a device, and what it is; NULL behind the last one. */
const char *machine_debug_device(const struct machine *machine, unsigned index, const char **type);

/* Where the configuration space of PCI function (bus << 8 | devfn) 0 is. */
uint64_t machine_debug_ecam(void);

/* Returns when none of them executes any more. */
void machine_debug_hold(struct machine *machine, uint64_t mask);
void machine_debug_release(struct machine *machine, uint64_t mask);
uint64_t machine_debug_held(const struct machine *machine);

/* With all_stop a hart that stops by itself holds all others. */
void machine_debug_set_all_stop(struct machine *machine, bool all_stop);

/* Guest time stands still while `frozen`, beside when the machine is paused. */
void machine_debug_freeze(struct machine *machine, bool frozen);

/*
 * Executes one instruction of a held hart, on the calling thread, which costs no switch to another
 * one. Without `interrupts` those that are pending stay so. A reset or an end that the guest asks
 * for with it happens at once.
 */
void machine_debug_step(struct machine *machine, unsigned index, bool interrupts);

/* Releases the hart until it has left the addresses [start, end) or stops otherwise. */
void machine_debug_step_range(struct machine *machine, unsigned index, uint64_t start, uint64_t end,
                              bool interrupts);

/* Why a hart stopped by itself. */
struct machine_stop {
    struct hart_stop hart; /* NONE: a step over a range is complete, or the hart was started */
    bool started;
};

/* What the hart has not told yet; false: nothing. */
bool machine_debug_take_stop(struct machine *machine, unsigned index, struct machine_stop *stop);

/* The next release of the hart begins with the instruction at pc, even if there is a breakpoint. As
 * it is after a stop of its own and after a step, unless pc is changed. */
void machine_debug_pass(struct machine *machine, unsigned index, bool pass);

/*
 * Where harts stop from now on; copied. Harts that run are interrupted for a moment.
 * start: whether a hart that is started (SBI HSM) stops at its first instruction.
 */
void machine_debug_set_points(struct machine *machine, const struct hart_points *points,
                              bool start);

/* What was written to guest memory may have been code: all harts see it before their next
 * instruction. */
void machine_debug_fence_code(struct machine *machine);
