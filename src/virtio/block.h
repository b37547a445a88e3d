/*
 * Disks: asynchronous access to raw image files and host block devices.
 *
 * A disk is opened once, locked against other machines, and then serves requests that run in
 * io_uring or in a few worker threads. Its size is fixed while it is open.
 *
 * Threads: the owner serialises all calls, by a lock of its own, from whatever thread. `ready` is
 * called on the loop's thread, without that lock, when requests have finished; the owner takes the
 * lock and calls block_reap, which calls `done` of each. So completions can as well be awaited on
 * the thread that happens to hold the lock (block_drain), without the loop.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/loop.h"
#include "base/stream.h"

#define BLOCK_SECTOR_SIZE 512

enum block_operation {
    BLOCK_READ,
    BLOCK_WRITE,
    BLOCK_FLUSH,        /* every write that was done before the flush began is durable */
    BLOCK_DISCARD,      /* a hint: success where the host cannot do it */
    BLOCK_WRITE_ZEROES, /* reads as zeros afterwards */
    BLOCK_OPERATIONS
};

enum block_engine {
    BLOCK_ENGINE_AUTO, /* io_uring where the kernel allows it, else threads */
    BLOCK_ENGINE_URING,
    BLOCK_ENGINE_THREADS,
};

struct block_config {
    const char *path;
    bool read_only; /* opened for reading; other readers may share it */
    bool snapshot;  /* writes go to a temporary overlay that vanishes with the disk */
    enum block_engine engine;
};

struct block_request {
    enum block_operation operation;
    bool unmap;      /* BLOCK_WRITE_ZEROES may free the space */
    uint64_t offset; /* bytes; offset and length are multiples of BLOCK_SECTOR_SIZE */
    uint64_t length;
    const struct iovec *iov; /* `length` bytes in all; the caller's, unchanged until done */
    unsigned iov_count;
    void (*done)(struct block_request *request, int error); /* 0 or an errno value */

    /* The back end's from block_submit to done. */
    struct block_request *next;
    uint64_t progress; /* bytes that were transferred */
    int error;
};

struct block;

/*
 * Opens and locks the disk; loop's thread. Refused with a message that says what to do: missing and
 * unreadable files, directories, disks that another machine uses, sizes that are not whole sectors
 * (a read-only or snapshot disk is padded with zeros instead), and container formats (qcow2, VMDK,
 * VDI, VHD(X), QED, Parallels, DMG, Bochs) that a raw write would destroy. LUKS is not refused: a
 * guest may have encrypted its whole disk.
 */
struct block *block_open(struct loop *loop, const struct block_config *config, loop_callback *ready,
                         void *opaque, struct error *err);

/* Drains and closes; loop's thread. A snapshot's changes are gone. Accepts NULL. */
void block_close(struct block *block);

uint64_t block_size(const struct block *block); /* bytes, a multiple of BLOCK_SECTOR_SIZE */
bool block_read_only(const struct block *block);
unsigned block_physical_size(const struct block *block); /* bytes; a power of two, 512..64 KiB */
const char *block_engine_name(const struct block *block);

/*
 * Takes a request, which must lie within the disk; `done` is called later, never from within this
 * call. A failure is also told to the user, once until the operation works again. Requests begin
 * no later than the next block_kick.
 */
void block_submit(struct block *block, struct block_request *request);
void block_kick(struct block *block);

/* Calls `done` for each request that has finished. `done` may submit, and drain. */
void block_reap(struct block *block);

/* Waits until nothing is in flight, calling `done` for each request. */
void block_drain(struct block *block);

/* Drains, then makes all that was written durable. */
bool block_quiesce(struct block *block, struct error *err);

/*
 * The part of the state that is not on the host's disk: the size, for a check, and a snapshot's
 * overlay. Nothing may be in flight.
 */
void block_state(struct block *block, struct stream *stream);
