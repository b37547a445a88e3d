"""The command line: what it refuses and how it says so, the terminal, signals, tracing."""

import os
import pathlib
import re
import signal
import subprocess
import termios
import time

from console import Console
from guest import APPEND, GuestTest, HARTVISOR, INITRD, KERNEL, OPENSBI, run_hartvisor

QUIET = ["--append", APPEND]
BOOT = ["run", "--kernel", KERNEL, "--initrd", INITRD, *QUIET]

# Command lines after `hartvisor`, and what stderr must name. {dir} is an empty folder.
REFUSED = [
    (["fly"], ["fly", "help"]),
    (["run"], ["--kernel", "--firmware"]),
    (["run", "--warp", "9"], ["--warp"]),
    (["run", "-Z"], ["-Z"]),
    (["run", "--kernel"], ["--kernel"]),
    (["run", "surplus"], ["surplus"]),
    (["run", "--kernel", "{dir}/absent"], ["{dir}/absent", "No such file"]),
    (["run", "--kernel", "{dir}"], ["{dir}"]),
    (["run", "--kernel", "/dev/null"], ["/dev/null"]),
    (["run", "--kernel", "{kernel}", "--initrd", "{dir}/absent"], ["{dir}/absent"]),
    (["run", "--kernel", "{kernel}", "--dtb", "{dir}/absent"], ["{dir}/absent"]),
    (["run", "--kernel", "{kernel}", "--dtb", "{initrd}"], ["{initrd}", "device tree"]),
    (["run", "--kernel", "{kernel}", "--memory", "lots"], ["--memory", "lots"]),
    (["run", "--kernel", "{kernel}", "--memory", "0"], ["--memory"]),
    (["run", "--kernel", "{kernel}", "--memory", "-1G"], ["--memory", "-1G"]),
    (["run", "--kernel", "{kernel}", "--memory", "99999999999999999999G"], ["--memory"]),
    (["run", "--kernel", "{kernel}", "--memory", "20M"], ["20", "--memory"]),
    (["run", "--kernel", "{kernel}", "--memory", "36M", "--initrd", "{initrd}"],
     ["{initrd}", "--memory"]),
    (["run", "--kernel", "{kernel}", "--cpus", "0"], ["--cpus", "0"]),
    (["run", "--kernel", "{kernel}", "--cpus", "65"], ["--cpus", "65", "64"]),
    (["run", "--kernel", "{kernel}", "--cpus", "four"], ["--cpus", "four"]),
    (["run", "--kernel", "{kernel}", "--cpu", "zwarp"], ["--cpu", "zwarp"]),
    (["run", "--kernel", "{kernel}", "--engine", "steam"], ["--engine", "steam"]),
    (["run", "--kernel", "{kernel}", "--disk", "{dir}/absent"], ["{dir}/absent"]),
    (["run", "--kernel", "{kernel}", "--disk", "{kernel},ro,wat"], ["--disk", "wat"]),
    (["run", "--kernel", "{kernel}", "--disk", "{kernel},ro,bus=isa"], ["isa"]),
    (["run", "--kernel", "{kernel}", "--net", "carrier-pigeon"], ["--net", "carrier-pigeon"]),
    (["run", "--kernel", "{kernel}", "--net", "user,hostfwd=tcp:nonsense"], ["nonsense"]),
    (["run", "--kernel", "{kernel}", "--net", "user,hostfwd=tcp:127.0.0.1:99999-:80"], ["99999"]),
    (["run", "--kernel", "{kernel}", "--net", "tap,ifname=a-name-too-long-for-linux"],
     ["a-name-too-long-for-linux"]),
    (["run", "--kernel", "{kernel}", "--share", "{dir}/absent"], ["{dir}/absent"]),
    (["run", "--kernel", "{kernel}", "--share", "{kernel}"], ["{kernel}"]),
    (["run", "--kernel", "{kernel}", "--serial", "telepathy"], ["--serial", "telepathy"]),
    (["run", "--kernel", "{kernel}", "--serial", "file:{dir}/absent/log"], ["{dir}/absent/log"]),
    (["run", "--kernel", "{kernel}", "--serial", "unix:{dir}/" + "x" * 200], ["x" * 200]),
    (["run", "--kernel", "{kernel}", "--flash", "{dir}/absent"], ["{dir}/absent"]),
    (["run", "--kernel", "{kernel}", "--trace", "everything"], ["--trace", "everything"]),
    (["run", "--kernel", "{kernel}", "--trace", "trap:{dir}/absent/log"], ["{dir}/absent/log"]),
    (["run", "--kernel", "{kernel}", "--control", "tcp:1"], ["--control", "tcp:1"]),
    (["run", "--kernel", "{kernel}", "--symbols", "{dir}/absent"], ["--symbols", "{dir}/absent"]),
    (["run", "--kernel", "{kernel}", "--symbols", "{kernel}"],
     ["--symbols", "{kernel}", "ELF", "System.map"]),
    (["run", "--kernel", "{kernel}", "--symbols", "/bin/true"], ["/bin/true", "RISC-V"]),
    (["run", "--kernel", "{kernel}", "--symbols", "a,0xgg"], ["--symbols", "0xgg"]),
    (["run", "--kernel", "{kernel}", "--symbols", "a,1,2"], ["--symbols", "offset"]),
    (["run", "--kernel", "{kernel}", "--symbols", ",1"], ["--symbols"]),
    (["run", "--kernel", "{kernel}", "--profile", "{dir}/absent/profile"],
     ["--profile", "{dir}/absent/profile"]),
    (["run", "--firmware", "{dir}/absent"], ["{dir}/absent"]),
]


class Refused(GuestTest):
    def test_command_lines(self):
        names = {"dir": self.folder, "kernel": KERNEL, "initrd": INITRD}
        for words, fragments in REFUSED:
            words = [str(word).format(**names) for word in words]
            with self.subTest(" ".join(words)):
                done = run_hartvisor(*words, timeout=20)
                self.assertEqual(done.returncode, 125, done.stderr)
                self.assertEqual(done.stdout, "")
                for fragment in fragments:
                    self.assertIn(fragment.format(**names), done.stderr)
                lines = done.stderr.strip().splitlines()
                self.assertEqual(len(lines), 1, done.stderr)
                self.assertTrue(lines[0].startswith("hartvisor"), lines[0])
                self.assertEqual(os.listdir(self.folder), [])

    def test_no_command(self):
        done = run_hartvisor()
        self.assertEqual((done.returncode, done.stdout), (125, ""))
        self.assertIn("hartvisor run", done.stderr)

    def test_unreadable_file(self):
        secret = self.folder / "secret"
        secret.write_bytes(KERNEL.read_bytes()[:100000])
        secret.chmod(0)
        if os.access(secret, os.R_OK):
            # As root every file is readable; an unprivileged user must be told.
            if os.geteuid() != 0:
                self.skipTest("permissions do not count here")
            self.folder.chmod(0o755)
            done = run_hartvisor("run", "--kernel", secret, user=65534, group=65534)
        else:
            done = run_hartvisor("run", "--kernel", secret)
        self.assertEqual(done.returncode, 125, done.stderr)
        self.assertIn(str(secret), done.stderr)
        self.assertIn("ermission", done.stderr)

    def test_truncated_kernel(self):
        for size in (10, 64, 1000, 100000):
            path = self.folder / f"cut-{size}.gz"
            import gzip
            path.write_bytes(gzip.compress(KERNEL.read_bytes()[:4 << 20])[:size])
            done = run_hartvisor("run", "--kernel", path, timeout=20)
            self.assertEqual(done.returncode, 125, done.stderr)
            self.assertIn(path.name, done.stderr)


class Information(GuestTest):
    def test_help_names_every_option(self):
        done = run_hartvisor("run", "--help")
        self.assertEqual(done.returncode, 0, done.stderr)
        for option in ("--kernel", "--initrd", "--append", "--firmware", "--dtb", "--dump-dtb",
                       "--memory", "--cpus", "--engine", "--cpu", "--flash", "--disk", "--net",
                       "--share", "--serial", "--trace", "--control", "--semihosting",
                       "--symbols", "--profile"):
            self.assertIn(option, done.stdout)

    def test_version(self):
        done = run_hartvisor("version")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"^hartvisor \d+\.\d+")
        for library in ("slirp", "liburing", "zstd"):
            self.assertIn(library, done.stdout.lower())

    def test_device_tree(self):
        dtb = self.folder / "board.dtb"
        done = run_hartvisor("run", "--cpus", "3", "--memory", "700M", "--dump-dtb", dtb,
                             "--kernel", KERNEL, "--cpu", "no-zba", "--append", "hello=world")
        self.assertEqual(done.returncode, 0, done.stderr)
        # The compiler complains on stderr about what breaks the rules of its bindings.
        tree = subprocess.run(["dtc", "-I", "dtb", "-O", "dts", dtb], capture_output=True,
                              text=True, check=True)
        complaints = [line for line in tree.stderr.splitlines()
                      if "unit_address" not in line and "interrupts_extended" not in line]
        self.assertEqual(complaints, [])
        source = tree.stdout
        self.assertEqual(len(re.findall(r"device_type = \"cpu\"", source)), 3)
        self.assertRegex(source, r"reg = <0x0+ 0x80000000 0x0+ 0x2bc00000>")
        self.assertIn("hello=world", source)
        self.assertIn("pci-host-ecam-generic", source)
        self.assertNotIn('"zba"', source)
        self.assertIn("zbb", source)

    def test_the_dumped_tree_boots(self):
        dtb = self.folder / "board.dtb"
        done = run_hartvisor("run", "--cpus", "2", "--memory", "512M", "--dump-dtb", dtb,
                             "--kernel", KERNEL)
        self.assertEqual(done.returncode, 0, done.stderr)
        guest = self.boot("--cpus", "2", "--dtb", dtb)
        self.assertEqual(guest.check("nproc"), "2")
        self.assertEqual(guest.leave(), 0)


class Cpu(GuestTest):
    def test_extensions_go_off(self):
        guest = self.boot("--cpu", "no-zba,no-zicond,no-sstc,no-svpbmt")
        info = guest.check("cat /proc/cpuinfo")
        for name in ("zba", "zicond", "sstc", "svpbmt"):
            self.assertNotIn(f"_{name}", info)
        self.assertIn("_zbb", info)
        self.assertEqual(guest.leave(), 0)


class Terminal(GuestTest):
    """With stdio a real terminal: raw while the guest runs, as it was afterwards."""

    def start_on_terminal(self, *more, **rest):
        console = Console([HARTVISOR, *BOOT, *more], terminal=True, **rest)
        self.addCleanup(console.close)
        before = getattr(self, "before", None)
        if before is None:
            console.expect(r"[~/#] ?# ", 240)
        return console

    def settings(self, console):
        values = termios.tcgetattr(console.terminal)
        # The line discipline's characters and speeds stay out of the comparison.
        return values[:4]

    def test_restored_on_every_way_out(self):
        def guest_ends(console):
            console.send("poweroff -f\n")

        def escape(console):
            console.send(b"\x01x")

        def terminated(console):
            console.process.send_signal(signal.SIGTERM)

        def hung_up(console):
            console.process.send_signal(signal.SIGHUP)

        def crashed(console):
            console.process.send_signal(signal.SIGSEGV)

        for way, expected in ((guest_ends, (0,)), (escape, (0,)), (terminated, (0, 143, -15)),
                              (hung_up, (0, 129, -1)), (crashed, (-11, 139, 125, -6))):
            with self.subTest(way.__name__):
                import pty
                master, slave = pty.openpty()
                before = termios.tcgetattr(slave)[:4]
                os.close(master)
                os.close(slave)
                console = self.start_on_terminal()
                self.assertNotEqual(self.settings(console), before)
                way(console)
                self.assertIn(console.wait(60), expected)
                self.assertEqual(self.settings(console), before)
                console.close()

    def test_interrupt_key_goes_to_the_guest(self):
        console = self.start_on_terminal()
        console.send("sleep 1000\n")
        time.sleep(1)
        console.send(b"\x03")
        console.send("echo still-$((40 + 2))\n")
        console.expect("still-42", 60)
        console.send(b"\x01h")
        console.expect(r"(?i)ctrl-a x", 20)
        console.send(b"exit 6\n")
        self.assertEqual(console.wait(60), 6)


class Signals(GuestTest):
    def test_orderly_end(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number=number):
                disk = self.folder / "disk.img"
                disk.write_bytes(bytes(4 << 20))
                guest = self.boot("--disk", disk)
                # On the disk's own queue but not flushed by the guest.
                guest.check("dd if=/bin/busybox of=/dev/vda bs=1M count=1 oflag=direct")
                expected = guest.check("head -c 1048576 /bin/busybox | sha256sum").split()[0]
                guest.process.send_signal(number)
                status = guest.wait(30)
                self.assertIn(status, (0, 128 + number))
                import hashlib
                written = hashlib.sha256(disk.read_bytes()[:1 << 20]).hexdigest()
                self.assertEqual(written, expected)

    def test_closed_output_is_no_crash(self):
        console = self.start(*BOOT)
        console.process.stdout.close()
        time.sleep(3)
        self.assertIn(console.process.poll(), (None, 0, 125))


class Serial(GuestTest):
    def test_to_a_file(self):
        log = self.folder / "log"
        console = self.start("run", "--kernel", KERNEL, "--initrd", INITRD, "--append",
                             "console=ttyS0", "--serial", f"file:{log}", stdin=subprocess.DEVNULL)
        self.wait_for(log, "Linux version")
        self.assertEqual(console.output.text(), "")

    def wait_for(self, path, text, timeout=120):
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if path.exists() and text in path.read_text(errors="replace"):
                return
            time.sleep(0.2)
        self.fail(f"{text!r} did not appear in {path}")

    def test_on_a_socket(self):
        import socket
        path = self.folder / "serial"
        self.start(*BOOT, "--serial", f"unix:{path}", stdin=subprocess.DEVNULL)
        until = time.monotonic() + 60
        stream = socket.socket(socket.AF_UNIX)
        self.addCleanup(stream.close)
        stream.settimeout(240)
        while True:
            try:
                stream.connect(str(path))
                break
            except OSError:
                self.assertLess(time.monotonic(), until)
                time.sleep(0.1)
        stream.sendall(b"\n")
        seen = b""
        while b"# " not in seen:
            piece = stream.recv(4096)
            self.assertTrue(piece, seen)
            seen += piece
        stream.sendall(b"echo over-$((1 + 1))-sockets\n")
        while b"over-2-sockets" not in seen:
            seen += stream.recv(4096)

    def test_on_a_pseudo_terminal(self):
        console = self.start(*BOOT, "--serial", "pty", stdin=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while not (found := re.search(r"/dev/pts/\d+",
                                      console.output.text() + console.errors.text())):
            self.assertLess(time.monotonic(), until, console.errors.text())
            time.sleep(0.1)
        descriptor = os.open(found[0], os.O_RDWR | os.O_NOCTTY)
        self.addCleanup(os.close, descriptor)
        seen = b""
        until = time.monotonic() + 240
        os.write(descriptor, b"\n")
        while b"# " not in seen:
            self.assertLess(time.monotonic(), until, seen)
            seen += os.read(descriptor, 4096)


class Trace(GuestTest):
    def trace(self, kinds, *options, size=50_000):
        log = self.folder / "trace"
        console = self.start("run", "--kernel", KERNEL, "--append", "console=ttyS0",
                             "--trace", f"{kinds}:{log}", *options)
        until = time.monotonic() + 60
        while not log.exists() or log.stat().st_size < size:
            self.assertLess(time.monotonic(), until, f"only a small {log}")
            time.sleep(0.2)
        console.close()
        return log.read_text(errors="replace")

    def test_firmware_calls(self):
        text = self.trace("sbi", size=1000)
        self.assertRegex(text, r"sbi: hart 0: get_spec_version \(0x10, 0\).* -> 0 0x[23]0")

    def test_traps(self):
        text = self.trace("trap")
        self.assertRegex(text, r"trap: hart 0 S->S .*page fault")
        self.assertRegex(text, r"trap: hart 0 S->S supervisor timer interrupt")

    def test_device_accesses(self):
        self.assertRegex(self.trace("mmio"), r"mmio: write plic\+0x\w+ size 4 value 0x")

    def test_control_registers(self):
        self.assertRegex(self.trace("csr", size=1000), r"satp")

    def test_instructions(self):
        self.assertRegex(self.trace("exec"), r"exec: .*\b(auipc|addi|sd|ld)\b")

    def test_several_at_once(self):
        text = self.trace("sbi,csr,trap")
        for kind in ("sbi: ", "csr: ", "trap: "):
            self.assertIn(kind, text)
