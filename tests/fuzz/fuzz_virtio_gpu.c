/*
 * virtio-gpu with a renderer's real core behind it, executed when the input says so: the input
 * programs commands, mostly valid ones, resets, renderers that are lost, saved states, displays.
 * Each command must be answered once, with its fence; what the device lets through must not be
 * against the renderer's rules; each frame that was asked for must be told once.
 */
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../unit/virtio_driver.h"
#include "virtio/gpu.h"

#define QUEUE_SIZE   16
#define CHAINS       (QUEUE_SIZE / 4) /* of a queue, used in turn */
#define IDS          6
#define REQUEST_GPA  DRIVER_BUFFERS
#define RESPONSE_GPA (DRIVER_BUFFERS + 0x10000)
#define PIXELS_GPA   (DRIVER_BUFFERS + 0x40000)
#define PIXELS_SIZE  (DRIVER_RAM_BASE + DRIVER_RAM_SIZE - PIXELS_GPA)
#define ROOM         0x800

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct loop *loop;
static struct memory *memory;
static struct virtio_mmio *slot;
static struct virtio_device *device;
static struct driver driver;

/* What the guest remembers of what it made. */
static uint32_t widths[IDS], heights[IDS];

static struct {
    bool waiting, has_room;
    bool fenced;
    uint64_t fence;
} chains[2][CHAINS];
static unsigned next_chain[2];

static unsigned asked, told; /* frames */

struct input {
    const uint8_t *bytes;
    size_t left;
};

static uint64_t take(struct input *input, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size && input->left; i++, input->left--)
        value |= (uint64_t)*input->bytes++ << 8 * i;
    return value;
}

static void check(bool truth)
{
    if (!truth)
        abort();
}

/* --- The renderer ------------------------------------------------------------------------------
 */

struct job {
    struct job *next;
    struct gpu_request request;
    int fd;
    alignas(8) uint8_t payload[];
};

static struct renderer {
    struct gpu_renderer base;
    struct gpu_core *core;
    struct job *first, **last; /* under base.lock */
    bool lost;
} *renderer;

static void renderer_submit(struct gpu_renderer *base, const struct gpu_request *request,
                            const void *payload, int fd)
{
    struct renderer *self = container_of(base, struct renderer, base);
    size_t size = request->size - sizeof(*request);
    struct job *job = xmalloc(sizeof(*job) + size);
    *job = (struct job){.request = *request, .fd = fd};
    if (size)
        memcpy(job->payload, payload, size);
    *self->last = job;
    self->last = &job->next;
}

static struct job *next_job(struct renderer *self)
{
    pthread_mutex_lock(&self->base.lock);
    struct job *job = self->first;
    if (job) {
        self->first = job->next;
        if (!self->first)
            self->last = &self->first;
    }
    pthread_mutex_unlock(&self->base.lock);
    return job;
}

static void free_job(struct job *job)
{
    if (job->fd >= 0)
        close(job->fd);
    free(job);
}

/* False if there is none. */
static bool execute_job(struct renderer *self)
{
    struct job *job = next_job(self);
    void *payload = NULL;
    if (!job)
        return false;
    struct gpu_answer answer = {.type = job->request.type,
                                .size = sizeof(answer),
                                .serial = job->request.serial,
                                .status = GPU_LOST};
    if (!self->lost)
        gpu_core_execute(self->core, &job->request, job->payload, job->fd, &answer, &payload);
    /* A blob may be shown as a cursor while its bytes are taken away. */
    check(answer.status != GPU_BAD_REQUEST || job->request.type == GPU_REQUEST_CURSOR);
    gpu_renderer_answer(&self->base, &answer, payload);
    free(payload);
    free_job(job);
    return true;
}

static void lose(struct renderer *self)
{
    if (self->lost)
        return;
    self->lost = true;
    while (execute_job(self))
        ;
    self->base.listener.lost(self->base.listener.opaque, "it was the fuzzer");
}

static bool renderer_add_memory(struct gpu_renderer *base, const struct memory_ram *ram,
                                struct error *err)
{
    gpu_core_add_memory(container_of(base, struct renderer, base)->core, ram->base, ram->size,
                        ram->host);
    return true;
}

static void renderer_destroy(struct gpu_renderer *base)
{
    struct renderer *self = container_of(base, struct renderer, base);
    struct job *job;
    while ((job = next_job(self)))
        free_job(job);
    gpu_core_destroy(self->core);
    gpu_renderer_finish(base);
    free(self);
    renderer = NULL;
}

static const struct gpu_renderer_ops renderer_ops = {
    .name = "core",
    .submit = renderer_submit,
    .add_memory = renderer_add_memory,
    .destroy = renderer_destroy,
};

static struct gpu_renderer *renderer_open(void *opaque, bool again, struct error *err)
{
    struct gpu_canvas *canvas = gpu_canvas_pixman_create(err);
    check(canvas);
    renderer = xcalloc(1, sizeof(*renderer));
    gpu_renderer_init(&renderer->base, &renderer_ops);
    renderer->core = gpu_core_create(canvas, GPU_SPREAD_NONE);
    renderer->last = &renderer->first;
    return &renderer->base;
}

/* --- The guest ---------------------------------------------------------------------------------
 */

static bool is_broken(void)
{
    return driver_read(&driver, MMIO_STATUS) & VIRTIO_STATUS_NEEDS_RESET;
}

static void turn(void)
{
    for (int i = 0; i < 3; i++)
        loop_turn(loop, 0);
}

static void start(uint64_t features)
{
    driver_start(&driver, features & device->offered, 2, QUEUE_SIZE);
    memset(chains, 0, sizeof(chains));
    memset(next_chain, 0, sizeof(next_chain));
}

static uint64_t response_of(unsigned queue, unsigned chain)
{
    return RESPONSE_GPA + ROOM * (CHAINS * queue + chain);
}

/* Looks at what came back. */
static void collect(unsigned queue)
{
    uint32_t head, written;
    while (driver_take(&driver, queue, &head, &written)) {
        unsigned chain = head / 4;
        uint8_t header[24];
        check(head % 4 == 0 && chain < CHAINS && chains[queue][chain].waiting);
        chains[queue][chain].waiting = false;
        if (!chains[queue][chain].has_room) {
            check(!written);
            continue;
        }
        check(written >= 24 && written <= ROOM);
        memory_dma_read(memory, response_of(queue, chain), header, sizeof(header));
        uint32_t type = load_le32(header);
        check((type >= 0x1100 && type <= 0x1105) || (type >= 0x1200 && type <= 0x1205));
        check((load_le32(header + 4) & 1) == chains[queue][chain].fenced);
        check(load_le64(header + 8) ==
              (chains[queue][chain].fenced ? chains[queue][chain].fence : 0));
    }
}

/* Has everything done. */
static void finish(void)
{
    for (int i = 0; i < 8; i++) {
        while (renderer && execute_job(renderer))
            ;
        turn();
    }
    for (unsigned queue = 0; queue < 2 && !is_broken(); queue++) {
        collect(queue);
        for (unsigned chain = 0; chain < CHAINS; chain++)
            check(!chains[queue][chain].waiting);
    }
    check(asked == told);
}

static void offer(struct input *input, unsigned queue, uint32_t *words, uint32_t size)
{
    unsigned chain = next_chain[queue]++ % CHAINS;
    uint64_t request = REQUEST_GPA + 0x800 * (CHAINS * queue + chain);
    uint8_t how = (uint8_t)take(input, 1);
    if (chains[queue][chain].waiting)
        finish();
    chains[queue][chain].waiting = true;
    chains[queue][chain].has_room = !(how & 1) || queue == 0;
    chains[queue][chain].fenced = how & 2;
    chains[queue][chain].fence = how * UINT64_C(0x123456789ab);
    words[1] = how & 2 ? 1 : 0;
    memcpy(words + 2, &chains[queue][chain].fence, 8);
    if ((how & 0xf0) == 0xf0)
        size = 1 + (uint32_t)take(input, 1) % size;
    chains[queue][chain].fenced &= size >= 5; /* no flag, no fence */
    if (size < 16)                            /* the rest counts as 0 */
        chains[queue][chain].fence &= size > 8 ? size_mask(size - 8) : 0;
    memory_dma_write(memory, request, words, size);
    uint32_t cut = how & 4 && size > 1 ? 1 + (uint32_t)take(input, 1) % (size - 1) : 0;
    struct driver_desc descs[3];
    unsigned count = 0;
    if (cut)
        descs[count++] = (struct driver_desc){request, cut, 0, 0};
    descs[count++] = (struct driver_desc){request + cut, size - cut, 0, 0};
    if (chains[queue][chain].has_room)
        descs[count++] = (struct driver_desc){response_of(queue, chain), ROOM, DESC_WRITE, 0};
    driver_offer_chain(&driver, queue, 4 * chain, descs, count);
    driver_notify(&driver, queue);
    if (how & 8) {
        turn();
        collect(queue);
    }
}

static uint32_t take_id(struct input *input)
{
    uint8_t id = (uint8_t)take(input, 1);
    return id == 0xff ? (uint32_t)take(input, 4) : id % IDS;
}

/* Nothing that is valid and takes long to fill. */
static uint32_t take_size(struct input *input)
{
    uint8_t size = (uint8_t)take(input, 1);
    return size == 0xff ? 0x4001 + (uint32_t)take(input, 4) % 0xffff0000 : size & 1 ? 64 : size;
}

static void take_rect(struct input *input, uint32_t *rect, uint32_t width, uint32_t height)
{
    uint8_t how = (uint8_t)take(input, 1);
    rect[0] = rect[1] = 0;
    rect[2] = width;
    rect[3] = height;
    if (how & 1 && width && height) {
        rect[0] = (uint32_t)take(input, 1) % width;
        rect[1] = (uint32_t)take(input, 1) % height;
        rect[2] = (uint32_t)take(input, 1) % (width - rect[0] + 1);
        rect[3] = (uint32_t)take(input, 1) % (height - rect[1] + 1);
    }
    if ((how & 0xf0) == 0xf0)
        rect[take(input, 1) % 4] = (uint32_t)take(input, 4);
}

/* Entries for `size` bytes; returns their number. */
static uint32_t take_entries(struct input *input, uint32_t *entries, uint32_t size)
{
    uint32_t count = 0;
    for (; count < 8; count++, entries += 4) {
        uint8_t how = (uint8_t)take(input, 1);
        uint64_t gpa = PIXELS_GPA + (how & 0x3f) * UINT64_C(0x4321);
        uint32_t part = how & 0x40 || count == 7 ? size : (size + 1) / 2;
        if (how == 0x80)
            gpa = take(input, 8);
        if (how == 0x81)
            part = (uint32_t)take(input, 4);
        memcpy(entries, &gpa, 8);
        entries[2] = part;
        entries[3] = 0;
        if (part >= size)
            return count + 1;
        size -= part;
    }
    return count;
}

static uint32_t take_format(struct input *input)
{
    static const uint32_t formats[] = {1, 2, 3, 4, 67, 68, 121, 134};
    uint8_t format = (uint8_t)take(input, 1);
    return format == 0xff ? (uint32_t)take(input, 4) : formats[format % 8];
}

static uint32_t known_width(uint32_t id)
{
    return id < IDS ? widths[id] : 1;
}

static uint32_t known_height(uint32_t id)
{
    return id < IDS ? heights[id] : 1;
}

static void create(struct input *input, bool blob)
{
    uint32_t words[48] = {blob ? 0x10c : 0x101};
    uint32_t id = take_id(input), width = take_size(input), height = take_size(input);
    words[6] = id;
    if (id < IDS && width <= 0x4000 && height <= 0x4000) {
        widths[id] = width;
        heights[id] = height;
    }
    if (!blob) {
        words[7] = take_format(input);
        words[8] = width;
        words[9] = height;
        offer(input, 0, words, 40);
        return;
    }
    uint8_t how = (uint8_t)take(input, 1);
    words[7] = (how & 0xf0) == 0xf0 ? how & 3 : 1;
    words[8] = how & 7;
    words[12] = (how & 0xf8) == 0x10 ? (uint32_t)take(input, 4) : width * height * 4;
    words[9] = take_entries(input, words + 14, width * height * 4);
    offer(input, 0, words, 56 + words[9] * 16);
}

static void attach(struct input *input)
{
    uint32_t words[48] = {0x106};
    uint32_t id = take_id(input);
    words[6] = id;
    words[7] = take_entries(input, words + 8, known_width(id) * known_height(id) * 4);
    offer(input, 0, words, 32 + words[7] * 16);
}

static void transfer(struct input *input)
{
    uint32_t words[14] = {0x105};
    uint32_t id = take_id(input);
    take_rect(input, words + 6, known_width(id), known_height(id));
    uint64_t offset = ((uint64_t)words[7] * known_width(id) + words[6]) * 4;
    if (take(input, 1) == 0xff)
        offset = take(input, 8);
    memcpy(words + 10, &offset, 8);
    words[12] = id;
    offer(input, 0, words, 56);
}

static void flush(struct input *input)
{
    uint32_t words[12] = {0x104};
    words[10] = take_id(input);
    take_rect(input, words + 6, known_width(words[10]), known_height(words[10]));
    offer(input, 0, words, 48);
}

static void show(struct input *input, bool blob)
{
    uint32_t words[24] = {blob ? 0x10d : 0x103};
    uint8_t scanout = (uint8_t)take(input, 1);
    uint32_t id = take_id(input);
    words[10] = scanout == 0xff ? (uint32_t)take(input, 4) : scanout % 3;
    words[11] = id;
    take_rect(input, words + 6, known_width(id), known_height(id));
    if (blob) {
        uint8_t how = (uint8_t)take(input, 1);
        words[12] = known_width(id);
        words[13] = known_height(id);
        words[14] = take_format(input);
        words[16] = known_width(id) * 4;
        if ((how & 0xe0) == 0xe0)
            words[12 + how % 12] = (uint32_t)take(input, 4);
        if (words[12] * (uint64_t)words[13] > 0x10000) /* would take long */
            words[12] = 0;
    }
    offer(input, 0, words, blob ? 96 : 48);
}

static void cursor(struct input *input)
{
    uint32_t words[14] = {take(input, 1) & 1 ? 0x300 : 0x301};
    words[6] = (uint32_t)take(input, 1) % 3;
    words[7] = (uint32_t)take(input, 4);
    words[8] = (uint32_t)take(input, 1);
    words[10] = take_id(input);
    words[11] = (uint32_t)take(input, 1) % 65;
    words[12] = (uint32_t)take(input, 1) % 65;
    offer(input, 1, words, 56);
}

static void other(struct input *input)
{
    static const uint32_t types[] = {0x100, 0x102, 0x107, 0x108, 0x10a, 0x10b};
    uint32_t words[24] = {0};
    uint8_t how = (uint8_t)take(input, 1);
    words[0] = how == 0xff ? (uint32_t)take(input, 4) : types[how % 6];
    words[6] = take_id(input);
    offer(input, how == 0xfe, words, 32);
}

/* Descriptors as the input has them: anything may come of it but harm. */
static void rubbish(struct input *input)
{
    unsigned queue = take(input, 1) & 1, count = 1 + take(input, 1) % 4;
    struct driver_desc descs[4];
    for (unsigned n = 0; n < count; n++) {
        uint64_t gpa = take(input, 1) & 1 ? take(input, 8) : REQUEST_GPA + take(input, 2) % 0x4000;
        descs[n] = (struct driver_desc){gpa, (uint32_t)take(input, 2), (uint16_t)take(input, 1),
                                        (uint16_t)take(input, 1)};
    }
    finish();
    driver_offer_chain(&driver, queue, 0, descs, count);
    driver_notify(&driver, queue);
    turn();
    start(~UINT64_C(0));
}

/* --- The machine -------------------------------------------------------------------------------
 */

static void rendered(void *opaque, struct gpu_frame *frame, const struct gpu_rect *rect)
{
    told++;
    check(frame ? gpu_rect_within(rect, frame->width, frame->height) : gpu_rect_empty(rect));
}

static void view_changed(void *opaque, unsigned scanout, uint32_t width, uint32_t height)
{
    check(scanout < 2 && !width == !height && width <= GPU_MAX_SIZE && height <= GPU_MAX_SIZE);
}

static void view_damaged(void *opaque, unsigned scanout)
{
    check(scanout < 2);
}

static void create_device(void)
{
    static const struct virtio_gpu_config config = {
        .scanout_count = 2,
        .sizes = {{1280, 800}, {4096, 2160}},
        .open = renderer_open,
    };
    static const struct virtio_gpu_viewer viewer = {view_changed, view_damaged, NULL};
    device = virtio_gpu_create("gpu0", &config, loop, NULL);
    check(device && virtio_mmio_attach(slot, device, NULL));
    virtio_gpu_set_viewer(device, &viewer);
    driver.memory = memory;
    driver.slot = DRIVER_SLOT;
}

static void remove_device(void)
{
    virtio_gpu_set_viewer(device, NULL);
    device->base.type->remove(&device->base);
    check(asked == told);
}

static _Atomic bool executing;

static void *execute_all(void *opaque)
{
    while (executing)
        if (!execute_job(opaque))
            usleep(10);
    return NULL;
}

/* A saved state comes back, or with a byte changed is refused or something a guest can have. */
static void save_and_load(struct input *input)
{
    struct stream *saving = stream_create_saving();
    uint8_t how = (uint8_t)take(input, 1);
    size_t size;
    pthread_t thread;
    if (!renderer)
        turn();
    check(renderer);
    executing = true;
    check(!pthread_create(&thread, NULL, execute_all, renderer));
    device->base.type->quiesce(&device->base);
    executing = false;
    pthread_join(thread, NULL);
    device->base.type->state(&device->base, saving);
    check(!stream_failed(saving));
    remove_device();
    create_device();
    const uint8_t *saved = stream_data(saving, &size);
    uint8_t *bytes = xmalloc(size);
    memcpy(bytes, saved, size);
    bool changed = how & 1;
    if (changed) {
        bytes[take(input, 3) % size] ^= (uint8_t)(1 + take(input, 1) % 255);
        if (how & 2)
            size = take(input, 3) % size;
    }
    struct stream *loading = stream_create_loading(bytes, size);
    device->base.type->state(&device->base, loading);
    check(changed || !stream_failed(loading));
    stream_destroy(loading);
    stream_destroy(saving);
    free(bytes);
    if (changed)
        start(~UINT64_C(0));
    finish();
}

static void step(struct input *input)
{
    uint8_t operation = (uint8_t)take(input, 1);
    switch (operation % 32) {
    case 0 ... 3:
        create(input, false);
        break;
    case 4 ... 5:
        create(input, true);
        break;
    case 6 ... 8:
        attach(input);
        break;
    case 9 ... 11:
        transfer(input);
        break;
    case 12 ... 13:
        flush(input);
        break;
    case 14 ... 15:
        show(input, false);
        break;
    case 16 ... 17:
        show(input, true);
        break;
    case 18 ... 19:
        cursor(input);
        break;
    case 20 ... 22:
        other(input);
        break;
    case 23:
        for (uint64_t count = take(input, 1) % 16; count && renderer; count--)
            execute_job(renderer);
        break;
    case 24:
        turn();
        break;
    case 25:
        asked++;
        virtio_gpu_render(device, (unsigned)take(input, 1) % 3, rendered, NULL);
        break;
    case 26:
        virtio_gpu_set_view(device, (unsigned)take(input, 1) % 3, (uint32_t)take(input, 1),
                            (uint32_t)take(input, 1));
        break;
    case 27:
        virtio_gpu_resize(device, (unsigned)take(input, 1) % 3, (uint32_t)take(input, 2),
                          (uint32_t)take(input, 2));
        break;
    case 28:
        memory_write(memory, DRIVER_SLOT + MMIO_CONFIG + take(input, 1) % 64, 1, take(input, 1));
        break;
    case 29:
        if (renderer)
            lose(renderer);
        break;
    case 30:
        take(input, 1) & 1 ? save_and_load(input) : start(take(input, 1) | ~UINT64_C(0xff));
        break;
    default:
        rubbish(input);
    }
}

static bool has_canvas; /* not in a build without pixman */

static void set_up(void)
{
    struct gpu_canvas *canvas = gpu_canvas_pixman_create(NULL);
    has_canvas = canvas;
    if (canvas)
        canvas->ops->destroy(canvas);
    loop = loop_create();
    memory = memory_create();
    check(memory_add_ram(memory, DRIVER_RAM_BASE, DRIVER_RAM_SIZE, NULL));
    slot = virtio_mmio_create(memory, DRIVER_SLOT, (struct irq_line){0}, "slot0", NULL);
    check(slot);
    for (uint64_t at = 0; at < PIXELS_SIZE; at += 4096)
        memory_dma_fill(memory, PIXELS_GPA + at, (uint8_t)(at >> 12), 4096);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct input input = {bytes, size};
    if (!loop)
        set_up();
    if (!has_canvas)
        return 0;
    memset(widths, 0, sizeof(widths));
    memset(heights, 0, sizeof(heights));
    asked = told = 0;
    create_device();
    start(~UINT64_C(0));
    for (int steps = 0; input.left && steps < 200; steps++)
        step(&input);
    finish();
    remove_device();
    return 0;
}
