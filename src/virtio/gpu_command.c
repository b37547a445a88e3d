/* virtio-gpu's commands as they come over the queues (sections 5.7.6.7 to 5.7.6.10). */
#include <stdlib.h>

#include "virtio/edid.h"
#include "virtio/gpu_internal.h"

#define FLAG_FENCE    1u
#define FLAG_RING_IDX 2u

#define REQUEST_MAX       96
#define ENTRY_SIZE        16 /* struct virtio_gpu_mem_entry */
#define BLOB_MEMORY_GUEST 1u
#define BLOB_FLAGS        7u /* mappable, shareable, cross-device */

/* A request, copied out of guest memory: little-endian words. */
struct request {
    struct virtio_gpu *gpu;
    const struct virtio_chain *chain;
    struct gpu_command *command;
    uint8_t bytes[REQUEST_MAX];
};

static uint32_t word(const struct request *request, size_t offset)
{
    return load_le32(request->bytes + offset);
}

static struct gpu_rect rect_at(const struct request *request, size_t offset)
{
    return (struct gpu_rect){word(request, offset), word(request, offset + 4),
                             word(request, offset + 8), word(request, offset + 12)};
}

/* Where the response's own fields are, `size` bytes. */
static uint8_t *answer_with(struct request *request, size_t size)
{
    request->command->size = GPU_HEADER_SIZE + size;
    return request->command->response + GPU_HEADER_SIZE;
}

static uint32_t get_display_info(struct request *request)
{
    const struct gpu_scene *scene = &request->gpu->scene;
    uint8_t *mode = answer_with(request, (size_t)24 * GPU_MAX_SCANOUTS);
    uint32_t x = 0;
    for (unsigned i = 0; i < scene->scanout_count; i++, mode += 24) {
        const struct scene_scanout *scanout = &scene->scanouts[i];
        if (!scanout->connected)
            continue;
        store_le32(mode, x); /* side by side */
        store_le32(mode + 8, scanout->width);
        store_le32(mode + 12, scanout->height);
        store_le32(mode + 16, 1); /* enabled */
        x += scanout->width;
    }
    return GPU_RESP_OK_DISPLAY_INFO;
}

static uint32_t get_edid(struct request *request)
{
    const struct gpu_scene *scene = &request->gpu->scene;
    uint32_t number = word(request, 24);
    if (number >= scene->scanout_count)
        return GPU_RESP_ERR_INVALID_SCANOUT_ID;
    const struct scene_scanout *scanout = &scene->scanouts[number];
    uint8_t *edid = answer_with(request, 8 + 1024);
    store_le32(edid, (uint32_t)edid_create(edid + 8, scanout->width, scanout->height, number));
    return GPU_RESP_OK_EDID;
}

/* Remembers what is being created, as the renderer may have no memory for it. */
static uint32_t created(struct request *request, uint32_t id, uint32_t response)
{
    if (response == GPU_RESP_OK_NODATA) {
        request->command->resource = id;
        request->command->token = scene_find(&request->gpu->scene, id)->token;
    }
    return response;
}

static uint32_t resource_create_2d(struct request *request)
{
    uint32_t id = word(request, 24);
    return created(request, id,
                   scene_create_picture(&request->gpu->scene, id, word(request, 28),
                                        word(request, 32), word(request, 36)));
}

static uint32_t resource_unref(struct request *request)
{
    return scene_unref(&request->gpu->scene, word(request, 24));
}

/* Reads the entries behind a request's own size. */
static uint32_t load_backing(const struct request *request, size_t offset, uint32_t entries,
                             struct gpu_range **ranges, uint32_t *count)
{
    const struct gpu_scene *scene = &request->gpu->scene;
    uint8_t bytes[ENTRY_SIZE];
    uint32_t room = 0, pieces = scene_max_pieces(scene);
    *ranges = NULL;
    *count = 0;
    if (!entries || entries > GPU_MAX_RANGES ||
        !range_fits(offset, (uint64_t)entries * ENTRY_SIZE, request->chain->readable_size))
        return GPU_RESP_ERR_INVALID_PARAMETER;
    for (uint32_t i = 0; i < entries; i++, offset += ENTRY_SIZE) {
        virtio_chain_read(request->chain, offset, bytes, sizeof(bytes));
        if (*count + pieces > room) {
            room = 2 * room + pieces + 16;
            *ranges = xrealloc(*ranges, room * sizeof(**ranges));
        }
        if (scene_add_range(scene, *ranges, count, load_le64(bytes), load_le32(bytes + 8)))
            continue;
        free(*ranges);
        *ranges = NULL;
        return GPU_RESP_ERR_INVALID_PARAMETER;
    }
    return GPU_RESP_OK_NODATA;
}

static uint32_t resource_attach_backing(struct request *request)
{
    struct gpu_range *ranges;
    uint32_t count;
    if (!scene_find(&request->gpu->scene, word(request, 24)))
        return GPU_RESP_ERR_INVALID_RESOURCE_ID;
    uint32_t response = load_backing(request, 32, word(request, 28), &ranges, &count);
    if (response != GPU_RESP_OK_NODATA)
        return response;
    return scene_attach(&request->gpu->scene, word(request, 24), ranges, count);
}

static uint32_t resource_detach_backing(struct request *request)
{
    return scene_detach(&request->gpu->scene, word(request, 24));
}

static uint32_t resource_create_blob(struct request *request)
{
    struct gpu_range *ranges;
    uint32_t id = word(request, 24), count;
    if (word(request, 28) != BLOB_MEMORY_GUEST || (word(request, 32) & ~BLOB_FLAGS))
        return GPU_RESP_ERR_INVALID_PARAMETER;
    uint32_t response = load_backing(request, 56, word(request, 36), &ranges, &count);
    if (response != GPU_RESP_OK_NODATA)
        return response;
    return created(
        request, id,
        scene_create_blob(&request->gpu->scene, id, load_le64(request->bytes + 48), ranges, count));
}

static uint32_t transfer_to_host_2d(struct request *request)
{
    struct gpu_rect rect = rect_at(request, 24);
    return scene_transfer(&request->gpu->scene, word(request, 48), &rect,
                          load_le64(request->bytes + 40));
}

static uint32_t resource_flush(struct request *request)
{
    struct gpu_rect rect = rect_at(request, 24);
    return scene_flush(&request->gpu->scene, word(request, 40), &rect);
}

static uint32_t set_scanout(struct request *request)
{
    struct scene_view view = {.id = word(request, 44), .rect = rect_at(request, 24)};
    return scene_show(&request->gpu->scene, word(request, 40), &view);
}

/* Of the four planes that a picture may have, the formats that there are have one. */
static uint32_t set_scanout_blob(struct request *request)
{
    struct scene_view view = {
        .rect = rect_at(request, 24),
        .id = word(request, 44),
        .width = word(request, 48),
        .height = word(request, 52),
        .format = word(request, 56),
        .stride = word(request, 64),
        .offset = word(request, 80),
    };
    if (view.id && !view.width)
        return GPU_RESP_ERR_INVALID_PARAMETER;
    return scene_show(&request->gpu->scene, word(request, 40), &view);
}

/* There are none, so any index is wrong. */
static uint32_t get_capset_info(struct request *request)
{
    return GPU_RESP_ERR_INVALID_PARAMETER;
}

static uint32_t resource_assign_uuid(struct request *request)
{
    uint8_t uuid[SCENE_UUID_SIZE];
    uint32_t response = scene_uuid(&request->gpu->scene, word(request, 24), uuid);
    if (response != GPU_RESP_OK_NODATA)
        return response;
    memcpy(answer_with(request, sizeof(uuid)), uuid, sizeof(uuid));
    return GPU_RESP_OK_RESOURCE_UUID;
}

static uint32_t update_cursor(struct request *request)
{
    struct scene_cursor cursor = {
        .x = (int32_t)word(request, 28),
        .y = (int32_t)word(request, 32),
        .id = word(request, 40),
        .hot_x = word(request, 44),
        .hot_y = word(request, 48),
    };
    return scene_set_cursor(&request->gpu->scene, word(request, 24), &cursor);
}

static uint32_t move_cursor(struct request *request)
{
    return scene_move_cursor(&request->gpu->scene, word(request, 24), (int32_t)word(request, 28),
                             (int32_t)word(request, 32));
}

/* Contexts for 3D are more rows, with features of their own. */
static const struct operation {
    uint32_t type;
    uint8_t size;    /* bytes of the request, its header included */
    uint8_t feature; /* needed, if not 0 */
    enum gpu_queue queue;
    uint32_t (*run)(struct request *request); /* an enum gpu_response */
} operations[] = {
    {0x100, 24, 0, GPU_QUEUE_CONTROL, get_display_info},
    {0x101, 40, 0, GPU_QUEUE_CONTROL, resource_create_2d},
    {0x102, 32, 0, GPU_QUEUE_CONTROL, resource_unref},
    {0x103, 48, 0, GPU_QUEUE_CONTROL, set_scanout},
    {0x104, 48, 0, GPU_QUEUE_CONTROL, resource_flush},
    {0x105, 56, 0, GPU_QUEUE_CONTROL, transfer_to_host_2d},
    {0x106, 32, 0, GPU_QUEUE_CONTROL, resource_attach_backing},
    {0x107, 32, 0, GPU_QUEUE_CONTROL, resource_detach_backing},
    {0x108, 32, 0, GPU_QUEUE_CONTROL, get_capset_info},
    {0x10a, 32, VIRTIO_GPU_F_EDID, GPU_QUEUE_CONTROL, get_edid},
    {0x10b, 32, VIRTIO_GPU_F_RESOURCE_UUID, GPU_QUEUE_CONTROL, resource_assign_uuid},
    {0x10c, 56, VIRTIO_GPU_F_RESOURCE_BLOB, GPU_QUEUE_CONTROL, resource_create_blob},
    {0x10d, 96, VIRTIO_GPU_F_RESOURCE_BLOB, GPU_QUEUE_CONTROL, set_scanout_blob},
    {0x300, 56, 0, GPU_QUEUE_CURSOR, update_cursor},
    {0x301, 56, 0, GPU_QUEUE_CURSOR, move_cursor},
};

static const struct operation *find_operation(const struct virtio_gpu *gpu,
                                              const struct virtio_chain *chain, uint32_t type)
{
    for (size_t i = 0; i < ARRAY_SIZE(operations); i++) {
        const struct operation *operation = &operations[i];
        if (operation->type == type)
            return operation->queue == chain->queue->index &&
                           (!operation->feature ||
                            virtio_has_feature(&gpu->virtio, operation->feature))
                       ? operation
                       : NULL;
    }
    return NULL;
}

static uint32_t execute(struct request *request)
{
    struct virtio_gpu *gpu = request->gpu;
    uint32_t type = word(request, 0);
    const struct operation *operation = find_operation(gpu, request->chain, type);
    uint32_t response = GPU_RESP_ERR_UNSPEC;
    if (operation && request->chain->readable_size < operation->size)
        response = GPU_RESP_ERR_INVALID_PARAMETER;
    else if (operation)
        response = operation->run(request);
    if (response >= GPU_RESP_ERR_UNSPEC)
        trace_guest_error(gpu->virtio.base.name, "command %#x of %zu bytes: error %#x", type,
                          request->chain->readable_size, response);
    return response;
}

void gpu_command_run(struct virtio_gpu *gpu, struct virtio_chain *chain)
{
    struct gpu_command *command = xcalloc(1, sizeof(*command));
    struct request request = {.gpu = gpu, .chain = chain, .command = command};
    uint8_t *header = command->response;

    virtio_chain_read(chain, 0, request.bytes, sizeof(request.bytes));
    command->chain = chain;
    command->size = GPU_HEADER_SIZE;
    gpu->command = command;
    uint32_t flags = word(&request, 4);
    store_le32(header, execute(&request));
    if (flags & FLAG_FENCE) {
        store_le32(header + 4, flags & (FLAG_FENCE | FLAG_RING_IDX));
        memcpy(header + 8, request.bytes + 8, 13); /* the fence's number, context and ring */
        /* A fence says that everything before it is done. */
        if (!command->requests && gpu_flight_any(gpu))
            gpu_flight_submit(gpu, &(struct gpu_request){.type = GPU_REQUEST_FENCE}, NULL, 0, -1);
    }
    gpu->command = NULL;
    if (!command->requests)
        gpu_command_finish(command);
}

/* Cursor commands of Linux have no room for a response. */
void gpu_command_finish(struct gpu_command *command)
{
    struct virtio_chain *chain = command->chain;
    if (chain && virtio_chain_stale(chain))
        virtio_chain_free(chain);
    else if (chain)
        virtio_queue_push(chain, virtio_chain_write(chain, 0, command->response, command->size));
    free(command);
}
