"""The programs in docs/examples, and the control prompt on a terminal."""

import os
import pathlib
import re
import subprocess

from guest import GuestTest, HARTVISOR
from console import Console
from program import assemble

EXAMPLES = pathlib.Path(HARTVISOR).parent / "docs" / "examples"

# Counts in memory for so many ticks of 0.1 us, then reports a failure to the test finisher.
COUNT = """
.globl _start
_start: la t0, counter
        li t1, 0
        li t2, 0x0200bff8
        ld t3, 0(t2)
        li t4, TICKS
        add t3, t3, t4
1:      addi t1, t1, 1
        sd t1, 0(t0)
        ld t4, 0(t2)
        bltu t4, t3, 1b
        li t0, 0x100000
        li t1, (7 << 16) | 0x3333
        sw t1, 0(t0)
2:      j 2b
        .org _start + 0x1000
counter: .dword 0
"""

# Sends back what the serial port receives.
ECHO = """
.globl _start
_start: li t0, 0x10000000
1:      lbu t1, 5(t0)
        andi t1, t1, 1
        beqz t1, 1b
        lbu t1, 0(t0)
        sb t1, 0(t0)
        j 1b
"""


class Boot(GuestTest):
    def run_example(self, *arguments):
        return subprocess.run([EXAMPLES / "boot", *map(str, arguments)], capture_output=True,
                              text=True, timeout=120, stdin=subprocess.DEVNULL)

    def test_peeks_into_a_running_guest(self):
        program = assemble(self.folder, COUNT, TICKS=20_000_000)
        done = self.run_example(program, "0x80001000", "100")
        self.assertEqual(done.returncode, 7, done.stderr)
        line = re.search(r"^0000000080001000: (.*)$", done.stderr, re.M)
        counter = int.from_bytes(bytes.fromhex(line[1])[:8], "little")
        self.assertGreater(counter, 0)
        states = re.findall(r"the machine is (\w+)", done.stderr)
        self.assertEqual(states, ["running", "paused", "running", "ended"])

    def test_machine_that_ends_before_it_looks(self):
        program = assemble(self.folder, COUNT, TICKS=3)
        for milliseconds in range(0, 20, 2):
            done = self.run_example(program, "0x80001000", milliseconds)
            self.assertEqual(done.returncode, 7, done.stderr)

    def test_mistakes(self):
        for arguments in ([], ["--nonsense", "x"], [self.folder / "absent"]):
            done = self.run_example(*arguments)
            self.assertEqual(done.returncode, 125, done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)


class Debug(GuestTest):
    def test_steps_through_a_firmware(self):
        program = assemble(self.folder, COUNT, TICKS=3)
        done = subprocess.run([EXAMPLES / "debug", program], capture_output=True, text=True,
                              timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        addresses = re.findall(r"^(\d) instructions: pc is (0x\w+)$", done.stdout, re.M)
        self.assertEqual(addresses[:2] + addresses[6:],
                         [("0", "0x1000"), ("1", "0x1004"), ("6", "0x80000000"),
                          ("7", "0x80000004")])


class Prompt(GuestTest):
    def test_commands_at_the_terminal(self):
        program = assemble(self.folder, ECHO)
        console = Console([HARTVISOR, "run", "-f", program, "-m", "16M"], terminal=True)
        self.addCleanup(console.close)
        # Answered only once hartvisor has the terminal; before, the terminal echoes by itself.
        console.send("\x01h")
        console.expect("Ctrl-A x", 30)
        console.send("to-the-guest")
        console.expect("to-the-guest", 30)
        console.send("\x01c")
        console.expect(r"\(hartvisor\) ", 30)
        for line, expected in (("status", "status: running"), ("stop", ""),
                               ("query-status", "status: paused"), ("cont", ""),
                               ("stauts", "did you mean 'status'"), ("stop now=1", "'now'"),
                               ("help", "system_powerdown"), ("version", "package: hartvisor"),
                               ("reset", "")):
            with self.subTest(line=line):
                console.send(line + "\r")
                console.expect(f"{expected}.*?\\(hartvisor\\) ", 30)
        console.send("\x01c")
        console.send("again-to-the-guest")
        console.expect("again-to-the-guest", 30)
        console.send("\x01cq\r")
        self.assertEqual(console.wait(30), 0)


class Gpu(GuestTest):
    def run_example(self, *arguments):
        environment = {**os.environ, "HARTVISOR_GPU": str(EXAMPLES.parent.parent / "hartvisor-gpu")}
        return subprocess.run([EXAMPLES / "gpu", *arguments], capture_output=True, text=True,
                              timeout=60, env=environment)

    def test_statistics(self):
        done = self.run_example("2d")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("2d draws", done.stdout)
        self.assertRegex(done.stdout, r"frames presented +0")

    def test_chain(self):
        done = self.run_example("wgpu,2d")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, "^(wgpu|2d) draws")

    def test_unknown(self):
        done = self.run_example("voodoo")
        self.assertEqual(done.returncode, 1)
        self.assertIn("'voodoo'", done.stderr)
