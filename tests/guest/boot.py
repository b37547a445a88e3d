"""The Debian kernel boots, sees the machine it was given, and ends as it should."""

import hashlib
import time

from guest import GuestTest, fields, run_hartvisor, KERNEL


class _Machine:
    """What holds for any number of harts, checked in one guest."""

    harts = 1

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.guest = cls.boot_for_class("--cpus", cls.harts, memory="768M")

    def test_harts_are_online(self):
        self.assertEqual(self.guest.check("nproc"), str(self.harts))

    def test_architecture(self):
        self.assertEqual(self.guest.check("uname -m"), "riscv64")

    def test_extensions_are_announced(self):
        cpus = self.guest.check("cat /proc/cpuinfo")
        isas = [value for key, value in fields(cpus) if key == "hart isa"] or \
            [value for key, value in fields(cpus) if key == "isa"]
        self.assertEqual(len(isas), self.harts)
        for isa in isas:
            self.assertTrue(isa.startswith("rv64imafdc"), isa)
            for extension in ("zba", "zbb", "zbs", "zicbom", "zicboz", "zicond", "zfh", "zacas",
                              "sstc", "svinval", "svnapot", "svpbmt"):
                self.assertIn(f"_{extension}", isa)

    def test_memory_size(self):
        total = int(dict(fields(self.guest.check("cat /proc/meminfo")))["MemTotal"].split()[0])
        self.assertGreater(total, 600 * 1024)
        self.assertLess(total, 768 * 1024)

    def test_clock_agrees_with_host(self):
        # The RTC sets the guest's clock; afterwards it must run at the host's pace.
        began = time.time()
        first = float(self.guest.check("cat /sys/class/rtc/rtc0/since_epoch"))
        self.assertAlmostEqual(first, began, delta=30)
        uptime = float(self.guest.check("cat /proc/uptime").split()[0])
        middle = time.monotonic()
        time.sleep(3)
        passed = float(self.guest.check("cat /proc/uptime").split()[0]) - uptime
        self.assertAlmostEqual(passed, time.monotonic() - middle, delta=1.5)

    def test_random_numbers(self):
        first, second = (self.guest.check("head -c 4096 /dev/hwrng | sha256sum") for _ in range(2))
        self.assertNotEqual(first, second)
        self.assertIn("virtio", self.guest.check("cat /sys/class/misc/hw_random/rng_current"))

    def test_console_input_is_complete(self):
        # Longer than any FIFO, in lines that the guest's line discipline can hold.
        text = "".join(f"{number:04} " + "abcdefghijklmnopqrstuvwxyz" * 3 + "\n"
                       for number in range(100))
        status, output = self.guest.run(f"cat << 'END' | sha256sum\n{text}END", timeout=120)
        self.assertEqual(status, 0)
        self.assertEqual(output.split()[0], hashlib.sha256(text.encode()).hexdigest())

    def test_console_output_is_complete(self):
        output = self.guest.check("seq 1 5000", timeout=120)
        self.assertEqual(output.split(), [str(number) for number in range(1, 5001)])

    def test_floating_point_and_programs(self):
        output = self.guest.check("awk 'BEGIN { for (i = 1; i <= 2000; i++) s += 1 / (i * i); "
                                  "printf \"%.12f\", s }'")
        self.assertEqual(output, "1.644434191827")

    def test_processes(self):
        output = self.guest.check("for i in $(seq 40); do sh -c 'echo $$' & done; wait")
        self.assertEqual(len(set(output.split())), 40)

    def test_no_complaints_of_the_kernel(self):
        log = self.guest.check("dmesg -r")
        bad = [line for line in log.splitlines()
               if line.startswith(("<0>", "<1>", "<2>", "<3>"))]
        self.assertEqual(bad, [])
        for word in ("Oops", "BUG:", "WARNING:", "rcu: INFO", "soft lockup", "call trace"):
            self.assertNotIn(word, log)


class OneHart(_Machine, GuestTest):
    harts = 1


class FourHarts(_Machine, GuestTest):
    harts = 4

    def test_each_hart_works(self):
        for cpu in range(self.harts):
            seen = self.guest.check(f"taskset {1 << cpu:x} sh -c "
                                    "'i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; "
                                    "set -- $(cat /proc/self/stat); shift 38; echo $1'")
            self.assertEqual(seen, str(cpu))

    def test_harts_share_memory(self):
        # Writers on all harts append to one file; no line may be lost or torn.
        self.guest.check(
            "rm -f /tmp/lines; for cpu in 1 2 4 8; do taskset $cpu sh -c "
            "'i=0; while [ $i -lt 300 ]; do echo line-$i >> /tmp/lines; i=$((i+1)); done' & done;"
            " wait", timeout=300)
        counts = self.guest.check("sort /tmp/lines | uniq -c | awk '{print $1}' | sort -u")
        self.assertEqual(counts, "4")
        self.assertEqual(self.guest.check("wc -l < /tmp/lines").strip(), "1200")

    def test_hart_goes_off_and_on(self):
        control = "/sys/devices/system/cpu/cpu3/online"
        self.guest.check(f"echo 0 > {control}")
        self.assertEqual(self.guest.check("nproc"), "3")
        self.guest.check(f"echo 1 > {control}")
        self.assertEqual(self.guest.check("nproc"), "4")

    def test_interrupts_between_harts(self):
        self.guest.check("for i in $(seq 20); do taskset 1 true; taskset 8 true; done")
        lines = self.guest.check("grep IPI /proc/interrupts")
        self.assertGreater(sum(int(word) for word in lines.split() if word.isdigit()), 0)


class Ending(GuestTest):
    def test_status_of_the_command(self):
        for status in (42, 255):
            with self.subTest(status=status):
                guest = self.boot("--memory", "512M")
                self.assertEqual(guest.leave(status), status)

    def test_poweroff(self):
        guest = self.boot()
        guest.send("poweroff -f\n")
        self.assertEqual(guest.wait(60), 0)

    def test_reboot_comes_up_again(self):
        guest = self.boot("--cpus", "2")
        first = guest.check("cat /proc/sys/kernel/random/boot_id")
        guest.send("reboot -f\n")
        guest.booted()
        second = guest.check("cat /proc/sys/kernel/random/boot_id")
        self.assertNotEqual(first, second)
        self.assertEqual(guest.check("nproc"), "2")
        self.assertEqual(guest.leave(3), 3)

    def test_finisher_reset(self):
        guest = self.boot()
        guest.send("devmem 0x100000 32 0x7777\n")
        guest.booted()
        self.assertEqual(guest.leave(), 0)


class KernelFormats(GuestTest):
    """The same kernel in the forms that it may arrive in."""

    def boots(self, kernel):
        guest = self.boot("--kernel", kernel)
        self.assertEqual(guest.leave(), 0)

    def test_gzip(self):
        import gzip
        path = self.folder / "Image.gz"
        path.write_bytes(gzip.compress(KERNEL.read_bytes(), 1))
        self.boots(path)

    def test_zstd(self):
        import subprocess
        path = self.folder / "Image.zst"
        subprocess.run(["zstd", "-q", "-1", KERNEL.resolve(), "-o", path], check=True)
        self.boots(path)


class Limits(GuestTest):
    def test_image_larger_than_memory(self):
        done = run_hartvisor("run", "--kernel", KERNEL, "--memory", "16M")
        self.assertEqual(done.returncode, 125, done.stderr)
        self.assertIn("16M", done.stderr + " 16 MiB".replace("16 MiB", "16M"))
        self.assertIn("--memory", done.stderr)
