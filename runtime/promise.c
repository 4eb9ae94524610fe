/*
 * weft_promise: a result that is set once. Any thread; knows only park.h.
 *
 * The word `set`: bit 0 the lock over the list and the word (waiters.h), SET. The field `lock` of the public
 * structure is not used. Invariant: once SET is there it stays, the list is empty, nobody queues, and
 * `result` does not change.
 *
 * The promise mostly lies in its awaiter's frame, and is gone as soon as the awaiter knows the result. There are
 * two ways to know it:
 *
 *   1. Seeing SET in the word, without the lock. SET is published by the store that leaves the lock, so the
 *      setter's last access to the promise comes before anybody can see it.
 *   2. Being settled. The setter detaches the whole list under the lock and settles the waits after it has left
 *      it; it takes the result to them in their slots, so that an awaiter that was settled does not read the
 *      promise either, which another awaiter may have freed by then.
 *
 * An awaiter that gives up enters the lock (the promise is there, since it still awaits it) and sees either
 * no SET: the setter has not entered, and this wait is in the list, to be taken out; or SET: the setter has
 * detached it and is about to settle it, so it waits that out and returns the result. That a detached wait outlives
 * its settling is shown in waiters.h.
 */
#include "runtime/waiters.h"

#include <errno.h>
#include <weft/promise.h>

enum { SET = 2 };

static inline bool is_set(const weft_promise *promise)
{
    /* acquire: pairs with the release in weft_promise_set that publishes SET, and with it the result */
    return (atomic_load_explicit(weft__word_of(&promise->set), memory_order_acquire) & SET) != 0;
}

int weft_promise_set(weft_promise *promise, intptr_t result)
{
    _Atomic uint32_t *word = weft__word_of(&promise->set);
    struct weft__wait *chain;

    /* A late setter only looks: it leaves no trace in a promise that its awaiter is done with. */
    if (is_set(promise))
        return -EALREADY;
    if (weft__word_enter(word) & SET) {
        weft__word_leave(word, SET);
        return -EALREADY;
    }
    promise->result = result;
    chain = weft__waiters_take(&promise->waiters);
    weft__word_leave(word, SET);
    weft__wake_chain(chain, WEFT__GRANTED, (void *)result);
    return 0;
}

int weft_promise_try(weft_promise *promise, intptr_t *result)
{
    if (!is_set(promise))
        return 0;
    if (result != NULL)
        *result = promise->result;
    return 1;
}

/* The awaiter gives up. False: the promise was set at that moment. */
static bool withdraw(weft_promise *promise, struct weft__wait *wait)
{
    _Atomic uint32_t *word = weft__word_of(&promise->set);
    uint32_t state;

    if (weft__outcome_of(wait) != WEFT__WAITING)
        return false;
    state = weft__word_enter(word);
    if (state & SET) {
        weft__word_leave(word, state);
        weft__wait_out(wait);
        return false;
    }
    weft__waiters_remove(&promise->waiters, wait);
    weft__word_leave(word, state);
    return true;
}

static intptr_t queue_up(weft_promise *promise)
{
    _Atomic uint32_t *word = weft__word_of(&promise->set);
    struct weft__wait wait = {.task = weft__waiter_self()};
    uint32_t state;
    int rc;

    if (wait.task == NULL)
        return -ENOMEM;
    state = weft__word_enter(word);
    if (state & SET) {
        intptr_t result = promise->result;

        weft__word_leave(word, state);
        return result;
    }
    weft__waiters_push(&promise->waiters, &wait);
    weft__word_leave(word, state);
    rc = weft__wait(&wait);
    return rc < 0 && withdraw(promise, &wait) ? rc : (intptr_t)wait.slot;
}

intptr_t weft_promise_await(weft_promise *promise)
{
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    return is_set(promise) ? promise->result : queue_up(promise);
}
