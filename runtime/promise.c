/*
 * weft_promise: a result that is set once. Any thread; knows only park.h, and the runtime for reporting.
 *
 * The word `set`: bit 0 the lock over the list and the word (waiters.h), SET. Invariant: once SET is there it stays, the list is empty, nobody queues, and
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
 *
 * `taken` says that somebody has got, or is certain to get, a result that is a failure; weft_promise_drop reports one
 * that nobody has. An awaiter that was settled cannot say so, since it must not touch the promise: the setter says
 * it for those in the list, before it publishes SET. One that sees SET is still a user of the promise, which nobody may
 * free before it returns: it says so itself. The field only rises, and drop, which must not run beside an awaiter, reads
 * it after SET: relaxed throughout.
 */
#include "runtime/promise.h"

#include <stdlib.h>
#include <string.h>
#include <weft/promise.h>
#include <weft/runtime.h>
#include <weft/stackless.h>

#include "runtime/debug.h"
#include "runtime/runtime.h"

enum { SET = 2 };

static inline bool is_set(const weft_promise *promise)
{
    /* acquire: pairs with the release in weft_promise_set that publishes SET, and with it the result */
    return (atomic_load_explicit(weft__word_of(&promise->set), memory_order_acquire) & SET) != 0;
}

static inline void mark_taken(weft_promise *promise)
{
    atomic_store_explicit(weft__word_of(&promise->taken), 1, memory_order_relaxed);
}

/* It is set, and the caller takes the result. Nothing is written for a success: it may be read by many. */
static inline intptr_t take(weft_promise *promise)
{
    intptr_t result = promise->result;

    if (__builtin_expect(weft_is_error(result), 0) &&
        atomic_load_explicit(weft__word_of(&promise->taken), memory_order_relaxed) == 0)
        mark_taken(promise);
    return result;
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
    if (chain != NULL)
        mark_taken(promise);
    weft__word_leave(word, SET);
    weft__wake_chain(chain, WEFT__GRANTED, (void *)result);
    return 0;
}

int weft_promise_try(weft_promise *promise, intptr_t *result)
{
    if (!is_set(promise))
        return 0;
    if (result != NULL)
        *result = take(promise);
    return 1;
}

/* ---- waiting ---- */

static int begin(void *object, struct weft__wait *wait)
{
    weft_promise *promise = object;
    _Atomic uint32_t *word = weft__word_of(&promise->set);
    uint32_t state = weft__word_enter(word);

    if (!(state & SET)) {
        weft__waiters_push(&promise->waiters, wait);
        weft__word_leave(word, state);
        return WEFT__BEGUN;
    }
    weft__word_leave(word, state);
    wait->slot = (void *)take(promise);
    return 0;
}

/* The chain that a setter detaches is not marked; SET says it. */
static bool withdraw(void *object, struct weft__wait *wait)
{
    weft_promise *promise = object;
    _Atomic uint32_t *word = weft__word_of(&promise->set);
    uint32_t state = weft__word_enter(word);

    if (!(state & SET))
        weft__waiters_remove(&promise->waiters, wait);
    weft__word_leave(word, state);
    return !(state & SET);
}

const struct weft__waitable weft__promise_waitable = {begin, withdraw};

static intptr_t queue_up(weft_promise *promise)
{
    struct weft__wait wait = {0};
    int rc = weft__wait_for(&weft__promise_waitable, promise, &wait);

    return rc < 0 ? rc : (intptr_t)wait.slot;
}

intptr_t weft_promise_await(weft_promise *promise)
{
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    return is_set(promise) ? take(promise) : queue_up(promise);
}

intptr_t weft_async_promise(weft_promise *promise, intptr_t *result)
{
    void *slot = NULL;
    intptr_t rc = weft__async(&weft__promise_waitable, promise, NULL, NULL, &slot);

    if (rc == 0 && result != NULL)
        *result = (intptr_t)slot;
    return rc;
}

/* ---- what is to be done with the result ---- */

/* The argument of a task of weft_promise_then, which frees it. */
struct then {
    weft_promise *promise;
    weft_promise_fn *fn;
    void *arg;
};

static intptr_t run_then(void *arg)
{
    struct then *state = arg, then = *state;
    intptr_t result = 0, rc = weft_async_promise(then.promise, &result);

    if (rc == WEFT_PENDING)
        return rc;
    free(state);
    return then.fn(rc < 0 ? rc : result, then.arg);
}

weft_task *weft_promise_then(weft_promise *promise, weft_promise_fn *fn, void *arg)
{
    struct then *state;
    weft_task *task;

    if (weft_self() == NULL) {
        weft__misused("weft_promise_then");
        return NULL;
    }
    state = malloc(sizeof(*state));
    if (state == NULL)
        return NULL;
    *state = (struct then){promise, fn, arg};
    /* Always: cancelled before it starts, it must still tell fn and free its state. */
    task = weft__spawn_stackless_always(run_then, state);
    if (task == NULL)
        free(state);
    return task;
}

static void report(intptr_t result)
{
    weft_runtime *runtime = weft_runtime_current();
    const char *debug = getenv("WEFT_DEBUG");

    if (runtime != NULL)
        weft__runtime_report_named(runtime, "promise", result);
    else if (debug != NULL && strcmp(debug, "1") == 0) /* outside a task there is no runtime to ask */
        weft__say("a promise was set to %d (%s) and nobody has awaited it", (int)result,
                  strerrordesc_np((int)-result));
}

void weft_promise_drop(weft_promise *promise)
{
    if (!is_set(promise) || !weft_is_error(promise->result) ||
        atomic_exchange_explicit(weft__word_of(&promise->taken), 1, memory_order_relaxed) != 0)
        return;
    report(promise->result);
}
