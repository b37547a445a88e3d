/*
 * Steps through the first instructions of a firmware and prints where they are, by saying to a
 * debug session what GDB would say:
 *
 *     debug FIRMWARE
 *
 * With debug_server_create instead of a session, GDB itself could connect.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "hartvisor/debug.h"
#include "hartvisor/machine.h"

/* The last packet that the session sent, without $, # and checksum. */
struct answer {
    char text[4096];
};

static void receive(void *opaque, const void *data, size_t size)
{
    struct answer *answer = opaque;
    const char *packet = data;
    if (packet[0] != '$' || size - 4 >= sizeof(answer->text))
        return; /* an acknowledgement */
    memcpy(answer->text, packet + 1, size - 4);
    answer->text[size - 4] = 0;
}

static const char *ask(struct debug_session *session, struct answer *answer, const char *question)
{
    char packet[256];
    unsigned char sum = 0;
    for (const char *at = question; *at; at++)
        sum += (unsigned char)*at;
    int length = snprintf(packet, sizeof(packet), "$%s#%02x", question, sum);
    debug_session_receive(session, packet, (size_t)length);
    return answer->text;
}

int main(int argc, char **argv)
{
    struct machine_config config;
    struct error err;
    struct answer answer = {""};
    const struct debug_transport transport = {.opaque = &answer, .send = receive, .plain = true};
    if (argc != 2) {
        fprintf(stderr, "usage: debug FIRMWARE\n");
        return 2;
    }
    machine_config_init(&config);
    config.firmware = argv[1];
    config.serial = "none";
    struct machine *machine = machine_create(&config, &err);
    struct debug_session *session =
        machine ? debug_session_create(machine, &transport, &err) : NULL;
    if (!session) {
        fprintf(stderr, "%s\n", err.message);
        machine_destroy(machine);
        return 1;
    }
    /* "T05...;20:PC;...": register 0x20 is pc, lowest byte first. */
    for (int i = 0; i < 8; i++) {
        const char *stop = ask(session, &answer, i ? "vCont;s:1" : "?");
        const char *pc = strstr(stop, ";20:");
        unsigned char bytes[8] = {0};
        for (int j = 0; pc && j < 8; j++)
            sscanf(pc + 4 + 2 * j, "%2hhx", &bytes[j]);
        uint64_t address = 0;
        for (int j = 7; j >= 0; j--)
            address = address << 8 | bytes[j];
        printf("%d instructions: pc is %#llx\n", i, (unsigned long long)address);
    }
    debug_session_destroy(session);
    machine_destroy(machine);
    return 0;
}
