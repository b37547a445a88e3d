"""Compares the debug server with QEMU's; `./dev bench --debug` calls it.

Both run the same bare-metal program, one after the other in each round, and a client in C does one
thing as fast as it can: single steps, stops at a breakpoint, memory reads. Running speed is that of
a loop, as a share of its speed under the same debugger without any point set.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "debug"))

# What the runner of the tests sets.
for name, value in {"BUILD": ROOT / "build", "GUEST": ROOT / "build" / "guest",
                    "HARTVISOR": ROOT / "build" / "hartvisor", "QEMU": "qemu-system-riscv64"}.items():
    os.environ.setdefault(name, str(value))

import targets  # noqa: E402

CLIENT = pathlib.Path(__file__).resolve().parent / "debug_client.c"

# Row: unit, what the client does, and its addresses by symbol. A share needs the row before it.
ROWS = [
    ("single steps", "/s", ["step"]),
    ("stops at a breakpoint", "/s", ["stop", "step_once"]),
    ("stops, stepped over by the client", "/s", ["stop-by-client", "step_once"]),
    ("memory read", "MB/s", ["read", "_start"]),
    ("running, nothing set", "M/s", ["run", "progress"]),
    ("running, a breakpoint on the page", "%", ["run", "progress", "Z0,{elsewhere},2"]),
    ("running, a watchpoint on a neighbour", "%", ["run", "progress", "Z2,{neighbour},8"]),
]

# QEMU does not step over a breakpoint by itself.
OURS_ONLY = {"stops at a breakpoint"}


def build_client():
    path = targets.BUILD / "bench" / "debug_client"
    if not path.exists() or path.stat().st_mtime < CLIENT.stat().st_mtime:
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-Wall", "-Wextra", CLIENT, "-o", path],
                       check=True)
    return path


class Hartvisor(targets.Target):
    label = "hartvisor"
    qemu = targets.Target.hartvisor


class Qemu(targets.Target):
    label = "QEMU"
    hartvisor = targets.Target.qemu


def figure(client, machine, what, seconds):
    """One run of the client on a machine of its own."""
    names = {name: f"{address:x}" for name, address in targets.symbols("speed").items()}
    words = [what[0], *[names.get(word) or word.format(**names) for word in what[1:]]]
    target = machine("speed")
    try:
        target.listening()
        done = subprocess.run([client, target.path, str(seconds), *words], capture_output=True,
                              text=True, timeout=seconds + 60)
    finally:
        target.close()
    if done.returncode:
        raise RuntimeError(f"{machine.label}, {' '.join(words)}: {done.stderr.strip()}")
    return float(done.stdout)


def measure(client, machines, rounds, seconds):
    """{row: {machine: its figures}}, each round with the machines in another order."""
    figures = {row[0]: {machine.label: [] for machine in machines} for row in ROWS}
    for number in range(rounds):
        for name, _, what in ROWS:
            for machine in machines[::-1 if number % 2 else 1]:
                if machine is Qemu and name in OURS_ONLY:
                    continue
                figures[name][machine.label].append(figure(client, machine, what, seconds))
    return figures


def shown(name, unit, label, figures):
    values = figures[name][label]
    if not values:
        return None
    value = statistics.median(values)
    if unit == "%":
        return 100 * value / statistics.median(figures["running, nothing set"][label])
    return value / 1e6 if unit[0] == "M" else value


def table(machines, figures):
    yield f"{'':<38}" + "".join(f"{machine.label:>16}" for machine in machines) + f"{'times':>9}"
    for name, unit, _ in ROWS:
        values = [shown(name, unit, machine.label, figures) for machine in machines]
        texts = [f"{value:,.{1 if value < 100 else 0}f} {unit}" if value is not None else "-"
                 for value in values]
        ratio = f"{values[0] / values[1]:.1f}" if len(values) > 1 and all(values) else ""
        yield f"{name:<38}" + "".join(f"{text:>16}" for text in texts) + f"{ratio:>9}"


def main(argv):
    parser = argparse.ArgumentParser(prog="./dev bench --debug", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds (3)")
    parser.add_argument("--seconds", type=float, default=1, metavar="S",
                        help="length of each measurement (1)")
    parser.add_argument("--only", choices=["hartvisor", "qemu"], help="one of the two machines")
    options = parser.parse_args(argv)
    machines = [machine for machine in (Hartvisor, Qemu)
                if options.only in (None, machine.label.lower())]
    began = time.monotonic()
    figures = measure(build_client(), machines, options.rounds, options.seconds)
    for line in table(machines, figures):
        print(line)
    print(f"medians of {options.rounds} rounds, {time.monotonic() - began:.0f} s; "
          f"{targets.QEMU}; load {os.getloadavg()[0]:.1f}")
    return 0
