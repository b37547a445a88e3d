#include "gpu/server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gpu/core.h"

struct server {
    int in, out;
    const struct gpu_server_ops *ops;
    void *opaque;
    struct gpu_core *core; /* NULL until adapters are open */
    struct {
        void *host;
        size_t size;
    } memory[CORE_MAX_MEMORY];
    size_t memory_count;
};

/* A request as it came. */
struct message {
    struct gpu_request request;
    void *payload;
    int fd; /* -1: none */
};

/* --- Bytes -------------------------------------------------------------------------------------
 */

/* Keeps the first descriptor, and none of more that somebody might send. */
static void take_descriptors(struct msghdr *header, int *fd)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part; part = CMSG_NXTHDR(header, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int received;
            memcpy(&received, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
            if (*fd < 0)
                *fd = received;
            else
                close(received);
        }
    }
}

/* Reads exactly `size` bytes; *end: there was nothing but the end. */
static bool receive(int in, void *buffer, size_t size, int *fd, bool *end, struct error *err)
{
    size_t done = 0;
    while (done < size) {
        union {
            struct cmsghdr align;
            char bytes[CMSG_SPACE(4 * sizeof(int))];
        } control;
        struct iovec piece = {(char *)buffer + done, size - done};
        struct msghdr header = {.msg_iov = &piece,
                                .msg_iovlen = 1,
                                .msg_control = &control,
                                .msg_controllen = sizeof(control)};
        ssize_t count = recvmsg(in, &header, MSG_CMSG_CLOEXEC);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return error_set_errno(err, errno, "cannot read from the machine");
        take_descriptors(&header, fd);
        if (count == 0) {
            *end = !done;
            return *end || error_set(err, "the machine's request ends in its middle");
        }
        done += (size_t)count;
    }
    return true;
}

static bool write_all(int out, const void *buffer, size_t size, struct error *err)
{
    for (size_t done = 0; done < size;) {
        ssize_t count = write(out, (const char *)buffer + done, size - done);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return error_set_errno(err, errno, "cannot write to the machine");
        done += (size_t)count;
    }
    return true;
}

static bool receive_message(struct server *server, struct message *message, bool *end,
                            struct error *err)
{
    struct gpu_request *request = &message->request;
    *message = (struct message){.fd = -1};
    *end = false;
    if (!receive(server->in, request, sizeof(*request), &message->fd, end, err) || *end)
        return *end;
    if (request->size < sizeof(*request) || request->size - sizeof(*request) > GPU_PAYLOAD_MAX)
        return error_set(err, "a request of %u bytes came; it has %zu to %zu", request->size,
                         sizeof(*request), sizeof(*request) + GPU_PAYLOAD_MAX);
    size_t size = request->size - sizeof(*request);
    if (!size)
        return true;
    message->payload = xmalloc(size);
    return receive(server->in, message->payload, size, &message->fd, end, err) &&
           (!*end || error_set(err, "the machine's request ends in its middle"));
}

static void message_finish(struct message *message)
{
    free(message->payload);
    if (message->fd >= 0)
        close(message->fd);
}

/* --- Requests that are not the core's -----------------------------------------------------------
 */

static void fail(struct gpu_answer *answer, enum gpu_status status, const char *text)
{
    answer->status = status;
    snprintf(answer->message, sizeof(answer->message), "%.235s", text);
}

static void tell_adapters(struct server *server, struct gpu_answer *answer, void **payload)
{
    struct gpu_adapter_info *list = xcalloc(GPU_MAX_BACKEND_ADAPTERS, sizeof(*list));
    size_t count = server->ops->adapters(server->opaque, list, GPU_MAX_BACKEND_ADAPTERS);
    answer->size += (uint32_t)(count * sizeof(*list));
    *payload = list;
}

static void open_adapters(struct server *server, const struct gpu_request *request,
                          struct gpu_answer *answer)
{
    struct error err;
    if (server->core || request->open.version != GPU_PROTOCOL_VERSION || !request->open.count ||
        request->open.count > GPU_MAX_ADAPTERS || request->open.spread > GPU_SPREAD_LOAD) {
        fail(answer, GPU_BAD_REQUEST, "it was opened before, or by another version of hartvisor");
        return;
    }
    struct gpu_canvas *canvas = server->ops->open(server->opaque, request, &err);
    if (!canvas) {
        fail(answer, GPU_FAILED, err.message);
        return;
    }
    server->core = gpu_core_create(canvas, request->open.spread);
}

static void add_memory(struct server *server, const struct message *message,
                       struct gpu_answer *answer)
{
    uint64_t gpa = message->request.memory.gpa, size = message->request.memory.size;
    uint64_t offset = message->request.memory.offset;
    struct stat status;
    if (!server->core || server->memory_count == CORE_MAX_MEMORY || message->fd < 0 || !size ||
        (gpa | size | offset) % MEMORY_PAGE_SIZE || gpa + size < gpa || offset > INT64_MAX ||
        size > INT64_MAX - offset || fstat(message->fd, &status) < 0 ||
        (uint64_t)status.st_size < offset + size) {
        fail(answer, GPU_BAD_REQUEST, "this is no guest memory");
        return;
    }
    void *host = mmap(NULL, size, PROT_READ, MAP_SHARED, message->fd, (off_t)offset);
    if (host == MAP_FAILED) {
        fail(answer, GPU_OUT_OF_MEMORY, "guest memory cannot be mapped");
        return;
    }
    server->memory[server->memory_count].host = host;
    server->memory[server->memory_count++].size = size;
    gpu_core_add_memory(server->core, gpa, size, host);
}

static void execute(struct server *server, struct message *message, struct gpu_answer *answer,
                    void **payload)
{
    const struct gpu_request *request = &message->request;
    *answer = (struct gpu_answer){
        .type = request->type, .serial = request->serial, .size = sizeof(*answer)};
    *payload = NULL;
    if (request->type == GPU_REQUEST_ADAPTERS)
        tell_adapters(server, answer, payload);
    else if (request->type == GPU_REQUEST_OPEN)
        open_adapters(server, request, answer);
    else if (request->type == GPU_REQUEST_MEMORY)
        add_memory(server, message, answer);
    else if (server->core)
        gpu_core_execute(server->core, request, message->payload, message->fd, answer, payload);
    else
        fail(answer, GPU_BAD_REQUEST, "no adapter is open");
}

static bool serve(struct server *server, bool *end, struct error *err)
{
    struct message message;
    bool ok = receive_message(server, &message, end, err);
    if (ok && !*end) {
        struct gpu_answer answer;
        void *payload;
        bool closed = !server->core;
        execute(server, &message, &answer, &payload);
        /* What needs rights is done before the machine hears of it. */
        if (closed && server->core && server->ops->opened)
            ok = server->ops->opened(server->opaque, err);
        ok = ok && write_all(server->out, &answer, sizeof(answer), err) &&
             write_all(server->out, payload, answer.size - sizeof(answer), err);
        free(payload);
    }
    message_finish(&message);
    return ok;
}

bool gpu_server_run(int in, int out, const struct gpu_server_ops *ops, void *opaque,
                    struct error *err)
{
    struct server server = {.in = in, .out = out, .ops = ops, .opaque = opaque};
    bool end = false, ok = true;
    while (ok && !end)
        ok = serve(&server, &end, err);
    gpu_core_destroy(server.core);
    for (size_t i = 0; i < server.memory_count; i++)
        munmap(server.memory[i].host, server.memory[i].size);
    return ok;
}
