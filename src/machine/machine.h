/*
 * The machine as the areas above it (control, cli) see it: the public interface, and access to
 * parts that no program outside has a use for.
 */
#pragma once

#include "device/chardev.h"
#include "hartvisor/machine.h"

struct loop;

/* The event loop that machine_run runs. */
struct loop *machine_loop(struct machine *machine);

/* The serial port's character channel, or NULL for "none". */
struct chardev *machine_serial(struct machine *machine);

/*
 * Receives the keys behind Ctrl-A on a stdio serial port that the channel itself does not handle
 * (x, c, h, ...). On the loop's thread. NULL removes it. On the loop's thread, or while the loop
 * does not run.
 */
void machine_set_escape(struct machine *machine, void (*escape)(void *opaque, char key),
                        void *opaque);
