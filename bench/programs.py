"""Builds the programs of the benchmark, natively and for the guest, and lists them."""

import os
import pathlib
import subprocess

from guest import archive

SOURCES = pathlib.Path(__file__).resolve().parent / "programs"

# The same scalar code for both machines: no vectors, which the guest has not, no loops turned into
# calls of a library that has them, and no fused multiply-add, which x86-64 has only by option and
# which would change results.
FLAGS = ["-std=gnu17", "-O2", "-static", "-pthread", "-fno-tree-vectorize",
         "-fno-tree-loop-distribute-patterns", "-ffp-contract=off", "-fno-math-errno",
         "-Wall", "-Wextra", "-Wno-unused-parameter"]

# The groups that need more than one hart.
HARTS = {"threads": 2}


class Row:
    """A line of the table; in all of them a lower figure is better. `work` is how much a program
    does; rows that no program gives have none."""

    def __init__(self, name, group, unit="s", work=""):
        self.name, self.group, self.unit, self.work = name, group, unit, work
        self.harts = HARTS.get(group, 1)


def newer(path, sources):
    return path.exists() and all(path.stat().st_mtime > source.stat().st_mtime
                                 for source in sources)


def compile_for(compiler, path):
    """Another run may be building or using the same file: the new one replaces it at once."""
    if newer(path, list(SOURCES.iterdir()) + [pathlib.Path(__file__)]):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        subprocess.run([compiler, *FLAGS, *sorted(SOURCES.glob("*.c")), "-o", new, "-lm"],
                       check=True)
    except FileNotFoundError:
        raise SystemExit(f"bench: the compiler {compiler} is missing; ./dev setup installs it")
    except subprocess.CalledProcessError:
        raise SystemExit(f"bench: {compiler} could not build {SOURCES}; its messages say why")
    new.rename(path)
    return path


class Programs:
    """`native` is the command for this machine; `initrd` holds the one for the guest, as init."""

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        self.native = compile_for("gcc", folder / "native")
        guest = compile_for("riscv64-linux-gnu-gcc", folder / "guest")
        self.initrd = folder / "initrd"
        new = folder / f"initrd.{os.getpid()}"
        new.write_bytes(archive({"init": guest.read_bytes()}))
        new.rename(self.initrd)

    def rows(self):
        """All rows in the order of the table."""
        text = subprocess.run([self.native, "--list"], check=True, capture_output=True,
                              text=True).stdout
        rows = []
        for line in text.splitlines():
            name, group, amount, unit = line.split()
            rows.append(Row(name, group, work=f"{amount} {unit}"))
        return rows + [Row("boot-1", "boot"), Row("boot-2", "boot"),
                       Row("resident", "footprint", "MiB")]
