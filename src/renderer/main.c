/* hartvisor-gpu: a renderer on WebGPU, for one machine, at the other end of a socket. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpu/server.h"
#include "renderer/renderer.h"

#define END_S 2 /* what drawing may take once the machine is gone */

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

/* A driver that hangs does not outlive the machine. (PR_SET_PDEATHSIG would end it too early, with
 * the thread that started it.) */
static void *wait_for_end(void *opaque)
{
    struct pollfd end = {(int)(intptr_t)opaque, POLLRDHUP, 0};
    while (poll(&end, 1, -1) < 0 && errno == EINTR)
        ;
    sleep(END_S);
    _exit(1);
}

static bool watch(int socket)
{
    pthread_t thread;
    int number = pthread_create(&thread, NULL, wait_for_end, (void *)(intptr_t)socket);
    if (number)
        log_error("hartvisor-gpu: no thread: %s", strerror(number));
    else
        pthread_detach(thread);
    return !number;
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
    signal(SIGPIPE, SIG_IGN);
    if (!watch((int)socket))
        return 1;
    bool ok = gpu_server_run((int)socket, (int)socket, &ops, &adapters, &err);
    if (!ok)
        log_error("hartvisor-gpu: %s", err.message);
    adapters_finish(&adapters);
    return !ok;
}
