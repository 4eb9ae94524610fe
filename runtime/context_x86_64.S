/*
 * Where a new context begins (context.h). The switch has put the entry function into rbp and its argument into rdx.
 *
 * `.cfi_undefined %rip` says that nobody called: debuggers and unwinders stop here. They look the return address up
 * minus one, so the table must cover the byte before the label.
 */
    .text
    .p2align 4
    .cfi_startproc
    .cfi_undefined %rip
    nop
    .globl  weft__context_entry
    .hidden weft__context_entry
    .type   weft__context_entry, @function
weft__context_entry:
    movq    %rbp, %rax
    xorl    %ebp, %ebp
    movq    %rdx, %rdi
    callq   *%rax
    ud2
    .cfi_endproc
    .size   weft__context_entry, . - weft__context_entry

    .section .note.GNU-stack, "", @progbits
