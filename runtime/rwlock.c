/*
 * weft_rwlock: many readers or one writer, first in, first out, handed over directly. Any thread; knows only
 * waitable.h.
 *
 * The state word: bit 0 the lock over the list and the word (waiters.h), QUEUED (the list is not empty), WRITER, and
 * the readers inside, in steps of READER. Invariants, whenever bit 0 is clear:
 *
 *   - WRITER and readers exclude each other;
 *   - QUEUED implies that somebody holds the lock, and that the first of the list may not come in besides those:
 *     it is a writer, or a writer holds the lock (or the readers are READERS_MOST).
 *
 *   read, no writer anywhere:    n -> n + READER         one compare-and-swap
 *   write, nobody there:         0 -> WRITER             one compare-and-swap
 *   unlock, nobody waits:        n -> n - READER, WRITER -> 0
 *   lock otherwise:              enter; push; leave with QUEUED
 *   unlock, give up otherwise:   enter; take out what leaves; admit; leave; settle those admitted
 *
 * Every change that may let somebody in goes through `admit`, which restores the second invariant: it lets in the
 * first writer, or all readers that stand side by side at the head. So a writer that gives up lets the readers
 * in that queued behind it only for its sake. Nobody overtakes, since both fast ways in fail while QUEUED is
 * there; no wake-up is lost, since the fast ways out fail then as well.
 */
#include "runtime/waitable.h"

#include <weft/stackless.h>

enum { QUEUED = 2, WRITER = 4, READER = 8 };

#define READERS_MOST (~(uint32_t)0 / READER * READER)

/* weft__wait.kind; detached ones, of either kind, are WEFT__DETACHED. */
enum { WANTS_READ = WEFT__QUEUED, WANTS_WRITE = 2 };

/* ---- who may come in; under the lock ---- */

static inline bool may_read(uint32_t state)
{
    return !(state & (QUEUED | WRITER)) && state < READERS_MOST;
}

/* The last of the readers at the head that come in together, all marked and counted; NULL: none may. */
static struct weft__wait *admit_readers(const weft_rwlock *rwlock, uint32_t *state)
{
    struct weft__wait *wait = rwlock->waiters.head, *last = NULL;

    while (wait != NULL && wait->kind == WANTS_READ && (*state & READERS_MOST) != READERS_MOST) {
        wait->kind = WEFT__DETACHED;
        *state += READER;
        last = wait;
        wait = wait->next;
    }
    return last;
}

/* Detach those that may come in now, as a chain to be settled without the lock. *state is brought up to date. */
static struct weft__wait *admit(weft_rwlock *rwlock, uint32_t *state)
{
    struct weft__wait *first = rwlock->waiters.head, *last = NULL;

    *state &= ~(uint32_t)QUEUED;
    if (first == NULL)
        return NULL;
    if (first->kind == WANTS_WRITE && *state == 0) {
        first->kind = WEFT__DETACHED;
        *state = WRITER;
        last = first;
    } else if (!(*state & WRITER)) {
        last = admit_readers(rwlock, state);
    }
    first = last == NULL ? NULL : weft__waiters_cut(&rwlock->waiters, last);
    if (!weft__waiters_empty(&rwlock->waiters))
        *state |= QUEUED;
    return first;
}

/* ---- locking ---- */

static inline bool read_if_free(weft_rwlock *rwlock)
{
    _Atomic uint32_t *word = weft__word_of(&rwlock->state);
    uint32_t state = atomic_load_explicit(word, memory_order_relaxed);

    while (!(state & WEFT__WORD_LOCK) && may_read(state)) {
        /* acquire: pairs with the release of the writer's unlock before */
        if (atomic_compare_exchange_weak_explicit(word, &state, state + READER, memory_order_acquire,
                                                  memory_order_relaxed))
            return true;
    }
    return false;
}

static inline bool write_if_free(weft_rwlock *rwlock)
{
    uint32_t state = 0;

    /* acquire: pairs with the release of all the unlocks before */
    return atomic_compare_exchange_strong_explicit(weft__word_of(&rwlock->state), &state, WRITER,
                                                   memory_order_acquire, memory_order_relaxed);
}

static int queue_up(weft_rwlock *rwlock, struct weft__wait *wait, uint32_t kind, uint32_t state)
{
    wait->kind = kind;
    weft__waiters_push(&rwlock->waiters, wait);
    weft__word_leave(weft__word_of(&rwlock->state), state | QUEUED);
    return WEFT__BEGUN;
}

static int begin_read(void *object, struct weft__wait *wait)
{
    weft_rwlock *rwlock = object;
    _Atomic uint32_t *word = weft__word_of(&rwlock->state);
    uint32_t state = weft__word_enter(word);

    if (may_read(state)) {
        weft__word_leave(word, state + READER);
        return 0;
    }
    if (!(state & (QUEUED | WRITER))) {
        weft__word_leave(word, state);
        return -EAGAIN;
    }
    return queue_up(rwlock, wait, WANTS_READ, state);
}

static int begin_write(void *object, struct weft__wait *wait)
{
    weft_rwlock *rwlock = object;
    _Atomic uint32_t *word = weft__word_of(&rwlock->state);
    uint32_t state = weft__word_enter(word);

    if (state == 0) {
        weft__word_leave(word, WRITER);
        return 0;
    }
    return queue_up(rwlock, wait, WANTS_WRITE, state);
}

static bool withdraw(void *object, struct weft__wait *wait)
{
    weft_rwlock *rwlock = object;
    _Atomic uint32_t *word = weft__word_of(&rwlock->state);
    uint32_t state = weft__word_enter(word);
    struct weft__wait *admitted;

    if (wait->kind == WEFT__DETACHED) {
        weft__word_leave(word, state);
        return false;
    }
    weft__waiters_remove(&rwlock->waiters, wait);
    admitted = admit(rwlock, &state);
    weft__word_leave(word, state);
    weft__wake_chain(admitted, WEFT__GRANTED, NULL);
    return true;
}

static const struct weft__waitable reading = {begin_read, withdraw};
static const struct weft__waitable writing = {begin_write, withdraw};

int weft_rwlock_rdlock(weft_rwlock *rwlock)
{
    struct weft__wait wait = {0};
    int rc = weft__suspend_check();

    if (__builtin_expect(rc < 0, 0))
        return rc;
    if (__builtin_expect(read_if_free(rwlock), 1))
        return 0;
    return weft__wait_for(&reading, rwlock, &wait);
}

int weft_rwlock_wrlock(weft_rwlock *rwlock)
{
    struct weft__wait wait = {0};
    int rc = weft__suspend_check();

    if (__builtin_expect(rc < 0, 0))
        return rc;
    if (__builtin_expect(write_if_free(rwlock), 1))
        return 0;
    return weft__wait_for(&writing, rwlock, &wait);
}

intptr_t weft_async_rdlock(weft_rwlock *rwlock)
{
    return weft__async(&reading, rwlock, NULL, NULL, NULL);
}

intptr_t weft_async_wrlock(weft_rwlock *rwlock)
{
    return weft__async(&writing, rwlock, NULL, NULL, NULL);
}

int weft_rwlock_tryrdlock(weft_rwlock *rwlock)
{
    _Atomic uint32_t *word = weft__word_of(&rwlock->state);
    uint32_t state;

    if (__builtin_expect(read_if_free(rwlock), 1))
        return 0;
    if (!(atomic_load_explicit(word, memory_order_relaxed) & WEFT__WORD_LOCK))
        return -EBUSY;
    /* Somebody is inside the word, which does not mean that a writer is inside the lock. */
    state = weft__word_enter(word);
    weft__word_leave(word, may_read(state) ? state + READER : state);
    return may_read(state) ? 0 : -EBUSY;
}

int weft_rwlock_trywrlock(weft_rwlock *rwlock)
{
    return write_if_free(rwlock) ? 0 : -EBUSY;
}

/* ---- unlocking ---- */

/* Without bit 0, and somebody holds the lock. */
static inline uint32_t without_one_holder(uint32_t state)
{
    return state & WRITER ? state - WRITER : state - READER;
}

static inline bool is_held(uint32_t state)
{
    return (state & (WRITER | READERS_MOST)) != 0;
}

static __attribute__((noinline)) int unlock_contended(weft_rwlock *rwlock)
{
    _Atomic uint32_t *word = weft__word_of(&rwlock->state);
    uint32_t state = weft__word_enter(word);
    struct weft__wait *admitted;

    if (!is_held(state)) {
        weft__word_leave(word, state);
        return -EPERM;
    }
    state = without_one_holder(state);
    admitted = admit(rwlock, &state);
    weft__word_leave(word, state);
    weft__wake_chain(admitted, WEFT__GRANTED, NULL);
    return 0;
}

int weft_rwlock_unlock(weft_rwlock *rwlock)
{
    _Atomic uint32_t *word = weft__word_of(&rwlock->state);
    uint32_t state = atomic_load_explicit(word, memory_order_relaxed);

    while (!(state & (WEFT__WORD_LOCK | QUEUED)) && is_held(state)) {
        /* release: pairs with the acquire of the lock that comes next */
        if (atomic_compare_exchange_weak_explicit(word, &state, without_one_holder(state), memory_order_release,
                                                  memory_order_relaxed))
            return 0;
    }
    return unlock_contended(rwlock);
}
