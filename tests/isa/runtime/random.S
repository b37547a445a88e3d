# Runs the sequences that generate.py lays out: sets up each one's registers, memory and mode, notes
# every trap and steps over the instruction, and prints what is left at its end: as hashes, or in
# full when the header says so. Labels of the printed lines begin with the sequence's number, so
# that the lines of two machines compare one by one.

#include "layout.h"

    .equ HEADER_COUNT, 0
    .equ HEADER_FULL, 8

    # x1 to x31 come first.
    .equ RECORD_STATUS, 248
    .equ RECORD_F, 256
    .equ RECORD_FCSR, 512
    .equ RECORD_SATP, 520
    .equ RECORD_ENTRY, 528
    .equ RECORD_END, 536
    .equ RECORD_DELTA, 544
    .equ RECORD_MENVCFG, 552
    .equ RECORD_SENVCFG, 560
    .equ RECORD_NUMBER, 568
    .equ RECORD_STOP, 576       # where to stop before the end
    .equ RECORD_SIZE, 584

    .equ SCRATCH, 0x82000000
    .equ SCRATCH_SIZE, 8192
    .equ POOL_SIZE, 4096
    .equ TRAP_LIMIT, 400
    .equ PASSES, 2              # engines translate on the first, and may reuse it on the second

    .section .records, "aw"
header:
    .incbin RECORDS_FILE
    .equ pool, header + 4096
    .equ records, header + 8192
    .section .code, "awx"
    .incbin CODE_FILE

    .bss
    .balign 16
save:
    .space 256              # x[n] of the sequence at 8 * n
    .equ SAVE_HASH, 256     # over the traps
    .equ SAVE_TRAPS, 264
    .equ SAVE_LEFT, 272     # sequences to run
    .equ SAVE_RECORD, 280
    .equ SAVE_PASS, 288         # those that follow this one
    .space 48
save_f:
    .space 256

    .text
    .globl main
main:
    csrw mcounteren, zero
    csrw medeleg, zero
    csrw mideleg, zero
    csrw mie, zero
    la t0, trap
    csrw mtvec, t0
    la s0, save
    csrw mscratch, s0
    la t0, header
    ld t0, HEADER_COUNT(t0)
    sd t0, SAVE_LEFT(s0)
    la t0, records
    sd t0, SAVE_RECORD(s0)

next_sequence:
    la s0, save
    ld t0, SAVE_LEFT(s0)
    beqz t0, all_done
    addi t0, t0, -1
    sd t0, SAVE_LEFT(s0)
    li t0, PASSES
    sd t0, SAVE_PASS(s0)

next_pass:
    la s0, save
    ld t0, SAVE_PASS(s0)
    addi t0, t0, -1
    sd t0, SAVE_PASS(s0)
    li t0, 0xcbf29ce484222325
    sd t0, SAVE_HASH(s0)
    sd zero, SAVE_TRAPS(s0)
    ld s0, SAVE_RECORD(s0)

    # Both scratch pages and the read-only page behind them start as copies of the pool.
    li a0, SCRATCH
    li a3, SCRATCH + SCRATCH_SIZE + POOL_SIZE
1:  la a1, pool
    li a2, POOL_SIZE
    add a2, a2, a1
2:  ld t0, 0(a1)
    sd t0, 0(a0)
    addi a0, a0, 8
    addi a1, a1, 8
    bltu a1, a2, 2b
    bltu a0, a3, 1b

    li t0, 3 << 13
    csrs mstatus, t0
    ld t0, RECORD_FCSR(s0)
    fscsr t0
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, \
            24, 25, 26, 27, 28, 29, 30, 31
    fld f\n, RECORD_F + 8 * \n(s0)
    .endr
    ld t0, RECORD_SATP(s0)
    csrw satp, t0
    sfence.vma
    ld t0, RECORD_MENVCFG(s0)
    csrw menvcfg, t0
    ld t0, RECORD_SENVCFG(s0)
    csrw senvcfg, t0
    csrw sscratch, zero
    csrw stval, zero
    ld t0, RECORD_ENTRY(s0)
    csrw mepc, t0
    # Everything from SIE to TSR, FS with it, as the record says.
    li t0, 0x7fffff
    csrc mstatus, t0
    ld t0, RECORD_STATUS(s0)
    csrs mstatus, t0
    .irp n, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, \
            25, 26, 27, 28, 29, 30, 31, 8
    ld x\n, 8 * (\n - 1)(s0)
    .endr
    mret

all_done:
    li a0, 0
    j finish

    .balign 4
trap:
    csrrw x31, mscratch, x31
    .irp n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, \
            25, 26, 27, 28, 29, 30
    sd x\n, 8 * \n(x31)
    .endr
    mv s0, x31
    csrrw t0, mscratch, s0
    sd t0, 8 * 31(s0)
    ld s1, SAVE_RECORD(s0)
    csrr s2, mepc
    csrr s3, mcause
    la t0, header
    ld s4, HEADER_FULL(t0)

    ld t0, RECORD_END(s1)
    beq t0, s2, sequence_end
    ld t0, RECORD_STOP(s1)
    beq t0, s2, sequence_end
    # A fetch that faults ends the sequence: there is nothing to step over.
    li s5, 1
    beq s3, s5, 1f
    li t0, 12
    beq s3, t0, 1f
    li s5, 0
1:
    ld a0, SAVE_HASH(s0)
    mv a1, s3
    call hash
    mv a1, s2
    call hash
    csrr a1, mtval
    call hash
    sd a0, SAVE_HASH(s0)
    ld t0, SAVE_PASS(s0)
    bnez t0, 1f
    beqz s4, 1f
    call print_trap
1:
    ld t0, SAVE_TRAPS(s0)
    addi t0, t0, 1
    sd t0, SAVE_TRAPS(s0)
    li t1, TRAP_LIMIT
    bgeu t0, t1, sequence_end
    bnez s5, sequence_end

    # mepc may be an alias of the code: RECORD_DELTA is the distance.
    ld t0, RECORD_DELTA(s1)
    sub t0, s2, t0
    lbu t1, 0(t0)
    andi t1, t1, 3
    addi t1, t1, -3
    addi s2, s2, 2
    bnez t1, 1f
    addi s2, s2, 2
1:  csrw mepc, s2
    mv x31, s0
    .irp n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, \
            25, 26, 27, 28, 29, 30
    ld x\n, 8 * \n(x31)
    .endr
    ld x31, 8 * 31(x31)
    mret

sequence_end:
    ld t0, SAVE_PASS(s0)
    bnez t0, next_pass
    li t0, 3 << 13
    csrs mstatus, t0
    frcsr s5
    la s6, save_f
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, \
            24, 25, 26, 27, 28, 29, 30, 31
    fsd f\n, 8 * \n(s6)
    .endr
    bnez s4, full

    call print_number
    la a0, text_hashes
    call print
    addi a2, s0, 8
    addi a3, s0, 256
    call print_hash
    mv a2, s6
    addi a3, s6, 256
    call print_hash
    mv a0, s5
    call print_value
    ld a0, SAVE_TRAPS(s0)
    call print_value
    ld a0, SAVE_HASH(s0)
    call print_value
    li a2, SCRATCH
    li a3, SCRATCH + SCRATCH_SIZE
    call print_hash
    ld t0, RECORD_ENTRY(s1)
    sub a0, s2, t0
    call print_value
    call print_newline

sequence_printed:
    addi t0, s1, RECORD_SIZE
    sd t0, SAVE_RECORD(s0)
    j next_sequence

full:
    li s7, 1
1:  la a0, text_x
    slli t0, s7, 3
    add t0, t0, s0
    ld a1, 0(t0)
    mv a2, s7
    call print_item
    addi s7, s7, 1
    li t0, 32
    bltu s7, t0, 1b
    li s7, 0
1:  la a0, text_f
    slli t0, s7, 3
    add t0, t0, s6
    ld a1, 0(t0)
    mv a2, s7
    call print_item
    addi s7, s7, 1
    li t0, 32
    bltu s7, t0, 1b
    la a0, text_fcsr
    mv a1, s5
    li a2, 0
    call print_item
    la a0, text_traps
    ld a1, SAVE_TRAPS(s0)
    li a2, 0
    call print_item
    # Only the words that the sequence has changed.
    li s7, 0
1:  li t0, SCRATCH
    add t0, t0, s7
    ld a1, 0(t0)
    slli t1, s7, 52
    srli t1, t1, 52
    la t2, pool
    add t2, t2, t1
    ld t2, 0(t2)
    beq a1, t2, 2f
    la a0, text_memory
    mv a2, s7
    call print_item
2:  addi s7, s7, 8
    li t0, SCRATCH_SIZE
    bltu s7, t0, 1b
    j sequence_printed

# a0 = hash(a0, a1): FNV-1a, a word at a time. Clobbers t0.
hash:
    xor a0, a0, a1
    li t0, 0x100000001b3
    mul a0, a0, t0
    ret

# Prints the hash of the words from a2 up to a3.
print_hash:
    mv s11, ra
    li a0, 0xcbf29ce484222325
1:  ld a1, 0(a2)
    call hash
    addi a2, a2, 8
    bltu a2, a3, 1b
    mv ra, s11
print_value:
    mv s11, ra
    mv s10, a0
    li a0, ' '
    call print_char
    mv a0, s10
    call print_hex
    mv ra, s11
    ret

print_number:
    mv s11, ra
    ld a0, RECORD_NUMBER(s1)
    call print_hex
    mv ra, s11
    ret

print_newline:
    li a0, '\n'
    j print_char

# "number text index: value"
print_item:
    mv s9, ra
    mv s8, a0
    mv a5, a1
    mv a6, a2
    call print_number
    mv a0, s8
    call print
    mv a0, a6
    call print_hex
    li a0, ':'
    call print_char
    mv a0, a5
    call print_value
    call print_newline
    mv ra, s9
    ret

print_trap:
    mv s9, ra
    call print_number
    la a0, text_trap
    call print
    ld a0, SAVE_TRAPS(s0)
    call print_hex
    li a0, ':'
    call print_char
    mv a0, s3
    call print_value
    mv a0, s2
    call print_value
    csrr a0, mtval
    call print_value
    call print_newline
    mv ra, s9
    ret

    .section .rodata
text_hashes:
    .asciz ": x, f, fcsr, traps, their hash, memory, end"
text_x:
    .asciz " x "
text_f:
    .asciz " f "
text_fcsr:
    .asciz " fcsr "
text_traps:
    .asciz " traps "
text_memory:
    .asciz " memory "
text_trap:
    .asciz " trap "
