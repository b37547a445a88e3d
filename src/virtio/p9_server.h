/*
 * A 9P2000.L file server for one directory: one message in, one message out.
 *
 * Confinement: a fid is an O_PATH descriptor. Names are single components, opened without following
 * a link; ".." stays at the root. Only regular files and directories are ever opened for I/O.
 *
 * Not thread-safe: the device's worker calls it. Requests are hostile, and so is the directory in
 * so far as other processes rename things in it meanwhile.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/base.h"

#define P9_MESSAGE_MAX (512 * 1024) /* the largest msize that is granted */
#define P9_HEADER_SIZE 7            /* size[4] type[1] tag[2] */
#define P9_REPLY_MIN   11           /* what an error reply takes */

struct p9_server;

/* Opens the directory. */
struct p9_server *p9_server_create(const char *directory, bool read_only, struct error *err);
void p9_server_destroy(struct p9_server *server); /* accepts NULL */

/*
 * Answers the request of `size` (at least P9_HEADER_SIZE) bytes into `reply`, which has room for
 * `capacity` (at least P9_REPLY_MIN); returns the size of the reply. May block on the host's file
 * system.
 */
size_t p9_server_handle(struct p9_server *server, const uint8_t *request, size_t size,
                        uint8_t *reply, size_t capacity);

/* Ends the session: every fid is gone. */
void p9_server_reset(struct p9_server *server);

/* Saves fids as paths below the directory, and finds them again. */
void p9_server_state(struct p9_server *server, struct stream *stream);
