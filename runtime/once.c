/*
 * weft_once: a call that is made once. Any thread; knows only waitable.h.
 *
 * The state word: bit 0 the lock over the list and the word (waiters.h), RUNNING (somebody has the turn), DONE.
 * Invariants, whenever bit 0 is clear: DONE stays, and with it the list is empty and nobody has the turn; who
 * waits waits for one that has it.
 *
 * The turn goes from hand to hand: to the first caller, and when its call has failed, to the first that waits, and to
 * that one only. A waiter that was cancelled when it got the turn passes it on without calling: whatever it called would
 * be refused at every suspension point. A success detaches all, and is seen in the word by those that give up
 * at that moment, since DONE does not go away.
 */
#include "runtime/waitable.h"

enum { RUNNING = 2, DONE = 4 };

static inline bool is_done(const weft_once *once)
{
    /* acquire: pairs with the release that publishes DONE, and with it what the call did */
    return (atomic_load_explicit(weft__word_of(&once->state), memory_order_acquire) & DONE) != 0;
}

/* What a wait ends with, in its slot: the turn, or that all is done (NULL). */
static void *const turn = (void *)1;

static int begin(void *object, struct weft__wait *wait)
{
    weft_once *once = object;
    _Atomic uint32_t *word = weft__word_of(&once->state);
    uint32_t state = weft__word_enter(word);

    if (state & RUNNING) {
        wait->kind = WEFT__QUEUED;
        weft__waiters_push(&once->waiters, wait);
        weft__word_leave(word, state);
        return WEFT__BEGUN;
    }
    wait->slot = state & DONE ? NULL : turn;
    weft__word_leave(word, state & DONE ? DONE : RUNNING);
    return 0;
}

static bool withdraw(void *object, struct weft__wait *wait)
{
    weft_once *once = object;
    _Atomic uint32_t *word = weft__word_of(&once->state);
    uint32_t state = weft__word_enter(word);
    bool queued = !(state & DONE) && wait->kind == WEFT__QUEUED;

    if (queued)
        weft__waiters_remove(&once->waiters, wait);
    weft__word_leave(word, state);
    return queued;
}

static const struct weft__waitable waitable = {begin, withdraw};

static void finish(weft_once *once)
{
    _Atomic uint32_t *word = weft__word_of(&once->state);
    struct weft__wait *chain;

    weft__word_enter(word);
    chain = weft__waiters_take(&once->waiters);
    weft__word_leave(word, DONE);
    weft__wake_chain(chain, WEFT__GRANTED, NULL);
}

static void pass_on(weft_once *once)
{
    _Atomic uint32_t *word = weft__word_of(&once->state);
    struct weft__wait *next;

    weft__word_enter(word);
    next = weft__waiters_pop(&once->waiters);
    weft__word_leave(word, next == NULL ? 0 : RUNNING);
    if (next != NULL) {
        next->slot = turn;
        weft__wake(next, WEFT__GRANTED);
    }
}

static int call(weft_once *once, weft_fn *fn, void *arg)
{
    intptr_t result = fn(arg);

    if (weft_is_error(result)) {
        pass_on(once);
        return (int)result;
    }
    finish(once);
    return 0;
}

static __attribute__((noinline)) int wait_or_call(weft_once *once, weft_fn *fn, void *arg)
{
    struct weft__wait wait = {0};
    int rc = weft__wait_for(&waitable, once, &wait);

    if (rc < 0 || wait.slot != turn)
        return rc;
    rc = weft__suspend_check();
    if (rc == 0)
        return call(once, fn, arg);
    pass_on(once);
    return rc;
}

int weft_once_do(weft_once *once, weft_fn *fn, void *arg)
{
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    return is_done(once) ? 0 : wait_or_call(once, fn, arg);
}
