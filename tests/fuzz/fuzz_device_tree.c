/* A user's device tree, edited with --append and --initrd. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "machine/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct machine machine = {
        .config = {.append = "console=ttyS0"}, .initrd_gpa = 0x88000000, .initrd_size = 0x1000};
    struct error err = {0};
    void *blob, *copy = malloc(size ? size : 1); /* aligned, and ASan knows its end */
    size_t blob_size;
    memcpy(copy, data, size);
    if (boot_edit_tree(&machine, "fuzz", copy, size, &blob, &blob_size, &err))
        free(blob);
    else if (!err.message[0])
        abort();
    free(copy);
    return 0;
}
