"""The two commands that the README opens with, as a user types them."""

import pathlib
import subprocess
import time
import unittest

from console import Console

DEV = pathlib.Path(__file__).resolve().parent.parent.parent / "dev"


class Dev(unittest.TestCase):
    def dev(self, *arguments, **options):
        return subprocess.run([DEV, *arguments], capture_output=True, text=True, timeout=600,
                              stdin=subprocess.DEVNULL, **options)

    def test_command_and_nothing_but_its_output(self):
        done = self.dev("run", "uname", "-m")
        self.assertEqual((done.returncode, done.stdout), (0, "riscv64\n"), done.stderr)

    def test_words_and_status_arrive_as_they_are(self):
        words = ["", "two  words", "it's", '"$HOME"', "*", "line\nbreak", "\\"]
        done = self.dev("run", "-c", "2", "--", "sh", "-c",
                        'nproc; printf "<%s>" "$@"; cat; exit 7', "sh", *words)
        self.assertEqual(done.stdout, "2\n" + "".join(f"<{word}>" for word in words),
                         done.stderr)
        self.assertEqual(done.returncode, 7)

    def test_shell_on_a_terminal(self):
        console = Console(["sh", "-c", f"stty rows 33 cols 99; exec {DEV} run"], terminal=True)
        self.addCleanup(console.close)
        console.expect("# ", 300)
        console.send("echo $((6 * 7))-is-the-answer; stty size; sleep 500\n")
        console.expect(r"42-is-the-answer\s+33 99\s", 60)
        # Ctrl-C is for the guest's sleep, which takes a moment to start.
        time.sleep(2)
        console.send(b"\x03")
        console.expect("# ", 60)
        console.send("exit 5\n")
        self.assertEqual(console.wait(60), 5)

    def test_bad_options_are_hartvisor_s_own_failure(self):
        done = self.dev("run", "--warp", "9")
        self.assertEqual(done.returncode, 125)
        self.assertIn("--warp", done.stderr)

    def test_help_and_unknown_commands(self):
        done = self.dev("help")
        self.assertEqual(done.returncode, 0)
        for command in ("setup", "build", "run", "test", "bench", "fuzz", "format", "lint"):
            self.assertIn(f"./dev {command}", done.stdout)
        done = self.dev("fly")
        self.assertEqual(done.returncode, 1)
        self.assertIn("fly", done.stderr)
