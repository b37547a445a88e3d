"""What the benchmark compares: this machine itself, hartvisor, and other RISC-V machines.

Each peer takes the names of programs and a number of harts and gives an Outcome.
"""

import pathlib
import re
import shlex
import struct
import subprocess
import time

from console import Console
from guest import APPEND, HARTVISOR, KERNEL, OPENSBI

MEMORY = "1G"
BOOT_TIME = 300
# The longest that one program may take; on an interpreter each takes a minute or two.
PROGRAM_TIME = 600

RESULT = re.compile(r"^(\w+) (\d+\.\d+) ([0-9a-f]{16})$")


class Failure(Exception):
    """A peer that does not do its part; the message says which and how."""


class Outcome:
    def __init__(self):
        self.seconds = {}    # by program, as the program measured them
        self.checksums = {}
        self.boot = None     # seconds from the start of the command to the first line of init
        self.resident = None  # MiB, the most that the process had at once

    def add(self, line):
        match = RESULT.match(line)
        if not match:
            raise Failure(line)
        self.seconds[match[1]] = float(match[2])
        self.checksums[match[1]] = match[3]


class Native:
    """The same programs on this machine, without a guest."""

    name = "native"

    def __init__(self, programs):
        self.program = programs.native

    def run(self, names, harts, quick=False):
        outcome = Outcome()
        if names:
            options = ["--quick"] if quick else []
            done = subprocess.run([self.program, *options, ",".join(names)],
                                  stdout=subprocess.PIPE, text=True)
            for line in done.stdout.splitlines():
                outcome.add(line)
        return outcome


class Machine:
    """A command that boots a guest. Its words may contain {kernel}, {initrd}, {append}, {harts}
    and {memory}, and what `extra` gives."""

    def __init__(self, name, words, programs):
        self.name = name
        self.words = words
        self.initrd = programs.initrd
        try:
            self.command(append="", harts=1)
        except (KeyError, IndexError, ValueError) as wrong:
            raise Failure(f"{name}: in its command the braces of {wrong} mean nothing; known are "
                          "{kernel} {initrd} {append} {harts} {memory}") from None

    def extra(self, append, harts):
        return {}

    def command(self, append, harts):
        fields = {"kernel": KERNEL, "initrd": self.initrd, "append": append, "harts": harts,
                  "memory": MEMORY}
        fields.update(self.extra(append, harts))
        return [str(word).format(**fields) for word in self.words]

    def run(self, names, harts, quick=False):
        words = [APPEND, "--", *(["--quick"] if quick else []), ",".join(names)]
        argv = self.command(" ".join(words).strip(), harts)
        outcome = Outcome()
        began = time.monotonic()
        try:
            console = Console(argv)
        except OSError as wrong:
            raise Failure(f"does not start: {wrong}") from None
        try:
            console.expect(r"^bench: up\r*$", BOOT_TIME)
            outcome.boot = time.monotonic() - began
            for _ in names:
                outcome.add(console.expect(r"^(\w[^\r\n]+)\r*\n", PROGRAM_TIME)[1].decode())
            console.expect(r"^bench: done\r*$")
            outcome.resident = peak_resident(console.process.pid)
        except AssertionError as wrong:
            raise Failure(str(wrong)) from None
        finally:
            console.close()
        return outcome


def peak_resident(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.M)[1]) / 1024


def first_match(argv, pattern, what):
    """What a program says about itself, by which it gets its name in the table."""
    try:
        done = subprocess.run([str(word) for word in argv], capture_output=True, text=True,
                              errors="replace", timeout=60, stdin=subprocess.DEVNULL)
    except OSError as wrong:
        raise Failure(f"{what} {argv[0]} does not start: {wrong.strerror}") from None
    match = re.search(pattern, done.stdout + done.stderr)
    if not match:
        raise Failure(f"{what} {argv[0]} does not say its version; is it the right program?")
    return match[1]


def hartvisor(programs):
    return Machine("hartvisor", [
        HARTVISOR, "run", "--memory", "{memory}", "--cpus", "{harts}", "--kernel", "{kernel}",
        "--initrd", "{initrd}", "--append", "{append}"], programs)


def qemu(path, programs):
    version = first_match([path, "--version"], r"version (\d+\.\d+\.\d+)", "--qemu")
    return Machine(f"QEMU {version}", [
        path, "-M", "virt", "-accel", "tcg", "-m", "{memory}", "-smp", "{harts}", "-nodefaults",
        "-display", "none", "-serial", "stdio", "-kernel", "{kernel}", "-initrd", "{initrd}",
        "-append", "{append}"], programs)


def custom(text, programs):
    """NAME=COMMAND, as --peer has it."""
    name, equals, command = text.partition("=")
    if not (name and equals and command):
        raise Failure(f"--peer {text}: this is not NAME=COMMAND")
    return Machine(name, shlex.split(command), programs)


class Rvvm(Machine):
    """RVVM has no option for an initramfs: the kernel's file gets it at its end, and the device
    tree, RVVM's own but for that, says where that is in memory."""

    KERNEL_AT = 0x80200000
    # Where OpenSBI's fw_jump puts the device tree (FW_JUMP_FDT_OFFSET), and room for it.
    TREE_AT, TREE_ROOM = 0x82200000, 0x100000
    HUGE_PAGE = 0x200000

    def __init__(self, path, firmware, folder, programs):
        self.path, self.folder = path, pathlib.Path(folder)
        self.firmware = firmware or OPENSBI / "fw_jump.bin"
        if not pathlib.Path(self.firmware).exists():
            raise Failure(f"--rvvm-firmware {self.firmware}: there is no such file; RVVM starts "
                          "OpenSBI's fw_jump.bin, which ./dev setup fetches")
        version = first_match([path, "-h"], r"\(v(\d+\.\d+)", "--rvvm")
        self.trees = {}
        self.kernel, self.initrd_at = self.join(programs.initrd)
        super().__init__(f"RVVM {version}", [
            path, self.firmware, "-m", "{memory}", "-smp", "{harts}", "-nogui", "-nonet",
            "-k", "{joined}", "-dtb", "{tree}"], programs)

    def join(self, initrd):
        kernel = KERNEL.read_bytes()
        # The Image header's image_size: what the kernel clears lies behind the file's end.
        size = struct.unpack_from("<Q", kernel, 16)[0]
        if self.KERNEL_AT + size > self.TREE_AT:
            raise Failure(f"RVVM: the kernel {KERNEL} takes {size} bytes, which reach the device "
                          f"tree that OpenSBI puts at {self.TREE_AT:#x}")
        at = self.TREE_AT + self.TREE_ROOM
        at += -at % self.HUGE_PAGE
        path = self.folder / "kernel-and-initrd"
        path.write_bytes(kernel + bytes(at - self.KERNEL_AT - len(kernel)) + initrd.read_bytes())
        return path, at

    def own_tree(self, harts):
        """The device tree that RVVM makes, as it writes it before it starts."""
        if harts not in self.trees:
            tree = self.folder / f"rvvm-{harts}.dtb"
            console = Console([self.path, self.firmware, "-m", MEMORY, "-smp", harts, "-nogui",
                               "-nonet", f"-dumpdtb={tree}"])
            try:
                console.expect("OpenSBI", 60)
            except AssertionError as wrong:
                raise Failure(f"RVVM: {wrong}") from None
            finally:
                console.close()
            self.trees[harts] = tree
        return self.trees[harts]

    def extra(self, append, harts):
        tree = self.own_tree(harts)
        end = self.initrd_at + self.initrd.stat().st_size
        chosen = {"bootargs": ("s", append), "linux,initrd-start": ("x", f"{self.initrd_at:x}"),
                  "linux,initrd-end": ("x", f"{end:x}")}
        for name, (kind, value) in chosen.items():
            subprocess.run(["fdtput", "-t", kind, tree, "/chosen", name, value], check=True)
        return {"joined": self.kernel, "tree": tree}
