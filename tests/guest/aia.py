"""The board with --aia on: APLIC and IMSIC instead of the PLIC, and MSI-X for virtio devices."""

import hashlib
import http.server
import os
import pathlib
import random
import re
import subprocess
import threading
import unittest

from guest import GuestTest, KERNEL, OPENSBI, QEMU, run_hartvisor

DATA = random.Random(5).randbytes(3 << 20)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA)

    def log_message(self, *arguments):
        pass


class _Machine:
    """Debian's kernel, on one way to boot it."""

    harts = 1
    engine = "jit"
    firmware = ()

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.disk = cls.class_folder / "disk.img"
        cls.disk.write_bytes(random.Random(6).randbytes(8 << 20))
        cls.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()
        cls.addClassCleanup(cls.server.server_close)
        cls.addClassCleanup(cls.server.shutdown)
        cls.guest = cls.boot_for_class("--aia", "on", "--cpus", cls.harts, "--engine", cls.engine,
                                       "--disk", cls.disk, "--net", "user", *cls.firmware)

    def interrupts(self):
        """{device: (chip, number, [count of each hart])}"""
        found = {}
        for line in self.guest.check("cat /proc/interrupts").splitlines()[1:]:
            words = line.split()
            if words[0].rstrip(":").isdigit():
                counts = [int(word) for word in words[1:1 + self.harts]]
                found[words[-1]] = (words[1 + self.harts], words[0].rstrip(":"), counts)
        return found

    def test_interrupts_are_messages(self):
        self.assertEqual(self.guest.check("nproc"), str(self.harts))
        found = self.interrupts()
        self.assertRegex(found["ttyS0"][0], "^APLIC-MSI")
        for device in ("virtio0-req.0", "virtio1-input.0", "virtio1-config"):
            self.assertRegex(found[device][0], "^PCI-MSIX")
        self.assertNotIn("PLIC ", self.guest.check("cat /proc/interrupts").replace("APLIC", ""))
        self.assertIn("providing IPIs", self.guest.check("dmesg | grep riscv-imsic"))
        self.assertGreater(sum(found["ttyS0"][2]), 0)

    def test_disk(self):
        before = sum(self.interrupts()["virtio0-req.0"][2])
        self.guest.check("echo 3 > /proc/sys/vm/drop_caches")
        digest = hashlib.sha256(self.disk.read_bytes()).hexdigest()
        self.assertEqual(self.guest.check("sha256sum < /dev/vda").split()[0], digest)
        self.assertGreater(sum(self.interrupts()["virtio0-req.0"][2]), before)

    def test_network(self):
        port = self.server.server_address[1]
        got = self.guest.check(f"wget -q -O - http://10.0.2.2:{port}/ | sha256sum")
        self.assertEqual(got.split()[0], hashlib.sha256(DATA).hexdigest())
        self.assertGreater(sum(self.interrupts()["virtio1-input.0"][2]), 0)

    def test_no_complaints_of_the_kernel(self):
        log = self.guest.check("dmesg -r")
        bad = [line for line in log.splitlines()
               if line.startswith(("<0>", "<1>", "<2>", "<3>"))]
        self.assertEqual(bad, [])


class _Harts(_Machine):
    harts = 4

    # An edge of a device's own (the entropy source) and a level through the APLIC.
    MOVED = {"virtio2-input": "head -c 2000 /dev/hwrng > /dev/null",
             "ttyS0": "echo some text"}

    def test_interrupts_move_to_another_hart(self):
        for device, use in self.MOVED.items():
            for hart in (3, 1):
                number = self.interrupts()[device][1]
                self.guest.check(f"echo {1 << hart:x} > /proc/irq/{number}/smp_affinity")
                self.guest.check(use) # the first may still go to the hart before
                before = self.interrupts()[device][2]
                self.guest.check(f"for i in 1 2 3; do {use}; done")
                after = self.interrupts()[device][2]
                grown = [after[i] - before[i] for i in range(self.harts)]
                self.assertGreater(grown[hart], 0, (device, grown))
                self.assertEqual(sum(grown), grown[hart], (device, grown))

    def test_hart_goes_off_and_on(self):
        control = "/sys/devices/system/cpu/cpu3/online"
        self.guest.check(f"echo 0 > {control}")
        self.assertEqual(self.guest.check("nproc"), "3")
        self.guest.check(f"echo 1 > {control}")
        self.assertEqual(self.guest.check("nproc"), "4")
        self.assertEqual(self.guest.check("taskset 8 sh -c 'echo here'"), "here")

    def test_interrupts_between_harts(self):
        def count():
            lines = self.guest.check("grep IPI /proc/interrupts")
            return sum(int(word) for word in lines.split() if word.isdigit())
        before = count()
        self.guest.check("for i in $(seq 20); do taskset 1 true; taskset 8 true; done")
        self.assertGreater(count(), before)


class OneHart(_Machine, GuestTest):
    pass


class OneHartInterpreted(_Machine, GuestTest):
    engine = "interp"


class FourHarts(_Harts, GuestTest):
    pass


class FourHartsInterpreted(_Harts, GuestTest):
    engine = "interp"


class OneHartOnOpenSbi(_Machine, GuestTest):
    engine = "interp"
    firmware = ("--firmware", OPENSBI / "fw_dynamic.bin")


class FourHartsOnOpenSbi(_Harts, GuestTest):
    firmware = ("--firmware", OPENSBI / "fw_dynamic.bin")

    def test_firmware_uses_the_machine_level(self):
        banner = self.guest.output.text()
        self.assertRegex(banner, r"Platform IPI Device\s*: aia-imsic")


class Life(GuestTest):
    def test_reboot(self):
        for firmware in ((), ("--firmware", OPENSBI / "fw_dynamic.bin")):
            guest = self.boot("--aia", "on", "--cpus", 2, *firmware)
            guest.send("reboot -f\n")
            guest.booted()
            self.assertEqual(guest.check("nproc"), "2")
            self.assertEqual(guest.leave(3), 3)

    def test_auto_is_off(self):
        guest = self.boot("--aia", "auto")
        self.assertIn("PLIC", guest.check("cat /proc/interrupts"))
        self.assertNotIn("MSI", guest.check("cat /proc/interrupts"))
        self.assertEqual(guest.leave(), 0)

    def test_no_such_choice(self):
        done = run_hartvisor("run", "--kernel", KERNEL, "--aia", "yes")
        self.assertEqual(done.returncode, 125)
        for word in ("--aia", "yes", "on, off or auto"):
            self.assertIn(word, done.stderr)


@unittest.skipUnless(any((pathlib.Path(folder) / "fdtget").exists()
                         for folder in os.get_exec_path()), "fdtget is not installed")
class DeviceTree(GuestTest):
    def tree(self, *options):
        path = self.folder / "tree.dtb"
        done = run_hartvisor("run", "--kernel", KERNEL, "--dump-dtb", path, *options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return path

    def fdtget(self, path, *arguments):
        return subprocess.run(["fdtget", *arguments[:-2], path, *arguments[-2:]], check=True,
                              capture_output=True, text=True).stdout.strip()

    def nodes(self, path):
        names = subprocess.run(["fdtget", "-l", path, "/soc"], check=True, capture_output=True,
                               text=True).stdout.split()
        return sorted(name for name in names if re.match("aplic|imsics|plic|interrupt", name))

    def test_controllers(self):
        self.assertEqual(self.nodes(self.tree()), ["plic@c000000"])
        self.assertEqual(self.nodes(self.tree("--aia", "on")), ["aplic@d000000", "imsics@28000000"])
        self.assertEqual(self.nodes(self.tree("--aia", "on", "--firmware", OPENSBI / "fw_dynamic.bin")),
                         ["aplic@c000000", "aplic@d000000", "imsics@24000000", "imsics@28000000"])

    def test_nodes_are_those_of_qemu(self):
        ours = self.tree("--aia", "on", "--cpus", "3", "--firmware", OPENSBI / "fw_dynamic.bin")
        theirs = self.folder / "qemu.dtb"
        subprocess.run([QEMU, "-M", f"virt,aia=aplic-imsic,dumpdtb={theirs}", "-smp", "3"],
                       check=True, capture_output=True)
        names = {re.sub("^interrupt-controller", "imsics" if "@2" in name else "aplic", name): name
                 for name in self.nodes(theirs)}
        self.assertEqual(sorted(names), self.nodes(ours))
        for our, their in names.items():
            for name in ("reg", "#interrupt-cells", "riscv,num-ids", "riscv,num-sources"):
                if name == "riscv,num-ids" and our.startswith("aplic") or \
                        name == "riscv,num-sources" and our.startswith("imsics"):
                    continue
                self.assertEqual(self.fdtget(ours, f"/soc/{our}", name),
                                 self.fdtget(theirs, f"/soc/{their}", name), (our, name))
            listed = [set(subprocess.run(["fdtget", "-p", path, f"/soc/{node}"], check=True,
                                         capture_output=True, text=True).stdout.split())
                      for path, node in ((ours, our), (theirs, their))]
            # What some versions have and the bindings of Linux do not: cells that say nothing, names
            # of before there were bindings.
            extra = {"#address-cells", "#msi-cells", "riscv,delegation", "riscv,ipi-id"}
            self.assertEqual(listed[0] - extra, listed[1] - extra, our)
