#include "cli/qemu.h"

#include <stddef.h>
#include <string.h>

#include "base/bits.h"

static const struct {
    const char *name;
    const char *advice;
} habits[] = {
    {"accel", "leave it out, or choose an engine with --engine"},
    {"append", "use -a TEXT or --append TEXT"},
    {"audio", "leave it out: the machine has no sound"},
    {"bios", "use -f FILE or --firmware FILE; without it a built-in SBI boots --kernel"},
    {"blockdev", "use -d FILE[,ro][,snapshot][,bus=pci|mmio]"},
    {"boot", "leave it out: what boots is --kernel, --firmware or --flash"},
    {"cdrom", "use -d FILE,ro"},
    {"chardev", "use --serial or --console stdio|pty|unix:PATH|file:PATH|none"},
    {"cpu", "use --cpu EXTENSIONS"},
    {"daemonize", "run it in the background with --serial none or --serial unix:PATH"},
    {"device", "use --disk, --net, --share or --console: each brings its virtio device"},
    {"display", "leave it out: the console is --serial stdio"},
    {"drive", "use -d FILE[,ro][,snapshot][,bus=pci|mmio]"},
    {"dtb", "use --dtb FILE"},
    {"fsdev", "use --share DIR[,tag=TAG][,ro]"},
    {"hda", "use -d FILE"},
    {"hdb", "use -d FILE"},
    {"icount", "leave it out: guest time follows the host's"},
    {"initrd", "use -i FILE or --initrd FILE"},
    {"kernel", "use -k FILE or --kernel FILE"},
    {"M", "leave it out: the board is always compatible with `virt`"},
    {"machine", "leave it out: the board is always compatible with `virt`"},
    {"mon", "use --control unix:PATH, or Ctrl-A c at the terminal"},
    {"monitor", "use --control unix:PATH, or Ctrl-A c at the terminal"},
    {"name", "leave it out"},
    {"net", "use -n user or --net user"},
    {"netdev", "use -n user[,hostfwd=...] or -n tap[,ifname=NAME]"},
    {"nic", "use -n user[,hostfwd=...] or -n tap[,ifname=NAME]"},
    {"no-user-config", "leave it out"},
    {"no-reboot", "leave it out: a reset of the guest starts it again"},
    {"nodefaults", "leave it out: there is only what you ask for"},
    {"nographic", "leave it out: the serial port is on the terminal already"},
    {"numa", "leave it out: the machine has one node"},
    {"object", "leave it out: a random number generator is always there"},
    {"pflash", "use --flash FILE[,ro]"},
    {"qmp", "use --control unix:PATH, which speaks QMP"},
    {"semihosting", "use --semihosting"},
    {"semihosting-config", "use --semihosting"},
    {"serial", "use --serial stdio|pty|unix:PATH|file:PATH|none"},
    {"smp", "use -c N or --cpus N"},
    {"snapshot", "add it to the disk: -d FILE,snapshot"},
    {"trace", "use --trace trap,sbi,mmio,csr,guest-errors,exec[:FILE]"},
    {"vga", "leave it out: the console is --serial stdio"},
    {"virtfs", "use --share DIR[,tag=TAG][,ro]"},
};

const char *qemu_advice(const char *word)
{
    word += strspn(word, "-");
    for (size_t i = 0; i < ARRAY_SIZE(habits); i++)
        if (!strcmp(habits[i].name, word))
            return habits[i].advice;
    return NULL;
}
