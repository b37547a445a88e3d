/* The 9P2000.L messages: what each carries and who answers it; decoding and encoding. */
#include <errno.h>

#include "virtio/p9_internal.h"

#define TYPE_RLERROR 7

/*
 * Formats: b w d q integers of 1, 2, 4, 8 bytes; f a fid that exists (F: even if a loaded
 * state did not find its file again); s a name, one component; t
 * any text; W a count and names, where "." and ".." may stand; D a count and data.
 */
static const struct p9_message messages[] = {
    {8, false, "f", p9_statfs},           {12, false, "fd", p9_lopen},
    {14, true, "fsddd", p9_lcreate},      {16, true, "fstd", p9_symlink},
    {18, true, "fsdddd", p9_mknod},       {20, true, "ffs", p9_rename},
    {22, false, "f", p9_readlink},        {24, false, "fq", p9_getattr},
    {26, true, "fddddqqqqq", p9_setattr}, {40, false, "fqd", p9_readdir},
    {50, false, "fd", p9_fsync},          {52, false, "fbdqqdt", p9_lock},
    {54, false, "fbqqdt", p9_getlock},    {70, true, "ffs", p9_link},
    {72, true, "fsdd", p9_mkdir},         {74, true, "fsfs", p9_renameat},
    {76, true, "fsd", p9_unlinkat},       {100, false, "dt", p9_version},
    {104, false, "ddttd", p9_attach},     {108, false, "w", p9_flush},
    {110, false, "fdW", p9_walk},         {116, false, "fqd", p9_read},
    {118, true, "fqD", p9_write},         {120, false, "F", p9_clunk},
    {122, true, "F", p9_remove},
};

const struct p9_message *p9_message_find(uint8_t type)
{
    for (unsigned i = 0; i < ARRAY_SIZE(messages); i++)
        if (messages[i].type == type)
            return &messages[i];
    return NULL;
}

struct cursor {
    const uint8_t *bytes;
    size_t left;
};

static bool take(struct cursor *cursor, unsigned size, uint64_t *value)
{
    if (cursor->left < size)
        return false;
    *value = load_le(cursor->bytes, size);
    cursor->bytes += size;
    cursor->left -= size;
    return true;
}

static int take_text(struct cursor *cursor, struct p9_request *request, size_t limit)
{
    char *text = request->storage + request->storage_used;
    uint64_t length;

    if (!take(cursor, 2, &length) || length > cursor->left)
        return EPROTO;
    if (length > limit || request->text_count == ARRAY_SIZE(request->text) ||
        length >= sizeof(request->storage) - request->storage_used)
        return ENAMETOOLONG;
    if (memchr(cursor->bytes, 0, length))
        return EINVAL;
    memcpy(text, cursor->bytes, length);
    text[length] = 0;
    request->storage_used += length + 1;
    request->text[request->text_count++] = text;
    cursor->bytes += length;
    cursor->left -= length;
    return 0;
}

static int take_name(struct cursor *cursor, struct p9_request *request)
{
    int error = take_text(cursor, request, P9_NAME_MAX);

    if (error)
        return error;
    return p9_name_valid(request->text[request->text_count - 1]) ? 0 : EINVAL;
}

static int take_walk(struct cursor *cursor, struct p9_request *request)
{
    uint64_t count;
    int error = 0;

    if (!take(cursor, 2, &count) || count > P9_NAMES_MAX)
        return EPROTO;
    for (; count && !error; count--)
        error = take_text(cursor, request, P9_NAME_MAX);
    return error;
}

static int take_fid(struct p9_server *server, struct cursor *cursor, struct p9_request *request,
                    bool stale_too)
{
    uint64_t id;
    struct p9_fid *fid;

    if (!take(cursor, 4, &id))
        return EPROTO;
    fid = p9_fid_find(server, id);
    if (!fid)
        return EBADF;
    request->fid[request->fid_count++] = fid;
    return fid->path_fd < 0 && !stale_too ? ESTALE : 0;
}

static int take_data(struct cursor *cursor, struct p9_request *request)
{
    uint64_t size;

    if (!take(cursor, 4, &size) || size > cursor->left)
        return EPROTO;
    request->data = cursor->bytes;
    request->data_size = size;
    cursor->bytes += size;
    cursor->left -= size;
    return 0;
}

static int take_number(struct cursor *cursor, struct p9_request *request, unsigned size)
{
    return take(cursor, size, &request->number[request->number_count++]) ? 0 : EPROTO;
}

int p9_decode(struct p9_server *server, const char *format, const uint8_t *body, size_t size,
              struct p9_request *request)
{
    struct cursor cursor = {body, size};
    int error = 0;

    request->fid_count = request->number_count = request->text_count = 0;
    request->storage_used = 0;
    for (; *format && !error; format++) {
        switch (*format) {
        case 'b':
            error = take_number(&cursor, request, 1);
            break;
        case 'w':
            error = take_number(&cursor, request, 2);
            break;
        case 'd':
            error = take_number(&cursor, request, 4);
            break;
        case 'q':
            error = take_number(&cursor, request, 8);
            break;
        case 'f':
        case 'F':
            error = take_fid(server, &cursor, request, *format == 'F');
            break;
        case 's':
            error = take_name(&cursor, request);
            break;
        case 't':
            error = take_text(&cursor, request, P9_TEXT_MAX);
            break;
        case 'W':
            error = take_walk(&cursor, request);
            break;
        case 'D':
            error = take_data(&cursor, request);
            break;
        }
    }
    return error ? error : cursor.left ? EPROTO : 0;
}

uint8_t *p9_put_space(struct p9_reply *reply, size_t size)
{
    uint8_t *space = reply->bytes + reply->size;

    if (size > reply->capacity - reply->size) {
        reply->overflow = true;
        return NULL;
    }
    reply->size += size;
    return space;
}

void p9_put(struct p9_reply *reply, uint64_t value, unsigned size)
{
    uint8_t *space = p9_put_space(reply, size);

    if (space)
        store_le(space, value, size);
}

void p9_put_text(struct p9_reply *reply, const char *text, size_t length)
{
    uint8_t *space;

    p9_put(reply, length, 2);
    space = p9_put_space(reply, length);
    if (space)
        memcpy(space, text, length);
}

static int answer(struct p9_server *server, uint8_t type, const uint8_t *request, size_t size,
                  struct p9_reply *reply)
{
    const struct p9_message *message = p9_message_find(type);
    struct p9_request decoded;
    int error;

    if (!message)
        return EOPNOTSUPP;
    if (size < load_le32(request) || load_le32(request) < P9_HEADER_SIZE)
        return EPROTO;
    error = p9_decode(server, message->format, request + P9_HEADER_SIZE,
                      load_le32(request) - P9_HEADER_SIZE, &decoded);
    if (!error && message->changes && server->read_only)
        error = EROFS;
    if (!error)
        error = message->handle(server, &decoded, reply);
    return !error && reply->overflow ? EMSGSIZE : error;
}

size_t p9_server_handle(struct p9_server *server, const uint8_t *request, size_t size,
                        uint8_t *bytes, size_t capacity)
{
    size_t limit = capacity < server->message_max ? capacity : server->message_max;
    struct p9_reply reply = {bytes, P9_HEADER_SIZE, limit, false};
    uint8_t type = request[4];
    int error = answer(server, type, request, size, &reply);

    if (error) {
        type = TYPE_RLERROR - 1;
        reply.size = P9_HEADER_SIZE;
        reply.overflow = false;
        p9_put(&reply, error, 4);
    }
    store_le32(bytes, reply.size);
    bytes[4] = type + 1;
    memcpy(bytes + 5, request + 5, 2);
    return reply.size;
}
