/*
 * What the objects with waiters share: a FIFO list of waits over the public weft_waiters, a lock that lies in
 * one bit of the object's state word, and settling. Used from any thread by whatever has waiters: the objects of
 * <weft/sync.h>, promises, channels, queues, select.
 *
 * Detach, unlock, settle
 *
 * The list is read and written under the object's lock only. park.h settles a wait under that lock too; here the
 * waker only takes the wait out of the list under the lock (detaches it), leaves the lock, and settles then.
 * The reason: a waiter that has been settled may return and free the object, and the waker would still have to
 * store into its lock. So the rule is: the store that leaves the lock is the waker's last access to the object,
 * weft__settle its last access to the wait.
 *
 * What has to be shown is that a wait outlives its settling, though its waiter may give up at any time.
 *
 *   1. A waiter leaves weft__wait with an error, sees that its wait is not settled, and takes the object's lock.
 *      Under it, it can tell whether the wait was detached (how, is the object's own matter: weft__waiters_pop
 *      marks it, a promise that is set has detached everything, an event counts).
 *   2. Not detached: the waiter takes it out itself, under the lock. No waker has seen it or can see it now.
 *   3. Detached: some waker is between leaving the lock and weft__settle, and will settle it whatever happens. The
 *      waiter stays in weft__wait_out until then, and returns with the grant: nothing is swallowed. The
 *      cancellation that it does not report is reported by the task's next suspension point.
 *
 * So a wait's frame ends after 2 (no waker knows it) or after it was settled (no waker touches it again). A chain
 * of detached waits can be walked if the next one is read before this one is settled: the next one is not settled
 * yet, so it is there.
 */
#ifndef WEFT_RUNTIME_WAITERS_H
#define WEFT_RUNTIME_WAITERS_H

#include "runtime/lock.h"
#include "runtime/park.h"

#include <stdbool.h>
#include <weft/scope.h>
#include <weft/sync.h>

/* ---- the list ---- */

/* weft__wait.kind, where the object has no other use for it: set once the wait is out of the list. */
enum { WEFT__QUEUED = 0, WEFT__DETACHED = 1 };

static inline bool weft__waiters_empty(const weft_waiters *list)
{
    return list->head == NULL;
}

static inline void weft__waiters_push(weft_waiters *list, struct weft__wait *wait)
{
    struct weft__wait *last = list->tail;

    wait->next = NULL;
    wait->prev = last;
    if (last != NULL)
        last->next = wait;
    else
        list->head = wait;
    list->tail = wait;
}

static inline void weft__waiters_remove(weft_waiters *list, struct weft__wait *wait)
{
    if (wait->prev != NULL)
        wait->prev->next = wait->next;
    else
        list->head = wait->next;
    if (wait->next != NULL)
        wait->next->prev = wait->prev;
    else
        list->tail = wait->prev;
}

/* Detach the first wait, and mark it as detached; NULL if there is none. */
static inline struct weft__wait *weft__waiters_pop(weft_waiters *list)
{
    struct weft__wait *first = list->head;

    if (first == NULL)
        return NULL;
    weft__waiters_remove(list, first);
    first->kind = WEFT__DETACHED;
    return first;
}

/* Detach all, as a chain, without marking them: that would be a cache miss for each, under the lock. */
static inline struct weft__wait *weft__waiters_take(weft_waiters *list)
{
    struct weft__wait *first = list->head;

    list->head = NULL;
    list->tail = NULL;
    return first;
}

/* Detach the waits from the first to `last`, as a chain. Who calls this marks them. */
static inline struct weft__wait *weft__waiters_cut(weft_waiters *list, struct weft__wait *last)
{
    struct weft__wait *first = list->head, *rest = last->next;

    last->next = NULL;
    list->head = rest;
    if (rest != NULL)
        rest->prev = NULL;
    else
        list->tail = NULL;
    return first;
}

/* ---- the lock in a state word ---- */

/*
 * The lowest bit of the word is a spinlock over the object's list and over the other bits. While it is held
 * nobody else writes the word, so that one store changes the state and leaves the lock: whoever sees the new
 * state knows that the object is not touched any more.
 */
enum { WEFT__WORD_LOCK = 1 };

static inline _Atomic uint32_t *weft__word_of(const uint32_t *word)
{
    return (_Atomic uint32_t *)(uintptr_t)word;
}

static __attribute__((noinline, unused)) uint32_t weft__word_contended(_Atomic uint32_t *word)
{
    for (unsigned spins = 0;; spins++) {
        uint32_t state = atomic_load_explicit(word, memory_order_relaxed);

        if (!(state & WEFT__WORD_LOCK)) {
            /* acquire: pairs with the release in weft__word_leave */
            if (atomic_compare_exchange_weak_explicit(word, &state, state | WEFT__WORD_LOCK, memory_order_acquire,
                                                      memory_order_relaxed))
                return state;
        } else if (spins < 64) {
            weft__pause();
        } else {
            /* As in lock.h: the holder may have lost its processor. */
            sched_yield();
        }
    }
}

/* Enter; returns the other bits. */
static inline uint32_t weft__word_enter(_Atomic uint32_t *word)
{
    uint32_t state = atomic_load_explicit(word, memory_order_relaxed) & ~(uint32_t)WEFT__WORD_LOCK;

    /* acquire: pairs with the release in weft__word_leave */
    if (__builtin_expect(atomic_compare_exchange_strong_explicit(word, &state, state | WEFT__WORD_LOCK,
                                                                 memory_order_acquire, memory_order_relaxed),
                         1))
        return state;
    return weft__word_contended(word);
}

/* Leave, with new other bits. */
static inline void weft__word_leave(_Atomic uint32_t *word, uint32_t state)
{
    /* release: pairs with the acquire in weft__word_enter, and with those that read the state without the lock */
    atomic_store_explicit(word, state, memory_order_release);
}

/* ---- giving up ---- */

/*
 * Locked: take a wait out of the list, for its waiter; leave with `state`, where the bit `queued` says whether the list
 * is not empty.
 */
static inline void weft__waiters_forsake(_Atomic uint32_t *word, uint32_t state, weft_waiters *list,
                                         struct weft__wait *wait, uint32_t queued)
{
    weft__waiters_remove(list, wait);
    if (weft__waiters_empty(list))
        state &= ~queued;
    weft__word_leave(word, state);
}

/* A waiter gives up, on an object whose waits are marked one by one (weft__waiters_pop). False: it was detached. */
static inline bool weft__withdraw_marked(_Atomic uint32_t *word, weft_waiters *list, struct weft__wait *wait,
                                         uint32_t queued)
{
    uint32_t state = weft__word_enter(word);

    if (wait->kind == WEFT__DETACHED) {
        weft__word_leave(word, state);
        return false;
    }
    weft__waiters_forsake(word, state, list, wait, queued);
    return true;
}

/*
 * The same for objects that also detach all waits at once, unmarked (weft__waiters_take). They count how often, in
 * steps of WEFT__GENERATION, and each wait remembers in `kind` the count at which it was queued: it is in the list
 * exactly as long as the count stands still and it is not marked; no count is odd, as the mark is. (To deceive a
 * waiter, the count would have to go round once, 2^31 times all, between its look at its outcome and its entering the
 * lock, with the waker that detached it stopped all that time.)
 */
enum { WEFT__GENERATION = 2 };

static inline bool weft__withdraw_counted(_Atomic uint32_t *word, weft_waiters *list, struct weft__wait *wait,
                                          const uint32_t *generation, uint32_t queued)
{
    uint32_t state = weft__word_enter(word);

    if (wait->kind != *generation) {
        weft__word_leave(word, state);
        return false;
    }
    weft__waiters_forsake(word, state, list, wait, queued);
    return true;
}

/* ---- settling what was detached; never under the lock ---- */

static inline void weft__wake(struct weft__wait *wait, enum weft__outcome outcome)
{
    weft__ready(weft__settle(wait, outcome));
}

/* Settle a chain in its order, each wait's slot set to `slot`. */
static inline void weft__wake_chain(struct weft__wait *first, enum weft__outcome outcome, void *slot)
{
    for (struct weft__wait *wait = first, *next; wait != NULL; wait = next) {
        next = wait->next;
        wait->slot = slot;
        weft__wake(wait, outcome);
    }
}

/*
 * Wait for the settling of a wait that is known to be detached. The waker may be preempted, or busy with the
 * thousands before this one: so this parks, masked, instead of spinning.
 */
static inline void weft__wait_out(struct weft__wait *wait)
{
    bool masked = weft__mask_begin();

    while (weft__outcome_of(wait) == WEFT__WAITING) {
        if (weft__wait(wait) < 0)
            sched_yield();
    }
    if (masked)
        weft_mask_end();
}

#endif
