/*
 * weft_mutex: first in, first out, handed over directly. Any thread; knows only waitable.h.
 *
 * The state word: bit 0 the lock over the list and the word (waiters.h), HELD, QUEUED (the list is not empty).
 * Invariant, whenever bit 0 is clear: QUEUED implies HELD, and QUEUED says whether the list is not empty.
 *
 *   lock, nobody there:     0 -> HELD                     one compare-and-swap
 *   unlock, nobody waits:   HELD -> 0                     one compare-and-swap
 *   lock otherwise:         enter; push; leave with HELD | QUEUED
 *   unlock otherwise:       enter; pop; leave with HELD, and QUEUED if more wait; settle the one popped
 *   a waiter gives up:      enter; take the wait out, unless it was detached; leave
 *
 * Why nobody overtakes: a newcomer gets in by 0 -> HELD only, or under bit 0 when the word is 0 otherwise. With
 * somebody in the list the word has HELD until the list is empty, since unlock hands HELD on. Why no wake-up is
 * lost: the holder's HELD -> 0 fails as soon as bit 0 or QUEUED is there; a waiter that enters after it finds 0
 * and takes the mutex. Why the next holder may free the mutex: the last access of an unlock is the one
 * that leaves the word; the hand-over follows it.
 *
 * Spinning. A holder that runs on another worker is mostly gone in less time than a park and a hand-over take,
 * and a queue, once there, is slow to go away: first in, first out makes everybody who comes back queue as well.
 * So a newcomer that finds the mutex held and nobody queued tries for a few microseconds. A holder that has parked
 * itself, or that waits for the newcomer's own worker, will not come back in that time, and that cannot be
 * seen from here; hence `misses`: how often in a row spinning brought nothing. After a few misses only one contention in many tries again.
 */
#include "runtime/waitable.h"

#include <unistd.h>
#include <weft/stackless.h>

enum { HELD = 2, QUEUED = 4 };

/*
 * Pauses between attempts double from 1 to 8: far enough apart that the holder makes progress on its own cache
 * line. 24 attempts are 175 pauses, 4.4 µs at 25 ns a pause: a holder that comes and goes every 10 ns is caught
 * out of the mutex with near certainty, and a park and a wake-up across workers cost several times that.
 */
enum { SPIN_FIRST = 1, SPIN_LONGEST = 8, SPIN_ATTEMPTS = 24 };

/* After MISSES_TO_GIVE_UP in a row, one contention in CONTENTIONS_A_PROBE tries. */
enum { MISSES_TO_GIVE_UP = 4, CONTENTIONS_A_PROBE = 32 };

static bool several_processors(void)
{
    static _Atomic int cached; /* 0 not asked yet, else the number; every thread would store the same */
    int processors = atomic_load_explicit(&cached, memory_order_relaxed);

    if (processors == 0) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);

        processors = online > 1 ? 2 : 1;
        atomic_store_explicit(&cached, processors, memory_order_relaxed);
    }
    return processors > 1;
}

static inline bool take_if_free(weft_mutex *mutex)
{
    uint32_t state = 0;

    /* acquire: pairs with the release of the unlock before */
    return atomic_compare_exchange_strong_explicit(weft__word_of(&mutex->state), &state, HELD, memory_order_acquire,
                                                   memory_order_relaxed);
}

/* Attempts with growing distance; false also as soon as somebody queues. */
static bool spin(weft_mutex *mutex)
{
    unsigned distance = SPIN_FIRST;

    for (unsigned attempt = 0; attempt < SPIN_ATTEMPTS; attempt++) {
        for (unsigned i = 0; i < distance; i++)
            weft__pause();
        if (distance < SPIN_LONGEST)
            distance *= 2;
        if (take_if_free(mutex))
            return true;
        if (atomic_load_explicit(weft__word_of(&mutex->state), memory_order_relaxed) & QUEUED)
            return false;
    }
    return false;
}

/* `misses` is a guess that several threads may overwrite: relaxed. */
static bool spin_if_it_pays(weft_mutex *mutex)
{
    _Atomic uint32_t *word = weft__word_of(&mutex->misses);
    uint32_t misses = atomic_load_explicit(word, memory_order_relaxed);
    bool worth_it = misses < MISSES_TO_GIVE_UP || misses % CONTENTIONS_A_PROBE == 0;

    if (!several_processors())
        return false;
    if (worth_it && spin(mutex)) {
        if (misses != 0)
            atomic_store_explicit(word, 0, memory_order_relaxed);
        return true;
    }
    /* Starts again at the threshold, never below: 0 means that spinning has paid. */
    misses = misses + 1 == 2 * CONTENTIONS_A_PROBE ? CONTENTIONS_A_PROBE : misses + 1;
    atomic_store_explicit(word, misses, memory_order_relaxed);
    return false;
}

static int begin(void *object, struct weft__wait *wait)
{
    weft_mutex *mutex = object;
    _Atomic uint32_t *word = weft__word_of(&mutex->state);
    uint32_t state = weft__word_enter(word);

    if (!(state & HELD)) {
        weft__word_leave(word, HELD);
        return 0;
    }
    wait->kind = WEFT__QUEUED;
    weft__waiters_push(&mutex->waiters, wait);
    weft__word_leave(word, state | QUEUED);
    return WEFT__BEGUN;
}

static bool withdraw(void *object, struct weft__wait *wait)
{
    weft_mutex *mutex = object;

    return weft__withdraw_marked(weft__word_of(&mutex->state), &mutex->waiters, wait, QUEUED);
}

static const struct weft__waitable waitable = {begin, withdraw};

static __attribute__((noinline)) int lock_contended(weft_mutex *mutex)
{
    uint32_t state = atomic_load_explicit(weft__word_of(&mutex->state), memory_order_relaxed);
    struct weft__wait wait = {0};

    if (!(state & QUEUED) && spin_if_it_pays(mutex))
        return 0;
    return weft__wait_for(&waitable, mutex, &wait);
}

int weft_mutex_lock(weft_mutex *mutex)
{
    int rc = weft__suspend_check();

    if (__builtin_expect(rc < 0, 0))
        return rc;
    if (__builtin_expect(take_if_free(mutex), 1))
        return 0;
    return lock_contended(mutex);
}

intptr_t weft_async_lock(weft_mutex *mutex)
{
    return weft__async(&waitable, mutex, NULL, NULL, NULL);
}

int weft_mutex_trylock(weft_mutex *mutex)
{
    return take_if_free(mutex) ? 0 : -EBUSY;
}

static __attribute__((noinline)) int unlock_contended(weft_mutex *mutex)
{
    _Atomic uint32_t *word = weft__word_of(&mutex->state);
    uint32_t state = weft__word_enter(word);
    struct weft__wait *next;

    if (!(state & HELD)) {
        weft__word_leave(word, state);
        return -EPERM;
    }
    next = weft__waiters_pop(&mutex->waiters);
    if (next == NULL) { /* it gave up meanwhile */
        weft__word_leave(word, 0);
        return 0;
    }
    weft__word_leave(word, weft__waiters_empty(&mutex->waiters) ? HELD : HELD | QUEUED);
    weft__wake(next, WEFT__GRANTED);
    return 0;
}

int weft_mutex_unlock(weft_mutex *mutex)
{
    uint32_t state = HELD;

    /* release: pairs with the acquire of the lock that comes next */
    if (__builtin_expect(atomic_compare_exchange_strong_explicit(weft__word_of(&mutex->state), &state, 0,
                                                                 memory_order_release, memory_order_relaxed),
                         1))
        return 0;
    return unlock_contended(mutex);
}
