/*
 * The programs of the benchmark in one command, which is also the first process of a guest.
 *
 *     bench [--quick] NAME[,NAME...]...     runs programs and prints a line for each:
 *                                           NAME SECONDS CHECKSUM
 *     bench --list                          prints NAME GROUP AMOUNT UNIT for each
 *
 * As process 1 it says `bench: up`, runs what the kernel's command line names after `--`, says
 * `bench: done` and waits to be ended from outside.
 */

#include "bench.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const struct group {
    const char *name;
    const struct program *programs;
} groups[] = {
    {"integer", integer_programs}, {"floating-point", floating_programs},
    {"memory", memory_programs},   {"system", system_programs},
    {"threads", thread_programs},  {NULL, NULL},
};

const char *own_path;

_Noreturn void die(const char *what)
{
    fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
    exit(1);
}

void *need_memory(size_t size)
{
    void *memory = malloc(size);

    if (!memory) {
        die("malloc");
    }
    return memory;
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static const struct program *find(const char *name)
{
    for (const struct group *group = groups; group->name; group++) {
        for (const struct program *program = group->programs; program->name; program++) {
            if (strcmp(program->name, name) == 0) {
                return program;
            }
        }
    }
    return NULL;
}

/* Each program has a process of its own: what it allocates is gone before the next one. */
static bool run(const struct program *program, bool quick)
{
    uint64_t amount = quick ? program->quick : program->amount;
    int status;
    pid_t child = fork();

    if (child < 0) {
        die("fork");
    }
    if (child == 0) {
        if (program->prepare) {
            program->prepare(amount);
        }
        double began = seconds();
        uint64_t checksum = program->run(amount);
        double passed = seconds() - began;
        printf("%s %.6f %016" PRIx64 "\n", program->name, passed, checksum);
        fflush(stdout);
        _exit(0);
    }
    if (waitpid(child, &status, 0) != child) {
        die("waitpid");
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool run_names(char *names, bool quick)
{
    bool good = true;

    for (char *name = strtok(names, ","); name; name = strtok(NULL, ",")) {
        const struct program *program = find(name);
        if (!program || !run(program, quick)) {
            printf("bench: %s %s\n", name, program ? "failed" : "is no program; see --list");
            good = false;
        }
    }
    return good;
}

static void list(void)
{
    for (const struct group *group = groups; group->name; group++) {
        for (const struct program *program = group->programs; program->name; program++) {
            printf("%s %s %" PRIu64 " %s\n", program->name, group->name, program->amount,
                   program->unit);
        }
    }
}

int main(int argc, char **argv)
{
    bool first = getpid() == 1, quick = false, good = true;

    if (argc > 1 && strcmp(argv[1], DO_NOTHING) == 0) {
        return argc - 2;
    }
    own_path = argv[0];
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (first) {
        puts("bench: up");
    }
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--list") == 0) {
            list();
        } else if (strcmp(argv[i], "--quick") == 0) {
            quick = true;
        } else {
            good &= run_names(argv[i], quick);
        }
    }
    if (first) {
        puts("bench: done");
        for (;;) {
            pause();
        }
    }
    return !good;
}
