"""Each instruction that computes from registers, over a grid of operands, in each rounding mode."""

import unittest

import generate
import machines

INTEGERS = [0, 1, 2, 3, 7, 31, 32, 33, 63, 64, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0x7fffffff,
            0x80000000, 0x80000001, 0xffffffff, 0x100000000, 0x7fffffffffffffff,
            0x8000000000000000, 0x8000000000000001, 0xffffffff7fffffff, 0xffffffff80000000,
            0xfffffffffffffffe, 0xffffffffffffffff, 0x0123456789abcdef, 0x5555555555555555,
            0xf0e1d2c3b4a59687]
IMMEDIATES = [0, 1, 2, 31, 32, 63, 64, 255, 1024, 2047, -1, -2, -63, -64, -1024, -2047, -2048]
SHIFTS = [0, 1, 7, 8, 15, 16, 31, 32, 33, 48, 62, 63]


def numbers(form, box, few):
    """A format's special values with both signs, NaN-boxed."""
    exponent_bits, fraction_bits = form
    top = (1 << exponent_bits) - 1
    bias = top >> 1
    one = bias << fraction_bits
    infinity = top << fraction_bits
    quiet = 1 << fraction_bits - 1
    normal = 1 << fraction_bits
    values = [0, 1, normal - 1, normal, one - 1, one, one + 1, infinity - 1, infinity,
              infinity + quiet, infinity + 1]
    if not few:
        values += [normal // 2, normal + 1, one + quiet, one + normal, one + 2 * normal + 1,
                   one - normal // 2, one - normal, infinity - normal, infinity + normal - 1,
                   one + fraction_bits * normal, one + (fraction_bits + 1) * normal - 1]
        values += [min(bias + power, top - 1) << fraction_bits for power in (15, 31, 32, 63, 64)]
        values += [(min(bias + power, top - 1) << fraction_bits) - 1 for power in (15, 31, 32, 63)]
    sign = 1 << exponent_bits + fraction_bits
    values = list(dict.fromkeys(value | s for value in values for s in (0, sign)))
    boxed = [box | value for value in values]
    if box:
        # Not boxed: stands for the canonical NaN.
        boxed += [one, 0xfffffffe00000000 | one, 0x7fffffffffffffff & box | one]
    return boxed


BOX = {"h": (generate.HALF, 0xffffffffffff0000), "s": (generate.SINGLE, 0xffffffff00000000),
       "d": (generate.DOUBLE, 0)}


class Listing:
    """The assembly of the list: routines, grids, entries."""

    def __init__(self):
        self.routines, self.entries, self.names = [], [], []

    def add(self, name, text, grid, operands, rounds=False):
        index = len(self.names)
        self.names.append(name)
        self.routines.append(f"code{index}: {text}\n    ret\n")
        self.entries.append(f'    .dword name{index}, code{index}, {grid}, {grid}_end, {operands}, '
                            f'{int(rounds)}\n')

    def text(self, grids):
        out = ["    .text\n", *self.routines, "    .data\n    .balign 8\n"]
        for name, values in grids.items():
            out.append(f"{name}:\n")
            out += [f"    .dword {value:#x}\n" for value in values]
            out.append(f"{name}_end:\n")
        out += ["entries:\n", *self.entries, "entries_end:\n"]
        out += [f'name{index}: .asciz "{name}"\n' for index, name in enumerate(self.names)]
        return "".join(out)


def integer_listing():
    listing = Listing()
    for row in generate.INTEGER:
        name, mnemonic = row.name, row.name.replace("_", ".")
        form = row.format.identifier
        if form == "R":
            listing.add(name, f"{mnemonic} a0, a0, a1", "integers", 2)
        elif form == "R1":
            listing.add(name, f"{mnemonic} a0, a0", "integers", 1)
        elif form == "I":
            for immediate in IMMEDIATES:
                listing.add(f"{name} {immediate}", f"{mnemonic} a0, a0, {immediate}", "integers", 1)
        elif form in ("SHIFT", "SHIFTW"):
            for shift in SHIFTS:
                if shift < (64 if form == "SHIFT" else 32):
                    listing.add(f"{name} {shift}", f"{mnemonic} a0, a0, {shift}", "integers", 1)
    for form in ("lui", "auipc"):
        for immediate in (0, 1, 0x7ffff, 0x80000, 0xfffff):
            text = f"lui a0, {immediate}" if form == "lui" else \
                f"auipc a0, {immediate}\n    auipc a1, 0\n    sub a0, a0, a1"
            listing.add(f"{form} {immediate:#x}", text, "integers", 1)
    return listing, {"integers": INTEGERS}


def float_listing(suffix):
    """Everything whose source is that format, and conversions into it from integers."""
    listing = Listing()
    for row in generate.FLOATS:
        form, parts = row.format.identifier, row.name.split("_")
        from_integer = form in ("XTOF", "XTOF_RM", "XTOF_EXACT")
        if {"x": "d", "w": "s"}.get(parts[-1], parts[-1]) != suffix and not from_integer:
            continue
        if from_integer and {"x": "d", "w": "s"}.get(parts[1], parts[1]) != suffix:
            continue
        mnemonic = row.name.replace("_", ".")
        rounds = row.format.rm == "RM"
        operands = {"F3": "fa0, fa0, fa1", "F3_RM": "fa0, fa0, fa1", "F4_RM": "fa0, fa0, fa1, fa2",
                    "F2_RM": "fa0, fa0", "F2_EXACT": "fa0, fa0", "FTOX_RM": "a0, fa0",
                    "FTOX": "a0, fa0", "FCMP": "a0, fa0, fa1", "XTOF": "fa0, a0",
                    "XTOF_RM": "fa0, a0", "XTOF_EXACT": "fa0, a0"}[form]
        count = {"F3": 2, "F3_RM": 2, "FCMP": 2, "F4_RM": 3}.get(form, 1)
        grid = "integers" if from_integer else "few" if count == 3 else "numbers"
        if rounds and form not in ("F2_EXACT", "XTOF_EXACT"):
            operands += ", dyn"
        listing.add(row.name, f"{mnemonic} {operands}", grid, count, rounds)
        # Static rounding modes in the instruction, against another one in frm.
        if rounds and form in ("F3_RM", "FTOX_RM", "XTOF_RM"):
            for mode in ("rne", "rtz", "rdn", "rup", "rmm"):
                static = operands.replace("dyn", mode)
                listing.add(f"{row.name} {mode}", f"{mnemonic} {static}", grid, count)
    form, box = BOX[suffix]
    return listing, {"integers": INTEGERS, "numbers": numbers(form, box, False),
                     "few": numbers(form, box, True)}


def differ(results, label):
    theirs, ours = (machines.group(result.lines)
                    for result in (results[0], machines.worst(results)))
    return theirs.get(label) != ours.get(label)


class Operands(unittest.TestCase):
    def check(self, name, listing, grids):
        build = machines.Build("operands")
        source = build.path(f"{name}.S.inc")
        source.write_text(listing.text(grids))
        results = self.run_image(build, name, source, [])
        self.assertGreaterEqual(len(results[0].lines), len(listing.names))
        problems = machines.problems_of(results)
        if problems:
            self.fail("\n".join([*problems, self.explain(build, name, source, listing, results)]))

    def run_image(self, build, name, source, defines):
        image = build.link(name, [machines.HERE / "runtime" / "operands.S"],
                           [f'LIST_FILE="{source}"', *defines])
        return machines.run_all(image, timeout=120)

    def explain(self, build, name, source, listing, results):
        """The single operands, of the first instruction, mode and first operand that differ."""
        for index, entry in enumerate(listing.names):
            for mode in range(5):
                if differ(results, f"{entry} {mode}"):
                    return self.single(build, name, source, index, mode, f"{entry} {mode}")
        return ""

    def single(self, build, name, source, index, mode, label):
        defines = [f"ONLY={index}", f"MODE={mode}"]
        rows = self.run_image(build, f"{name}-rows", source, defines)
        first = next((row for row in range(100) if differ(rows, f"{label} {row:016x}")), 0)
        one = self.run_image(build, f"{name}-one", source, [*defines, f"FIRST={first}"])
        return "mode, first operand's index, operands: a0 fa0 fflags\n" \
            + "\n".join(machines.differences(one[0], machines.worst(one)))

    def test_integer(self):
        self.check("integer", *integer_listing())

    def test_half(self):
        self.check("half", *float_listing("h"))

    def test_single(self):
        self.check("single", *float_listing("s"))

    def test_double(self):
        self.check("double", *float_listing("d"))
