"""The 9p share: files pass both ways unchanged, and nothing outside the directory is reached."""

import hashlib
import os
import random
import stat

from guest import GuestTest, KERNEL, run_hartvisor


class Share(GuestTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.share = cls.class_folder / "share"
        cls.share.mkdir()
        (cls.class_folder / "secret").write_text("outside the share\n")
        (cls.share / "from-host").write_text("hello guest\n")
        cls.large = random.Random(5).randbytes(9_000_000)
        (cls.share / "large").write_bytes(cls.large)
        (cls.share / "many").mkdir()
        for number in range(500):
            (cls.share / "many" / f"a-file-with-a-longer-name-{number}").write_text(str(number))
        (cls.share / "way-out").symlink_to("../secret")
        (cls.share / "directory-out").symlink_to("..")
        (cls.share / "absolute").symlink_to("/etc/os-release")
        cls.guest = cls.boot_for_class("--share", cls.share)

    def test_guest_reads(self):
        self.assertEqual(self.guest.check("cat /mnt/host/from-host"), "hello guest")

    def test_guest_reads_much(self):
        output = self.guest.check("sha256sum < /mnt/host/large", timeout=300)
        self.assertEqual(output.split()[0], hashlib.sha256(self.large).hexdigest())

    def test_guest_writes(self):
        output = self.guest.check("head -c 5000000 /dev/urandom > /mnt/host/from-guest; "
                                  "sha256sum < /mnt/host/from-guest", timeout=300)
        data = (self.share / "from-guest").read_bytes()
        self.assertEqual(len(data), 5000000)
        self.assertEqual(output.split()[0], hashlib.sha256(data).hexdigest())

    def test_guest_appends_and_truncates(self):
        self.guest.check("cd /mnt/host; printf one > log; printf two >> log; cp log short; "
                         "truncate -s 2 short; truncate -s 9 log")
        self.assertEqual((self.share / "log").read_bytes(), b"onetwo\0\0\0")
        self.assertEqual((self.share / "short").read_bytes(), b"on")

    def test_large_directory(self):
        names = self.guest.check("ls /mnt/host/many").split()
        self.assertEqual(sorted(names), sorted(os.listdir(self.share / "many")))

    def test_tree_operations(self):
        self.guest.check("cd /mnt/host; mkdir -p tree/a/b; echo 1 > tree/a/b/file; "
                         "mv tree/a/b/file tree/moved; rmdir tree/a/b; ln tree/moved tree/hard; "
                         "ln -s moved tree/soft; chmod 640 tree/moved; "
                         "touch -d '2001-02-03 04:05:06' tree/moved")
        tree = self.share / "tree"
        self.assertEqual(sorted(os.listdir(tree)), ["a", "hard", "moved", "soft"])
        self.assertEqual(os.readlink(tree / "soft"), "moved")
        status = os.stat(tree / "moved")
        self.assertEqual(stat.S_IMODE(status.st_mode), 0o640)
        self.assertEqual((status.st_nlink, int(status.st_mtime)), (2, 981173106))
        self.guest.check("rm -r /mnt/host/tree")
        self.assertFalse(tree.exists())

    def test_missing_file(self):
        status, output = self.guest.run("cat /mnt/host/nothing-here")
        self.assertNotEqual(status, 0)
        self.assertIn("No such file", output)

    def test_removed_while_open(self):
        self.assertEqual(self.guest.check("cd /mnt/host; echo kept > open; exec 3< open; rm open; "
                                          "cat <&3"), "kept")

    def test_links_do_not_lead_out(self):
        # The guest follows a link itself, in its own tree: /mnt/host/../secret is not there.
        for path in ("way-out", "directory-out/secret", "../secret"):
            status, output = self.guest.run(f"cat /mnt/host/{path}")
            self.assertNotEqual(status, 0, path)
            self.assertNotIn("outside the share", output)
        status, _ = self.guest.run("cat /mnt/host/absolute")
        self.assertNotEqual(status, 0)

    def test_file_system_size(self):
        size = self.guest.check("df -P /mnt/host | tail -1").split()
        self.assertGreater(int(size[1]), 0)


class Variants(GuestTest):
    def test_read_only_share(self):
        (self.folder / "file").write_text("as it was\n")
        guest = self.boot("--share", f"{self.folder},ro")
        self.assertEqual(guest.check("cat /mnt/host/file"), "as it was")
        for command in ("echo x > /mnt/host/file", "echo x > /mnt/host/new", "rm /mnt/host/file",
                        "mkdir /mnt/host/folder", "chmod 600 /mnt/host/file",
                        "mv /mnt/host/file /mnt/host/other"):
            status, _ = guest.run(command)
            self.assertNotEqual(status, 0, command)
        self.assertEqual(guest.leave(), 0)
        self.assertEqual(os.listdir(self.folder), ["file"])
        self.assertEqual((self.folder / "file").read_text(), "as it was\n")

    def test_several_shares_have_tags(self):
        for name in ("one", "two"):
            (self.folder / name).mkdir()
            (self.folder / name / "name").write_text(name)
        guest = self.boot("--share", f"{self.folder / 'one'},tag=first",
                          "--share", f"{self.folder / 'two'},tag=second")
        for tag, name in (("first", "one"), ("second", "two")):
            guest.check(f"mkdir /mnt/{tag}; mount -t 9p -o trans=virtio,version=9p2000.L "
                        f"{tag} /mnt/{tag}")
            self.assertEqual(guest.check(f"cat /mnt/{tag}/name"), name)
        self.assertEqual(guest.leave(), 0)

    def test_no_directory(self):
        done = run_hartvisor("run", "--kernel", KERNEL, "--share", self.folder / "absent")
        self.assertEqual(done.returncode, 125)
        self.assertIn("absent", done.stderr)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
