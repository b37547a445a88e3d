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
    "enables": [
        (r"cbo\.(inval|clean|flush) nowhere0", outcome(7)),
    ],
    "pmp": [
        (r"no entry, U-mode", r"cause epc tval status a0 0{15}1 0{16} 0*800\w+ 0{16} .*"),
        (r"no entry, S-mode", r"cause epc tval status a0 0{15}1 0{16} 0*800\w+ 0{12}0800 .*"),
    ],
    "aia": [
        (r"mireg written 114", r"cause epc tval status a0 .* 0{14}ff"), # eithreshold
        (r"sireg, allowed [46]", outcome(2)),
        (r"M at 384", "0{13}400"), # sourcecfg: there is one child
        (r"M at 12672|not delegated|[MS] wire lowered0", "0{16}"),
    ],
    "interrupts": [(f"priority, delegated {delegated}", f"0{{11}}{order}")
                   for delegated, order in enumerate(
                       ["37915", "37951", "37915", "37915", "37159", "37591", "37195", "37915"])],
}


# The board that a program needs: options of ours, and QEMU's.
BOARDS = {
    "aia": (["--aia", "on"], "virt,aia=aplic-imsic"),
}


class Programs(unittest.TestCase):
    def check(self, source):
        build = machines.Build("programs")
        image = build.link(source.stem, [source])
        options, board = BOARDS.get(source.stem, ([], "virt"))
        results = machines.run_all(image, options=options, board=board)
        problems = machines.problems_of(results, OWN.get(source.stem, ()))
        if problems:
            self.fail("\n".join(problems))


def add(source):
    setattr(Programs, f"test_{source.stem}", lambda self: self.check(source))


for path in sorted((machines.HERE / "programs").glob("*.[cS]")):
    add(path)
