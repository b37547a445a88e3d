/*
 * Boots a guest with libhartvisor and looks into its memory while it runs.
 *
 *     boot [--kernel|--firmware] FILE [ADDRESS [MILLISECONDS]]
 *
 * FILE is a bare-metal program or M-mode firmware (an ELF file, or raw), or with --kernel a kernel
 * for S-mode. Once the guest has run for a while (100 ms), the machine is paused, 64 bytes at the
 * guest physical ADDRESS (the start of RAM) are printed, and it goes on to its end. The program
 * exits with the guest's status.
 *
 *     cc boot.c $(pkg-config --cflags --libs --static hartvisor)
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "hartvisor/machine.h"

#define RAM_BASE 0x80000000u

struct peek {
    struct machine *machine;
    uint64_t gpa;
    long milliseconds;
};

static void sleep_for(long milliseconds)
{
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static void print_memory(struct machine *machine, uint64_t gpa)
{
    unsigned char bytes[64];
    if (!machine_read_memory(machine, gpa, bytes, sizeof(bytes))) {
        fprintf(stderr, "boot: there is no RAM at %#llx\n", (unsigned long long)gpa);
        return;
    }
    for (size_t i = 0; i < sizeof(bytes); i++) {
        if (i % 16 == 0)
            fprintf(stderr, "%016llx:", (unsigned long long)(gpa + i));
        fprintf(stderr, " %02x%s", bytes[i], i % 16 == 15 ? "\n" : "");
    }
}

/* A thread beside the machine's: the calls it makes are those for any thread. */
static void *peek_thread(void *opaque)
{
    struct peek *peek = opaque;
    sleep_for(peek->milliseconds);
    if (machine_get_state(peek->machine) == MACHINE_ENDED)
        return NULL;
    machine_pause(peek->machine);
    fprintf(stderr, "boot: after %llu instructions\n",
            (unsigned long long)machine_instructions(peek->machine));
    print_memory(peek->machine, peek->gpa);
    machine_resume(peek->machine);
    return NULL;
}

static void on_event(void *opaque, const struct machine_event_info *info)
{
    static const char *const names[] = {
        [MACHINE_EVENT_STOP] = "paused",    [MACHINE_EVENT_RESUME] = "running",
        [MACHINE_EVENT_RESET] = "reset",    [MACHINE_EVENT_POWERDOWN] = "power button pressed",
        [MACHINE_EVENT_SHUTDOWN] = "ended",
    };
    fprintf(stderr, "boot: the machine is %s%s\n", names[info->event],
            info->by_guest ? " by the guest" : "");
}

int main(int count, char **words)
{
    struct machine_config config;
    struct error err;
    int word = 1;
    machine_config_init(&config);
    config.serial = "none";
    const char **file = &config.firmware;
    if (word < count && words[word][0] == '-') {
        if (!strcmp(words[word], "--kernel"))
            file = &config.kernel;
        else if (strcmp(words[word], "--firmware") != 0)
            word = count;
        word++;
    }
    if (word >= count) {
        fprintf(stderr, "usage: %s [--kernel|--firmware] FILE [ADDRESS [MILLISECONDS]]\n",
                words[0]);
        return MACHINE_STATUS_FAILURE;
    }
    *file = words[word++];

    struct machine *machine = machine_create(&config, &err);
    if (!machine) {
        fprintf(stderr, "boot: %s\n", err.message);
        return MACHINE_STATUS_FAILURE;
    }
    machine_add_listener(machine, on_event, NULL);
    struct peek peek = {
        .machine = machine,
        .gpa = word < count ? strtoull(words[word], NULL, 0) : RAM_BASE,
        .milliseconds = word + 1 < count ? strtol(words[word + 1], NULL, 0) : 100,
    };
    pthread_t thread;
    if (pthread_create(&thread, NULL, peek_thread, &peek)) {
        fprintf(stderr, "boot: cannot create a thread\n");
        machine_destroy(machine);
        return MACHINE_STATUS_FAILURE;
    }
    int status = machine_run(machine);
    pthread_join(thread, NULL);
    machine_destroy(machine);
    return status;
}
