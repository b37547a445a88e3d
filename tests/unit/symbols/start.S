# Code whose symbols and frames compilers do not make.
        .section .text.start, "ax"
        .globl _start
_start: .cfi_startproc
        .cfi_undefined ra
        la      sp, stack_top
        li      s0, 0
        call    main
1:      j       1b
        .cfi_endproc
        .size   _start, . - _start

        .text
        # No type and no size, as in much assembly.
        .globl  bare_first
bare_first:
        nop
        nop
        .globl  bare_second
bare_second:
        nop
bare_local:
        ret

        # A label inside of a function, and another name for one.
        .globl  sized, __sized_alias
        .type   sized, @function
        .type   __sized_alias, @function
sized:
__sized_alias:
        nop
        .globl  inside
inside:
        nop
        ret
        .size   sized, . - sized
        .size   __sized_alias, . - sized

        # What called it was interrupted. CFA = *(sp + 8), ra by an expression: *(sp + 16).
        .globl  signal_frame
        .type   signal_frame, @function
signal_frame:
        .cfi_startproc
        .cfi_signal_frame
        .cfi_escape 0x0f, 0x03, 0x72, 0x08, 0x06        # def_cfa_expression: breg2 8; deref
        .cfi_escape 0x10, 0x01, 0x03, 0x72, 0x10, 0x96  # expression ra: breg2 16; nop
        .cfi_escape 0x16, 0x08, 0x02, 0x33, 0x1f        # val_expression s0: lit3; neg
        .cfi_offset s1, -24
        nop
        ret
        .cfi_endproc
        .size   signal_frame, . - signal_frame

        .data
        .globl  variable
        .type   variable, @object
        .size   variable, 16
variable:
        .dword  1, 2

        .bss
        .balign 16
        .skip   4096
stack_top:
