/*
 * weft_sem: permits, first in, first out, handed over directly. Any thread; knows only waitable.h.
 *
 * The state word: bit 0 the lock over the list and the word (waiters.h), QUEUED (the list is not empty), and the
 * permits that can be had, in steps of PERMIT. Invariant, whenever bit 0 is clear: QUEUED implies no permits.
 *
 *   acquire, permits there:    n -> n - PERMIT             one compare-and-swap
 *   release, nobody waits:     n -> n + PERMIT             one compare-and-swap
 *   acquire otherwise:         enter; push; leave with QUEUED
 *   release otherwise:         enter; pop; leave, with QUEUED if more wait; settle the one popped
 *   a waiter gives up:         enter; take the wait out, unless it was detached; leave
 *
 * Why nobody overtakes: while somebody is in the list there are no permits in the word, since a release hands its
 * permit on. Why no permit is lost: a release adds to the word only if it sees neither bit 0 nor QUEUED, and a
 * waiter that enters after it finds the permit; one that was detached returns with it (waiters.h).
 *
 * `limit` is written by the initialisers only.
 */
#include "runtime/waitable.h"

#include <weft/stackless.h>

enum { QUEUED = 2, PERMIT = 4, PERMITS_MOST = (1 << 30) - 1 };

static int init(weft_sem *sem, uint32_t permits, uint32_t limit)
{
    if (permits > PERMITS_MOST)
        return -EINVAL;
    *sem = (weft_sem){.state = permits * PERMIT, .limit = limit};
    return 0;
}

int weft_sem_init(weft_sem *sem, uint32_t permits)
{
    return init(sem, permits, 0);
}

int weft_sem_init_bounded(weft_sem *sem, uint32_t permits)
{
    return init(sem, permits, permits + 1);
}

/* ---- acquiring ---- */

static inline bool take_if_there(weft_sem *sem)
{
    _Atomic uint32_t *word = weft__word_of(&sem->state);
    uint32_t state = atomic_load_explicit(word, memory_order_relaxed);

    while (state >= PERMIT && !(state & WEFT__WORD_LOCK)) {
        /* acquire: pairs with the release in weft_sem_release */
        if (atomic_compare_exchange_weak_explicit(word, &state, state - PERMIT, memory_order_acquire,
                                                  memory_order_relaxed))
            return true;
    }
    return false;
}

static int begin(void *object, struct weft__wait *wait)
{
    weft_sem *sem = object;
    _Atomic uint32_t *word = weft__word_of(&sem->state);
    uint32_t state = weft__word_enter(word);

    if (state >= PERMIT) {
        weft__word_leave(word, state - PERMIT);
        return 0;
    }
    wait->kind = WEFT__QUEUED;
    weft__waiters_push(&sem->waiters, wait);
    weft__word_leave(word, QUEUED);
    return WEFT__BEGUN;
}

static bool withdraw(void *object, struct weft__wait *wait)
{
    weft_sem *sem = object;

    return weft__withdraw_marked(weft__word_of(&sem->state), &sem->waiters, wait, QUEUED);
}

static const struct weft__waitable waitable = {begin, withdraw};

int weft_sem_acquire(weft_sem *sem)
{
    struct weft__wait wait = {0};
    int rc = weft__suspend_check();

    if (__builtin_expect(rc < 0, 0))
        return rc;
    if (__builtin_expect(take_if_there(sem), 1))
        return 0;
    return weft__wait_for(&waitable, sem, &wait);
}

intptr_t weft_async_sem(weft_sem *sem)
{
    return weft__async(&waitable, sem, NULL, NULL, NULL);
}

int weft_sem_try_acquire(weft_sem *sem)
{
    _Atomic uint32_t *word = weft__word_of(&sem->state);
    uint32_t state;

    if (__builtin_expect(take_if_there(sem), 1))
        return 0;
    if (!(atomic_load_explicit(word, memory_order_relaxed) & WEFT__WORD_LOCK))
        return -EAGAIN;
    /* Somebody is inside: there may be permits all the same. */
    state = weft__word_enter(word);
    weft__word_leave(word, state >= PERMIT ? state - PERMIT : state);
    return state >= PERMIT ? 0 : -EAGAIN;
}

/* ---- releasing ---- */

static inline bool is_full(const weft_sem *sem, uint32_t state)
{
    uint32_t most = sem->limit == 0 ? PERMITS_MOST : sem->limit - 1;

    return state / PERMIT >= most;
}

static __attribute__((noinline)) int release_contended(weft_sem *sem)
{
    _Atomic uint32_t *word = weft__word_of(&sem->state);
    uint32_t state = weft__word_enter(word);
    struct weft__wait *next;

    if (is_full(sem, state)) {
        weft__word_leave(word, state);
        return -EOVERFLOW;
    }
    next = weft__waiters_pop(&sem->waiters);
    if (next == NULL) { /* it gave up meanwhile */
        weft__word_leave(word, state + PERMIT);
        return 0;
    }
    weft__word_leave(word, weft__waiters_empty(&sem->waiters) ? 0 : QUEUED);
    weft__wake(next, WEFT__GRANTED);
    return 0;
}

int weft_sem_release(weft_sem *sem)
{
    _Atomic uint32_t *word = weft__word_of(&sem->state);
    uint32_t state = atomic_load_explicit(word, memory_order_relaxed);

    while (!(state & (WEFT__WORD_LOCK | QUEUED)) && !is_full(sem, state)) {
        /* release: pairs with the acquire in take_if_there */
        if (atomic_compare_exchange_weak_explicit(word, &state, state + PERMIT, memory_order_release,
                                                  memory_order_relaxed))
            return 0;
    }
    return release_contended(sem);
}

uint32_t weft_sem_value(const weft_sem *sem)
{
    /* acquire: pairs with the release in weft_sem_release, for those who act on the number */
    return atomic_load_explicit(weft__word_of(&sem->state), memory_order_acquire) / PERMIT;
}
