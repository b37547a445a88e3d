"""--symbols and --profile: backtraces of guests that crash, and where others spend their time."""

import collections
import re
import signal
import time

from guest import ENGINE, GuestTest, run_hartvisor
from program import compile_kernel

# Crashes in a function that is called from one that was inlined.
CRASH = """
#define NOINLINE __attribute__((noinline)) static
NOINLINE void store(volatile int *where)
{
    *where = 1; // line 5
    asm volatile("" ::: "memory");
}
static inline __attribute__((always_inline)) void inlined(volatile int *where)
{
    asm volatile("" ::: "memory");
    store(where); // line 11
    asm volatile("" ::: "memory");
}
NOINLINE int outer(int n)
{
    volatile char room[64];
    room[n] = 1;
    inlined((volatile int *)0x40); // line 18
    return room[n];
}
int main(void)
{
    int value = outer(3); // line 23
    asm volatile("" ::: "memory");
    return value + 1;
}
"""

# 80 of 100 rounds of the work are often's.
WORK = """
#define NOINLINE __attribute__((noinline)) static
NOINLINE unsigned long work(unsigned long value, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++)
        value = (value ^ (value << 13)) + (value >> 7);
    return value;
}
static volatile unsigned long sink;
NOINLINE void often(void) { sink = work(sink, 800); asm volatile(""); }
NOINLINE void seldom(void) { sink = work(sink, 200); asm volatile(""); }
int main(void)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        often();
        seldom();
        asm volatile("");
    }
    return 0;
}
"""

# Most of the time goes into a function without a loop.
STRAIGHT = '''
#define NOINLINE __attribute__((noinline)) static
NOINLINE unsigned long straight(unsigned long v)
{
    asm volatile(".rept 400\\n add %0, %0, %0\\n xori %0, %0, 85\\n .endr" : "+r"(v));
    return v;
}
int main(void)
{
    unsigned long v = 1;
    for (unsigned i = 0; i < 1000000; i++)
        v = straight(v) + 1;
    return v == 0;
}
'''

# Reports a failure of the system (SBI system_reset), or waits for nothing.
SBI = """
__attribute__((noinline)) static void give_up(void)
{
    register unsigned long a0 asm("a0") = 0, a1 asm("a1") = 1, a6 asm("a6") = 0,
        a7 asm("a7") = 0x53525354;
    asm volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a6), "r"(a7) : "memory");
}
int main(void)
{
    while (WAITS)
        asm volatile("wfi");
    give_up();
    asm volatile("");
    return 0;
}
"""

FRAMES = ("-g0", "-fno-omit-frame-pointer")


class Symbols(GuestTest):
    def run_kernel(self, program, *options, **rest):
        return run_hartvisor("run", *ENGINE, "--memory", "64M", "--kernel", program, *options,
                             **rest)

    def frames(self, text):
        """The frames of a backtrace as texts, without number and address."""
        return re.findall(r"^hartvisor:   #\d+ +[0-9a-f]{16} (.*)$", text, re.M)

    def test_backtrace_with_lines(self):
        program = compile_kernel(self.folder, CRASH, "-g")
        done = self.run_kernel(program, "--symbols", program)
        self.assertEqual(done.returncode, 125, done.stderr)
        self.assertIn("hart 0: backtrace:", done.stderr)
        frames = self.frames(done.stderr)
        patterns = [r"store\+0x\w+ \(program\.c:5\)", r"inlined \(program\.c:11\), inlined in",
                    r"outer\+0x\w+ \(program\.c:18\)", r"main\+0x\w+ \(program\.c:23\)",
                    r"_start\+0x\w+ \(start\.S:6\)"]
        self.assertEqual(len(frames), len(patterns), done.stderr)
        for frame, pattern in zip(frames, patterns):
            self.assertRegex(frame, f"^{pattern}$")

    def test_backtrace_by_frame_pointers(self):
        program = compile_kernel(self.folder, CRASH, *FRAMES)
        done = self.run_kernel(program, "--symbols", program)
        names = [frame.split("+")[0] for frame in self.frames(done.stderr)]
        self.assertEqual(names, ["store", "outer", "main", "_start"], done.stderr)

    def test_no_backtrace_without_symbols(self):
        program = compile_kernel(self.folder, CRASH, "-g")
        done = self.run_kernel(program)
        self.assertEqual(done.returncode, 125)
        self.assertNotIn("backtrace", done.stderr)

    def test_linked_elsewhere(self):
        program = compile_kernel(self.folder, CRASH, "-g")
        moved = compile_kernel(self.folder, CRASH, "-g", name="moved", address=0x1000)
        done = self.run_kernel(program, "--symbols", f"{moved},0x801ff000")
        self.assertIn("(moved.c:5)", done.stderr)

    def test_system_failure(self):
        program = compile_kernel(self.folder, SBI, "-g", "-DWAITS=0")
        done = self.run_kernel(program, "--symbols", program)
        self.assertEqual(done.returncode, 1)
        self.assertIn("failure of its system", done.stderr)
        names = [frame.split("+")[0] for frame in self.frames(done.stderr)]
        self.assertEqual(names, ["give_up", "main", "_start"], done.stderr)


class Profile(GuestTest):
    def read(self, path):
        """{stack: count}"""
        stacks = {}
        for line in path.read_text().splitlines():
            stack, count = line.rsplit(" ", 1)
            self.assertNotIn(stack, stacks)
            stacks[stack] = int(count)
        return stacks

    def under(self, stacks, name):
        return sum(count for stack, count in stacks.items() if name in stack.split(";"))

    def profile(self, source, *options, symbols=True):
        program = compile_kernel(self.folder, source, *options)
        path = self.folder / "profile"
        words = ["--symbols", program] if symbols else []
        done = run_hartvisor("run", *ENGINE, "--memory", "64M", "--kernel", program, "--profile",
                             path, *words, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        return self.read(path)

    def test_share_of_a_function(self):
        for options in (("-g",), FRAMES):
            with self.subTest(" ".join(options)):
                stacks = self.profile(WORK, "-DROUNDS=400000", *options)
                total = sum(stacks.values())
                self.assertGreater(total, 100)
                self.assertTrue(all(stack.startswith("hart 0;supervisor;") for stack in stacks),
                                stacks)
                # What is between two samples is not exact, nor is a host with other work.
                self.assertAlmostEqual(self.under(stacks, "often") / total, 0.8, delta=0.1)
                self.assertAlmostEqual(self.under(stacks, "seldom") / total, 0.2, delta=0.1)
                deepest = stacks["hart 0;supervisor;_start;main;often;work"]
                self.assertGreater(deepest / total, 0.6, stacks)

    def test_function_without_a_loop(self):
        stacks = self.profile(STRAIGHT, "-g")
        self.assertGreater(self.under(stacks, "straight") / sum(stacks.values()), 0.9, stacks)

    def test_addresses_without_symbols(self):
        stacks = self.profile(WORK, "-DROUNDS=100000", *FRAMES, symbols=False)
        for stack in stacks:
            self.assertRegex(stack, r"^hart 0;supervisor(;0x80200[0-9a-f]{3})+$")

    def test_file_that_cannot_be_written(self):
        program = compile_kernel(self.folder, WORK, "-DROUNDS=100000")
        done = run_hartvisor("run", "--kernel", program, "--profile", "/dev/full")
        self.assertEqual(done.returncode, 125)
        self.assertRegex(done.stderr, "--profile.*/dev/full.*No space left")

    def test_waiting_harts_and_signals(self):
        program = compile_kernel(self.folder, SBI, "-DWAITS=1")
        path = self.folder / "profile"
        console = self.start("run", *ENGINE, "--memory", "64M", "--kernel", program,
                             "--profile", path, "--symbols", program)
        time.sleep(2)
        console.process.send_signal(signal.SIGTERM)
        self.assertEqual(console.wait(30), 128 + signal.SIGTERM)
        stacks = self.read(path)
        waiting = stacks["hart 0;[wfi]"]
        self.assertGreater(waiting, 100)
        self.assertLess(waiting, 4000)
        self.assertGreater(waiting / sum(stacks.values()), 0.9)


class Linux(GuestTest):
    """The Debian kernel, named by its own /proc/kallsyms."""

    def setUp(self):
        super().setUp()
        self.table = self.class_folder / "kallsyms"
        if not self.table.exists():
            guest = self.boot("--share", self.class_folder)
            guest.check("cat /proc/kallsyms > /mnt/host/new && mv /mnt/host/new /mnt/host/kallsyms")
            self.assertEqual(guest.leave(), 0)

    def wait_for_panic(self, guest):
        until = time.monotonic() + 120
        while "handle_exception+" not in guest.errors.text():
            self.assertLess(time.monotonic(), until, guest.errors.text())
            time.sleep(0.1)
        text = guest.errors.text()
        self.assertIn("the kernel panicked:", text)
        for name in ("panic", "sysrq_handle_crash", "vfs_write", "ksys_write"):
            self.assertRegex(text, rf"#\d+ +ffffffff[0-9a-f]{{8}} {name}\+0x")

    def test_panic_that_resets(self):
        guest = self.boot("--symbols", self.table)
        guest.send("echo -1 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger\n")
        self.wait_for_panic(guest)

    def test_panic_that_stays(self):
        guest = self.boot("--symbols", self.table, "--cpus", "2")
        guest.send("echo 0 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger\n")
        guest.expect("Kernel panic", 60)
        guest.process.send_signal(signal.SIGTERM)
        self.wait_for_panic(guest)
        self.assertEqual(guest.wait(30), 128 + signal.SIGTERM)

    def test_profile(self):
        path = self.folder / "profile"
        guest = self.boot("--symbols", self.table, "--profile", path, "--cpus", "2")
        guest.check("dd if=/dev/urandom of=/dev/null bs=64k count=200 2> /dev/null")
        self.assertEqual(guest.leave(), 0)
        counts = collections.Counter()
        for line in path.read_text().splitlines():
            stack, count = line.rsplit(" ", 1)
            for name in set(stack.split(";")):
                counts[name] += int(count)
        for name in ("hart 0", "hart 1", "[wfi]", "supervisor", "user", "handle_exception",
                     "start_kernel", "urandom_read_iter"):
            self.assertGreater(counts[name], 0, name)
