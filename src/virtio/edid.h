/* What a display tells of itself: VESA E-EDID 1.4, with a DisplayID 1.3 extension for sizes that a
 * detailed timing of EDID cannot express. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define EDID_SIZE_MAX 256

/* For a display of that many pixels (1..65536), the index-th of a machine. Returns the size. */
size_t edid_create(uint8_t edid[EDID_SIZE_MAX], uint32_t width, uint32_t height, unsigned index);
