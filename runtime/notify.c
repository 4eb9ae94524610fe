/*
 * weft_notify: wake one or all, with one permit kept for the next to come. Any thread; knows only waitable.h.
 *
 * The state word: bit 0 the lock over the list and the word (waiters.h), QUEUED (the list is not empty), PERMIT.
 * Invariant, whenever bit 0 is clear: not both of them.
 *
 *   notify, nobody waits:    0 or PERMIT -> PERMIT      one compare-and-swap
 *   wait, with a permit:     PERMIT -> 0                one compare-and-swap
 *   notify otherwise:        enter; pop; leave; settle the one popped
 *   wait otherwise:          enter; push; leave with QUEUED
 *
 * Why a permit that is there is written once more: a task that is notified takes the permit first and looks for its
 * work then. The notifier has put the work down before; were it content to see a permit, that look
 * might pass its store unseen, and the permit be gone. Written again, the permit either carries this notifier's
 * work to whoever takes it (release, acquire), or was taken before and is there anew.
 *
 * All at once are detached unmarked and counted (`generation`; waiters.h, weft__withdraw_counted). A waiter that gives
 * up with a notification on its way waits for that and reports it: none is swallowed.
 */
#include "runtime/waitable.h"

#include <weft/stackless.h>

enum { QUEUED = 2, PERMIT = 4 };

static __attribute__((noinline)) void notify_contended(weft_notify *notify)
{
    _Atomic uint32_t *word = weft__word_of(&notify->state);
    struct weft__wait *first;

    weft__word_enter(word);
    first = weft__waiters_pop(&notify->waiters);
    if (first == NULL) { /* it gave up meanwhile */
        weft__word_leave(word, PERMIT);
        return;
    }
    weft__word_leave(word, weft__waiters_empty(&notify->waiters) ? 0 : QUEUED);
    weft__wake(first, WEFT__GRANTED);
}

void weft_notify_one(weft_notify *notify)
{
    _Atomic uint32_t *word = weft__word_of(&notify->state);
    uint32_t state = atomic_load_explicit(word, memory_order_relaxed);

    while (!(state & (WEFT__WORD_LOCK | QUEUED))) {
        /* release: pairs with the acquire in take_permit */
        if (atomic_compare_exchange_weak_explicit(word, &state, PERMIT, memory_order_release, memory_order_relaxed))
            return;
    }
    notify_contended(notify);
}

void weft_notify_all(weft_notify *notify)
{
    _Atomic uint32_t *word = weft__word_of(&notify->state);
    struct weft__wait *chain;
    uint32_t state;

    /* relaxed: who waits now has queued before this, as the caller knows, or is not meant */
    if (!(atomic_load_explicit(word, memory_order_relaxed) & QUEUED))
        return;
    state = weft__word_enter(word);
    chain = weft__waiters_take(&notify->waiters);
    notify->generation += WEFT__GENERATION;
    weft__word_leave(word, state & PERMIT);
    weft__wake_chain(chain, WEFT__GRANTED, NULL);
}

static inline bool take_permit(weft_notify *notify)
{
    uint32_t state = PERMIT;

    /* acquire: pairs with the release in weft_notify_one */
    return atomic_compare_exchange_strong_explicit(weft__word_of(&notify->state), &state, 0, memory_order_acquire,
                                                   memory_order_relaxed);
}

static int begin(void *object, struct weft__wait *wait)
{
    weft_notify *notify = object;
    _Atomic uint32_t *word = weft__word_of(&notify->state);
    uint32_t state = weft__word_enter(word);

    if (state & PERMIT) {
        weft__word_leave(word, 0);
        return 0;
    }
    wait->kind = notify->generation;
    weft__waiters_push(&notify->waiters, wait);
    weft__word_leave(word, QUEUED);
    return WEFT__BEGUN;
}

static bool withdraw(void *object, struct weft__wait *wait)
{
    weft_notify *notify = object;

    return weft__withdraw_counted(weft__word_of(&notify->state), &notify->waiters, wait, &notify->generation,
                                  QUEUED);
}

static const struct weft__waitable waitable = {begin, withdraw};

int weft_notify_wait(weft_notify *notify)
{
    struct weft__wait wait = {0};
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    return take_permit(notify) ? 0 : weft__wait_for(&waitable, notify, &wait);
}

intptr_t weft_async_notify(weft_notify *notify)
{
    return weft__async(&waitable, notify, NULL, NULL, NULL);
}
