"""Each program of programs/ runs on QEMU and on our engines; every line must be equal."""

import unittest

import machines

def outcome(cause):
    return f"cause epc tval status a0 {cause:016x} .*"


# What our machine must print where QEMU does otherwise (QEMU_DIFFERS), by program.
OWN = {
    "traps": [
        (r".*sfence\.w\.inval (in mode )?0", outcome(2)),
        (r"[ms]epc bit 1", "0{16}"),
        (r"[ms]epc bit 3", "0{15}2"),
    ],
}


class Programs(unittest.TestCase):
    def check(self, source):
        build = machines.Build("programs")
        image = build.link(source.stem, [source])
        machines.compare(machines.run_all(image), OWN.get(source.stem, ()))


def add(source):
    setattr(Programs, f"test_{source.stem}", lambda self: self.check(source))


for path in sorted((machines.HERE / "programs").glob("*.[cS]")):
    add(path)
