"""The passthrough lab: a Linux host in an emulator, with an IOMMU and PCIe devices to give away.

Tests boot it as a Lab; `./dev lab` is a shell in it. docs/passthrough-lab.md describes it.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

from console import SHELL, Shell
from initramfs import archive
from qmp import Qmp

BUILD = pathlib.Path(os.environ.get("BUILD", pathlib.Path(__file__).parents[2] / "build"))
FILES = pathlib.Path(os.environ.get("LAB", BUILD / "lab"))
KERNEL = FILES / "kernel"
INITRD = FILES / "initrd"
HARTVISOR = pathlib.Path(os.environ.get("HARTVISOR", BUILD / "hartvisor"))
PROBE = pathlib.Path(__file__).parents[1] / "passthrough" / "vfio_probe.c"
LAB_QEMU = "qemu-system-x86_64"

# The self-tests of ciphers take an emulated CPU long. no_timer_check: where the machine is busy,
# the timer may not tick in the moment that the kernel waits for it, which would be a panic.
APPEND = "console=ttyS0 quiet loglevel=1 cryptomgr.notests no_timer_check panic=-1"
# An IOMMU of Intel and, elsewhere than under emulation, a processor to match.
MACHINE = ["-accel", "tcg", "-machine", "q35", "-cpu", "max,vendor=GenuineIntel",
           "-nodefaults", "-display", "none", "-no-reboot"]
# With hot-plug by ACPI, which QEMU's q35 prefers, the kernel does not see slots that it can reset:
# VFIO's hot reset needs PCIe's own.
NATIVE_HOTPLUG = ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]

DISK_SIZE = 64 << 20
FIRST_PORT = 8  # the slot of the first root port; those below it are for the root bus's own devices
BUS_0 = {"edu": 4, "pair": 5}


# What a device is made of, as QEMU's JSON has it: what it stands on, and its functions.

def edu_device(lab, name):
    return [], [{"driver": "edu"}]


def pair_device(lab, name):
    """Two functions of one slot, which no IOMMU can tell apart without ACS: one group."""
    return [], rng_device(lab, name)[1] + rng_device(lab, name)[1]


def nvme_device(lab, name):
    disk = {"driver": "raw", "node-name": f"{name}-disk",
            "file": {"driver": "file", "filename": str(lab.disk(name))}}
    return [("blockdev", disk)], [{"driver": "nvme", "drive": f"{name}-disk", "serial": name}]


def e1000e_device(lab, name):
    network = {"type": "user", "id": f"{name}-net", **lab.network}
    return [("netdev", network)], [{"driver": "e1000e", "netdev": f"{name}-net", "romfile": ""}]


def rng_device(lab, name):
    # iommu_platform: without it, QEMU's virtio devices pass the IOMMU by.
    return [], [{"driver": "virtio-rng-pci", "iommu_platform": True, "disable-legacy": "on"}]


HAND_DEVICES = ["edu", "nvme", "e1000e", "rng"]
DEVICES = {"edu": edu_device, "pair": pair_device, "nvme": nvme_device, "e1000e": e1000e_device,
           "rng": rng_device}
ADD = {"blockdev": "blockdev-add", "netdev": "netdev_add"}


def kind(name):
    """What a device with this name is: nvme2 is a nvme."""
    return name if name in DEVICES else re.sub(r"\d+$", "", name)


def describe(lab, name, bus, slot=0):
    """(what stands below, the functions) of the device with this name."""
    below, functions = DEVICES[kind(name)](lab, name)
    for number, function in enumerate(functions):
        function.update(bus=bus, addr=f"{slot:#x}.{number}",
                        id=name if number == 0 else f"{name}.{number}")
        if len(functions) > 1:
            function["multifunction"] = True
    return below, functions


# Programs with what they need.

def libraries(program):
    """The libraries of a program; none for a static one."""
    listing = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return re.findall(r"(/\S+) \(0x", listing)


def with_libraries(program):
    files = {f"bin/{pathlib.Path(program).name}": pathlib.Path(program).read_bytes()}
    for library in libraries(program):
        # /lib is a link to /usr/lib there; a folder in the archive would take its place.
        path = library.removeprefix("/")
        path = f"usr/{path}" if path.startswith("lib/") else path
        files[path] = pathlib.Path(library).read_bytes()
    return files


def compile_program(folder, source, *options):
    """The path of a static program: the lab's shell runs it as COMMAND = the source's name."""
    program = pathlib.Path(folder) / source.stem
    subprocess.run([os.environ.get("CC", "gcc"), "-std=gnu17", "-O1", "-Wall", "-Wextra", "-Werror",
                    "-static", *options, source, "-o", program], check=True)
    return program


def missing():
    """Why the lab cannot run on this machine, or None."""
    if os.uname().machine != "x86_64":
        return "the lab's host is an x86-64 Linux and would run programs of this machine"
    if not shutil.which(LAB_QEMU):
        return f"{LAB_QEMU} is not installed (Debian: qemu-system-x86)"
    if not INITRD.exists():
        return f"{INITRD} is missing: ./dev setup makes it"
    return None


class Machine:
    """The lab's hardware. `at` has the address of each device's first function, by name."""

    def __init__(self, *devices, iommu=True, ports=0, disks=None, network=None, programs=(),
                 files=None, share=None, memory="1G", cpus=1, append="", options=()):
        """
        devices  names in DEVICES, a number behind for a second one: edu nvme nvme2
        ports    empty root ports besides, port0 and on, for plug()
        disks    {name: file} behind NVMe devices; the others get an empty one
        network  more of QEMU's options for the user network of e1000e devices
        programs files that become commands in the lab, with their libraries
        files    {path in the lab: contents}
        share    a folder of this machine that is /mnt/host in the lab, for reading and writing
        append   more for the kernel's command line; options: more of QEMU's
        """
        self.folder = tempfile.TemporaryDirectory(prefix="hartvisor-lab-")
        self.disks = dict(disks or {})
        self.network = {"restrict": True, **(network or {})}
        self.at = {}
        self.socket = pathlib.Path(self.folder.name) / "qmp"
        contents = dict(files or {})
        for program in programs:
            contents.update(with_libraries(program))
        self.argv = [LAB_QEMU, *MACHINE, *NATIVE_HOTPLUG, "-m", memory, "-smp", str(cpus),
                     "-kernel", KERNEL, "-initrd", self.make_initrd(contents),
                     "-append", self.kernel_arguments(iommu, append),
                     "-qmp", f"unix:{self.socket},server=on,wait=off"]
        if iommu:
            # 39 bits, as many a client's processor has; QEMU's default depends on its release.
            self.argv += ["-device", "intel-iommu,intremap=on,aw-bits=39"]
        if share:
            self.argv += ["-virtfs", f"local,path={share},mount_tag=host,security_model=none,"
                                     "multidevs=remap"]
        self.argv += [*self.device_arguments(devices, ports), *options]

    def make_initrd(self, contents):
        path = pathlib.Path(self.folder.name) / "initrd"
        path.write_bytes(INITRD.read_bytes() + archive(contents))
        return path

    @staticmethod
    def kernel_arguments(iommu, append):
        # The host's own drivers need no translation, which an emulator is slow at.
        switch = "intel_iommu=on iommu=pt " if iommu else ""
        return f"{APPEND} {switch}{append}".strip()

    def device_arguments(self, devices, ports):
        arguments = []
        behind_ports = [name for name in devices if name not in BUS_0]
        for name in devices:
            if name in BUS_0:
                self.at[name] = f"0000:00:{BUS_0[name]:02x}.0"
                arguments += self.add_arguments(*describe(self, name, "pcie.0", BUS_0[name]))
        empty = [None] * ports
        for number, name in enumerate([*behind_ports, *empty]):
            port = f"{name}-port" if name else f"port{number - len(behind_ports)}"
            arguments += ["-device", json.dumps(
                {"driver": "pcie-root-port", "id": port, "chassis": number + 1, "slot": number + 1,
                 "bus": "pcie.0", "addr": f"{FIRST_PORT + number:#x}"})]
            # The firmware numbers buses in the order of the slots.
            self.at[name or port] = f"0000:{number + 1:02x}:00.0"
            if name:
                arguments += self.add_arguments(*describe(self, name, port))
        return arguments

    @staticmethod
    def add_arguments(below, functions):
        rows = [*below, *(("device", function) for function in functions)]
        return [word for option, row in rows for word in (f"-{option}", json.dumps(row))]

    def disk(self, name):
        if name not in self.disks:
            self.disks[name] = pathlib.Path(self.folder.name) / f"{name}.img"
            with open(self.disks[name], "wb") as file:
                file.truncate(DISK_SIZE)
        return self.disks[name]


class Lab(Machine, Shell):
    """A booted host. `run` and `check` execute shell commands in it."""

    def __init__(self, *devices, files=None, **options):
        self.qmp_client = None
        # No colours and no columns: what a program prints is read by a test.
        command = f"export TERM=dumb\n{SHELL}"
        Machine.__init__(self, *devices, files={"command": command, **(files or {})}, **options)
        Shell.__init__(self, [*self.argv, "-serial", "stdio"])

    # The machine's outside: what a hand at the slots does.

    @property
    def control(self):
        if not self.qmp_client:
            self.qmp_client = Qmp(self.socket).negotiate()
        return self.qmp_client

    def qmp(self, command, **arguments):
        answer = self.control.execute(command, **arguments)
        if "return" not in answer:
            self.fail(f"QEMU refused {command} {arguments}: {answer}")
        return answer["return"]

    def plug(self, name, port):
        """Puts a device into an empty root port; gives its address when the kernel has it."""
        below, functions = describe(self, name, port)
        for option, row in below:
            self.qmp(ADD[option], **row)
        # Function 0 comes last: with it, the kernel looks at the slot.
        for function in reversed(functions):
            self.qmp("device_add", **function)
        self.at[name] = self.at[port]
        self.wait_for(f"test -e /sys/bus/pci/devices/{self.at[name]}/class")
        return self.at[name]

    def unplug(self, name, timeout=30):
        """Asks for the device's removal and waits until it is gone."""
        self.ask_removal(name)
        self.control.socket.settimeout(timeout)
        while self.control.event("DEVICE_DELETED")["data"].get("device") != name:
            pass

    def ask_removal(self, name, timeout=20):
        """Presses the slot's button; the rest is between the kernel and its driver."""
        until = time.monotonic() + timeout
        while True:
            answer = self.control.execute("device_del", id=name)
            # A slot takes a press only when the kernel is through with the one before.
            if "busy" not in str(answer) or time.monotonic() > until:
                break
            time.sleep(0.1)
        if "return" not in answer:
            self.fail(f"QEMU refused to remove {name}: {answer}")

    # The host's inside.

    def wait_for(self, condition, timeout=30):
        """Waits until a shell command succeeds."""
        tries = timeout * 10
        self.check(f"for i in $(seq {tries}); do {condition} && exit 0; sleep 0.1; done; "
                   f"echo waited {timeout} s in vain; exit 1", timeout + 60)

    def bind(self, address, driver="vfio-pci"):
        """Gives a device to a driver, by the kernel's interface alone; none: back to the host's."""
        device = f"/sys/bus/pci/devices/{address}"
        self.check(f"if [ -e {device}/driver ]; then echo {address} > {device}/driver/unbind; fi\n"
                   f"echo {driver or ''} > {device}/driver_override\n"
                   f"echo {address} > /sys/bus/pci/drivers_probe")
        return self.driver(address)

    def driver(self, address):
        """The name of a device's driver, empty if it has none."""
        return self.link_name(f"/sys/bus/pci/devices/{address}/driver")

    def group(self, address):
        """The number of a device's IOMMU group, as text; empty without an IOMMU."""
        return self.link_name(f"/sys/bus/pci/devices/{address}/iommu_group")

    def link_name(self, path):
        return self.run(f"basename $(readlink {path}) 2> /dev/null")[1]

    def hold(self, address):
        """Starts a program that has the device open until the host wants it; its process number.
        vfio_probe must be there; /tmp/holder is what it prints."""
        return self.check(f"vfio_probe request {address} > /tmp/holder 2>&1 &\n"
                          "owner=$!\n"
                          "until grep -q holds /tmp/holder; do kill -0 $owner || exit 1\n"
                          "sleep 0.1; done; echo $owner")

    def kernel_log(self):
        return self.check("dmesg")

    def leave(self, timeout=60):
        """Powers the host off; gives QEMU's exit status."""
        self.send("exit\n")
        return self.wait(timeout)

    def close(self):
        if self.qmp_client:
            self.qmp_client.close()
            self.qmp_client = None
        super().close()
        self.folder.cleanup()


class LabTest(unittest.TestCase):
    """A test case with a lab of its own, booted by boot_for_class()."""

    @classmethod
    def setUpClass(cls):
        why = missing()
        if why:
            raise unittest.SkipTest(why)
        cls.class_folder = pathlib.Path(
            cls.enterClassContext(tempfile.TemporaryDirectory(prefix="hartvisor-test-")))

    @classmethod
    def boot_for_class(cls, *devices, **rest):
        lab = Lab(*devices, **rest)
        cls.addClassCleanup(lab.close)
        return lab.booted()

    def boot(self, *devices, **rest):
        lab = Lab(*devices, **rest)
        self.addCleanup(lab.close)
        return lab.booted()


# By hand.

def main():
    parser = argparse.ArgumentParser(
        prog="./dev lab", description="A shell in the passthrough lab, with these devices: "
        f"{', '.join(DEVICES)}; a number behind makes a second one (nvme2). exit powers it off, "
        "Ctrl-A x ends it at once, Ctrl-A c is QEMU's monitor.")
    parser.add_argument("devices", nargs="*", metavar="DEVICE",
                        help=f"default: {' '.join(HAND_DEVICES)}")
    parser.add_argument("--no-iommu", action="store_true", help="a machine without an IOMMU")
    parser.add_argument("--ports", type=int, default=0, help="empty slots, for device_add")
    parser.add_argument("--program", action="append", default=[], metavar="FILE",
                        help="a program of this machine to take along, besides hartvisor")
    parser.add_argument("--share", metavar="DIR", help="the folder that is /mnt/host there")
    parser.add_argument("--memory", default="1G", metavar="SIZE")
    parser.add_argument("--append", default="", help="more for the kernel's command line")
    given = parser.parse_args()
    for name in given.devices:
        if kind(name) not in DEVICES:
            parser.error(f"there is no device {name}: {', '.join(DEVICES)}")
    why = missing()
    if why:
        parser.exit(1, f"dev: {why}\n")
    machine = Machine(*(given.devices or HAND_DEVICES), iommu=not given.no_iommu,
                      ports=given.ports, programs=[HARTVISOR, *given.program], share=given.share,
                      memory=given.memory, append=given.append)
    for name, address in machine.at.items():
        print(f"{address} {name}")
    with machine.folder:
        return subprocess.call([*machine.argv, "-serial", "mon:stdio"])


if __name__ == "__main__":
    sys.exit(main())
