/*
 * Boot images: ELF, Linux Image (raw, gzip, zstd), EFI-zboot, and raw binaries.
 *
 * Files are hostile: every length and offset is checked before use, and decompression stops at the
 * size of guest RAM.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "memory/memory.h"

/* A whole file in memory. */
struct loader_file {
    const char *path;
    uint8_t *data;
    size_t size;
};

/* `option` is what the user gave the path to ("--kernel"): errors name it. */
bool loader_open(struct loader_file *file, const char *option, const char *path, struct error *err);
void loader_close(struct loader_file *file);

struct loader_image {
    uint64_t entry;            /* GPA of the first instruction */
    uint64_t low, high;        /* GPAs of the first byte and past the last one, bss included */
    uint64_t tohost, fromhost; /* GPAs of HTIF's words, 0 where the ELF has no such symbols */
    const char *format;        /* "ELF", "Image", "raw", ... */
};

/*
 * Copies an executable image into guest RAM and describes it. What is not position-dependent (raw
 * data, Image, an ELF linked outside RAM) goes to `base`, an Image to the next address that its
 * header asks for. `name` is for messages.
 */
bool loader_load(struct memory *memory, const char *name, const void *data, size_t size,
                 uint64_t base, struct loader_image *image, struct error *err);
