"""The instruction table of src/isa, as the generator of programs sees it."""

import csv
import pathlib
import re

ISA = pathlib.Path(__file__).resolve().parent.parent.parent / "src" / "isa"


def rows(file, macro):
    """The arguments of each MACRO(...) line."""
    for line in (ISA / file).read_text().splitlines():
        if line.startswith(macro + "("):
            body = line[len(macro) + 1:line.rindex(")")]
            body = re.sub(r"(ONE|BOTH|EITHER)\(([^)]*)\)", lambda m: m[2].replace(",", " "), body)
            body = body.split("/*")[0].strip().rstrip(")")
            yield next(csv.reader([body], skipinitialspace=True))


class Format:
    def __init__(self, identifier, operands, rd, rs1, rs2, rs3, rm, immediate):
        self.identifier = identifier.strip()
        self.rd, self.rs1, self.rs2, self.rs3 = rd, rs1, rs2, rs3
        self.rm, self.immediate = rm, immediate
        self.float_rd = "D" in operands


class Instruction:
    def __init__(self, name, mask, match, form, extension, flags, length):
        self.name, self.mask, self.match = name, mask, match
        self.format, self.extension, self.flags = form, extension, flags
        self.length = length
        self.bits = bin(mask).count("1")
        self.special = []  # rows with more mask bits that hide some of this one's encodings

    def matches(self, bits):
        return bits & self.mask == self.match


# Where a format's register comes from: the bits of the field, and what is added to it.
FIELDS = {"RD": (7, 5, 0), "RS1": (15, 5, 0), "RS2": (20, 5, 0), "RS3": (27, 5, 0),
          "CRD": (2, 3, 8), "CRS1": (7, 3, 8), "CRS2": (2, 5, 0)}
FIXED = {"NONE": None, "SP": 2, "RA": 1}


def register(source, bits):
    """The number of a register in an encoding, None if the format has none there."""
    if source in FIXED:
        return FIXED[source]
    shift, width, base = FIELDS[source]
    return (bits >> shift & (1 << width) - 1) + base


def set_register(source, bits, number):
    shift, width, base = FIELDS[source]
    mask = (1 << width) - 1
    assert 0 <= number - base <= mask
    return bits & ~(mask << shift) | (number - base) << shift


def load():
    formats = {row[0]: Format(*row) for row in rows("formats.def", "FORMAT")}
    full = {}
    for name, _, mask, match, form, extension, flags in rows("instructions.def", "INSN"):
        full[name] = Instruction(name, int(mask, 0), int(match, 0), formats[form], extension,
                                 set(re.findall(r"ISA_\w+", flags)), 4)
    compressed = []
    for row in rows("compressed.def", "COMPRESSED"):
        name, mask, match, form, extension, expansion = row
        flags = full[expansion].flags if expansion in full else {"ILLEGAL"}
        row = Instruction(name, int(mask, 0), int(match, 0), formats[form], extension, flags, 2)
        row.expansion = expansion
        compressed.append(row)
    for table in (list(full.values()), compressed):
        for row in table:
            row.special = [other for other in table if other.bits > row.bits
                           and (other.match ^ row.match) & other.mask & row.mask == 0]
    return full, compressed


def decode(table, bits):
    """The row with the most mask bits that fits, as the decoder chooses; None: illegal."""
    fitting = [row for row in table if row.matches(bits)]
    return max(fitting, key=lambda row: row.bits, default=None)
