"""Memory ordering: what several harts see of each other's accesses (runtime/litmus.c), on each
engine and, to check the tests themselves, on QEMU. One after the other, since harts that wait for
a host CPU see little of each other."""

import os
import unittest

import machines

# Of each shape on each machine.
MILLISECONDS = 2000 if machines.LONG else 20


# By machine, what its reservations do not get right: see machines.QEMU_DIFFERS.
EXCUSED = {"qemu": ("list without lock:",)}


def problems_of(result):
    """The program ends with 1 if it has seen what is forbidden."""
    forbidden = [line for line in result.lines if "FORBIDDEN" in line]
    if result.status != (1 if forbidden else 0):
        end = "no end in time" if result.status is None else f"ended with {result.status}"
        forbidden.append(f"{end} after: {result.lines[-1] if result.lines else 'nothing'}")
    return [line for line in forbidden if not line.startswith(EXCUSED.get(result.machine, ()))]


class Litmus(unittest.TestCase):
    def check(self, harts):
        build = machines.Build("litmus")
        image = build.link(f"litmus-{harts}", [machines.HERE / "runtime" / "litmus.c"],
                           [f"HARTS={harts}", f"SEED={machines.SEED}",
                            f"MILLISECONDS={MILLISECONDS}"])
        options = {"timeout": 60 + MILLISECONDS * 0.3, "harts": harts}
        starts = [lambda engine=engine: machines.start_hartvisor(image, engine, **options)
                  for engine in machines.engines()]
        # Harts of QEMU that spin keep the host's CPUs from the others.
        if machines.available(machines.QEMU) and \
                (machines.LONG or harts <= len(os.sched_getaffinity(0))):
            starts.append(lambda: machines.start_qemu(image, **options))
        problems = []
        for start in starts:
            result = start().finish()
            # For whoever wants to know how often; a failure shows it.
            print(f"--- {result.machine}, {harts} harts, SEED={machines.SEED}",
                  *result.lines, sep="\n", flush=True)
            problems += [f"{result.machine}: {line}" for line in problems_of(result)]
        if problems:
            self.fail(f"{harts} harts, SEED={machines.SEED}\n" + "\n".join(problems))

    def test_2_harts(self):
        self.check(2)

    def test_3_harts(self):
        self.check(3)

    def test_4_harts(self):
        self.check(4)
