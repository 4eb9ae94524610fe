/* The stack switch: values, registers, alignment, an untouched stack for a new context, and unwinding. */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* names of the registers in ucontext_t */
#endif
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <unwind.h>

#include <cmocka.h>

#include "runtime/context.h"

#if defined(WEFT_TEST_LIBUNWIND)
#define UNW_LOCAL_ONLY
#include <libunwind.h>
#endif

#define STACK_SIZE 65536

/* Where a new context begins is behind a nop that belongs to it. */
#if defined(__aarch64__)
#define ENTRY_BEGIN ((uintptr_t)weft__context_entry - 4)
#else
#define ENTRY_BEGIN ((uintptr_t)weft__context_entry - 1)
#endif

/* Neither inlined nor copied for one of its callers: backtraces are compared with its address. */
#if defined(__clang__)
#define OUT_OF_LINE __attribute__((noinline))
#else
#define OUT_OF_LINE __attribute__((noinline, noclone))
#endif

static char stack_memory[2][STACK_SIZE] __attribute__((aligned(64)));
static struct weft__context main_context;
static struct weft__context coroutine[2];

static void *top_of(int which)
{
    return stack_memory[which] + STACK_SIZE;
}

static void start(int which, void (*entry)(void *))
{
    weft__context_make(&coroutine[which], top_of(which), entry);
}

static void *resume(int which, void *arg)
{
    return weft__context_switch(&main_context, &coroutine[which], arg);
}

static void *suspend(int which, void *arg)
{
    return weft__context_switch(&coroutine[which], &main_context, arg);
}

static void *plus_one(void *number)
{
    return (void *)((uintptr_t)number + 1);
}

static void echo_plus_one(void *arg)
{
    for (;;)
        arg = suspend(0, plus_one(arg));
}

static void argument_and_results_cross_the_switch(void **state)
{
    (void)state;
    start(0, echo_plus_one);
    for (uintptr_t i = 100; i < 1000; i++)
        assert_int_equal((uintptr_t)resume(0, (void *)i), i + 1);
}

static void note_alignment(void *arg)
{
    uintptr_t *frame = arg;

    *frame = (uintptr_t)__builtin_frame_address(0);
    suspend(0, NULL);
}

static void entry_gets_an_aligned_stack(void **state)
{
    uintptr_t frame = 0;

    (void)state;
    start(0, note_alignment);
    resume(0, &frame);
    assert_int_equal(frame % 16, 0);
    assert_true(frame < (uintptr_t)top_of(0));
    assert_true(frame >= (uintptr_t)top_of(0) - 256);
}

static void a_new_context_touches_none_of_its_stack(void **state)
{
    const char *memory = stack_memory[0];
    size_t touched = 0;

    (void)state;
    memset(stack_memory[0], 0x5a, STACK_SIZE);
    start(0, echo_plus_one);
    for (size_t i = 0; i < STACK_SIZE; i++)
        touched += memory[i] != 0x5a;
    assert_int_equal(touched, 0);
}

static void two_contexts_switch_straight_to_each_other_second(void *arg)
{
    for (;;)
        arg = weft__context_switch(&coroutine[1], &coroutine[0], plus_one(arg));
}

static void two_contexts_switch_straight_to_each_other_first(void *arg)
{
    for (int i = 0; i < 1000; i++)
        arg = weft__context_switch(&coroutine[0], &coroutine[1], plus_one(arg));
    suspend(0, arg);
}

static void two_contexts_switch_straight_to_each_other(void **state)
{
    (void)state;
    start(0, two_contexts_switch_straight_to_each_other_first);
    start(1, two_contexts_switch_straight_to_each_other_second);
    assert_int_equal((uintptr_t)resume(0, (void *)0), 2000);
}

/* The switch as a function, for the assembly below. */
void *switch_out_of_line(struct weft__context *from, const struct weft__context *to, void *arg);

__attribute__((used)) OUT_OF_LINE void *switch_out_of_line(struct weft__context *from,
                                                           const struct weft__context *to, void *arg)
{
    return weft__context_switch(from, to, arg);
}

/*
 * Fill every callee-saved register, call a function that switches, compare. In assembly, since a compiler is free
 * to keep its variables anywhere. Returns a bit for each register that changed.
 */
#if defined(__x86_64__)
__asm__(".text\n"
        ".globl switch_with_marked_registers\n"
        ".hidden switch_with_marked_registers\n"
        ".type switch_with_marked_registers, @function\n"
        "switch_with_marked_registers:\n"
        "push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
        "sub $24, %rsp\n"
        "mov %rcx, (%rsp)\n mov %rsp, 8(%rsp)\n"
        "lea 1(%rcx), %rbx\n lea 2(%rcx), %rbp\n lea 3(%rcx), %r12\n"
        "lea 4(%rcx), %r13\n lea 5(%rcx), %r14\n lea 6(%rcx), %r15\n"
        "call switch_out_of_line\n"
        "mov (%rsp), %rcx\n xor %eax, %eax\n xor %edx, %edx\n"
        "sub %rcx, %rbx\n sub %rcx, %rbp\n sub %rcx, %r12\n"
        "sub %rcx, %r13\n sub %rcx, %r14\n sub %rcx, %r15\n"
        "cmp $1, %rbx\n setne %dl\n or %edx, %eax\n shl $1, %eax\n"
        "cmp $2, %rbp\n setne %dl\n or %edx, %eax\n shl $1, %eax\n"
        "cmp $3, %r12\n setne %dl\n or %edx, %eax\n shl $1, %eax\n"
        "cmp $4, %r13\n setne %dl\n or %edx, %eax\n shl $1, %eax\n"
        "cmp $5, %r14\n setne %dl\n or %edx, %eax\n shl $1, %eax\n"
        "cmp $6, %r15\n setne %dl\n or %edx, %eax\n shl $1, %eax\n"
        "cmp %rsp, 8(%rsp)\n setne %dl\n or %edx, %eax\n"
        "add $24, %rsp\n"
        "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n"
        "ret\n"
        ".size switch_with_marked_registers, . - switch_with_marked_registers\n");
#elif defined(__aarch64__)
#define FILL(n, k) "add x" #n ", x3, #" #k "\n"
#define FILL_D(n, k) "add x9, x3, #" #k "\n fmov d" #n ", x9\n"
#define CHECK(n, k) "sub x9, x" #n ", x3\n cmp x9, #" #k "\n cset x10, ne\n orr x0, x10, x0, lsl #1\n"
#define CHECK_D(n, k)                                                                                            \
    "fmov x9, d" #n "\n sub x9, x9, x3\n cmp x9, #" #k "\n cset x10, ne\n orr x0, x10, x0, lsl #1\n"
__asm__(".text\n"
        ".globl switch_with_marked_registers\n"
        ".hidden switch_with_marked_registers\n"
        ".type switch_with_marked_registers, %function\n"
        "switch_with_marked_registers:\n"
        "stp x29, x30, [sp, #-192]!\n stp x19, x20, [sp, #16]\n stp x21, x22, [sp, #32]\n"
        "stp x23, x24, [sp, #48]\n stp x25, x26, [sp, #64]\n stp x27, x28, [sp, #80]\n"
        "stp d8, d9, [sp, #96]\n stp d10, d11, [sp, #112]\n stp d12, d13, [sp, #128]\n"
        "stp d14, d15, [sp, #144]\n"
        "mov x9, sp\n stp x3, x9, [sp, #160]\n"
        FILL(19, 1) FILL(20, 2) FILL(21, 3) FILL(22, 4) FILL(23, 5) FILL(24, 6) FILL(25, 7) FILL(26, 8)
        FILL(27, 9) FILL(28, 10) FILL(29, 11)
        FILL_D(8, 12) FILL_D(9, 13) FILL_D(10, 14) FILL_D(11, 15) FILL_D(12, 16) FILL_D(13, 17) FILL_D(14, 18)
        FILL_D(15, 19)
        "bl switch_out_of_line\n"
        "ldp x3, x11, [sp, #160]\n mov x0, xzr\n"
        CHECK(19, 1) CHECK(20, 2) CHECK(21, 3) CHECK(22, 4) CHECK(23, 5) CHECK(24, 6) CHECK(25, 7) CHECK(26, 8)
        CHECK(27, 9) CHECK(28, 10) CHECK(29, 11)
        CHECK_D(8, 12) CHECK_D(9, 13) CHECK_D(10, 14) CHECK_D(11, 15) CHECK_D(12, 16) CHECK_D(13, 17)
        CHECK_D(14, 18) CHECK_D(15, 19)
        "mov x9, sp\n cmp x9, x11\n cset x10, ne\n orr x0, x10, x0, lsl #1\n"
        "ldp d14, d15, [sp, #144]\n ldp d12, d13, [sp, #128]\n ldp d10, d11, [sp, #112]\n"
        "ldp d8, d9, [sp, #96]\n ldp x27, x28, [sp, #80]\n ldp x25, x26, [sp, #64]\n"
        "ldp x23, x24, [sp, #48]\n ldp x21, x22, [sp, #32]\n ldp x19, x20, [sp, #16]\n"
        "ldp x29, x30, [sp], #192\n"
        "ret\n"
        ".size switch_with_marked_registers, . - switch_with_marked_registers\n");
#endif
uint64_t switch_with_marked_registers(struct weft__context *from, const struct weft__context *to, void *arg,
                                      uint64_t mark);

static uint64_t lost_in_coroutine;

static void marks_its_registers_too(void *arg)
{
    (void)arg;
    for (;;)
        lost_in_coroutine |= switch_with_marked_registers(&coroutine[0], &main_context, NULL, 0x20000);
}

static void callee_saved_registers_survive(void **state)
{
    (void)state;
    lost_in_coroutine = 0;
    start(0, marks_its_registers_too);
    for (int i = 0; i < 3; i++)
        assert_int_equal(switch_with_marked_registers(&main_context, &coroutine[0], NULL, 0x10000), 0);
    assert_int_equal(lost_in_coroutine, 0);
}

/*
 * What the compiler holds in registers around an inlined switch. A register that is missing among those that the
 * switch declares lost is where it puts a value, so the other side spoils all that a called function may change.
 */
static OUT_OF_LINE void spoil_registers(void)
{
#if defined(__x86_64__)
    __asm__ volatile("mov $-1, %%rax\n mov %%rax, %%rcx\n mov %%rax, %%rdx\n mov %%rax, %%rsi\n mov %%rax, %%rdi\n"
                     "mov %%rax, %%r8\n mov %%rax, %%r9\n mov %%rax, %%r10\n mov %%rax, %%r11\n"
                     "pcmpeqd %%xmm0, %%xmm0\n pcmpeqd %%xmm1, %%xmm1\n pcmpeqd %%xmm2, %%xmm2\n"
                     "pcmpeqd %%xmm3, %%xmm3\n pcmpeqd %%xmm4, %%xmm4\n pcmpeqd %%xmm5, %%xmm5\n"
                     "pcmpeqd %%xmm6, %%xmm6\n pcmpeqd %%xmm7, %%xmm7\n pcmpeqd %%xmm8, %%xmm8\n"
                     "pcmpeqd %%xmm9, %%xmm9\n pcmpeqd %%xmm10, %%xmm10\n pcmpeqd %%xmm11, %%xmm11\n"
                     "pcmpeqd %%xmm12, %%xmm12\n pcmpeqd %%xmm13, %%xmm13\n pcmpeqd %%xmm14, %%xmm14\n"
                     "pcmpeqd %%xmm15, %%xmm15\n"
                     :
                     :
                     : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm3",
                       "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
                       "xmm15");
#if defined(__AVX512F__)
    __asm__ volatile("vpternlogd $255, %%zmm16, %%zmm16, %%zmm16\n vpternlogd $255, %%zmm17, %%zmm17, %%zmm17\n"
                     "vpternlogd $255, %%zmm18, %%zmm18, %%zmm18\n vpternlogd $255, %%zmm19, %%zmm19, %%zmm19\n"
                     "kxnorw %%k1, %%k1, %%k1\n kxnorw %%k2, %%k2, %%k2\n"
                     :
                     :
                     : "xmm16", "xmm17", "xmm18", "xmm19", "k1", "k2");
#endif
#elif defined(__aarch64__)
    __asm__ volatile("mov x0, #-1\n mov x1, x0\n mov x2, x0\n mov x3, x0\n mov x4, x0\n mov x5, x0\n mov x6, x0\n"
                     "mov x7, x0\n mov x8, x0\n mov x9, x0\n mov x10, x0\n mov x11, x0\n mov x12, x0\n"
                     "mov x13, x0\n mov x14, x0\n mov x15, x0\n mov x16, x0\n mov x17, x0\n mov x18, x0\n"
                     "fmov d0, x0\n fmov d1, x0\n fmov d2, x0\n fmov d3, x0\n fmov d4, x0\n fmov d5, x0\n"
                     "fmov d6, x0\n fmov d7, x0\n fmov d16, x0\n fmov d17, x0\n fmov d18, x0\n fmov d19, x0\n"
                     "fmov d20, x0\n fmov d21, x0\n fmov d22, x0\n fmov d23, x0\n fmov d24, x0\n fmov d25, x0\n"
                     "fmov d26, x0\n fmov d27, x0\n fmov d28, x0\n fmov d29, x0\n fmov d30, x0\n fmov d31, x0\n"
                     :
                     :
                     : "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13",
                       "x14", "x15", "x16", "x17", "x18", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16",
                       "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29",
                       "v30", "v31");
#endif
}

static void spoils_all_registers(void *arg)
{
    (void)arg;
    for (;;) {
        spoil_registers();
        suspend(0, NULL);
    }
}

/* A value that the compiler cannot compute a second time. */
#define HIDE(variable, kind) __asm__ volatile("" : "+" kind(variable))
#if defined(__x86_64__)
#define IN_FLOAT "x"
#else
#define IN_FLOAT "w"
#endif

static OUT_OF_LINE uint64_t one_value_over_a_switch(uint64_t a)
{
    HIDE(a, "r");
    resume(0, NULL);
    return a;
}

static OUT_OF_LINE uint64_t many_values_over_a_switch(uint64_t a, double x)
{
    uint64_t b = a + 1, c = a + 2, d = a + 3, e = a + 4, f = a + 5;
    double y = x + 1, z = x + 2;

    HIDE(a, "r");
    HIDE(b, "r");
    HIDE(c, "r");
    HIDE(d, "r");
    HIDE(e, "r");
    HIDE(f, "r");
    HIDE(x, IN_FLOAT);
    HIDE(y, IN_FLOAT);
    HIDE(z, IN_FLOAT);
    resume(0, NULL);
    return (a ^ b << 8 ^ c << 16 ^ d << 24 ^ e << 32 ^ f << 40) + (uint64_t)(x + 2 * y + 4 * z);
}

static void what_the_compiler_holds_in_registers_survives(void **state)
{
    (void)state;
    start(0, spoils_all_registers);
    assert_int_equal(one_value_over_a_switch(77), 77);
    assert_int_equal(many_values_over_a_switch(1, 1), 0x060504030201 + 17);
}

/* Unwinding. The functions that call are kept out of line, and do something after the call. */

#define MAX_FRAMES 32

struct walk {
    unsigned count;
    const char *functions[MAX_FRAMES];
};

static volatile int depth_reached;

static _Unwind_Reason_Code note_frame(struct _Unwind_Context *context, void *arg)
{
    struct walk *walk = arg;

    /* some unwinders show the end as a frame at zero */
    if (walk->count < MAX_FRAMES && _Unwind_GetIP(context) != 0)
        walk->functions[walk->count++] = _Unwind_FindEnclosingFunction((void *)(_Unwind_GetIP(context) - 1));
    return _URC_NO_REASON;
}

static OUT_OF_LINE void walk_here(void *arg)
{
    _Unwind_Backtrace(note_frame, arg);
    depth_reached++;
}

static OUT_OF_LINE void inner(void (*leaf)(void *), void *arg)
{
    leaf(arg);
    depth_reached++;
}

static OUT_OF_LINE void middle(void (*leaf)(void *), void *arg)
{
    volatile char room[300];

    room[0] = 1;
    inner(leaf, arg);
    depth_reached += room[0];
}

static void entry_that_walks(void *arg)
{
    middle(walk_here, arg);
    suspend(0, NULL);
}

/* Exactly these frames, then the beginning, then nothing. */
static void assert_chain(const struct walk *walk, const void *leaf, const void *entry)
{
    const uintptr_t chain[] = {(uintptr_t)leaf, (uintptr_t)inner, (uintptr_t)middle, (uintptr_t)entry, ENTRY_BEGIN};

    assert_int_equal(walk->count, 5);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal((uintptr_t)walk->functions[i], chain[i]);
}

static void unwinding_a_running_coroutine_ends_at_its_entry(void **state)
{
    struct walk walk = {.count = 0};

    (void)state;
    start(0, entry_that_walks);
    resume(0, &walk);
    assert_chain(&walk, (void *)walk_here, (void *)entry_that_walks);
}

#if defined(WEFT_TEST_LIBUNWIND)
static void note_position(unw_cursor_t *cursor, struct walk *walk)
{
    unw_proc_info_t info;
    unw_word_t ip = 0;

    /* some unwinders show the end as a frame at zero */
    if (unw_get_reg(cursor, UNW_REG_IP, &ip) == 0 && ip == 0)
        return;
    walk->functions[walk->count++] = unw_get_proc_info(cursor, &info) == 0 ? (const char *)info.start_ip : NULL;
}

static void walk_from(unw_context_t *context, struct walk *walk)
{
    unw_cursor_t cursor;

    assert_int_equal(unw_init_local(&cursor, context), 0);
    do
        note_position(&cursor, walk);
    while (walk->count < MAX_FRAMES && unw_step(&cursor) > 0);
}

static OUT_OF_LINE void libunwind_here(void *arg)
{
    unw_context_t context;

    unw_getcontext(&context);
    walk_from(&context, arg);
    depth_reached++;
}

static void entry_that_walks_by_libunwind(void *arg)
{
    middle(libunwind_here, arg);
    suspend(0, NULL);
}

static void libunwind_ends_at_the_entry_of_a_running_coroutine(void **state)
{
    struct walk walk = {.count = 0};

    (void)state;
    start(0, entry_that_walks_by_libunwind);
    resume(0, &walk);
    assert_chain(&walk, (void *)libunwind_here, (void *)entry_that_walks_by_libunwind);
}

static OUT_OF_LINE void suspend_here(void *arg)
{
    suspend(0, arg);
    depth_reached++;
}

static void entry_that_suspends(void *arg)
{
    middle(suspend_here, arg);
    depth_reached++;
}

/* As a debugger does it: from the three words that are kept. */
static void libunwind_walks_a_suspended_coroutine(void **state)
{
    const struct weft__context *saved = &coroutine[0];
    struct walk walk = {.count = 0};
    unw_context_t context;

    (void)state;
    start(0, entry_that_suspends);
    resume(0, NULL);
    unw_getcontext(&context);
#if defined(__x86_64__)
    context.uc_mcontext.gregs[REG_RBP] = (greg_t)saved->frame;
    context.uc_mcontext.gregs[REG_RIP] = (greg_t)saved->resume;
    context.uc_mcontext.gregs[REG_RSP] = (greg_t)saved->stack;
#elif defined(__aarch64__)
    context.uc_mcontext.regs[29] = (uintptr_t)saved->frame;
    context.uc_mcontext.pc = (uintptr_t)saved->resume;
    context.uc_mcontext.sp = (uintptr_t)saved->stack;
#endif
    walk_from(&context, &walk);
    /* suspend() may have been inlined */
    if (walk.count == 6)
        memmove(walk.functions, walk.functions + 1, --walk.count * sizeof(walk.functions[0]));
    assert_chain(&walk, (void *)suspend_here, (void *)entry_that_suspends);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(argument_and_results_cross_the_switch),
        cmocka_unit_test(entry_gets_an_aligned_stack),
        cmocka_unit_test(a_new_context_touches_none_of_its_stack),
        cmocka_unit_test(two_contexts_switch_straight_to_each_other),
        cmocka_unit_test(callee_saved_registers_survive),
        cmocka_unit_test(what_the_compiler_holds_in_registers_survives),
        cmocka_unit_test(unwinding_a_running_coroutine_ends_at_its_entry),
#if defined(WEFT_TEST_LIBUNWIND)
        cmocka_unit_test(libunwind_ends_at_the_entry_of_a_running_coroutine),
        cmocka_unit_test(libunwind_walks_a_suspended_coroutine),
#endif
    };

    alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
