"""`./dev run --debian`: systemd, a root disk and apt, as a user meets them. Only in long runs: the
disk is made if it is missing, and packages come from the archive."""

import pathlib
import subprocess
import unittest

from console import Console
from guest import LONG

DEV = pathlib.Path(__file__).resolve().parent.parent.parent / "dev"

# Seconds that making the disk, and a start, may take on a slow machine that does something else.
MAKING_TIME = 3600
START_TIME = 600


class _Debian(unittest.TestCase):
    """In snapshots of the disk, so that it stays as it is."""

    @classmethod
    def setUpClass(cls):
        subprocess.run([DEV, "run", "--debian,snapshot", "true"], check=True, timeout=MAKING_TIME,
                       stdin=subprocess.DEVNULL)

    def test_words_and_status_arrive_as_they_are(self):
        words = ["", "two  words", "it's", '"$HOME"', "*", "line\nbreak", "\\"]
        done = subprocess.run(
            [DEV, "run", "--debian,snapshot", "-c", "2", "--", "sh", "-c",
             'nproc; printf "<%s>" "$@"; cat; systemctl is-system-running; exit 7', "sh", *words],
            capture_output=True, text=True, timeout=START_TIME, stdin=subprocess.DEVNULL)
        self.assertEqual(done.stdout, "2\n" + "".join(f"<{word}>" for word in words) + "running\n",
                         done.stderr)
        self.assertEqual(done.returncode, 7)

    def test_shell_and_packages(self):
        console = Console(["sh", "-c", f"stty rows 33 cols 99; exec {DEV} run --debian,snapshot"],
                          terminal=True)
        self.addCleanup(console.close)
        console.expect(r"root@hartvisor:~# ", START_TIME)

        def run(command, timeout=START_TIME):
            console.send(f"{command}; echo ended with $?.\n")
            match = console.expect(r"(.*)ended with (\d+)\.", timeout)
            self.assertEqual(match[2], b"0", f"{command}:\n{match[1].decode(errors='replace')}")
            return match[1].decode(errors="replace")

        self.assertIn("running", run("systemctl is-system-running --wait"))
        self.assertIn("33 99", run("stty size"))
        run("apt-get -q update")
        run("apt-get -q install -y hello")
        self.assertIn("Hello, world!", run("hello"))
        console.send("exit\n")
        self.assertEqual(console.wait(START_TIME), 0)


if LONG:
    Debian = _Debian
