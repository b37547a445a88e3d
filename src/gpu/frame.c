#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gpu/gpu.h"

static uint8_t *map_frame(int fd, size_t size)
{
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
        return NULL;
    /* The renderer maps it too, and must not be able to make accesses here fail. */
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return NULL;
    void *pixels = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return pixels == MAP_FAILED ? NULL : pixels;
}

struct gpu_frame *gpu_frame_create(uint32_t width, uint32_t height, struct error *err)
{
    assert(width && width <= GPU_MAX_SIZE && height && height <= GPU_MAX_SIZE);
    size_t size = (size_t)width * 4 * height;
    int fd = memfd_create("frame", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    uint8_t *pixels = map_frame(fd, size);
    if (!pixels) {
        error_set_errno(err, errno, "no memory for a frame of %ux%u pixels", width, height);
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    struct gpu_frame *frame = xcalloc(1, sizeof(*frame));
    *frame = (struct gpu_frame){
        .width = width,
        .height = height,
        .stride = width * 4,
        .pixels = pixels,
        .size = size,
        .fd = fd,
        .references = 1,
    };
    uint32_t *pixel = (uint32_t *)pixels;
    for (size_t i = 0; i < size / 4; i++)
        pixel[i] = GPU_BLACK;
    return frame;
}

struct gpu_frame *gpu_frame_get(struct gpu_frame *frame)
{
    atomic_fetch_add(&frame->references, 1);
    return frame;
}

void gpu_frame_put(struct gpu_frame *frame)
{
    if (!frame || atomic_fetch_sub(&frame->references, 1) > 1)
        return;
    munmap(frame->pixels, frame->size);
    close(frame->fd);
    free(frame);
}
