/*
 * Bytes from a debugger: packets, and a whole session on a machine of two harts whose threads do
 * not run, so that only steps execute anything. The first byte chooses how the rest is cut into
 * pieces, and whether checksums count.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/loop.h"
#include "debug/packet.h"
#include "hartvisor/debug.h"
#include "machine/machine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct machine *machine;
static char path[] = "/tmp/hartvisor-fuzz-XXXXXX"; /* a reset loads it again */

static void remove_firmware(void)
{
    unlink(path);
}

/* Firmware: all kinds of instructions, as far as 64 random words have them; then a loop. */
static void make_firmware(void)
{
    int fd = mkstemp(path);
    uint32_t words[65], seed = 1;
    assert(fd >= 0);
    for (unsigned i = 0; i < 64; i++)
        words[i] = (seed = seed * 1664525 + 1013904223) | 3;
    words[64] = 0x0000006f; /* j . */
    assert(write(fd, words, sizeof(words)) == sizeof(words));
    close(fd);
    atexit(remove_firmware);
}

static void machine_begin(void)
{
    struct machine_config config;
    struct error err;
    machine_config_init(&config);
    config.firmware = path;
    config.memory_size = MACHINE_MIN_MEMORY;
    config.cpus = 2;
    config.engine = MACHINE_ENGINE_INTERPRETER;
    config.serial = "none";
    machine = machine_create(&config, &err);
    assert(machine);
}

/* What is sent is whole packets with right checksums, and signs. */
static void check_sent(void *opaque, const void *data, size_t size)
{
    static struct packet_parser parser;
    const uint8_t *at = data;
    packet_parser_init(&parser);
    while (size) {
        bool notification = *at == '%';
        uint8_t *copy = malloc(size);
        memcpy(copy, at, size);
        if (notification)
            copy[0] = '$';
        const uint8_t *next = copy;
        size_t left = size;
        enum packet_event event = packet_parse(&parser, &next, &left, true);
        assert(event == PACKET_COMPLETE || event == PACKET_ACK || event == PACKET_NACK);
        at += size - left;
        size = left;
        free(copy);
    }
}

static void feed(struct debug_session *session, const uint8_t *data, size_t size)
{
    /* A copy of exactly this piece, so that reading past its end is seen. */
    uint8_t *copy = malloc(size);
    memcpy(copy, data, size);
    debug_session_receive(session, copy, size);
    free(copy);
}

/* "save" and "log" write files of any name. */
static bool is_harmless(const uint8_t *data, size_t size)
{
    return !memmem(data, size, "73617665", 8) && !memmem(data, size, "6c6f67", 6);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct debug_transport transport = {.send = check_sent};
    struct error err;
    if (!size || !is_harmless(data, size))
        return 0;
    if (!machine) {
        static bool made;
        if (!made)
            make_firmware();
        made = true;
        machine_begin();
    }
    struct debug_session *session = debug_session_create(machine, &transport, &err);
    assert(session);
    assert(!debug_session_create(machine, &transport, &err)); /* one at a time */
    if (data[0] & 1)
        feed(session, (const uint8_t *)"$QStartNoAckMode#b0", 19);
    size_t piece = data[0] >> 1 ? data[0] >> 1 : size;
    for (size_t from = 1; from < size; from += piece)
        feed(session, data + from, size - from < piece ? size - from : piece);
    debug_session_destroy(session);
    loop_turn(machine_loop(machine), 0);
    if (machine_get_state(machine) == MACHINE_ENDED) {
        machine_destroy(machine);
        machine = NULL;
        return 0;
    }
    machine_reset(machine);
    loop_turn(machine_loop(machine), 0);
    return 0;
}
