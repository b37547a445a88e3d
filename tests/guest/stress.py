"""Half an hour (STRESS_SECONDS) of work in a Debian guest with two harts, where every result is
compared with what the host has computed: compilers, Python, SQLite, threads, processes and files
at once (stress/run). Only in long runs."""

import os
import pathlib
import sqlite3
import subprocess
import sys
import tempfile
import unittest

from console import Console
from guest import APPEND, HARTVISOR, KERNEL, LONG, make_initrd

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PROGRAMS = HERE / "stress"
DISK = ROOT / "build" / "debian" / "disk.img"
TOOLS_DISK = DISK.with_name("stress.img")

SECONDS = int(os.environ.get("STRESS_SECONDS", "1800"))
SEED = int(os.environ.get("SEED", "1")) % 10**6
ANSWERS = 12


def start(folder, disk, command, *options):
    """The system on the disk, with a command as `./dev run --debian` hands it over."""
    initrd = make_initrd(folder, {"command": command, "etc/environment": "COMMAND_TTY=\n"})
    return Console([HARTVISOR, "run", "--memory", "1G", "--net", "user", "--kernel", KERNEL,
                    "--initrd", initrd, "--append", f"{APPEND} root=/dev/vda TERM=dumb",
                    "--disk", disk, *options], stdin=subprocess.DEVNULL)


def make_tools_disk(folder):
    """The Debian disk with the packages that the work needs, made once."""
    subprocess.run([ROOT / "dev", "run", "--debian,snapshot", "true"], check=True,
                   stdin=subprocess.DEVNULL)
    if TOOLS_DISK.exists() and TOOLS_DISK.stat().st_mtime > DISK.stat().st_mtime:
        return
    new = TOOLS_DISK.with_suffix(".new")
    subprocess.run(["cp", "--sparse=always", DISK, new], check=True)
    guest = start(folder, new, "set -e\napt-get -q update\nDEBIAN_FRONTEND=noninteractive "
                  "apt-get -q install -y --no-install-recommends gcc libc6-dev python3 sqlite3\n")
    status = guest.wait(3600)
    if status != 0:
        guest.fail(f"installing packages in the guest ended with {status}")
    new.rename(TOOLS_DISK)


def database_answer(number):
    """What the command line of SQLite prints for the queries."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    lines = []
    text = (PROGRAMS / "queries.sql").read_text().replace(":seed", str(SEED + number))
    for statement in text.split(";\n"):
        lines += ["|".join(map(str, row)) for row in database.execute(statement)]
    return "".join(line + "\n" for line in lines)


def write_answers(folder):
    """One file for each way of working and number."""
    for name, options in (("compute", ["-lm"]), ("threads", [])):
        subprocess.run([os.environ.get("CC", "gcc"), "-O2", "-ffp-contract=off", "-pthread",
                        PROGRAMS / f"{name}.c", "-o", folder / name, *options], check=True)
    for number in range(ANSWERS):
        seed = str(SEED + number)

        def output(*command, **options):
            return subprocess.run(command, check=True, capture_output=True, text=True,
                                  **options).stdout

        squares = "".join(f"{i * i + SEED + number}\n" for i in range(1, 101))
        answers = {
            "compute": output(folder / "compute", seed),
            "threads": output(folder / "threads", seed),
            "python": output(sys.executable, PROGRAMS / "compute.py", seed),
            "sqlite": database_answer(number),
            "forks": output("cksum", input=squares),
            "files": "same\n",
        }
        for name, text in answers.items():
            (folder / f"{name}.{number}").write_text(text)


class _Stress(unittest.TestCase):
    def test_every_result_is_right(self):
        with tempfile.TemporaryDirectory(prefix="hartvisor-stress-") as name:
            folder = pathlib.Path(name)
            make_tools_disk(folder)
            shared = folder / "shared"
            (shared / "answers").mkdir(parents=True)
            for path in filter(pathlib.Path.is_file, PROGRAMS.iterdir()):
                (shared / path.name).write_bytes(path.read_bytes())
            write_answers(shared / "answers")
            guest = start(folder, f"{TOOLS_DISK},snapshot",
                          f"exec sh /mnt/host/run {SECONDS} {SEED} {ANSWERS}\n",
                          "--cpus", "2", "--share", f"{shared},ro")
            self.addCleanup(guest.close)
            status = guest.wait(2 * SECONDS + 1200)
            print(f"SEED={SEED}", guest.output.text(), sep="\n", flush=True)
            if status != 0:
                guest.fail(f"SEED={SEED}: ended with status {status}")


if LONG:
    Stress = _Stress
