"""Devices of a real kernel's VFIO in guests of hartvisor's: bare-metal programs that drive them."""

import hashlib
import http.server
import lzma
import pathlib
import random
import tempfile
import threading
import unittest

import guest
import lab
import program
from lab import LabTest

HERE = pathlib.Path(__file__).parent
FAILED = 125
EXAMPLE = lab.HARTVISOR.parent / "docs" / "examples" / "passthrough"


def edu_device(machine, name):
    """edu reaches all of a guest's low 4 GiB, rather than the first 256 MiB."""
    return [], [{"driver": "edu", "dma_mask": 0xFFFFFFFF}]


lab.DEVICES["wide"] = edu_device
lab.BUS_0["wide"] = 6


class _GuestTest(LabTest):
    """A lab with guests in it: {name in the lab: (source, *options for the compiler)}."""

    devices = ()
    guests = {}
    options = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if not lab.HARTVISOR.exists():
            raise unittest.SkipTest(f"{lab.HARTVISOR} is missing: ./dev build makes it")
        files = {}
        for name, (source, *options) in cls.guests.items():
            built = program.compile_kernel(cls.class_folder, (HERE / source).read_text(),
                                           f"-I{HERE}", *options, name=name)
            files[name] = built.read_bytes()
        cls.lab = cls.boot_for_class(*cls.devices, programs=[lab.HARTVISOR, EXAMPLE],
                                     files=files, **cls.options)
        for name in cls.devices:
            cls.lab.bind(cls.lab.at[name])

    def run_guest(self, name, device, options="", status=0):
        """What a guest prints that has the device."""
        command = f"hartvisor run -m 32M -k /{name} --passthrough {self.lab.at[device]}{options}"
        ended, output = self.lab.run(f"timeout 60 {command} < /dev/null", 90)
        self.assertEqual(ended, status, output)
        return output

    def begin(self, name, device):
        """Starts a guest in the background and waits until it is busy."""
        self.lab.check(f"hartvisor run -m 32M -k /{name} --passthrough {self.lab.at[device]} "
                       "< /dev/null > /tmp/output 2>&1 &\necho $! > /tmp/pid")
        self.lab.wait_for("grep -q transferring /tmp/output")

    def ended(self):
        """The output of that guest after its end, by itself."""
        self.lab.wait_for("! test -e /proc/$(cat /tmp/pid)")
        return self.lab.check("cat /tmp/output")


class Edu(_GuestTest):
    devices = ("wide",)
    guests = {"edu": ("edu_guest.c",), "wires": ("edu_guest.c", "-DWITH_PLIC"),
              "kernel": ("edu_guest.c", "-DTHROUGH_KERNEL"),
              "busy": ("edu_guest.c", "-DFOR_EVER"), "reset": ("edu_guest.c", "-DRESET")}

    def test_everything(self):
        self.lab.check("dmesg -c > /dev/null")
        text = self.run_guest("edu", "wide")
        for expected in ("interrupts by wire: 4", "messages: 3", "bytes there and back: 800",
                         "code by DMA: runs", "edu: all right"):
            self.assertIn(expected, text)
        # The kernel tells of what the IOMMU kept off.
        address = self.lab.at["wide"].removeprefix("0000:")
        for direction in ("Write", "Read"):
            self.assertRegex(self.lab.kernel_log(),
                             rf"DMA {direction} NO_PASID\] Request device \[{address}\] "
                             "fault addr 0x20001000 ")

    def test_interpreter(self):
        self.assertIn("edu: all right", self.run_guest("edu", "wide", " --engine interp"))

    def test_wires_by_plic(self):
        self.assertIn("edu: all right", self.run_guest("wires", "wide", " --aia off"))

    def test_through_the_kernel(self):
        self.assertIn("edu: all right", self.run_guest("kernel", "wide", ",no-mmap=all"))

    def test_reset(self):
        text = self.run_guest("reset", "wide")
        self.assertEqual(text.count("edu in slot"), 2, text)
        self.assertIn("edu: all right", text)

    def test_failure_after_the_device_was_opened(self):
        status, text = self.lab.run(
            f"hartvisor run -m 32M -k /absent --passthrough {self.lab.at['wide']}")
        self.assertEqual(status, FAILED)
        self.assertIn("/absent", text)

    def test_example(self):
        status, text = self.lab.run(f"timeout 60 passthrough /edu {self.lab.at['wide']}", 90)
        self.assertEqual(status, 0, text)
        self.assertIn("edu: all right", text)
        status, text = self.lab.run(f"passthrough /edu {self.lab.at['wide']} 00:1f.0")
        self.assertEqual(status, 1)
        self.assertIn("passthrough: 0000:00:1f.0 has no driver", text)

    def test_killed_while_transferring(self):
        self.begin("busy", "wide")
        self.lab.check("kill -9 $(cat /tmp/pid)")
        self.ended()
        self.assertIn("edu: all right", self.run_guest("edu", "wide"))

    def test_host_wants_it_back(self):
        address = self.lab.at["wide"]
        self.begin("busy", "wide")
        self.addCleanup(self.lab.bind, address)
        self.lab.check(f"timeout 30 sh -c 'echo {address} > /sys/bus/pci/devices/{address}/driver/unbind'",
                       60)
        self.assertIn(f"{address}: the host wants it back; the machine ends", self.ended())
        self.assertEqual(self.lab.driver(address), "")

    def test_owned_by_another(self):
        self.begin("busy", "wide")
        self.addCleanup(self.lab.run, "kill -9 $(cat /tmp/pid)")
        text = self.run_guest("edu", "wide", status=FAILED)
        self.assertIn(f"another process has /dev/vfio/{self.lab.group(self.lab.at['wide'])} open",
                      text)

    def test_given_twice(self):
        text = self.run_guest("edu", "wide", f" --passthrough {self.lab.at['wide']}", status=FAILED)
        self.assertIn("is given twice", text)

    def test_absent(self):
        status, text = self.lab.run("hartvisor run -k /edu --passthrough 77:00.0")
        self.assertEqual(status, FAILED)
        self.assertIn("--passthrough: there is no PCI device 0000:77:00.0", text)

    def test_without_its_driver(self):
        address = self.lab.at["wide"]
        self.addCleanup(self.lab.bind, address)
        self.lab.bind(address, None)
        text = self.run_guest("edu", "wide", status=FAILED)
        self.assertIn(f"'hartvisor devices bind {address}' hands it over", text)

    def test_for_a_user(self):
        group = self.lab.group(self.lab.at["wide"])
        self.lab.check(f"chown 0 /dev/vfio/{group}")
        command = f"hartvisor run -m 32M -k /edu --passthrough {self.lab.at['wide']}"
        status, text = self.lab.run(f"su user -c '{command}' < /dev/null")
        self.assertEqual(status, FAILED)
        self.assertIn(f"no permission to open /dev/vfio/{group}", text)
        # With the permission, the limit of locked memory is next.
        self.lab.check(f"chown user /dev/vfio/{group}")
        self.addCleanup(self.lab.run, f"chown 0 /dev/vfio/{group}")
        status, text = self.lab.run(f"su user -c 'ulimit -l 1024; {command}' < /dev/null")
        self.assertEqual(status, FAILED)
        self.assertIn("(RLIMIT_MEMLOCK, 'ulimit -l') is 1024 KiB, and at least 33792 are needed", text)


if guest.LONG:
    class DividedMemory(_GuestTest):
        """RAM that goes around 0xfee00000, all of which the host must have."""

        devices = ("wide",)
        guests = {"high": ("edu_guest.c", "-DHIGH")}
        options = {"memory": "4G"}

        def test_transfers(self):
            status, text = self.lab.run(
                "timeout 200 hartvisor run -m 2304M -k /high --passthrough "
                f"{self.lab.at['wide']} < /dev/null", 240)
            self.assertEqual(status, 0, text)
            self.assertIn("edu: all right", text)
            self.lab.check("hartvisor run -m 2304M -k /high --dump-dtb /tmp/tree --passthrough "
                           f"{self.lab.at['wide']}", 240)
            self.assertEqual(self.lab.check("grep -ac memory@ff000000 /tmp/tree"), "1")


class Nvme(_GuestTest):
    devices = ("nvme",)
    guests = {"nvme-guest": ("nvme_guest.c",)}

    @classmethod
    def setUpClass(cls):
        cls.disk = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory(
            prefix="hartvisor-test-"))) / "disk.img"
        cls.disk.write_bytes(b"hello" + bytes(lab.DISK_SIZE - 5))
        cls.options = {"disks": {"nvme": cls.disk}}
        super().setUpClass()

    def test_blocks(self):
        for engine in ("jit", "interp"):  # the second finds a controller that was reset
            with self.subTest(engine):
                text = self.run_guest("nvme-guest", "nvme", f" --engine {engine}")
                for expected in ("serial: nvme", "block 0: hello", "nvme: all right"):
                    self.assertIn(expected, text)
        expected = bytes(i * 13 + (i >> 8) & 0xFF for i in range(4096))
        self.assertEqual(self.disk.read_bytes()[8 * 512:8 * 512 + 4096], expected)
        # The host's driver reads the same.
        self.lab.bind(self.lab.at["nvme"], None)
        self.lab.wait_for("test -b /dev/nvme0n1")
        self.lab.check("dd if=/dev/nvme0n1 of=/tmp/block bs=4096 skip=1 count=1 2> /dev/null")
        self.assertIn(hashlib.md5(expected).hexdigest(), self.lab.check("md5sum /tmp/block"))


class _Page(http.server.BaseHTTPRequestHandler):
    """Answers everything with the server's data."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.data)))
        self.end_headers()
        self.wfile.write(self.server.data)

    def log_message(self, *arguments):
        pass


NETWORK = """
        ip link set eth0 up
        ip address add 10.0.2.15/24 dev eth0
        until ping -c 1 -W 5 10.0.2.2 > /dev/null; do sleep 1; done
        ping -c 3 -W 10 10.0.2.2 | grep received
        echo page: $(wget -q -O - http://10.0.2.2:PORT/ | md5sum)
"""


class _DebianTest(_GuestTest):
    """A whole Linux guest, with Debian's drivers for the devices."""

    command = ""

    @classmethod
    def setUpClass(cls):
        if not guest.INITRD.exists():
            raise unittest.SkipTest(f"{guest.INITRD} is missing: ./dev setup makes it")
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
        server.data = random.Random(1).randbytes(500000)
        cls.addClassCleanup(server.server_close)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        cls.addClassCleanup(server.shutdown)
        cls.page = server.data
        module = next((guest.FILES / "root").rglob("e1000e.ko*")).read_bytes()
        folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory(
            prefix="hartvisor-test-")))
        (folder / "kernel").write_bytes(guest.KERNEL.read_bytes())
        guest.make_initrd(folder, {
            "command": cls.command.replace("PORT", str(server.server_port)),
            "e1000e.ko": lzma.decompress(module) if module[:1] == b"\xfd" else module})
        cls.options = {"share": folder, "network": {"restrict": False}}
        super().setUpClass()

    def run_debian(self, *options):
        # Translating costs an emulated host more than it gains.
        devices = " ".join(f"--passthrough {self.lab.at[name]}" for name in self.devices)
        status, text = self.lab.run(
            "timeout 400 hartvisor run -m 128M --engine interp -k /mnt/host/kernel "
            f"-i /mnt/host/initrd -a '{guest.APPEND}' {' '.join(options)} {devices} < /dev/null",
            420)
        self.assertEqual(status, 0, text)
        return text

    def check_network(self, text):
        self.assertIn("3 packets received", text)
        self.assertIn(f"page: {hashlib.md5(self.page).hexdigest()}", text)


class Debian(_DebianTest):
    """Three devices at once, by MSI-X."""

    devices = ("nvme", "e1000e", "rng")
    command = """
        head -c 65536 /dev/urandom > /tmp/data
        dd if=/tmp/data of=/dev/nvme0n1 bs=4096 seek=64 conv=fsync 2> /dev/null
        echo 3 > /proc/sys/vm/drop_caches
        dd if=/dev/nvme0n1 bs=4096 skip=64 count=16 2> /dev/null | cmp - /tmp/data && echo disk: same
        echo disk: $(md5sum < /tmp/data)
        echo queues: $(grep -c PCI-MSIX.*nvme0q /proc/interrupts)
        insmod /e1000e.ko
    """ + NETWORK + """
        for one in $(cat /sys/class/misc/hw_random/rng_available); do
            echo $one > /sys/class/misc/hw_random/rng_current
            echo $one: $(head -c 64 /dev/hwrng | wc -c) bytes
        done
    """

    def test_devices(self):
        text = self.run_debian()
        self.check_network(text)
        for expected in ("disk: same", "queues: 2", "virtio_rng.0: 64 bytes",
                         "virtio_rng.1: 64 bytes"):
            self.assertIn(expected, text)
        # The host finds what the guest has written.
        self.lab.bind(self.lab.at["nvme"], None)
        self.lab.wait_for("test -b /dev/nvme0n1")
        digest = self.lab.check(
            "dd if=/dev/nvme0n1 bs=4096 skip=64 count=16 2> /dev/null | md5sum").split()[0]
        self.assertIn(f"disk: {digest}", text)


if guest.LONG:
    class Wires(_DebianTest):
        """A network card by INTx behind a root port, on either interrupt controller."""

        devices = ("e1000e",)
        command = "insmod /e1000e.ko IntMode=0" + NETWORK + "grep eth0 /proc/interrupts"

        def test_aplic(self):
            text = self.run_debian("--aia on")
            self.check_network(text)
            self.assertRegex(text, r"APLIC-MSI.* Level +-fasteoi +eth0")

        def test_plic(self):
            text = self.run_debian("--aia off")
            self.check_network(text)
            self.assertRegex(text, r"SiFive PLIC .*eth0")


class NoIommu(_GuestTest):
    devices = ()
    guests = {"edu": ("edu_guest.c",)}

    @classmethod
    def setUpClass(cls):
        cls.options = {"iommu": False}
        super().setUpClass()

    def test_refused(self):
        status, text = self.lab.run("hartvisor run -k /edu --passthrough 00:1f.0")
        self.assertEqual(status, FAILED)
        self.assertIn("the IOMMU is off", text)
        self.assertIn("hartvisor devices check", text)
