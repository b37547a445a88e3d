#!/usr/bin/env python3
"""Compares hartvisor with QEMU, with other machines and with this one; `./dev bench` calls it.

NAMEs are rows or groups of the table; without any it is the whole table. In every round each peer
boots once with one hart and once with two, with the same kernel, initramfs and 1 GiB of memory,
and runs the programs in bench/programs; the rounds begin with another peer in turn. The boot rows
are the wall time from the start of the command to the first line of the guest's init, `resident`
is the most memory that the process had by the end of the rows with one hart.

`./dev bench --debug` compares the debug servers instead (--debug --help: how).
"""

import argparse
import json
import os
import pathlib
import re
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build")).resolve()
os.environ.setdefault("HARTVISOR", str(BUILD / "hartvisor"))
os.environ.setdefault("QEMU", str(BUILD / "qemu" / "qemu-system-riscv64"))
os.environ.setdefault("GUEST", str(BUILD / "guest"))
sys.path.insert(0, str(ROOT / "tests" / "lib"))

import chart  # noqa: E402
import peers  # noqa: E402
import report  # noqa: E402
from programs import Programs  # noqa: E402

# More of other work than this on a CPU, and the figures say little.
QUIET = 0.3


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="./dev bench", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="rows or groups (all)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds (3)")
    parser.add_argument("--quick", action="store_true",
                        help="tiny amounts of work: does everything run and agree?")
    parser.add_argument("--list", action="store_true", help="list rows and groups, and end")
    parser.add_argument("--qemu", action="append", default=[], metavar="PATH",
                        help="a qemu-system-riscv64 instead of Debian 13's; may be repeated, the "
                             "first is what ratios refer to")
    parser.add_argument("--rvvm", metavar="PATH", help="an RVVM to compare with too")
    parser.add_argument("--rvvm-firmware", metavar="FILE",
                        help="its firmware (OpenSBI's fw_jump.bin of the guest)")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND",
                        help="any other machine, as another build of hartvisor; the command has "
                             "{kernel}, {initrd}, {append}, {harts} and {memory} in it")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write all figures")
    parser.add_argument("--svg", type=pathlib.Path, metavar="FILE", help="write a bar chart")
    options = parser.parse_intermixed_args(argv)
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: at least one is needed")
    return options


def select(rows, names):
    unknown = [name for name in names
               if not any(name in (row.name, row.group) for row in rows)]
    if unknown:
        raise peers.Failure(f"there is no row or group {unknown[0]}; ./dev bench --list has all")
    return [row for row in rows if not names or row.name in names or row.group in names]


def all_peers(options, programs, folder):
    found = [peers.Native(programs), peers.hartvisor(programs)]
    found += [peers.qemu(path, programs) for path in options.qemu or [os.environ["QEMU"]]]
    if options.rvvm:
        found.append(peers.Rvvm(options.rvvm, options.rvvm_firmware, folder, programs))
    found += [peers.custom(text, programs) for text in options.peer]
    names = [peer.name for peer in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise peers.Failure(f"two of the peers are called {twice[0]}; give one with --peer "
                            "NAME=COMMAND and a name of its own")
    return found


def plural(count, noun):
    return f"{count} {noun}" + ("" if count == 1 else "s")


def measure(found, rows, rounds, *, quick=False, reference=None, say=lambda text: None):
    """Runs all rounds: the results, and what went wrong."""
    results = report.Results(rows, [peer.name for peer in found], reference)
    programs = {1: [], 2: []}
    for row in rows:
        if row.work:
            programs[row.harts].append(row.name)
    needed = [harts for harts in (1, 2) if programs[harts] or any(
        row.name == f"boot-{harts}" or harts == 1 and row.name == "resident" for row in rows)]
    failures = {}
    for number in range(rounds):
        first = number % len(found)
        for peer in found[first:] + found[:first]:
            for harts in needed:
                if (peer.name, harts) in failures:
                    continue
                began = time.monotonic()
                try:
                    outcome = peer.run(programs[harts], harts, quick)
                except peers.Failure as wrong:
                    failures[peer.name, harts] = f"{peer.name}, {plural(harts, 'hart')}: {wrong}"
                    continue
                results.add(peer.name, outcome, harts)
                say(f"round {number + 1} of {rounds}: {peer.name}, {plural(harts, 'hart')}, "
                    f"{time.monotonic() - began:.1f} s")
    wrong = list(failures.values())
    wrong += [f"{name}: results differ: {what}" for name, what in results.disagreements()]
    return results, wrong


def processor():
    model = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    return model[1] if model else os.uname().machine


def main():
    if sys.argv[1:2] == ["--debug"]:
        import debugger
        return debugger.main(sys.argv[2:])
    options = parse(sys.argv[1:])
    programs = Programs(BUILD / "bench")
    rows = programs.rows()
    if options.list:
        for row in rows:
            print(f"{row.name:<12} {row.group:<16} {row.work or row.unit}")
        return 0

    def say(text):
        print(text, file=sys.stderr, flush=True)

    load = os.getloadavg()[0]
    if load > QUIET * os.cpu_count():
        say(f"bench: this machine is busy (load {load:.1f} on {os.cpu_count()} CPUs); figures of "
            "a quiet one differ less")
    with tempfile.TemporaryDirectory(prefix="hartvisor-bench-") as folder:
        rows = select(rows, options.names)
        found = all_peers(options, programs, folder)
        reference = next(peer.name for peer in found if peer.name.startswith("QEMU"))
        results, wrong = measure(found, rows, options.rounds, quick=options.quick,
                                 reference=reference, say=say)
    machine = f"{processor()}, {plural(os.cpu_count(), 'CPU')}"
    loads = f"load {load:.1f} before, {os.getloadavg()[0]:.1f} after"
    rounds = plural(options.rounds, "round")
    print(f"{machine}; {rounds}; {loads}")
    for line in report.table(results):
        print(line)
    if options.json:
        about = {"machine": machine, "rounds": options.rounds, "quick": options.quick,
                 "load_before": load, "load_after": os.getloadavg()[0],
                 "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        options.json.write_text(json.dumps(report.as_json(results, about), indent=1) + "\n")
    if options.svg:
        options.svg.write_text(chart.svg(results, f"Speed relative to {reference}",
                                         f"further right is faster; medians of {rounds}; "
                                         f"{machine}"))
    for text in wrong:
        say(f"bench: {text}")
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except peers.Failure as failure:
        sys.exit(f"bench: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
