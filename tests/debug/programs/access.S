# Every kind of memory access once for each of two rounds, for watchpoints. A label says what the
# access behind it does: access_KIND_OFFSET_SIZE_NAME, with KIND r, w or rw, at OFFSET from `block`;
# what begins with `cross` is about `edge`, the beginning of a page.
#
# Then code that changes itself, for breakpoints.

    .macro access kind, offset, size, name, instruction:vararg
    .globl access_\kind\()_\offset\()_\size\()_\name
access_\kind\()_\offset\()_\size\()_\name:
    \instruction
    .endm

    .macro cross kind, offset, size, name, instruction:vararg
    .globl cross_\kind\()_\offset\()_\size\()_\name
cross_\kind\()_\offset\()_\size\()_\name:
    \instruction
    .endm

    .text
    .globl main
main:
    la s0, block + 64
    la s1, edge
    li s2, 2
round:
    # Before, in and behind the doubleword at 72, which is what a test watches.
    access w, 64, 8, sd_before, sd zero, 0(s0)
    access w, 72, 1, sb_first, sb zero, 8(s0)
    access w, 79, 1, sb_last, sb zero, 15(s0)
    access w, 74, 2, sh, sh zero, 10(s0)
    access w, 76, 4, sw, sw zero, 12(s0)
    access w, 72, 8, sd, sd zero, 8(s0)
    access w, 80, 8, sd_after, sd zero, 16(s0)
    access r, 72, 1, lbu, lbu t0, 8(s0)
    access r, 78, 2, lh, lh t0, 14(s0)
    access r, 76, 4, lw, lw t0, 12(s0)
    access r, 72, 8, ld, ld t0, 8(s0)
    access r, 80, 8, ld_after, ld t0, 16(s0)
    access w, 69, 4, sw_misaligned, sw zero, 5(s0)
    access w, 68, 4, sw_touching_not, sw zero, 4(s0)
    access r, 79, 8, ld_misaligned, ld t0, 15(s0)
    addi t1, s0, 8
    fld fa0, 16(s0)
    access w, 72, 8, fsd, fsd fa0, 8(s0)
    access w, 76, 4, fsw, fsw fa0, 12(s0)
    access r, 72, 8, fld, fld fa1, 8(s0)
    access r, 76, 4, flw, flw fa1, 12(s0)
    access rw, 72, 8, amoadd, amoadd.d t0, zero, (t1)
    access rw, 72, 4, amoswap, amoswap.w t0, zero, (t1)
    access r, 72, 8, lr, lr.d t0, (t1)
    access w, 72, 8, sc, sc.d t0, zero, (t1)
    # The compressed ones.
    mv a0, s0
    li a1, 0
    access w, 72, 8, c_sd, c.sd a1, 8(a0)
    access w, 76, 4, c_sw, c.sw a1, 12(a0)
    access r, 72, 8, c_ld, c.ld a2, 8(a0)

    cross w, m4, 8, sd, sd zero, -4(s1)
    cross w, m8, 8, sd_before, sd zero, -8(s1)
    cross r, m1, 2, lh, lh t0, -1(s1)
    cross r, 7, 1, lb, lb t0, 7(s1)
    cross r, 8, 1, lb_after, lb t0, 8(s1)

    addi s2, s2, -1
    bnez s2, round

    # li a0, 2; ret takes the place of li a0, 1; ret.
    .globl patch
patch:
    call patched
    la t0, patched
    la t1, replacement
    lw t1, 0(t1)
    sw t1, 0(t0)
    fence.i
    call patched
    li t0, 2
    bne a0, t0, wrong
    li a0, 0
    j leave
wrong:
    li a0, 1
leave:
    li t0, 0x100000
    li t1, 0x5555
    beqz a0, 1f
    li t1, 0x13333
1:  sw t1, 0(t0)
    j 1b

    .balign 4
    .globl patched
patched:
    c.li a0, 1
    c.jr ra
replacement:
    c.li a0, 2
    c.jr ra

    .globl trap
trap:
    li a0, 73
    j wrong

    .bss
    .balign 4096
    .globl block
block:
    .space 4096
    .globl edge
edge:
    .space 4096
