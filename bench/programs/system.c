/* What an operating system is asked for: calls, pipes, processes, pages. */

#include "bench.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t syscall_run(uint64_t calls)
{
    long parent = getppid();
    uint64_t same = 0;

    for (uint64_t i = 0; i < calls; i++) {
        same += syscall(SYS_getppid) == parent;
    }
    return same;
}

/* pipe: a byte goes to another process and comes back increased. */

static void one_byte(ssize_t count)
{
    if (count != 1) {
        die("pipe");
    }
}

static uint64_t pipe_run(uint64_t trips)
{
    int there[2], back[2];
    unsigned char byte = 0;
    uint64_t sum = 0;

    if (pipe(there) || pipe(back)) {
        die("pipe");
    }
    pid_t child = fork();
    if (child < 0) {
        die("fork");
    }
    if (child == 0) {
        close(there[1]);
        while (read(there[0], &byte, 1) == 1) {
            byte++;
            one_byte(write(back[1], &byte, 1));
        }
        _exit(0);
    }
    for (uint64_t i = 0; i < trips; i++) {
        one_byte(write(there[1], &byte, 1));
        one_byte(read(back[0], &byte, 1));
        sum += byte;
    }
    close(there[1]);
    waitpid(child, NULL, 0);
    return sum;
}

/* exec: this program again, which ends at once with the number of its further arguments. */

static uint64_t exec_run(uint64_t times)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < times; i++) {
        int status;
        pid_t child = fork();
        if (child < 0) {
            die("fork");
        }
        if (child == 0) {
            execl(own_path, own_path, DO_NOTHING, "one", (char *)NULL);
            die(own_path);
        }
        waitpid(child, &status, 0);
        sum += (uint64_t)WEXITSTATUS(status);
    }
    return sum;
}

static char *map_pages(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED) {
        die("mmap");
    }
    return memory;
}

/* faults: the first write to each page of 16 MiB. */

enum { PAGE = 4096, REGION = 16 << 20 };

static uint64_t faults_run(uint64_t regions)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < regions; i++) {
        char *memory = map_pages(REGION);
        /* One fault for each small page, also where the kernel would give huge ones. */
        madvise(memory, REGION, MADV_NOHUGEPAGE);
        for (size_t at = 0; at < REGION; at += PAGE) {
            memory[at] = 1;
            sum++;
        }
        munmap(memory, REGION);
    }
    return sum;
}

/* mmap: small regions that come and go, one page of each used. */

static uint64_t mmap_run(uint64_t times)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < times; i++) {
        char *memory = map_pages(8 * PAGE);
        memory[3 * PAGE] = (char)(i & 15);
        sum += (uint64_t)memory[3 * PAGE] + (uint64_t)memory[3 * PAGE + 1];
        munmap(memory, 8 * PAGE);
    }
    return sum;
}

const struct program system_programs[] = {
    {"syscall", "calls", 800000, 1000, NULL, syscall_run},
    {"pipe", "trips", 10000, 100, NULL, pipe_run},
    {"exec", "processes", 300, 3, NULL, exec_run},
    {"faults", "regions", 20, 1, NULL, faults_run},
    {"mmap", "regions", 8000, 100, NULL, mmap_run},
    {NULL, NULL, 0, 0, NULL, NULL},
};
