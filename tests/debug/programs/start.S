# Entry and traps of the bare-metal programs: every hart has a stack and runs main(hart).

    .equ STACK_SIZE, 8192
    .equ HARTS, 4

    .section .text.start, "ax"
    .globl _start
    .type _start, @function
_start:
    .cfi_startproc
    .cfi_undefined ra
    csrr a0, mhartid
    la sp, stacks
    addi t0, a0, 1
    li t1, STACK_SIZE
    mul t0, t0, t1
    add sp, sp, t0
    la t0, trap_entry
    csrw mtvec, t0
    li t0, 1 << 13
    csrs mstatus, t0
    # The lower modes may use all memory.
    li t0, -1
    csrw pmpaddr0, t0
    li t0, 0x1f
    csrw pmpcfg0, t0
    call main
    li t0, 0x100000
    li t1, 0x5555
    sw t1, 0(t0)
1:  j 1b
    .cfi_endproc
    .size _start, . - _start

# trap(cause, pc) gives the pc to go on at. What it may clobber is saved, and nothing else.
    .text
    .globl trap_entry
    .type trap_entry, @function
    .balign 4
trap_entry:
    addi sp, sp, -128
    sd ra, 0(sp)
    .irp n, 5, 6, 7
    sd x\n, 8 * (\n - 4)(sp)
    .endr
    .irp n, 10, 11, 12, 13, 14, 15, 16, 17
    sd x\n, 8 * (\n - 6)(sp)
    .endr
    sd t3, 96(sp)
    sd t4, 104(sp)
    sd t5, 112(sp)
    sd t6, 120(sp)
    csrr a0, mcause
    csrr a1, mepc
    call trap
    csrw mepc, a0
    ld t3, 96(sp)
    ld t4, 104(sp)
    ld t5, 112(sp)
    ld t6, 120(sp)
    ld ra, 0(sp)
    .irp n, 5, 6, 7
    ld x\n, 8 * (\n - 4)(sp)
    .endr
    .irp n, 10, 11, 12, 13, 14, 15, 16, 17
    ld x\n, 8 * (\n - 6)(sp)
    .endr
    addi sp, sp, 128
    mret
    .size trap_entry, . - trap_entry

    .bss
    .balign 16
stacks:
    .space HARTS * STACK_SIZE
