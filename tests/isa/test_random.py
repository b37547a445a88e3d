"""Random programs, on each engine and on QEMU: all registers, traps and memory must be equal."""

import os
import random
import subprocess
import unittest

import generate
import machines

# Instructions in all; a sequence has about 200.
PROGRAMS = 40 if machines.LONG else 2
SEQUENCES = 500
LENGTH = 200


class Random(unittest.TestCase):
    """Each test is one image of many sequences. The first sequence that differs is run again,
    stopped before each of its instructions, to find the one that makes the difference."""

    def check(self, seed):
        build = machines.Build(f"random-{seed}")
        sequences = [generate.Sequence(number, f"{seed}/{number}", LENGTH)
                     for number in range(SEQUENCES)]
        count = sum(len(sequence.code) for sequence in sequences)
        results = self.run_image(build, "all", [(sequence, None) for sequence in sequences],
                                 seed, full=False)
        bad = machines.worst(results)
        if bad.lines == results[0].lines and len(bad.lines) == SEQUENCES \
                and all(result.status == 0 for result in results):
            return
        theirs, ours = (machines.group(result.lines) for result in (results[0], bad))
        names = [f"{sequence.number:016x}" for sequence in sequences]
        differing = [sequence for sequence, name in zip(sequences, names)
                     if theirs.get(name) != ours.get(name)]
        text = f"SEED={machines.SEED}: {len(differing)} of {len(sequences)} sequences " \
               f"({count} instructions) differ; " + ", ".join(
                   f"{result.machine} ended with {result.status}" for result in results)
        if any(result.status is None for result in results):
            self.fail(f"{text}; out of time after {len(bad.lines)} sequences")
        for sequence in differing[:int(os.environ.get("REPORTS", "4"))]:
            text += "\n" + self.explain(build, sequence, seed)
        self.fail(text)

    def run_image(self, build, name, sequences, seed, full):
        records, code = generate.image(sequences, seed, full)
        defines = []
        for part, data in (("RECORDS", records), ("CODE", code)):
            path = build.path(f"{name}.{part.lower()}")
            path.write_bytes(data)
            defines.append(f'{part}_FILE="{path}"')
        image = build.link(name, [machines.HERE / "runtime" / "random.S"], defines)
        return machines.run_all(image, timeout=120)

    def explain(self, build, sequence, seed):
        """Names the first instruction after which the machines differ."""
        stops = list(range(len(sequence.code))) + [None]
        results = self.run_image(build, "steps", [(sequence, stop) for stop in stops], seed,
                                 full=False)
        theirs, ours = (machines.group(result.lines)
                        for result in (results[0], machines.worst(results)))
        for index, stop in enumerate(stops):
            name = f"{index:016x}"
            end = sequence.size if stop is None else sequence.code[stop][0]
            # A jump may have gone past the place; then it says nothing.
            reached = any(line.endswith(f"{end:016x}") for lines in (theirs, ours)
                          for line in lines.get(name, []))
            if reached and theirs.get(name) != ours.get(name):
                return self.describe(build, sequence, index, seed)
        return f"sequence {sequence.number}: no difference when it runs alone"

    def describe(self, build, sequence, index, seed):
        before = sequence, max(index - 1, 0)
        after = sequence, index if index < len(sequence.code) else None
        results = self.run_image(build, "step", [before, after], seed, full=True)
        last = sequence.code[max(index - 1, 0)]
        text = f"sequence {sequence.number}, mode {'US'[sequence.mode]}, " \
               f"mstatus {sequence.status:#x}, menvcfg {sequence.envcfg[0]:#x}, " \
               f"senvcfg {sequence.envcfg[1]:#x}, satp mode {sequence.paging}; " \
               f"first difference before the instruction at " \
               f"{last[0] + last[2]:#x}:\n"
        for offset, bits, length in sequence.code[max(index - 3, 0):index]:
            text += f"    {offset:5x}: {bits:0{2 * length}x}  {disassemble(bits, length)}\n"
        text += self.operands(last, results)
        return text + "\n".join(machines.differences(results[0], machines.worst(results)))

    def operands(self, instruction, results):
        """The registers that the encoding may name, before the instruction."""
        _, bits, length = instruction
        lines = machines.group(results[0].lines)
        fields = (15, 20, 27, 7) if length == 4 else (7, 2)
        text = ""
        for field in fields:
            number = bits >> field & 31
            text += f"    x{number} {lines.get(f'{0:016x} x {number:016x}', ['0'])[0]}" \
                    f"    f{number} {lines.get(f'{0:016x} f {number:016x}', ['?'])[0]}\n"
        return text + f"    fcsr {lines.get(f'{0:016x} fcsr {0:016x}', ['?'])[0]}\n"


def disassemble(bits, length):
    data = " ".join(f"{byte:#04x}" for byte in bits.to_bytes(length, "little"))
    try:
        done = subprocess.run(
            [machines.tool("llvm-mc"), "--disassemble", "--triple=riscv64", "-M", "no-aliases",
             "--mattr=+m,+a,+f,+d,+c,+zba,+zbb,+zbc,+zbs,+zbkb,+zbkx,+zicond,+zfh,+zicbom,"
             "+zicboz,+zicbop,+svinval,+zawrs,+experimental-zacas"],
            input=data, capture_output=True, text=True)
    except unittest.SkipTest:
        return ""
    lines = [line.strip() for line in done.stdout.splitlines() if not line.startswith("\t.")]
    return " ".join(lines[-1:]).replace("\t", " ") or "(illegal)"


def add(seed):
    setattr(Random, f"test_seed_{seed}", lambda self: self.check(seed))


for program in range(PROGRAMS):
    add(machines.SEED * 1000 + program)
