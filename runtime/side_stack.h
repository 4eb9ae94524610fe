/*
 * Side stacks: what generators and coroutines have in common. A stack beside the one that its user runs on, entered
 * and left by a jump, inside a task or on a thread outside any runtime.
 *
 * The stacks come from a cache of the process (side_stack.c), since they may outlive any runtime.
 *
 * While a side stack runs inside a task, it is the task's: the record of the coroutine names it as the stack, so that
 * what is awaited in place, and the message about an overflow, look at the right one; and a suspension point keeps
 * the side stack's registers in that record as it would keep the task's own. When it is left, the record gets back what
 * it said before (struct weft__place). The task may meanwhile have moved to another thread, so nothing of a
 * thread is kept over a switch.
 *
 * What runs is found from there: the header of a side stack names the object it belongs to. The record of a plain
 * thread is a thread-local variable instead; so it is in a step of a stackless task, which ends on the thread
 * where it began.
 */
#ifndef WEFT_RUNTIME_SIDE_STACK_H
#define WEFT_RUNTIME_SIDE_STACK_H

#include <stdbool.h>

#include "runtime/annotate.h"
#include "runtime/runtime.h"
#include "runtime/task.h"
#include "runtime/worker.h"

enum weft__side_kind { WEFT__GENERATOR, WEFT__COROUTINE };

enum weft__side_state { WEFT__SIDE_NEW, WEFT__SIDE_SUSPENDED, WEFT__SIDE_RUNNING, WEFT__SIDE_FINISHED };

/*
 * The first member of a generator or coroutine. `state` may be looked at by any thread: whoever changes it to RUNNING
 * owns the rest until the context that is switched to changes it again, which comes after the registers
 * were saved.
 */
struct weft__side {
    _Atomic uint32_t state; /* enum weft__side_state */
    uint32_t kind;
    void *context;             /* its stack pointer while it does not run */
    struct weft__stack *stack; /* NULL before it first runs and after it has finished */
    size_t stack_size;         /* what was asked for */
};

/* Where a side stack was entered from, and what the runtime believed there. */
struct weft__place {
    weft_task *root; /* NULL: a plain thread, or a step of a stackless task */
    weft_task *task; /* the innermost task of root then; of a step, its task; NULL: a plain thread */
    union {
        struct weft__stack *stack; /* of root */
        struct weft__side *outer;  /* of the thread */
    };
    char *in_place_limit;
    weft_timeout *scopes;
    uint16_t mask;
#ifdef WEFT__TSAN
    void *tsan_fiber;
#endif
#ifdef WEFT__ASAN
    const void *asan_bottom;
    size_t asan_size;
#endif
};

/* ---- stacks ---- */

/* The header's cache line has room behind struct weft__stack. Nobody writes there in the stacks of tasks, so
 * it is zero in them, as the kernel made it. */
struct weft__side_header {
    struct weft__stack stack;
    struct weft__side *owner;
};

_Static_assert(sizeof(struct weft__side_header) <= 64, "the header of a stack is one cache line");

static inline struct weft__side *weft__side_owner(const struct weft__stack *stack)
{
    return ((const struct weft__side_header *)stack)->owner;
}

/* What a side stack calls first, with the object and what the switch passes on. It must not return. */
typedef void weft__side_main(struct weft__side *side, intptr_t value);

/* Give it a stack on which `main` will run. False: out of memory. Any thread. */
bool weft__side_stack_get(struct weft__side *side, weft__side_main *main);

/* Give the stack back, which nobody runs on. Any thread. */
void weft__side_stack_put(struct weft__side *side);

/* ---- the switch ---- */

/*
 * Keep the caller in *from and go on with `to`, where the switch returns `value`. The second one then stores `state` in
 * *word (release), when the registers have been saved: from then on another thread may go on with *from. The third
 * one leaves for good: `to` first calls last(side), whose result the switch returns there.
 *
 * They return by a jump, and are to be called as the last act of a public function, which the compiler makes a jump as
 * well. The processor predicts where a return goes from the calls it saw, on whatever stack, so one made
 * after a switch is predicted wrong: 12 ns for a value of a generator with one such return, 19 with two, 5.5 without.
 * (Returns of functions around these calls pay once for having been overtaken.) One copy for each direction, so that
 * the jump of each mostly has one target.
 *
 * The floating-point control words are not switched.
 */
intptr_t weft__side_enter(void **from, void *to, intptr_t value) __attribute__((visibility("hidden")));
intptr_t weft__side_suspend(void **from, void *to, intptr_t value, _Atomic uint32_t *word, uint32_t state)
    __attribute__((visibility("hidden")));
void weft__side_leave(void *to, intptr_t (*last)(struct weft__side *side), struct weft__side *side)
    __attribute__((visibility("hidden")));

/* Other names of the first two, for last acts of functions that return an int. */
int weft__side_enter_int(void **from, void *to, intptr_t value) __attribute__((visibility("hidden")));
int weft__side_suspend_int(void **from, void *to, intptr_t value, _Atomic uint32_t *word, uint32_t state)
    __attribute__((visibility("hidden")));

/* ---- which one runs ---- */

/* The offset of the thread's variable from the thread pointer (see weft__driver). */
extern intptr_t weft__side_offset __attribute__((visibility("hidden")));

/* What runs on the calling thread outside tasks. Not to be kept over a switch. */
static inline struct weft__side **weft__side_of_thread(void)
{
    char *thread_pointer;

#if defined(__x86_64__)
    __asm__ volatile("movq %%fs:0, %0" : "=r"(thread_pointer));
#else
    __asm__ volatile("mrs %0, tpidr_el0" : "=r"(thread_pointer));
#endif
    return (struct weft__side **)(thread_pointer + weft__side_offset);
}

/* The coroutine whose stack the caller runs on. NULL: a thread's own, or a side stack entered from there. */
static inline weft_task *weft__side_root(void)
{
    struct weft__driver *driver = weft__driver();
    weft_task *root = driver ? driver->coroutine : NULL;

    return root && root->stack ? root : NULL;
}

/* For one that has no such coroutine: the stackless task in whose step it runs, or NULL. */
static inline weft_task *weft__side_step(void)
{
    struct weft__driver *driver = weft__driver();

    return driver && driver->coroutine ? driver->coroutine->current : NULL;
}

/* The owner of the stack that the caller runs on, or NULL. */
static inline struct weft__side *weft__side_self(void)
{
    weft_task *root = weft__side_root();

    return root ? weft__side_owner(root->stack) : *weft__side_of_thread();
}

/* Does the caller belong to what entered from there, rather than being a task that runs in place on its stack? */
static inline bool weft__place_is_callers(const struct weft__place *place)
{
    return !place->root || place->root->current == place->task;
}

/* Are the scopes those of the entry again? What lies between would be the task's while the side stack sleeps. */
static inline bool weft__place_is_balanced(const struct weft__place *place)
{
    return !place->task || (place->task->scopes == place->scopes && place->task->mask == place->mask);
}

/* Keeps the compiler from joining the stores around it to one of a vector, into which it would first move the values:
 * with that a value of a generator takes 9.6 ns inside a task, without 8.0. */
static inline __attribute__((always_inline)) void weft__store_apart(void)
{
    __asm__ volatile("" ::: "memory");
}

/* Let the place, which has been entered from, name this stack. `root`: its own. */
static inline __attribute__((always_inline)) void weft__place_turn(weft_task *root, struct weft__side *side)
{
    char *in_place_limit;

    if (!root) {
        *weft__side_of_thread() = side;
        return;
    }
    in_place_limit = side->stack->low + root->runtime->config.stack_size;
    root->stack = side->stack;
    weft__store_apart();
    root->in_place_limit = in_place_limit;
}

/* The caller is about to switch to a side stack. */
static inline __attribute__((always_inline)) void weft__place_enter(struct weft__place *place,
                                                                    struct weft__side *side)
{
    weft_task *root = weft__side_root();

#ifdef WEFT__TSAN
    place->tsan_fiber = __tsan_get_current_fiber();
#endif
    if (root) {
        weft_task *task = root->current;
        struct weft__stack *stack = root->stack;
        char *in_place_limit = root->in_place_limit;
        weft_timeout *scopes = task->scopes;

        place->mask = task->mask;
        place->root = root;
        weft__store_apart();
        place->task = task;
        weft__store_apart();
        place->stack = stack;
        weft__store_apart();
        place->in_place_limit = in_place_limit;
        weft__store_apart();
        place->scopes = scopes;
    } else {
        weft_task *task = weft__side_step();

        place->root = NULL;
        place->task = task;
        place->outer = *weft__side_of_thread();
        if (task) {
            place->scopes = task->scopes;
            place->mask = task->mask;
        }
    }
    weft__place_turn(root, side);
}

/* The caller is about to switch back there. */
static inline __attribute__((always_inline)) void weft__place_leave(const struct weft__place *place)
{
    weft_task *root = place->root;

    if (root) {
        char *in_place_limit = place->in_place_limit;

        root->stack = place->stack;
        weft__store_apart();
        root->in_place_limit = in_place_limit;
    } else {
        *weft__side_of_thread() = place->outer;
    }
}

/* ---- what the checking tools are told (annotate.h) ---- */

#if defined(WEFT__TSAN) || defined(WEFT__ASAN)
#define WEFT__SIDE_ANNOTATED 1
#endif

/*
 * Just before a switch to a side stack, or (NULL) back to the place. `fake` as in weft__annotate_leave. `published`: the
 * one whose state weft__side_suspend will change, which ThreadSanitizer does not see; from here on the
 * caller must not look into it.
 */
static inline __attribute__((always_inline)) void weft__side_annotate_leave(void **fake, struct weft__side *to,
                                                                            const struct weft__place *place,
                                                                            struct weft__side *published)
{
#ifdef WEFT__ASAN
    struct weft__stack *stack = to ? to->stack : NULL;

    if (stack)
        __sanitizer_start_switch_fiber(fake, stack->low, (size_t)((char *)stack->start - stack->low));
    else
        __sanitizer_start_switch_fiber(fake, place->asan_bottom, place->asan_size);
#endif
#ifdef WEFT__TSAN
    void *fiber = to ? to->stack->tsan_fiber : place->tsan_fiber;

    if (published)
        __tsan_release(&published->state);
    __tsan_switch_to_fiber(fiber, 0);
#endif
    (void)fake;
    (void)to;
    (void)place;
    (void)published;
}

/* Just after a switch; `entered`: the place, if the switch may have come from there. */
static inline __attribute__((always_inline)) void weft__side_annotate_enter(void *fake, struct weft__place *entered)
{
#ifdef WEFT__ASAN
    if (entered)
        __sanitizer_finish_switch_fiber(fake, &entered->asan_bottom, &entered->asan_size);
    else
        __sanitizer_finish_switch_fiber(fake, NULL, NULL);
#endif
    (void)fake;
    (void)entered;
}

#endif
