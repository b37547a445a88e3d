/*
 * The process's terminal in raw mode (private to device/).
 *
 * One terminal a process. From terminal_begin to terminal_end the terminal is raw whenever the
 * process is in the foreground; it is put back before the process ends by exit or by a signal whose
 * action is the default one, and before it is stopped.
 */
#pragma once

#include <stdbool.h>

#include "base/error.h"

/* fd stays the caller's. False if a terminal is raw already, or the mode cannot be set. */
bool terminal_begin(int fd, struct error *err);
void terminal_end(void);

/* Readable (eventfd) after the process was continued or the window size changed; -1 when not raw.
 */
int terminal_event_fd(void);

/* True if reading from the terminal would not stop the process. */
bool terminal_in_foreground(void);
