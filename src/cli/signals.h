/*
 * SIGINT, SIGTERM and SIGHUP: the orderly way out.
 *
 * A thread of their own waits for them, so that they work whatever the others are busy with. While
 * a machine runs, the first one ends it in order, with exit status 128 + its number. Before and
 * after that, and when one comes a second after the first, it ends the process as usual, with the
 * terminal restored. One that was ignored when the process started (nohup) stays ignored.
 */
#pragma once

#include <stdbool.h>

#include "base/error.h"

struct machine;

/* Before any other thread is created. */
bool signals_init(struct error *err);

/* The machine that they end; NULL: none any more. */
void signals_attach(struct machine *machine);
