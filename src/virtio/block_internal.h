/* What the parts of the disk back end share: the image, its overlay, and the two engines. */
#pragma once

#include <pthread.h>

#include "virtio/block.h"

/* The file or device itself. Immutable after opening. */
struct block_image {
    char *path;
    int fd;
    uint64_t data_size; /* bytes that are really there */
    uint64_t size;      /* data_size rounded up to whole sectors; the rest reads as zeros */
    unsigned physical_size;
    bool is_device;
    bool writable; /* opened for writing */
};

bool block_image_open(struct block_image *image, const struct block_config *config,
                      struct error *err);
void block_image_close(struct block_image *image);

/* Executes a request from request->progress on; returns 0 or errno. Worker threads. */
int block_image_execute(const struct block_image *image, struct block_request *request);

/* Fills err and returns false if the file is a container that must not be used as a raw disk. */
bool block_image_check_format(const struct block_image *image, struct error *err);

/* Describes the process that has the file open ("process 123 (hartvisor)"). */
void block_image_find_user(const struct block_image *image, char *text, size_t size);

/*
 * Transfers `length` bytes between file offset `offset` and the bytes of iov from `skip` on.
 * Short transfers are continued. Reads beyond the end of the file yield zeros from data_size on,
 * and EIO before it (the file was truncated behind our back). Returns 0 or errno.
 */
struct block_span {
    const struct iovec *iov;
    unsigned iov_count;
    uint64_t skip;
    uint64_t offset;
    uint64_t length;
};
int block_transfer(int fd, bool write, struct block_span span, uint64_t data_size);

/* Makes a range read as zeros, freeing its space if `unmap` and the host can. */
int block_zero(int fd, bool is_device, uint64_t offset, uint64_t length, bool unmap);

/* The temporary overlay of a snapshot disk: clusters that were written live in it. */
struct block_overlay;
struct block_overlay *block_overlay_create(const struct block_image *image, struct error *err);
void block_overlay_destroy(struct block_overlay *overlay); /* accepts NULL */
int block_overlay_execute(struct block_overlay *overlay, struct block_request *request);
const char *block_overlay_folder(const struct block_overlay *overlay);
void block_overlay_state(struct block_overlay *overlay, struct stream *stream);

/* Worker threads, started when first needed. */
#define BLOCK_WORKERS 4

struct block_workers {
    struct block *block;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t work;
    struct block_request *head;
    struct block_request **tail;
    unsigned waiting; /* requests in the list */
    unsigned idle;    /* threads that wait for one */
    unsigned count;
    bool stop;
    pthread_t threads[BLOCK_WORKERS];
};

void block_workers_init(struct block_workers *workers, struct block *block);
void block_workers_finish(struct block_workers *workers);
void block_workers_submit(struct block_workers *workers, struct block_request *request);

/*
 * io_uring: reads, writes and flushes of an image without overlay. What it cannot finish (short
 * transfers, a full ring) it leaves to the workers.
 */
struct block_uring;
struct block_uring *block_uring_create(struct block *block, int fd, int event_fd,
                                       struct error *err);
void block_uring_destroy(struct block_uring *uring); /* accepts NULL */
bool block_uring_submit(struct block_uring *uring, struct block_request *request);
void block_uring_kick(struct block_uring *uring);
void block_uring_reap(struct block_uring *uring);

/* For the workers, on their threads: what a request means, and that it is done. */
int block_execute(struct block *block, struct block_request *request);
void block_complete(struct block *block, struct block_request *request, int error);

/* For io_uring, within block_reap: a request is done; or is left to the workers. */
void block_finish(struct block *block, struct block_request *request, int error);
void block_continue(struct block *block, struct block_request *request);
