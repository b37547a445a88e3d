/*
 * A renderer's server at the end of its socket, on pixman: the input programs requests, mostly
 * valid ones, with descriptors that do or do not belong to them, and bytes that are none. Each
 * request must be answered once, in order; what is no request must end the server; no descriptor
 * may be left.
 */
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gpu/server.h"

#define RAM_GPA    UINT64_C(0x80000000)
#define RAM_SIZE   (1u << 20)
#define FRAME_SIZE (128u * 128 * 4)
#define IDS        6
#define STEPS      100

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *bytes;
    size_t left;
};

/* Requests as they are sent, up to the first that is none. */
static struct {
    uint32_t type;
    uint64_t serial;
} sent[STEPS];
static size_t sent_count;
static bool spoilt; /* no request follows that is one */

static int machine; /* its end of the socket */
static int ram, frame, unsealed, nothing, answers = -1;
static uint32_t widths[IDS], heights[IDS];

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

/* --- Sending -----------------------------------------------------------------------------------
 */

/* False if the socket holds no more. */
static bool put(const void *bytes, size_t size, const int *fds, size_t count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(8 * sizeof(int))];
    } control = {0};
    struct iovec piece = {(void *)bytes, size};
    struct msghdr header = {.msg_iov = &piece, .msg_iovlen = 1};
    if (count) {
        header.msg_control = &control;
        header.msg_controllen = CMSG_SPACE(count * sizeof(int));
        *CMSG_FIRSTHDR(&header) = (struct cmsghdr){.cmsg_len = CMSG_LEN(count * sizeof(int)),
                                                   .cmsg_level = SOL_SOCKET,
                                                   .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&header)), fds, count * sizeof(int));
    }
    return sendmsg(machine, &header, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size;
}

/* Descriptors that nobody asked for, or none where one is needed. */
static size_t take_descriptors(struct input *input, int fd, int fds[8])
{
    const int all[] = {ram, frame, unsealed, nothing};
    uint8_t how = (uint8_t)take(input, 1);
    size_t count = 0;
    if (fd >= 0 && how != 0xff)
        fds[count++] = fd;
    if ((how & 0xf0) == 0xe0)
        for (size_t more = how & 7; count < more; count++)
            fds[count] = all[take(input, 1) % 4];
    return count;
}

static void request_send(struct input *input, struct gpu_request *request, const void *payload,
                         size_t size, int fd)
{
    int fds[8];
    size_t count = take_descriptors(input, fd, fds);
    request->size = (uint32_t)(sizeof(*request) + size);
    request->serial = sent_count * 7 + 1;
    if (spoilt)
        return;
    if (!put(request, sizeof(*request), fds, count) || (size && !put(payload, size, NULL, 0))) {
        spoilt = true;
        return;
    }
    sent[sent_count].type = request->type;
    sent[sent_count++].serial = request->serial;
}

static uint32_t take_id(struct input *input)
{
    uint8_t id = (uint8_t)take(input, 1);
    return id == 0xff ? (uint32_t)take(input, 4) : id % IDS;
}

static uint32_t take_scanout(struct input *input)
{
    uint8_t scanout = (uint8_t)take(input, 1);
    return scanout == 0xff ? (uint32_t)take(input, 4) : scanout % 3;
}

/* Nothing that is valid and takes long to fill. */
static uint32_t take_size(struct input *input)
{
    uint8_t size = (uint8_t)take(input, 1);
    return size == 0xff ? GPU_MAX_SIZE + 1 + (uint32_t)take(input, 4) % 0xffff0000
           : size & 1   ? GPU_CURSOR_SIZE
                        : size / 2;
}

static uint32_t take_format(struct input *input)
{
    static const uint32_t formats[] = {1, 2, 3, 4, 67, 68, 121, 134};
    uint8_t format = (uint8_t)take(input, 1);
    return format == 0xff ? (uint32_t)take(input, 4) : formats[format % 8];
}

static struct gpu_rect take_rect(struct input *input, uint32_t width, uint32_t height)
{
    struct gpu_rect rect = {0, 0, width, height};
    uint8_t how = (uint8_t)take(input, 1);
    if (how & 1 && width && height) {
        rect.x = (uint32_t)take(input, 1) % width;
        rect.y = (uint32_t)take(input, 1) % height;
        rect.width = (uint32_t)take(input, 1) % (width - rect.x + 1);
        rect.height = (uint32_t)take(input, 1) % (height - rect.y + 1);
    }
    if ((how & 0xf0) == 0xf0)
        ((uint32_t *)&rect)[take(input, 1) % 4] = (uint32_t)take(input, 4);
    return rect;
}

static uint32_t known_width(uint32_t id)
{
    return id < IDS ? widths[id] : 1;
}

static uint32_t known_height(uint32_t id)
{
    return id < IDS ? heights[id] : 1;
}

/* --- Requests ----------------------------------------------------------------------------------
 */

static void send_open(struct input *input)
{
    uint8_t how = (uint8_t)take(input, 1);
    struct gpu_request request = {.type = GPU_REQUEST_OPEN,
                                  .open = {.version = GPU_PROTOCOL_VERSION, .count = 1}};
    request.open.spread = how & 1;
    if ((how & 0xf0) == 0xf0)
        ((uint32_t *)&request.open)[how % 11] = (uint32_t)take(input, 4);
    request_send(input, &request, NULL, 0, -1);
}

static void send_memory(struct input *input)
{
    uint8_t how = (uint8_t)take(input, 1);
    struct gpu_request request = {.type = GPU_REQUEST_MEMORY, .memory = {RAM_GPA, RAM_SIZE, 0}};
    if (how & 1) {
        request.memory.size = RAM_SIZE / 2;
        request.memory.offset = RAM_SIZE / 2;
    }
    request.memory.gpa += (uint64_t)(how >> 1 & 3) * RAM_SIZE;
    if ((how & 0xf0) == 0xf0)
        ((uint64_t *)&request.memory)[how % 3] = take(input, 8);
    request_send(input, &request, NULL, 0, ram);
}

static void send_output(struct input *input)
{
    uint8_t how = (uint8_t)take(input, 1);
    uint32_t width = take_size(input), height = take_size(input);
    struct gpu_request request = {.type = GPU_REQUEST_OUTPUT,
                                  .output = {take_scanout(input), width, height, width * 4}};
    if (how & 1)
        request.output.stride += 8;
    if ((how & 0xf0) == 0xf0)
        request.output.stride = (uint32_t)take(input, 4);
    request_send(input, &request, NULL, 0, (how & 0x0e) == 0x0e ? unsealed : frame);
}

static void send_resource(struct input *input)
{
    uint32_t id = take_id(input), width = take_size(input), height = take_size(input);
    struct gpu_request request = {.type = GPU_REQUEST_RESOURCE,
                                  .resource = {id, take_format(input), width, height}};
    if (id < IDS && width <= GPU_MAX_SIZE && height <= GPU_MAX_SIZE) {
        widths[id] = width;
        heights[id] = height;
    }
    request_send(input, &request, NULL, 0, -1);
}

static void send_blob(struct input *input)
{
    uint32_t id = take_id(input), width = take_size(input), height = take_size(input);
    struct gpu_request request = {.type = GPU_REQUEST_BLOB,
                                  .blob = {id, (uint64_t)width * height * 4}};
    if (take(input, 1) >= 0xf0)
        request.blob.size = take(input, 8);
    if (id < IDS && width <= GPU_MAX_SIZE && height <= GPU_MAX_SIZE) {
        widths[id] = width;
        heights[id] = height;
    }
    request_send(input, &request, NULL, 0, -1);
}

static void send_backing(struct input *input)
{
    struct gpu_range ranges[8];
    uint32_t id = take_id(input), count = 0;
    uint64_t left = (uint64_t)known_width(id) * known_height(id) * 4;
    for (bool last = false; count < ARRAY_SIZE(ranges) && !last; count++) {
        uint8_t how = (uint8_t)take(input, 1);
        uint64_t part = how & 0x40 ? left : (left + 1) / 2;
        ranges[count] = (struct gpu_range){RAM_GPA + (how & 0x3f) * UINT64_C(0x2f21), part};
        if (how == 0x80)
            ranges[count].gpa = take(input, 8);
        if (how == 0x81)
            ranges[count].size = take(input, 8);
        last = part >= left;
        left -= part;
    }
    struct gpu_request request = {.type = GPU_REQUEST_BACKING, .backing = {id, count}};
    uint8_t how = (uint8_t)take(input, 1);
    if ((how & 0xf0) == 0xf0)
        request.backing.count = how == 0xff ? (uint32_t)take(input, 4) : how & 15;
    if ((how & 0xf0) == 0xe0)
        request.backing.count = count = 0;
    size_t size = count * sizeof(ranges[0]);
    if ((how & 0xf0) == 0xd0 && size)
        size -= how & 15;
    request_send(input, &request, ranges, size, -1);
}

static void send_transfer(struct input *input)
{
    uint32_t id = take_id(input), width = known_width(id);
    struct gpu_rect rect = take_rect(input, width, known_height(id));
    struct gpu_request request = {.type = GPU_REQUEST_TRANSFER, .transfer = {.id = id}};
    request.transfer.rect = rect;
    request.transfer.offset = ((uint64_t)rect.y * width + rect.x) * 4;
    if (take(input, 1) >= 0xf0)
        request.transfer.offset = take(input, 8);
    request_send(input, &request, NULL, 0, -1);
}

static void send_scanout(struct input *input)
{
    uint32_t id = take_id(input), width = known_width(id), height = known_height(id);
    uint8_t how = (uint8_t)take(input, 1);
    struct gpu_request request = {.type = GPU_REQUEST_SCANOUT};
    request.scanout.scanout = take_scanout(input);
    request.scanout.id = id;
    request.scanout.rect = take_rect(input, width, height);
    request.scanout.format = take_format(input);
    request.scanout.width = width;
    request.scanout.height = height;
    request.scanout.stride = width * 4 + (how & 1);
    if (how & 2)
        request.scanout.offset = take(input, 1);
    if ((how & 0xf0) == 0xf0)
        request.scanout.offset = take(input, 8);
    if ((how & 0xf0) == 0xe0)
        request.scanout.stride = (uint32_t)take(input, 4);
    request_send(input, &request, NULL, 0, -1);
}

static void send_flush(struct input *input)
{
    uint32_t id = take_id(input);
    struct gpu_request request = {.type = GPU_REQUEST_FLUSH, .flush = {.id = id}};
    request.flush.rect = take_rect(input, known_width(id), known_height(id));
    request_send(input, &request, NULL, 0, -1);
}

static void send_cursor(struct input *input)
{
    uint8_t how = (uint8_t)take(input, 1);
    struct gpu_request request = {.type = how & 1 ? GPU_REQUEST_CURSOR : GPU_REQUEST_CURSOR_MOVE};
    request.cursor.scanout = take_scanout(input);
    request.cursor.id = take_id(input);
    request.cursor.x = (int8_t)take(input, 1);
    request.cursor.y = (int8_t)take(input, 1);
    request.cursor.hot_x = (uint32_t)take(input, 1) % (GPU_CURSOR_SIZE + 1);
    request.cursor.hot_y = how >> 2;
    if ((how & 0xf0) == 0xf0)
        request.cursor.x = (int32_t)take(input, 4);
    request_send(input, &request, NULL, 0, -1);
}

static void send_render(struct input *input)
{
    struct gpu_request request = {.type = GPU_REQUEST_RENDER};
    request.scanout.scanout = take_scanout(input);
    request_send(input, &request, NULL, 0, -1);
}

static void send_other(struct input *input)
{
    static const uint32_t types[] = {GPU_REQUEST_FENCE,   GPU_REQUEST_ADAPTERS, GPU_REQUEST_DESTROY,
                                     GPU_REQUEST_DESTROY, GPU_REQUEST_STATS,    GPU_REQUEST_TRACE};
    uint8_t how = (uint8_t)take(input, 1), payload[16] = {0};
    struct gpu_request request = {.type = types[how % 6]};
    request.id = take_id(input);
    if ((how & 0xf0) == 0xf0)
        request.type = (uint32_t)take(input, how & 1 ? 1 : 4);
    request_send(input, &request, payload, (how & 0xf0) == 0xe0 ? how & 15 : 0, -1);
}

/* Bytes that are no request, or one that is cut off. */
static void send_rubbish(struct input *input)
{
    struct gpu_request request = {.type = (uint32_t)take(input, 1)};
    uint8_t how = (uint8_t)take(input, 1);
    int fds[8];
    size_t count = take_descriptors(input, -1, fds);
    request.size = how & 1 ? (uint32_t)take(input, 4) : (uint32_t)take(input, 1);
    if (request.size == sizeof(request)) /* which is one */
        request.size++;
    if (!spoilt)
        put(&request, how & 2 ? 1 + how % sizeof(request) : sizeof(request), fds, count);
    spoilt = true;
}

static void (*const steps[])(struct input *input) = {
    send_resource, send_resource, send_backing, send_backing, send_transfer, send_transfer,
    send_scanout,  send_scanout,  send_flush,   send_cursor,  send_cursor,   send_output,
    send_render,   send_render,   send_render,  send_blob,    send_blob,     send_other,
    send_other,    send_open,     send_memory,  send_rubbish,
};

/* --- The server --------------------------------------------------------------------------------
 */

static size_t tell_adapters(void *opaque, struct gpu_adapter_info *list, size_t most)
{
    memset(list, 0, sizeof(*list));
    return 1;
}

static struct gpu_canvas *open_canvas(void *opaque, const struct gpu_request *request,
                                      struct error *err)
{
    return gpu_canvas_pixman_create(err);
}

static void check_answers(bool well)
{
    off_t size = lseek(answers, 0, SEEK_CUR), at = 0;
    size_t count = 0;
    for (; at < size; count++) {
        struct gpu_answer answer;
        check(pread(answers, &answer, sizeof(answer), at) == sizeof(answer));
        check(count < sent_count && answer.type == sent[count].type &&
              answer.serial == sent[count].serial && answer.status <= GPU_FAILED);
        check(answer.size >= sizeof(answer) && answer.size - sizeof(answer) <= GPU_PAYLOAD_MAX);
        check(!answer.message[0] == (answer.status == GPU_OK));
        check(gpu_rect_within(&answer.rect, 128, 128));
        at += answer.size;
    }
    check(at == size && (count == sent_count || !well) && (well || spoilt));
}

static int new_memory(const char *name, size_t size, int seals)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    check(fd >= 0 && ftruncate(fd, (off_t)size) == 0 && fcntl(fd, F_ADD_SEALS, seals) == 0);
    return fd;
}

static void set_up(void)
{
    uint8_t pixels[4096];
    answers = new_memory("answers", 0, 0);
    ram = new_memory("ram", RAM_SIZE, 0);
    frame = new_memory("frame", FRAME_SIZE, F_SEAL_SHRINK);
    unsealed = new_memory("unsealed", FRAME_SIZE, 0);
    nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (unsigned page = 0; page < RAM_SIZE / sizeof(pixels); page++) {
        memset(pixels, (int)page, sizeof(pixels));
        check(pwrite(ram, pixels, sizeof(pixels), page * (off_t)sizeof(pixels)) == sizeof(pixels));
    }
}

/* The number that the next descriptor gets. */
static int next_descriptor(void)
{
    int fd = dup(nothing);
    close(fd);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const struct gpu_server_ops ops = {.adapters = tell_adapters, .open = open_canvas};
    struct input input = {bytes, size};
    struct error err;
    int ends[2];
    struct gpu_canvas *canvas = gpu_canvas_pixman_create(NULL);
    if (!canvas)
        return 0; /* a build without pixman */
    canvas->ops->destroy(canvas);
    if (answers < 0)
        set_up();
    int next = next_descriptor();
    check(ftruncate(answers, 0) == 0 && lseek(answers, 0, SEEK_SET) == 0);
    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    machine = ends[0];
    sent_count = 0;
    spoilt = false;
    memset(widths, 0, sizeof(widths));
    memset(heights, 0, sizeof(heights));
    if (!(take(&input, 1) & 0x80)) {
        send_open(&input);
        send_memory(&input);
    }
    while (input.left && sent_count + 1 < STEPS && !spoilt)
        steps[take(&input, 1) % ARRAY_SIZE(steps)](&input);
    shutdown(machine, SHUT_WR);
    bool well = gpu_server_run(ends[1], answers, &ops, NULL, &err);
    check_answers(well);
    close(ends[0]);
    close(ends[1]);
    check(next_descriptor() == next);
    return 0;
}
