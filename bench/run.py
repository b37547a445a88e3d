#!/usr/bin/env python3
"""Compares hartvisor with QEMU on this machine; `./dev bench` calls it.

    bench/run.py [--runs N] [NAME...]

Boot: seconds from the start of the command to a shell of the Debian kernel, with the same kernel
and initramfs. Speed: millions of guest instructions a second in a loop whose instructions are
counted, entered in S-mode; a run with an empty loop is subtracted, so that start-up costs nothing.
Each figure is the median of several runs taken in turn.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build")).resolve()
os.environ.setdefault("HARTVISOR", str(BUILD / "hartvisor"))
os.environ.setdefault("QEMU", str(BUILD / "qemu" / "qemu-system-riscv64"))
os.environ.setdefault("GUEST", str(BUILD / "guest"))
sys.path.insert(0, str(ROOT / "tests" / "lib"))

from console import Console  # noqa: E402
from guest import APPEND, HARTVISOR, KERNEL, QEMU, SHELL, make_initrd  # noqa: E402
from program import assemble  # noqa: E402

# Loop bodies; s0 counts, s1 points at 64 KiB of memory, f0..f3 hold ordinary numbers.
LOOPS = {
    "integer": ["add a0, a0, a1", "xor a1, a1, a0", "slli a2, a0, 7", "srli a3, a1, 9",
                "sub a4, a2, a3", "and a5, a4, a0", "or a1, a5, a2", "addi a0, a0, 13"] * 4,
    "multiply": ["mul a0, a0, a1", "addi a0, a0, 7", "mulhu a2, a0, a1", "xor a1, a1, a2"] * 8,
    "memory": ["ld a0, 0(s1)", "addi a0, a0, 1", "sd a0, 0(s1)", "lw a1, 1024(s1)",
               "sw a1, 1536(s1)", "lbu a2, 77(s1)", "sb a2, 78(s1)", "ld a3, 512(s1)"] * 4,
    "branches": ["andi a0, s0, 1", "beqz a0, 1f", "1: andi a0, s0, 2", "bnez a0, 1f",
                 "1: addi a1, a1, 3", "bltu a1, s0, 1f", "1: xori a1, a1, 5", "j 1f",
                 "1: addi a2, a2, 1"] * 4,
    "calls": ["jal leaf", "addi a0, a0, 1"] * 8,
    "double": ["fadd.d f4, f0, f1", "fmul.d f5, f4, f2", "fmadd.d f6, f5, f0, f3",
               "fsub.d f7, f6, f4", "fcvt.w.d a0, f3", "fcvt.d.w f8, a0"] * 4,
    "atomics": ["amoadd.d a0, a1, (s1)", "addi a1, a1, 1"] * 8,
}
# Instructions that a body executes elsewhere, for each pass.
ELSEWHERE = {"calls": 16}

PROGRAM = """
    .globl _start
_start:
    li t0, 0x6000
    csrs sstatus, t0
    la s1, scratch
    li t0, 3
    fcvt.d.l f0, t0
    fcvt.d.l f1, t0
    fcvt.d.l f2, t0
    fcvt.d.l f3, t0
    la t0, count
    ld s0, (t0)
    beqz s0, end
loop:
{body}
    addi s0, s0, -1
    bnez s0, loop
end:
    li a0, 0x100000
    li a1, 0x5555
    sw a1, (a0)
    j .
    .balign 16
leaf:
    addi a3, a3, 1
    ret
    .data
    .balign 8
count: .dword COUNT
    .balign 4096
scratch: .zero 65536
"""


def program(folder, name, count):
    body = "\n".join("    " + line for line in LOOPS[name])
    return assemble(folder, PROGRAM.format(body=body), name=f"{name}-{count}", address=0x80200000,
                    COUNT=count)


def commands(kernel, *, initrd=None, harts=1):
    """The same machine on both: {peer: argv}."""
    boot = [APPEND]
    ours = [HARTVISOR, "run", "--memory", "1G", "--cpus", harts, "--kernel", kernel]
    theirs = [QEMU, "-M", "virt", "-m", "1G", "-smp", harts, "-serial", "stdio",
              "-kernel", kernel]
    if initrd:
        ours += ["--initrd", initrd, "--append", *boot]
        theirs += ["-initrd", initrd, "-append", *boot]
    return {"hartvisor": ours, "QEMU": theirs}


def timed(argv):
    began = time.monotonic()
    done = subprocess.run([str(word) for word in argv], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=600)
    if done.returncode != 0:
        sys.exit(f"{argv[0]} ended with status {done.returncode}: {done.stderr.decode()}")
    return time.monotonic() - began


def boot_time(argv):
    began = time.monotonic()
    console = Console(argv)
    try:
        console.expect("guest-is-up", 300)
        return time.monotonic() - began
    finally:
        console.close()


def speed(folder, name, runs):
    """MIPS by peer. The loop is made so long that it takes a second or two."""
    weight = len(LOOPS[name]) + ELSEWHERE.get(name, 0) + 2
    empty = commands(program(folder, name, 0))
    results = {}
    for peer, empty_command in empty.items():
        start_up = statistics.median(timed(empty_command) for _ in range(runs))
        count = 100_000
        while True:
            loop = timed(commands(program(folder, name, count))[peer]) - start_up
            if loop > 1 or count > 1 << 40:
                break
            count *= 8 if loop < 0.2 else 2
        command = commands(program(folder, name, count))[peer]
        loops = [loop] + [timed(command) - start_up for _ in range(runs - 1)]
        results[peer] = count * weight / statistics.median(loops) / 1e6
    return results


def row(name, unit, results, better):
    ours, theirs = results["hartvisor"], results["QEMU"]
    factor = ours / theirs if better == "higher" else theirs / ours
    print(f"{name:<24} {ours:>12.2f} {theirs:>12.2f} {unit:<6} {factor:>8.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()

    def wanted(name):
        return not options.names or any(part in name for part in options.names)

    version = subprocess.run([QEMU, "--version"], capture_output=True, text=True).stdout
    print(f"{os.cpu_count()} host CPUs; against {version.splitlines()[0]}")
    print(f"{'':<24} {'hartvisor':>12} {'QEMU':>12} {'':<6} {'times':>8}")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        files = {"command": SHELL, "etc/environment": "COMMAND_TTY=input\n"}
        for harts in (1, 2):
            name = f"boot, {harts} hart" + ("s" if harts > 1 else "")
            if wanted(name):
                both = commands(KERNEL, initrd=make_initrd(folder, files), harts=harts)
                rounds = [{peer: boot_time(argv) for peer, argv in both.items()}
                          for _ in range(options.runs)]
                row(name, "s", {peer: statistics.median(one[peer] for one in rounds)
                                for peer in both}, "lower")
        for name in LOOPS:
            if wanted(name):
                row(name, "MIPS", speed(folder, name, options.runs), "higher")
    print("times: how many times as fast as QEMU")


if __name__ == "__main__":
    main()
