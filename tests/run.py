#!/usr/bin/env python3
"""Runs the tests and counts them; `./dev test` builds what they need and then calls this.

    tests/run.py [--long] [--jobs N] [--list] [NAME...]
    tests/run.py --fuzz [TARGET [SECONDS]]

A job is one unit test program, one unittest class or one fuzz target; NAMEs select jobs and
methods that contain one of them. Jobs run side by side, each in a process of its own. The last
line is `N passed, N failed, N skipped`.
"""

import argparse
import concurrent.futures
import importlib.util
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import unittest

TESTS = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("BUILD", TESTS.parent / "build")).resolve()
SANITIZED = BUILD / "sanitize"
THREADS = BUILD / "tsan"
FUZZERS = BUILD / "fuzz"

SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}

running = set()
running_lock = threading.Lock()


def environment():
    """What a test module may rely on, as the environment of its process."""
    defaults = {
        "BUILD": BUILD,
        "HARTVISOR": BUILD / "hartvisor",
        "QEMU": BUILD / "qemu" / "qemu-system-riscv64",
        "GUEST": BUILD / "guest",
        "LAB": BUILD / "lab",
        "SEED": "1",
    }
    return {name: os.environ.get(name, str(value)) for name, value in defaults.items()}


class Outcome:
    """One test's end: `kind` is passed, failed or skipped; `text` says why."""

    def __init__(self, name, kind, text="", seconds=0.0):
        self.name, self.kind, self.text, self.seconds = name, kind, text, seconds


def run_process(argv, timeout, **options):
    """Runs a process and all it starts, bounded in time: (status, output); None: timed out."""
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True, **options)
    with running_lock:
        running.add(process.pid)
    try:
        output, _ = process.communicate(timeout=timeout)
        status = process.returncode
    except subprocess.TimeoutExpired:
        kill_group(process.pid)
        output, _ = process.communicate()
        status = None
    finally:
        kill_group(process.pid)
        with running_lock:
            running.discard(process.pid)
    return status, output.decode(errors="replace")


def kill_group(pid):
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


# Unit tests: cmocka programs that report in TAP.

class UnitJob:
    def __init__(self, layer, program):
        self.program = program
        self.name = f"{layer}/{program.name}"

    def run(self, options):
        env = {**os.environ, **environment(), **SANITIZER_OPTIONS, "CMOCKA_MESSAGE_OUTPUT": "TAP"}
        status, output = run_process([self.program], 1200 if options.long else 300, env=env)
        return self.outcomes(status, output)

    def outcomes(self, status, output):
        outcomes = []
        planned = 0
        for line in output.splitlines():
            plan = re.match(r"1\.\.(\d+)$", line)
            result = re.match(r"(not )?ok \d+ - (\S+)(?:.*# SKIP ?(.*))?", line)
            if plan:
                planned += int(plan[1])
            elif result:
                name = f"{self.name}.{result[2]}"
                if result[1]:
                    outcomes.append(Outcome(name, "failed", self.report(output)))
                elif "# SKIP" in line:
                    outcomes.append(Outcome(name, "skipped", result[3] or "the test says so"))
                else:
                    outcomes.append(Outcome(name, "passed"))
        failed = any(outcome.kind == "failed" for outcome in outcomes)
        if not planned and status == 0:
            outcomes.append(Outcome(self.name, "passed"))
        elif status is None:
            outcomes.append(Outcome(self.name, "failed", "ran out of time\n" + self.report(output)))
        elif len(outcomes) < planned or (status != 0 and not failed):
            text = (f"ended with status {status} after {len(outcomes)} of {planned} tests\n"
                    + self.report(output))
            outcomes.append(Outcome(self.name, "failed", text))
        return outcomes

    def report(self, output):
        lines = [line for line in output.splitlines() if not line.startswith("ok ")]
        return "\n".join(lines[-80:] + [f"run it alone: {self.program}"])


def unit_jobs(layer, build):
    for program in sorted((build / "tests" / "unit").glob("test_*")):
        # A program whose source is gone is a left-over of an older build.
        if os.access(program, os.X_OK) and program.is_file() and \
                (TESTS / "unit" / f"{program.name}.c").exists():
            yield UnitJob(layer, program)


# Tests in Python: each unittest class in a process of its own.

def load_module(path):
    for folder in (path.parent, TESTS / "lib"):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def test_classes(module):
    for name, value in vars(module).items():
        if isinstance(value, type) and issubclass(value, unittest.TestCase) and \
                value.__module__ == module.__name__ and not name.startswith("_") and \
                unittest.TestLoader().getTestCaseNames(value):
            yield name


# Guests that --long boots on the interpreter too.
BOTH_ENGINES = ("boot", "disk", "net", "share")
DEBUG_ENGINES = ("jit", "interp")


class PythonJob:
    def __init__(self, layer, path, class_name, methods, engine=None):
        self.path, self.class_name, self.methods = path, class_name, methods
        self.name = f"{layer}/{path.stem}.{class_name}" + (f"@{engine}" if engine else "")
        self.engine = engine

    def run(self, options):
        argv = [sys.executable, TESTS / "run.py", "--worker", self.path, self.class_name]
        env = {**os.environ, **environment(), "PYTHONDONTWRITEBYTECODE": "1"}
        if options.long:
            env["LONG"] = "1"
        if self.engine:
            env["ENGINE"] = self.engine
        outcomes = []
        with tempfile.TemporaryFile("w+") as results:
            status, output = run_process(
                [*argv, str(results.fileno()), *self.methods], 7200 if options.long else 900,
                env=env, pass_fds=[results.fileno()])
            results.seek(0)
            for line in results:
                event = json.loads(line)
                if event["kind"] == "failed" and output.strip():
                    event["text"] += "\noutput:\n" + output
                event["name"] = f"{self.name}.{event['name']}"
                outcomes.append(Outcome(**event))
        if status != 0:
            why = "ran out of time" if status is None else f"ended with status {status}"
            outcomes.append(Outcome(self.name, "failed", f"{why}\n{output}"))
        return outcomes


class WorkerResult(unittest.TestResult):
    """Reports each test's end as a line of JSON."""

    def __init__(self, file):
        super().__init__()
        self.file = file
        self.began = time.monotonic()
        self.problems = []

    def startTest(self, test):
        super().startTest(test)
        self.began = time.monotonic()
        self.problems = []

    def report(self, test, kind, text=""):
        # A failed setUpClass names the class instead of a method.
        name = getattr(test, "_testMethodName", None) or str(test).split(" ")[0]
        event = {"name": name, "kind": kind, "text": text,
                 "seconds": time.monotonic() - self.began}
        self.file.write(json.dumps(event) + "\n")
        self.file.flush()

    def describe(self, error):
        kind, value, trace = error
        if issubclass(kind, AssertionError):
            # Only the test's own frames: those of unittest say nothing.
            frames = [frame for frame in traceback.extract_tb(trace)
                      if "/unittest/" not in frame.filename]
            place = "".join(traceback.format_list(frames[-3:]))
            return f"{place}{value}"
        return "".join(traceback.format_exception(kind, value, trace))

    def addSuccess(self, test):
        if not self.problems:
            self.report(test, "passed")

    def addFailure(self, test, err):
        self.report(test, "failed", self.describe(err))

    addError = addFailure

    def addSkip(self, test, reason):
        self.report(test, "skipped", reason)

    def addSubTest(self, test, subtest, err):
        # A method counts once, however many of its cases fail; stopTest reports them together.
        if err is not None:
            self.problems.append(f"{subtest._subDescription()}\n{self.describe(err)}")

    def stopTest(self, test):
        if self.problems:
            count = len(self.problems)
            self.report(test, "failed", f"{count} failing cases\n" + "\n".join(self.problems[:10]))
        super().stopTest(test)

    def addExpectedFailure(self, test, err):
        self.report(test, "passed")

    def addUnexpectedSuccess(self, test):
        self.report(test, "failed", "passed, though it is marked as failing")


def worker(path, class_name, descriptor, methods):
    module = load_module(pathlib.Path(path))
    case = getattr(module, class_name)
    names = methods or unittest.TestLoader().getTestCaseNames(case)
    with os.fdopen(int(descriptor), "w") as file:
        unittest.TestSuite(case(name) for name in names).run(WorkerResult(file))


class BrokenModule:
    def __init__(self, layer, path, text):
        self.name, self.text = f"{layer}/{path.stem}", text

    def run(self, options):
        return [Outcome(self.name, "failed", "the module does not load\n" + self.text)]


def python_jobs(layer, wanted, long):
    for path in sorted((TESTS / layer).glob("*.py")):
        try:
            module = load_module(path)
        except Exception:
            yield BrokenModule(layer, path, traceback.format_exc())
            continue
        for class_name in test_classes(module):
            for engine in engines(layer, path, long):
                job = PythonJob(layer, path, class_name, [], engine=engine)
                if not any(name in job.name for name in wanted):
                    methods = unittest.TestLoader().getTestCaseNames(getattr(module, class_name))
                    job.methods = [method for method in methods
                                   if any(name in f"{job.name}.{method}" for name in wanted)]
                    if wanted and not job.methods:
                        continue
                yield job


def engines(layer, path, long):
    """The engines that a test runs on, one after the other; None: hartvisor's own choice."""
    if layer == "debug":
        # A debugger must see the same on both; on QEMU there is only one.
        return DEBUG_ENGINES[:1 if "DEBUG_SERVER" in os.environ else None]
    if long and layer == "guest" and path.stem in BOTH_ENGINES:
        return [None, "interp"]
    return [None]


# Fuzzing: libFuzzer where clang has built the targets, else a replay of the kept corpus.

class FuzzJob:
    def __init__(self, program, seconds):
        self.program, self.seconds = program, seconds
        self.target = program.name.removeprefix("fuzz_")
        self.name = f"fuzz/{self.target}"
        self.kept = TESTS / "fuzz" / "corpus" / self.target
        self.libfuzzer = program.is_relative_to(FUZZERS)

    def command(self):
        kept = [self.kept] if self.kept.is_dir() else []
        if not self.libfuzzer:
            return [self.program, *kept]
        found = FUZZERS / "corpus" / self.target
        artifacts = FUZZERS / "findings" / self.target
        found.mkdir(parents=True, exist_ok=True)
        artifacts.mkdir(parents=True, exist_ok=True)
        return [self.program, f"-max_total_time={self.seconds}", "-timeout=20",
                "-rss_limit_mb=4096", f"-seed={environment()['SEED']}", "-verbosity=0",
                "-print_final_stats=1", f"-artifact_prefix={artifacts}/", found, *kept]

    def run(self, options):
        env = {**os.environ, **SANITIZER_OPTIONS}
        status, output = run_process(self.command(), self.seconds + 300, env=env)
        if status == 0:
            return [Outcome(self.name, "passed")]
        why = "ran out of time" if status is None else f"ended with status {status}"
        again = re.search(r"Test unit written to (\S+)", output)
        hint = f"run it again: {self.program} {again[1] if again else self.kept}"
        return [Outcome(self.name, "failed", f"{why}\n{tail(output, 60)}\n{hint}")]


def tail(text, lines):
    return "\n".join(text.splitlines()[-lines:])


def fuzz_jobs(seconds):
    folders = [FUZZERS / "tests" / "fuzz", SANITIZED / "tests" / "fuzz"]
    for source in sorted((TESTS / "fuzz").glob("fuzz_*.c")):
        programs = [folder / source.stem for folder in folders if (folder / source.stem).exists()]
        if programs:
            yield FuzzJob(programs[0], seconds)


def fuzz(target, seconds):
    """`./dev fuzz`: one target after the other, with what libFuzzer says."""
    jobs = [job for job in fuzz_jobs(seconds) if target in ("", job.target)]
    if not jobs:
        known = ", ".join(job.target for job in fuzz_jobs(seconds)) or "none is built"
        print(f"there is no fuzz target {target} (known: {known})", file=sys.stderr)
        return 2
    failed = 0
    for job in jobs:
        print(f"{job.name}: {seconds} s", flush=True)
        command = [argument for argument in job.command() if argument != "-verbosity=0"]
        failed += subprocess.run(command, env={**os.environ, **SANITIZER_OPTIONS}).returncode != 0
    return 1 if failed else 0


# The whole.

def collect(options):
    wanted = options.names
    jobs = list(unit_jobs("unit", SANITIZED))
    if options.long:
        jobs += unit_jobs("threads", THREADS)
    jobs += fuzz_jobs(60 if options.long else 10)
    jobs = [job for job in jobs if not wanted or any(name in job.name for name in wanted)]
    for folder in ("isa", "guest", "debug", "passthrough", "gpu"):
        jobs += python_jobs(folder, wanted or [""], options.long)
    return jobs


def report(job, outcomes, seconds):
    counts = {kind: sum(outcome.kind == kind for outcome in outcomes)
              for kind in ("passed", "failed", "skipped")}
    words = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    print(f"{job.name:<52} {words} ({seconds:.1f} s)", flush=True)
    shown = set()
    for outcome in outcomes:
        if outcome.kind == "failed":
            print(f"--- FAILED {outcome.name}")
            # Failures of one program share its output.
            if outcome.text not in shown:
                print("    " + outcome.text.rstrip().replace("\n", "\n    "))
            shown.add(outcome.text)
    sys.stdout.flush()


def missing_parts():
    parts = {"HARTVISOR": "./dev build", "GUEST": "./dev setup", "QEMU": "./dev setup",
             "LAB": "./dev setup"}
    for name, command in parts.items():
        path = environment()[name]
        if not os.path.exists(path):
            print(f"{path} is missing: {command} makes it", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("names", nargs="*")
    if sys.argv[1:2] == ["--worker"]:
        return worker(sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5:])
    if sys.argv[1:2] == ["--fuzz"]:
        return fuzz(sys.argv[2] if len(sys.argv) > 2 else "",
                    int(sys.argv[3]) if len(sys.argv) > 3 else 60)
    options = parser.parse_args()
    if options.long:
        os.environ.setdefault("SEED", str(random.randrange(1, 2**31)))
    os.environ.update(environment())
    if options.long:
        os.environ["LONG"] = "1"

    jobs = collect(options)
    if options.list:
        for job in jobs:
            print(job.name, *getattr(job, "methods", []))
        return 0
    missing_parts()
    print(f"{len(jobs)} jobs, {options.jobs} at a time, SEED={environment()['SEED']}", flush=True)

    def run(job):
        began = time.monotonic()
        try:
            outcomes = job.run(options)
        except Exception:
            outcomes = [Outcome(job.name, "failed", traceback.format_exc())]
        return job, outcomes, time.monotonic() - began

    everything = []
    pool = concurrent.futures.ThreadPoolExecutor(options.jobs)
    try:
        futures = [pool.submit(run, job) for job in jobs]
        for future in concurrent.futures.as_completed(futures):
            job, outcomes, seconds = future.result()
            report(job, outcomes, seconds)
            everything += outcomes
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        with running_lock:
            for pid in running:
                kill_group(pid)
        return 130

    if not everything:
        print("no test has that name" if options.names else "there are no tests")
        everything.append(Outcome("nothing", "failed"))
    for outcome in everything:
        if outcome.kind == "skipped":
            print(f"skipped {outcome.name}: {outcome.text}")
    failed = [outcome.name for outcome in everything if outcome.kind == "failed"]
    if failed:
        print("failed: " + "\n        ".join(failed))
        print(f"one alone: ./dev test {failed[0]}")
    counts = [sum(outcome.kind == kind for outcome in everything)
              for kind in ("passed", "failed", "skipped")]
    print("{} passed, {} failed, {} skipped".format(*counts))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
