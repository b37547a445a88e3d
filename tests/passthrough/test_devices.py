"""`hartvisor devices` on a host with a real IOMMU, real drivers and a real VFIO."""

import json
import pathlib
import subprocess
import tempfile
import unittest

import lab
from lab import LabTest

NOT_READY, FAILED = 1, 125


class _DevicesTest(LabTest):
    devices = ()
    options = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if not lab.HARTVISOR.exists():
            raise unittest.SkipTest(f"{lab.HARTVISOR} is missing: ./dev build makes it")
        programs = [lab.HARTVISOR, lab.compile_program(cls.class_folder, lab.PROBE)]
        cls.lab = cls.boot_for_class(*cls.devices, programs=programs, **cls.options)

    def run_devices(self, arguments, status=0):
        """What `hartvisor devices` prints."""
        ended, output = self.lab.run(f"hartvisor devices {arguments}")
        self.assertEqual(ended, status, output)
        return output

    def json(self, arguments, status=0):
        return json.loads(self.run_devices(f"{arguments} --json", status))

    def by_address(self):
        return {device["address"]: device for device in self.json("list")}

    def checks(self, status=0):
        answer = self.json("check", status)
        self.assertEqual(answer["ready"], status == 0)
        return {check["name"]: check for check in answer["checks"]}


class Host(_DevicesTest):
    devices = ("edu", "pair", "nvme", "e1000e", "rng")

    @classmethod
    def setUpClass(cls):
        folder = cls.enterClassContext(tempfile.TemporaryDirectory(prefix="hartvisor-test-"))
        cls.disk = pathlib.Path(folder) / "disk.img"
        with open(cls.disk, "wb") as file:
            file.truncate(lab.DISK_SIZE)
        subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", cls.disk], check=True)
        cls.options = {"disks": {"nvme": cls.disk}}
        super().setUpClass()
        cls.lab.check("modprobe ext4 && mkdir /mnt/disk")

    def release(self, name):
        """Whatever a test did: the device is the host's again."""
        self.lab.bind(self.lab.at[name], None)

    def mount(self):
        self.lab.wait_for("test -b /dev/nvme0n1")
        self.lab.check("mount -t ext4 /dev/nvme0n1 /mnt/disk")

    def test_list(self):
        devices = self.by_address()
        addresses = self.lab.check("ls /sys/bus/pci/devices").split()
        self.assertEqual(sorted(devices), sorted(addresses))
        for name, kind, driver in (
                ("edu", "other", None), ("nvme", "nvme", "nvme"),
                ("e1000e", "ethernet", "e1000e"), ("rng", "other", "virtio-pci")):
            with self.subTest(name):
                device = devices[self.lab.at[name]]
                self.assertEqual((device["kind"], device["driver"]), (kind, driver))
                self.assertEqual(device["iommu_group"], int(self.lab.group(self.lab.at[name])))
        only = self.run_devices("list --type nvme").splitlines()
        self.assertEqual([line.split()[0] for line in only], ["ADDRESS", self.lab.at["nvme"]])

    def test_list_for_a_user(self):
        self.assertEqual(self.lab.check("su user -c 'hartvisor devices list'"),
                         self.run_devices("list"))

    def test_show(self):
        device = self.json(f"show {self.lab.at['nvme']}")
        self.assertEqual((device["vendor"], device["device"]), ("0x1b36", "0x0010"))
        self.assertEqual(device["bars"][0]["size"], 16 << 10)
        self.assertIn("flr", device["reset_methods"])
        # As root, with all of the configuration space.
        self.assertEqual(device["config"]["known_bytes"], 4096)
        capabilities = {one["name"]: one for one in device["config"]["capabilities"]}
        self.assertEqual(capabilities["MSI-X"]["fields"]["vectors"], 65)
        text = self.run_devices(f"show {self.lab.at['e1000e']}")
        self.assertRegex(text, r"driver +e1000e\n")
        self.assertRegex(text, rf"IOMMU group +{self.lab.group(self.lab.at['e1000e'])}\b")

    def test_groups(self):
        groups = {group["group"]: group for group in self.json("groups")}
        expected = self.lab.check("ls /sys/kernel/iommu_groups").split()
        self.assertEqual(sorted(groups), sorted(map(int, expected)))
        pair = groups[int(self.lab.group(self.lab.at["pair"]))]
        addresses = [self.lab.at["pair"], self.lab.at["pair"].replace(".0", ".1")]
        self.assertEqual(pair["devices"], addresses)
        self.assertFalse(pair["viable"])
        self.assertEqual(pair["hindered_by"], [
            {"device": address, "driver": "virtio-pci"} for address in addresses])
        self.assertTrue(groups[int(self.lab.group(self.lab.at["edu"]))]["viable"])

    def test_check(self):
        checks = self.checks()
        self.assertIn("DMAR", checks["firmware"]["found"])
        for name in ("firmware", "parameters", "iommu", "driver", "container", "memlock"):
            self.assertEqual(checks[name]["state"], "right", checks[name])

    def test_check_for_a_user(self):
        address = self.lab.at["edu"]
        self.addCleanup(self.release, "edu")
        self.run_devices(f"bind {address}")
        group = self.lab.group(address)
        status, text = self.lab.run("su user -c 'ulimit -S -l 64; hartvisor devices check'")
        self.assertEqual(status, NOT_READY, text)
        self.assertIn(f"you may not open /dev/vfio/{group}", text)
        self.assertRegex(text, r"\[no\] memlock .*only 64 KiB may be locked")
        # What the remedies would do.
        status, text = self.lab.run(f"chown user /dev/vfio/{group}\n"
                                    "su user -c 'ulimit -l unlimited; hartvisor devices check'")
        self.assertEqual(status, 0, text)

    def test_bind_and_unbind(self):
        address = self.lab.at["edu"]
        self.addCleanup(self.release, "edu")
        before = self.lab.check("ls /dev/vfio")
        plan = self.run_devices(f"bind --dry-run {address}")
        self.assertEqual(self.lab.driver(address), "")
        self.assertIn(f"{address}: no driver -> vfio-pci", self.run_devices(f"bind {address}"))
        self.assertEqual(self.lab.driver(address), "vfio-pci")
        self.lab.check(f"test -c /dev/vfio/{self.lab.group(address)}")
        self.assertIn("vfio-pci -> no driver", self.run_devices(f"unbind {address}"))
        self.assertEqual(self.lab.driver(address), "")
        self.assertEqual(self.lab.check("ls /dev/vfio"), before)
        # What --dry-run prints does the same by hand.
        self.lab.check(plan)
        self.assertEqual(self.lab.driver(address), "vfio-pci")

    def test_a_mounted_disk_stays(self):
        self.addCleanup(self.release, "nvme")
        self.mount()
        self.lab.check("echo kept > /mnt/disk/file")
        text = self.run_devices(f"bind {self.lab.at['nvme']}", FAILED)
        self.assertIn("mounted at /mnt/disk", text)
        self.assertEqual(self.lab.driver(self.lab.at["nvme"]), "nvme")
        self.assertEqual(self.lab.check("cat /mnt/disk/file; umount /mnt/disk"), "kept")

    def test_a_disk_goes_and_comes_back(self):
        address = self.lab.at["nvme"]
        self.addCleanup(self.release, "nvme")
        self.mount()
        self.lab.check("head -c 1000000 /dev/urandom > /mnt/disk/data")
        written = self.lab.check("sha256sum /mnt/disk/data; umount /mnt/disk")
        self.assertIn("nvme -> vfio-pci", self.run_devices(f"bind {address}"))
        self.lab.check("test ! -e /dev/nvme0n1")
        self.assertIn("vfio-pci -> nvme", self.run_devices(f"unbind {address}"))
        self.mount()
        self.assertEqual(self.lab.check("sha256sum /mnt/disk/data; umount /mnt/disk"), written)

    def test_the_default_route_stays(self):
        address = self.lab.at["e1000e"]
        self.addCleanup(self.release, "e1000e")
        self.lab.check("ip link set eth0 up; ip address add 10.0.2.15/24 dev eth0\n"
                       "ip route add default via 10.0.2.2")
        self.assertIn("default route goes through it", self.run_devices(f"bind {address}", FAILED))
        self.assertEqual(self.lab.driver(address), "e1000e")
        self.run_devices(f"bind --force {address}")
        self.assertEqual(self.lab.driver(address), "vfio-pci")
        self.run_devices(f"unbind {address}")
        self.lab.wait_for("test -e /sys/class/net/eth0")

    def test_a_device_in_use_stays(self):
        address = self.lab.at["rng"]
        self.addCleanup(self.release, "rng")
        self.run_devices(f"bind {address}")
        owner = self.lab.hold(address)
        self.addCleanup(self.lab.run, f"kill -9 {owner}")
        text = self.run_devices(f"unbind {address}", FAILED)
        self.assertIn(owner, text)
        self.assertEqual(self.lab.driver(address), "vfio-pci")
        # Killing the owner at any moment leaves a device that the host can have back.
        self.lab.check(f"kill -9 {owner}; while [ -e /proc/{owner} ]; do sleep 0.1; done")
        self.run_devices(f"unbind {address}")
        self.assertEqual(self.lab.driver(address), "virtio-pci")

    def test_a_bind_that_was_killed(self):
        """Wherever it is stopped, unbind gives the device back."""
        address = self.lab.at["rng"]
        self.addCleanup(self.release, "rng")
        for delay in ("0.02", "0.05", "0.1", "0.15", "0.2", "0.3"):
            self.lab.run(f"hartvisor devices bind {address} & sleep {delay}; kill -9 $!; wait")
            status, output = self.lab.run(f"hartvisor devices unbind {address}")
            if status != 0:
                # It had not begun yet.
                self.assertIn(f"vfio-pci does not have {address}", output)
            override = self.lab.check(f"cat /sys/bus/pci/devices/{address}/driver_override")
            self.assertEqual((self.lab.driver(address), override), ("virtio-pci", "(null)"),
                             f"after {delay} s")

    def test_a_whole_group(self):
        address = self.lab.at["pair"]
        second = address.replace(".0", ".1")
        self.addCleanup(self.release, "pair")
        self.addCleanup(self.lab.bind, second, None)
        text = self.run_devices(f"bind {address}", FAILED)
        self.assertIn(second, text)
        self.assertIn("--group", text)
        self.assertEqual(self.lab.driver(address), "virtio-pci")
        self.run_devices(f"bind --group {address}")
        self.assertEqual([self.lab.driver(one) for one in (address, second)], ["vfio-pci"] * 2)
        groups = {group["group"]: group for group in self.json("groups")}
        self.assertTrue(groups[int(self.lab.group(address))]["viable"])
        self.run_devices(f"unbind --group {second}")
        self.assertEqual([self.lab.driver(one) for one in (address, second)], ["virtio-pci"] * 2)

    def test_refusals(self):
        for words, why in (("bind 00:08.0", "is a bridge"), ("bind 00:1f.0", "is a bridge"),
                           ("bind 09:00.0", "there is no PCI device 0000:09:00.0"),
                           ("bind 00:77.0", "no PCI address")):
            with self.subTest(words):
                self.assertIn(why, self.run_devices(words, FAILED))
        self.assertNotEqual(self.lab.run(f"su user -c 'hartvisor devices bind {self.lab.at['edu']}'"
                                         )[0], 0)
        self.assertEqual(self.lab.driver(self.lab.at["edu"]), "")


class NoIommu(_DevicesTest):
    """A machine without one."""

    devices = ("edu",)
    options = {"iommu": False}

    def test_check(self):
        checks = self.checks(NOT_READY)
        self.assertEqual(checks["firmware"]["state"], "wrong")
        self.assertIn("intel-iommu", checks["firmware"]["remedy"])
        self.assertEqual(checks["iommu"]["state"], "waits")

    def test_groups(self):
        self.assertEqual(self.json("groups"), [])
        self.assertIn("There are no IOMMU groups", self.run_devices("groups"))

    def test_bind(self):
        text = self.run_devices(f"bind {self.lab.at['edu']}", FAILED)
        self.assertIn("the IOMMU is off", text)
        self.assertEqual(self.lab.driver(self.lab.at["edu"]), "")


class SwitchedOff(_DevicesTest):
    """A machine that has one, and a kernel that does not use it."""

    devices = ("edu",)
    options = {"append": "intel_iommu=off"}

    def test_check(self):
        checks = self.checks(NOT_READY)
        self.assertEqual(checks["firmware"]["state"], "right", checks["firmware"])
        self.assertEqual(checks["parameters"]["state"], "wrong", checks["parameters"])
        self.assertIn("remove intel_iommu=off", checks["parameters"]["remedy"])
