"""Builds bare-metal programs and runs them on hartvisor and on QEMU.

Programs run in M-mode from 0x8000_0000, print one line a result on the UART and end through the
test finisher. Both machines run the same image, so their lines must be equal.

Environment: HARTVISOR, QEMU (the machines), BUILD (where images and outputs go), ENGINES (what to
compare with QEMU: interp,jit; all that hartvisor has unless said otherwise), LONG, SEED.
"""

import functools
import os
import pathlib
import re
import shutil
import subprocess
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build"))
HARTVISOR = os.environ.get("HARTVISOR", str(BUILD / "hartvisor"))
QEMU = os.environ.get("QEMU", str(BUILD / "qemu" / "qemu-system-riscv64"))
LONG = bool(os.environ.get("LONG"))
SEED = int(os.environ.get("SEED", "1"), 0)

# Everything that the instruction table has and an assembler can write.
MARCH = ("rv64imafdc_zba_zbb_zbc_zbs_zbkb_zbkx_zicond_zacas1p0_zawrs_zfh_zicbom_zicboz_zicbop"
         "_svinval_zihintpause_zicsr_zifencei_zicntr")

# Debian's newest QEMU, with exactly our extensions: what only one side has would differ.
QEMU_CPU = ("rva22s64,zbc=on,zfh=on,zicond=on,zacas=on,zawrs=on,zbkb=on,zbkx=on,sstc=on,"
            "svnapot=on,svadu=on,smstateen=on,sscofpmf=on,sv57=on,pmp=on")

# Where QEMU 10.0 is wrong, or the specification leaves a choice that we make differently. Random
# programs keep away from these; for lines of programs, `own` of problems_of() says what we must
# print.
QEMU_DIFFERS = {
    "amocas with rd = x0":
        "QEMU overwrites its own constant 0 with the old memory value, so later instructions of "
        "the block that use x0 compute nonsense",
    "sfence.w.inval, sfence.inval.ir in U-mode":
        "QEMU executes them; illegal by the chapter on Svinval",
    "priority of interrupts":
        "QEMU takes the lowest number first unless it has the AIA; the order is MEI, MSI, MTI, "
        "SEI, SSI, STI",
    "mret without any PMP entry":
        "QEMU takes the access fault on mret instead of on the fetch after it",
    "cbo.inval, clean and flush where there is no memory":
        "QEMU does nothing; we take a store access fault, as for cbo.zero",
    "bit 0 of mepc and sepc":
        "QEMU lets it be written; always zero by the chapters on both",
    "sc after the word has changed and changed back":
        "QEMU only compares, so that a list without lock (runtime/litmus.c) loses nodes",
    "mstateen0 bit 58 (IMSIC)":
        "QEMU looks at bit 60 alone for sireg; all state of an IMSIC is behind bit 58 as well",
    "APLIC: the child's sourcecfg, the root's target of what is delegated":
        "QEMU keeps what is written; read-only zero in a domain that does not have the source",
    "APLIC: a level that falls before its message is sent":
        "QEMU keeps it pending; it is cleared by the chapter on pending bits",
    "bits of eithreshold and sourcecfg that say nothing here":
        "QEMU keeps them",
    "reserved bits of pmpcfg and pmpaddr, counters beyond hpmcounter18":
        "QEMU keeps the former and lacks the latter; programs do not look at them",
}


def tool(name):
    """A tool of LLVM 19: binutils of Debian 12 does not know all instructions."""
    path = shutil.which(name + "-19") or shutil.which(name)
    if not path:
        raise unittest.SkipTest(f"{name}-19 is not installed")
    return path


class Build:
    """Images in a folder of their own, so that parallel test jobs do not meet."""

    def __init__(self, name):
        self.folder = BUILD / "isa" / name
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, name):
        return self.folder / name

    def run(self, *command):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(f"{command[0]} failed:\n{done.stderr}")
        return done.stdout

    def link(self, name, sources, defines=()):
        """Compiles C (for the plain base, its instructions under test come from `asm`) and
        assembly, and links them with the runtime."""
        clang = tool("clang")
        objects = []
        for source in [HERE / "runtime" / "start.S", HERE / "runtime" / "runtime.c", *sources]:
            march = MARCH if source.suffix == ".S" else "rv64imac_zicsr_zifencei"
            target = self.path(f"{name}-{source.stem}.o")
            self.run(clang, "--target=riscv64", "-menable-experimental-extensions",
                     f"-march={march}", "-mabi=lp64", "-mcmodel=medany", "-mno-relax", "-O1",
                     "-g0", "-std=gnu17", "-Wall", "-Wextra", "-Werror", "-ffreestanding",
                     "-fno-builtin", "-fno-jump-tables", "-fno-pic", "-I", HERE / "runtime",
                     *[f"-D{define}" for define in defines], "-c", source, "-o", target)
            objects.append(target)
        image = self.path(f"{name}.elf")
        self.run(tool("ld.lld"), "-T", HERE / "runtime" / "link.ld", "-o", image, *objects)
        return image


class Result:
    def __init__(self, machine, status, text):
        self.machine, self.status = machine, status
        self.lines = text.splitlines()


class Machine:
    """One program run: starts at once, so that machines run side by side; finish() waits."""

    def __init__(self, name, command, serial, timeout):
        self.name, self.serial = name, serial
        self.command = [str(word) for word in command]
        self.deadline = time.monotonic() + timeout
        serial.unlink(missing_ok=True)
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def finish(self):
        try:
            output, _ = self.process.communicate(timeout=self.deadline - time.monotonic())
            status = self.process.returncode
        except subprocess.TimeoutExpired:
            self.process.kill()
            output, _ = self.process.communicate()
            status = None
        text = self.serial.read_text(errors="replace") if self.serial.exists() else ""
        if output.strip():
            text += f"\n[{self.name}] " + output.decode(errors="replace").strip()
        return Result(self.name, status, text)


def start_hartvisor(image, engine, timeout=60, harts=1, options=()):
    serial = image.with_suffix(f".{engine}.txt")
    return Machine(f"hartvisor ({engine})",
                   [HARTVISOR, "run", "--firmware", image, "--serial", f"file:{serial}",
                    "--memory", "64M", "--cpus", harts, "--engine", engine, *options],
                   serial, timeout)


def start_qemu(image, timeout=60, harts=1, board="virt"):
    serial = image.with_suffix(".qemu.txt")
    return Machine("qemu", [QEMU, "-M", board, "-accel", "tcg", "-cpu", QEMU_CPU, "-m", "64M",
                            "-smp", harts, "-bios", image, "-serial", f"file:{serial}"],
                   serial, timeout)


def available(path):
    return bool(shutil.which(path))


@functools.cache
def engines():
    if os.environ.get("ENGINES"):
        return os.environ["ENGINES"].split(",")
    text = subprocess.run([HARTVISOR, "run", "--help"], capture_output=True, text=True).stdout
    return re.search(r"--engine (\S+)", text)[1].split("|")


def run_all(image, timeout=120, options=(), board="virt"):
    """Runs the image on the machine to compare with, QEMU, and on each engine. Without QEMU the
    last engine is compared with the first; with nothing to compare it is skipped."""
    if not available(HARTVISOR):
        raise unittest.SkipTest(f"{HARTVISOR} is not built")
    if not available(QEMU) and len(engines()) < 2:
        raise unittest.SkipTest(f"no QEMU to compare with at {QEMU} (./dev setup fetches it)")
    runs = [start_qemu(image, timeout, board=board)] if available(QEMU) else []
    runs += [start_hartvisor(image, engine, timeout, options=options) for engine in engines()]
    return [run.finish() for run in runs]


def worst(results):
    """The first result that differs from what it is compared with, or the last."""
    return next((result for result in results[1:]
                 if result.lines != results[0].lines or result.status != results[0].status),
                results[-1])


def problems_of(results, own=()):
    """The lines, of status and text, in which the machines differ from QEMU. `own` are pairs
    (label, values), both regular expressions, of lines that differ on purpose."""
    expected = results[0]
    problems = []
    if expected.status != 0:
        problems.append(f"{expected.machine} ended with status {expected.status}: "
                        + " | ".join(expected.lines[-3:]))
    for result in results[1:]:
        if result.status != expected.status:
            problems.append(f"{result.machine} ended with status {result.status}, "
                            f"{expected.machine} with {expected.status}")
        problems += differences(expected, result, own)
    return problems


def differences(expected, result, own=(), limit=60):
    """By label, so that a line which one side lacks does not move the rest."""
    problems = []
    theirs, ours = group(expected.lines), group(result.lines)
    for name in dict.fromkeys([*theirs, *ours]):
        special = [values for pattern, values in own if re.fullmatch(pattern, name)]
        if special:
            equal = name in ours and re.fullmatch(special[0], " ".join(ours[name]))
        else:
            equal = theirs.get(name) == ours.get(name)
        if not equal:
            problems.append(f"{name}")
            problems.append(f"    {'expected' if special else expected.machine:22} "
                            f"{special[0] if special else show(theirs.get(name))}")
            problems.append(f"    {result.machine:22} {show(ours.get(name))}")
    if len(problems) > limit:
        problems[limit:] = [f"... {len(problems) // 3} lines differ in all"]
    return problems


def group(lines):
    """Lines by label, in order; a repeated label collects."""
    groups = {}
    for line in lines:
        name, _, rest = line.partition(":")
        groups.setdefault(name, []).append(rest.strip())
    return groups


def show(values):
    return "(no such line)" if values is None else " / ".join(values)
