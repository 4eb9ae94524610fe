/*
 * weft_event: a flag to wait for. Any thread; knows only park.h.
 *
 * The word `set`: bit 0 the lock over the list and the word (waiters.h), SET. Invariant, whenever bit 0 is clear:
 * with SET, the list is empty.
 *
 * Setting detaches the whole list under the lock and publishes SET by the store that leaves the lock; so a waiter
 * that sees SET, with or without the lock, may free the event: the setter has only the detached waits left.
 * A clear right after takes nothing back, since those waits are out of its reach.
 *
 * A waiter that gives up must tell whether it is still in the list. The chain that a setter detached is not
 * marked (waiters.h says why); instead the field `lock` of the public structure counts the sets, under the
 * lock, and each wait remembers in `kind` the count at which it was queued: it is in the list exactly as long as
 * the count stands still. (The count would have to go round once, 2^32 sets, between a waiter's look at its
 * outcome and its entering the lock, with its setter stopped all that time, to deceive it.)
 */
#include "runtime/waiters.h"

#include <errno.h>

enum { SET = 2 };

void weft_event_set(weft_event *event)
{
    _Atomic uint32_t *word = weft__word_of(&event->set);
    struct weft__wait *chain;

    weft__word_enter(word);
    chain = weft__waiters_take(&event->waiters);
    event->lock++;
    weft__word_leave(word, SET);
    weft__wake_chain(chain, WEFT__GRANTED, NULL);
}

void weft_event_clear(weft_event *event)
{
    _Atomic uint32_t *word = weft__word_of(&event->set);

    weft__word_enter(word);
    weft__word_leave(word, 0);
}

int weft_event_is_set(const weft_event *event)
{
    /* acquire: pairs with the release in weft_event_set */
    return (atomic_load_explicit(weft__word_of(&event->set), memory_order_acquire) & SET) != 0;
}

/* The waiter gives up. False: the event was set at that moment. */
static bool withdraw(weft_event *event, struct weft__wait *wait)
{
    _Atomic uint32_t *word = weft__word_of(&event->set);
    uint32_t state;

    if (weft__outcome_of(wait) != WEFT__WAITING)
        return false;
    state = weft__word_enter(word);
    if (wait->kind != event->lock) {
        weft__word_leave(word, state);
        weft__wait_out(wait);
        return false;
    }
    weft__waiters_remove(&event->waiters, wait);
    weft__word_leave(word, state);
    return true;
}

static int queue_up(weft_event *event)
{
    _Atomic uint32_t *word = weft__word_of(&event->set);
    struct weft__wait wait = {.task = weft__waiter_self()};
    uint32_t state;
    int rc;

    if (wait.task == NULL)
        return -ENOMEM;
    state = weft__word_enter(word);
    if (state & SET) {
        weft__word_leave(word, state);
        return 0;
    }
    wait.kind = event->lock;
    weft__waiters_push(&event->waiters, &wait);
    weft__word_leave(word, state);
    rc = weft__wait(&wait);
    return rc < 0 && withdraw(event, &wait) ? rc : 0;
}

int weft_event_wait(weft_event *event)
{
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    return weft_event_is_set(event) ? 0 : queue_up(event);
}
