/* The debugger's side of a machine is part of the public library: see there. */
#pragma once

#include "hartvisor/debug.h"
