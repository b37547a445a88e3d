/*
 * A renderer's process as hartvisor-gpu is one, but on pixman and with bad manners: the
 * environment's FAKE_RENDERER says "WHAT NUMBER AT", and at its AT-th answer it does WHAT.
 */
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gpu/server.h"

struct fake {
    int socket, answers; /* answers of the server, before they are spoilt */
    char what[32];
    int number;
    unsigned at, count;
};

static void put(const struct fake *fake, const void *bytes, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t count = write(fake->socket, (const char *)bytes + done, size - done);
        if (count < 0)
            _exit(0);
        done += (size_t)count;
    }
}

static bool get(int in, void *bytes, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t count = read(in, (char *)bytes + done, size - done);
        if (count <= 0)
            return false;
        done += (size_t)count;
    }
    return true;
}

/* --- Bad manners: each may change the answer; true: it is sent then -----------------------------
 */

static bool end_by_signal(struct fake *fake, struct gpu_answer *answer)
{
    const struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    signal(fake->number, SIG_DFL);
    raise(fake->number);
    return false;
}

static bool end_with_status(struct fake *fake, struct gpu_answer *answer)
{
    _exit(fake->number);
}

static bool spoil_serial(struct fake *fake, struct gpu_answer *answer)
{
    answer->serial += (uint64_t)fake->number;
    return true;
}

static bool spoil_type(struct fake *fake, struct gpu_answer *answer)
{
    answer->type += (uint32_t)fake->number;
    return true;
}

static bool spoil_size(struct fake *fake, struct gpu_answer *answer)
{
    answer->size = (uint32_t)fake->number;
    put(fake, answer, sizeof(*answer));
    return false;
}

static bool spoil_status(struct fake *fake, struct gpu_answer *answer)
{
    answer->status = (uint32_t)fake->number;
    memset(answer->message, 'x', sizeof(answer->message));
    memset(&answer->rect, 0xff, sizeof(answer->rect));
    return true;
}

static bool send_garbage(struct fake *fake, struct gpu_answer *answer)
{
    memset(answer, fake->number, sizeof(*answer));
    return true;
}

static bool send_twice(struct fake *fake, struct gpu_answer *answer)
{
    put(fake, answer, sizeof(*answer));
    return true;
}

static bool send_half(struct fake *fake, struct gpu_answer *answer)
{
    put(fake, answer, sizeof(*answer) / 2);
    _exit(fake->number);
}

static bool say_nothing(struct fake *fake, struct gpu_answer *answer)
{
    for (;;)
        pause();
    return false;
}

static bool be_slow(struct fake *fake, struct gpu_answer *answer)
{
    usleep((useconds_t)fake->number * 1000);
    fake->at++; /* and again */
    return true;
}

static bool send_flood(struct fake *fake, struct gpu_answer *answer)
{
    static char bytes[1 << 16];
    memset(bytes, fake->number, sizeof(bytes));
    for (;;)
        put(fake, bytes, sizeof(bytes));
    return false;
}

static bool close_socket(struct fake *fake, struct gpu_answer *answer)
{
    shutdown(fake->socket, SHUT_RDWR);
    return say_nothing(fake, answer);
}

/* Its statistics are the worst that there can be. */
static bool spoil_statistics(struct fake *fake, struct gpu_answer *answer)
{
    struct gpu_stats stats;
    fake->at++;
    if (answer->type != GPU_REQUEST_STATS)
        return true;
    memset(&stats, fake->number, sizeof(stats));
    put(fake, answer, sizeof(*answer));
    put(fake, &stats, sizeof(stats));
    return false;
}

static const struct manner {
    const char *what;
    bool (*run)(struct fake *fake, struct gpu_answer *answer);
} manners[] = {
    {"signal", end_by_signal}, {"exit", end_with_status},   {"serial", spoil_serial},
    {"type", spoil_type},      {"size", spoil_size},        {"status", spoil_status},
    {"garbage", send_garbage}, {"twice", send_twice},       {"half", send_half},
    {"silence", say_nothing},  {"slow", be_slow},           {"flood", send_flood},
    {"close", close_socket},   {"stats", spoil_statistics},
};

static bool behave(struct fake *fake, struct gpu_answer *answer)
{
    if (++fake->count != fake->at)
        return true;
    for (size_t i = 0; i < ARRAY_SIZE(manners); i++)
        if (!strcmp(manners[i].what, fake->what))
            return manners[i].run(fake, answer);
    return true;
}

/* Hands the server's answers on. */
static void *relay(void *opaque)
{
    struct fake *fake = opaque;
    struct gpu_answer answer;
    while (get(fake->answers, &answer, sizeof(answer))) {
        size_t size = answer.size - sizeof(answer);
        void *payload = xmalloc(size + 1);
        if (!get(fake->answers, payload, size))
            _exit(99);
        if (behave(fake, &answer)) {
            put(fake, &answer, sizeof(answer));
            put(fake, payload, size);
        }
        free(payload);
    }
    return NULL;
}

/* --- The renderer ------------------------------------------------------------------------------
 */

/* One adapter, whose numbers tell of this process. */
static size_t tell_adapters(void *opaque, struct gpu_adapter_info *list, size_t most)
{
    list[0] = (struct gpu_adapter_info){
        .vendor_id = *(uint32_t *)opaque, .device_id = (uint32_t)getpid(), .name = "pixman"};
    return 1;
}

static struct gpu_canvas *open_canvas(void *opaque, const struct gpu_request *request,
                                      struct error *err)
{
    return gpu_canvas_pixman_create(err);
}

static uint32_t count_descriptors(void)
{
    uint32_t count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder))
        count++;
    closedir(folder);
    return count - 3; /* ., .., and the folder's own */
}

int main(int count, char **words)
{
    static const struct gpu_server_ops ops = {.adapters = tell_adapters, .open = open_canvas};
    uint32_t descriptors = count_descriptors();
    const char *manner = getenv("FAKE_RENDERER");
    struct fake fake = {.socket = count == 3 ? atoi(words[2]) : -1};
    struct error err;
    pthread_t thread;
    int ends[2];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    if (manner)
        sscanf(manner, "%31s %d %u", fake.what, &fake.number, &fake.at);
    if (count != 3 || strcmp(words[1], "--socket") != 0 || pipe(ends) < 0)
        return 98;
    fake.answers = ends[0];
    if (pthread_create(&thread, NULL, relay, &fake))
        return 97;
    bool ok = gpu_server_run(fake.socket, ends[1], &ops, &descriptors, &err);
    if (!ok)
        fprintf(stderr, "fake renderer: %s\n", err.message);
    close(ends[1]);
    pthread_join(thread, NULL);
    close(ends[0]);
    return !ok;
}
