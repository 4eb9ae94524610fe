/*
 * The stacks of generators and coroutines: owns the process's pool of them, made when the first is needed, and the
 * switch to and from them. Called by any thread.
 *
 * Two locks. `lock`, a spinlock, protects the list of stacks at hand and the count of those that are out; under it no
 * system call is made. `pool_lock`, a mutex, is held around every call into the pool that may take the pool's own lock;
 * `lock` may be taken under it, never the other way round. fork(2) holds both, so that in the child all three are free
 * and whole.
 *
 * The end of the process (or of the library) frees the pool if no stack is out. A stack is out from before
 * weft__side_stack_get leaves the locks until weft__side_stack_put has done with the pool, so whoever reads `pool`
 * without the mutex does so while it stays.
 */
#include "runtime/side_stack.h"

#include <pthread.h>
#include <string.h>

#include "runtime/lock.h"

enum {
    POOL_STACK_SIZE = 64 << 10, /* what weft_gen_new and weft_co_new promise; others are mapped one by one */
    HAND_LIMIT = 128            /* at hand; then half of them go to the pool, which trims them */
};

static struct {
    weft__lock lock;
    struct weft__stack *head;
    uint32_t count; /* in head */
    uint64_t out;

    pthread_mutex_t pool_lock;
    struct weft__stack_pool *pool;
    bool forks; /* the handlers are in place */
} side_stacks = {.pool_lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- the calling thread ---- */

static __thread struct weft__side *side_of_thread __attribute__((tls_model("initial-exec")));
intptr_t weft__side_offset;

__attribute__((constructor)) static void find_offset(void)
{
    char *thread_pointer;

#if defined(__x86_64__)
    __asm__ volatile("movq %%fs:0, %0" : "=r"(thread_pointer));
#else
    __asm__ volatile("mrs %0, tpidr_el0" : "=r"(thread_pointer));
#endif
    weft__side_offset = (char *)&side_of_thread - thread_pointer;
}

/* ---- fork and exit ---- */

static void before_fork(void)
{
    pthread_mutex_lock(&side_stacks.pool_lock);
    weft__lock_enter(&side_stacks.lock);
}

static void after_fork(void)
{
    weft__lock_leave(&side_stacks.lock);
    pthread_mutex_unlock(&side_stacks.pool_lock);
}

__attribute__((destructor)) static void free_pool(void)
{
    struct weft__stack_cache last = {.head = NULL};
    struct weft__stack_pool *pool = NULL;

    pthread_mutex_lock(&side_stacks.pool_lock);
    weft__lock_enter(&side_stacks.lock);
    if (side_stacks.out == 0) {
        pool = side_stacks.pool;
        side_stacks.pool = NULL;
        last.head = side_stacks.head;
        side_stacks.head = NULL;
        side_stacks.count = 0;
    }
    weft__lock_leave(&side_stacks.lock);
    if (pool) {
        weft__stack_cache_flush(pool, &last);
        weft__stack_pool_free(pool);
    }
    pthread_mutex_unlock(&side_stacks.pool_lock);
}

/* ---- stacks ---- */

/* Under pool_lock. A process that cannot have the handlers may not fork while stacks are taken; so it has no pool. */
static bool make_pool(void)
{
    if (side_stacks.pool)
        return true;
    if (!side_stacks.forks)
        side_stacks.forks = pthread_atfork(before_fork, after_fork, after_fork) == 0;
    if (side_stacks.forks)
        side_stacks.pool = weft__stack_pool_new(POOL_STACK_SIZE);
    return side_stacks.pool != NULL;
}

/* Under `lock`. */
static void keep_at_hand(struct weft__stack *stack)
{
    stack->next = side_stacks.head;
    side_stacks.head = stack;
    side_stacks.count++;
}

static struct weft__stack *take_at_hand(void)
{
    struct weft__stack *stack;

    weft__lock_enter(&side_stacks.lock);
    stack = side_stacks.head;
    if (stack) {
        side_stacks.head = stack->next;
        side_stacks.count--;
        side_stacks.out++;
    }
    weft__lock_leave(&side_stacks.lock);
    return stack;
}

/* The pool hands out several at a time: the others stay at hand. */
static struct weft__stack *take_from_pool(size_t size)
{
    struct weft__stack_cache batch = {.head = NULL};
    struct weft__stack *stack = NULL;

    pthread_mutex_lock(&side_stacks.pool_lock);
    if (make_pool())
        stack = weft__stack_get(side_stacks.pool, &batch, size);
    weft__lock_enter(&side_stacks.lock);
    side_stacks.out += stack != NULL;
    while (batch.head) {
        struct weft__stack *next = batch.head->next;

        keep_at_hand(batch.head);
        batch.head = next;
    }
    weft__lock_leave(&side_stacks.lock);
    pthread_mutex_unlock(&side_stacks.pool_lock);
    return stack;
}

/* Where the switch finds what in a context; see below. */
#if defined(__x86_64__)
enum { CONTEXT_WORDS = 7, CONTEXT_MAIN = 4 /* rbx */, CONTEXT_SIDE = 3 /* r12 */, CONTEXT_RESUME = 6 };
#else
enum { CONTEXT_WORDS = 20, CONTEXT_MAIN = 2 /* x19 */, CONTEXT_SIDE = 3 /* x20 */, CONTEXT_RESUME = 1 };
#endif

void weft__side_entry(void) __attribute__((visibility("hidden")));

static void *make_context(struct weft__stack *stack, weft__side_main *main, struct weft__side *side)
{
    uintptr_t *context = (uintptr_t *)stack->start - CONTEXT_WORDS;

    memset(context, 0, CONTEXT_WORDS * sizeof *context);
    context[CONTEXT_MAIN] = (uintptr_t)main;
    context[CONTEXT_SIDE] = (uintptr_t)side;
    context[CONTEXT_RESUME] = (uintptr_t)weft__side_entry;
    return context;
}

bool weft__side_stack_get(struct weft__side *side, weft__side_main *main)
{
    struct weft__stack *stack = side->stack_size <= POOL_STACK_SIZE ? take_at_hand() : NULL;

    if (!stack)
        stack = take_from_pool(side->stack_size);
    if (!stack)
        return false;
    weft__annotate_stack_begin(stack);
    ((struct weft__side_header *)stack)->owner = side;
    side->stack = stack;
    side->context = make_context(stack, main, side);
    return true;
}

/* The half that was put first goes: what was put last is still in the processor's cache. They are out meanwhile. */
static struct weft__stack *take_surplus(void)
{
    struct weft__stack *last = side_stacks.head, *surplus;

    if (side_stacks.count <= HAND_LIMIT)
        return NULL;
    for (uint32_t i = 1; i < HAND_LIMIT / 2; i++)
        last = last->next;
    surplus = last->next;
    last->next = NULL;
    side_stacks.out += side_stacks.count - HAND_LIMIT / 2;
    side_stacks.count = HAND_LIMIT / 2;
    return surplus;
}

static void give_to_pool(struct weft__stack *list)
{
    struct weft__stack_cache surplus = {.head = list};
    uint64_t count = 0;

    for (struct weft__stack *stack = list; stack; stack = stack->next)
        count++;
    pthread_mutex_lock(&side_stacks.pool_lock);
    weft__stack_cache_flush(side_stacks.pool, &surplus);
    weft__lock_enter(&side_stacks.lock);
    side_stacks.out -= count;
    weft__lock_leave(&side_stacks.lock);
    pthread_mutex_unlock(&side_stacks.pool_lock);
}

void weft__side_stack_put(struct weft__side *side)
{
    struct weft__stack_cache one = {.head = NULL};
    struct weft__stack *stack = side->stack, *surplus;

    if (!stack)
        return;
    side->stack = NULL;
    weft__annotate_stack_end(stack);
    /* Unmaps one with a mapping of its own, and clears the poison of others: without the pool's lock. */
    weft__stack_put(side_stacks.pool, &one, stack);
    weft__lock_enter(&side_stacks.lock);
    side_stacks.out--;
    if (one.head)
        keep_at_hand(one.head);
    surplus = take_surplus();
    weft__lock_leave(&side_stacks.lock);
    if (surplus)
        give_to_pool(surplus);
}

/* ---- the switch ---- */

/*
 * What a context is left with on its stack, upwards from where its pointer points: the registers that a function must
 * preserve, then the address to go on at. It is the same on both stacks, so the unwinding tables hold throughout.
 *
 * weft__side_entry: where a new one begins (see context_*.S for the nop).
 */
#if defined(__x86_64__)

#define SAVE                                   \
    "pushq %rbp\n\t.cfi_def_cfa_offset 16\n\t" \
    "pushq %rbx\n\t.cfi_def_cfa_offset 24\n\t" \
    "pushq %r12\n\t.cfi_def_cfa_offset 32\n\t" \
    "pushq %r13\n\t.cfi_def_cfa_offset 40\n\t" \
    "pushq %r14\n\t.cfi_def_cfa_offset 48\n\t" \
    "pushq %r15\n\t.cfi_def_cfa_offset 56\n\t" SAVED_TABLE
#define SAVED_TABLE                                    \
    ".cfi_offset rbp, -16\n\t.cfi_offset rbx, -24\n\t" \
    ".cfi_offset r12, -32\n\t.cfi_offset r13, -40\n\t" \
    ".cfi_offset r14, -48\n\t.cfi_offset r15, -56\n\t"
/* notrack: where it goes on is behind a call, which no landing instruction follows. */
#define RESTORE_AND_JUMP                                               \
    "popq %r15\n\t.cfi_def_cfa_offset 48\n\t.cfi_restore r15\n\t"      \
    "popq %r14\n\t.cfi_def_cfa_offset 40\n\t.cfi_restore r14\n\t"      \
    "popq %r13\n\t.cfi_def_cfa_offset 32\n\t.cfi_restore r13\n\t"      \
    "popq %r12\n\t.cfi_def_cfa_offset 24\n\t.cfi_restore r12\n\t"      \
    "popq %rbx\n\t.cfi_def_cfa_offset 16\n\t.cfi_restore rbx\n\t"      \
    "popq %rbp\n\t.cfi_def_cfa_offset 8\n\t.cfi_restore rbp\n\t"       \
    "popq %rcx\n\t.cfi_def_cfa_offset 0\n\t.cfi_register rip, rcx\n\t" \
    "notrack jmpq *%rcx\n\t"
#define SWITCH "movq %rsp, (%rdi)\n\tmovq %rsi, %rsp\n\tmovq %rdx, %rax\n\t"
#define PUBLISH "movl %r8d, (%rcx)\n\t" /* a release, as every store here is */
#define LEAVE                                                                                                 \
    "movq %rdi, %rsp\n\t.cfi_def_cfa_offset 56\n\t" SAVED_TABLE "subq $8, %rsp\n\t.cfi_def_cfa_offset 64\n\t" \
    "movq %rdx, %rdi\n\t"                                                                                     \
    "callq *%rsi\n\t"                                                                                         \
    "addq $8, %rsp\n\t.cfi_def_cfa_offset 56\n\t"
#define NOBODY_CALLED ".cfi_undefined rip\n\t"
#define BEGIN             \
    "movq %r12, %rdi\n\t" \
    "movq %rax, %rsi\n\t" \
    "xorl %ebp, %ebp\n\t" \
    "callq *%rbx\n\t"     \
    "ud2\n\t"
#define FUNCTION "@function"

#else

#define SAVED_TABLE                                      \
    ".cfi_offset x29, -160\n\t.cfi_offset x30, -152\n\t" \
    ".cfi_offset x19, -144\n\t.cfi_offset x20, -136\n\t" \
    ".cfi_offset x21, -128\n\t.cfi_offset x22, -120\n\t" \
    ".cfi_offset x23, -112\n\t.cfi_offset x24, -104\n\t" \
    ".cfi_offset x25, -96\n\t.cfi_offset x26, -88\n\t"   \
    ".cfi_offset x27, -80\n\t.cfi_offset x28, -72\n\t"
#define SAVE                                                    \
    "stp x29, x30, [sp, #-160]!\n\t.cfi_def_cfa_offset 160\n\t" \
    "stp x19, x20, [sp, #16]\n\t"                               \
    "stp x21, x22, [sp, #32]\n\t"                               \
    "stp x23, x24, [sp, #48]\n\t"                               \
    "stp x25, x26, [sp, #64]\n\t"                               \
    "stp x27, x28, [sp, #80]\n\t"                               \
    "stp d8, d9, [sp, #96]\n\t"                                 \
    "stp d10, d11, [sp, #112]\n\t"                              \
    "stp d12, d13, [sp, #128]\n\t"                              \
    "stp d14, d15, [sp, #144]\n\t" SAVED_TABLE
/* With branch protection an indirect jump would have to land on an instruction that says so. */
#if defined(__ARM_FEATURE_BTI_DEFAULT)
#define JUMP "ret x16\n\t"
#else
#define JUMP "br x16\n\t"
#endif
#define RESTORE_AND_JUMP                       \
    "ldp x19, x20, [sp, #16]\n\t"              \
    "ldp x21, x22, [sp, #32]\n\t"              \
    "ldp x23, x24, [sp, #48]\n\t"              \
    "ldp x25, x26, [sp, #64]\n\t"              \
    "ldp x27, x28, [sp, #80]\n\t"              \
    "ldp d8, d9, [sp, #96]\n\t"                \
    "ldp d10, d11, [sp, #112]\n\t"             \
    "ldp d12, d13, [sp, #128]\n\t"             \
    "ldp d14, d15, [sp, #144]\n\t"             \
    "ldp x29, x30, [sp], #160\n\t"             \
    ".cfi_def_cfa_offset 0\n\t"                \
    ".cfi_restore x29\n\t.cfi_restore x30\n\t" \
    "mov x16, x30\n\t" JUMP
#define SWITCH "mov x9, sp\n\tstr x9, [x0]\n\tmov sp, x1\n\tmov x0, x2\n\t"
#define PUBLISH "stlr w4, [x3]\n\t"
#define LEAVE                                                                \
    "mov sp, x0\n\t.cfi_def_cfa_offset 160\n\t" SAVED_TABLE "mov x0, x2\n\t" \
    "blr x1\n\t"
#define NOBODY_CALLED ".cfi_undefined x30\n\t"
#define BEGIN          \
    "mov x1, x0\n\t"   \
    "mov x0, x20\n\t"  \
    "mov x29, xzr\n\t" \
    "blr x19\n\t"      \
    "brk #1\n\t"
#define FUNCTION "%function"

#endif

#define DEFINE(name, code)                        \
    ".p2align 6\n\t"                              \
    ".globl " name "\n\t"                         \
    ".hidden " name "\n\t"                        \
    ".type " name ", " FUNCTION "\n" name ":\n\t" \
    ".cfi_startproc\n\t" code ".cfi_endproc\n\t"  \
    ".size " name ", . - " name "\n\t"

/* Its unwinding table begins at the nop before it. */
#define DEFINE_ENTRY(name)                                                 \
    ".p2align 4\n\t"                                                       \
    ".cfi_startproc\n\t" NOBODY_CALLED "nop\n\t"                           \
    ".globl " name "\n\t"                                                  \
    ".hidden " name "\n\t"                                                 \
    ".type " name ", " FUNCTION "\n" name ":\n\t" BEGIN ".cfi_endproc\n\t" \
    ".size " name ", . - " name "\n\t"

#define ALIAS(name, of)    \
    ".globl " name "\n\t"  \
    ".hidden " name "\n\t" \
    ".set " name ", " of "\n\t"

/* clang-format off */
__asm__(".pushsection .text\n\t"
        DEFINE("weft__side_enter", SAVE SWITCH RESTORE_AND_JUMP)
        DEFINE("weft__side_suspend", SAVE SWITCH PUBLISH RESTORE_AND_JUMP)
        DEFINE("weft__side_leave", LEAVE RESTORE_AND_JUMP)
        DEFINE_ENTRY("weft__side_entry")
        ALIAS("weft__side_enter_int", "weft__side_enter")
        ALIAS("weft__side_suspend_int", "weft__side_suspend")
        ".popsection");
/* clang-format on */
