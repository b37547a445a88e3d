"""The passthrough lab itself, and what the kernel's VFIO does there, asked by a program that is not
hartvisor: what hartvisor's own VFIO device stands on."""


import lab
from lab import LabTest
from program import compile_kernel


class _Probed(LabTest):
    """A lab with vfio_probe in it."""

    devices = ()
    options = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.program = lab.compile_program(cls.class_folder, lab.PROBE)
        cls.lab = cls.boot_for_class(*cls.devices, programs=[cls.program], **cls.options)

    def probe(self, command, name, status=0):
        """The output of vfio_probe for a device that is bound to vfio-pci."""
        ended, output = self.lab.run(f"vfio_probe {command} {self.lab.at[name]}")
        self.assertEqual(ended, status, output)
        return output


class Facts(_Probed):
    devices = ("edu", "pair", "nvme", "e1000e", "rng")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.host_drivers = {name: cls.lab.driver(address) for name, address in cls.lab.at.items()}
        for name in ("edu", "nvme", "e1000e", "rng"):
            cls.lab.bind(cls.lab.at[name])

    def test_devices_and_groups(self):
        self.assertEqual(self.host_drivers, {"edu": "", "pair": "virtio-pci", "nvme": "nvme",
                                             "e1000e": "e1000e", "rng": "virtio-pci"})
        groups = {name: self.lab.group(self.lab.at[name]) for name in self.devices}
        self.assertEqual(len(set(groups.values())), len(groups), groups)
        second = self.lab.at["pair"].replace(".0", ".1")
        self.assertEqual(self.lab.group(second), groups["pair"])
        nodes = self.lab.check("ls /dev/vfio").split()
        self.assertEqual(sorted(nodes), sorted(
            ["vfio", *(groups[name] for name in ("edu", "nvme", "e1000e", "rng"))]))

    def test_info(self):
        text = self.probe("info", "edu")
        for line in ("api: 0", "extension type1v2: 1", "extension unmap-all: 1",
                     r"device: regions=9 irqs=5 pci", r"region 0: size=0x100000 .* mmap",
                     "irq intx: count=1 eventfd maskable automasked",
                     "irq msi: count=1 eventfd noresize", "irq msix: count=0 .*",
                     # PCIe's errors and 4 KiB of configuration: not for a conventional device.
                     "irq err: Invalid argument", r"region 7: size=0x100 .*",
                     "irq req: count=1 .*", "extension cache-coherent: 0",
                     "iommu: page-sizes=0x40201000", "mappings: 65535",
                     "iova: 0x0-0xfedfffff", "iova: 0xfef00000-0x7fffffffff",
                     "config: vendor=1234 device=11e8 .*"):
            self.assertRegex(text, rf"(?m)^{line}$")

    def test_info_of_express_devices(self):
        for name, vectors, config in (("nvme", 65, "1b36 device=0010"),
                                      ("e1000e", 5, "8086 device=10d3"),
                                      ("rng", 2, "1af4 device=1044")):
            with self.subTest(name):
                text = self.probe("info", name)
                self.assertIn(f"config: vendor={config} ", text)
                self.assertRegex(text, rf"irq msix: count={vectors} eventfd")
                self.assertRegex(text, r"irq err: count=1 ")
                self.assertRegex(text, r"region 7: size=0x1000 ")
                # The BAR with the MSI-X table may be mapped as a whole: capability 3.
                self.assertRegex(text, r"region \d: .* mmap capability=3\n")

    def test_edu_registers(self):
        self.probe("edu-mmio", "edu")

    def test_edu_transfers(self):
        self.probe("edu-dma", "edu")

    def test_edu_blocked_transfers(self):
        self.lab.check("dmesg -c > /dev/null")
        self.assertIn("a blocked read leaves zeros", self.probe("edu-blocked", "edu"))
        address = self.lab.at["edu"].removeprefix("0000:")
        for direction in ("Write", "Read"):
            self.assertRegex(self.lab.kernel_log(), rf"DMAR: \[DMA {direction} NO_PASID\] "
                             rf"Request device \[{address}\] fault addr 0x102000 ")

    def test_edu_intx(self):
        self.probe("edu-intx", "edu")

    def test_edu_msi(self):
        self.probe("edu-msi", "edu")

    def test_nvme_by_msix(self):
        text = self.probe("nvme", "nvme")
        self.assertIn("serial number: nvme\n", text)
        # The set of vectors is as large as it was made at first, where the flag says so.
        fixed = "irq msix: count=65 eventfd noresize" in self.probe("info", "nvme")
        self.assertIn("second vector while the first is on: "
                      + ("Invalid argument" if fixed else "taken"), text)

    def test_refusals(self):
        self.probe("refused", "edu")

    def test_resets(self):
        for name in ("nvme", "e1000e", "rng"):
            with self.subTest(name):
                address = self.lab.at[name]
                self.assertIn("reset: done", self.probe("reset", name))
                self.assertIn(f"resets {address} of group {self.lab.group(address)}\n"
                              "hot reset: done", self.probe("hot-reset", name))
        # edu cannot be reset by itself, and on the root bus there is no bus to reset.
        self.assertIn("reset: Invalid argument", self.probe("reset", "edu"))
        self.assertIn("HOT_RESET_INFO: No such device", self.probe("hot-reset", "edu", status=1))

    def test_group_with_a_foreign_driver(self):
        first = self.lab.at["pair"]
        second = first.replace(".0", ".1")
        self.lab.bind(first)
        self.addCleanup(self.lab.bind, first, None)
        text = self.probe("group", "pair")
        self.assertIn("viable=0", text)
        self.assertIn("container: Operation not permitted", text)
        self.lab.check(f"echo {second} > /sys/bus/pci/devices/{second}/driver/unbind")
        self.addCleanup(self.lab.bind, second, None)
        text = self.probe("group", "pair")
        self.assertIn("viable=1", text)
        self.assertIn("container: set", text)

    def test_request_on_unbind(self):
        address = self.lab.at["rng"]
        self.lab.hold(address)
        self.addCleanup(self.lab.bind, address)
        # The write returns when the program has closed the device.
        self.assertEqual(self.lab.bind(address, None), "virtio-pci")
        self.assertIn("the host asks for the device", self.lab.check("cat /tmp/holder"))

    def test_killed_owner(self):
        address = self.lab.at["nvme"]
        self.lab.run(f"kill -9 {self.lab.hold(address)}")
        self.addCleanup(self.lab.bind, address)
        self.assertEqual(self.lab.bind(address, None), "nvme")
        self.lab.wait_for("test -b /dev/nvme0n1")


class NoIommu(_Probed):
    devices = ("edu",)
    options = {"iommu": False}

    def test_vfio_pci_takes_nothing(self):
        address = self.lab.at["edu"]
        self.assertEqual(self.lab.group(address), "")
        self.assertEqual(self.lab.check("ls /sys/kernel/iommu_groups; ls /sys/class/iommu"), "")
        self.assertEqual(self.lab.bind(address), "")
        self.assertIn("is in no IOMMU group", self.probe("info", "edu", status=1))
        # The last that is done with this lab.
        self.assertEqual(self.lab.leave(), 0)


class Devices(LabTest):
    """Disks, networks, files and slots, as the host's own drivers see them."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.disk = cls.class_folder / "disk.img"
        cls.disk.write_bytes(b"written outside".ljust(32 << 20, b"\0"))
        cls.share = cls.class_folder / "share"
        cls.share.mkdir()
        cls.lab = cls.boot_for_class("nvme", "nvme2", "e1000e", ports=1, share=cls.share,
                                     disks={"nvme": cls.disk}, files={"root/note": "a file\n"},
                                     programs=["/usr/bin/od", lab.HARTVISOR])

    def test_files(self):
        self.assertEqual(self.lab.check("cat /root/note"), "a file")
        (self.share / "in").write_text("from outside\n")
        self.assertEqual(self.lab.check("cat /mnt/host/in; echo from inside > /mnt/host/out"),
                         "from outside")
        self.assertEqual((self.share / "out").read_text(), "from inside\n")

    def test_program_with_libraries(self):
        self.assertIn("coreutils", self.lab.check("/bin/od --version"))

    def test_guest(self):
        """An emulator in an emulator."""
        kernel = compile_kernel(self.share, "int main(void) { return 0; }")
        self.lab.check(f"hartvisor run --memory 64M --kernel /mnt/host/{kernel.name}")

    def test_status_and_output(self):
        self.assertEqual(self.lab.run("echo one; echo two >&2; exit 3"), (3, "one\ntwo"))

    def test_disks(self):
        disks = {self.lab.check(f"cat /sys/block/nvme{i}n1/device/serial").strip(): f"nvme{i}n1"
                 for i in range(2)}
        self.assertEqual(sorted(disks), ["nvme", "nvme2"])
        disk = disks["nvme"]
        self.assertEqual(self.lab.check(f"head -c 15 /dev/{disk}"), "written outside")
        self.lab.check(f"echo written inside | dd of=/dev/{disk} bs=512 seek=8 conv=fsync,notrunc")
        self.assertEqual(self.disk.read_bytes()[4096:4110], b"written inside")

    def test_network(self):
        self.lab.check("ip link set eth0 up; ip address add 10.0.2.15/24 dev eth0")
        # The driver polls its PHY for the link.
        self.lab.wait_for("grep -q 1 /sys/class/net/eth0/carrier 2> /dev/null")
        self.lab.check("ping -c 1 -W 10 10.0.2.2")

    def test_hot_plug(self):
        address = self.lab.plug("rng", "port0")
        self.lab.wait_for(f"test -e /sys/bus/pci/devices/{address}/iommu_group")
        self.lab.check("modprobe -a virtio_pci virtio-rng")
        self.assertEqual(self.lab.driver(address), "virtio-pci")
        self.assertEqual(self.lab.bind(address), "vfio-pci")
        self.lab.check(f"test -c /dev/vfio/{self.lab.group(address)}")
        self.lab.unplug("rng")
        self.lab.wait_for(f"! test -e /sys/bus/pci/devices/{address}")
