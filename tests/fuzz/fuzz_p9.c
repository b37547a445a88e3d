/*
 * Messages for the 9p server, on a share with links to the outside in it. The input is a list of
 * type, length and body; size and tag are filled in, so that most of them reach their handler.
 * Nothing beside the share may change, and no reply may hold what is written there.
 */
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "virtio/p9_server.h"

#define SECRET   "the quick brown fox"
#define CAPACITY 9000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char base[] = "/tmp/hartvisor-fuzz-XXXXXX";

static void check(bool truth)
{
    if (!truth)
        abort();
}

static void check_stream(struct stream *stream)
{
    struct error err;

    if (stream_check(stream, &err))
        return;
    fprintf(stderr, "%s\n", err.message);
    abort();
}

static const char *path(const char *name)
{
    static char text[4][128];
    static unsigned next;
    char *result = text[next++ % 4];

    snprintf(result, sizeof(text[0]), "%s/%s", base, name);
    return result;
}

static void make_file(const char *name, const char *content)
{
    FILE *file = fopen(path(name), "w");

    check(file && fputs(content, file) >= 0);
    fclose(file);
}

static int remove_one(const char *name, const struct stat *info, int flag, struct FTW *ftw)
{
    if (S_ISDIR(info->st_mode))
        chmod(name, 0700);
    return remove(name);
}

static void clean_up(void)
{
    nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static struct stat outside_before;

static void set_up(void)
{
    check(mkdtemp(base) != NULL);
    atexit(clean_up);
    check(mkdir(path("outside"), 0755) == 0);
    make_file("outside/secret", SECRET);
    check(stat(path("outside/secret"), &outside_before) == 0);
}

static void make_share(void)
{
    check(mkdir(path("share"), 0755) == 0 && mkdir(path("share/a"), 0755) == 0);
    make_file("share/f", "content");
    make_file("share/a/g", "more");
    check(symlink("../outside", path("share/l")) == 0);
    check(symlink("../outside/secret", path("share/s")) == 0);
}

static void check_outside(void)
{
    struct stat now;

    check(stat(path("outside/secret"), &now) == 0);
    check(now.st_ino == outside_before.st_ino && now.st_size == outside_before.st_size &&
          now.st_mode == outside_before.st_mode && now.st_nlink == 1 &&
          now.st_mtim.tv_nsec == outside_before.st_mtim.tv_nsec);
    check(stat(path("outside"), &now) == 0 && now.st_nlink == 2);
}

/* Sends one message; the reply must be whole and hold no secret. */
static void send_message(struct p9_server *server, uint8_t type, const uint8_t *body, size_t size)
{
    uint8_t *request = malloc(7 + size), *reply = malloc(CAPACITY);
    size_t got;

    store_le32(request, 7 + size);
    request[4] = type;
    store_le16(request + 5, 0x1234);
    memcpy(request + 7, body, size);
    got = p9_server_handle(server, request, 7 + size, reply, CAPACITY);
    check(got >= 7 && got <= CAPACITY && load_le32(reply) == got);
    check(load_le16(reply + 5) == 0x1234 && (reply[4] == type + 1 || reply[4] == 7));
    check(!memmem(reply, got, SECRET, strlen(SECRET)));
    free(request);
    free(reply);
}

static void save_and_load(struct p9_server *server)
{
    struct stream *saving = stream_create_saving(), *loading;
    const void *bytes;
    size_t size;

    p9_server_state(server, saving);
    check_stream(saving);
    bytes = stream_data(saving, &size);
    loading = stream_create_loading(bytes, size);
    p9_server_state(server, loading);
    check_stream(loading);
    stream_destroy(loading);
    stream_destroy(saving);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t version[] = {0, 0x20, 0, 0, 8, 0, '9', 'P', '2', '0', '0', '0', '.', 'L'};
    static const uint8_t attach[] = {1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0};
    struct p9_server *server;

    if (!outside_before.st_ino)
        set_up();
    make_share();
    server = p9_server_create(path("share"), size && data[0] & 1, NULL);
    check(server != NULL);
    send_message(server, 100, version, sizeof(version));
    send_message(server, 104, attach, sizeof(attach));
    for (size_t at = 1; at + 3 <= size;) {
        uint8_t type = data[at];
        size_t length = load_le16(data + at + 1);
        at += 3;
        if (length > size - at)
            length = size - at;
        if (type == 0xff)
            save_and_load(server);
        else
            send_message(server, type, data + at, length);
        at += length;
    }
    p9_server_destroy(server);
    check_outside();
    nftw(path("share"), remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}
