/* Unix stream sockets by path: how the options that say unix:PATH listen, and clients connect. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

struct unix_listener {
    int fd; /* non-blocking */
    char *path;
    dev_t device; /* the socket's file, so that only this one is removed at the end */
    ino_t inode;
};

/*
 * Listens at `path`, with access for the user alone (mode 0600). A socket there that nobody listens
 * on any more is replaced; one that is in use, or a file of another kind, is an error.
 */
bool unix_listener_init(struct unix_listener *listener, const char *path, struct error *err);

/* Closes the socket and removes its file, unless somebody has replaced it. */
void unix_listener_finish(struct unix_listener *listener);

/* Connects and returns a blocking descriptor; -1 with err set if nobody listens there. */
int unix_connect(const char *path, struct error *err);

/* The PATH of "unix:PATH"; NULL with err set if it is something else. */
const char *unix_path(const char *specification, struct error *err);
