/*
 * A spinlock for sections of a few dozen instructions that make no system call. Any thread.
 */
#ifndef WEFT_RUNTIME_LOCK_H
#define WEFT_RUNTIME_LOCK_H

#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic uint32_t weft__lock;

static inline void weft__pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static inline int weft__lock_try(weft__lock *lock)
{
    /* acquire: pairs with the release in weft__lock_leave */
    return atomic_exchange_explicit(lock, 1, memory_order_acquire) == 0;
}

static __attribute__((noinline, unused)) void weft__lock_contended(weft__lock *lock)
{
    for (unsigned spins = 0;; spins++) {
        /* The holder may have lost its processor: spinning on would only keep it from getting it back. */
        if (spins < 64)
            weft__pause();
        else
            sched_yield();
        if (atomic_load_explicit(lock, memory_order_relaxed) == 0 && weft__lock_try(lock))
            return;
    }
}

static inline void weft__lock_enter(weft__lock *lock)
{
    if (__builtin_expect(!weft__lock_try(lock), 0))
        weft__lock_contended(lock);
}

static inline void weft__lock_leave(weft__lock *lock)
{
    atomic_store_explicit(lock, 0, memory_order_release);
}

/* The public headers are C++ too and hold their locks as uint32_t. */
static inline weft__lock *weft__lock_of(uint32_t *word)
{
    return (weft__lock *)word;
}

#endif
