/*
 * Says what the guest's input devices send, in the guest:
 *
 *     event_probe
 *
 * opens each /dev/input/event*, says "device NAME" for each and "ready", and then each event as
 * "NAME: TYPE CODE VALUE" in numbers, until its input ends.
 */
#include <fcntl.h>
#include <glob.h>
#include <linux/input.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MAX_DEVICES 16

static struct pollfd sources[1 + MAX_DEVICES];
static char names[1 + MAX_DEVICES][128];
static unsigned count = 1; /* the first is our input */

static void open_devices(void)
{
    glob_t found;
    if (glob("/dev/input/event*", 0, NULL, &found) != 0) {
        fprintf(stderr, "event_probe: there is no /dev/input/event*\n");
        exit(1);
    }
    for (size_t i = 0; i < found.gl_pathc && count <= MAX_DEVICES; i++) {
        int fd = open(found.gl_pathv[i], O_RDONLY | O_CLOEXEC);
        if (fd < 0 || ioctl(fd, EVIOCGNAME(sizeof(names[count]) - 1), names[count]) < 0) {
            perror(found.gl_pathv[i]);
            exit(1);
        }
        printf("device %s\n", names[count]);
        sources[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    globfree(&found);
}

static void tell_events(unsigned source)
{
    struct input_event events[64];
    ssize_t size = read(sources[source].fd, events, sizeof(events));
    if (size < 0) {
        perror(names[source]);
        exit(1);
    }
    for (size_t i = 0; i < (size_t)size / sizeof(*events); i++)
        printf("%s: %u %u %d\n", names[source], events[i].type, events[i].code, events[i].value);
}

int main(void)
{
    char rest[256];
    setvbuf(stdout, NULL, _IOLBF, 0);
    open_devices();
    sources[0] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
    printf("ready\n");
    for (;;) {
        if (poll(sources, count, -1) < 0) {
            perror("poll");
            return 1;
        }
        for (unsigned i = 1; i < count; i++)
            if (sources[i].revents)
                tell_events(i);
        if (sources[0].revents && read(STDIN_FILENO, rest, sizeof(rest)) <= 0)
            return 0;
    }
}
