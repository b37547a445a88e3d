# Entry, exit, console and traps of the test programs. Runs in M-mode on hart 0.

#include "layout.h"

    .section .text.start, "ax"
    .globl _start
_start:
    csrr t0, mhartid
    bnez t0, park
    la sp, stack_top
    la t0, unexpected
    csrw mtvec, t0
    la t0, bss_start
    la t1, bss_end
1:  sd zero, 0(t0)
    addi t0, t0, 8
    bltu t0, t1, 1b
    # FP on, and all memory open to the lower modes.
    li t0, 1 << 13
    csrs mstatus, t0
    li t0, -1
    csrw pmpaddr0, t0
    li t0, 0x1f
    csrw pmpcfg0, t0
    # QEMU starts with PBMTE set.
    csrw menvcfg, zero
#ifdef HARTS
    fence rw, rw
    la t0, started
    sw t0, 0(t0)
#endif
    call main
    li a0, 0
    j finish

park:
#ifdef HARTS
    # hart_main(hart), with 4 KiB of the stack for each, once hart 0 has got so far.
    la t1, started
1:  pause
    lw t2, 0(t1)
    beqz t2, 1b
    fence rw, rw
    la t1, unexpected
    csrw mtvec, t1
    la sp, stack_top
    slli t1, t0, 12
    sub sp, sp, t1
    mv a0, t0
    call hart_main
#endif
    wfi
    j park

#ifdef HARTS
    .data
    .balign 4
started:
    .word 0
    .text
#endif

# void finish(unsigned code): ends the machine with this status.
    .globl finish
finish:
    li t0, FINISHER
    li t1, 0x5555
    beqz a0, 1f
    slli t1, a0, 16
    li t2, 0x3333
    or t1, t1, t2
1:  sw t1, 0(t0)
    j 1b

    .text

# void print_char(char). Clobbers t0 to t2 only.
    .globl print_char
print_char:
    li t0, UART
1:  lbu t1, 5(t0)
    andi t1, t1, 0x20
    beqz t1, 1b
    sb a0, 0(t0)
    ret

# void print(const char *). Clobbers t0 to t2, a0, a1, a7.
    .globl print
print:
    mv a7, ra
    mv a1, a0
1:  lbu a0, 0(a1)
    addi a1, a1, 1
    beqz a0, 2f
    call print_char
    j 1b
2:  jr a7

# void print_hex(uint64_t): 16 digits. Clobbers t0 to t2, a0 to a2, a7.
    .globl print_hex
print_hex:
    mv a7, ra
    mv a1, a0
    li a2, 60
1:  srl a0, a1, a2
    andi a0, a0, 15
    sltiu t0, a0, 10
    bnez t0, 2f
    addi a0, a0, 'a' - '0' - 10
2:  addi a0, a0, '0'
    call print_char
    addi a2, a2, -4
    bgez a2, 1b
    jr a7

# A trap that no test asked for: says so and ends with status 9.
    .balign 4
unexpected:
    la sp, stack_top
    la a0, text_unexpected
    call print
    csrr a0, mcause
    call print_hex
    la a0, text_at
    call print
    csrr a0, mepc
    call print_hex
    la a0, text_value
    call print
    csrr a0, mtval
    call print_hex
    li a0, '\n'
    call print_char
    li a0, 9
    j finish

# void enter(struct outcome *a0, unsigned mode a1, code a2, argument a3, argument a4)
#
# Runs code in that mode with the two arguments in a0 and a1, until something traps to M-mode, and
# fills the outcome. Code ends with ecall.
    .globl enter
enter:
    addi sp, sp, -128
    sd ra, 0(sp)
    sd s0, 8(sp)
    sd s1, 16(sp)
    sd s2, 24(sp)
    sd s3, 32(sp)
    sd s4, 40(sp)
    sd s5, 48(sp)
    sd s6, 56(sp)
    sd s7, 64(sp)
    sd s8, 72(sp)
    sd s9, 80(sp)
    sd s10, 88(sp)
    sd s11, 96(sp)
    sd a0, 104(sp)
    csrw mscratch, sp
    la t0, supervisor_outcome
    csrw sscratch, t0
    la t0, caught
    csrw mtvec, t0
    csrw mepc, a2
    li t0, 3 << 11
    csrc mstatus, t0
    slli t0, a1, 11
    csrs mstatus, t0
    mv a0, a3
    mv a1, a4
    mret

    .balign 4
    .globl caught
caught:
    csrrw sp, mscratch, sp
    sd t0, 112(sp)
    sd t1, 120(sp)
    ld t0, 104(sp)
    csrr t1, mcause
    sd t1, OUTCOME_CAUSE(t0)
    csrr t1, mepc
    sd t1, OUTCOME_EPC(t0)
    csrr t1, mtval
    sd t1, OUTCOME_TVAL(t0)
    csrr t1, mstatus
    sd t1, OUTCOME_STATUS(t0)
    sd a0, OUTCOME_A0(t0)
    sd a1, OUTCOME_A1(t0)
    la t0, unexpected
    csrw mtvec, t0
    ld ra, 0(sp)
    ld s0, 8(sp)
    ld s1, 16(sp)
    ld s2, 24(sp)
    ld s3, 32(sp)
    ld s4, 40(sp)
    ld s5, 48(sp)
    ld s6, 56(sp)
    ld s7, 64(sp)
    ld s8, 72(sp)
    ld s9, 80(sp)
    ld s10, 88(sp)
    ld s11, 96(sp)
    addi sp, sp, 128
    ret

# The S-mode handler for delegated traps: notes them behind sscratch and reports to M-mode.
# Vectored: entry n, 4 * n bytes on, notes n too.
    .balign 256
    .globl supervisor_vector
supervisor_vector:
    .option push
    .option norvc
    .set vector, 0
    .rept 16
    j 16f + 8 * vector
    .set vector, vector + 1
    .endr
16:
    .set vector, 0
    .rept 16
    li t2, vector
    j supervisor_caught
    .set vector, vector + 1
    .endr
    .option pop
supervisor_caught:
    csrrw t0, sscratch, t0
    csrr t1, scause
    sd t1, SUPERVISOR_CAUSE(t0)
    csrr t1, sepc
    sd t1, SUPERVISOR_EPC(t0)
    csrr t1, stval
    sd t1, SUPERVISOR_TVAL(t0)
    csrr t1, sstatus
    sd t1, SUPERVISOR_STATUS(t0)
    sd t2, SUPERVISOR_VECTOR(t0)
    li t1, 1
    sd t1, SUPERVISOR_TAKEN(t0)
    ecall

    .section .rodata
text_unexpected:
    .asciz "unexpected trap: cause "
text_at:
    .asciz " at "
text_value:
    .asciz " value "
