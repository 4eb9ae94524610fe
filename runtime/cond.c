/*
 * weft_cond: wait for a change of what a mutex protects. Any thread; knows only waitable.h and the mutex.
 *
 * The state word: bit 0 the lock over the list and the word (waiters.h), QUEUED (the list is not empty). A signal
 * detaches one wait and marks it, a broadcast detaches all and counts (`generation`; waiters.h,
 * weft__withdraw_counted).
 *
 * A waiter queues first and unlocks the mutex then, so there is no moment at which it has given the mutex up and
 * cannot be notified. Between the two it does not suspend; a notification that comes that early makes the park
 * that follows return at once. Whoever changes what the mutex protects, with the mutex held, comes after the waiter's
 * unlock, and so sees QUEUED without a fence, or a state after it: that is why a look at the word is enough when
 * nobody waits.
 *
 * A waiter that gives up while a notification is on its way to it waits for that and reports it (waiters.h, 3): none
 * is swallowed. The mutex is then taken again under a mask, in every case.
 */
#include "runtime/waitable.h"

enum { QUEUED = 2 };

static int begin(void *object, struct weft__wait *wait)
{
    weft_cond *cond = object;
    _Atomic uint32_t *word = weft__word_of(&cond->state);

    weft__word_enter(word);
    wait->kind = cond->generation;
    weft__waiters_push(&cond->waiters, wait);
    weft__word_leave(word, QUEUED);
    return WEFT__BEGUN;
}

static bool withdraw(void *object, struct weft__wait *wait)
{
    weft_cond *cond = object;

    return weft__withdraw_counted(weft__word_of(&cond->state), &cond->waiters, wait, &cond->generation, QUEUED);
}

static const struct weft__waitable waitable = {begin, withdraw};

/* There was no mutex to give up: as if this had not waited. */
static int refuse(weft_cond *cond, struct weft__wait *wait, int rc)
{
    if (!withdraw(cond, wait)) {
        weft__wait_out(wait);
        weft_cond_signal(cond); /* somebody else's notification */
    }
    return rc;
}

static void lock_again(weft_mutex *mutex)
{
    bool masked = weft__mask_begin();

    /* Masked, and with a record that has already waited, nothing can refuse it. */
    while (weft_mutex_lock(mutex) < 0)
        sched_yield();
    if (masked)
        weft_mask_end();
}

int weft_cond_wait(weft_cond *cond, weft_mutex *mutex)
{
    struct weft__wait wait = {0};
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    wait.task = weft__waiter_self();
    if (wait.task == NULL)
        return -ENOMEM;
    begin(cond, &wait);
    rc = weft_mutex_unlock(mutex);
    if (rc < 0)
        return refuse(cond, &wait, rc);
    rc = weft__wait_or_withdraw(&waitable, cond, &wait);
    lock_again(mutex);
    return rc;
}

static inline bool somebody_waits(weft_cond *cond)
{
    /* relaxed: above */
    return (atomic_load_explicit(weft__word_of(&cond->state), memory_order_relaxed) & QUEUED) != 0;
}

int weft_cond_signal(weft_cond *cond)
{
    _Atomic uint32_t *word = weft__word_of(&cond->state);
    struct weft__wait *first;

    if (!somebody_waits(cond))
        return 0;
    weft__word_enter(word);
    first = weft__waiters_pop(&cond->waiters);
    weft__word_leave(word, weft__waiters_empty(&cond->waiters) ? 0 : QUEUED);
    if (first == NULL) /* it gave up meanwhile */
        return 0;
    weft__wake(first, WEFT__GRANTED);
    return 1;
}

int weft_cond_broadcast(weft_cond *cond)
{
    _Atomic uint32_t *word = weft__word_of(&cond->state);
    struct weft__wait *next;
    int n = 0;

    if (!somebody_waits(cond))
        return 0;
    weft__word_enter(word);
    next = weft__waiters_take(&cond->waiters);
    cond->generation += WEFT__GENERATION;
    weft__word_leave(word, 0);
    for (; next != NULL; n++) {
        struct weft__wait *wait = next;

        next = wait->next;
        weft__wake(wait, WEFT__GRANTED);
    }
    return n;
}
