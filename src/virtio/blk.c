/*
 * virtio-blk.
 *
 * A request is a chain: a 16-byte header and data to write in the readable part, data to read and a
 * status byte in the writable part, with no assumption about how descriptors cut them (section
 * 2.7.4.1). It is checked, turned into one or more steps on the disk (several for discards of many
 * segments and for write-through), and pushed with its status when the last step is done.
 */
#include "virtio/blk.h"

#include <stdlib.h>

#include "virtio/iovec.h"

#define BLK_QUEUE_SIZE 256
#define BLK_SEG_MAX    254 /* with header and status: the queue size, for drivers without indirect */
#define BLK_ID_SIZE    20

#define MAX_DISCARD_SECTORS (1u << 21) /* 1 GiB */
/* 128 MiB, since where the host cannot zero a range, zeros are written one by one. */
#define MAX_ZEROES_SECTORS   (1u << 18)
#define MAX_DISCARD_SEGMENTS 64
#define MAX_ZEROES_SEGMENTS  1

/* Section 5.2.3 */
enum blk_feature {
    BLK_F_SEG_MAX = 2,
    BLK_F_RO = 5,
    BLK_F_BLK_SIZE = 6,
    BLK_F_FLUSH = 9,
    BLK_F_TOPOLOGY = 10,
    BLK_F_CONFIG_WCE = 11,
    BLK_F_DISCARD = 13,
    BLK_F_WRITE_ZEROES = 14,
};

/* Section 5.2.6 */
enum blk_status { BLK_S_OK = 0, BLK_S_IOERR = 1, BLK_S_UNSUPP = 2 };

#define BLK_SEGMENT_UNMAP 1u

/* Section 5.2.4; little-endian, naturally aligned. */
struct blk_config {
    uint64_t capacity; /* sectors */
    uint32_t size_max;
    uint32_t seg_max;
    uint32_t geometry;
    uint32_t blk_size;
    uint8_t physical_block_exp;
    uint8_t alignment_offset;
    uint16_t min_io_size;
    uint32_t opt_io_size;
    uint8_t writeback;
    uint8_t unused0;
    uint16_t num_queues;
    uint32_t max_discard_sectors;
    uint32_t max_discard_seg;
    uint32_t discard_sector_alignment;
    uint32_t max_write_zeroes_sectors;
    uint32_t max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap;
    uint8_t unused1[3];
};

struct blk_header {
    uint32_t type;
    uint32_t reserved;
    uint64_t sector;
};

struct blk_segment {
    uint64_t sector;
    uint32_t sectors;
    uint32_t flags;
};

struct virtio_blk {
    struct virtio_device virtio;
    struct block *block;
    struct blk_config config;
    bool resetting; /* what finishes now is dropped */
};

struct blk_request {
    struct block_request step; /* the one under way */
    struct virtio_blk *blk;
    struct virtio_chain *chain;
    struct blk_segment *segments; /* NULL unless discard or write zeroes */
    unsigned segment_count, next_segment;
    struct iovec iov[];
};

static struct virtio_blk *blk_of(struct virtio_device *device)
{
    return container_of(device, struct virtio_blk, virtio);
}

/* Ends a request whose chain has room for a status. */
static void chain_done(struct virtio_chain *chain, uint8_t status)
{
    virtio_chain_write(chain, chain->writable_size - 1, &status, 1);
    virtio_queue_push(chain, chain->writable_size);
}

static void request_done(struct blk_request *request, uint8_t status)
{
    if (request->blk->resetting)
        virtio_chain_free(request->chain);
    else
        chain_done(request->chain, status);
    free(request->segments);
    free(request);
}

/* Section 5.2.6.2: without a volatile cache that the driver knows of, a write that was
 * acknowledged is durable. */
static bool write_through(const struct virtio_blk *blk)
{
    if (virtio_has_feature(&blk->virtio, BLK_F_CONFIG_WCE))
        return !blk->config.writeback;
    return !virtio_has_feature(&blk->virtio, BLK_F_FLUSH);
}

/* Submits the next segment; false if there is none. */
static bool submit_segment(struct blk_request *request)
{
    if (request->next_segment == request->segment_count)
        return false;
    const struct blk_segment *segment = &request->segments[request->next_segment++];
    request->step.offset = segment->sector * BLOCK_SECTOR_SIZE;
    request->step.length = (uint64_t)segment->sectors * BLOCK_SECTOR_SIZE;
    request->step.unmap = segment->flags & BLK_SEGMENT_UNMAP;
    block_submit(request->blk->block, &request->step);
    return true;
}

static void step_done(struct block_request *step, int error)
{
    struct blk_request *request = container_of(step, struct blk_request, step);
    struct virtio_blk *blk = request->blk;
    if (error || blk->resetting) {
        request_done(request, BLK_S_IOERR);
        return;
    }
    if (submit_segment(request))
        return;
    bool changed = step->operation != BLOCK_READ && step->operation != BLOCK_FLUSH;
    if (changed && write_through(blk)) {
        step->operation = BLOCK_FLUSH;
        step->offset = step->length = 0;
        block_submit(blk->block, step);
        block_kick(blk->block);
        return;
    }
    request_done(request, BLK_S_OK);
}

static struct blk_request *request_create(struct virtio_blk *blk, struct virtio_chain *chain,
                                          enum block_operation operation, unsigned iov_count)
{
    struct blk_request *request =
        xcalloc(1, sizeof(*request) + iov_count * sizeof(request->iov[0]));
    request->blk = blk;
    request->chain = chain;
    request->step.operation = operation;
    request->step.iov = request->iov;
    request->step.done = step_done;
    return request;
}

static bool sectors_fit(const struct virtio_blk *blk, uint64_t sector, uint64_t length)
{
    return range_fits(sector, length / BLOCK_SECTOR_SIZE,
                      block_size(blk->block) / BLOCK_SECTOR_SIZE);
}

/*
 * What each request type does. A handler answers at once by returning a status, or takes the chain
 * over (BLK_TAKEN) and answers later.
 */
#define BLK_TAKEN (-1)

struct blk_operation {
    uint32_t type;
    int (*start)(struct virtio_blk *blk, struct virtio_chain *chain, uint64_t sector,
                 const struct blk_operation *operation);
    enum block_operation operation;
    bool writes;
    unsigned feature; /* needed, if not 0 */
    uint32_t max_segments, max_sectors, segment_flags;
};

static int start_transfer(struct virtio_blk *blk, struct virtio_chain *chain, uint64_t sector,
                          const struct blk_operation *operation)
{
    bool write = operation->writes;
    const struct iovec *parts = write ? chain->readable : chain->writable;
    unsigned count = write ? chain->readable_count : chain->writable_count;
    uint64_t skip = write ? sizeof(struct blk_header) : 0;
    uint64_t length = write ? chain->readable_size - skip : chain->writable_size - 1;

    if (length % BLOCK_SECTOR_SIZE || !sectors_fit(blk, sector, length)) {
        trace_guest_error(blk->virtio.base.name, "%s of %llu bytes at sector %llu",
                          write ? "write" : "read", (unsigned long long)length,
                          (unsigned long long)sector);
        return BLK_S_IOERR;
    }
    if (!length)
        return BLK_S_OK;
    struct blk_request *request = request_create(blk, chain, operation->operation, count);
    request->step.offset = sector * BLOCK_SECTOR_SIZE;
    request->step.length = length;
    request->step.iov_count = iovec_slice(request->iov, count, parts, count, skip, length);
    block_submit(blk->block, &request->step);
    return BLK_TAKEN;
}

static int start_flush(struct virtio_blk *blk, struct virtio_chain *chain, uint64_t sector,
                       const struct blk_operation *operation)
{
    struct blk_request *request = request_create(blk, chain, BLOCK_FLUSH, 0);
    block_submit(blk->block, &request->step);
    return BLK_TAKEN;
}

/* Sections 5.2.6.2: which segments are unsupported, and which are wrong. */
static uint8_t check_segment(const struct virtio_blk *blk, const struct blk_segment *segment,
                             const struct blk_operation *operation)
{
    if (segment->flags & ~operation->segment_flags)
        return BLK_S_UNSUPP;
    if (segment->sectors > operation->max_sectors ||
        !sectors_fit(blk, segment->sector, (uint64_t)segment->sectors * BLOCK_SECTOR_SIZE))
        return BLK_S_IOERR;
    return BLK_S_OK;
}

static uint8_t load_segments(struct blk_request *request, const struct blk_operation *operation)
{
    uint8_t bytes[sizeof(struct blk_segment)];
    uint8_t status = BLK_S_OK;
    for (unsigned n = 0; n < request->segment_count && status == BLK_S_OK; n++) {
        struct blk_segment *segment = &request->segments[n];
        virtio_chain_read(request->chain, sizeof(struct blk_header) + n * sizeof(bytes), bytes,
                          sizeof(bytes));
        *segment =
            (struct blk_segment){load_le64(bytes), load_le32(bytes + 8), load_le32(bytes + 12)};
        status = check_segment(request->blk, segment, operation);
    }
    return status;
}

static int start_segments(struct virtio_blk *blk, struct virtio_chain *chain, uint64_t sector,
                          const struct blk_operation *operation)
{
    uint64_t size = chain->readable_size - sizeof(struct blk_header);
    uint64_t count = size / sizeof(struct blk_segment);
    if (!count || size % sizeof(struct blk_segment) || count > operation->max_segments) {
        trace_guest_error(blk->virtio.base.name, "request type %u with %llu bytes of segments",
                          operation->type, (unsigned long long)size);
        return BLK_S_IOERR;
    }
    struct blk_request *request = request_create(blk, chain, operation->operation, 0);
    request->segments = xcalloc(count, sizeof(*request->segments));
    request->segment_count = (unsigned)count;
    uint8_t status = load_segments(request, operation);
    if (status == BLK_S_OK)
        submit_segment(request);
    else
        request_done(request, status);
    return BLK_TAKEN;
}

static int start_get_id(struct virtio_blk *blk, struct virtio_chain *chain, uint64_t sector,
                        const struct blk_operation *operation)
{
    char id[BLK_ID_SIZE] = {0};
    size_t room = chain->writable_size - 1;
    memcpy(id, blk->virtio.base.name, strnlen(blk->virtio.base.name, sizeof(id)));
    virtio_chain_write(chain, 0, id, room < sizeof(id) ? room : sizeof(id));
    return BLK_S_OK;
}

static const struct blk_operation operations[] = {
    {0, start_transfer, BLOCK_READ},
    {1, start_transfer, BLOCK_WRITE, true},
    {4, start_flush},
    {8, start_get_id},
    {11, start_segments, BLOCK_DISCARD, true, BLK_F_DISCARD, MAX_DISCARD_SEGMENTS,
     MAX_DISCARD_SECTORS, 0},
    {13, start_segments, BLOCK_WRITE_ZEROES, true, BLK_F_WRITE_ZEROES, MAX_ZEROES_SEGMENTS,
     MAX_ZEROES_SECTORS, BLK_SEGMENT_UNMAP},
};

static int start(struct virtio_blk *blk, struct virtio_chain *chain)
{
    uint8_t bytes[sizeof(struct blk_header)];
    virtio_chain_read(chain, 0, bytes, sizeof(bytes));
    uint32_t type = load_le32(bytes);
    for (size_t n = 0; n < ARRAY_SIZE(operations); n++) {
        const struct blk_operation *operation = &operations[n];
        if (operation->type != type)
            continue;
        if (operation->writes && block_read_only(blk->block))
            return BLK_S_IOERR;
        if (operation->feature && !virtio_has_feature(&blk->virtio, operation->feature))
            return BLK_S_UNSUPP;
        return operation->start(blk, chain, load_le64(bytes + 8), operation);
    }
    trace_guest_error(blk->virtio.base.name, "unknown request type %u", type);
    return BLK_S_UNSUPP;
}

static void blk_handle_queue(struct virtio_device *device, struct virtio_queue *queue)
{
    struct virtio_blk *blk = blk_of(device);
    struct virtio_chain *chain;
    while ((chain = virtio_queue_pop(queue))) {
        if (chain->readable_size < sizeof(struct blk_header) || !chain->writable_size) {
            virtio_device_break(device, "request of %zu readable and %zu writable bytes",
                                chain->readable_size, chain->writable_size);
            virtio_queue_push(chain, 0);
            break;
        }
        int status = start(blk, chain);
        if (status != BLK_TAKEN)
            chain_done(chain, (uint8_t)status);
    }
    block_kick(blk->block);
}

static void on_ready(void *opaque)
{
    struct virtio_blk *blk = opaque;
    virtio_lock(&blk->virtio);
    block_reap(blk->block);
    if (blk->virtio.transport)
        virtio_queue_flush(&blk->virtio.queues[0]);
    virtio_unlock(&blk->virtio);
}

static void blk_config_written(struct virtio_device *device, unsigned offset, uint32_t value,
                               unsigned size)
{
    struct virtio_blk *blk = blk_of(device);
    if (offset == offsetof(struct blk_config, writeback) && size == 1 &&
        virtio_has_feature(device, BLK_F_CONFIG_WCE))
        blk->config.writeback = value & 1;
    else
        trace_guest_error(device->base.name, "write to configuration offset %u", offset);
}

static void blk_reset(struct virtio_device *device)
{
    struct virtio_blk *blk = blk_of(device);
    blk->resetting = true;
    block_drain(blk->block);
    blk->resetting = false;
    blk->config.writeback = 1;
}

static void blk_quiesce(struct virtio_device *device)
{
    struct error err;
    if (!block_quiesce(blk_of(device)->block, &err))
        log_error("%s", err.message);
}

static void blk_state(struct virtio_device *device, struct stream *stream)
{
    struct virtio_blk *blk = blk_of(device);
    stream_u8(stream, &blk->config.writeback);
    blk->config.writeback &= 1;
    block_state(blk->block, stream);
}

static void blk_remove(struct virtio_device *device)
{
    struct virtio_blk *blk = blk_of(device);
    block_close(blk->block);
    virtio_device_finish(device);
    free(blk);
}

static const struct virtio_device_type blk_type = {
    .name = "virtio-blk",
    .id = 2,
    .pci_class = 0x018000,
    .handle_queue = blk_handle_queue,
    .config_written = blk_config_written,
    .reset = blk_reset,
    .quiesce = blk_quiesce,
    .state = blk_state,
    .remove = blk_remove,
};

static void fill_config(struct virtio_blk *blk)
{
    uint32_t physical = block_physical_size(blk->block) / BLOCK_SECTOR_SIZE;
    blk->config = (struct blk_config){
        .capacity = htole64(block_size(blk->block) / BLOCK_SECTOR_SIZE),
        .seg_max = htole32(BLK_SEG_MAX),
        .blk_size = htole32(BLOCK_SECTOR_SIZE),
        .physical_block_exp = (uint8_t)__builtin_ctz(physical),
        .min_io_size = htole16((uint16_t)physical),
        .writeback = 1,
        .num_queues = htole16(1),
        .max_discard_sectors = htole32(MAX_DISCARD_SECTORS),
        .max_discard_seg = htole32(MAX_DISCARD_SEGMENTS),
        .discard_sector_alignment = htole32(physical),
        .max_write_zeroes_sectors = htole32(MAX_ZEROES_SECTORS),
        .max_write_zeroes_seg = htole32(MAX_ZEROES_SEGMENTS),
        .write_zeroes_may_unmap = 1,
    };
    blk->virtio.config = &blk->config;
    blk->virtio.config_size = sizeof(blk->config);
}

struct virtio_device *virtio_blk_create(const char *name, const struct block_config *disk,
                                        struct loop *loop, struct error *err)
{
    struct virtio_blk *blk = xcalloc(1, sizeof(*blk));
    blk->block = block_open(loop, disk, on_ready, blk, err);
    if (!blk->block) {
        free(blk);
        return NULL;
    }
    uint64_t features = BIT(BLK_F_SEG_MAX) | BIT(BLK_F_BLK_SIZE) | BIT(BLK_F_TOPOLOGY);
    if (block_read_only(blk->block))
        features |= BIT(BLK_F_RO);
    else
        features |=
            BIT(BLK_F_FLUSH) | BIT(BLK_F_CONFIG_WCE) | BIT(BLK_F_DISCARD) | BIT(BLK_F_WRITE_ZEROES);
    virtio_device_init(&blk->virtio, &blk_type, name, features, loop);
    virtio_device_add_queue(&blk->virtio, BLK_QUEUE_SIZE);
    fill_config(blk);
    return &blk->virtio;
}

const struct block *virtio_blk_disk(const struct virtio_device *device)
{
    return container_of(device, struct virtio_blk, virtio)->block;
}
