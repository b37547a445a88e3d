# Runs each instruction of a generated list over a grid of operands, in each rounding mode if it
# rounds, and prints one line each: a hash over results and flags. With ONLY (an index into the
# list) and MODE, a line for each first operand; with FIRST (an index into the grid), every result.
#
# The routine of an instruction takes a0 and a1, or fa0, fa1 and fa2 loaded from the same words, and
# leaves its result in a0 or fa0.

#include "layout.h"

    # struct entry: name, routine, first operand, one behind the last, operands (1 to 3), rounds
    .equ ENTRY_NAME, 0
    .equ ENTRY_CODE, 8
    .equ ENTRY_FIRST, 16
    .equ ENTRY_END, 24
    .equ ENTRY_OPERANDS, 32
    .equ ENTRY_ROUNDS, 40
    .equ ENTRY_SIZE, 48

    .text
# s0 entry, s1 rounding mode, s2 to s4 operands, s5 hash, s6 end, s7 last index of operands 2 and 3
    .globl main
main:
    la s0, entries
#ifdef ONLY
    li t0, ONLY * ENTRY_SIZE
    add s0, s0, t0
#endif
next_entry:
    la t0, entries_end
    bgeu s0, t0, done
#ifdef ONLY
    li s1, MODE
#else
    li s1, 0
#endif
next_mode:
    li s5, 0xcbf29ce484222325
    ld s6, ENTRY_END(s0)
    ld s2, ENTRY_FIRST(s0)
#ifdef FIRST
    addi s2, s2, FIRST * 8
#endif
first_operand:
    ld s3, ENTRY_FIRST(s0)
second_operand:
    ld s4, ENTRY_FIRST(s0)
third_operand:
    ld t1, ENTRY_CODE(s0)
    fld fa0, 0(s2)
    fld fa1, 0(s3)
    fld fa2, 0(s4)
    slli t0, s1, 5
    fscsr t0
    ld a0, 0(s2)
    ld a1, 0(s3)
    jalr t1
    fmv.x.d a1, fa0
    frflags a2
#ifdef FIRST
    call print_result
#else
    li t0, 0x100000001b3
    xor s5, s5, a0
    mul s5, s5, t0
    xor s5, s5, a1
    mul s5, s5, t0
    xor s5, s5, a2
    mul s5, s5, t0
#endif
    ld t0, ENTRY_OPERANDS(s0)
    addi t0, t0, -2
    bltz t0, 1f
    beqz t0, 2f
    addi s4, s4, 8
    bltu s4, s6, third_operand
2:  addi s3, s3, 8
    bltu s3, s6, second_operand
1:
#ifdef FIRST
    j done
#endif
#ifdef ONLY
    call print_hashed
    li s5, 0xcbf29ce484222325
#endif
    addi s2, s2, 8
    bltu s2, s6, first_operand
#ifdef ONLY
    j done
#endif
    call print_hashed
    ld t0, ENTRY_ROUNDS(s0)
    beqz t0, 1f
    addi s1, s1, 1
    li t0, 5
    bltu s1, t0, next_mode
1:
    addi s0, s0, ENTRY_SIZE
    j next_entry
done:
    li a0, 0
    j finish

# "name rounding", and the first operand's index.
print_name:
    mv s9, ra
    ld a0, ENTRY_NAME(s0)
    call print
    li a0, ' '
    call print_char
    addi a0, s1, '0'
    call print_char
#ifdef ONLY
    ld t0, ENTRY_FIRST(s0)
    sub a0, s2, t0
    srli a0, a0, 3
    call print_spaced
#endif
    jr s9

# "name rounding: hash"
print_hashed:
    mv s10, ra
    call print_name
    call print_colon
    mv a0, s5
    call print_hex
    li a0, '\n'
    call print_char
    jr s10

print_colon:
    mv s11, ra
    li a0, ':'
    call print_char
    li a0, ' '
    call print_char
    jr s11

#ifdef ONLY
# "name rounding index operands: a0 fa0 fflags"
print_result:
    mv s10, ra
    addi sp, sp, -32
    sd a0, 0(sp)
    sd a1, 8(sp)
    sd a2, 16(sp)
    call print_name
    ld a0, 0(s2)
    call print_spaced
    ld a0, 0(s3)
    call print_spaced
    ld a0, 0(s4)
    call print_spaced
    call print_colon
    ld a0, 0(sp)
    call print_spaced
    ld a0, 8(sp)
    call print_spaced
    ld a0, 16(sp)
    call print_spaced
    li a0, '\n'
    call print_char
    addi sp, sp, 32
    jr s10

print_spaced:
    mv s11, ra
    mv a5, a0
    li a0, ' '
    call print_char
    mv a0, a5
    call print_hex
    jr s11
#endif

#include LIST_FILE
