#include "cli/signals.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/loop.h"
#include "device/chardev.h"
#include "hartvisor/machine.h"

#define PATIENCE_NS UINT64_C(1000000000)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct machine *current; /* under lock, as is asked_at */
static uint64_t asked_at;       /* when the machine was asked to end; 0: not yet */

static void die_of(int number)
{
    sigset_t set;
    chardev_restore_terminal();
    signal(number, SIG_DFL);
    sigemptyset(&set);
    sigaddset(&set, number);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    raise(number);
    _exit(128 + number);
}

static void on_signal(int number)
{
    pthread_mutex_lock(&lock);
    uint64_t now = loop_now();
    if (!current || (asked_at && now - asked_at > PATIENCE_NS))
        die_of(number);
    if (!asked_at) {
        asked_at = now;
        machine_quit(current, 128 + number);
    }
    pthread_mutex_unlock(&lock);
}

static void *signal_thread(void *opaque)
{
    const sigset_t *set = opaque;
    int number;
    for (;;)
        if (!sigwait(set, &number))
            on_signal(number);
    return NULL;
}

bool signals_init(struct error *err)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    static sigset_t set; /* the thread's, which never ends */
    sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        struct sigaction action;
        sigaction(numbers[i], NULL, &action);
        if (action.sa_handler != SIG_IGN)
            sigaddset(&set, numbers[i]);
    }
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    /* A peer that goes away is an error of write, for whoever writes. */
    signal(SIGPIPE, SIG_IGN);
    /* So is a limit on file sizes (ulimit -f): the guest's disk has an error, the machine goes on.
     */
    signal(SIGXFSZ, SIG_IGN);

    pthread_t thread;
    int number = pthread_create(&thread, NULL, signal_thread, &set);
    if (number)
        return error_set_errno(err, number, "cannot create a thread for signals");
    pthread_detach(thread);
    return true;
}

void signals_attach(struct machine *machine)
{
    pthread_mutex_lock(&lock);
    current = machine;
    asked_at = 0;
    pthread_mutex_unlock(&lock);
}
