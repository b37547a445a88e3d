/* The error convention is part of the public library: see there. */
#pragma once

#include "hartvisor/error.h"
