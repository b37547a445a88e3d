/* hartvisor-gpu: a renderer on WebGPU, for one machine, at the other end of a socket. */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpu/server.h"
#include "renderer/renderer.h"

#define PATIENCE_S 2 /* for work that is under way when the machine ends */

/* A process that only tells of adapters is not confined: on some machines it is the first to load a
 * driver's kernel module. */
static size_t tell_adapters(void *opaque, struct gpu_adapter_info *list, size_t most)
{
    struct adapters *adapters = opaque;
    if (!adapters->instance)
        adapters_init(adapters);
    size_t count = adapters->count < most ? adapters->count : most;
    for (size_t i = 0; i < count; i++)
        adapters_describe(adapters, i, &list[i]);
    return count;
}

static struct gpu_canvas *open_adapters(void *opaque, const struct gpu_request *request,
                                        struct error *err)
{
    struct adapters *adapters = opaque;
    if (!sandbox_close_files(err))
        return NULL;
    if (!adapters->instance)
        adapters_init(adapters);
    return wgpu_canvas_create(adapters, request->open.adapters, request->open.count, err);
}

static bool confine(void *opaque, struct error *err)
{
    return sandbox_enter(err);
}

/* A driver that hangs does not outlive the machine. (PR_SET_PDEATHSIG would end this process with
 * the thread that started it.) */
static void *watch_machine(void *opaque)
{
    struct pollfd end = {.fd = (int)(intptr_t)opaque, .events = POLLRDHUP};
    while (!(end.revents & (POLLRDHUP | POLLHUP | POLLERR)))
        poll(&end, 1, -1);
    sleep(PATIENCE_S);
    _exit(1);
}

int main(int count, char **words)
{
    static const struct gpu_server_ops ops = {
        .adapters = tell_adapters, .open = open_adapters, .opened = confine};
    struct adapters adapters = {0};
    struct error err;
    char *end;
    if (count != 3 || strcmp(words[1], "--socket") != 0) {
        fprintf(stderr, "hartvisor-gpu is started by hartvisor, which speaks to it over a socket: "
                        "see `hartvisor gpus list`\n");
        return 2;
    }
    long socket = strtol(words[2], &end, 10);
    if (*end || socket < 3 || socket > 1000) {
        fprintf(stderr, "hartvisor-gpu: '%s' is no descriptor of a socket\n", words[2]);
        return 2;
    }
    pthread_t watcher;
    signal(SIGPIPE, SIG_IGN);
    if (pthread_create(&watcher, NULL, watch_machine, (void *)(intptr_t)socket)) {
        log_error("hartvisor-gpu: the host has no thread left");
        return 1;
    }
    bool ok = gpu_server_run((int)socket, (int)socket, &ops, &adapters, &err);
    if (!ok)
        log_error("hartvisor-gpu: %s", err.message);
    adapters_finish(&adapters);
    return !ok;
}
