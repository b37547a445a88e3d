/* The base area: what every other area stands on. Each header can also be included alone. */
#pragma once

#include "base/alloc.h"
#include "base/bits.h"
#include "base/clock.h"
#include "base/device.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/stream.h"
