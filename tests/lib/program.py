"""Small bare-metal programs in assembly, for tests."""

import subprocess

# Everything in one segment: no header of the file is loaded below the program.
LAYOUT = """
PHDRS {{ all PT_LOAD FLAGS(7); }}
SECTIONS {{
    . = {address:#x};
    .text : {{ *(.text*) *(.rodata*) }} :all
    .data : {{ *(.data*) *(.tohost) *(.bss*) }} :all
}}
ENTRY(_start)
"""


def assemble(folder, source, *, name="program", address=0x80000000, march="rv64gc", **symbols):
    """The path of an ELF file; `symbols` are values that the source may use."""
    text = folder / f"{name}.s"
    layout = folder / f"{name}.ld"
    program = folder / f"{name}.elf"
    text.write_text(source)
    layout.write_text(LAYOUT.format(address=address))
    subprocess.run(
        ["clang-19", f"--target=riscv{march[2:4]}", f"-march={march}", "-nostdlib", "-static",
         "-fuse-ld=lld-19", "-mno-relax", f"-Wl,-T,{layout}",
         *[f"-Wa,-defsym,{symbol}={value}" for symbol, value in symbols.items()],
         text, "-o", program], check=True)
    return program
