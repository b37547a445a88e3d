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

/*
 * Receives the keys behind Ctrl-A on the terminal that the channel itself does not handle
 * (x, c, h, ...). On the loop's thread. NULL removes it. On the loop's thread, or while the loop
 * does not run.
 */
void machine_set_escape(struct machine *machine, void (*escape)(void *opaque, char key),
                        void *opaque);
