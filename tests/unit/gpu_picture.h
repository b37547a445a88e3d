/* A guest's picture and what a display is given of it, with a renderer that takes its time. */
#pragma once

#include "gpu_bench.h"

#define WIDTH  64u
#define HEIGHT 32u

/* As SEND, waiting for the renderer's thread. Returns 0 after ten seconds. */
static inline uint32_t command(struct bench *bench, const struct words *words)
{
    uint8_t bytes[128];
    uint32_t size = make_command(words, bytes), head, written;
    unsigned chain = offer(bench, queue_of(words->type), bytes, size, 0x800);
    for (int i = 0; i < 1000; i++) {
        if (driver_take(&bench->driver, queue_of(words->type), &head, &written))
            return response_word(bench, chain, 0);
        loop_turn(bench->loop, 10);
    }
    return 0;
}

#define DO(...) command(bench, &(struct words)__VA_ARGS__)

static inline void paint(struct bench *bench, uint32_t seed)
{
    uint32_t pixels[WIDTH * HEIGHT];
    for (uint32_t i = 0; i < WIDTH * HEIGHT; i++)
        pixels[i] = i * 0x010305 + seed;
    memory_dma_write(bench->memory, PIXELS_GPA, pixels, sizeof(pixels));
}

static inline void show_picture(struct bench *bench)
{
    assert_int_equal(DO({0x101, {1, GPU_FORMAT_B8G8R8X8, WIDTH, HEIGHT}}), OK_NODATA);
    assert_int_equal(DO({0x106, {1, 1, (uint32_t)PIXELS_GPA, 0, WIDTH * HEIGHT * 4}}), OK_NODATA);
    assert_int_equal(DO({0x105, {0, 0, WIDTH, HEIGHT, 0, 0, 1}}), OK_NODATA);
    assert_int_equal(DO({0x103, {0, 0, WIDTH, HEIGHT, 0, 1}}), OK_NODATA);
}

struct drawn {
    pthread_mutex_t lock;
    pthread_cond_t told;
    unsigned count, frames;
    struct gpu_frame *frame; /* the last one */
};

static inline void note_frame(void *opaque, struct gpu_frame *frame, const struct gpu_rect *rect)
{
    struct drawn *drawn = opaque;
    pthread_mutex_lock(&drawn->lock);
    drawn->count++;
    drawn->frames += frame != NULL;
    gpu_frame_put(drawn->frame);
    drawn->frame = frame ? gpu_frame_get(frame) : NULL;
    pthread_cond_signal(&drawn->told);
    pthread_mutex_unlock(&drawn->lock);
}

/* Asks for a frame, and waits until it or its failure is told. */
static inline void draw(struct bench *bench, struct drawn *drawn, unsigned scanout)
{
    pthread_mutex_lock(&drawn->lock);
    unsigned count = drawn->count;
    pthread_mutex_unlock(&drawn->lock);
    virtio_gpu_render(bench->gpu, scanout, note_frame, drawn);
    pthread_mutex_lock(&drawn->lock);
    while (drawn->count == count)
        pthread_cond_wait(&drawn->told, &drawn->lock);
    pthread_mutex_unlock(&drawn->lock);
}

static inline void check_frame(const struct gpu_frame *frame, uint32_t seed)
{
    assert_non_null(frame);
    assert_int_equal(frame->width, WIDTH);
    for (uint32_t i = 0; i < WIDTH * HEIGHT; i++)
        assert_int_equal(load_le32(frame->pixels + i / WIDTH * frame->stride + i % WIDTH * 4),
                         (i * 0x010305 + seed) | GPU_BLACK);
}
