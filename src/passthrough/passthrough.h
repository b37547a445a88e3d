/* The passthrough area: its interface is the public header. */
#pragma once

#include "base/base.h"
#include "hartvisor/passthrough.h"
