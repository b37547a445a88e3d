/* The 9p server's inside: fids, decoded requests, replies, and the table of messages. */
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include "virtio/p9_server.h"

#define P9_NAMES_MAX 16 /* elements of one walk */
#define P9_NAME_MAX  255
#define P9_TEXT_MAX  4095 /* symbolic links */
#define P9_FIDS_MAX  65536
#define P9_BUCKETS   4096
#define P9_NO_FID    UINT32_MAX

struct p9_fid {
    struct p9_fid *next;
    uint32_t id;
    int path_fd; /* O_PATH; -1 if a loaded state named something that is gone */
    int io_fd;   /* -1 while not open */
    int io_flags;
};

struct p9_server {
    int root_fd;
    int proc_fd; /* /proc/self/fd: how an O_PATH descriptor is opened for I/O */
    dev_t root_device;
    ino_t root_inode;
    bool read_only;
    uint32_t message_max; /* negotiated msize */
    unsigned fid_count;
    struct p9_fid *buckets[P9_BUCKETS];
};

/* A request, decoded by its format (see p9_messages.c). */
struct p9_request {
    struct p9_fid *fid[2];
    uint64_t number[10];
    const char *text[P9_NAMES_MAX + 1];
    unsigned fid_count, number_count, text_count;
    const uint8_t *data;
    size_t data_size;
    size_t storage_used;
    char storage[P9_NAMES_MAX * (P9_NAME_MAX + 1) + P9_TEXT_MAX + 1];
};

/* A reply under construction. What does not fit is not written, and the reply becomes an error. */
struct p9_reply {
    uint8_t *bytes;
    size_t size, capacity;
    bool overflow;
};

void p9_put(struct p9_reply *reply, uint64_t value, unsigned size);
void p9_put_text(struct p9_reply *reply, const char *text, size_t length);
/* Room for `size` bytes of data, or NULL. */
uint8_t *p9_put_space(struct p9_reply *reply, size_t size);

/* Decodes the body of a request; 0 or an errno value. */
int p9_decode(struct p9_server *server, const char *format, const uint8_t *body, size_t size,
              struct p9_request *request);

/* Answers one kind of request: fills the reply and returns 0, or an errno value. */
typedef int p9_handler(struct p9_server *server, struct p9_request *request,
                       struct p9_reply *reply);

struct p9_message {
    uint8_t type; /* of the request; the reply's is one more */
    bool changes; /* refused on a read-only share */
    const char *format;
    p9_handler *handle;
};
const struct p9_message *p9_message_find(uint8_t type);

/* p9_fid.c */
struct p9_fid *p9_fid_find(struct p9_server *server, uint32_t id);
/* Takes over path_fd. NULL with errno set (EBUSY, EMFILE) and path_fd closed if it cannot be. */
struct p9_fid *p9_fid_add(struct p9_server *server, uint32_t id, int path_fd);
void p9_fid_remove(struct p9_server *server, struct p9_fid *fid);
void p9_fid_set_path(struct p9_fid *fid, int path_fd);

/* p9_path.c: all return 0 or a descriptor, or -1 with errno set. */
bool p9_name_valid(const char *name); /* one component that is neither "." nor ".." */
int p9_stat(int path_fd, struct stat *info);
int p9_copy(int path_fd);
bool p9_is_root(const struct p9_server *server, const struct stat *info);
/* Opens `name` (also "." and "..") in the directory, as O_PATH, never following a link. */
int p9_step(const struct p9_server *server, int directory_fd, const char *name);
/* Opens what path_fd names for I/O, if it is a regular file or a directory. */
int p9_open(const struct p9_server *server, int path_fd, int flags);
/* Where path_fd is below the root ("" for the root itself). */
int p9_path_of(const struct p9_server *server, int path_fd, char *path, size_t size);
/* Walks `path` down from the root. */
int p9_descend(const struct p9_server *server, const char *path);
/* The directory that holds path_fd now, and its name there. */
int p9_parent_of(const struct p9_server *server, int path_fd, char name[P9_NAME_MAX + 1]);
void p9_put_qid(const struct p9_server *server, struct p9_reply *reply, const struct stat *info);

/* p9_tree.c */
p9_handler p9_version, p9_attach, p9_walk, p9_clunk, p9_remove, p9_flush, p9_symlink, p9_mknod,
    p9_mkdir, p9_link, p9_rename, p9_renameat, p9_unlinkat, p9_readlink;
/* p9_file.c */
p9_handler p9_lopen, p9_lcreate, p9_read, p9_write, p9_readdir, p9_fsync, p9_getattr, p9_setattr,
    p9_statfs, p9_lock, p9_getlock;
