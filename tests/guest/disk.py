"""Virtio block devices: what is written stays, what must not be written does not change."""

import hashlib
import os
import pathlib
import random
import shutil
import subprocess

from console import Console
from guest import GuestTest, HARTVISOR, INITRD, KERNEL, run_hartvisor

MIB = 1 << 20


def random_file(path, size, seed=1):
    data = random.Random(seed).randbytes(size)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def file_system(path, size=64 * MIB):
    with open(path, "wb") as file:
        file.truncate(size)
    subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", path], check=True)


def digest(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


class _Disk:
    bus = "pci"

    def disk(self, path, *more):
        return ("--disk", ",".join([str(path), f"bus={self.bus}", *more]))

    def test_next_boot_reads_what_one_wrote(self):
        disk = self.folder / "disk.img"
        file_system(disk)
        guest = self.boot(*self.disk(disk))
        guest.check("mount -t ext4 /dev/vda /mnt")
        guest.check("head -c 20000000 /dev/urandom > /mnt/data && mkdir /mnt/many", timeout=300)
        guest.check("for i in $(seq 200); do echo file $i > /mnt/many/$i; done")
        written = guest.check("cd /mnt && sha256sum data; cat many/* | sha256sum", timeout=300)
        guest.check("umount /mnt")
        self.assertEqual(guest.leave(), 0)

        subprocess.run(["/sbin/e2fsck", "-f", "-n", disk], check=True, capture_output=True)
        guest = self.boot(*self.disk(disk))
        guest.check("mount -t ext4 /dev/vda /mnt")
        read = guest.check("cd /mnt && sha256sum data; cat many/* | sha256sum", timeout=300)
        self.assertEqual(read, written)
        self.assertEqual(guest.leave(), 0)

    def test_host_and_guest_see_the_same_bytes(self):
        disk = self.folder / "disk.img"
        expected = random_file(disk, 24 * MIB + 512)
        guest = self.boot(*self.disk(disk))
        self.assertEqual(guest.check("cat /sys/block/vda/size"), str(24 * MIB // 512 + 1))
        self.assertEqual(guest.check("sha256sum < /dev/vda", timeout=300).split()[0], expected)
        # Direct, out of order, from many processes at once, and of every size up to a MiB.
        guest.check("for i in $(seq 0 23); do dd if=/dev/vda of=/dev/null iflag=direct bs=1M "
                    "skip=$i count=1 2> /dev/null & done; wait", timeout=300)
        for sectors in (1, 7, 8, 129, 2048):
            piece = guest.check(f"dd if=/dev/vda bs=512 skip=11 count={sectors} iflag=direct "
                                "2> /dev/null | sha256sum")
            with open(disk, "rb") as file:
                file.seek(11 * 512)
                self.assertEqual(piece.split()[0],
                                 hashlib.sha256(file.read(sectors * 512)).hexdigest())
        guest.check("printf written-by-the-guest | dd of=/dev/vda bs=512 seek=100 conv=fsync,notrunc")
        with open(disk, "rb") as file:
            file.seek(100 * 512)
            self.assertEqual(file.read(20), b"written-by-the-guest")
        self.assertEqual(guest.leave(), 0)


class Pci(_Disk, GuestTest):
    bus = "pci"

    def test_discard_gives_space_back(self):
        disk = self.folder / "disk.img"
        random_file(disk, 16 * MIB)
        before = os.stat(disk).st_blocks
        guest = self.boot(*self.disk(disk))
        if guest.check("cat /sys/block/vda/queue/discard_max_bytes") == "0":
            self.fail("the disk offers no discard")
        guest.check("blkdiscard -o 4194304 -l 8388608 /dev/vda && sync")
        self.assertEqual(guest.leave(), 0)
        if before < 16 * MIB // 512:
            self.skipTest(f"the file system of {disk} does not count blocks")
        self.assertLess(os.stat(disk).st_blocks, before - 6 * MIB // 512)
        self.assertEqual(disk.read_bytes()[5 * MIB:5 * MIB + 4096], bytes(4096))

    def test_read_only_refuses_writes(self):
        disk = self.folder / "disk.img"
        expected = random_file(disk, 4 * MIB)
        os.chmod(disk, 0o444)
        guest = self.boot(*self.disk(disk, "ro"))
        self.assertEqual(guest.check("cat /sys/block/vda/ro"), "1")
        status, _ = guest.run("dd if=/dev/zero of=/dev/vda bs=512 count=1 conv=fsync")
        self.assertNotEqual(status, 0)
        self.assertEqual(guest.check("sha256sum < /dev/vda").split()[0], expected)
        self.assertEqual(guest.leave(), 0)
        self.assertEqual(digest(disk), expected)

    def test_snapshot_leaves_the_file_alone(self):
        disk = self.folder / "disk.img"
        expected = random_file(disk, 8 * MIB)
        guest = self.boot(*self.disk(disk, "snapshot"))
        guest.check("dd if=/dev/zero of=/dev/vda bs=1M seek=1 count=4 conv=fsync,notrunc")
        guest.check("echo 3 > /proc/sys/vm/drop_caches")
        data = bytearray(disk.read_bytes())
        data[MIB:5 * MIB] = bytes(4 * MIB)
        seen = guest.check("sha256sum < /dev/vda", timeout=300).split()[0]
        self.assertEqual(seen, hashlib.sha256(data).hexdigest())
        self.assertEqual(guest.leave(), 0)
        self.assertEqual(digest(disk), expected)

    def test_disks_keep_their_order(self):
        options = []
        for number, size in enumerate((1, 2, 3)):
            disk = self.folder / f"disk{number}.img"
            random_file(disk, size * MIB)
            options += self.disk(disk)
        guest = self.boot(*options)
        sizes = guest.check("cat /sys/block/vda/size /sys/block/vdb/size /sys/block/vdc/size")
        self.assertEqual(sizes.split(), ["2048", "4096", "6144"])
        self.assertEqual(guest.leave(), 0)

    def test_full_host_disk_is_an_io_error(self):
        if os.geteuid() != 0:
            self.skipTest("a file system of limited size needs root to be mounted")
        small = self.folder / "small"
        small.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "tmpfs", small],
                                 capture_output=True, text=True)
        if mounted.returncode != 0:
            self.skipTest(f"mounting a tmpfs failed: {mounted.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", small], check=False)
        disk = small / "disk.img"
        with open(disk, "wb") as file:
            file.truncate(16 * MIB)
        guest = self.boot(*self.disk(disk))
        status, _ = guest.run("dd if=/dev/urandom of=/dev/vda bs=1M count=8 conv=fsync",
                              timeout=300)
        self.assertNotEqual(status, 0)
        # The guest goes on, and the user is told which file it was.
        guest.check("true")
        self.assertEqual(guest.leave(), 0)
        self.assertIn("disk.img", guest.errors.text())
        self.assertIn("space", guest.errors.text().lower())


class Mmio(_Disk, GuestTest):
    bus = "mmio"


class Refused(GuestTest):
    """Disks that must not be opened: one line that says why, status 125, nothing changed."""

    def refused(self, disk, *fragments, options=""):
        before = digest(disk)
        done = run_hartvisor("run", "--kernel", KERNEL, "--disk", f"{disk}{options}")
        self.assertEqual(done.returncode, 125, done.stderr)
        for fragment in fragments:
            self.assertIn(fragment, done.stderr)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        self.assertEqual(digest(disk), before)

    def test_container_formats(self):
        formats = {
            "qcow2": b"QFI\xfb\0\0\0\3",
            "vmdk": b"KDMV\1\0\0\0",
            "vdi": b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0")
                   + b"\x7f\x10\xda\xbe",
            "vhdx": b"vhdxfile",
        }
        for name, magic in formats.items():
            with self.subTest(format=name):
                disk = self.folder / f"disk.{name}"
                disk.write_bytes(magic.ljust(2 * MIB, b"\0"))
                self.refused(disk, str(disk), name, "qemu-img convert")

    def test_disk_in_use(self):
        disk = self.folder / "disk.img"
        random_file(disk, MIB)
        first = Console([HARTVISOR, "run", "--kernel", KERNEL, "--initrd", INITRD,
                         "--append", "console=ttyS0", "--disk", disk])
        self.addCleanup(first.close)
        first.expect("Linux version")
        self.refused(disk, str(disk), "use")
        first.close()
        # Two that only read may share it.
        for _ in range(2):
            reader = Console([HARTVISOR, "run", "--kernel", KERNEL, "--initrd", INITRD,
                              "--append", "console=ttyS0", "--disk", f"{disk},ro"])
            self.addCleanup(reader.close)
            reader.expect("Linux version")
        self.refused(disk, str(disk), "use")

    def test_not_a_disk(self):
        done = run_hartvisor("run", "--kernel", KERNEL, "--disk", self.folder)
        self.assertEqual(done.returncode, 125)
        self.assertIn(str(self.folder), done.stderr)
        done = run_hartvisor("run", "--kernel", KERNEL, "--disk", self.folder / "absent.img")
        self.assertEqual(done.returncode, 125)
        self.assertIn("absent.img", done.stderr)


class HostBlockDevice(GuestTest):
    def test_loop_device(self):
        if os.geteuid() != 0 or not shutil.which("losetup", path="/sbin:/usr/sbin:/bin:/usr/bin"):
            self.skipTest("a loop device needs root and losetup")
        backing = self.folder / "backing.img"
        expected = random_file(backing, 8 * MIB)
        attached = subprocess.run(["losetup", "--show", "-f", backing], capture_output=True,
                                  text=True)
        if attached.returncode != 0:
            self.skipTest(f"no loop device here: {attached.stderr.strip()}")
        device = attached.stdout.strip()
        self.addCleanup(subprocess.run, ["losetup", "-d", device], check=False)
        guest = self.boot("--disk", device)
        self.assertEqual(guest.check("sha256sum < /dev/vda", timeout=300).split()[0], expected)
        guest.check("printf on-a-block-device | dd of=/dev/vda bs=512 seek=9 conv=fsync,notrunc")
        self.assertEqual(guest.leave(), 0)
        self.assertEqual(backing.read_bytes()[9 * 512:9 * 512 + 17], b"on-a-block-device")
