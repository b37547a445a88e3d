"""Guests for the tests: the Debian kernel with a shell that a test gives commands to."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

from console import Console, SHELL, Shell
from initramfs import archive

HARTVISOR = os.environ["HARTVISOR"]
# The engine that guests boot on: --engine, or hartvisor's own choice.
ENGINE = ["--engine", os.environ["ENGINE"]] if "ENGINE" in os.environ else []
QEMU = os.environ["QEMU"]
FILES = pathlib.Path(os.environ["GUEST"])
KERNEL = FILES / "kernel"
INITRD = FILES / "initrd"
OPENSBI = FILES / "root" / "usr" / "lib" / "riscv64-linux-gnu" / "opensbi" / "generic"
U_BOOT = FILES / "root" / "usr" / "lib" / "u-boot"
LONG = "LONG" in os.environ

# Debian's kernel tests its ciphers when it starts, which is a third of a boot.
APPEND = "console=ttyS0 quiet loglevel=1 cryptomgr.notests"


def make_initrd(folder, files):
    path = pathlib.Path(folder) / "initrd"
    path.write_bytes(INITRD.read_bytes() + archive(files))
    return path


class Guest(Shell):
    """A booted guest."""

    def __init__(self, *options, memory="512M", append="", command=SHELL, files=None,
                 hartvisor=None, **rest):
        self.folder = tempfile.TemporaryDirectory(prefix="hartvisor-guest-")
        contents = {"command": command, "etc/environment": "COMMAND_TTY=input\n", **(files or {})}
        self.initrd = make_initrd(self.folder.name, contents)
        argv = [hartvisor or HARTVISOR, "run", "--memory", memory, "--kernel", KERNEL,
                "--initrd", self.initrd,
                "--append", f"{APPEND} {append}".strip(), *ENGINE, *options]
        super().__init__(argv, **rest)

    def leave(self, status=0, timeout=60):
        """Ends the guest in order; gives hartvisor's exit status."""
        self.send(f"exit {status}\n")
        return self.wait(timeout)

    def close(self):
        super().close()
        self.folder.cleanup()


class GuestTest(unittest.TestCase):
    """A test case with a folder of its own, and guests that end with it."""

    @classmethod
    def setUpClass(cls):
        cls.class_folder = pathlib.Path(
            cls.enterClassContext(tempfile.TemporaryDirectory(prefix="hartvisor-test-")))

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="hartvisor-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def boot(self, *options, **rest):
        guest = Guest(*options, **rest)
        self.addCleanup(guest.close)
        return guest.booted()

    @classmethod
    def boot_for_class(cls, *options, **rest):
        guest = Guest(*options, **rest)
        cls.addClassCleanup(guest.close)
        return guest.booted()

    def start(self, *arguments, **rest):
        """Starts the command with any arguments."""
        console = Console([HARTVISOR, *arguments], **rest)
        self.addCleanup(console.close)
        return console


def run_hartvisor(*arguments, timeout=60, **options):
    """A run that is expected to end by itself: its completed process."""
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run([HARTVISOR, *map(str, arguments)], capture_output=True, text=True,
                          timeout=timeout, **options)


def free_port():
    """A TCP port of the loopback interface that nothing listens on at the moment."""
    import socket
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fields(text):
    """`key : value` lines, as in /proc/cpuinfo, as a list of pairs."""
    return re.findall(r"^([^:\n]+?)\s*:\s*(.*)$", text, re.M)
