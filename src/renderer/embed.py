"""Writes a text file as a C string: embed.py NAME INPUT OUTPUT."""

import json
import sys

name, source, target = sys.argv[1:]
with open(source, encoding="ascii") as file, open(target, "w", encoding="ascii") as out:
    out.write(f"static const char {name}[] =\n")
    out.writelines(f"    {json.dumps(line)}\n" for line in file)
    out.write("    ;\n")
