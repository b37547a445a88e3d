"""M-mode programs from the reset vector: OpenSBI, U-Boot, bare metal; and HTIF, semihosting."""

import os
import pathlib
import subprocess
import time
import unittest

import program
from guest import GuestTest, KERNEL, OPENSBI, U_BOOT, run_hartvisor


class OpenSbi(GuestTest):
    def boots(self, firmware, harts):
        guest = self.boot("--firmware", OPENSBI / firmware, "--cpus", str(harts))
        self.assertIn("OpenSBI v", guest.output.text())
        self.assertEqual(guest.check("nproc"), str(harts))
        self.assertRegex(guest.check("dmesg | grep 'SBI implementation'"), r"ID=0x1\b")
        self.assertEqual(guest.leave(9), 9)

    def test_fw_dynamic(self):
        self.boots("fw_dynamic.bin", 2)

    def test_fw_jump(self):
        self.boots("fw_jump.bin", 1)

    def test_poweroff_and_reboot(self):
        guest = self.boot("--firmware", OPENSBI / "fw_dynamic.bin")
        guest.send("reboot -f\n")
        guest.booted()
        guest.send("poweroff -f\n")
        self.assertEqual(guest.wait(60), 0)


class UBoot(GuestTest):
    def prompt(self, *options, **rest):
        console = self.start("run", "--memory", "512M", *options, **rest)
        console.expect("U-Boot [0-9]{4}", 120)
        console.expect("Hit any key to stop autoboot", 120)
        console.send("\r\n")
        console.expect("=> ", 60)
        return console

    def converses(self, console):
        console.send("version\n")
        console.expect("U-Boot [0-9]{4}", 30)
        console.expect("=> ", 30)
        # Memory, its own arithmetic, the device tree it was given, the RTC and PCI.
        console.send("mw.l 0x84000000 0x12345678 4; md.l 0x84000000 1\n")
        console.expect("84000000: 12345678", 30)
        console.send("pci enum; pci\n")
        console.expect("=> ", 30)
        console.send("fdt addr ${fdtcontroladdr}; fdt print / model\n")
        console.expect('model = "', 30)
        console.send("reset\n")
        console.expect("U-Boot [0-9]{4}", 120)
        console.expect("Hit any key to stop autoboot", 120)
        console.send("\r\n")
        console.expect("=> ", 60)
        console.send("poweroff\n")
        self.assertEqual(console.wait(60), 0)

    def test_in_machine_mode(self):
        self.converses(self.prompt("--firmware", U_BOOT / "qemu-riscv64" / "u-boot.bin"))

    def test_on_opensbi(self):
        self.converses(self.prompt("--firmware", OPENSBI / "fw_dynamic.bin", "--kernel",
                                   U_BOOT / "qemu-riscv64_smode" / "u-boot.bin"))

    def test_on_the_built_in_sbi(self):
        self.converses(self.prompt("--kernel", U_BOOT / "qemu-riscv64_smode" / "u-boot.bin"))

    def test_reads_a_disk(self):
        disk = self.folder / "disk.img"
        disk.write_bytes(b"read by the boot loader".ljust(1 << 20, b"\0"))
        console = self.prompt("--firmware", U_BOOT / "qemu-riscv64" / "u-boot.bin",
                              "--disk", disk)
        console.send("virtio scan; virtio read 0x84000000 0 1; md.b 0x84000000 17\n")
        console.expect("72 65 61 64 20 62 79 20 74 68 65 20 62 6f 6f 74  read by the boot", 30)


# Prints over the serial port's transmitter from M-mode, then ends through the finisher.
HELLO = """
    .globl _start
_start:
    csrr t0, mhartid
    bnez t0, park
    la a0, text
    li a1, 0x10000000
1:  lbu a2, (a0)
    beqz a2, 2f
    sb a2, (a1)
    addi a0, a0, 1
    j 1b
2:  li a0, 0x100000
    li a1, (11 << 16) | 0x3333
    sw a1, (a0)
park:
    wfi
    j park
    .section .rodata
text:
    .asciz "bare metal speaks\\n"
"""

# What RISC-V's own test programs do: a system call and an exit through tohost.
HTIF = """
    .globl _start
_start:
    csrr t0, mhartid
    bnez t0, park
    la s0, text
1:  lbu a0, (s0)
    beqz a0, 3f
    li a1, 0x0101000000000000
    or a0, a0, a1
    la a1, tohost
    sd a0, (a1)
2:  ld a0, (a1)
    bnez a0, 2b
    addi s0, s0, 1
    j 1b
3:  li a0, STATUS << 1 | 1
    la a1, tohost
    sw a0, (a1)
    sw zero, 4(a1)
park:
    j park
    .section .rodata
text:
    .asciz "through tohost\\n"
    .section .tohost, "aw"
    .balign 64
    .globl tohost, fromhost
tohost:   .dword 0
    .balign 64
fromhost: .dword 0
"""

SEMIHOSTING = """
    .option norvc
    .globl _start
_start:
    csrr t0, mhartid
    bnez t0, park
    li a0, 4            # SYS_WRITE0
    la a1, text
    jal semihost
    li a0, 0x20         # SYS_EXIT_EXTENDED
    la a1, block
    jal semihost
park:
    j park
    .balign 16
semihost:
    slli zero, zero, 0x1f
    ebreak
    srai zero, zero, 7
    ret
    .section .rodata
text:
    .asciz "through semihosting\\n"
    .balign 8
block:
    .dword 0x20026, 21  # ADP_Stopped_ApplicationExit, status
"""


@unittest.skipUnless(any((pathlib.Path(folder) / "clang-19").exists()
                         for folder in os.get_exec_path()), "clang-19 is not installed")
class BareMetal(GuestTest):
    def assemble(self, source, **options):
        return program.assemble(self.folder, source, **options)

    def test_serial_and_finisher(self):
        elf = self.assemble(HELLO)
        for harts in ("1", "3"):
            done = run_hartvisor("run", "--cpus", harts, "--firmware", elf)
            self.assertEqual((done.returncode, done.stdout), (11, "bare metal speaks\n"),
                             done.stderr)

    def test_raw_binary(self):
        elf = self.assemble(HELLO)
        raw = self.folder / "program.bin"
        subprocess.run(["llvm-objcopy-19", "-O", "binary", elf, raw], check=True)
        done = run_hartvisor("run", "--firmware", raw)
        self.assertEqual((done.returncode, done.stdout), (11, "bare metal speaks\n"), done.stderr)

    def test_tohost(self):
        for status in (0, 5):
            elf = self.assemble(HTIF, STATUS=status)
            done = run_hartvisor("run", "--firmware", elf)
            self.assertEqual((done.returncode, done.stdout), (status, "through tohost\n"),
                             done.stderr)

    def test_semihosting(self):
        elf = self.assemble(SEMIHOSTING)
        done = run_hartvisor("run", "--semihosting", "--firmware", elf)
        self.assertEqual(done.returncode, 21, done.stderr)
        self.assertIn("through semihosting\n", done.stdout + done.stderr)

    def test_machine_mode_program_as_kernel(self):
        # Entered in S-mode it traps on mhartid; the message must lead to --firmware.
        elf = self.assemble(HELLO, address=0x80200000)
        console = self.start("run", "--kernel", elf)
        until = time.monotonic() + 20
        while "--firmware" not in console.errors.text() and time.monotonic() < until:
            time.sleep(0.1)
        self.assertIn("--firmware", console.errors.text())

    def test_wrong_architecture(self):
        elf = self.assemble("    .globl _start\n_start:\n    j _start\n", march="rv32imac")
        for option in ("--kernel", "--firmware"):
            done = run_hartvisor("run", option, elf)
            self.assertEqual(done.returncode, 125, done.stderr)
            self.assertIn("program.elf", done.stderr)
            self.assertIn("riscv64", done.stderr)

    def test_truncated(self):
        elf = self.assemble(HELLO)
        data = elf.read_bytes()
        for size in (16, 63, 64, 100, len(data) // 2):
            cut = self.folder / f"cut{size}.elf"
            cut.write_bytes(data[:size])
            done = run_hartvisor("run", "--firmware", cut, timeout=20)
            self.assertEqual(done.returncode, 125, f"{size}: {done.stderr}")
            self.assertIn(cut.name, done.stderr)


class Flash(GuestTest):
    def test_writes_to_flash_persist(self):
        flash = self.folder / "flash.img"
        flash.write_bytes(b"\xff" * (32 << 20))
        script = ("devmem 0x{0:x} 8 0x40; devmem 0x{0:x} 8 0x{1:x}; devmem 0x{0:x} 8 0xff; "
                  "devmem 0x{0:x} 8")
        # Bank 0 would be where a program in flash starts; Linux boots beside it.
        guest = self.boot("--flash", flash)
        value = guest.check(script.format(0x20000100, 0x5A))
        self.assertEqual(int(value, 16), 0x5A)
        self.assertEqual(guest.leave(), 0)
        self.assertEqual(flash.read_bytes()[0x100], 0x5A)
        guest = self.boot("--flash", f"{flash},ro")
        self.assertEqual(int(guest.check("devmem 0x20000100 8"), 16), 0x5A)
        self.assertEqual(guest.leave(), 0)
