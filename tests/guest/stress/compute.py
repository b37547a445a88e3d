"""Computations whose results do not depend on the machine or on Python's version:
`compute.py SEED` prints one line each."""

import decimal
import fractions
import hashlib
import json
import re
import struct
import sys
import zlib


def numbers(state):
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield state >> 11


def main(seed):
    source = numbers(seed)
    data = b"".join(struct.pack("<Q", next(source)) for _ in range(20000))
    for name in ("md5", "sha1", "sha256", "sha512", "sha3_256", "blake2b"):
        print(name, hashlib.new(name, data).hexdigest())
    print("crc32", zlib.crc32(data), zlib.adler32(data))
    print("zlib", hashlib.sha256(zlib.decompress(zlib.compress(data * 3, 6))).hexdigest())

    big = next(source) ** 40
    print("integers", hashlib.sha256(str(big).encode()).hexdigest(),
          pow(big, 65537, 2**521 - 1), big // (next(source) ** 13) % 2**64)
    decimal.getcontext().prec = 80
    print("decimal", decimal.Decimal(next(source)).sqrt() / decimal.Decimal(7))
    print("fractions", sum((fractions.Fraction(1, next(source) % 999 + 1) for _ in range(60)),
                           fractions.Fraction()))

    values = [next(source) for _ in range(20000)]
    print("sorting", hashlib.sha256(repr(sorted(values)).encode()).hexdigest())
    table = {f"key{value % 5000}": value for value in values}
    text = json.dumps(table, sort_keys=True)
    print("json", hashlib.sha256(text.encode()).hexdigest(), json.loads(text) == table)
    print("words", len(re.findall(r"key\d*7\D+\d*17\b", text)), text.count("99"))

    total = 0.0
    for value in values:
        total = total * 0.5 + value / 3.0
        total -= int(total / 7.0)
    print("floating", total.hex())


main(int(sys.argv[1]))
