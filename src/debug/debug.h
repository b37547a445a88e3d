/* The debugger's side of a machine is part of the public library: see there. */
#pragma once

#include "hartvisor/debug.h"

struct symbols;

/* For `monitor bt`, `monitor list` and names in addresses. They stay the caller's, and must outlive
 * the server. NULL takes them away. */
void debug_server_set_symbols(struct debug_server *server, struct symbols *symbols);
