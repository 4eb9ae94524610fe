/*
 * The stack switch, and nothing else.
 *
 * What is kept of a context are its stack pointer, frame pointer and resume address: three words, in the record of
 * whoever it belongs to. Nothing is written to the stack. The switch is inline assembly that tells the compiler
 * that every other register is lost, so the function around it saves what it needs, once, in its own frame; and the
 * unwinding tables of a suspended context are simply those of that function.
 *
 * It leaves by a jump, and it has no call: the processor's return predictor stays in step with the calls and
 * returns around it, as long as the contexts were left at the same depth (with an assembly function that is called and
 * left by a jump, the return after each switch is predicted wrong, some 5 ns; left by a return, that one is, 9 ns
 * instead of 2.5).
 *
 * Not for a function with a variable-length array or over-aligned variables: clang may keep its frame's address in a
 * register that is lost.
 *
 * The floating-point control words (MXCSR and x87's, FPCR) are not switched: they belong to the worker.
 */
#ifndef WEFT_RUNTIME_CONTEXT_H
#define WEFT_RUNTIME_CONTEXT_H

#include <stddef.h>
#include <stdint.h>

struct weft__context {
    void *frame;  /* the frame pointer register, which the compiler may not let go */
    void *resume; /* where to go on */
    void *stack;  /* the stack pointer */
};

/* Where a new context begins: calls the function in `frame` with the switch's argument. In context_*.S, with the
 * unwinding tables that make a debugger stop there. */
void weft__context_entry(void) __attribute__((visibility("hidden")));

/* `top`: the highest address of the stack, 16-byte aligned. `entry` must never return. */
static inline void weft__context_make(struct weft__context *context, void *top, void (*entry)(void *arg))
{
    context->frame = (void *)(uintptr_t)entry;
    context->resume = (void *)(uintptr_t)weft__context_entry;
    context->stack = top;
}

/* Registers that the compiler knows only when told of the processor. */
#if defined(__AVX512F__)
#define WEFT__LOST_AVX512                                                                                       \
    "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", \
        "xmm28", "xmm29", "xmm30", "xmm31", "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7",
#else
#define WEFT__LOST_AVX512
#endif
#if defined(__ARM_FEATURE_SVE)
#define WEFT__LOST_PREDICATES \
    "p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9", "p10", "p11", "p12", "p13", "p14", "p15",
#else
#define WEFT__LOST_PREDICATES
#endif

/* Where branch protection is compiled in, an indirect jump must land on an instruction that says so. */
#if defined(__CET__) && (__CET__ & 1)
#define WEFT__LANDING "endbr64\n\t"
#elif defined(__ARM_FEATURE_BTI_DEFAULT)
#define WEFT__LANDING "hint #36\n\t" /* bti j */
#else
#define WEFT__LANDING
#endif

/* Of the caller; unlike __builtin_frame_address it leaves the frame pointer alone. */
static inline __attribute__((always_inline)) char *weft__stack_pointer(void)
{
    char *pointer;

#if defined(__x86_64__)
    __asm__("movq %%rsp, %0" : "=r"(pointer));
#else
    __asm__("mov %0, sp" : "=r"(pointer));
#endif
    return pointer;
}

/*
 * Keep the running context in *from and continue *to, which gets `arg`: from the switch that kept it, or as the
 * argument of its entry function.
 */
static inline __attribute__((always_inline)) void *weft__context_switch(struct weft__context *from,
                                                                        const struct weft__context *to, void *arg)
{
#if defined(__x86_64__)
    __asm__ volatile("leaq 1f(%%rip), %%rax\n\t"
                     "movq %%rbp, (%%rdi)\n\t"
                     "movq %%rax, 8(%%rdi)\n\t"
                     "movq %%rsp, 16(%%rdi)\n\t"
                     "movq 16(%%rsi), %%rsp\n\t"
                     "movq (%%rsi), %%rbp\n\t"
                     "jmpq *8(%%rsi)\n"
                     "1:\n\t" WEFT__LANDING
                     : "+D"(from), "+S"(to), "+d"(arg)
                     :
                     : "rax", "rbx", "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1",
                       "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
                       "xmm13", "xmm14", "xmm15", "mm0", "mm1", "mm2", "mm3", "mm4", "mm5", "mm6", "mm7", "st",
                       "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)", WEFT__LOST_AVX512 "cc",
                       "memory");
    return arg;
#elif defined(__aarch64__)
    register void *x0 __asm__("x0") = from;
    register const void *x1 __asm__("x1") = to;
    register void *x2 __asm__("x2") = arg;

    __asm__ volatile("adr x9, 1f\n\t"
                     "mov x10, sp\n\t"
                     "stp x29, x9, [x0]\n\t"
                     "str x10, [x0, #16]\n\t"
                     "ldr x10, [x1, #16]\n\t"
                     "ldp x29, x9, [x1]\n\t"
                     "mov sp, x10\n\t"
                     "br x9\n"
                     "1:\n\t" WEFT__LANDING
                     : "+r"(x0), "+r"(x1), "+r"(x2)
                     :
                     : "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16",
                       "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x30",
                       "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13",
                       "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26",
                       "v27", "v28", "v29", "v30", "v31", WEFT__LOST_PREDICATES "cc", "memory");
    return x2;
#else
#error "weft runs on x86-64 and AArch64"
#endif
}

#endif
