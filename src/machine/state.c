/*
 * The whole machine's state: what it is (so that a state is not loaded into another machine), RAM,
 * harts, devices by name. Everything here happens on the loop's thread with the harts stopped.
 */
#include <stdlib.h>
#include <string.h>

#include "machine/internal.h"

#define STATE_MAGIC   UINT64_C(0x6574617473767268) /* "hrvstate" */
#define STATE_VERSION 1

/* Fails the stream unless the loaded text is the one this machine has. */
static void match_text(struct stream *stream, const char *what, const char *ours)
{
    void *text = xstrdup(ours);
    size_t size = strlen(ours);
    stream_blob(stream, &text, &size, 4096);
    if (!stream_failed(stream) && (size != strlen(ours) || memcmp(text, ours, size)))
        stream_fail(stream, "the state is of a machine with %s '%.*s', this one has '%s'", what,
                    (int)size, (const char *)(text ? text : ""), ours);
    free(text);
}

static void match_number(struct stream *stream, const char *what, uint64_t ours)
{
    uint64_t value = ours;
    stream_u64(stream, &value);
    if (!stream_failed(stream) && value != ours)
        stream_fail(stream, "the state is of a machine with %s %llu, this one has %llu", what,
                    (unsigned long long)value, (unsigned long long)ours);
}

static void machine_stream(struct machine *machine, struct stream *stream)
{
    char isa[ISA_STRING_SIZE];
    isa_extensions_string(&machine->extensions, isa, sizeof(isa));

    stream_begin(stream, "machine", STATE_VERSION);
    match_number(stream, "magic number", STATE_MAGIC);
    match_number(stream, "bytes of memory:", machine->config.memory_size);
    match_number(stream, "harts:", machine->cpu_count);
    match_text(stream, "the ISA", isa);
    match_number(stream, "devices:", machine->device_count);
    for (unsigned i = 0; i < machine->device_count; i++)
        match_text(stream, "the device", machine->devices[i]->name);
    stream_end(stream);
    if (stream_failed(stream))
        return;

    stream_begin(stream, "memory", 1);
    memory_state(machine->memory, stream);
    stream_end(stream);
    for (unsigned i = 0; i < machine->device_count && !stream_failed(stream); i++) {
        struct device *device = machine->devices[i];
        stream_begin(stream, device->name, 1);
        if (device->type->state)
            device->type->state(device, stream);
        stream_end(stream);
    }
    /* Harts last: devices raise their lines while they are loaded. */
    for (unsigned i = 0; i < machine->cpu_count && !stream_failed(stream); i++) {
        stream_begin(stream, "hart", 1);
        cpu_state(&machine->cpus[i], stream);
        stream_end(stream);
    }
}

struct job {
    struct machine *machine;
    struct stream *stream;
    bool paused;
};

static void run_job(void *opaque)
{
    struct job *job = opaque;
    struct machine *machine = job->machine;
    job->paused = machine->state == MACHINE_PAUSED;
    if (!job->paused)
        return;
    for (unsigned i = 0; i < machine->device_count; i++)
        if (machine->devices[i]->type->quiesce)
            machine->devices[i]->type->quiesce(machine->devices[i]);
    machine_stream(machine, job->stream);
}

static bool transfer(struct machine *machine, struct stream *stream, struct error *err)
{
    struct job job = {.machine = machine, .stream = stream};
    loop_call(machine->loop, run_job, &job);
    if (!job.paused)
        return error_set(err, "the machine is not paused: pause it first");
    return stream_check(stream, err);
}

bool machine_save(struct machine *machine, void **data, size_t *size, struct error *err)
{
    struct stream *stream = stream_create_saving();
    bool ok = transfer(machine, stream, err);
    if (ok) {
        const void *bytes = stream_data(stream, size);
        *data = xmalloc(*size);
        memcpy(*data, bytes, *size);
    }
    stream_destroy(stream);
    return ok;
}

bool machine_load(struct machine *machine, const void *data, size_t size, struct error *err)
{
    struct stream *stream = stream_create_loading(data, size);
    bool ok = transfer(machine, stream, err);
    stream_destroy(stream);
    return ok;
}
