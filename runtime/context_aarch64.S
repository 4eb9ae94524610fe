/*
 * Where a new context begins (context.h). The switch has put the entry function into x29 and its argument into x2.
 *
 * `.cfi_undefined x30` says that nobody called: debuggers and unwinders stop here. They look the return address up
 * minus one, so the table must cover the instruction before the label.
 */
    .text
    .p2align 4
    .cfi_startproc
    .cfi_undefined x30
    nop
    .globl  weft__context_entry
    .hidden weft__context_entry
    .type   weft__context_entry, %function
weft__context_entry:
    mov     x9, x29
    mov     x29, xzr
    mov     x0, x2
    blr     x9
    brk     #1
    .cfi_endproc
    .size   weft__context_entry, . - weft__context_entry

    .section .note.GNU-stack, "", %progbits
