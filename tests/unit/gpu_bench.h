/*
 * virtio-gpu on a renderer of the test's own, which notes requests and answers them by hand, and a
 * driver for it.
 */
#pragma once

#include <stdlib.h>

#include <unistd.h>

#include "virtio/gpu.h"
#include "virtio_driver.h"

#define CONTROL    0
#define CURSOR     1
#define QUEUE_SIZE 16

#define REQUEST_GPA  DRIVER_BUFFERS /* 0x1000 for each chain */
#define RESPONSE_GPA (DRIVER_BUFFERS + 0x40000)
#define PIXELS_GPA   (DRIVER_BUFFERS + 0x100000)

#define F_EDID 1
#define F_UUID 2
#define F_BLOB 3
#define ALL    (BIT(F_EDID) | BIT(F_UUID) | BIT(F_BLOB))

#define OK_NODATA       0x1100u
#define OK_DISPLAY_INFO 0x1101u
#define OK_EDID         0x1104u
#define OK_UUID         0x1105u
#define ERR_UNSPEC      0x1200u
#define ERR_MEMORY      0x1201u
#define ERR_SCANOUT     0x1202u
#define ERR_RESOURCE    0x1203u
#define ERR_PARAMETER   0x1205u

#define FAKE_MAX 4096

struct fake {
    struct gpu_renderer base;
    struct gpu_request requests[FAKE_MAX];
    size_t count, answered;
    struct gpu_range *ranges; /* of the last BACKING */
    size_t regions;           /* of RAM that it was told of */
};

static struct {
    struct fake *fake;
    unsigned opened, again, destroyed;
    bool refuse; /* to open, to take memory */
    bool refuse_memory;
} fakes;

static void fake_submit(struct gpu_renderer *renderer, const struct gpu_request *request,
                        const void *payload, int fd)
{
    struct fake *fake = container_of(renderer, struct fake, base);
    assert(fake->count < FAKE_MAX && (fd >= 0) == (request->type == GPU_REQUEST_OUTPUT));
    if (fd >= 0)
        close(fd);
    if (request->type == GPU_REQUEST_BACKING) {
        size_t size = request->size - sizeof(*request);
        assert(size == request->backing.count * sizeof(struct gpu_range));
        free(fake->ranges);
        fake->ranges = size ? xmalloc(size) : NULL;
        if (size)
            memcpy(fake->ranges, payload, size);
    }
    fake->requests[fake->count++] = *request;
}

static bool fake_add_memory(struct gpu_renderer *renderer, const struct memory_ram *ram,
                            struct error *err)
{
    container_of(renderer, struct fake, base)->regions++;
    return !fakes.refuse_memory || error_set(err, "this memory cannot be shared");
}

static void fake_destroy(struct gpu_renderer *renderer)
{
    struct fake *fake = container_of(renderer, struct fake, base);
    fakes.destroyed++;
    if (fakes.fake == fake)
        fakes.fake = NULL;
    free(fake->ranges);
    gpu_renderer_finish(renderer);
    free(fake);
}

static const struct gpu_renderer_ops fake_ops = {
    .name = "fake",
    .submit = fake_submit,
    .add_memory = fake_add_memory,
    .destroy = fake_destroy,
};

static inline struct gpu_renderer *fake_open(void *opaque, bool again, struct error *err)
{
    fakes.opened++;
    fakes.again += again;
    if (fakes.refuse) {
        error_set(err, "there is none");
        return NULL;
    }
    fakes.fake = xcalloc(1, sizeof(*fakes.fake));
    gpu_renderer_init(&fakes.fake->base, &fake_ops);
    return &fakes.fake->base;
}

/* Answers the next request that has no answer. */
static inline void fake_answer(struct fake *fake, uint32_t status)
{
    assert(fake->answered < fake->count);
    const struct gpu_request *request = &fake->requests[fake->answered++];
    struct gpu_answer answer = {
        .type = request->type, .size = sizeof(answer), .serial = request->serial, .status = status};
    if (request->type == GPU_REQUEST_RENDER)
        answer.rect = (struct gpu_rect){1, 2, 3, 4};
    gpu_renderer_answer(&fake->base, &answer, NULL);
}

static inline void fake_answer_all(struct fake *fake)
{
    while (fake->answered < fake->count)
        fake_answer(fake, GPU_OK);
}

/* It is gone, as a process that died. */
static inline void fake_lose(struct fake *fake)
{
    while (fake->answered < fake->count)
        fake_answer(fake, GPU_LOST);
    fake->base.listener.lost(fake->base.listener.opaque, "it ended by signal 11");
}

struct bench {
    struct loop *loop;
    struct memory *memory;
    struct virtio_mmio *slot;
    struct virtio_device *gpu;
    struct driver driver;
    struct gpu_renderer *(*open)(void *opaque, bool again, struct error *err);
    unsigned next; /* chain, in turn */
    /* What the viewer was told. */
    unsigned changed, damaged;
    uint32_t width, height;
};

static inline void turn(struct bench *bench)
{
    for (unsigned i = 0; i < 4; i++)
        loop_turn(bench->loop, 0);
}

/* What was asked of the renderer since `mark`, as letters, for a look at a glance. */
static inline const char *asked(size_t mark)
{
    static char text[FAKE_MAX + 1];
    static const char letters[] = "?Faom" /* 0..4 */
                                  "ORBDKTSLCMXst";
    size_t n = 0;
    for (size_t i = mark; i < fakes.fake->count; i++)
        text[n++] = letters[fakes.fake->requests[i].type];
    text[n] = '\0';
    return text;
}

/* Offers a command of `size` bytes with room for a response; returns which chain it is. */
static inline unsigned offer(struct bench *bench, unsigned queue, const void *bytes, uint32_t size,
                             uint32_t room)
{
    unsigned chain = bench->next++ % (QUEUE_SIZE / 2);
    uint64_t request = REQUEST_GPA + 0x1000 * chain, response = RESPONSE_GPA + 0x1000 * chain;
    const struct driver_desc descs[] = {{request, size, 0, 0}, {response, room, DESC_WRITE, 0}};
    uint8_t none[0x800];
    memset(none, 0xee, sizeof(none));
    memory_dma_write(bench->memory, request, bytes, size);
    memory_dma_write(bench->memory, response, none, sizeof(none));
    driver_offer_chain(&bench->driver, queue, 2 * chain, descs, room ? 2 : 1);
    driver_notify(&bench->driver, queue);
    turn(bench);
    return chain;
}

static inline uint32_t response_word(struct bench *bench, unsigned chain, unsigned offset)
{
    return driver_get32(&bench->driver, RESPONSE_GPA + 0x1000 * chain + offset);
}

/* A command of 32-bit words behind a header without a fence. */
struct words {
    uint32_t type, words[23];
};

static inline uint32_t make_command(const struct words *words, uint8_t bytes[128])
{
    memset(bytes, 0, 128);
    store_le32(bytes, words->type);
    memcpy(bytes + 24, words->words, sizeof(words->words));
    static const struct {
        uint32_t type, size;
    } sizes[] = {{0x100, 24}, {0x101, 40}, {0x102, 32}, {0x103, 48}, {0x104, 48},
                 {0x105, 56}, {0x106, 32}, {0x107, 32}, {0x108, 32}, {0x10a, 32},
                 {0x10b, 32}, {0x10c, 56}, {0x10d, 96}, {0x300, 56}, {0x301, 56}};
    uint32_t size = 24;
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
        if (sizes[i].type == words->type)
            size = sizes[i].size;
    if (words->type == 0x106)
        size += 16 * words->words[1];
    if (words->type == 0x10c)
        size += 16 * words->words[3];
    return size;
}

static inline unsigned queue_of(uint32_t type)
{
    return type >= 0x300 && type < 0x400 ? CURSOR : CONTROL;
}

/* Sends it, has everything answered, and returns the response's type. */
static inline uint32_t send_words(struct bench *bench, const struct words *words)
{
    uint8_t bytes[128];
    uint32_t size = make_command(words, bytes), head, written;
    unsigned chain = offer(bench, queue_of(words->type), bytes, size, 0x800);
    if (fakes.fake)
        fake_answer_all(fakes.fake);
    turn(bench);
    if (!driver_take(&bench->driver, queue_of(words->type), &head, &written) || head != 2 * chain ||
        written < 24)
        return 0;
    return response_word(bench, chain, 0);
}

#define SEND(bench, type, ...) send_words(bench, &(struct words){type, {__VA_ARGS__}})

static inline void viewer_changed(void *opaque, unsigned scanout, uint32_t width, uint32_t height)
{
    struct bench *bench = opaque;
    bench->changed++;
    bench->width = width;
    bench->height = height;
}

static inline void viewer_damaged(void *opaque, unsigned scanout)
{
    struct bench *bench = opaque;
    bench->damaged++;
}

static inline struct virtio_device *create_gpu(struct bench *bench, struct error *err)
{
    const struct virtio_gpu_config config = {
        .scanout_count = 2,
        .sizes = {{1280, 800}, {640, 480}},
        .open = bench->open,
    };
    return virtio_gpu_create("gpu0", &config, bench->loop, err);
}

static inline void attach_gpu(struct bench *bench)
{
    const struct virtio_gpu_viewer viewer = {viewer_changed, viewer_damaged, bench};
    bench->gpu = create_gpu(bench, NULL);
    bool attached = virtio_mmio_attach(bench->slot, bench->gpu, NULL);
    assert(attached);
    (void)attached;
    virtio_gpu_set_viewer(bench->gpu, &viewer);
}

static inline struct bench *bench_create(struct gpu_renderer *(*open)(void *opaque, bool again,
                                                                      struct error *err))
{
    struct bench *bench = xcalloc(1, sizeof(*bench));
    bench->open = open;
    memset(&fakes, 0, sizeof(fakes));
    bench->loop = loop_create();
    bench->memory = memory_create();
    memory_share_ram(bench->memory); /* with renderers that are processes */
    bool added = memory_add_ram(bench->memory, DRIVER_RAM_BASE, DRIVER_RAM_SIZE, NULL);
    assert(added);
    (void)added;
    bench->slot =
        virtio_mmio_create(bench->memory, DRIVER_SLOT, (struct irq_line){0}, "slot0", NULL);
    attach_gpu(bench);
    bench->driver = (struct driver){.memory = bench->memory, .slot = DRIVER_SLOT};
    driver_start(&bench->driver, ALL, 2, QUEUE_SIZE);
    return bench;
}

static inline void remove_gpu(struct bench *bench)
{
    virtio_gpu_set_viewer(bench->gpu, NULL);
    bench->gpu->base.type->remove(&bench->gpu->base);
}

static inline void bench_destroy(struct bench *bench)
{
    struct device *slot = virtio_mmio_device(bench->slot);
    remove_gpu(bench);
    slot->type->remove(slot);
    memory_destroy(bench->memory);
    loop_destroy(bench->loop);
    free(bench);
}
