"""A process whose console a test reads and types on, bounded in time and never left behind."""

import atexit
import ctypes
import os
import pty
import re
import shlex
import signal
import subprocess
import threading
import time

PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)

# Seconds that a boot may take on a slow machine that does something else too.
BOOT_TIME = 240

# Reads commands from the console, as a script: without prompts, echo or line editing.
SHELL = "stty -echo\necho guest-is-up\nexec sh /dev/stdin\n"


def die_with_parent():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Stream:
    """Collects what a descriptor yields, so that the process never waits for its reader."""

    def __init__(self, descriptor):
        self.descriptor = descriptor
        self.data = bytearray()
        self.ended = False
        self.change = threading.Condition()
        self.thread = threading.Thread(target=self.collect, daemon=True)
        self.thread.start()

    def collect(self):
        while True:
            try:
                piece = os.read(self.descriptor, 65536)
            except OSError:  # a pseudo-terminal whose other end is closed
                piece = b""
            with self.change:
                self.data += piece
                self.ended = not piece
                self.change.notify_all()
            if not piece:
                return

    def text(self):
        with self.change:
            return self.data.decode(errors="replace")


class Console:
    def __init__(self, argv, terminal=False, env=None, **options):
        self.argv = [str(argument) for argument in argv]
        self.position = 0
        if terminal:
            self.input, slave = pty.openpty()
            self.terminal = slave
            options.update(stdin=slave, stdout=slave, start_new_session=True)
        else:
            self.terminal = None
            options.setdefault("stdin", subprocess.PIPE)
            options["stdout"] = subprocess.PIPE
        self.process = subprocess.Popen(
            self.argv, stderr=subprocess.PIPE, preexec_fn=die_with_parent,
            env={**os.environ, **(env or {})}, bufsize=0, **options)
        if not terminal:
            self.input = self.process.stdin.fileno() if self.process.stdin else None
        self.output = Stream(self.input if terminal else self.process.stdout.fileno())
        self.errors = Stream(self.process.stderr.fileno())
        atexit.register(self.close)

    def fail(self, what):
        state = self.process.poll()
        state = "still runs" if state is None else f"ended with status {state}"
        console = "\n".join(self.output.text().replace("\r", "").splitlines()[-40:])
        errors = "\n".join(self.errors.text().splitlines()[-20:])
        raise AssertionError(f"{what}\ncommand: {shlex.join(self.argv)} ({state})\n"
                             f"end of the console:\n{console}\nstderr:\n{errors}")

    def expect(self, pattern, timeout=60):
        """Waits until the pattern matches console output not yet consumed; consumes through it."""
        wanted = re.compile(pattern.encode() if isinstance(pattern, str) else pattern, re.S | re.M)
        until = time.monotonic() + timeout
        stream = self.output
        with stream.change:
            while True:
                match = wanted.search(bytes(stream.data[self.position:]))
                if match:
                    self.position += match.end()
                    return match
                left = until - time.monotonic()
                if stream.ended or left <= 0:
                    break
                stream.change.wait(left)
        why = "the console ended" if stream.ended else f"nothing in {timeout} s"
        self.fail(f"expected {pattern!r}: {why}")

    def send(self, text):
        data = text.encode() if isinstance(text, str) else text
        while data:
            data = data[os.write(self.input, data):]

    def wait(self, timeout=60):
        """The exit status; a console that is still open after the time-out fails the test."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.fail(f"still runs after {timeout} s")
        if self.terminal is None:
            self.output.thread.join(5)
        self.errors.thread.join(5)
        return status

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        atexit.unregister(self.close)


class Shell(Console):
    """A machine whose console has a shell. `run` executes one command in it at a time."""

    count = 0

    def booted(self, timeout=BOOT_TIME):
        """Waits until it takes commands."""
        self.expect(r"^guest-is-up\r?\n", timeout)
        return self

    def run(self, command, timeout=120):
        """(status, output) of a shell command on the machine."""
        self.count += 1
        end = f"end-of-command-{self.count}"
        # In a subshell, so that `exit` and `cd` in a command end with it.
        self.send(f"( {command}\n) < /dev/null 2>&1; status=$?; echo; "
                  f"echo {end} $status\n")
        match = self.expect(rf"(.*?)\n?^{end} (\d+)\r?\n", timeout)
        return int(match[2]), match[1].decode(errors="replace").replace("\r\n", "\n").strip("\n")

    def check(self, command, timeout=120):
        """The output of a command that must succeed."""
        status, output = self.run(command, timeout)
        if status != 0:
            self.fail(f"`{command}` ended with status {status}:\n{output}")
        return output
