"""Debian's kernel under gdb, by the names of its own /proc/kallsyms."""

import re
import subprocess

from guest import GuestTest

VERSION = "cat /proc/version"


class Debian(GuestTest):
    """A debugger comes to a guest that runs, looks, and leaves it as it was."""

    harts = 2

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        socket = cls.class_folder / "gdb"
        cls.socket = socket
        cls.guest = cls.boot_for_class("--cpus", str(cls.harts), "--gdb", f"unix:{socket}")
        listing = cls.guest.run("grep -E ' (do_sys_openat2|linux_banner)$' /proc/kallsyms")[1]
        cls.names = {name: int(address, 16)
                     for address, _, name in map(str.split, listing.splitlines())}

    def gdb(self, *commands):
        argv = ["gdb-multiarch", "-nx", "-batch", "-ex", "set pagination off",
                "-ex", "set remotetimeout 20", "-ex", "set architecture riscv:rv64",
                "-ex", f"target remote {self.socket}"]
        for command in commands:
            argv += ["-ex", command]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60,
                              stdin=subprocess.DEVNULL)
        return done.stdout + done.stderr

    def test_system_call(self):
        """From the kernel's side of open to the program that called it, and back."""
        address = self.names["do_sys_openat2"]
        self.guest.send(f"sleep 1; {VERSION}\n")
        text = self.gdb(f"break *{address:#x}", "continue", "info threads", "p/x $pc", "p $priv",
                        "p $satp_fields", "stepi", "p/x $pc", f"monitor translate {address:#x}",
                        "monitor bt", "monitor info mappings", "x/s $a1", "detach")
        self.assertRegex(text, rf"Breakpoint 1, 0x0*{address:x}")
        self.assertRegex(text, r"Thread 1\.2 \"hart 1\"")
        self.assertIn(f"= {address:#x}\n", text)
        self.assertRegex(text, r"\[ PPN=\d+ ASID=\d+ MODE=(8|9|10)")
        self.assertRegex(text, r"level \d: entry at 0x[0-9a-f]+ is [0-9a-f]{16}: v")
        self.assertRegex(text, rf"{address:#x} is physical 0x[0-9a-f]+")
        self.assertRegex(text, rf"#0 +0x0*{address:x}"[:-4])
        self.assertRegex(text, r"\n[0-9a-f]{16}-[0-9a-f]{16} -> [0-9a-f]{14} r-xu-a-")
        self.guest.expect(r"^Linux version .*\n", 60)

    def test_the_guest_goes_on(self):
        before = self.guest.check("cat /proc/uptime")
        self.assertIn("hart 0", self.gdb("info threads", "detach"))
        self.assertIn("hart 1", self.gdb("info threads", "monitor info harts"))
        self.assertRegex(before, r"^\d+\.\d+ ")
        self.assertIn("Linux", self.guest.check(VERSION))

    def test_memory_of_the_kernel(self):
        """linux_banner, as the kernel's address and by the page tables' physical one."""
        address = self.names["linux_banner"]
        text = self.gdb(f"x/s {address:#x}", f"monitor translate {address:#x}")
        physical = re.search(r"is physical (0x[0-9a-f]+)", text)[1]
        version = self.guest.check(VERSION).strip()[:40]
        self.assertIn(version, text)
        text = self.gdb("monitor physical on", f"x/s {physical}", "monitor physical off")
        self.assertIn(version, text)
