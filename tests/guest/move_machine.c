/*
 * Moves a running guest into another machine: boots it, saves its state once its serial output
 * shows `marker`, loads that into a new machine of the same configuration, and runs it to its end.
 *
 *     move_machine KERNEL INITRD APPEND DISK FIRST-LOG SECOND-LOG MARKER interp|jit plic|aia
 *
 * Exits with the guest's status, or 125 with a message.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hartvisor/machine.h"

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(MACHINE_STATUS_FAILURE);
}

static void *run(void *machine)
{
    return (void *)(long)machine_run(machine);
}

static bool contains(const char *path, const char *text)
{
    static char content[1 << 20];
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    content[fread(content, 1, sizeof(content) - 1, file)] = 0;
    fclose(file);
    return strstr(content, text);
}

static struct machine *create(struct machine_config *config, const char *log)
{
    static char serial[2][4096];
    static unsigned count;
    struct error err;
    snprintf(serial[count], sizeof(serial[count]), "file:%s", log);
    config->serial = serial[count++];
    struct machine *machine = machine_create(config, &err);
    if (!machine)
        fail("create", err.message);
    return machine;
}

int main(int argc, char **argv)
{
    if (argc != 10)
        fail("usage", "KERNEL INITRD APPEND DISK FIRST-LOG SECOND-LOG MARKER interp|jit plic|aia");
    struct machine_config config;
    struct error err;
    machine_config_init(&config);
    config.kernel = argv[1];
    config.initrd = argv[2];
    config.append = argv[3];
    config.disks[config.disk_count++].path = argv[4];
    config.nets[config.net_count++].backend = "user";
    config.cpus = 2;
    config.memory_size = 256 << 20;
    config.aia = !strcmp(argv[9], "aia") ? MACHINE_AIA_ON : MACHINE_AIA_OFF;
    config.engine = !strcmp(argv[8], "jit") ? MACHINE_ENGINE_JIT : MACHINE_ENGINE_INTERPRETER;

    struct machine *machine = create(&config, argv[5]);
    pthread_t thread;
    pthread_create(&thread, NULL, run, machine);
    while (!contains(argv[5], argv[7])) {
        if (machine_get_state(machine) == MACHINE_ENDED)
            fail("first machine", "it ended before the marker");
        usleep(20000);
    }
    void *data;
    size_t size;
    machine_pause(machine);
    if (!machine_save(machine, &data, &size, &err))
        fail("save", err.message);
    machine_quit(machine, 0);
    pthread_join(thread, NULL);
    machine_destroy(machine);

    machine = create(&config, argv[6]);
    if (!machine_load(machine, data, size, &err))
        fail("load", err.message);
    free(data);
    int status = machine_run(machine);
    machine_destroy(machine);
    return status;
}
