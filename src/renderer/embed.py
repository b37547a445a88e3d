"""Writes text files as C strings, each named after its file: embed.py OUTPUT INPUT..."""

import json
import pathlib
import sys

with open(sys.argv[1], "w", encoding="ascii") as out:
    for name in sys.argv[2:]:
        path = pathlib.Path(name)
        out.write(f"static const char {path.stem}_source[] =\n")
        lines = path.read_text(encoding="ascii").splitlines(keepends=True)
        out.writelines(f"    {json.dumps(line)}\n" for line in lines)
        out.write("    ;\n")
