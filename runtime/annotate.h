/*
 * What the checking tools must be told about stacks: ThreadSanitizer, AddressSanitizer, valgrind. Everything
 * here is empty in an ordinary build, but for a look whether valgrind runs it. Called by the worker around each switch.
 */
#ifndef WEFT_RUNTIME_ANNOTATE_H
#define WEFT_RUNTIME_ANNOTATE_H

#include "runtime/observe.h"
#include "runtime/stack.h"

#if defined(__SANITIZE_THREAD__)
#define WEFT__TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WEFT__TSAN 1
#endif
#endif

#if defined(__SANITIZE_ADDRESS__)
#define WEFT__ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WEFT__ASAN 1
#endif
#endif

#ifdef WEFT__TSAN
#include <sanitizer/tsan_interface.h>
#endif
#ifdef WEFT__ASAN
#include <pthread.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(HAVE_VALGRIND) && !defined(WEFT__TSAN) && !defined(WEFT__ASAN)
#define WEFT__VALGRIND 1
#include <valgrind/valgrind.h>
#endif

/* The tools' idea of a thread's own stack, kept by its driver. */
struct weft__annotated_thread {
    void *tsan_fiber;
    const void *asan_bottom;
    size_t asan_size;
};

/* A stack is about to be started on. */
static inline void weft__annotate_stack_begin(struct weft__stack *stack)
{
#ifdef WEFT__TSAN
    if (!stack->tsan_fiber)
        stack->tsan_fiber = __tsan_create_fiber(0);
#endif
#ifdef WEFT__VALGRIND
    if (weft__process.on_valgrind && !stack->valgrind_id)
        stack->valgrind_id = VALGRIND_STACK_REGISTER(stack->low, stack->start) + 1;
#endif
    (void)stack;
}

/* A stack goes back to the pool, where its header may be lost. */
static inline void weft__annotate_stack_end(struct weft__stack *stack)
{
#ifdef WEFT__TSAN
    if (stack->tsan_fiber)
        __tsan_destroy_fiber(stack->tsan_fiber);
    stack->tsan_fiber = NULL;
#endif
#ifdef WEFT__VALGRIND
    if (weft__process.on_valgrind && stack->valgrind_id) {
        VALGRIND_STACK_DEREGISTER(stack->valgrind_id - 1);
        stack->valgrind_id = 0;
    }
#endif
    (void)stack;
}

/*
 * Just before the switch. `fake` keeps AddressSanitizer's fake stack of the one that is left; NULL: it will never
 * be resumed. `to` NULL: to the thread's own stack.
 */
static inline __attribute__((always_inline)) void weft__annotate_leave(void **fake, struct weft__stack *to,
                                                                       const struct weft__annotated_thread *thread)
{
#ifdef WEFT__ASAN
    if (to)
        __sanitizer_start_switch_fiber(fake, to->low, (size_t)((char *)to->start - to->low));
    else
        __sanitizer_start_switch_fiber(fake, thread->asan_bottom, thread->asan_size);
#endif
#ifdef WEFT__TSAN
    __tsan_switch_to_fiber(to ? to->tsan_fiber : thread->tsan_fiber, 0);
#endif
    (void)fake;
    (void)to;
    (void)thread;
}

/* Just after the switch, on the stack that was switched to. */
static inline __attribute__((always_inline)) void weft__annotate_enter(void *fake)
{
#ifdef WEFT__ASAN
    __sanitizer_finish_switch_fiber(fake, NULL, NULL);
#endif
    (void)fake;
}

static inline void weft__annotate_thread_begin(struct weft__annotated_thread *thread)
{
#ifdef WEFT__TSAN
    thread->tsan_fiber = __tsan_get_current_fiber();
#endif
#ifdef WEFT__ASAN
    pthread_attr_t attributes;
    void *bottom;

    if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
        pthread_attr_getstack(&attributes, &bottom, &thread->asan_size);
        thread->asan_bottom = bottom;
        pthread_attr_destroy(&attributes);
    }
#endif
    (void)thread;
}

#endif
