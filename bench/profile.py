#!/usr/bin/env python3
"""What --profile costs: a guest that only computes, 25 calls deep, with and without it in turn.

    bench/profile.py [RUNS]

Prints the medians of wall and processor time (all threads), for a program with call frame
information and one with frame pointers.
"""

import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "lib"))

from program import compile_kernel  # noqa: E402

SOURCE = """
static volatile unsigned long sink;
__attribute__((noinline)) static unsigned long work(unsigned long value, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++)
        value = (value ^ (value << 13)) + (value >> 7);
    return value;
}
__attribute__((noinline, optnone)) static unsigned long call(unsigned long value, unsigned depth)
{
    return depth ? call(value + depth, depth - 1) + 1 : work(value, 1000);
}
int main(void)
{
    for (unsigned i = 0; i < 2500000; i++)
        sink = call(sink, 24);
    return 0;
}
"""

KINDS = {"call frame information": ["-g"],
         "frame pointers": ["-g0", "-fno-omit-frame-pointer"]}


def run(*words):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    subprocess.run([ROOT / "build" / "hartvisor", "run", "--memory", "64M", *words], check=True,
                   stdin=subprocess.DEVNULL)
    wall = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for kind, options in KINDS.items():
            program = compile_kernel(folder, SOURCE, *options)
            profile = ["--symbols", program, "--profile", folder / "profile"]
            pairs = [(run("--kernel", program), run("--kernel", program, *profile))
                     for _ in range(runs)]
            for index, time_kind in enumerate(("wall", "processor")):
                without, with_it = (statistics.median(pair[side][index] for pair in pairs)
                                    for side in (0, 1))
                print(f"{kind}, {time_kind} time: {without:.2f} s, with --profile {with_it:.2f} s"
                      f" ({100 * (with_it / without - 1):+.1f} %)", flush=True)


if __name__ == "__main__":
    main()
