"""Programs for debuggers, and machines that wait for one.

Environment: HARTVISOR, BUILD; ENGINE (the engine, which the runner sets); DEBUG_SERVER=qemu runs
the sessions on QEMU's own stub, to try the tests: what that lacks is skipped.
"""

import functools
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
import unittest

from console import Console, Stream, die_with_parent
from guest import free_port
from remote import Remote

HERE = pathlib.Path(__file__).resolve().parent
PROGRAMS = HERE / "programs"
BUILD = pathlib.Path(os.environ["BUILD"])
HARTVISOR = os.environ["HARTVISOR"]
ENGINE = os.environ.get("ENGINE", "jit")
ON_QEMU = os.environ.get("DEBUG_SERVER") == "qemu"
QEMU = shutil.which(os.environ["QEMU"]) or "qemu-system-riscv64"

# Seconds that one session of a debugger may take, on a machine that does something else too.
SESSION_TIME = 30

FLAGS = ["--target=riscv64", "-march=rv64gc", "-mabi=lp64d", "-mcmodel=medany", "-mno-relax", "-g",
         "-std=gnu17", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-builtin", "-fno-pic",
         "-fno-omit-frame-pointer", "-fasynchronous-unwind-tables", "-nostdlib", "-static",
         "-fuse-ld=lld-19"]

# Name: layout, sources, further flags.
IMAGES = {
    "basic": ("bare.ld", ["start.S", "basic.c"], ["-O0"]),
    "basic-o1": ("bare.ld", ["start.S", "basic.c"], ["-O1"]),
    "harts": ("bare.ld", ["start.S", "harts.c"], ["-O1"]),
    "idle": ("bare.ld", ["start.S", "harts.c"], ["-O1", "-DIDLE"]),
    "access": ("bare.ld", ["start.S", "access.S"], []),
    "speed": ("bare.ld", ["start.S", "speed.c"], ["-O1"]),
    "kernel": ("kernel.ld", ["kernel_start.S", "kernel.c"], ["-O0"]),
}


@functools.cache
def image(name):
    """The path of a program; several processes may want it at once."""
    layout, sources, flags = IMAGES[name]
    folder = BUILD / "debug"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.elf"
    newest = max(file.stat().st_mtime for file in [*PROGRAMS.iterdir(), pathlib.Path(__file__)])
    if not path.exists() or path.stat().st_mtime < newest:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = pathlib.Path(scratch) / "program"
            subprocess.run(["clang-19", *FLAGS, *flags, f"-Wl,-T,{PROGRAMS / layout}",
                            *[PROGRAMS / source for source in sources], "-o", made], check=True)
            made.rename(path)
    return path


@functools.cache
def symbols(name):
    """{name: address} of a program."""
    text = subprocess.run(["llvm-nm-19", image(name)], check=True, capture_output=True,
                          text=True).stdout
    return {fields[2]: int(fields[0], 16) for fields in map(str.split, text.splitlines())}


@functools.cache
def line(source, mark):
    """The number of the line that is marked so."""
    for number, text in enumerate((PROGRAMS / source).read_text().splitlines(), 1):
        if f"line: {mark} */" in text:
            return number
    raise AssertionError(f"{source} has no line {mark}")


@functools.cache
def has_debugger():
    text = subprocess.run([HARTVISOR, "run", "--help"], capture_output=True, text=True).stdout
    return "--gdb" in text


class Target(Console):
    """A machine with a program, whose harts wait for a debugger (`wait`)."""

    def __init__(self, name, harts=1, wait=True, tcp=False, engine=None, options=()):
        self.name = name
        self.image = image(name)
        self.folder = tempfile.TemporaryDirectory(prefix="hartvisor-debug-")
        self.path = pathlib.Path(self.folder.name) / "gdb"
        self.port = free_port() if tcp else None
        command = self.qemu if ON_QEMU else self.hartvisor
        super().__init__(command(harts, wait, engine or ENGINE, list(options)))

    def hartvisor(self, harts, wait, engine, options):
        kind = "--kernel" if self.name == "kernel" else "--firmware"
        where = str(self.port) if self.port else f"unix:{self.path}"
        return [HARTVISOR, "run", kind, self.image, "--memory", "64M", "--cpus", harts,
                "--engine", engine, "--gdb", where, *(["--gdb-wait"] if wait else []), *options]

    def qemu(self, harts, wait, _engine, options):
        bios = "default" if self.name == "kernel" else "none"
        where = f"unix:{self.path},server=on,wait=off"
        if self.port:
            where = f"tcp:127.0.0.1:{self.port}"
        return [QEMU, "-M", "virt", "-nographic", "-m", "128M", "-smp", harts, "-bios", bios,
                "-kernel", self.image, "-gdb", where, *(["-S"] if wait else []), *options]

    @property
    def where(self):
        """As remote.Remote takes it."""
        return ("127.0.0.1", self.port) if self.port else self.path

    @property
    def gdb_name(self):
        """As gdb's `target remote` takes it."""
        return f"localhost:{self.port}" if self.port else str(self.path)

    def listening(self):
        """Waits until a debugger can connect, without doing so: a connection stops the harts."""
        until = time.monotonic() + 20
        while time.monotonic() < until:
            if self.process.poll() is not None:
                self.fail("the machine ended before a debugger came")
            if self.port and self.has_port() or self.path.exists():
                return self
            time.sleep(0.01)
        self.fail("the machine does not listen for a debugger")

    def has_port(self):
        wanted = f":{self.port:04X} "
        with open("/proc/net/tcp") as table:
            return any(wanted in row.split("st")[0][:22] + " " and " 0A " in row for row in table)

    def close(self):
        super().close()
        self.folder.cleanup()


class DebugTest(unittest.TestCase):
    """A test case with machines that end with it."""

    @classmethod
    def setUpClass(cls):
        if not ON_QEMU and not has_debugger():
            raise unittest.SkipTest(f"{HARTVISOR} has no --gdb")

    def target(self, name, **options):
        target = Target(name, **options)
        self.addCleanup(target.close)
        return target.listening()

    def remote(self, target, **options):
        client = Remote(target.where, **options)
        self.addCleanup(client.close)
        return client

    def ours_only(self, what):
        """For what QEMU's stub does not have."""
        if ON_QEMU:
            self.skipTest(f"QEMU's stub has no {what}")


def run_debugger(argv, lines=(), timeout=SESSION_TIME):
    """(status, whole output) of a debugger; without status: out of time. `lines` are what it is
    told on its standard input; a number is a pause of so many seconds."""
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, errors="replace",
                               preexec_fn=die_with_parent)
    timer = threading.Timer(timeout, process.kill)
    timer.start()
    try:
        output = Stream(process.stdout.fileno())
        with process.stdin as file:
            for text in lines:
                if isinstance(text, (int, float)):
                    time.sleep(text)
                else:
                    file.write(text + "\n")
                    file.flush()
    except BrokenPipeError:
        pass
    status = process.wait()
    late = not timer.is_alive()
    timer.cancel()
    output.thread.join(10)
    return None if late else status, output.text()


def check_session(test, target, argv, steps, answers, output, status):
    """Each step's answer against its pattern; one failure tells of all that did not match."""
    problems = []
    if status is None:
        problems.append(f"the debugger ran out of time ({SESSION_TIME} s)")
    for (command, pattern), answer in zip(steps, answers):
        if answer is None:
            problems.append(f"`{command}` was not reached")
        elif pattern is not None and not re.search(pattern, answer, re.S | re.M):
            problems.append(f"`{command}`: expected {pattern!r}, got:\n{indent(answer)}")
    if problems:
        console = target.output.text()[-2000:] + target.errors.text()[-2000:]
        test.fail("\n".join(problems) + f"\nmachine: {shlex.join(map(str, target.argv))}\n"
                  f"its console:\n{indent(console)}\nsession:\n{indent(output)}")


def indent(text):
    return "\n".join("    | " + part for part in text.rstrip().splitlines())


def gdb(test, target, steps, connect="target remote", settings=(), file=True, typed=False):
    """A session of gdb: `steps` are (command, pattern of its answer or None). Typed, gdb heeds
    what harts do between two commands, and numbers among the steps are pauses."""
    before = ["set pagination off", "set width 0", "set confirm off", "set remotetimeout 20",
              "set python print-stack full", *settings]
    if file:
        before.append(f"file {target.image}")
    if connect:
        before.append(f"{connect} {target.gdb_name}")
    lines = list(before)
    for step in steps:
        if isinstance(step, tuple):
            index = sum(text.startswith("echo ") for text in lines if isinstance(text, str))
            lines += [f"echo \\n@@{index}@ {escape_echo(step[0])}\\n", step[0]]
        else:
            lines.append(step)
    steps = [step for step in steps if isinstance(step, tuple)]
    argv = ["gdb-multiarch", "-nx"]
    if typed:
        status, output = run_debugger([*argv, "-q"], lines)
        output = re.sub(r"^(\(gdb\) )+", "", output, flags=re.M)
    else:
        argv += ["-batch", *[word for text in lines for word in ("-ex", text)]]
        status, output = run_debugger(argv)
    pieces = re.split(r"^@@(\d+)@ .*\n", output, flags=re.M)
    found = {int(pieces[i]): pieces[i + 1] for i in range(1, len(pieces) - 1, 2)}
    answers = [found.get(index) for index in range(len(steps))]
    check_session(test, target, argv, steps, answers, output, status)
    return answers


def escape_echo(command):
    return command.replace("\\", "\\\\").replace("\n", " ")


def lldb(test, target, steps, connect=True, file=True, settings=()):
    """A session of lldb, likewise."""
    before = ["settings set plugin.process.gdb-remote.packet-timeout 20", *settings]
    if file:
        before.append(f"target create {target.image}")
    if connect:
        before.append(f"gdb-remote 127.0.0.1:{target.port}")
    script = before
    for index, (command, _) in enumerate(steps):
        script += [f"script print('@@{index}@')", command]
    # Of commands on its command line lldb runs none after an error.
    path = pathlib.Path(target.folder.name) / "session.lldb"
    path.write_text("\n".join(script) + "\n")
    argv = ["lldb-19", "--no-lldbinit", "--batch", "--no-use-colors",
            "-o", f"command source --stop-on-error false --stop-on-continue false {path}"]
    status, output = run_debugger(argv)
    # The marks stand alone on lines; what lldb echoes of them does not.
    pieces = re.split(r"^@@(\d+)@\n", output, flags=re.M)
    found = {int(pieces[i]): clean(pieces[i + 1]) for i in range(1, len(pieces) - 1, 2)}
    answers = [found.get(index) for index in range(len(steps))]
    output = re.sub(r"^\(lldb\) script print.*\n@@\d+@\n", "", output, flags=re.M)
    check_session(test, target, argv, steps, answers, output, status)
    return answers


def clean(answer):
    return re.sub(r"^\(lldb\) script print.*\n?", "", answer, flags=re.M)
