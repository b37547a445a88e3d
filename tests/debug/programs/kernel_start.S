# Entry of the kernel at its physical address, the way to its virtual one, and its trap entry.

    .equ FRAME_X, 0
    .equ FRAME_PC, 256
    .equ FRAME_STATUS, 264

    .section .text.start, "ax"
    .globl _start
    .type _start, @function
_start:
    .cfi_startproc
    .cfi_undefined ra
    # Code that knows its own address only: two gigapages, where it runs and where it is linked.
    la t0, boot_table
    li t1, (0x80000000 >> 2) | 0xef     # D A G X W R V: gigapage of RAM
    sd t1, 2 * 8(t0)
    li t2, 510 * 8
    add t2, t2, t0
    sd t1, 0(t2)
    srli t0, t0, 12
    li t1, 8 << 60
    or t0, t0, t1
    sfence.vma
    csrw satp, t0
    sfence.vma
    li t1, 0xffffffff00000000
    la t0, high
    or t0, t0, t1
    jr t0
high:
    la sp, kernel_stack
    la t0, trap_entry
    csrw stvec, t0
    call kernel_main
1:  j 1b
    .cfi_endproc
    .size _start, . - _start

    .text
    .globl trap_entry
    .type trap_entry, @function
    .balign 4
trap_entry:
    .cfi_startproc
    .cfi_undefined ra
    csrrw sp, sscratch, sp
    .irp n, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    sd x\n, 8 * \n(sp)
    .endr
    csrr t0, sscratch
    sd t0, 16(sp)
    csrr t0, sepc
    sd t0, FRAME_PC(sp)
    csrr t0, sstatus
    sd t0, FRAME_STATUS(sp)
    mv a0, sp
    la sp, kernel_stack
    call trap
# Goes on with the process whose frame is in a0.
    .globl resume
resume:
    csrw sscratch, a0
    mv sp, a0
    ld t0, FRAME_PC(sp)
    csrw sepc, t0
    ld t0, FRAME_STATUS(sp)
    csrw sstatus, t0
    .irp n, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    ld x\n, 8 * \n(sp)
    .endr
    ld x2, 16(sp)
    sret
    .cfi_endproc
    .size trap_entry, . - trap_entry

    .bss
    .balign 4096
    .globl boot_table
boot_table:
    .space 4096
    .space 16384
kernel_stack:
