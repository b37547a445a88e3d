"""`hartvisor devices` on recorded machines (tests/machines) and on this one; the example for it."""

import json
import os
import pathlib
import pty
import re
import subprocess
import tempfile
import unittest

BUILD = pathlib.Path(os.environ["BUILD"])
HARTVISOR = os.environ["HARTVISOR"]
MACHINES = pathlib.Path(__file__).resolve().parent.parent / "machines"


class _Machine(unittest.TestCase):
    """A recorded machine of the class's name, and hartvisor looking at it."""

    machine = None

    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.scratch.cleanup)
        cls.make(cls.machine, cls.scratch.name)

    @staticmethod
    def make(name, folder):
        subprocess.run([BUILD / "tests" / "recorded_host", MACHINES / name, folder], check=True)

    def devices(self, *words, status=0, sysfs=None, **options):
        done = subprocess.run([HARTVISOR, "devices", *words, "--sysfs", sysfs or self.scratch.name],
                              capture_output=True, text=True, timeout=60, **options)
        self.assertEqual(done.returncode, status, done.stderr + done.stdout)
        if status == 125:
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        return done

    def json(self, *words, status=0):
        return json.loads(self.devices(*words, "--json", status=status).stdout)

    def refused(self, *words, fragments):
        done = self.devices(*words, status=125)
        self.assertEqual(done.stdout, "")
        for fragment in fragments:
            self.assertIn(fragment, done.stderr)


class Server(_Machine):
    machine = "server"

    def test_list(self):
        lines = self.devices("list").stdout.splitlines()
        self.assertRegex(lines[0], r"^ADDRESS +TYPE +DEVICE +DRIVER +GROUP$")
        rows = {line.split()[0]: line for line in lines[1:]}
        self.assertEqual(len(rows), 25)
        self.assertRegex(rows["0000:17:00.0"], r" gpu .* nvidia +21$")
        self.assertRegex(rows["0000:b3:00.3"], r" ethernet .* vfio-pci +64$")
        self.assertLessEqual(max(map(len, lines)), 100)
        self.assertEqual(self.devices().stdout.splitlines(), lines)

    def test_types(self):
        def addresses(types):
            return [device["address"] for device in self.json("list", "--type", types)]

        self.assertEqual(addresses("gpu"), ["0000:03:00.0", "0000:17:00.0", "0000:65:00.0"])
        self.assertEqual(addresses("gpu-nvidia"), ["0000:17:00.0", "0000:65:00.0"])
        self.assertEqual(addresses("nvme,sata"), ["0000:00:17.0", "0000:18:00.0", "0000:66:00.0",
                                                  "0000:67:00.0"])
        self.assertEqual(addresses("npu"), [])
        self.assertIn("no such", self.devices("list", "-t", "npu").stdout)

    def test_json(self):
        nic = next(device for device in self.json() if device["address"] == "0000:b3:00.0")
        self.assertEqual(set(nic), {
            "address", "type", "kind", "integrated", "vendor", "device", "subsystem_vendor",
            "subsystem_device", "class", "revision", "vendor_name", "device_name", "driver",
            "iommu_group", "numa_node", "bars", "link", "sriov", "physical_function",
            "reset_methods", "boot_vga", "power_state"})
        self.assertEqual((nic["vendor"], nic["device"], nic["class"]),
                         ("0x15b3", "0x101d", "0x020000"))
        self.assertEqual(nic["sriov"], {"present": 2, "total": 8})
        self.assertEqual(nic["reset_methods"], ["flr", "bus"])
        self.assertEqual(nic["link"]["max_speed_mts"], 16000)
        self.assertEqual(nic["bars"][0]["size"], 32 << 20)
        self.assertEqual(nic["bars"][1]["kind"], "rom")
        self.assertEqual((nic["iommu_group"], nic["numa_node"]), (61, 1))

    def test_show(self):
        text = self.devices("show", "17:00.0").stdout
        for fragment in ("gpu-nvidia", "10de:2230 revision a1", "with 0000:17:00.1", "64 GiB",
                         "prefetchable", "2.5 GT/s x16 (at most 16 GT/s x16)",
                         "function level reset", "resizable BAR", "flr bus"):
            self.assertIn(fragment, text)
        self.assertLessEqual(max(map(len, text.splitlines())), 100)
        config = self.json("show", "17:0")["config"]
        self.assertEqual(config["known_bytes"], 4096)
        capability = {each["name"]: each["fields"] for each in config["capabilities"]}
        self.assertEqual(capability["resizable BAR"]["bar_1_max"], 65536)
        self.assertTrue(capability["PCI Express"]["function_level_reset"])
        self.assertIsNone(self.json("show", "17:0")["former_driver"])
        folder = pathlib.Path(self.scratch.name) / "run" / "hartvisor"
        folder.mkdir(parents=True)
        (folder / "drivers").write_text("0000:65:00.0 nouveau\n0000:17:00.0 nouveau\nnonsense\n")
        self.assertIn("vfio-pci (before: nouveau)", self.devices("show", "65:0").stdout)
        self.assertNotIn("nouveau", self.devices("show", "17:0").stdout)
        self.assertEqual(self.json("show", "65:0")["former_driver"], "nouveau")
        self.assertIn("> /sys/bus/pci/drivers_probe",
                      self.devices("unbind", "-n", "65:00.0").stdout)
        self.assertIn("not recorded", self.devices("show", "18:00.0").stdout)

    def test_groups(self):
        groups = {group["group"]: group for group in self.json("groups")}
        self.assertEqual(groups[21]["hindered_by"],
                         [{"device": "0000:17:00.0", "driver": "nvidia"},
                          {"device": "0000:17:00.1", "driver": "snd_hda_intel"}])
        self.assertTrue(groups[41]["viable"])
        self.assertRegex(self.devices("groups").stdout, r"\n +41  viable  0000:65:00.0 ")

    def test_check(self):
        self.assertIn("is ready", self.devices("check").stdout)
        self.assertTrue(self.json("check")["ready"])

    def test_dry_run(self):
        done = self.devices("bind", "--dry-run", "-g", "17:00.0")
        self.assertEqual(done.stdout.splitlines()[:3], [
            "echo vfio-pci > /sys/bus/pci/devices/0000:17:00.0/driver_override",
            "echo 0000:17:00.0 > /sys/bus/pci/devices/0000:17:00.0/driver/unbind",
            "echo 0000:17:00.0 > /sys/bus/pci/drivers_probe"])
        self.assertEqual(len(done.stdout.splitlines()), 6)
        done = self.devices("unbind", "-n", "65:00.1")
        self.assertIn("> /sys/bus/pci/devices/0000:65:00.1/driver_override", done.stdout)

    def test_refused(self):
        for words, fragments in (
                (["bind", "-n", "18:00.0"], ["0000:18:00.0", "mounted at /", "--force"]),
                (["bind", "-n", "04:00.0"], ["default route", "eno1"]),
                (["bind", "-n", "17:00.0"], ["group 21", "snd_hda_intel", "--group"]),
                (["bind", "-n", "16:02.0"], ["is a bridge"]),
                (["bind", "17:00.0"], ["--sysfs", "--dry-run"]),
                (["unbind", "-n", "17:00.0"], ["nvidia"]),
                (["bind"], ["address"]),
                (["show"], ["address"]),
                (["show", "17:00.0", "18:00.0"], ["18:00.0"]),
                (["show", "1:2:3:4"], ["1:2:3:4"]),
                (["show", "ff:00.0"], ["0000:ff:00.0"]),
                (["list", "--type", "gpus"], ["--type", "gpus", "did you mean gpu"]),
                (["list", "--force"], ["--force", "list"]),
                (["bind", "--json", "67:00.0"], ["--json", "bind"]),
                (["grups"], ["grups", "groups"]),
                (["17:00.0"], ["17:00.0", "show"])):
            with self.subTest(" ".join(words)):
                self.refused(*words, fragments=fragments)

    def test_terminal(self):
        """Colours on a terminal only, and not where the user wants none."""
        for extra, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
            ours, theirs = pty.openpty()
            env = {**os.environ, "TERM": "xterm", **extra}
            if "NO_COLOR" not in extra:
                env.pop("NO_COLOR", None)
            subprocess.run([HARTVISOR, "devices", "--sysfs", self.scratch.name], stdout=theirs,
                           check=True, env=env, timeout=60)
            os.close(theirs)
            output = b""
            try:
                while piece := os.read(ours, 65536):
                    output += piece
            except OSError:
                pass
            os.close(ours)
            self.assertEqual(b"\x1b[" in output, coloured, extra)
            self.assertIn(b"0000:17:00.0", output)


class Others(_Machine):
    machine = "guest"

    def test_no_iommu(self):
        self.assertEqual(self.json("groups"), [])
        self.assertIn("check", self.devices("groups").stdout)
        done = self.devices("check", status=1)
        self.assertIn("-device intel-iommu", " ".join(done.stdout.split()))
        self.assertLessEqual(max(map(len, done.stdout.splitlines())), 100)
        checks = {check["name"]: check for check in self.json("check", status=1)["checks"]}
        self.assertEqual(list(checks), ["machine", "firmware", "parameters", "iommu",
                                        "interrupts", "driver", "container", "devices",
                                        "memlock"])
        self.assertEqual(checks["iommu"]["state"], "waits")

    def test_memory(self):
        checks = self.devices("check", "-m", "1G", status=1).stdout
        self.assertIn("1 GiB of RAM need 1088 MiB", checks)

    def test_accelerators(self):
        with tempfile.TemporaryDirectory() as folder:
            self.make("accelerators", folder)
            lines = self.devices("list", "--type", "npu", sysfs=folder).stdout.splitlines()
            self.assertEqual([line.split()[1] for line in lines[1:]],
                             ["npu", "npu", "npu", "accelerator", "npu", "accelerator", "npu"])
            self.assertIn("10000:e1:00.0", self.devices(sysfs=folder).stdout)

    def test_no_tree(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertIn("sysfs", self.devices(sysfs=folder, status=125).stderr)
        self.assertIn("/absent", self.devices(sysfs="/absent", status=125).stderr)

    def test_help(self):
        text = subprocess.run([HARTVISOR, "help", "devices"], capture_output=True, text=True,
                              check=True).stdout
        for word in ("bind", "unbind", "check", "groups", "--dry-run", "--force", "--group"):
            self.assertIn(word, text)


class ThisMachine(unittest.TestCase):
    def devices(self, *words):
        return subprocess.run([HARTVISOR, "devices", *words], capture_output=True, text=True,
                              timeout=60)

    def test_list_and_check(self):
        if not os.path.isdir("/sys/bus/pci/devices"):
            self.skipTest("this machine has no PCI")
        done = self.devices("list", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([device["address"] for device in json.loads(done.stdout)],
                         sorted(os.listdir("/sys/bus/pci/devices"),
                                key=lambda name: [int(part, 16)
                                                  for part in re.split("[:.]", name)]))
        self.assertIn(self.devices("check").returncode, (0, 1))


class Example(unittest.TestCase):
    def test_devices(self):
        with tempfile.TemporaryDirectory() as folder:
            _Machine.make("server", folder)
            done = subprocess.run([BUILD / "docs" / "examples" / "devices", folder],
                                  capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("0000:17:00.0: gpu-nvidia, from sysfs", done.stdout)
        self.assertIn("IOMMU group 41 is viable", done.stdout)
        self.assertIn("ffff:00:00.0: accelerator, from model", done.stdout)
        self.assertIn("The IOMMU is on.", done.stdout)
        done = subprocess.run([BUILD / "docs" / "examples" / "devices", "/absent"],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn("/absent", done.stderr)
