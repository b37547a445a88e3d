"""Small bare-metal programs in assembly and C, for tests."""

import subprocess

# Everything in one segment: no header of the file is loaded below the program.
LAYOUT = """
PHDRS {{ all PT_LOAD FLAGS(7); }}
SECTIONS {{
    . = {address:#x};
    .text : {{ *(.text.start) *(.text*) *(.rodata*) }} :all
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


# main() on a stack of its own, then a shutdown by SBI.
START = """
        .section .text.start, "ax"
        .globl _start
_start: la sp, stack_top
        li s0, 0
        call main
        li a7, 8
        ecall
1:      j 1b
        .bss
        .balign 16
        .skip 65536
stack_top:
"""


def compile_kernel(folder, source, *options, name="program", address=0x80200000):
    """The path of an ELF file that --kernel boots: main() in C, in S-mode."""
    start = folder / "start.S"
    text = folder / f"{name}.c"
    layout = folder / f"{name}.ld"
    program = folder / f"{name}.elf"
    start.write_text(START)
    text.write_text(source)
    layout.write_text(LAYOUT.format(address=address))
    subprocess.run(
        ["clang-19", "--target=riscv64", "-march=rv64gc", "-mcmodel=medany", "-ffreestanding",
         "-nostdlib", "-static", "-fuse-ld=lld-19", "-O2", *options, f"-Wl,-T,{layout}",
         start, text, "-o", program], check=True)
    return program
