"""Random programs: sequences of instructions of every class, made from the instruction table.

A sequence runs in U-mode or S-mode under Sv39, Sv48 or Sv57, with only its code, two writable pages
and a read-only page mapped, so whatever it computes as an address, it cannot leave them. It starts
with special values in all registers and ends at an ebreak; runtime/random.S steps over every trap.
Control only flows forward, but for counted loops, so each sequence ends.

Registers that instructions do not overwrite: pointers sp, x8, x9 (read-only page), x30; loop
counter x31. x29 holds an address for the instruction after it.
"""

import random
import struct

import instructions

FULL, COMPRESSED = instructions.load()
TABLE = list(FULL.values())

CODE = 0x80800000
TABLES_SIZE = 0x10000
FIRST_CODE = CODE + TABLES_SIZE
CODE_LIMIT = 0x80800000 + 0x800000
SCRATCH = 0x82000000

MODE_U, MODE_S = 0, 1
# By mode: where code appears relative to its physical address, and where the scratch pages are.
CODE_ALIAS = {MODE_U: -0x40000000, MODE_S: 0x40000000}
SCRATCH_ALIAS = {MODE_U: 0x10000, MODE_S: 0x20000}
READ_ONLY = 0x2000  # offset from the scratch pages; beyond its page nothing is mapped

PTE_V, PTE_R, PTE_W, PTE_X, PTE_U, PTE_A, PTE_D = 1, 2, 4, 8, 16, 64, 128

POINTERS = (2, 8, 9, 30)
COUNTER = 31
ADDRESS = 29
PROTECTED = frozenset(POINTERS) | {COUNTER}

EBREAK = 0x00100073

INTEGERS = [0, 1, 2, 3, 7, 8, 31, 32, 63, 64, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff,
            0x80000000, 0xffffffff, 0x100000000, 0x7fffffffffffffff, 0x8000000000000000,
            0x8000000000000001, 0xffffffff80000000, 0xffffffff7fffffff, 0xfffffffffffffffe,
            0xffffffffffffffff, 0x0123456789abcdef, 0x5555555555555555, 0xaaaaaaaaaaaaaaaa,
            0x00ff00ff00ff00ff, 0x0000ffff0000ffff]

# exponent bits, fraction bits
HALF, SINGLE, DOUBLE = (5, 10), (8, 23), (11, 52)


class Values:
    def __init__(self, rng):
        self.rng = rng

    def integer(self):
        rng = self.rng
        kind = rng.random()
        if kind < 0.5:
            return rng.choice(INTEGERS)
        if kind < 0.6:
            return 1 << rng.randrange(64)
        if kind < 0.7:
            return (rng.choice(INTEGERS) + rng.randint(-4, 4)) % 2**64
        value = rng.getrandbits(rng.randint(1, 64))
        return value if rng.random() < 0.7 else -value % 2**64

    def number(self, form):
        """Raw bits of a floating-point format: special, near the ends, near each other."""
        rng = self.rng
        exponent_bits, fraction_bits = form
        top = (1 << exponent_bits) - 1
        bias = top >> 1
        exponent = rng.choice([0, 0, 1, 2, top, top - 1, bias, bias + 1, bias - 1,
                               bias + rng.randint(-6, 6),
                               min(top - 1, bias + rng.randint(0, fraction_bits + 14)),
                               min(top - 1, bias + rng.choice([15, 16, 30, 31, 32, 62, 63, 64])),
                               rng.randint(0, top)])
        whole = (1 << fraction_bits) - 1
        fraction = rng.choice([0, 0, 1, whole, whole - 1, 1 << (fraction_bits - 1),
                               whole >> 1, rng.getrandbits(fraction_bits),
                               rng.getrandbits(fraction_bits),
                               whole & whole << rng.randrange(fraction_bits),
                               1 << rng.randrange(fraction_bits)])
        return rng.getrandbits(1) << exponent_bits + fraction_bits | exponent << fraction_bits \
            | fraction

    def float_register(self):
        kind = self.rng.random()
        if kind < 0.45:
            return self.number(DOUBLE)
        if kind < 0.75:
            return 0xffffffff00000000 | self.number(SINGLE)
        if kind < 0.93:
            return 0xffffffffffff0000 | self.number(HALF)
        return self.rng.choice([self.integer(), self.number(SINGLE), self.number(HALF),
                                0xfffffffe00000000 | self.number(SINGLE)])

    def pool(self):
        """The page of values that loads find, by kind: POOL says where."""
        words = [self.integer() for _ in range(128)]
        words += [self.number(DOUBLE) for _ in range(128)]
        words += [self.packed(SINGLE, 32) for _ in range(128)]
        words += [self.packed(HALF, 16) for _ in range(128)]
        return words

    def packed(self, form, width):
        return sum(self.number(form) << shift for shift in range(0, 64, width))


POOL = {"x": (0x000, "ld"), "d": (0x400, "fld"), "s": (0x800, "flw"), "h": (0xc00, "flh")}


def encode_i(match, rd, rs1, immediate):
    return match | rd << 7 | rs1 << 15 | (immediate & 0xfff) << 20


def encode_branch(bits, offset):
    return bits | (offset >> 12 & 1) << 31 | (offset >> 5 & 0x3f) << 25 | (offset >> 1 & 15) << 8 \
        | (offset >> 11 & 1) << 7


def encode_jal(rd, offset):
    return 0x6f | rd << 7 | (offset >> 20 & 1) << 31 | (offset >> 1 & 0x3ff) << 21 \
        | (offset >> 11 & 1) << 20 | (offset >> 12 & 0xff) << 12


def encode_c_branch(bits, offset):
    return bits | (offset >> 8 & 1) << 12 | (offset >> 3 & 3) << 10 | (offset >> 6 & 3) << 5 \
        | (offset >> 1 & 3) << 3 | (offset >> 5 & 1) << 2


def encode_c_j(offset):
    return 0xa001 | (offset >> 11 & 1) << 12 | (offset >> 4 & 1) << 11 | (offset >> 8 & 3) << 9 \
        | (offset >> 10 & 1) << 8 | (offset >> 6 & 1) << 7 | (offset >> 7 & 1) << 6 \
        | (offset >> 1 & 7) << 3 | (offset >> 5 & 1) << 2


def select(condition):
    return [row for row in TABLE if condition(row)]


CONDITIONAL = {"lr_w", "lr_d", "sc_w", "sc_d"}
WAITING = {"wfi"}
LOADS = select(lambda row: "ISA_LOAD" in row.flags and "ISA_AMO" not in row.flags)
STORES = select(lambda row: "ISA_STORE" in row.flags and not row.flags & {"ISA_AMO", "ISA_CBO"})
AMOS = select(lambda row: row.flags & {"ISA_AMO_4", "ISA_AMO_8", "ISA_AMO_16"})
CACHE = select(lambda row: "ISA_CBO" in row.flags)
FENCES = select(lambda row: "ISA_FENCE" in row.flags and "ISA_SYSTEM" not in row.flags)
CSRS = select(lambda row: "ISA_CSR" in row.flags)
SYSTEM = select(lambda row: "ISA_SYSTEM" in row.flags and "ISA_CSR" not in row.flags
                and row.name not in WAITING)
BRANCHES = select(lambda row: "ISA_BRANCH" in row.flags)
FLOATS = select(lambda row: row.flags == {"ISA_FP"})
INTEGER = select(lambda row: not row.flags)
SHORT = [row for row in COMPRESSED if not row.flags & {"ISA_JUMP", "ISA_BRANCH", "ISA_SYSTEM"}
         and row.format.identifier != "C_ADDI16SP"]
SHORT_MEMORY = {"C_LW", "C_LD", "C_FLD", "C_SW", "C_SD", "C_FSD"}
C_ADDI16SP = next(row for row in COMPRESSED if row.format.identifier == "C_ADDI16SP")

CSRS_ANYWHERE = [0x001, 0x002, 0x003] * 8 + [
    0x000, 0x004, 0x008, 0x015, 0x017, 0x100, 0x105, 0x141, 0x180, 0x200, 0x300, 0x301, 0x305,
    0x341, 0x3a0, 0x3b0, 0x5a8, 0x680, 0x744, 0x7a0, 0x7c0, 0x800, 0xb00, 0xc00, 0xc01, 0xc02,
    0xc1f, 0xcc0, 0xd00, 0xf11, 0xf14, 0xfff]
# Storage without further meaning while nothing is delegated: sscratch and stval.
CSRS_SUPERVISOR = [0x140, 0x143] * 6


class Sequence:
    """The code and the start of one sequence."""

    def __init__(self, number, seed, length):
        self.number, self.seed = number, seed
        self.place = None
        self.rng = rng = random.Random(seed)
        self.values = Values(rng)
        self.code = []  # (offset, bits, length)
        self.size = 0
        self.protected = set(PROTECTED)
        self.mode = MODE_S if rng.random() < 0.3 else MODE_U
        self.set_start()
        while len(self.code) < length:
            self.unit(2)

    def set_start(self):
        rng, values = self.rng, self.values
        scratch = SCRATCH_ALIAS[self.mode]
        other = SCRATCH_ALIAS[1 - self.mode]
        x = [0] + [values.integer() for _ in range(31)]
        for register in (10, 11, 12):  # bases that may get lost
            x[register] = rng.choice([scratch, other]) + rng.randrange(0, 0x3000)
        x[2] = scratch + rng.choice([0x400, 0x800, 0x1100, 0xfc0, 0xff8, 0x1f00, 0x401])
        x[8] = scratch + rng.choice([0x800, 0xfe0, 0x1000, 0x1fa0, rng.randrange(0x2000)])
        x[9] = scratch + READ_ONLY + rng.choice([0x800] * 6 + [0, 0xf80])
        x[30] = scratch + rng.choice([0x800, 0x1000, 0x1800, 0xffc, rng.randrange(0x2000)])
        self.x = x
        self.f = [values.float_register() for _ in range(32)]
        rounding = rng.randrange(5) if rng.random() < 0.9 else rng.randrange(5, 8)
        self.fcsr = rounding << 5 | rng.getrandbits(5)
        float_state = 0 if rng.random() < 0.05 else rng.randrange(1, 4)
        self.status = self.mode << 11 | float_state << 13 | rng.getrandbits(2) << 18 \
            | rng.getrandbits(1) << 20
        self.paging = rng.choice([8, 9, 10])
        self.envcfg = [rng.choice([0, 1, 3]) << 4 | rng.getrandbits(2) << 6 for _ in range(2)]

    # --- placing instructions ---

    def emit(self, bits, length=4):
        self.code.append((self.size, bits, length))
        self.size += length
        return len(self.code) - 1

    def patch(self, index, bits):
        offset, _, length = self.code[index]
        self.code[index] = (offset, bits, length)

    def destination(self):
        while True:
            register = self.rng.randrange(32)
            if register not in self.protected:
                return register

    def writes_protected(self, row, bits):
        if row.format.float_rd:
            return False
        rd = instructions.register(row.format.rd, bits)
        if rd is None:
            return False
        if rd == 0 and row.name.startswith("amocas"):
            return True  # see QEMU_DIFFERS in machines.py
        return rd in self.protected or (row.name == "amocas_q" and rd | 1 in self.protected)

    def fill(self, row):
        """A random encoding of a row that leaves the protected registers alone."""
        width = 8 * row.length
        while True:
            bits = self.rng.getrandbits(width) & ~row.mask | row.match
            # Not the encoding of a more special row: that one may do something else.
            if not self.writes_protected(row, bits) \
                    and not any(special.matches(bits) for special in row.special):
                break
        if row.format.rm == "RM":
            kind = self.rng.random()
            rounding = 7 if kind < 0.2 else self.rng.randrange(5, 7) if kind < 0.24 \
                else self.rng.randrange(5)
            bits = bits & ~(7 << 12) | rounding << 12
        return bits

    def base(self, writable=False):
        """A register for an address: a pointer, or seldom anything."""
        if self.rng.random() < 0.06:
            return self.rng.randrange(32)
        return self.rng.choice((2, 8, 30) if writable else POINTERS)

    # --- what a sequence is made of ---

    def unit(self, depth):
        kinds = UNITS if depth else UNITS[:-CONTROL_UNITS]
        total = sum(weight for weight, _ in kinds)
        choice = self.rng.random() * total
        for weight, method in kinds:
            choice -= weight
            if choice < 0:
                break
        if method.__name__.startswith("control"):
            method(self, depth - 1)
        else:
            method(self)

    def integer(self):
        self.emit(self.fill(self.rng.choice(INTEGER)))

    def float(self):
        row = self.rng.choice(FLOATS)
        bits = self.fill(row)
        # Arithmetic on arithmetic soon knows nothing but NaNs and infinities.
        for field in (row.format.rs1, row.format.rs2, row.format.rs3):
            if field != "NONE" and self.rng.random() < 0.4:
                kind = row.name.rsplit("_", 1)[1]
                self.refresh(kind if kind in POOL else "d", instructions.register(field, bits))
        self.emit(bits)

    def short(self):
        row = self.rng.choice(SHORT)
        bits = self.fill(row)
        if row.format.identifier in SHORT_MEMORY and self.rng.random() < 0.9:
            bits = instructions.set_register("CRS1", bits, self.rng.choice((8, 9)))
        self.emit(bits, 2)

    def memory(self):
        row = self.rng.choice(LOADS if self.rng.random() < 0.55 else STORES)
        bits = self.fill(row)
        bits = instructions.set_register("RS1", bits, self.base())
        if self.rng.random() < 0.5:
            bits &= ~(7 << 20) if row in LOADS else ~(7 << 7)  # the low bits of the offset
        self.emit(bits)

    def refresh(self, kind=None, register=None):
        """A special value again, into a register of that kind or any."""
        kind = kind or self.rng.choice("xxdsh")
        start, mnemonic = POOL[kind]
        if register is None or kind == "x":
            register = self.rng.randrange(32) if kind != "x" else self.destination()
        place = start + self.rng.randrange(0, 0x400, {"x": 8, "d": 8, "s": 4, "h": 2}[kind])
        offset = place - (self.x[9] - SCRATCH_ALIAS[self.mode] - READ_ONLY)
        if -2048 <= offset < 2048:
            self.emit(encode_i(FULL[mnemonic].match, register, 9, offset))

    def address(self, alignment, writable=False):
        """x29 = an address; aligned, but for few."""
        offset = self.rng.randrange(-0x400, 0x400)
        self.emit(encode_i(0x13, ADDRESS, self.rng.choice((2, 8, 30) if writable else POINTERS),
                           offset))
        self.emit(encode_i(0x7013, ADDRESS, ADDRESS, -alignment))

    def atomic(self):
        row = self.rng.choice(AMOS)
        size = int(next(iter(row.flags)).rsplit("_", 1)[1])
        self.address(size)
        bits = instructions.set_register("RS1", self.fill(row), ADDRESS)
        if row.name.startswith("amocas") and self.rng.random() < 0.5:
            # What memory holds, so that the comparison succeeds.
            rd = instructions.register("RD", bits)
            if rd not in (0, ADDRESS):
                self.emit(encode_i(FULL["lw" if size == 4 else "ld"].match, rd, ADDRESS, 0))
                if size == 16 and rd & 1 == 0 and rd + 1 != ADDRESS:
                    self.emit(encode_i(FULL["ld"].match, rd + 1, ADDRESS, 8))
        self.emit(bits)

    def reservation(self):
        size = self.rng.choice("wd")
        self.address(8, writable=True)
        load = instructions.set_register("RS1", self.fill(FULL[f"lr_{size}"]), ADDRESS)
        if instructions.register("RD", load) == ADDRESS:
            load = instructions.set_register("RD", load, 0)
        self.emit(load)
        self.protected.add(ADDRESS)
        for _ in range(self.rng.randrange(4)):
            self.integer()
        self.protected.discard(ADDRESS)
        store = self.fill(FULL[f"sc_{size}"])
        self.emit(instructions.set_register("RS1", store, ADDRESS))

    def cache(self):
        row = self.rng.choice(CACHE)
        bits = self.fill(row)
        self.emit(instructions.set_register("RS1", bits, self.base()))

    def fence(self):
        self.emit(self.fill(self.rng.choice(FENCES)))

    def csr(self):
        numbers = CSRS_ANYWHERE + (CSRS_SUPERVISOR if self.mode == MODE_S else [])
        number = self.rng.choice(numbers)
        if number in (0x100, 0x105, 0x141, 0x180) and self.mode == MODE_S:
            number = 0x003
        bits = self.fill(self.rng.choice(CSRS))
        self.emit(bits & 0xfffff | number << 20)

    def system(self):
        row = self.rng.choice(SYSTEM)
        if self.mode == MODE_S and row.name == "sret":
            return
        if self.mode == MODE_U and row.name in ("sfence_w_inval", "sfence_inval_ir"):
            return  # see QEMU_DIFFERS in machines.py
        self.emit(self.fill(row))

    def stack(self):
        """c.addi16sp and what goes by it; sp is restored."""
        self.emit(encode_i(0x13, ADDRESS, 2, 0))
        self.protected.add(ADDRESS)
        self.protected.discard(2)
        self.emit(self.fill(C_ADDI16SP), 2)
        self.protected.add(2)
        for _ in range(self.rng.randrange(1, 4)):
            self.short()
        self.protected.discard(ADDRESS)
        self.emit(encode_i(0x13, 2, ADDRESS, 0))

    def mutant(self):
        """A damaged encoding: mostly illegal, and if not, harmless."""
        while True:
            if self.rng.random() < 0.3:
                bits, length, table = self.rng.getrandbits(16), 2, COMPRESSED
                if bits & 3 == 3:
                    continue
            else:
                length, table = 4, TABLE
                if self.rng.random() < 0.15:
                    bits = self.rng.getrandbits(32) | 3
                else:
                    row = self.rng.choice(TABLE)
                    bits = self.rng.getrandbits(32) & ~row.mask | row.match
                    for _ in range(self.rng.randint(1, 3)):
                        bits ^= 1 << self.rng.randrange(2, 32)
                if bits & 0x1f == 0x1f:
                    continue  # longer than 32 bits
            row = instructions.decode(table, bits)
            if row is None or "ILLEGAL" in row.flags:
                break
            harmful = {"ISA_JUMP", "ISA_BRANCH", "ISA_SYSTEM", "ISA_CSR"}
            if not row.flags & harmful and row.name not in CONDITIONAL \
                    and row.format.identifier != "C_ADDI16SP" \
                    and not self.writes_protected(row, bits):
                break
        self.emit(bits, length)

    def control_body(self, depth, most=4):
        for _ in range(self.rng.randrange(most + 1)):
            self.unit(depth)

    def control_branch(self, depth):
        rng = self.rng
        if rng.random() < 0.3:
            index = self.emit(0, 2)
            start = self.size
            while self.size - start < 200 and rng.random() < 0.6:
                self.unit(0)
            if rng.random() < 0.3:
                bits = encode_c_j(self.size - start + 2)
            else:
                bits = encode_c_branch(rng.choice([0xc001, 0xe001]) | rng.randrange(8) << 7,
                                       self.size - start + 2)
            self.patch(index, bits)
            return
        bits = self.rng.getrandbits(32)
        row = rng.choice(BRANCHES)
        bits = bits & 0x1ff8000 & ~row.mask | row.match
        index = self.emit(0)
        start = self.size
        self.control_body(depth)
        self.patch(index, encode_branch(bits, self.size - start + 4))

    def control_jump(self, depth):
        """jal, or auipc and jalr, which ignores the lowest bit."""
        rng = self.rng
        if rng.random() < 0.5:
            index = self.emit(0)
            start = self.size
            self.control_body(depth)
            self.patch(index, encode_jal(self.destination(), self.size - start + 4))
            return
        self.emit(0x17 | ADDRESS << 7)
        link = self.destination()
        short = rng.random() < 0.3
        if short:
            # c.jr and c.jalr have no offset: it goes into the register first.
            index = self.emit(0)
            # c.jalr links to ra, which a function around this needs.
            self.emit(rng.choice([0x8002, 0x8002 if 1 in self.protected else 0x9002])
                      | ADDRESS << 7, 2)
        else:
            index = self.emit(0)
        before = self.code[index][0] - 4
        self.control_body(depth)
        distance = self.size - before
        if short:
            self.patch(index, encode_i(0x13, ADDRESS, ADDRESS, distance))
        else:
            self.patch(index, encode_i(0x67, link, ADDRESS, distance | rng.getrandbits(1)))

    def control_call(self, depth):
        """A function, jumped over and then called once or more; ra is the link, or t0."""
        rng = self.rng
        link = rng.choice([1, 5])
        if link in self.protected:
            return
        over = self.emit(0)
        function = self.size
        self.protected.add(link)
        self.control_body(depth)
        self.protected.discard(link)
        if rng.random() < 0.5:
            self.emit(0x8002 | link << 7, 2)
        else:
            self.emit(encode_i(0x67, 0, link, 0))
        self.patch(over, encode_jal(0, self.size - self.code[over][0]))
        for _ in range(rng.randint(1, 3)):
            self.emit(encode_jal(link, (function - self.size) & 0x1fffff))

    def control_loop(self, depth):
        if COUNTER in getattr(self, "counting", ()):
            return
        self.counting = {COUNTER}
        self.emit(encode_i(0x13, COUNTER, 0, self.rng.randint(1, 4)))
        start = self.size
        self.control_body(depth)
        self.emit(encode_i(0x13, COUNTER, COUNTER, -1))
        self.emit(encode_branch(0x1063 | COUNTER << 15, (start - self.size) & 0x1fff))
        self.counting = set()

    # --- what goes into the image ---

    def words(self, number, code_address, stop):
        alias = CODE_ALIAS[self.mode]
        satp = self.paging << 60 | (CODE + PAGING_ROOT[self.paging]) >> 12
        words = self.x[1:] + [self.status] + self.f + [
            self.fcsr, satp, code_address + alias, code_address + alias + self.size,
            alias % 2**64, self.envcfg[0], self.envcfg[1], number,
            code_address + alias + (self.size if stop is None else self.code[stop][0])]
        return struct.pack("<73Q", *words)

    def code_bytes(self, stop=None):
        """The code, with an ebreak for the instruction `stop` and at the end."""
        data = bytearray()
        for index, (_, bits, length) in enumerate(self.code):
            if index == stop:
                data += struct.pack("<I", EBREAK)[:length] if length == 4 else b"\x02\x90"
            else:
                data += bits.to_bytes(length, "little")
        return bytes(data) + struct.pack("<I", EBREAK)


UNITS = [
    (24, Sequence.integer),
    (22, Sequence.float),
    (14, Sequence.short),
    (14, Sequence.memory),
    (8, Sequence.refresh),
    (4, Sequence.atomic),
    (2, Sequence.reservation),
    (1.5, Sequence.cache),
    (0.7, Sequence.fence),
    (2.5, Sequence.csr),
    (0.7, Sequence.system),
    (0.7, Sequence.stack),
    (3, Sequence.mutant),
    (3, Sequence.control_branch),
    (1.5, Sequence.control_jump),
    (0.7, Sequence.control_call),
    (0.7, Sequence.control_loop),
]
CONTROL_UNITS = 4

# Offsets of the page tables in the code region.
PAGING_ROOT = {8: 0x0000, 9: 0x1000, 10: 0x2000}
SCRATCH_LEVEL1, SCRATCH_LEVEL0, CODE_U, CODE_S = 0x3000, 0x4000, 0x5000, 0x6000


def page_tables():
    tables = bytearray(TABLES_SIZE)

    def entry(table, index, physical, flags):
        struct.pack_into("<Q", tables, table + 8 * index, physical >> 12 << 10 | flags | PTE_V)

    entry(PAGING_ROOT[10], 0, CODE + PAGING_ROOT[9], 0)
    entry(PAGING_ROOT[9], 0, CODE + PAGING_ROOT[8], 0)
    root = PAGING_ROOT[8]
    entry(root, 0, CODE + SCRATCH_LEVEL1, 0)
    entry(SCRATCH_LEVEL1, 0, CODE + SCRATCH_LEVEL0, 0)
    for mode, user in ((MODE_U, PTE_U), (MODE_S, 0)):
        first = SCRATCH_ALIAS[mode] >> 12
        for page in range(3):
            write = PTE_W | PTE_D if page < 2 else 0
            entry(SCRATCH_LEVEL0, first + page, SCRATCH + 4096 * page,
                  PTE_R | write | PTE_A | user)
        table = CODE_S if mode == MODE_S else CODE_U
        entry(root, CODE + CODE_ALIAS[mode] >> 30, CODE + table, 0)
        for page in range(4):
            physical = CODE + 0x200000 * page
            entry(table, physical >> 21 & 511, physical, PTE_R | PTE_X | PTE_A | user)
    return bytes(tables)


def image(sequences, pool_seed, full):
    """The two parts of an image: records and code. `sequences` are pairs of a sequence and the
    index of the instruction that it stops before (None: it runs to its end); the position in the
    list is its number. A sequence keeps its place in the page from its first image."""
    values = Values(random.Random(pool_seed))
    records = bytearray(struct.pack("<2Q", len(sequences), full).ljust(4096, b"\0"))
    records += struct.pack("<512Q", *values.pool())
    code = bytearray(page_tables())
    for number, (sequence, stop) in enumerate(sequences):
        if sequence.place is None:
            code += bytes(-len(code) % 16)
            sequence.place = len(code) % 4096
        code += bytes((sequence.place - len(code)) % 4096)
        records += sequence.words(number, CODE + len(code), stop)
        code += sequence.code_bytes(stop)
    if CODE + len(code) > CODE_LIMIT:
        raise ValueError("too many sequences for one image")
    return bytes(records), bytes(code)
