/* Boot images: the input is the file. */
#include <stdint.h>
#include <stdlib.h>

#include "base/base.h"
#include "machine/loader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct memory *memory;
    if (!memory) {
        memory = memory_create();
        if (!memory_add_ram(memory, 0x80000000, 8 << 20, NULL))
            abort();
    }
    struct loader_image image;
    struct error err = {0};
    bool ok = loader_load(memory, "fuzz", data, size, 0x80200000, &image, &err);
    if (ok ? image.low > image.high : !err.message[0])
        abort();
    return 0;
}
